//! Entry ids as clients write and read them: `ms-seq`, or `ms` alone, which stands for the first or the last entry
//! of that millisecond, as the place wants it.

use damselfly_keyspace::stream::StreamId;
use damselfly_protocol::ReplyWriter;
use damselfly_protocol::number::{Decimal, parse_u64};

use crate::CommandError;

pub(super) const INVALID: CommandError =
    CommandError::text("ERR Invalid stream ID specified as stream command argument");

/// The longest id that is looked at; Redis copies it into a buffer of this size.
const LEN_MAX: usize = 127;

/// The id of a new entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NewId {
    /// `*`
    Auto,
    /// `ms-*`
    In(u64),
    /// `ms-seq`
    Is(StreamId),
}

/// A number of an id. Redis asks C's strtoul where its own strict parser gives up, so spaces before it, a plus and
/// leading zeros are no mistake.
fn number(text: &[u8]) -> Option<u64> {
    parse_u64(text).or_else(|| {
        let text = text.trim_ascii_start();
        let digits = text.strip_prefix(b"+").unwrap_or(text);
        let zeros = digits.iter().take_while(|&&digit| digit == b'0').count();
        match &digits[zeros..] {
            [] if zeros > 0 => Some(0),
            digits => parse_u64(digits),
        }
    })
}

/// The two parts of an id, the second as it is written if there is one.
fn split(text: &[u8]) -> Result<(u64, Option<&[u8]>), CommandError> {
    if text.len() > LEN_MAX {
        return Err(INVALID);
    }
    let dash = text.iter().position(|&byte| byte == b'-');
    let (ms, seq) = match dash {
        Some(dash) => (&text[..dash], Some(&text[dash + 1..])),
        None => (text, None),
    };
    Ok((number(ms).ok_or(INVALID)?, seq))
}

/// An id; `seq` is meant if none is written.
pub(super) fn parse(text: &[u8], seq: u64) -> Result<StreamId, CommandError> {
    let (ms, written) = split(text)?;
    let seq = written.map_or(Some(seq), number).ok_or(INVALID)?;
    Ok(StreamId { ms, seq })
}

/// An id of an entry that is there or was; without a sequence number the first of its millisecond.
pub(super) fn exact(text: &[u8]) -> Result<StreamId, CommandError> {
    parse(text, 0)
}

/// An id, or `-` and `+` for the lowest and the highest.
pub(super) fn or_edge(text: &[u8], seq: u64) -> Result<StreamId, CommandError> {
    match text {
        b"-" => Ok(StreamId::MIN),
        b"+" => Ok(StreamId::MAX),
        _ => parse(text, seq),
    }
}

/// XADD's.
pub(super) fn new(text: &[u8]) -> Result<NewId, CommandError> {
    match split(text)? {
        (ms, Some(b"*")) => Ok(NewId::In(ms)),
        _ => parse(text, 0).map(NewId::Is),
    }
}

/// The first id of an interval; `(` leaves out the one that it stands before.
pub(super) fn start(text: &[u8]) -> Result<StreamId, CommandError> {
    const BAD_START: CommandError = CommandError::text("ERR invalid start ID for the interval");
    match text {
        [b'(', rest @ ..] if !rest.is_empty() => parse(rest, 0)?.next().ok_or(BAD_START),
        _ => or_edge(text, 0),
    }
}

/// The last id of an interval.
pub(super) fn end(text: &[u8]) -> Result<StreamId, CommandError> {
    const BAD_END: CommandError = CommandError::text("ERR invalid end ID for the interval");
    match text {
        [b'(', rest @ ..] if !rest.is_empty() => parse(rest, u64::MAX)?.previous().ok_or(BAD_END),
        _ => or_edge(text, u64::MAX),
    }
}

/// Writes an id as a string.
#[inline]
pub(super) fn reply(out: &mut ReplyWriter<'_>, id: StreamId) {
    let (ms, seq) = (Decimal::new_unsigned(id.ms), Decimal::new_unsigned(id.seq));
    let (ms, seq) = (ms.as_bytes(), seq.as_bytes());
    let mut text = [b'-'; 41];
    text[..ms.len()].copy_from_slice(ms);
    text[ms.len() + 1..][..seq.len()].copy_from_slice(seq);
    out.bulk(&text[..ms.len() + 1 + seq.len()]);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is an id and what is not.
    #[test]
    fn ids() {
        for (text, seq, id) in [
            ("1-2", 9, Some((1, 2))),
            ("1", 9, Some((1, 9))),
            ("0-0", 9, Some((0, 0))),
            ("18446744073709551615-18446744073709551615", 0, Some((u64::MAX, u64::MAX))),
            ("18446744073709551616", 0, None),
            ("01-002", 0, Some((1, 2))),
            (" 1-+2", 0, Some((1, 2))),
            ("", 0, None),
            ("-", 0, None),
            ("+", 0, None),
            ("-1", 0, None),
            ("1-", 0, None),
            ("1-2-3", 0, None),
            ("1 ", 0, None),
            ("1-*", 0, None),
            ("x", 0, None),
        ] {
            let expected = id.map(|(ms, seq)| StreamId { ms, seq });
            assert_eq!(parse(text.as_bytes(), seq).ok(), expected, "{text:?}");
        }
        assert!(parse(&[b'0'; 128], 0).is_err());
        assert_eq!(new(b"5-*"), Ok(NewId::In(5)));
        assert_eq!(new(b"5-1"), Ok(NewId::Is(StreamId::new(5, 1))));
        assert!(new(b"5-**").is_err());
    }

    /// Ends of intervals.
    #[test]
    fn intervals() {
        assert_eq!(start(b"-"), Ok(StreamId::MIN));
        assert_eq!(end(b"+"), Ok(StreamId::MAX));
        assert_eq!(start(b"5"), Ok(StreamId::new(5, 0)));
        assert_eq!(end(b"5"), Ok(StreamId::new(5, u64::MAX)));
        assert_eq!(start(b"(5"), Ok(StreamId::new(5, 1)));
        assert_eq!(end(b"(5"), Ok(StreamId::new(5, u64::MAX - 1)));
        assert_eq!(end(b"(5-0"), Ok(StreamId::new(4, u64::MAX)));
        for bad in [&b"("[..], b"(-", b"(+", b"(18446744073709551615-18446744073709551615"] {
            assert!(start(bad).is_err());
        }
        assert!(end(b"(0-0").is_err());
    }
}
