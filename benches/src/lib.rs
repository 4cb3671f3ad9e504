//! Benchmarks: whole servers against each other here, single structures in `benches/`.
//!
//! The question is always "how much of what Redis needs do we need", so the figure is a ratio: both servers run on
//! the same machine, minutes apart at most, under the same client, in turn. A nanosecond count belongs to one
//! processor and one kernel; the ratio travels.
//!
//! Processor time and resident memory are read from outside, from the kernel, and never asked of the server that is
//! being judged.
//!
//! Reading order: [`rows`] is the table of what is measured and what it must be; [`run`] interleaves the rounds;
//! [`drive`] is what happens to one server in one round, with [`benchmark`] for redis-benchmark and [`client`] for
//! shapes that redis-benchmark cannot do; [`server`] starts, measures and stops; [`report`] prints. [`stalls`] tells what
//! the machine is to blame for. [`workloads`] are named and seeded, and shared with the benches of single structures.

pub mod benchmark;
pub mod client;
pub mod drive;
pub mod report;
pub mod rows;
pub mod run;
pub mod server;
pub mod stalls;
pub mod sys;
pub mod traces;
pub mod workloads;

use std::fmt;

/// Why a row has no number for a server. The two kinds are told apart because a server under construction lacks
/// commands, and that must not stop the other rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The server does not know a command that the row needs; the text is what it answered.
    NotYet(String),
    /// Anything else: the row was attempted and did not work.
    Broken(String),
}

impl Failure {
    /// Sorts an error reply into one of the two kinds.
    pub fn from_reply(text: &str) -> Self {
        let lower = text.to_ascii_lowercase();
        if lower.contains("unknown command") || lower.contains("unknown subcommand") {
            Self::NotYet(text.to_owned())
        } else {
            Self::Broken(text.to_owned())
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotYet(text) => write!(f, "not yet: {text}"),
            Self::Broken(text) => write!(f, "failed: {text}"),
        }
    }
}

impl std::error::Error for Failure {}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

#[cfg(test)]
mod test {
    use super::Failure;

    /// An absent command is "not yet", everything else is a failure: in the words of both servers.
    #[test]
    fn absent_commands_are_told_from_failures() {
        for text in [
            "ERR unknown command 'FOO', with args beginning with: ",
            "Error from server: ERR unknown command `FOO`",
            "ERR Unknown subcommand or wrong number of arguments for 'LOAD'",
        ] {
            assert!(matches!(Failure::from_reply(text), Failure::NotYet(_)), "{text}");
        }
        assert!(matches!(Failure::from_reply("WRONGTYPE Operation against a key"), Failure::Broken(_)));
    }
}
