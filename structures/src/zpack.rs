//! A small sorted set: (member, score) pairs in a pack, ordered by score and then by the member's bytes.
//!
//! Up to some hundred members a scan beats any index, and a pair takes a few bytes more than its member. Each
//! pair is two entries, member first. An integral score is stored as an integer entry, one byte for 0 to 127;
//! any other as the eight bytes of the double. Ranks, counters and timestamps, the usual scores, are
//! integral: a hundred members of ten bytes take 1300 bytes instead of 2110, and walking them takes two
//! thirds of the time.
//!
//! What must stay true ([`Zpack::check`]): pairs ascend; no member is there twice; no score is NaN; minus
//! zero is kept as given and sorts as zero.

use std::cmp::Ordering;

use crate::moves::Mover;
use crate::pack::{self, Item, Pack, Pos};
use crate::zset::Change;

/// See the head of the module.
#[derive(Clone, Default, Debug)]
pub struct Zpack {
    pack: Pack,
}

/// Doubles below this have every integer next to them: an integer entry is exact.
const INTEGRAL_MAX: f64 = 9_007_199_254_740_992.0;

#[inline]
fn score_of(item: Item<'_>) -> f64 {
    match item {
        Item::Int(score) => score as f64,
        Item::Bytes(bits) => {
            f64::from_le_bytes(bits.try_into().expect("a score that is no integer is eight bytes"))
        }
    }
}

/// The form in which a score is stored; `bits` is room for one of them.
#[inline]
fn score_item(score: f64, bits: &mut [u8; 8]) -> Item<'_> {
    let integer = score as i64;
    // By bits, because minus zero equals zero and must come back as minus zero.
    if score.abs() < INTEGRAL_MAX && (integer as f64).to_bits() == score.to_bits() {
        return Item::Int(integer);
    }
    *bits = score.to_le_bytes();
    Item::Bytes(bits)
}

/// The order of members: by their bytes, whatever form they are stored in.
pub fn cmp_members(a: Item<'_>, b: Item<'_>) -> Ordering {
    match (a, b) {
        (Item::Bytes(a), Item::Bytes(b)) => a.cmp(b),
        _ => a.as_bytes(&mut [0; 20]).cmp(b.as_bytes(&mut [0; 20])),
    }
}

fn cmp_pairs(a: (Item<'_>, f64), b: (Item<'_>, f64)) -> Ordering {
    let scores = a.1.partial_cmp(&b.1).expect("no score is NaN");
    scores.then_with(|| cmp_members(a.0, b.0))
}

impl Zpack {
    /// A set without members; takes no memory.
    pub const fn new() -> Self {
        Self { pack: Pack::new() }
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.pack.len() / 2
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.pack.is_empty()
    }

    /// What the set holds from the allocator.
    pub fn heap_bytes(&self) -> usize {
        self.pack.heap_bytes()
    }

    /// Gives allocations other addresses; see [`Mover`].
    pub fn relocate(&mut self, mover: &mut Mover<'_>) {
        self.pack.relocate(mover);
    }

    /// What the pairs take, unused bytes not counted.
    pub fn packed_bytes(&self) -> usize {
        self.pack.packed_bytes()
    }

    fn pair(&self, pos: Pos) -> (Item<'_>, f64) {
        let score = self.pack.next(pos).expect("a member is followed by its score");
        (self.pack.item(pos), score_of(self.pack.item(score)))
    }

    /// A member's score. Scans.
    pub fn score<'a>(&self, member: impl Into<Item<'a>>) -> Option<f64> {
        Some(self.pair(self.pack.find_pair(member)?).1)
    }

    /// Sees to room for members that will be added, so that the allocation grows once for all of them.
    pub fn reserve<'a>(&mut self, members: impl Iterator<Item = (&'a [u8], f64)>) {
        let bytes = members.map(|(member, score)| {
            let score_len = score_item(score, &mut [0; 8]).packed_len();
            Item::from(member).canonical().packed_len() + score_len
        });
        self.pack.reserve(bytes.sum());
    }

    /// Adds a member or gives it another score; the score that it had before, if any.
    ///
    /// # Panics
    ///
    /// If `score` is NaN: no order has a place for it, and clients' scores are checked where they are parsed.
    pub fn insert<'a>(&mut self, member: impl Into<Item<'a>>, score: f64) -> Option<f64> {
        assert!(!score.is_nan());
        let member = member.into().canonical();
        let found = self.pack.find_pair(member);
        let old = found.map(|pos| self.pair(pos).1);
        if old.is_none_or(|old| old.to_bits() != score.to_bits()) {
            self.put(found, member, score);
        }
        old
    }

    /// Asks `decide` for the member's score, given the present one; `None` leaves things as they are. One scan for
    /// all of ZADD's conditions and increments.
    ///
    /// A score equal to the present one changes nothing, so -0 stays -0 when 0 is written, as in Redis.
    ///
    /// # Panics
    ///
    /// If the score is NaN, as [`Zpack::insert`].
    pub fn insert_with<'a>(
        &mut self,
        member: impl Into<Item<'a>>,
        decide: impl FnOnce(Option<f64>) -> Option<f64>,
    ) -> Change {
        let member = member.into().canonical();
        let found = self.pack.find_pair(member);
        let old = found.map(|pos| self.pair(pos).1);
        match (old, decide(old)) {
            (None, None) => Change::Absent,
            (Some(old), None) => Change::Kept(old),
            (Some(old), Some(score)) if score == old => Change::Kept(old),
            (old, Some(score)) => {
                assert!(!score.is_nan());
                self.put(found, member, score);
                old.map_or(Change::Added, Change::Updated)
            }
        }
    }

    /// Stores a pair whose member is in canonical form and at `found` if it is there.
    fn put(&mut self, found: Option<Pos>, member: Item<'_>, score: f64) {
        let mut bits = [0; 8];
        let stored = score_item(score, &mut bits);
        if let Some(pos) = found {
            if self.stays_between_neighbours(pos, (member, score)) {
                let pos = self.pack.next(pos).expect("a member is followed by its score");
                self.pack.replace_exact(pos, stored);
                return;
            }
            self.pack.remove_run(pos, 2);
        }
        // Scores often arrive in ascending order: look at the last pair before scanning.
        let behind_last =
            self.pack.seek(-2).is_none_or(|pos| cmp_pairs(self.pair(pos), (member, score)).is_lt());
        let place = if behind_last {
            None
        } else {
            self.lower_bound(|pair| cmp_pairs(pair, (member, score)).is_lt()).1
        };
        match place {
            None => {
                self.pack.push_back_exact(member);
                self.pack.push_back_exact(stored);
            }
            Some(pos) => {
                let pos = self.pack.insert_at_exact(pos, stored);
                self.pack.insert_at_exact(pos, member);
            }
        }
    }

    fn stays_between_neighbours(&self, pos: Pos, pair: (Item<'_>, f64)) -> bool {
        let score = self.pack.next(pos).expect("a member is followed by its score");
        let prev = self.pack.prev(pos).and_then(|score| self.pack.prev(score));
        prev.is_none_or(|prev| cmp_pairs(self.pair(prev), pair).is_lt())
            && self.pack.next(score).is_none_or(|next| cmp_pairs(pair, self.pair(next)).is_lt())
    }

    /// Removes a member; the score that it had.
    pub fn remove<'a>(&mut self, member: impl Into<Item<'a>>) -> Option<f64> {
        let pos = self.pack.find_pair(member)?;
        let score = self.pair(pos).1;
        self.pack.remove_run(pos, 2);
        Some(score)
    }

    /// Removes the members with the ranks from `start` up to but without `end`.
    pub fn remove_range(&mut self, start: usize, end: usize) {
        let end = end.min(self.len());
        let start = start.min(end);
        self.pack.remove_range(start * 2, (end - start) * 2);
    }

    /// How many members are before this one, and its score.
    pub fn rank<'a>(&self, member: impl Into<Item<'a>>) -> Option<(usize, f64)> {
        let pos = self.pack.find_pair(member)?;
        Some((self.pack.index_of(pos) / 2, self.pair(pos).1))
    }

    /// The member with this rank, and its score.
    pub fn get(&self, rank: usize) -> Option<(Item<'_>, f64)> {
        Some(self.pair(self.pack.seek(rank as i64 * 2)?))
    }

    /// The rank and place of the first pair that `before` refuses; `before` accepts a beginning of the
    /// sequence.
    fn lower_bound(&self, before: impl Fn((Item<'_>, f64)) -> bool) -> (usize, Option<Pos>) {
        let mut next = self.pack.first();
        let mut rank = 0;
        while let Some(pos) = next {
            let score = self.pack.next(pos).expect("a member is followed by its score");
            if !before((self.pack.item(pos), score_of(self.pack.item(score)))) {
                break;
            }
            rank += 1;
            next = self.pack.next(score);
        }
        (rank, next)
    }

    /// How many pairs at the start of the order `before` accepts: with a comparison to a bound, the rank of
    /// the first pair at or above it. Ranges by score and by member are made of two of these and
    /// [`Zpack::range`].
    pub fn rank_by(&self, before: impl Fn(Item<'_>, f64) -> bool) -> usize {
        self.lower_bound(|(member, score)| before(member, score)).0
    }

    /// All pairs; the iterator runs from either end.
    pub fn iter(&self) -> Iter<'_> {
        Iter { entries: self.pack.iter() }
    }

    /// The pairs with the ranks from `start` up to but without `end`; the iterator runs from either end.
    pub fn range(&self, start: usize, end: usize) -> Iter<'_> {
        Iter { entries: self.pack.range(start.saturating_mul(2), end.saturating_mul(2)) }
    }

    /// Walks everything and panics where an invariant is broken. For tests, fuzzing and the server's
    /// self-check.
    pub fn check(&self) {
        self.pack.check();
        assert!(self.pack.len().is_multiple_of(2));
        let pairs: Vec<_> = self.iter().collect();
        assert!(pairs.is_sorted_by(|a, b| cmp_pairs(*a, *b).is_lt()), "pairs ascend");
        let mut members: Vec<_> = pairs.iter().map(|pair| pair.0.to_vec()).collect();
        members.sort();
        assert!(members.is_sorted_by(|a, b| a < b), "members are there once");
    }
}

impl<'a> IntoIterator for &'a Zpack {
    type Item = (Item<'a>, f64);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Pairs in order, from either end.
#[derive(Clone)]
pub struct Iter<'a> {
    entries: pack::Iter<'a>,
}

impl<'a> Iterator for Iter<'a> {
    type Item = (Item<'a>, f64);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let member = self.entries.next()?;
        Some((member, score_of(self.entries.next()?)))
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.entries.len() / 2, Some(self.entries.len() / 2))
    }
}

impl DoubleEndedIterator for Iter<'_> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        let score = score_of(self.entries.next_back()?);
        Some((self.entries.next_back()?, score))
    }
}

impl ExactSizeIterator for Iter<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small generator with a fixed seed: a failure repeats.
    struct Rng(u64);

    impl Rng {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        fn below(&mut self, bound: usize) -> usize {
            (self.next() % bound as u64) as usize
        }
    }

    const SCORES: &[f64] = &[
        0.0,
        -0.0,
        1.0,
        -1.0,
        127.0,
        128.0,
        1.5,
        -1e300,
        5e-324,
        9_007_199_254_740_991.0,
        9_007_199_254_740_992.0,
        9_007_199_254_740_994.0,
        1e19,
        f64::INFINITY,
        f64::NEG_INFINITY,
        // Its eight bytes are the text "12345678".
        6.821_320_051_701_325e-38,
    ];

    /// Scores come back bit for bit, whatever their bytes look like.
    #[test]
    fn scores_come_back() {
        let text = f64::from_le_bytes(*b"12345678");
        for &score in SCORES.iter().chain([&text, &f64::MIN, &f64::MAX]) {
            let mut set = Zpack::new();
            assert_eq!(set.insert(b"a", score), None);
            assert_eq!(set.insert(b"b", 2.0), None);
            set.check();
            assert_eq!(set.score(b"a").map(f64::to_bits), Some(score.to_bits()));
            let copy = set.clone();
            assert_eq!(copy.score(b"a").map(f64::to_bits), Some(score.to_bits()));
        }
    }

    /// Random operations against a sorted vector.
    #[test]
    fn model() {
        let mut rng = Rng(5);
        let mut set = Zpack::new();
        let mut model: Vec<(f64, Vec<u8>)> = Vec::new();
        for step in 0..if cfg!(miri) { 250 } else { 20_000 } {
            let member = match rng.below(3) {
                0 => rng.below(60).to_string().into_bytes(),
                1 => format!("m{}", rng.below(60)).into_bytes(),
                _ => vec![b'x'; rng.below(4) * 45],
            };
            let score = match rng.below(3) {
                0 => SCORES[rng.below(SCORES.len())],
                1 => rng.below(10) as f64,
                _ => rng.below(1000) as f64 / 8.0,
            };
            let known = model.iter().position(|(_, other)| *other == member);
            match rng.below(10) {
                0..=5 => {
                    let old = known.map(|at| model.remove(at).0);
                    assert_eq!(set.insert(&member, score).map(f64::to_bits), old.map(f64::to_bits));
                    let at = model.partition_point(|(s, m)| *s < score || (*s == score && *m < member));
                    model.insert(at, (score, member));
                }
                6..=7 => {
                    let old = known.map(|at| model.remove(at).0);
                    assert_eq!(set.remove(&member).map(f64::to_bits), old.map(f64::to_bits));
                }
                8 => {
                    assert_eq!(set.rank(&member), known.map(|at| (at, model[at].0)));
                    assert_eq!(set.score(&member), known.map(|at| model[at].0));
                    let below = set.rank_by(|_, other| other < score);
                    assert_eq!(below, model.iter().filter(|(other, _)| *other < score).count());
                }
                _ => {
                    let (start, end) = (rng.below(model.len() + 2), rng.below(model.len() + 2));
                    let expected: Vec<_> = model.iter().take(end).skip(start).cloned().collect();
                    let found = set.range(start, end).map(|(member, score)| (score, member.to_vec()));
                    assert!(found.clone().eq(expected.iter().cloned()));
                    assert!(found.rev().eq(expected.into_iter().rev()));
                    let got = set.get(start).map(|(member, score)| (score, member.to_vec()));
                    assert_eq!(got, model.get(start).cloned());
                    if rng.below(20) == 0 {
                        set.remove_range(start, end);
                        let end = end.min(model.len());
                        model.drain(start.min(end)..end);
                    }
                }
            }
            if step % 4 == 0 {
                set.check();
                assert!(set.iter().map(|(member, score)| (score, member.to_vec())).eq(model.iter().cloned()));
            }
            assert_eq!(set.len(), model.len());
        }
    }

    /// `insert_with` tells what was there and does what it is told.
    #[test]
    fn insert_with_decides() {
        let mut set = Zpack::new();
        assert_eq!(set.insert_with(b"a", |_| None), Change::Absent);
        assert_eq!(set.insert_with(b"a", |old| Some(old.map_or(-0.0, |_| 1.0))), Change::Added);
        assert_eq!(set.insert_with(b"a", |_| Some(0.0)), Change::Kept(0.0));
        assert_eq!(set.score(b"a").map(f64::to_bits), Some((-0.0f64).to_bits()));
        assert_eq!(set.insert_with(b"7", |_| Some(-1.0)), Change::Added);
        assert_eq!(set.insert_with(b"7", |old| old.map(|old| old + 2.5)), Change::Updated(-1.0));
        assert_eq!(set.insert_with(b"7", |_| None), Change::Kept(1.5));
        assert_eq!(set.rank(b"7"), Some((1, 1.5)));
        set.check();
    }

    /// What a pair costs: an integral score a byte or a few.
    #[test]
    fn sizes() {
        assert_eq!(size_of::<Zpack>(), 8);
        let mut set = Zpack::new();
        for i in 0..10 {
            set.insert(&[b'a' + i; 8], f64::from(i));
        }
        assert_eq!(set.heap_bytes(), 128);
    }
}
