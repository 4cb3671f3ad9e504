//! The one hash function of the data structures: bytes and a secret seed in, 64 bits out.
//!
//! A folded multiply (64 x 64 -> 128 bits, halves xored) mixes 16 bytes per step; it is the family that wyhash made
//! known. Keys here are short and arrive from strangers, which decides two details:
//!
//! * Both factors of every multiplication carry secret bits. With one public factor a client could make it zero,
//!   and then the other 8 bytes would not count: collisions for every seed at once.
//! * Lengths up to 16 take two overlapping reads and no loop.
//!
//! All 64 bits are usable: callers take bucket numbers from one end and fingerprints from the other. The values
//! never leave the process (no file or peer depends on them), so the function may change between versions.

const K0: u64 = 0x9e6c_63d0_876a_9a77;
const K1: u64 = 0xd1b5_4a32_d192_ed03;
const K2: u64 = 0x8ebc_6af0_9c88_c6e3;

/// Multiplies to 128 bits and folds the halves: every input bit reaches every output bit.
#[inline(always)]
const fn fold(a: u64, b: u64) -> u64 {
    let wide = (a as u128) * (b as u128);
    (wide as u64) ^ ((wide >> 64) as u64)
}

#[inline(always)]
fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[inline(always)]
fn half(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes")))
}

/// Whether two strings are the same: as `==`, but short ones, which keys are, without the call that makes of it.
#[inline(always)]
pub fn same(one: &[u8], other: &[u8]) -> bool {
    let len = one.len();
    if len != other.len() {
        return false;
    }
    match len {
        8..=16 => (word(one, 0) ^ word(other, 0)) | (word(one, len - 8) ^ word(other, len - 8)) == 0,
        4..=7 => (half(one, 0) ^ half(other, 0)) | (half(one, len - 4) ^ half(other, len - 4)) == 0,
        _ => one == other,
    }
}

/// Hashes `bytes` under `seed`, which is drawn once per process and kept from clients.
#[inline]
pub fn hash(bytes: &[u8], seed: u64) -> u64 {
    let len = bytes.len();
    let secret = seed.rotate_left(29) ^ K1;
    let mut state = seed ^ K0;
    let (low, high) = if len <= 16 {
        if len >= 8 {
            (word(bytes, 0), word(bytes, len - 8))
        } else if len >= 4 {
            (half(bytes, 0), half(bytes, len - 4))
        } else if len > 0 {
            // One to three bytes: first, middle and last cover them all.
            (u64::from(bytes[0]) << 16 | u64::from(bytes[len / 2]) << 8 | u64::from(bytes[len - 1]), 0)
        } else {
            (0, 0)
        }
    } else {
        state = long(bytes, state, secret);
        (word(bytes, len - 16), word(bytes, len - 8))
    };
    let mixed = fold(low ^ secret, high ^ state);
    fold(mixed ^ secret, K2 ^ (len as u64) ^ state)
}

/// All but the last 16 bytes of more than 16. Four independent lanes above 64 bytes, because one multiplication
/// waiting for the last is 4 cycles of latency for every 16 bytes.
#[inline]
fn long(bytes: &[u8], state: u64, secret: u64) -> u64 {
    let mut state = state;
    let mut at = 0;
    if bytes.len() > 64 {
        let mut lanes = [state, state ^ K0, state ^ K1, state ^ K2];
        while bytes.len() - at > 64 {
            for (lane, value) in lanes.iter_mut().enumerate() {
                let here = at + 16 * lane;
                *value = fold(word(bytes, here) ^ secret, word(bytes, here + 8) ^ *value);
            }
            at += 64;
        }
        state = fold(lanes[0] ^ lanes[1].rotate_left(17), secret ^ lanes[2] ^ lanes[3].rotate_left(31));
    }
    while bytes.len() - at > 16 {
        state = fold(word(bytes, at) ^ secret, word(bytes, at + 8) ^ state);
        at += 16;
    }
    state
}

#[cfg(test)]
mod tests {
    use super::{hash, same};
    use std::collections::HashSet;

    /// Every length from 0 to 200 notices a change of any byte, of the length and of the seed.
    #[test]
    fn every_byte_counts() {
        for len in 0..200usize {
            let mut bytes: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
            let plain = hash(&bytes, 1);
            assert_ne!(plain, hash(&bytes, 2), "seed, length {len}");
            for at in 0..len {
                bytes[at] ^= 1;
                assert_ne!(plain, hash(&bytes, 1), "byte {at} of {len}");
                bytes[at] ^= 1;
            }
            bytes.push(0);
            assert_ne!(plain, hash(&bytes, 1), "length {len}");
        }
    }

    /// Two strings are the same if they are equal: of every length up to 40, no changed byte is missed, nor a longer one.
    #[test]
    fn same_is_equal() {
        for len in 0..40u8 {
            let one: Vec<u8> = (0..len).collect();
            let mut other = one.clone();
            assert!(same(&one, &other), "length {len}");
            for at in 0..other.len() {
                other[at] ^= 0x80;
                assert!(!same(&one, &other), "byte {at} of {len}");
                other[at] ^= 0x80;
            }
            other.push(0);
            assert!(!same(&one, &other) && !same(&other, &one), "length {len}");
        }
    }

    /// Keys that differ in a counter spread over both ends of the hash as random numbers would: no 16-bit slice
    /// of 65536 keys fills noticeably fewer than the expected 63.2 % of its values.
    #[test]
    fn counters_spread() {
        for prefix in ["", "k", "key:", "user:session:", "a prefix that is longer than thirty-two bytes:"] {
            for shift in [0, 16, 32, 48] {
                let mut seen = HashSet::new();
                for i in 0..65536u32 {
                    let value = hash(format!("{prefix}{i}").as_bytes(), 0x5eed);
                    seen.insert((value >> shift) as u16);
                }
                assert!((40_900..42_000).contains(&seen.len()), "{prefix} {shift} {}", seen.len());
            }
        }
    }

    /// Bytes equal to the public constants do not cancel anything: with a known factor of zero all of these would
    /// collide.
    #[test]
    fn constants_do_not_cancel() {
        let mut seen = HashSet::new();
        for constant in [super::K0, super::K1, super::K2] {
            for i in 0..1000u64 {
                let mut key = constant.to_le_bytes().to_vec();
                key.extend_from_slice(&i.to_le_bytes());
                assert!(seen.insert(hash(&key, 77)));
                key.rotate_left(8);
                assert!(seen.insert(hash(&key, 77)));
            }
        }
    }
}
