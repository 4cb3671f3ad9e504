//! Consumer groups: XGROUP, and what their consumers have pending: XACK, XPENDING.

use damselfly_keyspace::Class;
use damselfly_keyspace::stream::{Stream, StreamId};
use damselfly_protocol::Argv;

use super::{id, no_group, no_key_or_group};
use crate::error::printable;
use crate::{Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Run, Spread};

/// Containers have their key behind the name of the sub-command.
pub(super) fn second(argv: &Argv<'_>, positions: &mut Vec<usize>) {
    if argv.len() > 2 {
        positions.push(2);
    }
}

/// Options that a sub-command does not have.
pub(super) fn subcommand_syntax(container: &str, subcommand: &[u8]) -> CommandError {
    CommandError::owned(format!(
        "ERR unknown subcommand or wrong number of arguments for '{}'. Try {container} HELP.",
        printable(subcommand, 128)
    ))
}

pub(super) const XGROUP: Command = Command {
    name: "XGROUP",
    arity: Arity::AtLeast(2),
    keys: Keys::By(second),
    flags: Flags::WRITE,
    spread: Spread::Single,
    group: Group::Stream,
    since: "5.0.0",
    syntax: "CREATE key group <id | $> [MKSTREAM] [ENTRIESREAD entries-read] | CREATECONSUMER key group consumer | \
             DELCONSUMER key group consumer | DESTROY key group | HELP | \
             SETID key group <id | $> [ENTRIESREAD entries-read]",
    summary: "Creates, changes and removes consumer groups.",
    run: Run::Shard(xgroup),
};

fn xgroup(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    const HELP: [&str; 15] = [
        "XGROUP <subcommand> [<arg>]. Subcommands are:",
        "CREATE <key> <group> <id | $> [MKSTREAM] [ENTRIESREAD <count>]",
        "    Create a group that will read what is behind the id. MKSTREAM: create the stream too.",
        "    ENTRIESREAD: how many entries it is told to have read, for its lag.",
        "CREATECONSUMER <key> <group> <consumer>",
        "    Create a consumer.",
        "DELCONSUMER <key> <group> <consumer>",
        "    Remove a consumer and what it has pending.",
        "DESTROY <key> <group>",
        "    Remove a group.",
        "SETID <key> <group> <id | $> [ENTRIESREAD <count>]",
        "    Let a group go on behind the id.",
        "HELP",
        "    This text.",
        "A group whose ENTRIESREAD is unknown (-1) learns it when it has read all.",
    ];
    let word = args.take()?;
    let name = word.to_ascii_lowercase();
    let fits = match name.as_slice() {
        b"create" | b"setid" => args.len() >= 3,
        b"destroy" => args.len() == 2,
        b"createconsumer" | b"delconsumer" => args.len() == 3,
        b"help" => args.is_empty(),
        _ => return Err(CommandError::unknown_subcommand("XGROUP", word)),
    };
    if !fits {
        return Err(CommandError::arity(&format!("xgroup|{}", printable(&name, 128))));
    }
    match name.as_slice() {
        b"create" => create(cx, args, word),
        b"setid" => set_id(cx, args, word),
        b"destroy" => destroy(cx, args),
        b"createconsumer" => create_consumer(cx, args),
        b"delconsumer" => delete_consumer(cx, args),
        _ => {
            cx.out.array(HELP.len());
            HELP.iter().for_each(|line| cx.out.simple(line));
            Ok(())
        }
    }
}

const NO_STREAM: CommandError = CommandError::text(
    "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM \
     option to create an empty stream automatically.",
);

/// What stands behind the id of CREATE and SETID.
#[derive(Default)]
struct Options {
    create_stream: bool,
    entries_read: Option<u64>,
}

fn take_options(mut args: Args<'_>, creates: bool, word: &[u8]) -> Result<Options, CommandError> {
    const NEGATIVE: CommandError = CommandError::text("ERR value for ENTRIESREAD must be positive or -1");
    let mut options = Options::default();
    while !args.is_empty() {
        if creates && args.take_word("MKSTREAM") {
            options.create_stream = true;
        } else if args.len() > 1 && args.take_word("ENTRIESREAD") {
            options.entries_read = match args.take_int()? {
                -1 => None,
                read => Some(u64::try_from(read).map_err(|_| NEGATIVE)?),
            };
        } else {
            return Err(subcommand_syntax("XGROUP", word));
        }
    }
    Ok(options)
}

fn create(cx: &mut Cx<'_>, mut args: Args<'_>, word: &[u8]) -> CmdResult {
    const BUSY: CommandError = CommandError::text("BUSYGROUP Consumer Group name already exists");
    const OPTIONS_MAX: usize = 3;
    let (key, group, text) = (args.take()?, args.take()?, args.take()?);
    let options = take_options(args, true, word)?;
    let stream = cx.ks.peek::<Stream>(cx.db, key)?;
    if stream.is_none() && !options.create_stream {
        return Err(NO_STREAM);
    }
    if args.len() > OPTIONS_MAX {
        return Err(subcommand_syntax("XGROUP", word));
    }
    let last_id = match text {
        b"$" => stream.map_or(StreamId::MIN, Stream::last_id),
        _ => id::exact(text)?,
    };
    let edit = cx.ks.edit_or_new(cx.db, key, |stream: &mut Stream| {
        stream.create_group(group, last_id, options.entries_read)
    })?;
    if !edit.value {
        return Err(BUSY);
    }
    cx.changed(key, Class::Stream, "xgroup-create");
    cx.out.ok();
    Ok(())
}

fn set_id(cx: &mut Cx<'_>, mut args: Args<'_>, word: &[u8]) -> CmdResult {
    let (key, group, text) = (args.take()?, args.take()?, args.take()?);
    let options = take_options(args, false, word)?;
    let stream = cx.ks.peek::<Stream>(cx.db, key)?.ok_or(NO_STREAM)?;
    stream.group(group).ok_or_else(|| no_group(key, group))?;
    if !matches!(args.len(), 0 | 2) {
        return Err(subcommand_syntax("XGROUP", word));
    }
    let last_id = match text {
        b"$" => stream.last_id(),
        // Unlike CREATE it takes `-` and `+`.
        _ => id::or_edge(text, 0)?,
    };
    let edit = cx
        .ks
        .edit(cx.db, key, |stream: &mut Stream| stream.set_group_id(group, last_id, options.entries_read))?;
    edit.ok_or(NO_STREAM)?.value.map_err(|_| no_group(key, group))?;
    cx.changed(key, Class::Stream, "xgroup-setid");
    cx.out.ok();
    Ok(())
}

fn destroy(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, group) = (args.take()?, args.take()?);
    let edit = cx.ks.edit(cx.db, key, |stream: &mut Stream| stream.destroy_group(group))?;
    let destroyed = edit.ok_or(NO_STREAM)?.value;
    if destroyed {
        cx.changed(key, Class::Stream, "xgroup-destroy");
    }
    cx.out.int(i64::from(destroyed));
    Ok(())
}

fn create_consumer(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, group, name) = (args.take()?, args.take()?, args.take()?);
    let now = cx.ks.now;
    let edit = cx.ks.edit(cx.db, key, |stream: &mut Stream| stream.create_consumer(group, name, now))?;
    let created = edit.ok_or(NO_STREAM)?.value.map_err(|_| no_group(key, group))?;
    if created {
        cx.changed(key, Class::Stream, "xgroup-createconsumer");
    }
    cx.out.int(i64::from(created));
    Ok(())
}

fn delete_consumer(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, group, name) = (args.take()?, args.take()?, args.take()?);
    let edit = cx.ks.edit(cx.db, key, |stream: &mut Stream| stream.delete_consumer(group, name))?;
    let pending = edit.ok_or(NO_STREAM)?.value.map_err(|_| no_group(key, group))?;
    if pending.is_some() {
        cx.changed(key, Class::Stream, "xgroup-delconsumer");
    }
    cx.out.int(pending.unwrap_or(0) as i64);
    Ok(())
}

pub(super) const XACK: Command = Command {
    name: "XACK",
    arity: Arity::AtLeast(4),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Stream,
    since: "5.0.0",
    syntax: "key group id [id ...]",
    summary: "Acknowledges entries, so that they are pending no more; counts those that were.",
    run: Run::Shard(xack),
};

fn xack(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, group) = (args.take()?, args.take()?);
    if cx.ks.peek::<Stream>(cx.db, key)?.is_none_or(|stream| stream.group(group).is_none()) {
        cx.out.int(0);
        return Ok(());
    }
    let ids = args.rest().map(id::exact).collect::<Result<Vec<StreamId>, _>>()?;
    let edit = cx.ks.edit(cx.db, key, |stream: &mut Stream| stream.ack(group, ids.into_iter()))?;
    let acknowledged = edit.map_or(0, |edit| edit.value.expect("the group is there"));
    if acknowledged > 0 {
        cx.changed(key, Class::Quiet, "xack");
    }
    cx.out.int(acknowledged as i64);
    Ok(())
}

pub(super) const XPENDING: Command = Command {
    name: "XPENDING",
    arity: Arity::AtLeast(3),
    keys: Keys::First,
    flags: Flags::READ,
    spread: Spread::Single,
    group: Group::Stream,
    since: "5.0.0",
    syntax: "key group [[IDLE min-idle-time] start end count [consumer]]",
    summary: "Returns what the consumers of a group have pending.",
    run: Run::Shard(xpending),
};

/// Which pending entries are asked for.
struct Selection<'a> {
    idle_min: i64,
    start: StreamId,
    end: StreamId,
    count: usize,
    consumer: Option<&'a [u8]>,
}

fn take_selection<'a>(mut args: Args<'a>) -> Result<Selection<'a>, CommandError> {
    if !(3..=6).contains(&args.len()) {
        return Err(CommandError::Syntax);
    }
    let mut idle_min = 0;
    if args.take_word("IDLE") {
        idle_min = args.take_int()?;
        if args.len() < 3 {
            return Err(CommandError::Syntax);
        }
    }
    let (start, end, count) = (args.take()?, args.take()?, args.take_int()?);
    let (start, end) = (id::start(start)?, id::end(end)?);
    // Redis looks at nothing behind the consumer.
    Ok(Selection { idle_min, start, end, count: usize::try_from(count).unwrap_or(0), consumer: args.peek() })
}

fn xpending(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, name) = (args.take()?, args.take()?);
    let selection = if args.is_empty() { None } else { Some(take_selection(args)?) };
    let now = cx.ks.now;
    let stream = cx.ks.view::<Stream>(cx.db, key)?;
    let group = stream.and_then(|stream| stream.group(name)).ok_or_else(|| no_key_or_group(key, name))?;
    let out = &mut cx.out;
    let Some(Selection { idle_min, start, end, count, consumer }) = selection else {
        out.array(4);
        out.int(group.pending_len() as i64);
        let Some((first, last)) = group.pending_bounds() else {
            out.null();
            out.null();
            out.null_array();
            return Ok(());
        };
        id::reply(out, first);
        id::reply(out, last);
        let busy = || group.consumers().filter(|consumer| consumer.pending_len() > 0);
        out.array(busy().count());
        for consumer in busy() {
            out.array(2);
            out.bulk(consumer.name());
            out.bulk_int(consumer.pending_len() as i64);
        }
        return Ok(());
    };
    let of = consumer.map(|name| group.consumer(name));
    if matches!(of, Some(None)) {
        out.array(0);
        return Ok(());
    }
    let entries = out.deferred(count.min(group.pending_len()));
    let idle = |delivered_at_ms: u64| now.saturating_sub(delivered_at_ms).try_into().unwrap_or(i64::MAX);
    let mut written = 0;
    let pending = group
        .pending_from(start, of.flatten())
        .take_while(|(id, ..)| *id <= end)
        .map(|(id, consumer, pending)| (id, consumer, idle(pending.delivered_at_ms), pending.deliveries))
        .filter(|(_, _, idle, _)| *idle >= idle_min);
    for (id, consumer, idle, deliveries) in pending.take(count) {
        out.array(4);
        id::reply(out, id);
        out.bulk(consumer.name());
        out.int(idle);
        out.int(i64::from(deliveries));
        written += 1;
    }
    out.fill_array(entries, written);
    Ok(())
}
