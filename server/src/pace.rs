//! How often a core looks at its sockets.
//!
//! A core that is faster than its clients finds one request with each look and pays for each the look, a sleep and,
//! with the reply, waking a client. Where many clients keep it busy it rests for a moment first, as network cards do
//! with their interrupts: what arrives meanwhile is handled together. With 50 clients at pipeline 1, a GET costs 0.75 to
//! 0.87 of what it costs without, and as the core sleeps no longer in sum, only less often, there are more answers per
//! second and the slowest comes sooner. Few clients, or such that ask seldom, would only wait: they never meet a rest.

use std::time::Duration;

/// Twice as long costs as much and makes the slowest replies of several cores come later.
const REST: Duration = Duration::from_micros(50);
/// Events met since the last rest from which on the next comes without one.
const FEW: u32 = 8;
/// Events and connections in a millisecond from which on there may be rests.
const BUSY_EVENTS: u32 = 24;
const BUSY_CONNECTIONS: u32 = 16;

/// What a core has met lately.
#[derive(Debug, Default)]
pub struct Pace {
    now_ms: u64,
    /// Events since it was last asked.
    met: u32,
    this_ms: Met,
    last_ms: Met,
}

#[derive(Clone, Copy, Debug, Default)]
struct Met {
    events: u32,
    /// A bit for every 64th connection: enough to tell many from few.
    connections: u64,
}

impl Pace {
    /// The clock's new time.
    #[inline]
    pub fn set_now(&mut self, now_ms: u64) {
        if now_ms == self.now_ms {
            return;
        }
        self.last_ms = if now_ms == self.now_ms + 1 { self.this_ms } else { Met::default() };
        self.this_ms = Met::default();
        self.now_ms = now_ms;
    }

    /// A connection is ready.
    #[inline]
    pub fn meet_connection(&mut self, index: u32) {
        self.this_ms.connections |= 1 << (index % u64::BITS);
    }

    /// So many events have come: ready descriptors, messages.
    #[inline]
    pub fn meet(&mut self, events: usize) {
        self.met = self.met.saturating_add(events as u32);
        self.this_ms.events = self.this_ms.events.saturating_add(events as u32);
    }

    /// What was met since the last call.
    #[inline]
    pub fn take_met(&mut self) -> u32 {
        std::mem::take(&mut self.met)
    }

    /// How long to rest before the next look, having met so much with the last.
    #[inline]
    pub fn rest_after(&self, met: u32) -> Option<Duration> {
        let busy =
            self.last_ms.events >= BUSY_EVENTS && self.last_ms.connections.count_ones() >= BUSY_CONNECTIONS;
        (met < FEW && busy).then_some(REST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after_a_millisecond_of(connections: u32, events: usize) -> Pace {
        let mut pace = Pace::default();
        pace.set_now(1000);
        for event in 0..events {
            pace.meet(1);
            pace.meet_connection(event as u32 % connections);
        }
        pace.set_now(1001);
        pace
    }

    #[test]
    fn many_clients_that_come_one_by_one_are_waited_for() {
        assert_eq!(after_a_millisecond_of(50, 80).rest_after(1), Some(REST));
        assert_eq!(after_a_millisecond_of(50, 80).rest_after(FEW - 1), Some(REST));
    }

    #[test]
    fn those_that_come_together_are_not() {
        assert_eq!(after_a_millisecond_of(50, 80).rest_after(FEW), None);
    }

    #[test]
    fn few_clients_never_wait_however_fast_they_ask() {
        assert_eq!(after_a_millisecond_of(15, 100_000).rest_after(1), None);
    }

    #[test]
    fn many_clients_that_ask_seldom_never_wait() {
        assert_eq!(after_a_millisecond_of(1000, 23).rest_after(1), None);
    }

    #[test]
    fn what_was_met_long_ago_does_not_count() {
        let mut pace = after_a_millisecond_of(50, 80);
        pace.set_now(1003);
        assert_eq!(pace.rest_after(1), None);
    }

    #[test]
    fn what_was_met_is_told_once() {
        let mut pace = Pace::default();
        pace.meet(3);
        assert_eq!((pace.take_met(), pace.take_met()), (3, 0));
    }
}
