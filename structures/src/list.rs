//! A list: a pack while it is small, a deque of packs when it is not.
//!
//! ```text
//!   List ──> Pack                                  up to NODE_MAX packed bytes: one allocation
//!
//!   List ──> Nodes { spine: [count|·] [count|·] [count|·] ... }
//!                              │         │         │
//!                             Pack      Pack      Pack    up to NODE_MAX packed bytes, shared with clones
//! ```
//!
//! A deque of strings would be simpler and take 24 bytes and an allocation per element; one long pack would
//! copy megabytes for an insertion. Between them, nodes of a few kilobytes make every operation local, and
//! they are the unit of sharing: a clone copies the spine, and whoever writes to a node that somebody else
//! can see copies that node first.
//!
//! The spine repeats each node's element count, so that finding an index in a list of millions reads 16 bytes
//! per node of a contiguous array and no node but the last.
//!
//! What must stay true ([`List::check`]): no node is empty; a node is within `NODE_MAX` or has a single
//! element; a list in the big form does not fit half a node. Neighbours that removals left small are merged.
//! The bounds for going big and going small are a factor of two apart, so that a list at the border does not
//! convert with every command.

#![expect(unsafe_code, reason = "Arc::make_mut locks the bus for every push: a fifth of its time")]

use std::collections::{VecDeque, vec_deque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use crate::alloc::good_size;
use crate::moves::Mover;
use crate::pack::{self, Item, Pack, Pos};
use crate::thin::{Form, PackOr};

/// The most packed bytes of a node with more than one element: with the pack's header, exactly a size class.
pub const NODE_MAX: usize = 8192 - 8;

/// Neighbours that together take at most this are merged. Less than a full node, so that the next insertion
/// does not split again what was just merged.
const MERGE_MAX: usize = NODE_MAX / 4 * 3;

/// What a node takes besides its pack's bytes: the two counters of the `Arc` and the pack's pointer.
const NODE_BYTES: usize = good_size(2 * size_of::<usize>() + size_of::<Pack>());

struct Node {
    /// Never has a `Weak`: [`Node::pack_mut`] depends on that.
    pack: Arc<Pack>,
    /// Equals `pack.len()`.
    count: u32,
}

impl Node {
    fn new(pack: Pack) -> Self {
        Self { count: pack.len() as u32, pack: Arc::new(pack) }
    }

    fn count(&self) -> usize {
        self.count as usize
    }

    #[inline]
    fn has_room(&self, more: usize) -> bool {
        self.pack.packed_bytes() + more <= NODE_MAX
    }

    fn heap_bytes(&self) -> usize {
        NODE_BYTES + self.pack.heap_bytes()
    }

    /// The pack to write to: this node's own copy if it was shared. Capacity and positions can differ from
    /// before.
    #[inline]
    fn pack_mut(&mut self) -> &mut Pack {
        if Arc::strong_count(&self.pack) != 1 {
            self.pack = Arc::new(Pack::clone(&self.pack));
        }
        // `Arc::make_mut` would find out the same with a compare-and-swap: 10 ns of a 25 ns push.
        // Pairs with the release that dropping the other owner did: its reads happened before our writes.
        fence(Ordering::Acquire);
        // SAFETY: this is the only reference. The strong count was 1, so no other Arc exists, and none can appear while
        // `self` is mutably borrowed, as only this one could be cloned; there are no Weaks, because the field is private to
        // this module and nothing here calls `downgrade`. The pointer comes from the allocation and may be written through.
        unsafe { &mut *Arc::as_ptr(&self.pack).cast_mut() }
    }
}

impl Clone for Node {
    fn clone(&self) -> Self {
        Self { pack: Arc::clone(&self.pack), count: self.count }
    }
}

/// The big form.
#[derive(Clone)]
struct Nodes {
    spine: VecDeque<Node>,
    len: usize,
    /// What the nodes take, the spine not included.
    node_bytes: usize,
}

/// How far a search for the first element of some value has come.
#[derive(Clone, Copy, Default, Debug)]
pub struct Search {
    /// The next node to look at, or the one that has it.
    node: usize,
}

/// A removal of elements of some value.
#[derive(Clone, Copy, Debug)]
pub struct Removal {
    limit: usize,
    from_end: bool,
    removed: usize,
    /// Nodes that were not looked at, at the other end; None before the first look.
    left: Option<usize>,
}

impl Removal {
    /// Of the first `count`, or the last `-count`, or of all for zero.
    pub fn new(count: i64) -> Removal {
        let limit = match count {
            0 => usize::MAX,
            _ => usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX),
        };
        Removal { limit, from_end: count < 0, removed: 0, left: None }
    }

    /// How many elements were removed.
    pub fn removed(&self) -> usize {
        self.removed
    }
}

/// See the head of the module.
#[derive(Clone)]
pub struct List {
    form: PackOr<Nodes>,
}

impl List {
    /// An empty list; takes no memory.
    pub fn new() -> Self {
        Self { form: PackOr::pack(Pack::new()) }
    }

    /// How many elements there are.
    #[inline]
    pub fn len(&self) -> usize {
        match self.form.get() {
            Form::Pack(pack) => pack.len(),
            Form::Big(nodes) => nodes.len,
        }
    }

    /// Whether there are no elements.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the list is in its compact form: one pack.
    #[inline]
    pub fn is_pack(&self) -> bool {
        self.form.is_pack()
    }

    /// What the list holds from the allocator. A node that is shared with a clone counts for both.
    #[inline]
    pub fn heap_bytes(&self) -> usize {
        match self.form.get() {
            Form::Pack(pack) => pack.heap_bytes(),
            Form::Big(nodes) => nodes.heap_bytes(),
        }
    }

    /// How many allocations of node size there are: what [`List::free_some`] counts.
    pub fn node_count(&self) -> usize {
        match self.form.get() {
            Form::Pack(_) => 1,
            Form::Big(nodes) => nodes.spine.len(),
        }
    }

    /// The pack if `more` packed bytes can go into it, else the nodes, after conversion if need be.
    #[inline]
    fn room_for(&mut self, more: usize) -> Form<&mut Pack, &mut Nodes> {
        if let Form::Pack(pack) = self.form.get_mut()
            && pack.packed_bytes() + more > NODE_MAX
        {
            let pack = std::mem::take(pack);
            self.form = PackOr::big(Box::new(Nodes::from_pack(pack)));
        }
        self.form.get_mut()
    }

    /// Back to one pack, if that fills at most half a node.
    #[inline]
    fn settle(&mut self) {
        if let Form::Big(nodes) = self.form.get_mut()
            && nodes.spine.len() <= 2
            && let Some(pack) = nodes.take_small()
        {
            self.form = PackOr::pack(pack);
        }
    }

    // The ends.

    /// Adds an element at the end.
    #[inline]
    pub fn push_back<'a>(&mut self, item: impl Into<Item<'a>>) {
        let item = item.into().canonical();
        match self.room_for(item.packed_len()) {
            Form::Pack(pack) => pack.push_back_exact(item),
            Form::Big(nodes) => nodes.push_back(item),
        }
    }

    /// Adds an element at the start.
    #[inline]
    pub fn push_front<'a>(&mut self, item: impl Into<Item<'a>>) {
        let item = item.into().canonical();
        match self.room_for(item.packed_len()) {
            Form::Pack(pack) => pack.push_front_exact(item),
            Form::Big(nodes) => nodes.push_front(item),
        }
    }

    /// Shows the first element and removes it.
    #[inline]
    pub fn pop_front_with<R>(&mut self, show: impl FnOnce(Item<'_>) -> R) -> Option<R> {
        let nodes = match self.form.get_mut() {
            Form::Pack(pack) => return pack.pop_front_with(show),
            Form::Big(nodes) => nodes,
        };
        let shown = nodes.edit(0, |pack| pack.pop_front_with(show));
        nodes.drop_if_empty(0);
        self.settle();
        shown
    }

    /// Shows the last element and removes it.
    #[inline]
    pub fn pop_back_with<R>(&mut self, show: impl FnOnce(Item<'_>) -> R) -> Option<R> {
        let nodes = match self.form.get_mut() {
            Form::Pack(pack) => return pack.pop_back_with(show),
            Form::Big(nodes) => nodes,
        };
        let last = nodes.spine.len() - 1;
        let shown = nodes.edit(last, |pack| pack.pop_back_with(show));
        nodes.drop_if_empty(last);
        self.settle();
        shown
    }

    /// Shows up to `count` elements from the start on and removes them; returns how many.
    pub fn pop_front(&mut self, count: usize, show: impl FnMut(Item<'_>)) -> usize {
        let count = count.min(self.len());
        self.range(0, count).for_each(show);
        self.trim(count, usize::MAX);
        count
    }

    /// Shows up to `count` elements from the end backwards and removes them; returns how many.
    pub fn pop_back(&mut self, count: usize, show: impl FnMut(Item<'_>)) -> usize {
        let len = self.len();
        let count = count.min(len);
        self.range(len - count, len).rev().for_each(show);
        self.trim(0, len - count);
        count
    }

    // By number.

    /// The element with this number.
    #[inline]
    pub fn get(&self, index: usize) -> Option<Item<'_>> {
        match self.form.get() {
            Form::Pack(pack) => pack.get(index as i64),
            Form::Big(nodes) if index < nodes.len => {
                let (at, rest) = nodes.locate(index);
                nodes.spine[at].pack.get(rest as i64)
            }
            Form::Big(_) => None,
        }
    }

    /// The first element.
    pub fn front(&self) -> Option<Item<'_>> {
        self.get(0)
    }

    /// The last element.
    pub fn back(&self) -> Option<Item<'_>> {
        self.get(self.len().checked_sub(1)?)
    }

    /// Gives the element with this number another value; false if there is none.
    pub fn set<'a>(&mut self, index: usize, item: impl Into<Item<'a>>) -> bool {
        if index >= self.len() {
            return false;
        }
        let item = item.into().canonical();
        // Asks for room as if the old value stayed: at the border that goes big a little early, never late.
        match self.room_for(item.packed_len()) {
            Form::Pack(pack) => {
                let pos = pack.seek(index as i64).expect("the index was checked");
                pack.replace_exact(pos, item);
            }
            Form::Big(nodes) => {
                nodes.set(index, item);
                self.settle();
            }
        }
        true
    }

    /// Keeps the elements from number `start` up to but without number `stop`.
    pub fn trim(&mut self, start: usize, stop: usize) {
        let stop = stop.min(self.len());
        let start = start.min(stop);
        match self.form.get_mut() {
            Form::Pack(pack) => {
                pack.truncate(stop);
                pack.remove_range(0, start);
            }
            Form::Big(nodes) => {
                if start == stop {
                    *self = Self::new();
                    return;
                }
                nodes.trim(start, stop);
                self.settle();
            }
        }
    }

    // By value.

    /// Adds `item` before the first element equal to `pivot`; the new length, or `None` if there is no such
    /// element.
    pub fn insert_before<'a, 'b>(
        &mut self,
        pivot: impl Into<Item<'a>>,
        item: impl Into<Item<'b>>,
    ) -> Option<usize> {
        self.insert_at(&mut Search::default(), pivot, item, false)
    }

    /// Adds `item` behind the first element equal to `pivot`; the new length, or `None` if there is no such
    /// element.
    pub fn insert_after<'a, 'b>(
        &mut self,
        pivot: impl Into<Item<'a>>,
        item: impl Into<Item<'b>>,
    ) -> Option<usize> {
        self.insert_at(&mut Search::default(), pivot, item, true)
    }

    /// Looks for the first element equal to `value` in the next `budget` nodes; true when it is found or nowhere.
    pub fn search_some<'a>(&self, search: &mut Search, value: impl Into<Item<'a>>, budget: usize) -> bool {
        let value = value.into().canonical();
        let Form::Big(nodes) = self.form.get() else { return true };
        for node in nodes.spine.range(search.node.min(nodes.spine.len())..).take(budget) {
            if node.pack.find(value, 0).is_some() {
                return true;
            }
            search.node += 1;
        }
        search.node >= nodes.spine.len()
    }

    /// Adds `item` before or behind the first element equal to `pivot`, looking from where a search is; the new length, or
    /// `None` if there is no such element. The list must not have changed since the search began.
    pub fn insert_at<'a, 'b>(
        &mut self,
        search: &mut Search,
        pivot: impl Into<Item<'a>>,
        item: impl Into<Item<'b>>,
        behind: bool,
    ) -> Option<usize> {
        let (pivot, item, behind) = (pivot.into().canonical(), item.into().canonical(), usize::from(behind));
        self.search_some(search, pivot, usize::MAX);
        let pack = match self.form.get() {
            Form::Pack(pack) => pack,
            Form::Big(nodes) => &nodes.spine.get(search.node)?.pack,
        };
        let index = pack.index_of(pack.find(pivot, 0)?) + behind;
        match self.room_for(item.packed_len()) {
            Form::Pack(pack) => {
                pack.insert_exact(index, item);
            }
            Form::Big(nodes) => nodes.insert(search.node, index, item),
        }
        Some(self.len())
    }

    /// Removes elements equal to `value`: the first `count` of them, or the last `-count`, or all for zero.
    /// Returns how many were removed.
    pub fn rem<'a>(&mut self, count: i64, value: impl Into<Item<'a>>) -> usize {
        let mut removal = Removal::new(count);
        self.rem_some(&mut removal, value, usize::MAX);
        removal.removed
    }

    /// Goes on with a removal of elements equal to `value` in the next `budget` nodes; true when it is over. Until then
    /// nobody else may use the list.
    pub fn rem_some<'a>(&mut self, removal: &mut Removal, value: impl Into<Item<'a>>, budget: usize) -> bool {
        let value = value.into().canonical();
        let is_over = match self.form.get_mut() {
            Form::Pack(pack) => {
                removal.removed = rem_from_pack(pack, value, removal.limit, removal.from_end);
                true
            }
            Form::Big(nodes) => nodes.rem_some(removal, value, budget),
        };
        if is_over && removal.removed > 0 {
            self.settle();
        }
        is_over
    }

    // Reading.

    /// All elements; the iterator runs from either end.
    pub fn iter(&self) -> Iter<'_> {
        self.range(0, self.len())
    }

    /// The elements from number `start` up to but without number `stop`; the iterator runs from either end.
    pub fn range(&self, start: usize, stop: usize) -> Iter<'_> {
        let stop = stop.min(self.len());
        let start = start.min(stop);
        let left = stop - start;
        let nodes = match self.form.get() {
            Form::Pack(pack) => return Iter::within(pack.range(start, stop), left),
            Form::Big(_) if left == 0 => return Iter::within(pack::Iter::default(), 0),
            Form::Big(nodes) => nodes,
        };
        let (first, from) = nodes.locate(start);
        let (last, to) = if left <= nodes.len - stop {
            nodes.locate_from(first, from + left - 1)
        } else {
            nodes.locate(stop - 1)
        };
        let pack = &nodes.spine[first].pack;
        if first == last {
            return Iter::within(pack.range(from, to + 1), left);
        }
        Iter {
            front: pack.range(from, usize::MAX),
            middle: nodes.spine.range(first + 1..last),
            back: nodes.spine[last].pack.range(0, to + 1),
            left,
        }
    }

    /// The packs that the list is made of, in order; a short list is one.
    pub fn packs(&self) -> impl Iterator<Item = &Pack> {
        let (pack, nodes) = match self.form.get() {
            Form::Pack(pack) => (Some(pack), None),
            Form::Big(nodes) => (None, Some(nodes)),
        };
        pack.into_iter().chain(nodes.into_iter().flat_map(|nodes| nodes.spine.iter().map(|node| &*node.pack)))
    }

    /// Shows up to `budget` elements from `cursor` on and moves it behind them; false if there are no more.
    /// The list must not change between the calls: walk a clone.
    pub fn scan(&self, cursor: &mut Cursor, mut budget: usize, mut show: impl FnMut(Item<'_>)) -> bool {
        loop {
            let pack = match self.form.get() {
                Form::Pack(pack) if cursor.node == 0 => pack,
                Form::Pack(_) => return false,
                Form::Big(nodes) => match nodes.spine.get(cursor.node) {
                    Some(node) => &*node.pack,
                    None => return false,
                },
            };
            let mut next = cursor.pos.or(pack.first());
            while let Some(pos) = next {
                if budget == 0 {
                    cursor.pos = next;
                    return true;
                }
                budget -= 1;
                show(pack.item(pos));
                next = pack.next(pos);
            }
            *cursor = Cursor { node: cursor.node + 1, pos: None };
        }
    }

    /// Drops up to `budget` nodes; true when nothing is left. For freeing a big list in steps: until it
    /// returns true, the list is a valid, ever shorter one.
    pub fn free_some(&mut self, budget: usize) -> bool {
        if let Form::Big(nodes) = self.form.get_mut()
            && nodes.spine.len() > budget
        {
            let from = nodes.spine.len() - budget;
            nodes.remove_nodes(from..nodes.spine.len());
            self.settle();
            return false;
        }
        *self = Self::new();
        true
    }

    /// Gives allocations other addresses; see [`Mover`].
    pub fn relocate(&mut self, mover: &mut Mover<'_>) {
        self.form.relocate(mover, |nodes, mover| {
            mover.deque(&mut nodes.spine);
            let mut parts = mover.parts(nodes.spine.len());
            while let Some(at) = mover.next(&mut parts) {
                if let Some(pack) = mover.shared(&mut nodes.spine[at].pack) {
                    pack.relocate(mover);
                }
            }
        });
    }

    /// Walks everything and panics where an invariant is broken. For tests, fuzzing and the server's
    /// self-check.
    pub fn check(&self) {
        match self.form.get() {
            Form::Pack(pack) => {
                pack.check();
                assert!(pack.packed_bytes() <= NODE_MAX);
            }
            Form::Big(nodes) => nodes.check(),
        }
    }
}

/// Removes up to `limit` matches from one pack, the last ones if `from_end`.
fn rem_from_pack(pack: &mut Pack, value: Item<'_>, limit: usize, from_end: bool) -> usize {
    let mut spared = 0;
    if from_end && limit < pack.len() {
        spared = pack.iter().filter(|item| *item == value).count().saturating_sub(limit);
    }
    let mut left = limit;
    pack.retain(|item| {
        if item != value {
            return true;
        }
        if spared > 0 {
            spared -= 1;
            return true;
        }
        let keep = left == 0;
        left = left.saturating_sub(1);
        keep
    })
}

impl Nodes {
    fn from_pack(pack: Pack) -> Self {
        let mut nodes = Self { spine: VecDeque::new(), len: 0, node_bytes: 0 };
        if !pack.is_empty() {
            nodes.insert_node(0, pack);
        }
        nodes
    }

    #[inline]
    fn heap_bytes(&self) -> usize {
        good_size(size_of::<Self>()) + good_size(self.spine.capacity() * size_of::<Node>()) + self.node_bytes
    }

    /// The node of the element with this number, and the element's number there. Adds up counts from the
    /// nearer end, eight nodes at a time as far as the deque's array does not wrap: for the middle of a
    /// million elements that is 0.4 us instead of 0.8.
    fn locate(&self, index: usize) -> (usize, usize) {
        assert!(index < self.len);
        let sum = |nodes: &[Node]| nodes.iter().map(Node::count).sum::<usize>();
        let (front, back) = self.spine.as_slices();
        if index < self.len / 2 {
            let (mut at, mut before) = (0, 0);
            for eight in front.chunks_exact(8) {
                let behind = before + sum(eight);
                if index < behind {
                    break;
                }
                (at, before) = (at + 8, behind);
            }
            return self.locate_from(at, index - before);
        }
        let (mut end, mut behind) = (self.spine.len(), self.len);
        for eight in if back.is_empty() { front } else { back }.rchunks_exact(8) {
            let before = behind - sum(eight);
            if index >= before {
                break;
            }
            (end, behind) = (end - 8, before);
        }
        for (at, node) in self.spine.range(..end).enumerate().rev() {
            behind -= node.count();
            if index >= behind {
                return (at, index - behind);
            }
        }
        unreachable!("the counts of the nodes add up to the length")
    }

    /// The same for the element that is `rest` elements behind the start of node `from`.
    fn locate_from(&self, from: usize, mut rest: usize) -> (usize, usize) {
        for (at, node) in self.spine.range(from..).enumerate() {
            if rest < node.count() {
                return (from + at, rest);
            }
            rest -= node.count();
        }
        unreachable!("the counts of the nodes add up to the length")
    }

    /// Changes one node, in a copy of its own if it is shared.
    #[inline]
    fn edit<R>(&mut self, at: usize, change: impl FnOnce(&mut Pack) -> R) -> R {
        let node = &mut self.spine[at];
        let before = node.pack.heap_bytes();
        let pack = node.pack_mut();
        let result = change(pack);
        let (count, after) = (pack.len(), pack.heap_bytes());
        self.node_bytes = self.node_bytes - before + after;
        self.len = self.len - node.count() + count;
        node.count = count as u32;
        result
    }

    fn insert_node(&mut self, at: usize, pack: Pack) {
        let node = Node::new(pack);
        self.len += node.count();
        self.node_bytes += node.heap_bytes();
        self.spine.insert(at, node);
    }

    fn remove_nodes(&mut self, range: Range<usize>) {
        for node in self.spine.drain(range) {
            self.len -= node.count();
            self.node_bytes -= node.heap_bytes();
        }
        if self.spine.capacity() > 64 && self.spine.len() < self.spine.capacity() / 4 {
            self.spine.shrink_to(self.spine.len() * 2);
        }
    }

    #[inline]
    fn drop_if_empty(&mut self, at: usize) {
        if self.spine[at].count == 0 {
            self.remove_nodes(at..at + 1);
        }
    }

    /// All elements as one pack, taken out, if they fill at most half a node.
    fn take_small(&mut self) -> Option<Pack> {
        if self.spine.iter().map(|node| node.pack.packed_bytes()).sum::<usize>() > NODE_MAX / 2 {
            return None;
        }
        let mut packs = self.spine.drain(..).map(|node| Arc::unwrap_or_clone(node.pack));
        let mut all = packs.next().unwrap_or_default();
        packs.for_each(|pack| all.append(&pack));
        Some(all)
    }

    #[inline]
    fn push_back(&mut self, item: Item<'_>) {
        let more = item.packed_len();
        let len = self.spine.len();
        if len > 0 && self.spine[len - 1].has_room(more) {
            self.edit(len - 1, |pack| pack.push_back_growing(item, NODE_MAX));
        } else {
            self.insert_single(len, item);
        }
    }

    #[inline]
    fn push_front(&mut self, item: Item<'_>) {
        let more = item.packed_len();
        if !self.spine.is_empty() && self.spine[0].has_room(more) {
            self.edit(0, |pack| pack.push_front_growing(item, NODE_MAX));
        } else {
            self.insert_single(0, item);
        }
    }

    /// A node with one element.
    #[cold]
    fn insert_single(&mut self, at: usize, item: Item<'_>) {
        let mut pack = Pack::new();
        pack.push_back_exact(item);
        self.insert_node(at, pack);
    }

    /// Adds an element so that it has number `index` in node `at`, or is the last one there for the node's
    /// count.
    fn insert(&mut self, at: usize, index: usize, item: Item<'_>) {
        let more = item.packed_len();
        let count = self.spine[at].count();
        if self.spine[at].has_room(more) {
            self.edit(at, |pack| pack.insert_exact(index, item));
        } else if index == 0 && at > 0 && self.spine[at - 1].has_room(more) {
            self.edit(at - 1, |pack| pack.push_back_exact(item));
        } else if index == count && at + 1 < self.spine.len() && self.spine[at + 1].has_room(more) {
            self.edit(at + 1, |pack| pack.push_front_exact(item));
        } else if index == 0 {
            self.insert_single(at, item);
        } else if index == count {
            self.insert_single(at + 1, item);
        } else {
            let rest = self.edit(at, |pack| pack.split_off(index));
            self.insert_node(at + 1, rest);
            if self.spine[at].has_room(more) {
                self.edit(at, |pack| pack.push_back_exact(item));
            } else if self.spine[at + 1].has_room(more) {
                self.edit(at + 1, |pack| pack.push_front_exact(item));
            } else {
                self.insert_single(at + 1, item);
            }
            self.compact(at.saturating_sub(1)..at + 3);
        }
    }

    fn set(&mut self, index: usize, item: Item<'_>) {
        let (at, index) = self.locate(index);
        let node = &self.spine[at];
        let others = node.pack.packed_bytes() - node.pack.get(index as i64).map_or(0, |old| old.packed_len());
        if others == 0 || others + item.packed_len() <= NODE_MAX {
            // The position is looked up again inside: a shared node's copy has no gap, its entries are
            // elsewhere.
            self.edit(at, |pack| {
                let pos = pack.seek(index as i64).expect("the index was located");
                pack.replace_exact(pos, item)
            });
        } else {
            self.edit(at, |pack| pack.remove_range(index, 1));
            self.insert(at, index, item);
        }
        self.compact(at.saturating_sub(1)..at + 2);
    }

    fn trim(&mut self, start: usize, stop: usize) {
        let (first, from) = self.locate(start);
        let (last, index) = self.locate(stop - 1);
        self.remove_nodes(last + 1..self.spine.len());
        if index + 1 < self.spine[last].count() {
            self.edit(last, |pack| pack.truncate(index + 1));
        }
        if from > 0 {
            self.edit(first, |pack| pack.remove_range(0, from));
        }
        self.remove_nodes(0..first);
    }

    fn rem_some(&mut self, removal: &mut Removal, value: Item<'_>, budget: usize) -> bool {
        let Removal { limit, from_end, removed, left } = removal;
        let mut left_now = left.unwrap_or(self.spine.len());
        let mut touched: Option<Range<usize>> = None;
        for _ in 0..budget.min(left_now) {
            if *removed == *limit {
                break;
            }
            let at = if *from_end { left_now - 1 } else { self.spine.len() - left_now };
            left_now -= 1;
            // Searching first leaves nodes without a match shared.
            if self.spine[at].pack.find(value, 0).is_some() {
                *removed += self.edit(at, |pack| rem_from_pack(pack, value, *limit - *removed, *from_end));
                let range = touched.get_or_insert(at..at);
                *range = range.start.min(at)..range.end.max(at + 1);
            }
        }
        *left = Some(left_now);
        let is_over = left_now == 0 || *removed == *limit;
        if let Some(range) = touched {
            // Those that were not looked at keep their number, so that they are found again.
            let looked_at = match *from_end {
                _ if is_over => 0..self.spine.len(),
                true => left_now..self.spine.len(),
                false => 0..self.spine.len() - left_now,
            };
            let start = range.start.saturating_sub(1).max(looked_at.start);
            self.compact(start..(range.end + 1).min(looked_at.end));
        }
        is_over
    }

    /// Drops the empty nodes of a range and merges the small neighbours there.
    fn compact(&mut self, range: Range<usize>) {
        let end = range.end.min(self.spine.len());
        let mut write = range.start;
        for read in range.start..end {
            if self.spine[read].count == 0 {
                continue;
            }
            if write > range.start {
                let packed = self.spine[write - 1].pack.packed_bytes() + self.spine[read].pack.packed_bytes();
                if packed <= MERGE_MAX {
                    let moved = Arc::clone(&self.spine[read].pack);
                    self.edit(write - 1, |pack| pack.append(&moved));
                    // Counted with the target now; the node itself goes with the others below.
                    self.len -= moved.len();
                    self.node_bytes -= moved.heap_bytes();
                    self.spine[read] = Node { pack: Arc::default(), count: 0 };
                    continue;
                }
            }
            self.spine.swap(write, read);
            write += 1;
        }
        self.remove_nodes(write..end);
    }

    fn check(&self) {
        let (mut len, mut node_bytes, mut packed) = (0, 0, 0);
        for node in &self.spine {
            node.pack.check();
            assert!(node.count > 0 && node.count() == node.pack.len());
            assert!(node.has_room(0) || node.count == 1, "a node is within its bound");
            len += node.count();
            node_bytes += node.heap_bytes();
            packed += node.pack.packed_bytes();
        }
        assert_eq!((len, node_bytes), (self.len, self.node_bytes));
        assert!(self.spine.len() > 2 || packed > NODE_MAX / 2, "small lists are packs");
    }
}

impl Default for List {
    fn default() -> Self {
        Self::new()
    }
}

impl<'a, T: Into<Item<'a>>> FromIterator<T> for List {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut list = Self::new();
        list.extend(items);
        list
    }
}

impl<'a, T: Into<Item<'a>>> Extend<T> for List {
    fn extend<I: IntoIterator<Item = T>>(&mut self, items: I) {
        for item in items {
            self.push_back(item);
        }
    }
}

impl<'a> IntoIterator for &'a List {
    type Item = Item<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Where a [`List::scan`] is. Starts as `default()`.
#[derive(Clone, Copy, Default, Debug)]
pub struct Cursor {
    node: usize,
    pos: Option<Pos>,
}

/// The elements of a list, from either end.
#[derive(Clone)]
pub struct Iter<'a> {
    front: pack::Iter<'a>,
    middle: vec_deque::Iter<'a, Node>,
    back: pack::Iter<'a>,
    left: usize,
}

impl<'a> Iter<'a> {
    /// Elements of one pack.
    fn within(front: pack::Iter<'a>, left: usize) -> Self {
        Self { front, middle: vec_deque::Iter::default(), back: pack::Iter::default(), left }
    }

    /// The front is used up: the next node, or what the other end has left of the last one.
    #[cold]
    fn advance(&mut self) {
        self.front = match self.middle.next() {
            Some(node) => node.pack.iter(),
            None => std::mem::take(&mut self.back),
        };
    }

    #[cold]
    fn retreat(&mut self) {
        self.back = match self.middle.next_back() {
            Some(node) => node.pack.iter(),
            None => std::mem::take(&mut self.front),
        };
    }
}

impl<'a> Iterator for Iter<'a> {
    type Item = Item<'a>;

    #[inline]
    fn next(&mut self) -> Option<Item<'a>> {
        if self.left == 0 {
            return None;
        }
        if self.front.len() == 0 {
            self.advance();
        }
        self.left -= 1;
        self.front.next()
    }

    #[inline]
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }

    #[inline]
    fn fold<B, F: FnMut(B, Item<'a>) -> B>(self, init: B, mut fold: F) -> B {
        let mut folded = self.front.fold(init, &mut fold);
        for node in self.middle {
            folded = node.pack.iter().fold(folded, &mut fold);
        }
        self.back.fold(folded, fold)
    }
}

impl<'a> DoubleEndedIterator for Iter<'a> {
    #[inline]
    fn next_back(&mut self) -> Option<Item<'a>> {
        if self.left == 0 {
            return None;
        }
        if self.back.len() == 0 {
            self.retreat();
        }
        self.left -= 1;
        self.back.next_back()
    }

    #[inline]
    fn rfold<B, F: FnMut(B, Item<'a>) -> B>(self, init: B, mut fold: F) -> B {
        let mut folded = self.back.rfold(init, &mut fold);
        for node in self.middle.rev() {
            folded = node.pack.iter().rfold(folded, &mut fold);
        }
        self.front.rfold(folded, fold)
    }
}

impl ExactSizeIterator for Iter<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small generator with a fixed seed: a failure repeats.
    struct Rng(u64);

    impl Rng {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        fn below(&mut self, bound: usize) -> usize {
            (self.next() % bound as u64) as usize
        }
    }

    type Model = VecDeque<Vec<u8>>;

    /// Values from a small set, so that searches hit; `long` of 100 are long enough to fill nodes quickly.
    fn value(rng: &mut Rng, long: usize) -> Vec<u8> {
        if rng.below(100) < long {
            let len = [63, 64, 127, 128, 700, 3000, 8181, 8182, 8183, 8190, 20_000, 70_000][rng.below(12)];
            return vec![b'a' + (rng.next() % 3) as u8; len];
        }
        match rng.below(3) {
            0 => rng.below(40).to_string().into(),
            1 => format!("element:{}", rng.below(40)).into(),
            _ => (rng.next() as i64 >> rng.below(64)).to_string().into(),
        }
    }

    fn same(list: &List, model: &Model) {
        list.check();
        assert_eq!(list.len(), model.len());
        assert!(list.iter().map(|item| item.to_vec()).eq(model.iter().cloned()));
    }

    fn model_rem(model: &mut Model, count: i64, value: &[u8]) -> usize {
        let mut left = if count == 0 { u64::MAX } else { count.unsigned_abs() };
        let before = model.len();
        let mut refuse = |element: &Vec<u8>| {
            let hit = left > 0 && element == value;
            left -= u64::from(hit);
            !hit
        };
        if count < 0 {
            let mut kept: Model = VecDeque::new();
            while let Some(element) = model.pop_back() {
                if refuse(&element) {
                    kept.push_front(element);
                }
            }
            *model = kept;
        } else {
            model.retain(refuse);
        }
        before - model.len()
    }

    /// One random operation on the list and on the model, results compared.
    fn step(rng: &mut Rng, list: &mut List, model: &mut Model, long: usize, grow: bool) {
        let len = model.len();
        let value = value(rng, long);
        let known = if len > 0 { model[rng.below(len)].clone() } else { value.clone() };
        match rng.below(if grow { 14 } else { 26 }) {
            0..=3 => {
                list.push_back(&value);
                model.push_back(value);
            }
            4..=7 => {
                list.push_front(&value);
                model.push_front(value);
            }
            8 => {
                let at = model.iter().position(|element| *element == known);
                if let Some(at) = at {
                    model.insert(at, value.clone());
                }
                assert_eq!(list.insert_before(&known, &value), at.map(|_| model.len()));
            }
            9 => {
                let at = model.iter().position(|element| *element == known);
                if let Some(at) = at {
                    model.insert(at + 1, value.clone());
                }
                assert_eq!(list.insert_after(&known, &value), at.map(|_| model.len()));
            }
            10 => {
                let index = rng.below(len + 1);
                assert_eq!(list.set(index, &value), index < len);
                if index < len {
                    model[index] = value;
                }
            }
            11 => {
                let index = rng.below(len + 1);
                assert_eq!(list.get(index).map(|item| item.to_vec()).as_ref(), model.get(index));
                assert_eq!(list.front().map(|item| item.to_vec()).as_ref(), model.front());
                assert_eq!(list.back().map(|item| item.to_vec()).as_ref(), model.back());
            }
            13 => {
                let (start, stop) = (rng.below(len + 1), rng.below(len + 3));
                let stop = stop.max(start);
                let range = list.range(start, stop);
                assert_eq!(range.len(), stop.min(len) - start);
                let expected: Vec<_> = model.range(start..stop.min(len)).cloned().collect();
                assert!(range.clone().map(|item| item.to_vec()).eq(expected.iter().cloned()));
                assert!(range.clone().rev().map(|item| item.to_vec()).eq(expected.iter().rev().cloned()));
                let mut folded = Vec::new();
                range.clone().for_each(|item| folded.push(item.to_vec()));
                assert_eq!(folded, expected);
                folded.clear();
                range.rev().for_each(|item| folded.insert(0, item.to_vec()));
                assert_eq!(folded, expected);
                let mut ends = list.range(start, stop);
                let (mut front, mut back) = (Vec::new(), Vec::new());
                while ends.len() > 0 {
                    match rng.below(2) {
                        0 => front.extend(ends.next().map(|item| item.to_vec())),
                        _ => back.extend(ends.next_back().map(|item| item.to_vec())),
                    }
                }
                front.extend(back.into_iter().rev());
                assert_eq!(front, expected);
            }
            14..=16 => assert_eq!(list.pop_front_with(|item| item.to_vec()), model.pop_front()),
            17..=19 => assert_eq!(list.pop_back_with(|item| item.to_vec()), model.pop_back()),
            20 => {
                let count = rng.below(30);
                let mut shown = Vec::new();
                assert_eq!(list.pop_front(count, |item| shown.push(item.to_vec())), count.min(len));
                assert!(shown.into_iter().eq(model.drain(..count.min(len))));
            }
            21 => {
                let count = rng.below(30);
                let mut shown = Vec::new();
                assert_eq!(list.pop_back(count, |item| shown.push(item.to_vec())), count.min(len));
                assert!(shown.into_iter().eq(model.drain(len - count.min(len)..).rev()));
            }
            22..=24 => {
                let count = rng.below(7) as i64 - 3;
                let mut removal = Removal::new(count);
                while !list.rem_some(&mut removal, &known, 1 + rng.below(3)) {}
                assert_eq!(removal.removed(), model_rem(model, count, &known));
            }
            _ if rng.below(20) == 0 => {
                let (start, stop) = (rng.below(len + 1) / 4, rng.below(len + 1) + len / 2);
                list.trim(start, stop);
                model.truncate(stop);
                model.drain(..start.min(model.len()));
            }
            _ => {}
        }
    }

    /// Random operations against a VecDeque, over lists of one pack, of a few nodes and of many, with and
    /// without elements that are bigger than a node.
    #[test]
    fn model() {
        for (seed, target, long) in [(1, 30, 0), (2, 300, 3), (3, 2500, 0), (4, 1200, 20), (5, 60, 60)] {
            if cfg!(miri) && target > 60 {
                continue;
            }
            let mut rng = Rng(seed);
            let (mut list, mut model) = (List::new(), Model::new());
            let mut grow = true;
            for round in 0..if cfg!(miri) { 150 } else { 8000 } {
                if model.len() > target {
                    grow = false;
                } else if model.len() < target / 5 {
                    grow = true;
                }
                step(&mut rng, &mut list, &mut model, long, grow);
                if target < 100 || round % 32 == 0 {
                    same(&list, &model);
                }
            }
        }
    }

    /// A clone keeps its content while the original changes, and the other way round; the counted bytes are
    /// those of a list on its own.
    #[test]
    fn clones_do_not_see_writes() {
        let mut rng = Rng(11);
        let (mut list, mut model) = (List::new(), Model::new());
        let mut clones: VecDeque<(List, Model)> = VecDeque::new();
        for round in 0..if cfg!(miri) { 60 } else { 4000 } {
            step(&mut rng, &mut list, &mut model, 10, round % 1000 < 600);
            if round % 50 == 0 {
                clones.push_back((list.clone(), model.clone()));
            }
            if clones.len() > 6 {
                let (mut old, mut old_model) = clones.pop_front().unwrap();
                same(&old, &old_model);
                for _ in 0..20 {
                    step(&mut rng, &mut old, &mut old_model, 10, true);
                }
                same(&old, &old_model);
                same(&list, &model);
            }
        }
    }

    /// A big clone shares its nodes, and a write copies one.
    #[test]
    fn a_write_copies_one_node() {
        let mut list: List = (0..if cfg!(miri) { 4000 } else { 20_000 }).map(|i| i * 1_000_003).collect();
        let clone = list.clone();
        let shared = |list: &List| {
            let Form::Big(nodes) = list.form.get() else { panic!("the list is big") };
            nodes.spine.iter().filter(|node| Arc::strong_count(&node.pack) > 1).count()
        };
        assert_eq!(shared(&list), list.node_count());
        list.push_back(b"new");
        assert_eq!(shared(&list), list.node_count() - 1);
        list.push_back(b"newer");
        assert!(list.set(0, 7));
        assert_eq!(shared(&list), list.node_count() - 2);
        assert_eq!(list.rem(0, b"not there"), 0);
        assert_eq!(shared(&clone), list.node_count() - 2);
        assert_eq!(clone.get(0), Some(Item::Int(0)));
        drop(clone);
        assert_eq!(shared(&list), 0);
    }

    /// A walk in small steps over a clone meets every element once, whatever happens to the original.
    #[test]
    fn scan_in_steps() {
        for len in [0, 1, 10, if cfg!(miri) { 1500 } else { 30_000 }] {
            let mut list: List = (0..len).map(|i| i * 7_000_003).collect();
            let clone = list.clone();
            let (mut cursor, mut seen) = (Cursor::default(), Vec::new());
            while clone.scan(&mut cursor, 97, |item| seen.push(item.to_vec())) {
                list.pop_front(150, |_| ());
            }
            assert!(seen.into_iter().eq((0..len).map(|i| (i * 7_000_003).to_string().into_bytes())));
        }
    }

    /// Freeing in steps takes a bounded number of nodes each time and leaves a valid list in between.
    #[test]
    fn free_in_steps() {
        let mut list: List = (0..if cfg!(miri) { 6000 } else { 50_000 }).map(|i| i * 1_000_003).collect();
        let mut steps = 1;
        let mut nodes = list.node_count();
        while !list.free_some(2) {
            list.check();
            assert!(nodes - list.node_count() <= 2);
            nodes = list.node_count();
            steps += 1;
        }
        assert!(steps > 1);
        assert_eq!((list.len(), list.heap_bytes()), (0, 0));
    }

    /// Small lists are one allocation without spine, as small as promised; big ones spend little beside their
    /// elements; removing most of a list gives most of the memory back.
    #[test]
    fn memory() {
        assert_eq!(size_of::<List>(), 8);
        assert_eq!(List::new().heap_bytes(), 0);
        for front in [true, false] {
            let mut list = List::new();
            for i in 0..10 {
                let element = format!("element:{i:02}").into_bytes();
                if front { list.push_front(&element) } else { list.push_back(&element) }
            }
            assert_eq!((list.heap_bytes(), list.node_count()), (128, 1));
        }
        if cfg!(miri) {
            return;
        }
        for front in [true, false] {
            let mut list = List::new();
            for i in 0..100_000 {
                let element = format!("e{:09}", i % 10).into_bytes();
                if front { list.push_front(&element) } else { list.push_back(&element) }
            }
            assert!(list.heap_bytes() < 100_000 * 12 * 102 / 100 + 10_000, "{}", list.heap_bytes());
            for digit in 0..9 {
                assert_eq!(list.rem(0, &format!("e{digit:09}").into_bytes()), 10_000);
                list.check();
            }
            assert!(list.heap_bytes() < 10_000 * 12 * 2, "{}", list.heap_bytes());
        }
    }

    /// An element of a megabyte is shared by clones, not copied, and does not disturb its neighbours.
    #[test]
    fn giant_elements() {
        let giant = vec![b'g'; if cfg!(miri) { 70_000 } else { 1 << 20 }];
        let mut list = List::new();
        list.push_back(&giant);
        assert!(!list.is_pack());
        list.push_front(b"before");
        list.push_back(b"behind");
        list.check();
        assert_eq!(list.node_count(), 3);
        assert_eq!(list.insert_before(&giant, 1), Some(4));
        assert_eq!(list.insert_after(&giant, 2), Some(5));
        let clone = list.clone();
        assert!(list.set(2, b"small"));
        assert!(list.is_pack());
        let expected: [&[u8]; 5] = [b"before", b"1", b"small", b"2", b"behind"];
        assert!(list.iter().map(|item| item.to_vec()).eq(expected));
        assert_eq!(clone.get(2), Some(Item::Bytes(&giant)));
        clone.check();
    }
}
