//! XREAD and XREADGROUP.
//!
//! Three steps, because a client may wait between the second and the third: what was asked ([`Read::parse`]), from
//! where on in each stream as things are at this moment ([`Read::resolve`]), and what is there ([`read_streams`]),
//! which can be tried again with the same positions whenever something was added.

use damselfly_keyspace::stream::{Consumer, Stream, StreamId};
use damselfly_keyspace::{Class, Collection, Loc, UnixMs};
use damselfly_protocol::{Argv, Proto, ReplyWriter};

use super::{id, reply};
use crate::blocking::{Blocking, Wait, at_once, parse_timeout_ms};
use crate::error::printable;
use crate::long::{is_long, reply_made};
use crate::many::are_many;
use crate::task::{Work, work};
use crate::{Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Run, Spread};

/// Entries that are delivered in one step, and that are written in one.
const DELIVERED_PER_STEP: usize = 128;
const SHOWN_PER_STEP: usize = 32;

pub(super) const XREAD: Command = Command {
    name: "XREAD",
    arity: Arity::AtLeast(4),
    keys: Keys::By(stream_keys),
    flags: Flags::READ.with(Flags::BLOCKING).with(Flags::MOVABLE_KEYS),
    spread: Spread::Together,
    group: Group::Stream,
    since: "5.0.0",
    syntax: "[COUNT count] [BLOCK milliseconds] STREAMS key [key ...] id [id ...]",
    summary: "Returns the entries of streams behind given ids.",
    run: Run::Block(&XREAD_WAITS),
};

pub(super) const XREADGROUP: Command = Command {
    name: "XREADGROUP",
    arity: Arity::AtLeast(7),
    keys: Keys::By(stream_keys),
    flags: Flags::WRITE.with(Flags::BLOCKING).with(Flags::MOVABLE_KEYS),
    spread: Spread::Together,
    group: Group::Stream,
    since: "5.0.0",
    syntax: "GROUP group consumer [COUNT count] [BLOCK milliseconds] [NOACK] STREAMS key [key ...] id [id ...]",
    summary: "Returns new entries to a consumer of a group, or those that it has pending.",
    run: Run::Block(&XREADGROUP_WAITS),
};

static XREAD_WAITS: Blocking = BASE;

const BASE: Blocking = Blocking {
    once: |cx, args| read(cx, args, false),
    wait: |args| wait(args, false),
    mark: |cx, args, at| mark(cx, args, at, false),
    ready: |cx, args, at, mark| ready(cx, args, at, mark, false),
    in_steps: at_once,
    take: |cx, args, at, mark| take(cx, args, at, mark, false),
    first_only: false,
    exclusive: false,
    needs_keys: false,
    gather: true,
    nothing: |out| out.null_array(),
};

static XREADGROUP_WAITS: Blocking = Blocking {
    once: |cx, args| read(cx, args, true),
    wait: |args| wait(args, true),
    mark: |cx, args, at| mark(cx, args, at, true),
    ready: |cx, args, at, mark| ready(cx, args, at, mark, true),
    in_steps: takes_long,
    take: |cx, args, at, mark| take(cx, args, at, mark, true),
    needs_keys: true,
    ..BASE
};

/// The first half of what is behind STREAMS.
fn stream_keys(argv: &Argv<'_>, positions: &mut Vec<usize>) {
    let mut at = 1;
    while let Some(word) = argv.get(at) {
        at += match word.to_ascii_lowercase().as_slice() {
            b"block" | b"count" => 2,
            b"group" => 3,
            b"noack" => 1,
            b"streams" => {
                let count = argv.len() - at - 1;
                if count.is_multiple_of(2) {
                    positions.extend(at + 1..at + 1 + count / 2);
                }
                return;
            }
            _ => return,
        };
    }
}

fn read(cx: &mut Cx<'_>, args: Args<'_>, of_group: bool) -> CmdResult {
    // The rest of one stream would come in the middle of a reply.
    cx.later = None;
    let read = Read::parse(args, of_group)?;
    let from = read.resolve(cx)?;
    match read_streams(cx, &read, &from)? {
        Outcome::Served => {}
        Outcome::NotYet => cx.out.null_array(),
    }
    Ok(())
}

fn wait(args: Args<'_>, of_group: bool) -> Result<Wait, CommandError> {
    Ok(Read::parse(args, of_group)?.wait)
}

/// Where a key is read from: an id, or nothing for what the group has not read.
fn mark(cx: &mut Cx<'_>, args: Args<'_>, at: usize, of_group: bool) -> Result<Vec<u8>, CommandError> {
    let read = Read::parse(args, of_group)?;
    let (key, text) = read.pair(args, at)?;
    Ok(match read.resolve_one(cx, key, text)? {
        From::After(id) => [id.ms.to_be_bytes(), id.seq.to_be_bytes()].concat(),
        From::Unread => Vec::new(),
    })
}

/// The other way round.
fn from_mark(mark: &[u8]) -> From {
    match mark.split_first_chunk() {
        Some((ms, seq)) => {
            let seq = u64::from_be_bytes(seq.try_into().expect("a mark is two numbers"));
            From::After(StreamId { ms: u64::from_be_bytes(*ms), seq })
        }
        None => From::Unread,
    }
}

fn ready(
    cx: &mut Cx<'_>,
    args: Args<'_>,
    at: usize,
    mark: &[u8],
    of_group: bool,
) -> Result<bool, CommandError> {
    let read = Read::parse(args, of_group)?;
    let (key, _) = read.pair(args, at)?;
    let stream = cx.ks.peek::<Stream>(cx.db, key);
    let Some((name, _)) = read.reader else {
        let From::After(after) = from_mark(mark) else { unreachable!("only groups know what is unread") };
        return Ok(stream?.is_some_and(|stream| has_after(stream, after)));
    };
    // When the waiting began there was the stream and the group: what `mark` has checked.
    let Ok(Some(stream)) = stream else { return Err(STREAM_GONE) };
    let Some(group) = stream.group(name) else { return Err(GROUP_GONE) };
    Ok(match from_mark(mark) {
        From::Unread => has_after(stream, group.last_id()),
        // What a consumer has pending is an answer, even if it is nothing.
        From::After(_) => true,
    })
}

const STREAM_GONE: CommandError = CommandError::text("UNBLOCKED the stream key no longer exists");
const GROUP_GONE: CommandError =
    CommandError::text("NOGROUP the consumer group this client was blocked on no longer exists");

fn has_after(stream: &Stream, after: StreamId) -> bool {
    let start = after.next().filter(|&start| start <= stream.last_id());
    start.is_some_and(|start| stream.range(start, StreamId::MAX).next().is_some())
}

fn take(cx: &mut Cx<'_>, args: Args<'_>, at: usize, mark: &[u8], of_group: bool) -> CmdResult {
    let read = Read::parse(args, of_group)?;
    let (key, _) = read.pair(args, at)?;
    let from = from_mark(mark);
    match read.reader {
        None => read_entries(cx, &read, key, from)?,
        Some((group, consumer)) => read_as(cx, &read, key, from, group, consumer)?,
    };
    Ok(())
}

fn takes_long(cx: &mut Cx<'_>, args: Args<'_>, at: usize, mark: &[u8]) -> Result<bool, CommandError> {
    let read = Read::parse(args, true)?;
    let (key, _) = read.pair(args, at)?;
    let Some((group, consumer)) = read.reader else { return Ok(false) };
    Ok(begin_long(cx, &read, key, from_mark(mark), group, consumer)?.is_some())
}

/// What was asked.
struct Read<'a> {
    wait: Wait,
    /// The group and the consumer of XREADGROUP.
    reader: Option<(&'a [u8], &'a [u8])>,
    no_ack: bool,
    count: usize,
    /// Keys, and behind them as many ids.
    streams: Args<'a>,
}

/// Where reading of a stream begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// Behind this id: entries of the stream, or with a group those that the consumer has pending.
    After(StreamId),
    /// Behind what the group has read.
    Unread,
}

/// What came of a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// The reply is written.
    Served,
    /// There is nothing in any stream, and nothing is written.
    NotYet,
}

/// The highest id is XREADGROUP's `>` to Redis, in whichever way it is written.
const UNREAD: StreamId = StreamId::MAX;

impl<'a> Read<'a> {
    fn parse(mut args: Args<'a>, of_group: bool) -> Result<Read<'a>, CommandError> {
        const GROUP: CommandError = CommandError::text(
            "ERR The GROUP option is only supported by XREADGROUP. You called XREAD instead.",
        );
        const NO_ACK: CommandError = CommandError::text(
            "ERR The NOACK option is only supported by XREADGROUP. You called XREAD instead.",
        );
        const UNBALANCED: CommandError = CommandError::text(
            "ERR Unbalanced XREAD list of streams: for each stream key an ID or '$' must be specified.",
        );
        const NO_GROUP: CommandError = CommandError::text("ERR Missing GROUP option for XREADGROUP");
        let mut read =
            Read { wait: Wait::Never, reader: None, no_ack: false, count: usize::MAX, streams: args };
        loop {
            let more = args.len().checked_sub(1).ok_or(CommandError::Syntax)?;
            if more > 0 && args.take_word("BLOCK") {
                read.wait = parse_timeout_ms(args.take()?)?;
            } else if more > 0 && args.take_word("COUNT") {
                read.count = match args.take_int()? {
                    ..=0 => usize::MAX,
                    count => usize::try_from(count).unwrap_or(usize::MAX),
                };
            } else if more > 0 && args.take_word("STREAMS") {
                break;
            } else if more > 1 && args.take_word("GROUP") {
                if !of_group {
                    return Err(GROUP);
                }
                read.reader = Some((args.take()?, args.take()?));
            } else if args.take_word("NOACK") {
                if !of_group {
                    return Err(NO_ACK);
                }
                read.no_ack = true;
            } else {
                return Err(CommandError::Syntax);
            }
        }
        if !args.len().is_multiple_of(2) {
            return Err(UNBALANCED);
        }
        if of_group && read.reader.is_none() {
            return Err(NO_GROUP);
        }
        read.streams = args;
        Ok(read)
    }

    /// The keys with their ids.
    fn pairs(&self) -> impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let count = self.streams.len() / 2;
        self.streams.rest().take(count).zip(self.streams.rest().skip(count))
    }

    /// The pair whose key is argument `at`.
    fn pair(&self, args: Args<'a>, at: usize) -> Result<(&'a [u8], &'a [u8]), CommandError> {
        let number = at.checked_sub(args.len() - self.streams.len()).ok_or(CommandError::Syntax)?;
        self.pairs().nth(number).ok_or(CommandError::Syntax)
    }

    /// Where each stream is read from, its end (`$`, `+`) being where it is now.
    fn resolve(&self, cx: &mut Cx<'_>) -> Result<Vec<From>, CommandError> {
        self.pairs().map(|(key, text)| self.resolve_one(cx, key, text)).collect()
    }

    fn resolve_one(&self, cx: &mut Cx<'_>, key: &[u8], text: &[u8]) -> Result<From, CommandError> {
        const END: CommandError = CommandError::text(
            "ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the history of this \
             consumer by specifying a proper ID, or use the > ID to get new messages. The $ ID would just return \
             an empty result set.",
        );
        const LAST: CommandError = CommandError::text(
            "ERR The + ID is meaningless in the context of XREADGROUP: you want to read the history of this \
             consumer by specifying a proper ID, or use the > ID to get new messages. The + ID would just return \
             an empty result set.",
        );
        const NOT_OF_GROUP: CommandError = CommandError::text(
            "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option.",
        );
        let stream = cx.ks.view::<Stream>(cx.db, key)?;
        if let Some((group, _)) = self.reader
            && stream.is_none_or(|stream| stream.group(group).is_none())
        {
            return Err(no_group(key, group));
        }
        let of_group = self.reader.is_some();
        Ok(match text {
            b"$" if of_group => return Err(END),
            b"$" => From::After(stream.map_or(StreamId::MIN, Stream::last_id)),
            b"+" if of_group => return Err(LAST),
            b"+" => From::After(stream.map_or(StreamId::MIN, before_last)),
            b">" if of_group => From::Unread,
            b">" => return Err(NOT_OF_GROUP),
            _ => match id::exact(text)? {
                UNREAD if of_group => From::Unread,
                id => From::After(id),
            },
        })
    }
}

/// The id behind which there is only the last entry; the end of a stream without entries.
fn before_last(stream: &Stream) -> StreamId {
    let last = stream.range_reverse(StreamId::MIN, StreamId::MAX).next();
    last.and_then(|entry| entry.id.previous()).unwrap_or(stream.last_id())
}

fn no_group(key: &[u8], group: &[u8]) -> CommandError {
    let (key, group) = (printable(key, usize::MAX), printable(group, usize::MAX));
    CommandError::owned(format!(
        "NOGROUP No such key '{key}' or consumer group '{group}' in XREADGROUP with GROUP option"
    ))
}

/// Replies with what there is: an array, in RESP3 a map, of the streams that have something, in the order asked for.
fn read_streams(cx: &mut Cx<'_>, read: &Read<'_>, from: &[From]) -> Result<Outcome, CommandError> {
    let before = cx.out.len();
    let streams = cx.out.deferred(from.len());
    let mut served = 0;
    for ((key, _), from) in read.pairs().zip(from) {
        served += usize::from(match read.reader {
            None => read_entries(cx, read, key, *from)?,
            Some((group, consumer)) => read_as(cx, read, key, *from, group, consumer)?,
        });
    }
    if served == 0 {
        cx.out.truncate(before);
        return Ok(Outcome::NotYet);
    }
    match cx.out.proto() {
        Proto::Resp2 => cx.out.fill_array(streams, served),
        Proto::Resp3 => cx.out.fill_map(streams, served),
    }
    Ok(Outcome::Served)
}

/// Begins the part of a stream: its key and its entries, which are a pair only in RESP2.
fn begin(out: &mut ReplyWriter<'_>, key: &[u8]) {
    if out.proto() == Proto::Resp2 {
        out.array(2);
    }
    out.bulk(key);
}

/// XREAD of one stream; whether there was something.
fn read_entries(cx: &mut Cx<'_>, read: &Read<'_>, key: &[u8], from: From) -> Result<bool, CommandError> {
    let From::After(after) = from else { unreachable!("only groups know what is unread") };
    let Some(stream) = cx.ks.peek::<Stream>(cx.db, key)? else { return Ok(false) };
    let Some(start) = after.next().filter(|&start| start <= stream.last_id()) else { return Ok(false) };
    if stream.range(start, StreamId::MAX).next().is_none() {
        return Ok(false);
    }
    begin(&mut cx.out, key);
    reply::entries_between(&mut cx.out, &mut cx.later, stream, (start, StreamId::MAX), read.count, false);
    Ok(true)
}

/// XREADGROUP of one stream; whether there was something. What a consumer has pending is something even if it is
/// nothing.
fn read_as(
    cx: &mut Cx<'_>,
    read: &Read<'_>,
    key: &[u8],
    from: From,
    group: &[u8],
    consumer: &[u8],
) -> Result<bool, CommandError> {
    if let Some(loc) = begin_long(cx, read, key, from, group, consumer)? {
        let reading = Reading {
            group: group.into(),
            consumer: consumer.into(),
            from,
            left: read.count,
            no_ack: read.no_ack,
            now: cx.ks.now,
            created: false,
            delivered: 0,
            first: StreamId::MAX,
            last: StreamId::MIN,
            held: None,
        };
        work(cx, key, loc, reading, true)?;
        return Ok(true);
    }
    let (now, out) = (cx.ks.now, &mut cx.out);
    let before = out.len();
    begin(out, key);
    let edit = cx.ks.edit(cx.db, key, |stream: &mut Stream| {
        let known = stream.group(group).is_some_and(|group| group.consumer(consumer).is_some());
        let count = read.count.min(usize::try_from(stream.len()).unwrap_or(usize::MAX));
        let entries = out.deferred(count);
        let delivered = match from {
            From::Unread => stream
                .read_new(group, consumer, read.count, read.no_ack, now, |entry| reply::entry(out, entry)),
            From::After(after) => {
                stream.read_pending(group, consumer, after, read.count, now, |id, entry| match entry {
                    Some(entry) => reply::entry(out, entry),
                    None => reply::gone(out, id),
                })
            }
        };
        let delivered = delivered.map_err(|_| no_group(key, group))?;
        out.fill_array(entries, delivered);
        Ok::<(usize, bool), CommandError>((delivered, known))
    })?;
    let Some(edit) = edit else { return Err(no_group(key, group)) };
    let (delivered, known) = edit.value?;
    if from == From::Unread && delivered == 0 {
        out.truncate(before);
        return Ok(false);
    }
    if !known {
        cx.changed(key, Class::Group, "xgroup-createconsumer");
    }
    cx.changed(key, Class::Quiet, "xreadgroup");
    Ok(true)
}

/// Where the stream is if XREADGROUP has so much to deliver of it that this is done in steps.
fn begin_long(
    cx: &mut Cx<'_>,
    read: &Read<'_>,
    key: &[u8],
    from: From,
    group: &[u8],
    consumer: &[u8],
) -> Result<Option<Loc>, CommandError> {
    if cx.later.is_none() {
        return Ok(None);
    }
    let Some(loc) = cx.ks.find_collection::<Stream>(cx.db, key)? else { return Ok(None) };
    let stream = cx.ks.collection::<Stream>(cx.db, loc)?;
    let (len, heap) = (reply::stream_len(stream), stream.heap_bytes());
    let is_big = |count: usize| are_many(cx, count) || is_long(count, len, heap);
    let Some(group) = stream.group(group).filter(|_| is_big(len.min(read.count))) else { return Ok(None) };
    let delivered = match from {
        From::Unread => {
            let start = group.last_id().next();
            start.map_or(0, |start| usize::try_from(stream.count(start, StreamId::MAX)).unwrap_or(usize::MAX))
        }
        From::After(_) => group.consumer(consumer).map_or(0, Consumer::pending_len),
    };
    Ok(Some(loc).filter(|_| delivered > 0 && is_big(delivered.min(read.count))))
}

/// XREADGROUP of much of one stream, in steps: first it is delivered, then shown in pieces, from a clone.
struct Reading {
    group: Box<[u8]>,
    consumer: Box<[u8]>,
    /// Where to go on.
    from: From,
    /// How many more may be delivered.
    left: usize,
    no_ack: bool,
    now: UnixMs,
    /// The consumer is a new one.
    created: bool,
    delivered: usize,
    /// The first and the last of what was delivered.
    first: StreamId,
    last: StreamId,
    /// The stream when all was delivered.
    held: Option<Stream>,
}

impl Work for Reading {
    type To = Stream;

    fn step(&mut self, stream: &mut Stream) -> bool {
        let Reading { group, consumer, now, .. } = self;
        if self.delivered == 0 {
            self.created = stream.group(group).is_some_and(|group| group.consumer(consumer).is_none());
        }
        let wanted = self.left.min(DELIVERED_PER_STEP);
        let (mut first, mut last) = (self.first, self.last);
        let mut note = |id: StreamId| (first, last) = (first.min(id), last.max(id));
        let delivered = match self.from {
            From::Unread => {
                stream.read_new(group, consumer, wanted, self.no_ack, *now, |entry| note(entry.id))
            }
            From::After(after) => stream.read_pending(group, consumer, after, wanted, *now, |id, _| note(id)),
        };
        let delivered = delivered.expect("the group is there");
        (self.first, self.last) = (first, last);
        self.delivered += delivered;
        self.left -= delivered;
        if matches!(self.from, From::After(_)) && delivered > 0 {
            self.from = From::After(last);
        }
        let is_over = delivered < wanted || self.left == 0;
        if is_over {
            self.held = Some(stream.clone());
        }
        is_over
    }

    fn end(&mut self, cx: &mut Cx<'_>, key: &[u8], gone: Option<bool>) -> CmdResult {
        let held = self.held.take().expect("all steps were done");
        begin(&mut cx.out, key);
        if self.from == From::Unread {
            let span = (self.first, self.last);
            reply::entries_between(&mut cx.out, &mut cx.later, &held, span, self.delivered, false);
        } else {
            self.reply_pending(cx, &held);
        }
        cx.ks.discard(held.wrap());
        if gone.is_some() {
            if self.created {
                cx.changed(key, Class::Group, "xgroup-createconsumer");
            }
            cx.changed(key, Class::Quiet, "xreadgroup");
        }
        Ok(())
    }
}

impl Reading {
    /// Shows what the consumer has pending.
    fn reply_pending(&mut self, cx: &mut Cx<'_>, held: &Stream) {
        let (group, consumer) = (std::mem::take(&mut self.group), std::mem::take(&mut self.consumer));
        let (mut from, mut left) = (self.first, self.delivered);
        cx.out.array(left);
        let step = move |held: &Stream, out: &mut ReplyWriter<'_>| {
            let consumer = held.group(&group).and_then(|group| group.consumer(&consumer));
            let mut last = from;
            for id in consumer.expect("what reads is there").pending_from(from).take(left.min(SHOWN_PER_STEP))
            {
                match held.get(id) {
                    Some(entry) => reply::entry(out, entry),
                    None => reply::gone(out, id),
                }
                (last, left) = (id, left - 1);
            }
            from = last.next().unwrap_or(last);
            left == 0
        };
        reply_made(&mut cx.out, cx.later.as_deref_mut(), held, step);
    }
}
