//! Random sessions with streams, positions and bits, played on Redis and on our server side by side: every reply must
//! be the same. Scripts show that each option works; this shows that options, limits and states work together.
//!
//! A session follows from its seed. `DAMSELFLY_SEED=7 cargo test --test random` plays another one, and what a
//! failure prints is enough to play it again.

use std::env;
use std::fmt::Write;

use damselfly_tests::executor::{Executor, Tcp};
use damselfly_tests::reply::{Protocol, Reply};
use damselfly_tests::servers::{Kind, Server};

/// Commands per session.
const STEPS: usize = 1_500;

/// Lines shown before the one that went wrong.
const SHOWN: usize = 30;

/// Times above this are of the present, and no two servers have the same.
const PRESENT_MS: i64 = 1_600_000_000_000;

/// xorshift64*
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16) % bound
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len() as u64) as usize]
    }

    /// Some of these words, each with one chance in `rarity`.
    fn some(&mut self, line: &mut String, words: &[&str], rarity: u64) {
        for word in words {
            if self.below(rarity) == 0 {
                write!(line, " {word}").expect("memory");
            }
        }
    }
}

/// Makes the lines of a session of streams. Ids are small, so that they meet; nodes are small, so that there are
/// many.
struct Streams {
    random: Random,
    next: u64,
}

impl Streams {
    fn key(&mut self) -> &'static str {
        self.random.pick(&["a", "b", "c", "a", "b", "wrong", "other"])
    }

    fn group(&mut self) -> &'static str {
        self.random.pick(&["g", "h", "g", "h", "i"])
    }

    fn consumer(&mut self) -> &'static str {
        self.random.pick(&["alice", "bob", "carol"])
    }

    fn id(&mut self) -> String {
        match self.random.below(12) {
            0 => String::from("0"),
            1 => String::from("18446744073709551615-18446744073709551615"),
            2 => self.random.pick(&["abc", "-", "+", "$", "1-", "-1", "5-x", "01-2"]).to_owned(),
            3..6 => self.random.below(self.next + 2).to_string(),
            _ => {
                let back = self.random.below(30);
                format!("{}-{}", self.next.saturating_sub(back), self.random.below(4))
            }
        }
    }

    /// Never the highest: a stream that ends with it takes no more entries, and when XSETID sets its last id back
    /// below a deleted entry, the nodes are no longer those of Redis.
    fn id_below_max(&mut self) -> String {
        let id = self.id();
        if id.len() > 30 { String::from("0-1") } else { id }
    }

    fn ids(&mut self) -> String {
        let count = 1 + self.random.below(5);
        (0..count).map(|_| self.id()).collect::<Vec<_>>().join(" ")
    }

    fn edge(&mut self) -> String {
        match self.random.below(5) {
            0 => String::from("-"),
            1 => String::from("+"),
            2 => format!("({}", self.id()),
            _ => self.id(),
        }
    }

    fn trimming(&mut self) -> String {
        let sign = self.random.pick(&["", "=", "~", "~"]);
        let mut line = if self.random.below(2) == 0 {
            format!("MAXLEN {sign} {}", self.random.below(60))
        } else {
            format!("MINID {sign} {}", self.next.saturating_sub(self.random.below(40)))
        };
        if self.random.below(4) == 0 {
            write!(line, " LIMIT {}", self.random.below(40)).expect("memory");
        }
        line
    }

    fn add(&mut self) -> String {
        let mut line = format!("XADD {} ", self.key());
        self.random.some(&mut line, &["NOMKSTREAM "], 10);
        if self.random.below(6) == 0 {
            line += &self.trimming();
            line.push(' ');
        }
        self.next += self.random.below(3);
        let (ms, seq) = (self.next, self.random.below(3));
        match self.random.below(4) {
            0 => write!(line, " {ms}-*"),
            1 => write!(line, " {}", self.id_below_max()),
            _ => write!(line, " {ms}-{seq}"),
        }
        .expect("memory");
        let long = "x".repeat(self.random.below(90) as usize);
        for at in 0..1 + self.random.below(3) {
            let name = self.random.pick(&["f", "f", "f", "name"]);
            let value = match self.random.below(4) {
                0 => format!("v{long}"),
                1 => format!("-{}", self.random.below(1 << 40)),
                2 => format!("0{}", self.random.below(100)),
                _ => self.random.below(1000).to_string(),
            };
            write!(line, " {name}{at} {value}").expect("memory");
        }
        line
    }

    fn read(&mut self, of_group: bool) -> String {
        let mut line = String::from("XREAD");
        if of_group {
            write!(line, "GROUP GROUP {} {}", self.group(), self.consumer()).expect("memory");
            self.random.some(&mut line, &["NOACK"], 8);
        }
        self.random.some(&mut line, &["COUNT 3", "COUNT 0", "COUNT 1"], 3);
        let count = 1 + self.random.below(3) as usize;
        line += " STREAMS";
        for _ in 0..count {
            write!(line, " {}", self.random.pick(&["a", "b", "c"])).expect("memory");
        }
        for _ in 0..count {
            let id = match self.random.below(4) {
                // `+` is of later versions.
                0..2 if of_group => String::from(">"),
                0 => String::from("$"),
                _ => Some(self.id()).filter(|id| id != "+").unwrap_or_default(),
            };
            write!(line, " {id}").expect("memory");
        }
        line
    }

    fn claim(&mut self) -> String {
        let (key, group, consumer) = (self.key(), self.group(), self.consumer());
        let idle = self.random.pick(&["0", "0", "1000000", "-5", "x"]);
        if self.random.below(3) == 0 {
            let mut line = format!("XAUTOCLAIM {key} {group} {consumer} {idle} {}", self.edge());
            self.random.some(&mut line, &["JUSTID", "COUNT 2", "COUNT 0"], 3);
            return line;
        }
        let mut line = format!("XCLAIM {key} {group} {consumer} {idle} {}", self.ids());
        let last = format!("LASTID {}", self.id());
        let options = ["FORCE", "JUSTID", "IDLE 5000000", "TIME 1000", "RETRYCOUNT 7", "TIME -1", &last];
        self.random.some(&mut line, &options, 5);
        line
    }

    fn group_line(&mut self) -> String {
        let (key, group, consumer) = (self.key(), self.group(), self.consumer());
        let mut line = match self.random.below(10) {
            0..4 => format!("XGROUP CREATE {key} {group} {}", self.id()),
            4 => format!("XGROUP CREATECONSUMER {key} {group} {consumer}"),
            5 => format!("XGROUP DELCONSUMER {key} {group} {consumer}"),
            6 => format!("XGROUP DESTROY {key} {group}"),
            _ => format!("XGROUP SETID {key} {group} {}", self.id()),
        };
        if line.contains("CREATE ") || line.contains("SETID") {
            self.random.some(
                &mut line,
                &["MKSTREAM", "ENTRIESREAD 3", "ENTRIESREAD -1", "ENTRIESREAD -2"],
                6,
            );
        }
        line
    }

    fn pending(&mut self) -> String {
        let mut line = format!("XPENDING {} {}", self.key(), self.group());
        if self.random.below(3) > 0 {
            self.random.some(&mut line, &["IDLE 0", "IDLE 1000000"], 4);
            let count = self.random.pick(&["10", "2", "0", "-1", "x"]);
            write!(line, " {} {} {count}", self.edge(), self.edge()).expect("memory");
            let consumer = self.consumer();
            self.random.some(&mut line, &[consumer], 3);
        }
        line
    }

    fn line(&mut self) -> String {
        match self.random.below(100) {
            0..30 => self.add(),
            30..34 => format!("XTRIM {} {}", self.key(), self.trimming()),
            34..40 => format!("XDEL {} {}", self.key(), self.ids()),
            40..46 => format!("XRANGE {} {} {}", self.key(), self.edge(), self.edge()),
            46..50 => format!(
                "XREVRANGE {} {} {} COUNT {}",
                self.key(),
                self.edge(),
                self.edge(),
                self.random.below(5)
            ),
            50..53 => self.read(false),
            53..65 => self.read(true),
            65..69 => format!("XACK {} {} {}", self.key(), self.group(), self.ids()),
            69..74 => self.pending(),
            74..82 => self.claim(),
            82..88 => self.group_line(),
            88..91 => format!("XINFO STREAM {} FULL COUNT {}", self.key(), self.random.below(4)),
            91..93 => format!("XINFO STREAM {}", self.key()),
            93..95 => format!("XINFO GROUPS {}", self.key()),
            95 => format!("XINFO CONSUMERS {} {}", self.key(), self.group()),
            96 => format!("XLEN {}", self.key()),
            97..99 => {
                let key = self.random.pick(&["a", "b", "c", "other"]);
                let id = match self.random.below(4) {
                    0 => self.random.pick(&["0", "1-", "abc", "$", "01-2"]).to_owned(),
                    _ => format!("{}-{}", self.next + self.random.below(3), self.random.below(3)),
                };
                let deleted = format!("MAXDELETEDID {}", self.id());
                let mut line = format!("XSETID {key} {id}");
                self.random.some(&mut line, &["ENTRIESADDED 1000", "ENTRIESADDED 3", &deleted], 3);
                line
            }
            _ => match self.random.below(12) {
                0 => String::from("DEL a"),
                1 => String::from("DEL b"),
                2 => String::from("RENAME a c"),
                3 => String::from("COPY b c REPLACE"),
                4 => String::from("OBJECT ENCODING a"),
                _ => String::from("DEBUG DIGEST"),
            },
        }
    }
}

/// Makes the lines of a session of positions: some near each other, some near the poles and the date line.
struct Positions {
    random: Random,
}

impl Positions {
    fn key(&mut self) -> &'static str {
        self.random.pick(&["near", "near", "far", "far", "stored", "wrong", "missing"])
    }

    fn point(&mut self) -> String {
        let micro =
            |random: &mut Random, limit: u64| random.below(2 * limit * 1_000_000) as f64 / 1e6 - limit as f64;
        match self.random.below(20) {
            0 => self.random.pick(&["181 0", "x 0", "0 86", "0 nan"]).to_owned(),
            1..4 => format!("179.9{:05} 85.0{:05}", self.random.below(100_000), self.random.below(51_000)),
            4..10 => format!("{} {}", micro(&mut self.random, 180), micro(&mut self.random, 85)),
            _ => format!("15.{:05} 37.{:05}", self.random.below(100_000), self.random.below(100_000)),
        }
    }

    fn member(&mut self) -> String {
        format!("m{}", self.random.below(400))
    }

    fn size(&mut self) -> String {
        let size = match self.random.below(6) {
            0 => format!("{}", self.random.below(30_000)),
            1 => format!("{}.5", self.random.below(50)),
            2 => self.random.pick(&["0", "-1", "x", "1e3"]).to_owned(),
            _ => format!("{}", self.random.below(300)),
        };
        let unit = self.random.pick(&["km", "km", "mi", "m", "ft", "KM", "ly"]);
        format!("{size} {unit}")
    }

    fn options(&mut self, line: &mut String) {
        // No two points are one, so that there is one order only.
        self.random.some(line, &["ASC", "DESC"], 3);
        self.random.some(line, &["WITHCOORD", "WITHDIST", "WITHHASH", "COUNT 3", "COUNT 20 ANY", "ANY"], 5);
    }

    fn line(&mut self) -> String {
        let (key, size) = (self.key(), self.size());
        let mut line = match self.random.below(20) {
            0..7 => {
                let mut line = format!("GEOADD {}", self.random.pick(&["near", "far"]));
                self.random.some(&mut line, &["NX", "XX", "CH"], 5);
                for _ in 0..1 + self.random.below(5) {
                    write!(line, " {} {}", self.point(), self.member()).expect("memory");
                }
                return line;
            }
            7 => return format!("GEOPOS {key} {} {}", self.member(), self.member()),
            8 => return format!("GEOHASH {key} {} {}", self.member(), self.member()),
            9 => {
                return format!(
                    "GEODIST {key} {} {} {}",
                    self.member(),
                    self.member(),
                    self.random.pick(&["", "km", "ly"])
                );
            }
            10..14 => format!("GEOSEARCH {key} FROMLONLAT {} BYRADIUS {size}", self.point()),
            14 => format!(
                "GEOSEARCH {key} FROMMEMBER {} BYBOX {} {size}",
                self.member(),
                self.random.below(900)
            ),
            15 => {
                format!("GEOSEARCH {key} BYBOX {} {size} FROMLONLAT {}", self.random.below(900), self.point())
            }
            16 => format!("GEORADIUS {key} {} {size}", self.point()),
            17 => format!("GEORADIUSBYMEMBER {key} {} {size}", self.member()),
            18 => {
                let mut line =
                    format!("GEOSEARCHSTORE stored {key} FROMLONLAT {} BYRADIUS {size}", self.point());
                self.random.some(&mut line, &["STOREDIST", "COUNT 5"], 3);
                return line;
            }
            _ => {
                return String::from(self.random.pick(&[
                    "ZRANGE stored 0 -1 WITHSCORES",
                    "DEBUG DIGEST",
                    "ZCARD near",
                ]));
            }
        };
        self.options(&mut line);
        if line.starts_with("GEORADIUS") {
            self.random.some(&mut line, &["STORE stored", "STOREDIST stored"], 8);
        }
        line
    }
}

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

fn call(server: &mut Tcp, line: &str) -> Reply {
    let words: Vec<Vec<u8>> = line.split_whitespace().map(|word| word.as_bytes().to_vec()).collect();
    server.call("A", &words).unwrap_or_else(|error| panic!("{line}: {error}"))
}

/// Makes the lines of a session of bitmaps: few keys of very different lengths, combined with each other.
struct Bits {
    random: Random,
}

impl Bits {
    const KEYS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "missing"];

    fn key(&mut self) -> &'static str {
        if self.random.below(40) == 0 { "wrong" } else { self.random.pick(&Self::KEYS) }
    }

    fn bit(&mut self) -> u64 {
        let below = self.random.pick(&["8", "100", "3000", "70000"]);
        self.random.below(below.parse().expect("a number"))
    }

    fn line(&mut self) -> String {
        let key = self.key();
        match self.random.below(12) {
            0..3 => format!("SETBIT {key} {} {}", self.bit(), self.random.below(2)),
            3..7 => {
                let operation = self.random.pick(&["AND", "OR", "XOR", "NOT", "and"]);
                let sources = if operation == "NOT" { 1 } else { 1 + self.random.below(5) };
                let sources: Vec<&str> = (0..sources).map(|_| self.key()).collect();
                format!("BITOP {operation} {key} {}", sources.join(" "))
            }
            7 => format!("BITCOUNT {key}"),
            8 => format!("BITPOS {key} {}", self.random.below(2)),
            9 => format!("STRLEN {key}"),
            10 => format!("SETRANGE {key} {} abcdefgh", self.bit() / 8),
            _ => self.random.pick(&["DEL a", "DEL missing", "SET b 12", "DEBUG DIGEST"]).to_owned(),
        }
    }
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
            let mut streams = Streams { random: Random(seed), next: 1 };
            Box::new(move || streams.line())
        });
    }
}

/// Positions in all corners.
#[test]
fn positions() {
    play("positions", 2, &[], |seed| {
        let mut positions = Positions { random: Random(seed) };
        Box::new(move || positions.line())
    });
}

/// Strings combined bit by bit, on one shard and over several.
#[test]
fn bits() {
    for threads in [1, 4] {
        play("bits", threads, &[], |seed| {
            let mut bits = Bits { random: Random(seed) };
            Box::new(move || bits.line())
        });
    }
}
