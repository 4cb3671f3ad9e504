//! The big sorted set at a million members: what a command costs once its key is found.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use damselfly_structures::zset::ZSet;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MILLION: usize = 1_000_000;

/// A permutation of the numbers below a million, so that neighbours in time are strangers in order.
fn scattered(i: usize) -> usize {
    i * 7_368_787 % MILLION
}

fn member(i: usize) -> [u8; 20] {
    let mut member = *b"member:0000000000000";
    let mut rest = scattered(i);
    for digit in member[7..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    member
}

fn score(i: usize) -> f64 {
    (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64
}

fn million() -> ZSet {
    let mut set = ZSet::new(0x5eed);
    for i in 0..MILLION {
        set.insert(&member(i), score(i));
    }
    set
}

fn build(c: &mut Criterion) {
    let mut group = c.benchmark_group("zset/build");
    group.sample_size(10).throughput(Throughput::Elements(MILLION as u64));
    group.bench_function("a million random members", |b| b.iter(million));
    group.bench_function("a million ascending members", |b| {
        b.iter(|| {
            let mut set = ZSet::new(0x5eed);
            for i in 0..MILLION {
                set.insert(&member(i), i as f64);
            }
            set
        });
    });
    group.finish();
}

fn read(c: &mut Criterion) {
    let set = million();
    println!("{:.1} bytes per member", set.heap_bytes() as f64 / MILLION as f64);
    let mut group = c.benchmark_group("zset/read");
    let mut i = 0;
    let mut next = move || {
        i = (i + 1) % MILLION;
        scattered(i)
    };
    group.bench_function("score", |b| b.iter(|| set.score(&member(next()))));
    group.bench_function("score of no member", |b| b.iter(|| set.score(black_box(b"nobody:0000000000001"))));
    group.bench_function("rank", |b| b.iter(|| set.rank(&member(next()))));
    group.bench_function("at rank", |b| b.iter(|| set.at(next()).map(|entry| entry.1)));
    group.bench_function("count between scores", |b| {
        b.iter(|| {
            set.count_below_score(900_000.0, true) - set.count_below_score(black_box(100_000.0), false)
        });
    });
    group.throughput(Throughput::Elements(10));
    group.bench_function("first ten", |b| {
        b.iter(|| set.range(black_box(0..10)).map(|entry| entry.0.len() as f64 + entry.1).sum::<f64>());
    });
    group.throughput(Throughput::Elements(MILLION as u64));
    group.sample_size(10);
    group.bench_function("all", |b| {
        b.iter(|| set.iter().map(|entry| entry.0.len() as f64 + entry.1).sum::<f64>());
    });
    group.finish();
}

fn write(c: &mut Criterion) {
    let mut set = million();
    let mut group = c.benchmark_group("zset/write");
    let mut i = 0;
    group.bench_function("increment by one", |b| {
        b.iter(|| {
            i = (i + 1) % MILLION;
            set.insert_with(&member(i), |old| old.map(|score| score + 1.0))
        });
    });
    group.bench_function("move anywhere", |b| {
        b.iter(|| {
            i = (i + 1) % MILLION;
            set.insert(&member(i), score(i + 7))
        });
    });
    group.bench_function("remove and insert", |b| {
        b.iter(|| {
            i = (i + 1) % MILLION;
            set.remove(&member(i));
            set.insert(&member(i), score(i))
        });
    });
    group.bench_function("clone", |b| b.iter(|| set.clone()));
    group.finish();
}

criterion_group!(benches, build, read, write);
criterion_main!(benches);
