//! Count-min sketches, as Dragonfly has them behind CMS.*.
//!
//! ```text
//! depth rows of width counters, row after row, i64 little-endian
//! ```
//!
//! An item is hashed once, with unseeded 128-bit XXH3; its counter in a row is number
//! `(low + row * high) mod 2^64 mod width`. Its count is the smallest of its counters, so it is never too low and,
//! with width e/ε and depth ln(1/δ), too high by more than ε times the total with probability at most δ.
//! (G. Cormode, S. Muthukrishnan: "An Improved Data Stream Summary: The Count-Min Sketch", 2005.)
//!
//! The layout is that of Dragonfly's snapshots (type 35). Its counters wrap around silently; ours stop at the limits.

use crate::blocks::Blocks;
use damselfly_structures::moves::Mover;
use std::fmt;
use twox_hash::XxHash3_128;

/// Most counters per row.
pub const WIDTH_MAX: u32 = 1_000_000;

/// Most rows.
pub const DEPTH_MAX: u32 = 100;

/// Why a sketch could not be made or merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CmsError {
    /// Width or depth is zero.
    Zero,
    /// Width or depth is above its limit.
    TooLarge,
    /// The error of CMS.INITBYPROB is not between 0 and 1.
    ErrorRange,
    /// The probability of CMS.INITBYPROB is not between 0 and 1.
    ProbabilityRange,
    /// Both are in range and yet give no size.
    Probability,
    /// Sketches of different sizes cannot be merged.
    Mismatch,
    /// The bytes do not describe a sketch.
    Corrupted,
}

impl fmt::Display for CmsError {
    /// The text of the error reply, without `ERR`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CmsError::Zero => "CMS: width and depth must be greater than 0",
            CmsError::TooLarge => "CMS: width must not exceed 1000000 and depth must not exceed 100",
            CmsError::ErrorRange => "CMS: error must be between 0 and 1 exclusive",
            CmsError::ProbabilityRange => "CMS: probability must be between 0 and 1 exclusive",
            CmsError::Probability => "CMS: invalid error/probability",
            CmsError::Mismatch => "CMS: dimension mismatch",
            CmsError::Corrupted => "invalid count-min sketch",
        })
    }
}

impl std::error::Error for CmsError {}

/// A count-min sketch.
#[derive(Clone, Debug)]
pub struct CountMin {
    width: u32,
    depth: u32,
    total: i64,
    counters: Blocks,
}

impl CountMin {
    /// CMS.INITBYDIM.
    pub fn by_dimensions(width: u32, depth: u32) -> Result<CountMin, CmsError> {
        if width == 0 || depth == 0 {
            return Err(CmsError::Zero);
        }
        if width > WIDTH_MAX || depth > DEPTH_MAX {
            return Err(CmsError::TooLarge);
        }
        let len = u64::from(width) * u64::from(depth) * 8;
        let counters = Blocks::zeroed(len).expect("the largest size is 800 MB");
        Ok(CountMin { width, depth, total: 0, counters })
    }

    /// CMS.INITBYPROB: a count is too high by more than `error` times the total with this probability at most.
    pub fn by_probability(error: f64, probability: f64) -> Result<CountMin, CmsError> {
        let inside = |x: f64| x > 0.0 && x < 1.0;
        if !inside(error) {
            return Err(CmsError::ErrorRange);
        }
        if !inside(probability) {
            return Err(CmsError::ProbabilityRange);
        }
        let width = (std::f64::consts::E / error).ceil();
        let depth = (1.0 / probability).ln().ceil();
        let fits = |x: f64| (1.0..=f64::from(u32::MAX)).contains(&x);
        if !fits(width) || !fits(depth) {
            return Err(CmsError::Probability);
        }
        CountMin::by_dimensions(width as u32, depth as u32)
    }

    /// A sketch from a snapshot. Larger ones than a command can make are taken, if their counters are all there.
    pub fn from_parts(width: u32, depth: u32, total: i64, counters: Blocks) -> Result<CountMin, CmsError> {
        let len = u64::from(width) * u64::from(depth);
        if len == 0 || len.checked_mul(8) != Some(counters.len() as u64) {
            return Err(CmsError::Corrupted);
        }
        Ok(CountMin { width, depth, total, counters })
    }

    /// CMS.INCRBY for one item: its new count.
    pub fn increment(&mut self, item: &[u8], by: i64) -> i64 {
        self.total = self.total.saturating_add(by);
        let mut least = i64::MAX;
        for at in self.places(item) {
            let counter = self.counters.i64_at(at).saturating_add(by);
            self.counters.set_i64(at, counter);
            least = least.min(counter);
        }
        least
    }

    /// CMS.QUERY for one item.
    pub fn query(&self, item: &[u8]) -> i64 {
        self.places(item).map(|at| self.counters.i64_at(at)).min().expect("depth is not zero")
    }

    /// CMS.MERGE: replaces the counters by the weighted sum of the sources, of which `self` may be one (as a clone).
    pub fn merge<'a>(
        &mut self,
        sources: impl IntoIterator<Item = (&'a CountMin, i64)>,
    ) -> Result<(), CmsError> {
        let mut sum = CountMin { total: 0, counters: self.zeros(), ..*self };
        for (source, weight) in sources {
            if (source.width, source.depth) != (self.width, self.depth) {
                return Err(CmsError::Mismatch);
            }
            sum.total = sum.total.saturating_add(source.total.saturating_mul(weight));
            for (offset, bytes) in source.counters.present() {
                for (index, counter) in bytes.as_chunks::<8>().0.iter().enumerate() {
                    let counter = i64::from_le_bytes(*counter);
                    if counter != 0 {
                        let at = offset / 8 + index;
                        let before = sum.counters.i64_at(at);
                        sum.counters.set_i64(at, before.saturating_add(counter.saturating_mul(weight)));
                    }
                }
            }
        }
        *self = sum;
        Ok(())
    }

    /// Counters per row.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    pub fn depth(&self) -> u32 {
        self.depth
    }

    /// Sum of all increments: CMS.INFO "count".
    pub fn total(&self) -> i64 {
        self.total
    }

    /// The counters, row after row, as stored.
    pub fn counters(&self) -> &Blocks {
        &self.counters
    }

    /// Bytes taken from the allocator.
    pub fn heap_bytes(&self) -> usize {
        self.counters.heap_bytes()
    }

    /// Gives allocations other addresses; see [`Mover`].
    pub fn relocate(&mut self, mover: &mut Mover<'_>) {
        self.counters.relocate(mover);
    }

    /// Frees up to so many blocks of counters; true when none is left. What remains in between is only good for that.
    pub fn free_some(&mut self, blocks: usize) -> bool {
        self.counters.free_some(blocks)
    }

    /// Compares the count of bytes with a fresh one. For tests and checks.
    pub fn check(&self) {
        self.counters.check();
    }

    fn zeros(&self) -> Blocks {
        Blocks::zeroed(self.counters.len() as u64).expect("as long as one that exists")
    }

    fn places(&self, item: &[u8]) -> impl Iterator<Item = usize> + use<> {
        let hash = XxHash3_128::oneshot(item);
        let (low, high) = (hash as u64, (hash >> 64) as u64);
        let width = self.width as usize;
        (0..self.depth as usize).map(move |row| {
            let place = low.wrapping_add((row as u64).wrapping_mul(high)) % width as u64;
            row * width + place as usize
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Counts are never too low, and rarely too high by more than the promised part of the total.
    #[test]
    fn keeps_its_promise() {
        let mut sketch = CountMin::by_probability(0.01, 0.01).expect("in range");
        assert_eq!((sketch.width(), sketch.depth()), (272, 5));
        let mut total = 0;
        for n in 0..2000i64 {
            let by = n % 17 + 1;
            total += by;
            let item = format!("item{n}");
            let now = sketch.increment(item.as_bytes(), by);
            assert_eq!(now, sketch.query(item.as_bytes()));
        }
        assert_eq!(sketch.total(), total);
        let mut beyond = 0;
        for n in 0..2000i64 {
            let count = sketch.query(format!("item{n}").as_bytes());
            assert!(count > n % 17);
            beyond += usize::from(count > n % 17 + 1 + total / 100);
        }
        assert!(beyond <= 20, "{beyond}");
    }

    /// A merge is the weighted sum, replaces what was there, and needs equal sizes.
    #[test]
    fn merges() {
        let mut a = CountMin::by_dimensions(50, 3).expect("in range");
        let mut b = CountMin::by_dimensions(50, 3).expect("in range");
        a.increment(b"x", 3);
        b.increment(b"x", 4);
        b.increment(b"y", 1);
        let mut merged = CountMin::by_dimensions(50, 3).expect("in range");
        merged.increment(b"gone", 1000);
        merged.merge([(&a, 2), (&b, 10)]).expect("equal sizes");
        assert_eq!((merged.query(b"x"), merged.query(b"y"), merged.total()), (46, 10, 56));
        let itself = merged.clone();
        merged.merge([(&itself, i64::MAX), (&itself, -1)]).expect("equal sizes");
        assert_eq!(merged.query(b"x"), i64::MAX - 46);
        let other = CountMin::by_dimensions(51, 3).expect("in range");
        assert_eq!(merged.merge([(&a, 1), (&other, 1)]), Err(CmsError::Mismatch));
        assert_eq!(merged.query(b"x"), i64::MAX - 46);
    }

    /// Sizes out of range, and counters that would overflow.
    #[test]
    fn absurd_input() {
        assert_eq!(CountMin::by_dimensions(0, 1).err(), Some(CmsError::Zero));
        assert_eq!(CountMin::by_dimensions(1_000_001, 1).err(), Some(CmsError::TooLarge));
        assert_eq!(CountMin::by_dimensions(1, 101).err(), Some(CmsError::TooLarge));
        assert!(CountMin::by_dimensions(WIDTH_MAX, DEPTH_MAX).expect("allowed").heap_bytes() < 1 << 20);
        for bad in [0.0, 1.0, -1.0, f64::NAN] {
            assert_eq!(CountMin::by_probability(bad, 0.1).err(), Some(CmsError::ErrorRange));
            assert_eq!(CountMin::by_probability(0.1, bad).err(), Some(CmsError::ProbabilityRange));
        }
        assert_eq!(CountMin::by_probability(1e-300, 0.1).err(), Some(CmsError::Probability));
        assert_eq!(CountMin::by_probability(1e-8, 0.1).err(), Some(CmsError::TooLarge));
        let counters = || Blocks::zeroed(80).expect("short");
        assert!(CountMin::from_parts(5, 2, 0, counters()).is_ok());
        for (width, depth) in [(5, 3), (0, 2), (u32::MAX, u32::MAX), (1 << 31, 1 << 30)] {
            let result = CountMin::from_parts(width, depth, 0, counters());
            assert_eq!(result.err(), Some(CmsError::Corrupted));
        }
        let mut sketch = CountMin::by_dimensions(1, 1).expect("in range");
        sketch.increment(b"a", i64::MAX);
        assert_eq!(sketch.increment(b"b", 1), i64::MAX);
        assert_eq!(sketch.total(), i64::MAX);
    }
}
