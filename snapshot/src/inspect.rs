//! What a snapshot holds, and whether it is whole.
//!
//! Everything is read to the last byte: structure, checksum, the ties between the files of a set. Of the data only
//! sums are kept, so the memory is that of one element however large the files are. A file that is broken does not
//! hide the others: the [`Report`] tells of all that could be read, and has the faults beside it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use damselfly_rdb::{Event, Item, Key, Kind, Refused};

use crate::manifest::{FileRole, role_of};
use crate::source::{FUNCTION_AUX, PartFacts, Snapshot, SnapshotError, Why};
use crate::storage::Storage;

/// What is kept of the name of a large key.
const KEY_LEN_MAX: usize = 1024;
/// More databases than any server has: the sums of each cost memory.
const DATABASES_MAX: usize = 1 << 16;
/// What is kept of what a file says about itself.
const AUX_LEN_MAX: usize = 256;
const AUX_COUNT_MAX: usize = 64;
/// Function libraries that are named; more are only counted.
const LIBRARIES_MAX: usize = 1024;
/// What is kept of the name of a library, and of its engine's.
const LIBRARY_NAME_LEN_MAX: usize = 64;

/// How to inspect.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Keys with a deadline before this count as due.
    pub now_ms: u64,
    /// How many of the largest keys to name.
    pub largest: usize,
}

/// The type of a value, as reports name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ValueKind {
    /// A string.
    String,
    /// A list.
    List,
    /// A set.
    Set,
    /// A hash.
    Hash,
    /// A sorted set.
    ZSet,
    /// A stream.
    Stream,
    /// A JSON document.
    Json,
    /// A Bloom filter.
    Bloom,
    /// A cuckoo filter.
    Cuckoo,
    /// A count-min sketch.
    CountMin,
    /// A top-k.
    TopK,
    /// A value of a module that is not built in.
    Module,
}

impl ValueKind {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            ValueKind::String => "string",
            ValueKind::List => "list",
            ValueKind::Set => "set",
            ValueKind::Hash => "hash",
            ValueKind::ZSet => "zset",
            ValueKind::Stream => "stream",
            ValueKind::Json => "json",
            ValueKind::Bloom => "bloom",
            ValueKind::Cuckoo => "cuckoo",
            ValueKind::CountMin => "count-min",
            ValueKind::TopK => "top-k",
            ValueKind::Module => "module",
        }
    }

    /// The kind of value that begins with an event.
    pub(crate) fn of(event: &Event<'_>) -> Option<ValueKind> {
        Some(match event {
            Event::String(_) => ValueKind::String,
            Event::Json(_) => ValueKind::Json,
            Event::Module { .. } => ValueKind::Module,
            Event::Begin { kind: Kind::List, .. } => ValueKind::List,
            Event::Begin { kind: Kind::Set, .. } => ValueKind::Set,
            Event::Begin { kind: Kind::Hash, .. } => ValueKind::Hash,
            Event::Begin { kind: Kind::ZSet, .. } => ValueKind::ZSet,
            Event::Begin { kind: Kind::Stream, .. } => ValueKind::Stream,
            Event::Bloom(_) => ValueKind::Bloom,
            Event::Cuckoo(_) => ValueKind::Cuckoo,
            Event::CountMin { .. } => ValueKind::CountMin,
            Event::TopK(_) => ValueKind::TopK,
            _ => return None,
        })
    }
}

/// Sums over keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Keys.
    pub keys: u64,
    /// Elements: members, fields, entries; a string is one.
    pub elements: u64,
    /// Bytes of keys and elements, without what a file or a server adds to them.
    pub bytes: u64,
    /// Keys with a deadline.
    pub expiring: u64,
}

impl Tally {
    fn add(&mut self, other: &Tally) {
        self.keys += other.keys;
        self.elements += other.elements;
        self.bytes += other.bytes;
        self.expiring += other.expiring;
    }
}

/// A large key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Large {
    /// Bytes of the key and its elements.
    pub bytes: u64,
    /// Its database.
    pub db: u64,
    /// The key, or the first 1024 bytes of it.
    pub key: Vec<u8>,
    /// Its type.
    pub kind: ValueKind,
    /// Its elements.
    pub elements: u64,
}

/// A function library, as its first line describes it: `#!engine name=name`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Library {
    /// What it calls itself, or the first 64 bytes of it; empty if the line does not say. A load refuses such a library.
    pub name: Vec<u8>,
    /// The language that it wants, in the same way.
    pub engine: Vec<u8>,
    /// Bytes of its source.
    pub bytes: u64,
}

impl Library {
    fn of(source: &[u8]) -> Library {
        let line = source.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let Some(line) = line.strip_prefix(b"#!") else {
            return Library { bytes: source.len() as u64, ..Library::default() };
        };
        let mut words = line.split(u8::is_ascii_whitespace);
        let engine = words.next().unwrap_or_default();
        let name = words.find_map(|word| word.strip_prefix(b"name=")).unwrap_or_default();
        let clipped = |text: &[u8]| text[..text.len().min(LIBRARY_NAME_LEN_MAX)].to_vec();
        Library { name: clipped(name), engine: clipped(engine), bytes: source.len() as u64 }
    }
}

/// A file that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct FileReport {
    /// Its name, without the place.
    pub name: String,
    /// Its size.
    pub len: u64,
    /// What was learned of it; none if it is broken.
    pub facts: Option<PartFacts>,
    /// Keys in it, as far as it could be read.
    pub keys: u64,
}

/// What a snapshot holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Its main file, as messages call it.
    pub path: String,
    /// Its files, the main one first.
    pub files: Vec<FileReport>,
    /// What the main file says about itself, in its order. Scripts are only counted.
    pub aux: Vec<(Vec<u8>, Vec<u8>)>,
    /// By database and type.
    pub databases: BTreeMap<u64, BTreeMap<ValueKind, Tally>>,
    /// The largest keys, the largest first.
    pub largest: Vec<Large>,
    /// The earliest deadline of a key.
    pub first_due_ms: Option<u64>,
    /// The last deadline of a key.
    pub last_due_ms: Option<u64>,
    /// Keys that are due already: a load leaves them out.
    pub due: u64,
    /// Fields and members with a deadline of their own.
    pub expiring_elements: u64,
    /// Keys that are never evicted.
    pub sticky: u64,
    /// Scripts.
    pub scripts: u64,
    /// Function libraries.
    pub functions: u64,
    /// The first 1024 of them, in the order of the files.
    pub libraries: Vec<Library>,
    /// What is odd, but harms nobody.
    pub notes: Vec<String>,
    /// What is wrong. A snapshot with any is not loaded.
    pub faults: Vec<SnapshotError>,
}

impl Report {
    /// Sums over a database.
    pub fn database(&self, db: u64) -> Tally {
        let mut sum = Tally::default();
        self.databases.get(&db).into_iter().flat_map(BTreeMap::values).for_each(|tally| sum.add(tally));
        sum
    }

    /// Sums over everything.
    pub fn total(&self) -> Tally {
        let mut sum = Tally::default();
        self.databases.values().flat_map(BTreeMap::values).for_each(|tally| sum.add(tally));
        sum
    }

    /// Files with keys.
    pub fn shards(&self) -> usize {
        if self.files.len() > 1 { self.files.len() - 1 } else { self.files.len() }
    }

    /// A piece of what the main file says about itself.
    pub fn aux(&self, name: &[u8]) -> Option<&[u8]> {
        self.aux.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_slice())
    }
}

/// Reads a snapshot, given its main file. `progress` is told how many bytes there are and how many were read.
pub fn inspect(
    storage: &dyn Storage,
    main: &str,
    options: &Options,
    progress: &mut dyn FnMut(u64, u64),
) -> Report {
    let mut report = Report { path: storage.describe(main), ..Report::default() };
    let snapshot = match Snapshot::open(storage, main) {
        Ok(snapshot) => snapshot,
        Err(fault) => {
            report.faults.push(fault);
            return report;
        }
    };
    let (all, mut read) = (snapshot.len(), 0);
    let mut counter = Counter { options, report, open: BTreeMap::new(), heap: BinaryHeap::new(), keys: 0 };
    for (number, part) in snapshot.parts().iter().enumerate() {
        counter.open.clear();
        counter.keys = 0;
        let mut tell = |len: u64| {
            read += len;
            progress(read, all);
        };
        let result = snapshot.read(number, &mut tell, &mut |item| counter.item(item, number == 0));
        let report = &mut counter.report;
        let mut file = FileReport { name: part.name.clone(), len: part.len, facts: None, keys: counter.keys };
        match result {
            Ok(facts) => {
                if facts.trailing >= DIRECT_BLOCK {
                    let path = snapshot.path(number);
                    report.notes.push(format!("{path}: {} bytes behind its end", facts.trailing));
                }
                file.facts = Some(facts);
            }
            Err(fault) => report.faults.push(fault),
        }
        report.files.push(file);
    }
    let mut report = counter.report;
    report.largest = counter.heap.into_sorted_vec().into_iter().map(|Reverse(large)| large).collect();
    report.notes.extend(strays(storage, main, snapshot.parts().len() - 1));
    report
}

/// Files are padded to this by writers that go around the system's cache; more is odd.
const DIRECT_BLOCK: u64 = 4096;

/// Shards beyond those of the set: what a save with more threads has left there. They are not read.
fn strays(storage: &dyn Storage, main: &str, shards: usize) -> Vec<String> {
    let FileRole::Summary(base) = role_of(main) else { return Vec::new() };
    let mut names: Vec<String> =
        storage.list().unwrap_or_default().into_iter().map(|file| file.name).collect();
    names.retain(
        |name| matches!(role_of(name), FileRole::Shard(of, number) if of == base && number >= shards),
    );
    names.sort();
    names
        .iter()
        .map(|name| format!("{}: no part of this snapshot, not read", storage.describe(name)))
        .collect()
}

/// The main files in a place, by name, and what lies there without one.
pub fn find(storage: &dyn Storage) -> Result<(Vec<String>, Vec<SnapshotError>), SnapshotError> {
    let listed = storage
        .list()
        .map_err(|error| SnapshotError { file: storage.describe(""), why: Why::Io(error.to_string()) })?;
    let mut names: Vec<&str> = listed.iter().map(|file| file.name.as_str()).collect();
    names.sort_unstable();
    let (mut mains, mut orphans) = (Vec::new(), Vec::new());
    for name in &names {
        match role_of(name) {
            FileRole::Rdb | FileRole::Summary(_) => mains.push((*name).to_owned()),
            FileRole::Shard(base, _) if !names.contains(&format!("{base}-summary.dfs").as_str()) => {
                let why = Why::Set("the summary of its snapshot is missing".to_owned());
                orphans.push(SnapshotError { file: storage.describe(name), why });
            }
            FileRole::Shard(..) | FileRole::Other => {}
        }
    }
    Ok((mains, orphans))
}

/// A key whose value is being read.
#[derive(Default)]
struct Open {
    db: u64,
    key: Vec<u8>,
    key_len: u64,
    expire_at_ms: Option<u64>,
    sticky: bool,
    kind: Option<ValueKind>,
    elements: u64,
    bytes: u64,
}

struct Counter<'a> {
    options: &'a Options,
    report: Report,
    /// By number of the chunked value; 0 is the one that is not chunked.
    open: BTreeMap<u32, Open>,
    heap: BinaryHeap<Reverse<Large>>,
    keys: u64,
}

impl Counter<'_> {
    fn item(&mut self, item: Item<'_>, is_main: bool) -> Result<(), Refused> {
        match item {
            Item::Key(key) => {
                let databases = &self.report.databases;
                if databases.len() >= DATABASES_MAX && !databases.contains_key(&key.db) {
                    return Err(Refused("more databases than a server has"));
                }
                self.key(key);
            }
            Item::Value { stream, event } => self.value(stream, event),
            Item::Aux { name: b"lua", .. } => self.report.scripts += u64::from(is_main),
            // A load takes them from whichever file has them.
            Item::Function(source) | Item::Aux { name: FUNCTION_AUX, value: source } => self.library(source),
            Item::Aux { name, value } if is_main && self.report.aux.len() < AUX_COUNT_MAX => {
                let clipped = |text: &[u8]| text[..text.len().min(AUX_LEN_MAX)].to_vec();
                self.report.aux.push((clipped(name), clipped(value)));
            }
            _ => {}
        }
        Ok(())
    }

    fn library(&mut self, source: &[u8]) {
        self.report.functions += 1;
        if self.report.libraries.len() < LIBRARIES_MAX {
            self.report.libraries.push(Library::of(source));
        }
    }

    fn key(&mut self, key: Key<'_>) {
        let open = self.open.entry(key.stream).or_default();
        let mut name = std::mem::take(&mut open.key);
        name.clear();
        name.extend_from_slice(&key.key[..key.key.len().min(KEY_LEN_MAX)]);
        *open = Open {
            db: key.db,
            key: name,
            key_len: key.key.len() as u64,
            expire_at_ms: key.meta.expire_at_ms,
            sticky: key.meta.sticky,
            ..Open::default()
        };
    }

    fn value(&mut self, stream: u32, event: Event<'_>) {
        let Some(open) = self.open.get_mut(&stream) else { return };
        if open.kind.is_none() {
            open.kind = ValueKind::of(&event);
        }
        let (elements, bytes) = match event {
            Event::String(text) | Event::Json(text) => (1, text.len()),
            Event::Element(text) => (1, text.len()),
            Event::Member { member, expire_at_ms } => {
                self.report.expiring_elements += u64::from(expire_at_ms.is_some());
                (1, member.len())
            }
            Event::Field { field, value, expire_at_ms } => {
                self.report.expiring_elements += u64::from(expire_at_ms.is_some());
                (1, field.len() + value.len())
            }
            Event::Scored { member, .. } => (1, member.len() + size_of::<f64>()),
            Event::Entry { fields, .. } => {
                (1, 16 + fields.iter().map(|(field, value)| field.len() + value.len()).sum::<usize>())
            }
            Event::Pending(_) => (0, 32),
            Event::Group(group) => (0, group.name.len() + 16),
            Event::Consumer(consumer) => (0, consumer.name.len() + 16),
            Event::TopKItem { item, .. } => (1, item.len() + 8),
            Event::BloomFilter { .. } | Event::CuckooFilter { .. } => (1, 0),
            Event::Bytes(bytes) => (0, bytes.len()),
            _ => (0, 0),
        };
        open.elements += elements;
        open.bytes += bytes as u64;
        if matches!(event, Event::String(_) | Event::Json(_) | Event::End) {
            self.close(stream);
        }
    }

    fn close(&mut self, stream: u32) {
        // The one that is not chunked keeps its memory for the next key.
        let owned;
        let open = if stream == 0 {
            &self.open[&0]
        } else {
            owned = self.open.remove(&stream).expect("it was just used");
            &owned
        };
        let kind = open.kind.expect("a value that ends has begun");
        let may_be_empty =
            !matches!(kind, ValueKind::List | ValueKind::Set | ValueKind::Hash | ValueKind::ZSet);
        if open.elements == 0 && !may_be_empty {
            // No server has such a key; a load drops it.
            return;
        }
        self.keys += 1;
        let report = &mut self.report;
        let tally = Tally {
            keys: 1,
            elements: open.elements,
            bytes: open.key_len + open.bytes,
            expiring: u64::from(open.expire_at_ms.is_some()),
        };
        report.databases.entry(open.db).or_default().entry(kind).or_default().add(&tally);
        report.sticky += u64::from(open.sticky);
        if let Some(at) = open.expire_at_ms {
            report.due += u64::from(at <= self.options.now_ms);
            report.first_due_ms = Some(report.first_due_ms.map_or(at, |first| first.min(at)));
            report.last_due_ms = Some(report.last_due_ms.map_or(at, |last| last.max(at)));
        }
        let (largest, heap) = (self.options.largest, &mut self.heap);
        let smallest = heap.peek().map_or(0, |Reverse(large)| large.bytes);
        if largest > 0 && (heap.len() < largest || tally.bytes > smallest) {
            heap.push(Reverse(Large {
                bytes: tally.bytes,
                db: open.db,
                key: open.key.clone(),
                kind,
                elements: open.elements,
            }));
            if heap.len() > largest {
                heap.pop();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Library;

    /// Whatever stands in the first line, there is something to show, and no more than that of a giant.
    #[test]
    fn first_lines() {
        for (source, engine, name) in [
            (&b"#!lua name=one\nreturn 1"[..], &b"lua"[..], &b"one"[..]),
            (b"#!js flags=x  name=two name=three", b"js", b"two"),
            (b"#!lua\nname=no", b"lua", b""),
            (b"lua name=unmarked", b"", b""),
            (b"#!", b"", b""),
            (b"", b"", b""),
        ] {
            let library = Library::of(source);
            assert_eq!((&library.engine[..], &library.name[..]), (engine, name));
            assert_eq!(library.bytes, source.len() as u64);
        }
        let giant = Library::of(&[b"#!", &[b'x'; 1000][..], b" name=", &[b'y'; 1000][..]].concat());
        assert_eq!((giant.engine, giant.name), (vec![b'x'; 64], vec![b'y'; 64]));
    }
}
