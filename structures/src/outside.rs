//! Byte strings in allocations of their own, owned through pointers that are stored in packed entries.
//!
//! ```text
//! grown:  [pointer 8][length 4][capacity 4]   a vector, for strings that are changed in place
//! exact:  [pointer 8][length 4]               a boxed slice, for strings that are only replaced
//! ```
//!
//! One place for both because the rules are the same: whoever stores owns, the bytes in the entry are the only
//! owner, and a byte copy of an entry owns nothing until [`duplicate`] made it a string of its own. Lengths are
//! below 4 GiB, which the limits on requests guarantee.

#![expect(unsafe_code, reason = "ownership through pointers that are bytes in an entry")]

use std::mem::ManuallyDrop;

use crate::alloc::good_size;

/// Bytes that describe a string stored by [`store_exact`].
pub(crate) const EXACT_LEN: usize = 12;

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
    let mut bytes = ManuallyDrop::new(bytes);
    write(to, bytes.as_mut_ptr().expose_provenance(), bytes.len());
    to[12..16].copy_from_slice(&u32::try_from(bytes.capacity()).expect("below 4 GiB").to_le_bytes());
}

/// What a string stored by [`store`] holds from the allocator.
pub(crate) fn grown_bytes(from: &[u8]) -> usize {
    good_size(number(from, 12))
}

/// The bytes that [`store`] or [`store_exact`] gave up.
///
/// # Safety
/// `from` holds what one of them wrote, and the string has not been taken since.
#[inline]
pub(crate) unsafe fn view(from: &[u8]) -> &[u8] {
    let pointer = std::ptr::with_exposed_provenance::<u8>(address(from));
    // SAFETY: by the contract these are the parts of a live allocation. It is changed and freed only through
    // `&mut` access to the entry, which the lifetime of `from` excludes.
    unsafe { std::slice::from_raw_parts(pointer, number(from, 8)) }
}

/// Takes back the vector given to [`store`].
///
/// # Safety
/// As for [`view`]; and the entry is overwritten or forgotten before anybody reads it again.
pub(crate) unsafe fn take(from: &[u8]) -> Vec<u8> {
    let pointer = std::ptr::with_exposed_provenance_mut::<u8>(address(from));
    // SAFETY: by the contract these are the parts of a vector that nobody else will use.
    unsafe { Vec::from_raw_parts(pointer, number(from, 8), number(from, 12)) }
}

/// Where a string given to [`store`] or [`store_exact`] is.
pub(crate) fn pointer(from: &[u8]) -> *const u8 {
    std::ptr::with_exposed_provenance(address(from))
}

/// Gives a string given to [`store`] another address; returns what it holds.
///
/// # Safety
/// As for [`take`], the entry being overwritten here.
pub(crate) unsafe fn relocate(at: &mut [u8]) -> usize {
    // SAFETY: the contract is that of `take`, and the copy is stored before anybody else looks.
    let old = unsafe { take(at) };
    let mut copy = Vec::with_capacity(old.capacity());
    copy.extend_from_slice(&old);
    store(copy, at);
    grown_bytes(at)
}

/// Overwrites a string given to [`store`] where it is, if the new one fits and leaves no more than an eighth unused;
/// else nothing happens and the answer is false.
///
/// # Safety
/// `at` holds what [`store`] wrote, and the string has not been taken since.
pub(crate) unsafe fn overwrite(at: &mut [u8], value: &[u8]) -> bool {
    let capacity = number(at, 12);
    if value.len() > capacity || capacity - value.len() > capacity / 8 {
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
