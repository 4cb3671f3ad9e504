//! Cuckoo filters, as Dragonfly has them behind CF.*.
//!
//! ```text
//! filter: [ bucket 0: slot slot ][ bucket 1: slot slot ] ...       a slot is one byte: a fingerprint, or 0 for empty
//! filters: [ n buckets ][ n * expansion ][ n * expansion^2 ] ...
//! ```
//!
//! An item is its 64-bit XXH3 hash h (seed as for the Bloom filter). Its fingerprint is `h % 255 + 1`, and it lives
//! in bucket `h` or in bucket `h ^ fingerprint * 0x5bd1e995`, modulo the number of buckets. That number is a power
//! of two, so from either bucket and the fingerprint the other can be found, which is what lets an item be pushed
//! aside without knowing it. (B. Fan, D. Andersen, M. Kaminsky, M. Mitzenmacher: "Cuckoo Filter: Practically Better
//! Than Bloom", 2014; the further filters are RedisBloom's.) Deleting an item that was never added may delete
//! another one with the same fingerprint; that is the nature of the structure.
//!
//! The layout is that of Dragonfly's snapshots (type 37): tests compare answers with a recorded one.

use crate::blocks::Blocks;
use crate::bloom::SEED;
use damselfly_structures::alloc::good_size;
use damselfly_structures::moves::Mover;
use std::fmt;
use twox_hash::XxHash3_64;

/// Largest capacity that CF.RESERVE takes.
pub const CAPACITY_MAX: u64 = 1 << 30;

/// Largest expansion: the next power of two still fits the sixteen bits of the stored form.
pub const EXPANSION_MAX: u16 = 32768;

/// Most filters in a chain, whatever the caller's own limit: a question asks them all.
pub const FILTERS_MAX: usize = 1024;

/// How CF.RESERVE describes a filter. The default is what CF.ADD creates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Items, before the first further filter.
    pub capacity: u64,
    /// BUCKETSIZE: slots per bucket, at least one.
    pub bucket_size: u8,
    /// MAXITERATIONS: how many items are pushed aside before giving up, at least one.
    pub max_iterations: u16,
    /// EXPANSION: how much larger each further filter is (rounded up to a power of two); 0 allows none.
    pub expansion: u16,
}

impl Default for Options {
    fn default() -> Options {
        Options { capacity: 1024, bucket_size: 2, max_iterations: 20, expansion: 1 }
    }
}

/// Why a filter could not be made or could not take an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CuckooError {
    /// Outside two buckets and 2^30 items.
    Capacity,
    /// BUCKETSIZE is zero.
    BucketSize,
    /// MAXITERATIONS is zero.
    MaxIterations,
    /// EXPANSION is above [`EXPANSION_MAX`].
    Expansion,
    /// No room, and no further filter allowed.
    Full,
    /// The bytes do not describe a filter.
    Corrupted,
}

impl fmt::Display for CuckooError {
    /// The text of the error reply, without `ERR`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CuckooError::Capacity => "CF: capacity must be in the range [2 * bucket size, 1073741824]",
            CuckooError::BucketSize => "CF: bucket size must be between 1 and 255",
            CuckooError::MaxIterations => "CF: max iterations must be between 1 and 65535",
            CuckooError::Expansion => "CF: expansion must be between 0 and 32768",
            CuckooError::Full => "Filter is full",
            CuckooError::Corrupted => "invalid cuckoo filter",
        })
    }
}

impl std::error::Error for CuckooError {}

/// The numbers that a snapshot stores besides the slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Slots per bucket.
    pub bucket_size: u8,
    /// Items pushed aside before giving up.
    pub max_iterations: u16,
    /// Growth of further filters, a power of two, or zero.
    pub expansion: u16,
    /// Buckets of the first filter, a power of two.
    pub buckets: u64,
    /// Items in the filter.
    pub items: u64,
    /// Items deleted since the last compaction.
    pub deletes: u64,
}

/// A chain of cuckoo filters.
#[derive(Clone, Debug)]
pub struct Cuckoo {
    state: State,
    filters: Vec<Blocks>,
    /// Sum of the filters' heap bytes.
    slots_heap: usize,
}

/// An item, as the filter sees it.
#[derive(Clone, Copy)]
struct Item {
    hash: u64,
    fingerprint: u8,
}

impl Item {
    fn of(bytes: &[u8]) -> Item {
        let hash = XxHash3_64::oneshot_with_seed(SEED, bytes);
        Item { hash, fingerprint: (hash % 255 + 1) as u8 }
    }
}

/// The other bucket of a fingerprint, before the modulo.
fn alternate(fingerprint: u8, bucket: u64) -> u64 {
    bucket ^ (u64::from(fingerprint) * 0x5bd1_e995)
}

impl Default for Cuckoo {
    fn default() -> Cuckoo {
        Cuckoo::new(Options::default()).expect("the default is within the limits")
    }
}

impl Cuckoo {
    /// An empty filter.
    pub fn new(options: Options) -> Result<Cuckoo, CuckooError> {
        let Options { capacity, bucket_size, max_iterations, expansion } = options;
        if bucket_size == 0 {
            return Err(CuckooError::BucketSize);
        }
        if max_iterations == 0 {
            return Err(CuckooError::MaxIterations);
        }
        if expansion > EXPANSION_MAX {
            return Err(CuckooError::Expansion);
        }
        if capacity < 2 * u64::from(bucket_size) || capacity > CAPACITY_MAX {
            return Err(CuckooError::Capacity);
        }
        let state = State {
            bucket_size,
            max_iterations,
            expansion: if expansion == 0 { 0 } else { expansion.next_power_of_two() },
            buckets: (capacity / u64::from(bucket_size)).next_power_of_two(),
            items: 0,
            deletes: 0,
        };
        let mut cuckoo = Cuckoo { state, filters: Vec::new(), slots_heap: 0 };
        let made = cuckoo.add_filter();
        assert!(made, "the largest capacity is within the limits");
        Ok(cuckoo)
    }

    /// A filter from a snapshot: its numbers and the slots of each filter, oldest first.
    pub fn from_parts(state: State, filters: Vec<Blocks>) -> Result<Cuckoo, CuckooError> {
        let slots = usize::from(state.bucket_size);
        let sane = slots > 0
            && state.max_iterations > 0
            && (state.expansion == 0 || state.expansion.is_power_of_two())
            && state.buckets.is_power_of_two()
            && (1..=FILTERS_MAX).contains(&filters.len())
            && filters
                .iter()
                .all(|filter| filter.len().is_multiple_of(slots) && (filter.len() / slots).is_power_of_two());
        if !sane {
            return Err(CuckooError::Corrupted);
        }
        let slots_heap = filters.iter().map(Blocks::heap_bytes).sum();
        Ok(Cuckoo { state, filters, slots_heap })
    }

    /// The numbers of the stored form, also those of CF.INFO.
    pub fn state(&self) -> State {
        self.state
    }

    /// The slots of each filter, oldest first.
    pub fn filters(&self) -> &[Blocks] {
        &self.filters
    }

    /// Bytes taken from the allocator. Also what CF.INFO calls "Size".
    pub fn heap_bytes(&self) -> usize {
        good_size(self.filters.capacity() * size_of::<Blocks>()) + self.slots_heap
    }

    /// Gives allocations other addresses; see [`Mover`].
    pub fn relocate(&mut self, mover: &mut Mover<'_>) {
        mover.vec(&mut self.filters);
        self.filters.iter_mut().for_each(|filter| filter.relocate(mover));
    }

    /// Frees up to so many blocks of slots; true when nothing is left. What remains in between is only good for that.
    pub fn free_some(&mut self, blocks: usize) -> bool {
        let Some(last) = self.filters.last_mut() else { return true };
        let heap = last.heap_bytes();
        let done = last.free_some(blocks);
        self.slots_heap -= heap - last.heap_bytes();
        if done {
            self.slots_heap -= last.heap_bytes();
            self.filters.pop();
        }
        self.filters.is_empty()
    }

    /// Compares the counts with fresh ones. For tests and checks.
    pub fn check(&self) {
        self.filters.iter().for_each(Blocks::check);
        assert_eq!(self.slots_heap, self.filters.iter().map(Blocks::heap_bytes).sum::<usize>());
    }

    /// CF.ADD: adds an item, again if it is there already.
    ///
    /// Room is looked for in the newest filter first; then an item of it is pushed aside; then a filter is added.
    /// Dragonfly refuses additions altogether once the chain has `cf_max_expansions` (32) filters: that is for the
    /// caller, who knows the flag.
    pub fn add(&mut self, item: &[u8]) -> Result<(), CuckooError> {
        let item = Item::of(item);
        for filter in (0..self.filters.len()).rev() {
            if let Some(slot) = self.find(filter, item, 0) {
                self.set(filter, slot, item.fingerprint);
                self.state.items += 1;
                return Ok(());
            }
        }
        if !self.push_aside(item) {
            if self.state.expansion == 0 || !self.add_filter() {
                return Err(CuckooError::Full);
            }
            let newest = self.filters.len() - 1;
            let slot = self.find(newest, item, 0).expect("a new filter is empty");
            self.set(newest, slot, item.fingerprint);
        }
        self.state.items += 1;
        Ok(())
    }

    /// CF.ADDNX: adds an item unless it seems to be there; whether it was added.
    pub fn add_new(&mut self, item: &[u8]) -> Result<bool, CuckooError> {
        if self.exists(item) {
            return Ok(false);
        }
        self.add(item).map(|()| true)
    }

    /// CF.EXISTS: whether the item was added, or seems so.
    pub fn exists(&self, item: &[u8]) -> bool {
        let item = Item::of(item);
        (0..self.filters.len()).any(|filter| self.find(filter, item, item.fingerprint).is_some())
    }

    /// CF.COUNT: how often the item was added, or seems so. Both buckets of an item may be the same one, which then
    /// counts twice, as in Dragonfly.
    pub fn count(&self, item: &[u8]) -> u64 {
        let item = Item::of(item);
        let mut count = 0;
        for (index, filter) in self.filters.iter().enumerate() {
            for bucket in self.buckets_of(index, item) {
                count += self.slots(bucket).filter(|slot| filter.get(*slot) == item.fingerprint).count();
            }
        }
        count as u64
    }

    /// CF.DEL: removes one occurrence of the item, from the newest filter that has it; whether there was one. When
    /// more than a tenth has been deleted, a chain tries to get shorter.
    pub fn delete(&mut self, item: &[u8]) -> bool {
        let item = Item::of(item);
        for filter in (0..self.filters.len()).rev() {
            if let Some(slot) = self.find(filter, item, item.fingerprint) {
                self.set(filter, slot, 0);
                self.state.items = self.state.items.saturating_sub(1);
                self.state.deletes += 1;
                if self.filters.len() > 1 && self.state.deletes > self.state.items / 10 {
                    self.compact(false);
                }
                return true;
            }
        }
        false
    }

    /// Moves items from newer filters into gaps of older ones and drops the newest when it is empty. `thorough` is
    /// CF.COMPACT: it goes on to older filters when a newer one could not be emptied.
    pub fn compact(&mut self, thorough: bool) {
        for filter in (1..self.filters.len()).rev() {
            let emptied = self.drain(filter);
            // Only the newest may go: the sizes of the others follow from their places.
            if emptied && filter == self.filters.len() - 1 {
                self.slots_heap -= self.filters[filter].heap_bytes();
                self.filters.pop();
            }
            if !emptied && !thorough {
                break;
            }
        }
        self.state.deletes = 0;
    }

    /// Moves what it can out of a filter; whether the filter is empty now.
    fn drain(&mut self, filter: usize) -> bool {
        let mut emptied = true;
        for slot in 0..self.filters[filter].len() {
            let fingerprint = self.filters[filter].get(slot);
            if fingerprint == 0 {
                continue;
            }
            // The number of the bucket stands in for the hash: older filters have fewer buckets, and both numbers
            // are powers of two.
            let item = Item { hash: (slot / usize::from(self.state.bucket_size)) as u64, fingerprint };
            match (0..filter).find_map(|older| Some((older, self.find(older, item, 0)?))) {
                Some((older, gap)) => {
                    self.set(older, gap, fingerprint);
                    self.set(filter, slot, 0);
                }
                None => emptied = false,
            }
        }
        emptied
    }

    /// The two buckets of an item in a filter.
    fn buckets_of(&self, filter: usize, item: Item) -> [usize; 2] {
        let mask = (self.filters[filter].len() / usize::from(self.state.bucket_size)) as u64 - 1;
        [item.hash & mask, alternate(item.fingerprint, item.hash) & mask].map(|bucket| bucket as usize)
    }

    fn slots(&self, bucket: usize) -> std::ops::Range<usize> {
        let size = usize::from(self.state.bucket_size);
        bucket * size..(bucket + 1) * size
    }

    /// The first slot with this content in the item's buckets.
    fn find(&self, filter: usize, item: Item, content: u8) -> Option<usize> {
        let buckets = self.buckets_of(filter, item);
        let mut slots = buckets.into_iter().flat_map(|bucket| self.slots(bucket));
        slots.find(|slot| self.filters[filter].get(*slot) == content)
    }

    fn set(&mut self, filter: usize, slot: usize, content: u8) {
        let filter = &mut self.filters[filter];
        let heap = filter.heap_bytes();
        *filter.get_mut(slot) = content;
        self.slots_heap += filter.heap_bytes() - heap;
    }

    /// Puts the item in place of another in the newest filter, that one in its other bucket, and so on. Undone if
    /// it leads nowhere. Which slot is evicted goes round the bucket, so short cycles are left again.
    fn push_aside(&mut self, item: Item) -> bool {
        let newest = self.filters.len() - 1;
        let size = usize::from(self.state.bucket_size);
        let mask = (self.filters[newest].len() / size) as u64 - 1;
        let mut bucket = item.hash & mask;
        let mut moving = item.fingerprint;
        let mut victim = 0;
        for _ in 0..self.state.max_iterations {
            std::mem::swap(self.filters[newest].get_mut(bucket as usize * size + victim), &mut moving);
            bucket = alternate(moving, bucket) & mask;
            let gap = self.slots(bucket as usize).find(|slot| self.filters[newest].get(*slot) == 0);
            if let Some(gap) = gap {
                self.set(newest, gap, moving);
                return true;
            }
            victim = (victim + 1) % size;
        }
        for _ in 0..self.state.max_iterations {
            victim = (victim + size - 1) % size;
            bucket = alternate(moving, bucket) & mask;
            std::mem::swap(self.filters[newest].get_mut(bucket as usize * size + victim), &mut moving);
        }
        assert_eq!(moving, item.fingerprint, "undoing the moves ends with the item that began them");
        false
    }

    fn add_filter(&mut self) -> bool {
        if self.filters.len() == FILTERS_MAX {
            return false;
        }
        let growth = u64::from(self.state.expansion).checked_pow(self.filters.len() as u32);
        let len = growth
            .and_then(|growth| self.state.buckets.checked_mul(growth))
            .and_then(|buckets| buckets.checked_mul(u64::from(self.state.bucket_size)));
        let Some(filter) = len.and_then(Blocks::zeroed) else { return false };
        self.slots_heap += filter.heap_bytes();
        self.filters.push(filter);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Xorshift(u64);

    impl Xorshift {
        fn below(&mut self, n: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % n
        }
    }

    /// Against a multiset: whatever was added and not deleted is found, counted at least as often, through growth,
    /// deletion and compaction; the sum of bytes is that of a fresh count.
    #[test]
    fn never_forgets() {
        let mut random = Xorshift(11);
        for (capacity, bucket_size, expansion) in [(64, 2, 1), (8, 1, 2), (1000, 4, 2), (300, 3, 4)] {
            let options = Options { capacity, bucket_size, max_iterations: 20, expansion };
            let mut cuckoo = Cuckoo::new(options).expect("sane");
            let mut model = std::collections::BTreeMap::<u64, u64>::new();
            for _ in 0..6000 {
                let item = random.below(500);
                let bytes = format!("item{item}").into_bytes();
                match random.below(10) {
                    0..5 => {
                        if cuckoo.add(&bytes).is_ok() {
                            *model.entry(item).or_default() += 1;
                        }
                    }
                    5..9 => {
                        // Only what was added may be deleted: else a twin's fingerprint would go.
                        if let Some(count) = model.get_mut(&item).filter(|count| **count > 0) {
                            assert!(cuckoo.delete(&bytes));
                            *count -= 1;
                        }
                    }
                    _ => cuckoo.compact(random.below(2) == 0),
                }
                if let Some(count) = model.get(&item) {
                    assert!(cuckoo.count(&bytes) >= *count);
                }
            }
            for (item, count) in &model {
                let bytes = format!("item{item}").into_bytes();
                assert!(cuckoo.count(&bytes) >= *count);
                assert_eq!(cuckoo.exists(&bytes), cuckoo.count(&bytes) > 0);
            }
            assert_eq!(cuckoo.state().items, model.values().sum::<u64>());
            assert_eq!(cuckoo.slots_heap, cuckoo.filters.iter().map(Blocks::heap_bytes).sum::<usize>());
        }
    }

    /// Without expansion the filter refuses when full, and a refused addition changes no slot.
    #[test]
    fn full_changes_nothing() {
        let options = Options { capacity: 16, expansion: 0, ..Options::default() };
        let mut cuckoo = Cuckoo::new(options).expect("sane");
        let mut refused = 0;
        for n in 0..200 {
            let before = cuckoo.filters()[0].to_vec();
            if cuckoo.add(format!("{n}").as_bytes()).is_err() {
                refused += 1;
                assert_eq!(cuckoo.filters()[0].to_vec(), before);
            }
        }
        assert!(refused > 100);
        assert_eq!(cuckoo.state().items + refused, 200);
        assert_eq!(cuckoo.add_new(b"not there at all"), Err(CuckooError::Full));
    }

    /// Deleting nearly everything brings a chain back to a short one.
    #[test]
    fn compaction_shortens() {
        let options = Options { capacity: 64, expansion: 2, bucket_size: 4, max_iterations: 10 };
        let mut cuckoo = Cuckoo::new(options).expect("sane");
        for n in 0..1000 {
            cuckoo.add(format!("{n}").as_bytes()).expect("grows");
        }
        assert!(cuckoo.filters().len() > 3);
        for n in 10..1000 {
            assert!(cuckoo.delete(format!("{n}").as_bytes()));
        }
        cuckoo.compact(true);
        assert_eq!(cuckoo.filters().len(), 1);
        assert!((0..10).all(|n| cuckoo.exists(format!("{n}").as_bytes())));
    }

    /// Options out of range and parts that do not fit each other.
    #[test]
    fn absurd_input() {
        let with = |change: fn(&mut Options)| {
            let mut options = Options::default();
            change(&mut options);
            Cuckoo::new(options).err()
        };
        assert_eq!(with(|o| o.capacity = 3), Some(CuckooError::Capacity));
        assert_eq!(with(|o| o.capacity = CAPACITY_MAX + 1), Some(CuckooError::Capacity));
        assert_eq!(with(|o| o.bucket_size = 0), Some(CuckooError::BucketSize));
        assert_eq!(with(|o| o.max_iterations = 0), Some(CuckooError::MaxIterations));
        assert_eq!(with(|o| o.expansion = 32769), Some(CuckooError::Expansion));
        assert_eq!(with(|o| o.capacity = CAPACITY_MAX), None);
        let state = Cuckoo::new(Options::default()).expect("sane").state();
        let parts = |state, lens: &[u64]| {
            let filters = lens.iter().map(|len| Blocks::zeroed(*len).expect("short")).collect();
            Cuckoo::from_parts(state, filters).map(|mut cuckoo| {
                cuckoo.add(b"a").expect("room");
                assert!(cuckoo.delete(b"a"));
            })
        };
        assert_eq!(parts(state, &[1024, 2048]), Ok(()));
        assert_eq!(parts(State { items: 0, deletes: 5, ..state }, &[1024]), Ok(()));
        for lens in [&[][..], &[0], &[1023], &[1022], &[1024, 6]] {
            assert_eq!(parts(state, lens), Err(CuckooError::Corrupted));
        }
        assert_eq!(parts(State { buckets: 3, ..state }, &[1024]), Err(CuckooError::Corrupted));
        assert_eq!(parts(State { expansion: 3, ..state }, &[1024]), Err(CuckooError::Corrupted));
    }
}
