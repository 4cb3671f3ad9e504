//! Commands to publish and subscribe. The server carries them out; they are declared here so that there is one table.

use crate::{Arity, Command, Flags, Group, Keys, Run, ServerCommand, Spread};

pub(crate) const COMMANDS: &[&Command] = &[
    &PSUBSCRIBE,
    &PUBLISH,
    &PUBSUB,
    &PUNSUBSCRIBE,
    &SPUBLISH,
    &SSUBSCRIBE,
    &SUBSCRIBE,
    &SUNSUBSCRIBE,
    &UNSUBSCRIBE,
];

const SUBSCRIBES: Flags = Flags::PUBSUB.with(Flags::NO_SCRIPT).with(Flags::LOADING).with(Flags::STALE);
const PUBLISHES: Flags = Flags::PUBSUB.with(Flags::LOADING).with(Flags::STALE).with(Flags::FAST);

const PSUBSCRIBE: Command = Command {
    name: "PSUBSCRIBE",
    arity: Arity::AtLeast(2),
    keys: Keys::None,
    flags: SUBSCRIBES,
    spread: Spread::Single,
    group: Group::PubSub,
    since: "2.0.0",
    syntax: "pattern [pattern ...]",
    summary: "Listens to all channels that match patterns.",
    run: Run::Server(ServerCommand::PSubscribe),
};

const PUBLISH: Command = Command {
    name: "PUBLISH",
    arity: Arity::Exactly(3),
    keys: Keys::None,
    flags: PUBLISHES,
    spread: Spread::Single,
    group: Group::PubSub,
    since: "2.0.0",
    syntax: "channel message",
    summary: "Sends a message to all who listen to a channel.",
    run: Run::Server(ServerCommand::Publish),
};

const PUBSUB: Command = Command {
    name: "PUBSUB",
    arity: Arity::AtLeast(2),
    keys: Keys::None,
    flags: Flags::NONE,
    spread: Spread::Single,
    group: Group::PubSub,
    since: "2.8.0",
    syntax: "subcommand [argument ...]",
    summary: "Tells what is listened to.",
    run: Run::Server(ServerCommand::PubSub),
};

const PUNSUBSCRIBE: Command = Command {
    name: "PUNSUBSCRIBE",
    arity: Arity::AtLeast(1),
    keys: Keys::None,
    flags: SUBSCRIBES,
    spread: Spread::Single,
    group: Group::PubSub,
    since: "2.0.0",
    syntax: "[pattern [pattern ...]]",
    summary: "Ceases to listen to patterns, or to all patterns.",
    run: Run::Server(ServerCommand::PUnsubscribe),
};

const SPUBLISH: Command = Command {
    name: "SPUBLISH",
    arity: Arity::Exactly(3),
    keys: Keys::First,
    flags: PUBLISHES,
    spread: Spread::Single,
    group: Group::PubSub,
    since: "7.0.0",
    syntax: "shardchannel message",
    summary: "Sends a message to all who listen to a shard channel.",
    run: Run::Server(ServerCommand::SPublish),
};

// Shard channels have the places of keys, so that clients of a cluster find the node; on one node they may be many.
const SSUBSCRIBE: Command = Command {
    name: "SSUBSCRIBE",
    arity: Arity::AtLeast(2),
    keys: Keys::Range { first: 1, last: -1, step: 1 },
    flags: SUBSCRIBES,
    spread: Spread::Together,
    group: Group::PubSub,
    since: "7.0.0",
    syntax: "shardchannel [shardchannel ...]",
    summary: "Listens to shard channels.",
    run: Run::Server(ServerCommand::SSubscribe),
};

const SUBSCRIBE: Command = Command {
    name: "SUBSCRIBE",
    arity: Arity::AtLeast(2),
    keys: Keys::None,
    flags: SUBSCRIBES,
    spread: Spread::Single,
    group: Group::PubSub,
    since: "2.0.0",
    syntax: "channel [channel ...]",
    summary: "Listens to channels.",
    run: Run::Server(ServerCommand::Subscribe),
};

const SUNSUBSCRIBE: Command = Command {
    name: "SUNSUBSCRIBE",
    arity: Arity::AtLeast(1),
    keys: Keys::Range { first: 1, last: -1, step: 1 },
    flags: SUBSCRIBES,
    spread: Spread::Together,
    group: Group::PubSub,
    since: "7.0.0",
    syntax: "[shardchannel [shardchannel ...]]",
    summary: "Ceases to listen to shard channels, or to all of them.",
    run: Run::Server(ServerCommand::SUnsubscribe),
};

const UNSUBSCRIBE: Command = Command {
    name: "UNSUBSCRIBE",
    arity: Arity::AtLeast(1),
    keys: Keys::None,
    flags: SUBSCRIBES,
    spread: Spread::Single,
    group: Group::PubSub,
    since: "2.0.0",
    syntax: "[channel [channel ...]]",
    summary: "Ceases to listen to channels, or to all channels.",
    run: Run::Server(ServerCommand::Unsubscribe),
};
