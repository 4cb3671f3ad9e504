//! SUBSCRIBE and its kin, PUBLISH, PUBSUB: what they answer. What they do is in `pubsub/`.

use damselfly_commands::{Args, Command, CommandError, Run, ServerCommand};
use damselfly_config::glob::Pattern;
use damselfly_protocol::{Argv, Proto, ReplyWriter};

use super::{Outcome, exactly, help, reply};
use crate::connection::ConnectionId;
use crate::core::Core;
use crate::execute::Flow;
use crate::pubsub::Kind;

/// How the replies and messages of a kind are called.
fn words(kind: Kind) -> (&'static [u8], &'static [u8]) {
    match kind {
        Kind::Channel => (b"subscribe", b"unsubscribe"),
        Kind::Pattern => (b"psubscribe", b"punsubscribe"),
        Kind::Shard => (b"ssubscribe", b"sunsubscribe"),
    }
}

/// SUBSCRIBE, PSUBSCRIBE, SSUBSCRIBE name [name ...]
pub fn subscribe(core: &mut Core, id: ConnectionId, args: Args<'_>, kind: Kind) -> Outcome {
    for name in args.rest() {
        let count = core.subscribe(id, kind, name);
        confirm(core, id, words(kind).0, Some(name), count);
    }
    Ok(Flow::Next)
}

/// UNSUBSCRIBE, PUNSUBSCRIBE, SUNSUBSCRIBE [name ...]
pub fn unsubscribe(core: &mut Core, id: ConnectionId, args: Args<'_>, kind: Kind) -> Outcome {
    let word = words(kind).1;
    if !args.is_empty() {
        for name in args.rest() {
            let count = core.unsubscribe(id, kind, name);
            confirm(core, id, word, Some(name), count);
        }
        return Ok(Flow::Next);
    }
    let names = core.pubsub.names(id, kind);
    for name in &names {
        let count = core.unsubscribe(id, kind, name);
        confirm(core, id, word, Some(name), count);
    }
    if names.is_empty() {
        let count = match kind {
            Kind::Shard => 0,
            _ => core.pubsub.count(id, Kind::Channel) + core.pubsub.count(id, Kind::Pattern),
        };
        confirm(core, id, word, None, count);
    }
    Ok(Flow::Next)
}

/// Writes the push that answers a subscription. CLIENT REPLY OFF does not concern pushes.
fn confirm(core: &mut Core, id: ConnectionId, word: &[u8], name: Option<&[u8]>, count: usize) {
    let Some(connection) = core.connection(id) else { return };
    let write = |out: &mut Vec<u8>, proto: Proto| {
        let mut out = ReplyWriter::new(out, proto);
        out.push(3);
        out.bulk(word);
        match name {
            Some(name) => out.bulk(name),
            None => out.null(),
        }
        out.int(count as i64);
    };
    let proto = connection.proto;
    if !connection.muted {
        return write(&mut connection.output, proto);
    }
    let mut bytes = Vec::new();
    write(&mut bytes, proto);
    core.defer(move |core| {
        core.push_bytes(id, &bytes);
        core.flush_pushed();
    });
}

/// PUBLISH and SPUBLISH channel message
pub fn publish(core: &mut Core, id: ConnectionId, mut args: Args<'_>, kind: Kind) -> Outcome {
    let (channel, message) = (args.take()?, args.take()?);
    let receivers = match kind {
        Kind::Shard => core.publish_to(kind, channel, message),
        _ => core.publish(channel, message),
    };
    reply(core, id, |out| out.int(receivers as i64))
}

/// PUBSUB CHANNELS [pattern] | NUMSUB [channel ...] | NUMPAT | SHARDCHANNELS [pattern] | SHARDNUMSUB [channel ...]
pub fn pubsub(core: &mut Core, id: ConnectionId, mut args: Args<'_>) -> Outcome {
    let word = args.take()?;
    let lower = word.to_ascii_lowercase();
    match lower.as_slice() {
        b"channels" | b"shardchannels" => {
            if args.len() > 1 {
                return Err(wrong_shape(word));
            }
            let kind = if lower[0] == b's' { Kind::Shard } else { Kind::Channel };
            let pattern = args.rest().next().map(Pattern::new);
            let names = core.shared.registry.names(kind, pattern.as_ref());
            reply(core, id, |out| {
                out.array(names.len());
                for name in &names {
                    out.bulk(name);
                }
            })
        }
        b"numsub" | b"shardnumsub" => {
            let kind = if lower[0] == b's' { Kind::Shard } else { Kind::Channel };
            let counts: Vec<(&[u8], u64)> = args
                .rest()
                .map(|name| (name, core.shared.registry.subscribers(kind, core.ks.hash(name), name)))
                .collect();
            reply(core, id, |out| {
                out.array(counts.len() * 2);
                for (name, count) in &counts {
                    out.bulk(name);
                    out.int(*count as i64);
                }
            })
        }
        b"numpat" => {
            exactly(&args, 0, "pubsub|numpat")?;
            let patterns = core.shared.registry.count(Kind::Pattern);
            reply(core, id, |out| out.int(patterns as i64))
        }
        b"help" => {
            exactly(&args, 0, "pubsub|help")?;
            help(core, id, "PUBSUB", HELP)
        }
        _ => Err(CommandError::unknown_subcommand("pubsub", word)),
    }
}

fn wrong_shape(word: &[u8]) -> CommandError {
    super::wrong_shape("PUBSUB", word)
}

const HELP: &[&str] = &[
    "CHANNELS [<pattern>]",
    "    Return the channels that somebody listens to, of those that match the pattern (default: '*').",
    "NUMPAT",
    "    Return the number of different patterns that are listened to.",
    "NUMSUB [<channel> ...]",
    "    Return the number of listeners of each channel, patterns not counted.",
    "SHARDCHANNELS [<pattern>]",
    "    Return the shard channels that somebody listens to, of those that match the pattern (default: '*').",
    "SHARDNUMSUB [<shardchannel> ...]",
    "    Return the number of listeners of each shard channel.",
];

/// Whether a RESP2 client that is subscribed may run a command: such a client takes every reply for a message.
pub fn allowed_while_subscribed(command: &Command) -> bool {
    let Run::Server(which) = command.run else { return false };
    use ServerCommand::{
        PSubscribe, PUnsubscribe, Ping, Quit, Reset, SSubscribe, SUnsubscribe, Subscribe, Unsubscribe,
    };
    matches!(
        which,
        PSubscribe | PUnsubscribe | Ping | Quit | Reset | SSubscribe | SUnsubscribe | Subscribe | Unsubscribe
    )
}

/// The error for the others.
pub fn not_while_subscribed(command: &Command, argv: &Argv<'_>) -> String {
    let subcommand = argv.get(1).and_then(|name| super::subcommands::find(command, name));
    let name = match subcommand {
        Some(subcommand) => subcommand.full_name(),
        None => command.name.to_ascii_lowercase(),
    };
    format!(
        "ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in \
         this context"
    )
}
