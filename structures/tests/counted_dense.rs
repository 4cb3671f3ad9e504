//! What big sets and hashes say they hold is what they hold: `heap_bytes()` is compared with an allocator that
//! counts, through growth, overwrites, expiry, shrinkage and freeing in steps.

#![expect(unsafe_code, reason = "a global allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use damselfly_structures::alloc::good_size;
use damselfly_structures::dense::{DenseHash, DenseSet};
use damselfly_structures::keytable::Expiry;

thread_local! {
    /// Per thread: the test harness allocates on others.
    static HELD: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: usize, sign: isize) {
    // After the thread's locals are gone nobody compares any more.
    let _ = HELD.try_with(|held| held.set(held.get() + sign * good_size(bytes) as isize));
}

/// What this thread holds more than at its start; the harness hands it things to free.
fn held() -> isize {
    HELD.get()
}

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; counting neither allocates nor unwinds. The default
// `realloc` and `alloc_zeroed` are made of these two.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller's promise about the layout is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: as above, for block and layout.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }
}

/// Names and values in a buffer that is there from the start, so that only the structures allocate.
fn fill(buffer: &mut [u8; 1_200], n: u64, len: u64) -> &[u8] {
    let len = (len as usize).max(8);
    buffer[..len].fill(b'n');
    buffer[..8].copy_from_slice(&n.to_le_bytes());
    &buffer[..len]
}

#[test]
fn hashes() {
    let (mut rng, mut name, mut value) = (Rng(77), [0; 1_200], [0; 1_200]);
    let start = held();
    let mut hash = DenseHash::new(5);
    for now in 0..120_000 {
        let n = rng.below(8_000);
        // The length belongs to the name, around every limit between inside and outside.
        let name = fill(&mut name, n, n % 30 * if n.is_multiple_of(50) { 37 } else { 1 });
        let growing = now / 30_000 % 2 == 0;
        match rng.below(10) {
            0 => _ = hash.set_expire(name, Some(now + rng.below(9_000)), now),
            1 => _ = hash.expire(now, 20, |_| ()),
            2..5 => _ = hash.remove(name, now),
            _ if growing => {
                let longest = if rng.below(20) == 0 { 1_200 } else { 40 };
                let len = rng.below(longest);
                hash.set(name, fill(&mut value, n, len), Expiry::Keep, now);
            }
            _ => _ = hash.remove(name, now),
        }
        if now % 37 == 0 {
            assert_eq!(hash.heap_bytes() as isize, held() - start, "after {now} steps");
        }
    }
    hash.check();
    assert_eq!(hash.heap_bytes() as isize, held() - start);
    while !hash.free_some(1) {
        assert_eq!(hash.heap_bytes() as isize, held() - start, "what is left while it is freed");
    }
    drop(hash);
    assert_eq!(held(), start, "everything came back");
}

#[test]
fn sets() {
    let (mut rng, mut name) = (Rng(78), [0; 1_200]);
    let start = held();
    let mut set = DenseSet::new(5);
    for n in 0..40_000 {
        set.insert(fill(&mut name, n, n % 700), 0);
        if n % 97 == 0 {
            assert_eq!(set.heap_bytes() as isize, held() - start, "{n} members");
        }
    }
    // Shared nodes are counted by each holder; once the other is gone the counts agree again.
    let clone = set.clone();
    assert_eq!(clone.heap_bytes(), set.heap_bytes());
    while set.len() > 30_000 {
        set.pop(0, || rng.next(), |_| ()).expect("there are more");
    }
    drop(clone);
    assert_eq!(set.heap_bytes() as isize, held() - start, "after the clone");
    while set.pop_many(100, 0, || rng.next(), |_| ()) > 0 {
        assert_eq!(set.heap_bytes() as isize, held() - start, "{} members left", set.len());
    }
    drop(set);
    assert_eq!(held(), start);
}
