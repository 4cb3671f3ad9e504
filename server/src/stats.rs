//! What one core counts. Plain integers: each core has its own, and whoever wants a sum asks all of them.

use std::collections::VecDeque;
use std::time::Instant;

use damselfly_commands::{Command, Flags};
use damselfly_protocol::Argv;

use crate::latency::{Events, Histogram};
use crate::server_commands::subcommands;

/// Counters of one command.
#[derive(Clone, Copy, Debug, Default)]
pub struct CommandStat {
    /// Times it was run.
    pub calls: u64,
    /// Time it took, in nanoseconds.
    pub nanos: u64,
    /// Times it was refused before it ran (arity, authentication...).
    pub rejected: u64,
    /// Times it answered an error.
    pub failed: u64,
}

/// What has counters, in their order: the commands, then the sub-commands as `container|name`; in lower case.
pub fn names() -> impl Iterator<Item = String> {
    let commands = damselfly_commands::all().map(|command| command.name.to_ascii_lowercase());
    commands.chain(subcommands::all().map(|subcommand| subcommand.full_name()))
}

/// One entry of the slow log.
#[derive(Clone, Debug)]
pub struct Slow {
    /// Number, unique and growing over all cores.
    pub id: u64,
    /// Unix seconds.
    pub at_s: u64,
    /// Duration in microseconds.
    pub micros: u64,
    /// The request, shortened as Redis does.
    pub args: Vec<Vec<u8>>,
    /// Peer address.
    pub addr: String,
    /// Client name.
    pub name: String,
}

/// Longest request and longest argument kept in the slow log, as in Redis.
pub const SLOW_ARGS_MAX: usize = 32;
/// See [`SLOW_ARGS_MAX`].
pub const SLOW_ARG_LEN_MAX: usize = 128;

/// See the module's head.
pub struct CoreStats {
    /// By command index, then those of sub-commands: see [`names`].
    pub commands: Vec<CommandStat>,
    /// Bytes received on connections that are closed; open ones carry their own count.
    pub received: u64,
    /// Bytes sent on connections that are closed.
    pub sent: u64,
    /// Commands run.
    pub processed: u64,
    /// Of these, the ones of closed connections of other ports than the main one.
    pub processed_other: u64,
    /// Commands that travelled from this core to another.
    pub forwarded: u64,
    /// Commands that came in a read together with others.
    pub pipelined: u64,
    /// Connections closed for idleness.
    pub timed_out: u64,
    /// Clients closed because they did not take their replies.
    pub output_limited: u64,
    /// Clients closed because their unfinished requests took too much room.
    pub input_limited: u64,
    /// Error replies.
    pub error_replies: u64,
    /// Error replies by their first word.
    pub errors: std::collections::BTreeMap<String, u64>,
    /// Commands refused for memory.
    pub oom: u64,
    /// Changes of keys before the last reset, so that those since the start can be told.
    pub mutations_before_reset: u64,
    /// Commands that took long, newest first.
    pub slow: VecDeque<Slow>,
    /// `latency-monitor-threshold`; 0 is never.
    pub event_from_ms: u64,
    /// What took at least that long.
    pub events: Events,
    /// `latency-tracking`.
    pub tracking: bool,
    /// Times of the commands that ran while they were tracked, in the same order.
    pub histograms: Vec<Option<Box<Histogram>>>,
    /// `slowlog-log-slower-than`.
    pub slow_from_us: i64,
    /// `slowlog-max-len`.
    pub slow_len_max: usize,
    /// Commands per second over the last second or so.
    pub ops_per_second: u64,
    sampled: (u64, u64),
}

impl Default for CoreStats {
    fn default() -> CoreStats {
        CoreStats {
            commands: vec![CommandStat::default(); names().count()],
            received: 0,
            sent: 0,
            processed: 0,
            processed_other: 0,
            forwarded: 0,
            pipelined: 0,
            timed_out: 0,
            output_limited: 0,
            input_limited: 0,
            error_replies: 0,
            errors: std::collections::BTreeMap::new(),
            oom: 0,
            mutations_before_reset: 0,
            slow: VecDeque::new(),
            event_from_ms: 0,
            events: Events::new(),
            tracking: false,
            histograms: vec![None; names().count()],
            slow_from_us: 10_000,
            slow_len_max: 128,
            ops_per_second: 0,
            sampled: (0, 0),
        }
    }
}

/// Error kinds counted by name; further ones are counted together, so that clients cannot make the map grow.
const ERROR_KINDS_MAX: usize = 64;

impl CoreStats {
    /// Counts an error reply by its first word (`ERR`, `WRONGTYPE`...).
    pub fn count_error(&mut self, text: &str) {
        self.count_errors(text, 1);
    }

    /// Counts so many of one kind.
    pub fn count_errors(&mut self, text: &str, more: u64) {
        self.error_replies += more;
        let kind = text.split(' ').next().unwrap_or_default();
        if let Some(count) = self.errors.get_mut(kind) {
            *count += more;
        } else if self.errors.len() < ERROR_KINDS_MAX {
            self.errors.insert(kind.to_string(), more);
        }
    }

    /// Counts a command that answered an error.
    pub fn count_failed(&mut self, index: Option<usize>) {
        if let Some(index) = index {
            self.commands[index].failed += 1;
        }
    }

    /// Books calls of a command and the time they took together.
    #[inline]
    pub fn book(&mut self, index: usize, nanos: u64, calls: u64) {
        self.commands[index].calls += calls;
        self.book_time(index, nanos, calls);
    }

    #[inline]
    fn book_time(&mut self, index: usize, nanos: u64, calls: u64) {
        self.commands[index].nanos += nanos;
        if self.tracking {
            self.histograms[index].get_or_insert_default().count(nanos / calls.max(1), calls);
        }
    }

    /// Counts a command that may wait, when it begins: also those count that never get anything, as in Redis.
    pub fn count_call(&mut self, index: usize) {
        self.commands[index].calls += 1;
    }

    /// Books the time of a command that was counted when it began.
    pub fn book_counted(&mut self, index: usize, nanos: u64) {
        self.book_time(index, nanos, 1);
    }

    /// Whether somebody wants to know of a single command that took this long.
    #[inline]
    pub fn is_notable(&self, nanos: u64) -> bool {
        self.is_slow(nanos) || self.is_event(nanos)
    }

    pub fn is_slow(&self, nanos: u64) -> bool {
        self.slow_from_us >= 0 && nanos / 1000 >= self.slow_from_us as u64 && self.slow_len_max > 0
    }

    fn is_event(&self, nanos: u64) -> bool {
        self.event_from_ms > 0 && nanos / 1_000_000 >= self.event_from_ms
    }

    /// Notes an event that took long enough.
    pub fn note_event(&mut self, name: &'static str, nanos: u64, now_ms: u64) {
        if self.is_event(nanos) {
            self.events.entry(name).or_default().note(now_ms / 1000, nanos / 1_000_000);
        }
    }

    /// A request as the slow log keeps it, if it took long enough; the caller knows who sent it.
    pub fn slow_args(&self, command: &Command, nanos: u64, argv: &Argv<'_>) -> Option<Vec<Vec<u8>>> {
        if !self.is_slow(nanos) || command.flags.has(Flags::SKIP_SLOWLOG) {
            return None;
        }
        Some(shown_args(command, argv))
    }

    /// Adds an entry to the slow log.
    pub fn push_slow(&mut self, slow: Slow) {
        self.slow.push_front(slow);
        self.slow.truncate(self.slow_len_max);
    }

    /// Called at every tick: keeps the rate of commands.
    pub fn sample(&mut self, now_ms: u64) {
        let (at, processed) = self.sampled;
        let passed = now_ms.saturating_sub(at);
        if passed >= 1000 {
            self.ops_per_second = (self.processed - processed) * 1000 / passed;
            self.sampled = (now_ms, self.processed);
        }
    }

    /// CONFIG RESETSTAT: the counters; what was noted of single commands stays.
    pub fn reset(&mut self) {
        let old = std::mem::take(self);
        self.slow_from_us = old.slow_from_us;
        self.slow_len_max = old.slow_len_max;
        self.slow = old.slow;
        self.event_from_ms = old.event_from_ms;
        self.events = old.events;
        self.tracking = old.tracking;
        self.mutations_before_reset = old.mutations_before_reset;
        self.sampled = (old.sampled.0, 0);
    }
}

/// What the slow log shows of a request.
pub fn shown_args(command: &Command, argv: &Argv<'_>) -> Vec<Vec<u8>> {
    let total = argv.len();
    let kept = if total > SLOW_ARGS_MAX { SLOW_ARGS_MAX - 1 } else { total };
    let mut shown: Vec<Vec<u8>> = (0..kept)
        .map(|at| {
            let arg = &argv[at];
            if is_secret(command, argv, at) {
                return b"(redacted)".to_vec();
            }
            if arg.len() <= SLOW_ARG_LEN_MAX {
                return arg.to_vec();
            }
            let mut short = arg[..SLOW_ARG_LEN_MAX].to_vec();
            short.extend(format!("... ({} more bytes)", arg.len() - SLOW_ARG_LEN_MAX).into_bytes());
            short
        })
        .collect();
    if total > SLOW_ARGS_MAX {
        shown.push(format!("... ({} more arguments)", total - kept).into_bytes());
    }
    shown
}

/// Whether an argument is a password that CONFIG SET is to change.
fn is_secret(command: &Command, argv: &Argv<'_>, at: usize) -> bool {
    command.name == "CONFIG"
        && at >= 3
        && at % 2 == 1
        && argv[1].eq_ignore_ascii_case(b"SET")
        && [b"requirepass".as_slice(), b"masterauth"]
            .iter()
            .any(|secret| argv[at - 1].eq_ignore_ascii_case(secret))
}

/// Measures runs of equal commands with one clock reading each: a clock call per command would be a twentieth of a
/// pipelined GET.
pub struct Stopwatch {
    started: Instant,
    command: Option<(usize, u64)>,
}

impl Stopwatch {
    /// Starts.
    pub fn start() -> Stopwatch {
        Stopwatch { started: Instant::now(), command: None }
    }

    /// Counts a command that is about to run; true if a run of another command ended with this.
    #[inline]
    pub fn count(&mut self, stats: &mut CoreStats, index: usize) {
        match &mut self.command {
            Some((current, calls)) if *current == index => *calls += 1,
            _ => {
                self.stop(stats);
                self.command = Some((index, 1));
            }
        }
    }

    /// The call that was counted last was refused: Redis counts it as rejected, not as a call.
    pub fn refuse(&mut self) {
        self.command = self.command.map(|(index, calls)| (index, calls - 1)).filter(|(_, calls)| *calls > 0);
    }

    /// Gives up what was counted since the command changed, which is booked elsewhere; returns how long that took.
    pub fn give_up(&mut self) -> u64 {
        let now = Instant::now();
        let nanos = (now - self.started).as_nanos() as u64;
        (self.started, self.command) = (now, None);
        nanos
    }

    /// Books what was counted since the command changed; returns how long that took and how many calls it was.
    pub fn stop(&mut self, stats: &mut CoreStats) -> (u64, u64) {
        let Some((index, calls)) = self.command.take() else { return (0, 0) };
        let now = Instant::now();
        let nanos = (now - self.started).as_nanos() as u64;
        self.started = now;
        stats.book(index, nanos, calls);
        (nanos, calls)
    }
}

/// Whether a command may be timed together with its neighbours of the same kind; the others are timed alone so that
/// the slow log can name them. (A clock reading for each was a twelfth of a pipelined ZRANGE 0 9.)
#[inline]
pub fn timed_in_runs(command: &Command) -> bool {
    command.flags.has(Flags::FAST) || command.flags.has(Flags::BRIEF)
}
