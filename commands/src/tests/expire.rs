//! Deadlines: conditions, overflow, the past.

use super::session::{NOW, Session};

#[test]
fn set_shown_and_removed() {
    let mut session = Session::new();
    session.check(
        "
        TTL k -> :-2
        PERSIST k -> :0
        EXPIRE k 10 -> :0
        SET k v -> +OK
        PTTL k -> :-1
        PERSIST k -> :0
        EXPIRE k 100 -> :1
        TTL k -> :100
        PTTL k -> :100000
        EXPIRETIME k -> :1000100
        PEXPIRETIME k -> :1000100000
        PEXPIRE k 1499 -> :1
        TTL k -> :1
        PEXPIRE k 1500 -> :1
        TTL k -> :2
        PEXPIREAT k 1000000499 -> :1
        EXPIRETIME k -> :1000000
        EXPIREAT k 1000001 -> :1
        PTTL k -> :1000
        PERSIST k -> :1
        TTL k -> :-1
        ",
    );
    assert_eq!(session.events_of("EXPIRE k 10"), "expire k");
    assert_eq!(session.events_of("PERSIST k"), "persist k");
    assert_eq!(session.events_of("EXPIRE k 10 XX"), "");
    assert_eq!(session.events_of("EXPIRE k 0"), "del k");
    session.run("SET k v PX 10");
    session.ks.now += 10;
    assert_eq!(session.events_of("TTL k"), "expired k, keymiss k");
}

#[test]
fn conditions() {
    Session::new().check(
        "
        SET k v -> +OK
        EXPIRE k 100 XX -> :0
        EXPIRE k 100 GT -> :0
        EXPIRE k 100 LT -> :1
        EXPIRE k 100 LT -> :0
        EXPIRE k 100 GT -> :0
        EXPIRE k 99 GT -> :0
        EXPIRE k 101 gt XX -> :1
        EXPIRE k 50 XX lt -> :1
        EXPIRE k 60 NX -> :0
        EXPIRE k -1 GT -> :0
        EXPIRE k -1 LT -> :1
        EXISTS k -> :0
        EXPIRE k 10 NX XX -> -ERR NX and XX, GT or LT options at the same time are not compatible
        EXPIRE k 10 LT NX -> -ERR NX and XX, GT or LT options at the same time are not compatible
        EXPIRE k 10 GT LT -> -ERR GT and LT options at the same time are not compatible
        EXPIRE k abc FOO -> -ERR Unsupported option FOO
        ",
    );
}

/// Every deadline of the signed range is kept; what does not fit it is refused, also below zero.
#[test]
fn limits() {
    Session::new().check(
        "
        SET k v -> +OK
        EXPIRE k abc -> -ERR value is not an integer or out of range
        EXPIRE k 9223372036854775807 -> -ERR invalid expire time in 'expire' command
        EXPIRE k 9223372036854776 -> -ERR invalid expire time in 'expire' command
        EXPIRE k 9223372036854775 -> -ERR invalid expire time in 'expire' command
        EXPIRE k -9223372036854776 -> -ERR invalid expire time in 'expire' command
        PEXPIRE k 9223372036854775807 -> -ERR invalid expire time in 'pexpire' command
        EXPIREAT k 9223372036854776 -> -ERR invalid expire time in 'expireat' command
        EXPIREAT k 9223372036854775 -> :1
        PEXPIRETIME k -> :9223372036854775000
        PEXPIREAT k 9223372036854775807 -> :1
        PEXPIRETIME k -> :9223372036854775807
        EXPIRETIME k -> :9223372036854776
        EXPIREAT k -9223372036854775 -> :1
        EXISTS k -> :0
        ",
    );
    for past in ["EXPIRE k 0", "PEXPIRE k -1", "EXPIREAT k 1000000", "PEXPIREAT k -9223372036854775808"] {
        let mut session = Session::new();
        session.run("SET k v");
        assert_eq!((session.run(past).as_str(), session.run("EXISTS k").as_str()), (":1", ":0"), "{past}");
    }
    let mut session = Session::new();
    session.run("SET k v");
    assert_eq!(session.run(&format!("PEXPIREAT k {}", NOW + 1)), ":1");
    assert_eq!(session.run("PTTL k"), ":1");
}
