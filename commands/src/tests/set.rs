//! Sets. The scripts that run on Redis as well say more; this is what they cannot see, and the quick check.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::session::{NOW, Session};

/// The members in a reply: every second word behind the header.
fn members(reply: &str) -> Vec<&str> {
    reply.split(' ').skip(1).skip(1).step_by(2).collect()
}

/// What listeners hear: the change, and `del` when it was the last member.
#[test]
fn events() {
    let mut session = Session::new();
    assert_eq!(session.events_of("SADD s a b c d e"), "sadd s");
    assert_eq!(session.events_of("SADD s a"), "");
    assert_eq!(session.events_of("SREM s a nosuch"), "srem s");
    assert_eq!(session.events_of("SREM s nosuch"), "");
    assert_eq!(session.events_of("SPOP s"), "spop s");
    assert_eq!(session.events_of("SPOP s 0"), "");
    assert_eq!(session.events_of("SUNIONSTORE t s"), "sunionstore t");
    assert_eq!(session.events_of("SPOP s 5"), "spop s, del s");
    assert_eq!(session.events_of("SINTERSTORE t t s"), "del t");
    assert_eq!(session.events_of("SINTERSTORE t t s"), "");
    session.run("SADD one x");
    assert_eq!(session.events_of("SMOVE one other x"), "srem one, del one, sadd other");
    session.run("SADD two x");
    assert_eq!(session.events_of("SMOVE other two x"), "srem other, del other");
    assert_eq!(session.events_of("SMOVE two two x"), "");
    session.run("RPUSH l a");
    assert_eq!(session.events_of("RPOPLPUSH l l"), "lpush l, rpop l");
    assert_eq!(session.events_of("LMOVE l m LEFT RIGHT"), "rpush m, lpop l, del l");
}

/// A failed move changes nothing, whichever side is at fault.
#[test]
fn moves_that_fail() {
    let mut session = Session::new();
    session.check(
        "
        SADD s a -> :1
        RPUSH l x -> :1
        SMOVE s l a -> -WRONGTYPE...
        SMOVE l s x -> -WRONGTYPE...
        SMOVE s l nosuch -> -WRONGTYPE...
        RPOPLPUSH l s -> -WRONGTYPE...
        RPOPLPUSH s l -> -WRONGTYPE...
        LMOVE nosuch s LEFT LEFT -> $-1
        LMOVE l l LEFT UP -> -ERR syntax error
        LRANGE l 0 -1 -> *1 $1 x
        SMEMBERS s -> *1 $1 a
        ",
    );
}

/// Which form a set has after which command, as in Redis 7.4.
#[test]
fn forms() {
    let mut session = Session::new();
    session.env.set_limits.ints_max = 4;
    session.env.set_limits.pack.entries_max = 3;
    session.env.set_limits.pack.len_max = 5;
    session.check(
        "
        SADD i 1 2 3 4 -> :4
        OBJECT ENCODING i -> $6 intset
        SADD i 1 1 1 1 1 -> :0
        OBJECT ENCODING i -> $9 hashtable
        SADD p a b 1 -> :3
        OBJECT ENCODING p -> $8 listpack
        SADD p b a b a -> :0
        OBJECT ENCODING p -> $9 hashtable
        SADD q 1 2 -> :2
        SADD q x -> :1
        OBJECT ENCODING q -> $8 listpack
        SADD q y -> :1
        OBJECT ENCODING q -> $9 hashtable
        SADD w a23456 -> :1
        OBJECT ENCODING w -> $9 hashtable
        SADD many 1 2 3 4 5 -> :5
        OBJECT ENCODING many -> $9 hashtable
        SINTERSTORE few many i -> :4
        OBJECT ENCODING few -> $6 intset
        SDIFFSTORE few p i -> :2
        OBJECT ENCODING few -> $8 listpack
        SUNIONSTORE few i q -> :6
        OBJECT ENCODING few -> $9 hashtable
        ",
    );
}

/// SADDEX: members go when their time comes, whoever looks; SCARD does not count them; the key goes with the last.
#[test]
fn members_expire() {
    let mut session = Session::new();
    session.check(
        "
        SADDEX s 10 a b -> :2
        SADDEX s 20 a -> :0
        SADDEX s KEEPTTL 1 a c -> :1
        SADD s forever b -> :1
        SADDEX s 0 a -> -ERR value is not an integer or out of range
        SADDEX s 67108865 a -> -ERR value is not an integer or out of range
        SADDEX s x a -> -ERR value is not an integer or out of range
        SADDEX s KEEPTTL 5 -> -ERR wrong number of arguments for 'saddex' command
        SCARD s -> :4
        ",
    );
    session.ks.take_events();
    session.ks.now = NOW + 1000;
    assert_eq!(session.run("SMISMEMBER s a b c forever"), "*4 :1 :1 :0 :1");
    assert_eq!(session.events(), "sexpired s");
    session.ks.now = NOW + 10_000;
    session.check(
        "
        SCARD s -> :2
        SMOVE s t b -> :0
        SMOVE s t a -> :1
        SUNIONSTORE u s t -> :2
        SREM s forever -> :1
        ",
    );
    session.ks.now = NOW + 20_000;
    session.ks.take_events();
    session.check(
        "
        SINTER t u -> *0
        EXISTS t -> :0
        SCARD u -> :2
        ",
    );
    assert_eq!(session.events(), "sexpired t, del t, keymiss t, keymiss t");
    let mut session = Session::new();
    session.check(
        "
        SADD s a b -> :2
        FIELDEXPIRE s 20 a nosuch -> *2 :1 :-2
        FIELDTTL s a -> :20
        FIELDTTL s b -> :-1
        FIELDTTL s nosuch -> :-3
        ",
    );
    session.ks.now = NOW + 20_000;
    assert_eq!(session.run("SMEMBERS s"), "*1 $1 b");
    // A set that was sent with its members' times loses those that came meanwhile, and may be nothing then.
    const LATER: u64 = 2_000_000_000_000;
    let mut session = Session::new();
    session.ks.now = LATER;
    session.run("SADDEX s 10 a");
    let dump = session.send(&[b"DUMP", b"s"]);
    let start = dump.windows(2).position(|end| end == b"\r\n").unwrap() + 2;
    let payload = &dump[start..dump.len() - 2];
    session.ks.now = LATER + 9_999;
    assert_eq!(session.send(&[b"RESTORE", b"t", b"0", payload]), b"+OK\r\n");
    assert_eq!(session.run("SMEMBERS t"), "*1 $1 a");
    session.ks.now = LATER + 10_000;
    assert_eq!(session.send(&[b"RESTORE", b"u", b"0", payload]), b"+OK\r\n");
    assert_eq!(session.run("EXISTS s t u"), ":0", "EXISTS is the first to look");
    assert_eq!(session.run("SUNION s t u"), "*0");
}

/// Sets as inputs of sorted sets: every member has the score 1.
#[test]
fn inputs_of_sorted_sets() {
    let mut session = Session::new();
    session.check(
        "
        SADD s a b 7 -> :3
        ZADD z 5 a 6 c -> :2
        ZUNION 2 s z WITHSCORES -> *8 $1 7 $1 1 $1 b $1 1 $1 a $1 6 $1 c $1 6
        ZINTER 2 z s WEIGHTS 1 10 WITHSCORES -> *2 $1 a $2 15
        ZDIFF 2 z s -> *1 $1 c
        ZDIFF 2 s z WITHSCORES -> *4 $1 7 $1 1 $1 b $1 1
        ZINTERCARD 2 s s -> :3
        ZUNIONSTORE s 1 s -> :3
        TYPE s -> +zset
        ",
    );
}

/// Every member is chosen about equally often, alone and in groups, from all three forms.
#[test]
fn choices_are_fair() {
    let words: Vec<String> = (0..20).map(|n| format!("w{n}")).collect();
    let numbers: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    for (entries_max, names) in [(128, &words), (128, &numbers), (0, &words)] {
        let mut session = Session::new();
        session.env.set_limits.pack.entries_max = entries_max;
        session.run(&format!("SADD s {}", names.join(" ")));
        for command in
            ["SRANDMEMBER s 1", "SRANDMEMBER s 2", "SRANDMEMBER s -4", "SRANDMEMBER s 7", "SPOP s 5"]
        {
            let mut drawn = BTreeMap::<String, u32>::new();
            let (mut total, rounds) = (0, 1500);
            for _ in 0..rounds {
                let reply = session.run(command);
                for member in members(&reply) {
                    *drawn.entry(member.to_string()).or_default() += 1;
                    total += 1;
                }
                if command.starts_with("SPOP") {
                    session.run(&format!("SADD s {}", names.join(" ")));
                }
            }
            assert_eq!(drawn.len(), 20, "{command}");
            // Expected total / 20 of each; six standard deviations.
            let expected = f64::from(total) / 20.0;
            let bound = 6.0 * expected.sqrt();
            assert!(drawn.values().all(|&n| (f64::from(n) - expected).abs() < bound), "{command}: {drawn:?}");
        }
    }
}

/// Counts at the edges of what there is and of what a number can say.
#[test]
fn counts() {
    let mut session = Session::new();
    let names: Vec<String> = (0..1000).map(|n| format!("m{n}")).collect();
    session.run(&format!("SADD s {}", names.join(" ")));
    for count in [0usize, 1, 10, 124, 125, 126, 500, 999, 1000, 1001] {
        let reply = session.run(&format!("SRANDMEMBER s {count}"));
        let distinct: BTreeSet<&str> = members(&reply).into_iter().collect();
        assert_eq!((members(&reply).len(), distinct.len()), (count.min(1000), count.min(1000)));
    }
    session.check(
        "
        SRANDMEMBER s -9223372036854775808 -> -ERR value is out of range, value must between -9223372036854775807...
        SRANDMEMBER nosuch -9223372036854775808 -> -ERR value is out of range, value must between...
        SRANDMEMBER s -9223372036854775807 -> -ERR value is out of range
        SRANDMEMBER s 9223372036854775808 -> -ERR value is not an integer or out of range
        SPOP s 9223372036854775808 -> -ERR value is out of range, must be positive
        SPOP s -1 -> -ERR value is out of range, must be positive
        SCARD s -> :1000
        ",
    );
    let popped = session.run("SPOP s 400");
    assert_eq!(members(&popped).into_iter().collect::<BTreeSet<_>>().len(), 400);
    assert_eq!(session.run("SCARD s"), ":600");
    assert_eq!(members(&session.run("SPOP s 9223372036854775807")).len(), 600);
    assert_eq!(session.run("EXISTS s"), ":0");
}

/// A walk shows every member that was there all the time, while others come and go by the thousand.
#[test]
fn scan_while_changing() {
    let names = |others: Range<usize>| others.map(|n| format!("other{n}")).collect::<Vec<_>>().join(" ");
    for seed in 0..4 {
        let mut session = Session::new();
        let stay: Vec<String> = (0..400).map(|n| format!("stay{n}")).collect();
        session.run(&format!("SADD s {}", stay.join(" ")));
        let (mut cursor, mut seen, mut step, mut others) = ("0".to_string(), BTreeSet::new(), 0, 0);
        loop {
            let reply = session.run(&format!("SSCAN s {cursor} COUNT 7"));
            let words: Vec<&str> = reply.split(' ').collect();
            seen.extend(words.iter().skip(5).step_by(2).map(|word| word.to_string()));
            cursor = words[2].to_string();
            if cursor == "0" {
                break;
            }
            step += 1;
            let before = others;
            if (step / 150 + seed) % 2 == 0 {
                others += 50;
                session.run(&format!("SADD s {}", names(before..others)));
            } else if others > 0 {
                others -= 50;
                session.run(&format!("SREM s {}", names(others..before)));
            }
            assert!(step < 10_000, "the walk ends");
        }
        assert!(stay.iter().all(|member| seen.contains(member)), "seed {seed}");
    }
}

/// Unions, intersections and differences of sets of every form and size against the standard library's sets.
#[test]
fn algebra_against_a_model() {
    let mut session = Session::new();
    session.env.set_limits.ints_max = 30;
    session.env.set_limits.pack.entries_max = 20;
    let mut state = 12345u64;
    let mut random = move |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % bound
    };
    for _ in 0..60 {
        session.run("DEL k0 k1 k2 k3 k4 k5 d");
        let sets: Vec<BTreeSet<String>> = (0..1 + random(6))
            .map(|at| {
                let size = [0, 5, 25, 200, 600][random(5) as usize];
                let words = random(2) == 0;
                let set: BTreeSet<String> = (0..size)
                    .map(|_| match random(700) {
                        n if words && n % 3 == 0 => format!("w{n}"),
                        n => n.to_string(),
                    })
                    .collect();
                for member in &set {
                    session.run(&format!("SADD k{at} {member}"));
                }
                set
            })
            .collect();
        let keys: Vec<String> = (0..sets.len()).map(|at| format!("k{at}")).collect();
        let keys = keys.join(" ");
        let first = sets[0].clone();
        let union = sets.iter().fold(BTreeSet::new(), |all, set| &all | set);
        let intersection = sets.iter().fold(first.clone(), |all, set| &all & set);
        let difference = sets[1..].iter().fold(first, |all, set| &all - set);
        for (name, want) in [("SUNION", union), ("SINTER", intersection), ("SDIFF", difference)] {
            let as_set = |reply: String| {
                let list = members(&reply);
                let set: BTreeSet<String> = list.iter().map(|member| member.to_string()).collect();
                assert_eq!(list.len(), set.len(), "each once");
                set
            };
            assert_eq!(as_set(session.run(&format!("{name} {keys}"))), want, "{name} {keys}");
            let stored = session.run(&format!("{name}STORE d {keys}"));
            assert_eq!(stored, format!(":{}", want.len()));
            assert_eq!(as_set(session.run("SMEMBERS d")), want);
        }
    }
}
