//! Hashes. The scripts that run on Redis as well say more; this is what they cannot see, and the quick check.

use damselfly_keyspace::values::PackLimits;

use super::session::{NOW, Session};

/// Sessions whose hashes are small, or big from the first field on.
fn sessions() -> [Session; 2] {
    [512, 0].map(|entries_max| {
        let mut session = Session::new();
        session.env.hash_pack = PackLimits { entries_max, len_max: 64 };
        session
    })
}

/// Fields one by one, in both forms.
#[test]
fn fields() {
    for mut session in sessions() {
        session.check(
            "
            HSET h a 1 b 2 a 3 -> :2
            HSET h a 1 b -> -ERR wrong number of arguments for 'hset' command
            HMSET h c 007 -> +OK
            HSETNX h c 1 -> :0
            HSETNX h d -5 -> :1
            HGET h a -> $1 3
            HGET h x -> $-1
            HMGET h d x c -> *3 $2 -5 $-1 $3 007
            HSTRLEN h d -> :2
            HEXISTS h d -> :1
            HINCRBY h a 5 -> :8
            HINCRBY h c 1 -> -ERR hash value is not an integer
            HINCRBYFLOAT h c 0.5 -> $3 7.5
            HINCRBYFLOAT h c inf -> -ERR value is NaN or Infinity
            HLEN h -> :4
            HDEL h a a x b -> :2
            HDEL h c d -> :2
            EXISTS h -> :0
            ",
        );
    }
}

/// What listeners hear.
#[test]
fn events() {
    for mut session in sessions() {
        for (command, events) in [
            ("HSET h a 1 b 2", "hset h"),
            ("HSETNX h a 2", ""),
            ("HINCRBY h a 1", "hincrby h"),
            ("HINCRBY h a x", ""),
            ("HINCRBYFLOAT h a 1", "hincrbyfloat h"),
            ("HEXPIRE h 10 FIELDS 1 a", "hexpire h"),
            ("HEXPIRE h 10 NX FIELDS 2 a x", ""),
            ("HPERSIST h FIELDS 2 a b", "hpersist h"),
            ("HPERSIST h FIELDS 2 a b", ""),
            ("HGETEX h EX 5 FIELDS 1 a", "hexpire h"),
            ("HGETEX h PERSIST FIELDS 1 a", "hpersist h"),
            ("HGETEX h FIELDS 1 a", ""),
            ("HSETEX h EX 5 FIELDS 1 c 1", "hset h, hexpire h"),
            ("HSETEX h FNX FIELDS 1 c 1", ""),
            ("HSETEX h 5 d 1", "hset h, hexpire h"),
            ("HSETEX h NX 5 d 1", ""),
            ("HSETEX h PXAT 1 FIELDS 1 d 1", "hset h, hdel h"),
            ("HSETEX new PXAT 1 FIELDS 1 d 1", "hset new, hdel new, del new"),
            ("HGETDEL h FIELDS 2 c x", "hdel h"),
            ("HEXPIREAT h 1 FIELDS 1 b", "hdel h"),
            ("HDEL h x", ""),
            ("HDEL h a", "hdel h, del h"),
            ("HSET h a 1", "hset h"),
            ("HPEXPIRE h 0 FIELDS 1 a", "hdel h, del h"),
        ] {
            assert_eq!(session.events_of(command), events, "{command}");
        }
    }
}

/// Deadlines are set under conditions, shown in all units and removed.
#[test]
fn deadlines() {
    for mut session in sessions() {
        session.check(
            "
            HSET h a 1 b 2 c 3 -> :3
            HPEXPIRE h 1500 FIELDS 2 a x -> *2 :1 :-2
            HTTL h FIELDS 3 a b x -> *3 :2 :-1 :-2
            HPTTL h FIELDS 1 a -> *1 :1500
            HPEXPIRETIME h FIELDS 1 a -> *1 :1000001500
            HEXPIRETIME h FIELDS 1 a -> *1 :1000002
            HPEXPIRE h 1500 GT FIELDS 2 a b -> *2 :0 :0
            HPEXPIRE h 1501 GT FIELDS 1 a -> *1 :1
            HPEXPIRE h 1500 LT FIELDS 2 a b -> *2 :1 :1
            HPEXPIRE h 9 XX FIELDS 1 c -> *1 :0
            HPEXPIRE h 9 NX FIELDS 2 a c -> *2 :0 :1
            HPERSIST h FIELDS 3 a c x -> *3 :1 :1 :-2
            HPERSIST h FIELDS 1 a -> *1 :-1
            HEXPIREAT h 1000 FIELDS 2 a a -> *2 :2 :-2
            HKEYS h -> *2 $1 b $1 c
            HEXPIRE h -1 FIELDS 1 b -> -ERR invalid expire time, must be >= 0
            HPEXPIREAT h 70368744177664 FIELDS 1 b -> -ERR invalid expire time in 'hpexpireat' command
            HPEXPIREAT h 70368744177663 FIELDS 1 b -> *1 :1
            HEXPIRE h 9223372036854775807 FIELDS 1 b -> -ERR invalid expire time in 'hexpire' command
            HPEXPIRE h 70368744177663 FIELDS 1 b -> -ERR invalid expire time in 'hpexpire' command
            HTTL none FIELDS 2 a b -> *2 :-2 :-2
            HEXPIRE none 10 FIELDS 1 a -> *1 :-2
            HPERSIST none FIELDS 1 a -> *1 :-2
            HSET h b 5 -> :0
            HTTL h FIELDS 1 b -> *1 :-1
            HEXPIRE h 10 FIELDS 1 b -> *1 :1
            HINCRBY h b 1 -> :6
            HINCRBYFLOAT h b 1 -> $1 7
            HTTL h FIELDS 1 b -> *1 :10
            FIELDTTL h b -> :10
            FIELDTTL h c -> :-1
            FIELDTTL h x -> :-3
            FIELDTTL none x -> :-2
            FIELDEXPIRE h 20 b x -> *2 :1 :-2
            FIELDEXPIRE h 0 b -> -ERR value is not an integer or out of range
            ",
        );
    }
}

/// Both forms of HSETEX, and HGETEX and HGETDEL.
#[test]
fn with_deadlines() {
    for mut session in sessions() {
        session.check(
            "
            HSETEX h EX 10 FIELDS 2 a 1 b 2 -> :1
            HTTL h FIELDS 2 a b -> *2 :10 :10
            HSETEX h KEEPTTL FIELDS 2 a 3 c 4 -> :1
            HTTL h FIELDS 2 a c -> *2 :10 :-1
            HSETEX h FIELDS 1 a 5 -> :1
            HTTL h FIELDS 1 a -> *1 :-1
            HSETEX h FXX EX 5 FIELDS 2 a 6 x 7 -> :0
            HSETEX h FNX EX 5 FIELDS 2 a 6 x 7 -> :0
            HSETEX h fxx px 5000 fields 1 a 8 -> :1
            HSETEX none FXX FIELDS 1 a 1 -> :0
            EXISTS none -> :0
            HSETEX h 100 d 1 a 9 -> :1
            HTTL h FIELDS 2 d a -> *2 :100 :100
            HSETEX h NX 50 d 2 e 3 -> :1
            HMGET h d e -> *2 $1 1 $1 3
            HSETEX h KEEPTTL 60 d 2 f 3 c 5 -> :1
            HTTL h FIELDS 3 d f c -> *3 :100 :60 :-1
            HSETEX h FNX 50 d 2 -> :0
            HSETEX h 0 d 1 -> -ERR value is not an integer or out of range
            HSETEX h 67108865 d 1 -> -ERR value is not an integer or out of range
            HSETEX h 10 d 1 e -> -ERR wrong number of arguments for 'hsetex' command
            HSETEX h EX 10 KEEPTTL FIELDS 1 a 1 -> -ERR Only one of EX, PX, EXAT, PXAT or KEEPTTL...
            HSETEX h FNX FXX FIELDS 1 a 1 -> -ERR Only one of FXX or FNX arguments can be specified
            HSETEX h EX 10 20 a 1 -> -ERR unknown argument: 20
            HSETEX h FOO FIELDS 1 a 1 -> -ERR unknown argument: FOO
            HSETEX h NX FIELDS 1 a 1 -> -ERR syntax error
            HSETEX h FIELDS 2 a 1 -> -ERR wrong number of arguments for 'hsetex' command
            HSETEX h FIELDS 0 a 1 -> -ERR invalid number of fields
            HSETEX h FNX KEEPTTL EX -> -ERR Only one of EX...
            HSETEX h FNX FNX EX -> -ERR Only one of FXX or FNX...
            HSETEX h FNX EX 10 -> -ERR wrong number of arguments for 'hsetex' command
            HGETEX h FIELDS 2 a x -> *2 $1 9 $-1
            HGETEX h EX 7 FIELDS 2 a x -> *2 $1 9 $-1
            HTTL h FIELDS 1 a -> *1 :7
            HGETEX h PERSIST FIELDS 1 a -> *1 $1 9
            HTTL h FIELDS 1 a -> *1 :-1
            HGETEX h EXAT 5 FIELDS 2 a a -> *2 $1 9 $-1
            HGETEX none EX 5 FIELDS 1 a -> *1 $-1
            HGETEX h EX 5 PERSIST FIELDS 1 a -> -ERR Mandatory argument FIELDS is missing...
            HGETEX h EX x FIELDS 1 a -> -ERR value is not an integer or out of range
            HGETEX h FIELDS 0 a -> -ERR Number of fields must be a positive integer
            HGETEX h FIELDS 2 a -> -ERR The `numfields` parameter must match the number of arguments
            HGETDEL h FIELDS 3 d d x -> *3 $1 2 $-1 $-1
            HGETDEL none FIELDS 1 d -> *1 $-1
            HGETDEL h FOO 1 d -> -ERR Mandatory argument FIELDS is missing...
            ",
        );
    }
}

/// A field is there one millisecond before its time and gone at it, for every command; with the last one the key
/// goes, and both are announced.
#[test]
fn expired() {
    let commands = [
        ("HGET h a", "$-1"),
        ("HMGET h a b", "*2 $-1 $1 2"),
        ("HGETALL h", "*2 $1 b $1 2"),
        ("HKEYS h", "*1 $1 b"),
        ("HVALS h", "*1 $1 2"),
        ("HLEN h", ":1"),
        ("HEXISTS h a", ":0"),
        ("HSTRLEN h a", ":0"),
        ("HSET h a 5", ":1"),
        ("HSETNX h a 5", ":1"),
        ("HDEL h a", ":0"),
        ("HINCRBY h a 5", ":5"),
        ("HINCRBYFLOAT h a 5", "$1 5"),
        ("HRANDFIELD h", "$1 b"),
        ("HRANDFIELD h 5", "*1 $1 b"),
        ("HRANDFIELD h -2 WITHVALUES", "*4 $1 b $1 2 $1 b $1 2"),
        ("HSCAN h 0", "*2 $1 0 *2 $1 b $1 2"),
        ("HSCAN h 0 NOVALUES", "*2 $1 0 *1 $1 b"),
        ("HEXPIRE h 5 FIELDS 1 a", "*1 :-2"),
        ("HTTL h FIELDS 1 a", "*1 :-2"),
        ("HPERSIST h FIELDS 1 a", "*1 :-2"),
        ("HGETEX h EX 5 FIELDS 1 a", "*1 $-1"),
        ("HSETEX h FNX FIELDS 1 a 5", ":1"),
        ("HSETEX h FXX FIELDS 1 a 5", ":0"),
        ("HSETEX h KEEPTTL FIELDS 1 a 5", ":1"),
        ("HGETDEL h FIELDS 1 a", "*1 $-1"),
        ("FIELDTTL h a", ":-3"),
        ("FIELDEXPIRE h 5 a", "*1 :-2"),
    ];
    for at in 0..2 {
        for (command, reply) in commands {
            let session = &mut sessions()[at];
            session.check("HSET h a 1 b 2 -> :2\nHPEXPIRE h 100 FIELDS 1 a -> *1 :1");
            session.ks.now = NOW + 99;
            assert_eq!(session.run("HGET h a"), "$1 1");
            session.events();
            session.ks.now = NOW + 100;
            assert_eq!(session.run(command), reply, "{command}");
            assert!(session.events().starts_with("hexpired h"), "{command}");
            if !command.contains("EX h 5") {
                assert!(!session.run("HPTTL h FIELDS 1 a").contains(":100"), "{command}: an old deadline");
            }
            let session = &mut sessions()[at];
            session.check("HSET h a 1 -> :1\nHPEXPIRE h 100 FIELDS 1 a -> *1 :1");
            session.ks.now = NOW + 100;
            session.events();
            session.run(command);
            assert!(session.events().starts_with("hexpired h, del h"), "{command}");
        }
        let session = &mut sessions()[at];
        for (command, reply) in [("EXISTS h", ":0"), ("TYPE h", "+none"), ("DEL h", ":0"), ("TTL h", ":-2")] {
            session.check("HSET h a 1 -> :1\nHPEXPIRE h 100 FIELDS 1 a -> *1 :1");
            session.ks.now += 100;
            assert_eq!(session.run(command), reply);
        }
    }
}

/// Deadlines travel with DUMP and RESTORE (as whole seconds, rounded up) and with COPY and RENAME (to the
/// millisecond); what expires on the way does not arrive.
#[test]
fn travelling() {
    for mut session in sessions() {
        // The format counts seconds from a day in 2023.
        session.ks.now = 1_700_000_000_000;
        session.check(
            "
            HSET h a 1 b 2 -> :2
            HPEXPIRE h 1500 FIELDS 1 a -> *1 :1
            RENAME h k -> +OK
            HPTTL k FIELDS 2 a b -> *2 :1500 :-1
            ",
        );
        let payload = |session: &mut Session| {
            let reply = session.send(&[b"DUMP", b"k"]);
            let start = reply.windows(2).position(|pair| pair == b"\r\n").expect("a bulk") + 2;
            reply[start..reply.len() - 2].to_vec()
        };
        let dump = payload(&mut session);
        assert_eq!(session.send(&[b"RESTORE", b"r", b"0", &dump]), b"+OK\r\n");
        assert_eq!(session.run("HPTTL r FIELDS 2 a b"), "*2 :2000 :-1");
        session.ks.now += 3_000;
        assert_eq!(session.send(&[b"RESTORE", b"late", b"0", &dump]), b"+OK\r\n");
        assert_eq!(session.run("HGETALL late"), "*2 $1 b $1 2");
        session.check("HEXPIRE k 1 FIELDS 1 b -> *1 :1");
        let dump = payload(&mut session);
        session.ks.now += 3_000;
        assert_eq!(session.send(&[b"RESTORE", b"late", b"0", &dump, b"REPLACE"]), b"+OK\r\n");
        session.check("EXISTS late k -> :0");
    }
}

/// A small hash is what OBJECT ENCODING says, with the fields in the order in which they came, and never loses
/// anything by growing.
#[test]
fn forms() {
    let mut session = Session::new();
    session.check(
        "
        HSET h b 1 a 2 -> :2
        OBJECT ENCODING h -> $8 listpack
        HEXPIRE h 10 FIELDS 2 b x -> *2 :1 :-2
        OBJECT ENCODING h -> $10 listpackex
        HSET h c 3 -> :1
        HGETALL h -> *6 $1 b $1 1 $1 a $1 2 $1 c $1 3
        ",
    );
    session.env.hash_pack.entries_max = 3;
    session.check(
        "
        HSET h a 5 -> :0
        OBJECT ENCODING h -> $10 listpackex
        HSET h d 4 -> :1
        OBJECT ENCODING h -> $9 hashtable
        HTTL h FIELDS 4 a b c d -> *4 :-1 :10 :-1 :-1
        HMGET h a b c d -> *4 $1 5 $1 1 $1 3 $1 4
        ",
    );
}
