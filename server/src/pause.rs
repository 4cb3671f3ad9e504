//! CLIENT PAUSE: commands held back on all cores.
//!
//! Each core keeps the pause as a plain field, so the hot path pays one test and no shared memory. A paused
//! connection keeps the command it was about to run, and everything behind it, in its queue: order is as it was sent.
//! The pause ends by itself at its deadline, by each core's own clock, or by CLIENT UNPAUSE.
//!
//! Connections of an admin port are never held: whoever steers the server must be able to end a pause.

use std::cell::Cell;
use std::rc::Rc;

use damselfly_commands::{Command, Flags, Run, ServerCommand};
use damselfly_protocol::Argv;

use crate::connection::{ConnectionId, Listener};
use crate::core::Core;
use crate::execute::Flow;
use crate::server_commands::subcommands;

/// What is held back, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// Unix time in milliseconds.
    pub until_ms: u64,
    /// All commands, not only those that change something.
    pub everything: bool,
}

impl Pause {
    /// A pause on top of one that goes on: the stricter of both, until the later of both ends, so that two tools
    /// that pause do not undo each other.
    fn merged(self, other: Option<Pause>) -> Pause {
        let other = other.unwrap_or(self);
        Pause { until_ms: self.until_ms.max(other.until_ms), everything: self.everything || other.everything }
    }
}

impl Core {
    /// Holds the connection if its next command must wait for the end of a pause.
    pub(crate) fn hold_if_paused(&mut self, id: ConnectionId, command: &Command, argv: &Argv<'_>) -> Flow {
        let Some(pause) = self.pause else { return Flow::Next };
        let Some(connection) = self.connection(id) else { return Flow::Pause };
        if connection.client.listener == Listener::Admin {
            return Flow::Next;
        }
        if !pause.everything && !self.is_held_by_pause(id, command, argv) {
            return Flow::Next;
        }
        let Some(connection) = self.connection(id) else { return Flow::Pause };
        connection.waiting = true;
        self.held.push(id);
        Flow::Hold
    }

    /// Whether a request waits while only what changes something is paused. EXEC may bring writes that were queued
    /// before.
    fn is_held_by_pause(&mut self, id: ConnectionId, command: &Command, argv: &Argv<'_>) -> bool {
        if !matches!(command.run, Run::Server(ServerCommand::Exec)) {
            return self.may_change(command, argv);
        }
        let Some(multi) = self.connection(id).and_then(|connection| connection.multi.take()) else {
            return false;
        };
        let holds = multi.requests().any(|(found, argv)| self.may_change(found.command, &argv));
        if let Some(connection) = self.connection(id) {
            connection.multi = Some(multi);
        }
        holds
    }

    /// Whether a request can change something, here or on replicas.
    fn may_change(&self, command: &Command, argv: &Argv<'_>) -> bool {
        if let Run::Script(call) = command.run {
            return !call.read_only && !self.declares_no_writes(call, argv);
        }
        let of_subcommand = argv.get(1).and_then(|name| subcommands::find(command, name));
        of_subcommand.map_or(command.flags, |subcommand| subcommand.flags).has(Flags::WRITE)
            || matches!(command.name, "PFCOUNT" | "PUBLISH" | "SPUBLISH")
    }

    /// Pauses all cores; goes on when no held command can run any more, not even one that was already on its way
    /// from one core to another.
    pub fn pause_all(&mut self, pause: Pause, then: impl FnOnce(&mut Core) + 'static) {
        let missing = Rc::new(Cell::new(self.shared.peers.len()));
        let then = Rc::new(Cell::new(Some(then)));
        for to in 0..self.shared.peers.len() {
            let (missing, then) = (missing.clone(), then.clone());
            self.ask_later(
                to,
                move |core, replier| {
                    core.pause = Some(pause.merged(core.pause.filter(|old| old.until_ms > core.ks.now)));
                    core.ks.is_paused = true;
                    // What had begun before ends. Messages between two cores keep their order, so when all have
                    // answered this, they have run what this core had sent them.
                    core.behind_tasks(|core| core.ask_all(|_| (), move |core, _| replier.reply(core, ())));
                },
                move |core, ()| {
                    missing.set(missing.get() - 1);
                    if missing.get() == 0
                        && let Some(then) = then.take()
                    {
                        then(core);
                    }
                },
            );
        }
    }

    /// Ends the pause on this core.
    pub fn unpause(&mut self) {
        self.pause = None;
        self.ks.is_paused = false;
        for id in std::mem::take(&mut self.held) {
            self.resume(id);
        }
    }

    /// Ends the pause if its time is over.
    #[inline]
    pub(crate) fn unpause_when_due(&mut self) {
        if self.pause.is_some_and(|pause| pause.until_ms <= self.ks.now) {
            self.unpause();
        }
    }
}
