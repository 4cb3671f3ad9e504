//! Ranges: ZRANGE in all its forms, the commands that it replaces, and the same ranges stored, counted and removed.

use std::ops::Range;

use damselfly_keyspace::values::PackLimits;
use damselfly_keyspace::values::zset::SortedSet;
use damselfly_keyspace::{Class, Collection, Loc, Object};

use super::bounds::{By, Span};
use super::{Pairs, store};
use crate::long::{Walk, put_aside};
use crate::task::{Rest, Task, change_in_steps, members_per_step};
use crate::{Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Run, Spread};

/// What is asked of a range besides its ends.
struct Query<'a> {
    span: Span<'a>,
    reverse: bool,
    scores: bool,
    /// Members to skip, and at most how many to show; negative is all.
    limit: Option<(i64, i64)>,
}

/// What a command's name already says; None leaves it to the options.
#[derive(Clone, Copy)]
struct Form {
    by: Option<By>,
    reverse: Option<bool>,
    store: bool,
}

const ZRANGE_FORM: Form = Form { by: None, reverse: None, store: false };

impl<'a> Query<'a> {
    // Inlined, or what it returns would be read back in wider pieces than it was stored.
    #[inline(always)]
    fn parse(mut args: Args<'a>, form: Form) -> Result<Query<'a>, CommandError> {
        const LIMIT: CommandError = CommandError::text(
            "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
        );
        const SCORES: CommandError =
            CommandError::text("ERR syntax error, WITHSCORES not supported in combination with BYLEX");
        let (first, second) = (args.take()?, args.take()?);
        let Form { mut by, mut reverse, store } = form;
        let (mut scores, mut limit) = (false, None);
        while !args.is_empty() {
            if !store && args.take_word("WITHSCORES") {
                scores = true;
            } else if args.len() > 2 && args.take_word("LIMIT") {
                limit = Some((args.take_int()?, args.take_int()?));
            } else if reverse.is_none() && args.take_word("REV") {
                reverse = Some(true);
            } else if by.is_none() && args.take_word("BYLEX") {
                by = Some(By::Member);
            } else if by.is_none() && args.take_word("BYSCORE") {
                by = Some(By::Score);
            } else {
                return Err(CommandError::Syntax);
            }
        }
        let (by, reverse) = (by.unwrap_or(By::Rank), reverse.unwrap_or(false));
        if by == By::Rank && limit.is_some_and(|(_, count)| count != -1) {
            return Err(LIMIT);
        }
        if by == By::Member && scores {
            return Err(SCORES);
        }
        let span = if reverse && by != By::Rank {
            Span::parse(by, second, first)?
        } else {
            Span::parse(by, first, second)?
        };
        Ok(Query { span, reverse, scores, limit: limit.filter(|_| by != By::Rank) })
    }

    /// The ranks of the answer.
    fn ranks(&self, set: &SortedSet) -> Range<usize> {
        let Range { start, end } = self.span.ranks(set, self.reverse);
        let Some((skip, count)) = self.limit else { return start..end };
        // To skip fewer than none is to skip all.
        let skip = usize::try_from(skip).unwrap_or(usize::MAX).min(end - start);
        let count = usize::try_from(count).unwrap_or(usize::MAX).min(end - start - skip);
        if self.reverse { end - skip - count..end - skip } else { start + skip..start + skip + count }
    }
}

fn reply_range(cx: &mut Cx<'_>, mut args: Args<'_>, form: Form) -> CmdResult {
    let key = args.take()?;
    let query = Query::parse(args, form)?;
    let Some(set) = cx.ks.view::<SortedSet>(cx.db, key)? else {
        cx.out.array(0);
        return Ok(());
    };
    let ranks = query.ranks(set);
    let pairs = Pairs::begin(&mut cx.out, ranks.len(), query.scores);
    let (reverse, size) = (query.reverse, (ranks.len(), set.len(), set.heap_bytes()));
    let walk = || Walk::Ranks { ranks: ranks.clone(), reverse, pairs };
    if !put_aside(&mut cx.later, cx.out.proto(), set, size, walk) {
        pairs.write_all(&mut cx.out, set, ranks, reverse);
    }
    Ok(())
}

/// The number of members between two bounds.
fn count(cx: &mut Cx<'_>, mut args: Args<'_>, by: By) -> CmdResult {
    let key = args.take()?;
    let span = Span::take(by, &mut args)?;
    let set = cx.ks.view::<SortedSet>(cx.db, key)?;
    let count = set.map_or(0, |set| span.ranks(set, false).len());
    cx.out.int(count as i64);
    Ok(())
}

/// Removes the members between two bounds.
fn remove(cx: &mut Cx<'_>, mut args: Args<'_>, by: By, event: &'static str) -> CmdResult {
    let key = args.take()?;
    let span = Span::take(by, &mut args)?;
    let Some(loc) = cx.ks.find_collection::<SortedSet>(cx.db, key)? else {
        cx.out.int(0);
        return Ok(());
    };
    let set = cx.ks.collection::<SortedSet>(cx.db, loc)?;
    let ranks = span.ranks(set, false);
    let removed = ranks.len();
    let reply = move |cx: &mut Cx<'_>| cx.out.int(removed as i64);
    if removed == 0 {
        reply(cx);
        return Ok(());
    }
    remove_ranks(cx, key, loc, ranks, event, move |cx| {
        reply(cx);
        Ok(())
    })
}

/// Removes the members with these ranks, some or all of the set's, then replies.
pub(super) fn remove_ranks(
    cx: &mut Cx<'_>,
    key: &[u8],
    loc: Loc,
    ranks: Range<usize>,
    event: &'static str,
    mut reply: impl FnMut(&mut Cx<'_>) -> CmdResult + Send + 'static,
) -> CmdResult {
    let set = cx.ks.collection::<SortedSet>(cx.db, loc)?;
    let announce = move |cx: &mut Cx<'_>, key: &[u8], gone: bool| {
        cx.changed(key, Class::ZSet, event);
        if gone {
            cx.changed(key, Class::Generic, "del");
        }
    };
    if ranks.len() == set.len() {
        // The key goes with all members still in the set: a big one is then freed in steps.
        cx.ks.remove_at(cx.db, loc);
        announce(cx, key, true);
        return reply(cx);
    }
    if ranks.len() > cx.env.at_once_max
        && let Some(place) = &mut cx.later
    {
        let per_step = members_per_step(set.len(), set.heap_bytes(), 1);
        let (start, mut left) = (ranks.start, ranks.len());
        let name: Box<[u8]> = key.into();
        change_in_steps(
            place,
            key,
            set.clone(),
            move |set: &mut SortedSet| {
                let count = left.min(per_step);
                left -= set.remove_ranks(start..start + count);
                left == 0
            },
            move |cx, gone| {
                if let Some(gone) = gone {
                    announce(cx, &name, gone);
                }
                reply(cx)
            },
        );
        return Ok(());
    }
    cx.ks.edit_at(cx.db, loc, |set: &mut SortedSet| set.remove_ranks(ranks))?;
    announce(cx, key, false);
    reply(cx)
}

pub(super) const ZCOUNT: Command = Command {
    name: "ZCOUNT",
    arity: Arity::Exactly(4),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::SortedSet,
    since: "2.0.0",
    syntax: "key min max",
    summary: "Counts the members with scores in a range.",
    run: Run::Shard(zcount),
};

fn zcount(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    count(cx, args, By::Score)
}

pub(super) const ZLEXCOUNT: Command = Command {
    name: "ZLEXCOUNT",
    arity: Arity::Exactly(4),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::SortedSet,
    since: "2.8.9",
    syntax: "key min max",
    summary: "Counts the members in a range of the alphabet.",
    run: Run::Shard(zlexcount),
};

fn zlexcount(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    count(cx, args, By::Member)
}

pub(super) const ZRANGE: Command = Command {
    name: "ZRANGE",
    arity: Arity::AtLeast(4),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::BRIEF),
    spread: Spread::Single,
    group: Group::SortedSet,
    since: "1.2.0",
    syntax: "key start stop [BYSCORE | BYLEX] [REV] [LIMIT offset count] [WITHSCORES]",
    summary: "Returns a range of members, by rank, score or alphabet.",
    run: Run::Shard(zrange),
};

fn zrange(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    reply_range(cx, args, ZRANGE_FORM)
}

pub(super) const ZRANGEBYLEX: Command = Command {
    name: "ZRANGEBYLEX",
    arity: Arity::AtLeast(4),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::BRIEF),
    spread: Spread::Single,
    group: Group::SortedSet,
    since: "2.8.9",
    syntax: "key min max [LIMIT offset count]",
    summary: "Returns the members in a range of the alphabet.",
    run: Run::Shard(zrangebylex),
};

fn zrangebylex(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    reply_range(cx, args, Form { by: Some(By::Member), reverse: Some(false), store: false })
}

pub(super) const ZRANGEBYSCORE: Command = Command {
    name: "ZRANGEBYSCORE",
    arity: Arity::AtLeast(4),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::BRIEF),
    spread: Spread::Single,
    group: Group::SortedSet,
    since: "1.0.5",
    syntax: "key min max [WITHSCORES] [LIMIT offset count]",
    summary: "Returns the members with scores in a range.",
    run: Run::Shard(zrangebyscore),
};

fn zrangebyscore(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    reply_range(cx, args, Form { by: Some(By::Score), reverse: Some(false), store: false })
}

pub(super) const ZRANGESTORE: Command = Command {
    name: "ZRANGESTORE",
    arity: Arity::AtLeast(5),
    keys: Keys::Range { first: 1, last: 2, step: 1 },
    flags: Flags::WRITE.with(Flags::GROWS),
    spread: Spread::Together,
    group: Group::SortedSet,
    since: "6.2.0",
    syntax: "dst src min max [BYSCORE | BYLEX] [REV] [LIMIT offset count]",
    summary: "Stores a range of members under another key; counts them.",
    run: Run::Shard(zrangestore),
};

fn zrangestore(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (to, from) = (args.take()?, args.take()?);
    let query = Query::parse(args, Form { store: true, ..ZRANGE_FORM })?;
    let (seed, limits) = (cx.ks.hash_seed(), cx.env.zset_pack);
    let mut result = SortedSet::begin(seed);
    if let Some(set) = cx.ks.view::<SortedSet>(cx.db, from)? {
        let ranks = query.ranks(set);
        if ranks.len() > cx.env.at_once_max
            && let Some(place) = &mut cx.later
        {
            let (to, source) = (to.into(), set.clone());
            **place = Some(Rest::Task(Box::new(Copying { to, source, ranks, result, seed, limits })));
            return Ok(());
        }
        set.visit(ranks, false, |member, score| {
            result.insert(seed, member, score, limits);
        });
    }
    store(cx, to, result, ZRANGESTORE_EVENT);
    Ok(())
}

const ZRANGESTORE_EVENT: &str = "zrangestore";

/// ZRANGESTORE of a long range.
struct Copying {
    to: Box<[u8]>,
    source: SortedSet,
    /// What is still to be copied.
    ranks: Range<usize>,
    result: SortedSet,
    seed: u64,
    limits: PackLimits,
}

impl Task for Copying {
    fn target(&self) -> Option<&[u8]> {
        Some(&self.to)
    }

    fn step(&mut self) -> bool {
        let Copying { source, ranks, result, seed, limits, .. } = self;
        let start = ranks.start;
        ranks.start += members_per_step(source.len(), source.heap_bytes(), 1).min(ranks.len());
        source.visit(start..ranks.start, false, |member, score| {
            result.insert(*seed, member, score, *limits);
        });
        self.ranks.is_empty()
    }

    fn finish(&mut self, cx: &mut Cx<'_>) -> CmdResult {
        store(cx, &self.to, std::mem::take(&mut self.result), ZRANGESTORE_EVENT);
        Ok(())
    }

    fn into_held(self: Box<Self>) -> Vec<Object> {
        [self.source, self.result].map(Object::ZSet).into()
    }
}

pub(super) const ZREMRANGEBYLEX: Command = Command {
    name: "ZREMRANGEBYLEX",
    arity: Arity::Exactly(4),
    keys: Keys::First,
    flags: Flags::WRITE,
    spread: Spread::Single,
    group: Group::SortedSet,
    since: "2.8.9",
    syntax: "key min max",
    summary: "Removes the members in a range of the alphabet.",
    run: Run::Shard(zremrangebylex),
};

fn zremrangebylex(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    remove(cx, args, By::Member, "zremrangebylex")
}

pub(super) const ZREMRANGEBYRANK: Command = Command {
    name: "ZREMRANGEBYRANK",
    arity: Arity::Exactly(4),
    keys: Keys::First,
    flags: Flags::WRITE,
    spread: Spread::Single,
    group: Group::SortedSet,
    since: "2.0.0",
    syntax: "key start stop",
    summary: "Removes the members with ranks in a range.",
    run: Run::Shard(zremrangebyrank),
};

fn zremrangebyrank(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    remove(cx, args, By::Rank, "zremrangebyrank")
}

pub(super) const ZREMRANGEBYSCORE: Command = Command {
    name: "ZREMRANGEBYSCORE",
    arity: Arity::Exactly(4),
    keys: Keys::First,
    flags: Flags::WRITE,
    spread: Spread::Single,
    group: Group::SortedSet,
    since: "1.2.0",
    syntax: "key min max",
    summary: "Removes the members with scores in a range.",
    run: Run::Shard(zremrangebyscore),
};

fn zremrangebyscore(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    remove(cx, args, By::Score, "zremrangebyscore")
}

pub(super) const ZREVRANGE: Command = Command {
    name: "ZREVRANGE",
    arity: Arity::AtLeast(4),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::BRIEF),
    spread: Spread::Single,
    group: Group::SortedSet,
    since: "1.2.0",
    syntax: "key start stop [WITHSCORES]",
    summary: "Returns a range of members by rank, the highest first.",
    run: Run::Shard(zrevrange),
};

fn zrevrange(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    reply_range(cx, args, Form { by: Some(By::Rank), reverse: Some(true), store: false })
}

pub(super) const ZREVRANGEBYLEX: Command = Command {
    name: "ZREVRANGEBYLEX",
    arity: Arity::AtLeast(4),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::BRIEF),
    spread: Spread::Single,
    group: Group::SortedSet,
    since: "2.8.9",
    syntax: "key max min [LIMIT offset count]",
    summary: "Returns the members in a range of the alphabet, the last first.",
    run: Run::Shard(zrevrangebylex),
};

fn zrevrangebylex(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    reply_range(cx, args, Form { by: Some(By::Member), reverse: Some(true), store: false })
}

pub(super) const ZREVRANGEBYSCORE: Command = Command {
    name: "ZREVRANGEBYSCORE",
    arity: Arity::AtLeast(4),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::BRIEF),
    spread: Spread::Single,
    group: Group::SortedSet,
    since: "2.2.0",
    syntax: "key max min [WITHSCORES] [LIMIT offset count]",
    summary: "Returns the members with scores in a range, the highest first.",
    run: Run::Shard(zrevrangebyscore),
};

fn zrevrangebyscore(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    reply_range(cx, args, Form { by: Some(By::Score), reverse: Some(true), store: false })
}
