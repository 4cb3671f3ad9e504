//! Hints to the processor: asking for memory before it is needed, so that several misses overlap.
#![expect(unsafe_code, reason = "the instruction is an intrinsic")]

/// Asks the processor to load the line at an address, whatever lies there. Does nothing where there is no stable way
/// to ask.
#[inline(always)]
pub fn prefetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: prefetching any address is allowed; nothing is accessed architecturally.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// Asks the processor to load all lines of some memory.
#[inline]
pub fn prefetch_all(bytes: &[u8]) {
    const LINE: usize = 64;
    for line in bytes.chunks(LINE) {
        prefetch(line.as_ptr());
    }
}
