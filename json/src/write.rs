//! Values to text, as Dragonfly prints them.
//!
//! The compact form has no space anywhere. The formatted one puts every element and member on its own line, with
//! whatever strings the client gave for a line's end, a level of indentation and the gap after a colon; empty
//! containers stay `[]` and `{}`.
//!
//! Doubles are the shortest digits that read back as the same number, always with a point or an exponent: `1.0`,
//! `0.1`, `1e+100`, `1.5e-07`. The exponent is used from 10^17 up and below 10^-4. Of strings, quotes,
//! backslashes and control characters (with U+007F) are escaped, and nothing else.

use crate::value::{Member, Value, View};
use std::io::Write;

/// The INDENT, NEWLINE and SPACE of JSON.GET. Empty strings give the compact form.
#[derive(Clone, Copy, Debug, Default)]
pub struct Format<'a> {
    /// Once per level at the beginning of a line.
    pub indent: &'a [u8],
    /// Before each line.
    pub newline: &'a [u8],
    /// After the colon of a member.
    pub space: &'a [u8],
}

impl Value {
    /// Appends the value's text.
    pub fn write(&self, format: &Format<'_>, out: &mut Vec<u8>) {
        write(self, format, 0, out);
    }

    /// Appends the value's text as part of a larger one.
    pub(crate) fn write_at(&self, format: &Format<'_>, level: usize, out: &mut Vec<u8>) {
        write(self, format, level, out);
    }

    /// The value's text in the compact form.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(128);
        self.write(&Format::default(), &mut out);
        out
    }
}

pub(crate) fn write_line(format: &Format<'_>, level: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(format.newline);
    for _ in 0..level {
        out.extend_from_slice(format.indent);
    }
}

fn write(value: &Value, format: &Format<'_>, level: usize, out: &mut Vec<u8>) {
    if let Some(text) = value.text_bytes() {
        return write_text(text, out);
    }
    match value.view() {
        View::Null => out.extend_from_slice(b"null"),
        View::Bool(true) => out.extend_from_slice(b"true"),
        View::Bool(false) => out.extend_from_slice(b"false"),
        View::Int(number) => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
        View::Uint(number) => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
        View::Double(number) => write_double(number, out),
        View::Big(digits) => out.extend_from_slice(digits.as_bytes()),
        View::Text(text) => write_text(text.as_bytes(), out),
        View::Array([]) => out.extend_from_slice(b"[]"),
        View::Object([]) => out.extend_from_slice(b"{}"),
        View::Array(elements) => {
            out.push(b'[');
            for (at, element) in elements.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_line(format, level + 1, out);
                write(element, format, level + 1, out);
            }
            write_line(format, level, out);
            out.push(b']');
        }
        View::Object(members) => {
            out.push(b'{');
            for (at, member) in members.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write_line(format, level + 1, out);
                write_text(member.name_bytes(), out);
                out.push(b':');
                out.extend_from_slice(format.space);
                write(member.value(), format, level + 1, out);
            }
            write_line(format, level, out);
            out.push(b'}');
        }
    }
}

/// The text of a value, some of it at a time. It is the text of the value as it was: a clone of a container is a pointer.
#[derive(Debug)]
pub struct Writing {
    /// Where it begins, before it has.
    root: Option<Value>,
    /// Containers that were begun, each in the one before, and how many elements of it were.
    open: Vec<(Value, usize)>,
}

impl Writing {
    /// Nothing of a value yet.
    pub fn new(value: Value) -> Writing {
        Writing { root: Some(value), open: Vec::new() }
    }

    /// Appends the text of so many values more; true when it is whole. `format` is the same each time.
    pub fn write_some(&mut self, values: usize, format: &Format<'_>, out: &mut Vec<u8>) -> bool {
        if let Some(root) = self.root.take() {
            self.begin(&root, format, out);
        }
        for _ in 0..values {
            let level = self.open.len();
            let Some((container, at)) = self.open.last_mut() else { return true };
            let (child, name, end) = match container.view() {
                View::Array(elements) => (elements.get(*at), None, b']'),
                View::Object(members) => {
                    let member = members.get(*at);
                    (member.map(Member::value), member.map(Member::name_bytes), b'}')
                }
                _ => unreachable!("only containers are begun"),
            };
            let Some(child) = child else {
                write_line(format, level - 1, out);
                out.push(end);
                self.open.pop();
                continue;
            };
            if *at > 0 {
                out.push(b',');
            }
            *at += 1;
            write_line(format, level, out);
            if let Some(name) = name {
                write_text(name, out);
                out.push(b':');
                out.extend_from_slice(format.space);
            }
            let child = child.clone();
            self.begin(&child, format, out);
        }
        self.open.is_empty()
    }

    /// Writes a value, or the beginning of a container that is not empty.
    fn begin(&mut self, value: &Value, format: &Format<'_>, out: &mut Vec<u8>) {
        let bracket = match value.view() {
            View::Array([_, ..]) => b'[',
            View::Object([_, ..]) => b'{',
            _ => return write(value, format, self.open.len(), out),
        };
        out.push(bracket);
        self.open.push((value.clone(), 0));
    }
}

/// Which bytes end a stretch that is copied as it is.
const ESCAPED: [bool; 256] = {
    let mut escaped = [false; 256];
    let mut byte = 0;
    while byte < 0x20 {
        escaped[byte] = true;
        byte += 1;
    }
    escaped[b'"' as usize] = true;
    escaped[b'\\' as usize] = true;
    escaped[0x7f] = true;
    escaped
};

/// Appends a string, given as its UTF-8, with its quotes.
pub(crate) fn write_text(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text;
    while let Some(at) = rest.iter().position(|byte| ESCAPED[usize::from(*byte)]) {
        out.extend_from_slice(&rest[..at]);
        let byte = rest[at];
        let short = match byte {
            b'"' | b'\\' => byte,
            8 => b'b',
            12 => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            _ => 0,
        };
        if short == 0 {
            write!(out, "\\u{byte:04X}").expect("a vector takes every byte");
        } else {
            out.extend_from_slice(&[b'\\', short]);
        }
        rest = &rest[at + 1..];
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// Appends a finite number with a point or an exponent.
pub fn write_double(number: f64, out: &mut Vec<u8>) {
    /// Below this the exponent is used.
    const POINT_MIN: f64 = 1e-4;
    /// From here on the exponent is used.
    const POINT_MAX: f64 = 1e17;

    let mut buffer = zmij::Buffer::new();
    let text = buffer.format_finite(number.abs()).as_bytes();
    if number.is_sign_negative() {
        out.push(b'-');
    }
    let exponential = text.contains(&b'e');
    let with_point = number == 0.0 || (POINT_MIN..POINT_MAX).contains(&number.abs());
    if with_point && !exponential && text.contains(&b'.') {
        out.extend_from_slice(text);
        return;
    }

    // The digits are the shortest there are, but their arrangement is not the one wanted.
    let (mantissa, exponent) = match text.iter().position(|byte| *byte == b'e') {
        Some(mark) => (&text[..mark], parse_exponent(&text[mark + 1..])),
        None => (text, 0),
    };
    let whole = mantissa.iter().position(|byte| *byte == b'.').unwrap_or(mantissa.len());
    let mut digits: Vec<u8> = mantissa.iter().copied().filter(|byte| *byte != b'.').collect();
    let zeros = digits.iter().position(|digit| *digit != b'0').unwrap_or(0);
    digits.drain(..zeros);
    while digits.len() > 1 && digits.last() == Some(&b'0') {
        digits.pop();
    }
    // The number is 0.ddd times ten to the power of this.
    let point = whole as i32 + exponent - zeros as i32;
    if !with_point {
        let (first, rest) = digits.split_first().expect("zero is written with a point");
        out.push(*first);
        if !rest.is_empty() {
            out.push(b'.');
            out.extend_from_slice(rest);
        }
        let sign = if point < 1 { '-' } else { '+' };
        write!(out, "e{sign}{:02}", (point - 1).abs()).expect("a vector takes every byte");
    } else if let Ok(point @ 1..) = usize::try_from(point) {
        let count = digits.len().max(point + 1);
        digits.resize(count, b'0');
        out.extend_from_slice(&digits[..point]);
        out.push(b'.');
        out.extend_from_slice(&digits[point..]);
    } else {
        out.extend_from_slice(b"0.");
        out.resize(out.len() + point.unsigned_abs() as usize, b'0');
        out.extend_from_slice(&digits);
    }
}

fn parse_exponent(text: &[u8]) -> i32 {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).expect("an exponent is a small number")
}

#[cfg(test)]
mod tests {
    use super::{Format, Writing, write_double};
    use crate::Document;

    /// Step by step it is the same text, whatever the steps and the format.
    #[test]
    fn some_at_a_time() {
        let texts = [
            "5",
            "\"a\\nb\"",
            "[]",
            "{}",
            "[[],{},[[1,[2.5,null]],{\"a\":{\"b\":[true,false,{}]},\"c\":\"d\"}],-7,\"a text that is long\"]",
            "{\"x\":[1,2,{\"y\":[]}],\"z\":{\"q\":123456789012345678901234567890}}",
        ];
        let formats = [Format::default(), Format { indent: b"--", newline: b"\n", space: b" " }];
        for text in texts {
            let document = Document::parse(text.as_bytes()).expect("JSON");
            for format in &formats {
                let mut whole = Vec::new();
                document.root().write(format, &mut whole);
                for step in 1..9 {
                    let (mut writing, mut pieces) = (Writing::new(document.root().clone()), Vec::new());
                    while !writing.write_some(step, format, &mut pieces) {}
                    assert_eq!(pieces, whole, "{text} by {step}");
                }
            }
        }
    }

    /// Against the digits that the standard library finds, over every exponent and many digits: the text reads back
    /// as the number, is no longer than needed, and uses the exponent exactly where it should.
    #[test]
    fn doubles_are_shortest() {
        let mut state = 0x0dd_ba11_u64;
        let mut text = Vec::new();
        for round in 0..200_000u32 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let number = match round % 3 {
                0 => f64::from_bits(state),
                1 => (state >> 40) as f64 / 1000.0,
                _ => 10f64.powi((state % 40) as i32 - 20) * (1 + (state >> 32) % 100) as f64,
            };
            if !number.is_finite() {
                continue;
            }
            text.clear();
            write_double(number, &mut text);
            let text = std::str::from_utf8(&text).expect("ASCII");
            assert_eq!(text.parse::<f64>().map(f64::to_bits), Ok(number.to_bits()), "{text}");
            let exponential = !(1e-4..1e17).contains(&number.abs()) && number != 0.0;
            assert_eq!(text.contains('e'), exponential, "{text}");
            assert!(exponential || text.contains('.'), "{text}");
            let digits = |text: &str| {
                let mantissa = text.split('e').next().expect("not empty");
                let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
                digits.trim_start_matches('0').trim_end_matches('0').to_owned()
            };
            // Between two texts of the same length, equally near, either may be chosen.
            assert_eq!(digits(text).len(), digits(&format!("{number:e}")).len(), "{text}");
        }
    }
}
