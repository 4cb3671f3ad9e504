//! The big hash.

use super::{Ahead, Dense, Draft, EXPIRY_MAX, Part, Revision, Span, Walk, expire_at};
use crate::keytable::Expiry;
use crate::moves::Mover;
use crate::pack::Item;
use crate::table::Cursor;

/// A map from byte strings to byte strings, made for many. See the module's head, also for what `now` means.
#[derive(Clone)]
pub struct DenseHash {
    dense: Dense<true>,
}

/// A field as walks show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// Its bytes, or the number whose decimal form they are.
    pub field: Item<'a>,
    /// Its value, likewise.
    pub value: Item<'a>,
    /// When it expires, in milliseconds since 1970.
    pub expire_at: Option<u64>,
}

/// Why [`DenseHash::add`] changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdded {
    /// The value is not a number of 64 bits.
    NotInteger,
    /// The sum would not be one.
    Overflow,
}

#[inline]
pub(super) fn value_of(entry: &[u8]) -> Item<'_> {
    Span::value(entry, Span::key(entry)).read(entry)
}

#[inline]
pub(super) fn field_of(entry: &[u8]) -> Field<'_> {
    let key = Span::key(entry);
    Field { field: key.read(entry), value: Span::value(entry, key).read(entry), expire_at: expire_at(entry) }
}

impl DenseHash {
    /// An empty hash: 4 KiB. The seed is secret and drawn by the caller.
    pub fn new(seed: u64) -> DenseHash {
        DenseHash { dense: Dense::new(seed) }
    }

    /// Fields, including expired ones that have not been freed yet.
    #[inline]
    pub fn len(&self) -> usize {
        self.dense.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the hash holds from the allocator; the struct itself is its owner's to count.
    pub fn heap_bytes(&self) -> usize {
        self.dense.heap_bytes()
    }

    /// Gives allocations other addresses; see [`Mover`].
    pub fn relocate(&mut self, mover: &mut Mover<'_>) {
        self.dense.relocate(mover);
    }

    /// Fields that have an expiry.
    pub fn expiring(&self) -> usize {
        self.dense.expiring
    }

    /// Begins to load what a command with this field looks at.
    #[inline]
    pub fn ahead(&self, field: &[u8]) -> Ahead<'_, true> {
        self.dense.ahead(field)
    }

    /// A field's value.
    #[inline]
    pub fn get(&self, field: &[u8], now: u64) -> Option<Item<'_>> {
        self.dense.get(field, now).map(value_of)
    }

    /// Whether there is such a field.
    #[inline]
    pub fn contains(&self, field: &[u8], now: u64) -> bool {
        self.dense.get(field, now).is_some()
    }

    /// A field's expiry; the outer option says whether there is such a field.
    pub fn expire_at(&self, field: &[u8], now: u64) -> Option<Option<u64>> {
        self.dense.get(field, now).map(expire_at)
    }

    /// Gives a field a value; true if the field is new.
    #[inline]
    pub fn set(&mut self, field: &[u8], value: &[u8], expiry: Expiry, now: u64) -> bool {
        self.write(field, expiry, now, |field_len| Part::value(value, field_len))
    }

    /// As [`DenseHash::set`] with a value that depends on how long the field's body is.
    #[inline]
    fn write<'v>(
        &mut self,
        field: &[u8],
        expiry: Expiry,
        now: u64,
        value: impl FnOnce(usize) -> Part<'v>,
    ) -> bool {
        let hash = self.dense.hash(field);
        let wanted = match expiry {
            Expiry::At(at) => Some(at.min(EXPIRY_MAX)),
            Expiry::Keep | Expiry::Never => None,
        };
        let Some(loc) = self.dense.locate(hash, field, now) else {
            let key = Part::key::<true>(field);
            let value = value(key.body_len());
            self.dense.add(hash, &Draft { key, expire_at: wanted, value: Some(value) });
            return true;
        };
        let entry = self.dense.table.entry(loc);
        let key = Span::key(entry);
        let present = expire_at(entry);
        let wanted = if expiry == Expiry::Keep { present } else { wanted };
        let value = value(key.len());
        if wanted == present {
            // The commonest change: another value of the same length, written over the old one.
            let span = Span::value(entry, key);
            let loc = self.dense.table.own(loc);
            if value.write_over(self.dense.table.entry_mut(loc), span) {
                return false;
            }
            self.dense.revise(hash, field, loc, &Revision { expire_at: wanted, value: Some(value) });
        } else {
            self.dense.revise(hash, field, loc, &Revision { expire_at: wanted, value: Some(value) });
        }
        false
    }

    /// Adds to a field's value, or makes the field with this value. Its expiry stays.
    pub fn add(&mut self, field: &[u8], by: i64, now: u64) -> Result<i64, NotAdded> {
        let old = match self.get(field, now) {
            None => 0,
            Some(Item::Int(value)) => value,
            Some(Item::Bytes(_)) => return Err(NotAdded::NotInteger),
        };
        let sum = old.checked_add(by).ok_or(NotAdded::Overflow)?;
        self.write(field, Expiry::Keep, now, |_| Part::Int(sum));
        Ok(sum)
    }

    /// Gives a field another expiry, or none; false if there is no such field.
    pub fn set_expire(&mut self, field: &[u8], expire_at: Option<u64>, now: u64) -> bool {
        self.dense.set_expire(field, expire_at, now)
    }

    /// Removes a field; false if there is no such field.
    #[inline]
    pub fn remove(&mut self, field: &[u8], now: u64) -> bool {
        self.dense.remove(field, now)
    }

    /// All fields, in no order that means anything.
    pub fn iter(&self, now: u64) -> Fields<'_> {
        Fields { walk: self.dense.walk(now) }
    }

    /// Visits some fields and returns where to go on; zero is both the start and the end. Fields that are there
    /// during the whole walk are visited at least once.
    pub fn scan(&self, cursor: Cursor, now: u64, mut visit: impl FnMut(Field<'_>)) -> Cursor {
        self.dense.scan(cursor, now, |entry| visit(field_of(entry)))
    }

    /// A random field, all being equally likely. `random` gives fresh numbers. If nearly all fields have expired and
    /// were not freed, it may take a walk over them to find one that has not.
    pub fn random(&self, now: u64, random: impl FnMut() -> u64) -> Option<Field<'_>> {
        self.dense.random(now, random).map(field_of)
    }

    /// A time before which nothing expires; None if no field has an expiry.
    pub fn next_expiry(&self) -> Option<u64> {
        self.dense.next_expiry()
    }

    /// Frees fields that have expired by `now`, showing the name of each. A step: it looks into at most `limit`
    /// segments, frees at most `limit` fields, and the next call goes on there. Returns how many it freed; there is
    /// more to do while [`DenseHash::next_expiry`] is not later than `now`.
    pub fn expire(&mut self, now: u64, limit: usize, mut visit: impl FnMut(Item<'_>)) -> usize {
        self.dense.expire(now, limit, |entry| visit(Span::key(entry).read(entry)))
    }

    /// Frees up to `segments` segments, some hundred fields each, of a hash that nobody will use again; true when
    /// nothing is left.
    pub fn free_some(&mut self, segments: usize) -> bool {
        self.dense.free_some(segments)
    }

    /// Panics unless every invariant holds. O(n).
    pub fn check(&self) {
        self.dense.check();
    }
}

/// See [`DenseHash::iter`].
pub struct Fields<'a> {
    walk: Walk<'a, true>,
}

impl<'a> Iterator for Fields<'a> {
    type Item = Field<'a>;

    #[inline]
    fn next(&mut self) -> Option<Field<'a>> {
        self.walk.next().map(field_of)
    }
}
