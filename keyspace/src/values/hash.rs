//! A hash: one allocation while it is small, a table when it is big.
//!
//! Both forms have the same entries, and in both a field may have an expiry. A small hash whose fields have some is a
//! form of its own only because somebody must remember when the first of them is due: the walk that frees expired
//! fields asks every hash for it, and counting would take a look at every field. It also remembers that Redis would
//! have made it a table because of its long fields or values, which is a question of bytes here.
//!
//! **Time.** What reads or changes is handed `now`, and fields that have expired by then do not exist for it. They
//! are freed when a change meets them and by [`Hash::expire`], which the keyspace calls (see `expiry.rs`) whenever it
//! comes across a hash with due fields; so there is a backlog only for hashes with very many fields due at once, and
//! only then does [`Hash::len`] count.
//!
//! A clone shares all nodes of a big hash, and a walk over a clone by [`Hash::scan`] shows each field exactly once
//! however the original changes meanwhile: that is how a long reply is written in pieces.

use damselfly_structures::alloc::good_size;
use damselfly_structures::dense::{DenseHash, SmallHash};
use damselfly_structures::keytable::Expiry;
use damselfly_structures::moves::Mover;
use damselfly_structures::pack::Item;
use damselfly_structures::table::Cursor;

pub use damselfly_structures::dense::{Field, NotAdded};

use super::PackLimits;
use crate::UnixMs;

/// See the module's head.
#[derive(Clone)]
pub enum Hash {
    /// Few fields, all short, none with an expiry.
    Small(SmallHash),
    /// Few fields, some of which have or had an expiry or are long.
    Noted(Box<NotedHash>),
    /// Any number of fields, with or without.
    Big(Box<DenseHash>),
}

/// A small hash that knows when to look for expired fields, and what Redis would call it.
#[derive(Clone)]
pub struct NotedHash {
    fields: SmallHash,
    /// No field expires before; `NEVER` if none does.
    earliest: UnixMs,
    /// It has or had a field or value that is longer than the limits allow for a small hash. For Redis that is a table
    /// from then on; here a table begins with 5 KiB, ten times what such a hash may need.
    long: bool,
}

/// Fields and bytes up to which a hash with long fields or values stays small. Values that are very long are outside
/// and do not count. Up to here Redis' table is smaller than ours; from here on a walk takes more than twice as long.
const LONG_FIELDS_MAX: usize = 64;
const LONG_BYTES_MAX: usize = 16 * 1024;

const NEVER: UnixMs = UnixMs::MAX;

/// Of a walk by [`Hash::scan`]: empty places it looks into for each field it was asked for. They are many where
/// fields have expired and were not freed yet.
const PLACES_PER_FIELD: usize = 10;

/// What a change goes by.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The present.
    pub now: UnixMs,
    /// The keyspace's hash seed.
    pub seed: u64,
    /// When a hash is small.
    pub limits: PackLimits,
}

impl NotedHash {
    fn lower(&mut self, expiry: Option<UnixMs>) {
        self.earliest = self.earliest.min(expiry.unwrap_or(NEVER));
    }
}

impl Hash {
    /// A hash without fields.
    pub const fn new() -> Hash {
        Hash::Small(SmallHash::new())
    }

    /// The small form.
    #[inline]
    fn small(&self) -> Result<&SmallHash, &DenseHash> {
        match self {
            Hash::Small(fields) => Ok(fields),
            Hash::Noted(noted) => Ok(&noted.fields),
            Hash::Big(table) => Err(table),
        }
    }

    /// Gives allocations other addresses; see [`Mover`].
    pub(crate) fn relocate(&mut self, mover: &mut Mover<'_>) {
        match self {
            Hash::Small(fields) => fields.relocate(mover),
            Hash::Noted(noted) => mover.boxed(noted).fields.relocate(mover),
            Hash::Big(table) => mover.boxed(table).relocate(mover),
        }
    }

    fn is_big(&self) -> bool {
        matches!(self, Hash::Big(_))
    }

    /// Fields that exist now.
    #[inline]
    pub fn len(&self, now: UnixMs) -> usize {
        if self.is_due(now) {
            return match self.small() {
                Ok(fields) => fields.iter(now).count(),
                Err(table) => table.iter(now).count(),
            };
        }
        self.stored()
    }

    /// Fields, those included that have expired and were not freed yet.
    #[inline]
    fn stored(&self) -> usize {
        self.small().map_or_else(DenseHash::len, SmallHash::len)
    }

    /// Whether nothing is left of the hash, not even an expired field.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.stored() == 0
    }

    /// Whether any field exists now. Takes a walk only if nearly all have expired and were not freed yet.
    pub fn has_live(&self, now: UnixMs) -> bool {
        if self.is_due(now) {
            return match self.small() {
                Ok(fields) => fields.iter(now).next().is_some(),
                Err(table) => table.expiring() < table.len() || table.iter(now).next().is_some(),
            };
        }
        !self.is_empty()
    }

    /// The value of a field.
    #[inline]
    pub fn get(&self, field: &[u8], now: UnixMs) -> Option<Item<'_>> {
        match self.small() {
            Ok(fields) => fields.get(field, now),
            Err(table) => table.get(field, now),
        }
    }

    /// When a field expires; the outer option says whether there is such a field.
    pub fn expire_at(&self, field: &[u8], now: UnixMs) -> Option<Option<UnixMs>> {
        match self.small() {
            Ok(fields) => fields.expire_at(field, now),
            Err(table) => table.expire_at(field, now),
        }
    }

    /// Gives a field a value; true if the field is new.
    #[inline]
    pub fn set(&mut self, rules: &Rules, field: &[u8], value: &[u8], expiry: Expiry) -> bool {
        let now = rules.now;
        if let Hash::Big(table) = self {
            return table.set(field, value, expiry, now);
        }
        if !self.stays_small(&rules.limits, field, value) {
            return self.grow(rules.seed).set(field, value, expiry, now);
        }
        if field.len().max(value.len()) > rules.limits.len_max {
            self.noted().long = true;
        }
        let at = match expiry {
            Expiry::At(at) => Some(at),
            Expiry::Keep | Expiry::Never => None,
        };
        if at.is_some() {
            self.remember(at);
        }
        match self {
            Hash::Small(fields) => fields.set(field, value, expiry, now),
            Hash::Noted(noted) => noted.fields.set(field, value, expiry, now),
            Hash::Big(_) => unreachable!("answered above"),
        }
    }

    /// Whether a hash that is small can be so with this field too.
    #[inline]
    fn stays_small(&self, limits: &PackLimits, field: &[u8], value: &[u8]) -> bool {
        let Ok(fields) = self.small() else { return false };
        let long = self.is_long() || field.len().max(value.len()) > limits.len_max;
        let fields_max = if long { limits.entries_max.min(LONG_FIELDS_MAX) } else { limits.entries_max };
        (!long || fields.bytes() <= LONG_BYTES_MAX)
            && fields.takes(field)
            // At time zero nothing has expired: is it there in any way?
            && (fields.len() < fields_max || fields.get(field, 0).is_some())
    }

    /// Takes the big form.
    #[cold]
    fn grow(&mut self, seed: u64) -> &mut DenseHash {
        let mut table = DenseHash::new(seed);
        // Those that have expired come along: whoever counts the freed ones must see them go.
        self.for_each(0, |Field { field, value, expire_at }| {
            let expiry = expire_at.map_or(Expiry::Never, Expiry::At);
            table.set(field.as_bytes(&mut [0; 20]), value.as_bytes(&mut [0; 20]), expiry, 0);
        });
        *self = Hash::Big(Box::new(table));
        match self {
            Hash::Big(table) => table,
            _ => unreachable!("just made big"),
        }
    }

    /// Makes a small hash one that knows about an expiry.
    fn remember(&mut self, expiry: Option<UnixMs>) {
        if !self.is_big() {
            self.noted().lower(expiry);
        }
    }

    /// What is noted of a hash that is small.
    #[cold]
    fn noted(&mut self) -> &mut NotedHash {
        if let Hash::Small(fields) = self {
            let fields = std::mem::take(fields);
            *self = Hash::Noted(Box::new(NotedHash { fields, earliest: NEVER, long: false }));
        }
        match self {
            Hash::Noted(noted) => noted,
            _ => unreachable!("it is small"),
        }
    }

    /// Whether it is small only because the table would be larger: Redis has a table.
    #[inline]
    pub fn is_long(&self) -> bool {
        matches!(self, Hash::Noted(noted) if noted.long)
    }

    /// Adds to the number that a field holds, or makes the field with this number. Its expiry stays.
    pub fn add(&mut self, rules: &Rules, field: &[u8], by: i64) -> Result<i64, NotAdded> {
        if let Hash::Big(table) = self {
            return table.add(field, by, rules.now);
        }
        let old = match self.get(field, rules.now) {
            None => 0,
            Some(Item::Int(number)) => number,
            Some(Item::Bytes(_)) => return Err(NotAdded::NotInteger),
        };
        let sum = old.checked_add(by).ok_or(NotAdded::Overflow)?;
        self.set(rules, field, Item::Int(sum).as_bytes(&mut [0; 20]), Expiry::Keep);
        Ok(sum)
    }

    /// Gives a field another expiry, or none; false if there is no such field.
    pub fn set_expire(&mut self, field: &[u8], expire_at: Option<UnixMs>, now: UnixMs) -> bool {
        if expire_at.is_some() && !self.is_big() && self.expire_at(field, now).is_some() {
            self.remember(expire_at);
        }
        match self {
            Hash::Small(fields) => fields.set_expire(field, expire_at, now),
            Hash::Noted(noted) => noted.fields.set_expire(field, expire_at, now),
            Hash::Big(table) => table.set_expire(field, expire_at, now),
        }
    }

    /// Removes a field; false if there is no such field. A big hash stays big, as in Redis.
    #[inline]
    pub fn remove(&mut self, field: &[u8], now: UnixMs) -> bool {
        match self {
            Hash::Small(fields) => fields.remove(field, now),
            Hash::Noted(noted) => noted.fields.remove(field, now),
            Hash::Big(table) => table.remove(field, now),
        }
    }

    /// Visits all fields.
    #[inline]
    pub fn for_each(&self, now: UnixMs, visit: impl FnMut(Field<'_>)) {
        match self.small() {
            Ok(fields) => fields.iter(now).for_each(visit),
            Err(table) => table.iter(now).for_each(visit),
        }
    }

    /// Visits fields from a cursor on, about `count` of them; the next cursor, 0 at the end. A walk from 0 to 0
    /// shows every field that was there all the time, and exactly once if nothing changed: a small hash in one step,
    /// whatever the cursor. Any number is a cursor.
    pub fn scan(&self, cursor: u64, count: usize, now: UnixMs, mut visit: impl FnMut(Field<'_>)) -> u64 {
        let table = match self.small() {
            Ok(fields) => {
                fields.iter(now).for_each(visit);
                return 0;
            }
            Err(table) => table,
        };
        let (mut cursor, mut visited) = (Cursor(cursor), 0);
        for _ in 0..count.saturating_mul(PLACES_PER_FIELD) {
            cursor = table.scan(cursor, now, |field| {
                visited += 1;
                visit(field);
            });
            if cursor.0 == 0 || visited >= count {
                break;
            }
        }
        cursor.0
    }

    /// A random field, all being equally likely; `random` gives fresh numbers.
    pub fn random(&self, now: UnixMs, mut random: impl FnMut() -> u64) -> Option<Field<'_>> {
        match self.small() {
            Ok(fields) => {
                let len = self.len(now);
                let at = ((u128::from(random()) * len as u128) >> 64) as usize;
                fields.iter(now).nth(at)
            }
            Err(table) => table.random(now, random),
        }
    }

    /// A time before which no field expires; None if no field does.
    #[inline]
    pub fn next_expiry(&self) -> Option<UnixMs> {
        match self {
            Hash::Small(_) => None,
            Hash::Noted(noted) => (noted.earliest != NEVER).then_some(noted.earliest),
            Hash::Big(table) => table.next_expiry(),
        }
    }

    /// Whether there may be fields that have expired and were not freed.
    #[inline]
    pub fn is_due(&self, now: UnixMs) -> bool {
        self.next_expiry().is_some_and(|at| at <= now)
    }

    /// Frees fields that have expired, at most `limit` of a big hash, and returns how many. There is more to do while
    /// the hash [is due](Hash::is_due).
    pub fn expire(&mut self, now: UnixMs, limit: usize) -> usize {
        match self {
            Hash::Small(_) => 0,
            Hash::Noted(noted) => {
                let (freed, earliest) = noted.fields.expire(now, |_| {});
                noted.earliest = earliest.unwrap_or(NEVER);
                freed
            }
            Hash::Big(table) => table.expire(now, limit, |_| {}),
        }
    }

    /// Bytes held from the allocator.
    #[inline]
    pub fn heap_bytes(&self) -> usize {
        match self {
            Hash::Small(fields) => fields.heap_bytes(),
            Hash::Noted(noted) => good_size(size_of::<NotedHash>()) + noted.fields.heap_bytes(),
            Hash::Big(table) => good_size(size_of::<DenseHash>()) + table.heap_bytes(),
        }
    }

    /// Frees up to `nodes` nodes; true when nothing is left.
    pub fn free_some(&mut self, nodes: usize) -> bool {
        match self {
            Hash::Small(_) | Hash::Noted(_) => true,
            Hash::Big(table) => table.free_some(nodes),
        }
    }

    /// Every invariant; for tests.
    pub fn check(&self) {
        match self {
            Hash::Small(fields) => {
                fields.check();
                assert!(fields.iter(0).all(|field| field.expire_at.is_none()), "nobody knows of an expiry");
            }
            Hash::Noted(noted) => {
                noted.fields.check();
                let early = |field: Field<'_>| field.expire_at.is_some_and(|at| at < noted.earliest);
                assert!(!noted.fields.iter(0).any(early), "nothing expires before the earliest");
            }
            Hash::Big(table) => table.check(),
        }
    }
}

impl Default for Hash {
    fn default() -> Hash {
        Hash::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const fn _travels<T: Send>() {}
    const _: () = _travels::<Hash>();
    const _: () = assert!(size_of::<Hash>() <= 16);

    type Model = BTreeMap<Vec<u8>, (Vec<u8>, Option<UnixMs>)>;

    struct Rng(u64);

    impl Rng {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        fn below(&mut self, bound: u64) -> u64 {
            (self.next() >> 11) % bound
        }
    }

    fn shown(hash: &Hash, now: UnixMs) -> Model {
        let mut shown = Model::new();
        hash.for_each(now, |field| {
            let old = shown.insert(field.field.to_vec(), (field.value.to_vec(), field.expire_at));
            assert!(old.is_none(), "no field twice");
        });
        shown
    }

    fn lives(at: Option<UnixMs>, now: UnixMs) -> bool {
        at.is_none_or(|at| at > now)
    }

    /// All operations agree with a map in every form and on the way from one to the next: small, small with
    /// something noted, big. Clones keep what they were cloned from.
    #[test]
    fn agrees_with_a_map() {
        for entries_max in [0, 8, 60, 500] {
            let mut rng = Rng(0x9E37_79B9_7F4A_7C15 + entries_max as u64);
            let limits = PackLimits { entries_max, len_max: 64 };
            let (mut hash, mut model) = (Hash::new(), Model::new());
            let mut cut: Option<(Hash, Model, UnixMs)> = None;
            let mut forms = [false; 4];
            for now in 1..30_000u64 {
                if now % 5_000 == 0 {
                    (hash, model) = (Hash::new(), Model::new());
                }
                let rules = Rules { now, seed: 7, limits };
                let name = match rng.below(3) {
                    0 => rng.below(80).to_string(),
                    1 => format!("name:{}", rng.below(80)),
                    _ => format!("{:064}", rng.below(20)),
                };
                let field = name.as_bytes();
                model.retain(|_, (_, at)| lives(*at, now));
                let there = model.contains_key(field);
                let timed = now % 10_000 >= 5_000;
                let long = (now / 5_000) % 4 >= 2;
                match rng.below(16) {
                    0..=1 if timed => {
                        let at = Some(now + 1 + rng.below(300)).filter(|at| at % 5 > 0);
                        assert_eq!(hash.set_expire(field, at, now), there);
                        if let Some(pair) = model.get_mut(field) {
                            pair.1 = at;
                        }
                    }
                    2..=3 => {
                        let by = rng.below(1 << 40) as i64 - (1 << 39);
                        let old = model.get(field).map_or(&b"0"[..], |pair| &pair.0);
                        let want = match Item::of(old) {
                            Item::Int(old) => old.checked_add(by).ok_or(NotAdded::Overflow),
                            Item::Bytes(_) => Err(NotAdded::NotInteger),
                        };
                        assert_eq!(hash.add(&rules, field, by), want);
                        if let Ok(sum) = want {
                            model.entry(field.to_vec()).or_default().0 = sum.to_string().into_bytes();
                        }
                    }
                    4..=8 => {
                        assert_eq!(hash.remove(field, now), there);
                        model.remove(field);
                    }
                    9 => {
                        hash.expire(now, 5);
                    }
                    _ => {
                        let value = match rng.below(3) {
                            0 if long => vec![b'v'; rng.below(1_000) as usize],
                            0 => vec![b'v'; rng.below(64) as usize],
                            1 => (rng.below(1 << 50) as i64 - (1 << 49)).to_string().into_bytes(),
                            _ => b"007".to_vec(),
                        };
                        let (expiry, at) = match rng.below(3) {
                            0 => (Expiry::Keep, model.get(field).and_then(|pair| pair.1)),
                            1 if timed => (Expiry::At(now + 50), Some(now + 50)),
                            _ => (Expiry::Never, None),
                        };
                        assert_eq!(hash.set(&rules, field, &value, expiry), !there);
                        model.insert(field.to_vec(), (value, at));
                    }
                }
                forms[match hash {
                    Hash::Small(_) => 0,
                    Hash::Noted(ref noted) => 1 + usize::from(noted.long),
                    Hash::Big(_) => 3,
                }] = true;
                let want = model.get(field);
                assert_eq!(hash.get(field, now).map(|item| item.to_vec()), want.map(|pair| pair.0.clone()));
                assert_eq!(hash.expire_at(field, now), want.map(|pair| pair.1));
                assert_eq!(hash.has_live(now), !model.is_empty());
                if rng.below(50) == 0 {
                    hash.check();
                    assert_eq!((shown(&hash, now), hash.len(now)), (model.clone(), model.len()));
                    assert!(model.values().all(|(_, at)| at.is_none_or(|at| hash.next_expiry() <= Some(at))));
                    if let Some((cut, model, now)) = cut.take() {
                        assert_eq!(shown(&cut, now), model);
                    }
                    cut = Some((hash.clone(), model.clone(), now));
                }
            }
            assert_eq!(forms, [true, entries_max > 0, entries_max > 0, true], "{entries_max}");
        }
    }

    /// A walk in steps shows what is there all the time, while fields come and go by the thousand; over a clone it
    /// shows everything exactly once.
    #[test]
    fn walks() {
        let rules = Rules { now: 10, seed: 3, limits: PackLimits::default() };
        for count in [1, 10, 1_000] {
            let mut rng = Rng(99 + count as u64);
            let mut hash = Hash::new();
            let stay: Vec<String> = (0..2_000).map(|n| format!("stay:{n}")).collect();
            stay.iter().for_each(|name| assert!(hash.set(&rules, name.as_bytes(), b"v", Expiry::Never)));
            let (copy, mut seen, mut cursor, mut steps) = (hash.clone(), BTreeMap::new(), 0, 0);
            loop {
                cursor =
                    hash.scan(cursor, count, 10, |field| *seen.entry(field.field.to_vec()).or_insert(0) += 1);
                if cursor == 0 {
                    break;
                }
                // Fields come during the first half of the walk and go during the second.
                steps += 1;
                for _ in 0..20 * count.min(100) {
                    let name = format!("go:{}", rng.below(20_000));
                    if steps < 1_000 / count.min(100) {
                        hash.set(&rules, name.as_bytes(), b"", Expiry::Never);
                    } else {
                        hash.remove(name.as_bytes(), 10);
                    }
                }
            }
            assert!(stay.iter().all(|name| seen.contains_key(name.as_bytes())), "count {count}");
            let (mut once, mut cursor) = (BTreeMap::new(), 0);
            loop {
                cursor =
                    copy.scan(cursor, count, 10, |field| *once.entry(field.field.to_vec()).or_insert(0) += 1);
                if cursor == 0 {
                    break;
                }
            }
            assert!(once.len() == stay.len() && once.values().all(|&times| times == 1), "count {count}");
        }
    }

    /// Random fields are those that exist now, and all of them come.
    #[test]
    fn random() {
        for entries_max in [0, 500] {
            let rules = Rules { now: 10, seed: 3, limits: PackLimits { entries_max, len_max: 64 } };
            let (mut hash, mut rng) = (Hash::new(), Rng(5));
            assert!(hash.random(10, || 1).is_none());
            for n in 0..100u64 {
                let expiry = if n % 2 == 0 { Expiry::At(20) } else { Expiry::Never };
                hash.set(&rules, n.to_string().as_bytes(), b"v", expiry);
            }
            let mut seen = BTreeMap::new();
            for _ in 0..5_000 {
                let field = hash.random(20, || rng.next()).expect("there are some").field;
                *seen.entry(field.to_vec()).or_insert(0) += 1;
            }
            assert_eq!((seen.len(), hash.len(20), hash.expire(20, 1_000)), (50, 50, 50));
            assert!(seen.values().all(|&times| (50..200).contains(&times)), "{seen:?}");
        }
    }
}
