//! Consumer groups: XGROUP, and what their consumers have pending: XACK, XPENDING.

use damselfly_keyspace::stream::{Consumer, Group as ConsumerGroup, Stream, StreamId};
use damselfly_keyspace::{Class, Collection, Loc, Object, UnixMs};
use damselfly_protocol::{Argv, ReplyWriter};

use super::{id, no_group, no_key_or_group};
use crate::error::printable;
use crate::long::reply_made;
use crate::many::{ARGUMENTS_PER_STEP, are_many};
use crate::task::{Rest, Task, Work, work};
use crate::{Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Run, Spread};

/// Pending entries that are looked at in one step, and that are shown in one.
const PENDING_PER_STEP: usize = 512;
const SHOWN_PER_STEP: usize = 32;

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
    let existed = stream.is_some();
    let edit = cx.ks.edit_or_new(cx.db, key, |stream: &mut Stream| {
        stream.create_group(group, last_id, options.entries_read)
    })?;
    if !edit.value {
        return Err(BUSY);
    }
    // Where there was no stream one has come.
    let class = if existed { Class::Group } else { Class::Stream };
    cx.changed(key, class, "xgroup-create");
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
    cx.changed(key, Class::Group, "xgroup-setid");
    cx.out.ok();
    Ok(())
}

fn destroy(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, group) = (args.take()?, args.take()?);
    let edit = cx.ks.edit(cx.db, key, |stream: &mut Stream| stream.destroy_group(group))?;
    let destroyed = edit.ok_or(NO_STREAM)?.value;
    if destroyed {
        cx.changed(key, Class::Group, "xgroup-destroy");
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
        cx.changed(key, Class::Group, "xgroup-createconsumer");
    }
    cx.out.int(i64::from(created));
    Ok(())
}

fn delete_consumer(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, group, name) = (args.take()?, args.take()?, args.take()?);
    let loc = cx.ks.find_collection::<Stream>(cx.db, key)?.ok_or(NO_STREAM)?;
    let stream = cx.ks.collection::<Stream>(cx.db, loc)?;
    let consumer = stream.group(group).ok_or_else(|| no_group(key, group))?.consumer(name);
    let pending = consumer.map(Consumer::pending_len);
    let in_steps = pending.is_some_and(|pending| are_many(cx, pending));
    let deleting =
        DeletingConsumer { group: group.into(), name: name.into(), pending, rest: pending.unwrap_or(0) };
    work(cx, key, loc, deleting, in_steps)
}

/// XGROUP DELCONSUMER.
struct DeletingConsumer {
    group: Box<[u8]>,
    name: Box<[u8]>,
    /// What it has pending; None if there is no such consumer.
    pending: Option<usize>,
    /// What is left of that.
    rest: usize,
}

impl Work for DeletingConsumer {
    type To = Stream;

    fn step(&mut self, stream: &mut Stream) -> bool {
        if self.rest > ARGUMENTS_PER_STEP {
            stream.release_some(&self.group, &self.name, ARGUMENTS_PER_STEP).expect("the group is there");
            self.rest -= ARGUMENTS_PER_STEP;
            return false;
        }
        stream.delete_consumer(&self.group, &self.name).expect("the group is there");
        true
    }

    fn end(&mut self, cx: &mut Cx<'_>, key: &[u8], gone: Option<bool>) -> CmdResult {
        if self.pending.is_some() && gone.is_some() {
            cx.changed(key, Class::Group, "xgroup-delconsumer");
        }
        cx.out.int(self.pending.unwrap_or(0) as i64);
        Ok(())
    }
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
    let loc = cx.ks.find_collection::<Stream>(cx.db, key)?;
    let has_group =
        |loc: &Loc| cx.ks.collection::<Stream>(cx.db, *loc).is_ok_and(|stream| stream.group(group).is_some());
    let Some(loc) = loc.filter(has_group) else {
        cx.out.int(0);
        return Ok(());
    };
    let ids = args.rest().map(id::exact).collect::<Result<Vec<StreamId>, _>>()?;
    let in_steps = are_many(cx, ids.len());
    work(cx, key, loc, Acknowledging { group: group.into(), ids: ids.into_iter(), count: 0 }, in_steps)
}

/// XACK.
struct Acknowledging {
    group: Box<[u8]>,
    ids: std::vec::IntoIter<StreamId>,
    /// How many were pending.
    count: usize,
}

impl Work for Acknowledging {
    type To = Stream;

    fn step(&mut self, stream: &mut Stream) -> bool {
        let some = self.ids.by_ref().take(ARGUMENTS_PER_STEP);
        self.count += stream.ack(&self.group, some).expect("the group is there");
        self.ids.len() == 0
    }

    fn end(&mut self, cx: &mut Cx<'_>, key: &[u8], gone: Option<bool>) -> CmdResult {
        if self.count > 0 && gone.is_some() {
            cx.changed(key, Class::Quiet, "xack");
        }
        cx.out.int(self.count as i64);
        Ok(())
    }
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
struct Selection {
    idle_min: i64,
    start: StreamId,
    end: StreamId,
    count: usize,
    consumer: Option<Box<[u8]>>,
}

fn take_selection(mut args: Args<'_>) -> Result<Selection, CommandError> {
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
    let count = usize::try_from(count).unwrap_or(0);
    // Redis looks at nothing behind the consumer.
    Ok(Selection { idle_min, start, end, count, consumer: args.peek().map(Box::from) })
}

/// What XPENDING shows of an entry: its id, who has it, how long, and how often it was delivered.
type Shown<'a> = (StreamId, &'a Consumer, i64, u32);

impl Selection {
    /// Shows those of the next `looks` pending entries that are asked for, until `show` is false. Where to go on; None
    /// at the end.
    fn look(
        &self,
        group: &ConsumerGroup,
        from: StreamId,
        looks: usize,
        now: UnixMs,
        mut show: impl FnMut(Shown<'_>) -> bool,
    ) -> Option<StreamId> {
        let of = self.consumer.as_deref().map(|name| group.consumer(name).expect("looked at when it began"));
        let (mut looked, mut last) = (0, from);
        for (id, consumer, pending) in group.pending_from(from, of).take(looks) {
            if id > self.end {
                return None;
            }
            let idle = now.saturating_sub(pending.delivered_at_ms).try_into().unwrap_or(i64::MAX);
            if idle >= self.idle_min && !show((id, consumer, idle, pending.deliveries)) {
                return None;
            }
            (looked, last) = (looked + 1, id);
        }
        if looked < looks { None } else { last.next() }
    }
}

fn reply_pending(out: &mut ReplyWriter<'_>, (id, consumer, idle, deliveries): Shown<'_>) {
    out.array(4);
    id::reply(out, id);
    out.bulk(consumer.name());
    out.int(idle);
    out.int(i64::from(deliveries));
}

/// XPENDING of many entries: they are counted in steps, as an array begins with how many it has, and shown in pieces.
struct Listing {
    held: Stream,
    group: Box<[u8]>,
    selection: Selection,
    now: UnixMs,
    /// Where counting goes on; None at the end.
    from: Option<StreamId>,
    found: usize,
}

impl Task for Listing {
    fn target(&self) -> Option<&[u8]> {
        None
    }

    fn step(&mut self) -> bool {
        let Listing { held, group, selection, now, from, found } = self;
        let group = held.group(group).expect("the group is there");
        *from = from.and_then(|from| {
            selection.look(group, from, PENDING_PER_STEP, *now, |_| {
                *found += 1;
                *found < selection.count
            })
        });
        from.is_none()
    }

    fn finish(&mut self, cx: &mut Cx<'_>) -> CmdResult {
        let empty =
            Selection { idle_min: 0, start: StreamId::MIN, end: StreamId::MIN, count: 0, consumer: None };
        let selection = std::mem::replace(&mut self.selection, empty);
        let (name, now, mut left) = (std::mem::take(&mut self.group), self.now, self.found);
        let mut from = Some(selection.start);
        cx.out.array(left);
        let step = move |held: &Stream, out: &mut ReplyWriter<'_>| {
            let group = held.group(&name).expect("the group is there");
            from = from.filter(|_| left > 0).and_then(|from| {
                selection.look(group, from, SHOWN_PER_STEP, now, |shown| {
                    reply_pending(out, shown);
                    left -= 1;
                    left > 0
                })
            });
            from.is_none()
        };
        reply_made(&mut cx.out, cx.later.as_deref_mut(), &self.held, step);
        Ok(())
    }

    fn into_held(self: Box<Self>) -> Vec<Object> {
        vec![self.held.wrap()]
    }
}

fn xpending(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, name) = (args.take()?, args.take()?);
    let selection = if args.is_empty() { None } else { Some(take_selection(args)?) };
    let now = cx.ks.now;
    let stream = cx.ks.view::<Stream>(cx.db, key)?;
    let found = stream.and_then(|stream| Some((stream, stream.group(name)?)));
    let (stream, group) = found.ok_or_else(|| no_key_or_group(key, name))?;
    let out = &mut cx.out;
    let Some(selection) = selection else {
        reply_summary(out, group);
        return Ok(());
    };
    let all = match selection.consumer.as_deref().map(|name| group.consumer(name)) {
        None => group.pending_len(),
        Some(Some(consumer)) => consumer.pending_len(),
        Some(None) => 0,
    };
    if all == 0 || selection.count == 0 {
        out.array(0);
        return Ok(());
    }
    // Those that were not idle for long enough are looked at too.
    let looks = if selection.idle_min > 0 { all } else { all.min(selection.count) };
    if looks > cx.env.at_once_max
        && let Some(place) = &mut cx.later
    {
        let (held, group, from) = (stream.clone(), Box::from(name), Some(selection.start));
        **place = Some(Rest::Task(Box::new(Listing { held, group, selection, now, from, found: 0 })));
        return Ok(());
    }
    let entries = out.deferred(selection.count.min(all));
    let mut written = 0;
    selection.look(group, selection.start, usize::MAX, now, |shown| {
        reply_pending(out, shown);
        written += 1;
        written < selection.count
    });
    out.fill_array(entries, written);
    Ok(())
}

/// XPENDING of a group alone: how much there is, between which ids, and who has how much of it.
fn reply_summary(out: &mut ReplyWriter<'_>, group: &ConsumerGroup) {
    out.array(4);
    out.int(group.pending_len() as i64);
    let Some((first, last)) = group.pending_bounds() else {
        out.null();
        out.null();
        out.null_array();
        return;
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
}
