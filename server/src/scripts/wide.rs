//! Scripts over all shards: a thread of their own, which asks the cores for each command.
//!
//! One such script runs at a time, because it holds the locks of all shards. So one thread is enough for all of them,
//! and one stand-in per core for the connection that some commands want to be given.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use damselfly_commands::{Command, Found, Run, ServerCommand};
use damselfly_keyspace::{Keyspace, Options};
use damselfly_protocol::{Argv, Proto, ReplyWriter};
use damselfly_scripting::{AclCheck, CallOutcome, Ended, Host, How, LogLevel, Repl, Tick};

use super::registry::Code;
use super::running::{Pace, Watch};
use super::{CallErrors, Calling, LocalEngine, SeenTime, clock};
use crate::connection::{Client, Connection, ConnectionId, Listener, Queued, Stream};
use crate::coordinate::Held;
use crate::core::Core;
use crate::execute::{Call, Flow, OUT_OF_MEMORY, Route, place_of, run_handler};
use crate::locks::Scope;
use crate::server_commands::{self, monitor};
use crate::shared::Shared;
use crate::slow_peers::Slowness;
use crate::tracking::Asker;

/// The stand-in for a connection: in no list, without a client.
pub const STAND_IN: ConnectionId = ConnectionId { index: u32::MAX, generation: u32::MAX };

/// A call that outlives the bytes it came in.
pub struct WideCall {
    pub(super) code: Code,
    pub(super) request: Queued,
    keys: usize,
    db: usize,
    proto: Proto,
    read_only: bool,
    pub(super) asker: Asker,
    pub(super) found: Found,
}

impl WideCall {
    pub(super) fn new(calling: &Calling<'_>, found: Found) -> WideCall {
        let mut request = Queued::default();
        request.push(&calling.argv);
        WideCall {
            code: calling.code.clone(),
            request,
            keys: calling.keys,
            db: calling.db,
            proto: calling.proto,
            read_only: calling.read_only,
            asker: calling.asker,
            found,
        }
    }

    fn calling(&self) -> Calling<'_> {
        Calling {
            code: &self.code,
            argv: self.request.peek().expect("pushed when it was made"),
            keys: self.keys,
            db: self.db,
            proto: self.proto,
            read_only: self.read_only,
            asker: self.asker,
        }
    }
}

/// What the thread is to do.
enum Work {
    Run(Box<Task>),
    /// Forget what was forgotten.
    CatchUp,
}

/// A call on its way to the thread.
struct Task {
    call: WideCall,
    /// The core that waits, and for which answer.
    home: usize,
    number: u64,
    /// The time that the script sees.
    now: u64,
}

/// What comes back.
struct Done {
    call: WideCall,
    reply: Vec<u8>,
    errors: CallErrors,
    failed: bool,
    nanos: u64,
}

/// The thread, as the cores see it.
pub struct ScriptThread(Sender<Work>);

impl ScriptThread {
    fn start(shared: &Arc<Shared>) -> std::io::Result<ScriptThread> {
        let (sender, work) = channel();
        let shared = shared.clone();
        std::thread::Builder::new()
            .name("scripts".to_string())
            .stack_size(super::STACK_LEN)
            .spawn(move || serve(&shared, &work))?;
        Ok(ScriptThread(sender))
    }

    /// Lets it forget what was forgotten, once it has time.
    pub(super) fn catch_up(&self) {
        self.0.send(Work::CatchUp).expect("the thread runs as long as the process");
    }
}

fn serve(shared: &Arc<Shared>, work: &Receiver<Work>) {
    crate::affinity::roam();
    let mut local = LocalEngine::new(shared);
    let hasher = Keyspace::new(&Options { databases: 1, hash_seed: shared.hash_seed, random_seed: 1 });
    for work in work {
        let Work::Run(task) = work else {
            local.refresh(shared);
            continue;
        };
        let Task { call, home, number, now } = *task;
        let started = Instant::now();
        local.catch_up(shared);
        let (mut reply, mut errors) = (Vec::new(), CallErrors::default());
        let calling = call.calling();
        let failed = match local.prepare(shared, calling.code) {
            Ok(()) => {
                let mut host = Wide::new(shared, &calling, &hasher, home, now);
                let ended = calling.run(&mut local, &mut host, &mut reply);
                assert!(ended != Ended::Aborted, "nothing is aborted here");
                host.watch.end(shared);
                calling.code.reach().note_ran_widely(host.needed);
                errors = host.errors;
                ended != Ended::Replied || reply.first() == Some(&b'-')
            }
            Err(text) => {
                ReplyWriter::new(&mut reply, call.proto).error(text);
                true
            }
        };
        local.note_memory(shared);
        let done = Done { call, reply, errors, failed, nanos: started.elapsed().as_nanos() as u64 };
        let answer = move |core: &mut Core| core.answered(number, Box::new(done));
        shared.peers[home].mailbox.post_from_outside(Box::new(answer));
    }
}

/// What a core is told of the script around a command.
#[derive(Clone, Copy)]
struct Step {
    db: usize,
    proto: Proto,
    /// The time that the script sees.
    now: u64,
    asker: Asker,
    /// What TIME says to it, if that is the command.
    time: Option<Duration>,
    /// It may use more memory than there is (`allow-oom`).
    may_exceed: bool,
}

/// A reply to a command of a script, and the database that is selected behind it.
type Answer = (Vec<u8>, usize);

/// The server as a wide script sees it.
struct Wide<'a> {
    shared: &'a Arc<Shared>,
    calling: &'a Calling<'a>,
    hasher: &'a Keyspace,
    home: usize,
    now: u64,
    time: SeenTime,
    db: usize,
    watch: Watch,
    answers: (Sender<Answer>, Receiver<Answer>),
    /// Of calls that no core has counted.
    errors: CallErrors,
    positions: Vec<usize>,
    /// The one shard that it has used so far.
    shard: Option<usize>,
    /// One shard would not have been enough.
    needed: bool,
}

impl<'a> Wide<'a> {
    fn new(
        shared: &'a Arc<Shared>,
        calling: &'a Calling<'a>,
        hasher: &'a Keyspace,
        home: usize,
        now: u64,
    ) -> Wide<'a> {
        let mut wide = Wide {
            shared,
            calling,
            hasher,
            home,
            now,
            time: SeenTime::default(),
            db: calling.db,
            watch: Watch::begin(shared, shared.peers.len(), calling.code, false),
            answers: channel(),
            errors: CallErrors::default(),
            positions: Vec::new(),
            shard: None,
            needed: false,
        };
        // Where it would run narrowly: on the shard of its keys, or where its client is.
        let keys = calling.argv.iter().skip(3).take(calling.keys);
        let owners: Vec<usize> = keys.map(|key| shared.owner(hasher.hash(key))).collect();
        wide.use_shard(owners.first().copied().unwrap_or(calling.asker.client.core));
        for owner in owners {
            wide.use_shard(owner);
        }
        wide
    }

    fn use_shard(&mut self, shard: usize) {
        self.needed |= *self.shard.get_or_insert(shard) != shard;
    }

    /// Lets a core do something, and waits for its reply.
    fn ask(
        &mut self,
        to: usize,
        work: impl FnOnce(&mut Core, Box<dyn FnOnce(Vec<u8>, usize)>) + Send + 'static,
    ) {
        let answer = self.answers.0.clone();
        self.shared.peers[to].mailbox.post_from_outside(Box::new(move |core| {
            // The script waits for it, unless the process ends.
            work(core, Box::new(move |reply, db| drop(answer.send((reply, db)))));
        }));
    }

    fn run(&mut self, found: Found, argv: &[&[u8]], proto: Proto, reply: &mut Vec<u8>) {
        let command = found.command;
        let mut request = Queued::default();
        if !request.try_push(argv.iter().copied()) {
            return ReplyWriter::new(reply, proto).error(super::TOO_LONG);
        }
        let argv = request.peek().expect("just pushed");
        if command.flags.has(damselfly_commands::Flags::WRITE) && !self.watch.may_write(self.shared) {
            return ReplyWriter::new(reply, proto).error("ERR Script killed by user");
        }
        let is_monitored = self.shared.monitors.load(Ordering::Relaxed) > 0;
        let line = is_monitored.then(|| monitor::script_line(command, self.db, &argv)).flatten();
        let may_exceed = self.calling.code.flags().allow_oom;
        let time = self.time.for_command(command);
        let step = Step { db: self.db, proto, now: self.now, asker: self.calling.asker, time, may_exceed };
        let shard = self.shard_of(command, &argv);
        match shard {
            Some(shard) => self.use_shard(shard),
            None => self.needed = true,
        }
        let to = shard.unwrap_or(self.home);
        self.ask(to, move |core, answer| {
            if let Some(line) = line {
                monitor::show_line(core, line);
            }
            let argv = request.peek().expect("just pushed");
            if shard.is_some() {
                let mut reply = Vec::new();
                core.run_for_script(found, &argv, step, &mut reply);
                answer(reply, step.db);
            } else {
                core.serve_script(found, &argv, step, answer);
            }
        });
        let (answered, db) = self.answers.1.recv().expect("this side has a sender, too");
        if shard.is_some() {
            self.errors.note(&answered);
        }
        reply.extend_from_slice(&answered);
        self.db = db;
    }

    /// The shard of a command that one alone can carry out.
    fn shard_of(&mut self, command: &Command, argv: &Argv<'_>) -> Option<usize> {
        command.run.handler()?;
        let hash = |key: &[u8]| self.hasher.hash(key);
        match place_of(command, argv, &mut self.positions, |key| self.shared.owner(hash(key))) {
            Route::Here => Some(self.shard.unwrap_or(self.home)),
            Route::There(shard) => Some(shard),
            Route::Spread => None,
        }
    }
}

impl Host for Wide<'_> {
    fn call(&mut self, argv: &[&[u8]], how: How, reply: &mut Vec<u8>) -> CallOutcome {
        let proto = if how.resp3 { Proto::Resp3 } else { Proto::Resp2 };
        match super::look_up(self.shared, argv, how) {
            Ok(found) => self.run(found, argv, proto, reply),
            Err(text) => {
                let before = reply.len();
                ReplyWriter::new(reply, proto).error(text);
                self.errors.note(&reply[before..]);
            }
        }
        CallOutcome::Done
    }

    fn log(&mut self, level: LogLevel, text: &[u8]) {
        super::log(level, text);
    }

    fn acl_check(&mut self, argv: &[&[u8]]) -> AclCheck {
        super::acl_check(self.shared, argv)
    }

    fn set_repl(&mut self, _: Repl) {}

    fn tick(&mut self) -> Tick {
        match self.watch.tick(self.shared, self.calling) {
            Pace::End => Tick::Kill,
            // The cores are free to look at their sockets.
            Pace::On | Pace::Look => Tick::Continue,
        }
    }

    fn clock(&mut self) -> f64 {
        clock::seconds()
    }
}

impl Core {
    /// Runs a call under the locks of all shards and hands its reply to `done`, if it is still wanted then.
    pub(super) fn run_widely(
        &mut self,
        call: WideCall,
        wanted: impl FnOnce(&mut Core) -> bool + 'static,
        done: impl FnOnce(&mut Core, Vec<u8>) + 'static,
    ) {
        let scopes = (0..self.shared.peers.len()).map(|core| (core, Scope::Shard)).collect();
        self.lock_all(scopes, move |core, held: Held| {
            if !wanted(core) {
                return core.unlock_all(held);
            }
            core.run_on_thread(call, move |core, reply| {
                core.unlock_all_then(held, |core| done(core, reply));
            });
        });
    }

    /// Runs a call on the thread of wide scripts. The caller holds the locks of all shards.
    pub(super) fn run_on_thread(&mut self, call: WideCall, done: impl FnOnce(&mut Core, Vec<u8>) + 'static) {
        let thread = match self.shared.scripts.thread.get() {
            Some(thread) => thread,
            // Nobody else can be starting it: this core has all locks.
            None => match ScriptThread::start(&self.shared) {
                Ok(thread) => self.shared.scripts.thread.get_or_init(|| thread),
                Err(error) => {
                    let mut reply = Vec::new();
                    ReplyWriter::new(&mut reply, call.proto)
                        .error(format!("ERR cannot start a thread for the script: {error}"));
                    return done(self, reply);
                }
            },
        };
        let thread = thread.0.clone();
        let (home, now) = (self.id, self.ks.now);
        let number = self.expect(Box::new(move |core, answer| {
            let answer = answer.downcast::<Done>().expect("the answer to a call");
            let Done { call, reply, errors, failed, nanos } = *answer;
            core.book_script(&call, nanos, &errors, failed.then_some(&reply));
            done(core, reply);
        }));
        thread
            .send(Work::Run(Box::new(Task { call, home, number, now })))
            .expect("the thread runs as long as the process");
    }

    /// Carries out one command of a wide script over this shard.
    fn run_for_script(&mut self, found: Found, argv: &Argv<'_>, step: Step, reply: &mut Vec<u8>) {
        let Step { db, proto, now, asker, may_exceed, .. } = step;
        let handler = found.command.run.handler().expect("a command over shards");
        let started = Instant::now();
        let present = std::mem::replace(&mut self.ks.now, now);
        let call = Call::of(found.command, db, proto);
        let failed = if may_exceed || self.admit_in_script(found.command, argv) {
            self.ks.leaves_heat = asker.no_touch;
            self.env.in_script = true;
            let failed = run_handler(call, handler, &mut self.ks, &self.env, argv, reply);
            self.env.in_script = false;
            failed
        } else {
            ReplyWriter::new(reply, proto).error(OUT_OF_MEMORY);
            Some(OUT_OF_MEMORY.to_string())
        };
        self.stats.book(found.index, started.elapsed().as_nanos() as u64, 1);
        if failed.is_some() {
            self.stats.count_failed(Some(found.index));
        }
        self.after_command_of(asker.client);
        if asker.remembers {
            self.remember(asker.client, found.command, argv);
        }
        self.ks.now = present;
    }

    /// Carries out a command of a wide script that concerns several shards or the server.
    fn serve_script(
        &mut self,
        found: Found,
        argv: &Argv<'_>,
        step: Step,
        answer: Box<dyn FnOnce(Vec<u8>, usize)>,
    ) {
        let Step { db, proto, asker, time, .. } = step;
        self.scripts.time = time;
        if let Err(error) = self.ready_stand_in(db, proto, asker) {
            let mut reply = Vec::new();
            ReplyWriter::new(&mut reply, proto).error(format!("ERR cannot run the command: {error}"));
            return answer(reply, db);
        }
        let flow = match found.command.run {
            Run::Server(which) => {
                let started = Instant::now();
                let flow = server_commands::run(self, STAND_IN, which, argv);
                self.stats.book(found.index, started.elapsed().as_nanos() as u64, 1);
                flow
            }
            _ => {
                self.coordinate(STAND_IN, found, argv);
                Flow::Pause
            }
        };
        let finish = move |core: &mut Core| {
            let stand_in = core.connection(STAND_IN).expect("made ready before");
            answer(std::mem::take(&mut stand_in.output), usize::from(stand_in.db));
        };
        if flow == Flow::Next {
            finish(self);
        } else if let Some(stand_in) = self.connection(STAND_IN) {
            stand_in.waiting = true;
            stand_in.then = Some(Box::new(finish));
        }
    }

    /// Carries out a command of the server that answers at once.
    pub(super) fn serve_at_once(
        &mut self,
        which: ServerCommand,
        argv: &Argv<'_>,
        db: &mut usize,
        proto: Proto,
        reply: &mut Vec<u8>,
    ) {
        let asker = self.asker(STAND_IN);
        if let Err(error) = self.ready_stand_in(*db, proto, asker) {
            return ReplyWriter::new(reply, proto).error(format!("ERR cannot run the command: {error}"));
        }
        let flow = server_commands::run(self, STAND_IN, which, argv);
        assert!(flow == Flow::Next, "{which:?} answers at once");
        let stand_in = self.connection(STAND_IN).expect("made ready before");
        reply.append(&mut stand_in.output);
        *db = usize::from(stand_in.db);
    }

    /// Makes the stand-in ready for a command.
    fn ready_stand_in(&mut self, db: usize, proto: Proto, asker: Asker) -> std::io::Result<()> {
        let created_ms = self.ks.now;
        let stand_in = match &mut self.scripts.stand_in {
            Some((stand_in, _)) => stand_in,
            None => {
                // A socket that nobody reads, because connections have one.
                let (stream, _) = std::os::unix::net::UnixStream::pair()?;
                let client = Client {
                    id: 0,
                    listener: Listener::Unix,
                    addr: "lua".to_string(),
                    laddr: String::new(),
                    name: None,
                    lib_name: "".into(),
                    lib_ver: "".into(),
                    created_ms,
                    no_evict: false,
                    monitor: false,
                    exec_word: monitor::EXEC,
                    held: Vec::new(),
                    slowness: Slowness::default(),
                };
                let mut stand_in = Box::new(Connection::new(STAND_IN, Stream::Unix(stream), client, true));
                // Whoever holds it holds all locks, as a transaction does.
                stand_in.executing = true;
                &mut self.scripts.stand_in.insert((stand_in, asker)).0
            }
        };
        stand_in.output.clear();
        stand_in.db = db as u16;
        stand_in.proto = proto;
        stand_in.waiting = false;
        if let Some((_, of)) = &mut self.scripts.stand_in {
            *of = asker;
        }
        Ok(())
    }
}
