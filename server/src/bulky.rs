//! Requests whose last argument is long: that argument is read into a buffer of its own, which a plain SET keeps as the
//! value. So a megabyte that comes from a socket is moved once, by the kernel, as in Redis; read behind the rest of
//! its request it would be moved twice more, as its buffer grows and into the value.
//!
//! A request becomes one of these when what has arrived ends within its last argument, and the scanner has accepted
//! all before it; so limits and errors are the scanner's alone. When the argument is complete the request is run
//! like any other, its last argument in a place of its own. Only where nobody would copy or show the request (no
//! transaction, no pause, no monitor, no other core, no lock in the way) may SET take the buffer, and the request is
//! then left with the beginning of its value, for the slow log.

use std::sync::atomic::Ordering;

use damselfly_commands::Cx;
use damselfly_protocol::{Argv, ReplyWriter, Scanner, unfinished};

use crate::connection::{Connection, ConnectionId, Queued, ReplyMode};
use crate::core::Core;
use crate::execute::{Flow, Prepared, Ran};
use crate::stats::{SLOW_ARG_LEN_MAX, Stopwatch};
use crate::tracking::Reader;

/// Shorter ones are copied: that costs less than an allocation whose pages must be fetched.
const LEN_MIN: usize = 64 * 1024;

/// Room made for an argument before as much of it has arrived, where all that is unfinished leaves that much. Memory
/// that nobody has written to is only an address.
const ROOM: usize = 2 * 1024 * 1024;

/// See the module's head.
#[derive(Debug)]
pub struct Bulky {
    /// All before the last argument, as it came.
    head: Vec<u8>,
    /// What has arrived of it and of the line end behind it.
    last: Vec<u8>,
    /// Its length.
    len: usize,
}

impl Bulky {
    /// The request at the start of `bytes`, of which the scanner wants `wanted`, if it is such a one; without what has
    /// arrived of its last argument.
    fn of(bytes: &[u8], wanted: usize) -> Option<Bulky> {
        if wanted < LEN_MIN {
            return None;
        }
        let (start, len) = unfinished(bytes)?;
        let is_one = len >= LEN_MIN && start + len + 2 == wanted;
        is_one.then(|| Bulky { head: bytes[..start].to_vec(), last: Vec::new(), len })
    }

    /// Where to read more to.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.last
    }

    /// Whether all has arrived.
    pub fn is_complete(&self) -> bool {
        self.last.len() >= self.len + 2
    }

    /// What has arrived behind the request.
    fn take_rest(&mut self) -> Vec<u8> {
        let rest = self.last.split_off(self.len + 2);
        self.last.truncate(self.len);
        rest
    }

    /// Bytes that have arrived.
    pub fn buffered(&self) -> usize {
        self.head.len() + self.last.len()
    }

    /// Bytes held.
    pub fn heap_bytes(&self) -> usize {
        size_of::<Bulky>() + self.head.capacity() + self.last.capacity()
    }
}

impl Core {
    /// Makes the unfinished request of a connection one of these, if it can be and there is room.
    pub(crate) fn begin_bulky(&mut self, id: ConnectionId) -> bool {
        let Some(connection) = self.connection(id) else { return false };
        let have = connection.input.len();
        let Some(mut bulky) = Bulky::of(&connection.input, connection.scanner.wanted()) else { return false };
        let arrived = have - bulky.head.len();
        let Some(room) = self.room_for(have, bulky.len + 2 - arrived) else { return false };
        let Some(connection) = self.connection(id) else { return false };
        bulky.last.reserve_exact(arrived + room);
        bulky.last.extend_from_slice(&connection.input[bulky.head.len()..]);
        connection.input = Vec::new();
        connection.scanner = Scanner::new();
        connection.fresh = false;
        connection.bulky = Some(Box::new(bulky));
        true
    }

    /// Sees that the connection's request, which is one of these, can be read on; false if there is no room now.
    pub(crate) fn grow_bulky(&mut self, id: ConnectionId) -> bool {
        let taken = self.connection(id).and_then(|connection| connection.bulky.take());
        let Some(mut growing) = taken else { return true };
        let have = growing.last.len();
        let mut grows = true;
        if have == growing.last.capacity() {
            match self.room_for(have, growing.len + 2 - have) {
                Some(room) => growing.last.reserve_exact(room),
                None => grows = false,
            }
        }
        if let Some(connection) = self.connection(id) {
            connection.bulky = Some(growing);
        }
        grows
    }

    /// How much to make ready for what is missing: little more than four times what has arrived, or a good deal.
    fn room_for(&self, have: usize, missing: usize) -> Option<usize> {
        let modest = missing.min((3 * have).max(16 * 1024));
        [missing.min(ROOM).max(modest), modest].into_iter().find(|room| self.may_buffer(have, *room))
    }

    /// Runs such a request, if the connection has a complete one; false if the connection must pause.
    pub(crate) fn run_bulky(&mut self, id: ConnectionId) -> bool {
        let Some(connection) = self.connection(id) else { return false };
        let Some(mut bulky) = connection.bulky.take_if(|bulky| bulky.is_complete()) else { return true };
        connection.input = bulky.take_rest();
        let Bulky { head, last, .. } = *bulky;
        let mut requests = std::mem::take(&mut self.requests);
        requests.join(&head, last);
        let ready = self.prepare(&requests.argv(&head, 0));
        if self.may_keep(id, ready, &requests.argv(&head, 0)) {
            self.long_value = Some(requests.take_last(SLOW_ARG_LEN_MAX));
        }
        self.lend_output(id);
        let mut watch = Stopwatch::start();
        let flow = self.run_one(id, &requests.argv(&head, 0), ready, &mut watch);
        watch.stop(&mut self.stats);
        if let Some(value) = self.long_value.take() {
            // It was refused, or it waits after all.
            requests.give_last(value);
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

    /// Whether this is a SET without options that runs here and now, and that nobody else looks at.
    fn may_keep(&mut self, id: ConnectionId, ready: Prepared, argv: &Argv<'_>) -> bool {
        let quiet = self.pause.is_none()
            && self.locks.is_idle()
            && self.shared.monitors.load(Ordering::Relaxed) == 0
            && argv.len() == 3
            && argv[2].len() <= self.env.string_len_max
            && ready.runs_here("SET");
        quiet
            && self.connection(id).is_some_and(|connection: &mut Connection| {
                connection.multi.is_none() && connection.reply_mode == ReplyMode::On
            })
    }

    /// SET of a value that is kept as it is, in the place of its handler; returns the reply's length and what follows.
    #[cold]
    pub(crate) fn set_long(&mut self, id: ConnectionId, key: &[u8], value: Vec<u8>) -> Ran {
        let Some((connection, ks, env)) = self.split(id) else { return Ran::Over(0, Flow::Pause) };
        let (db, proto) = (usize::from(connection.db), connection.proto);
        let before = connection.output.len();
        let out = ReplyWriter::new(&mut connection.output, proto);
        damselfly_commands::set_long(&mut Cx { ks, db, out, env, later: None }, key, value);
        let answered = connection.output.len() - before;
        self.after_command_of(Reader { core: self.id, id });
        Ran::Over(answered, Flow::Next)
    }
}

#[cfg(test)]
mod tests {
    use super::Bulky;

    /// Only a request that ends within its last argument, a long one, becomes one of these; what came behind it is
    /// given back.
    #[test]
    fn arrives_in_pieces() {
        let head = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$100000\r\n";
        let wanted = head.len() + 100_002;
        assert!(Bulky::of(&head[..head.len() - 1], wanted).is_none(), "the length is not known yet");
        assert!(Bulky::of(head, wanted - 1).is_none(), "the scanner wants something else");
        assert!(Bulky::of(b"*3\r\n$3\r\nSET\r\n$100000\r\nxx", wanted).is_none(), "there is one more");
        let short = b"*1\r\n$60000\r\n";
        assert!(Bulky::of(short, short.len() + 60_002).is_none());

        let mut bulky = Bulky::of(&[head.as_slice(), b"xyz"].concat(), wanted).expect("it is one");
        assert!(!bulky.is_complete());
        let buffer = bulky.buffer();
        buffer.resize(100_001, b'x');
        assert!(!bulky.is_complete());
        bulky.buffer().extend_from_slice(b"\nGET k");
        assert!(bulky.is_complete() && bulky.heap_bytes() >= 100_000);
        assert_eq!(bulky.take_rest(), b"GET k");
        assert_eq!((bulky.head.as_slice(), bulky.last.len()), (head.as_slice(), 100_000));
    }
}
