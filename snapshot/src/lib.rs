//! Shards to files and back.
