//! JSON documents, filters and sketches as values: who is told of changes, and how they leave and come back.

use super::session::{Session, show};

fn payload(session: &mut Session, key: &str) -> Vec<u8> {
    let reply = session.send(&[b"DUMP", key.as_bytes()]);
    let line_end = reply.windows(2).position(|pair| pair == b"\r\n").expect("a header") + 2;
    reply[line_end..reply.len() - 2].to_vec()
}

fn restore(session: &mut Session, payload: &[u8]) -> String {
    show(&session.send(&[b"RESTORE", b"r", b"0", payload, b"REPLACE"]))
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        hex.chars().filter_map(|digit| digit.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// Told is what changed something, and only that.
#[test]
fn events() {
    let mut session = Session::new();
    for (line, events) in [
        ("JSON.SET j $ {\"a\":1,\"l\":[1],\"t\":true,\"s\":\"x\"}", "json.set j"),
        ("JSON.SET j $.a 2 NX", ""),
        ("JSON.SET j $.x.y 2", ""),
        ("JSON.GET j", ""),
        ("JSON.NUMINCRBY j $.a 1", "json.numincrby j"),
        ("JSON.NUMINCRBY j $.s 1", ""),
        ("JSON.NUMMULTBY j $.a 2", "json.nummultby j"),
        ("JSON.TOGGLE j $.t", "json.toggle j"),
        ("JSON.TOGGLE j $.none", ""),
        ("JSON.STRAPPEND j $.s \"y\"", "json.strappend j"),
        ("JSON.ARRAPPEND j $.l 2", "json.arrappend j"),
        ("JSON.ARRINSERT j $.l 0 0", "json.arrinsert j"),
        ("JSON.ARRTRIM j $.l 0 0", "json.arrtrim j"),
        ("JSON.ARRPOP j $.l", "json.arrpop j"),
        ("JSON.ARRPOP j $.l", ""),
        ("JSON.MERGE j $ {\"m\":1}", "json.merge j"),
        ("JSON.CLEAR j $.a", "json.clear j"),
        ("JSON.CLEAR j $.s", ""),
        ("JSON.DEL j $.none", ""),
        ("JSON.DEL j $.m", "json.del j"),
        ("JSON.FORGET j", "json.del j, del j"),
        ("JSON.MSET b $ 1 a $ 2 b $ 3", "json.mset a, json.mset b"),
        ("JSON.MSET a $ 5 b $.x 3", ""),
        ("JSON.GET missing", "keymiss missing"),
        ("BF.ADD f a", "bf.add f"),
        ("BF.ADD f a", ""),
        ("BF.MADD f a b", "bf.madd f"),
        ("BF.MADD f a b", ""),
        ("BF.INSERT f ITEMS c", "bf.insert f"),
        ("BF.RESERVE f2 0.1 10", "bf.reserve f2"),
        ("BF.RESERVE f2 0.1 10", ""),
        ("CF.ADD c a", "cf.add c"),
        ("CF.ADDNX c a", ""),
        ("CF.INSERTNX c ITEMS a", ""),
        ("CF.INSERT c ITEMS a b", "cf.insert c"),
        ("CF.DEL c x", ""),
        ("CF.DEL c a", "cf.del c"),
        ("CF.COMPACT c", "cf.compact c"),
        ("CF.RESERVE c2 100", "cf.reserve c2"),
        ("CMS.INITBYDIM m 10 2", "cms.initbydim m"),
        ("CMS.INITBYPROB m2 0.1 0.1", "cms.initbyprob m2"),
        ("CMS.INCRBY m a 1", "cms.incrby m"),
        ("CMS.MERGE m 1 m", "cms.merge m"),
        ("CMS.MERGE m 1 m2", ""),
        ("TOPK.RESERVE t 2", "topk.reserve t"),
        ("TOPK.ADD t a", "topk.add t"),
        ("TOPK.INCRBY t a 2", "topk.incrby t"),
        ("TOPK.INCRBY t a 0", ""),
    ] {
        assert_eq!(session.events_of(line), events, "{line}");
    }
}

/// What DUMP gives, RESTORE takes, and the copy is the same to the byte.
#[test]
fn there_and_back() {
    let mut session = Session::new();
    for line in [
        "JSON.SET j $ {\"a\":[1,2.5,null,\"text\"],\"b\":{}}",
        "JSON.SET n $ 42",
        "BF.RESERVE f 0.01 10",
        "BF.MADD f a b c d e f g h i j k l m n o p q r s t u v w x y z",
        "BF.RESERVE full 0.01 10 NONSCALING",
        "CF.RESERVE c 8 EXPANSION 2",
        "CF.INSERT c ITEMS a b c d e f g h i j k l m n o p q r s t u v w x y z",
        "CMS.INITBYDIM m 20 3",
        "CMS.INCRBY m a 5 b 7",
        "TOPK.RESERVE t 3 10 4 0.5",
        "TOPK.INCRBY t a 5 b 7 c 9 d 11",
    ] {
        let reply = session.run(line);
        assert!(!reply.starts_with('-'), "{line}: {reply}");
    }
    for key in ["j", "n", "f", "full", "c", "m", "t"] {
        let first = payload(&mut session, key);
        assert_eq!(restore(&mut session, &first), "+OK", "{key}");
        let of_copy = payload(&mut session, "r");
        // The items of a sketch may stand in another order of the heap.
        assert!(key == "t" || of_copy == first, "{key}");
        assert_eq!(session.run("TYPE r"), session.run(&format!("TYPE {key}")));
        assert_eq!(session.run("OBJECT ENCODING r"), "$3 raw");
    }
    session.check("TOPK.LIST r WITHCOUNT -> *6 $1 d :11 $1 c :9 $1 b :7");
}

/// Payloads that a Dragonfly server gave.
#[test]
fn payloads_of_dragonfly() {
    let mut session = Session::new();
    let bloom = "220000000000000000407b14ae47e17a743f00012e0108404040400008000000000000000000000000000000800000001000\
        00000000000000000000000000000001000020000000040000000000000000000000000200004000000900fb8dfcfe2edcc46c";
    assert_eq!(restore(&mut session, &bytes(bloom)), "+OK");
    session.check(
        "BF.EXISTS r only -> :1
        BF.EXISTS r absent -> :0
        BF.CARD r -> :1",
    );
    session.run("BF.ADD new only");
    let (ours, theirs) = (payload(&mut session, "new"), bytes(bloom));
    // Behind the value are the format's version and a checksum over it.
    let value = theirs.len() - 10;
    assert_eq!(ours[..value], theirs[..value]);
    for (json, text) in [
        ("1e075b312c322c335d09001a46adc5295410de", "[1,2,3]"),
        ("1ec02a0900d3d8afb9a880edf1", "42"),
        ("1ec30f1e0a3132333435363738393031e00a090900937a04ad03a7e654", "123456789012345678901234567890"),
    ] {
        assert_eq!(restore(&mut session, &bytes(json)), "+OK");
        assert_eq!(session.run("JSON.GET r"), format!("${} {text}", text.len()));
    }
}

/// Emptying a database with big ones goes in steps and leaves nothing.
#[test]
fn freed_in_steps() {
    let mut session = Session::new();
    let many = vec!["[1,2,\"a string of some length\"]"; 20_000].join(",");
    session.send(&[b"JSON.SET", b"j", b"$", format!("[{many}]").as_bytes()]);
    session.run("BF.RESERVE f 0.0001 10000000");
    session.run("CMS.INITBYDIM m 1000000 20");
    session.run("TOPK.RESERVE t 100 1000000 20 0.9");
    session.run("CF.RESERVE c 10000000");
    for n in 0..500 {
        for command in ["BF.ADD f", "CF.ADD c", "TOPK.ADD t"] {
            session.run(&format!("{command} item{n}"));
        }
        session.run(&format!("CMS.INCRBY m item{n} 1"));
    }
    session.run("DEL j f m t c");
    assert!(session.ks.doomed_bytes() > 20 << 20);
    let (mut steps, mut before) = (0, session.ks.doomed_bytes());
    while session.ks.free_some() {
        let now = session.ks.doomed_bytes();
        assert!(now <= before && before - now < 4 << 20, "{before} to {now}");
        before = now;
        steps += 1;
    }
    assert!(steps > 100, "{steps}");
    assert_eq!(session.ks.doomed_bytes(), 0);
}
