//! Streams.

use super::session::Session;

/// Ids are chosen, refused and shown; a stream without entries stays.
#[test]
fn entries() {
    Session::new().check(
        "
        XADD s * f v -> $12 1000000000-0
        XADD s * f v -> $12 1000000000-1
        XADD s 1000000000-* f v -> $12 1000000000-2
        XADD s 5-* f v -> -ERR The ID specified in XADD is equal or smaller than the target stream top item
        XADD s 0-0 f v -> -ERR The ID specified in XADD must be greater than 0-0
        XADD t NOMKSTREAM 1-1 f v -> $-1
        XADD t MAXLEN 0 1-1 f 12 -> $3 1-1
        XLEN t -> :0
        TYPE t -> +stream
        OBJECT ENCODING t -> $6 stream
        XADD t 1-1 f v -> -ERR The ID specified in XADD is equal or smaller than the target stream top item
        XADD t 2 f 12 g -x -> $3 2-0
        XRANGE t - + -> *1 *2 $3 2-0 *4 $1 f $2 12 $1 g $2 -x
        XREVRANGE t + - COUNT 0 -> *-1
        XADD t 18446744073709551615-18446744073709551615 f v -> $41 18446744073709551615-18446744073709551615
        XADD t * f v -> -ERR The stream has exhausted the last possible ID, unable to add more items
        ",
    );
}

/// Groups deliver, remember, hand over.
#[test]
fn groups() {
    Session::new().check(
        "
        XADD s 1-1 f a -> $3 1-1
        XADD s 2-1 f b -> $3 2-1
        XGROUP CREATE s g 0 -> +OK
        XREADGROUP GROUP g one COUNT 1 STREAMS s > -> *1 *2 $1 s *1 *2 $3 1-1 *2 $1 f $1 a
        XREADGROUP GROUP g two STREAMS s > -> *1 *2 $1 s *1 *2 $3 2-1 *2 $1 f $1 b
        XREADGROUP GROUP g two STREAMS s > -> *-1
        XPENDING s g -> *4 :2 $3 1-1 $3 2-1 *2 *2 $3 one $1 1 *2 $3 two $1 1
        XCLAIM s g two 0 1-1 JUSTID -> *1 $3 1-1
        XDEL s 2-1 -> :1
        XREADGROUP GROUP g two STREAMS s 0 -> *1 *2 $1 s *2 *2 $3 1-1 *2 $1 f $1 a *2 $3 2-1 *-1
        XAUTOCLAIM s g one 0 0 -> *3 $3 0-0 *1 *2 $3 1-1 *2 $1 f $1 a *1 $3 2-1
        XACK s g 1-1 2-1 -> :1
        XPENDING s g -> *4 :0 $-1 $-1 *-1
        XINFO GROUPS s -> *1 *12 $4 name $1 g $9 consumers :2 $7 pending :0 $17 last-delivered-id $3 2-1 $12 entries-read :2 $3 lag :0
        ",
    );
}

/// Every change is announced, those that Redis has no event for in a class of their own.
#[test]
fn events() {
    let mut session = Session::new();
    assert_eq!(session.events_of("XADD s 1-1 f a"), "xadd s");
    assert_eq!(session.events_of("XADD s MAXLEN 1 2-1 f a"), "xadd s, xtrim s");
    assert_eq!(session.events_of("XADD s 2-1 f a"), "");
    assert_eq!(session.events_of("XGROUP CREATE s g 0"), "xgroup-create s");
    assert_eq!(
        session.events_of("XREADGROUP GROUP g one STREAMS s >"),
        "xgroup-createconsumer s, xreadgroup s"
    );
    assert_eq!(session.events_of("XREADGROUP GROUP g one STREAMS s >"), "");
    assert_eq!(session.events_of("XCLAIM s g two 0 2-1"), "xgroup-createconsumer s, xclaim s");
    assert_eq!(session.events_of("XCLAIM s g two 1000000 2-1"), "");
    assert_eq!(session.events_of("XACK s g 2-1"), "xack s");
    assert_eq!(session.events_of("XACK s g 2-1"), "");
    assert_eq!(session.events_of("XGROUP DELCONSUMER s g two"), "xgroup-delconsumer s");
    assert_eq!(session.events_of("XSETID s 5-1"), "xsetid s");
    assert_eq!(session.events_of("XDEL s 2-1"), "xdel s");
    assert_eq!(session.events_of("XGROUP DESTROY s g"), "xgroup-destroy s");
    assert_eq!(session.events_of("XGROUP CREATE n g $ MKSTREAM"), "xgroup-create n");
}

/// Everything about a stream survives DUMP and RESTORE.
#[test]
fn there_and_back() {
    let mut session = Session::new();
    for i in 1..=250 {
        session.run(&format!("XADD s {i}-1 f {i} other{} x", i % 3));
    }
    for line in [
        "XDEL s 17-1",
        "XGROUP CREATE s g 3-1 ENTRIESREAD 3",
        "XGROUP CREATE s h $",
        "XREADGROUP GROUP g one COUNT 50 STREAMS s >",
        "XREADGROUP GROUP g two COUNT 5 STREAMS s >",
        "XGROUP CREATECONSUMER s h idle",
        "XDEL s 6-1",
    ] {
        session.run(line);
    }
    let reply = session.send(&[b"DUMP", b"s"]);
    let start = reply.iter().position(|&byte| byte == b'\n').expect("a header") + 1;
    let payload = reply[start..reply.len() - 2].to_vec();
    assert_eq!(session.send(&[b"RESTORE", b"t", b"0", &payload]), b"+OK\r\n");
    for line in ["XRANGE s - +", "XINFO STREAM s FULL COUNT 0", "XPENDING s g - + 100", "XINFO CONSUMERS s g"]
    {
        assert_eq!(session.run(line), session.run(&line.replace(" s", " t")), "{line}");
    }
}
