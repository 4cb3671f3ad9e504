//! The sorted set commands that wait.

use damselfly_keyspace::values::zset::SortedSet;

use super::pick::{End, Shape, are_popped_in_steps, pop, take_mpop, zmpop};
use crate::blocking::{
    Blocking, TAKES, Wait, arg, at_once, holds, no_mark, parse_timeout, pop_once, wait_last,
};
use crate::{Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Run, Spread};

/// Takes one member and replies with the key, it and its score.
fn pop_one(cx: &mut Cx<'_>, args: Args<'_>, at: usize, end: End) -> CmdResult {
    let key = arg(&args, at)?;
    cx.out.array(3);
    cx.out.bulk(key);
    pop(cx, key, end, 1, Shape::Bare)
}

/// What they share.
const BASE: Blocking = Blocking {
    once: |cx, args| pop_once(cx, args, &BZPOPMIN_WAITS),
    wait: wait_last,
    first_only: false,
    exclusive: true,
    needs_keys: false,
    gather: false,
    mark: no_mark,
    ready: holds::<SortedSet>,
    in_steps: at_once,
    take: |cx, args, at, _| pop_one(cx, args, at, End::Lowest),
    nothing: |out| out.null_array(),
};

pub(super) const BZPOPMIN: Command = Command {
    name: "BZPOPMIN",
    arity: Arity::AtLeast(3),
    keys: Keys::Range { first: 1, last: -2, step: 1 },
    flags: TAKES.with(Flags::FAST),
    spread: Spread::Together,
    group: Group::SortedSet,
    since: "5.0.0",
    syntax: "key [key ...] timeout",
    summary: "Takes the lowest member of the first of several sorted sets that is there, or waits for one.",
    run: Run::Block(&BZPOPMIN_WAITS),
};

static BZPOPMIN_WAITS: Blocking = BASE;

pub(super) const BZPOPMAX: Command = Command {
    name: "BZPOPMAX",
    arity: Arity::AtLeast(3),
    keys: Keys::Range { first: 1, last: -2, step: 1 },
    flags: TAKES.with(Flags::FAST),
    spread: Spread::Together,
    group: Group::SortedSet,
    since: "5.0.0",
    syntax: "key [key ...] timeout",
    summary: "Takes the highest member of the first of several sorted sets that is there, or waits for one.",
    run: Run::Block(&BZPOPMAX_WAITS),
};

static BZPOPMAX_WAITS: Blocking = Blocking {
    once: |cx, args| pop_once(cx, args, &BZPOPMAX_WAITS),
    take: |cx, args, at, _| pop_one(cx, args, at, End::Highest),
    ..BASE
};

/// The timeout, which is looked at behind all other arguments.
fn wait_before_mpop(mut args: Args<'_>) -> Result<Wait, CommandError> {
    let timeout = args.take()?;
    take_mpop(&mut args)?;
    parse_timeout(timeout)
}

pub(super) const BZMPOP: Command = Command {
    name: "BZMPOP",
    arity: Arity::AtLeast(5),
    keys: Keys::Counted { count: 2, also: 0 },
    flags: TAKES.with(Flags::MOVABLE_KEYS),
    spread: Spread::Together,
    group: Group::SortedSet,
    since: "7.0.0",
    syntax: "timeout numkeys key [key ...] <MIN | MAX> [COUNT count]",
    summary: "Takes the lowest or highest members of the first of several sorted sets that is there, or waits for one.",
    run: Run::Block(&BZMPOP_WAITS),
};

static BZMPOP_WAITS: Blocking = Blocking {
    once: |cx, mut args| {
        wait_before_mpop(args)?;
        args.take()?;
        zmpop(cx, args)
    },
    wait: wait_before_mpop,
    in_steps: |cx, mut args, _, _| {
        args.take()?;
        let (_, _, count) = take_mpop(&mut args)?;
        Ok(are_popped_in_steps(cx, count))
    },
    take: |cx, args, at, _| {
        let mut rest = args;
        rest.take()?;
        let (_, end, count) = take_mpop(&mut rest)?;
        let key = arg(&args, at)?;
        cx.out.array(2);
        cx.out.bulk(key);
        pop(cx, key, end, count, Shape::Nested)
    },
    ..BASE
};
