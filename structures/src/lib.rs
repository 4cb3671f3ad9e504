//! The byte-level data structures under the keyspace: compact, counted, copy-on-write.
