//! Files and full-sync streams, written.
//!
//! ```text
//! events -> run (items not yet final) -> seal: compressed if that helps -> ready (final bytes) -> the caller
//! ```
//!
//! A run is sealed when it has grown to [`RUN_LEN_TARGET`] at the end of an entry or chunk, so the caller only has
//! to carry `ready` away now and then, and may do other work between any two events. In a dfs stream a long
//! container is cut into tagged chunks while it is written; other entries may come between two chunks (see
//! [`FileWriter::pause`]). What cannot be cut is written raw when it outgrows a run: a blob must hold whole items.

use std::mem;

use crate::blob::{Compression, Compressor};
use crate::crc64::crc64;
use crate::encode::{Encoder, Shape, Target, ValueWriter};
use crate::event::Event;
use crate::kinds::{MASK_MC_FLAGS, MASK_STICKY, opcode};
use crate::reader::Meta;
use crate::value::Value;
use crate::wire::{put_len, put_raw_string, put_string};

/// Runs are sealed from this size on. Larger ones compress little better and hold more back.
const RUN_LEN_TARGET: usize = 128 << 10;
/// Runs outside these bounds are written raw: small ones do not shrink, and readers take about 1 MiB at most.
const BLOB_LEN_MIN: usize = 256;
const BLOB_LEN_MAX: usize = 1 << 20;
/// A string of this size goes into a run of its own, so that it does not make its neighbours unfit for a blob.
const LONG_STRING_LEN: usize = 256 << 10;
/// Opcode, stream number, length.
const CHUNK_HEADER_LEN: usize = 9;

/// How a file is to be written.
#[derive(Clone, Copy, Debug)]
pub struct FileOptions {
    /// For whom.
    pub target: Target,
    /// Of runs in dfs streams. An rdb file has no runs: its strings are compressed one by one, unless this is none.
    pub compression: Compression,
    /// Containers longer than this are cut into tagged chunks; 0 never. Only in dfs streams.
    pub chunk_len_max: usize,
    /// Whether a dfs stream ends in the checksum that rdb files always have. Dragonfly writes zero and verifies none.
    pub checksum: bool,
}

/// Writes one file or full sync.
pub struct FileWriter {
    options: FileOptions,
    encoder: Encoder,
    compressor: Compressor,
    run: Vec<u8>,
    packed: Vec<u8>,
    ready: Vec<u8>,
    crc: u64,
    /// The database a reader is in at the end of `run`, where it can know.
    db: Option<u64>,
    entries: u32,
    /// The entry whose unfinished bytes are at the end of `run`.
    open: Option<u32>,
    /// Bytes that are still to come of a string in parts.
    missing: u64,
}

/// An entry under way: its writer, and where its bytes are.
pub struct Entry {
    value: ValueWriter,
    id: u32,
    /// Where the bytes that belong to no chunk yet begin in the run.
    start: usize,
    chunked: bool,
    /// Parts of it were handed on as they are, so the rest must be too.
    raw: bool,
}

impl Entry {
    /// Whether its last event was written.
    pub fn is_done(&self) -> bool {
        self.value.is_done()
    }
}

impl FileWriter {
    /// A writer; the signature is its first output.
    pub fn new(options: FileOptions) -> FileWriter {
        let is_dfs = options.target == Target::Dfs;
        let compression = if is_dfs { options.compression } else { Compression::None };
        let encoder = match options.compression {
            Compression::None => Encoder::new(options.target).unpacked(),
            Compression::Zstd { .. } | Compression::Lz4 => Encoder::new(options.target),
        };
        let mut writer = FileWriter {
            options,
            encoder,
            compressor: Compressor::new(compression),
            run: Vec::new(),
            packed: Vec::new(),
            ready: Vec::new(),
            crc: 0,
            db: None,
            entries: 0,
            open: None,
            missing: 0,
        };
        writer.outside(if is_dfs { b"REDIS0009" } else { b"REDIS0010" });
        writer
    }

    /// Bytes that must not become part of a blob.
    fn outside(&mut self, bytes: &[u8]) {
        self.seal();
        self.run.extend_from_slice(bytes);
        self.seal_raw();
    }

    /// A piece of information about the file.
    pub fn aux(&mut self, name: &[u8], value: &[u8]) {
        let mut item = vec![opcode::AUX];
        put_string(&mut item, name);
        self.encoder.string(&mut item, value);
        self.outside(&item);
    }

    /// The source of a function library (Redis only; Dragonfly refuses the file).
    pub fn function(&mut self, source: &[u8]) {
        self.run.push(opcode::FUNCTION_2);
        self.encoder.string(&mut self.run, source);
        self.seal_if_long();
    }

    /// Table sizes of a database, for readers that reserve room; before its first key.
    pub fn resize_db(&mut self, db: u64, keys: u64, expires: u64) {
        self.select_db(db);
        self.run.push(opcode::RESIZE_DB);
        put_len(&mut self.run, keys);
        put_len(&mut self.run, expires);
    }

    #[inline]
    fn select_db(&mut self, db: u64) {
        if self.db != Some(db) {
            self.db = Some(db);
            self.run.push(opcode::SELECT_DB);
            put_len(&mut self.run, db);
        }
    }

    #[inline]
    fn head(&mut self, db: u64, meta: &Meta) {
        assert!(self.open.is_none() && self.missing == 0, "another entry is being written");
        self.select_db(db);
        if let Some(at) = meta.expire_at_ms {
            self.run.push(opcode::EXPIRE_MS);
            self.run.extend_from_slice(&at.to_le_bytes());
        }
        if meta.sticky || meta.mc_flags.is_some() {
            let mask = if meta.sticky { MASK_STICKY } else { 0 } | meta.mc_flags.map_or(0, |_| MASK_MC_FLAGS);
            self.run.push(opcode::MASK);
            self.run.extend_from_slice(&mask.to_le_bytes());
            if let Some(flags) = meta.mc_flags {
                self.run.extend_from_slice(&flags.to_le_bytes());
            }
        }
        // 0 is no number of a chunked value.
        self.entries = self.entries.checked_add(1).unwrap_or(1);
    }

    /// A whole string entry. Idle time and frequency of `meta` are not written: our readers have no use for them.
    #[inline]
    pub fn string(&mut self, db: u64, meta: &Meta, key: &[u8], value: &[u8]) {
        if value.len() >= LONG_STRING_LEN {
            self.seal();
        }
        self.head(db, meta);
        self.run.push(Shape::String.value_type(self.options.target));
        self.encoder.string(&mut self.run, key);
        self.encoder.string(&mut self.run, value);
        self.seal_if_long();
    }

    /// Begins a string entry whose bytes, `len` of them, follow in parts: for strings that are not to be in memory a
    /// second time. They are not compressed.
    pub fn begin_string(&mut self, db: u64, meta: &Meta, key: &[u8], len: u64) {
        self.seal();
        self.head(db, meta);
        self.run.push(Shape::String.value_type(self.options.target));
        self.encoder.string(&mut self.run, key);
        put_len(&mut self.run, len);
        self.seal_raw();
        self.missing = len;
    }

    /// The next part of a string; the entry is complete with the last of the bytes that were announced.
    pub fn put_part(&mut self, part: &[u8]) {
        let len = part.len() as u64;
        assert!(len <= self.missing, "more bytes than were announced");
        self.run.extend_from_slice(part);
        self.seal_raw();
        self.missing -= len;
    }

    /// A whole entry of any type.
    pub fn value(&mut self, db: u64, meta: &Meta, key: &[u8], value: &Value) {
        let mut entry = self.begin(db, meta, key, value.shape());
        let written = value.emit(&mut |event: Event<'_>| {
            self.put(&mut entry, event);
            Ok(())
        });
        written.expect("the closure refuses nothing");
    }

    /// Begins an entry whose value follows as events.
    pub fn begin(&mut self, db: u64, meta: &Meta, key: &[u8], shape: Shape) -> Entry {
        self.head(db, meta);
        let start = self.run.len();
        self.run.push(shape.value_type(self.options.target));
        self.encoder.string(&mut self.run, key);
        self.open = Some(self.entries);
        let value = ValueWriter::new(&mut self.encoder, shape);
        Entry { value, id: self.entries, start, chunked: false, raw: false }
    }

    /// Writes the next event of an entry; `End`, or the only event of a string, completes it.
    #[inline]
    pub fn put(&mut self, entry: &mut Entry, event: Event<'_>) {
        if self.open != Some(entry.id) {
            self.resume(entry);
        }
        // A stream's group section is not cut: readers are only known to go on between nodes.
        let may_cut = matches!(
            event,
            Event::Element(_)
                | Event::Member { .. }
                | Event::Field { .. }
                | Event::Scored { .. }
                | Event::Entry { .. }
        );
        entry.value.put(&mut self.encoder, &mut self.run, event);
        if entry.value.is_done() {
            return self.complete(entry);
        }
        if self.can_cut(entry) {
            if may_cut && self.run.len() - entry.start >= self.options.chunk_len_max {
                self.cut(entry);
                if self.run.len() >= RUN_LEN_TARGET {
                    self.seal();
                    entry.start = 0;
                }
            }
        } else if self.run.len() >= RUN_LEN_TARGET {
            // In an rdb file every byte is final; elsewhere this entry must stay out of blobs from now on.
            entry.raw = true;
            entry.start = 0;
            self.seal_raw();
        }
    }

    fn can_cut(&self, entry: &Entry) -> bool {
        let container = matches!(
            entry.value.shape(),
            Shape::List { .. }
                | Shape::Set { .. }
                | Shape::ExpiringSet { .. }
                | Shape::Hash { .. }
                | Shape::ExpiringHash { .. }
                | Shape::ZSet { .. }
                | Shape::Stream { .. }
        );
        self.options.target == Target::Dfs && self.options.chunk_len_max > 0 && container && !entry.raw
    }

    /// Lets other entries be written before this one goes on. False if this one has to be finished first.
    pub fn pause(&mut self, entry: &mut Entry) -> bool {
        if self.open != Some(entry.id) {
            return true;
        }
        if !self.can_cut(entry) {
            return false;
        }
        self.cut(entry);
        self.open = None;
        true
    }

    fn resume(&mut self, entry: &mut Entry) {
        assert!(
            self.open.is_none() && entry.chunked,
            "another entry is being written, or this one was finished"
        );
        self.open = Some(entry.id);
        entry.start = self.run.len();
    }

    /// Makes a chunk of the entry's bytes at the end of the run.
    fn cut(&mut self, entry: &mut Entry) {
        let len = self.run.len() - entry.start;
        if len == 0 {
            return;
        }
        let len = u32::try_from(len).expect("elements are bounded far below 4 GiB");
        let mut header = [opcode::TAGGED_CHUNK; CHUNK_HEADER_LEN];
        header[1..5].copy_from_slice(&entry.id.to_le_bytes());
        header[5..].copy_from_slice(&len.to_le_bytes());
        self.run.splice(entry.start..entry.start, header);
        entry.start = self.run.len();
        entry.chunked = true;
    }

    fn complete(&mut self, entry: &mut Entry) {
        if entry.chunked {
            self.cut(entry);
        }
        self.open = None;
        if entry.raw {
            self.seal_raw();
        } else {
            self.seal_if_long();
        }
    }

    /// Journal entries in the midst of a full sync, encoded by the caller.
    pub fn journal_blob(&mut self, entry: &[u8]) {
        assert!(self.open.is_none(), "an entry is being written");
        self.run.push(opcode::JOURNAL_BLOB);
        put_len(&mut self.run, 1);
        put_raw_string(&mut self.run, entry);
        self.seal_if_long();
    }

    /// The sequence number with which the stable stream begins.
    pub fn journal_offset(&mut self, lsn: u64) {
        let mut item = [opcode::JOURNAL_OFFSET; 9];
        item[1..].copy_from_slice(&lsn.to_le_bytes());
        self.outside(&item);
    }

    /// Every key was written.
    pub fn full_sync_end(&mut self) {
        let mut item = [0; 9];
        item[0] = opcode::FULL_SYNC_END;
        self.outside(&item);
    }

    /// The end of the file, with its checksum, or zero if it has none.
    pub fn eof(&mut self) {
        assert!(self.open.is_none() && self.missing == 0, "an entry is being written");
        self.outside(&[opcode::EOF]);
        let checksum = if self.has_checksum() { self.crc } else { 0 };
        self.outside(&checksum.to_le_bytes());
    }

    fn has_checksum(&self) -> bool {
        self.options.target != Target::Dfs || self.options.checksum
    }

    fn seal_if_long(&mut self) {
        if self.run.len() >= RUN_LEN_TARGET {
            self.seal();
        }
    }

    /// Makes everything written so far final: for callers that want it all out now. An entry under way must be
    /// paused first.
    pub fn flush(&mut self) {
        assert!(self.open.is_none(), "an entry is being written");
        self.seal();
    }

    fn seal(&mut self) {
        let fits = (BLOB_LEN_MIN..=BLOB_LEN_MAX).contains(&self.run.len());
        if !fits
            || !self.compressor.compress(&self.run, &mut self.packed)
            || self.packed.len() + 6 > self.run.len()
        {
            return self.seal_raw();
        }
        let code =
            if matches!(self.compressor, Compressor::Lz4(_)) { opcode::BLOB_LZ4 } else { opcode::BLOB_ZSTD };
        let start = self.ready.len();
        self.ready.push(code);
        put_len(&mut self.ready, self.packed.len() as u64);
        self.ready.extend_from_slice(&self.packed);
        if self.has_checksum() {
            self.crc = crc64(self.crc, &self.ready[start..]);
        }
        self.run.clear();
        self.db = None;
    }

    fn seal_raw(&mut self) {
        if self.options.target == Target::Dfs {
            // Blobs may be read in another order than they stand in, so each run says where it is.
            self.db = None;
        }
        if self.has_checksum() {
            self.crc = crc64(self.crc, &self.run);
        }
        if self.ready.is_empty() {
            mem::swap(&mut self.ready, &mut self.run);
        } else {
            self.ready.extend_from_slice(&self.run);
            self.run.clear();
        }
    }

    /// How many final bytes there are to carry away.
    pub fn ready_len(&self) -> usize {
        self.ready.len()
    }

    /// Takes the final bytes: appended to `out`, or exchanged with it if it is empty.
    pub fn take(&mut self, out: &mut Vec<u8>) {
        if out.is_empty() {
            mem::swap(out, &mut self.ready);
        } else {
            out.append(&mut self.ready);
        }
    }
}
