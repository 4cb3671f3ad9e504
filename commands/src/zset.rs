//! Sorted sets: members one by one. Ranges of them are in `zset/range.rs`, the ends of the order and random members
//! in `zset/pick.rs`, unions and the like in `zset/algebra.rs`.

mod algebra;
mod blocking;
mod bounds;
mod pick;
mod range;

use std::ops::Range;

use damselfly_keyspace::Class;
use damselfly_keyspace::values::PackLimits;
use damselfly_keyspace::values::zset::{Change, SortedSet};
use damselfly_protocol::number::parse_f64;
use damselfly_protocol::{Proto, ReplyWriter};

use crate::many::{Many, answer, change};
use crate::{Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Run, Spread};
use algebra::{ZDIFF, ZDIFFSTORE, ZINTER, ZINTERCARD, ZINTERSTORE, ZUNION, ZUNIONSTORE};
use blocking::{BZMPOP, BZPOPMAX, BZPOPMIN};
use pick::{ZMPOP, ZPOPMAX, ZPOPMIN, ZRANDMEMBER, ZSCAN};
use range::{
    ZCOUNT, ZLEXCOUNT, ZRANGE, ZRANGEBYLEX, ZRANGEBYSCORE, ZRANGESTORE, ZREMRANGEBYLEX, ZREMRANGEBYRANK,
    ZREMRANGEBYSCORE, ZREVRANGE, ZREVRANGEBYLEX, ZREVRANGEBYSCORE,
};

pub(crate) const COMMANDS: &[&Command] = &[
    &BZMPOP,
    &BZPOPMAX,
    &BZPOPMIN,
    &ZADD,
    &ZCARD,
    &ZCOUNT,
    &ZDIFF,
    &ZDIFFSTORE,
    &ZINCRBY,
    &ZINTER,
    &ZINTERCARD,
    &ZINTERSTORE,
    &ZLEXCOUNT,
    &ZMPOP,
    &ZMSCORE,
    &ZPOPMAX,
    &ZPOPMIN,
    &ZRANDMEMBER,
    &ZRANGE,
    &ZRANGEBYLEX,
    &ZRANGEBYSCORE,
    &ZRANGESTORE,
    &ZRANK,
    &ZREM,
    &ZREMRANGEBYLEX,
    &ZREMRANGEBYRANK,
    &ZREMRANGEBYSCORE,
    &ZREVRANGE,
    &ZREVRANGEBYLEX,
    &ZREVRANGEBYSCORE,
    &ZREVRANK,
    &ZSCAN,
    &ZSCORE,
    &ZUNION,
    &ZUNIONSTORE,
];

/// A reply of members, with their scores or without: RESP2 has one flat array of both, RESP3 an array of pairs.
#[derive(Clone, Copy)]
pub(crate) struct Pairs {
    scores: bool,
    nested: bool,
}

impl Pairs {
    /// Begins the reply of `len` members.
    #[inline]
    fn begin(out: &mut ReplyWriter<'_>, len: usize, scores: bool) -> Pairs {
        let nested = scores && out.proto() == Proto::Resp3;
        out.array(if scores && !nested { 2 * len } else { len });
        Pairs { scores, nested }
    }

    /// The members with these ranks. Who wants no scores has none decoded.
    #[inline]
    pub(crate) fn write_all(
        self,
        out: &mut ReplyWriter<'_>,
        set: &SortedSet,
        ranks: Range<usize>,
        reverse: bool,
    ) {
        if self.scores {
            set.visit(ranks, reverse, |member, score| self.write(out, member, score));
        } else {
            set.visit_members(ranks, reverse, |member| out.bulk(member));
        }
    }

    #[inline]
    pub(crate) fn write(self, out: &mut ReplyWriter<'_>, member: &[u8], score: f64) {
        if self.nested {
            out.array(2);
        }
        out.bulk(member);
        if self.scores {
            out.double(score);
        }
    }
}

/// A set that was big from its first member on in the form that [`SortedSet::collect`] gives it.
pub(crate) fn settled(set: &mut SortedSet, seed: u64, limits: PackLimits) -> SortedSet {
    if set.len() > limits.entries_max {
        return std::mem::take(set);
    }
    let mut members: Vec<(Box<[u8]>, f64)> = Vec::with_capacity(set.len());
    set.for_each(|member, score| members.push((member.into(), score)));
    SortedSet::collect(seed, members.iter().map(|(member, score)| (&**member, *score)), limits)
}

/// Puts a result under a key, which goes if there is none, and replies with its size.
pub(crate) fn store(cx: &mut Cx<'_>, key: &[u8], result: SortedSet, event: &'static str) {
    let len = result.len();
    if len > 0 {
        cx.ks.store(cx.db, key, result);
        cx.changed(key, Class::ZSet, event);
    } else if cx.ks.remove(cx.db, key) {
        cx.changed(key, Class::Generic, "del");
    }
    cx.out.int(len as i64);
}

const ZADD: Command = Command {
    name: "ZADD",
    arity: Arity::AtLeast(4),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::SortedSet,
    since: "1.2.0",
    syntax: "key [NX | XX] [GT | LT] [CH] [INCR] score member [score member ...]",
    summary: "Adds members to a sorted set, or gives them new scores.",
    run: Run::Shard(zadd),
};

fn zadd(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    let mut rule = Rule::default();
    // The first word that is no option is a score.
    loop {
        if args.take_word("NX") {
            rule.only_new = true;
        } else if args.take_word("XX") {
            rule.only_known = true;
        } else if args.take_word("CH") {
            rule.count_changes = true;
        } else if args.take_word("INCR") {
            rule.increment = true;
        } else if args.take_word("GT") {
            rule.only_up = true;
        } else if args.take_word("LT") {
            rule.only_down = true;
        } else {
            break;
        }
    }
    if args.is_empty() || !args.len().is_multiple_of(2) {
        return Err(CommandError::Syntax);
    }
    rule.check(args.len() / 2)?;
    add(cx, key, rule, args)
}

/// ZADD's options.
#[derive(Clone, Copy, Default)]
pub(crate) struct Rule {
    /// NX
    pub(crate) only_new: bool,
    /// XX
    pub(crate) only_known: bool,
    /// GT
    pub(crate) only_up: bool,
    /// LT
    pub(crate) only_down: bool,
    /// CH
    pub(crate) count_changes: bool,
    /// INCR
    pub(crate) increment: bool,
}

impl Rule {
    fn check(self, pairs: usize) -> CmdResult {
        const NEW_AND_KNOWN: CommandError =
            CommandError::text("ERR XX and NX options at the same time are not compatible");
        const DIRECTIONS: CommandError =
            CommandError::text("ERR GT, LT, and/or NX options at the same time are not compatible");
        const ONE_PAIR: CommandError =
            CommandError::text("ERR INCR option supports a single increment-element pair");
        if self.only_new && self.only_known {
            return Err(NEW_AND_KNOWN);
        }
        if [self.only_new, self.only_up, self.only_down].into_iter().filter(|&set| set).count() > 1 {
            return Err(DIRECTIONS);
        }
        if self.increment && pairs > 1 {
            return Err(ONE_PAIR);
        }
        Ok(())
    }

    /// The score that a member gets: `given`, or the present one plus that. None if it keeps what it has.
    #[inline]
    fn decide(self, present: Option<f64>, given: f64) -> Option<f64> {
        let Some(present) = present else { return (!self.only_known).then_some(given) };
        let score = if self.increment { present + given } else { given };
        let refused = self.only_new || self.only_up && score <= present || self.only_down && score >= present;
        (!refused).then_some(score)
    }
}

/// ZADD and ZINCRBY: the pairs of score and member in `args`, which are at least one.
fn add(cx: &mut Cx<'_>, key: &[u8], rule: Rule, args: Args<'_>) -> CmdResult {
    let mut scores = args.rest().step_by(2).map(|text| parse_f64(text).ok_or(CommandError::NotFloat));
    // All scores are read before the first member is added. The usual single one takes no list.
    let first = scores.next().ok_or(CommandError::Syntax)??;
    let more = scores.collect::<Result<Vec<f64>, _>>()?;
    add_scored(cx, key, rule, args, 2, (first, more))
}

/// Adds members as a rule says, and replies as ZADD does. Each is the last of `unit` arguments; `scores` are theirs.
#[inline]
pub(crate) fn add_scored(
    cx: &mut Cx<'_>,
    key: &[u8],
    rule: Rule,
    args: Args<'_>,
    unit: usize,
    (first, more): (f64, Vec<f64>),
) -> CmdResult {
    let (seed, limits) = (cx.ks.hash_seed(), cx.env.zset_pack);
    let adding = Adding {
        rule,
        seed,
        limits,
        unit,
        next: Some(first),
        more: more.into_iter(),
        added: 0,
        updated: 0,
        score: None,
        nan: false,
    };
    change(cx, key, args, adding)
}

/// ZADD and what else adds members with scores.
struct Adding {
    rule: Rule,
    seed: u64,
    limits: PackLimits,
    unit: usize,
    /// The score of the first member before it is added.
    next: Option<f64>,
    more: std::vec::IntoIter<f64>,
    added: i64,
    updated: i64,
    /// The score that the last member has, if it passed the options.
    score: Option<f64>,
    /// An increment met its opposite infinity.
    nan: bool,
}

impl Many for Adding {
    type To = SortedSet;
    const MAKES: bool = true;

    #[inline]
    fn unit(&self) -> usize {
        self.unit
    }

    #[inline]
    fn change(&mut self, set: &mut SortedSet, args: Args<'_>, _: &mut ReplyWriter<'_>) {
        for member in args.rest().skip(self.unit - 1).step_by(self.unit) {
            let Some(given) = self.next.take().or_else(|| self.more.next()) else { return };
            let change = set.insert_with(self.seed, member, self.limits, |present| {
                self.score = self.rule.decide(present, given);
                self.nan = self.score.is_some_and(f64::is_nan);
                self.score.filter(|score| !score.is_nan())
            });
            self.added += i64::from(change == Change::Added);
            self.updated += i64::from(matches!(change, Change::Updated(_)));
        }
    }

    #[inline]
    fn end(&mut self, cx: &mut Cx<'_>, key: &[u8], gone: Option<bool>) -> CmdResult {
        const NAN: CommandError = CommandError::text("ERR resulting score is not a number (NaN)");
        let Adding { rule, added, updated, score, nan, .. } = self;
        if *nan {
            return Err(NAN);
        }
        if *added + *updated > 0 && gone.is_some() {
            cx.changed(key, Class::ZSet, if rule.increment { "zincr" } else { "zadd" });
        }
        match score {
            _ if !rule.increment => cx.out.int(if rule.count_changes { *added + *updated } else { *added }),
            Some(score) => cx.out.double(*score),
            None => cx.out.null(),
        }
        Ok(())
    }
}

const ZCARD: Command = Command {
    name: "ZCARD",
    arity: Arity::Exactly(2),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::SortedSet,
    since: "1.2.0",
    syntax: "key",
    summary: "Returns the number of members.",
    run: Run::Shard(zcard),
};

fn zcard(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let len = cx.ks.view::<SortedSet>(cx.db, args.take()?)?.map_or(0, SortedSet::len);
    cx.out.int(len as i64);
    Ok(())
}

const ZINCRBY: Command = Command {
    name: "ZINCRBY",
    arity: Arity::Exactly(4),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::SortedSet,
    since: "1.2.0",
    syntax: "key increment member",
    summary: "Adds to the score of a member, which is 0 if it is new.",
    run: Run::Shard(zincrby),
};

fn zincrby(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    add(cx, key, Rule { increment: true, ..Rule::default() }, args)
}

const ZMSCORE: Command = Command {
    name: "ZMSCORE",
    arity: Arity::AtLeast(3),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::SortedSet,
    since: "6.2.0",
    syntax: "key member [member ...]",
    summary: "Returns the scores of several members.",
    run: Run::Shard(zmscore),
};

fn zmscore(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    answer(cx, key, args, SortedSet::len, |set: Option<&SortedSet>, member, out| {
        reply_score(out, set.and_then(|set| set.score(member)));
    })
}

#[inline]
fn reply_score(out: &mut ReplyWriter<'_>, score: Option<f64>) {
    match score {
        Some(score) => out.double(score),
        None => out.null(),
    }
}

const ZRANK: Command = Command {
    name: "ZRANK",
    arity: Arity::AtLeast(3),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::SortedSet,
    since: "2.0.0",
    syntax: "key member [WITHSCORE]",
    summary: "Returns how many members are before a member.",
    run: Run::Shard(zrank),
};

fn zrank(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    reply_rank(cx, args, "zrank", |rank, _| rank)
}

/// ZRANK and ZREVRANK: `place` makes the reply of the rank and the number of members.
fn reply_rank(
    cx: &mut Cx<'_>,
    mut args: Args<'_>,
    name: &str,
    place: impl FnOnce(usize, usize) -> usize,
) -> CmdResult {
    let (key, member) = (args.take()?, args.take()?);
    if args.len() > 1 {
        return Err(CommandError::arity(name));
    }
    let with_score = args.take_word("WITHSCORE");
    args.end()?;
    let set = cx.ks.view::<SortedSet>(cx.db, key)?;
    let found = set.and_then(|set| set.rank(member).map(|(rank, score)| (place(rank, set.len()), score)));
    match found {
        Some((rank, score)) if with_score => {
            cx.out.array(2);
            cx.out.int(rank as i64);
            cx.out.double(score);
        }
        Some((rank, _)) => cx.out.int(rank as i64),
        None if with_score => cx.out.null_array(),
        None => cx.out.null(),
    }
    Ok(())
}

const ZREM: Command = Command {
    name: "ZREM",
    arity: Arity::AtLeast(3),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::SortedSet,
    since: "1.2.0",
    syntax: "key member [member ...]",
    summary: "Removes members; counts those that were there.",
    run: Run::Shard(zrem),
};

fn zrem(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    change(cx, key, args, Removing { removed: 0 })
}

/// ZREM.
struct Removing {
    removed: usize,
}

impl Many for Removing {
    type To = SortedSet;
    const MAKES: bool = false;

    #[inline]
    fn change(&mut self, set: &mut SortedSet, args: Args<'_>, _: &mut ReplyWriter<'_>) {
        self.removed += args.rest().filter(|member| set.remove(member).is_some()).count();
    }

    #[inline]
    fn end(&mut self, cx: &mut Cx<'_>, key: &[u8], gone: Option<bool>) -> CmdResult {
        if let Some(gone) = gone
            && self.removed > 0
        {
            cx.changed(key, Class::ZSet, "zrem");
            if gone {
                cx.changed(key, Class::Generic, "del");
            }
        }
        cx.out.int(self.removed as i64);
        Ok(())
    }
}

const ZREVRANK: Command = Command {
    name: "ZREVRANK",
    arity: Arity::AtLeast(3),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::SortedSet,
    since: "2.0.0",
    syntax: "key member [WITHSCORE]",
    summary: "Returns how many members are behind a member.",
    run: Run::Shard(zrevrank),
};

fn zrevrank(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    reply_rank(cx, args, "zrevrank", |rank, len| len - 1 - rank)
}

const ZSCORE: Command = Command {
    name: "ZSCORE",
    arity: Arity::Exactly(3),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::SortedSet,
    since: "1.2.0",
    syntax: "key member",
    summary: "Returns the score of a member.",
    run: Run::Shard(zscore),
};

fn zscore(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, member) = (args.take()?, args.take()?);
    let set = cx.ks.view::<SortedSet>(cx.db, key)?;
    reply_score(&mut cx.out, set.and_then(|set| set.score(member)));
    Ok(())
}
