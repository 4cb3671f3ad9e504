//! What is remembered of keys that went for want of room.
//!
//! A ghost is two bytes: the key's heat, and a tag from its hash. Ghosts lie in sets of four, and there are as many sets
//! as the keys that are there want. A set is added or dropped at a time (linear hashing), so that no request pays for a
//! whole table:
//!
//! ```text
//! sets:  | 0 1 2 3 4 5 6 7 | 8 9 10       a hash whose four low bits say 9 leads to set 9,
//!                                         one whose four low bits say 12, to 12 - 8 = 4
//! ```
//!
//! An added set begins as a copy of the one that its hashes led to before: the tag does not say which of the two a ghost
//! belongs to now, and one that is in both is at worst a place that nobody asks for.

use damselfly_structures::alloc::good_size;
use damselfly_structures::hint::prefetch;
use damselfly_structures::moves::Mover;
use damselfly_structures::table::BLOCK_LEN;

const PER_SET: usize = 4;
/// The least number of sets.
const SETS_MIN: usize = 256;
/// Sets that are allocated together: as much as the blocks of tables, with which they share the allocator's pages.
const SETS_PER_CHUNK: usize = BLOCK_LEN / size_of::<Set>();
/// Sets that are added or dropped for one key.
const SETS_PER_STEP: usize = 8;

/// `| 15..8 tag, 0 for none | 7..0 heat |`
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Ghost(u16);

impl Ghost {
    fn tag(self) -> u8 {
        (self.0 >> 8) as u8
    }

    fn heat(self) -> u8 {
        self.0 as u8
    }
}

type Set = [Ghost; PER_SET];

/// See the module's head.
#[derive(Default)]
pub(crate) struct Ghosts {
    chunks: Vec<Box<[Set]>>,
    sets: usize,
}

impl Ghosts {
    /// The set that a hash leads to, and its tag there.
    fn place(&self, hash: u64) -> (usize, u8) {
        // Other bits than those that chose shard, segment and bucket.
        let mixed = hash.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
        let mask = self.sets.next_power_of_two() - 1;
        let wide = (mixed >> 8) as usize & mask;
        (if wide < self.sets { wide } else { wide & mask >> 1 }, (mixed as u8).max(1))
    }

    fn set_mut(&mut self, at: usize) -> &mut Set {
        &mut self.chunks[at / SETS_PER_CHUNK][at % SETS_PER_CHUNK]
    }

    /// Asks the processor for what is remembered under a hash.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        if self.sets > 0 {
            let (at, _) = self.place(hash);
            prefetch(&raw const self.chunks[at / SETS_PER_CHUNK][at % SETS_PER_CHUNK]);
        }
    }

    /// Remembers the heat of a key that goes, in place of the one of its set with the least `warmth`.
    pub(crate) fn remember(&mut self, hash: u64, heat: u8, warmth: impl Fn(u8) -> u64) {
        if self.sets == 0 {
            return;
        }
        let (at, tag) = self.place(hash);
        let coldest = self.set_mut(at).iter_mut().min_by_key(|ghost| match ghost.tag() {
            0 => 0,
            other if other == tag => 0,
            _ => 1 + warmth(ghost.heat()),
        });
        *coldest.expect("a set has places") = Ghost(u16::from(tag) << 8 | u16::from(heat));
    }

    /// The heat that a key had when it went, if it is known. It is forgotten.
    pub(crate) fn recall(&mut self, hash: u64) -> Option<u8> {
        if self.sets == 0 {
            return None;
        }
        let (at, tag) = self.place(hash);
        let ghost = self.set_mut(at).iter_mut().find(|ghost| ghost.tag() == tag)?;
        Some(std::mem::take(ghost).heat())
    }

    /// Goes a step towards so many ghosts; some more than enough stay.
    pub(crate) fn fit(&mut self, ghosts: usize) {
        let wanted = ghosts.div_ceil(PER_SET).max(SETS_MIN);
        for _ in 0..SETS_PER_STEP {
            if self.sets < wanted {
                self.add_set();
            } else if self.sets > wanted * 2 {
                self.drop_set();
            } else {
                return;
            }
        }
    }

    fn add_set(&mut self) {
        let at = self.sets;
        if at.is_multiple_of(SETS_PER_CHUNK) {
            self.chunks.push(vec![Set::default(); SETS_PER_CHUNK].into_boxed_slice());
        }
        self.sets += 1;
        if at > 0 {
            let before = at & !(1 << at.ilog2());
            *self.set_mut(at) = *self.set_mut(before);
        }
    }

    fn drop_set(&mut self) {
        self.sets -= 1;
        if self.sets.is_multiple_of(SETS_PER_CHUNK) {
            self.chunks.pop();
        }
    }

    /// Gives what lies in sparse pages another address.
    pub(crate) fn relocate(&mut self, mover: &mut Mover<'_>) {
        let mut parts = mover.parts(self.chunks.len());
        while let Some(at) = mover.next(&mut parts) {
            mover.array(&mut self.chunks[at]);
        }
    }

    /// Bytes held from the allocator.
    pub(crate) fn heap_bytes(&self) -> usize {
        self.chunks.len() * SETS_PER_CHUNK * size_of::<Set>()
            + good_size(self.chunks.capacity() * size_of::<Box<[Set]>>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u64) -> u64 {
        (n + 1).wrapping_mul(0xD6E8_FEB8_6659_FD93)
    }

    /// While the table grows and shrinks a set at a time, what was remembered is found as long as there is room for all,
    /// nothing is found twice, and what is found is what was remembered, but for tags that are alike.
    #[test]
    fn finds_what_it_was_told() {
        let mut ghosts = Ghosts::default();
        ghosts.remember(hash(1), 7, u64::from);
        assert_eq!((ghosts.recall(hash(1)), ghosts.heap_bytes()), (None, 0), "before there is room");
        let (mut told, mut found, mut right) = (0, 0, 0);
        for n in 0..20_000 {
            ghosts.fit(4 * n as usize);
            ghosts.remember(hash(n), (n % 200) as u8, u64::from);
            told += 1;
            if n % 3 == 0 && n > 300 {
                let earlier = n - 300;
                let heat = ghosts.recall(hash(earlier));
                found += usize::from(heat.is_some());
                right += usize::from(heat == Some((earlier % 200) as u8));
            }
        }
        assert_eq!(told, 20_000);
        assert!(found > 6200 && right > found * 95 / 100, "{found} found, {right} of them right");
        assert!(ghosts.heap_bytes() >= 4 * 2 * 19_000);
        let most = ghosts.heap_bytes();
        for _ in 0..20_000 {
            ghosts.fit(100);
        }
        assert!(ghosts.sets <= 2 * SETS_MIN && ghosts.heap_bytes() < most / 4);
        assert_eq!(ghosts.chunks.len(), 1);
    }

    /// Ghosts that are given another address, a few at a time, are all remembered.
    #[test]
    fn relocate() {
        let mut ghosts = Ghosts::default();
        for n in 0..4000 {
            ghosts.fit(8000);
            ghosts.remember(hash(n), 7, u64::from);
        }
        let known = |ghosts: &Ghosts| ghosts.chunks.concat();
        let (before, bytes) = (known(&ghosts), ghosts.heap_bytes());
        let (mut place, mut moved, mut calls) = (Some(0), 0, 0);
        while let Some(from) = place {
            let mut mover = Mover::new(&|_: *const u8| true, 3, usize::MAX);
            place = mover.from(from, |mover| ghosts.relocate(mover));
            (moved, calls) = (moved + mover.moved(), calls + 1);
        }
        assert!(before.iter().flatten().filter(|ghost| ghost.tag() != 0).count() > 3000);
        assert!(known(&ghosts) == before && ghosts.heap_bytes() == bytes);
        assert!(moved == ghosts.chunks.len() * BLOCK_LEN && calls > 1, "{moved} bytes in {calls} calls");
    }

    /// Every hash leads to a set that is there, and to the same one until that is split.
    #[test]
    fn places() {
        let mut ghosts = Ghosts::default();
        let mut before = Vec::new();
        for _ in 0..5000 {
            ghosts.add_set();
            let now: Vec<usize> = (0..64).map(|n| ghosts.place(hash(n)).0).collect();
            assert!(now.iter().all(|at| *at < ghosts.sets));
            let moved = before.iter().zip(&now).filter(|(old, new)| old != new);
            assert!(moved.map(|(_, new)| *new).all(|new| new == ghosts.sets - 1));
            before = now;
        }
    }
}
