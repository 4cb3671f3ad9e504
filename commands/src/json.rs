//! JSON documents: whole, by path, and from key to key.
//!
//! What the commands do to a document is in the crate `damselfly-json`, whose head has the table of reply shapes. Here
//! is what lies around it: keys, arguments, replies. `read.rs` has the commands that look, `write.rs` those that change.
//!
//! A path that begins with `$` is answered with an array, an item for each match; an older path with one item. That
//! is the same for all commands, so one function knows it: [`reply`].

mod read;
mod write;

use damselfly_json::{Document, JsonError, ParseError, Path, PathError, Value, View};
use damselfly_keyspace::Keyspace;
use damselfly_protocol::{Proto, ReplyWriter};

use crate::{Args, CmdResult, Command, CommandError};

pub(crate) const COMMANDS: &[&Command] = &[
    &write::ARRAPPEND,
    &read::ARRINDEX,
    &write::ARRINSERT,
    &read::ARRLEN,
    &write::ARRPOP,
    &write::ARRTRIM,
    &write::CLEAR,
    &read::DEBUG,
    &write::DEL,
    &write::FORGET,
    &read::GET,
    &write::MERGE,
    &read::MGET,
    &write::MSET,
    &write::NUMINCRBY,
    &write::NUMMULTBY,
    &read::OBJKEYS,
    &read::OBJLEN,
    &read::RESP,
    &write::SET,
    &write::STRAPPEND,
    &read::STRLEN,
    &write::TOGGLE,
    &read::TYPE,
];

/// A match of a legacy path that is of the wrong type, where that is an error.
const WRONG_JSON_TYPE: CommandError = CommandError::text("WRONGTYPE wrong JSON type of path value");

impl From<PathError> for CommandError {
    fn from(_: PathError) -> CommandError {
        CommandError::Syntax
    }
}

impl From<ParseError> for CommandError {
    fn from(error: ParseError) -> CommandError {
        CommandError::owned(format!("ERR {error}"))
    }
}

impl From<JsonError> for CommandError {
    fn from(error: JsonError) -> CommandError {
        match error {
            JsonError::NotNumber => CommandError::WrongType,
            JsonError::NoPlace => CommandError::Syntax,
            error => CommandError::owned(format!("ERR {error}")),
        }
    }
}

/// The next argument as a path, the root in the older form if there is none.
fn take_path(args: &mut Args<'_>) -> Result<Path, CommandError> {
    let text = if args.is_empty() { &b""[..] } else { args.take()? };
    Ok(Path::parse(text)?)
}

/// A key and a path behind it that may be missing, and nothing more.
fn take_key_and_path<'a>(args: &mut Args<'a>) -> Result<(&'a [u8], Path), CommandError> {
    let key = args.take()?;
    let path = take_path(args)?;
    args.end()?;
    Ok((key, path))
}

/// All arguments that are left as JSON, for commands that put them into arrays.
fn take_values(args: &mut Args<'_>) -> Result<Vec<Document>, CommandError> {
    args.rest().map(|text| Document::parse(text).map_err(|_| CommandError::Syntax)).collect()
}

/// What a missing key is to a command that looks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// Nil.
    Nil,
    /// Nil for the older paths, an error for the others.
    NilIfLegacy,
    /// An error.
    Error,
}

/// The document under a key, for a command that looks; `None` if it is missing and that means nil.
fn view<'a>(
    ks: &'a mut Keyspace,
    db: usize,
    key: &[u8],
    path: &Path,
    missing: Missing,
) -> Result<Option<&'a Document>, CommandError> {
    let document = ks.view::<Document>(db, key)?;
    let nil = missing == Missing::Nil || missing == Missing::NilIfLegacy && path.is_legacy();
    if document.is_none() && !nil { Err(CommandError::NoSuchKey) } else { Ok(document) }
}

/// What a legacy path is answered with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Legacy {
    /// The first match of the right type; nil if there is no match, an error if there are only others.
    First,
    /// The last match of the right type, or nil.
    LastOrNil,
    /// The last match of the right type, or an error.
    LastOrError,
}

/// Replies with what an operation gave for each match: all of it for a `$` path, one item for a legacy one.
fn reply<T>(
    out: &mut ReplyWriter<'_>,
    path: &Path,
    results: &[Option<T>],
    legacy: Legacy,
    mut write: impl FnMut(&mut ReplyWriter<'_>, &T),
) -> CmdResult {
    if !path.is_legacy() {
        out.array(results.len());
        for result in results {
            match result {
                Some(result) => write(out, result),
                None => out.null(),
            }
        }
        return Ok(());
    }
    let mut fitting = results.iter().flatten();
    let picked = if legacy == Legacy::First { fitting.next() } else { fitting.next_back() };
    match picked {
        Some(result) => reply_one(out, |out| write(out, result)),
        None if legacy == Legacy::LastOrError || legacy == Legacy::First && !results.is_empty() => {
            return Err(WRONG_JSON_TYPE);
        }
        None => out.null(),
    }
    Ok(())
}

/// The one item of a legacy path: in RESP3 an array of one, so that clients need to know a single shape there.
fn reply_one(out: &mut ReplyWriter<'_>, write: impl FnOnce(&mut ReplyWriter<'_>)) {
    if out.proto() == Proto::Resp3 {
        out.array(1);
    }
    write(out);
}

/// A length, a count or a place.
fn reply_len(out: &mut ReplyWriter<'_>, len: &usize) {
    out.int(*len as i64);
}

/// A JSON number as a number of the protocol. Integers beyond 64 bits with a sign keep their digits.
fn reply_number(out: &mut ReplyWriter<'_>, number: &Value) {
    match number.view() {
        View::Int(number) => out.int(number),
        View::Double(number) => out.shortest_double(number),
        _ => out.big_number(std::str::from_utf8(&number.to_json()).expect("JSON is UTF-8")),
    }
}
