//! One call of a command's handler, by whomever: what it is told, and what this thread says of it if it breaks.

use std::cell::Cell;

use damselfly_commands::{Args, CmdResult, Command, Cx, Env, Flags, Handler, Later};
use damselfly_keyspace::Keyspace;
use damselfly_protocol::{Argv, Proto, ReplyWriter};

thread_local! {
    /// The shard of this thread.
    static SHARD: Cell<usize> = const { Cell::new(0) };
    /// What this thread is running, for the message of a broken invariant.
    static RUNNING: Cell<&'static str> = const { Cell::new("nothing") };
}

/// Command and shard that this thread is running.
pub fn running() -> (&'static str, usize) {
    (RUNNING.get(), SHARD.get())
}

/// Notes what this thread is about to run.
pub(crate) fn set_running(name: &'static str) {
    RUNNING.set(name);
}

/// Notes the shard that is this thread's.
pub(crate) fn set_shard(shard: usize) {
    SHARD.set(shard);
}

/// What a handler is called as: which command, over which database, answered in which protocol.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub name: &'static str,
    pub may_write: bool,
    pub db: usize,
    pub proto: Proto,
}

impl Call {
    /// Of this command.
    #[inline]
    pub fn of(command: &'static Command, db: usize, proto: Proto) -> Call {
        Call { name: command.name, may_write: command.flags.has(Flags::WRITE), db, proto }
    }
}

/// Runs a handler; its error, if any, becomes the reply and is returned for counting.
#[inline]
pub(crate) fn run_handler(
    call: Call,
    handler: Handler,
    ks: &mut Keyspace,
    env: &Env,
    argv: &Argv<'_>,
    out: &mut Vec<u8>,
) -> Option<String> {
    run_handler_for(call, handler, ks, env, argv, out, None)
}

/// As [`run_handler`], for a command that may go on when its handler has returned: `later` takes the rest of it. What
/// the caller has said of heat ([`Keyspace::leaves_heat`]) is for this command alone.
#[inline]
pub(crate) fn run_handler_for(
    call: Call,
    handler: impl FnOnce(&mut Cx<'_>, Args<'_>) -> CmdResult,
    ks: &mut Keyspace,
    env: &Env,
    argv: &Argv<'_>,
    out: &mut Vec<u8>,
    later: Later<'_>,
) -> Option<String> {
    RUNNING.set(call.name);
    let before = out.len();
    ks.begin_command(call.may_write);
    let mut cx = Cx { ks, db: call.db, out: ReplyWriter::new(out, call.proto), env, later };
    let ended = handler(&mut cx, Args::behind_name(argv));
    cx.ks.end_command();
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
