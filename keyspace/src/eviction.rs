//! Which keys go when there is no room for all.
//!
//! Each key has a byte of *heat* in its bucket: how often it was used, and in which epoch last. An epoch is as long
//! as twenty uses per key, or up to twice that while few keys come in; with each one that passes, what was counted
//! before counts half. A *hand* passes over the buckets, and of the keys in the one that it is at, the *lightest* goes:
//! that with the fewest uses of late per byte. If even that is heavier than what went of late, the hand first looks a
//! little further. So a value of a megabyte must be used a thousand times as often as one of a kilobyte to stay. Keys
//! that have expired go before all others.
//!
//! Two more things make it resist scans and loops. New keys wait in a short *queue*, in which the hand passes them
//! over; who leaves it is weighed against the lightest that the hand finds, and the lighter of the two goes. And who
//! goes leaves a *ghost*, its heat and eight bits of its hash, so that a key that comes back is not new (`ghosts.rs`).
//!
//! ```text
//! heat:   | 7..5 epoch of the last use | 4 is in the queue | 3..0 uses |
//! ```
//!
//! All of it is O(1): a hit writes one byte of a line that the lookup has loaded, a victim costs a look at some eight
//! entries that were asked for one victim earlier. Memory: a byte per slot that is there anyway, three bytes per key for
//! ghosts, 0.1 for the queue; both only from when memory first was short. The rivals, and the
//! figures that decided, are in `docs/eviction.md`.

use std::cell::Cell;
use std::collections::VecDeque;

use damselfly_structures::keytable::{Glance, TableView};
use damselfly_structures::table::{BUCKETS, Loc, SegmentId};

use crate::ghosts::Ghosts;
use crate::{Class, Db, Keyspace, UnixMs};

/// Uses per key in an epoch. Longer ones tell the popular from the very popular, shorter ones follow change.
const EPOCH_USES: u64 = 20;
/// An epoch goes on until so many keys per key have come in: where nearly all requests are hits, who may go is seldom
/// used at all, and change is slow to matter.
const EPOCH_BIRTHS: u64 = 3;
/// But it has no more uses per key than this.
const EPOCH_USES_MAX: u64 = 40;
/// An epoch has at least so many uses.
const EPOCH_USES_MIN: u64 = 1024;
/// Epochs that the heat can tell apart.
const EPOCHS: u8 = 8;
const EPOCH_SHIFT: u32 = 5;
const QUEUED: u8 = 1 << 4;
const USES: u8 = QUEUED - 1;

/// Buckets that one step passes at most while nobody is found.
const BUCKETS_PER_STEP: usize = 16;
/// Buckets that the hand passes for one victim while all it finds is unusually heavy. One holds about eight keys.
const BUCKETS_PER_VICTIM: usize = 4;
/// How much heavier than usual is unusual: a logarithm with eight binary places, so half as heavy again.
const UNUSUAL: i64 = 150;
/// From so many uses on one of those of a key that leaves the queue does not count. Earlier, what becomes popular would
/// be slower.
const LAG_FROM: u64 = 8;
/// Segments without any candidate that one step passes at most.
const SEGMENTS_PER_STEP: usize = 64;
/// Of so many keys one may wait in the queue.
const QUEUE_SHARE: usize = 100;
/// What a key weighs beyond its bytes: it keeps values of a few bytes from being worth nearly nothing.
const KEY_BYTES: u64 = 64;
/// Ghosts per key that is there.
const GHOSTS: (usize, usize) = (3, 2);

/// Who may go, and who goes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Eviction {
    /// Nobody.
    #[default]
    Never,
    /// Any key, the lightest first.
    All,
    /// Keys with an expiry, the lightest first.
    Timed,
    /// Keys with an expiry, the one that is due next first.
    NextDue,
}

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evicted {
    /// A key went; this many bytes.
    Freed(usize),
    /// None was found here; there may be one further on.
    Searching,
    /// The hand has been everywhere and found nobody who may go.
    Nobody,
}

/// With eight binary places.
fn log2(weight: u64) -> i64 {
    let whole = weight.max(1).ilog2();
    let places = weight << (63 - whole) << 1 >> 56;
    i64::from(whole) << 8 | places as i64
}

/// What a database knows for eviction, beside the heat of its keys.
#[derive(Default)]
pub(crate) struct Warmth {
    epoch: u8,
    /// Uses since the epoch's length was last looked at, and keys that have come in.
    uses: u64,
    births: u64,
    /// New keys queue, and ghosts are kept: memory has been short.
    is_selective: bool,
    /// Hashes of new keys, oldest first. A key may have gone meanwhile.
    queue: VecDeque<u64>,
    pub(crate) ghosts: Ghosts,
    /// The segment and bucket that the hand comes to next.
    hand: Option<(SegmentId, usize)>,
    /// Segments passed since somebody was found.
    fruitless: usize,
    /// A key that was exempt is not any more.
    pub(crate) has_released: bool,
    /// Mean logarithm of the weight of who goes, with eight binary places.
    usual: i64,
}

/// What the hand found.
enum Pick {
    Expired(Loc),
    Victim(Candidate),
    Nobody,
}

/// A key that may go. Its weight is a fraction, which nobody needs to divide.
#[derive(Clone, Copy)]
struct Candidate {
    loc: Loc,
    /// What it is worth.
    worth: u64,
    /// For how much.
    size: u64,
    /// What it takes.
    bytes: usize,
}

impl Candidate {
    #[inline]
    fn is_lighter_than(&self, other: &Candidate) -> bool {
        // 12 bits times at most 40, or, if time alone counts, 64 times 1.
        self.worth * other.size < other.worth * self.size
    }

    /// As if the use that has brought it back did not count, if it has many: the others' next one is still to come. In
    /// a loop all keys are used alike, and behind the end of an epoch those that came first would push out those that
    /// come next.
    fn without_last_use(self) -> Candidate {
        if self.worth < LAG_FROM << 8 { self } else { Candidate { worth: self.worth - (1 << 8), ..self } }
    }

    /// The logarithm of its weight, with eight binary places.
    fn log2(&self) -> i64 {
        log2(self.worth) - log2(self.size)
    }
}

/// Says of the hash of a key that the key must stay for now.
type IsSpared<'a> = Option<&'a dyn Fn(u64) -> bool>;

/// Epochs since the last use.
#[inline]
fn age_in(epoch: u8, heat: u8) -> u8 {
    epoch.wrapping_sub(heat >> EPOCH_SHIFT) & (EPOCHS - 1)
}

/// Uses of late, with eight binary places.
#[inline]
fn warmth_in(epoch: u8, heat: u8) -> u64 {
    (u64::from(heat & USES) << 8) >> age_in(epoch, heat)
}

impl Warmth {
    fn age(&self, heat: u8) -> u8 {
        age_in(self.epoch, heat)
    }

    #[inline]
    fn warmth(&self, heat: u8) -> u64 {
        warmth_in(self.epoch, heat)
    }

    /// The heat after one more use.
    #[inline]
    fn used(&self, heat: u8) -> u8 {
        let uses = (self.warmth(heat) >> 8) as u8;
        (uses + 1).min(USES) | heat & QUEUED | self.epoch << EPOCH_SHIFT
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.ghosts.heap_bytes() + self.queue.capacity() * size_of::<u64>()
    }
}

impl Db {
    /// Notes that the key at a location is used.
    #[inline]
    pub(crate) fn touch(&mut self, loc: Loc) {
        let heat = self.table.raw().heat(loc);
        let used = self.warmth.used(heat);
        self.warmth.uses += 1;
        // The line of a key that is always hot is not written over and over.
        if used != heat {
            self.table.set_heat(loc, used);
        }
    }

    /// Notes that a key has come into being.
    #[inline]
    pub(crate) fn born(&mut self, hash: u64, loc: Loc) {
        self.warmth.uses += 1;
        self.warmth.births += 1;
        let mut heat = 1 | self.warmth.epoch << EPOCH_SHIFT;
        if self.warmth.is_selective {
            heat = self.born_again(hash);
        }
        self.table.set_heat(loc, heat);
    }

    #[cold]
    fn born_again(&mut self, hash: u64) -> u8 {
        self.warmth.ghosts.fit(self.table.len() / GHOSTS.1 * GHOSTS.0);
        let past = self.warmth.ghosts.recall(hash).unwrap_or(self.warmth.epoch << EPOCH_SHIFT);
        if self.warmth.queue.len() > 2 * self.table.len() / QUEUE_SHARE {
            self.leave_queue();
        }
        self.warmth.queue.push_back(hash);
        self.warmth.used(past) | QUEUED
    }

    /// Takes the oldest from the queue of new keys, if it is still there.
    fn leave_queue(&mut self) -> Option<Loc> {
        let hash = self.warmth.queue.pop_front()?;
        if self.warmth.queue.capacity() > 64 && self.warmth.queue.len() < self.warmth.queue.capacity() / 4 {
            self.warmth.queue.shrink_to(self.warmth.queue.len() * 2);
        }
        // What the next ones need is asked for while they wait: first the bucket, then what is found in it.
        if let Some(&next) = self.warmth.queue.front() {
            self.table.prefetch_entry(next);
            self.warmth.ghosts.prefetch(next);
        }
        if let Some(&later) = self.warmth.queue.get(2) {
            self.table.prefetch(later);
        }
        let loc = self.table.find_hash(hash)?;
        let heat = self.table.raw().heat(loc);
        self.table.set_heat(loc, heat & !QUEUED);
        Some(loc)
    }

    /// The key at a location, if it may go.
    #[inline]
    fn candidate(&self, loc: Loc, glance: &Glance, rule: Eviction) -> Option<Candidate> {
        if glance.is_sticky || rule != Eviction::All && glance.expire_at.is_none() {
            return None;
        }
        let bytes = glance.bytes + if glance.is_object { self.collection_bytes(loc) } else { 0 };
        let (worth, size) = match rule {
            Eviction::NextDue => (glance.expire_at.unwrap_or(UnixMs::MAX), 1),
            _ => (self.warmth.warmth(self.table.raw().heat(loc)) + 1, bytes as u64 + KEY_BYTES),
        };
        Some(Candidate { loc, worth, size, bytes })
    }

    fn is_spared(&self, loc: Loc, is_spared: IsSpared<'_>) -> bool {
        is_spared.is_some_and(|is_spared| is_spared(self.table.hash(self.table.key(loc))))
    }

    /// Moves the hand over one bucket. What has expired by `now` goes first.
    fn pass(&mut self, rule: Eviction, now: UnixMs, is_spared: IsSpared<'_>) -> Pick {
        let view = self.table.raw();
        let (segment, bucket) = self.warmth.hand.unwrap_or((view.first_segment(), 0));
        let (mut expired, mut lightest) = (None, None::<Candidate>);
        let mut old = Vec::new();
        let mut next = BUCKETS;
        if rule == Eviction::All || view.note(segment) != u64::MAX {
            view.visit_bucket(segment, bucket, |loc| {
                let glance = self.table.glance(loc);
                if glance.expire_at.is_some_and(|at| at <= now) {
                    expired = Some(loc);
                    return;
                }
                let heat = view.heat(loc);
                if heat & QUEUED != 0 {
                    return;
                }
                let Some(candidate) = self.candidate(loc, &glance, rule) else { return };
                if self.warmth.age(heat) == EPOCHS - 1 {
                    old.push(loc);
                }
                if lightest.is_none_or(|other| candidate.is_lighter_than(&other)) {
                    lightest = Some(candidate);
                }
            });
            next = bucket + 1;
        }
        for loc in old {
            // Before the epoch's number comes round again: as old as can be, and used no more.
            self.table.set_heat(loc, self.warmth.epoch.wrapping_sub(EPOCHS - 2) << EPOCH_SHIFT);
        }
        self.warmth.hand = Some((segment, next));
        if next >= BUCKETS {
            let view = self.table.raw();
            self.warmth.hand = view.next_segment(segment).map(|next| (next, 0));
            self.warmth.fruitless += 1;
        }
        self.prefetch_next();
        if let Some(loc) = expired {
            return Pick::Expired(loc);
        }
        match lightest {
            Some(lightest) if !self.is_spared(lightest.loc, is_spared) => Pick::Victim(lightest),
            _ => Pick::Nobody,
        }
    }

    /// Asks for what the next passes look at: the entries of two buckets, and the two buckets behind them.
    fn prefetch_next(&self) {
        let Some((segment, bucket)) = self.warmth.hand else { return };
        let view = self.table.raw();
        if bucket == 0 {
            view.prefetch_bucket(segment, 1);
            view.prefetch_bucket(segment, 2);
            view.prefetch_entries(segment, 0);
        }
        if bucket + 1 < BUCKETS {
            view.prefetch_entries(segment, bucket + 1);
        }
        if bucket + 3 < BUCKETS {
            view.prefetch_bucket(segment, bucket + 3);
        }
    }

    /// Looks for who goes next, a bounded number of buckets on.
    fn pick(&mut self, rule: Eviction, now: UnixMs, is_spared: IsSpared<'_>) -> Pick {
        let is_last_resort = self.warmth.fruitless > self.table.raw().segments();
        let is_long = is_last_resort || self.warmth.queue.len() > self.table.len() / QUEUE_SHARE;
        let mut new = None;
        if is_long && let Some(loc) = self.leave_queue() {
            let glance = self.table.glance(loc);
            if glance.expire_at.is_some_and(|at| at <= now) {
                return Pick::Expired(loc);
            }
            new = self.candidate(loc, &glance, rule).filter(|new| !self.is_spared(new.loc, is_spared));
        }
        let is_by_heat = rule != Eviction::NextDue;
        let rival = new.map(|new| if is_by_heat { new.without_last_use() } else { new });
        match (self.lightest(rule, now, is_spared), rival) {
            (Pick::Victim(old), Some(new)) if !old.is_lighter_than(&new) => Pick::Victim(new),
            (Pick::Nobody, Some(new)) => Pick::Victim(new),
            (pick, _) => pick,
        }
    }

    /// Moves the hand on until it finds somebody who may go and is not unusually heavy, a bounded way.
    fn lightest(&mut self, rule: Eviction, now: UnixMs, is_spared: IsSpared<'_>) -> Pick {
        let (mut lightest, mut buckets) = (None::<Candidate>, 0);
        for _ in 0..SEGMENTS_PER_STEP {
            let before = self.warmth.fruitless;
            match self.pass(rule, now, is_spared) {
                Pick::Nobody => {}
                Pick::Victim(found) => {
                    self.warmth.fruitless = 0;
                    if lightest.is_none_or(|other| found.is_lighter_than(&other)) {
                        lightest = Some(found);
                    }
                }
                expired => {
                    self.warmth.fruitless = 0;
                    return expired;
                }
            }
            buckets += usize::from(self.warmth.fruitless == before || lightest.is_some());
            let enough = match lightest {
                Some(found) => buckets >= BUCKETS_PER_VICTIM || found.log2() <= self.warmth.usual + UNUSUAL,
                None => buckets >= BUCKETS_PER_STEP,
            };
            if enough {
                break;
            }
        }
        let Some(found) = lightest else { return Pick::Nobody };
        self.warmth.usual += (found.log2() - self.warmth.usual) >> 4;
        Pick::Victim(found)
    }

    /// Whether the hand has been everywhere since it last found anybody, and nobody waits in the queue.
    fn is_searched(&self) -> bool {
        self.warmth.queue.is_empty() && self.warmth.fruitless > self.table.raw().segments()
    }

    /// How often a key was used of late, 0 to 15: each epoch that has passed since halves it.
    pub fn frequency(&self, loc: Loc) -> u8 {
        (self.warmth.warmth(self.table.raw().heat(loc)) >> 8) as u8
    }

    /// Epochs that have passed since a key was used.
    fn epochs_idle(&self, loc: Loc) -> usize {
        usize::from(self.warmth.age(self.table.raw().heat(loc)))
    }

    pub(crate) fn set_epoch(&mut self, epoch: u8) {
        self.warmth.epoch = epoch;
    }

    pub(crate) fn set_selective(&mut self) {
        self.warmth.is_selective = true;
    }
}

/// The clock by which keys age.
#[derive(Default)]
pub(crate) struct Epochs {
    /// The present one.
    pub(crate) now: u8,
    /// Uses in it, up to the last look, and keys that have come in.
    uses: u64,
    births: u64,
    /// When each began, by its number.
    began: [UnixMs; EPOCHS as usize],
    /// When a key was last seen to have been used, whichever it was.
    used_at: UnixMs,
    /// Memory has been short.
    pub(crate) is_selective: bool,
    /// The database whose hand moves.
    db: usize,
    /// Databases in which nobody was found, one behind the other.
    barren: usize,
    /// How many keys there were then, of those that might go.
    searched: usize,
    /// One of them had to stay for a while.
    has_spared: bool,
}

impl Keyspace {
    /// Begins a new epoch when the present one has lasted long enough. To be called now and then.
    pub fn keep_epochs(&mut self) {
        let mut keys = 0;
        let uses_before = self.epochs.uses;
        for db in self.dbs.iter_mut().flatten() {
            self.epochs.uses += std::mem::take(&mut db.warmth.uses);
            self.epochs.births += std::mem::take(&mut db.warmth.births);
            keys += db.len() as u64;
        }
        if self.epochs.uses != uses_before {
            self.epochs.used_at = self.now;
        }
        let is_quiet = self.epochs.births < keys * EPOCH_BIRTHS && self.epochs.uses < keys * EPOCH_USES_MAX;
        if self.epochs.uses >= (keys * EPOCH_USES).max(EPOCH_USES_MIN) && !is_quiet {
            (self.epochs.uses, self.epochs.births) = (0, 0);
            self.epochs.now = (self.epochs.now + 1) % EPOCHS;
            self.epochs.began[usize::from(self.epochs.now)] = self.now;
            for db in self.dbs.iter_mut().flatten() {
                db.set_epoch(self.epochs.now);
            }
        }
    }

    /// Memory is getting short: from now on new keys queue and keys that go are remembered.
    pub fn be_selective(&mut self) {
        if !self.epochs.is_selective {
            self.epochs.is_selective = true;
            self.dbs.iter_mut().flatten().for_each(|db| db.set_selective());
        }
    }

    /// For how long a key has not been used, as far as is known: since the end of the epoch in which it last was, or
    /// for as long as none was used.
    pub fn idle_ms(&self, db: usize, loc: Loc) -> UnixMs {
        let since = match self.table(db).epochs_idle(loc) {
            0 if self.dbs.iter().flatten().any(|db| db.warmth.uses > 0) => self.now,
            0 => self.epochs.used_at,
            epochs => {
                let next = self.epochs.now.wrapping_sub(epochs as u8 - 1) % EPOCHS;
                self.epochs.began[usize::from(next)]
            }
        };
        self.now.saturating_sub(since)
    }

    /// Makes room: removes one key, or looks further for one. `is_spared` says of a database and a hash that the
    /// key must stay for now; without it none must.
    pub fn evict(&mut self, rule: Eviction, is_spared: Option<&dyn Fn(usize, u64) -> bool>) -> Evicted {
        if rule == Eviction::Never {
            return Evicted::Nobody;
        }
        if self.epochs.barren > 0 && self.may_be_found(rule) {
            self.epochs.barren = 0;
            self.epochs.has_spared = false;
            for db in self.dbs.iter_mut().flatten() {
                db.warmth.fruitless = 0;
                db.warmth.has_released = false;
            }
        }
        let spared = Cell::new(false);
        let is_spared = is_spared.map(|is_spared| {
            |db, hash| {
                let must_stay = is_spared(db, hash);
                spared.set(spared.get() | must_stay);
                must_stay
            }
        });
        let at = self.epochs.db;
        // Who may not expire keys takes them for others.
        let now = if self.active_expire { self.now } else { 0 };
        let round_before = self.dbs[at].as_deref().and_then(|db| db.warmth.hand);
        let pick = match self.dbs[at].as_deref_mut().filter(|db| !db.is_empty()) {
            Some(db) => match &is_spared {
                Some(is_spared) => db.pick(rule, now, Some(&|hash| is_spared(at, hash))),
                None => db.pick(rule, now, None),
            },
            None => Pick::Nobody,
        };
        let evicted = match pick {
            Pick::Expired(loc) => {
                let bytes = self.table(at).entry_bytes(loc);
                self.expire(at, loc);
                Evicted::Freed(bytes)
            }
            Pick::Nobody => Evicted::Searching,
            Pick::Victim(victim) => {
                self.evict_at(at, victim.loc);
                Evicted::Freed(victim.bytes)
            }
        };
        self.epochs.has_spared |= spared.get();
        let table = self.dbs[at].as_deref();
        // The hands of the databases move in turn, each once round.
        let round_ended =
            table.is_none_or(|db| db.is_empty() || db.warmth.hand.is_none() && round_before.is_some());
        match evicted {
            Evicted::Freed(_) => self.epochs.barren = 0,
            _ if table.is_none_or(|db| db.is_empty() || db.is_searched()) => {
                self.epochs.barren += 1;
                self.epochs.searched = self.candidates(rule);
            }
            // Not one behind the other: it has not been everywhere in this one.
            _ => self.epochs.barren = 0,
        }
        if round_ended || self.epochs.barren > 0 {
            self.epochs.db = (at + 1) % self.dbs.len();
        }
        if self.epochs.barren > self.dbs.len() { Evicted::Nobody } else { evicted }
    }

    /// How many keys may go, about, and 0 if none, as far as is known.
    pub fn evictable(&self, rule: Eviction) -> usize {
        let is_searched = self.epochs.barren > self.dbs.len() && !self.may_be_found(rule);
        if rule == Eviction::Never || is_searched { 0 } else { self.candidates(rule) }
    }

    /// Whether a search that has found nobody so far might have missed somebody: others are there now, one need not stay
    /// any more, or, at its end, one had to that perhaps need not now.
    fn may_be_found(&self, rule: Eviction) -> bool {
        self.candidates(rule) != self.epochs.searched
            || self.dbs.iter().flatten().any(|db| db.warmth.has_released)
            || self.epochs.has_spared && self.epochs.barren > self.dbs.len()
    }

    /// Keys that might go if they are not exempt.
    fn candidates(&self, rule: Eviction) -> usize {
        let dbs = self.dbs.iter().flatten();
        if rule == Eviction::All { dbs.map(|db| db.len()).sum() } else { dbs.map(|db| db.expires()).sum() }
    }

    fn evict_at(&mut self, db: usize, loc: Loc) {
        let table = self.dbs[db].as_deref_mut().expect("a database with a key exists");
        let heat = table.table.raw().heat(loc);
        let hash = table.table.hash(table.key(loc));
        let Warmth { ghosts, epoch, .. } = &mut table.warmth;
        ghosts.remember(hash, heat & !QUEUED, |ghost| warmth_in(*epoch, ghost));
        if self.observed {
            let key = self.table(db).key(loc).to_vec();
            self.note(db, &key, Class::Evicted, "evicted");
        }
        self.db_stats[db].evicted += 1;
        self.stats.mutations += 1;
        self.remove_at(db, loc);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::PackLimits;
    use crate::values::hash::{Hash, Rules};
    use crate::{DbStats, Expiry, Options};

    fn keyspace() -> Keyspace {
        let mut keyspace = Keyspace::new(&Options { databases: 3, hash_seed: 5, random_seed: 6 });
        keyspace.now = 1_000_000;
        keyspace
    }

    fn counted(keyspace: &Keyspace) -> DbStats {
        let mut sum = DbStats::default();
        keyspace.db_stats.iter().for_each(|stats| sum.add(stats));
        sum
    }

    /// Evicts until so many bytes are free or nobody is left; how many keys went.
    fn evict_bytes(keyspace: &mut Keyspace, rule: Eviction, bytes: usize) -> u64 {
        let (before, mut freed, mut steps) = (counted(keyspace).evicted, 0, 0);
        while freed < bytes {
            match keyspace.evict(rule, None) {
                Evicted::Freed(bytes) => freed += bytes,
                Evicted::Searching => {}
                Evicted::Nobody => break,
            }
            steps += 1;
            assert!(steps < 1_000_000, "nobody is found and nobody says so");
        }
        counted(keyspace).evicted - before
    }

    /// The hand finds everybody who may go, in all databases, and says when there is nobody left; who may not go
    /// stays.
    #[test]
    fn all_but_the_exempt() {
        for (rule, selective) in [
            (Eviction::All, false),
            (Eviction::All, true),
            (Eviction::Timed, true),
            (Eviction::NextDue, false),
        ] {
            let mut keyspace = keyspace();
            if selective {
                keyspace.be_selective();
            }
            let mut stay = 0;
            for n in 0..30_000usize {
                let (db, key) = (n % 2 * 2, format!("key:{n}"));
                let expiry = if n % 3 == 0 { Expiry::At(2_000_000) } else { Expiry::Never };
                keyspace.set_string(db, key.as_bytes(), b"some value", expiry);
                let loc = keyspace.find(db, key.as_bytes()).expect("stored");
                keyspace.table_mut(db).set_sticky(loc, n % 5 == 0);
                let goes = n % 5 != 0 && (rule == Eviction::All || n % 3 == 0);
                stay += usize::from(!goes);
            }
            assert_eq!(evict_bytes(&mut keyspace, Eviction::Never, usize::MAX), 0);
            assert_eq!([Eviction::Never, rule].map(|rule| keyspace.evictable(rule) > 0), [false, true]);
            let gone = evict_bytes(&mut keyspace, rule, usize::MAX);
            assert_eq!((keyspace.len(0) + keyspace.len(2), gone as usize), (stay, 30_000 - stay), "{rule:?}");
            keyspace.check();
            assert_eq!(keyspace.evictable(rule), 0, "{rule:?}");
            keyspace.set_string(1, b"another", b"value", Expiry::At(2_000_000));
            assert!(keyspace.evictable(rule) > 0, "{rule:?}");
            assert_eq!(evict_bytes(&mut keyspace, rule, usize::MAX), 1);
        }
    }

    /// A single key is found, wherever it is, also right after a search in which there was none.
    #[test]
    fn the_only_one_goes() {
        for n in 0..1000 {
            let mut keyspace = keyspace();
            assert_eq!(evict_bytes(&mut keyspace, Eviction::All, usize::MAX), 0);
            keyspace.set_string(n % 3, format!("key:{n}").as_bytes(), b"some value", Expiry::Never);
            assert_eq!(evict_bytes(&mut keyspace, Eviction::All, usize::MAX), 1, "{n}");
        }
    }

    /// A key that had to stay while somebody looked may go as soon as it need not, though no key has come since.
    #[test]
    fn the_spared_may_go_later() {
        let mut keyspace = keyspace();
        keyspace.set_string(0, b"key", b"some value", Expiry::Never);
        let mut steps = 0;
        while !matches!(keyspace.evict(Eviction::All, Some(&|_, _| true)), Evicted::Nobody) {
            steps += 1;
            assert!(steps < 1000, "nobody is found and nobody says so");
        }
        assert_eq!(keyspace.len(0), 1);
        assert!(keyspace.evictable(Eviction::All) > 0);
        assert_eq!(evict_bytes(&mut keyspace, Eviction::All, usize::MAX), 1);
    }

    /// A key that was exempt while somebody looked may go as soon as it is not, though no key has come since.
    #[test]
    fn the_released_may_go() {
        let mut keyspace = keyspace();
        keyspace.set_string(0, b"stays", b"some value", Expiry::Never);
        let loc = keyspace.find(0, b"stays").expect("stored");
        keyspace.table_mut(0).set_sticky(loc, true);
        assert_eq!(evict_bytes(&mut keyspace, Eviction::All, usize::MAX), 0);
        assert_eq!(keyspace.evictable(Eviction::All), 0);
        keyspace.table_mut(0).set_sticky(loc, false);
        assert!(keyspace.evictable(Eviction::All) > 0);
        assert_eq!(evict_bytes(&mut keyspace, Eviction::All, usize::MAX), 1);
    }

    /// Keys that are used stay while twenty times as many come and go that are used once, queue or not.
    #[test]
    fn the_used_stay() {
        for selective in [false, true] {
            let mut keyspace = keyspace();
            if selective {
                keyspace.be_selective();
            }
            let hot = |n: usize| format!("hot:{n}").into_bytes();
            for n in 0..1000 {
                keyspace.set_string(0, &hot(n), b"value", Expiry::Never);
            }
            for n in 0..40_000usize {
                keyspace.read(0, &hot(n % 1000));
                keyspace.set_string(0, format!("cold:{n}").as_bytes(), b"value", Expiry::Never);
                keyspace.keep_epochs();
                while keyspace.len(0) > 2000 {
                    keyspace.evict(Eviction::All, None);
                }
            }
            let kept = (0..1000).filter(|&n| keyspace.find(0, &hot(n)).is_some()).count();
            assert!(kept >= 990, "{kept} of 1000 were kept, selective {selective}");
            keyspace.check();
        }
    }

    /// An epoch is twenty uses of each key long where many of them are births, and up to twice that where few are.
    #[test]
    fn epochs_are_longer_where_few_come_in() {
        for (births, uses) in [(0, 40), (1, 40), (2, 30), (3, 20), (8, 20)] {
            let mut keyspace = keyspace();
            let key = |n: usize| format!("key:{n}").into_bytes();
            (0..1000).for_each(|n| keyspace.set_string(0, &key(n), b"value", Expiry::Never));
            keyspace.keep_epochs();
            (keyspace.epochs.uses, keyspace.epochs.births) = (0, 0);
            let before = keyspace.epochs.now;
            let mut lasted = 0;
            while keyspace.epochs.now == before {
                for n in 0..1000 {
                    if n % 20 < births {
                        keyspace.remove(0, &key(n));
                        keyspace.set_string(0, &key(n), b"value", Expiry::Never);
                    } else {
                        keyspace.read(0, &key(n));
                    }
                }
                keyspace.keep_epochs();
                lasted += 1;
            }
            assert_eq!(lasted, uses, "with {births} births in twenty uses");
        }
    }

    /// In a loop over half as many keys again as fit, most of those that fit are hits: who has just come back does not
    /// push out those whose turn is still to come, although they were used less of late.
    #[test]
    fn a_loop_keeps_what_fits() {
        const FIT: usize = 2000;
        const LAPS: usize = 60;
        let mut keyspace = keyspace();
        keyspace.be_selective();
        let mut hits = 0;
        for n in 0..LAPS * FIT * 3 / 2 {
            let key = format!("key:{}", n % (FIT * 3 / 2)).into_bytes();
            if keyspace.read(0, &key).is_some() {
                hits += usize::from(n > LAPS * FIT / 2);
            } else {
                keyspace.set_string(0, &key, b"value", Expiry::Never);
            }
            keyspace.keep_epochs();
            while keyspace.len(0) > FIT {
                keyspace.evict(Eviction::All, None);
            }
        }
        // Two thirds are the most that is possible.
        assert!(hits > LAPS * FIT * 62 / 100, "{hits} of {} were hits", LAPS * FIT);
    }

    /// Of keys used alike, the big go first, inside a table or out, strings or collections; and bytes are counted
    /// right.
    #[test]
    fn the_big_go_first() {
        let mut keyspace = keyspace();
        let rules = Rules { now: 0, seed: 5, limits: PackLimits::default() };
        for n in 0..4000usize {
            let key = format!("key:{n}").into_bytes();
            match n % 8 {
                0 => keyspace.set_string(0, &key, &[b'x'; 10_000], Expiry::Never),
                1 => {
                    let edit = keyspace.edit_or_new(0, &key, |hash: &mut Hash| {
                        for field in 0..300u32 {
                            hash.set(&rules, &field.to_le_bytes(), b"0123456789abcdef", Expiry::Never);
                        }
                    });
                    assert!(edit.is_ok());
                }
                _ => keyspace.set_string(0, &key, b"small", Expiry::Never),
            }
        }
        let before = keyspace.heap_bytes() - keyspace.dead_bytes();
        let mut freed = 0;
        for _ in 0..500 {
            if let Evicted::Freed(bytes) = keyspace.evict(Eviction::All, None) {
                freed += bytes;
            }
            while keyspace.free_some() {}
        }
        let big = (0..4000).filter(|n| n % 8 < 2);
        let kept = big.filter(|n| keyspace.find(0, format!("key:{n}").as_bytes()).is_some()).count();
        assert!(kept <= 550, "{kept} of 1000 big ones are left after 500 went");
        let gone = before - (keyspace.heap_bytes() - keyspace.dead_bytes());
        assert!(gone.abs_diff(freed) < freed / 20, "said {freed}, freed {gone}");
        keyspace.check();
    }

    /// What has expired goes before what has not, and as expired, not as evicted.
    #[test]
    fn the_expired_go_first() {
        let mut keyspace = keyspace();
        keyspace.observed = true;
        for n in 0..2000u64 {
            let expiry = if n % 4 == 0 { Expiry::At(1_000_500) } else { Expiry::Never };
            keyspace.set_string(0, format!("key:{n}").as_bytes(), b"value", expiry);
        }
        keyspace.now = 1_000_500;
        for _ in 0..90 {
            keyspace.evict(Eviction::All, None);
        }
        let stats = counted(&keyspace);
        assert!(stats.expired >= 80, "{stats:?}");
        let events = keyspace.take_events();
        let expired = events.iter().filter(|event| event.class == Class::Expired).count() as u64;
        let evicted = events.iter().filter(|event| event.class == Class::Evicted).count() as u64;
        assert_eq!((expired, evicted), (stats.expired, stats.evicted));
        keyspace.active_expire = false;
        let expired = stats.expired;
        evict_bytes(&mut keyspace, Eviction::Timed, usize::MAX);
        assert_eq!(counted(&keyspace).expired, expired, "a keyspace that may not expire keys does not");
    }

    /// A key that somebody holds stays, however light.
    #[test]
    fn the_held_stay() {
        let mut keyspace = keyspace();
        for n in 0..100 {
            keyspace.set_string(1, format!("key:{n}").as_bytes(), b"value", Expiry::Never);
        }
        let held = keyspace.hash(b"key:7");
        for _ in 0..10_000 {
            keyspace.evict(Eviction::All, Some(&|db, hash| db == 1 && hash == held));
        }
        assert!(keyspace.find(1, b"key:7").is_some());
        assert!(keyspace.len(1) < 20, "groups with a held key give up the others in time");
    }

    /// A key's frequency halves with each epoch and its idle time begins with the end of its last one; seven epochs
    /// later it still counts as old, if a hand has passed.
    #[test]
    fn ages() {
        let mut keyspace = keyspace();
        keyspace.set_string(0, b"old", b"value", Expiry::Never);
        keyspace.set_string(0, b"used", b"value", Expiry::Never);
        let mut frequencies = Vec::new();
        for _ in 0..10 {
            keyspace.read(0, b"old");
        }
        for _ in 0..20 {
            let loc = keyspace.find(0, b"old").expect("there");
            frequencies.push((keyspace.table(0).frequency(loc), keyspace.idle_ms(0, loc)));
            for _ in 0..EPOCH_USES_MIN {
                keyspace.now += 1;
                keyspace.read(0, b"used");
            }
            keyspace.keep_epochs();
            // Held, so that the hand passes and nobody goes.
            for _ in 0..60 {
                keyspace.evict(Eviction::All, Some(&|_, _| true));
            }
        }
        assert_eq!(frequencies[..5], [(11, 0), (5, 0), (2, 1024), (1, 2048), (0, 3072)]);
        assert!(frequencies[5..].iter().all(|(frequency, idle)| *frequency == 0 && *idle > 3072));
    }

    /// Ghosts: who went hot comes back hot, and a table that shrinks gives their memory back.
    #[test]
    fn ghosts() {
        let mut keyspace = keyspace();
        keyspace.be_selective();
        for n in 0..20_000 {
            keyspace.set_string(0, format!("key:{n}").as_bytes(), b"value", Expiry::Never);
        }
        for _ in 0..8 {
            keyspace.read(0, b"key:77");
        }
        let most = keyspace.table(0).warmth.heap_bytes();
        let loc = keyspace.find(0, b"key:77").expect("there");
        keyspace.evict_at(0, loc);
        keyspace.set_string(0, b"key:77", b"value", Expiry::Never);
        let loc = keyspace.find(0, b"key:77").expect("there");
        assert_eq!(keyspace.table(0).frequency(loc), 10);
        evict_bytes(&mut keyspace, Eviction::All, 1_000_000);
        for n in 0..2000 {
            keyspace.set_string(0, format!("key:{}", n % 20).as_bytes(), b"value", Expiry::Never);
            keyspace.remove(0, format!("key:{}", n % 20).as_bytes());
        }
        assert!(keyspace.table(0).warmth.heap_bytes() < most / 4);
    }
}
