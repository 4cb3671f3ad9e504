//! From bytes to replies.
//!
//! What one read brought is scanned whole, then *prepared* (each request's command is looked up, its key hashed, its
//! shard found, the memory it will touch asked for), then run in order. A request for this core's shard runs at once
//! and writes into the connection's output; one for another core goes into that core's batch and leaves a hole; one
//! that needs several shards or the whole server makes the connection wait, and the requests behind it are queued.

use std::cell::Cell;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::Ordering;

use damselfly_commands::sort::Sort;
use damselfly_commands::{
    Args, CmdResult, Command, Cx, Env, Flags, Found, Group, Handler, Keys, Later, Rest, Run, Spread, lookup,
};
use damselfly_keyspace::{Ahead, Db, Keyspace};
use damselfly_protocol::number::parse_f64;
use damselfly_protocol::{Argv, Proto, ProtocolError, ReplyWriter, Requests};

use crate::batch::{Batch, Entry};
use crate::blocking::{Reach, brings};
use crate::connection::{ConnectionId, Listener, Queued, ReplyMode};
use crate::core::{Core, OUTPUT_RUN_MAX};
use crate::locks::{Scope, Ticket, lock_number};
use crate::mailbox::Message;
use crate::modes::Modes;
use crate::scripts::{Claim, Parked, allowed_while_busy, exec_refused};
use crate::server_commands::{self, subcommands::Subcommand};
use crate::stats::{Slow, Stopwatch, shown_args, timed_in_runs};
use crate::tracking::Reader;
use crate::transaction::{comes_behind_replies, is_queued};

/// Requests scanned at once. Enough for the usual pipelines, and what is prepared for them stays in the first-level
/// cache.
const REQUESTS_PER_SCAN: usize = 128;

/// Redis' answer to a command that would grow memory beyond its limit.
pub(crate) const OUT_OF_MEMORY: &str = "OOM command not allowed when used memory > 'maxmemory'.";

/// Bytes of an argument or a reply from which a command is timed alone: it may be slow for its length.
const LONG: usize = 64 * 1024;
/// Nanoseconds of a command that nobody would call slow; whoever wants to hear of it has all commands timed alone.
const SHORT: u64 = 1_000_000;

thread_local! {
    /// What this thread is running, for the message of a broken invariant.
    static RUNNING: Cell<(&'static str, usize)> = const { Cell::new(("nothing", 0)) };
}

/// Command and shard that this thread is running.
pub fn running() -> (&'static str, usize) {
    RUNNING.get()
}

/// Notes what this thread is about to run.
pub(crate) fn set_running(name: &'static str, shard: usize) {
    RUNNING.set((name, shard));
}

/// Where a request runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// On this core.
    Here,
    /// On that core.
    There(usize),
    /// On several.
    Spread,
}

/// A request looked at before it is run.
#[derive(Clone, Copy)]
pub struct Prepared {
    found: Option<Found>,
    route: Route,
    /// Of the key to load ahead; zero if there is none.
    hash: u64,
    /// See [`Known::is_simple`]; and it is for this core, and has as many arguments as it may have.
    is_simple: bool,
}

/// What a name stands for.
#[derive(Clone, Copy)]
struct Known {
    found: Option<Found>,
    /// It is run by a shard, and anybody may run it: what is true of the connection for many requests at once need not
    /// be asked for each (see [`Core::is_unhindered`]).
    is_simple: bool,
}

impl Prepared {
    /// The name of its command, if that runs on this core.
    pub(crate) fn here(&self) -> Option<&'static str> {
        self.found.filter(|_| self.route == Route::Here).map(|found| found.command.name)
    }
}

/// Whose request it was, for the slow log.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sender {
    /// A connection of this core.
    Here(ConnectionId),
    /// A connection of that core.
    There(usize, ConnectionId),
}

impl Sender {
    /// A client, as core `here` sees it.
    pub(crate) fn of(client: Reader, here: usize) -> Sender {
        if client.core == here { Sender::Here(client.id) } else { Sender::There(client.core, client.id) }
    }
}

/// What happens to the requests behind one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// They are run.
    Next,
    /// They wait: this one is being carried out elsewhere, or the connection closes.
    Pause,
    /// They wait, and this one too, which has not begun.
    Hold,
}

/// What became of a request that was run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ran {
    /// So many bytes were answered, and this happens to the requests behind it.
    Over(usize, Flow),
    /// It goes on in steps, and those behind it wait.
    InSteps,
}

/// Whether a command is not known to be quick, or has a long value.
#[inline]
fn may_be_slow(command: &Command, argv: &Argv<'_>) -> bool {
    !timed_in_runs(command) || argv[argv.len() - 1].len() > LONG
}

/// The key that is worth loading ahead of a command: the only one or one of two, or a script's first. A command with more
/// loads them itself ([`Cx::load_ahead`](damselfly_commands::Cx::load_ahead)).
#[inline]
fn likely_key<'a>(command: &Command, argv: &Argv<'a>) -> Option<&'a [u8]> {
    match (command.keys, command.run) {
        (Keys::First, _) => argv.get(1),
        (Keys::Range { first: 1, .. }, _) if argv.len() <= 3 => argv.get(1),
        (_, Run::Script(_)) => argv.get(3),
        _ => None,
    }
}

/// Asks for the memory that requests will touch: first all buckets, then all entries, so that their misses overlap.
/// Measured at pipeline 32 over a million keys: 30 % less time per GET. Then the same for what is looked for inside big
/// collections, where the misses are the command's own. Each of `coming` is a request's number, its database, the hash of
/// its key (zero if none is known) and its command.
fn load_ahead<'d, 'a>(
    coming: impl Iterator<Item = (usize, &'d Db, u64, &'static Command)> + Clone,
    argv: impl Fn(usize) -> Argv<'a>,
) {
    let coming = coming.filter(|(_, _, hash, _)| *hash != 0);
    for (_, db, hash, _) in coming.clone() {
        db.prefetch(hash);
    }
    for (_, db, hash, command) in coming.clone() {
        db.prefetch_entry(hash);
        if command.flags.has(Flags::GROWS) {
            db.prefetch_past(hash);
        }
    }
    let mut ahead = Ahead::default();
    for (at, db, hash, command) in coming {
        aim(&mut ahead, db, hash, command, argv(at));
    }
    ahead.load();
}

/// Notes what a command will look for inside a big collection.
fn aim<'a>(ahead: &mut Ahead<'a>, db: &'a Db, hash: u64, command: &Command, argv: Argv<'a>) {
    let (member, score) = match command.group {
        Group::Hash | Group::Set => (2, None),
        Group::SortedSet => match command.name {
            "ZADD" if argv.len() == 4 => (3, argv.get(2).and_then(parse_f64)),
            "ZINCRBY" => (3, None),
            "ZSCORE" | "ZMSCORE" | "ZREM" | "ZRANK" | "ZREVRANK" => (2, None),
            _ => return,
        },
        _ => return,
    };
    if let (Some(key), Some(member)) = (argv.get(1), argv.get(member)) {
        ahead.aim(db, hash, key, member, score);
    }
}

impl Core {
    /// Runs the requests in `bytes` as far as the connection may go on; returns how many bytes are used up.
    pub(crate) fn run_bytes(&mut self, id: ConnectionId, bytes: &[u8]) -> usize {
        if self.connection(id).is_some_and(|connection| connection.fresh) && self.is_http(id, bytes) {
            return bytes.len();
        }
        let limits = self.limits;
        let at_once = REQUESTS_PER_SCAN.min(self.pipeline_max);
        let mut at = 0;
        loop {
            let mut requests = std::mem::take(&mut self.requests);
            let Some(connection) = self.connection(id) else { return bytes.len() };
            if !connection.may_run(usize::MAX) || connection.queued.is_some() {
                self.requests = requests;
                return at;
            }
            let authenticated = connection.authenticated;
            let rest = &bytes[at..];
            let scan = connection.scanner.scan(rest, &mut requests, at_once, &limits, authenticated);
            at += scan.consumed;
            connection.fresh &= at == 0;
            let found = requests.len();
            let flow = if found == 0 { Flow::Next } else { self.run_requests(id, &requests, rest) };
            requests.clear();
            self.requests = requests;
            if let Some(error) = scan.error {
                self.refuse_stream(id, error);
                return bytes.len();
            }
            if found == 0 || flow != Flow::Next {
                return at;
            }
        }
    }

    /// Answers a protocol error, behind everything before it, and closes.
    pub(crate) fn refuse_stream(&mut self, id: ConnectionId, error: ProtocolError) {
        let Some(connection) = self.connection(id) else { return };
        if connection.waiting || connection.has_holes() || connection.queued.is_some() {
            connection.refused = Some(error);
            return;
        }
        error.write_reply(&mut connection.output);
        connection.closing = true;
    }

    fn run_requests(&mut self, id: ConnectionId, requests: &Requests, bytes: &[u8]) -> Flow {
        let mut prepared = std::mem::take(&mut self.prepared);
        prepared.clear();
        let mut last: Option<(&[u8], Known)> = None;
        for i in 0..requests.len() {
            let argv = requests.argv(bytes, i);
            let name = argv.get(0).expect("a request has a name");
            // Requests of one pipeline are mostly of one kind.
            let known = match last {
                Some((before, known)) if before == name => known,
                _ => self.know(name),
            };
            last = Some((name, known));
            prepared.push(self.prepare_known(&argv, known));
        }
        if requests.len() > 1 {
            self.prefetch(id, &prepared, |i| requests.argv(bytes, i));
            self.stats.pipelined += requests.len() as u64;
        }
        self.lend_output(id);
        let mut watch = Stopwatch::start();
        let mut flow = Flow::Next;
        let mut is_unhindered = None;
        for (i, ready) in prepared.iter().enumerate() {
            let argv = requests.argv(bytes, i);
            if ready.is_simple && *is_unhindered.get_or_insert_with(|| self.is_unhindered(id)) {
                flow = self.run_simple(id, &argv, *ready, &mut watch);
            } else {
                flow = self.run_one(id, &argv, *ready, &mut watch);
                is_unhindered = None;
            }
            if flow == Flow::Next && self.is_held_back(id) {
                flow = Flow::Pause;
            }
            if flow != Flow::Next {
                let rest = if flow == Flow::Hold { i } else { i + 1 };
                if rest < requests.len()
                    && let Some(connection) = self.connection(id)
                    && !connection.closing
                {
                    let queued = connection.queued.get_or_insert_with(Box::<Queued>::default);
                    for rest in rest..requests.len() {
                        queued.push(&requests.argv(bytes, rest));
                    }
                }
                break;
            }
        }
        watch.stop(&mut self.stats);
        self.prepared = prepared;
        flow
    }

    /// Whether the connection has so many unsent replies that its next requests must wait.
    #[inline]
    fn is_held_back(&mut self, id: ConnectionId) -> bool {
        self.connection(id).is_none_or(|connection| connection.pending_output() > OUTPUT_RUN_MAX)
    }

    /// Runs requests that were queued behind one that waited; false if the connection must pause again.
    pub(crate) fn run_queued(&mut self, id: ConnectionId) -> bool {
        loop {
            let Some(connection) = self.connection(id) else { return false };
            if !connection.may_run(usize::MAX) {
                return false;
            }
            let Some(mut queued) = connection.queued.take() else {
                if let Some(error) = connection.refused.take() {
                    self.refuse_stream(id, error);
                    return false;
                }
                return true;
            };
            let mut watch = Stopwatch::start();
            self.lend_output(id);
            let mut paused = false;
            while let Some(argv) = queued.peek() {
                let ready = self.prepare(&argv);
                let flow = self.run_one(id, &argv, ready, &mut watch);
                if flow == Flow::Hold {
                    paused = true;
                    break;
                }
                queued.advance();
                if flow == Flow::Pause || self.is_held_back(id) {
                    paused = true;
                    break;
                }
            }
            watch.stop(&mut self.stats);
            let rest = queued.peek().is_some();
            let Some(connection) = self.connection(id) else { return false };
            if rest && !connection.closing {
                connection.queued = Some(queued);
            }
            if paused {
                return false;
            }
        }
    }

    fn know(&self, name: &[u8]) -> Known {
        let gates = &self.shared.gates;
        let found = lookup(name).or_else(|| gates.alias(name));
        let is_simple = found.is_some_and(|Found { command, index }| {
            matches!(command.run, Run::Shard(_))
                && !(self.shared.moves.is_any() && brings(command, 0).is_some())
                && !gates.restricts(index)
                && server_commands::subcommands::of(command).is_empty()
        });
        Known { found, is_simple }
    }

    pub(crate) fn prepare(&mut self, argv: &Argv<'_>) -> Prepared {
        self.prepare_known(argv, self.know(&argv[0]))
    }

    #[inline]
    fn prepare_known(&mut self, argv: &Argv<'_>, known: Known) -> Prepared {
        let found = known.found;
        let here = Prepared { found, route: Route::Here, hash: 0, is_simple: false };
        let Some(Found { command, .. }) = found else { return here };
        if !command.arity.allows(argv.len()) || !matches!(command.run, Run::Shard(_) | Run::Script(_)) {
            return here;
        }
        let (route, hash) = match command.keys {
            Keys::None => (Route::Here, 0),
            Keys::First => {
                let hash = self.ks.hash(&argv[1]);
                let owner = self.shared.owner(hash);
                (if owner == self.id { Route::Here } else { Route::There(owner) }, hash)
            }
            _ => {
                let alone = self.shared.peers.len() == 1;
                let route = if alone { Route::Here } else { self.route_many(command, argv) };
                (route, likely_key(command, argv).map_or(0, |key| self.ks.hash(key)))
            }
        };
        Prepared { found, route, hash, is_simple: known.is_simple && route == Route::Here }
    }

    /// Where a command over shards runs; None if any shard will do.
    pub(crate) fn route(&mut self, command: &Command, argv: &Argv<'_>) -> Option<Route> {
        let owner = match command.keys {
            Keys::None => return None,
            _ if self.shared.peers.len() == 1 => self.id,
            Keys::First => self.shared.owner(self.ks.hash(&argv[1])),
            _ => return Some(self.route_many(command, argv)),
        };
        Some(if owner == self.id { Route::Here } else { Route::There(owner) })
    }

    /// The route of a command with several keys.
    fn route_many(&mut self, command: &Command, argv: &Argv<'_>) -> Route {
        let mut positions = std::mem::take(&mut self.positions);
        let route = place_of(command, argv, &mut positions, |key| self.shared.owner(self.ks.hash(key)));
        self.positions = positions;
        if route == Route::There(self.id) { Route::Here } else { route }
    }

    /// Loads what the requests for this core will look at.
    fn prefetch<'a>(&mut self, id: ConnectionId, prepared: &[Prepared], argv: impl Fn(usize) -> Argv<'a>) {
        let Some((connection, ks, _)) = self.split(id) else { return };
        let Some(db) = ks.db(usize::from(connection.db)) else { return };
        let coming = prepared.iter().enumerate().filter(|(_, ready)| ready.route == Route::Here);
        load_ahead(coming.filter_map(|(at, ready)| Some((at, db, ready.hash, ready.found?.command))), argv);
    }

    #[inline]
    pub(crate) fn run_one(
        &mut self,
        id: ConnectionId,
        argv: &Argv<'_>,
        ready: Prepared,
        watch: &mut Stopwatch,
    ) -> Flow {
        let Some(connection) = self.connection(id) else { return Flow::Pause };
        let is_caching = connection.modes.has(Modes::CACHING);
        let flow = if connection.reply_mode == ReplyMode::On {
            self.run_checked(id, argv, ready, watch)
        } else {
            self.run_muted(id, argv, ready, watch)
        };
        let is_client = ready.found.is_some_and(|found| found.command.name == "CLIENT");
        if is_caching && flow != Flow::Hold && !is_client {
            self.end_caching(id);
        }
        flow
    }

    /// Whether all that [`Core::run_checked`] and [`Core::run_allowed`] ask about connection and server lets a simple
    /// command run at once. Only what is not simple can change the answer while a core is at it.
    fn is_unhindered(&mut self, id: ConnectionId) -> bool {
        let is_open = self.busy.is_none()
            && self.pause.is_none()
            && self.long_value.is_none()
            && self.locks.is_idle()
            && !self.stats.is_notable(SHORT)
            && !self.shared.snapshots.is_loading()
            && self.shared.monitors.load(Ordering::Relaxed) == 0;
        is_open
            && self.connection(id).is_some_and(|connection| {
                connection.reply_mode == ReplyMode::On
                    && connection.authenticated
                    && connection.multi.is_none()
                    && !connection.modes.any()
            })
    }

    /// Runs a simple command of a connection that is unhindered: as [`Core::run_checked`], which would find nothing.
    #[inline]
    fn run_simple(
        &mut self,
        id: ConnectionId,
        argv: &Argv<'_>,
        ready: Prepared,
        watch: &mut Stopwatch,
    ) -> Flow {
        let Some(found) = ready.found else { return Flow::Next };
        let (Run::Shard(handler), Some(connection)) = (found.command.run, self.connection(id)) else {
            return Flow::Pause;
        };
        connection.commands += 1;
        connection.last_command = Some(found.command);
        connection.last_subcommand = None;
        self.stats.processed += 1;
        let alone = may_be_slow(found.command, argv);
        self.run_on_shard(id, argv, found, handler, alone, watch)
    }

    /// Refuses what may not run at all, holds what may not run now, runs the rest.
    fn run_checked(
        &mut self,
        id: ConnectionId,
        argv: &Argv<'_>,
        ready: Prepared,
        watch: &mut Stopwatch,
    ) -> Flow {
        let Some(Found { command, index }) = ready.found else {
            self.spoil_transaction(id);
            return self.refuse_unknown(id, argv);
        };
        let subcommand = match argv.get(1) {
            Some(name) if !command.flags.has(Flags::FAST) => {
                server_commands::subcommands::find(command, name)
            }
            _ => None,
        };
        // The number of the counters; that of the command is only asked for restrictions.
        let counter = subcommand.map_or(index, Subcommand::counter);
        if !command.arity.allows(argv.len()) {
            self.stats.commands[counter].rejected += 1;
            return self.refuse_arity(id, &command.name.to_ascii_lowercase());
        }
        if let Some(subcommand) = subcommand
            && !subcommand.allows(argv.len())
        {
            self.stats.commands[counter].rejected += 1;
            return self.refuse_arity(id, &subcommand.full_name());
        }
        let Some(connection) = self.connection(id) else { return Flow::Pause };
        let in_mode = connection.modes.any();
        if in_mode && self.is_refused_in_mode(id, command, argv) {
            self.stats.commands[counter].rejected += 1;
            return Flow::Next;
        }
        let Some(connection) = self.connection(id) else { return Flow::Pause };
        if !connection.authenticated && !command.flags.has(Flags::NO_AUTH) {
            self.stats.commands[counter].rejected += 1;
            self.spoil_transaction(id);
            self.answer_error(id, "NOAUTH Authentication required.");
            return Flow::Next;
        }
        let is_admin = connection.client.listener == Listener::Admin;
        if !is_admin && self.shared.gates.restricts(index) {
            self.stats.commands[counter].rejected += 1;
            self.answer_error(id, crate::gates::RESTRICTED);
            return Flow::Next;
        }
        if self.shared.snapshots.is_loading() && !command.flags.has(Flags::LOADING) {
            self.stats.commands[index].rejected += 1;
            self.spoil_transaction(id);
            self.answer_error(id, crate::snapshots::LOADING);
            return Flow::Next;
        }
        if let Some(busy) = self.busy
            && !allowed_while_busy(command, argv)
        {
            return self.refuse_busy(id, command, counter, busy);
        }
        if self.pause.is_some() && self.hold_if_paused(id, command, argv) == Flow::Hold {
            return Flow::Hold;
        }
        let Some(connection) = self.connection(id) else { return Flow::Pause };
        let queued = connection.multi.is_some() && is_queued(command.run);
        if connection.has_holes()
            && !queued
            && (comes_behind_replies(command.run, ready.route)
                || self.serves_moves(id, command, argv, ready.route))
        {
            return Flow::Hold;
        }
        let Some(connection) = self.connection(id) else { return Flow::Pause };
        connection.commands += 1;
        connection.last_command = Some(command);
        connection.last_subcommand = subcommand;
        let found = Found { command, index: counter };
        if queued {
            if !self.admit(command, argv) {
                self.stats.commands[index].rejected += 1;
                self.spoil_transaction(id);
                self.answer_error(id, OUT_OF_MEMORY);
                return Flow::Next;
            }
            return self.queue(id, argv, found);
        }
        let flow = self.run_allowed(id, argv, Prepared { found: Some(found), ..ready }, watch);
        if in_mode && flow != Flow::Hold {
            let ran =
                flow == Flow::Next || self.connection(id).is_some_and(|connection| connection.is_in_long());
            let here = ran && ready.route == Route::Here && matches!(command.run, Run::Shard(_));
            self.after_tracked(id, command, here.then_some(argv));
        }
        flow
    }

    /// Answers a request of the wrong length.
    #[cold]
    fn refuse_arity(&mut self, id: ConnectionId, name: &str) -> Flow {
        self.spoil_transaction(id);
        let text = format!("wrong number of arguments for '{name}' command");
        if name == "exec" {
            self.abandon_transaction(id);
            self.answer_error(id, &format!("EXECABORT Transaction discarded because of: {text}"));
        } else {
            self.answer_error(id, &format!("ERR {text}"));
        }
        Flow::Next
    }

    /// Refuses a command because a script takes long.
    #[cold]
    fn refuse_busy(&mut self, id: ConnectionId, command: &Command, counter: usize, busy: &str) -> Flow {
        self.stats.commands[counter].rejected += 1;
        self.spoil_transaction(id);
        if command.name == "EXEC" {
            self.abandon_transaction(id);
            self.answer_error(id, &exec_refused(busy));
        } else {
            self.answer_error(id, busy);
        }
        Flow::Next
    }

    /// Refuses all requests of a batch because a script takes long on this thread.
    pub(crate) fn refuse_batch(&mut self, mut batch: Box<Batch>, busy: &str) {
        for entry in &batch.entries {
            self.stats.commands[usize::from(entry.index)].rejected += 1;
            self.stats.count_error(busy);
            ReplyWriter::new(&mut batch.replies, entry.proto).error(busy);
            batch.ends.push(batch.replies.len() as u32);
        }
        self.post(batch.from, Message::Replies(batch));
    }

    /// Runs a request whose reply is not wanted (CLIENT REPLY OFF, SKIP).
    fn run_muted(
        &mut self,
        id: ConnectionId,
        argv: &Argv<'_>,
        ready: Prepared,
        watch: &mut Stopwatch,
    ) -> Flow {
        let Some(connection) = self.connection(id) else { return Flow::Pause };
        if connection.has_holes() {
            // Replies to come are wanted, this one is not: one after the other, so that they are not confused.
            return Flow::Hold;
        }
        let before = connection.output.len();
        let mode = connection.reply_mode;
        connection.muted = true;
        let flow = self.run_checked(id, argv, ready, watch);
        let Some(connection) = self.connection(id) else { return Flow::Pause };
        if flow == Flow::Hold {
            connection.muted = false;
            return flow;
        }
        let is_reply_on = mode != connection.reply_mode && connection.reply_mode == ReplyMode::On;
        if !is_reply_on && !connection.waiting && !connection.has_holes() {
            connection.output.truncate(before);
        }
        if !connection.waiting && !connection.has_holes() {
            connection.muted = false;
        }
        connection.reply_mode = match (mode, connection.reply_mode) {
            (ReplyMode::SkipThis, ReplyMode::SkipThis) => ReplyMode::On,
            (_, ReplyMode::SkipNext) => ReplyMode::SkipThis,
            (_, now) => now,
        };
        if flow == Flow::Next && connection.has_holes() {
            // The remote reply is thrown away when it comes; what follows must not be answered before.
            return Flow::Pause;
        }
        flow
    }

    #[inline]
    fn run_allowed(
        &mut self,
        id: ConnectionId,
        argv: &Argv<'_>,
        ready: Prepared,
        watch: &mut Stopwatch,
    ) -> Flow {
        let Some(Found { command, index }) = ready.found else { return Flow::Next };
        self.stats.processed += 1;
        if server_commands::monitor::is_on(self) {
            server_commands::monitor::show(self, id, command, argv);
        }
        match command.run {
            Run::Server(which) => {
                let alone = self.is_timed_alone(command, argv);
                if alone {
                    watch.stop(&mut self.stats);
                }
                watch.count(&mut self.stats, index);
                let flow = server_commands::run(self, id, which, argv);
                if alone {
                    self.close_watch(Sender::Here(id), command, watch, argv);
                }
                flow
            }
            Run::Block(_) => {
                watch.stop(&mut self.stats);
                self.block(id, argv, Found { command, index })
            }
            Run::Script(_) => {
                watch.stop(&mut self.stats);
                self.script(id, argv, Found { command, index }, ready.route, watch)
            }
            Run::Shard(_) if self.serves_moves(id, command, argv, ready.route) => {
                if !self.admit(command, argv) {
                    self.stats.commands[index].rejected += 1;
                    self.answer_error(id, OUT_OF_MEMORY);
                    return Flow::Next;
                }
                self.exec_alone(id, argv, Found { command, index });
                Flow::Pause
            }
            Run::Shard(handler) => match ready.route {
                Route::Here => {
                    if !self.locks.is_idle() && self.is_locked(id, command, argv) {
                        self.run_when_unlocked(id, argv, ready);
                        return Flow::Pause;
                    }
                    let alone = self.is_timed_alone(command, argv);
                    self.run_on_shard(id, argv, Found { command, index }, handler, alone, watch)
                }
                Route::There(peer) => {
                    self.forward(id, argv, command, index, peer);
                    Flow::Next
                }
                Route::Spread => {
                    if !self.admit(command, argv) {
                        self.stats.commands[index].rejected += 1;
                        self.answer_error(id, OUT_OF_MEMORY);
                        return Flow::Next;
                    }
                    self.coordinate(id, command, index, argv);
                    Flow::Pause
                }
            },
        }
    }

    /// Whether a command over shards may bring something to moves, and has to lock their targets for that: they are on
    /// other shards, or it locks its own keys.
    #[inline]
    fn serves_moves(&mut self, id: ConnectionId, command: &Command, argv: &Argv<'_>, route: Route) -> bool {
        if !self.shared.moves.is_any() {
            return false;
        }
        let db = self.connection(id).map_or(0, |connection| usize::from(connection.db));
        match self.reach_of(command, db, argv) {
            Reach::Nothing => false,
            reach => reach.roams() || route == Route::Spread,
        }
    }

    /// Runs a command that may run here and now, if there is memory for it.
    #[inline]
    fn run_on_shard(
        &mut self,
        id: ConnectionId,
        argv: &Argv<'_>,
        found: Found,
        handler: Handler,
        alone: bool,
        watch: &mut Stopwatch,
    ) -> Flow {
        let Found { command, index } = found;
        if alone {
            watch.stop(&mut self.stats);
        }
        watch.count(&mut self.stats, index);
        if !self.admit(command, argv) {
            self.stats.commands[index].rejected += 1;
            self.answer_error(id, OUT_OF_MEMORY);
            return Flow::Next;
        }
        let ran = match self.long_value.take() {
            None => self.run_here(id, found, handler, argv, None, watch),
            Some(value) => self.run_given(id, found, argv, value, watch),
        };
        let Ran::Over(answered, flow) = ran else { return Flow::Pause };
        if alone || answered > LONG {
            self.close_watch(Sender::Here(id), command, watch, argv);
        }
        flow
    }

    /// Whether a command is timed by itself, because it may be slow or because short times are of interest too.
    #[inline]
    fn is_timed_alone(&self, command: &Command, argv: &Argv<'_>) -> bool {
        may_be_slow(command, argv) || self.stats.is_notable(SHORT)
    }

    /// Ends the timing of a command that is timed alone, and notes it if it was slow.
    pub(crate) fn close_watch(
        &mut self,
        sender: Sender,
        command: &'static Command,
        watch: &mut Stopwatch,
        argv: &Argv<'_>,
    ) {
        let (nanos, _) = watch.stop(&mut self.stats);
        if self.stats.is_notable(nanos) {
            self.note_slow(sender, command, nanos, argv);
        }
    }

    /// Notes a command that took long.
    #[cold]
    pub(crate) fn note_slow(
        &mut self,
        sender: Sender,
        command: &'static Command,
        nanos: u64,
        argv: &Argv<'_>,
    ) {
        self.stats.note_event(event_of(command), nanos, self.ks.now);
        if let Some(args) = self.stats.slow_args(command, nanos, argv) {
            self.log_args(sender, nanos, args);
        }
    }

    /// As [`Core::note_slow`], for a command of whose arguments only those that are shown were kept.
    pub(crate) fn note_slow_shown(
        &mut self,
        sender: Sender,
        command: &'static Command,
        nanos: u64,
        args: Vec<Vec<u8>>,
    ) {
        self.stats.note_event(event_of(command), nanos, self.ks.now);
        if self.stats.is_slow(nanos) && !command.flags.has(Flags::SKIP_SLOWLOG) {
            self.log_args(sender, nanos, args);
        }
    }

    fn log_args(&mut self, sender: Sender, nanos: u64, args: Vec<Vec<u8>>) {
        let now = self.ks.now;
        let id = self.shared.next_slow.fetch_add(1, Ordering::Relaxed);
        let slow = Slow {
            id,
            at_s: now / 1000,
            micros: nanos / 1000,
            args,
            addr: String::new(),
            name: String::new(),
        };
        match sender {
            Sender::Here(connection) => self.log_slow(connection, slow),
            // Who it was is known where the connection is.
            Sender::There(core, connection) => {
                self.post(core, Message::Job(Box::new(move |core| core.log_slow(connection, slow))));
            }
        }
    }

    fn log_slow(&mut self, id: ConnectionId, mut slow: Slow) {
        if let Some(connection) = self.connection(id) {
            let client = &connection.client;
            slow.addr.clone_from(&client.addr);
            slow.name = client.name.as_deref().unwrap_or_default().to_string();
        }
        self.stats.push_slow(slow);
    }

    /// Runs a handler over this core's shard, the reply going to the connection. `ticket` is the lock that it waited
    /// for: of a command that goes on in steps it is taken, else it is the caller's to give back.
    #[inline]
    fn run_here(
        &mut self,
        id: ConnectionId,
        found: Found,
        handler: impl FnOnce(&mut Cx<'_>, Args<'_>) -> CmdResult,
        argv: &Argv<'_>,
        ticket: Option<Ticket>,
        watch: &mut Stopwatch,
    ) -> Ran {
        let (name, shard) = (found.command.name, self.id);
        let Some((connection, ks, env)) = self.split(id) else { return Ran::Over(0, Flow::Pause) };
        let (db, proto) = (usize::from(connection.db), connection.proto);
        let before = connection.output.len();
        let (mut rest, output) = (None, &mut connection.output);
        ks.leaves_heat = connection.no_touch;
        let failed = run_handler_for(name, shard, handler, ks, env, db, proto, argv, output, Some(&mut rest));
        let answered = connection.output.len() - before;
        let mut flow = Flow::Next;
        let task = match rest {
            None => None,
            Some(Rest::Task(task)) => Some(task),
            Some(Rest::Reply(long)) if connection.muted => {
                long.into_held().into_iter().for_each(|held| ks.discard(held));
                None
            }
            Some(Rest::Reply(long)) => {
                connection.begin_long(long);
                flow = Flow::Pause;
                None
            }
        };
        if let Some(error) = failed {
            self.stats.count_error(&error);
            self.stats.count_failed(Some(found.index));
        }
        self.after_command_of(Reader { core: self.id, id });
        let Some(task) = task else { return Ran::Over(answered, flow) };
        self.begin_task_here(id, found, argv, task, ticket, watch.give_up());
        Ran::InSteps
    }

    /// As [`Core::run_here`], the value that the command stores being given to it.
    #[cold]
    fn run_given(
        &mut self,
        id: ConnectionId,
        found: Found,
        argv: &Argv<'_>,
        value: Vec<u8>,
        watch: &mut Stopwatch,
    ) -> Ran {
        let name = found.command.name;
        let handler = |cx: &mut Cx<'_>, args: Args<'_>| damselfly_commands::run_given(cx, name, args, value);
        self.run_here(id, found, handler, argv, None, watch)
    }

    /// Answers a command that does not exist, or closes if the peer is a browser that somebody made connect here: a
    /// page can send requests to any address, and a server that skips the lines it does not know would run the rest.
    fn refuse_unknown(&mut self, id: ConnectionId, argv: &Argv<'_>) -> Flow {
        if !argv[0].eq_ignore_ascii_case(b"post") && !argv[0].eq_ignore_ascii_case(b"host:") {
            let text = unknown_command(argv);
            self.stats.count_error("ERR");
            if let Some(connection) = self.connection(id) {
                let proto = connection.proto;
                ReplyWriter::new(&mut connection.output, proto).error(&text);
            }
            return Flow::Next;
        }
        if let Some(connection) = self.connection(id) {
            let addr = &connection.client.addr;
            tracing::warn!(%addr, "an HTTP request came to a Redis port: possible attack, connection closed");
        }
        self.close(id);
        Flow::Pause
    }

    /// As [`Core::answer_error`], for a command that was carried out elsewhere.
    pub(crate) fn answer_error_with(&mut self, id: ConnectionId, text: &str) {
        self.stats.count_error(text);
        self.answer_with(id, |out| out.error(text));
    }

    /// Writes an error reply.
    pub(crate) fn answer_error(&mut self, id: ConnectionId, text: &str) {
        self.stats.count_error(text);
        if let Some(connection) = self.connection(id) {
            let proto = connection.proto;
            ReplyWriter::new(&mut connection.output, proto).error(text);
        }
    }

    /// Puts a request into the batch for another core.
    #[inline]
    pub(crate) fn forward(
        &mut self,
        id: ConnectionId,
        argv: &Argv<'_>,
        command: &'static damselfly_commands::Command,
        index: usize,
        peer: usize,
    ) {
        self.make_way_there(argv);
        let Some(connection) = self.connection(id) else { return };
        let (db, proto) = (connection.db, connection.proto);
        let (remembers, no_touch) = (connection.modes.has(Modes::REMEMBERS), connection.no_touch);
        let hole = connection.leave_hole();
        self.stats.forwarded += 1;
        let batch = self.batch_for(peer);
        let index = index as u16;
        let entry = Entry { connection: id, hole, command, index, db, proto, remembers, no_touch };
        let added = batch.push(entry, argv.iter());
        // A batch is sent long before it reaches what spans can address, unless one request is that large, and the
        // limit on requests is half of it.
        assert!(added, "a request fits a batch");
        if batch.is_full() {
            self.send_requests();
        }
    }

    /// Runs another core's requests and sends the batch back.
    pub(crate) fn run_batch(&mut self, mut batch: Box<Batch>) {
        let from = batch.from;
        let count = batch.entries.len();
        if count > 1 {
            let hashes: Vec<u64> = (0..count)
                .map(|i| likely_key(batch.entries[i].command, &batch.argv(i)))
                .map(|key| key.map_or(0, |key| self.ks.hash(key)))
                .collect();
            let coming = batch.entries.iter().zip(&hashes).enumerate().filter_map(|(at, (entry, hash))| {
                Some((at, self.ks.db(usize::from(entry.db))?, *hash, entry.command))
            });
            load_ahead(coming, |at| batch.argv(at));
        }
        let mut replies = std::mem::take(&mut batch.replies);
        let mut watch = Stopwatch::start();
        for i in 0..count {
            let entry = batch.entries[i];
            if !self.locks.is_idle() || !self.parked.is_empty() {
                let key = (from, entry.connection);
                if self.parked.contains_key(&key) || self.is_locked_for(entry, &batch.argv(i)) {
                    let alone = batch.take_out(i);
                    batch.ends.push(replies.len() as u32);
                    self.park(key, alone);
                    continue;
                }
            }
            if matches!(entry.command.run, Run::Script(_)) {
                let (ran, is_over) = self.script_of_batch(&mut batch, i, &mut replies, &mut watch);
                batch.ends.push(replies.len() as u32);
                if !ran {
                    // It goes on elsewhere, and what follows of the same connection waits for it.
                    let queue = VecDeque::from([batch.take_out(i)]);
                    self.parked.insert((from, entry.connection), Parked { queue, claim: Claim::default() });
                    self.script_entry_widely((from, entry.connection));
                }
                if is_over {
                    break;
                }
                continue;
            }
            match self.run_entry(from, entry, &batch.argv(i), &mut replies, &mut watch) {
                None => {}
                Some(Rest::Reply(long)) => batch.longs.push_back((i, long)),
                Some(Rest::Task(task)) => {
                    // Those behind it need not wait: it has happened, and what it has not changed yet is locked.
                    let shown = shown_args(entry.command, &batch.argv(i));
                    let alone = batch.take_out_reply(i);
                    self.begin_task_for(from, alone, shown, task, None, watch.give_up());
                }
            }
            batch.ends.push(replies.len() as u32);
        }
        watch.stop(&mut self.stats);
        // Those that were answered while a script took long.
        batch.ends.resize(count, replies.len() as u32);
        batch.replies = replies;
        // Who has its reply finds that all who listen to the key were told.
        self.send_published();
        self.post(from, Message::Replies(batch));
    }

    /// Runs a request of another core; what is left of it, if it takes long.
    fn run_entry(
        &mut self,
        from: usize,
        entry: Entry,
        argv: &Argv<'_>,
        replies: &mut Vec<u8>,
        watch: &mut Stopwatch,
    ) -> Option<Rest> {
        let Some(handler) = entry.command.run.handler() else {
            unreachable!("only commands over one shard are forwarded")
        };
        let alone = self.is_timed_alone(entry.command, argv);
        if alone {
            watch.stop(&mut self.stats);
        }
        watch.count(&mut self.stats, usize::from(entry.index));
        let before = replies.len();
        let (db, shard) = (usize::from(entry.db), self.id);
        let name = entry.command.name;
        if !self.admit(entry.command, argv) {
            self.stats.commands[usize::from(entry.index)].rejected += 1;
            self.stats.count_error(OUT_OF_MEMORY);
            ReplyWriter::new(replies, entry.proto).error(OUT_OF_MEMORY);
            return None;
        }
        let (ks, env, mut rest) = (&mut self.ks, &self.env, None);
        ks.leaves_heat = entry.no_touch;
        let failed =
            run_handler_for(name, shard, handler, ks, env, db, entry.proto, argv, replies, Some(&mut rest));
        if let Some(error) = failed {
            self.stats.count_error(&error);
            self.stats.count_failed(Some(usize::from(entry.index)));
        }
        let reader = Reader { core: from, id: entry.connection };
        self.after_command_of(reader);
        if entry.remembers {
            self.remember(reader, entry.command, argv);
        }
        let in_steps = matches!(rest, Some(Rest::Task(_)));
        if (alone || replies.len() - before > LONG) && !in_steps {
            self.close_watch(Sender::There(from, entry.connection), entry.command, watch, argv);
        }
        rest
    }

    /// Lets a forwarded request wait for the lock on its key, and those of the same connection behind it.
    fn park(&mut self, key: (usize, ConnectionId), alone: Box<Batch>) {
        let queue = &mut self.parked.entry(key).or_default().queue;
        queue.push_back(alone);
        if queue.len() == 1 {
            self.unpark_when_unlocked(key);
        }
    }

    pub(crate) fn unpark_when_unlocked(&mut self, key: (usize, ConnectionId)) {
        let Some(parked) = self.parked.get_mut(&key) else { return };
        parked.claim = Claim::default();
        let claim = parked.claim.clone();
        let Some(first) = parked.queue.pop_front() else { return };
        let entry = first.entries[0];
        let numbers = self.lock_numbers(entry.command, usize::from(entry.db), &first.argv(0));
        self.parked.get_mut(&key).expect("found above").queue.push_front(first);
        self.lock_plain(Scope::Keys(numbers), move |core, ticket| {
            if !claim.take() {
                return core.unlock(ticket);
            }
            let queue = &mut core.parked.get_mut(&key).expect("parked until it is run").queue;
            let mut alone = queue.pop_front().expect("parked until it is run");
            let mut replies = std::mem::take(&mut alone.replies);
            let mut watch = Stopwatch::start();
            let entry = alone.entries[0];
            let mut task = None;
            if matches!(entry.command.run, Run::Script(_)) {
                let ran =
                    core.script_entry(key.0, entry, &alone.argv(0), Some(ticket), &mut replies, &mut watch);
                if !ran {
                    let parked = core.parked.get_mut(&key).expect("parked until it is run");
                    parked.queue.push_front(alone);
                    parked.claim = Claim::default();
                    core.unlock(ticket);
                    return core.script_entry_widely(key);
                }
            } else {
                match core.run_entry(key.0, entry, &alone.argv(0), &mut replies, &mut watch) {
                    None => {}
                    Some(Rest::Reply(long)) => alone.longs.push_back((0, long)),
                    Some(Rest::Task(left)) => task = Some(left),
                }
            }
            if let Some(task) = task {
                let shown = shown_args(entry.command, &alone.argv(0));
                let alone = alone.take_out_reply(0);
                core.begin_task_for(key.0, alone, shown, task, Some(ticket), watch.give_up());
            } else {
                watch.stop(&mut core.stats);
                alone.ends.push(replies.len() as u32);
                alone.replies = replies;
                core.post(key.0, Message::Replies(alone));
                core.unlock(ticket);
            }
            if core.parked[&key].queue.is_empty() {
                core.parked.remove(&key);
            } else {
                core.unpark_when_unlocked(key);
            }
        });
    }

    /// Gives the replies of a batch to their connections.
    pub(crate) fn take_replies(&mut self, mut batch: Box<Batch>) {
        self.unbook_batch(&mut batch);
        let mut longs = std::mem::take(&mut batch.longs);
        let mut start = 0;
        for (i, (entry, end)) in batch.entries.iter().zip(&batch.ends).enumerate() {
            let reply = &batch.replies[start..*end as usize];
            start = *end as usize;
            if entry.hole == u32::MAX {
                continue;
            }
            let long = longs.pop_front_if(|(number, _)| *number == i).map(|(_, long)| long);
            let mut unwanted = None;
            let whole = match (self.connection(entry.connection), long) {
                (Some(connection), long) if connection.muted => {
                    connection.muted = false;
                    unwanted = long;
                    connection.fill(entry.hole, b"")
                }
                (Some(connection), Some(long)) => connection.fill_long(entry.hole, reply, long),
                (Some(connection), None) => connection.fill(entry.hole, reply),
                (None, long) => {
                    unwanted = long;
                    false
                }
            };
            if let Some(long) = unwanted {
                self.discard_long(*long);
            }
            if whole {
                if self
                    .connection(entry.connection)
                    .is_some_and(|connection| connection.modes.has(Modes::HELD))
                {
                    self.release_held(entry.connection);
                }
                self.pump(entry.connection);
            }
        }
        self.recycle(batch);
    }

    /// Lock numbers of a request's keys, and of what it may reach on this shard.
    pub(crate) fn lock_numbers(
        &mut self,
        command: &damselfly_commands::Command,
        db: usize,
        argv: &Argv<'_>,
    ) -> Vec<u64> {
        let mut positions = std::mem::take(&mut self.positions);
        command.key_positions(argv, &mut positions);
        let mut numbers = Vec::with_capacity(positions.len());
        let dbs = databases_of(command, db, self.ks.databases());
        for &at in &positions {
            let hash = self.ks.hash(&argv[at]);
            numbers.extend(dbs.clone().map(|db| lock_number(db, hash)));
        }
        self.positions = positions;
        let reach = self.reach_of(command, db, argv);
        numbers.extend(reach.on(self.id));
        numbers
    }

    fn is_locked(
        &mut self,
        id: ConnectionId,
        command: &damselfly_commands::Command,
        argv: &Argv<'_>,
    ) -> bool {
        let Some(connection) = self.connection(id) else { return false };
        let db = usize::from(connection.db);
        match self.scope_of(command, db, argv) {
            Scope::Keys(numbers) => numbers.iter().any(|number| self.locks.is_locked(*number)),
            Scope::Shard => self.locks.has_tickets(),
        }
    }

    /// What a command over this shard must find unlocked: its keys, or all where nobody knows which these are.
    fn scope_of(&mut self, command: &Command, db: usize, argv: &Argv<'_>) -> Scope {
        if matches!(command.spread, Spread::Sort) && looks_further(command, argv) {
            return Scope::Shard;
        }
        Scope::Keys(self.lock_numbers(command, db, argv))
    }

    fn is_locked_for(&mut self, entry: Entry, argv: &Argv<'_>) -> bool {
        self.lock_numbers(entry.command, usize::from(entry.db), argv)
            .iter()
            .any(|number| self.locks.is_locked(*number))
    }

    /// Runs a request of this core's own connection once its key is unlocked.
    fn run_when_unlocked(&mut self, id: ConnectionId, argv: &Argv<'_>, ready: Prepared) {
        let Some(Found { command, index }) = ready.found else { return };
        let Some(connection) = self.connection(id) else { return };
        connection.waiting = true;
        let db = usize::from(connection.db);
        let remembers = connection.modes.has(Modes::REMEMBERS);
        let scope = self.scope_of(command, db, argv);
        let mut kept = Queued::default();
        kept.push(argv);
        let claim = self.waits_for_locks(id);
        self.lock_plain(scope, move |core, ticket| {
            if !core.has_its_locks(id, &claim) {
                return core.unlock(ticket);
            }
            if let (Some(argv), Some(handler)) = (kept.peek(), command.run.handler()) {
                let mut watch = Stopwatch::start();
                watch.count(&mut core.stats, index);
                let found = Found { command, index };
                let ran = core.run_here(id, found, handler, &argv, Some(ticket), &mut watch);
                let Ran::Over(answered, _) = ran else { return };
                if remembers {
                    core.remember(Reader { core: core.id, id }, command, &argv);
                }
                core.close_watch(Sender::Here(id), command, &mut watch, &argv);
                if let Some(connection) = core.connection(id)
                    && std::mem::take(&mut connection.muted)
                {
                    connection.output.truncate(connection.output.len() - answered);
                }
            }
            core.unlock(ticket);
            core.resume(id);
        });
    }
}

/// The latency event of a command.
fn event_of(command: &Command) -> &'static str {
    if command.flags.has(Flags::FAST) { "fast-command" } else { "command" }
}

/// Where a command over shards runs, by the owners of its keys; [`Route::Here`] if any shard will do.
pub(crate) fn place_of(
    command: &Command,
    argv: &Argv<'_>,
    positions: &mut Vec<usize>,
    owner: impl Fn(&[u8]) -> usize,
) -> Route {
    if let Spread::Split { step, .. } = command.spread
        && !(argv.len() - 1).is_multiple_of(step)
    {
        // Incomplete groups: the handler says so.
        return Route::Here;
    }
    if matches!(command.spread, Spread::Sort) && looks_further(command, argv) {
        return Route::Spread;
    }
    command.key_positions(argv, positions);
    let mut owners = positions.iter().map(|&at| owner(&argv[at]));
    match owners.next() {
        None => Route::Here,
        Some(first) if owners.all(|owner| owner == first) => Route::There(first),
        Some(_) => Route::Spread,
    }
}

/// The databases, of so many, in which a command of a client of database `db` may touch the keys that it names.
pub(crate) fn databases_of(command: &Command, db: usize, databases: usize) -> Range<usize> {
    let all = matches!(command.name, "COPY" | "MOVE");
    if all { 0..databases } else { db..db + 1 }
}

/// Whether a SORT looks at keys that are not among its arguments. One with a mistake looks at none.
pub(crate) fn looks_further(command: &Command, argv: &Argv<'_>) -> bool {
    sort_of(command, argv).is_some_and(|sort| sort.looks_further())
}

/// What a SORT is asked for; None if it has a mistake.
pub(crate) fn sort_of(command: &Command, argv: &Argv<'_>) -> Option<Sort> {
    Sort::parse(Args::behind_name(argv), command.flags.has(Flags::WRITE)).ok()
}

/// Runs a handler; its error, if any, becomes the reply and is returned for counting.
#[inline]
#[expect(clippy::too_many_arguments, reason = "the borrows of one core, taken apart")]
pub fn run_handler(
    name: &'static str,
    shard: usize,
    handler: Handler,
    ks: &mut Keyspace,
    env: &Env,
    db: usize,
    proto: Proto,
    argv: &Argv<'_>,
    out: &mut Vec<u8>,
) -> Option<String> {
    run_handler_for(name, shard, handler, ks, env, db, proto, argv, out, None)
}

/// As [`run_handler`], for a command that may go on when its handler has returned: `later` takes the rest of it. What
/// the caller has said of heat ([`Keyspace::leaves_heat`]) is for this command alone.
#[inline]
#[expect(clippy::too_many_arguments, reason = "the borrows of one core, taken apart")]
pub(crate) fn run_handler_for(
    name: &'static str,
    shard: usize,
    handler: impl FnOnce(&mut Cx<'_>, Args<'_>) -> CmdResult,
    ks: &mut Keyspace,
    env: &Env,
    db: usize,
    proto: Proto,
    argv: &Argv<'_>,
    out: &mut Vec<u8>,
    later: Later<'_>,
) -> Option<String> {
    RUNNING.set((name, shard));
    let before = out.len();
    let mut cx = Cx { ks, db, out: ReplyWriter::new(out, proto), env, later };
    let ended = handler(&mut cx, Args::behind_name(argv));
    cx.ks.leaves_heat = false;
    match ended {
        Ok(()) => None,
        Err(error) => {
            let text = error.to_string();
            cx.out.truncate(before);
            cx.out.error(&text);
            Some(text)
        }
    }
}

/// Redis' answer to a command that does not exist. What was sent is shown as it is, up to its first zero byte.
fn unknown_command(argv: &Argv<'_>) -> Vec<u8> {
    const SHOWN_MAX: usize = 128;
    let shown = |arg: &[u8], room: usize| {
        let arg = &arg[..arg.len().min(room)];
        arg.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
    };
    let mut args = Vec::new();
    for arg in argv.iter().skip(1) {
        if args.len() >= SHOWN_MAX {
            break;
        }
        let room = SHOWN_MAX - args.len();
        args.push(b'\'');
        args.extend(shown(arg, room));
        args.extend_from_slice(b"' ");
    }
    let name = shown(&argv[0], SHOWN_MAX);
    [b"ERR unknown command '".as_slice(), &name, b"', with args beginning with: ", &args].concat()
}
