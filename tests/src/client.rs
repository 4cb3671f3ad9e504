//! One connection of a test that needs many of them on threads of their own. Whatever goes wrong is a panic.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::executor::encode;
use crate::reply::{self, Reply};

/// How long a reply may take.
const REPLY_TIMEOUT: Duration = Duration::from_secs(20);

/// Bytes read at once: long replies are looked at anew with each.
const CHUNK_LEN: usize = 256 * 1024;

/// A connection in RESP2.
pub struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Client {
    /// Connects.
    ///
    /// # Panics
    ///
    /// If nobody listens.
    pub fn open(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(REPLY_TIMEOUT)).expect("a socket");
        Client { stream, unread: Vec::new() }
    }

    /// Sends requests in one write.
    ///
    /// # Panics
    ///
    /// If the server has closed.
    pub fn send<W: AsRef<[u8]>>(&mut self, requests: &[Vec<W>]) {
        let mut bytes = Vec::new();
        for words in requests {
            let words: Vec<&[u8]> = words.iter().map(W::as_ref).collect();
            bytes.extend_from_slice(&encode(&words));
        }
        self.stream.write_all(&bytes).expect("the server reads");
    }

    /// Whether a reply, or a part of one, is there already.
    ///
    /// # Panics
    ///
    /// If the server has closed.
    pub fn has_reply(&mut self) -> bool {
        if !self.unread.is_empty() {
            return true;
        }
        self.stream.set_nonblocking(true).expect("a socket");
        let seen = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).expect("a socket");
        match seen {
            Ok(len) => {
                assert!(len > 0, "the server closes");
                true
            }
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}");
                false
            }
        }
    }

    /// Waits for the end of the connection; false if a reply comes instead.
    pub fn is_closed(&mut self) -> bool {
        self.unread.is_empty() && self.stream.peek(&mut [0]).is_ok_and(|len| len == 0)
    }

    /// The next reply.
    ///
    /// # Panics
    ///
    /// If it does not come in time, or is none.
    pub fn reply(&mut self) -> Reply {
        let mut chunk = vec![0; CHUNK_LEN];
        loop {
            if let Some((reply, len)) = reply::parse(&self.unread).expect("a reply") {
                self.unread.drain(..len);
                return reply;
            }
            let len = self.stream.read(&mut chunk).expect("the server answers in time");
            assert!(len > 0, "the server closes");
            self.unread.extend_from_slice(&chunk[..len]);
        }
    }

    /// Sends a request and waits for the reply.
    ///
    /// # Panics
    ///
    /// As its two halves.
    pub fn call<W: AsRef<str>>(&mut self, request: &[W]) -> Reply {
        self.send(&[request.iter().map(AsRef::as_ref).collect::<Vec<&str>>()]);
        self.reply()
    }
}
