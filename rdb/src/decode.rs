//! Bytes to the events of one value, a bounded piece at a time.
//!
//! A state machine instead of a recursive reader, because the bytes of one value may arrive in tagged chunks between
//! those of others, or from a socket that has no more for now. Each state reads one *unit* (an element, a pair, one
//! compact blob, one stream node) out of contiguous bytes; a unit that is not whole is not begun. So the only bytes
//! ever kept are those of one unfinished unit, and a receiver sees a unit entirely or not at all.
//!
//! Invariants: no unit calls the sink before it has read everything it needs from the cursor; counts are counted
//! down, never used to allocate. Next: stream.rs for the inside of a stream node, file.rs for what surrounds values.

use crate::error::{ErrorKind, Stop};
use crate::event::{Bloom, Cuckoo, Event, Kind, TopK, ValueSink};
use crate::kinds::{DEADLINE_BASE_S, value_type};
use crate::limits::Limits;
use crate::listpack::Listpack;
use crate::packed::{Elements, Packed, parse_score, refuse_duplicates};
use crate::stream::StreamState;
use crate::wire::{Cursor, canonical_i64};
use crate::ziplist::{Intset, Ziplist, Zipmap};

/// Units per call of [`ValueDecoder::step`]: enough to make the call itself free, few enough to yield often. A unit is
/// one element, or a node of a list with some hundreds.
const UNITS_PER_STEP: usize = 32;
/// Raw content of sketches is handed on in pieces of at most this.
const RAW_PIECE_LEN_MAX: u64 = 64 << 10;
/// Redis' ceiling for a field's deadline, 2^48 ms.
const FIELD_DEADLINE_MAX_MS: u64 = 1 << 48;

/// Where in the value the next unit begins.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    Start,
    Elements {
        left: u64,
    },
    Members {
        left: u64,
    },
    MembersWithDeadline {
        left: u64,
    },
    Fields {
        left: u64,
    },
    FieldsWithDeadline {
        left: u64,
    },
    /// Redis 7.4: deadlines are offsets from `base_ms`, or absolute without it.
    FieldsWithOffset {
        left: u64,
        base_ms: Option<u64>,
    },
    ScoredText {
        left: u64,
    },
    ScoredBinary {
        left: u64,
    },
    ListNodes {
        left: u64,
    },
    Stream,
    Filters {
        left: u64,
    },
    /// Pieces of a filter that were announced with their total.
    FilterPieces {
        left: u64,
        filters: u64,
    },
    TopKItems {
        left: u64,
        width: u64,
        depth: u64,
    },
    Raw {
        left: u64,
    },
    Module,
    Done,
}

/// Decodes one value of a given type from bytes that come in any pieces.
pub(crate) struct ValueDecoder {
    value_type: u8,
    phase: Phase,
    limits: Limits,
    stream: Option<Box<StreamState>>,
    // What a unit puts together when its strings are not raw: text, second text.
    scratch: Scratch,
}

#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) first: Vec<u8>,
    pub(crate) second: Vec<u8>,
    pub(crate) third: Vec<u8>,
    pub(crate) ends: Vec<usize>,
}

impl Scratch {
    /// Forgets memory that one unusually large string asked for.
    fn shrink(&mut self) {
        const KEEP: usize = 1 << 20;
        self.first.shrink_to(KEEP);
        self.second.shrink_to(KEEP);
        self.third.shrink_to(KEEP);
        self.ends.shrink_to(KEEP / 8);
    }
}

impl ValueDecoder {
    /// Refuses types that have no known form.
    pub(crate) fn new(value_type: u8, limits: Limits) -> Result<ValueDecoder, ErrorKind> {
        let mut decoder = ValueDecoder {
            value_type,
            phase: Phase::Done,
            limits,
            stream: None,
            scratch: Scratch::default(),
        };
        decoder.restart(value_type)?;
        Ok(decoder)
    }

    /// Begins another value, keeping the memory of the one before.
    pub(crate) fn restart(&mut self, value_type: u8) -> Result<(), ErrorKind> {
        use value_type::*;
        match value_type {
            STRING..=ZSET_2 | MODULE_2 | HASH_ZIPMAP..=HASH_LISTPACK_EX | JSON..=CUCKOO => {
                self.value_type = value_type;
                self.phase = Phase::Start;
                self.stream = None;
                Ok(())
            }
            _ => Err(ErrorKind::ValueType(value_type)),
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.phase == Phase::Done
    }

    /// Reads some units. The cursor stands behind the last whole one, also when more bytes are asked for.
    pub(crate) fn step(&mut self, cursor: &mut Cursor<'_>, sink: &mut impl ValueSink) -> Result<(), Stop> {
        for _ in 0..UNITS_PER_STEP {
            if self.is_done() {
                break;
            }
            let unit = cursor.at;
            if let Err(stop) = self.unit(cursor, sink) {
                cursor.at = unit;
                return Err(stop);
            }
        }
        Ok(())
    }

    /// Reads some units of a value that is in `bytes` as a whole, from `at` on; where it stands then. An error comes
    /// with its place.
    pub(crate) fn step_in(
        &mut self,
        bytes: &[u8],
        at: usize,
        sink: &mut impl ValueSink,
    ) -> Result<usize, (ErrorKind, usize)> {
        let mut cursor = Cursor::new(bytes);
        cursor.at = at;
        self.step(&mut cursor, sink).map_err(|stop| match stop {
            Stop::More(_) => (ErrorKind::Truncated, bytes.len()),
            Stop::Bad(kind) => (kind, cursor.at),
        })?;
        Ok(cursor.at)
    }

    fn unit(&mut self, cursor: &mut Cursor<'_>, sink: &mut impl ValueSink) -> Result<(), Stop> {
        let (limits, scratch) = (&self.limits, &mut self.scratch);
        self.phase = match self.phase {
            Phase::Start => return self.start(cursor, sink),
            Phase::Done => Phase::Done,

            Phase::Elements { left: 0 }
            | Phase::Members { left: 0 }
            | Phase::MembersWithDeadline { left: 0 }
            | Phase::Fields { left: 0 }
            | Phase::FieldsWithDeadline { left: 0 }
            | Phase::FieldsWithOffset { left: 0, .. }
            | Phase::ScoredText { left: 0 }
            | Phase::ScoredBinary { left: 0 }
            | Phase::ListNodes { left: 0 }
            | Phase::Filters { left: 0 }
            | Phase::Raw { left: 0 } => {
                scratch.shrink();
                sink.event(Event::End)?;
                Phase::Done
            }

            Phase::Elements { left } => {
                let element = cursor.string(&mut scratch.first, limits)?;
                sink.event(Event::Element(element))?;
                Phase::Elements { left: left - 1 }
            }
            Phase::Members { left } => {
                let member = cursor.string(&mut scratch.first, limits)?;
                sink.event(Event::Member { member, expire_at_ms: None })?;
                Phase::Members { left: left - 1 }
            }
            Phase::MembersWithDeadline { left } => {
                let member = cursor.string(&mut scratch.first, limits)?;
                let expire_at_ms = deadline_s(cursor.string(&mut scratch.third, limits)?)?;
                sink.event(Event::Member { member, expire_at_ms })?;
                Phase::MembersWithDeadline { left: left - 1 }
            }
            Phase::Fields { left } => {
                let field = cursor.string(&mut scratch.first, limits)?;
                let value = cursor.string(&mut scratch.second, limits)?;
                sink.event(Event::Field { field, value, expire_at_ms: None })?;
                Phase::Fields { left: left - 1 }
            }
            Phase::FieldsWithDeadline { left } => {
                let field = cursor.string(&mut scratch.first, limits)?;
                let value = cursor.string(&mut scratch.second, limits)?;
                let expire_at_ms = deadline_s(cursor.string(&mut scratch.third, limits)?)?;
                sink.event(Event::Field { field, value, expire_at_ms })?;
                Phase::FieldsWithDeadline { left: left - 1 }
            }
            Phase::FieldsWithOffset { left, base_ms } => {
                let offset = cursor.length()?;
                let field = cursor.string(&mut scratch.first, limits)?;
                let value = cursor.string(&mut scratch.second, limits)?;
                // An offset of 0 means no deadline, so the earliest deadline has offset 1.
                let expire_at_ms = match (offset, base_ms) {
                    (0, _) => None,
                    (offset, None) => Some(offset),
                    (offset, Some(base)) => Some(base.checked_add(offset - 1).ok_or(ErrorKind::Deadline)?),
                };
                if expire_at_ms.is_some_and(|at| at > FIELD_DEADLINE_MAX_MS) {
                    return Err(ErrorKind::Deadline.into());
                }
                sink.event(Event::Field { field, value, expire_at_ms })?;
                Phase::FieldsWithOffset { left: left - 1, base_ms }
            }
            Phase::ScoredText { left } => {
                let member = cursor.string(&mut scratch.first, limits)?;
                let score = match cursor.u8()? {
                    253 => return Err(ErrorKind::Score.into()),
                    254 => f64::INFINITY,
                    255 => f64::NEG_INFINITY,
                    len => parse_score(cursor.take(usize::from(len))?)?,
                };
                sink.event(Event::Scored { member, score })?;
                Phase::ScoredText { left: left - 1 }
            }
            Phase::ScoredBinary { left } => {
                let member = cursor.string(&mut scratch.first, limits)?;
                let score = cursor.f64_le()?;
                if score.is_nan() {
                    return Err(ErrorKind::Score.into());
                }
                sink.event(Event::Scored { member, score })?;
                Phase::ScoredBinary { left: left - 1 }
            }
            Phase::ListNodes { left } => {
                const PLAIN: u64 = 1;
                const PACKED: u64 = 2;
                let container =
                    if self.value_type == value_type::LIST_QUICKLIST { None } else { Some(cursor.length()?) };
                let node = cursor.string(&mut scratch.first, limits)?;
                match container {
                    None => list_elements(Ziplist::open(node)?, sink)?,
                    Some(PACKED) => list_elements(Listpack::open(node)?, sink)?,
                    Some(PLAIN) => sink.event(Event::Element(node))?,
                    Some(_) => return Err(ErrorKind::Length.into()),
                }
                Phase::ListNodes { left: left - 1 }
            }

            Phase::Stream => {
                let state = self.stream.as_mut().expect("set up when the phase began");
                if state.unit(cursor, limits, scratch, sink)? {
                    scratch.shrink();
                    sink.event(Event::End)?;
                    Phase::Done
                } else {
                    Phase::Stream
                }
            }

            Phase::Filters { left } => match self.value_type {
                value_type::SBF => {
                    let hashes = cursor.length()?;
                    let bits = cursor.string(&mut scratch.first, limits)?;
                    sink.event(Event::BloomFilter { hashes, len: bits.len() as u64 })?;
                    sink.event(Event::Bytes(bits))?;
                    Phase::Filters { left: left - 1 }
                }
                value_type::SBF_2 => {
                    let (hashes, len) = (cursor.length()?, cursor.length()?);
                    sink.event(Event::BloomFilter { hashes, len })?;
                    Phase::FilterPieces { left: len, filters: left - 1 }
                }
                _ => {
                    let len = cursor.length()?;
                    sink.event(Event::CuckooFilter { len })?;
                    Phase::FilterPieces { left: len, filters: left - 1 }
                }
            },
            Phase::FilterPieces { left: 0, filters } => Phase::Filters { left: filters },
            Phase::FilterPieces { left, filters } => {
                let piece = cursor.string(&mut scratch.first, limits)?;
                if piece.is_empty() || piece.len() as u64 > left {
                    return Err(ErrorKind::Sketch("pieces do not add up").into());
                }
                sink.event(Event::Bytes(piece))?;
                Phase::FilterPieces { left: left - piece.len() as u64, filters }
            }

            Phase::TopKItems { left: 0, width, depth } => {
                let len = cursor.length()?;
                if width.checked_mul(depth).and_then(|counters| counters.checked_mul(4)) != Some(len) {
                    return Err(ErrorKind::Sketch("top-k counters").into());
                }
                sink.event(Event::TopKCounters { len })?;
                Phase::Raw { left: len }
            }
            Phase::TopKItems { left, width, depth } => {
                let item = cursor.string(&mut scratch.first, limits)?;
                let count = cursor.length()?;
                sink.event(Event::TopKItem { item, count })?;
                Phase::TopKItems { left: left - 1, width, depth }
            }
            Phase::Raw { left } => {
                let piece = cursor.take(left.min(RAW_PIECE_LEN_MAX) as usize)?;
                sink.event(Event::Bytes(piece))?;
                Phase::Raw { left: left - piece.len() as u64 }
            }

            Phase::Module => {
                if skip_module_item(cursor, limits)? {
                    sink.event(Event::End)?;
                    Phase::Done
                } else {
                    Phase::Module
                }
            }
        };
        Ok(())
    }

    fn start(&mut self, cursor: &mut Cursor<'_>, sink: &mut impl ValueSink) -> Result<(), Stop> {
        use value_type::*;
        let (limits, scratch) = (&self.limits, &mut self.scratch);
        let begin = |sink: &mut _, kind, count| ValueSink::event(sink, Event::Begin { kind, count });
        self.phase = match self.value_type {
            STRING => {
                let string = cursor.string(&mut scratch.first, limits)?;
                sink.event(Event::String(string))?;
                scratch.shrink();
                Phase::Done
            }
            JSON => {
                let text = cursor.string(&mut scratch.first, limits)?;
                sink.event(Event::Json(text))?;
                scratch.shrink();
                Phase::Done
            }
            LIST => {
                let left = cursor.length()?;
                begin(sink, Kind::List, left)?;
                Phase::Elements { left }
            }
            LIST_QUICKLIST | LIST_QUICKLIST_2 => {
                let left = cursor.length()?;
                begin(sink, Kind::List, left)?;
                Phase::ListNodes { left }
            }
            SET => {
                let left = cursor.length()?;
                begin(sink, Kind::Set, left)?;
                Phase::Members { left }
            }
            SET_WITH_EXPIRY => {
                let left = cursor.length()?;
                begin(sink, Kind::Set, left)?;
                Phase::MembersWithDeadline { left }
            }
            HASH => {
                let left = cursor.length()?;
                begin(sink, Kind::Hash, left)?;
                Phase::Fields { left }
            }
            HASH_WITH_EXPIRY => {
                let left = cursor.length()?;
                begin(sink, Kind::Hash, left)?;
                Phase::FieldsWithDeadline { left }
            }
            HASH_METADATA | HASH_METADATA_PRE_GA => {
                let base_ms = if self.value_type == HASH_METADATA { Some(cursor.u64_le()?) } else { None };
                let left = cursor.length()?;
                begin(sink, Kind::Hash, left)?;
                Phase::FieldsWithOffset { left, base_ms }
            }
            ZSET | ZSET_2 => {
                let left = cursor.length()?;
                begin(sink, Kind::ZSet, left)?;
                if self.value_type == ZSET {
                    Phase::ScoredText { left }
                } else {
                    Phase::ScoredBinary { left }
                }
            }
            LIST_ZIPLIST
            | HASH_ZIPMAP
            | HASH_ZIPLIST
            | HASH_LISTPACK
            | HASH_LISTPACK_EX
            | HASH_LISTPACK_EX_PRE_GA
            | ZSET_ZIPLIST
            | ZSET_LISTPACK
            | SET_INTSET
            | SET_LISTPACK => {
                // The earliest deadline, which the fields repeat.
                if self.value_type == HASH_LISTPACK_EX {
                    cursor.u64_le()?;
                }
                let blob = cursor.string(&mut scratch.first, limits)?;
                compact(self.value_type, blob, limits.find_duplicates, sink)?;
                sink.event(Event::End)?;
                scratch.shrink();
                Phase::Done
            }
            STREAM_LISTPACKS | STREAM_LISTPACKS_2 | STREAM_LISTPACKS_3 => {
                let nodes = cursor.length()?;
                begin(sink, Kind::Stream, 0)?;
                self.stream = Some(Box::new(StreamState::new(self.value_type, nodes)));
                Phase::Stream
            }
            SBF | SBF_2 => {
                let bloom = Bloom {
                    options: cursor.length()?,
                    grow_factor: cursor.f64_le()?,
                    fp_probability: cursor.f64_le()?,
                    prev_size: cursor.length()?,
                    current_size: cursor.length()?,
                    max_capacity: cursor.length()?,
                    filters: cursor.length()?,
                };
                if !bloom.grow_factor.is_finite() || !bloom.fp_probability.is_finite() {
                    return Err(ErrorKind::Sketch("bloom parameters").into());
                }
                sink.event(Event::Bloom(bloom))?;
                Phase::Filters { left: bloom.filters }
            }
            CMS => {
                let (width, depth, count) = (cursor.length()?, cursor.length()?, cursor.length()?);
                let counters = width.checked_mul(depth).and_then(|counters| counters.checked_mul(8));
                let Some(left) = counters else { return Err(ErrorKind::Sketch("count-min size").into()) };
                sink.event(Event::CountMin { width, depth, count })?;
                Phase::Raw { left }
            }
            TOPK => {
                let _options = cursor.length()?;
                let topk = TopK {
                    k: cursor.length()?,
                    width: cursor.length()?,
                    depth: cursor.length()?,
                    decay: cursor.f64_le()?,
                    items: cursor.length()?,
                };
                if !topk.decay.is_finite() || topk.items > topk.k {
                    return Err(ErrorKind::Sketch("top-k parameters").into());
                }
                sink.event(Event::TopK(topk))?;
                Phase::TopKItems { left: topk.items, width: topk.width, depth: topk.depth }
            }
            CUCKOO => {
                let cuckoo = Cuckoo {
                    slots_per_bucket: cursor.length()?,
                    max_iterations: cursor.length()?,
                    expansion: cursor.length()?,
                    buckets: cursor.length()?,
                    items: cursor.length()?,
                    deletes: cursor.length()?,
                    filters: cursor.length()?,
                };
                sink.event(Event::Cuckoo(cuckoo))?;
                Phase::Filters { left: cuckoo.filters }
            }
            MODULE_2 => {
                let id = cursor.length()?;
                sink.event(Event::Module { id })?;
                Phase::Module
            }
            other => return Err(ErrorKind::ValueType(other).into()),
        };
        Ok(())
    }
}

/// Decodes a whole value that lies in one piece, as in a DUMP payload.
pub(crate) fn decode_slice(
    value_type: u8,
    bytes: &[u8],
    limits: &Limits,
    sink: &mut impl ValueSink,
) -> Result<usize, (ErrorKind, usize)> {
    let mut decoder = ValueDecoder::new(value_type, *limits).map_err(|kind| (kind, 0))?;
    let mut at = 0;
    while !decoder.is_done() {
        at = decoder.step_in(bytes, at, sink)?;
    }
    Ok(at)
}

/// The encodings whose elements lie in one string.
fn compact(
    value_type: u8,
    blob: &[u8],
    find_duplicates: bool,
    sink: &mut impl ValueSink,
) -> Result<(), Stop> {
    use value_type::*;
    match value_type {
        LIST_ZIPLIST => {
            let ziplist = Ziplist::open(blob)?;
            sink.event(Event::Begin { kind: Kind::List, count: ziplist.count_hint() })?;
            list_elements(ziplist, sink)
        }
        SET_INTSET => {
            // Ascending, hence without duplicates.
            let intset = Intset::open(blob)?;
            sink.event(Event::Begin { kind: Kind::Set, count: intset.count_hint() })?;
            members(intset, sink)
        }
        SET_LISTPACK => {
            let listpack = Listpack::open(blob)?;
            if find_duplicates {
                refuse_duplicates(listpack.clone(), 1)?;
            }
            sink.event(Event::Begin { kind: Kind::Set, count: listpack.count_hint().unwrap_or(0) })?;
            members(listpack, sink)
        }
        HASH_ZIPMAP => {
            let zipmap = Zipmap::open(blob)?;
            if find_duplicates {
                refuse_duplicates(zipmap.clone(), 2)?;
            }
            sink.event(Event::Begin { kind: Kind::Hash, count: zipmap.count_hint() })?;
            fields(zipmap, false, sink)
        }
        HASH_ZIPLIST => {
            let ziplist = Ziplist::open(blob)?;
            if find_duplicates {
                refuse_duplicates(ziplist.clone(), 2)?;
            }
            sink.event(Event::Begin { kind: Kind::Hash, count: ziplist.count_hint() / 2 })?;
            fields(ziplist, false, sink)
        }
        HASH_LISTPACK | HASH_LISTPACK_EX | HASH_LISTPACK_EX_PRE_GA => {
            let listpack = Listpack::open(blob)?;
            let with_deadline = value_type != HASH_LISTPACK;
            let stride = if with_deadline { 3 } else { 2 };
            if find_duplicates {
                refuse_duplicates(listpack.clone(), stride)?;
            }
            let count = listpack.count_hint().unwrap_or(0) / stride as u64;
            sink.event(Event::Begin { kind: Kind::Hash, count })?;
            fields(listpack, with_deadline, sink)
        }
        ZSET_ZIPLIST => {
            let ziplist = Ziplist::open(blob)?;
            if find_duplicates {
                refuse_duplicates(ziplist.clone(), 2)?;
            }
            sink.event(Event::Begin { kind: Kind::ZSet, count: ziplist.count_hint() / 2 })?;
            scored(ziplist, sink)
        }
        ZSET_LISTPACK => {
            let listpack = Listpack::open(blob)?;
            if find_duplicates {
                refuse_duplicates(listpack.clone(), 2)?;
            }
            sink.event(Event::Begin { kind: Kind::ZSet, count: listpack.count_hint().unwrap_or(0) / 2 })?;
            scored(listpack, sink)
        }
        other => Err(ErrorKind::ValueType(other).into()),
    }
}

fn list_elements<'a>(mut elements: impl Elements<'a>, sink: &mut impl ValueSink) -> Result<(), Stop> {
    let mut text = itoa::Buffer::new();
    while let Some(element) = elements.next()? {
        sink.event(Event::Element(element.text(&mut text)))?;
    }
    Ok(())
}

fn members<'a>(mut elements: impl Elements<'a>, sink: &mut impl ValueSink) -> Result<(), Stop> {
    let mut text = itoa::Buffer::new();
    while let Some(element) = elements.next()? {
        sink.event(Event::Member { member: element.text(&mut text), expire_at_ms: None })?;
    }
    Ok(())
}

/// The partner of an element that cannot stand alone.
fn partner<'a>(elements: &mut impl Elements<'a>) -> Result<Packed<'a>, ErrorKind> {
    elements.next()?.ok_or(ErrorKind::Length)
}

fn fields<'a>(
    mut elements: impl Elements<'a>,
    with_deadline: bool,
    sink: &mut impl ValueSink,
) -> Result<(), Stop> {
    let (mut field_text, mut value_text) = (itoa::Buffer::new(), itoa::Buffer::new());
    while let Some(field) = elements.next()? {
        let value = partner(&mut elements)?;
        let mut expire_at_ms = None;
        if with_deadline {
            let deadline = partner(&mut elements)?.int().and_then(|deadline| u64::try_from(deadline).ok());
            match deadline.ok_or(ErrorKind::Deadline)? {
                0 => {}
                deadline if deadline > FIELD_DEADLINE_MAX_MS => return Err(ErrorKind::Deadline.into()),
                deadline => expire_at_ms = Some(deadline),
            }
        }
        let (field, value) = (field.text(&mut field_text), value.text(&mut value_text));
        sink.event(Event::Field { field, value, expire_at_ms })?;
    }
    Ok(())
}

fn scored<'a>(mut elements: impl Elements<'a>, sink: &mut impl ValueSink) -> Result<(), Stop> {
    let mut text = itoa::Buffer::new();
    while let Some(member) = elements.next()? {
        let score = partner(&mut elements)?.score()?;
        sink.event(Event::Scored { member: member.text(&mut text), score })?;
    }
    Ok(())
}

/// Deadlines of types 31 and 32: decimal seconds since the base, negative for none.
fn deadline_s(text: &[u8]) -> Result<Option<u64>, ErrorKind> {
    let seconds = canonical_i64(text).ok_or(ErrorKind::Deadline)?;
    let Ok(seconds) = u64::try_from(seconds) else { return Ok(None) };
    let absolute = seconds.checked_add(DEADLINE_BASE_S).and_then(|absolute| absolute.checked_mul(1000));
    absolute.map(Some).ok_or(ErrorKind::Deadline)
}

/// Walks over one typed item of a module's value; true after the last.
pub(crate) fn skip_module_item(cursor: &mut Cursor<'_>, limits: &Limits) -> Result<bool, Stop> {
    match cursor.length()? {
        0 => return Ok(true),
        // Signed, unsigned.
        1 | 2 => {
            cursor.length()?;
        }
        3 => {
            cursor.f32_le()?;
        }
        4 => {
            cursor.f64_le()?;
        }
        5 => cursor.skip_string(limits)?,
        _ => return Err(ErrorKind::Module.into()),
    }
    Ok(false)
}
