//! Making memory dense again.
//!
//! Removed entries leave holes: in the blocks of their segment, in tables whose segments are nearly empty, and in the
//! allocator's pages, each of which goes back to the system only when nothing is left in it. [`Keyspace::tidy_some`]
//! walks all databases, a little per call: it rewrites segments with many dead bytes, joins neighbours that fit
//! together, numbers collections anew where their slab has holes, and gives what lies in a sparse page of the allocator
//! another address, collections and ghosts, too. What is sparse the owner says, because only he knows the allocator.

use damselfly_structures::moves::{Heap, Mover};
use damselfly_structures::table::SegmentId;

use crate::{Db, Keyspace};

/// Parts of collections that are looked at in a step.
const LOOKS: usize = 64;

/// Where the walk stands.
#[derive(Default)]
pub(crate) struct Walk {
    db: usize,
    stage: Stage,
}

/// Where it stands in a database.
#[derive(Clone, Copy)]
enum Stage {
    /// Behind this segment of the table, or before the first.
    Segments(Option<SegmentId>),
    /// At this place of the collection with this number.
    Objects(u32, u64),
    /// At this place of what is remembered of keys that went.
    Ghosts(u64),
}

impl Default for Stage {
    fn default() -> Stage {
        Stage::Segments(None)
    }
}

/// What one call of [`Keyspace::tidy_some`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tidied {
    /// Bytes that now lie elsewhere, and those that tables gave back.
    pub moved: usize,
    /// Whether a round over all databases ended.
    pub round_ended: bool,
}

impl Db {
    /// Tidies a segment, or some collections or ghosts; returns where to go on, or None if this was all, and how many bytes moved or
    /// are free now.
    fn tidy(&mut self, stage: Stage, bytes: usize, heap: Option<&dyn Heap>) -> (Option<Stage>, usize) {
        match (stage, heap) {
            (Stage::Segments(after), _) => {
                if after.is_none() {
                    self.table.begin_renumbering();
                }
                match self.segment_after(after) {
                    Some((id, _)) => (Some(Stage::Segments(Some(id))), self.tidy_segment(id, heap)),
                    None => {
                        self.table.trim_directory();
                        self.table.end_renumbering();
                        (heap.map(|_| Stage::Objects(0, 0)), 0)
                    }
                }
            }
            (Stage::Objects(number, place), Some(heap)) => {
                let mut mover = Mover::new(heap, LOOKS, bytes);
                let next = self.tidy_objects(number, place, &mut mover);
                (Some(next.unwrap_or(Stage::Ghosts(0))), mover.moved())
            }
            (Stage::Ghosts(place), Some(heap)) => {
                let mut mover = Mover::new(heap, LOOKS, bytes);
                let next = mover.from(place, |mover| self.warmth.ghosts.relocate(mover));
                (next.map(Stage::Ghosts), mover.moved())
            }
            (Stage::Objects(..) | Stage::Ghosts(..), None) => (None, 0),
        }
    }

    fn tidy_segment(&mut self, id: SegmentId, heap: Option<&dyn Heap>) -> usize {
        let before = self.table.heap_bytes();
        self.table.compact_segment(id);
        // A running cut knows which buckets it has saved; entries that changed theirs would confuse it.
        // The walk comes in order, so what one merge makes has its buddy behind it or just before: all levels in one
        // round.
        while self.cut().is_none() && self.table.merge(id.hash()) {}
        self.table.renumber_segment(id);
        let freed = before.saturating_sub(self.table.heap_bytes());
        let Some(heap) = heap else { return freed };
        let mut mover = Mover::new(heap, usize::MAX, usize::MAX);
        self.table.relocate_segment(id, &mut mover);
        freed + mover.moved()
    }

    fn tidy_objects(&mut self, mut number: u32, mut place: u64, mover: &mut Mover<'_>) -> Option<Stage> {
        while !mover.is_done() {
            let (found, object) = self.table.object_from(number, mover)?;
            let from = if found == number { place } else { 0 };
            let before = if cfg!(debug_assertions) { object.heap_bytes() } else { 0 };
            let next = mover.from(from, |mover| object.relocate(mover));
            debug_assert_eq!(before, object.heap_bytes(), "what is booked of a collection stays right");
            (number, place) = next.map_or((found + 1, 0), |place| (found, place));
        }
        Some(Stage::Objects(number, place))
    }
}

impl Keyspace {
    /// Some steps of the walk, or fewer if they moved `bytes`; a step is a segment, or some collections or ghosts. Without
    /// `heap` tables alone are looked at.
    pub fn tidy_some(&mut self, steps: usize, bytes: usize, heap: Option<&dyn Heap>) -> Tidied {
        let mut tidied = Tidied::default();
        for _ in 0..steps {
            let db = self.dbs[self.tidying.db].as_deref_mut();
            let (next, moved) = db.map_or((None, 0), |db| db.tidy(self.tidying.stage, bytes, heap));
            tidied.moved += moved;
            self.tidying.stage = next.unwrap_or_default();
            if next.is_none() {
                self.tidying.db = (self.tidying.db + 1) % self.dbs.len();
                tidied.round_ended = self.tidying.db == 0;
            }
            if tidied.round_ended || tidied.moved >= bytes {
                break;
            }
        }
        tidied
    }
}

#[cfg(test)]
mod tests {
    use damselfly_structures::list::List;

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
                let tidied = keyspace.tidy_some(
                    3,
                    50_000,
                    Some(&|address: *const u8| !address.addr().is_multiple_of(3)),
                );
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

    /// Of many small collections of which most went, no more is kept than those that are left need: not their places in the
    /// slab either. Each keeps its key.
    #[test]
    fn small_collections_leave_nothing() {
        let mut keyspace = Keyspace::new(&Options { databases: 2, hash_seed: 5, random_seed: 6 });
        let key = |n: usize| format!("key:{n}").into_bytes();
        for n in 0..100_000 {
            let mut list = List::new();
            list.push_back(key(n).as_slice());
            keyspace.store(n % 2, &key(n), list);
        }
        let before = keyspace.heap_bytes();
        (0..100_000).filter(|n| n / 2 % 32 > 0).for_each(|n| assert!(keyspace.remove(n % 2, &key(n))));
        let data = keyspace.heap_bytes() - keyspace.dead_bytes();
        assert!(data < before / 4, "{data} of {before} bytes are data");
        while !keyspace.tidy_some(4, usize::MAX, None).round_ended {}
        keyspace.check();
        let after = keyspace.heap_bytes();
        assert!(after < before / 12, "{after} of {before} bytes are kept");
        for n in (0..100_000).filter(|n| n / 2 % 32 == 0) {
            let list = keyspace.peek::<List>(n % 2, &key(n)).expect("a list").expect("kept");
            assert!(list.get(0).is_some_and(|item| item == key(n).as_slice().into()));
        }
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
                let tidied = keyspace.tidy_some(4, usize::MAX, None);
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
