//! Loading what commands that arrived together will look at inside big collections, so that their misses overlap.
//!
//! What leads to a key is loaded for all of them first ([`Db::prefetch`], [`Db::prefetch_entry`]); here it is what leads
//! to a field or member. Nothing here must be right: it changes nothing, and the commands look for themselves.

use damselfly_structures::dense::{Ahead as DenseAhead, DenseHash, DenseSet};
use damselfly_structures::zset::{Ahead as ZSetAhead, STEPS_AHEAD, ZSet};

use crate::value::Object;
use crate::values::hash::Hash;
use crate::values::set::Set;
use crate::values::zset::SortedSet;
use crate::{Db, Keyspace};

/// Keys of one command that are loaded at once: enough to hide a miss behind the others, few enough to stay cached until
/// their turn comes.
pub const KEYS_AHEAD: usize = 16;

impl Keyspace {
    /// Asks for the memory that the next [`KEYS_AHEAD`] of a command's keys lead to.
    pub fn load_ahead<'k>(&self, db: usize, keys: impl Iterator<Item = &'k [u8]>) {
        let Some(db) = self.db(db) else { return };
        let mut hashes = [0; KEYS_AHEAD];
        let mut count = 0;
        for (hash, key) in hashes.iter_mut().zip(keys) {
            *hash = self.hash(key);
            db.prefetch(*hash);
            count += 1;
        }
        for &hash in &hashes[..count] {
            db.prefetch_entry(hash);
        }
    }
}

/// A collection so big that what is in it is probably not cached.
#[derive(Clone, Copy)]
pub(crate) enum Big<'a> {
    Hash(&'a DenseHash),
    Set(&'a DenseSet),
    ZSet(&'a ZSet),
}

impl<'a> Big<'a> {
    pub(crate) fn of(object: &'a Object) -> Option<Big<'a>> {
        match object {
            Object::Hash(Hash::Big(hash)) => Some(Big::Hash(hash)),
            Object::Set(Set::Big(set)) => Some(Big::Set(set)),
            Object::ZSet(SortedSet::Big(zset)) => Some(Big::ZSet(zset)),
            _ => None,
        }
    }
}

enum Aim<'a> {
    Hash(DenseAhead<'a, true>),
    Set(DenseAhead<'a, false>),
    ZSet(ZSetAhead<'a>),
}

/// What will be looked for inside collections; see the module's head.
#[derive(Default)]
pub struct Ahead<'a> {
    aims: Vec<Aim<'a>>,
    /// The collection looked into last, by the hash of its key: commands that arrive together often share it.
    last: Option<(u64, Option<Big<'a>>)>,
}

impl<'a> Ahead<'a> {
    /// A command will look for this field or member of the collection at `key`, and maybe give it this score. Cheap only
    /// if what leads to the key is cached.
    pub fn aim(&mut self, db: &'a Db, hash: u64, key: &[u8], member: &'a [u8], score: Option<f64>) {
        let big = match self.last {
            Some((last, big)) if last == hash => big,
            _ => db.big(hash, key),
        };
        self.last = Some((hash, big));
        self.aims.extend(big.map(|big| match big {
            Big::Hash(table) => Aim::Hash(table.ahead(member)),
            Big::Set(table) => Aim::Set(table.ahead(member)),
            Big::ZSet(zset) => Aim::ZSet(zset.ahead(member, score)),
        }));
    }

    /// Loads all that, a step of each at a time.
    pub fn load(mut self) {
        if self.aims.len() < 2 {
            return;
        }
        for step in 0..STEPS_AHEAD {
            for aim in &mut self.aims {
                match aim {
                    Aim::Hash(aim) if step == 0 => aim.step(),
                    Aim::Set(aim) if step == 0 => aim.step(),
                    Aim::ZSet(aim) => aim.step(),
                    Aim::Hash(_) | Aim::Set(_) => {}
                }
            }
        }
    }
}
