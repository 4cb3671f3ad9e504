//! From bytes to replies.
//!
//! What one read brought is scanned whole, then *prepared* (each request's command is looked up, its key hashed, its
//! shard found, the memory it will touch asked for), then run in order. A request for this core's shard runs at once
//! and writes into the connection's output; one for another core goes into that core's batch and leaves a hole; one
//! that needs several shards or the whole server makes the connection wait, and the requests behind it are queued.
//!
//! Parts: `execute/prepare.rs` (what is known of a request before it runs), `call.rs` (one call of a handler), `locked.rs`
//! (waiting for locked keys), `forwarded.rs` (requests that run on another core), `refuse.rs` (those that do not run), and
//! `timing.rs` (how long they take).

mod call;
mod forwarded;
mod locked;
mod prepare;
mod refuse;
mod timing;

use std::sync::atomic::Ordering;

use damselfly_commands::{Args, CmdResult, Command, Cx, Flags, Found, Handler, Rest, Run};
use damselfly_protocol::{Argv, Requests};

pub(crate) use self::call::{Call, run_handler, run_handler_for, running, set_running, set_shard};
pub(crate) use self::locked::{databases_of, looks_further, sort_of};
pub(crate) use self::prepare::{Prepared, Route, place_of};
pub(crate) use self::timing::Sender;

use self::prepare::Known;
use self::timing::{LONG, SHORT, may_be_slow};
use crate::blocking::Reach;
use crate::connection::{ConnectionId, Listener, Queued, ReplyMode};
use crate::core::{Core, OUTPUT_RUN_MAX};
use crate::locks::Ticket;
use crate::modes::Modes;
use crate::scripts::allowed_while_busy;
use crate::server_commands::{self, subcommands::Subcommand};
use crate::stats::Stopwatch;
use crate::tracking::Reader;
use crate::transaction::{comes_behind_replies, is_queued};

/// Requests scanned at once. Enough for the usual pipelines, and what is prepared for them stays in the first-level
/// cache.
const REQUESTS_PER_SCAN: usize = 128;

/// Redis' answer to a command that would grow memory beyond its limit.
pub(crate) const OUT_OF_MEMORY: &str = "OOM command not allowed when used memory > 'maxmemory'.";

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

    fn run_requests(&mut self, id: ConnectionId, requests: &Requests, bytes: &[u8]) -> Flow {
        let mut prepared = std::mem::take(&mut self.prepared);
        prepared.clear();
        let mut last: Option<(&[u8], Known)> = None;
        let mut last_hash = 0;
        for i in 0..requests.len() {
            let argv = requests.argv(bytes, i);
            let name = argv.get(0).expect("a request has a name");
            // Requests of one pipeline are mostly of one kind.
            let known = match last {
                Some((before, known)) if before == name => known,
                _ => self.know(name),
            };
            last = Some((name, known));
            let mut ready = self.prepare_known(&argv, known);
            if ready.hash == last_hash && !ready.looks_inside() {
                // What one of them has asked for need not be asked for again: a pipeline to one list.
                ready.hash = 0;
            } else {
                last_hash = ready.hash;
            }
            prepared.push(ready);
        }
        if requests.len() > 1 {
            self.prefetch(id, &prepared, |i| requests.argv(bytes, i));
            self.stats.pipelined += requests.len() as u64;
        }
        self.lend_output(id);
        let mut watch = Stopwatch::start();
        let mut flow = Flow::Next;
        let mut is_unhindered = None;
        // Put together one request ahead: who copies it right behind its parts would wait for them.
        let mut coming = requests.argv(bytes, 0);
        for (i, ready) in prepared.iter().enumerate() {
            let argv = coming;
            if i + 1 < prepared.len() {
                coming = requests.argv(bytes, i + 1);
            }
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
                    self.coordinate(id, Found { command, index }, argv);
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
            watch.refuse();
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
        let Some((connection, ks, env)) = self.split(id) else { return Ran::Over(0, Flow::Pause) };
        let call = Call::of(found.command, usize::from(connection.db), connection.proto);
        let before = connection.output.len();
        let (mut rest, output) = (None, &mut connection.output);
        ks.leaves_heat = connection.no_touch;
        let failed = run_handler_for(call, handler, ks, env, argv, output, Some(&mut rest));
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
}
