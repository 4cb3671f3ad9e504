//! A conversation with one keyspace, without a server: what the tests of handlers are written in.

use damselfly_keyspace::{Keyspace, Options};
use damselfly_protocol::{Proto, ReplyWriter, Requests};

use crate::{Args, Cx, Env, Later, Rest, lookup};

/// One keyspace of two databases at a fixed instant, and the client's settings.
pub(crate) struct Session {
    pub(crate) ks: Keyspace,
    pub(crate) env: Env,
    pub(crate) db: usize,
    /// Whether all invariants are looked at behind each command.
    checks: bool,
}

/// The instant: 1 000 000 seconds since 1970.
pub(crate) const NOW: u64 = 1_000_000_000;

impl Session {
    pub(crate) fn new() -> Session {
        let mut ks = Keyspace::new(&Options { databases: 2, hash_seed: 1, random_seed: 2 });
        ks.now = NOW;
        ks.observed = true;
        ks.notes_misses = true;
        Session { ks, env: Env::default(), db: 0, checks: true }
    }

    /// One for big collections: a look at all invariants takes as long as the collection is.
    pub(crate) fn unchecked() -> Session {
        Session { checks: false, ..Session::new() }
    }

    /// The reply to a command given by its arguments.
    pub(crate) fn send(&mut self, args: &[&[u8]]) -> Vec<u8> {
        self.send_in(Proto::Resp2, args, None)
    }

    /// As [`Session::send`], for a client of either protocol, who may get the rest of a long reply later.
    pub(crate) fn send_in(&mut self, proto: Proto, args: &[&[u8]], later: Later<'_>) -> Vec<u8> {
        let (mut bytes, mut requests, mut out) = (Vec::new(), Requests::new(), Vec::new());
        assert!(requests.push_copy(&mut bytes, args.iter().copied()));
        let command = lookup(args[0]).unwrap_or_else(|| panic!("no {}", args[0].escape_ascii())).command;
        let Some(handler) = command.run.handler() else { panic!("{} is the server's", command.name) };
        let argv = requests.argv(&bytes, 0);
        let mut writer = ReplyWriter::new(&mut out, proto);
        if !command.arity.allows(argv.len()) {
            writer.error("ERR wrong number of arguments");
            return out;
        }
        let mut cx = Cx { ks: &mut self.ks, db: self.db, out: writer, env: &self.env, later };
        if let Err(error) = handler(&mut cx, Args::behind_name(&argv)) {
            cx.out.truncate(0);
            cx.out.error(error.to_string());
        }
        if self.checks {
            self.ks.check();
        }
        out
    }

    /// Does something with what a handler has; what it replied, and what is left of that.
    pub(crate) fn with_cx(
        &mut self,
        proto: Proto,
        work: impl FnOnce(&mut Cx<'_>),
    ) -> (Vec<u8>, Option<Rest>) {
        let (mut out, mut later) = (Vec::new(), None);
        let writer = ReplyWriter::new(&mut out, proto);
        work(&mut Cx { ks: &mut self.ks, db: self.db, out: writer, env: &self.env, later: Some(&mut later) });
        (out, later)
    }

    /// The reply to a line of words, its line ends shown as spaces; `""` is the empty word.
    pub(crate) fn run(&mut self, line: &str) -> String {
        let words: Vec<&[u8]> =
            line.split_whitespace().map(|word| if word == "\"\"" { b"" } else { word.as_bytes() }).collect();
        show(&self.send(&words))
    }

    /// Runs lines of `command -> reply`; a reply may be shortened by `...`.
    pub(crate) fn check(&mut self, script: &str) {
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (command, expected) = line.split_once("->").unwrap_or_else(|| panic!("{line}"));
            let (reply, expected) = (self.run(command), expected.trim());
            match expected.strip_suffix("...") {
                Some(start) => assert!(reply.starts_with(start), "{line}\ngot {reply}"),
                None => assert_eq!(reply, expected, "{line}"),
            }
        }
    }

    /// What happened to keys since the last call: `event key`, with the database if it is not the client's.
    pub(crate) fn events(&mut self) -> String {
        let words = self.ks.take_events().into_iter().map(|event| {
            let key = event.key.escape_ascii();
            if event.db == self.db {
                format!("{} {key}", event.name)
            } else {
                format!("{} {key}@{}", event.name, event.db)
            }
        });
        words.collect::<Vec<_>>().join(", ")
    }

    /// Runs a command and tells what happened to keys.
    pub(crate) fn events_of(&mut self, line: &str) -> String {
        self.ks.take_events();
        self.run(line);
        self.events()
    }
}

/// A reply as the tests write it.
pub(crate) fn show(reply: &[u8]) -> String {
    let reply = reply.strip_suffix(b"\r\n").expect("replies end lines");
    reply
        .escape_ascii()
        .to_string()
        .replace("\\r\\n", " ")
        .trim_end()
        .replace("\\'", "'")
        .replace("\\\"", "\"")
}
