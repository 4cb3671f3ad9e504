//! Values by small number, in chunks that never move.
//!
//! The keyspace keeps collections here and a 4-byte number in the key's entry, so entries stay plain bytes and
//! references to a collection are ordinary references. Chunks (not one growing vector) because doubling a vector of
//! a million handles is a pause.

use crate::alloc::good_size;

const CHUNK_LEN: usize = 128;

enum Place<T> {
    Taken(T),
    /// Next free place, or `NONE`.
    Free(u32),
}

const NONE: u32 = u32::MAX;

/// See the module's head.
pub struct Slab<T> {
    chunks: Vec<Box<[Place<T>]>>,
    free: u32,
    len: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Slab<T> {
        Slab { chunks: Vec::new(), free: NONE, len: 0 }
    }
}

impl<T> Slab<T> {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes held for places, taken or free; not what the values own.
    pub fn heap_bytes(&self) -> usize {
        self.chunks.len() * good_size(CHUNK_LEN * size_of::<Place<T>>())
            + good_size(self.chunks.capacity() * size_of::<Box<[Place<T>]>>())
    }

    fn place(&self, number: u32) -> &Place<T> {
        &self.chunks[number as usize / CHUNK_LEN][number as usize % CHUNK_LEN]
    }

    fn place_mut(&mut self, number: u32) -> &mut Place<T> {
        &mut self.chunks[number as usize / CHUNK_LEN][number as usize % CHUNK_LEN]
    }

    /// Stores a value and returns its number.
    pub fn insert(&mut self, value: T) -> u32 {
        if self.free == NONE {
            let first = (self.chunks.len() * CHUNK_LEN) as u32;
            assert!(first < NONE - CHUNK_LEN as u32, "fewer than 2^32 collections in a shard");
            let last = first + CHUNK_LEN as u32 - 1;
            self.chunks.push(
                (first..=last)
                    .map(|n| Place::Free(if n == last { NONE } else { n + 1 }))
                    .collect::<Box<[_]>>(),
            );
            self.free = first;
        }
        let number = self.free;
        match std::mem::replace(self.place_mut(number), Place::Taken(value)) {
            Place::Free(next) => self.free = next,
            Place::Taken(_) => unreachable!("the free list holds free places"),
        }
        self.len += 1;
        number
    }

    /// Takes a value out; its number may be given out again.
    pub fn remove(&mut self, number: u32) -> T {
        let free = self.free;
        match std::mem::replace(self.place_mut(number), Place::Free(free)) {
            Place::Taken(value) => {
                self.free = number;
                self.len -= 1;
                value
            }
            Place::Free(_) => unreachable!("value {number} was removed before"),
        }
    }

    /// The value with this number.
    #[inline]
    pub fn get(&self, number: u32) -> &T {
        match self.place(number) {
            Place::Taken(value) => value,
            Place::Free(_) => unreachable!("value {number} was removed before"),
        }
    }

    /// The value with this number, to be changed.
    #[inline]
    pub fn get_mut(&mut self, number: u32) -> &mut T {
        match self.place_mut(number) {
            Place::Taken(value) => value,
            Place::Free(_) => unreachable!("value {number} was removed before"),
        }
    }

    /// Takes out any value; None when there is none left. For taking a database apart in steps.
    pub fn pop(&mut self) -> Option<T> {
        while let Some(chunk) = self.chunks.last() {
            let base = ((self.chunks.len() - 1) * CHUNK_LEN) as u32;
            match chunk.iter().position(|place| matches!(place, Place::Taken(_))) {
                Some(at) => return Some(self.remove(base + at as u32)),
                None => {
                    // The free list may lead through this chunk: it is rebuilt empty, which is right because
                    // nothing is inserted while a slab is taken apart except after it is empty.
                    self.chunks.pop();
                    self.free = NONE;
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers stay valid while others come and go, and are reused.
    #[test]
    fn numbers_are_stable() {
        let mut slab = Slab::default();
        let numbers: Vec<u32> = (0..1000).map(|n| slab.insert(n)).collect();
        for (n, number) in numbers.iter().enumerate().filter(|(n, _)| n % 3 == 0) {
            assert_eq!(slab.remove(*number), n);
        }
        for n in 0..334 {
            assert!(slab.insert(5000 + n) < 1000, "freed places are used first");
        }
        for (n, number) in numbers.iter().enumerate().filter(|(n, _)| n % 3 != 0) {
            assert_eq!(*slab.get(*number), n);
        }
        assert_eq!(slab.len(), 1000);
        let mut left = 0;
        while slab.pop().is_some() {
            left += 1;
        }
        assert_eq!((left, slab.len()), (1000, 0));
        assert_eq!(slab.insert(7), 0);
    }
}
