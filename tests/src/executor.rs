//! Who answers a script: anything that takes requests on named connections and gives replies.
//!
//! That is a server behind a TCP port ([`Tcp`]) or a shard alone ([`bare`](crate::bare)). A simulated cluster could
//! be a third. Where there is no real clock, [`Executor::pause`] moves the one that there is.

use std::collections::{HashMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::reply::{self, Protocol, Reply};

/// How long a reply may take before the line fails. Generous: debug builds on loaded machines.
const REPLY_TIMEOUT: Duration = Duration::from_secs(20);

/// Runs the lines of a script.
pub trait Executor {
    /// An empty keyspace and no connections, as every script finds it.
    fn reset(&mut self) -> Result<(), String>;

    /// Sends a request and answers its reply. Pushes that come first are kept for `receive`.
    fn call(&mut self, client: &str, request: &[Vec<u8>]) -> Result<Reply, String>;

    /// Sends a request without waiting.
    fn send(&mut self, client: &str, request: &[Vec<u8>]) -> Result<(), String>;

    /// The next reply or push.
    fn receive(&mut self, client: &str) -> Result<Reply, String>;

    /// Waits for the other side to close; anything it sends instead is an error.
    fn closed(&mut self, client: &str) -> Result<(), String>;

    /// Forgets the connection.
    fn close(&mut self, client: &str);

    /// Lets time pass between two attempts of `wait-until`.
    fn pause(&mut self, milliseconds: u64);

    /// Unix time as the server sees it.
    fn now_ms(&self) -> i64;
}

/// A server behind a TCP port.
pub struct Tcp {
    address: SocketAddr,
    protocol: Protocol,
    connections: HashMap<String, Connection>,
}

struct Connection {
    stream: TcpStream,
    protocol: Protocol,
    unread: Vec<u8>,
    pushes: VecDeque<Reply>,
}

impl Tcp {
    pub fn new(address: SocketAddr, protocol: Protocol) -> Self {
        Self { address, protocol, connections: HashMap::new() }
    }

    fn connection(&mut self, client: &str) -> Result<&mut Connection, String> {
        if !self.connections.contains_key(client) {
            let connection = Connection::open(self.address, self.protocol)?;
            self.connections.insert(client.to_owned(), connection);
        }
        Ok(self.connections.get_mut(client).expect("just inserted"))
    }

    /// After a fault the next reply could belong to anybody: the connection is given up.
    fn guarded<T>(
        &mut self,
        client: &str,
        work: impl FnOnce(&mut Connection) -> Result<T, String>,
    ) -> Result<T, String> {
        let result = self.connection(client).and_then(work);
        if result.is_err() {
            self.connections.remove(client);
        }
        result
    }
}

impl Executor for Tcp {
    fn reset(&mut self) -> Result<(), String> {
        self.connections.clear();
        let mut connection = Connection::open(self.address, Protocol::Resp2)?;
        match connection.call(&[b"FLUSHALL".to_vec()])? {
            Reply::Simple(text) if text == b"OK" => Ok(()),
            other => Err(format!("FLUSHALL answers {other}")),
        }
    }

    fn call(&mut self, client: &str, request: &[Vec<u8>]) -> Result<Reply, String> {
        self.guarded(client, |connection| connection.call(request))
    }

    fn send(&mut self, client: &str, request: &[Vec<u8>]) -> Result<(), String> {
        self.guarded(client, |connection| connection.send(request))
    }

    fn receive(&mut self, client: &str) -> Result<Reply, String> {
        self.guarded(client, |connection| match connection.pushes.pop_front() {
            Some(push) => Ok(push),
            None => connection.read(),
        })
    }

    fn closed(&mut self, client: &str) -> Result<(), String> {
        let mut connection = self.connections.remove(client).ok_or("this connection was never open")?;
        if !connection.unread.is_empty() {
            return Err(format!("unread: {}", reply::quoted(&connection.unread)));
        }
        let mut byte = [0];
        match connection.stream.read(&mut byte) {
            Ok(0) => Ok(()),
            Ok(_) => Err(format!("sends {:?} instead of closing", char::from(byte[0]))),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(()),
            Err(error) => Err(format!("does not close: {error}")),
        }
    }

    fn close(&mut self, client: &str) {
        self.connections.remove(client);
    }

    fn pause(&mut self, milliseconds: u64) {
        thread::sleep(Duration::from_millis(milliseconds));
    }

    fn now_ms(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
        i64::try_from(since.as_millis()).expect("a clock before the year 292 million")
    }
}

impl Connection {
    fn open(address: SocketAddr, protocol: Protocol) -> Result<Self, String> {
        let stream = TcpStream::connect(address).map_err(|error| format!("cannot connect: {error}"))?;
        let set = stream.set_nodelay(true).and_then(|()| stream.set_read_timeout(Some(REPLY_TIMEOUT)));
        set.map_err(|error| format!("socket options: {error}"))?;
        let mut connection =
            Self { stream, protocol: Protocol::Resp2, unread: Vec::new(), pushes: VecDeque::new() };
        if protocol == Protocol::Resp3 {
            match connection.call(&[b"HELLO".to_vec(), b"3".to_vec()])? {
                Reply::Map(_) => {}
                // A server that wants a password first: the script deals with it.
                Reply::Error(text) if text.starts_with(b"NOAUTH") => {}
                other => return Err(format!("HELLO 3 answers {other}")),
            }
        }
        Ok(connection)
    }

    fn send(&mut self, request: &[Vec<u8>]) -> Result<(), String> {
        let words: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
        self.stream.write_all(&encode(&words)).map_err(|error| format!("cannot send: {error}"))
    }

    fn call(&mut self, request: &[Vec<u8>]) -> Result<Reply, String> {
        self.send(request)?;
        let name = request.first().map(|name| name.to_ascii_lowercase()).unwrap_or_default();
        let hello = (name == b"hello").then(|| request.get(1).map(Vec::as_slice)).flatten();
        match hello {
            // Where it succeeds the reply already comes in the new protocol, and RESP2 types are RESP3 types.
            Some(b"3") => self.protocol = Protocol::Resp3,
            Some(b"2") => self.protocol = Protocol::Resp2,
            _ if name == b"reset" => self.protocol = Protocol::Resp2,
            _ => {}
        }
        let answered_by_push = name.ends_with(b"subscribe");
        loop {
            match self.read()? {
                push @ Reply::Push(_) if !answered_by_push => self.pushes.push_back(push),
                reply => return Ok(reply),
            }
        }
    }

    fn read(&mut self) -> Result<Reply, String> {
        let mut chunk = vec![0; 64 << 10];
        loop {
            if let Some((reply, size)) = reply::parse(&self.unread)? {
                reply::second_opinion(&self.unread[..size], self.protocol)?;
                self.unread.drain(..size);
                return Ok(reply);
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err("connection closed".into()),
                Ok(size) => self.unread.extend_from_slice(&chunk[..size]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Err(format!("no reply within {} s", REPLY_TIMEOUT.as_secs()));
                }
                Err(error) => return Err(format!("connection lost: {error}")),
            }
        }
    }
}

/// A request as clients send it.
pub fn encode(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
