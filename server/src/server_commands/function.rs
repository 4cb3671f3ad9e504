//! FUNCTION: libraries of functions. Core 0 changes them, whoever asks.

use damselfly_commands::{Args, CommandError};
use damselfly_config::glob::Pattern;
use damselfly_rdb::{Encoder, Target, dump};

use super::script::{function_shape, kill, refuse};
use super::{Outcome, exactly, help, reply, wait};
use crate::connection::ConnectionId;
use crate::core::Core;
use crate::scripts::Restore;

/// FUNCTION DELETE | DUMP | FLUSH | HELP | KILL | LIST | LOAD | RESTORE | STATS
pub fn function(core: &mut Core, id: ConnectionId, mut args: Args<'_>) -> Outcome {
    let word = args.take()?;
    match &*word.to_ascii_lowercase() {
        b"load" => load(core, id, args),
        b"delete" => {
            exactly(&args, 1, "function|delete")?;
            let name = String::from_utf8_lossy(args.take()?).into_owned();
            core.ask(
                0,
                move |core| core.delete_library(&name),
                move |core, was_there| {
                    core.answer_with(id, |out| match was_there {
                        true => out.ok(),
                        false => out.error("ERR Library not found"),
                    });
                },
            );
            wait(core, id)
        }
        b"flush" => {
            if args.len() > 1 {
                return Err(function_shape(word));
            }
            if !args.is_empty() && !args.take_word("SYNC") && !args.take_word("ASYNC") {
                return Err(CommandError::text("ERR FUNCTION FLUSH only supports SYNC|ASYNC option"));
            }
            core.ask(0, Core::flush_libraries, move |core, ()| {
                core.refresh_engines(move |core| core.answer_with(id, |out| out.ok()));
            });
            wait(core, id)
        }
        b"list" => list(core, id, args),
        b"dump" => {
            exactly(&args, 0, "function|dump")?;
            let all = core.shared.scripts.libraries();
            let mut payload = Vec::new();
            let sources = all.libraries.values().map(|library| &library.source[..]);
            dump::functions(sources, &mut Encoder::new(Target::Dump), &mut payload);
            reply(core, id, |out| out.bulk(&payload))
        }
        b"restore" => restore(core, id, word, args),
        b"stats" => {
            exactly(&args, 0, "function|stats")?;
            stats(core, id)
        }
        b"kill" => {
            exactly(&args, 0, "function|kill")?;
            kill(core, id, true)
        }
        b"help" => {
            exactly(&args, 0, "function|help")?;
            help(core, id, "FUNCTION", HELP)
        }
        _ => Err(CommandError::unknown_subcommand("function", word)),
    }
}

/// LOAD [REPLACE] source
fn load(core: &mut Core, id: ConnectionId, mut args: Args<'_>) -> Outcome {
    if args.is_empty() {
        return Err(CommandError::arity("function|load"));
    }
    let mut replace = false;
    while args.len() > 1 {
        if args.take_word("REPLACE") {
            replace = true;
        } else {
            return Err(unknown("Unknown option given: ", args.take()?));
        }
    }
    let source = args.take()?.to_vec();
    core.ask(
        0,
        move |core| core.load_library(&source, replace),
        move |core, loaded| {
            core.answer_with(id, |out| match &loaded {
                Ok(name) => out.bulk(name.as_bytes()),
                Err(text) => out.error(text),
            });
        },
    );
    wait(core, id)
}

/// RESTORE payload [FLUSH | APPEND | REPLACE]
fn restore(core: &mut Core, id: ConnectionId, word: &[u8], mut args: Args<'_>) -> Outcome {
    if args.is_empty() {
        return Err(CommandError::arity("function|restore"));
    }
    if args.len() > 2 {
        return Err(function_shape(word));
    }
    let payload = args.take()?;
    let policy = match args.is_empty() || args.take_word("APPEND") {
        true => Restore::Append,
        false if args.take_word("REPLACE") => Restore::Replace,
        false if args.take_word("FLUSH") => Restore::Flush,
        false => {
            return Err(CommandError::text(
                "ERR Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE.",
            ));
        }
    };
    let Ok(sources) = dump::decode_functions(payload) else {
        return refuse(core, id, b"ERR DUMP payload version or checksum are wrong");
    };
    core.ask(
        0,
        move |core| core.restore_libraries(&sources, policy),
        move |core, restored| {
            core.answer_with(id, |out| match &restored {
                Ok(()) => out.ok(),
                Err(error) => out.error(&error.text),
            });
        },
    );
    wait(core, id)
}

/// LIST [LIBRARYNAME pattern] [WITHCODE]
fn list(core: &mut Core, id: ConnectionId, mut args: Args<'_>) -> Outcome {
    let (mut pattern, mut with_code) = (None, false);
    while !args.is_empty() {
        if !with_code && args.take_word("WITHCODE") {
            with_code = true;
        } else if pattern.is_none() && args.take_word("LIBRARYNAME") {
            if args.is_empty() {
                return Err(CommandError::text("ERR library name argument was not given"));
            }
            pattern = Some(Pattern::new(args.take()?));
        } else {
            return Err(unknown("Unknown argument ", args.take()?));
        }
    }
    let all = core.shared.scripts.libraries();
    let wanted = |name: &str| pattern.as_ref().is_none_or(|pattern| pattern.matches(name.as_bytes()));
    let libraries: Vec<_> = all.libraries.values().filter(|library| wanted(&library.name)).collect();
    reply(core, id, |out| {
        out.array(libraries.len());
        for library in &libraries {
            out.map(if with_code { 4 } else { 3 });
            out.bulk(b"library_name");
            out.bulk(library.name.as_bytes());
            out.bulk(b"engine");
            out.bulk(b"LUA");
            out.bulk(b"functions");
            out.array(library.functions.len());
            for function in &library.functions {
                out.map(3);
                out.bulk(b"name");
                out.bulk(function.name.as_bytes());
                out.bulk(b"description");
                match &function.description {
                    Some(text) => out.bulk(text),
                    None => out.null(),
                }
                out.bulk(b"flags");
                out.set(function.flags.names().count());
                function.flags.names().for_each(|name| out.simple(name));
            }
            if with_code {
                out.bulk(b"library_code");
                out.bulk(&library.source);
            }
        }
    })
}

fn stats(core: &mut Core, id: ConnectionId) -> Outcome {
    let slow = core.shared.scripts.running.slow();
    if slow.as_ref().is_some_and(|slow| !slow.function) {
        return Err(CommandError::text(crate::scripts::running::BUSY_SCRIPT));
    }
    let all = core.shared.scripts.libraries();
    reply(core, id, |out| {
        out.map(2);
        out.bulk(b"running_script");
        match &slow {
            None => out.null(),
            Some(slow) => {
                out.map(3);
                out.bulk(b"name");
                out.bulk(slow.name.as_bytes());
                out.bulk(b"command");
                out.array(slow.request.len());
                slow.request.iter().for_each(|arg| out.bulk(arg));
                out.bulk(b"duration_ms");
                out.int(slow.since.elapsed().as_millis() as i64);
            }
        }
        out.bulk(b"engines");
        out.map(1);
        out.bulk(b"LUA");
        out.map(2);
        out.bulk(b"libraries_count");
        out.int(all.libraries.len() as i64);
        out.bulk(b"functions_count");
        out.int(all.functions.len() as i64);
    })
}

fn unknown(what: &str, word: &[u8]) -> CommandError {
    CommandError::owned(format!("ERR {what}{}", String::from_utf8_lossy(&word[..word.len().min(128)])))
}

const HELP: &[&str] = &[
    "DELETE <library>",
    "    Remove a library.",
    "DUMP",
    "    Return all libraries in one piece, for RESTORE.",
    "FLUSH [ASYNC|SYNC]",
    "    Remove all libraries.",
    "KILL",
    "    End the function that takes long, if it has written nothing.",
    "LIST [LIBRARYNAME <pattern>] [WITHCODE]",
    "    List libraries with their functions, and with their source.",
    "LOAD [REPLACE] <source>",
    "    Make a library, in place of the one of its name if REPLACE is given.",
    "RESTORE <payload> [FLUSH|APPEND|REPLACE]",
    "    Make the libraries of a dump: in place of all, beside those that there are (the default), or in place of",
    "    those of the same names.",
    "STATS",
    "    Return the function that takes long, and the numbers of libraries and functions.",
];
