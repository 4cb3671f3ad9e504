//! The files of one snapshot, found and read, and whether they belong together.
//!
//! A set is complete if its summary says how many shards there are, each of them is there, and each says that it
//! belongs to the same snapshot as the summary and is the shard that its name says. Anything else would be a server
//! that starts with a part of its data and says nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read};

use damselfly_rdb::{Error, Event, FileReader, FileSink, Item, Limits, Refused, crc64};

use crate::manifest::{FileRole, SHARDS_MAX, role_of};
use crate::storage::Storage;

/// For all files alike: a checksum that is there is compared, and what a careless or hostile writer put twice into
/// one compact value is found.
const LIMITS: Limits = Limits { find_duplicates: true, ..Limits::FILE };
/// Elements of one value among which equal ones are looked for. Compact forms, in which a second one would make a
/// file that nobody loads, have at most 512.
const COMPARED_MAX: usize = 8 << 10;
/// What is asked of a file at once.
const READ_LEN: usize = 256 << 10;

/// The name under which a dfs file has the source of a function library. Not as in rdb files, which have an opcode for
/// it: Dragonfly refuses a file with one, and passes over names that it does not know.
pub const FUNCTION_AUX: &[u8] = b"damselfly-function";

/// What is wrong with which file.
#[derive(Clone, Debug, PartialEq)]
pub struct SnapshotError {
    /// The file, as messages call it.
    pub file: String,
    /// What is wrong, and where in the file.
    pub why: Why,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq)]
pub enum Why {
    /// Its bytes.
    Format(Error),
    /// It cannot be read or written.
    Io(String),
    /// It does not fit the other files, or is not what its name says.
    Set(String),
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file)?;
        match &self.why {
            Why::Format(error) => error.fmt(f),
            Why::Io(text) | Why::Set(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for SnapshotError {}

/// What a file of a set says about where it belongs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ties {
    /// The snapshot's name, 32 digits as a rule.
    pub snapshot_id: Option<Vec<u8>>,
    /// Files with keys in the set.
    pub shard_count: Option<usize>,
    /// Which of them it is.
    pub shard_id: Option<usize>,
}

impl Ties {
    /// Takes note of what an item says about it.
    fn see(&mut self, item: &Item<'_>) -> Result<(), Refused> {
        let number = |value: &[u8]| {
            let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            number.ok_or(Refused("a number of shards that is none"))
        };
        match *item {
            Item::Aux { name: b"snapshot-id", value } => self.snapshot_id = Some(value.to_vec()),
            Item::Aux { name: b"shard-count", value } => self.shard_count = Some(number(value)?),
            Item::Aux { name: b"shard-id", value } => self.shard_id = Some(number(value)?),
            _ => {}
        }
        Ok(())
    }
}

/// Finds members and fields that a value has twice, where the encoding itself does not show it: by their checksums,
/// which are different for different names of up to eight bytes, and with all likelihood for longer ones.
#[derive(Default)]
struct Twice {
    plain: Vec<u64>,
    /// By number of the chunked value.
    chunked: BTreeMap<u32, Vec<u64>>,
}

impl Twice {
    fn see(&mut self, item: &Item<'_>) -> Result<(), Refused> {
        let (stream, event) = match item {
            Item::Key(key) => {
                self.of(key.stream).clear();
                return Ok(());
            }
            Item::Value { stream, event } => (*stream, event),
            _ => return Ok(()),
        };
        let name = match *event {
            Event::Member { member, .. } | Event::Scored { member, .. } => member,
            Event::Field { field, .. } => field,
            Event::End => return self.end(stream),
            _ => return Ok(()),
        };
        let seen = self.of(stream);
        if seen.len() < COMPARED_MAX {
            seen.push(crc64(0, name));
        }
        Ok(())
    }

    fn of(&mut self, stream: u32) -> &mut Vec<u64> {
        if stream == 0 { &mut self.plain } else { self.chunked.entry(stream).or_default() }
    }

    fn end(&mut self, stream: u32) -> Result<(), Refused> {
        let seen = self.of(stream);
        seen.sort_unstable();
        let is_twice = seen.windows(2).any(|pair| pair[0] == pair[1]);
        self.chunked.remove(&stream);
        if is_twice { Err(Refused("duplicate element")) } else { Ok(()) }
    }
}

/// One file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// Its size.
    pub len: u64,
    /// Which shard it is by its name. None for a summary and for the only file of a snapshot.
    pub shard: Option<usize>,
}

/// What was learned of a file by reading it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PartFacts {
    /// The format version.
    pub version: u32,
    /// The checksum it ends with, which was right; 0 if it carries none.
    pub checksum: u64,
    /// Bytes behind its end. Dragonfly fills the last 4096.
    pub trailing: u64,
}

/// A snapshot whose files are known.
pub struct Snapshot<'s> {
    storage: &'s dyn Storage,
    parts: Vec<Part>,
    /// What the summary says; none for a single file.
    ties: Option<Ties>,
}

impl<'s> Snapshot<'s> {
    /// The snapshot with this main file. Whoever names a shard's file gets that file alone.
    pub fn open(storage: &'s dyn Storage, main: &str) -> Result<Snapshot<'s>, SnapshotError> {
        let failed = |name: &str, why| SnapshotError { file: storage.describe(name), why };
        let part = |name: &str, shard| match storage.len(name) {
            Ok(len) => Ok(Part { name: name.to_owned(), len, shard }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(failed(name, Why::Set("the file is missing".to_owned())))
            }
            Err(error) => Err(failed(name, Why::Io(error.to_string()))),
        };
        let mut snapshot = Snapshot { storage, parts: vec![part(main, None)?], ties: None };
        let FileRole::Summary(base) = role_of(main) else { return Ok(snapshot) };
        let mut ties = Ties::default();
        snapshot.read_plain(0, &mut |_| {}, &mut |item: Item<'_>| match item {
            Item::Key(_) => Err(Refused("a summary has no keys")),
            item => ties.see(&item),
        })?;
        let odd = |text: String| failed(main, Why::Set(text));
        if ties.snapshot_id.is_none() {
            return Err(odd("the summary does not say which snapshot it belongs to".to_owned()));
        }
        let count =
            ties.shard_count.ok_or_else(|| odd("the summary does not say how many shards".to_owned()))?;
        if count == 0 || count > SHARDS_MAX {
            return Err(odd(format!("{count} is no number of shards")));
        }
        for shard in 0..count {
            snapshot.parts.push(part(&format!("{base}-{shard:04}.dfs"), Some(shard))?);
        }
        snapshot.ties = Some(ties);
        Ok(snapshot)
    }

    /// The files: the main one first, then the shards in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// What a part is called in messages.
    pub fn path(&self, part: usize) -> String {
        self.storage.describe(&self.parts[part].name)
    }

    /// Bytes of all files.
    pub fn len(&self) -> u64 {
        self.parts.iter().map(|part| part.len).sum()
    }

    /// Whether all its files are empty; then none of them can be read.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads a part to its end, and checks that it belongs to the summary. `progress` is told of bytes as they are
    /// read.
    pub fn read(
        &self,
        part: usize,
        progress: &mut dyn FnMut(u64),
        sink: &mut dyn FnMut(Item<'_>) -> Result<(), Refused>,
    ) -> Result<PartFacts, SnapshotError> {
        let (mut own, mut twice) = (Ties::default(), Twice::default());
        let (ties, shard) = (self.ties.as_ref(), self.parts[part].shard);
        let facts = self.read_plain(part, progress, &mut |item: Item<'_>| {
            own.see(&item)?;
            twice.see(&item)?;
            match (&item, ties) {
                (Item::Key(_), Some(_)) if shard.is_none() => return Err(Refused("a summary has no keys")),
                // Where it says so; or before the keys, so that nothing of a foreign file is taken in.
                (Item::Aux { name: b"snapshot-id", .. } | Item::Key(_), Some(ties))
                    if own.snapshot_id != ties.snapshot_id =>
                {
                    return Err(Refused("the file belongs to another snapshot than the summary"));
                }
                _ => {}
            }
            sink(item)
        })?;
        let Some(ties) = ties else { return Ok(facts) };
        let why = if own.snapshot_id != ties.snapshot_id {
            "the file belongs to another snapshot than the summary".to_owned()
        } else if let (Some(shard), Some(id)) = (shard, own.shard_id)
            && shard != id
        {
            format!("by its name the file is shard {shard}, by its contents shard {id}")
        } else {
            return Ok(facts);
        };
        Err(SnapshotError { file: self.path(part), why: Why::Set(why) })
    }

    fn read_plain(
        &self,
        part: usize,
        progress: &mut dyn FnMut(u64),
        sink: &mut impl FileSink,
    ) -> Result<PartFacts, SnapshotError> {
        let failed = |why| SnapshotError { file: self.path(part), why };
        let file = self.storage.open(&self.parts[part].name);
        let file = file.map_err(|error| failed(Why::Io(error.to_string())))?;
        let mut source = Counted { file, progress, read: 0, failure: None };
        let mut facts = PartFacts::default();
        let mut reader = FileReader::new(LIMITS);
        let result = reader.read_all(&mut source, &mut |item: Item<'_>| {
            match item {
                Item::Header { version } => facts.version = version,
                Item::Eof { checksum } => facts.checksum = checksum,
                _ => {}
            }
            sink.item(item)
        });
        if let (Err(_), Some(failure)) = (&result, source.failure.take()) {
            return Err(failed(Why::Io(format!("{failure} at offset {}", source.read))));
        }
        result.map_err(|error| failed(Why::Format(error)))?;
        // A file that grew while it was read has more behind its end than the list said.
        facts.trailing = self.parts[part].len.saturating_sub(reader.offset());
        let unread = self.parts[part].len.saturating_sub(source.read);
        (source.progress)(unread);
        Ok(facts)
    }
}

/// A file that tells how far it is, and keeps the words of its error: the reader has only room for the kind.
struct Counted<'a> {
    file: Box<dyn Read + Send>,
    progress: &'a mut dyn FnMut(u64),
    read: u64,
    failure: Option<io::Error>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(READ_LEN);
        match self.file.read(&mut buffer[..wanted]) {
            Ok(len) => {
                self.read += len as u64;
                (self.progress)(len as u64);
                Ok(len)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(error),
            Err(error) => {
                let kind = error.kind();
                self.failure = Some(error);
                Err(kind.into())
            }
        }
    }
}
