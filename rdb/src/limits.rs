//! What a stranger's bytes may cost. Every number is checked before memory is asked for, and memory is asked for in
//! step with bytes that have really arrived, so a claim alone costs nothing.

/// Bounds of one decoder.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest string, listpack or other blob of a value, compressed or not. Redis' own ceiling for a client's
    /// string is 512 MiB; nothing larger can have been written by a server with its defaults.
    pub string_len_max: u64,
    /// Largest compressed blob of a dfs file, before and after expansion. Writers cut at about 1 MiB; a run above
    /// that is written raw, so 64 MiB leaves a factor of 64 for other writers' habits.
    pub blob_len_max: u64,
    /// Largest tagged chunk: a chunk holds at least one element, which may be as long as a string.
    pub chunk_len_max: u64,
    /// Values that may be cut into chunks at the same time. A writer has one per fibre that serialises; two were
    /// seen. Each costs some hundred bytes here and what its value needs in the receiver.
    pub chunked_values_max: usize,
    /// Whether the compact encodings are searched for members or fields that appear twice. True for payloads of
    /// clients; a file's receiver inserts into its own table and sees duplicates without a second search.
    pub find_duplicates: bool,
    /// Whether a checksum that is not zero must be right. Dragonfly's streams always have zero there, and computing
    /// what nobody compares takes as long as all the rest of reading.
    pub verify_checksum: bool,
}

impl Limits {
    /// For files: from our own kind, still not trusted.
    pub const FILE: Limits = Limits {
        string_len_max: 512 << 20,
        blob_len_max: 64 << 20,
        chunk_len_max: (512 << 20) + (1 << 20),
        chunked_values_max: 1024,
        find_duplicates: false,
        verify_checksum: true,
    };

    /// For full syncs, which have no checksums.
    pub const STREAM: Limits = Limits { verify_checksum: false, ..Limits::FILE };

    /// For RESTORE: from anybody.
    pub const PAYLOAD: Limits = Limits { find_duplicates: true, ..Limits::FILE };
}
