//! Clients that do not take their replies: `send_timeout` and `client-output-buffer-limit`.
//!
//! A client is held back as soon as 1 MiB waits for it, so what these limits end is mostly one very long reply, or
//! what is sent without being asked for. A hard limit is looked at whenever something could not be sent, the limits
//! with a duration once a second.

use damselfly_config::{OutputLimit, OutputLimits};

use crate::connection::{Connection, ConnectionId};
use crate::core::Core;
use crate::modes::Modes;

/// How long a client has been slow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slowness {
    /// Bytes it had taken when it was last seen to take some.
    taken: u64,
    /// When that was; 0 if nothing waits for it.
    stalled_ms: u64,
    /// Since when it has been over its soft limit; 0 if it is not.
    over_soft_ms: u64,
}

/// The settings, copied to where they are looked at.
#[derive(Clone, Copy, Debug)]
pub struct PeerLimits {
    output: OutputLimits,
    /// 0 is none.
    send_timeout_ms: u64,
}

impl Default for PeerLimits {
    fn default() -> PeerLimits {
        PeerLimits { output: OutputLimits::REDIS, send_timeout_ms: 0 }
    }
}

impl PeerLimits {
    /// From the settings.
    pub fn new(output: OutputLimits, send_timeout_s: u32) -> PeerLimits {
        PeerLimits { output, send_timeout_ms: u64::from(send_timeout_s) * 1000 }
    }

    /// The class of a connection, as Redis has it: who monitors counts as a replica. Subscribers have limits that are
    /// looked at with each message, see `pubsub/backlog.rs`.
    fn of(&self, connection: &Connection) -> OutputLimit {
        if connection.modes.has(Modes::SUBSCRIBED) {
            OutputLimit { hard_bytes: 0, soft_bytes: 0, soft_secs: 0 }
        } else if connection.client.monitor {
            self.output.replica
        } else {
            self.output.normal
        }
    }

    /// Whether more waits for the connection than may ever wait.
    fn is_exceeded(&self, connection: &Connection) -> bool {
        let hard = self.of(connection).hard_bytes;
        hard > 0 && connection.pending_output() as u64 > hard
    }

    /// Whether the connection has been too slow for too long.
    fn is_too_slow(&self, connection: &mut Connection, now: u64) -> bool {
        let (pending, taken) = (connection.pending_output() as u64, connection.sent_total);
        let limit = self.of(connection);
        let slowness = &mut connection.client.slowness;
        if pending == 0 {
            *slowness = Slowness::default();
            return false;
        }
        if slowness.stalled_ms == 0 || slowness.taken != taken {
            slowness.stalled_ms = now;
            slowness.taken = taken;
        }
        if limit.soft_bytes == 0 || pending <= limit.soft_bytes {
            slowness.over_soft_ms = 0;
        } else if slowness.over_soft_ms == 0 {
            slowness.over_soft_ms = now;
        }
        let stalled =
            self.send_timeout_ms > 0 && now.saturating_sub(slowness.stalled_ms) > self.send_timeout_ms;
        stalled
            || slowness.over_soft_ms > 0 && now.saturating_sub(slowness.over_soft_ms) > limit.soft_secs * 1000
    }
}

impl Core {
    /// Closes the clients that have been too slow for too long. Called once a second.
    pub(crate) fn close_slow_peers(&mut self) {
        let (limits, now) = (self.peer_limits, self.ks.now);
        let slow: Vec<ConnectionId> = self
            .connections_mut()
            .filter_map(|connection| limits.is_too_slow(connection, now).then_some(connection.id))
            .collect();
        for id in slow {
            self.close_slow_peer(id);
        }
    }

    /// Closes a client for which something waits, if that is more than may ever wait.
    #[cold]
    pub(crate) fn close_if_over_limit(&mut self, id: ConnectionId) -> bool {
        let limits = self.peer_limits;
        let over = self.connection(id).is_some_and(|connection| limits.is_exceeded(connection));
        if over {
            self.close_slow_peer(id);
        }
        over
    }

    fn close_slow_peer(&mut self, id: ConnectionId) {
        let Some(connection) = self.connection(id) else { return };
        let (addr, pending) = (&connection.client.addr, connection.pending_output());
        tracing::warn!(%addr, pending, "a client that does not take its replies was closed");
        self.stats.output_limited += 1;
        self.close(id);
    }
}
