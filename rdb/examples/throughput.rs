//! Measures what a core can do: `cargo run --release -p damselfly-rdb --example throughput`.

use std::hint::black_box;
use std::time::Instant;

use damselfly_rdb::{
    Compression, Encoder, Event, FileOptions, FileReader, FileWriter, Item, Kind, Limits, Lzf, Meta, Shape,
    Target, crc64, dump, lzf_decompress,
};

const KEYS: usize = 2_000_000;

/// Runs `work` three times and prints the best rate.
fn measure(name: &str, unit: &str, amount: usize, mut work: impl FnMut()) {
    let mut best = f64::MAX;
    for _ in 0..3 {
        let start = Instant::now();
        work();
        best = best.min(start.elapsed().as_secs_f64());
    }
    println!("{name:44} {:8.2} M {unit}/s", amount as f64 / best / 1e6);
}

fn strings(target: Target, compression: Compression) -> Vec<u8> {
    let mut file =
        FileWriter::new(FileOptions { target, compression, chunk_len_max: 64 << 10, checksum: false });
    let (mut bytes, mut key, mut value) =
        (Vec::new(), *b"key:00000000", *b"value of some 32 bytes, 00000000");
    let meta = Meta::default();
    for number in 0..KEYS {
        let digits = [7, 6, 5, 4, 3, 2, 1, 0].map(|place| b'0' + (number / 10usize.pow(place) % 10) as u8);
        key[4..].copy_from_slice(&digits);
        value[24..].copy_from_slice(&digits);
        file.string(0, &meta, &key, &value);
        if file.ready_len() > 1 << 20 {
            file.take(&mut bytes);
        }
    }
    file.eof();
    file.take(&mut bytes);
    bytes
}

fn small_hashes() -> Vec<u8> {
    let options = FileOptions {
        target: Target::Dfs,
        compression: Compression::None,
        chunk_len_max: 64 << 10,
        checksum: false,
    };
    let mut file = FileWriter::new(options);
    let mut bytes = Vec::new();
    for number in 0..KEYS / 10 {
        let key = (number as u64).to_le_bytes();
        let mut entry = file.begin(0, &Meta::default(), &key, Shape::CompactHash);
        file.put(&mut entry, Event::Begin { kind: Kind::Hash, count: 5 });
        for field in [&b"name"[..], b"mail", b"age", b"city", b"id"] {
            file.put(&mut entry, Event::Field { field, value: b"some value", expire_at_ms: None });
        }
        file.put(&mut entry, Event::End);
    }
    file.eof();
    file.take(&mut bytes);
    bytes
}

fn big_set() -> Vec<u8> {
    let options = FileOptions {
        target: Target::Dfs,
        compression: Compression::None,
        chunk_len_max: 64 << 10,
        checksum: false,
    };
    let mut file = FileWriter::new(options);
    let (count, mut bytes) = (KEYS as u64, Vec::new());
    let mut entry = file.begin(0, &Meta::default(), b"set", Shape::Set { count });
    file.put(&mut entry, Event::Begin { kind: Kind::Set, count });
    for number in 0..count {
        let member = (number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes();
        file.put(&mut entry, Event::Member { member: &member, expire_at_ms: None });
    }
    file.put(&mut entry, Event::End);
    file.eof();
    file.take(&mut bytes);
    bytes
}

fn read(file: &[u8]) -> u64 {
    // As by the name of a file: dfs is what begins with version 9 here.
    let limits = if file[8] == b'9' { Limits::STREAM } else { Limits::FILE };
    let mut events = 0;
    let mut sink = |item: Item<'_>| {
        if let Item::Value { event, .. } = item {
            black_box(event);
            events += 1;
        }
        Ok(())
    };
    FileReader::new(limits).read_all(&mut &*file, &mut sink).expect("just written");
    events
}

fn main() {
    let all = [
        ("dfs, raw", Target::Dfs, Compression::None),
        ("dfs, LZ4 blobs", Target::Dfs, Compression::Lz4),
        ("dfs, zstd 1 blobs", Target::Dfs, Compression::Zstd { level: 1 }),
        ("rdb, LZF strings, checksum", Target::Redis7_0, Compression::None),
    ];
    for (name, target, compression) in all {
        let mut file = Vec::new();
        measure(&format!("write strings: {name}"), "keys", KEYS, || file = strings(target, compression));
        measure(&format!("read strings: {name}"), "keys", KEYS, || {
            black_box(read(&file));
        });
        println!("{:44} {:8.1} B/key", "", file.len() as f64 / KEYS as f64);
    }
    let mut file = Vec::new();
    measure("write hashes of 5 fields (listpack)", "keys", KEYS / 10, || file = small_hashes());
    measure("read hashes of 5 fields (listpack)", "keys", KEYS / 10, || {
        black_box(read(&file));
    });
    measure("write one set in chunks", "members", KEYS, || file = big_set());
    measure("read one set in chunks", "members", KEYS, || {
        black_box(read(&file));
    });

    let (mut encoder, mut payload) = (Encoder::new(Target::Dump), Vec::new());
    measure("DUMP of 16 bytes", "payloads", KEYS, || {
        for _ in 0..KEYS {
            payload.clear();
            dump::string(&mut encoder, black_box(b"sixteen bytes  !"), &mut payload);
        }
    });
    measure("RESTORE of 16 bytes (footer, decode)", "payloads", KEYS, || {
        for _ in 0..KEYS {
            let (value_type, value) = dump::open(black_box(&payload)).expect("just written");
            let mut sink = |event: Event<'_>| {
                black_box(event);
                Ok(())
            };
            dump::decode(value_type, value, &Limits::PAYLOAD, &mut sink).expect("just written");
        }
    });

    let noise: Vec<u8> =
        (0..64u64 << 20).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8).collect();
    measure("CRC-64 of 64 MiB", "bytes", noise.len(), || {
        black_box(crc64(0, black_box(&noise)));
    });
    let text =
        b"{\"id\":1234,\"name\":\"somebody\",\"mail\":\"somebody@example.org\",\"tags\":[\"a\",\"b\"]},"
            .repeat(50);
    let (mut lzf, mut packed, mut back) = (Lzf::new(), Vec::new(), Vec::new());
    measure("LZF compression, JSON of 4 KB", "bytes", text.len() * 10_000, || {
        for _ in 0..10_000 {
            packed.clear();
            assert!(lzf.compress(black_box(&text), text.len() - 4, &mut packed));
        }
    });
    measure("LZF expansion, JSON of 4 KB", "bytes", text.len() * 10_000, || {
        for _ in 0..10_000 {
            lzf_decompress(black_box(&packed), text.len() as u64, &mut back).expect("just packed");
        }
    });
}
