//! What a key can hold besides a string.

/// The types a key can have, by the names that TYPE answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Type {
    /// Strings, numbers, bitmaps, HyperLogLogs.
    String,
}

impl Type {
    /// The word that TYPE and SCAN ... TYPE use.
    pub const fn name(self) -> &'static str {
        match self {
            Type::String => "string",
        }
    }
}

/// A collection.
#[derive(Clone)]
pub enum Object {}

impl Object {
    /// Its type.
    pub fn kind(&self) -> Type {
        match *self {}
    }

    /// Bytes it holds from the allocator.
    pub fn heap_bytes(&self) -> usize {
        match *self {}
    }

    /// Whether dropping it at once could be noticed (more than about a hundred microseconds).
    pub fn is_big(&self) -> bool {
        match *self {}
    }

    /// Frees one bounded step; true when nothing is left.
    pub fn free_some(&mut self) -> bool {
        match *self {}
    }
}
