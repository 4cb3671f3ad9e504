//! The `struct` library: values to bytes and back by a format, such as `>I2s`.

use crate::context::Context;
use crate::lua::{Function, Stack, Type};
use crate::raise::{Raise, check_bytes, check_integer};

pub(crate) const FUNCTIONS: &[(&str, Function)] = &[("pack", pack), ("unpack", unpack), ("size", size)];

/// Widest integer of `i` and `I`.
const INTEGER_LEN_MAX: usize = 32;
/// What `!` aligns to at most if it has no number: a double's.
const ALIGN_DEFAULT: usize = 8;

/// A format on its way.
struct Format<'a> {
    rest: &'a [u8],
    big: bool,
    align: usize,
}

/// One option of a format.
struct Item {
    option: u8,
    size: usize,
}

impl<'a> Format<'a> {
    fn new(text: &'a [u8]) -> Format<'a> {
        // Formats end where a C string does.
        let end = text.iter().position(|byte| *byte == 0).unwrap_or(text.len());
        Format { rest: &text[..end], big: cfg!(target_endian = "big"), align: 1 }
    }

    fn next(&mut self) -> Result<Option<Item>, Raise> {
        let Some((&option, rest)) = self.rest.split_first() else { return Ok(None) };
        self.rest = rest;
        let size = match option {
            b'b' | b'B' | b'x' => 1,
            b'h' | b'H' => 2,
            b'f' => 4,
            b'l' | b'L' | b'T' | b'd' => 8,
            b'c' => self.number(1)?,
            b'i' | b'I' => {
                let size = self.number(4)?;
                if size > INTEGER_LEN_MAX {
                    return Err(Raise::text(format!(
                        "integral size {size} is larger than limit of {INTEGER_LEN_MAX}"
                    )));
                }
                size
            }
            _ => 0,
        };
        Ok(Some(Item { option, size }))
    }

    fn number(&mut self, default: usize) -> Result<usize, Raise> {
        let digits = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits == 0 {
            return Ok(default);
        }
        let (digits, rest) = self.rest.split_at(digits);
        self.rest = rest;
        let mut number = 0i32;
        for digit in digits {
            let added = number.checked_mul(10).and_then(|n| n.checked_add(i32::from(digit - b'0')));
            number = added.ok_or_else(|| Raise::text("integral size overflow"))?;
        }
        Ok(number as usize)
    }

    /// Padding before an item at `at`.
    fn padding(&self, at: usize, item: &Item) -> usize {
        if item.size == 0 || item.option == b'c' {
            return 0;
        }
        let size = item.size.min(self.align);
        // The original's arithmetic, also for sizes that are no power of two.
        size.wrapping_sub(at & size.wrapping_sub(1)) & size.wrapping_sub(1)
    }

    fn control(&mut self, item: &Item) -> Result<(), Raise> {
        match item.option {
            b' ' => {}
            b'>' => self.big = true,
            b'<' => self.big = false,
            b'!' => {
                let align = self.number(ALIGN_DEFAULT)?;
                if !align.is_power_of_two() {
                    return Err(Raise::text(format!("alignment {align} is not a power of 2")));
                }
                self.align = align;
            }
            option => {
                let text = [b"invalid format option '", &[option][..], b"'"].concat();
                return Err(Raise::argument(1, text));
            }
        }
        Ok(())
    }
}

/// An argument's number; a missing one is called nil here, because the original has pushed a marker.
fn number(stack: &Stack, argument: usize) -> Result<f64, Raise> {
    stack.to_number(argument as i32).ok_or_else(|| missing(stack, argument, "number"))
}

fn missing(stack: &Stack, argument: usize, wanted: &str) -> Raise {
    match stack.type_of(argument as i32) {
        Type::None => Raise::argument(argument, format!("{wanted} expected, got nil")),
        _ => Raise::wrong_type(stack, argument, wanted),
    }
}

/// `struct.pack(format, ...)`
fn pack(stack: &mut Stack, cx: &mut Context) -> Result<usize, Raise> {
    let text = check_bytes(stack, 1)?;
    let mut format = Format::new(&text);
    let mut out: Vec<u8> = Vec::new();
    let mut argument = 2;
    while let Some(item) = format.next()? {
        out.resize(out.len() + format.padding(out.len(), &item), 0);
        match item.option {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                let number = number(stack, argument)?;
                argument += 1;
                // Bytes beyond the eighth are zeros.
                let value = if number < 0.0 { number as i64 as u64 } else { number as u64 };
                let mut bytes = [0; INTEGER_LEN_MAX];
                bytes[..8].copy_from_slice(&value.to_le_bytes());
                append(&mut out, &mut bytes[..item.size], format.big);
            }
            b'x' => out.push(0),
            b'f' => {
                let number = number(stack, argument)? as f32;
                argument += 1;
                append(&mut out, &mut number.to_le_bytes(), format.big);
            }
            b'd' => {
                let number = number(stack, argument)?;
                argument += 1;
                append(&mut out, &mut number.to_le_bytes(), format.big);
            }
            b'c' | b's' => {
                let bytes = match stack.type_of(argument as i32) {
                    Type::None => return Err(missing(stack, argument, "string")),
                    _ => check_bytes(stack, argument)?,
                };
                argument += 1;
                let size = if item.size == 0 { bytes.len() } else { item.size };
                // The number is the next argument's, because the original has counted on.
                let head = bytes.get(..size).ok_or_else(|| Raise::argument(argument, "string too short"))?;
                out.extend_from_slice(head);
                if item.option == b's' {
                    out.push(0);
                }
            }
            _ => format.control(&item)?,
        }
        // Many arguments can be the same long string.
        cx.pause_for(stack, out.len())?;
    }
    stack.push_bytes(out);
    Ok(1)
}

fn append(out: &mut Vec<u8>, little: &mut [u8], big: bool) {
    if big {
        little.reverse();
    }
    out.extend_from_slice(little);
}

/// `struct.unpack(format, data [, position])`
fn unpack(stack: &mut Stack, cx: &mut Context) -> Result<usize, Raise> {
    let text = check_bytes(stack, 1)?;
    let data = check_bytes(stack, 2)?;
    let position = match stack.type_of(3) {
        Type::None | Type::Nil => 1,
        _ => check_integer(stack, 3)?,
    };
    if position == 0 {
        return Err(Raise::argument(3, "offset must be 1 or greater"));
    }
    let mut at = (position as usize).wrapping_sub(1);
    let mut format = Format::new(&text);
    let mut count = 0;
    let short = || Raise::argument(2, "data string too short");
    while let Some(item) = format.next()? {
        at = at.checked_add(format.padding(at, &item)).ok_or_else(short)?;
        let tail = data.get(at..).ok_or_else(short)?;
        let bytes = tail.get(..item.size).ok_or_else(short)?;
        stack.ensure(3).map_err(|_| Raise::text("stack overflow (too many results)"))?;
        let mut taken = item.size;
        match item.option {
            b'b' | b'B' | b'h' | b'H' | b'l' | b'L' | b'T' | b'i' | b'I' => {
                stack.push_number(integer(bytes, format.big, item.option.is_ascii_lowercase()));
                count += 1;
            }
            b'x' => {}
            b'f' => {
                let value = f32::from_le_bytes(ordered(bytes, format.big));
                stack.push_number(f64::from(value));
                count += 1;
            }
            b'd' => {
                stack.push_number(f64::from_le_bytes(ordered(bytes, format.big)));
                count += 1;
            }
            b'c' if item.size == 0 => {
                let size = if count == 0 { None } else { stack.to_number(-1) };
                let size = size.ok_or_else(|| Raise::text("format 'c0' needs a previous size"))?;
                stack.pop(1);
                // Not a number is no size, either.
                let bytes = if size >= 0.0 { tail.get(..size as usize) } else { None }.ok_or_else(short)?;
                taken = bytes.len();
                stack.push_bytes(bytes);
            }
            b'c' => {
                stack.push_bytes(bytes);
                count += 1;
            }
            b's' => {
                let len = tail.iter().position(|byte| *byte == 0);
                let len = len.ok_or_else(|| Raise::text("unfinished string in data"))?;
                stack.push_bytes(&tail[..len]);
                taken = len + 1;
                count += 1;
            }
            _ => format.control(&item)?,
        }
        at += taken;
        stack.check_memory()?;
        cx.pause(stack, 1)?;
    }
    stack.push_number((at + 1) as f64);
    Ok(count + 1)
}

fn ordered<const N: usize>(bytes: &[u8], big: bool) -> [u8; N] {
    let mut little = [0; N];
    little.copy_from_slice(bytes);
    if big {
        little.reverse();
    }
    little
}

/// Of more than eight bytes the low ones count, and the sign bit is taken at the width modulo 64: what the original's
/// shifts do on the usual processors.
fn integer(bytes: &[u8], big: bool, signed: bool) -> f64 {
    let mut value = 0u64;
    for i in 0..bytes.len() {
        let byte = if big { bytes[i] } else { bytes[bytes.len() - 1 - i] };
        value = value << 8 | u64::from(byte);
    }
    if !signed {
        return value as f64;
    }
    let mask = u64::MAX.wrapping_shl((bytes.len() as u32 * 8).wrapping_sub(1));
    (if value & mask != 0 { value | mask } else { value }) as i64 as f64
}

/// `struct.size(format)`
fn size(stack: &mut Stack, _: &mut Context) -> Result<usize, Raise> {
    let text = check_bytes(stack, 1)?;
    let mut format = Format::new(&text);
    let mut at = 0usize;
    while let Some(item) = format.next()? {
        at += format.padding(at, &item);
        match item.option {
            b's' => return Err(Raise::argument(1, "option 's' has no fixed size")),
            b'c' if item.size == 0 => return Err(Raise::argument(1, "option 'c0' has no fixed size")),
            option if !option.is_ascii_alphanumeric() => format.control(&item)?,
            _ => {}
        }
        // At most 2^31 for each byte of the format, which is a string in memory: no overflow.
        at += item.size;
    }
    stack.push_number(at as f64);
    Ok(1)
}
