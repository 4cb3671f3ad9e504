//! Commands of one pipeline on different shards: whoever sees the effect of one of them sees those before it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use damselfly_tests::client::Client;
use damselfly_tests::reply::Reply;
use damselfly_tests::servers::{Kind, Server};

/// Pipelines per writer.
const ROUNDS: u64 = 6_000;

/// Keys of one pipeline. With four shards, and keys chosen by nobody, neighbours are on different ones most of the time.
const KEYS: usize = 6;

/// Looks per observer between two checks whether the writers are done.
const LOOKS: usize = 32;

fn number(client: &mut Client, key: &str) -> u64 {
    let reply = client.call(&["GET", key]);
    reply.text().map_or(0, |text| String::from_utf8_lossy(text).parse().expect("a number"))
}

/// Writers set all their keys to the same number, the first key first, in one pipeline; the numbers rise. Observers
/// read a late key and then an early one, on connections of their own each: the early one is never behind.
#[test]
fn what_a_pipeline_writes_is_seen_in_its_order() {
    let server = Server::start(Kind::Damselfly { threads: 4 }, &[]).unwrap_or_else(|error| panic!("{error}"));
    let address = server.address();
    let done = AtomicBool::new(false);
    let looks: u64 = thread::scope(|scope| {
        let observers: Vec<_> = (0..3)
            .map(|observer| {
                let done = &done;
                scope.spawn(move || {
                    let mut late = Client::open(address);
                    let mut early = Client::open(address);
                    let mut looks = 0;
                    while !done.load(Ordering::Relaxed) {
                        for look in 0..LOOKS {
                            let writer = (look + observer) % 2;
                            let at = 1 + look % (KEYS - 1);
                            let before = look % at;
                            let seen = number(&mut late, &format!("w{writer}:{at}"));
                            let earlier = number(&mut early, &format!("w{writer}:{before}"));
                            assert!(
                                earlier >= seen,
                                "key {at} of writer {writer} has {seen}, and afterwards key {before} only {earlier}"
                            );
                            looks += u64::from(seen > 0);
                        }
                    }
                    looks
                })
            })
            .collect();
        let writers: Vec<_> = (0..2)
            .map(|writer| {
                scope.spawn(move || {
                    let mut client = Client::open(address);
                    let keys: Vec<String> = (0..KEYS).map(|key| format!("w{writer}:{key}")).collect();
                    for round in 1..=ROUNDS {
                        let number = round.to_string();
                        let sets: Vec<Vec<&str>> = keys.iter().map(|key| vec!["SET", key, &number]).collect();
                        client.send(&sets);
                        for _ in 0..KEYS {
                            client.reply();
                        }
                    }
                })
            })
            .collect();
        for writer in writers {
            writer.join().expect("it ends");
        }
        done.store(true, Ordering::Relaxed);
        observers.into_iter().map(|observer| observer.join().expect("it ends")).sum()
    });
    assert!(looks > 0, "nobody saw anything");
}

/// As many pairs of keys as make it sure that some are on one shard and most on two.
const PAIRS: usize = 12;

/// Waits until so many clients are blocked.
fn wait_for_blocked(client: &mut Client, count: usize) {
    let line = format!("blocked_clients:{count}\r\n");
    loop {
        let info = client.call(&["INFO", "clients"]);
        if info.text().is_some_and(|text| String::from_utf8_lossy(text).contains(&line)) {
            return;
        }
    }
}

fn requests(lines: &[String]) -> Vec<Vec<String>> {
    lines.iter().map(|line| line.split(' ').map(str::to_owned).collect()).collect()
}

/// Who brings an element to clients that wait for a move, by whatever command, finds it moved with its next command in
/// the same pipeline, all the way if somebody waits to move it on; and nobody ever sees it on its way.
#[test]
fn a_waiting_move_is_part_of_what_brings_its_element() {
    let server = Server::start(Kind::Damselfly { threads: 4 }, &[]).unwrap_or_else(|error| panic!("{error}"));
    let address = server.address();
    let now = AtomicUsize::new(0);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut observer = Client::open(address);
                while !done.load(Ordering::Relaxed) {
                    let round = now.load(Ordering::Relaxed);
                    let pair = round % PAIRS;
                    let looks = ["MULTI", &format!("LLEN s{pair}"), &format!("LLEN m{pair}"), "EXEC"];
                    observer.send(&requests(&looks.map(str::to_owned)));
                    let seen = (0..looks.len()).map(|_| observer.reply()).last();
                    let empty = Reply::Array(vec![Reply::Int(0), Reply::Int(0)]);
                    assert_eq!(seen, Some(empty), "an element on its way in round {round}");
                }
            });
        }
        let pusher = scope.spawn(|| {
            let mut pusher = Client::open(address);
            let mut movers = [Client::open(address), Client::open(address)];
            for round in 0..PAIRS * 42 {
                let pair = round % PAIRS;
                now.store(round, Ordering::Relaxed);
                // Over a key in the middle, or straight.
                let is_chain = round % 2 == 0;
                let ways: &[(char, char)] = if is_chain { &[('s', 'm'), ('m', 't')] } else { &[('s', 't')] };
                for (at, (from, to)) in ways.iter().enumerate() {
                    let line = format!("BLMOVE {from}{pair} {to}{pair} LEFT RIGHT 0");
                    movers[at].send(&requests(&[line]));
                    wait_for_blocked(&mut pusher, at + 1);
                }
                let deed: Vec<String> = match round / PAIRS % 7 {
                    0 => vec![format!("LPUSH s{pair} x")],
                    1 => vec!["MULTI".into(), format!("RPUSH s{pair} x"), "PING".into(), "EXEC".into()],
                    2 => vec![format!("EVAL return(redis.call('LPUSH',KEYS[1],'x')) 1 s{pair}")],
                    3 => vec![format!("EVAL return(redis.call('LPUSH','s{pair}','x')) 0")],
                    4 => vec![format!("RPUSH other{round} x"), format!("RENAME other{round} s{pair}")],
                    5 => {
                        vec![format!("RPUSH other{round} x"), format!("LMOVE other{round} s{pair} LEFT LEFT")]
                    }
                    _ => vec![format!("RPUSH o{round} x"), format!("SORT o{round} ALPHA STORE s{pair}")],
                };
                let looks = ["LRANGE s{} 0 -1", "LRANGE m{} 0 -1", "LRANGE t{} 0 -1", "DEL t{}"];
                let looks = looks.map(|line| line.replace("{}", &pair.to_string()));
                pusher.send(&requests(&[deed.as_slice(), &looks].concat()));
                deed.iter().for_each(|_| drop(pusher.reply()));
                let seen: Vec<Reply> = looks.iter().map(|_| pusher.reply()).collect();
                let moved = Reply::Array(vec![Reply::Bulk(b"x".to_vec())]);
                let none = Reply::Array(Vec::new());
                assert_eq!(seen, [none.clone(), none, moved, Reply::Int(1)], "{deed:?}, pair {pair}");
                for mover in &mut movers[..ways.len()] {
                    assert_eq!(mover.reply(), Reply::Bulk(b"x".to_vec()), "{deed:?}, pair {pair}");
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        // Whatever went wrong, the observers end.
        let ended = pusher.join();
        done.store(true, Ordering::Relaxed);
        ended.expect("the pusher sees what it should");
    });
}

/// Clients that wait for moves leave at any moment: none takes an element with it, and none leaves a key locked.
#[test]
fn movers_that_leave_take_nothing_with_them() {
    const MOVERS: usize = 6;
    const PUSHES: usize = 1500;
    let server = Server::start(Kind::Damselfly { threads: 4 }, &[]).unwrap_or_else(|error| panic!("{error}"));
    let address = server.address();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for mover in 0..MOVERS {
            let done = &done;
            scope.spawn(move || {
                // Elements that are brought to the first list wander to the last.
                let line = format!("BLMOVE l{} l{} LEFT RIGHT 0.01", mover % 3, mover % 3 + 1);
                let mut turn = mover;
                while !done.load(Ordering::Relaxed) {
                    let mut client = Client::open(address);
                    for _ in 0..turn % 4 {
                        client.send(&requests(std::slice::from_ref(&line)));
                        client.reply();
                    }
                    // Gone while it waits, or while it is served.
                    client.send(&requests(std::slice::from_ref(&line)));
                    turn += 1;
                }
            });
        }
        let mut pusher = Client::open(address);
        for number in 0..PUSHES {
            let line = match number % 3 {
                0 => format!("LPUSH l0 {number}"),
                1 => format!("RPUSH l1 {number}"),
                _ => format!("EVAL redis.call('RPUSH',KEYS[1],ARGV[1]) 1 l0 {number}"),
            };
            pusher.send(&requests(&[line]));
            pusher.reply();
        }
        done.store(true, Ordering::Relaxed);
    });
    let mut client = Client::open(address);
    wait_for_blocked(&mut client, 0);
    let left: i64 = (0..4)
        .map(|list| match client.call(&["LLEN", &format!("l{list}")]) {
            Reply::Int(len) => len,
            other => panic!("{other}"),
        })
        .sum();
    assert_eq!(left, PUSHES as i64);
    // As one operation, and as one that needs all shards.
    assert_eq!(client.call(&["DEL", "l0", "l1", "l2", "l3"]).text(), None);
    assert_eq!(client.call(&["FLUSHALL"]), Reply::Simple("OK".into()));
}
