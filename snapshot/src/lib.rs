//! Snapshots of the keyspace: what their files are called, which one a start loads, and how a set of files takes the
//! place of another.
//!
//! The format inside the files is the `rdb` crate's. The rules about names are functions of their arguments alone
//! (manifest.rs); where the files are, and what a crash may leave there, is behind [`Storage`]: a directory
//! ([`Disk`]) or an object store.

mod disk;
mod manifest;
mod storage;

pub use disk::{Act, Disk};
pub use manifest::{
    Candidate, FileRole, Files, Moment, NameError, SHARDS_MAX, TMP_SUFFIX, dfs_files, expand, newest,
    rdb_file, role_of,
};
pub use storage::{Output, Recovered, Storage};
