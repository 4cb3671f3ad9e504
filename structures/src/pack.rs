//! A compact sequence of byte strings in one allocation.
//!
//! Small lists, hashes (field, value, field, value ...), sets and sorted sets are a `Pack`, and so is each
//! node of a big list. What a pack saves against a vector of strings is pointers, lengths and allocations:
//! ten 10-byte elements take 128 bytes, header included. What it costs is that everything but the two ends is
//! found by walking.
//!
//! ```text
//!   Pack ──> | header: bytes in use, count, class | [gap] | entry | entry | entry ... | slack |
//!
//!   entry:   element, length of the way back to its start      (entry.rs draws the forms)
//! ```
//!
//! Lists are read and popped from both ends, so an entry must be found from its end too; a byte behind each
//! entry does that for a list of short strings at the price of one byte. An offset table would be two, and a
//! cached position of the last entry would make every second pop a walk. Small integers are a byte that reads
//! the same from both sides.
//!
//! Integers are stored as numbers only if their decimal form is exactly what was given ("7", not "07" or
//! "+7"), so what comes out is byte for byte what went in, and equal strings are equal entries: searching
//! never converts.
//!
//! **The gap.** Moving kilobytes for every LPUSH or LPOP is what a plain array does. Packs above [`SMALL`]
//! bytes keep unused bytes in front of the first entry instead, announced in place by a byte that no entry
//! starts with: `F8` and a u32 size, or `F9`..`FC` for 1 to 4 bytes. Small packs have no gap and pay nothing.
//!
//! What must stay true: a pack without entries has no allocation; capacity is a whole size class, and what is
//! less than three eighths full is given back on removal; walks from both ends meet the same entries.
//! [`Pack::check`] looks.

mod entry;

use std::fmt;

use entry::{INT, STR6, STR8, decode, encode, entry_before, entry_len, gap_of, int_at, int_width, write_gap};
pub use entry::{Item, format_int, parse_int};

use crate::moves::Mover;
use crate::thin::{self, ThinBuf};

/// Up to this payload the entries start at the first byte and moving them is cheaper than keeping a gap.
pub const SMALL: usize = 256 - thin::HEADER;

/// Room that is made ahead is at most this: what is longer may turn out not to become a pack.
const RESERVED_MAX: usize = 64 << 10;

/// The most bytes that the entries of one pack take together.
pub const BYTES_MAX: usize = thin::LEN_MAX;

/// The most entries of one pack.
pub const COUNT_MAX: usize = thin::WORD_MAX;

/// Where an entry is. A change of the pack invalidates every position but the one that the change returns; a
/// stale one reads nonsense or panics.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Pos(u32);

impl Pos {
    #[inline]
    fn at(offset: usize) -> Self {
        Self(offset as u32)
    }

    #[inline]
    fn offset(self) -> usize {
        self.0 as usize
    }
}

/// An end of a pack.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Front,
    Back,
}

/// See the head of the module.
#[repr(transparent)]
pub struct Pack {
    buf: ThinBuf,
}

impl Pack {
    /// A pack without entries; takes no memory.
    pub const fn new() -> Self {
        Self { buf: ThinBuf::new() }
    }

    /// How many entries there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.buf.aux()
    }

    /// Whether there are no entries.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the entries take, headers included and unused bytes not.
    #[inline]
    pub fn packed_bytes(&self) -> usize {
        let bytes = self.buf.bytes();
        bytes.len() - gap_of(bytes)
    }

    /// What the pack holds from the allocator.
    #[inline]
    pub fn heap_bytes(&self) -> usize {
        self.buf.heap_bytes()
    }

    /// Gives allocations other addresses; see [`Mover`].
    pub fn relocate(&mut self, mover: &mut Mover<'_>) {
        self.buf.relocate(mover);
    }

    /// Whether `count` more entries of `bytes` packed bytes together stay below the bounds of a pack. Pushing
    /// more is the caller's bug: nothing is a pack for anywhere near that long.
    pub fn fits(&self, count: usize, bytes: usize) -> bool {
        // Half: growing asks for the next size class above the present one.
        self.len() + count <= COUNT_MAX && self.packed_bytes() + bytes <= BYTES_MAX / 2 + BYTES_MAX / 4
    }

    // Moving bytes. Everything that changes the sequence goes through `splice`.

    /// Replaces the `old` bytes at `at` by room for `new` and returns where the room is. The count is the one
    /// after the change.
    fn splice(&mut self, mut at: usize, old: usize, new: usize, count: usize) -> usize {
        assert!(count <= COUNT_MAX, "a pack is bounded to {COUNT_MAX} entries");
        if new > old {
            let more = new - old;
            let mut gap = gap_of(self.buf.bytes());
            let mut len = self.buf.len();
            let to_front = at == gap && at < len && len - gap + more > SMALL;
            // The shorter side moves, if it has room. An append never moves everything into the gap: `slide`
            // does that once for many.
            let before = at - gap;
            let behind = len - at - old;
            let mut into_gap = gap >= more && before <= behind;
            if !into_gap && (to_front || self.buf.capacity() - len < more) {
                self.slide(more, to_front);
                gap = gap_of(self.buf.bytes());
                len = self.buf.len();
                at = gap + before;
                into_gap = to_front;
            }
            if into_gap {
                let bytes = self.buf.bytes_mut();
                bytes.copy_within(gap..at, gap - more);
                write_gap(bytes, gap - more);
                at -= more;
            } else {
                self.buf.set(len + more, count);
                self.buf.bytes_mut().copy_within(at + old..len, at + new);
                return at;
            }
        } else if new < old {
            let less = old - new;
            let len = self.buf.len();
            if count == 0 {
                self.clear();
                return 0;
            }
            let bytes = self.buf.bytes_mut();
            let gap = gap_of(bytes);
            if (gap > 0 || len - gap - less > SMALL) && at - gap < len - at - old {
                bytes.copy_within(gap..at, gap + less);
                write_gap(bytes, gap + less);
                self.buf.set(len, count);
                at += less;
            } else {
                bytes.copy_within(at + old..len, at + new);
                self.buf.set(len - less, count);
            }
            return at - self.shrink();
        }
        self.buf.set(self.buf.len(), count);
        at
    }

    /// Finds room for `more` bytes before the first entry or behind the last one: moves the entries inside
    /// the allocation if a sixteenth of it is unused, and takes the next size class otherwise, so that the
    /// moved bytes per pushed byte stay bounded. All fresh room goes to the side that asked, because pushes
    /// come in runs; room that was already there is halved, because then both sides are in use.
    #[cold]
    #[inline(never)]
    fn slide(&mut self, more: usize, front: bool) {
        let len = self.buf.len();
        let gap = gap_of(self.buf.bytes());
        let payload = len - gap;
        let capacity = self.buf.capacity();
        let gapless = payload + more <= SMALL;
        let target = if capacity - payload >= more.max(capacity / 16) && capacity > 0 {
            let spare = if gapless { 0 } else { (capacity - payload - more) / 2 };
            if front { more + spare } else { spare }
        } else {
            self.buf.fit((payload + more).max(capacity + 1));
            match (front, gapless) {
                (true, true) => more,
                (true, false) => self.buf.capacity() - payload,
                (false, _) => 0,
            }
        };
        self.move_payload(gap, target);
    }

    /// Sees to room for `more` bytes at one end, for a caller that knows that much will follow: if the
    /// allocation must grow, it doubles, up to `most` bytes of capacity, and all fresh room is on that side.
    /// Stepping through every size class instead makes half the time of filling a node.
    #[inline(never)]
    fn make_room(&mut self, side: Side, more: usize, most: usize) {
        let gap = gap_of(self.buf.bytes());
        let (len, capacity) = (self.buf.len(), self.buf.capacity());
        let (room, other) = match side {
            Side::Front => (gap, capacity - len),
            Side::Back => (capacity - len, gap),
        };
        if room >= more || other >= capacity / 16 || capacity >= most {
            return;
        }
        self.buf.fit((capacity * 2).min(most).max(len + more));
        if side == Side::Front {
            self.move_payload(gap, gap + self.buf.capacity() - len);
        }
    }

    /// Makes the gap `target` bytes wide.
    fn move_payload(&mut self, gap: usize, target: usize) {
        let (len, count) = (self.buf.len(), self.buf.aux());
        let moved = len - gap + target;
        self.buf.set(len.max(moved), count);
        let bytes = self.buf.bytes_mut();
        bytes.copy_within(gap..len, target);
        write_gap(bytes, target);
        self.buf.set(moved, count);
    }

    /// Whether so little of the allocation is used that the rest should go back: three eighths, because
    /// growth can double it, and pops and pushes in turn must not copy everything each time.
    #[inline]
    fn is_sparse(&self) -> bool {
        (thin::HEADER + self.packed_bytes()) * 8 < self.heap_bytes() * 3
    }

    /// Gives memory back if there is much of it, and returns by how much positions moved down.
    #[inline]
    fn shrink(&mut self) -> usize {
        if self.is_sparse() { self.shrink_to_fit() } else { 0 }
    }

    /// Drops the gap and the slack; returns by how much positions moved down.
    #[cold]
    #[inline(never)]
    fn shrink_to_fit(&mut self) -> usize {
        let gap = gap_of(self.buf.bytes());
        if gap > 0 {
            self.move_payload(gap, 0);
        }
        self.buf.fit(self.buf.len());
        gap
    }

    /// Removes everything and frees the memory.
    pub fn clear(&mut self) {
        self.buf = ThinBuf::new();
    }

    // Positions.

    /// The first entry.
    #[inline]
    pub fn first(&self) -> Option<Pos> {
        (!self.is_empty()).then(|| Pos::at(gap_of(self.buf.bytes())))
    }

    /// The last entry.
    #[inline]
    pub fn last(&self) -> Option<Pos> {
        let bytes = self.buf.bytes();
        (!bytes.is_empty()).then(|| Pos::at(entry_before(bytes, bytes.len())))
    }

    /// The entry behind this one.
    #[inline]
    pub fn next(&self, pos: Pos) -> Option<Pos> {
        let bytes = self.buf.bytes();
        let next = pos.offset() + entry_len(bytes, pos.offset());
        (next < bytes.len()).then_some(Pos::at(next))
    }

    /// The entry before this one.
    #[inline]
    pub fn prev(&self, pos: Pos) -> Option<Pos> {
        let bytes = self.buf.bytes();
        (pos.offset() > gap_of(bytes)).then(|| Pos::at(entry_before(bytes, pos.offset())))
    }

    /// What the entry holds.
    #[inline]
    pub fn item(&self, pos: Pos) -> Item<'_> {
        decode(self.buf.bytes(), pos.offset()).0
    }

    /// The entry with this number; negative numbers count from the end, -1 being the last. Walks from the
    /// nearer end.
    #[inline]
    pub fn seek(&self, index: i64) -> Option<Pos> {
        let len = self.len() as i64;
        let index = if index < 0 { len + index } else { index };
        (0..len).contains(&index).then(|| Pos::at(self.offset_of(index as usize)))
    }

    /// The number of the entry at a position. Walks from the start.
    pub fn index_of(&self, pos: Pos) -> usize {
        let bytes = self.buf.bytes();
        let mut at = gap_of(bytes);
        let mut index = 0;
        while at < pos.offset() {
            at += entry_len(bytes, at);
            index += 1;
        }
        index
    }

    /// The offset of the entry with this number, or of the end for the number of entries.
    fn offset_of(&self, index: usize) -> usize {
        let bytes = self.buf.bytes();
        let len = self.len();
        assert!(index <= len);
        if index <= len / 2 {
            let mut at = gap_of(bytes);
            for _ in 0..index {
                at += entry_len(bytes, at);
            }
            at
        } else {
            let mut at = bytes.len();
            for _ in index..len {
                at = entry_before(bytes, at);
            }
            at
        }
    }

    /// The element with this number, counted as in [`Pack::seek`].
    #[inline]
    pub fn get(&self, index: i64) -> Option<Item<'_>> {
        self.seek(index).map(|pos| self.item(pos))
    }

    // Changes.

    /// Sees to room for `bytes` packed bytes that will be added, if that is no more than [`RESERVED_MAX`].
    pub(crate) fn reserve(&mut self, bytes: usize) {
        let wanted = self.buf.len() + bytes;
        if bytes <= RESERVED_MAX && wanted > self.buf.capacity() {
            self.buf.fit(wanted);
        }
    }

    /// Adds an element at the end.
    #[inline]
    pub fn push_back<'a>(&mut self, item: impl Into<Item<'a>>) {
        self.push_back_exact(item.into().canonical());
    }

    /// Adds an element at the end, as the form it is given in.
    #[inline]
    pub(crate) fn push_back_exact(&mut self, item: Item<'_>) {
        self.push_back_growing(item, 0);
    }

    /// Adds an element at the end; if that takes a bigger allocation, then twice as much, up to `most`.
    #[inline]
    pub(crate) fn push_back_growing(&mut self, item: Item<'_>, most: usize) {
        let more = item.packed_len();
        let len = self.buf.len();
        let count = self.buf.aux() + 1;
        let at = if self.buf.capacity() - len >= more {
            self.buf.set(len + more, count);
            len
        } else {
            self.make_room(Side::Back, more, most);
            self.splice(self.buf.len(), 0, more, count)
        };
        encode(item, &mut self.buf.bytes_mut()[at..at + more]);
    }

    /// Adds an element at the start.
    #[inline]
    pub fn push_front<'a>(&mut self, item: impl Into<Item<'a>>) {
        self.push_front_exact(item.into().canonical());
    }

    /// Adds an element at the start, as the form it is given in.
    #[inline]
    pub(crate) fn push_front_exact(&mut self, item: Item<'_>) {
        self.push_front_growing(item, 0);
    }

    /// Adds an element at the start; if that takes a bigger allocation, then twice as much, up to `most`.
    #[inline]
    pub(crate) fn push_front_growing(&mut self, item: Item<'_>, most: usize) {
        let more = item.packed_len();
        let (len, count) = (self.buf.len(), self.buf.aux());
        let bytes = self.buf.bytes_mut();
        let gap = gap_of(bytes);
        if gap >= more {
            encode(item, &mut bytes[gap - more..gap]);
            write_gap(bytes, gap - more);
            self.buf.set(len, count + 1);
        } else {
            self.make_room(Side::Front, more, most);
            self.insert_at(gap_of(self.buf.bytes()), item);
        }
    }

    /// Adds an element before an entry, as the form it is given in, and returns where it is.
    pub(crate) fn insert_at_exact(&mut self, pos: Pos, item: Item<'_>) -> Pos {
        self.insert_at(pos.offset(), item)
    }

    /// Adds an element so that it has this number.
    pub(crate) fn insert_exact(&mut self, index: usize, item: Item<'_>) -> Pos {
        self.insert_at(self.offset_of(index), item)
    }

    #[inline]
    fn insert_at(&mut self, at: usize, item: Item<'_>) -> Pos {
        let more = item.packed_len();
        let at = self.splice(at, 0, more, self.len() + 1);
        encode(item, &mut self.buf.bytes_mut()[at..at + more]);
        Pos::at(at)
    }

    /// Adds an element before an entry and returns where it is.
    pub fn insert_before<'a>(&mut self, pos: Pos, item: impl Into<Item<'a>>) -> Pos {
        self.insert_at(pos.offset(), item.into().canonical())
    }

    /// Adds an element behind an entry and returns where it is.
    pub fn insert_after<'a>(&mut self, pos: Pos, item: impl Into<Item<'a>>) -> Pos {
        let next = pos.offset() + entry_len(self.buf.bytes(), pos.offset());
        self.insert_at(next, item.into().canonical())
    }

    /// Gives an entry another value and returns where it is now. Values of equal length, and integers of
    /// equal width, are overwritten in place.
    pub fn replace<'a>(&mut self, pos: Pos, item: impl Into<Item<'a>>) -> Pos {
        self.replace_exact(pos, item.into().canonical())
    }

    pub(crate) fn replace_exact(&mut self, pos: Pos, item: Item<'_>) -> Pos {
        let new = item.packed_len();
        let old = entry_len(self.buf.bytes(), pos.offset());
        let at = self.splice(pos.offset(), old, new, self.len());
        encode(item, &mut self.buf.bytes_mut()[at..at + new]);
        Pos::at(at)
    }

    /// Removes an entry and returns where the next one is now.
    pub fn remove(&mut self, pos: Pos) -> Option<Pos> {
        self.remove_run(pos, 1)
    }

    /// Removes an entry and those that follow, `count` in all, and returns where the next one is now.
    pub fn remove_run(&mut self, pos: Pos, count: usize) -> Option<Pos> {
        let bytes = self.buf.bytes();
        let mut end = pos.offset();
        let mut removed = 0;
        while removed < count && end < bytes.len() {
            end += entry_len(bytes, end);
            removed += 1;
        }
        let at = self.splice(pos.offset(), end - pos.offset(), 0, self.len() - removed);
        (at < self.buf.len()).then_some(Pos::at(at))
    }

    /// Removes up to `count` entries from `index` on.
    pub fn remove_range(&mut self, index: usize, count: usize) {
        let len = self.len();
        let index = index.min(len);
        let count = count.min(len - index);
        let start = self.offset_of(index);
        let end = self.offset_of(index + count);
        self.splice(start, end - start, 0, len - count);
    }

    /// Keeps the first `count` entries.
    pub fn truncate(&mut self, count: usize) {
        self.remove_range(count, usize::MAX);
    }

    /// Shows the first element and removes it.
    #[inline]
    pub fn pop_front_with<R>(&mut self, show: impl FnOnce(Item<'_>) -> R) -> Option<R> {
        let (len, count) = (self.buf.len(), self.buf.aux());
        let at = self.first()?.offset();
        let bytes = self.buf.bytes_mut();
        let (item, next) = decode(bytes, at);
        let shown = show(item);
        if count > 1 && len - next > SMALL {
            write_gap(bytes, next);
            self.buf.set(len, count - 1);
            self.shrink();
        } else {
            self.splice(at, next - at, 0, count - 1);
        }
        Some(shown)
    }

    /// Shows the last element and removes it.
    #[inline]
    pub fn pop_back_with<R>(&mut self, show: impl FnOnce(Item<'_>) -> R) -> Option<R> {
        let count = self.buf.aux();
        let at = self.last()?.offset();
        let shown = show(decode(self.buf.bytes(), at).0);
        if count > 1 {
            self.buf.set(at, count - 1);
            self.shrink();
        } else {
            self.clear();
        }
        Some(shown)
    }

    /// Removes what `keep` refuses, in one pass, and returns how many that were.
    pub fn retain(&mut self, mut keep: impl FnMut(Item<'_>) -> bool) -> usize {
        let bytes = self.buf.bytes_mut();
        let end = bytes.len();
        let mut read = gap_of(bytes);
        let mut write = read;
        // Entries from here to `read` are kept and not yet moved: whole runs move at once.
        let mut run = read;
        let mut removed = 0;
        while read < end {
            let (item, next) = decode(bytes, read);
            if !keep(item) {
                bytes.copy_within(run..read, write);
                write += read - run;
                run = next;
                removed += 1;
            }
            read = next;
        }
        if removed == 0 {
            return 0;
        }
        bytes.copy_within(run..end, write);
        write += end - run;
        let count = self.len() - removed;
        if count == 0 {
            self.clear();
        } else {
            self.buf.set(write, count);
            self.shrink();
        }
        removed
    }

    /// Takes the entries from `index` on into a pack of their own.
    pub fn split_off(&mut self, index: usize) -> Self {
        let at = self.offset_of(index);
        let mut rest = Self::new();
        rest.extend_from_packed(&self.buf.bytes()[at..], self.len() - index);
        self.truncate(index);
        rest
    }

    /// Adds the elements of another pack at the end.
    pub fn append(&mut self, other: &Self) {
        let bytes = other.buf.bytes();
        self.extend_from_packed(&bytes[gap_of(bytes)..], other.len());
    }

    fn extend_from_packed(&mut self, packed: &[u8], count: usize) {
        if packed.is_empty() {
            return;
        }
        let at = self.splice(self.buf.len(), 0, packed.len(), self.len() + count);
        self.buf.bytes_mut()[at..].copy_from_slice(packed);
    }

    // Reading.

    /// All elements; the iterator runs from either end.
    #[inline]
    pub fn iter(&self) -> Iter<'_> {
        let bytes = self.buf.bytes();
        Iter { bytes, at: gap_of(bytes), end: bytes.len(), left: self.len(), ahead: 0, behind: 0 }
    }

    /// All elements, last first.
    pub fn iter_rev(&self) -> std::iter::Rev<Iter<'_>> {
        self.iter().rev()
    }

    /// The elements from number `start` up to but without number `end`; the iterator runs from either end,
    /// and walks to an end when it is first asked for an element there.
    #[inline]
    pub fn range(&self, start: usize, end: usize) -> Iter<'_> {
        let len = self.len();
        let end = end.min(len);
        let start = start.min(end);
        Iter { left: end - start, ahead: start, behind: len - end, ..self.iter() }
    }

    /// The first entry equal to `value` among those with the numbers 0, `skip` + 1, 2 `skip` + 2 and so on.
    pub fn find<'a>(&self, value: impl Into<Item<'a>>, skip: usize) -> Option<Pos> {
        let bytes = self.buf.bytes();
        let start = gap_of(bytes);
        match value.into().canonical() {
            Item::Int(value @ 0..=127) => scan(bytes, start, skip, |at| bytes[at] == value as u8),
            Item::Int(value) => {
                let width = int_width(value);
                let head = INT | (width - 1) as u8;
                scan(bytes, start, skip, |at| bytes[at] == head && int_at(bytes, at + 1, width) == value)
            }
            Item::Bytes(b"") => scan(bytes, start, skip, |at| bytes[at] == STR6),
            Item::Bytes(value) if value.len() < 64 => {
                let head = STR6 | value.len() as u8;
                let last = value[value.len() - 1];
                // Fields of one hash tend to differ in their last byte: most candidates need no call to
                // compare.
                scan(bytes, start, skip, |at| {
                    bytes[at] == head
                        && bytes[at + value.len()] == last
                        && &bytes[at + 1..=at + value.len()] == value
                })
            }
            value => scan(bytes, start, skip, |at| bytes[at] >= STR8 && decode(bytes, at).0 == value),
        }
    }

    // Pairs: field and value, one behind the other.

    /// Where the field of a pair is; its value is the [`next`](Self::next) entry.
    pub fn find_pair<'a>(&self, field: impl Into<Item<'a>>) -> Option<Pos> {
        self.find(field, 1)
    }

    /// The value of a field.
    pub fn get_pair<'a>(&self, field: impl Into<Item<'a>>) -> Option<Item<'_>> {
        let value = self.next(self.find_pair(field)?)?;
        Some(self.item(value))
    }

    /// Sets the value of a field; true if the field is new.
    pub fn set_pair<'a, 'b>(&mut self, field: impl Into<Item<'a>>, value: impl Into<Item<'b>>) -> bool {
        let field = field.into().canonical();
        if let Some(pos) = self.find_pair(field) {
            let pos = self.next(pos).expect("a field is followed by its value");
            self.replace(pos, value);
            false
        } else {
            self.push_back_exact(field);
            self.push_back(value);
            true
        }
    }

    /// Removes a field and its value; false if there is no such field.
    pub fn remove_pair<'a>(&mut self, field: impl Into<Item<'a>>) -> bool {
        match self.find_pair(field) {
            Some(pos) => {
                self.remove_run(pos, 2);
                true
            }
            None => false,
        }
    }

    /// Walks everything in both directions and panics where an invariant is broken. For tests, fuzzing and
    /// the server's self-check.
    pub fn check(&self) {
        let bytes = self.buf.bytes();
        let gap = gap_of(bytes);
        if self.is_empty() {
            assert_eq!((bytes.len(), self.heap_bytes()), (0, 0), "an empty pack takes no memory");
            return;
        }
        assert!(!self.is_sparse());
        let mut starts = Vec::new();
        let mut at = gap;
        while at < bytes.len() {
            starts.push(at);
            let (item, next) = decode(bytes, at);
            assert_eq!(next, at + entry_len(bytes, at));
            assert_eq!(next, at + item.packed_len(), "the shortest form");
            at = next;
        }
        assert_eq!(at, bytes.len());
        assert_eq!(starts.len(), self.len());
        for start in starts.into_iter().rev() {
            at = entry_before(bytes, at);
            assert_eq!(at, start, "the way back");
        }
    }
}

#[inline]
fn scan(bytes: &[u8], mut at: usize, skip: usize, matches: impl Fn(usize) -> bool) -> Option<Pos> {
    while at < bytes.len() {
        if matches(at) {
            return Some(Pos::at(at));
        }
        at += entry_len(bytes, at);
        for _ in 0..skip {
            if at < bytes.len() {
                at += entry_len(bytes, at);
            }
        }
    }
    None
}

impl Default for Pack {
    fn default() -> Self {
        Self::new()
    }
}

/// Copies the entries; the copy has neither gap nor slack.
impl Clone for Pack {
    fn clone(&self) -> Self {
        let mut copy = Self::new();
        copy.append(self);
        copy
    }
}

impl PartialEq for Pack {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (self.buf.bytes(), other.buf.bytes());
        a[gap_of(a)..] == b[gap_of(b)..]
    }
}

impl Eq for Pack {}

impl fmt::Debug for Pack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a, T: Into<Item<'a>>> FromIterator<T> for Pack {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut pack = Self::new();
        for item in items {
            pack.push_back(item);
        }
        pack
    }
}

impl<'a> IntoIterator for &'a Pack {
    type Item = Item<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// The elements of a pack, from either end.
#[derive(Clone, Default)]
pub struct Iter<'a> {
    bytes: &'a [u8],
    at: usize,
    end: usize,
    left: usize,
    /// Entries between `at` and the first element to give, not yet walked over.
    ahead: usize,
    /// The same before `end`.
    behind: usize,
}

impl Iter<'_> {
    /// Finds the first element to give, from the nearer side.
    #[cold]
    fn seek_front(&mut self) {
        if self.ahead <= self.left + self.behind {
            for _ in 0..self.ahead {
                self.at += entry_len(self.bytes, self.at);
            }
        } else {
            self.at = self.end;
            for _ in 0..self.left + self.behind {
                self.at = entry_before(self.bytes, self.at);
            }
        }
        self.ahead = 0;
    }

    #[cold]
    fn seek_back(&mut self) {
        if self.behind <= self.left + self.ahead {
            for _ in 0..self.behind {
                self.end = entry_before(self.bytes, self.end);
            }
        } else {
            self.end = self.at;
            for _ in 0..self.left + self.ahead {
                self.end += entry_len(self.bytes, self.end);
            }
        }
        self.behind = 0;
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = Item<'a>;

    #[inline]
    fn next(&mut self) -> Option<Item<'a>> {
        if self.left == 0 {
            return None;
        }
        if self.ahead > 0 {
            self.seek_front();
        }
        let (item, next) = decode(self.bytes, self.at);
        self.at = next;
        self.left -= 1;
        Some(item)
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<'a> DoubleEndedIterator for Iter<'a> {
    #[inline]
    fn next_back(&mut self) -> Option<Item<'a>> {
        if self.left == 0 {
            return None;
        }
        if self.behind > 0 {
            self.seek_back();
        }
        self.end = entry_before(self.bytes, self.end);
        self.left -= 1;
        Some(decode(self.bytes, self.end).0)
    }
}

impl ExactSizeIterator for Iter<'_> {}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::alloc::good_size;

    /// A small generator with a fixed seed: a failure repeats.
    struct Rng(u64);

    impl Rng {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        fn below(&mut self, bound: usize) -> usize {
            (self.next() % bound as u64) as usize
        }
    }

    const EDGES: &[usize] = &[
        0, 1, 63, 64, 122, 123, 124, 125, 126, 127, 128, 253, 254, 255, 256, 16_383, 16_384, 65_530, 65_535,
        65_536,
    ];

    /// Integers at the borders of their widths, and strings that only look like integers.
    const LOOKALIKES: &str = "0|7|127|128|-1|-128|-129|255|256|32767|32768|-32768|-32769|8388607|8388608|\
        2147483647|2147483648|-2147483648|-2147483649|1099511627775|9007199254740993|9223372036854775807|\
        -9223372036854775808|9223372036854775808|-9223372036854775809|18446744073709551616|\
        99999999999999999999|007|-0|+1| 1|1 ||-|--1|1.0|0x1|00|-01|1e3";

    fn value(rng: &mut Rng) -> Vec<u8> {
        match rng.below(10) {
            0..=3 => (0..rng.below(20)).map(|_| b'a' + (rng.next() % 3) as u8).collect(),
            4 => LOOKALIKES.split('|').nth(rng.below(40)).unwrap_or("").into(),
            5..=6 => ((rng.next() as i64) >> rng.below(64)).to_string().into(),
            7 if rng.below(4) == 0 => vec![b'x'; EDGES[rng.below(if cfg!(miri) { 15 } else { EDGES.len() })]],
            _ => rng.below(200).to_string().into(),
        }
    }

    fn bytes_of(pack: &Pack) -> Vec<Vec<u8>> {
        pack.iter().map(|item| item.to_vec()).collect()
    }

    /// What goes in comes out, in the documented size, whatever it looks like.
    #[test]
    fn every_value_comes_back() {
        let mut values: Vec<Vec<u8>> = LOOKALIKES.split('|').map(|text| text.into()).collect();
        values.extend(EDGES.iter().map(|&len| vec![b'9'; len]));
        values.extend((0..64).flat_map(|bit| {
            let power = 1i64 << bit;
            [power, power.wrapping_sub(1), power.wrapping_neg(), power.wrapping_neg().wrapping_sub(1)]
                .map(|value| value.to_string().into_bytes())
        }));
        values.push(vec![0xFF; if cfg!(miri) { 70_000 } else { 1 << 20 }]);
        for value in &values {
            let item = Item::of(value);
            assert_eq!(item.to_vec(), *value);
            let text = std::str::from_utf8(value).unwrap_or("");
            let canonical = text.parse::<i64>().ok().filter(|number| number.to_string() == text);
            assert_eq!(matches!(item, Item::Int(_)), canonical.is_some(), "{text}");
            let pack: Pack = [value.as_slice(), b"between", value].into_iter().collect();
            pack.check();
            assert_eq!(bytes_of(&pack), [value.as_slice(), b"between", value]);
            assert_eq!(pack.packed_bytes(), 2 * item.packed_len() + 9);
            assert_eq!(pack.find(value, 0), pack.first());
            assert_eq!(pack.find(value, 1), pack.first());
            assert_eq!(pack.find(b"between", 0), pack.seek(1));
            assert_eq!(pack.find(b"between", 1), None);
        }
        let all: Pack = values.iter().collect();
        all.check();
        assert_eq!(bytes_of(&all), values);
        assert_eq!(all.iter_rev().map(|item| item.to_vec()).collect::<Vec<_>>(), {
            values.reverse();
            values
        });
    }

    /// The sizes that the design promises.
    #[test]
    fn sizes() {
        assert_eq!(size_of::<Pack>(), 8);
        assert_eq!(Pack::new().heap_bytes(), 0);
        let list: Pack = (0..10).map(|i| Item::Bytes([b"element:0", b"element:1"][i % 2])).collect();
        assert_eq!(list.heap_bytes(), 128);
        let mut list = Pack::new();
        (0..10).for_each(|_| list.push_front(b"ten bytes."));
        assert_eq!(list.heap_bytes(), 128);
        let hash: Pack = [&b"name"[..], b"alice", b"age", b"42", b"city", b"Amsterdam"].into_iter().collect();
        let payload = "namealiceage42cityAmsterdam".len();
        assert!(hash.heap_bytes() <= good_size(payload) + 16, "{} for {payload}", hash.heap_bytes());
    }

    /// Random operations against a VecDeque, over several sizes of pack so that both sides of `SMALL` are
    /// met.
    #[test]
    fn model() {
        for (seed, target) in [(1, 8), (2, 40), (3, 300), (4, 2000)] {
            if cfg!(miri) && target > 40 {
                continue;
            }
            let mut rng = Rng(seed);
            let mut pack = Pack::new();
            let mut model: VecDeque<Vec<u8>> = VecDeque::new();
            let mut grow = true;
            for step in 0..if cfg!(miri) { 120 } else { 20_000 } {
                if model.len() > target {
                    grow = false;
                } else if model.len() < target / 4 {
                    grow = true;
                }
                let value = value(&mut rng);
                let len = model.len();
                let at = rng.below(len + 1);
                match rng.below(if grow { 14 } else { 26 }) {
                    0..=2 => {
                        pack.push_back(&value);
                        model.push_back(value);
                    }
                    3..=6 => {
                        pack.push_front(&value);
                        model.push_front(value);
                    }
                    7 if len > 0 => {
                        let pos = pack.seek(at as i64 % len as i64).unwrap();
                        let at = at % len;
                        if rng.below(2) == 0 {
                            let pos = pack.insert_before(pos, &value);
                            assert_eq!(pack.item(pos), Item::of(&value));
                            model.insert(at, value);
                        } else {
                            let pos = pack.insert_after(pos, &value);
                            assert_eq!(pack.item(pos), Item::of(&value));
                            model.insert(at + 1, value);
                        }
                    }
                    8..=9 if len > 0 => {
                        let pos = pack.seek((at % len) as i64 - len as i64).unwrap();
                        let pos = pack.replace(pos, &value);
                        assert_eq!(pack.item(pos), Item::of(&value));
                        assert_eq!(pack.index_of(pos), at % len);
                        model[at % len] = value;
                    }
                    10 if len > 0 => {
                        let next = pack.remove(pack.seek((at % len) as i64).unwrap());
                        model.remove(at % len);
                        assert_eq!(next.map(|pos| pack.item(pos).to_vec()), model.get(at % len).cloned());
                    }
                    11 => {
                        let needle = model.get(at).cloned().unwrap_or(value);
                        let skip = rng.below(3);
                        let found = (0..len).step_by(skip + 1).find(|&i| model[i] == needle);
                        assert_eq!(pack.find(&needle, skip), found.map(|i| pack.seek(i as i64).unwrap()));
                    }
                    12 => {
                        let copy = pack.clone();
                        copy.check();
                        assert!(copy == pack);
                        let mut rest = pack.split_off(at);
                        assert_eq!((pack.len(), rest.len()), (at, len - at));
                        rest.check();
                        pack.check();
                        if rng.below(2) == 0 {
                            pack.append(&rest);
                        } else {
                            std::mem::swap(&mut pack, &mut rest);
                            pack.append(&rest);
                            model.rotate_left(at);
                        }
                    }
                    13 => {
                        let index = rng.below(len + 2) as i64 - 1;
                        let expected = if index < 0 { model.back() } else { model.get(index as usize) };
                        assert_eq!(pack.get(index).map(|item| item.to_vec()).as_ref(), expected);
                        assert_eq!(pack.get(-(len as i64) - 1), None);
                        let end = at + rng.below(5);
                        assert!(pack.range(at, end).eq(pack.iter().take(end).skip(at)));
                        assert!(pack.range(0, at).rev().eq(pack.iter_rev().skip(len - at)));
                    }
                    14..=17 => assert_eq!(pack.pop_front_with(|item| item.to_vec()), model.pop_front()),
                    18..=21 => assert_eq!(pack.pop_back_with(|item| item.to_vec()), model.pop_back()),
                    22 => {
                        let count = rng.below(20);
                        pack.remove_range(at, count);
                        model.drain(at..len.min(at + count));
                    }
                    23 => {
                        let gone = rng.below(16) as u8;
                        let stays = |value: &[u8]| value.last().copied().unwrap_or(0) & 15 != gone;
                        let removed = pack.retain(|item| stays(item.as_bytes(&mut [0; 20])));
                        model.retain(|value| stays(value));
                        assert_eq!(removed, len - model.len());
                    }
                    24 if rng.below(50) == 0 => {
                        pack.truncate(at);
                        model.truncate(at);
                    }
                    _ => {}
                }
                if len < 50 || step % 16 == 0 {
                    pack.check();
                    assert!(pack.iter().map(|item| item.to_vec()).eq(model.iter().cloned()));
                }
                assert_eq!(pack.len(), model.len());
            }
        }
    }

    /// A queue through a pack of a few kilobytes neither grows nor loses order, in both directions.
    #[test]
    fn queue() {
        for forward in [true, false] {
            let mut pack = Pack::new();
            let (mut next_in, mut next_out) = (0i64, 0i64);
            for round in 0..if cfg!(miri) { 560 } else { 20_000 } {
                if forward {
                    pack.push_back(next_in * 1_000_003);
                } else {
                    pack.push_front(next_in * 1_000_003);
                }
                next_in += 1;
                if round >= 500 {
                    let out = if forward {
                        pack.pop_front_with(|item| item.to_vec())
                    } else {
                        pack.pop_back_with(|item| item.to_vec())
                    };
                    assert_eq!(out, Some((next_out * 1_000_003).to_string().into_bytes()));
                    next_out += 1;
                }
            }
            pack.check();
            assert!(pack.heap_bytes() <= 2 * good_size(pack.packed_bytes() + 8));
        }
    }

    /// Fields and values: set, overwrite with shorter, longer and integer values, remove.
    #[test]
    fn pairs() {
        let mut hash = Pack::new();
        assert!(hash.set_pair(b"a", b"1"));
        assert!(hash.set_pair(b"b", b"a"));
        assert!(!hash.set_pair(b"a", b"a longer value"));
        assert!(hash.set_pair(b"7", -5));
        assert_eq!(hash.get_pair(b"a").unwrap().to_vec(), b"a longer value");
        assert_eq!(hash.get_pair(7).unwrap(), Item::Int(-5));
        assert_eq!(hash.get_pair(b"07"), None);
        assert_eq!(hash.find_pair(b"a longer value"), None, "a value is not a field");
        assert!(hash.remove_pair(b"a"));
        assert!(!hash.remove_pair(b"a"));
        assert_eq!(hash.len(), 4);
        assert!(hash.remove_pair(b"b") && hash.remove_pair(b"7"));
        assert_eq!(hash.heap_bytes(), 0);
    }
}
