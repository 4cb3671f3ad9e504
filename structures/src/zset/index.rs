//! From a member to the leaf that holds it: seven bytes per member, no member bytes.
//!
//! Linear hashing: the table grows by one bucket at a time, in order, so no insertion ever waits for a rehash of
//! everything and there is never a second table beside the first. A bucket is one small allocation,
//!
//! ```text
//! | n  2 | tags  1 x n | slots 6 x n: 28 bits leaf number, 20 bits of the hash | room |
//! ```
//!
//! sized to what it holds. A tag is the hash's top 8 bits. The slot's 20 bits are the hash's lowest: the bucket
//! number is made of some of them, so splitting a bucket needs no member to be looked at, and the rest decide
//! between equal tags: at a million members 1 lookup in 300 sees a leaf in vain.
//!
//! Slots of five bytes, without most of the hash's bits, were measured too: splitting a bucket then has to find
//! each member in its leaf, and insertion into a million members took 1.8 us where this takes 1.6 (4 KiB leaves
//! there, 2 KiB here; a busy machine). Beyond 60 million members the 20 bits are used up and buckets grow instead.
//!
//! Two members may have equal slots (bucket, tag, bits and leaf agree). Such slots are interchangeable:
//! relabelling or removing "one of them" is right whichever it is.

use super::leaf::Leaf;
use super::pages::Pages;
use super::scan::find_byte;
use crate::alloc::good_size;
use crate::hash::hash;
use crate::hint::{prefetch, prefetch_all};
use crate::moves::Mover;
use std::sync::Arc;

/// Mean members per bucket that makes the table grow.
const LOAD: usize = 64;
/// The table shrinks below this mean.
const LOAD_MIN: usize = LOAD / 4;
/// The table does not grow beyond what the bits in the slots can tell apart.
const BUCKETS_MAX: usize = 1 << HASH_BITS;
const HASH_BITS: u32 = 20;
const LEAF_BITS: u32 = 28;
/// Leaves of big sets are a quarter of 2 KiB at least, so this is beyond 128 GiB in one set.
const LEAVES_MAX: usize = 1 << LEAF_BITS;
const HASH_MASK: u64 = BUCKETS_MAX as u64 - 1;
const HEADER: usize = 2;
const ENTRY: usize = 7;
const COUNTS: usize = 2 * size_of::<usize>();

/// Eight bits: kept beside the member in its leaf and beside its slot here.
#[inline]
pub(super) fn tag_of(hash: u64) -> u8 {
    (hash >> 56) as u8
}

#[inline]
fn slot_of(hash: u64, leaf: u32) -> u64 {
    (hash & HASH_MASK) << LEAF_BITS | u64::from(leaf)
}

#[inline]
fn leaf_of(slot: u64) -> u32 {
    slot as u32 & (LEAVES_MAX as u32 - 1)
}

/// A bucket for reading.
#[derive(Clone, Copy)]
pub(super) struct Bucket<'a>(&'a [u8]);

impl<'a> Bucket<'a> {
    #[inline]
    fn len(self) -> usize {
        usize::from(u16::from_le_bytes([self.0[0], self.0[1]]))
    }

    #[inline]
    fn tags(self) -> &'a [u8] {
        &self.0[HEADER..HEADER + self.len()]
    }

    #[inline]
    fn slot(self, at: usize) -> u64 {
        let here = HEADER + self.len() + 6 * at;
        let bytes: &[u8; 6] = self.0[here..here + 6].try_into().expect("six bytes");
        let [a, b, c, d, e, f] = *bytes;
        u64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }

    pub(super) fn bytes(self) -> &'a [u8] {
        self.0
    }

    pub(super) fn prefetch_tags(self) {
        prefetch_all(&self.0[..self.0.len().min(HEADER + LOAD)]);
    }

    /// Loads the slots of the members with this tag.
    pub(super) fn prefetch_slots(self, tag: u8) {
        find_byte(self.tags(), tag, |at| {
            prefetch(&raw const self.0[HEADER + self.len() + 6 * at]);
            false
        });
    }

    #[inline]
    fn find(self, slot: u64, tag: u8) -> Option<usize> {
        find_byte(self.tags(), tag, |at| self.slot(at) == slot)
    }
}

/// What an allocation of `bytes` bucket bytes takes, counts included.
const fn heap_of(bytes: usize) -> usize {
    good_size(COUNTS + bytes)
}

/// A bucket with room for `len` entries, as many as its size class holds.
fn room_for(len: usize) -> Arc<[u8]> {
    std::iter::repeat_n(0, heap_of(HEADER + ENTRY * len) - COUNTS).collect()
}

fn write_slot(bytes: &mut [u8], at: usize, slot: u64) {
    let here = HEADER + usize::from(u16::from_le_bytes([bytes[0], bytes[1]])) + 6 * at;
    bytes[here..here + 6].copy_from_slice(&slot.to_le_bytes()[..6]);
}

/// Appends an entry; the bucket moves to the next size class when it is full.
fn push(bucket: &mut Arc<[u8]>, slot: u64, tag: u8) {
    let len = Bucket(bucket).len();
    let used = HEADER + ENTRY * len;
    if used + ENTRY > bucket.len() {
        let mut larger = room_for(len + 1);
        Arc::get_mut(&mut larger).expect("just made")[..used].copy_from_slice(&bucket[..used]);
        *bucket = larger;
    }
    let bytes = Arc::make_mut(bucket);
    bytes.copy_within(HEADER + len..used, HEADER + len + 1);
    bytes[HEADER + len] = tag;
    let count = u16::try_from(len + 1).expect("few enough members per bucket");
    bytes[..HEADER].copy_from_slice(&count.to_le_bytes());
    write_slot(bytes, len, slot);
}

/// Puts the last entry in the place of this one.
fn swap_remove(bucket: &mut Arc<[u8]>, at: usize) {
    let view = Bucket(bucket);
    let last = view.len() - 1;
    let (tag, slot, used) = (view.tags()[last], view.slot(last), HEADER + ENTRY * last);
    let bytes = Arc::make_mut(bucket);
    bytes[HEADER + at] = tag;
    write_slot(bytes, at, slot);
    bytes.copy_within(HEADER + last + 1..used + 1, HEADER + last);
    bytes[..HEADER].copy_from_slice(&(last as u16).to_le_bytes());
    if used < bytes.len() / 8 * 5 {
        let mut tight = room_for(last + last / 8);
        Arc::get_mut(&mut tight).expect("just made")[..used].copy_from_slice(&bucket[..used]);
        *bucket = tight;
    }
}

#[derive(Clone)]
pub(super) struct Index {
    buckets: Pages<[u8]>,
    len: usize,
    /// What the buckets hold, pages apart.
    heap: usize,
    seed: u64,
}

impl Index {
    pub(super) fn new(seed: u64) -> Index {
        let mut index = Index { buckets: Pages::new(), len: 0, heap: 0, seed };
        index.add_bucket(room_for(0));
        index
    }

    /// An empty index with the buckets that so many members need, each with room for its share.
    pub(super) fn with_room(seed: u64, len: usize) -> Index {
        let mut index = Index { buckets: Pages::new(), len: 0, heap: 0, seed };
        let buckets = len.div_ceil(LOAD).clamp(1, BUCKETS_MAX);
        let high = 1 << buckets.ilog2();
        for at in 0..buckets {
            // Those that this round of doubling has not reached have twice the share of the others.
            let is_split = at >= high || at + high < buckets;
            let share = len / if is_split { 2 * high } else { high };
            index.add_bucket(room_for(share));
        }
        index
    }

    pub(super) fn relocate(&mut self, mover: &mut Mover<'_>) {
        self.buckets.relocate(mover, |bucket, mover| mover.shared_bytes(bucket));
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.heap + self.buckets.heap_bytes()
    }

    #[inline]
    pub(super) fn hash(&self, member: &[u8]) -> u64 {
        hash(member, self.seed)
    }

    /// With `n` buckets and `2^k <= n < 2^(k+1)`, the low k+1 bits of the hash number the bucket, or the low k
    /// where that bucket does not exist yet.
    #[inline]
    fn bucket_of(&self, hash: u64) -> usize {
        let buckets = self.buckets.len();
        let mask = (1usize << (usize::BITS - buckets.leading_zeros())) - 1;
        let at = hash as usize & mask;
        if at < buckets { at } else { at & (mask >> 1) }
    }

    fn add_bucket(&mut self, bucket: Arc<[u8]>) {
        self.heap += heap_of(bucket.len());
        self.buckets.push(bucket);
    }

    fn change<R>(&mut self, bucket: usize, change: impl FnOnce(&mut Arc<[u8]>) -> R) -> R {
        let bucket = self.buckets.pointer_mut(bucket);
        let before = heap_of(bucket.len());
        let result = change(bucket);
        self.heap = self.heap - before + heap_of(bucket.len());
        result
    }

    /// Where members with this hash are.
    #[inline]
    pub(super) fn bucket(&self, hash: u64) -> Bucket<'_> {
        Bucket(self.buckets.get(self.bucket_of(hash)))
    }

    /// Calls `accept` with the leaves that may hold a member with this hash until it answers.
    #[inline]
    pub(super) fn find<R>(&self, hash: u64, mut accept: impl FnMut(u32) -> Option<R>) -> Option<R> {
        let bucket = self.bucket(hash);
        let wanted = slot_of(hash, 0) >> LEAF_BITS;
        let mut result = None;
        find_byte(bucket.tags(), tag_of(hash), |at| {
            let slot = bucket.slot(at);
            if slot >> LEAF_BITS == wanted {
                result = accept(leaf_of(slot));
            }
            result.is_some()
        });
        result
    }

    /// Whether a member belongs to the hash bits that [`Index::scan`] showed.
    #[inline]
    pub(super) fn has_bits(&self, member: &[u8], bits: u64) -> bool {
        self.hash(member) & HASH_MASK == bits
    }

    /// Visits the bucket at a cursor: (leaf, hash bits, tag) of its members, members that agree in all three once.
    /// The next cursor; 0 is the end.
    ///
    /// A cursor is a place in the order of the reversed hash bits. In this order a bucket is an interval, splitting
    /// one halves its interval and joining two puts the halves together, so everything before the cursor has been
    /// visited and nothing behind it, however the table has grown or shrunk since. Scores do not matter: a member
    /// that is moved about in the order of the set keeps its place here.
    pub(super) fn scan(&self, cursor: u64, mut visit: impl FnMut(u32, u64, u8)) -> u64 {
        let reverse = |bits: u64| bits.reverse_bits() >> (u64::BITS - HASH_BITS);
        let cursor = cursor & HASH_MASK;
        let hash = reverse(cursor);
        let high = 1usize << (usize::BITS - 1 - self.buckets.len().leading_zeros());
        // A bucket that has been split in this round of doubling owns one hash bit more.
        let split = (hash as usize & (high - 1)) + high < self.buckets.len();
        let width = HASH_BITS - (high.trailing_zeros() + u32::from(split));
        let bucket = self.bucket(hash);
        for (at, &tag) in bucket.tags().iter().enumerate() {
            let slot = bucket.slot(at);
            let first = bucket.find(slot, tag) == Some(at);
            if first && reverse(slot >> LEAF_BITS) >= cursor {
                visit(leaf_of(slot), slot >> LEAF_BITS, tag);
            }
        }
        ((cursor >> width) + 1) << width & HASH_MASK
    }

    pub(super) fn insert(&mut self, hash: u64, leaf: u32) {
        assert!((leaf as usize) < LEAVES_MAX, "the set has too many leaves");
        self.change(self.bucket_of(hash), |bucket| push(bucket, slot_of(hash, leaf), tag_of(hash)));
        self.len += 1;
        if self.len > self.buckets.len() * LOAD && self.buckets.len() < BUCKETS_MAX {
            self.split();
        }
    }

    /// The member moved to another leaf.
    pub(super) fn relabel(&mut self, hash: u64, old: u32, new: u32) {
        let bucket = self.buckets.pointer_mut(self.bucket_of(hash));
        let at = Bucket(bucket).find(slot_of(hash, old), tag_of(hash)).expect("an indexed member");
        write_slot(Arc::make_mut(bucket), at, slot_of(hash, new));
    }

    pub(super) fn remove(&mut self, hash: u64, leaf: u32) {
        self.change(self.bucket_of(hash), |bucket| {
            let at = Bucket(bucket).find(slot_of(hash, leaf), tag_of(hash)).expect("an indexed member");
            swap_remove(bucket, at);
        });
        self.len -= 1;
        if self.buckets.len() > 1 && self.len < self.buckets.len() * LOAD_MIN {
            self.join();
        }
    }

    /// Adds a bucket and moves to it what now belongs there.
    fn split(&mut self) {
        let buckets = self.buckets.len();
        let high = 1usize << (usize::BITS - 1 - buckets.leading_zeros());
        let bit = high as u64;
        let from = buckets - high;
        let old = Arc::clone(self.buckets.pointer_mut(from));
        let old = Bucket(&old);
        let moves = |at: usize| old.slot(at) >> LEAF_BITS & bit != 0;
        let up = (0..old.len()).filter(|&at| moves(at)).count();
        // An eighth of room: the bucket takes half as many again before its next split.
        let mut halves = [old.len() - up, up].map(|len| room_for(len + len / 8));
        for at in 0..old.len() {
            push(&mut halves[usize::from(moves(at))], old.slot(at), old.tags()[at]);
        }
        let [low, up] = halves;
        self.change(from, |bucket| *bucket = low);
        self.add_bucket(up);
    }

    /// Puts the last bucket back into the one it was split from.
    fn join(&mut self) {
        let last = self.buckets.pop().flatten().expect("a bucket");
        self.heap -= heap_of(last.len());
        let last = Bucket(&last);
        let buckets = self.buckets.len();
        let into = buckets - (1usize << (usize::BITS - 1 - buckets.leading_zeros()));
        self.change(into, |bucket| {
            for at in 0..last.len() {
                push(bucket, last.slot(at), last.tags()[at]);
            }
        });
    }

    /// Gives back up to `budget` buckets; the number given back. For taking the whole set apart.
    pub(super) fn free_some(&mut self, budget: usize) -> usize {
        let mut freed = 0;
        while freed < budget
            && let Some(bucket) = self.buckets.pop()
        {
            self.heap -= bucket.map_or(0, |bucket| heap_of(bucket.len()));
            freed += 1;
        }
        self.len = 0;
        freed
    }

    /// Panics unless the counts hold and every member has a slot with its leaf. `len` is the set's.
    pub(super) fn check(&self, len: usize, leaves: &Pages<Leaf>) {
        assert_eq!(self.len, len);
        assert_eq!(self.buckets.heap_bytes(), self.buckets.heap_bytes_slow());
        assert_eq!(self.heap, self.buckets.iter().map(|(_, bucket)| heap_of(bucket.len())).sum::<usize>());
        assert_eq!(len, self.buckets.iter().map(|(_, bucket)| Bucket(bucket).len()).sum::<usize>());
        for (number, leaf) in leaves.iter() {
            for at in 0..leaf.len() {
                let hash = self.hash(leaf.member(at));
                assert_eq!(leaf.tag(at), tag_of(hash));
                let found = self.find(hash, |leaf| (leaf as usize == number).then_some(()));
                assert!(found.is_some(), "a member of leaf {number} is not in the index");
            }
        }
    }
}
