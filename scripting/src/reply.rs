//! Values across the border: replies of commands into Lua values, and a script's value into its reply.
//!
//! | RESP | Lua |
//! | --- | --- |
//! | status | `{ok = text}` |
//! | error | `{err = text, ignore_error_stats_update = true}` |
//! | integer | number |
//! | bulk string, null | string, `false` |
//! | array, null array | table from 1 on, `false` |
//! | null of RESP3 | `nil` |
//! | boolean | boolean |
//! | double | `{double = number}` |
//! | map, set | `{map = {...}}`, `{set = {member = true, ...}}` |
//! | big number | `{big_number = digits}` |
//! | verbatim string | `{verbatim_string = {format = , string = }}` |

use crate::context::Context;
use crate::lua::{Stack, Type};
use crate::raise::Raise;
use damselfly_protocol::number::{parse_f64, parse_i64};
use damselfly_protocol::{Proto, ReplyWriter};

/// Nesting of replies of commands. Those with JSON nest as deep as documents may, others a few levels.
const READ_DEPTH_MAX: usize = 256;
/// Nesting of a script's value. Redis goes on to about 8000, where no client can follow.
const WRITTEN_DEPTH_MAX: usize = 1000;

/// Pushes the reply that `bytes` begin with, and gives what follows it.
///
/// The bytes are the host's own, so what is no RESP is the host's error, and told as one.
pub(crate) fn push<'a>(
    stack: &mut Stack,
    cx: &mut Context,
    bytes: &'a [u8],
    depth: usize,
) -> Result<&'a [u8], Raise> {
    let (&marker, rest) = bytes.split_first().ok_or_else(malformed)?;
    let end = rest.windows(2).position(|pair| pair == b"\r\n").ok_or_else(malformed)?;
    let (line, rest) = (&rest[..end], &rest[end + 2..]);
    match marker {
        b'+' => {
            stack.push_table(0, 1);
            stack.push_bytes(line);
            stack.set_field(-2, "ok");
        }
        b'-' => push_error(stack, line),
        b':' => stack.push_number(parse_i64(line).ok_or_else(malformed)? as f64),
        b'$' if line == b"-1" => stack.push_bool(false),
        b'*' if line == b"-1" => stack.push_bool(false),
        b'_' => stack.push_nil(),
        b'#' => stack.push_bool(line == b"t"),
        b',' => {
            stack.push_table(0, 1);
            stack.push_number(parse_f64(line).unwrap_or(f64::NAN));
            stack.set_field(-2, "double");
        }
        b'(' => {
            stack.push_table(0, 1);
            stack.push_bytes(line);
            stack.set_field(-2, "big_number");
        }
        b'$' | b'=' => {
            let (text, after) = rest.split_at_checked(length(line)?).ok_or_else(malformed)?;
            if marker == b'$' {
                stack.push_bytes(text);
            } else {
                let (format, text) = text.split_at_checked(4).ok_or_else(malformed)?;
                stack.push_table(0, 1);
                stack.push_table(0, 2);
                stack.push_bytes(&format[..3]);
                stack.set_field(-2, "format");
                stack.push_bytes(text);
                stack.set_field(-2, "string");
                stack.set_field(-2, "verbatim_string");
            }
            return after.strip_prefix(b"\r\n").ok_or_else(malformed);
        }
        b'*' | b'>' | b'~' | b'%' | b'|' => {
            if depth >= READ_DEPTH_MAX {
                return Err(Raise::text("a reply is nested too deep"));
            }
            return push_aggregate(stack, cx, (marker, length(line)?), rest, depth + 1);
        }
        _ => return Err(malformed()),
    }
    Ok(rest)
}

fn push_aggregate<'a>(
    stack: &mut Stack,
    cx: &mut Context,
    (marker, len): (u8, usize),
    mut rest: &'a [u8],
    depth: usize,
) -> Result<&'a [u8], Raise> {
    let table = |stack: &mut Stack, name: &str, len: usize| {
        stack.push_table(0, 1);
        stack.push_bytes(name);
        stack.push_table(0, len);
    };
    match marker {
        b'~' => {
            table(stack, "set", len);
            for _ in 0..len {
                rest = push(stack, cx, rest, depth)?;
                stack.push_bool(true);
                set_or_drop(stack);
                cx.pause(stack, 1)?;
            }
            stack.raw_set(-3)?;
        }
        b'%' => {
            table(stack, "map", len);
            for _ in 0..len {
                rest = push(stack, cx, rest, depth)?;
                rest = push(stack, cx, rest, depth)?;
                set_or_drop(stack);
                cx.pause(stack, 1)?;
            }
            stack.raw_set(-3)?;
        }
        b'|' => {
            // Attributes come before a reply, and scripts do not see them.
            for _ in 0..len {
                rest = push(stack, cx, rest, depth)?;
                rest = push(stack, cx, rest, depth)?;
                stack.pop(2);
            }
            return push(stack, cx, rest, depth);
        }
        _ => {
            stack.push_table(len, 0);
            for n in 1..=len {
                rest = push(stack, cx, rest, depth)?;
                stack.raw_seti(-2, n);
                cx.pause(stack, 1)?;
            }
        }
    }
    Ok(rest)
}

/// A key that cannot be one (nil) is left out with its value.
fn set_or_drop(stack: &mut Stack) {
    if stack.raw_set(-3).is_err() {
        stack.pop(2);
    }
}

fn malformed() -> Raise {
    Raise::text("the server has sent a malformed reply")
}

fn length(line: &[u8]) -> Result<usize, Raise> {
    parse_i64(line).and_then(|length| usize::try_from(length).ok()).ok_or_else(malformed)
}

/// An error's table. Its code is what stands before the first space; a text without any space gets `ERR`.
fn push_error(stack: &mut Stack, line: &[u8]) {
    stack.push_table(0, 2);
    if line.contains(&b' ') {
        stack.push_bytes(line);
    } else {
        stack.push_bytes([b"ERR ", line].concat());
    }
    stack.set_field(-2, "err");
    stack.push_bool(true);
    stack.set_field(-2, "ignore_error_stats_update");
}

/// Appends the value on top as a reply, and pops it. `script_resp3` is what the script has asked for by `setresp`,
/// and decides how booleans go; the client's protocol decides the rest.
pub(crate) fn write(
    stack: &mut Stack,
    cx: &mut Context,
    out: &mut ReplyWriter<'_>,
    depth: usize,
) -> Result<(), Raise> {
    match stack.type_of(-1) {
        Type::String => out.bulk(stack.bytes(-1).unwrap_or_default()),
        Type::Number => out.int(integer(stack.number(-1).unwrap_or_default())),
        Type::Boolean => write_bool(stack.truth(-1), cx.how.resp3, out),
        Type::Table => {
            if depth >= WRITTEN_DEPTH_MAX || stack.ensure(8).is_err() {
                out.error("ERR reached lua stack limit");
            } else {
                write_table(stack, cx, out, depth + 1)?;
            }
        }
        _ => out.null(),
    }
    stack.pop(1);
    cx.pause(stack, 1)
}

/// As C casts doubles to integers on the usual processors: what does not fit becomes the smallest.
fn integer(number: f64) -> i64 {
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if (-LIMIT..LIMIT).contains(&number) { number as i64 } else { i64::MIN }
}

fn write_bool(value: bool, script_resp3: bool, out: &mut ReplyWriter<'_>) {
    match (script_resp3, value) {
        (true, _) if out.proto() == Proto::Resp2 => out.int(i64::from(value)),
        (true, _) => out.bool(value),
        (false, true) => out.int(1),
        (false, false) => out.null(),
    }
}

fn write_table(
    stack: &mut Stack,
    cx: &mut Context,
    out: &mut ReplyWriter<'_>,
    depth: usize,
) -> Result<(), Raise> {
    if stack.field(-1, "err") == Type::String {
        let text = stack.bytes(-1).unwrap_or_default();
        out.error(text);
        stack.pop(1);
        return Ok(());
    }
    stack.pop(1);
    if stack.field(-1, "ok") == Type::String {
        out.raw(b"+");
        out.raw(&one_line(stack.bytes(-1).unwrap_or_default()));
        out.raw(b"\r\n");
        stack.pop(1);
        return Ok(());
    }
    stack.pop(1);
    if stack.field(-1, "double") == Type::Number {
        out.double(stack.number(-1).unwrap_or_default());
        stack.pop(1);
        return Ok(());
    }
    stack.pop(1);
    if stack.field(-1, "map") == Type::Table {
        let deferred = out.deferred(1);
        let mut len = 0;
        stack.push_nil();
        while stack.next(-2) {
            stack.push_copy(-2);
            write(stack, cx, out, depth)?;
            write(stack, cx, out, depth)?;
            len += 1;
        }
        out.fill_map(deferred, len);
        stack.pop(1);
        return Ok(());
    }
    stack.pop(1);
    if stack.field(-1, "set") == Type::Table {
        let deferred = out.deferred(1);
        let mut len = 0;
        stack.push_nil();
        while stack.next(-2) {
            stack.pop(1);
            stack.push_copy(-1);
            write(stack, cx, out, depth)?;
            len += 1;
        }
        out.fill_set(deferred, len);
        stack.pop(1);
        return Ok(());
    }
    stack.pop(1);
    if stack.field(-1, "big_number") == Type::String {
        let digits = one_line(stack.bytes(-1).unwrap_or_default());
        out.big_number(&String::from_utf8_lossy(&digits));
        stack.pop(1);
        return Ok(());
    }
    stack.pop(1);
    if stack.field(-1, "verbatim_string") == Type::Table && write_verbatim(stack, out) {
        stack.pop(1);
        return Ok(());
    }
    stack.pop(1);
    let deferred = out.deferred(stack.len(-1));
    let mut len = 0;
    loop {
        stack.raw_geti(-1, len + 1);
        if stack.type_of(-1) == Type::Nil {
            stack.pop(1);
            break;
        }
        write(stack, cx, out, depth)?;
        len += 1;
        if out.len() > (1 << 20) {
            cx.pause_for(stack, out.len())?;
        }
    }
    out.fill_array(deferred, len);
    Ok(())
}

/// A line break would end the reply early.
pub(crate) fn one_line(text: &[u8]) -> Vec<u8> {
    text.iter().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte }).collect()
}

/// The table on top, if it has both fields.
fn write_verbatim(stack: &mut Stack, out: &mut ReplyWriter<'_>) -> bool {
    stack.field(-1, "format");
    stack.field(-2, "string");
    let written = match (stack.bytes(-2), stack.bytes(-1)) {
        (Some(format), Some(text)) => {
            // Three letters, as the protocol has it.
            let format = std::str::from_utf8(format).ok().filter(|format| {
                format.len() == 3 && format.bytes().all(|byte| byte.is_ascii_alphanumeric())
            });
            out.verbatim(format.unwrap_or("txt"), text);
            true
        }
        _ => false,
    };
    stack.pop(2);
    written
}
