//! Commands done in steps: what they reply and leave is what they do at once, over what was there when they began.

use damselfly_keyspace::values::set::Set;
use damselfly_protocol::{Proto, Requests};

use super::session::Session;
use crate::random::Random;
use crate::{Args, Rest, Run, Task, look_back, lookup};

/// The command and its sources, which all have big, small and missing ones among them.
const COMMANDS: &[&str] = &[
    "SUNION s1 s2",
    "SUNION s1 tiny nosuch s3 s2 ints",
    "SUNION s3",
    "SINTER s1 s2",
    "SINTER s2 s1 s3 s1",
    "SINTER s1 ints",
    "SINTER s1 nosuch s2",
    "SINTER volatile s1",
    "SDIFF s1 s2",
    "SDIFF s2 tiny nosuch",
    "SDIFF s1 s2 s3 ints",
    "SDIFF s1 s1",
    "SINTERCARD 2 s1 s2",
    "SINTERCARD 3 s1 s2 s3 LIMIT 7",
    "SINTERCARD 2 s1 s2 LIMIT 100000",
    "SUNIONSTORE to s1 s2",
    "SUNIONSTORE s1 s1 s2",
    "SUNIONSTORE to volatile s1 tiny",
    "SUNIONSTORE to s1 s2 s3 ints tiny nosuch",
    "SINTERSTORE to s1 s2 s3",
    "SINTERSTORE to s1 tiny",
    "SINTERSTORE to s1 nosuch",
    "SINTERSTORE s2 s1 s2",
    "SDIFFSTORE to s1 s2",
    "SDIFFSTORE to s1 tiny ints",
    "SDIFFSTORE to s1 s1",
    "SDIFFSTORE to volatile s1",
    "ZUNION 2 z1 z2 WITHSCORES",
    "ZUNION 4 z1 z2 nosuch z3",
    "ZUNION 3 z1 z3 z2 WEIGHTS 2 -0.5 1 AGGREGATE MAX WITHSCORES",
    "ZUNION 3 z1 s1 z2 WEIGHTS 0 -1 inf AGGREGATE MIN WITHSCORES",
    "ZINTER 2 z1 z2 WITHSCORES",
    "ZINTER 3 s1 z2 z1 WEIGHTS 3 2 -0 WITHSCORES",
    "ZINTER 2 z1 nosuch",
    "ZDIFF 2 z1 z2 WITHSCORES",
    "ZDIFF 3 z1 s2 z3",
    "ZDIFF 2 z1 z1",
    "ZINTERCARD 2 z1 z2",
    "ZINTERCARD 2 z1 z2 LIMIT 9",
    "ZUNIONSTORE to 2 z1 z2",
    "ZUNIONSTORE to 3 z1 z2 z3 WEIGHTS 0.1 0.2 0.3",
    "ZUNIONSTORE z1 3 z1 s1 zeros AGGREGATE SUM",
    "ZUNIONSTORE to 2 zeros s3 WEIGHTS 1 -0 AGGREGATE SUM",
    "ZINTERSTORE to 3 z1 z2 z3 AGGREGATE MAX",
    "ZINTERSTORE to 2 z1 tiny",
    "ZDIFFSTORE to 2 z1 z2",
    "ZDIFFSTORE to 2 z1 z1",
    "ZRANGESTORE to z1 0 -1",
    "ZRANGESTORE to z1 -5 100 BYSCORE LIMIT 3 500",
    "ZRANGESTORE z2 z2 5 -7 REV",
    "ZRANGESTORE to nosuch 0 -1",
    "SORT s1 ALPHA",
    "SORT s3 ALPHA DESC LIMIT 3 50 GET # GET #",
    "SORT s2 BY nosort STORE to",
    "SORT z1 ALPHA LIMIT 20 10000 STORE to",
    "SORT numbers",
    "SORT numbers DESC LIMIT 10 30",
    "SORT_RO numbers LIMIT 500 100",
    "SORT numbers LIMIT 100000 1 STORE to",
    "SORT numbers STORE to",
    "SORT numbers ALPHA LIMIT -5 -1",
    "SORT s1",
    "SORT s1 STORE to",
    "SORT numbers GET nothing GET #",
    "SORT numbers BY w_*",
    "SORT numbers BY w_* DESC LIMIT 3 50 GET # GET w_* GET nothing GET hw_*->f",
    "SORT_RO numbers BY w_* ALPHA",
    "SORT s1 BY w_* STORE to",
    "SORT s1 BY w_* ALPHA DESC LIMIT 5 1000 GET # GET w_*",
    "SORT z1 BY hw_*->f GET hw_*->f STORE to",
    "SORT z1 BY nosuch_* ALPHA DESC",
    "SORT numbers BY nosort GET w_* STORE to",
    "SORT numbers BY nosort DESC LIMIT 5 100",
    "SORT s1 BY nosort LIMIT 3 40 GET # GET hw_*->f",
    "SORT z1 BY nosort DESC LIMIT 2 300 GET w_*",
    "SORT z1 BY nosort LIMIT 300 100000",
    "SORT s1 BY hw_*->text",
    "ZREMRANGEBYRANK z1 3 -5",
    "ZREMRANGEBYRANK zeros 0 -2",
    "ZREMRANGEBYRANK z1 0 -1",
    "ZREMRANGEBYSCORE z2 (-1 1.5",
    "ZREMRANGEBYSCORE z3 -inf (inf",
    "ZREMRANGEBYSCORE z3 8 9",
    "ZREMRANGEBYLEX zeros [1 [member:3",
    "ZPOPMIN z1 21",
    "ZPOPMAX z2 1000",
    "ZPOPMAX z2 1000000",
    "SSCAN s1 0 COUNT 100000",
    "SSCAN s3 0 MATCH *1* COUNT 100000",
    "ZSCAN z1 0 COUNT 100000",
    "GEOSEARCH places FROMLONLAT 2 1 BYRADIUS 300 km",
    "GEOSEARCH places FROMLONLAT 2 1 BYRADIUS 300 km ASC WITHDIST WITHHASH WITHCOORD",
    "GEOSEARCH places FROMLONLAT 2 1 BYBOX 900 200 mi DESC COUNT 31 WITHDIST",
    "GEOSEARCH places FROMMEMBER place:7 BYRADIUS 900 km COUNT 31",
    "GEOSEARCH places FROMMEMBER place:7 BYRADIUS 900 km COUNT 12 ANY",
    "GEOSEARCH places FROMMEMBER place:7 BYRADIUS 900 km COUNT 12 ANY DESC WITHCOORD",
    "GEOSEARCH places FROMLONLAT 2 1 BYRADIUS 20000 km DESC",
    "GEOSEARCH places FROMLONLAT 90 45 BYRADIUS 1 km",
    "GEOSEARCHSTORE to places FROMLONLAT 2 1 BYRADIUS 300 km",
    "GEOSEARCHSTORE to places FROMLONLAT 2 1 BYRADIUS 300 km COUNT 200 STOREDIST",
    "GEOSEARCHSTORE places places FROMLONLAT 2 1 BYRADIUS 20000 km COUNT 30",
    "GEOSEARCHSTORE to places FROMLONLAT 90 45 BYRADIUS 1 km",
    "GEORADIUS places 2 1 300 km WITHDIST DESC",
    "GEORADIUS places 2 1 300 km STORE to",
    "GEORADIUSBYMEMBER places place:7 200 mi ASC COUNT 50 STOREDIST to",
    "LPOS numbers 55",
    "LPOS numbers 55 COUNT 0",
    "LPOS numbers 55 RANK -1",
    "LPOS numbers 7 RANK -2 COUNT 3",
    "LPOS numbers 7 RANK 2 COUNT 2 MAXLEN 30",
    "LPOS numbers nosuch COUNT 2",
    "LREM numbers 0 7",
    "LREM numbers 3 7",
    "LREM numbers -2 7",
    "LREM numbers 0 nosuch",
    "LINSERT numbers BEFORE 7 new",
    "LINSERT numbers AFTER 7 new",
    "LINSERT numbers AFTER nosuch new",
    "XGROUP DELCONSUMER x g one",
    "XGROUP DELCONSUMER x g nobody",
    "XPENDING x g - + 1000000",
    "XPENDING x g IDLE 1 - + 1000000 one",
    "XPENDING x g IDLE 100000 - + 1000000",
    "XPENDING x g (5-1 900-1 7 two",
    "XINFO STREAM x FULL COUNT 0",
    "XINFO STREAM x FULL COUNT 40",
    "XAUTOCLAIM x g three 0 - COUNT 100000",
    "XAUTOCLAIM x g one 0 7-1 COUNT 20 JUSTID",
    "XAUTOCLAIM x g three 100000 - COUNT 4",
];

/// Commands with many arguments: some say what is so, some come twice, and there is one for a missing key.
fn with_many_arguments(random: &mut Random, count: usize) -> Vec<String> {
    let mut line = |head: &str, unit: fn(&mut Random, usize) -> String| {
        let len = 1 + random.below(600);
        (0..len).fold(head.to_owned(), |line, _| line + " " + &unit(random, count))
    };
    let member = |random: &mut Random, count: usize| match random.below(3) {
        0 => random.below(2 * count).to_string(),
        _ => format!("member:{}", random.below(count)),
    };
    let number = |random: &mut Random, _: usize| random.below(300).to_string();
    let scored = |random: &mut Random, count: usize| {
        format!("{} member:{}", random.below(40) as f64 / 10.0 - 2.0, random.below(count))
    };
    let field = |random: &mut Random, count: usize| format!("f:{} {}", random.below(count), random.below(99));
    let name = |random: &mut Random, count: usize| format!("f:{}", random.below(count));
    let id = |random: &mut Random, count: usize| format!("{}-1", random.below(count + 9));
    let placed = |random: &mut Random, count: usize| {
        format!("{} {} place:{}", random.below(180), random.below(80), random.below(count))
    };
    let source = |random: &mut Random, _: usize| {
        ["s1", "s2", "s3", "tiny", "ints", "nosuch", "volatile"][random.below(7)].to_owned()
    };
    let there = |random: &mut Random, _: usize| ["s1", "s3", "volatile"][random.below(3)].to_owned();
    let sorted =
        |random: &mut Random, _: usize| ["z1", "z2", "z3", "zeros", "s2"][random.below(5)].to_owned();
    let sketch = |random: &mut Random, _: usize| format!("hll:{}", random.below(8));
    vec![
        line("SUNION", source),
        line("SUNIONSTORE to", source),
        line("SINTER s1", there),
        line("SINTERSTORE to s3", there),
        line("SINTERSTORE to s3", source),
        line("SDIFF s3 ints", |_, _| "nosuch".to_owned()),
        line("SDIFFSTORE to s3", |random, count| {
            if random.below(count) > 5 { "nosuch" } else { "tiny" }.to_owned()
        }),
        numbered("SINTERCARD", line("", there)),
        numbered("SINTERCARD", line("", there)) + " LIMIT 3",
        numbered("ZUNION", line("", sorted)) + " WITHSCORES",
        numbered("ZUNIONSTORE to", line("", sorted)) + " AGGREGATE MAX",
        numbered("ZINTER", line("", sorted)) + " WITHSCORES",
        numbered("ZINTER", line(" z1", |_, _| "z1".to_owned())) + " WITHSCORES",
        numbered("ZINTERCARD", line(" z1", |_, _| "z1".to_owned())) + " LIMIT 2",
        numbered("ZINTERSTORE z1", line("", sorted)) + " AGGREGATE MIN",
        numbered("ZDIFF", line(" z1", |_, _| "nosuch".to_owned())) + " WITHSCORES",
        numbered("ZDIFFSTORE to", line(" z1", |_, _| "tiny".to_owned())),
        line("PFCOUNT", sketch),
        line("PFMERGE to:hll", sketch),
        line("BITOP XOR bits", sketch),
        line("BITOP AND bits", sketch),
        line("BF.MADD bf", member),
        line("BF.MADD new", member),
        line("BF.MEXISTS bf", member),
        line("CF.INSERT cf ITEMS", member),
        line("CF.INSERTNX cf ITEMS", member),
        line("CF.MEXISTS cf", member),
        line("TOPK.ADD tk", member),
        line("TOPK.INCRBY tk", |random, count| format!("{} {}", random.below(count), 1 + random.below(9))),
        line("TOPK.QUERY tk", member),
        line("TOPK.COUNT tk", member),
        line("SADD s1", member),
        line("SADD new", member),
        line("SADD ints", number),
        line("SADD tiny", number),
        line("SADDEX s1 100", member),
        line("SADDEX volatile KEEPTTL 100", member),
        line("SREM s3", member),
        line("SREM ints", number) + &(0..200).fold(String::new(), |line, at| format!("{line} {}", 3 * at)),
        line("SREM nosuch", member),
        line("HSET h", field),
        line("HSET new", field),
        line("HMSET h", field),
        line("HDEL h", name),
        line("HDEL nosuch", name),
        line("ZADD z1", scored),
        line("ZADD new", scored),
        line("ZADD z2 CH GT", scored),
        line("ZADD z2 XX", scored),
        line("ZADD new XX", scored),
        line("ZREM z1", member),
        line("ZREM z1 going", member),
        line("GEOADD places CH", placed),
        line("LPUSH numbers", member),
        line("RPUSH new", member),
        line("RPUSHX numbers", member),
        line("LPUSHX nosuch", member),
        line("XACK x g", id),
        line("XDEL x", id),
        line("XCLAIM x g three 0", id),
        line("XCLAIM x g one 0", id) + " FORCE JUSTID LASTID 700-1",
        line("XCLAIM x g three 100000", id),
        line("FIELDEXPIRE h 100", name),
        line("FIELDEXPIRE s1 100", member),
        counted("HEXPIRE h 100 FIELDS", line("", name)),
        counted("HEXPIRE h 0 FIELDS", line("", name)),
        counted("HPEXPIREAT h 1 NX FIELDS", line("", name)),
        counted("HEXPIRE nosuch 100 FIELDS", line("", name)),
        counted("HTTL he FIELDS", line("", name)),
        counted("HPERSIST he FIELDS", line("", name)),
        counted("HGETDEL h FIELDS", line("", name)),
        counted("HGETEX h FIELDS", line("", name)),
        counted("HGETEX he PERSIST FIELDS", line("", name)),
        counted("HGETEX h EX 100 FIELDS", line("", name)),
        counted("HSETEX h EX 100 FIELDS", line("", field)),
        counted("HSETEX h FXX KEEPTTL FIELDS", line("", field)),
        counted("HSETEX h FNX FIELDS", line("", field)),
        counted("HSETEX new FNX FIELDS", line("", field)),
        counted("HSETEX new FXX FIELDS", line("", field)),
        line("HSETEX he NX 100", field),
    ]
}

/// A command with how many keys come behind it.
fn numbered(head: &str, keys: String) -> String {
    format!("{head} {}{keys}", keys.split_whitespace().count())
}

/// A command with how many fields, or pairs of a field and a value, come behind it.
fn counted(head: &str, fields: String) -> String {
    let words = fields.split_whitespace().count();
    let count = if head.starts_with("HSETEX") { words / 2 } else { words };
    format!("{head} {count}{fields}")
}

fn words(line: &str) -> Vec<&[u8]> {
    line.split(' ').map(str::as_bytes).collect()
}

/// Random sources. Some members are numbers, some long; scores are few, with zeros of both signs among them.
fn fill(session: &mut Session, random: &mut Random, count: usize) {
    let member = |random: &mut Random| match random.below(3) {
        0 => random.below(2 * count).to_string(),
        1 => format!("member:{}", random.below(count)),
        _ => format!("{}:{}", random.below(count), "x".repeat(random.below(90))),
    };
    for (key, len) in [("s1", count), ("s2", count / 2), ("s3", 3 * count), ("tiny", 5), ("to", 3)] {
        for _ in 0..len {
            session.run(&format!("SADD {key} {}", member(random)));
        }
        session.run(&format!("COPY s1 {key}"));
    }
    for at in 0..200 {
        session.run(&format!("SADD ints {}", 3 * at));
    }
    for _ in 0..count {
        let number = random.below(1000) as f64 / 8.0 - 60.0;
        session.run(&format!("RPUSH numbers {number}"));
        session.run(&format!("LPUSH numbers {}{}", "0".repeat(random.below(5)), random.below(100)));
    }
    for at in 0..count {
        let [lon, lat] = [0, 0].map(|_| random.below(600) as f64 / 100.0 - 3.0);
        session.run(&format!("GEOADD places {lon} {lat} place:{at}"));
    }
    for at in 0..count {
        session.run(&format!("HSET h f:{at} {}", random.below(1000)));
    }
    for at in 0..count {
        session
            .run(&format!("HSETEX he {} FIELDS 1 f:{at} v", if at % 2 == 0 { "EX 1000" } else { "KEEPTTL" }));
        session.run(&format!("XADD x {}-1 f {}", at + 1, "v".repeat(random.below(90))));
    }
    session.run("XGROUP CREATE x g 0");
    for (consumer, part) in [("one", 3), ("two", 4)] {
        session.run(&format!("XREADGROUP GROUP g {consumer} COUNT {} STREAMS x >", count / part));
    }
    for _ in 0..count / 5 {
        session.run(&format!("XDEL x {}-1", random.below(count)));
        session.run(&format!("XACK x g {}-1", random.below(count)));
    }
    for at in 0..60 {
        session.run(&format!("PFADD hll:{} {}", at % 6, random.below(count)));
    }
    session.run("TOPK.RESERVE tk 5 50 4 0.9");
    for _ in 0..60 {
        session.run(&format!("BF.ADD bf {}", member(random)));
        session.run(&format!("CF.ADD cf {}", member(random)));
        session.run(&format!("TOPK.ADD tk {}", random.below(9)));
    }
    session.run("COPY s2 volatile");
    for line in ["SADDEX volatile 1000 going", "SADD s1 going", "PEXPIRE to 5000"] {
        session.run(line);
    }
    for (key, len) in [("z1", count), ("z2", count / 2), ("z3", 2 * count), ("zeros", count)] {
        for _ in 0..len {
            let score = match random.below(8) {
                _ if key == "zeros" => "-0".to_owned(),
                0 => "-0".to_owned(),
                1 => "inf".to_owned(),
                2 => "-inf".to_owned(),
                _ => (random.below(40) as f64 / 10.0 - 2.0).to_string(),
            };
            session.run(&format!("ZADD {key} {score} {}", member(random)));
        }
    }
}

/// Makes keys that are named by what is in the sources; their names.
fn weigh(session: &mut Session, random: &mut Random) -> Vec<String> {
    let mut elements = Vec::new();
    for line in ["LRANGE numbers 0 -1", "SMEMBERS s1", "ZRANGE z1 0 -1"] {
        let reply = session.send_in(Proto::Resp2, &words(line), None);
        let is_element = |line: &&str| !line.starts_with(['*', '$']);
        elements.extend(String::from_utf8_lossy(&reply).lines().filter(is_element).map(str::to_owned));
    }
    elements.sort();
    elements.dedup();
    let mut names = Vec::new();
    for element in elements {
        let (weight, key) = (random.below(30), format!("w_{element}"));
        match random.below(4) {
            0 => session.run(&format!("SET {key} {weight}.5")),
            1 => session.run(&format!("SET {key} {weight} PX 100000")),
            2 => session.run(&format!("SADD {key} {weight}")),
            _ => String::new(),
        };
        session.run(&format!("HSET hw_{element} f {weight} text a{weight}"));
        names.extend([key, format!("hw_{element}")]);
    }
    names
}

/// What was announced but for keys that were missed, which is told on the way.
fn changes(session: &mut Session) -> String {
    let events = session.events();
    events.split(", ").filter(|event| !event.starts_with("keymiss")).collect::<Vec<_>>().join(", ")
}

/// One step of a task, and what that asks for; whether it was the last.
fn step(session: &mut Session, task: &mut dyn Task) -> bool {
    let is_over = task.step();
    let wanted = task.asks();
    let mut told = 0;
    while told < wanted.len() {
        let past = task.past().expect("it looks back into one");
        let found = look_back(&mut session.ks, past, wanted[told..].iter());
        told += found.len();
        task.told(found);
    }
    is_over
}

/// All that can be seen of a key.
fn seen(session: &mut Session, key: &str) -> Vec<String> {
    let kind = session.run(&format!("TYPE {key}"));
    if kind == "+list" {
        return [format!("LRANGE {key} 0 -1"), format!("OBJECT ENCODING {key}")]
            .map(|line| session.run(&line))
            .into();
    }
    if kind == "+stream" {
        return vec![session.run(&format!("XINFO STREAM {key} FULL COUNT 0"))];
    }
    let all = if kind == "+hash" { "HGETALL" } else { "SMEMBERS" };
    let mut members = session.run(&format!("{all} {key}"));
    if members.starts_with("-WRONGTYPE") {
        members = session.run(&format!("ZRANGE {key} 0 -1 WITHSCORES"));
        return vec![members, session.run(&format!("OBJECT ENCODING {key}"))];
    }
    let mut members: Vec<String> = members.split(' ').map(str::to_owned).collect();
    members.sort();
    members.extend([session.run(&format!("OBJECT ENCODING {key}")), session.run(&format!("PTTL {key}"))]);
    members
}

/// The lines of a reply; those of a set sorted, as their order is nobody's business.
fn lines(line: &str, reply: &[u8]) -> Vec<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = reply.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    if line.starts_with('S') && !line.starts_with("SORT") {
        lines[1..].sort();
    }
    lines
}

/// Begins a command that is to be done in steps.
fn begin(session: &mut Session, proto: Proto, line: &str) -> (Vec<u8>, Option<Box<dyn Task>>) {
    let mut later = None;
    let reply = session.send_in(proto, &words(line), Some(&mut later));
    match later {
        Some(Rest::Task(task)) => {
            assert!(reply.is_empty(), "{line}: nothing is replied before the end");
            (reply, Some(task))
        }
        Some(Rest::Reply(mut rest)) => {
            let mut reply = reply;
            while !rest.write_some(&mut reply, 1000) {}
            (reply, None)
        }
        None => (reply, None),
    }
}

/// Does the rest of a task; its reply.
fn end(session: &mut Session, proto: Proto, mut task: Box<dyn Task>) -> Vec<u8> {
    if let Some(past) = task.past() {
        session.ks.end_past(past);
    }
    let (mut reply, mut later) = session.with_cx(proto, |cx| {
        if let Err(error) = task.finish(cx) {
            cx.out.truncate(0);
            cx.out.error(error.to_string());
        }
    });
    if let Some(Rest::Reply(rest)) = &mut later {
        while !rest.write_some(&mut reply, 1000) {}
    }
    task.into_held().into_iter().for_each(|object| session.ks.discard(object));
    reply
}

/// Every command of the family at once and in steps over the same random sources, in both protocols. Between the
/// steps the sources grow, shrink, go and come back as something else.
#[test]
fn steps_are_the_whole() {
    for (seed, count) in [(1, 40), (2, 300), (3, 2_500)] {
        let mut random = Random::new(seed);
        let mut original = Session::unchecked();
        fill(&mut original, &mut random, count);
        let keys: Vec<String> = "s1 s2 s3 tiny to ints volatile z1 z2 z3 zeros numbers places h he x bf cf tk hll:0 hll:1 hll:2 hll:3 hll:4 hll:5"
            .split(' ')
            .map(str::to_owned)
            .collect();
        let named = weigh(&mut original, &mut random);
        let again = |original: &mut Session, line: &str| {
            let mut session = Session::unchecked();
            let named = if line.starts_with("SORT") { &named[..] } else { &[] };
            for key in keys.iter().chain(named) {
                let portable = original.ks.export(0, key.as_bytes());
                session.ks.import(0, key.as_bytes(), portable);
            }
            session
        };
        let mut in_steps = 0;
        let many = with_many_arguments(&mut random, count);
        for line in COMMANDS.iter().copied().chain(many.iter().map(String::as_str)) {
            for proto in [Proto::Resp2, Proto::Resp3] {
                let mut whole = again(&mut original, line);
                let expected = whole.send_in(proto, &words(line), None);
                let fails = ["SORT s1", "SORT s1 STORE to", "SORT s1 BY hw_*->text"].contains(&line);
                assert_eq!(expected[0] == b'-', fails, "{line}: {}", expected.escape_ascii());
                let events = changes(&mut whole);

                let mut session = again(&mut original, line);
                session.env.at_once_max = 0;
                let (reply, task) = begin(&mut session, proto, line);
                let Some(mut task) = task else {
                    assert!(lines(line, &reply) == lines(line, &expected), "{line}");
                    continue;
                };
                in_steps += 1;
                let target = task.target().map(|key| String::from_utf8_lossy(key).into_owned());
                let mut steps = 0;
                while !step(&mut session, &mut *task) {
                    steps += 1;
                    for _ in 0..if line.starts_with("SORT") { 4 } else { 0 } {
                        let key = &named[random.below(named.len())];
                        match random.below(4) {
                            0 => session.run(&format!("DEL {key}")),
                            1 => session.run(&format!("SET {key} 99")),
                            2 => session.run(&format!("HSET {key} f 99 text 7")),
                            _ => session.run(&format!("APPEND {key} 1")),
                        };
                    }
                    for key in keys.iter().filter(|key| Some(*key) != target.as_ref()) {
                        match random.below(20) {
                            0 => session.run(&format!("DEL {key}")),
                            1 => session.run(&format!("SET {key} v")),
                            2 => session.run(&format!("SREM {key} {}", random.below(count))),
                            3 => session.run(&format!("SADD {key} new:{steps}")),
                            4 => session.run(&format!("ZADD {key} 1.25 member:{}", random.below(count))),
                            5 => session.run(&format!("ZREM {key} member:{}", random.below(count))),
                            _ => continue,
                        };
                    }
                    assert!(steps < 100_000, "{line} ends");
                }
                session.ks.take_events();
                let reply = end(&mut session, proto, task);
                assert!(
                    lines(line, &reply) == lines(line, &expected),
                    "{line}, {count} members:\n{}\n{}",
                    expected.escape_ascii(),
                    reply.escape_ascii()
                );
                if let Some(target) = target {
                    assert_eq!(changes(&mut session), events, "{line}");
                    assert!(
                        seen(&mut session, &target) == seen(&mut whole, &target),
                        "{line}, {count} members"
                    );
                }
                session.ks.check();
            }
        }
        assert!(in_steps > COMMANDS.len(), "{in_steps} were done in steps");
    }
}

/// The payload in a reply of DUMP.
fn payload(reply: &[u8]) -> Vec<u8> {
    let head = reply.iter().position(|byte| *byte == b'\n').expect("a header") + 1;
    assert_eq!(reply[..head], *format!("${}\r\n", reply.len() - head - 2).as_bytes());
    reply[head..].strip_suffix(b"\r\n").expect("an end").to_vec()
}

/// All steps of a command that is to be done in steps, and its end. Between them its sources go.
fn in_steps(session: &mut Session, words: &[&[u8]]) -> Vec<u8> {
    let mut later = None;
    let reply = session.send_in(Proto::Resp2, words, Some(&mut later));
    let Some(Rest::Task(mut task)) = later else {
        panic!("{} is not done in steps: {}", words[0].escape_ascii(), reply.escape_ascii())
    };
    while !task.step() {
        if words[0] == b"DUMP" {
            session.send(&[b"DEL", words[1]]);
        }
    }
    end(session, Proto::Resp2, task)
}

/// Streams that no server had are refused, at once and in steps: what is pending belongs to one consumer, and groups and
/// consumers have names of their own.
#[test]
fn streams_that_cannot_be() {
    use damselfly_rdb::{
        ConsumerValue, Encoder, GroupValue, Pending, StreamId, StreamValue, Target, Value, dump,
    };
    let id = |ms: u64| StreamId { ms, seq: 1 };
    let group = |name: &str, pending: &[u64], claimed: &[(&str, &[u64])]| GroupValue {
        name: name.into(),
        pending: pending
            .iter()
            .map(|ms| Pending { id: id(*ms), delivered_at_ms: 1, deliveries: 1 })
            .collect(),
        consumers: claimed
            .iter()
            .map(|(name, ids)| ConsumerValue {
                name: (*name).into(),
                claimed: ids.iter().map(|ms| id(*ms)).collect(),
                ..ConsumerValue::default()
            })
            .collect(),
        ..GroupValue::default()
    };
    let (x, y, none) = ("x", "y", &[][..]);
    for (groups, is_good) in [
        (vec![], true),
        (vec![group("g", &[3, 1, 2], &[(x, &[2, 1]), (y, &[3]), ("z", none)])], true),
        (vec![group("g", &[1], &[(x, &[1])]), group("h", &[1], &[(x, &[1])])], true),
        (vec![group("g", &[1], &[(x, &[1])]), group("g", &[1], &[(x, &[1])])], false),
        (vec![group("g", &[1], &[(x, &[1]), (y, &[1])])], false),
        (vec![group("g", &[1], &[(x, &[1, 1])])], false),
        (vec![group("g", &[1, 2], &[(x, &[1]), (x, &[2])])], false),
        (vec![group("g", &[1, 2], &[(x, &[2])])], false),
        (vec![group("g", &[1, 2], &[]), group("h", none, &[])], false),
        (vec![group("g", &[1], &[(x, &[2])])], false),
        (vec![group("g", &[2, 1, 2], &[(x, &[1, 2])])], false),
    ] {
        let mut payload = Vec::new();
        let mut stream = StreamValue { groups, ..StreamValue::default() };
        stream.entries.push(id(9), [(&b"field"[..], &b"value"[..])]);
        (stream.meta.length, stream.meta.last_id) = (1, id(9));
        dump::value(&mut Encoder::new(Target::Dump), &Value::Stream(stream.clone()), &mut payload);
        let mut session = Session::new();
        let expected = if is_good { "+OK\r\n" } else { "-ERR Bad data format\r\n" };
        let words: [&[u8]; 5] = [b"RESTORE", b"r", b"0", &payload, b"REPLACE"];
        assert_eq!(String::from_utf8_lossy(&session.send(&words)), expected, "{:?}", stream.groups);
        session.env.at_once_max = 0;
        let reply = in_steps(&mut session, &words);
        assert_eq!(String::from_utf8_lossy(&reply), expected, "{:?}", stream.groups);
        session.ks.check();
    }
}

/// DUMP and RESTORE of every type that is dumped or restored in steps: the bytes say the same, whoever wrote and
/// whoever reads them.
#[test]
fn payloads_in_steps() {
    let mut session = Session::unchecked();
    // Payloads count the deadlines of fields from 2023 on.
    session.ks.now = 1_700_000_000_000;
    let mut random = Random::new(4);
    fill(&mut session, &mut random, 2_500);
    for at in 0..3_000 {
        session.run(&format!("HSET h field:{at} {}", random.below(1000)));
        session.run(&format!("HSET he {at} {}", "v".repeat(random.below(90))));
        session.run(&format!("XADD x {}-1 f {at}", at + 1));
    }
    session.run("HEXPIRE he 100 FIELDS 3 1 2 3");
    let list = |session: &mut Session, key: &str| session.run(&format!("LRANGE {key} 0 -1"));
    let sorted = |session: &mut Session, line: &str| {
        let line = session.run(line);
        let mut words: Vec<&str> = line.split(' ').collect();
        words.sort_unstable();
        words.join(" ")
    };
    session.run("XREADGROUP GROUP g many COUNT 1000000 STREAMS x >");
    (0..700).for_each(|at| drop(session.run(&format!("XGROUP CREATECONSUMER x g idle:{at}"))));
    session.run("XGROUP CREATE x empty $");
    for key in ["s1", "z1", "h", "he", "numbers", "s3", "places", "x"] {
        let seen = |session: &mut Session, key: &str| {
            let encoding = session.run(&format!("OBJECT ENCODING {key}"));
            let contents = match session.run(&format!("TYPE {key}")).as_str() {
                "+list" => list(session, key),
                "+zset" => session.run(&format!("ZRANGE {key} 0 -1 WITHSCORES")),
                "+stream" => {
                    // All but how it is divided into nodes.
                    let payload = payload(&session.send(&[b"DUMP", key.as_bytes()]));
                    payload.escape_ascii().to_string()
                }
                "+hash" => {
                    sorted(session, &format!("HGETALL {key}"))
                        + &session.run(&format!("HTTL {key} FIELDS 2 1 9"))
                }
                _ => sorted(session, &format!("SMEMBERS {key}")),
            };
            (encoding, contents)
        };
        let expected = seen(&mut session, key);
        session.env.at_once_max = usize::MAX;
        let at_once = payload(&session.send(&[b"DUMP", key.as_bytes()]));
        session.run(&format!("COPY {key} original"));
        session.env.at_once_max = 0;
        let stepwise = payload(&in_steps(&mut session, &[b"DUMP", key.as_bytes()]));
        if matches!(key, "z1" | "numbers" | "places" | "x") {
            assert!(at_once == stepwise, "{key}: in the same order, so the same bytes");
        }
        session.ks.take_events();
        for payload in [&at_once, &stepwise] {
            let reply = in_steps(&mut session, &[b"RESTORE", b"r", b"5000", payload, b"REPLACE"]);
            assert_eq!(reply, b"+OK\r\n", "{key}");
            assert_eq!(session.events(), "restore r", "{key}");
            assert!(seen(&mut session, "r") == expected, "{key}");
            assert_eq!(session.run("PTTL r"), ":5000", "{key}");
            session.ks.check();
            session.env.at_once_max = usize::MAX;
            let reply = session.send(&[b"RESTORE", b"r", b"0", payload, b"REPLACE"]);
            assert_eq!(reply, b"+OK\r\n", "{key}");
            assert!(seen(&mut session, "r") == expected, "{key}, at once");
            session.env.at_once_max = 0;
            session.ks.take_events();
        }
        session.run(&format!("RENAME original {key}"));
    }

    // What is not made of elements one by one.
    session.run("SET string value");
    for key in ["x", "string"] {
        let whole = payload(&session.send(&[b"DUMP", key.as_bytes()]));
        session.env.at_once_max = 0;
        assert_eq!(in_steps(&mut session, &[b"RESTORE", b"r", b"0", &whole, b"REPLACE"]), b"+OK\r\n");
        assert!(payload(&session.send(&[b"DUMP", b"r"])) == whole, "{key}");
        session.env.at_once_max = usize::MAX;
    }

    // What must be refused is, and leaves what was there.
    session.env.at_once_max = 0;
    session.run("SET r old");
    let mut other = payload(&in_steps(&mut session, &[b"DUMP", b"numbers"]));
    other[100] ^= 1;
    let reply = in_steps(&mut session, &[b"RESTORE", b"r", b"0", &other, b"REPLACE"]);
    assert_eq!(reply, b"-ERR DUMP payload version or checksum are wrong\r\n");
    assert_eq!(session.run("GET r"), "$3 old");
    let bad = |body: &[u8]| {
        let mut bad = body.to_vec();
        damselfly_rdb::dump::seal(&mut bad, 0);
        bad
    };
    for body in [
        &b"\x02\x02\x01a\x01a"[..],
        b"\x02\x02\x01a\x40",
        b"\x02\x00",
        b"\x04\x02\x01a\x01b\x01a\x01c",
        b"\x05\x01\x01a\x00\x00\x00\x00\x00\x00\xf8\x7f",
        b"\x00\x01ab",
        b"\x02\x01\x01aaaaaaaaa",
    ] {
        let mut later = None;
        let words: [&[u8]; 5] = [b"RESTORE", b"r", b"0", &bad(body), b"REPLACE"];
        let mut reply = session.send_in(Proto::Resp2, &words, Some(&mut later));
        if let Some(Rest::Task(mut task)) = later {
            while !task.step() {}
            reply = end(&mut session, Proto::Resp2, task);
        }
        assert_eq!(reply, b"-ERR Bad data format\r\n", "{}", body.escape_ascii());
        assert_eq!(session.run("GET r"), "$3 old");
    }
    // One whose time has passed removes what was there.
    let whole = bad(b"\x02\x01\x09aaaaaaaaa");
    assert_eq!(in_steps(&mut session, &[b"RESTORE", b"r", b"1", &whole, b"REPLACE", b"ABSTTL"]), b"+OK\r\n");
    assert_eq!(session.run("EXISTS r"), ":0");
}

/// Long strings are looked at and combined in steps, and it is the same, wherever a part begins and ends. Who writes
/// to a source of BITOP meanwhile changes nothing.
#[test]
fn long_strings_in_steps() {
    const LEN: usize = 1 << 20;
    let mut session = Session::unchecked();
    let mut random = Random::new(5);
    let mut text = |len: usize| (0..len).map(|_| random.below(256) as u8).collect::<Vec<u8>>();
    for (key, value) in [("a", text(LEN + 300_001)), ("b", text(2 * LEN)), ("short", text(9))] {
        session.send(&[b"SET", key.as_bytes(), &value]);
    }
    let mut sparse = vec![0; 3 * LEN];
    (sparse[9], sparse[2 * LEN + 77]) = (0x10, 4);
    session.send(&[b"SET", b"sparse", &sparse]);
    session.send(&[b"SET", b"full", &[0xff; LEN + 1000]]);
    for line in [
        "BITCOUNT a",
        "BITCOUNT b 3 -1",
        "BITCOUNT b 11 -14 BIT",
        "BITPOS sparse 1",
        "BITPOS sparse 1 10",
        "BITPOS sparse 1 100 20000000 BIT",
        "BITPOS sparse 1 2000000",
        "BITPOS full 0",
        "BITPOS full 0 0 -1",
        "BITPOS full 0 4 -1 BIT",
        "BITOP AND to a b",
        "BITOP OR to short a missing b",
        "BITOP XOR a a b a sparse",
        "BITOP NOT to b",
        "BITOP AND to b short",
    ] {
        let kept = session.run("COPY a kept REPLACE");
        assert_eq!(kept, ":1");
        let whole = session.send_in(Proto::Resp2, &words(line), None);
        let target = line.starts_with("BITOP").then(|| words(line)[2]);
        let left = target.map(|key| session.send_in(Proto::Resp2, &[b"GET", key], None));
        session.run("COPY kept a REPLACE");
        let (begun, task) = begin(&mut session, Proto::Resp2, line);
        let mut task = task.unwrap_or_else(|| panic!("{line} is long: {}", begun.escape_ascii()));
        let mut steps = 1;
        while !step(&mut session, &mut *task) {
            steps += 1;
            if target.is_some() {
                session.run("SETRANGE b 1500000 changed");
            }
        }
        assert!(steps > 4 || line.starts_with("BITPOS"), "{line}: {steps}");
        let b = session.send(&[b"GET", b"b"]);
        let reply = end(&mut session, Proto::Resp2, task);
        assert_eq!(reply, whole, "{line}");
        assert!(target.map(|key| session.send_in(Proto::Resp2, &[b"GET", key], None)) == left, "{line}");
        assert!(session.send(&[b"GET", b"b"]) == b);
        session.run("COPY kept a REPLACE");
        session.ks.check();
    }
    session.run("SADD set x");
    for line in ["BITOP OR to b set", "BITOP OR to set b"] {
        let (reply, task) = begin(&mut session, Proto::Resp2, line);
        assert!(reply.starts_with(b"-WRONGTYPE") && task.is_none(), "{line}");
    }
}

/// Much of a big document is written in steps, as it was when the command began; little of it at once.
#[test]
fn documents_in_steps() {
    let mut session = Session::unchecked();
    let one = |at: usize| format!("{{\"id\":{at},\"name\":\"a longer name {at}\",\"tags\":[1,[],{{}}]}}");
    let elements: Vec<String> = (0..4000).map(one).collect();
    let text = format!("{{\"list\":[{}],\"one\":[[{{\"x\":1}}]],\"n\":5}}", elements.join(","));
    for (line, in_steps) in [
        ("JSON.GET j", true),
        ("JSON.GET j $", true),
        ("JSON.GET j .", true),
        ("JSON.GET j $.list", true),
        ("JSON.GET j .list", true),
        ("JSON.GET j $..id", true),
        ("JSON.GET j INDENT -- NEWLINE | SPACE _ $.list", true),
        ("JSON.GET j INDENT -- NEWLINE | SPACE _", true),
        ("JSON.GET j $.one", true),
        ("JSON.GET j $.n", false),
        ("JSON.GET j .n", false),
        ("JSON.GET j $.missing", false),
        ("JSON.GET j .missing", false),
        ("JSON.GET j $.list $.n", false),
    ] {
        for proto in [Proto::Resp2, Proto::Resp3] {
            session.send(&[b"JSON.SET", b"j", b"$", text.as_bytes()]);
            let whole = session.send_in(proto, &words(line), None);
            let (mut reply, task) = begin(&mut session, proto, line);
            assert_eq!(task.is_some(), in_steps, "{line}");
            if let Some(mut task) = task {
                let mut steps = 0;
                while !step(&mut session, &mut *task) {
                    steps += 1;
                    match steps {
                        2 => drop(session.run("JSON.NUMINCRBY j $..id 7")),
                        4 => drop(session.run("JSON.DEL j $.list[5]")),
                        6 => drop(session.run("DEL j")),
                        _ => {}
                    }
                }
                reply = end(&mut session, proto, task);
            }
            assert!(reply == whole, "{line}");
        }
    }
    while session.ks.free_some() {}
    session.ks.check();
}

/// What drops many elements at once leaves them to be freed in steps, and what stays is the same.
#[test]
fn what_is_dropped_is_freed_later() {
    for line in [
        "LTRIM numbers 1000 1010",
        "LTRIM numbers 3 -3",
        "LPOP numbers 1500",
        "RPOP numbers 1500",
        "XTRIM x MAXLEN 30",
        "XTRIM x MINID 1200",
        "XTRIM x MAXLEN ~ 30",
    ] {
        let mut outcomes = Vec::new();
        for at_once_max in [usize::MAX, 0] {
            let mut session = Session::unchecked();
            let long = "x".repeat(200);
            for at in 0..2_000 {
                session.run(&format!("RPUSH numbers {at}{long}"));
                session.run(&format!("XADD x {}-1 f {at}{long}", at + 1));
            }
            session.ks.take_events();
            session.env.at_once_max = at_once_max;
            let reply = session.run(line);
            assert_eq!(session.ks.has_doomed(), at_once_max == 0, "{line}");
            session.ks.check();
            while session.ks.free_some() {}
            let left = [session.run("LRANGE numbers 0 -1"), session.run("XRANGE x - +")];
            outcomes.push((reply, left, session.events()));
        }
        assert!(outcomes[0] == outcomes[1], "{line}");
    }
}

/// What expiry takes from a command in steps stays away.
#[test]
fn a_target_may_expire() {
    let mut session = Session::unchecked();
    for at in 0..3_000 {
        session.run(&format!("ZADD z {at} m:{at}"));
    }
    session.run("PEXPIRE z 10");
    session.env.at_once_max = 0;
    let (_, task) = begin(&mut session, Proto::Resp2, "ZREMRANGEBYRANK z 0 99");
    let mut task = task.expect("in steps");
    while !task.step() {}
    session.ks.now += 11;
    session.ks.take_events();
    assert_eq!(end(&mut session, Proto::Resp2, task), b":100\r\n");
    assert_eq!((session.events().as_str(), session.run("EXISTS z").as_str()), ("expired z", ":0"));
}

/// What many arguments do to a key that goes meanwhile is counted, and goes with it; nobody who looks without a lock
/// finds the key gone before.
#[test]
fn what_is_lent_may_expire() {
    let members: String = (0..2_000).map(|at| format!(" m:{at}")).collect();
    let scored: String = (0..2_000).map(|at| format!(" {at} m:{at}")).collect();
    for (key, line, reply) in [
        ("s", format!("SADD s{members}"), ":1990"),
        ("s", format!("SREM s{members}"), ":10"),
        ("z", format!("ZADD z{scored}"), ":1990"),
        ("l", format!("RPUSHX l{members}"), ":2010"),
        ("h", format!("HSET h{scored}"), ":2000"),
    ] {
        let mut session = Session::new();
        for at in 0..10 {
            session.run(&format!("SADD s m:{at}"));
            session.run(&format!("ZADD z 1 m:{at}"));
            session.run(&format!("RPUSH l m:{at}"));
            session.run(&format!("HSET h m:{at} v"));
        }
        session.run(&format!("PEXPIRE {key} 10"));
        let (_, task) = begin(&mut session, Proto::Resp2, &line);
        let mut task = task.expect("in steps");
        assert_eq!(session.run(&format!("EXISTS {key}")), ":1");
        while !task.step() {}
        session.ks.now += 11;
        session.ks.take_events();
        assert_eq!(end(&mut session, Proto::Resp2, task), format!("{reply}\r\n").as_bytes());
        assert_eq!(session.events(), format!("expired {key}"));
        assert_eq!(session.run(&format!("EXISTS {key}")), ":0");
        session.ks.check();
    }
}

/// A mistake in the last of many arguments is told before the first of them changes anything, and ordinary requests
/// are done at once.
#[test]
fn many_arguments_are_checked_first() {
    let mut session = Session::new();
    let scored: String = (0..2_000).map(|at| format!(" {at} m:{at}")).collect();
    session.run("SET string v");
    for (line, reply) in [
        (format!("ZADD new{scored} x last"), "-ERR value is not a valid float\r\n"),
        (format!("ZADD string{scored} x last"), "-ERR value is not a valid float\r\n"),
        (format!("ZADD new{scored} 1"), "-ERR syntax error\r\n"),
        (
            format!("ZADD string{scored}"),
            "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
        ),
        (format!("HSET new{scored} f"), "-ERR wrong number of arguments for 'hset' command\r\n"),
        (
            format!("SADD string{scored}"),
            "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
        ),
    ] {
        let (got, task) = begin(&mut session, Proto::Resp2, &line);
        assert_eq!((got.as_slice(), task.is_none()), (reply.as_bytes(), true));
        assert_eq!(session.run("EXISTS new"), ":0");
    }
    let few: String = (0..1_000).map(|at| format!(" {at}")).collect();
    assert!(begin(&mut session, Proto::Resp2, &format!("SADD new{few}")).1.is_none());
}

/// Questions about many elements get the same answers in pieces, from what was there when they came.
#[test]
fn answers_in_pieces() {
    let mut session = Session::unchecked();
    let mut random = Random::new(5);
    fill(&mut session, &mut random, 2_500);
    let many = |head: &str, name: &str| {
        (0..3_000).fold(head.to_owned(), |line, at| format!("{line} {name}:{}", at * 7 % 3_500))
    };
    let keys = "s1 s2 s3 z1 h places";
    for line in [
        many("SMISMEMBER s1", "member"),
        many("SMISMEMBER nosuch", "member"),
        many("HMGET h", "f"),
        many("ZMSCORE z1", "member"),
        many("GEOPOS places", "place"),
        many("GEOHASH places", "place"),
    ] {
        for proto in [Proto::Resp2, Proto::Resp3] {
            let expected = session.send_in(proto, &words(&line), None);
            let kept: Vec<_> =
                keys.split(' ').map(|key| (key, session.ks.export(0, key.as_bytes()))).collect();
            let mut later = None;
            let mut reply = session.send_in(proto, &words(&line), Some(&mut later));
            let Some(Rest::Reply(mut rest)) = later else {
                assert!(line.contains("nosuch") && reply == expected, "{}", &line[..20]);
                continue;
            };
            session.run(&format!("DEL {keys}"));
            let mut pieces = 1;
            while !rest.write_some(&mut reply, usize::MAX / 2) {
                pieces += 1;
            }
            assert!(pieces >= 3, "{}", &line[..20]);
            assert!(reply == expected, "{}", &line[..20]);
            rest.into_held().into_iter().for_each(|held| session.ks.discard(held));
            for (key, value) in kept {
                session.ks.import(0, key.as_bytes(), value);
            }
        }
    }
}

/// Random picks of many are as many as were asked for, of what was there when they came, and all different where they
/// are to be; what is popped is gone.
#[test]
fn picks_in_pieces() {
    let mut session = Session::unchecked();
    let mut random = Random::new(6);
    let count = 3_000;
    fill(&mut session, &mut random, count);
    for at in 0..count {
        session.run(&format!("SADD s3 {at}{}", "x".repeat(200)));
    }
    session.env.at_once_max = 0;
    // The line, the words that belong to a pick, and how many picks there are.
    for (line, words_each, picks) in [
        ("SRANDMEMBER places -4000", 0, 0),
        ("SRANDMEMBER s1 -4000", 1, 4000),
        ("SRANDMEMBER s1 700", 1, 700),
        ("SRANDMEMBER s1 100", 1, 100),
        ("SRANDMEMBER s1 100000", 1, usize::MAX),
        ("HRANDFIELD h -4000 WITHVALUES", 2, 4000),
        ("HRANDFIELD h 170", 1, 170),
        ("HRANDFIELD h 2999 WITHVALUES", 2, 2999),
        ("ZRANDMEMBER places -4000 WITHSCORES", 2, 4000),
        ("ZRANDMEMBER places 170 WITHSCORES", 2, 170),
        ("ZRANDMEMBER places 2999", 1, 2999),
        ("SPOP s1 700", 1, 700),
        ("SPOP s3 100000", 1, usize::MAX),
        ("SPOP s3 100", 1, 100),
    ] {
        let key = line.split(' ').nth(1).unwrap();
        let original = session.ks.export(0, key.as_bytes());
        let members = |session: &mut Session| session.run(&format!("SMEMBERS {key}"));
        let len: usize =
            session.run(&format!("SCARD {key}")).strip_prefix(':').map_or(count, |len| len.parse().unwrap());
        let before = members(&mut session);
        session.ks.take_events();
        let mut later = None;
        let mut reply = session.send_in(Proto::Resp2, &words(line), Some(&mut later));
        match later {
            Some(Rest::Reply(mut rest)) => {
                session.run(&format!("DEL {key}"));
                while !rest.write_some(&mut reply, 100) {}
                rest.into_held().into_iter().for_each(|held| session.ks.discard(held));
            }
            Some(Rest::Task(mut task)) => {
                while !task.step() {}
                reply = end(&mut session, Proto::Resp2, task);
                assert_eq!(session.events(), format!("spop {key}"));
                let left: usize = session.run(&format!("SCARD {key}"))[1..].parse().unwrap();
                assert_eq!(left, len - picks, "{line}");
            }
            None => assert_eq!(reply[0], b'-', "{line} is done in pieces"),
        }
        if words_each > 0 {
            let all: Vec<&[u8]> = reply.split(|byte| *byte == b'\n').collect();
            let picks = if line.contains('-') { picks } else { picks.min(len) };
            assert_eq!(all[0], format!("*{}\r", picks * words_each).as_bytes(), "{line}");
            assert_eq!(all.len(), 2 + 2 * picks * words_each, "{line}");
            let mut picked: Vec<&[u8]> = all[2..].iter().step_by(2 * words_each).copied().collect();
            picked.sort_unstable();
            picked.dedup();
            assert!(line.contains('-') || picked.len() == picks, "{line}: all different");
            let there: Vec<&str> = before.split(' ').collect();
            if key.starts_with('s') {
                let is_member =
                    |member: &&[u8]| there.iter().any(|there| there.as_bytes() == member.trim_ascii());
                assert!(picked.iter().take(50).all(is_member), "{line}");
            }
        }
        session.ks.import(0, key.as_bytes(), original);
        session.ks.check();
    }
}

/// What looks at little is done at once, whatever it has before it, and so is everything where nothing may be left.
#[test]
fn short_work_is_done_at_once() {
    let mut session = Session::unchecked();
    for at in 0..6_000 {
        session.run(&format!("SADD a {at}"));
        session.run(&format!("SADD b {}", 2 * at));
    }
    session.run("SADD c 1 2 3");
    for line in [
        "SINTER a c",
        "SDIFF c a b",
        "SUNIONSTORE to a c",
        "SDIFFSTORE to a c",
        "SINTERCARD 3 a b c",
        "SDIFF c b",
    ] {
        assert!(begin(&mut session, Proto::Resp2, line).1.is_none(), "{line}");
    }
    session.run("SADD a x");
    for line in ["SUNION a b", "SINTER a b a", "SDIFFSTORE to a b b", "ZUNION 2 a b"] {
        let task = begin(&mut session, Proto::Resp2, line).1.unwrap_or_else(|| panic!("{line} takes long"));
        assert_eq!(task.target().is_some(), line.contains("STORE"), "{line}");
        assert_ne!(session.run(line), "", "{line}: at once where nothing may be left");
    }
    session.env.at_once_max = 100;
    session.run("ZUNIONSTORE z 1 a");
    assert!(begin(&mut session, Proto::Resp2, "ZRANGESTORE to z 0 99").1.is_none());
    assert!(begin(&mut session, Proto::Resp2, "ZRANGESTORE to z 0 100").1.is_some());
}

/// Members that would take long one by one are few to a step, and many sources make it shorter.
#[test]
fn steps_are_short() {
    let mut session = Session::unchecked();
    session.env.at_once_max = 0;
    let long = "x".repeat(300_000);
    for at in 0..30 {
        session.run(&format!("SADD long {at}{long}"));
    }
    let (_, task) = begin(&mut session, Proto::Resp2, "SUNIONSTORE to long nosuch other");
    assert!(task.is_some_and(|task| task.target() == Some(b"to")));
    let (_, task) = begin(&mut session, Proto::Resp2, "SINTER long long");
    let mut task = task.expect("in steps");
    let mut steps = 1;
    while !task.step() {
        steps += 1;
    }
    assert!(steps >= 3, "{steps} steps for 9 MB");
    let held = task.into_held();
    assert!(
        held.iter()
            .all(|object| matches!(object, damselfly_keyspace::Object::Set(Set::Big(_) | Set::Ints(_))))
    );
}

/// XREADGROUP of one stream as a client gets it that may wait, in steps where they are left.
fn read_in_steps(session: &mut Session, proto: Proto, line: &str) -> (Vec<u8>, bool) {
    let Run::Block(blocking) = lookup(b"XREADGROUP").expect("a command").command.run else { unreachable!() };
    let (mut bytes, mut requests) = (Vec::new(), Requests::new());
    assert!(requests.push_copy(&mut bytes, words(line).into_iter()));
    let args = Args::behind_name(&requests.argv(&bytes, 0));
    let at = args.len() - 2;
    let mut is_announced = false;
    let (mut reply, later) = session.with_cx(proto, |cx| {
        let mark = (blocking.mark)(cx, args, at).expect("a mark");
        assert_eq!((blocking.ready)(cx, args, at, &mark), Ok(true), "{line}");
        is_announced = (blocking.in_steps)(cx, args, at, &mark).expect("an answer");
        (blocking.take)(cx, args, at, &mark).expect("it is ready");
    });
    match later {
        Some(Rest::Task(mut task)) => {
            assert!(is_announced && reply.is_empty() && task.target() == Some(b"x"), "{line}");
            while !task.step() {}
            (end(session, proto, task), true)
        }
        Some(Rest::Reply(mut rest)) => {
            assert!(!is_announced, "{line}");
            while !rest.write_some(&mut reply, 1000) {}
            (reply, false)
        }
        None => {
            assert!(!is_announced, "{line}");
            (reply, false)
        }
    }
}

/// What a consumer reads in steps is what it reads at once, and leaves the same.
#[test]
fn streams_are_read_in_steps() {
    let lines = [
        "XREADGROUP GROUP g new STREAMS x >",
        "XREADGROUP GROUP g two COUNT 130 STREAMS x >",
        "XREADGROUP GROUP g two NOACK STREAMS x >",
        "XREADGROUP GROUP g one STREAMS x 0",
        "XREADGROUP GROUP g two COUNT 200 STREAMS x 900-1",
        "XREADGROUP GROUP g new STREAMS x 0",
        "XREADGROUP GROUP g one STREAMS x 1000000-1",
    ];
    let mut original = Session::unchecked();
    fill(&mut original, &mut Random::new(5), 1_500);
    let mut in_steps = 0;
    for line in lines {
        for proto in [Proto::Resp2, Proto::Resp3] {
            let [mut whole, mut session] = [(), ()].map(|()| {
                let mut session = Session::unchecked();
                session.ks.import(0, b"x", original.ks.export(0, b"x"));
                session
            });
            whole.ks.now += 5;
            session.ks.now += 5;
            session.env.at_once_max = 0;
            let expected = whole.send_in(proto, &words(line), None);
            let (part, stepped) = read_in_steps(&mut session, proto, line);
            in_steps += usize::from(stepped);
            assert!(expected[4..] == part, "{line}:\n{}\n{}", expected.escape_ascii(), part.escape_ascii());
            assert_eq!(session.events(), whole.events(), "{line}");
            assert!(seen(&mut session, "x") == seen(&mut whole, "x"), "{line}");
            session.ks.check();
        }
    }
    assert_eq!(in_steps, 2 * 6, "all but the one for whom there is nothing");
}
