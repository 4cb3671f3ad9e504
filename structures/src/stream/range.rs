//! Reading entries in either direction.

use super::id::StreamId;
use super::node::{Entry, Node, Place, Places};
use super::nodes::{At, Nodes};

/// The entries between two ids, both included.
///
/// Ascending, this decodes as it goes. Descending, it finds the places of a node's entries first and then walks
/// them backwards: the entries point only forward.
pub struct Range<'a> {
    nodes: &'a Nodes,
    at: Option<At>,
    node: Option<&'a Node>,
    forward: Option<Places<'a>>,
    backward: Vec<Place>,
    start: StreamId,
    end: StreamId,
}

impl<'a> Range<'a> {
    pub(super) fn new(nodes: &'a Nodes, start: StreamId, end: StreamId, reverse: bool) -> Range<'a> {
        let mut range =
            Range { nodes, at: None, node: None, forward: None, backward: Vec::new(), start, end };
        if start > end {
            return range;
        }
        if reverse {
            range.enter_backward(nodes.find(end));
        } else {
            range.enter(nodes.find(start).or_else(|| nodes.first()));
        }
        range
    }

    fn enter(&mut self, at: Option<At>) {
        self.at = at;
        self.node = at.map(|at| self.nodes.get(at));
        self.forward = self.node.map(Node::places);
    }

    fn enter_backward(&mut self, at: Option<At>) {
        self.at = at;
        self.node = at.map(|at| self.nodes.get(at));
        let Some(node) = self.node else { return };
        self.backward.reserve(node.live());
        let (start, end) = (self.start, self.end);
        for place in node.places() {
            if place.id > end {
                break;
            }
            if !place.deleted && place.id >= start {
                self.backward.push(place);
            }
        }
    }

    fn next_forward(&mut self) -> Option<Entry<'a>> {
        loop {
            let node = self.node?;
            for place in self.forward.as_mut()? {
                if place.id > self.end {
                    self.node = None;
                    return None;
                }
                if !place.deleted && place.id >= self.start {
                    return Some(node.entry(&place));
                }
            }
            self.enter(self.at.and_then(|at| self.nodes.next(at)));
        }
    }

    fn next_backward(&mut self) -> Option<Entry<'a>> {
        loop {
            let node = self.node?;
            if let Some(place) = self.backward.pop() {
                return Some(node.entry(&place));
            }
            if node.base() <= self.start {
                self.node = None;
                return None;
            }
            self.enter_backward(self.at.and_then(|at| self.nodes.previous(at)));
        }
    }
}

impl<'a> Iterator for Range<'a> {
    type Item = Entry<'a>;

    #[inline]
    fn next(&mut self) -> Option<Entry<'a>> {
        if self.forward.is_some() { self.next_forward() } else { self.next_backward() }
    }
}
