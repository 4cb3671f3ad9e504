//! A counted byte buffer behind one pointer.
//!
//! A `Vec<u8>` is 24 bytes of handle before it holds anything; with millions of small values the handles
//! weigh as much as the data. Here the handle is one pointer and everything about the buffer is one word in
//! front of its bytes:
//!
//! ```text
//!   handle ──> | header: u64                                  | bytes ...        | slack ... |
//!              | len: 30 bits | owner's word: 27 | class: 7   | len of them      |           |
//! ```
//!
//! `class` numbers the size class of the whole allocation ([`good_size`](crate::alloc::good_size)), so
//! capacity is known exactly without a field for it and growth inside the class is free. Eight bytes of
//! header put a list of ten 10-byte elements into a 128-byte block; one byte more would put it into 160.
//!
//! Invariants: no bytes, no allocation was asked for: a null pointer; otherwise the pointer is to
//! `class_size(class)` bytes, aligned to 8, *all of them initialised*, slack too, which is what lets the
//! interface be safe slices; `HEADER + len <= class_size(class)`.
//!
//! Also here: [`PackOr`], which puts "a small pack or a big structure" into the same eight bytes.

#![expect(
    unsafe_code,
    reason = "a one-pointer handle: a safe boxed slice is 16 bytes, and a value slot then 24, not 16"
)]

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, handle_alloc_error, realloc};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use crate::moves::Mover;
use crate::pack::Pack;

/// Bytes in front of the data.
pub(crate) const HEADER: usize = 8;

const LEN_BITS: u32 = 30;
const WORD_BITS: u32 = 27;
const CLASS_SHIFT: u32 = LEN_BITS + WORD_BITS;

/// The most bytes a buffer holds: what the class of one gibibyte has room for. A client's string is at most
/// half of that.
pub(crate) const LEN_MAX: usize = (1 << LEN_BITS) - HEADER;

/// The greatest value of the owner's word.
pub(crate) const WORD_MAX: usize = (1 << WORD_BITS) - 1;

/// The greatest length has its own bits, even at the end of the greatest class.
const _: () = assert!(class_size(class_of(HEADER + LEN_MAX)) - HEADER == LEN_MAX);
const _: () = assert!(class_of(HEADER + LEN_MAX) < 1 << (64 - CLASS_SHIFT));

/// The number of the smallest size class that holds `size` bytes; `size` is at least 1.
#[inline]
const fn class_of(size: usize) -> u64 {
    if size <= 128 {
        return (size as u64 - 1) / 16;
    }
    let top = usize::BITS - 1 - (size - 1).leading_zeros();
    8 + (top as u64 - 7) * 4 + (((size - 1) >> (top - 2)) & 3) as u64
}

/// How many bytes a class has.
#[inline]
const fn class_size(class: u64) -> usize {
    if class < 8 {
        return (class as usize + 1) * 16;
    }
    let (double, quarter) = ((class - 8) / 4, (class - 8) % 4);
    (5 + quarter as usize) << (double + 5)
}

/// See the head of the module.
#[repr(transparent)]
pub(crate) struct ThinBuf {
    header: Option<NonNull<u64>>,
}

// SAFETY: the buffer owns its allocation alone, and bytes may be read and dropped on any thread.
unsafe impl Send for ThinBuf {}
// SAFETY: `&ThinBuf` gives read access only.
unsafe impl Sync for ThinBuf {}

impl ThinBuf {
    pub(crate) const fn new() -> Self {
        Self { header: None }
    }

    /// The header word; zero stands for the buffer without allocation.
    #[inline]
    fn word(&self) -> u64 {
        match self.header {
            // SAFETY: by the invariant the pointer is to a live, aligned, initialised header.
            Some(header) => unsafe { header.read() },
            None => 0,
        }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        (self.word() & ((1 << LEN_BITS) - 1)) as usize
    }

    /// The owner's word: an element count, a width.
    #[inline]
    pub(crate) fn aux(&self) -> usize {
        ((self.word() >> LEN_BITS) & WORD_MAX as u64) as usize
    }

    /// How many bytes fit without moving.
    #[inline]
    pub(crate) fn capacity(&self) -> usize {
        match self.header {
            Some(_) => class_size(self.word() >> CLASS_SHIFT) - HEADER,
            None => 0,
        }
    }

    /// What the buffer holds from the allocator.
    #[inline]
    pub(crate) fn heap_bytes(&self) -> usize {
        match self.header {
            Some(_) => class_size(self.word() >> CLASS_SHIFT),
            None => 0,
        }
    }

    #[inline]
    pub(crate) fn bytes(&self) -> &[u8] {
        match self.header {
            // SAFETY: `len` bytes after the header are inside the allocation and initialised; the borrow of
            // `self` keeps them from being written or freed.
            Some(header) => unsafe {
                std::slice::from_raw_parts(header.as_ptr().add(1).cast::<u8>(), self.len())
            },
            None => &[],
        }
    }

    #[inline]
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let len = self.len();
        match self.header {
            // SAFETY: as in `bytes`, and the mutable borrow of `self` makes the access exclusive.
            Some(header) => unsafe {
                std::slice::from_raw_parts_mut(header.as_ptr().add(1).cast::<u8>(), len)
            },
            None => &mut [],
        }
    }

    /// Sets both counters at once. Bytes between the old and a greater new length have unspecified values:
    /// whatever the slack held.
    #[inline]
    pub(crate) fn set(&mut self, len: usize, aux: usize) {
        assert!(len <= self.capacity() && aux <= WORD_MAX);
        if let Some(header) = self.header {
            let class = self.word() >> CLASS_SHIFT << CLASS_SHIFT;
            // SAFETY: the header is live and ours alone. `len` was checked against the capacity, so the
            // invariant holds; the bytes up to it are initialised because all of the allocation is.
            unsafe { header.write(class | (aux as u64) << LEN_BITS | len as u64) };
        }
    }

    /// Moves to the size class for `capacity` bytes; the class can be smaller, but never too small for the
    /// content. Capacity zero gives the allocation back.
    #[cold]
    #[inline(never)]
    pub(crate) fn fit(&mut self, capacity: usize) {
        assert!(capacity <= LEN_MAX, "a pack is bounded to {LEN_MAX} bytes");
        assert!(capacity >= self.len());
        let (len, aux, old_size) = (self.len(), self.aux(), self.heap_bytes());
        if capacity == 0 {
            *self = Self::new();
            return;
        }
        let class = class_of(HEADER + capacity);
        let size = class_size(class);
        if size == old_size {
            return;
        }
        let layout = layout(size);
        let moved = match self.header {
            // SAFETY: the pointer came from this allocator with the layout of `old_size`; the new size is not
            // zero and its rounding to 8 cannot overflow, being below 2^31. The grown part is written before
            // anyone can read it, inside the new allocation.
            Some(header) if size > old_size => unsafe {
                let moved = realloc(header.as_ptr().cast(), self::layout(old_size), size);
                if !moved.is_null() {
                    ptr::write_bytes(moved.add(old_size), 0, size - old_size);
                }
                moved
            },
            // Not realloc: allocators leave a block in place when it shrinks by less than half, and the bytes
            // counted here would no longer be the bytes held.
            // SAFETY: the layout's size is not zero.
            _ => unsafe { alloc_zeroed(layout) },
        };
        let Some(fresh) = NonNull::new(moved.cast::<u64>()) else { handle_alloc_error(layout) };
        if let Some(header) = self.header
            && size < old_size
        {
            // SAFETY: both allocations are live, distinct, and hold HEADER + len bytes (checked above); the
            // old one is freed with the layout it was made with, and its pointer is overwritten below.
            unsafe {
                ptr::copy_nonoverlapping(
                    header.as_ptr().cast::<u8>(),
                    fresh.as_ptr().cast::<u8>(),
                    HEADER + len,
                );
                dealloc(header.as_ptr().cast(), self::layout(old_size));
            }
        }
        self.header = Some(fresh);
        // SAFETY: the header is the first word of the allocation that was just made.
        unsafe { fresh.write(class << CLASS_SHIFT | (aux as u64) << LEN_BITS | len as u64) };
    }
}

impl ThinBuf {
    /// Gives the allocation another address if that is asked for.
    pub(crate) fn relocate(&mut self, mover: &mut Mover<'_>) {
        let Some(old) = self.header else { return };
        let size = self.heap_bytes();
        // SAFETY: the allocation is live, ours alone, and has as many bytes.
        if !unsafe { mover.wants_or_trims(old.as_ptr(), size) } {
            return;
        }
        let layout = layout(size);
        // SAFETY: the layout's size is not zero.
        let Some(fresh) = NonNull::new(unsafe { alloc(layout) }.cast::<u64>()) else {
            handle_alloc_error(layout)
        };
        // SAFETY: both are live, distinct allocations of `size` bytes, all of the old one initialised, and with that all
        // of the new one. The old one is freed with the layout it was made with, and its pointer overwritten below.
        unsafe {
            ptr::copy_nonoverlapping(old.as_ptr().cast::<u8>(), fresh.as_ptr().cast::<u8>(), size);
            dealloc(old.as_ptr().cast(), layout);
        }
        self.header = Some(fresh);
        mover.note(size);
    }
}

/// The layout of an allocation of a class; `size` comes from [`class_size`].
fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, HEADER).expect("a class size is far below isize::MAX")
}

impl Drop for ThinBuf {
    fn drop(&mut self) {
        if let Some(header) = self.header {
            // SAFETY: the allocation is live, ours alone, and was made with exactly this layout.
            unsafe { dealloc(header.as_ptr().cast(), layout(self.heap_bytes())) };
        }
    }
}

/// A [`Pack`] or a boxed `T` in eight bytes.
///
/// Every collection starts as a pack and becomes something bigger; as an enum the pair takes 16 bytes, and an
/// enum of such enums 24. The lowest bit of the pointer tells them apart: both are aligned to 8, so it is
/// free.
pub struct PackOr<T> {
    /// A pack's own representation (bit 0 clear, null for an empty pack) or `Box::into_raw` with bit 0 set.
    word: *mut u8,
    _owns: PhantomData<(Pack, Box<T>)>,
}

/// What a [`PackOr`] is at the moment.
pub enum Form<P, B> {
    /// The compact form.
    Pack(P),
    /// The big form.
    Big(B),
}

// SAFETY: it owns a Pack or a Box<T> and nothing else; a Pack is Send.
unsafe impl<T: Send> Send for PackOr<T> {}
// SAFETY: `&PackOr` gives `&Pack` or `&T`; a Pack is Sync.
unsafe impl<T: Sync> Sync for PackOr<T> {}

impl<T> PackOr<T> {
    const ALIGNED: () = assert!(align_of::<T>() >= 2, "bit 0 of a pointer to T must be free");

    /// Holds a pack.
    pub fn pack(pack: Pack) -> Self {
        // SAFETY: a Pack is a transparent ThinBuf, which is a transparent Option<NonNull<u64>>: the size and
        // validity of a raw pointer. Ownership moves along.
        let word = unsafe { std::mem::transmute::<Pack, *mut u8>(pack) };
        Self { word, _owns: PhantomData }
    }

    /// Holds the big form.
    pub fn big(big: Box<T>) -> Self {
        let () = Self::ALIGNED;
        Self { word: Box::into_raw(big).cast::<u8>().map_addr(|address| address | 1), _owns: PhantomData }
    }

    /// Whether it is the compact form.
    #[inline]
    pub fn is_pack(&self) -> bool {
        self.word.addr() & 1 == 0
    }

    fn big_ptr(&self) -> *mut T {
        self.word.map_addr(|address| address & !1).cast()
    }

    /// What is inside.
    #[inline]
    pub fn get(&self) -> Form<&Pack, &T> {
        if self.is_pack() {
            // SAFETY: bit 0 is clear, so `word` is the representation of a Pack that we own; a reference to
            // the field is a reference to that Pack.
            Form::Pack(unsafe { &*(&raw const self.word).cast::<Pack>() })
        } else {
            // SAFETY: bit 0 is set, so the rest is the pointer of a Box<T> that we own.
            Form::Big(unsafe { &*self.big_ptr() })
        }
    }

    /// Gives the allocation another address if that is asked for; what the big form owns, `inside` looks at.
    pub fn relocate<'m>(&mut self, mover: &mut Mover<'m>, inside: impl FnOnce(&mut T, &mut Mover<'m>)) {
        if let Form::Pack(pack) = self.get_mut() {
            return pack.relocate(mover);
        }
        // SAFETY: bit 0 is set, so this is the pointer of a Box<T> that we own; `self` is given the new one before
        // anybody can look, as moving a box does not panic.
        let mut big = unsafe { Box::from_raw(self.big_ptr()) };
        mover.boxed(&mut big);
        self.word = Box::into_raw(big).cast::<u8>().map_addr(|address| address | 1);
        if let Form::Big(big) = self.get_mut() {
            inside(big, mover);
        }
    }

    /// What is inside, to change.
    #[inline]
    pub fn get_mut(&mut self) -> Form<&mut Pack, &mut T> {
        if self.is_pack() {
            // SAFETY: as in `get`; and whatever the Pack becomes through this reference has bit 0 clear
            // again, because a Pack is null or aligned to 8.
            Form::Pack(unsafe { &mut *(&raw mut self.word).cast::<Pack>() })
        } else {
            // SAFETY: as in `get`, and the mutable borrow of `self` makes it exclusive.
            Form::Big(unsafe { &mut *self.big_ptr() })
        }
    }
}

impl<T: Clone> Clone for PackOr<T> {
    fn clone(&self) -> Self {
        match self.get() {
            Form::Pack(pack) => Self::pack(pack.clone()),
            Form::Big(big) => Self::big(Box::new(big.clone())),
        }
    }
}

impl<T> Drop for PackOr<T> {
    fn drop(&mut self) {
        if let Form::Pack(pack) = self.get_mut() {
            // SAFETY: the Pack is ours and is not touched again after this.
            unsafe { ptr::drop_in_place(pack) };
        } else {
            // SAFETY: the pointer came from Box::into_raw and is not used again after this.
            drop(unsafe { Box::from_raw(self.big_ptr()) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alloc::{ALONE_FROM, good_size};

    /// The numbering of classes says the same as the rounding that everybody else counts with, up to the blocks that have
    /// pages of their own: their class is longer than what they take.
    #[test]
    fn classes_agree_with_good_size() {
        for size in (1..5000).chain([57_344, 57_345, ALONE_FROM - 1, ALONE_FROM]) {
            assert_eq!(class_size(class_of(size)), good_size(size), "size {size}");
        }
        for size in [ALONE_FROM + 1, 1 << 20, (1 << 20) + 1, HEADER + LEN_MAX] {
            assert!(class_size(class_of(size)) >= good_size(size), "size {size}");
        }
    }

    /// Growing and shrinking keep content and counters; zero gives the allocation back.
    #[test]
    fn fit() {
        let mut buf = ThinBuf::new();
        assert_eq!((buf.len(), buf.aux(), buf.capacity(), buf.heap_bytes()), (0, 0, 0, 0));
        buf.fit(100);
        assert_eq!((buf.capacity(), buf.heap_bytes()), (104, 112));
        buf.set(100, 7);
        assert_eq!(buf.bytes(), [0; 100]);
        buf.bytes_mut().fill(5);
        for capacity in [1000, 100, 104, 5000, 101] {
            buf.fit(capacity);
            assert_eq!(buf.bytes(), [5; 100]);
            assert_eq!((buf.aux(), buf.heap_bytes()), (7, good_size(HEADER + capacity)));
        }
        buf.set(0, 0);
        buf.fit(0);
        assert_eq!(buf.heap_bytes(), 0);
    }

    /// Both forms live in eight bytes, change into each other and are dropped once.
    #[test]
    fn pack_or() {
        assert_eq!(size_of::<PackOr<String>>(), 8);
        let mut value = PackOr::<String>::pack(Pack::new());
        assert!(value.is_pack());
        let Form::Pack(pack) = value.get_mut() else { unreachable!() };
        pack.push_back(b"element");
        assert!(matches!(value.get(), Form::Pack(pack) if pack.len() == 1));
        value = PackOr::big(Box::new("text".to_owned()));
        let Form::Big(text) = value.get_mut() else { unreachable!() };
        text.push('s');
        assert!(matches!(value.get(), Form::Big(text) if text == "texts"));
        value = PackOr::pack(Pack::new());
        assert!(value.is_pack());
    }
}
