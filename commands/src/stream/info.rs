//! XINFO: a stream, its groups and their consumers as maps.

use damselfly_keyspace::stream::{Group as ConsumerGroup, Stream, StreamId};
use damselfly_protocol::ReplyWriter;

use super::group::{second, subcommand_syntax};
use super::{id, no_group, reply};
use crate::error::printable;
use crate::long::{is_long, reply_made};
use crate::task::Later;
use crate::{Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Run, Spread};

/// Elements of a list that are written in one step.
const SHOWN_PER_STEP: usize = 32;

pub(super) const XINFO: Command = Command {
    name: "XINFO",
    arity: Arity::AtLeast(2),
    keys: Keys::By(second),
    flags: Flags::READ,
    spread: Spread::Single,
    group: Group::Stream,
    since: "5.0.0",
    syntax: "CONSUMERS key group | GROUPS key | HELP | STREAM key [FULL [COUNT count]]",
    summary: "Describes streams, groups and consumers.",
    run: Run::Shard(xinfo),
};

fn xinfo(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    const HELP: [&str; 9] = [
        "XINFO <subcommand> [<arg>]. Subcommands are:",
        "CONSUMERS <key> <group>",
        "    The consumers of a group.",
        "GROUPS <key>",
        "    The groups of a stream.",
        "STREAM <key> [FULL [COUNT <count>]]",
        "    A stream; FULL: with its first entries, its groups and what they have pending.",
        "HELP",
        "    This text.",
    ];
    let word = args.take()?;
    let name = word.to_ascii_lowercase();
    let fits = match name.as_slice() {
        b"stream" => !args.is_empty(),
        b"groups" => args.len() == 1,
        b"consumers" => args.len() == 2,
        b"help" => args.is_empty(),
        _ => return Err(CommandError::unknown_subcommand("XINFO", word)),
    };
    if !fits {
        return Err(CommandError::arity(&format!("xinfo|{}", printable(&name, 128))));
    }
    if name == b"help" {
        cx.out.array(HELP.len());
        HELP.iter().for_each(|line| cx.out.simple(line));
        return Ok(());
    }
    let now = cx.ks.now;
    let key = args.take()?;
    let stream = cx.ks.view::<Stream>(cx.db, key)?.ok_or(CommandError::NoSuchKey)?;
    let out = &mut cx.out;
    match name.as_slice() {
        b"groups" => {
            out.array(stream.groups().len());
            stream.groups().for_each(|group| reply_group(out, stream, group));
        }
        b"consumers" => {
            let name = args.take()?;
            let group = stream.group(name).ok_or_else(|| no_group(key, name))?;
            out.array(group.consumers().len());
            for consumer in group.consumers() {
                out.map(3);
                out.bulk(b"name");
                out.bulk(consumer.name());
                out.bulk(b"pending");
                out.int(consumer.pending_len() as i64);
                out.bulk(b"idle");
                out.int(now.saturating_sub(consumer.seen_at_ms) as i64);
            }
        }
        _ => match take_full(args, word)? {
            Some(count) => reply_full(out, &mut cx.later, stream, count, cx.env.at_once_max),
            None => reply_stream(out, stream),
        },
    }
    Ok(())
}

/// How much FULL shows of each list; None without FULL.
fn take_full(mut args: Args<'_>, word: &[u8]) -> Result<Option<usize>, CommandError> {
    const COUNT: usize = 10;
    if args.is_empty() {
        return Ok(None);
    }
    let more = args.len();
    if !matches!(more, 1 | 3) || !args.take_word("FULL") || more == 3 && !args.take_word("COUNT") {
        return Err(subcommand_syntax("XINFO", word));
    }
    if more == 1 {
        return Ok(Some(COUNT));
    }
    Ok(Some(match args.take_int()? {
        0 => usize::MAX,
        count => usize::try_from(count).unwrap_or(COUNT),
    }))
}

fn reply_group(out: &mut ReplyWriter<'_>, stream: &Stream, group: &ConsumerGroup) {
    out.map(6);
    out.bulk(b"name");
    out.bulk(group.name());
    out.bulk(b"consumers");
    out.int(group.consumers().len() as i64);
    out.bulk(b"pending");
    out.int(group.pending_len() as i64);
    out.bulk(b"last-delivered-id");
    id::reply(out, group.last_id());
    reply_progress(out, stream, group);
}

/// How far a group has come.
fn reply_progress(out: &mut ReplyWriter<'_>, stream: &Stream, group: &ConsumerGroup) {
    let mut known = |name: &[u8], number: Option<i64>| {
        out.bulk(name);
        match number {
            Some(number) => out.int(number),
            None => out.null(),
        }
    };
    let read = group.entries_read().map(|read| read as i64);
    let lag = stream.lag(group);
    known(b"entries-read", read);
    known(b"lag", lag);
}

/// What XINFO STREAM shows with FULL and without.
fn reply_counters(out: &mut ReplyWriter<'_>, stream: &Stream) {
    let number = |out: &mut ReplyWriter<'_>, name: &[u8], number: u64| {
        out.bulk(name);
        out.int(number as i64);
    };
    let an_id = |out: &mut ReplyWriter<'_>, name: &[u8], id: StreamId| {
        out.bulk(name);
        id::reply(out, id);
    };
    number(out, b"length", stream.len());
    number(out, b"radix-tree-keys", stream.nodes_len() as u64);
    number(out, b"radix-tree-nodes", stream.radix_nodes());
    an_id(out, b"last-generated-id", stream.last_id());
    an_id(out, b"max-deleted-entry-id", stream.max_deleted_id());
    number(out, b"entries-added", stream.entries_added());
    an_id(out, b"recorded-first-entry-id", stream.first_id());
}

fn reply_stream(out: &mut ReplyWriter<'_>, stream: &Stream) {
    out.map(10);
    reply_counters(out, stream);
    out.bulk(b"groups");
    out.int(stream.groups().len() as i64);
    let (first, last) = (StreamId::MIN, StreamId::MAX);
    for (name, entry) in [
        (&b"first-entry"[..], stream.range(first, last).next()),
        (b"last-entry", stream.range_reverse(first, last).next()),
    ] {
        out.bulk(name);
        match entry {
            Some(entry) => reply::entry(out, entry),
            None => out.null(),
        }
    }
}

/// How far XINFO STREAM FULL has come.
#[derive(Clone, Copy)]
enum Place {
    /// In the entries: from where on, and how many are left.
    Entries { from: StreamId, left: usize },
    /// Before a group.
    Group(usize),
    /// In what a group has pending.
    Pending { group: usize, from: StreamId, left: usize },
    /// Before a consumer of a group.
    Consumer { group: usize, consumer: usize },
    /// In what a consumer has pending.
    OfConsumer { group: usize, consumer: usize, from: StreamId, left: usize },
}

/// XINFO STREAM FULL behind its counters, in steps.
struct Full {
    /// How much of each list is shown.
    count: usize,
    place: Place,
}

impl Full {
    /// Writes all before the first entry.
    fn begin(out: &mut ReplyWriter<'_>, stream: &Stream, count: usize) -> Full {
        out.map(9);
        reply_counters(out, stream);
        out.bulk(b"entries");
        let left = count.min(reply::stream_len(stream));
        out.array(left);
        Full { count, place: Place::Entries { from: StreamId::MIN, left } }
    }

    /// How many elements all lists have that it shows.
    fn size(&self, stream: &Stream) -> usize {
        let of_groups = stream.groups().flat_map(|group| {
            let of_consumers = group.consumers().map(|consumer| consumer.pending_len().min(self.count) + 1);
            of_consumers.chain([group.pending_len().min(self.count) + 1])
        });
        of_groups.sum::<usize>() + self.count.min(reply::stream_len(stream))
    }

    /// Writes some; true with the last.
    fn step(&mut self, stream: &Stream, out: &mut ReplyWriter<'_>) -> bool {
        let group_at = |at: usize| stream.groups().nth(at);
        self.place = match self.place {
            Place::Entries { left: 0, .. } => {
                out.bulk(b"groups");
                out.array(stream.groups().len());
                Place::Group(0)
            }
            Place::Entries { from, left } => {
                let (some, mut last) = (left.min(SHOWN_PER_STEP), from);
                for entry in stream.range(from, StreamId::MAX).take(some) {
                    last = entry.id;
                    reply::entry(out, entry);
                }
                Place::Entries { from: last.next().unwrap_or(last), left: left - some }
            }
            Place::Group(at) => {
                let Some(group) = group_at(at) else { return true };
                let left = self.count.min(group.pending_len());
                out.map(7);
                out.bulk(b"name");
                out.bulk(group.name());
                out.bulk(b"last-delivered-id");
                id::reply(out, group.last_id());
                reply_progress(out, stream, group);
                out.bulk(b"pel-count");
                out.int(group.pending_len() as i64);
                out.bulk(b"pending");
                out.array(left);
                Place::Pending { group: at, from: StreamId::MIN, left }
            }
            Place::Pending { group, left: 0, .. } => {
                out.bulk(b"consumers");
                out.array(group_at(group).map_or(0, |group| group.consumers().len()));
                Place::Consumer { group, consumer: 0 }
            }
            Place::Pending { group: at, from, left } => {
                let Some(group) = group_at(at) else { return true };
                let (some, mut last) = (left.min(SHOWN_PER_STEP), from);
                for (id, consumer, pending) in group.pending_from(from, None).take(some) {
                    out.array(4);
                    id::reply(out, id);
                    out.bulk(consumer.name());
                    out.int(pending.delivered_at_ms as i64);
                    out.int(i64::from(pending.deliveries));
                    last = id;
                }
                Place::Pending { group: at, from: last.next().unwrap_or(last), left: left - some }
            }
            Place::Consumer { group, consumer: at } => {
                match group_at(group).and_then(|group| group.consumers().nth(at)) {
                    None => Place::Group(group + 1),
                    Some(consumer) => {
                        let left = self.count.min(consumer.pending_len());
                        out.map(4);
                        out.bulk(b"name");
                        out.bulk(consumer.name());
                        out.bulk(b"seen-time");
                        out.int(consumer.seen_at_ms as i64);
                        out.bulk(b"pel-count");
                        out.int(consumer.pending_len() as i64);
                        out.bulk(b"pending");
                        out.array(left);
                        Place::OfConsumer { group, consumer: at, from: StreamId::MIN, left }
                    }
                }
            }
            Place::OfConsumer { group, consumer, left: 0, .. } => {
                Place::Consumer { group, consumer: consumer + 1 }
            }
            Place::OfConsumer { group: at, consumer, from, left } => {
                let Some(group) = group_at(at) else { return true };
                let (some, mut last) = (left.min(SHOWN_PER_STEP), from);
                for (id, _, pending) in group.pending_from(from, group.consumers().nth(consumer)).take(some) {
                    out.array(3);
                    id::reply(out, id);
                    out.int(pending.delivered_at_ms as i64);
                    out.int(i64::from(pending.deliveries));
                    last = id;
                }
                let from = last.next().unwrap_or(last);
                Place::OfConsumer { group: at, consumer, from, left: left - some }
            }
        };
        false
    }
}

fn reply_full(
    out: &mut ReplyWriter<'_>,
    later: &mut Later<'_>,
    stream: &Stream,
    count: usize,
    at_once: usize,
) {
    let mut full = Full::begin(out, stream, count);
    let (len, shown) = (reply::stream_len(stream), count.min(reply::stream_len(stream)));
    let is_big = full.size(stream) > at_once || is_long(shown, len, stream.heap_bytes());
    let later = later.as_deref_mut().filter(|_| is_big);
    reply_made(out, later, stream, move |held: &Stream, out| full.step(held, out));
}
