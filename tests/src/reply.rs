//! Replies as a tree that loses nothing: two replies are equal exactly when their bytes are.
//!
//! The `redis-protocol` crate decodes maps and sets into hash tables and doubles into floats, so order, duplicates
//! and spelling are gone, and those are what is compared here. This reader keeps them, and refuses any spelling
//! but the canonical one (`:+5`, `$03`), so the tree stands for the bytes. `redis-protocol` is then asked to decode
//! the same bytes again: a second opinion, and a guard that RESP2 connections receive RESP2 types only.

use std::fmt;

use redis_protocol::{resp2, resp3};

/// Deepest nesting accepted from a server; Redis' own replies stay below ten.
const DEPTH_MAX: usize = 32;

/// Replies above this size skip the second opinion, which costs a copy of everything.
const SECOND_OPINION_MAX: usize = 4 << 20;

/// The protocol that a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    Resp2,
    Resp3,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Resp2 => "resp2",
            Protocol::Resp3 => "resp3",
        })
    }
}

/// One reply or push, in the types of both protocols.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reply {
    Simple(Vec<u8>),
    Error(Vec<u8>),
    Int(i64),
    Bulk(Vec<u8>),
    /// `$-1`
    NullBulk,
    /// `*-1`
    NullArray,
    /// `_`
    Null,
    Array(Vec<Reply>),
    Map(Vec<(Reply, Reply)>),
    Set(Vec<Reply>),
    Push(Vec<Reply>),
    /// The digits as sent.
    Double(Vec<u8>),
    Bool(bool),
    BigNumber(Vec<u8>),
    /// Three-letter format and text.
    Verbatim(Vec<u8>, Vec<u8>),
    BlobError(Vec<u8>),
}

impl Reply {
    /// True for the three spellings of "nothing".
    pub fn is_null(&self) -> bool {
        matches!(self, Reply::NullBulk | Reply::NullArray | Reply::Null)
    }

    /// The text of any string-like reply, errors excluded.
    pub fn text(&self) -> Option<&[u8]> {
        match self {
            Reply::Simple(text) | Reply::Bulk(text) | Reply::Verbatim(_, text) => Some(text),
            _ => None,
        }
    }

    /// What a variable of a script keeps: the text, or the digits of a number.
    pub fn as_word(&self) -> Option<Vec<u8>> {
        match self {
            Reply::Int(number) => Some(number.to_string().into_bytes()),
            Reply::Double(digits) => Some(digits.clone()),
            other => other.text().map(<[u8]>::to_vec),
        }
    }

    /// The elements of any aggregate except maps.
    pub fn elements(&self) -> Option<&[Reply]> {
        match self {
            Reply::Array(elements) | Reply::Set(elements) | Reply::Push(elements) => Some(elements),
            _ => None,
        }
    }
}

/// Reads one reply from the front of `bytes`. `None` means that more bytes are needed.
pub fn parse(bytes: &[u8]) -> Result<Option<(Reply, usize)>, String> {
    let mut reader = Reader { bytes, at: 0 };
    Ok(reader.reply(0)?.map(|reply| (reply, reader.at)))
}

/// Asks `redis-protocol` whether these bytes, one whole reply, mean the same to it.
pub fn second_opinion(bytes: &[u8], protocol: Protocol) -> Result<(), String> {
    if bytes.len() > SECOND_OPINION_MAX {
        return Ok(());
    }
    let consumed = match protocol {
        Protocol::Resp2 => resp2::decode::decode(bytes).map(|frame| frame.map(|(_, size)| size)),
        Protocol::Resp3 => resp3::decode::complete::decode(bytes).map(|frame| frame.map(|(_, size)| size)),
    };
    match consumed {
        Ok(Some(size)) if size == bytes.len() => Ok(()),
        // Its sets are hash sets, and it cannot hash a set of arrays, which COMMAND answers: no opinion then.
        Err(error) if error.details().contains("Invalid hash key") => Ok(()),
        Ok(size) => Err(format!("redis-protocol takes {size:?} of {} bytes as {protocol}", bytes.len())),
        Err(error) => Err(format!("redis-protocol refuses this as {protocol}: {error}")),
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn reply(&mut self, depth: usize) -> Result<Option<Reply>, String> {
        if depth > DEPTH_MAX {
            return Err(format!("reply nested deeper than {DEPTH_MAX}"));
        }
        let Some(line) = self.line()? else { return Ok(None) };
        let Some((&kind, rest)) = line.split_first() else {
            return Err("empty line where a reply starts".into());
        };
        Ok(Some(match kind {
            b'+' => Reply::Simple(rest.to_vec()),
            b'-' => Reply::Error(rest.to_vec()),
            b':' => Reply::Int(canonical(rest)?),
            b',' => Reply::Double(rest.to_vec()),
            b'(' => Reply::BigNumber(rest.to_vec()),
            b'_' if rest.is_empty() => Reply::Null,
            b'#' if rest == b"t" => Reply::Bool(true),
            b'#' if rest == b"f" => Reply::Bool(false),
            b'$' if rest == b"-1" => Reply::NullBulk,
            b'*' if rest == b"-1" => Reply::NullArray,
            b'$' | b'=' | b'!' => {
                let Some(blob) = self.blob(canonical(rest)?)? else { return Ok(None) };
                match kind {
                    b'$' => Reply::Bulk(blob),
                    b'!' => Reply::BlobError(blob),
                    _ if blob.len() >= 4 && blob[3] == b':' => {
                        Reply::Verbatim(blob[..3].to_vec(), blob[4..].to_vec())
                    }
                    _ => return Err("verbatim string without its format".into()),
                }
            }
            b'*' | b'~' | b'>' => {
                let Some(elements) = self.elements(canonical(rest)?, depth)? else { return Ok(None) };
                match kind {
                    b'*' => Reply::Array(elements),
                    b'~' => Reply::Set(elements),
                    _ => Reply::Push(elements),
                }
            }
            b'%' => {
                let pairs: i64 = canonical(rest)?;
                let Some(flat) = self.elements(pairs.saturating_mul(2), depth)? else { return Ok(None) };
                let mut flat = flat.into_iter();
                let mut map = Vec::new();
                while let (Some(key), Some(value)) = (flat.next(), flat.next()) {
                    map.push((key, value));
                }
                Reply::Map(map)
            }
            _ => return Err(format!("unknown reply type in {:?}", String::from_utf8_lossy(&line))),
        }))
    }

    fn line(&mut self) -> Result<Option<Vec<u8>>, String> {
        let rest = &self.bytes[self.at..];
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let Some(line) = rest[..end].strip_suffix(b"\r") else { return Err("line ends without CR".into()) };
        if line.contains(&b'\r') {
            return Err("CR inside a line".into());
        }
        self.at += end + 1;
        Ok(Some(line.to_vec()))
    }

    fn blob(&mut self, size: i64) -> Result<Option<Vec<u8>>, String> {
        let size = usize::try_from(size).map_err(|_| format!("negative size {size}"))?;
        let rest = &self.bytes[self.at..];
        if rest.len() < size + 2 {
            return Ok(None);
        }
        if &rest[size..size + 2] != b"\r\n" {
            return Err("string does not end with CRLF".into());
        }
        self.at += size + 2;
        Ok(Some(rest[..size].to_vec()))
    }

    fn elements(&mut self, count: i64, depth: usize) -> Result<Option<Vec<Reply>>, String> {
        if count < 0 {
            return Err(format!("negative count {count}"));
        }
        let mut elements = Vec::new();
        for _ in 0..count {
            let Some(element) = self.reply(depth + 1)? else { return Ok(None) };
            elements.push(element);
        }
        Ok(Some(elements))
    }
}

fn canonical(digits: &[u8]) -> Result<i64, String> {
    let text = std::str::from_utf8(digits).map_err(|_| "number is not text".to_owned())?;
    let number: i64 = text.parse().map_err(|_| format!("not a number: {text:?}"))?;
    if number.to_string() == text {
        Ok(number)
    } else {
        Err(format!("number not in canonical form: {text:?}"))
    }
}

/// Bytes as they would be typed in a script.
pub fn quoted(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for &byte in bytes {
        match byte {
            b'"' => text.push_str("\\\""),
            b'\\' => text.push_str("\\\\"),
            b'\n' => text.push_str("\\n"),
            b'\r' => text.push_str("\\r"),
            b'\t' => text.push_str("\\t"),
            0x20..=0x7e => text.push(char::from(byte)),
            _ => text.push_str(&format!("\\x{byte:02x}")),
        }
    }
    text.push('"');
    text
}

impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn list(f: &mut fmt::Formatter<'_>, name: &str, elements: &[Reply]) -> fmt::Result {
            write!(f, "{name}[")?;
            for (at, element) in elements.iter().enumerate() {
                write!(f, "{}{element}", if at == 0 { "" } else { " " })?;
            }
            f.write_str("]")
        }
        match self {
            Reply::Simple(text) => write!(f, "+{}", String::from_utf8_lossy(text)),
            Reply::Error(text) => write!(f, "!{}", String::from_utf8_lossy(text)),
            Reply::Int(number) => write!(f, "{number}"),
            Reply::Bulk(text) => f.write_str(&quoted(text)),
            Reply::NullBulk => f.write_str("nil"),
            Reply::NullArray => f.write_str("nil(array)"),
            Reply::Null => f.write_str("nil(resp3)"),
            Reply::Array(elements) => list(f, "", elements),
            Reply::Set(elements) => list(f, "set", elements),
            Reply::Push(elements) => list(f, "push", elements),
            Reply::Map(pairs) => {
                f.write_str("map{")?;
                for (at, (key, value)) in pairs.iter().enumerate() {
                    write!(f, "{}{key}: {value}", if at == 0 { "" } else { ", " })?;
                }
                f.write_str("}")
            }
            Reply::Double(digits) => write!(f, ",{}", String::from_utf8_lossy(digits)),
            Reply::Bool(value) => write!(f, "{value}"),
            Reply::BigNumber(digits) => write!(f, "({}", String::from_utf8_lossy(digits)),
            Reply::Verbatim(format, text) => {
                write!(f, "{}:{}", String::from_utf8_lossy(format), quoted(text))
            }
            Reply::BlobError(text) => write!(f, "!{}", quoted(text)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every type is read, shown, and taken only when whole.
    #[test]
    fn whole_replies_only() {
        for (bytes, shown) in [
            (&b"+OK\r\n"[..], "+OK"),
            (b"-ERR no\r\n", "!ERR no"),
            (b":-5\r\n", "-5"),
            (b"$3\r\na\r\n\r\n", r#""a\r\n""#),
            (b"$-1\r\n", "nil"),
            (b"*-1\r\n", "nil(array)"),
            (b"_\r\n", "nil(resp3)"),
            (b"*2\r\n:1\r\n*0\r\n", "[1 []]"),
            (b"%1\r\n+a\r\n,1.5\r\n", "map{+a: ,1.5}"),
            (b"~1\r\n#t\r\n", "set[true]"),
            (b"=5\r\ntxt:a\r\n", r#"txt:"a""#),
        ] {
            let (reply, size) = parse(bytes).expect("parses").expect("whole");
            assert_eq!((reply.to_string().as_str(), size), (shown, bytes.len()));
            for cut in 0..bytes.len() {
                assert_eq!(parse(&bytes[..cut]), Ok(None), "{shown} cut at {cut}");
            }
        }
    }

    /// A spelling that clients may not understand is a failure, not a tolerance.
    #[test]
    fn strange_spellings_are_refused() {
        for bytes in
            [&b":+5\r\n"[..], b"$03\r\nabc\r\n", b"*01\r\n:1\r\n", b"+OK\n", b"$1\r\nab\r\n", b"?\r\n"]
        {
            assert!(parse(bytes).is_err(), "{bytes:?}");
        }
    }
}
