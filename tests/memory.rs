//! Servers that are full: what is refused, what goes, what stays, and that resident memory is where it was told to be.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::ops::Deref;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use damselfly_tests::executor::{Executor, Tcp, encode};
use damselfly_tests::reply::{Protocol, Reply};
use damselfly_tests::servers::{Kind, Server};

const MIB: u64 = 1 << 20;
const LIMIT: u64 = 64 * MIB;
const OOM: &str = "OOM command not allowed when used memory > 'maxmemory'.";

/// A server whose test has the machine for itself: what is resident depends on how quickly a server may answer.
struct Alone {
    server: Server,
    _turn: MutexGuard<'static, ()>,
}

impl Deref for Alone {
    type Target = Server;

    fn deref(&self) -> &Server {
        &self.server
    }
}

fn start(flags: &[&str]) -> (Alone, Tcp) {
    static TURN: Mutex<()> = Mutex::new(());
    // A test that has failed is no reason for others to fail.
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let maxmemory = format!("--maxmemory={LIMIT}");
    let flags: Vec<&str> = flags.iter().copied().chain([maxmemory.as_str()]).collect();
    let server =
        Server::start(Kind::Damselfly { threads: 2 }, &flags).unwrap_or_else(|error| panic!("{error}"));
    let clients = Tcp::new(server.address(), Protocol::Resp2);
    (Alone { server, _turn: turn }, clients)
}

fn call(clients: &mut Tcp, words: &[&[u8]]) -> Reply {
    let words: Vec<Vec<u8>> = words.iter().map(|word| word.to_vec()).collect();
    clients.call("A", &words).unwrap_or_else(|error| panic!("{error}"))
}

fn line(clients: &mut Tcp, line: &str) -> Reply {
    call(clients, &line.split(' ').map(str::as_bytes).collect::<Vec<_>>())
}

fn error_of(reply: &Reply) -> Option<String> {
    match reply {
        Reply::Error(text) => Some(String::from_utf8_lossy(text).into_owned()),
        _ => None,
    }
}

/// A number from INFO.
fn info(clients: &mut Tcp, field: &str) -> u64 {
    let reply = line(clients, "INFO everything");
    let text = String::from_utf8_lossy(reply.text().expect("INFO is text")).into_owned();
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value
        .and_then(|value| value.trim().parse().ok())
        .unwrap_or_else(|| panic!("INFO has no {field}:\n{text}"))
}

fn resident(server: &Server) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{}/statm", server.process_id())).expect("it runs");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("a number of pages") * 4096
}

/// Sends SETs of `count` keys from `first` on, pipelined, and returns how many were refused, and the most memory that
/// was resident meanwhile.
fn fill(server: &Server, first: usize, count: usize, len: usize, more: &[&[u8]]) -> (usize, u64) {
    fill_with(server, first, count, &|_| len, more)
}

/// As [`fill`], with values of the lengths that `len` says for their keys.
fn fill_with(
    server: &Server,
    first: usize,
    count: usize,
    len: &dyn Fn(usize) -> usize,
    more: &[&[u8]],
) -> (usize, u64) {
    let mut stream = TcpStream::connect(server.address()).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let (mut refused, mut most, mut sent) = (0, 0, 0);
    while sent < count {
        let (mut batch, mut asked) = (Vec::new(), 0);
        while sent < count && batch.len() < 64 << 10 {
            let (key, value) = (format!("key:{}", first + sent), vec![b'v'; len(first + sent)]);
            let words: Vec<&[u8]> =
                [b"SET", key.as_bytes(), &value].into_iter().chain(more.iter().copied()).collect();
            batch.extend(encode(&words));
            (sent, asked) = (sent + 1, asked + 1);
        }
        stream.write_all(&batch).expect("the server reads");
        let mut replies = Vec::new();
        while replies.iter().filter(|byte| **byte == b'\n').count() < asked {
            let mut part = [0; 4096];
            let len = stream.read(&mut part).expect("the server answers");
            assert!(len > 0, "the server closed the connection");
            replies.extend_from_slice(&part[..len]);
        }
        refused += replies.iter().filter(|byte| **byte == b'-').count();
        most = most.max(resident(server));
    }
    (refused, most)
}

/// Without cache mode what grows memory is refused at the limit, in a transaction too; reads and deletes are not, and
/// what they free can be written again.
#[test]
fn refuses_at_the_limit() {
    let (server, mut clients) = start(&[]);
    let (refused, most) = fill(&server, 0, 20_000, 5000, &[]);
    assert!(refused > 4000, "{refused} of 100 MB in 64 MiB were refused");
    assert!(most <= LIMIT * 105 / 100 + 16 * MIB, "{} MiB were resident", most / MIB);
    assert_eq!(error_of(&call(&mut clients, &[b"SET", b"more", &[b'v'; 5000]])).as_deref(), Some(OOM));
    assert_eq!(error_of(&call(&mut clients, &[b"LPUSH", b"list", &[b'v'; 5000]])).as_deref(), Some(OOM));
    assert_eq!(
        error_of(&call(&mut clients, &[b"MSET", b"a", &[b'v'; 5000], b"b", b"c"])).as_deref(),
        Some(OOM)
    );
    assert_eq!(line(&mut clients, "GET key:0").text().map(<[u8]>::len), Some(5000));
    line(&mut clients, "MULTI");
    assert_eq!(error_of(&call(&mut clients, &[b"SET", b"more", &[b'v'; 5000]])).as_deref(), Some(OOM));
    assert!(error_of(&line(&mut clients, "EXEC")).expect("an error").starts_with("EXECABORT"));
    assert!(info(&mut clients, "oom_rejections") >= 4 + refused as u64);
    assert_eq!(info(&mut clients, "evicted_keys"), 0);
    for n in 0..1000 {
        line(&mut clients, &format!("DEL key:{n}"));
    }
    assert_eq!(error_of(&call(&mut clients, &[b"SET", b"more", &[b'v'; 5000]])), None);
}

/// In cache mode nothing is refused, memory stays inside, keys that were STICK'ed stay, and whoever wants to know
/// hears of those that go.
#[test]
fn makes_room() {
    let (server, mut clients) = start(&["--cache_mode=true", "--notify-keyspace-events=Ee"]);
    line(&mut clients, "SET pinned value");
    line(&mut clients, "STICK pinned");
    for (first, len) in [(0, 5000), (100_000, 100), (400_000, 20_000), (500_000, 700)] {
        let (refused, most) = fill(&server, first, 100_000_000 / (len + 100), len, &[]);
        assert_eq!(refused, 0);
        let bound = LIMIT * 105 / 100 + 16 * MIB;
        assert!(most <= bound, "{} KiB resident with values of {len}, {} allowed", most >> 10, bound >> 10);
    }
    assert!(info(&mut clients, "evicted_keys") > 50_000);
    let mut listener = TcpStream::connect(server.address()).expect("connects");
    listener.write_all(b"SUBSCRIBE __keyevent@0__:evicted\r\n").expect("it reads");
    let mut tracker = TcpStream::connect(server.address()).expect("connects");
    tracker.write_all(b"HELLO 3\r\nCLIENT TRACKING ON BCAST PREFIX key:\r\n").expect("it reads");
    // As many evictions as two clients that do not read meanwhile may be told of.
    assert_eq!(fill(&server, 900_000, 1000, 5000, &[]).0, 0);
    assert_eq!(line(&mut clients, "GET pinned").text(), Some(&b"value"[..]));
    for (stream, wanted) in [(&mut listener, "__keyevent@0__:evicted"), (&mut tracker, "invalidate")] {
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
        let mut heard = Vec::new();
        let is_told = |heard: &[u8]| {
            // Behind the confirmation, an event of the kind with a key.
            let text = String::from_utf8_lossy(heard);
            text.matches(wanted).count() > usize::from(wanted.starts_with('_')) && text.contains("key:")
        };
        while !is_told(&heard) {
            let mut part = [0; 4096];
            let len = stream.read(&mut part).unwrap_or_else(|error| panic!("{wanted}: {error}"));
            assert!(len > 0, "{wanted}");
            heard.extend_from_slice(&part[..len]);
        }
    }
}

/// Bytes of data on a shard.
fn shard(clients: &mut Tcp, number: usize) -> u64 {
    let reply = line(clients, "MEMORY MALLOC-STATS");
    let text = String::from_utf8_lossy(reply.text().expect("text")).into_owned();
    let bytes = text.lines().find_map(|line| line.strip_prefix(&format!("shard {number}")));
    bytes.and_then(|bytes| bytes.trim().parse().ok()).unwrap_or_else(|| panic!("no shard {number}:\n{text}"))
}

/// A client's connection is on one core, but its keys are on all, and all have the same share of the memory.
#[test]
fn shards_share() {
    for (count, len) in [(100_000, 2000), (3000, 100_000)] {
        let (server, mut clients) = start(&["--cache_mode=true"]);
        assert_eq!(fill(&server, 0, count, len, &[]).0, 0);
        let (one, other) = (shard(&mut clients, 0), shard(&mut clients, 1));
        assert!(one.min(other) > one.max(other) / 3 * 2, "{one} and {other} with {len} bytes each");
    }
}

/// Values of all long lengths have the memory, whatever went before them: none of it is lost to pages that are half empty.
#[test]
fn long_values_fill_it() {
    let (server, mut clients) = start(&["--cache_mode=true"]);
    for n in 0..1500 {
        let value = vec![b'v'; 70_000 + n * 7919 % 450_000];
        assert_eq!(error_of(&call(&mut clients, &[b"SET", format!("key:{n}").as_bytes(), &value])), None);
        if n > 800 && n % 100 == 0 {
            let data = shard(&mut clients, 0) + shard(&mut clients, 1);
            assert!(data > LIMIT / 10 * 8, "{} KiB of data at {n}", data >> 10);
        }
    }
    assert!(resident(&server) <= LIMIT * 105 / 100 + 16 * MIB, "{} MiB", resident(&server) / MIB);
}

/// Long values that are read stay while others come and go; that their replies lend them makes no difference.
#[test]
fn popular_long_values_stay() {
    let (_server, mut clients) = start(&["--cache_mode=true"]);
    let value = vec![b'v'; 100_000];
    let set = |clients: &mut Tcp, key: &str| call(clients, &[b"SET", key.as_bytes(), &value]);
    let mut missed = 0;
    for n in 0..3000 {
        assert_eq!(error_of(&set(&mut clients, &format!("other:{n}"))), None);
        let popular = format!("popular:{}", n % 10);
        if line(&mut clients, &format!("GET {popular}")).is_null() {
            missed += 1;
            set(&mut clients, &popular);
        }
    }
    assert!(info(&mut clients, "evicted_keys") > 2000);
    assert!(missed < 60, "{missed} of 3000 were missed");
}

/// A write to a shard that has nothing to give is not refused while another one has, and refused when none has.
#[test]
fn others_give() {
    let (server, mut clients) = start(&["--cache_mode=true"]);
    let mut here = Vec::new();
    // Until the other shard is full, wherever chance has dealt the keys.
    for n in 0.. {
        assert!(n < 1000, "{} keys are not on the other shard", here.len());
        if here.len() >= 10 && info(&mut clients, "evicted_keys") > 0 {
            break;
        }
        let (key, before) = (format!("key:{n}"), shard(&mut clients, 0));
        call(&mut clients, &[b"SET", key.as_bytes(), &[b'v'; 1 << 20]]);
        if shard(&mut clients, 0) > before {
            call(&mut clients, &[b"DEL", key.as_bytes()]);
            here.push(key);
        }
    }
    // The first shard has only this.
    call(&mut clients, &[b"SET", here[0].as_bytes(), b"stays"]);
    call(&mut clients, &[b"STICK", here[0].as_bytes()]);
    let long = vec![b'v'; 10 << 20];
    let refused = |clients: &mut Tcp, key: &str| error_of(&call(clients, &[b"SET", key.as_bytes(), &long]));
    assert_eq!(refused(&mut clients, &here[1]), None);
    assert!(resident(&server) <= LIMIT * 105 / 100 + 16 * MIB, "{} MiB", resident(&server) / MIB);
    let Reply::Array(keys) = line(&mut clients, "KEYS *") else { panic!("keys are an array") };
    for key in keys {
        call(&mut clients, &[b"STICK", key.text().expect("a key")]);
    }
    let errors: Vec<_> = here[2..10].iter().filter_map(|key| refused(&mut clients, key)).collect();
    assert_eq!(errors.last().map(String::as_str), Some(OOM));
}

/// A client that caches what it reads is told when the key goes for want of room, on whatever shard that is; to one that
/// watches a key it was changed.
#[test]
fn tells_who_caches() {
    let (server, mut clients) = start(&["--cache_mode=true"]);
    let mut tracker = TcpStream::connect(server.address()).expect("connects");
    tracker.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    tracker.write_all(b"HELLO 3\r\nCLIENT TRACKING ON\r\n").expect("it reads");
    let mut heard = Vec::new();
    let mut hear = |tracker: &mut TcpStream, until: &dyn Fn(&str) -> bool| {
        while !until(&String::from_utf8_lossy(&heard)) {
            let mut part = [0; 4096];
            let len = tracker.read(&mut part).unwrap_or_else(|error| panic!("not told of all: {error}"));
            assert!(len > 0, "the server closed the connection");
            heard.extend_from_slice(&part[..len]);
        }
    };
    for n in 0..20 {
        // Long, so that they go before what fills the server.
        line(&mut clients, &format!("SET read:{n} value{}", "x".repeat(20_000)));
        tracker.write_all(format!("GET read:{n}\r\n").as_bytes()).expect("it reads");
    }
    hear(&mut tracker, &|text| text.matches("value").count() == 20);
    assert_eq!(line(&mut clients, "WATCH read:7"), Reply::Simple(b"OK".to_vec()));
    assert_eq!(fill(&server, 0, 60_000, 5000, &[]).0, 0);
    line(&mut clients, "MULTI");
    line(&mut clients, "PING");
    assert_eq!(line(&mut clients, "EXEC"), Reply::NullArray, "a watched key has gone");
    assert_eq!(line(&mut clients, "EXISTS read:0 read:7 read:19"), Reply::Int(0), "they have gone");
    hear(&mut tracker, &|text| {
        (0..20).all(|n| {
            text.contains(&format!("invalidate\r\n*1\r\n${}\r\nread:{n}\r\n", 5 + n.to_string().len()))
        })
    });
}

/// With a volatile policy only keys with an expiry go; when there are none left, writes are refused until there are.
#[test]
fn spares_the_permanent() {
    let (server, mut clients) = start(&[]);
    line(&mut clients, "CONFIG SET maxmemory-policy volatile-lru");
    assert_eq!(fill(&server, 0, 2000, 5000, &[]).0, 0);
    assert_eq!(fill(&server, 10_000, 20_000, 5000, &[b"EX", b"1000"]).0, 0);
    let (evicted, keys) = (info(&mut clients, "evicted_keys"), line(&mut clients, "DBSIZE"));
    assert!(evicted > 5000, "{evicted} went, {keys} are left");
    for n in 0..2000 {
        assert_eq!(line(&mut clients, &format!("EXISTS key:{n}")), Reply::Int(1), "key:{n}");
    }
    let (refused, most) = fill(&server, 100_000, 20_000, 5000, &[]);
    assert!(refused > 5000, "{refused}");
    assert!(most <= LIMIT * 105 / 100 + 16 * MIB);
    line(&mut clients, "CONFIG SET maxmemory-policy allkeys-lfu");
    assert_eq!(fill(&server, 200_000, 5000, 5000, &[]).0, 0);
    assert!(error_of(&line(&mut clients, "OBJECT FREQ key:200000")).is_none());
}

/// A value that cannot fit is answered with an error, nothing changes, and the connection goes on with what follows.
#[test]
fn refuses_the_impossible() {
    let (server, mut clients) = start(&["--cache_mode=true"]);
    line(&mut clients, "SET k small");
    let mut stream = TcpStream::connect(server.address()).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let mut reader = stream.try_clone().expect("a second handle");
    let writer = std::thread::spawn(move || {
        stream.write_all(b"PING\r\n*5\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000000\r\n").expect("it reads");
        for _ in 0..100 {
            stream.write_all(&[b'x'; 1_000_000]).expect("it reads");
        }
        stream.write_all(b"\r\n$2\r\nEX\r\n$3\r\n100\r\nGET k\r\n").expect("it reads");
        stream
    });
    let wanted = format!("+PONG\r\n-{OOM}\r\n$5\r\nsmall\r\n");
    let mut heard = vec![0; wanted.len()];
    reader.read_exact(&mut heard).expect("three answers");
    assert_eq!(String::from_utf8_lossy(&heard), wanted);
    drop(writer.join());
    assert!(resident(&server) < LIMIT);
    assert_eq!(info(&mut clients, "evicted_keys"), 0);
}

/// Many halves of long values: the limit on all of them together cuts those that stopped before memory is short.
#[test]
fn cuts_the_unfinished() {
    let (server, mut clients) = start(&["--cache_mode=true"]);
    let mut open = Vec::new();
    for n in 0..200 {
        let mut stream = TcpStream::connect(server.address()).expect("connects");
        stream
            .write_all(format!("*3\r\n$3\r\nSET\r\n$1\r\n{}\r\n$2000000\r\n", n % 10).as_bytes())
            .expect("it reads");
        stream.set_write_timeout(Some(Duration::from_millis(20))).expect("a timeout");
        for _ in 0..10 {
            // Those that are held back do not take all, those that were cut nothing.
            if stream.write_all(&[b'x'; 100_000]).is_err() {
                break;
            }
        }
        open.push(stream);
        assert!(resident(&server) < LIMIT, "{} MiB after {n}", resident(&server) / MIB);
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    while info(&mut clients, "client_query_buffer_limit_disconnections") < 20 {
        assert!(Instant::now() < deadline, "nobody was cut");
        std::thread::sleep(Duration::from_millis(50));
    }
    for len in [100_000, 1_000_000] {
        assert_eq!(error_of(&call(&mut clients, &[b"SET", b"k", &vec![b'v'; len]])), None);
    }
}

/// What clients send that wait for room is in the system's buffers, where it is memory, too: beyond a bound some are
/// closed, and those who come later find a place.
#[test]
fn bounds_what_the_system_holds() {
    const HELD_MAX: u64 = 32 * MIB;
    let (server, mut clients) = start(&["--cache_mode=true"]);
    let mut open = Vec::new();
    for _ in 0..1000 {
        let mut stream = TcpStream::connect(server.address()).expect("connects");
        stream.set_nonblocking(true).expect("it can");
        drop(stream.write(&encode(&[b"SET", b"held", &vec![b'x'; 2_000_000]])[..500_000]));
        open.push(stream);
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    let held = loop {
        let held = unread_by(server.address().port());
        if held < HELD_MAX && info(&mut clients, "client_query_buffer_limit_disconnections") >= 400 {
            break held;
        }
        assert!(Instant::now() < deadline, "the system holds {} MiB", held / MIB);
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(held > MIB, "none of them waits");
    assert_eq!(error_of(&call(&mut clients, &[b"SET", b"k", &vec![b'v'; 100_000]])), None);
    drop(open);
    assert_eq!(error_of(&call(&mut clients, &[b"SET", b"k", &vec![b'v'; 1_000_000]])), None);
}

/// Bytes that the system has received for a server and that it has not read.
fn unread_by(port: u16) -> u64 {
    let table = fs::read_to_string("/proc/net/tcp").expect("Linux has it");
    let mut held = 0;
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_ours = fields[1].ends_with(&format!(":{port:04X}"));
        let is_open = fields[3] == "01";
        if is_ours && is_open {
            let (_, unread) = fields[4].split_once(':').expect("two queues");
            held += u64::from_str_radix(unread, 16).expect("a number");
        }
    }
    held
}

/// Many clients whose long values all begin to arrive in one turn of the server: they wait for each other, and nobody is
/// cut.
#[test]
fn keeps_those_who_go_on() {
    let (server, mut clients) = start(&["--cache_mode=true"]);
    let mut streams: Vec<TcpStream> =
        (0..128).map(|_| TcpStream::connect(server.address()).expect("connects")).collect();
    let request = |number: usize| encode(&[b"SET", format!("key:{number}").as_bytes(), &vec![b'v'; 1 << 20]]);
    let signal = |name: &str| {
        let killed = Command::new("kill").args([name, &server.process_id().to_string()]).status();
        assert!(killed.expect("kill runs").success());
    };
    line(&mut clients, "PING");
    signal("-STOP");
    let begin = 100_000;
    for (number, stream) in streams.iter_mut().enumerate() {
        stream.write_all(&request(number)[..begin]).expect("the socket takes it");
    }
    signal("-CONT");
    std::thread::scope(|scope| {
        for (number, stream) in streams.iter_mut().enumerate() {
            scope.spawn(move || {
                stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
                let mut reply = [0; 5];
                let sent = stream.write_all(&request(number)[begin..]);
                sent.and_then(|()| stream.read_exact(&mut reply)).expect("it is not cut");
                assert_eq!(&reply, b"+OK\r\n");
            });
        }
    });
    assert_eq!(info(&mut clients, "client_query_buffer_limit_disconnections"), 0);
}

/// Clients take all the room for unfinished requests and come again when they are cut, and half of them send a byte now
/// and then: short requests are let in at once, a long one in its turn, and nobody who goes on is cut.
#[test]
fn serves_those_who_go_on_beside_those_who_do_not() {
    let (server, mut clients) = start(&["--cache_mode=true"]);
    let is_over = AtomicBool::new(false);
    let begin = &encode(&[b"SET", b"held", &vec![b'x'; 2_000_000]])[..1_000_000];
    let hold = |drip: &[u8]| {
        while !is_over.load(Ordering::Relaxed) {
            let mut stream = TcpStream::connect(server.address()).expect("connects");
            hold_until_cut(&mut stream, begin, drip, &is_over);
        }
    };
    let set = |len: usize, wait: u64| {
        let mut stream = TcpStream::connect(server.address()).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(wait))).expect("a timeout");
        let mut reply = [0; 5];
        let sent = stream.write_all(&encode(&[b"SET", b"k", &vec![b'v'; len]]));
        sent.and_then(|()| stream.read_exact(&mut reply)).map(|()| reply)
    };
    let replies = std::thread::scope(|scope| {
        for number in 0..40 {
            let hold = &hold;
            scope.spawn(move || hold(&b"x"[..number % 2]));
        }
        while info(&mut clients, "client_query_buffer_limit_disconnections") < 20 {
            std::thread::sleep(Duration::from_millis(50));
        }
        let mut replies: Vec<_> = (0..20).map(|_| set(100_000, 10)).collect();
        replies.push(set(1_000_000, 60));
        is_over.store(true, Ordering::Relaxed);
        replies
    });
    for reply in replies {
        assert_eq!(&reply.expect("it is not cut"), b"+OK\r\n");
    }
}

/// Two hundred clients send one long value after the other, and only a few of these have room at a time: all are served.
/// What they have sent meanwhile is far more than is left to clients that do not go on, and none is closed for that, those
/// whose first request it is neither. Each server has just started: the first moments are the worst.
#[test]
fn keeps_a_burst_that_goes_on() {
    for _ in 0..6 {
        let (server, mut clients) = start(&["--cache_mode=true"]);
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let address = server.address();
                scope.spawn(move || {
                    let mut open: Vec<TcpStream> =
                        (0..50).map(|_| TcpStream::connect(address).expect("connects")).collect();
                    let value = vec![b'v'; 1_000_000];
                    for round in 0..4 {
                        for (number, stream) in open.iter_mut().enumerate() {
                            let key = format!("{thread}:{round}:{number}");
                            let request = encode(&[b"SET", key.as_bytes(), &value]);
                            stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
                            stream.write_all(&request).expect("it is not cut");
                        }
                        for stream in &mut open {
                            let mut reply = [0; 5];
                            stream.read_exact(&mut reply).expect("it is not cut");
                            assert_eq!(&reply, b"+OK\r\n");
                        }
                    }
                });
            }
        });
        assert_eq!(info(&mut clients, "client_query_buffer_limit_disconnections"), 0);
    }
}

/// Sends what it has to, then again and again what drips, and ends when it is cut or all is over.
fn hold_until_cut(stream: &mut TcpStream, begin: &[u8], drip: &[u8], is_over: &AtomicBool) {
    let soon = Some(Duration::from_millis(50));
    stream.set_write_timeout(soon).and_then(|()| stream.set_read_timeout(soon)).expect("timeouts");
    let mut left = begin;
    while !is_over.load(Ordering::Relaxed) {
        let heard = match stream.write(left) {
            Ok(len) if len < left.len() => {
                left = &left[len..];
                continue;
            }
            Ok(_) => {
                left = drip;
                stream.read(&mut [0]).map(|_| ())
            }
            Err(error) => Err(error),
        };
        if !heard.is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
            return;
        }
    }
}

/// A client of its own, and what the server says about it.
fn connect_and_ask(server: &Server) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(server.address()).expect("connects");
    stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    stream.write_all(b"CLIENT INFO\r\n").expect("it reads");
    let mut reply = [0; 1000];
    let len = stream.read(&mut reply).expect("it replies");
    (stream, String::from_utf8_lossy(&reply[..len]).into_owned())
}

/// A value of nearly half of the limit that comes in slowly is stored: whoever goes on is not closed, alone or while
/// others hold what room there is.
#[test]
fn keeps_a_very_long_one_that_goes_on() {
    let (server, _clients) = start(&["--cache_mode=true"]);
    let send_slowly = |len: usize| {
        let mut stream = TcpStream::connect(server.address()).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        let request = encode(&[b"SET", b"k", &vec![b'v'; len]]);
        for part in request.chunks(request.len() / 50 + 1) {
            stream.write_all(part).expect("it is not cut");
            std::thread::sleep(Duration::from_millis(20));
        }
        let mut reply = [0; 5];
        stream.read_exact(&mut reply).expect("it is not cut");
        assert_eq!(String::from_utf8_lossy(&reply), "+OK\r\n");
    };
    send_slowly(30_000_000);
    let idle: Vec<TcpStream> = (0..40)
        .map(|_| {
            let mut stream = TcpStream::connect(server.address()).expect("connects");
            stream.set_write_timeout(Some(Duration::from_millis(20))).expect("a timeout");
            drop(stream.write_all(&encode(&[b"SET", b"held", &vec![b'x'; 2_000_000]])[..1_000_000]));
            stream
        })
        .collect();
    send_slowly(30_000_000);
    drop(idle);
}

/// Clients of one core hold all the room and come again when they are cut: a client of another core has its turn when
/// those have gone that came before it.
#[test]
fn has_one_order_over_all_cores() {
    let (server, mut clients) = start(&["--cache_mode=true"]);
    let begin = &encode(&[b"SET", b"held", &vec![b'x'; 2_000_000]])[..1_000_000];
    let connect_to = |core: &str| {
        let mut others = Vec::new();
        for _ in 0..100 {
            let (stream, about) = connect_and_ask(&server);
            if about.contains(core) {
                return stream;
            }
            others.push(stream);
        }
        panic!("all connections are of the same core");
    };
    let is_over = AtomicBool::new(false);
    let came_again = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..24 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let mut stream = connect_to("tid=0 ");
                    came_again.fetch_add(1, Ordering::Relaxed);
                    hold_until_cut(&mut stream, begin, b"", &is_over);
                }
            });
        }
        while info(&mut clients, "client_query_buffer_limit_disconnections") < 10 {
            std::thread::sleep(Duration::from_millis(50));
        }
        let mut stream = connect_to("tid=1 ");
        let before = came_again.load(Ordering::Relaxed);
        let mut reply = [0; 5];
        let sent = stream.write_all(&encode(&[b"SET", b"k", &vec![b'v'; 1_000_000]]));
        let sent = sent.and_then(|()| stream.read_exact(&mut reply));
        let meanwhile = came_again.load(Ordering::Relaxed) - before;
        is_over.store(true, Ordering::Relaxed);
        sent.expect("it is not cut");
        assert_eq!(&reply, b"+OK\r\n");
        // All that were there before it, and those that were let in with the last of them.
        assert!(meanwhile <= 24 + 12, "{meanwhile} others came again and were let in first");
    });
}

/// Clients of one core send too much that they do not finish, and that core cannot run: nobody of another core has to go
/// for that.
#[test]
fn keeps_those_of_another_core() {
    let (server, _clients) = start(&["--cache_mode=true"]);
    for _ in 0..4 {
        let (mut here, mut there) = (Vec::new(), Vec::new());
        for _ in 0..400 {
            let (stream, about) = connect_and_ask(&server);
            if about.contains("tid=0 ") { here.push(stream) } else { there.push(stream) }
        }
        let (mut goes_on, mut sleeper) = (here.swap_remove(0), there.swap_remove(0));
        for stream in &mut there {
            stream.set_nonblocking(true).expect("it can");
            drop(stream.write(&encode(&[b"SET", b"k", &vec![b'v'; 2_000_000]])[..300_000]));
        }
        sleeper.write_all(&encode(&[b"DEBUG", b"SLEEP", b"1"])).expect("it reads");
        let whole = encode(&[b"SET", b"k", &[b'v'; 60_000]]);
        let (begin, rest) = whole.split_at(20_000);
        goes_on.write_all(begin).expect("it is not cut");
        for part in rest.chunks(2_000) {
            std::thread::sleep(Duration::from_millis(50));
            goes_on.write_all(part).expect("it is not cut");
        }
        let mut reply = [0; 5];
        goes_on.read_exact(&mut reply).expect("it is not cut");
        assert_eq!(&reply, b"+OK\r\n");
    }
}

/// maxmemory can be lowered and raised while the server runs and clients write, and it follows.
#[test]
fn follows_the_setting() {
    let (server, mut clients) = start(&["--cache_mode=true"]);
    line(&mut clients, "CONFIG SET maxmemory 200mb");
    assert_eq!(fill(&server, 0, 300_000, 500, &[]).0, 0);
    assert!(resident(&server) > 100 * MIB, "{} MiB are resident", resident(&server) / MIB);
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| fill(&server, 400_000, 200_000, 500, &[]));
        line(&mut clients, "CONFIG SET maxmemory 60mb");
        let deadline = Instant::now() + Duration::from_secs(30);
        while resident(&server) > 63 * MIB + 16 * MIB {
            assert!(Instant::now() < deadline, "still {} MiB", resident(&server) / MIB);
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(writer.join().expect("the writer ends").0, 0);
    });
    assert!(info(&mut clients, "evicted_keys") > 10_000);
    line(&mut clients, "CONFIG SET maxmemory 200mb");
    assert_eq!(fill(&server, 1_000_000, 200_000, 500, &[]).0, 0);
    assert!(resident(&server) > 100 * MIB, "{} MiB are resident", resident(&server) / MIB);
}

/// Clients that ask for long values and read none of them: a value is not copied for each request, whichever shard it is
/// on, so memory stays where it is; what is read in the end is whole, also if its key has gone meanwhile.
#[test]
fn unread_replies_are_not_copies() {
    const LEN: usize = 1 << 20;
    let (server, mut clients) = start(&["--cache_mode=true"]);
    let keys: Vec<String> = (0..8).map(|n| format!("long:{n}")).collect();
    for (n, key) in keys.iter().enumerate() {
        call(&mut clients, &[b"SET", key.as_bytes(), &vec![b'a' + n as u8; LEN]]);
    }
    // As many as one read takes in: all are on their way before any reply is there.
    const ASKED: usize = 500;
    let mut open = Vec::new();
    for (n, key) in keys.iter().enumerate() {
        let mut stream = TcpStream::connect(server.address()).expect("connects");
        stream.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        stream.write_all(&encode(&[b"GET", key.as_bytes()]).repeat(ASKED)).expect("it reads");
        open.push((stream, b'a' + n as u8));
    }
    for (stream, letter) in &mut open {
        // The first bytes: all of its requests have been met.
        let mut head = [0; 11];
        stream.read_exact(&mut head).expect("a reply begins");
        assert_eq!((&head[..10], head[10]), (b"$1048576\r\n".as_slice(), *letter));
    }
    let taken = resident(&server);
    assert!(taken < 40 * MIB, "{} MiB are resident", taken / MIB);
    for key in &keys {
        line(&mut clients, &format!("SET {key} short"));
    }
    let (stream, letter) = &mut open[0];
    let mut rest = vec![0; LEN + 1];
    stream.read_exact(&mut rest).expect("the rest of the reply");
    assert!(rest[..LEN - 1].iter().all(|byte| byte == letter) && rest.ends_with(b"\r\n"));
}

/// `used_memory` is the sum of the parts that INFO tells beside it, and near what is resident.
#[test]
fn adds_up() {
    let (server, mut clients) = start(&["--cache_mode=true"]);
    line(&mut clients, "CONFIG SET maxmemory 200mb");
    fill(&server, 0, 100_000, 100, &[]);
    fill(&server, 200_000, 80_000, 1000, &[]);
    for n in 0..1000 {
        line(&mut clients, &format!("HSET hash:{n} field value other {}", "v".repeat(n)));
    }
    let reply = line(&mut clients, "INFO memory");
    let text = String::from_utf8_lossy(reply.text().expect("INFO is text")).into_owned();
    let field = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.and_then(|value| value.trim().parse::<u64>().ok()).unwrap_or_else(|| panic!("{name} in {text}"))
    };
    let parts = [
        "used_memory_startup",
        "table_used_memory",
        "object_used_memory",
        "eviction_used_memory",
        "lazyfree_pending_bytes",
        "mem_clients_normal",
    ];
    assert_eq!(field("used_memory"), parts.iter().map(|part| field(part)).sum::<u64>());
    let (used, rss) = (field("used_memory"), field("used_memory_rss"));
    assert!(used.abs_diff(rss) < rss / 10, "used {used}, resident {rss}");
}

/// Whatever lengths values have had before, `used_memory` follows what is resident: pages that have become half empty are
/// emptied, and what is behind long values goes back.
#[test]
fn follows_what_is_resident() {
    let (server, mut clients) = start(&["--cache_mode=true"]);
    line(&mut clients, "CONFIG SET maxmemory 128mb");
    let mut first = 0;
    let lengths = [
        (10_000, 30_000),
        (20_000, 64_000),
        (84_000, 200_000),
        (150_000, 500_000),
        (10_000, 84_000),
        (300, 1000),
        (10_000, 500_000),
    ];
    for (shortest, longest) in lengths {
        let count = (400 * MIB as usize) / (shortest + longest);
        let len = |n: usize| shortest + n * 7919 % (longest - shortest);
        assert_eq!(fill_with(&server, first, count, &len, &[]).0, 0);
        first += count;
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let (used, rss) = (info(&mut clients, "used_memory"), info(&mut clients, "used_memory_rss"));
            if used.abs_diff(rss) < rss / 10 {
                break;
            }
            assert!(Instant::now() < deadline, "{shortest} to {longest} bytes: used {used}, resident {rss}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// A long value is in memory once, whichever command brings it: the buffer that it was read into is the value.
#[test]
fn long_values_are_kept() {
    const LEN: usize = 64 << 20;
    let value = vec![b'v'; LEN];
    let requests: [&[&[u8]]; 6] = [
        &[b"SET", b"k", &value],
        &[b"SET", b"k", &value, b"EX", b"1000"],
        &[b"SET", b"k", &value, b"nx", b"get", b"keepttl"],
        &[b"SETEX", b"k", b"1000", &value],
        &[b"GETSET", b"k", &value],
        &[b"APPEND", b"k", &value],
    ];
    for request in requests {
        let server =
            Server::start(Kind::Damselfly { threads: 1 }, &[]).unwrap_or_else(|error| panic!("{error}"));
        let peak = || {
            let status =
                fs::read_to_string(format!("/proc/{}/status", server.process_id())).expect("it runs");
            let line =
                status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the kernel counts it");
            line.split_whitespace().next().expect("a number").parse::<usize>().expect("a number") << 10
        };
        let mut stream = TcpStream::connect(server.address()).expect("the server listens");
        let before = peak();
        stream.write_all(&encode(request)).expect("it reads");
        stream.write_all(b"STRLEN k\r\n").expect("it reads");
        let (mut replies, wanted) = (Vec::new(), format!(":{LEN}\r\n"));
        while !replies.ends_with(wanted.as_bytes())
            || request[0] == b"APPEND" && replies.len() < 2 * wanted.len()
        {
            let mut chunk = [0; 100];
            let len = stream.read(&mut chunk).expect("it answers");
            assert!(len > 0, "the server closes");
            replies.extend_from_slice(&chunk[..len]);
        }
        let taken = peak() - before;
        // While the buffer grew for the last time there was a half of it beside the whole; a copy would be another whole.
        assert!(taken < LEN / 4 * 7, "{}: {taken} bytes", request[0].escape_ascii());
    }
}
