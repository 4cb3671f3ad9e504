//! Messages between cores.
//!
//! Each core has one mailbox: a bounded lock-free queue and a bell. Senders push, then ring only if the owner sleeps,
//! so a busy core is never interrupted and a burst costs one wake-up. Bounded, because an unbounded queue turns a
//! slow shard into an out-of-memory kill; a sender whose message is refused keeps it in its outbox and stops reading
//! its sockets until the outbox is empty (`Core::congested`).
//!
//! Invariant: only the owner pops. The order of messages from one sender to one receiver is kept. More than that: what
//! one turn of a core brings for several others arrives as one. A core that finds its part waits the few instructions
//! until the other parts are in their mailboxes, too ([`Mailbox::wait_until_posted`]). So whoever sees the effect of
//! one part and then asks another core is behind the part that went there.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering, fence};

use crossbeam::queue::ArrayQueue;
use rustix::event::{EventfdFlags, eventfd};

use crate::batch::Batch;
use crate::connection::{Listener, Stream};
use crate::core::Core;

/// Messages a mailbox holds. A core sends at most a few per peer and turn (one batch of requests, one of replies, rare
/// jobs), so this is ample for 64 cores; what does not fit waits in the sender's outbox.
const MAILBOX_LEN_MAX: usize = 4096;

/// Work that another core is asked to do.
pub type Job = Box<dyn FnOnce(&mut Core) + Send>;

/// A new connection: its socket, the port it came through, the addresses of both sides.
pub struct Arrival {
    /// The socket.
    pub stream: Stream,
    /// The port.
    pub listener: Listener,
    /// The client's address.
    pub addr: String,
    /// Ours.
    pub laddr: String,
}

/// What travels.
pub enum Message {
    /// Requests for keys of the receiver.
    Requests(Box<Batch>),
    /// The same batch on its way back, with replies.
    Replies(Box<Batch>),
    /// A client that the receiver serves from now on.
    Connection(Box<Arrival>),
    /// Anything rarer.
    Job(Job),
}

/// See the module's head.
pub struct Mailbox {
    queue: ArrayQueue<Message>,
    sleeping: AtomicBool,
    /// The owner is putting the parts of a turn into several mailboxes.
    posting: AtomicBool,
    bell: OwnedFd,
}

impl Mailbox {
    /// An empty mailbox.
    pub fn new() -> std::io::Result<Mailbox> {
        Ok(Mailbox {
            queue: ArrayQueue::new(MAILBOX_LEN_MAX),
            sleeping: AtomicBool::new(false),
            posting: AtomicBool::new(false),
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// Puts a message in without waking the owner; gives it back if the mailbox is full.
    pub fn push(&self, message: Message) -> Result<(), Message> {
        self.queue.push(message)
    }

    /// Wakes the owner if it sleeps. Call once after a burst of pushes.
    pub fn ring(&self) {
        // Pairs with the fence in `fall_asleep`: either this sees `sleeping`, or the owner sees the message.
        fence(Ordering::SeqCst);
        if self.sleeping.load(Ordering::Relaxed) && self.sleeping.swap(false, Ordering::AcqRel) {
            // The counter of an eventfd can only refuse when it is at its maximum, and then the bell rings already.
            let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        }
    }

    /// The owner is about to wait; false if there is a message after all.
    pub fn fall_asleep(&self) -> bool {
        self.sleeping.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        if self.queue.is_empty() {
            return true;
        }
        self.sleeping.store(false, Ordering::Relaxed);
        false
    }

    /// The owner is awake.
    pub fn wake_up(&self) {
        self.sleeping.store(false, Ordering::Relaxed);
    }

    /// Messages waiting.
    #[inline]
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Whether senders should hold back. Half of it is left for what is on its way.
    #[inline]
    pub fn is_crowded(&self) -> bool {
        self.queue.len() > MAILBOX_LEN_MAX / 2
    }

    /// The owner of this mailbox begins to put the parts of a turn into those of others.
    pub fn begin_posting(&self) {
        self.posting.store(true, Ordering::Relaxed);
    }

    /// All parts are in their mailboxes.
    pub fn end_posting(&self) {
        self.posting.store(false, Ordering::Release);
    }

    /// Waits until the owner of this mailbox, who sent a part that was found, has posted the others. It does nothing
    /// but push in between, so that this is short unless its thread is interrupted right there.
    #[inline]
    pub fn wait_until_posted(&self) {
        let mut spins = 0u32;
        // The push that made the part visible came after `begin_posting`, so a mark of that time is seen here.
        while self.posting.load(Ordering::Acquire) {
            spins += 1;
            if spins < 100 { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
    }

    /// Takes a message; for the owner alone.
    pub fn pop(&self) -> Option<Message> {
        self.queue.pop()
    }

    /// Silences the bell after it rang.
    pub fn silence(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.bell, &mut count);
    }

    /// Posts a job from a thread that is not a core (HTTP, signals): waits in the rare case that the mailbox is full.
    pub fn post_from_outside(&self, job: Job) {
        let mut message = Message::Job(job);
        while let Err(back) = self.push(message) {
            message = back;
            self.ring();
            std::thread::yield_now();
        }
        self.ring();
    }
}

impl AsFd for Mailbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}
