//! How keys go when their time comes.
//!
//! Two ways, as in Redis. *Lazily*: whoever looks up a key whose time has come finds nothing, and the key is removed
//! on the spot; so no client ever sees an expired key, to the millisecond. *In the background*: [`Keyspace::expire_some`]
//! walks the segments of all databases, a few per call. Each segment's note holds a lower bound of its earliest
//! expiry, so a segment without anything due costs one comparison: a million keys are 2 000 comparisons.
//!
//! Elements of collections may have an expiry of their own, and go in the same two ways: a collection that is looked up
//! frees some of what is due first (whatever is left then does not exist for its readers), and goes with its key if
//! that was all; and a segment's note is a lower bound of these expiries too, so the walk comes by. It knows which
//! collections to open because each answers at once when its first element is due.
//!
//! While clients are paused neither happens: who reads does not see what has expired, and leaves it.
//!
//! The walk is cheap enough to be exhaustive, which is why there is no sampling: every due key is found within one
//! round, and a round over 10 M keys takes about 20 000 segment visits.

use crate::{Class, Keyspace, Loc, Type, Value};
use damselfly_structures::table::SegmentId;

/// Where the background walk stands.
#[derive(Default)]
pub(crate) struct Walk {
    db: usize,
    segment: Option<SegmentId>,
    found: Vec<Loc>,
    due: Vec<Loc>,
}

/// What one call of [`Keyspace::expire_some`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Keys removed because their own time had come.
    pub keys: usize,
    /// Elements of collections removed.
    pub elements: usize,
    /// Whether a full round over all databases ended.
    pub round_ended: bool,
}

/// Keys removed from one segment before its locations must be looked up afresh: removal may rewrite the segment,
/// but never moves a slot, so all locations of one visit stay valid; the bound keeps a step short.
const REMOVALS_PER_VISIT: usize = 64;

/// Elements removed in one step of the walk: at about 100 ns each, some tens of microseconds.
const ELEMENTS_PER_STEP: usize = 256;

/// Elements of a collection removed before a command that looks it up goes on.
const ELEMENTS_PER_LOOKUP: usize = 64;

impl Keyspace {
    /// Removes a key whose time has come.
    #[cold]
    pub(crate) fn expire(&mut self, db: usize, loc: Loc) {
        if self.observed {
            let key = self.table(db).key(loc).to_vec();
            self.note(db, &key, Class::Expired, "expired");
        }
        self.db_stats[db].expired += 1;
        self.stats.mutations += 1;
        self.remove_at(db, loc);
    }

    /// Whether a key that is looked up goes because all elements of its collection have expired; some of those that
    /// have are removed.
    #[inline]
    pub(crate) fn lose_elements(&mut self, db: usize, loc: Loc) -> bool {
        let table = self.table(db);
        table.timed() > 0
            && table.has_due_elements(loc, self.now)
            && if self.keeps_expired {
                matches!(table.value(loc), Value::Object(object) if !object.has_live(self.now))
            } else {
                self.expire_elements(db, loc, ELEMENTS_PER_LOOKUP).1
            }
    }

    /// Removes about `limit` elements of a collection whose time has come, and the key if that was all. Returns how
    /// many, and whether the key went.
    #[cold]
    fn expire_elements(&mut self, db: usize, loc: Loc, limit: usize) -> (usize, bool) {
        let now = self.now;
        let edited = self.table_mut(db).edit_object(loc, |object| {
            let removed = object.expire_elements(now, limit);
            (removed, !object.has_live(now), object.kind())
        });
        let (removed, gone, kind) = edited.expect("strings have no elements");
        self.stats.expired_elements += removed as u64;
        if removed > 0 || gone {
            self.stats.mutations += 1;
            if self.observed {
                let key = self.table(db).key(loc).to_vec();
                let (class, name) = match kind {
                    Type::Hash => (Class::Hash, "hexpired"),
                    Type::Set => (Class::Set, "sexpired"),
                    _ => unreachable!("elements of no other type expire"),
                };
                self.note(db, &key, class, name);
                if gone {
                    self.note(db, &key, Class::Generic, "del");
                }
            }
        }
        if gone {
            self.remove_at(db, loc);
        }
        (removed, gone)
    }

    /// One step of the background walk: looks at up to `segments` segments and removes at most 64 due keys and 256
    /// due elements of collections, counted by the small collection. The owner repeats it while it has time and `round_ended` is false.
    pub fn expire_some(&mut self, segments: usize) -> Expired {
        let mut expired = Expired::default();
        if !self.active_expire {
            return Expired { round_ended: true, ..Expired::default() };
        }
        for _ in 0..segments {
            let here = self.dbs[self.expiry.db].as_deref().filter(|db| db.expires() > 0 || db.timed() > 0);
            let Some((id, earliest)) = here.and_then(|db| db.segment_after(self.expiry.segment)) else {
                self.expiry.segment = None;
                self.expiry.db += 1;
                if self.expiry.db == self.dbs.len() {
                    self.expiry.db = 0;
                    expired.round_ended = true;
                    return expired;
                }
                continue;
            };
            if earliest <= self.now {
                let (db, now) = (self.expiry.db, self.now);
                let mut found = std::mem::take(&mut self.expiry.found);
                let mut due = std::mem::take(&mut self.expiry.due);
                self.table_mut(db).expired_in(id, now, REMOVALS_PER_VISIT, &mut found, &mut due);
                let count = found.len();
                let more = count == REMOVALS_PER_VISIT || due.len() == REMOVALS_PER_VISIT;
                for loc in found.drain(..) {
                    self.expire(db, loc);
                }
                self.expiry.found = found;
                for loc in due.drain(..) {
                    if expired.elements < ELEMENTS_PER_STEP {
                        let limit = ELEMENTS_PER_STEP - expired.elements;
                        expired.elements += self.expire_elements(db, loc, limit).0;
                    } else {
                        self.table_mut(db).look_again(loc);
                    }
                }
                self.expiry.due = due;
                self.stats.expired_in_background += count as u64;
                expired.keys += count;
                if more || expired.elements >= ELEMENTS_PER_STEP {
                    // There may be more in this segment; it is looked at again before the walk goes on.
                    return expired;
                }
            }
            self.expiry.segment = Some(id);
        }
        expired
    }
}

#[cfg(test)]
mod tests {
    use crate::values::PackLimits;
    use crate::values::hash::{Hash, Rules};
    use crate::{Expiry, Keyspace, Options};

    fn keyspace() -> Keyspace {
        let mut keyspace = Keyspace::new(&Options { databases: 3, hash_seed: 5, random_seed: 6 });
        keyspace.now = 1_000_000;
        keyspace
    }

    /// A key is there one millisecond before its time and gone at it, without any background work.
    #[test]
    fn lazily_to_the_millisecond() {
        let mut keyspace = keyspace();
        keyspace.set_string(0, b"k", b"v", Expiry::At(1_000_500));
        keyspace.now = 1_000_499;
        assert!(keyspace.find(0, b"k").is_some());
        keyspace.now = 1_000_500;
        assert!(keyspace.find(0, b"k").is_none());
        assert_eq!((keyspace.len(0), keyspace.db_stats[0].expired), (0, 1));
    }

    /// Who overwrites a key that is due makes it expire first: it is counted and announced, and nothing of it is kept.
    #[test]
    fn overwritten_too_late() {
        let mut keyspace = keyspace();
        keyspace.observed = true;
        for (value, expiry) in [(&b"12"[..], Expiry::Keep), (b"text", Expiry::Keep), (b"text", Expiry::Never)]
        {
            keyspace.set_string(0, b"k", b"old", Expiry::At(1_000_500));
            keyspace.now = 1_000_500;
            let before = keyspace.db_stats[0].expired;
            keyspace.set_string(0, b"k", value, expiry);
            assert_eq!(keyspace.db_stats[0].expired, before + 1);
            let loc = keyspace.find(0, b"k").expect("stored");
            assert_eq!(keyspace.table(0).expire_at(loc), None);
            let events = keyspace.take_events();
            assert_eq!(events.iter().map(|event| event.name).collect::<Vec<_>>(), ["expired"]);
            keyspace.now = 1_000_000;
        }
        keyspace.check();
    }

    /// One round of the walk removes exactly the due keys of all databases, however they are spread.
    #[test]
    fn in_the_background_completely() {
        let mut keyspace = keyspace();
        let n = 20_000u64;
        for i in 0..n {
            let expiry = if i % 3 == 0 { Expiry::Never } else { Expiry::At(1_000_001 + i) };
            keyspace.set_string((i % 2) as usize * 2, format!("key:{i}").as_bytes(), b"v", expiry);
        }
        keyspace.now = 1_000_001 + n / 2;
        let mut removed = 0;
        for round in 0..2 {
            loop {
                let step = keyspace.expire_some(10);
                removed += step.keys;
                if step.round_ended {
                    break;
                }
            }
            let due = (0..=n / 2).filter(|i| i % 3 != 0).count();
            assert_eq!(removed, due, "round {round}");
        }
        keyspace.check();
        assert_eq!(keyspace.len(0) + keyspace.len(2), n as usize - removed);
    }

    /// Puts a hash under a key whose fields expire at these times; 0 for never.
    fn hash(keyspace: &mut Keyspace, key: &str, times: impl Iterator<Item = u64>) {
        let rules = Rules { now: keyspace.now, seed: 5, limits: PackLimits::default() };
        let edit = keyspace.edit_or_new(1, key.as_bytes(), |hash: &mut Hash| {
            for (n, at) in times.enumerate() {
                let expiry = if at == 0 { Expiry::Never } else { Expiry::At(at) };
                hash.set(&rules, format!("field:{n}").as_bytes(), b"value", expiry);
            }
        });
        assert!(!edit.expect("a hash").gone);
    }

    fn events(keyspace: &mut Keyspace) -> Vec<String> {
        let name = |event: crate::Event| format!("{} {}", event.name, event.key.escape_ascii());
        keyspace.take_events().into_iter().map(name).collect()
    }

    /// A lookup frees what is due, tells, and takes the key away with the last field; until then there are neither
    /// the expired fields nor, if all have expired, the key. Also where more is due than one lookup frees.
    #[test]
    fn elements_lazily() {
        for fields in [3, 5_000] {
            let mut keyspace = keyspace();
            keyspace.observed = true;
            hash(&mut keyspace, "all", (0..fields).map(|_| 1_000_500));
            hash(&mut keyspace, "most", (0..fields).map(|n| if n == 2 { 0 } else { 1_000_500 }));
            assert_eq!(keyspace.table(1).timed(), 2);
            keyspace.now = 1_000_499;
            assert!(keyspace.find(1, b"all").is_some() && events(&mut keyspace).is_empty());
            keyspace.now = 1_000_500;
            assert!(keyspace.find(1, b"all").is_none());
            assert_eq!(events(&mut keyspace), ["hexpired all", "del all"]);
            let hash = keyspace.view::<Hash>(1, b"most").expect("a hash").expect("one field is left");
            assert_eq!((hash.len(1_000_500), hash.get(b"field:3", 1_000_500)), (1, None));
            assert_eq!(events(&mut keyspace), ["hexpired most"]);
            while keyspace.table(1).timed() > 0 {
                assert!(keyspace.find(1, b"most").is_some());
            }
            keyspace.check();
            assert_eq!(keyspace.db_stats[0].expired, 0, "no key had an expiry");
        }
    }

    /// One round of the walk frees exactly the due fields of all hashes, small and big, in bounded steps; memory
    /// comes back, and hashes without fields go.
    #[test]
    fn elements_in_the_background() {
        let mut keyspace = keyspace();
        let small = 3_000;
        for n in 0..small {
            hash(&mut keyspace, &format!("small:{n}"), (0..4).map(|field| (field % 2) * (1_000_001 + n)));
            hash(&mut keyspace, &format!("gone:{n}"), (0..2).map(|_| 1_000_001 + n));
        }
        hash(&mut keyspace, "big", (0..20_000).map(|n| 1_000_001 + n));
        keyspace.set_string(1, b"string", b"v", Expiry::At(1_000_001));
        let before = keyspace.heap_bytes();
        keyspace.now = 1_000_000 + small / 2;
        let (mut elements, mut keys) = (0, 0);
        let mut round = |keyspace: &mut Keyspace| {
            loop {
                let step = keyspace.expire_some(4);
                assert!(step.elements < 256 + 4 && step.keys <= 64);
                (elements, keys) = (elements + step.elements, keys + step.keys);
                if step.round_ended {
                    break;
                }
            }
            keyspace.check();
            (elements, keys)
        };
        // A step looks into so many segments of a big hash; some rounds find the rest.
        let mut rounds = 0;
        while round(&mut keyspace).0 < small as usize * 5 / 2 {
            rounds += 1;
            assert!(rounds < 10);
        }
        assert_eq!(round(&mut keyspace), (small as usize * 5 / 2, 1));
        assert_eq!(keyspace.len(1), small as usize * 3 / 2 + 1);
        assert!(keyspace.heap_bytes() < before);
        assert_eq!(keyspace.table(1).timed(), small as usize / 2 * 2 + 1);
        keyspace.now = 2_000_000;
        for _ in 0..200 {
            round(&mut keyspace);
        }
        assert_eq!((keyspace.len(1), keyspace.table(1).timed()), (small as usize, 0));
    }

    /// What a command stores, moves or copies is found by the walk as well.
    #[test]
    fn elements_travel() {
        let mut keyspace = keyspace();
        hash(&mut keyspace, "h", [1_000_500, 0].into_iter());
        let copy = keyspace.export(1, b"h");
        let taken = keyspace.take(1, b"h");
        assert_eq!(keyspace.table(1).timed(), 0);
        keyspace.import(0, b"copy", copy);
        keyspace.import(2, b"taken", taken);
        keyspace.now = 1_000_500;
        assert_eq!((keyspace.expire_some(100).elements, keyspace.table(0).timed()), (2, 0));
        keyspace.check();
        assert_eq!(keyspace.flush(0) + keyspace.flush(2), 2);
    }
}
