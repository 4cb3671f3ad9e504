//! Files and full-sync streams: what stands around the values.
//!
//! ```text
//! REDIS0009 | item ... | 255 checksum u64
//! item = opcode and its payload | value type, key, value
//! ```
//!
//! [`FileReader`] is fed bytes and asked to step; it owns no source, so the same code reads a file in one go and a
//! replication link as packets come. Items go to a [`FileSink`]. Three things overlay the plain sequence:
//!
//! - A compressed blob (201, 202) is a run of items of its own. It is expanded aside, read to its end, and must not
//!   contain another blob nor end inside an item.
//! - A tagged chunk (224) is a piece of one value; pieces of several values may alternate. Every such value has a
//!   decoder of its own, and its events carry the number of its stream. Number 0 is the value that is not chunked.
//! - Opcodes before a key (deadline, flags) wait in [`Meta`] until the key, or the first chunk, takes them.
//!
//! Memory: the bytes of one unfinished unit, one expanded blob, and one unit per chunked value.

use std::collections::BTreeMap;
use std::io::Read;

use crate::blob::Expander;
use crate::crc64::crc64;
use crate::decode::{ValueDecoder, skip_module_item};
use crate::error::{Error, ErrorKind, Refused, Stop};
use crate::event::{Event, ValueSink};
use crate::kinds::{MASK_MC_FLAGS, MASK_STICKY, VERSION_MAX, opcode, value_type};
use crate::limits::Limits;
use crate::wire::Cursor;

const HEADER_LEN: usize = 9;
/// Checksums exist since this version.
const VERSION_WITH_CHECKSUM: u32 = 5;
/// Items per step: as for units of a value.
const ITEMS_PER_STEP: usize = 128;
/// How much is asked of a source at once, and how much memory is kept for what comes next.
const READ_LEN_MIN: usize = 256 << 10;
const READ_LEN_MAX: usize = 1 << 20;
const KEEP_LEN_MAX: usize = 2 * READ_LEN_MAX;

/// Receives the items of a file in their order.
pub trait FileSink {
    /// Takes the next item, or stops the reader.
    fn item(&mut self, item: Item<'_>) -> Result<(), Refused>;
}

impl<F: FnMut(Item<'_>) -> Result<(), Refused>> FileSink for F {
    #[inline]
    fn item(&mut self, item: Item<'_>) -> Result<(), Refused> {
        self(item)
    }
}

/// One item of a file or full sync.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Item<'a> {
    /// The signature was right.
    Header {
        /// The format version.
        version: u32,
    },
    /// A piece of information about the file; unknown names are to be ignored.
    Aux {
        /// Its name.
        name: &'a [u8],
        /// Its value.
        value: &'a [u8],
    },
    /// Keys that follow belong to this database.
    SelectDb(u64),
    /// Sizes of the database's tables: hints, not to be trusted.
    ResizeDb {
        /// Keys.
        keys: u64,
        /// Keys with a deadline.
        expires: u64,
    },
    /// Sizes of a cluster slot: hints.
    SlotInfo {
        /// The slot.
        slot: u64,
        /// Keys.
        keys: u64,
        /// Keys with a deadline.
        expires: u64,
    },
    /// A key begins; its value follows as `Value` items of the same stream.
    Key(Key<'a>),
    /// A step through the value of the key that this stream began last.
    Value {
        /// 0, or the number of a chunked value.
        stream: u32,
        /// The step. A container without elements means no key: it is to be dropped.
        event: Event<'a>,
    },
    /// The source of a function library.
    Function(&'a [u8]),
    /// A module's data about the whole file was walked over.
    ModuleAux {
        /// The module type's id.
        id: u64,
    },
    /// Journal entries in the midst of a full sync.
    JournalBlob {
        /// How many.
        entries: u64,
        /// Their bytes.
        bytes: &'a [u8],
    },
    /// The sequence number with which the stable stream begins.
    JournalOffset(u64),
    /// Every key was sent; journal entries may follow.
    FullSyncEnd,
    /// The file is complete, its checksum right or absent (0).
    Eof {
        /// As written.
        checksum: u64,
    },
}

/// A key and what stands before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key<'a> {
    /// 0, or the number of the chunked value.
    pub stream: u32,
    /// Its database.
    pub db: u64,
    /// The key.
    pub key: &'a [u8],
    /// Its value's type in the file (see [`value_type`]).
    pub value_type: u8,
    /// Deadline and flags.
    pub meta: Meta,
}

/// What a key has besides its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Absolute deadline. It may have passed already.
    pub expire_at_ms: Option<u64>,
    /// Never evicted.
    pub sticky: bool,
    /// Flags of the memcache protocol.
    pub mc_flags: Option<u32>,
    /// Seconds since the last access, where the writer evicted by age.
    pub idle_s: Option<u64>,
    /// Access counter, where the writer evicted by frequency.
    pub freq: Option<u8>,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is more to do with the bytes at hand.
    Again,
    /// At least so many more bytes must be fed.
    More(usize),
    /// The end of the file was read; bytes after it are in [`FileReader::leftover`].
    Done,
}

/// Reads one file or full sync.
pub struct FileReader {
    window: Window,
    /// The blob being read, and how far.
    blob: Option<(Vec<u8>, usize)>,
    /// Memory for the next blob.
    spare: Vec<u8>,
    expander: Expander,
    core: Core,
    crc: u64,
}

/// Bytes fed and not consumed yet.
#[derive(Default)]
struct Window {
    /// Of these, from `start` to `end`. Behind them is room that was in use before and need not be cleared again.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// Bytes consumed before `start`'s byte, since the beginning of the stream.
    consumed: u64,
    /// No use in trying with fewer bytes than this. Without it, bytes that trickle in would make a long unit be
    /// begun again and again.
    wanted: usize,
}

impl Window {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    fn consume(&mut self, len: usize) {
        self.start += len;
        self.consumed += len as u64;
        self.wanted = 0;
    }

    /// Moves what is left to the front, so that the buffer grows only with what is really pending.
    fn compact(&mut self) {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            if self.bytes.len() > KEEP_LEN_MAX.max(self.end) {
                self.bytes.truncate(KEEP_LEN_MAX.max(self.end));
                self.bytes.shrink_to_fit();
            }
        }
    }

    /// Room for so many bytes behind those that are there.
    fn room(&mut self, len: usize) -> &mut [u8] {
        if self.bytes.len() - self.end < len {
            self.bytes.resize(self.end + len, 0);
        }
        &mut self.bytes[self.end..]
    }
}

impl FileReader {
    /// A reader at the beginning of a file.
    pub fn new(limits: Limits) -> FileReader {
        FileReader {
            window: Window::default(),
            blob: None,
            spare: Vec::new(),
            expander: Expander::default(),
            core: Core::new(limits),
            crc: 0,
        }
    }

    /// Appends bytes of the stream.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.window.compact();
        self.window.room(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.window.end += bytes.len();
    }

    /// Bytes of the stream consumed so far.
    pub fn offset(&self) -> u64 {
        self.window.consumed
    }

    /// Bytes fed and not consumed; after `Done`, what follows the end of the file.
    pub fn leftover(&self) -> &[u8] {
        self.window.rest()
    }

    /// Reads some items. Bounded work, so that a caller on a busy thread can do other things between two calls.
    pub fn step(&mut self, sink: &mut impl FileSink) -> Result<Progress, Error> {
        if self.core.state == State::Done {
            return Ok(Progress::Done);
        }
        if let Some((blob, at)) = &mut self.blob {
            let mut cursor = Cursor::new(blob);
            cursor.at = *at;
            let result = self.core.step(&mut cursor, true, sink);
            *at = cursor.at;
            let error = |kind| Error { kind, offset: self.window.consumed, blob_offset: Some(*at as u64) };
            match result {
                Ok(_) => {}
                Err(Stop::More(_)) => return Err(error(ErrorKind::Truncated)),
                Err(Stop::Bad(kind)) => return Err(error(kind)),
            }
            // A value may still have its end to tell; one that lacks bytes asks for more in the next step.
            if *at == blob.len() && self.core.state == State::Idle {
                self.spare = self.blob.take().expect("it was just read").0;
            }
            return Ok(Progress::Again);
        }

        let rest = self.window.rest();
        if rest.len() < self.window.wanted {
            return Ok(Progress::More(self.window.wanted - rest.len()));
        }
        let mut cursor = Cursor::new(rest);
        let result = self.core.step(&mut cursor, false, sink);
        let len = cursor.at;
        let error = |kind| Error { kind, offset: self.window.consumed + len as u64, blob_offset: None };
        let next = match result {
            Ok(next) => next,
            Err(Stop::Bad(kind)) => return Err(error(kind)),
            Err(Stop::More(missing)) => {
                self.crc = checksum(&self.core.limits, self.crc, &rest[..len]);
                let wanted = rest.len() - len + missing;
                self.window.consume(len);
                self.window.wanted = wanted;
                return Ok(Progress::More(missing));
            }
        };
        let expand = match next {
            Next::Items => None,
            Next::BlobZstd(frame) => Some((frame, Expander::zstd as Expand)),
            Next::BlobLz4(frame) => Some((frame, Expander::lz4 as Expand)),
            Next::Eof(checksum) => {
                let covered = if self.core.version < VERSION_WITH_CHECKSUM { len } else { len - 8 };
                if self.core.limits.verify_checksum
                    && checksum != 0
                    && checksum != crc64(self.crc, &rest[..covered])
                {
                    return Err(error(ErrorKind::Checksum));
                }
                sink.item(Item::Eof { checksum }).map_err(|refused| error(ErrorKind::Refused(refused)))?;
                self.window.consume(len);
                return Ok(Progress::Done);
            }
        };
        if let Some((frame, expand)) = expand {
            let mut content = std::mem::take(&mut self.spare);
            expand(&mut self.expander, frame, self.core.limits.blob_len_max, &mut content).map_err(error)?;
            content.shrink_to(4 * READ_LEN_MAX.max(content.len()));
            if !content.is_empty() {
                self.blob = Some((content, 0));
            }
        }
        self.crc = checksum(&self.core.limits, self.crc, &rest[..len]);
        self.window.consume(len);
        Ok(Progress::Again)
    }

    /// Reads a whole file from a blocking source. Bytes after the end are left in the source or in
    /// [`FileReader::leftover`].
    pub fn read_all(&mut self, source: &mut impl Read, sink: &mut impl FileSink) -> Result<(), Error> {
        loop {
            match self.step(sink)? {
                Progress::Again => {}
                Progress::Done => return Ok(()),
                Progress::More(missing) => self.fill(source, missing)?,
            }
        }
    }

    /// Reads until `missing` more bytes are at hand: in pieces, so that a claim of gigabytes costs nothing unless
    /// the gigabytes are there.
    fn fill(&mut self, source: &mut impl Read, missing: usize) -> Result<(), Error> {
        let window = &mut self.window;
        window.compact();
        let wanted = window.end + missing;
        while window.end < wanted {
            let room = window.room((wanted - window.end).clamp(READ_LEN_MIN, READ_LEN_MAX));
            let kind = match source.read(room) {
                Ok(0) => ErrorKind::Truncated,
                Ok(read) => {
                    window.end += read;
                    continue;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => ErrorKind::Io(error.kind()),
            };
            return Err(Error { kind, offset: window.consumed + window.end as u64, blob_offset: None });
        }
        Ok(())
    }
}

/// The checksum after more bytes, where it will be asked for.
fn checksum(limits: &Limits, crc: u64, bytes: &[u8]) -> u64 {
    if limits.verify_checksum { crc64(crc, bytes) } else { crc }
}

/// What the machine is in the midst of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Header,
    /// Between items.
    Idle,
    /// In the value that is not chunked.
    Value,
    ModuleAux,
    Done,
}

/// What the caller of the machine has to do.
enum Next<'a> {
    Items,
    BlobZstd(&'a [u8]),
    BlobLz4(&'a [u8]),
    Eof(u64),
}

type Expand = fn(&mut Expander, &[u8], u64, &mut Vec<u8>) -> Result<(), ErrorKind>;

/// The machine itself, over whatever bytes it is given.
struct Core {
    limits: Limits,
    state: State,
    version: u32,
    db: u64,
    meta: Meta,
    value: Option<ValueDecoder>,
    chunked: BTreeMap<u32, Chunked>,
    first: Vec<u8>,
    second: Vec<u8>,
}

/// A value that comes in chunks.
struct Chunked {
    db: u64,
    meta: Meta,
    decoder: Option<ValueDecoder>,
    /// Bytes of an unfinished unit.
    carry: Vec<u8>,
    /// See [`Window::wanted`].
    wanted: usize,
}

/// Events of a value as items of the file.
struct ValueItems<'s, S> {
    stream: u32,
    sink: &'s mut S,
}

impl<S: FileSink> ValueSink for ValueItems<'_, S> {
    #[inline]
    fn event(&mut self, event: Event<'_>) -> Result<(), Refused> {
        self.sink.item(Item::Value { stream: self.stream, event })
    }
}

impl Core {
    fn new(limits: Limits) -> Core {
        Core {
            limits,
            state: State::Header,
            version: 0,
            db: 0,
            meta: Meta::default(),
            value: None,
            chunked: BTreeMap::new(),
            first: Vec::new(),
            second: Vec::new(),
        }
    }

    /// Reads items until there is something for the caller to do, the bytes end, or it was enough for one step. The
    /// cursor stands behind the last whole item or unit.
    fn step<'a>(
        &mut self,
        cursor: &mut Cursor<'a>,
        in_blob: bool,
        sink: &mut impl FileSink,
    ) -> Result<Next<'a>, Stop> {
        for _ in 0..ITEMS_PER_STEP {
            let item = cursor.at;
            let next = match self.state {
                State::Value => {
                    let decoder = self.value.as_mut().expect("set up when the key was read");
                    // Its own cursor keeping is finer than that of items.
                    decoder.step(cursor, &mut ValueItems { stream: 0, sink: &mut *sink })?;
                    if decoder.is_done() {
                        self.state = State::Idle;
                    }
                    continue;
                }
                State::Idle if in_blob && cursor.left() == 0 => return Ok(Next::Items),
                State::Idle => self.item(cursor, in_blob, sink),
                State::Header => self.header(cursor, sink).map(|()| Next::Items),
                State::ModuleAux => skip_module_item(cursor, &self.limits).map(|end| {
                    if end {
                        self.state = State::Idle;
                    }
                    Next::Items
                }),
                State::Done => return Ok(Next::Items),
            };
            match next {
                Ok(Next::Items) => {}
                Ok(next) => return Ok(next),
                Err(stop) => {
                    cursor.at = item;
                    return Err(stop);
                }
            }
        }
        Ok(Next::Items)
    }

    fn header(&mut self, cursor: &mut Cursor<'_>, sink: &mut impl FileSink) -> Result<(), Stop> {
        let header = cursor.take(HEADER_LEN)?;
        let digits = header.strip_prefix(b"REDIS").filter(|digits| digits.iter().all(u8::is_ascii_digit));
        let digits = digits.ok_or(ErrorKind::Magic)?;
        let version = digits.iter().fold(0, |version, digit| version * 10 + u32::from(digit - b'0'));
        if !(1..=VERSION_MAX).contains(&version) {
            return Err(ErrorKind::Version(version).into());
        }
        sink.item(Item::Header { version })?;
        self.version = version;
        self.state = State::Idle;
        Ok(())
    }

    #[inline]
    fn item<'a>(
        &mut self,
        cursor: &mut Cursor<'a>,
        in_blob: bool,
        sink: &mut impl FileSink,
    ) -> Result<Next<'a>, Stop> {
        let code = cursor.u8()?;
        if code <= value_type::CUCKOO {
            return self.key(code, cursor, sink).map(|()| Next::Items);
        }
        self.opcode(code, cursor, in_blob, sink)
    }

    fn key(&mut self, value_type: u8, cursor: &mut Cursor<'_>, sink: &mut impl FileSink) -> Result<(), Stop> {
        match &mut self.value {
            Some(decoder) => decoder.restart(value_type)?,
            none => *none = Some(ValueDecoder::new(value_type, self.limits)?),
        }
        let key = cursor.string(&mut self.first, &self.limits)?;
        let meta = std::mem::take(&mut self.meta);
        sink.item(Item::Key(Key { stream: 0, db: self.db, key, value_type, meta }))?;
        self.state = State::Value;
        Ok(())
    }

    fn opcode<'a>(
        &mut self,
        code: u8,
        cursor: &mut Cursor<'a>,
        in_blob: bool,
        sink: &mut impl FileSink,
    ) -> Result<Next<'a>, Stop> {
        let limits = &self.limits;
        match code {
            opcode::SELECT_DB => {
                let db = cursor.length()?;
                sink.item(Item::SelectDb(db))?;
                self.db = db;
            }
            opcode::EXPIRE_MS => {
                // Signed: what lies before 1970 is due as well.
                let at = cursor.u64_le()? as i64;
                self.meta.expire_at_ms = Some(u64::try_from(at).unwrap_or(0));
            }
            opcode::EXPIRE_S => {
                let at = cursor.u32_le()? as i32;
                self.meta.expire_at_ms = Some(u64::try_from(at).unwrap_or(0) * 1000);
            }
            opcode::IDLE => self.meta.idle_s = Some(cursor.length()?),
            opcode::FREQ => self.meta.freq = Some(cursor.u8()?),
            opcode::MASK => {
                let mask = cursor.u32_le()?;
                let mc_flags = if mask & MASK_MC_FLAGS != 0 { Some(cursor.u32_le()?) } else { None };
                if mask & !(MASK_STICKY | MASK_MC_FLAGS) != 0 {
                    // An unknown bit may stand for bytes that follow.
                    return Err(ErrorKind::Opcode(code).into());
                }
                self.meta.sticky = mask & MASK_STICKY != 0;
                self.meta.mc_flags = mc_flags;
            }
            opcode::AUX => {
                let name = cursor.string(&mut self.first, limits)?;
                let value = cursor.string(&mut self.second, limits)?;
                sink.item(Item::Aux { name, value })?;
            }
            opcode::RESIZE_DB => {
                let (keys, expires) = (cursor.length()?, cursor.length()?);
                sink.item(Item::ResizeDb { keys, expires })?;
            }
            opcode::SLOT_INFO => {
                let (slot, keys, expires) = (cursor.length()?, cursor.length()?, cursor.length()?);
                sink.item(Item::SlotInfo { slot, keys, expires })?;
            }
            opcode::FUNCTION_2 => {
                let source = cursor.string(&mut self.first, limits)?;
                sink.item(Item::Function(source))?;
            }
            opcode::MODULE_AUX => {
                let id = cursor.length()?;
                sink.item(Item::ModuleAux { id })?;
                // When it is meant to be loaded: an integer item like those that follow.
                self.state = State::ModuleAux;
            }
            opcode::JOURNAL_BLOB => {
                let entries = cursor.length()?;
                let bytes = cursor.string(&mut self.first, limits)?;
                sink.item(Item::JournalBlob { entries, bytes })?;
            }
            opcode::JOURNAL_OFFSET => {
                let offset = cursor.u64_le()?;
                sink.item(Item::JournalOffset(offset))?;
            }
            opcode::FULL_SYNC_END => {
                cursor.take(8)?;
                sink.item(Item::FullSyncEnd)?;
            }
            opcode::TAGGED_CHUNK => {
                let (id, len) = (cursor.u32_le()?, cursor.u32_le()?);
                if u64::from(len) > limits.chunk_len_max {
                    return Err(ErrorKind::TooLarge("tagged chunk").into());
                }
                let chunk = cursor.take(len as usize)?;
                self.chunk(id, chunk, sink)?;
            }
            opcode::BLOB_ZSTD | opcode::BLOB_LZ4 => {
                if in_blob {
                    return Err(ErrorKind::Blob("blob inside a blob").into());
                }
                let len = cursor.size(limits.blob_len_max, "blob")?;
                let frame = cursor.take(len)?;
                return Ok(if code == opcode::BLOB_ZSTD {
                    Next::BlobZstd(frame)
                } else {
                    Next::BlobLz4(frame)
                });
            }
            opcode::EOF => {
                if in_blob {
                    return Err(ErrorKind::Blob("end of file inside a blob").into());
                }
                let checksum = if self.version < VERSION_WITH_CHECKSUM { 0 } else { cursor.u64_le()? };
                if !self.chunked.is_empty() {
                    return Err(ErrorKind::Chunk("a value without end").into());
                }
                self.state = State::Done;
                return Ok(Next::Eof(checksum));
            }
            _ => return Err(ErrorKind::Opcode(code).into()),
        }
        Ok(Next::Items)
    }

    fn chunk(&mut self, id: u32, chunk: &[u8], sink: &mut impl FileSink) -> Result<(), Stop> {
        if id == 0 {
            return Err(ErrorKind::Chunk("number 0").into());
        }
        if !self.chunked.contains_key(&id) {
            if self.chunked.len() >= self.limits.chunked_values_max {
                return Err(ErrorKind::TooLarge("number of chunked values").into());
            }
            let meta = std::mem::take(&mut self.meta);
            let begun = Chunked { db: self.db, meta, decoder: None, carry: Vec::new(), wanted: 0 };
            self.chunked.insert(id, begun);
        }
        let value = self.chunked.get_mut(&id).expect("just inserted");
        if value.take(id, chunk, &mut self.first, &self.limits, sink)? {
            self.chunked.remove(&id);
        }
        Ok(())
    }
}

impl Chunked {
    /// Reads what a chunk adds; true if the value is complete.
    fn take(
        &mut self,
        id: u32,
        chunk: &[u8],
        scratch: &mut Vec<u8>,
        limits: &Limits,
        sink: &mut impl FileSink,
    ) -> Result<bool, Stop> {
        let mut carry = std::mem::take(&mut self.carry);
        // Without a carry the chunk is read where it lies.
        let direct = carry.is_empty();
        if !direct {
            carry.extend_from_slice(chunk);
        }
        let bytes = if direct { chunk } else { &carry };
        let mut cursor = Cursor::new(bytes);
        let missing = if bytes.len() < self.wanted {
            self.wanted - bytes.len()
        } else {
            match self.read(id, &mut cursor, scratch, limits, sink) {
                Ok(()) if cursor.left() == 0 => return Ok(true),
                Ok(()) => return Err(ErrorKind::Chunk("bytes after its value").into()),
                Err(Stop::More(missing)) => missing,
                Err(bad) => return Err(bad),
            }
        };
        self.wanted = cursor.left() + missing;
        let read = cursor.at;
        if direct {
            carry.extend_from_slice(&chunk[read..]);
        } else {
            carry.drain(..read);
        }
        self.carry = carry;
        Ok(false)
    }

    fn read(
        &mut self,
        id: u32,
        cursor: &mut Cursor<'_>,
        scratch: &mut Vec<u8>,
        limits: &Limits,
        sink: &mut impl FileSink,
    ) -> Result<(), Stop> {
        let decoder = match &mut self.decoder {
            Some(decoder) => decoder,
            none => {
                let value_type = cursor.u8()?;
                let decoder = ValueDecoder::new(value_type, *limits)?;
                let key = match cursor.string(scratch, limits) {
                    Ok(key) => key,
                    Err(stop) => {
                        cursor.at = 0;
                        return Err(stop);
                    }
                };
                sink.item(Item::Key(Key { stream: id, db: self.db, key, value_type, meta: self.meta }))?;
                none.insert(decoder)
            }
        };
        while !decoder.is_done() {
            decoder.step(cursor, &mut ValueItems { stream: id, sink: &mut *sink })?;
        }
        Ok(())
    }
}
