//! The JSON commands that change documents. One that fails has changed nothing.

use std::collections::BTreeMap;

use damselfly_json::{
    Arithmetic, Condition, Deleted, Document, JsonError, Path, Value, View, numbers_to_json,
};
use damselfly_keyspace::{Class, Collection, Expiry, Type};
use damselfly_protocol::Proto;

use super::{
    Legacy, WRONG_JSON_TYPE, reply, reply_len, reply_number, take_key_and_path, take_path, take_values,
};
use crate::{Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Run, Spread};

/// Changes the document under a key, which must be there.
fn edit<R>(
    cx: &mut Cx<'_>,
    key: &[u8],
    change: impl FnOnce(&mut Document) -> Result<R, JsonError>,
) -> Result<R, CommandError> {
    let edit = cx.ks.edit(cx.db, key, change)?.ok_or(CommandError::NoSuchKey)?;
    Ok(edit.value?)
}

/// Changes the matches of a path. The change is announced if any match was of the right type.
fn edit_matches<R>(
    cx: &mut Cx<'_>,
    key: &[u8],
    event: &'static str,
    change: impl FnOnce(&mut Document) -> Result<Vec<Option<R>>, JsonError>,
) -> Result<Vec<Option<R>>, CommandError> {
    let results = edit(cx, key, change)?;
    if results.iter().any(Option::is_some) {
        cx.changed(key, Class::Module, event);
    }
    Ok(results)
}

/// Puts a document in place of what a key holds. It does not expire, whatever was there before.
fn store(cx: &mut Cx<'_>, key: &[u8], document: Document) {
    cx.set_object(key, document.wrap(), Expiry::Never);
}

/// Whether a key is there for a command that would replace all of it: a string may be replaced, as SET replaces a
/// document.
fn is_present(cx: &mut Cx<'_>, key: &[u8]) -> Result<bool, CommandError> {
    let Some(loc) = cx.find(key) else { return Ok(false) };
    match cx.ks.table(cx.db).type_at(loc) {
        Type::Json | Type::String => Ok(true),
        _ => Err(CommandError::WrongType),
    }
}

pub(super) const ARRAPPEND: Command = Command {
    name: "JSON.ARRAPPEND",
    arity: Arity::AtLeast(4),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Json,
    since: "1.0.0",
    syntax: "key path value [value ...]",
    summary: "Appends values to arrays.",
    run: Run::Shard(arrappend),
};

fn arrappend(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, path) = (args.take()?, take_path(&mut args)?);
    let values = take_values(&mut args)?;
    let lengths = edit_matches(cx, key, "json.arrappend", |doc| doc.append_elements(&path, &values))?;
    reply(&mut cx.out, &path, &lengths, Legacy::LastOrError, reply_len)
}

pub(super) const ARRINSERT: Command = Command {
    name: "JSON.ARRINSERT",
    arity: Arity::AtLeast(5),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Json,
    since: "1.0.0",
    syntax: "key path index value [value ...]",
    summary: "Inserts values into arrays.",
    run: Run::Shard(arrinsert),
};

fn arrinsert(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, path, index) = (args.take()?, take_path(&mut args)?, args.take_int()?);
    let values = take_values(&mut args)?;
    let lengths =
        edit_matches(cx, key, "json.arrinsert", |doc| doc.insert_elements(&path, Some(index), &values))?;
    reply(&mut cx.out, &path, &lengths, Legacy::LastOrError, reply_len)
}

pub(super) const ARRPOP: Command = Command {
    name: "JSON.ARRPOP",
    arity: Arity::AtLeast(2),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Json,
    since: "1.0.0",
    syntax: "key [path [index]]",
    summary: "Removes elements of arrays and returns them.",
    run: Run::Shard(arrpop),
};

fn arrpop(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, path) = (args.take()?, take_path(&mut args)?);
    let index = if args.is_empty() { -1 } else { args.take_int()? };
    args.end()?;
    let popped = edit(cx, key, |document| document.pop(&path, index))?;
    // An empty array gives nothing, as what is no array.
    let popped: Vec<Option<Value>> = popped.into_iter().map(Option::flatten).collect();
    if popped.iter().any(Option::is_some) {
        cx.changed(key, Class::Module, "json.arrpop");
    }
    reply(&mut cx.out, &path, &popped, Legacy::LastOrNil, |out, value| out.bulk(&value.to_json()))
}

pub(super) const ARRTRIM: Command = Command {
    name: "JSON.ARRTRIM",
    arity: Arity::Exactly(5),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Json,
    since: "1.0.0",
    syntax: "key path start stop",
    summary: "Removes the elements of arrays outside of a range.",
    run: Run::Shard(arrtrim),
};

fn arrtrim(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, path) = (args.take()?, take_path(&mut args)?);
    let (start, stop) = (args.take_int()?, args.take_int()?);
    let lengths = edit_matches(cx, key, "json.arrtrim", |document| document.trim(&path, start, stop))?;
    reply(&mut cx.out, &path, &lengths, Legacy::LastOrError, reply_len)
}

pub(super) const CLEAR: Command = Command {
    name: "JSON.CLEAR",
    arity: Arity::AtLeast(2),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Json,
    since: "2.0.0",
    syntax: "key [path]",
    summary: "Empties arrays and objects and makes numbers zero.",
    run: Run::Shard(clear),
};

fn clear(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, path) = take_key_and_path(&mut args)?;
    let cleared = edit(cx, key, |document| document.clear(&path))?;
    if cleared > 0 {
        cx.changed(key, Class::Module, "json.clear");
    }
    cx.out.int(cleared as i64);
    Ok(())
}

pub(super) const DEL: Command = Command {
    name: "JSON.DEL",
    arity: Arity::AtLeast(2),
    keys: Keys::First,
    flags: Flags::WRITE,
    spread: Spread::Single,
    group: Group::Json,
    since: "1.0.0",
    syntax: "key [path]",
    summary: "Deletes values, or the key with all of them.",
    run: Run::Shard(del),
};

fn del(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, path) = take_key_and_path(&mut args)?;
    let Some(edit) = cx.ks.edit(cx.db, key, |document: &mut Document| document.delete(&path))? else {
        cx.out.int(0);
        return Ok(());
    };
    match edit.value? {
        Deleted::Root => {
            cx.ks.remove(cx.db, key);
            cx.changed(key, Class::Module, "json.del");
            cx.changed(key, Class::Generic, "del");
            cx.out.int(1);
        }
        Deleted::Values(count) => {
            if count > 0 {
                cx.changed(key, Class::Module, "json.del");
            }
            cx.out.int(count as i64);
        }
    }
    Ok(())
}

pub(super) const FORGET: Command = Command {
    name: "JSON.FORGET",
    arity: Arity::AtLeast(2),
    keys: Keys::First,
    flags: Flags::WRITE,
    spread: Spread::Single,
    group: Group::Json,
    since: "1.0.0",
    syntax: "key [path]",
    summary: "Another name of JSON.DEL.",
    run: Run::Shard(del),
};

pub(super) const MERGE: Command = Command {
    name: "JSON.MERGE",
    arity: Arity::Exactly(4),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Json,
    since: "2.6.0",
    syntax: "key path value",
    summary: "Merges a value into others: members that are null are removed.",
    run: Run::Shard(merge),
};

fn merge(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, path) = (args.take()?, take_path(&mut args)?);
    let patch = Document::parse(args.take()?)?;
    if cx.find(key).is_none() {
        if !path.is_root() {
            return Err(CommandError::Syntax);
        }
        store(cx, key, patch);
    } else {
        edit(cx, key, |document| document.merge(&path, &patch))?;
    }
    cx.changed(key, Class::Module, "json.merge");
    cx.out.ok();
    Ok(())
}

pub(super) const MSET: Command = Command {
    name: "JSON.MSET",
    arity: Arity::AtLeast(4),
    keys: Keys::Range { first: 1, last: -1, step: 3 },
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Together,
    group: Group::Json,
    since: "2.6.0",
    syntax: "key path value [key path value ...]",
    summary: "Puts values into several documents, or into none if one of them cannot be put.",
    run: Run::Shard(mset),
};

fn mset(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    if !args.len().is_multiple_of(3) {
        return Err(CommandError::arity("json.mset"));
    }
    // What the documents will be. A copy of a document is a pointer, so what is not changed is not copied.
    let mut documents = BTreeMap::<&[u8], (Document, Expiry)>::new();
    while !args.is_empty() {
        let (key, path) = (args.take()?, take_path(&mut args)?);
        let value = Document::parse(args.take()?)?;
        if path.is_root() {
            is_present(cx, key)?;
            documents.insert(key, (value, Expiry::Never));
        } else if let Some((document, _)) = documents.get_mut(key) {
            document.set(&path, value, Condition::Always)?;
        } else {
            let present = cx.ks.peek::<Document>(cx.db, key)?;
            let mut document = present.ok_or(CommandError::NoSuchKey)?.clone();
            document.set(&path, value, Condition::Always)?;
            documents.insert(key, (document, Expiry::Keep));
        }
    }
    for (key, (document, expiry)) in documents {
        cx.set_object(key, document.wrap(), expiry);
        cx.changed(key, Class::Module, "json.mset");
    }
    cx.out.ok();
    Ok(())
}

pub(super) const NUMINCRBY: Command = Command {
    name: "JSON.NUMINCRBY",
    arity: Arity::Exactly(4),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Json,
    since: "1.0.0",
    syntax: "key path value",
    summary: "Adds to numbers.",
    run: Run::Shard(numincrby),
};

fn numincrby(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    calculate(cx, args, Arithmetic::Add, "json.numincrby")
}

pub(super) const NUMMULTBY: Command = Command {
    name: "JSON.NUMMULTBY",
    arity: Arity::Exactly(4),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Json,
    since: "1.0.0",
    syntax: "key path value",
    summary: "Multiplies numbers.",
    run: Run::Shard(nummultby),
};

fn nummultby(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    calculate(cx, args, Arithmetic::Multiply, "json.nummultby")
}

/// The reply is text in RESP2, which has no numbers with fractions, and numbers in RESP3.
fn calculate(cx: &mut Cx<'_>, mut args: Args<'_>, operation: Arithmetic, event: &'static str) -> CmdResult {
    let (key, path, number) = (args.take()?, take_path(&mut args)?, args.take()?);
    let results = edit_matches(cx, key, event, |document| document.arithmetic(&path, operation, number))?;
    if cx.out.proto() == Proto::Resp3 {
        return reply(&mut cx.out, &path, &results, Legacy::LastOrError, reply_number);
    }
    if path.is_legacy() {
        let number = results.iter().flatten().next_back().ok_or(WRONG_JSON_TYPE)?;
        cx.out.bulk(&number.to_json());
    } else {
        cx.out.bulk(&numbers_to_json(&results));
    }
    Ok(())
}

pub(super) const SET: Command = Command {
    name: "JSON.SET",
    arity: Arity::AtLeast(4),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Json,
    since: "1.0.0",
    syntax: "key path value [NX | XX]",
    summary: "Puts a value into a document, or a document into a key.",
    run: Run::Shard(set),
};

fn set(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, path) = (args.take()?, take_path(&mut args)?);
    let text = args.take()?;
    let condition = if args.take_word("NX") {
        Condition::IfAbsent
    } else if args.take_word("XX") {
        Condition::IfPresent
    } else {
        Condition::Always
    };
    args.end()?;
    let done = if path.is_root() {
        let allowed = match condition {
            Condition::Always => is_present(cx, key).map(|_| true),
            Condition::IfAbsent => is_present(cx, key).map(|present| !present),
            Condition::IfPresent => is_present(cx, key),
        }?;
        let document = Document::parse(text)?;
        if allowed {
            store(cx, key, document);
        }
        allowed
    } else {
        let value = Document::parse(text)?;
        edit(cx, key, |document| document.set(&path, value, condition))?
    };
    if done {
        cx.changed(key, Class::Module, "json.set");
        cx.out.ok();
    } else {
        cx.out.null();
    }
    Ok(())
}

pub(super) const STRAPPEND: Command = Command {
    name: "JSON.STRAPPEND",
    arity: Arity::AtLeast(3),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Json,
    since: "1.0.0",
    syntax: "key [path] value",
    summary: "Appends to strings.",
    run: Run::Shard(strappend),
};

fn strappend(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    const NO_STRING: CommandError = CommandError::text("ERR expected string value");
    let key = args.take()?;
    let path = if args.len() == 1 { Path::parse(b"")? } else { take_path(&mut args)? };
    let tail = args.take()?;
    args.end()?;
    let tail = Document::parse(tail).map_err(|_| NO_STRING)?;
    let View::Text(tail) = tail.root().view() else { return Err(NO_STRING) };
    let lengths = edit_matches(cx, key, "json.strappend", |document| document.append_string(&path, tail))?;
    reply(&mut cx.out, &path, &lengths, Legacy::LastOrError, reply_len)
}

pub(super) const TOGGLE: Command = Command {
    name: "JSON.TOGGLE",
    arity: Arity::Exactly(3),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Json,
    since: "2.0.0",
    syntax: "key path",
    summary: "Makes true of false and false of true.",
    run: Run::Shard(toggle),
};

fn toggle(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, path) = take_key_and_path(&mut args)?;
    let flags = edit_matches(cx, key, "json.toggle", |document| document.toggle(&path))?;
    let legacy = path.is_legacy();
    reply(&mut cx.out, &path, &flags, Legacy::LastOrError, |out, flag| match (legacy, flag) {
        (true, true) => out.bulk(b"true"),
        (true, false) => out.bulk(b"false"),
        (false, flag) => out.int(i64::from(*flag)),
    })
}
