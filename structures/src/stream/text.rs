//! Field names and values as a node stores them: bytes, or an integer where that is shorter.
//!
//! ```text
//! varint length x 2      then the bytes
//! varint width x 2 + 1   then width (0-8) little-endian bytes of an integer, sign-extended
//! ```

/// A field name or value.
///
/// Numbers are stored as such, so they have no bytes to point at: [`Text::bytes`] writes them to a buffer of the
/// caller's. Only text that is exactly what the integer prints as is stored so, and nobody sees the difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text<'a> {
    /// Any bytes.
    Bytes(&'a [u8]),
    /// The decimal digits of this number.
    Int(i64),
}

/// The longest integer: `-9223372036854775808`.
const DIGITS_MAX: usize = 20;

/// Where [`Text::bytes`] puts digits.
pub type Digits = [u8; DIGITS_MAX];

impl<'a> Text<'a> {
    /// The text; `digits` is only written to for integers.
    pub fn bytes<'b>(self, digits: &'b mut Digits) -> &'b [u8]
    where
        'a: 'b,
    {
        let number = match self {
            Text::Bytes(bytes) => return bytes,
            Text::Int(number) => number,
        };
        let mut at = DIGITS_MAX;
        let mut rest = number.unsigned_abs();
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if number < 0 {
            at -= 1;
            digits[at] = b'-';
        }
        &digits[at..]
    }

    /// An owned copy.
    pub fn to_vec(self) -> Vec<u8> {
        self.bytes(&mut Digits::default()).to_vec()
    }

    pub(super) fn is(self, bytes: &[u8]) -> bool {
        self.bytes(&mut Digits::default()) == bytes
    }
}

/// The integer that prints as these bytes and nothing else: no leading zeros or plus, no "-0".
#[inline]
fn canonical(bytes: &[u8]) -> Option<i64> {
    let (negative, digits) = match bytes {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [] | [b'0', _, ..] => return None,
        [b'0'] => return (!negative).then_some(0),
        _ if digits.len() > 19 => return None,
        _ => {}
    }
    let mut value = 0u64;
    for &digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        // Nineteen digits fit an unsigned 64-bit integer.
        value = value * 10 + u64::from(digit);
    }
    if negative { 0i64.checked_sub_unsigned(value) } else { i64::try_from(value).ok() }
}

pub(super) fn push_varint(buf: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        buf.push(value as u8 | 0x80);
        value >>= 7;
    }
    buf.push(value as u8);
}

/// Reads a varint that [`push_varint`] wrote and moves `at` behind it.
#[inline(always)]
pub(super) fn varint(buf: &[u8], at: &mut usize) -> u64 {
    let first = buf[*at];
    *at += 1;
    if first < 0x80 {
        return u64::from(first);
    }
    let (mut value, mut shift) = (u64::from(first & 0x7f), 7);
    loop {
        let byte = buf[*at];
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return value;
        }
        shift += 7;
    }
}

/// Bytes of an integer in a listpack of Redis, with the length behind it that walking backwards needs.
#[inline]
pub(super) fn listpack_int(number: i64) -> usize {
    match number {
        0..=127 => 2,
        -4096..=4095 => 3,
        _ => match 65 - (number ^ (number >> 63)).leading_zeros() {
            0..=16 => 4,
            17..=24 => 5,
            25..=32 => 6,
            _ => 10,
        },
    }
}

/// The same of a string that is no integer.
#[inline]
fn listpack_string(len: usize) -> usize {
    let len = match len {
        0..64 => 1 + len,
        64..4096 => 2 + len,
        _ => 5 + len,
    };
    let behind = match len {
        0..128 => 1,
        128..16_383 => 2,
        16_383..2_097_151 => 3,
        2_097_151..268_435_455 => 4,
        _ => 5,
    };
    len + behind
}

/// Writes a text; returns what it would take in a listpack of Redis, because that decides when a node is full.
#[inline]
pub(super) fn push_text(buf: &mut Vec<u8>, text: &[u8]) -> usize {
    if let Some(number) = canonical(text) {
        // Bits that are not the sign's: a byte holds seven and the sign.
        let bits = 65 - (number ^ (number >> 63)).leading_zeros() as usize;
        let width = if number == 0 { 0 } else { bits.div_ceil(8) };
        if width < text.len() {
            buf.push((width << 1 | 1) as u8);
            buf.extend_from_slice(&number.to_le_bytes()[..width]);
            return listpack_int(number);
        }
        // One digit: a byte in either form.
        push_bytes(buf, text);
        return listpack_int(number);
    }
    push_bytes(buf, text);
    listpack_string(text.len())
}

#[inline]
fn push_bytes(buf: &mut Vec<u8>, text: &[u8]) {
    push_varint(buf, (text.len() as u64) << 1);
    buf.extend_from_slice(text);
}

/// Reads what [`push_text`] wrote and moves `at` behind it.
#[inline]
pub(super) fn text<'a>(buf: &'a [u8], at: &mut usize) -> Text<'a> {
    let tag = varint(buf, at);
    let len = (tag >> 1) as usize;
    let bytes = &buf[*at..*at + len];
    *at += len;
    if tag & 1 == 0 {
        return Text::Bytes(bytes);
    }
    let mut eight = [0; 8];
    eight[..len].copy_from_slice(bytes);
    let unused = 64 - 8 * len as u32;
    let number = if len == 0 { 0 } else { i64::from_le_bytes(eight) << unused >> unused };
    Text::Int(number)
}

#[cfg(test)]
mod tests {
    use super::{Text, push_text, text};

    /// Every text reads back as written, and exactly the canonical integers are numbers when that is shorter.
    #[test]
    fn texts_read_back() {
        let long = vec![b'x'; 20_000];
        let cases: &[(&[u8], bool)] = &[
            (b"", false),
            (b"0", true),
            (b"-0", false),
            (b"00", false),
            (b"01", false),
            (b"+1", false),
            (b"-", false),
            (b"7", false),
            (b"-7", true),
            (b"12", true),
            (b"127", true),
            (b"128", true),
            (b"-128", true),
            (b"-129", true),
            (b"32768", true),
            (b"1 2", false),
            (b"9223372036854775807", true),
            (b"9223372036854775808", false),
            (b"-9223372036854775808", true),
            (b"-9223372036854775809", false),
            (b"99999999999999999999", false),
            (b"12345678901234567890", false),
            (b"hello", false),
            (&long, false),
        ];
        for &(bytes, number) in cases {
            let mut buf = b"before".to_vec();
            push_text(&mut buf, bytes);
            buf.extend_from_slice(b"after");
            let mut at = 6;
            let read = text(&buf, &mut at);
            assert_eq!(read.to_vec(), bytes);
            assert!(read.is(bytes));
            assert_eq!(&buf[at..], b"after");
            assert_eq!(matches!(read, Text::Int(_)), number, "{:?}", String::from_utf8_lossy(bytes));
        }
        for shift in 0..63 {
            for number in [1i64 << shift, (1 << shift) - 1, -(1 << shift), -(1 << shift) - 1] {
                let mut buf = Vec::new();
                push_text(&mut buf, number.to_string().as_bytes());
                assert_eq!(text(&buf, &mut 0).to_vec(), number.to_string().as_bytes());
            }
        }
    }
}
