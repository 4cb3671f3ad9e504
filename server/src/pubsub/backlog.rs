//! What subscribers have not taken yet, and when that is too much.
//!
//! Three bounds: the hard limit of `client-output-buffer-limit pubsub` is never passed, not by a byte; who stays above
//! its soft limit for its seconds is cut at the next delivery or tick; and `publish_buffer_limit` bounds what all
//! connections of a core that were pushed to have together, by cutting the one with most. The bounds hold for every
//! connection that is pushed to, subscriber or not: the pushes of client tracking have no other.

use std::collections::HashMap;

use damselfly_config::OutputLimit;

use crate::connection::ConnectionId;
use crate::core::Core;

/// How often what happened, since the start or CONFIG RESETSTAT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Subscribers cut at the soft limit.
    pub soft_limit: u64,
    /// Subscribers cut at the hard limit.
    pub hard_limit: u64,
    /// Subscribers cut because all of a core had too much.
    pub forced_disconnect: u64,
    /// Messages that did not fit the output of a subscriber, which was cut.
    pub messages_discarded: u64,
}

/// Why a subscriber is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The hard limit.
    Hard,
    /// The soft limit, for too long.
    Soft,
    /// All together had too much.
    Together,
}

/// Somebody with unsent output.
#[derive(Clone, Copy, Debug)]
struct Slow {
    /// When last seen.
    bytes: usize,
    /// Above the soft limit since.
    above_soft_ms: Option<u64>,
}

/// See the module's head.
#[derive(Debug)]
pub struct Backlog {
    limit: OutputLimit,
    together_max: usize,
    slow: HashMap<ConnectionId, Slow>,
    /// Sum over `slow`; at least what there really is, since sockets drain unseen.
    bytes: usize,
    condemned: Vec<(ConnectionId, Reason)>,
    /// For INFO and the metrics.
    pub counts: Counts,
}

impl Default for Backlog {
    fn default() -> Backlog {
        Backlog {
            limit: damselfly_config::OutputLimits::REDIS.pubsub,
            together_max: usize::MAX,
            slow: HashMap::new(),
            bytes: 0,
            condemned: Vec::new(),
            counts: Counts::default(),
        }
    }
}

impl Backlog {
    /// Takes new settings; a limit of 0 is none.
    pub fn set_limits(&mut self, limit: OutputLimit, together_max: u64) {
        self.limit = limit;
        let together_max = usize::try_from(together_max).unwrap_or(usize::MAX);
        self.together_max = if together_max == 0 { usize::MAX } else { together_max };
    }

    /// Most bytes that one connection may have.
    pub fn hard_bytes(&self) -> usize {
        match usize::try_from(self.limit.hard_bytes).unwrap_or(usize::MAX) {
            0 => usize::MAX,
            bytes => bytes,
        }
    }

    /// Cuts the connection when nobody looks at it any more.
    pub fn condemn(&mut self, id: ConnectionId, reason: Reason) {
        if !self.condemned.iter().any(|(condemned, _)| *condemned == id) {
            self.condemned.push((id, reason));
        }
    }

    /// The connection is gone.
    pub fn forget(&mut self, id: ConnectionId) {
        if let Some(slow) = self.slow.remove(&id) {
            self.bytes -= slow.bytes;
        }
    }

    /// Notes what a connection has; says whether it had too much for too long.
    fn note(&mut self, id: ConnectionId, bytes: usize, now_ms: u64) -> bool {
        if bytes == 0 {
            self.forget(id);
            return false;
        }
        let slow = self.slow.entry(id).or_insert(Slow { bytes: 0, above_soft_ms: None });
        self.bytes = self.bytes - slow.bytes + bytes;
        slow.bytes = bytes;
        if self.limit.soft_bytes == 0 || bytes as u64 <= self.limit.soft_bytes {
            slow.above_soft_ms = None;
            return false;
        }
        let since = *slow.above_soft_ms.get_or_insert(now_ms);
        now_ms.saturating_sub(since) > self.limit.soft_secs.saturating_mul(1000)
    }
}

impl Core {
    /// Notes what a connection that was pushed to has not taken.
    pub(super) fn note_backlog(&mut self, id: ConnectionId, bytes: usize) {
        let now = self.ks.now;
        if self.pubsub.backlog.note(id, bytes, now) {
            self.pubsub.backlog.condemn(id, Reason::Soft);
        }
    }

    /// Looks at all that were slow, at every tick.
    pub(crate) fn tick_backlog(&mut self) {
        if !self.pubsub.backlog.slow.is_empty() {
            self.look_at_slow();
            self.cut_condemned();
        }
    }

    fn look_at_slow(&mut self) {
        let slow: Vec<ConnectionId> = self.pubsub.backlog.slow.keys().copied().collect();
        for id in slow {
            let bytes = self.connection(id).map_or(0, |connection| connection.pending_output());
            self.note_backlog(id, bytes);
        }
    }

    /// Cuts those who must be, and more if all together still have too much.
    pub(super) fn cut_condemned(&mut self) {
        if self.pubsub.backlog.bytes > self.pubsub.backlog.together_max {
            self.look_at_slow();
        }
        loop {
            while let Some((id, reason)) = self.pubsub.backlog.condemned.pop() {
                self.cut(id, reason);
            }
            let backlog = &mut self.pubsub.backlog;
            if backlog.bytes <= backlog.together_max {
                return;
            }
            let Some((most, _)) = backlog.slow.iter().max_by_key(|(_, slow)| slow.bytes) else { return };
            let most = *most;
            backlog.condemn(most, Reason::Together);
        }
    }

    fn cut(&mut self, id: ConnectionId, reason: Reason) {
        self.pubsub.backlog.forget(id);
        let Some(connection) = self.connection(id) else { return };
        let (client, addr) = (connection.client.id, connection.client.addr.clone());
        let pending = connection.pending_output();
        let counts = &mut self.pubsub.backlog.counts;
        let (count, why) = match reason {
            Reason::Hard => (&mut counts.hard_limit, "client-output-buffer-limit pubsub, hard"),
            Reason::Soft => (&mut counts.soft_limit, "client-output-buffer-limit pubsub, soft"),
            Reason::Together => (&mut counts.forced_disconnect, "publish_buffer_limit"),
        };
        *count += 1;
        tracing::warn!(client, %addr, pending, limit = why, "a client takes its messages too slowly and is cut");
        self.close(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(index: u32) -> ConnectionId {
        ConnectionId { index, generation: 0 }
    }

    /// The soft limit counts from when it is passed, and starts again after a moment below it; the sum follows.
    #[test]
    fn soft_limit_and_sum() {
        let mut backlog = Backlog::default();
        backlog.set_limits(OutputLimit { hard_bytes: 0, soft_bytes: 100, soft_secs: 2 }, 0);
        assert_eq!((backlog.hard_bytes(), backlog.together_max), (usize::MAX, usize::MAX));
        assert!(!backlog.note(id(1), 100, 0) && !backlog.note(id(1), 101, 1000));
        assert!(!backlog.note(id(1), 300, 3000));
        assert!(backlog.note(id(1), 101, 3001));
        assert!(
            !backlog.note(id(1), 99, 3002)
                && !backlog.note(id(1), 101, 9000)
                && !backlog.note(id(1), 101, 11_000)
        );
        assert!(!backlog.note(id(2), 50, 11_000));
        assert_eq!(backlog.bytes, 151);
        assert!(!backlog.note(id(1), 0, 12_000));
        backlog.forget(id(2));
        assert_eq!((backlog.bytes, backlog.slow.len()), (0, 0));
    }
}
