//! Keys, whatever they hold. When they expire is in `expire.rs`.

use std::borrow::Cow;

use damselfly_keyspace::{Class, UnixMs, Value};
use damselfly_protocol::number::{Decimal, parse_i64};
use damselfly_protocol::request::Argv;
use damselfly_rdb::dump as payload;

use crate::convert;
use crate::cx::Str;
use crate::error::printable;
use crate::task::Rest;
use crate::{
    Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Merge, Run, ServerCommand, Spread,
};

pub(crate) const COMMANDS: &[&Command] = &[
    &COPY, &DEL, &DELEX, &DUMP, &EXISTS, &KEYS, &MOVE, &OBJECT, &RANDOMKEY, &RENAME, &RENAMENX, &RESTORE,
    &RM, &SCAN, &SHRINK, &STICK, &TOUCH, &TYPE, &UNLINK,
];

const COPY: Command = Command {
    name: "COPY",
    arity: Arity::AtLeast(3),
    keys: Keys::Range { first: 1, last: 2, step: 1 },
    flags: Flags::WRITE.with(Flags::GROWS),
    spread: Spread::Together,
    group: Group::Generic,
    since: "6.2.0",
    syntax: "source destination [DB destination-db] [REPLACE]",
    summary: "Copies the value of a key, with its time to live, to another key.",
    run: Run::Shard(copy),
};

fn copy(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (from, to) = (args.take()?, args.take()?);
    let (mut to_db, mut replace) = (cx.db, false);
    while !args.is_empty() {
        if args.take_word("REPLACE") {
            replace = true;
        } else if args.len() > 1 && args.take_word("DB") {
            to_db = take_db(cx, &mut args)?;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    if to_db == cx.db && from == to {
        return Err(CommandError::SameObject);
    }
    let copied = cx.read(from).is_some() && (cx.ks.find(to_db, to).is_none() || replace);
    if copied {
        let value = cx.ks.export(cx.db, from);
        cx.ks.import(to_db, to, value);
        cx.ks.changed(to_db, to, Class::Generic, "copy_to");
    }
    cx.out.int(i64::from(copied));
    Ok(())
}

/// The number of a database.
fn take_db(cx: &Cx<'_>, args: &mut Args<'_>) -> Result<usize, CommandError> {
    let db = usize::try_from(args.take_i32()?).ok();
    db.filter(|&db| db < cx.ks.databases()).ok_or(CommandError::DbIndexOutOfRange)
}

const DEL: Command = Command {
    name: "DEL",
    arity: Arity::AtLeast(2),
    keys: Keys::Range { first: 1, last: -1, step: 1 },
    flags: Flags::WRITE,
    spread: Spread::Split { step: 1, merge: Merge::Sum },
    group: Group::Generic,
    since: "1.0.0",
    syntax: "key [key ...]",
    summary: "Removes keys.",
    run: Run::Shard(del),
};

fn del(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    let mut removed = 0;
    for (at, key) in args.rest().enumerate() {
        cx.load_ahead(at, args, 1);
        if cx.ks.remove(cx.db, key) {
            cx.changed(key, Class::Generic, "del");
            removed += 1;
        }
    }
    cx.out.int(removed);
    Ok(())
}

const DELEX: Command = Command {
    name: "DELEX",
    arity: Arity::AtLeast(2),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Generic,
    since: "dragonfly",
    syntax: "key [IFEQ value | IFNE value | IFDEQ digest | IFDNE digest]",
    summary: "Removes a key if its string, or the digest of it, is or is not the one given.",
    run: Run::Shard(delex),
};

fn delex(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    let condition = DelCondition::parse(args)?;
    let mut found = cx.find(key);
    if let (Some(loc), Some(condition)) = (found, condition)
        && !condition.is_met(cx.string_at(loc)?)
    {
        found = None;
    }
    if let Some(loc) = found {
        cx.ks.remove_at(cx.db, loc);
        cx.changed(key, Class::Generic, "del");
    }
    cx.out.int(i64::from(found.is_some()));
    Ok(())
}

/// What DELEX asks of the string.
#[derive(Clone, Copy)]
enum DelCondition<'a> {
    Is(&'a [u8]),
    IsNot(&'a [u8]),
    DigestIs(u64),
    DigestIsNot(u64),
}

impl<'a> DelCondition<'a> {
    fn parse(mut args: Args<'a>) -> Result<Option<DelCondition<'a>>, CommandError> {
        if args.is_empty() {
            return Ok(None);
        }
        let (word, value) = (args.take()?, args.take()?);
        args.end()?;
        Ok(Some(match word.to_ascii_uppercase().as_slice() {
            b"IFEQ" => DelCondition::Is(value),
            b"IFNE" => DelCondition::IsNot(value),
            b"IFDEQ" => DelCondition::DigestIs(parse_digest(value)?),
            b"IFDNE" => DelCondition::DigestIsNot(parse_digest(value)?),
            _ => return Err(CommandError::Syntax),
        }))
    }

    fn is_met(self, value: Str<'_>) -> bool {
        match self {
            DelCondition::Is(other) => value.bytes(&mut Decimal::new(0)) == other,
            DelCondition::IsNot(other) => value.bytes(&mut Decimal::new(0)) != other,
            DelCondition::DigestIs(other) => value.digest() == other,
            DelCondition::DigestIsNot(other) => value.digest() != other,
        }
    }
}

/// Sixteen hexadecimal digits as DIGEST answers them, in any case. Anything else is refused: it would be no value's
/// digest, so that IFDNE with a slip of the pen would remove the key.
fn parse_digest(text: &[u8]) -> Result<u64, CommandError> {
    const NOT_A_DIGEST: CommandError = CommandError::text("ERR a digest has 16 hexadecimal digits");
    if text.len() != 16 || !text.iter().all(u8::is_ascii_hexdigit) {
        return Err(NOT_A_DIGEST);
    }
    let text = std::str::from_utf8(text).expect("digits");
    u64::from_str_radix(text, 16).map_err(|_| NOT_A_DIGEST)
}

const DUMP: Command = Command {
    name: "DUMP",
    arity: Arity::Exactly(2),
    keys: Keys::First,
    flags: Flags::READ,
    spread: Spread::Single,
    group: Group::Generic,
    since: "2.6.0",
    syntax: "key",
    summary: "Returns the value of a key as bytes that RESTORE takes.",
    run: Run::Shard(dump),
};

fn dump(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    match cx.read(args.take()?) {
        Some(loc) => {
            let value = cx.ks.value(cx.db, loc);
            if convert::cells_len(&value) > convert::CELLS_LEN_MAX {
                return Err(CommandError::StringTooLong);
            }
            if let (Some(place), Value::Object(object)) = (&mut cx.later, value)
                && let Some(dumping) = convert::Dumping::begin(object, cx.out.proto(), cx.env.at_once_max)
            {
                **place = Some(Rest::Task(Box::new(dumping)));
                return Ok(());
            }
            let payload = convert::to_payload(value);
            cx.out.bulk(&payload);
        }
        None => cx.out.null(),
    }
    Ok(())
}

const EXISTS: Command = Command {
    name: "EXISTS",
    arity: Arity::AtLeast(2),
    keys: Keys::Range { first: 1, last: -1, step: 1 },
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Split { step: 1, merge: Merge::Sum },
    group: Group::Generic,
    since: "1.0.0",
    syntax: "key [key ...]",
    summary: "Counts how many of the keys exist; one named twice counts twice.",
    run: Run::Shard(exists),
};

fn exists(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    // Who only asks for a key does not use it.
    cx.ks.leaves_heat = true;
    count(cx, args)
}

/// How many of the keys there are.
fn count(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    let mut count = 0;
    for (at, key) in args.rest().enumerate() {
        cx.load_ahead(at, args, 1);
        count += i64::from(cx.read(key).is_some());
    }
    cx.out.int(count);
    Ok(())
}

const KEYS: Command = Command {
    name: "KEYS",
    arity: Arity::Exactly(2),
    keys: Keys::None,
    flags: Flags::READ.with(Flags::DANGEROUS),
    spread: Spread::Single,
    group: Group::Generic,
    since: "1.0.0",
    syntax: "pattern",
    summary: "Returns all keys that match a pattern.",
    run: Run::Server(ServerCommand::Keys),
};

const MOVE: Command = Command {
    name: "MOVE",
    arity: Arity::Exactly(3),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Generic,
    since: "1.0.0",
    syntax: "key db",
    summary: "Moves a key to another database, unless it exists there.",
    run: Run::Shard(move_to_db),
};

fn move_to_db(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    let to_db = take_db(cx, &mut args)?;
    if to_db == cx.db {
        return Err(CommandError::SameObject);
    }
    let moved = cx.find(key).is_some() && cx.ks.find(to_db, key).is_none();
    if moved {
        let value = cx.ks.take(cx.db, key);
        cx.ks.import(to_db, key, value);
        cx.changed(key, Class::Generic, "move_from");
        cx.ks.changed(to_db, key, Class::Generic, "move_to");
    }
    cx.out.int(i64::from(moved));
    Ok(())
}

const OBJECT: Command = Command {
    name: "OBJECT",
    arity: Arity::AtLeast(2),
    keys: Keys::By(object_key),
    flags: Flags::READ,
    spread: Spread::Single,
    group: Group::Generic,
    since: "2.2.3",
    syntax: "ENCODING key | FREQ key | HELP | IDLETIME key | REFCOUNT key",
    summary: "Looks at how the value of a key is kept.",
    run: Run::Shard(object),
};

fn object_key(argv: &Argv<'_>, positions: &mut Vec<usize>) {
    if argv.len() > 2 {
        positions.push(2);
    }
}

fn object(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    const NO_FREQUENCIES: CommandError = CommandError::text(
        "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when \
         switching between policies at runtime LRU and LFU data will take some time to adjust.",
    );
    const NO_IDLE_TIMES: CommandError = CommandError::text(
        "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching between \
         policies at runtime LRU and LFU data will take some time to adjust.",
    );
    const HELP: [&str; 11] = [
        "OBJECT <subcommand> [<arg>]. Subcommands are:",
        "ENCODING <key>",
        "    The form in which the value is kept.",
        "FREQ <key>",
        "    How often the key was used of late, 0 to 15; only with an LFU policy.",
        "IDLETIME <key>",
        "    Seconds for which the key was not used, at least; 0 if it was used lately.",
        "REFCOUNT <key>",
        "    How many keys share the value: always 1.",
        "HELP",
        "    This text.",
    ];
    let word = args.take()?;
    let name = word.to_ascii_lowercase();
    let expected = match name.as_slice() {
        b"help" => 0,
        b"encoding" | b"freq" | b"idletime" | b"refcount" => 1,
        _ => return Err(CommandError::unknown_subcommand("OBJECT", word)),
    };
    if args.len() != expected {
        return Err(CommandError::arity(&format!("object|{}", printable(&name, 128))));
    }
    if expected == 0 {
        cx.out.array(HELP.len());
        HELP.iter().for_each(|line| cx.out.simple(line));
        return Ok(());
    }
    let Some(loc) = cx.find(args.take()?) else {
        cx.out.null();
        return Ok(());
    };
    match name.as_slice() {
        b"encoding" => cx.out.bulk(convert::encoding_at(cx.ks.table(cx.db), loc, cx.env).as_bytes()),
        b"refcount" => cx.out.int(1),
        b"idletime" if cx.env.lfu => return Err(NO_IDLE_TIMES),
        b"freq" if !cx.env.lfu => return Err(NO_FREQUENCIES),
        b"freq" => cx.out.int(i64::from(cx.ks.table(cx.db).frequency(loc))),
        _ => cx.out.int((cx.ks.idle_ms(cx.db, loc) / 1000) as i64),
    }
    Ok(())
}

const RANDOMKEY: Command = Command {
    name: "RANDOMKEY",
    arity: Arity::Exactly(1),
    keys: Keys::None,
    flags: Flags::READ,
    spread: Spread::Single,
    group: Group::Generic,
    since: "1.0.0",
    syntax: "",
    summary: "Returns a random key of the database.",
    run: Run::Server(ServerCommand::RandomKey),
};

const RENAME: Command = Command {
    name: "RENAME",
    arity: Arity::Exactly(3),
    keys: Keys::Range { first: 1, last: 2, step: 1 },
    flags: Flags::WRITE,
    spread: Spread::Together,
    group: Group::Generic,
    since: "1.0.0",
    syntax: "key newkey",
    summary: "Gives a key another name, over whatever has that name.",
    run: Run::Shard(rename),
};

fn rename(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (from, to) = (args.take()?, args.take()?);
    cx.find(from).ok_or(CommandError::NoSuchKey)?;
    if from != to {
        rename_found(cx, from, to);
    }
    cx.out.ok();
    Ok(())
}

/// Moves a key that is there.
fn rename_found(cx: &mut Cx<'_>, from: &[u8], to: &[u8]) {
    let value = cx.ks.take(cx.db, from);
    cx.ks.import(cx.db, to, value);
    cx.changed(from, Class::Generic, "rename_from");
    cx.changed(to, Class::Generic, "rename_to");
}

const RENAMENX: Command = Command {
    name: "RENAMENX",
    arity: Arity::Exactly(3),
    keys: Keys::Range { first: 1, last: 2, step: 1 },
    flags: Flags::WRITE.with(Flags::FAST),
    spread: Spread::Together,
    group: Group::Generic,
    since: "1.0.0",
    syntax: "key newkey",
    summary: "Gives a key another name, unless something has that name.",
    run: Run::Shard(renamenx),
};

fn renamenx(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (from, to) = (args.take()?, args.take()?);
    cx.find(from).ok_or(CommandError::NoSuchKey)?;
    let free = cx.find(to).is_none();
    if free {
        rename_found(cx, from, to);
    }
    cx.out.int(i64::from(free));
    Ok(())
}

const RESTORE: Command = Command {
    name: "RESTORE",
    arity: Arity::AtLeast(4),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS),
    spread: Spread::Single,
    group: Group::Generic,
    since: "2.6.0",
    syntax: "key ttl serialized-value [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency]",
    summary: "Makes a key from the bytes that DUMP answered.",
    run: Run::Shard(restore),
};

fn restore(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, ttl, payload) = (args.take()?, args.take()?, args.take()?);
    restore_payload(cx, key, ttl, payload.into(), args)
}

pub(crate) const BAD_FOOTER: CommandError =
    CommandError::text("ERR DUMP payload version or checksum are wrong");

/// Bytes of an element in a payload, on average: rather too many than too few.
const PAYLOAD_PER_ELEMENT: usize = 8;

pub(crate) fn restore_payload(
    cx: &mut Cx<'_>,
    key: &[u8],
    ttl: &[u8],
    mut payload: Cow<'_, [u8]>,
    options: Args<'_>,
) -> CmdResult {
    const BUSY: CommandError = CommandError::text("BUSYKEY Target key name already exists.");
    const NEGATIVE: CommandError = CommandError::text("ERR Invalid TTL value, must be >= 0");
    let options = RestoreOptions::parse(options)?;
    if !options.replace && cx.find(key).is_some() {
        return Err(BUSY);
    }
    let ttl = parse_i64(ttl).ok_or(CommandError::NotInteger)?;
    let ttl = UnixMs::try_from(ttl).map_err(|_| NEGATIVE)?;
    let now = cx.ks.now;
    let expire_at = match ttl {
        0 => None,
        at if options.absolute => Some(at),
        // Beyond the signed range nobody could be told when.
        from_now => Some(now.saturating_add(from_now).min(i64::MAX as u64)),
    };
    if cx.env.mends_checksums {
        payload::mend(payload.to_mut());
    }
    let checking = payload::Checking::new(&payload).map_err(|_| BAD_FOOTER)?;
    if payload.len() / PAYLOAD_PER_ELEMENT > cx.env.at_once_max && cx.later.is_some() {
        let restoring = convert::Restoring::begin(cx, key, payload.into_owned(), checking, expire_at);
        if let Some(place) = &mut cx.later {
            **place = Some(Rest::Task(Box::new(restoring)));
        }
        return Ok(());
    }
    payload::open(&payload).map_err(|_| BAD_FOOTER)?;
    let value = payload::decode_gathered(&payload).map_err(|_| CommandError::BadPayload)?;
    convert::restored(cx, key, expire_at, now, |cx, key, expiry| convert::store(cx, key, value, expiry))
}

struct RestoreOptions {
    replace: bool,
    /// The time to live is a moment.
    absolute: bool,
}

impl RestoreOptions {
    /// Idle time and frequency are checked and dropped: neither is kept here.
    fn parse(mut args: Args<'_>) -> Result<RestoreOptions, CommandError> {
        let mut options = RestoreOptions { replace: false, absolute: false };
        let (mut idle, mut frequency) = (false, false);
        while !args.is_empty() {
            if args.take_word("REPLACE") {
                options.replace = true;
            } else if args.take_word("ABSTTL") {
                options.absolute = true;
            } else if args.len() > 1 && !frequency && args.take_word("IDLETIME") {
                idle = true;
                if args.take_int()? < 0 {
                    return Err(CommandError::text("ERR Invalid IDLETIME value, must be >= 0"));
                }
            } else if args.len() > 1 && !idle && args.take_word("FREQ") {
                frequency = true;
                if !(0..=255).contains(&args.take_int()?) {
                    return Err(CommandError::text("ERR Invalid FREQ value, must be >= 0 and <= 255"));
                }
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(options)
    }
}

const RM: Command = Command {
    name: "RM",
    arity: Arity::Exactly(2),
    keys: Keys::None,
    flags: Flags::WRITE.with(Flags::DANGEROUS),
    spread: Spread::Single,
    group: Group::Generic,
    since: "dragonfly",
    syntax: "pattern",
    summary: "Removes all keys that match a pattern.",
    run: Run::Server(ServerCommand::Rm),
};

const SCAN: Command = Command {
    name: "SCAN",
    arity: Arity::AtLeast(2),
    keys: Keys::None,
    flags: Flags::READ,
    spread: Spread::Single,
    group: Group::Generic,
    since: "2.8.0",
    syntax: "cursor [MATCH pattern] [COUNT count] [TYPE type]",
    summary: "Walks the keys of the database in steps.",
    run: Run::Server(ServerCommand::Scan),
};

const SHRINK: Command = Command {
    name: "SHRINK",
    arity: Arity::Exactly(2),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Generic,
    since: "dragonfly",
    syntax: "key",
    summary: "Answers 0: collections give memory back as they get smaller, so there is none to return.",
    run: Run::Shard(shrink),
};

fn shrink(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    match cx.find(args.take()?) {
        Some(_) => cx.out.int(0),
        None => cx.out.null(),
    }
    Ok(())
}

const STICK: Command = Command {
    name: "STICK",
    arity: Arity::AtLeast(2),
    keys: Keys::Range { first: 1, last: -1, step: 1 },
    flags: Flags::WRITE,
    spread: Spread::Split { step: 1, merge: Merge::Sum },
    group: Group::Generic,
    since: "dragonfly",
    syntax: "key [key ...]",
    summary: "Exempts keys from eviction; counts those that were not exempt.",
    run: Run::Shard(stick),
};

fn stick(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    let mut stuck = 0;
    for key in args.rest() {
        let loose = cx.find(key).filter(|&loc| !cx.ks.table(cx.db).is_sticky(loc));
        if let Some(loc) = loose {
            cx.ks.table_mut(cx.db).set_sticky(loc, true);
            cx.changed(key, Class::Generic, "stick");
            stuck += 1;
        }
    }
    cx.out.int(stuck);
    Ok(())
}

const TOUCH: Command = Command {
    name: "TOUCH",
    arity: Arity::AtLeast(2),
    keys: Keys::Range { first: 1, last: -1, step: 1 },
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Split { step: 1, merge: Merge::Sum },
    group: Group::Generic,
    since: "3.2.1",
    syntax: "key [key ...]",
    summary: "Marks keys as used and counts those that exist.",
    run: Run::Shard(touch),
};

fn touch(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    // Also for a client whose reads leave it as it is.
    cx.ks.leaves_heat = false;
    count(cx, args)
}

const TYPE: Command = Command {
    name: "TYPE",
    arity: Arity::Exactly(2),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Generic,
    since: "1.0.0",
    syntax: "key",
    summary: "Returns the type of the value of a key.",
    run: Run::Shard(type_of),
};

fn type_of(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    cx.ks.leaves_heat = true;
    let name = match cx.read(args.take()?) {
        Some(loc) => cx.ks.table(cx.db).type_at(loc).name(),
        None => "none",
    };
    cx.out.simple(name);
    Ok(())
}

const UNLINK: Command = Command {
    name: "UNLINK",
    arity: Arity::AtLeast(2),
    keys: Keys::Range { first: 1, last: -1, step: 1 },
    flags: Flags::WRITE.with(Flags::FAST),
    spread: Spread::Split { step: 1, merge: Merge::Sum },
    group: Group::Generic,
    since: "4.0.0",
    syntax: "key [key ...]",
    summary: "Removes keys; as DEL, which never waits for memory to be freed either.",
    run: Run::Shard(del),
};
