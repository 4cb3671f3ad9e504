//! Publish and subscribe with several connections: order, slow subscribers, and what is published about keys.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use damselfly_tests::executor::{Executor, Tcp, encode};
use damselfly_tests::reply::{Protocol, Reply};
use damselfly_tests::servers::{Kind, Server};

const OURS: Kind = Kind::Damselfly { threads: 4 };

fn start(kind: Kind) -> (Server, Tcp) {
    let server = Server::start(kind, &[]).unwrap_or_else(|error| panic!("{error}"));
    let clients = Tcp::new(server.address(), Protocol::Resp2);
    (server, clients)
}

fn words(line: &str) -> Vec<Vec<u8>> {
    line.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

fn call(clients: &mut Tcp, client: &str, line: &str) -> Reply {
    clients.call(client, &words(line)).unwrap_or_else(|error| panic!("{client}: {line}: {error}"))
}

/// What `client` is told until the marker, which is published behind `line` by `A`.
fn told(clients: &mut Tcp, line: &str) -> (Reply, Vec<String>) {
    let reply = call(clients, "A", line);
    call(clients, "A", "PUBLISH __key_end now");
    let mut all = Vec::new();
    loop {
        let message = clients.receive("L").unwrap_or_else(|error| panic!("{line}: {error}"));
        let text: Vec<String> = message
            .elements()
            .unwrap_or_else(|| panic!("{line}: {message}"))
            .iter()
            .skip(2)
            .map(|part| {
                part.text().map_or_else(String::new, |text| String::from_utf8_lossy(text).into_owned())
            })
            .collect();
        if text[0] == "__key_end" {
            return (reply, all);
        }
        all.push(text.join(" "));
    }
}

/// One command per line; each starts from what those before left. Names of keys fall on different shards.
const CHANGES: &str = "SET s v\nSET s v EX 100\nSET s w KEEPTTL\nGET missing\nGET s\nSETEX s 10 v\nPSETEX s 10000 v\n\
    SETNX s2 v\nSETNX s2 v\nGETSET s2 w\nAPPEND s x\nAPPEND fresh x\nSETRANGE s 1 y\nSETRANGE sr 3 y\nINCR n\nINCRBY n 5\n\
    DECR n\nINCRBYFLOAT n 1.5\nMSET a 1 b 2 c 3\nMSETNX d 1 e 2\nGETDEL a\nGETEX b EX 100\nGETEX b PERSIST\nGETEX b\n\
    SETBIT bits 7 1\nBITFIELD bits SET u8 0 5\nBITOP NOT nots bits\nPFADD hll a\nPFADD hll a\nPFMERGE merged hll\n\
    EXPIRE c 100\nPEXPIRE c 100000\nPERSIST c\nPERSIST c\nEXPIRE c -1\nEXPIREAT d 1\nRENAME e f\nRENAMENX f g\n\
    COPY g h\nMOVE g 1\nDEL h b missing\nUNLINK s2\nRPUSH l a b c d\nLPUSH l x\nLPUSHX missing x\n\
    RPUSHX l y\nLPOP l\nRPOP l 2\nLINSERT l BEFORE b z\nLSET l 0 q\nLTRIM l 0 1\nLREM l 1 q\nRPOPLPUSH l l2\n\
    RPUSH l one two three\nLMOVE l l2 LEFT RIGHT\nLMPOP 1 l LEFT COUNT 5\nZADD z 1 a 2 b 3 c\nZADD z 1 a\nZADD z INCR 2 a\n\
    ZINCRBY z 1 a\nZREM z a\nZREM z missing\nZADD z 5 e 6 f 7 g\nZREMRANGEBYSCORE z 5 5\nZREMRANGEBYRANK z 0 0\n\
    ZPOPMIN z\nZPOPMAX z 5\nZADD z1 1 a 2 b\nZADD z2 1 a\nZUNIONSTORE z3 2 z1 z2\nZINTERSTORE z4 2 z1 z2\n\
    ZRANGESTORE z5 z1 0 -1\nZRANGESTORE z5 missing 0 -1\nEXISTS missing\nTTL missing\nTYPE missing\nSTRLEN missing\n\
    LLEN missing\nZCARD missing\nDUMP missing\nMGET missing s missing2\nOBJECT ENCODING missing\nTOUCH missing\n\
    LRANGE missing 0 -1\nSETRANGE missing 0 x\nSET s v\nRESTORE r 0 bad";

/// Redis and we publish the same about the same commands, all classes on: keys, events, order.
#[test]
fn events_are_those_of_redis() {
    let mut servers: Vec<(Kind, Server, Tcp)> = [Kind::Redis, Kind::Damselfly { threads: 1 }, OURS]
        .into_iter()
        .map(|kind| {
            let (server, clients) = start(kind);
            (kind, server, clients)
        })
        .collect();
    for (_, _, clients) in &mut servers {
        call(clients, "A", "CONFIG SET notify-keyspace-events KEAmn");
        call(clients, "L", "PSUBSCRIBE __key*");
    }
    let mut wrong = Vec::new();
    for line in CHANGES.lines() {
        let mut answers: Vec<(Kind, Reply, Vec<String>)> = Vec::new();
        for (kind, _, clients) in &mut servers {
            let (reply, events) = told(clients, line);
            answers.push((*kind, reply, events));
        }
        let expected = answers[0].2.clone();
        let sorted = |events: &[String]| {
            let mut events = events.to_vec();
            events.sort();
            events
        };
        for (kind, reply, events) in &answers[1..] {
            // Shards publish side by side, so only one shard has one order.
            let same = if *kind == OURS { sorted(events) == sorted(&expected) } else { *events == expected };
            if !same {
                wrong.push(format!(
                    "{line} ({reply}), {}:\n  ours  {events:?}\n  redis {expected:?}",
                    kind.name()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Keys whose time is over are announced when somebody looks, and when nobody does; CONFIG SET holds at once.
#[test]
fn expiry_is_announced() {
    let server =
        Server::start(OURS, &["--notify_keyspace_events=Ex"]).unwrap_or_else(|error| panic!("{error}"));
    let mut clients = Tcp::new(server.address(), Protocol::Resp2);
    call(&mut clients, "L", "PSUBSCRIBE __key*");
    for i in 0..20 {
        call(&mut clients, "A", &format!("SET k{i} v PX 1"));
    }
    let mut keys: Vec<String> = (0..20)
        .map(|_| {
            let message = clients.receive("L").unwrap_or_else(|error| panic!("{error}"));
            let parts = message.elements().expect("an array");
            assert_eq!(parts[2].text(), Some(&b"__keyevent@0__:expired"[..]));
            String::from_utf8_lossy(parts[3].text().expect("a key")).into_owned()
        })
        .collect();
    keys.sort();
    let mut all: Vec<String> = (0..20).map(|i| format!("k{i}")).collect();
    all.sort();
    assert_eq!(keys, all);
    call(&mut clients, "A", "CONFIG SET notify-keyspace-events Kg");
    assert_eq!(told(&mut clients, "SET a v").1, [""; 0]);
    assert_eq!(told(&mut clients, "DEL a").1, ["__keyspace@0__:a del"]);
    call(&mut clients, "A", "CONFIG SET notify-keyspace-events KE");
    assert_eq!(told(&mut clients, "SET a v").1, [""; 0]);
}

/// Every subscriber gets what one application publishes in the order in which it did, by one connection pipelined, or
/// by many of which each waits for the reply of the one before.
#[test]
fn order() {
    const COUNT: usize = 500;
    let (server, mut clients) = start(OURS);
    for subscriber in 0..8 {
        call(&mut clients, &format!("S{subscriber}"), "SUBSCRIBE c");
    }
    let mut publisher = TcpStream::connect(server.address()).expect("connects");
    let batch: Vec<u8> =
        (0..COUNT).flat_map(|i| encode(&[b"PUBLISH", b"c", i.to_string().as_bytes()])).collect();
    publisher.write_all(&batch).expect("sends");
    let mut replies = vec![0; COUNT * 4];
    publisher.read_exact(&mut replies).expect("replies");
    assert!(replies.chunks(4).all(|reply| reply == b":8\r\n"));
    for i in COUNT..2 * COUNT {
        call(&mut clients, &format!("P{}", i % 7), &format!("PUBLISH c {i}"));
    }
    for subscriber in 0..8 {
        for i in 0..2 * COUNT {
            let message =
                clients.receive(&format!("S{subscriber}")).unwrap_or_else(|error| panic!("{error}"));
            let text = message.elements().and_then(|parts| parts[2].text()).expect("a message");
            assert_eq!(text, i.to_string().as_bytes());
        }
    }
}

/// A subscriber who asks something has what was published before when it is answered, also where deliveries keep a
/// distance.
#[test]
fn messages_come_before_later_replies() {
    let (_server, mut clients) = start(Kind::Damselfly { threads: 1 });
    for subscriber in 0..64 {
        call(&mut clients, &format!("S{subscriber}"), "SUBSCRIBE c");
    }
    for i in 0..200 {
        // The first of them makes a delivery, which the second may have to keep its distance from.
        for part in ["a", "b"] {
            call(&mut clients, "P", &format!("PUBLISH c {part}{i}"));
        }
        clients.send("S0", &words("PING last")).expect("sends");
        for wanted in [format!("a{i}"), format!("b{i}"), "last".to_owned()] {
            let reply = clients.receive("S0").unwrap_or_else(|error| panic!("{error}"));
            let text = reply.elements().and_then(|parts| parts.last()?.text()).expect("a message");
            assert_eq!(text, wanted.as_bytes());
        }
    }
}

/// Who does not read is cut at its limit; the publisher and the other subscribers do not notice.
#[test]
fn slow_subscribers_are_cut() {
    for (name, value, event) in [
        ("client-output-buffer-limit", "pubsub 2mb 0 0", "hard_limit"),
        ("client-output-buffer-limit", "pubsub 0 2mb 0", "soft_limit"),
        ("publish_buffer_limit", "2mb", "forced_disconnect"),
    ] {
        let (server, mut clients) = start(OURS);
        let set = [b"CONFIG".as_slice(), b"SET", name.as_bytes(), value.as_bytes()].map(<[u8]>::to_vec);
        assert_eq!(clients.call("A", &set).expect("answers").text(), Some(&b"OK"[..]));
        let mut slow = TcpStream::connect(server.address()).expect("connects");
        slow.write_all(&encode(&[b"SUBSCRIBE", b"c"])).expect("sends");
        let mut first = [0; 16];
        slow.read_exact(&mut first).expect("a confirmation");
        call(&mut clients, "S", "SUBSCRIBE c");
        let message = "x".repeat(64 * 1024);
        let started = Instant::now();
        let mut receivers = 2;
        while receivers == 2 {
            assert!(started.elapsed() < Duration::from_secs(60), "{name}: never cut");
            let Reply::Int(count) = call(&mut clients, "A", &format!("PUBLISH c {message}")) else {
                panic!("PUBLISH answers a number")
            };
            receivers = count;
            clients.receive("S").unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        assert_eq!(receivers, 1, "{name}: only the slow one is cut");
        assert!(
            metrics(&server).contains(&format!("pubsub_backpressure_events_total{{event=\"{event}\"}} 1")),
            "{name}"
        );
        // It is told the hard way: after what was sent there is an end.
        let ended = std::io::copy(&mut slow, &mut std::io::sink());
        assert!(ended.is_ok() || ended.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset));
    }
}

fn metrics(server: &Server) -> String {
    let mut http = TcpStream::connect(server.address()).expect("connects");
    http.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    http.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").expect("sends");
    let mut page = Vec::new();
    let mut chunk = [0; 4096];
    let has_all = |page: &[u8]| {
        let text = String::from_utf8_lossy(page);
        let (head, body) = text.split_once("\r\n\r\n")?;
        let len = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned))?;
        (body.len() >= len.parse().ok()?).then_some(())
    };
    while has_all(&page).is_none() {
        let len = http.read(&mut chunk).expect("reads");
        assert!(len > 0, "the page ends early");
        page.extend_from_slice(&chunk[..len]);
    }
    String::from_utf8_lossy(&page).into_owned()
}

/// Patterns with many stars over long names, which a matcher that tries again at each star takes years for.
#[test]
fn hostile_patterns() {
    let (_server, mut clients) = start(OURS);
    let pattern = "*a".repeat(500) + "b";
    call(&mut clients, "L", &format!("PSUBSCRIBE {pattern}"));
    let name = "a".repeat(20_000);
    let started = Instant::now();
    for _ in 0..20 {
        assert!(matches!(call(&mut clients, "A", &format!("PUBLISH {name} x")), Reply::Int(0)));
    }
    assert!(matches!(call(&mut clients, "A", &format!("PUBLISH {name}b x")), Reply::Int(1)));
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}
