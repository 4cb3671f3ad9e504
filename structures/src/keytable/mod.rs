//! The table of a database: keys with expiry and flags, and values that are integers, strings or collections.
//!
//! ```text
//! [tag 1][key length 1][expiry 6 or 8]?[memcache flags 4]?[value length 1 or 2]?[key][value]
//!
//! tag:   bits 0-2 kind   bit 3 expiry has 8 bytes   bit 4 has expiry   bit 5 sticky
//!        bit 6 has memcache flags   bit 7 key is outside: [tag 1][pointer 8][length 4] and no key bytes
//! kinds: 0-3 integer of 1, 2, 4, 8 bytes   4, 5 string with 1 or 2 bytes of length; a short string of kind 5 is one
//!        that was edited, which Redis tells from one that was set
//!        6 string outside: [pointer 8][length 4][capacity 4]   7 collection: [number in the slab 4]
//! ```
//!
//! A 16-byte key with a 32-byte value is 51 bytes; nobody pays for an expiry but keys that have one. Expiries are
//! milliseconds since 1970; six bytes reach the year 10889, and the few beyond take eight.
//!
//! Entries up to [`ENTRY_LEN_MAX`] are wholly inside the table. Longer strings and keys get an allocation of their
//! own; collections live in a slab.

#![expect(unsafe_code, reason = "long strings are owned through pointers stored in packed entries")]

use std::borrow::Cow;
use std::sync::Arc;

use crate::alloc::good_size;
use crate::hash::{hash, same};
use crate::moves::Mover;
use crate::outside;
use crate::slab::Slab;
use crate::table::{Cursor, ENTRY_LEN_MAX, Full, Layout, Loc, SegmentId, Table, Watched};

const KIND: u8 = 0b0000_0111;
const FAR: u8 = 0b0000_1000;
const EXPIRES: u8 = 0b0001_0000;
const STICKY: u8 = 0b0010_0000;
const MC_FLAGS: u8 = 0b0100_0000;
const KEY_OUT: u8 = 0b1000_0000;

const INT8: u8 = 0;
const INT16: u8 = 1;
const INT32: u8 = 2;
const INT64: u8 = 3;
const STR8: u8 = 4;
const STR16: u8 = 5;
const STR_OUT: u8 = 6;
const OBJECT: u8 = 7;

/// Longest string whose length is one byte.
const STR8_LEN_MAX: usize = 255;
/// Longest key kept inside an entry.
const KEY_IN_MAX: usize = 255;
/// Where the description of a key outside is in its entry.
const KEY_OUT_AT: std::ops::Range<usize> = 1..1 + outside::EXACT_LEN;
/// First expiry that does not fit six bytes.
const FAR_FROM: u64 = 1 << 48;

/// A value to read.
#[derive(Debug, PartialEq, Eq)]
pub enum Value<'a, O> {
    /// A string that is the canonical decimal form of this number.
    Int(i64),
    /// Any other string.
    Str(&'a [u8]),
    /// A collection.
    Object(&'a O),
}

impl<O> Clone for Value<'_, O> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<O> Copy for Value<'_, O> {}

/// A value to store.
pub enum NewValue<'a, O> {
    /// A number, for strings in canonical decimal form.
    Int(i64),
    /// Bytes, copied.
    Str(&'a [u8]),
    /// Bytes that came about by an edit: [`KeyTable::is_edited`]. Long ones that are owned are not copied.
    Edited(Cow<'a, [u8]>),
    /// A collection, moved in.
    Object(O),
}

/// What happens to the expiry when a value is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// Stays as it is.
    Keep,
    /// Goes.
    Never,
    /// Becomes this, in milliseconds since 1970.
    At(u64),
}

/// Where the parts of an entry are. Computed from its header, never stored.
#[derive(Clone, Copy)]
struct Parts {
    tag: u8,
    /// Start of expiry, memcache flags, value length.
    fields: usize,
    key: usize,
    key_len: usize,
    value: usize,
    value_len: usize,
}

impl Parts {
    #[inline]
    fn of(entry: &[u8]) -> Parts {
        let tag = entry[0];
        let (fields, key_len) = if tag & KEY_OUT == 0 { (2, usize::from(entry[1])) } else { (13, 0) };
        let mut at = fields + Self::expiry_len(tag);
        if tag & MC_FLAGS != 0 {
            at += 4;
        }
        let value_len = match tag & KIND {
            STR8 => {
                at += 1;
                usize::from(entry[at - 1])
            }
            STR16 => {
                at += 2;
                usize::from(u16::from_le_bytes([entry[at - 2], entry[at - 1]]))
            }
            STR_OUT => 16,
            OBJECT => 4,
            int => 1 << int,
        };
        Parts { tag, fields, key: at, key_len, value: at + key_len, value_len }
    }

    #[inline]
    fn expiry_len(tag: u8) -> usize {
        match tag & (EXPIRES | FAR) {
            EXPIRES => 6,
            0 => 0,
            _ => 8,
        }
    }

    #[inline]
    fn len(&self) -> usize {
        self.value + self.value_len
    }
}

fn read_u64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn read_u32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// The table's view of an entry.
struct KeyLayout;

impl KeyLayout {
    #[inline]
    fn key<'a>(entry: &'a [u8], parts: &Parts) -> &'a [u8] {
        if parts.tag & KEY_OUT == 0 {
            &entry[parts.key..parts.key + parts.key_len]
        } else {
            // SAFETY: an entry with this tag bit was written by `write_head`.
            unsafe { outside::view(&entry[1..13]) }
        }
    }

    #[inline]
    fn expire_at(entry: &[u8]) -> Option<u64> {
        if entry[0] & EXPIRES == 0 {
            return None;
        }
        let at = if entry[0] & KEY_OUT == 0 { 2 } else { 13 };
        let wide = read_u64(entry, at);
        Some(if entry[0] & FAR == 0 { wide & (FAR_FROM - 1) } else { wide })
    }
}

impl Layout for KeyLayout {
    type Bucket = Watched;

    #[inline]
    fn entry_len(entry: &[u8]) -> usize {
        Parts::of(entry).len()
    }

    #[inline]
    fn matches(entry: &[u8], key: &[u8]) -> bool {
        let tag = entry[0];
        if tag & KEY_OUT == 0 {
            if usize::from(entry[1]) != key.len() {
                return false;
            }
            let length_len = match tag & KIND {
                STR8 => 1,
                STR16 => 2,
                _ => 0,
            };
            let flags_len = if tag & MC_FLAGS == 0 { 0 } else { 4 };
            let at = 2 + Parts::expiry_len(tag) + flags_len + length_len;
            same(&entry[at..at + key.len()], key)
        } else {
            Self::key(entry, &Parts::of(entry)) == key
        }
    }

    fn hash(entry: &[u8], seed: u64) -> u64 {
        hash(Self::key(entry, &Parts::of(entry)), seed)
    }

    fn drop_owned(entry: &mut [u8]) {
        let parts = Parts::of(entry);
        if parts.tag & KIND == STR_OUT {
            // SAFETY: the kind says that `store` wrote these bytes; the table forgets the entry after this call.
            unsafe { outside::drop_grown(&entry[parts.value..]) };
        }
        if parts.tag & KEY_OUT != 0 {
            // SAFETY: the tag says that `write_head` stored a key here; the table forgets the entry after this call.
            unsafe { outside::drop_exact(&entry[1..13]) };
        }
    }

    const OWNS: bool = true;
}

/// See the module's head. `O` is the type of collections.
pub struct KeyTable<O> {
    table: Table<KeyLayout>,
    objects: Slab<O>,
    expires: usize,
    /// Allocations of long strings and long keys, with rounding.
    outside_bytes: usize,
    /// Key bytes in entries and outside.
    key_bytes: usize,
    /// Value bytes of strings, in entries and outside.
    string_bytes: usize,
}

/// See [`KeyTable::glance`].
#[derive(Clone, Copy, Debug)]
pub struct Glance {
    /// As [`KeyTable::entry_bytes`].
    pub bytes: usize,
    /// When the key expires.
    pub expire_at: Option<u64>,
    /// The key is exempt from eviction.
    pub is_sticky: bool,
    /// The value is a collection, whose own bytes are not in `bytes`.
    pub is_object: bool,
}

/// Where a replaced value is now and what was there before; or, when the segment is full, the new value back.
pub type Replaced<O, V> = Result<(Loc, Removed<O>), (Full, V)>;

/// What a removed entry held that the caller may have to free in steps.
pub enum Removed<O> {
    /// A string or number; already freed.
    String,
    /// A collection.
    Object(O),
}

impl<O> KeyTable<O> {
    /// An empty table; see [`Table::new`].
    pub fn new(seed: u64) -> KeyTable<O> {
        KeyTable {
            table: Table::new(seed),
            objects: Slab::default(),
            expires: 0,
            outside_bytes: 0,
            key_bytes: 0,
            string_bytes: 0,
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

    /// Keys that have an expiry.
    pub fn expires(&self) -> usize {
        self.expires
    }

    /// Bytes from the allocator, without what collections hold.
    pub fn heap_bytes(&self) -> usize {
        self.table.heap_bytes() + self.outside_bytes + self.objects.heap_bytes()
    }

    /// Bytes of directory, segments and blocks alone.
    pub fn table_bytes(&self) -> usize {
        self.table.heap_bytes()
    }

    /// Of these, what entries and collections left behind: see [`Table::dead_bytes`] and [`Slab::dead_bytes`].
    #[inline]
    pub fn dead_bytes(&self) -> usize {
        self.table.dead_bytes() + self.objects.dead_bytes()
    }

    /// Sum of key lengths.
    pub fn key_bytes(&self) -> usize {
        self.key_bytes
    }

    /// Sum of what string values take inside entries and outside.
    pub fn string_bytes(&self) -> usize {
        self.string_bytes
    }

    /// Bytes of one key: its entry, and what the entry owns outside the table. What a collection owns itself is not in
    /// it, nor the table's empty room.
    pub fn entry_bytes(&self, loc: Loc) -> usize {
        self.glance(loc).bytes
    }

    /// What eviction wants to know of a key, read in one go.
    #[inline]
    pub fn glance(&self, loc: Loc) -> Glance {
        let entry = self.table.entry(loc);
        let parts = Parts::of(entry);
        let mut bytes = parts.len();
        if parts.tag & KEY_OUT != 0 {
            bytes += good_size(KeyLayout::key(entry, &parts).len());
        }
        match parts.tag & KIND {
            STR_OUT => bytes += outside::grown_bytes(&entry[parts.value..]),
            OBJECT => bytes += size_of::<O>(),
            _ => {}
        }
        let expire_at = KeyLayout::expire_at(entry);
        let (is_sticky, is_object) = (parts.tag & STICKY != 0, parts.tag & KIND == OBJECT);
        Glance { bytes, expire_at, is_sticky, is_object }
    }

    /// Number of collections.
    pub fn objects(&self) -> usize {
        self.objects.len()
    }

    /// The raw table: walking, versions, heat, notes, splitting and tidying do not depend on what entries mean.
    #[inline]
    pub fn raw(&self) -> &impl TableView {
        &self.table
    }

    /// Hash of a key for this table.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        hash(key, self.table.seed())
    }

    /// Finds a key.
    #[inline]
    pub fn find(&self, hash: u64, key: &[u8]) -> Option<Loc> {
        self.table.find(hash, key)
    }

    /// See [`Table::find_hash`].
    pub fn find_hash(&self, hash: u64) -> Option<Loc> {
        self.table.find_hash(hash)
    }

    /// See [`Table::prefetch`].
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        self.table.prefetch(hash);
    }

    /// See [`Table::prefetch_entry`].
    #[inline]
    pub fn prefetch_entry(&self, hash: u64) {
        self.table.prefetch_entry(hash);
    }

    /// See [`Table::prefetch_insert`].
    #[inline]
    pub fn prefetch_insert(&self, hash: u64) {
        self.table.prefetch_insert(hash);
    }

    /// See [`Table::prefetch_tail`].
    #[inline]
    pub fn prefetch_tail(&self, hash: u64) {
        self.table.prefetch_tail(hash);
    }

    /// The key of an entry.
    #[inline]
    pub fn key(&self, loc: Loc) -> &[u8] {
        let entry = self.table.entry(loc);
        KeyLayout::key(entry, &Parts::of(entry))
    }

    /// The value of an entry.
    #[inline]
    pub fn value(&self, loc: Loc) -> Value<'_, O> {
        let entry = self.table.entry(loc);
        let parts = Parts::of(entry);
        let value = &entry[parts.value..parts.value + parts.value_len];
        match parts.tag & KIND {
            INT8 => Value::Int(i64::from(value[0] as i8)),
            INT16 => Value::Int(i64::from(i16::from_le_bytes([value[0], value[1]]))),
            INT32 => Value::Int(i64::from(read_u32(value, 0) as i32)),
            INT64 => Value::Int(read_u64(value, 0) as i64),
            STR8 | STR16 => Value::Str(value),
            // SAFETY: the kind says that `store` wrote these bytes, and entries of this kind are live vectors.
            STR_OUT => Value::Str(unsafe { outside::view_grown(value) }),
            _ => Value::Object(self.objects.get(read_u32(value, 0))),
        }
    }

    /// The collection of an entry, to be changed; None if it holds a string.
    pub fn object_mut(&mut self, loc: Loc) -> Option<&mut O> {
        let entry = self.table.entry(loc);
        let parts = Parts::of(entry);
        if parts.tag & KIND != OBJECT {
            return None;
        }
        let number = read_u32(entry, parts.value);
        Some(self.objects.get_mut(number))
    }

    /// Whether the value is a collection.
    #[inline]
    pub fn is_object(&self, loc: Loc) -> bool {
        self.table.entry(loc)[0] & KIND == OBJECT
    }

    /// When the key expires.
    #[inline]
    pub fn expire_at(&self, loc: Loc) -> Option<u64> {
        KeyLayout::expire_at(self.table.entry(loc))
    }

    /// Whether the key is exempt from eviction.
    pub fn is_sticky(&self, loc: Loc) -> bool {
        self.table.entry(loc)[0] & STICKY != 0
    }

    /// Makes the key exempt from eviction, or not.
    pub fn set_sticky(&mut self, loc: Loc, sticky: bool) {
        let entry = self.table.entry_mut(loc);
        entry[0] = entry[0] & !STICKY | if sticky { STICKY } else { 0 };
    }

    /// The memcache flags, zero if none were set.
    pub fn mc_flags(&self, loc: Loc) -> u32 {
        let entry = self.table.entry(loc);
        if entry[0] & MC_FLAGS == 0 {
            return 0;
        }
        let parts = Parts::of(entry);
        read_u32(entry, parts.fields + Parts::expiry_len(parts.tag))
    }

    fn int_kind(value: i64) -> u8 {
        if i8::try_from(value).is_ok() {
            INT8
        } else if i16::try_from(value).is_ok() {
            INT16
        } else if i32::try_from(value).is_ok() {
            INT32
        } else {
            INT64
        }
    }

    /// Adds a key that is not in the table. `hash` is its hash.
    /// When the segment is full nothing has changed, and the value comes back for the next attempt.
    pub fn insert<'v>(
        &mut self,
        hash: u64,
        key: &[u8],
        value: NewValue<'v, O>,
        expire_at: Option<u64>,
    ) -> Result<Loc, (Full, NewValue<'v, O>)> {
        let draft = Draft::new(key, &value, expire_at, false, 0);
        let placed = self.table.insert(hash, draft.len, |entry| draft.write_head(entry, key));
        let loc = match placed {
            Ok(loc) => loc,
            Err(full) => return Err((full, value)),
        };
        if draft.tag & KEY_OUT != 0 {
            self.outside_bytes += good_size(key.len());
        }
        self.key_bytes += key.len();
        self.expires += usize::from(expire_at.is_some());
        self.write_value(loc, &draft, value);
        if let Some(at) = expire_at {
            self.table.lower_note(loc, at);
        }
        Ok(loc)
    }

    /// Writes the value part of a fresh entry and counts it.
    fn write_value(&mut self, loc: Loc, draft: &Draft, value: NewValue<'_, O>) {
        match value {
            NewValue::Int(n) => {
                let len = 1 << (draft.tag & KIND);
                self.table.entry_mut(loc)[draft.value..draft.value + len]
                    .copy_from_slice(&n.to_le_bytes()[..len]);
                self.string_bytes += len;
            }
            NewValue::Str(bytes) => self.write_string(loc, draft, Cow::Borrowed(bytes)),
            NewValue::Edited(bytes) => self.write_string(loc, draft, bytes),
            NewValue::Object(object) => {
                let number = self.objects.insert(object);
                self.table.entry_mut(loc)[draft.value..draft.value + 4]
                    .copy_from_slice(&number.to_le_bytes());
            }
        }
    }

    #[inline]
    fn write_string(&mut self, loc: Loc, draft: &Draft, bytes: Cow<'_, [u8]>) {
        let at = draft.value;
        if draft.tag & KIND == STR_OUT {
            let bytes = bytes.into_owned();
            self.outside_bytes += good_size(bytes.capacity());
            self.string_bytes += good_size(bytes.capacity());
            outside::store(bytes, &mut self.table.entry_mut(loc)[at..]);
        } else {
            self.table.entry_mut(loc)[at..at + bytes.len()].copy_from_slice(&bytes);
            self.string_bytes += bytes.len();
        }
    }

    /// Forgets the value part of an entry: frees long strings, returns a collection.
    fn take_value(&mut self, loc: Loc) -> Removed<O> {
        let entry = self.table.entry(loc);
        let parts = Parts::of(entry);
        match parts.tag & KIND {
            STR_OUT => {
                // SAFETY: the kind says that `store` wrote these bytes; every caller overwrites the entry at once.
                let held = unsafe { outside::drop_grown(&entry[parts.value..]) };
                self.outside_bytes -= held;
                self.string_bytes -= held;
                Removed::String
            }
            OBJECT => Removed::Object(self.objects.remove(read_u32(entry, parts.value))),
            _ => {
                self.string_bytes -= parts.value_len;
                Removed::String
            }
        }
    }

    /// Replaces a value in place where it fits. Flags other than the expiry stay.
    ///
    /// On `Full` nothing has changed; split the key's segment, find the key again and repeat.
    #[inline]
    pub fn set_string(&mut self, loc: Loc, value: &[u8], expiry: Expiry) -> Result<(Loc, Removed<O>), Full> {
        let entry = self.table.entry(loc);
        let parts = Parts::of(entry);
        let kind = parts.tag & KIND;
        let keeps = match expiry {
            Expiry::Keep => true,
            Expiry::Never => parts.tag & EXPIRES == 0,
            Expiry::At(_) => false,
        };
        // The commonest overwrite: same length, expiry unchanged. An edited string is so no longer.
        let fits = kind == STR8 || kind == STR16 && value.len() > STR8_LEN_MAX;
        if fits && parts.value_len == value.len() && keeps {
            self.table.entry_mut(loc)[parts.value..parts.value + value.len()].copy_from_slice(value);
            return Ok((loc, Removed::String));
        }
        // A long string over one of about the same length: the allocation stays, and with it its pages.
        if kind == STR_OUT && keeps && value.len() > ENTRY_LEN_MAX {
            // SAFETY: the kind says that `store` wrote these bytes.
            if unsafe { outside::overwrite(&mut self.table.entry_mut(loc)[parts.value..], value) } {
                return Ok((loc, Removed::String));
            }
        }
        self.replace(loc, NewValue::Str(value), expiry).map_err(|(full, _)| full)
    }

    /// As [`KeyTable::set_string`], for bytes that came about by an edit.
    ///
    /// On `Full` nothing has changed, and they come back.
    pub fn set_edited<'v>(
        &mut self,
        loc: Loc,
        value: Cow<'v, [u8]>,
        expiry: Expiry,
    ) -> Replaced<O, Cow<'v, [u8]>> {
        self.replace(loc, NewValue::Edited(value), expiry).map_err(|(full, value)| match value {
            NewValue::Edited(bytes) => (full, bytes),
            _ => unreachable!("what was handed in comes back"),
        })
    }

    /// Whether a string came about by an edit, or is so long that it makes no difference.
    pub fn is_edited(&self, loc: Loc) -> bool {
        matches!(self.table.entry(loc)[0] & KIND, STR16 | STR_OUT)
    }

    /// Replaces a value by a number.
    #[inline]
    pub fn set_int(&mut self, loc: Loc, value: i64, expiry: Expiry) -> Result<(Loc, Removed<O>), Full> {
        let entry = self.table.entry(loc);
        let parts = Parts::of(entry);
        if expiry == Expiry::Keep && parts.tag & KIND == Self::int_kind(value) {
            let len = parts.value_len;
            self.table.entry_mut(loc)[parts.value..parts.value + len]
                .copy_from_slice(&value.to_le_bytes()[..len]);
            return Ok((loc, Removed::String));
        }
        self.replace(loc, NewValue::Int(value), expiry).map_err(|(full, _)| full)
    }

    /// Replaces a value by a collection, which comes back when the segment is full.
    pub fn set_object(
        &mut self,
        loc: Loc,
        object: O,
        expiry: Expiry,
    ) -> Result<(Loc, Removed<O>), (Full, O)> {
        self.replace(loc, NewValue::Object(object), expiry).map_err(|(full, value)| match value {
            NewValue::Object(object) => (full, object),
            _ => unreachable!("what was handed in comes back"),
        })
    }

    fn replace<'v>(
        &mut self,
        loc: Loc,
        value: NewValue<'v, O>,
        expiry: Expiry,
    ) -> Result<(Loc, Removed<O>), (Full, NewValue<'v, O>)> {
        let expire_at = match expiry {
            Expiry::Keep => self.expire_at(loc),
            Expiry::Never => None,
            Expiry::At(at) => Some(at),
        };
        let (sticky, mc_flags, had_expiry) =
            (self.is_sticky(loc), self.mc_flags(loc), self.expire_at(loc).is_some());
        let draft = Draft::new(self.key(loc), &value, expire_at, sticky, mc_flags);
        let loc = match self.make_room(loc, draft.len) {
            Ok(loc) => loc,
            Err(full) => return Err((full, value)),
        };
        let removed = self.take_value(loc);
        self.rewrite_head(loc, &draft);
        self.write_value(loc, &draft, value);
        self.expires = self.expires + usize::from(expire_at.is_some()) - usize::from(had_expiry);
        if let Some(at) = expire_at {
            self.table.lower_note(loc, at);
        }
        Ok((loc, removed))
    }

    /// Makes the entry's place in the log at least `len` long, keeping its bytes.
    fn make_room(&mut self, loc: Loc, len: usize) -> Result<Loc, Full> {
        let old_len = KeyLayout::entry_len(self.table.entry(loc));
        if len <= old_len {
            return Ok(loc);
        }
        // The entry is copied as it is; the place behind it up to `len` is filled by `rewrite_head` and
        // `write_value`, which follow in every caller. Until then the table sees the old header.
        self.table.resize(loc, len, |old, new| new[..old.len()].copy_from_slice(old))
    }

    /// Turns the header of an entry into that of the draft, moving the key bytes. The value bytes are garbage
    /// afterwards. The place is long enough (see `make_room`); what is too long becomes dead.
    fn rewrite_head(&mut self, loc: Loc, draft: &Draft) {
        let entry = self.table.entry_mut(loc);
        let old = Parts::of(entry);
        let old_len = old.len();
        if draft.tag & KEY_OUT == 0 {
            entry.copy_within(old.key..old.key + old.key_len, draft.value - old.key_len);
            entry[1] = old.key_len as u8;
        }
        draft.write_fields(entry);
        if draft.len < old_len {
            self.table.shortened(loc, old_len, draft.len);
        }
    }

    /// Changes the expiry alone.
    pub fn set_expire(&mut self, loc: Loc, expire_at: Option<u64>) -> Result<Loc, Full> {
        let entry = self.table.entry(loc);
        let old = Parts::of(entry);
        self.change_fields(loc, old, expire_at, self.mc_flags(loc))
    }

    /// Changes the memcache flags alone.
    pub fn set_mc_flags(&mut self, loc: Loc, mc_flags: u32) -> Result<Loc, Full> {
        let entry = self.table.entry(loc);
        let old = Parts::of(entry);
        self.change_fields(loc, old, self.expire_at(loc), mc_flags)
    }

    fn change_fields(
        &mut self,
        loc: Loc,
        old: Parts,
        expire_at: Option<u64>,
        mc_flags: u32,
    ) -> Result<Loc, Full> {
        let had_expiry = old.tag & EXPIRES != 0;
        let mut draft = Draft {
            tag: old.tag & (KIND | KEY_OUT | STICKY),
            expire_at: expire_at.unwrap_or(0),
            mc_flags,
            value_len: old.value_len,
            value: 0,
            len: 0,
        };
        draft.finish(expire_at.is_some(), old.key_len);
        let mut kind = draft.tag & KIND;
        let mut bytes = Vec::new();
        if draft.len > ENTRY_LEN_MAX {
            // The entry was full to the brim: its string moves outside to make room for the expiry.
            let Value::Str(value) = self.value(loc) else {
                unreachable!("only inline strings fill an entry")
            };
            bytes = value.to_vec();
            kind = STR_OUT;
            draft.tag = draft.tag & !KIND | STR_OUT;
            draft.value_len = 16;
            draft.finish(expire_at.is_some(), old.key_len);
        }
        let moved_outside = kind != old.tag & KIND;
        let loc = self.make_room(loc, draft.len)?;
        let entry = self.table.entry_mut(loc);
        let old_len = old.len();
        // Key and value move together; the order of the two moves matters when they overlap.
        let (key_to, value_to) = (draft.value - old.key_len, draft.value);
        if moved_outside {
            entry.copy_within(old.key..old.key + old.key_len, key_to);
        } else {
            entry.copy_within(old.key..old.value + old.value_len, key_to);
        }
        draft.write_fields(entry);
        if moved_outside {
            self.string_bytes -= old.value_len;
            self.outside_bytes += good_size(bytes.capacity());
            self.string_bytes += good_size(bytes.capacity());
            outside::store(bytes, &mut self.table.entry_mut(loc)[value_to..]);
        }
        if draft.len < old_len {
            self.table.shortened(loc, old_len, draft.len);
        }
        self.expires = self.expires + usize::from(expire_at.is_some()) - usize::from(had_expiry);
        if let Some(at) = expire_at {
            self.table.lower_note(loc, at);
        }
        Ok(loc)
    }

    /// Shares a long string with the caller, who reads it on whatever thread and for as long as he likes: it stays as it
    /// is even if the key is changed or removed. None for what is kept inside the table. The memory is counted here as
    /// long as the key has it, and by nobody behind that.
    pub fn lend_string(&mut self, loc: Loc) -> Option<Arc<Vec<u8>>> {
        let parts = Parts::of(self.table.entry(loc));
        if parts.tag & KIND != STR_OUT {
            return None;
        }
        let loc = self.table.own(loc);
        // SAFETY: the kind says that `store` wrote these bytes.
        Some(unsafe { outside::lend(&mut self.table.entry_mut(loc)[parts.value..]) })
    }

    /// Hands a string's bytes to `change` as a vector and stores the result: APPEND, SETRANGE, SETBIT. Long strings
    /// are changed without copying. None if the value is a collection. `change` must leave below 4 GiB.
    pub fn edit_string<R>(
        &mut self,
        loc: Loc,
        scratch: &mut Vec<u8>,
        change: impl FnOnce(&mut Vec<u8>) -> R,
    ) -> Edited<R> {
        let entry = self.table.entry(loc);
        let parts = Parts::of(entry);
        if parts.tag & KIND == STR_OUT {
            // SAFETY: the kind says that `store` wrote these bytes; the vector is stored again below. If `change`
            // panics the process aborts (release) or the test fails; the entry would then be read again only by
            // the table's drop, so the vector is leaked rather than freed twice: it is held in ManuallyDrop.
            let mut bytes = std::mem::ManuallyDrop::new(unsafe { outside::take(&entry[parts.value..]) });
            let before = good_size(bytes.capacity());
            let result = change(&mut bytes);
            let bytes = std::mem::ManuallyDrop::into_inner(bytes);
            let after = good_size(bytes.capacity());
            self.outside_bytes = self.outside_bytes + after - before;
            self.string_bytes = self.string_bytes + after - before;
            outside::store(bytes, &mut self.table.entry_mut(loc)[parts.value..]);
            return Edited::InPlace(result);
        }
        scratch.clear();
        match self.value(loc) {
            Value::Str(bytes) => scratch.extend_from_slice(bytes),
            Value::Int(n) => {
                let mut text = itoa::Buffer::new();
                scratch.extend_from_slice(text.format(n).as_bytes());
            }
            Value::Object(_) => unreachable!("callers have checked the type"),
        }
        Edited::Store(change(scratch))
    }

    /// Removes a key.
    #[inline]
    pub fn remove(&mut self, loc: Loc) -> Removed<O> {
        let entry = self.table.entry(loc);
        let parts = Parts::of(entry);
        let key_len = KeyLayout::key(entry, &parts).len();
        self.expires -= usize::from(parts.tag & EXPIRES != 0);
        self.key_bytes -= key_len;
        if parts.tag & (KEY_OUT | KIND) <= STR16 {
            // Nothing outside: the common case needs no second look.
            self.string_bytes -= parts.value_len;
            self.table.remove(loc);
            return Removed::String;
        }
        // The table hashes the key while it removes, so outside memory is freed behind that.
        let mut key_parts = [0; 12];
        if parts.tag & KEY_OUT != 0 {
            key_parts.copy_from_slice(&entry[1..13]);
        }
        let removed = self.take_value(loc);
        self.table.remove(loc);
        if parts.tag & KEY_OUT != 0 {
            // SAFETY: the parts of the key of an entry that was just removed.
            self.outside_bytes -= unsafe { outside::drop_exact(&key_parts) };
        }
        removed
    }

    /// Splits the segment that a hash leads to; see [`Table::split`].
    pub fn split(&mut self, hash: u64) {
        self.table.split(hash);
    }

    /// See [`Table::merge`].
    pub fn merge(&mut self, hash: u64) -> bool {
        self.table.merge(hash)
    }

    /// See [`Table::trim_directory`].
    pub fn trim_directory(&mut self) {
        self.table.trim_directory();
    }

    /// See [`Table::compact_segment`].
    pub fn compact_segment(&mut self, id: SegmentId) -> bool {
        self.table.compact_segment(id)
    }

    /// Gives other addresses to a segment, its blocks, and the long strings and keys of its entries; see [`Mover`]. What
    /// clones share stays.
    pub fn relocate_segment(&mut self, id: SegmentId, mover: &mut Mover<'_>) {
        if !self.table.relocate_segment(id, mover) || self.outside_bytes == 0 {
            return;
        }
        let owns = |entry: &[u8]| entry[0] & KIND == STR_OUT || entry[0] & KEY_OUT != 0;
        for loc in self.table.entries_where(id, owns) {
            let entry = self.table.entry_mut(loc);
            let parts = Parts::of(entry);
            if parts.tag & KEY_OUT != 0 {
                // SAFETY: the tag says that `store_exact` wrote these bytes; the entry owns the key, and its borrow excludes
                // readers.
                unsafe { outside::relocate_exact(&mut entry[KEY_OUT_AT], mover) };
            }
            if parts.tag & KIND == STR_OUT {
                // SAFETY: the kind says that `store` wrote these bytes; the rest is as above.
                unsafe { outside::relocate(&mut entry[parts.value..], mover) };
            }
        }
    }

    /// Before a walk over all segments that calls [`KeyTable::renumber_segment`]: that then empties parts of the slab, if
    /// it has many holes. To be followed by [`KeyTable::end_renumbering`].
    pub fn begin_renumbering(&mut self) {
        self.objects.close();
    }

    /// Gives the collections of a segment other numbers, where the slab asks for that.
    pub fn renumber_segment(&mut self, id: SegmentId) {
        if !self.objects.has_closed() {
            return;
        }
        for loc in self.table.entries_where(id, |entry| entry[0] & KIND == OBJECT) {
            let entry = self.table.entry_mut(loc);
            let at = Parts::of(entry).value;
            let number = &mut entry[at..];
            let fresh = self.objects.renumber(read_u32(number, 0));
            number[..4].copy_from_slice(&fresh.to_le_bytes());
        }
    }

    /// See [`KeyTable::begin_renumbering`].
    pub fn end_renumbering(&mut self) {
        self.objects.open();
    }

    /// The first collection with this number in the slab or a greater one, and its number; see [`Slab::from`]. For walks over
    /// all of them.
    pub fn object_from(&mut self, number: u32, mover: &mut Mover<'_>) -> Option<(u32, &mut O)> {
        self.objects.from(number, mover)
    }

    /// See [`Table::set_heat`].
    #[inline]
    pub fn set_heat(&mut self, loc: Loc, heat: u8) {
        self.table.set_heat(loc, heat);
    }

    /// See [`Table::lower_note`]: for collections that must be looked at before their keys expire.
    #[inline]
    pub fn lower_note(&mut self, loc: Loc, note: u64) {
        self.table.lower_note(loc, note);
    }

    /// See [`Table::raise_note`].
    pub fn raise_note(&mut self, id: SegmentId, note: u64) {
        self.table.raise_note(id, note);
    }

    /// See [`Table::set_bucket_version`].
    pub fn set_bucket_version(&mut self, id: SegmentId, bucket: usize, version: u32) {
        self.table.set_bucket_version(id, bucket, version);
    }

    /// Takes the table apart: frees up to `segments` segments, or returns a collection that the caller frees in its
    /// own steps. `Done` when nothing is left. Only this and drop may be called from the first call on.
    pub fn free_some(&mut self, segments: usize) -> Freed<O> {
        if let Some(object) = self.objects.pop() {
            return Freed::Object(object);
        }
        if self.table.free_some(segments) { Freed::Done } else { Freed::Some }
    }

    /// Every invariant; for tests, O(n).
    pub fn check(&self) {
        self.table.check();
        let (mut expires, mut keys, mut strings, mut outside, mut objects) = (0, 0, 0, 0, 0);
        let mut id = self.table.first_segment();
        loop {
            let mut earliest = u64::MAX;
            self.table.visit_segment(id, |loc| {
                let entry = self.table.entry(loc);
                let parts = Parts::of(entry);
                if let Some(at) = self.expire_at(loc) {
                    expires += 1;
                    earliest = earliest.min(at);
                }
                let key = self.key(loc);
                keys += key.len();
                if parts.tag & KEY_OUT != 0 {
                    outside += good_size(key.len());
                }
                match parts.tag & KIND {
                    OBJECT => objects += 1,
                    STR_OUT => {
                        let held = outside::grown_bytes(&entry[parts.value..]);
                        outside += held;
                        strings += held;
                    }
                    _ => strings += parts.value_len,
                }
            });
            assert!(self.table.note(id) <= earliest, "no expiry before the segment's note");
            match self.table.next_segment(id) {
                Some(next) => id = next,
                None => break,
            }
        }
        assert_eq!(expires, self.expires);
        assert_eq!(keys, self.key_bytes);
        assert_eq!(strings, self.string_bytes);
        assert_eq!(outside, self.outside_bytes);
        assert_eq!(objects, self.objects.len());
        self.objects.check();
    }
}

/// What [`KeyTable::edit_string`] did.
pub enum Edited<R> {
    /// The string was changed where it is.
    InPlace(R),
    /// The changed bytes are in the scratch buffer; store them with `set_edited`.
    Store(R),
}

/// What [`KeyTable::free_some`] did.
pub enum Freed<O> {
    /// Freed segments; there are more.
    Some,
    /// Took out a collection.
    Object(O),
    /// Nothing is left.
    Done,
}

/// The header of an entry to be written.
struct Draft {
    tag: u8,
    expire_at: u64,
    mc_flags: u32,
    value_len: usize,
    /// Start of the value.
    value: usize,
    len: usize,
}

impl Draft {
    #[inline]
    fn new<O>(
        key: &[u8],
        value: &NewValue<'_, O>,
        expire_at: Option<u64>,
        sticky: bool,
        mc_flags: u32,
    ) -> Draft {
        let (kind, value_len) = match value {
            NewValue::Int(n) => {
                let kind = KeyTable::<O>::int_kind(*n);
                (kind, 1 << kind)
            }
            NewValue::Str(bytes) if bytes.len() <= STR8_LEN_MAX => (STR8, bytes.len()),
            NewValue::Str(bytes) => (STR16, bytes.len()),
            NewValue::Edited(bytes) => (STR16, bytes.len()),
            NewValue::Object(_) => (OBJECT, 4),
        };
        let (key_tag, key_len) = if key.len() <= KEY_IN_MAX { (0, key.len()) } else { (KEY_OUT, 0) };
        let mut draft = Draft {
            tag: kind | key_tag | if sticky { STICKY } else { 0 },
            expire_at: expire_at.unwrap_or(0),
            mc_flags,
            value_len,
            value: 0,
            len: 0,
        };
        draft.finish(expire_at.is_some(), key_len);
        if draft.len > ENTRY_LEN_MAX {
            draft.tag = draft.tag & !KIND | STR_OUT;
            draft.value_len = 16;
            draft.finish(expire_at.is_some(), key_len);
        }
        draft
    }

    /// Sets the tag bits of the optional fields and computes the lengths. `key_len` is that inside the entry.
    #[inline]
    fn finish(&mut self, expires: bool, key_len: usize) {
        if expires {
            self.tag |= EXPIRES | if self.expire_at >= FAR_FROM { FAR } else { 0 };
        }
        if self.mc_flags != 0 {
            self.tag |= MC_FLAGS;
        }
        let length_len = match self.tag & KIND {
            STR8 => 1,
            STR16 => 2,
            _ => 0,
        };
        let fields = if self.tag & KEY_OUT == 0 { 2 } else { 13 };
        let flags = if self.mc_flags != 0 { 4 } else { 0 };
        self.value = fields + Parts::expiry_len(self.tag) + flags + length_len + key_len;
        self.len = self.value + self.value_len;
    }

    /// Header and key of a new entry.
    #[inline]
    fn write_head(&self, entry: &mut [u8], key: &[u8]) {
        if self.tag & KEY_OUT == 0 {
            entry[1] = key.len() as u8;
            entry[self.value - key.len()..self.value].copy_from_slice(key);
        } else {
            outside::store_exact(key, &mut entry[1..13]);
        }
        self.write_fields(entry);
    }

    /// Tag, expiry, memcache flags, value length.
    #[inline]
    fn write_fields(&self, entry: &mut [u8]) {
        entry[0] = self.tag;
        let mut at = if self.tag & KEY_OUT == 0 { 2 } else { 13 };
        let expiry_len = Parts::expiry_len(self.tag);
        entry[at..at + expiry_len].copy_from_slice(&self.expire_at.to_le_bytes()[..expiry_len]);
        at += expiry_len;
        if self.mc_flags != 0 {
            entry[at..at + 4].copy_from_slice(&self.mc_flags.to_le_bytes());
            at += 4;
        }
        match self.tag & KIND {
            STR8 => entry[at] = self.value_len as u8,
            STR16 => entry[at..at + 2].copy_from_slice(&(self.value_len as u16).to_le_bytes()),
            _ => {}
        }
    }
}

/// The read-only operations of [`Table`] that do not depend on what entries mean.
pub trait TableView {
    /// See [`Table::scan`].
    fn scan(&self, cursor: Cursor, visit: impl FnMut(Loc)) -> Cursor;
    /// See [`Table::random`].
    fn random(&self, random: impl FnMut() -> u64) -> Option<Loc>;
    /// See [`Table::first_segment`].
    fn first_segment(&self) -> SegmentId;
    /// See [`Table::next_segment`].
    fn next_segment(&self, id: SegmentId) -> Option<SegmentId>;
    /// See [`Table::segment_of`].
    fn segment_of(&self, hash: u64) -> SegmentId;
    /// See [`Table::visit_segment`].
    fn visit_segment(&self, id: SegmentId, visit: impl FnMut(Loc));
    /// See [`Table::visit_bucket`].
    fn visit_bucket(&self, id: SegmentId, bucket: usize, visit: impl FnMut(Loc));
    /// See [`Table::prefetch_bucket`].
    fn prefetch_bucket(&self, id: SegmentId, bucket: usize);
    /// See [`Table::prefetch_entries`].
    fn prefetch_entries(&self, id: SegmentId, bucket: usize);
    /// See [`Table::bucket_of`].
    fn bucket_of(&self, loc: Loc) -> (SegmentId, usize);
    /// See [`Table::bucket_version`].
    fn bucket_version(&self, id: SegmentId, bucket: usize) -> u32;
    /// See [`Table::version`].
    fn version(&self, loc: Loc) -> u32;
    /// See [`Table::bucket_for_insert`].
    fn bucket_for_insert(&self, hash: u64) -> usize;
    /// See [`Table::prefetch_share`].
    fn prefetch_share(&self, id: SegmentId, bucket: usize);
    /// See [`Table::note`].
    fn note(&self, id: SegmentId) -> u64;
    /// See [`Table::heat`].
    fn heat(&self, loc: Loc) -> u8;
    /// See [`Table::segment_len`].
    fn segment_len(&self, id: SegmentId) -> usize;
    /// See [`Table::segments`].
    fn segments(&self) -> usize;
    /// See [`Table::capacity`].
    fn capacity(&self) -> usize;
}

impl TableView for Table<KeyLayout> {
    fn scan(&self, cursor: Cursor, visit: impl FnMut(Loc)) -> Cursor {
        Table::scan(self, cursor, visit)
    }
    fn random(&self, random: impl FnMut() -> u64) -> Option<Loc> {
        Table::random(self, random)
    }
    fn first_segment(&self) -> SegmentId {
        Table::first_segment(self)
    }
    fn next_segment(&self, id: SegmentId) -> Option<SegmentId> {
        Table::next_segment(self, id)
    }
    fn segment_of(&self, hash: u64) -> SegmentId {
        Table::segment_of(self, hash)
    }
    fn visit_segment(&self, id: SegmentId, visit: impl FnMut(Loc)) {
        Table::visit_segment(self, id, visit);
    }
    fn visit_bucket(&self, id: SegmentId, bucket: usize, visit: impl FnMut(Loc)) {
        Table::visit_bucket(self, id, bucket, visit);
    }
    fn prefetch_bucket(&self, id: SegmentId, bucket: usize) {
        Table::prefetch_bucket(self, id, bucket);
    }
    fn prefetch_entries(&self, id: SegmentId, bucket: usize) {
        Table::prefetch_entries(self, id, bucket);
    }
    fn bucket_of(&self, loc: Loc) -> (SegmentId, usize) {
        Table::bucket_of(self, loc)
    }
    fn bucket_version(&self, id: SegmentId, bucket: usize) -> u32 {
        Table::bucket_version(self, id, bucket)
    }
    fn version(&self, loc: Loc) -> u32 {
        Table::version(self, loc)
    }
    #[inline]
    fn bucket_for_insert(&self, hash: u64) -> usize {
        Table::bucket_for_insert(self, hash)
    }
    #[inline]
    fn prefetch_share(&self, id: SegmentId, bucket: usize) {
        Table::prefetch_share(self, id, bucket);
    }
    fn note(&self, id: SegmentId) -> u64 {
        Table::note(self, id)
    }
    fn heat(&self, loc: Loc) -> u8 {
        Table::heat(self, loc)
    }
    fn segment_len(&self, id: SegmentId) -> usize {
        Table::segment_len(self, id)
    }
    fn segments(&self) -> usize {
        Table::segments(self)
    }
    fn capacity(&self) -> usize {
        Table::capacity(self)
    }
}

#[cfg(test)]
mod tests;
