//! Snapshots in a bucket of a server that speaks S3: moto, which `tests/setup.sh` installs. Without it the tests say so
//! and pass.

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use damselfly_tests::servers::binary;

/// How long a server may take until it listens.
const START_TIMEOUT: Duration = Duration::from_secs(120);
/// What the children need to reach the bucket; moto takes any credentials.
const ENVIRONMENT: [(&str, &str); 3] =
    [("AWS_ACCESS_KEY_ID", "test"), ("AWS_SECRET_ACCESS_KEY", "test"), ("AWS_REGION", "us-east-1")];

/// A command that starts moto. Not its script, which would look for Python where the checkout was when it was installed.
fn moto() -> Option<Command> {
    if let Some(path) = env::var_os("MOTO_SERVER") {
        return Some(Command::new(path));
    }
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/moto/bin/python");
    let mut command = Command::new(&python);
    let import = Command::new(&python).args(["-c", "import moto.server"]).stderr(Stdio::null()).status();
    if import.is_ok_and(|status| status.success()) {
        command.args(["-m", "moto.server"]);
        return Some(command);
    }
    eprintln!("SKIPPED: moto is not installed (tests/setup.sh), so nothing was written to a bucket");
    None
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

/// A process that ends with this, and its log.
struct Process {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Process {
    fn start(mut command: Command, port: u16) -> Process {
        let log = env::temp_dir().join(format!("damselfly-buckets-{}-{port}.log", std::process::id()));
        let file = fs::File::create(&log).expect("a log");
        command.stdin(Stdio::null()).stdout(file.try_clone().expect("a log")).stderr(file);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut process = Process { child, port, log };
        let start = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            let ended = process.child.try_wait().expect("it is ours").is_some();
            assert!(!ended && start.elapsed() < START_TIMEOUT, "{command:?}: {}", process.log());
            thread::sleep(Duration::from_millis(20));
        }
        process
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        fs::remove_file(&self.log).ok();
    }
}

/// A bucket's server, with an empty bucket called `backups`.
struct Bucket(Process);

impl Bucket {
    fn start() -> Option<Bucket> {
        let port = free_port();
        let mut command = moto()?;
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        let bucket = Bucket(Process::start(command, port));
        assert!(bucket.ask("PUT", "/backups").starts_with("HTTP/1.1 200"), "{}", bucket.0.log());
        Some(bucket)
    }

    /// An answer, head and body.
    fn ask(&self, method: &str, path: &str) -> String {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.0.port));
        let mut stream = TcpStream::connect(address).expect("it listens");
        let head = "Host: localhost\r\nConnection: close\r\nContent-Length: 0\r\n";
        write!(stream, "{method} {path} HTTP/1.1\r\n{head}\r\n").expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("it answers");
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Names of all objects, without what stands around them.
    fn objects(&self) -> Vec<String> {
        let answer = self.ask("GET", "/backups?list-type=2");
        let keys = answer.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next());
        keys.map(str::to_owned).collect()
    }

    fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.0.port)
    }

    /// Runs a tool: its exit status, and what it printed.
    fn tool(&self, args: &[&str]) -> (i32, String) {
        let mut command = Command::new(binary().expect("it is built"));
        command.arg("snapshot").args(args).envs(ENVIRONMENT);
        command.args([&format!("--s3-endpoint={}", self.endpoint()), "--s3-use-https=false"]);
        let output = command.output().expect("it starts");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().expect("no signal"), String::from_utf8(text).expect("text"))
    }

    /// Starts a server whose snapshots are under a prefix of the bucket.
    fn server(&self, threads: usize, prefix: &str) -> Process {
        server(&self.endpoint(), threads, prefix, "dump")
    }
}

fn server(endpoint: &str, threads: usize, prefix: &str, name: &str) -> Process {
    let port = free_port();
    let mut command = Command::new(binary().expect("it is built"));
    command.envs(ENVIRONMENT).arg(format!("--port={port}")).arg("--bind=127.0.0.1").arg("--http_port=0");
    command.arg(format!("--dir=s3://backups/{prefix}")).arg(format!("--dbfilename={name}"));
    command.arg(format!("--s3_endpoint={endpoint}")).arg("--nos3_use_https");
    command.arg(format!("--proactor_threads={threads}"));
    Process::start(command, port)
}

/// What a server answers to a line, up to where it waits for the next one.
fn ask(server: &Process, line: &str) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port)).expect("it listens");
    write!(stream, "{line}\r\nQUIT\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    answer.strip_suffix("+OK\r\n").expect("QUIT is answered last").to_owned()
}

fn wait_until_loaded(server: &Process) {
    let start = Instant::now();
    while ask(server, "DBSIZE").starts_with("-LOADING") {
        assert!(start.elapsed() < START_TIMEOUT, "{}", server.log());
        thread::sleep(Duration::from_millis(5));
    }
}

fn fixture(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/snapshots").join(name).display().to_string()
}

/// A recorded snapshot goes to the bucket as a set, is inspected there, is loaded by a server, and comes back as a file;
/// broken sets are noticed as they are in a directory.
#[test]
fn snapshots_in_a_bucket() {
    let Some(bucket) = Bucket::start() else { return };
    let (status, out) = bucket.tool(&["inspect", "s3://backups/nothing"]);
    assert_eq!(status, 2, "{out}");

    let (status, out) = bucket.tool(&[
        "convert",
        &fixture("redis-7.2.5-rdb/dump.rdb"),
        "s3://backups/of/today/dump",
        "--shards=3",
        "--compression=none",
    ]);
    assert_eq!(status, 0, "{out}");
    assert!(out.starts_with("s3://backups/of/today/dump-summary.dfs: 233 keys in 3 shards"), "{out}");
    let names = ["dump-0000.dfs", "dump-0001.dfs", "dump-0002.dfs", "dump-summary.dfs"];
    assert_eq!(bucket.objects(), names.map(|name| format!("of/today/{name}")));
    for address in
        ["s3://backups/of/today/dump-summary.dfs", "s3://backups/of/today", "s3://backups/of/today/"]
    {
        let (status, out) = bucket.tool(&["inspect", address]);
        assert_eq!(status, 0, "{out}");
        assert!(out.contains("dump-summary.dfs: whole") && out.contains("keys      233"), "{out}");
    }
    // What exists is not overwritten, in a bucket either.
    let (status, out) =
        bucket.tool(&["convert", &fixture("redis-7.2.5-rdb"), "s3://backups/of/today/dump", "--shards=2"]);
    assert!(status == 1 && out.contains("dump-0000.dfs: the file is there already"), "{out}");

    let server = bucket.server(2, "of/today");
    wait_until_loaded(&server);
    assert_eq!(ask(&server, "DBSIZE"), ":223\r\n", "database 0, without the two that were due");
    assert_eq!(ask(&server, "LLEN list:5000"), ":5000\r\n");
    drop(server);

    let back = env::temp_dir().join(format!("damselfly-buckets-{}.rdb", std::process::id()));
    let (status, out) =
        bucket.tool(&["convert", "s3://backups/of/today/dump-summary.dfs", &back.display().to_string()]);
    assert_eq!(status, 0, "{out}");
    let (status, out) = bucket.tool(&["inspect", &back.display().to_string()]);
    fs::remove_file(&back).expect("it was written");
    assert!(status == 0 && out.contains("keys      233") && out.contains("checksum right"), "{out}");

    bucket.ask("DELETE", "/backups/of/today/dump-0001.dfs");
    let (status, out) = bucket.tool(&["inspect", "s3://backups/of/today"]);
    assert!(status == 1 && out.contains("dump-0001.dfs: the file is missing"), "{out}");
}

/// A server saves under the same names again and again, a smaller set over a larger one, as one file, and at its end;
/// the next one finds what was saved last, and nothing else is left in the bucket.
#[test]
fn a_server_saves_to_a_bucket() {
    let Some(bucket) = Bucket::start() else { return };
    let server = bucket.server(3, "live");
    assert_eq!(ask(&server, "DBSIZE"), ":0\r\n");
    for round in 1..=3 {
        assert_eq!(ask(&server, &format!("SET round {round}")), "+OK\r\n");
        assert_eq!(ask(&server, "DEBUG POPULATE 2000 key 50"), "+OK\r\n");
        assert_eq!(ask(&server, "SAVE"), "+OK\r\n", "{}", server.log());
    }
    let set = |shards: usize| {
        let names = (0..shards).map(|shard| format!("live/dump-{shard:04}.dfs"));
        names.chain(["live/dump-summary.dfs".to_owned()]).collect::<Vec<String>>()
    };
    assert_eq!(bucket.objects(), set(3));
    drop(server);

    let server = bucket.server(2, "live");
    wait_until_loaded(&server);
    assert_eq!(ask(&server, "DBSIZE"), ":2001\r\n");
    assert_eq!(ask(&server, "GET round"), "$1\r\n3\r\n");
    assert_eq!(ask(&server, "SET round 4"), "+OK\r\n");
    assert_eq!(ask(&server, "SAVE"), "+OK\r\n", "{}", server.log());
    assert_eq!(bucket.objects(), set(2));
    assert_eq!(ask(&server, "SAVE RDB other"), "+OK\r\n", "{}", server.log());
    let (status, out) = bucket.tool(&["inspect", "s3://backups/live"]);
    assert!(status == 0 && out.matches(": whole").count() == 2, "{out}");
    assert_eq!(out.matches("keys      2 001").count(), 2, "{out}");

    // Whoever cannot be reached any more is an error, and no end of the server.
    drop(bucket);
    assert_eq!(ask(&server, "SET round 5"), "+OK\r\n");
}

/// A bucket that is not there, or that nobody may use, ends the start with words.
#[test]
fn no_bucket() {
    let Some(bucket) = Bucket::start() else { return };
    let run = |with_credentials: bool, dir: &str| {
        let mut command = Command::new(binary().expect("it is built"));
        command.arg(format!("--dir={dir}")).arg(format!("--port={}", free_port())).arg("--http_port=0");
        command.arg(format!("--s3_endpoint={}", bucket.endpoint())).arg("--s3_use_https=false");
        for name in ["AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE"] {
            command.env_remove(name);
        }
        if with_credentials {
            command.envs(ENVIRONMENT);
        }
        let output = command.output().expect("it starts");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (status, error) = run(true, "s3://other/prefix");
    assert!(status == Some(1) && error.contains("s3://other/prefix"), "{error}");
    let (status, error) = run(false, "s3://backups");
    assert!(status == Some(1) && error.contains("no credentials in the environment"), "{error}");
    let (status, error) = run(true, "s3://");
    assert!(status == Some(1) && error.contains("names no bucket"), "{error}");
}

/// A field of INFO.
fn info(server: &Process, field: &str) -> String {
    let (answer, prefix) = (ask(server, "INFO everything"), format!("{field}:"));
    answer.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_default().to_owned()
}

fn wait_for(server: &Process, field: &str, value: &str) {
    let start = Instant::now();
    while info(server, field) != value {
        assert!(start.elapsed() < START_TIMEOUT, "{field} does not become {value}: {}", server.log());
        thread::sleep(Duration::from_millis(5));
    }
}

/// Whether SAVE and BGSAVE fail, are told everywhere, and the server goes on.
fn assert_saves_fail(server: &Process, expected: &str) {
    for save in ["SAVE DF dump", "BGSAVE DF dump", "SAVE RDB dump", "BGSAVE RDB dump"] {
        let answer = ask(server, save);
        assert!(answer.starts_with('-') || save.starts_with("BG"), "{save}: {answer}");
        wait_for(server, "rdb_bgsave_in_progress", "0");
        assert_eq!(info(server, "rdb_last_bgsave_status"), "err", "{save}");
        let error = info(server, "last_error");
        assert!(error.contains("s3://backups/") && error.contains(expected), "{save}: {error}");
    }
    assert_eq!(server.log().matches("could not be saved").count(), 4, "{}", server.log());
    assert_eq!(ask(server, "SET still here"), "+OK\r\n");
}

/// A bucket that vanishes makes saves fail in the foreground and in the background; when it is back they succeed.
#[test]
fn a_bucket_that_vanishes() {
    let Some(bucket) = Bucket::start() else { return };
    let server = bucket.server(2, "live");
    wait_until_loaded(&server);
    assert_eq!(ask(&server, "SET a 1"), "+OK\r\n");
    for save in ["BGSAVE", "BGSAVE RDB single"] {
        assert!(ask(&server, save).starts_with("+Background saving started"), "{}", server.log());
        wait_for(&server, "rdb_bgsave_in_progress", "0");
        assert_eq!(info(&server, "rdb_last_bgsave_status"), "ok", "{}", server.log());
    }
    assert_eq!(bucket.objects().len(), 4);
    for object in bucket.objects() {
        bucket.ask("DELETE", &format!("/backups/{object}"));
    }
    assert!(bucket.ask("DELETE", "/backups").starts_with("HTTP/1.1 204"));
    assert_saves_fail(&server, "NoSuchBucket");
    assert!(bucket.ask("PUT", "/backups").starts_with("HTTP/1.1 200"));
    assert_eq!(ask(&server, "SAVE"), "+OK\r\n", "{}", server.log());
    assert_eq!(info(&server, "rdb_last_bgsave_status"), "ok");
    assert_eq!(bucket.objects().len(), 3);
}

/// Credentials that the store does not take make saves fail, and end a start that is to load.
#[test]
fn credentials_that_are_wrong() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let endpoint = listener.local_addr().expect("it is bound").to_string();
    // Says no to everything, for as long as this process lives.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read_exact(&mut byte).is_err() {
                    break;
                }
                request.extend(byte);
            }
            let body = "<Error><Code>InvalidAccessKeyId</Code><Message>No such key.</Message></Error>";
            let head =
                format!("HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: {}", body.len());
            // Whoever has hung up needs no answer.
            let _ = write!(stream, "{head}\r\nContent-Type: application/xml\r\n\r\n{body}");
        }
    });
    assert_saves_fail(&server(&endpoint, 2, "live", ""), "InvalidAccessKeyId");

    let mut command = Command::new(binary().expect("it is built"));
    command.envs(ENVIRONMENT).arg("--dir=s3://backups/live").arg("--dbfilename=dump").arg("--http_port=0");
    command.arg(format!("--s3_endpoint={endpoint}")).arg("--nos3_use_https");
    let output = command.arg(format!("--port={}", free_port())).output().expect("it starts");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("s3://backups/live") && error.contains("InvalidAccessKeyId"), "{error}");
}
