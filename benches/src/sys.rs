//! The system calls that std does not offer, each behind a safe function.
//!
//! Processor time comes from the process's own CPU clock. The alternatives were /proc/PID/stat, which counts in
//! ticks of 10 ms, and the sum over /proc/PID/task/*/schedstat, which is in nanoseconds but misses threads that have
//! ended and lags up to one tick behind for a thread that is running right now. The clock has neither fault, is one
//! call, and counts user and system time of all threads.
#![expect(
    unsafe_code,
    reason = "prctl, the CPU clock of another process, setrlimit and the scheduler's calls have no safe wrapper in std"
)]

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

/// Makes the kernel kill the child when the thread that spawns it ends. Drop does not run on ctrl-c, on `kill` or
/// on a panic that aborts; this covers all of them.
pub fn die_with_parent(command: &mut Command) {
    let parent = std::process::id();
    let hook = move || {
        // SAFETY: prctl(PR_SET_PDEATHSIG) takes one integer and touches no memory.
        let set = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
        if set != 0 {
            return Err(io::Error::last_os_error());
        }
        // The parent may have ended between fork and prctl: no signal would ever come then.
        if std::os::unix::process::parent_id() != parent {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(())
    };
    // SAFETY: the hook runs between fork and exec and calls only prctl and getppid, which are async-signal-safe; it
    // neither allocates nor takes a lock (io::Error of an errno is a plain value).
    unsafe { command.pre_exec(hook) };
}

/// User and system time of all threads of a process since its start, ended threads included.
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| io::Error::from_raw_os_error(libc::ESRCH))?;
    let mut clock: libc::clockid_t = 0;
    // SAFETY: the pointer is to a live local of the right type, written before the call returns.
    let code = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
    if code != 0 {
        return Err(io::Error::from_raw_os_error(code));
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: as above; an id of a process that has ended is an error, not undefined.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).expect("below a second")))
}

/// Raises the soft limit of open files to the hard one, for this process and the servers it starts; answers the
/// limit now in force.
pub fn raise_open_files() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live local of the right type.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as above; the call only reads it.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(limit.rlim_cur)
}

/// Ties the calling thread to one processor, where it comes before all threads without real-time priority. That needs
/// a privilege.
pub fn come_first_on(processor: usize) -> io::Result<()> {
    // SAFETY: plain integers, for which zero is a value.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the macro's function checks the number against the size of the set.
    unsafe { libc::CPU_SET(processor, &mut set) };
    // SAFETY: the pointer is to a live local of the size given; zero is the calling thread.
    if unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: plain integers, for which zero is a value.
    let mut param: libc::sched_param = unsafe { std::mem::zeroed() };
    param.sched_priority = 50;
    // SAFETY: as above, for the parameter.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const param) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod test {
    use super::cpu_time;
    use std::time::Duration;

    /// The clock counts what a thread burnt even after the thread has ended, which schedstat would not.
    #[test]
    fn ended_threads_are_counted() {
        let own = std::process::id();
        let before = cpu_time(own).unwrap();
        let burnt = std::thread::spawn(move || {
            let start = cpu_time(own).unwrap();
            while cpu_time(own).unwrap() - start < Duration::from_millis(30) {}
        });
        burnt.join().unwrap();
        assert!(cpu_time(own).unwrap() - before >= Duration::from_millis(30));
    }

    /// A process that does not exist is an error.
    #[test]
    fn no_such_process() {
        assert!(cpu_time(u32::MAX).is_err());
        assert!(cpu_time(4_194_305).is_err(), "above the largest possible pid");
    }
}
