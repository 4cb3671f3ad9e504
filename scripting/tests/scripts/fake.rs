//! A server for scripts: a map, a few commands, a clock that counts ticks.

use damselfly_protocol::Proto;
use damselfly_scripting::{
    AclCheck, Call, CallOutcome, Ended, Engine, Host, How, LogLevel, Options, Repl, Tick,
};
use std::collections::HashMap;
use std::time::{Duration, Instant};

#[derive(Default)]
pub struct Fake {
    pub data: HashMap<Vec<u8>, Vec<u8>>,
    pub log: Vec<(LogLevel, Vec<u8>)>,
    pub ticks: u64,
    /// Kill at this tick.
    pub kill_at: Option<u64>,
    /// Kill at the first tick that is so late after the first one.
    pub kill_after: Option<Duration>,
    /// Longest time between two ticks.
    pub longest_gap: Duration,
    pub first_tick: Option<Instant>,
    pub last_tick: Option<Instant>,
    pub repl: Option<Repl>,
    pub calls: Vec<How>,
    /// What the command RAW answers.
    pub raw: Vec<u8>,
}

impl Host for Fake {
    fn call(&mut self, argv: &[&[u8]], how: How, reply: &mut Vec<u8>) -> CallOutcome {
        self.calls.push(how);
        let name = argv[0].to_ascii_lowercase();
        let arity: std::ops::RangeInclusive<usize> = match &name[..] {
            b"get" | b"hgetall" => 2..=2,
            b"set" => 3..=10,
            b"ping" => 1..=2,
            b"raw" | b"abort" => 1..=1,
            _ => {
                reply.extend_from_slice(b"-ERR Unknown Redis command called from script\r\n");
                return CallOutcome::Done;
            }
        };
        if !arity.contains(&argv.len()) {
            let text: &[u8] = if name == b"ping" {
                b"-ERR wrong number of arguments for 'ping' command\r\n"
            } else {
                b"-ERR Wrong number of args calling Redis command from script\r\n"
            };
            reply.extend_from_slice(text);
            return CallOutcome::Done;
        }
        match &name[..] {
            b"get" => match self.data.get(argv[1]) {
                Some(value) => {
                    reply.extend_from_slice(format!("${}\r\n", value.len()).as_bytes());
                    reply.extend_from_slice(value);
                    reply.extend_from_slice(b"\r\n");
                }
                None if how.resp3 => reply.extend_from_slice(b"_\r\n"),
                None => reply.extend_from_slice(b"$-1\r\n"),
            },
            b"set" if how.read_only => {
                reply.extend_from_slice(b"-ERR Write commands are not allowed from read-only scripts.\r\n")
            }
            b"set" => {
                self.data.insert(argv[1].to_vec(), argv[2].to_vec());
                reply.extend_from_slice(b"+OK\r\n");
            }
            b"hgetall" => reply.extend_from_slice(if how.resp3 { b"%0\r\n" } else { b"*0\r\n" }),
            b"ping" => reply.extend_from_slice(b"+PONG\r\n"),
            b"raw" => reply.extend_from_slice(&self.raw),
            _ => return CallOutcome::Abort,
        }
        CallOutcome::Done
    }

    fn log(&mut self, level: LogLevel, text: &[u8]) {
        self.log.push((level, text.to_vec()));
    }

    fn acl_check(&mut self, argv: &[&[u8]]) -> AclCheck {
        match argv[0] {
            b"get" => AclCheck::Allowed,
            b"set" => AclCheck::Denied,
            _ => AclCheck::Unknown,
        }
    }

    fn set_repl(&mut self, what: Repl) {
        self.repl = Some(what);
    }

    fn tick(&mut self) -> Tick {
        self.ticks += 1;
        let now = Instant::now();
        let first = *self.first_tick.get_or_insert(now);
        self.longest_gap = self.longest_gap.max(now - self.last_tick.replace(now).unwrap_or(now));
        let kill = self.kill_at.is_some_and(|at| self.ticks >= at)
            || self.kill_after.is_some_and(|after| now - first >= after);
        if kill { Tick::Kill } else { Tick::Continue }
    }

    fn clock(&mut self) -> f64 {
        self.ticks as f64
    }
}

pub const OPTIONS: Options = Options { memory_max: 64 << 20, version: "7.0.15", version_number: 0x0007_000F };

pub fn engine() -> Engine {
    Engine::new(OPTIONS)
}

pub fn call<'a>(keys: &'a [&'a [u8]], args: &'a [&'a [u8]]) -> Call<'a> {
    Call { keys, args, read_only: false, proto: Proto::Resp2 }
}

/// EVAL as a server does it.
pub fn eval(
    engine: &mut Engine,
    host: &mut Fake,
    script: &[u8],
    keys: &[&[u8]],
    args: &[&[u8]],
) -> (Vec<u8>, Ended) {
    let mut out = Vec::new();
    let sha = Engine::sha(script);
    if let Err(text) = engine.load(&sha, script) {
        out.extend_from_slice(b"-");
        out.extend_from_slice(&text);
        out.extend_from_slice(b"\r\n");
        return (out, Ended::Failed);
    }
    let ended = engine.run(&sha, call(keys, args), host, &mut out);
    (out, ended)
}

/// The answer to a script without keys.
pub fn answer(engine: &mut Engine, host: &mut Fake, script: &str) -> String {
    let (out, _) = eval(engine, host, script.as_bytes(), &[], &[]);
    out.escape_ascii().to_string()
}
