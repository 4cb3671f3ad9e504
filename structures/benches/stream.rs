//! Streams: appending, reading at both ends, groups.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use damselfly_structures::stream::{Digits, Effort, NodeLimits, Stream, StreamId, Trim};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const MILLION: u64 = 1_000_000;
const START_MS: u64 = 1_700_000_000_000;

fn append(stream: &mut Stream, i: u64) {
    let reading = [b"21.7", b"9.35", b"-3.1", b"1015"][i as usize % 4];
    let fields = [(&b"temperature"[..], &reading[..]), (b"sensor", b"sensor-12345")];
    stream
        .append(StreamId::new(START_MS + i, 0), fields.into_iter(), NodeLimits::default())
        .expect("ascending ids");
}

fn million() -> Stream {
    let mut stream = Stream::new();
    (0..MILLION).for_each(|i| append(&mut stream, i));
    stream
}

fn entries(c: &mut Criterion) {
    let mut stream = million();
    println!("{:.1} bytes per entry", stream.heap_bytes() as f64 / MILLION as f64);
    let mut group = c.benchmark_group("stream/entries");
    let mut next = MILLION;
    group.throughput(Throughput::Elements(1));
    group.bench_function("append, trim about to a million", |b| {
        b.iter(|| {
            append(&mut stream, next);
            next += 1;
            stream.trim(Trim::ToLen(MILLION), Effort::WholeNodes { limit: 10_000 })
        });
    });
    group.bench_function("last one", |b| {
        b.iter(|| stream.range_reverse(StreamId::MIN, StreamId::MAX).next().map(|entry| entry.id));
    });
    let mut at = 0;
    group.bench_function("get", |b| {
        b.iter(|| {
            at = (at + 7919) % MILLION;
            stream.get(StreamId::new(stream.first_id().ms + at, 0)).map(|entry| entry.id)
        });
    });
    group.bench_function("clone", |b| b.iter(|| stream.clone()));
    group.throughput(Throughput::Elements(stream.len()));
    group.sample_size(10);
    group.bench_function("range over all", |b| {
        b.iter(|| {
            let mut digits = Digits::default();
            let mut bytes = 0;
            for entry in stream.range(StreamId::MIN, StreamId::MAX) {
                for (name, value) in entry.fields {
                    bytes += name.bytes(&mut digits).len();
                    bytes += value.bytes(&mut digits).len();
                }
            }
            bytes
        });
    });
    group.finish();
}

fn groups(c: &mut Criterion) {
    let mut stream = million();
    stream.create_group(b"group", StreamId::MIN, Some(0));
    let mut group = c.benchmark_group("stream/groups");
    group.throughput(Throughput::Elements(10));
    group.bench_function("read ten, acknowledge ten", |b| {
        b.iter(|| {
            let mut ids = [StreamId::MIN; 10];
            let mut at = 0;
            let read = stream.read_new(b"group", b"consumer", 10, false, START_MS, |entry| {
                ids[at] = entry.id;
                at += 1;
            });
            if read == Ok(0) {
                stream.set_group_id(b"group", StreamId::MIN, Some(0)).expect("the group");
            }
            stream.ack(b"group", ids[..at].iter().copied())
        });
    });
    group.finish();
}

criterion_group!(benches, entries, groups);
criterion_main!(benches);
