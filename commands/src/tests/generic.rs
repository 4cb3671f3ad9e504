//! Keys of any type: counted, moved, copied, taken apart and put together.

use super::session::{NOW, Session, show};

#[test]
fn counted_once_per_mention() {
    Session::new().check(
        "
        MSET a 1 b 2 -> +OK
        EXISTS a a b missing -> :3
        TOUCH a missing -> :1
        TYPE a -> +string
        TYPE missing -> +none
        DEL a a -> :1
        UNLINK b missing -> :1
        EXISTS a b -> :0
        MSET a 1 b 2 -> +OK
        STICK a -> :1
        STICK a b missing -> :1
        ",
    );
}

#[test]
fn renamed() {
    let mut session = Session::new();
    session.check(
        "
        RENAME a b -> -ERR no such key
        SET a v EX 10 -> +OK
        STICK a -> :1
        SET b old EX 99 -> +OK
        RENAME a b -> +OK
        GET b -> $1 v
        TTL b -> :10
        STICK b -> :0
        EXISTS a -> :0
        RENAME b b -> +OK
        RENAMENX b b -> :0
        SET c 7 -> +OK
        RENAMENX b c -> :0
        RENAMENX missing c -> -ERR no such key
        RENAMENX c d -> :1
        OBJECT ENCODING d -> $3 int
        ",
    );
    assert_eq!(session.events_of("RENAME b d"), "rename_from b, rename_to d");
    assert_eq!(session.events_of("RENAME d d"), "");
    assert_eq!(session.events_of("RENAMENX d e"), "rename_from d, rename_to e");
}

#[test]
fn copied_and_moved() {
    let mut session = Session::new();
    session.check(
        "
        SET a v EX 10 -> +OK
        COPY a a -> -ERR source and destination objects are the same
        COPY a a DB 0 -> -ERR source and destination objects are the same
        COPY a b -> :1
        TTL b -> :10
        SET a w -> +OK
        COPY a b -> :0
        COPY a b replace -> :1
        TTL b -> :-1
        COPY missing b REPLACE -> :0
        COPY a a DB 1 -> :1
        COPY a b DB 2 -> -ERR DB index is out of range
        COPY a b DB -1 -> -ERR DB index is out of range
        COPY a b DB x -> -ERR value is not an integer or out of range
        COPY a b DB 2147483648 -> -ERR value is out of range, value must between -2147483648 and 2147483647
        COPY a b DB -> -ERR syntax error
        COPY a b FOO -> -ERR syntax error
        MOVE a 0 -> -ERR source and destination objects are the same
        MOVE a 2 -> -ERR DB index is out of range
        MOVE a 1 -> :0
        MOVE missing 1 -> :0
        EXPIRE b 20 -> :1
        MOVE b 1 -> :1
        EXISTS b -> :0
        ",
    );
    session.db = 1;
    session.check("MGET a b -> *2 $1 w $1 w\nTTL b -> :20");
    assert_eq!(session.events_of("MOVE b 0"), "move_from b, move_to b@0");
    assert_eq!(session.events_of("COPY a z DB 0"), "copy_to z@0");
    assert_eq!(session.events_of("DEL a nosuch a"), "del a");
}

#[test]
fn looked_at() {
    Session::new().check(
        "
        OBJECT ENCODING missing -> $-1
        OBJECT FREQ missing -> $-1
        SET k -9223372036854775808 -> +OK
        OBJECT encoding k -> $3 int
        SET k 9223372036854775808 -> +OK
        OBJECT ENCODING k -> $6 embstr
        SET k 12345678901234567890123456789012345678901234 -> +OK
        OBJECT ENCODING k -> $6 embstr
        SET k 123456789012345678901234567890123456789012345 -> +OK
        OBJECT ENCODING k -> $3 raw
        OBJECT REFCOUNT k -> :1
        OBJECT IDLETIME k -> :0
        OBJECT FREQ k -> -ERR An LFU maxmemory policy is not selected...
        OBJECT HELP -> *11...
        OBJECT HELP k -> -ERR wrong number of arguments for 'object|help' command
        OBJECT ENCODING -> -ERR wrong number of arguments for 'object|encoding' command
        OBJECT FOO k -> -ERR unknown subcommand 'FOO'. Try OBJECT HELP.
        ",
    );
}

/// DELEX removes what it was asked about and nothing else, least of all because of a mistyped digest.
#[test]
fn removed_on_a_condition() {
    Session::new().check(
        "
        SET k test -> +OK
        DIGEST k -> $16 9ec9f7918d7dfc40
        DELEX k IFEQ other -> :0
        DELEX k IFNE test -> :0
        DELEX k IFDEQ 9ec9f7918d7dfc41 -> :0
        DELEX k IFDNE 9EC9F7918D7DFC40 -> :0
        DELEX k IFDNE 9ec9f7918d7dfc4 -> -ERR a digest has 16 hexadecimal digits
        DELEX k IFDNE +ec9f7918d7dfc40 -> -ERR a digest has 16 hexadecimal digits
        DELEX k IFEQ -> -ERR syntax error
        DELEX k IFEQ a b -> -ERR syntax error
        DELEX k FOO a -> -ERR syntax error
        DELEX k ifdeq 9EC9F7918D7DFC40 -> :1
        SET k 12 -> +OK
        DELEX k IFNE 13 -> :1
        DELEX k IFNE 13 -> :0
        SET k 12 -> +OK
        DELEX k IFEQ 12 -> :1
        SET k 12 -> +OK
        DELEX k -> :1
        ",
    );
}

fn payload(session: &mut Session, key: &str) -> Vec<u8> {
    let reply = session.send(&[b"DUMP", key.as_bytes()]);
    let line_end = reply.windows(2).position(|pair| pair == b"\r\n").expect("a header") + 2;
    reply[line_end..reply.len() - 2].to_vec()
}

/// The bytes are those of Redis 7.0, and they come back as what they were, with the time to live that is asked for.
#[test]
fn dumped_and_restored() {
    let mut session = Session::new();
    session.run("SET k hi");
    let hi = b"\x00\x02hi\x0a\x00\xafk\x9f\xe8\x8e1\x1b\x14";
    assert_eq!(payload(&mut session, "k"), hi);
    session.run("SET k 12");
    let twelve = payload(&mut session, "k");
    assert_eq!(twelve, b"\x00\xc0\x0c\x0a\x00<*\xf8Q\\\x04\xbc\xd5");
    assert_eq!(session.run("DUMP missing"), "$-1");
    session.events();

    let mut restore = |ttl: &[u8], payload: &[u8], options: &[&[u8]]| {
        let head: [&[u8]; 4] = [b"RESTORE", b"r", ttl, payload];
        let reply = session.send(&[&head, options].concat());
        let expires = session.run("PEXPIRETIME r");
        let events = session.events();
        format!("{}; {expires}; {events}", show(&reply))
    };
    assert_eq!(restore(b"0", hi, &[]), "+OK; :-1; restore r");
    assert_eq!(restore(b"0", hi, &[]), "-BUSYKEY Target key name already exists.; :-1; ");
    assert_eq!(restore(b"1000", &twelve, &[b"REPLACE"]), "+OK; :1000001000; restore r");
    assert_eq!(restore(b"1000000007", hi, &[b"absttl", b"replace"]), "+OK; :1000000007; restore r");
    assert_eq!(restore(b"9223372036854775807", hi, &[b"REPLACE"]), "+OK; :9223372036854775807; restore r");
    assert_eq!(restore(b"5", hi, &[b"ABSTTL", b"REPLACE"]), "+OK; :-2; del r, keymiss r");
    assert_eq!(restore(b"5", hi, &[b"ABSTTL"]), "+OK; :-2; keymiss r");
    let error = |text: &str| format!("-ERR {text}; :-2; keymiss r");
    assert_eq!(restore(b"-1", b"", &[]), error("Invalid TTL value, must be >= 0"));
    assert_eq!(restore(b"x", b"", &[]), error("value is not an integer or out of range"));
    assert_eq!(restore(b"0", b"", &[]), error("DUMP payload version or checksum are wrong"));
    let nonsense = b"c\x02hi\x0a\x00\xb3\x0c\xd7\xea)\\~\xcf";
    assert_eq!(restore(b"0", nonsense, &[]), error("Bad data format"));
    for (options, text) in [
        (&[&b"FOO"[..]][..], "syntax error"),
        (&[b"IDLETIME"], "syntax error"),
        (&[b"IDLETIME", b"-1"], "Invalid IDLETIME value, must be >= 0"),
        (&[b"IDLETIME", b"x"], "value is not an integer or out of range"),
        (&[b"FREQ", b"256"], "Invalid FREQ value, must be >= 0 and <= 255"),
        (&[b"FREQ", b"-1"], "Invalid FREQ value, must be >= 0 and <= 255"),
        (&[b"FREQ", b"1", b"IDLETIME", b"1"], "syntax error"),
        (&[b"IDLETIME", b"1", b"FREQ", b"1"], "syntax error"),
    ] {
        assert_eq!(restore(b"0", hi, options), error(text));
    }
    assert_eq!(restore(b"0", hi, &[b"IDLETIME", b"5", b"IDLETIME", b"6"]), "+OK; :-1; restore r");
    assert_eq!(session.run("GET r"), "$2 hi");
}

/// Whatever takes a big collection away leaves its memory to be freed in steps; none frees it on the spot.
#[test]
fn big_values_go_in_steps() {
    let mut session = Session::unchecked();
    let word = "x".repeat(40);
    let makers = [
        ("RPUSH", format!("{word}{{i}}")),
        ("SADD", format!("{word}{{i}}")),
        ("HSET", format!("{word}{{i}} {{i}}")),
        ("ZADD", format!("{{i}} {word}{{i}}")),
        ("XADD", format!("{{i}}-1 f {word}{{i}}")),
    ];
    for (maker, element) in &makers {
        session.run("DEL kept");
        for i in 1..8_000 {
            session.run(&format!("{maker} kept {}", element.replace("{i}", &i.to_string())));
        }
        for way in [
            "DEL big",
            "UNLINK big",
            "SET big short",
            "MSET big short",
            "RENAME small big",
            "COPY small big REPLACE",
            "SUNIONSTORE big set",
            "ZUNIONSTORE big 1 set",
            "SORT list STORE big",
            "GEOSEARCHSTORE big geo FROMLONLAT 1 1 BYRADIUS 10 m",
            "SINTERSTORE big nosuch",
            "BITOP NOT big small",
            "EXPIRE big -1",
            "PEXPIREAT big 1000000500; LATER; EXISTS big",
            "PEXPIREAT big 1000000500; LATER; BACKGROUND",
            "FLUSH",
        ] {
            for key in ["big", "small", "set", "list", "geo"] {
                session.ks.remove(0, key.as_bytes());
            }
            session.ks.now = NOW;
            while session.ks.free_some() {}
            session.run("SET small text");
            session.run("SADD set 1 2");
            session.run("RPUSH list 3 4");
            session.run("GEOADD geo 1 1 here");
            session.run("COPY kept big");
            let loc = session.ks.find(0, b"big").expect("made");
            let damselfly_keyspace::Value::Object(object) = session.ks.value(0, loc) else {
                panic!("{maker} makes no string")
            };
            let bytes = object.heap_bytes();
            assert!(object.is_big(), "{maker}: {bytes}");
            for line in way.split("; ") {
                match line {
                    "LATER" => session.ks.now += 1000,
                    "BACKGROUND" => while !session.ks.expire_some(64).round_ended {},
                    "FLUSH" => {
                        session.run("MOVE big 1");
                        session.ks.flush(1);
                    }
                    line => {
                        session.run(line);
                    }
                }
            }
            assert!(session.ks.doomed_bytes() >= bytes, "{maker}, {way}");
            while session.ks.free_some() {}
            assert_eq!(session.ks.doomed_bytes(), 0, "{maker}, {way}");
        }
    }
}
