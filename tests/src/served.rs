//! Commands that our server does not have yet, and what is left of a script without them.
//!
//! Scripts are written for whole groups of commands before the server has the group, and scripts of groups that it
//! has use others in passing: an RPUSH makes the key of the wrong type. [`GROUPS`] names the groups that may be
//! missing. As soon as the server knows one command of a group, all lines count again, so a new group is tested
//! from its first command on, and its row here has no effect any more: remove it, lest the group be lost unseen.
//! A command that is missing and in no row is a failure as ever.
//!
//! A line that is left out takes with it what depends on it: later lines about the same key or variable. Redis runs
//! them all the same, which is how scripts are proved right before there is anything that they could test.

use std::collections::BTreeSet;

use crate::executor::Executor;
use crate::reply::Reply;
use crate::script::{self, Action, Script, Step, Who};

/// Groups by the names of their directories, with their commands. `*` at the end stands for any ending.
const GROUPS: &[(&str, &str)] =
    &[("complete", "every|command"), ("replication", "replconf replicaof slaveof")];

/// Groups whose commands leave no key behind.
const LEAVE_NO_KEY: &[&str] = &["replication"];

/// Commands whose arguments are all keys that they change: left out, none of these is what it should be.
const CHANGE_ALL: &[&str] = &["copy", "del", "rename", "renamenx", "unlink"];

/// Commands that look at all keys.
const SEE_ALL: &[&str] = &["dbsize", "debug", "info", "keys", "randomkey", "scan"];

/// Commands that leave no key.
const REMOVE_ALL: &[&str] = &["flushall", "flushdb"];

/// The groups that a server lacks.
#[derive(Clone, Debug, Default)]
pub struct Lacking(Vec<&'static (&'static str, &'static str)>);

impl Lacking {
    /// Asks the server for its commands.
    pub fn of(server: &mut dyn Executor) -> Result<Self, String> {
        let reply = server.call("A", &[b"COMMAND".to_vec(), b"LIST".to_vec()])?;
        let Reply::Array(names) = &reply else { return Err(format!("COMMAND LIST: {reply}")) };
        let known: Vec<String> = names
            .iter()
            .filter_map(Reply::text)
            .map(|name| String::from_utf8_lossy(name).to_ascii_lowercase())
            .collect();
        let lacks = |row: &&(&str, &str)| !known.iter().any(|name| is_in(row.1, name));
        Ok(Self(GROUPS.iter().filter(lacks).collect()))
    }

    /// Their names.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|(name, _)| *name)
    }

    /// Whether this command, in any case, is of such a group.
    pub fn has(&self, command: &str) -> bool {
        self.group_of(&command.to_ascii_lowercase()).is_some()
    }

    fn group_of(&self, command: &str) -> Option<&'static str> {
        self.0.iter().find(|(_, commands)| is_in(commands, command)).map(|(name, _)| *name)
    }

    /// The script as our server can run it: lines that it cannot are for the oracle alone. Also, how many those are.
    pub fn cut(&self, script: &Script) -> (Script, usize) {
        let mut script = script.clone();
        if self.names().any(|name| script.name.split('/').next() == Some(name)) {
            let count = script.steps.len();
            script.steps.iter_mut().for_each(|step| step.who = Who::Oracle);
            return (script, count);
        }
        let (mut lost, mut left_out) = (BTreeSet::new(), 0);
        for step in script.steps.iter_mut().filter(|step| step.who != Who::Oracle) {
            if !self.can_run(step, &mut lost) {
                step.who = Who::Oracle;
                left_out += 1;
            }
        }
        (script, left_out)
    }

    /// Whether nothing that this line needs is lost; notes what is lost without it.
    fn can_run(&self, step: &Step, lost: &mut BTreeSet<Vec<u8>>) -> bool {
        if step.command.is_empty() {
            return true;
        }
        let words = script::words_of(step);
        let command = String::from_utf8_lossy(&words[0].bytes).to_ascii_lowercase();
        let key = words.get(1).map(|word| word.bytes.clone());
        if let Some(group) = self.group_of(&command) {
            if !LEAVE_NO_KEY.contains(&group) {
                lost.extend(key);
            }
        } else if REMOVE_ALL.contains(&command.as_str()) {
            lost.clear();
            return true;
        } else if lost_variable(step, lost) {
            lost.extend(key);
        } else if words[1..].iter().any(|word| lost.contains(&word.bytes)) {
            if CHANGE_ALL.contains(&command.as_str()) {
                lost.extend(words[1..].iter().map(|word| word.bytes.clone()));
            }
        } else {
            return lost.is_empty() || !SEE_ALL.contains(&command.as_str());
        }
        if let Action::Let { name } = &step.action {
            lost.insert(variable(name));
        }
        false
    }
}

/// How a variable is noted among what is lost: no key of a script begins so.
fn variable(name: &str) -> Vec<u8> {
    format!("\0${name}").into_bytes()
}

fn lost_variable(step: &Step, lost: &BTreeSet<Vec<u8>>) -> bool {
    let text = format!("{} {}", step.command, step.expect.as_deref().unwrap_or_default());
    let names = text.split('$').skip(1).map(|rest| {
        rest.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').next().unwrap_or_default()
    });
    names.map(variable).any(|name| lost.contains(&name))
}

fn is_in(commands: &str, name: &str) -> bool {
    commands.split_whitespace().any(|command| match command.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == command,
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Groups as they might be missing.
    const MISSING: &[(&str, &str)] = &[("list", "lindex lpop rpop rpush"), ("replication", "replicaof wait")];

    fn left_out(lacking: &[&str], name: &str, lines: &str) -> Vec<usize> {
        let script = script::parse(name, Path::new(name), &format!("# head\n{lines}")).expect("parses");
        let lacking = Lacking(MISSING.iter().filter(|(group, _)| lacking.contains(group)).collect());
        let (cut, count) = lacking.cut(&script);
        let lines: Vec<usize> =
            cut.steps.iter().filter(|step| step.who == Who::Oracle).map(|step| step.line - 1).collect();
        assert_eq!(lines.len(), count);
        lines
    }

    /// What depends on a line goes with it: keys, copies, variables, views of all keys; the rest stays.
    #[test]
    fn dependents_go_too() {
        let lines = "RPUSH l a\nGET l\nSET a 1\nRENAME l m\nTYPE m\nKEYS *\n> let d = DUMP m\n\
            RESTORE k 0 \"$d\"\nGET k\nWAIT 0 0\nFLUSHALL\nKEYS *\nSET l 1";
        assert_eq!(
            left_out(&["list", "replication"], "generic/x.script", lines),
            [1, 2, 4, 5, 6, 7, 8, 9, 10]
        );
        assert_eq!(left_out(&["no group"], "generic/x.script", lines), []);
    }

    /// A group's own scripts are the oracle's as a whole.
    #[test]
    fn whole_files() {
        assert_eq!(left_out(&["list"], "list/push.script", "SET k v\nGET k"), [1, 2]);
    }
}
