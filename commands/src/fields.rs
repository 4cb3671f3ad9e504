//! Dragonfly's commands about when elements of a collection expire, whatever its type.
//!
//! What they do to each type is in the file of the type; here the type is found out. Types whose elements cannot
//! expire are answered as the wrong one.

use damselfly_keyspace::{Object, Value};

use crate::lifetime::member_deadline;
use crate::{Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Run, Spread, hash, set};

pub(crate) const COMMANDS: &[&Command] = &[&FIELDEXPIRE, &FIELDTTL];

const FIELDEXPIRE: Command = Command {
    name: "FIELDEXPIRE",
    arity: Arity::AtLeast(4),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Generic,
    since: "dragonfly",
    syntax: "key seconds field [field ...]",
    summary: "Sets the time to live of elements in seconds.",
    run: Run::Shard(fieldexpire),
};

fn fieldexpire(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, now) = (args.take()?, cx.ks.now);
    let at = member_deadline(args.take()?, now)?;
    match cx.find(key).map(|loc| cx.ks.value(cx.db, loc)) {
        // A missing key has no fields, which the hash's function says for all types.
        None | Some(Value::Object(Object::Hash(_))) => hash::set_lifetimes(cx, key, at, args),
        Some(Value::Object(Object::Set(_))) => set::set_lifetimes(cx, key, at, args),
        Some(_) => Err(CommandError::WrongType),
    }
}

const FIELDTTL: Command = Command {
    name: "FIELDTTL",
    arity: Arity::Exactly(3),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Generic,
    since: "dragonfly",
    syntax: "key field",
    summary: "Returns the time to live of an element in seconds.",
    run: Run::Shard(fieldttl),
};

fn fieldttl(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, field, now) = (args.take()?, args.take()?, cx.ks.now);
    let ttl = match cx.read(key).map(|loc| cx.ks.value(cx.db, loc)) {
        None => -2,
        Some(Value::Object(Object::Hash(hash))) => hash::field_ttl(hash, field, now),
        Some(Value::Object(Object::Set(set))) => set::member_ttl(set, field, now),
        Some(_) => return Err(CommandError::WrongType),
    };
    cx.out.int(ttl);
    Ok(())
}
