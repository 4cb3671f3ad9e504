//! Walks with SSCAN, HSCAN and ZSCAN while the collection changes between the steps.

use std::collections::BTreeSet;

use super::session::Session;
use crate::random::Random;

/// Sends a command with many elements, named by numbers.
fn many(session: &mut Session, command: &str, numbers: std::ops::Range<usize>) {
    let names: Vec<String> = numbers.map(|number| format!("name{number}")).collect();
    for names in names.chunks(500) {
        let mut args: Vec<&[u8]> = vec![command.as_bytes(), b"key"];
        for name in names {
            match command {
                "ZADD" => args.extend([b"1", name.as_bytes()]),
                "HSET" => args.extend([name.as_bytes(), b"v"]),
                _ => args.push(name.as_bytes()),
            }
        }
        session.send(&args);
    }
}

/// The cursor and the names in a reply.
fn step(session: &mut Session, command: &str, cursor: u64, count: usize) -> (u64, Vec<String>) {
    let reply = session.run(&format!("{command} key {cursor} COUNT {count}"));
    let mut words = reply.split(' ');
    let cursor = words.nth(2).and_then(|word| word.parse().ok()).expect("a cursor");
    (cursor, words.filter(|word| word.starts_with("name")).map(str::to_owned).collect())
}

/// Every element that is there all the time is seen, nothing is seen that never was there, and the walk ends, whether
/// the collection grows, shrinks or does both by turns, small forms and big ones included.
#[test]
fn walks_see_what_stays_and_end() {
    for (scan, add, remove) in
        [("SSCAN", "SADD", "SREM"), ("HSCAN", "HSET", "HDEL"), ("ZSCAN", "ZADD", "ZREM")]
    {
        for seed in 1..=8 {
            let mut random = Random::new(seed);
            let mut session = Session::unchecked();
            // Some begin small, so that the walk meets both forms.
            let stays = if seed % 3 == 0 { 60 } else { 600 };
            many(&mut session, add, 0..stays);
            let (mut top, most) = (stays, 3_000);
            let (mut cursor, mut seen, mut steps, mut visits) = (0, BTreeSet::new(), 0, 0);
            loop {
                let (next, names) = step(&mut session, scan, cursor, 1 + random.below(30));
                visits += names.len();
                seen.extend(names);
                steps += 1;
                if next == 0 {
                    break;
                }
                assert!(steps < 20_000, "{scan}, seed {seed}: the walk ends");
                cursor = next;
                let goal = match seed % 4 {
                    0 => top + random.below(100),
                    1 => top - random.below(100).min(top - stays),
                    2 if random.below(2) == 0 => stays,
                    2 => most,
                    _ => stays + random.below(most),
                };
                let goal = goal.min(most);
                if goal > top {
                    many(&mut session, add, top..goal);
                } else {
                    many(&mut session, remove, goal..top);
                }
                top = goal;
                if seed % 4 == 1 && top == stays {
                    many(&mut session, add, top..most);
                    top = most;
                }
            }
            for number in 0..stays {
                assert!(seen.contains(&format!("name{number}")), "{scan}, seed {seed}: name{number} stays");
            }
            let names = seen.iter().map(|name| name[4..].parse::<usize>().expect("a number"));
            assert!(names.max() < Some(most), "{scan}, seed {seed}");
            // Twice is allowed, but not again and again.
            assert!(visits < 4 * most, "{scan}, seed {seed}: {visits} visits");
        }
    }
}

/// A collection that does not change is seen once each.
#[test]
fn a_quiet_walk_sees_all_once() {
    for (scan, add) in [("SSCAN", "SADD"), ("HSCAN", "HSET"), ("ZSCAN", "ZADD")] {
        let mut session = Session::unchecked();
        many(&mut session, add, 0..5_000);
        let (mut cursor, mut seen) = (0, Vec::new());
        loop {
            let (next, names) = step(&mut session, scan, cursor, 10);
            seen.extend(names);
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        seen.sort_unstable();
        assert_eq!(seen.len(), 5_000, "{scan}");
        seen.dedup();
        assert_eq!(seen.len(), 5_000, "{scan}");
    }
}
