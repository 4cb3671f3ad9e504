//! Runs every file of `commands/` on Redis and on our server: a trial is `GROUP/FILE.script::EXECUTOR.PROTOCOL`.
//!
//! Executors: `redis` (is what the script says true?), `1-thread` and `4-threads` (do we answer the same?). The two
//! protocols run side by side, each with its own three servers, which are started when the first trial needs them.
//! Arguments are those of libtest that cargo and nextest use: filters (any part of a name), `--exact`, `--list`,
//! `--skip`. `cargo test --test scripts -- ::redis` checks scripts without having a server of our own.
//!
//! Scripts of groups that our server lacks run on `redis` alone, which shows that they are right; see `served.rs`.

use std::collections::BTreeMap;
use std::env;
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use damselfly_tests::executor::Tcp;
use damselfly_tests::reply::Protocol;
use damselfly_tests::run::{self, Recording, Role};
use damselfly_tests::script::{self, Script, Who};
use damselfly_tests::served::Lacking;
use damselfly_tests::servers::{Kind, Server};

const KINDS: [Kind; 3] = [Kind::Redis, Kind::Damselfly { threads: 1 }, Kind::Damselfly { threads: 4 }];
const PROTOCOLS: [Protocol; 2] = [Protocol::Resp2, Protocol::Resp3];

struct Trial {
    name: String,
    script: usize,
    kind: Kind,
    protocol: Protocol,
}

fn main() -> ExitCode {
    let choice = Choice::from_arguments();
    let scripts = script::all();
    let lacking = match lacking(&choice, &scripts) {
        Ok(lacking) => lacking,
        Err(error) => {
            println!("\n{error}");
            return ExitCode::FAILURE;
        }
    };
    let cuts: Vec<Option<(Script, usize)>> =
        scripts.iter().map(|(_, parsed)| parsed.as_ref().ok().map(|script| lacking.cut(script))).collect();
    let mut trials = Vec::new();
    for (at, (name, parsed)) in scripts.iter().enumerate() {
        let ours_only = parsed.as_ref().is_ok_and(|script| script.ours);
        let oracle_only = cuts[at]
            .as_ref()
            .is_some_and(|(script, _)| script.steps.iter().all(|step| step.who == Who::Oracle));
        for (protocol, kind) in PROTOCOLS.iter().flat_map(|protocol| KINDS.map(|kind| (*protocol, kind))) {
            let name = name_of(name, kind, protocol);
            let has_lines = if kind == Kind::Redis { !ours_only } else { !oracle_only };
            if has_lines && choice.takes(&name) {
                trials.push(Trial { name, script: at, kind, protocol });
            }
        }
    }
    if choice.list {
        for trial in &trials {
            println!("{}: test", trial.name);
        }
        return ExitCode::SUCCESS;
    }

    println!("\nrunning {} trials", trials.len());
    if lacking.names().next().is_some() {
        let names: Vec<&str> = lacking.names().collect();
        let mixed =
            || cuts.iter().flatten().filter(|(script, left_out)| (1..script.steps.len()).contains(left_out));
        println!(
            "not served yet, so played on redis alone: {}, and {} lines of {} other scripts",
            names.join(", "),
            mixed().map(|(_, left_out)| left_out).sum::<usize>(),
            mixed().count()
        );
    }
    let start = Instant::now();
    let failures = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for protocol in PROTOCOLS {
            let (trials, scripts, cuts, failures) = (&trials, &scripts, &cuts, &failures);
            scope.spawn(move || {
                let mut lane = Lane { protocol, servers: BTreeMap::new(), oracle: None };
                for trial in trials.iter().filter(|trial| trial.protocol == protocol) {
                    let failed = match (&scripts[trial.script].1, &cuts[trial.script]) {
                        (Ok(script), Some((cut, _))) => {
                            lane.run(trial, script, cut).unwrap_or_else(|error| vec![error])
                        }
                        (Err(error), _) => vec![error.clone()],
                        (Ok(_), None) => unreachable!("what parses is cut"),
                    };
                    println!("test {} ... {}", trial.name, if failed.is_empty() { "ok" } else { "FAILED" });
                    if !failed.is_empty() {
                        failures.lock().expect("no lane panics").push((trial.name.clone(), failed));
                    }
                }
            });
        }
    });

    let mut failures = failures.into_inner().expect("no lane panics");
    failures.sort();
    for (name, failed) in &failures {
        println!("\n---- {name} ----\n{}", failed.join("\n"));
    }
    let (passed, failed) = (trials.len() - failures.len(), failures.len());
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {} filtered out; \
         finished in {:.2}s\n",
        choice.left_out.get(),
        start.elapsed().as_secs_f64()
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn name_of(script: &str, kind: Kind, protocol: Protocol) -> String {
    format!("{script}::{}.{protocol}", kind.name())
}

/// What our server lacks. Nothing, if no trial of ours is wanted: then there need not be one.
fn lacking(choice: &Choice, scripts: &[(String, Result<Script, String>)]) -> Result<Lacking, String> {
    let wanted = |(name, _): &(String, _)| {
        PROTOCOLS
            .iter()
            .any(|protocol| KINDS[1..].iter().any(|kind| choice.fits(&name_of(name, *kind, *protocol))))
    };
    if !scripts.iter().any(wanted) {
        return Ok(Lacking::default());
    }
    let server = Server::start(KINDS[1], &[])?;
    Lacking::of(&mut Tcp::new(server.address(), Protocol::Resp2))
}

/// The trials of one protocol, one after the other, on servers of their own.
struct Lane {
    protocol: Protocol,
    servers: BTreeMap<String, Server>,
    /// The last script that the oracle has played, and what it said: our executors come right after it.
    oracle: Option<(usize, Recording)>,
}

impl Lane {
    /// `cut` is the script without the lines that our server cannot run yet.
    fn run(&mut self, trial: &Trial, script: &Script, cut: &Script) -> Result<Vec<String>, String> {
        if !script.ours && self.oracle.as_ref().is_none_or(|(at, _)| *at != trial.script) {
            let recording = self.play(Kind::Redis, script, Role::Oracle)?;
            self.oracle = Some((trial.script, recording));
        }
        if trial.kind == Kind::Redis {
            let (_, recording) = self.oracle.as_ref().ok_or("the oracle runs no @ours script")?;
            return Ok(run::judge_oracle(script, recording));
        }
        let ours = self.play(trial.kind, cut, Role::Ours)?;
        let oracle = self.oracle.as_ref().filter(|_| !script.ours).map(|(_, recording)| recording);
        Ok(run::judge_ours(cut, &ours, oracle))
    }

    fn play(&mut self, kind: Kind, script: &Script, role: Role) -> Result<Recording, String> {
        // A server that crashes is not put back, so that one crash fails one trial.
        let mut server = match self.servers.remove(&kind.name()) {
            Some(server) => server,
            None => Server::start(kind, &[])?,
        };
        let result = run::play(script, &mut Tcp::new(server.address(), self.protocol), role, self.protocol);
        if result.is_ok() && server.is_alive() {
            self.servers.insert(kind.name(), server);
            return result;
        }
        let error = result.err().unwrap_or_else(|| "the server ended while the script ran".to_owned());
        Err(format!("{}: {error}\n{}", kind.name(), server.log()))
    }
}

/// What the command line asks for.
struct Choice {
    list: bool,
    exact: bool,
    filters: Vec<String>,
    skips: Vec<String>,
    left_out: std::cell::Cell<usize>,
}

impl Choice {
    fn from_arguments() -> Self {
        let mut choice = Self {
            list: false,
            exact: false,
            filters: Vec::new(),
            skips: Vec::new(),
            left_out: std::cell::Cell::new(0),
        };
        let mut arguments = env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--list" => choice.list = true,
                "--exact" => choice.exact = true,
                // nextest lists ignored tests separately; there are none.
                "--ignored" => choice.filters.push("\0".to_owned()),
                "--skip" => choice.skips.extend(arguments.next()),
                "--format" | "--color" | "--test-threads" | "-Z" => drop(arguments.next()),
                flag if flag.starts_with('-') => {}
                filter => choice.filters.push(filter.to_owned()),
            }
        }
        choice
    }

    fn takes(&self, name: &str) -> bool {
        let taken = self.fits(name);
        if !taken {
            self.left_out.set(self.left_out.get() + 1);
        }
        taken
    }

    fn fits(&self, name: &str) -> bool {
        let fits = |filter: &String| if self.exact { name == filter } else { name.contains(filter.as_str()) };
        (self.filters.is_empty() || self.filters.iter().any(fits)) && !self.skips.iter().any(fits)
    }
}
