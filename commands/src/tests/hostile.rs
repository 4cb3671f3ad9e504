//! RESTORE of payloads that no server made: each is refused, or makes a value that keeps its invariants and can be
//! read, changed and dumped again. The checksum is right each time, so that what is behind it is met.

use damselfly_rdb::crc64;

use super::session::Session;
use crate::random::Random;

/// How often each payload is damaged.
const ROUNDS: u64 = 400;

/// The payload of DUMP without version and checksum.
fn body(session: &mut Session, key: &str) -> Vec<u8> {
    let reply = session.send(&[b"DUMP", key.as_bytes()]);
    let head = reply.iter().position(|byte| *byte == b'\n').expect("a header") + 1;
    let payload = &reply[head..reply.len() - 2];
    payload[..payload.len() - 10].to_vec()
}

fn sealed(body: &[u8]) -> Vec<u8> {
    let mut payload = [body, &10u16.to_le_bytes()].concat();
    payload.extend(crc64(0, &payload).to_le_bytes());
    payload
}

fn damage(body: &mut Vec<u8>, random: &mut Random) {
    const EDGES: [u8; 12] = [0, 1, 2, 0x3F, 0x40, 0x7F, 0x80, 0x81, 0xC0, 0xC3, 0xFE, 0xFF];
    for _ in 0..1 + random.below(3) {
        let at = random.below(body.len());
        match random.below(6) {
            0 => body[at] ^= 1 << random.below(8),
            1 => body[at] = EDGES[random.below(EDGES.len())],
            2 => body[at] = random.below(256) as u8,
            3 => body.truncate(at + 1),
            4 => {
                let piece = body[at..(at + 1 + random.below(9)).min(body.len())].to_vec();
                let to = random.below(body.len());
                body.splice(to..to, piece);
            }
            _ => {
                let end = (at + random.below(5)).min(body.len() - 1);
                body.drain(at..end);
            }
        }
    }
}

/// Every type in its small and its big form.
#[test]
fn damaged_payloads() {
    let mut session = Session::new();
    let mut lines: Vec<String> = [
        "SET text abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz",
        "SET number -12345678",
        "RPUSH list a 1 -5000 3000000000 word",
        "SADD ints 1 -2 70000 9223372036854775807",
        "SADD set a b 3",
        "HSET hash f v n 7",
        "HSET timed f v n 7 g 8",
        "HPEXPIRE timed 100000 FIELDS 1 f",
        "SADDEX timedset 100 a b",
        "ZADD zset 1.5 a -inf b inf c 0.1 d",
        "PFADD hll a b c d e f",
        "XADD stream 1-1 f v",
        "XADD stream 2-1 f v g w",
        "XADD stream 3-1 other x",
        "XDEL stream 2-1",
        "XGROUP CREATE stream group 0",
        "XREADGROUP GROUP group alice COUNT 1 STREAMS stream >",
        "BF.RESERVE bloom 0.01 20",
        "BF.ADD bloom x",
        "CF.RESERVE cuckoo 16",
        "CF.ADD cuckoo x",
        "CMS.INITBYDIM cms 5 3",
        "CMS.INCRBY cms x 3",
        "TOPK.RESERVE topk 2 4 3 0.9",
        "TOPK.ADD topk a b",
    ]
    .map(str::to_owned)
    .to_vec();
    for at in 0..300 {
        lines.push(format!("SADD bigset member{at}"));
        lines.push(format!("HSET bighash field{at} value{at}"));
        lines.push(format!("ZADD bigzset {at}.5 member{at}"));
        lines.push(format!("RPUSH biglist element{at}{}", "x".repeat(40)));
    }
    lines.push("JSON.SET json $ {\"a\":[1,2,{\"b\":null}]}".to_owned());
    for line in &lines {
        let reply = session.run(line);
        assert!(!reply.starts_with('-'), "{line}: {reply}");
    }
    let keys = "text number list ints set hash timed timedset zset hll stream bloom cuckoo cms topk bigset bighash \
                bigzset biglist json";
    let bodies: Vec<(&str, Vec<u8>)> =
        keys.split_whitespace().map(|key| (key, body(&mut session, key))).collect();
    let mut session = Session::new();
    let mut random = Random::new(1);
    let (mut taken, mut refused) = (0, 0);
    for (key, whole) in &bodies {
        for round in 0..ROUNDS {
            let mut body = whole.clone();
            // The first is as it was.
            if round > 0 {
                damage(&mut body, &mut random);
            }
            let reply = session.send(&[b"RESTORE", b"k", b"0", &sealed(&body), b"REPLACE"]);
            if reply.starts_with(b"-") {
                assert!(round > 0, "{key}: {}", reply.escape_ascii());
                refused += 1;
                continue;
            }
            taken += 1;
            // Whatever it became: one of these reads and changes it, the others say that the type is wrong.
            for line in [
                "DUMP k",
                "GET k",
                "APPEND k x",
                "PFCOUNT k",
                "PFADD k y",
                "LRANGE k 0 -1",
                "LPOP k",
                "LINSERT k BEFORE word new",
                "SMEMBERS k",
                "SADD k new 5",
                "SPOP k 2",
                "HGETALL k",
                "HSET k new value",
                "HDEL k f field1",
                "ZRANGE k 0 -1 WITHSCORES",
                "ZADD k 7 new -1 a",
                "ZPOPMIN k 2",
                "XRANGE k - +",
                "XINFO STREAM k FULL",
                "XADD k * f v",
                "XAUTOCLAIM k group bob 0 -",
                "XTRIM k MAXLEN 1",
                "BF.ADD k new",
                "CF.ADD k new",
                "CF.DEL k x",
                "CMS.INCRBY k x 1",
                "TOPK.ADD k new",
                "JSON.GET k",
                "DUMP k",
            ] {
                session.run(line);
            }
            while session.ks.free_some() {}
        }
    }
    assert!(taken > ROUNDS && refused > ROUNDS, "{taken} were taken, {refused} refused: both are tried");
}
