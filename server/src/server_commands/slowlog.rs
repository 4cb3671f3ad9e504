//! SLOWLOG: the commands that took long, of all cores.

use damselfly_commands::{Args, CommandError};
use damselfly_protocol::number::parse_i64;

use super::{Outcome, exactly, help, wait, wrong_shape};
use crate::connection::ConnectionId;
use crate::core::Core;

/// Entries returned if nobody says how many.
const COUNT: usize = 10;

/// SLOWLOG subcommand
pub fn slowlog(core: &mut Core, id: ConnectionId, mut args: Args<'_>) -> Outcome {
    let word = args.take()?;
    match word.to_ascii_uppercase().as_slice() {
        b"GET" => {
            if args.len() > 1 {
                return Err(wrong_shape("SLOWLOG", word));
            }
            get(core, id, args)
        }
        b"LEN" => {
            exactly(&args, 0, "slowlog|len")?;
            let limit = core.stats.slow_len_max;
            core.ask_all(
                |core| core.stats.slow.len(),
                move |core, lens| {
                    let len = lens.iter().sum::<usize>().min(limit);
                    core.answer_with(id, |out| out.int(len as i64));
                },
            );
            wait(core, id)
        }
        b"RESET" => {
            exactly(&args, 0, "slowlog|reset")?;
            core.ask_all(|core| core.stats.slow.clear(), move |core, _| core.answer_with(id, |out| out.ok()));
            wait(core, id)
        }
        b"HELP" => {
            exactly(&args, 0, "slowlog|help")?;
            help(
                core,
                id,
                "SLOWLOG",
                &[
                    "GET [<count>]",
                    "    List the newest entries (default: 10, -1 is all). Each has its number, Unix time, duration",
                    "    in microseconds, the command with its arguments, and the client's address and name.",
                    "LEN",
                    "    Tell the number of entries.",
                    "RESET",
                    "    Remove all entries.",
                ],
            )
        }
        _ => Err(CommandError::unknown_subcommand("slowlog", word)),
    }
}

/// SLOWLOG GET [count]
fn get(core: &mut Core, id: ConnectionId, mut args: Args<'_>) -> Outcome {
    let mut count = COUNT;
    if !args.is_empty() {
        count = match parse_i64(args.take()?) {
            Some(-1) => usize::MAX,
            Some(count) if count >= 0 => count as usize,
            _ => return Err(CommandError::text("ERR count should be greater than or equal to -1")),
        };
    }
    // Each core keeps as many as all together may have, so that the newest are there wherever they ran.
    let count = count.min(core.stats.slow_len_max);
    core.ask_all(
        move |core| core.stats.slow.iter().take(count).cloned().collect::<Vec<_>>(),
        move |core, of_cores| {
            let mut entries: Vec<_> = of_cores.into_iter().flatten().collect();
            entries.sort_unstable_by_key(|slow| std::cmp::Reverse(slow.id));
            entries.truncate(count);
            core.answer_with(id, |out| {
                out.array(entries.len());
                for slow in &entries {
                    out.array(6);
                    out.int(slow.id as i64);
                    out.int(slow.at_s as i64);
                    out.int(slow.micros as i64);
                    out.array(slow.args.len());
                    for arg in &slow.args {
                        out.bulk(arg);
                    }
                    out.bulk(slow.addr.as_bytes());
                    out.bulk(slow.name.as_bytes());
                }
            });
        },
    );
    wait(core, id)
}
