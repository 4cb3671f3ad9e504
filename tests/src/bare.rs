//! A shard without a server: the handlers of `commands/` on one keyspace, in this process, with a clock of their own.
//!
//! It answers what needs nothing but keys; of the rest it knows SELECT, FLUSHDB and FLUSHALL, without which hardly a
//! script could go on. Everything else that belongs to the server is an error that begins with [`NEEDS_SERVER`].
//!
//! There is one shard and no executor with four. What four shards have beyond one (who owns a key, locks in order, the
//! keys of a command that meet, parts that are merged) is code of `server/` and runs on its threads; to play it here
//! would be to write it twice and to test the copy. `scripts.rs` plays every script on a server of four threads.

use std::collections::HashMap;

use damselfly_commands::{Args, Cx, Env, Handler, Run, all, lookup};
use damselfly_keyspace::{Keyspace, Options};
use damselfly_protocol::{Proto, ReplyWriter, Requests};

use crate::executor::Executor;
use crate::reply::{self, Protocol, Reply};

/// How the error of a request begins that only a whole server can answer.
pub const NEEDS_SERVER: &str = "needs a server";

/// Databases, as many as a server has by default.
const DATABASES: usize = 16;

/// Requests that take a millisecond, about as many as a server manages over TCP.
const CALLS_PER_MS: u64 = 50;

/// When the clock starts; any moment will do.
const BEGINNING_MS: u64 = 1_700_000_000_000;

/// See the module's head.
pub struct Bare {
    keyspace: Keyspace,
    env: Env,
    proto: Proto,
    /// Requests so far.
    calls: u64,
    /// Database of each client.
    clients: HashMap<String, usize>,
}

impl Bare {
    /// An empty shard that answers in this protocol.
    pub fn new(protocol: Protocol) -> Self {
        let proto = match protocol {
            Protocol::Resp2 => Proto::Resp2,
            Protocol::Resp3 => Proto::Resp3,
        };
        Self { keyspace: empty(BEGINNING_MS), env: Env::default(), proto, calls: 0, clients: HashMap::new() }
    }

    /// Every invariant of the data; panics where one does not hold.
    pub fn check(&self) {
        self.keyspace.check();
    }

    fn run(&mut self, db: usize, handler: Handler, request: &[Vec<u8>]) -> Result<Reply, String> {
        let (mut bytes, mut requests, mut out) = (Vec::new(), Requests::new(), Vec::new());
        if !requests.push_copy(&mut bytes, request.iter().map(Vec::as_slice)) {
            return Err("the request is too long".into());
        }
        let mut cx = Cx {
            ks: &mut self.keyspace,
            db,
            out: ReplyWriter::new(&mut out, self.proto),
            env: &self.env,
            later: None,
        };
        if let Err(error) = handler(&mut cx, Args::behind_name(&requests.argv(&bytes, 0))) {
            cx.out.truncate(0);
            cx.out.error(error.to_string());
        }
        drop(self.keyspace.take_events());
        match reply::parse(&out)? {
            Some((reply, len)) if len == out.len() => Ok(reply),
            _ => Err(format!("not one reply: {}", reply::quoted(&out))),
        }
    }

    /// The few commands of a server that scripts cannot do without.
    fn serve(&mut self, client: &str, request: &[Vec<u8>]) -> Option<Reply> {
        let name = request[0].to_ascii_uppercase();
        let ok = || Some(Reply::Simple(b"OK".to_vec()));
        match (name.as_slice(), request.len()) {
            (b"SELECT", 2) => {
                let db = std::str::from_utf8(&request[1]).ok()?.parse().ok().filter(|db| *db < DATABASES)?;
                self.clients.insert(client.to_owned(), db);
                ok()
            }
            (b"FLUSHDB", 1) => {
                self.keyspace.flush(self.db_of(client));
                ok()
            }
            (b"FLUSHALL", 1) => {
                for db in 0..DATABASES {
                    self.keyspace.flush(db);
                }
                ok()
            }
            (b"COMMAND", 2) if request[1].eq_ignore_ascii_case(b"LIST") => {
                Some(Reply::Array(all().map(|command| Reply::Bulk(command.name.into())).collect()))
            }
            _ => None,
        }
    }

    fn db_of(&self, client: &str) -> usize {
        self.clients.get(client).copied().unwrap_or_default()
    }
}

fn empty(now: u64) -> Keyspace {
    let mut keyspace =
        Keyspace::new(&Options { databases: DATABASES, hash_seed: 0x5EED, random_seed: 0x00DD_B1A5 });
    keyspace.now = now;
    keyspace
}

impl Executor for Bare {
    fn reset(&mut self) -> Result<(), String> {
        self.clients.clear();
        self.keyspace = empty(self.keyspace.now);
        Ok(())
    }

    fn call(&mut self, client: &str, request: &[Vec<u8>]) -> Result<Reply, String> {
        // If commands took no time at all, a deadline one millisecond ahead would last for ever.
        self.calls += 1;
        self.keyspace.now += u64::from(self.calls.is_multiple_of(CALLS_PER_MS));
        let name = String::from_utf8_lossy(&request[0]).into_owned();
        let Some(found) = lookup(&request[0]) else {
            return Err(format!("{NEEDS_SERVER} to refuse {name}"));
        };
        match found.command.run {
            _ if !found.command.arity.allows(request.len()) => {
                let name = name.to_ascii_lowercase();
                let text = format!("ERR wrong number of arguments for '{name}' command");
                Ok(Reply::Error(text.into_bytes()))
            }
            Run::Shard(handler) => self.run(self.db_of(client), handler, request),
            Run::Block(blocking) => self.run(self.db_of(client), blocking.once, request),
            Run::Script(_) => Err(format!("{NEEDS_SERVER}: {name}")),
            Run::Server(_) => self.serve(client, request).ok_or(format!("{NEEDS_SERVER}: {name}")),
        }
    }

    fn send(&mut self, _client: &str, _request: &[Vec<u8>]) -> Result<(), String> {
        Err(format!("{NEEDS_SERVER} to send without waiting"))
    }

    fn receive(&mut self, _client: &str) -> Result<Reply, String> {
        Err(format!("{NEEDS_SERVER} to receive"))
    }

    fn closed(&mut self, _client: &str) -> Result<(), String> {
        Err(format!("{NEEDS_SERVER} to close"))
    }

    fn close(&mut self, client: &str) {
        self.clients.remove(client);
    }

    fn pause(&mut self, milliseconds: u64) {
        self.keyspace.now += milliseconds;
    }

    fn now_ms(&self) -> i64 {
        self.keyspace.now as i64
    }
}
