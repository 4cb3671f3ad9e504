//! A set: a sorted array while all members are numbers, a pack while it is small, a table when it is big.
//!
//! The forms and when one becomes another are those of Redis 7.4, because OBJECT ENCODING tells: a set never goes
//! back to a smaller form. Members that expire are known to the big form alone, so the first expiry makes a set big.
//!
//! Nothing in here knows the time. Members whose time has come are removed by the keyspace before a command sees the
//! set (`collection.rs`), so every member that is seen here is one.

use damselfly_structures::alloc::good_size;
use damselfly_structures::dense::{self, DenseSet};
use damselfly_structures::intset::{self, IntSet};
use damselfly_structures::moves::Mover;
use damselfly_structures::pack::{self, Item, Pack, format_int, parse_int};
use damselfly_structures::table::Cursor;

use super::PackLimits;
use crate::UnixMs;

/// See the module's head.
#[derive(Clone)]
pub enum Set {
    /// Numbers alone.
    Ints(IntSet),
    /// A few members of any kind, in the order in which they came.
    Small(Pack),
    /// The same with a member that is or was longer than the limits allow. Redis has a table from then on; here a table
    /// begins with 5 KiB, ten times what five members of a hundred bytes need.
    Long(Pack),
    /// Any number of members.
    Big(Box<DenseSet>),
}

/// When a set is small: `set-max-intset-entries`, `set-max-listpack-entries`, `set-max-listpack-value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetLimits {
    /// Most members of an array of numbers.
    pub ints_max: usize,
    /// When members are in a pack.
    pub pack: PackLimits,
}

impl Default for SetLimits {
    fn default() -> SetLimits {
        SetLimits { ints_max: 512, pack: PackLimits::default() }
    }
}

/// No array of numbers is longer, whatever the setting says: a bound of the structure, and far above what is sensible.
const INTS_MAX: usize = intset::LEN_MAX - 1;

/// Packed bytes of a member beyond its own, at most.
const PACKED_EXTRA: usize = 16;

/// Members and packed bytes up to which members that are long stay in a pack. Up to here Redis' table is smaller than
/// ours; from here on a walk takes more than twice as long as a lookup.
const LONG_MEMBERS_MAX: usize = 64;
const LONG_BYTES_MAX: usize = 16 * 1024;

/// Expired members are looked for in so many segments at a time.
const SWEEP: usize = 1024;

/// Time as the big form is told it: nothing that is in the set has expired.
const NOT_YET: UnixMs = 0;

impl Set {
    /// A set without members.
    pub const fn new() -> Set {
        Set::Ints(IntSet::new())
    }

    /// Gives allocations other addresses; see [`Mover`].
    pub(crate) fn relocate(&mut self, mover: &mut Mover<'_>) {
        match self {
            Set::Ints(ints) => ints.relocate(mover),
            Set::Small(pack) | Set::Long(pack) => pack.relocate(mover),
            Set::Big(table) => mover.boxed(table).relocate(mover),
        }
    }

    /// Number of members.
    #[inline]
    pub fn len(&self) -> usize {
        match self {
            Set::Ints(ints) => ints.len(),
            Set::Small(pack) | Set::Long(pack) => pack.len(),
            Set::Big(table) => table.len(),
        }
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether this is a member.
    #[inline]
    pub fn contains(&self, member: &[u8]) -> bool {
        match self {
            Set::Ints(ints) => parse_int(member).is_some_and(|number| ints.contains(number)),
            Set::Small(pack) | Set::Long(pack) => pack.find(member, 0).is_some(),
            Set::Big(table) => table.contains(member, NOT_YET),
        }
    }

    /// As [`Set::contains`], for a member of another set.
    #[inline]
    pub fn contains_item(&self, member: Item<'_>) -> bool {
        match (self, member) {
            (Set::Ints(ints), Item::Int(number)) => ints.contains(number),
            // What could be a number is one in every set.
            (Set::Ints(_), Item::Bytes(_)) => false,
            (Set::Small(pack) | Set::Long(pack), member) => pack.find(member, 0).is_some(),
            (Set::Big(table), member) => table.contains(member.as_bytes(&mut [0; 20]), NOT_YET),
        }
    }

    /// Takes the form that Redis chooses when `hint` members, `first` in front, are about to be added.
    #[inline]
    pub fn expect(&mut self, seed: u64, first: &[u8], hint: usize, limits: SetLimits) {
        match self {
            Set::Ints(ints) if hint > limits.ints_max || ints.is_empty() => {
                if ints.is_empty() {
                    if hint <= limits.ints_max && parse_int(first).is_some() {
                        return;
                    }
                    if hint <= limits.pack.entries_max {
                        *self = Set::Small(Pack::new());
                        return;
                    }
                }
                self.grow(seed);
            }
            Set::Small(_) | Set::Long(_) if hint > limits.pack.entries_max => {
                self.grow(seed);
            }
            _ => {}
        }
    }

    /// Adds a member; false if it was one already. `seed` is the keyspace's hash seed.
    #[inline]
    pub fn insert(&mut self, seed: u64, member: &[u8], limits: SetLimits) -> bool {
        match self {
            Set::Big(table) => table.insert(member, NOT_YET),
            _ => self.insert_small(seed, Item::of(member), limits),
        }
    }

    /// As [`Set::insert`], for a member of another set.
    #[inline]
    pub fn insert_item(&mut self, seed: u64, member: Item<'_>, limits: SetLimits) -> bool {
        match self {
            Set::Big(table) => table.insert(member.as_bytes(&mut [0; 20]), NOT_YET),
            _ => self.insert_small(seed, member, limits),
        }
    }

    fn insert_small(&mut self, seed: u64, member: Item<'_>, limits: SetLimits) -> bool {
        match (&mut *self, member) {
            (Set::Ints(ints), Item::Int(number)) => {
                let added = ints.insert(number);
                if added && ints.len() > limits.ints_max.min(INTS_MAX) {
                    self.grow(seed);
                }
                added
            }
            (Set::Ints(ints), Item::Bytes(_)) => {
                let fits = Pack::new().fits(ints.len(), PACKED_EXTRA * ints.len());
                if fits && ints.len() < limits.pack.entries_max {
                    let pack = ints.iter().collect();
                    let is_long = widest(ints) > limits.pack.len_max;
                    *self = if is_long { Set::Long(pack) } else { Set::Small(pack) };
                }
                self.push(seed, member, limits);
                true
            }
            (Set::Small(pack) | Set::Long(pack), member) => {
                if pack.find(member, 0).is_some() {
                    return false;
                }
                self.push(seed, member, limits);
                true
            }
            (Set::Big(table), member) => table.insert(member.as_bytes(&mut [0; 20]), NOT_YET),
        }
    }

    /// Adds what is no member to a set that is a pack, or is to be big.
    fn push(&mut self, seed: u64, member: Item<'_>, limits: SetLimits) {
        let mut buffer = [0; 20];
        let bytes = member.as_bytes(&mut buffer);
        let is_long = bytes.len() > limits.pack.len_max || matches!(self, Set::Long(_));
        let packed = bytes.len() + PACKED_EXTRA;
        match self {
            Set::Small(pack) | Set::Long(pack)
                if pack.len() < limits.pack.entries_max
                    && pack.fits(1, packed)
                    && (!is_long
                        || pack.len() < LONG_MEMBERS_MAX
                            && pack.packed_bytes() + packed <= LONG_BYTES_MAX) =>
            {
                pack.push_back(member);
                if is_long && let Set::Small(pack) = self {
                    *self = Set::Long(std::mem::take(pack));
                }
            }
            _ => {
                self.grow(seed).insert(bytes, NOT_YET);
            }
        }
    }

    /// Adds a member that expires; false if it was one already, which then expires at this time too unless `keep`.
    pub fn insert_until(&mut self, seed: u64, member: &[u8], expire_at: UnixMs, keep: bool) -> bool {
        let table = self.grow(seed);
        let added = table.insert_until(member, Some(expire_at), NOT_YET);
        if !added && !keep {
            table.set_expire(member, Some(expire_at), NOT_YET);
        }
        added
    }

    /// A member's expiry; the outer option says whether it is one.
    pub fn expire_at(&self, member: &[u8]) -> Option<Option<UnixMs>> {
        match self {
            Set::Big(table) => table.expire_at(member, NOT_YET),
            _ => self.contains(member).then_some(None),
        }
    }

    /// Gives a member another expiry, or none; false if it is no member.
    pub fn set_expire(&mut self, seed: u64, member: &[u8], expire_at: Option<UnixMs>) -> bool {
        match (&*self, expire_at) {
            (Set::Ints(_) | Set::Small(_) | Set::Long(_), None) => self.contains(member),
            (Set::Ints(_) | Set::Small(_) | Set::Long(_), Some(_)) if !self.contains(member) => false,
            _ => self.grow(seed).set_expire(member, expire_at, NOT_YET),
        }
    }

    /// The big form.
    fn grow(&mut self, seed: u64) -> &mut DenseSet {
        if !matches!(self, Set::Big(_)) {
            self.make_big(seed);
        }
        match self {
            Set::Big(table) => table,
            Set::Ints(_) | Set::Small(_) | Set::Long(_) => unreachable!("just made big"),
        }
    }

    #[cold]
    fn make_big(&mut self, seed: u64) {
        let mut table = DenseSet::new(seed);
        self.iter().for_each(|member| {
            table.insert(member.as_bytes(&mut [0; 20]), NOT_YET);
        });
        *self = Set::Big(Box::new(table));
    }

    /// Removes a member; false if it was none.
    #[inline]
    pub fn remove(&mut self, member: &[u8]) -> bool {
        match self {
            Set::Ints(ints) => parse_int(member).is_some_and(|number| ints.remove(number)),
            Set::Small(pack) | Set::Long(pack) => pack.find(member, 0).map(|at| pack.remove(at)).is_some(),
            Set::Big(table) => table.remove(member, NOT_YET),
        }
    }

    /// As [`Set::remove`], for a member of another set.
    pub fn remove_item(&mut self, member: Item<'_>) -> bool {
        self.remove(member.as_bytes(&mut [0; 20]))
    }

    /// All members: numbers in ascending order, others in none that means anything.
    #[inline]
    pub fn iter(&self) -> Members<'_> {
        match self {
            Set::Ints(ints) => Members::Ints(ints.iter()),
            Set::Small(pack) | Set::Long(pack) => Members::Small(pack.iter()),
            Set::Big(table) => Members::Big(table.iter(NOT_YET)),
        }
    }

    /// Visits members, with their expiry.
    pub fn for_each(&self, mut visit: impl FnMut(Item<'_>, Option<UnixMs>)) {
        match self {
            Set::Big(table) => {
                table.iter(NOT_YET).for_each(|member| visit(member.member, member.expire_at));
            }
            _ => self.iter().for_each(|member| visit(member, None)),
        }
    }

    /// Visits members from a cursor on, about `count` of them; the next cursor, 0 at the end. A walk from 0 to 0
    /// shows every member that was there all the time: a small set in one step, whatever the cursor, and a big one
    /// in the order of its members' hashes. Any number is a cursor.
    pub fn scan(&self, cursor: u64, count: usize, mut visit: impl FnMut(Item<'_>)) -> u64 {
        let Set::Big(table) = self else {
            self.iter().for_each(visit);
            return 0;
        };
        // A table that lost most of its members has empty stretches; a step ends in them as well.
        let buckets_max = count.saturating_mul(10);
        let (mut visited, mut buckets, mut cursor) = (0, 0, Cursor(cursor));
        loop {
            cursor = table.scan(cursor, NOT_YET, |member| {
                visited += 1;
                visit(member.member);
            });
            buckets += 1;
            if cursor.0 == 0 || visited >= count || buckets >= buckets_max {
                return cursor.0;
            }
        }
    }

    /// A random member, all being equally likely. `random` gives fresh numbers.
    #[inline]
    pub fn random(&self, mut random: impl FnMut() -> u64) -> Option<Item<'_>> {
        match self {
            Set::Ints(ints) => ints.random(random()).map(Item::Int),
            Set::Small(pack) | Set::Long(pack) if pack.is_empty() => None,
            Set::Small(pack) | Set::Long(pack) => pack.get(below(random(), pack.len()) as i64),
            Set::Big(table) => table.random(NOT_YET, random).map(|member| member.member),
        }
    }

    /// Removes a random member, which is shown to `take`.
    #[inline]
    pub fn pop<R>(&mut self, mut random: impl FnMut() -> u64, take: impl FnOnce(Item<'_>) -> R) -> Option<R> {
        match self {
            Set::Ints(ints) => {
                let number = ints.random(random())?;
                ints.remove(number);
                Some(take(Item::Int(number)))
            }
            Set::Small(pack) | Set::Long(pack) => {
                if pack.is_empty() {
                    return None;
                }
                let at = pack.seek(below(random(), pack.len()) as i64).expect("below its length");
                let taken = take(pack.item(at));
                pack.remove(at);
                Some(taken)
            }
            Set::Big(table) => table.pop(NOT_YET, random, |member| take(member.member)),
        }
    }

    /// Removes up to `count` random members, which are shown to `take`; how many there were.
    pub fn pop_many(
        &mut self,
        count: usize,
        mut random: impl FnMut() -> u64,
        mut take: impl FnMut(Item<'_>),
    ) -> usize {
        if let Set::Big(table) = self {
            return table.pop_many(count, NOT_YET, random, |member| take(member.member));
        }
        let mut popped = 0;
        while popped < count && self.pop(&mut random, &mut take).is_some() {
            popped += 1;
        }
        popped
    }

    /// A time before which no member expires; None if none ever does.
    #[inline]
    pub fn next_expiry(&self) -> Option<UnixMs> {
        match self {
            Set::Big(table) => table.next_expiry(),
            Set::Ints(_) | Set::Small(_) | Set::Long(_) => None,
        }
    }

    /// Members that expire some time.
    pub fn expiring(&self) -> usize {
        match self {
            Set::Big(table) => table.expiring(),
            Set::Ints(_) | Set::Small(_) | Set::Long(_) => 0,
        }
    }

    /// Removes members that have expired by `now`, about `limit` at most; how many.
    pub fn expire(&mut self, now: UnixMs, limit: usize) -> usize {
        match self {
            Set::Big(table) => table.expire(now, limit, |_| ()),
            Set::Ints(_) | Set::Small(_) | Set::Long(_) => 0,
        }
    }

    /// Whether any member has not expired by `now`.
    pub fn has_live(&self, now: UnixMs) -> bool {
        match self {
            Set::Big(table) if table.next_expiry().is_some_and(|at| at <= now) => {
                table.iter(now).next().is_some()
            }
            _ => !self.is_empty(),
        }
    }

    /// Removes all members that have expired by `now`; how many.
    pub fn expire_members(&mut self, now: UnixMs) -> usize {
        let Set::Big(table) = self else { return 0 };
        let mut removed = 0;
        while table.next_expiry().is_some_and(|at| at <= now) {
            removed += table.expire(now, SWEEP, |_| ());
        }
        removed
    }

    /// Bytes held from the allocator.
    #[inline]
    pub fn heap_bytes(&self) -> usize {
        match self {
            Set::Ints(ints) => ints.heap_bytes(),
            Set::Small(pack) | Set::Long(pack) => pack.heap_bytes(),
            Set::Big(table) => good_size(size_of::<DenseSet>()) + table.heap_bytes(),
        }
    }

    /// Frees up to `nodes` nodes; true when nothing is left.
    pub fn free_some(&mut self, nodes: usize) -> bool {
        match self {
            Set::Ints(_) | Set::Small(_) | Set::Long(_) => true,
            Set::Big(table) => table.free_some(nodes),
        }
    }

    /// Every invariant; for tests.
    pub fn check(&self) {
        match self {
            Set::Ints(ints) => ints.check(),
            Set::Small(pack) | Set::Long(pack) => pack.check(),
            Set::Big(table) => table.check(),
        }
    }
}

impl Default for Set {
    fn default() -> Set {
        Set::new()
    }
}

/// Digits of the longest number.
fn widest(ints: &IntSet) -> usize {
    let digits = |index| ints.get(index).map_or(0, |number| format_int(number, &mut [0; 20]).len());
    digits(0).max(digits(ints.len().saturating_sub(1)))
}

/// A random number below `bound` out of 64 random bits.
#[inline]
fn below(random: u64, bound: usize) -> usize {
    ((u128::from(random) * bound as u128) >> 64) as usize
}

/// See [`Set::iter`].
pub enum Members<'a> {
    /// Of an array of numbers.
    Ints(intset::Iter<'a>),
    /// Of a pack.
    Small(pack::Iter<'a>),
    /// Of a table.
    Big(dense::Members<'a>),
}

impl<'a> Iterator for Members<'a> {
    type Item = Item<'a>;

    #[inline]
    fn next(&mut self) -> Option<Item<'a>> {
        match self {
            Members::Ints(ints) => ints.next().map(Item::Int),
            Members::Small(items) => items.next(),
            Members::Big(members) => members.next().map(|member| member.member),
        }
    }

    fn fold<B, F: FnMut(B, Item<'a>) -> B>(self, init: B, mut visit: F) -> B {
        match self {
            Members::Ints(ints) => ints.fold(init, |all, number| visit(all, Item::Int(number))),
            Members::Small(items) => items.fold(init, visit),
            Members::Big(members) => members.fold(init, |all, member| visit(all, member.member)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const LIMITS: SetLimits = SetLimits { ints_max: 6, pack: PackLimits { entries_max: 4, len_max: 8 } };
    const SEED: u64 = 7;

    /// A small generator with a fixed seed: a failure repeats.
    struct Rng(u64);

    impl Rng {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }
    }

    fn of(members: &[&str]) -> Set {
        let mut set = Set::new();
        for member in members {
            set.insert(SEED, member.as_bytes(), LIMITS);
        }
        set.check();
        set
    }

    fn form(set: &Set) -> &'static str {
        match set {
            Set::Ints(_) => "ints",
            Set::Small(_) => "small",
            Set::Long(_) => "long",
            Set::Big(_) => "big",
        }
    }

    /// Each limit is the last size that is allowed, and a member that is there already changes no form.
    #[test]
    fn forms() {
        assert_eq!(form(&of(&["1", "2", "3", "4", "5", "6", "6"])), "ints");
        assert_eq!(form(&of(&["1", "2", "3", "4", "5", "6", "7"])), "big");
        assert_eq!(form(&of(&["1", "2", "3", "x", "x", "3"])), "small");
        assert_eq!(form(&of(&["1", "2", "3", "4", "x"])), "big");
        assert_eq!(form(&of(&["01", "a", "b", "c"])), "small");
        assert_eq!(form(&of(&["01", "a", "b", "c", "7"])), "big");
        assert_eq!(form(&of(&["12345678"])), "ints");
        assert_eq!(form(&of(&["a2345678"])), "small");
        assert_eq!(form(&of(&["a23456789", "a", "b", "c", "c"])), "long");
        assert_eq!(form(&of(&["a", "b", "c", "a23456789"])), "long");
        assert_eq!(form(&of(&["a23456789", "a", "b", "c", "d"])), "big");
        assert_eq!(form(&of(&["123456789", "x"])), "long", "a number is long for the pack");
        assert_eq!(form(&of(&["1", "2", "a23456789"])), "long");
        let room = "x".repeat(LONG_BYTES_MAX - 100);
        assert_eq!(form(&of(&[&room, "a", "b"])), "long");
        assert_eq!(form(&of(&[&room, &"x".repeat(100)])), "big", "too many bytes for the pack");
        let mut once = of(&["a23456789", "a"]);
        assert!(once.remove(b"a23456789"));
        assert_eq!((form(&once), once.len()), ("long", 1), "what was long stays so");
        let expected = |first: &str, hint| {
            let mut set = Set::new();
            set.expect(SEED, first.as_bytes(), hint, LIMITS);
            form(&set)
        };
        assert_eq!(
            [expected("1", 6), expected("1", 7), expected("x", 4), expected("x", 5)],
            ["ints", "big", "small", "big"]
        );
        let mut known = of(&["1", "2"]);
        known.expect(SEED, b"1", 6, LIMITS);
        assert_eq!(form(&known), "ints");
        known.expect(SEED, b"1", 7, LIMITS);
        assert_eq!((form(&known), known.len()), ("big", 2));
    }

    /// Random operations in every form against a BTreeSet: members, order of numbers, pops, walks, clones.
    #[test]
    fn model() {
        for (seed, names) in [(1, 5), (2, 9), (3, 60), (4, 3000)] {
            let mut rng = Rng(seed);
            let (mut set, mut model) = (Set::new(), BTreeSet::new());
            for step in 0..8000 {
                let number = rng.next() % names;
                let name = match rng.next() % 3 {
                    0 => number.to_string(),
                    1 if step > 3000 => format!("{number}x{}", "y".repeat(number as usize % 12)),
                    _ => (number as i64 - 3).to_string(),
                };
                let name = name.as_bytes();
                assert_eq!(set.contains(name), model.contains(name));
                assert_eq!(set.contains_item(Item::of(name)), model.contains(name));
                match rng.next() % 16 {
                    0..7 => assert_eq!(set.insert(SEED, name, LIMITS), model.insert(name.to_vec())),
                    7..13 => assert_eq!(set.remove(name), model.remove(name)),
                    13 => {
                        let popped = set.pop(|| rng.next(), |item| item.to_vec());
                        assert_eq!(popped.is_some(), !model.is_empty());
                        assert!(popped.is_none_or(|member| model.remove(&member)));
                    }
                    14 => {
                        let member = set.random(|| rng.next()).map(|item| item.to_vec());
                        assert_eq!(member.is_some(), !model.is_empty());
                        assert!(member.is_none_or(|member| model.contains(&member)));
                    }
                    _ if step % 50 == 0 => {
                        let count = (rng.next() % 20) as usize;
                        let want = count.min(model.len());
                        let popped =
                            set.pop_many(count, || rng.next(), |item| assert!(model.remove(&item.to_vec())));
                        assert_eq!(popped, want);
                    }
                    _ => {}
                }
                assert_eq!(set.len(), model.len());
                if step % 100 == 0 {
                    set.check();
                    let members: BTreeSet<Vec<u8>> = set.clone().iter().map(|item| item.to_vec()).collect();
                    assert_eq!(members, model);
                    let (mut cursor, mut seen) = (0, BTreeSet::new());
                    loop {
                        cursor = set.scan(cursor, 3, |item| {
                            seen.insert(item.to_vec());
                        });
                        if cursor == 0 {
                            break;
                        }
                    }
                    assert_eq!(seen, model);
                }
                if model.is_empty() {
                    set = Set::new();
                }
            }
        }
    }

    /// Members expire in every form, and a set that never had an expiry keeps its form.
    #[test]
    fn expiry() {
        let mut set = of(&["1", "2"]);
        assert!(set.set_expire(SEED, b"1", None) && !set.set_expire(SEED, b"7", Some(9)));
        assert_eq!((form(&set), set.next_expiry()), ("ints", None));
        assert_eq!([set.expire_at(b"1"), set.expire_at(b"7")], [Some(None), None]);
        assert!(set.insert_until(SEED, b"x", 50, false));
        assert!(!set.insert_until(SEED, b"x", 70, true));
        assert!(!set.insert_until(SEED, b"1", 60, false));
        assert_eq!([set.expire_at(b"x"), set.expire_at(b"1")], [Some(Some(50)), Some(Some(60))]);
        assert_eq!((form(&set), set.expiring(), set.len()), ("big", 2, 3));
        assert_eq!(set.expire_members(49), 0);
        assert_eq!(set.expire_members(60), 2);
        assert_eq!((set.len(), set.next_expiry()), (1, None));
        assert!(set.contains(b"2"));
    }

    /// A clone shares a big set's nodes: it costs no time to make or drop, and neither sees the other's changes.
    #[test]
    fn clones_are_independent() {
        let mut set = Set::new();
        for n in 0..5000 {
            set.insert(SEED, format!("member {n}").as_bytes(), LIMITS);
        }
        let mut copy = set.clone();
        for n in 0..100 {
            assert!(copy.remove(format!("member {n}").as_bytes()));
        }
        assert_eq!((set.len(), copy.len()), (5000, 4900));
        drop(set);
        copy.check();
        while !copy.free_some(1) {}
    }
}
