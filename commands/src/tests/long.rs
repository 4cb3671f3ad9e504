//! Replies in pieces: together they are the reply at once, whatever happens to the collection meanwhile.

use damselfly_protocol::Proto;

use super::session::Session;
use crate::Rest;
use crate::long::{LATER, LENT_LATER_FROM};

/// Makes a collection far above what is replied to at once, with elements of several lengths.
fn fill(session: &mut Session, count: u32) {
    for i in 0..count {
        let (name, score) = (format!("element:{i:05}"), (i * 7919 % count).to_string());
        let value = "v".repeat(i as usize % 40);
        let id = format!("{}-{}", i / 3 + 1, i % 3);
        for line in [
            ["HSET", "hash", &name, &value].as_slice(),
            &["SADD", "set", &name],
            &["RPUSH", "list", &value],
            &["ZADD", "zset", &score, &name],
            &["XADD", "stream", &id, &name, &value],
        ] {
            let args: Vec<&[u8]> = line.iter().map(|word| word.as_bytes()).collect();
            let reply = session.send_in(Proto::Resp2, &args, None);
            assert_ne!(reply[0], b'-', "{line:?}");
        }
    }
}

/// The lines of a reply; of sets and hashes, whose order is nobody's business, the sorted ones.
fn lines(reply: &[u8], ordered: bool) -> Vec<&[u8]> {
    let mut lines: Vec<&[u8]> = reply.split(|byte| *byte == b'\n').collect();
    if !ordered {
        lines[1..].sort_unstable();
    }
    lines
}

/// Every command that replies in pieces, in both protocols, with the collection growing, shrinking and going between
/// the pieces.
#[test]
fn pieces_are_the_whole() {
    let mut session = Session::unchecked();
    fill(&mut session, 20_000);
    for line in [
        "HGETALL hash",
        "HKEYS hash",
        "HVALS hash",
        "SMEMBERS set",
        "LRANGE list 0 -1",
        "LRANGE list 100 -2",
        "LPOP list 15000",
        "RPOP list 15000",
        "RPOP list 20000",
        "ZRANGE zset 0 -1",
        "ZRANGE zset 3 -7 WITHSCORES",
        "ZREVRANGE zset 0 -1 WITHSCORES",
        "ZRANGE zset (10 +inf BYSCORE WITHSCORES",
        "ZRANGE zset +inf 50 BYSCORE REV LIMIT 3 19000",
        "XRANGE stream - +",
        "XREVRANGE stream + -",
        "XRANGE stream - + COUNT 15000",
        "XREVRANGE stream + - COUNT 15000",
    ] {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let key = line.split(' ').nth(1).expect("a key").as_bytes();
        for proto in [Proto::Resp2, Proto::Resp3] {
            session.send(&[b"COPY", key, b"kept", b"REPLACE"]);
            let whole = session.send_in(proto, &args, None);
            session.send(&[b"COPY", b"kept", key, b"REPLACE"]);
            let mut later = None;
            let mut got = session.send_in(proto, &args, Some(&mut later));
            assert!(got.len() < 64, "{line}: only the head is written at once");
            let Some(Rest::Reply(mut rest)) = later else { panic!("{line} is long") };
            let mut pieces = 0;
            loop {
                let before = got.len();
                let done = rest.write_some(&mut got, 10_000);
                assert!(got.len() - before < 80_000, "{line}: a piece of {} bytes", got.len() - before);
                pieces += 1;
                if done {
                    break;
                }
                assert!(got.len() - before >= 10_000, "{line}: a piece of {} bytes", got.len() - before);
                match pieces {
                    1 => session.send(&[b"DEL", key]),
                    2 => session.send(&[b"COPY", b"kept", key]),
                    _ => {
                        for at in 0..50 {
                            let name = format!("element:{:05}", pieces * 50 + at);
                            match key {
                                b"hash" => session.send(&[b"HDEL", key, name.as_bytes()]),
                                b"set" => session.send(&[b"SREM", key, name.as_bytes()]),
                                b"zset" => session.send(&[b"ZADD", key, b"5", name.as_bytes()]),
                                b"list" => session.send(&[b"LPOP", key]),
                                _ => session.send(&[b"XTRIM", key, b"MAXLEN", b"10"]),
                            };
                        }
                        vec![]
                    }
                };
            }
            let ordered = !matches!(key, b"hash" | b"set");
            assert!(lines(&got, ordered) == lines(&whole, ordered), "{line}");
            rest.into_held().into_iter().for_each(|held| session.ks.discard(held));
            while session.ks.free_some() {}
            session.send(&[b"RENAME", b"kept", key]);
        }
    }
}

/// A long string is lent: the reply is a head and the string as it was, whatever happens to the key meanwhile. Behind many
/// bytes of replies shorter ones are lent, too; inside of a transaction none are.
#[test]
fn long_strings_are_lent() {
    let mut session = Session::unchecked();
    let value = vec![b'v'; 100_000];
    let whole = [b"$100000\r\n".as_slice(), &value, b"\r\n"].concat();
    let lines: [&[&[u8]]; 6] = [
        &[b"GET", b"k"],
        &[b"GETRANGE", b"k", b"0", b"-1"],
        &[b"GETEX", b"k", b"PERSIST"],
        &[b"GETDEL", b"k"],
        &[b"GETSET", b"k", b"new"],
        &[b"SET", b"k", b"new", b"GET"],
    ];
    for line in lines {
        session.send(&[b"SET", b"k", &value]);
        assert!(session.send(line) == whole, "{}", line[0].escape_ascii());
        session.send(&[b"SET", b"k", &value]);
        let mut later = None;
        let head = session.send_in(Proto::Resp2, line, Some(&mut later));
        assert_eq!(head, b"$100000\r\n", "{}", line[0].escape_ascii());
        let Some(Rest::Reply(rest)) = later else { panic!("{} is long", line[0].escape_ascii()) };
        session.send(&[b"SETRANGE", b"k", b"0", b"other"]);
        session.send(&[b"DEL", b"k"]);
        assert!(
            rest.string().is_some_and(|(string, part)| string[part] == value),
            "{}",
            line[0].escape_ascii()
        );
        assert!(rest.into_held().is_none());
    }
    // So is a part of one that is most of it; a small part is not worth that a write copies all.
    let text: Vec<u8> = (0..700_000u32).map(|at| (at / 1000) as u8).collect();
    session.send(&[b"SET", b"k", &text]);
    for (start, end, lends) in
        [("1000", "698999", true), ("-150000", "-2", true), ("300000", "370000", false)]
    {
        let line: [&[u8]; 4] = [b"GETRANGE", b"k", start.as_bytes(), end.as_bytes()];
        let whole = session.send(&line);
        let mut later = None;
        let mut reply = session.send_in(Proto::Resp2, &line, Some(&mut later));
        assert_eq!(later.is_some(), lends, "{start} {end}");
        if let Some(Rest::Reply(rest)) = later {
            let (string, part) = rest.string().expect("lent");
            reply.extend_from_slice(&string[part]);
            reply.extend_from_slice(b"\r\n");
        }
        assert!(reply == whole, "{start} {end}");
    }
    session.send(&[b"SET", b"k", &value[..LENT_LATER_FROM]]);
    let mut later = None;
    let short = session.send_in(Proto::Resp2, &[b"GET", b"k"], Some(&mut later));
    assert!(later.is_none() && short.len() > LENT_LATER_FROM);
    let (out, later) = session.with_cx(Proto::Resp2, |cx| {
        cx.out.raw(&[b'+'; LATER + 1]);
        let loc = cx.find(b"k").expect("stored");
        cx.reply_only_string_at(loc).expect("a string");
    });
    assert!(later.is_some() && out.ends_with(b"+$4096\r\n"));
}

/// What is small is replied to at once, and so is a short range of what is big.
#[test]
fn short_replies_are_whole() {
    let mut session = Session::unchecked();
    fill(&mut session, 20_000);
    session.run("HSET small f v");
    for line in [
        "HGETALL small",
        "HGETALL nosuch",
        "LRANGE list 5 100",
        "ZRANGE zset 0 99",
        "XRANGE stream - + COUNT 9",
    ] {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let mut later = None;
        let reply = session.send_in(Proto::Resp2, &args, Some(&mut later));
        assert!(later.is_none(), "{line}");
        assert_eq!(reply, session.send(&args), "{line}");
    }
}
