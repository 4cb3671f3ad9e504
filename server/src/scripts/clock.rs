//! `os.clock()`: processor time, which scripts use to measure themselves.

use rustix::time::{ClockId, clock_gettime};

/// Seconds of processor time of this process.
pub fn seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
