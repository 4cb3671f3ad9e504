//! How keys go when their time comes.
//!
//! Two ways, as in Redis. *Lazily*: whoever looks up a key whose time has come finds nothing, and the key is removed
//! on the spot; so no client ever sees an expired key, to the millisecond. *In the background*: [`Keyspace::expire_some`]
//! walks the segments of all databases, a few per call. Each segment's note holds a lower bound of its earliest
//! expiry, so a segment without anything due costs one comparison: a million keys are 2 000 comparisons.
//!
//! The walk is cheap enough to be exhaustive, which is why there is no sampling: every due key is found within one
//! round, and a round over 10 M keys takes about 20 000 segment visits.

use crate::{Class, Keyspace, Loc};
use damselfly_structures::table::SegmentId;

/// Where the background walk stands.
#[derive(Default)]
pub(crate) struct Walk {
    db: usize,
    segment: Option<SegmentId>,
    found: Vec<Loc>,
}

/// What one call of [`Keyspace::expire_some`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Keys removed.
    pub keys: usize,
    /// Whether a full round over all databases ended.
    pub round_ended: bool,
}

/// Keys removed from one segment before its locations must be looked up afresh: removal may rewrite the segment,
/// but never moves a slot, so all locations of one visit stay valid; the bound keeps a step short.
const REMOVALS_PER_VISIT: usize = 64;

impl Keyspace {
    /// Removes a key whose time has come.
    #[cold]
    pub(crate) fn expire(&mut self, db: usize, loc: Loc) {
        if self.observed {
            let key = self.table(db).key(loc).to_vec();
            self.note(db, &key, Class::Expired, "expired");
        }
        self.stats.expired += 1;
        self.stats.mutations += 1;
        self.remove_at(db, loc);
    }

    /// One step of the background walk: looks at up to `segments` segments and removes at most 64 due keys. The
    /// owner repeats it while it has time and `round_ended` is false.
    pub fn expire_some(&mut self, segments: usize) -> Expired {
        let mut expired = Expired::default();
        if !self.active_expire {
            return Expired { keys: 0, round_ended: true };
        }
        for _ in 0..segments {
            let here = self.dbs[self.expiry.db].as_deref().filter(|db| db.expires() > 0);
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
                self.table_mut(db).expired_in(id, now, REMOVALS_PER_VISIT, &mut found);
                let count = found.len();
                for loc in found.drain(..) {
                    self.expire(db, loc);
                }
                self.expiry.found = found;
                self.stats.expired_in_background += count as u64;
                expired.keys += count;
                if count == REMOVALS_PER_VISIT {
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
        assert_eq!((keyspace.len(0), keyspace.stats.expired), (0, 1));
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
            let before = keyspace.stats.expired;
            keyspace.set_string(0, b"k", value, expiry);
            assert_eq!(keyspace.stats.expired, before + 1);
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
}
