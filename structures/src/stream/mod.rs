//! Streams: entries by ascending id, and consumer groups that read them.
//!
//! ```text
//! nodes.rs: chunk of nodes ... --> node.rs: about 100 entries packed in one allocation, text.rs codes the texts
//! group.rs: pending entries by id (idmap.rs), by group and by consumer
//! ```
//!
//! Entries are appended at one end and trimmed at the other, so the index of nodes is a queue and not a tree.
//! What Redis lets clients see of its bookkeeping is kept just so: `entries_added`, `max_deleted_id`, the estimates
//! of `entries_read` and lag, and that approximate trimming removes whole nodes only.
//!
//! Time is handed in; parsing and replies are the commands' business.
//!
//! What must hold (`check`): ids ascend within and between nodes, the length is the sum of the nodes', `first_id` is
//! the first live entry's, group and consumers agree on who has what, and the heap counters equal the sums.

mod group;
mod id;
mod idmap;
mod node;
mod nodes;
mod radix;
mod range;
#[cfg(test)]
mod tests;
mod text;

pub use group::{Consumer, Group, Pending};
pub use id::StreamId;
pub use node::{Entry, Fields};
pub use range::Range;
pub use text::{Digits, Text};

use crate::alloc::good_size;
use crate::moves::{AT_ONCE_MAX, Mover};
use node::Node;
use nodes::Nodes;
use std::sync::Arc;

/// When a node is full: `stream-node-max-bytes` and `stream-node-max-entries`. Zero means no limit.
#[derive(Clone, Copy, Debug)]
pub struct NodeLimits {
    /// A node takes no entry that would reach this many bytes.
    pub bytes: usize,
    /// Nor more entries than this.
    pub entries: usize,
}

impl Default for NodeLimits {
    fn default() -> Self {
        NodeLimits { bytes: 4096, entries: 100 }
    }
}

/// An entry's id must be above all that ever were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdNotAbove {
    /// The last id.
    pub last: StreamId,
}

/// What to trim.
#[derive(Clone, Copy, Debug)]
pub enum Trim {
    /// The oldest, until this many are left.
    ToLen(u64),
    /// What is below this id.
    Below(StreamId),
}

/// How much work trimming may do.
#[derive(Clone, Copy, Debug)]
pub enum Effort {
    /// Exactly what was asked for.
    Exact,
    /// Whole nodes only, and no node that makes it more than `limit` entries; zero means no limit.
    WholeNodes {
        /// The most entries to remove.
        limit: u64,
    },
}

/// The default limit of approximate trimming: a hundred nodes' entries, within bounds as in Redis.
pub fn default_trim_limit(limits: NodeLimits) -> u64 {
    match limits.entries as u64 {
        0 => 10_000,
        entries => entries.saturating_mul(100).min(1_000_000),
    }
}

/// A group's name that is not in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoGroup;

/// What XCLAIM asks for.
#[derive(Clone, Copy, Debug)]
pub struct Claim {
    /// Leave alone what was delivered more recently than this. Zero takes everything.
    pub min_idle_ms: u64,
    /// The time of delivery to write.
    pub delivered_at_ms: u64,
    /// The count of deliveries to write, instead of one more.
    pub deliveries: Option<u64>,
    /// The client wants ids only, so it counts as no delivery.
    pub just_id: bool,
    /// Claim also what nobody has.
    pub force: bool,
}

/// What XAUTOCLAIM asks for.
#[derive(Clone, Copy, Debug)]
pub struct AutoClaim {
    /// Leave alone what was delivered more recently than this. Zero takes everything.
    pub min_idle_ms: u64,
    /// The client wants ids only, so it counts as no delivery.
    pub just_id: bool,
    /// How many pending entries are looked at, at most.
    pub looks: usize,
    /// How many are claimed or found to be gone from the stream, at most.
    pub count: usize,
}

/// What XAUTOCLAIM did besides claiming.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutoClaimed {
    /// Where to go on; [`StreamId::MIN`] when all was seen.
    pub next: StreamId,
    /// Pending entries that were looked at.
    pub looks: usize,
    /// Pending entries that are no longer in the stream and are pending no more.
    pub deleted: Vec<StreamId>,
}

/// See the module's head.
#[derive(Clone, Default)]
pub struct Stream {
    nodes: Nodes,
    len: u64,
    first_id: StreamId,
    last_id: StreamId,
    max_deleted_id: StreamId,
    entries_added: u64,
    /// In the order of their names.
    groups: Vec<Arc<Group>>,
    /// What the groups hold.
    groups_heap: usize,
}

impl Stream {
    /// An empty stream.
    pub fn new() -> Stream {
        Stream::default()
    }

    /// Entries.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are no entries. An empty stream is still a key: it has a last id and groups.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first entry's id, [`StreamId::MIN`] if there is none.
    pub fn first_id(&self) -> StreamId {
        self.first_id
    }

    /// The greatest id ever, above which the next must be.
    pub fn last_id(&self) -> StreamId {
        self.last_id
    }

    /// The greatest id ever deleted by [`Stream::delete`].
    pub fn max_deleted_id(&self) -> StreamId {
        self.max_deleted_id
    }

    /// Entries ever appended.
    pub fn entries_added(&self) -> u64 {
        self.entries_added
    }

    /// What the stream holds from the allocator.
    pub fn heap_bytes(&self) -> usize {
        self.nodes.heap_bytes()
            + good_size(self.groups.capacity() * size_of::<Arc<Group>>())
            + self.groups_heap
    }

    /// Gives allocations other addresses; see [`Mover`].
    pub fn relocate(&mut self, mover: &mut Mover<'_>) {
        self.nodes.relocate(mover);
        // In one step, as there are few as a rule. Those that are many are in pages of their own anyway.
        if self.groups_heap <= AT_ONCE_MAX {
            mover.vec(&mut self.groups);
            for group in &mut self.groups {
                if let Some(group) = mover.shared(group) {
                    group.relocate(mover);
                }
            }
        }
    }

    /// Nodes, for XINFO: Redis calls them radix tree keys.
    pub fn nodes_len(&self) -> usize {
        self.nodes.len()
    }

    /// What XINFO calls radix tree nodes: how many a radix tree over the nodes' ids has if it keeps runs of bytes
    /// without a branch in one node. O(nodes), which are about one for a hundred entries.
    pub fn radix_nodes(&self) -> u64 {
        radix::count(self.nodes.bases())
    }

    /// The id that `*` stands for at this time, unless all ids are used up.
    pub fn next_id(&self, now_ms: u64) -> Option<StreamId> {
        if now_ms > self.last_id.ms { Some(StreamId::new(now_ms, 0)) } else { self.last_id.next() }
    }

    /// The id that `ms-*` stands for, unless it would not be above the last.
    pub fn next_id_in(&self, ms: u64) -> Option<StreamId> {
        match ms.cmp(&self.last_id.ms) {
            std::cmp::Ordering::Less => None,
            std::cmp::Ordering::Equal => self.last_id.seq.checked_add(1).map(|seq| StreamId::new(ms, seq)),
            std::cmp::Ordering::Greater => Some(StreamId::new(ms, 0)),
        }
    }

    /// Appends an entry.
    pub fn append<'a>(
        &mut self,
        id: StreamId,
        fields: impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone,
        limits: NodeLimits,
    ) -> Result<(), IdNotAbove> {
        if id <= self.last_id {
            return Err(IdNotAbove { last: self.last_id });
        }
        let raw: usize = fields.clone().map(|(name, value)| name.len() + value.len()).sum();
        let mut tail = self.nodes.last();
        while let Some(at) = tail.filter(|&at| id <= self.nodes.get(at).last()) {
            self.forget_deleted(at);
            tail = self.nodes.last();
        }
        let room = tail.filter(|&at| {
            let node = self.nodes.get(at);
            (limits.bytes == 0 || node.listpack_bytes() + raw < limits.bytes)
                && (limits.entries == 0 || node.appended() < limits.entries)
        });
        match room {
            Some(at) => self.nodes.change(at, |node| node.append(id, fields)),
            None => {
                if let Some(at) = tail {
                    self.nodes.change(at, Node::seal);
                }
                let mut node = Node::new(id, fields.clone().map(|(name, _)| name));
                node.append(id, fields);
                self.nodes.push(node);
            }
        }
        self.len += 1;
        self.entries_added = self.entries_added.saturating_add(1);
        self.last_id = id;
        if self.len == 1 {
            self.first_id = id;
        }
        Ok(())
    }

    /// Makes room for ids below those of deleted entries at the end of the last node: the last id was set back.
    #[cold]
    fn forget_deleted(&mut self, at: nodes::At) {
        if self.nodes.get(at).live() == 0 {
            self.nodes.remove(at);
        } else {
            self.nodes.change(at, Node::forget_deleted);
        }
    }

    /// Sets what XSETID sets and a file holds. The caller has checked that the last id is not below an entry's.
    pub fn set_counters(&mut self, last_id: StreamId, entries_added: u64, max_deleted_id: StreamId) {
        self.last_id = last_id;
        self.entries_added = entries_added;
        self.max_deleted_id = max_deleted_id;
    }

    /// The entry of this id.
    pub fn get(&self, id: StreamId) -> Option<Entry<'_>> {
        let node = self.nodes.get(self.nodes.find(id)?);
        node.find(id).map(|place| node.entry(&place))
    }

    /// The entries from `start` to `end`, both included, ascending.
    pub fn range(&self, start: StreamId, end: StreamId) -> Range<'_> {
        Range::new(&self.nodes, start, end, false)
    }

    /// The entries from `end` down to `start`, both included.
    pub fn range_reverse(&self, start: StreamId, end: StreamId) -> Range<'_> {
        Range::new(&self.nodes, start, end, true)
    }

    /// How many entries there are from `start` to `end`, both included. O(nodes / 64) and two nodes.
    pub fn count(&self, start: StreamId, end: StreamId) -> u64 {
        if start > end {
            return 0;
        }
        let above = self.count_below(start);
        (self.count_to(end) - above) as u64
    }

    /// Entries below an id.
    fn count_below(&self, id: StreamId) -> usize {
        id.previous().map_or(0, |last| self.count_to(last))
    }

    /// Entries up to an id, which is among them.
    fn count_to(&self, id: StreamId) -> usize {
        let Some(at) = self.nodes.find(id) else { return 0 };
        let node = self.nodes.get(at);
        let of_node = match node.last() <= id {
            true => node.live(),
            false => node.places().take_while(|place| place.id <= id).filter(|place| !place.deleted).count(),
        };
        self.nodes.live_before(at) + of_node
    }

    fn find_first_id(&self) -> StreamId {
        self.range(StreamId::MIN, StreamId::MAX).next().map_or(StreamId::MIN, |entry| entry.id)
    }

    /// Deletes an entry; whether it was there.
    pub fn delete(&mut self, id: StreamId) -> bool {
        let Some(at) = self.nodes.find(id) else { return false };
        let node = self.nodes.get(at);
        let Some(place) = node.find(id) else { return false };
        if node.live() == 1 {
            self.nodes.remove(at);
        } else {
            self.nodes.change(at, |node| {
                node.delete(&place);
                node.compact();
            });
        }
        self.len -= 1;
        self.max_deleted_id = self.max_deleted_id.max(id);
        if id == self.first_id {
            self.first_id = self.find_first_id();
        }
        true
    }

    /// Removes the oldest entries; how many.
    pub fn trim(&mut self, trim: Trim, effort: Effort) -> u64 {
        let mut removed = 0;
        while let Some(at) = self.nodes.first() {
            let node = self.nodes.get(at);
            let live = node.live() as u64;
            if matches!(trim, Trim::ToLen(len) if self.len <= len) {
                break;
            }
            if matches!(effort, Effort::WholeNodes { limit } if limit > 0 && removed + live > limit) {
                break;
            }
            let whole = match trim {
                Trim::ToLen(len) => self.len - live >= len,
                Trim::Below(id) => node.last() < id,
            };
            if whole {
                self.nodes.remove(at);
                self.len -= live;
                removed += live;
                continue;
            }
            if matches!(effort, Effort::Exact) {
                let places: Vec<_> = node.places().filter(|place| !place.deleted).collect();
                let count = match trim {
                    Trim::ToLen(len) => (self.len - len) as usize,
                    Trim::Below(id) => places.partition_point(|place| place.id < id),
                };
                if count > 0 {
                    // All of them if only a deleted entry at its end kept the node from being removed whole. As in
                    // Redis, the node then stays without a live entry until it is trimmed whole.
                    self.nodes.change(at, |node| {
                        places[..count].iter().for_each(|place| node.delete(place));
                        node.compact();
                    });
                }
                self.len -= count as u64;
                removed += count as u64;
            }
            break;
        }
        if removed > 0 {
            self.first_id = self.find_first_id();
        }
        removed
    }

    // --- groups ---

    fn group_place(&self, name: &[u8]) -> Result<usize, usize> {
        self.groups.binary_search_by(|group| group.name().cmp(name))
    }

    /// The group of this name.
    pub fn group(&self, name: &[u8]) -> Option<&Group> {
        self.group_place(name).ok().map(|at| &*self.groups[at])
    }

    /// All groups in the order of their names.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = &Group> {
        self.groups.iter().map(|group| &**group)
    }

    fn change_group<R>(&mut self, name: &[u8], change: impl FnOnce(&mut Group) -> R) -> Result<R, NoGroup> {
        let at = self.group_place(name).map_err(|_| NoGroup)?;
        let before = self.groups[at].heap_bytes();
        let group = Arc::make_mut(&mut self.groups[at]);
        let result = change(group);
        self.groups_heap = self.groups_heap - before + group.heap_bytes();
        Ok(result)
    }

    /// Creates a group that will read what is after `last_id`; false if the name is taken.
    pub fn create_group(&mut self, name: &[u8], last_id: StreamId, entries_read: Option<u64>) -> bool {
        let Err(at) = self.group_place(name) else { return false };
        let group = Group::new(name, last_id, entries_read);
        self.groups_heap += group.heap_bytes();
        self.groups.insert(at, Arc::new(group));
        true
    }

    /// Removes a group and all that is pending in it; whether it was there.
    pub fn destroy_group(&mut self, name: &[u8]) -> bool {
        let Ok(at) = self.group_place(name) else { return false };
        let group = self.groups.remove(at);
        self.groups_heap -= group.heap_bytes();
        true
    }

    /// Lets the group go on after this id.
    pub fn set_group_id(
        &mut self,
        name: &[u8],
        last_id: StreamId,
        entries_read: Option<u64>,
    ) -> Result<(), NoGroup> {
        self.change_group(name, |group| {
            group.last_id = last_id;
            group.entries_read = entries_read;
        })
    }

    /// XCLAIM's LASTID: the group goes on after this id unless it is further already.
    pub fn advance_group(&mut self, name: &[u8], last_id: StreamId) -> Result<(), NoGroup> {
        self.change_group(name, |group| group.last_id = group.last_id.max(last_id))
    }

    /// Creates a consumer; false if the name is taken.
    pub fn create_consumer(&mut self, group: &[u8], name: &[u8], now_ms: u64) -> Result<bool, NoGroup> {
        self.change_group(group, |group| group.add_consumer(name, now_ms).1)
    }

    /// Notes that a consumer asked for something, creating it if need be.
    pub fn touch_consumer(&mut self, group: &[u8], name: &[u8], now_ms: u64) -> Result<(), NoGroup> {
        self.change_group(group, |group| {
            let (number, _) = group.add_consumer(name, now_ms);
            group.change_consumer(number, |consumer| consumer.seen_at_ms = now_ms);
        })
    }

    /// Sets a consumer's times, as a file has them, creating it if need be.
    pub fn set_consumer_times(
        &mut self,
        group: &[u8],
        name: &[u8],
        seen_at_ms: u64,
        active_at_ms: Option<u64>,
    ) -> Result<(), NoGroup> {
        self.change_group(group, |group| {
            let (number, _) = group.add_consumer(name, seen_at_ms);
            group.change_consumer(number, |consumer| {
                consumer.seen_at_ms = seen_at_ms;
                consumer.active_at_ms = active_at_ms;
            });
        })
    }

    /// Removes a consumer and what it has pending; how much that was, `None` if there is no such consumer.
    pub fn delete_consumer(&mut self, group: &[u8], name: &[u8]) -> Result<Option<usize>, NoGroup> {
        self.change_group(group, |group| group.delete_consumer(name))
    }

    /// Takes the first pending entries from a consumer, as [`Stream::delete_consumer`] does with all, up to
    /// `count`.
    pub fn release_some(&mut self, group: &[u8], name: &[u8], count: usize) -> Result<(), NoGroup> {
        self.change_group(group, |group| group.release_some(name, count))
    }

    /// Makes an entry pending as a file says it is, whether or not it is in the stream.
    pub fn set_pending(
        &mut self,
        group: &[u8],
        consumer: &[u8],
        id: StreamId,
        delivered_at_ms: u64,
        deliveries: u64,
    ) -> Result<(), NoGroup> {
        self.change_group(group, |group| {
            let (number, _) = group.add_consumer(consumer, delivered_at_ms);
            group.assign(id, number, delivered_at_ms, saturate(deliveries));
        })
    }

    /// Delivers up to `count` entries that the group has not read (XREADGROUP with `>`), in order; how many.
    /// Unless `no_ack`, they are pending for the consumer afterwards. It is created if there is something to read;
    /// if there is nothing, nothing changes, not even when it was last seen. So does Redis.
    pub fn read_new(
        &mut self,
        group: &[u8],
        consumer: &[u8],
        count: usize,
        no_ack: bool,
        now_ms: u64,
        mut deliver: impl FnMut(Entry<'_>),
    ) -> Result<usize, NoGroup> {
        let at = self.group_place(group).map_err(|_| NoGroup)?;
        let start = self.groups[at].last_id.next();
        let Some(start) = start.filter(|&start| self.range(start, StreamId::MAX).next().is_some()) else {
            return Ok(0);
        };
        // The group leaves the stream's list while both are used.
        let mut shared = self.groups.remove(at);
        let before = shared.heap_bytes();
        let group = Arc::make_mut(&mut shared);
        let (number, _) = group.add_consumer(consumer, now_ms);
        let mut delivered = 0;
        for entry in self.range(start, StreamId::MAX).take(count) {
            let id = entry.id;
            group.entries_read = match group.entries_read {
                Some(read) if !self.deleted_from(id) => Some(read.saturating_add(1)),
                _ => self.position(id),
            };
            group.last_id = id;
            if !no_ack {
                group.assign(id, number, now_ms, 1);
            }
            deliver(entry);
            delivered += 1;
        }
        group.change_consumer(number, |consumer| {
            consumer.seen_at_ms = now_ms;
            if delivered > 0 {
                consumer.active_at_ms = Some(now_ms);
            }
        });
        self.groups_heap = self.groups_heap - before + group.heap_bytes();
        self.groups.insert(at, shared);
        Ok(delivered)
    }

    /// Delivers again up to `count` of what the consumer has pending after an id (XREADGROUP with an id); `None`
    /// stands for an entry that is gone, which counts as no delivery.
    pub fn read_pending(
        &mut self,
        group: &[u8],
        consumer: &[u8],
        after: StreamId,
        count: usize,
        now_ms: u64,
        mut deliver: impl FnMut(StreamId, Option<Entry<'_>>),
    ) -> Result<usize, NoGroup> {
        self.touch_consumer(group, consumer, now_ms)?;
        let Some(start) = after.next() else { return Ok(0) };
        let known = self.group(group).and_then(|group| group.consumer(consumer)).expect("just touched");
        let ids: Vec<StreamId> = known.pending_from(start).take(count).collect();
        let mut present = Vec::with_capacity(ids.len());
        for &id in &ids {
            let entry = self.get(id);
            if entry.is_some() {
                present.push(id);
            }
            deliver(id, entry);
        }
        self.change_group(group, |group| {
            for id in present {
                let pending = group.pending.get_mut(id).expect("pending in the consumer and in the group");
                pending.delivered_at_ms = now_ms;
                pending.deliveries = pending.deliveries.saturating_add(1);
            }
        })?;
        Ok(ids.len())
    }

    /// Acknowledges entries; how many were pending.
    pub fn ack(&mut self, group: &[u8], ids: impl Iterator<Item = StreamId>) -> Result<usize, NoGroup> {
        self.change_group(group, |group| ids.filter(|&id| group.release(id)).count())
    }

    /// Gives one pending entry to a consumer (XCLAIM for one id), and answers the entry if it was claimed: only then
    /// is a consumer created that does not exist. One that is no longer in the stream stops being pending.
    pub fn claim(
        &mut self,
        group: &[u8],
        consumer: &[u8],
        id: StreamId,
        claim: Claim,
        now_ms: u64,
    ) -> Result<Option<Entry<'_>>, NoGroup> {
        let exists = self.get(id).is_some();
        let claimed = self.change_group(group, |group| {
            if !exists {
                group.release(id);
                return false;
            }
            let deliveries = match group.pending.get(id) {
                Some(pending) => {
                    let idle = now_ms.saturating_sub(pending.delivered_at_ms);
                    if claim.min_idle_ms > 0 && idle < claim.min_idle_ms {
                        return false;
                    }
                    pending.deliveries
                }
                // An entry that nobody had counts as delivered once before: so does Redis.
                None if claim.force => 1,
                None => return false,
            };
            let deliveries = match claim.deliveries {
                Some(deliveries) => saturate(deliveries),
                None if claim.just_id => deliveries,
                None => deliveries.saturating_add(1),
            };
            let (number, _) = group.add_consumer(consumer, now_ms);
            group.assign(id, number, claim.delivered_at_ms, deliveries);
            group.change_consumer(number, |consumer| {
                consumer.seen_at_ms = now_ms;
                consumer.active_at_ms = Some(now_ms);
            });
            true
        })?;
        Ok(if claimed { self.get(id) } else { None })
    }

    /// Claims entries that have been idle, from `start` on (XAUTOCLAIM). The consumer is created when something is
    /// claimed.
    pub fn auto_claim(
        &mut self,
        group: &[u8],
        consumer: &[u8],
        start: StreamId,
        claim: AutoClaim,
        now_ms: u64,
        mut deliver: impl FnMut(Entry<'_>),
    ) -> Result<AutoClaimed, NoGroup> {
        let known = self.group(group).ok_or(NoGroup)?;
        let (mut claimed, mut deleted) = (Vec::new(), Vec::new());
        let mut pending = known.pending.from(start);
        let mut looks = 0;
        while looks < claim.looks && claimed.len() + deleted.len() < claim.count {
            let Some((id, pending)) = pending.next() else { break };
            looks += 1;
            let Some(entry) = self.get(id) else {
                deleted.push(id);
                continue;
            };
            let idle = now_ms.saturating_sub(pending.delivered_at_ms);
            if claim.min_idle_ms > 0 && idle < claim.min_idle_ms {
                continue;
            }
            claimed.push((id, pending.deliveries.saturating_add(u32::from(!claim.just_id))));
            deliver(entry);
        }
        let next = pending.next().map_or(StreamId::MIN, |(id, _)| id);
        drop(pending);
        self.change_group(group, |group| {
            for &id in &deleted {
                group.release(id);
            }
            if claimed.is_empty() {
                return;
            }
            let (number, _) = group.add_consumer(consumer, now_ms);
            group.change_consumer(number, |consumer| {
                consumer.seen_at_ms = now_ms;
                consumer.active_at_ms = Some(now_ms);
            });
            for (id, deliveries) in claimed {
                group.assign(id, number, now_ms, deliveries);
            }
        })?;
        Ok(AutoClaimed { next, looks, deleted })
    }

    /// Whether an entry at or after this id may have been deleted, so that counting on would go wrong.
    fn deleted_from(&self, id: StreamId) -> bool {
        self.len > 0
            && self.max_deleted_id != StreamId::MIN
            && self.max_deleted_id >= self.first_id
            && id <= self.max_deleted_id
    }

    /// How many entries were ever appended up to this id, if that can be told from the counters alone.
    pub fn position(&self, id: StreamId) -> Option<u64> {
        if self.entries_added == 0 {
            return Some(0);
        }
        if self.len == 0 && id <= self.last_id {
            return Some(self.entries_added);
        }
        match id.cmp(&self.last_id) {
            std::cmp::Ordering::Equal => return Some(self.entries_added),
            std::cmp::Ordering::Greater => return None,
            std::cmp::Ordering::Less => {}
        }
        // With deletions only before the first entry, the entries here are the last ones added.
        let whole = self.max_deleted_id == StreamId::MIN || self.max_deleted_id < self.first_id;
        let before = self.entries_added.saturating_sub(self.len);
        match id.cmp(&self.first_id) {
            std::cmp::Ordering::Less if whole => Some(before),
            std::cmp::Ordering::Equal if whole => Some(before.saturating_add(1)),
            _ => None,
        }
    }

    /// How many entries the group has yet to read, if that can be told. Negative when a client has told the group
    /// that it read more than there was: Redis shows that as it is.
    pub fn lag(&self, group: &Group) -> Option<i64> {
        if self.entries_added == 0 {
            return Some(0);
        }
        let read = group.entries_read().filter(|_| !self.deleted_from(group.last_id()));
        let read = read.or_else(|| self.position(group.last_id()))?;
        Some((self.entries_added as i64).wrapping_sub(read as i64))
    }

    /// Frees up to `budget` nodes, runs of pending entries or consumers of a stream that nobody will use again;
    /// true when nothing is left.
    pub fn free_some(&mut self, budget: usize) -> bool {
        for _ in 0..budget {
            if self.nodes.pop() {
                continue;
            }
            let Some(shared) = self.groups.last_mut() else { return true };
            let before = shared.heap_bytes();
            // A group that a clone has too is not copied to be taken apart.
            let more = Arc::get_mut(shared).is_some_and(Group::free_one);
            self.groups_heap = self.groups_heap - before + shared.heap_bytes();
            if !more {
                self.groups_heap -= shared.heap_bytes();
                self.groups.pop();
            }
        }
        false
    }

    /// Panics unless everything holds that the module's head promises. O(n).
    pub fn check(&self) {
        assert_eq!(self.nodes.check() as u64, self.len);
        assert_eq!(self.find_first_id(), self.first_id);
        assert_eq!(self.groups_heap, self.groups.iter().map(|group| group.heap_bytes()).sum::<usize>());
        assert!(self.groups.windows(2).all(|two| two[0].name() < two[1].name()));
        self.groups.iter().for_each(|group| group.check());
    }
}

/// Delivery counts are kept in 32 bits.
fn saturate(deliveries: u64) -> u32 {
    u32::try_from(deliveries).unwrap_or(u32::MAX)
}
