//! Walking the entries in either direction.

use super::leaf::View;
use super::tree::{Child, HEIGHT_MAX, Node, Store};

/// Entries of a range of ranks, ascending or descending.
///
/// Keeps the path from the root, so the step from leaf to leaf costs a few pointers and the tree needs no sibling
/// links, which copy-on-write nodes could not have.
pub struct Iter<'a> {
    store: &'a Store,
    path: [(&'a Node, usize); HEIGHT_MAX],
    depth: usize,
    leaf: View<'a>,
    at: usize,
    left: usize,
    reverse: bool,
}

const NO_NODE: &Node = &Node::EMPTY;

impl<'a> Iter<'a> {
    pub(super) fn empty(store: &'a Store) -> Self {
        let path = [(NO_NODE, 0); HEIGHT_MAX];
        Iter { store, path, depth: 0, leaf: View::EMPTY, at: 0, left: 0, reverse: false }
    }

    /// `count` entries from the one of rank `rank`, which exists, towards the end or the beginning.
    pub(super) fn new(store: &'a Store, root: &'a Node, rank: usize, count: usize, reverse: bool) -> Self {
        let mut path = [(root, 0); HEIGHT_MAX];
        let (mut node, mut rank, mut depth) = (root, rank, 0);
        loop {
            let (child, inside) = node.child_at(rank);
            path[depth] = (node, child);
            depth += 1;
            rank = inside;
            match &node.entries[child].child {
                Child::Node(below) => node = below,
                Child::Leaf(number) => {
                    let leaf = store.leaves.get(*number as usize).view();
                    return Iter { store, path, depth, leaf, at: rank, left: count, reverse };
                }
            }
        }
    }

    #[cold]
    fn next_leaf(&mut self) {
        while self.depth > 0 {
            let (node, child) = self.path[self.depth - 1];
            let next = if self.reverse { child.wrapping_sub(1) } else { child + 1 };
            if next < node.entries.len() {
                self.path[self.depth - 1].1 = next;
                return self.descend();
            }
            self.depth -= 1;
        }
        unreachable!("the count was checked against the length")
    }

    fn descend(&mut self) {
        loop {
            let (node, child) = self.path[self.depth - 1];
            match &node.entries[child].child {
                Child::Node(below) => {
                    let edge = if self.reverse { below.entries.len() - 1 } else { 0 };
                    self.path[self.depth] = (below, edge);
                    self.depth += 1;
                }
                Child::Leaf(number) => {
                    self.leaf = self.store.leaves.get(*number as usize).view();
                    self.at = if self.reverse { self.leaf.len() - 1 } else { 0 };
                    return;
                }
            }
        }
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a [u8], f64);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        // One beyond the leaf at either side wraps or exceeds; both mean the neighbour.
        if self.at >= self.leaf.len() {
            self.next_leaf();
        }
        let item = (self.leaf.member(self.at), self.leaf.score(self.at));
        self.at = if self.reverse { self.at.wrapping_sub(1) } else { self.at + 1 };
        self.left -= 1;
        Some(item)
    }

    /// A leaf at a time, ascending: where a member begins is where the one before it ended.
    fn fold<B, F: FnMut(B, Self::Item) -> B>(mut self, init: B, mut f: F) -> B {
        let mut result = init;
        if self.reverse {
            for item in self.by_ref() {
                result = f(result, item);
            }
            return result;
        }
        while self.left > 0 {
            if self.at >= self.leaf.len() {
                self.next_leaf();
            }
            let until = self.leaf.len().min(self.at + self.left);
            self.left -= until - self.at;
            result = self.leaf.fold(self.at..until, result, &mut f);
            self.at = until;
        }
        result
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Iter<'_> {}
