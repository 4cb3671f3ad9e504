//! Transactions. The server carries them out, because their commands may be for any shards.

use crate::{Arity, Command, Flags, Group, Keys, Run, ServerCommand, Spread};

pub(crate) const COMMANDS: &[&Command] = &[&DISCARD, &EXEC, &MULTI, &UNWATCH, &WATCH];

/// What all of them are.
const COMMON: Flags = Flags::NO_SCRIPT.with(Flags::LOADING).with(Flags::STALE);

const DISCARD: Command = Command {
    name: "DISCARD",
    arity: Arity::Exactly(1),
    keys: Keys::None,
    flags: COMMON.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Transactions,
    since: "2.0.0",
    syntax: "",
    summary: "Drops a transaction.",
    run: Run::Server(ServerCommand::Discard),
};

const EXEC: Command = Command {
    name: "EXEC",
    arity: Arity::Exactly(1),
    keys: Keys::None,
    flags: COMMON.with(Flags::SKIP_SLOWLOG),
    spread: Spread::Single,
    group: Group::Transactions,
    since: "1.2.0",
    syntax: "",
    summary: "Runs all commands of a transaction as one.",
    run: Run::Server(ServerCommand::Exec),
};

const MULTI: Command = Command {
    name: "MULTI",
    arity: Arity::Exactly(1),
    keys: Keys::None,
    flags: COMMON.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Transactions,
    since: "1.2.0",
    syntax: "",
    summary: "Begins a transaction.",
    run: Run::Server(ServerCommand::Multi),
};

const UNWATCH: Command = Command {
    name: "UNWATCH",
    arity: Arity::Exactly(1),
    keys: Keys::None,
    flags: COMMON.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Transactions,
    since: "2.2.0",
    syntax: "",
    summary: "Forgets the keys that are watched.",
    run: Run::Server(ServerCommand::Unwatch),
};

const WATCH: Command = Command {
    name: "WATCH",
    arity: Arity::AtLeast(2),
    keys: Keys::Range { first: 1, last: -1, step: 1 },
    flags: COMMON.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Transactions,
    since: "2.2.0",
    syntax: "key [key ...]",
    summary: "Makes the next transaction depend on keys not being changed until then.",
    run: Run::Server(ServerCommand::Watch),
};
