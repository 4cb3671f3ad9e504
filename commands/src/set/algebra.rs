//! Union, intersection and difference of sets, replied with, stored or counted.
//!
//! A stored union or difference of a big set begins as a clone of it: a clone shares the set's nodes, so what costs
//! time is what the others add or take away, and not the set. What takes long all the same is done in steps.

use std::borrow::Borrow;
use std::collections::VecDeque;

use damselfly_keyspace::values::set::{Set, SetLimits};
use damselfly_keyspace::{Class, Item, Loc, Object};
use damselfly_protocol::number::parse_i64;

use super::reply_item;
use crate::long::{Walk, put_aside};
use crate::past::{Gathered, Told, gather};
use crate::task::{MEMBERS_PER_STEP, Rest, Task, members_per_step};
use crate::{Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Run, Spread};

/// To come to a set takes as long as so many of its members.
const SET: usize = 4;

/// What is done with the members of several sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Union,
    Intersection,
    Difference,
}

impl Operation {
    /// Whether the result must be empty, by which sets are there.
    fn is_empty(self, mut there: impl Iterator<Item = bool>) -> bool {
        match self {
            Operation::Union => false,
            Operation::Intersection => !there.all(|is_there| is_there),
            Operation::Difference => !there.next().unwrap_or(false),
        }
    }
}

/// What becomes of the result.
#[derive(Clone, Copy)]
enum End<K> {
    /// It is the reply.
    Reply,
    /// Its size is, or the limit.
    Count(usize),
    /// It goes under a key.
    Store { key: K, event: &'static str },
}

/// What a member that is visited does to the result.
#[derive(Clone, Copy)]
enum Rule {
    /// It belongs to it.
    Every,
    /// If all others have it.
    InAll,
    /// If no other has it.
    InNone,
    /// It goes from it.
    Gone,
}

/// An operation taken apart. `S` is a set, or a borrowed one.
struct Plan<S> {
    /// What the result begins as; empty if None.
    base: Option<S>,
    /// The sets whose members are visited, one set after the other.
    walked: Vec<S>,
    /// The sets in which they are looked up.
    others: Vec<S>,
    rule: Rule,
}

impl<S: Borrow<Set>> Plan<S> {
    /// `sets` in the order of their keys, missing ones left out; `stores`: the result is to become a set.
    fn new(operation: Operation, mut sets: Vec<S>, stores: bool, limits: SetLimits) -> Plan<S> {
        let len = |set: &S| set.borrow().len();
        let (mut base, mut others) = (None, Vec::new());
        let rule = match operation {
            Operation::Union => {
                let largest = (0..sets.len()).max_by_key(|&at| len(&sets[at]));
                let is_worth_it = |at: &usize| is_worth_cloning(sets[*at].borrow(), len(&sets[*at]), limits);
                if let Some(at) = largest.filter(is_worth_it) {
                    base = Some(sets.swap_remove(at));
                }
                Rule::Every
            }
            Operation::Intersection => {
                sets.sort_by_cached_key(len);
                others = sets.split_off(sets.len().min(1));
                if let [smallest] = &*sets {
                    // One that is the very same has all members.
                    others.retain(|set| !std::ptr::eq::<Set>(set.borrow(), smallest.borrow()));
                }
                Rule::InAll
            }
            Operation::Difference => {
                others = sets.split_off(sets.len().min(1));
                let taken: usize = others.iter().map(len).sum();
                let is_worth_it = |first: &mut S| {
                    stores && is_worth_cloning((*first).borrow(), len(first).saturating_sub(taken), limits)
                };
                if let Some(first) = sets.pop_if(is_worth_it) {
                    base = Some(first);
                    sets = std::mem::take(&mut others);
                    Rule::Gone
                } else {
                    // The one that most likely has a member first.
                    others.sort_by_cached_key(|set| std::cmp::Reverse(len(set)));
                    Rule::InNone
                }
            }
        };
        Plan { base, walked: sets, others, rule }
    }
}

impl Plan<&Set> {
    /// How often a member is looked at or for, at most. What the result begins as costs nothing if it is stored.
    fn look_ups(&self, stores: bool) -> usize {
        let base = self.base.filter(|_| !stores);
        let members: usize = base.iter().chain(&self.walked).map(|set| set.len()).sum();
        members.saturating_mul(self.others.len().max(1))
    }

    /// The same over clones.
    fn cloned(&self) -> Plan<Set> {
        let owned = |sets: &[&Set]| sets.iter().map(|set| (*set).clone()).collect();
        let (walked, others) = (owned(&self.walked), owned(&self.others));
        Plan { base: self.base.cloned(), walked, others, rule: self.rule }
    }

    /// Visits the members of the result until `visit` answers false.
    fn visit_while(&self, seed: u64, mut visit: impl FnMut(Item<'_>) -> bool) {
        match self.rule {
            Rule::Every => {
                let sets: Vec<&Set> = self.base.iter().chain(&self.walked).copied().collect();
                unite(&sets, seed, visit);
            }
            Rule::InAll | Rule::InNone => {
                self.walked
                    .iter()
                    .flat_map(|set| set.iter())
                    .all(|member| !self.keeps(member) || visit(member));
            }
            Rule::Gone => unreachable!("the plan of a result that is stored"),
        }
    }

    fn result(&self, seed: u64, limits: SetLimits) -> Set {
        let mut result = self.base.cloned().unwrap_or_default();
        for set in &self.walked {
            set.iter().for_each(|member| self.apply(&mut result, member, seed, limits));
        }
        result
    }
}

impl<S: Borrow<Set>> Plan<S> {
    /// Whether a member that is visited is one of the result, if it is not taken from it.
    #[inline]
    fn keeps(&self, member: Item<'_>) -> bool {
        self.keeps_among(member, &self.others)
    }

    /// The same as far as these others say.
    #[inline]
    fn keeps_among(&self, member: Item<'_>, others: &[S]) -> bool {
        let mut others = others.iter().map(S::borrow);
        match self.rule {
            Rule::Every => true,
            Rule::InAll => others.all(|set| set.contains_item(member)),
            Rule::InNone | Rule::Gone => !others.any(|set| set.contains_item(member)),
        }
    }

    /// Does to the result what a member does that is visited.
    #[inline]
    fn apply(&self, result: &mut Set, member: Item<'_>, seed: u64, limits: SetLimits) {
        if let Rule::Gone = self.rule {
            result.remove_item(member);
        } else if self.keeps(member) {
            result.insert_item(seed, member, limits);
        }
    }
}

/// Visits the members that any of `sets` has, each once, until `visit` answers false.
fn unite(sets: &[&Set], seed: u64, mut visit: impl FnMut(Item<'_>) -> bool) {
    /// Up to so many sets each member is looked up in those before; beyond, what was seen is kept.
    const LOOK_BACK_MAX: usize = 4;
    if sets.len() <= LOOK_BACK_MAX {
        for (at, set) in sets.iter().enumerate() {
            let before = &sets[..at];
            let is_new = |member| !before.iter().any(|set| set.contains_item(member));
            if !set.iter().all(|member| !is_new(member) || visit(member)) {
                return;
            }
        }
        return;
    }
    let mut seen = Set::new();
    seen.expect(seed, b"", usize::MAX, Default::default());
    sets.iter()
        .flat_map(|set| set.iter())
        .all(|member| !seen.insert_item(seed, member, Default::default()) || visit(member));
}

/// Whether a result that holds at least `left` of this set's members should begin as its clone. Clones keep the
/// form and the members' expiries, and a result has neither from its sources.
fn is_worth_cloning(set: &Set, left: usize, limits: SetLimits) -> bool {
    let small_max = limits.ints_max.max(limits.pack.entries_max);
    matches!(set, Set::Big(_)) && set.expiring() == 0 && left > small_max && left > set.len() / 2
}

/// Puts a result under a key, which goes if there is none, and replies with its size.
fn store(cx: &mut Cx<'_>, key: &[u8], result: Set, event: &'static str) {
    let len = result.len();
    if len > 0 {
        cx.ks.store(cx.db, key, result);
        cx.changed(key, Class::Set, event);
    } else if cx.ks.remove(cx.db, key) {
        cx.changed(key, Class::Generic, "del");
    }
    cx.out.int(len as i64);
}

/// All of these commands.
fn combine(cx: &mut Cx<'_>, operation: Operation, keys: Args<'_>, end: End<&[u8]>) -> CmdResult {
    let (stores, target) = match &end {
        End::Store { key, .. } => (true, Some(*key)),
        End::Reply | End::Count(_) => (false, None),
    };
    let (seed, limits) = (cx.ks.hash_seed(), cx.env.set_limits);
    let command = |_: &Cx<'_>| Gather { operation, end: end.owned(), sets: Vec::new(), seed, limits };
    if gather(cx, keys, target, !stores, command) {
        return Ok(());
    }
    let keys = keys.rest();
    let locs = find_sets(cx, keys, stores)?;
    let is_empty = operation.is_empty(locs.iter().map(Option::is_some));
    let Cx { ks, db, out, env, later } = cx;
    let ks = &**ks;
    let there = locs.iter().flatten().filter(|_| !is_empty);
    let sets = there.map(|loc| ks.collection::<Set>(*db, *loc)).collect::<Result<Vec<_>, _>>()?;
    let plan = Plan::new(operation, sets, stores, limits);
    if plan.look_ups(stores) > env.at_once_max
        && let Some(place) = later
    {
        **place = Some(Rest::Task(Box::new(Combining::new(plan.cloned(), end.owned(), seed, limits))));
        return Ok(());
    }
    match end {
        End::Reply => {
            let likely = plan.base.iter().chain(&plan.walked).map(|set| set.len()).sum();
            let (header, mut count) = (out.deferred(likely), 0);
            plan.visit_while(seed, |member| {
                reply_item(out, member);
                count += 1;
                true
            });
            out.fill_set(header, count);
        }
        End::Count(limit) => {
            let mut count = 0;
            plan.visit_while(seed, |_| {
                count += 1;
                count < limit
            });
            out.int(count as i64);
        }
        End::Store { key, event } => {
            let result = plan.result(seed, limits);
            store(cx, key, result, event);
        }
    }
    Ok(())
}

impl End<&[u8]> {
    fn owned(self) -> End<Box<[u8]>> {
        match self {
            End::Reply => End::Reply,
            End::Count(limit) => End::Count(limit),
            End::Store { key, event } => End::Store { key: key.into(), event },
        }
    }
}

/// One of these commands over the sets of very many keys.
struct Gather {
    operation: Operation,
    end: End<Box<[u8]>>,
    /// In the order of the keys.
    sets: Vec<Option<Set>>,
    seed: u64,
    limits: SetLimits,
}

impl Gathered for Gather {
    fn take(&mut self, told: Told) -> CmdResult {
        self.sets.push(match told {
            Told::Nothing => None,
            Told::Object(Object::Set(set)) => Some(set),
            Told::Object(_) | Told::Text(_) => return Err(CommandError::WrongType),
        });
        Ok(())
    }

    fn begin(self: Box<Self>) -> Box<dyn Task> {
        let Gather { operation, end, sets, seed, limits } = *self;
        let is_empty = operation.is_empty(sets.iter().map(Option::is_some));
        let sets = sets.into_iter().flatten().filter(|_| !is_empty).collect();
        let stores = matches!(end, End::Store { .. });
        Box::new(Combining::new(Plan::new(operation, sets, stores, limits), end, seed, limits))
    }

    fn into_held(self: Box<Self>) -> Vec<Object> {
        self.sets.into_iter().flatten().map(Object::Set).collect()
    }
}

/// One of these commands over big sets, or very many.
struct Combining {
    plan: Plan<Set>,
    end: End<Box<[u8]>>,
    /// Number of the set that is walked over, and how far the walk has come in it.
    at: usize,
    cursor: u64,
    /// Members of it that are looked up in more others than a step has time for, with how many were asked.
    asking: VecDeque<(Vec<u8>, usize)>,
    result: Set,
    count: usize,
    seed: u64,
    limits: SetLimits,
}

impl Combining {
    fn new(mut plan: Plan<Set>, end: End<Box<[u8]>>, seed: u64, limits: SetLimits) -> Combining {
        let result = plan.base.take().unwrap_or_default();
        Combining { plan, end, at: 0, cursor: 0, asking: VecDeque::new(), result, count: 0, seed, limits }
    }

    /// Looks at some members of the set that is walked over, each in all others; how much of a step that was, of
    /// [`MEMBERS_PER_STEP`].
    fn walk_some(&mut self) -> usize {
        let Combining { plan, end, result, count, seed, limits, .. } = self;
        let set = &plan.walked[self.at];
        let members = members_per_step(set.len(), set.heap_bytes(), plan.others.len());
        let (limit, mut seen) = (end.limit(), 0);
        self.cursor = set.scan(self.cursor, members, |member| {
            seen += 1;
            match limit {
                Some(limit) => *count += usize::from(*count < limit && plan.keeps(member)),
                None => plan.apply(result, member, *seed, *limits),
            }
        });
        self.at += usize::from(self.cursor == 0);
        (seen * MEMBERS_PER_STEP / members).max(SET)
    }

    /// Whether all were looked at, or enough were counted.
    fn is_over(&self) -> bool {
        let is_enough = self.end.limit().is_some_and(|limit| self.count >= limit);
        self.at == self.plan.walked.len() && self.asking.is_empty() || is_enough
    }

    /// Asks some others for one member of the set that is walked over.
    fn ask_some(&mut self) {
        let Combining { plan, end, at, cursor, asking, result, count, seed, limits } = self;
        let Some((member, asked)) = asking.front_mut() else {
            *cursor = plan.walked[*at].scan(*cursor, 1, |member| asking.push_back((member.to_vec(), 0)));
            *at += usize::from(*cursor == 0);
            return;
        };
        let item = Item::of(member);
        let others = &plan.others[*asked..];
        let others = &others[..others.len().min(MEMBERS_PER_STEP)];
        *asked += others.len();
        let is_kept = plan.keeps_among(item, others);
        if is_kept && *asked < plan.others.len() {
            return;
        }
        if is_kept {
            match end.limit() {
                Some(_) => *count += 1,
                None => drop(result.insert_item(*seed, item, *limits)),
            }
        }
        asking.pop_front();
    }
}

impl<K> End<K> {
    /// How many are counted at most, where they are.
    fn limit(&self) -> Option<usize> {
        match self {
            End::Count(limit) => Some(*limit),
            End::Reply | End::Store { .. } => None,
        }
    }
}

impl Task for Combining {
    fn target(&self) -> Option<&[u8]> {
        match &self.end {
            End::Store { key, .. } => Some(key),
            End::Reply | End::Count(_) => None,
        }
    }

    fn step(&mut self) -> bool {
        if self.plan.others.len() > MEMBERS_PER_STEP {
            if !self.is_over() {
                self.ask_some();
            }
            return self.is_over();
        }
        let mut left = MEMBERS_PER_STEP;
        while left > 0 && !self.is_over() {
            left = left.saturating_sub(self.walk_some());
        }
        self.is_over()
    }

    fn finish(&mut self, cx: &mut Cx<'_>) -> CmdResult {
        match &self.end {
            End::Reply => {
                let set = &self.result;
                cx.out.set(set.len());
                let size = (set.len(), set.len(), set.heap_bytes());
                if !put_aside(&mut cx.later, cx.out.proto(), set, size, || Walk::Members { cursor: 0 }) {
                    set.iter().for_each(|member| reply_item(&mut cx.out, member));
                }
            }
            End::Count(_) => cx.out.int(self.count as i64),
            End::Store { key, event } => store(cx, key, std::mem::take(&mut self.result), event),
        }
        Ok(())
    }

    fn into_held(self: Box<Self>) -> Vec<Object> {
        let Combining { plan: Plan { walked, others, .. }, result, .. } = *self;
        walked.into_iter().chain(others).chain([result]).map(Object::Set).collect()
    }
}

/// Where the sets under the keys are. Looking may remove what has expired, so places count only when nothing is left
/// to be removed.
fn find_sets<'a>(
    cx: &mut Cx<'_>,
    keys: impl Iterator<Item = &'a [u8]> + Clone,
    stores: bool,
) -> Result<Vec<Option<Loc>>, CommandError> {
    for key in keys.clone() {
        if !stores {
            cx.read(key);
        }
        cx.ks.find_collection::<Set>(cx.db, key)?;
    }
    keys.map(|key| Ok(cx.ks.find_collection::<Set>(cx.db, key)?)).collect()
}

pub(super) const SDIFF: Command = Command {
    name: "SDIFF",
    arity: Arity::AtLeast(2),
    keys: Keys::Range { first: 1, last: -1, step: 1 },
    flags: Flags::READ,
    spread: Spread::Gathered,
    group: Group::Set,
    since: "1.0.0",
    syntax: "key [key ...]",
    summary: "Returns the members of the first set that no other has.",
    run: Run::Shard(sdiff),
};

fn sdiff(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    combine(cx, Operation::Difference, args, End::Reply)
}

pub(super) const SDIFFSTORE: Command = Command {
    name: "SDIFFSTORE",
    arity: Arity::AtLeast(3),
    keys: Keys::Range { first: 1, last: -1, step: 1 },
    flags: Flags::WRITE.with(Flags::GROWS),
    spread: Spread::Gathered,
    group: Group::Set,
    since: "1.0.0",
    syntax: "destination key [key ...]",
    summary: "Stores the members of the first set that no other has; counts them.",
    run: Run::Shard(sdiffstore),
};

fn sdiffstore(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    combine(cx, Operation::Difference, args, End::Store { key, event: "sdiffstore" })
}

pub(super) const SINTER: Command = Command {
    name: "SINTER",
    arity: Arity::AtLeast(2),
    keys: Keys::Range { first: 1, last: -1, step: 1 },
    flags: Flags::READ,
    spread: Spread::Gathered,
    group: Group::Set,
    since: "1.0.0",
    syntax: "key [key ...]",
    summary: "Returns the members that all of several sets have.",
    run: Run::Shard(sinter),
};

fn sinter(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    combine(cx, Operation::Intersection, args, End::Reply)
}

pub(super) const SINTERCARD: Command = Command {
    name: "SINTERCARD",
    arity: Arity::AtLeast(3),
    keys: Keys::Counted { count: 1, also: 0 },
    flags: Flags::READ.with(Flags::MOVABLE_KEYS),
    spread: Spread::Gathered,
    group: Group::Set,
    since: "7.0.0",
    syntax: "numkeys key [key ...] [LIMIT limit]",
    summary: "Counts the members that all of several sets have.",
    run: Run::Shard(sintercard),
};

fn sintercard(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    const NO_KEYS: CommandError = CommandError::text("ERR numkeys should be greater than 0");
    const TOO_MANY: CommandError =
        CommandError::text("ERR Number of keys can't be greater than number of args");
    const LIMIT: CommandError = CommandError::text("ERR LIMIT can't be negative");
    let keys = match parse_i64(args.take()?) {
        Some(keys @ 1..) => usize::try_from(keys).unwrap_or(usize::MAX),
        _ => return Err(NO_KEYS),
    };
    if keys > args.len() {
        return Err(TOO_MANY);
    }
    let names = args.first(keys);
    for _ in 0..keys {
        args.take()?;
    }
    let mut limit = usize::MAX;
    while !args.is_empty() {
        if args.len() < 2 || !args.take_word("LIMIT") {
            return Err(CommandError::Syntax);
        }
        let given = parse_i64(args.take()?).and_then(|limit| usize::try_from(limit).ok());
        limit = match given.ok_or(LIMIT)? {
            0 => usize::MAX,
            limit => limit,
        };
    }
    combine(cx, Operation::Intersection, names, End::Count(limit))
}

pub(super) const SINTERSTORE: Command = Command {
    name: "SINTERSTORE",
    arity: Arity::AtLeast(3),
    keys: Keys::Range { first: 1, last: -1, step: 1 },
    flags: Flags::WRITE.with(Flags::GROWS),
    spread: Spread::Gathered,
    group: Group::Set,
    since: "1.0.0",
    syntax: "destination key [key ...]",
    summary: "Stores the members that all of several sets have; counts them.",
    run: Run::Shard(sinterstore),
};

fn sinterstore(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    combine(cx, Operation::Intersection, args, End::Store { key, event: "sinterstore" })
}

pub(super) const SUNION: Command = Command {
    name: "SUNION",
    arity: Arity::AtLeast(2),
    keys: Keys::Range { first: 1, last: -1, step: 1 },
    flags: Flags::READ,
    spread: Spread::Gathered,
    group: Group::Set,
    since: "1.0.0",
    syntax: "key [key ...]",
    summary: "Returns the members that any of several sets has.",
    run: Run::Shard(sunion),
};

fn sunion(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    combine(cx, Operation::Union, args, End::Reply)
}

pub(super) const SUNIONSTORE: Command = Command {
    name: "SUNIONSTORE",
    arity: Arity::AtLeast(3),
    keys: Keys::Range { first: 1, last: -1, step: 1 },
    flags: Flags::WRITE.with(Flags::GROWS),
    spread: Spread::Gathered,
    group: Group::Set,
    since: "1.0.0",
    syntax: "destination key [key ...]",
    summary: "Stores the members that any of several sets has; counts them.",
    run: Run::Shard(sunionstore),
};

fn sunionstore(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    combine(cx, Operation::Union, args, End::Store { key, event: "sunionstore" })
}
