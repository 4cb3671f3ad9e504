//! Commands of one pipeline on different shards: whoever sees the effect of one of them sees those before it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use damselfly_tests::client::Client;
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
