//! One segment: buckets of fingerprints over a small log of entries.
//!
//! A slot's offset counts units of two bytes over all blocks: block = offset >> 11.
//!
//! Probing: an entry's home bucket is given by its hash; when that is full the next bucket is tried, and every full
//! bucket passed counts one overflow. A lookup goes on past a bucket only while its overflow is not zero. A count
//! that reaches 255 stays (lookups then probe a little longer until the segment is rebuilt).
//!
//! The log: entries are appended to the last block; freed bytes are counted (`dead`), and are *holes* that later
//! entries of about their size go into. When neither a hole nor the last block has room, the segment is rewritten if an
//! eighth of it is dead, else a block is added. The cost of rewriting is thereby at most eight bytes copied per byte
//! freed, and nothing where entries come and go that are alike, as in a cache that is full. Deletions that leave less
//! than half alive rewrite too.
//!
//! ```text
//! hole:  | 0..2 offset of the next one | 2..4 length in units | whatever was there |
//! ```
//!
//! A list, last in first out, of which an insertion looks at the first few; what is forgotten of it (ends of holes that
//! are too short) is still counted as dead.
//!
//! The last block grows in steps of a quarter: half a block per segment, unused on average, would be four bytes per
//! entry. Its missing quarters are kept in the low bits of its address, where a lookup has them at hand.
//!
//! Invariant: a slot is occupied exactly if its fingerprint is not zero, and then its offset leads to a whole entry.

use std::alloc::{Layout as AllocLayout, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use super::Layout;
use super::bucket::{BUCKETS, Extra, Shape};
use crate::hint::prefetch;
use crate::moves::Mover;

/// Bytes of a block.
pub const BLOCK_LEN: usize = 4096;
/// Longest entry. An eighth of a block, so that the unused end of a block stays small; longer data goes outside.
pub const ENTRY_LEN_MAX: usize = BLOCK_LEN / 8;

/// Offsets count units of two bytes, which doubles the reach of 16 bits to 128 KiB for half a byte per entry.
const UNIT: usize = 2;
const UNITS_PER_BLOCK: usize = BLOCK_LEN / UNIT;
const BLOCKS_MAX: usize = (1 << 16) / UNITS_PER_BLOCK;
/// Blocks to which the log grows by appending. The rest is for rewriting: packing the same entries in another order
/// may waste up to an entry's length at every block end, and must succeed all the same.
const BLOCKS_GROW: usize = 28;
/// What the last block grows by.
const STEP: usize = BLOCK_LEN / 4;
/// Entries are not aligned, so only the low bits of the address matter. Whatever asks mimalloc for more than eight gets
/// three quarters of a block as seven eighths.
const BLOCK_ALIGN: usize = 8;
/// The least hole that is remembered, and the least end of one.
const HOLE_MIN: usize = 4;
const HOLE_END_MIN: usize = 32;
/// Holes that an insertion looks at.
const HOLES_TRIED: usize = 4;
/// No hole begins at the last unit, since it is longer.
const NO_HOLE: u16 = u16::MAX;

const _: () = assert!(BLOCKS_MAX == 32);
const _: () = assert!(
    BLOCKS_GROW * BLOCK_LEN <= BLOCKS_MAX * (BLOCK_LEN - (ENTRY_LEN_MAX - 1)),
    "whatever was appended can be rewritten in any order"
);
const _: () = assert!(ENTRY_LEN_MAX <= STEP, "a block without room for an entry has its last quarter");

/// See the module's head.
#[repr(C, align(64))]
pub struct Segment<L: Layout> {
    buckets: [L::Bucket; BUCKETS],
    blocks: [Block; BLOCKS_MAX],
    /// The hash bits above the local depth, left-aligned.
    prefix: u64,
    note: u64,
    /// Tables that hold this segment.
    holders: AtomicU32,
    /// Bytes of entries that were removed, replaced or shortened. Unused block ends are not included.
    dead: u32,
    count: u16,
    /// Bytes used in the last block.
    tail: u16,
    depth: u8,
    block_count: u8,
    /// Offset of the first hole.
    holes: u16,
    /// No hole is longer, in units.
    longest_hole: u16,
}

/// Neither a slot nor room in the log could be found.
pub(super) struct SegmentFull;

fn segment_layout<L: Layout>() -> AllocLayout {
    const { assert!(size_of::<Segment<L>>() == BLOCK_LEN, "a segment is exactly one size class") };
    const {
        let [holders, count] =
            [std::mem::offset_of!(Segment<L>, holders), std::mem::offset_of!(Segment<L>, count)];
        assert!(holders / 64 == count / 64, "who asks for one of them has both");
    }
    AllocLayout::new::<Segment<L>>()
}

fn block_layout(len: usize) -> AllocLayout {
    // A quarter to a whole block, and the alignment is a power of two.
    AllocLayout::from_size_align(len, BLOCK_ALIGN).expect("a valid layout")
}

/// A run of entries, at most [`BLOCK_LEN`] bytes: its address plus the number of [`STEP`]s that it lacks.
#[derive(Clone, Copy)]
struct Block(*mut u8);

impl Block {
    const MISSING: usize = BLOCK_LEN / STEP - 1;

    fn new(start: *mut u8, len: usize) -> Block {
        debug_assert!(len.is_multiple_of(STEP) && len > 0 && len <= BLOCK_LEN);
        Block(start.wrapping_add((BLOCK_LEN - len) / STEP))
    }

    fn alloc(len: usize) -> Block {
        // Blocks are read through `&[u8]` slices that reach past the last entry, so every byte must be initialised.
        // Zeroing 4 KiB costs about 40 ns per ~70 entries.
        // SAFETY: the layout has a non-zero size.
        let start = unsafe { std::alloc::alloc_zeroed(block_layout(len)) };
        if start.is_null() {
            handle_alloc_error(block_layout(len));
        }
        Block::new(start, len)
    }

    #[inline]
    fn start(self) -> *mut u8 {
        self.0.map_addr(|address| address & !Block::MISSING)
    }

    #[inline]
    fn len(self) -> usize {
        BLOCK_LEN - (self.0.addr() & Block::MISSING) * STEP
    }

    /// The same entries in a block of another length.
    ///
    /// # Safety
    /// The block is alive, and nobody uses it afterwards.
    unsafe fn resize(self, len: usize) -> Block {
        let old_len = self.len();
        // SAFETY: it came from `alloc` or from here, with this layout; the new size is not zero.
        let start = unsafe { std::alloc::realloc(self.start(), block_layout(old_len), len) };
        if start.is_null() {
            handle_alloc_error(block_layout(len));
        }
        if len > old_len {
            // SAFETY: inside the `len` bytes just allocated.
            unsafe { start.add(old_len).write_bytes(0, len - old_len) };
        }
        Block::new(start, len)
    }

    /// # Safety
    /// As for `resize`.
    unsafe fn free(self) {
        // SAFETY: it came from `alloc` or `resize`, with this layout.
        unsafe { dealloc(self.start(), block_layout(self.len())) };
    }
}

const NO_BLOCK: Block = Block(std::ptr::null_mut());

const _: () = assert!(Block::MISSING < BLOCK_ALIGN);

#[inline]
fn home(hash: u64) -> usize {
    (((hash >> 8) as u32 as u64 * BUCKETS as u64) >> 32) as usize
}

#[inline]
fn fingerprint(hash: u64) -> u8 {
    // Zero means a free slot; 1 carries twice the share, which costs nothing noticeable.
    (hash as u8).max(1)
}

#[inline]
fn next(bucket: usize) -> usize {
    if bucket + 1 == BUCKETS { 0 } else { bucket + 1 }
}

/// Iterates over the positions of the set bits.
fn bits(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        if mask == 0 {
            return None;
        }
        let bit = mask.trailing_zeros() as usize;
        mask &= mask - 1;
        Some(bit)
    })
}

impl<L: Layout> Segment<L> {
    /// A fresh, empty segment held once.
    pub(super) fn alloc(prefix: u64, depth: u32) -> NonNull<Segment<L>> {
        // SAFETY: the layout has a non-zero size; all-zero bytes are a valid Segment (null block pointers, zero
        // counters, free slots), and the fields that must not be zero are set before anybody sees it.
        unsafe {
            let Some(segment) =
                NonNull::new(std::alloc::alloc_zeroed(segment_layout::<L>()).cast::<Segment<L>>())
            else {
                handle_alloc_error(segment_layout::<L>())
            };
            let fresh = &mut *segment.as_ptr();
            fresh.prefix = prefix;
            fresh.note = u64::MAX;
            fresh.depth = depth as u8;
            fresh.holes = NO_HOLE;
            fresh.holders = AtomicU32::new(1);
            segment
        }
    }

    /// The segment at another address.
    ///
    /// # Safety
    /// The caller owns the only count of `segment` and does not use the pointer afterwards.
    pub(super) unsafe fn moved(segment: NonNull<Segment<L>>) -> NonNull<Segment<L>> {
        let fresh = Segment::alloc(0, 0);
        // SAFETY: both are allocations of this layout, distinct, and by the contract nobody else reaches either. All
        // fields are plain bytes (the count of holders is one in both), so a byte copy is the same segment; blocks
        // belong to the copy from here on, and the old memory is freed without them.
        unsafe {
            fresh.as_ptr().copy_from_nonoverlapping(segment.as_ptr(), 1);
            dealloc(segment.as_ptr().cast(), segment_layout::<L>());
        }
        fresh
    }

    pub(super) fn retain(&self) {
        // Relaxed: whoever adds a holder is one, and hands the new one over by means that synchronise.
        let before = self.holders.fetch_add(1, Ordering::Relaxed);
        assert!(before < u32::MAX / 2, "too many clones of a table");
    }

    /// Gives back one count; the last one drops the entries and frees the memory.
    ///
    /// # Safety
    /// The caller owns one count of `segment` and does not use the pointer afterwards.
    pub(super) unsafe fn release(segment: NonNull<Segment<L>>) {
        // SAFETY: the count that the caller owns keeps it alive until here. Not yet `&mut`: while there are other
        // holders, they may be reading.
        let holders = unsafe { &segment.as_ref().holders };
        // A sole holder needs no read-modify-write. Acquire, and Release below: what the others read from the
        // segment comes before what the last one does to it.
        if holders.load(Ordering::Acquire) > 1 && holders.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        // SAFETY: the last count is the caller's, so nobody else can reach it.
        let this = unsafe { &mut *segment.as_ptr() };
        if L::OWNS {
            for bucket in 0..BUCKETS {
                for slot in bits(this.occupied(bucket)) {
                    L::drop_owned(this.entry_mut(bucket as u8, slot as u8));
                }
            }
        }
        // SAFETY: the last count was the caller's.
        unsafe { Segment::free_moved(segment) };
    }

    /// Frees the memory of segment and blocks without dropping what entries own.
    ///
    /// # Safety
    /// The caller owns the last count, has moved or dropped the entries, and does not use the pointer afterwards.
    pub(super) unsafe fn free_moved(segment: NonNull<Segment<L>>) {
        // SAFETY: by the contract nobody else has it; the segment came from `alloc`.
        unsafe {
            let this = segment.as_ref();
            for &block in &this.blocks[..usize::from(this.block_count)] {
                block.free();
            }
            dealloc(segment.as_ptr().cast(), segment_layout::<L>());
        }
    }

    #[inline]
    pub(super) fn is_shared(&self) -> bool {
        self.holders.load(Ordering::Acquire) > 1
    }
    #[inline]
    pub(super) fn prefix(&self) -> u64 {
        self.prefix
    }
    #[inline]
    pub(super) fn depth(&self) -> u32 {
        u32::from(self.depth)
    }
    #[inline]
    pub(super) fn count(&self) -> usize {
        usize::from(self.count)
    }
    #[inline]
    pub(super) fn blocks(&self) -> usize {
        usize::from(self.block_count)
    }
    /// Bytes of the blocks: all but the last are whole.
    #[inline]
    pub(super) fn block_bytes(&self) -> usize {
        match self.blocks().checked_sub(1) {
            Some(last) => last * BLOCK_LEN + self.blocks[last].len(),
            None => 0,
        }
    }
    /// Bytes of the blocks, and of these the ones that no entry uses any more.
    #[inline]
    pub(super) fn room(&self) -> (usize, usize) {
        (self.block_bytes(), self.dead as usize)
    }
    pub(super) fn room_of_both(one: &Segment<L>, other: &Segment<L>) -> (usize, usize) {
        (one.block_bytes() + other.block_bytes(), (one.dead + other.dead) as usize)
    }
    #[inline]
    pub(super) fn note(&self) -> u64 {
        self.note
    }
    #[inline]
    pub(super) fn set_note(&mut self, note: u64) {
        self.note = note;
    }
    #[inline]
    pub(super) fn heat(&self, bucket: u8, slot: u8) -> u8 {
        self.buckets[usize::from(bucket)].extra().heat(usize::from(slot))
    }
    #[inline]
    pub(super) fn set_heat(&mut self, bucket: u8, slot: u8, heat: u8) {
        self.buckets[usize::from(bucket)].extra_mut().set_heat(usize::from(slot), heat);
    }
    #[inline]
    pub(super) fn version(&self, bucket: u8) -> u32 {
        self.buckets[usize::from(bucket)].extra().version()
    }
    #[inline]
    pub(super) fn set_version(&mut self, bucket: u8, version: u32) {
        self.buckets[usize::from(bucket)].extra_mut().set_version(version);
    }
    #[inline]
    pub(super) fn is_occupied(&self, bucket: u8, slot: u8) -> bool {
        self.buckets[usize::from(bucket)].fingerprint(usize::from(slot)) != 0
    }
    #[inline]
    pub(super) fn shortened(&mut self, old_len: usize, new_len: usize) {
        debug_assert!(new_len <= old_len);
        self.dead += (Self::footprint(old_len) - Self::footprint(new_len)) as u32;
    }

    /// Bit i is set if slot i of the bucket holds an entry.
    #[inline]
    pub(super) fn occupied(&self, bucket: usize) -> u32 {
        self.buckets[bucket].occupied()
    }

    /// The bucket where an insertion of this hash puts its entry, as `claim` finds it; if all are full, whichever.
    #[inline]
    pub(super) fn bucket_for_insert(&self, hash: u64) -> usize {
        let mut bucket = home(hash);
        for _ in 0..BUCKETS {
            if self.buckets[bucket].free_slot().is_some() {
                break;
            }
            bucket = next(bucket);
        }
        bucket
    }

    #[inline]
    pub(super) fn prefetch_bucket(segment: NonNull<Segment<L>>, hash: u64) {
        Segment::prefetch_place(segment, home(hash) as u8);
        // What is looked at before entries are changed: who holds the segment, and its counters.
        prefetch(segment.as_ptr().cast::<u8>().wrapping_add(std::mem::offset_of!(Segment<L>, holders)));
    }

    #[inline]
    pub(super) fn prefetch_entry(&self, hash: u64) {
        let bucket = &self.buckets[home(hash)];
        let candidates = bucket.matching(fingerprint(hash));
        if candidates != 0 {
            let entry = self.address(bucket.offset(candidates.trailing_zeros() as usize));
            prefetch(entry);
            prefetch(entry.wrapping_add(64));
        }
    }

    /// Asks the processor to load a 59th of the segment, chosen by a bucket's number, for a walk that comes here next.
    #[inline]
    pub(super) fn prefetch_share(&self, bucket: usize) {
        const LINES: usize = BLOCK_LEN / 64;
        prefetch(&raw const self.buckets[bucket]);
        for &block in &self.blocks[..self.blocks()] {
            prefetch(block.start().wrapping_add(64 * bucket));
            if bucket < LINES - BUCKETS {
                prefetch(block.start().wrapping_add(64 * (BUCKETS + bucket)));
            }
        }
    }

    /// Asks the processor to load a bucket and the addresses of the first blocks.
    #[inline]
    pub(super) fn prefetch_place(segment: NonNull<Segment<L>>, bucket: u8) {
        // Address arithmetic only: the segment is not accessed.
        let address = segment.as_ptr().cast::<u8>();
        prefetch(address.wrapping_add(usize::from(bucket) * size_of::<L::Bucket>()));
        prefetch(address.wrapping_add(std::mem::offset_of!(Segment<L>, blocks)));
    }

    /// Asks the processor to load what an insertion looks at: bucket, blocks, counters.
    #[inline]
    pub(super) fn prefetch_insert(segment: NonNull<Segment<L>>, hash: u64) {
        Segment::prefetch_bucket(segment, hash);
        let blocks = std::mem::offset_of!(Segment<L>, blocks);
        prefetch(segment.as_ptr().cast::<u8>().wrapping_add(blocks + 64));
    }

    /// Asks the processor to load the place where an insertion puts its entry. Cheap only if the counters are cached.
    #[inline]
    pub(super) fn prefetch_tail(&self) {
        if let Some(last) = self.blocks().checked_sub(1) {
            let tail = self.blocks[last].start().wrapping_add(usize::from(self.tail));
            let place = if self.holes == NO_HOLE { tail } else { self.address(self.holes) };
            prefetch(place);
            prefetch(place.wrapping_add(64));
        }
    }

    /// Asks the processor to load the entry in a slot, if there is one.
    #[inline]
    pub(super) fn prefetch_slot(&self, bucket: u8, slot: u8) {
        if self.is_occupied(bucket, slot) {
            prefetch(self.address(self.buckets[usize::from(bucket)].offset(usize::from(slot))));
        }
    }

    /// Asks the processor to load all entries of a bucket. Cheap only if the bucket is cached.
    #[inline]
    pub(super) fn prefetch_entries(&self, bucket: usize) {
        for slot in bits(self.occupied(bucket)) {
            prefetch(self.address(self.buckets[bucket].offset(slot)));
        }
    }

    /// Asks the processor to load a bucket.
    #[inline]
    pub(super) fn prefetch_line(&self, bucket: usize) {
        prefetch(&raw const self.buckets[bucket]);
    }

    /// The place of the n-th entry in physical order; there are more than n.
    pub(super) fn nth(&self, mut n: usize) -> (u8, u8) {
        for bucket in 0..BUCKETS {
            let occupied = self.occupied(bucket);
            let here = occupied.count_ones() as usize;
            if n < here {
                let slot = bits(occupied).nth(n).expect("fewer than the bits counted");
                return (bucket as u8, slot as u8);
            }
            n -= here;
        }
        unreachable!("a segment of {} entries ended", self.count)
    }

    /// The place of the entry of this hash that is the wanted one.
    #[inline]
    pub(super) fn find(&self, hash: u64, is_wanted: impl Fn(&[u8]) -> bool) -> Option<(u8, u8)> {
        // The bucket says which block to look up; asking for the first blocks' addresses (all of them if entries are
        // short) along with the bucket makes two cache misses one behind the other out of three.
        prefetch(self.blocks.as_ptr());
        let fingerprint = fingerprint(hash);
        let mut index = home(hash);
        for _ in 0..BUCKETS {
            let bucket = &self.buckets[index];
            for slot in bits(bucket.matching(fingerprint)) {
                if is_wanted(self.entry_at(bucket.offset(slot))) {
                    return Some((index as u8, slot as u8));
                }
            }
            if !bucket.is_passed() {
                return None;
            }
            index = next(index);
        }
        None
    }

    #[inline]
    fn address(&self, offset: u16) -> *mut u8 {
        let offset = usize::from(offset);
        self.blocks[offset / UNITS_PER_BLOCK].start().wrapping_add(offset % UNITS_PER_BLOCK * UNIT)
    }

    /// Bytes from an offset to the end of its block.
    #[inline]
    fn rest(&self, offset: u16) -> usize {
        let offset = usize::from(offset);
        self.blocks[offset / UNITS_PER_BLOCK].len() - offset % UNITS_PER_BLOCK * UNIT
    }

    #[inline]
    fn entry_at(&self, offset: u16) -> &[u8] {
        // SAFETY: offsets in occupied slots lead into one of the first `block_count` blocks (checked by `check`);
        // blocks are initialised bytes, and the slice ends with the block. Changes need `&mut self`.
        unsafe { std::slice::from_raw_parts(self.address(offset), self.rest(offset)) }
    }

    #[inline]
    pub(super) fn entry(&self, bucket: u8, slot: u8) -> &[u8] {
        debug_assert!(self.is_occupied(bucket, slot));
        self.entry_at(self.buckets[usize::from(bucket)].offset(usize::from(slot)))
    }

    #[inline]
    pub(super) fn entry_mut(&mut self, bucket: u8, slot: u8) -> &mut [u8] {
        debug_assert!(self.is_occupied(bucket, slot));
        let offset = self.buckets[usize::from(bucket)].offset(usize::from(slot));
        // SAFETY: as in `entry_at`; `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.address(offset), self.rest(offset)) }
    }

    /// Bytes an entry takes in the log.
    #[inline]
    fn footprint(len: usize) -> usize {
        len.next_multiple_of(UNIT)
    }

    /// Room for `len` bytes at the end of the log, as an offset. Adds a block if needed and there are fewer than
    /// `blocks_max`; one that is added begins with `begin` bytes.
    #[inline]
    fn append(&mut self, len: usize, blocks_max: usize, begin: usize) -> Option<u16> {
        let len = Self::footprint(len);
        debug_assert!(len <= ENTRY_LEN_MAX);
        if self.block_count == 0 || usize::from(self.tail) + len > BLOCK_LEN {
            if self.blocks() >= blocks_max {
                return None;
            }
            self.blocks[self.blocks()] = Block::alloc(begin);
            self.block_count += 1;
            self.tail = 0;
        }
        let last = self.blocks() - 1;
        let end = usize::from(self.tail) + len;
        if end > self.blocks[last].len() {
            self.set_tail_len(end.next_multiple_of(STEP));
        }
        let offset = last * UNITS_PER_BLOCK + usize::from(self.tail) / UNIT;
        self.tail = end as u16;
        Some(offset as u16)
    }

    /// Changes the length of the last block, if there is one.
    fn set_tail_len(&mut self, len: usize) {
        if let Some(last) = self.blocks().checked_sub(1)
            && self.blocks[last].len() != len
        {
            debug_assert!(usize::from(self.tail) <= len);
            // SAFETY: alive, and replaced at once; `&mut self` excludes views of it.
            self.blocks[last] = unsafe { self.blocks[last].resize(len) };
        }
    }

    /// Appends to a log that is being rewritten: whole blocks, whose last is cut by `finish`.
    fn transfer(&mut self, entry: &[u8]) -> u16 {
        let offset =
            self.append(entry.len(), BLOCKS_MAX, BLOCK_LEN).expect("rewriting fits, see BLOCKS_GROW");
        // SAFETY: `append` gave out `entry.len()` bytes in one of our blocks; `entry` is in another segment, or in a
        // block that was ours before.
        unsafe { self.address(offset).copy_from_nonoverlapping(entry.as_ptr(), entry.len()) };
        offset
    }

    /// Gives back what the last block does not need.
    fn finish(&mut self) {
        self.set_tail_len(usize::from(self.tail).next_multiple_of(STEP).max(STEP));
    }

    /// Offset of the next hole and length of this one, in units.
    #[inline]
    fn hole(&self, offset: u16) -> (u16, u16) {
        let bytes = self.entry_at(offset);
        (u16::from_le_bytes([bytes[0], bytes[1]]), u16::from_le_bytes([bytes[2], bytes[3]]))
    }

    #[inline]
    fn set_hole(&mut self, offset: u16, next: u16, units: u16) {
        debug_assert!(usize::from(units) * UNIT <= self.rest(offset));
        let [a, b] = next.to_le_bytes();
        let [c, d] = units.to_le_bytes();
        // SAFETY: `HOLE_MIN` bytes of one of our blocks that no entry uses; `&mut self` excludes views of them.
        unsafe { self.address(offset).cast::<[u8; HOLE_MIN]>().write_unaligned([a, b, c, d]) };
    }

    /// Counts the bytes of an entry that is no more, and keeps their place for another.
    #[inline]
    fn leave_hole(&mut self, offset: u16, len: usize) {
        let len = Self::footprint(len);
        self.dead += len as u32;
        if len >= HOLE_MIN {
            let units = (len / UNIT) as u16;
            self.set_hole(offset, self.holes, units);
            self.holes = offset;
            self.longest_hole = self.longest_hole.max(units);
        }
    }

    /// A place for `len` bytes in one of the first holes.
    #[inline]
    fn take_hole(&mut self, len: usize) -> Option<u16> {
        let wanted = (Self::footprint(len) / UNIT) as u16;
        // Entries that all get longer leave holes that are all too short, and each look at one is a cache miss.
        if wanted > self.longest_hole {
            return None;
        }
        let (mut before, mut offset, mut longest) = (NO_HOLE, self.holes, 0);
        for _ in 0..HOLES_TRIED {
            if offset == NO_HOLE {
                self.longest_hole = longest;
                return None;
            }
            let (next, units) = self.hole(offset);
            let Some(left) = units.checked_sub(wanted) else {
                (before, offset, longest) = (offset, next, longest.max(units));
                continue;
            };
            self.dead -= u32::from(wanted) * UNIT as u32;
            if usize::from(left) * UNIT >= HOLE_END_MIN {
                self.set_hole(offset, next, left);
                return Some(offset + left);
            }
            if before == NO_HOLE {
                self.holes = next;
            } else {
                let (_, units) = self.hole(before);
                self.set_hole(before, next, units);
            }
            return Some(offset);
        }
        None
    }

    /// Room for `len` bytes in a hole or, as `append`, at the end; wins back dead bytes first when that is worth it.
    #[inline]
    fn reserve(&mut self, len: usize) -> Option<u16> {
        if let Some(offset) = self.take_hole(len) {
            return Some(offset);
        }
        let fits = self.block_count > 0 && usize::from(self.tail) + Self::footprint(len) <= BLOCK_LEN;
        if !fits && self.worth_compacting() {
            self.compact();
        }
        self.append(len, BLOCKS_GROW, STEP)
    }

    pub(super) fn worth_compacting(&self) -> bool {
        let dead = self.dead as usize;
        dead >= BLOCK_LEN && dead >= usize::from(self.block_count) * BLOCK_LEN / 8
    }

    /// Claims a slot for a hash, counting overflow on the way. There is one: callers check the count.
    #[inline]
    fn claim(&mut self, hash: u64) -> (usize, usize) {
        let mut index = home(hash);
        loop {
            let bucket = &mut self.buckets[index];
            if let Some(slot) = bucket.free_slot() {
                bucket.set_fingerprint(slot, fingerprint(hash));
                self.count += 1;
                return (index, slot);
            }
            bucket.pass();
            index = next(index);
        }
    }

    #[inline]
    pub(super) fn insert(
        &mut self,
        hash: u64,
        len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<(u8, u8), SegmentFull> {
        assert!(len <= ENTRY_LEN_MAX, "an entry of {len} bytes");
        if self.count() >= L::Bucket::COUNT_MAX {
            return Err(SegmentFull);
        }
        let offset = self.reserve(len).ok_or(SegmentFull)?;
        let (bucket, slot) = self.claim(hash);
        self.buckets[bucket].set_offset(slot, offset);
        self.buckets[bucket].extra_mut().set_heat(slot, 0);
        let entry = self.entry_mut(bucket as u8, slot as u8);
        fill(&mut entry[..len]);
        debug_assert_eq!(L::entry_len(self.entry(bucket as u8, slot as u8)), len);
        Ok((bucket as u8, slot as u8))
    }

    pub(super) fn resize(
        &mut self,
        bucket: u8,
        slot: u8,
        len: usize,
        fill: impl FnOnce(&[u8], &mut [u8]),
    ) -> Result<(), SegmentFull> {
        assert!(len <= ENTRY_LEN_MAX, "an entry of {len} bytes");
        // Reserving may rewrite the log and move the old entry, so its place is looked up afterwards.
        let offset = self.reserve(len).ok_or(SegmentFull)?;
        let old = self.buckets[usize::from(bucket)].offset(usize::from(slot));
        let old_len = L::entry_len(self.entry_at(old));
        // SAFETY: `reserve` gave out bytes that no entry uses, so the new place does not overlap the old one, and both
        // lie in initialised blocks. `&mut self` excludes other views.
        unsafe {
            let from = std::slice::from_raw_parts(self.address(old), old_len);
            let to = std::slice::from_raw_parts_mut(self.address(offset), len);
            fill(from, to);
        }
        self.buckets[usize::from(bucket)].set_offset(usize::from(slot), offset);
        self.leave_hole(old, old_len);
        debug_assert!(L::entry_len(self.entry(bucket, slot)) <= len);
        Ok(())
    }

    pub(super) fn remove(&mut self, bucket: u8, slot: u8, hash: u64) {
        let len = L::entry_len(self.entry(bucket, slot));
        self.leave_hole(self.buckets[usize::from(bucket)].offset(usize::from(slot)), len);
        self.count -= 1;
        self.buckets[usize::from(bucket)].set_fingerprint(usize::from(slot), 0);
        self.buckets[usize::from(bucket)].extra_mut().set_heat(usize::from(slot), 0);
        let mut index = home(hash);
        while index != usize::from(bucket) {
            self.buckets[index].unpass();
            index = next(index);
        }
        if self.count == 0 {
            for &block in &self.blocks[..usize::from(self.block_count)] {
                // SAFETY: no entry is left in them, and they are forgotten below.
                unsafe { block.free() };
            }
            self.block_count = 0;
            self.tail = 0;
            self.dead = 0;
            self.holes = NO_HOLE;
            self.longest_hole = 0;
        } else if self.worth_compacting() && self.dead as usize * 2 > self.block_bytes() {
            self.compact();
        }
    }

    /// Rewrites the log without its dead bytes.
    pub(super) fn compact(&mut self) {
        let old = self.blocks;
        let old_count = usize::from(self.block_count);
        self.blocks = [NO_BLOCK; BLOCKS_MAX];
        self.block_count = 0;
        self.tail = 0;
        self.dead = 0;
        self.holes = NO_HOLE;
        self.longest_hole = 0;
        for index in 0..BUCKETS {
            for slot in bits(self.occupied(index)) {
                let place = usize::from(self.buckets[index].offset(slot));
                let (block, start) = (place / UNITS_PER_BLOCK, place % UNITS_PER_BLOCK * UNIT);
                let rest = old[block].len() - start;
                // SAFETY: offsets of occupied slots lead into the old blocks, which are alive until the end of this
                // function and which nothing else refers to any more.
                let entry = unsafe { std::slice::from_raw_parts(old[block].start().add(start), rest) };
                let moved = self.transfer(&entry[..L::entry_len(entry)]);
                self.buckets[index].set_offset(slot, moved);
            }
        }
        self.finish();
        for &block in &old[..old_count] {
            // SAFETY: all entries were copied out, not referred to any more.
            unsafe { block.free() };
        }
    }

    /// Gives the blocks other addresses; see [`Mover`].
    pub(super) fn relocate_blocks(&mut self, mover: &mut Mover<'_>) {
        for block in &mut self.blocks[..usize::from(self.block_count)] {
            if mover.wants(block.start(), block.len()) {
                let fresh = Block::alloc(block.len());
                // SAFETY: both are so many initialised bytes, and a fresh allocation overlaps nothing.
                unsafe { fresh.start().copy_from_nonoverlapping(block.start(), block.len()) };
                // SAFETY: alive, and replaced at once; `&mut self` excludes views of it.
                unsafe { block.free() };
                *block = fresh;
                mover.note(fresh.len());
            }
        }
    }

    /// Takes over the bytes of an entry of another segment, with its heat and version.
    fn adopt(&mut self, hash: u64, entry: &[u8], heat: u8, version: u32) {
        let offset = self.transfer(entry);
        let (bucket, slot) = self.claim(hash);
        let bucket = &mut self.buckets[bucket];
        bucket.set_offset(slot, offset);
        bucket.extra_mut().set_heat(slot, heat);
        let version = bucket.extra().version().max(version);
        bucket.extra_mut().set_version(version);
    }

    fn for_each(&self, mut visit: impl FnMut(&[u8], u8, u32)) {
        for bucket in &self.buckets {
            for slot in bits(bucket.occupied()) {
                let entry = self.entry_at(bucket.offset(slot));
                visit(&entry[..L::entry_len(entry)], bucket.extra().heat(slot), bucket.extra().version());
            }
        }
    }

    /// Two new segments with the entries of this one. If `duplicate`, the entries' outside memory is cloned (this
    /// segment lives on with other holders); otherwise it moves and this one must be freed with `free_moved`.
    pub(super) fn halves(&self, seed: u64, duplicate: bool) -> (NonNull<Segment<L>>, NonNull<Segment<L>>) {
        let depth = self.depth() + 1;
        let bit = 1u64 << (64 - depth);
        let low = Segment::alloc(self.prefix, depth);
        let high = Segment::alloc(self.prefix | bit, depth);
        // SAFETY: just allocated, not shared.
        let (low_ref, high_ref): (&mut Segment<L>, &mut Segment<L>) =
            unsafe { (&mut *low.as_ptr(), &mut *high.as_ptr()) };
        low_ref.note = self.note;
        high_ref.note = self.note;
        for (index, bucket) in self.buckets.iter().enumerate() {
            low_ref.buckets[index].extra_mut().set_version(bucket.extra().version());
            high_ref.buckets[index].extra_mut().set_version(bucket.extra().version());
        }
        self.for_each(|entry, heat, version| {
            let hash = L::hash(entry, seed);
            if hash & bit == 0 { &mut *low_ref } else { &mut *high_ref }.adopt(hash, entry, heat, version);
        });
        low_ref.finish();
        high_ref.finish();
        if duplicate && L::OWNS {
            low_ref.clone_owned();
            high_ref.clone_owned();
        }
        (low, high)
    }

    fn clone_owned(&mut self) {
        for bucket in 0..BUCKETS {
            for slot in bits(self.occupied(bucket)) {
                L::clone_owned(self.entry_mut(bucket as u8, slot as u8));
            }
        }
    }

    /// A copy held once, slot for slot.
    pub(super) fn duplicate(&self) -> NonNull<Segment<L>> {
        let copy = Segment::alloc(self.prefix, self.depth());
        // SAFETY: just allocated, not shared.
        let fresh = unsafe { &mut *copy.as_ptr() };
        // SAFETY: buckets are plain bytes; source and target are distinct allocations.
        unsafe { std::ptr::copy_nonoverlapping(&raw const self.buckets, &raw mut fresh.buckets, 1) };
        for index in 0..self.blocks() {
            let from = self.blocks[index];
            let block = Block::alloc(from.len());
            // SAFETY: both blocks are so many initialised bytes.
            unsafe { block.start().copy_from_nonoverlapping(from.start(), from.len()) };
            fresh.blocks[index] = block;
        }
        fresh.note = self.note;
        fresh.dead = self.dead;
        fresh.count = self.count;
        fresh.tail = self.tail;
        fresh.block_count = self.block_count;
        fresh.holes = self.holes;
        fresh.longest_hole = self.longest_hole;
        if L::OWNS {
            fresh.clone_owned();
        }
        copy
    }

    /// Whether both, joined, stay at most half full in slots and in bytes.
    pub(super) fn fit_together(low: &Segment<L>, high: &Segment<L>) -> bool {
        low.count() + high.count() <= L::Bucket::COUNT_MAX / 2
            && low.blocks() + high.blocks() <= BLOCKS_MAX / 2
    }

    pub(super) fn joined(low: &Segment<L>, high: &Segment<L>, seed: u64) -> NonNull<Segment<L>> {
        let joined = Segment::<L>::alloc(low.prefix, low.depth() - 1);
        // SAFETY: just allocated, not shared.
        let fresh = unsafe { &mut *joined.as_ptr() };
        fresh.note = low.note.min(high.note);
        for (index, bucket) in fresh.buckets.iter_mut().enumerate() {
            let version = low.buckets[index].extra().version().max(high.buckets[index].extra().version());
            bucket.extra_mut().set_version(version);
        }
        for half in [low, high] {
            half.for_each(|entry, heat, version| {
                fresh.adopt(L::hash(entry, seed), entry, heat, version);
            });
        }
        fresh.finish();
        joined
    }

    /// Visits the entries whose home is `bucket`, wherever the probe put them.
    pub(super) fn visit_home(&self, bucket: usize, seed: u64, mut visit: impl FnMut(u8, u8)) {
        let mut index = bucket;
        for _ in 0..BUCKETS {
            for slot in bits(self.occupied(index)) {
                if home(L::hash(self.entry_at(self.buckets[index].offset(slot)), seed)) == bucket {
                    visit(index as u8, slot as u8);
                }
            }
            if !self.buckets[index].is_passed() {
                break;
            }
            index = next(index);
        }
    }

    pub(super) fn visit_bucket(&self, bucket: usize, mut visit: impl FnMut(u8, u8)) {
        for slot in bits(self.occupied(bucket)) {
            visit(bucket as u8, slot as u8);
        }
    }

    pub(super) fn visit_all(&self, mut visit: impl FnMut(u8, u8)) {
        for bucket in 0..BUCKETS {
            self.visit_bucket(bucket, &mut visit);
        }
    }

    /// Every invariant of one segment.
    pub(super) fn check(&self, seed: u64) {
        let mut count = 0;
        let mut live = 0;
        let mut overflow = [0u32; BUCKETS];
        let mut spans = Vec::new();
        for index in 0..BUCKETS {
            for slot in bits(self.occupied(index)) {
                count += 1;
                let offset = usize::from(self.buckets[index].offset(slot));
                assert!(offset / UNITS_PER_BLOCK < self.blocks(), "offset leads into a block");
                let entry = self.entry_at(offset as u16);
                let len = L::entry_len(entry);
                assert!(len > 0 && len <= entry.len(), "entry ends inside its block");
                spans.push((offset * UNIT, offset * UNIT + len));
                live += Self::footprint(len);
                let hash = L::hash(entry, seed);
                assert_eq!(self.buckets[index].fingerprint(slot), fingerprint(hash));
                assert!(
                    self.depth == 0 || (hash ^ self.prefix) >> (64 - self.depth()) == 0,
                    "entry is in its segment"
                );
                let mut at = home(hash);
                while at != index {
                    overflow[at] += 1;
                    at = next(at);
                }
            }
        }
        assert_eq!(count, self.count());
        for (bucket, passed) in self.buckets.iter().zip(overflow) {
            assert!(bucket.passed().is_none_or(|have| u32::from(have) == passed), "{passed} passed");
        }
        let (mut hole, mut remembered) = (self.holes, 0);
        while hole != NO_HOLE {
            let (next, units) = self.hole(hole);
            assert!(usize::from(hole) / UNITS_PER_BLOCK < self.blocks(), "a hole is in a block");
            let (start, len) = (usize::from(hole) * UNIT, usize::from(units) * UNIT);
            assert!(len >= HOLE_MIN && len <= self.rest(hole), "a hole ends inside its block");
            assert!(units <= self.longest_hole, "no hole is longer than the longest");
            spans.push((start, start + len));
            remembered += len;
            hole = next;
        }
        assert!(remembered <= self.dead as usize, "holes are counted as dead");
        spans.sort_unstable();
        assert!(spans.windows(2).all(|pair| pair[0].1 <= pair[1].0), "entries and holes do not overlap");
        for &block in &self.blocks[..self.blocks().saturating_sub(1)] {
            assert_eq!(block.len(), BLOCK_LEN, "only the last is short");
        }
        assert!(self.blocks() == 0 || usize::from(self.tail) <= self.blocks[self.blocks() - 1].len());
        assert!(live + self.dead as usize <= self.block_bytes(), "live and dead bytes fit the blocks");
    }
}
