//! The listpack: Redis' compact sequence of byte strings and integers, read and written.
//!
//! ```text
//! total u32le | count u16le (65535: unknown) | element ... | 0xff
//!
//! element = encoding+data | length of encoding+data, readable backwards (1..5 bytes of 7 bits, high groups first,
//!                           bit 7 set on all but the first byte)
//!
//! 0xxxxxxx                  integer 0..=127
//! 10LLLLLL ...              string of up to 63 bytes
//! 110xxxxx xxxxxxxx         integer of 13 bits, two's complement
//! 1110LLLL LLLLLLLL ...     string of up to 4095 bytes
//! 11110000 + u32le ...      string
//! 11110001 .. 11110100      integer of 16, 24, 32, 64 bits, little endian
//! ```
//!
//! The reader believes nothing: every element must end inside the bytes, its back length must be the one the
//! writer of that element would have produced, and count and terminator must agree in the end. That is what Redis
//! calls deep sanitisation, done while reading, because elements are handed on only after they were checked.

use crate::error::ErrorKind;
use crate::packed::{Elements, Packed};
use crate::wire::canonical_i64;

const HEADER_LEN: usize = 6;
const TERMINATOR: u8 = 0xff;
const COUNT_UNKNOWN: u16 = u16::MAX;
/// Longer text cannot be an integer: 19 digits and a sign.
const INT_TEXT_LEN_MAX: usize = 20;

/// A reader over the bytes of one listpack.
#[derive(Clone)]
pub struct Listpack<'a> {
    bytes: &'a [u8],
    at: usize,
    seen: u64,
    count: u16,
}

impl<'a> Listpack<'a> {
    /// Checks the header.
    pub fn open(bytes: &'a [u8]) -> Result<Listpack<'a>, ErrorKind> {
        let [a, b, c, d, e, f, .., last] = *bytes else { return Err(ErrorKind::Listpack("short")) };
        if u32::from_le_bytes([a, b, c, d]) as usize != bytes.len() {
            return Err(ErrorKind::Listpack("size"));
        }
        if last != TERMINATOR {
            return Err(ErrorKind::Listpack("terminator"));
        }
        Ok(Listpack { bytes, at: HEADER_LEN, seen: 0, count: u16::from_le_bytes([e, f]) })
    }

    /// The count the header claims, `None` if it does not know; a hint until the last element was read.
    pub fn count_hint(&self) -> Option<u64> {
        (self.count != COUNT_UNKNOWN).then_some(u64::from(self.count))
    }

    /// The next element; `None` after the last, once count and terminator proved right.
    #[expect(
        clippy::should_implement_trait,
        reason = "a fallible iterator reads better with `while let` and `?`"
    )]
    #[inline]
    pub fn next(&mut self) -> Result<Option<Packed<'a>>, ErrorKind> {
        let rest = &self.bytes[self.at..];
        // open() saw a terminator at the end, and no element may reach over it.
        let (&first, tail) = rest.split_first().ok_or(ErrorKind::Listpack("terminator"))?;
        let take = |from: usize, len: usize| {
            tail.get(from..from + len).ok_or(ErrorKind::Listpack("element reaches over the end"))
        };
        let (element, size) = match first {
            0x00..=0x7f => (Packed::Int(i64::from(first)), 1),
            0x80..=0xbf => {
                let len = usize::from(first & 0x3f);
                (Packed::Bytes(take(0, len)?), 1 + len)
            }
            0xc0..=0xdf => {
                let low = take(0, 1)?[0];
                let value = i64::from(first & 0x1f) << 8 | i64::from(low);
                (Packed::Int(if value >= 1 << 12 { value - (1 << 13) } else { value }), 2)
            }
            0xe0..=0xef => {
                let len = usize::from(first & 0x0f) << 8 | usize::from(take(0, 1)?[0]);
                (Packed::Bytes(take(1, len)?), 2 + len)
            }
            0xf0 => {
                let len = u32::from_le_bytes(take(0, 4)?.try_into().expect("four bytes")) as usize;
                (Packed::Bytes(take(4, len)?), 5 + len)
            }
            0xf1..=0xf4 => {
                let width = [2, 3, 4, 8][usize::from(first - 0xf1)];
                // With eight bytes at hand nothing is copied byte by byte.
                let value = match tail.first_chunk::<8>() {
                    Some(eight) => i64::from_le_bytes(*eight) << (64 - 8 * width) >> (64 - 8 * width),
                    None => int_le(take(0, width)?),
                };
                (Packed::Int(value), 1 + width)
            }
            TERMINATOR => {
                if rest.len() != 1 {
                    return Err(ErrorKind::Listpack("terminator before the end"));
                }
                if self.count != COUNT_UNKNOWN && u64::from(self.count) != self.seen {
                    return Err(ErrorKind::Listpack("count"));
                }
                return Ok(None);
            }
            _ => return Err(ErrorKind::Listpack("encoding")),
        };
        let back = match size {
            // Nearly all elements; comparing slices is a call.
            0..128 if rest.get(size) == Some(&(size as u8)) => 1,
            _ => {
                let mut back = [0; 5];
                let back = back_len(size, &mut back);
                if rest.get(size..size + back.len()) != Some(back) {
                    return Err(ErrorKind::Listpack("back length"));
                }
                back.len()
            }
        };
        self.at += size + back;
        self.seen += 1;
        Ok(Some(element))
    }
}

impl<'a> Elements<'a> for Listpack<'a> {
    #[inline]
    fn next(&mut self) -> Result<Option<Packed<'a>>, ErrorKind> {
        Listpack::next(self)
    }
}

/// A two's complement integer of 1..=8 bytes.
pub(crate) fn int_le(bytes: &[u8]) -> i64 {
    let mut wide = [0; 8];
    wide[8 - bytes.len()..].copy_from_slice(bytes);
    i64::from_le_bytes(wide) >> (64 - 8 * bytes.len())
}

/// The back length of an element of `size` bytes.
#[inline]
fn back_len(size: usize, buffer: &mut [u8; 5]) -> &[u8] {
    // The borders are those of Redis, which are one short of what seven bits per byte could hold.
    let len = match size {
        0..=127 => {
            buffer[0] = size as u8;
            return &buffer[..1];
        }
        128..16_383 => 2,
        16_383..2_097_151 => 3,
        2_097_151..268_435_455 => 4,
        _ => 5,
    };
    for (position, byte) in buffer[..len].iter_mut().enumerate() {
        let group = (size >> (7 * (len - 1 - position))) as u8 & 0x7f;
        *byte = if position == 0 { group } else { group | 0x80 };
    }
    &buffer[..len]
}

/// A listpack under construction. The caller bounds it: see [`Builder::size_with`].
#[derive(Clone, Debug)]
pub struct Builder {
    bytes: Vec<u8>,
    count: u64,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder::new()
    }
}

impl Builder {
    /// An empty listpack.
    pub fn new() -> Builder {
        Builder { bytes: vec![0; HEADER_LEN], count: 0 }
    }

    /// Empties it, keeping its memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.resize(HEADER_LEN, 0);
        self.count = 0;
    }

    /// How many elements it has.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How many bytes it has at present, terminator included.
    pub fn size(&self) -> usize {
        self.bytes.len() + 1
    }

    /// At most how many bytes it would have with one more element of `len` bytes.
    pub fn size_with(&self, len: usize) -> usize {
        self.size() + element_size_max(len)
    }

    /// Appends a byte string, as an integer where it is the canonical text of one.
    pub fn push(&mut self, bytes: &[u8]) {
        if bytes.len() <= INT_TEXT_LEN_MAX
            && let Some(value) = canonical_i64(bytes)
        {
            return self.push_int(value);
        }
        let start = self.bytes.len();
        match bytes.len() {
            len @ 0..64 => self.bytes.push(0x80 | len as u8),
            len @ 64..4096 => self.bytes.extend_from_slice(&[0xe0 | (len >> 8) as u8, len as u8]),
            len => {
                let len = u32::try_from(len).expect("the caller bounds a listpack far below 4 GiB");
                self.bytes.push(0xf0);
                self.bytes.extend_from_slice(&len.to_le_bytes());
            }
        }
        self.bytes.extend_from_slice(bytes);
        self.close(start);
    }

    /// Appends an integer.
    pub fn push_int(&mut self, value: i64) {
        let start = self.bytes.len();
        let wide = value.to_le_bytes();
        match value {
            0..=127 => self.bytes.push(value as u8),
            -4096..=4095 => {
                self.bytes.extend_from_slice(&[0xc0 | ((value >> 8) as u8 & 0x1f), value as u8]);
            }
            -0x8000..=0x7fff => {
                self.bytes.push(0xf1);
                self.bytes.extend_from_slice(&wide[..2]);
            }
            -0x80_0000..=0x7f_ffff => {
                self.bytes.push(0xf2);
                self.bytes.extend_from_slice(&wide[..3]);
            }
            -0x8000_0000..=0x7fff_ffff => {
                self.bytes.push(0xf3);
                self.bytes.extend_from_slice(&wide[..4]);
            }
            _ => {
                self.bytes.push(0xf4);
                self.bytes.extend_from_slice(&wide);
            }
        }
        self.close(start);
    }

    /// Appends the elements of another listpack: an element does not depend on what stands before it.
    pub fn append(&mut self, other: &Builder) {
        self.bytes.extend_from_slice(&other.bytes[HEADER_LEN..]);
        self.count += other.count;
    }

    fn close(&mut self, start: usize) {
        let mut buffer = [0; 5];
        let size = self.bytes.len() - start;
        self.bytes.extend_from_slice(back_len(size, &mut buffer));
        self.count += 1;
    }

    /// The finished listpack. [`Builder::clear`] must come before more elements.
    pub fn finish(&mut self) -> &[u8] {
        self.bytes.push(TERMINATOR);
        let total = u32::try_from(self.bytes.len()).expect("the caller bounds a listpack far below 4 GiB");
        let count = u16::try_from(self.count).unwrap_or(COUNT_UNKNOWN);
        self.bytes[..4].copy_from_slice(&total.to_le_bytes());
        self.bytes[4..HEADER_LEN].copy_from_slice(&count.to_le_bytes());
        &self.bytes
    }
}

/// The most bytes one element of `len` bytes takes: five of header, five of back length.
pub fn element_size_max(len: usize) -> usize {
    len + match len {
        0..64 => 2,
        64..4096 => 4,
        _ => 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;

    fn read(bytes: &[u8]) -> Result<Vec<Vec<u8>>, ErrorKind> {
        let mut listpack = Listpack::open(bytes)?;
        let mut elements = Vec::new();
        while let Some(element) = listpack.next()? {
            elements.push(element.text(&mut itoa::Buffer::new()).to_vec());
        }
        Ok(elements)
    }

    fn cases() -> Vec<Vec<u8>> {
        let mut cases: Vec<Vec<u8>> =
            [0, 1, 62, 63, 64, 65, 124, 125, 126, 127, 128, 4094, 4095, 4096, 16_378, 16_379]
                .iter()
                .chain(&[16_380, 16_381, 16_383, 70_000, 2_097_140, 2_097_146, 2_097_151])
                .map(|&len| vec![b'x'; len])
                .collect();
        for value in
            [0, 127, 128, 4095, 4096, 0x7fff, 0x8000, 0x7f_ffff, 0x80_0000, i64::from(i32::MAX), 1 << 31]
        {
            cases.extend([value, -value, -value - 1].map(|value| value.to_string().into_bytes()));
        }
        cases.extend([i64::MAX, i64::MIN].map(|value| value.to_string().into_bytes()));
        cases.extend(["-0", "007", "+1", "9223372036854775808"].map(|text| text.as_bytes().to_vec()));
        cases
    }

    /// Every border of every encoding survives, alone and together.
    #[test]
    fn round_trips() {
        let (mut all, mut all_cases) = (Builder::new(), Vec::new());
        for case in cases() {
            let mut one = Builder::new();
            one.push(&case);
            assert!(one.size() <= Builder::new().size_with(case.len()));
            assert_eq!(read(one.finish()).expect("our own output"), std::slice::from_ref(&case));
            all.push(&case);
            all_cases.push(case);
        }
        let mut twice = Builder::new();
        twice.append(&all);
        twice.append(&all);
        assert_eq!(twice.count(), 2 * all_cases.len() as u64);
        assert_eq!(read(all.finish()).expect("our own output"), all_cases);
        assert_eq!(read(twice.finish()).expect("our own output"), [all_cases.clone(), all_cases].concat());
        assert_eq!(read(Builder::new().finish()), Ok(Vec::new()));
    }

    /// Counts from 65535 on are not written, and are not missed.
    #[test]
    fn unknown_count() {
        for count in [65_534u64, 65_535, 65_536] {
            let mut builder = Builder::new();
            (0..count).for_each(|value| builder.push_int(value as i64));
            let listpack = Listpack::open(builder.finish()).expect("our own output");
            assert_eq!(listpack.count_hint(), (count < 65_535).then_some(count));
            assert_eq!(read(&builder.bytes).expect("our own output").len() as u64, count);
        }
    }

    /// A byte changed anywhere in the frame is noticed or changes content only; nothing panics.
    #[test]
    fn damage_is_contained() {
        let mut random = Random::new(21);
        let mut builder = Builder::new();
        (0..40).for_each(|n| builder.push(&vec![b'a'; n * 5]));
        (0..40).for_each(|n| builder.push_int(1 << n));
        let bytes = builder.finish().to_vec();
        for len in 0..bytes.len() {
            assert!(read(&bytes[..len]).is_err());
        }
        for _ in 0..20_000 {
            let mut bad = bytes.clone();
            let at = random.below(bad.len() as u64) as usize;
            bad[at] = random.next() as u8;
            let _ = read(&bad);
        }
    }
}
