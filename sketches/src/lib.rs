//! Probabilistic structures and geo cells: HyperLogLog, Bloom, cuckoo, count-min, top-k.
//!
//! Everything here is arithmetic on bytes. What makes this a crate of its own is that other servers wrote those
//! bytes first: a HyperLogLog is a plain string that Redis must be able to read back, and a Bloom filter arrives in
//! a Dragonfly snapshot and must go on answering as it did there. Hash functions, seeds, bit orders and rounding are
//! therefore part of the contract, stated at the head of each module and held by tests against recorded bytes
//! (`tests/dragonfly.rs`) and against a live Redis (`tests/redis.rs`).
//!
//! | Module | Answers for | Stored as |
//! | --- | --- | --- |
//! | [`hll`] | PFADD, PFCOUNT, PFMERGE | a Redis string, byte for byte |
//! | [`geo`] | GEO*: cells, distances, areas to scan | scores of a sorted set |
//! | [`bloom`] | BF.* | snapshot types 33 and 34 |
//! | [`cms`] | CMS.* | snapshot type 35 |
//! | [`topk`] | TOPK.* | snapshot type 36 |
//! | [`cuckoo`] | CF.* | snapshot type 37 |
//!
//! The last four keep their cells in [`blocks::Blocks`]: sixteen-KiB pieces, shared between clones and absent while
//! zero, so that a snapshot of a filter of one gigabyte costs a table of pointers and not a gigabyte.
//!
//! Nothing here reads a clock or draws a random number: TOPK, which needs chance, is handed it.

pub mod blocks;
pub mod bloom;
pub mod cms;
pub mod cuckoo;
pub mod geo;
pub mod hll;
pub mod topk;
