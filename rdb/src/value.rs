//! A whole value in memory: for payloads of ordinary size and for tests. Big values go through events.

use crate::encode::{Encoder, Shape, ValueWriter};
use crate::entries::Entries;
use crate::error::{Error, ErrorKind, Refused};
use crate::event::{
    Bloom, Consumer, Cuckoo, Event, Group, Kind, Pending, StreamId, StreamMeta, TopK, ValueSink,
};
use crate::measure::Measure;

/// One value of any type. Deadlines are absolute milliseconds.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A string.
    String(Vec<u8>),
    /// The text of a JSON document.
    Json(Vec<u8>),
    /// Elements in order.
    List(Vec<Vec<u8>>),
    /// Members, each with its deadline.
    Set(Vec<(Vec<u8>, Option<u64>)>),
    /// Fields, values, deadlines.
    Hash(Vec<(Vec<u8>, Vec<u8>, Option<u64>)>),
    /// Members and scores.
    ZSet(Vec<(Vec<u8>, f64)>),
    /// A stream.
    Stream(StreamValue),
    /// A scalable Bloom filter: head, then hash count and bits of each filter.
    Bloom(Bloom, Vec<(u64, Vec<u8>)>),
    /// A count-min sketch.
    CountMin {
        /// Counters per row.
        width: u64,
        /// Rows.
        depth: u64,
        /// Sum of all increments.
        count: u64,
        /// The counters, i64le, row by row.
        counters: Vec<u8>,
    },
    /// A top-k: head, items with counts, counters as u32le.
    TopK(TopK, Vec<(Vec<u8>, u64)>, Vec<u8>),
    /// A cuckoo filter: head, then the buckets of each filter.
    Cuckoo(Cuckoo, Vec<Vec<u8>>),
    /// A module value that was walked over.
    Module {
        /// The module type's id.
        id: u64,
    },
}

/// A stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StreamValue {
    /// Entries in order of their ids.
    pub entries: Entries,
    /// Counters and ids.
    pub meta: StreamMeta,
    /// Consumer groups.
    pub groups: Vec<GroupValue>,
}

/// A consumer group.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupValue {
    /// Its name.
    pub name: Vec<u8>,
    /// The last id delivered.
    pub last_id: StreamId,
    /// Entries read, if known.
    pub entries_read: Option<u64>,
    /// Pending entries.
    pub pending: Vec<Pending>,
    /// Consumers.
    pub consumers: Vec<ConsumerValue>,
}

/// A consumer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConsumerValue {
    /// Its name.
    pub name: Vec<u8>,
    /// When it last tried anything.
    pub seen_at_ms: u64,
    /// When it last got something.
    pub active_at_ms: Option<u64>,
    /// Pending entries it owns.
    pub claimed: Vec<StreamId>,
}

impl Value {
    /// Whether the value has no elements and is of a type that may not be so: Redis has no such keys, and skips
    /// them when a file has one.
    pub fn is_empty_container(&self) -> bool {
        match self {
            Value::List(elements) => elements.is_empty(),
            Value::Set(members) => members.is_empty(),
            Value::Hash(fields) => fields.is_empty(),
            Value::ZSet(members) => members.is_empty(),
            _ => false,
        }
    }

    /// The shape in which the value is written: compact within Redis' thresholds. Module values, of which nothing
    /// was kept, have none: asking is a bug.
    pub fn shape(&self) -> Shape {
        let mut measure = Measure::new();
        self.emit(&mut measure).expect("a measure refuses nothing");
        measure.shape().expect("module values are walked over, not kept")
    }

    /// Writes the value through a writer of its [`Value::shape`].
    pub fn write(&self, writer: &mut ValueWriter, encoder: &mut Encoder, out: &mut Vec<u8>) {
        let written = self.emit(&mut |event: Event<'_>| {
            writer.put(encoder, out, event);
            Ok(())
        });
        written.expect("the closure refuses nothing");
    }

    /// Tells the value as events, in the order in which a decoder would.
    pub fn emit(&self, sink: &mut impl ValueSink) -> Result<(), Refused> {
        let begin = |kind, count: usize| Event::Begin { kind, count: count as u64 };
        match self {
            Value::String(string) => return sink.event(Event::String(string)),
            Value::Json(text) => return sink.event(Event::Json(text)),
            Value::List(elements) => {
                sink.event(begin(Kind::List, elements.len()))?;
                elements.iter().try_for_each(|element| sink.event(Event::Element(element)))?;
            }
            Value::Set(members) => {
                sink.event(begin(Kind::Set, members.len()))?;
                for (member, expire_at_ms) in members {
                    sink.event(Event::Member { member, expire_at_ms: *expire_at_ms })?;
                }
            }
            Value::Hash(fields) => {
                sink.event(begin(Kind::Hash, fields.len()))?;
                for (field, value, expire_at_ms) in fields {
                    sink.event(Event::Field { field, value, expire_at_ms: *expire_at_ms })?;
                }
            }
            Value::ZSet(members) => {
                sink.event(begin(Kind::ZSet, members.len()))?;
                for &(ref member, score) in members {
                    sink.event(Event::Scored { member, score })?;
                }
            }
            Value::Stream(stream) => stream.emit(sink)?,
            Value::Bloom(head, filters) => {
                sink.event(Event::Bloom(*head))?;
                for (hashes, bits) in filters {
                    sink.event(Event::BloomFilter { hashes: *hashes, len: bits.len() as u64 })?;
                    sink.event(Event::Bytes(bits))?;
                }
            }
            &Value::CountMin { width, depth, count, ref counters } => {
                sink.event(Event::CountMin { width, depth, count })?;
                sink.event(Event::Bytes(counters))?;
            }
            Value::TopK(head, items, counters) => {
                sink.event(Event::TopK(*head))?;
                for (item, count) in items {
                    sink.event(Event::TopKItem { item, count: *count })?;
                }
                sink.event(Event::TopKCounters { len: counters.len() as u64 })?;
                sink.event(Event::Bytes(counters))?;
            }
            Value::Cuckoo(head, filters) => {
                sink.event(Event::Cuckoo(*head))?;
                for buckets in filters {
                    sink.event(Event::CuckooFilter { len: buckets.len() as u64 })?;
                    sink.event(Event::Bytes(buckets))?;
                }
            }
            Value::Module { id } => sink.event(Event::Module { id: *id })?,
        }
        sink.event(Event::End)
    }
}

impl StreamValue {
    fn emit(&self, sink: &mut impl ValueSink) -> Result<(), Refused> {
        sink.event(Event::Begin { kind: Kind::Stream, count: 0 })?;
        for (id, fields) in self.entries.iter() {
            sink.event(Event::Entry { id, fields })?;
        }
        sink.event(Event::StreamMeta(StreamMeta { groups: self.groups.len() as u64, ..self.meta }))?;
        for group in &self.groups {
            let GroupValue { name, last_id, entries_read, pending, consumers } = group;
            sink.event(Event::Group(Group {
                name,
                last_id: *last_id,
                entries_read: *entries_read,
                pending: pending.len() as u64,
            }))?;
            pending.iter().try_for_each(|pending| sink.event(Event::Pending(*pending)))?;
            sink.event(Event::Consumers(consumers.len() as u64))?;
            for ConsumerValue { name, seen_at_ms, active_at_ms, claimed } in consumers {
                sink.event(Event::Consumer(Consumer {
                    name,
                    seen_at_ms: *seen_at_ms,
                    active_at_ms: *active_at_ms,
                    pending: claimed.len() as u64,
                }))?;
                claimed.iter().try_for_each(|id| sink.event(Event::Claimed(*id)))?;
            }
        }
        Ok(())
    }
}

/// Builds a [`Value`] from events and refuses what a keyspace would refuse: duplicate members, fields, groups,
/// consumers and pending entries, and claims of entries that nobody has pending.
#[derive(Default)]
pub struct Collector {
    value: Option<Value>,
    done: bool,
}

const DUPLICATE: Refused = Refused("duplicate element");
pub(crate) const MISPLACED: Refused = Refused("event out of order");

impl Collector {
    /// A collector for one value.
    pub fn new() -> Collector {
        Collector::default()
    }

    /// Whether the value is complete.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Whether there was an event.
    pub(crate) fn has_begun(&self) -> bool {
        self.value.is_some()
    }

    /// The value, once it is complete.
    pub fn finish(self) -> Option<Value> {
        self.value.filter(|_| self.done)
    }

    fn check(&self) -> Result<(), Refused> {
        let unique = match &self.value {
            Some(Value::Set(members)) => all_different(members.iter().map(|(member, _)| member)),
            Some(Value::Hash(fields)) => all_different(fields.iter().map(|(field, ..)| field)),
            Some(Value::ZSet(members)) => all_different(members.iter().map(|(member, _)| member)),
            Some(Value::Stream(stream)) => return stream.check(),
            _ => true,
        };
        if unique { Ok(()) } else { Err(DUPLICATE) }
    }
}

fn all_different<T: Ord>(keys: impl Iterator<Item = T>) -> bool {
    let mut keys: Vec<T> = keys.collect();
    keys.sort_unstable();
    keys.windows(2).all(|pair| pair[0] != pair[1])
}

impl StreamValue {
    fn check(&self) -> Result<(), Refused> {
        if !all_different(self.groups.iter().map(|group| &group.name)) {
            return Err(DUPLICATE);
        }
        for group in &self.groups {
            let mut pending: Vec<StreamId> = group.pending.iter().map(|pending| pending.id).collect();
            pending.sort_unstable();
            let claimed = || group.consumers.iter().flat_map(|consumer| &consumer.claimed);
            if !all_different(group.consumers.iter().map(|consumer| &consumer.name))
                || !all_different(pending.iter())
                || !all_different(claimed())
            {
                return Err(DUPLICATE);
            }
            if claimed().any(|id| pending.binary_search(id).is_err()) {
                return Err(Refused("claimed entry is not pending"));
            }
        }
        Ok(())
    }
}

impl ValueSink for Collector {
    fn event(&mut self, event: Event<'_>) -> Result<(), Refused> {
        match (&mut self.value, event) {
            (value @ None, event) => {
                self.done = matches!(event, Event::String(_) | Event::Json(_));
                *value = Some(match event {
                    Event::String(string) => Value::String(string.to_vec()),
                    Event::Json(text) => Value::Json(text.to_vec()),
                    Event::Module { id } => Value::Module { id },
                    Event::Begin { kind: Kind::List, .. } => Value::List(Vec::new()),
                    Event::Begin { kind: Kind::Set, .. } => Value::Set(Vec::new()),
                    Event::Begin { kind: Kind::Hash, .. } => Value::Hash(Vec::new()),
                    Event::Begin { kind: Kind::ZSet, .. } => Value::ZSet(Vec::new()),
                    Event::Begin { kind: Kind::Stream, .. } => Value::Stream(StreamValue::default()),
                    Event::Bloom(head) => Value::Bloom(head, Vec::new()),
                    Event::CountMin { width, depth, count } => {
                        Value::CountMin { width, depth, count, counters: Vec::new() }
                    }
                    Event::TopK(head) => Value::TopK(head, Vec::new(), Vec::new()),
                    Event::Cuckoo(head) => Value::Cuckoo(head, Vec::new()),
                    _ => return Err(MISPLACED),
                });
            }
            (_, Event::End) => {
                self.check()?;
                self.done = true;
            }
            (Some(Value::List(elements)), Event::Element(element)) => elements.push(element.to_vec()),
            (Some(Value::Set(members)), Event::Member { member, expire_at_ms }) => {
                members.push((member.to_vec(), expire_at_ms));
            }
            (Some(Value::Hash(fields)), Event::Field { field, value, expire_at_ms }) => {
                fields.push((field.to_vec(), value.to_vec(), expire_at_ms));
            }
            (Some(Value::ZSet(members)), Event::Scored { member, score }) => {
                members.push((member.to_vec(), score));
            }
            (Some(Value::Stream(stream)), event) => return stream.take(event),
            (Some(Value::Bloom(_, filters)), Event::BloomFilter { hashes, .. }) => {
                filters.push((hashes, Vec::new()));
            }
            (Some(Value::Bloom(_, filters)), Event::Bytes(piece)) => {
                filters.last_mut().ok_or(MISPLACED)?.1.extend_from_slice(piece);
            }
            (Some(Value::CountMin { counters, .. }), Event::Bytes(piece)) => {
                counters.extend_from_slice(piece)
            }
            (Some(Value::TopK(_, items, _)), Event::TopKItem { item, count }) => {
                items.push((item.to_vec(), count))
            }
            (Some(Value::TopK(..)), Event::TopKCounters { .. }) => {}
            (Some(Value::TopK(_, _, counters)), Event::Bytes(piece)) => counters.extend_from_slice(piece),
            (Some(Value::Cuckoo(_, filters)), Event::CuckooFilter { .. }) => filters.push(Vec::new()),
            (Some(Value::Cuckoo(_, filters)), Event::Bytes(piece)) => {
                filters.last_mut().ok_or(MISPLACED)?.extend_from_slice(piece);
            }
            _ => return Err(MISPLACED),
        }
        Ok(())
    }
}

impl StreamValue {
    fn take(&mut self, event: Event<'_>) -> Result<(), Refused> {
        match event {
            Event::Entry { id, fields } => self.entries.push(id, fields.iter()),
            Event::StreamMeta(meta) => self.meta = meta,
            Event::Group(group) => self.groups.push(GroupValue {
                name: group.name.to_vec(),
                last_id: group.last_id,
                entries_read: group.entries_read,
                ..GroupValue::default()
            }),
            Event::Pending(pending) => self.groups.last_mut().ok_or(MISPLACED)?.pending.push(pending),
            Event::Consumers(_) => {}
            Event::Consumer(consumer) => {
                self.groups.last_mut().ok_or(MISPLACED)?.consumers.push(ConsumerValue {
                    name: consumer.name.to_vec(),
                    seen_at_ms: consumer.seen_at_ms,
                    active_at_ms: consumer.active_at_ms,
                    claimed: Vec::new(),
                });
            }
            Event::Claimed(id) => {
                let consumer = self.groups.last_mut().and_then(|group| group.consumers.last_mut());
                consumer.ok_or(MISPLACED)?.claimed.push(id);
            }
            _ => return Err(MISPLACED),
        }
        Ok(())
    }
}

/// What a whole payload decodes to, as an error with its place.
pub(crate) fn placed(kind: ErrorKind, offset: usize) -> Error {
    Error { kind, offset: offset as u64, blob_offset: None }
}
