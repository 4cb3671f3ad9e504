//! What LATENCY shows: how the times of each command are distributed, and when something took too long.
//!
//! Plain data of one core, like all statistics; LATENCY merges what the cores have.

use std::collections::{BTreeMap, VecDeque};

/// The shortest time that is told from shorter ones, as a power of two of nanoseconds: about a microsecond, below
/// which Redis does not look either.
const SHORTEST_LOG2: u32 = 10;
/// Buckets, each twice as wide as the one before; the last one holds all above half a second.
const BUCKETS: usize = 21;

/// Times of one command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BUCKETS],
}

/// The longest time in bucket `at`, in nanoseconds. Redis keeps two digits, so that its buckets reach 1/128 beyond the
/// power of two; the same bounds make the same replies.
const fn bound(at: usize) -> u64 {
    let power = 1 << (SHORTEST_LOG2 as usize + at);
    power + power / 128 - 1
}

impl Histogram {
    /// Counts `calls` that took this long each.
    #[inline]
    pub fn count(&mut self, nanos: u64, calls: u64) {
        let nearest = (nanos.max(1).ilog2()).saturating_sub(SHORTEST_LOG2) as usize;
        let at = nearest.min(BUCKETS - 1);
        let at = if nanos > bound(at) { (at + 1).min(BUCKETS - 1) } else { at };
        self.counts[at] += calls;
    }

    /// Adds what another core has counted.
    pub fn add(&mut self, other: &Histogram) {
        for (count, other) in self.counts.iter_mut().zip(other.counts) {
            *count += other;
        }
    }

    /// Calls counted.
    pub fn calls(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The bounds in microseconds, each with the calls that took at most this long; only where the number grows.
    pub fn cumulative(&self) -> Vec<(u64, u64)> {
        let mut sum = 0;
        let mut steps = Vec::new();
        for (at, count) in self.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            sum += count;
            steps.push((bound(at) / 1000, sum));
        }
        steps
    }

    /// The time in microseconds within which this share (0 to 100) of the calls ended.
    pub fn percentile_us(&self, percent: f64) -> f64 {
        let wanted = ((percent / 100.0 * self.calls() as f64).ceil() as u64).max(1);
        let mut sum = 0;
        for (at, count) in self.counts.iter().enumerate() {
            sum += count;
            if sum >= wanted {
                return bound(at) as f64 / 1000.0;
            }
        }
        0.0
    }
}

/// Samples kept of each event, as in Redis.
pub const SAMPLES_MAX: usize = 160;

/// What took too long, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Samples {
    /// Unix seconds and milliseconds, oldest first; one sample a second, the worst.
    pub samples: VecDeque<(u64, u64)>,
    /// The worst ever, even when its sample is gone.
    pub max_ms: u64,
}

impl Samples {
    /// Notes one; times do not go back by more than the clock does.
    pub fn note(&mut self, at_s: u64, ms: u64) {
        self.max_ms = self.max_ms.max(ms);
        if let Some((last, worst)) = self.samples.back_mut()
            && *last >= at_s
        {
            *worst = ms.max(*worst);
            return;
        }
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back((at_s, ms));
    }

    /// The samples of several cores as if they came from one.
    pub fn merged(of_cores: impl IntoIterator<Item = Samples>) -> Samples {
        let (mut by_second, mut max_ms) = (BTreeMap::<u64, u64>::new(), 0);
        for core in of_cores {
            max_ms = core.max_ms.max(max_ms);
            for (at, ms) in core.samples {
                let worst = by_second.entry(at).or_default();
                *worst = ms.max(*worst);
            }
        }
        let too_many = by_second.len().saturating_sub(SAMPLES_MAX);
        Samples { samples: by_second.into_iter().skip(too_many).collect(), max_ms }
    }
}

/// The events of one core by name.
pub type Events = BTreeMap<&'static str, Samples>;

#[cfg(test)]
mod tests {
    use super::*;

    /// The bounds are those that Redis 7.0 prints.
    #[test]
    fn bounds() {
        let shown: Vec<u64> = (0..BUCKETS).map(|at| bound(at) / 1000).collect();
        assert_eq!(shown[..12], [1, 2, 4, 8, 16, 33, 66, 132, 264, 528, 1056, 2113]);
        assert_eq!(shown[15..17], [33_816, 67_633]);
    }

    /// Every time is counted in the first bucket that reaches it.
    #[test]
    fn buckets() {
        for at in 0..BUCKETS {
            for (nanos, bucket) in [(bound(at), at), (bound(at) + 1, (at + 1).min(BUCKETS - 1))] {
                let mut histogram = Histogram::default();
                histogram.count(nanos, 3);
                assert_eq!(histogram.counts[bucket], 3, "{nanos} ns");
            }
        }
        let mut histogram = Histogram::default();
        histogram.count(0, 1);
        histogram.count(u64::MAX, 2);
        histogram.count(3000, 4);
        assert_eq!(histogram.cumulative(), [(1, 1), (4, 5), (bound(BUCKETS - 1) / 1000, 7)]);
        assert_eq!(histogram.calls(), 7);
        assert_eq!(histogram.percentile_us(50.0), 4.127);
    }

    /// One sample a second, the worst; at most 160; the worst of all times stays.
    #[test]
    fn samples() {
        let (mut one, mut other) = (Samples::default(), Samples::default());
        one.note(1, 900);
        for second in 0..SAMPLES_MAX as u64 {
            one.note(10 + second, 5);
            one.note(10 + second, 3);
            other.note(11 + second, 7);
        }
        assert_eq!(one.samples.len(), SAMPLES_MAX);
        assert_eq!((one.max_ms, one.samples[0]), (900, (10, 5)));
        let merged = Samples::merged([one, other]);
        assert_eq!((merged.samples.len(), merged.max_ms), (SAMPLES_MAX, 900));
        assert_eq!((merged.samples[0], merged.samples[SAMPLES_MAX - 1]), ((11, 7), (170, 7)));
    }
}
