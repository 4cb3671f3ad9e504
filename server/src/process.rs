//! What the kernel knows about this process: memory, processor time, the machine it runs on.
//!
//! Read from `/proc` when somebody asks. Where a file is missing or unreadable (another kernel, a strict sandbox) the
//! fact is `None`, and whoever prints it leaves the line out.

use std::path::Path;

/// Bytes of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident now.
    pub rss: u64,
    /// Most that was ever resident.
    pub rss_peak: u64,
    /// Address space.
    pub virtual_size: u64,
    /// Moved out to disk.
    pub swapped: u64,
}

impl Memory {
    /// Of this process, now.
    pub fn now() -> Option<Memory> {
        Memory::parse(&std::fs::read_to_string("/proc/self/status").ok()?)
    }

    fn parse(status: &str) -> Option<Memory> {
        let field = |name: &str| {
            let rest = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
            rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
        };
        Some(Memory {
            rss: field("VmRSS")?,
            rss_peak: field("VmHWM")?,
            virtual_size: field("VmSize")?,
            // Kernels without swap do not print it.
            swapped: field("VmSwap").unwrap_or(0),
        })
    }
}

/// Of files, so much is not held against the process: a release build takes that. More, as of one with debugging
/// information, is.
const PROGRAM_MAX: u64 = 8 << 20;

/// What of this process is in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resident {
    /// Bytes.
    pub all: u64,
    /// Of those, files': the program's own, which the kernel drops and reads again as it likes.
    pub files: u64,
}

impl Resident {
    /// Without files', of which no more than [`PROGRAM_MAX`] is left out.
    pub fn own(&self) -> u64 {
        self.all - self.files.min(PROGRAM_MAX)
    }

    /// Now: much cheaper than [`Memory::now`].
    pub fn now() -> Option<Resident> {
        Resident::parse(&std::fs::read_to_string("/proc/self/statm").ok()?, rustix::param::page_size() as u64)
    }

    fn parse(statm: &str, page: u64) -> Option<Resident> {
        let mut fields = statm.split_ascii_whitespace().skip(1);
        let (all, files): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some(Resident { all: all * page, files: files.min(all) * page })
    }
}

/// Seconds of processor time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cpu {
    /// In the program.
    pub user: f64,
    /// In the kernel.
    pub system: f64,
    /// In the program, of children that have ended.
    pub user_children: f64,
    /// In the kernel, of children that have ended.
    pub system_children: f64,
}

/// Clock ticks per second in `/proc`: the kernel's interface has been fixed at this for every architecture we run on,
/// whatever the kernel's own frequency.
const TICKS_PER_SECOND: f64 = 100.0;

impl Cpu {
    /// Of the whole process, now.
    pub fn now() -> Option<Cpu> {
        Cpu::parse(&std::fs::read_to_string("/proc/self/stat").ok()?)
    }

    /// Of the thread that runs `main`, now.
    pub fn of_main_thread() -> Option<Cpu> {
        let id = std::process::id();
        Cpu::parse(&std::fs::read_to_string(format!("/proc/self/task/{id}/stat")).ok()?)
    }

    fn parse(stat: &str) -> Option<Cpu> {
        // The second field is the program's name in parentheses, which may hold anything, parentheses too.
        let (_, fields) = stat.rsplit_once(')')?;
        // user, system and both of children are fields 14 to 17; the first of `fields` is field 3.
        let mut ticks = fields.split_ascii_whitespace().skip(11).map(|field| field.parse::<f64>().ok());
        let mut seconds = || Some(ticks.next()?? / TICKS_PER_SECOND);
        Some(Cpu {
            user: seconds()?,
            system: seconds()?,
            user_children: seconds()?,
            system_children: seconds()?,
        })
    }
}

/// Memory of the machine (or virtual machine) in bytes.
pub fn machine_memory() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    total.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}

/// Operating system, release and processor, as INFO shows them.
pub fn os() -> String {
    let kernel = |name: &str| {
        let text = std::fs::read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
        text.trim_end().to_string()
    };
    let all = [kernel("ostype"), kernel("osrelease"), std::env::consts::ARCH.to_string()];
    all.iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join(" ")
}

/// Size and used bytes of the file system of a directory.
pub fn disk(dir: &Path) -> Option<(u64, u64)> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let stat = rustix::fs::statvfs(dir).ok()?;
    let size = stat.f_blocks.saturating_mul(stat.f_frsize);
    let free = stat.f_bfree.saturating_mul(stat.f_frsize);
    Some((size, size.saturating_sub(free)))
}

#[cfg(test)]
mod tests {
    use super::{Cpu, Memory};

    /// The fields are found by name, and a file of another shape is refused as a whole.
    #[test]
    fn memory_of_a_status_file() {
        let status = "Name:\tx\nVmPeak:\t  900 kB\nVmSize:\t  800 kB\nVmHWM:\t  70 kB\nVmRSS:\t  60 kB\nVmSwap:\t 5 kB\n";
        let memory = Memory { rss: 61440, rss_peak: 71680, virtual_size: 819_200, swapped: 5120 };
        assert_eq!(Memory::parse(status), Some(memory));
        assert_eq!(Memory::parse("VmSize: 800 kB\n"), None);
        assert_eq!(Memory::parse("VmRSS: many kB\n"), None);
    }

    /// A program's name with spaces and parentheses does not shift the fields.
    #[test]
    fn times_of_a_stat_file() {
        let stat = "7 (a) b (c) S 1 7 7 0 -1 4194304 500 0 0 0 150 50 25 5 20 0 4 0 100";
        let cpu = Cpu { user: 1.5, system: 0.5, user_children: 0.25, system_children: 0.05 };
        assert_eq!(Cpu::parse(stat), Some(cpu));
        assert_eq!(Cpu::parse("7 (a) S 1"), None);
        assert_eq!(Cpu::parse(""), None);
    }

    /// This machine's own files have the shape that is expected.
    #[test]
    fn here() {
        let memory = Memory::now().expect("Linux");
        let resident = super::Resident::now().expect("Linux");
        assert!(resident.all.abs_diff(memory.rss) < 64 << 20);
        assert!(resident.own() > 0 && resident.own() < resident.all);
        let parsed = super::Resident::parse("900 70 20 5 0 30 0\n", 4096);
        assert_eq!(parsed, Some(super::Resident { all: 70 * 4096, files: 20 * 4096 }));
        assert!(memory.rss > 0 && memory.rss <= memory.rss_peak && memory.rss <= memory.virtual_size);
        assert!(Cpu::now().is_some() && Cpu::of_main_thread().is_some());
        assert!(super::machine_memory().expect("Linux") > memory.rss);
        assert!(super::os().starts_with("Linux "));
    }
}
