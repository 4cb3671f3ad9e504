//! Scripts on the thread of their shard.
//!
//! Until its end nothing of such a run can be seen: changed keys are announced, messages published and commands shown
//! to monitors when it is over. A run that turns out to need other shards is undone: before the first write to a key
//! a copy of it is kept (collections share their nodes with their copy, so that is cheap), and all are put back.

use std::collections::HashMap;
use std::time::Instant;

use damselfly_commands::{Command, Flags, Found, Run, ServerCommand, Spread};
use damselfly_keyspace::{DbStats, Portable};
use damselfly_protocol::{Argv, Proto, ReplyWriter, Requests};
use damselfly_scripting::{AclCheck, CallOutcome, Ended, Host, How, LogLevel, Repl, Tick};

use super::running::{Pace, Watch};
use super::{CallErrors, Calling, SeenTime, clock};
use crate::connection::ConnectionId;
use crate::core::Core;
use crate::execute::{Call, OUT_OF_MEMORY, Route, databases_of, looks_further, run_handler};
use crate::locks::{Ticket, lock_number};
use crate::pubsub::Kind;
use crate::server_commands::monitor;
use crate::tracking::{Asker, Reads};

/// Keys that can be put back. A script that changes more runs wide, where nothing is ever put back.
const UNDO_MAX: usize = 1 << 18;

/// So many are looked through one by one.
const UNDO_LISTED: usize = 8;

/// Of so many runs one is timed command by command, and stands for all.
const TIMED_EVERY: u64 = 16;

/// Bytes of lines for monitors that are held back; what comes behind them is shown at once.
const SHOWN_LATER_MAX: usize = 1 << 20;

/// A key as it was before the script changed it first.
struct Undo {
    number: u64,
    db: usize,
    key: Box<[u8]>,
    before: Option<Portable>,
    /// Events of this key with this number or a later one are the script's doing.
    events_from: usize,
}

/// Numbers as they were before a run.
struct Counted {
    events: usize,
    mutations: u64,
    db: usize,
    hits: u64,
    misses: u64,
}

/// Calls of one command.
struct Tally {
    index: usize,
    calls: u64,
    nanos: u64,
    failed: u64,
}

/// Memory that is used again for the next run.
#[derive(Default)]
pub struct Scratch {
    bytes: Vec<u8>,
    requests: Requests,
    undo: Vec<Undo>,
    /// Places in `undo` by lock number, once there are many. One that is missing does no harm: the key is kept twice,
    /// and the older copy is put back last.
    places: HashMap<u64, usize>,
    tallies: Vec<Tally>,
    errors: CallErrors,
    reads: Reads,
}

impl Scratch {
    fn clear(&mut self) {
        self.reads.clear();
        const KEPT_MAX: usize = 64 * 1024;
        self.requests.clear();
        self.bytes.clear();
        if self.bytes.capacity() > KEPT_MAX {
            self.bytes = Vec::new();
        }
        self.undo.clear();
        if self.undo.capacity() > 1024 {
            self.undo = Vec::new();
        }
        if self.places.capacity() > 0 {
            self.places = HashMap::new();
        }
        self.tallies.clear();
        self.errors = CallErrors::default();
    }
}

/// The server as a script sees it that runs here.
struct Narrow<'a> {
    core: &'a mut Core,
    calling: &'a Calling<'a>,
    db: usize,
    time: SeenTime,
    /// The lock that the run itself holds.
    ticket: Option<Ticket>,
    watch: Watch,
    scratch: Scratch,
    published: Vec<(Kind, Vec<u8>, Vec<u8>)>,
    shown: Vec<Vec<u8>>,
    shown_len: usize,
    /// Runs that this one's times stand for; 0 if it is not timed.
    stands_for: u64,
}

impl Core {
    /// Runs a call over this shard, the reply going to `out`; false if it cannot be done here, and then nothing has
    /// happened. `ticket` is the lock that the caller holds for it.
    pub(super) fn run_narrow(
        &mut self,
        calling: &Calling<'_>,
        found: Found,
        ticket: Option<Ticket>,
        out: &mut Vec<u8>,
    ) -> bool {
        let mut local = self.take_engine();
        let before = out.len();
        if let Err(text) = local.prepare(&self.shared, calling.code) {
            self.put_engine(local);
            self.count_script_error(found, &text);
            ReplyWriter::new(out, calling.proto).error(text);
            return true;
        }
        let counted = self.count(calling.db);
        let scratch = std::mem::take(&mut self.scripts.scratch);
        // Two clock readings per command would be a tenth of a short script.
        self.scripts.runs = self.scripts.runs.wrapping_add(1);
        let stands_for = match self.stats.tracking {
            true => 1,
            false if self.scripts.runs.is_multiple_of(TIMED_EVERY) => TIMED_EVERY,
            false => 0,
        };
        let watch = Watch::begin(&self.shared, self.id, calling.code, true);
        let mut host = Narrow {
            db: calling.db,
            time: SeenTime::default(),
            core: self,
            calling,
            ticket,
            watch,
            scratch,
            published: Vec::new(),
            shown: Vec::new(),
            shown_len: 0,
            stands_for,
        };
        let ended = calling.run(&mut local, &mut host, out);
        // A script that was ended because the server stops leaves nothing behind that it had half done.
        let undone = ended == Ended::Aborted || (ended == Ended::Killed && host.watch.written);
        let Narrow { watch, mut scratch, published, shown, .. } = host;
        watch.end(&self.shared);
        self.busy = self.shared.scripts.running.busy();
        self.put_engine(local);
        if undone {
            self.undo(&mut scratch, &counted);
        } else {
            for tally in &scratch.tallies {
                self.stats.book(tally.index, tally.nanos, tally.calls);
                self.stats.commands[tally.index].failed += tally.failed;
            }
            for line in shown {
                monitor::show_line(self, line);
            }
        }
        let (reads, errors) = (std::mem::take(&mut scratch.reads), std::mem::take(&mut scratch.errors));
        scratch.clear();
        self.scripts.scratch = scratch;
        if ended == Ended::Aborted {
            if !reads.is_empty() {
                self.observe();
            }
            calling.code.reach().note_wide();
            return false;
        }
        let failed = ended != Ended::Replied || out.get(before) == Some(&b'-');
        self.count_call_errors(found, &errors, failed.then_some(&out[before..]));
        let client = calling.asker.client;
        if reads.is_empty() {
            self.after_command_of(client);
        } else {
            self.tell_reader(client, if undone { Reads::new() } else { reads });
            self.settle(Some(client), None);
        }
        for (kind, channel, message) in published {
            self.publish_to(kind, &channel, &message);
        }
        calling.code.reach().note_narrow();
        true
    }

    /// What a run may have to put back besides keys. Reads of other databases than the client's stay counted.
    fn count(&self, db: usize) -> Counted {
        let DbStats { hits, misses, .. } = self.ks.db_stats[db];
        Counted { events: self.ks.event_count(), mutations: self.ks.stats.mutations, db, hits, misses }
    }

    /// Puts back what a script has changed, and forgets what it announced.
    fn undo(&mut self, scratch: &mut Scratch, counted: &Counted) {
        let mut first = HashMap::new();
        for undo in &scratch.undo {
            first.entry((undo.db, &undo.key[..])).or_insert(undo.events_from);
        }
        self.ks.retain_events(|number, event| {
            number < counted.events
                || first.get(&(event.db, &event.key[..])).is_none_or(|from| number < *from)
        });
        let notes_new = std::mem::replace(&mut self.ks.notes_new, false);
        while let Some(undo) = scratch.undo.pop() {
            self.ks.import(undo.db, &undo.key, undo.before);
        }
        self.ks.notes_new = notes_new;
        self.ks.stats.mutations = counted.mutations;
        let stats = &mut self.ks.db_stats[counted.db];
        (stats.hits, stats.misses) = (counted.hits, counted.misses);
    }

    /// Whether somebody else than the holder of `ticket` has locked a key of a command over this shard.
    fn is_locked_by_others(
        &mut self,
        command: &Command,
        db: usize,
        argv: &Argv<'_>,
        ticket: Option<Ticket>,
    ) -> bool {
        let numbers = self.lock_numbers(command, db, argv);
        numbers.iter().any(|number| self.locks.is_locked_for_others(*number, ticket))
            || matches!(command.spread, Spread::Sort) && looks_further(command, argv)
    }
}

/// Commands of the server whose answer is there at once and that change nothing but the database that is selected.
fn answers_at_once(which: ServerCommand) -> bool {
    use ServerCommand as S;
    // What scripts may call of DEBUG: see `may_debug`.
    matches!(which, S::Command | S::Debug | S::Echo | S::Lolwut | S::Ping | S::PubSub | S::Select | S::Time)
}

impl Narrow<'_> {
    fn run(&mut self, found: Found, argv: &Argv<'_>, proto: Proto, reply: &mut Vec<u8>) -> CallOutcome {
        let command = found.command;
        let started = (self.stands_for > 0).then(Instant::now);
        let mut failed = false;
        match command.run {
            Run::Server(ServerCommand::Publish) => self.publish(Kind::Channel, argv, proto, reply),
            Run::Server(ServerCommand::SPublish) => self.publish(Kind::Shard, argv, proto, reply),
            Run::Server(which) if answers_at_once(which) => {
                self.core.scripts.time = self.time.for_command(command);
                self.core.serve_at_once(which, argv, &mut self.db, proto, reply);
            }
            Run::Server(_) | Run::Script(_) => return CallOutcome::Abort,
            Run::Shard(_) | Run::Block(_) => {
                let core = &mut *self.core;
                if !matches!(core.route(command, argv), None | Some(Route::Here)) {
                    return CallOutcome::Abort;
                }
                if !core.locks.is_idle() && core.is_locked_by_others(command, self.db, argv, self.ticket) {
                    return CallOutcome::Abort;
                }
                if command.flags.has(Flags::WRITE) {
                    // Those who wait for what it brings are served under all locks.
                    if core.reach_of(command, self.db, argv).roams() {
                        return CallOutcome::Abort;
                    }
                    if !self.watch.may_write(&core.shared) {
                        ReplyWriter::new(reply, proto).error("ERR Script killed by user");
                        return CallOutcome::Done;
                    }
                    if !self.keep(command, argv) {
                        return CallOutcome::Abort;
                    }
                }
                let core = &mut *self.core;
                let may_exceed = self.calling.code.flags().allow_oom;
                if !may_exceed && !core.admit_in_script(command, argv) {
                    ReplyWriter::new(reply, proto).error(OUT_OF_MEMORY);
                    self.tally(found.index, started, true);
                    return CallOutcome::Done;
                }
                let handler = command.run.handler().expect("a command over shards");
                let before = reply.len();
                let call = Call::of(found.command, self.db, proto);
                core.ks.leaves_heat = self.calling.asker.no_touch;
                core.env.in_script = true;
                failed = run_handler(call, handler, &mut core.ks, &core.env, argv, reply).is_some();
                core.env.in_script = false;
                if failed {
                    self.scratch.errors.note(&reply[before..]);
                }
                if self.calling.asker.remembers {
                    core.note_reads(command, argv, &mut self.scratch.reads);
                }
            }
        }
        self.tally(found.index, started, failed);
        CallOutcome::Done
    }

    fn tally(&mut self, index: usize, started: Option<Instant>, failed: bool) {
        let nanos = started.map_or(0, |started| started.elapsed().as_nanos() as u64 * self.stands_for);
        let failed = u64::from(failed);
        match self.scratch.tallies.iter_mut().find(|tally| tally.index == index) {
            Some(tally) => {
                tally.calls += 1;
                tally.nanos += nanos;
                tally.failed += failed;
            }
            None => self.scratch.tallies.push(Tally { index, calls: 1, nanos, failed }),
        }
    }

    /// Keeps the keys of a command as they are; false if there are too many.
    fn keep(&mut self, command: &Command, argv: &Argv<'_>) -> bool {
        let mut positions = std::mem::take(&mut self.core.positions);
        command.key_positions(argv, &mut positions);
        let dbs = databases_of(command, self.db, self.core.ks.databases());
        for &at in &positions {
            for db in dbs.clone() {
                self.keep_key(db, &argv[at]);
            }
        }
        self.core.positions = positions;
        self.scratch.undo.len() <= UNDO_MAX
    }

    fn keep_key(&mut self, db: usize, key: &[u8]) {
        let Scratch { undo, places, .. } = &mut self.scratch;
        let ks = &mut self.core.ks;
        let number = lock_number(db, ks.hash(key));
        let is_it = |undo: &Undo| undo.number == number && undo.db == db && *undo.key == *key;
        let known = if undo.len() <= UNDO_LISTED {
            undo.iter().any(is_it)
        } else {
            places.get(&number).is_some_and(|place| is_it(&undo[*place]))
        };
        if known {
            return;
        }
        // First, because looking at a key may let it expire, and that is no doing of the script.
        let before = ks.export(db, key);
        let events_from = ks.event_count();
        undo.push(Undo { number, db, key: key.into(), before, events_from });
        if undo.len() > UNDO_LISTED {
            if places.is_empty() {
                places.extend(undo.iter().enumerate().map(|(place, undo)| (undo.number, place)));
            }
            places.insert(number, undo.len() - 1);
        }
    }

    /// PUBLISH is done at the end; who will receive it is known now.
    fn publish(&mut self, kind: Kind, argv: &Argv<'_>, proto: Proto, reply: &mut Vec<u8>) {
        let receivers = self.core.receivers(kind, &argv[1]);
        if receivers > 0 {
            self.published.push((kind, argv[1].to_vec(), argv[2].to_vec()));
        }
        ReplyWriter::new(reply, proto).int(receivers as i64);
    }

    fn show(&mut self, command: &Command, argv: &Argv<'_>) {
        let Some(line) = monitor::script_line(command, self.db, argv) else { return };
        if self.shown_len > SHOWN_LATER_MAX {
            for line in std::mem::take(&mut self.shown) {
                monitor::show_line(self.core, line);
            }
            return monitor::show_line(self.core, line);
        }
        self.shown_len += line.len();
        self.shown.push(line);
    }

    /// The connection that waits for the script, if it is of this core.
    fn caller(&self) -> Option<ConnectionId> {
        let Asker { client, .. } = self.calling.asker;
        (client.core == self.core.id).then_some(client.id)
    }
}

impl Host for Narrow<'_> {
    fn call(&mut self, argv: &[&[u8]], how: How, reply: &mut Vec<u8>) -> CallOutcome {
        let proto = if how.resp3 { Proto::Resp3 } else { Proto::Resp2 };
        let found = match super::look_up(&self.core.shared, argv, how) {
            Ok(found) => found,
            Err(text) => {
                let before = reply.len();
                ReplyWriter::new(reply, proto).error(text);
                self.scratch.errors.note(&reply[before..]);
                return CallOutcome::Done;
            }
        };
        let mut bytes = std::mem::take(&mut self.scratch.bytes);
        let mut requests = std::mem::take(&mut self.scratch.requests);
        bytes.clear();
        requests.clear();
        let outcome = if requests.push_copy(&mut bytes, argv.iter().copied()) {
            let argv = requests.argv(&bytes, 0);
            if self.core.shared.monitors.load(std::sync::atomic::Ordering::Relaxed) > 0 {
                self.show(found.command, &argv);
            }
            self.run(found, &argv, proto, reply)
        } else {
            ReplyWriter::new(reply, proto).error(super::TOO_LONG);
            CallOutcome::Done
        };
        self.scratch.bytes = bytes;
        self.scratch.requests = requests;
        outcome
    }

    fn log(&mut self, level: LogLevel, text: &[u8]) {
        super::log(level, text);
    }

    fn acl_check(&mut self, argv: &[&[u8]]) -> AclCheck {
        super::acl_check(&self.core.shared, argv)
    }

    fn set_repl(&mut self, _: Repl) {}

    fn tick(&mut self) -> Tick {
        match self.watch.tick(&self.core.shared, self.calling) {
            Pace::On => Tick::Continue,
            Pace::End => Tick::Kill,
            Pace::Look => {
                let caller = self.caller();
                self.core.turn_while_busy(caller);
                Tick::Continue
            }
        }
    }

    fn clock(&mut self) -> f64 {
        clock::seconds()
    }
}
