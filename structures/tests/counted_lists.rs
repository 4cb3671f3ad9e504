//! What packs, lists and integer sets say they hold is what they hold: `heap_bytes()` is compared with an
//! allocator that counts, through random growth, shrinkage, conversion, cloning and freeing.

#![expect(unsafe_code, reason = "a global allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use damselfly_structures::alloc::good_size;
use damselfly_structures::intset::IntSet;
use damselfly_structures::list::List;
use damselfly_structures::pack::Pack;
use damselfly_structures::zpack::Zpack;

thread_local! {
    /// Per thread: the test harness allocates on others.
    static HELD: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: usize, sign: isize) {
    // After the thread's locals are gone nobody compares any more.
    let _ = HELD.try_with(|held| held.set(held.get() + sign * good_size(bytes) as isize));
}

struct Counting;

// SAFETY: every call goes to the system's allocator unchanged; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller's promise about the layout is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: as above, for block and layout.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(layout.size(), -1);
        count(size, 1);
        // SAFETY: as above, for block, layout and size.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Rng(u64);

impl Rng {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

const ROUNDS: usize = if cfg!(miri) { 60 } else { 20_000 };

/// Runs `step` on one structure and compares what it says with the allocator after every step.
fn compare<T>(mut structure: T, heap_bytes: impl Fn(&T) -> usize, mut step: impl FnMut(&mut T, &mut Rng)) {
    let mut rng = Rng(77);
    let before = HELD.get();
    for round in 0..ROUNDS {
        step(&mut structure, &mut rng);
        assert_eq!(HELD.get() - before, heap_bytes(&structure) as isize, "round {round}");
    }
    drop(structure);
    assert_eq!(HELD.get(), before);
}

const FILL: [u8; 12_000] = [b'x'; 12_000];

#[test]
fn lists() {
    compare(List::new(), List::heap_bytes, |list, rng| match rng.below(40) {
        0..=10 => list.push_back(&FILL[..rng.below(40)]),
        11..=20 => list.push_front(&FILL[..rng.below(40)]),
        21 => list.push_back(&FILL[..rng.below(12_000)]),
        22..=28 => drop(list.pop_front_with(|_| ())),
        29..=35 => drop(list.pop_back_with(|_| ())),
        36 => drop(list.set(rng.below(list.len() + 1), &FILL[..rng.below(200)])),
        37 => drop(list.insert_before(&FILL[..rng.below(40)], &FILL[..rng.below(3000)])),
        38 if rng.below(10) == 0 => drop(list.rem(0, &FILL[..rng.below(40)])),
        39 if rng.below(300) == 0 => drop(list.free_some(1)),
        // The clone becomes the list: nodes are shared, written to and freed by the other owner.
        _ if rng.below(10) == 0 => {
            let clone = list.clone();
            list.push_back(b"only in the one that goes");
            *list = clone;
        }
        _ => {}
    });
}

#[test]
fn packs() {
    compare(Pack::new(), Pack::heap_bytes, |pack, rng| match rng.below(12) {
        0..=2 => pack.push_back(&FILL[..rng.below(30)]),
        3..=5 => pack.push_front(rng.below(100_000) as i64),
        6..=7 => drop(pack.pop_front_with(|_| ())),
        8 => drop(pack.pop_back_with(|_| ())),
        9 => pack.remove_range(rng.below(pack.len() + 1), rng.below(3)),
        10 => *pack = pack.clone(),
        _ if rng.below(20) == 0 => drop(pack.split_off(pack.len() / 2)),
        _ => {}
    });
}

#[test]
fn small_sets() {
    compare(IntSet::new(), IntSet::heap_bytes, |set, rng| {
        let value = (rng.below(600) as i64 - 300) << (rng.below(4) * rng.below(2) * 11);
        if rng.below(2) == 0 {
            set.insert(value)
        } else {
            set.remove(value)
        };
    });
    compare(Zpack::new(), Zpack::heap_bytes, |set, rng| {
        let member = rng.below(200) as i64;
        let score = rng.below(1000) as f64 / 4.0;
        if rng.below(2) == 0 {
            set.insert(member, score)
        } else {
            set.remove(member)
        };
    });
}
