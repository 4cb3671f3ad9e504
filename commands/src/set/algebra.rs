//! Union, intersection and difference of sets, replied with, stored or counted.
//!
//! A stored union or difference of a big set begins as a clone of it: a clone shares the set's nodes, so what costs
//! time is what the others add or take away, and not the set.

use damselfly_keyspace::values::set::Set;
use damselfly_keyspace::{Class, Item, Loc};
use damselfly_protocol::ReplyWriter;
use damselfly_protocol::number::parse_i64;

use super::reply_item;
use crate::{Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Run, Spread};

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

/// The sets at these places, missing ones left out.
fn sets<'a>(cx: &'a Cx<'_>, locs: &[Option<Loc>]) -> Result<Vec<&'a Set>, CommandError> {
    let sets = locs.iter().flatten().map(|loc| cx.ks.collection::<Set>(cx.db, *loc));
    Ok(sets.collect::<Result<Vec<_>, _>>()?)
}

/// The sets, and the reply beside them.
fn sets_and_out<'a, 'b>(
    cx: &'a mut Cx<'b>,
    locs: &[Option<Loc>],
) -> Result<(Vec<&'a Set>, &'a mut ReplyWriter<'b>), CommandError> {
    let Cx { ks, db, out, .. } = cx;
    let ks = &**ks;
    let sets = locs.iter().flatten().map(|loc| ks.collection::<Set>(*db, *loc));
    Ok((sets.collect::<Result<Vec<_>, _>>()?, out))
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

/// Visits the members that all of `sets` have, until `visit` answers false. The smallest set is walked.
fn intersect(mut sets: Vec<&Set>, mut visit: impl FnMut(Item<'_>) -> bool) {
    sets.sort_by_key(|set| set.len());
    let Some((smallest, others)) = sets.split_first() else { return };
    // One that is the very same has all members.
    let others: Vec<&Set> = others.iter().filter(|set| !std::ptr::eq(**set, *smallest)).copied().collect();
    for member in smallest.iter() {
        if others.iter().all(|set| set.contains_item(member)) && !visit(member) {
            return;
        }
    }
}

/// Visits the members that any of `sets` has, each once.
fn unite(sets: &[&Set], seed: u64, mut visit: impl FnMut(Item<'_>)) {
    /// Up to so many sets each member is looked up in those before; beyond, what was seen is kept.
    const LOOK_BACK_MAX: usize = 4;
    if sets.len() <= LOOK_BACK_MAX {
        for (at, set) in sets.iter().enumerate() {
            let before = &sets[..at];
            for member in set.iter() {
                if !before.iter().any(|set| set.contains_item(member)) {
                    visit(member);
                }
            }
        }
        return;
    }
    let mut seen = Set::new();
    seen.expect(seed, b"", usize::MAX, Default::default());
    for member in sets.iter().flat_map(|set| set.iter()) {
        if seen.insert_item(seed, member, Default::default()) {
            visit(member);
        }
    }
}

/// Visits the members of `first` that none of `others` has.
fn subtract(first: &Set, mut others: Vec<&Set>, mut visit: impl FnMut(Item<'_>)) {
    // The one that most likely has a member first.
    others.sort_by_key(|set| std::cmp::Reverse(set.len()));
    for member in first.iter() {
        if !others.iter().any(|set| set.contains_item(member)) {
            visit(member);
        }
    }
}

/// Whether a result that holds at least `left` of this set's members should begin as its clone. Clones keep the
/// form and the members' expiries, and a result has neither from its sources.
fn is_worth_cloning(set: &Set, left: usize, cx: &Cx<'_>) -> bool {
    let limits = cx.env.set_limits;
    let small_max = limits.ints_max.max(limits.pack.entries_max);
    matches!(set, Set::Big(_)) && set.expiring() == 0 && left > small_max && left > set.len() / 2
}

pub(super) const SDIFF: Command = Command {
    name: "SDIFF",
    arity: Arity::AtLeast(2),
    keys: Keys::Range { first: 1, last: -1, step: 1 },
    flags: Flags::READ,
    spread: Spread::Together,
    group: Group::Set,
    since: "1.0.0",
    syntax: "key [key ...]",
    summary: "Returns the members of the first set that no other has.",
    run: Run::Shard(sdiff),
};

fn sdiff(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    let locs = find_sets(cx, args.rest(), false)?;
    if locs.first().is_none_or(Option::is_none) {
        cx.out.set(0);
        return Ok(());
    }
    let (sets, out) = sets_and_out(cx, &locs)?;
    let (header, mut count) = (out.deferred(sets[0].len()), 0);
    subtract(sets[0], sets[1..].to_vec(), |member| {
        reply_item(out, member);
        count += 1;
    });
    out.fill_set(header, count);
    Ok(())
}

pub(super) const SDIFFSTORE: Command = Command {
    name: "SDIFFSTORE",
    arity: Arity::AtLeast(3),
    keys: Keys::Range { first: 1, last: -1, step: 1 },
    flags: Flags::WRITE.with(Flags::GROWS),
    spread: Spread::Together,
    group: Group::Set,
    since: "1.0.0",
    syntax: "destination key [key ...]",
    summary: "Stores the members of the first set that no other has; counts them.",
    run: Run::Shard(sdiffstore),
};

fn sdiffstore(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let to = args.take()?;
    let locs = find_sets(cx, args.rest(), true)?;
    if locs.first().is_none_or(Option::is_none) {
        store(cx, to, Set::new(), "sdiffstore");
        return Ok(());
    }
    let (seed, limits) = (cx.ks.hash_seed(), cx.env.set_limits);
    let sets = sets(cx, &locs)?;
    let (first, others) = (sets[0], sets[1..].to_vec());
    let taken: usize = others.iter().map(|set| set.len()).sum();
    let mut result;
    if is_worth_cloning(first, first.len().saturating_sub(taken), cx) {
        result = first.clone();
        for member in others.iter().flat_map(|set| set.iter()) {
            result.remove_item(member);
        }
    } else {
        result = Set::new();
        subtract(first, others, |member| {
            result.insert_item(seed, member, limits);
        });
    }
    store(cx, to, result, "sdiffstore");
    Ok(())
}

pub(super) const SINTER: Command = Command {
    name: "SINTER",
    arity: Arity::AtLeast(2),
    keys: Keys::Range { first: 1, last: -1, step: 1 },
    flags: Flags::READ,
    spread: Spread::Together,
    group: Group::Set,
    since: "1.0.0",
    syntax: "key [key ...]",
    summary: "Returns the members that all of several sets have.",
    run: Run::Shard(sinter),
};

fn sinter(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    let locs = find_sets(cx, args.rest(), false)?;
    if locs.contains(&None) {
        cx.out.set(0);
        return Ok(());
    }
    let (sets, out) = sets_and_out(cx, &locs)?;
    let likely = sets.iter().map(|set| set.len()).min().unwrap_or_default();
    let (header, mut count) = (out.deferred(likely), 0);
    intersect(sets, |member| {
        reply_item(out, member);
        count += 1;
        true
    });
    out.fill_set(header, count);
    Ok(())
}

pub(super) const SINTERCARD: Command = Command {
    name: "SINTERCARD",
    arity: Arity::AtLeast(3),
    keys: Keys::Counted { count: 1, also: 0 },
    flags: Flags::READ.with(Flags::MOVABLE_KEYS),
    spread: Spread::Together,
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
    let names = args.rest().take(keys);
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
    let locs = find_sets(cx, names, false)?;
    let mut count = 0;
    if !locs.contains(&None) {
        intersect(sets(cx, &locs)?, |_| {
            count += 1;
            count < limit
        });
    }
    cx.out.int(count as i64);
    Ok(())
}

pub(super) const SINTERSTORE: Command = Command {
    name: "SINTERSTORE",
    arity: Arity::AtLeast(3),
    keys: Keys::Range { first: 1, last: -1, step: 1 },
    flags: Flags::WRITE.with(Flags::GROWS),
    spread: Spread::Together,
    group: Group::Set,
    since: "1.0.0",
    syntax: "destination key [key ...]",
    summary: "Stores the members that all of several sets have; counts them.",
    run: Run::Shard(sinterstore),
};

fn sinterstore(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let to = args.take()?;
    let locs = find_sets(cx, args.rest(), true)?;
    let (seed, limits) = (cx.ks.hash_seed(), cx.env.set_limits);
    let mut result = Set::new();
    if !locs.contains(&None) {
        intersect(sets(cx, &locs)?, |member| {
            result.insert_item(seed, member, limits);
            true
        });
    }
    store(cx, to, result, "sinterstore");
    Ok(())
}

pub(super) const SUNION: Command = Command {
    name: "SUNION",
    arity: Arity::AtLeast(2),
    keys: Keys::Range { first: 1, last: -1, step: 1 },
    flags: Flags::READ,
    spread: Spread::Together,
    group: Group::Set,
    since: "1.0.0",
    syntax: "key [key ...]",
    summary: "Returns the members that any of several sets has.",
    run: Run::Shard(sunion),
};

fn sunion(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    let locs = find_sets(cx, args.rest(), false)?;
    let seed = cx.ks.hash_seed();
    let (sets, out) = sets_and_out(cx, &locs)?;
    let (header, mut count) = (out.deferred(sets.iter().map(|set| set.len()).sum()), 0);
    unite(&sets, seed, |member| {
        reply_item(out, member);
        count += 1;
    });
    out.fill_set(header, count);
    Ok(())
}

pub(super) const SUNIONSTORE: Command = Command {
    name: "SUNIONSTORE",
    arity: Arity::AtLeast(3),
    keys: Keys::Range { first: 1, last: -1, step: 1 },
    flags: Flags::WRITE.with(Flags::GROWS),
    spread: Spread::Together,
    group: Group::Set,
    since: "1.0.0",
    syntax: "destination key [key ...]",
    summary: "Stores the members that any of several sets has; counts them.",
    run: Run::Shard(sunionstore),
};

fn sunionstore(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let to = args.take()?;
    let locs = find_sets(cx, args.rest(), true)?;
    let (seed, limits) = (cx.ks.hash_seed(), cx.env.set_limits);
    let mut sets = sets(cx, &locs)?;
    let mut result = Set::new();
    let largest = (0..sets.len()).max_by_key(|&at| sets[at].len());
    if let Some(largest) = largest.filter(|&at| is_worth_cloning(sets[at], sets[at].len(), cx)) {
        result = sets.swap_remove(largest).clone();
    }
    for member in sets.iter().flat_map(|set| set.iter()) {
        result.insert_item(seed, member, limits);
    }
    store(cx, to, result, "sunionstore");
    Ok(())
}
