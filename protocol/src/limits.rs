//! What a connection may cost before its request is complete, and what happens at each bound: the request is
//! answered with a protocol error and the connection is closed, because after a refused length nobody knows where
//! the next request begins.

/// The largest offset a [`Span`](crate::Span) can hold: 31 bits, because the 32nd tells a span of the read buffer
/// from one of the side buffer for unescaped inline arguments.
pub(crate) const SPAN_OFFSET_MAX: usize = (1 << 31) - 1;

/// Ceiling of `Limits::max_inline_len`, whatever was configured. Lines are searched, not counted, so they are the
/// one place where bytes are looked at before their number is known.
pub(crate) const LINE_LEN_MAX: usize = 1 << 20;

/// Ceiling of `Limits::max_request_len`: the longest request plus the longest unfinished line behind it still has
/// offsets that fit a span.
pub(crate) const REQUEST_LEN_MAX: usize = SPAN_OFFSET_MAX - 2 * LINE_LEN_MAX;

/// Arguments and bytes a client may send before it has authenticated. Enough for AUTH and HELLO, too little to make
/// the server hold memory for somebody who never proves to be anybody.
pub(crate) const UNAUTHENTICATED_MULTIBULK_LEN_MAX: i64 = 10;
pub(crate) const UNAUTHENTICATED_BULK_LEN_MAX: i64 = 16 * 1024;

/// Bounds of one connection's requests. The defaults are those of redis-server 7.0, but for the number of arguments,
/// which Redis leaves at two thousand million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest single argument (`proto-max-bulk-len`).
    pub max_bulk_len: u32,
    /// Most arguments in one request.
    pub max_multibulk_len: u32,
    /// Longest line: an inline request, or the digits of a length.
    pub max_inline_len: u32,
    /// Longest request from its `*` to its last byte (`client-query-buffer-limit`). Checked when an argument's length
    /// is read, so a request that cannot fit is refused before its bytes are waited for.
    pub max_request_len: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_bulk_len: 512 * 1024 * 1024,
            max_multibulk_len: 1024 * 1024,
            max_inline_len: 64 * 1024,
            max_request_len: 1024 * 1024 * 1024,
        }
    }
}

const _: () = {
    assert!(REQUEST_LEN_MAX + 2 * LINE_LEN_MAX <= SPAN_OFFSET_MAX);
    assert!(REQUEST_LEN_MAX > 1024 * 1024 * 1024);
};
