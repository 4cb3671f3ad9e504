//! The scripts of `commands/` on a bare shard: the same lines without threads, sockets and a wall clock, so that a
//! failure here is the handler's, and one that is only in `scripts` is the server's.
//!
//! Lines that need a server are left out and counted. Behind one that would have changed something, a script's rest is
//! left out with it.

use std::collections::BTreeMap;

use damselfly_tests::bare::{Bare, NEEDS_SERVER};
use damselfly_tests::reply::Protocol;
use damselfly_tests::run::{self, Role};
use damselfly_tests::script::{self, Action, Who};
use damselfly_tests::served::Lacking;

/// Commands of the server that change nothing a later line could see.
const HARMLESS: &[&str] = &[
    "CLIENT",
    "COMMAND",
    "DBSIZE",
    "ECHO",
    "INFO",
    "KEYS",
    "LATENCY",
    "LOLWUT",
    "MEMORY",
    "OBJECT",
    "PING",
    "RANDOMKEY",
    "ROLE",
    "SCAN",
    "SLOWLOG",
    "TIME",
    "WAIT",
];

#[test]
fn scripts_on_a_bare_shard() {
    let (mut played, mut failures, mut left_out) = (0, Vec::new(), BTreeMap::<String, usize>::new());
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        let mut bare = Bare::new(protocol);
        let lacking = Lacking::of(&mut bare).expect("a list of commands");
        for (name, parsed) in script::all() {
            let script = parsed.unwrap_or_else(|error| panic!("{error}"));
            let (cut, _) = lacking.cut(&script);
            let recording =
                run::play(&cut, &mut bare, Role::Ours, protocol).expect("a shard is always there");
            bare.check();
            for (step, outcome) in cut.steps.iter().zip(&recording) {
                let Some(outcome) = outcome else {
                    // A line for another protocol or for the oracle is nobody's loss.
                    assert!(step.who == Who::Oracle || step.only.is_some());
                    continue;
                };
                match (&outcome.result, &outcome.expect) {
                    (Err(error), _) if error.contains(NEEDS_SERVER) => {
                        let command = step.command.split_whitespace().next().unwrap_or("(directive)");
                        let command = command.to_ascii_uppercase();
                        let ends = !HARMLESS.contains(&command.as_str())
                            || matches!(step.action, Action::Let { .. });
                        *left_out.entry(command).or_default() += 1;
                        if ends {
                            break;
                        }
                    }
                    (Err(error), _) => failures.push(format!("{name}:{}: {error}", step.line)),
                    (Ok(Some(reply)), Some(expect)) if !expect.matches(reply) => {
                        failures.push(format!("{name}:{}: {} -> {reply}", step.line, outcome.command));
                    }
                    _ => played += 1,
                }
            }
        }
    }
    println!("{played} lines played; left out for want of a server: {left_out:?}");
    assert!(failures.is_empty(), "{}\n{} lines", failures.join("\n"), failures.len());
    assert!(played > 5000, "only {played} lines were played");
}
