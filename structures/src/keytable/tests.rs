//! Model tests: every operation against a `HashMap` of plain values.

use std::collections::HashMap;
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

/// Values of every kind and length, expiries near and far, flags, keys inside and outside, edits in place: always
/// equal to the model, all counters exact, nothing leaked (Miri and the reference counts see to that).
#[test]
fn agrees_with_a_map() {
    let mut rng = Rng(0x1234_5678_9ABC_DEF1);
    let mut table = Objects::new(77);
    let mut model = HashMap::<Vec<u8>, Key>::new();
    let mut scratch = Vec::new();
    for step in 0..STEPS {
        let key = key_of(rng.below(STEPS / 20));
        let hash = table.hash(&key);
        match rng.below(20) {
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
