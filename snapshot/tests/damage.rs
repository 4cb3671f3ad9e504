//! Files that are cut, changed, missing, or of another snapshot: every one is noticed, and named with what is wrong.

#[path = "../../rdb/tests/support/mod.rs"]
mod support;

use damselfly_rdb::{Compression, ErrorKind, FileOptions, FileWriter, Meta, Target, Value};
use damselfly_snapshot::convert::{Options, convert};
use damselfly_snapshot::inspect::{self, Report, find, inspect};
use damselfly_snapshot::{Files, Memory, SnapshotError, Why};
use support::{Random, fixtures};

const MAIN: &str = "dump-summary.dfs";

/// The files of a recorded set, in memory.
fn recorded(folder: &str, names: &[&str]) -> Memory {
    let store = Memory::new();
    for name in names {
        store.put(name, std::fs::read(fixtures().join(folder).join(name)).expect("readable"));
    }
    store
}

fn set() -> Memory {
    recorded("dragonfly-dfs-2shard-c3", &[MAIN, "dump-0000.dfs", "dump-0001.dfs"])
}

fn look(store: &Memory, main: &str) -> Report {
    inspect(store, main, &inspect::Options { now_ms: 0, largest: 3 }, &mut |_, _| {})
}

fn options() -> Options {
    Options {
        compression: Compression::None,
        portable: false,
        skip_modules: false,
        snapshot_id: "0".repeat(32),
        version: "df-v1.40.1".to_owned(),
        spool: std::env::temp_dir(),
    }
}

/// Conversion finds the same fault, and leaves nothing.
fn refused(store: &Memory, main: &str) -> String {
    let to = Memory::new();
    let files = Files { main: "new.rdb".to_owned(), shards: Vec::new() };
    let error = convert(store, main, &to, &files, &options(), &mut |_, _| {}).expect_err("it is broken");
    assert_eq!(to.get("new.rdb"), None);
    error.to_string()
}

/// What a set's files say about each other.
#[test]
fn sets_that_are_none() {
    let store = set();
    store.remove("dump-0001.dfs");
    let missing = "dump-0001.dfs: the file is missing";
    assert_eq!(look(&store, MAIN).faults[0].to_string(), missing);
    assert_eq!(refused(&store, MAIN), missing);

    // Of the same names, shards and server, but of another save.
    let store = set();
    let other = recorded("dragonfly-dfs-2shard-c0", &["dump-0001.dfs"]);
    store.put("dump-0001.dfs", other.get("dump-0001.dfs").expect("there"));
    let report = look(&store, MAIN);
    let foreign = "dump-0001.dfs: refused: the file belongs to another snapshot than the summary at offset ";
    assert!(report.faults.len() == 1 && report.faults[0].to_string().starts_with(foreign), "{report:?}");
    assert!(
        report.files[1].keys > 100 && report.files[2].keys == 0,
        "the sound file was read, the other not"
    );
    assert!(refused(&store, MAIN).starts_with(foreign));

    let store = set();
    let [zero, one] = ["dump-0000.dfs", "dump-0001.dfs"].map(|name| store.get(name).expect("there"));
    store.put("dump-0000.dfs", one);
    store.put("dump-0001.dfs", zero);
    let swapped = "dump-0000.dfs: by its name the file is shard 0, by its contents shard 1";
    assert_eq!(look(&store, MAIN).faults[0].to_string(), swapped);
    assert_eq!(refused(&store, MAIN), swapped);

    let store = set();
    store.put("dump-0002.dfs", b"what a save with more threads has left".to_vec());
    let report = look(&store, MAIN);
    assert!(report.faults.is_empty());
    assert_eq!(report.notes, ["dump-0002.dfs: no part of this snapshot, not read"]);

    let store = set();
    store.remove(MAIN);
    let (mains, orphans) = find(&store).expect("memory can be listed");
    let orphans: Vec<String> = orphans.iter().map(SnapshotError::to_string).collect();
    assert!(mains.is_empty());
    assert_eq!(orphans[0], "dump-0000.dfs: the summary of its snapshot is missing");
    // Whoever asks for one shard gets it.
    let report = look(&store, "dump-0001.dfs");
    assert!(report.faults.is_empty() && report.total().keys > 100);
}

/// A summary that names no snapshot, no number of shards, an absurd number, or that has keys.
#[test]
fn odd_summaries() {
    let check = |write: &dyn Fn(&mut FileWriter), text: &str| {
        let options = FileOptions {
            target: Target::Dfs,
            compression: Compression::None,
            chunk_len_max: 0,
            checksum: true,
        };
        let mut writer = FileWriter::new(options);
        write(&mut writer);
        writer.eof();
        let mut bytes = Vec::new();
        writer.take(&mut bytes);
        let store = set();
        store.put(MAIN, bytes);
        let faults = look(&store, MAIN).faults;
        assert!(faults.len() == 1 && faults[0].to_string().contains(text), "{faults:?}");
        assert!(refused(&store, MAIN).contains(text));
    };
    let aux = |writer: &mut FileWriter, id: &[u8], count: &[u8]| {
        writer.aux(b"snapshot-id", id);
        writer.aux(b"shard-count", count);
    };
    check(&|writer| writer.aux(b"shard-count", b"2"), "does not say which snapshot");
    check(&|writer| writer.aux(b"snapshot-id", b"x"), "does not say how many shards");
    for count in ["0", "1025", "18446744073709551615"] {
        check(&|writer| aux(writer, b"x", count.as_bytes()), "is no number of shards");
    }
    check(&|writer| aux(writer, b"x", b"-1"), "a number of shards that is none");
    check(
        &|writer| {
            aux(writer, b"x", b"2");
            writer.string(0, &Meta::default(), b"k", b"v");
        },
        "a summary has no keys",
    );
}

/// A file that ends early, wherever that is, is an error at that very place; so is a wrong byte, where there is a
/// checksum. Without one a wrong byte may go unnoticed, but what is noticed has a place inside the file.
#[test]
fn cut_and_changed() {
    let mut random = Random::new(77);
    for (store, main, part) in [
        (set(), MAIN, "dump-0001.dfs"),
        (set(), MAIN, MAIN),
        (recorded("redis-7.2.5-rdb", &["dump.rdb"]), "dump.rdb", "dump.rdb"),
        (recorded("dragonfly-rdb-c1", &["dump.rdb"]), "dump.rdb", "dump.rdb"),
    ] {
        let sound = store.get(part).expect("there");
        let report = look(&store, main);
        assert!(report.faults.is_empty());
        let file = report.files.iter().find(|file| file.name == part).expect("it was read");
        let end = sound.len() - file.facts.expect("it is whole").trailing as usize;
        let has_checksum = file.facts.is_some_and(|facts| facts.checksum != 0);
        for _ in 0..20 {
            let len = random.below(end as u64) as usize;
            store.put(part, sound[..len].to_vec());
            let faults = look(&store, main).faults;
            assert!(!faults.is_empty() && faults[0].file == part, "{faults:?}");
            let Why::Format(error) = &faults[0].why else { panic!("{faults:?}") };
            assert!(error.kind == ErrorKind::Truncated && error.offset == len as u64, "{len}: {error}");
        }
        for _ in 0..20 {
            let mut bytes = sound.clone();
            bytes[random.below(end as u64) as usize] ^= 1 << random.below(8);
            store.put(part, bytes);
            let faults = look(&store, main).faults;
            assert!(!has_checksum || !faults.is_empty());
            for fault in &faults {
                if let Why::Format(error) = &fault.why {
                    let len = store.get(&fault.file).expect("it was read").len();
                    assert!(error.offset <= len as u64, "{fault}");
                }
            }
            // Whether it is noticed or not, the conversion ends.
            let to = Memory::new();
            let files = Files { main: "new.rdb".to_owned(), shards: Vec::new() };
            let result = convert(&store, main, &to, &files, &options(), &mut |_, _| {});
            assert_eq!(result.is_err(), !faults.is_empty(), "{faults:?} {result:?}");
        }
    }
}

/// Plain sets, hashes and sorted sets do not show by themselves that an element is there twice. Written on as a compact
/// form it would make a file that no Redis loads, so it is found first.
#[test]
fn elements_twice() {
    let twice: [&[u8]; 3] = [
        b"\x02\x01k\x03\x011\x012\x011",
        b"\x04\x01k\x02\x01f\x01v\x01f\x01w",
        b"\x03\x01k\x02\x01m\x011\x01m\x012",
    ];
    for value in twice {
        for (sound, count) in [(true, 1), (false, 0)] {
            let mut bytes = [b"REDIS0010", value, b"\xff", &[0; 8]].concat();
            if sound {
                // The name that is there a second time, behind the nine letters of the head.
                bytes[9 + 9] = b'z';
            }
            let store = Memory::new();
            store.put("dump.rdb", bytes);
            let report = look(&store, "dump.rdb");
            assert_eq!(report.total().keys, count, "{:?}", report.faults);
            if !sound {
                let text = report.faults[0].to_string();
                assert!(text.starts_with("dump.rdb: refused: duplicate element at offset"), "{text}");
                assert_eq!(refused(&store, "dump.rdb"), text);
            }
        }
    }
}

/// A value of a module ends the conversion and is named, or is left out and counted.
#[test]
fn modules() {
    // An integer item of 7 and the end, under a module's id.
    let mut bytes = b"REDIS0010\x07\x06module\x81\0\0\0\0\0\0\x04\x01\x02\x07\0".to_vec();
    bytes.extend_from_slice(b"\x00\x03key\x05value\xff");
    let checksum = damselfly_rdb::crc64(0, &bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    let store = Memory::new();
    store.put("dump.rdb", bytes);
    assert_eq!(refused(&store, "dump.rdb"), "new.rdb: key module has a value of a module");
    let (to, files) = (Memory::new(), Files { main: "new.rdb".to_owned(), shards: Vec::new() });
    let skipping = Options { skip_modules: true, ..options() };
    let outcome = convert(&store, "dump.rdb", &to, &files, &skipping, &mut |_, _| {}).expect("converted");
    assert_eq!(outcome.keys, 1);
    assert_eq!(outcome.left_out[&inspect::ValueKind::Module], 1);
    assert_eq!(look(&to, "new.rdb").total().keys, 1);
}

/// Values that are larger than what is held in memory, and that come in chunks between each other, go through files
/// and come out as they were.
#[test]
fn giants() {
    const MIB: usize = 1 << 20;
    let element = |of: u64, number: u64| {
        let mut text = format!("{of}:{number}:").into_bytes();
        text.resize(MIB, b'x');
        text
    };
    // Two lists of 48 MiB each, a chunk of one after a chunk of the other.
    let options_in =
        FileOptions { target: Target::Dfs, compression: Compression::None, chunk_len_max: 1, checksum: true };
    let mut writer = FileWriter::new(options_in);
    let values = [1, 2].map(|of| Value::List((0..48).map(|number| element(of, number)).collect()));
    let mut file = Vec::new();
    let mut entries = Vec::new();
    for (of, value) in values.iter().enumerate() {
        let mut entry = writer.begin(0, &Meta::default(), format!("list{of}").as_bytes(), value.shape());
        writer.put(&mut entry, damselfly_rdb::Event::Begin { kind: damselfly_rdb::Kind::List, count: 48 });
        assert!(writer.pause(&mut entry));
        entries.push(entry);
    }
    let lists = values.each_ref().map(|value| match value {
        Value::List(elements) => elements,
        _ => unreachable!("they are lists"),
    });
    for number in 0..48 {
        for (entry, list) in entries.iter_mut().zip(lists) {
            writer.put(entry, damselfly_rdb::Event::Element(&list[number]));
            assert!(writer.pause(entry));
        }
        writer.take(&mut file);
    }
    entries.iter_mut().for_each(|entry| writer.put(entry, damselfly_rdb::Event::End));
    writer.eof();
    writer.take(&mut file);
    let store = Memory::new();
    store.put("lists-0000.dfs", file);

    let (to, files) = (Memory::new(), Files { main: "new.rdb".to_owned(), shards: Vec::new() });
    let outcome = convert(&store, "lists-0000.dfs", &to, &files, &options(), &mut |_, _| {});
    assert_eq!(outcome.expect("converted").keys, 2);
    let back = support::read_file(&to.get("new.rdb").expect("written")).expect("well formed");
    for (of, value) in values.iter().enumerate() {
        assert!(back.keys[&(0, format!("list{of}").into_bytes())].1 == *value, "list {of}");
    }
    let left = std::fs::read_dir(std::env::temp_dir()).expect("readable");
    let own = format!(".damselfly-spool-{}", std::process::id());
    assert!(left.flatten().all(|entry| !entry.file_name().to_string_lossy().starts_with(&own)));
}
