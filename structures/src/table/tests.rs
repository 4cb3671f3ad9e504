//! Model tests: a table of `[len][key][value]` entries against a `HashMap`.

use std::collections::{HashMap, HashSet};

use super::*;

/// `[key length][value length][key][value]`, all inline.
struct Pairs<B = Watched>(PhantomData<B>);

impl<B: Shape> Layout for Pairs<B> {
    type Bucket = B;

    fn entry_len(entry: &[u8]) -> usize {
        2 + usize::from(entry[0]) + usize::from(entry[1])
    }
    fn matches(entry: &[u8], key: &[u8]) -> bool {
        usize::from(entry[0]) == key.len() && &entry[2..2 + key.len()] == key
    }
    fn hash(entry: &[u8], seed: u64) -> u64 {
        hash(&entry[2..2 + usize::from(entry[0])], seed)
    }
    const OWNS: bool = false;
}

fn hash(key: &[u8], seed: u64) -> u64 {
    crate::hash::hash(key, seed)
}

struct Rng(u64);
impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }
}

fn value<B: Shape>(table: &Table<Pairs<B>>, key: &[u8]) -> Option<Vec<u8>> {
    let loc = table.find(hash(key, table.seed()), key)?;
    let entry = table.entry(loc);
    Some(entry[2 + key.len()..Pairs::<B>::entry_len(entry)].to_vec())
}

fn write(entry: &mut [u8], key: &[u8], value: &[u8]) {
    entry[0] = key.len() as u8;
    entry[1] = value.len() as u8;
    entry[2..2 + key.len()].copy_from_slice(key);
    entry[2 + key.len()..].copy_from_slice(value);
}

fn put<B: Shape>(table: &mut Table<Pairs<B>>, key: &[u8], value: &[u8]) {
    let hash = hash(key, table.seed());
    let len = 2 + key.len() + value.len();
    loop {
        let done = match table.find(hash, key) {
            Some(loc) => table.resize(loc, len, |_, new| write(new, key, value)).map(|_| ()),
            None => table.insert(hash, len, |new| write(new, key, value)).map(|_| ()),
        };
        match done {
            Ok(()) => return,
            Err(Full) => table.split(hash),
        }
    }
}

fn delete<B: Shape>(table: &mut Table<Pairs<B>>, key: &[u8]) -> bool {
    match table.find(hash(key, table.seed()), key) {
        Some(loc) => {
            table.remove(loc);
            true
        }
        None => false,
    }
}

type Model = HashMap<Vec<u8>, Vec<u8>>;

const STEPS: u64 = if cfg!(miri) { 3_000 } else { 300_000 };
const KEYS: u64 = if cfg!(miri) { 1_500 } else { 20_000 };

fn key_of(n: u64) -> Vec<u8> {
    format!("key:{n}").into_bytes()
}

/// Random insertions, overwrites with other lengths and removals agree with a map, through splits, compactions,
/// merges and copies of shared segments; and a clone taken on the way shows the state at its time.
#[test]
fn agrees_with_a_map() {
    agrees_with_a_map_in::<Watched>();
    agrees_with_a_map_in::<Plain>();
}

fn agrees_with_a_map_in<B: Shape>() {
    let mut rng = Rng(0x9E37_79B9_7F4A_7C15);
    let mut table = Table::<Pairs<B>>::new(42);
    let mut model = Model::new();
    let mut cut: Option<(Table<Pairs<B>>, Model)> = None;
    for step in 0..STEPS {
        let key = key_of(rng.below(KEYS));
        // Phases of growth and of shrinking, so that both directions are seen.
        let shrinking = step / (STEPS / 6) % 2 == 1;
        if rng.below(10) < if shrinking { 7 } else { 2 } {
            assert_eq!(delete(&mut table, &key), model.remove(&key).is_some());
        } else {
            let value = vec![rng.next() as u8; rng.below(60) as usize];
            put(&mut table, &key, &value);
            model.insert(key.clone(), value);
        }
        if rng.below(STEPS / 40) == 0 {
            table.check();
            if let Some((cut_table, cut_model)) = cut.take() {
                cut_table.check();
                assert_eq!(cut_table.len(), cut_model.len());
                for (key, want) in &cut_model {
                    assert_eq!(value(&cut_table, key).as_ref(), Some(want), "the clone kept its state");
                }
            }
            cut = Some((table.clone(), model.clone()));
        }
        if rng.below(STEPS / 100) == 0 && cut.is_none() {
            table.merge(hash(&key, table.seed()));
        }
        assert_eq!(value(&table, &key), model.get(&key).cloned());
    }
    drop(cut);
    table.check();
    assert_eq!(table.len(), model.len());
    for (key, want) in &model {
        assert_eq!(value(&table, key).as_ref(), Some(want));
    }
    // Everything goes, and the memory with it.
    for key in model.keys() {
        assert!(delete(&mut table, key));
    }
    table.check();
    let mut id = table.first_segment();
    loop {
        while table.merge(id.hash()) {}
        id = table.segment_of(id.hash());
        match table.next_segment(id) {
            Some(next) => id = next,
            None => break,
        }
    }
    while table.segments() > 1 {
        let before = table.segments();
        let mut id = table.first_segment();
        loop {
            table.merge(id.hash());
            id = table.segment_of(id.hash());
            match table.next_segment(id) {
                Some(next) => id = next,
                None => break,
            }
        }
        assert!(table.segments() < before, "empty buddies join");
    }
    table.trim_directory();
    table.check();
    assert!(table.heap_bytes() <= 2 * BLOCK_LEN, "an emptied table holds one segment");
}

/// SCAN's guarantee: what is there during the whole walk is visited, whatever else comes and goes meanwhile.
#[test]
fn scan_visits_what_stays() {
    scan_visits_what_stays_in::<Watched>();
    scan_visits_what_stays_in::<Plain>();
}

fn scan_visits_what_stays_in<B: Shape>() {
    for seed in 1..if cfg!(miri) { 2 } else { 30 } {
        let mut rng = Rng(seed);
        let mut table = Table::<Pairs<B>>::new(seed);
        for n in 0..KEYS / 4 {
            put(&mut table, &key_of(n), b"stays");
        }
        let mut seen = HashSet::new();
        let mut cursor = Cursor::default();
        let mut other = KEYS;
        let mut steps = 0u64;
        loop {
            cursor = table.scan(cursor, |loc| {
                let entry = table.entry(loc);
                seen.insert(entry[2..2 + usize::from(entry[0])].to_vec());
            });
            if cursor == Cursor::default() {
                break;
            }
            assert!(cursor.0 < 1 << Cursor::BITS);
            steps += 1;
            assert!(steps < 1_000_000, "the walk ends");
            // Growth for a while, then shrinking with merges, then growth again.
            for _ in 0..rng.below(40) {
                if (steps / 200).is_multiple_of(2) && other < KEYS * 4 {
                    put(&mut table, &key_of(other), b"comes and goes");
                    other += 1;
                } else if other > KEYS {
                    other -= 1;
                    delete(&mut table, &key_of(other));
                    table.merge(rng.next());
                }
            }
        }
        for n in 0..KEYS / 4 {
            assert!(seen.contains(&key_of(n)), "seed {seed}: key {n} was there all the time");
        }
    }
}

/// A walk ends, and sees what stays, even if the table is another between any two steps: grown and shrunk by turns, as
/// an application does that works against it.
#[test]
fn scan_ends_while_the_table_breathes() {
    for seed in 1..if cfg!(miri) { 2 } else { 4 } {
        let mut rng = Rng(seed);
        let mut table = Table::<Pairs>::new(seed);
        let (stays, most) = (40, 1_500);
        for n in 0..stays {
            put(&mut table, &key_of(n), b"stays");
        }
        let (mut seen, mut cursor, mut steps, mut segments) = (HashSet::new(), Cursor::default(), 0, 0);
        loop {
            for n in stays..most {
                put(&mut table, &key_of(n), b"comes");
            }
            segments = segments.max(table.segments());
            // Most steps see the table small, some see it big, so that a cursor of one meets the other.
            let is_big = rng.below(3) == 0;
            if !is_big {
                for n in stays..most {
                    delete(&mut table, &key_of(n));
                }
                let mut id = table.first_segment();
                loop {
                    while table.merge(id.hash()) {}
                    match table.next_segment(table.segment_of(id.hash())) {
                        Some(next) => id = next,
                        None => break,
                    }
                }
                table.trim_directory();
            }
            cursor = table.scan(cursor, |loc| {
                let entry = table.entry(loc);
                seen.insert(entry[2..2 + usize::from(entry[0])].to_vec());
            });
            if cursor == Cursor::default() {
                break;
            }
            steps += 1;
            assert!(steps <= 2 * BUCKETS * segments, "seed {seed}: {steps} steps for {segments} segments");
            if !is_big {
                continue;
            }
            for n in stays..most {
                delete(&mut table, &key_of(n));
            }
        }
        table.check();
        for n in 0..stays {
            assert!(seen.contains(&key_of(n)), "seed {seed}: key {n} was there all the time");
        }
    }
}

/// Cursors that no walk handed out (a client may send anything) end without harm.
#[test]
fn invented_cursors() {
    let mut table = Table::<Pairs>::new(7);
    for n in 0..KEYS / 4 {
        put(&mut table, &key_of(n), b"x");
    }
    let mut rng = Rng(3);
    for _ in 0..2_000 {
        let cursor = Cursor(rng.next() >> rng.below(63));
        let _ = table.scan(cursor, |loc| assert!(Pairs::<Watched>::entry_len(table.entry(loc)) > 2));
    }
}

/// Random picks reach every entry, none absurdly often.
#[test]
fn random_reaches_everything() {
    random_reaches_everything_in::<Watched>();
    random_reaches_everything_in::<Plain>();
}

fn random_reaches_everything_in<B: Shape>() {
    let mut table = Table::<Pairs<B>>::new(11);
    assert!(table.random(|| 1).is_none());
    let keys = 300;
    for n in 0..keys {
        put(&mut table, &key_of(n), b"");
    }
    let mut rng = Rng(99);
    let mut picks = HashMap::<Vec<u8>, u32>::new();
    for _ in 0..keys * 50 {
        let loc = table.random(|| rng.next()).expect("not empty");
        let entry = table.entry(loc);
        *picks.entry(entry[2..2 + usize::from(entry[0])].to_vec()).or_default() += 1;
    }
    assert_eq!(picks.len(), keys as usize);
    assert!(picks.values().all(|&n| (15..120).contains(&n)), "50 expected of each");
    for n in 1..keys {
        delete(&mut table, &key_of(n));
    }
    assert_eq!(table.entry(table.random(|| rng.next()).expect("one left"))[2..7], key_of(0)[..]);
}

/// Layouts that own memory: dropped once, cloned when a shared segment is written.
mod owning {
    use super::*;
    use std::rc::Rc;

    /// `[key][raw pointer of an Rc<()>]`, 16 bytes. Not `Send`, because of what its entries own.
    struct Owning(std::marker::PhantomData<Rc<()>>);

    fn pointer(entry: &[u8]) -> *const () {
        usize::from_ne_bytes(entry[8..16].try_into().expect("eight bytes")) as *const ()
    }

    impl Layout for Owning {
        type Bucket = Plain;

        fn entry_len(_: &[u8]) -> usize {
            16
        }
        fn matches(entry: &[u8], key: &[u8]) -> bool {
            &entry[..8] == key
        }
        fn hash(entry: &[u8], seed: u64) -> u64 {
            hash(&entry[..8], seed)
        }
        fn drop_owned(entry: &mut [u8]) {
            // SAFETY: the bytes are the result of `Rc::into_raw` in `insert` below or of `clone_owned`.
            drop(unsafe { Rc::from_raw(pointer(entry)) });
        }
        fn clone_owned(copy: &mut [u8]) {
            // SAFETY: as above; the original keeps its count.
            unsafe { Rc::increment_strong_count(pointer(copy)) };
        }
        const OWNS: bool = true;
    }

    fn insert(table: &mut Table<Owning>, key: u64, value: &Rc<()>) {
        let key = key.to_le_bytes();
        let hash = hash(&key, table.seed());
        loop {
            let raw = Rc::into_raw(value.clone());
            let done = table.insert(hash, 16, |entry| {
                entry[..8].copy_from_slice(&key);
                entry[8..16].copy_from_slice(&(raw.expose_provenance()).to_ne_bytes());
            });
            if done.is_ok() {
                return;
            }
            // SAFETY: not stored.
            drop(unsafe { Rc::from_raw(raw) });
            table.split(hash);
        }
    }

    #[test]
    fn counts_balance() {
        let value = Rc::new(());
        let n = if cfg!(miri) { 1_200 } else { 10_000 };
        let mut table = Table::<Owning>::new(5);
        for key in 0..n {
            insert(&mut table, key, &value);
        }
        assert_eq!(Rc::strong_count(&value), 1 + n as usize);
        let copy = table.clone();
        assert_eq!(Rc::strong_count(&value), 1 + n as usize, "a clone shares segments");
        for key in n..n * 2 {
            insert(&mut table, key, &value);
        }
        table.check();
        copy.check();
        assert_eq!(copy.len(), n as usize);
        drop(table);
        assert_eq!(Rc::strong_count(&value), 1 + n as usize);
        drop(copy);
        assert_eq!(Rc::strong_count(&value), 1);
    }
}

/// Entries that come where others of their length went take their places: nothing else moves, and no byte is added.
#[test]
fn holes_are_filled() {
    let mut table = Table::<Pairs>::new(42);
    let key = |n: u64| format!("key:{n:08}").into_bytes();
    // Fewer than a segment holds, so that all of them are in one.
    let (kept, changing) = (300, 300);
    (0..kept + changing).for_each(|n| put(&mut table, &key(n), &[n as u8; 40]));
    let places = |table: &Table<Pairs>| -> Vec<_> {
        let found = |n| table.find(hash(&key(n), table.seed()), &key(n)).expect("kept");
        (0..kept).map(|n| table.entry(found(n)).as_ptr()).collect()
    };
    let (before, bytes) = (places(&table), table.heap_bytes());
    for n in kept..20 * changing {
        assert!(delete(&mut table, &key(n)));
        // Every fifth is shorter, and its place has an end that is used by those that come later or not at all.
        let len = if n % 5 == 0 { 36 } else { 40 };
        put(&mut table, &key(n + changing), &vec![n as u8; len]);
        assert_eq!(value(&table, &key(n + changing)), Some(vec![n as u8; len]));
        if n % 1000 == 0 {
            table.check();
        }
    }
    table.check();
    assert_eq!((places(&table), table.heap_bytes()), (before, bytes));
}

/// Holes of all lengths: what comes is never larger than its hole, and the ends of holes are used too, so that a table
/// whose entries change all the time is not much larger than what is in it.
#[test]
fn holes_of_all_lengths() {
    let (mut table, mut rng) = (Table::<Pairs>::new(42), Rng(77));
    let (mut model, keys) = (Model::new(), 600);
    for _ in 0..STEPS / 3 {
        let key = key_of(rng.below(keys));
        let value = vec![rng.next() as u8; rng.below(250) as usize];
        if rng.below(3) == 0 {
            assert_eq!(delete(&mut table, &key), model.remove(&key).is_some());
        } else {
            put(&mut table, &key, &value);
            model.insert(key, value);
        }
    }
    table.check();
    model.iter().for_each(|(key, want)| assert_eq!(value(&table, key).as_ref(), Some(want)));
    let live: usize = model.iter().map(|(key, value)| 2 + key.len() + value.len()).sum();
    let most = live * 4 / 3 + 3 * 2 * BLOCK_LEN;
    assert!(table.heap_bytes() < most, "{} bytes for {live}", table.heap_bytes());
}
