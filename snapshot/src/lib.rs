//! Snapshots of the keyspace: what their files are called, where they lie, which of them belong together, what they
//! hold, and how one form becomes another.
//!
//! The format inside the files is the `rdb` crate's; how a running server's data gets into them is the server's. Names
//! are functions of their arguments alone; everything else works on a [`Storage`]: a directory ([`Disk`]) or
//! a bucket (`Bucket`), in tests memory.
//!
//! Reading order: manifest.rs (names), storage.rs with disk.rs and remote.rs (how one takes the place of another),
//! source.rs (the files of one snapshot), inspect.rs, convert.rs with spool.rs.

pub mod convert;
mod disk;
pub mod inspect;
mod manifest;
mod memory;
#[cfg(feature = "buckets")]
mod remote;
mod source;
mod spool;
mod storage;

pub use disk::{Act, Disk};
pub use manifest::{
    Candidate, FileRole, Files, Moment, NameError, SHARDS_MAX, TMP_SUFFIX, dfs_files, expand, newest,
    rdb_file, role_of,
};
pub use memory::Memory;
#[cfg(feature = "buckets")]
pub use remote::{Bucket, S3Options, is_remote};
pub use source::{FUNCTION_AUX, Part, PartFacts, Snapshot, SnapshotError, Ties, Why};
pub use storage::{Output, Recovered, Storage};
