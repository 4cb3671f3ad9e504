//! Model tests: every operation against a `HashMap` of plain values.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use super::*;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Model {
    Str(Vec<u8>),
    Object(u64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    value: Model,
    expire_at: Option<u64>,
    sticky: bool,
    mc_flags: u32,
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

type Objects = KeyTable<Rc<u64>>;

fn canonical(bytes: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(bytes).ok()?;
    let n: i64 = text.parse().ok()?;
    (n.to_string() == text).then_some(n)
}

fn put(table: &mut Objects, key: &[u8], value: &Model, expiry: Expiry) {
    let hash = table.hash(key);
    loop {
        let full = match table.find(hash, key) {
            Some(loc) => match value {
                Model::Str(bytes) => match canonical(bytes) {
                    Some(n) => table.set_int(loc, n, expiry).is_err(),
                    None => table.set_string(loc, bytes, expiry).is_err(),
                },
                Model::Object(n) => table.set_object(loc, Rc::new(*n), expiry).is_err(),
            },
            None => {
                let new = match value {
                    Model::Str(bytes) => match canonical(bytes) {
                        Some(n) => NewValue::Int(n),
                        None => NewValue::Str(bytes),
                    },
                    Model::Object(n) => NewValue::Object(Rc::new(*n)),
                };
                let at = match expiry {
                    Expiry::At(at) => Some(at),
                    _ => None,
                };
                table.insert(hash, key, new, at).is_err()
            }
        };
        if !full {
            return;
        }
        table.split(hash);
    }
}

fn get(table: &Objects, key: &[u8]) -> Option<Key> {
    let loc = table.find(table.hash(key), key)?;
    assert_eq!(table.key(loc), key);
    let value = match table.value(loc) {
        Value::Int(n) => Model::Str(n.to_string().into_bytes()),
        Value::Str(bytes) => Model::Str(bytes.to_vec()),
        Value::Object(object) => Model::Object(**object),
    };
    Some(Key {
        value,
        expire_at: table.expire_at(loc),
        sticky: table.is_sticky(loc),
        mc_flags: table.mc_flags(loc),
    })
}

const STEPS: u64 = if cfg!(miri) { 2_500 } else { 400_000 };

/// Keys at all length borders: empty, inside, the longest inside, outside.
fn key_of(n: u64) -> Vec<u8> {
    match n % 40 {
        0 => format!("{n}{}", "k".repeat(250)).into_bytes(),
        1 => format!("{n}{}", "K".repeat(600)).into_bytes(),
        2 => vec![b'x'; (n % 300) as usize],
        _ => format!("key:{n}").into_bytes(),
    }
}

fn value_of(rng: &mut Rng) -> Model {
    match rng.below(12) {
        0 => Model::Object(rng.next()),
        1 => Model::Str((rng.next() as i64 >> rng.below(63)).to_string().into_bytes()),
        2 => Model::Str(b"007".to_vec()),
        3 => Model::Str(vec![7; 440 + rng.below(80) as usize]),
        4 => Model::Str(vec![8; rng.below(5000) as usize]),
        5 => Model::Str(vec![9; 250 + rng.below(10) as usize]),
        _ => Model::Str(vec![rng.next() as u8; rng.below(64) as usize]),
    }
}

/// Values of every kind and length, expiries near and far, flags, keys inside and outside, edits in place, strings lent
/// and moved: always equal to the model, all counters exact, what was lent is as it was, nothing leaked (Miri and the
/// reference counts see to that).
#[test]
fn agrees_with_a_map() {
    let mut rng = Rng(0x1234_5678_9ABC_DEF1);
    let mut table = Objects::new(77);
    let mut model = HashMap::<Vec<u8>, Key>::new();
    let mut scratch = Vec::new();
    let (mut loans, mut lent) = (VecDeque::new(), 0);
    for step in 0..STEPS {
        let key = key_of(rng.below(STEPS / 20));
        let hash = table.hash(&key);
        match rng.below(22) {
            0..=9 => {
                let value = value_of(&mut rng);
                let expiry = match rng.below(4) {
                    0 => Expiry::Keep,
                    1 => Expiry::At(1_700_000_000_000 + rng.below(1 << 40)),
                    2 if rng.below(8) == 0 => Expiry::At(rng.next() >> 1),
                    _ => Expiry::Never,
                };
                put(&mut table, &key, &value, expiry);
                let old = model.get(&key);
                let expire_at = match expiry {
                    Expiry::Keep => old.and_then(|old| old.expire_at),
                    Expiry::Never => None,
                    Expiry::At(at) => Some(at),
                };
                let (sticky, mc_flags) = old.map_or((false, 0), |old| (old.sticky, old.mc_flags));
                model.insert(key.clone(), Key { value, expire_at, sticky, mc_flags });
            }
            10..=13 => {
                let found = table.find(hash, &key);
                assert_eq!(found.is_some(), model.contains_key(&key));
                if let Some(loc) = found {
                    table.remove(loc);
                    model.remove(&key);
                }
            }
            14 | 15 => {
                let expire_at = (rng.below(3) > 0).then(|| 1_700_000_000_000 + rng.below(1 << 49));
                while let Some(loc) = table.find(hash, &key) {
                    if table.set_expire(loc, expire_at).is_ok() {
                        model.get_mut(&key).expect("in both").expire_at = expire_at;
                        break;
                    }
                    table.split(hash);
                }
            }
            16 => {
                let mc_flags = rng.next() as u32 % 3;
                while let Some(loc) = table.find(hash, &key) {
                    if table.set_mc_flags(loc, mc_flags).is_ok() {
                        model.get_mut(&key).expect("in both").mc_flags = mc_flags;
                        break;
                    }
                    table.split(hash);
                }
            }
            17 => {
                if let Some(loc) = table.find(hash, &key) {
                    let sticky = rng.below(2) == 0;
                    table.set_sticky(loc, sticky);
                    model.get_mut(&key).expect("in both").sticky = sticky;
                }
            }
            18 => {
                if let Some(loc) = table.find(hash, &key)
                    && let Some(string) = table.lend_string(loc)
                {
                    let Some(Key { value: Model::Str(bytes), .. }) = model.get(&key) else {
                        panic!("a string in both")
                    };
                    loans.push_back((string, bytes.clone()));
                    lent += 1;
                }
                // Some are read for long, some have ended before the key is looked at again.
                while loans.len() > 8 * (step as usize % 3) {
                    let (string, bytes) = loans.pop_front().expect("there are some");
                    assert!(*string == bytes, "what was lent has changed");
                }
            }
            19 => {
                let id = table.table.segment_of(hash);
                let third = rng.below(3) as usize;
                let is_sparse = |address: *const u8| address.addr() / 64 % 3 == third;
                table.relocate_segment(id, &mut Mover::new(&is_sparse, usize::MAX, usize::MAX));
            }
            _ => {
                if let Some(loc) = table.find(hash, &key)
                    && !table.is_object(loc)
                {
                    let Some(Key { value: Model::Str(bytes), .. }) = model.get_mut(&key) else {
                        panic!("a string in both")
                    };
                    let more = vec![b'a'; rng.below(900) as usize];
                    bytes.extend_from_slice(&more);
                    let edited = table.edit_string(loc, &mut scratch, |bytes| bytes.extend_from_slice(&more));
                    if let Edited::Store(()) = edited {
                        put(&mut table, &key, &Model::Str(scratch.clone()), Expiry::Keep);
                    }
                }
            }
        }
        assert_eq!(get(&table, &key), model.get(&key).cloned(), "step {step}");
        if rng.below(STEPS / 30) == 0 {
            table.check();
        }
    }
    table.check();
    assert_eq!(table.len(), model.len());
    for (key, want) in &model {
        assert_eq!(get(&table, key).as_ref(), Some(want));
    }
    // Taking the table apart hands out every collection.
    let mut objects = 0;
    loop {
        match table.free_some(3) {
            Freed::Some => {}
            Freed::Object(_) => objects += 1,
            Freed::Done => break,
        }
    }
    assert_eq!(objects, model.values().filter(|key| matches!(key.value, Model::Object(_))).count());
    assert!(lent > STEPS / 500, "{lent} strings were lent");
    assert!(
        loans.iter().all(|(string, bytes)| **string == *bytes),
        "the table has gone, what it lent has not"
    );
}

/// A string that is lent is changed by nobody, also not where it would be changed in its place, and counts for the table
/// for as long as the key has it. When nobody reads it any more it is changed in its place again.
#[test]
fn lent_strings_stay() {
    let mut table = Objects::new(5);
    let (key, hash) = (b"key".as_slice(), table.hash(b"key"));
    put(&mut table, key, &Model::Str(vec![b'a'; 10_000]), Expiry::Never);
    let counted = table.heap_bytes();
    let loc = table.find(hash, key).expect("stored");
    let taken = table.entry_bytes(loc);
    let (one, other) = (table.lend_string(loc).expect("long"), table.lend_string(loc).expect("long"));
    assert!((10_000..15_000).contains(&taken), "{taken} bytes");
    assert_eq!(table.entry_bytes(loc), taken, "a key takes no more because its value is lent");
    assert!(std::ptr::eq(one.as_ptr(), other.as_ptr()), "nothing is copied");
    assert!(matches!(table.value(loc), Value::Str(bytes) if std::ptr::eq(bytes, one.as_slice())));
    drop(other);
    assert_eq!(table.heap_bytes(), counted);
    table.edit_string(loc, &mut Vec::new(), |bytes| bytes[0] = b'b');
    assert!(one.iter().all(|&byte| byte == b'a') && std::sync::Arc::strong_count(&one) == 1);
    let two = table.lend_string(loc).expect("long");
    put(&mut table, key, &Model::Str(vec![b'c'; 10_000]), Expiry::Never);
    assert!(two[0] == b'b' && two[1] == b'a');
    let loc = table.find(hash, key).expect("stored");
    let at = table.lend_string(loc).expect("long").as_ptr();
    table.edit_string(loc, &mut Vec::new(), |bytes| bytes[0] = b'd');
    assert!(matches!(table.value(loc), Value::Str(bytes) if bytes[0] == b'd' && bytes.as_ptr() == at));
    table.check();
    let three = table.lend_string(loc).expect("long");
    table.remove(loc);
    table.check();
    assert!(three[0] == b'd' && three.len() == 10_000);
    put(&mut table, key, &Model::Str(b"short".to_vec()), Expiry::Never);
    let loc = table.find(hash, key).expect("stored");
    assert!(table.lend_string(loc).is_none(), "what is inside the table is copied");
}

/// What the design promises for the commonest shapes, table included, at the fill right before a split.
#[test]
fn small_entries_are_small() {
    let n = 100_000u32;
    for (name, value_len, expiry, limit) in
        [("16 + 32", 32, None, 72), ("16 + 200 + expiry", 200, Some(1_800_000_000_000), 258)]
    {
        let mut table = Objects::new(1);
        for i in 0..n {
            let key = format!("key:{i:012}");
            let value = Model::Str(vec![b'v'; value_len]);
            put(&mut table, key.as_bytes(), &value, expiry.map_or(Expiry::Never, Expiry::At));
        }
        let each = table.heap_bytes() / n as usize;
        assert!(each <= limit, "{name}: {each} bytes per key");
    }
    let mut table = Objects::new(1);
    for i in 0..n {
        put(
            &mut table,
            format!("key:{i:012}").as_bytes(),
            &Model::Str(i.to_string().into_bytes()),
            Expiry::Never,
        );
    }
    let each = table.heap_bytes() / n as usize;
    assert!(each <= 45, "16 + integer: {each} bytes per key");
}
