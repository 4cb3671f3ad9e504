//! Strings: GET and SET with their variants, several at once, and parts of strings. Strings as numbers are in
//! `counter.rs`.

use std::borrow::Cow;
use std::ops::Range;

use damselfly_keyspace::{Class, Expiry, Loc, UnixMs, Value};
use damselfly_protocol::number::Decimal;

use crate::cx::Str;
use crate::lcs::{self, table_bytes};
use crate::lifetime::{Clock, Lifetime};
use crate::long::{LENT_FROM, put_part_aside};
use crate::{Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Merge, Run, Spread};

pub(crate) const COMMANDS: &[&Command] = &[
    &APPEND, &DIGEST, &GAT, &GET, &GETDEL, &GETEX, &GETRANGE, &GETSET, &LCS, &MGET, &MSET, &MSETNX, &PREPEND,
    &PSETEX, &SET, &SETEX, &SETNX, &SETRANGE, &STRLEN, &SUBSTR,
];

const APPEND: Command = Command {
    name: "APPEND",
    arity: Arity::Exactly(3),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::String,
    since: "2.0.0",
    syntax: "key value",
    summary: "Appends to the string of a key, made if it is missing.",
    run: Run::Shard(append),
};

fn append(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, value) = (args.take()?, args.take()?);
    extend(cx, key, value.into(), "append", Vec::extend_from_slice)
}

/// APPEND and PREPEND: `change` adds `value` to the string that is there.
fn extend(
    cx: &mut Cx<'_>,
    key: &[u8],
    value: Cow<'_, [u8]>,
    event: &'static str,
    change: impl FnOnce(&mut Vec<u8>, &[u8]),
) -> CmdResult {
    let len = match cx.find(key) {
        Some(loc) => {
            check_len(cx, cx.string_at(loc)?.len(), value.len())?;
            cx.ks.table_mut(cx.db).edit_string(loc, |bytes| {
                change(bytes, &value);
                bytes.len()
            })
        }
        None => {
            let len = value.len();
            cx.set_bytes(key, value, Expiry::Never);
            len
        }
    };
    cx.changed(key, Class::String, event);
    cx.out.int(len as i64);
    Ok(())
}

/// Refuses a string that would become `len + more` bytes if that is too long.
fn check_len(cx: &Cx<'_>, len: usize, more: usize) -> CmdResult {
    match len.checked_add(more) {
        Some(len) if len <= cx.env.string_len_max => Ok(()),
        _ => Err(CommandError::StringTooLong),
    }
}

const DIGEST: Command = Command {
    name: "DIGEST",
    arity: Arity::Exactly(2),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::String,
    since: "dragonfly",
    syntax: "key",
    summary: "Returns the XXH3 hash of a string as sixteen hexadecimal digits.",
    run: Run::Shard(digest),
};

fn digest(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    match cx.read_string(args.take()?)? {
        Some(value) => {
            let digits = format!("{:016x}", value.digest());
            cx.out.bulk(digits.as_bytes());
        }
        None => cx.out.null(),
    }
    Ok(())
}

const GAT: Command = Command {
    name: "GAT",
    arity: Arity::AtLeast(3),
    keys: Keys::Range { first: 2, last: -1, step: 1 },
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::HIDDEN),
    spread: Spread::Together,
    group: Group::String,
    since: "dragonfly",
    syntax: "exptime key [key ...]",
    summary: "Returns the values of several keys and gives them memcache's kind of time to live.",
    run: Run::Shard(gat),
};

fn gat(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let expire_at = memcache_deadline(args.take_int()?, cx.ks.now);
    cx.out.array(args.len());
    for key in args.rest() {
        let found = cx.read(key).filter(|&loc| cx.reply_string_at(loc).is_ok());
        let Some(loc) = found else {
            cx.out.null();
            continue;
        };
        if expire_at.is_some_and(|at| at <= cx.ks.now) {
            cx.ks.remove_at(cx.db, loc);
            cx.changed(key, Class::Generic, "del");
        } else {
            cx.ks.table_mut(cx.db).set_expire(loc, expire_at);
            cx.changed(key, Class::Generic, if expire_at.is_some() { "expire" } else { "persist" });
        }
    }
    Ok(())
}

/// Memcache's `exptime`: 0 is never, below zero is the past, up to thirty days is from now, above that from 1970.
fn memcache_deadline(exptime: i64, now: UnixMs) -> Option<UnixMs> {
    const RELATIVE_MAX: i64 = 30 * 24 * 60 * 60;
    let clock = match exptime {
        0 => return None,
        ..0 => return Some(0),
        1..=RELATIVE_MAX => Clock::EX,
        _ => Clock::EXAT,
    };
    // What milliseconds cannot express is so far away that it never comes.
    clock.to_unix_ms(exptime, now).map(i64::cast_unsigned)
}

const GET: Command = Command {
    name: "GET",
    arity: Arity::Exactly(2),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::String,
    since: "1.0.0",
    syntax: "key",
    summary: "Returns the string value of a key.",
    run: Run::Shard(get),
};

fn get(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let found = cx.read(args.take()?);
    reply_found(cx, found)
}

/// The string at a location that may be none.
#[inline]
fn reply_found(cx: &mut Cx<'_>, found: Option<Loc>) -> CmdResult {
    match found {
        Some(loc) => cx.reply_only_string_at(loc),
        None => {
            cx.out.null();
            Ok(())
        }
    }
}

const GETDEL: Command = Command {
    name: "GETDEL",
    arity: Arity::Exactly(2),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::String,
    since: "6.2.0",
    syntax: "key",
    summary: "Returns the string value of a key and removes the key.",
    run: Run::Shard(getdel),
};

fn getdel(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    let found = cx.read(key);
    reply_found(cx, found)?;
    if let Some(loc) = found {
        cx.ks.remove_at(cx.db, loc);
        cx.changed(key, Class::Generic, "del");
    }
    Ok(())
}

const GETEX: Command = Command {
    name: "GETEX",
    arity: Arity::AtLeast(2),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::String,
    since: "6.2.0",
    syntax: "key [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | PERSIST]",
    summary: "Returns the string value of a key and sets or removes its time to live.",
    run: Run::Shard(getex),
};

fn getex(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    let (mut lifetime, mut persist) = (None, false);
    while let Some(word) = args.peek() {
        args.take()?;
        if word.eq_ignore_ascii_case(b"PERSIST") && lifetime.is_none() {
            persist = true;
        } else {
            let clock = Clock::of_option(word).filter(|_| !persist).ok_or(CommandError::Syntax)?;
            take_lifetime(&mut args, clock, &mut lifetime)?;
        }
    }
    let Some(loc) = cx.read(key) else {
        cx.out.null();
        return Ok(());
    };
    cx.string_at(loc)?;
    let deadline = lifetime.map(|lifetime| lifetime.deadline(cx.ks.now, "getex")).transpose()?;
    cx.reply_only_string_at(loc)?;
    let now = cx.ks.now;
    let table = cx.ks.table_mut(cx.db);
    match deadline {
        Some(at) if at <= now => {
            cx.ks.remove_at(cx.db, loc);
            cx.changed(key, Class::Generic, "del");
        }
        Some(at) => {
            table.set_expire(loc, Some(at));
            cx.changed(key, Class::Generic, "expire");
        }
        None if persist && table.expire_at(loc).is_some() => {
            table.set_expire(loc, None);
            cx.changed(key, Class::Generic, "persist");
        }
        None => {}
    }
    Ok(())
}

/// The time behind EX and its sisters. A second one replaces the first if it is of the same kind.
fn take_lifetime<'a>(
    args: &mut Args<'a>,
    clock: Clock,
    lifetime: &mut Option<Lifetime<'a>>,
) -> Result<(), CommandError> {
    if lifetime.is_some_and(|earlier| earlier.clock != clock) {
        return Err(CommandError::Syntax);
    }
    *lifetime = Some(Lifetime { text: args.take()?, clock });
    Ok(())
}

const GETRANGE: Command = Command {
    name: "GETRANGE",
    arity: Arity::Exactly(4),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::BRIEF),
    spread: Spread::Single,
    group: Group::String,
    since: "2.4.0",
    syntax: "key start end",
    summary: "Returns a part of the string of a key.",
    run: Run::Shard(getrange),
};

fn getrange(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, start, end) = (args.take()?, args.take_int()?, args.take_int()?);
    let loc = cx.read(key);
    if let Some(loc) = loc
        && let Value::Str(bytes) = cx.ks.value(cx.db, loc)
        && bytes.len() >= LENT_FROM
    {
        // A write that comes before the reply was sent copies the string, which a small part is not worth.
        let (len, part) = (bytes.len(), slice(bytes.len(), start, end));
        if part.len() >= (len / 8).min(LENT_ALWAYS_FROM) && put_part_aside(cx, loc, part) {
            return Ok(());
        }
    }
    let decimal;
    let bytes = match loc {
        Some(loc) => match cx.ks.value(cx.db, loc) {
            Value::Str(bytes) => bytes,
            Value::Int(number) => {
                decimal = Decimal::new(number);
                decimal.as_bytes()
            }
            Value::Object(_) => return Err(CommandError::WrongType),
        },
        None => b"",
    };
    cx.out.bulk(&bytes[slice(bytes.len(), start, end)]);
    Ok(())
}

/// A part of a string that is lent however long the string is: to copy it is to hold the shard for a millisecond.
const LENT_ALWAYS_FROM: usize = 4 * 1024 * 1024;

/// From `start` to `end`, both included and both counted from the end if negative.
fn slice(len: usize, start: i64, end: i64) -> Range<usize> {
    let len = len as i64;
    // Before the first byte counts as the first byte, but not for a range that was backwards as it was written.
    if start < 0 && end < 0 && start > end {
        return 0..0;
    }
    let [start, end] = [start, end].map(|at| if at < 0 { (len + at).max(0) } else { at });
    if start > end || start >= len {
        return 0..0;
    }
    start as usize..end.min(len - 1) as usize + 1
}

const GETSET: Command = Command {
    name: "GETSET",
    arity: Arity::Exactly(3),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::String,
    since: "1.0.0",
    syntax: "key value",
    summary: "Sets the string value of a key and returns the one before.",
    run: Run::Shard(getset),
};

fn getset(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, value) = (args.take()?, args.take()?);
    get_and_set(cx, key, value.into())
}

fn get_and_set(cx: &mut Cx<'_>, key: &[u8], value: Cow<'_, [u8]>) -> CmdResult {
    store(cx, key, value, &SetOptions { get: true, ..SetOptions::PLAIN }, "getset")?;
    Ok(())
}

const LCS: Command = Command {
    name: "LCS",
    arity: Arity::AtLeast(3),
    keys: Keys::Range { first: 1, last: 2, step: 1 },
    flags: Flags::READ,
    spread: Spread::Together,
    group: Group::String,
    since: "7.0.0",
    syntax: "key1 key2 [LEN] [IDX] [MINMATCHLEN min-match-len] [WITHMATCHLEN]",
    summary: "Returns the longest common subsequence of two strings.",
    run: Run::Shard(lcs),
};

fn lcs(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    const NOT_STRINGS: CommandError = CommandError::text("ERR The specified keys must contain string values");
    const BOTH: CommandError =
        CommandError::text("ERR If you want both the length and indexes, please just use IDX.");
    const TOO_LARGE: CommandError =
        CommandError::text("ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len");
    let (key_a, key_b) = (args.take()?, args.take()?);
    cx.read_string(key_a).map_err(|_| NOT_STRINGS)?;
    cx.read_string(key_b).map_err(|_| NOT_STRINGS)?;
    let (mut only_len, mut indexes, mut with_len, mut len_min) = (false, false, false, 0);
    while !args.is_empty() {
        if args.take_word("IDX") {
            indexes = true;
        } else if args.take_word("LEN") {
            only_len = true;
        } else if args.take_word("WITHMATCHLEN") {
            with_len = true;
        } else if args.take_word("MINMATCHLEN") {
            len_min = args.take_int()?.max(0);
        } else {
            return Err(CommandError::Syntax);
        }
    }
    if indexes && only_len {
        return Err(BOTH);
    }
    // Looked up before: neither look-up below can remove an expired key and with it the other's location.
    let found = [cx.find(key_a), cx.find(key_b)];
    let mut decimals = [Decimal::new(0); 2];
    let mut values = found.into_iter().zip(&mut decimals).map(|(found, decimal)| match found {
        Some(loc) => cx.string_at(loc).map(|value| value.bytes(decimal)),
        None => Ok(&b""[..]),
    });
    let (a, b) = (values.next().expect("two")?, values.next().expect("two")?);
    if table_bytes(a.len(), b.len()).is_none_or(|bytes| bytes > cx.env.string_len_max) {
        return Err(TOO_LARGE);
    }
    if only_len {
        let len = lcs::len(a, b);
        cx.out.int(len as i64);
        return Ok(());
    }
    let runs = lcs::runs(a, b);
    if !indexes {
        let text: Vec<u8> = runs.iter().rev().flat_map(|run| &a[run.a..run.a + run.len]).copied().collect();
        cx.out.bulk(&text);
        return Ok(());
    }
    let shown = || runs.iter().filter(|run| run.len as i64 >= len_min);
    cx.out.map(2);
    cx.out.bulk(b"matches");
    cx.out.array(shown().count());
    for run in shown() {
        cx.out.array(2 + usize::from(with_len));
        for start in [run.a, run.b] {
            cx.out.array(2);
            cx.out.int(start as i64);
            cx.out.int((start + run.len - 1) as i64);
        }
        if with_len {
            cx.out.int(run.len as i64);
        }
    }
    cx.out.bulk(b"len");
    cx.out.int(runs.iter().map(|run| run.len as i64).sum());
    Ok(())
}

const MGET: Command = Command {
    name: "MGET",
    arity: Arity::AtLeast(2),
    keys: Keys::Range { first: 1, last: -1, step: 1 },
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Split { step: 1, merge: Merge::PerKey },
    group: Group::String,
    since: "1.0.0",
    syntax: "key [key ...]",
    summary: "Returns the string values of several keys, null for those without one.",
    run: Run::Shard(mget),
};

fn mget(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    cx.out.array(args.len());
    for (at, key) in args.rest().enumerate() {
        cx.load_ahead(at, args, 1);
        let found = cx.read(key);
        if found.is_none_or(|loc| cx.reply_string_at(loc).is_err()) {
            cx.out.null();
        }
    }
    Ok(())
}

const MSET: Command = Command {
    name: "MSET",
    arity: Arity::AtLeast(3),
    keys: Keys::Range { first: 1, last: -1, step: 2 },
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::BRIEF),
    spread: Spread::Split { step: 2, merge: Merge::Same },
    group: Group::String,
    since: "1.0.1",
    syntax: "key value [key value ...]",
    summary: "Sets several keys at once.",
    run: Run::Shard(mset),
};

fn mset(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    if !args.len().is_multiple_of(2) {
        return Err(CommandError::arity("mset"));
    }
    set_pairs(cx, args)?;
    cx.out.ok();
    Ok(())
}

fn set_pairs(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let pairs = args;
    for at in 0..pairs.len() / 2 {
        cx.load_ahead(at, pairs, 2);
        let (key, value) = (args.take()?, args.take()?);
        cx.set_string(key, value, Expiry::Never);
        cx.changed(key, Class::String, "set");
    }
    Ok(())
}

const MSETNX: Command = Command {
    name: "MSETNX",
    arity: Arity::AtLeast(3),
    keys: Keys::Range { first: 1, last: -1, step: 2 },
    flags: Flags::WRITE.with(Flags::GROWS),
    spread: Spread::Split { step: 2, merge: Merge::Unless },
    group: Group::String,
    since: "1.0.1",
    syntax: "key value [key value ...]",
    summary: "Sets several keys at once, unless one of them exists.",
    run: Run::Shard(msetnx),
};

fn msetnx(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    if !args.len().is_multiple_of(2) {
        return Err(CommandError::arity("msetnx"));
    }
    let none_there = args.rest().step_by(2).all(|key| cx.find(key).is_none());
    if none_there {
        set_pairs(cx, args)?;
    }
    cx.out.int(i64::from(none_there));
    Ok(())
}

const PREPEND: Command = Command {
    name: "PREPEND",
    arity: Arity::Exactly(3),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::String,
    since: "dragonfly",
    syntax: "key value",
    summary: "Puts a value before the string of a key, made if it is missing.",
    run: Run::Shard(prepend),
};

fn prepend(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, value) = (args.take()?, args.take()?);
    extend(cx, key, value.into(), "prepend", |bytes, value| {
        bytes.splice(..0, value.iter().copied());
    })
}

const PSETEX: Command = Command {
    name: "PSETEX",
    arity: Arity::Exactly(4),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS),
    spread: Spread::Single,
    group: Group::String,
    since: "2.6.0",
    syntax: "key milliseconds value",
    summary: "Sets the string value of a key and its time to live in milliseconds.",
    run: Run::Shard(psetex),
};

fn psetex(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    set_expiring(cx, args, None, Clock::PX, "psetex")
}

/// `given` is the value if it is not the one of the arguments.
fn set_expiring(
    cx: &mut Cx<'_>,
    mut args: Args<'_>,
    given: Option<Vec<u8>>,
    clock: Clock,
    name: &'static str,
) -> CmdResult {
    let (key, text, value) = (args.take()?, args.take()?, args.take()?);
    let value = given.map_or(Cow::Borrowed(value), Cow::Owned);
    let lifetime = Some(Lifetime { text, clock });
    store(cx, key, value, &SetOptions { lifetime, ..SetOptions::PLAIN }, name)?;
    cx.out.ok();
    Ok(())
}

const SET: Command = Command {
    name: "SET",
    arity: Arity::AtLeast(3),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::BRIEF),
    spread: Spread::Single,
    group: Group::String,
    since: "1.0.0",
    syntax: "key value [NX | XX] [GET] [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | KEEPTTL] [STICK]",
    summary: "Sets the string value of a key, whatever it held before.",
    run: Run::Shard(set),
};

fn set(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, value) = (args.take()?, args.take()?);
    if !args.is_empty() {
        return set_with_options(cx, key, value.into(), args);
    }
    cx.set_string(key, value, Expiry::Never);
    cx.changed(key, Class::String, "set");
    cx.out.ok();
    Ok(())
}

/// Whether [`run_given`] runs this command with a value in the place of its argument at `at`, its name being at 0.
pub fn takes_given(name: &str, at: usize) -> bool {
    matches!((name, at), ("SET" | "SETNX" | "GETSET" | "APPEND", 2) | ("SETEX" | "PSETEX" | "RESTORE", 3))
}

/// Runs a command that stores a long value, which is kept as it is and not copied. What its arguments have in the place
/// of the value is not looked at.
pub fn run_given(cx: &mut Cx<'_>, name: &str, mut args: Args<'_>, value: Vec<u8>) -> CmdResult {
    match name {
        "SETEX" => return set_expiring(cx, args, Some(value), Clock::EX, "setex"),
        "PSETEX" => return set_expiring(cx, args, Some(value), Clock::PX, "psetex"),
        "RESTORE" => {
            let (key, ttl, _) = (args.take()?, args.take()?, args.take()?);
            return crate::generic::restore_payload(cx, key, ttl, Cow::Owned(value), args);
        }
        _ => {}
    }
    let (key, _) = (args.take()?, args.take()?);
    let value = Cow::Owned(value);
    match name {
        "SET" => set_with_options(cx, key, value, args),
        "SETNX" => set_if_missing(cx, key, value),
        "GETSET" => get_and_set(cx, key, value),
        "APPEND" => extend(cx, key, value, "append", Vec::extend_from_slice),
        _ => unreachable!("{name} takes no value that is given"),
    }
}

/// Apart from `set`, so that the usual SET need not make room for all this.
#[inline(never)]
fn set_with_options(cx: &mut Cx<'_>, key: &[u8], value: Cow<'_, [u8]>, args: Args<'_>) -> CmdResult {
    let options = SetOptions::parse(args)?;
    let stored = store(cx, key, value, &options, "set")?;
    match (options.get, stored) {
        (true, _) => {}
        (false, true) => cx.out.ok(),
        (false, false) => cx.out.null(),
    }
    Ok(())
}

/// When SET and its variants set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Always,
    /// NX
    IfMissing,
    /// XX
    IfThere,
}

/// What distinguishes SET, SETNX, SETEX, PSETEX and GETSET.
struct SetOptions<'a> {
    condition: Condition,
    /// Answer with the value before.
    get: bool,
    lifetime: Option<Lifetime<'a>>,
    keep_ttl: bool,
    /// Exempt the key from eviction.
    stick: bool,
}

impl<'a> SetOptions<'a> {
    const PLAIN: SetOptions<'static> = SetOptions {
        condition: Condition::Always,
        get: false,
        lifetime: None,
        keep_ttl: false,
        stick: false,
    };

    /// In any order and any case; an option may be repeated, but not together with one that contradicts it.
    fn parse(mut args: Args<'a>) -> Result<SetOptions<'a>, CommandError> {
        let mut options: SetOptions<'a> = SetOptions::PLAIN;
        while let Some(word) = args.peek() {
            args.take()?;
            let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
            if is("NX") && options.condition != Condition::IfThere {
                options.condition = Condition::IfMissing;
            } else if is("XX") && options.condition != Condition::IfMissing {
                options.condition = Condition::IfThere;
            } else if is("GET") {
                options.get = true;
            } else if is("KEEPTTL") && options.lifetime.is_none() {
                options.keep_ttl = true;
            } else if is("STICK") {
                options.stick = true;
            } else {
                let clock =
                    Clock::of_option(word).filter(|_| !options.keep_ttl).ok_or(CommandError::Syntax)?;
                take_lifetime(&mut args, clock, &mut options.lifetime)?;
            }
        }
        Ok(options)
    }
}

/// Sets a string as the options say, for the command with this lower-case name; false if the condition was not met.
/// Writes the reply only if it is the value before.
fn store(
    cx: &mut Cx<'_>,
    key: &[u8],
    value: Cow<'_, [u8]>,
    options: &SetOptions<'_>,
    name: &'static str,
) -> Result<bool, CommandError> {
    let expiry = match options.lifetime {
        Some(lifetime) => Expiry::At(lifetime.deadline(cx.ks.now, name)?),
        None if options.keep_ttl => Expiry::Keep,
        None => Expiry::Never,
    };
    // Also for the sake of KEEPTTL: a time that has passed is not one to keep.
    let found = if options.get { cx.read(key) } else { cx.find(key) };
    if options.get {
        reply_found(cx, found)?;
    }
    match options.condition {
        Condition::IfMissing if found.is_some() => return Ok(false),
        Condition::IfThere if found.is_none() => return Ok(false),
        _ => {}
    }
    cx.set_bytes(key, value, expiry);
    cx.changed(key, Class::String, "set");
    if options.lifetime.is_some() {
        cx.changed(key, Class::Generic, "expire");
    }
    if options.stick
        && let Some(loc) = cx.find(key)
    {
        cx.ks.table_mut(cx.db).set_sticky(loc, true);
    }
    Ok(true)
}

const SETEX: Command = Command {
    name: "SETEX",
    arity: Arity::Exactly(4),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS),
    spread: Spread::Single,
    group: Group::String,
    since: "2.0.0",
    syntax: "key seconds value",
    summary: "Sets the string value of a key and its time to live in seconds.",
    run: Run::Shard(setex),
};

fn setex(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    set_expiring(cx, args, None, Clock::EX, "setex")
}

const SETNX: Command = Command {
    name: "SETNX",
    arity: Arity::Exactly(3),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::String,
    since: "1.0.0",
    syntax: "key value",
    summary: "Sets the string value of a key unless the key exists.",
    run: Run::Shard(setnx),
};

fn setnx(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, value) = (args.take()?, args.take()?);
    set_if_missing(cx, key, value.into())
}

fn set_if_missing(cx: &mut Cx<'_>, key: &[u8], value: Cow<'_, [u8]>) -> CmdResult {
    let options = SetOptions { condition: Condition::IfMissing, ..SetOptions::PLAIN };
    let stored = store(cx, key, value, &options, "setnx")?;
    cx.out.int(i64::from(stored));
    Ok(())
}

const SETRANGE: Command = Command {
    name: "SETRANGE",
    arity: Arity::Exactly(4),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS),
    spread: Spread::Single,
    group: Group::String,
    since: "2.2.0",
    syntax: "key offset value",
    summary: "Overwrites a part of the string of a key, grown with zero bytes as needed.",
    run: Run::Shard(setrange),
};

fn setrange(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, offset, value) = (args.take()?, args.take_int()?, args.take()?);
    let offset = usize::try_from(offset).map_err(|_| CommandError::text("ERR offset is out of range"))?;
    let found = cx.find(key);
    let old_len = match found {
        Some(loc) => cx.string_at(loc)?.len(),
        None => 0,
    };
    if value.is_empty() {
        cx.out.int(old_len as i64);
        return Ok(());
    }
    check_len(cx, offset, value.len())?;
    let end = offset + value.len();
    let write = |bytes: &mut Vec<u8>| {
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset..end].copy_from_slice(value);
        bytes.len()
    };
    let len = match found {
        Some(loc) => cx.ks.table_mut(cx.db).edit_string(loc, write),
        None => {
            let mut bytes = Vec::new();
            let len = write(&mut bytes);
            cx.set_edited(key, bytes, Expiry::Never);
            len
        }
    };
    cx.changed(key, Class::String, "setrange");
    cx.out.int(len as i64);
    Ok(())
}

const STRLEN: Command = Command {
    name: "STRLEN",
    arity: Arity::Exactly(2),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::String,
    since: "2.2.0",
    syntax: "key",
    summary: "Returns the length of the string of a key.",
    run: Run::Shard(strlen),
};

fn strlen(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let len = cx.read_string(args.take()?)?.map_or(0, Str::len);
    cx.out.int(len as i64);
    Ok(())
}

const SUBSTR: Command = Command {
    name: "SUBSTR",
    arity: Arity::Exactly(4),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::BRIEF),
    spread: Spread::Single,
    group: Group::String,
    since: "1.0.0",
    syntax: "key start end",
    summary: "Returns a part of the string of a key; the older name of GETRANGE.",
    run: Run::Shard(getrange),
};
