//! HyperLogLogs as values: when they change, who is told, and the commands that look into them.

use super::session::Session;

/// A HyperLogLog of these elements, as bytes.
fn value(session: &mut Session, key: &str) -> Vec<u8> {
    let reply = session.send(&[b"GET", key.as_bytes()]);
    let line = reply.iter().position(|&byte| byte == b'\n').expect("a header line") + 1;
    reply[line..reply.len() - 2].to_vec()
}

/// A count is kept in the value and goes when a register changes.
#[test]
fn counts_are_kept() {
    let mut session = Session::new();
    session.check("PFADD h a b c -> :1");
    assert_eq!(value(&mut session, "h")[8..16], [0, 0, 0, 0, 0, 0, 0, 0x80]);
    assert_eq!(session.events_of("PFCOUNT h"), "");
    assert_eq!(value(&mut session, "h")[8..16], [3, 0, 0, 0, 0, 0, 0, 0]);
    session.check("PFADD h a -> :0");
    assert_eq!(value(&mut session, "h")[8..16], [3, 0, 0, 0, 0, 0, 0, 0]);
    session.check("PFADD h d -> :1");
    assert_eq!(value(&mut session, "h")[15], 0x80);
}

/// Told is what changed the set: also by the elements in front of damage.
#[test]
fn events() {
    let mut session = Session::new();
    for (line, events) in [
        ("PFADD h", "pfadd h"),
        ("PFADD h", ""),
        ("PFADD h a", "pfadd h"),
        ("PFADD h a", ""),
        ("PFCOUNT h missing", "keymiss missing"),
        ("PFMERGE h", "pfadd h"),
        ("PFMERGE new h", "keymiss new, pfadd new"),
        ("PFDEBUG TODENSE h", ""),
    ] {
        assert_eq!(session.events_of(line), events, "{line}");
    }
    session.send(&[b"SET", b"cut", b"HYLL\x01\0\0\0\0\0\0\0\0\0\0\x80\x42\0"]);
    session.ks.take_events();
    session.check("PFADD cut a b c d e f g h -> -INVALIDOBJ Corrupted HLL object detected");
    assert_eq!(session.events(), "pfadd cut");
    session.send(&[b"SET", b"text", b"some text"]);
    session.ks.take_events();
    session.check(
        "
        PFADD text a -> -WRONGTYPE Key is not a valid HyperLogLog string value.
        PFADD cut -> :0
        PFCOUNT cut -> -INVALIDOBJ...
        PFCOUNT h cut -> -INVALIDOBJ...
        PFMERGE h cut -> -INVALIDOBJ...
        PFDEBUG TODENSE cut -> -INVALIDOBJ...
        PFDEBUG GETREG cut -> -INVALIDOBJ...
        ",
    );
    assert_eq!(session.events(), "");
}

/// `hll-sparse-max-bytes` decides when a value becomes dense.
#[test]
fn sparse_limit() {
    let mut session = Session::new();
    session.env.hll_sparse_max = 20;
    session.check(
        "
        PFADD h a -> :1
        PFDEBUG ENCODING h -> +dense
        STRLEN h -> :12304
        ",
    );
}

/// The inner view, with the words of Redis.
#[test]
fn debug() {
    let mut session = Session::new();
    session.check(
        "
        PFDEBUG ENCODING h -> -ERR The specified key does not exist
        PFADD h a b c -> :1
        PFCOUNT h -> :3
        PFDEBUG encoding h -> +sparse
        PFDEBUG DECODE h -> $44 Z:8436 v:1,1 Z:4274 v:2,1 Z:3068 v:1,1 Z:603
        PFDEBUG FOO h -> -ERR Unknown PFDEBUG subcommand 'FOO'
        PFDEBUG TODENSE h -> :1
        PFDEBUG TODENSE h -> :0
        PFDEBUG ENCODING h -> +dense
        PFDEBUG DECODE h -> -ERR HLL encoding is not sparse
        PFCOUNT h -> :3
        PFADD h a b c -> :0
        SET n 1 -> +OK
        PFDEBUG FOO n -> -WRONGTYPE Key is not a valid HyperLogLog string value.
        PFSELFTEST -> +OK
        ",
    );
    assert_eq!(value(&mut session, "h")[8..16], [3, 0, 0, 0, 0, 0, 0, 0]);
    session.check("PFADD sparse a b c -> :1");
    let registers = session.run("PFDEBUG GETREG sparse");
    let registers: Vec<&str> = registers.split(' ').collect();
    assert_eq!((registers[0], registers.len()), ("*16384", 16385));
    let set: Vec<(usize, &str)> =
        registers[1..].iter().copied().enumerate().filter(|(_, register)| *register != ":0").collect();
    assert_eq!(set, [(8436, ":1"), (12711, ":2"), (15780, ":1")]);
    session.check("PFDEBUG ENCODING sparse -> +dense");
}
