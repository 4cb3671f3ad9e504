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
    /// Events since the start.
    total: u64,
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
        self.total += events as u64;
        self.this_ms.events = self.this_ms.events.saturating_add(events as u32);
    }

    /// What was met since the last call.
    #[inline]
    pub fn take_met(&mut self) -> u32 {
        std::mem::take(&mut self.met)
    }

    /// Events met since the start.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// How long to rest before the next look, having met so much with the last.
    #[inline]
    pub fn rest_after(&self, met: u32) -> Option<Duration> {
        let busy =
            self.last_ms.events >= BUSY_EVENTS && self.last_ms.connections.count_ones() >= BUSY_CONNECTIONS;
        (met < FEW && busy).then_some(REST)
    }
}

/// How often a core that has nothing to do looks around by itself.
///
/// A tick costs some 50 us, most of them for waking up: with a hundred in a second two idle cores took 1 % of a CPU.
/// Nothing that a tick does for a core that nobody asks and where nothing expires needs to be done that often.
#[derive(Debug, Default)]
pub struct Idle {
    /// Events met up to the last tick.
    total: u64,
    quiet_ticks: u32,
}

/// Ticks without anything from which on the next one comes late.
const QUIET_TICKS: u32 = 10;
/// When the next tick comes then. Redis, left alone, ticks as often.
const IDLE_TICK: Duration = Duration::from_millis(100);

impl Idle {
    /// A tick is over. `total` as [`Pace::total`] says; `found` if the tick itself had something to do.
    pub fn note_tick(&mut self, total: u64, found: bool) {
        let is_quiet = !found && total == self.total;
        self.quiet_ticks = if is_quiet { self.quiet_ticks.saturating_add(1) } else { 0 };
        self.total = total;
    }

    /// When the next tick is due, if not after the usual time.
    pub fn next_tick(&self, usual: Duration) -> Option<Duration> {
        (self.quiet_ticks >= QUIET_TICKS && usual < IDLE_TICK).then_some(IDLE_TICK)
    }

    /// Something came; true if the next tick is late now.
    pub fn end(&mut self) -> bool {
        std::mem::take(&mut self.quiet_ticks) >= QUIET_TICKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_come_seldom_when_nothing_happens_and_as_usual_when_something_does() {
        let usual = Duration::from_millis(10);
        let mut idle = Idle::default();
        for _ in 0..QUIET_TICKS {
            assert_eq!(idle.next_tick(usual), None);
            idle.note_tick(0, false);
        }
        assert_eq!(idle.next_tick(usual), Some(IDLE_TICK));
        assert_eq!(idle.next_tick(Duration::from_secs(1)), None);
        assert!(idle.end());
        assert_eq!((idle.next_tick(usual), idle.end()), (None, false));
    }

    #[test]
    fn a_core_that_meets_events_or_finds_work_is_not_idle() {
        let usual = Duration::from_millis(10);
        let (mut asked, mut working) = (Idle::default(), Idle::default());
        for tick in 1..100 {
            asked.note_tick(tick, false);
            working.note_tick(0, true);
            assert_eq!((asked.next_tick(usual), working.next_tick(usual)), (None, None));
        }
    }

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
