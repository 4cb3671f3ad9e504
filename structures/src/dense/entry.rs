//! One entry: a key, an expiry if it has one, and in a hash a value.
//!
//! ```text
//! set:   [code 1][expiry 6]?[length 2]?[member]
//! hash:  [code 1][expiry 6]?[length 2]?[field][code 1][length 2]?[value]
//!
//! code:  0..=111  string of so many bytes          112..=119  integer of 1 to 8 bytes, two's complement
//!        120      string with bytes of length      121        allocation of its own: [pointer 8][length 4]
//!        bit 7, of the first code only: there is an expiry, in milliseconds since 1970
//! ```
//!
//! A 27-byte member is 28 bytes. Strings that are the canonical form of a number are stored as that number, members
//! and fields too: in a set of a million eight-digit numbers that is 6 bytes instead of 10. The hash is that of the
//! text in either case, so a lookup converts nothing before a fingerprint agrees.
//!
//! Six bytes of expiry reach the year 10889; a later one is stored as the last millisecond of that range.
//!
//! Whether a string is inside does not depend on whether there is an expiry: the limits leave room for one. So an
//! expiry comes and goes without anything moving outside.

#![expect(unsafe_code, reason = "long strings are owned through pointers stored in packed entries")]

use crate::hash::{hash, same};
use crate::moves::Mover;
use crate::outside;
use crate::pack::{Item, format_int, parse_int};
use crate::table::{ENTRY_LEN_MAX, Layout, Plain};

const EXPIRES: u8 = 0x80;
const CODE: u8 = 0x7F;
const SHORT_MAX: usize = 111;
/// The code before that of an integer of one byte.
const INT: u8 = 111;
const LONG: u8 = 120;
const OUT: u8 = 121;

const EXPIRY_LEN: usize = 6;
/// The last expiry that six bytes hold.
pub(super) const EXPIRY_MAX: u64 = (1 << (8 * EXPIRY_LEN)) - 1;

/// What the code, an expiry and a length of a key take at most.
const KEY_HEAD_MAX: usize = 1 + EXPIRY_LEN + 2;
/// The longest member kept inside.
const MEMBER_IN_MAX: usize = ENTRY_LEN_MAX - KEY_HEAD_MAX;
/// The longest field kept inside: half an entry, so that there is room for a value of equal rank.
const FIELD_IN_MAX: usize = 240;
/// Field and value bodies that fit together.
const PAIR_IN_MAX: usize = ENTRY_LEN_MAX - KEY_HEAD_MAX - 3;
/// The longest field and the longest value that are inside whatever the other is.
pub(super) const EACH_IN_MAX: usize = FIELD_IN_MAX;

const _: () = assert!(FIELD_IN_MAX + outside::EXACT_LEN <= PAIR_IN_MAX && 2 * EACH_IN_MAX <= PAIR_IN_MAX);
const _: () = assert!(SHORT_MAX == INT as usize && OUT <= CODE);

/// Where a string's body is in its entry, and in which form.
#[derive(Clone, Copy)]
pub(super) struct Span {
    code: u8,
    start: usize,
    end: usize,
}

impl Span {
    #[inline]
    fn new(code: u8, entry: &[u8], at: usize) -> Span {
        let (start, len) = match code {
            0..=INT => (at, usize::from(code)),
            LONG => (at + 2, usize::from(u16::from_le_bytes([entry[at], entry[at + 1]]))),
            OUT => (at, outside::EXACT_LEN),
            int => (at, usize::from(int - INT)),
        };
        Span { code, start, end: start + len }
    }

    /// Of the key.
    #[inline]
    pub(super) fn key(entry: &[u8]) -> Span {
        Span::new(entry[0] & CODE, entry, key_at(entry))
    }

    /// Of the value behind a key.
    #[inline]
    pub(super) fn value(entry: &[u8], key: Span) -> Span {
        Span::new(entry[key.end], entry, key.end + 1)
    }

    /// Bytes of the body.
    #[inline]
    pub(super) fn len(self) -> usize {
        self.end - self.start
    }

    /// Where what follows the string begins.
    #[inline]
    pub(super) fn end(self) -> usize {
        self.end
    }

    /// The string.
    #[inline]
    pub(super) fn read(self, entry: &[u8]) -> Item<'_> {
        let body = &entry[self.start..self.end];
        match self.code {
            0..=INT | LONG => Item::Bytes(body),
            // SAFETY: entries are written by this module alone, which writes this code only before what
            // `store_exact` wrote; when the string is freed the entry goes or gets another code.
            OUT => Item::Bytes(unsafe { outside::view(body) }),
            _ => Item::Int(read_int(body)),
        }
    }

    /// What the string holds outside.
    #[inline]
    pub(super) fn outside_bytes(self, entry: &[u8]) -> usize {
        if self.code == OUT { outside::exact_bytes(&entry[self.start..]) } else { 0 }
    }
}

/// Start of what follows the first code and the expiry.
#[inline]
fn key_at(entry: &[u8]) -> usize {
    if entry[0] & EXPIRES == 0 { 1 } else { 1 + EXPIRY_LEN }
}

#[inline]
fn read_int(body: &[u8]) -> i64 {
    #[inline(always)]
    fn wide<const N: usize>(body: &[u8]) -> i64 {
        let mut bytes = [0; 8];
        bytes[8 - N..].copy_from_slice(&body[..N]);
        // The number is in the upper bytes: shifting it down extends its sign.
        i64::from_le_bytes(bytes) >> (64 - 8 * N)
    }
    match body.len() {
        1 => wide::<1>(body),
        2 => wide::<2>(body),
        3 => wide::<3>(body),
        4 => wide::<4>(body),
        5 => wide::<5>(body),
        6 => wide::<6>(body),
        7 => wide::<7>(body),
        _ => wide::<8>(body),
    }
}

/// The fewest bytes that hold `value` in two's complement.
#[inline]
fn int_len(value: i64) -> usize {
    let magnitude = value ^ (value >> 63);
    (64 - magnitude.leading_zeros() as usize) / 8 + 1
}

/// A string to be written.
#[derive(Clone, Copy)]
pub(super) enum Part<'a> {
    Int(i64),
    In(&'a [u8]),
    Out(&'a [u8]),
}

impl<'a> Part<'a> {
    #[inline]
    fn new(bytes: &'a [u8], in_max: usize) -> Part<'a> {
        match parse_int(bytes) {
            Some(value) => Part::Int(value),
            None if bytes.len() <= in_max => Part::In(bytes),
            None => Part::Out(bytes),
        }
    }

    /// A key of a table with or without values.
    #[inline]
    pub(super) fn key<const VALUE: bool>(bytes: &'a [u8]) -> Part<'a> {
        Part::new(bytes, if VALUE { FIELD_IN_MAX } else { MEMBER_IN_MAX })
    }

    /// A value behind a field whose body has `field_len` bytes.
    #[inline]
    pub(super) fn value(bytes: &'a [u8], field_len: usize) -> Part<'a> {
        Part::new(bytes, PAIR_IN_MAX - field_len)
    }

    /// Bytes of the body.
    #[inline]
    pub(super) fn body_len(&self) -> usize {
        match self {
            Part::Int(value) => int_len(*value),
            Part::In(bytes) => bytes.len(),
            Part::Out(_) => outside::EXACT_LEN,
        }
    }

    /// Bytes of code, length and body.
    #[inline]
    fn len(&self) -> usize {
        1 + self.body_len() + if self.code() == LONG { 2 } else { 0 }
    }

    #[inline]
    fn code(&self) -> u8 {
        match self {
            Part::Int(value) => INT + int_len(*value) as u8,
            Part::In(bytes) if bytes.len() <= SHORT_MAX => bytes.len() as u8,
            Part::In(_) => LONG,
            Part::Out(_) => OUT,
        }
    }

    /// Whether this is the string at `span` of an entry; neither is outside.
    #[inline]
    pub(super) fn is_at(&self, entry: &[u8], span: Span) -> bool {
        if self.code() != span.code {
            return false;
        }
        match self {
            Part::Int(value) => *value == read_int(&entry[span.start..span.end]),
            Part::In(bytes) | Part::Out(bytes) => *bytes == &entry[span.start..span.end],
        }
    }

    /// What writing it takes outside.
    #[inline]
    pub(super) fn outside_bytes(&self) -> usize {
        match self {
            Part::Out(bytes) => crate::alloc::good_size(bytes.len()),
            _ => 0,
        }
    }

    /// Writes length and body; returns the end. A string outside is allocated here.
    #[inline]
    fn write(&self, to: &mut [u8], at: usize) -> usize {
        match self {
            Part::Int(value) => {
                let end = at + int_len(*value);
                to[at..end].copy_from_slice(&value.to_le_bytes()[..end - at]);
                end
            }
            Part::In(bytes) => {
                let at = if bytes.len() <= SHORT_MAX {
                    at
                } else {
                    to[at..at + 2].copy_from_slice(&(bytes.len() as u16).to_le_bytes());
                    at + 2
                };
                to[at..at + bytes.len()].copy_from_slice(bytes);
                at + bytes.len()
            }
            Part::Out(bytes) => {
                outside::store_exact(bytes, &mut to[at..]);
                at + outside::EXACT_LEN
            }
        }
    }

    /// Overwrites a string of the same form and length where it is; false if the one there differs in that, or if
    /// either is outside.
    #[inline]
    pub(super) fn write_over(&self, entry: &mut [u8], span: Span) -> bool {
        let fits = self.code() == span.code && self.body_len() == span.len() && span.code != OUT;
        if fits {
            self.write(entry, span.start - if span.code == LONG { 2 } else { 0 });
        }
        fits
    }
}

/// The expiry of an entry.
#[inline]
pub(super) fn expire_at(entry: &[u8]) -> Option<u64> {
    if entry[0] & EXPIRES == 0 {
        return None;
    }
    let mut bytes = [0; 8];
    bytes[..EXPIRY_LEN].copy_from_slice(&entry[1..1 + EXPIRY_LEN]);
    Some(u64::from_le_bytes(bytes))
}

/// Writes the first code and the expiry; returns where the key goes on.
#[inline]
fn write_head(entry: &mut [u8], code: u8, expire_at: Option<u64>) -> usize {
    match expire_at {
        None => {
            entry[0] = code;
            1
        }
        Some(at) => {
            entry[0] = code | EXPIRES;
            entry[1..1 + EXPIRY_LEN].copy_from_slice(&at.to_le_bytes()[..EXPIRY_LEN]);
            1 + EXPIRY_LEN
        }
    }
}

fn expiry_len(expire_at: Option<u64>) -> usize {
    if expire_at.is_some() { EXPIRY_LEN } else { 0 }
}

/// An entry to be written, of new strings.
pub(super) struct Draft<'a> {
    pub(super) key: Part<'a>,
    pub(super) expire_at: Option<u64>,
    /// Exactly if the table has values.
    pub(super) value: Option<Part<'a>>,
}

impl Draft<'_> {
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.key.len() + expiry_len(self.expire_at) + self.value.map_or(0, |value| value.len())
    }

    #[inline]
    pub(super) fn write(&self, entry: &mut [u8]) {
        let at = write_head(entry, self.key.code(), self.expire_at);
        let end = self.key.write(entry, at);
        if let Some(value) = &self.value {
            entry[end] = value.code();
            value.write(entry, end + 1);
        }
    }

    pub(super) fn outside_bytes(&self) -> usize {
        self.key.outside_bytes() + self.value.map_or(0, |value| value.outside_bytes())
    }
}

/// An entry that is there, with another expiry and, if one is given, another value.
pub(super) struct Revision<'a> {
    pub(super) expire_at: Option<u64>,
    pub(super) value: Option<Part<'a>>,
}

impl Revision<'_> {
    /// Length of what `old`, an exact entry, becomes.
    pub(super) fn len(&self, old: &[u8]) -> usize {
        let key_end = Span::key(old).end;
        let rest = self.value.map_or(old.len() - key_end, |value| value.len());
        key_end - key_at(old) + 1 + expiry_len(self.expire_at) + rest
    }

    /// Writes what `old` becomes. Owned strings move, a replaced value excepted: that is returned.
    pub(super) fn write(&self, old: &[u8], new: &mut [u8]) -> Owned {
        let key = Span::key(old);
        let at = write_head(new, key.code, self.expire_at);
        let from = key_at(old);
        let Some(value) = &self.value else {
            new[at..at + old.len() - from].copy_from_slice(&old[from..]);
            return Owned::default();
        };
        let end = at + key.end - from;
        new[at..end].copy_from_slice(&old[from..key.end]);
        new[end] = value.code();
        value.write(new, end + 1);
        let mut replaced = Owned::default();
        replaced.add(old, Span::value(old, key));
        replaced
    }
}

/// Strings outside that an entry owned, to be freed once the entry has forgotten them.
#[derive(Default)]
pub(super) struct Owned {
    parts: [Option<[u8; outside::EXACT_LEN]>; 2],
}

impl Owned {
    /// All that an entry owns. The caller removes the entry.
    pub(super) fn of<const VALUE: bool>(entry: &[u8]) -> Owned {
        let mut owned = Owned::default();
        let key = Span::key(entry);
        owned.add(entry, key);
        if VALUE {
            owned.add(entry, Span::value(entry, key));
        }
        owned
    }

    fn add(&mut self, entry: &[u8], span: Span) {
        if span.code == OUT {
            let free =
                self.parts.iter_mut().find(|part| part.is_none()).expect("an entry has two strings at most");
            *free = Some(entry[span.start..span.end].try_into().expect("as long as OUT says"));
        }
    }

    /// Frees them; returns the bytes.
    pub(super) fn free(self) -> usize {
        // SAFETY: the parts come from an entry that this module wrote, and `of` and `write` oblige their callers to
        // let the entry forget them. `self` is consumed, so they are freed once.
        self.parts.iter().flatten().map(|part| unsafe { outside::drop_exact(part) }).sum()
    }
}

/// What all strings of an entry hold outside.
pub(super) fn outside_bytes<const VALUE: bool>(entry: &[u8]) -> usize {
    let key = Span::key(entry);
    key.outside_bytes(entry) + if VALUE { Span::value(entry, key).outside_bytes(entry) } else { 0 }
}

/// Gives the strings that an entry owns other addresses; see [`Mover`].
pub(super) fn relocate<const VALUE: bool>(entry: &mut [u8], mover: &mut Mover<'_>) {
    let key = Span::key(entry);
    let value = if VALUE { Some(Span::value(entry, key)) } else { None };
    for span in [Some(key), value].into_iter().flatten().filter(|span| span.code == OUT) {
        // SAFETY: by the code this is what `store_exact` wrote, and the entry owns it; its borrow excludes readers.
        unsafe { outside::relocate_exact(&mut entry[span.start..span.end], mover) };
    }
}

/// The table's view of an entry.
pub(super) struct Entry<const VALUE: bool>;

impl<const VALUE: bool> Layout for Entry<VALUE> {
    type Bucket = Plain;

    #[inline]
    fn entry_len(entry: &[u8]) -> usize {
        let key = Span::key(entry);
        if VALUE { Span::value(entry, key).end } else { key.end }
    }

    #[inline]
    fn matches(entry: &[u8], key: &[u8]) -> bool {
        let code = entry[0] & CODE;
        if usize::from(code) <= SHORT_MAX {
            let at = key_at(entry);
            return usize::from(code) == key.len() && same(&entry[at..at + key.len()], key);
        }
        match Span::key(entry).read(entry) {
            Item::Int(value) => parse_int(key) == Some(value),
            Item::Bytes(bytes) => bytes == key,
        }
    }

    #[inline]
    fn hash(entry: &[u8], seed: u64) -> u64 {
        match Span::key(entry).read(entry) {
            Item::Int(value) => hash(format_int(value, &mut [0; 20]), seed),
            Item::Bytes(bytes) => hash(bytes, seed),
        }
    }

    fn drop_owned(entry: &mut [u8]) {
        Owned::of::<VALUE>(entry).free();
    }

    fn clone_owned(copy: &mut [u8]) {
        let key = Span::key(copy);
        let value = if VALUE { Some(Span::value(copy, key)) } else { None };
        for span in [Some(key), value].into_iter().flatten().filter(|span| span.code == OUT) {
            // SAFETY: by the code this is a copy of what `store_exact` wrote; the table calls this while the
            // original still owns the string.
            unsafe { outside::duplicate(&mut copy[span.start..span.end]) };
        }
    }

    const OWNS: bool = true;
}
