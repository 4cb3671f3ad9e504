//! Several clients at once over four shards: whatever they see could have happened one command after the other.
//!
//! Short histories of random commands with several keys, transactions, guarded transactions and scripts are recorded
//! and searched for an order that explains all replies. `DAMSELFLY_SEED` starts another series, `DAMSELFLY_HISTORIES` and
//! `DAMSELFLY_TRANSFERS` make it longer.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use damselfly_tests::client::Client;
use damselfly_tests::history::{Operation, Step, is_linearisable};
use damselfly_tests::random::{Random, setting};
use damselfly_tests::reply::Reply;
use damselfly_tests::servers::{Kind, Server};

/// Histories of one run.
const HISTORIES: u64 = 3_000;
const CLIENTS: usize = 4;
/// Bursts per client and history, and steps sent at once in a burst.
const BURSTS: usize = 4;
const BURST_LEN_MAX: u64 = 3;

/// Transfers per client of the bank.
const TRANSFERS: u64 = 1_500;
const ACCOUNTS: usize = 8;
const BALANCE: i64 = 1_000;

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

/// Where clients wait for each other. Unlike a barrier it lets nobody wait for one that has failed.
#[derive(Default)]
struct Gate {
    arrived: AtomicU64,
    failed: AtomicBool,
}

impl Gate {
    /// Waits until all have come as often as this one.
    fn wait(&self, round: u64) {
        self.arrived.fetch_add(1, Ordering::SeqCst);
        while self.arrived.load(Ordering::SeqCst) < CLIENTS as u64 * (round + 1) {
            assert!(!self.failed.load(Ordering::SeqCst), "another client has failed");
            thread::yield_now();
        }
    }
}

/// Tells the others when its client fails.
struct Alarm<'a>(&'a Gate);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.failed.store(true, Ordering::SeqCst);
        }
    }
}

/// How a step is sent.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Plain,
    /// Between MULTI and EXEC.
    Transaction,
    /// By a script that declares no key.
    Script,
    /// By a script that declares its first key.
    ScriptOfKey,
    /// Reads first, under WATCH, then writes between MULTI and EXEC. The step is the read and the write.
    Guarded,
}

/// Makes steps over a handful of keys, named after the history so that each starts from nothing.
struct Steps {
    random: Random,
    history: u64,
    value: u64,
}

impl Steps {
    fn key(&mut self, class: char, count: u64) -> String {
        format!("h{}:{class}{}", self.history, self.random.below(count))
    }

    /// Two different keys of a class.
    fn two(&mut self, class: char, count: u64) -> (String, String) {
        let one = self.random.below(count);
        let other = (one + 1 + self.random.below(count - 1)) % count;
        (format!("h{}:{class}{one}", self.history), format!("h{}:{class}{other}", self.history))
    }

    /// A value that no other command of the history writes.
    fn fresh(&mut self) -> u64 {
        self.value += 1;
        self.value
    }

    fn command(&mut self) -> Vec<String> {
        let value = self.fresh();
        let (s, (s1, s2)) = (self.key('s', 3), self.two('s', 3));
        let (l, (l1, l2)) = (self.key('l', 2), self.two('l', 2));
        let (t, (t1, t2)) = (self.key('t', 3), self.two('t', 3));
        let member = ["x", "y"][self.random.below(2) as usize];
        words(&match self.random.below(24) {
            0 => format!("SET {s} {value}"),
            1 => format!("GET {s}"),
            2 => format!("GETSET {s} {value}"),
            3 => format!("INCRBY {s} {value}"),
            4 | 5 => format!("MSET {s1} {value} {s2} {value}"),
            6 => format!("MSETNX {s1} {value} {s2} {value}"),
            7..=9 => format!("MGET {s1} {s2} {l}"),
            10 => format!("DEL {s1} {s2}"),
            11 => format!("EXISTS {s} {l} {t}"),
            12 => format!("RENAME {s1} {s2}"),
            13 => format!("COPY {s1} {s2} REPLACE"),
            14 => format!("RPUSH {l} {value}"),
            15 => format!("LRANGE {l} 0 -1"),
            16 => format!("LPOP {l}"),
            17 => format!("LMOVE {l1} {l2} RIGHT LEFT"),
            18 => format!("SADD {t} {member}"),
            19 => format!("SMOVE {t1} {t2} {member}"),
            20 => format!("SMEMBERS {t}"),
            21 => format!("SUNION {t1} {t2}"),
            22 => format!("SINTERSTORE {t} {t1} {t2}"),
            _ => format!("SUNIONSTORE {t} {t1} {t2}"),
        })
    }

    fn step(&mut self) -> (Way, Step) {
        match self.random.below(10) {
            0..=5 => (Way::Plain, vec![self.command()]),
            kind @ 6..=8 => {
                let count = 2 + self.random.below(3);
                let way = [Way::Transaction, Way::Script, Way::ScriptOfKey][kind as usize - 6];
                (way, (0..count).map(|_| self.command()).collect())
            }
            _ => {
                let (s1, s2) = self.two('s', 3);
                let value = self.fresh();
                let read = words(&format!("MGET {s1} {s2}"));
                (Way::Guarded, vec![read, words(&format!("MSET {s1} {value} {s2} {value}"))])
            }
        }
    }

    /// What a client does: bursts of steps.
    fn plan(&mut self) -> Vec<Vec<(Way, Step)>> {
        (0..BURSTS)
            .map(|_| {
                let (way, step) = self.step();
                if way == Way::Guarded {
                    return vec![(way, step)];
                }
                let more = (0..self.random.below(BURST_LEN_MAX)).map(|_| self.step());
                let more: Vec<_> = more.filter(|(way, _)| *way != Way::Guarded).collect();
                [vec![(way, step)], more].concat()
            })
            .collect()
    }
}

/// A reply as the model writes it.
fn flat(command: &[String], reply: &Reply) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match reply {
        Reply::Int(number) => number.to_string(),
        Reply::Error(message) => text(message).split(' ').next().unwrap_or_default().to_owned(),
        Reply::Array(elements) => {
            let mut parts: Vec<String> = elements.iter().map(|element| flat(&[], element)).collect();
            if is_set(command) {
                parts.sort();
            }
            format!("[{}]", parts.join(" "))
        }
        other if other.is_null() => "nil".to_owned(),
        other => text(other.text().expect("text")),
    }
}

fn flat_all(step: &[Vec<String>], replies: &[Reply]) -> Vec<String> {
    assert_eq!(step.len(), replies.len(), "{step:?}: {replies:?}");
    step.iter().zip(replies).map(|(command, reply)| flat(command, reply)).collect()
}

/// Runs the commands that it is given, each as its number of words and the words, and answers all replies. Status
/// and error are their first words.
const RUN_ALL: &str = "local at, replies = 1, {} while at <= #ARGV do local words = {} for i = 1, ARGV[at] do \
    words[i] = ARGV[at + i] end at = at + #words + 1 local reply = redis.pcall(unpack(words)) \
    if type(reply) == 'table' and (reply.ok or reply.err) then reply = string.match(reply.ok or reply.err, '^%S+') end \
    replies[#replies + 1] = cjson.encode(reply) end return replies";

/// What is sent for a step.
fn requests(way: Way, step: &Step) -> Vec<Vec<String>> {
    let keys = match way {
        Way::Plain => return step.clone(),
        Way::Transaction | Way::Guarded => {
            return [vec![words("MULTI")], step.clone(), vec![words("EXEC")]].concat();
        }
        Way::Script => vec![],
        Way::ScriptOfKey => vec![step[0][1].clone()],
    };
    let mut request = vec!["EVAL".to_owned(), RUN_ALL.to_owned(), keys.len().to_string()];
    request.extend(keys);
    for command in step {
        request.push(command.len().to_string());
        request.extend(command.iter().cloned());
    }
    vec![request]
}

/// A reply of [`RUN_ALL`] as the model writes it. No value of a history has a character that JSON would change.
fn flat_json(command: &[String], reply: &Reply) -> String {
    let text = String::from_utf8_lossy(reply.text().expect("text")).into_owned();
    let word = |part: &str| match part {
        "false" => "nil".to_owned(),
        part => part.trim_matches('"').to_owned(),
    };
    if let Some(inner) = text.strip_prefix('[') {
        let inner = inner.trim_end_matches(']');
        let mut parts: Vec<String> = inner.split(',').filter(|part| !part.is_empty()).map(word).collect();
        if is_set(command) {
            parts.sort();
        }
        return format!("[{}]", parts.join(" "));
    }
    // An empty table is an object to JSON.
    if text == "{}" { "[]".to_owned() } else { word(&text) }
}

fn is_set(command: &[String]) -> bool {
    command.first().is_some_and(|name| matches!(name.as_str(), "SMEMBERS" | "SUNION"))
}

/// Reads what comes back for it.
fn replies(client: &mut Client, way: Way, step: &Step) -> Option<Vec<String>> {
    if way == Way::Plain {
        let reply = client.reply();
        return Some(flat_all(step, &[reply]));
    }
    if matches!(way, Way::Script | Way::ScriptOfKey) {
        let reply = client.reply();
        let parts = reply.elements().unwrap_or_else(|| panic!("{step:?}: {reply}"));
        return Some(step.iter().zip(parts).map(|(command, part)| flat_json(command, part)).collect());
    }
    for _ in 0..=step.len() {
        let queued = client.reply();
        assert!(!matches!(queued, Reply::Error(_)), "{step:?}: {queued}");
    }
    let reply = client.reply();
    if reply.is_null() {
        return None;
    }
    Some(flat_all(step, reply.elements().unwrap_or_else(|| panic!("{step:?}: {reply}"))))
}

/// Plays a plan; what happened.
fn play(number: usize, client: &mut Client, plan: &[Vec<(Way, Step)>], clock: Instant) -> Vec<Operation> {
    let now = || clock.elapsed().as_nanos() as u64;
    let mut done = Vec::new();
    for burst in plan {
        if let [(Way::Guarded, step)] = burst.as_slice() {
            let watched: Vec<&str> = step[0][1..].iter().map(String::as_str).collect();
            client.call(&[&["WATCH"][..], &watched].concat());
            let began = now();
            let read = client.call(&step[0]);
            let seen = now();
            let write = vec![step[1].clone()];
            client.send(&requests(Way::Transaction, &write));
            let written = replies(client, Way::Transaction, &write);
            let read = flat(&step[0], &read);
            let operation = |step: Step, replies, ended| Operation {
                client: number,
                step,
                replies: Some(replies),
                began,
                ended,
                pipelined: false,
            };
            done.push(match written {
                Some(written) => operation(step.clone(), [vec![read], written].concat(), now()),
                None => operation(vec![step[0].clone()], vec![read], seen),
            });
            continue;
        }
        let began = now();
        client.send(&burst.iter().flat_map(|(way, step)| requests(*way, step)).collect::<Vec<_>>());
        for (at, (way, step)) in burst.iter().enumerate() {
            let replies = replies(client, *way, step);
            assert!(replies.is_some(), "nothing is watched");
            let step = step.clone();
            done.push(Operation { client: number, step, replies, began, ended: now(), pipelined: at > 0 });
        }
    }
    done
}

#[test]
fn histories_are_linearisable() {
    search_histories(setting("DAMSELFLY_HISTORIES", HISTORIES), &[]);
}

/// The same with all set algebra done in steps, as if the sets were big.
#[test]
fn histories_in_steps_are_linearisable() {
    search_histories(setting("DAMSELFLY_HISTORIES", HISTORIES) / 2, &["DEBUG", "AT-ONCE-MAX", "0"]);
}

fn search_histories(histories: u64, preparation: &[&str]) {
    let server = Server::start(Kind::Damselfly { threads: 4 }, &[]).unwrap_or_else(|error| panic!("{error}"));
    let address = server.address();
    if !preparation.is_empty() {
        assert_eq!(Client::open(address).call(preparation), Reply::Simple(b"OK".to_vec()));
    }
    let seed = setting("DAMSELFLY_SEED", 1);
    println!("seed {seed}, {histories} histories");
    let (start, clock) = (Gate::default(), Instant::now());
    let played: Vec<Vec<Vec<Operation>>> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let start = &start;
                scope.spawn(move || {
                    let _alarm = Alarm(start);
                    let mut client = Client::open(address);
                    (0..histories)
                        .map(|history| {
                            let random = Random::new(seed << 32 | history << 4 | number as u64);
                            let mut steps = Steps { random, history, value: number as u64 * 1000 };
                            let plan = steps.plan();
                            start.wait(history);
                            play(number, &mut client, &plan, clock)
                        })
                        .collect()
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().expect("it plays")).collect()
    });
    let mut overlapping = 0;
    for history in 0..histories as usize {
        let operations: Vec<Operation> =
            played.iter().flat_map(|of_client| of_client[history].iter().cloned()).collect();
        overlapping += u64::from(operations.iter().any(|one| {
            operations
                .iter()
                .any(|other| one.client != other.client && one.began < other.ended && other.began < one.ended)
        }));
        if !is_linearisable(&operations) {
            let mut lines = String::new();
            for operation in &operations {
                lines += &format!(
                    "\n{:>12} {:>12} client {}{} {:?} -> {:?}",
                    operation.began,
                    operation.ended,
                    operation.client,
                    if operation.pipelined { " +" } else { "" },
                    operation.step.iter().map(|command| command.join(" ")).collect::<Vec<_>>(),
                    operation.replies
                );
            }
            panic!("history {history} of seed {seed} has no order:{lines}");
        }
    }
    // If the clients never met, the test would prove nothing.
    assert!(
        overlapping * 2 > histories,
        "only {overlapping} of {histories} histories have overlapping steps"
    );
}

/// Money moves between accounts on all shards, in four ways, and there is always the same amount of it.
#[test]
fn a_bank_loses_nothing() {
    let server = Server::start(Kind::Damselfly { threads: 4 }, &[]).unwrap_or_else(|error| panic!("{error}"));
    let address = server.address();
    let seed = setting("DAMSELFLY_SEED", 1);
    let transfers = setting("DAMSELFLY_TRANSFERS", TRANSFERS);
    let accounts: Vec<String> = (0..ACCOUNTS).map(|number| format!("account:{number}")).collect();
    let mut client = Client::open(address);
    for account in &accounts {
        client.call(&["SET", account, &BALANCE.to_string()]);
    }
    let done = AtomicBool::new(false);
    let audits: u64 = thread::scope(|scope| {
        let tellers: Vec<_> = (0..3)
            .map(|teller| {
                let accounts = &accounts;
                scope.spawn(move || {
                    let random = Random::new(seed << 8 | teller);
                    move_money(&mut Client::open(address), random, accounts, transfers);
                })
            })
            .collect();
        let auditors: Vec<_> = (0..2)
            .map(|auditor| {
                let (accounts, done) = (&accounts, &done);
                scope.spawn(move || audit(&mut Client::open(address), auditor == 0, accounts, done))
            })
            .collect();
        let stop = Stop(&done);
        for teller in tellers {
            teller.join().expect("it ends");
        }
        drop(stop);
        auditors.into_iter().map(|auditor| auditor.join().expect("it ends")).sum()
    });
    assert!(audits > 10, "only {audits} audits");
}

/// Ends the audits, also when a teller has failed.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Transfers between random accounts.
fn move_money(client: &mut Client, mut random: Random, accounts: &[String], transfers: u64) {
    for _ in 0..transfers {
        let from = random.below(ACCOUNTS as u64) as usize;
        let to = (from + 1 + random.below(ACCOUNTS as u64 - 1) as usize) % ACCOUNTS;
        let (from, to) = (accounts[from].as_str(), accounts[to].as_str());
        let amount = (1 + random.below(9)).to_string();
        let way = random.below(4);
        if way == 0 {
            let script =
                "redis.call('DECRBY', ARGV[1], ARGV[3]) redis.call('INCRBY', ARGV[2], ARGV[3]) return 1";
            let reply = client.call(&["EVAL", script, "0", from, to, &amount]);
            assert_eq!(reply, Reply::Int(1));
            continue;
        }
        if way < 3 {
            client.send(&[
                vec!["MULTI"],
                vec!["DECRBY", from, &amount],
                vec!["INCRBY", to, &amount],
                vec!["EXEC"],
            ]);
            for _ in 0..3 {
                client.reply();
            }
            assert_eq!(client.reply().elements().map(<[Reply]>::len), Some(2));
            continue;
        }
        // Read, reckon, and write unless somebody was faster.
        loop {
            client.call(&["WATCH", from, to]);
            let balances = numbers(&client.call(&["MGET", from, to]));
            let amount: i64 = amount.parse().expect("a number");
            let (less, more) = ((balances[0] - amount).to_string(), (balances[1] + amount).to_string());
            client.send(&[vec!["MULTI"], vec!["MSET", from, &less, to, &more], vec!["EXEC"]]);
            client.reply();
            client.reply();
            if !client.reply().is_null() {
                break;
            }
        }
    }
}

/// Adds up all accounts again and again, with one command or with a transaction of many.
fn audit(client: &mut Client, with_one: bool, accounts: &[String], done: &AtomicBool) -> u64 {
    let mut audits = 0;
    while !done.load(Ordering::Relaxed) {
        let balances = if with_one {
            let names = accounts.iter().map(String::as_str);
            numbers(&client.call(&["MGET"].into_iter().chain(names).collect::<Vec<&str>>()))
        } else {
            let gets = accounts.iter().map(|account| vec!["GET", account.as_str()]);
            client.send(
                &[vec!["MULTI"]].into_iter().chain(gets).chain([vec!["EXEC"]]).collect::<Vec<Vec<&str>>>(),
            );
            for _ in 0..=accounts.len() {
                client.reply();
            }
            numbers(&client.reply())
        };
        assert_eq!(balances.iter().sum::<i64>(), BALANCE * ACCOUNTS as i64, "{balances:?}");
        audits += 1;
    }
    audits
}

fn numbers(reply: &Reply) -> Vec<i64> {
    let elements = reply.elements().unwrap_or_else(|| panic!("{reply}"));
    elements
        .iter()
        .map(|element| {
            let text = element.text().unwrap_or_else(|| panic!("{element}"));
            String::from_utf8_lossy(text).parse().expect("a number")
        })
        .collect()
}
