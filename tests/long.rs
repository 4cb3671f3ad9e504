//! Long replies: written in pieces as the client takes them, in their place among the other replies, and as the
//! collection was when the command ran.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use damselfly_tests::executor::{Executor, Tcp, encode};
use damselfly_tests::reply::{self, Protocol, Reply};
use damselfly_tests::servers::{Kind, Server};

fn start(threads: usize) -> (Server, Tcp) {
    let server = Server::start(Kind::Damselfly { threads }, &[]).unwrap_or_else(|error| panic!("{error}"));
    let clients = Tcp::new(server.address(), Protocol::Resp2);
    (server, clients)
}

fn words(line: &str) -> Vec<Vec<u8>> {
    line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

fn call(clients: &mut Tcp, line: &str) -> Reply {
    let reply = clients.call("A", &words(line)).unwrap_or_else(|error| panic!("{line}: {error}"));
    assert!(!matches!(reply, Reply::Error(_)), "{line}: {reply}");
    reply
}

/// Adds `count` elements of `len` bytes to a key.
fn fill(clients: &mut Tcp, key: &str, count: usize, len: usize) {
    for batch in (0..count).collect::<Vec<_>>().chunks(1000) {
        let elements = batch.iter().map(|at| format!("{at:0len$}"));
        let line = match &key[..4] {
            "hash" => elements.map(|element| format!(" {element} v{element}")).collect::<String>(),
            "zset" => elements.map(|element| format!(" {} {element}", element.len())).collect(),
            _ => elements.map(|element| format!(" {element}")).collect(),
        };
        let command = match &key[..4] {
            "hash" => "HSET",
            "zset" => "ZADD",
            "list" => "RPUSH",
            _ => "SADD",
        };
        call(clients, &format!("{command} {key}{line}"));
    }
}

/// A connection below the level of replies.
struct Raw(TcpStream, Vec<u8>);

impl Raw {
    fn open(server: &Server) -> Raw {
        let stream = TcpStream::connect(server.address()).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        Raw(stream, Vec::new())
    }

    fn send(&mut self, lines: &[&str]) {
        let bytes: Vec<u8> = lines
            .iter()
            .flat_map(|line| encode(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>()))
            .collect();
        self.0.write_all(&bytes).expect("a send");
    }

    fn reply(&mut self) -> Reply {
        let mut chunk = vec![0; 1 << 20];
        loop {
            if let Some((reply, size)) = reply::parse(&self.1).expect("a reply") {
                self.1.drain(..size);
                return reply;
            }
            let size = self.0.read(&mut chunk).expect("more of a reply");
            assert!(size > 0, "the connection closed");
            self.1.extend_from_slice(&chunk[..size]);
        }
    }
}

/// A number in the reply to INFO.
fn info(clients: &mut Tcp, section: &str, name: &str) -> u64 {
    let reply = call(clients, &format!("INFO {section}"));
    let text = String::from_utf8_lossy(reply.text().expect("text")).into_owned();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or_else(|| panic!("{name} in {text}"))
}

/// A client that asks for much and reads nothing costs little, the others are served meanwhile, and what it asked
/// for arrives whole, although the key was changed and deleted behind the command.
#[test]
fn a_slow_reader_costs_a_piece() {
    const COUNT: usize = 40_000;
    for threads in [1, 4] {
        let (server, mut clients) = start(threads);
        fill(&mut clients, "hash", COUNT, 300);
        let mut slow = Raw::open(&server);
        slow.send(&["CLIENT SETNAME slow", "HGETALL hash"]);
        assert_eq!(slow.reply(), Reply::Simple(b"OK".to_vec()));
        let mut seen = 0;
        for at in 0..200 {
            // Each of these is a turn or more of the server.
            call(&mut clients, &format!("HSET hash {at:0300} changed"));
            let list = call(&mut clients, "CLIENT LIST");
            let list = String::from_utf8_lossy(list.text().expect("text")).into_owned();
            let line = list.lines().find(|line| line.contains("name=slow")).expect("it is connected");
            let field = |name: &str| {
                let words = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
                words.and_then(|word| word.parse::<usize>().ok()).unwrap_or_else(|| panic!("{name}: {line}"))
            };
            seen = seen.max(field("tot-mem"));
        }
        assert!(seen < 1 << 20, "the reply of 24 MB takes {seen} bytes");
        call(&mut clients, "DEL hash");
        let Reply::Array(pairs) = slow.reply() else { panic!("HGETALL replies an array") };
        assert_eq!(pairs.len(), 2 * COUNT);
        for pair in pairs.chunks(2) {
            let (name, value) = (pair[0].text().expect("a name"), pair[1].text().expect("a value"));
            assert_eq!([b"v", name].concat(), value);
        }
    }
}

/// Long replies among others, in one pipeline and with keys on several shards, are what they are one by one.
#[test]
fn long_replies_keep_their_place() {
    for (threads, protocol) in [(1, "2"), (4, "2"), (4, "3")] {
        let (server, mut clients) = start(threads);
        for key in ["hash1", "hash2", "hash3", "zset1", "zset2", "list1", "list2", "set1", "set2", "set3"] {
            fill(&mut clients, key, 6_000, 100);
        }
        for key in ["a", "b", "c", "d"] {
            call(&mut clients, &format!("SET {key} {key}"));
        }
        let lines = [
            "PING",
            "GET a",
            "HGETALL hash1",
            "GET b",
            "MGET a b c d",
            "LRANGE list1 0 -1",
            "LRANGE list2 0 -1",
            "SMEMBERS set1",
            "DBSIZE",
            "HKEYS hash2",
            "ZRANGE zset1 0 -1 WITHSCORES",
            "GET c",
            "HGETALL hash3",
            "MULTI",
            "GET a",
            "HVALS hash1",
            "EXEC",
            "ZREVRANGE zset2 0 -1",
            "SMEMBERS set2",
            "HGETALL hash1",
            "MGET d c b a",
            "CLIENT REPLY SKIP",
            "HGETALL hash2",
            "SMEMBERS set3",
            "EXISTS a b nosuch",
            "LRANGE list2 0 -1",
            "GET d",
            "PING",
        ];
        let silent = ["CLIENT REPLY SKIP", "HGETALL hash2"];
        let mut single = Raw::open(&server);
        let hello = format!("HELLO {protocol}");
        single.send(&[&hello]);
        single.reply();
        let mut expected = Vec::new();
        for line in &lines {
            single.send(&[line]);
            if !silent.contains(line) {
                expected.push((*line, single.reply()));
            }
        }
        for round in 0..5 {
            let mut piped = Raw::open(&server);
            piped.send(&[&hello]);
            piped.reply();
            piped.send(&lines);
            for (line, expected) in &expected {
                let reply = piped.reply();
                assert!(reply == *expected, "{line}: round {round}, {threads} threads, RESP{protocol}");
            }
        }
    }
}

/// What is pushed to a client while it takes a long reply comes behind the reply or before it.
#[test]
fn pushes_wait_for_the_end() {
    let (server, mut clients) = start(4);
    fill(&mut clients, "hash", 30_000, 200);
    let mut listener = Raw::open(&server);
    listener.send(&["HELLO 3", "CLIENT TRACKING ON", "SUBSCRIBE news"]);
    assert!(matches!(listener.reply(), Reply::Map(_)));
    assert_eq!(listener.reply(), Reply::Simple(b"OK".to_vec()));
    assert!(matches!(listener.reply(), Reply::Push(_)));
    listener.send(&["HGETALL hash", "PING"]);
    // The rest of the reply waits for the client: what is pushed now comes while it is under way.
    call(&mut clients, "CLIENT LIST");
    for at in 0..100 {
        call(&mut clients, &format!("PUBLISH news {at}"));
    }
    call(&mut clients, "HSET hash f v");
    let (mut map, mut news, mut invalidated, mut pong) = (false, 0, false, false);
    while !(map && pong && invalidated && news == 100) {
        match listener.reply() {
            Reply::Map(pairs) => {
                assert_eq!(pairs.len(), 30_000);
                map = true;
            }
            Reply::Push(parts) => match parts[0].text() {
                Some(b"message") => {
                    assert_eq!(parts[2].text(), Some(news.to_string().as_bytes()));
                    news += 1;
                }
                Some(b"invalidate") => invalidated = true,
                _ => panic!("{parts:?}"),
            },
            Reply::Simple(text) if text == b"PONG" => {
                assert!(map, "replies come in their order");
                pong = true;
            }
            other => panic!("{other}"),
        }
    }
}

/// Who goes in the middle of a reply leaves nothing behind.
#[test]
fn a_reader_may_go() {
    for threads in [1, 4] {
        let (server, mut clients) = start(threads);
        let before = info(&mut clients, "memory", "used_memory");
        for key in ["set1", "set2", "list1", "hash1"] {
            fill(&mut clients, key, 20_000, 200);
        }
        for round in 0..20 {
            let mut leaving = Raw::open(&server);
            leaving.send(&["GET a", "SMEMBERS set1", "LRANGE list1 0 -1", "SMEMBERS set2", "HGETALL hash1"]);
            if round % 2 == 0 {
                let mut some = [0; 1000];
                leaving.0.read_exact(&mut some).expect("a part of the reply");
            }
        }
        call(&mut clients, "DEL set1 set2 list1 hash1");
        let mut tries = 0;
        while info(&mut clients, "clients", "connected_clients") > 1
            || info(&mut clients, "memory", "lazyfree_pending_bytes") > 0
        {
            tries += 1;
            assert!(tries < 2000, "connections or memory stay");
            thread::sleep(Duration::from_millis(5));
        }
        let after = info(&mut clients, "memory", "used_memory");
        assert!(after < before + (8 << 20), "{before} bytes before, {after} afterwards");
    }
}

/// How long other clients wait while one works on something big, in a release build on an idle machine:
/// `DAMSELFLY_BIN=target/release/damselfly cargo test --test long -- --ignored --nocapture`.
#[test]
#[ignore = "measures time, and takes a minute"]
fn others_do_not_wait() {
    const WORST: Duration = Duration::from_millis(10);
    let mut all = Vec::new();
    for threads in [1, 4] {
        let (server, mut clients) = start(threads);
        fill(&mut clients, "hash1", 1_000_000, 16);
        fill(&mut clients, "set1", 5_000_000, 16);
        fill(&mut clients, "list1", 5_000_000, 16);
        fill(&mut clients, "zset1", 1_000_000, 16);
        for line in [
            "PING",
            "HGETALL hash1",
            "SMEMBERS set1",
            "LRANGE list1 0 -1",
            "ZRANGE zset1 0 -1",
            "DEL set1",
            "UNLINK list1",
            "FLUSHALL",
        ] {
            let done = AtomicBool::new(false);
            let worst = thread::scope(|scope| {
                let others: Vec<_> = (0..1)
                    .map(|at| {
                        let (mut other, done) = (Raw::open(&server), &done);
                        scope.spawn(move || {
                            let (mut worst, get) = (Duration::ZERO, format!("GET other{at}"));
                            while !done.load(Ordering::Relaxed) {
                                let began = Instant::now();
                                other.send(&[&get]);
                                other.reply();
                                worst = worst.max(began.elapsed());
                            }
                            worst
                        })
                    })
                    .collect();
                thread::sleep(Duration::from_millis(50));
                let mut big = Raw::open(&server);
                big.send(&[line, "PING"]);
                // Taken as it comes and not looked at: the client must not be what is slow.
                let (mut chunk, mut end) = (vec![0; 1 << 20], Vec::new());
                while !end.ends_with(b"+PONG\r\n") {
                    let size = big.0.read(&mut chunk).expect("more of a reply");
                    assert!(size > 0, "the connection closed");
                    end = chunk[size.saturating_sub(16)..size].to_vec();
                }
                while info(&mut clients, "memory", "lazyfree_pending_bytes") > 0 {
                    thread::sleep(Duration::from_millis(1));
                }
                done.store(true, Ordering::Relaxed);
                others.into_iter().map(|other| other.join().expect("no panic")).max()
            });
            println!("{threads} threads, {line}: others waited {worst:?} at most");
            all.push(worst);
        }
    }
    assert!(all.into_iter().max() < Some(Some(WORST)));
}
