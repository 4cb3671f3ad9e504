//! A real redis-server reads what we write, and answers ordinary commands about it. Without one the tests say so
//! and pass.

#[path = "support/redis.rs"]
mod redis;
mod support;

use std::path::Path;
use std::process::Command;

use damselfly_rdb::{Compression, Encoder, FileOptions, FileWriter, Meta, StreamId, Target, Value, dump};
use redis::{Redis, Reply};
use support::*;

/// What a Redis shows of a key.
trait Holds {
    fn holds(&mut self, key: &[u8], value: &Value);
}

impl Holds for Redis {
    /// What ordinary commands say of a key must be the value.
    fn holds(&mut self, key: &[u8], value: &Value) {
        let all: [&[u8]; 2] = [b"0", b"-1"];
        match value {
            Value::String(string) => assert!(self.ask(&[b"GET", key]).bytes() == *string),
            Value::List(elements) => {
                assert!(self.ask(&[b"LRANGE", key, all[0], all[1]]).strings() == *elements)
            }
            Value::Set(members) => {
                let mut got = self.ask(&[b"SMEMBERS", key]).strings();
                let mut want: Vec<_> = members.iter().map(|(member, _)| member.clone()).collect();
                got.sort();
                want.sort();
                assert!(got == want);
                assert_eq!(self.ask(&[b"SISMEMBER", key, &want[0]]), Reply::Int(1));
            }
            Value::Hash(fields) => {
                let mut got: Vec<_> =
                    self.ask(&[b"HGETALL", key]).strings().chunks(2).map(<[_]>::to_vec).collect();
                let mut want: Vec<_> =
                    fields.iter().map(|(field, value, _)| vec![field.clone(), value.clone()]).collect();
                got.sort();
                want.sort();
                assert!(got == want);
                assert_eq!(self.ask(&[b"HGET", key, &want[0][0]]).bytes(), want[0][1]);
            }
            Value::ZSet(members) => {
                let got = self.ask(&[b"ZRANGE", key, all[0], all[1], b"WITHSCORES"]).strings();
                let got = got.chunks(2).map(|pair| {
                    let score: f64 = String::from_utf8_lossy(&pair[1]).parse().expect("a score");
                    (pair[0].clone(), score)
                });
                let got: Vec<_> = got.collect();
                let mut want = members.clone();
                want.sort_by(|a, b| a.1.partial_cmp(&b.1).expect("no NaN").then_with(|| a.0.cmp(&b.0)));
                assert!(got == want, "{got:?}\n{want:?}");
                let (member, _) = &want[want.len() / 2];
                assert_eq!(self.ask(&[b"ZRANK", key, member]), Reply::Int(want.len() as i64 / 2));
            }
            Value::Stream(stream) => {
                let got = self.ask(&[b"XRANGE", key, b"-", b"+"]).list();
                assert_eq!(got.len(), stream.entries.len());
                for (got, (id, fields)) in got.into_iter().zip(stream.entries.iter()) {
                    let mut got = got.list().into_iter();
                    assert_eq!(got.next().expect("an id").bytes(), id.to_string().as_bytes());
                    let flat: Vec<_> =
                        fields.iter().flat_map(|(field, value)| [field.to_vec(), value.to_vec()]).collect();
                    assert!(got.next().expect("fields").strings() == flat);
                }
                assert_eq!(self.ask(&[b"XLEN", key]), Reply::Int(stream.meta.length as i64));
                for group in &stream.groups {
                    let summary = self.ask(&[b"XPENDING", key, &group.name]).list();
                    assert_eq!(summary[0], Reply::Int(group.pending.len() as i64));
                    for consumer in &group.consumers {
                        let mine =
                            self.ask(&[b"XPENDING", key, &group.name, b"-", b"+", b"1000", &consumer.name]);
                        let mine: Vec<_> = mine
                            .list()
                            .into_iter()
                            .map(|entry| entry.list().swap_remove(0).bytes())
                            .collect();
                        let want: Vec<_> =
                            consumer.claimed.iter().map(|id| id.to_string().into_bytes()).collect();
                        assert_eq!(mine, want);
                    }
                }
            }
            other => panic!("{other:?} is not for Redis"),
        }
    }
}

/// Values that Redis has, of sizes around its thresholds.
fn values() -> Vec<Value> {
    let mut random = Random::new(301);
    let mut values = Vec::new();
    let word = |random: &mut Random, len: u64| match random.below(3) {
        0 => (random.next() as i64 >> random.below(64)).to_string().into_bytes(),
        1 => {
            let len = random.below(len) as usize;
            random.bytes(len)
        }
        _ => {
            b"lorem ipsum dolor sit amet ".iter().copied().cycle().take(random.below(len) as usize).collect()
        }
    };
    for count in [1usize, 2, 100, 128, 129, 512, 513, 2000] {
        for len in [12, 64, 66, 9000] {
            if count * len > 5_000_000 {
                continue;
            }
            let names: Vec<Vec<u8>> = (0..count)
                .map(|n| [n.to_string().into_bytes(), b"-".to_vec(), word(&mut random, len as u64)].concat())
                .collect();
            values.push(Value::String(word(&mut random, 50_000)));
            values.push(Value::List((0..count).map(|_| word(&mut random, len as u64)).collect()));
            values.push(Value::Set(names.iter().map(|name| (name.clone(), None)).collect()));
            let spread = random.below(60);
            let mut integers: Vec<i64> = (0..count).map(|_| random.next() as i64 >> spread).collect();
            integers.sort_unstable();
            integers.dedup();
            values.push(Value::Set(integers.iter().map(|n| (n.to_string().into_bytes(), None)).collect()));
            let fields =
                names.iter().map(|name| (name.clone(), word(&mut random, len as u64), None)).collect();
            values.push(Value::Hash(fields));
            let mut scored: Vec<(Vec<u8>, f64)> = names
                .iter()
                .map(|name| {
                    let score = match random.below(6) {
                        0 => f64::INFINITY,
                        1 => f64::NEG_INFINITY,
                        2 => random.below(1000) as f64 / 8.0,
                        3 => random.below(1 << 60) as f64,
                        _ => Some(f64::from_bits(random.next()))
                            .filter(|score| !score.is_nan())
                            .unwrap_or(-0.5),
                    };
                    (name.clone(), score)
                })
                .collect();
            scored.sort_by(|a, b| a.1.partial_cmp(&b.1).expect("no NaN").then_with(|| a.0.cmp(&b.0)));
            values.push(Value::ZSet(scored));
        }
    }
    let recorded = read_file(&std::fs::read(fixtures().join("redis-7.2.5-rdb/dump.rdb")).expect("readable"));
    let recorded = recorded.expect("well formed").keys.into_values().map(|(_, value)| value);
    values.extend(recorded.filter(|value| matches!(value, Value::Stream(_))));
    values
}

/// RESTORE takes every payload, and the contents are right; DUMP of what was restored decodes to the same value.
#[test]
fn redis_restores_our_payloads() {
    let Some(mut redis) = Redis::start("restore", None) else { return };
    let mut encoder = Encoder::new(Target::Dump);
    for (number, value) in values().into_iter().enumerate() {
        let key = format!("key:{number}").into_bytes();
        let mut payload = Vec::new();
        dump::value(&mut encoder, &value, &mut payload);
        let reply = redis.ask(&[b"RESTORE", &key, b"0", &payload]);
        assert_eq!(reply, Reply::Text(b"OK".to_vec()), "{number}: type {}", payload[0]);
        redis.holds(&key, &value);
        let dumped = redis.ask(&[b"DUMP", &key]).bytes();
        let back = dump::decode_value(&dumped).expect("Redis' own payload");
        let mut again = Vec::new();
        dump::value(&mut encoder, &back, &mut again);
        assert_eq!(redis.ask(&[b"RESTORE", b"again", b"0", &again, b"REPLACE"]), Reply::Text(b"OK".to_vec()));
        redis.holds(b"again", &value);
    }
}

/// DUMP of a string is the same bytes whoever makes it.
#[test]
fn string_payloads_are_identical() {
    let Some(mut redis) = Redis::start("identical", None) else { return };
    let mut random = Random::new(302);
    let mut encoder = Encoder::new(Target::Dump);
    let (mut compressed, rounds) = (0, 3000);
    for round in 0..rounds {
        let len = random.below([24, 40, 300, 20_000][round % 4]) as usize;
        let alphabet = [1, 2, 3, 10, 30, 256][random.below(6) as usize];
        let mut string: Vec<u8> = (0..len).map(|_| b'0'.wrapping_add(random.below(alphabet) as u8)).collect();
        // Repeats of earlier parts, which is what compressors look for.
        for _ in 0..random.below(5) {
            let at = random.below(string.len() as u64 + 1) as usize;
            let copied = string[at..].iter().copied().take(random.below(400) as usize).collect::<Vec<u8>>();
            string.extend_from_slice(&copied);
        }
        redis.ask(&[b"SET", b"k", &string]);
        let theirs = redis.ask(&[b"DUMP", b"k"]).bytes();
        let mut ours = Vec::new();
        dump::string(&mut encoder, &string, &mut ours);
        assert!(ours == theirs, "{:?}\n{ours:?}\n{theirs:?}", String::from_utf8_lossy(&string));
        compressed += usize::from(ours[1] == 0xc3);
    }
    assert!(compressed > rounds / 4, "{compressed}");
}

/// A file of ours passes redis-check-rdb, loads, and holds everything, deadlines included.
#[test]
fn redis_loads_our_file() {
    let options = FileOptions {
        target: Target::Redis7_0,
        compression: Compression::None,
        chunk_len_max: 0,
        checksum: false,
    };
    let mut file = FileWriter::new(options);
    file.aux(b"redis-ver", b"7.0.15");
    file.aux(b"redis-bits", b"64");
    file.aux(b"ctime", b"1700000000");
    file.aux(b"used-mem", b"1000000");
    file.function(b"#!lua name=ours\nredis.register_function('f', function() return 1 end)\n");
    let values = values();
    const DUE: u64 = 4_000_000_000_123;
    for (number, value) in values.iter().enumerate() {
        let db = if number % 10 == 0 { 7 } else { 0 };
        let meta = Meta { expire_at_ms: (number % 3 == 0).then_some(DUE), ..Meta::default() };
        file.value(db, &meta, format!("key:{number}").as_bytes(), value);
    }
    file.eof();
    let mut bytes = Vec::new();
    file.take(&mut bytes);
    check_rdb(&bytes);
    let Some(mut redis) = Redis::start("load", Some(&bytes)) else { return };
    for (number, value) in values.iter().enumerate() {
        redis.ask(&[b"SELECT", if number % 10 == 0 { b"7" } else { b"0" }]);
        let key = format!("key:{number}").into_bytes();
        redis.holds(&key, value);
        let due = if number % 3 == 0 { DUE as i64 } else { -1 };
        assert_eq!(redis.ask(&[b"PEXPIRETIME", &key]), Reply::Int(due));
    }
    assert_eq!(redis.ask(&[b"FCALL", b"f", b"0"]), Reply::Int(1));
}

fn check_rdb(bytes: &[u8]) {
    let path = std::env::temp_dir().join(format!("damselfly-rdb-check-{}.rdb", std::process::id()));
    std::fs::write(&path, bytes).expect("room for a file");
    let output = Command::new("redis-check-rdb").arg(Path::new(&path)).output();
    let _ = std::fs::remove_file(&path);
    let Ok(output) = output else {
        eprintln!("SKIPPED: redis-check-rdb is not installed");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("Checksum OK") && text.contains("RDB looks OK"),
        "{text}"
    );
}

/// A group's ids survive at the edges of their range.
#[test]
fn stream_edges() {
    let Some(mut redis) = Redis::start("edges", None) else { return };
    let last = StreamId { ms: u64::MAX, seq: u64::MAX };
    let first = StreamId { ms: 0, seq: 1 };
    let mut entries = damselfly_rdb::Entries::default();
    entries.push(first, [(&b"f"[..], &b"1"[..])]);
    entries.push(last, [(&b"f"[..], &b"2"[..])]);
    let stream = damselfly_rdb::StreamValue {
        entries,
        meta: damselfly_rdb::StreamMeta {
            length: 2,
            last_id: last,
            first_id: first,
            entries_added: 2,
            ..Default::default()
        },
        groups: vec![],
    };
    let mut payload = Vec::new();
    dump::value(&mut Encoder::new(Target::Dump), &Value::Stream(stream.clone()), &mut payload);
    assert_eq!(redis.ask(&[b"RESTORE", b"s", b"0", &payload]), Reply::Text(b"OK".to_vec()));
    redis.holds(b"s", &Value::Stream(stream));
}
