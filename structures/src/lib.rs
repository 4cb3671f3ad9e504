//! The byte-level data structures under the keyspace: compact, counted, copy-on-write.
//!
//! Three promises hold for every structure here, because the layers above are built on them:
//!
//! * **Counted.** `heap_bytes()` is O(1) and equals what the structure holds from the allocator, size-class
//!   rounding included ([`alloc::good_size`]). Sums of it are what `used_memory` is made of.
//! * **Copy-on-write.** `clone()` costs O(number of nodes) at most, usually far less: big structures are made of
//!   reference-counted nodes, and a write to a shared node copies that node first. A snapshot, a long reply and a
//!   script's undo log each hold a clone and never stop the writers.
//! * **Freed in steps.** Big structures can be taken apart a node at a time, so deleting ten million members does
//!   not hold up the shard.
//!
//! This is the crate where `unsafe` may live; each module that needs it says why and is run under Miri.

pub mod alloc;
pub mod dense;
pub mod hash;
pub mod hint;
pub mod intset;
pub mod keytable;
pub mod list;
pub mod moves;
mod outside;
pub mod pack;
pub mod slab;
pub mod stream;
pub mod table;
pub mod thin;
pub mod zpack;
pub mod zset;
