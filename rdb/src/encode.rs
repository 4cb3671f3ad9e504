//! Events to bytes: the writing half of the vocabulary in event.rs.
//!
//! Counts stand before what they count, so whoever writes a value says first what shape it has ([`Shape`]) and then
//! sends its events. The writer appends to the caller's buffer and keeps nothing but a compact encoding or a node
//! under construction, so the caller may carry the buffer away after any event and go on later.
//!
//! Types are the newest that Redis 7.0 reads: readers older than that are not a target, and newer ones all read
//! these. Where no such type exists (deadlines of fields and members, JSON, the sketches) Dragonfly's is written to
//! every target, because a file that Redis refuses is better than one that silently lost half its data.

use crate::event::{Event, Fields, StreamId};
use crate::kinds::{DEADLINE_BASE_S, value_type};
use crate::listpack::{Builder, element_size_max};
use crate::lzf::Lzf;
use crate::stream::FLAG_SAME_FIELDS;
use crate::wire::{
    LZF_INPUT_LEN_MIN, LZF_SAVING_MIN, canonical_i64, put_int_string, put_len, put_lzf_header, put_raw_string,
};

/// A list node holds at most this many bytes (Redis' default), or one element.
const LIST_NODE_LEN_MAX: usize = 8 << 10;
/// A stream node holds at most this many bytes and entries (Redis' defaults), or one entry.
const STREAM_NODE_LEN_MAX: usize = 4 << 10;
const STREAM_NODE_ENTRIES_MAX: u64 = 100;
/// Flags, two id offsets, field count and lp-count of a stream entry, at their widest.
const STREAM_ENTRY_OVERHEAD: usize = 5 * 10;
/// Filters are written in pieces of at most this.
const FILTER_PIECE_LEN_MAX: usize = 64 << 10;
/// A quicklist node that is one raw element, and one that is a listpack.
const NODE_PLAIN: u8 = 1;
const NODE_PACKED: u8 = 2;
/// How "unknown" and "never" look where a signed number is written as a length or u64.
const MINUS_ONE: u64 = u64::MAX;

/// Up to how many fields a hash is usually compact, in Redis' defaults.
pub const COMPACT_HASH_COUNT_MAX: u64 = 512;
/// Up to how many members a sorted set is usually compact, in Redis' defaults.
pub const COMPACT_ZSET_COUNT_MAX: u64 = 128;
/// Up to how many bytes members, fields and values of compact encodings have, in Redis' defaults.
pub const COMPACT_ELEMENT_LEN_MAX: usize = 64;
/// Up to how many members a set of integers is usually compact, in Redis' defaults.
pub const INTSET_COUNT_MAX: u64 = 512;

/// Who is to read what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// An `.rdb` file for Redis 7.0 and later, Valkey, Dragonfly: version 10, LZF strings, a real checksum.
    Redis7_0,
    /// A DUMP payload: the same types.
    Dump,
    /// A `.dfs` file or a full sync: version 9, compressed in blobs instead of strings, long values in chunks.
    Dfs,
}

/// What must be known of a value before its first element. The compact forms are for values within the thresholds
/// above: they are put together in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `Event::String`.
    String,
    /// `Event::Json`.
    Json,
    /// A list; `nodes` as counted by [`NodeSizer::list`].
    List {
        /// Number of nodes.
        nodes: u64,
    },
    /// A small set of canonical integers, in any order.
    IntSet,
    /// A set.
    Set {
        /// Number of members.
        count: u64,
    },
    /// A set some of whose members have deadlines.
    ExpiringSet {
        /// Number of members.
        count: u64,
    },
    /// A small hash.
    CompactHash,
    /// A hash.
    Hash {
        /// Number of fields.
        count: u64,
    },
    /// A hash some of whose fields have deadlines.
    ExpiringHash {
        /// Number of fields.
        count: u64,
    },
    /// A small sorted set; members come in ascending order (score, then bytes), which Redis relies on.
    CompactZSet,
    /// A sorted set, in any order.
    ZSet {
        /// Number of members.
        count: u64,
    },
    /// A stream; `nodes` as counted by [`NodeSizer::stream`].
    Stream {
        /// Number of nodes.
        nodes: u64,
    },
    /// `Event::Bloom` and its filters.
    Bloom,
    /// `Event::CountMin` and its counters.
    CountMin,
    /// `Event::TopK`, its items and counters.
    TopK,
    /// `Event::Cuckoo` and its filters.
    Cuckoo,
}

impl Shape {
    /// The value type that `target` gets.
    pub fn value_type(self, target: Target) -> u8 {
        match self {
            Shape::String => value_type::STRING,
            Shape::Json => value_type::JSON,
            Shape::List { .. } => value_type::LIST_QUICKLIST_2,
            Shape::IntSet => value_type::SET_INTSET,
            Shape::Set { .. } => value_type::SET,
            Shape::ExpiringSet { .. } => value_type::SET_WITH_EXPIRY,
            Shape::CompactHash => value_type::HASH_LISTPACK,
            Shape::Hash { .. } => value_type::HASH,
            Shape::ExpiringHash { .. } => value_type::HASH_WITH_EXPIRY,
            Shape::CompactZSet => value_type::ZSET_LISTPACK,
            Shape::ZSet { .. } => value_type::ZSET_2,
            Shape::Stream { .. } if target == Target::Dfs => value_type::STREAM_LISTPACKS_3,
            Shape::Stream { .. } => value_type::STREAM_LISTPACKS_2,
            Shape::Bloom => value_type::SBF_2,
            Shape::CountMin => value_type::CMS,
            Shape::TopK => value_type::TOPK,
            Shape::Cuckoo => value_type::CUCKOO,
        }
    }

    /// Whether Redis 7.0 can read the value.
    pub fn is_portable(self) -> bool {
        self.value_type(Target::Redis7_0) < value_type::JSON
    }
}

/// Splits a list or stream into nodes by the sizes of its elements, the same way when counting and when writing.
#[derive(Clone, Copy, Debug)]
pub struct NodeSizer {
    size_max: usize,
    count_max: u64,
    size: usize,
    count: u64,
    nodes: u64,
}

impl NodeSizer {
    /// For the elements of a list.
    pub fn list() -> NodeSizer {
        NodeSizer { size_max: LIST_NODE_LEN_MAX, count_max: u64::MAX, size: 0, count: 0, nodes: 0 }
    }

    /// For the entries of a stream.
    pub fn stream() -> NodeSizer {
        let (size_max, count_max) = (STREAM_NODE_LEN_MAX, STREAM_NODE_ENTRIES_MAX);
        NodeSizer { size_max, count_max, size: 0, count: 0, nodes: 0 }
    }

    /// Counts a list element of `len` bytes; true if a node begins with it.
    #[inline]
    pub fn add_element(&mut self, len: usize) -> bool {
        self.add(element_size_max(len))
    }

    /// Counts a stream entry; true if a node begins with it.
    pub fn add_entry(&mut self, fields: Fields<'_>) -> bool {
        let sizes =
            fields.iter().map(|(field, value)| element_size_max(field.len()) + element_size_max(value.len()));
        self.add(STREAM_ENTRY_OVERHEAD + sizes.sum::<usize>())
    }

    #[inline]
    fn add(&mut self, size: usize) -> bool {
        let begins = self.nodes == 0 || self.count >= self.count_max || self.size + size > self.size_max;
        if begins {
            (self.size, self.count) = (0, 0);
            self.nodes += 1;
        }
        self.size += size;
        self.count += 1;
        begins
    }

    /// Nodes so far.
    pub fn nodes(&self) -> u64 {
        self.nodes
    }
}

/// What one writer keeps between values: the target's habits and reusable memory.
pub struct Encoder {
    target: Target,
    /// Whether strings are compressed by themselves.
    packs: bool,
    lzf: Option<Lzf>,
    packed: Vec<u8>,
    /// A listpack builder between two values, for its memory.
    spare: Option<Builder>,
}

impl Encoder {
    /// A writer for `target`.
    pub fn new(target: Target) -> Encoder {
        Encoder { target, packs: target != Target::Dfs, lzf: None, packed: Vec::new(), spare: None }
    }

    /// The same, writing strings as they are.
    pub fn unpacked(self) -> Encoder {
        Encoder { packs: false, ..self }
    }

    /// The target given to [`Encoder::new`].
    pub fn target(&self) -> Target {
        self.target
    }

    /// Appends a string in the shortest form the target's readers know.
    #[inline]
    pub fn string(&mut self, out: &mut Vec<u8>, string: &[u8]) {
        if !put_int_string(out, string) {
            self.text(out, string);
        }
    }

    /// Appends a string that must not become an integer.
    fn text(&mut self, out: &mut Vec<u8>, string: &[u8]) {
        if !self.packs || string.len() < LZF_INPUT_LEN_MIN || !self.lzf_string(out, string) {
            put_raw_string(out, string);
        }
    }

    fn lzf_string(&mut self, out: &mut Vec<u8>, string: &[u8]) -> bool {
        self.packed.clear();
        let lzf = self.lzf.get_or_insert_with(Lzf::new);
        if !lzf.compress(string, string.len() - LZF_SAVING_MIN, &mut self.packed) {
            return false;
        }
        put_lzf_header(out, self.packed.len(), string.len());
        out.extend_from_slice(&self.packed);
        true
    }
}

/// Writes one value. The first event makes the head, `End` (or the only event of a string) completes it.
pub struct ValueWriter {
    shape: Shape,
    state: State,
    /// Elements, nodes or raw bytes that must still come, and must have come at the end.
    left: u64,
    done: bool,
}

/// What is under construction.
enum State {
    Plain,
    Pack(Builder),
    Integers(Vec<i64>),
    List { sizer: NodeSizer, pack: Builder },
    Stream { sizer: NodeSizer, node: Box<StreamNode> },
    Filters,
}

struct StreamNode {
    id: StreamId,
    count: i64,
    fields: Vec<Vec<u8>>,
    body: Builder,
}

impl ValueWriter {
    /// A writer for a value of that shape.
    pub fn new(encoder: &mut Encoder, shape: Shape) -> ValueWriter {
        let mut spare = || {
            let mut pack = encoder.spare.take().unwrap_or_default();
            pack.clear();
            pack
        };
        let (state, left) = match shape {
            Shape::CompactHash | Shape::CompactZSet => (State::Pack(spare()), 0),
            Shape::IntSet => (State::Integers(Vec::new()), 0),
            Shape::List { nodes } => (State::List { sizer: NodeSizer::list(), pack: spare() }, nodes),
            Shape::Stream { nodes } => {
                let node =
                    StreamNode { id: StreamId::default(), count: 0, fields: Vec::new(), body: spare() };
                (State::Stream { sizer: NodeSizer::stream(), node: Box::new(node) }, nodes)
            }
            Shape::Set { count }
            | Shape::ExpiringSet { count }
            | Shape::Hash { count }
            | Shape::ExpiringHash { count }
            | Shape::ZSet { count } => (State::Plain, count),
            Shape::Bloom | Shape::Cuckoo => (State::Filters, 0),
            Shape::String | Shape::Json | Shape::CountMin | Shape::TopK => (State::Plain, 0),
        };
        ValueWriter { shape, state, left, done: false }
    }

    /// The shape given to [`ValueWriter::new`].
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Whether the value is complete.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// Writes the next event. Events that do not fit the shape, or counts that do not come true, are a bug of the
    /// caller: whatever was written would be garbage for every reader.
    pub fn put(&mut self, encoder: &mut Encoder, out: &mut Vec<u8>, event: Event<'_>) {
        assert!(!self.done, "events after the end of a value");
        match (event, &mut self.state) {
            (Event::String(string), _) => {
                encoder.string(out, string);
                self.done = true;
            }
            (Event::Json(text), _) => {
                // Not as an integer: Dragonfly takes a document in that form for a plain string.
                encoder.text(out, text);
                self.done = true;
            }
            (Event::Begin { .. }, State::Pack(_) | State::Integers(_)) => {}
            (Event::Begin { .. }, _) => put_len(out, self.left),

            (Event::Element(element), State::List { sizer, pack }) => {
                if sizer.add_element(element.len()) {
                    self.left = self.left.checked_sub(1).expect("more nodes than the shape said");
                    flush_list_node(encoder, out, pack);
                    if element_size_max(element.len()) > LIST_NODE_LEN_MAX {
                        out.push(NODE_PLAIN);
                        encoder.text(out, element);
                        return;
                    }
                }
                pack.push(element);
            }
            (Event::Member { member, expire_at_ms: None }, State::Integers(integers)) => {
                integers.push(canonical_i64(member).expect("an IntSet has canonical integers only"));
            }
            (Event::Member { member, expire_at_ms }, State::Plain) => {
                self.count_down();
                encoder.string(out, member);
                self.put_deadline(out, expire_at_ms, Shape::ExpiringSet { count: 0 });
            }
            (Event::Field { field, value, expire_at_ms: None }, State::Pack(pack)) => {
                pack.push(field);
                pack.push(value);
            }
            (Event::Field { field, value, expire_at_ms }, State::Plain) => {
                self.count_down();
                encoder.string(out, field);
                encoder.string(out, value);
                self.put_deadline(out, expire_at_ms, Shape::ExpiringHash { count: 0 });
            }
            (Event::Scored { member, score }, State::Pack(pack)) => {
                pack.push(member);
                push_score(pack, score);
            }
            (Event::Scored { member, score }, State::Plain) => {
                self.count_down();
                encoder.string(out, member);
                out.extend_from_slice(&score.to_le_bytes());
            }

            (Event::Entry { id, fields }, State::Stream { sizer, node }) => {
                if sizer.add_entry(fields) {
                    self.left = self.left.checked_sub(1).expect("more nodes than the shape said");
                    flush_stream_node(encoder, out, node);
                    node.id = id;
                    node.fields.extend(fields.iter().map(|(field, _)| field.to_vec()));
                }
                push_stream_entry(node, id, fields);
            }
            (Event::StreamMeta(meta), State::Stream { node, .. }) => {
                flush_stream_node(encoder, out, node);
                put_len(out, meta.length);
                for id in [meta.last_id, meta.first_id, meta.max_deleted_id] {
                    put_len(out, id.ms);
                    put_len(out, id.seq);
                }
                put_len(out, meta.entries_added);
                put_len(out, meta.groups);
            }
            (Event::Group(group), State::Stream { .. }) => {
                encoder.string(out, group.name);
                put_len(out, group.last_id.ms);
                put_len(out, group.last_id.seq);
                put_len(out, group.entries_read.unwrap_or(MINUS_ONE));
                put_len(out, group.pending);
            }
            (Event::Pending(pending), State::Stream { .. }) => {
                put_stream_id(out, pending.id);
                out.extend_from_slice(&pending.delivered_at_ms.to_le_bytes());
                put_len(out, pending.deliveries);
            }
            (Event::Consumers(count), State::Stream { .. }) => put_len(out, count),
            (Event::Consumer(consumer), State::Stream { .. }) => {
                encoder.string(out, consumer.name);
                out.extend_from_slice(&consumer.seen_at_ms.to_le_bytes());
                if encoder.target == Target::Dfs {
                    out.extend_from_slice(&consumer.active_at_ms.unwrap_or(MINUS_ONE).to_le_bytes());
                }
                put_len(out, consumer.pending);
            }
            (Event::Claimed(id), State::Stream { .. }) => put_stream_id(out, id),

            (Event::Bloom(bloom), State::Filters) => {
                put_len(out, bloom.options);
                out.extend_from_slice(&bloom.grow_factor.to_le_bytes());
                out.extend_from_slice(&bloom.fp_probability.to_le_bytes());
                for number in [bloom.prev_size, bloom.current_size, bloom.max_capacity, bloom.filters] {
                    put_len(out, number);
                }
            }
            (Event::BloomFilter { hashes, len }, State::Filters) => {
                assert_eq!(self.left, 0, "a filter begins before the one before it is complete");
                put_len(out, hashes);
                put_len(out, len);
                self.left = len;
            }
            (Event::Cuckoo(cuckoo), State::Filters) => {
                for number in [
                    cuckoo.slots_per_bucket,
                    cuckoo.max_iterations,
                    cuckoo.expansion,
                    cuckoo.buckets,
                    cuckoo.items,
                    cuckoo.deletes,
                    cuckoo.filters,
                ] {
                    put_len(out, number);
                }
            }
            (Event::CuckooFilter { len }, State::Filters) => {
                assert_eq!(self.left, 0, "a filter begins before the one before it is complete");
                put_len(out, len);
                self.left = len;
            }
            (Event::Bytes(bytes), State::Filters) => {
                self.left =
                    self.left.checked_sub(bytes.len() as u64).expect("more bytes than the filter has");
                // Never as integers or compressed: the pieces are read as they are.
                bytes.chunks(FILTER_PIECE_LEN_MAX).for_each(|piece| put_raw_string(out, piece));
            }
            (Event::CountMin { width, depth, count }, State::Plain) => {
                put_len(out, width);
                put_len(out, depth);
                put_len(out, count);
                self.left = width * depth * 8;
            }
            (Event::TopK(topk), State::Plain) => {
                put_len(out, 0);
                put_len(out, topk.k);
                put_len(out, topk.width);
                put_len(out, topk.depth);
                out.extend_from_slice(&topk.decay.to_le_bytes());
                put_len(out, topk.items);
                self.left = topk.items;
            }
            (Event::TopKItem { item, count }, State::Plain) => {
                self.count_down();
                encoder.string(out, item);
                put_len(out, count);
            }
            (Event::TopKCounters { len }, State::Plain) => {
                assert_eq!(self.left, 0, "items are missing");
                put_len(out, len);
                self.left = len;
            }
            (Event::Bytes(bytes), State::Plain) => {
                self.left =
                    self.left.checked_sub(bytes.len() as u64).expect("more bytes than the sketch has");
                out.extend_from_slice(bytes);
            }

            (Event::End, _) => self.finish(encoder, out),
            (event, _) => panic!("{event:?} in a value of shape {:?}", self.shape),
        }
    }

    fn count_down(&mut self) {
        self.left = self.left.checked_sub(1).expect("more elements than the shape said");
    }

    /// Deadlines are written to shapes that have them, and exist in no others.
    fn put_deadline(&self, out: &mut Vec<u8>, expire_at_ms: Option<u64>, expiring: Shape) {
        if std::mem::discriminant(&self.shape) != std::mem::discriminant(&expiring) {
            assert!(expire_at_ms.is_none(), "a deadline in a shape without deadlines");
            return;
        }
        // Rounded up: an element may live a fraction of a second longer, never shorter. What was due before the
        // base date is due at once.
        let seconds = expire_at_ms.map_or(-1, |at| at.div_ceil(1000).saturating_sub(DEADLINE_BASE_S) as i64);
        let mut text = itoa::Buffer::new();
        let text = text.format(seconds).as_bytes();
        if !put_int_string(out, text) {
            put_raw_string(out, text);
        }
    }

    fn finish(&mut self, encoder: &mut Encoder, out: &mut Vec<u8>) {
        match std::mem::replace(&mut self.state, State::Plain) {
            State::Plain | State::Filters => {}
            State::Pack(mut pack) => {
                encoder.string(out, pack.finish());
                encoder.spare = Some(pack);
            }
            State::Integers(integers) => encoder.string(out, &intset(integers)),
            State::List { mut pack, .. } => {
                flush_list_node(encoder, out, &mut pack);
                encoder.spare = Some(pack);
            }
            State::Stream { node, .. } => {
                assert_eq!(node.count, 0, "a stream without meta");
                encoder.spare = Some(node.body);
            }
        }
        assert_eq!(self.left, 0, "less than the shape said");
        self.done = true;
    }
}

fn flush_list_node(encoder: &mut Encoder, out: &mut Vec<u8>, pack: &mut Builder) {
    if pack.count() > 0 {
        out.push(NODE_PACKED);
        encoder.string(out, pack.finish());
        pack.clear();
    }
}

fn push_stream_entry(node: &mut StreamNode, id: StreamId, fields: Fields<'_>) {
    let same = fields.len() == node.fields.len()
        && fields.iter().zip(&node.fields).all(|((field, _), of_node)| field == of_node);
    node.count += 1;
    let body = &mut node.body;
    body.push_int(if same { FLAG_SAME_FIELDS } else { 0 });
    // Offsets wrap, as they do when they are added again.
    body.push_int(id.ms.wrapping_sub(node.id.ms) as i64);
    body.push_int(id.seq.wrapping_sub(node.id.seq) as i64);
    if !same {
        body.push_int(fields.len() as i64);
    }
    for (field, value) in fields.iter() {
        if !same {
            body.push(field);
        }
        body.push(value);
    }
    let elements = if same { 3 + fields.len() } else { 4 + 2 * fields.len() };
    body.push_int(elements as i64);
}

fn flush_stream_node(encoder: &mut Encoder, out: &mut Vec<u8>, node: &mut StreamNode) {
    if node.count == 0 {
        return;
    }
    let mut pack = Builder::new();
    pack.push_int(node.count);
    pack.push_int(0);
    pack.push_int(node.fields.len() as i64);
    node.fields.drain(..).for_each(|field| pack.push(&field));
    pack.push_int(0);
    pack.append(&node.body);
    let mut id = Vec::with_capacity(16);
    put_stream_id(&mut id, node.id);
    put_raw_string(out, &id);
    encoder.string(out, pack.finish());
    node.body.clear();
    node.count = 0;
}

fn put_stream_id(out: &mut Vec<u8>, id: StreamId) {
    out.extend_from_slice(&id.ms.to_be_bytes());
    out.extend_from_slice(&id.seq.to_be_bytes());
}

/// The narrowest intset of these integers.
fn intset(mut integers: Vec<i64>) -> Vec<u8> {
    integers.sort_unstable();
    let fits = |low: i64, high: i64| integers.first() >= Some(&low) && integers.last() <= Some(&high);
    let width = if fits(i64::from(i16::MIN), i64::from(i16::MAX)) {
        2
    } else if fits(i64::from(i32::MIN), i64::from(i32::MAX)) {
        4
    } else {
        8
    };
    let mut bytes = Vec::with_capacity(8 + width * integers.len());
    bytes.extend_from_slice(&(width as u32).to_le_bytes());
    bytes.extend_from_slice(&(integers.len() as u32).to_le_bytes());
    integers.iter().for_each(|integer| bytes.extend_from_slice(&integer.to_le_bytes()[..width]));
    bytes
}

/// A score as Redis finds it in a listpack: an integer where it is one exactly, else the shortest text that reads
/// back as the same double.
fn push_score(pack: &mut Builder, score: f64) {
    assert!(!score.is_nan(), "a score is a number");
    // Beyond 2^53 not every integer is a double, and 2^63 is no i64.
    const EXACT_MAX: f64 = (1u64 << 53) as f64;
    if score.abs() <= EXACT_MAX && score == score.trunc() && !(score == 0.0 && score.is_sign_negative()) {
        return pack.push_int(score as i64);
    }
    // `{:?}` uses an exponent for large and small numbers where `{}` would print 300 zeros.
    let text = format!("{score:?}");
    pack.push(text.strip_suffix(".0").unwrap_or(&text).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listpack::Listpack;

    /// Scores in a listpack read back as the same double, bit for bit.
    #[test]
    fn scores() {
        let tiny = f64::from_bits(1);
        for score in
            [0.0, -0.0, 1.0, -17.0, 0.1, 1e300, -1e-300, tiny, f64::MAX, f64::INFINITY, f64::NEG_INFINITY]
        {
            let mut pack = Builder::new();
            push_score(&mut pack, score);
            let mut listpack = Listpack::open(pack.finish()).expect("our own output");
            let back =
                listpack.next().expect("our own output").expect("one element").score().expect("a number");
            assert_eq!(back.to_bits(), score.to_bits());
        }
        for score in
            [9_007_199_254_740_992.0, 9_007_199_254_740_994.0, -9_007_199_254_740_994.0, 1e21, 2f64.powi(63)]
        {
            let mut pack = Builder::new();
            push_score(&mut pack, score);
            let mut listpack = Listpack::open(pack.finish()).expect("our own output");
            assert_eq!(listpack.next().expect("our own output").expect("one").score(), Ok(score));
        }
    }

    /// Counting nodes first and writing them later comes to the same number whatever the sizes.
    #[test]
    fn node_sizer_bounds() {
        let mut sizer = NodeSizer::list();
        assert!(sizer.add_element(0));
        assert!(!sizer.add_element(8000));
        assert!(sizer.add_element(8000));
        assert!(sizer.add_element(1 << 20));
        assert!(sizer.add_element(1));
        assert_eq!(sizer.nodes(), 4);
    }
}
