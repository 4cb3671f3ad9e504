//! One client's connection: its socket, what it sent that was not run yet, and what it has not been sent yet.
//!
//! An idle connection holds no buffers: input is read into the core's scratch memory and only an incomplete request
//! is kept here, output is written at once and only what the socket refused is kept. That, and being a plain struct
//! instead of a task, is why nine thousand idle connections are cheap.
//!
//! Replies in order: a request for another core leaves a *hole* in the output. Replies of later requests are
//! appended behind it; when the last hole is filled the output is put together and written. Until then nothing more
//! is read from the client, so at most one turn's requests of a connection are under way.
//!
//! Long replies are written in pieces, see `connection/long.rs`.

mod long;

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use damselfly_commands::Command;
use damselfly_protocol::{Argv, Proto, ProtocolError, Requests, Scanner, Skip};
use long::Ahead;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};

use crate::blocking::Waiter;
use crate::bulky::Bulky;
use crate::core::Work;
use crate::input_room::{Booked, Pace, Turn};
use crate::modes::Modes;
use crate::server_commands::subcommands::Subcommand;
use crate::slow_peers::Slowness;
use crate::transaction::{Transaction, Watching};

/// A connection on its core: a place and the generation of the place's use, so that a late answer for a closed
/// connection does not reach its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId {
    /// Place in the core's list.
    pub index: u32,
    /// How often the place had been used.
    pub generation: u32,
}

/// The ports differ in what they allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// The main port.
    Main,
    /// An admin port.
    Admin,
    /// The unix socket.
    Unix,
}

/// A stream socket of either family.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// Unix.
    Unix(UnixStream),
}

impl Stream {
    /// Straight to the system call: glibc's wrappers check for thread cancellation on the way in and out, which
    /// was 4 % of the CPU at pipeline 1.
    fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::net::recv(self, into, RecvFlags::empty())?.0)
    }

    /// Sends what the kernel takes; how many bytes that were, or None if the connection is broken.
    fn send(&self, bytes: &[u8]) -> Option<usize> {
        let mut sent = 0;
        while sent < bytes.len() {
            match rustix::net::send(self, &bytes[sent..], SendFlags::NOSIGNAL) {
                Ok(0) => return None,
                Ok(len) => sent += len,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(_) => return None,
            }
        }
        Some(sent)
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        }
    }
}

/// Requests that were scanned but could not be run yet, because one before them waits.
#[derive(Default)]
pub struct Queued {
    bytes: Vec<u8>,
    requests: Requests,
    next: usize,
}

impl Queued {
    /// Adds a request.
    pub fn push(&mut self, argv: &Argv<'_>) {
        // One scan's requests come from one buffer, so they fit what spans can address.
        assert!(self.try_push(argv.iter()), "queued requests fit one buffer");
    }

    /// Adds a request that came from elsewhere; false if it does not fit.
    pub fn try_push<'a>(&mut self, args: impl Iterator<Item = &'a [u8]> + Clone) -> bool {
        self.requests.push_copy(&mut self.bytes, args)
    }

    /// Bytes it holds.
    fn heap_bytes(&self) -> usize {
        self.bytes.capacity() + self.requests.allocated()
    }

    /// The request to run next.
    pub fn peek(&self) -> Option<Argv<'_>> {
        (self.next < self.requests.len()).then(|| self.requests.argv(&self.bytes, self.next))
    }

    /// The first one is done.
    pub fn advance(&mut self) {
        self.next += 1;
    }
}

/// A reply that is still to come from another core.
#[derive(Clone, Copy)]
struct Hole {
    /// Where in the output it belongs.
    at: u32,
    /// Where in `fills` it is, once it is there.
    filled: Option<(u32, u32)>,
}

/// What CLIENT REPLY has asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplyMode {
    /// Replies are sent.
    #[default]
    On,
    /// No replies are sent.
    Off,
    /// The next command's reply is not sent.
    SkipNext,
    /// This command's reply is not sent; after it replies are on.
    SkipThis,
}

/// What is rarely looked at, apart so that the hot part of a connection stays small.
#[derive(Debug)]
pub struct Client {
    /// Number for CLIENT ID.
    pub id: u64,
    /// Which port it came through.
    pub listener: Listener,
    /// Peer address as CLIENT LIST shows it.
    pub addr: String,
    /// Local address as CLIENT LIST shows it.
    pub laddr: String,
    /// CLIENT SETNAME.
    pub name: Option<Box<str>>,
    /// CLIENT SETINFO LIB-NAME.
    pub lib_name: Box<str>,
    /// CLIENT SETINFO LIB-VER.
    pub lib_ver: Box<str>,
    /// When it connected.
    pub created_ms: u64,
    /// CLIENT NO-EVICT.
    pub no_evict: bool,
    /// MONITOR.
    pub monitor: bool,
    /// How it spelled EXEC last, while somebody monitored.
    pub exec_word: [u8; 4],
    /// Pushes that wait until the command under way is answered.
    pub held: Vec<u8>,
    /// How long it has not taken its replies.
    pub slowness: Slowness,
}

/// See the module's head.
pub struct Connection {
    /// Where it is.
    pub id: ConnectionId,
    stream: Stream,
    /// Bytes that do not make a whole request yet.
    pub input: Vec<u8>,
    /// A request whose last argument is long. `input` is empty then.
    pub bulky: Option<Box<Bulky>>,
    /// Progress within `input`.
    pub scanner: Scanner,
    /// Requests behind one that waits.
    pub queued: Option<Box<Queued>>,
    /// Replies that were not sent yet, behind those in `ahead`.
    pub output: Vec<u8>,
    /// How much of what is sent first was sent: of `ahead` if there is something, else of `output`.
    sent: usize,
    /// A long reply and what is sent before it.
    ahead: Option<Box<Ahead>>,
    holes: Vec<Hole>,
    fills: Vec<u8>,
    unfilled: u32,
    /// Nothing of what was received has been understood yet: it may turn out to be HTTP.
    pub fresh: bool,
    /// The socket may have more to read.
    pub readable: bool,
    /// The peer has closed its side, but not all it sent was read.
    pub hung_up: bool,
    /// All that the peer sent was read, and it sends no more.
    pub ended: bool,
    /// A command of this connection is being carried out elsewhere.
    pub waiting: bool,
    /// What goes on when the command under way is done, instead of the next request: the rest of a transaction.
    pub then: Option<Work>,
    /// A transaction over several shards is being carried out. The connection stays until it is done.
    pub executing: bool,
    /// MULTI: what was queued since.
    pub multi: Option<Box<Transaction>>,
    /// WATCH.
    pub watching: Option<Box<Watching>>,
    /// The command under way waits for data.
    pub blocked: Option<Arc<Waiter>>,
    /// Close once the output is sent.
    pub closing: bool,
    /// AUTH was given or is not needed.
    pub authenticated: bool,
    /// Protocol version.
    pub proto: Proto,
    /// CLIENT REPLY.
    pub reply_mode: ReplyMode,
    /// The reply of the command under way is thrown away.
    pub muted: bool,
    /// A protocol error to be answered behind what is under way.
    pub refused: Option<ProtocolError>,
    /// CLIENT NO-TOUCH.
    pub no_touch: bool,
    /// What is unusual about it.
    pub modes: Modes,
    /// Database.
    pub db: u16,
    /// When it last sent something.
    pub active_ms: u64,
    /// Commands run.
    pub commands: u64,
    /// Bytes received.
    pub received: u64,
    /// Bytes sent.
    pub sent_total: u64,
    /// What it ran last.
    pub last_command: Option<&'static Command>,
    /// The sub-command of that.
    pub last_subcommand: Option<&'static Subcommand>,
    /// Whether its long request waits for room.
    pub turn: Turn,
    /// How it goes on with that.
    pub pace: Pace,
    /// A request too long to keep is being passed over.
    pub skip: Option<Box<Skip>>,
    /// What the core's account counts for it.
    pub booked: Booked,
    /// The rest.
    pub client: Box<Client>,
}

/// What a read brought.
pub enum Got {
    /// This many bytes; there may be more.
    Bytes(usize),
    /// This many bytes, and for now no more.
    Last(usize),
    /// Nothing for now.
    Nothing,
    /// The end, or an error that ends the connection.
    End,
}

impl Connection {
    /// A new connection.
    pub fn new(id: ConnectionId, stream: Stream, client: Client, authenticated: bool) -> Connection {
        Connection {
            id,
            stream,
            input: Vec::new(),
            bulky: None,
            scanner: Scanner::new(),
            queued: None,
            output: Vec::new(),
            sent: 0,
            ahead: None,
            holes: Vec::new(),
            fills: Vec::new(),
            unfilled: 0,
            fresh: true,
            readable: false,
            hung_up: false,
            ended: false,
            waiting: false,
            then: None,
            executing: false,
            multi: None,
            watching: None,
            blocked: None,
            closing: false,
            authenticated,
            proto: Proto::Resp2,
            reply_mode: ReplyMode::On,
            muted: false,
            refused: None,
            no_touch: false,
            modes: Modes::default(),
            db: 0,
            active_ms: client.created_ms,
            commands: 0,
            received: 0,
            sent_total: 0,
            last_command: None,
            last_subcommand: None,
            turn: Turn::default(),
            pace: Pace::default(),
            skip: None,
            booked: Booked::default(),
            client: Box::new(client),
        }
    }

    /// The socket alone, for whoever goes on with it.
    pub fn into_stream(self) -> Stream {
        self.stream
    }

    /// The socket.
    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Bytes that the client has sent and that were not read yet.
    pub fn unread(&self) -> u64 {
        rustix::io::ioctl_fionread(&self.stream).unwrap_or(0)
    }

    /// Whether requests may be run now: nothing is under way, and what was answered has mostly been taken.
    #[inline]
    pub fn may_run(&self, output_max: usize) -> bool {
        !self.waiting
            && self.unfilled == 0
            && self.ahead.is_none()
            && !self.closing
            && self.pending_output() <= output_max
    }

    /// Whether replies from other cores are missing.
    #[inline]
    pub fn has_holes(&self) -> bool {
        self.unfilled > 0
    }

    /// Bytes waiting to be sent.
    #[inline]
    pub fn pending_output(&self) -> usize {
        self.output.len() + self.ahead.as_ref().map_or(0, |ahead| ahead.len()) - self.sent
    }

    /// Reads once into `into`.
    pub fn read(&mut self, into: &mut [u8]) -> Got {
        loop {
            return match self.stream.read(into) {
                Ok(0) => Got::End,
                // Less than asked for means the socket is drained; its next bytes make a new event.
                Ok(len) if len < into.len() => Got::Last(len),
                Ok(len) => Got::Bytes(len),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Got::Nothing,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => Got::End,
            };
        }
    }

    /// Reads once, behind what `into` holds and up to its capacity, of which some must be free.
    pub fn read_more(&mut self, into: &mut Vec<u8>) -> Got {
        loop {
            let room = into.capacity() - into.len();
            assert!(room > 0, "there is room to read into");
            // The room needs no zeros first: recv says how far it wrote.
            return match rustix::net::recv(&self.stream, spare_capacity(into), RecvFlags::empty()) {
                Ok((0, _)) => Got::End,
                Ok((len, _)) if len < room => Got::Last(len),
                Ok((len, _)) => Got::Bytes(len),
                Err(Errno::WOULDBLOCK) => Got::Nothing,
                Err(Errno::INTR) => continue,
                Err(_) => Got::End,
            };
        }
    }

    /// Sends what can be sent; false if the connection is broken. Nothing of a transaction that is being carried out:
    /// who is told of it finds all that follows from it done.
    pub fn flush(&mut self) -> bool {
        if self.unfilled > 0 || self.executing {
            return true;
        }
        if self.ahead.is_some() && !self.flush_ahead() {
            return false;
        }
        if self.ahead.is_some() {
            return true;
        }
        let Some(sent) = self.stream.send(&self.output[self.sent..]) else { return false };
        self.sent += sent;
        self.sent_total += sent as u64;
        if self.sent == self.output.len() {
            self.output.clear();
            self.sent = 0;
        }
        true
    }

    /// Whether nothing waits to be sent, so that bytes may go to the socket directly.
    #[inline]
    pub fn is_drained(&self) -> bool {
        self.output.is_empty() && self.unfilled == 0 && self.ahead.is_none()
    }

    /// Sends bytes past the output, which must be drained; returns how many were taken, or None if the connection is
    /// broken.
    pub fn send_now(&mut self, bytes: &[u8]) -> Option<usize> {
        let sent = self.stream.send(bytes)?;
        self.sent_total += sent as u64;
        Some(sent)
    }

    /// Drops what was sent from the output. Replies drain it now and then, but a subscriber that is always a little
    /// behind never does.
    pub fn compact(&mut self) {
        const WORTH_IT: usize = 64 * 1024;
        let is_first = self.holes.is_empty() && self.ahead.is_none();
        if is_first && self.sent >= WORTH_IT && self.sent >= self.output.len() / 2 {
            self.output.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// Gives the output buffer's memory away when all was sent, for the core to lend to the next connection.
    pub fn take_idle_output(&mut self) -> Option<Vec<u8>> {
        (self.output.is_empty() && self.output.capacity() > 0).then(|| std::mem::take(&mut self.output))
    }

    /// Leaves a hole for a reply from another core; returns its number.
    #[inline]
    pub fn leave_hole(&mut self) -> u32 {
        self.holes.push(Hole { at: self.output.len() as u32, filled: None });
        self.unfilled += 1;
        self.holes.len() as u32 - 1
    }

    /// Fills a hole; true when it was the last one and the output is whole.
    pub fn fill(&mut self, hole: u32, reply: &[u8]) -> bool {
        self.unfilled -= 1;
        if self.holes.len() == 1 && self.holes[0].at as usize == self.output.len() {
            self.output.extend_from_slice(reply);
            self.holes.clear();
            return true;
        }
        let start = self.fills.len() as u32;
        self.fills.extend_from_slice(reply);
        self.holes[hole as usize].filled = Some((start, self.fills.len() as u32));
        if self.unfilled > 0 {
            return false;
        }
        let mut whole = Vec::with_capacity(self.output.len() + self.fills.len());
        let mut done = 0;
        for (number, hole) in self.holes.drain(..).enumerate() {
            let (start, end) = hole.filled.expect("all holes are filled");
            whole.extend_from_slice(&self.output[done..hole.at as usize]);
            whole.extend_from_slice(&self.fills[start as usize..end as usize]);
            done = hole.at as usize;
            if let Some(ahead) = &mut self.ahead {
                ahead.close_hole(number as u32, &mut whole);
            }
        }
        whole.extend_from_slice(&self.output[done..]);
        self.output = whole;
        self.fills = Vec::new();
        true
    }

    /// Bytes that have arrived of requests that are not complete.
    pub fn input_len(&self) -> usize {
        self.input.len() + self.bulky.as_ref().map_or(0, |bulky| bulky.buffered())
    }

    /// Bytes held for them.
    pub fn input_bytes(&self) -> usize {
        self.input.capacity() + self.bulky.as_ref().map_or(0, |bulky| bulky.heap_bytes())
    }

    /// Bytes held for this connection.
    pub fn heap_bytes(&self) -> usize {
        size_of::<Connection>()
            + size_of::<Client>()
            + self.input_bytes()
            + self.output.capacity()
            + self.ahead.as_ref().map_or(0, |ahead| ahead.heap_bytes())
            + self.fills.capacity()
            + self.holes.capacity() * size_of::<Hole>()
            + self.queued.as_ref().map_or(0, |queued| queued.heap_bytes())
            + self.multi.as_ref().map_or(0, |multi| multi.heap_bytes())
            + self.blocked.as_ref().map_or(0, |waiter| waiter.heap_bytes())
    }
}

/// An address as CLIENT LIST prints it.
pub fn show_addr(addr: SocketAddr) -> String {
    match addr {
        // Clients of an IPv4 address on a dual-stack socket are shown as what they are.
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => format!("{v4}:{}", v6.port()),
            None => addr.to_string(),
        },
        SocketAddr::V4(_) => addr.to_string(),
    }
}
