//! What the functions of one state share while a script runs.

use crate::host::{Host, How, Tick};
use crate::lua::Stack;
use crate::raise::Raise;
use crate::random::Random;
use std::ptr::NonNull;

/// State of the current run, and scratch memory that outlives it.
pub(crate) struct Context {
    /// The host, while a run is under way.
    host: Option<NonNull<dyn Host>>,
    /// For `redis.call`.
    pub(crate) how: How,
    /// Sequence of `math.random`.
    pub(crate) random: Random,
    /// A reply on its way into the script.
    pub(crate) reply: Vec<u8>,
    /// Units of work of Rust functions until the next tick.
    work: usize,
    /// While a text is compiled before a run, without a host: ticks that this may take still.
    pub(crate) compiling: Option<usize>,
    /// Why the run ends, if it does not end by itself.
    pub(crate) stopped: Option<Stopped>,
    /// Where the error came from that ended the run: chunk and line.
    pub(crate) raised_at: Option<(Vec<u8>, i32)>,
    /// What `redis.register_function` registers, while a library is loaded.
    pub(crate) library: Option<crate::function::Registrations>,
}

/// Why a script was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// [`crate::CallOutcome::Abort`]
    Aborted,
    /// [`Tick::Kill`]
    Killed,
}

impl Context {
    pub(crate) fn new() -> Context {
        Context {
            host: None,
            how: How { resp3: false, read_only: false },
            random: Random::UNSEEDED,
            reply: Vec::new(),
            work: 0,
            compiling: None,
            stopped: None,
            raised_at: None,
            library: None,
        }
    }

    /// Begins a run.
    #[expect(
        unsafe_code,
        reason = "the host is borrowed for a run, which no lifetime of a C callback can express"
    )]
    pub(crate) fn begin(&mut self, host: &mut dyn Host, read_only: bool) {
        let host = NonNull::from(host);
        // SAFETY: only the lifetime changes. `end` is called before the borrow of the caller ends (`State::run`).
        let host = unsafe { std::mem::transmute::<NonNull<dyn Host + '_>, NonNull<dyn Host>>(host) };
        self.host = Some(host);
        self.how = How { resp3: false, read_only };
        self.stopped = None;
        self.raised_at = None;
    }

    /// Ends a run.
    pub(crate) fn end(&mut self) {
        /// A reply's memory is kept for the next one up to this.
        const KEPT_MAX: usize = 64 * 1024;
        self.host = None;
        self.stopped = None;
        if self.reply.capacity() > KEPT_MAX {
            self.reply = Vec::new();
        }
    }

    /// The host of the run under way.
    #[expect(
        unsafe_code,
        reason = "the host is borrowed for a run, which no lifetime of a C callback can express"
    )]
    pub(crate) fn host(&mut self) -> Option<&mut dyn Host> {
        // SAFETY: `begin` was given a `&mut dyn Host` that is borrowed until `end` (`State::run` does both), and each use of it borrows the context, of which there is one `&mut` at a time.
        self.host.map(|mut host| unsafe { host.as_mut() })
    }

    /// To be called in loops whose length scripts choose, with the number of steps: fails if the memory is used up or
    /// if the script has to end.
    pub(crate) fn pause(&mut self, stack: &Stack, steps: usize) -> Result<(), Raise> {
        /// Steps between ticks: about as long as the interpreter's own budget.
        const BUDGET: usize = 1000;
        self.work += steps;
        if self.work < BUDGET && !stack.take_tick() {
            return Ok(());
        }
        self.work = 0;
        stack.check_memory()?;
        if self.tick() { Err(Raise::Abort) } else { Ok(()) }
    }

    /// Like [`Context::pause`], for output of Rust's that is not Lua's memory yet but will be.
    pub(crate) fn pause_for(&mut self, stack: &Stack, bytes: usize) -> Result<(), Raise> {
        stack.check_room(bytes)?;
        self.pause(stack, 1)
    }

    /// Whether the script has to end.
    pub(crate) fn tick(&mut self) -> bool {
        if let Some(left) = &mut self.compiling {
            *left = left.saturating_sub(1);
            return *left == 0;
        }
        let stop = self.host().is_some_and(|host| host.tick() == Tick::Kill);
        if stop {
            self.stopped = Some(Stopped::Killed);
        }
        stop
    }
}
