//! Building a set from all its members at once.
//!
//! Files have the members of a sorted set in order, Redis' from the highest to the lowest. Inserted one by one, each
//! moves what its leaf and its bucket hold already, and buckets grow size by size. Here leaves are written once, full, the
//! inner nodes on top of them when all are there, and buckets have the room that they will need: five times as fast.
//!
//! Order is found out on the way: what comes behind the first member that breaks it is inserted one by one.

use super::index::Index;
use super::leaf::{LEAF_BYTES_MAX, Leaf, NewEntry, Sizer};
use super::tree::{Entry, Store};
use super::{ZSet, new_entry};
use crate::hint::prefetch_all;
use std::cmp::Ordering;

impl ZSet {
    /// A set of these members; one that comes again changes its score.
    pub fn collect<'a>(seed: u64, members: impl Iterator<Item = (&'a [u8], f64)> + Clone) -> ZSet {
        let mut rest = members.clone();
        match Builder::new(seed, members.clone().count()).run(&mut rest) {
            Some((mut set, unordered)) => {
                for (member, score) in unordered.into_iter().chain(rest) {
                    set.insert(member, score);
                }
                set
            }
            None => {
                let mut set = ZSet::new(seed);
                for (member, score) in members {
                    set.insert(member, score);
                }
                set
            }
        }
    }
}

struct Builder<'a> {
    store: Store,
    /// Of the finished leaves, in the order in which they came.
    leaves: Vec<Entry>,
    len: usize,
    /// Of the leaf that is being filled, in the order in which they came.
    entries: Vec<NewEntry<'a>>,
    hashes: Vec<u64>,
    sizer: Sizer,
    /// How the members before compare with those behind, once there were two.
    direction: Option<Ordering>,
}

impl<'a> Builder<'a> {
    fn new(seed: u64, len: usize) -> Builder<'a> {
        let mut store = Store::new(seed);
        store.index = Index::with_room(seed, len);
        Builder {
            store,
            leaves: Vec::new(),
            len: 0,
            entries: Vec::new(),
            hashes: Vec::new(),
            sizer: Sizer::default(),
            direction: None,
        }
    }

    /// Takes members while they are in order; the set of these, and the first that was not. None if a member comes twice.
    #[expect(clippy::type_complexity, reason = "a set, and an item of the iterator")]
    fn run(
        mut self,
        members: &mut impl Iterator<Item = (&'a [u8], f64)>,
    ) -> Option<(ZSet, Option<(&'a [u8], f64)>)> {
        let mut before: Option<(u64, &[u8])> = None;
        let mut unordered = None;
        for (member, score) in members {
            let hash = self.store.index.hash(member);
            let new = new_entry(hash, member, score);
            let key = (new.order, member);
            match before.map(|before| before.cmp(&key)) {
                Some(Ordering::Equal) => return None,
                Some(order) if *self.direction.get_or_insert(order) != order => {
                    unordered = Some((member, score));
                    break;
                }
                _ => before = Some(key),
            }
            if !self.entries.is_empty() && self.sizer.size_with(&new) > LEAF_BYTES_MAX {
                self.finish_leaf()?;
            }
            self.sizer.add(&new);
            self.entries.push(new);
            self.hashes.push(hash);
        }
        if !self.entries.is_empty() {
            self.finish_leaf()?;
        }
        if self.direction == Some(Ordering::Greater) {
            self.leaves.reverse();
        }
        let root = self.store.build(self.leaves);
        Some((ZSet { root, store: self.store, len: self.len }, unordered))
    }

    /// Makes a leaf of what is there; None if one of its members is in the set already.
    fn finish_leaf(&mut self) -> Option<()> {
        for hash in &self.hashes {
            prefetch_all(self.store.index.bucket(*hash).bytes());
        }
        let descends = self.direction == Some(Ordering::Greater);
        if descends {
            self.entries.reverse();
            self.hashes.reverse();
        }
        let leaf = Leaf::of_all(&self.entries);
        let entry = self.store.leaf_beside(self.leaves.last_mut(), leaf, descends);
        self.leaves.push(entry);
        let number = self.store.leaves.len() - 1;
        for (at, (new, hash)) in self.entries.iter().zip(&self.hashes).enumerate() {
            let found = self.store.index.find(*hash, |found| {
                let there = self.store.leaves.get(found as usize).find(new.tag, new.member)?;
                Some((found as usize, there))
            });
            // The leaf has all of them, but the index only those before this one.
            if found.is_some_and(|found| found != (number, at)) {
                return None;
            }
            self.store.index.insert(*hash, number as u32);
        }
        self.len += self.entries.len();
        self.entries.clear();
        self.hashes.clear();
        self.sizer = Sizer::default();
        Some(())
    }
}
