//! SORT of many elements by themselves, in steps.

use std::cmp::Ordering;

use damselfly_keyspace::{Collection, Item, List, Object, Value};

use super::{By, Get, Sort, score};
use crate::long::{Walk, put_aside};
use crate::sorter::{Element, Sorter};
use crate::task::{Task, members_per_step};
use crate::{CmdResult, CommandError, Cx};

/// Elements taken into the result in one step.
const SHOWN_PER_STEP: usize = 512;

/// A SORT under way.
pub(super) struct Sorting {
    sort: Sort,
    source: Object,
    len: usize,
    /// How far the source was read: a number of elements or a cursor; None at its end.
    place: Option<u64>,
    sorter: Sorter,
    /// How many of those that were sorted are in the result; None before they are sorted.
    shown: Option<usize>,
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
            sorter: Sorter::new(sort.limited(len).end),
            shown: None,
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
        let sort = &self.sort;
        self.sorter.add(score, &[bytes], |one, other| compare(sort, one, other));
    }

    /// Takes some sorted elements into the result.
    fn show(&mut self, from: usize) {
        let copies = self.sort.gets.len().max(1);
        let to = from.saturating_add((SHOWN_PER_STEP / copies).max(1)).min(self.sorter.len());
        for at in from..to {
            (0..copies).for_each(|_| self.result.push_back(self.sorter.get(at).bytes));
        }
        self.shown = Some(to);
    }
}

fn compare(sort: &Sort, one: Element<'_>, other: Element<'_>) -> Ordering {
    // No score is NaN, and zeros of both signs are equal.
    let ascending = one
        .score
        .partial_cmp(&other.score)
        .unwrap_or(Ordering::Equal)
        .then_with(|| one.bytes.cmp(other.bytes));
    if sort.descending { ascending.reverse() } else { ascending }
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
            return false;
        }
        match self.shown {
            Some(shown) => self.show(shown),
            None => {
                let sort = &self.sort;
                if self.sorter.step(|one, other| compare(sort, one, other)) {
                    self.shown = Some(self.sort.limited(self.len).start.min(self.sorter.len()));
                }
            }
        }
        self.shown == Some(self.sorter.len())
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
        if !put_aside(&mut cx.later, cx.out.proto(), &list, size, || Walk::Elements {
            range: 0..len,
            reverse: false,
        }) {
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
