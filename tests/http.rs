//! The HTTP port: health for orchestrators, metrics for Prometheus, and manners towards peers that have none.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use damselfly_tests::servers::{Kind, Server};

/// A server of ours with an HTTP port.
struct Served {
    server: Server,
    http: u16,
}

impl Served {
    fn start(threads: usize) -> Self {
        let http = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|free| free.local_addr())
            .expect("a port")
            .port();
        let server =
            Server::start(Kind::Damselfly { threads }, &[&format!("--http_port={http}")]).expect("a server");
        Self { server, http }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.http)).expect("the HTTP port");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        stream
    }

    /// Status, header and body of one request.
    fn request(&self, method: &str, path: &str) -> (u16, String, String) {
        let mut stream = self.connect();
        write!(stream, "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer in UTF-8");
        let (header, body) = answer.split_once("\r\n\r\n").expect("a header");
        let status = header.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        (status, header.to_lowercase(), body.to_owned())
    }

    /// Sends inline commands one by one and waits for the reply to each.
    fn run(&self, commands: &[&str]) {
        let stream = TcpStream::connect(self.server.address()).expect("the port for clients");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        let line = || {
            let mut line = Vec::new();
            while !line.ends_with(b"\n") {
                let mut byte = [0];
                (&stream).read_exact(&mut byte).expect("a reply");
                line.push(byte[0]);
            }
            line
        };
        for command in commands {
            write!(&stream, "{command}\r\n").expect("sent");
            let first = line();
            if first.starts_with(b"$") && first != b"$-1\r\n" {
                line();
            }
        }
    }

    fn metrics(&self) -> Metrics {
        let (status, header, body) = self.request("GET", "/metrics");
        assert_eq!(status, 200);
        assert!(header.contains("content-type: text/plain; version=0.0.4"), "{header}");
        Metrics::parse(&body)
    }
}

/// The exposition format, read strictly.
struct Metrics {
    /// Type by family.
    types: BTreeMap<String, String>,
    /// Value by name with labels.
    samples: BTreeMap<String, f64>,
}

impl Metrics {
    fn parse(text: &str) -> Self {
        let mut metrics = Self { types: BTreeMap::new(), samples: BTreeMap::new() };
        let mut helped = BTreeSet::new();
        let mut family = String::new();
        assert!(text.ends_with('\n'), "the last line ends");
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, text) = help.split_once(' ').expect("a help text");
                assert!(helped.insert(name.to_owned()) && !text.is_empty(), "{line}");
                continue;
            }
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a type");
                assert!(matches!(kind, "counter" | "gauge"), "{line}");
                assert!(helped.contains(name), "{name} has a help text before its type");
                assert!(
                    metrics.types.insert(name.to_owned(), kind.to_owned()).is_none(),
                    "{name} comes twice"
                );
                family = name.to_owned();
                continue;
            }
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let name = series.split('{').next().unwrap_or_default();
            assert_eq!(name, family, "samples stand behind their type");
            let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(name.starts_with("dragonfly_") && name.chars().all(valid), "{line}");
            let value: f64 = value.parse().unwrap_or_else(|error| panic!("{line}: {error}"));
            assert!(value.is_finite() && value >= 0.0, "{line}");
            assert!(metrics.samples.insert(series.to_owned(), value).is_none(), "{series} comes twice");
        }
        metrics
    }

    fn get(&self, series: &str) -> f64 {
        let name = format!("dragonfly_{series}");
        *self.samples.get(&name).unwrap_or_else(|| panic!("no {name}"))
    }
}

/// Each page answers what it must, to GET and HEAD alone, and nothing else is there.
#[test]
fn pages() {
    let served = Served::start(2);
    let (status, _, body) = served.request("GET", "/healthz");
    assert_eq!((status, body.as_str()), (200, "OK\n"));
    assert_eq!(served.request("GET", "/healthz?verbose=1").0, 200);
    let (status, header, body) = served.request("HEAD", "/healthz");
    assert_eq!((status, body.as_str()), (200, ""));
    assert!(header.contains("content-length: 3"), "{header}");
    let (status, _, body) = served.request("HEAD", "/metrics");
    assert_eq!((status, body.as_str()), (200, ""));
    for path in ["/", "/flagz", "/healthz/", "/../healthz", "//metrics"] {
        assert_eq!(served.request("GET", path).0, 404, "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let (status, header, _) = served.request(method, "/metrics");
        assert_eq!(status, 405, "{method}");
        assert!(header.contains("allow: get, head"), "{header}");
    }
}

/// The names that the operator's dashboard asks for are there, with true values, from the first scrape on.
#[test]
fn metrics() {
    for threads in [1, 4] {
        let served = Served::start(threads);
        let first = served.metrics();
        for name in [
            "commands_processed_total{listener=\"main\"}",
            "connected_clients{listener=\"main\"}",
            "connections_received_total",
            "db_keys{db=\"db0\"}",
            "db_keys_expiring{db=\"db0\"}",
            "evicted_keys_total{db=\"db0\"}",
            "expired_keys_total{db=\"db0\"}",
            "keyspace_hits_total",
            "keyspace_misses_total",
            "master",
            "memory_max_bytes",
            "memory_used_bytes",
            "net_input_bytes_total",
            "net_output_bytes_total",
            "uptime_in_seconds",
            "used_memory_rss_bytes",
            "disk_size_bytes",
            "disk_used_bytes",
        ] {
            first.get(name);
        }
        assert_eq!((first.get("role{role=\"master\"}"), first.get("role{role=\"replica\"}")), (1.0, 0.0));
        assert_eq!(first.get("connected_slaves{role=\"master\"}"), 0.0);

        served.run(&[
            "SET a 1",
            "SET b 2 EX 100",
            "GET a",
            "GET nosuch",
            "NOSUCH",
            "SELECT 3",
            "SET c 3",
            "DEL c",
        ]);
        let second = served.metrics();
        assert_eq!(
            (second.get("db_keys{db=\"db0\"}"), second.get("db_keys_expiring{db=\"db0\"}")),
            (2.0, 1.0)
        );
        assert_eq!(second.get("db_keys{db=\"db3\"}"), 0.0);
        assert_eq!((second.get("keyspace_hits_total"), second.get("keyspace_misses_total")), (1.0, 1.0));
        assert_eq!(second.get("keyspace_hits_total{db=\"db0\"}"), 1.0);
        assert_eq!(second.get("keyspace_hits_total{db=\"db3\"}"), 0.0);
        assert_eq!(
            (second.get("commands_total{cmd=\"set\"}"), second.get("commands_total{cmd=\"get\"}")),
            (3.0, 2.0)
        );
        assert_eq!(second.get("error_replies_total{kind=\"ERR\"}"), 1.0);
        assert!(second.get("memory_used_bytes") > first.get("memory_used_bytes"));
        assert!(second.get("memory_used_peak_bytes") >= second.get("memory_used_bytes"));
        assert!(second.get("disk_used_bytes") <= second.get("disk_size_bytes"));
        for (name, kind) in &first.types {
            assert!(second.types.get(name).is_none_or(|later| later == kind), "{name} keeps its type");
        }
        for (series, before) in &first.samples {
            let family = series.split('{').next().unwrap_or_default();
            if first.types[family] == "counter" {
                assert!(second.samples[series] >= *before, "{series} never falls");
            }
        }
    }
}

/// One connection carries several requests.
#[test]
fn connections_stay_open() {
    let served = Served::start(1);
    let mut stream = served.connect();
    for _ in 0..3 {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
        let mut answer = Vec::new();
        let mut byte = [0];
        while !answer.ends_with(b"\r\n\r\nOK\n") {
            stream.read_exact(&mut byte).expect("an answer");
            answer.push(byte[0]);
        }
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"));
    }
}

/// Peers that connect and say nothing take no probe's place: the oldest of them has to go.
#[test]
fn silent_peers_make_room() {
    let served = Served::start(1);
    let mut silent: Vec<TcpStream> = (0..100).map(|_| served.connect()).collect();
    assert_eq!(served.request("GET", "/healthz").0, 200);
    let mut byte = [0];
    assert_eq!(silent[0].read(&mut byte).expect("closed, not lost"), 0, "the first one was closed");
}

/// A header without end is refused, not collected.
#[test]
fn long_headers() {
    let served = Served::start(1);
    let mut stream = served.connect();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nX: ").expect("sent");
    // The peer may close while this is written; what matters is that it does.
    let mut closed = false;
    for _ in 0..100 {
        closed |= stream.write_all(&[b'x'; 10_000]).is_err();
    }
    let mut answer = Vec::new();
    closed |= stream.read_to_end(&mut answer).is_err() || answer.starts_with(b"HTTP/1.1 431");
    assert!(closed, "{}", String::from_utf8_lossy(&answer));
    assert_eq!(served.request("GET", "/healthz").0, 200);
}

/// A core that does not answer fails the scrape in bounded time, and the health page not at all; afterwards all is
/// well.
#[test]
fn a_core_that_is_busy() {
    let served = Served::start(1);
    let mut sleeper = TcpStream::connect(served.server.address()).expect("the port for clients");
    sleeper.write_all(b"DEBUG SLEEP 7\r\n").expect("sent");
    assert_eq!(served.request("GET", "/healthz").0, 200);
    let (status, _, body) = served.request("GET", "/metrics");
    assert!(status == 503 && body == "Service Unavailable\n" || status == 200, "{status}");
    sleeper.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
    let mut reply = [0; 5];
    sleeper.read_exact(&mut reply).expect("a reply");
    assert_eq!(&reply, b"+OK\r\n");
    served.metrics();
}
