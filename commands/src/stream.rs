//! Streams: entries one by one and in ranges. Trimming is in `stream/trim.rs`, XREAD and XREADGROUP in
//! `stream/read.rs`, groups in `stream/group.rs`, taking over what others have pending in `stream/claim.rs`, XINFO in
//! `stream/info.rs`.
//!
//! A stream without entries stays a key, because its last id and its groups do. What groups read and acknowledge is
//! announced in a class that no notification tells of ([`Class::Quiet`]): the data changes, and whoever copies it
//! must know, but Redis has no event for it.

mod claim;
mod group;
mod id;
mod info;
mod read;
pub(crate) mod reply;
mod trim;

use damselfly_keyspace::Class;
use damselfly_keyspace::stream::{Stream, StreamId};

use crate::error::printable;
use crate::many::{ARGUMENTS_PER_STEP, are_many};
use crate::task::{Work, work};
use crate::{Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Run, Spread};
use claim::{XAUTOCLAIM, XCLAIM};
use group::{XACK, XGROUP, XPENDING};
use id::NewId;
use info::XINFO;
use read::{XREAD, XREADGROUP};
use trim::XTRIM;

pub(crate) const COMMANDS: &[&Command] = &[
    &XACK,
    &XADD,
    &XAUTOCLAIM,
    &XCLAIM,
    &XDEL,
    &XGROUP,
    &XINFO,
    &XLEN,
    &XPENDING,
    &XRANGE,
    &XREAD,
    &XREADGROUP,
    &XREVRANGE,
    &XSETID,
    &XTRIM,
];

/// The most bytes of one entry: what fits a node of Redis.
const ENTRY_LEN_MAX: usize = 1 << 30;

const NOT_ABOVE: CommandError =
    CommandError::text("ERR The ID specified in XADD is equal or smaller than the target stream top item");
const EXHAUSTED: CommandError =
    CommandError::text("ERR The stream has exhausted the last possible ID, unable to add more items");

/// No such key or group, for commands that want both.
fn no_key_or_group(key: &[u8], group: &[u8]) -> CommandError {
    let (key, group) = (printable(key, usize::MAX), printable(group, usize::MAX));
    CommandError::owned(format!("NOGROUP No such key '{key}' or consumer group '{group}'"))
}

/// No such group in a stream that is there.
fn no_group(key: &[u8], group: &[u8]) -> CommandError {
    let (key, group) = (printable(key, usize::MAX), printable(group, usize::MAX));
    CommandError::owned(format!("NOGROUP No such consumer group '{group}' for key name '{key}'"))
}

/// Arguments two by two, the last one left out if it is alone.
#[derive(Clone)]
struct Pairs<I>(I);

impl<'a, I: Iterator<Item = &'a [u8]>> Iterator for Pairs<I> {
    type Item = (&'a [u8], &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        Some((self.0.next()?, self.0.next()?))
    }
}

const XADD: Command = Command {
    name: "XADD",
    arity: Arity::AtLeast(5),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Stream,
    since: "5.0.0",
    syntax: "key [NOMKSTREAM] [<MAXLEN | MINID> [= | ~] threshold [LIMIT count]] <* | id> field value [field value ...]",
    summary: "Appends an entry to a stream.",
    run: Run::Shard(xadd),
};

fn xadd(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    const ZERO: CommandError = CommandError::text("ERR The ID specified in XADD must be greater than 0-0");
    const TOO_LARGE: CommandError = CommandError::text("ERR Elements are too large to be stored");
    let key = args.take()?;
    let limits = cx.env.stream_node;
    let options = trim::take_options(&mut args, true, limits)?;
    let new = options.id.filter(|_| !args.is_empty() && args.len().is_multiple_of(2));
    let Some(new) = new else { return Err(CommandError::arity("xadd")) };
    if new == NewId::Is(StreamId::MIN) {
        return Err(ZERO);
    }
    if args.rest().map(<[u8]>::len).sum::<usize>() > ENTRY_LEN_MAX {
        return Err(TOO_LARGE);
    }
    let now = cx.ks.now;
    // Nothing here refuses a first entry, so no stream is begun in vain.
    let add = |stream: &mut Stream| {
        let id = match new {
            _ if stream.last_id() == StreamId::MAX => return Err(EXHAUSTED),
            NewId::Auto => stream.next_id(now).ok_or(EXHAUSTED)?,
            NewId::In(ms) if ms < stream.last_id().ms => return Err(NOT_ABOVE),
            // Redis has no words of its own for a millisecond that is used up.
            NewId::In(ms) => stream.next_id_in(ms).ok_or(TOO_LARGE)?,
            NewId::Is(id) => id,
        };
        stream.append(id, Pairs(args.rest()), limits).map_err(|_| NOT_ABOVE)?;
        Ok((id, options.trimming.map_or(0, |trimming| trimming.apply(stream))))
    };
    let edit = if options.create {
        cx.ks.edit_or_new(cx.db, key, add)?
    } else if let Some(edit) = cx.ks.edit(cx.db, key, add)? {
        edit
    } else {
        cx.out.null();
        return Ok(());
    };
    let (id, trimmed) = edit.value?;
    cx.changed(key, Class::Stream, "xadd");
    if trimmed > 0 {
        cx.changed(key, Class::Stream, "xtrim");
    }
    id::reply(&mut cx.out, id);
    Ok(())
}

const XDEL: Command = Command {
    name: "XDEL",
    arity: Arity::AtLeast(3),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Stream,
    since: "5.0.0",
    syntax: "key id [id ...]",
    summary: "Removes entries of a stream; counts those that were there.",
    run: Run::Shard(xdel),
};

fn xdel(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    let Some(loc) = cx.ks.find_collection::<Stream>(cx.db, key)? else {
        cx.out.int(0);
        return Ok(());
    };
    let ids = args.rest().map(id::exact).collect::<Result<Vec<StreamId>, _>>()?;
    let in_steps = are_many(cx, ids.len());
    work(cx, key, loc, Deleting { ids: ids.into_iter(), deleted: 0 }, in_steps)
}

/// XDEL.
struct Deleting {
    ids: std::vec::IntoIter<StreamId>,
    deleted: usize,
}

impl Work for Deleting {
    type To = Stream;

    fn step(&mut self, stream: &mut Stream) -> bool {
        let some = self.ids.by_ref().take(ARGUMENTS_PER_STEP);
        self.deleted += some.filter(|&id| stream.delete(id)).count();
        self.ids.len() == 0
    }

    fn end(&mut self, cx: &mut Cx<'_>, key: &[u8], gone: Option<bool>) -> CmdResult {
        if self.deleted > 0 && gone.is_some() {
            cx.changed(key, Class::Stream, "xdel");
        }
        cx.out.int(self.deleted as i64);
        Ok(())
    }
}

const XLEN: Command = Command {
    name: "XLEN",
    arity: Arity::Exactly(2),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Stream,
    since: "5.0.0",
    syntax: "key",
    summary: "Returns the number of entries of a stream.",
    run: Run::Shard(xlen),
};

fn xlen(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let len = cx.ks.view::<Stream>(cx.db, args.take()?)?.map_or(0, Stream::len);
    cx.out.int(len as i64);
    Ok(())
}

const XRANGE: Command = Command {
    name: "XRANGE",
    arity: Arity::AtLeast(4),
    keys: Keys::First,
    flags: Flags::READ,
    spread: Spread::Single,
    group: Group::Stream,
    since: "5.0.0",
    syntax: "key start end [COUNT count]",
    summary: "Returns the entries of a stream between two ids.",
    run: Run::Shard(xrange),
};

fn xrange(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    range(cx, args, false)
}

const XREVRANGE: Command = Command {
    name: "XREVRANGE",
    arity: Arity::AtLeast(4),
    keys: Keys::First,
    flags: Flags::READ,
    spread: Spread::Single,
    group: Group::Stream,
    since: "5.0.0",
    syntax: "key end start [COUNT count]",
    summary: "Returns the entries of a stream between two ids, the newest first.",
    run: Run::Shard(xrevrange),
};

fn xrevrange(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    range(cx, args, true)
}

/// XRANGE and XREVRANGE. No COUNT means all, and a count of none has an answer of its own.
fn range(cx: &mut Cx<'_>, mut args: Args<'_>, reverse: bool) -> CmdResult {
    let (key, one, other) = (args.take()?, args.take()?, args.take()?);
    let (start, end) = if reverse { (other, one) } else { (one, other) };
    let (start, end) = (id::start(start)?, id::end(end)?);
    let mut count = usize::MAX;
    while !args.is_empty() {
        if args.len() < 2 || !args.take_word("COUNT") {
            return Err(CommandError::Syntax);
        }
        count = usize::try_from(args.take_int()?).unwrap_or(0);
    }
    let Some(stream) = cx.ks.view::<Stream>(cx.db, key)? else {
        cx.out.array(0);
        return Ok(());
    };
    if count == 0 {
        cx.out.null_array();
        return Ok(());
    }
    reply::entries_between(&mut cx.out, &mut cx.later, stream, (start, end), count, reverse);
    Ok(())
}

const XSETID: Command = Command {
    name: "XSETID",
    arity: Arity::AtLeast(3),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Stream,
    since: "5.0.0",
    syntax: "key last-id [ENTRIESADDED entries-added] [MAXDELETEDID max-deleted-id]",
    summary: "Sets the last id of a stream, and its counters.",
    run: Run::Shard(xsetid),
};

fn xsetid(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    const NEGATIVE: CommandError = CommandError::text("ERR entries_added must be positive");
    const BELOW_GIVEN_DELETED: CommandError = CommandError::text(
        "ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id",
    );
    const BELOW_TOP: CommandError =
        CommandError::text("ERR The ID specified in XSETID is smaller than the target stream top item");
    const BELOW_LEN: CommandError = CommandError::text(
        "ERR The entries_added specified in XSETID is smaller than the target stream length",
    );
    let (key, last_id) = (args.take()?, id::exact(args.take()?)?);
    let (mut added, mut max_deleted) = (None, StreamId::MIN);
    while !args.is_empty() {
        if args.len() > 1 && args.take_word("ENTRIESADDED") {
            added = Some(u64::try_from(args.take_int()?).map_err(|_| NEGATIVE)?);
        } else if args.len() > 1 && args.take_word("MAXDELETEDID") {
            max_deleted = id::exact(args.take()?)?;
            if last_id < max_deleted {
                return Err(BELOW_GIVEN_DELETED);
            }
        } else {
            return Err(CommandError::Syntax);
        }
    }
    let edit = cx.ks.edit(cx.db, key, |stream: &mut Stream| {
        if let Some(top) = stream.range_reverse(StreamId::MIN, StreamId::MAX).next() {
            if last_id < top.id {
                return Err(BELOW_TOP);
            }
            if added.is_some_and(|added| added < stream.len()) {
                return Err(BELOW_LEN);
            }
        }
        let added = added.unwrap_or(stream.entries_added());
        let max_deleted = if max_deleted == StreamId::MIN { stream.max_deleted_id() } else { max_deleted };
        stream.set_counters(last_id, added, max_deleted);
        Ok(())
    })?;
    edit.ok_or(CommandError::NoSuchKey)?.value?;
    cx.changed(key, Class::Group, "xsetid");
    cx.out.ok();
    Ok(())
}
