//! GET, SET and their variants; parts of strings.

use super::session::Session;

/// Every option alone and with the others, and what each leaves behind.
#[test]
fn set_with_options() {
    Session::new().check(
        "
        SET k v XX -> $-1
        SET k v NX -> +OK
        SET k w nx -> $-1
        SET k w xx -> +OK
        SET k x NX GET -> $1 w
        SET k x GET XX -> $1 w
        SET k y GET GET -> $1 x
        SET missing v XX GET -> $-1
        SET new v NX GET -> $-1
        GET new -> $1 v
        SET k v EX 100 -> +OK
        TTL k -> :100
        SET k v KEEPTTL XX -> +OK
        TTL k -> :100
        SET k v PX 1500 KEEPTTL -> -ERR syntax error
        SET k v KEEPTTL PX 1500 -> -ERR syntax error
        SET k v EX 10 PX 10 -> -ERR syntax error
        SET k v EX 10 EX 20 -> +OK
        TTL k -> :20
        SET k v EXAT 1000007 -> +OK
        PTTL k -> :7000
        SET k v PXAT 1000000001 -> +OK
        PTTL k -> :1
        SET k v -> +OK
        TTL k -> :-1
        SET k w GET PXAT 5 -> $1 v
        EXISTS k -> :0
        SET k v NX XX -> -ERR syntax error
        SET k v EX -> -ERR syntax error
        SET k v FOO -> -ERR syntax error
        SET k v PERSIST -> -ERR syntax error
        SET k v EX abc FOO -> -ERR syntax error
        SET k v STICK EX 10 -> +OK
        STICK k -> :0
        ",
    );
}

#[test]
fn times_that_are_none() {
    let mut session = Session::new();
    session.run("SET k v");
    for (time, error) in [
        ("EX 0", "invalid expire time in 'set' command"),
        ("PX -5", "invalid expire time in 'set' command"),
        ("EXAT 0", "invalid expire time in 'set' command"),
        ("PXAT -9223372036854775808", "invalid expire time in 'set' command"),
        ("EX 9223372036854775807", "invalid expire time in 'set' command"),
        ("EX 9223372036854775", "invalid expire time in 'set' command"),
        ("PX 9223372036854775807", "invalid expire time in 'set' command"),
        ("EXAT 9223372036854776", "invalid expire time in 'set' command"),
        ("EX 9223372036854775808", "value is not an integer or out of range"),
        ("EX 1.5", "value is not an integer or out of range"),
        ("EX +1", "value is not an integer or out of range"),
        ("EX NX", "value is not an integer or out of range"),
        ("NX EX 0", "invalid expire time in 'set' command"),
    ] {
        assert_eq!(session.run(&format!("SET k w {time}")), format!("-ERR {error}"), "{time}");
    }
    session.check(
        "
        SETEX k 0 v -> -ERR invalid expire time in 'setex' command
        PSETEX k 9223372036854775807 v -> -ERR invalid expire time in 'psetex' command
        GET k -> $1 v
        SET k v PXAT 9223372036854775807 -> +OK
        PEXPIRETIME k -> :9223372036854775807
        ",
    );
}

/// Older spellings of SET.
#[test]
fn variants_of_set() {
    let mut session = Session::new();
    session.check(
        "
        SETEX k 100 v -> +OK
        TTL k -> :100
        PSETEX k 1500 w -> +OK
        PTTL k -> :1500
        SETNX k x -> :0
        SETNX n x -> :1
        GETSET k y -> $1 w
        TTL k -> :-1
        GETSET g a -> $-1
        GETDEL g -> $1 a
        GETDEL g -> $-1
        MSETNX a 1 k 2 -> :0
        EXISTS a -> :0
        MSETNX a 1 a 2 -> :1
        MGET a k missing -> *3 $1 2 $1 y $-1
        MSET a -> -ERR wrong number of arguments
        MSET a 1 b -> -ERR wrong number of arguments for 'mset' command
        MSETNX a 1 b -> -ERR wrong number of arguments for 'msetnx' command
        ",
    );
    assert_eq!(session.events_of("SET k v"), "set k");
    assert_eq!(session.events_of("SET k v EX 10 XX"), "set k, expire k");
    assert_eq!(session.events_of("SET k v KEEPTTL NX"), "");
    assert_eq!(session.events_of("SETEX k 10 v"), "set k, expire k");
    assert_eq!(session.events_of("GETSET k v"), "set k");
    assert_eq!(session.events_of("SETNX k v"), "");
    assert_eq!(session.events_of("GETDEL k"), "del k");
    assert_eq!(session.events_of("MSETNX k 1 l 2"), "set k, set l");
}

/// KEEPTTL does not keep a time that has passed.
#[test]
fn keepttl_of_an_expired_key() {
    let mut session = Session::new();
    session.run("SET k v PX 10");
    session.ks.now += 10;
    session.check("SET k w KEEPTTL -> +OK\nTTL k -> :-1\nGET k -> $1 w");
}

#[test]
fn getex() {
    let mut session = Session::new();
    session.check(
        "
        GETEX k EX abc -> $-1
        GETEX k EX 10 PX 10 -> -ERR syntax error
        SET k v -> +OK
        GETEX k PX 1500 -> $1 v
        PTTL k -> :1500
        GETEX k -> $1 v
        PTTL k -> :1500
        GETEX k PERSIST PERSIST -> $1 v
        TTL k -> :-1
        GETEX k EX 5 PERSIST -> -ERR syntax error
        GETEX k PERSIST EX 5 -> -ERR syntax error
        GETEX k KEEPTTL -> -ERR syntax error
        GETEX k EX 0 -> -ERR invalid expire time in 'getex' command
        GETEX k EX 9223372036854775807 -> -ERR invalid expire time in 'getex' command
        GETEX k EX x -> -ERR value is not an integer or out of range
        GETEX k PXAT 1 -> $1 v
        EXISTS k -> :0
        ",
    );
    session.run("SET k v");
    assert_eq!(session.events_of("GETEX k EX 10"), "expire k");
    assert_eq!(session.events_of("GETEX k"), "");
    assert_eq!(session.events_of("GETEX k PERSIST"), "persist k");
    assert_eq!(session.events_of("GETEX k PERSIST"), "");
    assert_eq!(session.events_of("GETEX k EXAT 1"), "del k");
}

#[test]
fn parts() {
    let mut session = Session::new();
    session.check(
        "
        APPEND k foo -> :3
        APPEND k bar -> :6
        PREPEND k >> -> :8
        GET k -> $8 >>foobar
        APPEND e \"\" -> :0
        EXISTS e -> :1
        STRLEN k -> :8
        SET n -12 -> +OK
        STRLEN n -> :3
        GETRANGE n 0 0 -> $1 -
        PREPEND n 3 -> :4
        SET s 0123456789 -> +OK
        GETRANGE s 0 -1 -> $10 0123456789
        GETRANGE s -3 -2 -> $2 78
        GETRANGE s 5 3 -> $0
        GETRANGE s -20 -15 -> $1 0
        GETRANGE s -1 -20 -> $0
        GETRANGE s 0 -20 -> $1 0
        GETRANGE s 9 9223372036854775807 -> $1 9
        GETRANGE s 10 11 -> $0
        GETRANGE s -9223372036854775808 -9223372036854775808 -> $1 0
        GETRANGE s 0 x -> -ERR value is not an integer or out of range
        SUBSTR missing 0 -1 -> $0
        SETRANGE s 8 xyz -> :11
        GET s -> $11 01234567xyz
        SETRANGE z 2 a -> :3
        GET z -> $3 \\x00\\x00a
        SETRANGE y 2 \"\" -> :0
        EXISTS y -> :0
        SETRANGE s 536870912 \"\" -> :11
        SETRANGE s 536870912 x -> -ERR string exceeds maximum allowed size (proto-max-bulk-len)
        SETRANGE s 9223372036854775807 x -> -ERR string exceeds maximum allowed size (proto-max-bulk-len)
        SETRANGE s -1 \"\" -> -ERR offset is out of range
        ",
    );
    session.env.string_len_max = 12;
    session.check(
        "
        APPEND s a -> :12
        APPEND s a -> -ERR string exceeds maximum allowed size (proto-max-bulk-len)
        PREPEND s a -> -ERR string exceeds maximum allowed size (proto-max-bulk-len)
        SETRANGE s 11 b -> :12
        SETRANGE s 12 b -> -ERR string exceeds maximum allowed size (proto-max-bulk-len)
        ",
    );
    assert_eq!(session.events_of("APPEND new a"), "append new");
    assert_eq!(session.events_of("PREPEND new a"), "prepend new");
    assert_eq!(session.events_of("SETRANGE new 0 a"), "setrange new");
    assert_eq!(session.events_of("SETRANGE new 0 \"\""), "");
}

/// The answers of Redis 7.0.
#[test]
fn lcs() {
    let mut session = Session::new();
    session.check(
        "
        MSET a ohmytext b mynewtext n 12345 m 1245 -> +OK
        LCS a b -> $6 mytext
        LCS a b LEN -> :6
        LCS a b IDX -> *4 $7 matches *2 *2 *2 :4 :7 *2 :5 :8 *2 *2 :2 :3 *2 :0 :1 $3 len :6
        LCS a b IDX MINMATCHLEN 4 WITHMATCHLEN -> *4 $7 matches *1 *3 *2 :4 :7 *2 :5 :8 :4 $3 len :6
        LCS a b IDX MINMATCHLEN -1 -> *4 $7 matches *2...
        LCS n m -> $4 1245
        LCS a missing -> $0
        LCS missing missing IDX -> *4 $7 matches *0 $3 len :0
        LCS a b IDX LEN -> -ERR If you want both the length and indexes, please just use IDX.
        LCS a b MINMATCHLEN -> -ERR syntax error
        LCS a b MINMATCHLEN x -> -ERR value is not an integer or out of range
        LCS a b FOO -> -ERR syntax error
        ",
    );
    session.env.string_len_max = 9 * 10 * 4;
    session.check("LCS a b LEN -> :6");
    session.env.string_len_max -= 1;
    session.check(
        "LCS a b LEN -> -ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len",
    );
}

/// Values of the published examples; a number is hashed as its digits.
#[test]
fn digest() {
    Session::new().check(
        "
        DIGEST k -> $-1
        SET k hello -> +OK
        DIGEST k -> $16 9555e8555c62dcfd
        ",
    );
    let mut session = Session::new();
    session.send(&[b"SET", b"k", b"Hello world"]);
    assert_eq!(session.run("DIGEST k"), "$16 b6acb9d84a38ff74");
    session.send(&[b"SET", b"k", b"Hello, Dragonfly!"]);
    assert_eq!(session.run("DIGEST k"), "$16 063b4909128e92b7");
}

/// Memcache's way to touch: 0 is for ever, below zero is gone, large numbers are dates.
#[test]
fn get_and_touch() {
    let mut session = Session::new();
    session.check(
        "
        MSET a 1 b x -> +OK
        GAT 100 a missing b -> *3 $1 1 $-1 $1 x
        TTL b -> :100
        GAT 0 a -> *1 $1 1
        TTL a -> :-1
        GAT 2592000 a -> *1 $1 1
        TTL a -> :2592000
        GAT 2592001 a -> *1 $1 1
        EXPIRETIME a -> :2592001
        GAT 9223372036854775807 a -> *1 $1 1
        TTL a -> :-1
        GAT x a -> -ERR value is not an integer or out of range
        GAT -1 a -> *1 $1 1
        EXISTS a -> :0
        ",
    );
    assert_eq!(session.events_of("GAT 10 a b"), "keymiss a, expire b");
}

/// What a command over many keys does for one does not depend on how many there are: with half a million it would not
/// come to an end.
#[test]
fn many_keys() {
    let mut session = Session::unchecked();
    let keys: Vec<Vec<u8>> = (0..500_000_u32).map(|number| number.to_be_bytes().to_vec()).collect();
    let keys = || keys.iter().map(Vec::as_slice);
    let pairs: Vec<&[u8]> = [&b"MSET"[..]].into_iter().chain(keys().flat_map(|key| [key, b"v"])).collect();
    assert_eq!(session.send(&pairs), b"+OK\r\n");
    for (name, reply) in [("EXISTS", ":500000\r\n"), ("DEL", ":500000\r\n"), ("EXISTS", ":0\r\n")] {
        let all: Vec<&[u8]> = [name.as_bytes()].into_iter().chain(keys()).collect();
        assert_eq!(session.send(&all), reply.as_bytes(), "{name}");
    }
}
