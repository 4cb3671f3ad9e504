//! EVAL, FCALL and their kin: scripts that behave as if they were alone, wherever their keys are.
//!
//! * *Narrow*: a script whose declared keys are on one shard runs on that shard's thread, in place, like a command.
//!   No lock, no message beyond the one that brings it there; scripts on different shards run in parallel.
//! * *Wide*: all shards are locked and the script runs on a thread of its own, which asks the cores for each command.
//!
//! A narrow script that touches a key of another shard, or needs the whole server, ends there as if it had never
//! begun: what it changed is put back from copies made before the first write to each key, what it announced is
//! forgotten, what it published was not sent yet. Then it runs again, wide, and is remembered as one that goes wide
//! at once. So which keys a script declares matters for speed, never for what it does.
//!
//! Invariant: between the first command of a script and its end no other command runs on a key that it can reach:
//! narrow because the thread does nothing else, wide because of the locks.
//!
//! Reading order: `narrow.rs`, `wide.rs`, `registry.rs`, `running.rs` (scripts that take long), `libraries.rs` (functions).

mod clock;
mod libraries;
mod narrow;
mod refusal;
pub mod registry;
pub mod running;
pub mod wide;

pub(crate) use libraries::Restore;
pub(crate) use refusal::{Claim, LockWaiter, Parked, exec_refused};
pub(crate) use running::allowed_while_busy;
pub(crate) use wide::STAND_IN;

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use damselfly_commands::{Command, Found, Run, ScriptBy, ScriptCall, ServerCommand, lookup};
use damselfly_protocol::number::parse_i64;
use damselfly_protocol::{Argv, Proto, ReplyWriter};
use damselfly_scripting::{ByScript, Ended, Engine, How, Library, LogLevel, Options, Sha};

use crate::batch::{Batch, Entry, Lent};
use crate::connection::{Connection, ConnectionId, Queued};
use crate::core::Core;
use crate::execute::{Flow, Route, Sender};
use crate::locks::{Scope, Ticket};
use crate::mailbox::Message;
use crate::server_commands::monitor;
use crate::server_commands::server::unix_time;
use crate::server_commands::subcommands::{self, Subcommand};
use crate::shared::Shared;
use crate::stats::Stopwatch;
use crate::tracking::{Asker, Reader};
use registry::{Code, Source};
use wide::WideCall;

/// Stack of threads that run scripts: what an interpreter and handlers under its deepest recursion may take, many times
/// over. Only what was used is resident.
pub(crate) const STACK_LEN: usize = 16 << 20;

/// EVALSHA of what is not known.
const NO_SCRIPT: &str = "NOSCRIPT No matching script. Please use EVAL.";

/// A command whose arguments are longer than one buffer can address.
const TOO_LONG: &str = "ERR the arguments of the command are too long";

/// A reply's memory is kept for the next one up to this.
const REPLY_KEPT_MAX: usize = 64 * 1024;

/// Scripts that a core remembers to know without asking the registry.
const KNOWN_MAX: usize = 4096;

/// The engine of a thread, and what of the registry it has seen.
pub struct LocalEngine {
    engine: Box<Engine>,
    flushes: u64,
    changes: u64,
    /// Libraries that are loaded, as the registry has them.
    loaded: HashMap<String, Arc<Library>>,
    noted: [usize; 2],
}

impl LocalEngine {
    fn new(shared: &Shared) -> LocalEngine {
        /// What scripts of one thread may use at most and at least; in between an eighth of all memory there is.
        const BYTES_MAX: u64 = 512 << 20;
        const BYTES_MIN: u64 = 16 << 20;
        let memory_max = match shared.memory_limit.bytes {
            0 => BYTES_MAX,
            bytes => (bytes / 8).clamp(BYTES_MIN, BYTES_MAX),
        };
        let options = Options {
            memory_max: memory_max as usize,
            version: crate::server_commands::info::REDIS_VERSION,
            version_number: crate::server_commands::info::REDIS_VERSION_NUMBER,
        };
        shared.scripts.engines.fetch_add(1, Ordering::Relaxed);
        LocalEngine {
            engine: Box::new(Engine::new(options)),
            flushes: shared.scripts.flushes(),
            changes: 0,
            loaded: HashMap::new(),
            noted: [0; 2],
        }
    }

    /// Forgets what was forgotten.
    fn catch_up(&mut self, shared: &Shared) {
        let flushes = shared.scripts.flushes();
        if self.flushes != flushes {
            self.flushes = flushes;
            self.engine.flush_scripts();
        }
    }

    /// Makes the engine ready for what is about to run; the error is a reply.
    fn prepare(&mut self, shared: &Shared, code: &Code) -> Result<(), Vec<u8>> {
        match code {
            Code::Script(source) if self.engine.script(&source.sha).is_none() => {
                self.engine.load(&source.sha, &source.text).map(|_| ())
            }
            Code::Script(_) => Ok(()),
            Code::Function(_) => self.load_libraries(shared),
        }
    }

    /// Forgets at once what was forgotten, and tells what it still uses.
    fn refresh(&mut self, shared: &Shared) {
        self.catch_up(shared);
        // A library that cannot be loaded is tried again, and its error told, when one of its functions is called.
        if !self.loaded.is_empty() {
            let _ = self.load_libraries(shared);
        }
        self.note_memory_from(shared, 0);
    }

    /// Tells how much memory it uses, for INFO.
    fn note_memory(&mut self, shared: &Shared) {
        // Not for every few bytes: the sum is memory that all threads write.
        self.note_memory_from(shared, 64 * 1024);
    }

    /// As [`LocalEngine::note_memory`], if it is so much more or less than was told before.
    fn note_memory_from(&mut self, shared: &Shared, worth_it: usize) {
        let (scripts, functions) = self.engine.memory();
        for (place, now) in [scripts, functions].into_iter().enumerate() {
            let before = std::mem::replace(&mut self.noted[place], now);
            if before.abs_diff(now) < worth_it && before != 0 {
                self.noted[place] = before;
            } else if before != now {
                shared.scripts.engine_bytes[place].fetch_add(now.wrapping_sub(before), Ordering::Relaxed);
            }
        }
    }
}

/// What a core has for scripts.
#[derive(Default)]
pub struct Local {
    engine: Option<LocalEngine>,
    /// Not counted together with other threads: they would all write the same memory at each call.
    known: ByScript<Rc<Code>>,
    /// Runs on this core.
    runs: u64,
    /// How often scripts had been forgotten when `known` was filled.
    forgotten: u64,
    scratch: narrow::Scratch,
    /// The batch in which the script came that runs.
    under_way: Option<Lent>,
    /// A reply on its way to a connection.
    reply: Vec<u8>,
    /// The connection that commands of scripts are given, and for whom they run.
    stand_in: Option<(Box<Connection>, Asker)>,
    /// What TIME says to the script that asks.
    time: Option<Duration>,
}

/// The time that a script has been told, which stays the same for it.
#[derive(Default)]
struct SeenTime(Option<Duration>);

impl SeenTime {
    /// What TIME says, if that is the command.
    fn for_command(&mut self, command: &Command) -> Option<Duration> {
        let asks = matches!(command.run, Run::Server(ServerCommand::Time));
        asks.then(|| *self.0.get_or_insert_with(unix_time))
    }
}

impl Local {
    /// What TIME says to a client, if that is a script.
    pub(crate) fn time_for(&self, id: ConnectionId) -> Option<Duration> {
        self.time.filter(|_| id == STAND_IN)
    }

    /// The stand-in, if that is who is meant.
    #[cold]
    pub(crate) fn stand_in(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let (stand_in, _) = self.stand_in.as_mut().filter(|_| id == STAND_IN)?;
        Some(stand_in)
    }

    /// For whom the stand-in stands.
    pub(crate) fn asker(&self) -> Option<Asker> {
        self.stand_in.as_ref().map(|(_, asker)| *asker)
    }
}

/// A call that is about to run.
#[derive(Clone, Copy)]
pub(crate) struct Calling<'a> {
    code: &'a Code,
    argv: Argv<'a>,
    keys: usize,
    db: usize,
    proto: Proto,
    read_only: bool,
    asker: Asker,
}

impl Calling<'_> {
    /// Runs it in an engine; the reply goes to `out`.
    fn run(
        &self,
        local: &mut LocalEngine,
        host: &mut dyn damselfly_scripting::Host,
        out: &mut Vec<u8>,
    ) -> Ended {
        /// So many arguments need no memory of their own.
        const INLINE: usize = 16;
        let count = self.argv.len() - 3;
        let mut inline: [&[u8]; INLINE] = [b""; INLINE];
        let mut many = Vec::new();
        let list: &mut [&[u8]] = if count <= INLINE {
            &mut inline[..count]
        } else {
            many.resize(count, &b""[..]);
            &mut many
        };
        for (place, arg) in list.iter_mut().zip(self.argv.iter().skip(3)) {
            *place = arg;
        }
        let (keys, args) = list.split_at(self.keys);
        let call = damselfly_scripting::Call { keys, args, read_only: self.read_only, proto: self.proto };
        match self.code {
            Code::Script(source) => local.engine.run(&source.sha, call, host, out),
            Code::Function(function) => local.engine.run_function(&function.info.name, call, host, out),
        }
    }
}

/// Bytes of a script's error that are looked at to count it.
const ERROR_SHOWN_MAX: usize = 1024;

/// Errors that calls of one script have answered: each counts once, whether the script passes it on or not.
#[derive(Default)]
struct CallErrors {
    counts: Vec<(Box<str>, u64)>,
    /// Some of them, without the line's end.
    texts: Vec<Box<str>>,
}

impl CallErrors {
    /// Notes the reply to a call, if it is an error.
    fn note(&mut self, reply: &[u8]) {
        /// Kinds that are counted, and texts that are kept.
        const KINDS_MAX: usize = 16;
        let Some(text) = reply.strip_prefix(b"-") else { return };
        let text = String::from_utf8_lossy(text.strip_suffix(b"\r\n").unwrap_or(text));
        let kind = text.split(' ').next().unwrap_or_default();
        let has_room = self.counts.len() < KINDS_MAX;
        match self.counts.iter_mut().find(|(known, _)| **known == *kind) {
            Some((_, count)) => *count += 1,
            None if has_room => self.counts.push((kind.into(), 1)),
            None => {}
        }
        if self.texts.len() < KINDS_MAX && !self.has(&text) {
            self.texts.push(text.into());
        }
    }

    /// Whether what a script ends with is one of them. Where it happened is said behind it.
    fn has(&self, text: &str) -> bool {
        self.texts.iter().any(|known| text.starts_with(&**known))
    }
}

/// Looks up what a script calls, with the number of its counters, and refuses what scripts may not call.
fn look_up(shared: &Shared, argv: &[&[u8]], how: How) -> Result<Found, &'static str> {
    use damselfly_commands::Flags;
    let Some(found) = lookup(argv[0]).or_else(|| shared.gates.alias(argv[0])) else {
        return Err("ERR Unknown Redis command called from script");
    };
    let command = found.command;
    let subcommand = match argv.get(1) {
        Some(name) if !command.flags.has(Flags::FAST) => subcommands::find(command, name),
        _ => None,
    };
    if !command.arity.allows(argv.len()) || subcommand.is_some_and(|sub| !sub.allows(argv.len())) {
        return Err("ERR Wrong number of args calling Redis command from script");
    }
    let denied =
        command.flags.has(Flags::NO_SCRIPT) || subcommand.is_some_and(|sub| sub.flags.has(Flags::NO_SCRIPT));
    if denied && !may_debug(shared, command, argv) {
        return Err("ERR This Redis command is not allowed from script");
    }
    if shared.gates.restricts(found.index) {
        return Err(crate::gates::RESTRICTED);
    }
    let writes =
        command.flags.has(Flags::WRITE) || matches!(command.name, "PFCOUNT" | "PUBLISH" | "SPUBLISH");
    if how.read_only && writes {
        return Err("ERR Write commands are not allowed from read-only scripts.");
    }
    Ok(Found { command, index: subcommand.map_or(found.index, Subcommand::counter) })
}

/// Whether this is DEBUG PROTOCOL or DEBUG SLEEP, and scripts may call them. Both answer at once and with one reply, as
/// scripts need it; a push would be two.
#[cold]
fn may_debug(shared: &Shared, command: &Command, argv: &[&[u8]]) -> bool {
    let is = |at: usize, word: &str| argv[at].eq_ignore_ascii_case(word.as_bytes());
    shared.scripts.may_debug.load(Ordering::Relaxed)
        && command.name == "DEBUG"
        && argv.len() == 3
        && (is(1, "SLEEP") || is(1, "PROTOCOL") && !is(2, "PUSH"))
}

/// What `redis.acl_check_cmd` answers: there is one user, who may do everything that there is, whatever its arguments.
fn acl_check(shared: &Shared, argv: &[&[u8]]) -> damselfly_scripting::AclCheck {
    let Some(found) = lookup(argv[0]).or_else(|| shared.gates.alias(argv[0])) else {
        return damselfly_scripting::AclCheck::Unknown;
    };
    let known = match argv.get(1) {
        Some(name) if !subcommands::of(found.command).is_empty() => {
            subcommands::find(found.command, name).is_some()
        }
        _ => true,
    };
    if known { damselfly_scripting::AclCheck::Allowed } else { damselfly_scripting::AclCheck::Unknown }
}

/// `redis.log`
fn log(level: LogLevel, text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    match level {
        LogLevel::Debug => tracing::trace!("script: {text}"),
        LogLevel::Verbose => tracing::debug!("script: {text}"),
        LogLevel::Notice => tracing::info!("script: {text}"),
        LogLevel::Warning => tracing::warn!("script: {text}"),
    }
}

/// The digest that 40 hexadecimal digits are.
pub(crate) fn parse_sha(hex: &[u8]) -> Option<Sha> {
    let mut sha = Sha::default();
    if hex.len() != 2 * sha.len() {
        return None;
    }
    let mut all = 0;
    for (byte, [high, low]) in sha.iter_mut().zip(hex.as_chunks::<2>().0) {
        let (high, low) = (DIGITS[usize::from(*high)], DIGITS[usize::from(*low)]);
        all |= high | low;
        *byte = high << 4 | low;
    }
    (all & NO_DIGIT == 0).then_some(sha)
}

const NO_DIGIT: u8 = 0x80;

/// What each byte is worth as a hexadecimal digit. A script is named with every call, and asking each digit for its
/// range took as long as running two commands.
static DIGITS: [u8; 256] = {
    let mut digits = [NO_DIGIT; 256];
    let mut digit = 0;
    while digit < 16 {
        digits[b"0123456789abcdef"[digit] as usize] = digit as u8;
        digits[b"0123456789ABCDEF"[digit] as usize] = digit as u8;
        digit += 1;
    }
    digits
};

/// The number of keys, which are arguments 3 and on.
fn key_count(call: ScriptCall, argv: &Argv<'_>) -> Result<usize, &'static str> {
    let Some(keys) = parse_i64(&argv[2]) else {
        return Err(match call.by {
            ScriptBy::Function => "ERR Bad number of keys provided",
            ScriptBy::Source | ScriptBy::Digest => "ERR value is not an integer or out of range",
        });
    };
    if keys > argv.len() as i64 - 3 {
        return Err("ERR Number of keys can't be greater than number of args");
    }
    usize::try_from(keys).map_err(|_| "ERR Number of keys can't be negative")
}

impl Core {
    /// What a call names, and how many keys it declares; the error is a reply.
    fn script_code(&mut self, call: ScriptCall, argv: &Argv<'_>) -> Result<(Rc<Code>, usize), Vec<u8>> {
        // What was thrown out for want of room is not to be kept here.
        let forgotten = self.shared.scripts.flushes() + self.shared.scripts.evicted.load(Ordering::Relaxed);
        if self.scripts.forgotten != forgotten {
            self.scripts.forgotten = forgotten;
            self.scripts.known.clear();
        }
        let (code, keys) = match call.by {
            ScriptBy::Function => {
                let libraries = self.shared.scripts.libraries();
                let function = libraries.function(&argv[1]);
                let function = function.ok_or(b"ERR Function not found")?.clone();
                (Rc::new(Code::Function(function)), key_count(call, argv)?)
            }
            ScriptBy::Digest => {
                if argv[1].len() != 40 {
                    return Err(NO_SCRIPT.into());
                }
                let keys = key_count(call, argv)?;
                let sha = parse_sha(&argv[1]).ok_or(NO_SCRIPT)?;
                (self.known_script(&sha).ok_or(NO_SCRIPT)?, keys)
            }
            ScriptBy::Source => {
                let keys = key_count(call, argv)?;
                let sha = Engine::sha(&argv[1]);
                let code = match self.known_script(&sha) {
                    Some(code) => code,
                    None => Rc::new(Code::Script(self.load_script(sha, &argv[1], false)?)),
                };
                (code, keys)
            }
        };
        let flags = code.flags();
        if call.read_only && flags.declared && !flags.no_writes {
            return Err(b"ERR Can not execute a script with write flag using *_ro command.".into());
        }
        Ok((code, keys))
    }

    /// Whether what a call names has declared that it writes nothing.
    pub(crate) fn declares_no_writes(&self, call: ScriptCall, argv: &Argv<'_>) -> bool {
        let scripts = &self.shared.scripts;
        let Some(name) = argv.get(1) else { return false };
        let flags = match call.by {
            ScriptBy::Function => scripts.libraries().function(name).map(|function| function.info.flags),
            ScriptBy::Digest => {
                parse_sha(name).and_then(|sha| scripts.script(&sha)).map(|source| source.flags)
            }
            ScriptBy::Source => Engine::flags_of(name).ok(),
        };
        flags.is_some_and(|flags| flags.no_writes)
    }

    fn known_script(&mut self, sha: &Sha) -> Option<Rc<Code>> {
        if let Some(code) = self.scripts.known.get(sha) {
            return Some(code.clone());
        }
        let code = Rc::new(Code::Script(self.shared.scripts.script(sha)?));
        if self.scripts.known.len() >= KNOWN_MAX {
            self.scripts.known.clear();
        }
        self.scripts.known.insert(*sha, code.clone());
        Some(code)
    }

    /// Compiles a script and keeps it for all threads; the error is a reply.
    pub(crate) fn load_script(&mut self, sha: Sha, text: &[u8], keep: bool) -> Result<Arc<Source>, Vec<u8>> {
        let mut local = self.take_engine();
        let loaded = local.engine.load(&sha, text);
        self.put_engine(local);
        Ok(self.shared.scripts.keep(sha, text, loaded?, keep))
    }

    /// Scripts or libraries were forgotten: all engines give back what they have of them, then this goes on.
    pub(crate) fn refresh_engines(&mut self, then: impl FnOnce(&mut Core) + 'static) {
        if let Some(thread) = self.shared.scripts.thread.get() {
            thread.catch_up();
        }
        let refresh = |core: &mut Core| {
            if let Some(local) = &mut core.scripts.engine {
                local.refresh(&core.shared);
            }
        };
        self.ask_all(refresh, move |core, _| then(core));
    }

    /// Gives the engine's memory back. The next script makes a new one.
    pub(crate) fn drop_engine(&mut self) {
        if let Some(local) = self.scripts.engine.take() {
            for (place, bytes) in local.noted.into_iter().enumerate() {
                self.shared.scripts.engine_bytes[place].fetch_sub(bytes, Ordering::Relaxed);
            }
            self.shared.scripts.engines.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// The engine of this core, which is put back after use.
    pub(crate) fn take_engine(&mut self) -> LocalEngine {
        let mut local = self.scripts.engine.take().unwrap_or_else(|| LocalEngine::new(&self.shared));
        local.catch_up(&self.shared);
        local
    }

    pub(crate) fn put_engine(&mut self, mut local: LocalEngine) {
        local.note_memory(&self.shared);
        self.scripts.engine = Some(local);
    }

    /// Carries out a call that a connection of this core has sent.
    pub(crate) fn script(
        &mut self,
        id: ConnectionId,
        argv: &Argv<'_>,
        found: Found,
        route: Route,
        watch: &mut Stopwatch,
    ) -> Flow {
        let Run::Script(call) = found.command.run else { unreachable!("only calls of scripts") };
        let (code, keys) = match self.script_code(call, argv) {
            Ok(found) => found,
            Err(text) => {
                self.stats.book(found.index, 0, 1);
                self.count_script_error(found, &text);
                if let Some(connection) = self.connection(id) {
                    let proto = connection.proto;
                    ReplyWriter::new(&mut connection.output, proto).error(text);
                }
                return Flow::Next;
            }
        };
        if self.shared.monitors.load(Ordering::Relaxed) > 0 {
            monitor::show_call(self, id, argv);
        }
        let asker = self.asker(id);
        let Some(connection) = self.connection(id) else { return Flow::Pause };
        let (db, proto) = (usize::from(connection.db), connection.proto);
        let calling = Calling { code: &code, argv: *argv, keys, db, proto, read_only: call.read_only, asker };
        let is_wide = route == Route::Spread || code.reach().is_wide();
        if is_wide || self.reach_of_any(found.command, db, argv).roams() {
            self.script_widely(id, &calling, found);
            return Flow::Pause;
        }
        match route {
            Route::There(peer) => {
                let is_proven = code.reach().is_narrow();
                self.forward(id, argv, found.command, found.index, peer);
                // One that turns out to need all shards must not be overtaken by what is behind it.
                if is_proven { Flow::Next } else { Flow::Pause }
            }
            _ if !self.locks.is_idle() && self.must_wait(found.command, db, argv, keys) => {
                let Some(connection) = self.connection(id) else { return Flow::Pause };
                connection.waiting = true;
                let numbers = self.lock_numbers(found.command, db, argv);
                let mut kept = Queued::default();
                kept.push(argv);
                let code = code.clone();
                let claim = self.waits_for_locks(id);
                self.lock_plain(Scope::Keys(numbers), move |core, ticket| {
                    if !core.has_its_locks(id, &claim) {
                        return core.unlock(ticket);
                    }
                    let argv = kept.peek().expect("kept above");
                    let calling =
                        Calling { code: &code, argv, keys, db, proto, read_only: call.read_only, asker };
                    let mut watch = Stopwatch::start();
                    let ran = core.script_here(id, &calling, found, Some(ticket), &mut watch);
                    core.unlock(ticket);
                    if ran {
                        core.resume(id);
                    } else {
                        core.script_widely(id, &calling, found);
                    }
                });
                Flow::Pause
            }
            _ => {
                if self.script_here(id, &calling, found, None, watch) {
                    return Flow::Next;
                }
                self.script_widely(id, &calling, found);
                Flow::Pause
            }
        }
    }

    /// Whether a call with these keys has to queue for locks.
    fn must_wait(&mut self, command: &Command, db: usize, argv: &Argv<'_>, keys: usize) -> bool {
        if keys == 0 {
            return self.locks.is_shard_locked();
        }
        self.lock_numbers(command, db, argv).iter().any(|number| self.locks.is_locked(*number))
    }

    /// Runs a call on this core for a connection of it; false if it must run widely.
    fn script_here(
        &mut self,
        id: ConnectionId,
        calling: &Calling<'_>,
        found: Found,
        ticket: Option<Ticket>,
        watch: &mut Stopwatch,
    ) -> bool {
        // Not into the connection's output, which may be sent while the script runs.
        let mut reply = std::mem::take(&mut self.scripts.reply);
        watch.count(&mut self.stats, found.index);
        let ran = self.run_narrow(calling, found, ticket, &mut reply);
        if let Some(connection) = self.connection(id)
            && !(connection.waiting && std::mem::take(&mut connection.muted))
        {
            connection.output.extend_from_slice(&reply);
        }
        self.keep_reply(reply);
        if ran {
            let (nanos, _) = watch.stop(&mut self.stats);
            if self.stats.is_notable(nanos) {
                self.note_slow(Sender::Here(id), found.command, nanos, &calling.argv);
            }
        } else {
            *watch = Stopwatch::start();
        }
        ran
    }

    /// Runs a call that another core has sent; false if it must run widely, and then nothing was replied.
    pub(crate) fn script_entry(
        &mut self,
        from: usize,
        entry: Entry,
        argv: &Argv<'_>,
        ticket: Option<Ticket>,
        replies: &mut Vec<u8>,
        watch: &mut Stopwatch,
    ) -> bool {
        let Run::Script(call) = entry.command.run else { unreachable!("only calls of scripts") };
        let found = Found { command: entry.command, index: usize::from(entry.index) };
        watch.stop(&mut self.stats);
        let (code, keys) = match self.script_code(call, argv) {
            Ok(found) => found,
            Err(text) => {
                self.stats.book(found.index, 0, 1);
                self.count_script_error(found, &text);
                ReplyWriter::new(replies, entry.proto).error(text);
                return true;
            }
        };
        let client = Reader { core: from, id: entry.connection };
        let calling = Calling {
            code: &code,
            argv: *argv,
            keys,
            db: usize::from(entry.db),
            proto: entry.proto,
            read_only: call.read_only,
            asker: Asker { client, remembers: entry.remembers, no_touch: entry.no_touch },
        };
        watch.count(&mut self.stats, found.index);
        if !self.run_narrow(&calling, found, ticket, replies) {
            *watch = Stopwatch::start();
            return false;
        }
        let (nanos, _) = watch.stop(&mut self.stats);
        if self.stats.is_notable(nanos) {
            self.note_slow(Sender::There(from, entry.connection), found.command, nanos, argv);
        }
        true
    }

    /// Runs script `at` of a batch: whether it ran here, and whether all others of the batch were answered meanwhile.
    pub(crate) fn script_of_batch(
        &mut self,
        batch: &mut Batch,
        at: usize,
        replies: &mut Vec<u8>,
        watch: &mut Stopwatch,
    ) -> (bool, bool) {
        let entry = batch.entries[at];
        self.scripts.under_way = Some(batch.lend(at, std::mem::take(replies)));
        let mut reply = std::mem::take(&mut self.scripts.reply);
        let ran = self.script_entry(batch.from, entry, &batch.argv(at), None, &mut reply, watch);
        let lent = self.scripts.under_way.take().expect("lent above");
        let is_over = batch.take_back(lent, replies);
        replies.extend_from_slice(&reply);
        self.keep_reply(reply);
        (ran, is_over)
    }

    /// Keeps a reply's memory for the next one.
    fn keep_reply(&mut self, mut reply: Vec<u8>) {
        reply.clear();
        if reply.capacity() <= REPLY_KEPT_MAX {
            self.scripts.reply = reply;
        }
    }

    /// A script takes long: answers the others of the batch that it came in.
    pub(crate) fn answer_batch_under_way(&mut self, busy: &str) {
        let Some(lent) = &mut self.scripts.under_way else { return };
        let from = lent.from;
        if let Some(early) = lent.answer(busy) {
            self.post(from, Message::Replies(early));
        }
    }

    /// Runs a call of another core's connection widely. It is first in the queue of what waits for that connection,
    /// so that what is behind it stays there.
    pub(crate) fn script_entry_widely(&mut self, key: (usize, ConnectionId)) {
        let entry = self.parked[&key].queue[0].entries[0];
        let Run::Script(call) = entry.command.run else { unreachable!("only calls of scripts") };
        let waiting =
            self.parked.get_mut(&key).and_then(|parked| parked.queue.pop_front()).expect("it is first");
        let argv = waiting.argv(0);
        let code = self.script_code(call, &argv);
        let db = usize::from(entry.db);
        let client = Reader { core: key.0, id: key.1 };
        let asker = Asker { client, remembers: entry.remembers, no_touch: entry.no_touch };
        let found = Found { command: entry.command, index: usize::from(entry.index) };
        let wide = code.map(|(code, keys)| {
            let read_only = call.read_only;
            WideCall::new(
                &Calling { code: &code, argv, keys, db, proto: entry.proto, read_only, asker },
                found,
            )
        });
        self.parked.get_mut(&key).expect("it was there").queue.push_front(waiting);
        let done = move |core: &mut Core, reply: Vec<u8>| {
            let queue = &mut core.parked.get_mut(&key).expect("parked until it is run").queue;
            let mut alone: Box<Batch> = queue.pop_front().expect("parked until it is run");
            let more = !queue.is_empty();
            alone.ends.push(reply.len() as u32);
            alone.replies = reply;
            core.post(key.0, Message::Replies(alone));
            if more {
                core.unpark_when_unlocked(key);
            } else {
                core.parked.remove(&key);
            }
        };
        match wide {
            Ok(wide) => {
                let claim = self.parked[&key].claim.clone();
                self.run_widely(wide, move |_| claim.take(), done);
            }
            Err(text) => {
                let mut reply = Vec::new();
                ReplyWriter::new(&mut reply, entry.proto).error(text);
                done(self, reply);
            }
        }
    }

    /// Runs a call for a connection of this core under the locks of all shards.
    fn script_widely(&mut self, id: ConnectionId, calling: &Calling<'_>, found: Found) {
        let Some(connection) = self.connection(id) else { return };
        connection.waiting = true;
        let call = WideCall::new(calling, found);
        let claim = self.waits_for_locks(id);
        self.run_widely(
            call,
            move |core| core.has_its_locks(id, &claim),
            move |core, reply| core.answer(id, &reply),
        );
    }

    /// Runs a call that is part of a transaction, which holds the locks of all shards; that of this one is `ticket`.
    pub(crate) fn script_in_transaction(
        &mut self,
        id: ConnectionId,
        argv: &Argv<'_>,
        found: Found,
        ticket: Option<Ticket>,
    ) -> Flow {
        let Run::Script(call) = found.command.run else { unreachable!("only calls of scripts") };
        let asker = self.asker(id);
        let Some(connection) = self.connection(id) else { return Flow::Pause };
        let (db, proto) = (usize::from(connection.db), connection.proto);
        match self.script_code(call, argv) {
            Ok((code, keys)) => {
                let read_only = call.read_only;
                let calling = Calling { code: &code, argv: *argv, keys, db, proto, read_only, asker };
                if self.route(found.command, argv) == Some(Route::Here) && !code.reach().is_wide() {
                    let mut watch = Stopwatch::start();
                    if self.script_here(id, &calling, found, ticket, &mut watch) {
                        return Flow::Next;
                    }
                }
                let call = WideCall::new(&calling, found);
                self.run_on_thread(call, move |core, reply| core.answer(id, &reply));
                Flow::Pause
            }
            Err(text) => {
                self.stats.book(found.index, 0, 1);
                self.count_script_error(found, &text);
                let Some(connection) = self.connection(id) else { return Flow::Pause };
                ReplyWriter::new(&mut connection.output, proto).error(text);
                Flow::Next
            }
        }
    }

    fn count_script_error(&mut self, found: Found, text: &[u8]) {
        self.count_call_errors(found, &CallErrors::default(), Some(text));
    }

    /// Counts what a script's calls have answered, and the error that it ended with.
    fn count_call_errors(&mut self, found: Found, errors: &CallErrors, last: Option<&[u8]>) {
        for (kind, count) in &errors.counts {
            self.stats.count_errors(kind, *count);
        }
        let Some(text) = last else { return };
        let text = text.strip_prefix(b"-").unwrap_or(text);
        let text = String::from_utf8_lossy(&text[..text.len().min(ERROR_SHOWN_MAX)]);
        if !errors.has(&text) {
            self.stats.count_error(&text);
        }
        self.stats.count_failed(Some(found.index));
    }

    /// Books a call that did not run on this core's own clock.
    fn book_script(&mut self, call: &WideCall, nanos: u64, errors: &CallErrors, error: Option<&Vec<u8>>) {
        self.stats.book(call.found.index, nanos, 1);
        self.count_call_errors(call.found, errors, error.map(Vec::as_slice));
        if self.stats.is_notable(nanos)
            && let Some(argv) = call.request.peek()
        {
            let sender = Sender::of(call.asker.client, self.id);
            self.note_slow(sender, call.found.command, nanos, &argv);
        }
    }
}
