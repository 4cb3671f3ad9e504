//! Lists: the two ends, ranges, numbers, clones.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use damselfly_structures::list::List;
use damselfly_structures::pack::Item;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MILLION: usize = 1_000_000;

fn elements() -> Vec<[u8; 10]> {
    (0..1024).map(|i| format!("elem:{i:05}").into_bytes().try_into().expect("ten bytes")).collect()
}

fn million() -> List {
    elements().iter().cycle().take(MILLION).collect()
}

/// Sums something of every element, so that each one is decoded.
fn touch<'a>(items: impl Iterator<Item = Item<'a>>) -> usize {
    items.fold(0, |sum, item| match item {
        Item::Int(value) => sum.wrapping_add(value as usize),
        Item::Bytes(bytes) => sum + usize::from(bytes[bytes.len() - 1]),
    })
}

fn ends(c: &mut Criterion) {
    let mut group = c.benchmark_group("list/ends");
    let elements = elements();
    let mut list = million();
    let mut next = elements.iter().cycle();
    group.throughput(Throughput::Elements(1));
    group.bench_function("lpush + rpop on a million", |b| {
        b.iter(|| {
            list.push_front(next.next().expect("cycle"));
            list.pop_back_with(|item| item.packed_len())
        });
    });
    group.bench_function("rpush + lpop on a million", |b| {
        b.iter(|| {
            list.push_back(next.next().expect("cycle"));
            list.pop_front_with(|item| item.packed_len())
        });
    });
    group.bench_function("rpush + rpop on a million", |b| {
        b.iter(|| {
            list.push_back(next.next().expect("cycle"));
            list.pop_back_with(|item| item.packed_len())
        });
    });
    group.throughput(Throughput::Elements(100_000));
    group.sample_size(20);
    group.bench_function("rpush of 100 000 and drop", |b| {
        b.iter(|| elements.iter().cycle().take(100_000).collect::<List>());
    });
    group.bench_function("lpush of 100 000 and drop", |b| {
        b.iter(|| {
            let mut list = List::new();
            elements.iter().cycle().take(100_000).for_each(|element| list.push_front(element));
            list
        });
    });
    group.throughput(Throughput::Elements(10));
    group.bench_function("rpush of 10 and drop", |b| b.iter(|| elements.iter().take(10).collect::<List>()));
    group.finish();
}

fn ranges(c: &mut Criterion) {
    let mut group = c.benchmark_group("list/range");
    let list = million();
    group.throughput(Throughput::Elements(100));
    let mut out = Vec::with_capacity(1 << 14);
    group.bench_function("first 100, copied", |b| {
        b.iter(|| {
            out.clear();
            for item in list.range(0, 100) {
                out.extend_from_slice(item.as_bytes(&mut [0; 20]));
            }
            out.len()
        });
    });
    group
        .bench_function("last 100 backwards", |b| b.iter(|| touch(list.range(MILLION - 100, MILLION).rev())));
    group.throughput(Throughput::Elements(10_000));
    group.bench_function("10 000", |b| b.iter(|| touch(list.range(1000, 11_000))));
    group.bench_function("10 000 in a for loop", |b| {
        b.iter(|| {
            let mut sum = 0;
            for item in list.range(1000, 11_000) {
                sum += black_box(item).packed_len();
            }
            sum
        });
    });
    group.finish();
}

fn numbers(c: &mut Criterion) {
    let mut group = c.benchmark_group("list/number");
    let mut list = million();
    let mut at = 0;
    let mut anywhere = move || {
        at = (at + 611_953) % MILLION;
        at
    };
    group.bench_function("get anywhere in a million", |b| {
        b.iter(|| list.get(anywhere()).map(|item| item.packed_len()))
    });
    group.bench_function("set anywhere in a million", |b| b.iter(|| list.set(anywhere(), b"ten bytes!")));
    let big: List = elements().iter().cycle().take(10 * MILLION).collect();
    group.bench_function("get the middle of ten million", |b| {
        b.iter(|| big.get(black_box(5 * MILLION)).map(|item| item.packed_len()));
    });
    group.finish();
}

fn clones(c: &mut Criterion) {
    let mut group = c.benchmark_group("list/clone");
    let list = million();
    group.bench_function("a million", |b| b.iter(|| list.clone()));
    group.bench_function("first write to a shared node", |b| {
        b.iter_batched_ref(|| list.clone(), |list| list.push_front(b"ten bytes!"), BatchSize::LargeInput);
    });
    group.finish();
}

criterion_group!(benches, ends, ranges, numbers, clones);
criterion_main!(benches);
