//! Threads that make way for the cores.
//!
//! Where all processors are busy, a core that a request wakes is not to wait for a thread that encodes and writes. Two
//! things keep it from that. *Nice* says who gets how much. The *slice* says who goes first: up to the end of its slice
//! Linux leaves a thread running, or to the next tick, which is 4 ms away, unless the thread that wakes has asked for a
//! shorter one. So writers ask for the longest there is; since Linux 6.12, before that there was no such wish to have.
//!
//! Measured on two processors, 2 GB written and a client that overwrites: the ten longest replies of a save took 4 to 9 ms
//! with nice alone, and 2 to 5 ms with both. With the class of idle threads they took as long, and a save would not end
//! while others use all processors.

#![expect(unsafe_code, reason = "the C library has no function for this call of the system")]

use std::time::Duration;

/// How much nicer than the cores. One that is nicer by 10 gets a ninth of a processor that it shares with a core.
const NICENESS: i32 = 10;
/// The longest slice that Linux grants.
const SLICE: Duration = Duration::from_millis(100);

/// Makes the calling thread one that makes way. Where that is not allowed, it competes as an equal.
pub fn make_way() {
    if let Ok(niceness) = rustix::process::nice(NICENESS) {
        // Not every sandbox lets it have a slice.
        let _ = set(niceness, SLICE);
    }
}

/// Sets niceness and slice of the calling thread; false if the system does not let it.
fn set(niceness: i32, slice: Duration) -> bool {
    let attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        sched_policy: 0,
        sched_flags: libc::SCHED_FLAG_KEEP_POLICY as u64,
        sched_nice: niceness,
        sched_priority: 0,
        sched_runtime: slice.as_nanos() as u64,
        sched_deadline: 0,
        sched_period: 0,
    };
    let (this_thread, flags) = (0, 0);
    // SAFETY: the pointer leads to a live value of the size that it names; the call reads it and keeps nothing.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, this_thread, &raw const attributes, flags) };
    result == 0
}

#[cfg(test)]
mod tests {
    use super::{NICENESS, make_way};

    /// Only the thread that asks becomes nice, and others stay as they were.
    #[test]
    fn one_thread() {
        let niceness = || rustix::process::getpriority_process(Some(rustix::thread::gettid()));
        let before = niceness().expect("it is allowed to look");
        let there = std::thread::spawn(move || {
            make_way();
            niceness().expect("it is allowed to look")
        });
        assert_eq!(there.join().expect("no panic"), (before + NICENESS).min(19));
        assert_eq!(niceness().expect("it is allowed to look"), before);
    }
}
