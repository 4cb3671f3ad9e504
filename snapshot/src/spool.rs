//! Values put aside as events, until their counts are known.
//!
//! ```text
//! record = length of the rest | tag u8 | numbers and strings, each with its length
//! ```
//!
//! A written value begins with its count, and a value that is read may tell it last, or come in pieces between those
//! of others. So the events of every value are kept until its end: in memory while all that are open have little
//! together, beyond that in a file without a name, one per value, which the system takes back with the descriptor.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use damselfly_rdb::{
    Bloom, Consumer, Cuckoo, Event, Fields, Group, Kind, Pending, StreamId, StreamMeta, TopK,
};

/// A value's events go to its file in pieces of this, once all open values together are above the budget.
const SPILL_LEN: usize = 1 << 20;

/// The events of one value, in their order.
#[derive(Default)]
pub struct Spool {
    /// Records that are in no file.
    memory: Vec<u8>,
    file: Option<File>,
    /// Of the record being put together.
    record: Vec<u8>,
}

impl Spool {
    /// Bytes that are in memory.
    pub fn memory_len(&self) -> usize {
        self.memory.len()
    }

    /// Keeps an event.
    pub fn push(&mut self, event: &Event<'_>) {
        self.record.clear();
        put_event(&mut self.record, event);
        self.memory.extend_from_slice(&(self.record.len() as u64).to_le_bytes());
        self.memory.extend_from_slice(&self.record);
        if self.record.capacity() > SPILL_LEN {
            self.record = Vec::new();
        }
    }

    /// Moves what is in memory to a file in `directory`, if it is worth a call.
    pub fn spill(&mut self, directory: &Path) -> io::Result<()> {
        if self.memory.len() < SPILL_LEN {
            return Ok(());
        }
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(nameless(directory)?),
        };
        file.write_all(&self.memory)?;
        self.memory.clear();
        self.memory.shrink_to(2 * SPILL_LEN);
        Ok(())
    }

    /// Tells the events again, and is empty then.
    pub fn replay(&mut self, sink: &mut dyn FnMut(Event<'_>) -> io::Result<()>) -> io::Result<()> {
        let mut memory = std::mem::take(&mut self.memory);
        if let Some(mut file) = self.file.take() {
            file.seek(SeekFrom::Start(0))?;
            let mut source = BufReader::with_capacity(SPILL_LEN, file);
            // Pieces end where records end.
            while !source.fill_buf()?.is_empty() {
                let mut len = [0; 8];
                source.read_exact(&mut len)?;
                self.record.resize(u64::from_le_bytes(len) as usize, 0);
                source.read_exact(&mut self.record)?;
                sink(Fetch(&self.record).event(&mut Vec::new()))?;
            }
        }
        let mut rest = memory.as_slice();
        while let Some((len, behind)) = rest.split_first_chunk() {
            let (record, behind) = behind.split_at(u64::from_le_bytes(*len) as usize);
            sink(Fetch(record).event(&mut Vec::new()))?;
            rest = behind;
        }
        memory.clear();
        memory.shrink_to(2 * SPILL_LEN);
        self.memory = memory;
        Ok(())
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.memory.clear();
        self.file = None;
    }
}

/// A file that goes when it is closed, whatever becomes of the process.
fn nameless(directory: &Path) -> io::Result<File> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path: PathBuf = directory.join(format!(".damselfly-spool-{}-{number}.tmp", std::process::id()));
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

const STRING: u8 = 0;
const JSON: u8 = 1;
const MODULE: u8 = 2;
const BEGIN: u8 = 3;
const ELEMENT: u8 = 4;
const MEMBER: u8 = 5;
const FIELD: u8 = 6;
const SCORED: u8 = 7;
const ENTRY: u8 = 8;
const STREAM_META: u8 = 9;
const GROUP: u8 = 10;
const PENDING: u8 = 11;
const CONSUMERS: u8 = 12;
const CONSUMER: u8 = 13;
const CLAIMED: u8 = 14;
const BLOOM: u8 = 15;
const BLOOM_FILTER: u8 = 16;
const COUNT_MIN: u8 = 17;
const TOP_K: u8 = 18;
const TOP_K_ITEM: u8 = 19;
const TOP_K_COUNTERS: u8 = 20;
const CUCKOO: u8 = 21;
const CUCKOO_FILTER: u8 = 22;
const BYTES: u8 = 23;
const END: u8 = 24;

const KINDS: [Kind; 5] = [Kind::List, Kind::Set, Kind::Hash, Kind::ZSet, Kind::Stream];

fn put_number(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_numbers<const N: usize>(out: &mut Vec<u8>, numbers: [u64; N]) {
    numbers.into_iter().for_each(|number| put_number(out, number));
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_number(out, text.len() as u64);
    out.extend_from_slice(text);
}

fn put_optional(out: &mut Vec<u8>, number: Option<u64>) {
    out.push(u8::from(number.is_some()));
    put_number(out, number.unwrap_or(0));
}

fn put_id(out: &mut Vec<u8>, id: StreamId) {
    put_numbers(out, [id.ms, id.seq]);
}

/// Begins a record.
fn tagged(out: &mut Vec<u8>, tag: u8) -> &mut Vec<u8> {
    out.push(tag);
    out
}

fn put_event(out: &mut Vec<u8>, event: &Event<'_>) {
    match *event {
        Event::String(text) => put_text(tagged(out, STRING), text),
        Event::Json(text) => put_text(tagged(out, JSON), text),
        Event::Module { id } => put_number(tagged(out, MODULE), id),
        Event::Begin { kind, count } => {
            let kind = KINDS.iter().position(|known| *known == kind).expect("all kinds are there");
            put_numbers(tagged(out, BEGIN), [kind as u64, count]);
        }
        Event::Element(element) => put_text(tagged(out, ELEMENT), element),
        Event::Member { member, expire_at_ms } => {
            put_text(tagged(out, MEMBER), member);
            put_optional(out, expire_at_ms);
        }
        Event::Field { field, value, expire_at_ms } => {
            put_text(tagged(out, FIELD), field);
            put_text(out, value);
            put_optional(out, expire_at_ms);
        }
        Event::Scored { member, score } => {
            put_text(tagged(out, SCORED), member);
            put_number(out, score.to_bits());
        }
        Event::Entry { id, fields } => {
            put_id(tagged(out, ENTRY), id);
            put_number(out, fields.len() as u64);
            for (field, value) in fields.iter() {
                put_text(out, field);
                put_text(out, value);
            }
        }
        Event::StreamMeta(meta) => {
            put_number(tagged(out, STREAM_META), meta.length);
            [meta.last_id, meta.first_id, meta.max_deleted_id].into_iter().for_each(|id| put_id(out, id));
            put_numbers(out, [meta.entries_added, meta.groups]);
        }
        Event::Group(group) => {
            put_text(tagged(out, GROUP), group.name);
            put_id(out, group.last_id);
            put_optional(out, group.entries_read);
            put_number(out, group.pending);
        }
        Event::Pending(pending) => {
            put_id(tagged(out, PENDING), pending.id);
            put_numbers(out, [pending.delivered_at_ms, pending.deliveries]);
        }
        Event::Consumers(count) => put_number(tagged(out, CONSUMERS), count),
        Event::Consumer(consumer) => {
            put_text(tagged(out, CONSUMER), consumer.name);
            put_number(out, consumer.seen_at_ms);
            put_optional(out, consumer.active_at_ms);
            put_number(out, consumer.pending);
        }
        Event::Claimed(id) => put_id(tagged(out, CLAIMED), id),
        Event::Bloom(bloom) => put_numbers(
            tagged(out, BLOOM),
            [
                bloom.options,
                bloom.grow_factor.to_bits(),
                bloom.fp_probability.to_bits(),
                bloom.prev_size,
                bloom.current_size,
                bloom.max_capacity,
                bloom.filters,
            ],
        ),
        Event::BloomFilter { hashes, len } => put_numbers(tagged(out, BLOOM_FILTER), [hashes, len]),
        Event::CountMin { width, depth, count } => put_numbers(tagged(out, COUNT_MIN), [width, depth, count]),
        Event::TopK(top) => {
            put_numbers(tagged(out, TOP_K), [top.k, top.width, top.depth, top.decay.to_bits(), top.items]);
        }
        Event::TopKItem { item, count } => {
            put_text(tagged(out, TOP_K_ITEM), item);
            put_number(out, count);
        }
        Event::TopKCounters { len } => put_number(tagged(out, TOP_K_COUNTERS), len),
        Event::Cuckoo(cuckoo) => put_numbers(
            tagged(out, CUCKOO),
            [
                cuckoo.slots_per_bucket,
                cuckoo.max_iterations,
                cuckoo.expansion,
                cuckoo.buckets,
                cuckoo.items,
                cuckoo.deletes,
                cuckoo.filters,
            ],
        ),
        Event::CuckooFilter { len } => put_number(tagged(out, CUCKOO_FILTER), len),
        Event::Bytes(bytes) => put_text(tagged(out, BYTES), bytes),
        Event::End => out.push(END),
    }
}

/// Reads a record that this module wrote; anything else in it is a bug, or a disk that lies.
struct Fetch<'a>(&'a [u8]);

impl<'a> Fetch<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len);
        self.0 = rest;
        taken
    }

    fn byte(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn number(&mut self) -> u64 {
        u64::from_le_bytes(self.take(8).try_into().expect("eight bytes"))
    }

    fn float(&mut self) -> f64 {
        f64::from_bits(self.number())
    }

    fn text(&mut self) -> &'a [u8] {
        let len = self.number();
        self.take(len as usize)
    }

    fn optional(&mut self) -> Option<u64> {
        let is_there = self.byte() == 1;
        Some(self.number()).filter(|_| is_there)
    }

    fn id(&mut self) -> StreamId {
        StreamId { ms: self.number(), seq: self.number() }
    }

    /// The event; `pairs` holds the fields of a stream's entry.
    fn event<'p>(mut self, pairs: &'p mut Vec<(&'a [u8], &'a [u8])>) -> Event<'p> {
        match self.byte() {
            STRING => Event::String(self.text()),
            JSON => Event::Json(self.text()),
            MODULE => Event::Module { id: self.number() },
            BEGIN => Event::Begin { kind: KINDS[self.number() as usize], count: self.number() },
            ELEMENT => Event::Element(self.text()),
            MEMBER => Event::Member { member: self.text(), expire_at_ms: self.optional() },
            FIELD => Event::Field { field: self.text(), value: self.text(), expire_at_ms: self.optional() },
            SCORED => Event::Scored { member: self.text(), score: self.float() },
            ENTRY => {
                let (id, count) = (self.id(), self.number());
                pairs.extend((0..count).map(|_| (self.text(), self.text())));
                Event::Entry { id, fields: Fields::new(pairs) }
            }
            STREAM_META => Event::StreamMeta(StreamMeta {
                length: self.number(),
                last_id: self.id(),
                first_id: self.id(),
                max_deleted_id: self.id(),
                entries_added: self.number(),
                groups: self.number(),
            }),
            GROUP => Event::Group(Group {
                name: self.text(),
                last_id: self.id(),
                entries_read: self.optional(),
                pending: self.number(),
            }),
            PENDING => Event::Pending(Pending {
                id: self.id(),
                delivered_at_ms: self.number(),
                deliveries: self.number(),
            }),
            CONSUMERS => Event::Consumers(self.number()),
            CONSUMER => Event::Consumer(Consumer {
                name: self.text(),
                seen_at_ms: self.number(),
                active_at_ms: self.optional(),
                pending: self.number(),
            }),
            CLAIMED => Event::Claimed(self.id()),
            BLOOM => Event::Bloom(Bloom {
                options: self.number(),
                grow_factor: self.float(),
                fp_probability: self.float(),
                prev_size: self.number(),
                current_size: self.number(),
                max_capacity: self.number(),
                filters: self.number(),
            }),
            BLOOM_FILTER => Event::BloomFilter { hashes: self.number(), len: self.number() },
            COUNT_MIN => Event::CountMin { width: self.number(), depth: self.number(), count: self.number() },
            TOP_K => Event::TopK(TopK {
                k: self.number(),
                width: self.number(),
                depth: self.number(),
                decay: self.float(),
                items: self.number(),
            }),
            TOP_K_ITEM => Event::TopKItem { item: self.text(), count: self.number() },
            TOP_K_COUNTERS => Event::TopKCounters { len: self.number() },
            CUCKOO => Event::Cuckoo(Cuckoo {
                slots_per_bucket: self.number(),
                max_iterations: self.number(),
                expansion: self.number(),
                buckets: self.number(),
                items: self.number(),
                deletes: self.number(),
                filters: self.number(),
            }),
            CUCKOO_FILTER => Event::CuckooFilter { len: self.number() },
            BYTES => Event::Bytes(self.text()),
            END => Event::End,
            tag => panic!("no record has tag {tag}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every event comes back as it was, from memory and from a file.
    #[test]
    fn events_come_back() {
        let id = StreamId { ms: 7, seq: u64::MAX };
        let pairs: [(&[u8], &[u8]); 2] = [(b"f", b""), (b"", b"\xff\x00")];
        let long = vec![b'x'; SPILL_LEN];
        let events = [
            Event::String(b"text"),
            Event::Json(b"{}"),
            Event::Module { id: 9 },
            Event::Begin { kind: Kind::Stream, count: 3 },
            Event::Element(b""),
            Event::Member { member: b"m", expire_at_ms: None },
            Event::Field { field: b"f", value: &long, expire_at_ms: Some(0) },
            Event::Scored { member: b"m", score: -0.5 },
            Event::Entry { id, fields: Fields::new(&pairs) },
            Event::StreamMeta(StreamMeta { length: 1, last_id: id, groups: 2, ..StreamMeta::default() }),
            Event::Group(Group { name: b"g", last_id: id, entries_read: None, pending: 4 }),
            Event::Pending(Pending { id, delivered_at_ms: 5, deliveries: 6 }),
            Event::Consumers(1),
            Event::Consumer(Consumer { name: b"c", seen_at_ms: 1, active_at_ms: Some(2), pending: 3 }),
            Event::Claimed(id),
            Event::Bloom(Bloom { options: 1, grow_factor: 2.0, fp_probability: 0.01, ..Bloom::default() }),
            Event::BloomFilter { hashes: 3, len: 4 },
            Event::CountMin { width: 1, depth: 2, count: 3 },
            Event::TopK(TopK { k: 1, width: 2, depth: 3, decay: 0.9, items: 4 }),
            Event::TopKItem { item: b"i", count: 1 },
            Event::TopKCounters { len: 8 },
            Event::Cuckoo(Cuckoo { slots_per_bucket: 1, filters: 7, ..Cuckoo::default() }),
            Event::CuckooFilter { len: 3 },
            Event::Bytes(b"\x00"),
            Event::End,
        ];
        for spilled in [false, true] {
            let mut spool = Spool::default();
            for event in &events {
                spool.push(event);
                if spilled {
                    spool.spill(&std::env::temp_dir()).expect("room for a file");
                }
            }
            assert_eq!(spool.file.is_some(), spilled);
            let mut expected = events.iter();
            let replayed = spool.replay(&mut |event| {
                // Entries are equal by their contents, not by how they are held.
                match (&event, expected.next().expect("not more than there were")) {
                    (Event::Entry { id, fields }, Event::Entry { id: of, fields: want }) => {
                        assert!(id == of && fields.iter().eq(want.iter()));
                    }
                    (event, want) => assert_eq!(event, want),
                }
                Ok(())
            });
            replayed.expect("a file reads as it was written");
            assert!(expected.next().is_none());
        }
    }
}
