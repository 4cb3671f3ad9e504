//! LOLWUT, MODULE, ROLE, TIME.

use std::time::{Duration, SystemTime};

use damselfly_commands::{Args, CommandError};

use super::{Outcome, exactly, reply};
use crate::connection::ConnectionId;
use crate::core::Core;

/// TIME: within a script always the same.
pub fn time(core: &mut Core, id: ConnectionId) -> Outcome {
    let now = core.scripts.time_for(id).unwrap_or_else(unix_time);
    reply(core, id, |out| {
        out.array(2);
        out.bulk_int(now.as_secs() as i64);
        out.bulk_int(i64::from(now.subsec_micros()));
    })
}

/// The present, since 1970.
pub fn unix_time() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// ROLE
pub fn role(core: &mut Core, id: ConnectionId) -> Outcome {
    reply(core, id, |out| {
        out.array(3);
        out.bulk(b"master");
        out.int(0);
        out.array(0);
    })
}

/// MODULE LIST: the data types that are modules elsewhere are built in here; there is nothing to load.
pub fn module(core: &mut Core, id: ConnectionId, mut args: Args<'_>) -> Outcome {
    if args.take_word("LIST") {
        exactly(&args, 0, "module|list")?;
        return reply(core, id, |out| out.array(0));
    }
    if args.take_word("HELP") {
        let lines = ["LIST", "    Return the loaded modules: none, as their data types are built in."];
        return super::help(core, id, "MODULE", &lines);
    }
    Err(CommandError::unknown_subcommand("module", args.take()?))
}

/// LOLWUT [VERSION version]: a damselfly over water, different each time.
pub fn lolwut(core: &mut Core, id: ConnectionId, mut args: Args<'_>) -> Outcome {
    if args.take_word("VERSION") {
        args.take_int()?;
    }
    let mut art = String::from(
        "\n        __   __\n       (  \\,/  )\n        \\_ | _/\n  ~~~~  (_ | _)  ~~~~\n          |||\n           |\n",
    );
    for row in 0..3u32 {
        let mut line = String::new();
        for column in 0..40u32 {
            let wave = (core.ks.random() >> 60) as u32 + row + column;
            line.push(if wave.is_multiple_of(5) {
                '~'
            } else if wave.is_multiple_of(7) {
                '.'
            } else {
                ' '
            });
        }
        art.push_str(line.trim_end());
        art.push('\n');
    }
    art.push_str(&format!(
        "\nRedis ver. {} (damselfly {})\n",
        super::info::REDIS_VERSION,
        env!("CARGO_PKG_VERSION")
    ));
    reply(core, id, |out| out.verbatim("txt", art.as_bytes()))
}
