//! DEBUG POPULATE: data of any type for tests and measurements.
//!
//! Every core counts through all numbers and makes the keys that are its own. Counting costs some 30 ns per key and
//! core, less than a message with the key would. Collections are filled by the handlers of their own commands, a
//! piece at a time, so that neither a long list nor a large count keeps a core from its clients.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use damselfly_commands::{Args, CommandError, Run, lookup};
use damselfly_keyspace::{Class, Expiry, Type};
use damselfly_protocol::number::parse_i64;
use damselfly_protocol::{Proto, Requests};

use super::{Outcome, client_of, wait};
use crate::connection::ConnectionId;
use crate::core::{Core, Replier};
use crate::execute::{Call, run_handler};
use crate::locks::lock_number;
use crate::slot;

/// How long a core works before it looks after its clients again.
const STEP: Duration = Duration::from_micros(500);
/// Keys made between two looks at the clock.
const KEYS_PER_LOOK: usize = 16;
/// Elements added to a collection at a time, and bytes of them after which no more are added.
const PIECE_ELEMENTS: u64 = 64;
const PIECE_BYTES: usize = 64 << 10;
/// Size of random values if none is given.
const RANDOM_LEN: usize = 16;

const NOT_POSITIVE: CommandError = CommandError::text("ERR value is out of range, must be positive");

/// A population under way on one core.
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
    kind: Type,
    /// Elements of each collection, and how many the next key has already.
    elements: u64,
    filled: u64,
    /// Shortest and longest time to live, in seconds.
    expire: Option<(u64, u64)>,
}

/// DEBUG POPULATE count [prefix] [size] [RAND] [SLOTS first last] [TYPE type] [ELEMENTS count] [EXPIRE min max]
pub fn populate(core: &mut Core, id: ConnectionId, args: Args<'_>) -> Outcome {
    let population = parse(core, id, args)?;
    let missing = Rc::new(Cell::new(core.shared.peers.len()));
    for to in 0..core.shared.peers.len() {
        let (population, missing) = (population.clone(), missing.clone());
        core.ask_later(
            to,
            move |core, replier| go_on(core, population, replier),
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

fn parse(core: &mut Core, id: ConnectionId, mut args: Args<'_>) -> Result<Population, CommandError> {
    let len_max = core.env.string_len_max;
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
        kind: Type::String,
        elements: 1,
        filled: 0,
        expire: None,
    };
    if !args.is_empty() {
        population.prefix = args.take()?.to_vec();
    }
    if !args.is_empty() {
        let size = usize::try_from(positive(args.take()?)?).map_err(|_| CommandError::StringTooLong)?;
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
            population.kind = match args.take()?.to_ascii_lowercase().as_slice() {
                b"string" => Type::String,
                b"list" => Type::List,
                b"set" => Type::Set,
                b"hash" => Type::Hash,
                b"zset" => Type::ZSet,
                b"json" => Type::Json,
                b"stream" => Type::Stream,
                _ => return Err(CommandError::text("ERR DEBUG POPULATE makes no values of this type")),
            };
        } else if args.take_word("ELEMENTS") {
            population.elements = positive(args.take()?)?.max(1);
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
    // A document is written in one piece; the other collections grow by elements.
    let together = if population.kind == Type::Json { population.elements } else { 1 };
    // The name of a field and its quotes come on top.
    let size = population.size.unwrap_or(RANDOM_LEN) as u64 + if together > 1 { 32 } else { 0 };
    if size.saturating_mul(together) > len_max as u64 {
        return Err(CommandError::StringTooLong);
    }
    Ok(population)
}

/// A number from zero on.
fn positive(arg: &[u8]) -> Result<u64, CommandError> {
    parse_i64(arg).and_then(|number| u64::try_from(number).ok()).ok_or(NOT_POSITIVE)
}

/// One step; the rest in the next turn, so that the core's clients wait half a millisecond at most.
fn go_on(core: &mut Core, mut population: Population, replier: Replier<()>) {
    let started = Instant::now();
    let is_wanted = core.shared.clients.contains_key(&population.client);
    let mut key = Vec::new();
    while is_wanted && population.left > 0 && started.elapsed() < STEP {
        for _ in 0..KEYS_PER_LOOK {
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
                        return core.defer_to_next_turn(move |core| go_on(core, population, replier));
                    }
                    if !population.make_some(core, &key) {
                        break;
                    }
                }
                population.left -= 1;
            }
            population.next += 1;
            population.filled = 0;
            if population.size.is_some_and(|size| size > 4096) {
                break;
            }
        }
    }
    if is_wanted && population.left > 0 {
        core.defer_to_next_turn(move |core| go_on(core, population, replier));
    } else {
        replier.reply(core, ());
    }
}

impl Population {
    /// Makes a key, or a piece of it; whether it is complete.
    fn make_some(&mut self, core: &mut Core, key: &[u8]) -> bool {
        if self.filled == 0 && core.ks.find(self.db, key).is_some() {
            return true;
        }
        let from = self.filled;
        if self.kind == Type::String {
            let value = self.value(core, self.next);
            core.ks.set_string(self.db, key, &value, Expiry::Never);
            core.ks.changed(self.db, key, Class::String, "set");
            self.filled = self.elements;
        } else {
            self.add_elements(core, key);
        }
        if from == 0
            && let Some((min, max)) = self.expire
            && let Some(loc) = core.ks.find(self.db, key)
        {
            let seconds = min + core.ks.random() % (max - min + 1);
            let at = core.ks.now + seconds * 1000;
            core.ks.db_mut(self.db).set_expire(loc, Some(at));
            core.ks.changed(self.db, key, Class::Generic, "expire");
        }
        core.after_command();
        self.filled >= self.elements
    }

    /// Runs the command of the type for the next elements; for a document, for all.
    fn add_elements(&mut self, core: &mut Core, key: &[u8]) {
        let name: &[u8] = match self.kind {
            Type::List => b"RPUSH",
            Type::Set => b"SADD",
            Type::Hash => b"HSET",
            Type::ZSet => b"ZADD",
            Type::Stream => b"XADD",
            _ => b"JSON.SET",
        };
        let mut parts: Vec<Vec<u8>> = vec![name.to_vec(), key.to_vec()];
        if self.kind == Type::Json {
            let mut document = b"{".to_vec();
            for element in 0..self.elements {
                if element > 0 {
                    document.push(b',');
                }
                document.extend(format!("\"field:{element}\":\"").into_bytes());
                document.extend(self.value(core, element));
                document.push(b'"');
            }
            document.push(b'}');
            parts.extend([b"$".to_vec(), document]);
            self.filled = self.elements;
        }
        let (from, mut bytes) = (self.filled, 0);
        while self.filled < self.elements && self.filled - from < PIECE_ELEMENTS && bytes < PIECE_BYTES {
            let value = self.value(core, self.filled);
            bytes += value.len();
            match self.kind {
                Type::Stream => parts.push(b"*".to_vec()),
                Type::ZSet => parts.push(core.ks.random().to_string().into_bytes()),
                _ => {}
            }
            if matches!(self.kind, Type::Hash | Type::Stream) {
                parts.push(format!("field:{}", self.filled).into_bytes());
            }
            parts.push(value);
            self.filled += 1;
            if self.kind == Type::Stream {
                // One entry is one command.
                break;
            }
        }
        let (mut bytes, mut requests, mut reply) = (Vec::new(), Requests::new(), Vec::new());
        assert!(
            requests.push_copy(&mut bytes, parts.iter().map(Vec::as_slice)),
            "a piece is a small request"
        );
        let argv = requests.argv(&bytes, 0);
        let command = lookup(name).expect("a command").command;
        let Run::Shard(handler) = command.run else { unreachable!("it runs on a shard") };
        if !core.admit(command, &argv) {
            return;
        }
        let call = Call::of(command, self.db, Proto::Resp2);
        // Nothing is wrong with the request. If the key has become something else meanwhile, it stays that.
        run_handler(call, handler, &mut core.ks, &core.env, &argv, &mut reply);
    }

    /// A value for a key or an element of this number.
    fn value(&self, core: &mut Core, number: u64) -> Vec<u8> {
        if !self.random {
            let mut value = format!("value:{number}").into_bytes();
            if let Some(size) = self.size {
                // Bytes that JSON can hold as well.
                value.resize(size, if self.kind == Type::String { 0 } else { b'.' });
            }
            return value;
        }
        let size = self.size.unwrap_or(RANDOM_LEN);
        let mut value = Vec::with_capacity(size + 10);
        while value.len() < size {
            // Letters, digits and two more, six random bits per byte: such values neither compress nor look like
            // numbers, and are strings of JSON as they are.
            const SIGNS: &[u8; 64] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_";
            let bits = core.ks.random();
            value.extend((0..10).map(|at| SIGNS[(bits >> (6 * at) & 63) as usize]));
        }
        value.truncate(size);
        value
    }
}
