//! A set of integers as a sorted array of the narrowest width that holds them all.
//!
//! A set of a few hundred numbers needs no hashing: a binary search over a kilobyte is as fast as a probe,
//! and a member takes 2, 4 or 8 bytes instead of a slot and a string. The array starts with 16-bit numbers
//! and is rewritten wider when a number does not fit; it never gets narrower again, because the next number
//! would likely widen it anew.
//!
//! ```text
//!   IntSet ──> | header: bytes in use, width, class | sorted little-endian integers of that width |
//! ```
//!
//! Insertion moves half the array on average, so the owner turns the set into a table at some hundreds of
//! members; at that size copying it for a clone is cheaper than sharing it would be.

use std::fmt;
use std::ops::RangeInclusive;

use crate::moves::Mover;
use crate::thin::{self, ThinBuf};

/// The most members: far above what an owner lets a sorted array grow to.
pub const LEN_MAX: usize = thin::LEN_MAX / 16;

/// See the head of the module.
pub struct IntSet {
    /// The owner's word is the width in bytes: 2, 4 or 8, or 0 while there is no allocation.
    buf: ThinBuf,
}

/// The number at `index` of an array of numbers `W` bytes wide.
#[inline]
fn read<const W: usize>(bytes: &[u8], index: usize) -> i64 {
    let raw = &bytes[index * W..][..W];
    match W {
        2 => i64::from(i16::from_le_bytes([raw[0], raw[1]])),
        4 => i64::from(i32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]])),
        _ => i64::from_le_bytes(raw.try_into().expect("the slice is eight bytes long")),
    }
}

/// How many of the numbers are less than `value`.
#[inline]
fn rank<const W: usize>(bytes: &[u8], value: i64) -> usize {
    let (mut base, mut size) = (0, bytes.len() / W);
    // The half is chosen without a branch to mispredict: the loop always runs for the full logarithm.
    while size > 1 {
        let half = size / 2;
        base += if read::<W>(bytes, base + half - 1) < value { half } else { 0 };
        size -= half;
    }
    base + usize::from(size == 1 && read::<W>(bytes, base) < value)
}

/// The narrowest width for a number.
#[inline]
fn width_of(value: i64) -> usize {
    if i16::try_from(value).is_ok() {
        2
    } else if i32::try_from(value).is_ok() {
        4
    } else {
        8
    }
}

impl IntSet {
    /// A set without members; takes no memory.
    pub const fn new() -> Self {
        Self { buf: ThinBuf::new() }
    }

    /// Bytes per member.
    #[inline]
    fn width(&self) -> usize {
        self.buf.aux()
    }

    /// How many members there are.
    #[inline]
    pub fn len(&self) -> usize {
        match self.width() {
            0 => 0,
            width => self.buf.len() >> width.trailing_zeros(),
        }
    }

    /// Whether there are no members.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the set holds from the allocator.
    #[inline]
    pub fn heap_bytes(&self) -> usize {
        self.buf.heap_bytes()
    }

    /// Gives allocations other addresses; see [`Mover`].
    pub fn relocate(&mut self, mover: &mut Mover<'_>) {
        self.buf.relocate(mover);
    }

    #[inline]
    fn at(&self, index: usize) -> i64 {
        let bytes = self.buf.bytes();
        match self.width() {
            2 => read::<2>(bytes, index),
            4 => read::<4>(bytes, index),
            _ => read::<8>(bytes, index),
        }
    }

    /// How many members are less than `value`.
    #[inline]
    pub fn rank(&self, value: i64) -> usize {
        let bytes = self.buf.bytes();
        match self.width() {
            2 => rank::<2>(bytes, value),
            4 => rank::<4>(bytes, value),
            _ => rank::<8>(bytes, value),
        }
    }

    /// The member with this number in ascending order.
    #[inline]
    pub fn get(&self, index: usize) -> Option<i64> {
        (index < self.len()).then(|| self.at(index))
    }

    /// A member chosen by a random number that the caller brings; all are equally likely as far as `random`
    /// is uniform.
    pub fn random(&self, random: u64) -> Option<i64> {
        let index = (u128::from(random) * self.len() as u128) >> 64;
        self.get(index as usize)
    }

    /// Whether `value` is a member.
    #[inline]
    pub fn contains(&self, value: i64) -> bool {
        self.get(self.rank(value)) == Some(value)
    }

    /// Adds a member; false if it was one already.
    pub fn insert(&mut self, value: i64) -> bool {
        let len = self.len();
        if width_of(value) > self.width() {
            self.widen(width_of(value));
        }
        let index = self.rank(value);
        if index < len && self.at(index) == value {
            return false;
        }
        assert!(len < LEN_MAX, "an integer set is bounded to {LEN_MAX} members");
        let width = self.width();
        let (start, end) = (index * width, len * width);
        if self.buf.capacity() < end + width {
            self.buf.fit(end + width);
        }
        self.buf.set(end + width, width);
        let bytes = self.buf.bytes_mut();
        bytes.copy_within(start..end, start + width);
        bytes[start..start + width].copy_from_slice(&value.to_le_bytes()[..width]);
        true
    }

    /// Rewrites the members `width` bytes wide.
    #[cold]
    fn widen(&mut self, width: usize) {
        let mut wide = ThinBuf::new();
        // Room for the member that does not fit the present width.
        wide.fit((self.len() + 1) * width);
        wide.set(self.len() * width, width);
        for (out, value) in wide.bytes_mut().chunks_exact_mut(width).zip(self.iter()) {
            out.copy_from_slice(&value.to_le_bytes()[..width]);
        }
        self.buf = wide;
    }

    /// Removes a member; false if it was none.
    pub fn remove(&mut self, value: i64) -> bool {
        let (index, len, width) = (self.rank(value), self.len(), self.width());
        if index >= len || self.at(index) != value {
            return false;
        }
        if len == 1 {
            self.buf = ThinBuf::new();
            return true;
        }
        let bytes = self.buf.bytes_mut();
        bytes.copy_within((index + 1) * width.., index * width);
        self.buf.set((len - 1) * width, width);
        if self.is_sparse() {
            self.buf.fit(self.buf.len());
        }
        true
    }

    /// Whether the unused part of the allocation should go back.
    fn is_sparse(&self) -> bool {
        (thin::HEADER + self.buf.len()) * 2 < self.heap_bytes()
    }

    /// The members in ascending order; the iterator runs from either end.
    pub fn iter(&self) -> Iter<'_> {
        Iter { set: self, next: 0, end: self.len() }
    }

    /// The members within a range, in ascending order.
    pub fn range(&self, range: RangeInclusive<i64>) -> Iter<'_> {
        let end = match range.end().checked_add(1) {
            Some(bound) => self.rank(bound),
            None => self.len(),
        };
        Iter { set: self, next: self.rank(*range.start()).min(end), end }
    }

    /// Panics where an invariant is broken. For tests, fuzzing and the server's self-check.
    pub fn check(&self) {
        if self.is_empty() {
            assert_eq!((self.heap_bytes(), self.width()), (0, 0), "an empty set takes no memory");
            return;
        }
        assert!(matches!(self.width(), 2 | 4 | 8) && self.buf.len().is_multiple_of(self.width()));
        assert!(!self.is_sparse());
        assert!(self.iter().is_sorted_by(|a, b| a < b), "members ascend");
    }
}

impl Default for IntSet {
    fn default() -> Self {
        Self::new()
    }
}

impl Clone for IntSet {
    fn clone(&self) -> Self {
        let mut copy = ThinBuf::new();
        copy.fit(self.buf.len());
        copy.set(self.buf.len(), self.width());
        copy.bytes_mut().copy_from_slice(self.buf.bytes());
        Self { buf: copy }
    }
}

impl fmt::Debug for IntSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self).finish()
    }
}

impl FromIterator<i64> for IntSet {
    fn from_iter<I: IntoIterator<Item = i64>>(values: I) -> Self {
        let mut set = Self::new();
        for value in values {
            set.insert(value);
        }
        set
    }
}

impl<'a> IntoIterator for &'a IntSet {
    type Item = i64;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Members in ascending order, from either end.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    set: &'a IntSet,
    next: usize,
    end: usize,
}

impl Iterator for Iter<'_> {
    type Item = i64;

    #[inline]
    fn next(&mut self) -> Option<i64> {
        if self.next == self.end {
            return None;
        }
        self.next += 1;
        Some(self.set.at(self.next - 1))
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.end - self.next, Some(self.end - self.next))
    }
}

impl DoubleEndedIterator for Iter<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<i64> {
        if self.next == self.end {
            return None;
        }
        self.end -= 1;
        Some(self.set.at(self.end))
    }
}

impl ExactSizeIterator for Iter<'_> {}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::alloc::good_size;

    /// A small generator with a fixed seed: a failure repeats.
    struct Rng(u64);

    impl Rng {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }
    }

    /// Random operations against a BTreeSet, for numbers of every width.
    #[test]
    fn model() {
        for (seed, bits) in [(1, 6), (2, 16), (3, 17), (4, 32), (5, 33), (6, 64)] {
            let mut rng = Rng(seed);
            let (mut set, mut model) = (IntSet::new(), BTreeSet::new());
            for step in 0..if cfg!(miri) { 60 } else { 6000 } {
                let mut value = rng.next() as i64 >> (64 - bits);
                if rng.next().is_multiple_of(2)
                    && let Some(&member) = model.range(value..).next()
                {
                    value = member;
                }
                assert_eq!(set.contains(value), model.contains(&value));
                if rng.next() % 100 < if step % 1000 < 600 { 70 } else { 30 } {
                    assert_eq!(set.insert(value), model.insert(value));
                } else {
                    assert_eq!(set.remove(value), model.remove(&value));
                }
                set.check();
                let other = rng.next() as i64 >> (64 - bits);
                let range = value.min(other)..=value.max(other);
                if step % 8 == 0 {
                    assert!(set.iter().eq(model.iter().copied()));
                    assert!(set.iter().rev().eq(model.iter().rev().copied()));
                    assert!(set.range(range.clone()).eq(model.range(range).copied()));
                    assert!(set.clone().iter().eq(&set));
                    let random = set.random(rng.next());
                    assert_eq!(random.is_some(), !model.is_empty());
                    assert!(random.is_none_or(|member| model.contains(&member)));
                }
            }
        }
    }

    /// The borders of the widths, and what each width costs.
    #[test]
    fn widths() {
        assert_eq!(size_of::<IntSet>(), 8);
        assert_eq!(IntSet::new().heap_bytes(), 0);
        for (extreme, width) in [
            (i64::from(i16::MAX), 2),
            (i64::from(i16::MIN), 2),
            (i64::from(i16::MAX) + 1, 4),
            (i64::from(i16::MIN) - 1, 4),
            (i64::from(i32::MAX), 4),
            (i64::from(i32::MIN), 4),
            (i64::from(i32::MAX) + 1, 8),
            (i64::from(i32::MIN) - 1, 8),
            (i64::MAX, 8),
            (i64::MIN, 8),
        ] {
            let mut set: IntSet = (-50..50).collect();
            assert!(set.insert(extreme));
            assert!(!set.insert(extreme));
            set.check();
            assert_eq!(set.heap_bytes(), good_size(8 + 101 * width));
            assert!(set.contains(extreme) && set.contains(-50) && set.contains(49) && !set.contains(50));
            assert_eq!(set.range(extreme..=extreme).len(), 1);
            assert_eq!(set.range(i64::MIN..=i64::MAX).len(), 101);
            assert!(set.remove(extreme));
            assert!(set.iter().eq(-50..50));
        }
    }

    /// Every member can be drawn, and about equally often.
    #[test]
    fn random_is_uniform() {
        let set: IntSet = (0..10).collect();
        let mut rng = Rng(9);
        let mut drawn = [0; 10];
        for _ in 0..if cfg!(miri) { 500 } else { 10_000 } {
            drawn[set.random(rng.next()).unwrap() as usize] += 1;
        }
        assert!(drawn.iter().all(|&count| count > 0));
        assert!(cfg!(miri) || drawn.iter().all(|&count| (850..1150).contains(&count)), "{drawn:?}");
    }
}
