//! Requests of one turn for one other core, and their replies on the way back.
//!
//! All connections of a core share the batch for a peer: one message per peer and turn however many clients and
//! pipelined requests it carries. The box travels there and back and is then used again.

use std::collections::VecDeque;

use damselfly_commands::{Command, Long};
use damselfly_protocol::{Argv, Proto, ReplyWriter, Requests};

use crate::connection::ConnectionId;
use crate::input_room::Booked;

/// Requests after which a batch is sent at once, so that a peer starts early on a long pipeline.
pub const REQUESTS_MAX: usize = 512;
/// Argument bytes after which a batch is sent at once.
pub const BYTES_MAX: usize = 256 * 1024;
/// Buffers above this are not kept for the next batch.
const BYTES_KEPT_MAX: usize = 64 * 1024;

/// One request's metadata.
#[derive(Clone, Copy)]
pub struct Entry {
    /// Who waits.
    pub connection: ConnectionId,
    /// Which of the connection's holes the reply fills.
    pub hole: u32,
    /// What to run.
    pub command: &'static Command,
    /// Its number.
    pub index: u16,
    /// The client's database.
    pub db: u16,
    /// The client's protocol.
    pub proto: Proto,
    /// The client caches what it reads.
    pub remembers: bool,
    /// The client's reads leave the heat of keys as it is.
    pub no_touch: bool,
}

/// See the module's head.
#[derive(Default)]
pub struct Batch {
    /// The core that sent the requests.
    pub from: usize,
    /// What to run for whom; argument `i` belongs to entry `i`.
    pub entries: Vec<Entry>,
    bytes: Vec<u8>,
    requests: Requests,
    /// Replies, one behind the other.
    pub replies: Vec<u8>,
    /// Where each reply ends.
    pub ends: Vec<u32>,
    /// Rests of long replies, with the numbers of their requests, in their order.
    pub longs: VecDeque<(usize, Box<Long>)>,
    /// What the sender has booked for it while it is on its way.
    pub booked: Booked,
}

/// A batch without its arguments, while a script of it runs.
pub struct Lent {
    at: usize,
    /// The core that sent the requests.
    pub from: usize,
    entries: Vec<Entry>,
    replies: Vec<u8>,
    ends: Vec<u32>,
    longs: VecDeque<(usize, Box<Long>)>,
    is_answered: bool,
}

impl Lent {
    /// Answers to all but the script, which takes long: the replies that are there, and `busy` for those behind it.
    /// Nothing the second time.
    pub fn answer(&mut self, busy: &str) -> Option<Box<Batch>> {
        if std::mem::replace(&mut self.is_answered, true) || self.entries.len() == 1 {
            return None;
        }
        let mut early = Box::new(Batch {
            from: self.from,
            entries: self.entries.clone(),
            replies: self.replies.clone(),
            ends: self.ends.clone(),
            longs: std::mem::take(&mut self.longs),
            ..Batch::default()
        });
        early.entries[self.at].hole = u32::MAX;
        early.ends.push(early.replies.len() as u32);
        for entry in &self.entries[self.at + 1..] {
            ReplyWriter::new(&mut early.replies, entry.proto).error(busy);
            early.ends.push(early.replies.len() as u32);
        }
        Some(early)
    }
}

impl Batch {
    /// Adds a request.
    #[inline]
    pub fn push<'a>(&mut self, entry: Entry, args: impl Iterator<Item = &'a [u8]> + Clone) -> bool {
        let added = self.requests.push_copy(&mut self.bytes, args);
        if added {
            self.entries.push(entry);
        }
        added
    }

    /// The arguments of request `i`.
    #[inline]
    pub fn argv(&self, i: usize) -> Argv<'_> {
        self.requests.argv(&self.bytes, i)
    }

    /// A batch of its own for request `i`, whose reply the sender does not look for in this one any more.
    pub fn take_out(&mut self, i: usize) -> Box<Batch> {
        let mut alone = Box::<Batch>::default();
        alone.from = self.from;
        assert!(alone.push(self.entries[i], self.argv(i).iter()), "one request fits a batch");
        self.entries[i].hole = u32::MAX;
        alone
    }

    /// As [`Batch::take_out`], without the arguments: only the reply is still to come.
    pub fn take_out_reply(&mut self, i: usize) -> Box<Batch> {
        let alone = Batch { from: self.from, entries: vec![self.entries[i]], ..Batch::default() };
        self.entries[i].hole = u32::MAX;
        Box::new(alone)
    }

    /// Lends out all but the arguments while request `at`, a script, runs; `replies` are those of the ones before it.
    pub fn lend(&mut self, at: usize, replies: Vec<u8>) -> Lent {
        Lent {
            at,
            from: self.from,
            entries: std::mem::take(&mut self.entries),
            replies,
            ends: std::mem::take(&mut self.ends),
            longs: std::mem::take(&mut self.longs),
            is_answered: false,
        }
    }

    /// Takes back what was lent; true if all others than the script have been answered.
    pub fn take_back(&mut self, lent: Lent, replies: &mut Vec<u8>) -> bool {
        let Lent { at, entries, ends, longs, is_answered, .. } = lent;
        (self.entries, self.ends, self.longs, *replies) = (entries, ends, longs, lent.replies);
        if is_answered {
            for (_, entry) in self.entries.iter_mut().enumerate().filter(|(i, _)| *i != at) {
                entry.hole = u32::MAX;
            }
            self.ends.fill(0);
            replies.clear();
        }
        is_answered
    }

    /// Whether it should be sent now.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.entries.len() >= REQUESTS_MAX || self.bytes.len() >= BYTES_MAX
    }

    /// Makes it as new, keeping modest buffers.
    pub fn reset(&mut self) {
        self.entries.clear();
        self.requests.clear();
        self.ends.clear();
        self.longs.clear();
        for buffer in [&mut self.bytes, &mut self.replies] {
            buffer.clear();
            if buffer.capacity() > BYTES_KEPT_MAX {
                *buffer = Vec::new();
            }
        }
    }

    /// Bytes held.
    pub fn heap_bytes(&self) -> usize {
        self.bytes.capacity()
            + self.replies.capacity()
            + self.requests.allocated()
            + self.ends.capacity() * 4
            + self.entries.capacity() * size_of::<Entry>()
    }
}
