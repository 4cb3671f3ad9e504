//! Finds commands that no script tests.
//!
//! Our own `COMMAND LIST` is the list. Each command must be a line of some script, with what it answers; and if it
//! takes keys, one line must show it a missing key (by convention one whose name begins with `missing`) and one a
//! key of the wrong type (expected: `!WRONGTYPE`). What cannot have such a line is listed here with the reason.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use damselfly_tests::executor::{Executor, Tcp};
use damselfly_tests::reply::{Protocol, Reply};
use damselfly_tests::script::{self, Action, Step};
use damselfly_tests::servers::{Kind, Server};

/// Commands for which a missing key is an ordinary key: it creates.
const CREATES: &str = "append bf.add bf.madd bf.reserve bf.insert bitfield cf.reserve cf.add cf.addnx cf.insert \
    cf.insertnx cl.throttle cms.initbydim cms.initbyprob decr decrby geoadd getset hincrby hincrbyfloat hmset hset \
    hsetex hsetnx incr incrby incrbyfloat json.set json.mset lpush mset msetnx pfadd pfmerge prepend psetex restore \
    rpush sadd saddex set setbit setex setnx setrange topk.reserve xadd zadd zincrby";

/// Commands that take a key of any type.
const ANY_TYPE: &str = "copy debug del dump exists expire expireat expiretime json.mget mget move mset msetnx object \
    object|encoding object|freq object|idletime object|refcount memory memory|usage persist pexpire pexpireat \
    pexpiretime psetex pttl rename renamenx restore set setex setnx shrink spublish ssubscribe stick sunsubscribe touch \
    ttl type unlink watch";

/// Commands that refuse other types with a text of their own.
const OTHER_ERROR: &str = "lcs migrate";

/// Commands that answer outside of a session: they end it, take it over, or belong to other test targets.
const NOT_IN_SESSIONS: &str =
    "monitor psync sync replconf dfly dflycluster dflymigrate shutdown|abort failover debug";

#[derive(Default)]
struct Seen {
    answered: bool,
    missing_key: bool,
    wrong_type: bool,
}

fn list(text: &str) -> BTreeSet<&str> {
    text.split_whitespace().collect()
}

/// What the scripts show of every command: `config` and `config|get` both, for `CONFIG GET`.
fn seen() -> BTreeMap<String, Seen> {
    let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
    for (name, parsed) in script::all() {
        let script = parsed.unwrap_or_else(|error| panic!("{name}: {error}"));
        for step in &script.steps {
            note(step, &mut seen);
        }
    }
    seen
}

fn note(step: &Step, seen: &mut BTreeMap<String, Seen>) {
    if step.command.is_empty() {
        return;
    }
    let words = script::words_of(step);
    let text =
        |at: usize| words.get(at).map(|word| String::from_utf8_lossy(&word.bytes).to_ascii_lowercase());
    let Some(name) = text(0) else { return };
    let arity_error =
        step.expect.as_deref().is_some_and(|expect| expect.contains("wrong number of arguments"));
    let answered = matches!(step.action, Action::Send)
        || (!arity_error && !step.expect.as_deref().is_some_and(|expect| expect.contains("unknown command")));
    let missing_key = answered && words.iter().skip(1).any(|word| word.bytes.starts_with(b"missing"));
    let wrong_type = step.expect.as_deref().is_some_and(|expect| expect.contains("WRONGTYPE"));
    let subcommand = text(1).map(|second| format!("{name}|{second}"));
    for name in [Some(name), subcommand].into_iter().flatten() {
        let entry = seen.entry(name).or_default();
        entry.answered |= answered;
        entry.missing_key |= missing_key;
        entry.wrong_type |= wrong_type;
    }
}

fn call(server: &mut Tcp, words: &[&str]) -> Reply {
    let request: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
    server.call("A", &request).unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

/// Every command of our table is in a script, with a missing key and a wrong type.
#[test]
fn every_command_has_its_lines() {
    let process =
        Server::start(Kind::Damselfly { threads: 1 }, &[]).unwrap_or_else(|error| panic!("{error}"));
    let mut server = Tcp::new(process.address(), Protocol::Resp2);
    let seen = seen();
    let (creates, any_type, other_error) = (list(CREATES), list(ANY_TYPE), list(OTHER_ERROR));
    let not_in_sessions = list(NOT_IN_SESSIONS);
    let Reply::Array(names) = call(&mut server, &["COMMAND", "LIST"]) else { panic!("COMMAND LIST") };
    let mut lacking = Vec::new();
    for name in names.iter().filter_map(Reply::text) {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        if not_in_sessions.contains(name.as_str()) {
            continue;
        }
        let found = seen.get(&name);
        if !found.is_some_and(|found| found.answered) {
            lacking.push(format!("{name}: in no script"));
            continue;
        }
        if !takes_keys(&mut server, &name) {
            continue;
        }
        if !found.is_some_and(|found| found.missing_key) && !creates.contains(name.as_str()) {
            lacking.push(format!("{name}: no line with a missing key"));
        }
        let any = any_type.contains(name.as_str()) || other_error.contains(name.as_str());
        if !found.is_some_and(|found| found.wrong_type) && !any {
            lacking.push(format!("{name}: no line with a key of the wrong type"));
        }
    }
    assert!(lacking.is_empty(), "{} lines are lacking:\n{}", lacking.len(), lacking.join("\n"));
}

/// The first key's position in COMMAND INFO, or the flag of those whose keys move.
fn takes_keys(server: &mut Tcp, name: &str) -> bool {
    let Reply::Array(infos) = call(server, &["COMMAND", "INFO", name]) else { panic!("COMMAND INFO {name}") };
    let Some(info) = infos.first().and_then(Reply::elements) else { panic!("COMMAND INFO {name}: no array") };
    let movable =
        info[2].elements().is_some_and(|flags| flags.iter().any(|flag| flag.text() == Some(b"movablekeys")));
    movable || !matches!(info[3], Reply::Int(0))
}

/// Whoever says `@differs` says why, and the operator can read it.
#[test]
fn differences_are_documented() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/compatibility.md");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    // The document may wrap its lines anywhere.
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut lacking = BTreeSet::new();
    for (_, parsed) in script::all() {
        for step in parsed.iter().flat_map(|script| &script.steps) {
            lacking.extend(step.differs.clone().filter(|reason| !text.contains(reason.as_str())));
        }
    }
    assert!(lacking.is_empty(), "not in docs/compatibility.md: {lacking:#?}");
}
