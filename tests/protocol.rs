//! The socket below the level of commands: malformed, cut, huge, rude and endless input.
//!
//! Whatever comes, three things hold: what Redis answers we answer, byte for byte, unless the table says why not;
//! nobody else is kept waiting; and memory follows what was received, not what was announced.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use damselfly_tests::executor::encode;
use damselfly_tests::random::Random;
use damselfly_tests::reply::quoted;
use damselfly_tests::servers::{Kind, Server};

const OURS: Kind = Kind::Damselfly { threads: 2 };

/// How long anything may take here before it counts as hanging.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Sent behind a case to see where its reply ends; its own reply ends the reading.
const SENTINEL: &str = "--sentinel--";

fn redis() -> Server {
    Server::start(Kind::Redis, &[]).expect("redis-server starts")
}

fn damselfly() -> Server {
    Server::start(OURS, &[]).expect("damselfly starts")
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    stream.set_write_timeout(Some(TIMEOUT)).expect("a timeout");
    stream.set_nodelay(true).expect("no delay");
    stream
}

/// Bytes for a failure message: their beginning says enough, all of them can be megabytes.
fn shown(bytes: &[u8]) -> String {
    const SHOWN_MAX: usize = 300;
    match bytes.get(..SHOWN_MAX) {
        Some(beginning) => format!("{}... ({} bytes)", quoted(beginning), bytes.len()),
        None => quoted(bytes),
    }
}

/// Reads to the end of the stream, or until `until` has come (and is cut off). True: the server closed.
fn read_until(stream: &mut TcpStream, until: &[u8]) -> (Vec<u8>, bool) {
    let mut seen = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return (seen, true),
            Ok(size) => seen.extend_from_slice(&chunk[..size]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return (seen, true),
            Err(error) => panic!("{error} after {}", shown(&seen)),
        }
        if !until.is_empty() && seen.ends_with(until) {
            seen.truncate(seen.len() - until.len());
            return (seen, false);
        }
    }
}

/// The reply to these bytes, and whether they made the server close.
fn exchange(address: SocketAddr, bytes: &[u8]) -> (Vec<u8>, bool) {
    let mut stream = connect(address);
    let mut request = bytes.to_vec();
    request.extend_from_slice(&encode(&[b"ECHO", SENTINEL.as_bytes()]));
    // A server that closes early makes the end of a long write fail; what it said first is what counts.
    stream.write_all(&request).ok();
    read_until(&mut stream, format!("${}\r\n{SENTINEL}\r\n", SENTINEL.len()).as_bytes())
}

fn assert_answers(address: SocketAddr) {
    let (found, closed) = exchange(address, b"PING\r\n");
    assert_eq!((shown(&found), closed), (shown(b"+PONG\r\n"), false));
}

/// Resident bytes of a process.
fn resident(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.process_id())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a VmRSS line");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|digits| digits.parse().ok()).expect("a number");
    kib << 10
}

/// Bytes, the reply, and whether the connection is then closed.
const TABLE: &[(&[u8], &[u8], bool)] = &[
    // Inline commands.
    (b"PING\r\n", b"+PONG\r\n", false),
    (b"PING\n", b"+PONG\r\n", false),
    (b"ping\r\nPING x\r\n", b"+PONG\r\n$1\r\nx\r\n", false),
    (b"  PING   x  \r\n", b"$1\r\nx\r\n", false),
    (b"\r\n\r\n\nPING\r\n", b"+PONG\r\n", false),
    (b"   \r\nPING\r\n", b"+PONG\r\n", false),
    (b"\tPING\t\r\n", b"+PONG\r\n", false),
    (b"ECHO \"a b\"\r\n", b"$3\r\na b\r\n", false),
    (b"ECHO \"a\\x41\\n\\r\\t\\b\\a\\\\\\\"\\q\"\r\n", b"$10\r\naA\n\r\t\x08\x07\\\"q\r\n", false),
    (b"ECHO 'a\\'b\\n\"'\r\n", b"$6\r\na'b\\n\"\r\n", false),
    (b"ECHO \"\"\r\n", b"$0\r\n\r\n", false),
    (b"ECHO ''\r\n", b"$0\r\n\r\n", false),
    (b"ECHO a\"b\"\r\n", b"$2\r\nab\r\n", false),
    (b"SET k v\r\nGET k\r\nDEL k\r\n", b"+OK\r\n$1\r\nv\r\n:1\r\n", false),
    (b"ECHO \"open\r\n", b"-ERR Protocol error: unbalanced quotes in request\r\n", true),
    (b"ECHO 'open\r\n", b"-ERR Protocol error: unbalanced quotes in request\r\n", true),
    (b"ECHO \"a\"b\r\n", b"-ERR Protocol error: unbalanced quotes in request\r\n", true),
    (b"ECHO 'a'b\r\n", b"-ERR Protocol error: unbalanced quotes in request\r\n", true),
    (
        b"PING\r\nECHO \"open\r\nPING\r\n",
        b"+PONG\r\n-ERR Protocol error: unbalanced quotes in request\r\n",
        true,
    ),
    (b"$3\r\n", b"-ERR unknown command '$3', with args beginning with: \r\n", false),
    // Arrays.
    (b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n", false),
    (b"*2\r\n$4\r\nECHO\r\n$0\r\n\r\n", b"$0\r\n\r\n", false),
    (b"*2\r\n$4\r\nECHO\r\n$4\r\n\r\n\r\n\r\n", b"$4\r\n\r\n\r\n\r\n", false),
    (b"*0\r\nPING\r\n", b"+PONG\r\n", false),
    (b"*-1\r\nPING\r\n", b"+PONG\r\n", false),
    (b"*-100\r\nPING\r\n", b"+PONG\r\n", false),
    (b"*1\r\n$0\r\n\r\n", b"-ERR unknown command '', with args beginning with: \r\n", false),
    (b"*1\r\n$4\r\nPING\r\nPING\r\n*1\r\n$4\r\nPING\r\n", b"+PONG\r\n+PONG\r\n+PONG\r\n", false),
    // Counts that are none.
    (b"*abc\r\n", b"-ERR Protocol error: invalid multibulk length\r\n", true),
    (b"*\r\n", b"-ERR Protocol error: invalid multibulk length\r\n", true),
    (b"*1x\r\n", b"-ERR Protocol error: invalid multibulk length\r\n", true),
    (b"* 1\r\n", b"-ERR Protocol error: invalid multibulk length\r\n", true),
    (b"*+1\r\n", b"-ERR Protocol error: invalid multibulk length\r\n", true),
    (b"*1.0\r\n", b"-ERR Protocol error: invalid multibulk length\r\n", true),
    (b"*2147483648\r\n", b"-ERR Protocol error: invalid multibulk length\r\n", true),
    (b"*9223372036854775807\r\n", b"-ERR Protocol error: invalid multibulk length\r\n", true),
    (b"*9223372036854775808\r\n", b"-ERR Protocol error: invalid multibulk length\r\n", true),
    (b"*3\r\n*1\r\n", b"-ERR Protocol error: expected '$', got '*'\r\n", true),
    (b"*1\r\n:5\r\n", b"-ERR Protocol error: expected '$', got ':'\r\n", true),
    (b"*1\r\nPING\r\n", b"-ERR Protocol error: expected '$', got 'P'\r\n", true),
    (b"*1\r\n\r\n", b"-ERR Protocol error: expected '$', got ' '\r\n", true),
    (b"*1\r\n$-1\r\n", b"-ERR Protocol error: invalid bulk length\r\n", true),
    (b"*1\r\n$\r\n", b"-ERR Protocol error: invalid bulk length\r\n", true),
    (b"*1\r\n$abc\r\n", b"-ERR Protocol error: invalid bulk length\r\n", true),
    (b"*1\r\n$ 4\r\n", b"-ERR Protocol error: invalid bulk length\r\n", true),
    (b"*1\r\n$+4\r\n", b"-ERR Protocol error: invalid bulk length\r\n", true),
    (b"*1\r\n$536870913\r\n", b"-ERR Protocol error: invalid bulk length\r\n", true),
    (b"*1\r\n$9223372036854775808\r\n", b"-ERR Protocol error: invalid bulk length\r\n", true),
    (b"*2\r\n$3\r\nGET\r\n$99999999999\r\n", b"-ERR Protocol error: invalid bulk length\r\n", true),
    (b"*1\r\n$4\r\nPING\r\n*1\r\n$x\r\n", b"+PONG\r\n-ERR Protocol error: invalid bulk length\r\n", true),
    // The end of a conversation.
    (b"PING\r\nQUIT\r\nPING\r\n", b"+PONG\r\n+OK\r\n", true),
];

/// The table is true of Redis, and of us.
#[test]
fn table_of_bytes() {
    let (redis, ours) = (redis(), damselfly());
    let mut wrong = Vec::new();
    for (bytes, reply, closes) in TABLE {
        for (name, server) in [("redis", &redis), ("damselfly", &ours)] {
            let (found, closed) = exchange(server.address(), bytes);
            if (found.as_slice(), closed) != (*reply, *closes) {
                wrong.push(format!(
                    "{}\n  written   {} closed: {closes}\n  {name:<9} {} closed: {closed}",
                    shown(bytes),
                    shown(reply),
                    shown(&found)
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Lines that never end are refused after 64 KiB, each kind with its own text.
#[test]
fn lines_without_end() {
    let (redis, ours) = (redis(), damselfly());
    let long = |start: &[u8]| [start, &vec![b'1'; 70_000]].concat();
    for (start, text) in [
        (&b"P"[..], "too big inline request"),
        (b"*", "too big mbulk count string"),
        (b"*1\r\n$", "too big bulk count string"),
    ] {
        for server in [&redis, &ours] {
            let mut stream = connect(server.address());
            stream.write_all(&long(start)).ok();
            let (found, closed) = read_until(&mut stream, b"");
            let expected = format!("-ERR Protocol error: {text}\r\n");
            assert_eq!((shown(&found), closed), (shown(expected.as_bytes()), true));
        }
    }
}

/// A request may arrive in any pieces: here each byte alone, and then each cut in two.
#[test]
fn split_anywhere() {
    let ours = damselfly();
    let mut request = encode(&[b"SET", b"k", b"a\r\nb"]);
    request.extend_from_slice(b"GET k\r\n");
    request.extend_from_slice(&encode(&[b"APPEND", b"k", b"$3\r\n*1\r\n"]));
    request.extend_from_slice(&encode(&[b"ECHO", b""]));
    let reply = b"+OK\r\n$4\r\na\r\nb\r\n:12\r\n$0\r\n\r\n".to_vec();
    let read = |stream: &mut TcpStream| {
        let mut found = vec![0; reply.len()];
        stream.read_exact(&mut found).expect("the whole reply");
        found
    };
    let mut stream = connect(ours.address());
    for byte in &request {
        stream.write_all(&[*byte]).expect("sends");
    }
    assert_eq!(read(&mut stream), reply);
    for cut in 1..request.len() {
        let (head, tail) = request.split_at(cut);
        stream.write_all(head).expect("sends");
        // Another connection's round trip lets the server see the head alone.
        if cut % 8 == 0 {
            assert_answers(ours.address());
        }
        stream.write_all(tail).expect("sends");
        assert_eq!(read(&mut stream), reply, "cut at {cut}");
    }
}

/// Requests with a long argument, which is read apart, cut anywhere and with more behind them: as Redis answers, on one
/// shard and on several, alone and in a transaction, and also where somebody looks at them.
#[test]
fn long_arguments() {
    let long: Vec<u8> = (0..300_000u32).map(|n| (n * 7 % 251) as u8).collect();
    let requests: [&[&[u8]]; 33] = [
        &[b"SET", b"a", &long],
        &[b"SET", b"b", &long[..65_536]],
        &[b"SET", b"c", &long[..65_535]],
        &[b"SETNX", b"a", &long],
        &[b"GETSET", b"a", &long[1..]],
        &[b"APPEND", b"a", &long],
        &[b"SET", b"a", b"x", b"EX", &long],
        &[b"MULTI"],
        &[b"SET", b"d", &long],
        &[b"EXEC"],
        &[b"RPUSH", b"l", b"1", &long],
        &[b"SET", b"l", &long[..200_000]],
        &[b"SET", &long, &long],
        &[b"NOSUCH", &long],
        &[b"SET", b"a", &long, b"EX", b"1000"],
        &[b"SET", b"a", &long[2..], b"KEEPTTL"],
        &[b"TTL", b"a"],
        &[b"SET", b"a", &long, b"XX", b"GET", b"PXAT", b"9999999999999"],
        &[b"SET", b"a", &long[3..], b"NX", b"EX", b"1000"],
        &[b"SET", b"new", &long[3..], b"nx", b"PX", b"1000000"],
        &[b"SET", b"nothing", &long, b"XX"],
        &[b"SET", b"a", &long, b"EX", b"0"],
        &[b"SET", b"a", &long, b"EX", b"ten"],
        &[b"SET", b"a", &long, b"NOSUCH"],
        &[b"SETEX", b"b", b"1000", &long],
        &[b"PSETEX", b"b", b"1000000", &long[4..]],
        &[b"SETEX", b"b", b"-1", &long],
        &[b"APPEND", b"appended", &long],
        &[b"SETNX", b"new", &long],
        &[b"GETSET", b"l", &long],
        &[b"MSET", b"c", &long, b"d", &long],
        &[b"SET", b"a", &long, b"EX", &long],
        &[b"LSET", b"a", &long, &long],
    ];
    let mut stream_of_bytes = Vec::new();
    for request in requests {
        stream_of_bytes.extend(encode(request));
        stream_of_bytes.extend_from_slice(b"PING\r\n");
    }
    for key in ["a", "b", "c", "d", "l", "new", "nothing", "appended"] {
        stream_of_bytes.extend(encode(&[b"GET", key.as_bytes()]));
        stream_of_bytes.extend(encode(&[b"OBJECT", b"ENCODING", key.as_bytes()]));
    }
    stream_of_bytes.extend(encode(&[b"DEBUG", b"DIGEST"]));
    let redis = redis();
    for threads in [1, 4] {
        let ours = Server::start(Kind::Damselfly { threads }, &[]).unwrap_or_else(|error| panic!("{error}"));
        exchange(redis.address(), b"FLUSHALL\r\n");
        let [theirs, mine] = [&redis, &ours].map(|server| exchange(server.address(), &stream_of_bytes).0);
        assert!(mine == theirs, "{}\n{}", shown(&mine), shown(&theirs));
        // Once more, in pieces of odd sizes, with time between them for the server to read each alone.
        let (theirs, _) = exchange(redis.address(), &stream_of_bytes);
        let mut stream = connect(ours.address());
        let (mut reader, wanted) = (stream.try_clone().expect("another handle"), theirs.len());
        let replies = thread::spawn(move || {
            let mut replies = vec![0; wanted];
            reader.read_exact(&mut replies).expect("all replies");
            replies
        });
        let (mut rest, mut size) = (stream_of_bytes.as_slice(), 1);
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(rest.len().min(size));
            stream.write_all(piece).expect("sends");
            if size % 3 == 0 {
                assert_answers(ours.address());
            }
            (rest, size) = (behind, (size + 7919) % 100_003);
        }
        let mine = replies.join().expect("reads");
        assert!(mine == theirs, "{}\n{}", shown(&mine), shown(&theirs));
    }
}

/// A pipeline of a hundred thousand, written while its replies are read: all come, in order.
#[test]
fn long_pipeline() {
    const COUNT: usize = 100_000;
    let ours = damselfly();
    let mut stream = connect(ours.address());
    let mut writer = stream.try_clone().expect("a second handle");
    let sender = thread::spawn(move || {
        let request = encode(&[b"INCR", b"counter"]);
        for _ in 0..COUNT / 100 {
            writer.write_all(&request.repeat(100)).expect("sends");
        }
        writer.shutdown(Shutdown::Write).expect("shuts down");
    });
    let (found, closed) = read_until(&mut stream, b"");
    sender.join().expect("sent");
    let expected: String = (1..=COUNT).map(|number| format!(":{number}\r\n")).collect();
    assert!(closed, "the server closes after the last reply to a half-closed connection");
    assert!(found == expected.as_bytes(), "{} bytes of {} expected", found.len(), expected.len());
}

/// Twenty thousand commands over few keys, in pieces of any size: the streams of replies are equal.
#[test]
fn same_stream_as_redis() {
    let (redis, ours) = (redis(), damselfly());
    let mut random = Random::new(0x9E37_79B9_7F4A_7C15);
    let mut script = Vec::new();
    for _ in 0..20_000 {
        let key = format!("key{}", random.below(20)).into_bytes();
        let value = vec![b'a' + random.below(26) as u8; random.below(200) as usize];
        let number = random.below(1000).to_string().into_bytes();
        let words: Vec<&[u8]> = match random.below(16) {
            0 => vec![b"SET", &key, &value],
            1 => vec![b"GET", &key],
            2 => vec![b"INCRBY", &key, &number],
            3 => vec![b"APPEND", &key, &value],
            4 => vec![b"DEL", &key],
            5 => vec![b"SETRANGE", &key, b"3", &value],
            6 => vec![b"GETRANGE", &key, b"1", b"-2"],
            7 => vec![b"MSET", &key, &value, b"key1", &number],
            8 => vec![b"MGET", b"key1", b"key2", &key, b"key3"],
            9 => vec![b"EXISTS", b"key4", b"key5", &key],
            10 => vec![b"STRLEN", &key],
            11 => vec![b"GETDEL", &key],
            12 => vec![b"RENAME", &key, b"key6"],
            13 => vec![b"SETNX", &key, &number],
            14 => vec![b"COPY", &key, b"key7", b"REPLACE"],
            _ => vec![b"DECR", &key],
        };
        script.extend_from_slice(&encode(&words));
    }
    let play = |server: &Server, mut random: Random| {
        let mut stream = connect(server.address());
        let mut writer = stream.try_clone().expect("a second handle");
        let bytes = script.clone();
        let sender = thread::spawn(move || {
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let size = (1 + random.below(5000) as usize).min(rest.len());
                writer.write_all(&rest[..size]).expect("sends");
                rest = &rest[size..];
            }
            writer.write_all(&encode(&[b"ECHO", SENTINEL.as_bytes()])).expect("sends");
        });
        let (found, _) = read_until(&mut stream, format!("${}\r\n{SENTINEL}\r\n", SENTINEL.len()).as_bytes());
        sender.join().expect("sent");
        found
    };
    let (theirs, found) = (play(&redis, Random::new(7)), play(&ours, Random::new(8)));
    let same = theirs.iter().zip(&found).take_while(|(one, two)| one == two).count();
    let around =
        |bytes: &[u8]| quoted(&bytes[same.saturating_sub(40).min(bytes.len())..bytes.len().min(same + 40)]);
    assert!(
        theirs == found,
        "from byte {same}\n  redis     {}\n  damselfly {}",
        around(&theirs),
        around(&found)
    );
}

/// A client that half-closes still gets its replies, then the end.
#[test]
fn half_close() {
    for server in [redis(), damselfly()] {
        let mut stream = connect(server.address());
        stream.write_all(b"SET k v\r\nGET k\r\n*2\r\n$3\r\nGE").expect("sends");
        stream.shutdown(Shutdown::Write).expect("shuts down");
        let (found, closed) = read_until(&mut stream, b"");
        assert_eq!((shown(&found), closed), (shown(b"+OK\r\n$1\r\nv\r\n"), true));
        assert_answers(server.address());
    }
}

/// 64 MiB of noise, and of requests with flipped bytes: everybody else is still answered.
#[test]
fn noise() {
    let ours = damselfly();
    let before = resident(&ours);
    let mut random = Random::new(0xDEAD_BEEF);
    let mut stream = connect(ours.address());
    stream.set_read_timeout(Some(Duration::from_millis(1))).expect("a timeout");
    let mut sink = vec![0; 1 << 20];
    for round in 0..1024 {
        let mut bytes = if round % 2 == 0 {
            (0..8192).flat_map(|_| random.bits().to_le_bytes()).collect()
        } else {
            encode(&[b"SET", b"noise", b"some value", b"EX", b"1000"]).repeat(1200)
        };
        if round % 2 == 1 {
            for _ in 0..random.below(20) {
                let place = random.below(bytes.len() as u64) as usize;
                bytes[place] = random.bits() as u8;
            }
        }
        // Full of replies that nobody reads, or closed by the server: a new connection either way.
        let written = stream
            .set_write_timeout(Some(Duration::from_millis(200)))
            .and_then(|()| stream.write_all(&bytes));
        let ended = matches!(stream.read(&mut sink), Ok(0));
        if written.is_err() || ended || round % 16 == 0 {
            stream = connect(ours.address());
            stream.set_read_timeout(Some(Duration::from_millis(1))).expect("a timeout");
        }
        if round % 64 == 0 {
            assert_answers(ours.address());
        }
    }
    assert_answers(ours.address());
    let grown = resident(&ours).saturating_sub(before);
    assert!(grown < 64 << 20, "64 MiB of noise cost {} MiB", grown >> 20);
}

/// Ten thousand connections that come and go, most without a word, some in the middle of one: a client that was there
/// before gets every answer, and nothing is left of them.
#[test]
fn connects_by_the_thousand() {
    const THREADS: usize = 4;
    const EACH: usize = 2500;
    let ours = damselfly();
    let address = ours.address();
    assert_answers(address);
    let before = resident(&ours);
    let mut patient = connect(address);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for round in 0..EACH {
                    let mut stream = connect(address);
                    // An abrupt end: the ports of closed connections would run out otherwise.
                    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("an option");
                    if round % 5 == 0 {
                        stream.write_all(b"*2\r\n$3\r\nGE").expect("sends");
                    }
                }
            });
        }
        for number in 1..=2000 {
            patient.write_all(b"INCR patience\r\n").expect("sends");
            let expected = format!(":{number}\r\n");
            let mut found = vec![0; expected.len()];
            patient.read_exact(&mut found).expect("a reply");
            assert_eq!(String::from_utf8_lossy(&found), expected);
        }
    });
    // Those that are closed but not yet noticed are a matter of milliseconds.
    let began = std::time::Instant::now();
    loop {
        let (found, _) = exchange(address, b"INFO clients\r\n");
        if String::from_utf8_lossy(&found).contains("connected_clients:2\r\n") {
            break;
        }
        assert!(began.elapsed() < TIMEOUT, "connections stay");
        thread::sleep(Duration::from_millis(10));
    }
    let grown = resident(&ours).saturating_sub(before);
    assert!(grown < 32 << 20, "ten thousand connections left {} MiB", grown >> 20);
}

/// Connections that are left in the middle of a request and never closed cost what they sent and little more, and
/// nobody waits for them.
#[test]
fn half_open_connections() {
    const COUNT: usize = 500;
    let ours = damselfly();
    assert_answers(ours.address());
    let before = resident(&ours);
    let half = [&b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000\r\n"[..], &[b'x'; 10_000]].concat();
    let silent: Vec<TcpStream> = (0..COUNT)
        .map(|_| {
            let mut stream = connect(ours.address());
            stream.write_all(&half).expect("sends");
            stream
        })
        .collect();
    for _ in 0..20 {
        assert_answers(ours.address());
    }
    let grown = resident(&ours).saturating_sub(before);
    let sent = COUNT * half.len();
    assert!(grown < 4 * sent as u64 + (8 << 20), "{sent} bytes in halves cost {grown}");
    drop(silent);
    let (found, _) = exchange(ours.address(), b"EXISTS k\r\n");
    assert_eq!(shown(&found), shown(b":0\r\n"));
}

/// Announced lengths cost nothing: memory follows the bytes that came.
#[test]
fn announcements_cost_nothing() {
    let ours = damselfly();
    let before = resident(&ours);
    let mut clients = Vec::new();
    for _ in 0..100 {
        let mut stream = connect(ours.address());
        stream.write_all(b"*1000000\r\n$536870912\r\nabc").expect("sends");
        clients.push(stream);
    }
    assert_answers(ours.address());
    let grown = resident(&ours).saturating_sub(before);
    assert!(grown < 64 << 20, "100 announcements of 512 MiB cost {} MiB", grown >> 20);
}

/// A client that asks for a gigabyte and reads nothing of it neither fills the memory nor stops the others.
#[test]
fn client_that_never_reads() {
    let ours = damselfly();
    let value = vec![b'x'; 1 << 20];
    let (reply, _) = exchange(ours.address(), &encode(&[b"SET", b"big", &value]));
    assert_eq!(shown(&reply), shown(b"+OK\r\n"));
    let before = resident(&ours);
    let mut rude = connect(ours.address());
    rude.set_write_timeout(Some(Duration::from_millis(500))).expect("a timeout");
    // The server may stop reading, so that this write does not end.
    rude.write_all(&encode(&[b"GET", b"big"]).repeat(1024)).ok();
    for _ in 0..20 {
        assert_answers(ours.address());
    }
    let grown = resident(&ours).saturating_sub(before);
    assert!(grown < 512 << 20, "a client that does not read costs {} MiB", grown >> 20);
    drop(rude);
    assert_answers(ours.address());
}

/// Five hundred clients at once, each with its own database and values.
#[test]
fn many_clients() {
    let ours = damselfly();
    let mut clients: Vec<TcpStream> = (0..500).map(|_| connect(ours.address())).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        let request =
            format!("SELECT {}\r\nSET client:{number} {number}\r\nGET client:{number}\r\n", number % 16);
        client.write_all(request.as_bytes()).expect("sends");
    }
    for (number, client) in clients.iter_mut().enumerate() {
        let digits = number.to_string();
        let expected = format!("+OK\r\n+OK\r\n${}\r\n{digits}\r\n", digits.len());
        let mut found = vec![0; expected.len()];
        client.read_exact(&mut found).expect("a reply");
        assert_eq!(String::from_utf8_lossy(&found), expected);
    }
}

/// Clients that leave in the middle of a request, or of a reply, leave nothing behind.
#[test]
fn clients_that_leave() {
    let ours = damselfly();
    let value = vec![b'x'; 8 << 20];
    let (reply, _) = exchange(ours.address(), &encode(&[b"SET", b"big", &value]));
    assert_eq!(shown(&reply), shown(b"+OK\r\n"));
    for round in 0..200_usize {
        let mut stream = connect(ours.address());
        let request = encode(&[b"GET", b"big"]);
        stream.write_all(&request[..1 + round % request.len()]).expect("sends");
        if round % 3 == 0 {
            stream.shutdown(Shutdown::Both).expect("shuts down");
        }
    }
    assert_answers(ours.address());
}
