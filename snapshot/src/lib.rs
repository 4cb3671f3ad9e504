//! Snapshots of the keyspace: what their files are called, and which one a start loads.
//!
//! The format inside the files is the `rdb` crate's. Here are the rules about names, as functions of their arguments
//! alone: the caller lists the directory, reads the clock and does the I/O. Next: manifest.rs.

mod manifest;

pub use manifest::{
    Candidate, FileRole, Files, Moment, NameError, SHARDS_MAX, TMP_SUFFIX, dfs_files, expand, newest,
    rdb_file, role_of,
};
