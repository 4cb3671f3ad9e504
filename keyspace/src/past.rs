//! Looking back: what keys held at an instant, for a command that is done in steps.
//!
//! SORT reads keys that its elements name, a million of them perhaps, and must see all as they were at one instant,
//! while others go on writing. To lock so many takes as long as to read them, so nothing is locked: from the instant on,
//! whoever is about to change one of these keys for the first time leaves what it held ([`Db::before_change`], where a
//! cut hooks in too), and so does who makes one, namely that it was not there. What nobody left is as it was.
//!
//! ```text
//! begin_past ──> a write to a key that is concerned: what it held is kept, once     ──> end_past
//!                look_back: what was kept of the key; else what it holds
//! ```
//!
//! What is kept belongs to the database, not to its number: it goes along when databases change places, and one that is
//! flushed stays until nobody looks back into it. Kept are at most as many values as keys are changed meanwhile; of a
//! collection it is a clone, which shares its nodes.

use std::collections::BTreeMap;

use damselfly_structures::keytable::{KeyTable, Value};
use damselfly_structures::table::Loc;

use crate::{Db, KEYS_AHEAD, Keyspace, Object, UnixMs};

/// Names an instant on all shards.
pub type PastId = u64;

/// Which keys are concerned.
pub type Concerned = Box<dyn Fn(&[u8]) -> bool + Send>;

/// What keys of one database held at an instant.
pub(crate) struct Past {
    id: PastId,
    /// The number that the database had, for what is counted.
    db: usize,
    now: UnixMs,
    concerned: Concerned,
    /// Keys that were changed since, with what they held.
    kept: BTreeMap<Box<[u8]>, Option<Was>>,
}

struct Was {
    value: WasValue,
    expire_at: Option<UnixMs>,
}

enum WasValue {
    Int(i64),
    Str(Box<[u8]>),
    Object(Object),
}

impl Was {
    fn at(table: &KeyTable<Object>, loc: Loc) -> Was {
        let value = match table.value(loc) {
            Value::Int(number) => WasValue::Int(number),
            Value::Str(bytes) => WasValue::Str(bytes.into()),
            Value::Object(object) => WasValue::Object(object.clone()),
        };
        Was { value, expire_at: table.expire_at(loc) }
    }

    fn value(&self) -> Value<'_, Object> {
        match &self.value {
            WasValue::Int(number) => Value::Int(*number),
            WasValue::Str(bytes) => Value::Str(bytes),
            WasValue::Object(object) => Value::Object(object),
        }
    }
}

impl Past {
    /// A key is about to change, or to come into being where there is no location.
    fn keep(&mut self, table: &KeyTable<Object>, key: &[u8], loc: Option<Loc>) {
        if (self.concerned)(key) && !self.kept.contains_key(key) {
            self.kept.insert(key.into(), loc.map(|loc| Was::at(table, loc)));
        }
    }

    /// What a key held, and where that is if it is there still.
    fn look<'a>(
        &'a self,
        table: &'a KeyTable<Object>,
        key: &[u8],
    ) -> Option<(Value<'a, Object>, Option<Loc>)> {
        let was_there = |expire_at: Option<UnixMs>| expire_at.is_none_or(|at| at > self.now);
        match self.kept.get(key) {
            Some(was) => {
                let was = was.as_ref().filter(|was| was_there(was.expire_at))?;
                Some((was.value(), None))
            }
            None => {
                let loc = table.find(table.hash(key), key).filter(|loc| was_there(table.expire_at(*loc)))?;
                Some((table.value(loc), Some(loc)))
            }
        }
    }
}

/// Everybody who looks back into one database.
#[derive(Default)]
pub(crate) struct Pasts(Vec<Past>);

impl Pasts {
    /// What a key holds is about to change.
    pub fn keep(&mut self, table: &KeyTable<Object>, loc: Loc) {
        self.0.iter_mut().for_each(|past| past.keep(table, table.key(loc), Some(loc)));
    }

    /// A key is about to come into being.
    pub fn keep_missing(&mut self, table: &KeyTable<Object>, key: &[u8]) {
        self.0.iter_mut().for_each(|past| past.keep(table, key, None));
    }
}

impl Keyspace {
    /// Begins to keep what the keys of a database that are concerned hold now. The number is the caller's: the same on
    /// all shards.
    pub fn begin_past(&mut self, id: PastId, db: usize, concerned: Concerned) {
        let past = Past { id, db, now: self.now, concerned, kept: BTreeMap::new() };
        self.db_mut(db).pasts.get_or_insert_default().0.push(past);
    }

    /// Nobody looks back there any more.
    pub fn end_past(&mut self, id: PastId) {
        let Some((db, at)) = self.find_past(id) else { return };
        let Some(pasts) = &mut db.pasts else { return };
        let ended = pasts.0.swap_remove(at);
        if pasts.0.is_empty() {
            db.pasts = None;
        }
        for was in ended.kept.into_values().flatten() {
            if let WasValue::Object(object) = was.value {
                self.discard(object);
            }
        }
        let unseen: Vec<Box<Db>> = self.looked_back_into.extract_if(.., |db| db.pasts.is_none()).collect();
        unseen.into_iter().for_each(|db| self.let_go(db));
    }

    /// The database that somebody looks back into, and the number of the past among its own.
    fn find_past(&mut self, id: PastId) -> Option<(&mut Db, usize)> {
        let dbs = self.dbs.iter_mut().flatten();
        dbs.chain(self.cut.leaving_mut()).chain(&mut self.looked_back_into).find_map(|db| {
            let at = db.pasts.as_ref()?.0.iter().position(|past| past.id == id)?;
            Some((&mut **db, at))
        })
    }

    /// Shows what each of some keys held, None if it was not there, and what time it was, until `show` answers false.
    /// `is_read`: it is reading, so keys are counted and touched.
    pub fn look_back<'k>(
        &mut self,
        id: PastId,
        is_read: bool,
        keys: impl Iterator<Item = &'k [u8]> + Clone,
        mut show: impl FnMut(Option<Value<'_, Object>>, UnixMs) -> bool,
    ) {
        let Some((db, at)) = self.find_past(id) else {
            return keys.map(|_| show(None, 0)).take_while(|goes_on| *goes_on).for_each(drop);
        };
        let Db { table, pasts, .. } = db;
        let past = pasts.as_ref().map(|pasts| &pasts.0[at]).expect("just found");
        let (number, mut hits, mut read, mut missed) = (past.db, 0, Vec::new(), Vec::new());
        let mut ahead = keys.clone();
        for (at, key) in keys.enumerate() {
            if at.is_multiple_of(KEYS_AHEAD) {
                let hashes: Vec<u64> = ahead.by_ref().take(KEYS_AHEAD).map(|key| table.hash(key)).collect();
                hashes.iter().for_each(|hash| table.prefetch(*hash));
                hashes.iter().for_each(|hash| table.prefetch_entry(*hash));
            }
            let goes_on = match past.look(table, key) {
                Some((value, loc)) => {
                    hits += 1;
                    read.extend(loc);
                    show(Some(value), past.now)
                }
                None => {
                    missed.push(key);
                    show(None, past.now)
                }
            };
            if !goes_on {
                break;
            }
        }
        if !is_read {
            return;
        }
        read.into_iter().for_each(|loc| db.touch(loc));
        let stats = &mut self.db_stats[number];
        (stats.hits, stats.misses) = (stats.hits + hits, stats.misses + missed.len() as u64);
        if self.notes_misses {
            missed.into_iter().for_each(|key| self.note_miss(number, key));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::{Class, Expiry, Item, Keyspace, List, Options, Value, next_random};

    const PAST: u64 = 7;

    fn keyspace() -> Keyspace {
        let mut ks = Keyspace::new(&Options { databases: 2, hash_seed: 3, random_seed: 5 });
        ks.now = 100;
        ks
    }

    fn text(value: Option<Value<'_, crate::Object>>) -> Option<String> {
        value.map(|value| match value {
            Value::Int(number) => number.to_string(),
            Value::Str(bytes) => String::from_utf8(bytes.to_vec()).expect("text"),
            Value::Object(crate::Object::List(list)) => {
                let item = |item: Item<'_>| String::from_utf8(item.to_vec()).expect("text");
                list.iter().map(item).collect::<Vec<_>>().join(",")
            }
            Value::Object(_) => panic!("only lists here"),
        })
    }

    fn look(ks: &mut Keyspace, keys: &[String]) -> Vec<Option<String>> {
        let mut found = Vec::new();
        ks.look_back(PAST, true, keys.iter().map(String::as_bytes), |value, _| {
            found.push(text(value));
            true
        });
        found
    }

    /// Whatever is done to keys afterwards, what was there at the instant is found; two who look back from different
    /// instants each find theirs.
    #[test]
    fn what_was_is_found() {
        let mut ks = keyspace();
        let mut random = 9;
        let names: Vec<String> = (0..400).map(|at| format!("key:{at}")).collect();
        let change = |ks: &mut Keyspace, random: &mut u64| {
            let key = names[(next_random(random) % 400) as usize].as_bytes();
            let number = next_random(random) % 1000;
            match next_random(random) % 8 {
                0 => ks.set_string(0, key, number.to_string().as_bytes(), Expiry::Never),
                1 => ks.set_string(0, key, format!("text {number}").as_bytes(), Expiry::At(150 + number)),
                2 => drop(ks.remove(0, key)),
                3 => drop(ks.edit_or_new(0, key, |list: &mut List| list.push_back(b"more"))),
                4 => match ks.find(0, key) {
                    Some(loc) => ks.table_mut(0).set_expire(loc, Some(120)),
                    None => ks.set_edited(0, key, b"edited".to_vec(), Expiry::Never),
                },
                5 => {
                    let value = ks.take(0, key);
                    ks.import(0, names[(number % 400) as usize].as_bytes(), value);
                }
                6 => match ks.find(0, key) {
                    Some(loc) if matches!(ks.value(0, loc), Value::Str(_)) => {
                        ks.table_mut(0).edit_string(loc, |text| text.extend_from_slice(b"+"));
                    }
                    _ => {}
                },
                _ => ks.changed(0, key, Class::Generic, "nothing"),
            }
        };
        let state = |ks: &mut Keyspace| -> BTreeMap<String, String> {
            let found = |key: &String| {
                let loc = ks.find(0, key.as_bytes())?;
                text(Some(ks.value(0, loc))).map(|text| (key.clone(), text))
            };
            names.iter().filter_map(found).collect()
        };
        for round in 0..20 {
            (0..300).for_each(|_| change(&mut ks, &mut random));
            let first = state(&mut ks);
            ks.begin_past(PAST, 0, Box::new(|key| key.starts_with(b"key:")));
            (0..300).for_each(|_| change(&mut ks, &mut random));
            let second = state(&mut ks);
            ks.begin_past(PAST + 1, 0, Box::new(|key| key.starts_with(b"key:")));
            for step in 0..4 {
                (0..200).for_each(|_| change(&mut ks, &mut random));
                ks.now += 20;
                for (id, then) in [(PAST, &first), (PAST + 1, &second)] {
                    let mut found = Vec::new();
                    ks.look_back(id, true, names.iter().map(String::as_bytes), |value, _| {
                        found.push(text(value));
                        true
                    });
                    let wanted: Vec<_> = names.iter().map(|name| then.get(name).cloned()).collect();
                    assert_eq!(found, wanted, "round {round}, step {step}, {id}");
                }
            }
            [PAST, PAST + 1].into_iter().for_each(|id| ks.end_past(id));
            assert_eq!(look(&mut ks, &names[..1]), [None], "nobody looks back any more");
            ks.check();
        }
    }

    /// Databases that change places or are flushed, even while a snapshot of them is made, show what they held.
    #[test]
    fn whole_databases() {
        for cuts in [false, true] {
            let mut ks = keyspace();
            let names: Vec<String> = (0..3000).map(|at| format!("key:{at}")).collect();
            names.iter().for_each(|name| ks.set_string(0, name.as_bytes(), b"old", Expiry::Never));
            ks.begin_past(PAST, 0, Box::new(|_| true));
            ks.swap(0, 1);
            if cuts {
                ks.begin_cut();
            }
            ks.set_string(1, b"key:5", b"new", Expiry::Never);
            ks.flush(1);
            ks.set_string(1, b"key:6", b"new", Expiry::Never);
            let all_old =
                |ks: &mut Keyspace| look(ks, &names).into_iter().all(|found| found.as_deref() == Some("old"));
            assert!(all_old(&mut ks) && (cuts || !ks.has_doomed()));
            while ks.cut_some() {}
            assert!(all_old(&mut ks));
            ks.end_past(PAST);
            assert!(ks.has_doomed(), "nobody holds the database any more");
            if cuts {
                while ks.take_saved(true).is_some() {}
                ks.end_cut();
            }
            assert_eq!(look(&mut ks, &names[..1]), [None]);
        }
    }

    /// Keys that are not concerned cost nothing; each that is, is kept once.
    #[test]
    fn only_what_is_concerned_is_kept() {
        let mut ks = keyspace();
        ks.begin_past(PAST, 0, Box::new(|key| key.starts_with(b"w_")));
        for round in 0..3 {
            for key in ["w_1", "w_2", "other"] {
                ks.set_string(0, key.as_bytes(), format!("{round}").as_bytes(), Expiry::Never);
            }
        }
        let kept = |ks: &mut Keyspace| {
            ks.find_past(PAST).map(|(db, at)| db.pasts.as_ref().expect("found").0[at].kept.len())
        };
        assert_eq!(kept(&mut ks), Some(2));
        assert_eq!((ks.db_stats[0].hits, ks.db_stats[0].misses), (0, 0));
        look(&mut ks, &["w_1".to_owned(), "other".to_owned()]);
        assert_eq!((ks.db_stats[0].hits, ks.db_stats[0].misses), (1, 1));
    }
}
