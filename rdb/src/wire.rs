//! Lengths and strings, the two items everything else is made of.
//!
//! ```text
//! 00LLLLLL                length of 6 bits
//! 01LLLLLL LLLLLLLL       14 bits
//! 10000000 + 4 bytes      32 bits, big endian
//! 10000001 + 8 bytes      64 bits, big endian
//! 11000000 + 1 byte       string: an 8-bit integer as decimal text
//! 11000001 + 2 bytes      string: 16 bits, little endian
//! 11000010 + 4 bytes      string: 32 bits, little endian
//! 11000011 clen len ...   string: LZF
//! ```
//!
//! Reading is done on a window of contiguous bytes. An item that is not whole yet answers [`Stop::More`] and is
//! read again from its first byte when more has come; nothing is half consumed.

use crate::error::{ErrorKind, Stop};
use crate::limits::Limits;
use crate::lzf;

const LEN_6: u8 = 0;
const LEN_14: u8 = 1;
const LEN_32: u8 = 0x80;
const LEN_64: u8 = 0x81;
const INT_8: u8 = 0xc0;
const INT_16: u8 = 0xc1;
const INT_32: u8 = 0xc2;
const LZF: u8 = 0xc3;

/// Redis tries integers on strings of at most this many bytes: `-2147483648` has eleven.
const INT_TEXT_LEN_MAX: usize = 11;

/// Strings of 20 bytes and less are not worth compressing, nor are savings below four bytes.
pub(crate) const LZF_INPUT_LEN_MIN: usize = 21;
pub(crate) const LZF_SAVING_MIN: usize = 4;

/// Appends a length (also the "packed uint" of journal entries).
pub fn put_len(out: &mut Vec<u8>, len: u64) {
    if len < 1 << 6 {
        out.push(len as u8);
    } else if len < 1 << 14 {
        out.extend_from_slice(&[0x40 | (len >> 8) as u8, len as u8]);
    } else if len <= u64::from(u32::MAX) {
        out.push(LEN_32);
        out.extend_from_slice(&(len as u32).to_be_bytes());
    } else {
        out.push(LEN_64);
        out.extend_from_slice(&len.to_be_bytes());
    }
}

/// Reads a length (or "packed uint") from the front of `bytes`: the value and how many bytes it took, or `None` if
/// more bytes are needed.
pub fn take_len(bytes: &[u8]) -> Result<Option<(u64, usize)>, ErrorKind> {
    let mut cursor = Cursor::new(bytes);
    match cursor.length() {
        Ok(len) => Ok(Some((len, cursor.at))),
        Err(Stop::More(_)) => Ok(None),
        Err(Stop::Bad(kind)) => Err(kind),
    }
}

/// Appends a string without compression: as an integer where it is the canonical text of one, raw otherwise.
pub fn put_string(out: &mut Vec<u8>, string: &[u8]) {
    if !put_int_string(out, string) {
        put_raw_string(out, string);
    }
}

pub(crate) fn put_raw_string(out: &mut Vec<u8>, string: &[u8]) {
    put_len(out, string.len() as u64);
    out.extend_from_slice(string);
}

/// What stands before the compressed bytes of a string.
pub(crate) fn put_lzf_header(out: &mut Vec<u8>, packed_len: usize, len: usize) {
    out.push(LZF);
    put_len(out, packed_len as u64);
    put_len(out, len as u64);
}

/// The integer form of a string, if it has one.
pub(crate) fn put_int_string(out: &mut Vec<u8>, string: &[u8]) -> bool {
    if string.is_empty() || string.len() > INT_TEXT_LEN_MAX {
        return false;
    }
    let Some(value) = canonical_i64(string) else { return false };
    if let Ok(value) = i8::try_from(value) {
        out.extend_from_slice(&[INT_8, value as u8]);
    } else if let Ok(value) = i16::try_from(value) {
        let [low, high] = value.to_le_bytes();
        out.extend_from_slice(&[INT_16, low, high]);
    } else if let Ok(value) = i32::try_from(value) {
        out.push(INT_32);
        out.extend_from_slice(&value.to_le_bytes());
    } else {
        return false;
    }
    true
}

/// The integer whose decimal text is exactly `text`: no sign but `-`, no leading zero, no `-0`.
pub(crate) fn canonical_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [] => return None,
        [b'0'] => return (!negative).then_some(0),
        [b'0', ..] => return None,
        _ if digits.len() > 19 => return None,
        _ => {}
    }
    let mut value: u64 = 0;
    for &digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        // Nineteen digits stay below 10^19 < 2^64.
        value = value * 10 + u64::from(digit);
    }
    if negative {
        (value <= 1 << 63).then(|| (value as i64).wrapping_neg())
    } else {
        i64::try_from(value).ok()
    }
}

/// A reading position in contiguous bytes.
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    pub(crate) at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes, at: 0 }
    }

    pub(crate) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], Stop> {
        let left = self.left();
        if len > left {
            return Err(Stop::More(len - left));
        }
        let taken = &self.bytes[self.at..self.at + len];
        self.at += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let taken = self.take(N)?;
        Ok(taken.try_into().expect("take() answers as many bytes as asked for"))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Stop> {
        let [byte] = self.array()?;
        Ok(byte)
    }

    pub(crate) fn u32_le(&mut self) -> Result<u32, Stop> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64_le(&mut self) -> Result<u64, Stop> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn u64_be(&mut self) -> Result<u64, Stop> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn f64_le(&mut self) -> Result<f64, Stop> {
        self.array().map(f64::from_le_bytes)
    }

    pub(crate) fn f32_le(&mut self) -> Result<f32, Stop> {
        self.array().map(f32::from_le_bytes)
    }

    /// A length that may not be one of the string encodings.
    pub(crate) fn length(&mut self) -> Result<u64, Stop> {
        let first = self.u8()?;
        self.length_after(first)
    }

    #[inline]
    fn length_after(&mut self, first: u8) -> Result<u64, Stop> {
        match first >> 6 {
            LEN_6 => Ok(u64::from(first)),
            LEN_14 => Ok(u64::from(first & 0x3f) << 8 | u64::from(self.u8()?)),
            _ => match first {
                LEN_32 => Ok(u64::from(u32::from_be_bytes(self.array()?))),
                LEN_64 => self.u64_be(),
                _ => Err(ErrorKind::Length.into()),
            },
        }
    }

    /// A length that counts bytes to follow.
    pub(crate) fn size(&mut self, limit: u64, what: &'static str) -> Result<usize, Stop> {
        let len = self.length()?;
        if len > limit {
            return Err(ErrorKind::TooLarge(what).into());
        }
        Ok(len as usize)
    }

    /// Walks over a string without putting it together.
    pub(crate) fn skip_string(&mut self, limits: &Limits) -> Result<(), Stop> {
        let len = match self.u8()? {
            INT_8 => 1,
            INT_16 => 2,
            INT_32 => 4,
            LZF => {
                let len = self.size(limits.string_len_max, "compressed string")?;
                self.length()?;
                len
            }
            first => {
                let len = self.length_after(first)?;
                if len > limits.string_len_max {
                    return Err(ErrorKind::TooLarge("string").into());
                }
                len as usize
            }
        };
        self.take(len)?;
        Ok(())
    }

    /// A string. What is not raw in the window is put together in `scratch`.
    #[inline]
    pub(crate) fn string<'s>(&mut self, scratch: &'s mut Vec<u8>, limits: &Limits) -> Result<&'s [u8], Stop>
    where
        'a: 's,
    {
        let first = self.u8()?;
        if first < INT_8 {
            let len = self.length_after(first)?;
            if len > limits.string_len_max {
                return Err(ErrorKind::TooLarge("string").into());
            }
            return self.take(len as usize);
        }
        let value = match first {
            INT_8 => i64::from(self.u8()? as i8),
            INT_16 => i64::from(i16::from_le_bytes(self.array()?)),
            INT_32 => i64::from(i32::from_le_bytes(self.array()?)),
            LZF => {
                let packed_len = self.size(limits.string_len_max, "compressed string")?;
                let len = self.length()?;
                if len > limits.string_len_max {
                    return Err(ErrorKind::TooLarge("string").into());
                }
                let packed = self.take(packed_len)?;
                lzf::decompress(packed, len, scratch)?;
                return Ok(scratch);
            }
            _ => return Err(ErrorKind::Length.into()),
        };
        scratch.clear();
        scratch.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
        Ok(scratch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BORDERS: &[u64] = &[0, 1, 63, 64, 16383, 16384, u32::MAX as u64, u32::MAX as u64 + 1, u64::MAX];

    /// Lengths survive at the borders of every form, and a cut one asks for the missing bytes.
    #[test]
    fn lengths() {
        for (&len, size) in BORDERS.iter().zip([1, 1, 1, 2, 2, 5, 5, 9, 9]) {
            let mut out = Vec::new();
            put_len(&mut out, len);
            assert_eq!(out.len(), size);
            assert_eq!(take_len(&out), Ok(Some((len, size))));
            for cut in 0..size {
                assert_eq!(take_len(&out[..cut]), Ok(None));
            }
        }
        assert_eq!(take_len(&[0x82, 0, 0]), Err(ErrorKind::Length));
        assert_eq!(take_len(&[0xc0, 0, 0]), Err(ErrorKind::Length));
    }

    /// Only what an integer would be printed as counts as an integer.
    #[test]
    fn canonical_integers() {
        for value in [0, 1, -1, 9, 10, 127, -128, 32768, i64::MAX, i64::MIN, i64::MIN + 1] {
            assert_eq!(canonical_i64(value.to_string().as_bytes()), Some(value));
        }
        for text in
            ["", "-", "-0", "00", "01", "+1", " 1", "1 ", "1a", "9223372036854775808", "-9223372036854775809"]
        {
            assert_eq!(canonical_i64(text.as_bytes()), None, "{text}");
        }
    }

    /// Each width of integer has its encoding and comes back as the same text.
    #[test]
    fn integer_strings() {
        let limits = Limits::PAYLOAD;
        for (value, size) in [
            (0i64, 2),
            (127, 2),
            (-128, 2),
            (128, 3),
            (-32768, 3),
            (32768, 5),
            (i64::from(i32::MIN), 5),
            (i64::from(i32::MAX), 5),
            (i64::from(i32::MAX) + 1, 11),
            (i64::MAX, 20),
        ] {
            let (mut out, mut scratch) = (Vec::new(), Vec::new());
            put_string(&mut out, value.to_string().as_bytes());
            assert_eq!(out.len(), size, "{value}");
            let mut cursor = Cursor::new(&out);
            assert_eq!(cursor.string(&mut scratch, &limits), Ok(value.to_string().as_bytes()));
            assert_eq!(cursor.left(), 0);
        }
    }
}
