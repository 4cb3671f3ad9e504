//! Long replies on their way to the client.
//!
//! Only the head of a long reply is written by its handler, the rest comes from a [`Long`], piece by piece, each when
//! the one before has been sent. The head and the replies before it go *ahead* of the output; whatever is written
//! meanwhile is appended to the output as always, and so stays behind. Until the reply is whole the connection runs
//! no requests, so a pipeline of them holds one at a time for each request that was already under way.
//!
//! A long string goes to the socket from where the shard has it.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use damselfly_commands::Long;
use damselfly_keyspace::Object;

use super::{Connection, Hole};

/// Bytes of a long string that are sent in one turn. A reader on the same machine takes them as fast as they come, and
/// the kernel would copy all of it in one call.
const SENT_PER_TURN: usize = 1 << 20;

/// What is sent before the output.
#[derive(Default)]
pub(super) struct Ahead {
    parts: VecDeque<Part>,
    /// Rests of replies whose heads are in holes, with the holes' numbers, until no hole is empty.
    in_holes: Vec<(u32, Box<Long>)>,
    /// The next piece will be written, or sent, in the next turn.
    is_due: bool,
    /// As much was sent as may be in one turn, and the socket may take more.
    has_more: bool,
}

enum Part {
    Bytes(Vec<u8>),
    /// A part of what is lent by a shard. A line's end follows.
    String(Arc<Vec<u8>>, Range<usize>),
    Rest(Box<Long>),
}

impl Ahead {
    /// Bytes that are written.
    pub fn len(&self) -> usize {
        self.parts.iter().filter_map(Part::bytes).map(<[u8]>::len).sum()
    }

    /// Bytes held, by nobody else.
    pub fn heap_bytes(&self) -> usize {
        self.parts.iter().map(Part::heap_bytes).sum::<usize>()
            + self
                .in_holes
                .iter()
                .filter_map(|(_, long)| long.string())
                .map(|(string, _)| own_bytes(string))
                .sum::<usize>()
    }

    /// The output is put together up to a hole's end; takes it if the hole has the head of a long reply.
    pub fn close_hole(&mut self, hole: u32, whole: &mut Vec<u8>) {
        if let Some(at) = self.in_holes.iter().position(|(number, _)| *number == hole) {
            let (_, long) = self.in_holes.swap_remove(at);
            self.push(std::mem::take(whole), long);
        }
    }

    fn push(&mut self, before: Vec<u8>, long: Box<Long>) {
        self.parts.push_back(Part::Bytes(before));
        match long.string() {
            Some((string, part)) => {
                self.parts.push_back(Part::String(string.clone(), part));
                self.parts.push_back(Part::Bytes(b"\r\n".to_vec()));
            }
            None => self.parts.push_back(Part::Rest(long)),
        }
    }
}

impl Part {
    /// What is to be sent, if it is written.
    fn bytes(&self) -> Option<&[u8]> {
        match self {
            Part::Bytes(bytes) => Some(bytes),
            Part::String(string, part) => Some(&string[part.clone()]),
            Part::Rest(_) => None,
        }
    }

    fn heap_bytes(&self) -> usize {
        match self {
            Part::Bytes(bytes) => bytes.capacity(),
            Part::String(string, _) => own_bytes(string),
            Part::Rest(_) => 0,
        }
    }
}

/// What a string that was lent takes when its key is gone: before, the shard counts it.
fn own_bytes(string: &Arc<Vec<u8>>) -> usize {
    if Arc::strong_count(string) == 1 { string.capacity() } else { 0 }
}

impl Connection {
    /// The output ends with the head of a long reply.
    pub fn begin_long(&mut self, long: Box<Long>) {
        let before = if self.unfilled == 0 { Some(std::mem::take(&mut self.output)) } else { None };
        let ahead = self.ahead.get_or_insert_default();
        match before {
            Some(before) => ahead.push(before, long),
            None => {
                // A hole that is filled already, with nothing, marks the place.
                ahead.in_holes.push((self.holes.len() as u32, long));
                self.holes.push(Hole { at: self.output.len() as u32, filled: Some((0, 0)) });
            }
        }
    }

    /// As [`Connection::fill`], with the head of a long reply.
    pub fn fill_long(&mut self, hole: u32, head: &[u8], long: Box<Long>) -> bool {
        self.ahead.get_or_insert_default().in_holes.push((hole, long));
        let whole = self.fill(hole, head);
        if whole && let Some(ahead) = &mut self.ahead {
            // A lone hole at the end of the output was filled in place.
            ahead.close_hole(hole, &mut self.output);
        }
        whole
    }

    /// Sends what is written ahead of the output; false if the connection is broken.
    pub(super) fn flush_ahead(&mut self) -> bool {
        let Some(ahead) = &mut self.ahead else { return true };
        while let Some(bytes) = ahead.parts.front().and_then(Part::bytes) {
            let end = bytes.len().min(self.sent.saturating_add(SENT_PER_TURN));
            let Some(sent) = self.stream.send(&bytes[self.sent..end]) else { return false };
            self.sent += sent;
            self.sent_total += sent as u64;
            if self.sent < bytes.len() {
                ahead.has_more = self.sent == end;
                return true;
            }
            self.sent = 0;
            ahead.parts.pop_front();
        }
        if ahead.parts.is_empty() {
            self.ahead = None;
        }
        true
    }

    /// Whether the rest of a long reply waits for its turn: all before it was sent, or as much of it as may be in one.
    /// True once for each piece.
    pub fn is_long_due(&mut self) -> bool {
        match &mut self.ahead {
            Some(ahead) if ahead.has_more || matches!(ahead.parts.front(), Some(Part::Rest(_))) => {
                !std::mem::replace(&mut ahead.is_due, true)
            }
            _ => false,
        }
    }

    /// Whether the connection is sending a long reply.
    pub fn is_in_long(&self) -> bool {
        self.ahead.is_some()
    }

    /// Writes a piece of about `len` bytes of a long reply if its turn has come; what the reply held, if it is whole now.
    pub fn write_long(&mut self, len: usize) -> Option<Object> {
        let ahead = self.ahead.as_mut()?;
        if !std::mem::take(&mut ahead.is_due) || std::mem::take(&mut ahead.has_more) {
            return None;
        }
        let Some(Part::Rest(mut long)) = ahead.parts.pop_front_if(|part| matches!(part, Part::Rest(_)))
        else {
            return None;
        };
        let (mut piece, mut held) = (Vec::with_capacity(len + len / 8), None);
        if long.write_some(&mut piece, len) {
            held = long.into_held();
        } else {
            ahead.parts.push_front(Part::Rest(long));
        }
        ahead.parts.push_front(Part::Bytes(piece));
        held
    }

    /// What long replies hold, for a connection that ends.
    pub fn drop_long(&mut self) -> impl Iterator<Item = Object> + use<> {
        let ahead = self.ahead.take().map(|ahead| *ahead).unwrap_or_default();
        let parts = ahead.parts.into_iter().filter_map(|part| match part {
            Part::Rest(long) => Some(long),
            Part::Bytes(_) | Part::String(..) => None,
        });
        parts.chain(ahead.in_holes.into_iter().map(|(_, long)| long)).filter_map(|long| long.into_held())
    }
}
