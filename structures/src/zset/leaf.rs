//! A run of neighbouring entries in one allocation.
//!
//! ```text
//! | scores  width x n | tags  1 x n | ends  2 x n | member bytes, back to back |
//! ```
//!
//! * Scores are stored as differences to the smallest at the last coding (`base`), without the `shift` low bits
//!   that all differences lack, in the fewest bytes that hold the largest. Neighbours in a big set are close, so
//!   whole-number scores take 1-2 bytes, random doubles 5-6, equal scores none.
//! * A tag is 8 bits of the member's hash: finding a member compares 16 tags per step and one or two members.
//! * `ends[i]` is where member `i` ends among the member bytes; it begins where `i - 1` ends. Two flags share the
//!   16 bits: the member is out of line, and the score was written as -0 (which orders as 0 but prints as -0).
//! * A member longer than [`INLINE_MAX`] has no bytes here but a counted allocation in `large`, in entry order:
//!   moving its neighbours, or copying the leaf for a snapshot, does not copy it.
//!
//! The allocation grows by size class, so it is about 90 % full on average however full the leaf is: that is why leaves
//! split plainly in halves and no entries are passed between neighbours to fill them.

use super::pages::clone_with_capacity;
use super::scan::find_byte;
use crate::alloc::good_size;
use crate::moves::Mover;
use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

/// Members up to this length live in the leaf.
pub(super) const INLINE_MAX: usize = 256;
/// A leaf splits rather than grow beyond this. It may exceed it only when one insertion widens all scores.
pub(super) const LEAF_BYTES_MAX: usize = 2048;
/// A leaf smaller than this looks for a neighbour to merge with, and merges if the result is at most
/// [`LEAF_MERGED_MAX`]: far enough apart that no insertion and removal in turn split and merge for ever.
pub(super) const LEAF_BYTES_MIN: usize = LEAF_BYTES_MAX / 4;
pub(super) const LEAF_MERGED_MAX: usize = LEAF_BYTES_MAX * 3 / 4;

const END_MASK: u16 = 0x3fff;
const FLAG_LARGE: u16 = 0x8000;
const FLAG_NEGATIVE_ZERO: u16 = 0x4000;
const LARGE_BYTES: usize = size_of::<Arc<[u8]>>();
/// Tag and end: what an entry costs besides its score and bytes.
const FIXED_BYTES: usize = 3;

const _: () = assert!(LEAF_BYTES_MAX + INLINE_MAX < END_MASK as usize);

/// The score as an integer of the same order; -0 becomes 0.
#[inline]
pub(super) fn order_of(score: f64) -> u64 {
    let bits = (score + 0.0).to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

#[inline]
fn score_of(order: u64) -> f64 {
    f64::from_bits(if order >> 63 == 1 { order & !(1 << 63) } else { !order })
}

/// An entry on its way in.
#[derive(Clone, Copy)]
pub(super) struct NewEntry<'a> {
    pub(super) member: &'a [u8],
    pub(super) order: u64,
    pub(super) negative_zero: bool,
    pub(super) tag: u8,
}

impl<'a> NewEntry<'a> {
    fn is_large(&self) -> bool {
        self.member.len() > INLINE_MAX
    }

    /// What it stores among the member bytes.
    fn inline(&self) -> &'a [u8] {
        if self.is_large() { &[] } else { self.member }
    }

    /// What it adds to [`Leaf::size`], its score left out.
    fn bytes(&self) -> usize {
        FIXED_BYTES + if self.is_large() { LARGE_BYTES } else { self.member.len() }
    }

    fn flags(&self) -> u16 {
        let large = if self.is_large() { FLAG_LARGE } else { 0 };
        large | if self.negative_zero { FLAG_NEGATIVE_ZERO } else { 0 }
    }
}

#[derive(Default)]
struct Large {
    members: Vec<Arc<[u8]>>,
    heap: usize,
}

fn large_heap(member: &[u8]) -> usize {
    good_size(2 * size_of::<usize>() + member.len())
}

impl Clone for Large {
    fn clone(&self) -> Self {
        Large { members: clone_with_capacity(&self.members), heap: self.heap }
    }
}

pub(super) struct Leaf {
    buf: Vec<u8>,
    base: u64,
    large: Option<Box<Large>>,
    len: u16,
    width: u8,
    shift: u8,
}

impl Clone for Leaf {
    fn clone(&self) -> Self {
        Leaf { buf: clone_with_capacity(&self.buf), large: self.large.clone(), ..*self }
    }
}

/// The regions of a leaf, found once for many accesses.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    leaf: &'a Leaf,
    tags: &'a [u8],
    ends: &'a [[u8; 2]],
    bytes: &'a [u8],
}

impl<'a> View<'a> {
    pub(super) const EMPTY: View<'a> = View { leaf: &Leaf::EMPTY, tags: &[], ends: &[], bytes: &[] };

    #[inline(always)]
    pub(super) fn len(self) -> usize {
        self.ends.len()
    }

    #[inline(always)]
    fn end(self, at: usize) -> u16 {
        u16::from_le_bytes(self.ends[at])
    }

    #[inline(always)]
    pub(super) fn member(self, at: usize) -> &'a [u8] {
        let end = self.end(at);
        if end & FLAG_LARGE != 0 {
            return self.leaf.large_member(at);
        }
        let begin = if at == 0 { 0 } else { usize::from(self.end(at - 1) & END_MASK) };
        &self.bytes[begin..usize::from(end & END_MASK)]
    }

    /// Members and scores one after the other.
    #[inline(always)]
    pub(super) fn fold<B>(
        self,
        range: Range<usize>,
        init: B,
        f: &mut impl FnMut(B, (&'a [u8], f64)) -> B,
    ) -> B {
        self.fold_members(range, init, |result, at, member| f(result, (member, self.score(at))))
    }

    /// Positions and members one after the other.
    #[inline(always)]
    pub(super) fn fold_members<B>(
        self,
        range: Range<usize>,
        init: B,
        mut f: impl FnMut(B, usize, &'a [u8]) -> B,
    ) -> B {
        let mut begin = self.leaf.begin(range.start);
        range.fold(init, |result, at| {
            let end = self.end(at);
            let until = usize::from(end & END_MASK);
            let member =
                if end & FLAG_LARGE != 0 { self.leaf.large_member(at) } else { &self.bytes[begin..until] };
            begin = until;
            f(result, at, member)
        })
    }

    #[inline(always)]
    pub(super) fn score(self, at: usize) -> f64 {
        let score = score_of(self.leaf.order(at));
        // Only a zero can have been negative.
        if score == 0.0 && self.end(at) & FLAG_NEGATIVE_ZERO != 0 { -0.0 } else { score }
    }
}

/// How the scores of a leaf are coded.
pub(super) struct Coding {
    base: u64,
    width: u8,
    shift: u8,
}

impl Coding {
    /// The tightest coding for orders between `min` and `max` whose differences to `min` have the bits `all`.
    fn new(min: u64, max: u64, all: u64) -> Coding {
        if min == max {
            return Coding { base: min, width: 0, shift: 0 };
        }
        let shift = all.trailing_zeros();
        let bits = 64 - ((max - min) >> shift).leading_zeros();
        Coding { base: min, width: bits.div_ceil(8) as u8, shift: shift as u8 }
    }
}

/// Adds up the size of a leaf whose entries come in order, ascending or descending.
#[derive(Default)]
pub(super) struct Sizer {
    len: usize,
    /// Of all entries, their scores left out.
    bytes: usize,
    /// The order of the first entry, and the bits in which others differ from it.
    first: u64,
    all: u64,
}

impl Sizer {
    /// [`Leaf::size`] as it would be with this entry at the end.
    pub(super) fn size_with(&self, new: &NewEntry<'_>) -> usize {
        let first = if self.len == 0 { new.order } else { self.first };
        let all = self.all | first.abs_diff(new.order);
        let coding = Coding::new(first.min(new.order), first.max(new.order), all);
        self.bytes + new.bytes() + (self.len + 1) * usize::from(coding.width)
    }

    pub(super) fn add(&mut self, new: &NewEntry<'_>) {
        if self.len == 0 {
            self.first = new.order;
        }
        self.all |= self.first.abs_diff(new.order);
        self.bytes += new.bytes();
        self.len += 1;
    }
}

impl Leaf {
    pub(super) const EMPTY: Leaf = Leaf { buf: Vec::new(), base: 0, large: None, len: 0, width: 0, shift: 0 };

    /// A leaf of one entry.
    pub(super) fn of(new: &NewEntry<'_>) -> Leaf {
        let mut leaf = Leaf::EMPTY;
        leaf.insert(0, new);
        leaf
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        usize::from(self.len)
    }

    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.buf
    }

    /// What counts against [`LEAF_BYTES_MAX`].
    #[inline]
    pub(super) fn size(&self) -> usize {
        self.buf.len() + self.large.as_ref().map_or(0, |large| large.members.len() * LARGE_BYTES)
    }

    /// What this leaf holds from the allocator, the counted allocation of the node itself included.
    #[inline]
    pub(super) fn relocate(&mut self, mover: &mut Mover<'_>) {
        mover.vec(&mut self.buf);
        if let Some(large) = &mut self.large {
            let large = mover.boxed(large);
            mover.vec(&mut large.members);
            large.members.iter_mut().for_each(|member| mover.shared_bytes(member));
        }
    }

    pub(super) fn heap_bytes(&self) -> usize {
        const NODE: usize = good_size(2 * size_of::<usize>() + size_of::<Leaf>());
        let large = self.large.as_ref().map_or(0, |large| {
            good_size(size_of::<Large>()) + good_size(large.members.capacity() * LARGE_BYTES) + large.heap
        });
        NODE + good_size(self.buf.capacity()) + large
    }

    #[inline]
    fn width(&self) -> usize {
        usize::from(self.width)
    }

    #[inline]
    fn tags_at(&self) -> usize {
        self.width() * self.len()
    }

    #[inline]
    fn ends_at(&self) -> usize {
        self.tags_at() + self.len()
    }

    #[inline]
    fn bytes_at(&self) -> usize {
        self.ends_at() + 2 * self.len()
    }

    #[inline]
    fn raw_end(&self, at: usize) -> u16 {
        let here = self.ends_at() + 2 * at;
        u16::from_le_bytes(self.buf[here..here + 2].try_into().expect("two bytes"))
    }

    #[inline]
    fn begin(&self, at: usize) -> usize {
        if at == 0 { 0 } else { usize::from(self.raw_end(at - 1) & END_MASK) }
    }

    #[inline]
    pub(super) fn order(&self, at: usize) -> u64 {
        let width = self.width();
        if width == 0 {
            return self.base;
        }
        let here = width * at;
        let raw = match self.buf.get(here..here + 8) {
            Some(eight) => {
                u64::from_le_bytes(eight.try_into().expect("eight bytes")) & (u64::MAX >> (64 - 8 * width))
            }
            // Only the last score of a leaf of one or two entries is this near the end.
            None => {
                let mut eight = [0; 8];
                eight[..width].copy_from_slice(&self.buf[here..here + width]);
                u64::from_le_bytes(eight)
            }
        };
        self.base.wrapping_add(raw << self.shift)
    }

    #[inline]
    pub(super) fn score(&self, at: usize) -> f64 {
        self.view().score(at)
    }

    #[inline]
    pub(super) fn tag(&self, at: usize) -> u8 {
        self.buf[self.tags_at() + at]
    }

    #[inline]
    pub(super) fn member(&self, at: usize) -> &[u8] {
        self.view().member(at)
    }

    #[cold]
    fn large_member(&self, at: usize) -> &[u8] {
        &self.large.as_ref().expect("a large member").members[self.large_before(at)]
    }

    #[inline(always)]
    pub(super) fn view(&self) -> View<'_> {
        let (tags, rest) = self.buf[self.tags_at()..].split_at(self.len());
        let (ends, bytes) = rest.split_at(2 * self.len());
        View { leaf: self, tags, ends: ends.as_chunks().0, bytes }
    }

    #[inline]
    fn large_before(&self, at: usize) -> usize {
        if self.large.is_none() {
            return 0;
        }
        (0..at).filter(|&i| self.raw_end(i) & FLAG_LARGE != 0).count()
    }

    /// The position of `member`, whose hash has `tag`.
    #[inline]
    pub(super) fn find(&self, tag: u8, member: &[u8]) -> Option<usize> {
        let view = self.view();
        find_byte(view.tags, tag, |at| view.member(at) == member)
    }

    /// Visits the positions of the entries whose members' hashes have `tag`.
    pub(super) fn for_each_with(&self, tag: u8, mut visit: impl FnMut(usize)) {
        find_byte(self.view().tags, tag, |at| {
            visit(at);
            false
        });
    }

    /// How many entries are below the key; with `after`, also an entry equal to it.
    #[inline]
    pub(super) fn lower_bound(&self, order: u64, member: &[u8], after: bool) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = (low + high) / 2;
            let below = match self.order(middle).cmp(&order) {
                Ordering::Less => true,
                Ordering::Greater => false,
                Ordering::Equal => match self.member(middle).cmp(member) {
                    Ordering::Less => true,
                    Ordering::Equal => after,
                    Ordering::Greater => false,
                },
            };
            if below {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The difference to store for `order`, if the coding has room for it.
    #[inline]
    fn code(&self, order: u64) -> Option<u64> {
        let difference = order.checked_sub(self.base)?;
        let raw = difference >> self.shift;
        let fits = if self.width == 8 { true } else { raw >> (8 * self.width) == 0 };
        (fits && raw << self.shift == difference).then_some(raw)
    }

    fn coding_with(&self, order: u64) -> Coding {
        if self.len == 0 {
            return Coding::new(order, order, 0);
        }
        let min = order.min(self.order(0));
        let max = order.max(self.order(self.len() - 1));
        let all = (0..self.len()).fold(order - min, |all, at| all | (self.order(at) - min));
        Coding::new(min, max, all)
    }

    /// [`Leaf::size`] as it would be with one entry more.
    pub(super) fn size_with(&self, new: &NewEntry<'_>) -> usize {
        let width = match self.code(new.order) {
            Some(_) => self.width(),
            None => usize::from(self.coding_with(new.order).width),
        };
        self.size() + (self.len() + 1) * width - self.len() * self.width() + new.bytes()
    }

    fn reserve(&mut self, more: usize) {
        let needed = self.buf.len() + more;
        if needed > self.buf.capacity() {
            self.buf.reserve_exact(good_size(needed) - self.buf.len());
        }
    }

    /// Inserts before position `at`; the caller keeps the order.
    pub(super) fn insert(&mut self, at: usize, new: &NewEntry<'_>) {
        let raw = match self.code(new.order) {
            Some(raw) => raw,
            None => {
                let coding = self.coding_with(new.order);
                *self = Leaf::build(&[(&*self, 0..self.len())], Some(coding));
                self.code(new.order).expect("coded for it")
            }
        };
        let (large, inline) = (new.is_large(), new.inline());
        let (width, len) = (self.width(), self.len());
        let (tags, ends, bytes) = (self.tags_at(), self.ends_at(), self.bytes_at());
        let begin = self.begin(at);
        if large {
            let before = self.large_before(at);
            let store = self.large.get_or_insert_default();
            store.heap += large_heap(new.member);
            store.members.insert(before, Arc::from(new.member));
        }
        // Each region moves up by what is inserted below it; from the top, so nothing is overwritten.
        let old_len = self.buf.len();
        let more = width + FIXED_BYTES + inline.len();
        self.reserve(more);
        self.buf.resize(old_len + more, 0);
        let buf = &mut self.buf[..];
        buf.copy_within(bytes + begin..old_len, bytes + begin + more);
        buf.copy_within(bytes..bytes + begin, bytes + width + 3);
        buf[bytes + width + 3 + begin..][..inline.len()].copy_from_slice(inline);
        buf.copy_within(ends + 2 * at..bytes, ends + 2 * at + width + 3);
        buf.copy_within(ends..ends + 2 * at, ends + width + 1);
        let (above, _) = buf[ends + width + 1 + 2 * at..].split_at_mut(2 * (len + 1 - at));
        let end = (begin + inline.len()) as u16 | new.flags();
        above[..2].copy_from_slice(&end.to_le_bytes());
        add_to_ends(&mut above[2..], inline.len() as u16);
        buf.copy_within(tags + at..ends, tags + at + width + 1);
        buf.copy_within(tags..tags + at, tags + width);
        buf[tags + width + at] = new.tag;
        buf.copy_within(width * at..tags, width * (at + 1));
        buf[width * at..width * (at + 1)].copy_from_slice(&raw.to_le_bytes()[..width]);
        self.len += 1;
    }

    /// Removes the entries of a range that is not all of them.
    pub(super) fn remove(&mut self, range: Range<usize>) {
        if range.len() == 1 {
            self.remove_one(range.start);
        } else {
            *self = Leaf::build(&[(&*self, 0..range.start), (&*self, range.end..self.len())], None);
        }
    }

    fn remove_one(&mut self, at: usize) {
        let (width, len) = (self.width(), self.len());
        let (tags, ends, bytes) = (self.tags_at(), self.ends_at(), self.bytes_at());
        let (begin, end) = (self.begin(at), self.raw_end(at));
        let inline = usize::from(end & END_MASK) - begin;
        if end & FLAG_LARGE != 0 {
            let before = self.large_before(at);
            let store = self.large.as_mut().expect("a large member");
            let member = store.members.remove(before);
            store.heap -= large_heap(&member);
            if store.members.is_empty() {
                self.large = None;
            }
        }
        let old_len = self.buf.len();
        let less = width + FIXED_BYTES + inline;
        let buf = &mut self.buf[..];
        buf.copy_within(width * (at + 1)..tags + at, width * at);
        buf.copy_within(tags + at + 1..ends + 2 * at, tags + at - width);
        buf.copy_within(ends + 2 * (at + 1)..bytes + begin, ends + 2 * at - width - 1);
        let above = &mut buf[ends - width - 1 + 2 * at..][..2 * (len - 1 - at)];
        add_to_ends(above, (inline as u16).wrapping_neg());
        buf.copy_within(bytes + begin + inline..old_len, bytes + begin - width - 3);
        self.buf.truncate(old_len - less);
        self.len -= 1;
        // Room for an eighth more stays, so that a set that shrinks does not reallocate at every removal.
        if self.buf.len() < self.buf.capacity() / 8 * 5 {
            let wanted = good_size(self.buf.len() + self.buf.len() / 8);
            *self = Leaf { buf: copy_into(&self.buf, wanted), large: self.large.take(), ..*self };
        }
    }

    /// A leaf of these entries, which ascend and are few enough.
    pub(super) fn of_all(entries: &[NewEntry<'_>]) -> Leaf {
        let (min, max) = (entries[0].order, entries[entries.len() - 1].order);
        let coding = Coding::new(min, max, entries.iter().fold(0, |all, new| all | (new.order - min)));
        let width = usize::from(coding.width);
        let inline: usize = entries.iter().map(|new| new.inline().len()).sum();
        let total = (width + FIXED_BYTES) * entries.len() + inline;
        let mut buf = Vec::with_capacity(good_size(total));
        for new in entries {
            let raw = (new.order - coding.base) >> coding.shift;
            buf.extend_from_slice(&raw.to_le_bytes()[..width]);
        }
        buf.extend(entries.iter().map(|new| new.tag));
        let mut end = 0;
        for new in entries {
            end += new.inline().len() as u16;
            buf.extend_from_slice(&(end | new.flags()).to_le_bytes());
        }
        entries.iter().for_each(|new| buf.extend_from_slice(new.inline()));
        let mut large: Option<Box<Large>> = None;
        for new in entries.iter().filter(|new| new.is_large()) {
            let store = large.get_or_insert_default();
            store.heap += large_heap(new.member);
            store.members.push(Arc::from(new.member));
        }
        debug_assert_eq!(buf.len(), total);
        let (base, width, shift) = (coding.base, coding.width, coding.shift);
        Leaf { buf, base, large, len: entries.len() as u16, width, shift }
    }

    /// The entries of several ranges in one leaf, freshly coded and without slack.
    pub(super) fn build(parts: &[(&Leaf, Range<usize>)], coding: Option<Coding>) -> Leaf {
        let entries = || parts.iter().flat_map(|(leaf, range)| range.clone().map(move |at| (*leaf, at)));
        let len: usize = parts.iter().map(|(_, range)| range.len()).sum();
        let coding = coding.unwrap_or_else(|| {
            let min = entries().next().map_or(0, |(leaf, at)| leaf.order(at));
            let (mut max, mut all) = (min, 0);
            for (leaf, at) in entries() {
                max = leaf.order(at);
                all |= max - min;
            }
            Coding::new(min, max, all)
        });
        let width = usize::from(coding.width);
        let inline: usize =
            parts.iter().map(|(leaf, range)| leaf.begin(range.end) - leaf.begin(range.start)).sum();
        let total = (width + FIXED_BYTES) * len + inline;
        let mut built = Leaf {
            buf: Vec::with_capacity(good_size(total)),
            base: coding.base,
            large: None,
            len: len as u16,
            width: coding.width,
            shift: coding.shift,
        };
        for (leaf, at) in entries() {
            let raw = (leaf.order(at) - coding.base) >> coding.shift;
            built.buf.extend_from_slice(&raw.to_le_bytes()[..width]);
        }
        for (leaf, range) in parts {
            let tags = leaf.tags_at();
            built.buf.extend_from_slice(&leaf.buf[tags + range.start..tags + range.end]);
        }
        let mut done = 0;
        for (leaf, range) in parts {
            let first = leaf.begin(range.start);
            for at in range.clone() {
                let end = leaf.raw_end(at);
                let moved = (usize::from(end & END_MASK) - first + done) as u16 | (end & !END_MASK);
                built.buf.extend_from_slice(&moved.to_le_bytes());
            }
            done += leaf.begin(range.end) - first;
        }
        for (leaf, range) in parts {
            let bytes = leaf.bytes_at();
            built
                .buf
                .extend_from_slice(&leaf.buf[bytes + leaf.begin(range.start)..bytes + leaf.begin(range.end)]);
            if let Some(store) = &leaf.large {
                let large = &store.members[leaf.large_before(range.start)..leaf.large_before(range.end)];
                if !large.is_empty() {
                    let into = built.large.get_or_insert_default();
                    into.members.extend_from_slice(large);
                    into.heap += large.iter().map(|member| large_heap(member)).sum::<usize>();
                }
            }
        }
        debug_assert_eq!(built.buf.len(), total);
        built
    }

    /// Where to cut into two of about the same size; both have entries.
    pub(super) fn middle(&self) -> usize {
        let half = self.size() / 2;
        let per_entry = self.width() + FIXED_BYTES;
        let mut large = 0;
        let cut = (0..self.len()).find(|&at| {
            let end = self.raw_end(at);
            large += usize::from(end & FLAG_LARGE != 0);
            (at + 1) * per_entry + usize::from(end & END_MASK) + large * LARGE_BYTES >= half
        });
        cut.map_or(1, |at| at + 1).clamp(1, self.len() - 1)
    }

    /// Panics unless the entries ascend and the layout adds up.
    pub(super) fn check(&self) {
        let large = self.large_before(self.len());
        assert_eq!(large, self.large.as_ref().map_or(0, |store| store.members.len()));
        assert!(self.large.is_none() || large > 0);
        assert_eq!(self.buf.len(), self.bytes_at() + self.begin(self.len()));
        if let Some(store) = &self.large {
            assert_eq!(store.heap, store.members.iter().map(|member| large_heap(member)).sum::<usize>());
        }
        for at in 1..self.len() {
            let (low, high) = (self.order(at - 1), self.order(at));
            assert!(low < high || low == high && self.member(at - 1) < self.member(at), "entry {at}");
        }
    }
}

/// Adds to every end; flags stay, because the sums stay below them.
#[inline]
fn add_to_ends(ends: &mut [u8], more: u16) {
    for end in ends.as_chunks_mut::<2>().0 {
        *end = u16::from_le_bytes(*end).wrapping_add(more).to_le_bytes();
    }
}

fn copy_into(from: &[u8], capacity: usize) -> Vec<u8> {
    let mut copy = Vec::with_capacity(capacity);
    copy.extend_from_slice(from);
    copy
}
