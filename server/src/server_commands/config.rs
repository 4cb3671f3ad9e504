//! CONFIG: the settings of the configuration table, at run time.

use damselfly_commands::{Args, CommandError};
use damselfly_config::SetError;

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
        let refused = |error: SetError| CommandError::owned(error.to_string());
        let settings = &core.shared.settings;
        let change = settings.check(&pairs).map_err(refused)?;
        if change.iter().any(|(name, value)| name == "tls" && value == "true") {
            // To go on without it would be to promise a secrecy that is not kept.
            return Err(refused(SetError::failed("tls", "there is no TLS in this version")));
        }
        for changed in settings.commit(change) {
            tracing::info!(setting = changed.name, "changed by CONFIG SET");
            if changed.name == "loglevel" {
                (core.shared.set_log_level)(settings.loglevel());
            }
            if changed.name == "maxmemory" {
                core.shared.memory.set_limit(settings.maxmemory());
            }
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
