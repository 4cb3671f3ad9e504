//! What one core counts. Plain integers: each core has its own, and whoever wants a sum asks all of them.

use std::collections::VecDeque;
use std::time::Instant;

use damselfly_commands::Command;

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

/// One entry of the slow log.
#[derive(Clone, Debug)]
pub struct Slow {
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
    /// By command index.
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
            commands: vec![CommandStat::default(); damselfly_commands::all().count()],
            received: 0,
            sent: 0,
            processed: 0,
            processed_other: 0,
            forwarded: 0,
            pipelined: 0,
            timed_out: 0,
            error_replies: 0,
            errors: std::collections::BTreeMap::new(),
            oom: 0,
            mutations_before_reset: 0,
            slow: VecDeque::new(),
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
        self.error_replies += 1;
        let kind = text.split(' ').next().unwrap_or_default();
        if let Some(count) = self.errors.get_mut(kind) {
            *count += 1;
        } else if self.errors.len() < ERROR_KINDS_MAX {
            self.errors.insert(kind.to_string(), 1);
        }
    }

    /// Notes a command that took this long if it is slow enough to be logged.
    pub fn note_duration<'a>(
        &mut self,
        nanos: u64,
        now_ms: u64,
        args: impl ExactSizeIterator<Item = &'a [u8]>,
        who: impl FnOnce() -> (String, String),
    ) {
        let micros = nanos / 1000;
        if self.slow_from_us < 0 || micros < self.slow_from_us as u64 || self.slow_len_max == 0 {
            return;
        }
        let total = args.len();
        let kept = if total > SLOW_ARGS_MAX { SLOW_ARGS_MAX - 1 } else { total };
        let mut shown: Vec<Vec<u8>> = args
            .take(kept)
            .map(|arg| {
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
        let (addr, name) = who();
        self.slow.push_front(Slow { at_s: now_ms / 1000, micros, args: shown, addr, name });
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

    /// CONFIG RESETSTAT.
    pub fn reset(&mut self) {
        let kept = (self.slow_from_us, self.slow_len_max, std::mem::take(&mut self.slow), self.sampled.0);
        let mutations = self.mutations_before_reset;
        *self = CoreStats::default();
        self.mutations_before_reset = mutations;
        (self.slow_from_us, self.slow_len_max, self.slow) = (kept.0, kept.1, kept.2);
        self.sampled = (kept.3, 0);
    }
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

    /// Books what was counted since the command changed; returns how long that took and how many calls it was.
    pub fn stop(&mut self, stats: &mut CoreStats) -> (u64, u64) {
        let Some((index, calls)) = self.command.take() else { return (0, 0) };
        let now = Instant::now();
        let nanos = (now - self.started).as_nanos() as u64;
        self.started = now;
        let stat = &mut stats.commands[index];
        stat.calls += calls;
        stat.nanos += nanos;
        (nanos, calls)
    }
}

/// Whether a command may be timed together with its neighbours of the same kind; the others are timed alone so that
/// the slow log can name them.
pub fn timed_in_runs(command: &Command) -> bool {
    use damselfly_commands::Flags;
    command.flags.has(Flags::FAST) || matches!(command.name, "SET" | "MSET")
}
