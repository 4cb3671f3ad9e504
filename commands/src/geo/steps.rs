//! A search among many members, in steps: they are looked at in the order of the ranges and shown or stored as they are
//! found; where an order is asked for, they are sorted in between.

use std::cmp::Ordering;
use std::ops::Range;

use damselfly_keyspace::Object;
use damselfly_keyspace::values::PackLimits;
use damselfly_keyspace::values::zset::SortedSet;
use damselfly_protocol::Proto;
use damselfly_sketches::geo::Search;

use super::{Hit, Order, Query, ranks, visit_hits};
use crate::long::Written;
use crate::sorter::{Element, Sorter};
use crate::task::{Task, members_per_step};
use crate::{CmdResult, Cx};

/// Sorted hits that are shown or stored in one step.
const SHOWN_PER_STEP: usize = 256;

/// See the module's head.
pub(super) struct Searching {
    source: SortedSet,
    area: Search,
    /// The ranks that are still to be looked at, the last range first.
    ranks: Vec<Range<usize>>,
    /// The hits, if they are to be sorted, and how many of them were shown.
    sorter: Option<(Sorter, Order, usize)>,
    /// Hits so far.
    found: usize,
    shown: Shown,
}

/// What becomes of the hits.
struct Shown {
    query: Query,
    event: &'static str,
    count: usize,
    written: Written,
    result: SortedSet,
    seed: u64,
    limits: PackLimits,
}

impl Shown {
    fn add(&mut self, hit: Hit<&[u8]>) {
        self.count += 1;
        if self.query.store.is_some() {
            self.result.insert(self.seed, hit.member, self.query.stored_score(hit), self.limits);
        } else {
            self.written.write(|out| self.query.reply(out, hit));
        }
    }
}

impl Searching {
    pub(super) fn new(
        set: &SortedSet,
        area: Search,
        query: Query,
        event: &'static str,
        proto: Proto,
        (seed, limits): (u64, PackLimits),
    ) -> Searching {
        let mut ranks: Vec<Range<usize>> = ranks(set, area).filter(|ranks| !ranks.is_empty()).collect();
        ranks.reverse();
        let wanted = if query.count > 0 { query.count } else { usize::MAX };
        let sorter = query.order.map(|order| (Sorter::new(wanted), order, 0));
        let (written, result) = (Written::new(proto), SortedSet::default());
        let shown = Shown { query, event, count: 0, written, result, seed, limits };
        Searching { source: set.clone(), area, ranks, sorter, found: 0, shown }
    }

    /// Looks at some members; true if enough are found.
    fn look(&mut self, mut ranks: Range<usize>) -> bool {
        let count = members_per_step(self.source.len(), self.source.heap_bytes(), 1).min(ranks.len());
        let enough = match self.shown.query.enough() {
            0 => usize::MAX,
            enough => enough,
        };
        let Searching { source, area, sorter, found, shown, .. } = self;
        visit_hits(source, *area, ranks.start..ranks.start + count, |hit| {
            if *found == enough {
                return;
            }
            *found += 1;
            match sorter {
                Some((sorter, order, _)) => {
                    let bytes = hit.score.to_bits().to_le_bytes();
                    sorter.add(hit.distance, &[&bytes, hit.member], |one, other| compare(*order, one, other));
                }
                None => shown.add(hit),
            }
        });
        ranks.start += count;
        if !ranks.is_empty() {
            self.ranks.push(ranks);
        }
        self.found == enough
    }
}

/// Of those equally far, those found first come first.
fn compare(order: Order, one: Element<'_>, other: Element<'_>) -> Ordering {
    order.compare(one.score, other.score).then(one.number.cmp(&other.number))
}

/// What the sorter was given.
fn hit(element: Element<'_>) -> Hit<&[u8]> {
    let (score, member) = element.bytes.split_first_chunk().expect("a score is in front of the member");
    Hit { member, score: f64::from_bits(u64::from_le_bytes(*score)), distance: element.score }
}

impl Task for Searching {
    fn target(&self) -> Option<&[u8]> {
        self.shown.query.store.as_deref()
    }

    fn step(&mut self) -> bool {
        if let Some(ranks) = self.ranks.pop() {
            if self.look(ranks) {
                self.ranks.clear();
            }
            return self.ranks.is_empty() && self.sorter.is_none();
        }
        let Some((sorter, order, at)) = &mut self.sorter else { return true };
        if !sorter.step(|one, other| compare(*order, one, other)) {
            return false;
        }
        let end = (*at + SHOWN_PER_STEP).min(sorter.len());
        for at in *at..end {
            self.shown.add(hit(sorter.get(at)));
        }
        *at = end;
        end == sorter.len()
    }

    fn finish(&mut self, cx: &mut Cx<'_>) -> CmdResult {
        let shown = &mut self.shown;
        match &shown.query.store {
            Some(key) => crate::zset::store(cx, key, std::mem::take(&mut shown.result), shown.event),
            None => {
                cx.out.array(shown.count);
                shown.written.reply(cx);
            }
        }
        Ok(())
    }

    fn into_held(self: Box<Self>) -> Vec<Object> {
        let Searching { source, shown, .. } = *self;
        vec![Object::ZSet(source), Object::ZSet(shown.result), shown.written.into_held()]
    }
}
