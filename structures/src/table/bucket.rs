//! Buckets: one cache line of slots, in two shapes.
//!
//! ```text
//!         slots: 14, watched                       20, plain
//!  0      fingerprints, 0 = free slot               0
//! 14      overflow: entries whose probe passed     20
//!         through here (255 = stuck); a free byte
//! 16      offsets: where the entries are           22
//! 44..58  heat, a byte per slot                    -
//! 60..64  version                                  -
//! ```
//!
//! The keyspace needs heat, by which it evicts, and versions, by which it cuts. A set or a hash needs neither, and with
//! six more slots in every bucket a table of a million has half the segments: 35 bytes resident for a member of 27, where fourteen slots took 39.

/// Buckets in a segment: as many as leave room for the header in 4 KiB.
pub const BUCKETS: usize = 59;

const LINE: usize = 64;
/// Fingerprints that are compared at once.
const LANES: usize = 16;
const OVERFLOW_STUCK: u8 = u8::MAX;

/// What a bucket keeps beside its slots.
pub trait Extra {
    /// See [`Table::heat`](super::Table::heat).
    fn heat(&self, slot: usize) -> u8;
    /// Sets it, if there is one.
    fn set_heat(&mut self, slot: usize, heat: u8);
    /// See [`Table::version`](super::Table::version).
    fn version(&self) -> u32;
    /// Sets it, if there is one.
    fn set_version(&mut self, version: u32);
}

/// Heat and version.
#[repr(C)]
pub struct Watch {
    heat: [u8; WATCHED_SLOTS],
    _free: [u8; 2],
    version: u32,
}

impl Extra for Watch {
    #[inline]
    fn heat(&self, slot: usize) -> u8 {
        self.heat[slot]
    }
    #[inline]
    fn set_heat(&mut self, slot: usize, heat: u8) {
        self.heat[slot] = heat;
    }
    #[inline]
    fn version(&self) -> u32 {
        self.version
    }
    #[inline]
    fn set_version(&mut self, version: u32) {
        self.version = version;
    }
}

/// Nothing.
impl Extra for () {
    #[inline]
    fn heat(&self, _slot: usize) -> u8 {
        0
    }
    #[inline]
    fn set_heat(&mut self, _slot: usize, _heat: u8) {}
    #[inline]
    fn version(&self) -> u32 {
        0
    }
    #[inline]
    fn set_version(&mut self, _version: u32) {}
}

/// See the module's head. All zeroes are an empty one.
#[repr(C, align(64))]
pub struct Bucket<const SLOTS: usize, X> {
    fingerprints: [u8; SLOTS],
    overflow: u8,
    _free: u8,
    offsets: [u16; SLOTS],
    extra: X,
}

const WATCHED_SLOTS: usize = 14;

/// A bucket with heat and versions.
pub type Watched = Bucket<WATCHED_SLOTS, Watch>;
/// A bucket without.
pub type Plain = Bucket<20, ()>;

const _: () = assert!(size_of::<Watched>() == LINE && size_of::<Plain>() == LINE);

/// Either bucket, as a segment uses it.
pub trait Shape {
    /// Slots in a bucket.
    const SLOTS: usize;
    /// Entries at which a segment is full: 86 % of its slots, beyond which probes get long.
    const COUNT_MAX: usize = BUCKETS * Self::SLOTS * 86 / 100;

    /// Bit i is set if slot i has this fingerprint.
    fn matching(&self, fingerprint: u8) -> u32;
    /// A slot's fingerprint; 0 if it is free.
    fn fingerprint(&self, slot: usize) -> u8;
    /// Where a slot's entry is.
    fn offset(&self, slot: usize) -> u16;
    /// Takes a slot, or frees it with a fingerprint of 0.
    fn set_fingerprint(&mut self, slot: usize, fingerprint: u8);
    /// Says where a slot's entry is.
    fn set_offset(&mut self, slot: usize, offset: u16);
    /// Whether there may be entries that belong here and are further on.
    fn is_passed(&self) -> bool;
    /// Counts an entry that found no slot here.
    fn pass(&mut self);
    /// Counts the end of such an entry.
    fn unpass(&mut self);
    /// How many were counted; none if it is no longer known.
    fn passed(&self) -> Option<u8>;
    /// What the bucket keeps beside its slots.
    fn extra(&self) -> &impl Extra;
    /// The same, for changes.
    fn extra_mut(&mut self) -> &mut impl Extra;

    /// Bit i is set if slot i holds an entry.
    #[inline]
    fn occupied(&self) -> u32 {
        !self.matching(0) & ((1 << Self::SLOTS) - 1)
    }

    /// The first slot that holds none.
    #[inline]
    fn free_slot(&self) -> Option<usize> {
        let free = self.matching(0);
        (free != 0).then(|| free.trailing_zeros() as usize)
    }
}

impl<const SLOTS: usize, X: Extra> Shape for Bucket<SLOTS, X> {
    const SLOTS: usize = {
        assert!(SLOTS <= 2 * LANES && 2 * LANES <= LINE, "two loads see all fingerprints, inside the bucket");
        SLOTS
    };

    #[inline]
    #[cfg(target_arch = "x86_64")]
    fn matching(&self, fingerprint: u8) -> u32 {
        use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_set1_epi8};
        let line = std::ptr::from_ref(self).cast::<u8>();
        let sixteen = |from: usize| {
            // SAFETY: `from` is 0 or 16, and the bucket's first 32 bytes are initialised fields (repr(C)): fingerprints,
            // overflow, a free byte and offsets. The pointer is derived from one to the whole bucket. SSE2 is part of
            // x86-64.
            unsafe {
                let lanes = _mm_loadu_si128(line.add(from).cast());
                _mm_movemask_epi8(_mm_cmpeq_epi8(lanes, _mm_set1_epi8(fingerprint as i8))) as u32
            }
        };
        let mask = if SLOTS <= LANES { sixteen(0) } else { sixteen(0) | sixteen(LANES) << LANES };
        mask & ((1 << SLOTS) - 1)
    }

    #[inline]
    #[cfg(not(target_arch = "x86_64"))]
    fn matching(&self, fingerprint: u8) -> u32 {
        let mut mask = 0;
        for (slot, have) in self.fingerprints.iter().enumerate() {
            mask |= u32::from(*have == fingerprint) << slot;
        }
        mask
    }

    #[inline]
    fn fingerprint(&self, slot: usize) -> u8 {
        self.fingerprints[slot]
    }
    #[inline]
    fn offset(&self, slot: usize) -> u16 {
        self.offsets[slot]
    }
    #[inline]
    fn set_fingerprint(&mut self, slot: usize, fingerprint: u8) {
        self.fingerprints[slot] = fingerprint;
    }
    #[inline]
    fn set_offset(&mut self, slot: usize, offset: u16) {
        self.offsets[slot] = offset;
    }

    #[inline]
    fn is_passed(&self) -> bool {
        self.overflow != 0
    }
    #[inline]
    fn pass(&mut self) {
        self.overflow = self.overflow.saturating_add(1);
    }
    #[inline]
    fn unpass(&mut self) {
        if self.overflow != OVERFLOW_STUCK {
            self.overflow -= 1;
        }
    }
    fn passed(&self) -> Option<u8> {
        (self.overflow != OVERFLOW_STUCK).then_some(self.overflow)
    }

    #[inline]
    fn extra(&self) -> &impl Extra {
        &self.extra
    }
    #[inline]
    fn extra_mut(&mut self) -> &mut impl Extra {
        &mut self.extra
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An empty bucket of either shape.
    fn empty<B: Shape>() -> B {
        // SAFETY: all zeroes are an empty bucket, as its documentation says: bytes and numbers.
        unsafe { std::mem::zeroed() }
    }

    /// Matches are found in every slot, and nowhere else, whatever lies behind the fingerprints.
    fn finds_in_every_slot<B: Shape>() {
        for slot in 0..B::SLOTS {
            let mut bucket = empty::<B>();
            for other in 0..B::SLOTS {
                bucket.set_offset(other, 0x0707);
            }
            bucket.pass();
            bucket.set_fingerprint(slot, 7);
            assert_eq!(bucket.matching(7), 1 << slot);
            assert_eq!(bucket.occupied(), 1 << slot);
            assert_eq!(bucket.matching(1), 0);
            assert_eq!(bucket.free_slot(), Some(usize::from(slot == 0)));
            assert_eq!((bucket.fingerprint(slot), bucket.offset(slot)), (7, 0x0707));
        }
        let mut full = empty::<B>();
        (0..B::SLOTS).for_each(|slot| full.set_fingerprint(slot, 255));
        assert_eq!((full.free_slot(), full.matching(255).count_ones() as usize), (None, B::SLOTS));
    }

    #[test]
    fn both_shapes_find_in_every_slot() {
        finds_in_every_slot::<Watched>();
        finds_in_every_slot::<Plain>();
    }

    /// The count of passed entries comes back down, but not once it has been at its end.
    #[test]
    fn a_count_that_was_full_stays() {
        let mut bucket = empty::<Plain>();
        (0..254).for_each(|_| bucket.pass());
        assert_eq!(bucket.passed(), Some(254));
        bucket.unpass();
        assert_eq!(bucket.passed(), Some(253));
        (0..9).for_each(|_| bucket.pass());
        (0..9).for_each(|_| bucket.unpass());
        assert_eq!(bucket.passed(), None);
        assert!(bucket.is_passed());
    }
}
