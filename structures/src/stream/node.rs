//! About a hundred entries in one allocation.
//!
//! ```text
//! | field count, field names | entry | entry | ...
//!
//! entry: varint  body length x 4 + same fields x 2 + deleted
//!        varint  milliseconds since the entry before
//!        varint  sequence number: less that of the entry before if the milliseconds are the same
//!        values                            if the fields are the node's
//!        field count, field, value, ...    if not
//! ```
//!
//! The first entry of a node gives it its fields; entries of a stream mostly have the same, and then store their
//! values only. Texts are coded by `text.rs`. Deleting an entry sets its bit; a node with more deleted entries
//! than others is written anew without them.
//!
//! Entries are read from the front only. The body length makes passing one a matter of reading one or two bytes
//! for its length and two for its id, so finding the last of a hundred takes less than a microsecond, and no entry
//! needs a length at its end as well.

use super::id::StreamId;
use super::text::{Text, listpack_int, push_text, push_varint, text, varint};
use crate::alloc::good_size;
use crate::moves::Mover;

const DELETED: u64 = 1;
const SAME_FIELDS: u64 = 2;
const FLAG_BITS: u32 = 2;
/// Deleted entries that a node keeps at any rate: rewriting pays off only for some.
const DELETED_MIN: u32 = 8;
/// What a listpack has besides its elements.
const LISTPACK_FRAME: usize = 7;

/// A size of which only much less matters.
fn narrow(size: usize) -> u32 {
    u32::try_from(size).unwrap_or(u32::MAX)
}

/// The fields of one entry.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    buf: &'a [u8],
    /// Where the next field name is: among the node's fields, or in the entry (then the same as `value_at`).
    name_at: usize,
    value_at: usize,
    same: bool,
    left: usize,
}

impl<'a> Iterator for Fields<'a> {
    type Item = (Text<'a>, Text<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let name =
            if self.same { text(self.buf, &mut self.name_at) } else { text(self.buf, &mut self.value_at) };
        Some((name, text(self.buf, &mut self.value_at)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Fields<'_> {}

/// One entry of a stream.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// Its id.
    pub id: StreamId,
    /// Its fields and values, in the order given.
    pub fields: Fields<'a>,
}

/// Where an entry is in its node.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) id: StreamId,
    header: usize,
    /// Where the values begin, or the field count if the entry has its own fields.
    content: usize,
    same: bool,
    pub(super) deleted: bool,
}

pub(super) struct Node {
    buf: Vec<u8>,
    /// Not above the first entry, and what its id is coded against.
    base: StreamId,
    /// The last entry ever, deleted or not: what the next id is coded against.
    last: StreamId,
    live: u32,
    deleted: u32,
    /// Entries ever appended.
    appended: u32,
    /// Bytes that the entries and fields would take in a listpack of Redis, but for the two counts before them.
    as_listpack: u32,
}

impl Clone for Node {
    fn clone(&self) -> Self {
        let mut buf = Vec::with_capacity(self.buf.capacity());
        buf.extend_from_slice(&self.buf);
        Node { buf, ..*self }
    }
}

impl Node {
    /// An empty node whose entries will mostly have these fields.
    pub(super) fn new<'a>(id: StreamId, names: impl Iterator<Item = &'a [u8]> + Clone) -> Node {
        let mut buf = Vec::with_capacity(256);
        let count = names.clone().count();
        push_varint(&mut buf, count as u64);
        let mut size = LISTPACK_FRAME + listpack_int(count as i64) + listpack_int(0);
        for name in names {
            size += push_text(&mut buf, name);
        }
        Node { buf, base: id, last: id, live: 0, deleted: 0, appended: 0, as_listpack: narrow(size) }
    }

    /// Entries that are not deleted.
    pub(super) fn live(&self) -> usize {
        self.live as usize
    }

    /// Entries ever appended: what the entry limit counts, so that nodes end where they end in Redis and
    /// approximate trimming removes the same.
    pub(super) fn appended(&self) -> usize {
        self.appended as usize
    }

    /// Bytes that Redis would need for the same: what the byte limit counts, for the same reason. Deleted entries
    /// stay in it.
    pub(super) fn listpack_bytes(&self) -> usize {
        self.as_listpack as usize + listpack_int(i64::from(self.live)) + listpack_int(i64::from(self.deleted))
    }

    pub(super) fn base(&self) -> StreamId {
        self.base
    }

    pub(super) fn last(&self) -> StreamId {
        self.last
    }

    pub(super) fn relocate(&mut self, mover: &mut Mover<'_>) {
        mover.vec(&mut self.buf);
    }

    pub(super) fn heap_bytes(&self) -> usize {
        const NODE: usize = good_size(2 * size_of::<usize>() + size_of::<Node>());
        NODE + good_size(self.buf.capacity())
    }

    /// Appends an entry; its id is above all others here.
    pub(super) fn append<'a>(
        &mut self,
        id: StreamId,
        fields: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
    ) {
        // Room for the whole entry at once, by size class, and a quarter more while the node grows.
        let raw: usize =
            fields.clone().map(|(name, value)| name.len() + value.len() + 20).sum::<usize>() + 40;
        if self.buf.capacity() - self.buf.len() < raw {
            let wanted = good_size((self.buf.len() + raw).max(self.buf.len() + self.buf.len() / 2));
            self.buf.reserve_exact(wanted - self.buf.len());
        }
        let header = self.buf.len();
        self.buf.push(0);
        let (ms, seq) =
            if id.ms == self.last.ms { (0, id.seq - self.last.seq) } else { (id.ms - self.last.ms, id.seq) };
        push_varint(&mut self.buf, ms);
        push_varint(&mut self.buf, seq);
        let same = self.has_fields(fields.clone().map(|(name, _)| name));
        // Flags, both parts of the id less those of the node's, texts, and how many elements these are.
        let mut size = listpack_int(0)
            + listpack_int(id.ms.wrapping_sub(self.base.ms).cast_signed())
            + listpack_int(id.seq.wrapping_sub(self.base.seq).cast_signed());
        let mut texts = 0;
        if same {
            for (_, value) in fields {
                size += push_text(&mut self.buf, value);
                texts += 1;
            }
        } else {
            let count = fields.clone().count();
            push_varint(&mut self.buf, count as u64);
            size += listpack_int(count as i64);
            for (name, value) in fields {
                size += push_text(&mut self.buf, name) + push_text(&mut self.buf, value);
                texts += 2;
            }
        }
        size += listpack_int(texts + if same { 3 } else { 4 });
        self.as_listpack = self.as_listpack.saturating_add(narrow(size));
        self.finish(header, same);
        self.last = id;
        self.live += 1;
        self.appended += 1;
    }

    /// Writes the header of the entry whose body begins one byte behind it; a longer header moves the body.
    fn finish(&mut self, header: usize, same: bool) {
        let body = (self.buf.len() - header - 1) as u64;
        let mut value = body << FLAG_BITS | if same { SAME_FIELDS } else { 0 };
        let len = (64 - value.leading_zeros()).div_ceil(7).max(1) as usize;
        if len > 1 {
            let end = self.buf.len();
            self.buf.resize(end + len - 1, 0);
            self.buf.copy_within(header + 1..end, header + len);
        }
        for byte in &mut self.buf[header..header + len] {
            *byte = value as u8 | 0x80;
            value >>= 7;
        }
        self.buf[header + len - 1] &= 0x7f;
    }

    fn has_fields<'a>(&self, names: impl Iterator<Item = &'a [u8]>) -> bool {
        let mut at = 0;
        let count = varint(&self.buf, &mut at);
        let mut seen = 0;
        for name in names {
            if seen == count || !text(&self.buf, &mut at).is(name) {
                return false;
            }
            seen += 1;
        }
        seen == count
    }

    /// Where all entries are, deleted ones too.
    #[inline]
    pub(super) fn places(&self) -> Places<'_> {
        let mut at = 0;
        let count = varint(&self.buf, &mut at);
        for _ in 0..count {
            text(&self.buf, &mut at);
        }
        Places { buf: &self.buf, at, id: self.base }
    }

    #[inline]
    pub(super) fn entry(&self, place: &Place) -> Entry<'_> {
        let mut name_at = 0;
        let mut value_at = place.content;
        let left = varint(&self.buf, if place.same { &mut name_at } else { &mut value_at }) as usize;
        Entry { id: place.id, fields: Fields { buf: &self.buf, name_at, value_at, same: place.same, left } }
    }

    /// The entry of this id unless it is deleted.
    pub(super) fn find(&self, id: StreamId) -> Option<Place> {
        self.places().find(|place| place.id >= id).filter(|place| place.id == id && !place.deleted)
    }

    pub(super) fn delete(&mut self, place: &Place) {
        assert!(!place.deleted, "deleted twice");
        self.buf[place.header] |= DELETED as u8;
        self.live -= 1;
        self.deleted += 1;
    }

    /// Writes the node anew if most of it is deleted.
    pub(super) fn compact(&mut self) {
        if self.deleted >= DELETED_MIN && self.deleted > self.live {
            // The last entry stays even so: approximate trimming by id asks where a node ends.
            self.rewrite(self.last);
        }
    }

    /// Writes the node anew without any deleted entry, not even the last.
    pub(super) fn forget_deleted(&mut self) {
        // No entry has the lowest id.
        self.rewrite(StreamId::MIN);
    }

    /// Writes the node anew without deleted entries other than this one.
    fn rewrite(&mut self, kept: StreamId) {
        let mut at = 0;
        for _ in 0..varint(&self.buf, &mut at) {
            text(&self.buf, &mut at);
        }
        let mut anew = Node {
            buf: Vec::with_capacity(good_size(self.buf.len() / 2)),
            last: self.base,
            deleted: 0,
            ..*self
        };
        anew.buf.extend_from_slice(&self.buf[..at]);
        let mut places = self.places();
        while let Some(place) = places.next() {
            if place.deleted && place.id != kept {
                continue;
            }
            let header = anew.buf.len();
            anew.buf.push(0);
            let (ms, seq) = if place.id.ms == anew.last.ms {
                (0, place.id.seq - anew.last.seq)
            } else {
                (place.id.ms - anew.last.ms, place.id.seq)
            };
            push_varint(&mut anew.buf, ms);
            push_varint(&mut anew.buf, seq);
            anew.buf.extend_from_slice(&self.buf[place.content..places.at]);
            anew.finish(header, place.same);
            anew.last = place.id;
            if place.deleted {
                anew.buf[header] |= DELETED as u8;
                anew.deleted = 1;
            }
        }
        *self = anew;
        self.seal();
    }

    /// Nothing more will be appended: gives back the room for it.
    pub(super) fn seal(&mut self) {
        let tight = good_size(self.buf.len());
        if tight < self.buf.capacity() {
            let mut buf = Vec::with_capacity(tight);
            buf.extend_from_slice(&self.buf);
            self.buf = buf;
        }
    }

    pub(super) fn check(&self) {
        let (mut live, mut deleted, mut last) = (0, 0, None);
        for place in self.places() {
            assert!(last.is_none_or(|last| last < place.id) && place.id >= self.base);
            last = Some(place.id);
            if place.deleted { deleted += 1 } else { live += 1 }
        }
        assert_eq!((live, deleted), (self.live, self.deleted));
        assert_eq!(last, Some(self.last));
    }
}

/// See [`Node::places`].
#[derive(Clone)]
pub(super) struct Places<'a> {
    buf: &'a [u8],
    at: usize,
    id: StreamId,
}

impl Iterator for Places<'_> {
    type Item = Place;

    // Always inlined: returned through memory, a place cost three times the decoding.
    #[inline(always)]
    fn next(&mut self) -> Option<Place> {
        if self.at >= self.buf.len() {
            return None;
        }
        let header = self.at;
        let flags = varint(self.buf, &mut self.at);
        let end = self.at + (flags >> FLAG_BITS) as usize;
        let ms = varint(self.buf, &mut self.at);
        let seq = varint(self.buf, &mut self.at);
        self.id = if ms == 0 {
            StreamId { ms: self.id.ms, seq: self.id.seq + seq }
        } else {
            StreamId { ms: self.id.ms + ms, seq }
        };
        let place = Place {
            id: self.id,
            header,
            content: self.at,
            same: flags & SAME_FIELDS != 0,
            deleted: flags & DELETED != 0,
        };
        self.at = end;
        Some(place)
    }
}
