//! The numbers of the format: value types, opcodes, versions. One place, because reader and writer must agree and
//! because an unknown number must stay an error in both.

/// Value types, as they stand before a key and at the start of a DUMP payload.
pub mod value_type {
    /// String.
    pub const STRING: u8 = 0;
    /// List as plain strings.
    pub const LIST: u8 = 1;
    /// Set as plain strings.
    pub const SET: u8 = 2;
    /// Sorted set with scores as text.
    pub const ZSET: u8 = 3;
    /// Hash as plain strings.
    pub const HASH: u8 = 4;
    /// Sorted set with binary scores.
    pub const ZSET_2: u8 = 5;
    /// Module value that only its module can read.
    pub const MODULE_PRE_GA: u8 = 6;
    /// Module value of typed items.
    pub const MODULE_2: u8 = 7;
    /// Hash as zipmap.
    pub const HASH_ZIPMAP: u8 = 9;
    /// List as one ziplist.
    pub const LIST_ZIPLIST: u8 = 10;
    /// Set as intset.
    pub const SET_INTSET: u8 = 11;
    /// Sorted set as ziplist.
    pub const ZSET_ZIPLIST: u8 = 12;
    /// Hash as ziplist.
    pub const HASH_ZIPLIST: u8 = 13;
    /// List as ziplists.
    pub const LIST_QUICKLIST: u8 = 14;
    /// Stream of Redis 5.
    pub const STREAM_LISTPACKS: u8 = 15;
    /// Hash as listpack.
    pub const HASH_LISTPACK: u8 = 16;
    /// Sorted set as listpack.
    pub const ZSET_LISTPACK: u8 = 17;
    /// List as listpacks and plain nodes.
    pub const LIST_QUICKLIST_2: u8 = 18;
    /// Stream of Redis 7.0: first id, greatest deleted id, counters.
    pub const STREAM_LISTPACKS_2: u8 = 19;
    /// Set as listpack.
    pub const SET_LISTPACK: u8 = 20;
    /// Stream of Redis 7.2: active time of consumers.
    pub const STREAM_LISTPACKS_3: u8 = 21;
    /// Hash with deadlines of the 7.4 release candidates.
    pub const HASH_METADATA_PRE_GA: u8 = 22;
    /// The same as listpack.
    pub const HASH_LISTPACK_EX_PRE_GA: u8 = 23;
    /// Hash with deadlines of Redis 7.4.
    pub const HASH_METADATA: u8 = 24;
    /// The same as listpack.
    pub const HASH_LISTPACK_EX: u8 = 25;
    /// JSON document as text.
    pub const JSON: u8 = 30;
    /// Hash with deadlines, Dragonfly's.
    pub const HASH_WITH_EXPIRY: u8 = 31;
    /// Set with deadlines, Dragonfly's.
    pub const SET_WITH_EXPIRY: u8 = 32;
    /// Scalable Bloom filter, bits of a filter as one string.
    pub const SBF: u8 = 33;
    /// Scalable Bloom filter, bits of a filter in pieces.
    pub const SBF_2: u8 = 34;
    /// Count-min sketch.
    pub const CMS: u8 = 35;
    /// Top-k.
    pub const TOPK: u8 = 36;
    /// Cuckoo filter.
    pub const CUCKOO: u8 = 37;
}

/// Opcodes, as they stand where a value type could.
pub(crate) mod opcode {
    pub const FULL_SYNC_END: u8 = 200;
    pub const BLOB_ZSTD: u8 = 201;
    pub const BLOB_LZ4: u8 = 202;
    pub const JOURNAL_BLOB: u8 = 210;
    pub const JOURNAL_OFFSET: u8 = 211;
    pub const MASK: u8 = 220;
    pub const TAGGED_CHUNK: u8 = 224;
    pub const SLOT_INFO: u8 = 244;
    pub const FUNCTION_2: u8 = 245;
    pub const MODULE_AUX: u8 = 247;
    pub const IDLE: u8 = 248;
    pub const FREQ: u8 = 249;
    pub const AUX: u8 = 250;
    pub const RESIZE_DB: u8 = 251;
    pub const EXPIRE_MS: u8 = 252;
    pub const EXPIRE_S: u8 = 253;
    pub const SELECT_DB: u8 = 254;
    pub const EOF: u8 = 255;
}

/// Bits of the mask before a key.
pub(crate) const MASK_STICKY: u32 = 1;
pub(crate) const MASK_MC_FLAGS: u32 = 2;

/// Versions that can be read. 12 is that of Redis 7.4; later numbers belong to formats not described here.
pub const VERSION_MAX: u32 = 12;

/// Field and member deadlines of types 31 and 32 count seconds from 2023-02-01 00:00 UTC.
pub(crate) const DEADLINE_BASE_S: u64 = 1_675_209_600;
