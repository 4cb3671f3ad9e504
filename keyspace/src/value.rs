//! What a key can hold besides a string.
//!
//! One variant per type; the compiler leads whoever adds one to every place that must know it. Handles are at most two
//! words, because the slab holds one for each collection. All collections can travel between threads: big ones are
//! made of nodes that are shared by atomic counts and copied before a write.

use damselfly_json::Document;
use damselfly_sketches::bloom::Bloom;
use damselfly_sketches::cms::CountMin;
use damselfly_sketches::cuckoo::Cuckoo;
use damselfly_sketches::topk::TopK;
use damselfly_structures::alloc::good_size;
use damselfly_structures::list::List;
use damselfly_structures::moves::Mover;
use damselfly_structures::stream::Stream;

use crate::values::hash::Hash;
use crate::values::set::Set;
use crate::values::zset::SortedSet;
use crate::{Class, Collection, UnixMs};

/// The types a key can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Type {
    /// Strings, numbers, bitmaps, HyperLogLogs.
    String,
    /// Lists.
    List,
    /// Hashes.
    Hash,
    /// Sets.
    Set,
    /// Sorted sets.
    ZSet,
    /// Streams.
    Stream,
    /// JSON documents.
    Json,
    /// Bloom filters.
    Bloom,
    /// Cuckoo filters.
    Cuckoo,
    /// Count-min sketches.
    CountMin,
    /// Top-k sketches.
    TopK,
}

impl Type {
    /// All of them, for tables indexed by type.
    pub const ALL: &'static [Type] = &[
        Type::String,
        Type::List,
        Type::Hash,
        Type::Set,
        Type::ZSet,
        Type::Stream,
        Type::Json,
        Type::Bloom,
        Type::Cuckoo,
        Type::CountMin,
        Type::TopK,
    ];

    /// The word that TYPE and SCAN ... TYPE use. For what are modules in Redis, the names that these gave their types.
    pub const fn name(self) -> &'static str {
        match self {
            Type::String => "string",
            Type::List => "list",
            Type::Hash => "hash",
            Type::Set => "set",
            Type::ZSet => "zset",
            Type::Stream => "stream",
            Type::Json => "ReJSON-RL",
            Type::Bloom => "MBbloom--",
            Type::Cuckoo => "MBbloomCF",
            Type::CountMin => "CMSk-TYPE",
            Type::TopK => "TopK-TYPE",
        }
    }
}

/// A collection.
#[derive(Clone)]
pub enum Object {
    /// A list.
    List(List),
    /// A hash.
    Hash(Hash),
    /// A set.
    Set(Set),
    /// A sorted set.
    ZSet(SortedSet),
    /// A stream, with or without entries.
    Stream(Box<Stream>),
    /// A JSON document.
    Json(Box<Document>),
    /// A Bloom filter.
    Bloom(Box<Bloom>),
    /// A cuckoo filter.
    Cuckoo(Box<Cuckoo>),
    /// A count-min sketch.
    CountMin(Box<CountMin>),
    /// A top-k sketch.
    TopK(Box<TopK>),
}

/// Nodes freed in one step. A node is some kilobytes, so a step is tens of microseconds.
const NODES_PER_STEP: usize = 64;

/// Values of a JSON document freed in one step: mostly without an allocation of their own, 20 nanoseconds each else.
const JSON_VALUES_PER_STEP: usize = 4096;

/// Bytes above which a collection is freed in steps. Freeing runs at about 10 GB/s in big blocks and 1 GB/s in small
/// ones, so this is at most 100 microseconds.
const BIG_FROM: usize = 128 * 1024;

const _: () = assert!(size_of::<Object>() <= 24, "the slab pays for every collection");

impl Object {
    /// Its type.
    pub fn kind(&self) -> Type {
        match self {
            Object::List(_) => Type::List,
            Object::Hash(_) => Type::Hash,
            Object::Set(_) => Type::Set,
            Object::ZSet(_) => Type::ZSet,
            Object::Stream(_) => Type::Stream,
            Object::Json(_) => Type::Json,
            Object::Bloom(_) => Type::Bloom,
            Object::Cuckoo(_) => Type::Cuckoo,
            Object::CountMin(_) => Type::CountMin,
            Object::TopK(_) => Type::TopK,
        }
    }

    /// Bytes it holds from the allocator.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Object::List(list) => list.heap_bytes(),
            Object::Hash(hash) => hash.heap_bytes(),
            Object::Set(set) => set.heap_bytes(),
            Object::ZSet(zset) => zset.heap_bytes(),
            Object::Stream(stream) => boxed::<Stream>() + stream.heap_bytes(),
            Object::Json(document) => boxed::<Document>() + document.heap_bytes(),
            Object::Bloom(bloom) => boxed::<Bloom>() + bloom.heap_bytes(),
            Object::Cuckoo(cuckoo) => boxed::<Cuckoo>() + cuckoo.heap_bytes(),
            Object::CountMin(sketch) => boxed::<CountMin>() + sketch.heap_bytes(),
            Object::TopK(sketch) => boxed::<TopK>() + sketch.heap_bytes(),
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
            Object::Hash(hash) => hash.free_some(NODES_PER_STEP),
            Object::Set(set) => set.free_some(NODES_PER_STEP),
            Object::ZSet(zset) => zset.free_some(NODES_PER_STEP),
            Object::Stream(stream) => stream.free_some(NODES_PER_STEP),
            Object::Json(document) => document.free_some(JSON_VALUES_PER_STEP),
            Object::Bloom(bloom) => bloom.free_some(NODES_PER_STEP),
            Object::Cuckoo(cuckoo) => cuckoo.free_some(NODES_PER_STEP),
            Object::CountMin(sketch) => sketch.free_some(NODES_PER_STEP),
            Object::TopK(sketch) => sketch.free_some(NODES_PER_STEP),
        }
    }

    /// A time before which no element expires by itself; None if none does. Elements of hashes and sets may have an
    /// expiry of their own.
    #[inline]
    pub fn next_expiry(&self) -> Option<UnixMs> {
        match self {
            Object::Hash(hash) => hash.next_expiry(),
            Object::Set(set) => set.next_expiry(),
            _ => None,
        }
    }

    /// Frees elements that have expired, about `limit` at most, and returns how many.
    pub(crate) fn expire_elements(&mut self, now: UnixMs, limit: usize) -> usize {
        match self {
            Object::Hash(hash) => hash.expire(now, limit),
            Object::Set(set) => set.expire(now, limit),
            _ => 0,
        }
    }

    /// Whether any element exists now. Asked of collections whose elements may expire.
    pub(crate) fn has_live(&self, now: UnixMs) -> bool {
        match self {
            Object::Hash(hash) => hash.has_live(now),
            Object::Set(set) => set.has_live(now),
            _ => true,
        }
    }

    /// Gives allocations other addresses; see [`Mover`]. What it holds stays the same.
    pub fn relocate(&mut self, mover: &mut Mover<'_>) {
        match self {
            Object::List(list) => list.relocate(mover),
            Object::Hash(hash) => hash.relocate(mover),
            Object::Set(set) => set.relocate(mover),
            Object::ZSet(zset) => zset.relocate(mover),
            Object::Stream(stream) => mover.boxed(stream).relocate(mover),
            Object::Json(document) => mover.boxed(document).relocate(mover),
            Object::Bloom(bloom) => mover.boxed(bloom).relocate(mover),
            Object::Cuckoo(cuckoo) => mover.boxed(cuckoo).relocate(mover),
            Object::CountMin(sketch) => mover.boxed(sketch).relocate(mover),
            Object::TopK(sketch) => mover.boxed(sketch).relocate(mover),
        }
    }

    /// Every invariant of the collection; for tests.
    pub fn check(&self) {
        match self {
            Object::List(list) => list.check(),
            Object::Hash(hash) => hash.check(),
            Object::Set(set) => set.check(),
            Object::ZSet(zset) => zset.check(),
            Object::Stream(stream) => stream.check(),
            Object::Json(document) => document.check(),
            Object::Bloom(bloom) => bloom.check(),
            Object::Cuckoo(cuckoo) => cuckoo.check(),
            Object::CountMin(sketch) => sketch.check(),
            Object::TopK(sketch) => sketch.check(),
        }
    }
}

/// Bytes of the box around a value.
const fn boxed<T>() -> usize {
    good_size(size_of::<T>())
}

/// Writes the accessors of a collection type. One that is boxed is never empty: its commands make it, and only the key
/// goes.
macro_rules! collection {
    (boxed $name:ty, $variant:ident, begin: $begin:expr) => {
        impl Collection for $name {
            const TYPE: Type = Type::$variant;

            fn begin(_: u64) -> Self {
                $begin
            }

            fn wrap(self) -> Object {
                Object::$variant(Box::new(self))
            }

            fn of(object: &Object) -> Option<&Self> {
                match object {
                    Object::$variant(this) => Some(&**this),
                    _ => None,
                }
            }

            fn of_mut(object: &mut Object) -> Option<&mut Self> {
                match object {
                    Object::$variant(this) => Some(&mut **this),
                    _ => None,
                }
            }

            fn heap_bytes(&self) -> usize {
                <$name>::heap_bytes(self)
            }

            fn is_gone(&self) -> bool {
                false
            }
        }
    };
    (
        $name:ty,
        $variant:ident,
        begin: |$seed:ident| $begin:expr,
        gone: |$this:ident| $gone:expr
        $(, expired: $class:expr, $event:literal)?
    ) => {
        impl Collection for $name {
            const TYPE: Type = Type::$variant;
            $(
                const MEMBERS_EXPIRE: Option<(Class, &'static str)> = Some(($class, $event));

                #[inline]
                fn next_expiry(&self) -> Option<UnixMs> {
                    <$name>::next_expiry(self)
                }

                fn expire_members(&mut self, now: UnixMs) -> usize {
                    <$name>::expire_members(self, now)
                }
            )?

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

            #[inline]
            fn of_mut(object: &mut Object) -> Option<&mut Self> {
                match object {
                    Object::$variant(this) => Some(this),
                    _ => None,
                }
            }

            #[inline]
            fn heap_bytes(&self) -> usize {
                <$name>::heap_bytes(self)
            }

            #[inline]
            fn is_gone(&self) -> bool {
                let $this = self;
                $gone
            }
        }
    };
}

collection!(List, List, begin: |_seed| List::new(), gone: |list| list.is_empty());
collection!(Hash, Hash, begin: |_seed| Hash::new(), gone: |hash| hash.is_empty());
collection!(
    Set,
    Set,
    begin: |_seed| Set::new(),
    gone: |set| set.is_empty(),
    expired: Class::Set, "sexpired"
);
collection!(
    SortedSet,
    ZSet,
    begin: |_seed| SortedSet::Small(Default::default()),
    gone: |zset| zset.is_empty()
);
collection!(boxed Document, Json, begin: Document::from_value(damselfly_json::Value::NULL));
collection!(boxed Bloom, Bloom, begin: Bloom::default());
collection!(boxed Cuckoo, Cuckoo, begin: Cuckoo::default());
collection!(boxed CountMin, CountMin, begin: CountMin::by_dimensions(1, 1).expect("the smallest"));
collection!(boxed TopK, TopK, begin: TopK::new(1, 1, 1, 1.0).expect("the smallest"));
collection!(boxed Stream, Stream, begin: Stream::new());
