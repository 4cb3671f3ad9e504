//! Values to text, as Dragonfly prints them.
//!
//! The compact form has no space anywhere. The formatted one puts every element and member on its own line, with
//! whatever strings the client gave for a line's end, a level of indentation and the gap after a colon; empty
//! containers stay `[]` and `{}`.
//!
//! Doubles are the shortest digits that read back as the same number, always with a point or an exponent: `1.0`,
//! `0.1`, `1e+100`, `1.5e-07`. The exponent is used from 10^17 up and below 10^-4. Of strings, quotes,
//! backslashes and control characters (with U+007F) are escaped, and nothing else.

use crate::value::{Value, View};
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
        let mut out = Vec::new();
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
    match value.view() {
        View::Null => out.extend_from_slice(b"null"),
        View::Bool(true) => out.extend_from_slice(b"true"),
        View::Bool(false) => out.extend_from_slice(b"false"),
        View::Int(number) => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
        View::Uint(number) => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
        View::Double(number) => write_double(number, out),
        View::Big(digits) => out.extend_from_slice(digits.as_bytes()),
        View::Text(text) => write_text(text, out),
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
                write_text(member.name(), out);
                out.push(b':');
                out.extend_from_slice(format.space);
                write(member.value(), format, level + 1, out);
            }
            write_line(format, level, out);
            out.push(b'}');
        }
    }
}

/// Appends a string with its quotes.
pub(crate) fn write_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut plain = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let short = match byte {
            b'"' | b'\\' => *byte,
            8 => b'b',
            12 => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0..0x20 | 0x7f => 0,
            _ => continue,
        };
        out.extend_from_slice(&bytes[plain..at]);
        plain = at + 1;
        if short == 0 {
            write!(out, "\\u{byte:04X}").expect("a vector takes every byte");
        } else {
            out.extend_from_slice(&[b'\\', short]);
        }
    }
    out.extend_from_slice(&bytes[plain..]);
    out.push(b'"');
}

/// Appends a number with a point or an exponent.
pub fn write_double(number: f64, out: &mut Vec<u8>) {
    /// Numbers of up to so many digits before the point are written out.
    const POINT_MAX: i32 = 17;
    /// And those with fewer than so many zeros after it.
    const POINT_MIN: i32 = -4;

    // Rust gives the shortest digits, as d.ddde±x.
    let mut text = [0; 32];
    let mut rest = &mut text[..];
    write!(rest, "{:e}", number.abs()).expect("a double has at most 17 digits");
    let left = rest.len();
    let text = &text[..text.len() - left];
    let mark = text.iter().position(|byte| *byte == b'e').expect("asked for an exponent");
    let exponent: i32 =
        std::str::from_utf8(&text[mark + 1..]).expect("ASCII").parse().expect("a small number");
    let mut digits = [0; 20];
    let mut count = 0;
    for digit in text[..mark].iter().filter(|byte| **byte != b'.') {
        digits[count] = *digit;
        count += 1;
    }
    let digits = &digits[..count];
    // Where the point goes: after so many digits.
    let point = exponent + 1;

    if number.is_sign_negative() {
        out.push(b'-');
    }
    if (1..=POINT_MAX).contains(&point) {
        let point = point as usize;
        for at in 0..point.max(count) {
            if at == point {
                out.push(b'.');
            }
            out.push(digits.get(at).copied().unwrap_or(b'0'));
        }
        if count <= point {
            out.extend_from_slice(b".0");
        }
    } else if point > POINT_MIN && point <= 0 {
        out.extend_from_slice(b"0.");
        out.resize(out.len() + point.unsigned_abs() as usize, b'0');
        out.extend_from_slice(digits);
    } else {
        out.push(digits[0]);
        if count > 1 {
            out.push(b'.');
            out.extend_from_slice(&digits[1..]);
        }
        let sign = if exponent < 0 { '-' } else { '+' };
        write!(out, "e{sign}{:02}", exponent.abs()).expect("a vector takes every byte");
    }
}
