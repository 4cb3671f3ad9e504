//! The table: what is measured, under which load, and what it must come to.
//!
//! A scenario is one thing done to one fresh server; its rows are the figures that come out of it. Every scenario is
//! written out in full, so that a line here, its command line in the report and its row in docs/benchmarks.md can be
//! held next to each other.
//!
//! `must` is the promise: a row that misses it is a defect. `aim` is where the design should arrive.

use crate::benchmark::Load;
use crate::drive::{Drive, Prepare, SCRIPT};
use crate::workloads::{self, KEYS_32, KEYS_4096};

/// What a row's figure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// Processor time of the server per operation, in nanoseconds.
    Cpu,
    /// 99th percentile of reply times, in nanoseconds.
    P99,
    /// 99.99th percentile of reply times, in nanoseconds.
    P9999,
    /// The longest reply time, in nanoseconds.
    Longest,
    /// Growth of resident memory per item, in bytes.
    BytesPerItem,
    /// Growth of resident memory per idle connection, in bytes.
    BytesPerConnection,
    /// Resident memory of a server that holds nothing, in bytes.
    EmptyBytes,
}

impl Metric {
    /// What the figure is called in tables.
    pub fn title(self) -> &'static str {
        match self {
            Self::Cpu => "CPU per op",
            Self::P99 => "p99",
            Self::P9999 => "p99.99",
            Self::Longest => "longest reply",
            Self::BytesPerItem => "memory per item",
            Self::BytesPerConnection => "memory per idle connection",
            Self::EmptyBytes => "memory when empty",
        }
    }

    /// A value with its unit, three digits or so.
    pub fn show(self, value: f64) -> String {
        let scaled = |steps: &[(f64, &str)]| {
            let (unit, name) =
                steps.iter().find(|(unit, _)| value.abs() >= *unit).unwrap_or(&steps[steps.len() - 1]);
            let shown = value / unit;
            let digits = if shown.abs() >= 100.0 {
                0
            } else if shown.abs() >= 10.0 {
                1
            } else {
                2
            };
            format!("{shown:.digits$} {name}")
        };
        match self {
            Self::Cpu | Self::P99 | Self::P9999 | Self::Longest => {
                scaled(&[(1e9, "s"), (1e6, "ms"), (1e3, "us"), (1.0, "ns")])
            }
            Self::BytesPerItem => format!("{value:.1} B"),
            Self::BytesPerConnection | Self::EmptyBytes => {
                scaled(&[(1_048_576.0, "MB"), (1024.0, "KB"), (1.0, "B")])
            }
        }
    }
}

/// A limit that a figure must not exceed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// On ours / Redis.
    Ratio(f64),
    /// On ours alone, in the metric's unit: where Redis' figure is no yardstick.
    Value(f64),
}

/// One figure.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// What the table calls it.
    pub name: &'static str,
    /// Which of the scenario's figures it is.
    pub metric: Metric,
    /// The promise, if there is one.
    pub must: Option<Bound>,
    /// Where the design should arrive, if that is further.
    pub aim: Option<Bound>,
}

/// One thing done to one fresh server.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// The figures it gives.
    pub rows: &'static [Row],
    /// Threads given to servers that can be given threads.
    pub threads: u32,
    /// Rounds by default. Five where figures wander, one where a round is deterministic or takes minutes.
    pub rounds: u32,
    /// What is done.
    pub drive: Drive,
}

/// Full sizes, or a hundredth of them to see that everything works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// A hundredth, but no fewer than a thousand.
    pub quick: bool,
}

impl Sizes {
    /// The size to use where the table says `full`.
    pub fn of(self, full: u64) -> u64 {
        if self.quick { (full / 100).max(1000).min(full) } else { full }
    }
}

const fn ratio(bound: f64) -> Option<Bound> {
    Some(Bound::Ratio(bound))
}

const fn value(bound: f64) -> Option<Bound> {
    Some(Bound::Value(bound))
}

const fn row(name: &'static str, metric: Metric, must: Option<Bound>, aim: Option<Bound>) -> Row {
    Row { name, metric, must, aim }
}

const fn keys_load(
    command: &'static str,
    connections: u32,
    pipeline: u32,
    requests: u64,
    random_below: u64,
) -> Load {
    Load { command, connections, pipeline, requests, random_below }
}

const GET: &str = "GET key:__rand_int__";
const SET: &str = "SET key:__rand_int__ {value:32}";
const SET_4096: &str = "SET key:__rand_int__ {value:4096}";
const MSET: &str = "MSET key:__rand_int__ {value:32} key:__rand_int__ {value:32} key:__rand_int__ {value:32} \
    key:__rand_int__ {value:32} key:__rand_int__ {value:32} key:__rand_int__ {value:32} key:__rand_int__ {value:32} \
    key:__rand_int__ {value:32} key:__rand_int__ {value:32} key:__rand_int__ {value:32}";
const EVALSHA: &str = "EVALSHA {sha} 1 key:__rand_int__ {value:32}";

const MILLION: u64 = 1_000_000;
const PRESENT: Prepare = Prepare::Fill { workload: &KEYS_32, items: MILLION };
const PRESENT_4096: Prepare = Prepare::Fill { workload: &KEYS_4096, items: 100_000 };

/// All scenarios, in the order of the report.
pub const SCENARIOS: &[Scenario] = &[
    // Strings, one thread: where the cost of a command is the cost of the loop around it.
    Scenario {
        rows: &[row("GET P32", Metric::Cpu, ratio(0.42), ratio(0.33))],
        threads: 1,
        rounds: 3,
        drive: Drive::Load {
            prepare: PRESENT,
            load: keys_load(GET, 50, 32, 3 * MILLION, MILLION),
            hits: true,
        },
    },
    Scenario {
        rows: &[row("SET P32", Metric::Cpu, ratio(0.42), ratio(0.33))],
        threads: 1,
        rounds: 3,
        drive: Drive::Load {
            prepare: PRESENT,
            load: keys_load(SET, 50, 32, 3 * MILLION, MILLION),
            hits: false,
        },
    },
    Scenario {
        rows: &[row("INCR P32", Metric::Cpu, None, None)],
        threads: 1,
        rounds: 3,
        drive: Drive::Load {
            prepare: Prepare::Nothing,
            load: keys_load("INCR counter:__rand_int__", 50, 32, 3 * MILLION, MILLION),
            hits: false,
        },
    },
    Scenario {
        rows: &[row("GET P8", Metric::Cpu, None, None)],
        threads: 1,
        rounds: 3,
        drive: Drive::Load {
            prepare: PRESENT,
            load: keys_load(GET, 50, 8, 2 * MILLION, MILLION),
            hits: true,
        },
    },
    Scenario {
        rows: &[row("SET P8", Metric::Cpu, None, None)],
        threads: 1,
        rounds: 3,
        drive: Drive::Load {
            prepare: PRESENT,
            load: keys_load(SET, 50, 8, 2 * MILLION, MILLION),
            hits: false,
        },
    },
    Scenario {
        rows: &[
            row("GET P1", Metric::Cpu, ratio(0.90), ratio(0.75)),
            row("GET P1 p99", Metric::P99, ratio(1.0), None),
        ],
        threads: 1,
        rounds: 5,
        drive: Drive::Load { prepare: PRESENT, load: keys_load(GET, 50, 1, 400_000, MILLION), hits: true },
    },
    Scenario {
        rows: &[
            row("SET P1", Metric::Cpu, ratio(0.90), ratio(0.75)),
            row("SET P1 p99", Metric::P99, ratio(1.0), None),
        ],
        threads: 1,
        rounds: 5,
        drive: Drive::Load { prepare: PRESENT, load: keys_load(SET, 50, 1, 400_000, MILLION), hits: false },
    },
    Scenario {
        rows: &[
            row("GET P1, 1000 connections", Metric::Cpu, None, None),
            row("GET P1, 1000 connections p99", Metric::P99, None, None),
        ],
        threads: 1,
        rounds: 3,
        drive: Drive::Load { prepare: PRESENT, load: keys_load(GET, 1000, 1, 400_000, MILLION), hits: true },
    },
    // Two threads: half of the random keys live on the other one, so this is the price of a message.
    Scenario {
        rows: &[row("GET P32, 2 threads", Metric::Cpu, ratio(0.60), ratio(0.45))],
        threads: 2,
        rounds: 3,
        drive: Drive::Load {
            prepare: PRESENT,
            load: keys_load(GET, 50, 32, 3 * MILLION, MILLION),
            hits: true,
        },
    },
    Scenario {
        rows: &[row("SET P32, 2 threads", Metric::Cpu, ratio(0.60), ratio(0.45))],
        threads: 2,
        rounds: 3,
        drive: Drive::Load {
            prepare: PRESENT,
            load: keys_load(SET, 50, 32, 3 * MILLION, MILLION),
            hits: false,
        },
    },
    Scenario {
        rows: &[
            row("GET P1, 2 threads", Metric::Cpu, ratio(1.30), ratio(1.0)),
            row("GET P1, 2 threads p99", Metric::P99, ratio(1.0), None),
        ],
        threads: 2,
        rounds: 5,
        drive: Drive::Load { prepare: PRESENT, load: keys_load(GET, 50, 1, 400_000, MILLION), hits: true },
    },
    Scenario {
        rows: &[
            row("SET P1, 2 threads", Metric::Cpu, ratio(1.30), ratio(1.0)),
            row("SET P1, 2 threads p99", Metric::P99, ratio(1.0), None),
        ],
        threads: 2,
        rounds: 5,
        drive: Drive::Load { prepare: PRESENT, load: keys_load(SET, 50, 1, 400_000, MILLION), hits: false },
    },
    // Larger requests and values: copying starts to matter.
    Scenario {
        rows: &[row("MSET of 10, P8", Metric::Cpu, ratio(0.55), ratio(0.40))],
        threads: 1,
        rounds: 3,
        drive: Drive::Load { prepare: PRESENT, load: keys_load(MSET, 50, 8, 400_000, MILLION), hits: false },
    },
    Scenario {
        rows: &[row("GET 4 KiB P8", Metric::Cpu, ratio(0.85), ratio(0.70))],
        threads: 1,
        rounds: 3,
        drive: Drive::Load {
            prepare: PRESENT_4096,
            load: keys_load(GET, 50, 8, 500_000, 100_000),
            hits: true,
        },
    },
    Scenario {
        rows: &[row("SET 4 KiB P8", Metric::Cpu, ratio(0.85), ratio(0.70))],
        threads: 1,
        rounds: 3,
        drive: Drive::Load {
            prepare: PRESENT_4096,
            load: keys_load(SET_4096, 50, 8, 500_000, 100_000),
            hits: false,
        },
    },
    // Data types, one big key each.
    Scenario {
        rows: &[row("LPUSH P32", Metric::Cpu, ratio(0.60), None)],
        threads: 1,
        rounds: 3,
        drive: Drive::Load {
            prepare: Prepare::Nothing,
            load: keys_load("LPUSH list {value:32}", 50, 32, 2 * MILLION, MILLION),
            hits: false,
        },
    },
    Scenario {
        rows: &[row("RPOP P32", Metric::Cpu, ratio(0.60), None)],
        threads: 1,
        rounds: 3,
        drive: Drive::Load {
            prepare: Prepare::Fill { workload: &workloads::LIST, items: 2 * MILLION },
            load: keys_load("RPOP list", 50, 32, 2 * MILLION, MILLION),
            hits: false,
        },
    },
    Scenario {
        rows: &[row("LRANGE_100 P32", Metric::Cpu, ratio(0.60), None)],
        threads: 1,
        rounds: 3,
        drive: Drive::Load {
            prepare: Prepare::Fill { workload: &workloads::LIST, items: 100_000 },
            load: keys_load("LRANGE list 0 99", 50, 32, 200_000, MILLION),
            hits: false,
        },
    },
    Scenario {
        rows: &[row("SADD P32", Metric::Cpu, ratio(0.60), None)],
        threads: 1,
        rounds: 3,
        drive: Drive::Load {
            prepare: Prepare::Nothing,
            load: keys_load("SADD set member:__rand_int__", 50, 32, 2 * MILLION, MILLION),
            hits: false,
        },
    },
    Scenario {
        rows: &[row("SPOP P32", Metric::Cpu, ratio(0.60), None)],
        threads: 1,
        rounds: 3,
        drive: Drive::Load {
            prepare: Prepare::Fill { workload: &workloads::BIG_SET, items: 2 * MILLION },
            load: keys_load("SPOP set", 50, 32, 2 * MILLION, MILLION),
            hits: false,
        },
    },
    Scenario {
        rows: &[row("HSET P32", Metric::Cpu, ratio(0.60), None)],
        threads: 1,
        rounds: 3,
        drive: Drive::Load {
            prepare: Prepare::Nothing,
            load: keys_load("HSET hash field:__rand_int__ {value:32}", 50, 32, 2 * MILLION, MILLION),
            hits: false,
        },
    },
    Scenario {
        rows: &[row("ZADD P32", Metric::Cpu, ratio(0.50), None)],
        threads: 1,
        rounds: 3,
        drive: Drive::Load {
            prepare: Prepare::Nothing,
            load: keys_load("ZADD zset __rand_int__ member:__rand_int__", 50, 32, MILLION, MILLION),
            hits: false,
        },
    },
    Scenario {
        rows: &[row("ZRANGE 0 9 P32", Metric::Cpu, ratio(0.60), None)],
        threads: 1,
        rounds: 3,
        drive: Drive::Load {
            prepare: Prepare::Fill { workload: &workloads::BIG_ZSET, items: 100_000 },
            load: keys_load("ZRANGE zset 0 9", 50, 32, MILLION, MILLION),
            hits: false,
        },
    },
    Scenario {
        rows: &[row("XADD P32", Metric::Cpu, ratio(0.60), None)],
        threads: 1,
        rounds: 3,
        drive: Drive::Load {
            prepare: Prepare::Nothing,
            load: keys_load("XADD stream * sensor {value:16} reading {value:16}", 50, 32, MILLION, MILLION),
            hits: false,
        },
    },
    // Several commands at once.
    Scenario {
        rows: &[row("EVALSHA of GET and SET, P16", Metric::Cpu, ratio(0.70), None)],
        threads: 1,
        rounds: 3,
        drive: Drive::Load {
            prepare: Prepare::Script { workload: &KEYS_32, items: MILLION, script: SCRIPT },
            load: keys_load(EVALSHA, 50, 16, MILLION, MILLION),
            hits: true,
        },
    },
    Scenario {
        rows: &[row("MULTI of 4 commands, P8", Metric::Cpu, ratio(0.60), None)],
        threads: 1,
        rounds: 3,
        drive: Drive::Transactions { connections: 50, pipeline: 8, transactions: 400_000, keys: MILLION },
    },
    Scenario {
        rows: &[row("PUBLISH to 100 subscribers, 2 threads", Metric::Cpu, ratio(0.70), None)],
        threads: 2,
        rounds: 3,
        drive: Drive::Publish { subscribers: 100, pipeline: 16, messages: 20_000, in_step: true },
    },
    Scenario {
        rows: &[row("PUBLISH that waits for nobody, the same", Metric::Cpu, ratio(0.70), None)],
        threads: 2,
        rounds: 3,
        drive: Drive::Publish { subscribers: 100, pipeline: 16, messages: 20_000, in_step: false },
    },
    // Memory.
    Scenario {
        rows: &[row("strings: 16 B keys, 32 B values", Metric::BytesPerItem, ratio(0.62), ratio(0.50))],
        threads: 1,
        rounds: 1,
        drive: Drive::Memory { workload: &workloads::STRINGS_32 },
    },
    Scenario {
        rows: &[row("strings: 16 B keys, 200 B values, TTL", Metric::BytesPerItem, ratio(0.76), ratio(0.70))],
        threads: 1,
        rounds: 1,
        drive: Drive::Memory { workload: &workloads::STRINGS_200_TTL },
    },
    Scenario {
        rows: &[row("strings: 16 B keys, integers", Metric::BytesPerItem, ratio(0.60), ratio(0.45))],
        threads: 1,
        rounds: 1,
        drive: Drive::Memory { workload: &workloads::INTEGERS },
    },
    Scenario {
        rows: &[row("one set of 1 M members of 27 B", Metric::BytesPerItem, ratio(0.50), None)],
        threads: 1,
        rounds: 1,
        drive: Drive::Memory { workload: &workloads::BIG_SET },
    },
    Scenario {
        rows: &[row("one sorted set of 1 M members", Metric::BytesPerItem, ratio(0.43), ratio(0.35))],
        threads: 1,
        rounds: 1,
        drive: Drive::Memory { workload: &workloads::BIG_ZSET },
    },
    Scenario {
        rows: &[row("100 k hashes of 10 fields", Metric::BytesPerItem, ratio(0.85), None)],
        threads: 1,
        rounds: 1,
        drive: Drive::Memory { workload: &workloads::HASHES },
    },
    Scenario {
        rows: &[row("100 k lists of 10 elements", Metric::BytesPerItem, ratio(0.62), None)],
        threads: 1,
        rounds: 1,
        drive: Drive::Memory { workload: &workloads::LISTS },
    },
    Scenario {
        rows: &[row("one stream of 1 M entries of 2 fields", Metric::BytesPerItem, ratio(1.0), None)],
        threads: 1,
        rounds: 1,
        drive: Drive::Memory { workload: &workloads::STREAM },
    },
    Scenario {
        rows: &[
            row(
                "empty server, 2 threads",
                Metric::EmptyBytes,
                value(12.0 * 1_048_576.0),
                value(8.0 * 1_048_576.0),
            ),
            row("9000 idle connections, 2 threads", Metric::BytesPerConnection, value(4096.0), value(2048.0)),
        ],
        threads: 2,
        rounds: 1,
        drive: Drive::Idle { connections: 9000 },
    },
    // Reply times while something big happens.
    Scenario {
        rows: &[
            row("growing from 0 to 5 M keys", Metric::Longest, ratio(1.0), None),
            row("growing from 0 to 5 M keys p99.99", Metric::P9999, ratio(1.0), None),
        ],
        threads: 1,
        rounds: 1,
        drive: Drive::Growth { keys: 5 * MILLION },
    },
    Scenario {
        rows: &[row("others during DEL of a set of 5 M", Metric::Longest, value(10e6), None)],
        threads: 1,
        rounds: 3,
        drive: Drive::DuringDelete { workload: &workloads::BIG_SET, key: "set", items: 5 * MILLION },
    },
    Scenario {
        rows: &[row("others during HGETALL of 1 M fields", Metric::Longest, value(10e6), None)],
        threads: 1,
        rounds: 3,
        drive: Drive::DuringReadAll { workload: &workloads::BIG_HASH, key: "hash", items: MILLION },
    },
];

#[cfg(test)]
mod test {
    use super::{Bound, Metric, SCENARIOS, Sizes};
    use std::collections::BTreeSet;

    /// `--only` and the reports go by name, so names must be distinct; an aim must be beyond its promise, and both of
    /// one kind.
    #[test]
    fn the_table_is_consistent() {
        let mut names = BTreeSet::new();
        for row in SCENARIOS.iter().flat_map(|scenario| scenario.rows) {
            assert!(names.insert(row.name), "{} twice", row.name);
            match (row.must, row.aim) {
                (Some(Bound::Ratio(must)), Some(Bound::Ratio(aim)))
                | (Some(Bound::Value(must)), Some(Bound::Value(aim))) => assert!(aim < must, "{}", row.name),
                (_, None) => {}
                other => panic!("{}: {other:?}", row.name),
            }
        }
    }

    /// Quick sizes are small but never so small that LRANGE 0 99 finds less than it asks for.
    #[test]
    fn quick_sizes() {
        let quick = Sizes { quick: true };
        assert_eq!([quick.of(3_000_000), quick.of(100_000), quick.of(50)], [30_000, 1000, 50]);
        assert_eq!(Sizes { quick: false }.of(7), 7);
    }

    /// Units change where a reader expects them to.
    #[test]
    fn values_show_their_unit() {
        assert_eq!(Metric::Cpu.show(1234.0), "1.23 us");
        assert_eq!(Metric::Cpu.show(434.0), "434 ns");
        assert_eq!(Metric::Longest.show(2.5e9), "2.50 s");
        assert_eq!(Metric::BytesPerItem.show(96.04), "96.0 B");
        assert_eq!(Metric::EmptyBytes.show(12.0 * 1_048_576.0), "12.0 MB");
        assert_eq!(Metric::BytesPerConnection.show(0.0), "0.00 B");
    }
}
