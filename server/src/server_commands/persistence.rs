//! BGSAVE, DEBUG RELOAD, DFLY LOAD, LASTSAVE, SAVE, SHUTDOWN.

use damselfly_commands::{Args, CommandError};

use super::{Outcome, client_of, help, reply, wait};
use crate::connection::ConnectionId;
use crate::core::Core;
use crate::locks::Scope;
use crate::shared::{Shared, Stop};
use crate::snapshots::{Format, Heard, Listeners, Order, Source, abort_end, begin, end, reload};

/// What SHUTDOWN answers if the server goes on, in Redis' words.
const NO_SHUTDOWN: &str = "ERR Errors trying to SHUTDOWN. Check logs.";

/// SAVE [DF | RDB [filename]]: answers when all is done.
pub fn save(core: &mut Core, id: ConnectionId, args: Args<'_>) -> Outcome {
    let order = Order { foreground: true, ..order(&core.shared, args)? };
    let end = Some(answer_later(core, id, "OK"));
    start(core, order, Listeners { cut: None, end })?;
    wait(core, id)
}

/// BGSAVE [SCHEDULE] [DF | RDB [filename]]: answers when the cut is made, so that what the client changes afterwards is
/// not in the snapshot.
pub fn bgsave(core: &mut Core, id: ConnectionId, mut args: Args<'_>) -> Outcome {
    const STARTED: &str = "Background saving started";
    args.take_word("SCHEDULE");
    let order = order(&core.shared, args)?;
    if client_of(core, id)?.executing {
        // The cut waits for the end of the transaction, so the transaction cannot wait for the cut.
        start(core, order, Listeners::default())?;
        return reply(core, id, |out| out.simple(STARTED));
    }
    let cut = Some(answer_later(core, id, STARTED));
    start(core, order, Listeners { cut, end: None })?;
    wait(core, id)
}

fn start(core: &Core, order: Order, listeners: Listeners) -> Result<(), CommandError> {
    begin(&core.shared, order, listeners).map_err(|error| CommandError::owned(format!("ERR {error}")))
}

/// As the settings have it, but for what the arguments say.
fn order(shared: &Shared, mut args: Args<'_>) -> Result<Order, CommandError> {
    let mut order = Order::usual(shared);
    if args.is_empty() {
        return Ok(order);
    }
    if args.take_word("DF") {
        order.format = Format::Dfs;
    } else if args.take_word("RDB") {
        order.format = Format::Rdb;
    } else {
        return Err(CommandError::Syntax);
    }
    if !args.is_empty() {
        let name = args.take()?;
        order.name = String::from_utf8(name.to_vec())
            .map_err(|_| CommandError::text("ERR filename is not valid UTF-8"))?;
    } else if order.format == Format::Dfs {
        // A name that was made for the other format.
        order.name = order.name.strip_suffix(".rdb").unwrap_or(&order.name).to_owned();
    }
    args.end()?;
    Ok(order)
}

/// Answers a client on this core when something has come to pass elsewhere.
fn answer_later(core: &Core, id: ConnectionId, text: &'static str) -> Heard {
    let (shared, to) = (core.shared.clone(), core.id);
    Box::new(move |result| {
        shared.peers[to].mailbox.post_from_outside(Box::new(move |core| match result {
            Ok(()) => core.answer_with(id, |out| out.simple(text)),
            Err(error) => {
                let error = format!("ERR {error}");
                core.stats.count_error(&error);
                core.answer_with(id, |out| out.error(&error));
            }
        }));
    })
}

/// LASTSAVE: before the first save, the time of the start, as in Redis.
pub fn lastsave(core: &mut Core, id: ConnectionId) -> Outcome {
    let last = last_save_s(&core.shared);
    reply(core, id, |out| out.int(last as i64))
}

/// Seconds since 1970 of the last save that succeeded.
pub fn last_save_s(shared: &Shared) -> u64 {
    let started = || shared.started.0.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
    shared.snapshots.history().saved_s.unwrap_or_else(|| started().as_secs())
}

/// SHUTDOWN [NOSAVE | SAVE] [NOW] [FORCE] [ABORT]: saves, if there is to be a snapshot at all, unless told not to. If
/// that fails the server goes on, unless it is forced.
pub fn shutdown(core: &mut Core, id: ConnectionId, mut args: Args<'_>) -> Outcome {
    let (mut save, mut nosave, mut abort, mut now, mut force) = (false, false, false, false, false);
    while !args.is_empty() {
        if args.take_word("SAVE") || args.take_word("SAFE") {
            save = true;
        } else if args.take_word("NOSAVE") {
            nosave = true;
        } else if args.take_word("NOW") {
            now = true;
        } else if args.take_word("FORCE") {
            force = true;
        } else if args.take_word("ABORT") {
            abort = true;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    if (abort && (save || nosave || now || force)) || (save && nosave) {
        return Err(CommandError::Syntax);
    }
    if abort {
        if !abort_end(&core.shared) {
            return Err(CommandError::text("ERR No shutdown in progress."));
        }
        core.ask_all(|core| core.unpause(), move |core, _| core.answer_with(id, |out| out.simple("OK")));
        return wait(core, id);
    }
    // The main thread stops all cores; the client sees its connection close. If that thread is gone already, the
    // process is ending anyway.
    if nosave {
        let _ = core.shared.stop.send(Stop::Command);
        return wait(core, id);
    }
    let (shared, to) = (core.shared.clone(), core.id);
    let heard: Heard = Box::new(move |result| match result {
        Err(error) if !force => {
            tracing::error!("SHUTDOWN: the server goes on: {error}");
            shared.peers[to].mailbox.post_from_outside(Box::new(move |core| {
                core.stats.count_error(NO_SHUTDOWN);
                core.answer_with(id, |out| out.error(NO_SHUTDOWN));
            }));
        }
        _ => {
            let _ = shared.stop.send(Stop::Command);
        }
    });
    end(&core.shared, heard).map_err(|_| CommandError::text(NO_SHUTDOWN))?;
    wait(core, id)
}

/// DEBUG RELOAD [MERGE] [NOFLUSH] [NOSAVE]
pub fn debug_reload(core: &mut Core, id: ConnectionId, mut args: Args<'_>) -> Outcome {
    let (mut save, mut flush) = (true, true);
    while !args.is_empty() {
        if args.take_word("NOSAVE") {
            save = false;
        } else if args.take_word("NOFLUSH") || args.take_word("MERGE") {
            flush = false;
        } else {
            return Err(CommandError::text(
                "ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.",
            ));
        }
    }
    replace_data(core, id, if save { Source::Saved } else { Source::Newest }, flush)
}

/// DFLY LOAD file [APPEND]: with APPEND, beside the data there are.
pub fn dfly(core: &mut Core, id: ConnectionId, mut args: Args<'_>) -> Outcome {
    const HELP: &[&str] = &[
        "LOAD <file> [APPEND]",
        "    Load a snapshot of the directory, an rdb file or the summary of a set, in place of all data, or beside them.",
    ];
    if args.take_word("HELP") {
        return help(core, id, "DFLY", HELP);
    }
    if !args.take_word("LOAD") {
        return Err(CommandError::unknown_subcommand("dfly", args.take()?));
    }
    let file = String::from_utf8_lossy(args.take()?).into_owned();
    let flush = !args.take_word("APPEND");
    args.end()?;
    if file.contains(['/', '\0']) {
        return Err(CommandError::text("ERR filename may not lead to another directory"));
    }
    replace_data(core, id, Source::File(file), flush)
}

fn replace_data(core: &mut Core, id: ConnectionId, source: Source, flush: bool) -> Outcome {
    let scopes = (0..core.shared.peers.len()).map(|core| (core, Scope::Shard)).collect();
    wait(core, id)?;
    core.lock_for(id, scopes, move |core, held| {
        reload(core, held, source, flush, move |core, result| match result {
            Ok(()) => core.answer_with(id, |out| out.simple("OK")),
            Err(error) => {
                let error = format!("ERR {error}");
                core.stats.count_error(&error);
                core.answer_with(id, |out| out.error(&error));
            }
        });
    });
    Ok(crate::execute::Flow::Pause)
}
