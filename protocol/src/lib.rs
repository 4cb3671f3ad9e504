//! Bytes to requests, replies to bytes; knows no keys.
//!
//! `request` finds the requests in a stranger's bytes without copying them, `reply` appends answers to an output
//! buffer in either version of the protocol, `skip` passes over requests that are too long to keep, `number` reads and prints integers and floats the way Redis does, and
//! `long_double` holds the 80-bit arithmetic behind INCRBYFLOAT. `limits` lists every bound in one place.
//!
//! Nothing here reads a socket, a clock or a key, and nothing here recurses: the deepest request is an array of
//! strings. The decoder for what *servers* say (nested replies, pushes) is the client side's concern and not here.

pub mod limits;
pub mod long_double;
pub mod number;
pub mod reply;
pub mod request;
pub mod sha1;
pub mod skip;

pub use limits::Limits;
pub use reply::{Deferred, Proto, ReplyWriter};
pub use request::{Argv, ProtocolError, Requests, Scan, Scanner, Span, Unfinished, complete, unfinished};
pub use skip::Skip;
