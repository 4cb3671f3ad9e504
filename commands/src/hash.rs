//! Hashes: fields one by one and all together. Random fields and walks are in `hash/pick.rs`, fields that expire in
//! `hash/lifetime.rs`.
//!
//! Looking a key up frees fields whose time has come and announces that; what is left of them does not exist for any
//! command, because every look into a hash takes the command's instant along.

mod lifetime;
mod pick;

use damselfly_keyspace::values::hash::{Hash, NotAdded, Rules};
use damselfly_keyspace::{Class, Expiry, Item, UnixMs};
use damselfly_protocol::ReplyWriter;
use damselfly_protocol::long_double::{IncrByFloatError, LongDouble, incr_by_float};

use crate::long::{Walk, put_aside};
use crate::many::{Many, answer, change};
use crate::{Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Run, Spread};
use lifetime::{
    HEXPIRE, HEXPIREAT, HEXPIRETIME, HGETDEL, HGETEX, HPERSIST, HPEXPIRE, HPEXPIREAT, HPEXPIRETIME, HPTTL,
    HSETEX, HTTL,
};
use pick::{HRANDFIELD, HSCAN};

pub(crate) use lifetime::{field_ttl, set_lifetimes};

pub(crate) const COMMANDS: &[&Command] = &[
    &HDEL,
    &HEXISTS,
    &HEXPIRE,
    &HEXPIREAT,
    &HEXPIRETIME,
    &HGET,
    &HGETALL,
    &HGETDEL,
    &HGETEX,
    &HINCRBY,
    &HINCRBYFLOAT,
    &HKEYS,
    &HLEN,
    &HMGET,
    &HMSET,
    &HPERSIST,
    &HPEXPIRE,
    &HPEXPIREAT,
    &HPEXPIRETIME,
    &HPTTL,
    &HRANDFIELD,
    &HSCAN,
    &HSET,
    &HSETEX,
    &HSETNX,
    &HSTRLEN,
    &HTTL,
    &HVALS,
];

/// What changes of hashes go by, for this command.
#[inline]
pub(crate) fn rules(cx: &Cx<'_>) -> Rules {
    Rules { now: cx.ks.now, seed: cx.ks.hash_seed(), limits: cx.env.hash_pack }
}

/// Replies with a field or a value.
#[inline]
fn reply_item(out: &mut ReplyWriter<'_>, item: Item<'_>) {
    match item {
        Item::Bytes(bytes) => out.bulk(bytes),
        Item::Int(number) => out.bulk_int(number),
    }
}

/// Replies with a value, or with nothing.
#[inline]
fn reply_value(out: &mut ReplyWriter<'_>, value: Option<Item<'_>>) {
    match value {
        Some(value) => reply_item(out, value),
        None => out.null(),
    }
}

const HDEL: Command = Command {
    name: "HDEL",
    arity: Arity::AtLeast(3),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Hash,
    since: "2.0.0",
    syntax: "key field [field ...]",
    summary: "Removes fields; counts those that were there.",
    run: Run::Shard(hdel),
};

fn hdel(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, now) = (args.take()?, cx.ks.now);
    change(cx, key, args, Removing { now, removed: 0 })
}

/// HDEL.
struct Removing {
    now: UnixMs,
    removed: usize,
}

impl Many for Removing {
    type To = Hash;
    const MAKES: bool = false;

    #[inline]
    fn change(&mut self, hash: &mut Hash, args: Args<'_>, _: &mut ReplyWriter<'_>) {
        self.removed += args.rest().filter(|field| hash.remove(field, self.now)).count();
    }

    #[inline]
    fn end(&mut self, cx: &mut Cx<'_>, key: &[u8], gone: Option<bool>) -> CmdResult {
        if let Some(gone) = gone
            && self.removed > 0
        {
            cx.changed(key, Class::Hash, "hdel");
            if gone {
                cx.changed(key, Class::Generic, "del");
            }
        }
        cx.out.int(self.removed as i64);
        Ok(())
    }
}

const HEXISTS: Command = Command {
    name: "HEXISTS",
    arity: Arity::Exactly(3),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Hash,
    since: "2.0.0",
    syntax: "key field",
    summary: "Returns whether a field exists.",
    run: Run::Shard(hexists),
};

fn hexists(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, field, now) = (args.take()?, args.take()?, cx.ks.now);
    let hash = cx.ks.view::<Hash>(cx.db, key)?;
    cx.out.int(i64::from(hash.is_some_and(|hash| hash.get(field, now).is_some())));
    Ok(())
}

const HGET: Command = Command {
    name: "HGET",
    arity: Arity::Exactly(3),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Hash,
    since: "2.0.0",
    syntax: "key field",
    summary: "Returns the value of a field.",
    run: Run::Shard(hget),
};

fn hget(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, field, now) = (args.take()?, args.take()?, cx.ks.now);
    let hash = cx.ks.view::<Hash>(cx.db, key)?;
    reply_value(&mut cx.out, hash.and_then(|hash| hash.get(field, now)));
    Ok(())
}

const HGETALL: Command = Command {
    name: "HGETALL",
    arity: Arity::Exactly(2),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::BRIEF),
    spread: Spread::Single,
    group: Group::Hash,
    since: "2.0.0",
    syntax: "key",
    summary: "Returns all fields and values.",
    run: Run::Shard(hgetall),
};

fn hgetall(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    reply_fields(cx, args, true, true)
}

/// Replies with the names or the values of all fields, or with both.
fn reply_fields(cx: &mut Cx<'_>, mut args: Args<'_>, names: bool, values: bool) -> CmdResult {
    let now = cx.ks.now;
    let hash = cx.ks.view::<Hash>(cx.db, args.take()?)?;
    let len = hash.map_or(0, |hash| hash.len(now));
    if names && values {
        cx.out.map(len);
    } else {
        cx.out.array(len);
    }
    let Some(hash) = hash else { return Ok(()) };
    let size = (len, len, hash.heap_bytes());
    let walk = || Walk::Fields { cursor: 0, now, names, values };
    if !put_aside(&mut cx.later, cx.out.proto(), hash, size, walk) {
        hash.for_each(now, |field| {
            if names {
                reply_item(&mut cx.out, field.field);
            }
            if values {
                reply_item(&mut cx.out, field.value);
            }
        });
    }
    Ok(())
}

const HINCRBY: Command = Command {
    name: "HINCRBY",
    arity: Arity::Exactly(4),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Hash,
    since: "2.0.0",
    syntax: "key field increment",
    summary: "Adds to the integer that a field holds, which is 0 if it is new.",
    run: Run::Shard(hincrby),
};

fn hincrby(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, field, by) = (args.take()?, args.take()?, args.take_int()?);
    let rules = rules(cx);
    let sum = cx.ks.edit_or_new(cx.db, key, |hash: &mut Hash| hash.add(&rules, field, by))?.value;
    let sum = sum.map_err(|error| match error {
        NotAdded::NotInteger => CommandError::text("ERR hash value is not an integer"),
        NotAdded::Overflow => CommandError::text("ERR increment or decrement would overflow"),
    })?;
    cx.changed(key, Class::Hash, "hincrby");
    cx.out.int(sum);
    Ok(())
}

const HINCRBYFLOAT: Command = Command {
    name: "HINCRBYFLOAT",
    arity: Arity::Exactly(4),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Hash,
    since: "2.6.0",
    syntax: "key field increment",
    summary: "Adds to the number that a field holds, which is 0 if it is new.",
    run: Run::Shard(hincrbyfloat),
};

fn hincrbyfloat(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    const NOT_FLOAT: CommandError = CommandError::text("ERR hash value is not a float");
    const INFINITE: CommandError = CommandError::text("ERR value is NaN or Infinity");
    const NO_SUM: CommandError = CommandError::text("ERR increment would produce NaN or Infinity");
    let (key, field, by) = (args.take()?, args.take()?, args.take()?);
    if LongDouble::parse(by).ok_or(CommandError::NotFloat)?.is_infinite() {
        return Err(INFINITE);
    }
    let rules = rules(cx);
    let edit = cx.ks.edit_or_new(cx.db, key, |hash: &mut Hash| {
        let sum = {
            let (value, mut digits) = (hash.get(field, rules.now), [0; 20]);
            incr_by_float(value.as_ref().map_or(b"0", |value| value.as_bytes(&mut digits)), by)
        };
        if let Ok(sum) = &sum {
            hash.set(&rules, field, sum.as_bytes(), Expiry::Keep);
        }
        sum
    })?;
    let sum = edit.value.map_err(|error| match error {
        IncrByFloatError::NotAFloat => NOT_FLOAT,
        IncrByFloatError::NotFinite => NO_SUM,
    })?;
    cx.changed(key, Class::Hash, "hincrbyfloat");
    cx.out.bulk(sum.as_bytes());
    Ok(())
}

const HKEYS: Command = Command {
    name: "HKEYS",
    arity: Arity::Exactly(2),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::BRIEF),
    spread: Spread::Single,
    group: Group::Hash,
    since: "2.0.0",
    syntax: "key",
    summary: "Returns all fields.",
    run: Run::Shard(hkeys),
};

fn hkeys(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    reply_fields(cx, args, true, false)
}

const HLEN: Command = Command {
    name: "HLEN",
    arity: Arity::Exactly(2),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Hash,
    since: "2.0.0",
    syntax: "key",
    summary: "Returns the number of fields.",
    run: Run::Shard(hlen),
};

fn hlen(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let now = cx.ks.now;
    let len = cx.ks.view::<Hash>(cx.db, args.take()?)?.map_or(0, |hash| hash.len(now));
    cx.out.int(len as i64);
    Ok(())
}

const HMGET: Command = Command {
    name: "HMGET",
    arity: Arity::AtLeast(3),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Hash,
    since: "2.0.0",
    syntax: "key field [field ...]",
    summary: "Returns the values of several fields.",
    run: Run::Shard(hmget),
};

fn hmget(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, now) = (args.take()?, cx.ks.now);
    answer(
        cx,
        key,
        args,
        |hash: &Hash| hash.len(0),
        move |hash, field, out| reply_value(out, hash.and_then(|hash| hash.get(field, now))),
    )
}

const HMSET: Command = Command {
    name: "HMSET",
    arity: Arity::AtLeast(4),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Hash,
    since: "2.0.0",
    syntax: "key field value [field value ...]",
    summary: "Gives fields values.",
    run: Run::Shard(hmset),
};

fn hmset(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    set(cx, args, "hmset", false)
}

/// HSET and HMSET. What had an expiry loses it.
#[inline]
fn set(cx: &mut Cx<'_>, mut args: Args<'_>, name: &str, counts: bool) -> CmdResult {
    let key = args.take()?;
    if !args.len().is_multiple_of(2) {
        return Err(CommandError::arity(name));
    }
    let rules = rules(cx);
    change(cx, key, args, Setting { rules, added: 0, counts })
}

struct Setting {
    rules: Rules,
    added: usize,
    /// Whether the reply is how many fields are new.
    counts: bool,
}

impl Many for Setting {
    type To = Hash;
    const MAKES: bool = true;

    #[inline]
    fn unit(&self) -> usize {
        2
    }

    #[inline]
    fn change(&mut self, hash: &mut Hash, mut args: Args<'_>, _: &mut ReplyWriter<'_>) {
        while let (Ok(field), Ok(value)) = (args.take(), args.take()) {
            self.added += usize::from(hash.set(&self.rules, field, value, Expiry::Never));
        }
    }

    #[inline]
    fn end(&mut self, cx: &mut Cx<'_>, key: &[u8], gone: Option<bool>) -> CmdResult {
        if gone.is_some() {
            cx.changed(key, Class::Hash, "hset");
        }
        match self.counts {
            true => cx.out.int(self.added as i64),
            false => cx.out.ok(),
        }
        Ok(())
    }
}

const HSET: Command = Command {
    name: "HSET",
    arity: Arity::AtLeast(4),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Hash,
    since: "2.0.0",
    syntax: "key field value [field value ...]",
    summary: "Gives fields values; counts those that are new.",
    run: Run::Shard(hset),
};

fn hset(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    set(cx, args, "hset", true)
}

const HSETNX: Command = Command {
    name: "HSETNX",
    arity: Arity::Exactly(4),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Hash,
    since: "2.0.0",
    syntax: "key field value",
    summary: "Gives a field a value if it does not exist.",
    run: Run::Shard(hsetnx),
};

fn hsetnx(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, field, value) = (args.take()?, args.take()?, args.take()?);
    let rules = rules(cx);
    let edit = cx.ks.edit_or_new(cx.db, key, |hash: &mut Hash| {
        hash.get(field, rules.now).is_none() && hash.set(&rules, field, value, Expiry::Never)
    })?;
    if edit.value {
        cx.changed(key, Class::Hash, "hset");
    }
    cx.out.int(i64::from(edit.value));
    Ok(())
}

const HSTRLEN: Command = Command {
    name: "HSTRLEN",
    arity: Arity::Exactly(3),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Hash,
    since: "3.2.0",
    syntax: "key field",
    summary: "Returns the length of the value of a field.",
    run: Run::Shard(hstrlen),
};

fn hstrlen(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, field, now) = (args.take()?, args.take()?, cx.ks.now);
    let hash = cx.ks.view::<Hash>(cx.db, key)?;
    let value = hash.and_then(|hash| hash.get(field, now));
    cx.out.int(value.map_or(0, |value| value.as_bytes(&mut [0; 20]).len()) as i64);
    Ok(())
}

const HVALS: Command = Command {
    name: "HVALS",
    arity: Arity::Exactly(2),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::BRIEF),
    spread: Spread::Single,
    group: Group::Hash,
    since: "2.0.0",
    syntax: "key",
    summary: "Returns all values.",
    run: Run::Shard(hvals),
};

fn hvals(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    reply_fields(cx, args, false, true)
}
