//! The `bit` library: operations on 32 bits.
//!
//! Numbers are brought into range by the trick of the original library, adding 1.5 * 2^52 so that the low bits of the
//! sum's mantissa are the integer: it rounds halves to even and defines what becomes of huge numbers.

use crate::context::Context;
use crate::lua::{Function, Stack};
use crate::raise::{Raise, check_number};

pub(crate) const FUNCTIONS: &[(&str, Function)] = &[
    ("tobit", |stack, cx| unary(stack, cx, |bits| bits)),
    ("bnot", |stack, cx| unary(stack, cx, |bits| !bits)),
    ("bswap", |stack, cx| unary(stack, cx, u32::swap_bytes)),
    ("band", |stack, cx| fold(stack, cx, |a, b| a & b)),
    ("bor", |stack, cx| fold(stack, cx, |a, b| a | b)),
    ("bxor", |stack, cx| fold(stack, cx, |a, b| a ^ b)),
    ("lshift", |stack, cx| shift(stack, cx, u32::wrapping_shl)),
    ("rshift", |stack, cx| shift(stack, cx, u32::wrapping_shr)),
    ("arshift", |stack, cx| shift(stack, cx, |bits, n| (bits as i32).wrapping_shr(n) as u32)),
    ("rol", |stack, cx| shift(stack, cx, |bits, n| bits.rotate_left(n & 31))),
    ("ror", |stack, cx| shift(stack, cx, |bits, n| bits.rotate_right(n & 31))),
    ("tohex", to_hex),
];

fn bits(stack: &Stack, argument: usize) -> Result<u32, Raise> {
    const ONE_AND_A_HALF: f64 = 6_755_399_441_055_744.0;
    let number = check_number(stack, argument)?;
    Ok((number + ONE_AND_A_HALF).to_bits() as u32)
}

fn answer(stack: &mut Stack, bits: u32) -> Result<usize, Raise> {
    stack.push_number(f64::from(bits as i32));
    Ok(1)
}

fn unary(stack: &mut Stack, _: &mut Context, work: fn(u32) -> u32) -> Result<usize, Raise> {
    let bits = bits(stack, 1)?;
    answer(stack, work(bits))
}

fn fold(stack: &mut Stack, _: &mut Context, work: fn(u32, u32) -> u32) -> Result<usize, Raise> {
    let mut result = bits(stack, 1)?;
    for argument in 2..=stack.top() {
        result = work(result, bits(stack, argument)?);
    }
    answer(stack, result)
}

fn shift(stack: &mut Stack, _: &mut Context, work: fn(u32, u32) -> u32) -> Result<usize, Raise> {
    let (value, by) = (bits(stack, 1)?, bits(stack, 2)?);
    answer(stack, work(value, by & 31))
}

/// `bit.tohex(x [, n])`: n digits, upper case if n is negative.
fn to_hex(stack: &mut Stack, _: &mut Context) -> Result<usize, Raise> {
    let value = bits(stack, 1)?;
    let count = if stack.top() < 2 { 8 } else { bits(stack, 2)? as i32 };
    let digits = if count < 0 { format!("{value:08X}") } else { format!("{value:08x}") };
    let count = count.unsigned_abs().min(8) as usize;
    stack.push_bytes(&digits[8 - count..]);
    Ok(1)
}
