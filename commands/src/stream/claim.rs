//! Taking over what other consumers have pending: XCLAIM by ids, XAUTOCLAIM by how long it has been idle.

use damselfly_keyspace::stream::{AutoClaim, Claim, Stream, StreamId};
use damselfly_keyspace::{Class, Collection, UnixMs};
use damselfly_protocol::ReplyWriter;
use damselfly_protocol::number::parse_i64;

use super::{id, no_key_or_group, reply};
use crate::error::printable;
use crate::long::reply_made;
use crate::many::{ARGUMENTS_PER_STEP, are_many};
use crate::task::{Work, work};
use crate::{Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Run, Spread};

/// Entries that are written in one step.
const SHOWN_PER_STEP: usize = 32;

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
    let in_steps = are_many(cx, ids.len());
    let claiming = Claiming {
        group: group.into(),
        consumer: consumer.into(),
        ids: ids.into_iter(),
        claim,
        advance_to: options.last_id,
        now,
        state: None,
        claimed: Claimed::new(options.just_id, in_steps),
    };
    let loc = cx.ks.find_collection::<Stream>(cx.db, key)?.expect("the stream is there");
    work(cx, key, loc, claiming, in_steps)
}

/// What tells whether a group was changed: whether it has the consumer, its last id, and how much is pending.
type State = (bool, StreamId, usize);

/// XCLAIM.
struct Claiming {
    group: Box<[u8]>,
    consumer: Box<[u8]>,
    ids: std::vec::IntoIter<StreamId>,
    claim: Claim,
    /// LASTID.
    advance_to: StreamId,
    now: UnixMs,
    /// The group's state before the first step and behind the last.
    state: Option<(State, State)>,
    claimed: Claimed,
}

impl Claiming {
    fn state_of(&self, stream: &Stream) -> State {
        let group = stream.group(&self.group).expect("the group is there");
        (group.consumer(&self.consumer).is_some(), group.last_id(), group.pending_len())
    }
}

impl Work for Claiming {
    type To = Stream;

    fn step(&mut self, stream: &mut Stream) -> bool {
        let before = match self.state {
            Some((before, _)) => before,
            None => {
                let before = self.state_of(stream);
                stream.advance_group(&self.group, self.advance_to).expect("the group is there");
                before
            }
        };
        for id in self.ids.by_ref().take(ARGUMENTS_PER_STEP) {
            let entry = stream.claim(&self.group, &self.consumer, id, self.claim, self.now);
            if entry.expect("the group is there").is_some() {
                self.claimed.ids.push(id);
            }
        }
        self.state = Some((before, self.state_of(stream)));
        let is_over = self.ids.len() == 0;
        if is_over {
            self.claimed.end_with(stream);
        }
        is_over
    }

    fn end(&mut self, cx: &mut Cx<'_>, key: &[u8], gone: Option<bool>) -> CmdResult {
        let count = self.claimed.ids.len();
        cx.out.array(count);
        self.claimed.reply(cx, key)?;
        if let (Some(_), Some((before, after))) = (gone, self.state) {
            announce(cx, key, after.0 && !before.0, count > 0 || after != before, "xclaim");
        }
        Ok(())
    }
}

/// What was claimed, to be shown with its entries when all is done, from a clone if that was in steps.
struct Claimed {
    just_id: bool,
    ids: Vec<StreamId>,
    /// Those that are no longer in the stream, which XAUTOCLAIM tells behind the others.
    gone: Option<Vec<StreamId>>,
    in_steps: bool,
    held: Option<Stream>,
    /// How many of them all are written.
    written: usize,
}

impl Claimed {
    fn new(just_id: bool, in_steps: bool) -> Claimed {
        Claimed { just_id, ids: Vec::new(), gone: None, in_steps, held: None, written: 0 }
    }

    /// All was claimed from this stream.
    fn end_with(&mut self, stream: &Stream) {
        if self.in_steps {
            self.held = Some(stream.clone());
        }
    }

    /// Writes some, behind the head of the array; true with the last.
    fn write_some(&mut self, stream: &Stream, out: &mut ReplyWriter<'_>) -> bool {
        for _ in 0..SHOWN_PER_STEP {
            match self.ids.get(self.written) {
                Some(&id) if self.just_id => id::reply(out, id),
                Some(&id) => reply::entry(out, stream.get(id).expect("only what is there is claimed")),
                None => {
                    let Some(gone) = &self.gone else { return true };
                    let at = self.written - self.ids.len();
                    if at == 0 {
                        out.array(gone.len());
                    }
                    match gone.get(at) {
                        Some(&id) => id::reply(out, id),
                        None => return true,
                    }
                }
            }
            self.written += 1;
        }
        false
    }

    /// Writes all, behind the head of the array. Nothing follows.
    fn reply(&mut self, cx: &mut Cx<'_>, key: &[u8]) -> CmdResult {
        let mut claimed = std::mem::replace(self, Claimed::new(false, false));
        let Some(held) = claimed.held.take() else {
            let stream = cx.ks.peek::<Stream>(cx.db, key)?.expect("nothing came in between");
            while !claimed.write_some(stream, &mut cx.out) {}
            return Ok(());
        };
        let step = move |held: &Stream, out: &mut ReplyWriter<'_>| claimed.write_some(held, out);
        reply_made(&mut cx.out, cx.later.as_deref_mut(), &held, step);
        cx.ks.discard(held.wrap());
        Ok(())
    }
}

/// Announces a consumer that was created, and a change of what is pending.
fn announce(cx: &mut Cx<'_>, key: &[u8], created: bool, changed: bool, name: &'static str) {
    if created {
        cx.changed(key, Class::Group, "xgroup-createconsumer");
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
    let min_idle_ms = u64::try_from(min_idle).unwrap_or(0);
    let loc = cx.ks.find_collection::<Stream>(cx.db, key)?.ok_or_else(|| no_key_or_group(key, group))?;
    let stream = cx.ks.collection::<Stream>(cx.db, loc)?;
    let found = stream.group(group).ok_or_else(|| no_key_or_group(key, group))?;
    let (known, all) = (found.consumer(consumer).is_some(), found.pending_len());
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    // As many as Redis looks at to find `count`.
    let looks = count.saturating_mul(10);
    let in_steps = are_many(cx, all.min(looks));
    let claiming = AutoClaiming {
        group: group.into(),
        consumer: consumer.into(),
        known,
        from: start,
        left: AutoClaim { min_idle_ms, just_id, looks, count },
        now: cx.ks.now,
        claimed: Claimed { gone: Some(Vec::new()), ..Claimed::new(just_id, in_steps) },
    };
    work(cx, key, loc, claiming, in_steps)
}

/// XAUTOCLAIM.
struct AutoClaiming {
    group: Box<[u8]>,
    consumer: Box<[u8]>,
    /// The consumer was there before.
    known: bool,
    /// Where to go on.
    from: StreamId,
    /// What is still to be claimed and looked at.
    left: AutoClaim,
    now: UnixMs,
    claimed: Claimed,
}

impl Work for AutoClaiming {
    type To = Stream;

    fn step(&mut self, stream: &mut Stream) -> bool {
        let AutoClaiming { group, consumer, from, left, now, claimed, .. } = self;
        let looks = left.looks.min(ARGUMENTS_PER_STEP);
        let before = claimed.ids.len();
        let claim = AutoClaim { looks, ..*left };
        let done = stream.auto_claim(group, consumer, *from, claim, *now, |entry| claimed.ids.push(entry.id));
        let done = done.expect("the group is there");
        *from = done.next;
        left.looks -= done.looks;
        left.count -= claimed.ids.len() - before + done.deleted.len();
        claimed.gone.get_or_insert_default().extend(done.deleted);
        let is_over = left.looks == 0 || left.count == 0 || *from == StreamId::MIN;
        if is_over {
            claimed.end_with(stream);
        }
        is_over
    }

    fn end(&mut self, cx: &mut Cx<'_>, key: &[u8], gone: Option<bool>) -> CmdResult {
        let claims = !self.claimed.ids.is_empty();
        let changes = claims || self.claimed.gone.as_ref().is_some_and(|gone| !gone.is_empty());
        cx.out.array(3);
        id::reply(&mut cx.out, self.from);
        cx.out.array(self.claimed.ids.len());
        self.claimed.reply(cx, key)?;
        if gone.is_some() {
            announce(cx, key, claims && !self.known, changes, "xautoclaim");
        }
        Ok(())
    }
}
