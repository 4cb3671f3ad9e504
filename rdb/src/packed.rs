//! What the compact encodings have in common: an element is a byte string or an integer that stands for its decimal
//! text, and it must be compared and copied as the same thing in either form.

use crate::error::ErrorKind;
use crate::wire::canonical_i64;

/// One element of a listpack, ziplist, zipmap or intset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Packed<'a> {
    /// The bytes themselves.
    Bytes(&'a [u8]),
    /// An integer, for its decimal text.
    Int(i64),
}

impl<'a> Packed<'a> {
    /// The element as bytes; `buffer` holds the digits of an integer.
    #[inline]
    pub fn text<'b>(&self, buffer: &'b mut itoa::Buffer) -> &'b [u8]
    where
        'a: 'b,
    {
        match *self {
            Packed::Bytes(bytes) => bytes,
            Packed::Int(value) => buffer.format(value).as_bytes(),
        }
    }

    /// The element as an integer, whichever form it has.
    pub(crate) fn int(&self) -> Option<i64> {
        match *self {
            Packed::Bytes(bytes) => canonical_i64(bytes),
            Packed::Int(value) => Some(value),
        }
    }

    /// The same element in the one form that makes equal elements equal.
    fn normal(self) -> Packed<'a> {
        match self {
            Packed::Bytes(bytes) => canonical_i64(bytes).map_or(self, Packed::Int),
            Packed::Int(_) => self,
        }
    }

    /// The element as the score of a sorted set.
    pub(crate) fn score(&self) -> Result<f64, ErrorKind> {
        match *self {
            Packed::Bytes(bytes) => parse_score(bytes),
            Packed::Int(value) => Ok(value as f64),
        }
    }
}

/// A score as text, as every server has printed it: decimal, exponent, `inf`, `-inf`. NaN is no score.
pub(crate) fn parse_score(text: &[u8]) -> Result<f64, ErrorKind> {
    let text = std::str::from_utf8(text).map_err(|_| ErrorKind::Score)?;
    let score: f64 = text.parse().map_err(|_| ErrorKind::Score)?;
    if score.is_nan() { Err(ErrorKind::Score) } else { Ok(score) }
}

/// The elements of one compact encoding, one after the other, each checked before it is answered.
pub(crate) trait Elements<'a> {
    fn next(&mut self) -> Result<Option<Packed<'a>>, ErrorKind>;
}

/// Refuses a compact encoding in which every `stride`-th element, counted from the first, is not unique.
///
/// By sorting: a hash table would need a secret seed to be safe from its author, and this costs 16 bytes and some
/// comparisons per element only where the bytes come from a client.
pub(crate) fn refuse_duplicates<'a>(mut elements: impl Elements<'a>, stride: usize) -> Result<(), ErrorKind> {
    let mut keys = Vec::new();
    let mut position = 0;
    while let Some(element) = elements.next()? {
        if position % stride == 0 {
            keys.push(element.normal());
        }
        position += 1;
    }
    keys.sort_unstable();
    if keys.windows(2).any(|pair| pair[0] == pair[1]) { Err(ErrorKind::Duplicate) } else { Ok(()) }
}
