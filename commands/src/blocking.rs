//! Commands that wait until a key has something for them.
//!
//! Such a command is declared with what the server needs to carry the waiting out: how long, whether a key has
//! what it waits for, and how to take it. Everything is about one key at a time, because keys may be on several shards
//! and are looked at, one after the other, where they are.

use damselfly_keyspace::Collection;
use damselfly_protocol::ReplyWriter;
use damselfly_protocol::number::{LongDouble, parse_f64, parse_i64};

use crate::{Args, CmdResult, CommandError, Cx, Flags, Handler};

/// How long a command waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    Never,
    /// This many milliseconds.
    Millis(u64),
    /// Until there is something.
    Forever,
}

/// What a blocking command is made of. Keys are named by their place in the arguments behind the command's name.
pub struct Blocking {
    /// The command where nothing may wait: in transactions and scripts.
    pub once: Handler,
    /// Checks all arguments and says how long to wait.
    pub wait: fn(Args<'_>) -> Result<Wait, CommandError>,
    /// Only the first key is waited for; another one is a target.
    pub first_only: bool,
    /// What one waiter takes is gone for the others, so that when one of them finds nothing the others need not look.
    pub exclusive: bool,
    /// It needs its keys from the start, and is answered when one of them goes.
    pub needs_keys: bool,
    /// Replies for all keys that have something are put together. Otherwise the first key that has something is all.
    pub gather: bool,
    /// What must be remembered about a key when the waiting begins ("newer than now"); handed to `ready` and `take`. An
    /// error is the reply, before anything is taken.
    pub mark: fn(&mut Cx<'_>, Args<'_>, usize) -> Result<Vec<u8>, CommandError>,
    /// Whether the key has something for the command. An error is the reply.
    pub ready: fn(&mut Cx<'_>, Args<'_>, usize, &[u8]) -> Result<bool, CommandError>,
    /// Whether taking what the key has will leave a [`Task`](crate::Task), if it may; `ready` was true just before.
    pub in_steps: fn(&mut Cx<'_>, Args<'_>, usize, &[u8]) -> Result<bool, CommandError>,
    /// Takes it and replies; `ready` was true just before.
    pub take: fn(&mut Cx<'_>, Args<'_>, usize, &[u8]) -> CmdResult,
    /// Replies that the time is over.
    pub nothing: fn(&mut ReplyWriter<'_>),
}

/// What all that take something away are.
pub(crate) const TAKES: Flags = Flags::WRITE.with(Flags::BLOCKING);

/// The argument at `at`, which the arity has checked.
pub(crate) fn arg<'a>(args: &Args<'a>, at: usize) -> Result<&'a [u8], CommandError> {
    args.get(at).ok_or(CommandError::Syntax)
}

/// For `ready`: whether there is such a collection, which is never empty.
pub(crate) fn holds<C: Collection>(
    cx: &mut Cx<'_>,
    args: Args<'_>,
    at: usize,
    _: &[u8],
) -> Result<bool, CommandError> {
    Ok(cx.ks.peek::<C>(cx.db, arg(&args, at)?)?.is_some())
}

/// For `wait`, where the timeout is the last argument.
pub(crate) fn wait_last(args: Args<'_>) -> Result<Wait, CommandError> {
    parse_timeout(arg(&args, args.len() - 1)?)
}

/// For `once`, where all arguments but the last are keys.
pub(crate) fn pop_once(cx: &mut Cx<'_>, args: Args<'_>, blocking: &Blocking) -> CmdResult {
    wait_last(args)?;
    if !try_keys(cx, args, 0..args.len() - 1, blocking)? {
        cx.out.null_array();
    }
    Ok(())
}

/// For commands that take all at once.
pub(crate) fn at_once(_: &mut Cx<'_>, _: Args<'_>, _: usize, _: &[u8]) -> Result<bool, CommandError> {
    Ok(false)
}

/// For commands that remember nothing.
pub(crate) fn no_mark(_: &mut Cx<'_>, _: Args<'_>, _: usize) -> Result<Vec<u8>, CommandError> {
    Ok(Vec::new())
}

/// A timeout in seconds, with fractions.
pub(crate) fn parse_timeout(text: &[u8]) -> Result<Wait, CommandError> {
    const NOT_A_FLOAT: CommandError = CommandError::text("ERR timeout is not a float or out of range");
    // Redis reads a number of 80 bits: what is too far or too near for a double is a timeout to it all the same.
    let long = || LongDouble::parse(text).map(LongDouble::to_f64_within);
    let seconds = parse_f64(text).or_else(long).ok_or(NOT_A_FLOAT)?;
    // Redis rounds up, so that a tiny timeout does not become "for ever".
    let millis = (seconds * 1000.0).ceil();
    if millis >= i64::MAX as f64 {
        return Err(OUT_OF_RANGE);
    }
    if seconds < 0.0 {
        return Err(NEGATIVE);
    }
    Ok(wait(millis as u64))
}

/// A timeout in milliseconds.
pub(crate) fn parse_timeout_ms(text: &[u8]) -> Result<Wait, CommandError> {
    const NOT_AN_INTEGER: CommandError = CommandError::text("ERR timeout is not an integer or out of range");
    let millis = parse_i64(text).ok_or(NOT_AN_INTEGER)?;
    // Together with the present time it must be a time.
    if millis > i64::MAX - (1 << 42) {
        return Err(OUT_OF_RANGE);
    }
    u64::try_from(millis).map(wait).map_err(|_| NEGATIVE)
}

const OUT_OF_RANGE: CommandError = CommandError::text("ERR timeout is out of range");
const NEGATIVE: CommandError = CommandError::text("ERR timeout is negative");

fn wait(millis: u64) -> Wait {
    if millis == 0 { Wait::Forever } else { Wait::Millis(millis) }
}

/// Tries keys in order; whether one had something.
pub(crate) fn try_keys(
    cx: &mut Cx<'_>,
    args: Args<'_>,
    keys: std::ops::Range<usize>,
    blocking: &Blocking,
) -> Result<bool, CommandError> {
    for at in keys {
        if (blocking.ready)(cx, args, at, &[])? {
            (blocking.take)(cx, args, at, &[])?;
            return Ok(true);
        }
    }
    Ok(false)
}
