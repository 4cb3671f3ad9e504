//! AUTH, ECHO, HELLO, PING, QUIT, RESET, SELECT.

use damselfly_commands::{Args, CommandError};
use damselfly_protocol::Proto;
use damselfly_protocol::number::parse_i64;

use super::{Outcome, client_of, reply};
use crate::connection::{ConnectionId, ReplyMode};
use crate::core::Core;
use crate::execute::Flow;
use crate::modes::Modes;

const WRONG_PASS: CommandError =
    CommandError::text("WRONGPASS invalid username-password pair or user is disabled.");

/// PING [message]
pub fn ping(core: &mut Core, id: ConnectionId, mut args: Args<'_>) -> Outcome {
    if args.len() > 1 {
        return Err(CommandError::arity("ping"));
    }
    let message = if args.is_empty() { None } else { Some(args.take()?) };
    let connection = client_of(core, id)?;
    if connection.modes.has(Modes::SUBSCRIBED) && connection.proto == Proto::Resp2 {
        // In the shape of a message, which is all that such a client expects.
        return reply(core, id, |out| {
            out.array(2);
            out.bulk(b"pong");
            out.bulk(message.unwrap_or_default());
        });
    }
    reply(core, id, |out| match message {
        Some(message) => out.bulk(message),
        None => out.pong(),
    })
}

/// ECHO message
pub fn echo(core: &mut Core, id: ConnectionId, mut args: Args<'_>) -> Outcome {
    let message = args.take()?;
    reply(core, id, |out| out.bulk(message))
}

/// SELECT index
pub fn select(core: &mut Core, id: ConnectionId, mut args: Args<'_>) -> Outcome {
    let index = args.take_int()?;
    if i32::try_from(index).is_err() {
        return Err(CommandError::text(
            "ERR value is out of range, value must between -2147483648 and 2147483647",
        ));
    }
    let databases = core.ks.databases() as i64;
    if !(0..databases).contains(&index) {
        return Err(CommandError::DbIndexOutOfRange);
    }
    client_of(core, id)?.db = index as u16;
    reply(core, id, |out| out.ok())
}

/// QUIT
pub fn quit(core: &mut Core, id: ConnectionId) -> Outcome {
    reply(core, id, |out| out.ok())?;
    client_of(core, id)?.closing = true;
    Ok(Flow::Pause)
}

/// RESET
pub fn reset(core: &mut Core, id: ConnectionId) -> Outcome {
    let open = is_open(core, id);
    super::monitor::stop(core, id);
    core.deliver_published();
    core.unsubscribe_all(id);
    core.abandon_transaction(id);
    core.drop_tracker(id);
    let connection = client_of(core, id)?;
    connection.db = 0;
    connection.proto = Proto::Resp2;
    connection.reply_mode = ReplyMode::On;
    connection.no_touch = false;
    connection.authenticated = open;
    connection.client.name = None;
    connection.client.no_evict = false;
    reply(core, id, |out| out.simple("RESET"))
}

/// Whether this connection needs no password.
fn is_open(core: &mut Core, id: ConnectionId) -> bool {
    use crate::connection::Listener;
    let Some(listener) = core.connection(id).map(|connection| connection.client.listener) else {
        return false;
    };
    core.shared.settings.requirepass().is_empty()
        || listener == Listener::Unix
        || (listener == Listener::Admin && core.shared.config.admin_nopass)
}

/// Compares a password in a time that does not depend on where it differs.
fn same_secret(given: &[u8], wanted: &[u8]) -> bool {
    let mut difference = given.len() ^ wanted.len();
    for i in 0..given.len().max(wanted.len()) {
        let (a, b) = (given.get(i).copied().unwrap_or(0), wanted.get(i).copied().unwrap_or(0));
        difference |= usize::from(a ^ b);
    }
    difference == 0
}

fn authenticate(core: &mut Core, id: ConnectionId, user: &[u8], password: &[u8]) -> Result<(), CommandError> {
    let wanted = core.shared.settings.requirepass();
    let right = user == b"default" && (wanted.is_empty() || same_secret(password, wanted.as_bytes()));
    if !right {
        return Err(WRONG_PASS);
    }
    client_of(core, id)?.authenticated = true;
    Ok(())
}

/// AUTH [username] password
pub fn auth(core: &mut Core, id: ConnectionId, mut args: Args<'_>) -> Outcome {
    match args.len() {
        1 => {
            if core.shared.settings.requirepass().is_empty() {
                return Err(CommandError::text(
                    "ERR AUTH <password> called without any password configured for the default user. \
                     Are you sure your configuration is correct?",
                ));
            }
            authenticate(core, id, b"default", args.take()?)?;
        }
        2 => {
            let user = args.take()?;
            authenticate(core, id, user, args.take()?)?;
        }
        _ => return Err(CommandError::Syntax),
    }
    reply(core, id, |out| out.ok())
}

/// HELLO [protover [AUTH username password] [SETNAME clientname]]
pub fn hello(core: &mut Core, id: ConnectionId, mut args: Args<'_>) -> Outcome {
    let mut proto = client_of(core, id)?.proto;
    if !args.is_empty() {
        proto = match parse_i64(args.take()?) {
            Some(2) => Proto::Resp2,
            Some(3) => Proto::Resp3,
            Some(_) => return Err(CommandError::text("NOPROTO unsupported protocol version")),
            None => {
                return Err(CommandError::text("ERR Protocol version is not an integer or out of range"));
            }
        };
    }
    // Options take effect one by one: those before a mistake have done so.
    while let Some(word) = args.peek() {
        if args.len() >= 3 && args.take_word("AUTH") {
            let user = args.take()?;
            authenticate(core, id, user, args.take()?)?;
        } else if args.len() >= 2 && args.take_word("SETNAME") {
            let given = args.take()?;
            super::client::check_name(given, "Client names")?;
            client_of(core, id)?.client.name = super::client::name_of(given);
        } else {
            return Err(CommandError::owned(format!(
                "ERR Syntax error in HELLO option '{}'",
                String::from_utf8_lossy(word)
            )));
        }
    }
    let shared = core.shared.clone();
    let connection = client_of(core, id)?;
    if !connection.authenticated {
        return Err(CommandError::text(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH \
             <user> <pass> option can be used to authenticate the client and select the RESP protocol version at \
             the same time",
        ));
    }
    connection.proto = proto;
    let number = connection.client.id;
    let cluster = shared.config.cluster_mode != damselfly_config::ClusterMode::Off;
    let zone = shared.config.availability_zone.clone();
    reply(core, id, |out| {
        out.map(if zone.is_empty() { 7 } else { 8 });
        out.bulk(b"server");
        out.bulk(b"redis");
        out.bulk(b"version");
        out.bulk(super::info::REDIS_VERSION.as_bytes());
        out.bulk(b"proto");
        out.int(if proto == Proto::Resp3 { 3 } else { 2 });
        out.bulk(b"id");
        out.int(number as i64);
        out.bulk(b"mode");
        out.bulk(if cluster { b"cluster" } else { b"standalone" });
        out.bulk(b"role");
        out.bulk(b"master");
        out.bulk(b"modules");
        out.array(0);
        if !zone.is_empty() {
            out.bulk(b"availability_zone");
            out.bulk(zone.as_bytes());
        }
    })
}
