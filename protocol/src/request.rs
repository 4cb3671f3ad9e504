//! The request scanner: finds the requests in what a stranger sent. Our own, because a general RESP decoder trusts
//! declared lengths and recurses, and this is the first code that untrusted bytes meet.
//!
//! A request is either an array of bulk strings, one level deep, or an inline line:
//!
//! ```text
//!   *2 CR LF $3 CR LF G E T CR LF $1 CR LF k CR LF          GET k CR LF
//!   ^ count  ^ length ^^^^^ span           ^ span           ^^^   ^ spans
//! ```
//!
//! Arguments are not copied: a [`Span`] is a byte range of the caller's buffer. Only inline arguments with quotes or
//! escapes differ from their bytes, and those go to a side buffer inside [`Requests`].
//!
//! Three promises, each held by a test:
//! - How the bytes were cut into packets never shows: any split gives the same requests and the same error.
//! - Nothing is scanned twice at a cost that grows: [`Scanner::wanted`] makes a call with too few new bytes return at
//!   once, and a request of more than [`RESCAN_ARGS_MAX`] arguments keeps what was found.
//! - Memory follows the bytes that arrived, never a length that was merely declared.
//!
//! Behaviour at the edges (empty lines, `*-1`, which byte ends a length, the texts of errors) is redis-server 7.0's,
//! compared over a socket. One deliberate difference: Redis searches lines as C strings and waits for ever behind a
//! NUL byte; here NUL is a byte like any other.

use crate::limits::{
    LINE_LEN_MAX, Limits, REQUEST_LEN_MAX, SPAN_OFFSET_MAX, UNAUTHENTICATED_BULK_LEN_MAX,
    UNAUTHENTICATED_MULTIBULK_LEN_MAX,
};
use crate::number::parse_i64;

/// An incomplete request with at most this many finished arguments is scanned again from its start when more bytes
/// arrive: 16 arguments take about as long as the allocation that would remember them, and nearly every request is
/// that short.
pub const RESCAN_ARGS_MAX: usize = 16;

/// Spans kept allocated by [`Requests::clear`] (32 KiB). A request of a million arguments needs 8 MiB for a moment
/// and must not leave them behind.
const SPANS_KEPT_MAX: usize = 4096;

/// Bytes of unescaped inline arguments kept allocated by [`Requests::clear`].
const SIDE_KEPT_MAX: usize = 4096;

/// Marks spans of the side buffer, in `start`.
const SIDE: u32 = 1 << 31;

/// Where one argument is: a byte range of the scanned buffer, or of the side buffer if the argument was unescaped.
/// Read it through [`Requests::argv`] or [`Requests::arg`], which know the difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    #[inline]
    fn new(start: usize, end: usize) -> Span {
        debug_assert!(start <= end && end <= SPAN_OFFSET_MAX);
        Span { start: start as u32, end: end as u32 }
    }

    #[inline]
    fn in_side(start: usize, end: usize) -> Span {
        let span = Span::new(start, end);
        Span { start: span.start | SIDE, end: span.end }
    }

    /// The argument's length in bytes.
    #[inline]
    pub fn len(self) -> usize {
        (self.end - (self.start & !SIDE)) as usize
    }

    /// Whether the argument is the empty string.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// The range of the scanned buffer, so that a caller can hand on the buffer itself instead of a copy; `None` if
    /// the bytes are not there because they were unescaped.
    #[inline]
    pub fn in_buffer(self) -> Option<std::ops::Range<usize>> {
        (self.start & SIDE == 0).then_some(self.start as usize..self.end as usize)
    }

    #[inline]
    fn of<'a>(self, buf: &'a [u8], side: &'a [u8]) -> &'a [u8] {
        if self.start & SIDE == 0 {
            &buf[self.start as usize..self.end as usize]
        } else {
            &side[(self.start & !SIDE) as usize..self.end as usize]
        }
    }
}

/// The complete requests of one [`Scanner::scan`], reused from scan to scan. Every request has at least one argument.
#[derive(Default, Debug)]
pub struct Requests {
    spans: Vec<Span>,
    /// `ends[i]` is one past the last span of request `i`.
    ends: Vec<u32>,
    side: Vec<u8>,
    /// Of a joined request: the place of the argument in a buffer of its own.
    apart: usize,
}

impl Requests {
    /// An empty list; allocates on first use.
    pub fn new() -> Requests {
        Requests::default()
    }

    /// Forgets the requests and keeps a modest part of the memory.
    pub fn clear(&mut self) {
        self.spans.clear();
        self.ends.clear();
        self.side.clear();
        if self.spans.capacity() > SPANS_KEPT_MAX {
            self.spans.shrink_to(SPANS_KEPT_MAX);
        }
        if self.ends.capacity() > SPANS_KEPT_MAX {
            self.ends.shrink_to(SPANS_KEPT_MAX);
        }
        if self.side.capacity() > SIDE_KEPT_MAX {
            self.side.shrink_to(SIDE_KEPT_MAX);
        }
    }

    /// How many requests there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether the scan found no complete request.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The spans of request `i`, name first.
    #[inline]
    pub fn spans(&self, i: usize) -> &[Span] {
        let first = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        &self.spans[first..self.ends[i] as usize]
    }

    /// Request `i` with its bytes; `buf` is what was given to the scan.
    #[inline]
    pub fn argv<'a>(&'a self, buf: &'a [u8], i: usize) -> Argv<'a> {
        Argv { buf, side: &self.side, spans: self.spans(i) }
    }

    /// Argument `j` of request `i`; `buf` is what was given to the scan.
    #[inline]
    pub fn arg<'a>(&'a self, buf: &'a [u8], i: usize, j: usize) -> &'a [u8] {
        self.spans(i)[j].of(buf, &self.side)
    }

    /// Bytes this list keeps allocated, for the memory account of whoever owns it.
    pub fn allocated(&self) -> usize {
        self.spans.capacity() * size_of::<Span>()
            + self.ends.capacity() * size_of::<u32>()
            + self.side.capacity()
    }

    /// Makes this the list of one request: all of it as it came but for one argument, which is then the buffer to read
    /// the list with, and that argument in a buffer of its own. The first `start` bytes of `rest` are what
    /// [`unfinished`] has said to end where the argument begins; behind them are the arguments behind it, which
    /// [`complete`] has found.
    pub fn join(&mut self, rest: &[u8], start: usize, apart: Vec<u8>) {
        self.clear();
        let found = arguments_before(&rest[..start], &mut self.spans).filter(|found| found.start == start);
        let behind = found.expect("the head of an unfinished request").behind;
        self.apart = self.spans.len();
        self.spans.push(Span::in_side(0, apart.len()));
        self.side = apart;
        let end = plain_arguments(rest, start, behind, |span| self.spans.push(span));
        assert_eq!(end, Some(rest.len()), "all arguments behind it are there");
        self.close_request();
    }

    /// Of a joined request, the place of the argument in a buffer of its own.
    pub fn apart(&self) -> usize {
        self.apart
    }

    /// Takes the argument that was given to [`Requests::join`] away again, but for its first bytes.
    pub fn take_apart(&mut self, left: usize) -> Vec<u8> {
        let left = self.side[..left.min(self.side.len())].to_vec();
        let apart = std::mem::take(&mut self.side);
        self.give_apart(left);
        apart
    }

    /// Puts it back.
    pub fn give_apart(&mut self, apart: Vec<u8>) {
        self.spans[self.apart] = Span::in_side(0, apart.len());
        self.side = apart;
    }

    #[inline]
    fn close_request(&mut self) {
        self.ends.push(self.spans.len() as u32);
    }

    /// Adds a copy of a request: its bytes go to the end of `to`, which is then the buffer to read this list with.
    /// This is how requests travel to another thread. False, and nothing added, if `to` would outgrow what a span
    /// can address.
    pub fn push_copy<'a>(&mut self, to: &mut Vec<u8>, args: impl Iterator<Item = &'a [u8]> + Clone) -> bool {
        let len: usize = args.clone().map(<[u8]>::len).sum();
        if to.len().saturating_add(len) > SPAN_OFFSET_MAX {
            return false;
        }
        for arg in args {
            let start = to.len();
            to.extend_from_slice(arg);
            self.spans.push(Span::new(start, to.len()));
        }
        self.close_request();
        true
    }
}

/// The arguments of one request, the command's name included. Never empty when it comes from [`Requests::argv`].
#[derive(Clone, Copy, Debug)]
pub struct Argv<'a> {
    buf: &'a [u8],
    side: &'a [u8],
    spans: &'a [Span],
}

impl<'a> Argv<'a> {
    /// How many arguments there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether all arguments were taken by [`Argv::split_first`].
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Argument `j`, if there are that many.
    #[inline]
    pub fn get(&self, j: usize) -> Option<&'a [u8]> {
        self.spans.get(j).map(|span| span.of(self.buf, self.side))
    }

    /// The first argument and the others, as handlers take their arguments one by one.
    #[inline]
    pub fn split_first(&self) -> Option<(&'a [u8], Argv<'a>)> {
        let (first, rest) = self.spans.split_first()?;
        Some((first.of(self.buf, self.side), Argv { spans: rest, ..*self }))
    }

    /// The first `count` arguments, or all if they are fewer, and the others.
    #[inline]
    pub fn split_at(&self, count: usize) -> (Argv<'a>, Argv<'a>) {
        let (first, rest) = self.spans.split_at(count.min(self.spans.len()));
        (Argv { spans: first, ..*self }, Argv { spans: rest, ..*self })
    }

    /// All arguments in order.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + DoubleEndedIterator + Clone + use<'a> {
        let Argv { buf, side, spans } = *self;
        spans.iter().map(move |span| span.of(buf, side))
    }

    /// The spans behind the arguments.
    #[inline]
    pub fn spans(&self) -> &'a [Span] {
        self.spans
    }
}

impl std::ops::Index<usize> for Argv<'_> {
    type Output = [u8];

    #[inline]
    fn index(&self, j: usize) -> &[u8] {
        self.spans[j].of(self.buf, self.side)
    }
}

/// Why a stream of requests cannot be read on. Answered with [`ProtocolError::write_reply`], then the connection is
/// closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// The count behind `*` is not an integer as Redis writes them, or over the limit.
    InvalidMultibulkLength,
    /// The length behind `$` is not an integer as Redis writes them, negative, or over the limit.
    InvalidBulkLength,
    /// An argument begins with this byte instead of `$`.
    ExpectedDollar(u8),
    /// No end of line within the longest line, behind `*`.
    TooBigMultibulkCount,
    /// No end of line within the longest line, behind `$`.
    TooBigBulkCount,
    /// No end of line within the longest inline request.
    TooBigInline,
    /// An inline request whose quotes do not close, or with text right behind a closing quote.
    UnbalancedQuotes,
    /// More arguments than somebody may send before AUTH.
    UnauthenticatedMultibulkLength,
    /// A longer argument than somebody may send before AUTH.
    UnauthenticatedBulkLength,
    /// The whole request would exceed the query buffer. Redis closes without a word here; a reason costs nothing.
    RequestTooBig,
}

impl ProtocolError {
    /// The text behind `Protocol error: `, but for the byte that [`ProtocolError::ExpectedDollar`] adds.
    fn text(self) -> &'static str {
        match self {
            ProtocolError::InvalidMultibulkLength => "invalid multibulk length",
            ProtocolError::InvalidBulkLength => "invalid bulk length",
            ProtocolError::ExpectedDollar(_) => "expected '$', got '",
            ProtocolError::TooBigMultibulkCount => "too big mbulk count string",
            ProtocolError::TooBigBulkCount => "too big bulk count string",
            ProtocolError::TooBigInline => "too big inline request",
            ProtocolError::UnbalancedQuotes => "unbalanced quotes in request",
            ProtocolError::UnauthenticatedMultibulkLength => "unauthenticated multibulk length",
            ProtocolError::UnauthenticatedBulkLength => "unauthenticated bulk length",
            ProtocolError::RequestTooBig => "too big request",
        }
    }

    /// Appends the complete error reply, byte for byte Redis'. Not through `Display`: the byte in "got 'x'" is the
    /// client's and need not be text.
    pub fn write_reply(self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"-ERR Protocol error: ");
        out.extend_from_slice(self.text().as_bytes());
        if let ProtocolError::ExpectedDollar(byte) = self {
            // A line break inside an error would end it, so Redis prints spaces.
            let byte = if matches!(byte, b'\r' | b'\n') { b' ' } else { byte };
            out.extend_from_slice(&[byte, b'\'']);
        }
        out.extend_from_slice(b"\r\n");
    }
}

impl std::fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Protocol error: {}", self.text())?;
        if let ProtocolError::ExpectedDollar(byte) = self {
            write!(f, "{}'", byte.escape_ascii())?;
        }
        Ok(())
    }
}

impl std::error::Error for ProtocolError {}

/// What one scan did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Bytes that belong to the requests found, and to empty ones skipped before, between and after them. The caller
    /// drops them once the requests were run, and puts the rest at the start of the next call's buffer.
    pub consumed: usize,
    /// The first offence; the requests before it are good and are to be run first.
    pub error: Option<ProtocolError>,
}

/// Progress inside a long incomplete request; offsets count from the request's `*`.
#[derive(Debug)]
struct Pending {
    spans: Vec<Span>,
    /// Where the first argument not in `spans` begins.
    at: usize,
    /// Arguments still to come.
    missing: u32,
}

/// What a connection remembers between reads: 16 bytes, and a box only while a request of many arguments is
/// incomplete.
#[derive(Default, Debug)]
pub struct Scanner {
    /// Less than this many bytes, and scanning again cannot find anything new.
    wanted: u32,
    /// The unfinished line was searched for its end up to here. Only ever applies to the one line that is unfinished.
    searched: u32,
    pending: Option<Box<Pending>>,
}

/// How an attempt at one request ended.
enum Step {
    /// A request was added, or an empty one skipped; the next begins at this offset.
    Next(usize),
    /// Not complete before the buffer has this many bytes.
    Wanted(usize),
}

/// The limits of one scan, cut to what spans can address and widened to the types they are compared in.
#[derive(Clone, Copy)]
struct Bounds {
    multibulk_len: i64,
    bulk_len: i64,
    line_len: usize,
    request_len: usize,
    authenticated: bool,
}

impl Bounds {
    #[inline]
    fn new(limits: &Limits, authenticated: bool) -> Bounds {
        Bounds {
            multibulk_len: i64::from(limits.max_multibulk_len),
            bulk_len: i64::from(limits.max_bulk_len),
            line_len: (limits.max_inline_len as usize).min(LINE_LEN_MAX),
            request_len: (limits.max_request_len as usize).min(REQUEST_LEN_MAX),
            authenticated,
        }
    }

    /// Order and texts as Redis: a bad number first, then what strangers may not.
    #[inline]
    fn check_multibulk_len(&self, len: Option<i64>) -> Result<i64, ProtocolError> {
        match len {
            Some(len) if len > self.multibulk_len => Err(ProtocolError::InvalidMultibulkLength),
            Some(len) if len > UNAUTHENTICATED_MULTIBULK_LEN_MAX && !self.authenticated => {
                Err(ProtocolError::UnauthenticatedMultibulkLength)
            }
            Some(len) => Ok(len),
            None => Err(ProtocolError::InvalidMultibulkLength),
        }
    }

    #[inline]
    fn check_bulk_len(&self, len: Option<i64>) -> Result<usize, ProtocolError> {
        match len {
            Some(len) if len < 0 || len > self.bulk_len => Err(ProtocolError::InvalidBulkLength),
            Some(len) if len > UNAUTHENTICATED_BULK_LEN_MAX && !self.authenticated => {
                Err(ProtocolError::UnauthenticatedBulkLength)
            }
            Some(len) => Ok(len as usize),
            None => Err(ProtocolError::InvalidBulkLength),
        }
    }
}

impl Scanner {
    /// A scanner at the start of a stream.
    pub fn new() -> Scanner {
        Scanner::default()
    }

    /// How long the unconsumed rest must grow, at least, before another scan can find anything; 0 when nothing is
    /// unfinished. A caller may use it to skip calls and to judge whether a large buffer is worth growing, but must
    /// grow it as bytes arrive: it is a stranger's promise.
    #[inline]
    pub fn wanted(&self) -> usize {
        self.wanted as usize
    }

    /// Finds up to `max_requests` complete requests at the start of `buf` and puts them into `out` in place of what
    /// was there. Each call's `buf` begins where the last one's `consumed` ended, with the same bytes and perhaps more.
    ///
    /// Before authentication one request is returned at a time, since that request may be the AUTH that lifts the
    /// limits for the next. After an error the scanner is at its end.
    pub fn scan(
        &mut self,
        buf: &[u8],
        out: &mut Requests,
        max_requests: usize,
        limits: &Limits,
        authenticated: bool,
    ) -> Scan {
        out.clear();
        if buf.len() < self.wanted as usize {
            return Scan { consumed: 0, error: None };
        }
        let buf = &buf[..buf.len().min(SPAN_OFFSET_MAX)];
        let max_requests = if authenticated { max_requests } else { max_requests.min(1) };
        let bounds = Bounds::new(limits, authenticated);
        let mut at = 0;
        while at < buf.len() && out.len() < max_requests {
            let step = if let Some(pending) = self.pending.take() {
                self.resume(pending, buf, out, &bounds)
            } else if buf[at] == b'*' {
                self.multibulk(buf, at, out, &bounds)
            } else {
                self.inline(buf, at, out, &bounds)
            };
            match step {
                Ok(Step::Next(next)) => {
                    at = next;
                    self.searched = 0;
                    self.wanted = 0;
                }
                Ok(Step::Wanted(len)) => {
                    self.wanted = (len - at) as u32;
                    return Scan { consumed: at, error: None };
                }
                Err(error) => return Scan { consumed: at, error: Some(error) },
            }
        }
        Scan { consumed: at, error: None }
    }

    /// An array of bulk strings whose `*` is at `start`.
    #[inline]
    fn multibulk(
        &mut self,
        buf: &[u8],
        start: usize,
        out: &mut Requests,
        bounds: &Bounds,
    ) -> Result<Step, ProtocolError> {
        let (count, mut at) = match short_length(buf, start) {
            Some((len, next)) => (bounds.check_multibulk_len(Some(len))?, next),
            None => match self.line(buf, start, start, bounds, ProtocolError::TooBigMultibulkCount)? {
                Line::At(end) => (bounds.check_multibulk_len(parse_i64(&buf[start + 1..end]))?, end + 2),
                Line::Wanted(len) => return Ok(Step::Wanted(len)),
            },
        };
        if count <= 0 {
            return Ok(Step::Next(at));
        }
        // At most `multibulk_len`, which is a u32.
        let count = count as u32;
        let first = out.spans.len();
        let mut missing = count;
        match self.arguments(buf, start, &mut at, &mut missing, &mut out.spans, bounds) {
            Ok(None) => {
                out.close_request();
                Ok(Step::Next(at))
            }
            Ok(Some(wanted)) => {
                if out.spans.len() - first > RESCAN_ARGS_MAX {
                    let base = start as u32;
                    let spans = out.spans[first..]
                        .iter()
                        .map(|span| Span { start: span.start - base, end: span.end - base })
                        .collect();
                    self.pending = Some(Box::new(Pending { spans, at: at - start, missing }));
                }
                out.spans.truncate(first);
                Ok(Step::Wanted(wanted))
            }
            Err(error) => {
                out.spans.truncate(first);
                Err(error)
            }
        }
    }

    /// Goes on with the request that the last scan left unfinished; it begins at offset 0 by now.
    #[cold]
    fn resume(
        &mut self,
        mut pending: Box<Pending>,
        buf: &[u8],
        out: &mut Requests,
        bounds: &Bounds,
    ) -> Result<Step, ProtocolError> {
        debug_assert!(out.spans.is_empty());
        let Pending { spans, at, missing } = &mut *pending;
        match self.arguments(buf, 0, at, missing, spans, bounds)? {
            None => {
                let next = *at;
                std::mem::swap(spans, &mut out.spans);
                out.close_request();
                Ok(Step::Next(next))
            }
            Some(wanted) => {
                self.pending = Some(pending);
                Ok(Step::Wanted(wanted))
            }
        }
    }

    /// Adds arguments from `at` on until none is missing (`None`) or the bytes end (how many are wanted). `at` is
    /// left behind the last argument added.
    #[inline]
    fn arguments(
        &mut self,
        buf: &[u8],
        start: usize,
        at: &mut usize,
        missing: &mut u32,
        spans: &mut Vec<Span>,
        bounds: &Bounds,
    ) -> Result<Option<usize>, ProtocolError> {
        while *missing > 0 {
            let (len, data) = match short_length(buf, *at) {
                Some((len, next)) if buf[*at] == b'$' => (bounds.check_bulk_len(Some(len))?, next),
                _ => match self.line(buf, start, *at, bounds, ProtocolError::TooBigBulkCount)? {
                    Line::At(_) if buf[*at] != b'$' => return Err(ProtocolError::ExpectedDollar(buf[*at])),
                    Line::At(end) => (bounds.check_bulk_len(parse_i64(&buf[*at + 1..end]))?, end + 2),
                    Line::Wanted(len) => return Ok(Some(len)),
                },
            };
            // The two bytes behind the data are not looked at; Redis does not either.
            let end = data + len;
            if end + 2 - start > bounds.request_len {
                return Err(ProtocolError::RequestTooBig);
            }
            if end + 2 > buf.len() {
                return Ok(Some(end + 2));
            }
            spans.push(Span::new(data, end));
            *at = end + 2;
            *missing -= 1;
        }
        Ok(None)
    }

    /// The line from `at` on ends at the first CR that has a byte behind it; which byte, Redis does not check.
    #[cold]
    fn line(
        &mut self,
        buf: &[u8],
        start: usize,
        at: usize,
        bounds: &Bounds,
        too_long: ProtocolError,
    ) -> Result<Line, ProtocolError> {
        match self.find(b'\r', buf, start, at, bounds, too_long)? {
            Line::At(end) if end + 1 >= buf.len() => Ok(Line::Wanted(end + 2)),
            found => Ok(found),
        }
    }

    /// The first `byte` at or behind `at`, in a request that begins at `start`. A line longer than the limit is
    /// refused even if its end has arrived, or the answer would depend on how the bytes were cut.
    fn find(
        &mut self,
        byte: u8,
        buf: &[u8],
        start: usize,
        at: usize,
        bounds: &Bounds,
        too_long: ProtocolError,
    ) -> Result<Line, ProtocolError> {
        let window = &buf[at..buf.len().min(at + bounds.line_len + 1)];
        // A good length is found in the first piece. What `searched` says is true of the unfinished line alone, and
        // only a line longer than any length can be that one for certain.
        let (head, tail) = window.split_at(window.len().min(LENGTH_LINE_LEN_MAX));
        let skipped = (start + self.searched as usize).saturating_sub(at + head.len()).min(tail.len());
        let found = head
            .iter()
            .position(|b| *b == byte)
            .or_else(|| tail[skipped..].iter().position(|b| *b == byte).map(|i| head.len() + skipped + i));
        match found {
            Some(i) => Ok(Line::At(at + i)),
            None if buf.len() - at > bounds.line_len => Err(too_long),
            None => {
                self.searched = (buf.len() - start) as u32;
                Ok(Line::Wanted(buf.len() + 1))
            }
        }
    }

    /// A line of words: up to LF, without the one CR before it.
    #[cold]
    fn inline(
        &mut self,
        buf: &[u8],
        start: usize,
        out: &mut Requests,
        bounds: &Bounds,
    ) -> Result<Step, ProtocolError> {
        let end = match self.find(b'\n', buf, start, start, bounds, ProtocolError::TooBigInline)? {
            Line::At(end) => end,
            Line::Wanted(len) => return Ok(Step::Wanted(len)),
        };
        let first = out.spans.len();
        let text_end = if end > start && buf[end - 1] == b'\r' { end - 1 } else { end };
        if split_words(buf, start, text_end, out).is_none() {
            out.spans.truncate(first);
            return Err(ProtocolError::UnbalancedQuotes);
        }
        if out.spans.len() > first {
            out.close_request();
        }
        Ok(Step::Next(end + 1))
    }
}

/// Longer than any length that is accepted: sign or marker, 19 digits, CR, LF, and room to spare.
const LENGTH_LINE_LEN_MAX: usize = 32;

/// Where a line ends, or how many bytes it takes to know.
enum Line {
    At(usize),
    Wanted(usize),
}

/// Reads `?<digits>\r?` at `at` if it is plainly good: one to five digits, no leading zero, eight bytes at hand. All
/// other cases, bad ones among them, are the slow path's to judge. Gives the number and the offset behind the line.
/// A branch per digit, because the branches are predicted: finding the CR and converting eight bytes at once in a
/// register took 7 to 12 ns per argument where this takes 5 to 7.
#[inline(always)]
fn short_length(buf: &[u8], at: usize) -> Option<(i64, usize)> {
    let head: &[u8; 8] = buf.get(at..)?.first_chunk()?;
    let first = head[1].wrapping_sub(b'0');
    if head[2] == b'\r' && first <= 9 {
        return Some((i64::from(first), at + 4));
    }
    if !(1..=9).contains(&first) {
        return None;
    }
    let mut number = i64::from(first);
    for (i, byte) in head.iter().enumerate().skip(2).take(5) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return (*byte == b'\r').then_some((number, at + i + 2));
        }
        number = number * 10 + i64::from(digit);
    }
    None
}

/// A request that ends within an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// Where the argument begins.
    pub start: usize,
    /// How long it will be.
    pub len: usize,
    /// How many arguments follow it.
    pub behind: usize,
}

/// What a request of few arguments at the start of `buf` ends within, if that is an argument whose length is known.
/// Says nothing about limits: the caller has a scanner that has accepted all this and waits.
pub fn unfinished(buf: &[u8]) -> Option<Unfinished> {
    arguments_before(buf, &mut Vec::new())
}

/// Where `count` arguments that `buf` begins with end; `None` if they are not all there, or not written as everybody
/// writes them.
pub fn complete(buf: &[u8], count: usize) -> Option<usize> {
    plain_arguments(buf, 0, count, |_| ())
}

/// Adds the arguments that are complete, and tells the one that is not.
fn arguments_before(buf: &[u8], spans: &mut Vec<Span>) -> Option<Unfinished> {
    let (count, mut at) = plain_length(buf, 0, b'*')?;
    if !(1..=RESCAN_ARGS_MAX).contains(&count) {
        return None;
    }
    for behind in (0..count).rev() {
        let (len, start) = plain_length(buf, at, b'$')?;
        at = start.checked_add(len)?.checked_add(2)?;
        if at > buf.len() {
            return Some(Unfinished { start, len, behind });
        }
        spans.push(Span::new(start, start + len));
    }
    None
}

/// Shows `count` arguments from `at` on, and tells where they end.
fn plain_arguments(buf: &[u8], mut at: usize, count: usize, mut show: impl FnMut(Span)) -> Option<usize> {
    for _ in 0..count {
        let (len, start) = plain_length(buf, at, b'$')?;
        at = start.checked_add(len)?.checked_add(2).filter(|end| *end <= buf.len())?;
        show(Span::new(start, start + len));
    }
    Some(at)
}

/// A length as plain as those of [`short_length`], of any number of digits, and where its line ends. Others are rare
/// enough to be left to the scanner.
fn plain_length(buf: &[u8], at: usize, sign: u8) -> Option<(usize, usize)> {
    let line = buf.get(at..)?;
    let end = line.iter().take(LENGTH_LINE_LEN_MAX).position(|byte| *byte == b'\r')?;
    let digits = line[..end].strip_prefix(&[sign])?;
    let len = usize::try_from(parse_i64(digits)?).ok()?;
    (at + end + 2 <= buf.len()).then_some((len, at + end + 2))
}

/// Splits `buf[at..end]` into words, as one would type them at redis-cli: double quotes with escapes, single quotes
/// with `\'`, either also in the middle of a word, but a closing quote must end it. `None` if quotes do not close.
fn split_words(buf: &[u8], mut at: usize, end: usize, out: &mut Requests) -> Option<()> {
    loop {
        while at < end && is_space(buf[at]) {
            at += 1;
        }
        if at == end {
            return Some(());
        }
        let start = at;
        while at < end && !ends_word(buf[at]) && !matches!(buf[at], b'"' | b'\'') {
            at += 1;
        }
        if at == end || ends_word(buf[at]) {
            out.spans.push(Span::new(start, at));
            continue;
        }
        let side_start = out.side.len();
        out.side.extend_from_slice(&buf[start..at]);
        at = match buf[at] {
            b'"' => unescape_double(&buf[..end], at + 1, &mut out.side)?,
            _ => unescape_single(&buf[..end], at + 1, &mut out.side)?,
        };
        if at < end && !is_space(buf[at]) {
            return None;
        }
        out.spans.push(Span::in_side(side_start, out.side.len()));
    }
}

/// The body of a double-quoted string from `at` on; gives the offset behind its closing quote.
fn unescape_double(line: &[u8], mut at: usize, side: &mut Vec<u8>) -> Option<usize> {
    loop {
        match line[at..] {
            [] => return None,
            [b'"', ..] => return Some(at + 1),
            [b'\\', b'x', high, low, ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                side.push(hex_digit(high) << 4 | hex_digit(low));
                at += 4;
            }
            [b'\\', escaped, ..] => {
                side.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => other,
                });
                at += 2;
            }
            [byte, ..] => {
                side.push(byte);
                at += 1;
            }
        }
    }
}

/// The body of a single-quoted string from `at` on; gives the offset behind its closing quote.
fn unescape_single(line: &[u8], mut at: usize, side: &mut Vec<u8>) -> Option<usize> {
    loop {
        match line[at..] {
            [] => return None,
            [b'\'', ..] => return Some(at + 1),
            [b'\\', b'\'', ..] => {
                side.push(b'\'');
                at += 2;
            }
            [byte, ..] => {
                side.push(byte);
                at += 1;
            }
        }
    }
}

/// What may stand between words: C's isspace.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// What ends an unquoted word. Narrower than [`is_space`] in Redis, so a vertical tab may stand inside a word.
fn ends_word(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        b'A'..=b'F' => digit - b'A' + 10,
        _ => unreachable!("only called for hex digits"),
    }
}
