//! WAIT and WAITAOF: what has reached replicas and disks. There are no replicas, and no file is appended to, so that
//! none has: both wait for what does not come, unless nothing is asked for.

use damselfly_protocol::ReplyWriter;
use damselfly_protocol::number::parse_i64;

use crate::blocking::{Blocking, Wait, at_once, no_mark, parse_timeout_ms};
use crate::{Args, Arity, Command, CommandError, Flags, Group, Keys, Run, Spread};

pub(crate) const COMMANDS: &[&Command] = &[&WAIT, &WAITAOF];

fn number(args: &Args<'_>, at: usize) -> Result<i64, CommandError> {
    args.get(at).and_then(parse_i64).ok_or(CommandError::NotInteger)
}

fn timeout(args: &Args<'_>, at: usize) -> Result<Wait, CommandError> {
    parse_timeout_ms(args.get(at).ok_or(CommandError::Syntax)?)
}

/// What both have in common.
const BASE: Blocking = Blocking {
    once: |cx, args| {
        number(&args, 0)?;
        timeout(&args, 1)?;
        cx.out.int(0);
        Ok(())
    },
    wait: |args| {
        let replicas = number(&args, 0)?;
        let wait = timeout(&args, 1)?;
        Ok(if replicas <= 0 { Wait::Never } else { wait })
    },
    first_only: false,
    exclusive: false,
    needs_keys: false,
    gather: false,
    mark: no_mark,
    ready: |_, _, _, _| Ok(false),
    in_steps: at_once,
    take: |_, _, _, _| unreachable!("there is no key"),
    nothing: |out| out.int(0),
};

const WAIT: Command = Command {
    name: "WAIT",
    arity: Arity::Exactly(3),
    keys: Keys::None,
    flags: Flags::BLOCKING,
    spread: Spread::Single,
    group: Group::Generic,
    since: "3.0.0",
    syntax: "numreplicas timeout",
    summary: "Waits until replicas have the writes of this connection, and counts them.",
    run: Run::Block(&WAIT_WAITS),
};

static WAIT_WAITS: Blocking = BASE;

const WAITAOF: Command = Command {
    name: "WAITAOF",
    arity: Arity::Exactly(4),
    keys: Keys::None,
    flags: Flags::BLOCKING,
    spread: Spread::Single,
    group: Group::Generic,
    since: "7.2.0",
    syntax: "numlocal numreplicas timeout",
    summary: "Waits until append-only files of this server and of replicas have the writes of this connection.",
    run: Run::Block(&WAITAOF_WAITS),
};

/// Checks the arguments of WAITAOF, as Redis without an append-only file does.
fn wait_for_files(args: Args<'_>) -> Result<Wait, CommandError> {
    let here = number(&args, 0)?;
    if !(0..=1).contains(&here) {
        return Err(CommandError::text("ERR value is out of range, must be between 0 and 1"));
    }
    let replicas = number(&args, 1)?;
    if replicas < 0 {
        return Err(CommandError::text("ERR value is out of range, must be positive"));
    }
    let wait = timeout(&args, 2)?;
    if here > 0 {
        return Err(CommandError::text(
            "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.",
        ));
    }
    Ok(if replicas == 0 { Wait::Never } else { wait })
}

static WAITAOF_WAITS: Blocking = Blocking {
    once: |cx, args| {
        wait_for_files(args)?;
        no_files(&mut cx.out);
        Ok(())
    },
    wait: wait_for_files,
    nothing: no_files,
    ..BASE
};

/// Neither this server nor a replica has written anything.
fn no_files(out: &mut ReplyWriter<'_>) {
    out.array(2);
    out.int(0);
    out.int(0);
}
