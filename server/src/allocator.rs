//! The allocator, and what is asked of it beyond memory: to give back what is free, soon or now, whether a page is
//! mostly free, and what it says about itself.
//!
//! The `mimalloc` crate allocates and nothing more, so the functions are declared here as the library's header
//! declares them.
#![expect(unsafe_code, reason = "the interface of a C library")]

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::{CStr, c_char, c_int, c_long, c_void};

use damselfly_keyspace::Heap;
use damselfly_structures::alloc::{ALONE_FROM, PAGE, good_size};
use mimalloc::MiMalloc;

type Output = unsafe extern "C" fn(text: *const c_char, to: *mut c_void);

unsafe extern "C" {
    safe fn mi_collect(force: bool);
    safe fn mi_option_set(option: c_int, value: c_long);
    safe fn mi_option_get(option: c_int) -> c_long;
    fn mi_unsafe_heap_page_is_under_utilized(heap: *mut c_void, p: *const c_void, percent: usize) -> bool;
    fn mi_stats_print_out(output: Output, to: *mut c_void);
    safe fn mi_good_size(size: usize) -> usize;
    fn mi_usable_size(p: *const c_void) -> usize;
    safe fn mi_malloc(size: usize) -> *mut c_void;
    safe fn mi_zalloc(size: usize) -> *mut c_void;
    fn mi_realloc(p: *mut c_void, size: usize) -> *mut c_void;
}

/// mimalloc with blocks of the size that was asked for. The crate always asks for an alignment, and the library then
/// takes a block that is longer by that much, unless the size is a power of two: 160 bytes cost 192, 320 cost 384.
/// Every block is aligned to eight bytes anyway.
pub struct Allocator;

/// What every block is aligned to, whatever its size.
const ALIGNED: usize = 8;

// SAFETY: blocks come from the library, which keeps the promises of an allocator: by `mi_malloc` and its relatives,
// aligned to a word as the C standard asks for, where that is enough, and otherwise by the crate; all of them are freed
// by `mi_free`, which takes either kind. Sizes are handed on unchanged, so blocks have at least the size of the layout.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    // SAFETY: what is asked of the caller is what the trait asks.
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= ALIGNED {
            return mi_malloc(layout.size()).cast();
        }
        // SAFETY: the caller's promise about the layout.
        unsafe { MiMalloc.alloc(layout) }
    }

    #[inline]
    // SAFETY: what is asked of the caller is what the trait asks.
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= ALIGNED {
            return mi_zalloc(layout.size()).cast();
        }
        // SAFETY: the caller's promise about the layout.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    #[inline]
    // SAFETY: what is asked of the caller is what the trait asks.
    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the block is the library's and the caller's to free.
        unsafe { MiMalloc.dealloc(at, layout) }
    }

    #[inline]
    // SAFETY: what is asked of the caller is what the trait asks.
    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if layout.align() <= ALIGNED {
            // The library leaves a block where it is until less than half of it is needed, and the books would be wrong.
            if size < layout.size() && good_size(size) < good_size(layout.size()) {
                let fresh = mi_malloc(size).cast::<u8>();
                if !fresh.is_null() {
                    // SAFETY: both have `size` bytes and are distinct; the old block is the caller's to give up.
                    unsafe {
                        fresh.copy_from_nonoverlapping(at, size);
                        MiMalloc.dealloc(at, layout);
                    }
                }
                return fresh;
            }
            // SAFETY: the block is the library's and the caller's to hand over.
            return unsafe { mi_realloc(at.cast(), size) }.cast();
        }
        // SAFETY: the same, and the caller's promise about layout and size.
        unsafe { MiMalloc.realloc(at, layout, size) }
    }
}

/// Number of `mi_option_purge_delay` in the header's enumeration.
const OPTION_PURGE_DELAY: c_int = 15;
/// Milliseconds after which whoever frees a page gives back all that are free. The watcher of memory does so earlier
/// (`give_back`), which spares the cores the system calls.
const PURGE_DELAY_MS: c_long = 200;
/// What the library's pages consist of.
const SLICE: usize = 64 << 10;
/// Who calls pages sparse that are mostly free, and who does so earlier.
pub const SPARSE: Sparse = Sparse { used_up_to: 70 };
pub const LOOSE: Sparse = Sparse { used_up_to: 90 };

/// Leaves giving free memory back to [`give_back`]. To be called before there are other threads.
pub fn give_back_later() {
    mi_option_set(OPTION_PURGE_DELAY, PURGE_DELAY_MS);
    debug_assert_eq!(mi_option_get(OPTION_PURGE_DELAY), PURGE_DELAY_MS);
}

/// Whether the library was compiled to give long blocks pages of their own, as `.cargo/config.toml` tells it.
pub fn keeps_long_blocks_apart() -> bool {
    mi_good_size(ALONE_FROM + 1) == good_size(ALONE_FROM + 1)
}

/// This allocator, of whose pages those are sparse of whose blocks so many in a hundred are in use.
#[derive(Clone, Copy, Debug)]
pub struct Sparse {
    used_up_to: usize,
}

impl Heap for Sparse {
    /// Whether moving the blocks elsewhere would free the page in which this thread's live allocation at `address` lies.
    /// The page that the thread allocates from next is never called sparse.
    fn is_sparse(&self, address: *const u8) -> bool {
        // SAFETY: the address is that of a live allocation, so its page is there; no heap means any. The function reads
        // the page's counters without locks, which is meant for the thread that the page belongs to. Of an allocation
        // that came from another thread (a value that travelled between shards) a counter may be stale; the answer is
        // only a hint.
        unsafe {
            mi_unsafe_heap_page_is_under_utilized(std::ptr::null_mut(), address.cast(), self.used_up_to)
        }
    }

    // SAFETY: what is asked of the caller is what the trait asks.
    unsafe fn trim(&self, block: *const u8, bytes: usize) {
        if !keeps_long_blocks_apart() || !block.addr().is_multiple_of(SLICE) {
            return;
        }
        // SAFETY: a live block.
        let usable = unsafe { mi_usable_size(block.cast()) };
        // There is one slice more than the block takes if it ends with one: the library thinks of its own words in the page,
        // though those are elsewhere.
        let end = (block.addr() + usable + 1).next_multiple_of(SLICE);
        let from = (block.addr() + bytes).next_multiple_of(PAGE);
        // SAFETY: the library gives a block of more than `ALONE_FROM` slices that nothing else is in, as it was compiled for
        // that; of those, what is behind the bytes that were asked for is nobody's. Who makes the block longer in
        // place finds zeros there, and had no right to expect anything.
        unsafe { libc::madvise(block.with_addr(from).cast_mut().cast(), end - from, libc::MADV_DONTNEED) };
    }
}

/// Gives the free pages of all threads back to the system. For a thread with few allocations of its own: those of the
/// calling thread are walked too, some milliseconds per gigabyte.
///
/// The allocator would do so itself after a while, but not reliably: two threads that meet, of which one frees a page
/// while the other has just given back the last, may leave it without a time at which to do it again.
pub fn give_back() {
    mi_collect(true);
}

/// Finds out which pages of the calling thread are free because of what other threads freed in them.
pub fn collect() {
    mi_collect(false);
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
    use super::*;

    fn usable(block: &[u8]) -> usize {
        // SAFETY: a live block of this allocator, as the slice is not empty.
        unsafe { mi_usable_size(block.as_ptr().cast()) }
    }

    /// Blocks have the size that the books say: `good_size`, on which all accounting stands.
    #[test]
    fn sizes() {
        // Below, the books round up: nothing of eight bytes is counted. The longest blocks have room that nobody touches.
        for size in (9..=1024).chain((1025..500_000).step_by(97)).chain([ALONE_FROM - 1, ALONE_FROM]) {
            let block = vec![1u8; size];
            assert_eq!(usable(&block), good_size(size), "{size} bytes");
        }
        assert!(keeps_long_blocks_apart());
    }

    /// So they have when they were made shorter or longer.
    #[test]
    fn sizes_of_what_changed() {
        for (len, longer) in
            (20..5000).step_by(7).flat_map(|len| [1, 2, 17, 100, 3000].map(|more| (len, len + more)))
        {
            let mut bytes: Vec<u8> = Vec::with_capacity(longer);
            bytes.extend((0..len).map(|n| n as u8));
            bytes.shrink_to_fit();
            assert_eq!(usable(&bytes), good_size(len), "{longer} bytes made {len}");
            bytes.reserve_exact(longer - len);
            assert_eq!(usable(&bytes), good_size(longer), "{len} bytes made {longer}");
            assert!(bytes.iter().enumerate().all(|(n, &byte)| byte == n as u8));
        }
    }

    /// Blocks are aligned as asked for, and keep what is in them when they grow.
    #[test]
    fn alignment() {
        for (size, align) in (1..300).flat_map(|size| [1, 2, 4, 8, 16, 32, 64].map(|align| (size, align))) {
            let layout = Layout::from_size_align(size, align).expect("a layout");
            // SAFETY: the size is not zero; the block is written and read within its size, and freed once with the
            // layout it has.
            unsafe {
                let block = Allocator.alloc(layout);
                assert!(block.addr().is_multiple_of(align), "{size} {align}");
                block.write_bytes(7, size);
                let block = Allocator.realloc(block, layout, 3 * size);
                assert!(block.addr().is_multiple_of(align), "{size} {align}");
                assert!((0..size).all(|at| *block.add(at) == 7));
                Allocator.dealloc(block, Layout::from_size_align(3 * size, align).expect("a layout"));
                let zeroed = Allocator.alloc_zeroed(layout);
                assert!(zeroed.addr().is_multiple_of(align) && (0..size).all(|at| *zeroed.add(at) == 0));
                Allocator.dealloc(zeroed, layout);
            }
        }
    }

    /// The option's number is right: it has its documented default, which its neighbours have not.
    #[test]
    fn option() {
        assert!([1000, PURGE_DELAY_MS].contains(&mi_option_get(OPTION_PURGE_DELAY)));
        give_back_later();
    }

    /// A page that lost nine objects of ten is sparse, one that is full is not.
    #[test]
    fn sparse_pages() {
        let mut all: Vec<Vec<u8>> = (0..10_000).map(|_| vec![1; 700]).collect();
        let sparse = |all: &[Vec<u8>]| all.iter().filter(|one| SPARSE.is_sparse(one.as_ptr())).count();
        assert!(sparse(&all) < 200, "{}", sparse(&all));
        let mut n = 0;
        all.retain(|_| {
            n += 1;
            n % 10 == 0
        });
        assert!(sparse(&all) > 900, "{}", sparse(&all));
    }

    /// A page that lost one object of four is loose and not sparse.
    #[test]
    fn loose_pages() {
        let mut all: Vec<Vec<u8>> = (0..10_000).map(|_| vec![2; 900]).collect();
        let count =
            |heap: Sparse, all: &[Vec<u8>]| all.iter().filter(|one| heap.is_sparse(one.as_ptr())).count();
        assert!(count(LOOSE, &all) < 300, "{}", count(LOOSE, &all));
        let mut n = 0;
        all.retain(|_| {
            n += 1;
            n % 4 != 0
        });
        assert!(count(LOOSE, &all) > 7000, "{}", count(LOOSE, &all));
        assert!(count(SPARSE, &all) < 300, "{}", count(SPARSE, &all));
    }

    /// So many of the system's pages from there on are resident.
    fn resident(from: usize, pages: usize) -> usize {
        let mut seen = vec![0u8; pages];
        let at = std::ptr::with_exposed_provenance_mut(from);
        // SAFETY: it only asks about memory, and writes a byte for each page.
        assert_eq!(unsafe { libc::mincore(at, pages * PAGE, seen.as_mut_ptr()) }, 0);
        seen.iter().filter(|&&page| page & 1 == 1).count()
    }

    /// Long blocks lie where others have been; when they are trimmed, no page behind any of them is resident up to the next
    /// slice, or through it if the block ends with one, and all that is in blocks stays.
    #[test]
    fn trimmed() {
        let of = |n: usize| vec![n as u8; ALONE_FROM + 1 + n * 7919 % 700_000];
        let mut all: Vec<Vec<u8>> = (0..200).map(of).collect();
        for round in 1..4 {
            for n in (round..200).step_by(3) {
                all[n] = Vec::new();
            }
            for n in (round..200).step_by(3) {
                all[n] = vec![n as u8; 2 * SLICE + n % 16 * PAGE];
            }
        }
        let behind = |block: &[u8]| {
            let from = (block.as_ptr().expose_provenance() + block.len()).next_multiple_of(PAGE);
            let end = (block.as_ptr().addr() + usable(block) + 1).next_multiple_of(SLICE);
            resident(from, (end - from) / PAGE)
        };
        let before: usize = all.iter().map(|block| behind(block)).sum();
        assert!(before > 200, "others have left {before} pages");
        for block in &all {
            // SAFETY: a block of so many bytes begins there.
            unsafe { SPARSE.trim(block.as_ptr(), block.len()) };
        }
        assert_eq!(all.iter().map(|block| behind(block)).sum::<usize>(), 0, "of {before} pages");
        for (n, block) in all.iter().enumerate() {
            assert!(block.iter().all(|&byte| byte == n as u8), "{n}");
        }
        let mut block = all.swap_remove(0);
        let len = block.len();
        block.resize(len + SLICE, 9);
        assert!(block[..len].iter().all(|&byte| byte == 0) && block[len..].iter().all(|&byte| byte == 9));
    }

    /// Both can be called at any time, and memory in use is not what is given back.
    #[test]
    fn speaks_and_collects() {
        let kept = vec![7u8; 1 << 20];
        drop(vec![8u8; 8 << 20]);
        super::collect();
        super::give_back();
        assert!(kept.iter().all(|&byte| byte == 7));
        assert!(super::stats().lines().count() > 3, "{}", super::stats());
    }
}
