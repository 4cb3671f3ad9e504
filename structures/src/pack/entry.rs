//! One entry of a pack: an element and its way back.
//!
//! ```text
//!   0vvvvvvv                                 integer 0..=127, the whole entry
//!   10llllll  bytes                    back  string of up to 63 bytes
//!   11000www  1+www bytes, little end  back  integer in the fewest of 1..=8 bytes
//!   11001000  u8 length   bytes        back  string of up to 255 bytes
//!   11001001  u16 length  bytes        back  string of up to 65 535 bytes
//!   11001010  u32 length  bytes        back  longer string
//!
//!   back:  1nnnnnnn                          n <= 125: the entry began n bytes before this byte
//!          u16 length  11111110              ... or that many bytes before the length
//!          u32 length  11111111
//! ```
//!
//! Every decoder here trusts the bytes: they were written by the encoder, never read from outside. Whatever
//! they are, reading them is checked slice access, so a broken pack panics and does not read past its end.

pub(super) const STR6: u8 = 0x80;
pub(super) const INT: u8 = 0xC0;
pub(super) const STR8: u8 = 0xC8;
const STR16: u8 = 0xC9;
const STR32: u8 = 0xCA;
const GAP: u8 = 0xF8;

const BACK7: u8 = 0x80;
const BACK7_MAX: usize = 0x7D;
const BACK16: u8 = 0xFE;
const BACK32: u8 = 0xFF;

/// One element: what a pack gives, and what it takes.
///
/// Two items that were made by [`Item::of`] or came out of a pack are equal exactly if their bytes are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Item<'a> {
    /// An integer; its bytes are the decimal form.
    Int(i64),
    /// Anything else.
    Bytes(&'a [u8]),
}

impl<'a> Item<'a> {
    /// The item that these bytes are stored as.
    #[inline]
    pub fn of(bytes: &'a [u8]) -> Self {
        match parse_int(bytes) {
            Some(value) => Self::Int(value),
            None => Self::Bytes(bytes),
        }
    }

    /// The element's bytes; an integer is written into `buffer`.
    #[inline]
    pub fn as_bytes<'b>(&self, buffer: &'b mut [u8; 20]) -> &'b [u8]
    where
        'a: 'b,
    {
        match *self {
            Self::Int(value) => format_int(value, buffer),
            Self::Bytes(bytes) => bytes,
        }
    }

    /// The element's bytes in a vector of their own.
    pub fn to_vec(&self) -> Vec<u8> {
        self.as_bytes(&mut [0; 20]).to_vec()
    }

    /// What an entry for this item takes, all included.
    #[inline]
    pub fn packed_len(&self) -> usize {
        match *self {
            Self::Int(0..=127) => 1,
            Self::Int(value) => 2 + int_width(value),
            Self::Bytes(bytes) => string_entry_len(bytes.len()),
        }
    }

    /// Bytes that a caller wrapped without asking whether they are an integer's.
    #[inline]
    pub(crate) fn canonical(self) -> Self {
        match self {
            Self::Bytes(bytes) => Self::of(bytes),
            int => int,
        }
    }
}

impl<'a> From<&'a [u8]> for Item<'a> {
    #[inline]
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(bytes)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Item<'a> {
    #[inline]
    fn from(bytes: &'a [u8; N]) -> Self {
        Self::Bytes(bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for Item<'a> {
    #[inline]
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<i64> for Item<'_> {
    #[inline]
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

/// The integer whose decimal form these bytes are exactly.
#[inline]
pub fn parse_int(bytes: &[u8]) -> Option<i64> {
    let (negative, digits) = match bytes {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'1'..=b'9', rest @ ..] if rest.len() < 19 => {
            let mut value = 0u64;
            for &digit in digits {
                let digit = digit.wrapping_sub(b'0');
                if digit > 9 {
                    return None;
                }
                // At most 19 digits: below 10^19, which is below 2^64.
                value = value * 10 + u64::from(digit);
            }
            if negative { 0i64.checked_sub_unsigned(value) } else { i64::try_from(value).ok() }
        }
        b"0" if !negative => Some(0),
        _ => None,
    }
}

/// The decimal form of `value`, at the end of `buffer`.
#[inline]
pub fn format_int(value: i64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut rest = value.unsigned_abs();
    let mut at = buffer.len();
    while rest >= 10 {
        at -= 1;
        buffer[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    at -= 1;
    buffer[at] = b'0' + rest as u8;
    if value < 0 {
        at -= 1;
        buffer[at] = b'-';
    }
    &buffer[at..]
}

/// The fewest bytes that hold `value` in two's complement.
#[inline]
pub(super) fn int_width(value: i64) -> usize {
    let magnitude = value ^ (value >> 63);
    (64 - magnitude.leading_zeros() as usize) / 8 + 1
}

/// An entry's length from that of everything before its back length.
#[inline]
fn with_back(body: usize) -> usize {
    if body <= BACK7_MAX {
        body + 1
    } else if body <= 0xFFFF {
        body + 3
    } else {
        body + 5
    }
}

#[inline]
fn string_entry_len(len: usize) -> usize {
    if len < 64 {
        len + 2
    } else if len <= 0xFF {
        with_back(len + 2)
    } else if len <= 0xFFFF {
        with_back(len + 3)
    } else {
        with_back(len + 5)
    }
}

/// Writes the entry of `item`; `out` is exactly [`Item::packed_len`] long.
#[inline]
pub(super) fn encode(item: Item<'_>, out: &mut [u8]) {
    match item {
        Item::Int(value @ 0..=127) => out[0] = value as u8,
        Item::Int(value) => {
            let width = int_width(value);
            out[0] = INT | (width - 1) as u8;
            out[1..=width].copy_from_slice(&value.to_le_bytes()[..width]);
            out[width + 1] = BACK7 | (width + 1) as u8;
        }
        Item::Bytes(bytes) if bytes.len() < 64 => {
            let len = bytes.len();
            out[0] = STR6 | len as u8;
            out[1..=len].copy_from_slice(bytes);
            out[len + 1] = BACK7 | (len + 1) as u8;
        }
        Item::Bytes(bytes) => encode_long(bytes, out),
    }
}

#[inline(never)]
fn encode_long(bytes: &[u8], out: &mut [u8]) {
    let len = bytes.len();
    let head = match len {
        0..=0xFF => {
            out[0] = STR8;
            out[1] = len as u8;
            2
        }
        0x100..=0xFFFF => {
            out[0] = STR16;
            out[1..3].copy_from_slice(&(len as u16).to_le_bytes());
            3
        }
        _ => {
            out[0] = STR32;
            out[1..5].copy_from_slice(&(len as u32).to_le_bytes());
            5
        }
    };
    let body = head + len;
    out[head..body].copy_from_slice(bytes);
    match &mut out[body..] {
        [back] => *back = BACK7 | body as u8,
        [size @ .., mark] if size.len() == 2 => {
            size.copy_from_slice(&(body as u16).to_le_bytes());
            *mark = BACK16;
        }
        [size @ .., mark] => {
            size.copy_from_slice(&(body as u32).to_le_bytes());
            *mark = BACK32;
        }
        [] => unreachable!("an entry has a back length"),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

fn u32_at(bytes: &[u8], at: usize) -> usize {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize
}

/// Where a string of 64 bytes or more begins behind its header, and its length.
#[inline(never)]
fn long_string(bytes: &[u8], at: usize) -> (usize, usize) {
    match bytes[at] {
        STR8 => (2, usize::from(bytes[at + 1])),
        STR16 => (3, u16_at(bytes, at + 1)),
        STR32 => (5, u32_at(bytes, at + 1)),
        other => unreachable!("no entry starts with {other:#04x}"),
    }
}

/// The length of the entry at `at`.
#[inline]
pub(super) fn entry_len(bytes: &[u8], at: usize) -> usize {
    let head = bytes[at];
    if head < STR6 {
        1
    } else if head < INT {
        usize::from(head & 0x3F) + 2
    } else if head < STR8 {
        usize::from(head & 7) + 3
    } else {
        let (skip, len) = long_string(bytes, at);
        with_back(skip + len)
    }
}

/// Where the entry that ends before `end` begins.
#[inline]
pub(super) fn entry_before(bytes: &[u8], end: usize) -> usize {
    let back = bytes[end - 1];
    if back < BACK7 {
        end - 1
    } else if back < BACK16 {
        end - 1 - usize::from(back & 0x7F)
    } else {
        long_entry_before(bytes, end)
    }
}

/// Out of line, like [`long_string`], so that the loops over short entries stay small enough to be inlined.
#[inline(never)]
fn long_entry_before(bytes: &[u8], end: usize) -> usize {
    match bytes[end - 1] {
        BACK16 => end - 3 - u16_at(bytes, end - 3),
        _ => end - 5 - u32_at(bytes, end - 5),
    }
}

#[inline]
pub(super) fn int_at(bytes: &[u8], at: usize, width: usize) -> i64 {
    let raw = match bytes.get(at..at + 8) {
        Some(eight) => u64::from_le_bytes(eight.try_into().expect("the slice is eight bytes long")),
        None => {
            let mut eight = [0; 8];
            eight[..width].copy_from_slice(&bytes[at..at + width]);
            u64::from_le_bytes(eight)
        }
    };
    let unused = 64 - 8 * width as u32;
    (raw << unused) as i64 >> unused
}

/// The entry at `at`, and where the next one begins.
#[inline]
pub(super) fn decode(bytes: &[u8], at: usize) -> (Item<'_>, usize) {
    let head = bytes[at];
    if head < STR6 {
        (Item::Int(i64::from(head)), at + 1)
    } else if head < INT {
        let end = at + 1 + usize::from(head & 0x3F);
        (Item::Bytes(&bytes[at + 1..end]), end + 1)
    } else if head < STR8 {
        let width = usize::from(head & 7) + 1;
        (Item::Int(int_at(bytes, at + 1, width)), at + width + 2)
    } else {
        let (skip, len) = long_string(bytes, at);
        (Item::Bytes(&bytes[at + skip..at + skip + len]), at + with_back(skip + len))
    }
}

/// How many unused bytes are in front of the first entry.
#[inline]
pub(super) fn gap_of(bytes: &[u8]) -> usize {
    match bytes.first() {
        Some(&mark) if mark >= GAP => match mark - GAP {
            0 => u32_at(bytes, 1),
            size => usize::from(size),
        },
        _ => 0,
    }
}

pub(super) fn write_gap(bytes: &mut [u8], gap: usize) {
    match gap {
        0 => {}
        1..=4 => bytes[0] = GAP + gap as u8,
        _ => {
            bytes[0] = GAP;
            bytes[1..5].copy_from_slice(&(gap as u32).to_le_bytes());
        }
    }
}
