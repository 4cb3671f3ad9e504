//! A cut: the state of one instant, saved while the keyspace changes on. No fork, no copy of the data.
//!
//! [`Keyspace::begin_cut`] does nothing but raise a number. From then on every bucket of the key tables whose version is
//! below that number still has to be saved. Two hands do so, and whichever comes first raises the bucket's version:
//!
//! ```text
//! the walk, in bounded steps between commands         bucket after bucket, segment after segment
//! a command that is about to change a bucket          that bucket first (Db::before_change); a split, its segment
//! ```
//!
//! So each entry of the instant is saved exactly once, as it was, whatever happens meanwhile; what came later is in
//! buckets that are marked already. Databases that are exchanged take their cuts along, and one that is flushed is kept
//! until the walk is through with it.
//!
//! Saving copies keys and strings, and of a collection the handle: its nodes are shared, and copied when somebody
//! writes to them before they are written out. Strings above [`LONG_FROM`] are copied in parts, one per step, so a
//! step stays short; only somebody who changes such a string right then pays for the rest of it.
//!
//! What was saved is in batches ([`Saved`]) that the owner takes away. It decides by how fast it takes them and asks for
//! steps how much memory a cut costs.

use std::collections::VecDeque;

use damselfly_structures::keytable::{KeyTable, TableView, Value};
use damselfly_structures::table::{BUCKETS, Loc, SegmentId};

use crate::rows::{Attributes, Rows};
use crate::{Db, Doomed, Keyspace, Object};

/// Strings longer than this are saved in parts of this length. A megabyte is copied in some 100 microseconds.
const LONG_FROM: usize = 1 << 20;

/// A piece of what a cut saved. The pieces of one long string come in their order; others may come between them.
pub enum Saved {
    /// Entries: strings and collections.
    Entries(Rows<Object>),
    /// A long string begins. Its bytes come in parts of the same number.
    Long {
        /// No other string of the same cut has it.
        number: u64,
        /// The database it was in.
        db: u32,
        /// Its key.
        key: Box<[u8]>,
        /// What the key has besides.
        attributes: Attributes,
        /// Bytes of all parts.
        len: usize,
    },
    /// More of a long string.
    Part {
        /// Which one.
        number: u64,
        /// The bytes.
        bytes: Box<[u8]>,
    },
}

impl Saved {
    /// Bytes it takes, about.
    pub fn weight(&self) -> usize {
        size_of::<Saved>()
            + match self {
                Saved::Entries(rows) => rows.weight(),
                Saved::Long { key, .. } => key.len(),
                Saved::Part { bytes, .. } => bytes.len(),
            }
    }
}

/// The cut of a keyspace.
#[derive(Default)]
pub(crate) struct Progress {
    /// Of the cut that is being saved, or of the last.
    version: u32,
    running: bool,
    /// Databases that were flushed before they were saved.
    #[expect(clippy::vec_box, reason = "a database stays in the box in which it lay")]
    leaving: Vec<Box<Db>>,
    /// What was saved of databases whose cut has ended.
    full: VecDeque<Saved>,
}

impl Progress {
    /// Databases that were flushed before they were saved.
    pub fn leaving_mut(&mut self) -> impl Iterator<Item = &mut Box<Db>> {
        self.leaving.iter_mut()
    }
}

/// The cut of one database.
pub(crate) struct DbCut {
    /// The number that the database had.
    db: u32,
    version: u32,
    /// Where the walk goes on; None when it is through.
    at: Option<(SegmentId, usize)>,
    /// Being filled.
    rows: Rows<Object>,
    full: VecDeque<Saved>,
    long: Option<Long>,
    /// Long strings so far.
    longs: u64,
}

/// The long strings of a bucket that was saved but for them. While they wait, the bucket's version is not raised: who
/// is about to change it comes by. Tidying may move the segment meanwhile, so there are no locations here.
struct Long {
    segment: SegmentId,
    bucket: usize,
    /// How many of the bucket's long strings are to do, the last one first.
    left: usize,
    /// The number of that one, once it has begun.
    number: u64,
    /// Bytes saved of it.
    done: usize,
}

impl DbCut {
    pub fn new(number: usize, version: u32) -> DbCut {
        let db = u32::try_from(number).expect("databases are few");
        DbCut {
            db,
            version,
            at: Some((SegmentId::FIRST, 0)),
            rows: Rows::default(),
            full: VecDeque::new(),
            long: None,
            longs: 0,
        }
    }

    /// Saves a bucket with all it holds, unless that was done.
    pub fn save_bucket(&mut self, table: &mut KeyTable<Object>, segment: SegmentId, bucket: usize) {
        if table.raw().bucket_version(segment, bucket) >= self.version {
            return;
        }
        let is_begun =
            self.long.as_ref().is_some_and(|long| (long.segment, long.bucket) == (segment, bucket));
        let other = if is_begun { None } else { self.long.take() };
        if !is_begun {
            self.save_entries(table, segment, bucket);
        }
        while self.long.is_some() {
            self.save_part(table);
        }
        self.long = other;
    }

    /// Saves all buckets of a segment that were not yet.
    pub fn save_segment(&mut self, table: &mut KeyTable<Object>, segment: SegmentId) {
        for bucket in 0..BUCKETS {
            self.save_bucket(table, segment, bucket);
        }
    }

    /// Saves the entries of a bucket; its long strings are left in `self.long`, and without such it is marked.
    fn save_entries(&mut self, table: &mut KeyTable<Object>, segment: SegmentId, bucket: usize) {
        let mut left = 0;
        table.raw().visit_bucket(segment, bucket, |loc| {
            let (key, attributes) = (table.key(loc), attributes(table, loc));
            match table.value(loc) {
                Value::Str(text) if text.len() > LONG_FROM => left += 1,
                Value::Str(text) => self.rows.push_text(self.db, key, attributes, text),
                Value::Int(number) => {
                    let mut digits = itoa::Buffer::new();
                    self.rows.push_text(self.db, key, attributes, digits.format(number).as_bytes());
                }
                Value::Object(object) => {
                    // What it holds besides is shared, or small.
                    let held = object.heap_bytes().min(4096);
                    self.rows.push_other(self.db, key, attributes, object.clone(), held);
                }
            }
            if self.rows.is_full() {
                self.full.push_back(Saved::Entries(std::mem::take(&mut self.rows)));
            }
        });
        if left == 0 {
            table.set_bucket_version(segment, bucket, self.version);
        } else {
            self.long = Some(Long { segment, bucket, left, number: 0, done: 0 });
        }
    }

    /// Saves the next part of a long string, and marks the bucket behind the last of all.
    fn save_part(&mut self, table: &mut KeyTable<Object>) {
        let Some(long) = &mut self.long else { return };
        // Nothing has changed in this bucket since it was looked at, so its long strings are the same, in their order.
        let (mut found, mut seen) = (None, 0);
        table.raw().visit_bucket(long.segment, long.bucket, |loc| {
            if let Value::Str(text) = table.value(loc)
                && text.len() > LONG_FROM
            {
                seen += 1;
                if seen == long.left {
                    found = Some((loc, text));
                }
            }
        });
        let Some((loc, text)) = found else {
            assert!(long.left == 0, "a bucket's long strings stay until they are saved");
            table.set_bucket_version(long.segment, long.bucket, self.version);
            self.long = None;
            return;
        };
        if long.done == 0 {
            self.longs += 1;
            long.number = u64::from(self.db) << 32 | self.longs;
            let (key, attributes) = (table.key(loc).into(), attributes(table, loc));
            self.full.push_back(Saved::Long {
                number: long.number,
                db: self.db,
                key,
                attributes,
                len: text.len(),
            });
        }
        let part = &text[long.done..text.len().min(long.done + LONG_FROM)];
        self.full.push_back(Saved::Part { number: long.number, bytes: part.into() });
        long.done += part.len();
        if long.done == text.len() {
            long.left -= 1;
            long.done = 0;
        }
    }

    /// One step of the walk: a bucket, or a part of a long string; false if it is through.
    fn step(&mut self, table: &mut KeyTable<Object>) -> bool {
        if self.long.is_some() {
            self.save_part(table);
            return true;
        }
        let Some((segment, bucket)) = self.at else { return false };
        // A split since the last step leaves this segment with the first half, all of it saved; the second comes next.
        if table.raw().bucket_version(segment, bucket) < self.version {
            self.save_entries(table, segment, bucket);
        }
        let behind = table.raw().next_segment(segment);
        if let Some(behind) = behind {
            table.raw().prefetch_share(behind, bucket);
        }
        self.at = match behind {
            _ if bucket + 1 < BUCKETS => Some((segment, bucket + 1)),
            Some(behind) => Some((behind, 0)),
            None => None,
        };
        true
    }
}

fn attributes(table: &KeyTable<Object>, loc: Loc) -> Attributes {
    Attributes {
        expire_at: table.expire_at(loc),
        sticky: table.is_sticky(loc),
        mc_flags: table.mc_flags(loc),
    }
}

impl Keyspace {
    /// Begins a cut: the state of all databases as they are now.
    pub fn begin_cut(&mut self) {
        assert!(!self.cut.running, "one cut at a time");
        self.cut.running = true;
        // Tables begin with version 0, so all of them are below the first cut too.
        self.cut.version += 1;
        for (number, db) in self.dbs.iter_mut().enumerate() {
            if let Some(db) = db {
                db.begin_cut(number, self.cut.version);
            }
        }
    }

    /// Whether a cut is being saved and not all of it was taken.
    pub fn is_cutting(&self) -> bool {
        self.cut.running
    }

    /// One short step of the walk: some microseconds. False if all of the cut is saved; what is left then is to be
    /// taken.
    pub fn cut_some(&mut self) -> bool {
        while let Some(db) = self.cut.leaving.last_mut() {
            if let Some((cut, table)) = db.cut()
                && cut.step(table)
            {
                return true;
            }
            let db = self.cut.leaving.pop().expect("just looked at");
            self.let_go(db);
        }
        for db in self.dbs.iter_mut().flatten() {
            if let Some((cut, table)) = db.cut() {
                if cut.step(table) {
                    return true;
                }
                end(db, &mut self.cut.full);
            }
        }
        false
    }

    /// The next piece of what was saved. With `rest`, a batch that is not full is handed out too; None then means that
    /// all that was saved has been taken.
    pub fn take_saved(&mut self, rest: bool) -> Option<Saved> {
        if let Some(saved) = self.cut.full.pop_front() {
            return Some(saved);
        }
        let dbs = self.dbs.iter_mut().flatten().chain(&mut self.cut.leaving);
        for (cut, _) in dbs.filter_map(|db| db.cut()) {
            if let Some(saved) = cut.full.pop_front() {
                return Some(saved);
            }
            if rest && !cut.rows.is_empty() {
                return Some(Saved::Entries(std::mem::take(&mut cut.rows)));
            }
        }
        None
    }

    /// Ends a cut that was saved, or gives it up.
    pub fn end_cut(&mut self) {
        self.cut.running = false;
        self.cut.full.clear();
        for db in self.dbs.iter_mut().flatten() {
            db.end_cut();
        }
        for mut db in std::mem::take(&mut self.cut.leaving) {
            db.end_cut();
            self.let_go(db);
        }
    }

    /// Lets go of a database that no command can reach any more: to be freed, when it is saved and nobody looks back.
    pub(crate) fn let_go(&mut self, mut db: Box<Db>) {
        match db.cut() {
            Some((cut, _)) if cut.at.is_some() || cut.long.is_some() => self.cut.leaving.push(db),
            _ => {
                end(&mut db, &mut self.cut.full);
                match db.pasts {
                    Some(_) => self.looked_back_into.push(db),
                    None => self.doomed.push_back(Doomed::Db(db)),
                }
            }
        }
    }
}

/// Ends the cut of a database, keeping what was saved.
fn end(db: &mut Db, full: &mut VecDeque<Saved>) {
    if let Some(cut) = db.end_cut() {
        full.extend(cut.full);
        if !cut.rows.is_empty() {
            full.push_back(Saved::Entries(cut.rows));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};

    use super::{LONG_FROM, Saved};
    use crate::{
        Attributes, Content, Db, Eviction, Expiry, Keyspace, List, Loc, Object, Options, Value, next_random,
    };

    /// Everything of a key that must survive, the value as text.
    type State = BTreeMap<(u32, Vec<u8>), (Vec<u8>, Attributes)>;

    fn text_of(value: Value<'_, Object>) -> Vec<u8> {
        match value {
            Value::Int(number) => number.to_string().into_bytes(),
            Value::Str(text) => text.to_vec(),
            Value::Object(object) => text_of_object(object),
        }
    }

    fn text_of_object(object: &Object) -> Vec<u8> {
        let Object::List(list) = object else { panic!("only lists here") };
        let mut text = b"list".to_vec();
        for item in list.iter() {
            text.push(b' ');
            text.extend(item.to_vec());
        }
        text
    }

    fn attributes(db: &Db, loc: Loc) -> Attributes {
        Attributes { expire_at: db.expire_at(loc), sticky: db.is_sticky(loc), mc_flags: db.mc_flags(loc) }
    }

    fn state(ks: &Keyspace) -> State {
        let mut state = State::new();
        for number in 0..ks.databases() {
            let Some(db) = ks.db(number) else { continue };
            db.for_each(|loc| {
                let value = (text_of(db.value(loc)), attributes(db, loc));
                state.insert((number as u32, db.key(loc).to_vec()), value);
            });
        }
        state
    }

    /// What arrives at the other end: every key once, every long string complete and in order.
    #[derive(Default)]
    struct Received {
        state: State,
        longs: HashMap<u64, Long>,
    }

    struct Long {
        db: u32,
        key: Box<[u8]>,
        attributes: Attributes,
        len: usize,
        text: Vec<u8>,
    }

    impl Received {
        fn put(&mut self, db: u32, key: &[u8], text: Vec<u8>, attributes: Attributes) {
            let before = self.state.insert((db, key.to_vec()), (text, attributes));
            assert!(before.is_none(), "a key is saved once");
        }

        fn take(&mut self, saved: Saved) {
            match saved {
                Saved::Entries(mut rows) => rows
                    .drain(|db, key, attributes, content| {
                        let text = match content {
                            Content::Text(text) => text.to_vec(),
                            Content::Other(object) => text_of_object(&object),
                        };
                        self.put(db, key, text, *attributes);
                        Ok::<(), ()>(())
                    })
                    .expect("the closure never fails"),
                Saved::Long { number, db, key, attributes, len } => {
                    assert!(len > LONG_FROM);
                    let long = Long { db, key, attributes, len, text: Vec::new() };
                    let before = self.longs.insert(number, long);
                    assert!(before.is_none(), "a number is used once");
                }
                Saved::Part { number, bytes } => {
                    let long = self.longs.get_mut(&number).expect("a long string begins before its parts");
                    long.text.extend_from_slice(&bytes);
                    if long.text.len() == long.len {
                        let long = self.longs.remove(&number).expect("it is there");
                        self.put(long.db, &long.key, long.text, long.attributes);
                    }
                }
            }
        }
    }

    struct Life {
        ks: Keyspace,
        random: u64,
        keys: u64,
    }

    impl Life {
        fn new(seed: u64, keys: u64) -> Life {
            let mut ks = Keyspace::new(&Options { databases: 3, hash_seed: seed, random_seed: seed });
            ks.now = 1_000_000;
            Life { ks, random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1, keys }
        }

        fn below(&mut self, bound: u64) -> u64 {
            next_random(&mut self.random) % bound
        }

        fn text(&mut self) -> Vec<u8> {
            let len = match self.below(2000) {
                0 => LONG_FROM + 1 + self.below(2 * LONG_FROM as u64) as usize,
                1..100 => self.below(3000) as usize,
                _ => self.below(60) as usize,
            };
            let fill = self.below(256) as u8;
            let mut text = vec![fill; len];
            for byte in text.iter_mut().step_by(997) {
                *byte = next_random(&mut self.random) as u8;
            }
            text
        }

        /// One random change, of any kind that a table knows.
        fn change(&mut self) {
            let (db, now) = (self.below(3) as usize, self.ks.now);
            let number = self.below(self.keys);
            // Some keys are too long for an entry.
            let width = if number.is_multiple_of(50) { 300 } else { 4 };
            let key = format!("key{number:0width$}").into_bytes();
            let expiry = match self.below(8) {
                0 => Expiry::At(now + 1 + self.below(5000)),
                1 => Expiry::Keep,
                _ => Expiry::Never,
            };
            match self.below(1000) {
                0 => drop(self.ks.flush(db)),
                1 => self.ks.swap(db, self.random as usize % 3),
                2..400 => {
                    let text = self.text();
                    self.ks.set_string(db, &key, &text, expiry);
                }
                400..450 => {
                    let number = self.below(1 << 40);
                    self.ks.set_string(db, &key, number.to_string().as_bytes(), expiry);
                }
                450..600 => drop(self.ks.remove(db, &key)),
                600..700 => {
                    let item = self.text();
                    let item = &item[..item.len().min(100)];
                    let _ = self.ks.edit_or_new(db, &key, |list: &mut List| list.push_back(item));
                }
                700..750 => {
                    let _ = self.ks.edit(db, &key, |list: &mut List| list.pop_front(1, |_| {}));
                }
                750..800 => {
                    let mut list = List::new();
                    (0..self.below(400)).for_each(|n| list.push_back(&n.to_le_bytes()[..]));
                    self.ks.store(db, &key, list);
                }
                800..820 => {
                    let portable = self.ks.take(db, &key);
                    self.ks.import((db + 1) % 3, &key, portable);
                }
                820..900 => {
                    if let Some(loc) = self.ks.find(db, &key)
                        && !matches!(self.ks.value(db, loc), Value::Object(_))
                    {
                        self.ks.table_mut(db).edit_string(loc, |text| text.extend_from_slice(b"more"));
                    }
                }
                900..960 => {
                    let at = Some(now + self.below(5000)).filter(|at| at % 2 == 0);
                    if let Some(loc) = self.ks.find(db, &key) {
                        self.ks.table_mut(db).set_expire(loc, at);
                    }
                }
                960..990 => {
                    if let Some(loc) = self.ks.find(db, &key) {
                        self.ks.table_mut(db).set_sticky(loc, number.is_multiple_of(2));
                        let flags = next_random(&mut self.random) as u32;
                        self.ks.table_mut(db).set_mc_flags(loc, flags);
                    }
                }
                _ => {
                    self.ks.now += 5;
                    self.ks.expire_some(4);
                    // As if all memory were scattered: segments move while they are being saved.
                    self.ks.tidy_some(4, usize::MAX, Some(&|_| true));
                }
            }
        }
    }

    /// What is saved is the state of the instant, exactly and each key once, whatever changes while it is saved: keys
    /// of all kinds come, change and go, tables split, databases are flushed and exchanged, collections and long
    /// strings change in the midst of their being saved, and memory is freed and moved.
    #[test]
    fn equals_the_instant() {
        for seed in 1..=30u64 {
            let mut life = Life::new(seed, [60, 800, 6000][seed as usize % 3]);
            for round in 0..3 {
                for _ in 0..life.keys * 2 {
                    life.change();
                }
                let expected = state(&life.ks);
                life.ks.begin_cut();
                let mut received = Received::default();
                let (pace, mut more) = (1 + life.below(40), true);
                while more {
                    for _ in 0..life.below(pace) {
                        life.change();
                    }
                    for _ in 0..life.below(6) {
                        more &= life.ks.cut_some();
                    }
                    life.ks.free_some();
                    if life.below(3) == 0 {
                        while let Some(saved) = life.ks.take_saved(false) {
                            received.take(saved);
                        }
                    }
                }
                while let Some(saved) = life.ks.take_saved(true) {
                    received.take(saved);
                }
                life.ks.end_cut();
                assert!(received.longs.is_empty(), "seed {seed}, round {round}: long strings are complete");
                assert!(
                    received.state == expected,
                    "seed {seed}, round {round}: not the state of the instant"
                );
                life.ks.check();
            }
        }
    }

    /// Keys that went for want of room before the cut are not in it, and those that go while it is saved are, as they
    /// were: eviction is under way when the cut begins, and goes on to the end, by every rule, next to all other
    /// changes.
    #[test]
    fn eviction_around_the_instant() {
        let evicted = |ks: &Keyspace| ks.db_stats.iter().map(|stats| stats.evicted).sum::<u64>();
        for seed in 1..=18u64 {
            let rule = [Eviction::All, Eviction::Timed, Eviction::NextDue][seed as usize % 3];
            let mut life = Life::new(seed, 3000);
            life.ks.be_selective();
            // Change, use and evict, so that some are warm and some queue; how many went of those that once were there.
            let live = |life: &mut Life, steps: u64| {
                for _ in 0..steps {
                    life.change();
                    let key = format!("key{:04}", life.below(100)).into_bytes();
                    life.ks.find(0, &key);
                    life.ks.keep_epochs();
                    if life.below(4) == 0 {
                        life.ks.evict(rule, None);
                    }
                }
            };
            live(&mut life, 6000);
            let (expected, gone_before) = (state(&life.ks), evicted(&life.ks));
            assert!(
                gone_before > 100 && expected.len() > 100,
                "seed {seed}: {gone_before} {}",
                expected.len()
            );
            life.ks.begin_cut();
            let (mut received, mut more) = (Received::default(), true);
            while more {
                live(&mut life, 20);
                for _ in 0..life.below(3) {
                    more &= life.ks.cut_some();
                }
                while let Some(saved) = life.ks.take_saved(false) {
                    received.take(saved);
                }
            }
            while let Some(saved) = life.ks.take_saved(true) {
                received.take(saved);
            }
            life.ks.end_cut();
            assert!(evicted(&life.ks) > gone_before + 100, "seed {seed}: {}", evicted(&life.ks));
            assert!(received.state == expected, "seed {seed}: not the state of the instant");
            life.ks.check();
        }
    }

    /// A cut that is given up leaves nothing behind, and the next one is whole.
    #[test]
    fn given_up() {
        let mut life = Life::new(77, 2000);
        (0..5000).for_each(|_| life.change());
        for _ in 0..3 {
            life.ks.begin_cut();
            for _ in 0..200 {
                life.change();
                life.ks.cut_some();
            }
            life.ks.flush(1);
            life.ks.end_cut();
            assert!(!life.ks.is_cutting() && life.ks.take_saved(true).is_none());
            while life.ks.free_some() {}
        }
        let expected = state(&life.ks);
        life.ks.begin_cut();
        while life.ks.cut_some() {}
        let mut received = Received::default();
        while let Some(saved) = life.ks.take_saved(true) {
            received.take(saved);
        }
        assert!(received.state == expected);
        life.ks.check();
    }

    /// A step is short: no more than a bucket, or a part of a long string, whatever there is.
    #[test]
    fn steps_are_short() {
        let mut life = Life::new(5, 1);
        let big = vec![b'x'; 8 * LONG_FROM];
        for key in 0..200u32 {
            let value = if key == 100 { &big[..] } else { b"y" };
            life.ks.set_string(0, &key.to_le_bytes(), value, Expiry::Never);
        }
        life.ks.begin_cut();
        let (mut more, mut most) = (true, 0);
        while more {
            more = life.ks.cut_some();
            let mut saved = 0;
            while let Some(piece) = life.ks.take_saved(true) {
                saved += match piece {
                    Saved::Part { bytes, .. } => bytes.len(),
                    Saved::Long { len, .. } => {
                        assert_eq!(len, big.len());
                        0
                    }
                    Saved::Entries(rows) => rows.len() * 1024,
                };
            }
            most = most.max(saved);
        }
        assert!(most <= LONG_FROM + 14 * 1024, "{most}");
    }
}
