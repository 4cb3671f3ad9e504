//! Consumer groups: who was given which entries and has not acknowledged them.
//!
//! The pending entries are kept twice, by id in the group with everything about them and by id in the consumer as
//! bare ids, because both are asked for in order: XPENDING and XAUTOCLAIM walk the group, history reads walk one
//! consumer. Consumers are numbered, so that an entry names its owner in four bytes.

use super::id::StreamId;
use super::idmap::IdMap;
use crate::alloc::good_size;
use crate::moves::Mover;
use std::sync::Arc;

const COUNTS: usize = 2 * size_of::<usize>();

/// What a group knows about an entry that was delivered and not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// When it was last delivered, or said to have been.
    pub delivered_at_ms: u64,
    /// How often it was delivered. Counts above 32 bits are kept as the greatest.
    pub deliveries: u32,
    pub(super) consumer: u32,
}

/// A reader of a group.
#[derive(Clone)]
pub struct Consumer {
    name: Box<[u8]>,
    /// When it last asked for anything.
    pub seen_at_ms: u64,
    /// When it was last given anything; never if it never was.
    pub active_at_ms: Option<u64>,
    pub(super) pending: IdMap<()>,
}

impl Consumer {
    /// Its name.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// Entries that it was given and has not acknowledged.
    pub fn pending_len(&self) -> usize {
        self.pending.len()
    }

    /// The ids of those, ascending, from this one on.
    pub fn pending_from(&self, start: StreamId) -> impl Iterator<Item = StreamId> {
        self.pending.from(start).map(|(id, ())| id)
    }

    fn heap_bytes(&self) -> usize {
        good_size(COUNTS + size_of::<Consumer>()) + good_size(self.name.len()) + self.pending.heap_bytes()
    }
}

/// A consumer group.
#[derive(Clone)]
pub struct Group {
    name: Box<[u8]>,
    pub(super) last_id: StreamId,
    pub(super) entries_read: Option<u64>,
    pub(super) pending: IdMap<Pending>,
    /// By number. Numbers of deleted consumers are used again.
    consumers: Vec<Option<Arc<Consumer>>>,
    /// Numbers in the order of the names.
    by_name: Vec<u32>,
    /// What the consumers hold.
    heap: usize,
}

impl Group {
    pub(super) fn new(name: &[u8], last_id: StreamId, entries_read: Option<u64>) -> Group {
        Group {
            name: name.into(),
            last_id,
            entries_read,
            pending: IdMap::default(),
            consumers: Vec::new(),
            by_name: Vec::new(),
            heap: 0,
        }
    }

    /// Its name.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// The last entry that was delivered to any consumer as new.
    pub fn last_id(&self) -> StreamId {
        self.last_id
    }

    /// How many entries the group has read since the stream's first ever, if known.
    pub fn entries_read(&self) -> Option<u64> {
        self.entries_read
    }

    /// Pending entries of all consumers.
    pub fn pending_len(&self) -> usize {
        self.pending.len()
    }

    /// The first and last pending id.
    pub fn pending_bounds(&self) -> Option<(StreamId, StreamId)> {
        Some((self.pending.first()?, self.pending.last()?))
    }

    /// The pending entry of this id and who has it.
    pub fn pending(&self, id: StreamId) -> Option<(&Consumer, Pending)> {
        let pending = self.pending.get(id)?;
        Some((self.by_number(pending.consumer), pending))
    }

    /// Pending entries from this id on, ascending, with their consumers; of one consumer if `of` is given.
    pub fn pending_from<'a>(
        &'a self,
        start: StreamId,
        of: Option<&'a Consumer>,
    ) -> Box<dyn Iterator<Item = (StreamId, &'a Consumer, Pending)> + 'a> {
        match of {
            None => Box::new(
                self.pending.from(start).map(|(id, pending)| (id, self.by_number(pending.consumer), pending)),
            ),
            Some(consumer) => Box::new(consumer.pending.from(start).map(move |(id, ())| {
                (id, consumer, self.pending.get(id).expect("pending in the consumer and in the group"))
            })),
        }
    }

    /// Consumers in the order of their names.
    pub fn consumers(&self) -> impl ExactSizeIterator<Item = &Consumer> {
        self.by_name.iter().map(|&number| self.by_number(number))
    }

    /// The consumer of this name.
    pub fn consumer(&self, name: &[u8]) -> Option<&Consumer> {
        self.number(name).map(|number| self.by_number(number))
    }

    fn by_number(&self, number: u32) -> &Consumer {
        self.consumers[number as usize].as_ref().expect("a consumer")
    }

    fn place(&self, name: &[u8]) -> Result<usize, usize> {
        self.by_name.binary_search_by(|&number| (*self.by_number(number).name).cmp(name))
    }

    fn number(&self, name: &[u8]) -> Option<u32> {
        self.place(name).ok().map(|at| self.by_name[at])
    }

    pub(super) fn add_consumer(&mut self, name: &[u8], now_ms: u64) -> (u32, bool) {
        let at = match self.place(name) {
            Ok(at) => return (self.by_name[at], false),
            Err(at) => at,
        };
        let consumer =
            Consumer { name: name.into(), seen_at_ms: now_ms, active_at_ms: None, pending: IdMap::default() };
        self.heap += consumer.heap_bytes();
        let free = self.consumers.iter().position(Option::is_none);
        let number = free.unwrap_or_else(|| {
            self.consumers.push(None);
            self.consumers.len() - 1
        });
        self.consumers[number] = Some(Arc::new(consumer));
        self.by_name.insert(at, number as u32);
        (number as u32, true)
    }

    pub(super) fn change_consumer<R>(&mut self, number: u32, change: impl FnOnce(&mut Consumer) -> R) -> R {
        let consumer = Arc::make_mut(self.consumers[number as usize].as_mut().expect("a consumer"));
        let before = consumer.heap_bytes();
        let result = change(consumer);
        self.heap = self.heap - before + consumer.heap_bytes();
        result
    }

    /// Takes the first pending entries from a consumer, to nobody, up to `count`.
    pub(super) fn release_some(&mut self, name: &[u8], count: usize) {
        let Some(number) = self.number(name) else { return };
        let ids: Vec<StreamId> = self.by_number(number).pending_from(StreamId::MIN).take(count).collect();
        for id in &ids {
            self.pending.remove(*id);
        }
        self.change_consumer(number, |consumer| {
            for id in &ids {
                consumer.pending.remove(*id);
            }
        });
    }

    pub(super) fn delete_consumer(&mut self, name: &[u8]) -> Option<usize> {
        let at = self.place(name).ok()?;
        let number = self.by_name.remove(at) as usize;
        let consumer = self.consumers[number].take().expect("a consumer");
        self.heap -= consumer.heap_bytes();
        for (id, ()) in consumer.pending.from(StreamId::MIN) {
            self.pending.remove(id);
        }
        Some(consumer.pending.len())
    }

    /// Gives the entry to the consumer, from whoever had it.
    pub(super) fn assign(&mut self, id: StreamId, number: u32, delivered_at_ms: u64, deliveries: u32) {
        let old = self.pending.get(id).map(|pending| pending.consumer);
        self.pending.insert(id, Pending { delivered_at_ms, deliveries, consumer: number });
        if old == Some(number) {
            return;
        }
        if let Some(old) = old {
            self.change_consumer(old, |consumer| consumer.pending.remove(id));
        }
        self.change_consumer(number, |consumer| consumer.pending.insert(id, ()));
    }

    /// Nobody has the entry any more; whether somebody had.
    pub(super) fn release(&mut self, id: StreamId) -> bool {
        let Some(pending) = self.pending.remove(id) else { return false };
        self.change_consumer(pending.consumer, |consumer| consumer.pending.remove(id));
        true
    }

    pub(super) fn heap_bytes(&self) -> usize {
        good_size(COUNTS + size_of::<Group>())
            + good_size(self.name.len())
            + self.pending.heap_bytes()
            + good_size(self.consumers.capacity() * size_of::<Option<Arc<Consumer>>>())
            + good_size(self.by_name.capacity() * size_of::<u32>())
            + self.heap
    }

    /// Gives allocations other addresses; see [`Mover`].
    pub(super) fn relocate(&mut self, mover: &mut Mover<'_>) {
        mover.bytes(&mut self.name);
        self.pending.relocate(mover);
        mover.vec(&mut self.consumers);
        mover.vec(&mut self.by_name);
        for consumer in self.consumers.iter_mut().flatten() {
            if let Some(consumer) = mover.shared(consumer) {
                mover.bytes(&mut consumer.name);
                consumer.pending.relocate(mover);
            }
        }
    }

    /// Frees one run of pending entries, or a consumer that has none; whether there was something.
    pub(super) fn free_one(&mut self) -> bool {
        if self.pending.pop_run() {
            return true;
        }
        let Some(&number) = self.by_name.last() else { return false };
        if !self.change_consumer(number, |consumer| consumer.pending.pop_run()) {
            let consumer = self.consumers[number as usize].take().expect("a consumer");
            self.heap -= consumer.heap_bytes();
            self.by_name.pop();
        }
        true
    }

    pub(super) fn check(&self) {
        self.pending.check();
        let live: Vec<&Arc<Consumer>> = self.consumers.iter().flatten().collect();
        assert_eq!(live.len(), self.by_name.len());
        assert!(self.by_name.windows(2).all(|two| self.by_number(two[0]).name < self.by_number(two[1]).name));
        assert_eq!(self.heap, live.iter().map(|consumer| consumer.heap_bytes()).sum::<usize>());
        assert_eq!(self.pending.len(), live.iter().map(|consumer| consumer.pending.len()).sum::<usize>());
        for consumer in live {
            consumer.pending.check();
            for (id, ()) in consumer.pending.from(StreamId::MIN) {
                let (owner, _) = self.pending(id).expect("pending in the group");
                assert_eq!(owner.name, consumer.name);
            }
        }
    }
}
