//! The `redis` table: commands, replies, the log.

use crate::context::{Context, Stopped};
use crate::host::{AclCheck, CallOutcome, LogLevel, Repl};
use crate::lua::{Function, Stack, Type};
use crate::raise::{Raise, check_bytes, push_error_table};
use crate::reply;
use damselfly_protocol::number::{DOUBLE_LEN_MAX, fmt_double_17};
use damselfly_protocol::sha1;

/// For scripts and for functions.
pub(crate) const FUNCTIONS: &[(&str, Function)] = &[
    ("call", call),
    ("pcall", pcall),
    ("error_reply", |stack, _| single_field(stack, "err")),
    ("status_reply", |stack, _| single_field(stack, "ok")),
    ("sha1hex", sha1_hex),
    ("setresp", set_resp),
    ("acl_check_cmd", acl_check_cmd),
    ("set_repl", set_repl),
];

/// For scripts only. There is no debugger to break into.
pub(crate) const SCRIPT_FUNCTIONS: &[(&str, Function)] = &[
    ("replicate_commands", |stack, _| {
        stack.push_bool(true);
        Ok(1)
    }),
    ("breakpoint", |stack, _| {
        stack.push_bool(false);
        Ok(1)
    }),
    ("debug", |_, _| Ok(0)),
];

/// Also while a library is loaded.
pub(crate) const LOG: (&str, Function) = ("log", log);

pub(crate) const LOG_LEVELS: &[(&str, f64)] =
    &[("LOG_DEBUG", 0.0), ("LOG_VERBOSE", 1.0), ("LOG_NOTICE", 2.0), ("LOG_WARNING", 3.0)];

pub(crate) const REPL: &[(&str, f64)] =
    &[("REPL_NONE", 0.0), ("REPL_AOF", 1.0), ("REPL_SLAVE", 2.0), ("REPL_REPLICA", 2.0), ("REPL_ALL", 3.0)];

/// `redis.call(command, ...)`: an error reply is raised.
fn call(stack: &mut Stack, cx: &mut Context) -> Result<usize, Raise> {
    command(stack, cx, Raised::Yes)
}

/// `redis.pcall(command, ...)`: an error reply is returned.
fn pcall(stack: &mut Stack, cx: &mut Context) -> Result<usize, Raise> {
    command(stack, cx, Raised::No)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Raised {
    Yes,
    No,
}

fn command(stack: &mut Stack, cx: &mut Context, raised: Raised) -> Result<usize, Raise> {
    let how = cx.how;
    let mut bytes = std::mem::take(&mut cx.reply);
    bytes.clear();
    let outcome = with_arguments(stack, |argv| match cx.host() {
        Some(host) => host.call(argv, how, &mut bytes),
        None => CallOutcome::Abort,
    });
    let result = match outcome {
        Ok(CallOutcome::Done) => reply::push(stack, cx, &bytes, 0).map(|_| ()),
        Ok(CallOutcome::Abort) => {
            cx.stopped = Some(Stopped::Aborted);
            Err(Raise::Abort)
        }
        Err(text) if raised == Raised::Yes => Err(Raise::Table(text.into())),
        Err(text) => {
            push_error_table(stack, text.as_bytes());
            Ok(())
        }
    };
    let failed = bytes.first() == Some(&b'-');
    cx.reply = bytes;
    result?;
    if failed && raised == Raised::Yes { Err(Raise::Top) } else { Ok(1) }
}

/// Gives the arguments to `work` as bytes.
fn with_arguments<R>(stack: &Stack, work: impl FnOnce(&[&[u8]]) -> R) -> Result<R, &'static str> {
    /// Up to so many arguments need no memory of their own.
    const INLINE: usize = 16;
    let count = stack.top();
    if count == 0 {
        return Err("ERR Please specify at least one argument for this redis lib call");
    }
    let mut numbers = Vec::new();
    let mut inline: [&[u8]; INLINE] = [b""; INLINE];
    let mut many = Vec::new();
    let argv: &mut [&[u8]] = if count <= INLINE {
        &mut inline[..count]
    } else {
        many.resize(count, &b""[..]);
        &mut many
    };
    for (i, arg) in argv.iter_mut().enumerate() {
        match stack.bytes(i as i32 + 1) {
            Some(bytes) => *arg = bytes,
            None => match stack.number(i as i32 + 1) {
                Some(number) => numbers.push((i, number)),
                None => return Err("ERR Lua redis lib command arguments must be strings or integers"),
            },
        }
    }
    if numbers.is_empty() {
        return Ok(work(argv));
    }
    let mut texts = Vec::with_capacity(numbers.len());
    for (_, number) in &numbers {
        texts.push(fmt_double_17(*number, &mut [0; DOUBLE_LEN_MAX]).as_bytes().to_vec());
    }
    for ((i, _), text) in numbers.iter().zip(&texts) {
        argv[*i] = text;
    }
    Ok(work(argv))
}

/// `redis.error_reply(text)` and `redis.status_reply(text)`
fn single_field(stack: &mut Stack, field: &str) -> Result<usize, Raise> {
    let Some(text) = stack.bytes(1).filter(|_| stack.top() == 1) else {
        push_error_table(stack, b"ERR wrong number or type of arguments");
        return Ok(1);
    };
    let mut text = text.to_vec();
    if field == "err" {
        // What stands before the first space is the code; without a space, the usual one is put there.
        if text.first() == Some(&b'-') {
            text.remove(0);
        }
        if !text.contains(&b' ') {
            text.splice(0..0, *b"ERR ");
        }
        while matches!(text.last(), Some(b'\r' | b'\n')) {
            text.pop();
        }
    }
    stack.push_table(0, 1);
    stack.push_bytes(text);
    stack.set_field(-2, field);
    Ok(1)
}

/// `redis.sha1hex(text)`
fn sha1_hex(stack: &mut Stack, _: &mut Context) -> Result<usize, Raise> {
    if stack.top() != 1 {
        return Err(Raise::Table(b"ERR wrong number of arguments".to_vec()));
    }
    // What is neither text nor number counts as nothing.
    let text = check_bytes(stack, 1).unwrap_or_default();
    stack.push_bytes(sha1::hex(&sha1::sha1(&text)));
    Ok(1)
}

/// `redis.setresp(2 or 3)`
fn set_resp(stack: &mut Stack, cx: &mut Context) -> Result<usize, Raise> {
    if stack.top() != 1 {
        return Err(Raise::Table(b"ERR redis.setresp() requires one argument.".to_vec()));
    }
    cx.how.resp3 = match stack.to_number(1) {
        Some(2.0) => false,
        Some(3.0) => true,
        _ => return Err(Raise::Table(b"ERR RESP version must be 2 or 3.".to_vec())),
    };
    Ok(0)
}

/// `redis.acl_check_cmd(command, ...)`
fn acl_check_cmd(stack: &mut Stack, cx: &mut Context) -> Result<usize, Raise> {
    let verdict =
        with_arguments(stack, |argv| cx.host().map_or(AclCheck::Denied, |host| host.acl_check(argv)));
    match verdict {
        Ok(AclCheck::Unknown) => {
            Err(Raise::Table(b"ERR Invalid command passed to redis.acl_check_cmd()".to_vec()))
        }
        Ok(verdict) => {
            stack.push_bool(verdict == AclCheck::Allowed);
            Ok(1)
        }
        Err(text) => Err(Raise::Table(text.into())),
    }
}

/// `redis.set_repl(flags)`
fn set_repl(stack: &mut Stack, cx: &mut Context) -> Result<usize, Raise> {
    if stack.top() != 1 {
        return Err(Raise::Table(b"ERR redis.set_repl() requires two arguments.".to_vec()));
    }
    let flags = stack.to_number(1).unwrap_or(0.0) as i64;
    if flags & !3 != 0 {
        return Err(Raise::Table(
            b"ERR Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE.".to_vec(),
        ));
    }
    if let Some(host) = cx.host() {
        host.set_repl(Repl { aof: flags & 1 != 0, replicas: flags & 2 != 0 });
    }
    Ok(0)
}

/// `redis.log(level, text, ...)`
fn log(stack: &mut Stack, cx: &mut Context) -> Result<usize, Raise> {
    let count = stack.top();
    if count < 2 {
        return Err(Raise::Table(b"ERR redis.log() requires two arguments or more.".to_vec()));
    }
    let level = match stack.to_number(1) {
        None => {
            return Err(Raise::Table(b"ERR First argument must be a number (log level).".to_vec()));
        }
        Some(level) => match level as i64 {
            0 => LogLevel::Debug,
            1 => LogLevel::Verbose,
            2 => LogLevel::Notice,
            3 => LogLevel::Warning,
            _ => return Err(Raise::Table(b"ERR Invalid debug level.".to_vec())),
        },
    };
    let mut text = Vec::new();
    let mut any = false;
    for argument in 2..=count {
        // What is neither text nor number is left out.
        if matches!(stack.type_of(argument as i32), Type::String | Type::Number) {
            if any {
                text.push(b' ');
            }
            any = true;
            text.extend_from_slice(&check_bytes(stack, argument)?);
        }
    }
    if let Some(host) = cx.host() {
        host.log(level, &text);
    }
    Ok(0)
}

/// `os.clock()`
pub(crate) fn clock(stack: &mut Stack, cx: &mut Context) -> Result<usize, Raise> {
    stack.push_number(cx.host().map_or(0.0, |host| host.clock()));
    Ok(1)
}

/// A read of a global, or of a field of the load-time API, that is not there.
pub(crate) fn missing_global(stack: &mut Stack, _: &mut Context) -> Result<usize, Raise> {
    let name = check_bytes(stack, 2).unwrap_or_else(|_| stack.type_of(2).name().into());
    Err(Raise::text([b"Script attempted to access nonexistent global variable '", &name[..], b"'"].concat()))
}

/// Puts an uncaught error into the form that it is answered in: `{err = , source = , line = }`.
pub(crate) fn handle_error(stack: &mut Stack, cx: &mut Context) -> Result<usize, Raise> {
    if stack.type_of(1) != Type::Table {
        let text = match stack.type_of(1) {
            Type::String | Type::Number => check_bytes(stack, 1)?,
            Type::Boolean => {
                if stack.truth(1) {
                    b"true".to_vec()
                } else {
                    b"false".to_vec()
                }
            }
            other => other.name().into(),
        };
        push_error_table(stack, &[b"ERR ", &text[..]].concat());
        stack.insert(1);
    }
    let position = stack.position(1).filter(|position| !position.native).or_else(|| stack.position(2));
    stack.set_top(1);
    // Kept beside the table, which can be the script's own, even a protected one.
    cx.raised_at = position.map(|position| (position.source, position.line));
    Ok(1)
}
