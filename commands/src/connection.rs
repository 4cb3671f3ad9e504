//! Commands about the connection. The server carries them out; they are declared here so that there is one table.

use crate::{Arity, Command, Flags, Group, Keys, Run, ServerCommand, Spread};

pub(crate) const COMMANDS: &[&Command] = &[&AUTH, &CLIENT, &ECHO, &HELLO, &PING, &QUIT, &RESET, &SELECT];

const AUTH: Command = Command {
    name: "AUTH",
    arity: Arity::AtLeast(2),
    keys: Keys::None,
    flags: Flags::NO_SCRIPT
        .with(Flags::LOADING)
        .with(Flags::STALE)
        .with(Flags::FAST)
        .with(Flags::NO_AUTH)
        .with(Flags::SKIP_MONITOR)
        .with(Flags::SKIP_SLOWLOG),
    spread: Spread::Single,
    group: Group::Connection,
    since: "1.0.0",
    syntax: "[username] password",
    summary: "Authenticates the connection.",
    run: Run::Server(ServerCommand::Auth),
};

const CLIENT: Command = Command {
    name: "CLIENT",
    arity: Arity::AtLeast(2),
    keys: Keys::None,
    flags: Flags::NO_SCRIPT.with(Flags::LOADING).with(Flags::STALE),
    spread: Spread::Single,
    group: Group::Connection,
    since: "2.4.0",
    syntax: "subcommand [argument ...]",
    summary: "Shows and changes what the server knows about its connections.",
    run: Run::Server(ServerCommand::Client),
};

const ECHO: Command = Command {
    name: "ECHO",
    arity: Arity::Exactly(2),
    keys: Keys::None,
    flags: Flags::LOADING.with(Flags::STALE).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Connection,
    since: "1.0.0",
    syntax: "message",
    summary: "Returns the given string.",
    run: Run::Server(ServerCommand::Echo),
};

const HELLO: Command = Command {
    name: "HELLO",
    arity: Arity::AtLeast(1),
    keys: Keys::None,
    flags: Flags::NO_SCRIPT
        .with(Flags::LOADING)
        .with(Flags::STALE)
        .with(Flags::FAST)
        .with(Flags::NO_AUTH)
        .with(Flags::SKIP_MONITOR)
        .with(Flags::SKIP_SLOWLOG),
    spread: Spread::Single,
    group: Group::Connection,
    since: "6.0.0",
    syntax: "[protover [AUTH username password] [SETNAME clientname]]",
    summary: "Greets the server and chooses the protocol version.",
    run: Run::Server(ServerCommand::Hello),
};

const PING: Command = Command {
    name: "PING",
    arity: Arity::AtLeast(1),
    keys: Keys::None,
    flags: Flags::FAST.with(Flags::STALE),
    spread: Spread::Single,
    group: Group::Connection,
    since: "1.0.0",
    syntax: "[message]",
    summary: "Answers PONG, or the message.",
    run: Run::Server(ServerCommand::Ping),
};

const QUIT: Command = Command {
    name: "QUIT",
    arity: Arity::AtLeast(1),
    keys: Keys::None,
    flags: Flags::NO_SCRIPT.with(Flags::LOADING).with(Flags::STALE).with(Flags::FAST).with(Flags::NO_AUTH),
    spread: Spread::Single,
    group: Group::Connection,
    since: "1.0.0",
    syntax: "",
    summary: "Closes the connection.",
    run: Run::Server(ServerCommand::Quit),
};

const RESET: Command = Command {
    name: "RESET",
    arity: Arity::Exactly(1),
    keys: Keys::None,
    flags: Flags::NO_SCRIPT.with(Flags::LOADING).with(Flags::STALE).with(Flags::FAST).with(Flags::NO_AUTH),
    spread: Spread::Single,
    group: Group::Connection,
    since: "6.2.0",
    syntax: "",
    summary: "Makes the connection as if it were new.",
    run: Run::Server(ServerCommand::Reset),
};

const SELECT: Command = Command {
    name: "SELECT",
    arity: Arity::Exactly(2),
    keys: Keys::None,
    flags: Flags::LOADING.with(Flags::STALE).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Connection,
    since: "1.0.0",
    syntax: "index",
    summary: "Changes the database of the connection.",
    run: Run::Server(ServerCommand::Select),
};
