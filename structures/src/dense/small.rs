//! The small hash: the entries of the big one, in one allocation and found by walking.
//!
//! ```text
//! SmallHash --> | header: bytes in use, fields, class | entry | entry | entry ... | slack |
//! ```
//!
//! A pack would do, and each of its entries has a byte for the way back that nobody takes in a hash: ten fields of
//! 8 bytes with values of 10 are 228 bytes in a pack, of the size class of 256, and 208 here, of that of 224. And
//! because these are the entries of the big hash, a field with an expiry is six bytes longer and nothing else.
//!
//! As in the big hash nothing here knows a clock: a field whose expiry is not later than the `now` handed in does not
//! exist, and is freed when a change meets it or by [`SmallHash::expire`].
//!
//! Values that do not fit an entry have an allocation of their own, as they have in the big hash. A bit beside the
//! number of fields says whether there ever was one: only then do a copy and the end of the hash walk over the entries.
//!
//! What must stay true: no field is outside, and no value is while the bit is unset; a hash without fields has no
//! allocation; what is less than three eighths full was given back on removal. [`SmallHash::check`] looks.

use super::entry::EACH_IN_MAX;
use super::hash::{Field, field_of, value_of};
use super::{Draft, EXPIRY_MAX, Entry, Owned, Part, Revision, Span, expire_at, is_expired, outside_bytes};
use crate::keytable::Expiry;
use crate::moves::Mover;
use crate::pack::Item;
use crate::table::{ENTRY_LEN_MAX, Layout};
use crate::thin::{self, HEADER, ThinBuf};

/// A map from byte strings to byte strings, made for few. See the module's head.
pub struct SmallHash {
    buf: ThinBuf,
}

/// The longest field that a small hash takes.
const FIELD_MAX: usize = EACH_IN_MAX;

/// In the buffer's word, above the number of fields: there may be values outside.
const OWNS: usize = 1 << 26;

/// Bytes that all entries take together. Each change may move all that is behind it: 10 microseconds at most.
const BYTES_MAX: usize = 128 * 1024;

// An entry has two bytes at least.
const _: () = assert!(BYTES_MAX / 2 < OWNS && OWNS < thin::WORD_MAX);

impl SmallHash {
    /// A hash without fields; takes no memory.
    pub const fn new() -> SmallHash {
        SmallHash { buf: ThinBuf::new() }
    }

    /// Fields, including expired ones that have not been freed yet.
    #[inline]
    pub fn len(&self) -> usize {
        self.buf.aux() & !OWNS
    }

    /// Whether values may be outside.
    #[inline]
    fn owns(&self) -> bool {
        self.buf.aux() & OWNS != 0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the hash holds from the allocator. Walks if values are outside.
    #[inline]
    pub fn heap_bytes(&self) -> usize {
        let outside = if self.owns() { self.entries().map(outside_bytes::<true>).sum() } else { 0 };
        self.buf.heap_bytes() + outside
    }

    /// Bytes that the entries take, values outside not counted.
    #[inline]
    pub fn bytes(&self) -> usize {
        self.buf.len()
    }

    /// All entries, each with all that is behind it.
    fn entries(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.buf.bytes();
        std::iter::from_fn(move || {
            let entry = rest;
            rest = &entry[if entry.is_empty() { 0 } else { Entry::<true>::entry_len(entry) }..];
            (!entry.is_empty()).then_some(entry)
        })
    }

    /// Gives allocations other addresses; see [`Mover`].
    pub fn relocate(&mut self, mover: &mut Mover<'_>) {
        self.buf.relocate(mover);
        let mut rest = if self.owns() { self.buf.bytes_mut() } else { &mut [] };
        while !rest.is_empty() {
            let (entry, behind) = rest.split_at_mut(Entry::<true>::entry_len(rest));
            super::entry::relocate::<true>(entry, mover);
            rest = behind;
        }
    }

    /// Whether this field, with any value, can be given to [`SmallHash::set`].
    #[inline]
    pub fn takes(&self, field: &[u8]) -> bool {
        field.len() <= FIELD_MAX && self.buf.len() + ENTRY_LEN_MAX <= BYTES_MAX
    }

    /// The entry at an offset, with all that is behind it.
    #[inline]
    fn entry(&self, at: usize) -> &[u8] {
        &self.buf.bytes()[at..]
    }

    /// Where the entry of a field is, expired or not.
    #[inline]
    fn find(&self, field: &[u8]) -> Option<usize> {
        let wanted = Part::key::<true>(field);
        let bytes = self.buf.bytes();
        let mut at = 0;
        while at < bytes.len() {
            let entry = &bytes[at..];
            let key = Span::key(entry);
            if wanted.is_at(entry, key) {
                return Some(at);
            }
            at += Span::value(entry, key).end();
        }
        None
    }

    /// The entry of a field that has not expired.
    #[inline]
    fn live(&self, field: &[u8], now: u64) -> Option<&[u8]> {
        let entry = self.entry(self.find(field)?);
        (!is_expired(entry, now)).then_some(entry)
    }

    /// A field's value.
    #[inline]
    pub fn get(&self, field: &[u8], now: u64) -> Option<Item<'_>> {
        self.live(field, now).map(value_of)
    }

    /// A field's expiry; the outer option says whether there is such a field.
    pub fn expire_at(&self, field: &[u8], now: u64) -> Option<Option<u64>> {
        self.live(field, now).map(expire_at)
    }

    /// Gives a field a value; true if the field is new. [`SmallHash::takes`] must have agreed.
    pub fn set(&mut self, field: &[u8], value: &[u8], expiry: Expiry, now: u64) -> bool {
        assert!(self.takes(field));
        let wanted = match expiry {
            Expiry::At(at) => Some(at.min(EXPIRY_MAX)),
            Expiry::Keep | Expiry::Never => None,
        };
        let Some(at) = self.find(field) else {
            let key = Part::key::<true>(field);
            let value = Part::value(value, key.body_len());
            let draft = Draft { key, expire_at: wanted, value: Some(value) };
            let end = self.buf.len();
            self.make_room(end, 0, draft.len(), 1);
            draft.write(&mut self.buf.bytes_mut()[end..]);
            self.note(value);
            return true;
        };
        let entry = self.entry(at);
        let key = Span::key(entry);
        let is_new = is_expired(entry, now);
        let present = expire_at(entry);
        let wanted = if expiry == Expiry::Keep && !is_new { present } else { wanted };
        let value = Part::value(value, key.len());
        let span = Span::value(entry, key);
        if wanted != present || !value.write_over(&mut self.buf.bytes_mut()[at..], span) {
            self.revise(at, &Revision { expire_at: wanted, value: Some(value) });
        }
        is_new
    }

    /// Gives a field another expiry, or none; false if there is no such field.
    pub fn set_expire(&mut self, field: &[u8], expire: Option<u64>, now: u64) -> bool {
        let Some(at) = self.find(field) else { return false };
        if is_expired(self.entry(at), now) {
            self.cut(at);
            return false;
        }
        let expire = expire.map(|at| at.min(EXPIRY_MAX));
        if expire != expire_at(self.entry(at)) {
            self.revise(at, &Revision { expire_at: expire, value: None });
        }
        true
    }

    /// Removes a field; false if there is no such field.
    pub fn remove(&mut self, field: &[u8], now: u64) -> bool {
        let Some(at) = self.find(field) else { return false };
        let was_there = !is_expired(self.entry(at), now);
        self.cut(at);
        was_there
    }

    /// All fields, the oldest first.
    pub fn iter(&self, now: u64) -> SmallFields<'_> {
        SmallFields { rest: self.buf.bytes(), now }
    }

    /// Frees fields that have expired by `now`, showing the name of each, in one pass. Returns how many, and the
    /// earliest expiry of those that stay.
    pub fn expire(&mut self, now: u64, mut visit: impl FnMut(Item<'_>)) -> (usize, Option<u64>) {
        let (mut read, mut write, mut removed, mut earliest) = (0, 0, 0, None);
        let bytes = self.buf.bytes_mut();
        while read < bytes.len() {
            let entry = &bytes[read..];
            let len = Entry::<true>::entry_len(entry);
            let at = expire_at(entry);
            if at.is_some_and(|at| at <= now) {
                visit(Span::key(entry).read(entry));
                Owned::of::<true>(entry).free();
                removed += 1;
            } else {
                if let Some(at) = at {
                    earliest = Some(earliest.map_or(at, |earliest: u64| earliest.min(at)));
                }
                bytes.copy_within(read..read + len, write);
                write += len;
            }
            read += len;
        }
        if removed > 0 {
            let word = self.buf.aux() - removed;
            self.buf.set(write, word);
            self.tidy();
        }
        (removed, earliest)
    }

    /// Remembers that a value was written outside.
    #[inline]
    fn note(&mut self, value: Part<'_>) {
        if matches!(value, Part::Out(_)) {
            self.buf.set(self.buf.len(), self.buf.aux() | OWNS);
        }
    }

    /// Replaces the `old` bytes at `at` by as many as `new`, which are not fewer and arbitrary, for so many fields more.
    fn make_room(&mut self, at: usize, old: usize, new: usize, fields: usize) {
        let len = self.buf.len();
        let after = len + new - old;
        if after > self.buf.capacity() {
            self.buf.fit(after);
        }
        self.buf.set(after, self.buf.aux() + fields);
        self.buf.bytes_mut().copy_within(at + old..len, at + new);
    }

    fn revise(&mut self, at: usize, revision: &Revision<'_>) {
        let old_len = Entry::<true>::entry_len(self.entry(at));
        let mut old = [0; ENTRY_LEN_MAX];
        let old = &mut old[..old_len];
        old.copy_from_slice(&self.entry(at)[..old_len]);
        let new_len = revision.len(old);
        let len = self.buf.len();
        if new_len > old_len {
            self.make_room(at, old_len, new_len, 0);
        } else {
            self.buf.bytes_mut().copy_within(at + old_len..len, at + new_len);
            self.buf.set(len - (old_len - new_len), self.buf.aux());
        }
        let replaced = revision.write(old, &mut self.buf.bytes_mut()[at..]);
        replaced.free();
        if let Some(value) = revision.value {
            self.note(value);
        }
        self.tidy();
    }

    /// Removes the entry at an offset.
    fn cut(&mut self, at: usize) {
        let entry = self.entry(at);
        let (entry_len, owned) = (Entry::<true>::entry_len(entry), Owned::of::<true>(entry));
        let (len, word) = (self.buf.len(), self.buf.aux() - 1);
        self.buf.bytes_mut().copy_within(at + entry_len..len, at);
        self.buf.set(len - entry_len, word);
        owned.free();
        self.tidy();
    }

    /// Growth can double an allocation; less than three eighths of one are not used up again by the next field.
    fn is_sparse(&self) -> bool {
        (HEADER + self.buf.len()) * 8 < self.buf.heap_bytes() * 3
    }

    fn tidy(&mut self) {
        if self.is_empty() {
            self.buf = ThinBuf::new();
        } else if self.is_sparse() {
            self.buf.fit(self.buf.len());
        }
    }

    /// Panics unless every invariant holds.
    pub fn check(&self) {
        let (mut at, mut count) = (0, 0);
        let mut names = std::collections::HashSet::new();
        while at < self.buf.len() {
            let entry = self.entry(at);
            let key = Span::key(entry);
            let value = Span::value(entry, key);
            assert_eq!(key.outside_bytes(entry), 0, "no field is outside");
            assert!(self.owns() || value.outside_bytes(entry) == 0, "nobody knows of a value outside");
            assert!(names.insert(key.read(entry).to_vec()), "a field is there once");
            at += value.end();
            count += 1;
        }
        assert_eq!((at, count), (self.buf.len(), self.len()));
        assert!(if count == 0 { self.heap_bytes() == 0 } else { !self.is_sparse() });
    }
}

impl Default for SmallHash {
    fn default() -> SmallHash {
        SmallHash::new()
    }
}

impl Clone for SmallHash {
    fn clone(&self) -> SmallHash {
        let mut buf = ThinBuf::new();
        if !self.is_empty() {
            buf.fit(self.buf.len());
            buf.set(self.buf.len(), self.buf.aux());
            buf.bytes_mut().copy_from_slice(self.buf.bytes());
        }
        let mut rest = if self.owns() { buf.bytes_mut() } else { &mut [] };
        while !rest.is_empty() {
            let (entry, behind) = rest.split_at_mut(Entry::<true>::entry_len(rest));
            Entry::<true>::clone_owned(entry);
            rest = behind;
        }
        SmallHash { buf }
    }
}

impl Drop for SmallHash {
    #[inline]
    fn drop(&mut self) {
        if self.owns() {
            self.entries().for_each(|entry| {
                Owned::of::<true>(entry).free();
            });
        }
    }
}

/// See [`SmallHash::iter`].
#[derive(Clone)]
pub struct SmallFields<'a> {
    rest: &'a [u8],
    now: u64,
}

impl<'a> Iterator for SmallFields<'a> {
    type Item = Field<'a>;

    #[inline]
    fn next(&mut self) -> Option<Field<'a>> {
        while !self.rest.is_empty() {
            let entry = self.rest;
            self.rest = &entry[Entry::<true>::entry_len(entry)..];
            if !is_expired(entry, self.now) {
                return Some(field_of(entry));
            }
        }
        None
    }
}
