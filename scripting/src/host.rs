//! What scripts need from the server: commands, the log, a clock, permission to go on.

/// The server as a script sees it.
pub trait Host {
    /// Runs a command and appends its reply to `reply` as RESP. The reply may be in the protocol that `how` names or
    /// in RESP2. An error reply is the script's to handle; [`CallOutcome::Abort`] ends the script.
    fn call(&mut self, argv: &[&[u8]], how: How, reply: &mut Vec<u8>) -> CallOutcome;

    /// A line for the server's log.
    fn log(&mut self, level: LogLevel, text: &[u8]);

    /// Whether the user may run this command.
    fn acl_check(&mut self, argv: &[&[u8]]) -> AclCheck;

    /// What of the script's writes from here on is replicated.
    fn set_repl(&mut self, what: Repl);

    /// Asked every 50 microseconds or so of a script's work: may it go on? The host has the clock, so it knows when
    /// the script is too slow, lets others run if it can, and remembers SCRIPT KILL.
    fn tick(&mut self) -> Tick;

    /// Seconds of processor time, for `os.clock`.
    fn clock(&mut self) -> f64;
}

/// Circumstances of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct How {
    /// The script has asked for RESP3 replies by `redis.setresp(3)`.
    pub resp3: bool,
    /// Commands that write have to be refused, because the caller (EVAL_RO) or the script (`no-writes`) says so.
    pub read_only: bool,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// There is a reply.
    Done,
    /// The script has to end here, and no `pcall` of it may notice: the server will run it again in another way. The
    /// run answers [`crate::Ended::Aborted`].
    Abort,
}

/// Answer of [`Host::tick`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tick {
    /// The script goes on.
    Continue,
    /// The script ends, and no `pcall` of it can prevent that. The run answers [`crate::Ended::Killed`].
    Kill,
}

/// Answer of [`Host::acl_check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AclCheck {
    /// The user may.
    Allowed,
    /// The user may not.
    Denied,
    /// No such command, or not so many arguments.
    Unknown,
}

/// Levels of `redis.log`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// `redis.LOG_DEBUG`
    Debug,
    /// `redis.LOG_VERBOSE`
    Verbose,
    /// `redis.LOG_NOTICE`
    Notice,
    /// `redis.LOG_WARNING`
    Warning,
}

/// Argument of `redis.set_repl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repl {
    /// To the append-only file.
    pub aof: bool,
    /// To replicas.
    pub replicas: bool,
}
