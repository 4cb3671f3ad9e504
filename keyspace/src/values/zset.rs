//! A sorted set: one pack while it is small, a tree with an index when it is big.

use damselfly_structures::zpack::Zpack;
use damselfly_structures::zset::ZSet;

use super::PackLimits;

/// See the module's head.
#[derive(Clone)]
pub enum SortedSet {
    /// Members and scores in one allocation, in order.
    Small(Zpack),
    /// Any number of members.
    Big(Box<ZSet>),
}

impl SortedSet {
    /// Number of members.
    pub fn len(&self) -> usize {
        match self {
            SortedSet::Small(pack) => pack.len(),
            SortedSet::Big(tree) => tree.len(),
        }
    }

    /// Adds a member or gives it a new score; the old score if it was there. `seed` is the keyspace's hash seed.
    pub fn insert(&mut self, seed: u64, member: &[u8], score: f64, limits: PackLimits) -> Option<f64> {
        if let SortedSet::Small(pack) = self {
            let fits = member.len() <= limits.len_max && pack.len() < limits.entries_max.max(1);
            if (fits && limits.entries_max > 0) || pack.score(member).is_some() {
                return pack.insert(member, score);
            }
            self.grow(seed);
        }
        let SortedSet::Big(tree) = self else { unreachable!("small sets have returned") };
        match tree.insert(member, score) {
            damselfly_structures::zset::Change::Updated(old)
            | damselfly_structures::zset::Change::Kept(old) => Some(old),
            _ => None,
        }
    }

    /// Takes the big form.
    fn grow(&mut self, seed: u64) {
        let mut tree = ZSet::new(seed);
        self.for_each(|member, score| {
            tree.insert(member, score);
        });
        *self = SortedSet::Big(Box::new(tree));
    }

    /// Visits all members in order.
    pub fn for_each(&self, mut visit: impl FnMut(&[u8], f64)) {
        match self {
            SortedSet::Small(pack) => {
                let mut buffer = [0; 20];
                for (member, score) in pack.iter() {
                    visit(member.as_bytes(&mut buffer), score);
                }
            }
            SortedSet::Big(tree) => tree.iter().for_each(|(member, score)| visit(member, score)),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes held from the allocator.
    pub fn heap_bytes(&self) -> usize {
        match self {
            SortedSet::Small(pack) => pack.heap_bytes(),
            SortedSet::Big(tree) => {
                damselfly_structures::alloc::good_size(size_of::<ZSet>()) + tree.heap_bytes()
            }
        }
    }

    /// Frees up to `nodes` nodes; true when nothing is left.
    pub fn free_some(&mut self, nodes: usize) -> bool {
        match self {
            SortedSet::Small(_) => true,
            SortedSet::Big(tree) => tree.free_some(nodes),
        }
    }

    /// Every invariant; for tests.
    pub fn check(&self) {
        match self {
            SortedSet::Small(pack) => pack.check(),
            SortedSet::Big(tree) => tree.check(),
        }
    }
}
