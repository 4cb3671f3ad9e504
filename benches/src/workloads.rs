//! The data that benches load: named, seeded, the same bytes on every run and for every server.
//!
//! A workload speaks in commands, because that is what all consumers have in common: the comparison sends them over
//! TCP, a bench of one structure takes the arguments and feeds its structure. Random bytes come from one xorshift
//! generator, seeded per workload, so adding a workload moves no other.

use std::io::Write;
use std::ops::ControlFlow;

/// Where a workload's commands go, one call per command, name first. `Break` stops the workload.
pub type Emit<'a> = dyn FnMut(&[&[u8]]) -> ControlFlow<()> + 'a;

/// One data set.
pub struct Workload {
    /// What `--only` and the reports call it.
    pub name: &'static str,
    /// What is in it, for readers of the report.
    pub what: &'static str,
    /// Items at full size: keys, members, entries, hashes or lists.
    pub items: u64,
    seed: u64,
    fill: fn(&mut Rng, u64, &mut Emit<'_>) -> ControlFlow<()>,
}

impl Workload {
    /// Emits the commands that build the first `items` items.
    pub fn commands(&self, items: u64, emit: &mut Emit<'_>) -> ControlFlow<()> {
        (self.fill)(&mut Rng::new(self.seed), items, emit)
    }
}

/// The keyspace of redis-benchmark, complete: `key:000000000000` and up, values of 32 B.
pub const KEYS_32: Workload = Workload {
    name: "keys-32",
    what: "every key that redis-benchmark -r will ask for, values of 32 B",
    items: 1_000_000,
    seed: 1,
    fill: |rng, items, emit| keys(rng, items, 32, emit),
};

/// The keyspace of redis-benchmark with values of 4 KiB. A tenth of the keys, or it would be 4 GB.
pub const KEYS_4096: Workload = Workload {
    name: "keys-4096",
    what: "every key that redis-benchmark -r will ask for, values of 4 KiB",
    items: 100_000,
    seed: 2,
    fill: |rng, items, emit| keys(rng, items, 4096, emit),
};

/// Short values: where overhead per key is most of the memory.
pub const STRINGS_32: Workload = Workload {
    name: "strings-32",
    what: "keys of 16 B, values of 32 B",
    items: 1_000_000,
    seed: 3,
    fill: |rng, items, emit| {
        let (mut key, mut value) = (Vec::new(), [0; 32]);
        for index in 0..items {
            spread_key(&mut key, "key:", index);
            rng.text(&mut value);
            emit(&[b"SET", &key, &value])?;
        }
        ControlFlow::Continue(())
    },
};

/// The usual cache entry: a serialised object with an expiry.
pub const STRINGS_200_TTL: Workload = Workload {
    name: "strings-200-ttl",
    what: "keys of 16 B, values of 200 B, expiry in 100000 s to 200000 s",
    items: 1_000_000,
    seed: 4,
    fill: |rng, items, emit| {
        let (mut key, mut value, mut seconds) = (Vec::new(), [0; 200], Vec::new());
        for index in 0..items {
            spread_key(&mut key, "key:", index);
            rng.text(&mut value);
            number(&mut seconds, 100_000 + rng.below(100_000));
            emit(&[b"SET", &key, &value, b"EX", &seconds])?;
        }
        ControlFlow::Continue(())
    },
};

/// Counters: a server that notices integers needs no value at all.
pub const INTEGERS: Workload = Workload {
    name: "integers",
    what: "keys of 16 B, integer values below a thousand million",
    items: 1_000_000,
    seed: 5,
    fill: |rng, items, emit| {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        for index in 0..items {
            spread_key(&mut key, "key:", index);
            number(&mut value, rng.below(1_000_000_000));
            emit(&[b"SET", &key, &value])?;
        }
        ControlFlow::Continue(())
    },
};

/// Members per SADD and pairs per ZADD or HSET while filling one big key: few enough for small requests, enough
/// that loading is not about parsing command names.
const CHUNK: usize = 100;

/// One big set.
pub const BIG_SET: Workload = Workload {
    name: "big-set",
    what: "one set, members of 27 B",
    items: 1_000_000,
    seed: 6,
    fill: |_, items, emit| {
        chunked(b"SADD", b"set", items, 1, emit, |index, cells| member(&mut cells[0], index))
    },
};

/// One big sorted set over the members of [`BIG_SET`]. Scores are fractions, so no server can hold them as integers.
pub const BIG_ZSET: Workload = Workload {
    name: "big-zset",
    what: "one sorted set, the members of big-set, random fractional scores below a million",
    items: 1_000_000,
    seed: 7,
    fill: |rng, items, emit| {
        chunked(b"ZADD", b"zset", items, 2, emit, |index, cells| {
            cells[0].clear();
            let score = rng.below(1_000_000_000_000);
            write!(cells[0], "{}.{:06}", score / 1_000_000, score % 1_000_000).expect("a Vec takes all");
            member(&mut cells[1], index);
        })
    },
};

/// One big hash; also what the HGETALL row reads, so field and value widths are constants.
pub const BIG_HASH: Workload = Workload {
    name: "big-hash",
    what: "one hash, fields of 16 B, values of 32 B",
    items: 1_000_000,
    seed: 8,
    fill: |rng, items, emit| {
        chunked(b"HSET", b"hash", items, 2, emit, |index, cells| {
            spread_key(&mut cells[0], "fld:", index);
            cells[1].resize(32, 0);
            rng.text(&mut cells[1]);
        })
    },
};

/// Many small hashes: one per user or session.
pub const HASHES: Workload = Workload {
    name: "hashes",
    what: "hashes of 10 fields of 7 B with values of 12 B",
    items: 100_000,
    seed: 9,
    fill: |rng, items, emit| {
        const FIELDS: [&[u8]; 10] = [
            b"field:0", b"field:1", b"field:2", b"field:3", b"field:4", b"field:5", b"field:6", b"field:7",
            b"field:8", b"field:9",
        ];
        let (mut key, mut values) = (Vec::new(), [[0; 12]; 10]);
        for index in 0..items {
            spread_key(&mut key, "hsh:", index);
            values.iter_mut().for_each(|value| rng.text(value));
            let mut args: Vec<&[u8]> = vec![b"HSET", &key];
            args.extend(FIELDS.iter().zip(&values).flat_map(|(field, value)| [*field, value.as_slice()]));
            emit(&args)?;
        }
        ControlFlow::Continue(())
    },
};

/// Many small lists: recent items per user.
pub const LISTS: Workload = Workload {
    name: "lists",
    what: "lists of 10 elements of 10 B",
    items: 100_000,
    seed: 10,
    fill: |rng, items, emit| {
        let (mut key, mut values) = (Vec::new(), [[0; 10]; 10]);
        for index in 0..items {
            spread_key(&mut key, "lst:", index);
            values.iter_mut().for_each(|value| rng.text(value));
            let mut args: Vec<&[u8]> = vec![b"RPUSH", &key];
            args.extend(values.iter().map(<[u8; 10]>::as_slice));
            emit(&args)?;
        }
        ControlFlow::Continue(())
    },
};

/// One log. Ids are given, because `*` would make the bytes depend on the day; they advance by 0 to 2 ms, as those of
/// a busy producer do.
pub const STREAM: Workload = Workload {
    name: "stream",
    what: "one stream, entries of 2 fields with values of 16 B",
    items: 1_000_000,
    seed: 11,
    fill: |rng, items, emit| {
        let (mut id, mut values, mut ms, mut seq) = (Vec::new(), [[0; 16]; 2], 1_700_000_000_000_u64, 0_u64);
        for _ in 0..items {
            let step = rng.below(3);
            (ms, seq) = if step == 0 { (ms, seq + 1) } else { (ms + step, 0) };
            id.clear();
            write!(id, "{ms}-{seq}").expect("a Vec takes all");
            values.iter_mut().for_each(|value| rng.text(value));
            emit(&[b"XADD", b"stream", &id, b"sensor", &values[0], b"reading", &values[1]])?;
        }
        ControlFlow::Continue(())
    },
};

/// One list, for LRANGE and RPOP rows.
pub const LIST: Workload = Workload {
    name: "list",
    what: "one list, elements of 16 B",
    items: 1_000_000,
    seed: 12,
    fill: |rng, items, emit| {
        chunked(b"RPUSH", b"list", items, 1, emit, |_, cells| {
            cells[0].resize(16, 0);
            rng.text(&mut cells[0]);
        })
    },
};

/// All of them, for tests and for benches that want every shape.
pub const ALL: &[&Workload] = &[
    &KEYS_32,
    &KEYS_4096,
    &STRINGS_32,
    &STRINGS_200_TTL,
    &INTEGERS,
    &BIG_SET,
    &BIG_ZSET,
    &BIG_HASH,
    &HASHES,
    &LISTS,
    &STREAM,
    &LIST,
];

/// The generator behind all workloads: xorshift64*, seeded through splitmix64 so that seeds 1, 2, 3 do not start
/// alike. Speed and repeatability matter here, cryptographic quality does not.
pub struct Rng(u64);

impl Rng {
    /// A generator whose sequence depends on the seed alone.
    pub fn new(seed: u64) -> Self {
        let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Self((z ^ (z >> 31)) | 1) // xorshift must not start at zero
    }

    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`, which is not zero. The high half of a product: the bias is below 2^-24 for every bound
    /// used here.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "nothing is below zero");
        let wide = u128::from(self.bits()) * u128::from(bound);
        u64::try_from(wide >> 64).expect("the high half of 128 bits")
    }

    /// Fills with letters, digits, `-` and `_`: six random bits to a byte, so nothing compresses them much, and all
    /// servers see plain text.
    pub fn text(&mut self, out: &mut [u8]) {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        for chunk in out.chunks_mut(10) {
            let mut bits = self.bits();
            for byte in chunk {
                *byte = ALPHABET[(bits & 63) as usize];
                bits >>= 6;
            }
        }
    }
}

fn keys(rng: &mut Rng, items: u64, value_bytes: usize, emit: &mut Emit<'_>) -> ControlFlow<()> {
    let (mut key, mut value) = (Vec::new(), vec![0; value_bytes]);
    for index in 0..items {
        key.clear();
        write!(key, "key:{index:012}").expect("a Vec takes all");
        rng.text(&mut value);
        emit(&[b"SET", &key, &value])?;
    }
    ControlFlow::Continue(())
}

/// Fills one key: `COMMAND key` and then cells, `width` of them per item, [`CHUNK`] items at a time.
fn chunked(
    command: &[u8],
    key: &[u8],
    items: u64,
    width: usize,
    emit: &mut Emit<'_>,
    mut item: impl FnMut(u64, &mut [Vec<u8>]),
) -> ControlFlow<()> {
    let mut cells = vec![Vec::new(); CHUNK * width];
    let mut index = 0;
    while index < items {
        let mut used = 0;
        while used < cells.len() && index < items {
            item(index, &mut cells[used..used + width]);
            used += width;
            index += 1;
        }
        let mut args = vec![command, key];
        args.extend(cells[..used].iter().map(Vec::as_slice));
        emit(&args)?;
    }
    ControlFlow::Continue(())
}

/// A key of 16 B: four letters and twelve digits. The digits walk through all of 0..10^12 in steps of 3^18, which
/// shares no factor with 10^12: keys are distinct and look random, without a table of those already used.
fn spread_key(out: &mut Vec<u8>, prefix: &str, index: u64) {
    out.clear();
    write!(out, "{prefix}{:012}", index * 387_420_489 % 1_000_000_000_000).expect("a Vec takes all");
}

/// A member of 27 B: `member:` and twenty digits.
fn member(out: &mut Vec<u8>, index: u64) {
    out.clear();
    write!(out, "member:{:020}", index * 387_420_489 % 1_000_000_000_000).expect("a Vec takes all");
}

fn number(out: &mut Vec<u8>, value: u64) {
    out.clear();
    write!(out, "{value}").expect("a Vec takes all");
}

#[cfg(test)]
mod test {
    use super::{ALL, BIG_SET, Rng, STRINGS_32, Workload};
    use std::collections::BTreeSet;
    use std::ops::ControlFlow;

    fn collect(workload: &Workload, items: u64) -> Vec<Vec<Vec<u8>>> {
        let mut out = Vec::new();
        let done = workload.commands(items, &mut |args| {
            out.push(args.iter().map(|arg| arg.to_vec()).collect());
            ControlFlow::Continue(())
        });
        assert!(done.is_continue());
        out
    }

    /// The same workload gives the same bytes twice, and a shorter run is a prefix of a longer one item by item.
    #[test]
    fn workloads_repeat() {
        for workload in ALL {
            let once = collect(workload, 1000);
            assert_eq!(once, collect(workload, 1000), "{}", workload.name);
            let short = collect(workload, 500);
            assert_eq!(short, once[..short.len()], "{}", workload.name);
        }
    }

    /// Sizes are as the report says: 16 B keys, 27 B members, all distinct, none lost at an uneven chunk.
    #[test]
    fn sizes_hold_and_items_are_distinct() {
        let keys: BTreeSet<_> =
            collect(&STRINGS_32, 12_345).into_iter().map(|args| args[1].clone()).collect();
        assert_eq!(keys.len(), 12_345);
        assert!(keys.iter().all(|key| key.len() == 16));
        let members: BTreeSet<_> =
            collect(&BIG_SET, 12_345).into_iter().flat_map(|args| args[2..].to_vec()).collect();
        assert_eq!(members.len(), 12_345);
        assert!(members.iter().all(|member| member.len() == 27));
    }

    /// `Break` ends a workload at once.
    #[test]
    fn break_stops() {
        for workload in ALL {
            let mut seen = 0;
            let end = workload.commands(1000, &mut |_| {
                seen += 1;
                ControlFlow::Break(())
            });
            assert!(end.is_break() && seen == 1, "{}", workload.name);
        }
    }

    /// `below` stays below and reaches both ends.
    #[test]
    fn below_covers_its_range() {
        let mut rng = Rng::new(7);
        let seen: BTreeSet<u64> = (0..1000).map(|_| rng.below(10)).collect();
        assert_eq!(seen, (0..10).collect());
    }
}
