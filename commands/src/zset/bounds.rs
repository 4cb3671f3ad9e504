//! The ends of ranges as clients write them: `1`, `(1`, `-inf` for scores; `[a`, `(a`, `-`, `+` for members.

use std::ops::Range;

use damselfly_keyspace::values::zset::{Bound, SortedSet};
use damselfly_protocol::number::{parse_f64, parse_i64};

use crate::{Args, CommandError};

const NOT_A_SCORE: CommandError = CommandError::text("ERR min or max is not a float");
const NOT_A_MEMBER: CommandError = CommandError::text("ERR min or max not valid string range item");

/// Which members a command is about.
#[derive(Clone, Copy, Debug)]
pub(super) enum Span<'a> {
    /// By rank, from the last if negative; both ends belong to it.
    Rank(i64, i64),
    /// By score.
    Score(Bound<f64>, Bound<f64>),
    /// By member.
    Member(Bound<&'a [u8]>, Bound<&'a [u8]>),
}

/// What kind of [`Span`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Rank,
    Score,
    Member,
}

impl<'a> Span<'a> {
    /// From its two ends, the lower one first.
    pub(super) fn parse(by: By, low: &'a [u8], high: &'a [u8]) -> Result<Span<'a>, CommandError> {
        let rank = |text| parse_i64(text).ok_or(CommandError::NotInteger);
        Ok(match by {
            By::Rank => Span::Rank(rank(low)?, rank(high)?),
            By::Score => Span::Score(score(low)?, score(high)?),
            By::Member => Span::Member(member(low)?, member(high)?),
        })
    }

    /// The next two arguments.
    pub(super) fn take(by: By, args: &mut Args<'a>) -> Result<Span<'a>, CommandError> {
        let (low, high) = (args.take()?, args.take()?);
        Span::parse(by, low, high)
    }

    /// The ranks that it is in a set. `reverse` tells that ranks were counted from the end.
    pub(super) fn ranks(self, set: &SortedSet, reverse: bool) -> Range<usize> {
        match self {
            Span::Rank(first, last) => {
                let len = set.len();
                let ranks = ranks_of(first, last, len);
                if reverse { len - ranks.end..len - ranks.start } else { ranks }
            }
            Span::Score(low, high) => set.ranks_by_score(low, high),
            Span::Member(low, high) => set.ranks_by_member(low, high),
        }
    }
}

/// Redis' ranges of positions: negative ones count from the end, and what is outside is left out.
fn ranks_of(first: i64, last: i64, len: usize) -> Range<usize> {
    let len_signed = len as i64;
    let from_start = |at: i64| if at < 0 { at.saturating_add(len_signed) } else { at };
    let start = from_start(first).max(0);
    let last = from_start(last).min(len_signed - 1);
    if start > last { 0..0 } else { start as usize..last as usize + 1 }
}

fn score(text: &[u8]) -> Result<Bound<f64>, CommandError> {
    match text {
        [b'(', rest @ ..] => c_double(rest).map(Bound::Excluded),
        text => c_double(text).map(Bound::Included),
    }
    .ok_or(NOT_A_SCORE)
}

/// A double as C's `strtod` reads one when nobody asks it about overflow: more than scores may be. Space in front is
/// skipped, nothing at all is 0, and what is too far from 0 or too near is infinite or 0.
fn c_double(text: &[u8]) -> Option<f64> {
    if text.is_empty() {
        return Some(0.0);
    }
    let blanks = text.iter().take_while(|byte| matches!(byte, b' ' | b'\t'..=b'\r')).count();
    let text = &text[blanks..];
    parse_f64(text).or_else(|| {
        let digits = text.strip_prefix(b"-").or(text.strip_prefix(b"+")).unwrap_or(text);
        // Words that the standard library takes for numbers are not meant here.
        matches!(digits, [b'0'..=b'9' | b'.', ..]).then_some(())?;
        std::str::from_utf8(text).ok()?.parse().ok()
    })
}

fn member(text: &[u8]) -> Result<Bound<&[u8]>, CommandError> {
    match text {
        b"-" => Ok(Bound::Lowest),
        b"+" => Ok(Bound::Highest),
        [b'[', member @ ..] => Ok(Bound::Included(member)),
        [b'(', member @ ..] => Ok(Bound::Excluded(member)),
        _ => Err(NOT_A_MEMBER),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions() {
        for (first, last, len, ranks) in [
            (0, -1, 5, 0..5),
            (-2, -1, 5, 3..5),
            (3, 100, 5, 3..5),
            (-100, 0, 5, 0..1),
            (3, 1, 5, 0..0),
            (5, 6, 5, 0..0),
            (0, 0, 0, 0..0),
            (i64::MIN, i64::MAX, 5, 0..5),
            (0, i64::MIN, 5, 0..0),
        ] {
            assert_eq!(ranks_of(first, last, len), ranks, "{first} {last} of {len}");
        }
    }

    #[test]
    fn scores_as_c_reads_them() {
        for (text, value) in [
            ("", Some(0.0)),
            (" 1", Some(1.0)),
            ("1 ", None),
            (" ", None),
            ("1e400", Some(f64::INFINITY)),
            ("-1e400", Some(f64::NEG_INFINITY)),
            ("1e-400", Some(0.0)),
            ("0x10", Some(16.0)),
            ("nan", None),
            ("--1", None),
            ("+inf", Some(f64::INFINITY)),
        ] {
            assert_eq!(c_double(text.as_bytes()), value, "{text:?}");
        }
    }
}
