//! CLIENT: what the server knows about its connections, and what they may ask of it for themselves.

use damselfly_commands::{Args, CommandError};
use damselfly_protocol::number::parse_i64;

use super::{Outcome, client_list, client_of, client_tracking, exactly, help, reply, wait, wrong_shape};
use crate::connection::{ConnectionId, ReplyMode};
use crate::core::Core;
use crate::execute::Flow;
use crate::pause::Pause;

/// An error unless a name can stand in a line of CLIENT LIST.
pub fn check_name(name: &[u8], what: &str) -> Result<(), CommandError> {
    if name.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        return Ok(());
    }
    Err(CommandError::owned(format!("ERR {what} cannot contain spaces, newlines or special characters.")))
}

/// A checked name as it is kept; the empty name is none.
pub fn name_of(name: &[u8]) -> Option<Box<str>> {
    (!name.is_empty()).then(|| String::from_utf8_lossy(name).into())
}

/// CLIENT subcommand
pub fn client(core: &mut Core, id: ConnectionId, mut args: Args<'_>) -> Outcome {
    let word = args.take()?;
    match word.to_ascii_uppercase().as_slice() {
        b"ID" => {
            exactly(&args, 0, "client|id")?;
            let number = client_of(core, id)?.client.id;
            reply(core, id, |out| out.int(number as i64))
        }
        b"INFO" => {
            exactly(&args, 0, "client|info")?;
            client_list::info(core, id)
        }
        b"LIST" => client_list::list(core, id, args),
        b"KILL" => {
            if args.is_empty() {
                return Err(CommandError::arity("client|kill"));
            }
            client_list::kill(core, id, args)
        }
        b"GETNAME" => {
            exactly(&args, 0, "client|getname")?;
            let name = client_of(core, id)?.client.name.clone();
            reply(core, id, |out| match name {
                Some(name) => out.bulk(name.as_bytes()),
                None => out.null(),
            })
        }
        b"SETNAME" => {
            exactly(&args, 1, "client|setname")?;
            let name = args.take()?;
            check_name(name, "Client names")?;
            client_of(core, id)?.client.name = name_of(name);
            reply(core, id, |out| out.ok())
        }
        b"SETINFO" => set_info(core, id, args),
        b"REPLY" => set_reply(core, id, args),
        b"NO-EVICT" => {
            exactly(&args, 1, "client|no-evict")?;
            let on = on_or_off(&mut args)?;
            client_of(core, id)?.client.no_evict = on;
            reply(core, id, |out| out.ok())
        }
        b"NO-TOUCH" => {
            exactly(&args, 1, "client|no-touch")?;
            let on = on_or_off(&mut args)?;
            client_of(core, id)?.no_touch = on;
            reply(core, id, |out| out.ok())
        }
        b"TRACKING" => client_tracking::tracking(core, id, args),
        b"CACHING" => client_tracking::caching(core, id, args),
        b"TRACKINGINFO" => client_tracking::info(core, id, args),
        b"GETREDIR" => client_tracking::get_redir(core, id, args),
        b"PAUSE" => pause(core, id, word, args),
        b"UNPAUSE" => {
            exactly(&args, 0, "client|unpause")?;
            core.ask_all(|core| core.unpause(), move |core, _| core.answer_with(id, |out| out.ok()));
            wait(core, id)
        }
        b"UNBLOCK" => unblock(core, id, word, args),
        b"HELP" => {
            exactly(&args, 0, "client|help")?;
            help(core, id, "CLIENT", HELP)
        }
        _ => Err(CommandError::unknown_subcommand("client", word)),
    }
}

fn on_or_off(args: &mut Args<'_>) -> Result<bool, CommandError> {
    let on = args.take_word("ON");
    if on || args.take_word("OFF") { Ok(on) } else { Err(CommandError::Syntax) }
}

/// CLIENT SETINFO LIB-NAME name | LIB-VER version
fn set_info(core: &mut Core, id: ConnectionId, mut args: Args<'_>) -> Outcome {
    exactly(&args, 2, "client|setinfo")?;
    let (option, value) = (args.take()?, args.take()?);
    let client = &mut client_of(core, id)?.client;
    let (field, name) = if option.eq_ignore_ascii_case(b"LIB-NAME") {
        (&mut client.lib_name, "lib-name")
    } else if option.eq_ignore_ascii_case(b"LIB-VER") {
        (&mut client.lib_ver, "lib-ver")
    } else {
        return Err(CommandError::owned(format!(
            "ERR Unrecognized option '{}'",
            String::from_utf8_lossy(option)
        )));
    };
    check_name(value, name)?;
    *field = String::from_utf8_lossy(value).into();
    reply(core, id, |out| out.ok())
}

/// CLIENT REPLY ON | OFF | SKIP
fn set_reply(core: &mut Core, id: ConnectionId, mut args: Args<'_>) -> Outcome {
    exactly(&args, 1, "client|reply")?;
    let connection = client_of(core, id)?;
    if args.take_word("ON") {
        connection.reply_mode = ReplyMode::On;
        return reply(core, id, |out| out.ok());
    }
    connection.reply_mode = if args.take_word("OFF") {
        ReplyMode::Off
    } else if args.take_word("SKIP") {
        match connection.reply_mode {
            ReplyMode::Off => ReplyMode::Off,
            // This command is not muted itself, so the mode is what the next one finds.
            ReplyMode::On => ReplyMode::SkipThis,
            ReplyMode::SkipThis | ReplyMode::SkipNext => ReplyMode::SkipNext,
        }
    } else {
        return Err(CommandError::Syntax);
    };
    Ok(Flow::Next)
}

/// CLIENT PAUSE milliseconds [WRITE | ALL]
fn pause(core: &mut Core, id: ConnectionId, word: &[u8], mut args: Args<'_>) -> Outcome {
    match args.len() {
        0 => return Err(CommandError::arity("client|pause")),
        1 | 2 => {}
        _ => return Err(wrong_shape("CLIENT", word)),
    }
    let timeout = args.take()?;
    let everything = match args.peek() {
        None => true,
        Some(_) if args.take_word("ALL") => true,
        Some(_) if args.take_word("WRITE") => false,
        Some(_) => return Err(CommandError::text("ERR CLIENT PAUSE mode must be WRITE or ALL")),
    };
    let timeout =
        parse_i64(timeout).ok_or(CommandError::text("ERR timeout is not an integer or out of range"))?;
    let timeout = u64::try_from(timeout).map_err(|_| CommandError::text("ERR timeout is negative"))?;
    let until_ms = core.ks.now.checked_add(timeout).filter(|until| i64::try_from(*until).is_ok());
    let until_ms = until_ms.ok_or(CommandError::text("ERR timeout is out of range"))?;
    core.pause_all(Pause { until_ms, everything }, move |core| core.answer_with(id, |out| out.ok()));
    wait(core, id)
}

/// CLIENT UNBLOCK id [TIMEOUT | ERROR]
fn unblock(core: &mut Core, id: ConnectionId, word: &[u8], mut args: Args<'_>) -> Outcome {
    match args.len() {
        0 => return Err(CommandError::arity("client|unblock")),
        1 | 2 => {}
        _ => return Err(wrong_shape("CLIENT", word)),
    }
    let number = args.take()?;
    let with_error = args.take_word("ERROR");
    if !args.is_empty() && !args.take_word("TIMEOUT") {
        return Err(CommandError::text("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR"));
    }
    let number = parse_i64(number).ok_or(CommandError::NotInteger)?;
    let place = u64::try_from(number).ok().and_then(|number| core.shared.clients.get(&number).map(|at| *at));
    let Some((to, waiting)) = place else { return reply(core, id, |out| out.int(0)) };
    core.ask(
        to,
        move |core| core.unblock(waiting, with_error),
        move |core, was_waiting| core.answer_with(id, |out| out.int(i64::from(was_waiting))),
    );
    wait(core, id)
}

const HELP: &[&str] = &[
    "CACHING (YES|NO)",
    "    Whether the keys that the next command reads are cached by this connection (OPTIN, OPTOUT).",
    "GETNAME",
    "    Tell the name of this connection.",
    "GETREDIR",
    "    Tell which connection gets the invalidations of this one.",
    "ID",
    "    Tell the number of this connection.",
    "INFO",
    "    Describe this connection.",
    "KILL <ip:port>",
    "    Close the connection that comes from this address.",
    "KILL <filter> <value> [<filter> <value> [...]]",
    "    Close the connections that pass all filters:",
    "    * ADDR (<ip:port>|<unixsocket>:0)",
    "      From this address.",
    "    * LADDR (<ip:port>|<unixsocket>:0)",
    "      To this address of the server.",
    "    * ID <client-id>",
    "      With this number.",
    "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
    "      Used for this.",
    "    * USER <username>",
    "      Of this user.",
    "    * MAXAGE <seconds>",
    "      Open for this long or longer.",
    "    * SKIPME (YES|NO)",
    "      Whether to spare this connection (default: yes).",
    "LIST [TYPE (NORMAL|MASTER|REPLICA|PUBSUB) | ID <client-id> [...]]",
    "    Describe connections, one per line.",
    "NO-EVICT (ON|OFF)",
    "    Spare this connection when memory for connections runs out.",
    "NO-TOUCH (ON|OFF)",
    "    Let commands of this connection leave the access times of keys as they are.",
    "PAUSE <milliseconds> [WRITE|ALL]",
    "    Hold back commands of all clients, or only those that change something.",
    "REPLY (ON|OFF|SKIP)",
    "    Send replies, send none, or skip one.",
    "SETINFO (LIB-NAME <name>|LIB-VER <version>)",
    "    Say which client library this is.",
    "SETNAME <name>",
    "    Name this connection.",
    "TRACKING (ON|OFF) [REDIRECT <client-id>] [PREFIX <prefix> [...]] [BCAST] [OPTIN] [OPTOUT] [NOLOOP]",
    "    Tell this connection when keys change that it has read or that have a prefix.",
    "TRACKINGINFO",
    "    Tell how this connection tracks.",
    "UNBLOCK <client-id> [TIMEOUT|ERROR]",
    "    Let a client that waits go on.",
    "UNPAUSE",
    "    End a pause.",
];
