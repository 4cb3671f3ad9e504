//! What is asked of the allocator beyond memory: to give back what is free, and what it says about itself.
//!
//! The `mimalloc` crate allocates and nothing more, so the functions are declared here as the library's header
//! declares them.
#![expect(unsafe_code, reason = "the interface of a C library")]

use std::ffi::{CStr, c_char, c_void};

type Output = unsafe extern "C" fn(text: *const c_char, to: *mut c_void);

unsafe extern "C" {
    safe fn mi_collect(force: bool);
    fn mi_stats_print_out(output: Output, to: *mut c_void);
}

/// Gives free memory of the calling thread back to the system, now and not when the allocator would have. It walks
/// the thread's pages: some milliseconds per gigabyte.
pub fn collect() {
    mi_collect(true);
}

/// The allocator's figures for the whole process, as it prints them.
pub fn stats() -> String {
    unsafe extern "C" fn append(text: *const c_char, to: *mut c_void) {
        // SAFETY: the library calls this only within the call below, with a string that ends with a zero byte and
        // with the pointer it was given, which is that of `bytes` and of nothing that anybody else uses meanwhile.
        let (text, bytes) = unsafe { (CStr::from_ptr(text), &mut *to.cast::<Vec<u8>>()) };
        bytes.extend_from_slice(text.to_bytes());
    }
    let mut bytes = Vec::<u8>::new();
    // SAFETY: `append` takes what this function hands it, see there; the pointer is valid until the call returns.
    unsafe { mi_stats_print_out(append, (&raw mut bytes).cast()) };
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    /// Both can be called at any time, and memory in use is not what is given back.
    #[test]
    fn speaks_and_collects() {
        let kept = vec![7u8; 1 << 20];
        drop(vec![8u8; 8 << 20]);
        super::collect();
        assert!(kept.iter().all(|&byte| byte == 7));
        assert!(super::stats().lines().count() > 3, "{}", super::stats());
    }
}
