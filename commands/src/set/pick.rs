//! Members that Redis chooses: random ones, taken or not, and all of them step by step.

use std::collections::HashSet;

use damselfly_keyspace::Item;
use damselfly_keyspace::values::set::Set;
use damselfly_protocol::number::parse_i64;

use super::{announce_loss, reply_item};
use crate::random::Random;
use crate::walk::walk;
use crate::{Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Run, Spread};

pub(super) const SPOP: Command = Command {
    name: "SPOP",
    arity: Arity::AtLeast(2),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Set,
    since: "1.0.0",
    syntax: "key [count]",
    summary: "Returns random members and removes them.",
    run: Run::Shard(spop),
};

fn spop(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    if !args.is_empty() {
        return pop_count(cx, key, args);
    }
    let mut random = Random::new(cx.ks.random());
    let out = &mut cx.out;
    let edit =
        cx.ks.edit(cx.db, key, |set: &mut Set| set.pop(|| random.next(), |item| reply_item(out, item)))?;
    match edit {
        Some(edit) => announce_loss(cx, key, "spop", edit.gone),
        None => cx.out.null(),
    }
    Ok(())
}

fn pop_count(cx: &mut Cx<'_>, key: &[u8], mut args: Args<'_>) -> CmdResult {
    const NEGATIVE: CommandError = CommandError::text("ERR value is out of range, must be positive");
    if args.len() > 1 {
        return Err(CommandError::Syntax);
    }
    let count = parse_i64(args.take()?).and_then(|count| usize::try_from(count).ok()).ok_or(NEGATIVE)?;
    let mut random = Random::new(cx.ks.random());
    let loc = cx.ks.find_collection::<Set>(cx.db, key)?;
    let Some(loc) = loc.filter(|_| count > 0) else {
        cx.out.set(0);
        return Ok(());
    };
    let (out, set) = (&mut cx.out, cx.ks.collection::<Set>(cx.db, loc)?);
    let all = count >= set.len();
    out.set(count.min(set.len()));
    if all {
        // The key goes with all members still in the set: a big one is then freed in steps.
        set.iter().for_each(|item| reply_item(out, item));
        cx.ks.remove_at(cx.db, loc);
    } else {
        cx.ks.edit_at(cx.db, loc, |set: &mut Set| {
            set.pop_many(count, || random.next(), |item| reply_item(out, item));
        })?;
    }
    announce_loss(cx, key, "spop", all);
    Ok(())
}

pub(super) const SRANDMEMBER: Command = Command {
    name: "SRANDMEMBER",
    arity: Arity::AtLeast(2),
    keys: Keys::First,
    flags: Flags::READ,
    spread: Spread::Single,
    group: Group::Set,
    since: "1.0.0",
    syntax: "key [count]",
    summary: "Returns random members.",
    run: Run::Shard(srandmember),
};

/// Most members that one SRANDMEMBER repeats. Its reply is the one that a few bytes of request can make any size;
/// Redis would try.
const REPEATED_MAX: usize = 1 << 24;

/// Below one in so many, members are drawn until enough are different; above, all are walked.
const SPARSE: usize = 8;

fn srandmember(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    let mut random = Random::new(cx.ks.random());
    if args.is_empty() {
        match cx.ks.view::<Set>(cx.db, key)?.and_then(|set| set.random(|| random.next())) {
            Some(item) => reply_item(&mut cx.out, item),
            None => cx.out.null(),
        }
        return Ok(());
    }
    if args.len() > 1 {
        return Err(CommandError::Syntax);
    }
    let count = args.take_int()?;
    if count == i64::MIN {
        return Err(CommandError::text(
            "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
        ));
    }
    let Some(set) = cx.ks.view::<Set>(cx.db, key)? else {
        cx.out.array(0);
        return Ok(());
    };
    let (len, out) = (set.len(), &mut cx.out);
    let wanted = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    if count < 0 {
        if wanted > REPEATED_MAX {
            return Err(CommandError::OutOfRange);
        }
        out.array(wanted);
        for _ in 0..wanted {
            let item = set.random(|| random.next()).expect("a set under a key has members");
            reply_item(out, item);
        }
        return Ok(());
    }
    let mut wanted = wanted.min(len);
    out.array(wanted);
    if wanted > len / SPARSE {
        // One walk over all, each taken with the probability that leaves the rest uniform.
        let mut left = len;
        for item in set.iter() {
            if random.below(left) < wanted {
                reply_item(out, item);
                wanted -= 1;
            }
            left -= 1;
        }
        return Ok(());
    }
    // Members do not move while they are looked at, so a place stands for what is there. Fewer than one draw in
    // eight is a repetition.
    let mut chosen = HashSet::with_capacity(wanted);
    while chosen.len() < wanted {
        let item = set.random(|| random.next()).expect("a set under a key has members");
        let identity = match item {
            Item::Int(number) => (number as u64, true),
            Item::Bytes(bytes) => (bytes.as_ptr() as u64, false),
        };
        if chosen.insert(identity) {
            reply_item(out, item);
        }
    }
    Ok(())
}

pub(super) const SSCAN: Command = Command {
    name: "SSCAN",
    arity: Arity::AtLeast(3),
    keys: Keys::First,
    flags: Flags::READ,
    spread: Spread::Single,
    group: Group::Set,
    since: "2.8.0",
    syntax: "key cursor [MATCH pattern] [COUNT count]",
    summary: "Walks the members in steps.",
    run: Run::Shard(sscan),
};

fn sscan(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    walk(cx, args, false, |set: &Set, cursor, step, shown| {
        set.scan(cursor, step.count, |item| {
            if step.shows(item.as_bytes(&mut [0; 20])) {
                reply_item(shown.element(), item);
            }
        })
    })
}
