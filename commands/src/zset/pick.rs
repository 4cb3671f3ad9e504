//! Members that Redis chooses: the lowest, the highest, random ones, and all of them step by step.

use damselfly_keyspace::values::zset::SortedSet;
use damselfly_keyspace::{Class, Item, UnixMs};
use damselfly_protocol::Proto;
use damselfly_protocol::number::{DOUBLE_LEN_MAX, fmt_double_17, parse_i64};

use super::Pairs;
use super::range::remove_ranks;
use crate::long::{Walk, put_aside};
use crate::pick::{Picked, With, pick};
use crate::random::Random;
use crate::walk::walk;
use crate::{Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Run, Spread};

/// The end of the order that is popped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Lowest,
    Highest,
}

impl End {
    const fn event(self) -> &'static str {
        match self {
            End::Lowest => "zpopmin",
            End::Highest => "zpopmax",
        }
    }
}

/// Replies with up to `count` members from an end of the set under a key, and removes them.
pub(super) fn pop(cx: &mut Cx<'_>, key: &[u8], end: End, count: usize, shape: Shape) -> CmdResult {
    if shape != Shape::Bare && are_popped_in_steps(cx, count) {
        return pop_many(cx, key, end, count, shape);
    }
    let out = &mut cx.out;
    let edit = cx.ks.edit(cx.db, key, |set: &mut SortedSet| {
        let len = set.len();
        let count = count.min(len);
        let ranks = match end {
            End::Lowest => 0..count,
            End::Highest => len - count..len,
        };
        let nested = shape == Shape::Nested;
        match shape {
            Shape::Nested => out.array(count),
            Shape::Flat => out.array(2 * count),
            Shape::Bare => {}
        }
        set.visit(ranks.clone(), end == End::Highest, |member, score| {
            if nested {
                out.array(2);
            }
            out.bulk(member);
            out.double(score);
        });
        set.remove_ranks(ranks)
    })?;
    if edit.is_some_and(|edit| edit.value > 0) {
        cx.changed(key, Class::ZSet, end.event());
        if edit.is_some_and(|edit| edit.gone) {
            cx.changed(key, Class::Generic, "del");
        }
    }
    Ok(())
}

/// Whether a command that asks for so many members may leave a task.
pub(super) fn are_popped_in_steps(cx: &Cx<'_>, count: usize) -> bool {
    count > cx.env.at_once_max && cx.later.is_some()
}

/// As [`pop`], where many are asked for: they are removed in steps if so many are there, and shown in pieces behind that.
fn pop_many(cx: &mut Cx<'_>, key: &[u8], end: End, count: usize, shape: Shape) -> CmdResult {
    let Some(loc) = cx.ks.find_collection::<SortedSet>(cx.db, key)? else {
        cx.out.array(0);
        return Ok(());
    };
    let set = cx.ks.collection::<SortedSet>(cx.db, loc)?.clone();
    let (len, reverse) = (set.len(), end == End::Highest);
    let count = count.min(len);
    let ranks = if reverse { len - count..len } else { 0..count };
    let pairs = Pairs { scores: true, nested: shape == Shape::Nested };
    let shown = ranks.clone();
    remove_ranks(cx, key, loc, ranks, end.event(), move |cx| {
        cx.out.array(if pairs.nested { count } else { 2 * count });
        let walk = || Walk::Ranks { ranks: shown.clone(), reverse, pairs };
        if !put_aside(&mut cx.later, cx.out.proto(), &set, (count, len, set.heap_bytes()), walk) {
            pairs.write_all(&mut cx.out, &set, shown.clone(), reverse);
        }
        Ok(())
    })
}

/// How popped members are shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Member, score, member, score.
    Flat,
    /// [member, score], [member, score].
    Nested,
    /// Member, score, as parts of an array that is already begun.
    Bare,
}

fn pop_from(cx: &mut Cx<'_>, mut args: Args<'_>, end: End) -> CmdResult {
    const NEGATIVE: CommandError = CommandError::text("ERR value is out of range, must be positive");
    let key = args.take()?;
    if args.len() > 1 {
        return Err(CommandError::Syntax);
    }
    let counted = !args.is_empty();
    let count = if counted {
        parse_i64(args.take()?).and_then(|count| usize::try_from(count).ok()).ok_or(NEGATIVE)?
    } else {
        1
    };
    let there = cx.ks.peek::<SortedSet>(cx.db, key)?.is_some();
    if count == 0 || !there {
        cx.out.array(0);
        return Ok(());
    }
    let nested = counted && cx.out.proto() == Proto::Resp3;
    pop(cx, key, end, count, if nested { Shape::Nested } else { Shape::Flat })
}

pub(super) const ZMPOP: Command = Command {
    name: "ZMPOP",
    arity: Arity::AtLeast(4),
    keys: Keys::Counted { count: 1, also: 0 },
    flags: Flags::WRITE.with(Flags::MOVABLE_KEYS),
    spread: Spread::Together,
    group: Group::SortedSet,
    since: "7.0.0",
    syntax: "numkeys key [key ...] <MIN | MAX> [COUNT count]",
    summary: "Removes and returns the lowest or highest members of the first sorted set that is there.",
    run: Run::Shard(zmpop),
};

/// Number of keys, end and count of ZMPOP.
pub(super) fn take_mpop(args: &mut Args<'_>) -> Result<(usize, End, usize), CommandError> {
    const NO_KEYS: CommandError = CommandError::text("ERR numkeys should be greater than 0");
    const NO_COUNT: CommandError = CommandError::text("ERR count should be greater than 0");
    let positive = |text| parse_i64(text).and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0);
    let keys = positive(args.take()?).ok_or(NO_KEYS)?;
    if keys >= args.len() {
        return Err(CommandError::Syntax);
    }
    for _ in 0..keys {
        args.take()?;
    }
    let end = if args.take_word("MIN") {
        End::Lowest
    } else if args.take_word("MAX") {
        End::Highest
    } else {
        return Err(CommandError::Syntax);
    };
    let mut count = 1;
    if args.len() > 1 && args.take_word("COUNT") {
        count = positive(args.take()?).ok_or(NO_COUNT)?;
    }
    args.end()?;
    Ok((keys, end, count))
}

pub(super) fn zmpop(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let candidates = args.rest().skip(1);
    let (keys, end, count) = take_mpop(&mut args)?;
    for key in candidates.take(keys) {
        if cx.ks.peek::<SortedSet>(cx.db, key)?.is_some() {
            cx.out.array(2);
            cx.out.bulk(key);
            return pop(cx, key, end, count, Shape::Nested);
        }
    }
    cx.out.null_array();
    Ok(())
}

pub(super) const ZPOPMAX: Command = Command {
    name: "ZPOPMAX",
    arity: Arity::AtLeast(2),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::SortedSet,
    since: "5.0.0",
    syntax: "key [count]",
    summary: "Removes and returns the members with the highest scores.",
    run: Run::Shard(zpopmax),
};

fn zpopmax(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    pop_from(cx, args, End::Highest)
}

pub(super) const ZPOPMIN: Command = Command {
    name: "ZPOPMIN",
    arity: Arity::AtLeast(2),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::SortedSet,
    since: "5.0.0",
    syntax: "key [count]",
    summary: "Removes and returns the members with the lowest scores.",
    run: Run::Shard(zpopmin),
};

fn zpopmin(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    pop_from(cx, args, End::Lowest)
}

pub(super) const ZRANDMEMBER: Command = Command {
    name: "ZRANDMEMBER",
    arity: Arity::AtLeast(2),
    keys: Keys::First,
    flags: Flags::READ,
    spread: Spread::Single,
    group: Group::SortedSet,
    since: "6.2.0",
    syntax: "key [count [WITHSCORES]]",
    summary: "Returns random members.",
    run: Run::Shard(zrandmember),
};

fn zrandmember(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    if args.is_empty() {
        let mut random = Random::new(cx.ks.random());
        match cx.ks.view::<SortedSet>(cx.db, key)? {
            Some(set) => {
                let rank = random.below(set.len());
                set.visit(rank..rank + 1, false, |member, _| cx.out.bulk(member));
            }
            None => cx.out.null(),
        }
        return Ok(());
    }
    let count = args.take_int()?;
    let scores = match args.len() {
        0 => false,
        1 if args.take_word("WITHSCORES") => true,
        _ => return Err(CommandError::Syntax),
    };
    if count == i64::MIN {
        return Err(CommandError::text(
            "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
        ));
    }
    if scores && count.unsigned_abs() > i64::MAX as u64 / 2 {
        return Err(CommandError::OutOfRange);
    }
    pick::<SortedSet>(cx, key, count, scores)
}

impl Picked for SortedSet {
    /// The rank.
    type Mark = usize;

    fn choices(&self, _now: UnixMs) -> usize {
        self.len()
    }

    fn draw(&self, _now: UnixMs, random: &mut Random, show: impl FnOnce(usize, Item<'_>, With<'_>)) {
        let (rank, mut show) = (random.below(self.len()), Some(show));
        self.visit(rank..rank + 1, false, |member, score| {
            if let Some(show) = show.take() {
                show(rank, Item::Bytes(member), With::Score(score));
            }
        });
    }

    fn walk(&self, cursor: u64, count: usize, _now: UnixMs, mut show: impl FnMut(Item<'_>, With<'_>)) -> u64 {
        let start = cursor as usize;
        let end = start.saturating_add(count).min(self.len());
        self.visit(start..end, false, |member, score| show(Item::Bytes(member), With::Score(score)));
        if end < self.len() { end as u64 } else { 0 }
    }
}

pub(super) const ZSCAN: Command = Command {
    name: "ZSCAN",
    arity: Arity::AtLeast(3),
    keys: Keys::First,
    flags: Flags::READ,
    spread: Spread::Single,
    group: Group::SortedSet,
    since: "2.8.0",
    syntax: "key cursor [MATCH pattern] [COUNT count]",
    summary: "Walks the members and their scores in steps.",
    run: Run::Shard(zscan),
};

fn zscan(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    walk(cx, args, false, |set: &SortedSet, cursor, step, shown| {
        set.scan(cursor, step.count, |member, score| {
            if step.shows(member) {
                shown.element().bulk(member);
                shown.element().bulk(fmt_double_17(score, &mut [0; DOUBLE_LEN_MAX]).as_bytes());
            }
        })
    })
}
