//! A request that is too long to keep, read to its end without keeping it.
//!
//! The alternative is to close the connection, but a client that is still sending would lose the answer with it. What
//! is skipped follows the same grammar as what is scanned, argument for argument, so that the next request is found.

use crate::number::parse_i64;
use crate::request::ProtocolError;

/// Longest line of a length: a marker, 19 digits and sign, CR, LF.
const LINE_LEN_MAX: usize = 32;

/// How far a request has been skipped.
#[derive(Debug, Default)]
pub struct Skip {
    /// Bytes of the present argument that are still to come, those behind its data included.
    left: usize,
    /// Arguments behind it.
    missing: u32,
    /// The beginning of the line of the next length.
    line: Vec<u8>,
}

impl Skip {
    /// Begins with the request at the start of `buf`, which is not complete; None if it is no array or nothing is
    /// known of its arguments yet.
    pub fn begin(buf: &[u8]) -> Option<Skip> {
        let line = |at: usize| {
            let rest = buf.get(at..)?;
            let end = rest.iter().take(LINE_LEN_MAX).position(|byte| *byte == b'\r')?;
            Some((*rest.first()?, parse_i64(&rest[1..end])?, at + end + 2))
        };
        let (marker, count, mut at) = line(0)?;
        let mut skip = Skip { missing: u32::try_from(count).ok()?, ..Skip::default() };
        if marker != b'*' {
            return None;
        }
        while skip.missing > 0 && at < buf.len() {
            let (b'$', len, data) = line(at)? else { return None };
            at = data + usize::try_from(len).ok()? + 2;
            skip.missing -= 1;
        }
        skip.left = at.checked_sub(buf.len())?;
        Some(skip)
    }

    /// Takes in what has arrived. The number of bytes used is less than all only when the request has ended, which is
    /// what the second result tells.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(usize, bool), ProtocolError> {
        let mut at = 0;
        loop {
            let used = self.left.min(bytes.len() - at);
            self.left -= used;
            at += used;
            if self.left > 0 {
                return Ok((at, false));
            }
            if self.missing == 0 {
                return Ok((at, true));
            }
            // The line of a length, up to the byte behind its CR.
            while self.line.iter().rev().nth(1) != Some(&b'\r') {
                let Some(byte) = bytes.get(at) else { return Ok((at, false)) };
                if self.line.len() == LINE_LEN_MAX {
                    return Err(ProtocolError::TooBigBulkCount);
                }
                self.line.push(*byte);
                at += 1;
            }
            if self.line[0] != b'$' {
                return Err(ProtocolError::ExpectedDollar(self.line[0]));
            }
            let len = parse_i64(&self.line[1..self.line.len() - 2]).and_then(|len| usize::try_from(len).ok());
            self.left = len.and_then(|len| len.checked_add(2)).ok_or(ProtocolError::InvalidBulkLength)?;
            self.missing -= 1;
            self.line.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &[u8] = b"*4\r\n$3\r\nSET\r\n$1\r\nk\r\n$12\r\n123456789\r\n0\r\n$2\r\nNX\r\n";

    /// Wherever skipping begins and however the rest is cut, it ends with the request, and what follows is left.
    #[test]
    fn every_cut() {
        let whole = [REQUEST, b"*1\r\n$4\r\nPING\r\n"].concat();
        for begin in 1..REQUEST.len() {
            let Some(first) = Skip::begin(&whole[..begin]) else {
                assert!(!whole[..begin].ends_with(b"12\r\n1"), "in the third argument it can begin");
                continue;
            };
            for step in 1..20 {
                let mut skip = Skip { line: first.line.clone(), ..first };
                let (mut at, mut ended) = (begin, false);
                while !ended {
                    let end = (at + step).min(whole.len());
                    let (used, is_end) = skip.feed(&whole[at..end]).expect("a good request");
                    assert!(is_end || used == end - at);
                    (at, ended) = (at + used, is_end);
                }
                assert_eq!(at, REQUEST.len(), "from {begin} in steps of {step}");
            }
        }
    }

    /// What is no request is refused as the scanner refuses it.
    #[test]
    fn offences() {
        assert!(Skip::begin(b"PING").is_none() && Skip::begin(b"*x\r\n").is_none());
        for (rest, error) in [
            (&b"xy\r\n+3\r\n"[..], ProtocolError::ExpectedDollar(b'+')),
            (b"xy\r\n$-1\r\n", ProtocolError::InvalidBulkLength),
            (b"xy\r\n$00000000000000000000000000000000000003\r\n", ProtocolError::TooBigBulkCount),
        ] {
            let mut skip = Skip::begin(b"*2\r\n$4\r\nab").expect("it has begun");
            assert_eq!(skip.feed(rest), Err(error));
        }
    }
}
