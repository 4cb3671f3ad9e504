//! DUMP and RESTORE of big collections, in steps. What a payload is made of or makes is not in memory a second time but
//! for the payload itself.

use damselfly_keyspace::stream::{Group, NodeLimits, Stream, StreamId};
use damselfly_keyspace::values::PackLimits;
use damselfly_keyspace::values::hash::{Hash, Rules};
use damselfly_keyspace::values::set::{Set, SetLimits};
use damselfly_keyspace::values::zset::SortedSet;
use damselfly_keyspace::{Class, Collection, Expiry, List, Object, UnixMs};
use damselfly_protocol::Proto;
use damselfly_rdb::{
    COMPACT_HASH_COUNT_MAX, Collector, Encoder, Event, Fields, Kind, Limits, NodeSizer, Refused, Shape,
    Target, ValueSink, ValueWriter, crc64, dump,
};

use super::file::{head_of, head_of_consumer, with_fields};
use super::{
    DUPLICATE, StreamMaker, id_from_rdb, id_to_rdb, meta_to_rdb, pending_to_rdb, store_collection,
    store_value,
};
use crate::generic::BAD_FOOTER;
use crate::long::Written;
use crate::stream::reply::stream_len;
use crate::task::{Task, members_per_step};
use crate::{CmdResult, CommandError, Cx};

/// What is pending, and consumers, in one step: about as long as so many members that are only looked at.
const PENDING_PER_STEP: usize = 256;

/// A DUMP under way.
pub(crate) struct Dumping {
    source: Object,
    len: usize,
    phase: Phase,
    encoder: Encoder,
    writer: Option<ValueWriter>,
    /// What was written and not carried away.
    bytes: Vec<u8>,
    checksum: u64,
    payload_len: usize,
    written: Written,
}

enum Phase {
    /// The nodes of a list are counted: their number stands before them.
    Sizing { at: usize, sizer: NodeSizer },
    /// So are those of a stream, from an entry on.
    SizingEntries { from: StreamId, sizer: NodeSizer },
    /// The value is written from a point on.
    Writing(Point),
}

/// What is written next.
#[derive(Clone, Copy)]
enum Point {
    /// Elements from a number or a cursor on.
    Elements(u64),
    /// Entries of a stream from this one on.
    Entries(StreamId),
    /// What a stream has besides.
    Groups(Place),
}

/// A place behind the entries of a stream: its groups, each with what is pending, and the consumers with what they have
/// of that.
#[derive(Clone, Copy)]
enum Place {
    Group(usize),
    Pending { group: usize, from: StreamId },
    Consumer { group: usize, consumer: usize },
    Claimed { group: usize, consumer: usize, from: StreamId },
}

impl Place {
    /// Tells some of what is there; where to go on, or None if that was the last.
    fn write(self, stream: &Stream, mut put: impl FnMut(Event<'_>)) -> Option<Place> {
        let group_at = |at: usize| stream.groups().nth(at).expect("the group is there");
        Some(match self {
            Place::Group(at) if at == stream.groups().len() => return None,
            Place::Group(at) => {
                put(Event::Group(head_of(group_at(at))));
                Place::Pending { group: at, from: StreamId::MIN }
            }
            Place::Pending { group: at, from } => {
                let group = group_at(at);
                let (mut count, mut next) = (0, Some(from));
                for pending in pending_to_rdb(group, from).take(PENDING_PER_STEP) {
                    put(Event::Pending(pending));
                    (count, next) = (count + 1, id_from_rdb(pending.id).next());
                }
                match next.filter(|_| count == PENDING_PER_STEP) {
                    Some(from) => Place::Pending { group: at, from },
                    None => {
                        put(Event::Consumers(group.consumers().len() as u64));
                        Place::Consumer { group: at, consumer: 0 }
                    }
                }
            }
            Place::Consumer { group: at, consumer: first } => {
                let (group, mut left) = (group_at(at), PENDING_PER_STEP);
                for (number, consumer) in group.consumers().enumerate().skip(first) {
                    if left == 0 {
                        return Some(Place::Consumer { group: at, consumer: number });
                    }
                    put(Event::Consumer(head_of_consumer(consumer)));
                    if consumer.pending_len() > left {
                        return Some(Place::Claimed { group: at, consumer: number, from: StreamId::MIN });
                    }
                    consumer.pending_from(StreamId::MIN).for_each(|id| put(Event::Claimed(id_to_rdb(id))));
                    left = (left - consumer.pending_len()).saturating_sub(1);
                }
                Place::Group(at + 1)
            }
            Place::Claimed { group: at, consumer: number, from } => {
                let consumer = group_at(at).consumers().nth(number).expect("the consumer is there");
                let (mut count, mut next) = (0, Some(from));
                for id in consumer.pending_from(from).take(PENDING_PER_STEP) {
                    put(Event::Claimed(id_to_rdb(id)));
                    (count, next) = (count + 1, id.next());
                }
                match next.filter(|_| count == PENDING_PER_STEP) {
                    Some(from) => Place::Claimed { group: at, consumer: number, from },
                    None => Place::Consumer { group: at, consumer: number + 1 },
                }
            }
        })
    }
}

/// Visits so many entries from one on; where to go on, or None if those were the last.
fn some_entries(
    stream: &Stream,
    from: StreamId,
    count: usize,
    mut visit: impl FnMut(StreamId, Fields<'_>),
) -> Option<StreamId> {
    let (mut left, mut last) = (count, None);
    for entry in stream.range(from, StreamId::MAX).take(count) {
        (left, last) = (left - 1, Some(entry.id));
        with_fields(entry, &mut visit);
    }
    last.filter(|_| left == 0).and_then(StreamId::next)
}

impl Dumping {
    /// A DUMP that is to be done in steps; None if it is done at once.
    pub(crate) fn begin(object: &Object, proto: Proto, at_once_max: usize) -> Option<Dumping> {
        let count = |len: usize| len as u64;
        let (len, shape) = match object {
            Object::List(list) => (list.len(), None),
            Object::Hash(hash @ Hash::Big(_)) => {
                let count = count(hash.len(0));
                let expires = hash.next_expiry().is_some();
                let shape = if expires { Shape::ExpiringHash { count } } else { Shape::Hash { count } };
                (hash.len(0), Some(shape))
            }
            Object::Set(set @ Set::Big(_)) if set.expiring() == 0 => {
                (set.len(), Some(Shape::Set { count: count(set.len()) }))
            }
            Object::ZSet(zset @ SortedSet::Big(_)) => {
                (zset.len(), Some(Shape::ZSet { count: count(zset.len()) }))
            }
            Object::Stream(stream) => {
                let pending: usize = stream.groups().map(Group::pending_len).sum();
                (stream_len(stream).saturating_add(pending), None)
            }
            _ => return None,
        };
        // What is less may have a compact form.
        if len <= at_once_max.max(COMPACT_HASH_COUNT_MAX as usize) {
            return None;
        }
        let mut dumping = Dumping {
            source: object.clone(),
            len,
            phase: match object {
                Object::Stream(_) => Phase::SizingEntries { from: StreamId::MIN, sizer: NodeSizer::stream() },
                _ => Phase::Sizing { at: 0, sizer: NodeSizer::list() },
            },
            encoder: Encoder::new(Target::Dump),
            writer: None,
            bytes: Vec::new(),
            checksum: 0,
            payload_len: 0,
            written: Written::new(proto),
        };
        if let Some(shape) = shape {
            dumping.begin_value(shape);
        }
        Some(dumping)
    }

    fn begin_value(&mut self, shape: Shape) {
        let kind = match shape {
            Shape::List { .. } => Kind::List,
            Shape::Hash { .. } | Shape::ExpiringHash { .. } => Kind::Hash,
            Shape::Set { .. } => Kind::Set,
            Shape::Stream { .. } => Kind::Stream,
            _ => Kind::ZSet,
        };
        let mut writer = dump::begin(&mut self.encoder, shape, &mut self.bytes);
        writer.put(&mut self.encoder, &mut self.bytes, Event::Begin { kind, count: self.len as u64 });
        self.writer = Some(writer);
        self.phase = Phase::Writing(match kind {
            Kind::Stream => Point::Entries(StreamId::MIN),
            _ => Point::Elements(0),
        });
    }

    /// Writes some of the value; where to go on, or None if that was the last.
    fn write(&mut self, point: Point, count: usize) -> Option<Point> {
        let Dumping { source, encoder, writer, bytes, len, .. } = self;
        let writer = writer.as_mut().expect("the value was begun");
        let mut put = |event: Event<'_>| writer.put(encoder, bytes, event);
        let (mut one, mut other) = ([0; 20], [0; 20]);
        let place = match (point, &*source) {
            (Point::Elements(place), _) => place,
            (Point::Entries(from), Object::Stream(stream)) => {
                let next = some_entries(stream, from, count, |id, fields| {
                    put(Event::Entry { id: id_to_rdb(id), fields });
                });
                return Some(next.map_or_else(
                    || {
                        put(Event::StreamMeta(meta_to_rdb(stream)));
                        Point::Groups(Place::Group(0))
                    },
                    Point::Entries,
                ));
            }
            (Point::Groups(place), Object::Stream(stream)) => {
                return place.write(stream, put).map(Point::Groups);
            }
            _ => unreachable!("only streams have entries"),
        };
        let (start, end) = (place as usize, (place as usize).saturating_add(count).min(*len));
        let by_number = (end < *len).then_some(end as u64);
        let by_cursor = |cursor: u64| (cursor != 0).then_some(cursor);
        let next = match source {
            Object::List(list) => {
                list.range(start, end).for_each(|item| put(Event::Element(item.as_bytes(&mut one))));
                by_number
            }
            // Those that have expired go along, with their deadlines: whoever reads them drops them.
            Object::Hash(hash) => by_cursor(hash.scan(place, count, 0, |field| {
                let expire_at_ms = field.expire_at;
                let (field, value) = (field.field.as_bytes(&mut one), field.value.as_bytes(&mut other));
                put(Event::Field { field, value, expire_at_ms });
            })),
            Object::Set(set) => by_cursor(set.scan(place, count, |member| {
                put(Event::Member { member: member.as_bytes(&mut one), expire_at_ms: None });
            })),
            Object::ZSet(zset) => {
                zset.visit(start..end, false, |member, score| put(Event::Scored { member, score }));
                by_number
            }
            _ => unreachable!("looked at when it began"),
        };
        next.map(Point::Elements)
    }

    /// Carries away what was written.
    fn carry(&mut self) {
        self.checksum = crc64(self.checksum, &self.bytes);
        self.payload_len += self.bytes.len();
        self.written.write(|out| out.raw(&self.bytes));
        self.bytes.clear();
    }
}

impl Task for Dumping {
    fn target(&self) -> Option<&[u8]> {
        None
    }

    fn step(&mut self) -> bool {
        let count = members_per_step(self.len, self.source.heap_bytes(), 1);
        match &mut self.phase {
            Phase::Sizing { at, sizer } => {
                let Object::List(list) = &self.source else { unreachable!("only lists are sized") };
                let end = (*at + count).min(self.len);
                for item in list.range(*at, end) {
                    sizer.add_element(item.as_bytes(&mut [0; 20]).len());
                }
                *at = end;
                if end == self.len {
                    let nodes = sizer.nodes();
                    self.begin_value(Shape::List { nodes });
                }
                false
            }
            Phase::SizingEntries { from, sizer } => {
                let Object::Stream(stream) = &self.source else { unreachable!("only streams have entries") };
                let next = some_entries(stream, *from, count, |_, fields| {
                    sizer.add_entry(fields);
                });
                match next {
                    Some(next) => *from = next,
                    None => {
                        let nodes = sizer.nodes();
                        self.begin_value(Shape::Stream { nodes });
                    }
                }
                false
            }
            Phase::Writing(point) => {
                let point = *point;
                let next = self.write(point, count);
                if next.is_none() {
                    let writer = self.writer.as_mut().expect("the value was begun");
                    writer.put(&mut self.encoder, &mut self.bytes, Event::End);
                }
                self.carry();
                if let Some(point) = next {
                    self.phase = Phase::Writing(point);
                    return false;
                }
                self.bytes.extend_from_slice(&dump::footer(self.checksum));
                self.carry();
                self.written.write(|out| out.raw(b"\r\n"));
                true
            }
        }
    }

    fn finish(&mut self, cx: &mut Cx<'_>) -> CmdResult {
        cx.out.raw(format!("${}\r\n", self.payload_len).as_bytes());
        self.written.reply(cx);
        Ok(())
    }

    fn into_held(self: Box<Self>) -> Vec<Object> {
        vec![self.source, self.written.into_held()]
    }
}

/// What a collection is made by.
#[derive(Clone, Copy)]
struct Making {
    now: UnixMs,
    seed: u64,
    hash: PackLimits,
    set: SetLimits,
    zset: PackLimits,
    stream: NodeLimits,
}

/// A collection that is made of events, or another value that is only collected.
#[derive(Default)]
enum Made {
    #[default]
    Nothing,
    List(List),
    Hash(Hash),
    Set(Set),
    ZSet(SortedSet),
    Stream(Box<StreamMaker>),
    Other(Box<Collector>),
}

struct Maker {
    by: Making,
    made: Made,
    /// Whether any element came, in time or not.
    had_any: bool,
}

impl ValueSink for Maker {
    fn event(&mut self, event: Event<'_>) -> Result<(), Refused> {
        let by = self.by;
        let is_past = |at: Option<UnixMs>| at.is_some_and(|at| at <= by.now);
        if let (Made::Nothing, event) = (&self.made, event) {
            self.made = match event {
                Event::Begin { kind: Kind::List, .. } => Made::List(List::new()),
                Event::Begin { kind: Kind::Hash, .. } => Made::Hash(Hash::new()),
                Event::Begin { kind: Kind::Set, .. } => Made::Set(Set::new()),
                Event::Begin { kind: Kind::ZSet, .. } => Made::ZSet(SortedSet::new_big(by.seed)),
                Event::Begin { kind: Kind::Stream, .. } => {
                    Made::Stream(Box::new(StreamMaker::new(by.stream)))
                }
                event => {
                    let mut collector = Box::<Collector>::default();
                    collector.event(event)?;
                    Made::Other(collector)
                }
            };
            return Ok(());
        }
        self.had_any |= event != Event::End;
        let is_new = match (&mut self.made, event) {
            (Made::Other(collector), event) => return collector.event(event),
            (Made::Stream(maker), event) => return maker.event(event),
            (_, Event::End) => true,
            (Made::List(list), Event::Element(element)) => {
                list.push_back(element);
                true
            }
            (Made::Hash(_), Event::Field { expire_at_ms, .. }) if is_past(expire_at_ms) => true,
            (Made::Hash(hash), Event::Field { field, value, expire_at_ms }) => {
                let rules = Rules { now: by.now, seed: by.seed, limits: by.hash };
                hash.set(&rules, field, value, expire_at_ms.map_or(Expiry::Never, Expiry::At))
            }
            (Made::Set(_), Event::Member { expire_at_ms, .. }) if is_past(expire_at_ms) => true,
            (Made::Set(set), Event::Member { member, expire_at_ms: Some(at) }) => {
                set.insert_until(by.seed, member, at, false)
            }
            (Made::Set(set), Event::Member { member, .. }) => set.insert(by.seed, member, by.set),
            (Made::ZSet(zset), Event::Scored { member, score }) => {
                zset.insert(by.seed, member, score, by.zset).is_none()
            }
            _ => return Err(Refused("event out of order")),
        };
        if is_new { Ok(()) } else { Err(DUPLICATE) }
    }
}

/// A RESTORE under way.
pub(crate) struct Restoring {
    key: Box<[u8]>,
    payload: Vec<u8>,
    /// What is done with it: the footer is checked before anything is made.
    phase: Restore,
    maker: Maker,
    expire_at: Option<UnixMs>,
}

enum Restore {
    Checking(dump::Checking),
    Decoding(dump::Decoding),
    Failed(CommandError),
}

/// Bytes of a payload whose checksum is made in one step: some tens of microseconds' worth.
const CHECKED_PER_STEP: usize = 64 * 1024;

impl Restoring {
    /// Begins with a payload whose footer is being checked.
    pub(crate) fn begin(
        cx: &Cx<'_>,
        key: &[u8],
        payload: Vec<u8>,
        checking: dump::Checking,
        expire_at: Option<UnixMs>,
    ) -> Restoring {
        let by = Making {
            now: cx.ks.now,
            seed: cx.ks.hash_seed(),
            hash: cx.env.hash_pack,
            set: cx.env.set_limits,
            zset: cx.env.zset_pack,
            stream: cx.env.stream_node,
        };
        let maker = Maker { by, made: Made::Nothing, had_any: false };
        Restoring { key: key.into(), payload, phase: Restore::Checking(checking), maker, expire_at }
    }
}

impl Task for Restoring {
    fn target(&self) -> Option<&[u8]> {
        Some(&self.key)
    }

    fn step(&mut self) -> bool {
        let (payload, maker) = (&self.payload, &mut self.maker);
        let content = &payload[..payload.len() - dump::FOOTER_LEN];
        let stepped = match &mut self.phase {
            Restore::Checking(checking) => match checking.step(payload, CHECKED_PER_STEP) {
                Ok(false) => Ok(false),
                Ok(true) => match content.first().map(|kind| dump::Decoding::new(*kind, &Limits::PAYLOAD)) {
                    Some(Ok(decoding)) => {
                        self.phase = Restore::Decoding(decoding);
                        Ok(false)
                    }
                    Some(Err(_)) => Err(CommandError::BadPayload),
                    None => Err(BAD_FOOTER),
                },
                Err(_) => Err(BAD_FOOTER),
            },
            Restore::Decoding(decoding) => {
                decoding.step(&content[1..], maker).map_err(|_| CommandError::BadPayload)
            }
            Restore::Failed(_) => Ok(true),
        };
        stepped.unwrap_or_else(|error| {
            self.phase = Restore::Failed(error);
            true
        })
    }

    fn finish(&mut self, cx: &mut Cx<'_>) -> CmdResult {
        if let Restore::Failed(error) = &self.phase {
            return Err(error.clone());
        }
        let (made, by, had_any) = (&mut self.maker.made, self.maker.by, self.maker.had_any);
        let expires_all = had_any && matches!(made, Made::Hash(hash) if hash.is_empty());
        let expires_all = expires_all || had_any && matches!(made, Made::Set(set) if set.is_empty());
        restored(cx, &self.key, self.expire_at, by.now, |cx, key, expiry| match std::mem::take(made) {
            _ if expires_all => {
                // All elements have expired on the way: so has what the key had.
                cx.ks.remove(cx.db, key);
                Ok(())
            }
            Made::List(list) => store_collection(cx, key, list, expiry),
            Made::Hash(hash) => store_collection(cx, key, hash, expiry),
            Made::Set(set) => store_collection(cx, key, set, expiry),
            Made::ZSet(mut zset) => {
                store_collection(cx, key, crate::zset::settled(&mut zset, by.seed, by.zset), expiry)
            }
            Made::Stream(maker) => store_collection(cx, key, maker.stream, expiry),
            Made::Other(collector) => {
                let value = collector.finish().filter(|value| !value.is_empty_container());
                store_value(cx, key, value.ok_or(CommandError::BadPayload)?, expiry)
            }
            Made::Nothing => Err(CommandError::BadPayload),
        })
    }

    fn into_held(self: Box<Self>) -> Vec<Object> {
        let made = match self.maker.made {
            Made::List(list) => list.wrap(),
            Made::Hash(hash) => hash.wrap(),
            Made::Set(set) => set.wrap(),
            Made::ZSet(zset) => zset.wrap(),
            Made::Stream(maker) => maker.stream.wrap(),
            Made::Other(_) | Made::Nothing => return Vec::new(),
        };
        vec![made]
    }
}

/// The end of RESTORE: stores what was made, or removes the key if it had expired already when the command ran.
pub(crate) fn restored(
    cx: &mut Cx<'_>,
    key: &[u8],
    expire_at: Option<UnixMs>,
    now: UnixMs,
    store: impl FnOnce(&mut Cx<'_>, &[u8], Expiry) -> CmdResult,
) -> CmdResult {
    if expire_at.is_some_and(|at| at <= now) {
        if cx.ks.remove(cx.db, key) {
            cx.changed(key, Class::Generic, "del");
        }
    } else {
        store(cx, key, expire_at.map_or(Expiry::Never, Expiry::At))?;
        cx.changed(key, Class::Generic, "restore");
    }
    cx.out.ok();
    Ok(())
}
