//! Loading what coming commands will look at, so that their misses overlap.
//!
//! A lookup among a million members follows four pointers, an insertion seven, and each is a miss that the next waits
//! for. Of commands that arrive together every one takes a step in turn, each step loading what the next step reads.
//!
//! Nothing here must be right: the set may be changed by the commands in between.

use super::ZSet;
use super::index::{Bucket, tag_of};
use super::leaf::{Leaf, order_of};
use super::tree::Child;
use crate::hint::{prefetch, prefetch_all};

/// How many times [`Ahead::step`] is worth calling.
pub const STEPS: usize = 3;

/// Where a command will look.
pub struct Ahead<'a> {
    set: &'a ZSet,
    member: &'a [u8],
    hash: u64,
    /// The place in the order that the member will get.
    order: Option<u64>,
    bucket: Bucket<'a>,
    leaves: [Option<&'a Leaf>; 2],
    step: usize,
}

impl ZSet {
    /// Begins to load what a command with this member looks at, and one that gives it this score.
    pub fn ahead<'a>(&'a self, member: &'a [u8], score: Option<f64>) -> Ahead<'a> {
        let hash = self.store.index.hash(member);
        let bucket = self.store.index.bucket(hash);
        bucket.prefetch_tags();
        let order = score.filter(|score| !score.is_nan()).map(order_of);
        Ahead { set: self, member, hash, order, bucket, leaves: [None; 2], step: 0 }
    }
}

impl Ahead<'_> {
    /// The next step. Cheap only if other work lies between two of them.
    pub fn step(&mut self) {
        match self.step {
            0 => self.bucket.prefetch_slots(tag_of(self.hash)),
            1 => {
                self.leaves = [self.leaf_of_member(), self.order.and_then(|order| self.leaf_at(order))];
                self.leaves.iter().flatten().for_each(|leaf| prefetch(&raw const **leaf));
            }
            2 => self.leaves.iter().flatten().for_each(|leaf| prefetch_all(leaf.bytes())),
            _ => {}
        }
        self.step += 1;
    }
}

impl<'a> Ahead<'a> {
    fn leaf_of_member(&self) -> Option<&'a Leaf> {
        let number = self.set.store.index.find(self.hash, Some)?;
        Some(self.set.store.leaves.get(number as usize))
    }

    fn leaf_at(&self, order: u64) -> Option<&'a Leaf> {
        let mut node = self.set.root.as_ref()?;
        loop {
            match &node.entries[node.child_for(order, self.member)].child {
                Child::Leaf(number) => return Some(self.set.store.leaves.get(*number as usize)),
                Child::Node(below) => node = below,
            }
        }
    }
}
