//! Scripts that take long: others are told BUSY, and SCRIPT KILL ends those that have changed nothing.
//!
//! Each thread that runs scripts has one word that says what it is running. The thread itself writes it, but for one
//! bit: whoever kills sets `KILLED`, and only while `WRITTEN` is not set; so a script that was killed has changed
//! nothing, and one that has changed something is never killed.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::utils::CachePadded;
use damselfly_commands::{Command, Run, ServerCommand};
use damselfly_protocol::Argv;

use super::Calling;
use super::registry::Code;
use crate::shared::Shared;

const ON: u32 = 1;
/// It is a function.
const FUNCTION: u32 = 1 << 1;
/// It has changed something.
const WRITTEN: u32 = 1 << 2;
/// It runs so long that whoever wants to kill a script means this one.
const LONG: u32 = 1 << 3;
/// It runs longer than `busy-reply-threshold`.
const SLOW: u32 = 1 << 4;
/// It has to end.
const KILLED: u32 = 1 << 5;

/// What a script takes until it is [`LONG`].
const LONG_FROM: Duration = Duration::from_millis(50);

/// How often a slow script lets its thread look at its sockets.
const BETWEEN_LOOKS: Duration = Duration::from_millis(10);

/// What others are told while a script is slow.
pub const BUSY_SCRIPT: &str =
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.";
/// The same for a function.
pub const BUSY_FUNCTION: &str =
    "BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE.";

/// A slow script, for FUNCTION STATS.
#[derive(Clone, Debug)]
pub struct Slow {
    /// SHA-1 or name of the function.
    pub name: String,
    /// The request.
    pub request: Vec<Vec<u8>>,
    /// When it began.
    pub since: Instant,
    /// It is a function.
    pub function: bool,
}

/// What one thread runs.
#[derive(Default)]
struct Running {
    state: AtomicU32,
    slow: Mutex<Option<Slow>>,
}

/// What all threads run.
pub struct AllRunning {
    threads: Box<[CachePadded<Running>]>,
    /// Slow scripts and slow functions; while both are zero nobody looks further.
    slow: [AtomicU32; 2],
    /// The server wants to save for the last time and waits for what runs.
    ending: AtomicBool,
}

/// What SCRIPT KILL found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Killing {
    /// It will end.
    Done,
    /// Nothing runs for long.
    Nothing,
    /// What runs has written.
    Written,
    /// What runs is a function, or is none, and the other command was given.
    OtherKind,
}

impl AllRunning {
    /// For so many threads.
    pub fn new(threads: usize) -> AllRunning {
        AllRunning {
            threads: (0..threads).map(|_| CachePadded::default()).collect(),
            slow: Default::default(),
            ending: AtomicBool::new(false),
        }
    }

    /// Whether scripts that take long have to make way for the last save: those that can be undone, and those that
    /// have written nothing.
    pub fn make_way(&self, ending: bool) {
        self.ending.store(ending, Ordering::Relaxed);
    }

    /// What others are told, if a script is slow.
    #[inline]
    pub fn busy(&self) -> Option<&'static str> {
        let [scripts, functions] = &self.slow;
        if scripts.load(Ordering::Relaxed) > 0 {
            Some(BUSY_SCRIPT)
        } else if functions.load(Ordering::Relaxed) > 0 {
            Some(BUSY_FUNCTION)
        } else {
            None
        }
    }

    /// Ends what runs for long and has written nothing.
    pub fn kill(&self, function: bool) -> Killing {
        let mut found = Killing::Nothing;
        for thread in &self.threads {
            let kill = |state: u32| {
                let killable =
                    state & LONG != 0 && state & WRITTEN == 0 && (state & FUNCTION != 0) == function;
                killable.then_some(state | KILLED)
            };
            match thread.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, kill) {
                Ok(_) => found = Killing::Done,
                Err(state) if state & LONG == 0 || found == Killing::Done => {}
                Err(state) if (state & FUNCTION != 0) != function => found = Killing::OtherKind,
                Err(_) => found = Killing::Written,
            }
        }
        found
    }

    /// The first slow script.
    pub fn slow(&self) -> Option<Slow> {
        let first = |thread: &CachePadded<Running>| {
            thread.slow.lock().unwrap_or_else(PoisonError::into_inner).clone()
        };
        self.threads.iter().find_map(first)
    }
}

/// How a script goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// As it was.
    On,
    /// The thread should look at its sockets.
    Look,
    /// Not at all.
    End,
}

/// Watches over one run.
pub(super) struct Watch {
    thread: usize,
    /// Unset until the first look at the clock.
    started: Option<Instant>,
    next_look: Option<Instant>,
    kind: u32,
    pub written: bool,
    slow: bool,
    /// What it writes can be put back.
    can_be_undone: bool,
}

impl Watch {
    /// A run begins on this thread.
    pub fn begin(shared: &Shared, thread: usize, code: &Code, can_be_undone: bool) -> Watch {
        let kind = if matches!(code, Code::Function(_)) { FUNCTION } else { 0 };
        shared.scripts.running.threads[thread].state.store(ON | kind, Ordering::Relaxed);
        Watch { thread, started: None, next_look: None, kind, written: false, slow: false, can_be_undone }
    }

    /// Whether the script may change something: from here on it cannot be killed.
    pub fn may_write(&mut self, shared: &Shared) -> bool {
        if !self.written {
            let state = &shared.scripts.running.threads[self.thread].state;
            let before = state.fetch_or(WRITTEN, Ordering::AcqRel);
            if before & KILLED != 0 {
                return false;
            }
            self.written = true;
        }
        true
    }

    /// Looks at the clock and whether somebody wants the script to end.
    pub fn tick(&mut self, shared: &Shared, calling: &Calling<'_>) -> Pace {
        let now = Instant::now();
        let started = *self.started.get_or_insert(now);
        let state = &shared.scripts.running.threads[self.thread].state;
        let ran = now - started;
        if ran < LONG_FROM && !shared.stopping.load(Ordering::Relaxed) {
            return Pace::On;
        }
        let before = state.fetch_or(LONG, Ordering::AcqRel);
        let makes_way =
            shared.scripts.running.ending.load(Ordering::Relaxed) && (self.can_be_undone || !self.written);
        if before & KILLED != 0 || makes_way || shared.stopping.load(Ordering::Relaxed) {
            return Pace::End;
        }
        let threshold = shared.settings.busy_reply_threshold();
        if !self.slow && threshold > 0 && ran >= Duration::from_millis(threshold) {
            self.slow = true;
            let name = calling.code.name();
            tracing::warn!("script {name} runs for {} ms: others are told that we are busy", ran.as_millis());
            let slow = Slow {
                name,
                request: calling.argv.iter().map(<[u8]>::to_vec).collect(),
                since: started,
                function: self.kind == FUNCTION,
            };
            *shared.scripts.running.threads[self.thread]
                .slow
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = Some(slow);
            state.fetch_or(SLOW, Ordering::AcqRel);
            shared.scripts.running.slow[usize::from(self.kind == FUNCTION)].fetch_add(1, Ordering::AcqRel);
        }
        if self.slow && self.next_look.is_none_or(|next| now >= next) {
            self.next_look = Some(now + BETWEEN_LOOKS);
            return Pace::Look;
        }
        Pace::On
    }

    /// The run is over.
    pub fn end(self, shared: &Shared) {
        let running = &shared.scripts.running;
        if self.slow {
            *running.threads[self.thread].slow.lock().unwrap_or_else(PoisonError::into_inner) = None;
            running.slow[usize::from(self.kind == FUNCTION)].fetch_sub(1, Ordering::AcqRel);
        }
        running.threads[self.thread].state.store(0, Ordering::Release);
    }
}

/// Whether a command is carried out while a script is slow.
pub(crate) fn allowed_while_busy(command: &Command, argv: &Argv<'_>) -> bool {
    use ServerCommand as S;
    let word = |word: &str| argv.get(1).is_some_and(|arg| arg.eq_ignore_ascii_case(word.as_bytes()));
    match command.run {
        Run::Server(which) => match which {
            S::Auth | S::Discard | S::Hello | S::Multi | S::Quit | S::Reset | S::Unwatch => true,
            S::Script => word("KILL"),
            S::Function => word("KILL") || word("STATS"),
            S::Shutdown => argv.iter().skip(1).any(|arg| arg.eq_ignore_ascii_case(b"NOSAVE")),
            _ => false,
        },
        _ => false,
    }
}
