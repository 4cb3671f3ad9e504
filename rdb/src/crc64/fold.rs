//! The checksum of long inputs by carry-less multiplication ("folding").
//!
//! A remainder does not change when a block at the front is replaced by that block times x^n modulo the polynomial, n
//! bits further on. Four blocks of 16 bytes are carried forward side by side, 64 bytes per round, so the multiplier is
//! never waited for; at the end they are joined to one block, whose checksum the tables give.
//!
//! Bits are reflected: the lowest bit of the first byte is the highest power. The product of two reflected factors
//! comes out one power too high, which the constants make up for.

#![expect(unsafe_code, reason = "an instruction that not every processor has")]

use std::arch::x86_64::{
    __m128i, _mm_clmulepi64_si128, _mm_cvtsi128_si64, _mm_set_epi64x, _mm_unpackhi_epi64, _mm_xor_si128,
};

use super::POLYNOMIAL;

/// Bytes of a block.
const BLOCK: usize = 16;
/// Bytes of a round.
pub(super) const ROUND: usize = 4 * BLOCK;

/// x^exponent modulo the polynomial, reflected.
const fn power(exponent: u32) -> u64 {
    let (mut remainder, mut left) = (1 << 63, exponent);
    while left > 0 {
        remainder = if remainder & 1 == 1 { remainder >> 1 ^ POLYNOMIAL } else { remainder >> 1 };
        left -= 1;
    }
    remainder
}

/// What the two halves of a block are multiplied with to go on by so many bits: the first is 64 powers higher.
const fn forward(bits: u32) -> (u64, u64) {
    (power(bits + 64 - 1), power(bits - 1))
}

const BY_ROUND: (u64, u64) = forward(8 * ROUND as u32);
const BY_BLOCK: (u64, u64) = forward(8 * BLOCK as u32);

/// A checksum so far and whole rounds of bytes behind it, as one block that has the same remainder; None where the
/// processor lacks the instruction, or there is not a round.
pub(super) fn block_for(crc: u64, rounds: &[[u8; ROUND]]) -> Option<[u8; BLOCK]> {
    let (first, rest) = rounds.split_first()?;
    if !std::arch::is_x86_feature_detected!("pclmulqdq") {
        return None;
    }
    // SAFETY: the processor has the instruction; that is all the function asks for.
    Some(unsafe { fold(crc, first, rest) })
}

#[target_feature(enable = "pclmulqdq")]
fn fold(crc: u64, first: &[u8; ROUND], rest: &[[u8; ROUND]]) -> [u8; BLOCK] {
    let mut lanes = blocks(first);
    lanes[0] = _mm_xor_si128(lanes[0], _mm_set_epi64x(0, crc as i64));
    for round in rest {
        let next = blocks(round);
        for (lane, block) in lanes.iter_mut().zip(next) {
            *lane = _mm_xor_si128(moved(*lane, BY_ROUND), block);
        }
    }
    let [mut joined, others @ ..] = lanes;
    for lane in others {
        joined = _mm_xor_si128(moved(joined, BY_BLOCK), lane);
    }
    let halves = [_mm_cvtsi128_si64(joined), _mm_cvtsi128_si64(_mm_unpackhi_epi64(joined, joined))];
    let mut block = [0; BLOCK];
    for (bytes, half) in block.as_chunks_mut::<8>().0.iter_mut().zip(halves) {
        *bytes = half.to_le_bytes();
    }
    block
}

/// The blocks of a round, the first bytes in the low halves.
#[inline]
#[target_feature(enable = "pclmulqdq")]
fn blocks(round: &[u8; ROUND]) -> [__m128i; 4] {
    let (halves, _) = round.as_chunks::<8>();
    let mut blocks = [_mm_set_epi64x(0, 0); 4];
    // No closure: one could not be compiled into a function that knows nothing of the instruction.
    for (number, block) in blocks.iter_mut().enumerate() {
        let low = i64::from_le_bytes(halves[2 * number]);
        *block = _mm_set_epi64x(i64::from_le_bytes(halves[2 * number + 1]), low);
    }
    blocks
}

/// A block as many bits further on as the factors stand for.
#[inline]
#[target_feature(enable = "pclmulqdq")]
fn moved(block: __m128i, factors: (u64, u64)) -> __m128i {
    let factors = _mm_set_epi64x(factors.1 as i64, factors.0 as i64);
    _mm_xor_si128(_mm_clmulepi64_si128::<0x00>(block, factors), _mm_clmulepi64_si128::<0x11>(block, factors))
}
