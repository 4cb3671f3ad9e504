//! A hash table of byte entries that grows a segment at a time and never allocates per entry.
//!
//! Shape: extendible hashing. A directory of `2^depth` pointers, indexed by the top bits of the hash, leads to
//! [segments](segment); a segment holds up to 710 entries (1014 without heat) and splits in two when it is full, so growing
//! from zero to a billion keys costs one segment (at most 128 KiB of copying) at a time. The directory doubles by
//! copying pointers: 16 KiB for a million keys.
//!
//! ```text
//! hash: | 63 .. prefix: which segment | 39 .. bucket in the segment .. 8 | 7 .. fingerprint .. 0 |
//!
//! directory          segment (4 KiB)                       blocks (4 KiB, at most 32; the last 1 to 4)
//! [ptr][ptr]... ---> 59 buckets x 64 B, header 320 B --->  entry|entry|entry|...
//!                    bucket: 14 fingerprints, 14 offsets, 14 heat bytes, overflow, version;
//!                    or, where nobody wants heat and versions, 20 fingerprints and offsets
//! ```
//!
//! An entry is a run of bytes that a [`Layout`] understands; entries lie one behind the other in the blocks of their
//! segment, unaligned, found by the 16-bit offset in their slot. Freed bytes are counted and won back by rewriting
//! the segment (`Segment::compact`), which needs no back pointers because slots lead to all live entries. So small
//! entries cost no allocator header, no size-class rounding and no pointer: 4.6 bytes per slot, about 6 to 11 per
//! entry at the usual fill, and the memory of a table is dense whatever is overwritten.
//!
//! Why not a flat SwissTable: it must rehash at once (a 5 M entry table stalls for hundreds of milliseconds) and
//! needs a pointer per entry. Why not Dragonfly's dash table: its slots are fixed 16-byte objects, so a small key
//! and a small value are two allocations.
//!
//! What the bucket offers to the layers above: a *version* (for cuts without fork: a bucket whose version is below
//! the cut must be saved before it is written), and a byte of *heat* per slot (for eviction).
//!
//! A bucket index does not depend on the depth, so both halves of a split keep their bucket numbers; this is what
//! gives SCAN its guarantee ([`Cursor`]).
//!
//! Copy-on-write: segments are reference-counted, [`Table::clone`] copies the directory and counts up; a write to a
//! shared segment copies that segment first.

#![expect(unsafe_code, reason = "segments and blocks are raw allocations reached through packed offsets")]

mod bucket;
mod segment;

use std::marker::PhantomData;
use std::ptr::NonNull;

use crate::alloc::good_size;
use crate::moves::Mover;
pub use bucket::{BUCKETS, Plain, Shape, Watched};
pub use segment::{BLOCK_LEN, ENTRY_LEN_MAX};
use segment::{Segment, SegmentFull};

/// How a table reads its entries. Implementations are zero-sized types; all state is in the bytes.
///
/// The slice handed to these functions starts at the entry and runs to the end of its block, so an implementation
/// first reads its own header to learn the length. The bytes were written by the same crate, never by a stranger:
/// a malformed entry is a bug and may panic, but it must not be undefined behaviour. A layout whose entries own what may
/// not leave its thread must not be `Send` itself: tables are as `Send` as their layout.
pub trait Layout {
    /// [`Plain`], or [`Watched`] for those that want heat and versions.
    type Bucket: Shape;
    /// Length of the entry that starts `entry`.
    fn entry_len(entry: &[u8]) -> usize;
    /// Whether the entry has this key.
    fn matches(entry: &[u8], key: &[u8]) -> bool;
    /// Hash of the entry's key.
    fn hash(entry: &[u8], seed: u64) -> u64;
    /// Heap bytes that the entry owns outside the table. Zero for most layouts.
    fn owned_bytes(_entry: &[u8]) -> usize {
        0
    }
    /// Drops what the entry owns outside the table. Called exactly once for an entry that owns something.
    fn drop_owned(_entry: &mut [u8]) {}
    /// Makes `copy`, a byte copy of another entry, own its own outside memory. Called when a shared segment is
    /// copied before a write.
    fn clone_owned(_copy: &mut [u8]) {}
    /// Whether `drop_owned` and `clone_owned` do anything; lets the others skip the walk.
    const OWNS: bool;
}

/// Where an entry is. Valid until the next insertion, removal or resize in the same table, with one exception: while
/// entries of one unshared segment are removed ([`Table::own`]), locations of its other entries stay valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loc {
    /// A [`Segment`] of the table whose location this is.
    segment: NonNull<()>,
    /// Its bucket and slot there. As one number, so that a location has two parts and is returned in registers: through
    /// memory, its reader waits for three writes to be put together.
    place: u16,
}

impl Loc {
    #[inline]
    fn new<T>(segment: NonNull<T>, bucket: u8, slot: u8) -> Loc {
        Loc { segment: segment.cast(), place: u16::from_le_bytes([slot, bucket]) }
    }

    #[inline]
    fn bucket(self) -> u8 {
        self.place.to_le_bytes()[1]
    }

    #[inline]
    fn slot(self) -> u8 {
        self.place.to_le_bytes()[0]
    }
}

/// The segment that an insertion needs has no room: the caller splits it ([`Table::split`]) and tries again. Split
/// is a separate step because the owner may have to save the segment's entries for a running cut first.
#[derive(Debug)]
pub struct Full;

/// Where a walk by [`Table::scan`] stands.
///
/// Packs depth, segment prefix and bucket into 52 bits so that a caller can add a shard number and still hand out a
/// 63-bit number. Zero is both "start" and, as a result, "finished".
///
/// The guarantee: an entry that is in the table during the whole walk is visited at least once. Splits keep bucket
/// numbers, so a walk that had visited the buckets below `b` of a segment goes on at bucket `b` of the first half
/// and starts the second half anew (some entries are seen twice, none is missed). Merges are noticed because the
/// segment found is shallower than the depth in the cursor; of the merged segment the walk then sees the part that the
/// cursor's segment was, from the cursor's bucket on. So a walk never goes back: it ends even if the table grows and
/// shrinks between any two of its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Cursor(pub u64);

impl Cursor {
    const BUCKET_BITS: u32 = 6;
    const DEPTH_BITS: u32 = 6;
    /// Bits that a cursor uses at most.
    pub const BITS: u32 = Self::BUCKET_BITS + Self::DEPTH_BITS + DEPTH_MAX;

    fn new(prefix: u64, depth: u32, bucket: usize) -> Cursor {
        let prefix = if depth == 0 { 0 } else { prefix >> (64 - depth) };
        Cursor(
            prefix << (Self::BUCKET_BITS + Self::DEPTH_BITS)
                | u64::from(depth) << Self::BUCKET_BITS
                | bucket as u64,
        )
    }

    /// (hash position of the segment's start, depth, bucket); anything a client may send decodes to something.
    fn parts(self) -> (u64, u32, usize) {
        let bucket = (self.0 & ((1 << Self::BUCKET_BITS) - 1)) as usize;
        let depth = ((self.0 >> Self::BUCKET_BITS) & ((1 << Self::DEPTH_BITS) - 1)) as u32;
        let prefix = self.0 >> (Self::BUCKET_BITS + Self::DEPTH_BITS);
        let prefix = if depth == 0 { 0 } else { prefix << (64 - depth) };
        (prefix, depth, bucket)
    }
}

/// Up to so many entries in a lone segment a random pick counts instead of drawing: 59 words are looked at, which is
/// as quick as the eight draws that an eighth of 826 slots takes.
const FEW: usize = BUCKETS * <Watched as Shape>::SLOTS / 8;

/// Deepest directory: 2^40 segments is more than any memory holds; reaching it means a broken hash.
const DEPTH_MAX: u32 = 40;

const _: () = assert!(Cursor::BITS <= 52, "a shard number of 10 bits must fit beside the cursor");
const _: () = assert!(BUCKETS < 1 << Cursor::BUCKET_BITS && DEPTH_MAX < 1 << Cursor::DEPTH_BITS);

/// See the module's head.
pub struct Table<L: Layout> {
    /// `2^depth` pointers; a segment of local depth `d` stands in `2^(depth - d)` neighbouring places.
    directory: Vec<NonNull<Segment<L>>>,
    depth: u32,
    seed: u64,
    len: usize,
    segments: usize,
    block_bytes: usize,
    /// Of these, bytes that no entry uses any more.
    dead_bytes: usize,
    layout: PhantomData<L>,
}

// SAFETY: a table owns its segments, alone or by an atomic count with clones of it. A segment with other holders is
// only read, by everybody; before a change it is copied (`own`). What entries own outside may travel where `L` may.
unsafe impl<L: Layout + Send> Send for Table<L> {}

impl<L: Layout> Table<L> {
    /// An empty table: one segment without blocks, 4 KiB.
    pub fn new(seed: u64) -> Table<L> {
        Table {
            directory: vec![Segment::alloc(0, 0)],
            depth: 0,
            seed,
            len: 0,
            segments: 1,
            block_bytes: 0,
            dead_bytes: 0,
            layout: PhantomData,
        }
    }

    /// Number of entries.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The seed handed in at construction; callers hash keys with it.
    #[inline]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// Bytes held from the allocator by directory, segments and blocks; what entries own outside is not included.
    /// Segments shared with clones are counted by each holder.
    #[inline]
    pub fn heap_bytes(&self) -> usize {
        self.segments * BLOCK_LEN
            + self.block_bytes
            + good_size(self.directory.capacity() * size_of::<usize>())
    }

    /// Of [`Table::heap_bytes`], what entries left behind that were removed or moved; rewriting a segment frees it.
    #[inline]
    pub fn dead_bytes(&self) -> usize {
        self.dead_bytes
    }

    /// Books what a change made of a segment that had `before` bytes of blocks and of dead entries.
    #[inline]
    fn book(&mut self, before: (usize, usize), after: (usize, usize)) {
        self.block_bytes = self.block_bytes + after.0 - before.0;
        self.dead_bytes = self.dead_bytes + after.1 - before.1;
    }

    /// Entries that fit without another split, roughly: what "capacity" means to INFO and metrics.
    pub fn capacity(&self) -> usize {
        self.segments * L::Bucket::COUNT_MAX
    }

    /// Number of segments.
    pub fn segments(&self) -> usize {
        self.segments
    }

    #[inline]
    fn index(&self, hash: u64) -> usize {
        // A shift by 64 - depth, written so that depth 0 is not a shift by 64.
        (hash >> 1 >> (63 - self.depth)) as usize
    }

    #[inline]
    fn segment_ptr(&self, hash: u64) -> NonNull<Segment<L>> {
        let index = self.index(hash);
        debug_assert!(index < self.directory.len());
        // SAFETY: the directory has 2^depth places and `index` returns the top `depth` bits of the hash. Checked
        // indexing costs a compare and a branch in every lookup (measured: 0.9 ns of 14 ns on a cached GET).
        unsafe { *self.directory.get_unchecked(index) }
    }

    #[inline]
    fn segment(&self, hash: u64) -> &Segment<L> {
        // SAFETY: every pointer in the directory leads to a live segment of which this table holds one count; it is
        // freed only by methods that take `&mut self`.
        unsafe { self.segment_ptr(hash).as_ref() }
    }

    #[inline]
    fn at(&self, loc: Loc) -> &Segment<L> {
        // SAFETY: a `Loc` comes from this table, and the documented rule is that it is not used after a change.
        // The segments are only freed in split, merge, unshare and drop, all of which invalidate locations.
        unsafe { loc.segment.cast::<Segment<L>>().as_ref() }
    }

    #[inline]
    fn at_mut(&mut self, loc: Loc) -> &mut Segment<L> {
        debug_assert!(!self.at(loc).is_shared(), "a shared segment is copied before a write");
        // SAFETY: as in `at`; `&mut self` gives exclusive access, because callers have made the segment unshared.
        unsafe { loc.segment.cast::<Segment<L>>().as_mut() }
    }

    /// Asks the processor to load the bucket that this hash leads to.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        Segment::prefetch_bucket(self.segment_ptr(hash), hash);
    }

    /// Asks the processor to load the entry that this hash probably leads to. Cheap only if the bucket is cached.
    #[inline]
    pub fn prefetch_entry(&self, hash: u64) {
        self.segment(hash).prefetch_entry(hash);
    }

    /// Asks the processor to load what an insertion with this hash looks at first.
    #[inline]
    pub fn prefetch_insert(&self, hash: u64) {
        Segment::prefetch_insert(self.segment_ptr(hash), hash);
    }

    /// Asks the processor to load the place that such an insertion writes to. Cheap only behind
    /// [`Table::prefetch_insert`].
    #[inline]
    pub fn prefetch_tail(&self, hash: u64) {
        self.segment(hash).prefetch_tail();
    }

    /// Finds the entry with this key. `hash` is the hash of `key` under the table's seed.
    #[inline]
    pub fn find(&self, hash: u64, key: &[u8]) -> Option<Loc> {
        let segment = self.segment_ptr(hash);
        // SAFETY: as in `segment`.
        let (bucket, slot) = unsafe { segment.as_ref() }.find(hash, |entry| L::matches(entry, key))?;
        Some(Loc::new(segment, bucket, slot))
    }

    /// Finds an entry by the hash of its key alone: of several keys with this hash, any.
    pub fn find_hash(&self, hash: u64) -> Option<Loc> {
        let segment = self.segment_ptr(hash);
        // SAFETY: as in `segment`.
        let segment_ref = unsafe { segment.as_ref() };
        let (bucket, slot) = segment_ref.find(hash, |entry| L::hash(entry, self.seed) == hash)?;
        Some(Loc::new(segment, bucket, slot))
    }

    /// The entry's bytes, from its start to the end of its block.
    #[inline]
    pub fn entry(&self, loc: Loc) -> &[u8] {
        self.at(loc).entry(loc.bucket(), loc.slot())
    }

    /// The entry's bytes for in-place changes that keep its length or shorten it (report the difference with
    /// [`Table::shortened`]). A shared segment is copied first, so the location may move: use the returned one.
    #[inline]
    pub fn entry_mut(&mut self, loc: Loc) -> &mut [u8] {
        let loc = self.own(loc);
        self.at_mut(loc).entry_mut(loc.bucket(), loc.slot())
    }

    /// Records that an entry got shorter in place.
    #[inline]
    pub fn shortened(&mut self, loc: Loc, old_len: usize, new_len: usize) {
        let loc = self.own(loc);
        let before = self.at(loc).room();
        self.at_mut(loc).shortened(old_len, new_len);
        self.book(before, self.at(loc).room());
    }

    /// Makes the location's segment exclusively ours, copying it if a clone of the table shares it. The changing
    /// methods do so themselves, but then the caller's location is stale if there was a copy: owners of tables that
    /// are cloned call this first and go on with the result.
    #[inline]
    pub fn own(&mut self, loc: Loc) -> Loc {
        if self.at(loc).is_shared() {
            Loc { segment: self.unshare(loc.segment.cast()).cast(), ..loc }
        } else {
            loc
        }
    }

    #[cold]
    fn unshare(&mut self, shared: NonNull<Segment<L>>) -> NonNull<Segment<L>> {
        // SAFETY: `shared` is in our directory, so it is alive and we hold one count of it.
        let segment = unsafe { shared.as_ref() };
        let (prefix, depth) = (segment.prefix(), segment.depth());
        let copy = segment.duplicate();
        // SAFETY: we give back the one count that this table held; at least one other holder keeps it alive, so
        // nothing is freed here.
        unsafe { Segment::release(shared) };
        self.place(copy, prefix, depth);
        copy
    }

    /// Writes `segment` into all directory places that its prefix and depth cover.
    fn place(&mut self, segment: NonNull<Segment<L>>, prefix: u64, depth: u32) {
        let first = self.index(prefix);
        let places = 1usize << (self.depth - depth);
        self.directory[first..first + places].fill(segment);
    }

    /// Adds an entry of `len` bytes whose key is not in the table; `fill` writes it. `hash` is that of its key.
    #[inline]
    pub fn insert(&mut self, hash: u64, len: usize, fill: impl FnOnce(&mut [u8])) -> Result<Loc, Full> {
        let mut segment = self.segment_ptr(hash);
        if self.segment(hash).is_shared() {
            segment = self.unshare(segment);
        }
        let at = Loc::new(segment, 0, 0);
        let before = self.at(at).room();
        let target = self.at_mut(at);
        let placed = target.insert(hash, len, fill);
        let after = target.room();
        self.book(before, after);
        match placed {
            Ok((bucket, slot)) => {
                self.len += 1;
                Ok(Loc::new(segment, bucket, slot))
            }
            Err(SegmentFull) => Err(Full),
        }
    }

    /// Gives the entry a place of `len` bytes, keeping its slot. `fill` gets the old entry (its exact bytes) and the
    /// new place, whose bytes are arbitrary, and must write an entry there; if that is shorter than `len`, the caller
    /// lengthens it in place at once or reports the rest with [`Table::shortened`]. What the entry owns outside moves
    /// along: `fill` copies the pointer.
    pub fn resize(&mut self, loc: Loc, len: usize, fill: impl FnOnce(&[u8], &mut [u8])) -> Result<Loc, Full> {
        let loc = self.own(loc);
        let before = self.at(loc).room();
        let target = self.at_mut(loc);
        let resized = target.resize(loc.bucket(), loc.slot(), len, fill);
        let after = target.room();
        self.book(before, after);
        match resized {
            Ok(()) => Ok(loc),
            Err(SegmentFull) => Err(Full),
        }
    }

    /// Removes the entry without dropping what it owns outside: the caller has taken or dropped that.
    pub fn remove(&mut self, loc: Loc) {
        let loc = self.own(loc);
        let seed = self.seed;
        let hash = L::hash(self.at(loc).entry(loc.bucket(), loc.slot()), seed);
        let before = self.at(loc).room();
        let target = self.at_mut(loc);
        target.remove(loc.bucket(), loc.slot(), hash);
        let after = target.room();
        self.book(before, after);
        self.len -= 1;
    }

    /// Splits the segment that this hash leads to.
    #[cold]
    pub fn split(&mut self, hash: u64) {
        let old = self.segment_ptr(hash);
        // SAFETY: in our directory, hence alive.
        let old_ref = unsafe { old.as_ref() };
        let (prefix, depth) = (old_ref.prefix(), old_ref.depth());
        assert!(
            depth < DEPTH_MAX,
            "hash table: {depth} equal leading hash bits in {} entries",
            old_ref.count()
        );
        if depth == self.depth {
            self.double();
        }
        let shared = old_ref.is_shared();
        let before = old_ref.room();
        let (low, high) = old_ref.halves(self.seed, shared);
        // SAFETY: both were just made and are not reachable from anywhere else.
        let after = unsafe { Segment::room_of_both(low.as_ref(), high.as_ref()) };
        if shared {
            // SAFETY: we give back our count; the other holders keep the segment and what its entries own.
            unsafe { Segment::release(old) };
        } else {
            // SAFETY: the last count is ours. `halves` moved the entries' bytes, ownership included, so only the
            // memory of the segment itself is freed.
            unsafe { Segment::free_moved(old) };
        }
        self.book(before, after);
        self.segments += 1;
        self.place(low, prefix, depth + 1);
        self.place(high, prefix | 1 << (63 - depth), depth + 1);
    }

    fn double(&mut self) {
        let mut twice = Vec::with_capacity(self.directory.len() * 2);
        for &segment in &self.directory {
            twice.extend([segment, segment]);
        }
        self.directory = twice;
        self.depth += 1;
    }

    /// Joins the segment at this hash with its buddy if together they fill at most half a segment; true if it did.
    /// Undoes splits after many removals. The owner must have saved both for a running cut.
    pub fn merge(&mut self, hash: u64) -> bool {
        let one = self.segment_ptr(hash);
        // SAFETY: in our directory, hence alive.
        let one_ref = unsafe { one.as_ref() };
        let depth = one_ref.depth();
        if depth == 0 {
            return false;
        }
        let bit = 1u64 << (64 - depth);
        let low_prefix = one_ref.prefix() & !bit;
        let (low, high) = (self.segment_ptr(low_prefix), self.segment_ptr(low_prefix | bit));
        // SAFETY: both in our directory; with a depth above zero the buddies are distinct segments or deeper ones.
        let (low_ref, high_ref) = unsafe { (low.as_ref(), high.as_ref()) };
        let fits = low_ref.depth() == depth
            && high_ref.depth() == depth
            && !low_ref.is_shared()
            && !high_ref.is_shared()
            && Segment::fit_together(low_ref, high_ref);
        if !fits {
            return false;
        }
        let before = Segment::room_of_both(low_ref, high_ref);
        let joined = Segment::joined(low_ref, high_ref, self.seed);
        // SAFETY: just made.
        let after = unsafe { joined.as_ref().room() };
        self.place(joined, low_prefix, depth - 1);
        // SAFETY: both were exclusively ours (not shared) and `joined` moved their entries, ownership included.
        unsafe {
            Segment::free_moved(low);
            Segment::free_moved(high);
        }
        self.book(before, after);
        self.segments -= 1;
        true
    }

    /// Halves the directory while no segment needs its full depth. O(directory); for rare maintenance.
    pub fn trim_directory(&mut self) {
        while self.depth > 0 && self.directory.chunks_exact(2).all(|pair| pair[0] == pair[1]) {
            self.directory = self.directory.iter().step_by(2).copied().collect();
            self.depth -= 1;
        }
    }

    /// The bucket where an insertion of this hash puts its entry, if its segment is not full.
    #[inline]
    pub fn bucket_for_insert(&self, hash: u64) -> usize {
        self.segment(hash).bucket_for_insert(hash)
    }

    /// Asks the processor to load the share of a segment's entries that goes with one of its buckets: a walk that does
    /// so for the segment behind the one it is in finds that one loaded.
    #[inline]
    pub fn prefetch_share(&self, id: SegmentId, bucket: usize) {
        self.segment(id.0).prefetch_share(bucket);
    }

    /// Visits the entries whose home is the cursor's bucket, and returns where to go on; zero when finished.
    ///
    /// A cursor never goes back, so a walk ends however the table grows and shrinks under it. Where segments were
    /// joined since, the walk goes on over the part of the new one that it has not seen, in parts that begin where a
    /// segment could.
    pub fn scan(&self, cursor: Cursor, mut visit: impl FnMut(Loc)) -> Cursor {
        let (start, mut depth, mut bucket) = cursor.parts();
        let segment = self.segment_ptr(start);
        // SAFETY: in our directory, hence alive.
        let segment_ref = unsafe { segment.as_ref() };
        if bucket >= BUCKETS {
            bucket = 0;
        }
        let is_joined = segment_ref.depth() < depth;
        segment_ref.visit_home(bucket, self.seed, |bucket, slot| {
            let loc = Loc::new(segment, bucket, slot);
            if !is_joined || (L::hash(self.entry(loc), self.seed) ^ start) >> (64 - depth) == 0 {
                visit(loc);
            }
        });
        if !is_joined {
            depth = segment_ref.depth();
        }
        if bucket + 1 < BUCKETS {
            return Cursor::new(start, depth, bucket + 1);
        }
        let behind = if depth == 0 { None } else { start.checked_add(1 << (64 - depth)) };
        let Some(start) = behind else { return Cursor(0) };
        let next = self.segment(start);
        let depth = if next.prefix() == start { next.depth() } else { 64 - start.trailing_zeros() };
        Cursor::new(start, depth, 0)
    }

    fn after(&self, segment: &Segment<L>) -> Option<&Segment<L>> {
        if segment.depth() == 0 {
            return None;
        }
        let next = segment.prefix().checked_add(1u64 << (64 - segment.depth()))?;
        Some(self.segment(next))
    }

    /// A handle to the first segment in hash order, for walks that own their progress.
    pub fn first_segment(&self) -> SegmentId {
        SegmentId(0)
    }

    /// The segment behind `id` in hash order.
    pub fn next_segment(&self, id: SegmentId) -> Option<SegmentId> {
        self.after(self.segment(id.0)).map(|next| SegmentId(next.prefix()))
    }

    /// The segment that a hash leads to.
    pub fn segment_of(&self, hash: u64) -> SegmentId {
        SegmentId(self.segment(hash).prefix())
    }

    /// Visits every entry of a segment in physical order.
    pub fn visit_segment(&self, id: SegmentId, mut visit: impl FnMut(Loc)) {
        let segment = self.segment_ptr(id.0);
        // SAFETY: in our directory, hence alive.
        unsafe { segment.as_ref() }.visit_all(|bucket, slot| visit(Loc::new(segment, bucket, slot)));
    }

    /// Where those entries of a segment are that `is_meant` says, to be changed in place.
    pub fn entries_where(&self, id: SegmentId, is_meant: impl Fn(&[u8]) -> bool) -> Vec<Loc> {
        let mut found = Vec::new();
        self.visit_segment(id, |loc| {
            if is_meant(self.entry(loc)) {
                found.push(loc);
            }
        });
        found
    }

    /// Visits the entries of one bucket of a segment in physical order.
    pub fn visit_bucket(&self, id: SegmentId, bucket: usize, mut visit: impl FnMut(Loc)) {
        let segment = self.segment_ptr(id.0);
        // SAFETY: in our directory, hence alive.
        unsafe { segment.as_ref() }
            .visit_bucket(bucket, |bucket, slot| visit(Loc::new(segment, bucket, slot)));
    }

    /// Asks the processor to load a bucket.
    #[inline]
    pub fn prefetch_bucket(&self, id: SegmentId, bucket: usize) {
        self.segment(id.0).prefetch_line(bucket);
    }

    /// Asks the processor to load all entries of a bucket. Cheap only if the bucket is cached.
    #[inline]
    pub fn prefetch_entries(&self, id: SegmentId, bucket: usize) {
        self.segment(id.0).prefetch_entries(bucket);
    }

    /// The segment and bucket that hold an entry.
    pub fn bucket_of(&self, loc: Loc) -> (SegmentId, usize) {
        (SegmentId(self.at(loc).prefix()), usize::from(loc.bucket()))
    }

    /// A number that the owner may keep per segment (the keyspace: earliest expiry). A split gives it to both
    /// halves, a merge keeps the smaller.
    #[inline]
    pub fn note(&self, id: SegmentId) -> u64 {
        self.segment(id.0).note()
    }

    /// Raises the owner's number. In a segment that a clone shares it stays as it is: a lower bound it is all the same.
    #[inline]
    pub fn raise_note(&mut self, id: SegmentId, note: u64) {
        let loc = Loc::new(self.segment_ptr(id.0), 0, 0);
        if !self.at(loc).is_shared() {
            self.at_mut(loc).set_note(note);
        }
    }

    /// The owner's number of the segment that holds this entry (an unshared one: its entry was just changed), lowered to `note` if that is smaller. True if it was.
    #[inline]
    pub fn lower_note(&mut self, loc: Loc, note: u64) -> bool {
        let lower = note < self.at(loc).note();
        if lower {
            self.at_mut(loc).set_note(note);
        }
        lower
    }

    /// Entries in a segment.
    pub fn segment_len(&self, id: SegmentId) -> usize {
        self.segment(id.0).count()
    }

    /// Rewrites a segment densely if that frees at least one block; true if it did. For background tidying.
    pub fn compact_segment(&mut self, id: SegmentId) -> bool {
        let mut segment = self.segment_ptr(id.0);
        // SAFETY: in our directory, hence alive.
        if !unsafe { segment.as_ref() }.worth_compacting() {
            return false;
        }
        // SAFETY: as above.
        if unsafe { segment.as_ref() }.is_shared() {
            segment = self.unshare(segment);
        }
        let at = Loc::new(segment, 0, 0);
        let before = self.at(at).room();
        self.at_mut(at).compact();
        let after = self.at(at).room();
        self.book(before, after);
        after.0 < before.0
    }

    /// Gives the directory another address; see [`Mover`].
    pub fn relocate_directory(&mut self, mover: &mut Mover<'_>) {
        mover.vec(&mut self.directory);
    }

    /// Gives a segment and its blocks other addresses; see [`Mover`]. False if clones share it: then it stays.
    pub fn relocate_segment(&mut self, id: SegmentId, mover: &mut Mover<'_>) -> bool {
        let old = self.segment_ptr(id.0);
        let at = Loc::new(old, 0, 0);
        if self.at(at).is_shared() {
            return false;
        }
        self.at_mut(at).relocate_blocks(mover);
        if mover.wants(old.as_ptr(), BLOCK_LEN) {
            let (prefix, depth) = (self.at(at).prefix(), self.at(at).depth());
            // SAFETY: in our directory, hence alive; not shared, so the one count is ours, and it is given up here.
            let fresh = unsafe { Segment::moved(old) };
            self.place(fresh, prefix, depth);
            mover.note(BLOCK_LEN);
        }
        true
    }

    /// A random entry, all being equally likely. `random` must give fresh numbers. None if the table is empty.
    pub fn random(&self, mut random: impl FnMut() -> u64) -> Option<Loc> {
        if self.len == 0 {
            return None;
        }
        if self.segments == 1 && self.len <= FEW {
            let segment = self.directory[0];
            // SAFETY: in our directory, hence alive.
            let (bucket, slot) = unsafe { segment.as_ref() }.nth((random() % self.len as u64) as usize);
            return Some(Loc::new(segment, bucket, slot));
        }
        // With the usual fill of 43 to 86 % two draws suffice; a table that lost most entries may need many, then
        // the first entry at or behind a random place is taken. Four at a time wait for memory together.
        for _ in 0..16 {
            let draws: [u64; 4] = std::array::from_fn(|_| random());
            draws.iter().for_each(|draw| self.prefetch_drawn(*draw));
            if let Some(loc) = draws.iter().find_map(|draw| self.drawn(*draw)) {
                return Some(loc);
            }
        }
        let start = SegmentId(self.segment(random()).prefix());
        let mut id = start;
        loop {
            let mut candidates = Vec::new();
            self.visit_segment(id, |loc| candidates.push(loc));
            if !candidates.is_empty() {
                return Some(candidates[(random() % candidates.len() as u64) as usize]);
            }
            id = self.next_segment(id).unwrap_or(SegmentId(0));
            assert!(id != start, "a table of {} entries has none", self.len);
        }
    }

    /// The slot that a random number stands for, whether it holds an entry or not: its upper bits choose a place of
    /// the directory, its lower half a slot.
    #[inline]
    fn place_drawn(&self, draw: u64) -> Loc {
        let place = (((draw & u64::from(u32::MAX)) * (BUCKETS * L::Bucket::SLOTS) as u64) >> 32) as usize;
        let (bucket, slot) = ((place / L::Bucket::SLOTS) as u8, (place % L::Bucket::SLOTS) as u8);
        Loc::new(self.segment_ptr(draw), bucket, slot)
    }

    /// The entry in the slot that a random number stands for: one draw of [`Table::random`], which goes on until one
    /// succeeds. For owners that make many and prefetch; fails most of the time if the table is nearly empty.
    #[inline]
    pub fn drawn(&self, draw: u64) -> Option<Loc> {
        let index = self.index(draw);
        let loc = self.place_drawn(draw);
        // A segment that stands in several places is drawn as many times too often, so only its first place counts.
        let first = index == 0 || self.directory[index - 1].cast() != loc.segment;
        (first && self.at(loc).is_occupied(loc.bucket(), loc.slot())).then_some(loc)
    }

    /// Asks the processor to load what [`Table::drawn`] looks at.
    #[inline]
    pub fn prefetch_drawn(&self, draw: u64) {
        let loc = self.place_drawn(draw);
        Segment::<L>::prefetch_place(loc.segment.cast(), loc.bucket());
    }

    /// Asks the processor to load the entry that [`Table::drawn`] finds. Cheap only behind `prefetch_drawn`.
    #[inline]
    pub fn prefetch_drawn_entry(&self, draw: u64) {
        let loc = self.place_drawn(draw);
        self.at(loc).prefetch_slot(loc.bucket(), loc.slot());
    }

    /// All entries, segment by segment in hash order.
    pub fn iter(&self) -> Iter<'_, L> {
        let segment = self.directory.first().map(|first| {
            // SAFETY: in our directory, hence alive, and unchanged while the table is borrowed.
            unsafe { first.as_ref() }
        });
        let mut iter = Iter { table: self, segment, behind: None, bucket: 0, mask: 0 };
        iter.enter();
        iter
    }

    /// The segment that [`Table::free_some`] frees next; None when nothing is left.
    pub fn last_segment(&self) -> Option<SegmentId> {
        // SAFETY: in our directory, hence alive.
        self.directory.last().map(|last| SegmentId(unsafe { last.as_ref() }.prefix()))
    }

    /// Frees up to `segments` segments with all they hold; true when the table is empty and only its first
    /// segment is left. Entries go in hash order; the table stays usable for nothing but more of this and drop.
    pub fn free_some(&mut self, segments: usize) -> bool {
        for _ in 0..segments {
            let Some(&last) = self.directory.last() else { return true };
            // SAFETY: in our directory, hence alive.
            let (count, (block_bytes, dead_bytes), depth) =
                unsafe { (last.as_ref().count(), last.as_ref().room(), last.as_ref().depth()) };
            let places = 1usize << (self.depth - depth);
            self.directory.truncate(self.directory.len() - places);
            self.len -= count;
            self.block_bytes -= block_bytes;
            self.dead_bytes -= dead_bytes;
            self.segments -= 1;
            // SAFETY: its places have just left the directory, so our count is given back exactly once.
            unsafe { Segment::release(last) };
        }
        self.directory.is_empty()
    }

    /// Checks every invariant of the structure: for tests and DEBUG, O(n).
    pub fn check(&self) {
        assert_eq!(self.directory.len(), 1 << self.depth);
        let (mut len, mut segments, mut block_bytes, mut dead_bytes, mut place) = (0, 0, 0, 0, 0);
        while place < self.directory.len() {
            // SAFETY: in our directory, hence alive.
            let segment = unsafe { self.directory[place].as_ref() };
            let places = 1usize << (self.depth - segment.depth());
            assert_eq!(self.index(segment.prefix()), place, "prefix and place agree");
            assert!(self.directory[place..place + places].iter().all(|p| *p == self.directory[place]));
            segment.check(self.seed);
            len += segment.count();
            block_bytes += segment.room().0;
            dead_bytes += segment.room().1;
            segments += 1;
            place += places;
        }
        assert_eq!((len, segments), (self.len, self.segments));
        assert_eq!((block_bytes, dead_bytes), (self.block_bytes, self.dead_bytes));
    }
}

/// What only watched buckets have.
impl<L: Layout<Bucket = Watched>> Table<L> {
    /// The heat byte of an entry's slot.
    #[inline]
    pub fn heat(&self, loc: Loc) -> u8 {
        self.at(loc).heat(loc.bucket(), loc.slot())
    }

    /// Sets the heat byte. Not a change of the entry: it needs no version checked, and in a segment that a clone
    /// shares it does nothing.
    #[inline]
    pub fn set_heat(&mut self, loc: Loc, heat: u8) {
        if self.at(loc).is_shared() {
            return;
        }
        self.at_mut(loc).set_heat(loc.bucket(), loc.slot(), heat);
    }

    /// The version of the entry's bucket.
    #[inline]
    pub fn version(&self, loc: Loc) -> u32 {
        self.at(loc).version(loc.bucket())
    }

    /// Version of a bucket.
    pub fn bucket_version(&self, id: SegmentId, bucket: usize) -> u32 {
        self.segment(id.0).version(bucket as u8)
    }

    /// Marks a bucket as seen by the cut with this version.
    pub fn set_bucket_version(&mut self, id: SegmentId, bucket: usize, version: u32) {
        let loc = self.own(Loc::new(self.segment_ptr(id.0), 0, 0));
        self.at_mut(loc).set_version(bucket as u8, version);
    }
}

/// A segment, by the start of its hash range; stays meaningful across splits (it then names the first half).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId(u64);

impl SegmentId {
    /// The first segment of every table, for walks that begin.
    pub const FIRST: SegmentId = SegmentId(0);

    /// The first hash of the segment: what [`Table::split`], [`Table::merge`] and [`Table::segment_of`] take.
    pub fn hash(self) -> u64 {
        self.0
    }
}

/// See [`Table::iter`].
///
/// Entries lie scattered over the blocks of their segment, so a walk would spend most of its time waiting for one
/// after the other. With each bucket a share of the next segment is asked for instead, blocks and all.
pub struct Iter<'a, L: Layout> {
    table: &'a Table<L>,
    /// None behind the last.
    segment: Option<&'a Segment<L>>,
    /// The one behind that.
    behind: Option<&'a Segment<L>>,
    bucket: usize,
    /// Slots of the bucket that are still to come.
    mask: u32,
}

impl<L: Layout> Iter<'_, L> {
    /// Begins the bucket.
    #[inline]
    fn enter(&mut self) {
        let Some(segment) = self.segment else { return };
        if self.bucket == 0 {
            self.behind = self.table.after(segment);
        }
        self.mask = segment.occupied(self.bucket);
        if let Some(behind) = self.behind {
            behind.prefetch_share(self.bucket);
        }
    }
}

impl<'a, L: Layout> Iterator for Iter<'a, L> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        while self.mask == 0 {
            self.segment?;
            self.bucket += 1;
            if self.bucket == BUCKETS {
                self.bucket = 0;
                self.segment = self.behind;
            }
            self.enter();
        }
        let slot = self.mask.trailing_zeros();
        self.mask &= self.mask - 1;
        self.segment.map(|segment| segment.entry(self.bucket as u8, slot as u8))
    }
}

impl<L: Layout> Clone for Table<L> {
    fn clone(&self) -> Table<L> {
        let mut place = 0;
        while place < self.directory.len() {
            // SAFETY: in our directory, hence alive.
            let segment = unsafe { self.directory[place].as_ref() };
            segment.retain();
            place += 1 << (self.depth - segment.depth());
        }
        Table { directory: self.directory.clone(), layout: PhantomData, ..*self }
    }
}

impl<L: Layout> Drop for Table<L> {
    fn drop(&mut self) {
        while !self.free_some(usize::MAX >> 1) {}
    }
}

#[cfg(test)]
mod tests;
