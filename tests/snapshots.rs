//! Snapshots of the whole server: what is loaded at a start, what is saved, and what a crash leaves.
//!
//! `DAMSELFLY_COMMANDS=1000000` makes the run over a cut longer than it is in everyday tests, `DAMSELFLY_KILLS=200` the
//! number of saves that are killed; `DAMSELFLY_BIN` names another binary, one that is optimised for example.

#[path = "../rdb/tests/support/mod.rs"]
mod recorded;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use damselfly_rdb::{
    Compression, ConsumerValue, FileOptions, FileWriter, GroupValue, Meta, Pending, StreamId, StreamValue,
    Target, Value,
};
use damselfly_tests::client::Client;
use damselfly_tests::executor::{Executor, Tcp};
use damselfly_tests::random::{Random, setting};
use damselfly_tests::reply::{Protocol, Reply};
use damselfly_tests::servers::{Kind, Server};
use recorded::{Json, compare, read_file, snapshot_folders};

/// How long anything may take here before it counts as hanging.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A directory of its own, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Directory {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("damselfly-snapshots-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        Directory(path)
    }

    /// With copies of all files of another.
    fn copy_of(from: &Path) -> Directory {
        let directory = Directory::new();
        for entry in fs::read_dir(from).expect("readable") {
            let entry = entry.expect("readable");
            if entry.path().is_file() {
                fs::copy(entry.path(), directory.0.join(entry.file_name())).expect("copied");
            }
        }
        directory
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// A server that loads from a directory, with a connection to it.
struct Node {
    server: Server,
    client: Tcp,
}

impl Node {
    fn try_start(threads: usize, directory: &Path, flags: &[&str]) -> Result<Node, String> {
        let dir = format!("--dir={}", directory.display());
        let mut all = vec![dir.as_str(), "--dbfilename=dump"];
        all.extend(flags);
        let server = Server::start(Kind::Damselfly { threads }, &all)?;
        let client = Tcp::new(server.address(), Protocol::Resp2);
        Ok(Node { server, client })
    }

    fn start(threads: usize, directory: &Path, flags: &[&str]) -> Node {
        let mut node = Node::try_start(threads, directory, flags).unwrap_or_else(|error| panic!("{error}"));
        node.wait_for("loading", "0");
        node
    }

    fn ask(&mut self, request: &[&[u8]]) -> Reply {
        let request: Vec<Vec<u8>> = request.iter().map(|argument| argument.to_vec()).collect();
        self.client.call("A", &request).unwrap_or_else(|error| panic!("{error}\n{}", self.server.log()))
    }

    /// A request whose arguments have no blanks.
    fn line(&mut self, line: &str) -> Reply {
        let words: Vec<&[u8]> = line.split_whitespace().map(str::as_bytes).collect();
        self.ask(&words)
    }

    /// A field of INFO.
    fn info(&mut self, field: &str) -> Option<String> {
        let reply = self.line("INFO everything");
        let text = String::from_utf8_lossy(reply.text().expect("INFO is text")).into_owned();
        let prefix = format!("{field}:");
        text.lines().find_map(|line| line.strip_prefix(&prefix)).map(str::to_owned)
    }

    /// All keys but fillers, by database, with a digest of what they hold and when they expire.
    fn keys_with_digests(&mut self) -> BTreeMap<(i64, Vec<u8>), (Reply, Reply)> {
        let mut found = BTreeMap::new();
        for db in [1, 0] {
            self.line(&format!("SELECT {db}"));
            let Reply::Array(keys) = self.line("KEYS [^f]*") else { panic!("KEYS answers an array") };
            for key in keys.iter().filter_map(Reply::text) {
                let digest = self.ask(&[b"DEBUG", b"DIGEST-VALUE", key]);
                found.insert((db, key.to_vec()), (digest, self.ask(&[b"PEXPIRETIME", key])));
            }
        }
        found
    }

    fn wait_for(&mut self, field: &str, value: &str) {
        let start = Instant::now();
        while self.info(field).as_deref() != Some(value) {
            assert!(start.elapsed() < TIMEOUT, "{field} does not become {value}\n{}", self.server.log());
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// What is not as a file of expectations says.
    fn differences(&mut self, expected: &str) -> Vec<String> {
        let mut differences = Vec::new();
        let (mut db, mut count) = (0, [0; 16]);
        for line in expected.lines() {
            let expected = Json::parse(line);
            let at = expected.get("db").expect("db").number();
            if at != db {
                db = at;
                assert_eq!(self.line(&format!("SELECT {db}")), Reply::Simple(b"OK".to_vec()));
            }
            count[db as usize] += 1;
            let key = expected.get("key").expect("key").bytes();
            let name = String::from_utf8_lossy(&key).escape_debug().to_string();
            let reply = self.ask(&[b"DUMP", &key]);
            let Some(payload) = reply.text() else {
                differences.push(format!("{name} is missing"));
                continue;
            };
            let value = damselfly_rdb::dump::decode_value(payload).expect("a good payload");
            differences.extend(compare(&expected, None, &value).map(|what| format!("{name}: {what}")));
            let deadline = match expected.get("expire_at_ms") {
                Some(Json::Number(at)) => at.parse().expect("a number"),
                _ => -1,
            };
            if self.ask(&[b"PEXPIRETIME", &key]) != Reply::Int(deadline) {
                differences.push(format!("{name}: another deadline than {deadline}"));
            }
        }
        for (db, count) in count.into_iter().enumerate() {
            self.line(&format!("SELECT {db}"));
            if self.line("DBSIZE") != Reply::Int(count) {
                differences.push(format!("database {db} has other keys than the {count} that are expected"));
            }
        }
        self.line("SELECT 0");
        differences
    }
}

/// What is not in a snapshot's files as a file of expectations says, deadlines and flags included.
fn differences_of_files(expected: &str, files: &[PathBuf]) -> Vec<String> {
    let mut keys = BTreeMap::new();
    for file in files {
        let contents = read_file(&fs::read(file).expect("readable")).expect("well formed");
        assert!(contents.checksum != 0, "{}", file.display());
        keys.extend(contents.keys);
    }
    let mut differences = Vec::new();
    for line in expected.lines() {
        let expected = Json::parse(line);
        let db = expected.get("db").expect("db").number() as u64;
        let key = expected.get("key").expect("key").bytes();
        let name = String::from_utf8_lossy(&key).escape_debug().to_string();
        match keys.remove(&(db, key)) {
            Some((meta, value)) => {
                differences
                    .extend(compare(&expected, Some(&meta), &value).map(|what| format!("{name}: {what}")));
            }
            None => differences.push(format!("{name} is missing")),
        }
    }
    differences.extend(keys.keys().map(|(_, key)| format!("{} is too many", String::from_utf8_lossy(key))));
    differences
}

/// Files that Redis 7.0 and 7.2, Valkey 8.0 and Dragonfly 1.40 wrote, in every format and with any number of shards,
/// are loaded as the data that their servers showed, and saved again in both formats as the same. What had expired is
/// not loaded.
#[test]
fn recorded_snapshots_load_equal() {
    for (number, folder) in snapshot_folders().into_iter().enumerate() {
        let expected = fs::read_to_string(folder.join("expected.jsonl")).expect("readable");
        let directory = Directory::copy_of(&folder);
        let compression = format!("--compression_mode={}", number % 4);
        let mut node = Node::start(1 + number % 4, &directory.0, &[&compression]);
        let differences = node.differences(&expected);
        assert!(differences.is_empty(), "{}:\n{}", folder.display(), differences.join("\n"));
        let threads = 1 + number % 4;
        let sets = [
            ("DF", (0..threads).map(|shard| format!("again-{shard:04}.dfs")).collect()),
            ("RDB", vec!["again.rdb".to_owned()]),
        ];
        for (format, files) in sets {
            assert_eq!(node.line(&format!("SAVE {format} again")), Reply::Simple(b"OK".to_vec()));
            let files: Vec<PathBuf> = files.iter().map(|file: &String| directory.file(file)).collect();
            let differences = differences_of_files(&expected, &files);
            assert!(differences.is_empty(), "{} {format}:\n{}", folder.display(), differences.join("\n"));
        }
    }
}

/// A snapshot that is not whole ends the start with an error that names the file and the place: nobody is served
/// a part of the data.
#[test]
fn broken_snapshots_end_the_start() {
    let folder = recorded::fixtures().join("dragonfly-dfs-2shard-c3");
    type Harm = fn(&Directory);
    let cases: [(Harm, &str); 6] = [
        (|directory| fs::remove_file(directory.file("dump-0001.dfs")).expect("removed"), "dump-0001.dfs"),
        (
            |directory| {
                let file = directory.file("dump-0000.dfs");
                let bytes = fs::read(&file).expect("readable");
                fs::write(file, &bytes[..bytes.len() / 2]).expect("written");
            },
            "dump-0000.dfs",
        ),
        (
            |directory| {
                let other = recorded::fixtures().join("dragonfly-dfs-2shard-c2/dump-0001.dfs");
                fs::copy(other, directory.file("dump-0001.dfs")).expect("copied");
            },
            "belongs to another snapshot",
        ),
        (|directory| fs::write(directory.file("dump-0001.dfs"), b"").expect("written"), "dump-0001.dfs"),
        (
            |directory| fs::write(directory.file("dump-0001.dfs"), b"REDIS0099xx").expect("written"),
            "version 99 is not supported at offset 0",
        ),
        (|directory| fs::write(directory.file("dump-summary.dfs"), b"nonsense").expect("written"), "summary"),
    ];
    for (harm, expected) in cases {
        let directory = Directory::copy_of(&folder);
        harm(&directory);
        let log = failed_start(&directory);
        assert!(log.contains("cannot load the snapshot") && log.contains(expected), "{expected}: {log}");
    }
}

/// The log of a server that ends because of what it was to load.
fn failed_start(directory: &Directory) -> String {
    // Whether it answers a PING before it ends is a matter of luck; that it ends is not.
    match Node::try_start(2, &directory.0, &[]) {
        Err(log) => log,
        Ok(mut node) => {
            let start = Instant::now();
            while node.server.is_alive() && start.elapsed() < TIMEOUT {
                thread::sleep(Duration::from_millis(2));
            }
            let log = node.server.log();
            assert!(!node.server.is_alive(), "{log}");
            log
        }
    }
}

/// A library whose name another one has, or that does not load, ends the start as in Redis. The error names the file and
/// the place.
#[test]
fn libraries_that_do_not_load_end_the_start() {
    let library = |name: &str, function: &str| {
        let register = format!("redis.register_function('{function}', function() return 1 end)");
        format!("#!lua name={name}\n{register}").into_bytes()
    };
    let cases = [
        ([library("one", "f"), library("one", "g")], "Library 'one' already exists"),
        ([library("one", "f"), library("two", "f")], "Function f already exists"),
        ([library("one", "f"), b"#!lua name=two\nreturn nonsense(".to_vec()], "Error compiling function"),
        ([library("one", "f"), b"no head".to_vec()], "Missing library metadata"),
    ];
    for (libraries, expected) in cases {
        for target in [Target::Dfs, Target::Redis7_0] {
            let options =
                FileOptions { target, compression: Compression::Lz4, chunk_len_max: 0, checksum: true };
            let (mut writer, mut file) = (FileWriter::new(options), Vec::new());
            writer.string(0, &Meta::default(), b"key", b"value");
            for source in &libraries {
                writer.function(source);
            }
            writer.eof();
            writer.take(&mut file);
            let directory = Directory::new();
            fs::write(directory.file("dump.rdb"), file).expect("room");
            let log = failed_start(&directory);
            assert!(log.contains("dump.rdb: a function library: ") && log.contains(expected), "{log}");
            assert!(log.contains(" at offset "), "{log}");
        }
    }
}

/// Nothing is loaded twice: a key, in one file or in two, or what a value may have only once. The error names the file
/// and the place.
#[test]
fn duplicates_end_the_start() {
    let write = |target: Target, compression: Compression, fill: &dyn Fn(&mut FileWriter)| {
        let options = FileOptions { target, compression, chunk_len_max: 0, checksum: true };
        let (mut writer, mut bytes) = (FileWriter::new(options), Vec::new());
        fill(&mut writer);
        writer.eof();
        writer.take(&mut bytes);
        bytes
    };
    let bytes = |text: &str| text.as_bytes().to_vec();
    let string =
        |writer: &mut FileWriter, key: &str| writer.string(0, &Meta::default(), key.as_bytes(), b"value");
    let pair = |count: usize| (0..count).map(|n| bytes(&format!("f{n}"))).chain([bytes("f0")]);
    let consumer = |name: &str| ConsumerValue { name: bytes(name), ..ConsumerValue::default() };
    let group = |name: &str, consumers| GroupValue { name: bytes(name), consumers, ..GroupValue::default() };
    let stream = |groups| Value::Stream(StreamValue { groups, ..StreamValue::default() });
    let pending = Pending { id: StreamId { ms: 1, seq: 1 }, delivered_at_ms: 1, deliveries: 1 };
    let values = [
        Value::Hash(pair(3).map(|field| (field, bytes("v"), None)).collect()),
        Value::Hash(pair(2000).map(|field| (field, bytes("v"), None)).collect()),
        Value::Hash(pair(3).map(|field| (field, bytes("v"), Some(4_000_000_000_000))).collect()),
        Value::Set(pair(3).map(|member| (member, None)).collect()),
        Value::Set(pair(2000).map(|member| (member, None)).collect()),
        Value::Set(["1", "2", "1"].map(|number| (bytes(number), None)).to_vec()),
        Value::ZSet(pair(3).map(|member| (member, 1.0)).collect()),
        Value::ZSet(pair(2000).map(|member| (member, 2.0)).collect()),
        stream(vec![group("g", vec![]), group("h", vec![]), group("g", vec![])]),
        stream(vec![group("g", vec![consumer("a"), consumer("b"), consumer("a")])]),
        stream(vec![GroupValue { pending: vec![pending, pending], ..group("g", vec![consumer("a")]) }]),
    ];
    for (number, value) in values.iter().enumerate() {
        let directory = Directory::new();
        let target = if number % 2 == 0 { Target::Dfs } else { Target::Redis7_0 };
        let file = write(target, Compression::None, &|writer| {
            writer.value(0, &Meta::default(), b"key", value);
        });
        fs::write(directory.file("dump.rdb"), file).expect("room");
        let log = failed_start(&directory);
        assert!(log.contains("dump.rdb: ") && log.contains(" at offset "), "{value:?}: {log}");
    }

    let directory = Directory::new();
    // Far enough from each other not to come in one batch.
    let many = |writer: &mut FileWriter| {
        string(writer, "twice");
        (0..5000).for_each(|number| string(writer, &number.to_string()));
        writer.value(0, &Meta::default(), b"twice", &Value::List(vec![bytes("element")]));
    };
    fs::write(directory.file("dump.rdb"), write(Target::Redis7_0, Compression::None, &many)).expect("room");
    let log = failed_start(&directory);
    assert!(log.contains("dump.rdb: key twice: refused: a key for the second time at offset "), "{log}");

    fs::remove_file(directory.file("dump.rdb")).expect("it was there");
    let part = |name: &str, fill: &dyn Fn(&mut FileWriter)| {
        let file = write(Target::Dfs, Compression::Lz4, &|writer| {
            writer.aux(b"snapshot-id", b"1");
            fill(writer);
        });
        fs::write(directory.file(name), file).expect("room");
    };
    part("dump-summary.dfs", &|writer| writer.aux(b"shard-count", b"2"));
    part("dump-0000.dfs", &|writer| string(writer, "twice"));
    part("dump-0001.dfs", &many);
    let log = failed_start(&directory);
    assert!(log.contains("dump-0001.dfs: key twice: refused: a key for the second time at offset "), "{log}");
    assert!(log.contains("byte "), "the place in the blob: {log}");
}

/// A random command that changes something; with `ours`, of types that Redis lacks too.
fn change(random: &mut Random, ours: bool) -> String {
    let (a, b, c) = (random.below(300), random.below(2000), random.below(1 << 40));
    let big = if random.below(50) == 0 { "x".repeat(random.below(20_000) as usize) } else { String::new() };
    let far = 4_000_000_000_000 + c % 1_000_000;
    match random.below(if ours { 40 } else { 33 }) {
        0..=2 => format!("SET s{a} v{c}{big}"),
        3 => format!("SET s{a} {c} PXAT {far}"),
        4 => format!("APPEND s{a} {c}"),
        5 => format!("INCRBY n{a} {c}"),
        6 => format!("SETRANGE s{a} {b} z"),
        7 => format!("DEL s{a} l{a} h{b}"),
        8 => format!("PEXPIREAT h{a} {far}"),
        9 => format!("PERSIST h{a}"),
        10 => format!("RENAME s{a} s{b}"),
        11..=13 => format!("RPUSH l{} e{c} {b}{big}", a % 50),
        14 => format!("LPOP l{} 3", a % 50),
        15 => format!("LSET l{} 0 {c}", a % 50),
        16..=18 => format!("HSET h{} f{b} v{c}{big}", a % 50),
        19 => format!("HDEL h{} f{b}", a % 50),
        20..=21 => format!("SADD set{} m{b} {c}", a % 50),
        22 => format!("SREM set{} m{b}", a % 50),
        23 => format!("SADD ints{} {b} {a}", a % 50),
        24..=25 => format!("ZADD z{} {c}.5 m{b}", a % 50),
        26 => format!("ZREM z{} m{b}", a % 50),
        27..=28 => format!("XADD x{} {}-{b} f{a} v{c}", a % 20, 1 + c),
        29 => format!("XGROUP CREATE x{} g{} 0 MKSTREAM", a % 20, b % 3),
        30 => format!("XREADGROUP GROUP g{} c{b} COUNT 2 STREAMS x{} >", b % 3, a % 20),
        31 => format!("PFADD p{} {c}", a % 10),
        32 => format!("MSET s{a} {c} s{b} {c} s{} {c}", c % 300),
        33 => format!("JSON.SET j{a} $ {{\"a\":[{b},{c},\"{a}\"]}}"),
        34 => format!("JSON.NUMINCRBY j{a} $.a[0] {b}"),
        35 => format!("BF.ADD bf{} {c}", a % 10),
        36 => format!("CF.ADD cf{} {c}", a % 10),
        37 => format!("CMS.INITBYDIM cms{} 20 3", a % 10),
        38 => format!("TOPK.RESERVE top{} 3 10 3 0.9", a % 10),
        _ => format!("STICK s{a}"),
    }
}

/// As [`change`], of what needs more than a key or a shard, and of what is soon over: fields and keys that expire in a
/// moment.
fn wider_change(random: &mut Random) -> String {
    let (a, b, c) = (random.below(50), random.below(50), random.below(2000));
    match random.below(32) {
        0 => format!("RENAME h{a} h{b}"),
        1 => format!("RENAMENX l{a} l{b}"),
        2 => format!("COPY z{a} z{b} REPLACE"),
        3 => format!("COPY s{a} s{b} DB 1 REPLACE"),
        4 => format!("MOVE s{a} 1"),
        5 => format!("SMOVE set{a} set{b} m{c}"),
        6 => format!("LMOVE l{a} l{b} LEFT RIGHT"),
        7 => format!("SUNIONSTORE set{a} set{b} set{}", a / 2),
        8 => format!("ZUNIONSTORE z{a} 2 z{b} z{}", a / 2),
        9 => format!("SORT ints{a} BY nosort STORE l{b}"),
        10 => format!("BITOP XOR s{a} s{b} s{}", a / 2),
        11 => format!("PFMERGE p{} p{}", a % 10, b % 10),
        12 => format!("MSETNX s{a} {c} s{} {c}", 300 + c),
        13 => format!("GETDEL s{a}"),
        14 => format!("UNLINK z{a} set{b}"),
        15 => format!("SPOP set{a} 3"),
        16..=20 => format!("SET soon{c} {a} PX {}", 1 + b),
        21 => format!("PEXPIRE h{a} {}", 1 + b),
        22 => format!("PEXPIRE l{a} {}", 1 + b),
        23..=25 => format!("HSETEX h{a} 1 soon{b} {c}"),
        26 => format!("SADDEX set{a} 1 soon{b}"),
        27 => format!("FIELDEXPIRE h{a} 1 f{c}"),
        28 => format!("HEXPIRE h{a} {} FIELDS 1 f{c}", 100_000 + b),
        29 => format!("XTRIM x{} MAXLEN {c}", a % 20),
        30 => format!("JSON.ARRAPPEND j{a} $.a {c}"),
        _ if c < 10 => "SWAPDB 0 1".to_owned(),
        _ => format!("ZADD geo{a} {c} m{b}"),
    }
}

/// Sends changes in one write, and waits until they are done.
fn play(client: &mut Client, random: &mut Random, count: u64) {
    let lines = (0..count).map(|_| match random.below(4) {
        0 => wider_change(random),
        _ => change(random, true),
    });
    let requests: Vec<Vec<String>> = lines.map(|line| words(&line)).collect();
    client.send(&requests);
    for _ in requests {
        client.reply();
    }
}

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

/// How many changes are sent at once.
const BATCH: u64 = 100;
/// The fields that live shortest do so for a second.
const SOON_OVER: Duration = Duration::from_millis(1100);

/// Random commands over all types, over one shard and several, a snapshot in the midst of them, and changes of all that
/// while it is being saved: what another number of shards loads is what was there at the answer to BGSAVE, as a set of
/// files and as one. Keys and fields had expired before the cut and not been seen to, others do so behind it.
#[test]
fn a_cut_under_load_is_exact() {
    let commands = setting("DAMSELFLY_COMMANDS", 12_000);
    let seed = setting("DAMSELFLY_SEED", 1);
    for (seed, threads, reloaded) in [(seed, 3, 2), (seed + 1, 1, 4), (seed + 2, 4, 1)] {
        let directory = Directory::new();
        let mut random = Random::new(seed);
        let mut node = Node::start(threads, &directory.0, &[]);
        let mut client = Client::open(node.server.address());
        let mut seen_saving = false;
        for format in ["DF dump", "RDB single"] {
            // Enough for a save that is still under way when the changes come.
            node.line(&format!("DEBUG POPULATE {} filler 300", 30_000 + commands / 4));
            for _ in 0..commands / 4 / BATCH {
                play(&mut client, &mut random, BATCH);
            }
            thread::sleep(SOON_OVER);
            let keys = node.keys_with_digests();
            client.send(&[words("DEBUG DIGEST"), words(&format!("BGSAVE {format}"))]);
            let expected = client.reply();
            assert_eq!(client.reply(), Reply::Simple(b"Background saving started".to_vec()));
            let batches = commands / 4 / BATCH;
            for number in 0..batches {
                play(&mut client, &mut random, BATCH);
                let fillers = (0..BATCH).map(|_| format!("SET filler:{} changed", random.below(30_000)));
                client.send(&fillers.map(|line| words(&line)).collect::<Vec<_>>());
                (0..BATCH).for_each(|_| drop(client.reply()));
                seen_saving |= number % 8 == 0 && node.info("saving").as_deref() == Some("1");
                let at_once = match number * 8 / batches {
                    2 => "SWAPDB 0 1",
                    3 => "FLUSHDB",
                    4 => "SWAPDB 1 0",
                    6 => "FLUSHALL",
                    _ => continue,
                };
                if (number * 8).is_multiple_of(batches) {
                    client.call(&words(at_once));
                }
            }
            node.wait_for("saving", "0");
            assert_eq!(node.info("rdb_last_bgsave_status").as_deref(), Some("ok"));
            let name = if format == "DF dump" { "--dbfilename=dump" } else { "--dbfilename=single" };
            let mut other = Node::start(reloaded, &directory.0, &[name]);
            if other.line("DEBUG DIGEST") != expected {
                let loaded = other.keys_with_digests();
                let differ = |key: &&(i64, Vec<u8>)| keys.get(*key) != loaded.get(*key);
                let differing: BTreeSet<_> = keys.keys().chain(loaded.keys()).filter(differ).collect();
                for (db, key) in differing {
                    let key = String::from_utf8_lossy(key);
                    eprintln!("{db} {key}");
                }
                panic!("seed {seed}, {format}: not the state of the cut");
            }
        }
        assert!(seen_saving, "the save was still going on when the data changed");
    }
}

/// Keys that are evicted while they are still to be saved are in the snapshot all the same. A server for each round: one that
/// is given more memory goes on for a moment to evict what it meant to.
#[test]
fn eviction_under_a_cut() {
    const KEYS: i64 = 150_000;
    let samples = || (0..KEYS).step_by(997).map(|key| format!("GET filler:{key}"));
    let mut proofs = 0;
    for round in 0..10 {
        let directory = Directory::new();
        let mut node = Node::start(2, &directory.0, &["--cache_mode=true", "--maxmemory=1gb"]);
        let mut client = Client::open(node.server.address());
        node.line(&format!("DEBUG POPULATE {KEYS} filler 300"));
        let expected: Vec<Reply> = samples().map(|line| node.line(&line)).collect();
        let used: u64 = node.info("used_memory").and_then(|text| text.parse().ok()).expect("a number");
        // There is too little memory from the cut on and not before: all of it is sent at once.
        let mut lines = vec!["BGSAVE".to_owned(), format!("CONFIG SET maxmemory {}", used * 3 / 4)];
        lines.extend((0..200).map(|number| format!("SET new:{number} {}", "x".repeat(2000))));
        client.send(&lines.iter().map(|line| words(line)).collect::<Vec<_>>());
        assert_eq!(client.reply(), Reply::Simple(b"Background saving started".to_vec()));
        (1..lines.len()).for_each(|_| drop(client.reply()));
        loop {
            // One reply, so both are of the same moment.
            let reply = node.line("INFO everything");
            let text = String::from_utf8_lossy(reply.text().expect("INFO is text")).into_owned();
            if !text.contains("\r\nsaving:1\r\n") {
                break;
            }
            if !text.contains("\r\nevicted_keys:0\r\n") {
                proofs += 1;
                node.wait_for("saving", "0");
                break;
            }
        }
        assert_eq!(node.info("rdb_last_bgsave_status").as_deref(), Some("ok"));
        let mut other = Node::start(1 + round % 4, &directory.0, &[]);
        assert_eq!(other.line("DBSIZE"), Reply::Int(KEYS), "round {round}");
        assert_eq!(samples().map(|line| other.line(&line)).collect::<Vec<_>>(), expected);
        if proofs == 2 {
            return;
        }
    }
    panic!("keys were evicted under {proofs} of 10 cuts");
}

/// An MSET over all shards is in the snapshot whole or not at all, however many of them run at the instant of the cut.
#[test]
fn a_cut_is_one_instant() {
    let directory = Directory::new();
    let mut node = Node::start(4, &directory.0, &[]);
    node.line("DEBUG POPULATE 20000 filler 100");
    let stop = std::sync::atomic::AtomicBool::new(false);
    let mset = |number: u64| {
        let pairs: Vec<String> = (0..16).map(|key| format!("together{key} {number}")).collect();
        format!("MSET {}", pairs.join(" "))
    };
    node.line(&mset(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            let (address, stop, mset) = (node.server.address(), &stop, &mset);
            scope.spawn(move || {
                let mut client = Tcp::new(address, Protocol::Resp2);
                for number in 1.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let words: Vec<Vec<u8>> =
                        mset(number).split(' ').map(|word| word.as_bytes().to_vec()).collect();
                    client.call("A", &words).expect("answers");
                }
            });
        }
        for round in 0..6 {
            assert_eq!(node.line("SAVE"), Reply::Simple(b"OK".to_vec()));
            let mut other = Node::start(1 + round % 4, &directory.0, &[]);
            let values = other.line(
                "MGET together0 together1 together2 together3 together4 together5 together6 together7 \
                 together8 together9 together10 together11 together12 together13 together14 together15",
            );
            let Reply::Array(values) = values else { panic!("{values}") };
            assert!(values.iter().all(|value| *value == values[0]), "{values:?}");
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// Killed at any instant of a save, the server finds the old snapshot or the new one, whole, and sweeps the rest.
#[test]
fn killed_while_saving() {
    let (mut olds, mut news) = (0, 0);
    for seed in 1..=setting("DAMSELFLY_KILLS", 12) {
        let mut random = Random::new(seed);
        let directory = Directory::new();
        let mut node = Node::start(2, &directory.0, &[]);
        node.line("DEBUG POPULATE 3000 old 200");
        for _ in 0..300 {
            node.line(&change(&mut random, true));
        }
        let old = node.line("DEBUG DIGEST");
        let began = Instant::now();
        assert_eq!(node.line("SAVE"), Reply::Simple(b"OK".to_vec()));
        let took = began.elapsed();
        node.line("DEBUG POPULATE 3000 new 200");
        let new = node.line("DEBUG DIGEST");
        node.line("BGSAVE");
        // From the beginning of the save to its end and some time behind it: it has twice as much to do as the one before, on a warmer disk.
        thread::sleep(Duration::from_micros(random.below(2 * took.as_micros() as u64)));
        node.server.kill();
        let mut node = Node::start(1 + seed as usize % 3, &directory.0, &[]);
        let found = node.line("DEBUG DIGEST");
        assert!(found == old || found == new, "seed {seed}");
        *if found == old { &mut olds } else { &mut news } += 1;
        let leftovers: Vec<_> = fs::read_dir(&directory.0)
            .expect("readable")
            .map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned())
            .filter(|name| !name.ends_with(".dfs"))
            .collect();
        assert!(leftovers.is_empty(), "seed {seed}: {leftovers:?}");
    }
    println!("{olds} found the old snapshot, {news} the new one");
}

/// Keys whose values two servers do not agree on.
fn differing_keys(one: &mut Node, other: &mut Node) -> Vec<String> {
    let Reply::Array(keys) = one.line("KEYS *") else { panic!("KEYS answers an array") };
    let mut differing = Vec::new();
    for key in keys.iter().filter_map(Reply::text) {
        let request: [&[u8]; 3] = [b"DEBUG", b"DIGEST-VALUE", key];
        if one.ask(&request) != other.ask(&request) {
            differing.push(String::from_utf8_lossy(key).into_owned());
        }
    }
    differing
}

/// Our rdb file is good for redis-check-rdb, and Redis 7.0 loads from it the data that we had: of all types it knows.
#[test]
fn redis_loads_our_rdb() {
    for seed in 1..=3 {
        let mut random = Random::new(seed);
        let directory = Directory::new();
        let mut node = Node::start(3, &directory.0, &[]);
        for _ in 0..4000 {
            node.line(&change(&mut random, false));
        }
        node.ask(&[
            b"FUNCTION",
            b"LOAD",
            b"#!lua name=lib\nredis.register_function('f', function() return 7 end)",
        ]);
        node.ask(&[b"SET", b"long", &vec![b'y'; 3 << 20]]);
        let ours = node.line("DEBUG DIGEST");
        assert_eq!(node.line("SAVE RDB dump"), Reply::Simple(b"OK".to_vec()));
        let checked = std::process::Command::new("redis-check-rdb").arg(directory.file("dump.rdb")).output();
        let checked = checked.expect("redis-check-rdb is there");
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
        let dir = directory.0.display().to_string();
        let server =
            Server::start(Kind::Redis, &["--dir", &dir, "--dbfilename", "dump.rdb"]).expect("Redis starts");
        let mut redis = Node { client: Tcp::new(server.address(), Protocol::Resp2), server };
        redis.wait_for("loading", "0");
        let differing = differing_keys(&mut node, &mut redis);
        assert!(differing.is_empty(), "seed {seed}: {differing:?}");
        assert_eq!(redis.line("DEBUG DIGEST"), ours, "seed {seed}");
        assert_eq!(redis.line("FCALL f 0"), Reply::Int(7));
        // And back: what Redis saves is what we load.
        assert_eq!(redis.line("SAVE"), Reply::Simple(b"OK".to_vec()));
        let mut node = Node::start(2, &directory.0, &[]);
        assert_eq!(node.line("DEBUG DIGEST"), ours, "seed {seed}");
        assert_eq!(node.line("FCALL f 0"), Reply::Int(7));
    }
}

/// A save that fails leaves the old snapshot, is told everywhere, and stops nobody; the next one may succeed.
#[test]
fn failed_saves_are_loud() {
    let directory = Directory::new();
    let mut node = Node::start(2, &directory.0, &[]);
    node.line("SET a 1");
    assert_eq!(node.line("SAVE"), Reply::Simple(b"OK".to_vec()));
    let last = node.line("LASTSAVE");
    // A directory of that name cannot be opened for writing, whoever we are.
    fs::create_dir(directory.file("dump-0001.dfs.tmp")).expect("made");
    node.line("SET a 2");
    for _ in 0..2 {
        let Reply::Error(error) = node.line("SAVE") else { panic!("the save cannot succeed") };
        assert!(
            String::from_utf8_lossy(&error).contains("dump-0001.dfs"),
            "{}",
            String::from_utf8_lossy(&error)
        );
        assert!(matches!(node.line("BGSAVE"), Reply::Error(_)));
    }
    assert_eq!(node.info("rdb_last_bgsave_status").as_deref(), Some("err"));
    assert!(node.info("last_error").is_some_and(|error| error.contains("dump-0001.dfs")));
    assert_eq!(node.line("LASTSAVE"), last);
    assert!(node.server.log().contains("could not be saved"));
    assert!(matches!(node.line("SHUTDOWN"), Reply::Error(_)), "the server does not go without its data");
    assert_eq!(node.line("SET b 3"), Reply::Simple(b"OK".to_vec()), "and takes writes again");
    let mut other = Node::start(2, &Directory::copy_of(&directory.0).0, &[]);
    assert_eq!(other.line("GET a"), Reply::Bulk(b"1".to_vec()));
    fs::remove_dir(directory.file("dump-0001.dfs.tmp")).expect("removed");
    assert_eq!(node.line("SAVE"), Reply::Simple(b"OK".to_vec()));
    assert_eq!(node.info("rdb_last_bgsave_status").as_deref(), Some("ok"));
}

/// SIGTERM saves what was answered before; SHUTDOWN NOSAVE does not; DEBUG RELOAD and DFLY LOAD bring all back.
#[test]
fn ends_and_reloads() {
    let directory = Directory::new();
    let mut random = Random::new(9);
    let mut node = Node::start(2, &directory.0, &[]);
    for _ in 0..1500 {
        node.line(&change(&mut random, true));
    }
    let digest = node.line("DEBUG DIGEST");
    assert_eq!(node.line("DEBUG RELOAD"), Reply::Simple(b"OK".to_vec()));
    assert_eq!(node.line("DEBUG DIGEST"), digest);
    node.line("SAVE RDB other");
    node.line("FLUSHALL");
    assert_eq!(node.line("DFLY LOAD other.rdb"), Reply::Simple(b"OK".to_vec()));
    assert_eq!(node.line("DEBUG DIGEST"), digest);
    assert!(matches!(node.line("DFLY LOAD missing.rdb"), Reply::Error(_)));
    assert_eq!(node.line("DEBUG DIGEST"), digest, "nothing is lost for a file that is not there");
    node.line("SET one more");
    let digest = node.line("DEBUG DIGEST");
    node.server.terminate();
    let mut node = Node::start(3, &directory.0, &["--df_snapshot_format=true"]);
    assert_eq!(node.line("DEBUG DIGEST"), digest);
    node.line("SET not saved");
    let end = [b"SHUTDOWN".to_vec(), b"NOSAVE".to_vec()];
    node.client.send("A", &end).expect("sent");
    node.server.wait_for_end();
    let mut node = Node::start(1, &directory.0, &[]);
    assert_eq!(node.line("DEBUG DIGEST"), digest);
    node.line("SET saved yes");
    node.client.send("A", &[b"SHUTDOWN".to_vec()]).expect("sent");
    node.server.wait_for_end();
    let mut node = Node::start(2, &directory.0, &[]);
    assert_eq!(node.line("GET saved"), Reply::Bulk(b"yes".to_vec()));
}

/// A schedule that is set at run time saves within its minute, and one that is taken away does not.
#[test]
#[ignore = "takes up to a minute, the finest that cron knows"]
fn scheduled() {
    let directory = Directory::new();
    let mut node = Node::start(1, &directory.0, &[]);
    node.line("SET a 1");
    assert_eq!(node.ask(&[b"CONFIG", b"SET", b"snapshot_cron", b"* * * * *"]), Reply::Simple(b"OK".to_vec()));
    let start = Instant::now();
    while node.info("rdb_saves").as_deref() == Some("0") {
        assert!(start.elapsed() < Duration::from_secs(70));
        thread::sleep(Duration::from_millis(100));
    }
    assert!(directory.file("dump-summary.dfs").exists());
}
