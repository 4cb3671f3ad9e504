//! Giving allocations another address.
//!
//! What is removed leaves holes in the allocator's pages, and a page goes back to the system only when nothing is left
//! in it. So what lies in pages that are mostly free is copied to others. Every structure has a function `relocate`
//! that looks at each of its allocations; a [`Mover`] is told which pages are sparse, and knows when enough was done.
//! What clones share stays where it is. So do long blocks, which have pages of their own; but where there were others
//! before, what those have left behind them goes back ([`Heap::trim`]).
//!
//! Big structures are looked at in several calls. Their allocations are numbered as parts, in the order in which
//! `relocate` comes to them, and the number of those that were seen is the place where it goes on ([`Mover::from`]).
//! If the structure changed meanwhile, some parts are seen twice or not at all, which does no harm.

#![expect(unsafe_code, reason = "moving a value from one allocation to another, which boxes do not offer")]

use std::collections::VecDeque;
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::ptr;
use std::sync::Arc;

use crate::alloc::{ALONE_FROM, good_size};

/// What a mover asks of the allocator. Who has only the question, has a function for it.
pub trait Heap {
    /// Whether the page that an address lies in is mostly free.
    fn is_sparse(&self, address: *const u8) -> bool;

    /// Gives back what is resident behind a block that has pages of its own.
    ///
    /// # Safety
    /// A live allocation of so many bytes, more than [`ALONE_FROM`], begins there, and is not freed or made longer
    /// meanwhile.
    unsafe fn trim(&self, _block: *const u8, _bytes: usize) {}
}

impl<F: Fn(*const u8) -> bool> Heap for F {
    fn is_sparse(&self, address: *const u8) -> bool {
        self(address)
    }
}

/// What is moved in one step, having no places to go on at, holds at most so much.
pub const AT_ONCE_MAX: usize = 256 << 10;
/// What counts are in front of the value of an `Arc`.
const COUNTS: usize = 2 * size_of::<usize>();

/// See the module's head.
pub struct Mover<'a> {
    heap: &'a dyn Heap,
    /// Parts that may still be looked at, and bytes that may still be moved.
    looks: usize,
    bytes: usize,
    moved: usize,
    /// Parts of the present structure that were seen, and of these, those that are still to be passed by.
    place: u64,
    passed: u64,
    is_first: bool,
    is_cut: bool,
}

impl<'a> Mover<'a> {
    /// Looks at so many parts and moves so many bytes, or a little more.
    pub fn new(heap: &'a dyn Heap, looks: usize, bytes: usize) -> Mover<'a> {
        Mover { heap, looks, bytes, moved: 0, place: 0, passed: 0, is_first: true, is_cut: false }
    }

    /// Bytes that lie elsewhere now.
    pub fn moved(&self) -> usize {
        self.moved
    }

    /// Whether enough was done.
    pub fn is_done(&self) -> bool {
        self.looks == 0 || self.moved >= self.bytes
    }

    /// Looks at a structure from a place on, 0 being its beginning; where to go on, or None if all was seen.
    pub fn from(&mut self, place: u64, relocate: impl FnOnce(&mut Self)) -> Option<u64> {
        (self.place, self.passed, self.is_first, self.is_cut) = (place, place, true, false);
        self.look();
        relocate(self);
        self.is_cut.then_some(self.place)
    }

    fn look(&mut self) {
        self.looks = self.looks.saturating_sub(1);
    }

    /// Where the present structure began this time. For those that give places a meaning of their own.
    pub fn place(&self) -> u64 {
        self.place
    }

    /// Counts a part of the present structure, if there is still something to do this time; else it goes on at `place`.
    /// One part is seen at any rate, so that every structure is seen in the end.
    pub fn goes_on(&mut self, place: u64) -> bool {
        let is_first = std::mem::take(&mut self.is_first);
        self.is_cut = !is_first && self.is_done();
        self.place = place;
        if !self.is_cut {
            self.look();
        }
        !self.is_cut
    }

    /// The next so many parts of the present structure, without those that were seen.
    pub fn parts(&mut self, len: usize) -> Range<usize> {
        let seen = self.passed.min(len as u64);
        self.passed -= seen;
        seen as usize..len
    }

    /// The next of these parts; None if there is none or enough was done.
    pub fn next(&mut self, parts: &mut Range<usize>) -> Option<usize> {
        if parts.start >= parts.end || self.is_cut || !self.goes_on(self.place) {
            return None;
        }
        self.place += 1;
        parts.next()
    }

    /// Whether an allocation of so many bytes is to be moved: those with pages of their own leave no holes.
    #[inline]
    pub(crate) fn wants<T>(&self, at: *const T, bytes: usize) -> bool {
        bytes > 0 && bytes <= ALONE_FROM && self.heap.is_sparse(at.cast())
    }

    /// As [`Mover::wants`]; what is behind a block with pages of its own goes back.
    ///
    /// # Safety
    /// An allocation of so many bytes, if not of none, begins there, and is not freed or made longer meanwhile.
    #[inline]
    pub(crate) unsafe fn wants_or_trims<T>(&self, block: *const T, bytes: usize) -> bool {
        if bytes <= ALONE_FROM {
            return self.wants(block, bytes);
        }
        // SAFETY: the caller's promise.
        unsafe { self.heap.trim(block.cast(), bytes) };
        false
    }

    /// Notes that an allocation was moved.
    pub(crate) fn note(&mut self, bytes: usize) {
        self.moved += bytes;
    }

    /// A vector; its capacity stays.
    pub fn vec<T>(&mut self, vec: &mut Vec<T>) {
        let bytes = vec.capacity() * size_of::<T>();
        // SAFETY: so many bytes are there from where the vector begins, and nobody else has it.
        if unsafe { self.wants_or_trims(vec.as_ptr(), bytes) } {
            let mut fresh = Vec::with_capacity(vec.capacity());
            fresh.append(vec);
            *vec = fresh;
            self.note(good_size(bytes));
        }
    }

    /// A boxed array.
    pub fn array<T>(&mut self, array: &mut Box<[T]>) {
        let mut vec = std::mem::take(array).into_vec();
        self.vec(&mut vec);
        *array = vec.into_boxed_slice();
    }

    /// A deque; its capacity stays.
    pub fn deque<T>(&mut self, deque: &mut VecDeque<T>) {
        let bytes = deque.capacity() * size_of::<T>();
        // The address of an element, not of the allocation: one of a page's, too.
        if self.wants(deque.as_slices().0.as_ptr(), bytes) {
            let mut fresh = VecDeque::with_capacity(deque.capacity());
            fresh.append(deque);
            *deque = fresh;
            self.note(good_size(bytes));
        }
    }

    /// Boxed bytes or text.
    pub fn bytes<T: ?Sized + AsRef<[u8]>>(&mut self, bytes: &mut Box<T>)
    where
        Box<T>: Clone,
    {
        let len = size_of_val(&**bytes);
        // SAFETY: so many bytes are in the box, and nobody else has it.
        if unsafe { self.wants_or_trims((&raw const **bytes).cast::<u8>(), len) } {
            self.note(good_size(len));
            *bytes = bytes.clone();
        }
    }

    /// A counted slice.
    pub fn shared_bytes(&mut self, bytes: &mut Arc<[u8]>) {
        let taken = COUNTS + bytes.len();
        if self.wants(bytes.as_ptr(), taken) && Arc::get_mut(bytes).is_some() {
            *bytes = Arc::from(&**bytes);
            self.note(good_size(taken));
        }
    }

    /// The allocation of a box, and the value in it, which may own more.
    pub fn boxed<'b, T>(&mut self, boxed: &'b mut Box<T>) -> &'b mut T {
        if self.wants(&raw const **boxed, size_of::<T>()) {
            let mut fresh = Box::<T>::new_uninit();
            // SAFETY: the value is copied out of the old box bytewise, and that box is then freed as one of a value that is
            // not dropped (`ManuallyDrop` has the same layout): the value has one owner all the time. Nothing in between
            // can panic. `boxed` holds a valid box again before anybody can look.
            unsafe {
                fresh.as_mut_ptr().copy_from_nonoverlapping(&raw const **boxed, 1);
                let old = Box::into_raw(ptr::read(boxed));
                ptr::write(boxed, fresh.assume_init());
                drop(Box::<ManuallyDrop<T>>::from_raw(old.cast()));
            }
            self.note(good_size(size_of::<T>()));
        }
        boxed
    }

    /// The allocation of a counted value, and that value, unless it is shared.
    pub fn shared<'b, T>(&mut self, shared: &'b mut Arc<T>) -> Option<&'b mut T> {
        let value: *const T = Arc::get_mut(shared)?;
        if self.wants(value, COUNTS + size_of::<T>()) {
            let mut fresh = Arc::<T>::new_uninit();
            let room = Arc::get_mut(&mut fresh).expect("just made");
            // SAFETY: as in `boxed`. The old `Arc` is the only one, without weak ones, as `get_mut` has just found out, so
            // freeing it as one of a value that is not dropped frees the allocation and nothing else.
            unsafe {
                room.as_mut_ptr().copy_from_nonoverlapping(value, 1);
                let old = Arc::into_raw(ptr::read(shared));
                ptr::write(shared, fresh.assume_init());
                drop(Arc::<ManuallyDrop<T>>::from_raw(old.cast()));
            }
            self.note(good_size(COUNTS + size_of::<T>()));
        }
        Arc::get_mut(shared)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn everywhere(_: *const u8) -> bool {
        true
    }

    /// What is moved has another address, the same content and the same capacity, and is dropped once.
    #[test]
    fn all_kinds() {
        let counted = Arc::new(());
        let mut mover = Mover::new(&everywhere, 100, usize::MAX);
        let mut vec = Vec::with_capacity(10);
        vec.extend([counted.clone(), counted.clone()]);
        let mut deque: VecDeque<_> = (0..20).collect();
        deque.rotate_left(7);
        let mut boxed = Box::new((counted.clone(), [7u64; 9]));
        let mut shared = Arc::new((counted.clone(), "text".to_string()));
        let mut bytes: Box<[u8]> = Box::from(&b"some bytes"[..]);
        let mut text: Box<str> = Box::from("some text");
        let mut shared_bytes: Arc<[u8]> = Arc::from(&b"counted bytes"[..]);
        let addresses = (vec.as_ptr(), &raw const *boxed, Arc::as_ptr(&shared), bytes.as_ptr());
        mover.vec(&mut vec);
        mover.deque(&mut deque);
        mover.boxed(&mut boxed);
        assert_eq!(mover.shared(&mut shared).map(|value| value.1.as_str()), Some("text"));
        mover.bytes(&mut bytes);
        mover.bytes(&mut text);
        mover.shared_bytes(&mut shared_bytes);
        assert!(vec.as_ptr() != addresses.0 && &raw const *boxed != addresses.1);
        assert!(Arc::as_ptr(&shared) != addresses.2 && bytes.as_ptr() != addresses.3);
        assert_eq!((vec.len(), vec.capacity(), boxed.1), (2, 10, [7; 9]));
        assert_eq!(deque, (0..20).map(|n| (n + 7) % 20).collect::<VecDeque<_>>());
        assert_eq!(
            (&*bytes, &*text, &*shared_bytes),
            (&b"some bytes"[..], "some text", &b"counted bytes"[..])
        );
        assert_eq!(mover.moved(), 80 + 80 + 80 + 48 + 16 + 16 + 32);
        assert_eq!(Arc::strong_count(&counted), 5);
        drop((vec, boxed, shared));
        assert_eq!(Arc::strong_count(&counted), 1);
    }

    /// What somebody else sees, and what is in dense pages, stays where it is.
    #[test]
    fn stays() {
        let mut shared = Arc::new(5);
        let mut bytes: Arc<[u8]> = Arc::from(&b"counted bytes"[..]);
        let others = (shared.clone(), bytes.clone());
        let mut mover = Mover::new(&everywhere, 100, usize::MAX);
        assert!(mover.shared(&mut shared).is_none());
        mover.shared_bytes(&mut bytes);
        assert!(Arc::ptr_eq(&shared, &others.0) && Arc::ptr_eq(&bytes, &others.1));
        let mut boxed = Box::new(5);
        let address = &raw const *boxed;
        Mover::new(&|_| false, 100, usize::MAX).boxed(&mut boxed);
        assert!(&raw const *boxed == address);
        assert_eq!(mover.moved(), 0);
    }

    /// A structure of 10 and 5 parts is seen in calls of four parts, each part once.
    #[test]
    fn places() {
        let (mut place, mut seen) = (0, Vec::new());
        let mut calls = 0;
        loop {
            calls += 1;
            // One of the looks is for the structure as a whole.
            let mut mover = Mover::new(&everywhere, 5, usize::MAX);
            let next = mover.from(place, |mover| {
                for (base, len) in [(0, 10), (100, 5)] {
                    let mut parts = mover.parts(len);
                    while let Some(at) = mover.next(&mut parts) {
                        seen.push(base + at);
                    }
                }
            });
            match next {
                Some(next) => place = next,
                None => break,
            }
        }
        assert_eq!((calls, seen), (4, (0..10).chain(100..105).collect()));
    }
}
