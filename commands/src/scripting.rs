//! Scripts and functions. The server carries them out, because it has the engines and because a script may turn out
//! to need other shards than those of the keys that it declares.

use crate::{Arity, Command, Flags, Group, Keys, Run, ServerCommand, Spread};

/// A call of a script or function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScriptCall {
    /// What the first argument is.
    pub by: ScriptBy,
    /// Commands that write are refused.
    pub read_only: bool,
}

/// How a script is named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScriptBy {
    /// By its source.
    Source,
    /// By the digest of its source.
    Digest,
    /// It is a function of a library.
    Function,
}

pub(crate) const COMMANDS: &[&Command] =
    &[&EVAL, &EVALSHA, &EVALSHA_RO, &EVAL_RO, &FCALL, &FCALL_RO, &FUNCTION, &SCRIPT];

/// What all calls are. What MONITOR shows of them, it is shown when they begin, before their commands.
const CALLS: Flags = Flags::NO_SCRIPT
    .with(Flags::SCRIPT)
    .with(Flags::STALE)
    .with(Flags::SKIP_MONITOR)
    .with(Flags::MOVABLE_KEYS);

/// Where a call's keys are: their number is behind the script.
const KEYS: Keys = Keys::Counted { count: 2, also: 0 };

const EVAL: Command = Command {
    name: "EVAL",
    arity: Arity::AtLeast(3),
    keys: KEYS,
    flags: CALLS,
    spread: Spread::Single,
    group: Group::Scripting,
    since: "2.6.0",
    syntax: "script numkeys [key [key ...]] [arg [arg ...]]",
    summary: "Runs a script.",
    run: Run::Script(ScriptCall { by: ScriptBy::Source, read_only: false }),
};

const EVALSHA: Command = Command {
    name: "EVALSHA",
    arity: Arity::AtLeast(3),
    keys: KEYS,
    flags: CALLS,
    spread: Spread::Single,
    group: Group::Scripting,
    since: "2.6.0",
    syntax: "sha1 numkeys [key [key ...]] [arg [arg ...]]",
    summary: "Runs a script that is known by its digest.",
    run: Run::Script(ScriptCall { by: ScriptBy::Digest, read_only: false }),
};

const EVALSHA_RO: Command = Command {
    name: "EVALSHA_RO",
    arity: Arity::AtLeast(3),
    keys: KEYS,
    flags: CALLS.with(Flags::READ),
    spread: Spread::Single,
    group: Group::Scripting,
    since: "7.0.0",
    syntax: "sha1 numkeys [key [key ...]] [arg [arg ...]]",
    summary: "Runs a script that is known by its digest and writes nothing.",
    run: Run::Script(ScriptCall { by: ScriptBy::Digest, read_only: true }),
};

const EVAL_RO: Command = Command {
    name: "EVAL_RO",
    arity: Arity::AtLeast(3),
    keys: KEYS,
    flags: CALLS.with(Flags::READ),
    spread: Spread::Single,
    group: Group::Scripting,
    since: "7.0.0",
    syntax: "script numkeys [key [key ...]] [arg [arg ...]]",
    summary: "Runs a script that writes nothing.",
    run: Run::Script(ScriptCall { by: ScriptBy::Source, read_only: true }),
};

const FCALL: Command = Command {
    name: "FCALL",
    arity: Arity::AtLeast(3),
    keys: KEYS,
    flags: CALLS,
    spread: Spread::Single,
    group: Group::Scripting,
    since: "7.0.0",
    syntax: "function numkeys [key [key ...]] [arg [arg ...]]",
    summary: "Runs a function.",
    run: Run::Script(ScriptCall { by: ScriptBy::Function, read_only: false }),
};

const FCALL_RO: Command = Command {
    name: "FCALL_RO",
    arity: Arity::AtLeast(3),
    keys: KEYS,
    flags: CALLS.with(Flags::READ),
    spread: Spread::Single,
    group: Group::Scripting,
    since: "7.0.0",
    syntax: "function numkeys [key [key ...]] [arg [arg ...]]",
    summary: "Runs a function that writes nothing.",
    run: Run::Script(ScriptCall { by: ScriptBy::Function, read_only: true }),
};

const FUNCTION: Command = Command {
    name: "FUNCTION",
    arity: Arity::AtLeast(2),
    keys: Keys::None,
    flags: Flags::NO_SCRIPT,
    spread: Spread::Single,
    group: Group::Scripting,
    since: "7.0.0",
    syntax: "subcommand [argument ...]",
    summary: "Loads, removes, lists and saves libraries of functions.",
    run: Run::Server(ServerCommand::Function),
};

const SCRIPT: Command = Command {
    name: "SCRIPT",
    arity: Arity::AtLeast(2),
    keys: Keys::None,
    flags: Flags::NO_SCRIPT,
    spread: Spread::Single,
    group: Group::Scripting,
    since: "2.6.0",
    syntax: "subcommand [argument ...]",
    summary: "Loads, forgets and stops scripts.",
    run: Run::Server(ServerCommand::Script),
};
