//! HyperLogLog exactly as Redis stores it in a string.
//!
//! ```text
//! 0      4          5             8                    16
//! +------+----------+-------------+--------------------+----------------------------
//! | HYLL | encoding | three zeros | cardinality, LE    | registers
//! +------+----------+-------------+--------------------+----------------------------
//!          0 dense                  top bit: stale       dense: 16384 x 6 bits, from the low bit up (12288 bytes)
//!          1 sparse                                      sparse: a run-length code over the same registers
//!
//! sparse: 00llllll            ZERO   l+1 registers are 0                 (1..=64)
//!         01llllll llllllll   XZERO  l+1 registers are 0                 (1..=16384)
//!         1vvvvvll            VAL    l+1 registers (1..=4) are v+1       (1..=32)
//! ```
//!
//! It is a string like any other: clients GET it, SET it back, DUMP it, and replicas compare it. So not only the
//! counts must agree with Redis but the bytes, which means the same choices wherever the format leaves one: how a
//! run is split, how far around a change neighbours are merged, when sparse turns dense, when the cached
//! cardinality is dropped. `tests/redis.rs` holds all that against a real server.
//!
//! An element is hashed with MurmurHash64A (seed `0xadc83b19`): the low 14 bits choose the register, the value is
//! the position of the lowest set bit in the other 50, counted from one. The estimator is Otmar Ertl's
//! ("New cardinality estimation algorithms for HyperLogLog sketches", arXiv:1702.01284), which needs no
//! bias tables; the order of its floating-point operations is that of Redis 5 and later.
//!
//! The bytes may come from anybody. Whatever they are, the answer is a result or [`HllError`], never a panic.

use std::fmt;

/// Length of the dense form: header and 16384 registers of six bits.
pub const DENSE_LEN: usize = HEADER_LEN + REGISTERS * 6 / 8;

/// `hll-sparse-max-bytes` of Redis: a sparse value that would grow beyond it becomes dense.
pub const SPARSE_MAX_BYTES: usize = 3000;

/// Number of registers.
pub const REGISTERS: usize = 1 << 14;

const HEADER_LEN: usize = 16;
const MAGIC: &[u8; 4] = b"HYLL";
const ENCODING_AT: usize = 4;
const CACHE_AT: usize = 8;
/// The byte with the bit that says the cached cardinality is stale.
const STALE_AT: usize = 15;
const STALE: u8 = 0x80;
const DENSE: u8 = 0;
const SPARSE: u8 = 1;

/// Bits of the hash left for the run of zeros.
const HASH_BITS: u32 = 64 - 14;

const ZERO_RUN_MAX: usize = 64;
const VAL_RUN_MAX: usize = 4;
const VAL_MAX: u8 = 32;
/// How many opcodes, from the one before a change, are looked at for merging.
const MERGE_WINDOW: usize = 5;

/// Why a string was not taken as a HyperLogLog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HllError {
    /// The header is not one: some other string.
    NotHll,
    /// The header is right and the registers are not.
    Corrupted,
}

impl fmt::Display for HllError {
    /// The text of the error reply, code included.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            HllError::NotHll => "WRONGTYPE Key is not a valid HyperLogLog string value.",
            HllError::Corrupted => "INVALIDOBJ Corrupted HLL object detected",
        })
    }
}

impl std::error::Error for HllError {}

/// Whether `value` has the header of a HyperLogLog (and, if dense, its length). This is what Redis checks before
/// any PF command; damage inside the registers shows later.
pub fn validate(value: &[u8]) -> Result<(), HllError> {
    let plausible = value.len() >= HEADER_LEN
        && value.starts_with(MAGIC)
        && value[ENCODING_AT] <= SPARSE
        && (value[ENCODING_AT] == SPARSE || value.len() == DENSE_LEN);
    if plausible { Ok(()) } else { Err(HllError::NotHll) }
}

/// The value of a new key: sparse, all registers zero, cache stale (as PFADD and PFMERGE leave a key they made).
pub fn create() -> Vec<u8> {
    let mut value = Vec::with_capacity(HEADER_LEN + 2);
    value.extend_from_slice(MAGIC);
    value.resize(HEADER_LEN, 0);
    value[ENCODING_AT] = SPARSE;
    value[STALE_AT] = STALE;
    push_zeros(&mut value, REGISTERS);
    value
}

/// Adds elements. `true` if a register changed, which is PFADD's answer for a key that existed.
///
/// A corrupted sparse value is an error at the first element that runs into the damage; elements before it stay
/// added, as in Redis.
pub fn add<'e>(
    value: &mut Vec<u8>,
    elements: impl IntoIterator<Item = &'e [u8]>,
    sparse_max_bytes: usize,
) -> Result<bool, HllError> {
    validate(value)?;
    let mut changed = false;
    for element in elements {
        let (register, rank) = locate(element);
        changed |= raise(value, register, rank, sparse_max_bytes)?;
    }
    if changed {
        value[STALE_AT] |= STALE;
    }
    Ok(changed)
}

/// The cardinality cached in the value, if it is not stale. Needs no write access.
pub fn cached_count(value: &[u8]) -> Result<Option<u64>, HllError> {
    validate(value)?;
    if value[STALE_AT] & STALE != 0 {
        return Ok(None);
    }
    let cached = value[CACHE_AT..HEADER_LEN].try_into().expect("eight bytes");
    Ok(Some(u64::from_le_bytes(cached)))
}

/// The estimated cardinality, written into the value's cache. For PFCOUNT of one key: when [`cached_count`] has
/// none, Redis changes the stored value here, and so must we.
pub fn count(value: &mut [u8]) -> Result<u64, HllError> {
    if let Some(cached) = cached_count(value)? {
        return Ok(cached);
    }
    let estimate = estimate(value)?;
    value[CACHE_AT..HEADER_LEN].copy_from_slice(&estimate.to_le_bytes());
    Ok(estimate)
}

/// The estimated cardinality, computed from the registers without looking at the cache.
pub fn estimate(value: &[u8]) -> Result<u64, HllError> {
    validate(value)?;
    let mut histogram = [0u32; 64];
    if value[ENCODING_AT] == DENSE {
        histogram = count_registers(value[HEADER_LEN..].as_chunks::<3>().0.iter().map(unpack));
    } else {
        for_each_run(&value[HEADER_LEN..], |run| {
            histogram[usize::from(run.value)] += run.len as u32;
        })?;
    }
    Ok(cardinality(&histogram))
}

/// The maximum of each register over several HyperLogLogs: what PFMERGE stores and PFCOUNT of several keys counts.
pub struct Union {
    registers: Box<[u8; REGISTERS]>,
    any_dense: bool,
}

impl Default for Union {
    fn default() -> Union {
        Union::new()
    }
}

impl Union {
    /// The union of nothing.
    pub fn new() -> Union {
        let registers = vec![0; REGISTERS].into_boxed_slice().try_into().expect("as long as the array");
        Union { registers, any_dense: false }
    }

    /// Takes one more value in.
    pub fn merge(&mut self, value: &[u8]) -> Result<(), HllError> {
        validate(value)?;
        if value[ENCODING_AT] == DENSE {
            self.any_dense = true;
            let groups = value[HEADER_LEN..].as_chunks::<3>().0;
            for (kept, group) in self.registers.as_chunks_mut::<4>().0.iter_mut().zip(groups) {
                let [a, b, c, d] = unpack(group);
                *kept = [a.max(kept[0]), b.max(kept[1]), c.max(kept[2]), d.max(kept[3])];
            }
            return Ok(());
        }
        let registers = &mut self.registers;
        for_each_run(&value[HEADER_LEN..], |run| {
            if run.value > 0 {
                // A run beyond the end is reported by `for_each_run`; until then it must not reach here.
                for kept in registers.iter_mut().skip(run.start).take(run.len) {
                    *kept = run.value.max(*kept);
                }
            }
        })
    }

    /// The estimated cardinality of the union.
    pub fn count(&self) -> u64 {
        cardinality(&count_registers(self.registers.as_chunks::<4>().0.iter().copied()))
    }

    /// Writes the union into `destination`, which is one of the merged values or [`create`]d. It becomes dense if
    /// any merged value was, else it grows register by register as PFADD would have it.
    pub fn store(&self, destination: &mut Vec<u8>, sparse_max_bytes: usize) -> Result<(), HllError> {
        validate(destination)?;
        if self.any_dense {
            make_dense(destination)?;
            let groups = destination[HEADER_LEN..].as_chunks_mut::<3>().0;
            for (group, [a, b, c, d]) in groups.iter_mut().zip(self.registers.as_chunks::<4>().0) {
                let kept = unpack(group);
                *group = pack([kept[0].max(*a), kept[1].max(*b), kept[2].max(*c), kept[3].max(*d)]);
            }
            destination[STALE_AT] |= STALE;
            return Ok(());
        }
        for (register, rank) in self.registers.iter().enumerate().filter(|(_, rank)| **rank > 0) {
            raise(destination, register, *rank, sparse_max_bytes)?;
        }
        destination[STALE_AT] |= STALE;
        Ok(())
    }
}

/// MurmurHash64A, the 64-bit variant of MurmurHash2 for 64-bit machines, reading little-endian.
fn murmur_hash_64a(data: &[u8], seed: u64) -> u64 {
    const M: u64 = 0xc6a4_a793_5bd1_e995;
    const R: u32 = 47;
    let mut hash = seed ^ (data.len() as u64).wrapping_mul(M);
    let (words, tail) = data.as_chunks::<8>();
    for word in words {
        let mut word = u64::from_le_bytes(*word).wrapping_mul(M);
        word ^= word >> R;
        hash = (hash ^ word.wrapping_mul(M)).wrapping_mul(M);
    }
    if !tail.is_empty() {
        let mut word = [0; 8];
        word[..tail.len()].copy_from_slice(tail);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(M);
    }
    hash ^= hash >> R;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> R)
}

/// The register of an element and the value it asks for, 1..=51.
fn locate(element: &[u8]) -> (usize, u8) {
    let hash = murmur_hash_64a(element, 0xadc8_3b19);
    let register = hash as usize & (REGISTERS - 1);
    // The bit set above the hash ends the run of an all-zero remainder.
    let rank = ((hash >> 14) | (1 << HASH_BITS)).trailing_zeros() + 1;
    (register, rank as u8)
}

/// Raises a register to `rank` if it is lower; whether it was.
fn raise(value: &mut Vec<u8>, register: usize, rank: u8, sparse_max_bytes: usize) -> Result<bool, HllError> {
    if value[ENCODING_AT] == DENSE {
        return Ok(raise_dense(value, register, rank));
    }
    match raise_sparse(value, register, rank, sparse_max_bytes)? {
        Sparse::Unchanged => Ok(false),
        Sparse::Raised => {
            value[STALE_AT] |= STALE;
            Ok(true)
        }
        Sparse::MustBeDense => {
            make_dense(value)?;
            Ok(raise_dense(value, register, rank))
        }
    }
}

fn raise_dense(value: &mut [u8], register: usize, rank: u8) -> bool {
    let at = HEADER_LEN + register * 6 / 8;
    let shift = register * 6 % 8;
    // The last register ends with the string, so its second byte is not there; it has no bits in it either.
    let high = value.get(at + 1).copied().unwrap_or(0);
    let mut pair = u16::from_le_bytes([value[at], high]);
    if (pair >> shift) & 63 >= u16::from(rank) {
        return false;
    }
    pair = (pair & !(63 << shift)) | (u16::from(rank) << shift);
    let [low, high] = pair.to_le_bytes();
    value[at] = low;
    if shift > 2 {
        value[at + 1] = high;
    }
    true
}

/// Four registers from three bytes.
#[inline]
fn unpack(group: &[u8; 3]) -> [u8; 4] {
    let [a, b, c] = *group;
    [a & 63, (a >> 6 | b << 2) & 63, (b >> 4 | c << 4) & 63, c >> 2]
}

/// Three bytes from four registers.
#[inline]
fn pack(registers: [u8; 4]) -> [u8; 3] {
    let [a, b, c, d] = registers;
    [a | b << 6, b >> 2 | c << 4, c >> 4 | d << 2]
}

/// What happened to a sparse value.
enum Sparse {
    Unchanged,
    Raised,
    MustBeDense,
}

/// One opcode of the sparse form.
#[derive(Clone, Copy)]
struct Opcode {
    value: u8,
    run: usize,
    len: usize,
}

/// Reads the opcode at `at`. A second byte that is cut off reads as zero, as the terminator does in Redis.
#[inline]
fn opcode(bytes: &[u8], at: usize) -> Opcode {
    let first = bytes[at];
    if first & 0x80 != 0 {
        Opcode { value: (first >> 2 & 31) + 1, run: usize::from(first & 3) + 1, len: 1 }
    } else if first & 0x40 == 0 {
        Opcode { value: 0, run: usize::from(first) + 1, len: 1 }
    } else {
        let second = bytes.get(at + 1).copied().unwrap_or(0);
        Opcode { value: 0, run: (usize::from(first & 63) << 8 | usize::from(second)) + 1, len: 2 }
    }
}

fn val(value: u8, run: usize) -> u8 {
    0x80 | (value - 1) << 2 | (run - 1) as u8
}

fn push_zeros(out: &mut Vec<u8>, run: usize) {
    if run > ZERO_RUN_MAX {
        out.extend_from_slice(&[0x40 | ((run - 1) >> 8) as u8, (run - 1) as u8]);
    } else {
        out.push((run - 1) as u8);
    }
}

/// A stretch of equal registers.
struct Run {
    start: usize,
    len: usize,
    value: u8,
}

/// Walks the sparse registers. They must add up to [`REGISTERS`]; runs of values never lie outside them.
fn for_each_run(sparse: &[u8], mut visit: impl FnMut(Run)) -> Result<(), HllError> {
    let mut at = 0;
    let mut start = 0;
    while at < sparse.len() {
        let op = opcode(sparse, at);
        if start + op.run > REGISTERS {
            return Err(HllError::Corrupted);
        }
        visit(Run { start, len: op.run, value: op.value });
        start += op.run;
        at += op.len;
    }
    if start == REGISTERS { Ok(()) } else { Err(HllError::Corrupted) }
}

/// Turns a sparse value dense, keeping header and cache. Nothing happens to a dense one.
fn make_dense(value: &mut Vec<u8>) -> Result<(), HllError> {
    if value[ENCODING_AT] == DENSE {
        return Ok(());
    }
    let mut dense = vec![0; DENSE_LEN];
    dense[..HEADER_LEN].copy_from_slice(&value[..HEADER_LEN]);
    dense[ENCODING_AT] = DENSE;
    for_each_run(&value[HEADER_LEN..], |run| {
        if run.value > 0 {
            for register in run.start..run.start + run.len {
                raise_dense(&mut dense, register, run.value);
            }
        }
    })?;
    *value = dense;
    Ok(())
}

fn raise_sparse(
    value: &mut Vec<u8>,
    register: usize,
    rank: u8,
    sparse_max_bytes: usize,
) -> Result<Sparse, HllError> {
    if rank > VAL_MAX {
        return Ok(Sparse::MustBeDense);
    }

    // Find the opcode that covers the register, and the one before it.
    let mut at = HEADER_LEN;
    let mut before = HEADER_LEN;
    let mut first = 0;
    let op = loop {
        if at >= value.len() {
            return Err(HllError::Corrupted);
        }
        let op = opcode(value, at);
        if register < first + op.run {
            break op;
        }
        before = at;
        at += op.len;
        first += op.run;
    };
    if at + op.len > value.len() {
        return Err(HllError::Corrupted);
    }

    if op.value >= rank {
        return Ok(Sparse::Unchanged);
    }
    if op.run == 1 && op.len == 1 {
        value[at] = val(rank, 1);
    } else {
        // Split the run around the register: at most XZERO VAL XZERO.
        let (left, right) = (register - first, first + op.run - 1 - register);
        let mut split = Vec::with_capacity(5);
        let rest = |run: usize, out: &mut Vec<u8>| match (run, op.value) {
            (0, _) => {}
            (_, 0) => push_zeros(out, run),
            (_, value) => out.push(val(value, run)),
        };
        rest(left, &mut split);
        split.push(val(rank, 1));
        rest(right, &mut split);
        if split.len() > op.len && value.len() + split.len() - op.len > sparse_max_bytes {
            return Ok(Sparse::MustBeDense);
        }
        value.splice(at..at + op.len, split);
    }
    merge_neighbours(value, before);
    Ok(Sparse::Raised)
}

/// Joins equal VAL opcodes near a change. The window is part of the format in effect: a wider one would give
/// shorter strings that differ from Redis'.
fn merge_neighbours(value: &mut Vec<u8>, from: usize) {
    let mut at = from;
    let mut looked_at = 0;
    while at < value.len() && looked_at < MERGE_WINDOW {
        looked_at += 1;
        let op = opcode(value, at);
        if op.value > 0 && at + 1 < value.len() {
            let next = opcode(value, at + 1);
            if next.value == op.value && op.run + next.run <= VAL_RUN_MAX {
                value[at + 1] = val(op.value, op.run + next.run);
                value.remove(at);
                continue;
            }
        }
        at += op.len;
    }
}

/// The number of registers with each value.
fn count_registers(groups: impl Iterator<Item = [u8; 4]>) -> [u32; 64] {
    // Four tables, because equal neighbours are the rule and an increment must not wait for the last one.
    let mut parts = [[0u16; 64]; 4];
    for group in groups {
        for (part, register) in parts.iter_mut().zip(group) {
            part[usize::from(register)] += 1;
        }
    }
    std::array::from_fn(|value| parts.iter().map(|part| u32::from(part[value])).sum())
}

/// Ertl's estimator over the number of registers with each value.
fn cardinality(histogram: &[u32; 64]) -> u64 {
    /// 1 / (2 ln 2).
    const ALPHA_INF: f64 = 0.721_347_520_444_481_7;
    let m = REGISTERS as f64;
    let top = HASH_BITS as usize + 1;
    let mut z = m * tau((m - f64::from(histogram[top])) / m);
    for count in histogram[1..top].iter().rev() {
        z += f64::from(*count);
        z *= 0.5;
    }
    z += m * sigma(f64::from(histogram[0]) / m);
    let estimate = ALPHA_INF * m * m / z;
    if estimate.is_finite() {
        estimate.round() as u64
    } else {
        // Only forged registers get here. Redis converts infinity to a signed integer, which on x86-64 is this.
        1 << 63
    }
}

fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let mut y = 1.0;
    let mut z = x;
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if before == z {
            return z;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let mut y = 1.0;
    let mut z = 1.0 - x;
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if before == z {
            return z / 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Xorshift(u64);

    impl Xorshift {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }
    }

    fn registers(value: &[u8]) -> Vec<u8> {
        let mut union = Union::new();
        union.merge(value).expect("a whole value");
        union.registers.to_vec()
    }

    /// Sparse and dense hold the registers that a plain array of maxima holds, across the promotion, and the
    /// estimate stays within four standard errors (0.81 % each).
    #[test]
    fn registers_are_the_maxima() {
        let mut value = create();
        assert_eq!(value.len(), 18);
        let mut model = vec![0u8; REGISTERS];
        let mut was_dense = false;
        for n in 0..40_000u32 {
            let element = format!("element-{n}");
            let (register, rank) = locate(element.as_bytes());
            let changed = add(&mut value, [element.as_bytes()], SPARSE_MAX_BYTES).expect("valid");
            assert_eq!(changed, model[register] < rank);
            model[register] = model[register].max(rank);
            if n.is_power_of_two() || n % 10_000 == 0 {
                assert_eq!(registers(&value), model);
                let estimate = count(&mut value).expect("valid") as f64;
                let real = f64::from(n + 1);
                assert!((estimate - real).abs() <= real * 0.0325 + 1.0, "{estimate} for {real}");
            }
            was_dense |= value[ENCODING_AT] == DENSE;
        }
        assert!(was_dense);
        assert_eq!(value.len(), DENSE_LEN);
    }

    /// The union of parts counts as the whole, stored in any order and form.
    #[test]
    fn union_is_addition() {
        let mut whole = create();
        let mut union = Union::new();
        for part in 0..4 {
            let mut value = create();
            for n in 0..500 * part * part {
                let element = format!("{part}:{n}");
                add(&mut value, [element.as_bytes()], SPARSE_MAX_BYTES).expect("valid");
                add(&mut whole, [element.as_bytes()], SPARSE_MAX_BYTES).expect("valid");
            }
            union.merge(&value).expect("valid");
        }
        assert_eq!(union.count(), count(&mut whole).expect("valid"));
        let mut stored = create();
        union.store(&mut stored, SPARSE_MAX_BYTES).expect("valid");
        assert_eq!(registers(&stored), registers(&whole));
    }

    /// Bytes of every kind of damage give an error or an answer, quickly, and never a panic.
    #[test]
    fn damage_is_an_error() {
        let mut random = Xorshift(0x5eed);
        let mut seeds = vec![create()];
        for size in [10, 300, 3000] {
            let mut value = create();
            for n in 0..size {
                add(&mut value, [format!("{n}").as_bytes()], SPARSE_MAX_BYTES).expect("valid");
            }
            seeds.push(value);
        }
        for round in 0..3000 {
            let mut value = seeds[round % seeds.len()].clone();
            for _ in 0..1 + random.next() % 8 {
                let at = random.next() as usize % value.len();
                value[at] = random.next() as u8;
            }
            if random.next().is_multiple_of(4) {
                value.truncate(random.next() as usize % (value.len() + 1));
            }
            let _ = count(&mut value.clone());
            let mut union = Union::new();
            let _ = union.merge(&value);
            let _ = union.store(&mut value.clone(), SPARSE_MAX_BYTES);
            for n in 0..20u32 {
                let _ = add(&mut value, [n.to_le_bytes().as_slice()], SPARSE_MAX_BYTES);
            }
        }
        assert_eq!(validate(b""), Err(HllError::NotHll));
        assert_eq!(validate(b"some string that is long enough"), Err(HllError::NotHll));
        let mut cut = create();
        cut.pop();
        assert_eq!(count(&mut cut), Err(HllError::Corrupted));
        assert_eq!(add(&mut cut, [b"a".as_slice()], 3000), Err(HllError::Corrupted));
        let mut forged = vec![0xff; DENSE_LEN];
        forged[..5].copy_from_slice(b"HYLL\0");
        assert_eq!(count(&mut forged), Ok(1 << 63));
    }
}
