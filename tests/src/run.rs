//! One script on several executors, and the comparison.
//!
//! [`play`] runs a script and notes what each line answered. [`judge`] then looks at one recording, or at ours
//! beside the oracle's: a reply must satisfy the written expectation, and, unless the line is `@ours` or `@differs`,
//! be the oracle's in everything that the expectation leaves definite. All failures of a file are reported, because
//! the second one often explains the first.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::executor::Executor;
use crate::expect::{self, Expect};
use crate::lex::Lexer;
use crate::reply::{self, Protocol, Reply};
use crate::script::{Action, Script, Step, Who};

/// Rounds after which `scan-all` gives up: the cursor never comes back to 0.
const SCAN_ROUNDS_MAX: usize = 100_000;

/// Pause between two attempts of `wait-until`.
const POLL_MS: u64 = 5;

/// Longest reply shown in a report.
const SHOWN_MAX: usize = 600;

/// What one line answered. `None` in a recording: the line was not run.
pub struct Outcome {
    /// The reply, or why there is none. A directive without a reply has `Ok(None)`.
    pub result: Result<Option<Reply>, String>,
    pub expect: Option<Expect>,
    /// The command with its variables replaced.
    pub command: String,
}

/// What every line of a script answered.
pub type Recording = Vec<Option<Outcome>>;

/// Which role the executor has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Oracle,
    Ours,
}

/// Runs every line that concerns this role and protocol.
pub fn play(
    script: &Script,
    executor: &mut dyn Executor,
    role: Role,
    protocol: Protocol,
) -> Result<Recording, String> {
    executor.reset()?;
    let mut player = Player { executor, client: "A".to_owned(), variables: RefCell::new(BTreeMap::new()) };
    let concerned = |step: &&Step| {
        step.only.is_none_or(|only| only == protocol)
            && match role {
                Role::Oracle => step.who != Who::Ours,
                Role::Ours => step.who != Who::Oracle,
            }
    };
    Ok(script.steps.iter().map(|step| Some(step).filter(concerned).map(|step| player.step(step))).collect())
}

struct Player<'a> {
    executor: &'a mut dyn Executor,
    client: String,
    variables: RefCell<BTreeMap<String, Vec<u8>>>,
}

impl Player<'_> {
    fn step(&mut self, step: &Step) -> Outcome {
        let mut command = step.command.clone();
        let result = self.act(step, &mut command);
        let lookup = |name: &str| self.variables.borrow().get(name).cloned();
        match step.expect.as_deref().map(|source| expect::parse(source, &lookup)).transpose() {
            Ok(expect) => Outcome { result, expect, command },
            Err(error) => Outcome { result: result.and(Err(error)), expect: None, command },
        }
    }

    fn act(&mut self, step: &Step, shown: &mut String) -> Result<Option<Reply>, String> {
        match &step.action {
            Action::Client(name) => {
                self.client.clone_from(name);
                Ok(None)
            }
            Action::Close => {
                self.executor.close(&self.client);
                Ok(None)
            }
            Action::Closed => self.executor.closed(&self.client).map(|()| None),
            Action::Receive => self.executor.receive(&self.client).map(Some),
            Action::Time { name, milliseconds, offset } => {
                let now_ms = self.executor.now_ms();
                let time = if *milliseconds { now_ms } else { now_ms / 1000 } + offset;
                self.set(name, time.to_string().into_bytes());
                Ok(None)
            }
            Action::Call => self.call(step, shown).map(Some),
            Action::Send => {
                let request = self.request(step, shown)?;
                self.executor.send(&self.client, &request).map(|()| None)
            }
            Action::Let { name } => {
                let reply = self.call(step, shown)?;
                let word = reply.as_word().ok_or_else(|| format!("nothing to keep in {reply}"))?;
                self.set(name, word);
                Ok(None)
            }
            Action::For { name, low, high } => {
                let mut last = None;
                for number in *low..=*high {
                    self.set(name, number.to_string().into_bytes());
                    let reply = self.call(step, shown)?;
                    let wrong = match &step.expect {
                        Some(_) => !self.satisfied(step, &reply)?,
                        None => matches!(reply, Reply::Error(_)),
                    };
                    last = Some(reply);
                    if wrong {
                        break;
                    }
                }
                Ok(last)
            }
            Action::WaitUntil { limit_ms } => {
                let deadline = self.executor.now_ms() + *limit_ms as i64;
                loop {
                    let reply = self.call(step, shown)?;
                    if self.satisfied(step, &reply)? || self.executor.now_ms() > deadline {
                        return Ok(Some(reply));
                    }
                    self.executor.pause(POLL_MS);
                }
            }
            Action::ScanAll => self.scan_all(step, shown).map(Some),
        }
    }

    fn set(&self, name: &str, value: Vec<u8>) {
        self.variables.borrow_mut().insert(name.to_owned(), value);
    }

    fn request(&self, step: &Step, shown: &mut String) -> Result<Vec<Vec<u8>>, String> {
        let lookup = |name: &str| self.variables.borrow().get(name).cloned();
        let words = Lexer::command(&step.command, &lookup).all()?;
        if words.iter().any(|word| word.variable) {
            let words: Vec<String> =
                words.iter().map(|word| shortened(&reply::quoted(&word.bytes))).collect();
            *shown = words.join(" ");
        }
        Ok(words.into_iter().map(|word| word.bytes).collect())
    }

    fn call(&mut self, step: &Step, shown: &mut String) -> Result<Reply, String> {
        let request = self.request(step, shown)?;
        self.executor.call(&self.client, &request)
    }

    fn satisfied(&self, step: &Step, reply: &Reply) -> Result<bool, String> {
        let lookup = |name: &str| self.variables.borrow().get(name).cloned();
        let source = step.expect.as_deref().ok_or("an expectation is needed here")?;
        Ok(expect::parse(source, &lookup)?.matches(reply))
    }

    /// Every element once (pairs for HSCAN and ZSCAN): a full iteration may show an element twice.
    fn scan_all(&mut self, step: &Step, shown: &mut String) -> Result<Reply, String> {
        let template = self.request(step, shown)?;
        let stride = match template[0].to_ascii_lowercase().as_slice() {
            b"hscan" | b"zscan" => 2,
            _ => 1,
        };
        let mut cursor = b"0".to_vec();
        let mut seen: Vec<Vec<Reply>> = Vec::new();
        for _ in 0..SCAN_ROUNDS_MAX {
            let fill = |word: &Vec<u8>| if word == b"CURSOR" { cursor.clone() } else { word.clone() };
            let request: Vec<Vec<u8>> = template.iter().map(fill).collect();
            let reply = self.executor.call(&self.client, &request)?;
            let (next, elements) = match &reply {
                Reply::Array(parts) => match parts.as_slice() {
                    [Reply::Bulk(next), Reply::Array(elements)] => (next.clone(), elements),
                    _ => return Ok(reply),
                },
                _ => return Ok(reply),
            };
            for element in elements.chunks(stride) {
                if !seen.iter().any(|known| known == element) {
                    seen.push(element.to_vec());
                }
            }
            cursor = next;
            if cursor == b"0" {
                return Ok(Reply::Array(seen.into_iter().flatten().collect()));
            }
        }
        Err(format!("the cursor is not 0 after {SCAN_ROUNDS_MAX} rounds"))
    }
}

/// The oracle alone: are the written expectations true of Redis?
pub fn judge_oracle(script: &Script, recording: &Recording) -> Vec<String> {
    let mut failures = Vec::new();
    for (step, outcome) in script.steps.iter().zip(recording) {
        let Some(outcome) = outcome else { continue };
        let checked = step.differs.is_none() && step.who == Who::Both;
        if checked && let Some(reason) = unsatisfied(outcome) {
            failures.push(report(script, step, outcome, &reason, &[("redis", outcome)]));
        }
    }
    failures
}

/// Ours, beside the oracle where the oracle has something to say.
pub fn judge_ours(script: &Script, ours: &Recording, oracle: Option<&Recording>) -> Vec<String> {
    let mut failures = Vec::new();
    for (at, (step, outcome)) in script.steps.iter().zip(ours).enumerate() {
        let Some(outcome) = outcome else { continue };
        let beside = oracle.and_then(|oracle| oracle[at].as_ref());
        let mut shown = vec![("damselfly", outcome)];
        shown.extend(beside.map(|beside| ("redis", beside)));
        let reason = unsatisfied(outcome).or_else(|| {
            let beside = beside.filter(|_| step.differs.is_none() && step.who == Who::Both)?;
            differs(outcome, beside)
        });
        if let Some(reason) = reason {
            failures.push(report(script, step, outcome, &reason, &shown));
        }
    }
    failures
}

fn unsatisfied(outcome: &Outcome) -> Option<String> {
    match (&outcome.result, &outcome.expect) {
        (Err(error), _) => Some(error.clone()),
        (Ok(Some(reply)), Some(expect)) if !expect.matches(reply) => Some("not as written".into()),
        _ => None,
    }
}

fn differs(ours: &Outcome, oracle: &Outcome) -> Option<String> {
    let (Ok(Some(ours_reply)), Ok(Some(oracle_reply))) = (&ours.result, &oracle.result) else {
        return oracle.result.as_ref().err().map(|error| format!("the oracle failed: {error}"));
    };
    let same = match (&ours.expect, &oracle.expect) {
        (Some(ours_expect), Some(oracle_expect)) => {
            ours_expect.comparable(ours_reply) == oracle_expect.comparable(oracle_reply)
        }
        _ => ours_reply == oracle_reply,
    };
    (!same).then(|| "not as Redis answers".into())
}

fn report(
    script: &Script,
    step: &Step,
    outcome: &Outcome,
    reason: &str,
    replies: &[(&str, &Outcome)],
) -> String {
    let command = match &step.action {
        Action::Receive => "(receive)",
        Action::Closed => "(closed)",
        _ => &outcome.command,
    };
    let mut text =
        format!("  {}:{}: {reason}\n    {}\n", script.path.display(), step.line, shortened(command));
    if let Some(expect) = &step.expect {
        text.push_str(&format!("      {:<10} {}\n", "written", shortened(expect)));
    }
    for (name, outcome) in replies {
        let reply = match &outcome.result {
            Ok(Some(reply)) => shortened(&reply.to_string()),
            Ok(None) => "nothing".to_owned(),
            Err(error) => format!("({error})"),
        };
        text.push_str(&format!("      {name:<10} {reply}\n"));
    }
    text
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((cut, _)) => format!("{}... ({} bytes)", &text[..cut], text.len()),
        None => text.to_owned(),
    }
}
