//! Values by small number, in chunks that never move.
//!
//! The keyspace keeps collections here and a 4-byte number in the key's entry, so entries stay plain bytes and
//! references to a collection are ordinary references. Chunks (not one growing vector) because doubling a vector of
//! a million handles is a pause.
//!
//! A chunk without values is given back. So that chunks come to that after most values went, those less than half full can
//! be closed ([`Slab::close`]): they give out no places any more, and whoever knows who has which number moves their
//! values to others ([`Slab::renumber`]).

use crate::alloc::good_size;
use crate::moves::Mover;

/// Values per chunk.
const CHUNK_LEN: usize = 128;

enum Place<T> {
    Taken(T),
    /// Next free place of the chunk, or `NO_PLACE`.
    Free(u8),
}

const NO_PLACE: u8 = u8::MAX;
const NO_CHUNK: u32 = u32::MAX;

/// Chunks of which the last values go one by one would all be closed at some time; with less room than this it is not
/// worth while.
const ROOM_FREE: usize = 4 * CHUNK_LEN;

struct Chunk<T> {
    /// `CHUNK_LEN`, or none.
    places: Box<[Place<T>]>,
    taken: u8,
    /// The first free place, or `NO_PLACE`.
    free: u8,
    is_closed: bool,
    /// Neighbours in the list of chunks with room, or with `next` alone in that of chunks without places.
    before: u32,
    next: u32,
}

/// See the module's head.
pub struct Slab<T> {
    chunks: Vec<Chunk<T>>,
    /// Chunks that give out places: all with room that are not closed.
    open: u32,
    /// Chunks without places.
    absent: u32,
    closed: usize,
    len: usize,
    /// Places there are.
    capacity: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Slab<T> {
        Slab { chunks: Vec::new(), open: NO_CHUNK, absent: NO_CHUNK, closed: 0, len: 0, capacity: 0 }
    }
}

/// The chunk of a number, and the place there.
fn chunk_of(number: u32) -> (u32, usize) {
    (number / CHUNK_LEN as u32, number as usize % CHUNK_LEN)
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
        self.capacity / CHUNK_LEN * good_size(CHUNK_LEN * size_of::<Place<T>>())
            + good_size(self.chunks.capacity() * size_of::<Chunk<T>>())
    }

    /// Of these, those of free places that there need not be.
    pub fn dead_bytes(&self) -> usize {
        (self.capacity - self.len).saturating_sub(ROOM_FREE) * size_of::<Place<T>>()
    }

    fn chunk(&mut self, at: u32) -> &mut Chunk<T> {
        &mut self.chunks[at as usize]
    }

    /// Puts a chunk at the head of those with room.
    fn link(&mut self, at: u32) {
        let next = std::mem::replace(&mut self.open, at);
        (self.chunk(at).before, self.chunk(at).next) = (NO_CHUNK, next);
        if next != NO_CHUNK {
            self.chunk(next).before = at;
        }
    }

    fn unlink(&mut self, at: u32) {
        let (before, next) = (self.chunk(at).before, self.chunk(at).next);
        match before {
            NO_CHUNK => self.open = next,
            _ => self.chunk(before).next = next,
        }
        if next != NO_CHUNK {
            self.chunk(next).before = before;
        }
    }

    /// Makes a chunk with places, the only one with room.
    fn grow(&mut self) {
        assert!(self.chunks.len() < NO_CHUNK as usize / CHUNK_LEN, "fewer than 2^32 collections in a shard");
        let places = (1..=CHUNK_LEN as u8)
            .map(|next| Place::Free(if usize::from(next) == CHUNK_LEN { NO_PLACE } else { next }));
        let fresh = Chunk {
            places: places.collect(),
            taken: 0,
            free: 0,
            is_closed: false,
            before: NO_CHUNK,
            next: NO_CHUNK,
        };
        let at = match self.absent {
            NO_CHUNK => {
                self.chunks.push(fresh);
                self.chunks.len() as u32 - 1
            }
            at => {
                self.absent = self.chunk(at).next;
                *self.chunk(at) = fresh;
                at
            }
        };
        self.capacity += CHUNK_LEN;
        self.link(at);
    }

    /// Stores a value and returns its number.
    pub fn insert(&mut self, value: T) -> u32 {
        if self.open == NO_CHUNK {
            self.grow();
        }
        let at = self.open;
        let chunk = self.chunk(at);
        let place = chunk.free;
        match std::mem::replace(&mut chunk.places[usize::from(place)], Place::Taken(value)) {
            Place::Free(next) => chunk.free = next,
            Place::Taken(_) => unreachable!("the free list holds free places"),
        }
        chunk.taken += 1;
        if chunk.free == NO_PLACE {
            self.unlink(at);
        }
        self.len += 1;
        at * CHUNK_LEN as u32 + u32::from(place)
    }

    /// Takes a value out; its number may be given out again.
    pub fn remove(&mut self, number: u32) -> T {
        let (at, place) = chunk_of(number);
        let chunk = self.chunk(at);
        let next = std::mem::replace(&mut chunk.free, place as u8);
        let Place::Taken(value) = std::mem::replace(&mut chunk.places[place], Place::Free(next)) else {
            unreachable!("value {number} was removed before")
        };
        chunk.taken -= 1;
        let (is_empty, is_closed) = (chunk.taken == 0, chunk.is_closed);
        self.len -= 1;
        if next == NO_PLACE && !is_closed {
            self.link(at);
        }
        // The only chunk with room stays, or one value that comes and goes would make and give back a chunk each time.
        let is_only = self.open == at && self.chunk(at).next == NO_CHUNK;
        if is_empty && (is_closed || !is_only) {
            self.give_back(at);
        }
        value
    }

    /// Gives back the places of a chunk without values.
    fn give_back(&mut self, at: u32) {
        if std::mem::take(&mut self.chunk(at).is_closed) {
            self.closed -= 1;
        } else {
            self.unlink(at);
        }
        self.capacity -= CHUNK_LEN;
        let next = std::mem::replace(&mut self.absent, at);
        let chunk = self.chunk(at);
        chunk.places = Box::default();
        chunk.next = next;
    }

    /// Closes chunks that are at most half full, if there are many free places.
    pub fn close(&mut self) {
        if self.capacity - self.len <= self.len / 4 + ROOM_FREE {
            return;
        }
        for at in 0..self.chunks.len() as u32 {
            let chunk = self.chunk(at);
            if !chunk.is_closed && !chunk.places.is_empty() && usize::from(chunk.taken) <= CHUNK_LEN / 2 {
                chunk.is_closed = true;
                let is_empty = chunk.taken == 0;
                self.closed += 1;
                self.unlink(at);
                if is_empty {
                    self.give_back(at);
                }
            }
        }
    }

    /// Whether any chunk is closed.
    pub fn has_closed(&self) -> bool {
        self.closed > 0
    }

    /// Moves the value with this number out of its chunk, if that is closed; its number now.
    pub fn renumber(&mut self, number: u32) -> u32 {
        let (at, _) = chunk_of(number);
        if !self.chunk(at).is_closed {
            return number;
        }
        let value = self.remove(number);
        self.insert(value)
    }

    /// Opens the chunks that are closed.
    pub fn open(&mut self) {
        for at in 0..self.chunks.len() as u32 {
            if self.closed == 0 {
                return;
            }
            if std::mem::take(&mut self.chunk(at).is_closed) {
                self.closed -= 1;
                self.link(at);
            }
        }
    }

    /// The value with this number.
    #[inline]
    pub fn get(&self, number: u32) -> &T {
        let (at, place) = chunk_of(number);
        match &self.chunks[at as usize].places[place] {
            Place::Taken(value) => value,
            Place::Free(_) => unreachable!("value {number} was removed before"),
        }
    }

    /// The value with this number, to be changed.
    #[inline]
    pub fn get_mut(&mut self, number: u32) -> &mut T {
        let (at, place) = chunk_of(number);
        match &mut self.chunks[at as usize].places[place] {
            Place::Taken(value) => value,
            Place::Free(_) => unreachable!("value {number} was removed before"),
        }
    }

    /// The first value with this number or a greater one, and its number. Chunks at whose beginning it comes by are given
    /// other addresses; see [`Mover`].
    pub fn from(&mut self, number: u32, mover: &mut Mover<'_>) -> Option<(u32, &mut T)> {
        if number == 0 {
            mover.vec(&mut self.chunks);
        }
        let (first, mut within) = chunk_of(number);
        for (at, chunk) in self.chunks.iter_mut().enumerate().skip(first as usize) {
            let skipped = std::mem::take(&mut within);
            if skipped == 0 {
                mover.array(&mut chunk.places);
            }
            for (place, value) in chunk.places.iter_mut().enumerate().skip(skipped) {
                if let Place::Taken(value) = value {
                    return Some(((at * CHUNK_LEN + place) as u32, value));
                }
            }
        }
        None
    }

    /// Takes out any value; None when there is none left. For taking a database apart in steps.
    pub fn pop(&mut self) -> Option<T> {
        while let Some(chunk) = self.chunks.last() {
            match chunk.places.iter().position(|place| matches!(place, Place::Taken(_))) {
                Some(place) => {
                    let number = (self.chunks.len() - 1) * CHUNK_LEN + place;
                    return Some(self.remove(number as u32));
                }
                None => {
                    if !chunk.places.is_empty() {
                        self.give_back(self.chunks.len() as u32 - 1);
                    }
                    self.chunks.pop();
                    // The list may lead through this chunk: it is rebuilt empty, which is right because nothing is
                    // inserted while a slab is taken apart except after it is empty.
                    self.absent = NO_CHUNK;
                }
            }
        }
        None
    }

    /// Every invariant; for tests.
    pub fn check(&self) {
        let (mut taken, mut capacity, mut closed) = (0, 0, 0);
        for chunk in &self.chunks {
            let values = chunk.places.iter().filter(|place| matches!(place, Place::Taken(_))).count();
            assert_eq!(values, usize::from(chunk.taken));
            taken += values;
            capacity += chunk.places.len();
            closed += usize::from(chunk.is_closed);
        }
        assert_eq!((taken, capacity, closed), (self.len, self.capacity, self.closed));
        let (mut at, mut before, mut open) = (self.open, NO_CHUNK, 0);
        while at != NO_CHUNK {
            let chunk = &self.chunks[at as usize];
            assert!(chunk.before == before && !chunk.is_closed && chunk.free != NO_PLACE);
            (before, at, open) = (at, chunk.next, open + 1);
        }
        let with_room = |chunk: &&Chunk<T>| !chunk.places.is_empty() && usize::from(chunk.taken) < CHUNK_LEN;
        assert_eq!(open + closed, self.chunks.iter().filter(with_room).count());
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
        slab.check();
        for n in 0..334 {
            assert!(slab.insert(5000 + n) < 1024, "places that are there are used first");
        }
        for (n, number) in numbers.iter().enumerate().filter(|(n, _)| n % 3 != 0) {
            assert_eq!(*slab.get(*number), n);
        }
        assert_eq!(slab.len(), 1000);
        slab.check();
        let mut left = 0;
        while slab.pop().is_some() {
            left += 1;
        }
        assert_eq!((left, slab.len()), (1000, 0));
        assert_eq!(slab.insert(7), 0);
        slab.check();
    }

    /// Chunks whose values all went are given back, and made again when they are needed.
    #[test]
    fn empty_chunks_go() {
        let mut slab = Slab::default();
        let numbers: Vec<u32> = (0..10_000).map(|n| slab.insert(n)).collect();
        let full = slab.heap_bytes();
        for &number in &numbers[500..] {
            slab.remove(number);
        }
        slab.check();
        assert!(slab.heap_bytes() < full / 8, "{} of {full}", slab.heap_bytes());
        for n in 500..10_000 {
            slab.insert(n);
        }
        slab.check();
        assert_eq!(slab.heap_bytes(), full);
        // What comes and goes at the border of a chunk makes and frees none.
        let last = slab.insert(1);
        let number = (0..200).map(|_| slab.insert(2)).last().expect("some");
        assert!(last != number);
        slab.check();
    }

    /// Of scattered values, as eviction leaves them, little more room than they need is kept once they have moved; each has
    /// one number all the time, and `from` finds all of them.
    #[test]
    fn scattered_values_move() {
        let mut slab = Slab::default();
        let mut numbers: Vec<u32> = (0..100_000).map(|n| slab.insert(n)).collect();
        let full = slab.heap_bytes();
        for n in (0..100_000).filter(|n| n % 16 != 5) {
            slab.remove(numbers[n]);
        }
        let left: Vec<usize> = (0..100_000).filter(|n| n % 16 == 5).collect();
        assert!(slab.heap_bytes() == full && slab.dead_bytes() > full / 4 * 3);
        slab.close();
        assert!(slab.has_closed());
        slab.check();
        for (nth, &n) in left.iter().enumerate() {
            numbers[n] = slab.renumber(numbers[n]);
            if nth == 3000 {
                slab.check();
                // Meanwhile values come and go as ever.
                let number = slab.insert(7);
                assert_eq!(slab.remove(number), 7);
            }
        }
        slab.open();
        slab.check();
        assert!(!slab.has_closed() && left.iter().all(|&n| *slab.get(numbers[n]) == n));
        assert!(slab.heap_bytes() < full / 10, "{} of {full}", slab.heap_bytes());
        let (mut found, mut at) = (Vec::new(), 0);
        let mut mover = Mover::new(&|_| false, 100, usize::MAX);
        while let Some((number, value)) = slab.from(at, &mut mover) {
            found.push(*value);
            at = number + 1;
        }
        found.sort_unstable();
        assert_eq!(found, left);
        slab.close();
        assert!(!slab.has_closed(), "once is enough");
    }

    /// Chunks can lie elsewhere, each as often as it is asked for.
    #[test]
    fn chunks_move() {
        let mut slab = Slab::default();
        let numbers: Vec<u32> = (0..1000).map(|n| slab.insert(n)).collect();
        let mut mover = Mover::new(&|_| true, 100, usize::MAX);
        for number in (0..1000).step_by(CHUNK_LEN) {
            let before: *const i32 = slab.get(number);
            assert!(slab.from(number, &mut mover).is_some());
            assert!(before != slab.get(number), "{number} is elsewhere");
        }
        slab.check();
        assert_eq!(mover.moved(), slab.heap_bytes());
        assert!((0..1000).all(|n| *slab.get(numbers[n as usize]) == n));
    }

    /// One value that comes and goes makes no chunk each time.
    #[test]
    fn no_flutter() {
        let mut slab = Slab::default();
        for n in 0..CHUNK_LEN {
            slab.insert(n);
        }
        let number = slab.insert(0);
        slab.remove(number);
        let held = slab.heap_bytes();
        for n in 0..10 {
            let number = slab.insert(n);
            assert_eq!(slab.heap_bytes(), held);
            slab.remove(number);
            assert_eq!(slab.heap_bytes(), held);
        }
    }
}
