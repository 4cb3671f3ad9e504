//! A SORT under way.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::ops::Range;

use damselfly_keyspace::values::set::Set;
use damselfly_keyspace::{Collection, Item, List, Object, PastId, Type, Value};

use super::{By, Get, Sort, score};
use crate::long::Written;
use crate::past::{Told, Wanted};
use crate::sorter::{Element, Sorter};
use crate::task::{Task, members_per_step};
use crate::{CmdResult, CommandError, Cx};

/// What is taken into the result in one step, of what is at hand and of what other keys hold.
const SHOWN_PER_STEP: usize = 512;
const LOOKED_UP_PER_STEP: usize = 256;

/// To look a key up takes as long as so many members that are only looked at.
const LOOKS_PER_KEY: usize = 8;

/// What is done next.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Elements of the source are taken: with a set, from a cursor on.
    Reading { cursor: u64 },
    /// Those that were taken are brought into their order.
    Ordering,
    /// Those in order are taken into the result, from a number on.
    Showing(usize),
    /// Nothing but the end.
    Over,
}

/// The result as far as there is any.
enum Shown {
    /// How many strings and nulls it has, and what was written of them.
    Reply(usize, Written),
    /// To be stored.
    List(List),
}

/// See the module's head.
pub(super) struct Sorting {
    sort: Sort,
    past: Option<PastId>,
    source: Object,
    by: By,
    /// Which elements of the source are still to be taken, by the order in which they come.
    span: Range<usize>,
    phase: Phase,
    sorter: Sorter,
    /// Elements that wait for what their keys hold, and these keys until they are asked for.
    waiting: VecDeque<Vec<u8>>,
    wanted: Vec<Wanted>,
    /// What was found for the first of them.
    found: VecDeque<Told>,
    shown: Shown,
    failed: Option<CommandError>,
}

impl Sorting {
    /// Begins with the source as it is now. The past is where other keys are looked up.
    pub(super) fn open(cx: &mut Cx<'_>, sort: &Sort, past: Option<PastId>) -> Result<Sorting, CommandError> {
        let source = match cx.read(&sort.key) {
            Some(loc) if cx.ks.is_left::<Set>(cx.db, loc) => match cx.ks.value(cx.db, loc) {
                Value::Object(source @ (Object::List(_) | Object::Set(_) | Object::ZSet(_))) => {
                    source.clone()
                }
                _ => return Err(CommandError::WrongType),
            },
            _ => List::new().wrap(),
        };
        let by = sort.by_of(source.kind());
        let len = len_of(&source);
        let limited = sort.limited(len);
        let shown = match sort.store {
            Some(_) => Shown::List(List::new()),
            None => Shown::Reply(0, Written::new(cx.out.proto())),
        };
        Ok(Sorting {
            sort: sort.clone(),
            past,
            source,
            by,
            sorter: Sorter::new(limited.end),
            span: if by == By::Nothing { limited } else { 0..len },
            phase: Phase::Reading { cursor: 0 },
            waiting: VecDeque::new(),
            wanted: Vec::new(),
            found: VecDeque::new(),
            shown,
            failed: None,
        })
    }

    /// Whether it takes longer than to look at so many members.
    pub(super) fn takes_long(&self, at_once_max: usize) -> bool {
        // In a set it is a way to the first of them.
        let visited = if self.source.kind() == Type::Set { self.span.end } else { self.span.len() };
        let looks = if self.sort.looks_further() { LOOKS_PER_KEY } else { 1 };
        visited.saturating_mul(looks) > at_once_max
    }

    /// Does it all now.
    pub(super) fn run(mut self, cx: &mut Cx<'_>) -> CmdResult {
        while !self.step() {
            let wanted = self.asks();
            if !wanted.is_empty() {
                self.told(wanted.iter().map(|wanted| wanted.fetch(cx)).collect());
            }
        }
        self.finish(cx)
    }

    /// Whether elements are compared byte by byte. A set that is stored unsorted is.
    fn is_alpha(&self) -> bool {
        self.sort.alpha || self.sort.unsorted
    }

    /// Takes the next elements of the source.
    fn read(&mut self, cursor: u64) {
        let len = len_of(&self.source);
        let count = members_per_step(len, self.source.heap_bytes(), 1);
        // Only a clone, for the time of a step: the elements go into other fields.
        let source = std::mem::replace(&mut self.source, Object::List(List::new()));
        let reverse = self.by == By::Nothing && self.sort.descending;
        let start = self.span.start;
        let end = start.saturating_add(count).min(self.span.end);
        let place = if reverse { len - end..len - start } else { start..end };
        let mut next = 0;
        match &source {
            Object::List(list) if reverse => {
                list.range(place.start, place.end).rev().for_each(|item| self.take(item));
                self.span.start = end;
            }
            Object::List(list) => {
                list.range(place.start, place.end).for_each(|item| self.take(item));
                self.span.start = end;
            }
            Object::ZSet(zset) => {
                zset.visit(place, reverse, |member, _| self.take(Item::Bytes(member)));
                self.span.start = end;
            }
            Object::Set(set) => {
                // Members before the first one count down what is left before it.
                next = set.scan(cursor, count, |item| {
                    if self.span.start > 0 && self.by == By::Nothing {
                        self.span = self.span.start - 1..self.span.end - 1;
                    } else if !self.span.is_empty() {
                        self.span.end -= 1;
                        self.take(item);
                    }
                });
                if next == 0 {
                    self.span = 0..0;
                }
            }
            _ => unreachable!("looked at when it began"),
        }
        self.source = source;
        self.phase = match self.by {
            _ if !self.span.is_empty() => Phase::Reading { cursor: next },
            By::Nothing => Phase::Over,
            By::Element | By::Weight => Phase::Ordering,
        };
    }

    fn take(&mut self, item: Item<'_>) {
        let mut digits = [0; 20];
        let element = item.as_bytes(&mut digits);
        match self.by {
            By::Nothing if self.sort.gets_keys() => self.wait_for_results(element.to_vec()),
            By::Nothing => show(&mut self.shown, &self.sort.gets, element, &mut std::iter::empty()),
            By::Element if self.is_alpha() => self.add(0.0, &[element]),
            By::Element => {
                let score = match item {
                    // The nearest double, as its digits would make.
                    Item::Int(number) => Ok(number as f64),
                    Item::Bytes(text) => score(text),
                };
                match score {
                    Ok(score) => self.add(score, &[element]),
                    Err(error) => self.failed = Some(error),
                }
            }
            By::Weight => {
                self.wanted.extend(self.sort.by.as_ref().map(|pattern| pattern.wanted(element)));
                self.waiting.push_back(element.to_vec());
            }
        }
    }

    fn add(&mut self, score: f64, parts: &[&[u8]]) {
        let order = Order::of(self);
        self.sorter.add(score, parts, |one, other| order.compare(one, other));
    }

    fn wait_for_results(&mut self, element: Vec<u8>) {
        self.wanted.extend(self.sort.results_wanted(&element));
        self.waiting.push_back(element);
    }

    /// Adds an element with what its key holds.
    fn weigh(&mut self, element: &[u8], weight: Option<&[u8]>) {
        if !self.is_alpha() {
            return match weight.map_or(Ok(0.0), score) {
                Ok(score) => self.add(score, &[element]),
                Err(error) => self.failed = Some(error),
            };
        }
        // The last byte makes sure that there is one, and so the numbers differ.
        match weight {
            Some(weight) => self.add(weight.len() as f64, &[weight, element, &[0]]),
            None => self.add(NO_WEIGHT, &[element, &[0]]),
        }
    }

    /// Takes some sorted elements into the result.
    fn show(&mut self, from: usize) {
        let copies = self.sort.gets.len().max(1);
        let count = if self.sort.gets_keys() { LOOKED_UP_PER_STEP } else { SHOWN_PER_STEP };
        let to = from.saturating_add((count / copies).max(1)).min(self.sorter.len());
        let order = Order::of(self);
        for at in from..to {
            let element = order.element(self.sorter.get(at));
            if self.sort.gets_keys() {
                self.wanted.extend(self.sort.results_wanted(element));
                self.waiting.push_back(element.to_vec());
            } else {
                show(&mut self.shown, &self.sort.gets, element, &mut std::iter::empty());
            }
        }
        self.phase = if to < self.sorter.len() { Phase::Showing(to) } else { Phase::Over };
    }
}

fn len_of(source: &Object) -> usize {
    match source {
        Object::List(list) => list.len(),
        Object::Set(set) => set.len(),
        Object::ZSet(zset) => zset.len(),
        _ => unreachable!("looked at when it began"),
    }
}

/// Takes what GET makes of an element into the result.
fn show(shown: &mut Shown, gets: &[Get], element: &[u8], found: &mut impl Iterator<Item = Told>) {
    let mut put = |bytes: Option<&[u8]>| match shown {
        Shown::List(list) => list.push_back(bytes.unwrap_or_default()),
        Shown::Reply(count, written) => {
            *count += 1;
            written.write(|out| match bytes {
                Some(bytes) => out.bulk(bytes),
                None => out.null(),
            });
        }
    };
    if gets.is_empty() {
        put(Some(element));
    }
    for get in gets {
        match get {
            Get::Element => put(Some(element)),
            Get::Key(_) => put(found.next().and_then(Told::text).as_deref()),
            Get::Null => put(None),
        }
    }
}

/// Stands for the length of the weight that an element has not.
const NO_WEIGHT: f64 = -1.0;

/// How those in the sorter are compared.
#[derive(Clone, Copy)]
struct Order {
    /// Each has its weight before its own bytes, and the weight's length as score.
    by_text: bool,
    descending: bool,
}

impl Order {
    fn of(sorting: &Sorting) -> Order {
        let by_text = sorting.by == By::Weight && sorting.is_alpha();
        Order { by_text, descending: sorting.sort.descending }
    }

    fn compare(self, one: Element<'_>, other: Element<'_>) -> Ordering {
        let ascending = match self.by_text {
            true => weight(one).cmp(&weight(other)),
            // No score is NaN, and zeros of both signs are equal.
            false => one
                .score
                .partial_cmp(&other.score)
                .unwrap_or(Ordering::Equal)
                .then_with(|| one.bytes.cmp(other.bytes)),
        };
        let ordered = if self.descending { ascending.reverse() } else { ascending };
        // Those with the same text keep their order.
        if self.by_text { ordered.then(one.number.cmp(&other.number)) } else { ordered }
    }

    /// The bytes of an element itself.
    fn element(self, element: Element<'_>) -> &[u8] {
        match self.by_text {
            true => &element.bytes[weight(element).map_or(0, <[u8]>::len)..element.bytes.len() - 1],
            false => element.bytes,
        }
    }
}

fn weight(element: Element<'_>) -> Option<&[u8]> {
    (element.score != NO_WEIGHT).then(|| &element.bytes[..element.score as usize])
}

impl Task for Sorting {
    fn target(&self) -> Option<&[u8]> {
        self.sort.target()
    }

    fn past(&self) -> Option<PastId> {
        self.past
    }

    fn step(&mut self) -> bool {
        match self.phase {
            Phase::Reading { cursor } => self.read(cursor),
            Phase::Ordering => {
                let order = Order::of(self);
                if self.sorter.step(|one, other| order.compare(one, other)) {
                    self.phase =
                        Phase::Showing(self.sort.limited(self.sorter.added()).start.min(self.sorter.len()));
                }
            }
            Phase::Showing(from) => self.show(from),
            Phase::Over => {}
        }
        self.failed.is_some() || self.phase == Phase::Over && self.waiting.is_empty()
    }

    fn asks(&mut self) -> Vec<Wanted> {
        std::mem::take(&mut self.wanted)
    }

    fn told(&mut self, found: Vec<Told>) {
        self.found.extend(found);
        let weighs = self.by == By::Weight && matches!(self.phase, Phase::Reading { .. } | Phase::Ordering);
        let per_element = if weighs { 1 } else { self.sort.gets_per_element() };
        while self.found.len() >= per_element
            && let Some(element) = self.waiting.pop_front()
        {
            if weighs {
                let weight = self.found.pop_front().and_then(Told::text);
                self.weigh(&element, weight.as_deref());
            } else {
                show(&mut self.shown, &self.sort.gets, &element, &mut self.found.drain(..per_element));
            }
        }
    }

    fn finish(&mut self, cx: &mut Cx<'_>) -> CmdResult {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        match &mut self.shown {
            Shown::List(list) => self.sort.store_list(cx, std::mem::take(list)),
            Shown::Reply(count, written) => {
                cx.out.array(*count);
                written.reply(cx);
            }
        }
        Ok(())
    }

    fn into_held(self: Box<Self>) -> Vec<Object> {
        let shown = match self.shown {
            Shown::List(list) => list.wrap(),
            Shown::Reply(_, written) => written.into_held(),
        };
        vec![self.source, shown]
    }
}
