//! Snapshots of real servers, inspected and converted: nothing is lost or changed on any way through.

#[path = "../../rdb/tests/support/redis.rs"]
#[expect(dead_code, reason = "every test file uses its own part of this")]
mod redis;
#[path = "../../rdb/tests/support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use damselfly_rdb::{Compression, Value, dump, value_type};
use damselfly_snapshot::convert::{Options, Outcome, convert};
use damselfly_snapshot::inspect::{self, find, inspect};
use damselfly_snapshot::{Disk, FUNCTION_AUX, FileRole, Files, Memory, Storage, role_of};
use redis::{Redis, Reply};
use support::*;

const INSPECT: inspect::Options = inspect::Options { now_ms: 0, largest: 3 };

fn options(compression: Compression) -> Options {
    Options {
        compression,
        portable: false,
        skip_modules: false,
        snapshot_id: "0123456789abcdef0123456789abcdef".to_owned(),
        version: "df-v1.40.1".to_owned(),
        spool: std::env::temp_dir(),
    }
}

fn set_of(shards: usize) -> Files {
    let names = (0..shards).map(|shard| format!("new-{shard:04}.dfs"));
    Files { main: "new-summary.dfs".to_owned(), shards: names.collect() }
}

fn one_file() -> Files {
    Files { main: "new.rdb".to_owned(), shards: Vec::new() }
}

fn main_file(store: &dyn Storage) -> String {
    let (mut mains, orphans) = find(store).expect("readable");
    assert!(mains.len() == 1 && orphans.is_empty(), "{mains:?} {orphans:?}");
    mains.remove(0)
}

fn converted(from: &dyn Storage, files: &Files, options: &Options) -> (Memory, Outcome) {
    let to = Memory::new();
    let outcome = convert(from, &main_file(from), &to, files, options, &mut |_, _| {});
    (to, outcome.unwrap_or_else(|error| panic!("{error}")))
}

/// Everything in a place's snapshot; keys of several files are not the same ones.
fn contents(store: &dyn Storage) -> Contents {
    let mut all = Contents::default();
    for file in store.list().expect("readable") {
        if role_of(&file.name) == FileRole::Other {
            continue;
        }
        let mut bytes = Vec::new();
        store.open(&file.name).expect("it was listed").read_to_end(&mut bytes).expect("readable");
        let part = read_file(&bytes).unwrap_or_else(|error| panic!("{}: {error}", file.name));
        let before = all.keys.len();
        let count = part.keys.len();
        all.keys.extend(part.keys);
        assert_eq!(all.keys.len(), before + count, "{}: keys of another file", file.name);
        all.functions.extend(part.functions);
        // The summary of a set has them under a name of its own.
        let libraries = part.aux.iter().filter(|(name, _)| name == FUNCTION_AUX);
        all.functions.extend(libraries.map(|(_, source)| source.clone()));
        all.aux.extend(part.aux);
        for (code, count) in part.value_types {
            *all.value_types.entry(code).or_default() += count;
        }
    }
    all
}

/// In the order of members, which is none, and without what a target cannot say.
fn normal(contents: &Contents, with_active_times: bool) -> BTreeMap<(u64, Vec<u8>), String> {
    let mut normal = BTreeMap::new();
    for (key, (meta, value)) in &contents.keys {
        let mut value = value.clone();
        match &mut value {
            Value::Set(members) => members.sort(),
            Value::Hash(fields) => fields.sort(),
            Value::ZSet(members) => members.sort_by(|one, other| one.0.cmp(&other.0)),
            Value::Stream(stream) if !with_active_times => {
                for consumer in stream.groups.iter_mut().flat_map(|group| &mut group.consumers) {
                    consumer.active_at_ms = None;
                }
            }
            _ => {}
        }
        let meta = (meta.expire_at_ms, meta.sticky, meta.mc_flags);
        normal.insert(key.clone(), format!("{meta:?} {value:?}"));
    }
    normal
}

fn expected(folder: &Path) -> Vec<Json> {
    let text = std::fs::read_to_string(folder.join("expected.jsonl")).expect("readable");
    text.lines().map(Json::parse).collect()
}

fn name_of(folder: &Path) -> String {
    folder.file_name().expect("a name").to_string_lossy().into_owned()
}

/// Every snapshot is whole, and has the keys of each type that its server showed, and the two that were due.
#[test]
fn inspection() {
    for folder in snapshot_folders() {
        let store = Disk::new(&folder);
        let (mut read, mut all) = (0, 0);
        let report = inspect(&store, &main_file(&store), &INSPECT, &mut |done, of| (read, all) = (done, of));
        assert_eq!(report.faults, [], "{}", folder.display());
        assert_eq!(report.notes, [""; 0], "{}", folder.display());
        assert_eq!(read, all, "all bytes are accounted for");
        let mut counts = BTreeMap::<(u64, String), u64>::new();
        for line in expected(&folder) {
            let kind = match line.get("type").expect("a type").text() {
                "ReJSON-RL" => "json",
                "MBbloom--" => "bloom",
                "MBbloomCF" => "cuckoo",
                "CMSk-TYPE" => "count-min",
                "TopK-TYPE" => "top-k",
                other => other,
            };
            *counts.entry((line.get("db").expect("a db").number() as u64, kind.to_owned())).or_default() += 1;
        }
        *counts.entry((0, "string".to_owned())).or_default() += 1;
        *counts.entry((0, "list".to_owned())).or_default() += 1;
        let found = report.databases.iter().flat_map(|(db, kinds)| {
            kinds.iter().map(|(kind, tally)| ((*db, kind.name().to_owned()), tally.keys))
        });
        assert_eq!(found.collect::<BTreeMap<_, _>>(), counts, "{}", folder.display());
        let name = name_of(&folder);
        assert_eq!(report.functions, if name.starts_with("dragonfly") { 0 } else { 2 });
        let libraries = report.libraries.iter().map(|library| {
            assert!(library.engine == b"lua" && library.bytes > 40, "{library:?}");
            String::from_utf8_lossy(&library.name)
        });
        let named = if name.starts_with("dragonfly") { &[][..] } else { &["fixturelib", "lib2"] };
        assert_eq!(libraries.collect::<BTreeSet<_>>(), named.iter().map(|name| (*name).into()).collect());
        assert_eq!(report.scripts, if name.starts_with("dragonfly") { 2 } else { 0 }, "{name}");
        assert!(report.largest.len() == 3 && report.largest.is_sorted_by(|a, b| a.bytes >= b.bytes));
    }
}

/// Into one file, into sets of any number of shards and any compression, and back: the same keys and values, deadlines
/// and marks, scripts and functions; and what was converted is whole.
#[test]
fn conversion_changes_nothing() {
    let zstd = Compression::Zstd { level: 1 };
    for (number, folder) in snapshot_folders().into_iter().enumerate() {
        let store = Disk::new(&folder);
        let original = contents(&store);
        let (whole, without_active) = (normal(&original, true), normal(&original, false));
        let mut functions = original.functions.clone();
        functions.sort();
        let of_summary = |contents: &Contents| {
            contents.aux.iter().filter(|(name, _)| name == b"lua").cloned().collect::<Vec<_>>()
        };
        let scripts = of_summary(&original);
        // Every other form is enough for one folder: neighbours differ only in how they were written.
        let forms = [
            (one_file(), Compression::None),
            (set_of(1), Compression::None),
            (set_of(3), Compression::Lz4),
            (set_of(8), zstd),
        ];
        for (files, compression) in forms.into_iter().skip(number % 2).step_by(2) {
            let is_set = !files.shards.is_empty();
            let (new, outcome) = converted(&store, &files, &options(compression));
            let report = inspect(&new, &files.main, &INSPECT, &mut |_, _| {});
            assert!(report.faults.is_empty() && report.notes.is_empty(), "{}", folder.display());
            assert_eq!(outcome.keys as usize, original.keys.len());
            assert_eq!(report.shards(), files.shards.len().max(1));
            let got = contents(&new);
            assert!(normal(&got, is_set) == if is_set { whole.clone() } else { without_active.clone() });
            let mut found = got.functions.clone();
            found.sort();
            assert_eq!(found, functions);
            assert_eq!(of_summary(&got), scripts);
            // And on: to the other format and back to this one.
            let (other, _) = converted(&new, &if is_set { one_file() } else { set_of(2) }, &options(zstd));
            let (again, _) = converted(&other, &files, &options(compression));
            assert!(normal(&contents(&again), false) == without_active);
        }
    }
}

/// Documents that are plain integers, which Dragonfly writes as integers and loads as strings, are JSON in and out.
#[test]
fn integers_stay_json() {
    let store = Disk::new(fixtures().join("dragonfly-dfs-1shard-c0"));
    let count = |contents: &Contents| {
        let plain = |value: &Value| matches!(value, Value::Json(text) if text == b"42" || text == b"-1");
        contents.keys.values().filter(|(_, value)| plain(value)).count()
    };
    let before = count(&contents(&store));
    assert!(before >= 2);
    let (new, _) = converted(&store, &set_of(2), &options(Compression::None));
    assert_eq!(count(&contents(&new)), before);
    // As text and not as an integer, which Dragonfly would take for a string.
    let bytes =
        [new.get("new-0000.dfs"), new.get("new-0001.dfs")].map(|file| file.expect("written")).concat();
    assert!(bytes.windows(3).any(|window| window == [2, b'4', b'2']));
}

/// Redis loads what was converted, with every type it has, and shows of each key what its server showed.
#[test]
fn redis_loads_converted_files() {
    for folder in snapshot_folders() {
        let name = name_of(&folder);
        if name.contains("2shard") || name.contains("3shard") || name.contains("c2") {
            // The same data as in the others.
            continue;
        }
        let store = Disk::new(&folder);
        let portable = Options { portable: true, ..options(Compression::None) };
        let (set, _) = converted(&store, &set_of(3), &options(Compression::Lz4));
        let (new, outcome) = converted(&set, &one_file(), &portable);
        let bytes = new.get("new.rdb").expect("written");
        assert_eq!(outcome.not_portable, 0);
        let left_out: u64 = outcome.left_out.values().sum();
        assert_eq!(left_out == 0, !name.starts_with("dragonfly"), "{name}: {:?}", outcome.left_out);
        let Some(mut redis) = Redis::start(&format!("converted-{name}"), Some(&bytes)) else { return };
        let (mut seen, mut missing, mut db_now) = (0, 0, 0);
        for line in expected(&folder) {
            let db = line.get("db").expect("a db").number();
            if db != db_now {
                redis.ask(&[b"SELECT", db.to_string().as_bytes()]);
                db_now = db;
            }
            let key = line.get("key").expect("a key").bytes();
            let payload = match redis.ask(&[b"DUMP", &key]) {
                Reply::Text(payload) => payload,
                other => {
                    assert_eq!(other, Reply::Nil);
                    missing += 1;
                    continue;
                }
            };
            seen += 1;
            let value = dump::decode_value(&payload).expect("Redis' own payload");
            assert_eq!(compare(&line, None, &value), None, "{name} {key:?}");
            let at = redis.ask(&[b"PEXPIRETIME", &key]);
            let want = line.get("expire_at_ms").filter(|at| **at != Json::Null).map_or(-1, |at| at.number());
            assert_eq!(at, Reply::Int(want), "{name} {key:?}");
        }
        assert_eq!(missing, left_out, "{name}");
        assert!(seen > 200, "{name}: {seen}");
        assert_eq!(redis.ask(&[b"FUNCTION", b"LIST"]).list().len(), if left_out > 0 { 0 } else { 2 });
    }
}

/// What Redis does not have is written all the same unless it was asked to be left out, and counted either way.
#[test]
fn portable_and_not() {
    let store = Disk::new(fixtures().join("dragonfly-dfs-1shard-c0"));
    let (all, outcome) = converted(&store, &one_file(), &options(Compression::None));
    assert!(outcome.left_out.is_empty() && outcome.not_portable > 20);
    let counts = contents(&all).value_types;
    assert!(counts[&value_type::JSON] > 10 && counts.contains_key(&value_type::CUCKOO));
    let portable = Options { portable: true, ..options(Compression::None) };
    let (some, left) = converted(&store, &one_file(), &portable);
    let some = contents(&some);
    assert!(some.value_types.keys().all(|code| *code < value_type::JSON), "{:?}", some.value_types);
    assert!(some.keys.values().all(|(meta, _)| !meta.sticky && meta.mc_flags.is_none()));
    assert_eq!(left.keys + left.left_out.values().sum::<u64>(), outcome.keys);
}
