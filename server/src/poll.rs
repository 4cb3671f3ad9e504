//! One core's epoll instance, which tokio's own watches.
//!
//! Connections are not tokio sockets: each core has an epoll of its own for them, and the core's tokio runtime sees
//! only that one descriptor. One readable event then stands for all ready connections, so a loop turn handles them
//! together: requests for another core travel in one message per turn, and a connection costs no task, no waker and
//! no timer. Measured against a task per connection over `TcpStream` (docs/benchmarks.md).
//!
//! Everything is edge-triggered: a socket is read until it is drained or the connection must pause, and a paused
//! connection remembers that it may have more (`Connection::readable`).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll;
use rustix::time::Timespec;

/// Events taken in one call.
const EVENTS_MAX: usize = 256;

/// What a descriptor was registered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token(pub u64);

/// Readiness of one descriptor.
#[derive(Clone, Copy, Debug)]
pub struct Ready {
    /// As registered.
    pub token: Token,
    /// There is something to read, or the end.
    pub readable: bool,
    /// Writing may go on.
    pub writable: bool,
    /// The peer has closed its side, or the connection is broken: there will be no further edge for reading, so it
    /// must be read to its end.
    pub ended: bool,
}

/// See the module's head.
pub struct Poll {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poll {
    /// A new instance.
    pub fn new() -> io::Result<Poll> {
        Ok(Poll {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(EVENTS_MAX),
        })
    }

    /// Watches a stream for both directions, edge-triggered.
    pub fn watch(&self, fd: impl AsFd, token: Token) -> io::Result<()> {
        let flags =
            epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token.0), flags)?)
    }

    /// Looks away from a stream that goes to another thread; a closed one is forgotten by itself.
    pub fn unwatch(&self, fd: impl AsFd) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, fd)?)
    }

    /// Watches something that is only read (a listener, a bell).
    pub fn watch_reads(&self, fd: impl AsFd, token: Token) -> io::Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
        Ok(epoll::add(&self.epoll, fd, epoll::EventData::new_u64(token.0), flags)?)
    }

    /// Collects what is ready into `ready`; if nothing is, what comes first within some time. True if
    /// there may be more.
    pub fn collect(&mut self, ready: &mut Vec<Ready>, wait: Duration) -> io::Result<bool> {
        let wait = Timespec { tv_sec: wait.as_secs().cast_signed(), tv_nsec: wait.subsec_nanos().into() };
        self.events.clear();
        let spare = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, spare, Some(&wait)) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
        let ended = epoll::EventFlags::HUP | epoll::EventFlags::ERR | epoll::EventFlags::RDHUP;
        ready.extend(self.events.iter().map(|event| {
            let flags = event.flags;
            Ready {
                token: Token(event.data.u64()),
                readable: flags.intersects(epoll::EventFlags::IN | ended),
                writable: flags.intersects(epoll::EventFlags::OUT | ended),
                ended: flags.intersects(ended),
            }
        }));
        Ok(self.events.len() == EVENTS_MAX)
    }
}

#[expect(unsafe_code, reason = "tokio takes a descriptor only with a promise about it")]
mod sleep {
    use std::io;
    use std::os::fd::OwnedFd;

    use tokio::io::Interest;
    use tokio::io::unix::AsyncFd;

    impl super::Poll {
        /// This instance as one descriptor of the current tokio runtime: readable when `collect` would find
        /// something.
        pub fn watched(&self) -> io::Result<AsyncFd<OwnedFd>> {
            let descriptor = self.epoll.try_clone()?;
            // SAFETY: an `OwnedFd` is an open descriptor of its own, which the `AsyncFd` owns from here on and hands
            // out to nobody; `as_raw_fd` of an `OwnedFd` always returns the same number.
            Ok(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?)
        }
    }
}
