//! Taking over what other consumers have pending: XCLAIM by ids, XAUTOCLAIM by how long it has been idle.

use damselfly_keyspace::Class;
use damselfly_keyspace::stream::{Claim, Stream, StreamId};
use damselfly_protocol::number::parse_i64;

use super::{id, no_key_or_group, reply};
use crate::error::printable;
use crate::{Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Run, Spread};

pub(super) const XCLAIM: Command = Command {
    name: "XCLAIM",
    arity: Arity::AtLeast(6),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Stream,
    since: "5.0.0",
    syntax: "key group consumer min-idle-time id [id ...] [IDLE ms] [TIME unix-time-milliseconds] [RETRYCOUNT count] \
             [FORCE] [JUSTID] [LASTID lastid]",
    summary: "Gives pending entries to a consumer.",
    run: Run::Shard(xclaim),
};

/// What stands behind the ids of XCLAIM.
#[derive(Default)]
struct Options {
    force: bool,
    just_id: bool,
    /// The time of delivery to write. What makes no sense is the present.
    delivered_at: Option<i64>,
    deliveries: Option<u64>,
    last_id: StreamId,
}

fn take_options(args: &mut Args<'_>, now: i64) -> Result<Options, CommandError> {
    const IDLE: CommandError = CommandError::text("ERR Invalid IDLE option argument for XCLAIM");
    const TIME: CommandError = CommandError::text("ERR Invalid TIME option argument for XCLAIM");
    const RETRY_COUNT: CommandError = CommandError::text("ERR Invalid RETRYCOUNT option argument for XCLAIM");
    let mut options = Options::default();
    while !args.is_empty() {
        let more = args.len() > 1;
        if args.take_word("FORCE") {
            options.force = true;
        } else if args.take_word("JUSTID") {
            options.just_id = true;
        } else if more && args.take_word("IDLE") {
            let idle = parse_i64(args.take()?).ok_or(IDLE)?;
            options.delivered_at = Some(now.saturating_sub(idle));
        } else if more && args.take_word("TIME") {
            options.delivered_at = Some(parse_i64(args.take()?).ok_or(TIME)?);
        } else if more && args.take_word("RETRYCOUNT") {
            options.deliveries = u64::try_from(parse_i64(args.take()?).ok_or(RETRY_COUNT)?).ok();
        } else if more && args.take_word("LASTID") {
            options.last_id = id::exact(args.take()?)?;
        } else {
            let word = printable(args.take()?, usize::MAX);
            return Err(CommandError::owned(format!("ERR Unrecognized XCLAIM option '{word}'")));
        }
    }
    Ok(options)
}

fn xclaim(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    const MIN_IDLE: CommandError = CommandError::text("ERR Invalid min-idle-time argument for XCLAIM");
    let (key, group, consumer) = (args.take()?, args.take()?, args.take()?);
    let now = cx.ks.now;
    let stream = cx.ks.peek::<Stream>(cx.db, key)?;
    if stream.is_none_or(|stream| stream.group(group).is_none()) {
        return Err(no_key_or_group(key, group));
    }
    let min_idle = parse_i64(args.take()?).ok_or(MIN_IDLE)?;
    let mut ids = Vec::new();
    while let Some(id) = args.peek().and_then(|text| id::exact(text).ok()) {
        args.take()?;
        ids.push(id);
    }
    let now_signed = i64::try_from(now).unwrap_or(i64::MAX);
    let options = take_options(&mut args, now_signed)?;
    let delivered_at_ms = options.delivered_at.and_then(|at| u64::try_from(at).ok()).filter(|&at| at <= now);
    let claim = Claim {
        min_idle_ms: u64::try_from(min_idle).unwrap_or(0),
        delivered_at_ms: delivered_at_ms.unwrap_or(now),
        deliveries: options.deliveries,
        just_id: options.just_id,
        force: options.force,
    };
    let out = &mut cx.out;
    let array = out.deferred(ids.len());
    let edit = cx.ks.edit(cx.db, key, |stream: &mut Stream| {
        let state = |stream: &Stream| {
            let group = stream.group(group).expect("the group is there");
            (group.consumer(consumer).is_some(), group.last_id(), group.pending_len())
        };
        let before = state(stream);
        stream.advance_group(group, options.last_id).expect("the group is there");
        let mut claimed = 0;
        for id in ids {
            let entry = stream.claim(group, consumer, id, claim, now).expect("the group is there");
            if let Some(entry) = entry {
                claimed += 1;
                if options.just_id { id::reply(out, id) } else { reply::entry(out, entry) }
            }
        }
        let after = state(stream);
        (claimed, after.0 && !before.0, claimed > 0 || after != before)
    })?;
    let (claimed, created, changed) = edit.expect("the stream is there").value;
    out.fill_array(array, claimed);
    announce(cx, key, created, changed, "xclaim");
    Ok(())
}

/// Announces a consumer that was created, and a change of what is pending.
fn announce(cx: &mut Cx<'_>, key: &[u8], created: bool, changed: bool, name: &'static str) {
    if created {
        cx.changed(key, Class::Stream, "xgroup-createconsumer");
    }
    if changed {
        cx.changed(key, Class::Quiet, name);
    }
}

pub(super) const XAUTOCLAIM: Command = Command {
    name: "XAUTOCLAIM",
    arity: Arity::AtLeast(6),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Stream,
    since: "6.2.0",
    syntax: "key group consumer min-idle-time start [COUNT count] [JUSTID]",
    summary: "Gives entries that have been pending for long to a consumer.",
    run: Run::Shard(xautoclaim),
};

fn xautoclaim(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    const MIN_IDLE: CommandError = CommandError::text("ERR Invalid min-idle-time argument for XAUTOCLAIM");
    const COUNT: CommandError = CommandError::text("ERR COUNT must be > 0");
    /// So that ten times as many, and sixteen bytes for each, can still be counted.
    const COUNT_MAX: i64 = i64::MAX / 16;
    let (key, group, consumer) = (args.take()?, args.take()?, args.take()?);
    let min_idle = parse_i64(args.take()?).ok_or(MIN_IDLE)?;
    let start = id::start(args.take()?)?;
    let (mut count, mut just_id) = (100, false);
    while !args.is_empty() {
        if args.len() > 1 && args.take_word("COUNT") {
            count = parse_i64(args.take()?).filter(|count| (1..=COUNT_MAX).contains(count)).ok_or(COUNT)?;
        } else if args.take_word("JUSTID") {
            just_id = true;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    let (now, out) = (cx.ks.now, &mut cx.out);
    let min_idle = u64::try_from(min_idle).unwrap_or(0);
    let stream = cx.ks.peek::<Stream>(cx.db, key)?;
    let Some(found) = stream.and_then(|stream| stream.group(group)) else {
        return Err(no_key_or_group(key, group));
    };
    let known = found.consumer(consumer).is_some();
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let (mut entries, mut claimed) = (Vec::new(), 0);
    let mut writer = damselfly_protocol::ReplyWriter::new(&mut entries, out.proto());
    let edit = cx.ks.edit(cx.db, key, |stream: &mut Stream| {
        let deliver = |entry: damselfly_keyspace::stream::Entry<'_>| {
            claimed += 1;
            if just_id { id::reply(&mut writer, entry.id) } else { reply::entry(&mut writer, entry) }
        };
        stream.auto_claim(group, consumer, start, count, min_idle, just_id, now, deliver)
    })?;
    let done = edit.expect("the stream is there").value.expect("the group is there");
    out.array(3);
    id::reply(out, done.next);
    out.array(claimed);
    out.raw(&entries);
    out.array(done.deleted.len());
    done.deleted.iter().for_each(|&id| id::reply(out, id));
    announce(cx, key, claimed > 0 && !known, claimed > 0 || !done.deleted.is_empty(), "xautoclaim");
    Ok(())
}
