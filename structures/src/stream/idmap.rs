//! A map ordered by entry id, for pending entries: appended at the end, removed anywhere.
//!
//! Sorted runs of up to [`RUN`] entries. New deliveries append, so runs are full but for the last; acknowledging
//! empties them, mostly from the front. 18 bytes per id without values and 36 with them when full, where a radix
//! tree or `BTreeMap` has 50 and more, and it can be cloned and counted.

use super::id::StreamId;
use crate::alloc::good_size;
use crate::moves::Mover;
use std::collections::VecDeque;
use std::sync::Arc;

/// Entries per run: at most 4 KiB.
const RUN: usize = 128;
const RUN_MIN: usize = RUN / 4;
const RUN_MERGED_MAX: usize = RUN * 3 / 4;

struct Run<V>(Vec<(StreamId, V)>);

impl<V: Copy> Clone for Run<V> {
    fn clone(&self) -> Self {
        let mut copy = Vec::with_capacity(self.0.capacity());
        copy.extend_from_slice(&self.0);
        Run(copy)
    }
}

impl<V> Run<V> {
    fn heap_bytes(&self) -> usize {
        const COUNTED_VEC: usize = good_size(2 * size_of::<usize>() + size_of::<Vec<u8>>());
        COUNTED_VEC + good_size(self.0.capacity() * size_of::<(StreamId, V)>())
    }
}

/// Ids with values.
pub(super) struct IdMap<V> {
    /// With the first id of each, so that searching touches one run.
    runs: VecDeque<(StreamId, Arc<Run<V>>)>,
    len: usize,
    /// What the runs hold.
    heap: usize,
}

impl<V: Copy> Clone for IdMap<V> {
    fn clone(&self) -> Self {
        let mut runs = VecDeque::with_capacity(self.runs.capacity());
        runs.extend(self.runs.iter().cloned());
        IdMap { runs, len: self.len, heap: self.heap }
    }
}

impl<V> Default for IdMap<V> {
    fn default() -> Self {
        IdMap { runs: VecDeque::new(), len: 0, heap: 0 }
    }
}

impl<V: Copy> IdMap<V> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn heap_bytes(&self) -> usize {
        self.heap + good_size(self.runs.capacity() * size_of::<(StreamId, Arc<Run<V>>)>())
    }

    /// The run that has the id if any has it; the first for ids before everything.
    fn run_for(&self, id: StreamId) -> usize {
        self.runs.partition_point(|run| run.0 <= id).saturating_sub(1)
    }

    fn find(&self, id: StreamId) -> Option<(usize, usize)> {
        let run = self.run_for(id);
        let at = self.runs.get(run)?.1.0.binary_search_by_key(&id, |item| item.0).ok()?;
        Some((run, at))
    }

    pub(super) fn get(&self, id: StreamId) -> Option<V> {
        let (run, at) = self.find(id)?;
        Some(self.runs[run].1.0[at].1)
    }

    pub(super) fn get_mut(&mut self, id: StreamId) -> Option<&mut V> {
        let (run, at) = self.find(id)?;
        Some(&mut Arc::make_mut(&mut self.runs[run].1).0[at].1)
    }

    fn add_run(&mut self, at: usize, items: Vec<(StreamId, V)>) {
        let run = Run(items);
        self.heap += run.heap_bytes();
        self.runs.insert(at, (run.0[0].0, Arc::new(run)));
    }

    fn change<R>(&mut self, run: usize, change: impl FnOnce(&mut Vec<(StreamId, V)>) -> R) -> R {
        let slot = &mut self.runs[run];
        let items = Arc::make_mut(&mut slot.1);
        let before = items.heap_bytes();
        let result = change(&mut items.0);
        self.heap = self.heap - before + items.heap_bytes();
        if let Some(first) = items.0.first() {
            slot.0 = first.0;
        }
        result
    }

    /// Inserts or replaces.
    pub(super) fn insert(&mut self, id: StreamId, value: V) {
        if self.runs.is_empty() {
            self.add_run(0, vec![(id, value)]);
            self.len += 1;
            return;
        }
        let mut run = self.run_for(id);
        let items = &self.runs[run].1.0;
        match items.binary_search_by_key(&id, |item| item.0) {
            Ok(at) => self.change(run, |items| items[at].1 = value),
            Err(at) => {
                self.len += 1;
                let mut at = at;
                if items.len() == RUN {
                    if at == RUN && run + 1 == self.runs.len() {
                        return self.add_run(run + 1, vec![(id, value)]);
                    }
                    let mut upper = Vec::with_capacity(RUN * 3 / 4);
                    upper.extend_from_slice(&items[RUN / 2..]);
                    self.change(run, |items| items.truncate(RUN / 2));
                    self.add_run(run + 1, upper);
                    if at > RUN / 2 {
                        (run, at) = (run + 1, at - RUN / 2);
                    }
                }
                self.change(run, |items| items.insert(at, (id, value)));
            }
        }
    }

    pub(super) fn remove(&mut self, id: StreamId) -> Option<V> {
        let (run, at) = self.find(id)?;
        let (value, left) = self.change(run, |items| (items.remove(at).1, items.len()));
        self.len -= 1;
        if left == 0 {
            let (_, gone) = self.runs.remove(run).expect("this run");
            self.heap -= gone.heap_bytes();
        } else if left < RUN_MIN {
            let merged = run + 1 < self.runs.len() && self.merge(run);
            let _ = merged || run > 0 && self.merge(run - 1);
        }
        Some(value)
    }

    fn merge(&mut self, run: usize) -> bool {
        if self.runs[run].1.0.len() + self.runs[run + 1].1.0.len() > RUN_MERGED_MAX {
            return false;
        }
        let (_, upper) = self.runs.remove(run + 1).expect("a neighbour");
        self.heap -= upper.heap_bytes();
        self.change(run, |items| items.extend_from_slice(&upper.0));
        true
    }

    pub(super) fn first(&self) -> Option<StreamId> {
        self.runs.front().map(|run| run.0)
    }

    pub(super) fn last(&self) -> Option<StreamId> {
        self.runs.back().and_then(|run| run.1.0.last()).map(|item| item.0)
    }

    /// All from this id on, ascending.
    pub(super) fn from(&self, start: StreamId) -> impl Iterator<Item = (StreamId, V)> {
        let run = self.run_for(start);
        let skip = self.runs.get(run).map_or(0, |run| run.1.0.partition_point(|item| item.0 < start));
        self.runs.range(run.min(self.runs.len())..).flat_map(|run| run.1.0.iter().copied()).skip(skip)
    }

    /// Frees the last run; whether there was one.
    pub(super) fn pop_run(&mut self) -> bool {
        let Some((_, run)) = self.runs.pop_back() else { return false };
        self.heap -= run.heap_bytes();
        self.len -= run.0.len();
        true
    }

    /// Gives allocations other addresses; see [`Mover`].
    pub(super) fn relocate(&mut self, mover: &mut Mover<'_>) {
        mover.deque(&mut self.runs);
        for (_, run) in &mut self.runs {
            if let Some(run) = mover.shared(run) {
                mover.vec(&mut run.0);
            }
        }
    }

    pub(super) fn check(&self) {
        assert_eq!(self.len, self.runs.iter().map(|run| run.1.0.len()).sum::<usize>());
        assert_eq!(self.heap, self.runs.iter().map(|run| run.1.heap_bytes()).sum::<usize>());
        let mut last = None;
        for (first, run) in &self.runs {
            assert!(run.0.len() <= RUN && run.0.first().is_some_and(|item| item.0 == *first));
            for item in &run.0 {
                assert!(last.is_none_or(|last| last < item.0));
                last = Some(item.0);
            }
        }
    }
}
