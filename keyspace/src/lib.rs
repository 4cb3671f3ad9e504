//! The data of one shard: databases, values, expiry, eviction.
//!
//! A [`Keyspace`] is plain data reached through `&mut`: it knows no sockets, no threads, no clock and no randomness
//! of its own. Time is the field [`Keyspace::now`], set by the owner once per batch, so that one command sees one
//! instant; the seeds come with [`Options`].
//!
//! What happens to keys is announced in one place, [`Keyspace::changed`]: WATCH, keyspace notifications, client
//! tracking and replication are all fed from there, and nothing is recorded while nobody listens.
//!
//! Read next: `db.rs` (one database), `value.rs` (what a key can hold), `expiry.rs` (how keys go in time),
//! `eviction.rs` (how they go for want of room).

mod ahead;
mod collection;
mod cut;
mod db;
mod eviction;
mod expiry;
mod ghosts;
mod past;
mod portable;
mod rows;
mod tidy;
mod value;
pub mod values;

pub use ahead::{Ahead, KEYS_AHEAD};
pub use collection::{Collection, Edit, WrongType};
pub use cut::Saved;
pub use damselfly_structures::hash::hash;
pub use damselfly_structures::keytable::{Expiry, Removed, Value};
pub use damselfly_structures::list::{List, Removal, Search};
pub use damselfly_structures::moves::{Heap, Mover};
pub use damselfly_structures::pack::Item;
pub use damselfly_structures::stream;
pub use damselfly_structures::table::{Cursor, Loc};
pub use db::Db;
pub use eviction::{Evicted, Eviction};
pub use past::{Concerned, PastId};
pub use portable::Portable;
pub use rows::{Attributes, Content, Rows};
pub use tidy::Tidied;
pub use value::{Object, Type};

use std::collections::VecDeque;
use std::sync::Arc;

use db::Due;

/// Milliseconds since 1970.
pub type UnixMs = u64;

/// What a keyspace is made with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Number of databases.
    pub databases: usize,
    /// Secret of the hash function, the same in all shards (routing and tables share one hash).
    pub hash_seed: u64,
    /// Start of the random sequence behind RANDOMKEY, SPOP and their kin.
    pub random_seed: u64,
}

/// Classes of keyspace events, as in `notify-keyspace-events`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Class {
    /// In no class, so that no notification tells of it: what a consumer group has read and acknowledged.
    Quiet = 0,
    /// `g`: DEL, EXPIRE, RENAME...
    Generic = 1,
    /// `$`
    String = 1 << 1,
    /// `l`
    List = 1 << 2,
    /// `s`
    Set = 1 << 3,
    /// `h`
    Hash = 1 << 4,
    /// `z`
    ZSet = 1 << 5,
    /// `x`
    Expired = 1 << 6,
    /// `e`
    Evicted = 1 << 7,
    /// `t`
    Stream = 1 << 8,
    /// `m`
    KeyMiss = 1 << 9,
    /// `d`
    Module = 1 << 10,
    /// `n`
    New = 1 << 11,
    /// `t`, too: what became of the groups and the counters of a stream, whose entries are what they were.
    Group = 1 << 12,
}

impl Class {
    /// Whether the key is not what it was before.
    pub fn is_change(self) -> bool {
        !matches!(self, Class::KeyMiss | Class::New)
    }

    /// Whether those who watch the key or have cached it are told. Not of what consumer groups do, as in Redis: a
    /// transaction that watches a stream would not get through as long as somebody reads it for a group.
    pub fn is_news(self) -> bool {
        self.is_change() && !matches!(self, Class::Quiet | Class::Group)
    }
}

/// Something that happened to a key, for those who listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Database of the key.
    pub db: usize,
    /// Class, for the notification filter.
    pub class: Class,
    /// Name as in Redis' notifications: `set`, `del`, `expired`...
    pub name: &'static str,
    /// The key.
    pub key: Box<[u8]>,
}

/// Counters that only ever grow, until CONFIG RESETSTAT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Changes of keys.
    pub mutations: u64,
    /// Keys that the background walk found to have expired.
    pub expired_in_background: u64,
    /// Elements of collections that went because their own time had come.
    pub expired_elements: u64,
    /// Keys of flushed databases, and big collections: what is freed in steps.
    pub freed_in_steps: u64,
}

/// The same of one database: of its number, whichever data it has, so a flush or a swap leaves them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DbStats {
    /// Reads that found their key.
    pub hits: u64,
    /// Reads that did not.
    pub misses: u64,
    /// Keys removed because their time had come.
    pub expired: u64,
    /// Keys removed to make room.
    pub evicted: u64,
}

impl DbStats {
    /// Adds what was counted elsewhere.
    pub fn add(&mut self, other: &DbStats) {
        // All fields are named, so that a new one cannot be forgotten here.
        let DbStats { hits, misses, expired, evicted } = other;
        self.hits += hits;
        self.misses += misses;
        self.expired += expired;
        self.evicted += evicted;
    }
}

/// See the crate's head.
pub struct Keyspace {
    dbs: Vec<Option<Box<Db>>>,
    /// The present, set by the owner before each batch.
    pub now: UnixMs,
    /// Counters.
    pub stats: Stats,
    /// Counters by database.
    pub db_stats: Box<[DbStats]>,
    /// Whether expired keys may be removed (not on replicas, and not while DEBUG SET-ACTIVE-EXPIRE 0 concerns the
    /// background walk; see `expiry.rs`).
    pub active_expire: bool,
    /// Whether reading a key leaves its heat as it is, as a client may ask that looks at keys without wanting them kept.
    pub leaves_heat: bool,
    /// Nothing is to change by itself: a command that only reads leaves keys whose time has come where they are, though
    /// it does not see them. See [`Keyspace::begin_command`].
    pub is_paused: bool,
    /// What that means for the command that runs now.
    keeps_expired: bool,
    /// Whether anybody listens to events; while false, [`Keyspace::changed`] only counts.
    pub observed: bool,
    /// Whether reads that find nothing are events too ([`Class::KeyMiss`]).
    pub notes_misses: bool,
    /// Whether keys that come into being are events of their own ([`Class::New`]).
    pub notes_new: bool,
    events: Vec<Event>,
    doomed: VecDeque<Doomed>,
    random: u64,
    hash_seed: u64,
    expiry: expiry::Walk,
    cut: cut::Progress,
    /// Databases that were flushed while somebody looks back into them.
    #[expect(clippy::vec_box, reason = "a database stays in the box in which it lay")]
    looked_back_into: Vec<Box<Db>>,
    epochs: eviction::Epochs,
    tidying: tidy::Walk,
}

/// Something big that is freed in steps.
enum Doomed {
    Db(Box<Db>),
    Object(Object),
}

impl Keyspace {
    /// A keyspace without keys. Databases are made when their first key comes.
    pub fn new(options: &Options) -> Keyspace {
        Keyspace {
            dbs: (0..options.databases).map(|_| None).collect(),
            now: 0,
            stats: Stats::default(),
            db_stats: vec![DbStats::default(); options.databases].into(),
            active_expire: true,
            is_paused: false,
            keeps_expired: false,
            leaves_heat: false,
            observed: false,
            notes_misses: false,
            notes_new: false,
            events: Vec::new(),
            doomed: VecDeque::new(),
            // Zero is the one state that xorshift never leaves.
            random: options.random_seed | 1,
            hash_seed: options.hash_seed,
            expiry: expiry::Walk::default(),
            cut: cut::Progress::default(),
            looked_back_into: Vec::new(),
            epochs: eviction::Epochs::default(),
            tidying: tidy::Walk::default(),
        }
    }

    /// Number of databases.
    pub fn databases(&self) -> usize {
        self.dbs.len()
    }

    /// The secret of the hash function, for collections that hash their members.
    pub fn hash_seed(&self) -> u64 {
        self.hash_seed
    }

    /// Hash of a key: the same in every database and shard.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        damselfly_structures::hash::hash(key, self.hash_seed)
    }

    /// A database if it has ever had a key.
    #[inline]
    pub fn db(&self, db: usize) -> Option<&Db> {
        self.dbs[db].as_deref()
    }

    /// A database, made if needed.
    #[inline]
    pub fn db_mut(&mut self, db: usize) -> &mut Db {
        let (seed, epochs) = (self.hash_seed, &self.epochs);
        self.dbs[db].get_or_insert_with(|| {
            let mut db = Box::new(Db::new(seed));
            db.set_epoch(epochs.now);
            if epochs.is_selective {
                db.set_selective();
            }
            db
        })
    }

    /// Keys in a database, including those that have expired but were not yet removed (as Redis' DBSIZE).
    pub fn len(&self, db: usize) -> usize {
        self.db(db).map_or(0, Db::len)
    }

    /// Whether a database has no key.
    pub fn is_empty(&self, db: usize) -> bool {
        self.len(db) == 0
    }

    /// Whether no database has keys.
    pub fn is_empty_everywhere(&self) -> bool {
        self.dbs.iter().flatten().all(|db| db.is_empty())
    }

    /// Bytes that all databases hold.
    pub fn heap_bytes(&self) -> usize {
        self.dbs.iter().flatten().map(|db| db.heap_bytes()).sum()
    }

    /// Of these, bytes that removed entries left behind in tables, to be won back by tidying.
    pub fn dead_bytes(&self) -> usize {
        self.dbs.iter().flatten().map(|db| db.dead_bytes()).sum()
    }

    /// Of [`Keyspace::heap_bytes`], those of tables, with short strings in them.
    pub fn table_bytes(&self) -> usize {
        self.dbs.iter().flatten().map(|db| db.table_bytes()).sum()
    }

    /// A random number; not for secrets.
    #[inline]
    pub fn random(&mut self) -> u64 {
        next_random(&mut self.random)
    }

    /// A command begins, of those that may write or not. What is looked up outside of commands may always go.
    #[inline]
    pub fn begin_command(&mut self, may_write: bool) {
        self.keeps_expired = self.is_paused && !may_write;
    }

    /// It has ended.
    #[inline]
    pub fn end_command(&mut self) {
        self.keeps_expired = false;
        self.leaves_heat = false;
    }

    /// Finds a key that is there *now*: one whose time has come is removed on the way, announced as expired.
    #[inline]
    pub fn find(&mut self, db: usize, key: &[u8]) -> Option<Loc> {
        let hash = self.hash(key);
        self.find_hashed(db, hash, key)
    }

    /// As [`Keyspace::find`], for callers that have the hash.
    #[inline]
    pub fn find_hashed(&mut self, db: usize, hash: u64, key: &[u8]) -> Option<Loc> {
        let table = self.dbs[db].as_deref()?;
        let loc = table.find(hash, key)?;
        if table.expire_at(loc).is_some_and(|at| at <= self.now) {
            if !self.keeps_expired {
                self.expire(db, loc);
            }
            return None;
        }
        if self.lose_elements(db, loc) {
            return None;
        }
        Some(loc)
    }

    /// Finds a key that is in memory, though its time may have come.
    pub fn find_even_expired(&self, db: usize, key: &[u8]) -> Option<Loc> {
        self.dbs[db].as_deref()?.find(self.hash(key), key)
    }

    /// As [`Keyspace::find`], counted as a read.
    #[inline]
    pub fn read(&mut self, db: usize, key: &[u8]) -> Option<Loc> {
        let found = self.find(db, key);
        if let Some(loc) = found {
            self.db_stats[db].hits += 1;
            if !self.leaves_heat {
                self.table_mut(db).touch(loc);
            }
        } else {
            self.db_stats[db].misses += 1;
            if self.notes_misses {
                self.note_miss(db, key);
            }
        }
        found
    }

    /// The value behind a location.
    #[inline]
    pub fn value(&self, db: usize, loc: Loc) -> Value<'_, Object> {
        self.table(db).value(loc)
    }

    /// See [`KeyTable::lend_string`](damselfly_structures::keytable::KeyTable::lend_string).
    pub fn lend_string(&mut self, db: usize, loc: Loc) -> Option<Arc<Vec<u8>>> {
        self.table_mut(db).table.lend_string(loc)
    }

    /// The database of a location, which exists because it has a key.
    #[inline]
    pub fn table(&self, db: usize) -> &Db {
        self.dbs[db].as_deref().expect("a database with a key exists")
    }

    /// As [`Keyspace::table`], to be changed.
    #[inline]
    pub fn table_mut(&mut self, db: usize) -> &mut Db {
        self.dbs[db].as_deref_mut().expect("a database with a key exists")
    }

    /// Whether a key is stored, expired or not.
    pub fn is_stored(&self, db: usize, key: &[u8]) -> bool {
        self.db(db).is_some_and(|table| table.find(self.hash(key), key).is_some())
    }

    /// Removes a key; false if it was not there. A big collection is freed in steps.
    pub fn remove(&mut self, db: usize, key: &[u8]) -> bool {
        match self.find(db, key) {
            Some(loc) => {
                self.remove_at(db, loc);
                true
            }
            None => false,
        }
    }

    /// Removes what is at a location.
    #[inline]
    pub fn remove_at(&mut self, db: usize, loc: Loc) {
        if let Removed::Object(object) = self.table_mut(db).remove(loc) {
            self.discard(object);
        }
    }

    /// Frees a collection: now if it is small, in steps if it is big.
    pub fn discard(&mut self, object: Object) {
        if object.is_big() {
            self.stats.freed_in_steps += 1;
            self.doomed.push_back(Doomed::Object(object));
        }
    }

    /// Stores a string under a key, new or not, in integer form where its bytes are the canonical one.
    #[inline]
    pub fn set_string(&mut self, db: usize, key: &[u8], value: &[u8], expiry: Expiry) {
        let hash = self.hash(key);
        if self.notes_new {
            self.note_if_new(db, key);
        }
        let now = self.now;
        let mut stored = self.db_mut(db).set_string(hash, key, value, expiry, now);
        if let Err(Due(loc)) = stored {
            self.expire(db, loc);
            stored = self.db_mut(db).set_string(hash, key, value, expiry, now);
        }
        self.discard_replaced(stored);
    }

    /// Stores a string that is not to become a number, whatever its bytes are.
    pub fn set_text(&mut self, db: usize, key: &[u8], value: &[u8], expiry: Expiry) {
        let hash = self.hash(key);
        if self.notes_new {
            self.note_if_new(db, key);
        }
        let now = self.now;
        let mut stored = self.db_mut(db).set_text(hash, key, value, expiry, now);
        if let Err(Due(loc)) = stored {
            self.expire(db, loc);
            stored = self.db_mut(db).set_text(hash, key, value, expiry, now);
        }
        self.discard_replaced(stored);
    }

    /// Stores a string that came about by an edit ([`Db::is_edited`]); a long one is not copied. The caller has looked
    /// the key up, so that nothing is due there.
    pub fn set_edited(&mut self, db: usize, key: &[u8], value: Vec<u8>, expiry: Expiry) {
        let hash = self.hash(key);
        if self.notes_new {
            self.note_if_new(db, key);
        }
        if let Removed::Object(object) = self.db_mut(db).set_edited(hash, key, value.into(), expiry) {
            self.discard(object);
        }
    }

    #[inline]
    fn discard_replaced(&mut self, stored: Result<Removed<Object>, Due>) {
        match stored {
            Ok(Removed::String) => {}
            Ok(Removed::Object(object)) => self.discard(object),
            Err(Due(_)) => unreachable!("what was due has just been removed"),
        }
    }

    /// Stores a collection under a key, new or not.
    pub fn set_object(&mut self, db: usize, key: &[u8], object: Object, expiry: Expiry) {
        let hash = self.hash(key);
        if self.notes_new {
            self.note_if_new(db, key);
        }
        if let Removed::Object(old) = self.db_mut(db).set_object(hash, key, object, expiry) {
            self.discard(old);
        }
    }

    /// Removes all keys of a database. The memory goes in steps, whoever asked.
    pub fn flush(&mut self, db: usize) -> usize {
        match self.dbs[db].take() {
            Some(old) => {
                let keys = old.len();
                self.stats.freed_in_steps += keys as u64;
                self.let_go(old);
                keys
            }
            None => 0,
        }
    }

    /// Exchanges two databases.
    pub fn swap(&mut self, one: usize, other: usize) {
        self.dbs.swap(one, other);
    }

    /// Announces that a key was changed. The one way to do so: everything that depends on writes starts here.
    #[inline]
    pub fn changed(&mut self, db: usize, key: &[u8], class: Class, name: &'static str) {
        self.stats.mutations += 1;
        if self.observed {
            self.note(db, key, class, name);
        }
    }

    /// Records that a read found nothing.
    #[cold]
    pub fn note_miss(&mut self, db: usize, key: &[u8]) {
        self.note(db, key, Class::KeyMiss, "keymiss");
    }

    /// Records that a key is about to come into being, unless it is there.
    #[cold]
    fn note_if_new(&mut self, db: usize, key: &[u8]) {
        if self.find(db, key).is_none() {
            self.note(db, key, Class::New, "new");
        }
    }

    #[cold]
    fn note(&mut self, db: usize, key: &[u8], class: Class, name: &'static str) {
        self.events.push(Event { db, class, name, key: key.into() });
    }

    /// What was announced since the last call.
    #[inline]
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Whether anything was announced since.
    #[inline]
    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    /// How many events were announced since they were taken.
    pub fn event_count(&self) -> usize {
        self.events.len()
    }

    /// Forgets the events that `keep` does not want, which is told the number of each: what they told was undone.
    pub fn retain_events(&mut self, keep: impl Fn(usize, &Event) -> bool) {
        let mut number = 0;
        self.events.retain(|event| {
            number += 1;
            keep(number - 1, event)
        });
    }

    /// Whether there is memory waiting to be freed by [`Keyspace::free_some`].
    pub fn has_doomed(&self) -> bool {
        !self.doomed.is_empty()
    }

    /// Keys of flushed databases, and big collections, that wait to be freed.
    pub fn doomed_len(&self) -> usize {
        self.doomed
            .iter()
            .map(|doomed| match doomed {
                Doomed::Db(db) => db.len(),
                Doomed::Object(_) => 1,
            })
            .sum()
    }

    /// Bytes that wait to be freed.
    pub fn doomed_bytes(&self) -> usize {
        self.doomed
            .iter()
            .map(|doomed| match doomed {
                Doomed::Db(db) => db.heap_bytes(),
                Doomed::Object(object) => object.heap_bytes(),
            })
            .sum()
    }

    /// Frees one bounded step of what was removed (some segments, some nodes: tens of microseconds); true if there
    /// is more.
    pub fn free_some(&mut self) -> bool {
        use damselfly_structures::keytable::Freed;
        match self.doomed.pop_front() {
            None => return false,
            Some(Doomed::Db(mut db)) => match db.free_some(4) {
                Freed::Some => self.doomed.push_front(Doomed::Db(db)),
                Freed::Object(object) => {
                    self.doomed.push_front(Doomed::Db(db));
                    self.doomed.push_front(Doomed::Object(object));
                }
                Freed::Done => {}
            },
            Some(Doomed::Object(mut object)) => {
                if !object.free_some() {
                    self.doomed.push_front(Doomed::Object(object));
                }
            }
        }
        !self.doomed.is_empty()
    }

    /// A random key of a database that has not expired.
    pub fn random_key(&mut self, db: usize) -> Option<Loc> {
        // Expired keys are skipped and removed; a bounded number of tries, as many keys may have expired at once.
        for _ in 0..100 {
            let mut random = self.random;
            let loc = self.db(db)?.random(|| next_random(&mut random))?;
            self.random = random;
            if self.table(db).expire_at(loc).is_some_and(|at| at <= self.now) {
                if !self.is_paused {
                    self.expire(db, loc);
                }
            } else if !self.lose_elements(db, loc) {
                return Some(loc);
            }
        }
        None
    }

    /// Every invariant; for tests, O(n).
    pub fn check(&self) {
        for db in self.dbs.iter().flatten() {
            db.check();
        }
    }
}

/// xorshift64*: good enough for sampling, and repeatable.
fn next_random(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_F491_4F6C_DD1D)
}
