//! The list commands that wait.

use damselfly_keyspace::List;

use super::{End, MOVE, Move, pop_some, relay, take_mpop};
use crate::blocking::{
    Blocking, TAKES, Wait, arg, at_once, holds, no_mark, parse_timeout, pop_once, wait_last,
};
use crate::{Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Run, Spread};

/// Takes one element and replies with the key and it.
fn pop_one(cx: &mut Cx<'_>, args: Args<'_>, at: usize, end: End) -> CmdResult {
    let key = arg(&args, at)?;
    let out = &mut cx.out;
    out.array(2);
    out.bulk(key);
    let edit = cx.ks.edit(cx.db, key, |list: &mut List| {
        end.pop_with(list, |item| super::reply_item(out, item));
    })?;
    end.announce_pop(cx, key, edit.is_some_and(|edit| edit.gone));
    Ok(())
}

/// What they share.
const BASE: Blocking = Blocking {
    once: |cx, args| pop_once(cx, args, &BLPOP_WAITS),
    wait: wait_last,
    first_only: false,
    exclusive: true,
    needs_keys: false,
    gather: false,
    mark: no_mark,
    ready: holds::<List>,
    in_steps: at_once,
    take: |cx, args, at, _| pop_one(cx, args, at, End::Left),
    nothing: |out| out.null_array(),
};

pub(super) const BLPOP: Command = Command {
    name: "BLPOP",
    arity: Arity::AtLeast(3),
    keys: Keys::Range { first: 1, last: -2, step: 1 },
    flags: TAKES,
    spread: Spread::Together,
    group: Group::List,
    since: "2.0.0",
    syntax: "key [key ...] timeout",
    summary: "Takes the first element of the first of several lists that is there, or waits for one.",
    run: Run::Block(&BLPOP_WAITS),
};

static BLPOP_WAITS: Blocking = BASE;

pub(super) const BRPOP: Command = Command {
    name: "BRPOP",
    arity: Arity::AtLeast(3),
    keys: Keys::Range { first: 1, last: -2, step: 1 },
    flags: TAKES,
    spread: Spread::Together,
    group: Group::List,
    since: "2.0.0",
    syntax: "key [key ...] timeout",
    summary: "Takes the last element of the first of several lists that is there, or waits for one.",
    run: Run::Block(&BRPOP_WAITS),
};

static BRPOP_WAITS: Blocking = Blocking {
    once: |cx, args| pop_once(cx, args, &BRPOP_WAITS),
    take: |cx, args, at, _| pop_one(cx, args, at, End::Right),
    ..BASE
};

/// The timeout, which is looked at behind all other arguments.
fn wait_before_mpop(mut args: Args<'_>) -> Result<Wait, CommandError> {
    let timeout = args.take()?;
    take_mpop(&mut args)?;
    parse_timeout(timeout)
}

pub(super) const BLMPOP: Command = Command {
    name: "BLMPOP",
    arity: Arity::AtLeast(5),
    keys: Keys::Counted { count: 2, also: 0 },
    flags: TAKES.with(Flags::MOVABLE_KEYS),
    spread: Spread::Together,
    group: Group::List,
    since: "7.0.0",
    syntax: "timeout numkeys key [key ...] <LEFT | RIGHT> [COUNT count]",
    summary: "Takes elements from an end of the first of several lists that is there, or waits for one.",
    run: Run::Block(&BLMPOP_WAITS),
};

static BLMPOP_WAITS: Blocking = Blocking {
    once: |cx, mut args| {
        wait_before_mpop(args)?;
        args.take()?;
        super::lmpop(cx, args)
    },
    wait: wait_before_mpop,
    take: |cx, args, at, _| {
        let mut rest = args;
        rest.take()?;
        let (_, end, count) = take_mpop(&mut rest)?;
        let key = arg(&args, at)?;
        if let Some(loc) = cx.find(key) {
            cx.out.array(2);
            cx.out.bulk(key);
            pop_some(cx, key, loc, end, count)?;
        }
        Ok(())
    },
    ..BASE
};

pub(super) const BLMOVE: Command = Command {
    name: "BLMOVE",
    arity: Arity::Exactly(6),
    keys: Keys::Range { first: 1, last: 2, step: 1 },
    flags: TAKES.with(Flags::GROWS),
    spread: Spread::Relay(&MOVE),
    group: Group::List,
    since: "6.2.0",
    syntax: "source destination <LEFT | RIGHT> <LEFT | RIGHT> timeout",
    summary: "Moves an element from an end of a list to an end of another, or waits for one.",
    run: Run::Block(&BLMOVE_WAITS),
};

static BLMOVE_WAITS: Blocking = Blocking {
    once: |cx, args| {
        Move::take(&mut { args })?;
        wait_last(args)?;
        relay(cx, args)
    },
    wait: |args| {
        Move::take(&mut { args })?;
        wait_last(args)
    },
    first_only: true,
    take: |cx, args, _, _| relay(cx, args),
    ..BASE
};

pub(super) const BRPOPLPUSH: Command = Command {
    name: "BRPOPLPUSH",
    arity: Arity::Exactly(4),
    keys: Keys::Range { first: 1, last: 2, step: 1 },
    flags: TAKES.with(Flags::GROWS),
    spread: Spread::Relay(&MOVE),
    group: Group::List,
    since: "2.2.0",
    syntax: "source destination timeout",
    summary: "Moves the last element of a list to the front of another, or waits for one.",
    run: Run::Block(&BRPOPLPUSH_WAITS),
};

static BRPOPLPUSH_WAITS: Blocking = Blocking {
    once: |cx, args| {
        wait_last(args)?;
        relay(cx, args)
    },
    first_only: true,
    take: |cx, args, _, _| relay(cx, args),
    ..BASE
};
