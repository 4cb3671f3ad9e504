//! A growable array of reference-counted nodes that clones in O(nodes / 128).
//!
//! Node numbers are stable, so others can hold them (the member index holds leaf numbers). Two levels of counted
//! pointers make the clone cheap: it copies one pointer per page, and the first write through a clone copies one
//! page of pointers and one node.

use crate::alloc::good_size;
use crate::moves::Mover;
use std::sync::Arc;

/// Nodes per page. A page is 1 KiB of pointers, copied on the first write after a clone in well under a
/// microsecond; a set of a million members has about eighty pages.
const PAGE: usize = 128;
const POINTER_BYTES: usize = size_of::<usize>();
const PAGE_HEADER_BYTES: usize = good_size(2 * size_of::<usize>() + size_of::<Vec<usize>>());

/// A clone that keeps spare capacity: what was counted before the copy is still right after it.
pub(super) fn clone_with_capacity<T: Clone>(from: &Vec<T>) -> Vec<T> {
    let mut copy = Vec::with_capacity(from.capacity());
    copy.extend_from_slice(from);
    copy
}

struct Page<T: ?Sized>(Vec<Option<Arc<T>>>);

impl<T: ?Sized> Clone for Page<T> {
    fn clone(&self) -> Self {
        Page(clone_with_capacity(&self.0))
    }
}

pub(super) struct Pages<T: ?Sized> {
    pages: Vec<Arc<Page<T>>>,
    len: usize,
    heap: usize,
}

impl<T: ?Sized> Clone for Pages<T> {
    fn clone(&self) -> Self {
        Pages { pages: clone_with_capacity(&self.pages), len: self.len, heap: self.heap }
    }
}

impl<T: ?Sized> Pages<T> {
    const SLOT_BYTES: usize = size_of::<Option<Arc<T>>>();

    pub(super) fn new() -> Self {
        Pages { pages: Vec::new(), len: 0, heap: 0 }
    }

    /// Slots, empty ones included.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// What the two levels of pointers hold; the nodes themselves are their owner's to count.
    pub(super) fn heap_bytes(&self) -> usize {
        self.heap
    }

    /// The same by walking, for `check`.
    pub(super) fn heap_bytes_slow(&self) -> usize {
        good_size(self.pages.capacity() * POINTER_BYTES)
            + self
                .pages
                .iter()
                .map(|page| PAGE_HEADER_BYTES + good_size(page.0.capacity() * Self::SLOT_BYTES))
                .sum::<usize>()
    }

    #[inline]
    pub(super) fn get(&self, at: usize) -> &T {
        self.pages[at / PAGE].0[at % PAGE].as_deref().expect("a live node")
    }

    /// The node's pointer for writing. The page is this table's own afterwards; the node may be shared still.
    #[inline]
    pub(super) fn pointer_mut(&mut self, at: usize) -> &mut Arc<T> {
        let page = Arc::make_mut(&mut self.pages[at / PAGE]);
        page.0[at % PAGE].as_mut().expect("a live node")
    }

    pub(super) fn push(&mut self, node: Arc<T>) -> usize {
        if self.len.is_multiple_of(PAGE) {
            self.heap -= good_size(self.pages.capacity() * POINTER_BYTES);
            // Only the first page starts small: most sets never need a second.
            let capacity = if self.len == 0 { 4 } else { PAGE };
            self.pages.push(Arc::new(Page(Vec::with_capacity(capacity))));
            self.heap += good_size(self.pages.capacity() * POINTER_BYTES)
                + PAGE_HEADER_BYTES
                + good_size(capacity * Self::SLOT_BYTES);
        }
        let page = &mut Arc::make_mut(self.pages.last_mut().expect("a page")).0;
        let before = page.capacity();
        page.push(Some(node));
        self.heap += good_size(page.capacity() * Self::SLOT_BYTES) - good_size(before * Self::SLOT_BYTES);
        self.len += 1;
        self.len - 1
    }

    /// Empties a slot, which keeps its number for [`Pages::fill`].
    pub(super) fn take(&mut self, at: usize) {
        let page = Arc::make_mut(&mut self.pages[at / PAGE]);
        assert!(page.0[at % PAGE].take().is_some(), "slot {at} was empty");
    }

    pub(super) fn fill(&mut self, at: usize, node: Arc<T>) {
        let page = Arc::make_mut(&mut self.pages[at / PAGE]);
        assert!(page.0[at % PAGE].replace(node).is_none(), "slot {at} was taken");
    }

    /// Takes off the last slot; a page goes with its first.
    pub(super) fn pop(&mut self) -> Option<Option<Arc<T>>> {
        let last = self.pages.last_mut()?;
        let page = &mut Arc::make_mut(last).0;
        let node = page.pop().expect("pages are not empty");
        self.len -= 1;
        if page.is_empty() {
            self.heap -= PAGE_HEADER_BYTES + good_size(page.capacity() * Self::SLOT_BYTES);
            self.pages.pop();
        }
        Some(node)
    }

    /// Gives pages, and by `relocate` nodes, other addresses; see [`Mover`]. Each slot is a part.
    pub(super) fn relocate<'m>(
        &mut self,
        mover: &mut Mover<'m>,
        mut relocate: impl FnMut(&mut Arc<T>, &mut Mover<'m>),
    ) {
        mover.vec(&mut self.pages);
        let mut parts = mover.parts(self.len);
        while let Some(at) = mover.next(&mut parts) {
            let page = &mut self.pages[at / PAGE];
            if at.is_multiple_of(PAGE)
                && let Some(page) = mover.shared(page)
            {
                mover.vec(&mut page.0);
            }
            if let Some(page) = Arc::get_mut(page)
                && let Some(node) = &mut page.0[at % PAGE]
            {
                relocate(node, mover);
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &T)> {
        let slots = self.pages.iter().flat_map(|page| page.0.iter());
        slots.enumerate().filter_map(|(at, slot)| slot.as_deref().map(|node| (at, node)))
    }
}
