//! DUMP and RESTORE of big collections, in steps. What a payload is made of or makes is not in memory a second time but
//! for the payload itself.

use damselfly_keyspace::values::PackLimits;
use damselfly_keyspace::values::hash::{Hash, Rules};
use damselfly_keyspace::values::set::{Set, SetLimits};
use damselfly_keyspace::values::zset::SortedSet;
use damselfly_keyspace::{Class, Collection, Expiry, List, Object, UnixMs};
use damselfly_protocol::Proto;
use damselfly_rdb::{
    COMPACT_HASH_COUNT_MAX, Collector, Encoder, Event, Kind, Limits, NodeSizer, Refused, Shape, Target,
    ValueSink, ValueWriter, crc64, dump,
};

use super::{store_collection, store_value};
use crate::long::Written;
use crate::task::{Task, members_per_step};
use crate::{CmdResult, CommandError, Cx};

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
    /// Elements are written from a number or a cursor on.
    Writing(u64),
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
            _ => return None,
        };
        // What is less may have a compact form.
        if len <= at_once_max.max(COMPACT_HASH_COUNT_MAX as usize) {
            return None;
        }
        let mut dumping = Dumping {
            source: object.clone(),
            len,
            phase: Phase::Sizing { at: 0, sizer: NodeSizer::list() },
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
            _ => Kind::ZSet,
        };
        let mut writer = dump::begin(&mut self.encoder, shape, &mut self.bytes);
        writer.put(&mut self.encoder, &mut self.bytes, Event::Begin { kind, count: self.len as u64 });
        self.writer = Some(writer);
        self.phase = Phase::Writing(0);
    }

    /// Writes some elements; where to go on, or None if those were the last.
    fn write(&mut self, place: u64, count: usize) -> Option<u64> {
        let Dumping { source, encoder, writer, bytes, len, .. } = self;
        let writer = writer.as_mut().expect("the value was begun");
        let mut put = |event: Event<'_>| writer.put(encoder, bytes, event);
        let (mut one, mut other) = ([0; 20], [0; 20]);
        let (start, end) = (place as usize, (place as usize).saturating_add(count).min(*len));
        let by_number = (end < *len).then_some(end as u64);
        let by_cursor = |cursor: u64| (cursor != 0).then_some(cursor);
        match source {
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
        }
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
            Phase::Writing(place) => {
                let place = *place;
                let next = self.write(place, count);
                if next.is_none() {
                    let writer = self.writer.as_mut().expect("the value was begun");
                    writer.put(&mut self.encoder, &mut self.bytes, Event::End);
                }
                self.carry();
                if let Some(place) = next {
                    self.phase = Phase::Writing(place);
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
    Other(Box<Collector>),
}

struct Maker {
    by: Making,
    made: Made,
    /// Whether any element came, in time or not.
    had_any: bool,
}

const DUPLICATE: Refused = Refused("duplicate element");

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
    decoding: dump::Decoding,
    maker: Maker,
    expire_at: Option<UnixMs>,
    is_bad: bool,
}

impl Restoring {
    /// Begins with a payload whose footer was checked.
    pub(crate) fn begin(
        cx: &Cx<'_>,
        key: &[u8],
        payload: Vec<u8>,
        expire_at: Option<UnixMs>,
    ) -> Result<Restoring, CommandError> {
        let decoding =
            dump::Decoding::new(payload[0], &Limits::PAYLOAD).map_err(|_| CommandError::BadPayload)?;
        let by = Making {
            now: cx.ks.now,
            seed: cx.ks.hash_seed(),
            hash: cx.env.hash_pack,
            set: cx.env.set_limits,
            zset: cx.env.zset_pack,
        };
        let maker = Maker { by, made: Made::Nothing, had_any: false };
        Ok(Restoring { key: key.into(), payload, decoding, maker, expire_at, is_bad: false })
    }
}

impl Task for Restoring {
    fn target(&self) -> Option<&[u8]> {
        Some(&self.key)
    }

    fn step(&mut self) -> bool {
        let value = &self.payload[1..self.payload.len() - dump::FOOTER_LEN];
        self.decoding.step(value, &mut self.maker).unwrap_or_else(|_| {
            self.is_bad = true;
            true
        })
    }

    fn finish(&mut self, cx: &mut Cx<'_>) -> CmdResult {
        if self.is_bad {
            return Err(CommandError::BadPayload);
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
