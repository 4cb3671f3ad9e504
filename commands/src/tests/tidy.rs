//! Values whose allocations are given other addresses: of every type, small and big.

use damselfly_keyspace::{Heap, Mover, Object, Value};

use super::session::Session;

/// The keys of [`filled`].
const KEYS: &[&str] = &[
    "string",
    "small list",
    "list",
    "small hash",
    "long hash",
    "noted hash",
    "hash",
    "expiring hash",
    "numbers",
    "small set",
    "long set",
    "set",
    "small zset",
    "zset",
    "long zset",
    "stream",
    "groups",
    "json",
    "bloom",
    "cuckoo",
    "counts",
    "top",
];

/// Keys of all types in all forms, and one whose own bytes are long.
fn filled() -> Session {
    let mut session = Session::unchecked();
    let long = |n: usize| format!("{n} {}", "long ".repeat(n % 200));
    let mut send = |words: &[&str]| {
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        let reply = session.send(&words);
        assert!(!reply.starts_with(b"-"), "{words:?}: {}", reply.escape_ascii());
    };
    send(&["SET", "string", &"s".repeat(9000)]);
    send(&["SET", &"key".repeat(200), "a string under a long key"]);
    send(&["RPUSH", "small list", "1", "two"]);
    send(&["HSET", "small hash", "f", "v"]);
    send(&["HSET", "noted hash", "f", "v"]);
    send(&["HEXPIRE", "noted hash", "9999", "FIELDS", "1", "f"]);
    send(&["HSET", "long hash", "f", &"v".repeat(3000), "g", &"w".repeat(90)]);
    send(&["SADD", "numbers", "1", "2", "70000"]);
    send(&["SADD", "small set", "a", "2"]);
    send(&["SADD", "long set", &"m".repeat(100), "2"]);
    send(&["ZADD", "small zset", "1", "a", "2", "b"]);
    send(&[
        "JSON.SET",
        "json",
        "$",
        &format!(
            "{{\"a\":[1,{}0,\"{}\"],\"b\":{{\"long name of a member\":null}},\"n\":{}}}",
            "2,".repeat(500),
            "text ".repeat(20),
            "123456789".repeat(9)
        ),
    ]);
    send(&["BF.RESERVE", "bloom", "0.01", "100"]);
    send(&["CF.RESERVE", "cuckoo", "100"]);
    send(&["CMS.INITBYDIM", "counts", "5000", "3"]);
    send(&["TOPK.RESERVE", "top", "50", "300", "5", "0.9"]);
    send(&["XGROUP", "CREATE", "groups", "g", "0", "MKSTREAM"]);
    for n in 0..3000 {
        let (text, number) = (long(n), n.to_string());
        send(&["RPUSH", "list", &text]);
        send(&["HSET", "hash", &number, &text]);
        send(&["SADD", "set", &text]);
        send(&["ZADD", "zset", &number, &number]);
        send(&["XADD", "stream", "*", "field", &text]);
        if n < 300 {
            send(&["HSET", "expiring hash", &number, &text]);
            send(&["HEXPIRE", "expiring hash", "9999", "FIELDS", "1", &number]);
            send(&["ZADD", "long zset", "1", &text]);
            send(&["XADD", "groups", "*", "f", &number]);
        }
        send(&["BF.ADD", "bloom", &number]);
        send(&["CF.ADD", "cuckoo", &number]);
        send(&["CMS.INCRBY", "counts", &number, "3"]);
        send(&["TOPK.ADD", "top", &number]);
    }
    for reader in ["one", "another"] {
        send(&["XREADGROUP", "GROUP", "g", reader, "COUNT", "150", "STREAMS", "groups", ">"]);
    }
    session
}

fn dumps(session: &mut Session) -> Vec<Vec<u8>> {
    KEYS.iter()
        .map(|key| {
            let dump = session.send(&[b"DUMP", key.as_bytes()]);
            assert!(dump.len() > 5, "{key} is there");
            dump
        })
        .collect()
}

/// Nothing is lost and the accounts stay right, whatever is called sparse and however little is done at a time; and all
/// can be changed as before.
#[test]
fn nothing_is_lost() {
    let mut session = filled();
    let (before, heap) = (dumps(&mut session), session.ks.heap_bytes());
    let some = |address: *const u8| address.addr() / 64 % 3 == 1;
    let (all, some): (&dyn Heap, &dyn Heap) = (&|_| true, &some);
    for (bytes, is_sparse) in [(1, all), (usize::MAX, all), (5000, some), (usize::MAX, some)] {
        let (mut moved, mut steps) = (0, 0);
        loop {
            let tidied = session.ks.tidy_some(1, bytes, Some(is_sparse));
            moved += tidied.moved;
            steps += 1;
            if tidied.round_ended {
                break;
            }
        }
        session.ks.check();
        assert!(session.ks.heap_bytes() <= heap && moved > heap / 5, "{moved} of {heap} in {steps} steps");
        assert!(steps > 300 || bytes > 1, "one part at a time: {steps} steps");
        assert!(dumps(&mut session) == before);
    }
    for line in [
        "RPUSH list x",
        "LSET list 1500 y",
        "HSET hash 77 z new z",
        "SREM numbers 1",
        "SADD set x",
        "ZADD zset 1.5 77 9 x",
        "XADD groups * f v",
        "XACK groups g 1000000000-5",
        "JSON.SET json $.b.c 5",
        "BF.ADD bloom x",
        "CF.ADD cuckoo x",
        "CMS.INCRBY counts x 1",
        "TOPK.ADD top x",
        "ZREMRANGEBYRANK zset 10 2000",
        "LTRIM list 1000 1010",
        "DEL stream",
    ] {
        assert!(!session.run(line).starts_with('-'), "{line}");
        session.ks.check();
    }
}

/// A round with everything sparse leaves no allocation of a collection where it was, whether it comes to it at once or bit
/// by bit: as many bytes are moved as the collection holds.
#[test]
fn all_is_moved() {
    let mut session = filled();
    let mut objects: Vec<(&str, Object)> = Vec::new();
    for key in &KEYS[1..] {
        let loc = session.ks.find(0, key.as_bytes()).expect("filled");
        let Value::Object(object) = session.ks.value(0, loc) else { panic!("{key} is a collection") };
        objects.push((key, object.clone()));
    }
    let is_sparse: &dyn Heap = &|_| true;
    for (key, object) in &mut objects {
        if !["json", "bloom"].contains(key) && object.is_big() {
            let mut mover = Mover::new(is_sparse, usize::MAX, usize::MAX);
            assert!(mover.from(0, |mover| object.relocate(mover)).is_none());
            assert!(
                mover.moved() < object.heap_bytes() / 2,
                "{key} is shared, and stays but for its outermost parts"
            );
        }
    }
    drop(session);
    for (key, object) in &mut objects {
        for looks in [usize::MAX, 7] {
            let (mut moved, mut place) = (0, Some(0));
            while let Some(from) = place {
                let mut mover = Mover::new(is_sparse, looks, usize::MAX);
                place = mover.from(from, |mover| object.relocate(mover));
                moved += mover.moved();
            }
            object.check();
            let held = object.heap_bytes();
            if looks == usize::MAX {
                assert_eq!(moved, held, "{key}");
            } else {
                assert!(moved >= held, "{key}: {moved} of {held}");
            }
        }
    }
}
