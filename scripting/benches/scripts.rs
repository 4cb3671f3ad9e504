//! What the engine adds to the commands that a script calls: entering, calls, conversions, leaving.

use criterion::{Criterion, criterion_group, criterion_main};
use damselfly_protocol::Proto;
use damselfly_scripting::{AclCheck, Call, CallOutcome, Engine, Host, How, LogLevel, Options, Repl, Tick};
use std::hint::black_box;

/// Commands cost nothing here.
struct Constant;

impl Host for Constant {
    fn call(&mut self, argv: &[&[u8]], _: How, reply: &mut Vec<u8>) -> CallOutcome {
        match argv[0] {
            b"GET" => reply.extend_from_slice(b"$5\r\nhello\r\n"),
            b"LRANGE" => {
                reply.extend_from_slice(b"*100\r\n");
                reply.extend_from_slice(&b"$5\r\nhello\r\n".repeat(100));
            }
            _ => reply.extend_from_slice(b"+OK\r\n"),
        }
        CallOutcome::Done
    }
    fn log(&mut self, _: LogLevel, _: &[u8]) {}
    fn acl_check(&mut self, _: &[&[u8]]) -> AclCheck {
        AclCheck::Allowed
    }
    fn set_repl(&mut self, _: Repl) {}
    fn tick(&mut self) -> Tick {
        Tick::Continue
    }
    fn clock(&mut self) -> f64 {
        0.0
    }
}

fn scripts(criterion: &mut Criterion) {
    let mut engine =
        Engine::new(Options { memory_max: 256 << 20, version: "7.0.15", version_number: 0x0007_000F });
    for (name, script) in [
        ("empty", "return 1"),
        ("get_set", "local v = redis.call('GET', KEYS[1]) redis.call('SET', KEYS[1], ARGV[1]) return v"),
        ("lrange_100", "return redis.call('LRANGE', KEYS[1], 0, -1)"),
        ("loop_1000", "local s = 0 for i = 1, 1000 do s = s + i end return s"),
        (
            "calls_1000",
            "local function f(x) return x end local s = 0 for i = 1, 1000 do s = f(s) end return s",
        ),
        ("json", "return cjson.encode(cjson.decode('{\"a\":[1,2,3],\"b\":\"text\",\"c\":{\"d\":null}}'))"),
        ("match", "return ('key:12345:field'):match('^(%w+):(%d+):(%w+)$')"),
    ] {
        let sha = Engine::sha(script.as_bytes());
        engine.load(&sha, script.as_bytes()).expect("compiles");
        let mut out = Vec::new();
        let call =
            Call { keys: &[b"some:key"], args: &[b"some value"], read_only: false, proto: Proto::Resp2 };
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| {
                out.clear();
                engine.run(black_box(&sha), call, &mut Constant, &mut out)
            });
        });
    }
}

criterion_group!(benches, scripts);
criterion_main!(benches);
