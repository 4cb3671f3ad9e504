//! Packs: small hashes, small sorted sets, integer sets, and walking.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use damselfly_structures::intset::IntSet;
use damselfly_structures::pack::{Item, Pack};
use damselfly_structures::zpack::Zpack;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn fields(count: usize) -> Vec<Vec<u8>> {
    (0..count).map(|i| format!("field:{i:02}").into_bytes()).collect()
}

/// Sums something of every element, so that each one is decoded.
fn touch<'a>(items: impl Iterator<Item = Item<'a>>) -> usize {
    items.fold(0, |sum, item| match item {
        Item::Int(value) => sum.wrapping_add(value as usize),
        Item::Bytes(bytes) => sum + bytes.len(),
    })
}

fn walk(c: &mut Criterion) {
    let mut group = c.benchmark_group("pack/walk");
    let strings: Pack = (0..600).map(|i| Item::Bytes([b"element:00", b"element:01"][i % 2])).collect();
    let numbers: Pack = (0..600).map(|i| i * 7919).collect();
    group.throughput(Throughput::Elements(600));
    group.bench_function("600 strings", |b| b.iter(|| touch(strings.iter())));
    group.bench_function("600 strings backwards", |b| b.iter(|| touch(strings.iter_rev())));
    group.bench_function("600 integers", |b| b.iter(|| touch(numbers.iter())));
    group.finish();
}

fn hash(c: &mut Criterion) {
    let mut group = c.benchmark_group("pack/hash");
    for count in [4, 32, 128] {
        let fields = fields(count);
        let mut hash = Pack::new();
        for field in &fields {
            hash.set_pair(field, b"some value");
        }
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(format!("get each of {count}"), |b| {
            b.iter(|| fields.iter().filter(|field| hash.get_pair(*field).is_some()).count());
        });
        group.bench_function(format!("overwrite each of {count}"), |b| {
            b.iter(|| fields.iter().filter(|field| hash.set_pair(*field, b"same value")).count());
        });
        group.bench_function(format!("build {count}"), |b| {
            b.iter(|| {
                let mut hash = Pack::new();
                for field in &fields {
                    hash.set_pair(field, b"some value");
                }
                hash
            });
        });
    }
    let mut hash = Pack::new();
    for field in fields(8) {
        hash.set_pair(&field, 1_000_000);
    }
    let mut counter = 1_000_000;
    group.throughput(Throughput::Elements(1));
    group.bench_function("increment one of 8", |b| {
        b.iter(|| {
            counter += 1;
            hash.set_pair(b"field:05", counter)
        });
    });
    group.finish();
}

fn sorted_set(c: &mut Criterion) {
    let mut group = c.benchmark_group("zpack");
    for (name, scale) in [("integral", 1.0), ("fractional", 0.3)] {
        let mut set = Zpack::new();
        for i in 0..100 {
            set.insert(format!("member:{i:03}").as_bytes(), f64::from(i * 37 % 100) * scale);
        }
        let mut step = 0;
        group.bench_function(format!("move among 100, {name} scores, {} bytes", set.packed_bytes()), |b| {
            b.iter(|| {
                step += 1;
                let member =
                    [b'm', b'e', b'm', b'b', b'e', b'r', b':', b'0', b'0' + (step / 10 % 10) as u8, b'5'];
                set.insert(&member, f64::from(step % 100) * scale)
            });
        });
        group.bench_function(format!("rank by score among 100, {name} scores"), |b| {
            b.iter(|| set.rank_by(|_, score| score < black_box(50.0 * scale)));
        });
        group.bench_function(format!("walk 100, {name} scores"), |b| {
            b.iter(|| set.iter().map(|(_, score)| score).sum::<f64>());
        });
    }
    group.finish();
}

fn integers(c: &mut Criterion) {
    let mut group = c.benchmark_group("intset");
    let set: IntSet = (0..512).map(|i| i * 1009).collect();
    let mut probe = 0;
    group.bench_function("contains among 512", |b| {
        b.iter(|| {
            probe = (probe + 7919) % (512 * 1009);
            set.contains(probe)
        });
    });
    group.bench_function("build 512 in no order", |b| {
        b.iter(|| (0..512).map(|i| i * 397 % 512 * 1009).collect::<IntSet>());
    });
    group.finish();
}

criterion_group!(benches, walk, hash, sorted_set, integers);
criterion_main!(benches);
