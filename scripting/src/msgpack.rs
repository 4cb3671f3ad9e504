//! The `cmsgpack` library: MessagePack.
//!
//! Decoding reads untrusted bytes: what a header promises is only ever reserved up to a small bound, nesting is
//! bounded, and each value made is checked against the limit of memory.

use crate::context::Context;
use crate::lua::{Function, Stack, Type};
use crate::raise::{Raise, check_bytes, check_integer};

pub(crate) const FUNCTIONS: &[(&str, Function)] =
    &[("pack", pack), ("unpack", unpack), ("unpack_one", unpack_one), ("unpack_limit", unpack_limit)];

/// Tables nested deeper than this are packed as nil.
const PACKED_DEPTH_MAX: usize = 16;
/// Places that are reserved for what a header promises. It may lie, and again in each level of nesting.
const RESERVED_MAX: usize = 64;
/// Nesting of what is unpacked. One level takes about 150 bytes of the thread's stack.
const UNPACKED_DEPTH_MAX: usize = 2000;

/// `cmsgpack.pack(...)`
fn pack(stack: &mut Stack, cx: &mut Context) -> Result<usize, Raise> {
    let count = stack.top();
    if count == 0 {
        return Err(Raise::argument(0, "MessagePack pack needs input."));
    }
    let mut out = Vec::new();
    for argument in 1..=count {
        stack.push_copy(argument as i32);
        encode(stack, cx, &mut out, 0)?;
    }
    stack.push_bytes(out);
    Ok(1)
}

/// Appends the value on top, and pops it.
fn encode(stack: &mut Stack, cx: &mut Context, out: &mut Vec<u8>, depth: usize) -> Result<(), Raise> {
    match stack.type_of(-1) {
        Type::String => {
            let bytes = stack.bytes(-1).unwrap_or_default();
            let len = bytes.len();
            match len {
                0..32 => out.push(0xA0 | len as u8),
                32..0x100 => out.extend([0xD9, len as u8]),
                0x100..0x1_0000 => sized(out, 0xDA, len as u16),
                _ => wide(out, 0xDB, len as u32),
            }
            out.extend_from_slice(bytes);
        }
        Type::Boolean => out.push(if stack.truth(-1) { 0xC3 } else { 0xC2 }),
        Type::Number => encode_number(stack.number(-1).unwrap_or_default(), out),
        Type::Table if depth < PACKED_DEPTH_MAX => encode_table(stack, cx, out, depth)?,
        _ => out.push(0xC0),
    }
    stack.pop(1);
    if out.len() > (1 << 20) {
        return cx.pause_for(stack, out.len());
    }
    cx.pause(stack, 1)
}

fn sized(out: &mut Vec<u8>, marker: u8, number: u16) {
    out.push(marker);
    out.extend_from_slice(&number.to_be_bytes());
}

fn wide(out: &mut Vec<u8>, marker: u8, number: u32) {
    out.push(marker);
    out.extend_from_slice(&number.to_be_bytes());
}

fn encode_number(number: f64, out: &mut Vec<u8>) {
    let integer = number as i64;
    // 2^63 saturates to 2^63 - 1, which as a double is 2^63 again.
    if integer as f64 != number || number >= 9_223_372_036_854_775_808.0 {
        let single = number as f32;
        if f64::from(single) == number {
            wide(out, 0xCA, single.to_bits());
        } else {
            out.push(0xCB);
            out.extend_from_slice(&number.to_be_bytes());
        }
        return;
    }
    match integer {
        -32..0x80 => out.push(integer as u8),
        0x80..0x100 => out.extend([0xCC, integer as u8]),
        0x100..0x1_0000 => sized(out, 0xCD, integer as u16),
        0x1_0000..0x1_0000_0000 => wide(out, 0xCE, integer as u32),
        0x1_0000_0000.. => {
            out.push(0xCF);
            out.extend_from_slice(&integer.to_be_bytes());
        }
        -0x80..-32 => out.extend([0xD0, integer as u8]),
        -0x8000..-0x80 => sized(out, 0xD1, integer as u16),
        -0x8000_0000..-0x8000 => wide(out, 0xD2, integer as u32),
        _ => {
            out.push(0xD3);
            out.extend_from_slice(&integer.to_be_bytes());
        }
    }
}

fn encode_table(stack: &mut Stack, cx: &mut Context, out: &mut Vec<u8>, depth: usize) -> Result<(), Raise> {
    stack.ensure(4)?;
    // An array if the keys are 1..n and nothing else.
    let (mut count, mut max, mut array) = (0usize, 0f64, true);
    stack.push_nil();
    while stack.next(-2) {
        stack.pop(1);
        cx.pause(stack, 1)?;
        count += 1;
        match stack.number(-1) {
            Some(key) if key > 0.0 && key.trunc() == key => max = max.max(key),
            _ => array = false,
        }
    }
    if array && max == count as f64 {
        match count {
            0..16 => out.push(0x90 | count as u8),
            16..0x1_0000 => sized(out, 0xDC, count as u16),
            _ => wide(out, 0xDD, count as u32),
        }
        for n in 1..=count {
            stack.raw_geti(-1, n);
            encode(stack, cx, out, depth + 1)?;
        }
    } else {
        match count {
            0..16 => out.push(0x80 | count as u8),
            16..0x1_0000 => sized(out, 0xDE, count as u16),
            _ => wide(out, 0xDF, count as u32),
        }
        stack.push_nil();
        while stack.next(-2) {
            stack.push_copy(-2);
            encode(stack, cx, out, depth + 1)?;
            encode(stack, cx, out, depth + 1)?;
        }
    }
    Ok(())
}

/// `cmsgpack.unpack(text)`
fn unpack(stack: &mut Stack, cx: &mut Context) -> Result<usize, Raise> {
    unpack_some(stack, cx, 0, 0)
}

/// `cmsgpack.unpack_one(text [, offset])`
fn unpack_one(stack: &mut Stack, cx: &mut Context) -> Result<usize, Raise> {
    let offset = optional_integer(stack, 2)?;
    stack.set_top(stack.top().min(1));
    unpack_some(stack, cx, 1, offset)
}

/// `cmsgpack.unpack_limit(text, limit [, offset])`
fn unpack_limit(stack: &mut Stack, cx: &mut Context) -> Result<usize, Raise> {
    let limit = check_integer(stack, 2)? as i32;
    let offset = optional_integer(stack, 3)?;
    stack.set_top(1);
    unpack_some(stack, cx, limit, offset)
}

fn optional_integer(stack: &Stack, argument: usize) -> Result<i32, Raise> {
    match stack.type_of(argument as i32) {
        Type::None | Type::Nil => Ok(0),
        _ => Ok(check_integer(stack, argument)? as i32),
    }
}

fn unpack_some(stack: &mut Stack, cx: &mut Context, limit: i32, offset: i32) -> Result<usize, Raise> {
    let text = check_bytes(stack, 1)?;
    let len = text.len();
    if offset < 0 || limit < 0 {
        return Err(Raise::text(format!(
            "Invalid request to unpack with offset of {offset} and limit of {len}."
        )));
    }
    if offset as usize > len {
        return Err(Raise::text(format!("Start offset {offset} greater than input length {len}.")));
    }
    let all = limit == 0 && offset == 0;
    let limit = if all { usize::MAX } else { limit as usize };
    let mut input = Input { rest: &text[offset as usize..] };
    let mut count = 0;
    while !input.rest.is_empty() && count < limit {
        stack.ensure(4).map_err(|_| {
            Raise::text(
                "stack overflow (too many return values at once; use unpack_one or unpack_limit instead.)",
            )
        })?;
        decode(stack, cx, &mut input, 0).map_err(|problem| match problem {
            Problem::Missing => Raise::text("Missing bytes in input."),
            Problem::Bad => Raise::text("Bad data format in input."),
            Problem::Raise(raise) => raise,
        })?;
        count += 1;
    }
    if !all {
        let next = if input.rest.is_empty() { -1.0 } else { (len - input.rest.len()) as f64 };
        stack.push_number(next);
        stack.insert(2);
        count += 1;
    }
    Ok(count)
}

struct Input<'a> {
    rest: &'a [u8],
}

enum Problem {
    Missing,
    Bad,
    Raise(Raise),
}

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Problem> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(Problem::Missing)?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Problem> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    /// A length of `width` bytes.
    fn length(&mut self, width: usize) -> Result<usize, Problem> {
        Ok(self.take(width)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)))
    }
}

/// Pushes the next value.
fn decode(stack: &mut Stack, cx: &mut Context, input: &mut Input<'_>, depth: usize) -> Result<(), Problem> {
    let marker = input.array::<1>()?[0];
    match marker {
        0x00..0x80 | 0xE0.. => stack.push_number(f64::from(marker as i8)),
        0x80..0x90 => return decode_map(stack, cx, input, usize::from(marker & 15), depth),
        0x90..0xA0 => return decode_array(stack, cx, input, usize::from(marker & 15), depth),
        0xA0..0xC0 => decode_string(stack, input, usize::from(marker & 31))?,
        0xC0 => stack.push_nil(),
        0xC2 | 0xC3 => stack.push_bool(marker == 0xC3),
        0xC4 | 0xD9 => {
            let len = input.length(1)?;
            decode_string(stack, input, len)?;
        }
        0xC5 | 0xDA => {
            let len = input.length(2)?;
            decode_string(stack, input, len)?;
        }
        0xC6 | 0xDB => {
            let len = input.length(4)?;
            decode_string(stack, input, len)?;
        }
        0xCA => stack.push_number(f64::from(f32::from_be_bytes(input.array()?))),
        0xCB => stack.push_number(f64::from_be_bytes(input.array()?)),
        0xCC => stack.push_number(f64::from(u8::from_be_bytes(input.array()?))),
        0xCD => stack.push_number(f64::from(u16::from_be_bytes(input.array()?))),
        0xCE => stack.push_number(f64::from(u32::from_be_bytes(input.array()?))),
        0xCF => stack.push_number(u64::from_be_bytes(input.array()?) as f64),
        0xD0 => stack.push_number(f64::from(i8::from_be_bytes(input.array()?))),
        0xD1 => stack.push_number(f64::from(i16::from_be_bytes(input.array()?))),
        0xD2 => stack.push_number(f64::from(i32::from_be_bytes(input.array()?))),
        0xD3 => stack.push_number(i64::from_be_bytes(input.array()?) as f64),
        0xDC => {
            let len = input.length(2)?;
            return decode_array(stack, cx, input, len, depth);
        }
        0xDD => {
            let len = input.length(4)?;
            return decode_array(stack, cx, input, len, depth);
        }
        0xDE => {
            let len = input.length(2)?;
            return decode_map(stack, cx, input, len, depth);
        }
        0xDF => {
            let len = input.length(4)?;
            return decode_map(stack, cx, input, len, depth);
        }
        _ => return Err(Problem::Bad),
    }
    Ok(())
}

fn decode_string(stack: &mut Stack, input: &mut Input<'_>, len: usize) -> Result<(), Problem> {
    stack.push_bytes(input.take(len)?);
    Ok(())
}

fn nested(stack: &mut Stack, depth: usize, what: &str) -> Result<(), Problem> {
    if depth >= UNPACKED_DEPTH_MAX || stack.ensure(6).is_err() {
        return Err(Problem::Raise(Raise::text(format!(
            "stack overflow (in function mp_decode_to_lua_{what})"
        ))));
    }
    Ok(())
}

fn decode_array(
    stack: &mut Stack,
    cx: &mut Context,
    input: &mut Input<'_>,
    len: usize,
    depth: usize,
) -> Result<(), Problem> {
    nested(stack, depth, "array")?;
    stack.push_table(len.min(RESERVED_MAX), 0);
    for n in 1..=len {
        decode(stack, cx, input, depth + 1)?;
        stack.raw_seti(-2, n);
        cx.pause(stack, 1).map_err(Problem::Raise)?;
    }
    Ok(())
}

fn decode_map(
    stack: &mut Stack,
    cx: &mut Context,
    input: &mut Input<'_>,
    len: usize,
    depth: usize,
) -> Result<(), Problem> {
    nested(stack, depth, "hash")?;
    stack.push_table(0, len.min(RESERVED_MAX));
    for _ in 0..len {
        decode(stack, cx, input, depth + 1)?;
        decode(stack, cx, input, depth + 1)?;
        stack.raw_set(-3).map_err(Problem::Raise)?;
        cx.pause(stack, 1).map_err(Problem::Raise)?;
    }
    Ok(())
}
