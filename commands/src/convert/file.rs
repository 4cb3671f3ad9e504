//! Collections into a file, element by element: what is written is not in memory a second time.

use damselfly_keyspace::Object;
use damselfly_keyspace::stream::{self, Stream, StreamId};
use damselfly_keyspace::values::hash::Hash;
use damselfly_keyspace::values::set::Set;
use damselfly_keyspace::values::zset::SortedSet;
use damselfly_rdb::{Consumer, Entry, Event, Fields, FileWriter, Group, Kind, Meta, NodeSizer, Shape};

use super::{id_to_rdb, meta_to_rdb, pending_to_rdb, to_rdb};

/// Room for the decimal form of an integer.
type Digits = [u8; 20];

/// Final bytes after which they are carried away.
const CARRY_FROM: usize = 1 << 20;

/// A writer whose final bytes are carried away in time, however long an entry is.
struct Out<'a> {
    writer: &'a mut FileWriter,
    carry: &'a mut dyn FnMut(&mut FileWriter),
}

impl Out<'_> {
    #[inline]
    fn put(&mut self, entry: &mut Entry, event: Event<'_>) {
        self.writer.put(entry, event);
        if self.writer.ready_len() >= CARRY_FROM {
            (self.carry)(self.writer);
        }
    }
}

/// Writes a collection as an entry of a file. `carry` takes the writer's final bytes away when there are many.
pub fn write_object(
    writer: &mut FileWriter,
    db: u64,
    meta: &Meta,
    key: &[u8],
    object: &Object,
    carry: &mut dyn FnMut(&mut FileWriter),
) {
    let mut out = Out { writer, carry };
    let (mut one, mut other): (Digits, Digits) = Default::default();
    match object {
        Object::List(list) => {
            let mut sizer = NodeSizer::list();
            for item in list.iter() {
                sizer.add_element(item.as_bytes(&mut one).len());
            }
            let mut entry = out.writer.begin(db, meta, key, Shape::List { nodes: sizer.nodes() });
            out.put(&mut entry, Event::Begin { kind: Kind::List, count: list.len() as u64 });
            for item in list.iter() {
                out.put(&mut entry, Event::Element(item.as_bytes(&mut one)));
            }
            out.put(&mut entry, Event::End);
        }
        // Elements that have expired go along, with their deadlines: whoever reads them drops them.
        Object::Hash(hash @ Hash::Big(_)) => {
            let count = hash.len(0) as u64;
            let expires = hash.next_expiry().is_some();
            let shape = if expires { Shape::ExpiringHash { count } } else { Shape::Hash { count } };
            let mut entry = out.writer.begin(db, meta, key, shape);
            out.put(&mut entry, Event::Begin { kind: Kind::Hash, count });
            hash.for_each(0, |field| {
                let expire_at_ms = field.expire_at;
                let (field, value) = (field.field.as_bytes(&mut one), field.value.as_bytes(&mut other));
                out.put(&mut entry, Event::Field { field, value, expire_at_ms });
            });
            out.put(&mut entry, Event::End);
        }
        Object::Set(set @ Set::Big(_)) => {
            let count = set.len() as u64;
            let expires = set.next_expiry().is_some();
            let shape = if expires { Shape::ExpiringSet { count } } else { Shape::Set { count } };
            let mut entry = out.writer.begin(db, meta, key, shape);
            out.put(&mut entry, Event::Begin { kind: Kind::Set, count });
            set.for_each(|member, expire_at_ms| {
                let member = member.as_bytes(&mut one);
                out.put(&mut entry, Event::Member { member, expire_at_ms });
            });
            out.put(&mut entry, Event::End);
        }
        Object::ZSet(zset @ SortedSet::Big(_)) => {
            let count = zset.len() as u64;
            let mut entry = out.writer.begin(db, meta, key, Shape::ZSet { count });
            out.put(&mut entry, Event::Begin { kind: Kind::ZSet, count });
            zset.for_each(|member, score| {
                out.put(&mut entry, Event::Scored { member, score });
            });
            out.put(&mut entry, Event::End);
        }
        Object::Stream(stream) => write_stream(&mut out, db, meta, key, stream),
        object => out.writer.value(db, meta, key, &to_rdb(object)),
    }
}

/// Calls `visit` for every entry with its fields as the format takes them.
fn for_each_entry(stream: &Stream, mut visit: impl FnMut(StreamId, Fields<'_>)) {
    for entry in stream.range(StreamId::MIN, StreamId::MAX) {
        with_fields(entry, &mut visit);
    }
}

/// Calls `visit` for an entry with its fields as the format takes them.
pub(super) fn with_fields<R>(entry: stream::Entry<'_>, visit: impl FnOnce(StreamId, Fields<'_>) -> R) -> R {
    let owned: Vec<(Vec<u8>, Vec<u8>)> =
        entry.fields.map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
    let pairs: Vec<(&[u8], &[u8])> = owned.iter().map(|(name, value)| (&**name, &**value)).collect();
    visit(entry.id, Fields::new(&pairs))
}

/// A consumer group as the format tells of it.
pub(super) fn head_of(group: &stream::Group) -> Group<'_> {
    Group {
        name: group.name(),
        last_id: id_to_rdb(group.last_id()),
        entries_read: group.entries_read(),
        pending: group.pending_len() as u64,
    }
}

/// A consumer as the format tells of it.
pub(super) fn head_of_consumer(consumer: &stream::Consumer) -> Consumer<'_> {
    Consumer {
        name: consumer.name(),
        seen_at_ms: consumer.seen_at_ms,
        active_at_ms: consumer.active_at_ms,
        pending: consumer.pending_len() as u64,
    }
}

fn write_stream(out: &mut Out<'_>, db: u64, meta: &Meta, key: &[u8], stream: &Stream) {
    let mut sizer = NodeSizer::stream();
    for_each_entry(stream, |_, fields| {
        sizer.add_entry(fields);
    });
    let mut entry = out.writer.begin(db, meta, key, Shape::Stream { nodes: sizer.nodes() });
    out.put(&mut entry, Event::Begin { kind: Kind::Stream, count: stream.len() });
    for_each_entry(stream, |id, fields| {
        out.put(&mut entry, Event::Entry { id: id_to_rdb(id), fields });
    });
    out.put(&mut entry, Event::StreamMeta(meta_to_rdb(stream)));
    for group in stream.groups() {
        out.put(&mut entry, Event::Group(head_of(group)));
        for pending in pending_to_rdb(group, StreamId::MIN) {
            out.put(&mut entry, Event::Pending(pending));
        }
        out.put(&mut entry, Event::Consumers(group.consumers().count() as u64));
        for consumer in group.consumers() {
            out.put(&mut entry, Event::Consumer(head_of_consumer(consumer)));
            for id in consumer.pending_from(StreamId::MIN) {
                out.put(&mut entry, Event::Claimed(id_to_rdb(id)));
            }
        }
    }
    out.put(&mut entry, Event::End);
}
