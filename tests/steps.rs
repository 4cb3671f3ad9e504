//! Commands over big collections: done in steps, and to everybody as if done at once.

use std::thread;
use std::time::{Duration, Instant};

use damselfly_tests::client::Client;
use damselfly_tests::reply::Reply;
use damselfly_tests::servers::{Kind, Server};

/// Members of each source; half of them are those of the other, too.
const COUNT: usize = 12_000;

fn start(threads: usize) -> (Server, Client) {
    let server = Server::start(Kind::Damselfly { threads }, &[]).unwrap_or_else(|error| panic!("{error}"));
    let client = Client::open(server.address());
    (server, client)
}

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

fn call(client: &mut Client, line: &str) -> Reply {
    let reply = client.call(&words(line));
    assert!(!matches!(reply, Reply::Error(_)), "{line}: {reply}");
    reply
}

fn send(client: &mut Client, lines: &[&str]) {
    client.send(&lines.iter().map(|line| words(line)).collect::<Vec<_>>());
}

fn simple(text: &str) -> Reply {
    Reply::Simple(text.into())
}

/// Makes the sources set1 and set2, zset1 and zset2, and places.
fn fill(client: &mut Client, count: usize) {
    for (number, from) in [(1, 0), (2, count / 2)] {
        for batch in (from..from + count).collect::<Vec<_>>().chunks(5000) {
            let plain: String = batch.iter().map(|at| format!(" member:{at}")).collect();
            let scored: String = batch.iter().map(|at| format!(" {} member:{at}", at % 1000)).collect();
            call(client, &format!("SADD set{number}{plain}"));
            call(client, &format!("ZADD zset{number}{scored}"));
        }
    }
    for batch in (0..count).collect::<Vec<_>>().chunks(5000) {
        let places: String = batch
            .iter()
            .map(|at| format!(" {}.{} {}.{} place:{at}", at % 7, at % 100, at % 5, at % 90))
            .collect();
        call(client, &format!("GEOADD places{places}"));
    }
}

/// Commands over both sources, the type that they leave under `to` (none if they only reply), and how many members
/// that has or the reply.
fn commands() -> Vec<(&'static str, Option<&'static str>, usize)> {
    let (all, both, one) = (COUNT + COUNT / 2, COUNT / 2, COUNT / 2);
    vec![
        ("SUNIONSTORE to set1 set2", Some("set"), all),
        ("SINTERSTORE to set1 set2", Some("set"), both),
        ("SDIFFSTORE to set1 set2", Some("set"), one),
        ("ZUNIONSTORE to 2 zset1 zset2", Some("zset"), all),
        ("ZINTERSTORE to 2 zset1 zset2", Some("zset"), both),
        ("ZDIFFSTORE to 2 zset1 zset2", Some("zset"), one),
        ("ZRANGESTORE to zset1 0 -1", Some("zset"), COUNT),
        ("SORT set1 ALPHA STORE to", Some("list"), COUNT),
        ("SORT zset1 ALPHA LIMIT 10 100", None, 100),
        ("GEOSEARCHSTORE to places FROMLONLAT 3 2 BYRADIUS 2000 km", Some("zset"), COUNT),
        ("GEORADIUS places 3 2 2000 km COUNT 11000 STOREDIST to", Some("zset"), 11_000),
        ("GEOSEARCH places FROMLONLAT 3 2 BYRADIUS 2000 km", None, COUNT),
        ("GEOSEARCH places FROMLONLAT 3 2 BYRADIUS 2000 km DESC COUNT 10", None, 10),
        ("DUMP zset1", None, COUNT),
        ("SSCAN set1 0 COUNT 1000000", None, COUNT),
        ("SUNION set1 set2", None, all),
        ("SINTER set1 set2", None, both),
        ("SDIFF set1 set2", None, one),
        ("ZUNION 2 zset1 zset2", None, all),
        ("ZINTER 2 zset1 zset2", None, both),
        ("ZDIFF 2 zset1 zset2", None, one),
        ("SINTERCARD 2 set1 set2", None, both),
        ("ZINTERCARD 2 zset1 zset2", None, both),
    ]
}

/// The number that such a command gives.
fn size_of(reply: &Reply) -> usize {
    match reply {
        Reply::Int(number) => *number as usize,
        Reply::Array(elements) => match &elements[..] {
            [Reply::Bulk(cursor), Reply::Array(members)] if cursor == b"0" => members.len(),
            elements => elements.len(),
        },
        Reply::Bulk(payload) => match damselfly_rdb::dump::decode_value(payload) {
            Ok(damselfly_rdb::Value::ZSet(members)) => members.len(),
            other => panic!("{other:?}"),
        },
        other => panic!("{other}"),
    }
}

/// How often a command is tried until somebody else has a reply while it goes on. One try is enough unless the machine is
/// busy with other things, or the threads of those concerned are never run at the same time.
const TRIES: usize = 2000;

/// Sends a command in a pipeline and waits until it was begun, on one thread, or is about to, on several. Returns
/// whether it goes on now.
fn begin(big: &mut Client, other: &mut Client, lines: &[&str]) -> bool {
    call(other, "DEL begun");
    send(big, &[&["CLIENT REPLY SKIP", "SET begun 1"], lines].concat());
    while call(other, "EXISTS begun") == Reply::Int(0) {}
    !big.has_reply()
}

/// As [`begin`], until a try finds the command under way: the machine may be busy with other things.
fn catch(big: &mut Client, other: &mut Client, line: &str) {
    for _ in 0..TRIES {
        if begin(big, other, &[line]) {
            return;
        }
        big.reply();
    }
    panic!("{line} is always over before anybody else has a reply");
}

/// While the command of one client goes on, others are answered, even those who write to its sources, and it shows
/// what was there when it began. Those who come to its target wait, and find the result.
#[test]
fn others_go_on() {
    for threads in [1, 4] {
        let (server, mut other) = start(threads);
        fill(&mut other, COUNT);
        for (line, kind, size) in commands() {
            let mut next = Client::open(server.address());
            let mut met = false;
            for _ in 0..TRIES {
                // On another core than before: there it may be met more easily.
                let mut big = Client::open(server.address());
                call(&mut other, "SET to old");
                met = begin(&mut big, &mut other, &[line, "TYPE to"]);
                if threads == 1 {
                    call(&mut other, "SADD set1 new");
                    call(&mut other, "SREM set2 member:15000");
                    call(&mut other, "ZADD zset2 1 new");
                    send(&mut next, &["TYPE to", "SADD to extra", "ZADD to 1 extra"]);
                    call(&mut other, "DEL zset1 places");
                }
                assert_eq!(size_of(&big.reply()), size, "{line}, {threads} threads");
                assert_eq!(big.reply(), simple(kind.unwrap_or("string")), "{line}, {threads} threads");
                if threads == 1 {
                    assert_eq!(next.reply(), simple(kind.unwrap_or("string")), "{line}");
                    let added = [next.reply(), next.reply()].map(|reply| reply == Reply::Int(1));
                    assert_eq!(added, [kind == Some("set"), kind == Some("zset")], "{line}");
                    call(&mut other, "DEL set1 set2 zset1 zset2 places");
                    fill(&mut other, COUNT);
                }
                if met {
                    break;
                }
            }
            assert!(met, "{line}, {threads} threads: always over before anybody else has a reply");
        }
    }
}

/// What is run before commands that change one big collection in its place, the commands, the size of their replies
/// (0 of OK), and how many elements are left.
fn changes() -> Vec<(&'static str, String, usize, usize)> {
    let half = COUNT / 2;
    // Few enough to be read at once: a client that sees what came before them knows that they have begun.
    let some = COUNT / 8;
    let many = |head: &str, mut unit: Box<dyn FnMut(usize) -> String>| {
        (0..some).fold(head.to_owned(), |line, at| line + &unit(at))
    };
    let simple = [
        ("COPY zset1 to", "ZREMRANGEBYRANK to 100 -101", COUNT - 200, 200),
        ("COPY zset1 to", "ZREMRANGEBYSCORE to 0 (500", half, half),
        ("COPY places to", "ZREMRANGEBYRANK to 0 -2", COUNT - 1, 1),
        ("COPY zset1 to", "ZPOPMAX to 11000", 2 * 11_000, COUNT - 11_000),
        ("PING", "RESTORE to 0 DUMP", 0, COUNT),
    ];
    let with_many_arguments = [
        ("COPY zset1 to", many("ZREM to", Box::new(|at| format!(" member:{}", 2 * at))), some, COUNT - some),
        ("COPY zset1 to", many("ZADD to", Box::new(|at| format!(" {at} new:{at}"))), some, COUNT + some),
        ("PING", many("ZADD to", Box::new(|at| format!(" {at} new:{at}"))), some, some),
    ];
    let simple = simple.map(|(before, line, size, left)| (before, line.to_owned(), size, left));
    simple.into_iter().chain(with_many_arguments).collect()
}

/// Those who do not name a key that is changed in steps, but look at it, find it as it was or as it is then.
#[test]
fn what_is_lent_is_not_met() {
    let (server, mut other) = start(1);
    let set = (0..20_000).fold("HSET weights".to_owned(), |line, at| format!("{line} f:{at} 1"));
    call(&mut other, "RPUSH list w");
    let mut met = 0;
    for _ in 0..TRIES {
        call(&mut other, "DEL weights");
        call(&mut other, "HSET weights old 7");
        let mut big = Client::open(server.address());
        met += usize::from(begin(&mut big, &mut other, &[&set]));
        let seven = Reply::Array(vec![Reply::Bulk(b"7".to_vec())]);
        assert_eq!(call(&mut other, "SORT list BY nosort GET *eights->old"), seven);
        assert_eq!(big.reply(), Reply::Int(20_000));
        if met == 3 {
            return;
        }
    }
    panic!("always over before anybody else has a reply");
}

/// While a command changes its key, nobody sees it half changed, and those who come to other keys do not wait.
#[test]
fn changes_are_whole() {
    for threads in [1, 4] {
        let (server, mut other) = start(threads);
        fill(&mut other, COUNT);
        call(&mut other, "DEBUG AT-ONCE-MAX 100");
        let Reply::Bulk(payload) = call(&mut other, "DUMP zset1") else { panic!("DUMP replies with bytes") };
        for (before, line, size, left) in changes() {
            let name = line.get(..50).unwrap_or(&line);
            let words: Vec<&[u8]> = line
                .split(' ')
                .map(|word| if word == "DUMP" { &payload[..] } else { word.as_bytes() })
                .collect();
            let (mut big, mut next) = (Client::open(server.address()), Client::open(server.address()));
            let mut met = false;
            for _ in 0..TRIES {
                call(&mut other, "DEL to begun");
                call(&mut other, before);
                send(&mut big, &["CLIENT REPLY SKIP", "SET begun 1"]);
                big.send(&[words.clone(), vec![b"ZCARD", b"to"]]);
                while call(&mut other, "EXISTS begun") == Reply::Int(0) {}
                met = !big.has_reply();
                if threads == 1 {
                    send(&mut next, &["ZCARD to", "ZADD to 1 extra"]);
                }
                call(&mut other, "SADD set1 new");
                let reply = big.reply();
                if reply.to_string().contains("BUSYKEY") {
                    // The payload takes several reads, and the one that adds a member came between them.
                    drop([big.reply(), next.reply(), next.reply()]);
                    continue;
                }
                let got = if reply == simple("OK") { 0 } else { size_of(&reply) };
                assert_eq!(got, size, "{name}, {threads} threads");
                // The one that came meanwhile may have added its member.
                let size = size_of(&big.reply());
                assert!(
                    size == left || size == left + 1 && threads == 1,
                    "{name}, {threads} threads: {size}"
                );
                if threads == 1 {
                    assert_eq!(next.reply(), Reply::Int(left as i64), "{name}");
                    assert_eq!(next.reply(), Reply::Int(1), "{name}");
                }
                if met {
                    break;
                }
            }
            assert!(met, "{name}, {threads} threads: always over before anybody else has a reply");
        }
        call(&mut other, "DEBUG RELOAD");
    }
}

/// Inside of transactions and scripts the same happens at once.
#[test]
fn transactions_are_not_cut() {
    for threads in [1, 4] {
        let (_server, mut client) = start(threads);
        fill(&mut client, COUNT);
        for (line, kind, size) in commands() {
            call(&mut client, "SET to old");
            send(&mut client, &["MULTI", line, "TYPE to", "EXEC"]);
            for _ in 0..3 {
                client.reply();
            }
            let Reply::Array(replies) = client.reply() else { panic!("{line}: EXEC replies to each") };
            assert_eq!(size_of(&replies[0]), size, "{line}");
            assert_eq!(replies[1], simple(kind.unwrap_or("string")), "{line}");
            call(&mut client, "SET to old");
            let script = "local r = redis.call(unpack(ARGV)) if type(r) == 'table' then \
                if type(r[2]) == 'table' then r = r[2] end r = #r end \
                return {r, redis.call('TYPE', 'to').ok}";
            let reply = client.call(&[&["EVAL", script, "0"], &*words(line)].concat());
            let Reply::Array(replies) = reply else { panic!("{line}: {reply}") };
            assert_eq!(size_of(&replies[0]), size, "{line}");
            assert_eq!(replies[1].text(), Some(kind.unwrap_or("string").as_bytes()), "{line}");
        }
    }
}

/// Who goes leaves no lock: what was to be stored is, and what was to be read costs nothing any more.
#[test]
fn a_client_may_go() {
    for threads in [1, 4] {
        let (server, mut other) = start(threads);
        fill(&mut other, COUNT);
        for (line, kind, size) in commands() {
            call(&mut other, "DEL to");
            let mut big = Client::open(server.address());
            begin(&mut big, &mut other, &[line]);
            drop(big);
            let Some(kind) = kind else { continue };
            // On several threads it may not have begun.
            loop {
                let found = call(&mut other, "TYPE to");
                if found == simple(kind) {
                    break;
                }
                assert_eq!(found, simple("none"), "{line}");
            }
            let count = match kind {
                "set" => "SCARD to",
                "zset" => "ZCARD to",
                _ => "LLEN to",
            };
            assert_eq!(size_of(&call(&mut other, count)), size, "{line}");
        }
        call(&mut other, "MSET to free set1 free set2 free zset1 free zset2 free");
    }
}

/// Whatever concerns all keys comes behind what was begun before, and nothing is lost in between.
#[test]
fn whole_databases_wait() {
    let (server, mut other) = start(1);
    fill(&mut other, COUNT);
    let line = "SUNIONSTORE to set1 set2";
    let all = COUNT + COUNT / 2;
    let mut big = Client::open(server.address());

    // A snapshot, and the loading of it, have the result.
    catch(&mut big, &mut other, line);
    call(&mut other, "DEBUG RELOAD");
    assert_eq!(size_of(&big.reply()), all);
    assert_eq!(size_of(&call(&mut other, "SCARD to")), all);

    // SWAPDB takes it away.
    catch(&mut big, &mut other, line);
    call(&mut other, "SWAPDB 0 1");
    assert_eq!(call(&mut other, "EXISTS to"), Reply::Int(0));
    assert_eq!(size_of(&big.reply()), all);
    call(&mut other, "SWAPDB 0 1");
    assert_eq!(size_of(&call(&mut other, "SCARD to")), all);

    // What moves a key or a copy of it into the database of the target waits too, wherever it comes from.
    let mut mover = Client::open(server.address());
    call(&mut mover, "SELECT 3");
    for (moves, reply) in [("MOVE to 0", 0), ("COPY from to DB 0", 0), ("COPY from to DB 0 REPLACE", 1)] {
        call(&mut mover, "MSET to moved from copied");
        call(&mut other, "DEL to");
        catch(&mut big, &mut other, line);
        assert_eq!(call(&mut mover, moves), Reply::Int(reply), "{moves}");
        assert!(big.has_reply(), "{moves}");
        assert_eq!(size_of(&big.reply()), all);
        let left = if reply == 0 { "set" } else { "string" };
        assert_eq!(call(&mut other, "TYPE to"), simple(left), "{moves}");
    }
    call(&mut mover, "FLUSHDB");

    // No change comes behind the beginning of a pause.
    call(&mut other, "DEL to");
    catch(&mut big, &mut other, line);
    call(&mut other, "CLIENT PAUSE 100000 WRITE");
    assert!(big.has_reply());
    assert_eq!(call(&mut other, "TYPE to"), simple("set"));
    call(&mut other, "CLIENT UNPAUSE");
    assert_eq!(size_of(&big.reply()), all);

    // Who watches the target learns of it.
    call(&mut other, "WATCH to");
    catch(&mut big, &mut other, line);
    send(&mut other, &["MULTI", "SCARD to", "EXEC"]);
    for _ in 0..2 {
        other.reply();
    }
    assert!(other.reply().is_null());
    assert_eq!(size_of(&big.reply()), all);

    // Scripts over all keys, and then none is left.
    catch(&mut big, &mut other, line);
    let script = "return redis.call('SCARD', 'to')";
    assert_eq!(size_of(&other.call(&["EVAL", script, "0"])), all);
    assert_eq!(size_of(&big.reply()), all);
    catch(&mut big, &mut other, line);
    call(&mut other, "FLUSHALL");
    assert_eq!(call(&mut other, "DBSIZE"), Reply::Int(0));
    assert_eq!(size_of(&big.reply()), all);
    assert_eq!(call(&mut other, "DBSIZE"), Reply::Int(0));

    // The end does not wait for it.
    fill(&mut other, COUNT);
    catch(&mut big, &mut other, line);
    send(&mut other, &["SHUTDOWN NOSAVE"]);
    assert!(other.is_closed());
}

/// Neither what expires among the sources nor the target's own end changes the result.
#[test]
fn what_expires() {
    for threads in [1, 4] {
        let (server, mut other) = start(threads);
        let mut big = Client::open(server.address());
        let all = COUNT + COUNT / 2;
        for millis in [1, 5, 20] {
            fill(&mut other, COUNT);
            let soon = format!("PEXPIRE set1 {millis}");
            let target = format!("SET to old PX {millis}");
            send(&mut big, &[&soon, &target, "SUNIONSTORE to set1 set2", "PTTL to"]);
            assert_eq!(big.reply(), Reply::Int(1));
            assert_eq!(big.reply(), simple("OK"));
            let size = size_of(&big.reply());
            // Its sources were there or not when it began.
            assert!(size == all || size == COUNT, "{size}");
            assert_eq!(big.reply(), Reply::Int(-1), "a result does not expire");
            call(&mut other, "FLUSHALL");
        }
    }
}

/// A client that keeps what it read is told of a change behind the reply that does not show it.
#[test]
fn invalidations_come_behind() {
    for threads in [1, 4] {
        let (server, mut other) = start(threads);
        fill(&mut other, COUNT);
        for (at, line) in ["SUNION set1 set2", "SINTER set1 set2", "ZUNION 2 zset2 zset1"].iter().enumerate()
        {
            let mut reader = Client::open(server.address());
            assert!(matches!(reader.call(&["HELLO", "3"]), Reply::Map(_)));
            call(&mut reader, "CLIENT TRACKING ON");
            begin(&mut reader, &mut other, &[line]);
            let mut change = |word: &str| {
                call(&mut other, &format!("SADD set1 {word}:{at}"));
                call(&mut other, &format!("ZADD zset2 1 {word}:{at}"));
            };
            change("more");
            let first = reader.reply();
            assert!(!matches!(first, Reply::Push(_)), "{line}, {threads} threads: {first}");
            // On several threads it may have begun behind the first change.
            change("again");
            let second = reader.reply();
            assert!(matches!(second, Reply::Push(_)), "{line}, {threads} threads: {second}");
        }
    }
}

/// Makes streams of so many entries, each with a group that has read nothing.
fn fill_streams(client: &mut Client, keys: &[&str], count: usize) {
    for key in keys {
        let lines: Vec<String> = (1..=count).map(|at| format!("XADD {key} {at}-1 f {at}")).collect();
        for some in lines.chunks(2000) {
            send(client, &some.iter().map(String::as_str).collect::<Vec<_>>());
            some.iter().for_each(|_| assert!(matches!(client.reply(), Reply::Bulk(_))));
        }
        call(client, &format!("XGROUP CREATE {key} g 0"));
    }
}

/// How many entries of each stream a reply to XREAD or XREADGROUP has.
fn read_of(reply: &Reply) -> Vec<usize> {
    let Reply::Array(streams) = reply else { panic!("{reply}") };
    let of_one = |stream: &Reply| match stream {
        Reply::Array(pair) => size_of(&pair[1]),
        other => panic!("{other}"),
    };
    streams.iter().map(of_one).collect()
}

/// A group's consumer that reads all of a stream is given it in steps: others go on, those who come to the stream find
/// all of it delivered, and what it has pending is read, claimed, shown and acknowledged likewise.
#[test]
fn streams_are_read_in_steps() {
    for threads in [1, 4] {
        let (server, mut other) = start(threads);
        fill_streams(&mut other, &["x"], COUNT);
        let ids = (1..=COUNT / 8).fold(String::new(), |line, at| format!("{line} {at}-1"));
        let rest = COUNT - COUNT / 8;
        let lines = [
            ("XREADGROUP GROUP g one STREAMS x >".to_owned(), COUNT, COUNT),
            ("XREADGROUP GROUP g one STREAMS x 0".to_owned(), COUNT, COUNT),
            ("XPENDING x g - + 1000000 one".to_owned(), COUNT, COUNT),
            ("XAUTOCLAIM x g two 0 - COUNT 1000000".to_owned(), COUNT, COUNT),
            (format!("XCLAIM x g one 0{ids}"), COUNT / 8, COUNT),
            (format!("XACK x g{ids}"), COUNT / 8, rest),
            (format!("XDEL x{ids}"), COUNT / 8, rest),
        ];
        for (line, size, pending) in lines {
            let name = line.get(..40).unwrap_or(&line);
            call(&mut other, "DEL begun");
            let mut big = Client::open(server.address());
            send(&mut big, &["CLIENT REPLY SKIP", "SET begun 1", &line]);
            while call(&mut other, "EXISTS begun") == Reply::Int(0) {}
            let mut next = Client::open(server.address());
            send(&mut next, &["XPENDING x g"]);
            let reply = big.reply();
            let got = match &reply {
                Reply::Int(count) => *count as usize,
                reply if name.starts_with("XREADGROUP") => read_of(reply)[0],
                Reply::Array(parts) if name.starts_with("XAUTOCLAIM") => size_of(&parts[1]),
                reply => size_of(reply),
            };
            assert_eq!(got, size, "{name}, {threads} threads");
            let Reply::Array(summary) = next.reply() else { panic!("{name}: XPENDING") };
            // On several threads it may have come before.
            assert!(summary[0] == Reply::Int(pending as i64) || threads > 1, "{name}: {}", summary[0]);
        }
        call(&mut other, "DEBUG RELOAD");
        assert_eq!(call(&mut other, "XLEN x"), Reply::Int(rest as i64));
    }
}

/// Several streams at once, on one shard or on several, all of each, whole and in pieces, in a pipeline.
#[test]
fn several_streams_are_read_in_steps() {
    for threads in [1, 4] {
        let (server, mut other) = start(threads);
        fill_streams(&mut other, &["x", "y", "z"], COUNT);
        let mut big = Client::open(server.address());
        send(
            &mut big,
            &[
                "PING",
                "XREADGROUP GROUP g one STREAMS x y z > > >",
                "XREAD STREAMS x y z 0 6000-1 0",
                "XREAD BLOCK 1000 STREAMS z y x 11999-1 0 0",
                "XREADGROUP GROUP g one BLOCK 10 STREAMS x y > >",
                "XREADGROUP GROUP g one COUNT 5000 STREAMS z y 0 >",
                "XRANGE y 7 11998",
                "PING",
            ],
        );
        assert_eq!(big.reply(), simple("PONG"));
        assert_eq!(read_of(&big.reply()), [COUNT; 3], "{threads} threads");
        assert_eq!(read_of(&big.reply()), [COUNT, COUNT - 6000, COUNT]);
        assert_eq!(read_of(&big.reply()), [1, COUNT, COUNT]);
        assert!(big.reply().is_null());
        assert_eq!(read_of(&big.reply()), [5000]);
        assert_eq!(size_of(&big.reply()), COUNT - 8);
        assert_eq!(big.reply(), simple("PONG"));
        for key in ["x", "y", "z"] {
            let Reply::Array(summary) = call(&mut other, &format!("XPENDING {key} g")) else { panic!() };
            assert_eq!(summary[0], Reply::Int(COUNT as i64));
        }
        // In a transaction it is one go.
        send(&mut big, &["MULTI", "XREADGROUP GROUP g one STREAMS x y 0 0", "XREAD STREAMS x 0", "EXEC"]);
        (0..3).for_each(|_| drop(big.reply()));
        let Reply::Array(replies) = big.reply() else { panic!("EXEC replies to each") };
        assert_eq!(read_of(&replies[0]), [COUNT; 2]);
        assert_eq!(read_of(&replies[1]), [COUNT]);
    }
}

/// Who waits for a stream to which much comes at once gets it in steps, in the order of arrival: the next one has nothing
/// until more comes.
#[test]
fn who_waits_is_served_in_steps() {
    for threads in [1, 4] {
        let (server, mut other) = start(threads);
        fill_streams(&mut other, &["x", "y"], COUNT);
        for round in 0..4 {
            call(&mut other, "XGROUP SETID x g $");
            let blocked = |other: &mut Client, count: usize| {
                let info = call(other, "INFO clients");
                let text = String::from_utf8_lossy(info.text().expect("text")).into_owned();
                text.contains(&format!("blocked_clients:{count}\r\n"))
            };
            // Those of the round before are gone.
            while !blocked(&mut other, 0) {}
            let mut waiting = [(); 3].map(|()| Client::open(server.address()));
            send(&mut waiting[0], &["XREADGROUP GROUP g one BLOCK 0 STREAMS x >", "PING"]);
            while !blocked(&mut other, 1) {}
            send(&mut waiting[1], &["XREADGROUP GROUP g two BLOCK 0 STREAMS x >", "PING"]);
            send(&mut waiting[2], &["XREAD BLOCK 0 STREAMS x $", "PING"]);
            while !blocked(&mut other, 3) {}
            if round == 3 {
                // Who goes while it is served leaves no lock.
                send(&mut other, &["XGROUP SETID x g 0"]);
                assert_eq!(other.reply(), simple("OK"));
                waiting.into_iter().for_each(drop);
                call(&mut other, "XADD x * f v");
                continue;
            }
            // The group begins anew, alone or in a transaction.
            match round {
                0 => drop(call(&mut other, "XGROUP SETID x g 0")),
                1 => {
                    send(&mut other, &["MULTI", "XGROUP SETID x g 0", "SET y2 v", "EXEC"]);
                    (0..4).for_each(|_| drop(other.reply()));
                }
                _ => {
                    drop(other.call(&["EVAL", "redis.call('XGROUP', 'SETID', 'x', 'g', '0') return 1", "0"]))
                }
            }
            let len = size_of(&call(&mut other, "XLEN x"));
            assert_eq!(read_of(&waiting[0].reply()), [len], "{threads} threads");
            assert_eq!(waiting[0].reply(), simple("PONG"));
            assert!(!waiting[1].has_reply() && !waiting[2].has_reply());
            call(&mut other, "XADD x * f v");
            for client in &mut waiting[1..] {
                assert_eq!(read_of(&client.reply()), [1], "{threads} threads");
                assert_eq!(client.reply(), simple("PONG"));
            }
        }
        call(&mut other, "DEL x");
        call(&mut other, "FLUSHALL");
    }
}

/// The numbers in a reply.
fn numbers_of(reply: &Reply) -> Vec<usize> {
    let Reply::Array(elements) = reply else { panic!("{reply}") };
    let number = |element: &Reply| {
        element.text().and_then(|text| std::str::from_utf8(text).ok()?.parse().ok()).expect("a number")
    };
    elements.iter().map(number).collect()
}

/// SORT finds the keys that its elements name, wherever they are, as they were at one instant, while others change all
/// of them again and again, take them away, or exchange and flush the database.
#[test]
fn sorting_looks_back() {
    const ELEMENTS: usize = 3000;
    const ROUND: usize = 1_000_000;
    for threads in [1, 4] {
        let (server, mut other) = start(threads);
        let list = (0..ELEMENTS).fold("RPUSH list".to_owned(), |line, at| format!("{line} {at}"));
        let weights = |round: usize| {
            (0..ELEMENTS).fold("MSET".to_owned(), |line, at| {
                format!("{line} w_{at} {}", round * ROUND + ELEMENTS - at)
            })
        };
        call(&mut other, &list);
        call(&mut other, &weights(0));
        let mut big = Client::open(server.address());
        let mut met = 0;
        for round in 1..200 {
            for (line, stores) in [
                ("SORT list BY w_* GET w_*", false),
                ("SORT list BY nosort GET w_* LIMIT 100 2900", false),
                ("SORT list BY w_* ALPHA DESC GET w_* STORE to", true),
            ] {
                met += usize::from(begin(&mut big, &mut other, &[line]));
                call(&mut other, &weights(round));
                let mut reply = big.reply();
                if stores {
                    assert_eq!(reply, Reply::Int(ELEMENTS as i64), "{line}");
                    reply = call(&mut other, "LRANGE to 0 -1");
                }
                let mut found = numbers_of(&reply);
                if line.contains("nosort") || stores {
                    found.reverse();
                }
                let len = if stores || !line.contains("LIMIT") { ELEMENTS } else { ELEMENTS - 100 };
                assert_eq!(found.len(), len, "{line}");
                let of_round = found[0] / ROUND;
                let wanted: Vec<usize> = (1..=len).map(|at| of_round * ROUND + at).collect();
                assert_eq!(found, wanted, "{line}, {threads} threads, round {round}");
            }
            if met > 30 {
                break;
            }
        }
        assert!(met > 30, "{threads} threads: always over before anybody else has a reply");

        // Not even the end of everything changes what was there.
        for end in ["FLUSHALL", "SWAPDB 0 1", "FLUSHDB"] {
            call(&mut other, "FLUSHALL");
            call(&mut other, &list);
            call(&mut other, &weights(3));
            let line = "SORT list BY w_* GET w_*";
            catch(&mut big, &mut other, line);
            call(&mut other, end);
            let found = numbers_of(&big.reply());
            // On several threads it may have begun behind that.
            let is_whole = found.len() == ELEMENTS && found[0] == 3 * ROUND + 1;
            assert!(is_whole || found.is_empty() && threads > 1, "{end}, {threads} threads");
        }

        // Who goes leaves nothing behind.
        call(&mut other, "FLUSHALL");
        call(&mut other, &list);
        call(&mut other, &weights(1));
        begin(&mut big, &mut other, &["SORT list BY w_* GET w_*"]);
        drop(big);
        call(&mut other, &weights(2));

        // Inside of transactions and scripts it is one go.
        let mut client = Client::open(server.address());
        send(
            &mut client,
            &["MULTI", "SORT list BY w_* GET w_* LIMIT 0 2", "SORT list GET # GET w_*", "EXEC"],
        );
        (0..3).for_each(|_| drop(client.reply()));
        let Reply::Array(replies) = client.reply() else { panic!("EXEC replies to each") };
        assert_eq!(numbers_of(&replies[0]), [2 * ROUND + 1, 2 * ROUND + 2]);
        assert_eq!(numbers_of(&replies[1]).len(), 2 * ELEMENTS);
        let script = "return redis.call('SORT', 'list', 'BY', 'w_*', 'GET', 'w_*', 'LIMIT', 0, 2)";
        let reply = client.call(&["EVAL", script, "0"]);
        assert_eq!(numbers_of(&reply), [2 * ROUND + 1, 2 * ROUND + 2]);
    }
}

/// Many elements that are taken at once, by whoever may wait for them: they are there already, or come while a client
/// waits. Who comes to the key behind that finds what is left.
#[test]
fn many_are_popped_by_who_waits() {
    for threads in [1, 4] {
        let (server, mut other) = start(threads);
        fill(&mut other, COUNT);
        call(&mut other, "SORT set1 ALPHA STORE list1");
        for (line, from, left) in [
            ("BZMPOP 0 2 none to MIN COUNT 11000", "zset1", "ZCARD to"),
            ("BZMPOP 0 1 to MAX COUNT 11000", "zset1", "ZCARD to"),
            ("BLMPOP 0 2 none to LEFT COUNT 11000", "list1", "LLEN to"),
            ("BLMPOP 0 1 to RIGHT COUNT 11000", "list1", "LLEN to"),
        ] {
            for waits in [false, true] {
                let copy = format!("COPY {from} to REPLACE");
                let mut big = Client::open(server.address());
                if waits {
                    call(&mut other, "DEL to");
                    send(&mut big, &[line, left]);
                    let blocked = |other: &mut Client| {
                        call(other, "INFO clients").to_string().contains("blocked_clients:1")
                    };
                    while !blocked(&mut other) {}
                    call(&mut other, &copy);
                } else {
                    call(&mut other, &copy);
                    send(&mut big, &[line, left]);
                }
                let Reply::Array(parts) = big.reply() else { panic!("{line}: an array") };
                assert_eq!(parts[0], Reply::Bulk(b"to".to_vec()), "{line}");
                assert_eq!(size_of(&parts[1]), 11_000, "{line}, {threads} threads");
                assert_eq!(big.reply(), Reply::Int((COUNT - 11_000) as i64), "{line}");
                assert_eq!(size_of(&call(&mut other, left)), COUNT - 11_000, "{line}");
            }
        }
    }
}

/// A connection that watches very many keys looks for each among the others, not at all of them.
#[test]
fn very_many_keys_are_watched() {
    const KEYS: usize = 100_000;
    for threads in [1, 4] {
        let (server, mut other) = start(threads);
        let mut watcher = Client::open(server.address());
        let all = (0..KEYS).fold("WATCH".to_owned(), |line, at| format!("{line} key{at}"));
        let asked = Instant::now();
        call(&mut watcher, &all);
        call(&mut watcher, &all);
        assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
        call(&mut other, "SET key99999 new");
        send(&mut watcher, &["MULTI", "PING", "EXEC", "PING"]);
        (0..2).for_each(|_| drop(watcher.reply()));
        assert!(watcher.reply().is_null(), "{threads} threads");
        assert_eq!(watcher.reply(), simple("PONG"));
    }
}

/// How long others wait, in a release build on an idle machine:
/// `DAMSELFLY_BIN=target/release/damselfly cargo test --test steps -- --ignored --nocapture`.
#[test]
#[ignore = "measures time, and takes a minute"]
fn others_do_not_wait() {
    const WORST: Duration = Duration::from_millis(10);
    let (server, mut other) = start(1);
    let mut worst_of_all = Duration::ZERO;
    fill(&mut other, 1_000_000);
    for line in ["PING"].into_iter().chain(commands().into_iter().map(|(line, ..)| line)) {
        let mut big = Client::open(server.address());
        let began = Instant::now();
        send(&mut big, &[line]);
        let (mut worst, mut pings) = (Duration::ZERO, 0);
        while pings < 100 || !big.has_reply() {
            let began = Instant::now();
            call(&mut other, "PING");
            worst = worst.max(began.elapsed());
            pings += 1;
        }
        println!("{line}: {:?}, others waited {worst:?} at most, {pings} pings", began.elapsed());
        worst_of_all = worst_of_all.max(worst);
        drop(big);
        thread::sleep(Duration::from_millis(500));
    }
    assert!(worst_of_all < WORST);
}

/// What happens to very many keys that are waited for, as when databases change places, takes a look at each of them,
/// not at each for each.
#[test]
fn keys_that_are_waited_for() {
    const WAITING: usize = 60;
    const KEYS_EACH: usize = 1000;
    let (server, mut client) = start(2);
    let _waiting: Vec<Client> = (0..WAITING)
        .map(|of| {
            let keys = (0..KEYS_EACH).map(|key| format!("key{}", of * KEYS_EACH + key));
            let request = ["BLPOP".to_owned()].into_iter().chain(keys).chain(["0".to_owned()]).collect();
            let mut waiting = Client::open(server.address());
            waiting.send(&[request]);
            waiting
        })
        .collect();
    let wanted = format!("blocked_clients:{WAITING}\r");
    loop {
        let info = call(&mut client, "INFO clients");
        if info.text().is_some_and(|text| String::from_utf8_lossy(text).contains(&wanted)) {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    let asked = Instant::now();
    assert_eq!(call(&mut client, "SWAPDB 0 1"), simple("OK"));
    assert_eq!(call(&mut client, "FLUSHALL"), simple("OK"));
    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
}

/// A command with very many keys shows what all of them held when it began, on whatever shards they are; who writes to
/// them meanwhile is answered, and who comes to the target waits. Within a transaction it is the same.
#[test]
fn very_many_keys_are_gathered() {
    const KEYS: usize = 3000;
    let named =
        |head: &str, kind: &str| (0..KEYS).fold(head.to_owned(), |line, at| line + &format!(" {kind}:{at}"));
    for threads in [1, 4] {
        let (server, mut other) = start(threads);
        let fill = |client: &mut Client, from: usize| {
            for at in from..KEYS {
                call(client, &format!("SADD set:{at} all m:{at}"));
                call(client, &format!("ZADD zset:{at} 1 all 2 m:{at}"));
                call(client, &format!("PFADD hll:{at} m:{}", at % 100));
                call(client, &format!("SET text:{at} {}", if at == 7 { "long" } else { "a" }));
            }
        };
        fill(&mut other, 0);
        let count = format!(" {KEYS}");
        // The command, the type of its target, and the number that it gives.
        let commands = [
            (named("SUNION", "set"), None, KEYS + 1),
            (named("SUNIONSTORE to", "set"), Some("set"), KEYS + 1),
            (named("SINTER", "set"), None, 1),
            (named("SINTERSTORE to", "set"), Some("set"), 1),
            (named(&format!("SINTERCARD{count}"), "set"), None, 1),
            (named("SDIFF", "set"), None, 1),
            (named("SDIFFSTORE to", "set"), Some("set"), 1),
            (named(&format!("ZUNION{count}"), "zset"), None, KEYS + 1),
            (named(&format!("ZUNIONSTORE to{count}"), "zset"), Some("zset"), KEYS + 1),
            (named(&format!("ZINTER{count}"), "zset"), None, 1),
            (named(&format!("ZINTERSTORE to{count}"), "zset"), Some("zset"), 1),
            (named(&format!("ZINTERCARD{count}"), "zset"), None, 1),
            (named(&format!("ZDIFF{count}"), "zset"), None, 1),
            (named(&format!("ZDIFFSTORE to{count}"), "zset"), Some("zset"), 1),
            (named("PFCOUNT", "hll"), None, 100),
            (named("BITOP OR to", "text"), Some("string"), 4),
        ];
        for (line, kind, size) in commands {
            let shown = line.split(' ').next().unwrap_or_default().to_owned();
            let mut big = Client::open(server.address());
            let mut met = false;
            for _ in 0..TRIES {
                call(&mut other, "DEL to");
                met = begin(&mut big, &mut other, &[&line, "TYPE to"]);
                // On several threads it is only about to begin. The last keys are looked at last.
                if threads == 1 {
                    for key in ["set", "zset", "hll", "text"] {
                        call(&mut other, &format!("DEL {key}:{}", KEYS - 1));
                        call(&mut other, &format!("RENAME {key}:{} {key}:gone", KEYS - 2));
                        call(&mut other, &format!("LPUSH {key}:{} changed", KEYS - 1));
                    }
                }
                assert_eq!(size_of(&big.reply()), size, "{shown}, {threads} threads");
                assert_eq!(big.reply(), simple(kind.unwrap_or("none")), "{shown}, {threads} threads");
                for key in ["set", "zset", "hll", "text"] {
                    call(&mut other, &format!("DEL {key}:{}", KEYS - 1));
                }
                fill(&mut other, KEYS - 2);
                if met {
                    break;
                }
            }
            assert!(met, "{shown} was never met under way");
            call(&mut other, "DEL to");
            assert_eq!(call(&mut other, "MULTI"), simple("OK"));
            call(&mut other, &line);
            let Reply::Array(replies) = call(&mut other, "EXEC") else { panic!("{shown}: one reply") };
            assert_eq!(replies.iter().map(size_of).collect::<Vec<_>>(), [size], "{shown}, {threads} threads");
        }
        // A key of another type is found wherever it is, and one that is missing is none.
        call(&mut other, "DEL set:2500 to");
        call(&mut other, "RPUSH set:2500 x");
        for head in ["SINTERSTORE to", "SUNION"] {
            let refused = other.call(&words(&named(head, "set")));
            assert!(matches!(&refused, Reply::Error(text) if text.starts_with(b"WRONGTYPE")), "{refused}");
        }
        call(&mut other, "DEL set:2500");
        assert_eq!(size_of(&call(&mut other, &named("SINTER", "set"))), 0);
        assert_eq!(call(&mut other, "EXISTS to"), Reply::Int(0));
    }
}
