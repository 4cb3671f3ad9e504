//! The JSON commands that look.

use damselfly_json::{Document, Format, GROWTH_MAX, JsonError, Path, Value, View, Writing};
use damselfly_keyspace::{Collection, Object, Value as Held};
use damselfly_protocol::number::Decimal;
use damselfly_protocol::{Argv, Proto, ReplyWriter};

use super::{Legacy, Missing, reply, reply_len, reply_number, reply_one, take_key_and_path, take_path, view};
use crate::cx::Str;
use crate::long::Written;
use crate::task::{Rest, Task};
use crate::{Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Merge, Run, Spread};

pub(super) const ARRINDEX: Command = Command {
    name: "JSON.ARRINDEX",
    arity: Arity::AtLeast(4),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Json,
    since: "1.0.0",
    syntax: "key path value [start [stop]]",
    summary: "Finds a value in arrays.",
    run: Run::Shard(arrindex),
};

fn arrindex(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, path) = (args.take()?, take_path(&mut args)?);
    let wanted = Document::parse(args.take()?).map_err(|_| CommandError::Syntax)?;
    let start = if args.is_empty() { 0 } else { args.take_int()? };
    let stop = if args.is_empty() { 0 } else { args.take_int()? };
    args.end()?;
    let Some(document) = view(cx.ks, cx.db, key, &path, Missing::Error)? else { return Ok(()) };
    let places = document.array_index(&path, wanted.root(), start, stop)?;
    reply(&mut cx.out, &path, &places, Legacy::LastOrError, |out, place| out.int(*place))
}

pub(super) const ARRLEN: Command = Command {
    name: "JSON.ARRLEN",
    arity: Arity::AtLeast(2),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Json,
    since: "1.0.0",
    syntax: "key [path]",
    summary: "Returns the lengths of arrays.",
    run: Run::Shard(arrlen),
};

fn arrlen(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, path) = take_key_and_path(&mut args)?;
    let Some(document) = view(cx.ks, cx.db, key, &path, Missing::Nil)? else {
        cx.out.null();
        return Ok(());
    };
    let lengths = document.array_lengths(&path)?;
    reply(&mut cx.out, &path, &lengths, Legacy::First, reply_len)
}

pub(super) const DEBUG: Command = Command {
    name: "JSON.DEBUG",
    arity: Arity::AtLeast(2),
    keys: Keys::By(debug_key),
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Json,
    since: "1.0.0",
    syntax: "FIELDS key [path] | HELP | MEMORY key [path]",
    summary: "Returns how many values a document has, or how many bytes it takes.",
    run: Run::Shard(debug),
};

fn debug_key(argv: &Argv<'_>, positions: &mut Vec<usize>) {
    if argv.len() > 2 {
        positions.push(2);
    }
}

fn debug(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    const HELP: [&str; 3] = [
        "JSON.DEBUG MEMORY <key> [path] - bytes that the values at the path take; the root if there is no path",
        "JSON.DEBUG FIELDS <key> [path] - how many values there are in the values at the path",
        "JSON.DEBUG HELP - this text",
    ];
    let word = args.take()?;
    let name = word.to_ascii_lowercase();
    let measure = match name.as_slice() {
        b"help" => {
            cx.out.array(HELP.len());
            HELP.iter().for_each(|line| cx.out.bulk(line.as_bytes()));
            return Ok(());
        }
        b"memory" => Document::memory,
        b"fields" => Document::fields,
        _ => return Err(CommandError::unknown_subcommand("JSON.DEBUG", word)),
    };
    let (key, path) = take_key_and_path(&mut args)?;
    let Some(document) = view(cx.ks, cx.db, key, &path, Missing::Error)? else { return Ok(()) };
    let numbers: Vec<_> = measure(document, &path)?.into_iter().map(Some).collect();
    reply(&mut cx.out, &path, &numbers, Legacy::LastOrNil, reply_len)
}

pub(super) const GET: Command = Command {
    name: "JSON.GET",
    arity: Arity::AtLeast(2),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Json,
    since: "1.0.0",
    syntax: "key [INDENT indent] [NEWLINE newline] [SPACE space] [path [path ...]]",
    summary: "Returns a document or parts of it as text.",
    run: Run::Shard(get),
};

fn get(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    let (mut format, mut paths) = (Format::default(), Vec::new());
    while let Some(arg) = args.peek() {
        if args.take_word("INDENT") {
            format.indent = args.take()?;
        } else if args.take_word("NEWLINE") {
            format.newline = args.take()?;
        } else if args.take_word("SPACE") {
            format.space = args.take()?;
        } else if !args.take_word("NOESCAPE") {
            let path = take_path(&mut args)?;
            // A text that is no UTF-8 is no path either.
            paths.push((std::str::from_utf8(arg).expect("a path"), path));
        }
    }
    let Some(loc) = cx.read(key) else {
        cx.out.null();
        return Ok(());
    };
    let parsed;
    let document = match cx.ks.value(cx.db, loc) {
        Held::Object(Object::Json(document)) => document,
        Held::Object(_) => return Err(CommandError::WrongType),
        Held::Int(number) => {
            parsed = parse_string(Str::Int(number))?;
            &parsed
        }
        Held::Str(bytes) => {
            parsed = parse_string(Str::Bytes(bytes))?;
            &parsed
        }
    };
    if let Some(place) = &mut cx.later
        && document.heap_bytes() > LONG_FROM
        && paths.len() < 2
    {
        let value = match &paths[..] {
            [(_, path)] => document.shown(path)?,
            _ => document.root().clone(),
        };
        // Most look for little in a big document.
        if matches!(value.view(), View::Array([_, _, ..]) | View::Object([_, ..]))
            || matches!(value.view(), View::Array([one]) if is_container(one))
        {
            let format = if paths.is_empty() { Format::default() } else { format };
            // Values may match often, and parts of them again; of one there is no more than the document has.
            let is_one = paths.first().is_none_or(|(_, path)| path.is_legacy());
            let len_max = if is_one { usize::MAX } else { GROWTH_MAX };
            **place = Some(Rest::Task(Box::new(Getting {
                document: document.clone(),
                writing: Writing::new(value),
                format: [format.indent, format.newline, format.space].map(Into::into),
                text: Vec::new(),
                len: 0,
                len_max,
                written: Written::new(cx.out.proto()),
            })));
            return Ok(());
        }
    }
    if paths.is_empty() {
        cx.out.bulk(&document.to_json());
        return Ok(());
    }
    let mut text = Vec::new();
    document.write_get(&paths, &format, &mut text)?;
    cx.out.bulk(&text);
    Ok(())
}

/// Bytes of a document from which it is written in steps: some hundred microseconds' worth.
const LONG_FROM: usize = 256 * 1024;

/// Values that are written in one step.
const VALUES_PER_STEP: usize = 256;

fn is_container(value: &Value) -> bool {
    matches!(value.view(), View::Array([_, ..]) | View::Object([_, ..]))
}

/// A JSON.GET of much.
struct Getting {
    /// What it is about, so that all of it is freed in steps if nobody else has it any more.
    document: Document,
    writing: Writing,
    /// Indentation, line's end and space.
    format: [Box<[u8]>; 3],
    text: Vec<u8>,
    len: usize,
    len_max: usize,
    written: Written,
}

impl Task for Getting {
    fn target(&self) -> Option<&[u8]> {
        None
    }

    fn step(&mut self) -> bool {
        let [indent, newline, space] = &self.format;
        let format = Format { indent, newline, space };
        let is_whole = self.writing.write_some(VALUES_PER_STEP, &format, &mut self.text);
        self.len += self.text.len();
        self.written.write(|out| out.raw(&self.text));
        self.text.clear();
        is_whole || self.len > self.len_max
    }

    fn finish(&mut self, cx: &mut Cx<'_>) -> CmdResult {
        if self.len > self.len_max {
            return Err(JsonError::TooLarge.into());
        }
        cx.out.bulk_head(self.len);
        self.written.write(|out| out.raw(b"\r\n"));
        self.written.reply(cx);
        Ok(())
    }

    fn into_held(self: Box<Self>) -> Vec<Object> {
        let Getting { document, writing, written, .. } = *self;
        drop(writing);
        vec![document.wrap(), written.into_held()]
    }
}

/// A string is as good as a document to JSON.GET if it is JSON.
fn parse_string(string: Str<'_>) -> Result<Document, CommandError> {
    Document::parse(string.bytes(&mut Decimal::new(0))).map_err(|_| CommandError::WrongType)
}

pub(super) const MGET: Command = Command {
    name: "JSON.MGET",
    arity: Arity::AtLeast(3),
    keys: Keys::Range { first: 1, last: -2, step: 1 },
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Split { step: 1, merge: Merge::PerKey },
    group: Group::Json,
    since: "1.0.0",
    syntax: "key [key ...] path",
    summary: "Returns the values at a path of several documents.",
    run: Run::Shard(mget),
};

fn mget(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    let mut keys = args.rest();
    let path = Path::parse(keys.next_back().ok_or(CommandError::Syntax)?)?;
    cx.out.array(keys.len());
    for key in keys {
        // A key of another type has no values at any path.
        let document = cx.ks.view::<Document>(cx.db, key).unwrap_or(None);
        match document.map(|document| document.mget(&path)).transpose()?.flatten() {
            Some(text) => cx.out.bulk(&text),
            None => cx.out.null(),
        }
    }
    Ok(())
}

pub(super) const OBJKEYS: Command = Command {
    name: "JSON.OBJKEYS",
    arity: Arity::AtLeast(2),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Json,
    since: "1.0.0",
    syntax: "key [path]",
    summary: "Returns the names of the members of objects.",
    run: Run::Shard(objkeys),
};

fn objkeys(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, path) = take_key_and_path(&mut args)?;
    let Some(document) = view(cx.ks, cx.db, key, &path, Missing::NilIfLegacy)? else {
        cx.out.null();
        return Ok(());
    };
    // What is no object has no names, so nothing is of the wrong type.
    let names: Vec<_> =
        document.object_keys(&path)?.into_iter().map(|names| Some(names.unwrap_or_default())).collect();
    reply(&mut cx.out, &path, &names, Legacy::First, |out, names| {
        out.array(names.len());
        names.iter().for_each(|name| out.bulk(name.as_bytes()));
    })
}

pub(super) const OBJLEN: Command = Command {
    name: "JSON.OBJLEN",
    arity: Arity::AtLeast(2),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Json,
    since: "1.0.0",
    syntax: "key [path]",
    summary: "Returns the numbers of members of objects.",
    run: Run::Shard(objlen),
};

fn objlen(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, path) = take_key_and_path(&mut args)?;
    let Some(document) = view(cx.ks, cx.db, key, &path, Missing::NilIfLegacy)? else {
        cx.out.null();
        return Ok(());
    };
    let lengths = document.object_lengths(&path)?;
    reply(&mut cx.out, &path, &lengths, Legacy::First, reply_len)
}

pub(super) const RESP: Command = Command {
    name: "JSON.RESP",
    arity: Arity::AtLeast(2),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Json,
    since: "1.0.0",
    syntax: "key [path]",
    summary: "Returns values in the terms of the protocol.",
    run: Run::Shard(resp),
};

fn resp(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, path) = take_key_and_path(&mut args)?;
    let Some(document) = view(cx.ks, cx.db, key, &path, Missing::Error)? else { return Ok(()) };
    let (matches, out) = (document.get(&path)?, &mut cx.out);
    if path.is_legacy() {
        match matches.last() {
            Some(value) => reply_one(out, |out| reply_value(out, value)),
            None => out.null(),
        }
        return Ok(());
    }
    let start = out.len();
    out.array(matches.len());
    for value in matches {
        // A value may match together with all that is around it, so the matches alone are no bound.
        if out.len() - start > GROWTH_MAX {
            return Err(JsonError::TooLarge.into());
        }
        reply_value(out, value);
    }
    Ok(())
}

/// The recursion is as deep as the document.
fn reply_value(out: &mut ReplyWriter<'_>, value: &Value) {
    match value.view() {
        View::Null => out.null(),
        View::Bool(flag) => out.simple(if flag { "true" } else { "false" }),
        View::Int(_) | View::Uint(_) | View::Double(_) | View::Big(_) => reply_number(out, value),
        View::Text(text) => out.bulk(text.as_bytes()),
        View::Array(elements) => {
            // The types of RESP3 tell an array from an object, those of RESP2 do not.
            if out.proto() == Proto::Resp3 {
                out.array(elements.len());
            } else {
                out.array(elements.len() + 1);
                out.simple("[");
            }
            elements.iter().for_each(|element| reply_value(out, element));
        }
        View::Object(members) => {
            out.array(members.len() + 1);
            out.simple("{");
            for member in members {
                out.array(2);
                out.bulk(member.name().as_bytes());
                reply_value(out, member.value());
            }
        }
    }
}

pub(super) const STRLEN: Command = Command {
    name: "JSON.STRLEN",
    arity: Arity::AtLeast(2),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Json,
    since: "1.0.0",
    syntax: "key [path]",
    summary: "Returns the lengths of strings in bytes.",
    run: Run::Shard(strlen),
};

fn strlen(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, path) = take_key_and_path(&mut args)?;
    let Some(document) = view(cx.ks, cx.db, key, &path, Missing::NilIfLegacy)? else {
        cx.out.null();
        return Ok(());
    };
    let lengths = document.string_lengths(&path)?;
    reply(&mut cx.out, &path, &lengths, Legacy::First, reply_len)
}

pub(super) const TYPE: Command = Command {
    name: "JSON.TYPE",
    arity: Arity::AtLeast(2),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Json,
    since: "1.0.0",
    syntax: "key [path]",
    summary: "Returns the types of values.",
    run: Run::Shard(r#type),
};

fn r#type(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, path) = take_key_and_path(&mut args)?;
    let Some(document) = view(cx.ks, cx.db, key, &path, Missing::Nil)? else {
        cx.out.null();
        return Ok(());
    };
    let types: Vec<_> = document.types(&path)?.into_iter().map(Some).collect();
    let nested = cx.out.proto() == Proto::Resp3 && !path.is_legacy();
    reply(&mut cx.out, &path, &types, Legacy::LastOrNil, |out, name| {
        if nested {
            out.array(1);
        }
        out.bulk(name.as_bytes());
    })
}
