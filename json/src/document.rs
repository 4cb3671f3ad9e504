//! A document: a value, what it weighs, and the operations of the JSON.* commands on it.
//!
//! Readers answer with one item per match of the path, in order; writers too, with `None` for a match of the wrong
//! type. How the command layer turns that into a reply for either dialect of paths is told at the head of the crate.
//!
//! A writer works in three steps: find the places of all matches, check everything that can fail, change. So a
//! command that fails has changed nothing. Places are changed from the last to the first, contents before their
//! containers, so that a change cannot move a place that is still to come. Writers that replace or remove whole
//! values skip matches inside other matches.

use crate::parse::{self, ParseError};
use crate::path::{Node, Path, Step, TooManyMatches, place, select};
use crate::value::{DEPTH_MAX, Member, Value, View};
use crate::write::{Format, write_line, write_text};
use damselfly_structures::moves::{AT_ONCE_MAX, Mover};
use std::fmt;

/// Most bytes that one command may add to a document by putting a value in many places, and about the longest text
/// that JSON.GET gives: the match that crosses it is still written.
pub const GROWTH_MAX: usize = 512 << 20;

/// Most places that one command may change.
pub const TARGETS_MAX: usize = 1 << 20;

/// Why an operation was not done. The document is as before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JsonError {
    /// The path selects more than the budget allows; see [`crate::path`].
    TooManyMatches,
    /// The result would be nested deeper than [`DEPTH_MAX`].
    Depth,
    /// The result would be larger by more than [`GROWTH_MAX`].
    TooLarge,
    /// There is nothing at the path, and nothing can be put there: its parent is missing or of the wrong type, or
    /// it does not name one place.
    NoPlace,
    /// An index outside an array.
    OutOfRange,
    /// The argument is no number.
    NotNumber,
    /// The result is no finite number.
    Overflow,
    /// A legacy path of JSON.GET matches nothing.
    NoMatch,
}

impl fmt::Display for JsonError {
    /// The text of the error reply, without `ERR` except where another code goes in its place.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            JsonError::TooManyMatches => "JSON path matches too many values",
            JsonError::Depth => "JSON value is nested too deep",
            JsonError::TooLarge => "JSON value is too large",
            JsonError::NoPlace => "syntax error",
            JsonError::OutOfRange => "index out of range",
            JsonError::NotNumber => "WRONGTYPE Operation against a key holding the wrong kind of value",
            JsonError::Overflow => "result is not a number",
            JsonError::NoMatch => "invalid JSON path",
        })
    }
}

impl std::error::Error for JsonError {}

impl From<TooManyMatches> for JsonError {
    fn from(_: TooManyMatches) -> JsonError {
        JsonError::TooManyMatches
    }
}

/// NX and XX of JSON.SET.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Neither.
    Always,
    /// NX: only where nothing is.
    IfAbsent,
    /// XX: only where something is.
    IfPresent,
}

/// What JSON.DEL did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// The path is the root: the key goes. The document was not touched.
    Root,
    /// So many values were removed.
    Values(usize),
}

/// JSON.NUMINCRBY or JSON.NUMMULTBY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// Plus.
    Add,
    /// Times.
    Multiply,
}

/// A JSON document.
#[derive(Clone, Debug)]
pub struct Document {
    root: Value,
    heap_bytes: usize,
}

/// The places of matches, to be changed.
struct Targets {
    places: Vec<Vec<u32>>,
    /// Indexes into `places`, from the end of the document to its beginning.
    backwards: Vec<usize>,
}

impl Document {
    /// Reads a text.
    pub fn parse(text: &[u8]) -> Result<Document, ParseError> {
        parse::parse(text).map(Document::from_value)
    }

    /// A document of a value.
    pub fn from_value(root: Value) -> Document {
        let heap_bytes = root.heap_bytes();
        Document { root, heap_bytes }
    }

    /// The value.
    pub fn root(&self) -> &Value {
        &self.root
    }

    /// Bytes taken from the allocator. Parts shared with a clone are counted by both.
    pub fn heap_bytes(&self) -> usize {
        self.heap_bytes
    }

    /// Gives allocations other addresses; see [`Mover`]. In one step, so those of long documents stay: they were made in one
    /// step, too, and are in pages of their own for the most part.
    pub fn relocate(&mut self, mover: &mut Mover<'_>) {
        if self.heap_bytes <= AT_ONCE_MAX {
            self.root.relocate(mover);
        }
    }

    /// The text, as it is stored in snapshots and given by JSON.GET without a path.
    pub fn to_json(&self) -> Vec<u8> {
        self.root.to_json()
    }

    /// The matches of a path.
    pub fn get(&self, path: &Path) -> Result<Vec<&Value>, JsonError> {
        let (nodes, _) = select(&self.root, self.heap_bytes, path.segments(), false)?;
        Ok(nodes.into_iter().map(|node| node.value).collect())
    }

    /// JSON.GET with paths (given with their texts): the reply's text.
    ///
    /// One path gives its result; several give an object of results by path. The result of a path is the array of
    /// its matches, or, if all paths are legacy ones, the last match alone, which then must exist. After an error
    /// nothing was appended.
    pub fn write_get(
        &self,
        paths: &[(&str, Path)],
        format: &Format<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), JsonError> {
        let start = out.len();
        let result = self.write_results(paths, format, out);
        if result.is_err() {
            out.truncate(start);
        }
        result
    }

    fn write_results(
        &self,
        paths: &[(&str, Path)],
        format: &Format<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), JsonError> {
        let legacy = paths.iter().all(|(_, path)| path.is_legacy());
        let write = |path: &Path, level: usize, out: &mut Vec<u8>| {
            let matches = self.get(path)?;
            if !legacy {
                return write_matches(&matches, format, level, out);
            }
            matches.last().ok_or(JsonError::NoMatch)?.write_at(format, level, out);
            Ok(())
        };
        if let [(_, path)] = paths {
            return write(path, 0, out);
        }
        // Sorted and without repetition, as any object.
        let mut paths: Vec<_> = paths.iter().collect();
        paths.sort_by_key(|(text, _)| *text);
        paths.dedup_by_key(|(text, _)| *text);
        out.push(b'{');
        for (at, (text, path)) in paths.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            write_line(format, 1, out);
            write_text(text.as_bytes(), out);
            out.push(b':');
            out.extend_from_slice(format.space);
            write(path, 1, out)?;
        }
        write_line(format, 0, out);
        out.push(b'}');
        Ok(())
    }

    /// What JSON.GET with one path shows, as a value to be written: of many matches, and of big ones, it is only begun.
    pub fn shown(&self, path: &Path) -> Result<Value, JsonError> {
        let matches = self.get(path)?;
        if path.is_legacy() {
            return matches.last().map(|value| (*value).clone()).ok_or(JsonError::NoMatch);
        }
        Ok(Value::from_elements(matches.into_iter().cloned().collect()))
    }

    /// JSON.MGET for one document: like [`Document::write_get`] with one path, in the compact form; `None` if a
    /// legacy path matches nothing.
    pub fn mget(&self, path: &Path) -> Result<Option<Vec<u8>>, JsonError> {
        let matches = self.get(path)?;
        if path.is_legacy() {
            return Ok(matches.last().map(|value| value.to_json()));
        }
        let mut out = Vec::new();
        write_matches(&matches, &Format::default(), 0, &mut out)?;
        Ok(Some(out))
    }

    /// JSON.TYPE.
    pub fn types(&self, path: &Path) -> Result<Vec<&'static str>, JsonError> {
        Ok(self.get(path)?.into_iter().map(Value::type_name).collect())
    }

    /// JSON.STRLEN, in bytes.
    pub fn string_lengths(&self, path: &Path) -> Result<Vec<Option<usize>>, JsonError> {
        self.each(path, |value| match value.view() {
            View::Text(text) => Some(text.len()),
            _ => None,
        })
    }

    /// JSON.ARRLEN.
    pub fn array_lengths(&self, path: &Path) -> Result<Vec<Option<usize>>, JsonError> {
        self.each(path, |value| match value.view() {
            View::Array(elements) => Some(elements.len()),
            _ => None,
        })
    }

    /// JSON.OBJLEN.
    pub fn object_lengths(&self, path: &Path) -> Result<Vec<Option<usize>>, JsonError> {
        self.each(path, |value| match value.view() {
            View::Object(members) => Some(members.len()),
            _ => None,
        })
    }

    /// JSON.OBJKEYS.
    pub fn object_keys(&self, path: &Path) -> Result<Vec<Option<Vec<&str>>>, JsonError> {
        let mut left = self.visits();
        let mut all = Vec::new();
        for value in self.get(path)? {
            left = left.checked_sub(value.children()).ok_or(JsonError::TooManyMatches)?;
            all.push(match value.view() {
                View::Object(members) => Some(members.iter().map(Member::name).collect()),
                _ => None,
            });
        }
        Ok(all)
    }

    /// JSON.ARRINDEX: the place of the first equal element from `start` to `end` (included; 0 is the end), -1 if
    /// there is none.
    pub fn array_index(
        &self,
        path: &Path,
        wanted: &Value,
        start: i64,
        end: i64,
    ) -> Result<Vec<Option<i64>>, JsonError> {
        let mut left = self.visits();
        let mut exhausted = false;
        let found = self.each(path, |value| {
            let View::Array(elements) = value.view() else { return None };
            let len = elements.len();
            match left.checked_sub(len) {
                Some(now) => left = now,
                None => exhausted = true,
            }
            if exhausted {
                return None;
            }
            let from_end_beyond = start < 0 && start.unsigned_abs() > len as u64;
            let first = at_least_zero(start, len);
            let last = if end == 0 { len } else { at_least_zero(end, len) };
            if len == 0 || from_end_beyond || (first >= len && last < len) {
                return Some(-1);
            }
            // A start beyond the end is the last element, unless the end says otherwise.
            let (first, last) = (first.min(len - 1), last.min(len - 1));
            let found = (first..=last).find(|at| elements[*at].same(wanted));
            Some(found.map_or(-1, |at| at as i64))
        })?;
        if exhausted { Err(JsonError::TooManyMatches) } else { Ok(found) }
    }

    /// JSON.DEBUG MEMORY.
    pub fn memory(&self, path: &Path) -> Result<Vec<usize>, JsonError> {
        let matches = self.get(path)?;
        // Each match weighs what is below it: nested matches would make that quadratic, so it is bounded likewise.
        let mut left = GROWTH_MAX.max(self.heap_bytes * 4);
        let mut weights = Vec::with_capacity(matches.len());
        for value in matches {
            let weight = size_of::<Value>() + value.heap_bytes();
            left = left.checked_sub(weight).ok_or(JsonError::TooManyMatches)?;
            weights.push(weight);
        }
        Ok(weights)
    }

    /// JSON.DEBUG FIELDS: how many values a match has at any depth; one for what is no container.
    pub fn fields(&self, path: &Path) -> Result<Vec<usize>, JsonError> {
        fn count(value: &Value) -> usize {
            let children = (0..value.children()).filter_map(|at| value.child(at));
            let nested = |child: &Value| matches!(child.view(), View::Array(_) | View::Object(_));
            value.children() + children.filter(|child| nested(child)).map(count).sum::<usize>()
        }
        let matches = self.get(path)?;
        let mut left = GROWTH_MAX.max(self.heap_bytes * 4) / size_of::<Value>();
        let mut counts = Vec::with_capacity(matches.len());
        for value in matches {
            let fields = match value.view() {
                View::Array(_) | View::Object(_) => count(value),
                _ => 1,
            };
            left = left.checked_sub(fields).ok_or(JsonError::TooManyMatches)?;
            counts.push(fields);
        }
        Ok(counts)
    }

    /// JSON.SET below the root or at it (whether the key exists is not our business): whether the value was set.
    ///
    /// Every match is replaced. If there is none and the path names one place, the value is put there: as a member
    /// of an object that exists, or behind the last element of an array.
    pub fn set(&mut self, path: &Path, value: Document, condition: Condition) -> Result<bool, JsonError> {
        let targets = self.targets(path, Nested::Skip)?;
        let depth = value.root.depth();
        if !targets.places.is_empty() {
            if condition == Condition::IfAbsent {
                return Ok(false);
            }
            check_growth(targets.places.len(), value.heap_bytes)?;
            check_depth(targets.places.iter().map(Vec::len).max().unwrap_or(0) + depth)?;
            let mut copies = copies(value.root, targets.places.len());
            self.change(&targets, |target, grown| {
                target.replace(copies.next().expect("one per place"), grown);
            });
            return Ok(true);
        }
        if condition == Condition::IfPresent {
            return Ok(false);
        }
        self.insert(path, value.root, depth)?;
        Ok(true)
    }

    /// Puts a value where nothing is.
    fn insert(&mut self, path: &Path, value: Value, depth: usize) -> Result<(), JsonError> {
        let (parents, last) = path.split_last().ok_or(JsonError::NoPlace)?;
        let (nodes, places) = select(&self.root, self.heap_bytes, parents, true)?;
        let [parent] = nodes[..] else { return Err(JsonError::NoPlace) };
        let steps = places.steps(parent);
        check_depth(steps.len() + 1 + depth)?;
        let fits = match (parent.value.view(), last) {
            (View::Object(_), Step::Name(_)) => true,
            (View::Array(elements), Step::Index(index)) => usize::try_from(index) == Ok(elements.len()),
            _ => false,
        };
        if !fits {
            return Err(JsonError::NoPlace);
        }
        let mut grown = 0;
        let parent = at(&mut self.root, &steps, &mut grown);
        match last {
            Step::Name(name) => {
                let put = parent.put_member(name, value, &mut grown);
                assert!(put, "the parent is an object");
            }
            Step::Index(_) => {
                let end = parent.children();
                let put = parent.splice(end..end, vec![value], &mut grown);
                assert!(put.is_some(), "the parent is an array");
            }
        }
        self.grow(grown);
        Ok(())
    }

    /// JSON.MERGE: RFC 7396 at every match. Where nothing matches and the path names one place, the patch is put
    /// there, without its nulls. Whether anything was merged.
    pub fn merge(&mut self, path: &Path, patch: &Document) -> Result<bool, JsonError> {
        let targets = self.targets(path, Nested::Skip)?;
        let depth = patch.root.depth();
        if targets.places.is_empty() {
            let mut value = Value::NULL;
            merge(&mut value, &patch.root, &mut 0);
            self.insert(path, value, depth)?;
            return Ok(true);
        }
        check_growth(targets.places.len(), patch.heap_bytes)?;
        check_depth(targets.places.iter().map(Vec::len).max().unwrap_or(0) + depth)?;
        self.change(&targets, |target, grown| merge(target, &patch.root, grown));
        Ok(true)
    }

    /// JSON.DEL. Matches inside other matches go with them and are not counted.
    pub fn delete(&mut self, path: &Path) -> Result<Deleted, JsonError> {
        if path.is_root() {
            return Ok(Deleted::Root);
        }
        let targets = self.targets(path, Nested::Skip)?;
        let mut grown = 0;
        for target in &targets.backwards {
            if let Some((last, parents)) = targets.places[*target].split_last() {
                at(&mut self.root, parents, &mut grown).remove_child(*last as usize, &mut grown);
            }
        }
        self.grow(grown);
        Ok(Deleted::Values(targets.places.len()))
    }

    /// JSON.CLEAR: empties containers and zeroes numbers; how many.
    pub fn clear(&mut self, path: &Path) -> Result<usize, JsonError> {
        let targets = self.targets(path, Nested::Skip)?;
        let cleared = self.change(&targets, |value, grown| {
            let empty = match value.view() {
                View::Array(_) => Value::from_elements(Vec::new()),
                View::Object(_) => Value::from_members(Vec::new()),
                View::Int(_) | View::Uint(_) | View::Double(_) | View::Big(_) => {
                    Value::from_integer(0).expect("zero is small")
                }
                View::Null | View::Bool(_) | View::Text(_) => return false,
            };
            value.replace(empty, grown);
            true
        });
        Ok(cleared.into_iter().filter(|cleared| *cleared).count())
    }

    /// JSON.TOGGLE: the new flags.
    pub fn toggle(&mut self, path: &Path) -> Result<Vec<Option<bool>>, JsonError> {
        let targets = self.targets(path, Nested::Keep)?;
        Ok(self.change(&targets, |value, grown| match value.view() {
            View::Bool(flag) => {
                value.replace(Value::from_bool(!flag), grown);
                Some(!flag)
            }
            _ => None,
        }))
    }

    /// JSON.STRAPPEND: the new lengths in bytes.
    pub fn append_string(&mut self, path: &Path, tail: &str) -> Result<Vec<Option<usize>>, JsonError> {
        let targets = self.targets(path, Nested::Keep)?;
        check_growth(targets.places.len(), tail.len())?;
        Ok(self.change(&targets, |value, grown| match value.view() {
            View::Text(text) => {
                let text = [text, tail].concat();
                value.replace(Value::from_text(&text), grown);
                Some(text.len())
            }
            _ => None,
        }))
    }

    /// JSON.ARRAPPEND: the new lengths.
    pub fn append_elements(
        &mut self,
        path: &Path,
        elements: &[Document],
    ) -> Result<Vec<Option<usize>>, JsonError> {
        self.insert_elements(path, None, elements)
    }

    /// JSON.ARRINSERT before the element at `index`, counted from the end if negative, or at the end without one:
    /// the new lengths. The index must lie in every matched array.
    pub fn insert_elements(
        &mut self,
        path: &Path,
        index: Option<i64>,
        elements: &[Document],
    ) -> Result<Vec<Option<usize>>, JsonError> {
        let targets = self.targets(path, Nested::Keep)?;
        let position = |len: usize| match index {
            None => Some(len),
            Some(index) if index < 0 => {
                usize::try_from(index.unsigned_abs()).ok().and_then(|n| len.checked_sub(n))
            }
            Some(index) => usize::try_from(index).ok().filter(|at| *at <= len),
        };
        let deepest = elements.iter().map(|element| element.root.depth()).max().unwrap_or(0);
        let weight = elements.iter().map(|element| element.heap_bytes + size_of::<Value>()).sum();
        check_growth(targets.places.len(), weight)?;
        for steps in &targets.places {
            if let View::Array(elements) = look(&self.root, steps).view() {
                position(elements.len()).ok_or(JsonError::OutOfRange)?;
                // A nested match moves nothing but itself, so depths add up no further.
                check_depth(steps.len() + 1 + deepest)?;
            }
        }
        Ok(self.change(&targets, |value, grown| {
            let View::Array(old) = value.view() else { return None };
            let at = position(old.len()).expect("checked");
            let new = elements.iter().map(|element| element.root.deep_clone()).collect();
            value.splice(at..at, new, grown);
            Some(value.children())
        }))
    }

    /// JSON.ARRPOP: the element at `index`, moved into the array if it lies outside; `Some(None)` for an empty array.
    pub fn pop(&mut self, path: &Path, index: i64) -> Result<Vec<Option<Option<Value>>>, JsonError> {
        let targets = self.targets(path, Nested::Keep)?;
        Ok(self.change(&targets, |value, grown| {
            let View::Array(elements) = value.view() else { return None };
            let Some(last) = elements.len().checked_sub(1) else { return Some(None) };
            let at = at_least_zero(index, elements.len()).min(last);
            let removed = value.splice(at..at + 1, Vec::new(), grown);
            Some(removed.expect("an array").pop())
        }))
    }

    /// JSON.ARRTRIM to the elements from `start` to `stop`, both included: the new lengths.
    pub fn trim(&mut self, path: &Path, start: i64, stop: i64) -> Result<Vec<Option<usize>>, JsonError> {
        let targets = self.targets(path, Nested::Keep)?;
        Ok(self.change(&targets, |value, grown| {
            let View::Array(elements) = value.view() else { return None };
            let len = elements.len();
            let (start, stop) = (at_least_zero(start, len), at_least_zero(stop, len));
            let kept = if start >= len || start > stop { 0..0 } else { start..(stop + 1).min(len) };
            value.splice(kept.end..len, Vec::new(), grown);
            value.splice(0..kept.start, Vec::new(), grown);
            Some(kept.len())
        }))
    }

    /// JSON.NUMINCRBY and JSON.NUMMULTBY: the new numbers. Integers stay integers, exactly, as long as 64 bits hold
    /// the result; with a fraction on either side the result is a double.
    pub fn arithmetic(
        &mut self,
        path: &Path,
        operation: Arithmetic,
        number: &[u8],
    ) -> Result<Vec<Option<Value>>, JsonError> {
        let by = parse::parse_number(number).map_err(|_| JsonError::NotNumber)?;
        let targets = self.targets(path, Nested::Keep)?;
        for steps in &targets.places {
            calculate(look(&self.root, steps), operation, &by)?;
        }
        Ok(self.change(&targets, |value, grown| {
            let result = calculate(value, operation, &by).expect("calculated before")?;
            value.replace(result.clone(), grown);
            Some(result)
        }))
    }

    fn each<'d, R>(
        &'d self,
        path: &Path,
        read: impl FnMut(&'d Value) -> Option<R>,
    ) -> Result<Vec<Option<R>>, JsonError> {
        Ok(self.get(path)?.into_iter().map(read).collect())
    }

    /// How many values all matches together may make a reader look at. One container can match often, so the
    /// number of matches alone is no bound.
    fn visits(&self) -> usize {
        (1 << 20) + 4 * (self.heap_bytes / size_of::<Value>())
    }

    /// The places of all matches, each once.
    fn targets(&self, path: &Path, nested: Nested) -> Result<Targets, JsonError> {
        let (mut nodes, places) = select(&self.root, self.heap_bytes, path.segments(), true)?;
        if path.may_repeat() {
            distinct(&mut nodes);
        }
        if nodes.len() > TARGETS_MAX {
            return Err(JsonError::TooManyMatches);
        }
        let steps: Vec<_> = nodes.into_iter().map(|node| places.steps(node)).collect();
        let mut order: Vec<usize> = (0..steps.len()).collect();
        // The order of places is that of the document, a container before its contents.
        order.sort_by(|a, b| steps[*a].cmp(&steps[*b]).then(a.cmp(b)));
        let mut kept: Vec<usize> = Vec::with_capacity(order.len());
        for at in order {
            let repeats = kept.last().is_some_and(|last| match nested {
                Nested::Keep => steps[at] == steps[*last],
                Nested::Skip => steps[at].starts_with(&steps[*last]),
            });
            if !repeats {
                kept.push(at);
            }
        }
        let in_document = kept.clone();
        kept.sort_unstable();
        let number = |at: &usize| kept.binary_search(at).expect("one of them");
        let backwards = in_document.iter().rev().map(number).collect();
        let mut steps: Vec<_> = steps.into_iter().map(Some).collect();
        let places = kept.iter().map(|at| steps[*at].take().expect("each once")).collect();
        Ok(Targets { places, backwards })
    }

    /// Changes every target; the results are in the order of the matches.
    fn change<R>(
        &mut self,
        targets: &Targets,
        mut change: impl FnMut(&mut Value, &mut isize) -> R,
    ) -> Vec<R> {
        let mut results: Vec<Option<R>> = targets.places.iter().map(|_| None).collect();
        let mut grown = 0;
        for target in &targets.backwards {
            let value = at(&mut self.root, &targets.places[*target], &mut grown);
            results[*target] = Some(change(value, &mut grown));
        }
        self.grow(grown);
        results.into_iter().map(|result| result.expect("every target was visited")).collect()
    }

    fn grow(&mut self, grown: isize) {
        self.heap_bytes = self.heap_bytes.checked_add_signed(grown).expect("the count covers what is freed");
    }

    /// Frees up to so many values, for documents that would hold up the shard if they went at once; true when nothing
    /// worth a step is left. What remains in between is only good for further steps.
    pub fn free_some(&mut self, values: usize) -> bool {
        let (mut budget, mut freed) = (values, 0);
        let done = self.root.free_some(&mut budget, &mut freed);
        // Parts that a clone has too were counted here, and are not freed here.
        self.heap_bytes -= freed;
        done
    }

    /// Compares the count of bytes with a fresh one. Linear in the document: for tests and checks.
    pub fn check(&self) {
        assert_eq!(self.heap_bytes, self.root.heap_bytes());
        assert!(self.root.depth() <= DEPTH_MAX);
    }
}

/// What to do with matches inside other matches.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nested {
    Keep,
    Skip,
}

/// Leaves the first of equal nodes. Within a document a value has one place, so its address tells.
fn distinct(nodes: &mut Vec<Node<'_>>) {
    let mut order: Vec<usize> = (0..nodes.len()).collect();
    let address = |at: &usize| (std::ptr::from_ref(nodes[*at].value).addr(), *at);
    order.sort_unstable_by_key(address);
    order.dedup_by_key(|at| address(at).0);
    order.sort_unstable();
    *nodes = order.into_iter().map(|at| nodes[at]).collect();
}

/// Writes matches as an array. A value may match often, so the length of the text has its own limit.
fn write_matches(
    matches: &[&Value],
    format: &Format<'_>,
    level: usize,
    out: &mut Vec<u8>,
) -> Result<(), JsonError> {
    if matches.is_empty() {
        out.extend_from_slice(b"[]");
        return Ok(());
    }
    out.push(b'[');
    for (at, value) in matches.iter().enumerate() {
        if out.len() > GROWTH_MAX {
            return Err(JsonError::TooLarge);
        }
        if at > 0 {
            out.push(b',');
        }
        write_line(format, level + 1, out);
        value.write_at(format, level + 1, out);
    }
    write_line(format, level, out);
    out.push(b']');
    Ok(())
}

/// The text of an arithmetic reply for a `$` path: the array of results, null for what was no number.
pub fn numbers_to_json(results: &[Option<Value>]) -> Vec<u8> {
    let elements = results.iter().map(|result| result.clone().unwrap_or(Value::NULL)).collect();
    Value::from_elements(elements).to_json()
}

/// A string as JSON, for replies that carry one.
pub fn string_to_json(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    write_text(text.as_bytes(), &mut out);
    out
}

fn look<'v>(root: &'v Value, steps: &[u32]) -> &'v Value {
    steps.iter().fold(root, |value, step| value.child(*step as usize).expect("a place that was found"))
}

fn at<'v>(root: &'v mut Value, steps: &[u32], grown: &mut isize) -> &'v mut Value {
    let mut value = root;
    for step in steps {
        value = value.child_mut(*step as usize, grown).expect("a place that was found");
    }
    value
}

/// As many values as places, the last of them the original.
fn copies(value: Value, count: usize) -> impl Iterator<Item = Value> {
    let mut original = Some(value);
    (1..=count).map(move |n| match n == count {
        true => original.take().expect("taken last"),
        false => original.as_ref().expect("taken last").deep_clone(),
    })
}

fn check_growth(places: usize, bytes: usize) -> Result<(), JsonError> {
    match places.checked_mul(bytes) {
        Some(..=GROWTH_MAX) => Ok(()),
        _ if places <= 1 => Ok(()),
        _ => Err(JsonError::TooLarge),
    }
}

fn check_depth(depth: usize) -> Result<(), JsonError> {
    if depth <= DEPTH_MAX { Ok(()) } else { Err(JsonError::Depth) }
}

/// An index counted from the end if negative, and 0 if it lies before the beginning.
fn at_least_zero(index: i64, len: usize) -> usize {
    if index >= 0 {
        return usize::try_from(index).unwrap_or(usize::MAX - 1);
    }
    place(index, len).unwrap_or(0)
}

/// RFC 7396: members of the patch replace or, if null, remove those of the target; what is no object replaces all.
fn merge(target: &mut Value, patch: &Value, grown: &mut isize) {
    let View::Object(members) = patch.view() else { return target.replace(patch.deep_clone(), grown) };
    if !matches!(target.view(), View::Object(_)) {
        target.replace(Value::from_members(Vec::new()), grown);
    }
    for member in members {
        let known = target.member_index(member.name());
        match (known, member.value().view()) {
            (Some(at), View::Null) => target.remove_child(at, grown),
            (None, View::Null) => {}
            (Some(at), _) => {
                let child = target.child_mut(at, grown).expect("just found");
                merge(child, member.value(), grown);
            }
            (None, _) => {
                let mut value = Value::NULL;
                merge(&mut value, member.value(), &mut 0);
                target.put_member(member.name(), value, grown);
            }
        }
    }
}

/// The result of an operation; `None` if the value is no number.
fn calculate(value: &Value, operation: Arithmetic, by: &Value) -> Result<Option<Value>, JsonError> {
    if let (Some(a), Some(b)) = (value.as_integer(), by.as_integer()) {
        // Both have at most 64 bits, so 128 hold the sum and the product.
        let exact = match operation {
            Arithmetic::Add => a + b,
            Arithmetic::Multiply => a * b,
        };
        if let Some(result) = Value::from_integer(exact) {
            return Ok(Some(result));
        }
    }
    let (Some(a), Some(b)) = (value.as_double(), by.as_double()) else { return Ok(None) };
    let result = match operation {
        Arithmetic::Add => a + b,
        Arithmetic::Multiply => a * b,
    };
    Value::from_double(result).map(Some).ok_or(JsonError::Overflow)
}
