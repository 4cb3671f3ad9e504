//! What can be wrong with bytes that claim to be RDB, and where.
//!
//! One closed enum, because the callers treat the classes differently: RESTORE prints one text for all of them, a
//! start from a file prints kind and offset and exits, a replica drops the link and asks again. Nothing in here is
//! ever our own fault; broken invariants of the writer are assertions.

use std::fmt;
use std::io;

/// A decoding failure with the place it was noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error {
    /// What was wrong.
    pub kind: ErrorKind,
    /// Absolute offset in the stream of the item that could not be read; for content of a compressed blob, of the
    /// byte after the blob.
    pub offset: u64,
    /// Offset inside the decompressed blob, when the fault lies in one.
    pub blob_offset: Option<u64>,
}

/// The fault itself. The texts are for operators who read a log, not for clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorKind {
    /// The input ended inside an item.
    Truncated,
    /// The file does not start with `REDIS` and four digits.
    Magic,
    /// A format version outside 1..=12.
    Version(u32),
    /// The 64-bit checksum is not zero and not that of the bytes read.
    Checksum,
    /// A value type this crate does not know, or one that cannot be skipped (modules of RDB 8).
    ValueType(u8),
    /// An opcode this crate does not know, or one that may not stand here.
    Opcode(u8),
    /// A length, count or string header that means nothing.
    Length,
    /// A declared size above the limit for such a thing.
    TooLarge(&'static str),
    /// An LZF string that does not expand to the size it declares.
    Lzf,
    /// A listpack whose header, entries, back lengths or terminator disagree.
    Listpack(&'static str),
    /// A ziplist whose header, entries, back links or terminator disagree.
    Ziplist(&'static str),
    /// A zipmap whose entries run out of its bytes.
    Zipmap,
    /// An intset of a wrong size or order.
    Intset,
    /// A member or field that appears twice.
    Duplicate,
    /// A container without elements where Redis never writes one.
    Empty,
    /// A score that is no number.
    Score,
    /// A deadline that is no number or lies outside its range.
    Deadline,
    /// A stream that contradicts itself.
    Stream(&'static str),
    /// A probabilistic structure with impossible dimensions.
    Sketch(&'static str),
    /// A module value that cannot be walked over.
    Module,
    /// A compressed blob that does not expand, expands too far, or stands inside another one.
    Blob(&'static str),
    /// A tagged chunk that belongs nowhere.
    Chunk(&'static str),
    /// Bytes after the end of a value that should have ended there.
    Trailing,
    /// The receiver of the events did not want to go on.
    Refused(Refused),
    /// The source could not be read.
    Io(io::ErrorKind),
}

/// How a receiver of events stops the decoder: duplicate members it alone can see, no memory, a stop of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused(pub &'static str);

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ErrorKind::Truncated => f.write_str("unexpected end of data"),
            ErrorKind::Magic => f.write_str("wrong signature: neither an rdb nor a dfs file"),
            ErrorKind::Version(version) => write!(f, "RDB version {version} is not supported"),
            ErrorKind::Checksum => f.write_str("wrong checksum"),
            ErrorKind::ValueType(code) => write!(f, "unsupported value type {code}"),
            ErrorKind::Opcode(code) => write!(f, "unsupported opcode {code}"),
            ErrorKind::Length => f.write_str("malformed length"),
            ErrorKind::TooLarge(what) => write!(f, "{what} larger than the limit"),
            ErrorKind::Lzf => f.write_str("malformed LZF string"),
            ErrorKind::Listpack(what) => write!(f, "malformed listpack: {what}"),
            ErrorKind::Ziplist(what) => write!(f, "malformed ziplist: {what}"),
            ErrorKind::Zipmap => f.write_str("malformed zipmap"),
            ErrorKind::Intset => f.write_str("malformed intset"),
            ErrorKind::Duplicate => f.write_str("duplicate element"),
            ErrorKind::Empty => f.write_str("empty container"),
            ErrorKind::Score => f.write_str("malformed score"),
            ErrorKind::Deadline => f.write_str("malformed deadline"),
            ErrorKind::Stream(what) => write!(f, "malformed stream: {what}"),
            ErrorKind::Sketch(what) => write!(f, "malformed sketch: {what}"),
            ErrorKind::Module => f.write_str("malformed module value"),
            ErrorKind::Blob(what) => write!(f, "malformed compressed blob: {what}"),
            ErrorKind::Chunk(what) => write!(f, "malformed tagged chunk: {what}"),
            ErrorKind::Trailing => f.write_str("bytes after the end of the value"),
            ErrorKind::Refused(Refused(why)) => write!(f, "refused: {why}"),
            ErrorKind::Io(kind) => write!(f, "read failed: {kind}"),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at offset {}", self.kind, self.offset)?;
        match self.blob_offset {
            Some(offset) => write!(f, " (byte {offset} of the blob before it)"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {}

/// Why an attempt to read one item stopped. Internal, because "more" is only an error once the input has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// At least this many bytes are missing.
    More(usize),
    Bad(ErrorKind),
}

impl From<ErrorKind> for Stop {
    fn from(kind: ErrorKind) -> Stop {
        Stop::Bad(kind)
    }
}

impl From<Refused> for Stop {
    fn from(refused: Refused) -> Stop {
        Stop::Bad(ErrorKind::Refused(refused))
    }
}
