//! DEBUG: for tests and for looking under the hood.
//!
//! What would end the process on purpose (PANIC, SEGFAULT, OOM...) does not exist here: a test that needs a crash has
//! signals, and nobody else should be able to cause one.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use damselfly_commands::{Args, CommandError};
use damselfly_config::glob::Pattern;
use damselfly_config::{Units, parse_bytes};
use damselfly_keyspace::{Object, Value};
use damselfly_protocol::Proto;
use damselfly_protocol::number::{parse_f64, parse_i64};

use super::{Outcome, client_of, help, persistence, populate, reply, wait, wrong_shape};
use crate::connection::ConnectionId;
use crate::core::Core;
use crate::digest::Digest;
use crate::locks::Scope;

/// Longest DEBUG SLEEP: it stops a core, and a core that sleeps does not hear SIGTERM.
const SLEEP_MAX: Duration = Duration::from_secs(3600);
const STRINGMATCH_PATTERN_MAX: usize = 4096;

const HELP: &[&str] = &[
    "AT-ONCE-MAX <members>",
    "    Most members that set algebra, ZRANGESTORE and SORT look at before they are done in steps.",
    "CHANGE-REPL-ID",
    "    Give the history of the data a new name, so that replicas must synchronize from the start.",
    "DIGEST",
    "    A signature of all data, equal to that of any Redis with the same data.",
    "DIGEST-VALUE <key> [<key> ...]",
    "    Signatures of the values of keys.",
    "ERROR <string>",
    "    Answer with this text as an error.",
    "HTSTATS <db>",
    "    How many keys and times to live the tables of a database have, and how many they have room for.",
    "LOG <message>",
    "    Write a message to the log.",
    "OBJECT <key> [COMPRESS]",
    "    How a value is kept, and how small it would be in a compressed snapshot.",
    "PAUSE-CRON <0|1>",
    "    Whether what happens at every tick rests: expiry, idle clients, statistics.",
    "POPULATE <count> [<prefix>] [<size>] [RAND] [SLOTS <first> <last>] [TYPE <type>] [ELEMENTS <count>]",
    "    [EXPIRE <min> <max>]",
    "    Make keys <prefix>:0, <prefix>:1... with values of <size> bytes, skipping those that exist. Types are",
    "    string, list, set, hash, zset, json, stream; all but strings have <count> elements of <size> bytes.",
    "PROTOCOL <type>",
    "    A reply of that type: string, integer, double, bignum, null, array, set, map, attrib, push, verbatim,",
    "    true, false.",
    "QUICKLIST-PACKED-THRESHOLD <size>",
    "    Accepted for tests of Redis' lists: in nodes of lists here, long elements are alone at every size.",
    "RELOAD [MERGE] [NOFLUSH] [NOSAVE]",
    "    Save a snapshot, forget all data, and load them from it. NOSAVE: load the newest there is. NOFLUSH or MERGE:",
    "    forget nothing; what is loaded takes the place of keys with the same names.",
    "SET-ACTIVE-EXPIRE <0|1>",
    "    Whether expired keys are looked for in the background.",
    "SET-DISABLE-DENY-SCRIPTS <0|1>",
    "    Whether scripts may call DEBUG PROTOCOL, but for pushes, and DEBUG SLEEP.",
    "SET-SKIP-CHECKSUM-VALIDATION <0|1>",
    "    Whether RESTORE takes payloads with wrong checksums.",
    "SLEEP <seconds>",
    "    Stop this connection's thread, with all clients and keys of it. Decimals allowed.",
    "STRINGMATCH-LEN <pattern> <string>",
    "    Whether the pattern matches, as 1 or 0.",
];

/// DEBUG subcommand
pub fn debug(core: &mut Core, id: ConnectionId, mut args: Args<'_>) -> Outcome {
    let word = args.take()?;
    match (word.to_ascii_uppercase().as_slice(), args.len()) {
        (b"AT-ONCE-MAX", 1) => {
            let max = usize::try_from(args.take_int()?).map_err(|_| CommandError::OutOfRange)?;
            on_all(core, id, move |core| core.env.at_once_max = max)
        }
        (b"CHANGE-REPL-ID", 0) => {
            let mut name = core.shared.replication_id.lock().unwrap_or_else(PoisonError::into_inner);
            *name = crate::random_id();
            drop(name);
            reply(core, id, |out| out.ok())
        }
        (b"DIGEST", 0) => digest(core, id),
        (b"DIGEST-VALUE", _) => digest_value(core, id, args),
        (b"ERROR", 1) => error(core, id, args.take()?),
        (b"HTSTATS", 1 | 2) => {
            let db = args.take_int()?;
            // FULL asks for the same in more detail.
            args.take_word("FULL");
            table_stats(core, id, db)
        }
        (b"LOG", 1) => {
            tracing::warn!(message = %String::from_utf8_lossy(args.take()?), "DEBUG LOG");
            reply(core, id, |out| out.ok())
        }
        (b"OBJECT", 1 | 2) => {
            let key = args.take()?;
            let compresses = args.take_word("COMPRESS");
            if !args.is_empty() {
                return Err(CommandError::Syntax);
            }
            object(core, id, key, compresses)
        }
        (b"PAUSE-CRON", 1) => {
            let rest = take_switch(&mut args)?;
            on_all(core, id, move |core| core.ticks_rest = rest)
        }
        (b"POPULATE", 1..) => populate::populate(core, id, args),
        (b"PROTOCOL", 1) => protocol(core, id, args.take()?),
        (b"QUICKLIST-PACKED-THRESHOLD", 1) => {
            const REFUSED: &str = "ERR argument must be a memory value bigger than 1 and smaller than 4gb";
            let text = std::str::from_utf8(args.take()?).unwrap_or_default();
            let size = parse_bytes(text, Units::Redis);
            if size.is_none_or(|size| size >= 4 << 30) {
                return Err(CommandError::text(REFUSED));
            }
            reply(core, id, |out| out.ok())
        }
        (b"SET-ACTIVE-EXPIRE", 1) => {
            let on = take_switch(&mut args)?;
            on_all(core, id, move |core| core.active_expire = on)
        }
        (b"SET-DISABLE-DENY-SCRIPTS", 1) => {
            let may = take_switch(&mut args)?;
            core.shared.scripts.may_debug.store(may, Ordering::Relaxed);
            reply(core, id, |out| out.ok())
        }
        (b"SET-SKIP-CHECKSUM-VALIDATION", 1) => {
            let skips = take_switch(&mut args)?;
            on_all(core, id, move |core| core.env.mends_checksums = skips)
        }
        (b"SLEEP", 1) => {
            let seconds = parse_f64(args.take()?).ok_or(CommandError::NotFloat)?;
            let time = Duration::try_from_secs_f64(seconds.max(0.0)).map_err(|_| CommandError::OutOfRange)?;
            if time > SLEEP_MAX {
                return Err(CommandError::OutOfRange);
            }
            std::thread::sleep(time);
            reply(core, id, |out| out.ok())
        }
        (b"STRINGMATCH-LEN", 2) => {
            let pattern = args.take()?;
            if pattern.len() > STRINGMATCH_PATTERN_MAX {
                return Err(CommandError::OutOfRange);
            }
            let matches = Pattern::new(pattern).matches(args.take()?);
            reply(core, id, |out| out.int(i64::from(matches)))
        }
        (b"RELOAD", 0..=3) => persistence::debug_reload(core, id, args),
        (b"HELP", 0) => help(core, id, "DEBUG", HELP),
        _ => Err(wrong_shape("DEBUG", word)),
    }
}

/// 0 or 1. Redis reads the number as C's atoi does: what is not a number is zero.
fn take_switch(args: &mut Args<'_>) -> Result<bool, CommandError> {
    Ok(parse_i64(args.take()?).is_some_and(|number| number != 0))
}

/// Changes something on all threads and answers OK.
fn on_all(
    core: &mut Core,
    id: ConnectionId,
    change: impl FnOnce(&mut Core) + Clone + Send + 'static,
) -> Outcome {
    core.ask_all(change, move |core, _| core.answer_with(id, |out| out.ok()));
    wait(core, id)
}

/// DEBUG HTSTATS db: the tables of all threads together, in the words of Redis where it has any.
fn table_stats(core: &mut Core, id: ConnectionId, db: i64) -> Outcome {
    let db = usize::try_from(db).ok().filter(|&db| db < core.ks.databases());
    let db = db.ok_or(CommandError::text("ERR Out of range database"))?;
    core.ask_all(
        move |core| {
            let table = core.ks.db(db);
            table.map_or([0; 3], |table| [table.capacity(), table.len(), table.expires()])
        },
        move |core, parts| {
            let sum = |what: usize| parts.iter().map(|part| part[what]).sum::<usize>();
            let text = format!(
                "[Dictionary HT]\nHash table 0 stats (main hash table):\n table size: {}\n number of elements: {}\n\
                 [Expires HT]\n number of elements: {}\n",
                sum(0),
                sum(1),
                sum(2),
            );
            core.answer_with(id, |out| out.verbatim("txt", text.as_bytes()));
        },
    );
    wait(core, id)
}

/// DEBUG ERROR string: the whole text, prefix included, is the client's.
fn error(core: &mut Core, id: ConnectionId, text: &[u8]) -> Outcome {
    // An error is one line; Redis puts blanks in the place of line ends too.
    let line: Vec<u8> =
        text.iter().map(|&byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }).collect();
    core.stats.count_error(&String::from_utf8_lossy(&line));
    reply(core, id, |out| out.error(&line))
}

/// DEBUG PROTOCOL type: the replies that Redis gives, for the tests of client libraries.
#[expect(clippy::approx_constant, reason = "the double that client libraries expect is 3.141, not pi")]
fn protocol(core: &mut Core, id: ConnectionId, name: &[u8]) -> Outcome {
    let proto = client_of(core, id)?.proto;
    let word = name.to_ascii_lowercase();
    if word == b"push" && proto == Proto::Resp2 {
        return Err(CommandError::text("ERR RESP2 is not supported by this command"));
    }
    const TYPES: [&str; 13] = [
        "string", "integer", "double", "bignum", "null", "array", "set", "map", "attrib", "push", "verbatim",
        "true", "false",
    ];
    if !TYPES.iter().any(|known| known.as_bytes() == word) {
        return Err(CommandError::owned(format!(
            "ERR Wrong protocol type name. Please use one of the following: {}",
            TYPES.join("|")
        )));
    }
    reply(core, id, |out| match word.as_slice() {
        b"integer" => out.int(12345),
        b"double" => out.double(3.141),
        b"bignum" => out.big_number("1234567999999999999999999999999999999"),
        b"null" => out.null(),
        b"array" | b"set" => {
            if word == b"set" {
                out.set(3)
            } else {
                out.array(3)
            }
            (0..3).for_each(|number| out.int(number));
        }
        b"map" => {
            out.map(3);
            for number in 0..3 {
                out.int(number);
                out.bool(number == 1);
            }
        }
        b"attrib" => {
            if proto == Proto::Resp3 {
                // Nothing else sends attributes, so the writer has no method for them.
                out.raw(b"|1\r\n");
                out.bulk(b"key-popularity");
                out.array(2);
                out.bulk(b"key:123");
                out.int(90);
            }
            out.bulk(b"Some real reply following the attribute");
        }
        b"push" => {
            out.push(2);
            out.bulk(b"server-cpu-usage");
            out.int(42);
            // A push is no reply, and the client waits for one.
            out.bulk(b"Some real reply following the push reply");
        }
        b"verbatim" => out.verbatim("txt", b"This is a verbatim\nstring"),
        b"true" => out.bool(true),
        b"false" => out.bool(false),
        _ => out.bulk(b"Hello World"),
    })
}

/// DEBUG OBJECT key [COMPRESS]: one line, in the words of Redis.
fn object(core: &mut Core, id: ConnectionId, key: &[u8], compresses: bool) -> Outcome {
    let db = usize::from(client_of(core, id)?.db);
    let key = key.to_vec();
    core.ask(
        core.shared.owner(core.ks.hash(&key)),
        move |core| {
            // Also one whose time has come, as long as it is in memory.
            let loc = core.ks.find_even_expired(db, &key)?;
            let idle = core.ks.idle_ms(db, loc) / 1000;
            let table = core.ks.db(db)?;
            let (encoding, serialized) =
                (damselfly_commands::encoding_at(table, loc, &core.env), serialized_len(table.value(loc)));
            let mut line = format!(
                "Value at:{:p} refcount:1 encoding:{encoding} serializedlength:{serialized} lru:{} \
                 lru_seconds_idle:{idle}",
                table.key(loc).as_ptr(),
                (core.ks.now / 1000).saturating_sub(idle) & 0xFF_FFFF,
            );
            if compresses {
                let len = damselfly_commands::compressed_len(table.value(loc));
                line.push_str(&format!(" compressedlength:{len}"));
            }
            Some(line)
        },
        move |core, line| match line {
            Some(line) => core.answer_with(id, |out| out.simple(&line)),
            None => {
                let text = CommandError::NoSuchKey.to_string();
                core.stats.count_error(&text);
                core.answer_with(id, |out| out.error(&text));
            }
        },
    );
    wait(core, id)
}

/// Bytes in an RDB file without compression.
fn serialized_len(value: Value<'_, Object>) -> usize {
    let string = |len: usize| match len {
        0..64 => 1 + len,
        64..16_384 => 2 + len,
        _ => 5 + len,
    };
    match value {
        Value::Int(number) => match number {
            -0x80..=0x7F => 2,
            -0x8000..=0x7FFF => 3,
            -0x8000_0000..=0x7FFF_FFFF => 5,
            _ => string(number.to_string().len()),
        },
        Value::Str(bytes) => string(bytes.len()),
        Value::Object(_) => damselfly_commands::serialized_len(value),
    }
}

/// DEBUG DIGEST: of one instant, so all shards are locked while each digests its keys.
fn digest(core: &mut Core, id: ConnectionId) -> Outcome {
    let scopes = (0..core.shared.peers.len()).map(|core| (core, Scope::Shard)).collect();
    core.lock_for(id, scopes, move |core, held| {
        let missing = Rc::new(Cell::new(held.len()));
        let all = Rc::new(std::cell::RefCell::new(vec![None; core.ks.databases()]));
        for (to, ticket) in held {
            let (missing, all) = (missing.clone(), all.clone());
            core.ask(
                to,
                move |core| {
                    let digest = |db| Digest::of_db(core.ks.db(db)?, core.ks.now);
                    let digests: Vec<Option<Digest>> = (0..core.ks.databases()).map(digest).collect();
                    core.unlock(ticket);
                    digests
                },
                move |core, digests| {
                    for (sum, part) in all.borrow_mut().iter_mut().zip(digests) {
                        if let Some(part) = part {
                            sum.get_or_insert_with(Digest::default).merge(&part);
                        }
                    }
                    missing.set(missing.get() - 1);
                    if missing.get() == 0 {
                        let all = all.borrow();
                        let dbs = all.iter().enumerate().filter_map(|(number, db)| Some((number, (*db)?)));
                        let text = Digest::of_databases(dbs).to_hex();
                        core.answer_with(id, |out| out.simple(&text));
                    }
                },
            );
        }
    });
    wait(core, id)
}

/// DEBUG DIGEST-VALUE key [key ...]
fn digest_value(core: &mut Core, id: ConnectionId, args: Args<'_>) -> Outcome {
    let db = usize::from(client_of(core, id)?.db);
    let keys: Vec<Vec<u8>> = args.rest().map(<[u8]>::to_vec).collect();
    if keys.is_empty() {
        return reply(core, id, |out| out.array(0));
    }
    let keys = std::sync::Arc::new(keys);
    core.ask_all(
        move |core| {
            let mut found = Vec::new();
            for (at, key) in keys.iter().enumerate() {
                if core.shared.owner(core.ks.hash(key)) != core.id {
                    continue;
                }
                let mut digest = Digest::default();
                if let Some(loc) = core.ks.find(db, key) {
                    let table = core.ks.table(db);
                    digest.add_value(table.value(loc), table.expire_at(loc).is_some(), core.ks.now);
                }
                found.push((at, digest));
            }
            core.after_command();
            found
        },
        move |core, parts| {
            let mut all: Vec<(usize, Digest)> = parts.into_iter().flatten().collect();
            all.sort_unstable_by_key(|(at, _)| *at);
            core.answer_with(id, |out| {
                out.array(all.len());
                all.iter().for_each(|(_, digest)| out.simple(&digest.to_hex()));
            });
        },
    );
    wait(core, id)
}

#[cfg(test)]
mod tests {
    use damselfly_keyspace::Value;

    use super::serialized_len;

    /// Lengths at the borders of the file format's encodings.
    #[test]
    fn serialized_lengths() {
        for (number, len) in
            [(0, 2), (-128, 2), (128, 3), (32767, 3), (32768, 5), (1 << 31, 11), (i64::MIN, 21)]
        {
            assert_eq!(serialized_len(Value::Int(number)), len, "{number}");
        }
        for (len, serialized) in [(0, 1), (63, 64), (64, 66), (16_383, 16_385), (16_384, 16_389)] {
            assert_eq!(serialized_len(Value::Str(&vec![b'x'; len])), serialized);
        }
    }
}
