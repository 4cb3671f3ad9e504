//! LZF, the byte-oriented compression of RDB strings.
//!
//! ```text
//! 000LLLLL  literal         L+1 bytes follow (1..=32)
//! LLLooooo  oooooooo        copy L+2 bytes (3..=8) from offset o+1 back
//! 111ooooo  LLLLLLLL  oooooooo   copy L+9 bytes (9..=264) from offset o+1 back
//! ```
//!
//! The compressor makes the same choices as the one in Redis (greedy, a 2^16-slot table of three-byte hashes, two
//! extra insertions after each match), so DUMP of a string is byte-identical to Redis'. It differs in one thing that
//! cannot be seen: the table holds positions relative to a running base instead of being cleared, because clearing
//! 256 KiB for a 21-byte string would cost more than everything else together.

use crate::error::ErrorKind;

const SLOTS_LOG: u32 = 16;
const OFFSET_MAX: usize = 1 << 13;
const MATCH_LEN_MAX: usize = 264;
const LITERAL_LEN_MAX: usize = 32;

/// A copy token of three bytes yields at most 264, so no honest ratio is above this.
const RATIO_MAX: u64 = 88;

/// The compressor with its table; keep one per writer.
pub struct Lzf {
    slots: Box<[u32]>,
    /// Slots below this belong to earlier inputs and count as empty.
    base: u32,
}

impl Default for Lzf {
    fn default() -> Lzf {
        Lzf::new()
    }
}

impl Lzf {
    /// A compressor with an empty table (256 KiB).
    pub fn new() -> Lzf {
        Lzf { slots: vec![0; 1 << SLOTS_LOG].into_boxed_slice(), base: 1 }
    }

    /// Appends the compressed form of `input` to `out` and answers true, or leaves `out` as it was and answers
    /// false if the result would be longer than `len_max`.
    pub fn compress(&mut self, input: &[u8], len_max: usize, out: &mut Vec<u8>) -> bool {
        // Positions are 32 bits; larger inputs than the string limit are not worth a second code path.
        if input.len() < 4 || input.len() > 1 << 30 || len_max == 0 {
            return false;
        }
        if self.base as usize + input.len() > u32::MAX as usize - 1 {
            self.slots.fill(0);
            self.base = 1;
        }
        let start = out.len();
        let fits = self.run(input, len_max, out);
        // Positions 0..len were stored as base..base+len.
        self.base += input.len() as u32;
        if !fits {
            out.truncate(start);
        }
        fits
    }

    fn run(&mut self, input: &[u8], len_max: usize, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let end = input.len();
        let mut at = 0;
        // The literal run being collected: its header byte is reserved before the run has begun.
        let mut literals = 0;
        out.push(0);
        let mut pair = u32::from(input[0]) << 8 | u32::from(input[1]);
        while at + 2 < end {
            pair = pair << 8 | u32::from(input[at + 2]);
            let slot = &mut self.slots[slot_of(pair)];
            let seen = std::mem::replace(slot, self.base + at as u32);
            let candidate = seen.checked_sub(self.base).map(|position| position as usize);
            // Position 0 is never matched: that is how the original tells an empty slot.
            let matched = candidate.filter(|&from| {
                from > 0
                    && from < at
                    && at - from - 1 < OFFSET_MAX
                    && input[from..from + 3] == input[at..at + 3]
            });
            let Some(from) = matched else {
                if out.len() - start >= len_max {
                    return false;
                }
                out.push(input[at]);
                at += 1;
                literals += 1;
                if literals == LITERAL_LEN_MAX {
                    close_literals(out, &mut literals);
                    out.push(0);
                }
                continue;
            };
            let offset = at - from - 1;
            // Room for the longest token and the next run's header, before the bytes are counted exactly.
            let written = out.len() - start;
            if written + 4 >= len_max && written - usize::from(literals == 0) + 4 >= len_max {
                return false;
            }
            close_literals(out, &mut literals);
            // The original compares its first sixteen bytes unrolled, so a match near the end may run two bytes
            // further than its own limit.
            let longest = match (end - at - 2).min(MATCH_LEN_MAX) {
                longest @ 17..19 => longest.max(19),
                longest => longest,
            };
            let mut len = 3;
            while len < longest && input[from + len] == input[at + len] {
                len += 1;
            }
            let code = len - 2;
            if code < 7 {
                out.push((offset >> 8) as u8 + ((code as u8) << 5));
            } else {
                out.push((offset >> 8) as u8 + (7 << 5));
                out.push((code - 7) as u8);
            }
            out.push(offset as u8);
            out.push(0);
            at += len;
            if at + 2 >= end {
                break;
            }
            // The last two positions of the match enter the table, those before them do not.
            at -= 2;
            pair = u32::from(input[at]) << 8 | u32::from(input[at + 1]);
            for _ in 0..2 {
                pair = pair << 8 | u32::from(input[at + 2]);
                self.slots[slot_of(pair)] = self.base + at as u32;
                at += 1;
            }
        }
        if out.len() - start + 3 > len_max {
            return false;
        }
        while at < end {
            out.push(input[at]);
            at += 1;
            literals += 1;
            if literals == LITERAL_LEN_MAX {
                close_literals(out, &mut literals);
                out.push(0);
            }
        }
        close_literals(out, &mut literals);
        true
    }
}

/// Writes the header of the literal run that ends here, or takes back the header of a run that never began.
fn close_literals(out: &mut Vec<u8>, literals: &mut usize) {
    if *literals == 0 {
        out.pop();
    } else {
        let header = out.len() - *literals - 1;
        out[header] = (*literals - 1) as u8;
        *literals = 0;
    }
}

/// Only the low 24 bits of `pair` are the three bytes; older ones above them fall out of the mask.
fn slot_of(pair: u32) -> usize {
    ((pair >> (24 - SLOTS_LOG)).wrapping_sub(pair.wrapping_mul(5)) & ((1 << SLOTS_LOG) - 1)) as usize
}

/// Expands `input` into `out` (cleared first), which must come to exactly `len` bytes.
///
/// `len` is the writer's claim: it bounds the work, but memory grows with what is really produced.
pub fn decompress(input: &[u8], len: u64, out: &mut Vec<u8>) -> Result<(), ErrorKind> {
    out.clear();
    if len == 0 || len > RATIO_MAX * input.len() as u64 {
        return Err(ErrorKind::Lzf);
    }
    let len = len as usize;
    out.reserve(len.min(input.len() * 4));
    let mut at = 0;
    let byte = |at: &mut usize| {
        let byte = *input.get(*at).ok_or(ErrorKind::Lzf)?;
        *at += 1;
        Ok(byte as usize)
    };
    while at < input.len() {
        let control = byte(&mut at)?;
        if control < LITERAL_LEN_MAX {
            let literals = input.get(at..at + control + 1).ok_or(ErrorKind::Lzf)?;
            if out.len() + literals.len() > len {
                return Err(ErrorKind::Lzf);
            }
            out.extend_from_slice(literals);
            at += control + 1;
        } else {
            let mut copy = (control >> 5) + 2;
            if copy == 9 {
                copy += byte(&mut at)?;
            }
            let offset = ((control & 31) << 8 | byte(&mut at)?) + 1;
            if offset > out.len() || out.len() + copy > len {
                return Err(ErrorKind::Lzf);
            }
            let from = out.len() - offset;
            if offset >= copy {
                out.extend_from_within(from..from + copy);
            } else {
                for position in from..from + copy {
                    out.push(out[position]);
                }
            }
        }
    }
    if out.len() == len { Ok(()) } else { Err(ErrorKind::Lzf) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    /// Whatever compresses comes back, with one compressor used for all inputs (the table is never cleared).
    #[test]
    fn round_trips() {
        let mut random = Random::new(11);
        let mut lzf = Lzf::new();
        let mut shrunk = 0;
        for round in 0..4000u64 {
            let alphabet = 1 + random.below(if round % 2 == 0 { 4 } else { 256 });
            let input: Vec<u8> = (0..random.below(3000)).map(|_| random.below(alphabet) as u8).collect();
            let (mut packed, mut back) = (b"kept".to_vec(), Vec::new());
            if lzf.compress(&input, input.len().saturating_sub(4), &mut packed) {
                shrunk += 1;
                assert!(packed.len() - 4 <= input.len() - 4);
                decompress(&packed[4..], input.len() as u64, &mut back).expect("our own output");
                assert_eq!(back, input);
            } else {
                assert_eq!(packed, b"kept");
            }
        }
        assert!(shrunk > 1500, "{shrunk}");
    }

    /// Damaged input is an error or other bytes, and never more of them than declared.
    #[test]
    fn damage_is_contained() {
        let mut random = Random::new(12);
        let input = b"a line of text, a line of text, a line of text, and another line of text".repeat(9);
        let (mut packed, mut back) = (Vec::new(), Vec::new());
        assert!(Lzf::new().compress(&input, input.len() - 4, &mut packed));
        for _ in 0..20_000 {
            let mut bad = packed.clone();
            let at = random.below(bad.len() as u64) as usize;
            bad[at] ^= 1 << random.below(8);
            bad.truncate(random.below(bad.len() as u64 + 1) as usize);
            let _ = decompress(&bad, input.len() as u64, &mut back);
            assert!(back.len() <= input.len());
        }
        assert_eq!(decompress(&[0, b'x'], 1 << 40, &mut back), Err(ErrorKind::Lzf));
        assert_eq!(decompress(&[], 0, &mut back), Err(ErrorKind::Lzf));
    }
}
