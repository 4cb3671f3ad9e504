//! Files and payloads that real servers wrote, compared with what those servers showed of their data before.

mod support;

use std::collections::BTreeMap;

use damselfly_rdb::{FileReader, Item, Limits, Progress, Value, dump};
use support::*;

/// Test of the test: the digest everything below relies on.
#[test]
fn sha256_of_abc() {
    assert_eq!(sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_eq!(from_base64(&to_base64(b"any carnal pleas")), b"any carnal pleas");
}

/// Every file of Redis 7.0, 7.2, Valkey 8.0 and Dragonfly 1.40 reads as the data its server held.
#[test]
fn files_hold_what_their_servers_showed() {
    for folder in snapshot_folders() {
        let mut keys = BTreeMap::new();
        let (mut chunked, mut functions) = (0, 0);
        for file in snapshot_files(&folder) {
            let contents = read_file(&std::fs::read(&file).expect("readable"))
                .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            let is_dragonfly = folder.to_string_lossy().contains("dragonfly");
            assert_eq!(contents.checksum == 0, is_dragonfly, "checksums are verified where they exist");
            chunked += contents.chunked;
            functions += contents.functions.len();
            keys.extend(contents.keys);
        }
        let mut differences = Vec::new();
        let expected = std::fs::read_to_string(folder.join("expected.jsonl")).expect("readable");
        for line in expected.lines() {
            let expected = Json::parse(line);
            let key =
                (expected.get("db").expect("db").number() as u64, expected.get("key").expect("key").bytes());
            match keys.remove(&key) {
                None => differences.push(format!("{key:?} is missing")),
                Some((meta, value)) => {
                    let difference = compare(&expected, Some(&meta), &value);
                    differences.extend(difference.map(|difference| format!("{key:?} {difference}")));
                }
            }
        }
        // What is left are the two keys that were due a moment after the save.
        let left: Vec<_> =
            keys.iter().map(|((_, key), (meta, _))| (&key[..], meta.expire_at_ms.is_some())).collect();
        assert_eq!(left, [(&b"expired:list"[..], true), (b"expired:string", true)], "{}", folder.display());
        assert!(differences.is_empty(), "{}: {}", folder.display(), differences.join("\n"));
        let name = folder.file_name().expect("a name").to_string_lossy().into_owned();
        assert_eq!(functions, if name.starts_with("dragonfly") { 0 } else { 2 });
        if name.contains("1shard-c3") || name.contains("1shard-c0") {
            assert_eq!(chunked, 3, "{name} has three values in tagged chunks");
        }
    }
}

/// The same files fed one byte, or a prime number of bytes, at a time give the same contents, and bytes after the
/// end are left alone.
#[test]
fn pieces_do_not_matter() {
    for name in
        ["dragonfly-dfs-1shard-c3/dump-0000.dfs", "redis-7.0.15-rdb/dump.rdb", "dragonfly-rdb-c1/dump.rdb"]
    {
        let bytes = std::fs::read(fixtures().join(name)).expect("readable");
        let whole = read_file(&bytes).expect("well formed");
        for piece in [1, 4093] {
            let mut contents = Contents::default();
            let mut reader = FileReader::new(Limits::FILE);
            let mut pieces = bytes.chunks(piece);
            let done = loop {
                match reader.step(&mut |item: Item<'_>| contents.take(item)).expect("well formed") {
                    Progress::Again => {}
                    Progress::More(_) => reader.feed(pieces.next().expect("not more than there is")),
                    Progress::Done => break reader.offset() as usize,
                }
            };
            assert!(contents.keys == whole.keys, "{name} in pieces of {piece}");
            assert_eq!(reader.leftover(), &bytes[done..][..reader.leftover().len()]);
        }
    }
}

/// DUMP payloads of four servers decode to the same values as their files, and our own payload of each value
/// decodes to it again. Redis' string payloads come out of our encoder byte for byte.
#[test]
fn payloads() {
    let producers = [
        ("redis-7.0.15", "redis-7.0.15-rdb", 10),
        ("redis-7.2.5", "redis-7.2.5-rdb", 11),
        ("valkey-8.0.1", "valkey-8.0.1-rdb", 11),
        ("dragonfly-1.40.1", "dragonfly-dfs-1shard-c0", 9),
    ];
    for (payloads, folder, version) in producers {
        let lines = |path: &str| {
            let text = std::fs::read_to_string(fixtures().join(path)).expect("readable");
            text.lines().map(Json::parse).collect::<Vec<_>>()
        };
        let mut expected = BTreeMap::new();
        for line in lines(&format!("{folder}/expected.jsonl")) {
            if line.get("db").expect("db").number() == 0 {
                expected.insert(line.get("key").expect("key").bytes(), line);
            }
        }
        let mut encoder = damselfly_rdb::Encoder::new(damselfly_rdb::Target::Dump);
        let (mut strings, mut identical, mut count) = (0, 0, 0);
        for line in lines(&format!("dump-payloads/{payloads}.jsonl")) {
            let Some(payload) = line.get("payload_b64") else { continue };
            let key = line.get("key").expect("key").bytes();
            let payload = from_base64(payload.text());
            assert_eq!(payload[payload.len() - 10], version);
            let value =
                dump::decode_value(&payload).unwrap_or_else(|error| panic!("{payloads} {key:?}: {error}"));
            count += 1;
            // Streams differ in their consumers' times, which are those of another run of the server.
            let comparable = !matches!(value, Value::Stream(_)) && key != b"str:big";
            let relative = matches!(&value, Value::Hash(fields) if fields.iter().any(|(.., at)| at.is_some()))
                || matches!(&value, Value::Set(members) if members.iter().any(|(_, at)| at.is_some()));
            if comparable && !relative {
                let difference = compare(&expected[&key], None, &value);
                assert_eq!(difference, None, "{payloads} {key:?}");
            }
            let mut ours = Vec::new();
            dump::value(&mut encoder, &value, &mut ours);
            let again = dump::decode_value(&ours).expect("our own payload");
            assert!(equal(&again, &value), "{payloads} {key:?}: {again:?} {value:?}");
            if matches!(value, Value::String(_)) {
                strings += 1;
                identical += usize::from(ours == payload);
            }
        }
        assert!(count > 190, "{count}");
        if version == 10 {
            assert_eq!((strings, identical), (168, 168));
        }
    }
}

/// Equal up to the order of members, and up to what type 19 cannot say (active times).
fn equal(a: &Value, b: &Value) -> bool {
    let (mut a, mut b) = (a.clone(), b.clone());
    for value in [&mut a, &mut b] {
        match value {
            Value::Set(members) => members.sort(),
            Value::Stream(stream) => {
                for consumer in stream.groups.iter_mut().flat_map(|group| &mut group.consumers) {
                    consumer.active_at_ms = None;
                }
            }
            _ => {}
        }
    }
    a == b
}
