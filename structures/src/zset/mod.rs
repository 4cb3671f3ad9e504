//! The big sorted set: members with scores, in order of (score, member bytes).
//!
//! Redis keeps a skip list and a hash table, about 135 bytes per item. Here every entry exists once:
//!
//! ```text
//! member -- index.rs: bucket of 7-byte slots --> leaf number --+
//!                                                              v
//! rank, score -- tree.rs: inner nodes with counts ---------> leaf.rs: 30-90 entries, packed, in order
//! ```
//!
//! * The leaves hold scores and members inline, so a range is read from consecutive memory.
//! * The index finds the leaf of a member and the leaf's tags find the entry: a lookup is two or three cache
//!   misses. The price is that entries which a split moves to another leaf get their slots rewritten.
//! * Everything is a counted node: a clone copies a pointer per 128 nodes, a write to a clone one path.
//!
//! Small sets are not made of this but of one allocation; see the pack.
//!
//! What must hold (`check`): leaves ascend within and between each other, counts are sums, separators separate,
//! every member has one slot naming its leaf, and the heap counter equals the sum over all nodes.

mod ahead;
mod bulk;
mod index;
mod iter;
mod leaf;
mod pages;
mod scan;
#[cfg(test)]
mod tests;
mod tree;

pub use ahead::{Ahead, STEPS as STEPS_AHEAD};
pub use iter::Iter;

use crate::moves::Mover;
use index::tag_of;
use leaf::{NewEntry, View, order_of};
use std::ops::Range;
use std::sync::Arc;
use tree::{Node, Store, Target};

/// What [`ZSet::insert_with`] did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// The member was not there.
    Added,
    /// The member had this score.
    Updated(f64),
    /// The member has this score, and keeps it.
    Kept(f64),
    /// There is no such member, and none was wanted.
    Absent,
}

/// See the module's head.
#[derive(Clone)]
pub struct ZSet {
    root: Option<Arc<Node>>,
    store: Store,
    len: usize,
}

impl ZSet {
    /// An empty set. The seed is the secret of its member index.
    pub fn new(seed: u64) -> ZSet {
        ZSet { root: None, store: Store::new(seed), len: 0 }
    }

    /// Members.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What the set holds from the allocator; the struct itself is its owner's to count.
    pub fn heap_bytes(&self) -> usize {
        self.store.heap_bytes()
    }

    /// Gives allocations other addresses; see [`Mover`].
    pub fn relocate(&mut self, mover: &mut Mover<'_>) {
        self.store.relocate(self.root.as_mut(), mover);
    }

    /// The leaf of a member and its position there.
    #[inline]
    fn find(&self, hash: u64, member: &[u8]) -> Option<(u32, usize)> {
        let tag = tag_of(hash);
        self.store.index.find(hash, |number| {
            self.store.leaves.get(number as usize).find(tag, member).map(|at| (number, at))
        })
    }

    /// The member's score.
    #[inline]
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        let (number, at) = self.find(self.store.index.hash(member), member)?;
        Some(self.store.leaves.get(number as usize).score(at))
    }

    /// Gives the member this score, adding it if it is new. The score is not NaN.
    pub fn insert(&mut self, member: &[u8], score: f64) -> Change {
        self.insert_with(member, |_| Some(score))
    }

    /// Asks `decide` for the member's score, given the present one; `None` leaves things as they are. One lookup
    /// for all of ZADD's conditions and increments.
    ///
    /// A score equal to the present one changes nothing, so -0 stays -0 when 0 is written, as in Redis.
    pub fn insert_with(&mut self, member: &[u8], decide: impl FnOnce(Option<f64>) -> Option<f64>) -> Change {
        let hash = self.store.index.hash(member);
        let Some((number, at)) = self.find(hash, member) else {
            let Some(score) = decide(None) else { return Change::Absent };
            self.add(hash, member, score);
            return Change::Added;
        };
        let leaf = self.store.leaves.get(number as usize);
        let old = leaf.score(at);
        let score = decide(Some(old)).unwrap_or(old);
        if score == old {
            return Change::Kept(old);
        }
        let new = new_entry(hash, member, score);
        let order = leaf.order(at);
        // The usual small change of score stays within the leaf: no counts and no separators are touched.
        let place = leaf.lower_bound(new.order, member, false);
        let inside = place > 0 && place < leaf.len();
        if inside && leaf.size_with(&new) <= leaf::LEAF_BYTES_MAX {
            let place = if place > at { place - 1 } else { place };
            self.store.change_leaf(number, |leaf| {
                leaf.remove(at..at + 1);
                leaf.insert(place, &new);
            });
        } else {
            self.store.remove(&mut self.root, &Target::Key(order, member), 1);
            self.len -= 1;
            self.add(hash, member, score);
        }
        Change::Updated(old)
    }

    fn add(&mut self, hash: u64, member: &[u8], score: f64) {
        let new = new_entry(hash, member, score);
        match &mut self.root {
            Some(root) => self.store.insert(root, &new, hash),
            None => self.root = Some(self.store.first(&new, hash)),
        }
        self.len += 1;
    }

    /// Removes the member; its score.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let (number, at) = self.find(self.store.index.hash(member), member)?;
        let leaf = self.store.leaves.get(number as usize);
        let (score, order) = (leaf.score(at), leaf.order(at));
        self.store.remove(&mut self.root, &Target::Key(order, member), 1);
        self.len -= 1;
        Some(score)
    }

    /// Removes the entries of these ranks, a leaf at a time; how many. To return them (ZPOPMIN), read them first.
    pub fn remove_range(&mut self, ranks: Range<usize>) -> usize {
        let wanted = ranks.end.min(self.len).saturating_sub(ranks.start);
        let mut left = wanted;
        while left > 0 {
            let removed = self.store.remove(&mut self.root, &Target::Rank(ranks.start), left);
            self.len -= removed;
            left -= removed;
        }
        wanted
    }

    /// Removes and returns the lowest entry.
    pub fn pop_min(&mut self) -> Option<(Vec<u8>, f64)> {
        self.pop(0)
    }

    /// Removes and returns the highest entry.
    pub fn pop_max(&mut self) -> Option<(Vec<u8>, f64)> {
        self.pop(self.len.wrapping_sub(1))
    }

    fn pop(&mut self, rank: usize) -> Option<(Vec<u8>, f64)> {
        let (member, score) = self.at(rank)?;
        let popped = (member.to_vec(), score);
        self.remove_range(rank..rank + 1);
        Some(popped)
    }

    /// The member's rank from the lowest, with its score. The reverse rank is `len() - 1 - rank`.
    pub fn rank(&self, member: &[u8]) -> Option<(usize, f64)> {
        let (number, at) = self.find(self.store.index.hash(member), member)?;
        let leaf = self.store.leaves.get(number as usize);
        Some((self.bound(leaf.order(at), member, false), leaf.score(at)))
    }

    /// The entry of this rank. With a random rank, a random member.
    pub fn at(&self, rank: usize) -> Option<(&[u8], f64)> {
        self.range(rank..rank.saturating_add(1)).next()
    }

    fn bound(&self, order: u64, member: &[u8], after: bool) -> usize {
        self.root.as_ref().map_or(0, |root| self.store.lower_bound(root, order, member, after))
    }

    /// How many entries have a score below this one, or with `or_equal` at most this one. Differences of two such
    /// numbers count a range, and as ranks they delimit it.
    pub fn count_below_score(&self, score: f64, or_equal: bool) -> usize {
        // The empty member is the least, so the next score up with it is the bound behind all equal scores.
        self.bound(order_of(score) + u64::from(or_equal), b"", false)
    }

    /// How many entries have a member below this one, or with `or_equal` at most this one. Meaningful, as all of
    /// Redis' lexical ranges, while all scores are equal.
    pub fn count_below_member(&self, member: &[u8], or_equal: bool) -> usize {
        let Some((_, score)) = self.at(0) else { return 0 };
        self.bound(order_of(score), member, or_equal)
    }

    /// The entries of these ranks, ascending. Ranks beyond the end are left out.
    pub fn range(&self, ranks: Range<usize>) -> Iter<'_> {
        self.walk(ranks, false)
    }

    /// The entries of these ranks, descending: the first is that of rank `ranks.end - 1`.
    pub fn range_reverse(&self, ranks: Range<usize>) -> Iter<'_> {
        self.walk(ranks, true)
    }

    /// Visits the entries of these ranks, ascending. Ranks beyond the end are left out.
    #[inline]
    pub fn visit(&self, ranks: Range<usize>, mut visit: impl FnMut(&[u8], f64)) {
        match self.within_leaf(&ranks) {
            Some((leaf, places)) => leaf.fold(places, (), &mut |(), (member, score)| visit(member, score)),
            None => self.range(ranks).for_each(|(member, score)| visit(member, score)),
        }
    }

    /// As [`ZSet::visit`], without the scores, which need not be decoded then.
    #[inline]
    pub fn visit_members(&self, ranks: Range<usize>, mut visit: impl FnMut(&[u8])) {
        match self.within_leaf(&ranks) {
            Some((leaf, places)) => leaf.fold_members(places, (), |(), _, member| visit(member)),
            None => self.range(ranks).for_each(|(member, _)| visit(member)),
        }
    }

    /// The leaf that has all entries of these ranks, and where; most ranges are short and have one, and need no path
    /// to go on to the next.
    #[inline]
    fn within_leaf(&self, ranks: &Range<usize>) -> Option<(View<'_>, Range<usize>)> {
        let end = ranks.end.min(self.len);
        let root = self.root.as_deref().filter(|_| ranks.start < end)?;
        let (leaf, at) = self.store.leaf_at(root, ranks.start);
        let last = at + (end - ranks.start);
        (last <= leaf.len()).then_some((leaf, at..last))
    }

    /// All entries, ascending.
    pub fn iter(&self) -> Iter<'_> {
        self.range(0..self.len)
    }

    fn walk(&self, ranks: Range<usize>, reverse: bool) -> Iter<'_> {
        let end = ranks.end.min(self.len);
        let Some(root) = self.root.as_deref().filter(|_| ranks.start < end) else {
            return Iter::empty(&self.store);
        };
        let first = if reverse { end - 1 } else { ranks.start };
        Iter::new(&self.store, root, first, end - ranks.start, reverse)
    }

    /// Visits some tens of members from a cursor on; the next cursor, 0 at the end. A walk from 0 to 0 shows every
    /// member that was there all the time, and no member twice that was not removed and added again in between,
    /// whatever was changed between the steps. Any number is a cursor.
    pub fn scan(&self, cursor: u64, mut visit: impl FnMut(&[u8], f64)) -> u64 {
        let index = &self.store.index;
        index.scan(cursor, |number, bits, tag| {
            let leaf = self.store.leaves.get(number as usize);
            leaf.for_each_with(tag, |at| {
                let member = leaf.member(at);
                if index.has_bits(member, bits) {
                    visit(member, leaf.score(at));
                }
            });
        })
    }

    /// Frees up to `budget` nodes (at most 3 KiB each, large members apart) of a set that nobody will use again;
    /// true when nothing is left. Nodes shared with a clone stay the clone's.
    pub fn free_some(&mut self, budget: usize) -> bool {
        self.len = 0;
        self.store.free_some(&mut self.root, budget) < budget
    }

    /// Panics unless everything holds that the module's head promises. O(n).
    pub fn check(&self) {
        assert_eq!(self.root.is_none(), self.len == 0);
        self.store.check(self.root.as_ref(), self.len);
    }
}

fn new_entry(hash: u64, member: &[u8], score: f64) -> NewEntry<'_> {
    assert!(!score.is_nan(), "NaN has no place in an order");
    let negative_zero = score == 0.0 && score.is_sign_negative();
    NewEntry { member, order: order_of(score), negative_zero, tag: tag_of(hash) }
}
