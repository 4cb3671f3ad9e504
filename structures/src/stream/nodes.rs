//! The nodes of a stream in order: appended at one end, trimmed at the other, found by id.
//!
//! Two levels of counted pointers, so that a clone costs a pointer per [`CHUNK`] nodes, about 6 000 entries.

use super::id::StreamId;
use super::node::Node;
use crate::alloc::good_size;
use crate::moves::Mover;
use std::collections::VecDeque;
use std::sync::Arc;

/// Nodes per chunk: 1.5 KiB, copied when a clone shares it.
const CHUNK: usize = 64;
const ITEM_BYTES: usize = size_of::<(StreamId, Arc<Node>)>();
const CHUNK_HEADER_BYTES: usize = good_size(2 * size_of::<usize>() + size_of::<Chunk>());

/// Nodes with their bases, so that searching does not touch them.
struct Chunk(Vec<(StreamId, Arc<Node>)>);

impl Chunk {
    fn heap_bytes(&self) -> usize {
        CHUNK_HEADER_BYTES + good_size(self.0.capacity() * ITEM_BYTES)
    }
}

impl Clone for Chunk {
    fn clone(&self) -> Self {
        let mut copy = Vec::with_capacity(self.0.capacity());
        copy.extend_from_slice(&self.0);
        Chunk(copy)
    }
}

/// A chunk with what is asked for without a look into it.
#[derive(Clone)]
struct Slot {
    /// That of its first node: the search touches no chunk but the one it ends in.
    base: StreamId,
    /// Its entries, so that those of a range are counted by chunks.
    live: usize,
    chunk: Arc<Chunk>,
}

/// Which node: chunk and place in it. Good until the next change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct At(usize, usize);

#[derive(Default)]
pub(super) struct Nodes {
    chunks: VecDeque<Slot>,
    /// What chunks and nodes hold.
    heap: usize,
}

impl Clone for Nodes {
    fn clone(&self) -> Self {
        let mut chunks = VecDeque::with_capacity(self.chunks.capacity());
        chunks.extend(self.chunks.iter().cloned());
        Nodes { chunks, heap: self.heap }
    }
}

impl Nodes {
    pub(super) fn heap_bytes(&self) -> usize {
        self.heap + good_size(self.chunks.capacity() * size_of::<Slot>())
    }

    /// Nodes.
    pub(super) fn len(&self) -> usize {
        self.chunks.iter().map(|slot| slot.chunk.0.len()).sum()
    }

    /// The bases of all nodes, ascending.
    pub(super) fn bases(&self) -> impl Iterator<Item = StreamId> {
        self.chunks.iter().flat_map(|slot| slot.chunk.0.iter().map(|(base, _)| *base))
    }

    #[inline]
    pub(super) fn get(&self, at: At) -> &Node {
        &self.chunks[at.0].chunk.0[at.1].1
    }

    pub(super) fn first(&self) -> Option<At> {
        (!self.chunks.is_empty()).then_some(At(0, 0))
    }

    #[inline]
    pub(super) fn last(&self) -> Option<At> {
        let slot = self.chunks.back()?;
        Some(At(self.chunks.len() - 1, slot.chunk.0.len() - 1))
    }

    pub(super) fn next(&self, at: At) -> Option<At> {
        if at.1 + 1 < self.chunks[at.0].chunk.0.len() {
            return Some(At(at.0, at.1 + 1));
        }
        (at.0 + 1 < self.chunks.len()).then_some(At(at.0 + 1, 0))
    }

    pub(super) fn previous(&self, at: At) -> Option<At> {
        if at.1 > 0 {
            return Some(At(at.0, at.1 - 1));
        }
        let chunk = at.0.checked_sub(1)?;
        Some(At(chunk, self.chunks[chunk].chunk.0.len() - 1))
    }

    /// The last node whose base is not above the id: the only one that may have an entry of this id.
    pub(super) fn find(&self, id: StreamId) -> Option<At> {
        let chunk = self.chunks.partition_point(|slot| slot.base <= id).checked_sub(1)?;
        let item = self.chunks[chunk].chunk.0.partition_point(|item| item.0 <= id) - 1;
        Some(At(chunk, item))
    }

    /// Entries of the nodes before this one. O(chunks).
    pub(super) fn live_before(&self, at: At) -> usize {
        let whole = self.chunks.range(..at.0).map(|slot| slot.live).sum::<usize>();
        whole + self.chunks[at.0].chunk.0[..at.1].iter().map(|(_, node)| node.live()).sum::<usize>()
    }

    pub(super) fn change<R>(&mut self, at: At, change: impl FnOnce(&mut Node) -> R) -> R {
        let slot = &mut self.chunks[at.0];
        let node = Arc::make_mut(&mut Arc::make_mut(&mut slot.chunk).0[at.1].1);
        let (heap, live) = (node.heap_bytes(), node.live());
        let result = change(node);
        self.heap = self.heap - heap + node.heap_bytes();
        slot.live = slot.live - live + node.live();
        result
    }

    pub(super) fn push(&mut self, node: Node) -> At {
        if self.chunks.back().is_none_or(|slot| slot.chunk.0.len() == CHUNK) {
            // Only the first chunk starts small: most streams are short.
            let chunk = Chunk(Vec::with_capacity(if self.chunks.is_empty() { 1 } else { CHUNK }));
            self.heap += chunk.heap_bytes();
            self.chunks.push_back(Slot { base: node.base(), live: 0, chunk: Arc::new(chunk) });
        }
        let slot = self.chunks.back_mut().expect("a chunk");
        slot.live += node.live();
        let chunk = Arc::make_mut(&mut slot.chunk);
        let before = chunk.heap_bytes();
        self.heap += node.heap_bytes();
        chunk.0.push((node.base(), Arc::new(node)));
        self.heap = self.heap - before + chunk.heap_bytes();
        self.last().expect("just pushed")
    }

    pub(super) fn remove(&mut self, at: At) {
        let slot = &mut self.chunks[at.0];
        let chunk = Arc::make_mut(&mut slot.chunk);
        let (_, node) = chunk.0.remove(at.1);
        self.heap -= node.heap_bytes();
        slot.live -= node.live();
        if let Some(first) = chunk.0.first() {
            slot.base = first.0;
        }
        if chunk.0.is_empty() {
            self.heap -= chunk.heap_bytes();
            self.chunks.remove(at.0);
        } else if chunk.0.len() <= chunk.0.capacity() / 4 {
            self.heap -= chunk.heap_bytes();
            chunk.0.shrink_to(chunk.0.len() * 2);
            self.heap += chunk.heap_bytes();
        }
    }

    /// Removes the last node; whether there was one. From the back no pointers move.
    pub(super) fn pop(&mut self) -> bool {
        let Some(at) = self.last() else { return false };
        self.remove(at);
        true
    }

    /// Gives allocations other addresses; see [`Mover`]. Chunks are parts.
    pub(super) fn relocate(&mut self, mover: &mut Mover<'_>) {
        mover.deque(&mut self.chunks);
        let mut parts = mover.parts(self.chunks.len());
        while let Some(at) = mover.next(&mut parts) {
            let Some(chunk) = mover.shared(&mut self.chunks[at].chunk) else { continue };
            mover.vec(&mut chunk.0);
            for (_, node) in &mut chunk.0 {
                if let Some(node) = mover.shared(node) {
                    node.relocate(mover);
                }
            }
        }
    }

    pub(super) fn check(&self) -> usize {
        let (mut heap, mut live) = (0, 0);
        let mut last = None;
        for Slot { base, live: of_chunk, chunk } in &self.chunks {
            assert!(chunk.0.len() <= CHUNK && chunk.0.first().is_some_and(|first| first.0 == *base));
            assert_eq!(*of_chunk, chunk.0.iter().map(|(_, node)| node.live()).sum::<usize>());
            heap += chunk.heap_bytes();
            for (base, node) in &chunk.0 {
                node.check();
                assert!(*base == node.base());
                assert!(last.is_none_or(|last| last < *base), "nodes overlap");
                last = Some(node.last());
                live += node.live();
                heap += node.heap_bytes();
            }
        }
        assert_eq!(heap, self.heap);
        live
    }
}
