//! How long commands take, and who is told of slow ones.

use std::sync::atomic::Ordering;

use damselfly_commands::{Command, Flags};
use damselfly_protocol::Argv;

use crate::connection::ConnectionId;
use crate::core::Core;
use crate::mailbox::Message;
use crate::stats::{Slow, Stopwatch, timed_in_runs};
use crate::tracking::Reader;

/// Bytes of an argument or a reply from which a command is timed alone: it may be slow for its length.
pub(super) const LONG: usize = 64 * 1024;

/// Nanoseconds of a command that nobody would call slow; whoever wants to hear of it has all commands timed alone.
pub(super) const SHORT: u64 = 1_000_000;

/// Whose request it was, for the slow log.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sender {
    /// A connection of this core.
    Here(ConnectionId),
    /// A connection of that core.
    There(usize, ConnectionId),
}

impl Sender {
    /// A client, as core `here` sees it.
    pub(crate) fn of(client: Reader, here: usize) -> Sender {
        if client.core == here { Sender::Here(client.id) } else { Sender::There(client.core, client.id) }
    }
}

impl Core {
    /// Whether a command is timed by itself, because it may be slow or because short times are of interest too.
    #[inline]
    pub(super) fn is_timed_alone(&self, command: &Command, argv: &Argv<'_>) -> bool {
        may_be_slow(command, argv) || self.stats.is_notable(SHORT)
    }

    /// Ends the timing of a command that is timed alone, and notes it if it was slow.
    pub(crate) fn close_watch(
        &mut self,
        sender: Sender,
        command: &'static Command,
        watch: &mut Stopwatch,
        argv: &Argv<'_>,
    ) {
        let (nanos, _) = watch.stop(&mut self.stats);
        if self.stats.is_notable(nanos) {
            self.note_slow(sender, command, nanos, argv);
        }
    }

    /// Notes a command that took long.
    #[cold]
    pub(crate) fn note_slow(
        &mut self,
        sender: Sender,
        command: &'static Command,
        nanos: u64,
        argv: &Argv<'_>,
    ) {
        self.stats.note_event(event_of(command), nanos, self.ks.now);
        if let Some(args) = self.stats.slow_args(command, nanos, argv) {
            self.log_args(sender, nanos, args);
        }
    }

    /// As [`Core::note_slow`], for a command of whose arguments only those that are shown were kept.
    pub(crate) fn note_slow_shown(
        &mut self,
        sender: Sender,
        command: &'static Command,
        nanos: u64,
        args: Vec<Vec<u8>>,
    ) {
        self.stats.note_event(event_of(command), nanos, self.ks.now);
        if self.stats.is_slow(nanos) && !command.flags.has(Flags::SKIP_SLOWLOG) {
            self.log_args(sender, nanos, args);
        }
    }

    fn log_args(&mut self, sender: Sender, nanos: u64, args: Vec<Vec<u8>>) {
        let now = self.ks.now;
        let id = self.shared.next_slow.fetch_add(1, Ordering::Relaxed);
        let slow = Slow {
            id,
            at_s: now / 1000,
            micros: nanos / 1000,
            args,
            addr: String::new(),
            name: String::new(),
        };
        match sender {
            Sender::Here(connection) => self.log_slow(connection, slow),
            // Who it was is known where the connection is.
            Sender::There(core, connection) => {
                self.post(core, Message::Job(Box::new(move |core| core.log_slow(connection, slow))));
            }
        }
    }

    fn log_slow(&mut self, id: ConnectionId, mut slow: Slow) {
        if let Some(connection) = self.connection(id) {
            let client = &connection.client;
            slow.addr.clone_from(&client.addr);
            slow.name = client.name.as_deref().unwrap_or_default().to_string();
        }
        self.stats.push_slow(slow);
    }
}

/// Whether a command is not known to be quick, or has a long value.
#[inline]
pub(super) fn may_be_slow(command: &Command, argv: &Argv<'_>) -> bool {
    !timed_in_runs(command) || argv[argv.len() - 1].len() > LONG
}

/// The latency event of a command.
fn event_of(command: &Command) -> &'static str {
    if command.flags.has(Flags::FAST) { "fast-command" } else { "command" }
}
