//! One database of one shard: the key table plus what depends on the meaning of values.
//!
//! The table answers `Full` when a segment must split; this is the layer that splits and tries again, so nobody
//! above knows about segments. A running cut hooks in here too ([`cut`](crate::cut)): before a bucket changes it must
//! have been saved, so every method that changes the table says first what it is about to change.

use std::borrow::Cow;

use damselfly_structures::keytable::{Edited, Expiry, Freed, KeyTable, NewValue, Removed, TableView, Value};
use damselfly_structures::table::{Cursor, Loc, SegmentId};

use crate::Collection;
use crate::ahead::Big;
use crate::cut::DbCut;
use crate::eviction::Warmth;
use crate::past::Pasts;
use crate::value::{Object, Type};

/// See the module's head.
pub struct Db {
    pub(crate) table: KeyTable<Object>,
    /// Bytes of collections, by type; strings are counted by the table.
    object_bytes: [usize; Type::ALL.len()],
    /// Collections some of whose elements have an expiry of their own.
    timed: usize,
    /// Scratch for strings that are edited; kept so that APPEND does not allocate each time.
    scratch: Vec<u8>,
    /// The cut that is being saved, while there is something left to save.
    cut: Option<Box<DbCut>>,
    /// Those who look back to an instant, if there are any.
    pub(crate) pasts: Option<Box<Pasts>>,
    pub(crate) warmth: Warmth,
}

/// A key that must be seen to expire before something else takes its place.
pub(crate) struct Due(pub Loc);

/// Longest decimal form of an i64, sign included.
const INT_LEN_MAX: usize = 20;

/// The number whose canonical decimal form these bytes are.
#[inline]
pub fn canonical_int(bytes: &[u8]) -> Option<i64> {
    let (negative, digits) = match bytes {
        [] => return None,
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if bytes.len() > INT_LEN_MAX || digits.is_empty() {
        return None;
    }
    if digits[0] == b'0' {
        return (digits.len() == 1 && !negative).then_some(0);
    }
    let mut magnitude: u64 = 0;
    for &digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        magnitude = magnitude.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    if negative {
        (magnitude <= i64::MIN.unsigned_abs()).then(|| (magnitude as i64).wrapping_neg())
    } else {
        i64::try_from(magnitude).ok()
    }
}

impl Db {
    pub(crate) fn new(seed: u64) -> Db {
        Db {
            table: KeyTable::new(seed),
            object_bytes: [0; Type::ALL.len()],
            timed: 0,
            scratch: Vec::new(),
            cut: None,
            pasts: None,
            warmth: Warmth::default(),
        }
    }

    /// Number of keys.
    #[inline]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Keys with an expiry.
    pub fn expires(&self) -> usize {
        self.table.expires()
    }

    /// Collections some of whose elements have an expiry of their own.
    #[inline]
    pub fn timed(&self) -> usize {
        self.timed
    }

    /// Whether the value at a location is a collection that may have elements whose time has come.
    pub(crate) fn has_due_elements(&self, loc: Loc, now: u64) -> bool {
        match self.table.value(loc) {
            Value::Object(object) => object.next_expiry().is_some_and(|at| at <= now),
            Value::Int(_) | Value::Str(_) => false,
        }
    }

    /// Bytes held: table, long strings, collections, what eviction remembers.
    pub fn heap_bytes(&self) -> usize {
        self.table.heap_bytes() + self.object_bytes.iter().sum::<usize>() + self.warmth.heap_bytes()
    }

    /// Of these, what is remembered for eviction.
    pub fn eviction_bytes(&self) -> usize {
        self.warmth.heap_bytes()
    }

    /// Of these, what removed entries left behind in the table, to be won back by tidying.
    pub fn dead_bytes(&self) -> usize {
        self.table.dead_bytes()
    }

    /// Bytes of the values of one type. Short strings lie in the table's entries and count there as here.
    pub fn type_bytes(&self, of: Type) -> usize {
        match of {
            Type::String => self.table.string_bytes(),
            _ => self.object_bytes[of as usize],
        }
    }

    /// Bytes of the table's own structure, entries included.
    pub fn table_bytes(&self) -> usize {
        self.table.table_bytes()
    }

    /// Bytes of keys.
    pub fn key_bytes(&self) -> usize {
        self.table.key_bytes()
    }

    /// Keys that fit before the next splits.
    pub fn capacity(&self) -> usize {
        self.table.raw().capacity()
    }

    #[inline]
    pub(crate) fn find(&self, hash: u64, key: &[u8]) -> Option<Loc> {
        self.table.find(hash, key)
    }

    /// Asks the processor to load the bucket of a hash.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        self.table.prefetch(hash);
    }

    /// Asks the processor to load the entry that a hash probably leads to.
    #[inline]
    pub fn prefetch_entry(&self, hash: u64) {
        self.table.prefetch_entry(hash);
    }

    /// Asks the processor to load what storing a new key with this hash looks at first.
    #[inline]
    pub fn prefetch_insert(&self, hash: u64) {
        self.table.prefetch_insert(hash);
    }

    /// As [`Db::prefetch_insert`], the place where the key will be. Cheap only behind that.
    #[inline]
    pub fn prefetch_tail(&self, hash: u64) {
        self.table.prefetch_tail(hash);
    }

    /// Asks the processor for what is remembered of a key, if it went for want of room and may come back.
    #[inline]
    pub fn prefetch_past(&self, hash: u64) {
        self.warmth.ghosts.prefetch(hash);
    }

    /// The big collection at a key, to look into ahead of the commands that will.
    #[inline]
    pub(crate) fn big(&self, hash: u64, key: &[u8]) -> Option<Big<'_>> {
        match self.table.value(self.table.find(hash, key)?) {
            Value::Object(object) => Big::of(object),
            _ => None,
        }
    }

    /// The key at a location.
    pub fn key(&self, loc: Loc) -> &[u8] {
        self.table.key(loc)
    }

    /// The value at a location.
    #[inline]
    pub fn value(&self, loc: Loc) -> Value<'_, Object> {
        self.table.value(loc)
    }

    /// The type of the value at a location.
    #[inline]
    pub fn type_at(&self, loc: Loc) -> Type {
        match self.table.value(loc) {
            Value::Int(_) | Value::Str(_) => Type::String,
            Value::Object(object) => object.kind(),
        }
    }

    /// When the key at a location expires.
    #[inline]
    pub fn expire_at(&self, loc: Loc) -> Option<u64> {
        self.table.expire_at(loc)
    }

    /// Bytes that one key takes with all it holds, the table's empty room left aside.
    pub fn entry_bytes(&self, loc: Loc) -> usize {
        self.table.entry_bytes(loc) + self.collection_bytes(loc)
    }

    /// Bytes that a collection owns itself; 0 for strings.
    #[inline]
    pub(crate) fn collection_bytes(&self, loc: Loc) -> usize {
        if !self.table.is_object(loc) {
            return 0;
        }
        match self.table.value(loc) {
            Value::Int(_) | Value::Str(_) => 0,
            Value::Object(object) => object.heap_bytes(),
        }
    }

    /// Whether the key is exempt from eviction.
    pub fn is_sticky(&self, loc: Loc) -> bool {
        self.table.is_sticky(loc)
    }

    /// Exempts the key from eviction, or not.
    pub fn set_sticky(&mut self, loc: Loc, sticky: bool) {
        self.before_change(loc);
        self.table.set_sticky(loc, sticky);
        self.warmth.has_released |= !sticky;
    }

    /// The memcache flags of a key.
    pub fn mc_flags(&self, loc: Loc) -> u32 {
        self.table.mc_flags(loc)
    }

    /// Sets the memcache flags of a key.
    pub fn set_mc_flags(&mut self, loc: Loc, flags: u32) {
        self.before_change(loc);
        let mut loc = loc;
        while self.table.set_mc_flags(loc, flags).is_err() {
            loc = self.split_at(loc);
        }
    }

    /// Splits the segment of a location and finds its key again.
    #[cold]
    fn split_at(&mut self, loc: Loc) -> Loc {
        let key = self.table.key(loc).to_vec();
        let hash = self.table.hash(&key);
        self.split(hash);
        self.table.find(hash, &key).expect("a split loses no key")
    }

    /// Splits the segment of a hash.
    #[cold]
    fn split(&mut self, hash: u64) {
        self.before_split(hash);
        self.table.split(hash);
    }

    /// Lets a running cut save the bucket of an entry that is about to change, and those who look back keep what the
    /// entry holds. The location stays valid.
    #[inline]
    fn before_change(&mut self, loc: Loc) {
        if self.cut.is_some() || self.pasts.is_some() {
            self.save_first(loc);
        }
    }

    #[cold]
    fn save_first(&mut self, loc: Loc) {
        let (segment, bucket) = self.table.raw().bucket_of(loc);
        if let Some(cut) = &mut self.cut {
            cut.save_bucket(&mut self.table, segment, bucket);
        }
        if let Some(pasts) = &mut self.pasts {
            pasts.keep(&self.table, loc);
        }
    }

    /// As [`Db::before_change`], of the bucket that a new entry goes to: what a walk finds there later is not of the
    /// cut.
    #[inline]
    fn before_insert(&mut self, hash: u64) {
        if let Some(cut) = &mut self.cut {
            let view = self.table.raw();
            let (segment, bucket) = (view.segment_of(hash), view.bucket_for_insert(hash));
            cut.save_bucket(&mut self.table, segment, bucket);
        }
    }

    /// As [`Db::before_change`], of a whole segment: its entries are about to get other buckets.
    fn before_split(&mut self, hash: u64) {
        if let Some(cut) = &mut self.cut {
            let segment = self.table.raw().segment_of(hash);
            cut.save_segment(&mut self.table, segment);
        }
    }

    /// Begins to save all there is now, under the number that the database has now.
    pub(crate) fn begin_cut(&mut self, number: usize, version: u32) {
        if !self.is_empty() {
            self.cut = Some(Box::new(DbCut::new(number, version)));
        }
    }

    /// The cut that is being saved here, with the table.
    pub(crate) fn cut(&mut self) -> Option<(&mut DbCut, &mut KeyTable<Object>)> {
        Some((self.cut.as_deref_mut()?, &mut self.table))
    }

    /// Ends the cut; what was saved and not taken yet comes back.
    pub(crate) fn end_cut(&mut self) -> Option<Box<DbCut>> {
        self.cut.take()
    }

    /// Stores a string, as a number if its bytes are the canonical form of one; `hash` is that of `key`. What is due
    /// at `now` is not overwritten: it must be seen to expire first.
    #[inline]
    pub(crate) fn set_string(
        &mut self,
        hash: u64,
        key: &[u8],
        value: &[u8],
        expiry: Expiry,
        now: u64,
    ) -> Result<Removed<Object>, Due> {
        match canonical_int(value) {
            Some(number) => self.set_int(hash, key, number, expiry, now),
            None => self.set_text(hash, key, value, expiry, now),
        }
    }

    /// As [`Db::set_string`], with the bytes stored as they are.
    #[inline]
    pub(crate) fn set_text(
        &mut self,
        hash: u64,
        key: &[u8],
        value: &[u8],
        expiry: Expiry,
        now: u64,
    ) -> Result<Removed<Object>, Due> {
        loop {
            let Some(loc) = self.find_not_due(hash, key, now)? else {
                self.insert(hash, key, NewValue::Str(value), expiry);
                return Ok(Removed::String);
            };
            self.before_change(loc);
            match self.table.set_string(loc, value, expiry) {
                Ok((loc, removed)) => {
                    self.touch(loc);
                    return Ok(self.count_out(removed));
                }
                Err(_) => self.split(hash),
            }
        }
    }

    /// Stores a string that came about by an edit. Who edits has looked whether the key is due.
    pub(crate) fn set_edited(
        &mut self,
        hash: u64,
        key: &[u8],
        value: Cow<'_, [u8]>,
        expiry: Expiry,
    ) -> Removed<Object> {
        let mut value = value;
        loop {
            let Some(loc) = self.table.find(hash, key) else {
                self.insert(hash, key, NewValue::Edited(value), expiry);
                return Removed::String;
            };
            self.before_change(loc);
            match self.table.set_edited(loc, value, expiry) {
                Ok((loc, removed)) => {
                    self.touch(loc);
                    return self.count_out(removed);
                }
                Err((_, back)) => {
                    value = back;
                    self.split(hash);
                }
            }
        }
    }

    #[inline]
    fn find_not_due(&self, hash: u64, key: &[u8], now: u64) -> Result<Option<Loc>, Due> {
        match self.table.find(hash, key) {
            Some(loc) if self.table.expire_at(loc).is_some_and(|at| at <= now) => Err(Due(loc)),
            found => Ok(found),
        }
    }

    /// Whether a string was edited since it was set, or is so long that it makes no difference.
    pub fn is_edited(&self, loc: Loc) -> bool {
        self.table.is_edited(loc)
    }

    #[inline]
    fn set_int(
        &mut self,
        hash: u64,
        key: &[u8],
        value: i64,
        expiry: Expiry,
        now: u64,
    ) -> Result<Removed<Object>, Due> {
        loop {
            let Some(loc) = self.find_not_due(hash, key, now)? else {
                self.insert(hash, key, NewValue::Int(value), expiry);
                return Ok(Removed::String);
            };
            self.before_change(loc);
            match self.table.set_int(loc, value, expiry) {
                Ok((loc, removed)) => {
                    self.touch(loc);
                    return Ok(self.count_out(removed));
                }
                Err(_) => self.split(hash),
            }
        }
    }

    /// Replaces the number at a location, keeping its expiry.
    #[inline]
    pub fn set_int_at(&mut self, loc: Loc, value: i64) {
        self.before_change(loc);
        let mut loc = loc;
        loop {
            match self.table.set_int(loc, value, Expiry::Keep) {
                Ok((loc, _)) => return self.touch(loc),
                Err(_) => loc = self.split_at(loc),
            }
        }
    }

    pub(crate) fn set_object(
        &mut self,
        hash: u64,
        key: &[u8],
        object: Object,
        expiry: Expiry,
    ) -> Removed<Object> {
        self.object_bytes[object.kind() as usize] += object.heap_bytes();
        let next_expiry = object.next_expiry();
        self.timed += usize::from(next_expiry.is_some());
        let mut object = object;
        let (loc, removed) = loop {
            let Some(loc) = self.table.find(hash, key) else {
                self.insert(hash, key, NewValue::Object(object), expiry);
                break (None, Removed::String);
            };
            self.before_change(loc);
            match self.table.set_object(loc, object, expiry) {
                Ok((loc, removed)) => {
                    self.touch(loc);
                    break (Some(loc), removed);
                }
                Err((_, back)) => {
                    object = back;
                    self.split(hash);
                }
            }
        };
        if let Some(at) = next_expiry {
            let loc = loc.or_else(|| self.table.find(hash, key)).expect("just stored");
            self.table.lower_note(loc, at);
        }
        self.count_out(removed)
    }

    /// Changes the collection at a location and books what it takes more or less; None if it holds a string.
    pub(crate) fn edit_object<R>(&mut self, loc: Loc, change: impl FnOnce(&mut Object) -> R) -> Option<R> {
        self.before_change(loc);
        let object = self.table.object_mut(loc)?;
        let (before, was_timed) = (object.heap_bytes(), object.next_expiry().is_some());
        let result = change(object);
        let (after, next_expiry) = (object.heap_bytes(), object.next_expiry());
        let bytes = &mut self.object_bytes[object.kind() as usize];
        *bytes = *bytes + after - before;
        self.timed = self.timed + usize::from(next_expiry.is_some()) - usize::from(was_timed);
        if let Some(at) = next_expiry {
            self.table.lower_note(loc, at);
        }
        Some(result)
    }

    /// As [`Db::edit_object`], for a collection whose type is known: its bytes are asked for without a look at what it is,
    /// and where no member expires, nor is that asked. None if it is of another type.
    #[inline]
    pub(crate) fn edit_collection<C: Collection, R>(
        &mut self,
        loc: Loc,
        change: impl FnOnce(&mut C) -> R,
    ) -> Option<R> {
        if matches!(C::TYPE, Type::Hash | Type::Set) {
            // Their members may expire, which is booked, too.
            return self.edit_object(loc, |object| C::of_mut(object).map(change)).flatten();
        }
        self.before_change(loc);
        let collection = C::of_mut(self.table.object_mut(loc)?)?;
        let before = collection.heap_bytes();
        let result = change(collection);
        let after = collection.heap_bytes();
        let bytes = &mut self.object_bytes[C::TYPE as usize];
        *bytes = *bytes + after - before;
        Some(result)
    }

    fn insert(&mut self, hash: u64, key: &[u8], value: NewValue<'_, Object>, expiry: Expiry) {
        let expire_at = match expiry {
            Expiry::At(at) => Some(at),
            Expiry::Keep | Expiry::Never => None,
        };
        self.before_insert(hash);
        if let Some(pasts) = &mut self.pasts {
            pasts.keep_missing(&self.table, key);
        }
        let mut value = value;
        let loc = loop {
            match self.table.insert(hash, key, value, expire_at) {
                Ok(loc) => break loc,
                Err((_, back)) => value = back,
            }
            self.split(hash);
            self.before_insert(hash);
        };
        self.born(hash, loc);
    }

    fn count_out(&mut self, removed: Removed<Object>) -> Removed<Object> {
        if let Removed::Object(object) = &removed {
            self.object_bytes[object.kind() as usize] -= object.heap_bytes();
            self.timed -= usize::from(object.next_expiry().is_some());
        }
        removed
    }

    /// Changes a string's bytes through a vector, keeping the expiry. The location must hold a string.
    pub fn edit_string<R>(&mut self, loc: Loc, change: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        self.before_change(loc);
        let mut scratch = std::mem::take(&mut self.scratch);
        let result = match self.table.edit_string(loc, &mut scratch, change) {
            Edited::InPlace(result) => {
                self.touch(loc);
                result
            }
            Edited::Store(result) => {
                let key = self.table.key(loc).to_vec();
                let hash = self.table.hash(&key);
                self.set_edited(hash, &key, Cow::Borrowed(&scratch), Expiry::Keep);
                result
            }
        };
        // A scratch that once held a long string would keep its memory for ever.
        if scratch.capacity() <= 4096 {
            self.scratch = scratch;
        }
        result
    }

    /// Sets or removes the expiry of a key.
    #[inline]
    pub fn set_expire(&mut self, loc: Loc, expire_at: Option<u64>) {
        self.before_change(loc);
        let mut loc = loc;
        while self.table.set_expire(loc, expire_at).is_err() {
            loc = self.split_at(loc);
        }
    }

    pub(crate) fn remove(&mut self, loc: Loc) -> Removed<Object> {
        self.before_change(loc);
        let removed = self.table.remove(loc);
        self.count_out(removed)
    }

    /// Walks the keys; see [`Cursor`] for the guarantee. Expired keys are visited too.
    pub fn scan(&self, cursor: Cursor, visit: impl FnMut(Loc)) -> Cursor {
        self.table.raw().scan(cursor, visit)
    }

    pub(crate) fn random(&self, random: impl FnMut() -> u64) -> Option<Loc> {
        self.table.raw().random(random)
    }

    /// Visits all keys in table order.
    pub fn for_each(&self, mut visit: impl FnMut(Loc)) {
        let view = self.table.raw();
        let mut id = Some(view.first_segment());
        while let Some(segment) = id {
            view.visit_segment(segment, &mut visit);
            id = view.next_segment(segment);
        }
    }

    /// The segment behind `after` in table order (the first for None), with the earliest expiry it may hold.
    pub(crate) fn segment_after(&self, after: Option<SegmentId>) -> Option<(SegmentId, u64)> {
        let view = self.table.raw();
        let id = match after {
            None => view.first_segment(),
            Some(id) => view.next_segment(id)?,
        };
        Some((id, view.note(id)))
    }

    /// Has the segment of a location looked at again.
    pub(crate) fn look_again(&mut self, loc: Loc) {
        self.table.lower_note(loc, 0);
    }

    /// Collects the keys of a segment that have expired at `now`, and the collections with elements that have, at
    /// most `limit` of each, and corrects the segment's earliest expiry if all were found. The caller sees to all
    /// that is found.
    pub(crate) fn expired_in(
        &mut self,
        id: SegmentId,
        now: u64,
        limit: usize,
        found: &mut Vec<Loc>,
        due: &mut Vec<Loc>,
    ) {
        let mut earliest = u64::MAX;
        let mut complete = true;
        self.table.raw().visit_segment(id, |loc| {
            if let Some(at) = self.table.expire_at(loc) {
                if at > now {
                    earliest = earliest.min(at);
                } else {
                    if found.len() < limit {
                        found.push(loc);
                    } else {
                        complete = false;
                    }
                    return;
                }
            }
            if self.timed > 0
                && let Value::Object(object) = self.table.value(loc)
                && let Some(at) = object.next_expiry()
            {
                if at > now {
                    earliest = earliest.min(at);
                } else if due.len() < limit {
                    due.push(loc);
                } else {
                    complete = false;
                }
            }
        });
        if complete {
            self.table.raise_note(id, earliest);
        }
    }

    pub(crate) fn free_some(&mut self, segments: usize) -> Freed<Object> {
        self.table.free_some(segments)
    }

    pub(crate) fn check(&self) {
        self.table.check();
        let (view, mut timed, mut bytes) = (self.table.raw(), 0, [0; Type::ALL.len()]);
        let mut id = Some(view.first_segment());
        while let Some(segment) = id {
            view.visit_segment(segment, |loc| {
                if let Value::Object(object) = self.table.value(loc) {
                    object.check();
                    bytes[object.kind() as usize] += object.heap_bytes();
                    if let Some(at) = object.next_expiry() {
                        timed += 1;
                        assert!(view.note(segment) <= at, "no element expires before the segment's note");
                    }
                }
            });
            id = view.next_segment(segment);
        }
        assert_eq!(timed, self.timed);
        assert_eq!(bytes, self.object_bytes, "bytes of collections are booked as they change");
    }
}

#[cfg(test)]
mod tests {
    use super::{Db, canonical_int};
    use damselfly_structures::keytable::{Expiry, Value};

    /// A segment that must split takes the new key afterwards with its value. It once forgot the value on the way, and
    /// two keys in a thousand were the empty string.
    #[test]
    fn values_survive_splits() {
        let mut db = Db::new(7);
        let value = |i: usize| format!("value {i} {}", "x".repeat(i % 300)).into_bytes();
        for i in 0..20_000 {
            let key = format!("key:{i}").into_bytes();
            assert!(db.set_string(db.table.hash(&key), &key, &value(i), Expiry::Never, 0).is_ok());
        }
        for i in 0..20_000 {
            let key = format!("key:{i}").into_bytes();
            let loc = db.find(db.table.hash(&key), &key).expect("stored");
            assert!(matches!(db.value(loc), Value::Str(found) if found == value(i)), "{i}");
        }
        db.check();
    }

    /// Only text that printing the number would give back is taken for a number.
    #[test]
    fn canonical_forms() {
        for n in [0, 1, -1, 9, 10, -10, 127, 128, 65535, i64::MAX, i64::MIN, i64::MAX - 1] {
            assert_eq!(canonical_int(n.to_string().as_bytes()), Some(n));
        }
        for text in ["", "-", "+1", "00", "01", "-0", "-01", " 1", "1 ", "1.0", "9223372036854775808", "a"] {
            assert_eq!(canonical_int(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(canonical_int(b"-9223372036854775809"), None);
        assert_eq!(canonical_int(b"99999999999999999999"), None);
    }
}
