//! What a request costs before and after its command runs: scanning and reply writing, per operation.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use damselfly_protocol::number::{DOUBLE_LEN_MAX, fmt_double, fmt_double_17};
use damselfly_protocol::{Limits, Proto, ReplyWriter, Requests, Scanner};
use std::hint::black_box;

fn request(args: &[&[u8]]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        out.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
    out
}

fn scan_benches(c: &mut Criterion) {
    let key: &[u8] = b"user:00000012345";
    let value: &[u8] = &[b'v'; 32];
    let get = request(&[b"GET", key]);
    let set = request(&[b"SET", key, value]);
    let mut mset: Vec<&[u8]> = vec![b"MSET"];
    for _ in 0..10 {
        mset.extend([key, value]);
    }
    // Lengths of one to four digits in no order a branch predictor could learn.
    let mut seed = 0x9E37_79B9_7F4A_7C15u64;
    let mut mixed = Vec::new();
    for _ in 0..512 {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let len = [3, 40, 400, 2000][(seed % 4) as usize];
        mixed.extend(request(&[b"SET", &key[..1 + (seed >> 32) as usize % 16], &vec![b'x'; len]]));
    }
    let cases: Vec<(&str, Vec<u8>, u64)> = vec![
        ("get_16b_key", get.clone(), 1),
        ("set_32b_value", set.clone(), 1),
        ("mset_10", request(&mset), 1),
        ("set_4k_value", request(&[b"SET", key, &[b'v'; 4096]]), 1),
        ("pipeline_32_get", get.repeat(32), 32),
        ("pipeline_32_set", set.repeat(32), 32),
        ("pipeline_512_mixed_lengths", mixed, 512),
        ("inline_get", b"GET user:00000012345\r\n".to_vec(), 1),
    ];
    let mut group = c.benchmark_group("scan");
    for (name, bytes, requests) in cases {
        group.throughput(Throughput::Elements(requests));
        let limits = Limits::default();
        let mut scanner = Scanner::new();
        let mut out = Requests::new();
        group.bench_function(name, |b| {
            b.iter(|| {
                let scan = scanner.scan(black_box(&bytes), &mut out, 1024, &limits, true);
                assert_eq!(scan.consumed, bytes.len());
                black_box(&out);
            })
        });
    }
    group.finish();

    // A request of 100,000 arguments in pieces of 16 KiB: linear, or the number is off by hundreds.
    let arg: &[u8] = b"0123456789";
    let args: Vec<&[u8]> = std::iter::repeat_n(arg, 100_000).collect();
    let large = request(&args);
    c.bench_function("scan/100k_args_in_16k_pieces", |b| {
        b.iter_batched(
            || (Scanner::new(), Requests::new()),
            |(mut scanner, mut out)| {
                let limits = Limits::default();
                for end in (0..large.len()).step_by(16 * 1024).chain([large.len()]) {
                    scanner.scan(&large[..end], &mut out, 1024, &limits, true);
                }
                assert_eq!(out.len(), 1);
                out
            },
            BatchSize::SmallInput,
        )
    });
}

fn reply_benches(c: &mut Criterion) {
    let mut group = c.benchmark_group("reply_x100");
    group.throughput(Throughput::Elements(100));
    let value = [b'v'; 32];
    let large = vec![b'v'; 4096];
    macro_rules! reply {
        ($name:literal, $proto:expr, |$w:ident, $i:ident| $body:expr) => {
            group.bench_function($name, |b| {
                let mut out = Vec::new();
                b.iter(|| {
                    out.clear();
                    let mut $w = ReplyWriter::new(&mut out, $proto);
                    for $i in 0..100u32 {
                        let $i = black_box($i);
                        $body;
                    }
                    black_box(&mut out);
                })
            });
        };
    }
    reply!("ok", Proto::Resp2, |w, _i| w.ok());
    reply!("null", Proto::Resp2, |w, _i| w.null());
    reply!("int_small", Proto::Resp2, |w, i| w.int(i64::from(i % 10)));
    reply!("int_7_digits", Proto::Resp2, |w, i| w.int(i64::from(i) + 1_234_567));
    reply!("int_19_digits", Proto::Resp2, |w, i| w.int(i64::from(i) + 1_234_567_890_123_456_789));
    reply!("bulk_32b", Proto::Resp2, |w, _i| w.bulk(&value));
    reply!("bulk_4k", Proto::Resp2, |w, _i| w.bulk(&large));
    reply!("bulk_int", Proto::Resp2, |w, i| w.bulk_int(i64::from(i) + 1000));
    reply!("double_one_decimal", Proto::Resp2, |w, i| w.double(f64::from(i) + 0.1));
    reply!("double_17_digits", Proto::Resp2, |w, i| w.double((f64::from(i) + 0.1).sqrt()));
    reply!("error", Proto::Resp2, |w, _i| w
        .error("WRONGTYPE Operation against a key holding the wrong kind of value"));
    reply!("array_of_3", Proto::Resp2, |w, i| {
        w.array(3);
        w.bulk(&value[..8]);
        w.int(i64::from(i));
        w.null();
    });
    group.finish();

    c.bench_function("number/fmt_double_17", |b| {
        let mut buf = [0; DOUBLE_LEN_MAX];
        b.iter(|| fmt_double_17(black_box(0.1), &mut buf).len())
    });
    c.bench_function("number/fmt_double", |b| {
        let mut buf = [0; DOUBLE_LEN_MAX];
        b.iter(|| fmt_double(black_box(3.5), &mut buf).len())
    });
    c.bench_function("number/itoa_crate_7_digits", |b| {
        let mut out = Vec::with_capacity(64);
        b.iter(|| {
            out.clear();
            let mut buf = itoa::Buffer::new();
            out.push(b':');
            out.extend_from_slice(buf.format(black_box(1_234_567i64)).as_bytes());
            out.extend_from_slice(b"\r\n");
            black_box(&mut out);
        })
    });
}

criterion_group!(benches, scan_benches, reply_benches);
criterion_main!(benches);
