//! Big sets and hashes at a million members and fields: what a command costs once its key is found.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use damselfly_structures::dense::{DenseHash, DenseSet};
use damselfly_structures::keytable::Expiry;
use damselfly_structures::pack::Item;
use damselfly_structures::table::Cursor;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MILLION: usize = 1_000_000;

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// A million 27-byte names, in an order that is not that of their numbers.
fn names() -> Vec<[u8; 27]> {
    (0..MILLION)
        .map(|i| {
            let mut name = *b"member:00000000000000000000";
            let mut rest = i * 7_368_787 % MILLION;
            for digit in name[7..].iter_mut().rev() {
                *digit = b'0' + (rest % 10) as u8;
                rest /= 10;
            }
            name
        })
        .collect()
}

fn set_of(names: &[[u8; 27]]) -> DenseSet {
    let mut set = DenseSet::new(0x5eed);
    for name in names {
        set.insert(name, 0);
    }
    set
}

fn hash_of(names: &[[u8; 27]]) -> DenseHash {
    let mut hash = DenseHash::new(0x5eed);
    for name in names {
        hash.set(name, &name[11..], Expiry::Never, 0);
    }
    hash
}

fn len_of(item: Item<'_>) -> usize {
    match item {
        Item::Bytes(bytes) => usize::from(bytes[bytes.len() - 1]),
        Item::Int(value) => value as usize,
    }
}

fn sets(c: &mut Criterion) {
    let names = names();
    let set = set_of(&names);
    println!("{:.1} bytes per member of 27", set.heap_bytes() as f64 / MILLION as f64);
    let mut rng = Rng(0x9E37_79B9_7F4A_7C15);
    let mut group = c.benchmark_group("dense/set of a million");
    let mut i = 0;
    let mut next = || {
        i = (i + 1) % MILLION;
        i
    };
    group.bench_function("contains", |b| b.iter(|| set.contains(&names[next()], 0)));
    group.bench_function("contains no such", |b| b.iter(|| set.contains(&names[next()][1..], 0)));
    group.bench_function("random", |b| b.iter(|| set.random(0, || rng.next()).map(|m| len_of(m.member))));
    group.bench_function("clone", |b| b.iter(|| set.clone()));
    group.sample_size(10).throughput(Throughput::Elements(MILLION as u64));
    group.bench_function("insert all", |b| b.iter(|| set_of(&names)));
    group.bench_function("iterate", |b| b.iter(|| set.iter(0).map(|m| len_of(m.member)).sum::<usize>()));
    group.bench_function("scan", |b| {
        b.iter(|| {
            let (mut sum, mut cursor) = (0, Cursor::default());
            loop {
                cursor = set.scan(cursor, 0, |m| sum += len_of(m.member));
                if cursor == Cursor::default() {
                    return sum;
                }
            }
        });
    });
    group.bench_function("pop all, one by one", |b| {
        b.iter_batched_ref(
            || set_of(&names),
            |set| while set.pop(0, || rng.next(), |m| black_box(len_of(m.member))).is_some() {},
            BatchSize::PerIteration,
        );
    });
    group.bench_function("pop all, a thousand at a time", |b| {
        b.iter_batched_ref(
            || set_of(&names),
            |set| while set.pop_many(1_000, 0, || rng.next(), |m| _ = black_box(len_of(m.member))) > 0 {},
            BatchSize::PerIteration,
        );
    });
    group.bench_function("remove all", |b| {
        b.iter_batched_ref(
            || set_of(&names),
            |set| names.iter().filter(|name| set.remove(&name[..], 0)).count(),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn hashes(c: &mut Criterion) {
    let names = names();
    let mut hash = hash_of(&names);
    println!("{:.1} bytes per field of 27 with a value of 16", hash.heap_bytes() as f64 / MILLION as f64);
    let mut group = c.benchmark_group("dense/hash of a million");
    let mut i = 0;
    let mut next = || {
        i = (i + 1) % MILLION;
        i
    };
    group.bench_function("get", |b| b.iter(|| hash.get(&names[next()], 0).map(len_of)));
    group.bench_function("overwrite, same length", |b| {
        b.iter(|| {
            let name = &names[next()];
            hash.set(name, &name[10..26], Expiry::Keep, 0)
        });
    });
    group.bench_function("give an expiry", |b| b.iter(|| hash.set_expire(&names[next()], Some(1 << 40), 0)));
    group.bench_function("add", |b| {
        let mut counters = DenseHash::new(1);
        b.iter(|| counters.add(&names[next()], 1, 0));
    });
    group.sample_size(10).throughput(Throughput::Elements(MILLION as u64));
    group.bench_function("set all", |b| b.iter(|| hash_of(&names)));
    group.bench_function("iterate", |b| {
        b.iter(|| hash.iter(0).map(|f| len_of(f.field) + len_of(f.value)).sum::<usize>());
    });
    group.finish();
}

criterion_group!(benches, sets, hashes);
criterion_main!(benches);
