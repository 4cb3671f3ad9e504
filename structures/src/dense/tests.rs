//! Model tests: sets and hashes against the standard library's maps, with a clock that is a number.

use std::collections::{HashMap, HashSet};

use super::*;
use crate::alloc::good_size;
use crate::keytable::Expiry;
use crate::pack::Item;
use crate::table::BLOCK_LEN;

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

const STEPS: u64 = if cfg!(miri) { 600 } else { 400_000 };
const NAMES: u64 = if cfg!(miri) { 400 } else { 15_000 };
/// How often everything is compared.
const LOOKS: u64 = if cfg!(miri) { 3 } else { 40 };

/// The n-th name: words, numbers of every width, and strings around every limit of the entry's forms. A few
/// numbers coincide.
fn name(n: u64) -> Vec<u8> {
    let filled = |len: usize| {
        let mut bytes = format!("{n}:").into_bytes();
        bytes.resize(len.max(bytes.len()), b'x');
        bytes
    };
    match n % 16 {
        0 => filled(110 + (n / 16 % 4) as usize),
        1 => filled(238 + (n / 16 % 5) as usize),
        2 => filled(500 + (n / 16 % 6) as usize),
        3 if n % 64 == 3 => filled(2_000),
        4..=7 => ((n as i64) << (n % 57) >> (n % 3))
            .wrapping_mul(if n.is_multiple_of(2) { 1 } else { -1 })
            .to_string()
            .into(),
        8 => format!("0{n}").into_bytes(),
        _ => format!("name:{n}").into_bytes(),
    }
}

fn value(rng: &mut Rng) -> Vec<u8> {
    match rng.below(12) {
        0 => Vec::new(),
        1..=3 => (rng.next() as i64 >> rng.below(64)).to_string().into_bytes(),
        4 => vec![b'v'; 110 + rng.below(4) as usize],
        5 => vec![b'v'; 250 + rng.below(255) as usize],
        6 => vec![b'v'; 490 + rng.below(1_000) as usize],
        _ => vec![rng.next() as u8; rng.below(30) as usize],
    }
}

/// A member or field lives at `now` if this holds for its expiry.
fn lives(expire_at: Option<u64>, now: u64) -> bool {
    expire_at.is_none_or(|at| at > now)
}

fn expiry(rng: &mut Rng, now: u64) -> Option<u64> {
    match rng.below(4) {
        0 => Some(now + rng.below(STEPS / 2)),
        1 if rng.below(50) == 0 => Some(u64::MAX - rng.below(9)),
        _ => None,
    }
}

fn capped(expire_at: Option<u64>) -> Option<u64> {
    expire_at.map(|at| at.min((1 << 48) - 1))
}

type SetModel = HashMap<Vec<u8>, Option<u64>>;
type HashModel = HashMap<Vec<u8>, (Vec<u8>, Option<u64>)>;

fn same_set(set: &DenseSet, model: &SetModel, now: u64) {
    set.check();
    let mut seen = HashSet::new();
    for member in set.iter(now) {
        let bytes = member.member.to_vec();
        assert_eq!(member.member, Item::of(&bytes), "numbers come out as numbers");
        assert_eq!(model.get(&bytes), Some(&member.expire_at));
        assert!(seen.insert(bytes), "no member twice");
    }
    assert_eq!(seen.len(), model.values().filter(|at| lives(**at, now)).count());
}

fn same_hash(hash: &DenseHash, model: &HashModel, now: u64) {
    hash.check();
    let mut seen = HashSet::new();
    for field in hash.iter(now) {
        let bytes = field.field.to_vec();
        assert_eq!(model.get(&bytes), Some(&(field.value.to_vec(), field.expire_at)));
        assert!(seen.insert(bytes), "no field twice");
    }
    assert_eq!(seen.len(), model.values().filter(|(_, at)| lives(*at, now)).count());
}

/// Every operation of a set agrees with a map while it grows and shrinks and time passes; clones taken on the way
/// keep the state of their time, and accounting holds at every look.
#[test]
fn set_agrees_with_a_map() {
    let mut rng = Rng(0x9E37_79B9_7F4A_7C15);
    let mut set = DenseSet::new(42);
    let mut model = SetModel::new();
    let mut cut: Option<(DenseSet, SetModel, u64)> = None;
    for now in 0..STEPS {
        let name = name(rng.below(NAMES));
        let lived = model.get(&name).is_some_and(|at| lives(*at, now));
        if !lived {
            model.remove(&name);
        }
        let shrinking = now / (STEPS / 6) % 2 == 1;
        match rng.below(12) {
            0 => {
                let at = expiry(&mut rng, now);
                assert_eq!(set.set_expire(&name, at, now), lived);
                if lived {
                    model.insert(name.clone(), capped(at));
                }
            }
            1 if shrinking => {
                let popped = set.pop(now, || rng.next(), |member| (member.member.to_vec(), member.expire_at));
                match popped {
                    Some((member, at)) => {
                        assert_eq!(model.remove(&member), Some(at));
                        assert!(lives(at, now));
                    }
                    None => assert!(!model.values().any(|at| lives(*at, now))),
                }
            }
            n if n < if shrinking { 8 } else { 4 } => {
                assert_eq!(set.remove(&name, now), lived);
                model.remove(&name);
            }
            _ => {
                let at = expiry(&mut rng, now);
                assert_eq!(set.insert_until(&name, at, now), !lived);
                if !lived {
                    model.insert(name.clone(), capped(at));
                }
            }
        }
        let want = model.get(&name).copied().filter(|at| lives(*at, now));
        assert_eq!(set.expire_at(&name, now), want);
        assert_eq!(set.contains(&name, now), want.is_some());
        if rng.below(STEPS / LOOKS) == 0 {
            same_set(&set, &model, now);
            if let Some((cut, model, now)) = cut.take() {
                same_set(&cut, &model, now);
            }
            cut = Some((set.clone(), model.clone(), now));
        }
        if rng.below(STEPS / LOOKS) == 0 {
            let mut gone = Vec::new();
            while set.next_expiry().is_some_and(|at| at <= now) {
                set.expire(now, 1 + rng.below(20) as usize, |member| gone.push(member.to_vec()));
            }
            for member in gone {
                assert!(model.remove(&member).is_none_or(|at| !lives(at, now)), "only what has expired");
            }
            model.retain(|_, at| lives(*at, now));
            assert_eq!(set.len(), model.len(), "all that had expired is gone");
            assert_eq!(set.expiring(), model.values().filter(|at| at.is_some()).count());
            assert!(set.next_expiry().is_none_or(|at| at > now));
        }
    }
    same_set(&set, &model, STEPS);
}

/// The same for a hash, with overwrites in every direction between forms and lengths.
#[test]
fn hash_agrees_with_a_map() {
    let mut rng = Rng(0xD1B5_4A32_D192_ED03);
    let mut hash = DenseHash::new(43);
    let mut model = HashModel::new();
    let mut cut: Option<(DenseHash, HashModel, u64)> = None;
    for now in 0..STEPS {
        let name = name(rng.below(NAMES));
        let lived = model.get(&name).is_some_and(|(_, at)| lives(*at, now));
        if !lived {
            model.remove(&name);
        }
        let shrinking = now / (STEPS / 6) % 2 == 1;
        match rng.below(12) {
            0 => {
                let at = expiry(&mut rng, now);
                assert_eq!(hash.set_expire(&name, at, now), lived);
                if let Some(pair) = model.get_mut(&name) {
                    pair.1 = capped(at);
                }
            }
            1 => {
                let by = rng.next() as i64 >> rng.below(64);
                let old = model.get(&name).map_or(&b"0"[..], |pair| &pair.0);
                let want = match Item::of(old) {
                    Item::Bytes(_) => Err(NotAdded::NotInteger),
                    Item::Int(old) => old.checked_add(by).ok_or(NotAdded::Overflow),
                };
                assert_eq!(hash.add(&name, by, now), want);
                if let Ok(sum) = want {
                    model.entry(name.clone()).or_default().0 = sum.to_string().into_bytes();
                }
            }
            n if n < if shrinking { 8 } else { 4 } => {
                assert_eq!(hash.remove(&name, now), lived);
                model.remove(&name);
            }
            _ => {
                let value = value(&mut rng);
                let (expiry, at) = match rng.below(3) {
                    0 => (Expiry::Keep, model.get(&name).and_then(|pair| pair.1)),
                    1 => (Expiry::Never, None),
                    _ => expiry(&mut rng, now).map_or((Expiry::Never, None), |at| (Expiry::At(at), Some(at))),
                };
                assert_eq!(hash.set(&name, &value, expiry, now), !lived);
                model.insert(name.clone(), (value, capped(at)));
            }
        }
        let want = model.get(&name).filter(|(_, at)| lives(*at, now));
        assert_eq!(hash.get(&name, now), want.map(|pair| Item::of(&pair.0)));
        assert_eq!(hash.expire_at(&name, now), want.map(|pair| pair.1));
        if rng.below(STEPS / LOOKS) == 0 {
            same_hash(&hash, &model, now);
            if let Some((cut, model, now)) = cut.take() {
                same_hash(&cut, &model, now);
            }
            cut = Some((hash.clone(), model.clone(), now));
        }
        if rng.below(STEPS / LOOKS) == 0 {
            let mut gone = 0;
            while hash.next_expiry().is_some_and(|at| at <= now) {
                let limit = 1 + rng.below(20) as usize;
                let step = hash.expire(now, limit, |_| gone += 1);
                assert!(step <= limit);
            }
            let before = model.len();
            model.retain(|_, (_, at)| lives(*at, now));
            assert!(gone >= before - model.len(), "the model forgets some of the expired earlier");
            assert_eq!(hash.len(), model.len());
            assert!(hash.next_expiry().is_none_or(|at| at > now));
        }
    }
    same_hash(&hash, &model, STEPS);
}

/// SCAN's guarantee holds through growth and through removals, which join segments.
#[test]
fn scan_visits_what_stays() {
    let comer = |n| [&b"o"[..], &name(n)].concat();
    for seed in 1..if cfg!(miri) { 2 } else { 20 } {
        let mut rng = Rng(seed);
        let mut set = DenseSet::new(seed);
        for n in 0..NAMES / 8 {
            set.insert(&name(n), 0);
        }
        let mut seen = HashSet::new();
        let mut cursor = Cursor::default();
        let (mut other, mut steps) = (NAMES, 0u64);
        loop {
            cursor = set.scan(cursor, 0, |member| {
                seen.insert(member.member.to_vec());
            });
            if cursor == Cursor::default() {
                break;
            }
            steps += 1;
            assert!(steps < 1_000_000, "the walk ends");
            for _ in 0..rng.below(60) {
                if steps / 150 % 2 == 0 && other < NAMES * 3 {
                    set.insert(&comer(other), 0);
                    other += 1;
                } else if other > NAMES {
                    other -= 1;
                    set.remove(&comer(other), 0);
                }
            }
        }
        for n in 0..NAMES / 8 {
            assert!(seen.contains(&name(n)), "seed {seed}: member {n} was there all the time");
        }
    }
}

/// What shrinks gives its memory back as it goes, by removal, by random pops and by expiry, down to one segment.
#[test]
fn memory_comes_back() {
    let members = if cfg!(miri) { 900 } else { 60_000 };
    let member = |n: u64| format!("member:{n:020}").into_bytes();
    let mut full = DenseSet::new(3);
    for n in 0..members {
        full.insert_until(&member(n), Some(1_000 + n), 0);
    }
    let per_member = full.heap_bytes() as f64 / members as f64;
    type Way = fn(&mut DenseSet, u64, &mut Rng);
    let ways: [Way; 3] = [
        |set, n, _| assert!(set.remove(format!("member:{n:020}").as_bytes(), 0)),
        |set, _, rng| assert!(set.pop(0, || rng.next(), |_| ()).is_some()),
        |set, n, _| {
            while set.next_expiry().is_some_and(|at| at <= 1_000 + n) {
                set.expire(1_000 + n, 50, |_| ());
            }
        },
    ];
    let ways = if cfg!(miri) { &ways[1..2] } else { &ways[..] };
    for way in ways {
        let mut rng = Rng(5);
        let mut set = DenseSet::new(3);
        for n in 0..members {
            set.insert_until(&member(n), Some(1_000 + n), 0);
        }
        for n in 0..members {
            way(&mut set, n, &mut rng);
            if n % 97 == 0 && set.len() > 1_000 {
                let now = set.heap_bytes() as f64 / set.len() as f64;
                assert!(now < 3.0 * per_member, "{now:.0} bytes each of {} members", set.len());
            }
        }
        set.check();
        assert_eq!(set.len(), 0);
        assert!(set.heap_bytes() <= BLOCK_LEN + 16, "{} bytes of nothing", set.heap_bytes());
    }
    let mut shared = full.clone();
    let mut rng = Rng(6);
    while shared.len() > members as usize - 200 {
        assert!(shared.pop(0, || rng.next(), |_| ()).is_some());
    }
    shared.check();
    full.check();
    assert_eq!(full.len(), members as usize);
}

/// Strings outside are counted with their size class, once per holder, and freed step by step with the rest.
#[test]
fn strings_outside_are_counted() {
    let mut hash = DenseHash::new(9);
    let empty = hash.heap_bytes();
    let (long_field, long_value) = (vec![b'f'; 5_000], vec![b'v'; 3_000]);
    assert!(hash.set(&long_field, &long_value, Expiry::Never, 0));
    let outside = good_size(5_000) + good_size(3_000);
    assert!(hash.heap_bytes() > empty + outside);
    assert!(hash.heap_bytes() <= empty + outside + BLOCK_LEN);
    let mut clone = hash.clone();
    assert_eq!(clone.heap_bytes(), hash.heap_bytes());
    assert!(!clone.set(&long_field, b"17", Expiry::At(77), 0));
    assert_eq!(clone.heap_bytes(), hash.heap_bytes() - good_size(3_000));
    assert!(clone.set_expire(&long_field, None, 5));
    assert_eq!(clone.get(&long_field, u64::MAX), Some(Item::Int(17)));
    assert_eq!(hash.get(&long_field, 0), Some(Item::Bytes(&long_value)));
    for n in 0..if cfg!(miri) { 500 } else { 3_000u32 } {
        hash.set(&n.to_le_bytes(), &vec![1; (n * 7 % 700) as usize], Expiry::Never, 0);
    }
    hash.check();
    let copy = hash.clone();
    let mut left = hash.heap_bytes();
    while !hash.free_some(1) {
        assert!(hash.heap_bytes() < left);
        left = hash.heap_bytes();
    }
    assert!(hash.heap_bytes() <= good_size(8 * 1024), "only the directory is left");
    drop(hash);
    copy.check();
    clone.check();
}

/// A clone may be read, iterators and all, while the original writes, drops and sweeps the segments they share.
#[test]
fn readers_of_a_clone() {
    let members = if cfg!(miri) { 800 } else { 5_000 };
    let mut set = DenseSet::new(1);
    for n in 0..members {
        set.insert_until(format!("{n} is a member").as_bytes(), Some(100 + n % 7), 0);
    }
    let clone = set.clone();
    let mut walk = clone.iter(0);
    let first = walk.next();
    set.expire(102, usize::MAX, |_| ());
    set.set_expire(b"5 is a member", None, 102);
    set.expire(200, 3, |_| ());
    set.remove(b"6 is a member", 0);
    drop(set);
    assert!(first.is_some());
    assert_eq!(walk.count() as u64, members - 1);
    clone.check();
}

/// Popping many at once takes each live member once, expired ones silently, and the rest stays.
#[test]
fn pop_many() {
    let members: usize = if cfg!(miri) { 400 } else { 20_000 };
    let mut rng = Rng(17);
    let mut set = DenseSet::new(23);
    for n in 0..members {
        set.insert_until(format!("member {n}").as_bytes(), (n % 3 == 0).then_some(10), 0);
    }
    let live = members - members.div_ceil(3);
    let mut seen = HashSet::new();
    for count in [0, 1, 16, 17, live / 2] {
        let before = seen.len();
        let popped =
            set.pop_many(count, 10, || rng.next(), |member| assert!(seen.insert(member.member.to_vec())));
        assert_eq!((popped, seen.len()), (count, before + count));
        assert!(seen.iter().all(|member| !set.contains(member, 0)));
        set.check();
    }
    let rest =
        set.pop_many(usize::MAX, 10, || rng.next(), |member| assert!(seen.insert(member.member.to_vec())));
    assert_eq!((seen.len(), set.len()), (live, 0));
    assert!(rest < live / 2);
    set.check();
}

/// Picks are fair while half of the segments have been split, and in a set of a few; expired members are never
/// picked, however few others there are.
#[test]
fn random_picks() {
    let mut rng = Rng(99);
    let members = if cfg!(miri) { 30 } else { 1_000 };
    for members in [3, members] {
        let mut set = DenseSet::new(11);
        assert!(set.random(0, || 1).is_none());
        for n in 0..members {
            set.insert(format!("m{n}").as_bytes(), 0);
        }
        let mut picks = HashMap::<Vec<u8>, u32>::new();
        for _ in 0..members * 100 {
            let member = set.random(0, || rng.next()).expect("not empty");
            *picks.entry(member.member.to_vec()).or_default() += 1;
        }
        assert_eq!(picks.len(), members);
        // Fifty is five standard deviations away.
        assert!(picks.values().all(|&n| (50..150).contains(&n)), "a hundred expected of each");
        for n in 1..members {
            set.set_expire(format!("m{n}").as_bytes(), Some(10), 0);
        }
        for _ in 0..20 {
            assert_eq!(set.random(10, || rng.next()).map(|m| m.member), Some(Item::Bytes(b"m0")));
        }
        assert_eq!(set.pop(10, || rng.next(), |m| m.member.to_vec()), Some(b"m0".to_vec()));
        assert_eq!(set.pop(10, || rng.next(), |_| ()), None);
        assert_eq!(set.len(), 0, "what is drawn and has expired goes");
    }
}

/// The small hash agrees with a map, within its limits: every form of string, expiries that come and go, overwrites
/// in every direction, values inside and outside; copies own theirs. It shows fields in the order in which they came,
/// and its memory is what it says.
#[test]
fn small_hash_agrees_with_a_map() {
    let mut rng = Rng(0xA076_1D64_78BD_642F);
    let mut hash = SmallHash::new();
    let mut model = HashModel::new();
    let mut cut: Option<(SmallHash, HashModel)> = None;
    for now in 0..STEPS / 4 {
        let mut name = name(rng.below(60) * 7);
        name.truncate(240);
        let lived = model.get(&name).is_some_and(|(_, at)| lives(*at, now));
        if !lived {
            model.remove(&name);
        }
        match rng.below(12) {
            0..=1 => {
                let at = expiry(&mut rng, now);
                assert_eq!(hash.set_expire(&name, at, now), lived);
                if let Some(pair) = model.get_mut(&name) {
                    pair.1 = capped(at);
                }
            }
            n if n < if now / 1_000 % 2 == 1 { 9 } else { 4 } => {
                assert_eq!(hash.remove(&name, now), lived);
                model.remove(&name);
            }
            _ => {
                let value = value(&mut rng);
                let (expiry, at) = match rng.below(3) {
                    0 => (Expiry::Keep, model.get(&name).and_then(|pair| pair.1)),
                    1 => (Expiry::Never, None),
                    _ => expiry(&mut rng, now).map_or((Expiry::Never, None), |at| (Expiry::At(at), Some(at))),
                };
                assert_eq!(hash.set(&name, &value, expiry, now), !lived);
                model.insert(name.clone(), (value, capped(at)));
            }
        }
        let want = model.get(&name).filter(|(_, at)| lives(*at, now));
        assert_eq!(hash.get(&name, now), want.map(|pair| Item::of(&pair.0)));
        assert_eq!(hash.expire_at(&name, now), want.map(|pair| pair.1));
        if rng.below(100) == 0 {
            let shown = |hash: &SmallHash| -> HashModel {
                hash.iter(0)
                    .map(|field| (field.field.to_vec(), (field.value.to_vec(), field.expire_at)))
                    .collect()
            };
            if let Some((hash, seen)) = cut.replace((hash.clone(), shown(&hash))) {
                assert_eq!(shown(&hash), seen, "a copy keeps what it was made of");
            }
            for hash in [&hash, &hash.clone()] {
                hash.check();
                let seen: HashModel = hash
                    .iter(now)
                    .map(|field| (field.field.to_vec(), (field.value.to_vec(), field.expire_at)))
                    .collect();
                let alive = model.iter().filter(|(_, (_, at))| lives(*at, now));
                assert_eq!(seen, alive.map(|(name, pair)| (name.clone(), pair.clone())).collect());
            }
        }
        if rng.below(200) == 0 {
            let (mut gone, before) = (0, hash.len());
            let (removed, earliest) = hash.expire(now, |_| gone += 1);
            model.retain(|_, (_, at)| lives(*at, now));
            assert_eq!((removed, before - removed, hash.len()), (gone, model.len(), model.len()));
            assert_eq!(earliest, model.values().filter_map(|(_, at)| *at).min());
        }
    }
    let names: Vec<Vec<u8>> = (0..10).map(|n| format!("field:{n:02}").into_bytes()).collect();
    let mut ten = SmallHash::new();
    names.iter().for_each(|name| assert!(ten.set(name, b"value:1234", Expiry::Never, 0)));
    assert!(ten.iter(0).map(|field| field.field.to_vec()).eq(names.clone()));
    assert_eq!(ten.heap_bytes(), good_size(8 + 10 * (1 + 8 + 1 + 10)));
    assert!(ten.takes(&[b'x'; 240]) && !ten.takes(&[b'x'; 241]));
    assert!(!ten.set(&names[3], &[b'x'; 1 << 16], Expiry::Never, 0));
    assert_eq!(ten.heap_bytes(), good_size(8 + 10 * (1 + 8 + 1 + 10) + 2) + (1 << 16));
}
