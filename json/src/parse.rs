//! Text to values, strictly as RFC 8259 has it.
//!
//! Nothing beyond the standard is taken: no comments, no trailing commas, no unpaired surrogates, no bytes that are
//! not UTF-8, no numbers that overflow to infinity, no control characters in strings. Depth is bounded by
//! [`DEPTH_MAX`]; time and memory are linear in the text (at most 24 bytes of document per byte of text, for nested
//! empty arrays).

use crate::value::{DEPTH_MAX, Member, Value};
use std::fmt;

/// Why a text is not JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// Not UTF-8.
    Encoding,
    /// The grammar is violated at this byte.
    Syntax(usize),
    /// Nested deeper than [`DEPTH_MAX`].
    Depth,
    /// A number too large for a double, at this byte.
    Number(usize),
}

impl fmt::Display for ParseError {
    /// The text of the error reply, without `ERR`: Dragonfly does not say what is wrong.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("failed to parse JSON")
    }
}

impl std::error::Error for ParseError {}

pub(crate) fn parse(text: &[u8]) -> Result<Value, ParseError> {
    let text = std::str::from_utf8(text).map_err(|_| ParseError::Encoding)?;
    let mut parser = Parser { text, at: 0 };
    let value = parser.value(0)?;
    parser.space();
    if parser.at == text.len() { Ok(value) } else { Err(ParseError::Syntax(parser.at)) }
}

/// A number as JSON writes it, the whole text.
pub(crate) fn parse_number(text: &[u8]) -> Result<Value, ParseError> {
    let text = std::str::from_utf8(text).map_err(|_| ParseError::Encoding)?;
    let mut parser = Parser { text, at: 0 };
    let value = parser.number()?;
    if parser.at == text.len() { Ok(value) } else { Err(ParseError::Syntax(parser.at)) }
}

pub(crate) struct Parser<'t> {
    pub(crate) text: &'t str,
    pub(crate) at: usize,
}

impl<'t> Parser<'t> {
    fn error<T>(&self) -> Result<T, ParseError> {
        Err(ParseError::Syntax(self.at))
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, ParseError> {
        if !self.text[self.at..].starts_with(word) {
            return self.error();
        }
        self.at += word.len();
        Ok(value)
    }

    fn value(&mut self, depth: usize) -> Result<Value, ParseError> {
        self.space();
        match self.peek() {
            Some(b'{' | b'[') if depth == DEPTH_MAX => Err(ParseError::Depth),
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => Ok(Value::from_text(&self.string()?)),
            Some(b't') => self.word("true", Value::from_bool(true)),
            Some(b'f') => self.word("false", Value::from_bool(false)),
            Some(b'n') => self.word("null", Value::NULL),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => self.error(),
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value, ParseError> {
        self.at += 1;
        let mut elements = Vec::new();
        self.space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Value::from_elements(elements));
        }
        loop {
            elements.push(self.value(depth + 1)?);
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                _ => return self.error(),
            }
        }
        self.at += 1;
        Ok(Value::from_elements(elements))
    }

    fn object(&mut self, depth: usize) -> Result<Value, ParseError> {
        self.at += 1;
        let mut members = Vec::new();
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Value::from_members(members));
        }
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                return self.error();
            }
            let name = self.string()?;
            self.space();
            if self.peek() != Some(b':') {
                return self.error();
            }
            self.at += 1;
            members.push(Member::new(&name, self.value(depth + 1)?));
            self.space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => break,
                _ => return self.error(),
            }
        }
        self.at += 1;
        Ok(Value::from_members(members))
    }

    /// A string between double quotes, the first of which is at hand.
    fn string(&mut self) -> Result<std::borrow::Cow<'t, str>, ParseError> {
        self.at += 1;
        self.quoted(b'"')
    }

    /// The rest of a string up to the quote that ends it. Also for the names in paths, which may use single quotes.
    pub(crate) fn quoted(&mut self, quote: u8) -> Result<std::borrow::Cow<'t, str>, ParseError> {
        let text = self.text;
        let mut unescaped = String::new();
        let mut plain = self.at;
        loop {
            let stop = |byte: &u8| *byte == quote || *byte == b'\\' || *byte < 0x20;
            let bytes = &text.as_bytes()[self.at..];
            self.at += bytes.iter().position(stop).unwrap_or(bytes.len());
            let Some(byte) = self.peek() else { return self.error() };
            match byte {
                _ if byte == quote => {
                    let rest = &text[plain..self.at];
                    self.at += 1;
                    if unescaped.is_empty() {
                        return Ok(rest.into());
                    }
                    unescaped.push_str(rest);
                    return Ok(unescaped.into());
                }
                b'\\' => {
                    unescaped.push_str(&text[plain..self.at]);
                    self.at += 1;
                    unescaped.push(self.escape(quote)?);
                    plain = self.at;
                }
                _ => return self.error(),
            }
        }
    }

    fn escape(&mut self, quote: u8) -> Result<char, ParseError> {
        let Some(byte) = self.peek() else { return self.error() };
        let plain = match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            _ if byte == quote => byte,
            b'u' => {
                self.at += 1;
                let first = self.hex()?;
                let code = match first {
                    0xd800..0xdc00 => {
                        if !self.text[self.at..].starts_with("\\u") {
                            return self.error();
                        }
                        self.at += 2;
                        match self.hex()? {
                            low @ 0xdc00..0xe000 => 0x10000 + ((first - 0xd800) << 10) + (low - 0xdc00),
                            _ => return self.error(),
                        }
                    }
                    code => code,
                };
                // What is left to refuse is a low surrogate without a high one.
                return char::from_u32(code).map_or_else(|| self.error(), Ok);
            }
            _ => return self.error(),
        };
        self.at += 1;
        Ok(char::from(plain))
    }

    fn hex(&mut self) -> Result<u32, ParseError> {
        let digits = self.text.get(self.at..self.at + 4);
        let Some(digits) = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
        else {
            return self.error();
        };
        self.at += 4;
        Ok(u32::from_str_radix(digits, 16).expect("four hexadecimal digits"))
    }

    fn digits(&mut self) -> usize {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        self.at - start
    }

    pub(crate) fn number(&mut self) -> Result<Value, ParseError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let leading_zero = self.peek() == Some(b'0');
        match self.digits() {
            0 => return self.error(),
            1 => {}
            _ if leading_zero => return Err(ParseError::Syntax(start)),
            _ => {}
        }
        let mut integer = true;
        if self.peek() == Some(b'.') {
            integer = false;
            self.at += 1;
            if self.digits() == 0 {
                return self.error();
            }
        }
        if let Some(b'e' | b'E') = self.peek() {
            integer = false;
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            if self.digits() == 0 {
                return self.error();
            }
        }
        let text = &self.text[start..self.at];
        if !integer {
            let number = text.parse().map_err(|_| ParseError::Number(start))?;
            return Value::from_double(number).ok_or(ParseError::Number(start));
        }
        let number = match text.parse::<i64>() {
            Ok(number) => Some(i128::from(number)),
            Err(_) => text.parse::<u64>().ok().map(i128::from),
        };
        let number = number.and_then(Value::from_integer);
        Ok(number.unwrap_or_else(|| Value::from_digits(text)))
    }
}
