//! A script file: what its lines may be.
//!
//! ```text
//! # What the file proves, in its first lines.
//!
//! SET k v                          -> OK        # a command, and what it answers (see expect.rs)
//! GET k                                         # without ->, all servers must just agree
//! @resp3 HGETALL h                 -> map {}    # a line for one protocol
//! @ours STICK k                    -> 1         # Redis 7.0 lacks it: only our server runs the line
//! @oracle DEBUG SET-ACTIVE-EXPIRE 0             # only Redis runs the line, and nothing is expected of it
//! @differs "reason" OBJECT HELP    -> <array>   # we differ on purpose: not compared with Redis
//!
//! > ours                                        # the whole file is @ours
//! > client B                                    # the following lines use this connection; the first is A
//! > closed                                      # the server closes this connection
//! > close                                       # we close it
//! > send BLPOP l 0                              # a command whose reply comes later
//! > receive                        -> [l x]     # the next reply or push on this connection
//! > let d = DUMP k                              # keep a reply: "$d" or $d in any later word
//! > let t = now_s+100                           # or a time: now_s, now_ms, plus or minus a number
//! > for i in 1..200 RPUSH l e$i    -> <int>     # the same command with $i from 1 to 200
//! > wait-until EXISTS k            -> 0 within 2s
//! > scan-all SCAN CURSOR COUNT 10  -> unordered {a b}    # CURSOR from 0 to 0, elements in one array
//! ```
//!
//! A new file starts on an empty server with fresh connections. Settings are not reset: a script puts back what it
//! changed. Keys whose names begin with `missing` are never created, and `coverage.rs` counts on that.

use std::fs;
use std::path::{Path, PathBuf};

use crate::expect;
use crate::lex::{Lexer, Word};
use crate::reply::Protocol;

/// How long `wait-until` tries unless the line says otherwise.
const WAIT_MS: u64 = 5_000;

/// Who runs a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Both,
    Ours,
    Oracle,
}

/// What a line does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Call,
    Send,
    Receive,
    Client(String),
    Close,
    Closed,
    Let { name: String },
    Time { name: String, milliseconds: bool, offset: i64 },
    For { name: String, low: i64, high: i64 },
    WaitUntil { limit_ms: u64 },
    ScanAll,
}

/// One line.
#[derive(Clone, Debug)]
pub struct Step {
    pub line: usize,
    pub action: Action,
    /// The command's words, not yet replaced.
    pub command: String,
    /// The text behind `->`.
    pub expect: Option<String>,
    pub only: Option<Protocol>,
    pub who: Who,
    /// Why we differ from Redis here.
    pub differs: Option<String>,
}

/// One file.
#[derive(Clone, Debug)]
pub struct Script {
    /// Path below `commands/`.
    pub name: String,
    pub path: PathBuf,
    pub steps: Vec<Step>,
    /// Whether Redis runs none of it.
    pub ours: bool,
}

/// Where the scripts are.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("commands")
}

/// All scripts, by name. A script that does not parse is an error to report in its place.
pub fn all() -> Vec<(String, Result<Script, String>)> {
    let mut paths = Vec::new();
    let groups = fs::read_dir(root()).expect("tests/commands exists");
    for group in groups.flatten().filter(|entry| entry.path().is_dir()) {
        let files = fs::read_dir(group.path()).expect("a readable directory");
        paths.extend(files.flatten().map(|entry| entry.path()));
    }
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "script"));
    paths.sort();
    paths
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(root()).expect("below the root").display().to_string();
            let parsed = fs::read_to_string(&path)
                .map_err(|error| format!("{}: {error}", path.display()))
                .and_then(|text| parse(&name, &path, &text));
            (name, parsed)
        })
        .collect()
}

/// Parses a file; the error lists every line that is wrong.
pub fn parse(name: &str, path: &Path, text: &str) -> Result<Script, String> {
    let mut script = Script { name: name.to_owned(), path: path.to_owned(), steps: Vec::new(), ours: false };
    let mut errors = Vec::new();
    if !text.starts_with("# ") {
        errors.push(format!("{name}:1: the first line should say what the file proves"));
    }
    for (at, line) in text.lines().enumerate() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        if trimmed == "> ours" {
            script.ours = true;
            continue;
        }
        match step(trimmed, at + 1) {
            Ok(step) => script.steps.push(step),
            Err(error) => errors.push(format!("{name}:{}: {error}", at + 1)),
        }
    }
    if script.ours {
        for step in &mut script.steps {
            step.who = Who::Ours;
        }
    }
    if errors.is_empty() { Ok(script) } else { Err(errors.join("\n")) }
}

fn step(line: &str, number: usize) -> Result<Step, String> {
    let mut step = Step {
        line: number,
        action: Action::Call,
        command: String::new(),
        expect: None,
        only: None,
        who: Who::Both,
        differs: None,
    };
    let mut rest = line;
    while let Some(marked) = rest.strip_prefix('@') {
        let (marker, behind) = marked.split_once(' ').ok_or("nothing behind the marker")?;
        rest = behind.trim_start();
        match marker {
            "ours" => step.who = Who::Ours,
            "oracle" => step.who = Who::Oracle,
            "resp2" => step.only = Some(Protocol::Resp2),
            "resp3" => step.only = Some(Protocol::Resp3),
            "differs" => {
                let quoted = rest.strip_prefix('"').and_then(|rest| rest.split_once('"'));
                let (reason, behind) = quoted.ok_or("@differs needs its reason in quotes")?;
                step.differs = Some(reason.to_owned());
                rest = behind.trim_start();
            }
            _ => return Err(format!("unknown marker @{marker}")),
        }
    }
    let Some(directive) = rest.strip_prefix('>') else {
        return commanded(step, rest);
    };
    let directive = directive.trim_start();
    let (word, behind) = directive.split_once(' ').unwrap_or((directive, ""));
    let behind = behind.trim_start();
    match word {
        "client" => {
            let name = uncommented(behind);
            if name.is_empty() {
                return Err("a client needs a name".into());
            }
            step.action = Action::Client(name.to_owned());
        }
        "close" => step.action = Action::Close,
        "closed" => step.action = Action::Closed,
        "send" => {
            step.action = Action::Send;
            step = commanded(step, behind)?;
        }
        "receive" => {
            step.action = Action::Receive;
            let expect = behind.strip_prefix("->").ok_or("receive needs an expectation")?;
            step.expect = Some(expect.trim().to_owned());
        }
        "let" => {
            let (name, value) = behind.split_once('=').ok_or("let needs a =")?;
            let (name, value) = (name.trim().to_owned(), value.trim());
            if value.starts_with("now_") {
                step.action = time(name, uncommented(value))?;
            } else {
                step.action = Action::Let { name };
                step = commanded(step, value)?;
            }
        }
        "for" => {
            let (name, behind) = behind.split_once(" in ").ok_or("for needs `in`")?;
            let (range, behind) = behind.trim_start().split_once(' ').ok_or("for needs a command")?;
            let bounds =
                range.split_once("..").and_then(|(low, high)| Some((low.parse().ok()?, high.parse().ok()?)));
            let (low, high) = bounds.ok_or_else(|| format!("not a range: {range}"))?;
            step.action = Action::For { name: name.trim().to_owned(), low, high };
            step = commanded(step, behind)?;
        }
        "wait-until" => {
            step = commanded(step, behind)?;
            let expect = step.expect.take().ok_or("wait-until needs an expectation")?;
            let (expect, limit) = expect.rsplit_once(" within ").unwrap_or((&expect, ""));
            let limit_ms = if limit.is_empty() {
                WAIT_MS
            } else {
                let seconds =
                    uncommented(limit).strip_suffix('s').and_then(|digits| digits.parse::<u64>().ok());
                seconds.ok_or_else(|| format!("not a number of seconds: {limit}"))? * 1000
            };
            step.action = Action::WaitUntil { limit_ms };
            step.expect = Some(expect.to_owned());
        }
        "scan-all" => {
            step = commanded(step, behind)?;
            if !step.command.split_whitespace().any(|word| word == "CURSOR") {
                return Err("scan-all needs the word CURSOR".into());
            }
            step.action = Action::ScanAll;
        }
        _ => return Err(format!("unknown directive > {word}")),
    }
    if let Some(expect) = &step.expect {
        expect::parse(expect, &any_variable)?;
    }
    Ok(step)
}

/// Splits `COMMAND words -> expectation` and checks both sides.
fn commanded(mut step: Step, line: &str) -> Result<Step, String> {
    let mut lexer = Lexer::command(line, &any_variable);
    let mut count = 0;
    let mut end;
    loop {
        end = lexer.position();
        let Some(words) = lexer.words()? else { break };
        if words.len() == 1 && words[0].bare() == Some("->") {
            let expect = lexer.rest().trim();
            // `within` belongs to wait-until, which checks again without it.
            expect::parse(
                expect.rsplit_once(" within ").map_or(expect, |(expect, _)| expect),
                &any_variable,
            )?;
            step.expect = Some(expect.to_owned());
            break;
        }
        count += words.len();
    }
    if count == 0 {
        return Err("no command".into());
    }
    step.command = line[..end].trim_end().to_owned();
    Ok(step)
}

fn time(name: String, value: &str) -> Result<Action, String> {
    let (unit, offset) = match value.find(['+', '-']) {
        Some(sign) => value.split_at(sign),
        None => (value, "0"),
    };
    let milliseconds = match unit.trim() {
        "now_s" => false,
        "now_ms" => true,
        other => return Err(format!("unknown time {other}")),
    };
    let digits: String = offset.split_whitespace().collect();
    let offset = digits.parse().map_err(|_| format!("not a number: {digits}"))?;
    Ok(Action::Time { name, milliseconds, offset })
}

fn uncommented(text: &str) -> &str {
    text.split(" #").next().unwrap_or_default().trim()
}

/// While a file is read no variable has its value yet; a digit fits wherever one may stand.
fn any_variable(_: &str) -> Option<Vec<u8>> {
    Some(b"0".to_vec())
}

/// The command's words without values, for those who look at scripts but do not run them.
pub fn words_of(step: &Step) -> Vec<Word> {
    Lexer::command(&step.command, &any_variable).all().expect("checked when the file was read")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Script, String> {
        parse("group/file.script", Path::new("file.script"), text)
    }

    /// The lines of the module's head are all understood.
    #[test]
    fn grammar() {
        let text = "# head\n\
            SET k \"->\" -> OK # fine\n\
            GET k\n\
            @resp3 @differs \"we are kind\" HGETALL h -> map {}\n\
            > client B\n> send BLPOP l 0\n> receive -> [l x]\n> let d = DUMP k\n> let t = now_ms-5\n\
            > for i in 1..3 RPUSH l e$i -> <int>\n> wait-until EXISTS k -> 0 within 2s\n\
            > scan-all SCAN CURSOR COUNT 10 -> unordered {a b}\n> close\n> closed\n";
        let script = parsed(text).expect("parses");
        assert_eq!(script.steps.len(), 13);
        assert_eq!(script.steps[0].command, "SET k \"->\"");
        assert_eq!(script.steps[0].expect.as_deref(), Some("OK # fine"));
        assert_eq!(script.steps[2].differs.as_deref(), Some("we are kind"));
        assert_eq!(script.steps[7].action, Action::Time { name: "t".into(), milliseconds: true, offset: -5 });
        assert_eq!(script.steps[9].action, Action::WaitUntil { limit_ms: 2000 });
        assert_eq!(script.steps[9].expect.as_deref(), Some("0"));
    }

    /// Every wrong line is reported, with its number.
    #[test]
    fn all_mistakes_at_once() {
        let errors = parsed("SET k v\nGET k -> [a\n> nonsense\n@what GET k\n").expect_err("four mistakes");
        for line in 1..=4 {
            assert!(errors.contains(&format!("group/file.script:{line}:")), "{errors}");
        }
    }
}
