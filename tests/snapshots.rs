//! Snapshots of the whole server: what is loaded at a start, what is saved, and what a crash leaves.

#[path = "../rdb/tests/support/mod.rs"]
mod recorded;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use damselfly_tests::executor::{Executor, Tcp};
use damselfly_tests::reply::{Protocol, Reply};
use damselfly_tests::servers::{Kind, Server};
use recorded::{Json, compare, snapshot_folders};

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
            fs::copy(entry.path(), directory.0.join(entry.file_name())).expect("copied");
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

/// Files that Redis 7.0 and 7.2, Valkey 8.0 and Dragonfly 1.40 wrote, in every format and with any number of shards,
/// are loaded as the data that their servers showed. What had expired is not loaded.
#[test]
fn recorded_snapshots_load_equal() {
    for (number, folder) in snapshot_folders().into_iter().enumerate() {
        let expected = fs::read_to_string(folder.join("expected.jsonl")).expect("readable");
        let directory = Directory::copy_of(&folder);
        let mut node = Node::start(1 + number % 4, &directory.0, &[]);
        let differences = node.differences(&expected);
        assert!(differences.is_empty(), "{}:\n{}", folder.display(), differences.join("\n"));
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
        // Whether it answers a PING before it ends is a matter of luck; that it ends is not.
        let log = match Node::try_start(2, &directory.0, &[]) {
            Err(log) => log,
            Ok(mut node) => {
                let start = Instant::now();
                while node.server.is_alive() && start.elapsed() < TIMEOUT {
                    thread::sleep(Duration::from_millis(2));
                }
                assert!(!node.server.is_alive(), "{expected}");
                node.server.log()
            }
        };
        assert!(log.contains("cannot load the snapshot") && log.contains(expected), "{expected}: {log}");
    }
}
