//! Elements brought into an order, in steps: runs are sorted one by one, then merged two by two.
//!
//! The elements' bytes are in blocks and what is sorted are numbers, so nothing has to be freed one by one. Where few
//! are wanted, every run is cut to what it can contribute.

use std::cmp::Ordering;
use std::collections::VecDeque;

/// Elements sorted at once: about a tenth of a millisecond's work.
const RUN_LEN: usize = 512;
/// Elements merged in one step.
const MERGED_PER_STEP: usize = 512;
/// Bytes of a block of elements; a longer element has one of its own. The first one is small, as most sorts are.
const BLOCK_LEN: usize = 64 * 1024;
const FIRST_BLOCK_LEN: usize = 1024;

/// An element by its place in the blocks.
#[derive(Clone, Copy)]
struct Place {
    score: f64,
    block: u32,
    start: u32,
    len: u32,
}

/// An element as it is compared.
#[derive(Clone, Copy)]
pub(crate) struct Element<'a> {
    pub(crate) score: f64,
    pub(crate) bytes: &'a [u8],
    /// Ascends with those that were added, unless they have no bytes.
    pub(crate) number: u64,
}

/// Two runs on their way to become one.
struct Merging {
    runs: [Vec<Place>; 2],
    at: [usize; 2],
    merged: Vec<Place>,
}

/// See the module's head. All calls are to be given the same order.
pub(crate) struct Sorter {
    /// How many, from the first on, are asked for.
    wanted: usize,
    added: usize,
    blocks: Vec<Vec<u8>>,
    run: Vec<Place>,
    runs: VecDeque<Vec<Place>>,
    merging: Option<Merging>,
    sorted: Option<Vec<Place>>,
}

impl Sorter {
    pub(crate) fn new(wanted: usize) -> Sorter {
        Sorter {
            wanted,
            added: 0,
            blocks: Vec::new(),
            run: Vec::new(),
            runs: VecDeque::new(),
            merging: None,
            sorted: None,
        }
    }

    /// Adds an element whose bytes are these together.
    pub(crate) fn add(
        &mut self,
        score: f64,
        parts: &[&[u8]],
        compare: impl Fn(Element<'_>, Element<'_>) -> Ordering,
    ) {
        let len = parts.iter().map(|part| part.len()).sum::<usize>();
        let fits = |block: &Vec<u8>| block.len() + len <= block.capacity();
        if !self.blocks.last().is_some_and(fits) {
            let block_len = if self.blocks.is_empty() { FIRST_BLOCK_LEN } else { BLOCK_LEN };
            self.blocks.push(Vec::with_capacity(len.max(block_len)));
        }
        let block = self.blocks.len() as u32 - 1;
        let bytes = self.blocks.last_mut().expect("there is one with room");
        let start = bytes.len() as u32;
        parts.iter().for_each(|part| bytes.extend_from_slice(part));
        self.added += 1;
        self.run.push(Place { score, block, start, len: len as u32 });
        if self.run.len() == RUN_LEN {
            self.end_run(compare);
        }
    }

    fn end_run(&mut self, compare: impl Fn(Element<'_>, Element<'_>) -> Ordering) {
        // After a full one comes another.
        let room = if self.run.len() == RUN_LEN { RUN_LEN } else { 0 };
        let mut run = std::mem::replace(&mut self.run, Vec::with_capacity(room));
        let compare = |one: &Place, other: &Place| compare(self.element(one), self.element(other));
        if self.wanted < run.len() {
            run.select_nth_unstable_by(self.wanted, compare);
            run.truncate(self.wanted);
        }
        run.sort_unstable_by(compare);
        if !run.is_empty() {
            self.runs.push_back(run);
        }
    }

    fn element(&self, place: &Place) -> Element<'_> {
        Element {
            score: place.score,
            bytes: &self.blocks[place.block as usize][place.start as usize..][..place.len as usize],
            number: u64::from(place.block) << 32 | u64::from(place.start),
        }
    }

    /// Does a step of what is to be done when all were added; true if nothing is left.
    pub(crate) fn step(&mut self, compare: impl Fn(Element<'_>, Element<'_>) -> Ordering) -> bool {
        if !self.run.is_empty() {
            self.end_run(compare);
        } else if let Some(merging) = self.merging.take() {
            self.merge(merging, compare);
        } else if self.sorted.is_none() {
            match (self.runs.pop_front(), self.runs.pop_front()) {
                (Some(one), Some(other)) => {
                    let merged = Vec::with_capacity(one.len() + other.len());
                    self.merging = Some(Merging { runs: [one, other], at: [0; 2], merged });
                }
                (last, _) => self.sorted = Some(last.unwrap_or_default()),
            }
        }
        self.sorted.is_some()
    }

    /// Merges some elements of two runs.
    fn merge(&mut self, mut merging: Merging, compare: impl Fn(Element<'_>, Element<'_>) -> Ordering) {
        for _ in 0..MERGED_PER_STEP {
            let [one, other] = [0, 1].map(|run| merging.runs[run].get(merging.at[run]));
            let from = match (one, other) {
                (Some(one), Some(other)) => {
                    usize::from(compare(self.element(one), self.element(other)) == Ordering::Greater)
                }
                (Some(_), None) => 0,
                (None, Some(_)) => 1,
                (None, None) => break,
            };
            if merging.merged.len() == self.wanted {
                break;
            }
            merging.merged.push(merging.runs[from][merging.at[from]]);
            merging.at[from] += 1;
        }
        let is_over = merging.merged.len() == self.wanted
            || (0..2).all(|run| merging.at[run] == merging.runs[run].len());
        if is_over {
            self.runs.push_back(merging.merged);
        } else {
            self.merging = Some(merging);
        }
    }

    /// How many were added.
    pub(crate) fn added(&self) -> usize {
        self.added
    }

    /// How many there are when all is done.
    pub(crate) fn len(&self) -> usize {
        self.sorted.as_ref().map_or(0, Vec::len)
    }

    /// The element of this number, when all is done.
    pub(crate) fn get(&self, at: usize) -> Element<'_> {
        self.element(&self.sorted.as_ref().expect("all steps were done")[at])
    }
}
