//! Whole snapshots of any bytes, an rdb file or a set: inspecting and converting them does not panic, memory stays
//! within a multiple of the input, faults name a file and a place in it, and what is whole is still whole, with the
//! same keys, after it was converted there and back.
//!
//! Input: a byte of settings, then the rdb file, or the summary and two shards with a marker between them. To get far,
//! the set's files begin with a sound head unless the settings say otherwise.

#![no_main]

use damselfly_rdb::Compression;
use damselfly_snapshot::convert::{Options, convert};
use damselfly_snapshot::inspect::{self, Report, inspect};
use damselfly_snapshot::{Files, Memory, Why};
use libfuzzer_sys::fuzz_target;

/// Stands between the files of a set.
const MARKER: &[u8] = b"|NEXT|";

const SUMMARY: &[u8] = b"REDIS0009\xfa\x0bsnapshot-id\x01x\xfa\x0bshard-count\x012\xff\0\0\0\0\0\0\0\0";
const SHARDS: [&[u8]; 2] = [
    b"REDIS0009\xfa\x0bsnapshot-id\x01x\xfa\x08shard-id\x010",
    b"REDIS0009\xfa\x0bsnapshot-id\x01x\xfa\x08shard-id\x011",
];

fn parts(mut rest: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while let Some(at) = rest.windows(MARKER.len()).position(|window| window == MARKER) {
        parts.push(&rest[..at]);
        rest = &rest[at + MARKER.len()..];
    }
    parts.push(rest);
    parts
}

/// The snapshot's main file, and the place where it is.
fn snapshot(settings: u8, data: &[u8]) -> (&'static str, Memory) {
    let store = Memory::new();
    if settings & 1 == 0 {
        store.put("dump.rdb", data.to_vec());
        return ("dump.rdb", store);
    }
    let parts = parts(data);
    let part = |number: usize| parts.get(number).copied().unwrap_or_default();
    if settings & 2 == 0 {
        store.put("dump-summary.dfs", SUMMARY.to_vec());
        for (number, head) in SHARDS.into_iter().enumerate() {
            store.put(&format!("dump-{number:04}.dfs"), [head, part(number)].concat());
        }
    } else {
        store.put("dump-summary.dfs", part(0).to_vec());
        for number in 1..parts.len().min(4) {
            store.put(&format!("dump-{:04}.dfs", number - 1), part(number).to_vec());
        }
    }
    ("dump-summary.dfs", store)
}

fn look(store: &Memory, main: &str) -> Report {
    let report = inspect(store, main, &inspect::Options { now_ms: 1 << 40, largest: 2 }, &mut |_, _| {});
    for fault in &report.faults {
        assert!(!fault.file.is_empty() && !fault.to_string().is_empty());
        if let Why::Format(error) = &fault.why {
            let len = store.get(&fault.file).expect("only files that are there have bytes").len();
            assert!(error.offset <= len as u64, "{fault}");
        }
    }
    report
}

fn converted(from: &Memory, main: &str, files: &Files, settings: u8) -> Option<Memory> {
    let options = Options {
        compression: match settings >> 4 & 3 {
            0 => Compression::Lz4,
            1 => Compression::Zstd { level: 1 },
            _ => Compression::None,
        },
        portable: settings & 8 != 0,
        skip_modules: settings & 4 != 0,
        snapshot_id: "y".to_owned(),
        version: "df-v1.40.1".to_owned(),
        spool: std::env::temp_dir(),
    };
    let to = Memory::new();
    convert(from, main, &to, files, &options, &mut |_, _| {}).ok().map(|_| to)
}

fuzz_target!(|data: &[u8]| {
    let Some((&settings, data)) = data.split_first() else { return };
    let (main, store) = snapshot(settings, data);
    let report = look(&store, main);
    let set = Files {
        main: "new-summary.dfs".to_owned(),
        shards: (0..3).map(|shard| format!("new-{shard:04}.dfs")).collect(),
    };
    let single = Files { main: "new.rdb".to_owned(), shards: Vec::new() };
    let files = if settings & 1 == 0 { &set } else { &single };
    let Some(once) = converted(&store, main, files, settings) else { return };
    assert!(report.faults.is_empty(), "what is broken is not converted");
    let first = look(&once, &files.main);
    assert!(first.faults.is_empty(), "{:?}", first.faults);
    let back = if settings & 1 == 0 { &single } else { &set };
    let twice = converted(&once, &files.main, back, settings).expect("our own files");
    let second = look(&twice, &back.main);
    assert!(second.faults.is_empty(), "{:?}", second.faults);
    assert_eq!(second.databases, first.databases);
    if settings & (8 | 4) == 0 {
        assert_eq!(first.databases, report.databases);
        assert_eq!((first.functions, first.libraries), (report.functions, report.libraries));
    }
});
