//! The order of the leaves: a B+ tree that counts, so ranks are sums of counts along one path.
//!
//! Inner nodes know for each child how many entries are below it and the lower end of its keys (`order`, `member`).
//! That lower end is not an entry but the shortest key that separates the child from its left neighbour: where the
//! scores differ its member part is empty and costs nothing, and in a set of equal scores it is the few bytes that
//! tell two members apart. The first child's lower end is never looked at.
//!
//! Leaves are numbered (see `pages.rs`), inner nodes counted pointers; both are copied on write along the path.

use super::index::Index;
use super::leaf::{LEAF_BYTES_MAX, LEAF_BYTES_MIN, LEAF_MERGED_MAX, Leaf, NewEntry, View};
use super::pages::{Pages, clone_with_capacity};
use crate::alloc::good_size;
use crate::moves::Mover;
use std::sync::Arc;

/// Children per inner node. A node is 3 KiB; a million members have about 20 000 leaves, 450 nodes above them.
const FANOUT: usize = 64;
const FANOUT_MIN: usize = FANOUT / 4;
const FANOUT_MERGED_MAX: usize = FANOUT * 3 / 4;
/// Nodes but the root have at least a few children, and leaf numbers have 28 bits: no tree is higher.
pub(super) const HEIGHT_MAX: usize = 16;

#[derive(Clone)]
pub(super) enum Child {
    Leaf(u32),
    Node(Arc<Node>),
}

#[derive(Clone)]
pub(super) struct Entry {
    pub(super) child: Child,
    pub(super) count: usize,
    order: u64,
    member: Box<[u8]>,
}

impl Entry {
    /// Gives what is below other addresses, but for leaves. As deep as the tree is high.
    fn relocate(&mut self, mover: &mut Mover<'_>) {
        mover.bytes(&mut self.member);
        if let Child::Node(node) = &mut self.child
            && let Some(node) = mover.shared(node)
        {
            mover.vec(&mut node.entries);
            node.entries.iter_mut().for_each(|entry| entry.relocate(mover));
        }
    }
}

/// An inner node.
pub(super) struct Node {
    pub(super) entries: Vec<Entry>,
    /// What the member parts of the separators hold.
    members_heap: usize,
}

impl Clone for Node {
    fn clone(&self) -> Self {
        Node { entries: clone_with_capacity(&self.entries), members_heap: self.members_heap }
    }
}

impl Node {
    pub(super) const EMPTY: Node = Node { entries: Vec::new(), members_heap: 0 };

    pub(super) fn heap_bytes(&self) -> usize {
        const NODE: usize = good_size(2 * size_of::<usize>() + size_of::<Node>());
        NODE + good_size(self.entries.capacity() * size_of::<Entry>()) + self.members_heap
    }

    pub(super) fn count(&self) -> usize {
        self.entries.iter().map(|entry| entry.count).sum()
    }

    /// The child whose keys may include this one.
    #[inline]
    pub(super) fn child_for(&self, order: u64, member: &[u8]) -> usize {
        let above = |entry: &Entry| entry.order > order || entry.order == order && &*entry.member > member;
        let (mut low, mut high) = (1, self.entries.len());
        while low < high {
            let middle = (low + high) / 2;
            if above(&self.entries[middle]) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        low - 1
    }

    /// The child with the entry of this rank, and its rank in there.
    #[inline]
    pub(super) fn child_at(&self, mut rank: usize) -> (usize, usize) {
        for (at, entry) in self.entries.iter().enumerate() {
            if rank < entry.count {
                return (at, rank);
            }
            rank -= entry.count;
        }
        panic!("rank beyond the end");
    }

    #[inline]
    fn count_before(&self, child: usize) -> usize {
        self.entries[..child].iter().map(|entry| entry.count).sum()
    }

    fn insert(&mut self, at: usize, entry: Entry) {
        self.members_heap += good_size(entry.member.len());
        self.entries.insert(at, entry);
    }

    fn remove(&mut self, at: usize) -> Entry {
        let entry = self.entries.remove(at);
        self.members_heap -= good_size(entry.member.len());
        entry
    }

    /// Moves the entries from `at` on to a new node.
    fn split_off(&mut self, at: usize) -> Node {
        let mut right = Node { entries: Vec::with_capacity(FANOUT / 2), members_heap: 0 };
        right.entries.extend(self.entries.drain(at..));
        right.members_heap = right.entries.iter().map(|entry| good_size(entry.member.len())).sum();
        self.members_heap -= right.members_heap;
        self.entries.shrink_to(FANOUT / 2);
        right
    }
}

/// The shortest key above the last entry of `left` and not above the first of `right`.
fn separator(left: &Leaf, right: &Leaf) -> (u64, Box<[u8]>) {
    let (order, below) = (right.order(0), left.len() - 1);
    if left.order(below) < order {
        return (order, Box::default());
    }
    let (low, high) = (left.member(below), right.member(0));
    let same = low.iter().zip(high).take_while(|(a, b)| a == b).count();
    (order, high[..same + 1].into())
}

/// Everything but the root: what a step down the tree may need besides the node it is at.
#[derive(Clone)]
pub(super) struct Store {
    pub(super) leaves: Pages<Leaf>,
    pub(super) index: Index,
    /// Numbers of leaves that are no more, to be used again.
    free: Arc<Vec<u32>>,
    /// What leaves and inner nodes hold.
    pub(super) heap: usize,
}

impl Store {
    pub(super) fn new(seed: u64) -> Store {
        Store { leaves: Pages::new(), index: Index::new(seed), free: Arc::default(), heap: 0 }
    }

    /// The leaf with the entry of this rank, which exists, and the entry's position there.
    #[inline]
    pub(super) fn leaf_at(&self, root: &Node, mut rank: usize) -> (View<'_>, usize) {
        let mut node = root;
        loop {
            let (child, inside) = node.child_at(rank);
            rank = inside;
            match &node.entries[child].child {
                Child::Node(below) => node = below,
                Child::Leaf(number) => return (self.leaves.get(*number as usize).view(), rank),
            }
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        const FREE: usize = good_size(2 * size_of::<usize>() + size_of::<Vec<u32>>());
        self.heap
            + self.leaves.heap_bytes()
            + self.index.heap_bytes()
            + FREE
            + good_size(self.free.capacity() * size_of::<u32>())
    }

    pub(super) fn add_leaf(&mut self, leaf: Leaf) -> u32 {
        self.heap += leaf.heap_bytes();
        if self.free.is_empty() {
            return self.leaves.push(Arc::new(leaf)) as u32;
        }
        let number = Arc::make_mut(&mut self.free).pop().expect("not empty");
        self.leaves.fill(number as usize, Arc::new(leaf));
        number
    }

    fn drop_leaf(&mut self, number: u32) {
        self.heap -= self.leaves.get(number as usize).heap_bytes();
        self.leaves.take(number as usize);
        Arc::make_mut(&mut self.free).push(number);
    }

    pub(super) fn change_leaf<R>(&mut self, number: u32, change: impl FnOnce(&mut Leaf) -> R) -> R {
        let leaf = Arc::make_mut(self.leaves.pointer_mut(number as usize));
        let before = leaf.heap_bytes();
        let result = change(leaf);
        self.heap = self.heap - before + leaf.heap_bytes();
        result
    }

    fn change_node<R>(&mut self, node: &mut Arc<Node>, change: impl FnOnce(&mut Node) -> R) -> R {
        let node = Arc::make_mut(node);
        let before = node.heap_bytes();
        let result = change(node);
        self.heap = self.heap - before + node.heap_bytes();
        result
    }

    fn add_node(&mut self, node: Node) -> Arc<Node> {
        self.heap += node.heap_bytes();
        Arc::new(node)
    }

    /// A root above one leaf with one entry.
    pub(super) fn first(&mut self, new: &NewEntry<'_>, hash: u64) -> Arc<Node> {
        let number = self.add_leaf(Leaf::of(new));
        self.index.insert(hash, number);
        let entry = Entry { child: Child::Leaf(number), count: 1, order: 0, member: Box::default() };
        self.add_node(Node { entries: vec![entry], members_heap: 0 })
    }

    /// Adds a leaf at the end of the set that grows, behind the leaf at that end or with `before` in front of it. Its
    /// members are not in the index yet.
    pub(super) fn leaf_beside(&mut self, beside: Option<&mut Entry>, leaf: Leaf, before: bool) -> Entry {
        let count = leaf.len();
        let mut entry = Entry { child: Child::Leaf(0), count, order: 0, member: Box::default() };
        if let Some(beside) = beside {
            let Child::Leaf(number) = beside.child else { unreachable!("a leaf is beside a leaf") };
            let other = self.leaves.get(number as usize);
            if before {
                (beside.order, beside.member) = separator(&leaf, other);
            } else {
                (entry.order, entry.member) = separator(other, &leaf);
            }
        }
        entry.child = Child::Leaf(self.add_leaf(leaf));
        entry
    }

    /// Puts inner nodes above all leaves, level by level; the root.
    pub(super) fn build(&mut self, mut level: Vec<Entry>) -> Option<Arc<Node>> {
        loop {
            let parents = level.len().div_ceil(FANOUT);
            let mut entries = level.into_iter();
            let mut above = Vec::with_capacity(parents);
            for at in 0..parents {
                // All nodes of a level are equally full.
                let share = entries.len().div_ceil(parents - at);
                let mut below = Vec::with_capacity(if share > FANOUT / 2 { FANOUT } else { share });
                below.extend(entries.by_ref().take(share));
                let member = std::mem::take(&mut below[0].member);
                let members_heap = below.iter().map(|entry| good_size(entry.member.len())).sum();
                let node = Node { entries: below, members_heap };
                let (count, order) = (node.count(), node.entries[0].order);
                above.push(Entry { child: Child::Node(self.add_node(node)), count, order, member });
            }
            if above.len() <= 1 {
                return above.pop().map(|root| match root.child {
                    Child::Node(root) => root,
                    Child::Leaf(_) => unreachable!("just made a node"),
                });
            }
            level = above;
        }
    }

    /// Inserts an entry whose member is not in the set. A new root when the old one had to be split.
    pub(super) fn insert(&mut self, root: &mut Arc<Node>, new: &NewEntry<'_>, hash: u64) {
        if let Some(right) = self.insert_below(root, new, hash, true, true) {
            let left = Entry {
                count: root.count(),
                child: Child::Node(Arc::clone(root)),
                order: 0,
                member: Box::default(),
            };
            let members_heap = good_size(right.member.len());
            *root = self.add_node(Node { entries: vec![left, right], members_heap });
        }
    }

    /// The recursion is as deep as the tree is high, at most [`HEIGHT_MAX`].
    fn insert_below(
        &mut self,
        node: &mut Arc<Node>,
        new: &NewEntry<'_>,
        hash: u64,
        leftmost: bool,
        rightmost: bool,
    ) -> Option<Entry> {
        let at = node.child_for(new.order, new.member);
        let leftmost = leftmost && at == 0;
        let rightmost = rightmost && at + 1 == node.entries.len();
        let inner = Arc::make_mut(node);
        let entry = &mut inner.entries[at];
        let split = match &mut entry.child {
            Child::Leaf(number) => self.insert_in_leaf(number, new, hash, leftmost, rightmost),
            Child::Node(child) => self.insert_below(child, new, hash, leftmost, rightmost),
        };
        entry.count += 1;
        let right = split?;
        entry.count -= right.count;
        self.change_node(node, |node| node.insert(at + 1, right));
        if node.entries.len() <= FANOUT {
            return None;
        }
        // Ascending insertions leave full nodes behind them, as they do full leaves.
        let cut = if rightmost { FANOUT - 1 } else { FANOUT / 2 };
        let mut right = self.change_node(node, |node| node.split_off(cut));
        let (order, member) = {
            let first = &mut right.entries[0];
            let member = std::mem::take(&mut first.member);
            right.members_heap -= good_size(member.len());
            (first.order, member)
        };
        let count = right.count();
        Some(Entry { child: Child::Node(self.add_node(right)), count, order, member })
    }

    fn insert_in_leaf(
        &mut self,
        number: &mut u32,
        new: &NewEntry<'_>,
        hash: u64,
        leftmost: bool,
        rightmost: bool,
    ) -> Option<Entry> {
        let leaf = self.leaves.get(*number as usize);
        let at = leaf.lower_bound(new.order, new.member, false);
        if leaf.size_with(new) <= LEAF_BYTES_MAX || leaf.len() < 2 {
            self.change_leaf(*number, |leaf| leaf.insert(at, new));
            self.index.insert(hash, *number);
            return None;
        }
        // Beyond either end of the set: start a leaf and leave the full one full.
        if rightmost && at == leaf.len() {
            let right = Leaf::of(new);
            let (order, member) = separator(leaf, &right);
            let added = self.add_leaf(right);
            self.index.insert(hash, added);
            return Some(Entry { child: Child::Leaf(added), count: 1, order, member });
        }
        if leftmost && at == 0 {
            let left = Leaf::of(new);
            let (order, member) = separator(&left, leaf);
            let count = leaf.len();
            let added = self.add_leaf(left);
            self.index.insert(hash, added);
            let full = std::mem::replace(number, added);
            return Some(Entry { child: Child::Leaf(full), count, order, member });
        }
        let middle = leaf.middle();
        let mut left = Leaf::build(&[(leaf, 0..middle)], None);
        let mut right = Leaf::build(&[(leaf, middle..leaf.len())], None);
        // The index learns of the moved entries first and of the new one last: it looks members up in their
        // leaves when it grows.
        let moved: Vec<u64> = (0..right.len()).map(|at| self.index.hash(right.member(at))).collect();
        let into_left = at <= middle;
        if into_left {
            left.insert(at, new);
        } else {
            right.insert(at - middle, new);
        }
        let (order, member) = separator(&left, &right);
        let count = right.len();
        self.change_leaf(*number, |leaf| *leaf = left);
        let added = self.add_leaf(right);
        for hash in moved {
            self.index.relabel(hash, *number, added);
        }
        self.index.insert(hash, if into_left { *number } else { added });
        Some(Entry { child: Child::Leaf(added), count, order, member })
    }

    /// Removes up to `max` neighbouring entries from one leaf; how many. `None` as root is an empty set.
    pub(super) fn remove(&mut self, root: &mut Option<Arc<Node>>, target: &Target<'_>, max: usize) -> usize {
        let node = root.as_mut().expect("a set with entries");
        let removed = self.remove_below(node, *target, max);
        while let [Entry { child: Child::Node(only), .. }] = &node.entries[..] {
            let only = Arc::clone(only);
            self.heap -= node.heap_bytes();
            *node = only;
        }
        if node.entries.is_empty() {
            self.heap -= node.heap_bytes();
            *root = None;
        }
        removed
    }

    /// As deep as the tree is high.
    fn remove_below(&mut self, node: &mut Arc<Node>, target: Target<'_>, max: usize) -> usize {
        let (at, inside) = match target {
            Target::Rank(rank) => {
                let (at, rank) = node.child_at(rank);
                (at, Target::Rank(rank))
            }
            Target::Key(order, member) => (node.child_for(order, member), target),
        };
        let entry = &mut Arc::make_mut(node).entries[at];
        let (removed, small) = match &mut entry.child {
            Child::Leaf(number) => self.remove_from_leaf(*number, inside, max),
            Child::Node(child) => {
                let removed = self.remove_below(child, inside, max);
                if child.entries.is_empty() {
                    self.heap -= child.heap_bytes();
                }
                (removed, child.entries.len() < FANOUT_MIN)
            }
        };
        entry.count -= removed;
        if entry.count == 0 {
            self.change_node(node, |node| drop(node.remove(at)));
        } else if small {
            let merged = at + 1 < node.entries.len() && self.merge(node, at);
            let _ = merged || at > 0 && self.merge(node, at - 1);
        }
        removed
    }

    fn remove_from_leaf(&mut self, number: u32, target: Target<'_>, max: usize) -> (usize, bool) {
        let leaf = self.leaves.get(number as usize);
        let from = match target {
            Target::Rank(rank) => rank,
            Target::Key(order, member) => leaf.lower_bound(order, member, false),
        };
        let until = leaf.len().min(from.saturating_add(max));
        for at in from..until {
            self.index.remove(self.index.hash(leaf.member(at)), number);
        }
        if until - from == leaf.len() {
            self.drop_leaf(number);
            return (until - from, false);
        }
        let small = self.change_leaf(number, |leaf| {
            leaf.remove(from..until);
            leaf.size() < LEAF_BYTES_MIN
        });
        (until - from, small)
    }

    /// Merges the children `at` and `at + 1` if the result leaves room to grow; whether it did.
    fn merge(&mut self, node: &mut Arc<Node>, at: usize) -> bool {
        let merged = match (&node.entries[at].child, &node.entries[at + 1].child) {
            (&Child::Leaf(left), &Child::Leaf(right)) => self.merge_leaves(left, right).map(Child::Leaf),
            (Child::Node(left), Child::Node(right)) => {
                if left.entries.len() + right.entries.len() > FANOUT_MERGED_MAX {
                    return false;
                }
                let (mut left, mut right) = (Arc::clone(left), Arc::clone(right));
                // The parent's pointers go first, or the nodes would count as shared and be copied.
                let parent = Arc::make_mut(node);
                parent.entries[at].child = Child::Leaf(u32::MAX);
                parent.entries[at + 1].child = Child::Leaf(u32::MAX);
                let (order, member) = (parent.entries[at + 1].order, parent.entries[at + 1].member.clone());
                self.heap -= right.heap_bytes();
                let right = Arc::make_mut(&mut right);
                let first = &mut right.entries[0];
                right.members_heap += good_size(member.len());
                right.members_heap -= good_size(first.member.len());
                (first.order, first.member) = (order, member);
                self.change_node(&mut left, |left| {
                    left.entries.append(&mut right.entries);
                    left.members_heap += right.members_heap;
                });
                Some(Child::Node(left))
            }
            _ => unreachable!("all leaves are equally deep"),
        };
        let Some(child) = merged else { return false };
        self.change_node(node, |node| {
            let gone = node.remove(at + 1);
            node.entries[at].count += gone.count;
            node.entries[at].child = child;
        });
        true
    }

    /// The number that both leaves' entries have afterwards: that of the one with more of them.
    fn merge_leaves(&mut self, left: u32, right: u32) -> Option<u32> {
        let (low, high) = (self.leaves.get(left as usize), self.leaves.get(right as usize));
        if low.size() + high.size() > LEAF_MERGED_MAX {
            return None;
        }
        let both = Leaf::build(&[(low, 0..low.len()), (high, 0..high.len())], None);
        if both.size() > LEAF_MERGED_MAX {
            return None;
        }
        let (kept, gone) = if low.len() >= high.len() { (left, right) } else { (right, left) };
        let moved = self.leaves.get(gone as usize);
        for at in 0..moved.len() {
            self.index.relabel(self.index.hash(moved.member(at)), gone, kept);
        }
        self.drop_leaf(gone);
        self.change_leaf(kept, |leaf| *leaf = both);
        Some(kept)
    }

    /// How many entries are below the key; with `after`, also an entry equal to it.
    pub(super) fn lower_bound(&self, root: &Node, order: u64, member: &[u8], after: bool) -> usize {
        let (mut node, mut rank) = (root, 0);
        loop {
            let at = node.child_for(order, member);
            rank += node.count_before(at);
            match &node.entries[at].child {
                Child::Leaf(leaf) => {
                    return rank + self.leaves.get(*leaf as usize).lower_bound(order, member, after);
                }
                Child::Node(child) => node = child,
            }
        }
    }

    /// Frees up to `budget` nodes of a set that is being taken apart; how many.
    pub(super) fn free_some(&mut self, root: &mut Option<Arc<Node>>, budget: usize) -> usize {
        let mut freed = 0;
        while freed < budget
            && let Some(leaf) = self.leaves.pop()
        {
            self.heap -= leaf.map_or(0, |leaf| leaf.heap_bytes());
            freed += 1;
        }
        freed += self.index.free_some(budget - freed);
        while freed < budget
            && let Some(top) = root
        {
            // Shared with a clone: only the pointer goes.
            let Some(node) = Arc::get_mut(top) else {
                self.heap = 0;
                *root = None;
                break;
            };
            let before = node.heap_bytes();
            match node.entries.pop() {
                Some(Entry { child: Child::Node(mut child), member, .. }) => {
                    node.members_heap -= good_size(member.len());
                    // One level at a time: the child's nodes move up and the child goes. Its leaves are gone.
                    self.heap -= child.heap_bytes();
                    let nested = Arc::get_mut(&mut child).map(|child| std::mem::take(&mut child.entries));
                    let nested = nested.unwrap_or_default();
                    node.entries
                        .extend(nested.into_iter().filter(|entry| matches!(entry.child, Child::Node(_))));
                    self.heap = self.heap - before + node.heap_bytes();
                }
                Some(_) => {}
                None => {
                    *root = None;
                    self.heap = 0;
                }
            }
            freed += 1;
        }
        freed
    }

    /// Gives allocations other addresses; see [`Mover`]. Leaves are parts, buckets of the index, and what is below each
    /// child of the root.
    pub(super) fn relocate(&mut self, root: Option<&mut Arc<Node>>, mover: &mut Mover<'_>) {
        if let Some(free) = mover.shared(&mut self.free) {
            mover.vec(free);
        }
        self.leaves.relocate(mover, |leaf, mover| {
            if let Some(leaf) = mover.shared(leaf) {
                leaf.relocate(mover);
            }
        });
        self.index.relocate(mover);
        let Some(root) = root.and_then(|root| mover.shared(root)) else { return };
        mover.vec(&mut root.entries);
        let mut parts = mover.parts(root.entries.len());
        while let Some(at) = mover.next(&mut parts) {
            root.entries[at].relocate(mover);
        }
    }

    /// Panics unless counts, separators, sizes and the heap sum hold.
    pub(super) fn check(&self, root: Option<&Arc<Node>>, len: usize) {
        let mut walked = Walked::default();
        if let Some(root) = root {
            assert!(
                !matches!(&root.entries[..], [Entry { child: Child::Node(_), .. }]),
                "a root without purpose"
            );
            self.check_below(root, None, None, 1, &mut walked);
            assert_eq!(root.count(), len);
        }
        assert_eq!(walked.leaves, self.leaves.iter().count(), "leaves that the tree does not know");
        assert_eq!(walked.leaves + self.free.len(), self.leaves.len());
        assert_eq!(walked.heap, self.heap);
        assert_eq!(self.leaves.heap_bytes(), self.leaves.heap_bytes_slow());
        self.index.check(len, &self.leaves);
    }

    fn check_below(
        &self,
        node: &Node,
        low: Option<Key<'_>>,
        high: Option<Key<'_>>,
        depth: usize,
        walked: &mut Walked,
    ) {
        assert!(depth < HEIGHT_MAX && !node.entries.is_empty() && node.entries.len() <= FANOUT);
        walked.heap += node.heap_bytes();
        let members: usize = node.entries.iter().map(|entry| good_size(entry.member.len())).sum();
        assert_eq!(members, node.members_heap);
        for (at, entry) in node.entries.iter().enumerate() {
            let low = if at == 0 { low } else { Some((entry.order, &*entry.member)) };
            let high = node.entries.get(at + 1).map_or(high, |next| Some((next.order, &*next.member)));
            match &entry.child {
                Child::Leaf(number) => {
                    let leaf = self.leaves.get(*number as usize);
                    leaf.check();
                    assert_eq!(*walked.depth.get_or_insert(depth), depth, "leaves at different depths");
                    assert_eq!(leaf.len(), entry.count);
                    walked.leaves += 1;
                    walked.heap += leaf.heap_bytes();
                    let (first, last) = (0, leaf.len() - 1);
                    assert!(low.is_none_or(|low| low <= (leaf.order(first), leaf.member(first))));
                    assert!(high.is_none_or(|high| (leaf.order(last), leaf.member(last)) < high));
                }
                Child::Node(child) => {
                    assert_eq!(child.count(), entry.count);
                    self.check_below(child, low, high, depth + 1, walked);
                }
            }
        }
    }
}

type Key<'a> = (u64, &'a [u8]);

/// What `check` adds up.
#[derive(Default)]
struct Walked {
    depth: Option<usize>,
    leaves: usize,
    heap: usize,
}

/// Where to remove.
#[derive(Clone, Copy)]
pub(super) enum Target<'a> {
    Rank(usize),
    Key(u64, &'a [u8]),
}
