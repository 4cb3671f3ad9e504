//! Requests with a long argument: that is read into a buffer of its own, which SET and its kin keep as the value. So a
//! megabyte that comes from a socket is moved once, by the kernel, as in Redis; read behind the rest of its request
//! it would be moved twice more, as its buffer grows and into the value.
//!
//! A request becomes one of these when what has arrived ends within a long argument, and the scanner has accepted all
//! before it; so limits and errors are the scanner's alone. When the argument is complete the request is run like any
//! other, that argument in a place of its own. What follows it (`EX 60`) is expected to come with its end; a request
//! of which something is still missing then, or is not as plain as everybody writes it, goes back to the scanner.
//!
//! Only where nobody would copy or show the request (no transaction, no pause, no monitor, no other core, no lock in
//! the way) may the command take the buffer, and the request is then left with the beginning of its value, for the
//! slow log.

use std::sync::atomic::Ordering;

use damselfly_commands::takes_given;
use damselfly_protocol::{Argv, Scanner, Unfinished, complete, unfinished};

use crate::connection::{Connection, ConnectionId, Queued, ReplyMode};
use crate::core::Core;
use crate::execute::{Flow, Prepared};
use crate::input_room::{Size, Turn};
use crate::stats::{SLOW_ARG_LEN_MAX, Stopwatch};

/// Shorter ones are copied: that costs less than an allocation whose pages must be fetched.
const LEN_MIN: usize = 64 * 1024;

/// Room made for an argument before as much of it has arrived, where all that is unfinished leaves that much. Memory
/// that nobody has written to is only an address.
const ROOM: usize = 2 * 1024 * 1024;

/// Room for an argument that follows the long one: `KEEPTTL`, or a deadline in milliseconds.
const BEHIND_LEN: usize = 24;

/// See the module's head.
#[derive(Debug)]
pub struct Bulky {
    /// All before the long argument, as it came.
    head: Vec<u8>,
    /// What has arrived of it and of what is behind it.
    long: Vec<u8>,
    /// Its length.
    len: usize,
    /// How many arguments follow it.
    behind: usize,
}

impl Bulky {
    /// The request at the start of `bytes`, of which the scanner wants `wanted`, if it is such a one; without what has
    /// arrived of its long argument.
    fn of(bytes: &[u8], wanted: usize) -> Option<Bulky> {
        if wanted < LEN_MIN {
            return None;
        }
        let Unfinished { start, len, behind } = unfinished(bytes)?;
        let is_one = len >= LEN_MIN && start + len + 2 == wanted;
        is_one.then(|| Bulky { head: bytes[..start].to_vec(), long: Vec::new(), len, behind })
    }

    /// Where to read more to.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.long
    }

    /// What the buffer is made for, of which so much has arrived: the rest of it.
    fn missing(&self, arrived: usize) -> usize {
        self.len + 2 + self.behind * BEHIND_LEN - arrived
    }

    /// Whether all of the argument has arrived.
    pub fn is_complete(&self) -> bool {
        self.long.len() >= self.len + 2
    }

    /// Moves what follows the argument behind `head`, and returns what has arrived behind the request; `None`, and
    /// nothing moved, if the scanner must see to it.
    fn close(&mut self) -> Option<Vec<u8>> {
        let end = complete(&self.long[self.len + 2..], self.behind)?;
        let rest = self.long.split_off(self.len + 2 + end);
        self.head.extend_from_slice(&self.long[self.len + 2..]);
        self.long.truncate(self.len);
        Some(rest)
    }

    /// Bytes that have arrived.
    pub fn buffered(&self) -> usize {
        self.head.len() + self.long.len()
    }

    /// Bytes held.
    pub fn heap_bytes(&self) -> usize {
        size_of::<Bulky>() + self.head.capacity() + self.long.capacity()
    }
}

impl Core {
    /// Makes the unfinished request of a connection one of these; false if it cannot be, or how much it wants if there is
    /// no room now.
    pub(crate) fn begin_bulky(&mut self, id: ConnectionId) -> Result<bool, (Size, usize)> {
        let Some(connection) = self.connection(id) else { return Ok(false) };
        let have = connection.input.len();
        let turn = connection.turn;
        let Some(mut bulky) = Bulky::of(&connection.input, connection.scanner.wanted()) else {
            return Ok(false);
        };
        let arrived = have - bulky.head.len();
        let missing = bulky.missing(arrived);
        let room = self.room_for(turn, have, missing)?;
        self.note_begun(id, Some(self.size_of(have, have + missing)));
        self.make_way(arrived + room);
        let Some(connection) = self.connection(id) else { return Ok(false) };
        bulky.long.reserve_exact(arrived + room);
        bulky.long.extend_from_slice(&connection.input[bulky.head.len()..]);
        connection.input = Vec::new();
        connection.scanner = Scanner::new();
        connection.fresh = false;
        connection.bulky = Some(Box::new(bulky));
        Ok(true)
    }

    /// Sees that the connection's request, if it is one of these, can be read on; how much it wants if there is no room
    /// now.
    pub(crate) fn grow_bulky(&mut self, id: ConnectionId) -> Result<(), (Size, usize)> {
        let Some(connection) = self.connection(id) else { return Ok(()) };
        let turn = connection.turn;
        let Some(mut growing) = connection.bulky.take() else { return Ok(()) };
        let have = growing.long.len();
        let mut grown = Ok(());
        if have == growing.long.capacity() {
            grown = self.room_for(turn, have, growing.missing(have)).map(|room| {
                self.make_way(room);
                growing.long.reserve_exact(room);
            });
        }
        if let Some(connection) = self.connection(id) {
            connection.bulky = Some(growing);
        }
        grown
    }

    /// How much to make ready for what is missing: little more than four times what has arrived, or a good deal.
    fn room_for(&self, turn: Turn, have: usize, missing: usize) -> Result<usize, (Size, usize)> {
        let modest = missing.min((3 * have).max(16 * 1024));
        let size = self.size_of(have, have + missing);
        let ample = missing.min(ROOM).min(self.ample_room(size)).max(modest);
        [ample, modest].into_iter().find(|&room| self.has_room(size, turn, room)).ok_or((size, ample))
    }

    /// Runs such a request, if the connection has a complete one; false if the connection must pause.
    pub(crate) fn run_bulky(&mut self, id: ConnectionId) -> bool {
        let Some(connection) = self.connection(id) else { return false };
        let Some(mut bulky) = connection.bulky.take_if(|bulky| bulky.is_complete()) else { return true };
        let start = bulky.head.len();
        let Some(rest) = bulky.close() else {
            connection.input = [bulky.head, bulky.long].concat();
            return true;
        };
        connection.input = rest;
        let Bulky { head, long, .. } = *bulky;
        let mut requests = std::mem::take(&mut self.requests);
        requests.join(&head, start, long);
        let ready = self.prepare(&requests.argv(&head, 0));
        if self.may_keep(id, ready, requests.apart(), &requests.argv(&head, 0)) {
            self.long_value = Some(requests.take_apart(SLOW_ARG_LEN_MAX));
        }
        self.lend_output(id);
        let mut watch = Stopwatch::start();
        let flow = self.run_one(id, &requests.argv(&head, 0), ready, &mut watch);
        watch.stop(&mut self.stats);
        if let Some(value) = self.long_value.take() {
            // It was refused, or it waits after all.
            requests.give_apart(value);
        }
        if flow == Flow::Hold
            && let Some(connection) = self.connection(id)
            && !connection.closing
        {
            let queued = connection.queued.get_or_insert_with(Box::<Queued>::default);
            queued.push(&requests.argv(&head, 0));
        }
        requests.clear();
        self.requests = requests;
        flow == Flow::Next && self.connection(id).is_some_and(|connection| connection.may_run(usize::MAX))
    }

    /// Whether this is a command that may keep the argument at `apart`, that runs here and now, and that nobody else
    /// looks at.
    fn may_keep(&mut self, id: ConnectionId, ready: Prepared, apart: usize, argv: &Argv<'_>) -> bool {
        let quiet = self.pause.is_none()
            && self.locks.is_idle()
            && self.shared.monitors.load(Ordering::Relaxed) == 0
            && argv[apart].len() <= self.env.string_len_max
            && ready.here().is_some_and(|name| takes_given(name, apart));
        quiet
            && self.connection(id).is_some_and(|connection: &mut Connection| {
                connection.multi.is_none() && connection.reply_mode == ReplyMode::On
            })
    }
}

#[cfg(test)]
mod tests {
    use super::Bulky;

    /// Only a request that ends within a long argument becomes one of these; what came behind it is given back, and
    /// what is not plain is not touched.
    #[test]
    fn arrives_in_pieces() {
        let head = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000\r\n";
        let wanted = head.len() + 100_002;
        assert!(Bulky::of(&head[..head.len() - 1], wanted).is_none(), "the length is not known yet");
        assert!(Bulky::of(head, wanted - 1).is_none(), "the scanner wants something else");
        let short = b"*1\r\n$60000\r\n";
        assert!(Bulky::of(short, short.len() + 60_002).is_none());

        let mut bulky = Bulky::of(&[head.as_slice(), b"xyz"].concat(), wanted).expect("it is one");
        assert!(!bulky.is_complete());
        let buffer = bulky.buffer();
        buffer.resize(100_001, b'x');
        assert!(!bulky.is_complete());
        bulky.buffer().extend_from_slice(b"\nGET k");
        assert!(bulky.is_complete() && bulky.heap_bytes() >= 100_000);
        assert_eq!(bulky.close().as_deref(), Some(&b"GET k"[..]));
        assert_eq!((bulky.head.as_slice(), bulky.long.len()), (head.as_slice(), 100_000));

        let head = b"*5\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000\r\n";
        for (behind, rest) in [
            (&b"$2\r\nEX\r\n$2\r\n10\r\nGET k"[..], Some(&b"GET k"[..])),
            (b"$2\r\nEX\r\n$2\r\n10\r", None),
            (b"", None),
            (b"nonsense\r\nnonsense", None),
        ] {
            let mut bulky = Bulky::of(head, wanted).expect("it is one");
            bulky.buffer().resize(100_002, b'x');
            bulky.buffer().extend_from_slice(behind);
            assert!(bulky.is_complete());
            assert_eq!(bulky.close().as_deref(), rest);
            let (len, moved) =
                rest.map_or((100_002 + behind.len(), 0), |rest| (100_000, behind.len() - rest.len()));
            assert_eq!((bulky.long.len(), bulky.head.len()), (len, head.len() + moved));
        }
    }
}
