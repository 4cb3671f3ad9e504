//! Big sets and big hashes: every member and every pair is one packed entry of a [`Table`].
//!
//! Small collections are a pack; these are what they become. Redis' dictionary spends an allocation, a pointer to it
//! and a bucket on every member: 75 to 82 bytes for one of 27 bytes. Here it is its bytes, one more, and a slot of
//! the table; nothing is allocated for it.
//! A million take 35 bytes each, all included.
//!
//! Operations are bound by memory: a lookup in a million waits for the bucket and then for the entry. Hence walks ask
//! for the next segment while they are in this one, and batches of pops for the pops to come.
//!
//! ```text
//! set.rs   DenseSet  --+
//!                      +--> Dense (here): growing, shrinking, expiry, accounting --> Table --> entry.rs
//! hash.rs  DenseHash --+
//!
//! small.rs SmallHash ---> the same entries in one allocation, found by walking: what a hash begins as
//! ```
//!
//! **Expiry.** Fields and members may have one, six bytes for those that do. There is no clock in here: what reads
//! or changes is handed `now`, and what has expired by then does not exist for it, so that no caller can forget to
//! look. Expired entries are freed when a change meets them and by `expire`, which the owner calls from time to time;
//! until then `len` counts them. A caller that must not let anything expire (a replica) hands in 0. The table's notes
//! are a lower bound of the expiries in each segment, `next_expiry` is one for all.
//!
//! **Shrinking.** A segment that has lost most of its entries is joined with its buddy as removals go on, so a set
//! that was popped to nothing holds one segment again, and random picks do not draw empty slots forever.
//!
//! **Accounting.** Segments are counted by the table; here are counted the strings outside. A clone shares segments
//! and the strings that their entries own, and counts all of them: each holder counts what it would hold alone.

mod entry;
mod hash;
mod set;
mod small;
#[cfg(test)]
mod tests;

pub use hash::{DenseHash, Field, Fields, NotAdded};
pub use set::{DenseSet, Member, Members};
pub use small::{SmallFields, SmallHash};

use crate::hash::hash as hash_of;
use crate::moves::Mover;
use crate::table::{Cursor, ENTRY_LEN_MAX, Full, Iter, Layout, Loc, Plain, SegmentId, Shape, Table};
use entry::{Draft, EXPIRY_MAX, Entry, Owned, Part, Revision, Span, expire_at, outside_bytes};

/// A removal looks for something to join when it leaves a segment at most a quarter full ...
const SPARSE: usize = <Plain as Shape>::COUNT_MAX / 4;
/// ... and a multiple of this many entries: a look costs a cache miss.
const SPARSE_STEP: usize = 8;
/// Pops that are prepared while one is made.
const POP_AHEAD: usize = 16;
/// Random picks that may hit expired entries before the first live one in order is taken.
const DRAWS_MAX: usize = 64;

/// What sets and hashes have in common. `VALUE` says whether entries have values.
#[derive(Clone)]
struct Dense<const VALUE: bool> {
    table: Table<Entry<VALUE>>,
    /// Strings outside, with rounding.
    outside_bytes: usize,
    /// Entries that have an expiry.
    expiring: usize,
    /// No expiry is earlier.
    earliest: u64,
    sweep: Sweep,
}

/// Where [`Dense::expire`] goes on, and the earliest note of the segments it has passed.
#[derive(Clone, Copy)]
struct Sweep {
    at: u64,
    earliest: u64,
}

/// Loads what a coming command will look at, so that the misses of several overlap. Nothing here must be right.
pub struct Ahead<'a, const VALUE: bool> {
    dense: &'a Dense<VALUE>,
    hash: u64,
}

impl<const VALUE: bool> Ahead<'_, VALUE> {
    /// The second step; cheap only if other work lies before it.
    #[inline]
    pub fn step(&self) {
        self.dense.table.prefetch_entry(self.hash);
    }
}

const SWEEP_START: Sweep = Sweep { at: 0, earliest: u64::MAX };

#[inline]
fn is_expired(entry: &[u8], now: u64) -> bool {
    expire_at(entry).is_some_and(|at| at <= now)
}

impl<const VALUE: bool> Dense<VALUE> {
    fn new(seed: u64) -> Self {
        Dense {
            table: Table::new(seed),
            outside_bytes: 0,
            expiring: 0,
            earliest: u64::MAX,
            sweep: SWEEP_START,
        }
    }

    #[inline]
    fn len(&self) -> usize {
        self.table.len()
    }

    fn heap_bytes(&self) -> usize {
        self.table.heap_bytes() + self.outside_bytes
    }

    #[inline]
    fn hash(&self, key: &[u8]) -> u64 {
        hash_of(key, self.table.seed())
    }

    fn ahead(&self, key: &[u8]) -> Ahead<'_, VALUE> {
        let hash = self.hash(key);
        self.table.prefetch(hash);
        Ahead { dense: self, hash }
    }

    /// The entry of a key that has not expired.
    #[inline]
    fn get(&self, key: &[u8], now: u64) -> Option<&[u8]> {
        let entry = self.table.entry(self.table.find(self.hash(key), key)?);
        (!is_expired(entry, now)).then_some(entry)
    }

    /// The place of a key that has not expired; one that has is removed.
    #[inline]
    fn locate(&mut self, hash: u64, key: &[u8], now: u64) -> Option<Loc> {
        let loc = self.table.find(hash, key)?;
        if is_expired(self.table.entry(loc), now) {
            self.remove_at(loc);
            return None;
        }
        Some(loc)
    }

    /// Adds an entry whose key is not there.
    fn add(&mut self, hash: u64, draft: &Draft<'_>) {
        let len = draft.len();
        let loc = loop {
            match self.table.insert(hash, len, |entry| draft.write(entry)) {
                Ok(loc) => break loc,
                Err(Full) => self.table.split(hash),
            }
        };
        self.outside_bytes += draft.outside_bytes();
        if let Some(at) = draft.expire_at {
            self.expiring += 1;
            self.expires(loc, at);
        }
    }

    /// Lowers the bounds to an expiry that an entry of an unshared segment got. `expiring` includes it.
    fn expires(&mut self, loc: Loc, at: u64) {
        self.earliest = if self.expiring == 1 { at } else { self.earliest.min(at) };
        self.sweep.earliest = self.sweep.earliest.min(at);
        self.table.lower_note(loc, at);
    }

    /// Changes expiry and value of an entry; `hash` and `key` are its own.
    fn revise(&mut self, hash: u64, key: &[u8], loc: Loc, revision: &Revision<'_>) {
        let mut loc = self.table.own(loc);
        let had_expiry = expire_at(self.table.entry(loc)).is_some();
        let replaced = loop {
            let entry = self.table.entry(loc);
            let old_len = <Entry<VALUE> as Layout>::entry_len(entry);
            let new_len = revision.len(&entry[..old_len]);
            if new_len <= old_len {
                // Old and new overlap, and the old is short: a copy is simpler than getting the moves right.
                let mut old = [0; ENTRY_LEN_MAX];
                let old = &mut old[..old_len];
                old.copy_from_slice(&entry[..old_len]);
                let replaced = revision.write(old, self.table.entry_mut(loc));
                if new_len < old_len {
                    self.table.shortened(loc, old_len, new_len);
                }
                break replaced;
            }
            let mut replaced = Owned::default();
            match self.table.resize(loc, new_len, |old, new| replaced = revision.write(old, new)) {
                Ok(moved) => {
                    loc = moved;
                    break replaced;
                }
                Err(Full) => {
                    self.table.split(hash);
                    loc = self.table.find(hash, key).expect("a split loses nothing");
                }
            }
        };
        self.outside_bytes += revision.value.map_or(0, |value| value.outside_bytes());
        self.outside_bytes -= replaced.free();
        self.expiring = self.expiring + usize::from(revision.expire_at.is_some()) - usize::from(had_expiry);
        if let Some(at) = revision.expire_at {
            self.expires(loc, at);
        }
    }

    /// Gives a key that has not expired another expiry, or none; false if there is no such key.
    fn set_expire(&mut self, key: &[u8], expire: Option<u64>, now: u64) -> bool {
        let hash = self.hash(key);
        let Some(loc) = self.locate(hash, key, now) else { return false };
        let expire = expire.map(|at| at.min(EXPIRY_MAX));
        if expire != expire_at(self.table.entry(loc)) {
            self.revise(hash, key, loc, &Revision { expire_at: expire, value: None });
        }
        true
    }

    fn remove(&mut self, key: &[u8], now: u64) -> bool {
        let hash = self.hash(key);
        let Some(loc) = self.locate(hash, key, now) else { return false };
        self.remove_at(loc);
        true
    }

    #[inline]
    fn remove_at(&mut self, loc: Loc) {
        let (segment, _) = self.table.bucket_of(loc);
        self.remove_only(loc);
        if self.table.segment_len(segment).is_multiple_of(SPARSE_STEP) {
            self.join(segment);
        }
    }

    /// Removes an entry without a look at how full its segment is.
    #[inline]
    fn remove_only(&mut self, loc: Loc) {
        let loc = self.table.own(loc);
        let entry = self.table.entry(loc);
        self.expiring -= usize::from(expire_at(entry).is_some());
        if self.outside_bytes == 0 {
            self.table.remove(loc);
            return;
        }
        // The table hashes the key while it removes, so strings outside are freed behind that.
        let owned = Owned::of::<VALUE>(entry);
        self.table.remove(loc);
        self.outside_bytes -= owned.free();
    }

    /// Joins a sparse segment with its buddy, as often as that is possible.
    fn join(&mut self, segment: SegmentId) {
        while self.table.segment_len(self.table.segment_of(segment.hash())) <= SPARSE
            && self.table.merge(segment.hash())
        {
            // The directory is halved when it can be at all, at a cost that the merges since the last try outweigh.
            if self.table.segments().is_power_of_two() {
                self.table.trim_directory();
            }
        }
    }

    /// A random entry that has not expired; all are equally likely.
    fn random(&self, now: u64, mut random: impl FnMut() -> u64) -> Option<&[u8]> {
        for _ in 0..DRAWS_MAX {
            let entry = self.table.entry(self.table.random(&mut random)?);
            if !is_expired(entry, now) {
                return Some(entry);
            }
        }
        self.walk(now).next()
    }

    /// Removes a random entry that has not expired; `take` sees it first. Expired ones that are drawn go too.
    fn pop<R>(
        &mut self,
        now: u64,
        mut random: impl FnMut() -> u64,
        take: impl FnOnce(&[u8]) -> R,
    ) -> Option<R> {
        loop {
            let loc = self.table.random(&mut random)?;
            let entry = self.table.entry(loc);
            if !is_expired(entry, now) {
                let taken = take(entry);
                self.remove_at(loc);
                return Some(taken);
            }
            self.remove_at(loc);
        }
    }

    /// As `pop`, up to `count` times; returns how many there were.
    ///
    /// A pop waits for memory twice, for the bucket and for the entry. Here draws are made some pops ahead, so that
    /// both are there when their turn comes; which draws succeed is decided at their turn, as in `pop`.
    fn pop_many(
        &mut self,
        count: usize,
        now: u64,
        mut random: impl FnMut() -> u64,
        mut take: impl FnMut(&[u8]),
    ) -> usize {
        let mut popped = 0;
        if count > POP_AHEAD {
            let mut draws: [u64; POP_AHEAD] = std::array::from_fn(|_| random());
            draws.iter().for_each(|draw| self.table.prefetch_drawn(*draw));
            let (mut turn, mut failed) = (0, 0);
            while popped < count && failed < DRAWS_MAX {
                let draw = std::mem::replace(&mut draws[turn], random());
                self.table.prefetch_drawn(draws[turn]);
                self.table.prefetch_drawn_entry(draws[(turn + POP_AHEAD / 2) % POP_AHEAD]);
                turn = (turn + 1) % POP_AHEAD;
                let Some(loc) = self.table.drawn(draw) else {
                    failed += 1;
                    continue;
                };
                failed = 0;
                let entry = self.table.entry(loc);
                if !is_expired(entry, now) {
                    take(entry);
                    popped += 1;
                }
                self.remove_at(loc);
            }
        }
        while popped < count && self.pop(now, &mut random, &mut take).is_some() {
            popped += 1;
        }
        popped
    }

    /// See [`DenseSet::scan`].
    fn scan(&self, cursor: Cursor, now: u64, mut visit: impl FnMut(&[u8])) -> Cursor {
        self.table.scan(cursor, |loc| {
            let entry = self.table.entry(loc);
            if !is_expired(entry, now) {
                visit(entry);
            }
        })
    }

    fn walk(&self, now: u64) -> Walk<'_, VALUE> {
        Walk { entries: self.table.iter(), now }
    }

    fn next_expiry(&self) -> Option<u64> {
        (self.expiring > 0).then_some(self.earliest)
    }

    /// Removes entries that have expired by `now`; `visit` sees each. Looks into at most `limit` segments and removes
    /// at most `limit` entries, then goes on at the next call; returns how many it removed.
    fn expire(&mut self, now: u64, limit: usize, mut visit: impl FnMut(&[u8])) -> usize {
        let mut removed = 0;
        for _ in 0..limit {
            if self.next_expiry().is_none_or(|at| at > now) || removed == limit {
                break;
            }
            let mut segment = self.table.segment_of(self.sweep.at);
            if self.table.note(segment) <= now {
                removed += self.expire_segment(segment, now, limit - removed, &mut visit);
                // It may have been joined with the one behind, which has not been looked into.
                segment = self.table.segment_of(self.sweep.at);
                if self.table.note(segment) <= now {
                    continue;
                }
            }
            self.sweep.earliest = self.sweep.earliest.min(self.table.note(segment));
            match self.table.next_segment(segment) {
                Some(next) => self.sweep.at = next.hash(),
                None => {
                    self.earliest = self.sweep.earliest;
                    self.sweep = SWEEP_START;
                }
            }
        }
        removed
    }

    fn expire_segment(
        &mut self,
        segment: SegmentId,
        now: u64,
        limit: usize,
        visit: &mut impl FnMut(&[u8]),
    ) -> usize {
        // Even if nothing has expired the segment's note is written: it must be ours.
        let mut any = None;
        self.table.visit_segment(segment, |loc| any = Some(loc));
        if let Some(loc) = any {
            self.table.own(loc);
        }
        let (mut expired, mut earliest) = (Vec::new(), u64::MAX);
        self.table.visit_segment(segment, |loc| match expire_at(self.table.entry(loc)) {
            Some(at) if at <= now && expired.len() < limit => expired.push(loc),
            Some(at) => earliest = earliest.min(at),
            None => {}
        });
        if any.is_some() {
            self.table.raise_note(segment, earliest);
        }
        for &loc in &expired {
            visit(self.table.entry(loc));
            self.remove_only(loc);
        }
        self.join(segment);
        expired.len()
    }

    fn free_some(&mut self, segments: usize) -> bool {
        self.expiring = 0;
        for _ in 0..segments {
            if self.outside_bytes > 0
                && let Some(last) = self.table.last_segment()
            {
                let mut outside = 0;
                self.table
                    .visit_segment(last, |loc| outside += outside_bytes::<VALUE>(self.table.entry(loc)));
                self.outside_bytes -= outside;
            }
            if self.table.free_some(1) {
                return true;
            }
        }
        false
    }

    /// Gives allocations other addresses; see [`Mover`]. The place where it goes on is the hash of a segment.
    fn relocate(&mut self, mover: &mut Mover<'_>) {
        self.table.relocate_directory(mover);
        let mut at = Some(self.table.segment_of(mover.place()));
        while let Some(segment) = at {
            if !mover.goes_on(segment.hash()) {
                return;
            }
            if self.table.relocate_segment(segment, mover) && self.outside_bytes > 0 {
                for loc in self.table.entries_where(segment, |entry| outside_bytes::<VALUE>(entry) > 0) {
                    entry::relocate::<VALUE>(self.table.entry_mut(loc), mover);
                }
            }
            at = self.table.next_segment(segment);
        }
    }

    fn check(&self) {
        self.table.check();
        let (mut expiring, mut outside) = (0, 0);
        let mut id = Some(self.table.first_segment());
        while let Some(segment) = id {
            self.table.visit_segment(segment, |loc| {
                let entry = self.table.entry(loc);
                outside += outside_bytes::<VALUE>(entry);
                if let Some(at) = expire_at(entry) {
                    expiring += 1;
                    assert!(self.table.note(segment) <= at, "no expiry before the segment's note");
                    assert!(self.earliest <= at, "no expiry before the earliest");
                    let passed = segment.hash() < self.sweep.at;
                    assert!(!passed || self.sweep.earliest <= at, "no expiry before the earliest passed");
                }
            });
            id = self.table.next_segment(segment);
        }
        assert_eq!((expiring, outside), (self.expiring, self.outside_bytes));
    }
}

/// The entries that have not expired, in the table's order.
struct Walk<'a, const VALUE: bool> {
    entries: Iter<'a, Entry<VALUE>>,
    now: u64,
}

impl<'a, const VALUE: bool> Iterator for Walk<'a, VALUE> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let now = self.now;
        self.entries.find(|entry| !is_expired(entry, now))
    }
}
