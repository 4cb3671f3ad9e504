//! `damselfly snapshot`: what it prints, its exit status, and that a server loads what it converted.

#[path = "../rdb/tests/support/mod.rs"]
mod recorded;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use damselfly_tests::executor::{Executor, Tcp};
use damselfly_tests::reply::{Protocol, Reply};
use damselfly_tests::servers::{Kind, Server, binary};
use recorded::{Json, fixtures, snapshot_folders};

/// A directory of its own, removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Directory {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("damselfly-tools-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        Directory(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }

    fn names(&self) -> Vec<String> {
        let entries =
            fs::read_dir(&self.0).expect("readable").map(|entry| entry.expect("readable").file_name());
        let mut names: Vec<String> = entries.map(|name| name.into_string().expect("text")).collect();
        names.sort();
        names
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn tool(args: &[&str]) -> Output {
    let binary = binary().unwrap_or_else(|error| panic!("{error}"));
    Command::new(binary).arg("snapshot").args(args).output().expect("it starts")
}

/// The exit status and what was printed to the standard output and error.
fn run(args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = tool(args);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (status.code().expect("no signal"), text(stdout), text(stderr))
}

fn fixture(name: &str) -> String {
    fixtures().join(name).display().to_string()
}

/// All recorded snapshots at once: status 0, and JSON with the keys of each.
#[test]
fn inspects_what_servers_wrote() {
    let folders: Vec<String> = snapshot_folders().iter().map(|folder| folder.display().to_string()).collect();
    let mut args = vec!["inspect", "--json", "--top=2"];
    args.extend(folders.iter().map(String::as_str));
    let (status, out, error) = run(&args);
    assert_eq!((status, error.as_str()), (0, ""));
    let document = Json::parse(&out);
    let snapshots = document.get("snapshots").expect("snapshots").array();
    assert_eq!(snapshots.len(), folders.len());
    for (snapshot, folder) in snapshots.iter().zip(&folders) {
        let expected = fs::read_to_string(Path::new(folder).join("expected.jsonl")).expect("readable");
        let keys = snapshot.get("total").and_then(|total| total.get("keys")).expect("keys").number();
        assert_eq!(keys as usize, expected.lines().count() + 2, "{folder}");
        assert_eq!(snapshot.get("whole"), Some(&Json::Bool(true)));
        assert_eq!(snapshot.get("largest").expect("largest").array().len(), 2);
        assert_eq!(snapshot.get("due").expect("due").number(), 2, "two were due when it was saved");
    }
    let (status, out, _) = run(&["inspect", &folders[0]]);
    assert_eq!(status, 0);
    for line in ["dump-summary.dfs: whole\n", "format    dfs, 1 shard, version 9\n", "\nlargest keys\n"] {
        assert!(out.contains(line), "{line} in {out}");
    }
}

/// Function libraries are listed with name, engine and size, and go from one format to the other and back.
#[test]
fn libraries() {
    let directory = Directory::new();
    let source = fixture("redis-7.0.15-rdb/dump.rdb");
    let (set, back) = (directory.path("set"), directory.path("back.rdb"));
    assert_eq!(run(&["convert", &source, &set, "--shards=3"]).0, 0);
    let (status, out, error) = run(&["convert", &directory.path("set-summary.dfs"), &back]);
    assert_eq!((status, error.as_str()), (0, ""));
    assert!(out.contains("Dragonfly refuses the file for its 2 function libraries\n"), "{out}");
    let mut all = Vec::new();
    for path in [&source, &directory.path("set-summary.dfs"), &back] {
        let (status, out, _) = run(&["inspect", path]);
        assert_eq!(status, 0);
        assert!(out.contains("2 function libraries") && out.contains("\nfunction libraries\n"), "{out}");
        assert!(out.contains("  lua     fixturelib\n") && out.contains("  lua     lib2\n"), "{out}");
        let (_, out, _) = run(&["inspect", "--json", path]);
        let document = Json::parse(&out);
        let snapshot = &document.get("snapshots").expect("snapshots").array()[0];
        assert_eq!(snapshot.get("functions").expect("functions").number(), 2);
        let listed = snapshot.get("libraries").expect("libraries").array();
        let listed = listed.iter().map(|library| {
            let of = |name| library.get(name).expect("described");
            (of("name").text().to_owned(), of("engine").text().to_owned(), of("bytes").number())
        });
        all.push(listed.collect::<Vec<_>>());
    }
    assert!(all[0].len() == 2 && all.iter().all(|listed| *listed == all[0]), "{all:?}");
}

/// What is broken has status 1 and is named; wrong arguments have status 2.
#[test]
fn exit_status() {
    let directory = Directory::new();
    let bytes = fs::read(fixtures().join("redis-7.0.15-rdb/dump.rdb")).expect("readable");
    let path = directory.path("cut.rdb");
    fs::write(&path, &bytes[..1000]).expect("room");
    let (status, out, _) = run(&["inspect", &path]);
    assert_eq!(status, 1);
    assert!(out.contains("BROKEN"));
    assert!(out.contains("cut.rdb: unexpected end of data at offset 1000"), "{out}");
    let (status, out, _) = run(&["inspect", "--json", &directory.path("")]);
    let document = Json::parse(&out);
    let whole = document.get("snapshots").expect("snapshots").array()[0].get("whole").cloned();
    assert_eq!((status, whole), (1, Some(Json::Bool(false))));
    assert_eq!(run(&["inspect", &directory.path("none.rdb")]).0, 1);
    let (status, _, error) = run(&["convert", &path, &directory.path("new")]);
    assert_eq!(status, 1);
    assert!(error.contains("cut.rdb: unexpected end of data at offset 1000"), "{error}");
    assert_eq!(directory.names(), ["cut.rdb"], "nothing is left of what failed");

    for wrong in [
        &["inspect"][..],
        &["inspect", "--unknown", "x"],
        &["convert", "x.rdb"],
        &["convert", &fixture("redis-7.0.15-rdb"), "x.json"],
        &["convert", &fixture("redis-7.0.15-rdb"), "x.rdb", "--shards=3"],
        &["convert", &fixture("redis-7.0.15-rdb"), "x", "--shards=0"],
        &["inspect", &Directory::new().path("")],
        &["other"],
    ] {
        let (status, out, error) = run(wrong);
        assert_eq!((status, out.as_str()), (2, ""), "{wrong:?}");
        assert!(!error.is_empty());
    }
    let spelled_as_for_the_server = run(&["inspect", "--s3_ec2_metadata", &fixture("redis-7.0.15-rdb")]);
    assert_eq!(spelled_as_for_the_server.0, 0);
    let (status, help, error) = run(&["--help"]);
    assert_eq!((status, error.as_str()), (0, ""));
    assert!(help.contains("inspect") && help.contains("convert"));
    assert!(help.lines().all(|line| line.len() <= 110), "{help}");
}

/// Files are for the owner alone, those that exist are left alone, and temporary names are gone.
#[test]
fn conversion_writes_beside_what_is_there() {
    let directory = Directory::new();
    let source = fixture("redis-7.2.5-rdb/dump.rdb");
    let (status, out, error) = run(&["convert", &source, &directory.path("new"), "--shards", "2"]);
    assert_eq!((status, error.as_str()), (0, ""));
    assert!(out.contains("new-summary.dfs: 233 keys in 2 shards"), "{out}");
    assert_eq!(directory.names(), ["new-0000.dfs", "new-0001.dfs", "new-summary.dfs"]);
    for name in directory.names() {
        let mode = fs::metadata(directory.path(&name)).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let before = fs::read(directory.path("new-0001.dfs")).expect("readable");
    let (status, _, error) = run(&["convert", &source, &directory.path("new-summary.dfs"), "--shards=2"]);
    assert_eq!(status, 1);
    assert!(error.contains("new-0000.dfs: the file is there already"), "{error}");
    assert_eq!(fs::read(directory.path("new-0001.dfs")).expect("readable"), before);
    // A directory with one snapshot stands for it; the number of shards stays.
    let (status, out, error) =
        run(&["convert", &directory.path(""), &directory.path("again"), "--compression=zstd"]);
    assert_eq!((status, error.as_str()), (0, ""));
    assert!(out.contains("in 2 shards"), "{out}");
    assert_eq!(run(&["convert", &directory.path(""), &directory.path("third")]).0, 2);
}

/// A server that loads what was converted answers as the one did that wrote the original, also of what no payload
/// shows: the filters and sketches.
#[test]
fn a_server_loads_what_was_converted() {
    let directory = Directory::new();
    let folder = fixtures().join("dragonfly-dfs-3shard-c3");
    for (from, to, shards) in
        [(folder.display().to_string(), "one.rdb", None), (directory.path("one.rdb"), "set", Some("5"))]
    {
        let to = directory.path(to);
        let mut args = vec!["convert", from.as_str(), to.as_str()];
        args.extend(shards.into_iter().flat_map(|shards| ["--shards", shards]));
        let (status, _, error) = run(&args);
        assert_eq!((status, error.as_str()), (0, ""));
    }
    let expected = fs::read_to_string(folder.join("expected.jsonl")).expect("readable");
    for name in ["one", "set"] {
        let dir = format!("--dir={}", directory.0.display());
        let name = format!("--dbfilename={name}");
        let server = Server::start(Kind::Damselfly { threads: 2 }, &[&dir, &name]).expect("it starts");
        let mut client = Tcp::new(server.address(), Protocol::Resp2);
        let mut ask = |request: &[&[u8]]| {
            let request: Vec<Vec<u8>> = request.iter().map(|argument| argument.to_vec()).collect();
            client.call("A", &request).unwrap_or_else(|error| panic!("{error}\n{}", server.log()))
        };
        let start = Instant::now();
        while matches!(ask(&[b"DBSIZE"]), Reply::Error(loading) if loading.starts_with(b"LOADING")) {
            assert!(start.elapsed() < Duration::from_secs(60), "it loads for ever");
        }
        let mut probes = 0;
        for line in expected.lines().map(Json::parse) {
            if line.get("db").expect("a db").number() > 0 {
                continue;
            }
            let key = line.get("key").expect("a key").bytes();
            let kind = line.get("type").expect("a type").text();
            assert_eq!(ask(&[b"TYPE", &key]), Reply::Simple(kind.as_bytes().to_vec()), "{line:?}");
            if let Some(count) = line.get("pfcount") {
                assert_eq!(ask(&[b"PFCOUNT", &key]), Reply::Int(count.number()));
            }
            let questions: &[(&str, &[u8])] = match kind {
                "MBbloom--" => &[("exists", b"BF.EXISTS")],
                "MBbloomCF" => &[("exists", b"CF.EXISTS"), ("count", b"CF.COUNT")],
                "CMSk-TYPE" => &[("count", b"CMS.QUERY")],
                "TopK-TYPE" => &[("query", b"TOPK.QUERY")],
                _ => &[],
            };
            for (field, command) in questions {
                let answers = line.get("value").and_then(|value| value.get(field)).expect("recorded");
                for pair in answers.array() {
                    let answer = match ask(&[command, &key, &pair.array()[0].bytes()]) {
                        Reply::Array(mut one) => one.remove(0),
                        other => other,
                    };
                    assert_eq!(answer, Reply::Int(pair.array()[1].number()), "{line:?} {pair:?}");
                    probes += 1;
                }
            }
        }
        assert!(probes > 150, "{probes}");
    }
}
