//! What a key can hold besides a string.
//!
//! One variant per type; the compiler leads whoever adds one to every place that must know it. Handles are at most two
//! words, because the slab holds one for each collection. All collections can travel between threads: big ones are
//! made of nodes that are shared by atomic counts and copied before a write.

use damselfly_structures::list::List;

use crate::Collection;
use crate::values::zset::SortedSet;

/// The types a key can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Type {
    /// Strings, numbers, bitmaps, HyperLogLogs.
    String,
    /// Lists.
    List,
    /// Sorted sets.
    ZSet,
}

impl Type {
    /// All of them, for tables indexed by type.
    pub const ALL: &'static [Type] = &[Type::String, Type::List, Type::ZSet];

    /// The word that TYPE and SCAN ... TYPE use.
    pub const fn name(self) -> &'static str {
        match self {
            Type::String => "string",
            Type::List => "list",
            Type::ZSet => "zset",
        }
    }
}

/// A collection.
#[derive(Clone)]
pub enum Object {
    /// A list.
    List(List),
    /// A sorted set.
    ZSet(SortedSet),
}

/// Nodes freed in one step. A node is some kilobytes, so a step is tens of microseconds.
const NODES_PER_STEP: usize = 64;

/// Bytes above which a collection is freed in steps. Freeing runs at about 10 GB/s in big blocks and 1 GB/s in small
/// ones, so this is at most 100 microseconds.
const BIG_FROM: usize = 128 * 1024;

const _: () = assert!(size_of::<Object>() <= 24, "the slab pays for every collection");

impl Object {
    /// Its type.
    pub fn kind(&self) -> Type {
        match self {
            Object::List(_) => Type::List,
            Object::ZSet(_) => Type::ZSet,
        }
    }

    /// Bytes it holds from the allocator.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Object::List(list) => list.heap_bytes(),
            Object::ZSet(zset) => zset.heap_bytes(),
        }
    }

    /// Whether dropping it at once could be noticed.
    pub fn is_big(&self) -> bool {
        self.heap_bytes() > BIG_FROM
    }

    /// Frees one bounded step; true when nothing is left.
    pub fn free_some(&mut self) -> bool {
        match self {
            Object::List(list) => list.free_some(NODES_PER_STEP),
            Object::ZSet(zset) => zset.free_some(NODES_PER_STEP),
        }
    }

    /// Every invariant of the collection; for tests.
    pub fn check(&self) {
        match self {
            Object::List(list) => list.check(),
            Object::ZSet(zset) => zset.check(),
        }
    }
}

/// Writes the accessors of a collection type.
macro_rules! collection {
    ($name:ty, $variant:ident, begin: |$seed:ident| $begin:expr, gone: |$this:ident| $gone:expr) => {
        impl Collection for $name {
            const TYPE: Type = Type::$variant;

            fn begin($seed: u64) -> Self {
                $begin
            }

            fn wrap(self) -> Object {
                Object::$variant(self)
            }

            fn of(object: &Object) -> Option<&Self> {
                match object {
                    Object::$variant(this) => Some(this),
                    _ => None,
                }
            }

            fn of_mut(object: &mut Object) -> Option<&mut Self> {
                match object {
                    Object::$variant(this) => Some(this),
                    _ => None,
                }
            }

            fn is_gone(&self) -> bool {
                let $this = self;
                $gone
            }
        }
    };
}

collection!(List, List, begin: |_seed| List::new(), gone: |list| list.is_empty());
collection!(
    SortedSet,
    ZSet,
    begin: |_seed| SortedSet::Small(Default::default()),
    gone: |zset| zset.is_empty()
);
