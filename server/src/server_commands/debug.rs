//! DEBUG: for tests and for looking under the hood.
//!
//! What would end the process on purpose (PANIC, SEGFAULT, OOM...) does not exist here: a test that needs a crash has
//! signals, and nobody else should be able to cause one.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use damselfly_commands::{Args, CommandError};
use damselfly_config::glob::Pattern;
use damselfly_keyspace::{Class, Expiry, Object, Value};
use damselfly_protocol::Proto;
use damselfly_protocol::number::{parse_f64, parse_i64};

use super::{Outcome, client_of, help, reply, wait, wrong_shape};
use crate::connection::ConnectionId;
use crate::core::{Core, Replier};
use crate::digest::Digest;
use crate::locks::{Scope, lock_number};
use crate::slot;

/// Longest DEBUG SLEEP: it stops a core, and a core that sleeps does not hear SIGTERM.
const SLEEP_MAX: Duration = Duration::from_secs(3600);
/// How long DEBUG POPULATE works before the core looks after its clients again.
const POPULATE_STEP: Duration = Duration::from_micros(500);
/// Keys made between two looks at the clock.
const POPULATE_KEYS_PER_LOOK: usize = 16;
/// Size of the random values of DEBUG POPULATE if none is given.
const RANDOM_LEN: usize = 16;
const STRINGMATCH_PATTERN_MAX: usize = 4096;

const NOT_POSITIVE: CommandError = CommandError::text("ERR value is out of range, must be positive");

const HELP: &[&str] = &[
    "CHANGE-REPL-ID",
    "    Give the history of the data a new name, so that replicas must synchronize from the start.",
    "DIGEST",
    "    A signature of all data, equal to that of any Redis with the same data.",
    "DIGEST-VALUE <key> [<key> ...]",
    "    Signatures of the values of keys.",
    "ERROR <string>",
    "    Answer with this text as an error.",
    "OBJECT <key>",
    "    How a value is kept.",
    "POPULATE <count> [<prefix>] [<size>] [RAND] [SLOTS <first> <last>] [TYPE <type>] [ELEMENTS <count>]",
    "    [EXPIRE <min> <max>]",
    "    Make keys <prefix>:0, <prefix>:1... with values of <size> bytes, skipping those that exist.",
    "PROTOCOL <type>",
    "    A reply of that type: string, integer, double, bignum, null, array, set, map, attrib, push, verbatim,",
    "    true, false.",
    "SET-ACTIVE-EXPIRE <0|1>",
    "    Whether expired keys are looked for in the background.",
    "SLEEP <seconds>",
    "    Stop this connection's thread, with all clients and keys of it. Decimals allowed.",
    "STRINGMATCH-LEN <pattern> <string>",
    "    Whether the pattern matches, as 1 or 0.",
];

/// DEBUG subcommand
pub fn debug(core: &mut Core, id: ConnectionId, mut args: Args<'_>) -> Outcome {
    let word = args.take()?;
    match (word.to_ascii_uppercase().as_slice(), args.len()) {
        (b"CHANGE-REPL-ID", 0) => {
            let mut name = core.shared.replication_id.lock().unwrap_or_else(PoisonError::into_inner);
            *name = crate::random_id();
            drop(name);
            reply(core, id, |out| out.ok())
        }
        (b"DIGEST", 0) => digest(core, id),
        (b"DIGEST-VALUE", _) => digest_value(core, id, args),
        (b"ERROR", 1) => error(core, id, args.take()?),
        (b"OBJECT", 1) => object(core, id, args.take()?),
        (b"POPULATE", 1..) => populate(core, id, args),
        (b"PROTOCOL", 1) => protocol(core, id, args.take()?),
        (b"SET-ACTIVE-EXPIRE", 1) => {
            // Redis reads this number as C's atoi does: what is not a number is zero.
            let on = parse_i64(args.take()?).is_some_and(|number| number != 0);
            core.ask_all(
                move |core| core.active_expire = on,
                move |core, _| core.answer_with(id, |out| out.ok()),
            );
            wait(core, id)
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
        (b"HELP", 0) => help(core, id, "DEBUG", HELP),
        _ => Err(wrong_shape("DEBUG", word)),
    }
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

/// DEBUG OBJECT key: one line, in the words of Redis.
fn object(core: &mut Core, id: ConnectionId, key: &[u8]) -> Outcome {
    let db = usize::from(client_of(core, id)?.db);
    let key = key.to_vec();
    core.ask(
        core.shared.owner(core.ks.hash(&key)),
        move |core| {
            let found = core.ks.find(db, &key);
            core.after_command();
            let table = core.ks.db(db)?;
            let loc = found?;
            let (encoding, serialized) =
                (damselfly_commands::encoding_at(table, loc), serialized_len(table.value(loc)));
            Some(format!(
                // Idle times are not measured: as in OBJECT IDLETIME, every key was used just now.
                "Value at:{:p} refcount:1 encoding:{encoding} serializedlength:{serialized} lru:{} lru_seconds_idle:0",
                table.key(loc).as_ptr(),
                (core.ks.now / 1000) & 0xFF_FFFF,
            ))
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

/// DEBUG POPULATE under way on one core.
///
/// Every core counts through all numbers and makes the keys that are its own. Counting costs some 30 ns per key and
/// core, less than a message with the key would.
#[derive(Clone, Debug)]
struct Population {
    db: usize,
    /// Whom it is for; without the client the work ends.
    client: u64,
    /// Number of the next key, and how many are still to come.
    next: u64,
    left: u64,
    prefix: Vec<u8>,
    size: Option<usize>,
    random: bool,
    slots: Option<(u16, u16)>,
    /// Shortest and longest time to live, in seconds.
    expire: Option<(u64, u64)>,
}

/// DEBUG POPULATE count [prefix] [size] [RAND] [SLOTS first last] [TYPE type] [ELEMENTS count] [EXPIRE min max]
fn populate(core: &mut Core, id: ConnectionId, mut args: Args<'_>) -> Outcome {
    let client = client_of(core, id)?;
    let mut population = Population {
        db: usize::from(client.db),
        client: client.client.id,
        next: 0,
        left: positive(args.take()?)?,
        prefix: b"key".to_vec(),
        size: None,
        random: false,
        slots: None,
        expire: None,
    };
    if !args.is_empty() {
        population.prefix = args.take()?.to_vec();
    }
    if !args.is_empty() {
        let size = usize::try_from(positive(args.take()?)?).map_err(|_| CommandError::StringTooLong)?;
        if size > core.env.string_len_max {
            return Err(CommandError::StringTooLong);
        }
        population.size = Some(size);
    }
    while !args.is_empty() {
        if args.take_word("RAND") {
            population.random = true;
        } else if args.take_word("SLOTS") {
            let bounds = (positive(args.take()?)?, positive(args.take()?)?);
            if bounds.0 > bounds.1 || bounds.1 >= u64::from(slot::SLOTS) {
                return Err(CommandError::text("ERR Invalid or out of range slot"));
            }
            population.slots = Some((bounds.0 as u16, bounds.1 as u16));
        } else if args.take_word("TYPE") {
            let name = args.take()?;
            if !name.eq_ignore_ascii_case(b"string") {
                return Err(CommandError::text("ERR DEBUG POPULATE makes no values of this type"));
            }
        } else if args.take_word("ELEMENTS") {
            // A string has no elements; the number is only checked.
            positive(args.take()?)?;
        } else if args.take_word("EXPIRE") {
            let bounds = (positive(args.take()?)?, positive(args.take()?)?);
            if bounds.0 == 0 || bounds.0 > bounds.1 || bounds.1 > u64::from(u32::MAX) {
                return Err(CommandError::InvalidExpire("debug"));
            }
            population.expire = Some(bounds);
        } else {
            return Err(CommandError::Syntax);
        }
    }
    let missing = Rc::new(Cell::new(core.shared.peers.len()));
    for to in 0..core.shared.peers.len() {
        let (population, missing) = (population.clone(), missing.clone());
        core.ask_later(
            to,
            move |core, replier| populate_more(core, population, replier),
            move |core, ()| {
                missing.set(missing.get() - 1);
                if missing.get() == 0 {
                    core.answer_with(id, |out| out.ok());
                }
            },
        );
    }
    wait(core, id)
}

/// A number from zero on.
fn positive(arg: &[u8]) -> Result<u64, CommandError> {
    parse_i64(arg).and_then(|number| u64::try_from(number).ok()).ok_or(NOT_POSITIVE)
}

/// One step of a population; the rest in the next turn, so that the core's clients wait half a millisecond at most.
fn populate_more(core: &mut Core, mut population: Population, replier: Replier<()>) {
    let started = Instant::now();
    let is_wanted = core.shared.clients.contains_key(&population.client);
    let mut key = Vec::new();
    let mut value = Vec::new();
    while is_wanted && population.left > 0 && started.elapsed() < POPULATE_STEP {
        for _ in 0..POPULATE_KEYS_PER_LOOK {
            if population.left == 0 {
                break;
            }
            key.clear();
            key.extend_from_slice(&population.prefix);
            key.push(b':');
            key.extend_from_slice(itoa::Buffer::new().format(population.next).as_bytes());
            if population.slots.is_none_or(|(first, last)| (first..=last).contains(&slot::of(&key))) {
                let hash = core.ks.hash(&key);
                if core.shared.owner(hash) == core.id {
                    if !core.locks.is_idle() && core.locks.is_locked(lock_number(population.db, hash)) {
                        // Whoever holds the key must find it as it was; the next turn sees.
                        return core.defer_to_next_turn(move |core| populate_more(core, population, replier));
                    }
                    populate_one(core, &population, &key, &mut value);
                }
                population.left -= 1;
            }
            population.next += 1;
            if value.len() > 4096 {
                break;
            }
        }
    }
    if is_wanted && population.left > 0 {
        core.defer_to_next_turn(move |core| populate_more(core, population, replier));
    } else {
        replier.reply(core, ());
    }
}

fn populate_one(core: &mut Core, population: &Population, key: &[u8], value: &mut Vec<u8>) {
    if core.ks.find(population.db, key).is_some() {
        return;
    }
    value.clear();
    if population.random {
        let size = population.size.unwrap_or(RANDOM_LEN);
        while value.len() < size {
            // Printable, and six random bits per byte: such values neither compress nor look like numbers.
            let bits = core.ks.random();
            value.extend((0..10).map(|at| b'0' + (bits >> (6 * at) & 63) as u8));
        }
        value.truncate(size);
    } else {
        value.extend_from_slice(b"value:");
        value.extend_from_slice(itoa::Buffer::new().format(population.next).as_bytes());
        if let Some(size) = population.size {
            value.resize(size, 0);
        }
    }
    let expiry = match population.expire {
        None => Expiry::Never,
        Some((min, max)) => {
            let seconds = min + core.ks.random() % (max - min + 1);
            Expiry::At(core.ks.now + seconds * 1000)
        }
    };
    core.ks.set_string(population.db, key, value, expiry);
    core.ks.changed(population.db, key, Class::String, "set");
    core.after_command();
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
