//! Probabilistic structures and geo cells: HyperLogLog, Bloom, cuckoo, count-min, top-k.
