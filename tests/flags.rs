//! Flags that do what `--help` says: one test for each effect that shows from outside, and a look through the
//! sources for the rest, so that no row of the table promises what no line of the server reads.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use damselfly_config::{Effect, ROWS};
use damselfly_tests::executor::encode;
use damselfly_tests::servers::{Kind, Server, binary};

/// How long anything may take here before it counts as hanging.
const TIMEOUT: Duration = Duration::from_secs(20);

fn start(flags: &[&str]) -> Server {
    Server::start(Kind::Damselfly { threads: 2 }, flags).expect("damselfly starts")
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connects");
    stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    stream
}

/// What is answered to a line, read until a PING behind it is answered or the server closes.
fn reply(mut stream: impl Read + Write, line: &str) -> String {
    write!(stream, "{line}\r\nPING end\r\n").expect("sends");
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"$3\r\nend\r\n") {
        match stream.read(&mut byte) {
            Ok(0) => break,
            Ok(_) => seen.push(byte[0]),
            Err(error) => panic!("{error} after {}", String::from_utf8_lossy(&seen)),
        }
    }
    String::from_utf8_lossy(&seen).replace("$3\r\nend\r\n", "")
}

fn ask(server: &Server, line: &str) -> String {
    reply(connect(server.address()), line)
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    listener.local_addr().expect("an address").port()
}

/// Whether the other side closes within the time allowed.
fn closes(stream: &mut TcpStream) -> bool {
    let mut chunk = vec![0; 1 << 20];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return true,
            Err(_) => return false,
        }
    }
}

/// Sources of the crates that carry flags out, in one text.
fn sources() -> String {
    fn collect(folder: &Path, text: &mut String) {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                collect(&path, text);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                text.push_str(&fs::read_to_string(&path).expect("a source"));
            }
        }
    }
    let mut text = String::new();
    for folder in ["server/src", "snapshot/src", "replication/src"] {
        collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder), &mut text);
    }
    text
}

/// Every flag marked as used is read by the server, and every flag that it reads is marked as used.
#[test]
fn rows_and_sources_agree() {
    // Rows whose field or getter has another name.
    let renamed = |name: &'static str| match name {
        "admin_port" => "admin_ports",
        "primary_port_http_enabled" => "http_on_port",
        "http_port" | "metrics_port" => "http_ports",
        "tcp_user_timeout" => "tcp_user_timeout_ms",
        "command_alias" => "command_aliases",
        "proactor_threads" => "threads",
        "proactor_affinity_mode" => "keep_cpus",
        "pause_wait_timeout" => "pause_wait_timeout_secs",
        "num_shards" => "shards",
        "compression_mode" => "compression",
        name => name,
    };
    // Shown in INFO, HELLO or the metrics, refused, or a reason to load nothing, though no more is done with them.
    let shown = ["maxmemory", "maxmemory_policy", "replicaof", "cluster_mode", "tls", "tls_replication"];
    let text = sources();
    let is_read = |name: &str| {
        ["config.", "settings.", "settings()."].iter().any(|owner| {
            text.match_indices(&format!("{owner}{name}")).any(|(at, found)| {
                let next = text[at + found.len()..].chars().next();
                !next.is_some_and(|next| next.is_ascii_alphanumeric() || next == '_')
            })
        })
    };
    for row in ROWS {
        // Those of the start itself are used up by the parser; `cache_mode` is the default of `maxmemory_policy`.
        if ["flagfile", "undefok", "help", "helpfull", "version", "save_schedule", "cache_mode"]
            .contains(&row.name)
        {
            continue;
        }
        let read = is_read(renamed(row.name));
        match row.effect {
            Effect::Used => assert!(read, "--{} is marked as used, but nothing reads it", row.name),
            Effect::NotYet | Effect::Ignored => {
                assert!(!read || shown.contains(&row.name), "--{} is read: mark it as used", row.name)
            }
            Effect::Always => {}
        }
    }
}

/// What has no effect says so in one line, and lines have no colours in a file.
#[test]
fn lines_of_the_log() {
    let server = start(&["--num_shards=3", "--hz=50", "--loglevel=warning"]);
    let log = server.log();
    assert!(log.contains("--num_shards is accepted for compatibility and has no effect"), "{log}");
    assert!(!log.contains("--hz") && !log.contains('\x1b'), "{log}");
    assert!(!log.contains("INFO"), "loglevel: {log}");
    assert_eq!(ask(&server, "CONFIG SET loglevel notice timeout 100"), "+OK\r\n");
    assert_eq!(ask(&server, "CONFIG SET timeout 0"), "+OK\r\n");
    assert!(server.log().contains("changed by CONFIG SET"), "{}", server.log());
}

/// TLS that is not there is refused, not left out.
#[test]
fn no_tls() {
    let flags = ["--tls", "--tls_cert_file=x", "--tls_key_file=y", "--requirepass=z"];
    let error = Server::start(Kind::Damselfly { threads: 1 }, &flags).err().expect("a refusal");
    assert!(error.contains("there is no TLS in this version"), "{error}");
    let server = start(&[]);
    let refused = ask(&server, "CONFIG SET tls true");
    assert!(refused.contains("possibly related to argument 'tls'"), "{refused}");
}

#[test]
fn help_and_version() {
    let run = |flag: &str| {
        let output = Command::new(binary().expect("a binary")).arg(flag).output().expect("runs");
        assert!(output.status.success(), "{flag}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    assert!(run("--version").starts_with("damselfly v"));
    let help = run("--help");
    assert!(help.contains("--port=<") && help.contains("Network and connections:"));
    assert!(!help.contains('\x1b'));
}

#[test]
fn pid_file_and_unix_socket() {
    let folder = std::env::temp_dir().join(format!("damselfly-flags-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let (pid, socket) = (folder.join("pid"), folder.join("socket"));
    let mut server = start(&[
        &format!("--pidfile={}", pid.display()),
        &format!("--unixsocket={}", socket.display()),
        "--unixsocketperm=0740",
    ]);
    assert_eq!(fs::read_to_string(&pid).expect("a pid file").trim(), server.process_id().to_string());
    let mode = fs::metadata(&socket).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o740);
    let stream = UnixStream::connect(&socket).expect("connects");
    stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    assert_eq!(reply(stream, "PING"), "+PONG\r\n");
    // An orderly stop takes the file along.
    let mut last = connect(server.address());
    last.write_all(b"SHUTDOWN NOSAVE\r\n").expect("sends");
    assert!(closes(&mut last));
    let began = Instant::now();
    while server.is_alive() && began.elapsed() < TIMEOUT {
        thread::sleep(Duration::from_millis(5));
    }
    assert!(!pid.exists());
    fs::remove_dir_all(&folder).expect("removed");
}

#[test]
fn keys_output_limit() {
    for (flag, found) in [("--keys_output_limit=3", 3), ("--keys_output_limit=0", 20)] {
        let server = start(&[flag]);
        assert_eq!(ask(&server, "DEBUG POPULATE 20"), "+OK\r\n");
        let keys = ask(&server, "KEYS *");
        assert!(keys.starts_with(&format!("*{found}\r\n")), "{flag}: {keys}");
    }
}

#[test]
fn restricted_commands_and_aliases() {
    let admin = free_port();
    let server = start(&[
        "--restricted_commands=keys,FLUSHALL",
        "--command_alias=fetch=GET",
        &format!("--admin_port={admin}"),
    ]);
    let refused = "-ERR Cannot execute restricted command (admin only)\r\n";
    assert_eq!(ask(&server, "KEYS *"), refused);
    assert_eq!(ask(&server, "flushall"), refused);
    assert_eq!(reply(connect((Ipv4Addr::LOCALHOST, admin).into()), "KEYS *"), "*0\r\n");
    assert_eq!(ask(&server, "SET k v"), "+OK\r\n");
    assert_eq!(ask(&server, "Fetch k"), "$1\r\nv\r\n");
    assert!(ask(&server, "unfetch k").starts_with("-ERR unknown command"));
}

#[test]
fn limits_of_requests_and_clients() {
    let server = start(&["--max_multi_bulk_len=3", "--maxclients=2", "--pipeline_queue_limit=1"]);
    let mut first = connect(server.address());
    assert_eq!(reply(&first, "PING\r\nPING\r\nPING"), "+PONG\r\n+PONG\r\n+PONG\r\n");
    let second = connect(server.address());
    assert_eq!(reply(&second, "PING"), "+PONG\r\n");
    let mut third = connect(server.address());
    let mut refused = String::new();
    third.read_to_string(&mut refused).expect("a refusal");
    assert_eq!(refused, "-ERR max number of clients reached\r\n");
    first.write_all(b"*4\r\n").expect("sends");
    let mut refused = String::new();
    first.read_to_string(&mut refused).expect("a refusal");
    assert_eq!(refused, "-ERR Protocol error: invalid multibulk length\r\n");
}

/// The port for clients and the admin port answer HTTP to who begins with it; a switch turns the first off.
#[test]
fn http_on_other_ports() {
    let get = |address: SocketAddr, pieces: &[&str]| {
        let mut stream = connect(address);
        stream.set_nodelay(true).expect("no delay");
        for piece in pieces {
            stream.write_all(piece.as_bytes()).expect("sends");
            thread::sleep(Duration::from_millis(20));
        }
        let mut answer = String::new();
        // A server that does not take this for HTTP closes, or answers errors and waits.
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        stream.read_to_string(&mut answer).ok();
        answer
    };
    let page = "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let admin = free_port();
    let server = start(&["--http_port=0", &format!("--admin_port={admin}"), "--requirepass=secret"]);
    for address in [server.address(), (Ipv4Addr::LOCALHOST, admin).into()] {
        let answer = get(address, &[page]);
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("OK\n"), "{answer}");
    }
    let answer =
        get(server.address(), &["GE", "T /healthz HTTP/1.1\r\nHost: x\r\nConnec", "tion: close\r\n\r\n"]);
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "in pieces: {answer}");
    drop(server);
    let server = start(&["--http_port=0", "--primary_port_http_enabled=false"]);
    let answer = ask(&server, "GET / HTTP/1.1");
    assert_eq!(answer, "-ERR wrong number of arguments for 'get' command\r\n");
}

/// A client that takes nothing is closed by `send_timeout`, and one for which too much waits by its limit; the others
/// go on.
#[test]
fn clients_that_take_nothing() {
    let value = encode(&[b"SET", b"big", &vec![b'x'; 64 << 20]]);
    for flags in [["--send_timeout=1"], ["--client_output_buffer_limit=normal 8mb 0 0"]] {
        let server = start(&flags);
        let mut writer = connect(server.address());
        writer.write_all(&value).expect("sends");
        let mut ok = [0; 5];
        writer.read_exact(&mut ok).expect("a reply");
        let mut rude = connect(server.address());
        rude.write_all(b"GET big\r\n").expect("sends");
        let began = Instant::now();
        let gone = || ask(&server, "INFO stats").contains("client_output_buffer_limit_disconnections:1");
        while !gone() {
            assert!(began.elapsed() < TIMEOUT, "{flags:?}");
            thread::sleep(Duration::from_millis(20));
        }
        assert!(closes(&mut rude), "{flags:?}");
    }
}

/// A soft limit counts only after its seconds, and the time without traffic closes who is idle.
#[test]
fn idle_clients() {
    let server = start(&["--timeout=1"]);
    let mut idle = connect(server.address());
    assert!(closes(&mut idle));
    assert_eq!(ask(&server, "PING"), "+PONG\r\n");
}
