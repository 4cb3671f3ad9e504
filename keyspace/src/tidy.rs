//! Making memory dense again.
//!
//! Removed entries leave holes: in the blocks of their segment, in tables whose segments are nearly empty, and in the
//! allocator's pages, each of which goes back to the system only when nothing is left in it. [`Keyspace::tidy_some`]
//! walks the segments of all databases, a few per call: it rewrites those with many dead bytes, joins neighbours that
//! fit together, and gives what lies in a sparse page of the allocator another address. What is sparse the owner says,
//! because only he knows the allocator.

use damselfly_structures::table::SegmentId;

use crate::{Db, Keyspace};

/// Where the walk stands.
#[derive(Default)]
pub(crate) struct Walk {
    db: usize,
    segment: Option<SegmentId>,
}

/// What one call of [`Keyspace::tidy_some`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tidied {
    /// Bytes that now lie elsewhere, and those that tables gave back.
    pub moved: usize,
    /// Whether a round over all databases ended.
    pub round_ended: bool,
}

/// Tells whether the page of the allocator that an address lies in is mostly free.
pub type IsSparse<'a> = &'a dyn Fn(*const u8) -> bool;

impl Db {
    /// Tidies one segment; returns how many bytes moved or are free now.
    fn tidy(&mut self, id: SegmentId, is_sparse: IsSparse<'_>) -> usize {
        let before = self.table.heap_bytes();
        self.table.compact_segment(id);
        // A running cut knows which buckets it has saved; entries that changed theirs would confuse it.
        // The walk comes in order, so what one merge makes has its buddy behind it or just before: all levels in one
        // round.
        while self.cut().is_none() && self.table.merge(id.hash()) {}
        let freed = before.saturating_sub(self.table.heap_bytes());
        freed + self.table.move_segment(id, is_sparse)
    }
}

impl Keyspace {
    /// One step of the walk: tidies up to `segments` segments, or fewer if it moved `bytes`.
    pub fn tidy_some(&mut self, segments: usize, bytes: usize, is_sparse: IsSparse<'_>) -> Tidied {
        let mut tidied = Tidied::default();
        for _ in 0..segments {
            let after = self.tidying.segment;
            let here = self.dbs[self.tidying.db].as_deref_mut();
            let next = here.as_deref().and_then(|db| db.segment_after(after));
            let (Some(db), Some((id, _))) = (here, next) else {
                if let Some(db) = self.dbs[self.tidying.db].as_deref_mut() {
                    db.table.trim_directory();
                }
                self.tidying.segment = None;
                self.tidying.db = (self.tidying.db + 1) % self.dbs.len();
                if self.tidying.db == 0 {
                    tidied.round_ended = true;
                    return tidied;
                }
                continue;
            };
            tidied.moved += db.tidy(id, is_sparse);
            self.tidying.segment = Some(id);
            if tidied.moved >= bytes {
                break;
            }
        }
        tidied
    }
}

#[cfg(test)]
mod tests {
    use crate::{Expiry, Keyspace, Options, Value};

    /// Whatever is called sparse, nothing is lost: keys, values, expiries and accounts are the same before and after;
    /// and of a table that lost nine keys in ten, little is left.
    #[test]
    fn nothing_is_lost() {
        let mut keyspace = Keyspace::new(&Options { databases: 2, hash_seed: 5, random_seed: 6 });
        let value = |n: usize| format!("value {n} {}", "x".repeat(n % 2000)).into_bytes();
        let key = |n: usize| format!("key:{n} {}", "k".repeat(n % 300)).into_bytes();
        let expiry = |n: usize| if n.is_multiple_of(3) { Expiry::At(5000) } else { Expiry::Never };
        for n in 0..20_000 {
            keyspace.set_string(n % 2, &key(n), &value(n), expiry(n));
        }
        for round in 0..2 {
            if round == 1 {
                (0..20_000).filter(|n| n % 20 > 1).for_each(|n| assert!(keyspace.remove(n % 2, &key(n))));
            }
            let (before, mut moved, mut rounds) = (keyspace.heap_bytes(), 0, 0);
            while rounds < 4 {
                let tidied = keyspace.tidy_some(3, 50_000, &|address| !address.addr().is_multiple_of(3));
                moved += tidied.moved;
                rounds += usize::from(tidied.round_ended);
            }
            assert!(moved > before / 8, "{moved} of {before}");
            keyspace.check();
            assert!(keyspace.heap_bytes() <= before && keyspace.dead_bytes() <= keyspace.heap_bytes() / 8);
            for n in (0..20_000).filter(|n| round == 0 || n % 20 <= 1) {
                let loc = keyspace.find(n % 2, &key(n)).expect("kept");
                assert!(matches!(keyspace.value(n % 2, loc), Value::Str(found) if found == value(n)));
                assert_eq!(keyspace.table(n % 2).expire_at(loc), (n % 3 == 0).then_some(5000));
            }
        }
        let capacity = keyspace.table(0).capacity() + keyspace.table(1).capacity();
        assert!(capacity < 8 * 2000, "room for {capacity} keys is kept for 2000");
    }

    /// After most keys went, as when the limit on memory is lowered, one round makes the table as small as what is left,
    /// however many times its segments must be joined for that, and says how much it did; a second one finds nothing.
    #[test]
    fn one_round_is_enough() {
        let mut keyspace = Keyspace::new(&Options { databases: 1, hash_seed: 5, random_seed: 6 });
        let key = |n: usize| format!("key:{n}").into_bytes();
        (0..50_000).for_each(|n| keyspace.set_string(0, &key(n), &[b'v'; 100], Expiry::Never));
        (0..50_000).filter(|n| n % 32 > 0).for_each(|n| assert!(keyspace.remove(0, &key(n))));
        let before = keyspace.heap_bytes();
        let round = |keyspace: &mut Keyspace| {
            let mut moved = 0;
            loop {
                let tidied = keyspace.tidy_some(4, usize::MAX, &|_| false);
                moved += tidied.moved;
                if tidied.round_ended {
                    return moved;
                }
            }
        };
        let moved = round(&mut keyspace);
        keyspace.check();
        let after = keyspace.heap_bytes();
        assert!(moved > before / 2 && after < before / 2, "{moved} of {before} bytes, {after} are left");
        assert!(keyspace.table(0).capacity() < 12 * 50_000 / 32);
        assert!(round(&mut keyspace) < after / 32);
    }
}
