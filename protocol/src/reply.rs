//! The reply writer: answers appended to the connection's output bytes, in RESP2 or RESP3.
//!
//! Replies are written where they are made instead of being built as values first: a GET answered from the table
//! costs one copy of its bytes and nothing on the heap. The two protocol versions differ only in here, so a command
//! says "map of 3" and never asks which client it has.
//!
//! Invariants: every method but the ones that announce elements (`array`, `map`, `set`, `push`) appends one complete
//! reply; bytes already written are moved only by [`ReplyWriter::fill_array`] and its sisters.

use crate::number::{
    DECIMAL_LEN_MAX, DOUBLE_LEN_MAX, Decimal, PAIRS, fmt_double, fmt_double_17, write_u64_before,
};

/// The version of the protocol a connection speaks; HELLO changes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Proto {
    /// Arrays, bulk strings, integers, simple strings, errors.
    #[default]
    Resp2,
    /// Adds maps, sets, doubles, booleans, null, pushes, verbatim strings, big numbers.
    Resp3,
}

/// Replies so frequent that they are worth a name, for callers that keep ready-made bytes.
pub const OK: &[u8] = b"+OK\r\n";
/// The answer to PING.
pub const PONG: &[u8] = b"+PONG\r\n";
/// The answer to a command inside MULTI.
pub const QUEUED: &[u8] = b"+QUEUED\r\n";
/// RESP2's missing string.
pub const NULL_BULK: &[u8] = b"$-1\r\n";
/// RESP2's missing array.
pub const NULL_ARRAY: &[u8] = b"*-1\r\n";
/// RESP3's missing anything.
pub const NULL: &[u8] = b"_\r\n";

/// A header whose count was not known yet. Must be given back to the writer of the same output.
#[derive(Debug)]
#[must_use = "the output is not a valid reply until the header is filled in"]
pub struct Deferred {
    at: usize,
    reserved: usize,
}

/// Stands in a reserved header until it is filled: no reply byte is ever 0xFF in a header, so filling in the wrong
/// order, which would leave this where it does not belong, is caught.
const UNFILLED: u8 = 0xFF;

/// Bytes of a string that is written without a call.
const SHORT_BULK_MAX: usize = 32;

/// Marker, 20 digits, CR LF.
const HEADER_LEN_MAX: usize = DECIMAL_LEN_MAX + 3;

/// Appends replies to `out`. Cheap to make: one per command or one per batch, as it suits.
#[derive(Debug)]
pub struct ReplyWriter<'a> {
    out: &'a mut Vec<u8>,
    proto: Proto,
}

impl<'a> ReplyWriter<'a> {
    /// A writer that appends to `out`.
    #[inline]
    pub fn new(out: &'a mut Vec<u8>, proto: Proto) -> ReplyWriter<'a> {
        ReplyWriter { out, proto }
    }

    /// The protocol version in use.
    #[inline]
    pub fn proto(&self) -> Proto {
        self.proto
    }

    /// Switches the version, as HELLO does before its own answer.
    #[inline]
    pub fn set_proto(&mut self, proto: Proto) {
        self.proto = proto;
    }

    /// How much output there is, to measure or to [`ReplyWriter::truncate`] what a command has written.
    #[inline]
    pub fn len(&self) -> usize {
        self.out.len()
    }

    /// Whether nothing has been written to the output.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// Takes back all output behind `len`, for a command that fails in the middle of its answer.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        self.out.truncate(len);
    }

    /// Appends bytes that are a complete reply already.
    #[inline]
    pub fn raw(&mut self, reply: &[u8]) {
        self.out.extend_from_slice(reply);
    }

    /// `+OK`
    #[inline]
    pub fn ok(&mut self) {
        self.out.extend_from_slice(OK);
    }

    /// `+PONG`
    #[inline]
    pub fn pong(&mut self) {
        self.out.extend_from_slice(PONG);
    }

    /// `+QUEUED`
    #[inline]
    pub fn queued(&mut self) {
        self.out.extend_from_slice(QUEUED);
    }

    /// A status such as `+string`.
    #[inline]
    pub fn simple(&mut self, text: &str) {
        self.line(b'+', text.as_bytes());
    }

    /// An error; `text` begins with its code (`ERR ...`, `WRONGTYPE ...`). Bytes, since errors quote the client.
    #[inline]
    pub fn error(&mut self, text: impl AsRef<[u8]>) {
        self.line(b'-', text.as_ref());
    }

    /// An integer.
    #[inline]
    pub fn int(&mut self, number: i64) {
        if (0..10_000).contains(&number) {
            return self.header(b':', number as usize);
        }
        write_line(self.out, b':', number < 0, number.unsigned_abs());
    }

    /// A string.
    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        match bytes.len() {
            4..8 => self.short_bulk::<4>(bytes),
            8..16 => self.short_bulk::<8>(bytes),
            16..=SHORT_BULK_MAX => self.short_bulk::<16>(bytes),
            _ => {
                self.out.reserve(bytes.len() + HEADER_LEN_MAX + 2);
                self.header(b'$', bytes.len());
                self.out.extend_from_slice(bytes);
                self.out.extend_from_slice(b"\r\n");
            }
        }
    }

    /// A string of `N` to twice as many bytes, copied as its first and its last `N`, which may overlap: without a call,
    /// and with room asked for once.
    #[inline(always)]
    fn short_bulk<const N: usize>(&mut self, bytes: &[u8]) {
        const ROOM: usize = 8 + SHORT_BULK_MAX + 2;
        let (len, start) = (bytes.len(), self.out.len());
        let (Some(first), Some(last)) = (bytes.first_chunk::<N>(), bytes.last_chunk::<N>()) else {
            unreachable!("{len} bytes are at least {N}")
        };
        self.out.extend_from_slice(&[0; ROOM]);
        let Some(line) = self.out[start..].first_chunk_mut::<ROOM>() else {
            unreachable!("{ROOM} bytes were just put there")
        };
        let [tens, ones] = PAIRS[len];
        let at = if len < 10 {
            line[..4].copy_from_slice(&[b'$', ones, b'\r', b'\n']);
            4
        } else {
            line[..5].copy_from_slice(&[b'$', tens, ones, b'\r', b'\n']);
            5
        };
        line[at..at + N].copy_from_slice(first);
        line[at + len - N..at + len].copy_from_slice(last);
        line[at + len..at + len + 2].copy_from_slice(b"\r\n");
        self.out.truncate(start + at + len + 2);
    }

    /// The beginning of a string of so many bytes. They and a line's end are to follow.
    #[inline]
    pub fn bulk_head(&mut self, len: usize) {
        self.header(b'$', len);
    }

    /// An integer as a string, as stored counters are answered.
    #[inline]
    pub fn bulk_int(&mut self, number: i64) {
        self.bulk(Decimal::new(number).as_bytes());
    }

    /// A missing value.
    #[inline]
    pub fn null(&mut self) {
        self.out.extend_from_slice(match self.proto {
            Proto::Resp2 => NULL_BULK,
            Proto::Resp3 => NULL,
        });
    }

    /// A missing array: a timed-out BLPOP, an EXEC that WATCH stopped.
    #[inline]
    pub fn null_array(&mut self) {
        self.out.extend_from_slice(match self.proto {
            Proto::Resp2 => NULL_ARRAY,
            Proto::Resp3 => NULL,
        });
    }

    /// Announces an array; `len` replies follow.
    #[inline]
    pub fn array(&mut self, len: usize) {
        self.header(b'*', len);
    }

    /// Announces a map; `len` keys and values follow, alternating. In RESP2 a flat array.
    #[inline]
    pub fn map(&mut self, len: usize) {
        let (marker, len) = Aggregate::Map.header(self.proto, len);
        self.header(marker, len);
    }

    /// Announces a set; `len` replies follow. In RESP2 an array.
    #[inline]
    pub fn set(&mut self, len: usize) {
        let (marker, len) = Aggregate::Set.header(self.proto, len);
        self.header(marker, len);
    }

    /// Announces a message that answers no request; `len` replies follow. In RESP2 an array, told apart by the
    /// client's being in subscribed mode.
    #[inline]
    pub fn push(&mut self, len: usize) {
        let (marker, len) = Aggregate::Push.header(self.proto, len);
        self.header(marker, len);
    }

    /// A double, as Redis up to 7.0 prints them; in RESP2 as a string.
    #[inline]
    pub fn double(&mut self, number: f64) {
        let mut buf = [0; DOUBLE_LEN_MAX];
        let text = fmt_double_17(number, &mut buf).as_bytes();
        match self.proto {
            Proto::Resp2 => self.bulk(text),
            Proto::Resp3 => self.line(b',', text),
        }
    }

    /// A double with the fewest digits that read back as it, as modules print theirs; in RESP2 as a string.
    pub fn shortest_double(&mut self, number: f64) {
        let mut buf = [0; DOUBLE_LEN_MAX];
        let text = fmt_double(number, &mut buf).as_bytes();
        match self.proto {
            Proto::Resp2 => self.bulk(text),
            Proto::Resp3 => self.line(b',', text),
        }
    }

    /// A boolean; in RESP2 the integer 1 or 0.
    #[inline]
    pub fn bool(&mut self, value: bool) {
        self.out.extend_from_slice(match (self.proto, value) {
            (Proto::Resp2, true) => b":1\r\n",
            (Proto::Resp2, false) => b":0\r\n",
            (Proto::Resp3, true) => b"#t\r\n",
            (Proto::Resp3, false) => b"#f\r\n",
        });
    }

    /// Text meant for people, such as INFO's; `format` is `txt` or `mkd`. In RESP2 a plain string.
    pub fn verbatim(&mut self, format: &str, text: &[u8]) {
        assert_eq!(format.len(), 3, "a verbatim string's format has three letters");
        if self.proto == Proto::Resp2 {
            return self.bulk(text);
        }
        self.header(b'=', text.len() + 4);
        self.out.extend_from_slice(format.as_bytes());
        self.out.extend_from_slice(b":");
        self.out.extend_from_slice(text);
        self.out.extend_from_slice(b"\r\n");
    }

    /// An integer of any size, given as its digits. In RESP2 a string.
    pub fn big_number(&mut self, digits: &str) {
        match self.proto {
            Proto::Resp2 => self.bulk(digits.as_bytes()),
            Proto::Resp3 => self.line(b'(', digits.as_bytes()),
        }
    }

    /// Leaves room for the header of an aggregate whose length shows only at its end. `likely` is a guess of the
    /// length: if its header takes as many bytes as the right one, filling in costs nothing; otherwise what was
    /// written since is moved by the difference, once. Clients compare bytes, so padding is no way out.
    ///
    /// Nested ones must be filled innermost first.
    pub fn deferred(&mut self, likely: usize) -> Deferred {
        let at = self.out.len();
        // Marker, digits, CR, LF.
        let reserved = Decimal::new_unsigned(likely as u64).as_bytes().len() + 3;
        self.out.resize(at + reserved, UNFILLED);
        Deferred { at, reserved }
    }

    /// The deferred aggregate is an array of `len`.
    pub fn fill_array(&mut self, deferred: Deferred, len: usize) {
        self.fill(deferred, (b'*', len));
    }

    /// The deferred aggregate is a map of `len` pairs.
    pub fn fill_map(&mut self, deferred: Deferred, len: usize) {
        self.fill(deferred, Aggregate::Map.header(self.proto, len));
    }

    /// The deferred aggregate is a set of `len`.
    pub fn fill_set(&mut self, deferred: Deferred, len: usize) {
        self.fill(deferred, Aggregate::Set.header(self.proto, len));
    }

    fn fill(&mut self, Deferred { at, reserved }: Deferred, (marker, len): (u8, usize)) {
        assert!(
            self.out[at..at + reserved].iter().all(|b| *b == UNFILLED),
            "deferred headers are filled innermost first"
        );
        let digits = Decimal::new_unsigned(len as u64);
        let header = [&[marker], digits.as_bytes(), b"\r\n"].concat();
        self.out.splice(at..at + reserved, header);
    }

    /// `<marker><len>\r\n`
    #[inline]
    fn header(&mut self, marker: u8, len: usize) {
        if len < 10 {
            self.out.extend_from_slice(&[marker, b'0' + len as u8, b'\r', b'\n']);
        } else if len < 100 {
            let [tens, ones] = PAIRS[len];
            self.out.extend_from_slice(&[marker, tens, ones, b'\r', b'\n']);
        } else if len < 10_000 {
            // Up to eight bytes, put together in a register and stored at once; the surplus is cut off.
            let [high, low] = [PAIRS[len / 100], PAIRS[len % 100]].map(u16::from_le_bytes);
            let missing = 8 * u32::from(len < 1000);
            let digits = (u64::from(low) << 16 | u64::from(high)) >> missing;
            let end = u64::from(u16::from_le_bytes(*b"\r\n")) << (40 - missing);
            let line = end | digits << 8 | u64::from(marker);
            let start = self.out.len();
            self.out.extend_from_slice(&line.to_le_bytes());
            self.out.truncate(start + 7 - (missing / 8) as usize);
        } else {
            write_line(self.out, marker, false, len as u64);
        }
    }

    /// A marker, text and an end. A line break inside would end the reply early and let whoever chose the text write
    /// the next one; it becomes a space.
    #[inline]
    fn line(&mut self, marker: u8, text: &[u8]) {
        self.out.reserve(text.len() + 3);
        self.out.push(marker);
        let start = self.out.len();
        self.out.extend_from_slice(text);
        for byte in &mut self.out[start..] {
            // Written in both cases, or the compiler cannot do sixteen at a time.
            *byte = if matches!(*byte, b'\r' | b'\n') { b' ' } else { *byte };
        }
        self.out.extend_from_slice(b"\r\n");
    }
}

/// The aggregates that RESP2 does not have.
#[derive(Clone, Copy)]
enum Aggregate {
    Map,
    Set,
    Push,
}

impl Aggregate {
    #[inline]
    fn header(self, proto: Proto, len: usize) -> (u8, usize) {
        match (proto, self) {
            (Proto::Resp2, Aggregate::Map) => (b'*', len * 2),
            (Proto::Resp2, Aggregate::Set | Aggregate::Push) => (b'*', len),
            (Proto::Resp3, Aggregate::Map) => (b'%', len),
            (Proto::Resp3, Aggregate::Set) => (b'~', len),
            (Proto::Resp3, Aggregate::Push) => (b'>', len),
        }
    }
}

/// `<marker><number>\r\n`. The digits are written where they stay: collected on the stack first, they would be read
/// back in wider pieces than they were stored, which the processor must wait for (11 ns against 8.5 for 7 digits).
#[inline]
fn write_line(out: &mut Vec<u8>, marker: u8, negative: bool, magnitude: u64) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_LEN_MAX]);
    let line = &mut out[start..];
    line[0] = marker;
    line[1] = b'-';
    let end = 2 + usize::from(negative) + magnitude.checked_ilog10().unwrap_or(0) as usize;
    write_u64_before(line, end, magnitude);
    line[end] = b'\r';
    line[end + 1] = b'\n';
    out.truncate(start + end + 2);
}
