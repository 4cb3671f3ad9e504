//! The data of one shard: databases, values, expiry, eviction.
