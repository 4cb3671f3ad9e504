//! A sorted set: one pack while it is small, a tree with an index when it is big.
//!
//! Everything that Redis' commands ask is answered in terms of ranks: a range by score or by member is found as a
//! range of ranks first ([`SortedSet::ranks_by_score`], [`SortedSet::ranks_by_member`]) and then visited, counted or
//! removed as such. So the two forms differ in a dozen short matches here and nowhere else.

use std::ops::Range;

use damselfly_structures::moves::Mover;
use damselfly_structures::zpack::Zpack;
use damselfly_structures::zset::ZSet;

pub use damselfly_structures::zset::Change;

use super::PackLimits;

/// See the module's head.
#[derive(Clone)]
pub enum SortedSet {
    /// Members and scores in one allocation, in order.
    Small(Zpack),
    /// The same with a member that is or was longer than the limits allow. Redis has a skip list from then on; here the
    /// tree of a few members is twice what they need.
    Long(Zpack),
    /// Any number of members.
    Big(Box<ZSet>),
}

impl Default for SortedSet {
    fn default() -> SortedSet {
        SortedSet::Small(Zpack::default())
    }
}

/// One end of a range of scores or of members.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound<T> {
    /// Below everything.
    Lowest,
    /// At this, which is in the range.
    Included(T),
    /// At this, which is not in the range.
    Excluded(T),
    /// Above everything.
    Highest,
}

/// Members and packed bytes up to which members that are long stay in a pack. Behind that the tree takes little more,
/// and less time.
const LONG_MEMBERS_MAX: usize = 32;
const LONG_BYTES_MAX: usize = 16 * 1024;

/// Packed bytes of a member and its score beyond the member's own, at most.
const PACKED_EXTRA: usize = 32;

/// Room for the digits of a member that is stored as a number.
const NUMBER: [u8; 20] = [0; 20];

impl SortedSet {
    /// An empty set that is big already: it tells minus zero from zero from its first member on.
    pub fn new_big(seed: u64) -> SortedSet {
        SortedSet::Big(Box::new(ZSet::new(seed)))
    }

    /// Gives allocations other addresses; see [`Mover`].
    pub(crate) fn relocate(&mut self, mover: &mut Mover<'_>) {
        match self {
            SortedSet::Small(pack) | SortedSet::Long(pack) => pack.relocate(mover),
            SortedSet::Big(tree) => mover.boxed(tree).relocate(mover),
        }
    }

    /// Number of members.
    #[inline]
    pub fn len(&self) -> usize {
        match self {
            SortedSet::Small(pack) | SortedSet::Long(pack) => pack.len(),
            SortedSet::Big(tree) => tree.len(),
        }
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The member's score.
    #[inline]
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        match self {
            SortedSet::Small(pack) | SortedSet::Long(pack) => pack.score(member),
            SortedSet::Big(tree) => tree.score(member),
        }
    }

    /// Asks `decide` for the member's score, given the present one; `None` leaves things as they are. A score equal
    /// to the present one changes nothing. One lookup, but for the member that makes a small set big. `seed` is the
    /// keyspace's hash seed. The score is not NaN.
    #[inline]
    pub fn insert_with(
        &mut self,
        seed: u64,
        member: &[u8],
        limits: PackLimits,
        decide: impl FnOnce(Option<f64>) -> Option<f64>,
    ) -> Change {
        match self {
            SortedSet::Small(pack) => {
                if member.len() <= limits.len_max && pack.len() < limits.entries_max
                    || pack.score(member).is_some()
                {
                    // As in Redis, a small set does not tell minus zero from zero, and a big one does.
                    return pack.insert_with(member, |present| decide(present).map(|score| score + 0.0));
                }
                let Some(score) = decide(None) else { return Change::Absent };
                if member.len() > limits.len_max {
                    *self = SortedSet::Long(std::mem::take(pack));
                    self.insert(seed, member, score, limits);
                } else {
                    self.grow(seed).insert(member, score);
                }
                Change::Added
            }
            SortedSet::Long(pack) => {
                let fits = pack.len() < limits.entries_max.min(LONG_MEMBERS_MAX)
                    && pack.packed_bytes() + member.len() + PACKED_EXTRA <= LONG_BYTES_MAX;
                if fits || pack.score(member).is_some() {
                    return pack.insert_with(member, decide);
                }
                let Some(score) = decide(None) else { return Change::Absent };
                self.grow(seed).insert(member, score);
                Change::Added
            }
            SortedSet::Big(tree) => tree.insert_with(member, decide),
        }
    }

    /// Adds a member or gives it a new score; the old score if it was there.
    pub fn insert(&mut self, seed: u64, member: &[u8], score: f64, limits: PackLimits) -> Option<f64> {
        match self.insert_with(seed, member, limits, |_| Some(score)) {
            Change::Updated(old) | Change::Kept(old) => Some(old),
            Change::Added | Change::Absent => None,
        }
    }

    /// A set of these members, which differ. What becomes long or big is so from the first member on: minus zero is
    /// told from zero then.
    pub fn collect<'a>(
        seed: u64,
        members: impl Iterator<Item = (&'a [u8], f64)> + Clone,
        limits: PackLimits,
    ) -> SortedSet {
        let is_few = members.clone().take(limits.entries_max + 1).count() <= limits.entries_max;
        if !is_few {
            return SortedSet::Big(Box::new(ZSet::collect(seed, members)));
        }
        let is_short = members.clone().all(|(member, _)| member.len() <= limits.len_max);
        let mut pack = Zpack::new();
        pack.reserve(members.clone());
        let mut set = if is_short { SortedSet::Small(pack) } else { SortedSet::Long(pack) };
        for (member, score) in members {
            set.insert(seed, member, score, limits);
        }
        set
    }

    /// Takes the big form.
    #[cold]
    fn grow(&mut self, seed: u64) -> &mut ZSet {
        let mut tree = ZSet::new(seed);
        self.for_each(|member, score| {
            tree.insert(member, score);
        });
        *self = SortedSet::Big(Box::new(tree));
        match self {
            SortedSet::Big(tree) => tree,
            SortedSet::Small(_) | SortedSet::Long(_) => unreachable!("just made big"),
        }
    }

    /// Removes a member; the score that it had. A big set stays big, as in Redis.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        match self {
            SortedSet::Small(pack) | SortedSet::Long(pack) => pack.remove(member),
            SortedSet::Big(tree) => tree.remove(member),
        }
    }

    /// Removes the members with these ranks; how many. Ranks beyond the end are left out.
    pub fn remove_ranks(&mut self, ranks: Range<usize>) -> usize {
        match self {
            SortedSet::Small(pack) | SortedSet::Long(pack) => {
                let before = pack.len();
                pack.remove_range(ranks.start, ranks.end);
                before - pack.len()
            }
            SortedSet::Big(tree) => tree.remove_range(ranks),
        }
    }

    /// How many members are before this one, and its score.
    pub fn rank(&self, member: &[u8]) -> Option<(usize, f64)> {
        match self {
            SortedSet::Small(pack) | SortedSet::Long(pack) => pack.rank(member),
            SortedSet::Big(tree) => tree.rank(member),
        }
    }

    /// The ranks of the members with scores between two bounds.
    pub fn ranks_by_score(&self, low: Bound<f64>, high: Bound<f64>) -> Range<usize> {
        let below = |score, or_equal| match self {
            SortedSet::Small(pack) | SortedSet::Long(pack) => {
                pack.rank_by(|_, other| other < score || or_equal && other == score)
            }
            SortedSet::Big(tree) => tree.count_below_score(score, or_equal),
        };
        self.ranks_between(low, high, below)
    }

    /// The ranks of the members between two bounds. Meaningful, as in Redis, while all scores are equal.
    pub fn ranks_by_member(&self, low: Bound<&[u8]>, high: Bound<&[u8]>) -> Range<usize> {
        let below = |bound: &[u8], or_equal| match self {
            SortedSet::Small(pack) | SortedSet::Long(pack) => pack.rank_by(|member, _| {
                let mut buffer = NUMBER;
                let member = member.as_bytes(&mut buffer);
                member < bound || or_equal && member == bound
            }),
            SortedSet::Big(tree) => tree.count_below_member(bound, or_equal),
        };
        self.ranks_between(low, high, below)
    }

    /// `below` counts what is below a value, or at most as high.
    fn ranks_between<T>(
        &self,
        low: Bound<T>,
        high: Bound<T>,
        below: impl Fn(T, bool) -> usize,
    ) -> Range<usize> {
        let start = match low {
            Bound::Lowest => 0,
            Bound::Included(value) => below(value, false),
            Bound::Excluded(value) => below(value, true),
            Bound::Highest => self.len(),
        };
        let end = match high {
            Bound::Lowest => 0,
            Bound::Included(value) => below(value, true),
            Bound::Excluded(value) => below(value, false),
            Bound::Highest => self.len(),
        };
        start..end.max(start)
    }

    /// Visits the members with these ranks, from the last to the first if `reverse`. Ranks beyond the end are left
    /// out.
    #[inline]
    pub fn visit(&self, ranks: Range<usize>, reverse: bool, mut visit: impl FnMut(&[u8], f64)) {
        match self {
            SortedSet::Small(pack) | SortedSet::Long(pack) => {
                let mut buffer = NUMBER;
                let pairs = pack.range(ranks.start, ranks.end);
                if reverse {
                    pairs.rev().for_each(|(member, score)| visit(member.as_bytes(&mut buffer), score));
                } else {
                    pairs.for_each(|(member, score)| visit(member.as_bytes(&mut buffer), score));
                }
            }
            SortedSet::Big(tree) => {
                if reverse {
                    tree.range_reverse(ranks).for_each(|(member, score)| visit(member, score));
                } else {
                    tree.visit(ranks, visit);
                }
            }
        }
    }

    /// As [`SortedSet::visit`], without the scores.
    #[inline]
    pub fn visit_members(&self, ranks: Range<usize>, reverse: bool, mut visit: impl FnMut(&[u8])) {
        match self {
            SortedSet::Big(tree) if !reverse => tree.visit_members(ranks, visit),
            _ => self.visit(ranks, reverse, |member, _| visit(member)),
        }
    }

    /// Visits all members in order.
    pub fn for_each(&self, visit: impl FnMut(&[u8], f64)) {
        self.visit(0..self.len(), false, visit);
    }

    /// Visits members from a cursor on, about `count` of them; the next cursor, 0 at the end. A walk from 0 to 0
    /// shows every member that was there all the time: a small set in one step, whatever the cursor, and a big one
    /// in the order of its members' hashes. Any number is a cursor.
    pub fn scan(&self, mut cursor: u64, count: usize, mut visit: impl FnMut(&[u8], f64)) -> u64 {
        let SortedSet::Big(tree) = self else {
            self.for_each(visit);
            return 0;
        };
        let mut visited = 0;
        loop {
            cursor = tree.scan(cursor, |member, score| {
                visited += 1;
                visit(member, score);
            });
            if cursor == 0 || visited >= count {
                return cursor;
            }
        }
    }

    /// Bytes held from the allocator.
    pub fn heap_bytes(&self) -> usize {
        match self {
            SortedSet::Small(pack) | SortedSet::Long(pack) => pack.heap_bytes(),
            SortedSet::Big(tree) => {
                damselfly_structures::alloc::good_size(size_of::<ZSet>()) + tree.heap_bytes()
            }
        }
    }

    /// Frees up to `nodes` nodes; true when nothing is left.
    pub fn free_some(&mut self, nodes: usize) -> bool {
        match self {
            SortedSet::Small(_) | SortedSet::Long(_) => true,
            SortedSet::Big(tree) => tree.free_some(nodes),
        }
    }

    /// Every invariant; for tests.
    pub fn check(&self) {
        match self {
            SortedSet::Small(pack) | SortedSet::Long(pack) => pack.check(),
            SortedSet::Big(tree) => tree.check(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: PackLimits = PackLimits { entries_max: 4, len_max: 8 };

    fn of(pairs: &[(&str, f64)]) -> SortedSet {
        let mut set = SortedSet::Small(Zpack::new());
        for (member, score) in pairs {
            set.insert(7, member.as_bytes(), *score, LIMITS);
        }
        set.check();
        set
    }

    fn list(set: &SortedSet, ranks: Range<usize>, reverse: bool) -> String {
        let mut shown = Vec::new();
        set.visit(ranks, reverse, |member, score| {
            shown.push(format!("{}={score}", String::from_utf8_lossy(member)));
        });
        shown.join(" ")
    }

    /// A set grows at its limits and not for a member that nobody adds; both forms answer alike.
    #[test]
    fn forms() {
        let small = of(&[("b", 2.0), ("12", 1.0), ("c", 3.0)]);
        assert!(matches!(small, SortedSet::Small(_)));
        let mut full = of(&[("b", 2.0), ("12", 1.0), ("c", 3.0), ("d", 4.0)]);
        assert_eq!(full.insert_with(7, b"e", LIMITS, |_| None), Change::Absent);
        assert_eq!(full.insert_with(7, b"d", LIMITS, |_| Some(5.0)), Change::Updated(4.0));
        assert!(matches!(full, SortedSet::Small(_)));
        assert!(matches!(of(&[("123456789", 1.0)]), SortedSet::Long(_)));
        assert_eq!(full.insert_with(7, b"e", LIMITS, |_| Some(6.0)), Change::Added);
        assert!(matches!(full, SortedSet::Big(_)));
        assert_eq!(full.remove_ranks(3..9), 2);
        let mut long = of(&[("b", 2.0), ("123456789", 9.0), ("c", 3.0)]);
        assert_eq!((long.remove(b"123456789"), long.insert(7, b"12", 1.0, LIMITS)), (Some(9.0), None));
        assert!(matches!(long, SortedSet::Long(_)), "what was long stays so");
        for set in [small, long, full] {
            assert_eq!(list(&set, 0..9, false), "12=1 b=2 c=3");
            assert_eq!(list(&set, 1..3, true), "c=3 b=2");
            assert_eq!(set.ranks_by_score(Bound::Excluded(1.0), Bound::Included(3.0)), 1..3);
            assert_eq!(set.ranks_by_score(Bound::Included(3.0), Bound::Excluded(3.0)), 2..2);
            assert_eq!(set.ranks_by_score(Bound::Highest, Bound::Lowest), 3..3);
            assert_eq!(set.rank(b"12"), Some((0, 1.0)));
            assert_eq!(set.score(b"x"), None);
        }
        let bits = |name| of(&[(name, -0.0)]).score(name.as_bytes()).map(f64::to_bits);
        assert_eq!(bits("a"), Some(0.0f64.to_bits()));
        assert_eq!(bits("123456789"), Some((-0.0f64).to_bits()));
    }

    /// A set with a long member is a pack up to its bounds, also when it is made in one go.
    #[test]
    fn long() {
        let name = "x".repeat(LONG_BYTES_MAX - 100);
        let mut set = of(&[(&name, -0.0), ("a", 1.0), ("b", 2.0)]);
        assert!(matches!(set, SortedSet::Long(_)));
        assert_eq!(set.insert_with(7, &[b'y'; 100], LIMITS, |_| None), Change::Absent);
        assert!(matches!(set.clone(), SortedSet::Long(_)));
        let shown = list(&set, 0..9, false);
        assert_eq!(set.insert_with(7, &[b'y'; 100], LIMITS, |_| Some(9.0)), Change::Added);
        assert!(matches!(set, SortedSet::Big(_)));
        assert_eq!((list(&set, 0..3, false), set.len()), (shown, 4));
        let few = [(&b"123456789"[..], -0.0), (b"a", 1.0)];
        let many = [few[0], few[1], (b"b", 2.0), (b"c", 3.0), (b"d", 4.0)];
        let of = |members: &[(&[u8], f64)]| SortedSet::collect(7, members.iter().copied(), LIMITS);
        assert!(matches!((of(&few), of(&many)), (SortedSet::Long(_), SortedSet::Big(_))));
        for set in [of(&few), of(&many)] {
            assert_eq!(set.score(b"123456789").map(f64::to_bits), Some((-0.0f64).to_bits()));
        }
    }

    /// Ranges of members, in both forms.
    #[test]
    fn members() {
        let names = ["", "12", "a", "aa", "b"];
        let big = of(&names.map(|name| (name, 0.0)));
        let small = of(&names[..4].iter().map(|&name| (name, 0.0)).collect::<Vec<_>>());
        assert!(matches!((&big, &small), (SortedSet::Big(_), SortedSet::Small(_))));
        for set in [big, small] {
            assert_eq!(set.ranks_by_member(Bound::Included(b"12"), Bound::Excluded(b"aa")), 1..3);
            assert_eq!(set.ranks_by_member(Bound::Excluded(b""), Bound::Included(b"aa")), 1..4);
            assert_eq!(set.ranks_by_member(Bound::Included(b"b"), Bound::Included(b"a")).len(), 0);
        }
    }
}
