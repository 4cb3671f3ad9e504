//! The k most frequent items of a stream: HeavyKeeper, behind TOPK.*.
//!
//! ```text
//! counters:     depth rows of width cells, u32 little-endian     an item has one cell in each row
//! fingerprints: the same cells: whose count it is                (not stored)
//! heap:         at most k items with their counts, the smallest on top
//! ```
//!
//! A cell counts for one item at a time. When another item comes to it, the count is lowered by one with
//! probability `decay^count`, and at zero the cell changes hands: rare items seldom take a cell from a frequent one,
//! and a frequent one soon takes a cell from a rare one. An item's count is the largest of the cells that are its
//! own. (J. Gong et al.: "HeavyKeeper: An Accurate Algorithm for Finding Top-k Elephant Flows", 2018.)
//!
//! The stored form is that of Dragonfly (snapshot type 36), which has no room for fingerprints: its own cells belong
//! to nobody, every item may decay every cell, its own too, and items counted a handful of times come and go by
//! chance. We keep the fingerprints in memory and do without them in files. After a load the items of the heap
//! claim their cells again, the largest first, and the other cells have no owner until one decays them. So what a
//! loaded sketch answers is what was stored: the heap, and for an item outside it the smallest of its counters, as
//! long as none of its cells has been claimed.
//!
//! The cell of an item in a row is the low half of 64-bit XXH3 with the row's number as seed, times width, divided
//! by 2^32. The fingerprint is the high half of the first row's hash; zero means no owner.
//!
//! Chance is handed in: `random` gives 64 uniform bits per call.

use crate::blocks::Blocks;
use damselfly_structures::alloc::good_size;
use damselfly_structures::moves::Mover;
use std::fmt;
use std::sync::Arc;
use twox_hash::XxHash3_64;

/// Most items kept.
pub const K_MAX: u32 = 100_000;

/// Most cells per row.
pub const WIDTH_MAX: u32 = 1_000_000;

/// Most rows.
pub const DEPTH_MAX: u32 = 100;

/// Largest increment of TOPK.INCRBY.
pub const INCREMENT_MAX: u32 = 100_000;

/// Cells per row when TOPK.RESERVE does not say.
pub const WIDTH_DEFAULT: u32 = 8;

/// Rows when TOPK.RESERVE does not say.
pub const DEPTH_DEFAULT: u32 = 7;

/// Decay when TOPK.RESERVE does not say.
pub const DECAY_DEFAULT: f64 = 0.9;

/// Increments up to this are decayed one by one; of larger ones this is the number of steps per halving.
const DECAY_STEPS: u32 = 64;

/// Why a sketch could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopKError {
    /// k is zero.
    ZeroK,
    /// k is above its limit.
    LargeK,
    /// Width or depth is zero.
    Zero,
    /// Width or depth is above its limit.
    TooLarge,
    /// The decay is not between 0 and 1.
    Decay,
    /// The bytes do not describe a sketch.
    Corrupted,
}

impl fmt::Display for TopKError {
    /// The text of the error reply, without `ERR`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            TopKError::ZeroK => "k must be greater than 0",
            TopKError::LargeK => "k exceeds maximum allowed value of 100000",
            TopKError::Zero => "width and depth must be greater than 0",
            TopKError::TooLarge => "width must not exceed 1000000 and depth must not exceed 100",
            TopKError::Decay => "decay must be between 0 and 1",
            TopKError::Corrupted => "invalid top-k sketch",
        })
    }
}

impl std::error::Error for TopKError {}

/// An item of the heap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The item.
    pub item: Arc<[u8]>,
    /// How often it was seen, as far as the sketch can tell.
    pub count: u32,
}

/// The most frequent items, and the counters behind them.
#[derive(Clone, Debug)]
pub struct TopK {
    k: u32,
    width: u32,
    depth: u32,
    decay: f64,
    counters: Blocks,
    fingerprints: Blocks,
    heap: Vec<Entry>,
    /// Hashes of the heap's items, in step with it: a membership test reads these eight bytes an item and seldom an
    /// item itself.
    hashes: Vec<u64>,
    /// Bytes of the heap's items.
    items_heap: usize,
}

impl TopK {
    /// TOPK.RESERVE.
    pub fn new(k: u32, width: u32, depth: u32, decay: f64) -> Result<TopK, TopKError> {
        if k == 0 {
            return Err(TopKError::ZeroK);
        }
        if k > K_MAX {
            return Err(TopKError::LargeK);
        }
        if width == 0 || depth == 0 {
            return Err(TopKError::Zero);
        }
        if width > WIDTH_MAX || depth > DEPTH_MAX {
            return Err(TopKError::TooLarge);
        }
        if !(0.0..=1.0).contains(&decay) {
            return Err(TopKError::Decay);
        }
        let cells = || Blocks::zeroed(u64::from(width) * u64::from(depth) * 4).expect("at most 400 MB");
        Ok(TopK {
            k,
            width,
            depth,
            decay,
            counters: cells(),
            fingerprints: cells(),
            heap: Vec::new(),
            hashes: Vec::new(),
            items_heap: 0,
        })
    }

    /// A sketch from a snapshot: the numbers, the items of the heap in any order, and the counters.
    pub fn from_parts(
        k: u32,
        width: u32,
        depth: u32,
        decay: f64,
        items: Vec<(Vec<u8>, u32)>,
        counters: Blocks,
    ) -> Result<TopK, TopKError> {
        let cells = u64::from(width) * u64::from(depth);
        let sane = k > 0
            && cells > 0
            && cells.checked_mul(4) == Some(counters.len() as u64)
            && (0.0..=1.0).contains(&decay)
            && items.len() <= k as usize;
        if !sane {
            return Err(TopKError::Corrupted);
        }
        let fingerprints = Blocks::zeroed(counters.len() as u64).expect("as long as the counters");
        let mut items = items;
        items.sort_by(|(a, a_count), (b, b_count)| b_count.cmp(a_count).then(a.cmp(b)));
        let mut sketch = TopK {
            k,
            width,
            depth,
            decay,
            counters,
            fingerprints,
            heap: Vec::with_capacity(items.len()),
            hashes: Vec::with_capacity(items.len()),
            items_heap: 0,
        };
        for (item, _) in &items {
            let fingerprint = sketch.fingerprint(item);
            for row in 0..depth {
                let cell = sketch.cell(item, row);
                if sketch.fingerprints.u32_at(cell) == 0 && sketch.counters.u32_at(cell) > 0 {
                    sketch.fingerprints.set_u32(cell, fingerprint);
                }
            }
        }
        // Ascending order is a heap.
        for (item, count) in items.into_iter().rev() {
            sketch.push(&item, count);
        }
        Ok(sketch)
    }

    /// TOPK.ADD (an increment of one) and TOPK.INCRBY for one item: the item that lost its place, if any.
    pub fn increment(&mut self, item: &[u8], by: u32, mut random: impl FnMut() -> u64) -> Option<Arc<[u8]>> {
        if by == 0 {
            return None;
        }
        let fingerprint = self.fingerprint(item);
        let mut count = 0;
        for row in 0..self.depth {
            let cell = self.cell(item, row);
            let before = self.counters.u32_at(cell);
            let owner = self.fingerprints.u32_at(cell);
            if owner == fingerprint || before == 0 {
                let now = before.saturating_add(by);
                self.counters.set_u32(cell, now);
                if owner != fingerprint {
                    self.fingerprints.set_u32(cell, fingerprint);
                }
                count = count.max(now);
            } else {
                let (left, rest) = self.decayed(before, by, &mut random);
                if left > 0 {
                    if left != before {
                        self.counters.set_u32(cell, left);
                    }
                } else {
                    self.counters.set_u32(cell, rest);
                    self.fingerprints.set_u32(cell, fingerprint);
                    count = count.max(rest);
                }
            }
        }
        self.rank(item, count)
    }

    /// TOPK.QUERY for one item: whether it is among the k.
    pub fn query(&self, item: &[u8]) -> bool {
        self.find(item).is_some()
    }

    /// TOPK.COUNT for one item: the count of the heap, else of the cells that are its own, else, if no cell of it
    /// has an owner (right after a load), the smallest of its counters.
    pub fn count(&self, item: &[u8]) -> u32 {
        if let Some(at) = self.find(item) {
            return self.heap[at].count;
        }
        let fingerprint = self.fingerprint(item);
        let mut own = 0;
        let mut least = u32::MAX;
        let mut owned = false;
        for row in 0..self.depth {
            let cell = self.cell(item, row);
            let count = self.counters.u32_at(cell);
            let owner = self.fingerprints.u32_at(cell);
            least = least.min(count);
            owned |= owner != 0;
            if owner == fingerprint {
                own = own.max(count);
            }
        }
        if owned { own } else { least }
    }

    /// TOPK.LIST: the items, most frequent first, equals by their bytes.
    pub fn list(&self) -> Vec<Entry> {
        let mut list = self.heap.clone();
        list.sort_unstable_by(|a, b| b.count.cmp(&a.count).then_with(|| a.item.cmp(&b.item)));
        list
    }

    /// How many items are kept.
    pub fn k(&self) -> u32 {
        self.k
    }

    /// Cells per row.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    pub fn depth(&self) -> u32 {
        self.depth
    }

    /// The base of the decay.
    pub fn decay(&self) -> f64 {
        self.decay
    }

    /// The items in the order of the heap, as stored.
    pub fn entries(&self) -> &[Entry] {
        &self.heap
    }

    /// The counters, row after row, as stored.
    pub fn counters(&self) -> &Blocks {
        &self.counters
    }

    /// Bytes taken from the allocator.
    pub fn heap_bytes(&self) -> usize {
        self.counters.heap_bytes()
            + self.fingerprints.heap_bytes()
            + good_size(self.heap.capacity() * size_of::<Entry>())
            + good_size(self.hashes.capacity() * size_of::<u64>())
            + self.items_heap
    }

    /// Gives allocations other addresses; see [`Mover`].
    pub fn relocate(&mut self, mover: &mut Mover<'_>) {
        self.counters.relocate(mover);
        self.fingerprints.relocate(mover);
        mover.vec(&mut self.heap);
        mover.vec(&mut self.hashes);
        let mut parts = mover.parts(self.heap.len());
        while let Some(at) = mover.next(&mut parts) {
            mover.shared_bytes(&mut self.heap[at].item);
        }
    }

    /// Frees up to so many blocks of cells or sixteen times as many items; true when nothing is left. What remains in
    /// between is only good for that.
    pub fn free_some(&mut self, blocks: usize) -> bool {
        const ITEMS_PER_BLOCK: usize = 16;
        let left = self.heap.len().saturating_sub(blocks * ITEMS_PER_BLOCK);
        if !self.heap.is_empty() {
            for entry in self.heap.drain(left..) {
                self.items_heap -= item_bytes(entry.item.len());
            }
            self.hashes.truncate(left);
            return false;
        }
        self.fingerprints.free_some(blocks) && self.counters.free_some(blocks)
    }

    /// Compares the counts with fresh ones, and the heap with its order. For tests and checks.
    pub fn check(&self) {
        self.counters.check();
        self.fingerprints.check();
        let items = self.heap.iter().map(|entry| item_bytes(entry.item.len()));
        assert_eq!(self.items_heap, items.sum::<usize>());
        assert_eq!(self.heap.len(), self.hashes.len());
        for (at, entry) in self.heap.iter().enumerate().skip(1) {
            assert!(self.heap[(at - 1) / 2].count <= entry.count);
        }
    }

    /// What is left of a count after so many attempts on it, and how many attempts remain once it is zero.
    ///
    /// One attempt lowers it by one with probability `decay^count`. A hundred thousand of them on a hundred rows
    /// would hold up the shard, so a large number is taken in steps, each lowering by the expected amount at its
    /// beginning: short ones near zero and while the chance changes quickly, some 700 at most.
    fn decayed(&self, count: u32, attempts: u32, random: &mut impl FnMut() -> u64) -> (u32, u32) {
        let mut left = count;
        let mut rest = attempts;
        while rest > 0 && left > 0 {
            let chance = self.decay.powf(f64::from(left));
            if chance < 1e-12 {
                return (left, 0);
            }
            let careful = f64::from(left / 16 + 1) / chance;
            let step = (rest / DECAY_STEPS).min(careful as u32).max(1);
            let expected = f64::from(step) * chance;
            let uniform = (random() >> 11) as f64 / (1u64 << 53) as f64;
            // Round up or down by chance, so that small expectations are not lost.
            let lowered = (expected + uniform).floor() as u32;
            if lowered >= left {
                // The attempt that makes the count zero is the first count of the new owner.
                let used = if step == 1 { 0 } else { step - 1 };
                return (0, (rest - used).max(1));
            }
            left -= lowered;
            rest -= step;
        }
        (left, 0)
    }

    /// Gives an item its place by its new count. A count below all of a full heap changes nothing, and most items
    /// end here without being looked for.
    fn rank(&mut self, item: &[u8], count: u32) -> Option<Arc<[u8]>> {
        let full = self.heap.len() == self.k as usize;
        if count == 0 || (full && count < self.heap[0].count) {
            return None;
        }
        if let Some(at) = self.find(item) {
            // An item that lost a cell to another may count less now than it did; it was seen all the same.
            if count > self.heap[at].count {
                self.heap[at].count = count;
                self.sink(at);
            }
            return None;
        }
        if !full {
            self.push(item, count);
            return None;
        }
        if count == self.heap[0].count {
            return None;
        }
        let evicted = std::mem::replace(&mut self.heap[0], Entry { item: Arc::from(item), count });
        self.hashes[0] = hash(item);
        self.items_heap += item_bytes(item.len());
        self.items_heap -= item_bytes(evicted.item.len());
        self.sink(0);
        Some(evicted.item)
    }

    fn find(&self, item: &[u8]) -> Option<usize> {
        let hash = hash(item);
        let same = |at: &usize| self.hashes[*at] == hash && *self.heap[*at].item == *item;
        (0..self.hashes.len()).find(same)
    }

    fn push(&mut self, item: &[u8], count: u32) {
        self.heap.push(Entry { item: Arc::from(item), count });
        self.hashes.push(hash(item));
        self.items_heap += item_bytes(item.len());
        let mut at = self.heap.len() - 1;
        while at > 0 && self.heap[(at - 1) / 2].count > self.heap[at].count {
            self.swap(at, (at - 1) / 2);
            at = (at - 1) / 2;
        }
    }

    /// Moves an entry whose count grew away from the top.
    fn sink(&mut self, mut at: usize) {
        loop {
            let children = 2 * at + 1..(2 * at + 3).min(self.heap.len());
            let Some(least) = children.min_by_key(|child| self.heap[*child].count) else { return };
            if self.heap[least].count >= self.heap[at].count {
                return;
            }
            self.swap(at, least);
            at = least;
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.hashes.swap(a, b);
    }

    fn cell(&self, item: &[u8], row: u32) -> usize {
        let hash = XxHash3_64::oneshot_with_seed(u64::from(row), item) & 0xffff_ffff;
        row as usize * self.width as usize + ((hash * u64::from(self.width)) >> 32) as usize
    }

    fn fingerprint(&self, item: &[u8]) -> u32 {
        ((hash(item) >> 32) as u32).max(1)
    }
}

fn hash(item: &[u8]) -> u64 {
    XxHash3_64::oneshot(item)
}

/// What an item of this length takes from the allocator: the bytes and the two counters of its `Arc`.
fn item_bytes(len: usize) -> usize {
    good_size(len + 2 * size_of::<usize>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chance(seed: u64) -> impl FnMut() -> u64 {
        let mut state = seed;
        move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        }
    }

    fn names(sketch: &TopK) -> Vec<String> {
        sketch.list().iter().map(|entry| String::from_utf8_lossy(&entry.item).into_owned()).collect()
    }

    /// A stream where item n comes 4000/(n+1) times, shuffled among as many items that come once: the top ten are
    /// found, in order, with counts that are close and never too high.
    #[test]
    fn finds_the_elephants() {
        for seed in 1..6 {
            let mut random = chance(seed * 0x9e37_79b9);
            let mut sketch = TopK::new(10, 200, 5, 0.9).expect("in range");
            let mut stream = Vec::new();
            for n in 0..100 {
                stream.extend(std::iter::repeat_n(format!("elephant{n:02}"), 4000 / (n + 1)));
            }
            for n in 0..stream.len() {
                stream.push(format!("mouse{n}"));
            }
            for at in (1..stream.len()).rev() {
                stream.swap(at, random() as usize % (at + 1));
            }
            for item in &stream {
                sketch.increment(item.as_bytes(), 1, &mut random);
            }
            let expected: Vec<_> = (0..10).map(|n| format!("elephant{n:02}")).collect();
            assert_eq!(names(&sketch)[..8], expected[..8], "seed {seed}");
            for entry in sketch.list().iter().take(8) {
                let n: u32 = std::str::from_utf8(&entry.item[8..]).expect("digits").parse().expect("digits");
                let real = 4000 / (n + 1);
                assert!(entry.count <= real && entry.count * 100 >= real * 95, "{} of {real}", entry.count);
                assert_eq!(sketch.count(&entry.item), entry.count);
            }
        }
    }

    /// Few items in a roomy sketch are counted exactly, and the evicted one is named.
    #[test]
    fn small_numbers_are_exact() {
        let mut random = chance(1);
        let mut sketch = TopK::new(2, 1000, 5, 0.9).expect("in range");
        assert_eq!(sketch.increment(b"a", 3, &mut random), None);
        assert_eq!(sketch.increment(b"b", 2, &mut random), None);
        assert_eq!(sketch.increment(b"c", 2, &mut random), None);
        assert_eq!(sketch.increment(b"c", 1, &mut random).as_deref(), Some(&b"b"[..]));
        assert_eq!(names(&sketch), ["a", "c"]);
        assert!(sketch.query(b"c") && !sketch.query(b"b"));
        assert_eq!((sketch.count(b"a"), sketch.count(b"b"), sketch.count(b"z")), (3, 2, 0));
        let sum: usize = sketch.entries().iter().map(|entry| item_bytes(entry.item.len())).sum();
        assert_eq!(sketch.items_heap, sum);
    }

    /// One increment by n does about what n increments by one do, also when a cell must be taken from its owner.
    #[test]
    fn large_steps_are_like_small_ones() {
        for (owner, by, decay) in [(20, 1000, 0.9), (50, 100_000, 0.9), (1000, 100_000, 0.999), (9, 64, 0.5)]
        {
            let sketch = TopK::new(1, 1, 1, decay).expect("in range");
            let mut random = chance(42);
            let average = |values: &mut dyn FnMut() -> f64| (0..200).map(|_| values()).sum::<f64>() / 200.0;
            let large = average(&mut || {
                let (left, rest) = sketch.decayed(owner, by, &mut random);
                f64::from(rest) - f64::from(left)
            });
            let mut random = chance(43);
            let small = average(&mut || {
                let (mut left, mut rest) = (owner, by);
                while rest > 0 && left > 0 {
                    let uniform = (random() >> 11) as f64 / (1u64 << 53) as f64;
                    left -= u32::from(uniform < decay.powf(f64::from(left)));
                    rest -= u32::from(left > 0);
                }
                f64::from(if left > 0 { 0 } else { rest }) - f64::from(left)
            });
            // A step is coarse by its own length, and the last one may begin in the middle of it.
            let coarse = f64::from(by) / f64::from(DECAY_STEPS) * 1.5 + 0.1 * f64::from(owner);
            assert!((large - small).abs() < coarse, "{large} and {small} for {owner}, {by}, {decay}");
        }
    }

    /// The stored form gives the same list, and counting goes on.
    #[test]
    fn round_trip() {
        let mut random = chance(5);
        let mut sketch = TopK::new(5, 100, 4, 0.9).expect("in range");
        for n in 0..20u32 {
            sketch.increment(format!("item{n}").as_bytes(), n * 3 + 1, &mut random);
        }
        let items = sketch.entries().iter().map(|entry| (entry.item.to_vec(), entry.count)).collect();
        let counters = Blocks::from_bytes(&sketch.counters().to_vec()).expect("short");
        let mut copy = TopK::from_parts(5, 100, 4, 0.9, items, counters).expect("our own");
        assert_eq!(copy.list(), sketch.list());
        for _ in 0..100 {
            copy.increment(b"item19", 1, &mut random);
            sketch.increment(b"item19", 1, &mut random);
        }
        assert_eq!(copy.count(b"item19"), sketch.count(b"item19"));
        assert_eq!(copy.count(b"item19"), 158);
    }

    /// Numbers out of range, parts that do not fit, and the most work one command can ask for.
    #[test]
    fn absurd_input() {
        assert_eq!(TopK::new(0, 8, 7, 0.9).err(), Some(TopKError::ZeroK));
        assert_eq!(TopK::new(K_MAX + 1, 8, 7, 0.9).err(), Some(TopKError::LargeK));
        assert_eq!(TopK::new(1, 0, 7, 0.9).err(), Some(TopKError::Zero));
        assert_eq!(TopK::new(1, 8, 101, 0.9).err(), Some(TopKError::TooLarge));
        for decay in [-0.1, 1.1, f64::NAN] {
            assert_eq!(TopK::new(1, 8, 7, decay).err(), Some(TopKError::Decay));
        }
        let parts = |k, width, depth, items| {
            TopK::from_parts(k, width, depth, 0.9, items, Blocks::zeroed(40).expect("short")).err()
        };
        assert_eq!(parts(1, 5, 2, vec![(b"a".to_vec(), 0)]), None);
        assert_eq!(parts(0, 5, 2, vec![]), Some(TopKError::Corrupted));
        assert_eq!(parts(1, 5, 3, vec![]), Some(TopKError::Corrupted));
        assert_eq!(parts(1, u32::MAX, u32::MAX, vec![]), Some(TopKError::Corrupted));
        assert_eq!(parts(1, 5, 2, vec![(vec![], 1), (vec![1], 1)]), Some(TopKError::Corrupted));
        for decay in [0.0, 0.5, 0.999_99, 1.0] {
            let mut random = chance(9);
            let mut sketch = TopK::new(3, 1, DEPTH_MAX, decay).expect("in range");
            for n in 0..50u32 {
                sketch.increment(&n.to_le_bytes(), INCREMENT_MAX, &mut random);
            }
            assert_eq!(sketch.increment(b"", 0, &mut random), None);
        }
    }
}
