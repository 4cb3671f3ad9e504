//! Commands about the server and about whole databases. The server carries them out over all shards; they are declared
//! here so that there is one table.

use crate::{Arity, Command, Flags, Group, Keys, Run, ServerCommand, Spread};

pub(crate) const COMMANDS: &[&Command] = &[
    &BGSAVE, &COMMAND, &CONFIG, &DBSIZE, &DEBUG, &DFLY, &FLUSHALL, &FLUSHDB, &INFO, &LASTSAVE, &LATENCY,
    &LOLWUT, &MEMORY, &MODULE, &MONITOR, &ROLE, &SAVE, &SHUTDOWN, &SLOWLOG, &SWAPDB, &TIME,
];

const BGSAVE: Command = Command {
    name: "BGSAVE",
    arity: Arity::AtLeast(1),
    keys: Keys::None,
    flags: Flags::ADMIN.with(Flags::NO_SCRIPT),
    spread: Spread::Single,
    group: Group::Server,
    since: "1.0.0",
    syntax: "[SCHEDULE] [DF | RDB [filename]]",
    summary: "Begins to save all data as it is now.",
    run: Run::Server(ServerCommand::BgSave),
};

const COMMAND: Command = Command {
    name: "COMMAND",
    arity: Arity::AtLeast(1),
    keys: Keys::None,
    flags: Flags::LOADING.with(Flags::STALE),
    spread: Spread::Single,
    group: Group::Server,
    since: "2.8.13",
    syntax: "[COUNT | DOCS [command-name ...] | GETKEYS command [arg ...] | GETKEYSANDFLAGS command [arg ...] | INFO [command-name ...] | LIST [FILTERBY MODULE module-name | ACLCAT category | PATTERN pattern]]",
    summary: "Describes the commands of the server.",
    run: Run::Server(ServerCommand::Command),
};

const CONFIG: Command = Command {
    name: "CONFIG",
    arity: Arity::AtLeast(2),
    keys: Keys::None,
    flags: Flags::ADMIN.with(Flags::NO_SCRIPT).with(Flags::LOADING).with(Flags::STALE),
    spread: Spread::Single,
    group: Group::Server,
    since: "2.0.0",
    syntax: "GET parameter [parameter ...] | SET parameter value [parameter value ...] | RESETSTAT | REWRITE",
    summary: "Reads and changes the configuration.",
    run: Run::Server(ServerCommand::Config),
};

const DBSIZE: Command = Command {
    name: "DBSIZE",
    arity: Arity::Exactly(1),
    keys: Keys::None,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Server,
    since: "1.0.0",
    syntax: "",
    summary: "Returns the number of keys in the database.",
    run: Run::Server(ServerCommand::DbSize),
};

const DEBUG: Command = Command {
    name: "DEBUG",
    arity: Arity::AtLeast(2),
    keys: Keys::None,
    flags: Flags::ADMIN.with(Flags::NO_SCRIPT).with(Flags::LOADING).with(Flags::STALE),
    spread: Spread::Single,
    group: Group::Server,
    since: "1.0.0",
    syntax: "subcommand [argument ...]",
    summary: "Tools for testing and debugging.",
    run: Run::Server(ServerCommand::Debug),
};

const DFLY: Command = Command {
    name: "DFLY",
    arity: Arity::AtLeast(2),
    keys: Keys::None,
    flags: Flags::ADMIN.with(Flags::NO_SCRIPT).with(Flags::NO_MULTI).with(Flags::HIDDEN),
    spread: Spread::Single,
    group: Group::Server,
    since: "7.0.0",
    syntax: "LOAD file [APPEND] | HELP",
    summary: "Loads a snapshot in place of the data.",
    run: Run::Server(ServerCommand::Dfly),
};

const FLUSHALL: Command = Command {
    name: "FLUSHALL",
    arity: Arity::AtLeast(1),
    keys: Keys::None,
    flags: Flags::WRITE.with(Flags::DANGEROUS),
    spread: Spread::Single,
    group: Group::Server,
    since: "1.0.0",
    syntax: "[ASYNC | SYNC]",
    summary: "Removes all keys of all databases.",
    run: Run::Server(ServerCommand::FlushAll),
};

const FLUSHDB: Command = Command {
    name: "FLUSHDB",
    arity: Arity::AtLeast(1),
    keys: Keys::None,
    flags: Flags::WRITE.with(Flags::DANGEROUS),
    spread: Spread::Single,
    group: Group::Server,
    since: "1.0.0",
    syntax: "[ASYNC | SYNC]",
    summary: "Removes all keys of the database.",
    run: Run::Server(ServerCommand::FlushDb),
};

const INFO: Command = Command {
    name: "INFO",
    arity: Arity::AtLeast(1),
    keys: Keys::None,
    flags: Flags::LOADING.with(Flags::STALE),
    spread: Spread::Single,
    group: Group::Server,
    since: "1.0.0",
    syntax: "[section [section ...]]",
    summary: "Returns facts and counters of the server.",
    run: Run::Server(ServerCommand::Info),
};

const LASTSAVE: Command = Command {
    name: "LASTSAVE",
    arity: Arity::Exactly(1),
    keys: Keys::None,
    flags: Flags::LOADING.with(Flags::STALE).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Server,
    since: "1.0.0",
    syntax: "",
    summary: "Returns the Unix time of the last save that succeeded.",
    run: Run::Server(ServerCommand::LastSave),
};

const LATENCY: Command = Command {
    name: "LATENCY",
    arity: Arity::AtLeast(2),
    keys: Keys::None,
    flags: Flags::ADMIN.with(Flags::NO_SCRIPT).with(Flags::LOADING).with(Flags::STALE),
    spread: Spread::Single,
    group: Group::Server,
    since: "2.8.13",
    syntax: "subcommand [argument ...]",
    summary: "Shows where the server was slow.",
    run: Run::Server(ServerCommand::Latency),
};

const LOLWUT: Command = Command {
    name: "LOLWUT",
    arity: Arity::AtLeast(1),
    keys: Keys::None,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Server,
    since: "5.0.0",
    syntax: "[VERSION version]",
    summary: "Draws something, and tells the version.",
    run: Run::Server(ServerCommand::Lolwut),
};

const MEMORY: Command = Command {
    name: "MEMORY",
    arity: Arity::AtLeast(2),
    keys: Keys::None,
    flags: Flags::READ.with(Flags::MOVABLE_KEYS),
    spread: Spread::Single,
    group: Group::Server,
    since: "4.0.0",
    syntax: "DOCTOR | MALLOC-STATS | PURGE | STATS | USAGE key [SAMPLES count]",
    summary: "Shows what memory is used for.",
    run: Run::Server(ServerCommand::Memory),
};

const MODULE: Command = Command {
    name: "MODULE",
    arity: Arity::AtLeast(2),
    keys: Keys::None,
    flags: Flags::ADMIN.with(Flags::NO_SCRIPT),
    spread: Spread::Single,
    group: Group::Server,
    since: "4.0.0",
    syntax: "LIST",
    summary: "Lists the modules whose commands are built in.",
    run: Run::Server(ServerCommand::Module),
};

const MONITOR: Command = Command {
    name: "MONITOR",
    arity: Arity::Exactly(1),
    keys: Keys::None,
    flags: Flags::ADMIN.with(Flags::NO_SCRIPT).with(Flags::LOADING).with(Flags::STALE),
    spread: Spread::Single,
    group: Group::Server,
    since: "1.0.0",
    syntax: "",
    summary: "Shows every command the server executes, as it does.",
    run: Run::Server(ServerCommand::Monitor),
};

const ROLE: Command = Command {
    name: "ROLE",
    arity: Arity::Exactly(1),
    keys: Keys::None,
    flags: Flags::NO_SCRIPT.with(Flags::LOADING).with(Flags::STALE).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Server,
    since: "2.8.12",
    syntax: "",
    summary: "Returns the role of this node in replication.",
    run: Run::Server(ServerCommand::Role),
};

const SAVE: Command = Command {
    name: "SAVE",
    arity: Arity::AtLeast(1),
    keys: Keys::None,
    flags: Flags::ADMIN.with(Flags::NO_SCRIPT).with(Flags::NO_MULTI),
    spread: Spread::Single,
    group: Group::Server,
    since: "1.0.0",
    syntax: "[DF | RDB [filename]]",
    summary: "Saves all data as it is now; answers when it is done.",
    run: Run::Server(ServerCommand::Save),
};

const SHUTDOWN: Command = Command {
    name: "SHUTDOWN",
    arity: Arity::AtLeast(1),
    keys: Keys::None,
    flags: Flags::ADMIN.with(Flags::NO_SCRIPT).with(Flags::LOADING).with(Flags::STALE).with(Flags::NO_MULTI),
    spread: Spread::Single,
    group: Group::Server,
    since: "1.0.0",
    syntax: "[NOSAVE | SAVE] [NOW] [FORCE] [ABORT]",
    summary: "Stops the server in an orderly way.",
    run: Run::Server(ServerCommand::Shutdown),
};

const SLOWLOG: Command = Command {
    name: "SLOWLOG",
    arity: Arity::AtLeast(2),
    keys: Keys::None,
    flags: Flags::ADMIN.with(Flags::LOADING).with(Flags::STALE),
    spread: Spread::Single,
    group: Group::Server,
    since: "2.2.12",
    syntax: "GET [count] | LEN | RESET",
    summary: "Shows the commands that took long.",
    run: Run::Server(ServerCommand::Slowlog),
};

const SWAPDB: Command = Command {
    name: "SWAPDB",
    arity: Arity::Exactly(3),
    keys: Keys::None,
    flags: Flags::WRITE.with(Flags::FAST).with(Flags::DANGEROUS),
    spread: Spread::Single,
    group: Group::Server,
    since: "4.0.0",
    syntax: "index1 index2",
    summary: "Exchanges two databases.",
    run: Run::Server(ServerCommand::SwapDb),
};

const TIME: Command = Command {
    name: "TIME",
    arity: Arity::Exactly(1),
    keys: Keys::None,
    flags: Flags::LOADING.with(Flags::STALE).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Server,
    since: "2.6.0",
    syntax: "",
    summary: "Returns the time of the server.",
    run: Run::Server(ServerCommand::Time),
};
