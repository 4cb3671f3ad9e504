//! SCRIPT: the scripts that are known, and ending one.

use damselfly_commands::{Args, CommandError};
use damselfly_protocol::{ReplyWriter, sha1};
use damselfly_scripting::{Engine, ScriptFlags};

use super::{Outcome, client_of, exactly, help, reply, wait, wrong_shape};
use crate::connection::ConnectionId;
use crate::core::Core;
use crate::execute::Flow;
use crate::scripts::parse_sha;
use crate::scripts::running::{BUSY_FUNCTION, BUSY_SCRIPT, Killing};

/// SCRIPT DEBUG | EXISTS | FLAGS | FLUSH | GC | HELP | KILL | LATENCY | LIST | LOAD
pub fn script(core: &mut Core, id: ConnectionId, mut args: Args<'_>) -> Outcome {
    let word = args.take()?;
    match &*word.to_ascii_lowercase() {
        b"load" => {
            exactly(&args, 1, "script|load")?;
            let text = args.take()?;
            let sha = Engine::sha(text);
            match core.load_script(sha, text, true) {
                Ok(_) => reply(core, id, |out| out.bulk(sha1::hex(&sha).as_bytes())),
                Err(text) => refuse(core, id, &text),
            }
        }
        b"exists" => {
            if args.is_empty() {
                return Err(CommandError::arity("script|exists"));
            }
            let scripts = &core.shared.scripts;
            let known: Vec<bool> = args
                .rest()
                .map(|name| parse_sha(name).is_some_and(|sha| scripts.script(&sha).is_some()))
                .collect();
            reply(core, id, |out| {
                out.array(known.len());
                known.iter().for_each(|known| out.int(i64::from(*known)));
            })
        }
        b"flush" => {
            let fits =
                args.is_empty() || (args.len() == 1 && (args.take_word("SYNC") || args.take_word("ASYNC")));
            if !fits {
                return Err(CommandError::text("ERR SCRIPT FLUSH only support SYNC|ASYNC option"));
            }
            core.shared.scripts.flush();
            core.refresh_engines(move |core| core.answer_with(id, |out| out.ok()));
            wait(core, id)
        }
        b"kill" => {
            exactly(&args, 0, "script|kill")?;
            kill(core, id, false)
        }
        b"debug" => {
            exactly(&args, 1, "script|debug")?;
            if args.take_word("NO") {
                return reply(core, id, |out| out.ok());
            }
            if args.take_word("YES") || args.take_word("SYNC") {
                return Err(CommandError::text("ERR there is no debugger for scripts"));
            }
            Err(CommandError::text("ERR Use SCRIPT DEBUG YES/SYNC/NO"))
        }
        b"flags" => {
            if args.len() < 2 {
                return Err(CommandError::arity("script|flags"));
            }
            if parse_sha(args.take()?).is_none() {
                return Err(CommandError::text("ERR a script is named by 40 hexadecimal digits"));
            }
            let mut flags = ScriptFlags::default();
            for name in args.rest() {
                if !std::str::from_utf8(name).is_ok_and(|name| flags.set_dragonfly(name)) {
                    let name = String::from_utf8_lossy(&name[..name.len().min(128)]);
                    return Err(CommandError::owned(format!("ERR Invalid argument: Invalid flag: {name}")));
                }
            }
            reply(core, id, |out| out.ok())
        }
        b"list" => {
            exactly(&args, 0, "script|list")?;
            let scripts = core.shared.scripts.scripts();
            reply(core, id, |out| {
                out.array(scripts.len());
                for script in &scripts {
                    out.array(2);
                    out.bulk(sha1::hex(&script.sha).as_bytes());
                    out.bulk(&script.text);
                }
            })
        }
        b"latency" => {
            exactly(&args, 0, "script|latency")?;
            reply(core, id, |out| out.array(0))
        }
        b"gc" => {
            exactly(&args, 0, "script|gc")?;
            core.ask_all(Core::drop_engine, move |core, _| core.answer_with(id, |out| out.ok()));
            wait(core, id)
        }
        b"help" => {
            exactly(&args, 0, "script|help")?;
            help(core, id, "SCRIPT", HELP)
        }
        _ => Err(CommandError::unknown_subcommand("script", word)),
    }
}

/// SCRIPT KILL and FUNCTION KILL.
pub(super) fn kill(core: &mut Core, id: ConnectionId, function: bool) -> Outcome {
    match core.shared.scripts.running.kill(function) {
        Killing::Done => reply(core, id, |out| out.ok()),
        Killing::Nothing => Err(CommandError::text("NOTBUSY No scripts in execution right now.")),
        Killing::Written => Err(CommandError::text(
            "UNKILLABLE Sorry the script already executed write commands against the dataset. You can either wait \
             the script termination or kill the server in a hard way using the SHUTDOWN NOSAVE command.",
        )),
        Killing::OtherKind if function => Err(CommandError::text(BUSY_SCRIPT)),
        Killing::OtherKind => Err(CommandError::text(BUSY_FUNCTION)),
    }
}

/// Answers an error whose text may hold any bytes.
pub(super) fn refuse(core: &mut Core, id: ConnectionId, text: &[u8]) -> Outcome {
    core.stats.count_error(&String::from_utf8_lossy(&text[..text.len().min(64)]));
    let connection = client_of(core, id)?;
    let proto = connection.proto;
    ReplyWriter::new(&mut connection.output, proto).error(text);
    Ok(Flow::Next)
}

const HELP: &[&str] = &[
    "DEBUG NO",
    "    Accepted for compatibility: there is no debugger.",
    "EXISTS <sha1> [<sha1> ...]",
    "    Tell which of the scripts are known.",
    "FLAGS <sha1> <flag> [<flag> ...]",
    "    Accepted for compatibility: scripts need no flags.",
    "FLUSH [ASYNC|SYNC]",
    "    Forget all scripts.",
    "GC",
    "    Give back the memory of all engines that run no script.",
    "KILL",
    "    End the script that takes long, if it has written nothing.",
    "LATENCY",
    "    Accepted for compatibility: an empty list.",
    "LIST",
    "    List the scripts that are known, with their digests.",
    "LOAD <script>",
    "    Remember a script without running it.",
];

/// The error for a form that FUNCTION does not have.
pub(super) fn function_shape(word: &[u8]) -> CommandError {
    wrong_shape("FUNCTION", word)
}
