//! A small blocking client for shapes that redis-benchmark cannot do: filling, transactions, subscribers, stalls.
//!
//! One thread, blocking sockets: the client must not compete with the server for the machine's second core more than
//! it has to. Requests are RESP2 arrays; replies are decoded by redis-protocol, which suits a client because the
//! server is trusted here. Every wait has [`PATIENCE`] as its end.

use crate::Failure;
use crate::workloads::Workload;
use redis_protocol::resp2::decode::decode;
use redis_protocol::resp2::types::OwnedFrame;
use std::cmp::Ordering;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::time::Duration;

/// How long one reply may take before the row is given up. Redis needs seconds to delete millions of members.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// Request bytes collected before they are sent while filling. Small enough that neither side's socket buffer fills
/// up while the other waits: replies to one batch are a few kilobytes.
const BATCH_BYTES: usize = 64 * 1024;

/// Bytes asked of the socket at once.
const READ_BYTES: usize = 64 * 1024;

/// One connection with its unread bytes.
pub struct Connection {
    stream: TcpStream,
    unread: Vec<u8>,
    start: usize,
}

impl Connection {
    /// Connects; if the ports of 127.0.0.1 have run out, from the next address of the loopback network.
    pub fn open(server: SocketAddr) -> io::Result<Self> {
        let mut source = 1_u8;
        let stream = loop {
            match connect_from(source, server) {
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable && source < 100 => source += 1,
                other => break other?,
            }
        };
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, unread: Vec::new(), start: 0 })
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends as much as the socket takes at once; returns how much that is.
    pub fn send_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_nonblocking(true)?;
        let sent = match self.stream.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            sent => sent,
        };
        self.stream.set_nonblocking(false)?;
        sent
    }

    /// Waits for one reply; an error reply is returned as a frame, not as `Err`.
    pub fn receive(&mut self) -> Result<OwnedFrame, Failure> {
        loop {
            let decoded = decode(&self.unread[self.start..])
                .map_err(|error| Failure::Broken(format!("not a reply: {error}")))?;
            if let Some((frame, len)) = decoded {
                self.start += len;
                if self.start == self.unread.len() {
                    self.unread.clear();
                    self.start = 0;
                }
                return Ok(frame);
            }
            self.read_more()?;
        }
    }

    /// Waits for one reply; an error anywhere in it is an `Err`.
    pub fn receive_ok(&mut self) -> Result<OwnedFrame, Failure> {
        let frame = self.receive()?;
        match first_error(&frame) {
            Some(text) => Err(Failure::from_reply(text)),
            None => Ok(frame),
        }
    }

    /// Waits for exactly `expected` bytes and drops them: for replies so long that decoding them would take the
    /// client longer than the server.
    pub fn skip(&mut self, expected: u64) -> Result<(), Failure> {
        if self.start == self.unread.len() {
            self.read_more()?;
        }
        if self.unread[self.start] == b'-' {
            return self.receive_ok().map(drop);
        }
        let mut seen = 0;
        loop {
            seen += u64::try_from(self.unread.len() - self.start).expect("a length");
            self.unread.clear();
            self.start = 0;
            match seen.cmp(&expected) {
                Ordering::Equal => return Ok(()),
                Ordering::Less => self.read_more()?,
                Ordering::Greater => {
                    return Err(Failure::Broken(format!("{} bytes more than expected", seen - expected)));
                }
            }
        }
    }

    /// One request, one reply; an error reply is an `Err`.
    pub fn call(&mut self, args: &[&[u8]]) -> Result<OwnedFrame, Failure> {
        let mut request = Vec::new();
        encode(&mut request, args);
        self.send(&request)?;
        self.receive_ok()
    }

    /// Runs a workload through this connection, pipelined.
    pub fn fill(&mut self, workload: &Workload, items: u64) -> Result<(), Failure> {
        let (mut batch, mut waiting, mut failure) = (Vec::new(), 0_u32, None);
        let end = workload.commands(items, &mut |args| {
            encode(&mut batch, args);
            waiting += 1;
            if batch.len() < BATCH_BYTES {
                return ControlFlow::Continue(());
            }
            match self.exchange(&batch, waiting) {
                Ok(()) => {
                    batch.clear();
                    waiting = 0;
                    ControlFlow::Continue(())
                }
                Err(error) => {
                    failure = Some(error);
                    ControlFlow::Break(())
                }
            }
        });
        assert_eq!(end.is_break(), failure.is_some(), "a workload stops early only when told to");
        match failure {
            Some(error) => Err(error),
            None => self.exchange(&batch, waiting),
        }
    }

    /// Sends a batch and waits for its replies, of which none may be an error.
    pub fn exchange(&mut self, batch: &[u8], replies: u32) -> Result<(), Failure> {
        self.send(batch)?;
        (0..replies).try_for_each(|_| self.receive_ok().map(drop))
    }

    /// A number from INFO, such as `keyspace_hits`.
    pub fn info(&mut self, section: &str, field: &str) -> Result<u64, Failure> {
        let text = match self.call(&[b"INFO", section.as_bytes()])? {
            OwnedFrame::BulkString(text) => text,
            other => return Err(Failure::Broken(format!("INFO answered {other:?}"))),
        };
        String::from_utf8_lossy(&text)
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':')?.trim().parse().ok())
            .ok_or_else(|| Failure::NotYet(format!("INFO {section} has no number {field}")))
    }

    fn read_more(&mut self) -> Result<(), Failure> {
        self.unread.drain(..self.start);
        self.start = 0;
        let len = self.unread.len();
        self.unread.resize(len + READ_BYTES, 0);
        let read = self.stream.read(&mut self.unread[len..]);
        self.unread.truncate(len + *read.as_ref().unwrap_or(&0));
        match read {
            Ok(0) => Err(Failure::Broken("the server closed the connection".to_owned())),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(Failure::Broken(format!("no reply within {} s", PATIENCE.as_secs())))
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn connect_from(source: u8, server: SocketAddr) -> io::Result<TcpStream> {
    if source == 1 {
        return TcpStream::connect_timeout(&server, Duration::from_secs(10));
    }
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, source), 0)).into())?;
    socket.connect(&server.into())?;
    Ok(socket.into())
}

/// Appends one request: an array of bulk strings.
pub fn encode(out: &mut Vec<u8>, args: &[&[u8]]) {
    write!(out, "*{}\r\n", args.len()).expect("a Vec takes all");
    for arg in args {
        write!(out, "${}\r\n", arg.len()).expect("a Vec takes all");
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

/// The first error in a reply, also inside the array of an EXEC. Recursion is as deep as the reply, and the only
/// nested replies asked for here are those of EXEC.
fn first_error(frame: &OwnedFrame) -> Option<&str> {
    match frame {
        OwnedFrame::Error(text) => Some(text),
        OwnedFrame::Array(items) => items.iter().find_map(first_error),
        _ => None,
    }
}
