//! Union, intersection and difference of sorted sets, replied with, stored or counted.
//!
//! Scores are combined in the order in which Redis combines them (the smallest set first, but the first one first in
//! a difference), because sums of doubles depend on it.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};

use damselfly_keyspace::values::set::Set;
use damselfly_keyspace::values::zset::SortedSet;
use damselfly_keyspace::{Loc, Object, Type, Value};
use damselfly_protocol::number::{parse_f64, parse_i64};

use super::{Pairs, store};
use crate::{Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Run, Spread};

/// What is done with the members of several sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Union,
    Intersection,
    Difference,
}

/// How the scores of one member become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    /// Comparisons are Redis' own: a value that is no number loses them.
    #[inline]
    fn combine(self, total: f64, value: f64) -> f64 {
        match self {
            Aggregate::Sum => number_or_zero(total + value),
            Aggregate::Min if value < total => value,
            Aggregate::Max if value > total => value,
            Aggregate::Min | Aggregate::Max => total,
        }
    }
}

/// Opposite infinities make 0, and so does infinity times 0.
#[inline]
fn number_or_zero(score: f64) -> f64 {
    if score.is_nan() { 0.0 } else { score }
}

/// One input. Each member of a set has the score 1.
#[derive(Clone, Copy)]
enum Source<'a> {
    Missing,
    Sorted(&'a SortedSet),
    Plain(&'a Set),
}

impl Source<'_> {
    fn len(self) -> usize {
        match self {
            Source::Missing => 0,
            Source::Sorted(set) => set.len(),
            Source::Plain(set) => set.len(),
        }
    }

    #[inline]
    fn score(self, member: &[u8]) -> Option<f64> {
        match self {
            Source::Missing => None,
            Source::Sorted(set) => set.score(member),
            Source::Plain(set) => set.contains(member).then_some(1.0),
        }
    }

    /// Visits members until `visit` answers false, which is looked at in steps.
    fn visit_while(self, mut visit: impl FnMut(&[u8], f64) -> bool) {
        const STEP: usize = 64;
        let set = match self {
            Source::Missing => return,
            Source::Sorted(set) => set,
            Source::Plain(set) => {
                set.iter().all(|member| visit(member.as_bytes(&mut [0; 20]), 1.0));
                return;
            }
        };
        let mut more = true;
        for start in (0..set.len()).step_by(STEP) {
            set.visit(start..start + STEP, false, |member, score| more = more && visit(member, score));
            if !more {
                return;
            }
        }
    }
}

/// What stands behind the keys.
struct Options {
    weights: Vec<f64>,
    aggregate: Aggregate,
    scores: bool,
    limit: usize,
}

/// Which options a command takes, and what it does with the result.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Reply,
    Store,
    Count,
}

impl Options {
    fn parse(
        mut args: Args<'_>,
        keys: usize,
        operation: Operation,
        purpose: Purpose,
    ) -> Result<Options, CommandError> {
        const WEIGHT: CommandError = CommandError::text("ERR weight value is not a float");
        const LIMIT: CommandError = CommandError::text("ERR LIMIT can't be negative");
        let mut options =
            Options { weights: vec![1.0; keys], aggregate: Aggregate::Sum, scores: false, limit: usize::MAX };
        let combines = operation != Operation::Difference && purpose != Purpose::Count;
        while !args.is_empty() {
            if combines && args.len() > keys && args.take_word("WEIGHTS") {
                for weight in &mut options.weights {
                    *weight = parse_f64(args.take()?).ok_or(WEIGHT)?;
                }
            } else if combines && args.len() > 1 && args.take_word("AGGREGATE") {
                options.aggregate = if args.take_word("SUM") {
                    Aggregate::Sum
                } else if args.take_word("MIN") {
                    Aggregate::Min
                } else if args.take_word("MAX") {
                    Aggregate::Max
                } else {
                    return Err(CommandError::Syntax);
                };
            } else if purpose == Purpose::Reply && args.take_word("WITHSCORES") {
                options.scores = true;
            } else if purpose == Purpose::Count && args.len() > 1 && args.take_word("LIMIT") {
                let limit = parse_i64(args.take()?).and_then(|limit| usize::try_from(limit).ok());
                options.limit = match limit.ok_or(LIMIT)? {
                    0 => usize::MAX,
                    limit => limit,
                };
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }
}

/// Takes the number of keys and the keys; their values stay where they are until all have been found, because an
/// expired one goes when it is looked for.
fn take_sources(
    cx: &mut Cx<'_>,
    args: &mut Args<'_>,
    name: &str,
    purpose: Purpose,
) -> Result<Vec<Option<Loc>>, CommandError> {
    let count = args.take_int()?;
    if count < 1 {
        return Err(CommandError::owned(format!("ERR at least 1 input key is needed for '{name}' command")));
    }
    let count =
        usize::try_from(count).ok().filter(|&count| count <= args.len()).ok_or(CommandError::Syntax)?;
    let keys = args.rest().take(count);
    for key in keys.clone() {
        args.take()?;
        let found = if purpose == Purpose::Store { cx.find(key) } else { cx.read(key) };
        if let Some(loc) = found {
            match cx.ks.table(cx.db).type_at(loc) {
                Type::ZSet => {}
                // Members whose time has come go now, perhaps with the key.
                Type::Set => drop(cx.ks.is_left::<Set>(cx.db, loc)),
                _ => return Err(CommandError::WrongType),
            }
        }
    }
    Ok(keys.map(|key| cx.find(key)).collect())
}

/// The inputs with their weights, in the order in which they are combined.
fn sources<'a>(
    cx: &'a Cx<'_>,
    locs: &[Option<Loc>],
    weights: &[f64],
    operation: Operation,
) -> Result<Vec<(Source<'a>, f64)>, CommandError> {
    let mut sources = Vec::with_capacity(locs.len());
    for (loc, weight) in locs.iter().zip(weights) {
        let source = match loc {
            Some(loc) => match cx.ks.value(cx.db, *loc) {
                Value::Object(Object::ZSet(set)) => Source::Sorted(set),
                Value::Object(Object::Set(set)) => Source::Plain(set),
                _ => return Err(CommandError::WrongType),
            },
            None => Source::Missing,
        };
        sources.push((source, *weight));
    }
    if operation != Operation::Difference {
        sources.sort_by_key(|(source, _)| source.len());
    }
    Ok(sources)
}

/// Members with their scores, in no order.
type Members = Vec<(Box<[u8]>, f64)>;

fn union(sources: &[(Source<'_>, f64)], aggregate: Aggregate, seed: u64) -> Members {
    let mut members: HashMap<Box<[u8]>, f64, Seeded> = HashMap::with_hasher(Seeded(seed));
    for &(source, weight) in sources {
        source.visit_while(|member, score| {
            let score = number_or_zero(weight * score);
            match members.get_mut(member) {
                Some(total) => *total = aggregate.combine(*total, score),
                None => drop(members.insert(member.into(), score)),
            }
            true
        });
    }
    members.into_iter().collect()
}

/// Visits the members of the intersection until `visit` answers false.
fn intersect(sources: &[(Source<'_>, f64)], aggregate: Aggregate, mut visit: impl FnMut(&[u8], f64) -> bool) {
    let Some((&(smallest, weight), others)) = sources.split_first() else { return };
    smallest.visit_while(|member, score| {
        let mut total = number_or_zero(weight * score);
        for (other, weight) in others {
            let Some(score) = other.score(member) else { return true };
            total = aggregate.combine(total, score * weight);
        }
        visit(member, total)
    });
}

fn difference(sources: &[(Source<'_>, f64)]) -> Members {
    let mut members = Members::new();
    let Some((&(first, _), others)) = sources.split_first() else { return members };
    first.visit_while(|member, score| {
        if others.iter().all(|(other, _)| other.score(member).is_none()) {
            members.push((member.into(), score));
        }
        true
    });
    members
}

/// All of these commands but ZINTERCARD: `to` is where the result goes if not into the reply.
fn combine(
    cx: &mut Cx<'_>,
    mut args: Args<'_>,
    operation: Operation,
    to: Option<&[u8]>,
    name: &'static str,
) -> CmdResult {
    let purpose = if to.is_some() { Purpose::Store } else { Purpose::Reply };
    let locs = take_sources(cx, &mut args, name, purpose)?;
    let options = Options::parse(args, locs.len(), operation, purpose)?;
    let seed = cx.ks.hash_seed();
    let sources = sources(cx, &locs, &options.weights, operation)?;
    let mut members = match operation {
        Operation::Union => union(&sources, options.aggregate, seed),
        Operation::Intersection => {
            let mut members = Members::new();
            intersect(&sources, options.aggregate, |member, score| {
                members.push((member.into(), score));
                true
            });
            members
        }
        Operation::Difference => difference(&sources),
    };
    // Zeros of both signs are equal in this order, and no score is NaN.
    members
        .sort_unstable_by(|a, b| a.1.partial_cmp(&b.1).expect("no score is NaN").then_with(|| a.0.cmp(&b.0)));
    let Some(to) = to else {
        let pairs = Pairs::begin(&mut cx.out, members.len(), options.scores);
        for (member, score) in &members {
            pairs.write(&mut cx.out, member, *score);
        }
        return Ok(());
    };
    let members = members.iter().map(|(member, score)| (&**member, *score));
    let result = SortedSet::collect(seed, members, cx.env.zset_pack);
    store(cx, to, result, name);
    Ok(())
}

pub(super) const ZDIFF: Command = Command {
    name: "ZDIFF",
    arity: Arity::AtLeast(3),
    keys: Keys::Counted { count: 1, also: 0 },
    flags: Flags::READ.with(Flags::MOVABLE_KEYS),
    spread: Spread::Together,
    group: Group::SortedSet,
    since: "6.2.0",
    syntax: "numkeys key [key ...] [WITHSCORES]",
    summary: "Returns the members of the first sorted set that no other has.",
    run: Run::Shard(zdiff),
};

fn zdiff(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    combine(cx, args, Operation::Difference, None, "zdiff")
}

pub(super) const ZDIFFSTORE: Command = Command {
    name: "ZDIFFSTORE",
    arity: Arity::AtLeast(4),
    keys: Keys::Counted { count: 2, also: 1 },
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::MOVABLE_KEYS),
    spread: Spread::Together,
    group: Group::SortedSet,
    since: "6.2.0",
    syntax: "destination numkeys key [key ...]",
    summary: "Stores the members of the first sorted set that no other has; counts them.",
    run: Run::Shard(zdiffstore),
};

fn zdiffstore(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let to = args.take()?;
    combine(cx, args, Operation::Difference, Some(to), "zdiffstore")
}

pub(super) const ZINTER: Command = Command {
    name: "ZINTER",
    arity: Arity::AtLeast(3),
    keys: Keys::Counted { count: 1, also: 0 },
    flags: Flags::READ.with(Flags::MOVABLE_KEYS),
    spread: Spread::Together,
    group: Group::SortedSet,
    since: "6.2.0",
    syntax: "numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX>] [WITHSCORES]",
    summary: "Returns the members that all of several sorted sets have.",
    run: Run::Shard(zinter),
};

fn zinter(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    combine(cx, args, Operation::Intersection, None, "zinter")
}

pub(super) const ZINTERCARD: Command = Command {
    name: "ZINTERCARD",
    arity: Arity::AtLeast(3),
    keys: Keys::Counted { count: 1, also: 0 },
    flags: Flags::READ.with(Flags::MOVABLE_KEYS),
    spread: Spread::Together,
    group: Group::SortedSet,
    since: "7.0.0",
    syntax: "numkeys key [key ...] [LIMIT limit]",
    summary: "Counts the members that all of several sorted sets have.",
    run: Run::Shard(zintercard),
};

fn zintercard(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let locs = take_sources(cx, &mut args, "zintercard", Purpose::Count)?;
    let options = Options::parse(args, locs.len(), Operation::Intersection, Purpose::Count)?;
    let sources = sources(cx, &locs, &options.weights, Operation::Intersection)?;
    let mut count = 0;
    intersect(&sources, Aggregate::Sum, |_, _| {
        count += 1;
        count < options.limit
    });
    cx.out.int(count as i64);
    Ok(())
}

pub(super) const ZINTERSTORE: Command = Command {
    name: "ZINTERSTORE",
    arity: Arity::AtLeast(4),
    keys: Keys::Counted { count: 2, also: 1 },
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::MOVABLE_KEYS),
    spread: Spread::Together,
    group: Group::SortedSet,
    since: "2.0.0",
    syntax: "destination numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX>]",
    summary: "Stores the members that all of several sorted sets have; counts them.",
    run: Run::Shard(zinterstore),
};

fn zinterstore(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let to = args.take()?;
    combine(cx, args, Operation::Intersection, Some(to), "zinterstore")
}

pub(super) const ZUNION: Command = Command {
    name: "ZUNION",
    arity: Arity::AtLeast(3),
    keys: Keys::Counted { count: 1, also: 0 },
    flags: Flags::READ.with(Flags::MOVABLE_KEYS),
    spread: Spread::Together,
    group: Group::SortedSet,
    since: "6.2.0",
    syntax: "numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX>] [WITHSCORES]",
    summary: "Returns the members that any of several sorted sets has.",
    run: Run::Shard(zunion),
};

fn zunion(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    combine(cx, args, Operation::Union, None, "zunion")
}

pub(super) const ZUNIONSTORE: Command = Command {
    name: "ZUNIONSTORE",
    arity: Arity::AtLeast(4),
    keys: Keys::Counted { count: 2, also: 1 },
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::MOVABLE_KEYS),
    spread: Spread::Together,
    group: Group::SortedSet,
    since: "2.0.0",
    syntax: "destination numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX>]",
    summary: "Stores the members that any of several sorted sets has; counts them.",
    run: Run::Shard(zunionstore),
};

fn zunionstore(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let to = args.take()?;
    combine(cx, args, Operation::Union, Some(to), "zunionstore")
}

/// XXH3 in the standard library's clothes, with the keyspace's secret.
#[derive(Clone, Copy)]
struct Seeded(u64);

impl BuildHasher for Seeded {
    type Hasher = SeededHasher;

    fn build_hasher(&self) -> SeededHasher {
        SeededHasher(self.0)
    }
}

struct SeededHasher(u64);

impl Hasher for SeededHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = twox_hash::XxHash3_64::oneshot_with_seed(self.0, bytes);
    }

    // The length in front of a slice: all keys are single slices, so it tells nothing.
    fn write_usize(&mut self, _len: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}
