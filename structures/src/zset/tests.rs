//! Against a model: a `BTreeMap` for the order and a map for the scores.

use super::leaf::order_of;
use super::{Change, STEPS_AHEAD, ZSet};
use std::collections::{BTreeMap, BTreeSet};

/// xorshift64*: small, seeded, the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.next()) * end as u128) >> 64) as usize
    }
}

#[derive(Clone, Default)]
struct Model {
    order: BTreeSet<(u64, Vec<u8>)>,
    scores: BTreeMap<Vec<u8>, f64>,
}

impl Model {
    fn insert(&mut self, member: &[u8], score: f64) {
        self.remove(member);
        self.order.insert((order_of(score), member.to_vec()));
        self.scores.insert(member.to_vec(), score);
    }

    fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let score = self.scores.remove(member)?;
        assert!(self.order.remove(&(order_of(score), member.to_vec())));
        Some(score)
    }
}

fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits()
}

/// Everything that can be read is what the model says.
fn compare(set: &ZSet, model: &Model, random: &mut Random) {
    set.check();
    assert_eq!(set.len(), model.order.len());
    let all: Vec<(&[u8], f64)> = set.iter().collect();
    assert_eq!(all.len(), set.len());
    for (entry, (order, member)) in all.iter().zip(&model.order) {
        assert_eq!((entry.0, order_of(entry.1)), (&member[..], *order));
        assert!(same(entry.1, model.scores[member]), "{member:?}");
    }
    let back: Vec<(&[u8], f64)> = set.range_reverse(0..set.len()).collect();
    assert!(all.iter().rev().eq(&back));
    for _ in 0..20 {
        if all.is_empty() {
            break;
        }
        let (low, high) = (random.below(all.len() + 2), random.below(all.len() + 2));
        let expected = all.get(low..high.min(all.len())).unwrap_or_default();
        assert_eq!(set.range(low..high).collect::<Vec<_>>(), expected);
        assert!(set.range_reverse(low..high).eq(expected.iter().rev().copied()));
        let mut visited = expected.iter().copied();
        set.visit(low..high, |member, score| assert_eq!(Some((member, score)), visited.next()));
        assert_eq!(visited.next(), None);
        let mut visited = expected.iter();
        set.visit_members(low..high, |member| assert_eq!(Some(member), visited.next().map(|entry| entry.0)));
        assert_eq!(visited.next(), None);
        let rank = random.below(all.len());
        let (member, score) = all[rank];
        assert_eq!(set.rank(member), Some((rank, score)));
        assert_eq!(set.at(rank), Some((member, score)));
        assert_eq!(set.score(member), Some(score));
        for probe in [score, score + 0.5, -score, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(set.count_below_score(probe, false), all.partition_point(|entry| entry.1 < probe));
            assert_eq!(set.count_below_score(probe, true), all.partition_point(|entry| entry.1 <= probe));
        }
    }
}

/// A kind of data: how members and scores are drawn.
struct Kind {
    name: &'static str,
    members: usize,
    member: fn(usize) -> Vec<u8>,
    score: fn(&mut Random, usize) -> f64,
}

const KINDS: &[Kind] = &[
    Kind {
        name: "whole numbers",
        members: 6000,
        member: |i| format!("member:{i}").into_bytes(),
        score: |random, _| random.below(1_000_000) as f64,
    },
    Kind {
        name: "doubles of all sizes",
        members: 3000,
        member: |i| format!("{i:016x}").into_bytes(),
        score: |random, _| loop {
            let score = f64::from_bits(random.next());
            if !score.is_nan() {
                break score;
            }
        },
    },
    Kind {
        name: "few scores, zeros of both signs, infinities",
        members: 4000,
        member: |i| vec![b'm'; i % 37].into_iter().chain(i.to_be_bytes()).collect(),
        score: |random, _| {
            [0.0, -0.0, 1.0, -1.0, f64::INFINITY, f64::NEG_INFINITY, 1e-310, 0.1][random.below(8)]
        },
    },
    Kind {
        name: "equal scores, long common prefixes",
        members: 3000,
        member: |i| [&[b'p'; 200][..], format!("{i:05}").as_bytes()].concat(),
        score: |_, _| 7.0,
    },
    Kind {
        name: "lengths from nothing to large",
        members: 600,
        member: |i| {
            let mut member = vec![i as u8; [0, 1, 2, 255, 256, 257, 400, 3000][i % 8]];
            member.extend(i.to_string().bytes().filter(|_| i > 0));
            member
        },
        score: |random, _| random.below(50) as f64,
    },
    Kind {
        name: "ascending with time",
        members: 5000,
        member: |i| format!("event-{i}").into_bytes(),
        score: |_, step| 1_700_000_000_000.0 + step as f64,
    },
    Kind {
        name: "descending",
        members: 5000,
        member: |i| format!("event-{i}").into_bytes(),
        score: |_, step| -(step as f64) * 1.25,
    },
];

/// Random histories of every kind, with clones held on the way: reads agree with the model, and a clone never
/// sees what is written after it.
#[test]
fn agrees_with_the_model() {
    for (number, kind) in KINDS.iter().enumerate() {
        let mut random = Random(0x1234_5678 + number as u64);
        let (mut set, mut model) = (ZSet::new(number as u64), Model::default());
        let mut clones: Vec<(ZSet, Model)> = Vec::new();
        let steps = if cfg!(miri) { 300 } else { 24_000 };
        for step in 0..steps {
            // Grow for the first part, churn, then shrink.
            let remove_of_ten = match step * 4 / steps {
                0 | 1 => 1,
                2 => 5,
                _ => 9,
            };
            let member = (kind.member)(random.below(kind.members));
            if random.below(10) >= remove_of_ten {
                let score = (kind.score)(&mut random, step);
                let old = model.scores.get(&member).copied();
                let change = set.insert(&member, score);
                match old {
                    None => assert_eq!(change, Change::Added),
                    Some(old) if old == score => assert_eq!(change, Change::Kept(old)),
                    Some(old) => assert_eq!(change, Change::Updated(old)),
                }
                if old != Some(score) {
                    model.insert(&member, score);
                }
            } else {
                assert_eq!(set.remove(&member), model.remove(&member), "{} step {step}", kind.name);
            }
            assert_eq!(set.score(&member), model.scores.get(&member).copied());
            if step % (steps / 8) == 0 {
                compare(&set, &model, &mut random);
                assert_eq!(set.clone().heap_bytes(), set.heap_bytes());
                clones.push((set.clone(), model.clone()));
            }
        }
        compare(&set, &model, &mut random);
        for (clone, model) in &clones {
            compare(clone, model, &mut random);
        }
    }
}

/// A set built at once is the set that insertions make, whatever the order of the members: up, down, broken by one at the
/// end, none at all; also if members come twice. What is done with it afterwards goes as with any other.
#[test]
fn built_at_once() {
    for (number, kind) in KINDS.iter().enumerate() {
        let mut random = Random(0x9876_5432 + number as u64);
        for count in [0, 1, 2, 3, 90, if cfg!(miri) { 200 } else { 2500 }] {
            let mut model = Model::default();
            for step in 0..count {
                let member = (kind.member)(random.below(kind.members));
                if !model.scores.contains_key(&member) {
                    model.insert(&member, (kind.score)(&mut random, step));
                }
            }
            let up: Vec<(&[u8], f64)> =
                model.order.iter().map(|(_, member)| (&member[..], model.scores[member])).collect();
            let down: Vec<_> = up.iter().rev().copied().collect();
            let mut broken = down.clone();
            broken.rotate_left(usize::from(count > 2));
            let mut shuffled = up.clone();
            (1..shuffled.len()).for_each(|at| shuffled.swap(at, random.below(at + 1)));
            let other_scores = up.iter().map(|&(member, _)| (member, f64::INFINITY));
            let twice: Vec<_> = up.iter().copied().chain(other_scores).chain(up.iter().copied()).collect();
            let pairs: Vec<_> = up.iter().flat_map(|&entry| [entry, entry]).collect();
            for members in [&up, &down, &broken, &shuffled, &twice, &pairs] {
                let mut set = ZSet::collect(number as u64, members.iter().copied());
                // Of two zeros the one that was there first stays; after another score in between, the last.
                compare(&set, &model, &mut random);
                assert_eq!(set.clone().heap_bytes(), set.heap_bytes());
                let mut model = model.clone();
                for step in 0..count.min(500) {
                    let member = (kind.member)(random.below(kind.members));
                    if random.below(3) > 0 {
                        let score = (kind.score)(&mut random, step);
                        if model.scores.get(&member) != Some(&score) {
                            model.insert(&member, score);
                        }
                        set.insert(&member, score);
                    } else {
                        assert_eq!(set.remove(&member), model.remove(&member), "{}", kind.name);
                    }
                }
                compare(&set, &model, &mut random);
            }
        }
    }
}

/// A set built at once takes no more memory than one of insertions in order, which are the best case.
#[test]
fn built_at_once_is_tight() {
    for count in [200, 1000, 5000, 70_000] {
        let members: Vec<String> = (0..count).map(|number| format!("member:{number:08}")).collect();
        let members = || members.iter().enumerate().map(|(score, member)| (member.as_bytes(), score as f64));
        let mut one_by_one = ZSet::new(3);
        for (member, score) in members() {
            one_by_one.insert(member, score);
        }
        let at_once = ZSet::collect(3, members());
        assert!(
            at_once.heap_bytes() <= one_by_one.heap_bytes() * 102 / 100,
            "{} {}",
            at_once.heap_bytes(),
            one_by_one.heap_bytes()
        );
    }
}

/// Range removals and pops take what they say, at every size, down to nothing.
#[test]
fn ranges_are_removed() {
    let mut random = Random(99);
    for round in 0..if cfg!(miri) { 1 } else { 12 } {
        let (mut set, mut model) = (ZSet::new(5), Model::default());
        for i in 0..if cfg!(miri) { 150 } else { 4000 } {
            let member = format!("m{}", i * 7919 % 100_003);
            let score = if round % 2 == 0 { random.below(500) as f64 } else { 3.0 };
            set.insert(member.as_bytes(), score);
            model.insert(member.as_bytes(), score);
        }
        while !set.is_empty() {
            if random.below(4) == 0 {
                let (low, high) = (set.at(0), set.at(set.len() - 1));
                let (low, high) = (low.map(|e| (e.0.to_vec(), e.1)), high.map(|e| (e.0.to_vec(), e.1)));
                assert_eq!(set.pop_min(), low);
                model.remove(&low.unwrap().0);
                if !set.is_empty() {
                    assert_eq!(set.pop_max(), high);
                    model.remove(&high.unwrap().0);
                }
            } else {
                let from = random.below(set.len());
                let until = from + random.below(if round % 3 == 0 { 5000 } else { 300 });
                let gone: Vec<Vec<u8>> = set.range(from..until).map(|entry| entry.0.to_vec()).collect();
                assert_eq!(set.remove_range(from..until), gone.len());
                for member in gone {
                    model.remove(&member);
                }
            }
            compare(&set, &model, &mut random);
        }
        assert_eq!(set.remove_range(0..10), 0);
        assert!(set.pop_min().is_none() && set.pop_max().is_none() && set.at(0).is_none());
    }
}

/// With equal scores, bounds by member count what a sorted list of the members counts.
#[test]
fn bounds_by_member() {
    let mut set = ZSet::new(1);
    let mut members: Vec<Vec<u8>> =
        (0..2000u32).map(|i| format!("k{}", i * 37 % 2003).into_bytes()).collect();
    for member in &members {
        set.insert(member, 0.0);
    }
    members.sort();
    for probe in members.iter().map(|member| &member[..]).chain([&b""[..], b"k", b"k1000x", b"z", b"\xff"]) {
        let below = members.partition_point(|member| &member[..] < probe);
        let at_most = members.partition_point(|member| &member[..] <= probe);
        assert_eq!(set.count_below_member(probe, false), below);
        assert_eq!(set.count_below_member(probe, true), at_most);
    }
    assert_eq!(ZSet::new(1).count_below_member(b"a", true), 0);
}

/// -0 and 0 are one score: the first written stays, and the order among both is that of the members.
#[test]
fn negative_zero() {
    let mut set = ZSet::new(1);
    assert_eq!(set.insert(b"b", -0.0), Change::Added);
    assert_eq!(set.insert(b"b", 0.0), Change::Kept(-0.0));
    set.insert(b"a", 0.0);
    set.insert(b"c", -0.0);
    let entries: Vec<_> = set.iter().collect();
    assert_eq!(entries.iter().map(|e| e.0).collect::<Vec<_>>(), [b"a", b"b", b"c"]);
    assert_eq!(entries.iter().map(|e| e.1.is_sign_negative()).collect::<Vec<_>>(), [false, true, true]);
    assert_eq!(set.count_below_score(0.0, false), 0);
    assert_eq!(set.count_below_score(-0.0, true), 3);
    set.insert(b"c", 1.0);
    assert!(same(set.score(b"c").unwrap(), 1.0));
    set.check();
}

/// The largest score has no successor but infinity, and infinity none: bounds around them still count.
#[test]
fn bounds_at_the_ends_of_the_scores() {
    let mut set = ZSet::new(1);
    for (i, score) in
        [f64::NEG_INFINITY, f64::MIN, -f64::MIN_POSITIVE, f64::MAX, f64::INFINITY].iter().enumerate()
    {
        set.insert(&[i as u8], *score);
    }
    assert_eq!(set.count_below_score(f64::INFINITY, true), 5);
    assert_eq!(set.count_below_score(f64::INFINITY, false), 4);
    assert_eq!(set.count_below_score(f64::NEG_INFINITY, true), 1);
    assert_eq!(set.count_below_score(f64::NEG_INFINITY, false), 0);
    assert_eq!(set.count_below_score(f64::MAX, true), 4);
}

/// Conditions see the present score, and "no" changes nothing.
#[test]
fn conditions() {
    let mut set = ZSet::new(1);
    assert_eq!(set.insert_with(b"a", |old| old.map(|_| 1.0)), Change::Absent);
    assert!(set.is_empty());
    assert_eq!(set.insert_with(b"a", |old| Some(old.unwrap_or(0.0) + 2.5)), Change::Added);
    assert_eq!(set.insert_with(b"a", |old| Some(old.unwrap_or(0.0) + 2.5)), Change::Updated(2.5));
    assert_eq!(set.insert_with(b"a", |_| None), Change::Kept(5.0));
    set.check();
}

/// Inserting in order, from either side, leaves full leaves behind: the bytes per member are those of a packed
/// set, well below what half-full leaves would need.
#[test]
fn ordered_insertion_is_dense() {
    for descending in [false, true] {
        let mut set = ZSet::new(3);
        let count = if cfg!(miri) { 300 } else { 30_000 };
        for i in 0..count {
            let score = if descending { -f64::from(i) } else { f64::from(i) };
            set.insert(format!("member:{i:08}").as_bytes(), score);
        }
        set.check();
        if !cfg!(miri) {
            let per_member = set.heap_bytes() as f64 / f64::from(count);
            assert!(per_member < 30.0, "{per_member}");
        }
    }
}

/// Taking a set apart in steps ends, counts down to what an empty set holds, and leaves a clone whole.
#[test]
fn freed_in_steps() {
    for shared in [false, true] {
        let mut set = ZSet::new(3);
        for i in 0..if cfg!(miri) { 200 } else { 60_000u64 } {
            set.insert(&i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes(), i as f64);
        }
        let clone = shared.then(|| set.clone());
        let mut steps = 0;
        while !set.free_some(10) {
            steps += 1;
            assert!(steps < 1_000_000);
        }
        assert!(set.heap_bytes() < 2048, "{}", set.heap_bytes());
        if let Some(clone) = clone {
            clone.check();
        }
    }
}

/// A clone is cheap, and writing to it copies a path, not the set.
#[test]
fn clones_share() {
    let mut set = ZSet::new(3);
    for i in 0..if cfg!(miri) { 200 } else { 20_000u32 } {
        set.insert(&i.to_be_bytes(), f64::from(i % 1000));
    }
    let mut clone = set.clone();
    clone.remove_range(0..100);
    clone.insert(b"new", 3.5);
    set.insert(b"other", 4.5);
    assert_eq!(set.score(b"new"), None);
    assert_eq!(clone.score(b"other"), None);
    set.check();
    clone.check();
}

/// A walk shows every member that stays, and none twice, while others come and go by the thousand.
#[test]
fn scan_while_it_grows_and_shrinks() {
    let rounds = if cfg!(miri) { 2 } else { 60 };
    let mut random = Random(23);
    for round in 0..rounds {
        let mut set = ZSet::new(round);
        let stay = random.below(400) + 1;
        for i in 0..stay {
            set.insert(format!("stay{i}").as_bytes(), i as f64);
        }
        let (mut seen, mut cursor, mut others) = (BTreeSet::new(), 0, 0);
        loop {
            cursor = set.scan(cursor, |member, score| {
                assert_eq!(set.score(member), Some(score));
                if member.starts_with(b"stay") {
                    assert!(seen.insert(member.to_vec()), "shown twice");
                }
            });
            if cursor == 0 {
                break;
            }
            let wanted = if random.below(2) == 0 { 0 } else { random.below(3000) };
            while others < wanted {
                set.insert(format!("other{others}").as_bytes(), 0.5);
                others += 1;
            }
            while others > wanted {
                others -= 1;
                set.remove(format!("other{others}").as_bytes());
            }
            // Moving a member about does not hide it.
            set.insert(format!("stay{}", random.below(stay)).as_bytes(), random.below(1000) as f64);
        }
        assert_eq!(seen.len(), stay);
    }
    // No cursor is wrong.
    let mut set = ZSet::new(1);
    assert_eq!(set.scan(12345, |_, _| panic!("nothing is there")), 0);
    set.insert(b"a", 1.0);
    for cursor in [u64::MAX, 1 << 63, 1, 99] {
        set.scan(cursor, |_, _| {});
    }
}

/// Looking ahead changes nothing and may be of members, scores and sets of any kind.
#[test]
fn looking_ahead_is_harmless() {
    let mut set = ZSet::new(7);
    for number in 0..5000 {
        set.ahead(b"nobody", Some(f64::NAN)).step();
        let member = format!("member:{number}");
        let mut ahead = set.ahead(member.as_bytes(), Some(f64::from(number % 100)));
        (0..STEPS_AHEAD + 2).for_each(|_| ahead.step());
        set.insert(member.as_bytes(), f64::from(number % 100));
    }
    set.check();
    assert_eq!(set.len(), 5000);
}

/// `for_each` has a way of its own.
#[test]
fn a_walk_in_one_go_shows_what_single_steps_show() {
    let mut set = ZSet::new(8);
    for number in 0..3000u32 {
        let member =
            vec![b'a' + (number % 26) as u8; if number % 50 == 0 { 400 } else { number as usize % 40 }];
        set.insert(&[&number.to_be_bytes()[..], &member].concat(), f64::from(number % 7) - 3.0);
    }
    set.insert(b"zero", -0.0);
    for ranks in [0..set.len(), 0..1, 17..1234, set.len() - 1..set.len(), 5..5] {
        for reverse in [false, true] {
            let walk = || set.walk(ranks.clone(), reverse);
            let (mut stepped, mut walked) = (Vec::new(), Vec::new());
            for (member, score) in walk() {
                stepped.push((member, score.to_bits()));
            }
            walk().for_each(|(member, score)| walked.push((member, score.to_bits())));
            assert_eq!(walked, stepped);
            assert_eq!(walked.len(), ranks.len());
        }
    }
}
