//! Sets: members one by one. Members that Redis chooses and walks are in `set/pick.rs`, unions and the like in
//! `set/algebra.rs`.

mod algebra;
mod pick;

use damselfly_keyspace::values::set::{Set, SetLimits};
use damselfly_keyspace::{Class, Item, UnixMs};
use damselfly_protocol::ReplyWriter;

use crate::lifetime::member_deadline;
use crate::long::{Walk, put_aside};
use crate::many::{Many, answer, change};
use crate::relay::{Looked, Parcel, Relay};
use crate::{Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Run, Spread};
use algebra::{SDIFF, SDIFFSTORE, SINTER, SINTERCARD, SINTERSTORE, SUNION, SUNIONSTORE};
use pick::{SPOP, SRANDMEMBER, SSCAN};

pub(crate) const COMMANDS: &[&Command] = &[
    &SADD,
    &SADDEX,
    &SCARD,
    &SDIFF,
    &SDIFFSTORE,
    &SINTER,
    &SINTERCARD,
    &SINTERSTORE,
    &SISMEMBER,
    &SMEMBERS,
    &SMISMEMBER,
    &SMOVE,
    &SPOP,
    &SRANDMEMBER,
    &SREM,
    &SSCAN,
    &SUNION,
    &SUNIONSTORE,
];

#[inline]
fn reply_item(out: &mut ReplyWriter<'_>, item: Item<'_>) {
    match item {
        Item::Bytes(bytes) => out.bulk(bytes),
        Item::Int(number) => out.bulk_int(number),
    }
}

/// Announces that members went, and the key with the last of them if it is gone.
#[inline]
fn announce_loss(cx: &mut Cx<'_>, key: &[u8], event: &'static str, gone: bool) {
    cx.changed(key, Class::Set, event);
    if gone {
        cx.changed(key, Class::Generic, "del");
    }
}

const SADD: Command = Command {
    name: "SADD",
    arity: Arity::AtLeast(3),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Set,
    since: "1.0.0",
    syntax: "key member [member ...]",
    summary: "Adds members to a set, made if it is missing.",
    run: Run::Shard(sadd),
};

fn sadd(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    let (seed, limits) = (cx.ks.hash_seed(), cx.env.set_limits);
    change(cx, key, args, Adding { seed, limits, expected: args.len(), added: 0 })
}

/// SADD.
struct Adding {
    seed: u64,
    limits: SetLimits,
    /// Members of which the set was not told yet that they come.
    expected: usize,
    added: usize,
}

impl Many for Adding {
    type To = Set;
    const MAKES: bool = true;

    #[inline]
    fn change(&mut self, set: &mut Set, args: Args<'_>, _: &mut ReplyWriter<'_>) {
        let (seed, limits) = (self.seed, self.limits);
        let expected = std::mem::take(&mut self.expected);
        if expected > 0
            && let Some(first) = args.peek()
        {
            set.expect(seed, first, expected, limits);
        }
        self.added += args.rest().filter(|member| set.insert(seed, member, limits)).count();
    }

    #[inline]
    fn end(&mut self, cx: &mut Cx<'_>, key: &[u8], gone: Option<bool>) -> CmdResult {
        if self.added > 0 && gone.is_some() {
            cx.changed(key, Class::Set, "sadd");
        }
        cx.out.int(self.added as i64);
        Ok(())
    }
}

const SADDEX: Command = Command {
    name: "SADDEX",
    arity: Arity::AtLeast(4),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Set,
    since: "dragonfly",
    syntax: "key [KEEPTTL] seconds member [member ...]",
    summary: "Adds members that expire; those that are there get the new expiry unless KEEPTTL is given.",
    run: Run::Shard(saddex),
};

fn saddex(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    let keep = args.take_word("KEEPTTL");
    let expire_at = member_deadline(args.take()?, cx.ks.now)?;
    if args.is_empty() {
        return Err(CommandError::arity("saddex"));
    }
    let seed = cx.ks.hash_seed();
    change(cx, key, args, AddingUntil { seed, expire_at, keep, added: 0 })
}

/// SADDEX.
struct AddingUntil {
    seed: u64,
    expire_at: UnixMs,
    keep: bool,
    added: usize,
}

impl Many for AddingUntil {
    type To = Set;
    const MAKES: bool = true;

    fn change(&mut self, set: &mut Set, args: Args<'_>, _: &mut ReplyWriter<'_>) {
        let insert = |member: &&[u8]| set.insert_until(self.seed, member, self.expire_at, self.keep);
        self.added += args.rest().filter(insert).count();
    }

    fn end(&mut self, cx: &mut Cx<'_>, key: &[u8], gone: Option<bool>) -> CmdResult {
        if (self.added > 0 || !self.keep) && gone.is_some() {
            cx.changed(key, Class::Set, "sadd");
        }
        cx.out.int(self.added as i64);
        Ok(())
    }
}

/// FIELDEXPIRE of a set: for each member 1, or -2 if it is none.
pub(crate) fn set_lifetimes(cx: &mut Cx<'_>, key: &[u8], at: UnixMs, args: Args<'_>) -> CmdResult {
    let seed = cx.ks.hash_seed();
    change(cx, key, args, Lifetimes { seed, at, changed: 0 })
}

/// FIELDEXPIRE of a set.
struct Lifetimes {
    seed: u64,
    at: UnixMs,
    changed: usize,
}

impl Many for Lifetimes {
    type To = Set;
    const MAKES: bool = false;
    const ANSWERS: bool = true;

    fn change(&mut self, set: &mut Set, args: Args<'_>, out: &mut ReplyWriter<'_>) {
        for member in args.rest() {
            let is_member = set.set_expire(self.seed, member, Some(self.at));
            out.int(if is_member { 1 } else { -2 });
            self.changed += usize::from(is_member);
        }
    }

    fn answer_missing(&self, out: &mut ReplyWriter<'_>) {
        out.int(-2);
    }

    fn end(&mut self, cx: &mut Cx<'_>, key: &[u8], gone: Option<bool>) -> CmdResult {
        if self.changed > 0 && gone.is_some() {
            cx.changed(key, Class::Set, "sexpire");
        }
        Ok(())
    }
}

/// FIELDTTL of a set: seconds, rounded up; -1 if the member never expires, -3 if it is none.
pub(crate) fn member_ttl(set: &Set, member: &[u8], now: UnixMs) -> i64 {
    match set.expire_at(member) {
        Some(Some(at)) if at > now => (at - now).div_ceil(1000).cast_signed(),
        Some(None) => -1,
        Some(Some(_)) | None => -3,
    }
}

const SCARD: Command = Command {
    name: "SCARD",
    arity: Arity::Exactly(2),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Set,
    since: "1.0.0",
    syntax: "key",
    summary: "Returns the number of members.",
    run: Run::Shard(scard),
};

fn scard(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let len = cx.ks.view::<Set>(cx.db, args.take()?)?.map_or(0, Set::len);
    cx.out.int(len as i64);
    Ok(())
}

const SISMEMBER: Command = Command {
    name: "SISMEMBER",
    arity: Arity::Exactly(3),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Set,
    since: "1.0.0",
    syntax: "key member",
    summary: "Tells whether something is a member.",
    run: Run::Shard(sismember),
};

fn sismember(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, member) = (args.take()?, args.take()?);
    let is_member = cx.ks.view::<Set>(cx.db, key)?.is_some_and(|set| set.contains(member));
    cx.out.int(i64::from(is_member));
    Ok(())
}

const SMEMBERS: Command = Command {
    name: "SMEMBERS",
    arity: Arity::Exactly(2),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::BRIEF),
    spread: Spread::Single,
    group: Group::Set,
    since: "1.0.0",
    syntax: "key",
    summary: "Returns all members.",
    run: Run::Shard(smembers),
};

fn smembers(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let set = cx.ks.view::<Set>(cx.db, args.take()?)?;
    let out = &mut cx.out;
    let len = set.map_or(0, Set::len);
    out.set(len);
    let Some(set) = set else { return Ok(()) };
    let size = (len, len, set.heap_bytes());
    if !put_aside(&mut cx.later, out.proto(), set, size, || Walk::Members { cursor: 0 }) {
        set.iter().for_each(|member| reply_item(out, member));
    }
    Ok(())
}

const SMISMEMBER: Command = Command {
    name: "SMISMEMBER",
    arity: Arity::AtLeast(3),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Set,
    since: "6.2.0",
    syntax: "key member [member ...]",
    summary: "Tells for each of several whether it is a member.",
    run: Run::Shard(smismember),
};

fn smismember(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    answer(cx, key, args, Set::len, |set: Option<&Set>, member, out| {
        out.int(i64::from(set.is_some_and(|set| set.contains(member))));
    })
}

const SMOVE: Command = Command {
    name: "SMOVE",
    arity: Arity::Exactly(4),
    keys: Keys::Range { first: 1, last: 2, step: 1 },
    flags: Flags::WRITE.with(Flags::FAST),
    spread: Spread::Relay(&MOVE),
    group: Group::Set,
    since: "1.0.0",
    syntax: "source destination member",
    summary: "Moves a member from a set to another one.",
    run: Run::Shard(smove),
};

/// SMOVE in steps.
const MOVE: Relay = Relay { look, put, take };

fn smove(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    let Looked::Found(parcel) = look(cx, args)? else { return Ok(()) };
    let target = args.get(1).ok_or(CommandError::Syntax)?;
    cx.ks.peek::<Set>(cx.db, target)?;
    // In the order in which Redis announces it.
    if let Some(parcel) = &parcel {
        take(cx, args, parcel);
    }
    put(cx, args, parcel.as_ref())
}

fn look(cx: &mut Cx<'_>, mut args: Args<'_>) -> Result<Looked, CommandError> {
    let (source, target, member) = (args.take()?, args.take()?, args.take()?);
    let Some(set) = cx.ks.peek::<Set>(cx.db, source)? else {
        cx.out.int(0);
        return Ok(Looked::Answered);
    };
    let found = set.expire_at(member);
    if source == target {
        cx.out.int(i64::from(found.is_some()));
        return Ok(Looked::Answered);
    }
    Ok(Looked::Found(found.map(|expire_at| Parcel { element: member.to_vec(), expire_at })))
}

fn put(cx: &mut Cx<'_>, args: Args<'_>, parcel: Option<&Parcel>) -> CmdResult {
    let target = args.get(1).ok_or(CommandError::Syntax)?;
    let Some(Parcel { element, expire_at }) = parcel else {
        cx.ks.peek::<Set>(cx.db, target)?;
        cx.out.int(0);
        return Ok(());
    };
    let (seed, limits) = (cx.ks.hash_seed(), cx.env.set_limits);
    let edit = cx.ks.edit_or_new(cx.db, target, |set: &mut Set| match expire_at {
        Some(at) => set.insert_until(seed, element, *at, true),
        None => {
            set.expect(seed, element, 1, limits);
            set.insert(seed, element, limits)
        }
    })?;
    if edit.value {
        cx.changed(target, Class::Set, "sadd");
    }
    cx.out.int(1);
    Ok(())
}

fn take(cx: &mut Cx<'_>, args: Args<'_>, parcel: &Parcel) {
    let Some(source) = args.get(0) else { return };
    let edit = cx.ks.edit(cx.db, source, |set: &mut Set| set.remove(&parcel.element));
    if let Ok(Some(edit)) = edit
        && edit.value
    {
        announce_loss(cx, source, "srem", edit.gone);
    }
}

const SREM: Command = Command {
    name: "SREM",
    arity: Arity::AtLeast(3),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Set,
    since: "1.0.0",
    syntax: "key member [member ...]",
    summary: "Removes members; the key goes with the last one.",
    run: Run::Shard(srem),
};

fn srem(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    change(cx, key, args, Removing { removed: 0 })
}

/// SREM.
struct Removing {
    removed: usize,
}

impl Many for Removing {
    type To = Set;
    const MAKES: bool = false;

    #[inline]
    fn change(&mut self, set: &mut Set, args: Args<'_>, _: &mut ReplyWriter<'_>) {
        self.removed += args.rest().filter(|member| set.remove(member)).count();
    }

    #[inline]
    fn end(&mut self, cx: &mut Cx<'_>, key: &[u8], gone: Option<bool>) -> CmdResult {
        if let Some(gone) = gone
            && self.removed > 0
        {
            announce_loss(cx, key, "srem", gone);
        }
        cx.out.int(self.removed as i64);
        Ok(())
    }
}
