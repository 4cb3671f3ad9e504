//! Random sessions, played on Redis and on our server side by side: every reply must be the same. Scripts show that
//! each option works; this shows that options, limits and states work together.
//!
//! A session follows from its seed. `DAMSELFLY_SEED=7 cargo test --test random` plays another one, and what a
//! failure prints is enough to play it again. `DAMSELFLY_COMMANDS=1000000` makes the sessions over all types longer
//! than they are in everyday tests; with `DAMSELFLY_BATCH=1` they look at all keys behind each command.

mod bits;
mod mixed;
mod positions;
mod streams;
mod waiters;

use std::env;
use std::fmt::Write;

use bits::Bits;
use damselfly_tests::executor::{Executor, Tcp};
use damselfly_tests::random::{Random, setting};
use damselfly_tests::reply::{Protocol, Reply};
use damselfly_tests::servers::{Kind, Server};
use mixed::Mixed;
use positions::Positions;
use streams::Streams;
use waiters::Scene;

/// Commands per session.
const STEPS: usize = 1_500;

/// Commands of the session over all types, and how many are sent at once.
const MIXED_STEPS: u64 = 6_000;
const MIXED_BATCH: u64 = 100;

/// Scenes of clients that wait.
const SCENES: u64 = 400;

/// Lines shown before the one that went wrong.
const SHOWN: usize = 30;

/// Times above this are of the present, and no two servers have the same.
const PRESENT_MS: i64 = 1_600_000_000_000;

/// Hides what two servers never have in common: idle times and times of the present.
fn hide_times(command: &str, reply: Reply) -> Reply {
    match reply {
        Reply::Int(number) if number > PRESENT_MS && command.starts_with("XINFO") => Reply::Int(PRESENT_MS),
        Reply::Array(mut elements) => {
            if command.starts_with("XPENDING") && elements.len() == 4 && matches!(elements[2], Reply::Int(_))
            {
                elements[2] = Reply::Int(0);
            }
            let idle = elements.iter().position(|name| name.text() == Some(b"idle"));
            if let Some(idle) = idle.filter(|_| command.starts_with("XINFO CONSUMERS")) {
                elements[idle + 1] = Reply::Int(0);
            }
            Reply::Array(elements.into_iter().map(|element| hide_times(command, element)).collect())
        }
        other => other,
    }
}

/// The smallest parts in which two replies differ, and where they are: places in arrays, with what is before them.
fn first_difference<'a>(one: &'a Reply, other: &'a Reply, path: &mut String) -> (&'a Reply, &'a Reply) {
    if let (Reply::Array(ones), Reply::Array(others)) = (one, other) {
        let differs = (0..ones.len().min(others.len())).find(|&at| ones[at] != others[at]);
        if let Some(at) = differs.filter(|_| ones.len() == others.len()) {
            let name = at.checked_sub(1).and_then(|before| ones[before].text()).unwrap_or_default();
            write!(path, "/{at} {}", name.escape_ascii()).expect("memory");
            return first_difference(&ones[at], &others[at], path);
        }
    }
    (one, other)
}

/// A command by its words.
type Line = Vec<String>;

fn line_of(text: &str) -> Line {
    text.split_whitespace().map(str::to_owned).collect()
}

fn words_of(line: &Line) -> Vec<Vec<u8>> {
    line.iter().map(|word| word.clone().into_bytes()).collect()
}

fn call_as(server: &mut Tcp, client: &str, line: &str) -> Reply {
    server.call(client, &words_of(&line_of(line))).unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn call(server: &mut Tcp, line: &str) -> Reply {
    call_as(server, "A", line)
}

/// Plays a session on Redis and on us.
fn play(
    name: &str,
    threads: usize,
    settings: &[&str],
    mut next: impl FnMut(u64) -> Box<dyn FnMut() -> String>,
) {
    let servers = [Kind::Redis, Kind::Damselfly { threads }]
        .map(|kind| Server::start(kind, &[]).unwrap_or_else(|error| panic!("{error}")));
    let [mut redis, mut ours] = servers.each_ref().map(|server| Tcp::new(server.address(), Protocol::Resp2));
    let seeds: Vec<u64> = match env::var("DAMSELFLY_SEED") {
        Ok(seed) => vec![seed.parse().expect("DAMSELFLY_SEED is a number")],
        Err(_) => vec![1, 2],
    };
    for seed in seeds {
        let mut line = next(seed);
        let begin = ["FLUSHALL", "SET wrong value"];
        for line in begin.iter().chain(settings) {
            assert_eq!(call(&mut redis, line), call(&mut ours, line), "{line}");
        }
        let mut played = Vec::new();
        for _ in 0..STEPS {
            let line = line();
            let [theirs, mine] = [&mut redis, &mut ours].map(|server| hide_times(&line, call(server, &line)));
            played.push(line);
            if theirs != mine {
                let shown = played[played.len().saturating_sub(SHOWN)..].join("\n");
                let mut path = String::new();
                let (theirs, mine) = first_difference(&theirs, &mine, &mut path);
                panic!(
                    "{name}, seed {seed}, {threads} threads\n{shown}\nat {path}\nredis: {theirs}\nours:  {mine}"
                );
            }
        }
    }
}

/// Streams in nodes of a few entries, on one shard and on several.
#[test]
fn streams() {
    for (threads, entries) in [(1, 3), (3, 100)] {
        let setting = format!("CONFIG SET stream-node-max-entries {entries}");
        play("streams", threads, &[&setting], |seed| {
            let mut streams = Streams { random: Random::new(seed), next: 1 };
            Box::new(move || streams.line())
        });
    }
}

/// Positions in all corners.
#[test]
fn positions() {
    play("positions", 2, &[], |seed| {
        let mut positions = Positions { random: Random::new(seed) };
        Box::new(move || positions.line())
    });
}

/// Strings combined bit by bit, on one shard and over several.
#[test]
fn bits() {
    for threads in [1, 4] {
        play("bits", threads, &[], |seed| {
            let mut bits = Bits { random: Random::new(seed) };
            Box::new(move || bits.line())
        });
    }
}

/// Brings what has no order into one.
fn ordered(line: &Line, reply: Reply) -> Reply {
    let Reply::Array(mut elements) = reply else { return reply };
    match line[0].as_str() {
        "SMEMBERS" | "SINTER" | "SUNION" | "SDIFF" | "HKEYS" | "HVALS" | "SPOP" | "SRANDMEMBER" | "KEYS" => {
            elements.sort()
        }
        "HGETALL" => elements = sorted_pairs(elements),
        "SSCAN" | "HSCAN" | "ZSCAN" => {
            if let Some(Reply::Array(found)) = elements.pop() {
                let found = if line[0] == "SSCAN" {
                    sorted_pairs(found.into_iter().flat_map(|one| [one, Reply::Null]).collect())
                } else {
                    sorted_pairs(found)
                };
                elements.push(Reply::Array(found));
            }
        }
        _ => {}
    }
    Reply::Array(elements)
}

fn sorted_pairs(elements: Vec<Reply>) -> Vec<Reply> {
    let mut pairs: Vec<&[Reply]> = elements.chunks(2).collect();
    pairs.sort();
    pairs.concat()
}

/// Sends lines in one go; their replies.
fn call_all(server: &mut Tcp, lines: &[Line]) -> Vec<Reply> {
    for line in lines {
        server.send("A", &words_of(line)).unwrap_or_else(|error| panic!("{line:?}: {error}"));
    }
    lines
        .iter()
        .map(|line| {
            let reply = server.receive("A").unwrap_or_else(|error| panic!("{line:?}: {error}"));
            hide_times(&line.join(" "), ordered(line, reply))
        })
        .collect()
}

/// What shows the contents of a key.
fn readers(key: &str, kind: &Reply) -> Vec<Line> {
    let texts: &[&str] = match kind {
        Reply::Simple(kind) => match kind.as_slice() {
            b"string" => &["GET"],
            b"list" => &["LRANGE 0 -1", "LLEN"],
            b"hash" => &["HGETALL", "HLEN"],
            b"set" => &["SMEMBERS", "SCARD"],
            b"zset" => &["ZRANGE 0 -1 WITHSCORES", "ZCARD"],
            b"stream" => &["XRANGE - +"],
            b"none" => &["EXISTS"],
            other => panic!("{key} is a {}", other.escape_ascii()),
        },
        other => panic!("{key}: {other}"),
    };
    let mut lines: Vec<Line> = texts
        .iter()
        .chain(&["PEXPIRETIME", "DEBUG DIGEST-VALUE"])
        .map(|text| {
            let mut line = line_of(text);
            line.insert(if line[0] == "DEBUG" { 2 } else { 1 }, key.to_owned());
            line
        })
        .collect();
    if kind == &Reply::Simple(b"stream".to_vec()) {
        lines.push(["XINFO", "STREAM", key, "FULL"].map(str::to_owned).to_vec());
    }
    lines
}

/// Whoever waits for data of transactions and scripts gets the same from us, on one shard and on several, as from Redis.
#[test]
fn waiters() {
    for threads in [1, 4] {
        let servers = [Kind::Redis, Kind::Damselfly { threads }]
            .map(|kind| Server::start(kind, &[]).unwrap_or_else(|error| panic!("{error}")));
        let [mut redis, mut ours] =
            servers.each_ref().map(|server| Tcp::new(server.address(), Protocol::Resp2));
        let seed = setting("DAMSELFLY_SEED", 1);
        let mut random = Random::new(seed);
        for number in 0..setting("DAMSELFLY_COMMANDS", SCENES) {
            let scene = Scene::new(&mut random);
            let [theirs, mine] = [&mut redis, &mut ours].map(|server| scene.play(server));
            let show =
                |replies: &[Reply]| replies.iter().map(|reply| format!("{reply}\n")).collect::<String>();
            assert!(
                theirs == mine,
                "seed {seed}, scene {number}, {threads} threads\n{}\nredis:\n{}ours:\n{}",
                scene.show(),
                show(&theirs),
                show(&mine)
            );
        }
    }
}

/// Every type on four shards, in pipelines; behind each pipeline all keys are compared, type by type.
#[test]
fn all_types() {
    let seed = setting("DAMSELFLY_SEED", 1);
    let steps = setting("DAMSELFLY_COMMANDS", MIXED_STEPS) as usize;
    let batch = setting("DAMSELFLY_BATCH", MIXED_BATCH) as usize;
    println!("seed {seed}, {steps} commands");
    let servers = [Kind::Redis, Kind::Damselfly { threads: 4 }]
        .map(|kind| Server::start(kind, &[]).unwrap_or_else(|error| panic!("{error}")));
    let [mut redis, mut ours] = servers.each_ref().map(|server| Tcp::new(server.address(), Protocol::Resp2));
    let keys: Vec<String> = mixed::keys().collect();
    let types: Vec<Line> = keys.iter().map(|key| vec!["TYPE".to_owned(), key.clone()]).collect();
    let mut mixed = Mixed::new(seed);
    let mut done = 0;
    while done < steps {
        let lines: Vec<Line> = (0..batch).map(|_| mixed.line()).collect();
        compare(&lines, &call_all(&mut redis, &lines), &call_all(&mut ours, &lines), seed, done, &lines);
        done += batch;
        // MOVE brings keys to the second database.
        for db in ["1", "0"] {
            let select = [line_of("SELECT"), vec![db.to_owned()]].concat();
            let mut asked = vec![select];
            asked.extend(types.iter().cloned());
            let kinds = call_all(&mut redis, &asked);
            compare(&asked, &kinds, &call_all(&mut ours, &asked), seed, done, &lines);
            let mut all: Vec<Line> =
                keys.iter().zip(&kinds[1..]).flat_map(|(key, kind)| readers(key, kind)).collect();
            all.extend([line_of("DBSIZE"), line_of("KEYS *")]);
            compare(&all, &call_all(&mut redis, &all), &call_all(&mut ours, &all), seed, done, &lines);
        }
        let digest = [line_of("DEBUG DIGEST")];
        compare(&digest, &call_all(&mut redis, &digest), &call_all(&mut ours, &digest), seed, done, &lines);
    }
}

/// Fails at the first difference, with the lines of the batch that name one of the keys concerned.
fn compare(asked: &[Line], theirs: &[Reply], mine: &[Reply], seed: u64, done: usize, batch: &[Line]) {
    for (at, line) in asked.iter().enumerate() {
        if theirs[at] == mine[at] {
            continue;
        }
        let related: Vec<String> = batch[..if asked == batch { at + 1 } else { batch.len() }]
            .iter()
            .filter(|other| other.iter().skip(1).any(|word| line.iter().skip(1).any(|mine| mine == word)))
            .map(|line| format!("{line:?}"))
            .collect();
        let mut path = String::new();
        let (theirs, mine) = first_difference(&theirs[at], &mine[at], &mut path);
        panic!(
            "seed {seed}, command {}\n{}\n{line:?}\nat {path}\nredis: {theirs}\nours:  {mine}",
            done + at,
            related.join("\n")
        );
    }
}
