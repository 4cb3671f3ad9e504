//! Union, intersection and difference of sorted sets, replied with, stored or counted.
//!
//! Scores are combined in the order in which Redis combines them (the smallest set first, but the first one first in
//! a difference), because sums of doubles depend on it. What takes long is done in steps.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hasher};

use damselfly_keyspace::values::PackLimits;
use damselfly_keyspace::values::set::Set;
use damselfly_keyspace::values::zset::SortedSet;
use damselfly_keyspace::{Keyspace, Loc, Object, Type, Value};
use damselfly_protocol::number::{parse_f64, parse_i64};

use super::{Pairs, settled, store};
use crate::long::{Walk, put_aside};
use crate::past::{Gathered, Told, gather};
use crate::task::{MEMBERS_PER_STEP, Rest, Task, members_per_step};
use crate::{Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Run, Spread};

/// To come to a source takes as long as so many of its members.
const SOURCE: usize = 4;

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

    fn heap_bytes(self) -> usize {
        match self {
            Source::Missing => 0,
            Source::Sorted(set) => set.heap_bytes(),
            Source::Plain(set) => set.heap_bytes(),
        }
    }

    /// Visits members until `visit` answers false, which is looked at in steps.
    fn visit_while(self, mut visit: impl FnMut(&[u8], f64) -> bool) {
        const STEP: usize = 64;
        if let Source::Plain(set) = self {
            set.iter().all(|member| visit(member.as_bytes(&mut [0; 20]), 1.0));
            return;
        }
        let (mut place, mut more) = (0, true);
        loop {
            place = self.visit_some(place, STEP, |member, score| more = more && visit(member, score));
            if place == 0 || !more {
                return;
            }
        }
    }

    /// Visits about `count` members from a place on; the next place, 0 at the end.
    fn visit_some(self, place: u64, count: usize, mut visit: impl FnMut(&[u8], f64)) -> u64 {
        match self {
            Source::Missing => 0,
            Source::Sorted(set) => {
                let start = place as usize;
                let end = (start + count).min(set.len());
                set.visit(start..end, false, visit);
                if end == set.len() { 0 } else { end as u64 }
            }
            Source::Plain(set) => set.scan(place, count, |member| visit(member.as_bytes(&mut [0; 20]), 1.0)),
        }
    }

    fn cloned(self) -> Owned {
        match self {
            Source::Missing => Owned::Missing,
            Source::Sorted(set) => Owned::Sorted(set.clone()),
            Source::Plain(set) => Owned::Plain(set.clone()),
        }
    }
}

/// A clone of an input.
enum Owned {
    Missing,
    Sorted(SortedSet),
    Plain(Set),
}

impl Owned {
    fn borrow(&self) -> Source<'_> {
        match self {
            Owned::Missing => Source::Missing,
            Owned::Sorted(set) => Source::Sorted(set),
            Owned::Plain(set) => Source::Plain(set),
        }
    }

    fn wrap(self) -> Option<Object> {
        match self {
            Owned::Missing => None,
            Owned::Sorted(set) => Some(Object::ZSet(set)),
            Owned::Plain(set) => Some(Object::Set(set)),
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

/// Which options a command takes, and what it does with the result: `Store` under this key, as its name.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose<K> {
    Reply,
    Store(K),
    Count,
}

impl Options {
    fn parse(
        mut args: Args<'_>,
        keys: usize,
        operation: Operation,
        purpose: Purpose<&[u8]>,
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

/// Takes the number of keys and the keys.
fn take_keys<'a>(args: &mut Args<'a>, name: &str) -> Result<Args<'a>, CommandError> {
    let count = args.take_int()?;
    if count < 1 {
        return Err(CommandError::owned(format!("ERR at least 1 input key is needed for '{name}' command")));
    }
    let count =
        usize::try_from(count).ok().filter(|&count| count <= args.len()).ok_or(CommandError::Syntax)?;
    let keys = args.first(count);
    *args = args.behind(count);
    Ok(keys)
}

/// Where the sources are. Their values stay there until all have been found, because an expired one goes when it is
/// looked for.
fn find_sources(
    cx: &mut Cx<'_>,
    keys: Args<'_>,
    purpose: Purpose<&[u8]>,
) -> Result<Vec<Option<Loc>>, CommandError> {
    for key in keys.rest() {
        let found = if matches!(purpose, Purpose::Store(_)) { cx.find(key) } else { cx.read(key) };
        if let Some(loc) = found {
            match cx.ks.table(cx.db).type_at(loc) {
                Type::ZSet => {}
                // Members whose time has come go now, perhaps with the key.
                Type::Set => drop(cx.ks.is_left::<Set>(cx.db, loc)),
                _ => return Err(CommandError::WrongType),
            }
        }
    }
    Ok(keys.rest().map(|key| cx.find(key)).collect())
}

/// The inputs with their weights, in the order in which they are combined.
fn sources<'a>(
    (ks, db): (&'a Keyspace, usize),
    locs: &[Option<Loc>],
    weights: &[f64],
    operation: Operation,
) -> Result<Vec<(Source<'a>, f64)>, CommandError> {
    let mut sources = Vec::with_capacity(locs.len());
    for (loc, weight) in locs.iter().zip(weights) {
        let source = match loc {
            Some(loc) => match ks.value(db, *loc) {
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

/// The score with which a member of the walked source begins.
#[inline]
fn own_score(operation: Operation, score: f64, weight: f64) -> f64 {
    match operation {
        Operation::Union | Operation::Intersection => number_or_zero(weight * score),
        Operation::Difference => score,
    }
}

/// The score that a member of the walked source has in the result when it comes to these others with `total`; None if
/// it is not in it.
#[inline]
fn combined<'a>(
    operation: Operation,
    aggregate: Aggregate,
    (member, mut total): (&[u8], f64),
    mut others: impl Iterator<Item = (Source<'a>, f64)>,
) -> Option<f64> {
    match operation {
        Operation::Union => Some(total),
        Operation::Intersection => {
            for (other, weight) in others {
                total = aggregate.combine(total, other.score(member)? * weight);
            }
            Some(total)
        }
        Operation::Difference => others.all(|(other, _)| other.score(member).is_none()).then_some(total),
    }
}

/// Visits the members of an intersection or a difference until `visit` answers false.
fn visit_first(
    operation: Operation,
    aggregate: Aggregate,
    sources: &[(Source<'_>, f64)],
    mut visit: impl FnMut(&[u8], f64) -> bool,
) {
    let Some((&(first, weight), others)) = sources.split_first() else { return };
    first.visit_while(|member, score| {
        let own = own_score(operation, score, weight);
        match combined(operation, aggregate, (member, own), others.iter().copied()) {
            Some(total) => visit(member, total),
            None => true,
        }
    });
}

/// How often a member is looked at or for, at most.
fn look_ups(operation: Operation, sources: &[(Source<'_>, f64)]) -> usize {
    match operation {
        Operation::Union => sources.iter().map(|(source, _)| source.len()).sum(),
        Operation::Intersection | Operation::Difference => {
            let first = sources.first().map_or(0, |(source, _)| source.len());
            first.saturating_mul(sources.len() - 1).max(first)
        }
    }
}

/// All of these commands; `name` in lower case.
fn combine(
    cx: &mut Cx<'_>,
    mut args: Args<'_>,
    operation: Operation,
    purpose: Purpose<&[u8]>,
    name: &'static str,
) -> CmdResult {
    let keys = take_keys(&mut args, name)?;
    let (seed, limits) = (cx.ks.hash_seed(), cx.env.zset_pack);
    // A mistake behind the keys counts less than a key of another type.
    if let Ok(options) = Options::parse(args, keys.len(), operation, purpose) {
        let (target, is_read) = match purpose {
            Purpose::Store(key) => (Some(key), false),
            Purpose::Reply | Purpose::Count => (None, true),
        };
        let command = |_: &Cx<'_>| {
            let outcome = Outcome::new(operation, options, purpose, name, seed, limits);
            Gather { sources: Vec::new(), outcome }
        };
        if gather(cx, keys, target, is_read, command) {
            return Ok(());
        }
    }
    let locs = find_sources(cx, keys, purpose)?;
    let options = Options::parse(args, locs.len(), operation, purpose)?;
    let aggregate = options.aggregate;
    let Cx { ks, db, out, env, later } = cx;
    let sources = sources((ks, *db), &locs, &options.weights, operation)?;
    if look_ups(operation, &sources) > env.at_once_max
        && let Some(place) = later
    {
        let sources = sources.iter().map(|(source, weight)| (source.cloned(), *weight)).collect();
        let outcome = Outcome::new(operation, options, purpose, name, seed, limits);
        **place = Some(Rest::Task(Box::new(Combining::new(sources, outcome))));
        return Ok(());
    }
    if purpose == Purpose::Count {
        let mut count = 0;
        visit_first(operation, aggregate, &sources, |_, _| {
            count += 1;
            count < options.limit
        });
        out.int(count as i64);
        return Ok(());
    }
    let mut members = if operation == Operation::Union {
        union(&sources, aggregate, seed)
    } else {
        let mut members = Members::new();
        visit_first(operation, aggregate, &sources, |member, score| {
            members.push((member.into(), score));
            true
        });
        members
    };
    // Zeros of both signs are equal in this order, and no score is NaN.
    members
        .sort_unstable_by(|a, b| a.1.partial_cmp(&b.1).expect("no score is NaN").then_with(|| a.0.cmp(&b.0)));
    let Purpose::Store(to) = purpose else {
        let pairs = Pairs::begin(out, members.len(), options.scores);
        for (member, score) in &members {
            pairs.write(out, member, *score);
        }
        return Ok(());
    };
    let members = members.iter().map(|(member, score)| (&**member, *score));
    store(cx, to, SortedSet::collect(seed, members, limits), name);
    Ok(())
}

impl Purpose<&[u8]> {
    fn owned(self) -> Purpose<Box<[u8]>> {
        match self {
            Purpose::Reply => Purpose::Reply,
            Purpose::Store(key) => Purpose::Store(key.into()),
            Purpose::Count => Purpose::Count,
        }
    }
}

/// One of these commands over big sources, or very many.
struct Combining {
    /// In the order in which they are combined.
    sources: Vec<(Owned, f64)>,
    /// Number of the source that is walked over, and how far the walk has come in it.
    at: usize,
    place: u64,
    /// Members of it that are looked up in more others than a step has time for, with what they have come to and how
    /// many others were asked.
    asking: VecDeque<(Box<[u8]>, f64, usize)>,
    outcome: Outcome,
}

/// What becomes of the members.
struct Outcome {
    operation: Operation,
    options: Options,
    purpose: Purpose<Box<[u8]>>,
    name: &'static str,
    /// Big from the first member on, as [`SortedSet::collect`] makes it.
    result: SortedSet,
    count: usize,
    seed: u64,
    limits: PackLimits,
}

impl Outcome {
    fn new(
        operation: Operation,
        options: Options,
        purpose: Purpose<&[u8]>,
        name: &'static str,
        seed: u64,
        limits: PackLimits,
    ) -> Outcome {
        let result = SortedSet::new_big(seed);
        Outcome { operation, options, purpose: purpose.owned(), name, result, count: 0, seed, limits }
    }

    /// A member has come to this score.
    #[inline]
    fn take(&mut self, member: &[u8], score: f64) {
        let Outcome { result, count, seed, limits, .. } = self;
        match self.purpose {
            Purpose::Count => *count += usize::from(*count < self.options.limit),
            _ if self.operation == Operation::Union => {
                add(result, member, score, self.options.aggregate, *seed, *limits);
            }
            _ => drop(result.insert(*seed, member, score, *limits)),
        }
    }

    fn is_enough(&self) -> bool {
        self.count >= self.options.limit
    }
}

/// One of these commands over what very many keys hold.
struct Gather {
    /// In the order of the keys.
    sources: Vec<Owned>,
    outcome: Outcome,
}

impl Gathered for Gather {
    fn take(&mut self, told: Told) -> CmdResult {
        self.sources.push(match told {
            Told::Nothing => Owned::Missing,
            Told::Object(Object::ZSet(set)) => Owned::Sorted(set),
            Told::Object(Object::Set(set)) => Owned::Plain(set),
            Told::Object(_) | Told::Text(_) => return Err(CommandError::WrongType),
        });
        Ok(())
    }

    fn begin(self: Box<Self>) -> Box<dyn Task> {
        let Gather { sources, outcome } = *self;
        let mut sources: Vec<_> = sources.into_iter().zip(outcome.options.weights.iter().copied()).collect();
        if outcome.operation != Operation::Difference {
            sources.sort_by_cached_key(|(source, _)| source.borrow().len());
        }
        Box::new(Combining::new(sources, outcome))
    }

    fn into_held(self: Box<Self>) -> Vec<Object> {
        self.sources.into_iter().filter_map(Owned::wrap).collect()
    }
}

impl Combining {
    /// `sources` in the order in which they are combined.
    fn new(sources: Vec<(Owned, f64)>, outcome: Outcome) -> Combining {
        Combining { sources, at: 0, place: 0, asking: VecDeque::new(), outcome }
    }

    /// Looks at some members of the source that is walked over, each in all `others`; how much of a step that was, of
    /// [`MEMBERS_PER_STEP`].
    fn walk_some(&mut self, others: usize) -> usize {
        let Combining { sources, at, place, outcome, .. } = self;
        let (operation, aggregate) = (outcome.operation, outcome.options.aggregate);
        let others = &sources[sources.len() - others..];
        let (walked, weight) = (sources[*at].0.borrow(), sources[*at].1);
        let (members, mut seen) = (members_per_step(walked.len(), walked.heap_bytes(), others.len()), 0);
        *place = walked.visit_some(*place, members, |member, score| {
            seen += 1;
            let own = own_score(operation, score, weight);
            let others = others.iter().map(|(other, weight)| (other.borrow(), *weight));
            if let Some(score) = combined(operation, aggregate, (member, own), others) {
                outcome.take(member, score);
            }
        });
        *at += usize::from(*place == 0);
        (seen * MEMBERS_PER_STEP / members).max(SOURCE)
    }

    /// Asks some others for one member of the source that is walked over; true with the last.
    fn ask_some(&mut self) -> bool {
        let Combining { sources, at, place, asking, outcome } = self;
        let (operation, aggregate) = (outcome.operation, outcome.options.aggregate);
        let (walked, weight) = (sources[0].0.borrow(), sources[0].1);
        let Some((member, total, asked)) = asking.front_mut() else {
            *place = walked.visit_some(*place, 1, |member, score| {
                asking.push_back((member.into(), own_score(operation, score, weight), 1));
            });
            *at += usize::from(*place == 0);
            return *at > 0 && asking.is_empty();
        };
        let some = sources[*asked..].iter().take(MEMBERS_PER_STEP);
        *asked += some.len();
        let others = some.map(|(other, weight)| (other.borrow(), *weight));
        match combined(operation, aggregate, (member, *total), others) {
            Some(score) if *asked < sources.len() => *total = score,
            over => {
                if let Some(score) = over {
                    outcome.take(member, score);
                }
                asking.pop_front();
            }
        }
        *at > 0 && asking.is_empty()
    }
}

impl Task for Combining {
    fn target(&self) -> Option<&[u8]> {
        match &self.outcome.purpose {
            Purpose::Store(key) => Some(key),
            Purpose::Reply | Purpose::Count => None,
        }
    }

    fn step(&mut self) -> bool {
        let (walked_over, others) = match self.outcome.operation {
            Operation::Union => (self.sources.len(), 0),
            Operation::Intersection | Operation::Difference => (1, self.sources.len() - 1),
        };
        if others > MEMBERS_PER_STEP {
            return self.ask_some() || self.outcome.is_enough();
        }
        let mut left = MEMBERS_PER_STEP;
        while left > 0 && self.at < walked_over && !self.outcome.is_enough() {
            left = left.saturating_sub(self.walk_some(others));
        }
        self.at == walked_over || self.outcome.is_enough()
    }

    fn finish(&mut self, cx: &mut Cx<'_>) -> CmdResult {
        let Outcome { options, purpose, name, result: set, count, seed, limits, .. } = &mut self.outcome;
        match purpose {
            Purpose::Count => cx.out.int(*count as i64),
            Purpose::Reply => {
                let pairs = Pairs::begin(&mut cx.out, set.len(), options.scores);
                let size = (set.len(), set.len(), set.heap_bytes());
                let walk = || Walk::Ranks { ranks: 0..set.len(), reverse: false, pairs };
                if !put_aside(&mut cx.later, cx.out.proto(), &*set, size, walk) {
                    pairs.write_all(&mut cx.out, set, 0..set.len(), false);
                }
            }
            Purpose::Store(key) => {
                let result = settled(set, *seed, *limits);
                store(cx, key, result, name);
            }
        }
        Ok(())
    }

    fn into_held(self: Box<Self>) -> Vec<Object> {
        let sources = self.sources.into_iter().filter_map(|(source, _)| source.wrap());
        sources.chain([Object::ZSet(self.outcome.result)]).collect()
    }
}

/// Gives a member of a union its score, combined with the one that it has.
fn add(
    result: &mut SortedSet,
    member: &[u8],
    score: f64,
    aggregate: Aggregate,
    seed: u64,
    limits: PackLimits,
) {
    let mut other_zero = None;
    result.insert_with(seed, member, limits, |present| {
        let total = present.map_or(score, |present| aggregate.combine(present, score));
        // A set keeps the score that it has if the new one is equal, and zeros of both signs are.
        let is_kept = present.is_some_and(|present| present == total && present.to_bits() != total.to_bits());
        other_zero = is_kept.then_some(total);
        Some(total)
    });
    if let Some(total) = other_zero {
        result.remove(member);
        result.insert(seed, member, total, limits);
    }
}

pub(super) const ZDIFF: Command = Command {
    name: "ZDIFF",
    arity: Arity::AtLeast(3),
    keys: Keys::Counted { count: 1, also: 0 },
    flags: Flags::READ.with(Flags::MOVABLE_KEYS),
    spread: Spread::Gathered,
    group: Group::SortedSet,
    since: "6.2.0",
    syntax: "numkeys key [key ...] [WITHSCORES]",
    summary: "Returns the members of the first sorted set that no other has.",
    run: Run::Shard(zdiff),
};

fn zdiff(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    combine(cx, args, Operation::Difference, Purpose::Reply, "zdiff")
}

pub(super) const ZDIFFSTORE: Command = Command {
    name: "ZDIFFSTORE",
    arity: Arity::AtLeast(4),
    keys: Keys::Counted { count: 2, also: 1 },
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::MOVABLE_KEYS),
    spread: Spread::Gathered,
    group: Group::SortedSet,
    since: "6.2.0",
    syntax: "destination numkeys key [key ...]",
    summary: "Stores the members of the first sorted set that no other has; counts them.",
    run: Run::Shard(zdiffstore),
};

fn zdiffstore(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let to = args.take()?;
    combine(cx, args, Operation::Difference, Purpose::Store(to), "zdiffstore")
}

pub(super) const ZINTER: Command = Command {
    name: "ZINTER",
    arity: Arity::AtLeast(3),
    keys: Keys::Counted { count: 1, also: 0 },
    flags: Flags::READ.with(Flags::MOVABLE_KEYS),
    spread: Spread::Gathered,
    group: Group::SortedSet,
    since: "6.2.0",
    syntax: "numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX>] [WITHSCORES]",
    summary: "Returns the members that all of several sorted sets have.",
    run: Run::Shard(zinter),
};

fn zinter(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    combine(cx, args, Operation::Intersection, Purpose::Reply, "zinter")
}

pub(super) const ZINTERCARD: Command = Command {
    name: "ZINTERCARD",
    arity: Arity::AtLeast(3),
    keys: Keys::Counted { count: 1, also: 0 },
    flags: Flags::READ.with(Flags::MOVABLE_KEYS),
    spread: Spread::Gathered,
    group: Group::SortedSet,
    since: "7.0.0",
    syntax: "numkeys key [key ...] [LIMIT limit]",
    summary: "Counts the members that all of several sorted sets have.",
    run: Run::Shard(zintercard),
};

fn zintercard(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    combine(cx, args, Operation::Intersection, Purpose::Count, "zintercard")
}

pub(super) const ZINTERSTORE: Command = Command {
    name: "ZINTERSTORE",
    arity: Arity::AtLeast(4),
    keys: Keys::Counted { count: 2, also: 1 },
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::MOVABLE_KEYS),
    spread: Spread::Gathered,
    group: Group::SortedSet,
    since: "2.0.0",
    syntax: "destination numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX>]",
    summary: "Stores the members that all of several sorted sets have; counts them.",
    run: Run::Shard(zinterstore),
};

fn zinterstore(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let to = args.take()?;
    combine(cx, args, Operation::Intersection, Purpose::Store(to), "zinterstore")
}

pub(super) const ZUNION: Command = Command {
    name: "ZUNION",
    arity: Arity::AtLeast(3),
    keys: Keys::Counted { count: 1, also: 0 },
    flags: Flags::READ.with(Flags::MOVABLE_KEYS),
    spread: Spread::Gathered,
    group: Group::SortedSet,
    since: "6.2.0",
    syntax: "numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX>] [WITHSCORES]",
    summary: "Returns the members that any of several sorted sets has.",
    run: Run::Shard(zunion),
};

fn zunion(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    combine(cx, args, Operation::Union, Purpose::Reply, "zunion")
}

pub(super) const ZUNIONSTORE: Command = Command {
    name: "ZUNIONSTORE",
    arity: Arity::AtLeast(4),
    keys: Keys::Counted { count: 2, also: 1 },
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::MOVABLE_KEYS),
    spread: Spread::Gathered,
    group: Group::SortedSet,
    since: "2.0.0",
    syntax: "destination numkeys key [key ...] [WEIGHTS weight [weight ...]] [AGGREGATE <SUM | MIN | MAX>]",
    summary: "Stores the members that any of several sorted sets has; counts them.",
    run: Run::Shard(zunionstore),
};

fn zunionstore(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let to = args.take()?;
    combine(cx, args, Operation::Union, Purpose::Store(to), "zunionstore")
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
