//! DUMP on one server, RESTORE on the other, in both directions: what a migration does, key by key.
//!
//! Types that our server does not have yet are left out; see `served.rs`.

use damselfly_tests::executor::{Executor, Tcp};
use damselfly_tests::reply::{Protocol, Reply};
use damselfly_tests::served::Lacking;
use damselfly_tests::servers::{Kind, Server};

/// What makes each key, and how its content is read in an order that is the same everywhere.
const KEYS: &[(&str, &[&str], &[&str])] = &[
    ("string", &["SET string value"], &["GET string"]),
    ("integer", &["SET integer -9223372036854775808"], &["GET integer"]),
    ("bits", &["SETBIT bits 100000 1"], &["GETRANGE bits 0 -1", "BITPOS bits 1"]),
    ("list", &["RPUSH list a 1 -5000 3000000000 word"], &["LRANGE list 0 -1"]),
    ("intset", &["SADD intset 1 -2 70000 9223372036854775807"], &["SORT intset"]),
    ("set", &["SADD set a b 3"], &["SORT set ALPHA"]),
    ("hash", &["HSET hash f v n 7"], &["HGET hash f", "HGET hash n", "HLEN hash"]),
    ("zset", &["ZADD zset 1.5 a -inf b inf c 0.1 d"], &["ZRANGE zset 0 -1 WITHSCORES"]),
    (
        "stream",
        &[
            "XADD stream 1-1 f v",
            "XADD stream 2-1 f v g w",
            "XADD stream 3-1 other x",
            "XDEL stream 2-1",
            "XGROUP CREATE stream group 0",
            "XREADGROUP GROUP group alice COUNT 1 STREAMS stream >",
        ],
        &["XRANGE stream - +", "XPENDING stream group", "XINFO GROUPS stream"],
    ),
    ("hll", &["PFADD hll a b c d e"], &["PFCOUNT hll"]),
    (
        "geo",
        &["GEOADD geo 13.361389 38.115556 Palermo 15.087269 37.502669 Catania"],
        &["GEOPOS geo Palermo Catania"],
    ),
];

fn call(executor: &mut Tcp, line: &str) -> Reply {
    let words: Vec<Vec<u8>> = line.split_whitespace().map(|word| word.as_bytes().to_vec()).collect();
    executor.call("A", &words).unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn lacks(lacking: &Lacking, line: &str) -> bool {
    lacking.has(line.split(' ').next().unwrap_or_default())
}

/// Every key of `from` arrives on `to` and reads the same there.
fn migrate(from: &mut Tcp, to: &mut Tcp, lacking: &Lacking) {
    for (key, makers, readers) in KEYS {
        if makers.iter().any(|maker| lacks(lacking, maker)) {
            continue;
        }
        for maker in *makers {
            let reply = call(from, maker);
            assert!(!matches!(reply, Reply::Error(_)), "{maker}: {reply}");
        }
        let Reply::Bulk(payload) = call(from, &format!("DUMP {key}")) else { panic!("no DUMP of {key}") };
        let restore = [b"RESTORE".to_vec(), key.as_bytes().to_vec(), b"0".to_vec(), payload];
        let reply = to.call("A", &restore).expect("a reply");
        assert_eq!(reply, Reply::Simple(b"OK".to_vec()), "RESTORE {key}");
        for reader in readers.iter().filter(|reader| !lacks(lacking, reader)) {
            assert_eq!(call(from, reader), call(to, reader), "{reader}");
        }
    }
}

/// The same with values far above every small encoding.
fn migrate_big(from: &mut Tcp, to: &mut Tcp, lacking: &Lacking) {
    let numbered = |prefix: &str| (0..3000).map(|at| format!(" {prefix}{at}")).collect::<String>();
    let paired = (0..3000).map(|at| format!(" {at} m{at}")).collect::<String>();
    for (maker, key, reader) in [
        (format!("RPUSH biglist{}", numbered("e")), "biglist", "LRANGE biglist 0 -1"),
        (format!("SADD bigset{}", numbered("e")), "bigset", "SORT bigset ALPHA"),
        (format!("SADD bigintset{}", numbered("")), "bigintset", "SORT bigintset"),
        (format!("ZADD bigzset{paired}"), "bigzset", "ZRANGE bigzset 0 -1 WITHSCORES"),
        (format!("HSET bighash{paired}"), "bighash", "HGET bighash 2999"),
    ] {
        if lacks(lacking, &maker) {
            continue;
        }
        let reply = call(from, &maker);
        assert!(!matches!(reply, Reply::Error(_)), "{key}: {reply}");
        let Reply::Bulk(payload) = call(from, &format!("DUMP {key}")) else { panic!("no DUMP of {key}") };
        let restore = [b"RESTORE".to_vec(), key.as_bytes().to_vec(), b"0".to_vec(), payload];
        assert_eq!(to.call("A", &restore), Ok(Reply::Simple(b"OK".to_vec())), "RESTORE {key}");
        if !lacks(lacking, reader) {
            assert_eq!(call(from, reader), call(to, reader), "{reader}");
        }
    }
}

fn both() -> [(Server, Tcp); 2] {
    [Kind::Redis, Kind::Damselfly { threads: 2 }].map(|kind| {
        let server = Server::start(kind, &[]).unwrap_or_else(|error| panic!("{error}"));
        let executor = Tcp::new(server.address(), Protocol::Resp2);
        (server, executor)
    })
}

/// A key taken out of Redis is the same key here.
#[test]
fn from_redis() {
    let [(_redis, mut redis), (_ours, mut ours)] = both();
    let lacking = Lacking::of(&mut ours).expect("COMMAND LIST");
    migrate(&mut redis, &mut ours, &lacking);
    migrate_big(&mut redis, &mut ours, &lacking);
}

/// Nobody is locked in: Redis takes ours.
#[test]
fn to_redis() {
    let [(_redis, mut redis), (_ours, mut ours)] = both();
    let lacking = Lacking::of(&mut ours).expect("COMMAND LIST");
    migrate(&mut ours, &mut redis, &lacking);
    migrate_big(&mut ours, &mut redis, &lacking);
}
