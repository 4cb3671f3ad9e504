//! Lists: both ends, the middle, and from list to list.

use std::collections::VecDeque;

use super::session::{Session, show};

#[test]
fn pushed_and_popped() {
    Session::new().check(
        "
        LPUSHX l a -> :0
        RPUSHX l a -> :0
        EXISTS l -> :0
        RPUSH l c d -> :2
        LPUSH l b a -> :4
        RPUSHX l e f -> :6
        LPUSHX l z -> :7
        TYPE l -> +list
        OBJECT ENCODING l -> $8 listpack
        LLEN l -> :7
        LRANGE l 0 -1 -> *7 $1 z $1 a $1 b $1 c $1 d $1 e $1 f
        LPOP l -> $1 z
        RPOP l -> $1 f
        LPOP l 2 -> *2 $1 a $1 b
        RPOP l 2 -> *2 $1 e $1 d
        LPOP l 0 -> *0
        RPOP l 9223372036854775807 -> *1 $1 c
        EXISTS l -> :0
        LPOP l -> $-1
        RPOP l -> $-1
        LPOP l 0 -> *-1
        RPOP l 7 -> *-1
        LLEN l -> :0
        RPUSH l -> -ERR wrong number of arguments
        LPOP l 1 2 -> -ERR wrong number of arguments for 'lpop' command
        RPOP l x 2 -> -ERR wrong number of arguments for 'rpop' command
        RPOP l x -> -ERR value is out of range, must be positive
        LPOP l -1 -> -ERR value is out of range, must be positive
        RPUSH n 7 -7 007 \"\" 9223372036854775807 9223372036854775808 -> :6
        LRANGE n 0 -1 -> *6 $1 7 $2 -7 $3 007 $0  $19 9223372036854775807 $19 9223372036854775808
        ",
    );
}

/// Numbers from either end, in and out of range, up to the largest there are.
#[test]
fn by_number() {
    Session::new().check(
        "
        LINDEX l x -> $-1
        RPUSH l a b c d e -> :5
        LINDEX l x -> -ERR value is not an integer or out of range
        LINDEX l 0 -> $1 a
        LINDEX l 4 -> $1 e
        LINDEX l 5 -> $-1
        LINDEX l -5 -> $1 a
        LINDEX l -6 -> $-1
        LINDEX l 9223372036854775807 -> $-1
        LINDEX l -9223372036854775808 -> $-1
        LRANGE l 1 -2 -> *3 $1 b $1 c $1 d
        LRANGE l -9223372036854775808 9223372036854775807 -> *5...
        LRANGE l 9223372036854775807 -9223372036854775808 -> *0
        LRANGE l -9223372036854775808 -9223372036854775808 -> *0
        LRANGE l 9223372036854775807 9223372036854775807 -> *0
        LRANGE l -100 0 -> *1 $1 a
        LRANGE l -100 -6 -> *0
        LRANGE l 4 100 -> *1 $1 e
        LRANGE l 5 100 -> *0
        LRANGE l 3 2 -> *0
        LRANGE missing 0 -1 -> *0
        LRANGE missing 0 x -> -ERR value is not an integer or out of range
        LSET l 5 z -> -ERR index out of range
        LSET l -6 z -> -ERR index out of range
        LSET l x z -> -ERR value is not an integer or out of range
        LSET missing x z -> -ERR no such key
        LSET l -1 12 -> +OK
        LSET l 0 A -> +OK
        LTRIM l -9223372036854775808 9223372036854775807 -> +OK
        LRANGE l 0 -1 -> *5 $1 A $1 b $1 c $1 d $2 12
        LTRIM l 1 -2 -> +OK
        LRANGE l 0 -1 -> *3 $1 b $1 c $1 d
        LTRIM l 3 9 -> +OK
        EXISTS l -> :0
        LTRIM missing 0 1 -> +OK
        LTRIM missing x 1 -> -ERR value is not an integer or out of range
        ",
    );
}

#[test]
fn by_value() {
    Session::new().check(
        "
        LINSERT l BEFORE a b -> :0
        LINSERT l BESIDE a b -> -ERR syntax error
        RPUSH l a b a c a -> :5
        LINSERT l before a 1 -> :6
        LINSERT l AFTER a 2 -> :7
        LINSERT l AFTER z 3 -> :-1
        LRANGE l 0 -1 -> *7 $1 1 $1 a $1 2 $1 b $1 a $1 c $1 a
        LPOS l a -> :1
        LPOS l 2 -> :2
        LPOS l z -> $-1
        LPOS l a RANK 2 -> :4
        LPOS l a RANK -1 -> :6
        LPOS l a RANK 4 -> $-1
        LPOS l a COUNT 0 -> *3 :1 :4 :6
        LPOS l a count 2 rank -2 -> *2 :4 :1
        LPOS l a COUNT 0 MAXLEN 5 -> *2 :1 :4
        LPOS l z COUNT 1 -> *0
        LPOS missing a COUNT 1 -> *0
        LPOS missing a -> $-1
        LPOS missing a RANK 0 -> -ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to start from the end of the list
        LPOS l a RANK x -> -ERR value is not an integer or out of range
        LPOS l a RANK -9223372036854775808 -> -ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807
        LPOS l a RANK 9223372036854775807 -> $-1
        LPOS l a COUNT -1 -> -ERR COUNT can't be negative
        LPOS l a MAXLEN x -> -ERR MAXLEN can't be negative
        LPOS l a MAXLEN -> -ERR syntax error
        LPOS l a FOO 1 -> -ERR syntax error
        LREM l 1 a -> :1
        LREM l -1 a -> :1
        LRANGE l 0 -1 -> *5 $1 1 $1 2 $1 b $1 a $1 c
        LREM l -9223372036854775808 c -> :1
        LREM l 0 z -> :0
        LREM missing 0 z -> :0
        LREM missing x z -> -ERR value is not an integer or out of range
        ",
    );
}

#[test]
fn from_list_to_list() {
    Session::new().check(
        "
        LMOVE a b LEFT LEFT -> $-1
        RPUSH a 1 2 3 -> :3
        LMOVE a b LEFT SIDEWAYS -> -ERR syntax error
        LMOVE a b UP LEFT -> -ERR syntax error
        LMOVE a b left right -> $1 1
        LMOVE a b RIGHT LEFT -> $1 3
        RPOPLPUSH a b -> $1 2
        EXISTS a -> :0
        LRANGE b 0 -1 -> *3 $1 2 $1 3 $1 1
        RPOPLPUSH b b -> $1 1
        LMOVE b b LEFT LEFT -> $1 1
        LRANGE b 0 -1 -> *3 $1 1 $1 2 $1 3
        EXPIRE b 10 -> :1
        RPOP b 2 -> *2 $1 3 $1 2
        RPOPLPUSH b b -> $1 1
        TTL b -> :10
        SET s v -> +OK
        RPOPLPUSH b s -> -WRONGTYPE...
        RPOPLPUSH s b -> -WRONGTYPE...
        RPOPLPUSH missing s -> $-1
        LMPOP 2 missing b LEFT -> *2 $1 b *1 $1 1
        LMPOP 2 missing b LEFT -> *-1
        RPUSH b 1 2 3 -> :3
        LMPOP 3 missing b s RIGHT COUNT 2 -> *2 $1 b *2 $1 3 $1 2
        LMPOP 2 missing s LEFT -> -WRONGTYPE...
        LMPOP 1 b LEFT COUNT 0 FOO -> -ERR count should be greater than 0
        LMPOP 1 b LEFT COUNT 1 FOO -> -ERR syntax error
        LMPOP 1 b LEFT COUNT -> -ERR syntax error
        LMPOP 1 b MIDDLE -> -ERR syntax error
        LMPOP 2 b LEFT -> -ERR syntax error
        LMPOP 0 b LEFT -> -ERR numkeys should be greater than 0
        LMPOP x b LEFT -> -ERR numkeys should be greater than 0
        LMPOP 9223372036854775807 b LEFT -> -ERR syntax error
        LMPOP 1 b right count 9223372036854775807 -> *2 $1 b *1 $1 1
        EXISTS b -> :0
        ",
    );
}

/// What is announced, and in which order; nothing where nothing changed.
#[test]
fn announced() {
    let mut session = Session::new();
    for (line, events) in [
        ("RPUSH a 1 2 3", "rpush a"),
        ("LPUSH a 0", "lpush a"),
        ("LPUSHX a x", "lpush a"),
        ("RPUSHX a x", "rpush a"),
        ("RPUSHX nope x", ""),
        ("LMOVE a b LEFT RIGHT", "rpush b, lpop a"),
        ("LMOVE a a LEFT RIGHT", "rpush a, lpop a"),
        ("RPOP a 2", "rpop a"),
        ("LPOP a 0", ""),
        ("LPOP a", "lpop a"),
        ("RPUSH s 1", "rpush s"),
        ("LMOVE s s LEFT RIGHT", "rpush s, lpop s"),
        ("RPOPLPUSH s b", "lpush b, rpop s, del s"),
        ("RPUSH l a b a", "rpush l"),
        ("LSET l 0 q", "lset l"),
        ("LSET l 9 q", ""),
        ("LINSERT l BEFORE b z", "linsert l"),
        ("LINSERT l BEFORE nope z", ""),
        ("LTRIM l 0 -1", "ltrim l"),
        ("LTRIM l 9 10", "ltrim l, del l"),
        ("LTRIM l 9 10", ""),
        ("RPUSH l a a", "rpush l"),
        ("LREM l 0 zz", ""),
        ("LREM l 0 a", "lrem l, del l"),
        ("RPUSH l a a", "rpush l"),
        ("LMPOP 2 no l LEFT COUNT 5", "lpop l, del l"),
        ("RPUSH l a b", "rpush l"),
        ("RPOP l 1", "rpop l"),
        ("RPOP l", "rpop l, del l"),
        ("LPOP l", ""),
        ("LLEN l", "keymiss l"),
        ("LINDEX l 0", "keymiss l"),
        ("LRANGE l 0 1", "keymiss l"),
        ("LPOS l a", "keymiss l"),
    ] {
        assert_eq!(session.events_of(line), events, "{line}");
    }
}

#[test]
fn keys_of_another_type_are_left_alone() {
    let mut session = Session::new();
    session.run("SET s v");
    for line in [
        "LPUSH s a",
        "RPUSH s a",
        "LPUSHX s a",
        "RPUSHX s a",
        "LPOP s",
        "RPOP s",
        "LPOP s 0",
        "RPOP s 1",
        "LLEN s",
        "LINDEX s x",
        "LINSERT s BEFORE a b",
        "LRANGE s 0 -1",
        "LREM s 0 a",
        "LSET s x a",
        "LTRIM s 1 0",
        "LPOS s a",
        "LPOS s a COUNT 1",
        "LMOVE s l LEFT LEFT",
        "RPOPLPUSH s s",
        "LMPOP 1 s LEFT",
    ] {
        assert!(session.run(line).starts_with("-WRONGTYPE"), "{line}");
    }
    session.check("GET s -> $1 v\nEXISTS l -> :0\nRPUSH l a -> :1\nGET l -> -WRONGTYPE...");
}

/// A list of many nodes is read, taken from and emptied like a short one, and its memory is counted throughout.
#[test]
fn long_lists() {
    let mut session = Session::new();
    session.check("SET x 1 -> +OK\nDEL x -> :1");
    let empty = session.ks.heap_bytes();
    let mut model = VecDeque::new();
    for number in 0..5000 {
        let element = format!("element-{number}");
        session.send(&[b"RPUSH", b"l", element.as_bytes()]);
        model.push_back(element);
    }
    session.check("OBJECT ENCODING l -> $9 quicklist\nLLEN l -> :5000");
    let expect = |elements: &mut dyn Iterator<Item = &String>| {
        let elements: Vec<&String> = elements.collect();
        let mut reply = format!("*{}\r\n", elements.len());
        for element in elements {
            reply += &format!("${}\r\n{element}\r\n", element.len());
        }
        show(reply.as_bytes())
    };
    for (start, stop) in [(0, 99), (950, 1049), (2400, 2600), (4990, 4999), (0, 4999)] {
        let reply = session.run(&format!("LRANGE l {start} {stop}"));
        assert_eq!(reply, expect(&mut model.range(start..=stop)), "{start} {stop}");
    }
    let loaded = session.ks.heap_bytes() - empty;
    assert!(loaded > 5000 * 10);
    assert_eq!(session.run("LPOP l 1500"), expect(&mut model.drain(..1500).collect::<Vec<_>>().iter()));
    assert_eq!(session.run("RPOP l 700"), expect(&mut model.drain(2800..).rev().collect::<Vec<_>>().iter()));
    assert!(session.ks.heap_bytes() - empty < loaded * 2 / 3);
    session.check("COPY l m -> :1");
    assert_eq!(session.run("RPOP l 2800"), expect(&mut model.iter().rev()));
    session.check("EXISTS l -> :0\nLTRIM m 2800 -1 -> +OK\nEXISTS m -> :0");
    while session.ks.free_some() {}
    session.check("RPUSH l a -> :1\nLPOP l -> $1 a");
    assert!(session.ks.heap_bytes() - empty < loaded / 10, "what is left is room for keys");
}
