//! The inside of a stream value.
//!
//! ```text
//! nodes | { id of the node: string of ms u64be, seq u64be | listpack as string } ...
//! length | last id | [first id | max deleted id | entries added]        types 19, 21
//! groups | { name | last id | [entries read]                            types 19, 21
//!            pending | { ms u64be seq u64be | delivered at u64le | deliveries } ...
//!            consumers | { name | seen at u64le | [active at u64le]     type 21
//!                          owned | { ms u64be seq u64be } ... } ... } ...
//!
//! node      count | deleted | fields | field ... | 0 | entry ...
//! entry     flags | ms - node's ms | seq - node's seq | values                   | lp-count   flag 2: same fields
//!           flags | ms - node's ms | seq - node's seq | fields | field value ... | lp-count
//! ```
//!
//! lp-count repeats how many elements the entry has before it, for readers that walk backwards. Flag 1 marks an
//! entry that was deleted in place. An id is an offset from its node's, so that most take two bytes each.

use crate::decode::Scratch;
use crate::error::{ErrorKind, Stop};
use crate::event::{Consumer, Event, Fields, FieldsForm, Group, Pending, StreamId, StreamMeta, ValueSink};
use crate::kinds::value_type;
use crate::limits::Limits;
use crate::listpack::Listpack;
use crate::packed::Packed;
use crate::wire::Cursor;

pub(crate) const FLAG_DELETED: i64 = 1;
pub(crate) const FLAG_SAME_FIELDS: i64 = 2;

/// What the entries of one node may amount to: 16 MiB and 64 times the node.
const NODE_TEXT_FREE: usize = 16 << 20;
const NODE_TEXT_RATIO: usize = 64;

/// How far the stream has been read. Each variant is the unit that comes next.
#[derive(Clone, Copy, Debug)]
enum Part {
    Nodes { left: u64 },
    Meta,
    Groups { left: u64 },
    Pending { left: u64 },
    ConsumerCount,
    Consumers { left: u64 },
    Claimed { left: u64, consumers: u64 },
}

pub(crate) struct StreamState {
    value_type: u8,
    part: Part,
    groups: u64,
    entries: u64,
    first: StreamId,
    last: Option<StreamId>,
    /// The last id that was ever given, of an entry or not.
    last_given: StreamId,
}

impl StreamState {
    pub(crate) fn new(value_type: u8, nodes: u64) -> StreamState {
        StreamState {
            value_type,
            part: Part::Nodes { left: nodes },
            groups: 0,
            entries: 0,
            first: StreamId::default(),
            last: None,
            last_given: StreamId::default(),
        }
    }

    /// Reads one unit; true if the stream is complete.
    pub(crate) fn unit(
        &mut self,
        cursor: &mut Cursor<'_>,
        limits: &Limits,
        scratch: &mut Scratch,
        sink: &mut impl ValueSink,
    ) -> Result<bool, Stop> {
        self.part = match self.part {
            Part::Nodes { left: 0 } | Part::Meta => {
                let meta = self.meta(cursor)?;
                self.last_given = meta.last_id;
                sink.event(Event::StreamMeta(meta))?;
                Part::Groups { left: meta.groups }
            }
            Part::Nodes { left } => {
                let mut id = Cursor::new(cursor.string(&mut scratch.first, limits)?);
                if id.left() != 16 {
                    return Err(ErrorKind::Stream("node id").into());
                }
                let id = stream_id(&mut id)?;
                let Scratch { first, second, ends, .. } = scratch;
                let node = cursor.string(first, limits)?;
                self.node(id, node, second, ends, sink)?;
                if left == 1 { Part::Meta } else { Part::Nodes { left: left - 1 } }
            }
            Part::Groups { left: 0 } => return Ok(true),
            Part::Groups { left } => {
                let name = cursor.string(&mut scratch.first, limits)?;
                let last_id = StreamId { ms: cursor.length()?, seq: cursor.length()? };
                let entries_read = if self.value_type == value_type::STREAM_LISTPACKS {
                    self.entries_to(last_id)
                } else {
                    // Written as a signed number, -1 for "unknown".
                    Some(cursor.length()?).filter(|&read| i64::try_from(read).is_ok())
                };
                let pending = cursor.length()?;
                sink.event(Event::Group(Group { name, last_id, entries_read, pending }))?;
                self.groups = left - 1;
                Part::Pending { left: pending }
            }
            Part::Pending { left: 0 } => Part::ConsumerCount,
            Part::Pending { left } => {
                let id = stream_id(cursor)?;
                let pending = Pending { id, delivered_at_ms: cursor.u64_le()?, deliveries: cursor.length()? };
                sink.event(Event::Pending(pending))?;
                Part::Pending { left: left - 1 }
            }
            Part::ConsumerCount => {
                let left = cursor.length()?;
                sink.event(Event::Consumers(left))?;
                Part::Consumers { left }
            }
            Part::Consumers { left: 0 } => Part::Groups { left: self.groups },
            Part::Consumers { left } => {
                let name = cursor.string(&mut scratch.first, limits)?;
                let seen_at_ms = cursor.u64_le()?;
                let mut active_at_ms = Some(seen_at_ms);
                if self.value_type == value_type::STREAM_LISTPACKS_3 {
                    active_at_ms = Some(cursor.u64_le()?).filter(|&at| i64::try_from(at).is_ok());
                }
                let pending = cursor.length()?;
                sink.event(Event::Consumer(Consumer { name, seen_at_ms, active_at_ms, pending }))?;
                Part::Claimed { left: pending, consumers: left - 1 }
            }
            Part::Claimed { left: 0, consumers } => Part::Consumers { left: consumers },
            Part::Claimed { left, consumers } => {
                let id = stream_id(cursor)?;
                sink.event(Event::Claimed(id))?;
                Part::Claimed { left: left - 1, consumers }
            }
        };
        Ok(false)
    }

    /// How many entries there are up to an id, as far as servers reckon it for a group of a file of before Redis 7,
    /// which does not say how many it has read: of such a file nobody knows what was deleted.
    fn entries_to(&self, id: StreamId) -> Option<u64> {
        match (self.entries, id) {
            (0, _) => Some(0),
            _ if id >= self.last_given => (id == self.last_given).then_some(self.entries),
            _ if id <= self.first => Some(u64::from(id == self.first)),
            _ => None,
        }
    }

    fn meta(&self, cursor: &mut Cursor<'_>) -> Result<StreamMeta, Stop> {
        let length = cursor.length()?;
        let last_id = StreamId { ms: cursor.length()?, seq: cursor.length()? };
        let mut meta = StreamMeta {
            length,
            last_id,
            first_id: self.first,
            entries_added: length,
            ..StreamMeta::default()
        };
        if self.value_type != value_type::STREAM_LISTPACKS {
            meta.first_id = StreamId { ms: cursor.length()?, seq: cursor.length()? };
            meta.max_deleted_id = StreamId { ms: cursor.length()?, seq: cursor.length()? };
            meta.entries_added = cursor.length()?;
        }
        if meta.length != self.entries {
            return Err(ErrorKind::Stream("length").into());
        }
        if self.last.is_some_and(|last| meta.last_id < last) {
            return Err(ErrorKind::Stream("last id").into());
        }
        meta.groups = cursor.length()?;
        Ok(meta)
    }

    fn node(
        &mut self,
        id: StreamId,
        bytes: &[u8],
        text: &mut Vec<u8>,
        ends: &mut Vec<usize>,
        sink: &mut impl ValueSink,
    ) -> Result<(), Stop> {
        // Entries share the field names of their node: a short node can stand for a long text. What a writer with
        // sensible nodes does stays far below this; what a bomb does, far above.
        let mut text_budget = NODE_TEXT_FREE + NODE_TEXT_RATIO * bytes.len();
        let mut listpack = Listpack::open(bytes)?;
        let count = head(&mut listpack)?;
        let deleted = head(&mut listpack)?;
        let mut master = Vec::new();
        for _ in 0..head(&mut listpack)? {
            master.push(element(&mut listpack)?);
        }
        if int(&mut listpack)? != 0 {
            return Err(ErrorKind::Stream("node header").into());
        }
        let (mut live, mut dead) = (0u64, 0u64);
        while let Some(flags) = listpack.next()? {
            let flags = flags.int().ok_or(ErrorKind::Stream("flags"))?;
            if flags & !(FLAG_DELETED | FLAG_SAME_FIELDS) != 0 {
                return Err(ErrorKind::Stream("flags").into());
            }
            let id = StreamId {
                ms: id.ms.wrapping_add(int(&mut listpack)? as u64),
                seq: id.seq.wrapping_add(int(&mut listpack)? as u64),
            };
            text.clear();
            ends.clear();
            let elements = if flags & FLAG_SAME_FIELDS != 0 {
                for &field in &master {
                    push(field, text, ends);
                    push(element(&mut listpack)?, text, ends);
                }
                3 + master.len() as u64
            } else {
                let fields = head(&mut listpack)?;
                for _ in 0..fields {
                    push(element(&mut listpack)?, text, ends);
                    push(element(&mut listpack)?, text, ends);
                }
                4 + 2 * fields
            };
            if int(&mut listpack)? as u64 != elements {
                return Err(ErrorKind::Stream("entry size").into());
            }
            text_budget =
                text_budget.checked_sub(text.len()).ok_or(ErrorKind::TooLarge("text of a stream node"))?;
            if flags & FLAG_DELETED != 0 {
                dead += 1;
                continue;
            }
            live += 1;
            if self.last.is_some_and(|last| last >= id) {
                return Err(ErrorKind::Stream("order of ids").into());
            }
            if self.last.is_none() {
                self.first = id;
            }
            self.last = Some(id);
            self.entries += 1;
            sink.event(Event::Entry { id, fields: Fields(FieldsForm::Joined { text, ends }) })?;
        }
        if live != count || dead != deleted {
            return Err(ErrorKind::Stream("entries of a node").into());
        }
        Ok(())
    }
}

fn stream_id(cursor: &mut Cursor<'_>) -> Result<StreamId, Stop> {
    Ok(StreamId { ms: cursor.u64_be()?, seq: cursor.u64_be()? })
}

fn element<'a>(listpack: &mut Listpack<'a>) -> Result<Packed<'a>, ErrorKind> {
    listpack.next()?.ok_or(ErrorKind::Stream("node ends early"))
}

fn int(listpack: &mut Listpack<'_>) -> Result<i64, ErrorKind> {
    element(listpack)?.int().ok_or(ErrorKind::Stream("number expected"))
}

/// A count; whatever it claims, the elements it counts must be there.
fn head(listpack: &mut Listpack<'_>) -> Result<u64, ErrorKind> {
    u64::try_from(int(listpack)?).map_err(|_| ErrorKind::Stream("negative count"))
}

fn push(element: Packed<'_>, text: &mut Vec<u8>, ends: &mut Vec<usize>) {
    text.extend_from_slice(element.text(&mut itoa::Buffer::new()));
    ends.push(text.len());
}
