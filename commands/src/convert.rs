//! Values in their other forms: as payloads of DUMP and RESTORE, and as the names of OBJECT ENCODING.
//!
//! The one place that must know every type from both sides, so its matches name them all: a type that is added does
//! not compile until it can leave and come back.

use damselfly_json::Document;
use damselfly_keyspace::stream::{self, NodeLimits, Stream, StreamId};
use damselfly_keyspace::values::hash::{Hash, Rules};
use damselfly_keyspace::values::set::Set;
use damselfly_keyspace::values::zset::SortedSet;
use damselfly_keyspace::{Collection, Db, Expiry, Keyspace, List, Loc, Object, Value};
use damselfly_protocol::number::Decimal;
use damselfly_protocol::{Proto, ReplyWriter};
use damselfly_rdb::{
    Compression, ConsumerValue, Encoder, Entries, Event, Gathered, GroupValue, Kind, Refused, Run,
    StreamMeta, StreamValue, Target, ValueSink, dump,
};
use damselfly_sketches::blocks::Blocks;

use crate::{CommandError, Cx, Env};

mod file;
mod sketches;
mod steps;

pub use file::write_object;
pub(crate) use steps::{Dumping, Restoring, restored};

/// Strings up to this length are `embstr` to Redis: they fit one 64-byte allocation with their two headers.
const EMBEDDED_LEN_MAX: usize = 44;

/// The payload of DUMP.
pub(crate) fn to_payload(value: Value<'_, Object>) -> Vec<u8> {
    let (mut encoder, mut payload) = (Encoder::new(Target::Dump), Vec::new());
    match value {
        Value::Int(number) => dump::string(&mut encoder, Decimal::new(number).as_bytes(), &mut payload),
        Value::Str(bytes) => dump::string(&mut encoder, bytes, &mut payload),
        Value::Object(object) => dump::value(&mut encoder, &to_rdb(object), &mut payload),
    }
    payload
}

/// Bytes of a value in the RDB format, its type and the frame of DUMP left out.
pub fn serialized_len(value: Value<'_, Object>) -> usize {
    let cells = cells_len(&value);
    if cells > CELLS_LEN_MAX {
        return cells;
    }
    // The payload begins with the type and ends with two bytes of version and eight of checksum.
    to_payload(value).len() - 11
}

/// Bytes of a value in a compressed snapshot, if it were alone there.
pub fn compressed_len(value: Value<'_, Object>) -> usize {
    if cells_len(&value) > CELLS_LEN_MAX {
        return cells_len(&value);
    }
    let payload = to_payload(value);
    damselfly_rdb::compressed_len(&payload, Compression::Zstd { level: 1 })
}

/// Longest run of cells that is written out in one piece: no request could bring a longer one back.
pub(crate) const CELLS_LEN_MAX: usize = 512 << 20;

/// Bytes of a filter's or a sketch's cells, most of which may never have been written and take no memory until they
/// are written out; zero for other types.
pub(crate) fn cells_len(value: &Value<'_, Object>) -> usize {
    let Value::Object(object) = value else { return 0 };
    match object {
        Object::Bloom(bloom) => bloom.filters().iter().map(|filter| filter.bytes().len()).sum(),
        Object::Cuckoo(cuckoo) => cuckoo.filters().iter().map(Blocks::len).sum(),
        Object::CountMin(sketch) => sketch.counters().len(),
        Object::TopK(sketch) => sketch.counters().len(),
        _ => 0,
    }
}

/// A collection as the format sees it.
fn to_rdb(object: &Object) -> damselfly_rdb::Value {
    match object {
        Object::List(list) => damselfly_rdb::Value::List(list.iter().map(|item| item.to_vec()).collect()),
        // Those that have expired go along, with their deadlines: whoever reads them drops them.
        Object::Hash(hash) => {
            let mut fields = Vec::with_capacity(hash.len(0));
            hash.for_each(0, |field| {
                fields.push((field.field.to_vec(), field.value.to_vec(), field.expire_at));
            });
            damselfly_rdb::Value::Hash(fields)
        }
        Object::Set(set) => {
            let mut members = Vec::with_capacity(set.len());
            set.for_each(|member, expire_at| members.push((member.to_vec(), expire_at)));
            damselfly_rdb::Value::Set(members)
        }
        Object::ZSet(zset) => {
            let mut members = Vec::with_capacity(zset.len());
            zset.for_each(|member, score| members.push((member.to_vec(), score)));
            damselfly_rdb::Value::ZSet(members)
        }
        Object::Json(document) => damselfly_rdb::Value::Json(document.to_json()),
        Object::Bloom(bloom) => sketches::bloom_to_rdb(bloom),
        Object::Cuckoo(cuckoo) => sketches::cuckoo_to_rdb(cuckoo),
        Object::CountMin(sketch) => sketches::count_min_to_rdb(sketch),
        Object::TopK(sketch) => sketches::topk_to_rdb(sketch),
        Object::Stream(stream) => damselfly_rdb::Value::Stream(stream_to_rdb(stream)),
    }
}

fn id_to_rdb(id: StreamId) -> damselfly_rdb::StreamId {
    damselfly_rdb::StreamId { ms: id.ms, seq: id.seq }
}

fn id_from_rdb(id: damselfly_rdb::StreamId) -> StreamId {
    StreamId { ms: id.ms, seq: id.seq }
}

fn stream_to_rdb(stream: &Stream) -> StreamValue {
    let mut entries = Entries::default();
    for entry in stream.range(StreamId::MIN, StreamId::MAX) {
        let fields: Vec<_> = entry.fields.map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
        entries.push(id_to_rdb(entry.id), fields.iter().map(|(name, value)| (&name[..], &value[..])));
    }
    let group = |group: &stream::Group| GroupValue {
        name: group.name().to_vec(),
        last_id: id_to_rdb(group.last_id()),
        entries_read: group.entries_read(),
        pending: pending_to_rdb(group, StreamId::MIN).collect(),
        consumers: group
            .consumers()
            .map(|consumer| ConsumerValue {
                name: consumer.name().to_vec(),
                seen_at_ms: consumer.seen_at_ms,
                active_at_ms: consumer.active_at_ms,
                claimed: consumer.pending_from(StreamId::MIN).map(id_to_rdb).collect(),
            })
            .collect(),
    };
    StreamValue { entries, meta: meta_to_rdb(stream), groups: stream.groups().map(group).collect() }
}

fn pending_to_rdb(group: &stream::Group, from: StreamId) -> impl Iterator<Item = damselfly_rdb::Pending> {
    group.pending_from(from, None).map(|(id, _, pending)| damselfly_rdb::Pending {
        id: id_to_rdb(id),
        delivered_at_ms: pending.delivered_at_ms,
        deliveries: u64::from(pending.deliveries),
    })
}

fn meta_to_rdb(stream: &Stream) -> StreamMeta {
    StreamMeta {
        length: stream.len(),
        last_id: id_to_rdb(stream.last_id()),
        first_id: id_to_rdb(stream.first_id()),
        max_deleted_id: id_to_rdb(stream.max_deleted_id()),
        entries_added: stream.entries_added(),
        groups: stream.groups().len() as u64,
    }
}

/// None if the value is none that a server could have had.
fn stream_from_rdb(value: StreamValue, nodes: NodeLimits) -> Option<Stream> {
    let mut maker = StreamMaker::new(nodes);
    damselfly_rdb::Value::Stream(value).emit(&mut maker).ok()?;
    Some(maker.stream)
}

/// A stream that is made of events.
struct StreamMaker {
    stream: Stream,
    nodes: NodeLimits,
    /// The group that is being told of, what is pending there by id, and how much of that has an owner.
    group: Vec<u8>,
    pending: Vec<damselfly_rdb::Pending>,
    in_order: bool,
    owned: usize,
    /// The consumer that is being told of.
    consumer: Vec<u8>,
}

impl StreamMaker {
    fn new(nodes: NodeLimits) -> StreamMaker {
        StreamMaker {
            stream: Stream::new(),
            nodes,
            group: Vec::new(),
            pending: Vec::new(),
            in_order: true,
            owned: 0,
            consumer: Vec::new(),
        }
    }

    /// Nothing is pending for nobody.
    fn end_group(&mut self) -> Result<(), Refused> {
        let is_whole = self.owned == self.pending.len();
        self.pending.clear();
        (self.in_order, self.owned) = (true, 0);
        if is_whole { Ok(()) } else { Err(Refused("an entry is pending for nobody")) }
    }

    /// All that is pending in the group was told: to be found when owners tell of it.
    fn sort_pending(&mut self) -> Result<(), Refused> {
        if self.in_order {
            return Ok(());
        }
        self.pending.sort_unstable_by_key(|pending| pending.id);
        let differ = self.pending.windows(2).all(|pair| pair[0].id != pair[1].id);
        if differ { Ok(()) } else { Err(DUPLICATE) }
    }
}

const DUPLICATE: Refused = Refused("duplicate element");

impl ValueSink for StreamMaker {
    fn event(&mut self, event: Event<'_>) -> Result<(), Refused> {
        const NO_GROUP: Refused = Refused("a consumer of no group");
        let StreamMaker { stream, group: name, pending, consumer, .. } = self;
        match event {
            Event::Begin { kind: Kind::Stream, .. } => {}
            Event::Entry { id, fields } => stream
                .append(id_from_rdb(id), fields.iter(), self.nodes)
                .map_err(|_| Refused("entries out of order"))?,
            Event::StreamMeta(meta) => {
                let (last_id, max_deleted_id) = (id_from_rdb(meta.last_id), id_from_rdb(meta.max_deleted_id));
                stream.set_counters(last_id, meta.entries_added, max_deleted_id);
            }
            Event::Group(group) => {
                if !stream.create_group(group.name, id_from_rdb(group.last_id), group.entries_read) {
                    return Err(DUPLICATE);
                }
                *name = group.name.to_vec();
                self.end_group()?;
            }
            Event::Pending(one) => {
                self.in_order &= pending.last().is_none_or(|last| last.id < one.id);
                pending.push(one);
            }
            Event::Consumers(_) => self.sort_pending()?,
            Event::Consumer(one) => {
                if stream.group(name).ok_or(NO_GROUP)?.consumer(one.name).is_some() {
                    return Err(DUPLICATE);
                }
                let added = stream.set_consumer_times(name, one.name, one.seen_at_ms, one.active_at_ms);
                added.map_err(|_| NO_GROUP)?;
                *consumer = one.name.to_vec();
            }
            Event::Claimed(id) => {
                let found = pending.binary_search_by_key(&id, |pending| pending.id);
                let one = pending[found.map_err(|_| Refused("claimed entry is not pending"))?];
                let id = id_from_rdb(id);
                if stream.group(name).ok_or(NO_GROUP)?.pending(id).is_some() {
                    return Err(DUPLICATE);
                }
                let set = stream.set_pending(name, consumer, id, one.delivered_at_ms, one.deliveries);
                set.map_err(|_| NO_GROUP)?;
                self.owned += 1;
            }
            Event::End => self.end_group()?,
            _ => return Err(Refused("event out of order")),
        }
        Ok(())
    }
}

/// Stores a value that a file had under a key. Nobody is told.
pub fn restore(
    ks: &mut Keyspace,
    env: &Env,
    db: usize,
    key: &[u8],
    value: Gathered,
    expiry: Expiry,
) -> Result<(), CommandError> {
    let mut unused = Vec::new();
    store(
        &mut Cx { ks, db, out: ReplyWriter::new(&mut unused, Proto::Resp2), env, later: None },
        key,
        value,
        expiry,
    )
}

/// Stores a decoded payload under a key, new or not. Announce it.
pub(crate) fn store(
    cx: &mut Cx<'_>,
    key: &[u8],
    value: Gathered,
    expiry: Expiry,
) -> Result<(), CommandError> {
    match value {
        Gathered::Run(run) => store_run(cx, key, &run, expiry),
        Gathered::Value(value) => store_value(cx, key, value, expiry),
    }
}

/// Stores a list, a hash, a set or a sorted set. Elements that are there twice were written by no server.
fn store_run(cx: &mut Cx<'_>, key: &[u8], run: &Run, expiry: Expiry) -> Result<(), CommandError> {
    let (seed, now) = (cx.ks.hash_seed(), cx.ks.now);
    let is_past = |at: Option<u64>| at.is_some_and(|at| at <= now);
    let mut past = 0;
    let wrong = || unreachable!("a run has elements of its kind");
    let (len, object) = match run.kind() {
        Kind::List => {
            let mut list = List::new();
            for event in run.iter() {
                let Event::Element(element) = event else { wrong() };
                list.push_back(element);
            }
            (list.len(), list.wrap())
        }
        Kind::Hash => {
            let mut hash = Hash::new();
            let rules = Rules { now, seed, limits: cx.env.hash_pack };
            for event in run.iter() {
                let Event::Field { field, value, expire_at_ms } = event else { wrong() };
                if is_past(expire_at_ms) {
                    past += 1;
                } else {
                    hash.set(&rules, field, value, expire_at_ms.map_or(Expiry::Never, Expiry::At));
                }
            }
            (hash.len(0), hash.wrap())
        }
        Kind::Set => {
            let mut set = Set::new();
            let limits = cx.env.set_limits;
            for event in run.iter() {
                let Event::Member { member, expire_at_ms } = event else { wrong() };
                match expire_at_ms {
                    at if is_past(at) => past += 1,
                    Some(at) => drop(set.insert_until(seed, member, at, false)),
                    None => drop(set.insert(seed, member, limits)),
                }
            }
            (set.len(), set.wrap())
        }
        Kind::ZSet => {
            let members = run.iter().map(|event| match event {
                Event::Scored { member, score } => (member, score),
                _ => wrong(),
            });
            let zset = SortedSet::collect(seed, members, cx.env.zset_pack);
            (zset.len(), zset.wrap())
        }
        Kind::Stream => unreachable!("streams are no runs"),
    };
    if len + past != run.len() || run.is_empty() {
        return Err(CommandError::BadPayload);
    }
    if len == 0 {
        // All elements expired on the way: so did what the key had.
        cx.ks.remove(cx.db, key);
    } else {
        cx.set_object(key, object, expiry);
    }
    Ok(())
}

fn store_value(
    cx: &mut Cx<'_>,
    key: &[u8],
    value: damselfly_rdb::Value,
    expiry: Expiry,
) -> Result<(), CommandError> {
    use damselfly_rdb::Value as Rdb;
    match value {
        Rdb::String(bytes) => cx.set_string(key, &bytes, expiry),
        Rdb::List(_) | Rdb::Hash(_) | Rdb::Set(_) | Rdb::ZSet(_) => unreachable!("they are runs"),
        Rdb::Json(text) => {
            let document = Document::parse(&text).map_err(|_| CommandError::BadPayload)?;
            store_collection(cx, key, document, expiry)?;
        }
        Rdb::Bloom(head, filters) => {
            store_collection(cx, key, sketches::bloom_from_rdb(&head, filters)?, expiry)?;
        }
        Rdb::Cuckoo(head, filters) => {
            store_collection(cx, key, sketches::cuckoo_from_rdb(&head, filters)?, expiry)?;
        }
        Rdb::CountMin { width, depth, count, counters } => {
            let sketch = sketches::count_min_from_rdb(width, depth, count, &counters)?;
            store_collection(cx, key, sketch, expiry)?;
        }
        Rdb::TopK(head, items, counters) => {
            store_collection(cx, key, sketches::topk_from_rdb(&head, items, &counters)?, expiry)?;
        }
        Rdb::Stream(value) => {
            let stream = stream_from_rdb(value, cx.env.stream_node).ok_or(CommandError::BadPayload)?;
            store_collection(cx, key, stream, expiry)?;
        }
        Rdb::Module { .. } => return Err(CommandError::BadPayload),
    }
    Ok(())
}

/// A collection without elements is no payload that any server wrote.
fn store_collection<C: Collection>(
    cx: &mut Cx<'_>,
    key: &[u8],
    collection: C,
    expiry: Expiry,
) -> Result<(), CommandError> {
    if collection.is_gone() {
        return Err(CommandError::BadPayload);
    }
    cx.set_object(key, collection.wrap(), expiry);
    Ok(())
}

/// What OBJECT ENCODING answers for a key. Redis leaves a string that was edited in an allocation of its own, however
/// short it is, until it is set anew.
pub fn encoding_at(table: &Db, loc: Loc, env: &Env) -> &'static str {
    match table.value(loc) {
        Value::Str(_) if table.is_edited(loc) => "raw",
        Value::Object(Object::List(list)) if env.list_pack.has_room_for(list) => "listpack",
        value => encoding(value),
    }
}

/// Up to where Redis keeps a list as one listpack (`list-max-listpack-size`). Where lists are cut into nodes here is a
/// matter of bytes alone, so this is about the name only: tests of clients set the limit and look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListLimit {
    entries_max: usize,
    bytes_max: usize,
}

impl ListLimit {
    /// What Redis takes a setting for: a number of elements, which may have 8 KiB, or from -1 to -5 one of five sizes.
    pub fn new(setting: i64) -> ListLimit {
        match setting {
            ..0 => ListLimit { entries_max: usize::MAX, bytes_max: 4096 << (-1 - setting.max(-5)) },
            entries => ListLimit { entries_max: entries.max(1) as usize, bytes_max: 8192 },
        }
    }

    fn has_room_for(self, list: &List) -> bool {
        let mut packs = list.packs();
        list.len() <= self.entries_max
            && packs.try_fold(self.bytes_max, |left, pack| left.checked_sub(pack.packed_bytes())).is_some()
    }
}

impl Default for ListLimit {
    fn default() -> ListLimit {
        ListLimit::new(-2)
    }
}

/// The name for what a value is, whatever happened to it, if it is no short list.
fn encoding(value: Value<'_, Object>) -> &'static str {
    match value {
        Value::Int(_) => "int",
        Value::Str(bytes) if bytes.len() <= EMBEDDED_LEN_MAX => "embstr",
        Value::Str(_) => "raw",
        Value::Object(Object::List(_)) => "quicklist",
        Value::Object(Object::Hash(Hash::Small(_))) => "listpack",
        Value::Object(Object::Hash(hash @ Hash::Noted(_))) if !hash.is_long() => "listpackex",
        Value::Object(Object::Hash(Hash::Noted(_) | Hash::Big(_))) => "hashtable",
        Value::Object(Object::Stream(_)) => "stream",
        Value::Object(Object::Set(Set::Ints(_))) => "intset",
        Value::Object(Object::Set(Set::Small(_))) => "listpack",
        Value::Object(Object::Set(Set::Long(_) | Set::Big(_))) => "hashtable",
        Value::Object(Object::ZSet(SortedSet::Small(_))) => "listpack",
        Value::Object(Object::ZSet(SortedSet::Long(_) | SortedSet::Big(_))) => "skiplist",
        // Redis knows no encodings of what modules hold.
        Value::Object(
            Object::Json(_) | Object::Bloom(_) | Object::Cuckoo(_) | Object::CountMin(_) | Object::TopK(_),
        ) => "raw",
    }
}
