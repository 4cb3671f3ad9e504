//! The comparison itself, run small: one row of each kind. Redis against Redis shows that the tool works; our server,
//! where it has been built, shows that the tool can drive it. Figures of so small a run mean nothing and are not
//! looked at. Without Redis on the machine there is nothing to compare with, and the tests say so and pass.

use damselfly_benches::benchmark;
use damselfly_benches::drive::Setting;
use damselfly_benches::report::{self, Circumstances};
use damselfly_benches::rows::Sizes;
use damselfly_benches::run::Plan;
use damselfly_benches::server::Contestant;
use std::path::Path;

const REDIS: &str = "redis-server";
const REDIS_BENCHMARK: &str = "redis-benchmark";

fn plan(ours: Contestant, only: &[&str]) -> Option<Plan> {
    let reference = Contestant::redis("redis", REDIS);
    if reference.check_program().is_err() || benchmark::version(REDIS_BENCHMARK).is_err() {
        eprintln!("skipped: {REDIS} and {REDIS_BENCHMARK} are needed");
        return None;
    }
    Some(Plan {
        reference,
        others: vec![ours],
        only: only.iter().map(|part| part.to_lowercase()).collect(),
        rounds: Some(1),
        setting: Setting { redis_benchmark: REDIS_BENCHMARK.to_owned(), sizes: Sizes { quick: true } },
    })
}

const ONE_OF_EACH_KIND: &[&str] =
    &["GET P32, 2", "EVALSHA", "MULTI", "PUBLISH", "integers", "growing", "during HGETALL", "during DEL"];

/// Every kind of row gives a finite ratio, and the reports hold all of them.
#[test]
fn redis_against_itself() {
    let Some(plan) = plan(Contestant::ours(REDIS, &[]), ONE_OF_EACH_KIND) else { return };
    let outcomes = plan.run(&mut |_| {});
    assert!(outcomes.len() >= ONE_OF_EACH_KIND.len());
    for outcome in &outcomes {
        assert!(outcome.ratios(0).is_some(), "{}: {:?}", outcome.row.name, outcome.others);
    }
    let circumstances = Circumstances::gather(&plan, "smoke");
    let (markdown, json) =
        (report::markdown(&plan, &circumstances, &outcomes), report::json(&plan, &circumstances, &outcomes));
    for outcome in &outcomes {
        assert!(markdown.contains(outcome.row.name) && json.contains(outcome.row.name));
    }
}

/// A server that lacks a command has "not yet" in that row, from redis-benchmark as from our own client, and the
/// other rows go on.
#[test]
fn absent_commands_do_not_stop_the_run() {
    let without: Vec<String> =
        ["--rename-command", "LPUSH", "", "--rename-command", "MULTI", ""].map(str::to_owned).to_vec();
    let Some(plan) = plan(Contestant::ours(REDIS, &without), &["LPUSH", "MULTI", "INCR"]) else { return };
    let outcomes = plan.run(&mut |_| {});
    let lines: Vec<String> = outcomes.iter().map(|outcome| report::line(outcome, true)).collect();
    assert_eq!(outcomes.len(), 3);
    assert!(!outcomes.iter().any(|outcome| outcome.broken()), "{lines:?}");
    let absent = lines.iter().filter(|line| line.ends_with("not yet")).count();
    assert_eq!(absent, 2, "{lines:?}");
}

/// A server that cannot start is a failure with its last words, not a hang and not a panic.
#[test]
fn a_server_that_does_not_start_is_explained() {
    let wrong = vec!["--no-such-flag".to_owned()];
    let Some(plan) = plan(Contestant::ours(REDIS, &wrong), &["INCR"]) else { return };
    let outcomes = plan.run(&mut |_| {});
    assert!(outcomes[0].broken());
    let text = outcomes[0].others[0].as_ref().unwrap_err().to_string();
    assert!(text.contains("ended at start") && text.contains("last words"), "{text}");
}

/// Our own server, if a release build of it lies where `make bench` would take it from: rows may be "not yet".
#[test]
fn our_server() {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release/damselfly");
    if !ours.exists() {
        eprintln!("skipped: {} has not been built", ours.display());
        return;
    }
    let ours = Contestant::ours(&ours.to_string_lossy(), &[]);
    let Some(plan) = plan(ours, ONE_OF_EACH_KIND) else { return };
    for outcome in plan.run(&mut |_| {}) {
        assert!(!outcome.broken(), "{}: {:?}", outcome.row.name, outcome.others);
    }
}
