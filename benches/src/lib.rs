//! Benchmarks: whole-server comparison and structures.
