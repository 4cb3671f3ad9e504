//! The RDB serialisation format, read and written: DUMP payloads, `.rdb` files, and the opcode streams of `.dfs`
//! files and full syncs.
//!
//! Bytes in, bytes out. The crate knows no keyspace and does no I/O.

mod crc64;
pub mod dump;
mod encode;
mod error;
mod kinds;
mod limits;
pub mod listpack;
mod lzf;
mod packed;
#[cfg(test)]
mod testing;
mod wire;

pub use crc64::crc64;
pub use encode::{Encoder, Target};
pub use error::{Error, ErrorKind, Refused};
pub use kinds::{VERSION_MAX, value_type};
pub use limits::Limits;
pub use lzf::{Lzf, decompress as lzf_decompress};
pub use packed::Packed;
pub use wire::{put_len, put_string, take_len};
