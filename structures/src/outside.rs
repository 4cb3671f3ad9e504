//! Byte strings in allocations of their own, owned through pointers that are stored in packed entries.
//!
//! ```text
//! grown:  [pointer 8][length 4][capacity 4]   a vector, for strings that are changed in place
//! lent:   the same with LENT in the capacity, the pointer being to a vector with a count of those who share it
//! exact:  [pointer 8][length 4]               a boxed slice, for strings that are only replaced
//! ```
//!
//! A grown string can be lent ([`lend`]): it stays as it is for as long as anybody reads it, on any thread, whatever
//! becomes of the entry. Who changes it meanwhile changes a copy.
//!
//! One place for both because the rules are the same: whoever stores owns, the bytes in the entry are the only
//! owner, and a byte copy of an entry owns nothing until [`duplicate`] made it a string of its own. Lengths are
//! below 4 GiB, which the limits on requests guarantee.

#![expect(unsafe_code, reason = "ownership through pointers that are bytes in an entry")]

use std::mem::ManuallyDrop;
use std::sync::Arc;

use crate::alloc::good_size;
use crate::moves::Mover;

/// Bytes that describe a string stored by [`store_exact`].
pub(crate) const EXACT_LEN: usize = 12;

/// Says that a grown string has been lent. Capacities are below: see the module's head.
const LENT: usize = 1 << 31;

fn address(from: &[u8]) -> usize {
    u64::from_le_bytes(from[..8].try_into().expect("eight bytes")) as usize
}

fn number(from: &[u8], at: usize) -> usize {
    u32::from_le_bytes(from[at..at + 4].try_into().expect("four bytes")) as usize
}

fn write(to: &mut [u8], address: usize, len: usize) {
    to[..8].copy_from_slice(&(address as u64).to_le_bytes());
    to[8..12].copy_from_slice(&u32::try_from(len).expect("below 4 GiB").to_le_bytes());
}

/// Gives up a vector for storing.
pub(crate) fn store(bytes: Vec<u8>, to: &mut [u8]) {
    assert!(bytes.capacity() < LENT, "strings are below 2 GiB");
    let mut bytes = ManuallyDrop::new(bytes);
    write(to, bytes.as_mut_ptr().expose_provenance(), bytes.len());
    to[12..16].copy_from_slice(&(bytes.capacity() as u32).to_le_bytes());
}

/// What a string stored by [`store`] holds from the allocator.
pub(crate) fn grown_bytes(from: &[u8]) -> usize {
    good_size(number(from, 12) & !LENT)
}

fn is_lent(from: &[u8]) -> bool {
    number(from, 12) & LENT != 0
}

/// The bytes that [`store_exact`] gave up.
///
/// # Safety
/// `from` holds what it wrote, and the string has not been dropped since.
#[inline]
pub(crate) unsafe fn view(from: &[u8]) -> &[u8] {
    let pointer = std::ptr::with_exposed_provenance::<u8>(address(from));
    // SAFETY: by the contract these are the parts of a live allocation. It is changed and freed only through
    // `&mut` access to the entry, which the lifetime of `from` excludes.
    unsafe { std::slice::from_raw_parts(pointer, number(from, 8)) }
}

/// The bytes that [`store`] gave up.
///
/// # Safety
/// `from` holds what it wrote, and the string has not been taken since.
#[inline]
pub(crate) unsafe fn view_grown(from: &[u8]) -> &[u8] {
    if is_lent(from) {
        // SAFETY: as below; what is shared is changed by nobody.
        return unsafe { &*lent(from) };
    }
    // SAFETY: a vector that is not shared is described as a boxed slice is, and the contract is the same.
    unsafe { view(from) }
}

/// The shared vector of a string that has been lent.
fn lent(from: &[u8]) -> *const Vec<u8> {
    debug_assert!(is_lent(from));
    std::ptr::with_exposed_provenance(address(from))
}

/// Takes back the vector given to [`store`], or a copy with the same capacity if somebody still reads it.
///
/// # Safety
/// As for [`view_grown`]; and the entry is overwritten or forgotten before anybody reads it again.
pub(crate) unsafe fn take(from: &[u8]) -> Vec<u8> {
    if is_lent(from) {
        // SAFETY: the pointer is that of an `Arc` of which `lend` left one count with the entry, and this ends it.
        let shared = unsafe { Arc::from_raw(lent(from)) };
        return Arc::try_unwrap(shared).unwrap_or_else(|shared| {
            let mut copy = Vec::with_capacity(shared.capacity());
            copy.extend_from_slice(&shared);
            copy
        });
    }
    let pointer = std::ptr::with_exposed_provenance_mut::<u8>(address(from));
    // SAFETY: by the contract these are the parts of a vector that nobody else will use.
    unsafe { Vec::from_raw_parts(pointer, number(from, 8), number(from, 12)) }
}

/// Frees a string given to [`store`], or leaves it to those who read it; returns what it held.
///
/// # Safety
/// As for [`take`].
pub(crate) unsafe fn drop_grown(from: &[u8]) -> usize {
    if is_lent(from) {
        // SAFETY: as in `take`.
        drop(unsafe { Arc::from_raw(lent(from)) });
    } else {
        // SAFETY: the caller's promise.
        drop(unsafe { take(from) });
    }
    grown_bytes(from)
}

/// Shares a string given to [`store`] with the caller, without copying it.
///
/// # Safety
/// `at` holds what [`store`] wrote, and the string has not been taken since.
pub(crate) unsafe fn lend(at: &mut [u8]) -> Arc<Vec<u8>> {
    if !is_lent(at) {
        // SAFETY: the contract is that of `take`, and the entry gets its new form before anybody else looks.
        let bytes = unsafe { take(at) };
        let (len, capacity) = (bytes.len(), bytes.capacity());
        write(at, Arc::into_raw(Arc::new(bytes)).expose_provenance(), len);
        at[12..16].copy_from_slice(&((capacity | LENT) as u32).to_le_bytes());
    }
    // SAFETY: the pointer is that of an `Arc` of which the entry has one count, so it is alive; the caller gets another.
    unsafe {
        Arc::increment_strong_count(lent(at));
        Arc::from_raw(lent(at))
    }
}

/// Gives a string given to [`store`] another address if that is asked for.
///
/// # Safety
/// As for [`take`], the entry being overwritten here.
pub(crate) unsafe fn relocate(at: &mut [u8], mover: &mut Mover<'_>) {
    // SAFETY: the contract is that of `view_grown`; the vector begins where its bytes do, has room for as many as it had when
    // it was stored, and while it is lent nobody changes it.
    if !unsafe { mover.wants_or_trims(view_grown(at).as_ptr(), number(at, 12) & !LENT) } {
        return;
    }
    // SAFETY: the contract is that of `take`, and the copy is stored before anybody else looks.
    let old = unsafe { take(at) };
    let mut copy = Vec::with_capacity(old.capacity());
    copy.extend_from_slice(&old);
    store(copy, at);
    mover.note(grown_bytes(at));
}

/// Overwrites a string given to [`store`] where it is, if the new one fits and leaves no more than an eighth unused;
/// else, and if somebody may still read the old one, nothing happens and the answer is false.
///
/// # Safety
/// `at` holds what [`store`] wrote, and the string has not been taken since.
pub(crate) unsafe fn overwrite(at: &mut [u8], value: &[u8]) -> bool {
    let capacity = number(at, 12) & !LENT;
    if is_lent(at) || value.len() > capacity || capacity - value.len() > capacity / 8 {
        return false;
    }
    // SAFETY: the contract is that of `take`, and the vector is stored again before anybody else looks.
    let mut bytes = unsafe { take(at) };
    bytes.clear();
    bytes.extend_from_slice(value);
    store(bytes, at);
    true
}

/// Copies bytes, not none, to an allocation of exactly their length.
pub(crate) fn store_exact(bytes: &[u8], to: &mut [u8]) {
    assert!(!bytes.is_empty(), "an empty string has no allocation");
    let pointer = Box::into_raw(Box::<[u8]>::from(bytes)).cast::<u8>();
    write(to, pointer.expose_provenance(), bytes.len());
}

/// What a string stored by [`store_exact`] holds from the allocator.
#[inline]
pub(crate) fn exact_bytes(from: &[u8]) -> usize {
    good_size(number(from, 8))
}

/// Frees a string given to [`store_exact`]; returns what it held.
///
/// # Safety
/// As for [`take`].
pub(crate) unsafe fn drop_exact(from: &[u8]) -> usize {
    let pointer = std::ptr::with_exposed_provenance_mut::<u8>(address(from));
    let slice = std::ptr::slice_from_raw_parts_mut(pointer, number(from, 8));
    // SAFETY: by the contract these are the parts of a boxed slice that nobody else will use.
    drop(unsafe { Box::from_raw(slice) });
    exact_bytes(from)
}

/// Gives a string given to [`store_exact`] another address if that is asked for.
///
/// # Safety
/// As for [`take`], the entry being overwritten here.
pub(crate) unsafe fn relocate_exact(at: &mut [u8], mover: &mut Mover<'_>) {
    let mut old = [0; EXACT_LEN];
    old.copy_from_slice(&at[..EXACT_LEN]);
    // SAFETY: the string is alive, and its length is that of its allocation; then `at` describes a copy of it, and `old` alone
    // describes the string.
    unsafe {
        if mover.wants_or_trims(view(at).as_ptr(), number(at, 8)) {
            duplicate(at);
            mover.note(drop_exact(&old));
        }
    }
}

/// Makes a byte copy of what [`store_exact`] wrote an owner: of a copy of the string.
///
/// # Safety
/// `copy` is such a byte copy, and the string is alive.
pub(crate) unsafe fn duplicate(copy: &mut [u8]) {
    // SAFETY: the caller's promise.
    let bytes = Box::<[u8]>::from(unsafe { view(copy) });
    let len = bytes.len();
    write(copy, Box::into_raw(bytes).cast::<u8>().expose_provenance(), len);
}
