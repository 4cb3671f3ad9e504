//! What is unusual about a connection, in one byte: most have nothing, and the path of every command pays one test.

use damselfly_commands::Command;
use damselfly_protocol::{Argv, Proto};

use crate::connection::ConnectionId;
use crate::core::Core;
use crate::server_commands;

/// A set of flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Modes(u8);

impl Modes {
    /// Subscribed to a channel or pattern.
    pub const SUBSCRIBED: Modes = Modes(1);
    /// CLIENT TRACKING is on, in whatever mode.
    pub const TRACKING: Modes = Modes(1 << 2);
    /// The keys that the next command reads are remembered.
    pub const REMEMBERS: Modes = Modes(1 << 3);
    /// CLIENT CACHING was given for the next command.
    pub const CACHING: Modes = Modes(1 << 4);
    /// There are pushes that wait until the command under way is answered.
    pub const HELD: Modes = Modes(1 << 5);
    /// In the list of connections that something was pushed to in this turn.
    pub const PUSHED: Modes = Modes(1 << 1);

    /// Whether there is any.
    #[inline]
    pub const fn any(self) -> bool {
        self.0 != 0
    }

    /// Whether `mode` is on.
    #[inline]
    pub const fn has(self, mode: Modes) -> bool {
        self.0 & mode.0 != 0
    }

    /// Switches `mode`.
    #[inline]
    pub const fn set(&mut self, mode: Modes, on: bool) {
        self.0 = if on { self.0 | mode.0 } else { self.0 & !mode.0 };
    }
}

impl Core {
    /// Refuses what a subscribed client of RESP2 may not run.
    #[cold]
    pub(crate) fn is_refused_in_mode(
        &mut self,
        id: ConnectionId,
        command: &Command,
        argv: &Argv<'_>,
    ) -> bool {
        let Some(connection) = self.connection(id) else { return false };
        let only_listens = connection.modes.has(Modes::SUBSCRIBED) && connection.proto == Proto::Resp2;
        if !only_listens || server_commands::pubsub::allowed_while_subscribed(command) {
            return false;
        }
        let text = server_commands::pubsub::not_while_subscribed(command, argv);
        self.answer_error(id, &text);
        true
    }

    /// A connection is gone: what it was in is left.
    #[cold]
    pub(crate) fn leave_modes(&mut self, id: ConnectionId, modes: Modes) {
        if modes.has(Modes::SUBSCRIBED) {
            self.unsubscribe_all(id);
        }
        if modes.has(Modes::TRACKING) {
            self.drop_tracker(id);
        }
        self.pubsub.backlog.forget(id);
    }
}
