//! How long the machine itself stood still.
//!
//! A virtual machine is held up by its host now and then, for tens of milliseconds, and no server in it can answer
//! meanwhile. Who reports the longest reply time must say whether that is what was seen: on each processor a thread that
//! comes before all others sleeps for a millisecond at a time, and what it oversleeps no other thread can be blamed for.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::sys;

const NAP: Duration = Duration::from_millis(1);

/// Runs `work` and watches the processors meanwhile. Returns how long one of them stood still at most, if this process
/// may watch (that takes root's rights).
pub fn watch<T>(work: impl FnOnce() -> T) -> (T, Option<Duration>) {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let (stop, longest, refused) = (AtomicBool::new(false), AtomicU64::new(0), AtomicBool::new(false));
    let done = std::thread::scope(|scope| {
        for processor in 0..processors {
            let (stop, longest, refused) = (&stop, &longest, &refused);
            scope.spawn(move || {
                if sys::come_first_on(processor).is_err() {
                    refused.store(true, Ordering::Relaxed);
                    return;
                }
                while !stop.load(Ordering::Relaxed) {
                    let before = Instant::now();
                    std::thread::sleep(NAP);
                    let late = before.elapsed().saturating_sub(NAP).as_micros() as u64;
                    longest.fetch_max(late, Ordering::Relaxed);
                }
            });
        }
        let _stop = Stop(&stop);
        work()
    });
    (done, (!refused.into_inner()).then(|| Duration::from_micros(longest.into_inner())))
}

/// Ends the watching however the work ends: the threads are waited for.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod test {
    use super::*;

    /// What the work answers comes back; a processor oversleeps by more than nothing, and by no more than the work took.
    #[test]
    fn naps_are_measured() {
        let began = Instant::now();
        let (answer, longest) = watch(|| {
            std::thread::sleep(20 * NAP);
            7
        });
        assert_eq!(answer, 7);
        if let Some(longest) = longest {
            assert!(longest > Duration::ZERO && longest < began.elapsed(), "{longest:?}");
        }
    }
}
