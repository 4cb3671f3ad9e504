//! Strings as numbers: INCR and its sisters, and the rate limiter, which is a number too.

use damselfly_keyspace::{Class, Expiry};
use damselfly_protocol::long_double::{IncrByFloatError, incr_by_float};
use damselfly_protocol::number::Decimal;

use crate::{Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Run, Spread};

pub(crate) const COMMANDS: &[&Command] = &[&CL_THROTTLE, &DECR, &DECRBY, &INCR, &INCRBY, &INCRBYFLOAT];

const CL_THROTTLE: Command = Command {
    name: "CL.THROTTLE",
    arity: Arity::AtLeast(5),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::String,
    since: "dragonfly",
    syntax: "key max-burst count period [quantity]",
    summary: "Takes from an allowance of `count` per `period` seconds, and says whether it was enough.",
    run: Run::Shard(throttle),
};

/// The generic cell rate algorithm. The key holds the instant at which the allowance is full again, in nanoseconds
/// since 1970; each unit taken moves it on by `period / count`, and it may be ahead of now by `max-burst + 1` units.
///
/// The reply: whether the action is limited, the size of the allowance, what is left of it, seconds until it would
/// not be limited (-1 if it is not), seconds until the allowance is full.
fn throttle(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, burst, count, period) = (args.take()?, args.take_int()?, args.take_int()?, args.take_int()?);
    let quantity = if args.is_empty() { 1 } else { args.take_int()? };
    args.end()?;
    let limit = burst.checked_add(1).filter(|_| burst >= 0).ok_or(CommandError::NotInteger)?;
    if count <= 0 || period <= 0 || quantity < 0 {
        return Err(CommandError::NotInteger);
    }
    let full_at = match cx.find_string(key)? {
        Some(loc) => i128::from(cx.string_at(loc)?.number().ok_or(CommandError::NotInteger)?),
        None => 0,
    };
    // In 128 bits a unit, below 2^93, always fits; so do usual multiples of it.
    let unit = i128::from(period) * 1_000_000_000 / i128::from(count);
    let (Some(tolerance), Some(increment)) =
        (unit.checked_mul(i128::from(limit)), unit.checked_mul(i128::from(quantity)))
    else {
        return Err(CommandError::NotInteger);
    };
    let now = i128::from(cx.ks.now) * 1_000_000;
    let full_at = full_at.max(now);
    let full_at_then = full_at.saturating_add(increment);
    let wait = full_at_then.saturating_sub(tolerance).saturating_sub(now);
    let limited = wait > 0;
    let full_in = if limited { full_at } else { full_at_then } - now;
    // A unit of less than a nanosecond is no limit at all.
    let left = (tolerance - full_in).max(0).checked_div(unit).unwrap_or(i128::from(limit));
    if !limited && increment > 0 {
        let full_at = i64::try_from(now + full_in).map_err(|_| CommandError::NotInteger)?;
        let expire_at = full_at.cast_unsigned().div_ceil(1_000_000);
        cx.set_string(key, Decimal::new(full_at).as_bytes(), Expiry::At(expire_at));
        cx.changed(key, Class::String, "set");
        cx.changed(key, Class::Generic, "expire");
    }
    // More than the whole allowance never becomes possible.
    let wait = if limited && increment <= tolerance { seconds(wait) } else { -1 };
    cx.out.array(5);
    for number in [i64::from(limited), limit, left as i64, wait, seconds(full_in)] {
        cx.out.int(number);
    }
    Ok(())
}

/// Whole seconds that are surely enough, or 0 for less than one.
fn seconds(nanos: i128) -> i64 {
    match nanos / 1_000_000_000 {
        0 => 0,
        seconds => i64::try_from(seconds + 1).unwrap_or(i64::MAX),
    }
}

const DECR: Command = Command {
    name: "DECR",
    arity: Arity::Exactly(2),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::String,
    since: "1.0.0",
    syntax: "key",
    summary: "Takes one from the number of a key; a missing key counts as 0.",
    run: Run::Shard(decr),
};

fn decr(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    add(cx, args.take()?, -1)
}

const DECRBY: Command = Command {
    name: "DECRBY",
    arity: Arity::Exactly(3),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::String,
    since: "1.0.0",
    syntax: "key decrement",
    summary: "Takes a number from the number of a key; a missing key counts as 0.",
    run: Run::Shard(decrby),
};

fn decrby(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    const NO_NEGATIVE: CommandError = CommandError::text("ERR decrement would overflow");
    let (key, decrement) = (args.take()?, args.take_int()?);
    add(cx, key, decrement.checked_neg().ok_or(NO_NEGATIVE)?)
}

const INCR: Command = Command {
    name: "INCR",
    arity: Arity::Exactly(2),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::String,
    since: "1.0.0",
    syntax: "key",
    summary: "Adds one to the number of a key; a missing key counts as 0.",
    run: Run::Shard(incr),
};

fn incr(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    add(cx, args.take()?, 1)
}

/// Adds to the number of a key.
#[inline]
fn add(cx: &mut Cx<'_>, key: &[u8], increment: i64) -> CmdResult {
    const OVERFLOW: CommandError = CommandError::text("ERR increment or decrement would overflow");
    let sum = match cx.find(key) {
        Some(loc) => {
            let number = cx.string_at(loc)?.number().ok_or(CommandError::NotInteger)?;
            let sum = number.checked_add(increment).ok_or(OVERFLOW)?;
            cx.ks.table_mut(cx.db).set_int_at(loc, sum);
            sum
        }
        None => {
            cx.set_string(key, Decimal::new(increment).as_bytes(), Expiry::Never);
            increment
        }
    };
    cx.changed(key, Class::String, "incrby");
    cx.out.int(sum);
    Ok(())
}

const INCRBY: Command = Command {
    name: "INCRBY",
    arity: Arity::Exactly(3),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::String,
    since: "1.0.0",
    syntax: "key increment",
    summary: "Adds a number to the number of a key; a missing key counts as 0.",
    run: Run::Shard(incrby),
};

fn incrby(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, increment) = (args.take()?, args.take_int()?);
    add(cx, key, increment)
}

const INCRBYFLOAT: Command = Command {
    name: "INCRBYFLOAT",
    arity: Arity::Exactly(3),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::String,
    since: "2.6.0",
    syntax: "key increment",
    summary: "Adds a decimal fraction to the number of a key; a missing key counts as 0.",
    run: Run::Shard(incrbyfloat),
};

fn incrbyfloat(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, increment) = (args.take()?, args.take()?);
    let sum = match cx.find(key) {
        Some(loc) => incr_by_float(cx.string_at(loc)?.bytes(&mut Decimal::new(0)), increment),
        None => incr_by_float(b"0", increment),
    };
    let sum = sum.map_err(|error| match error {
        IncrByFloatError::NotAFloat => CommandError::NotFloat,
        IncrByFloatError::NotFinite => CommandError::text("ERR increment would produce NaN or Infinity"),
    })?;
    cx.set_text(key, sum.as_bytes(), Expiry::Keep);
    cx.changed(key, Class::String, "incrbyfloat");
    cx.out.bulk(sum.as_bytes());
    Ok(())
}
