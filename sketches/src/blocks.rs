//! A long array of zeros that is written here and there: the cells of every filter in this crate.
//!
//! ```text
//! table: [ block | absent | block | ... | shorter last block ]      Vec<Option<Arc<[u8]>>>, 16 bytes an entry
//!            |
//!            +--> counts of the Arc (16 bytes) + 16368 bytes = one 16 KiB allocation
//! ```
//!
//! One plain vector would be simpler and is what a filter of ten kilobytes amounts to here too (one block). It fails
//! for the large ones: a client reserves a gigabyte with one command, and a snapshot needs the filter as it was
//! while writers go on. So blocks that were never written do not exist and read as zero, and a clone shares the
//! blocks, of which the next write copies one.
//!
//! The block's length is chosen for the allocator: with the two counters that `Arc` puts in front, the allocation is
//! exactly a size class, where 16384 bytes of payload would take the next one, 20480. It is a multiple of eight, so
//! a counter never straddles two blocks.

use damselfly_structures::alloc::good_size;
use damselfly_structures::moves::Mover;
use std::sync::Arc;

/// Bytes of payload in a full block.
pub const BLOCK_LEN: usize = 16 * 1024 - RC_COUNTS;

/// What `Arc` stores in front of its payload: two counters.
const RC_COUNTS: usize = 2 * size_of::<usize>();

/// The longest array: eight GiB. Its table of pointers is eight MiB, which is what a reservation costs at most.
pub const LEN_MAX: u64 = 8 << 30;

const _: () = assert!(BLOCK_LEN.is_multiple_of(8));

static ZEROS: [u8; BLOCK_LEN] = [0; BLOCK_LEN];

/// Bytes, zero until written, shared between clones until written.
#[derive(Clone, Debug)]
pub struct Blocks {
    table: Vec<Option<Arc<[u8]>>>,
    len: usize,
    /// Bytes that the existing blocks take from the allocator.
    resident: usize,
}

impl Blocks {
    /// An array of `len` zero bytes, or `None` if it would be longer than [`LEN_MAX`].
    pub fn zeroed(len: u64) -> Option<Blocks> {
        if len > LEN_MAX {
            return None;
        }
        let len = len as usize;
        Some(Blocks { table: vec![None; len.div_ceil(BLOCK_LEN)], len, resident: 0 })
    }

    /// The array with these bytes. Blocks that are all zero are left out.
    pub fn from_bytes(bytes: &[u8]) -> Option<Blocks> {
        let mut blocks = Blocks::zeroed(bytes.len() as u64)?;
        let wrote = blocks.write(0, bytes);
        assert!(wrote, "the array was made as long as its bytes");
        Some(blocks)
    }

    /// The length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the array has no bytes at all.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes taken from the allocator.
    pub fn heap_bytes(&self) -> usize {
        good_size(self.table.capacity() * size_of::<Option<Arc<[u8]>>>()) + self.resident
    }

    /// Gives allocations other addresses; see [`Mover`]. Blocks are parts.
    pub fn relocate(&mut self, mover: &mut Mover<'_>) {
        mover.vec(&mut self.table);
        let mut parts = mover.parts(self.table.len());
        while let Some(at) = mover.next(&mut parts) {
            if let Some(block) = &mut self.table[at] {
                mover.shared_bytes(block);
            }
        }
    }

    /// The byte at `index`.
    #[inline]
    pub fn get(&self, index: usize) -> u8 {
        match &self.table[index / BLOCK_LEN] {
            Some(block) => block[index % BLOCK_LEN],
            None => 0,
        }
    }

    /// The byte at `index`, for writing. The block comes into being, or stops being shared.
    #[inline]
    pub fn get_mut(&mut self, index: usize) -> &mut u8 {
        let at = index % BLOCK_LEN;
        &mut self.block_mut(index / BLOCK_LEN)[at]
    }

    /// The little-endian `u32` that is the `index`-th of the array.
    #[inline]
    pub fn u32_at(&self, index: usize) -> u32 {
        let at = index * 4;
        match &self.table[at / BLOCK_LEN] {
            Some(block) => {
                let at = at % BLOCK_LEN;
                u32::from_le_bytes(block[at..at + 4].try_into().expect("four bytes"))
            }
            None => 0,
        }
    }

    /// Replaces the `index`-th `u32`.
    #[inline]
    pub fn set_u32(&mut self, index: usize, value: u32) {
        let at = index * 4;
        let block = self.block_mut(at / BLOCK_LEN);
        let at = at % BLOCK_LEN;
        block[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// The little-endian `i64` that is the `index`-th of the array.
    #[inline]
    pub fn i64_at(&self, index: usize) -> i64 {
        let at = index * 8;
        match &self.table[at / BLOCK_LEN] {
            Some(block) => {
                let at = at % BLOCK_LEN;
                i64::from_le_bytes(block[at..at + 8].try_into().expect("eight bytes"))
            }
            None => 0,
        }
    }

    /// Replaces the `index`-th `i64`.
    #[inline]
    pub fn set_i64(&mut self, index: usize, value: i64) {
        let at = index * 8;
        let block = self.block_mut(at / BLOCK_LEN);
        let at = at % BLOCK_LEN;
        block[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    /// Copies `bytes` to `offset`; `false`, and nothing done, if they do not fit. Zeros written over absent blocks
    /// leave them absent.
    #[must_use]
    pub fn write(&mut self, offset: usize, bytes: &[u8]) -> bool {
        if offset.checked_add(bytes.len()).is_none_or(|end| end > self.len) {
            return false;
        }
        let mut at = offset;
        let mut rest = bytes;
        while !rest.is_empty() {
            let index = at / BLOCK_LEN;
            let start = at % BLOCK_LEN;
            let (now, later) = rest.split_at(rest.len().min(BLOCK_LEN - start));
            if self.table[index].is_some() || now.iter().any(|byte| *byte != 0) {
                self.block_mut(index)[start..start + now.len()].copy_from_slice(now);
            }
            at += now.len();
            rest = later;
        }
        true
    }

    /// The bytes of `range`, clipped to the array, as slices in order: what a snapshot writes.
    pub fn slices(&self, range: std::ops::Range<usize>) -> impl Iterator<Item = &[u8]> {
        let end = range.end.min(self.len);
        let mut at = range.start.min(end);
        std::iter::from_fn(move || {
            if at == end {
                return None;
            }
            let start = at % BLOCK_LEN;
            let stop = (start + (end - at)).min(BLOCK_LEN);
            let slice = match &self.table[at / BLOCK_LEN] {
                Some(block) => &block[start..stop],
                None => &ZEROS[start..stop],
            };
            at += stop - start;
            Some(slice)
        })
    }

    /// The blocks that exist, with the offset of each: all that is not zero.
    pub fn present(&self) -> impl Iterator<Item = (usize, &[u8])> {
        let blocks = self.table.iter().enumerate();
        blocks.filter_map(|(index, block)| Some((index * BLOCK_LEN, block.as_deref()?)))
    }

    /// Every byte in one vector, for small arrays and for tests.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len);
        for slice in self.slices(0..self.len) {
            all.extend_from_slice(slice);
        }
        all
    }

    /// Frees up to so many blocks, from the end; true when none is left. The array gets shorter.
    pub fn free_some(&mut self, blocks: usize) -> bool {
        // An absent block costs a step of the walk and nothing else.
        const ABSENT_PER_BLOCK: usize = 256;
        let mut budget = blocks * ABSENT_PER_BLOCK;
        while budget > 0 {
            let Some(last) = self.table.pop() else { break };
            let end = self.table.len() * BLOCK_LEN;
            if last.is_some() {
                self.resident -= good_size(RC_COUNTS + (self.len - end).min(BLOCK_LEN));
                budget = budget.saturating_sub(ABSENT_PER_BLOCK);
            } else {
                budget -= 1;
            }
            self.len = end;
        }
        self.table.is_empty()
    }

    /// Compares the count of bytes with a fresh one. For tests and checks.
    pub fn check(&self) {
        let blocks = self.table.iter().flatten().map(|block| good_size(RC_COUNTS + block.len()));
        assert_eq!(self.resident, blocks.sum::<usize>());
        assert_eq!(self.table.len(), self.len.div_ceil(BLOCK_LEN));
    }

    #[inline]
    fn block_mut(&mut self, index: usize) -> &mut [u8] {
        if self.table[index].is_none() {
            self.materialise(index);
        }
        Arc::make_mut(self.table[index].as_mut().expect("just made"))
    }

    #[cold]
    fn materialise(&mut self, index: usize) {
        let len = (self.len - index * BLOCK_LEN).min(BLOCK_LEN);
        // `repeat_n` has an exact length, so this is one allocation and no copy.
        self.table[index] = Some(std::iter::repeat_n(0, len).collect());
        self.resident += good_size(RC_COUNTS + len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against a plain vector: writes through every door, clones in between that must not see later writes.
    #[test]
    fn behaves_as_a_vector() {
        let mut state = 7u64;
        let mut random = move |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        };
        for len in [1, 8, 64, BLOCK_LEN - 1, BLOCK_LEN, BLOCK_LEN + 8, 5 * BLOCK_LEN + 64] {
            let mut blocks = Blocks::zeroed(len as u64).expect("short");
            let mut model = vec![0u8; len];
            assert_eq!(blocks.to_vec(), model);
            let mut kept = Vec::new();
            for step in 0..200 {
                match random(4) {
                    0 => {
                        let at = random(len);
                        *blocks.get_mut(at) = step as u8;
                        model[at] = step as u8;
                    }
                    1 if len >= 8 => {
                        let at = random(len / 8);
                        blocks.set_i64(at, step as i64 - 100);
                        model[at * 8..at * 8 + 8].copy_from_slice(&(step as i64 - 100).to_le_bytes());
                        assert_eq!(blocks.i64_at(at), step as i64 - 100);
                    }
                    2 if len >= 4 => {
                        let at = random(len / 4);
                        blocks.set_u32(at, step);
                        model[at * 4..at * 4 + 4].copy_from_slice(&step.to_le_bytes());
                        assert_eq!(blocks.u32_at(at), step);
                    }
                    _ => {
                        let at = random(len);
                        let bytes = vec![step as u8; random(len - at + 1)];
                        assert!(blocks.write(at, &bytes));
                        model[at..at + bytes.len()].copy_from_slice(&bytes);
                    }
                }
                if step % 50 == 0 {
                    kept.push((blocks.clone(), model.clone()));
                }
            }
            assert_eq!(blocks.to_vec(), model);
            let mut rest = vec![0; len];
            for (offset, bytes) in blocks.present() {
                rest[offset..offset + bytes.len()].copy_from_slice(bytes);
            }
            assert_eq!(rest, model);
            assert!(!blocks.write(len, &[1]));
            assert!(!blocks.write(usize::MAX, &[1]));
            for (clone, then) in kept {
                assert_eq!(clone.to_vec(), then);
                assert_eq!((0..len).map(|at| clone.get(at)).collect::<Vec<_>>(), then);
            }
        }
    }

    /// Freeing in steps comes to an end, counts down to nothing, and leaves a clone whole.
    #[test]
    fn freed_in_steps() {
        let mut blocks = Blocks::zeroed(3000 * BLOCK_LEN as u64 + 100).expect("short");
        for at in (0..3000).step_by(7) {
            *blocks.get_mut(at * BLOCK_LEN + at) = 1;
        }
        *blocks.get_mut(3000 * BLOCK_LEN) = 1;
        let (clone, all) = (blocks.clone(), blocks.to_vec());
        let mut steps = 1;
        while !blocks.free_some(8) {
            blocks.check();
            steps += 1;
        }
        assert_eq!((blocks.len(), blocks.resident), (0, 0));
        assert!((430 / 8..430 / 4).contains(&steps), "{steps}");
        clone.check();
        assert_eq!(clone.to_vec(), all);
    }

    /// A reservation is cheap until written, and the count is exact for whole blocks.
    #[test]
    fn zeros_cost_a_table() {
        let mut blocks = Blocks::zeroed(1 << 30).expect("a gigabyte is allowed");
        let empty = blocks.heap_bytes();
        assert!(empty < 2 << 20, "{empty}");
        *blocks.get_mut(123_456_789) = 1;
        assert_eq!(blocks.heap_bytes(), empty + 16 * 1024);
        assert!(Blocks::zeroed(LEN_MAX + 1).is_none());
        let restored = Blocks::from_bytes(&[0; 3 * BLOCK_LEN]).expect("short");
        assert_eq!(restored.heap_bytes(), good_size(3 * 16));
    }
}
