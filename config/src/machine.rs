//! What the machine grants: CPUs and memory, and which limit said so.
//!
//! In a container the hardware is the wrong answer: the kernel throttles a process above its CPU quota and
//! kills it above its memory limit. Both live in cgroups, in two generations of layout, and a limit may be
//! set on any ancestor of the group the process is in; the tightest holds. Everything is read through a
//! function that is handed in, so the tests describe machines as lists of files; [`Machine::here`] reads the
//! real ones.
//!
//! CPUs come from `Cpus_allowed_list` and not from `sched_getaffinity`: it is the same mask without `unsafe`.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Deepest nesting of cgroups looked at; Kubernetes uses four levels, systemd six.
const CGROUP_DEPTH_MAX: usize = 64;
/// Version 1 has no word for "no limit": the largest multiple of a page stands for it.
const V1_UNLIMITED: u64 = 1 << 60;

/// A number and what it was read from, for the banner at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<T> {
    /// The number.
    pub value: T,
    /// Which limit, and the file it stands in.
    pub source: Source,
}

/// Where a limit came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// CPU quota of a cgroup.
    CpuQuota(PathBuf),
    /// The CPUs the scheduler may put the process on.
    Affinity,
    /// Memory limit of a cgroup.
    MemoryLimit(PathBuf),
    /// What the kernel could hand out without swapping.
    MemAvailable,
    /// What the caller assumed, as nothing could be read.
    Assumed,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::CpuQuota(path) => write!(f, "CPU quota in {}", path.display()),
            Source::Affinity => f.write_str("CPUs of the process' affinity mask"),
            Source::MemoryLimit(path) => write!(f, "memory limit in {}", path.display()),
            Source::MemAvailable => f.write_str("MemAvailable in /proc/meminfo"),
            Source::Assumed => f.write_str("assumed, nothing could be read"),
        }
    }
}

/// What the machine grants this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// CPUs worth a thread each, at least 1: a quota of 200m gets one thread.
    pub cpus: Found<usize>,
    /// Bytes of memory; `None` when neither a limit nor the kernel's estimate could be read.
    pub memory: Option<Found<u64>>,
}

/// Reads a small text file.
pub type ReadFile<'a> = &'a dyn Fn(&Path) -> io::Result<String>;

impl Machine {
    /// Reads `/proc` and `/sys/fs/cgroup`.
    pub fn here() -> Machine {
        let cpus = std::thread::available_parallelism().map_or(1, |count| count.get());
        Machine::read(&|path| std::fs::read_to_string(path), cpus)
    }

    /// Reads through `read_file`. `cpus_assumed` is used when the affinity mask cannot be read.
    pub fn read(read_file: ReadFile<'_>, cpus_assumed: usize) -> Machine {
        let groups = Groups::read(read_file);
        Machine { cpus: cpus(read_file, &groups, cpus_assumed), memory: memory(read_file, &groups) }
    }
}

/// The directories whose limits hold for this process, from its own group up to the root.
struct Groups {
    v2: Vec<PathBuf>,
    v1_cpu: Vec<PathBuf>,
    v1_memory: Vec<PathBuf>,
}

impl Groups {
    /// `/proc/self/cgroup` has a line `id:controllers:path` per hierarchy; version 2 is `0::path`.
    ///
    /// Without a cgroup namespace the path is the host's, of which a container may see nothing or only its
    /// own end mounted as the root; hence every ancestor is tried and the root always is.
    fn read(read_file: ReadFile<'_>) -> Groups {
        let lines = read_file(Path::new("/proc/self/cgroup")).unwrap_or_default();
        let path_of = |controller: &str| {
            lines.lines().find_map(|line| {
                let (_, rest) = line.split_once(':')?;
                let (controllers, path) = rest.split_once(':')?;
                let found = match controller {
                    "" => controllers.is_empty(),
                    controller => controllers.split(',').any(|c| c == controller),
                };
                found.then(|| path.to_owned())
            })
        };
        let under =
            |mount: &str, path: Option<String>| ancestors(Path::new(mount), path.as_deref().unwrap_or("/"));
        let mut v1_cpu = under("/sys/fs/cgroup/cpu", path_of("cpu"));
        v1_cpu.extend(under("/sys/fs/cgroup/cpu,cpuacct", path_of("cpu")));
        Groups {
            v2: under("/sys/fs/cgroup", path_of("")),
            v1_cpu,
            v1_memory: under("/sys/fs/cgroup/memory", path_of("memory")),
        }
    }
}

/// `mount/a/b`, `mount/a`, `mount` for `/a/b`. A path that climbs (`/../..`, a group outside the namespace)
/// is the root.
fn ancestors(mount: &Path, path: &str) -> Vec<PathBuf> {
    let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).collect();
    let names = if names.contains(&"..") { &[] } else { &names[..names.len().min(CGROUP_DEPTH_MAX)] };
    let directory = |depth: usize| names[..depth].iter().fold(mount.to_owned(), |path, name| path.join(name));
    (0..=names.len()).rev().map(directory).collect()
}

/// The smaller of two findings; the first when they are equal.
fn tighter<T: PartialOrd>(a: Option<Found<T>>, b: Option<Found<T>>) -> Option<Found<T>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if b.value < a.value { b } else { a }),
        (a, b) => a.or(b),
    }
}

fn cpus(read_file: ReadFile<'_>, groups: &Groups, assumed: usize) -> Found<usize> {
    let v2 = groups.v2.iter().map(|directory| {
        let path = directory.join("cpu.max");
        let text = read_file(&path).ok()?;
        let mut words = text.split_ascii_whitespace();
        let quota = words.next()?.parse().ok()?;
        let period = words.next().map_or(Some(100_000), |word| word.parse().ok())?;
        quota_cpus(quota, period, path)
    });
    let v1 = groups.v1_cpu.iter().map(|directory| {
        let path = directory.join("cpu.cfs_quota_us");
        // -1 means no quota and does not parse.
        let quota = read_file(&path).ok()?.trim().parse().ok()?;
        let period = read_file(&directory.join("cpu.cfs_period_us")).ok()?.trim().parse().ok()?;
        quota_cpus(quota, period, path)
    });
    let status = read_file(Path::new("/proc/self/status")).ok();
    let affinity = status
        .as_deref()
        .and_then(|text| text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")))
        .and_then(list_len)
        .map(|value| Found { value, source: Source::Affinity });
    let quota = v2.chain(v1).fold(None, tighter);
    tighter(affinity, quota).unwrap_or(Found { value: assumed.max(1), source: Source::Assumed })
}

/// A fraction of a CPU rounds up: 1500m may keep two threads busy, and 200m still needs one.
fn quota_cpus(quota: u64, period: u64, path: PathBuf) -> Option<Found<usize>> {
    if quota == 0 || period == 0 {
        return None;
    }
    let value = usize::try_from(quota.div_ceil(period)).ok()?;
    Some(Found { value, source: Source::CpuQuota(path) })
}

/// How many numbers `0-3,8,10-11` lists. `None` when it lists none or is not such a list.
fn list_len(text: &str) -> Option<usize> {
    let len = text.trim().split(',').try_fold(0usize, |sum, part| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to): (usize, usize) = (from.parse().ok()?, to.parse().ok()?);
        sum.checked_add(to.checked_sub(from)?.checked_add(1)?)
    })?;
    (len > 0).then_some(len)
}

fn memory(read_file: ReadFile<'_>, groups: &Groups) -> Option<Found<u64>> {
    let limit = |path: PathBuf| {
        let value: u64 = read_file(&path).ok()?.trim().parse().ok()?;
        (value < V1_UNLIMITED).then_some(Found { value, source: Source::MemoryLimit(path) })
    };
    // Above memory.high the kernel throttles allocations to a crawl: for a cache that is as good as a limit.
    let v2 =
        groups.v2.iter().flat_map(|directory| [directory.join("memory.max"), directory.join("memory.high")]);
    let v1 = groups.v1_memory.iter().map(|directory| directory.join("memory.limit_in_bytes"));
    let limits = v2.chain(v1).map(limit).fold(None, tighter);
    let meminfo = read_file(Path::new("/proc/meminfo")).ok();
    let available = meminfo
        .as_deref()
        .and_then(|text| text.lines().find_map(|line| line.strip_prefix("MemAvailable:")))
        .and_then(|rest| rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024))
        .map(|value| Found { value, source: Source::MemAvailable });
    tighter(limits, available)
}

#[cfg(test)]
mod tests {
    use super::{Found, Machine, Source};
    use std::io;

    /// A machine as a list of files.
    fn machine(files: &[(&str, &str)]) -> Machine {
        Machine::read(
            &|path| {
                let file = files.iter().find(|(name, _)| path.as_os_str() == *name);
                file.map(|(_, text)| text.to_string()).ok_or_else(|| io::ErrorKind::NotFound.into())
            },
            3,
        )
    }

    fn quota(value: usize, path: &str) -> Found<usize> {
        Found { value, source: Source::CpuQuota(path.into()) }
    }

    fn limit(value: u64, path: &str) -> Option<Found<u64>> {
        Some(Found { value, source: Source::MemoryLimit(path.into()) })
    }

    const MEMINFO: (&str, &str) =
        ("/proc/meminfo", "MemTotal:  8000 kB\nMemFree: 1 kB\nMemAvailable:    4000 kB\n");
    const STATUS: (&str, &str) =
        ("/proc/self/status", "Name:\tx\nCpus_allowed:\tff\nCpus_allowed_list:\t0-3,6,8-9\n");

    #[test]
    fn a_bare_machine() {
        let found = machine(&[MEMINFO, STATUS]);
        assert_eq!(found.cpus, Found { value: 7, source: Source::Affinity });
        assert_eq!(found.memory, Some(Found { value: 4_096_000, source: Source::MemAvailable }));
    }

    #[test]
    fn nothing_can_be_read() {
        let found = machine(&[]);
        assert_eq!(found.cpus, Found { value: 3, source: Source::Assumed });
        assert_eq!(found.memory, None);
    }

    /// A pod with a cgroup namespace: its own group is the root. A fifth of a CPU is one thread.
    #[test]
    fn a_pod() {
        let found = machine(&[
            MEMINFO,
            STATUS,
            ("/proc/self/cgroup", "0::/\n"),
            ("/sys/fs/cgroup/cpu.max", "20000 100000\n"),
            ("/sys/fs/cgroup/memory.max", "1048576\n"),
            ("/sys/fs/cgroup/memory.high", "max\n"),
        ]);
        assert_eq!(found.cpus, quota(1, "/sys/fs/cgroup/cpu.max"));
        assert_eq!(found.memory, limit(1_048_576, "/sys/fs/cgroup/memory.max"));
        assert_eq!(found.cpus.source.to_string(), "CPU quota in /sys/fs/cgroup/cpu.max");
    }

    /// The limit that holds may be an ancestor's; a process above memory.high is stalled before it meets
    /// memory.max.
    #[test]
    fn nested_groups() {
        let found = machine(&[
            MEMINFO,
            STATUS,
            ("/proc/self/cgroup", "0::/a.slice/b.scope\n"),
            ("/sys/fs/cgroup/a.slice/b.scope/cpu.max", "max 100000\n"),
            ("/sys/fs/cgroup/a.slice/cpu.max", "250000 100000\n"),
            ("/sys/fs/cgroup/a.slice/b.scope/memory.max", "3000000\n"),
            ("/sys/fs/cgroup/a.slice/b.scope/memory.high", "2000000\n"),
            ("/sys/fs/cgroup/a.slice/memory.max", "max\n"),
        ]);
        assert_eq!(found.cpus, quota(3, "/sys/fs/cgroup/a.slice/cpu.max"));
        assert_eq!(found.memory, limit(2_000_000, "/sys/fs/cgroup/a.slice/b.scope/memory.high"));
    }

    /// The path is the host's and means nothing in here: the root still has the container's files.
    #[test]
    fn a_path_of_the_host() {
        for path in ["/kubepods/pod1/x", "/../../x"] {
            let found = machine(&[
                STATUS,
                ("/proc/self/cgroup", &format!("0::{path}\n")),
                ("/sys/fs/cgroup/cpu.max", "150000 100000\n"),
                ("/sys/fs/cgroup/memory.max", "1000\n"),
            ]);
            assert_eq!(found.cpus, quota(2, "/sys/fs/cgroup/cpu.max"));
            assert_eq!(found.memory, limit(1000, "/sys/fs/cgroup/memory.max"));
        }
    }

    #[test]
    fn version_one() {
        let found = machine(&[
            MEMINFO,
            STATUS,
            ("/proc/self/cgroup", "11:memory:/docker/1\n4:cpu,cpuacct:/docker/1\n0::/system.slice\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_quota_us", "200000\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_period_us", "100000\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
            ("/sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes", "9223372036854771712\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "2048\n"),
        ]);
        assert_eq!(found.cpus, quota(2, "/sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_quota_us"));
        assert_eq!(found.memory, limit(2048, "/sys/fs/cgroup/memory/memory.limit_in_bytes"));
    }

    /// Files that make no sense are as good as missing.
    #[test]
    fn nonsense() {
        let found = machine(&[
            ("/proc/meminfo", "MemAvailable: 18446744073709551615 kB\n"),
            ("/proc/self/status", "Cpus_allowed_list:\t5-2\n"),
            ("/proc/self/cgroup", "::::\nx\n0:\n"),
            ("/sys/fs/cgroup/cpu.max", "100 0\n"),
            ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "0\n"),
            ("/sys/fs/cgroup/memory.max", "-5\n"),
        ]);
        assert_eq!(found, Machine { cpus: Found { value: 3, source: Source::Assumed }, memory: None });
    }

    /// The real files of whatever runs the tests.
    #[test]
    fn here() {
        let machine = Machine::here();
        assert!(machine.cpus.value >= 1);
        assert!(machine.memory.is_none_or(|memory| memory.value > 1 << 20));
    }
}
