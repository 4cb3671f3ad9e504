//! What the writer writes, the reader reads: every type, every target, every compression, sizes around every border.

mod support;

use damselfly_rdb::{
    Bloom, Compression, ConsumerValue, Cuckoo, Encoder, Entries, Event, FileOptions, FileWriter, GroupValue,
    Meta, Pending, Shape, StreamId, StreamMeta, StreamValue, Target, TopK, Value, dump,
};
use support::*;

fn text(random: &mut Random, len_max: u64) -> Vec<u8> {
    match random.below(4) {
        0 => (random.next() as i64 >> random.below(64)).to_string().into_bytes(),
        1 => {
            let len = random.below(len_max) as usize;
            random.bytes(len)
        }
        _ => b"all work and no play ".iter().copied().cycle().take(random.below(len_max) as usize).collect(),
    }
}

fn distinct(random: &mut Random, count: usize, len_max: u64) -> Vec<Vec<u8>> {
    let mut set = std::collections::BTreeSet::new();
    while set.len() < count {
        set.insert(text(random, len_max.max(8)));
    }
    set.into_iter().collect()
}

/// A value of each kind, its size and content chosen by the seed.
fn values(random: &mut Random) -> Vec<Value> {
    let count = [1, 3, 60, 127, 130, 513, 3000][random.below(7) as usize];
    let len_max = [8, 64, 65, 300, 10_000][random.below(if count > 200 { 4 } else { 5 }) as usize];
    let due = |random: &mut Random| {
        // Whole seconds: what the format can say.
        (random.below(2) == 0).then(|| (1_675_209_600 + random.below(1 << 31)) * 1000)
    };
    let names = distinct(random, count, len_max);
    let mut members: Vec<(Vec<u8>, f64)> = names
        .iter()
        .map(|name| {
            let score = match random.below(5) {
                0 => f64::INFINITY,
                1 => random.below(100) as f64 - 50.0,
                2 => -0.0,
                _ => f64::from_bits(random.next()),
            };
            (name.clone(), if score.is_nan() { 0.5 } else { score })
        })
        .collect();
    members.sort_by(|a, b| a.1.partial_cmp(&b.1).expect("no NaN").then_with(|| a.0.cmp(&b.0)));
    let mut integers: Vec<i64> = (0..count).map(|_| random.next() as i64 >> random.below(64)).collect();
    integers.sort_unstable();
    integers.dedup();
    vec![
        Value::String(text(random, 40_000)),
        Value::Json(b"42".to_vec()),
        Value::Json(text(random, 2000)),
        Value::List((0..count).map(|_| text(random, len_max)).collect()),
        Value::Set(names.iter().map(|name| (name.clone(), None)).collect()),
        Value::Set(names.iter().map(|name| (name.clone(), due(random))).collect()),
        Value::Set(integers.iter().map(|integer| (integer.to_string().into_bytes(), None)).collect()),
        Value::Hash(names.iter().map(|name| (name.clone(), text(random, len_max), None)).collect()),
        Value::Hash(names.iter().map(|name| (name.clone(), text(random, len_max), due(random))).collect()),
        Value::ZSet(members),
        stream(random, count, len_max),
        Value::Bloom(
            Bloom {
                options: 1,
                grow_factor: 2.0,
                fp_probability: 0.01,
                prev_size: 10,
                current_size: random.next() >> 30,
                max_capacity: 77,
                filters: 2,
            },
            vec![(7, random.bytes(1000)), (8, random.bytes(70_000))],
        ),
        Value::CountMin { width: 100, depth: 5, count: 1 << 40, counters: random.bytes(4000) },
        Value::TopK(
            TopK { k: 9, width: 8, depth: 7, decay: 0.9, items: 2 },
            vec![(b"a".to_vec(), 1), (b"12".to_vec(), 1 << 33)],
            random.bytes(224),
        ),
        Value::Cuckoo(
            Cuckoo {
                slots_per_bucket: 2,
                max_iterations: 20,
                expansion: 1,
                buckets: 512,
                items: 100,
                deletes: 1,
                filters: 2,
            },
            vec![random.bytes(1024), b"12".to_vec()],
        ),
    ]
}

fn stream(random: &mut Random, count: usize, len_max: u64) -> Value {
    let mut at = StreamId { ms: random.next() >> 20, seq: 0 };
    let mut entries = Entries::default();
    let mut first_id = None;
    for _ in 0..count {
        match random.below(3) {
            0 => at.seq += 1 + random.below(3),
            1 => at = StreamId { ms: at.ms + 1 + random.below(1 << 34), seq: random.next() >> 1 },
            _ => at.ms += 1,
        }
        let fields = match random.below(3) {
            0 => vec![(text(random, len_max), text(random, len_max)), (b"x".to_vec(), b"7".to_vec())],
            _ => vec![(b"sensor".to_vec(), text(random, len_max))],
        };
        first_id.get_or_insert(at);
        entries.push(at, fields.iter().map(|(field, value)| (&field[..], &value[..])));
    }
    let id = |n: u64| StreamId { ms: n, seq: n + 1 };
    let pending = |n| Pending { id: id(n), delivered_at_ms: 1_750_000_000_000 + n, deliveries: n };
    let consumer = |name: &[u8], claimed| ConsumerValue {
        name: name.to_vec(),
        seen_at_ms: 1_750_000_000_000,
        active_at_ms: Some(1_750_000_000_000),
        claimed,
    };
    let groups = vec![
        GroupValue { name: b"empty".to_vec(), ..GroupValue::default() },
        GroupValue {
            name: b"group".to_vec(),
            last_id: id(u64::MAX - 1),
            entries_read: Some(5),
            pending: (0..70).map(pending).collect(),
            consumers: vec![
                consumer(b"alice", (0..40).map(id).collect()),
                consumer(b"bob", vec![]),
                consumer(b"1", vec![id(41)]),
            ],
        },
    ];
    let meta = StreamMeta {
        length: entries.len() as u64,
        last_id: StreamId { ms: u64::MAX, seq: 3 },
        first_id: first_id.expect("there are entries"),
        max_deleted_id: StreamId { ms: 5, seq: 5 },
        entries_added: 1 << 40,
        groups: 2,
    };
    Value::Stream(StreamValue { entries, meta, groups })
}

/// DUMP payloads.
#[test]
fn payloads() {
    let mut random = Random::new(101);
    let mut encoder = Encoder::new(Target::Dump);
    for _ in 0..60 {
        for value in values(&mut random) {
            let mut payload = Vec::new();
            dump::value(&mut encoder, &value, &mut payload);
            assert!(dump::decode_value(&payload).expect("our own payload") == value, "{value:?}");
        }
    }
}

/// Files for both targets, with every compression and with chunks of all sizes.
#[test]
fn files() {
    let mut random = Random::new(102);
    let compressions = [Compression::None, Compression::Zstd { level: 1 }, Compression::Lz4];
    let mut chunked = 0;
    for target in [Target::Redis7_0, Target::Dfs] {
        for compression in compressions {
            for chunk_len_max in [0, 1, 1000, 64 << 10] {
                let mut file = FileWriter::new(FileOptions {
                    target,
                    compression,
                    chunk_len_max,
                    checksum: target == Target::Dfs && chunk_len_max > 0,
                });
                file.aux(b"redis-ver", b"7.0.0");
                file.aux(b"ctime", b"1700000000");
                if target == Target::Redis7_0 {
                    file.function(b"#!lua name=x\n");
                }
                let (mut expected, mut bytes) = (Vec::new(), Vec::new());
                for db in [0, 3, 1 << 20] {
                    file.resize_db(db, 3, 1);
                    for value in values(&mut random) {
                        let mut key = text(&mut random, 50);
                        key.extend_from_slice(format!("#{}", expected.len()).as_bytes());
                        let meta = Meta {
                            expire_at_ms: (random.below(2) == 0).then(|| random.next() >> 1),
                            sticky: random.below(3) == 0,
                            mc_flags: (random.below(3) == 0).then(|| random.next() as u32),
                            ..Meta::default()
                        };
                        file.value(db, &meta, &key, &value);
                        if random.below(3) == 0 {
                            file.flush();
                        }
                        file.take(&mut bytes);
                        expected.push(((db, key), (meta, value)));
                    }
                }
                file.journal_blob(b"\x06\x00");
                file.full_sync_end();
                file.journal_offset(7);
                file.eof();
                file.take(&mut bytes);
                let contents =
                    read_file(&bytes).unwrap_or_else(|error| panic!("{target:?} {compression:?}: {error}"));
                assert_eq!(contents.keys.len(), expected.len());
                for (key, entry) in expected {
                    assert!(contents.keys[&key] == entry, "{key:?} {:?}", entry.1);
                }
                assert_eq!(contents.checksum != 0, target == Target::Redis7_0 || chunk_len_max > 0);
                assert_eq!(contents.aux.len(), 2);
                assert_eq!(contents.functions.len(), usize::from(target == Target::Redis7_0));
                chunked += contents.chunked;
                assert_eq!(contents.chunked > 0, target == Target::Dfs && chunk_len_max > 0);
            }
        }
    }
    assert!(chunked > 100, "{chunked}");
}

/// Two long values written in turns, with strings between their chunks, arrive whole.
#[test]
fn interleaved_values() {
    for compression in [Compression::None, Compression::Lz4] {
        let mut file = FileWriter::new(FileOptions {
            target: Target::Dfs,
            compression,
            chunk_len_max: 500,
            checksum: false,
        });
        let meta = Meta { expire_at_ms: Some(99), ..Meta::default() };
        let mut entries = [1u64, 2].map(|db| {
            let mut entry = file.begin(db, &meta, b"long", Shape::Hash { count: 1000 });
            file.put(&mut entry, Event::Begin { kind: damselfly_rdb::Kind::Hash, count: 1000 });
            assert!(file.pause(&mut entry));
            entry
        });
        for number in 0..1000u64 {
            let field = number.to_string();
            for (value, entry) in [b"first", b"other"].into_iter().zip(&mut entries) {
                file.put(entry, Event::Field { field: field.as_bytes(), value, expire_at_ms: None });
                if number % 7 == 0 {
                    assert!(file.pause(entry));
                    file.string(5, &Meta::default(), field.as_bytes(), b"between");
                    file.flush();
                } else {
                    assert!(file.pause(entry));
                }
            }
        }
        let [mut first, mut other] = entries;
        file.put(&mut other, Event::End);
        file.put(&mut first, Event::End);
        assert!(first.is_done() && other.is_done());
        file.eof();
        let mut bytes = Vec::new();
        file.take(&mut bytes);
        let contents = read_file(&bytes).expect("well formed");
        assert_eq!((contents.keys.len(), contents.chunked), (2 + 143, 2));
        for (db, value) in [(1, b"first"), (2, b"other")] {
            let (meta, hash) = &contents.keys[&(db, b"long".to_vec())];
            assert_eq!(meta.expire_at_ms, Some(99));
            let Value::Hash(fields) = hash else { panic!("a hash was written") };
            assert!(fields.len() == 1000 && fields.iter().all(|field| field.1 == value));
        }
    }
}

/// A caller that carries the output away sees it in pieces of bounded size however long a value is.
#[test]
fn output_comes_in_bounded_pieces() {
    for target in [Target::Redis7_0, Target::Dfs] {
        let options =
            FileOptions { target, compression: Compression::Lz4, chunk_len_max: 64 << 10, checksum: false };
        let mut file = FileWriter::new(options);
        let count = 300_000u64;
        let mut entry = file.begin(0, &Meta::default(), b"set", Shape::Set { count });
        file.put(&mut entry, Event::Begin { kind: damselfly_rdb::Kind::Set, count });
        let (mut bytes, mut longest) = (Vec::new(), 0);
        for number in 0..count {
            let member = format!("member number {number}");
            file.put(&mut entry, Event::Member { member: member.as_bytes(), expire_at_ms: None });
            if file.ready_len() > 0 {
                longest = longest.max(file.ready_len());
                file.take(&mut bytes);
            }
        }
        file.put(&mut entry, Event::End);
        file.eof();
        file.take(&mut bytes);
        assert!(longest <= 200 << 10, "{longest}");
        let contents = read_file(&bytes).expect("well formed");
        let (_, Value::Set(members)) = &contents.keys[&(0, b"set".to_vec())] else {
            panic!("a set was written")
        };
        assert_eq!(members.len() as u64, count);
    }
}

/// A string that comes in parts is written as it is, and what stands around it as ever; a changed byte is noticed.
#[test]
fn strings_in_parts() {
    let long = Random::new(8).bytes(3_000_000);
    for target in [Target::Redis7_0, Target::Dfs] {
        let options =
            FileOptions { target, compression: Compression::Lz4, chunk_len_max: 64 << 10, checksum: true };
        let mut file = FileWriter::new(options);
        let meta = Meta { expire_at_ms: Some(99), ..Meta::default() };
        file.string(1, &Meta::default(), b"before", b"short");
        file.begin_string(1, &meta, b"long", long.len() as u64);
        long.chunks(700_001).for_each(|part| file.put_part(part));
        (0..100u32).for_each(|number| {
            file.string(1, &Meta::default(), &number.to_le_bytes(), b"behind behind behind")
        });
        file.eof();
        let mut bytes = Vec::new();
        file.take(&mut bytes);
        let contents = read_file(&bytes).expect("well formed");
        assert_eq!(contents.keys.len(), 102);
        assert!(contents.keys[&(1, b"long".to_vec())] == (meta, Value::String(long.clone())));
        assert!(contents.checksum != 0);
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        let error = read_file(&bytes).err().expect("a wrong checksum");
        assert_eq!(error.kind, damselfly_rdb::ErrorKind::Checksum);
    }
}
