//! Strings, numbers among them.

use damselfly_keyspace::{Class, Expiry};

use crate::{Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Merge, Run, Spread};

pub(crate) const COMMANDS: &[&Command] = &[&GET, &MGET, &MSET, &SET];

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
    match cx.read(args.take()?) {
        Some(loc) => cx.reply_string_at(loc),
        None => {
            cx.out.null();
            Ok(())
        }
    }
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
    for key in args.rest() {
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
    flags: Flags::WRITE.with(Flags::GROWS),
    spread: Spread::Split { step: 2, merge: Merge::Same },
    group: Group::String,
    since: "1.0.1",
    syntax: "key value [key value ...]",
    summary: "Sets several keys at once.",
    run: Run::Shard(mset),
};

fn mset(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    if args.len() % 2 != 0 {
        return Err(CommandError::arity("mset"));
    }
    while !args.is_empty() {
        let (key, value) = (args.take()?, args.take()?);
        cx.set_string(key, value, Expiry::Never);
        cx.changed(key, Class::String, "set");
    }
    cx.out.ok();
    Ok(())
}

const SET: Command = Command {
    name: "SET",
    arity: Arity::AtLeast(3),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS),
    spread: Spread::Single,
    group: Group::String,
    since: "1.0.0",
    syntax: "key value [NX | XX] [GET] [EX seconds | PX milliseconds | EXAT unix-time-seconds | PXAT unix-time-milliseconds | KEEPTTL]",
    summary: "Sets the string value of a key, whatever it held before.",
    run: Run::Shard(set),
};

fn set(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, value) = (args.take()?, args.take()?);
    args.end()?;
    cx.set_string(key, value, Expiry::Never);
    cx.changed(key, Class::String, "set");
    cx.out.ok();
    Ok(())
}
