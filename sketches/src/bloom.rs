//! Scalable Bloom filters, as Dragonfly has them behind BF.*.
//!
//! ```text
//! filters: [ 512 bits ][ 1024 bits ][ 2048 bits ] ...    each with its own number of hashes
//!                                        ^ additions go to the last; questions go to all
//! ```
//!
//! A filter is a power of two of bits, at least 512. An item is hashed once, with 128-bit XXH3 (seed
//! `0xc6a4a7935bd1e995`), and bit number i of it is `low + i * high` modulo the length, counted from the lowest bit
//! of the first byte. The error rate fixes the bits per entry, `-ln(p) / ln(2)^2`, and the number of hashes,
//! that times `ln 2` rounded up. When the last filter has taken as many items as its bits are good for, another is
//! added, with half the error rate and `grow factor` times the room, so that the sum of all rates stays below the
//! one asked for: the first filter already gets half of it. (P. Almeida, C. Baquero, N. Preguiça, D. Hutchison:
//! "Scalable Bloom Filters", 2007.)
//!
//! The layout is the one of Dragonfly's snapshots (types 33 and 34), and [`Bloom::dump`] and [`Bloom::load`] speak
//! the format of its BF.SCANDUMP, so a filter can move in either direction. The option not to grow is ours (it is
//! RedisBloom's NONSCALING); Dragonfly has no place for it in a file, which [`Bloom::options`] is about.

use crate::blocks::{Blocks, LEN_MAX};
use damselfly_structures::alloc::good_size;
use damselfly_structures::moves::Mover;
use std::f64::consts::LN_2;
use std::fmt;
use twox_hash::XxHash3_128;

/// Seed of the hash: the multiplier of MurmurHash2.
pub(crate) const SEED: u64 = 0xc6a4_a793_5bd1_e995;

/// Error rate of a filter that BF.ADD creates.
pub const ERROR_RATE_DEFAULT: f64 = 0.01;

/// Growth of a filter that was reserved without EXPANSION.
pub const EXPANSION_DEFAULT: u32 = 2;

/// The largest rate that a stored filter may carry, and the one above which a rate has no effect.
const RATE_MAX: f64 = 0.5;

/// Each further filter gets this part of the last one's rate.
const TIGHTENING: f64 = 0.5;

const BITS_MIN: u64 = 512;

/// Most bytes in one piece of [`Bloom::dump`].
pub const DUMP_PIECE_MAX: usize = 16 << 20;

const DUMP_VERSION: u32 = 1;
const DUMP_HEADER_LEN: usize = 12;
const DUMP_FILTER_HEADER_LEN: usize = 44;

/// Why a filter could not be made, changed or loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BloomError {
    /// The error rate is not above 0 and below 0.5.
    ErrorRate,
    /// More than eight GiB of bits, or an expansion below one.
    TooLarge,
    /// The filter may not grow and is full.
    Full,
    /// Between the first and the second piece of a load there is nothing to ask yet.
    Loading,
    /// The bytes do not describe a filter.
    Corrupted,
    /// A piece of a load does not continue what was loaded before.
    OutOfRange,
}

impl fmt::Display for BloomError {
    /// The text of the error reply, without `ERR`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BloomError::ErrorRate => "error rate is out of range",
            BloomError::TooLarge => "filter is too large",
            BloomError::Full => "non scaling filter is full",
            BloomError::Loading => "bloom filter load in progress",
            BloomError::Corrupted => "INVALIDOBJ invalid bloom dump payload",
            BloomError::OutOfRange => "index out of range",
        })
    }
}

impl std::error::Error for BloomError {}

/// One filter of the chain.
#[derive(Clone, Debug)]
pub struct Filter {
    bits: Blocks,
    hashes: u8,
}

impl Filter {
    /// A filter from its stored bytes: a power of two of them, and at least one hash.
    pub fn new(hashes: u64, bytes: Blocks) -> Result<Filter, BloomError> {
        if !bytes.len().is_power_of_two() {
            return Err(BloomError::Corrupted);
        }
        match u8::try_from(hashes) {
            Ok(hashes @ 1..) => Ok(Filter { bits: bytes, hashes }),
            _ => Err(BloomError::Corrupted),
        }
    }

    /// An empty filter for so many entries, or `None` if it would be too large or need too many hashes.
    fn for_entries(entries: f64, rate: f64) -> Option<Filter> {
        let per_entry = bits_per_entry(rate);
        let hashes = (LN_2 * per_entry).ceil();
        let bits = (entries * per_entry).ceil();
        if hashes > f64::from(u8::MAX) || bits > LEN_MAX as f64 * 8.0 {
            return None;
        }
        let bits = (bits as u64).max(BITS_MIN).next_power_of_two();
        Some(Filter { bits: Blocks::zeroed(bits / 8)?, hashes: hashes as u8 })
    }

    /// Number of bits set and asked per item.
    pub fn hashes(&self) -> u8 {
        self.hashes
    }

    /// The bits, eight to a byte from the lowest.
    pub fn bytes(&self) -> &Blocks {
        &self.bits
    }

    /// Items that the bits are good for at this rate.
    fn capacity(&self, rate: f64) -> u64 {
        ((self.bits.len() * 8) as f64 / bits_per_entry(rate)) as u64
    }

    fn positions(&self, hash: Hash) -> impl Iterator<Item = usize> + use<> {
        let mask = (self.bits.len() as u64 * 8) - 1;
        let mut at = hash.low;
        (0..self.hashes).map(move |_| {
            let position = at & mask;
            at = at.wrapping_add(hash.high);
            position as usize
        })
    }

    fn contains(&self, hash: Hash) -> bool {
        self.positions(hash).all(|bit| self.bits.get(bit / 8) & 1 << (bit % 8) != 0)
    }

    /// Sets the bits; whether any was new.
    fn insert(&mut self, hash: Hash) -> bool {
        let mut new = false;
        for bit in self.positions(hash) {
            let mask = 1 << (bit % 8);
            // Looking first keeps a shared block shared when nothing changes.
            if self.bits.get(bit / 8) & mask == 0 {
                *self.bits.get_mut(bit / 8) |= mask;
                new = true;
            }
        }
        new
    }
}

fn bits_per_entry(rate: f64) -> f64 {
    -rate.min(RATE_MAX).ln() / (LN_2 * LN_2)
}

#[derive(Clone, Copy)]
struct Hash {
    low: u64,
    high: u64,
}

impl Hash {
    fn of(item: &[u8]) -> Hash {
        let hash = XxHash3_128::oneshot_with_seed(SEED, item);
        Hash { low: hash as u64, high: (hash >> 64) as u64 }
    }
}

/// Everything about a filter that a snapshot stores besides the bits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct State {
    /// How much larger the next filter is.
    pub grow_factor: f64,
    /// Error rate of the last filter.
    pub error_rate: f64,
    /// Capacities of all filters but the last.
    pub prev_size: u64,
    /// Items in the last filter.
    pub current_size: u64,
    /// Capacity of the last filter.
    pub max_capacity: u64,
}

/// A Bloom filter that grows.
#[derive(Clone, Debug)]
pub struct Bloom {
    filters: Vec<Filter>,
    state: State,
    scaling: bool,
    /// Sum of the filters' heap bytes.
    bits_heap: usize,
}

impl Default for Bloom {
    /// What BF.ADD creates: as small as a filter can be, and it grows.
    fn default() -> Bloom {
        let filter = Bloom::new(ERROR_RATE_DEFAULT, 0, Some(EXPANSION_DEFAULT));
        filter.expect("a small filter is within the limits")
    }
}

impl Bloom {
    /// An empty filter. `expansion` is how much each further filter grows; `None` makes the filter refuse items
    /// when full.
    pub fn new(error_rate: f64, capacity: u64, expansion: Option<u32>) -> Result<Bloom, BloomError> {
        if !(error_rate > 0.0 && error_rate < RATE_MAX) {
            return Err(BloomError::ErrorRate);
        }
        let grow_factor = f64::from(expansion.unwrap_or(1));
        if grow_factor < 1.0 {
            return Err(BloomError::TooLarge);
        }
        let rate = error_rate * TIGHTENING;
        let first = Filter::for_entries(capacity as f64, rate).ok_or(BloomError::TooLarge)?;
        let state = State {
            grow_factor,
            error_rate: rate,
            prev_size: 0,
            current_size: 0,
            max_capacity: first.capacity(rate),
        };
        let bits_heap = first.bits.heap_bytes();
        Ok(Bloom { filters: vec![first], state, scaling: expansion.is_some(), bits_heap })
    }

    /// A filter from a snapshot. `options` is the number that the stored form begins with: zero, or one for a
    /// filter that does not grow. No filters at all is a load that had only begun.
    pub fn from_parts(options: u64, state: State, filters: Vec<Filter>) -> Result<Bloom, BloomError> {
        let rate_fits = match filters.is_empty() {
            true => state.error_rate == 0.0,
            false => state.error_rate > 0.0 && state.error_rate <= RATE_MAX,
        };
        if options > 1 || !(1.0..f64::INFINITY).contains(&state.grow_factor) || !rate_fits {
            return Err(BloomError::Corrupted);
        }
        let bits_heap = filters.iter().map(|filter| filter.bits.heap_bytes()).sum();
        Ok(Bloom { filters, state, scaling: options == 0, bits_heap })
    }

    /// Adds an item; whether it was new. "Not new" may be a mistake, at the error rate.
    pub fn add(&mut self, item: &[u8]) -> Result<bool, BloomError> {
        let hash = Hash::of(item);
        let Some((last, before)) = self.filters.split_last_mut() else { return Err(BloomError::Loading) };
        if before.iter().any(|filter| filter.contains(hash)) {
            return Ok(false);
        }
        if !self.scaling && self.state.current_size >= self.state.max_capacity {
            return if last.contains(hash) { Ok(false) } else { Err(BloomError::Full) };
        }
        let heap = last.bits.heap_bytes();
        let new = last.insert(hash);
        self.bits_heap += last.bits.heap_bytes() - heap;
        if new {
            self.state.current_size += 1;
            if self.scaling && self.state.current_size >= self.state.max_capacity {
                self.grow();
            }
        }
        Ok(new)
    }

    /// Whether the item was added, or seems so.
    pub fn exists(&self, item: &[u8]) -> Result<bool, BloomError> {
        if self.filters.is_empty() {
            return Err(BloomError::Loading);
        }
        let hash = Hash::of(item);
        // The last filters are the largest and hold most.
        Ok(self.filters.iter().rev().any(|filter| filter.contains(hash)))
    }

    /// Appends a filter. If the limits do not allow one more, the last goes on filling and errors become likelier:
    /// that is some 250 halvings of the rate, or eight GiB, away.
    fn grow(&mut self) {
        let rate = self.state.error_rate * TIGHTENING;
        let entries = self.state.max_capacity as f64 * self.state.grow_factor;
        let Some(filter) = Filter::for_entries(entries, rate) else { return };
        self.state = State {
            grow_factor: self.state.grow_factor,
            error_rate: rate,
            prev_size: self.state.prev_size.saturating_add(self.state.max_capacity),
            current_size: 0,
            max_capacity: filter.capacity(rate),
        };
        self.bits_heap += filter.bits.heap_bytes();
        self.filters.push(filter);
    }

    /// The number that goes first in the stored form. Dragonfly knows only zero, so it refuses a filter that does
    /// not grow rather than letting it grow.
    pub fn options(&self) -> u64 {
        u64::from(!self.scaling)
    }

    /// The numbers of the stored form.
    pub fn state(&self) -> State {
        self.state
    }

    /// The chain, oldest first.
    pub fn filters(&self) -> &[Filter] {
        &self.filters
    }

    /// BF.INFO "Capacity": items that fit before the next filter is added.
    pub fn capacity(&self) -> u64 {
        self.state.prev_size.saturating_add(self.state.max_capacity)
    }

    /// BF.INFO "Number of items inserted".
    pub fn items(&self) -> u64 {
        self.state.prev_size.saturating_add(self.state.current_size)
    }

    /// BF.INFO "Expansion rate"; `None` if the filter does not grow.
    pub fn expansion(&self) -> Option<u64> {
        self.scaling.then_some(self.state.grow_factor as u64)
    }

    /// Bytes taken from the allocator. Also what BF.INFO calls "Size".
    pub fn heap_bytes(&self) -> usize {
        good_size(self.filters.capacity() * size_of::<Filter>()) + self.bits_heap
    }

    /// Gives allocations other addresses; see [`Mover`].
    pub fn relocate(&mut self, mover: &mut Mover<'_>) {
        mover.vec(&mut self.filters);
        self.filters.iter_mut().for_each(|filter| filter.bits.relocate(mover));
    }

    /// Frees up to so many blocks of bits; true when nothing is left. What remains in between is only good for that.
    pub fn free_some(&mut self, blocks: usize) -> bool {
        let Some(last) = self.filters.last_mut() else { return true };
        let heap = last.bits.heap_bytes();
        let done = last.bits.free_some(blocks);
        self.bits_heap -= heap - last.bits.heap_bytes();
        if done {
            self.bits_heap -= last.bits.heap_bytes();
            self.filters.pop();
        }
        self.filters.is_empty()
    }

    /// Compares the counts with fresh ones. For tests and checks.
    pub fn check(&self) {
        self.filters.iter().for_each(|filter| filter.bits.check());
        assert_eq!(self.bits_heap, self.filters.iter().map(|filter| filter.bits.heap_bytes()).sum::<usize>());
    }

    /// One piece of BF.SCANDUMP: the next cursor and the bytes. Cursor 0 asks for the first piece and is returned,
    /// with no bytes, after the last.
    ///
    /// ```text
    /// cursor 1: version u32 | grow factor f64
    /// then per filter, cut into pieces of at most 16 MiB:
    ///   hashes u32 | length u64 | rate f64 | max capacity u64 | current size u64 | previous size u64 | bits
    /// ```
    /// The cursor is one more than the offset into the second part of what was sent so far.
    pub fn dump(&self, cursor: u64) -> Result<(u64, Vec<u8>), BloomError> {
        if self.filters.is_empty() {
            return Err(BloomError::Loading);
        }
        if cursor == 0 {
            let mut header = Vec::with_capacity(DUMP_HEADER_LEN);
            header.extend_from_slice(&DUMP_VERSION.to_le_bytes());
            header.extend_from_slice(&self.state.grow_factor.to_le_bytes());
            return Ok((1, header));
        }
        let Some((index, at)) = self.locate(cursor - 1) else { return Ok((0, Vec::new())) };
        let Some(filter) = self.filters.get(index) else { return Ok((0, Vec::new())) };
        let mut piece = Vec::new();
        let start = if at == 0 {
            piece.extend_from_slice(&u32::from(filter.hashes).to_le_bytes());
            piece.extend_from_slice(&(filter.bits.len() as u64).to_le_bytes());
            piece.extend_from_slice(&self.state.error_rate.to_le_bytes());
            for number in [self.state.max_capacity, self.state.current_size, self.state.prev_size] {
                piece.extend_from_slice(&number.to_le_bytes());
            }
            0
        } else if at < DUMP_FILTER_HEADER_LEN {
            // A cursor into the middle of a header is none that we gave.
            return Ok((0, Vec::new()));
        } else {
            at - DUMP_FILTER_HEADER_LEN
        };
        for slice in filter.bits.slices(start..start + DUMP_PIECE_MAX - piece.len()) {
            piece.extend_from_slice(slice);
        }
        Ok((cursor + piece.len() as u64, piece))
    }

    /// The filter and the offset in its part of the dump where `offset` lies; one past the last filter at the end.
    fn locate(&self, mut offset: u64) -> Option<(usize, usize)> {
        for (index, filter) in self.filters.iter().enumerate() {
            let span = (DUMP_FILTER_HEADER_LEN + filter.bits.len()) as u64;
            if offset < span {
                return Some((index, offset as usize));
            }
            offset -= span;
        }
        (offset == 0).then_some((self.filters.len(), 0))
    }

    /// Begins a load: the piece with cursor 1 makes a filter without bits, replacing whatever the key held.
    pub fn load_header(piece: &[u8]) -> Result<Bloom, BloomError> {
        let Ok(piece) = <[u8; DUMP_HEADER_LEN]>::try_from(piece) else { return Err(BloomError::Corrupted) };
        let mut fields = Fields(&piece);
        if fields.u32() != DUMP_VERSION {
            return Err(BloomError::Corrupted);
        }
        let state = State {
            grow_factor: f64::from_bits(fields.u64()),
            error_rate: 0.0,
            prev_size: 0,
            current_size: 0,
            max_capacity: 0,
        };
        Bloom::from_parts(0, state, Vec::new())
    }

    /// Continues a load with a piece and the cursor that came with it.
    pub fn load(&mut self, cursor: u64, piece: &[u8]) -> Result<(), BloomError> {
        let start = cursor.checked_sub(piece.len() as u64).and_then(|at| at.checked_sub(1));
        let (index, at) = start.and_then(|at| self.locate(at)).ok_or(BloomError::OutOfRange)?;
        let Some(filter) = self.filters.get_mut(index) else { return self.load_filter(piece) };
        let at = at.checked_sub(DUMP_FILTER_HEADER_LEN).ok_or(BloomError::OutOfRange)?;
        let heap = filter.bits.heap_bytes();
        if !filter.bits.write(at, piece) {
            return Err(BloomError::OutOfRange);
        }
        self.bits_heap += filter.bits.heap_bytes() - heap;
        Ok(())
    }

    fn load_filter(&mut self, piece: &[u8]) -> Result<(), BloomError> {
        let Some((header, bytes)) = piece.split_at_checked(DUMP_FILTER_HEADER_LEN) else {
            return Err(BloomError::OutOfRange);
        };
        let mut fields = Fields(header);
        let hashes = fields.u32();
        let len = fields.u64();
        let state = State {
            grow_factor: self.state.grow_factor,
            error_rate: f64::from_bits(fields.u64()),
            max_capacity: fields.u64(),
            current_size: fields.u64(),
            prev_size: fields.u64(),
        };
        let sane =
            state.error_rate > 0.0 && state.error_rate <= RATE_MAX && state.current_size < state.max_capacity;
        let mut bits = Blocks::zeroed(len).ok_or(BloomError::OutOfRange)?;
        if !sane || !bits.write(0, bytes) {
            return Err(BloomError::OutOfRange);
        }
        let filter = Filter::new(u64::from(hashes), bits).map_err(|_| BloomError::OutOfRange)?;
        self.state = state;
        self.bits_heap += filter.bits.heap_bytes();
        self.filters.push(filter);
        Ok(())
    }
}

/// Reads little-endian numbers off the front of bytes that were measured before.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u32(&mut self) -> u32 {
        let (head, rest) = self.0.split_first_chunk().expect("the length was checked");
        self.0 = rest;
        u32::from_le_bytes(*head)
    }

    fn u64(&mut self) -> u64 {
        let (head, rest) = self.0.split_first_chunk().expect("the length was checked");
        self.0 = rest;
        u64::from_le_bytes(*head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: u32) -> Vec<u8> {
        format!("item{n}").into_bytes()
    }

    /// No item is ever forgotten while the filter grows, the error rate holds within a factor of two, and the count
    /// of bytes is that of a fresh sum. The factor is the format's: with a power of two of bits, an item whose
    /// `high` is a multiple of eight, say, visits an eighth of them only.
    #[test]
    fn grows_and_keeps_its_rate() {
        for (rate, capacity, expansion) in [(0.01, 10, 2), (0.001, 1000, 2), (0.1, 1, 1), (0.01, 100, 4)] {
            let mut bloom = Bloom::new(rate, capacity, Some(expansion)).expect("sane");
            let mut added = 0;
            for n in 0..20_000 {
                added += u64::from(bloom.add(&name(n)).expect("not loading"));
            }
            assert!((0..20_000).all(|n| bloom.exists(&name(n)).expect("not loading")));
            assert_eq!(bloom.items(), added);
            let wrong = (20_000..40_000).filter(|n| bloom.exists(&name(*n)).expect("not loading")).count();
            assert!(wrong as f64 <= 2.0 * rate * 20_000.0, "{wrong} of 20000 at {rate}");
            let heap: usize = bloom.filters.iter().map(|filter| filter.bits.heap_bytes()).sum();
            assert_eq!(bloom.bits_heap, heap);
        }
    }

    /// A filter that may not grow takes its capacity and then refuses, but still knows what it has.
    #[test]
    fn full_is_an_error() {
        let mut bloom = Bloom::new(0.01, 40, None).expect("sane");
        let mut n = 0;
        let refused = loop {
            if let Err(error) = bloom.add(&name(n)) {
                break error;
            }
            n += 1;
        };
        assert_eq!(refused, BloomError::Full);
        assert_eq!(bloom.items(), bloom.capacity());
        assert!(n >= 40);
        assert_eq!(bloom.add(&name(0)), Ok(false));
        assert_eq!(bloom.options(), 1);
    }

    /// A dump loads to the same bits and the same numbers; a clone taken before does not change.
    #[test]
    fn dump_and_load() {
        let mut bloom = Bloom::new(0.01, 10, Some(2)).expect("sane");
        for n in 0..5000 {
            bloom.add(&name(n)).expect("not loading");
        }
        let (mut cursor, header) = bloom.dump(0).expect("not loading");
        assert_eq!(cursor, 1);
        let mut copy = Bloom::load_header(&header).expect("our own");
        assert_eq!(copy.exists(b"x"), Err(BloomError::Loading));
        assert_eq!(copy.add(b"x"), Err(BloomError::Loading));
        loop {
            let (next, piece) = bloom.dump(cursor).expect("not loading");
            if next == 0 {
                break;
            }
            // In two halves, as after a retry in the middle of a piece.
            let first = piece.len() - piece.len() / 3;
            copy.load(next - (piece.len() - first) as u64, &piece[..first]).expect("our own");
            copy.load(next, &piece[first..]).expect("our own");
            cursor = next;
        }
        assert_eq!(copy.state(), bloom.state());
        assert_eq!(copy.filters().len(), bloom.filters().len());
        for (copy, original) in copy.filters().iter().zip(bloom.filters()) {
            assert_eq!(copy.hashes(), original.hashes());
            assert_eq!(copy.bytes().to_vec(), original.bytes().to_vec());
        }
    }

    /// Reservations and pieces that make no sense are refused without allocating what they claim.
    #[test]
    fn absurd_input() {
        for rate in [0.0, -1.0, 0.5, 1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(Bloom::new(rate, 10, Some(2)).err(), Some(BloomError::ErrorRate));
        }
        assert_eq!(Bloom::new(1e-300, 10, Some(2)).err(), Some(BloomError::TooLarge));
        assert_eq!(Bloom::new(0.01, u64::MAX, Some(2)).err(), Some(BloomError::TooLarge));
        assert_eq!(Bloom::new(0.01, 1, Some(0)).err(), Some(BloomError::TooLarge));
        assert!(Bloom::new(0.01, 1 << 30, Some(2)).expect("two GiB").heap_bytes() < 4 << 20);

        let mut state = 3u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut bloom = Bloom::new(0.01, 100, Some(2)).expect("sane");
        bloom.add(b"a").expect("not loading");
        let (_, header) = bloom.dump(0).expect("not loading");
        let (cursor, piece) = bloom.dump(1).expect("not loading");
        for _ in 0..2000 {
            let mut target = Bloom::load_header(&header).expect("our own");
            let mut bad = piece.clone();
            for _ in 0..1 + random() % 4 {
                let at = random() as usize % 44;
                bad[at] = random() as u8;
            }
            bad.truncate(random() as usize % (bad.len() + 1));
            let cursor = if random() % 2 == 0 { bad.len() as u64 + 1 } else { random() >> (random() % 64) };
            if target.load(cursor, &bad).is_ok() {
                target.add(b"b").expect("has a filter");
                target.exists(b"b").expect("has a filter");
            }
            let _ = bloom.dump(random() >> (random() % 64));
        }
        assert_eq!(Bloom::load_header(b"").err(), Some(BloomError::Corrupted));
        let mut fresh = Bloom::load_header(&header).expect("our own");
        fresh.load(cursor, &piece).expect("our own");
        assert_eq!(fresh.load(u64::MAX, &piece).err(), Some(BloomError::OutOfRange));
        assert_eq!(fresh.load(0, b"").err(), Some(BloomError::OutOfRange));
    }
}
