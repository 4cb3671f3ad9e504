//! Entries on their way between a shard and a file.
//!
//! A batch is one run of bytes (keys and strings, one behind the other) and one row per entry, so a million small
//! strings travel with two allocations per batch instead of two per key.

use crate::UnixMs;

/// What a key has besides its value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// When it expires.
    pub expire_at: Option<UnixMs>,
    /// Exempt from eviction.
    pub sticky: bool,
    /// Flags of the memcache protocol; 0 if none were set.
    pub mc_flags: u32,
}

/// Bytes of keys and strings after which a batch is sent. Below the caches' size, and large enough that a message
/// per batch costs nothing beside its contents.
const BYTES_MAX: usize = 256 << 10;
/// Entries after which it is sent.
const ROWS_MAX: usize = 1024;

/// Entries; `T` is what stands for values that are no strings.
pub struct Rows<T> {
    bytes: Vec<u8>,
    rows: Vec<Row<T>>,
    /// Bytes that the others hold elsewhere.
    held: usize,
}

struct Row<T> {
    db: u32,
    key: u32,
    attributes: Attributes,
    body: Body<T>,
}

enum Body<T> {
    Text(u32),
    Other(T),
}

/// A value of a batch.
pub enum Content<'a, T> {
    /// A string.
    Text(&'a [u8]),
    /// Anything else.
    Other(T),
}

impl<T> Default for Rows<T> {
    fn default() -> Rows<T> {
        Rows { bytes: Vec::new(), rows: Vec::new(), held: 0 }
    }
}

impl<T> Rows<T> {
    /// Adds a string.
    #[inline]
    pub fn push_text(&mut self, db: u32, key: &[u8], attributes: Attributes, text: &[u8]) {
        let key_len = self.push_key(key);
        let len = u32::try_from(text.len()).expect("strings are at most 512 MiB");
        self.bytes.extend_from_slice(text);
        self.rows.push(Row { db, key: key_len, attributes, body: Body::Text(len) });
    }

    /// Adds another value, which holds about so many bytes.
    pub fn push_other(&mut self, db: u32, key: &[u8], attributes: Attributes, other: T, held: usize) {
        let key = self.push_key(key);
        self.held += held;
        self.rows.push(Row { db, key, attributes, body: Body::Other(other) });
    }

    fn push_key(&mut self, key: &[u8]) -> u32 {
        self.bytes.extend_from_slice(key);
        u32::try_from(key.len()).expect("keys are at most 512 MiB")
    }

    /// Whether it is time to send it.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.bytes.len() + self.held >= BYTES_MAX || self.rows.len() >= ROWS_MAX
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Bytes it takes, about.
    pub fn weight(&self) -> usize {
        self.bytes.capacity() + self.held + self.rows.capacity() * size_of::<Row<T>>()
    }

    /// Hands all entries on, in their order, as database, key, what it has besides, value. What is left is empty, and
    /// has room for the next entries; an error ends it, and the entries behind it are gone.
    pub fn drain<E>(
        &mut self,
        mut take: impl FnMut(u32, &[u8], &Attributes, Content<'_, T>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut rest = self.bytes.as_slice();
        let result = self.rows.drain(..).try_for_each(|row| {
            let (key, behind) = rest.split_at(row.key as usize);
            rest = behind;
            match row.body {
                Body::Text(len) => {
                    let (text, behind) = rest.split_at(len as usize);
                    rest = behind;
                    take(row.db, key, &row.attributes, Content::Text(text))
                }
                Body::Other(other) => take(row.db, key, &row.attributes, Content::Other(other)),
            }
        });
        self.bytes.clear();
        self.held = 0;
        result
    }

    /// Gives back memory that one unusually long entry asked for.
    pub fn shrink(&mut self) {
        self.bytes.shrink_to(2 * BYTES_MAX);
    }
}
