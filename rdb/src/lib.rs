//! The RDB serialisation format, read and written: DUMP payloads, `.rdb` files of Redis and Valkey, and the opcode
//! streams of Dragonfly's `.dfs` files and full syncs.
//!
//! Bytes in, bytes out. The crate knows no keyspace, does no I/O (a caller may hand in a `Read`), starts no thread
//! and asks no clock. Both directions speak one vocabulary, [`Event`]: reading tells a value as events, writing
//! takes them, so a set of ten million members is never in memory a second time.
//!
//! | to do | use |
//! | --- | --- |
//! | RESTORE | [`dump::open`] (footer), then [`dump::decode`] or [`dump::Decoding`] into a [`ValueSink`] |
//! | DUMP | [`dump::string`], or [`dump::begin`], [`ValueWriter::put`], [`dump::seal`] or [`dump::footer`] |
//! | load a file, follow a full sync | [`FileReader`], fed or reading, into a [`FileSink`] |
//! | save a file, serve a full sync | [`FileWriter`] |
//! | hand a value to who stores it | [`Gatherer`], [`Gathered`] |
//! | keep events and write them later | [`Measure`] |
//! | small values, tests | [`Value`], [`Collector`], [`dump::value`], [`FileWriter::value`] |
//!
//! What a stranger's bytes may cost is in [`Limits`]. What is not supported, and refused: module values that cannot
//! be skipped (type 6), function libraries of the 7.0 release candidates (246), vector indices (222, 223), versions
//! above 12.
//!
//! Reading order: wire.rs (lengths, strings), listpack.rs, event.rs, decode.rs, reader.rs; encode.rs, writer.rs.

mod blob;
mod crc64;
mod decode;
pub mod dump;
mod encode;
mod entries;
mod error;
mod event;
mod fuzz;
mod gather;
mod kinds;
mod limits;
pub mod listpack;
mod lzf;
mod measure;
mod packed;
mod reader;
mod stream;
#[cfg(test)]
mod testing;
mod value;
mod wire;
mod writer;
mod ziplist;

pub use blob::{Compression, compressed_len};
pub use crc64::crc64;
pub use encode::{
    COMPACT_ELEMENT_LEN_MAX, COMPACT_HASH_COUNT_MAX, COMPACT_ZSET_COUNT_MAX, Encoder, INTSET_COUNT_MAX,
    NodeSizer, Shape, Target, ValueWriter,
};
pub use entries::Entries;
pub use error::{Error, ErrorKind, Refused};
pub use event::{
    Bloom, Consumer, Cuckoo, Event, Fields, Group, Kind, Pending, StreamId, StreamMeta, TopK, ValueSink,
};
pub use fuzz::fuzz_decode;
pub use gather::{Elements, Gathered, Gatherer, Run};
pub use kinds::{VERSION_MAX, value_type};
pub use limits::Limits;
pub use lzf::{Lzf, decompress as lzf_decompress};
pub use measure::Measure;
pub use packed::Packed;
pub use reader::{FileReader, FileSink, Item, Key, Meta, Progress};
pub use value::{Collector, ConsumerValue, GroupValue, StreamValue, Value};
pub use wire::{put_len, put_string, take_len};
pub use writer::{Entry, FileOptions, FileWriter};
