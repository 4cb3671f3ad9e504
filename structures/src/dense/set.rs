//! The big set.

use super::{Ahead, Dense, Draft, EXPIRY_MAX, Part, Span, Walk, expire_at};
use crate::moves::Mover;
use crate::pack::Item;
use crate::table::Cursor;

/// A set of byte strings, made for many. See the module's head, also for what `now` means.
#[derive(Clone)]
pub struct DenseSet {
    dense: Dense<false>,
}

/// A member as walks show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// Its bytes, or the number whose decimal form they are.
    pub member: Item<'a>,
    /// When it expires, in milliseconds since 1970.
    pub expire_at: Option<u64>,
}

#[inline]
fn member_of(entry: &[u8]) -> Member<'_> {
    Member { member: Span::key(entry).read(entry), expire_at: expire_at(entry) }
}

impl DenseSet {
    /// An empty set: 4 KiB. The seed is secret and drawn by the caller.
    pub fn new(seed: u64) -> DenseSet {
        DenseSet { dense: Dense::new(seed) }
    }

    /// Members, including expired ones that have not been freed yet.
    #[inline]
    pub fn len(&self) -> usize {
        self.dense.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the set holds from the allocator; the struct itself is its owner's to count.
    pub fn heap_bytes(&self) -> usize {
        self.dense.heap_bytes()
    }

    /// Gives allocations other addresses; see [`Mover`].
    pub fn relocate(&mut self, mover: &mut Mover<'_>) {
        self.dense.relocate(mover);
    }

    /// Members that have an expiry.
    pub fn expiring(&self) -> usize {
        self.dense.expiring
    }

    /// Begins to load what a command with this member looks at.
    #[inline]
    pub fn ahead(&self, member: &[u8]) -> Ahead<'_, false> {
        self.dense.ahead(member)
    }

    /// Whether this is a member.
    #[inline]
    pub fn contains(&self, member: &[u8], now: u64) -> bool {
        self.dense.get(member, now).is_some()
    }

    /// A member's expiry; the outer option says whether it is one.
    pub fn expire_at(&self, member: &[u8], now: u64) -> Option<Option<u64>> {
        self.dense.get(member, now).map(expire_at)
    }

    /// Adds a member; false, and nothing changes, if it is one already.
    #[inline]
    pub fn insert(&mut self, member: &[u8], now: u64) -> bool {
        self.insert_until(member, None, now)
    }

    /// Adds a member with an expiry; false, and nothing changes, if it is one already. One that is to get the expiry
    /// all the same is given it by [`DenseSet::set_expire`].
    #[inline]
    pub fn insert_until(&mut self, member: &[u8], expire_at: Option<u64>, now: u64) -> bool {
        let hash = self.dense.hash(member);
        if self.dense.locate(hash, member, now).is_some() {
            return false;
        }
        let expire_at = expire_at.map(|at| at.min(EXPIRY_MAX));
        self.dense.add(hash, &Draft { key: Part::key::<false>(member), expire_at, value: None });
        true
    }

    /// Gives a member another expiry, or none; false if it is no member.
    pub fn set_expire(&mut self, member: &[u8], expire_at: Option<u64>, now: u64) -> bool {
        self.dense.set_expire(member, expire_at, now)
    }

    /// Removes a member; false if it is none.
    #[inline]
    pub fn remove(&mut self, member: &[u8], now: u64) -> bool {
        self.dense.remove(member, now)
    }

    /// All members, in no order that means anything.
    pub fn iter(&self, now: u64) -> Members<'_> {
        Members { walk: self.dense.walk(now) }
    }

    /// Visits some members and returns where to go on; zero is both the start and the end. Members that are in the
    /// set during the whole walk are visited at least once.
    pub fn scan(&self, cursor: Cursor, now: u64, mut visit: impl FnMut(Member<'_>)) -> Cursor {
        self.dense.scan(cursor, now, |entry| visit(member_of(entry)))
    }

    /// A random member, all being equally likely. `random` gives fresh numbers. If nearly all members have expired
    /// and were not freed, it may take a walk over them to find one that has not.
    pub fn random(&self, now: u64, random: impl FnMut() -> u64) -> Option<Member<'_>> {
        self.dense.random(now, random).map(member_of)
    }

    /// Removes a random member, which is shown to `take`.
    pub fn pop<R>(
        &mut self,
        now: u64,
        random: impl FnMut() -> u64,
        take: impl FnOnce(Member<'_>) -> R,
    ) -> Option<R> {
        self.dense.pop(now, random, |entry| take(member_of(entry)))
    }

    /// Removes up to `count` random members, which are shown to `take`, and returns how many there were. Quicker than
    /// as many single pops.
    pub fn pop_many(
        &mut self,
        count: usize,
        now: u64,
        random: impl FnMut() -> u64,
        mut take: impl FnMut(Member<'_>),
    ) -> usize {
        self.dense.pop_many(count, now, random, |entry| take(member_of(entry)))
    }

    /// A time before which nothing expires; None if no member has an expiry.
    pub fn next_expiry(&self) -> Option<u64> {
        self.dense.next_expiry()
    }

    /// Frees members that have expired by `now`, showing each. A step: it looks into at most `limit` segments, frees
    /// at most `limit` members, and the next call goes on there. Returns how many it freed; there is more to do while
    /// [`DenseSet::next_expiry`] is not later than `now`.
    pub fn expire(&mut self, now: u64, limit: usize, mut visit: impl FnMut(Item<'_>)) -> usize {
        self.dense.expire(now, limit, |entry| visit(member_of(entry).member))
    }

    /// Frees up to `segments` segments, some hundred members each, of a set that nobody will use again; true when
    /// nothing is left.
    pub fn free_some(&mut self, segments: usize) -> bool {
        self.dense.free_some(segments)
    }

    /// Panics unless every invariant holds. O(n).
    pub fn check(&self) {
        self.dense.check();
    }
}

/// See [`DenseSet::iter`].
pub struct Members<'a> {
    walk: Walk<'a, false>,
}

impl<'a> Iterator for Members<'a> {
    type Item = Member<'a>;

    #[inline]
    fn next(&mut self) -> Option<Member<'a>> {
        self.walk.next().map(member_of)
    }
}
