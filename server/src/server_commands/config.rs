//! CONFIG: the settings of the configuration table, at run time.

use damselfly_commands::{Args, CommandError};

use super::{Outcome, exactly, help, reply, wait};
use crate::connection::ConnectionId;
use crate::core::Core;

/// CONFIG GET | SET | RESETSTAT | REWRITE | HELP
pub fn config(core: &mut Core, id: ConnectionId, mut args: Args<'_>) -> Outcome {
    if args.take_word("GET") {
        if args.is_empty() {
            return Err(CommandError::arity("config|get"));
        }
        let patterns: Vec<&[u8]> = args.rest().collect();
        let found = core.shared.settings.get_matching(&patterns);
        return reply(core, id, |out| {
            out.map(found.len());
            for (name, value) in &found {
                out.bulk(name.as_bytes());
                out.bulk(value.as_bytes());
            }
        });
    }
    if args.take_word("SET") {
        if args.len() < 2 {
            return Err(CommandError::arity("config|set"));
        }
        if !args.len().is_multiple_of(2) {
            return Err(CommandError::Syntax);
        }
        let all: Vec<&[u8]> = args.rest().collect();
        let pairs: Vec<(&[u8], &[u8])> = all.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
        for changed in
            core.shared.settings.set(&pairs).map_err(|error| CommandError::owned(error.to_string()))?
        {
            tracing::info!(setting = changed.name, "changed by CONFIG SET");
        }
        core.read_settings();
        return reply(core, id, |out| out.ok());
    }
    if args.take_word("RESETSTAT") {
        exactly(&args, 0, "config|resetstat")?;
        core.ask_all(crate::report::reset, move |core, _| core.answer_with(id, |out| out.ok()));
        return wait(core, id);
    }
    if args.take_word("REWRITE") {
        return Err(CommandError::text("ERR The server is running without a config file"));
    }
    if args.take_word("HELP") {
        return help(
            core,
            id,
            "CONFIG",
            &[
                "GET <pattern> [<pattern> ...]",
                "    Return the settings that match the patterns, with their values.",
                "SET <setting> <value> [<setting> <value> ...]",
                "    Change settings, all or none.",
                "RESETSTAT",
                "    Reset the counters that INFO reports.",
                "REWRITE",
                "    Refused: settings come from flags, and there is no file to rewrite.",
            ],
        );
    }
    Err(CommandError::unknown_subcommand("config", args.take()?))
}
