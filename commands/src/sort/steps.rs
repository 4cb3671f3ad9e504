//! SORT of many elements by themselves, in steps: runs are sorted one by one, then merged two by two.
//!
//! The elements' bytes are in blocks and what is sorted are numbers, so nothing has to be freed one by one. Where LIMIT
//! leaves few, every run is cut to what it can contribute.

use std::cmp::Ordering;
use std::collections::VecDeque;

use damselfly_keyspace::{Collection, Item, List, Object, Value};

use super::{By, Get, Sort, score};
use crate::long::{Walk, put_aside};
use crate::task::{Task, members_per_step};
use crate::{CmdResult, CommandError, Cx};

/// Elements sorted at once: about a tenth of a millisecond's work.
const RUN_LEN: usize = 512;
/// Elements merged, or taken into the result, in one step.
const MOVED_PER_STEP: usize = 512;
/// Bytes of a block of elements; a longer element has one of its own.
const BLOCK_LEN: usize = 64 * 1024;

/// An element by its place in the blocks.
#[derive(Clone, Copy)]
struct Place {
    score: f64,
    block: u32,
    start: u32,
    len: u32,
}

/// Two runs on their way to become one.
struct Merging {
    runs: [Vec<Place>; 2],
    at: [usize; 2],
    merged: Vec<Place>,
}

/// A SORT under way.
pub(super) struct Sorting {
    sort: Sort,
    source: Object,
    len: usize,
    /// How far the source was read: a number of elements or a cursor; None at its end.
    place: Option<u64>,
    blocks: Vec<Vec<u8>>,
    run: Vec<Place>,
    runs: VecDeque<Vec<Place>>,
    merging: Option<Merging>,
    /// What was sorted, and how much of it is in the result.
    sorted: Option<(Vec<Place>, usize)>,
    result: List,
    failed: Option<CommandError>,
}

impl Sorting {
    /// A SORT that is to be done in steps; None if it is done at once, as it is when it looks at other keys or has
    /// little before it.
    pub(super) fn begin(cx: &mut Cx<'_>, sort: &Sort) -> Option<Sorting> {
        let shows_elements = sort.gets.iter().all(|get| *get == Get::Element);
        if cx.later.is_none() || !shows_elements || sort.looks_further() {
            return None;
        }
        let loc = cx.find(&sort.key)?;
        let Value::Object(object) = cx.ks.value(cx.db, loc) else { return None };
        let len = match object {
            Object::List(list) => list.len(),
            Object::Set(set) if set.expiring() == 0 => set.len(),
            Object::ZSet(zset) => zset.len(),
            _ => return None,
        };
        if len <= cx.env.at_once_max || sort.by_of(object.kind()) != By::Element {
            return None;
        }
        let source = object.clone();
        cx.read(&sort.key);
        Some(Sorting {
            sort: sort.clone(),
            source,
            len,
            place: Some(0),
            blocks: Vec::new(),
            run: Vec::new(),
            runs: VecDeque::new(),
            merging: None,
            sorted: None,
            result: List::new(),
            failed: None,
        })
    }

    /// Takes elements of the source.
    fn read(&mut self, place: u64) {
        let count = members_per_step(self.len, self.source.heap_bytes(), 1);
        let (start, end) = (place as usize, (place as usize).saturating_add(count).min(self.len));
        let next = (end < self.len).then_some(end as u64);
        // Only a clone, for the time of a step: the elements go into other fields.
        let source = std::mem::replace(&mut self.source, Object::List(List::new()));
        self.place = match &source {
            Object::List(list) => {
                list.range(start, end).for_each(|item| self.take(item));
                next
            }
            Object::Set(set) => match set.scan(place, count, |item| self.take(item)) {
                0 => None,
                cursor => Some(cursor),
            },
            Object::ZSet(zset) => {
                zset.visit(start..end, false, |member, _| self.take(Item::Bytes(member)));
                next
            }
            _ => unreachable!("looked at when it began"),
        };
        self.source = source;
        if self.place.is_none() {
            self.end_run();
        }
    }

    fn take(&mut self, item: Item<'_>) {
        if self.failed.is_some() {
            return;
        }
        let mut digits = [0; 20];
        let bytes = item.as_bytes(&mut digits);
        let score = match self.sort.alpha || self.sort.unsorted {
            true => 0.0,
            false => match score(bytes) {
                Ok(score) => score,
                Err(error) => {
                    self.failed = Some(error);
                    return;
                }
            },
        };
        let fits = |block: &Vec<u8>| block.len() + bytes.len() <= block.capacity();
        if !self.blocks.last().is_some_and(fits) {
            self.blocks.push(Vec::with_capacity(bytes.len().max(BLOCK_LEN)));
        }
        let block = self.blocks.len() as u32 - 1;
        let bytes_of = self.blocks.last_mut().expect("there is one with room");
        let start = bytes_of.len() as u32;
        bytes_of.extend_from_slice(bytes);
        self.run.push(Place { score, block, start, len: bytes.len() as u32 });
        if self.run.len() == RUN_LEN {
            self.end_run();
        }
    }

    fn end_run(&mut self) {
        let mut run = std::mem::replace(&mut self.run, Vec::with_capacity(RUN_LEN));
        run.sort_unstable_by(|one, other| self.compare(one, other));
        run.truncate(self.sort.limited(self.len).end);
        if !run.is_empty() {
            self.runs.push_back(run);
        }
    }

    fn bytes(&self, place: &Place) -> &[u8] {
        &self.blocks[place.block as usize][place.start as usize..][..place.len as usize]
    }

    fn compare(&self, one: &Place, other: &Place) -> Ordering {
        // No score is NaN, and zeros of both signs are equal.
        let ascending = one
            .score
            .partial_cmp(&other.score)
            .unwrap_or(Ordering::Equal)
            .then_with(|| self.bytes(one).cmp(self.bytes(other)));
        if self.sort.descending { ascending.reverse() } else { ascending }
    }

    /// Merges some elements of two runs.
    fn merge(&mut self, mut merging: Merging) {
        let wanted = self.sort.limited(self.len).end;
        for _ in 0..MOVED_PER_STEP {
            let [one, other] = [0, 1].map(|run| merging.runs[run].get(merging.at[run]));
            let from = match (one, other) {
                (Some(one), Some(other)) => usize::from(self.compare(one, other) == Ordering::Greater),
                (Some(_), None) => 0,
                (None, Some(_)) => 1,
                (None, None) => break,
            };
            if merging.merged.len() == wanted {
                break;
            }
            merging.merged.push(merging.runs[from][merging.at[from]]);
            merging.at[from] += 1;
        }
        let is_over =
            merging.merged.len() == wanted || (0..2).all(|run| merging.at[run] == merging.runs[run].len());
        if is_over {
            self.runs.push_back(merging.merged);
        } else {
            self.merging = Some(merging);
        }
    }

    /// Takes some sorted elements into the result.
    fn show(&mut self, sorted: Vec<Place>, from: usize) {
        let copies = self.sort.gets.len().max(1);
        let mut result = std::mem::take(&mut self.result);
        let to = from.saturating_add((MOVED_PER_STEP / copies).max(1)).min(sorted.len());
        for place in &sorted[from..to] {
            (0..copies).for_each(|_| result.push_back(self.bytes(place)));
        }
        (self.result, self.sorted) = (result, Some((sorted, to)));
    }
}

impl Task for Sorting {
    fn target(&self) -> Option<&[u8]> {
        self.sort.target()
    }

    fn step(&mut self) -> bool {
        if self.failed.is_some() {
            return true;
        }
        if let Some(place) = self.place {
            self.read(place);
        } else if let Some(merging) = self.merging.take() {
            self.merge(merging);
        } else if let Some((sorted, shown)) = self.sorted.take() {
            self.show(sorted, shown);
        } else {
            match (self.runs.pop_front(), self.runs.pop_front()) {
                (Some(one), Some(other)) => {
                    let merged = Vec::with_capacity(one.len() + other.len());
                    self.merging = Some(Merging { runs: [one, other], at: [0; 2], merged });
                }
                (last, _) => {
                    let sorted = last.unwrap_or_default();
                    let start = self.sort.limited(self.len).start.min(sorted.len());
                    self.sorted = Some((sorted, start));
                }
            }
        }
        self.sorted.as_ref().is_some_and(|(sorted, shown)| *shown == sorted.len())
    }

    fn finish(&mut self, cx: &mut Cx<'_>) -> CmdResult {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        let list = std::mem::take(&mut self.result);
        if self.sort.store.is_some() {
            self.sort.store_list(cx, list);
            return Ok(());
        }
        let len = list.len();
        cx.out.array(len);
        let size = (len, len, list.heap_bytes());
        if !put_aside(&mut cx.later, cx.out.proto(), &list, size, || Walk::Elements(0..len)) {
            list.iter().for_each(|item| match item {
                Item::Bytes(bytes) => cx.out.bulk(bytes),
                Item::Int(number) => cx.out.bulk_int(number),
            });
        }
        self.result = list;
        Ok(())
    }

    fn into_held(self: Box<Self>) -> Vec<Object> {
        vec![self.source, self.result.wrap()]
    }
}
