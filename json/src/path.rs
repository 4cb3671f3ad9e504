//! JSONPath: which values of a document a command is about.
//!
//! Two dialects, told apart by the first character. `$...` is JSONPath (RFC 9535 with the forms that Redis' clients
//! use); a command answers with one item per match. Anything else is the older form of RedisJSON (`.a.b[0]`, `a.b`,
//! `.`), which means the same path but is answered with one item. The command layer needs to know which it was:
//! [`Path::is_legacy`].
//!
//! ```text
//! .name ['name'] ["name"]    a member             [0] [-1]            an element, from the end if negative
//! .* [*]                     all children         [1:3] [::2] [-2:]   elements, the end excluded
//! ..name ..* ..[0]           at any depth         ['a','b',0]         several of these
//! [?(@.price < 10 && @.tags[0] == 'x')]           children for which the expression holds
//! ```
//!
//! Expressions compare with `== != < <= > >=`, combine with `&& || !` and parentheses, test for existence with a
//! bare path, and know numbers, strings, `true`, `false`, `null`, paths from the child (`@`) and from the root (`$`).
//! A path that is compared must name at most one value. There are no functions and no regular expressions.
//!
//! A path is short and a document large, so matching works on lists: all matches of the first segment, then all of
//! the second among those, in document order. Descents multiply (`$..*..*` matches a value once per pair of its
//! ancestors), hence the budget: work is limited to a multiple of the document's size, whatever the path.

use crate::parse::Parser;
use crate::value::{Value, View};
use std::cmp::Ordering;
use std::fmt;

/// Longest path in bytes.
pub const PATH_LEN_MAX: usize = 8192;

/// Most segments in a path.
pub const SEGMENTS_MAX: usize = 256;

/// How deep expressions may be nested, parentheses and paths inside expressions counted.
const NESTING_MAX: usize = 16;

/// Why a path is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathError {
    /// It does not follow the grammar, from this byte on.
    Syntax(usize),
    /// Too long, too many segments, or nested too deep.
    TooLong,
}

impl fmt::Display for PathError {
    /// The text of the error reply, without `ERR`: Dragonfly does not say what is wrong.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("syntax error")
    }
}

impl std::error::Error for PathError {}

/// The path selects more than the budget allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyMatches;

/// A parsed path.
#[derive(Clone, Debug)]
pub struct Path {
    segments: Vec<Segment>,
    legacy: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Segment {
    descend: bool,
    selectors: Vec<Selector>,
}

#[derive(Clone, Debug)]
pub(crate) enum Selector {
    Name(Box<str>),
    Index(i64),
    Slice { start: Option<i64>, end: Option<i64>, step: i64 },
    All,
    Filter(Box<Filter>),
}

#[derive(Clone, Debug)]
pub(crate) enum Filter {
    Or(Vec<Filter>),
    And(Vec<Filter>),
    Not(Box<Filter>),
    Exists(Query),
    Compare(Operand, Comparison, Operand),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Debug)]
pub(crate) enum Operand {
    Literal(Value),
    Query(Query),
}

#[derive(Clone, Debug)]
pub(crate) struct Query {
    from_root: bool,
    segments: Vec<Segment>,
}

/// The last step of a path that names one place: where JSON.SET may put something new.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step<'p> {
    Name(&'p str),
    Index(i64),
}

impl Segment {
    fn step(&self) -> Option<Step<'_>> {
        match &self.selectors[..] {
            _ if self.descend => None,
            [Selector::Name(name)] => Some(Step::Name(name)),
            [Selector::Index(index)] => Some(Step::Index(*index)),
            _ => None,
        }
    }
}

impl Path {
    /// Reads a path.
    pub fn parse(text: &[u8]) -> Result<Path, PathError> {
        if text.len() > PATH_LEN_MAX {
            return Err(PathError::TooLong);
        }
        let text = std::str::from_utf8(text).map_err(|error| PathError::Syntax(error.valid_up_to()))?;
        let mut reader = Reader { parser: Parser { text, at: 0 }, nesting: 0, segments: 0 };
        let legacy = !text.starts_with('$');
        let mut segments = Vec::new();
        if !legacy || text == "." {
            reader.parser.at = 1;
        } else if !text.is_empty() && !text.starts_with(['.', '[']) {
            segments.push(reader.dotted(false)?);
        }
        reader.segments(&mut segments)?;
        if reader.parser.at < text.len() {
            return reader.error();
        }
        Ok(Path { segments, legacy })
    }

    /// Whether the path is in the older form, without `$`.
    pub fn is_legacy(&self) -> bool {
        self.legacy
    }

    /// Whether the path is the root: `$`, `.` or nothing.
    pub fn is_root(&self) -> bool {
        self.segments.is_empty()
    }

    /// Whether a value may match more than once: descents overlap, and so may the parts of a union.
    pub(crate) fn may_repeat(&self) -> bool {
        let descents = self.segments.iter().filter(|segment| segment.descend).count();
        descents > 1 || self.segments.iter().any(|segment| segment.selectors.len() > 1)
    }

    /// The path without its last step, and that step, if the path consists of single names and indexes.
    pub(crate) fn split_last(&self) -> Option<(&[Segment], Step<'_>)> {
        let (last, before) = self.segments.split_last()?;
        if before.iter().any(|segment| segment.step().is_none()) {
            return None;
        }
        Some((before, last.step()?))
    }

    /// The segments, for [`select`].
    pub(crate) fn segments(&self) -> &[Segment] {
        &self.segments
    }
}

/// Reads a path's text.
struct Reader<'t> {
    parser: Parser<'t>,
    nesting: usize,
    segments: usize,
}

impl Reader<'_> {
    fn error<T>(&self) -> Result<T, PathError> {
        Err(PathError::Syntax(self.parser.at))
    }

    fn rest(&self) -> &str {
        &self.parser.text[self.parser.at..]
    }

    fn space(&mut self) {
        let rest = self.rest();
        self.parser.at += rest.len() - rest.trim_ascii_start().len();
    }

    /// Takes a token, after space, if it comes next.
    fn take(&mut self, token: &str) -> bool {
        self.space();
        let next = self.rest().starts_with(token);
        if next {
            self.parser.at += token.len();
        }
        next
    }

    fn expect(&mut self, token: &str) -> Result<(), PathError> {
        if self.take(token) { Ok(()) } else { self.error() }
    }

    /// As many segments as follow.
    fn segments(&mut self, segments: &mut Vec<Segment>) -> Result<(), PathError> {
        loop {
            let segment = if self.take("..") {
                self.dotted(true)?
            } else if self.take(".") {
                self.dotted(false)?
            } else if self.take("[") {
                self.bracketed(false)?
            } else {
                return Ok(());
            };
            segments.push(segment);
        }
    }

    fn segment(&mut self, descend: bool, selectors: Vec<Selector>) -> Result<Segment, PathError> {
        self.segments += 1;
        if self.segments > SEGMENTS_MAX {
            return Err(PathError::TooLong);
        }
        Ok(Segment { descend, selectors })
    }

    /// What follows one or two dots.
    fn dotted(&mut self, descend: bool) -> Result<Segment, PathError> {
        if self.take("[") {
            return self.bracketed(descend);
        }
        let selector = if self.take("*") { Selector::All } else { Selector::Name(self.name()?) };
        self.segment(descend, vec![selector])
    }

    fn name(&mut self) -> Result<Box<str>, PathError> {
        let rest = self.rest();
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-' || !c.is_ascii();
        let len = rest.find(|c| !plain(c)).unwrap_or(rest.len());
        if len == 0 {
            return self.error();
        }
        let name = rest[..len].into();
        self.parser.at += len;
        Ok(name)
    }

    /// What follows an opening bracket.
    fn bracketed(&mut self, descend: bool) -> Result<Segment, PathError> {
        let mut selectors = Vec::new();
        loop {
            selectors.push(self.selector()?);
            if self.take("]") {
                return self.segment(descend, selectors);
            }
            self.expect(",")?;
        }
    }

    fn selector(&mut self) -> Result<Selector, PathError> {
        self.space();
        if let Some(text) = self.quoted()? {
            return Ok(Selector::Name(text.into()));
        }
        if self.take("*") {
            return Ok(Selector::All);
        }
        if self.take("?") {
            return Ok(Selector::Filter(Box::new(self.filter()?)));
        }
        let start = self.integer()?;
        if !self.take(":") {
            return match start {
                Some(index) => Ok(Selector::Index(index)),
                None => self.error(),
            };
        }
        let end = self.integer()?;
        let step = if self.take(":") { self.integer()?.unwrap_or(1) } else { 1 };
        Ok(Selector::Slice { start, end, step })
    }

    fn quoted(&mut self) -> Result<Option<String>, PathError> {
        let quote = match self.rest().as_bytes() {
            [quote @ (b'"' | b'\''), ..] => *quote,
            _ => return Ok(None),
        };
        self.parser.at += 1;
        match self.parser.quoted(quote) {
            Ok(text) => Ok(Some(text.into_owned())),
            Err(_) => self.error(),
        }
    }

    fn integer(&mut self) -> Result<Option<i64>, PathError> {
        self.space();
        let rest = self.rest();
        let digits = rest.strip_prefix('-').unwrap_or(rest);
        let len = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        if len == 0 {
            return if rest.starts_with('-') { self.error() } else { Ok(None) };
        }
        let text = &rest[..rest.len() - digits.len() + len];
        match text.parse() {
            Ok(number) => {
                self.parser.at += text.len();
                Ok(Some(number))
            }
            Err(_) => self.error(),
        }
    }

    fn filter(&mut self) -> Result<Filter, PathError> {
        self.nesting += 1;
        if self.nesting > NESTING_MAX {
            return Err(PathError::TooLong);
        }
        let mut any = vec![self.conjunction()?];
        while self.take("||") {
            any.push(self.conjunction()?);
        }
        self.nesting -= 1;
        Ok(if any.len() == 1 { any.remove(0) } else { Filter::Or(any) })
    }

    fn conjunction(&mut self) -> Result<Filter, PathError> {
        let mut all = vec![self.term()?];
        while self.take("&&") {
            all.push(self.term()?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Filter::And(all) })
    }

    fn term(&mut self) -> Result<Filter, PathError> {
        let mut negated = false;
        while self.take("!") {
            negated = !negated;
        }
        let term = if self.take("(") {
            let inner = self.filter()?;
            self.expect(")")?;
            inner
        } else {
            self.comparison()?
        };
        Ok(if negated { Filter::Not(Box::new(term)) } else { term })
    }

    fn comparison(&mut self) -> Result<Filter, PathError> {
        let left = self.operand()?;
        let found = [
            ("==", Comparison::Equal),
            ("!=", Comparison::NotEqual),
            ("<=", Comparison::LessOrEqual),
            (">=", Comparison::GreaterOrEqual),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ]
        .into_iter()
        .find(|(token, _)| self.take(token));
        let Some((_, comparison)) = found else {
            return match left {
                Operand::Query(query) => Ok(Filter::Exists(query)),
                Operand::Literal(_) => self.error(),
            };
        };
        let right = self.operand()?;
        let single = |operand: &Operand| match operand {
            Operand::Literal(_) => true,
            Operand::Query(query) => query.segments.iter().all(|segment| segment.step().is_some()),
        };
        if !single(&left) || !single(&right) {
            return self.error();
        }
        Ok(Filter::Compare(left, comparison, right))
    }

    fn operand(&mut self) -> Result<Operand, PathError> {
        self.space();
        if let Some(text) = self.quoted()? {
            return Ok(Operand::Literal(Value::from_text(&text)));
        }
        let from_root = self.take("$");
        if from_root || self.take("@") {
            let mut segments = Vec::new();
            self.segments(&mut segments)?;
            return Ok(Operand::Query(Query { from_root, segments }));
        }
        let words =
            [("true", Value::from_bool(true)), ("false", Value::from_bool(false)), ("null", Value::NULL)];
        for (word, value) in words {
            if self.take(word) {
                return Ok(Operand::Literal(value));
            }
        }
        match self.parser.number() {
            Ok(number) => Ok(Operand::Literal(number)),
            Err(_) => self.error(),
        }
    }
}

/// A matched value and where it is.
#[derive(Clone, Copy)]
pub(crate) struct Node<'v> {
    pub(crate) value: &'v Value,
    place: u32,
}

/// How values were reached: a tree of steps, each with the one before it.
pub(crate) struct Places {
    steps: Vec<(u32, u32)>,
}

impl Places {
    /// The places of the children on the way from the root to the node.
    pub(crate) fn steps(&self, node: Node<'_>) -> Vec<u32> {
        let mut steps = Vec::new();
        let mut place = node.place;
        while place != 0 {
            let (before, child) = self.steps[place as usize];
            steps.push(child);
            place = before;
        }
        steps.reverse();
        steps
    }
}

/// What one evaluation may still do, and what it works on.
struct Selecting<'v> {
    root: &'v Value,
    budget: usize,
    /// Only writers need to know where a match is.
    places: Option<Places>,
}

/// All matches in order. The budget is a base for small documents plus so many visits per value the document can
/// have at most, by its size.
pub(crate) fn select<'v>(
    root: &'v Value,
    heap_bytes: usize,
    segments: &[Segment],
    with_places: bool,
) -> Result<(Vec<Node<'v>>, Places), TooManyMatches> {
    const BASE: usize = 1 << 18;
    const VISITS_PER_VALUE: usize = 4;
    let values = heap_bytes / size_of::<Value>();
    let mut selecting = Selecting {
        root,
        budget: BASE + VISITS_PER_VALUE * values,
        places: with_places.then(|| Places { steps: vec![(0, 0)] }),
    };
    let nodes = selecting.run(root, segments)?;
    Ok((nodes, selecting.places.unwrap_or(Places { steps: Vec::new() })))
}

impl<'v> Selecting<'v> {
    fn run(&mut self, from: &'v Value, segments: &[Segment]) -> Result<Vec<Node<'v>>, TooManyMatches> {
        let mut nodes = vec![Node { value: from, place: 0 }];
        for segment in segments {
            let mut next = Vec::new();
            for node in nodes {
                if segment.descend {
                    self.descend(node, segment, &mut next)?;
                } else {
                    self.children(node, segment, &mut next)?;
                }
            }
            nodes = next;
        }
        Ok(nodes)
    }

    fn spend(&mut self) -> Result<(), TooManyMatches> {
        self.budget = self.budget.checked_sub(1).ok_or(TooManyMatches)?;
        Ok(())
    }

    fn child(&mut self, of: Node<'v>, at: usize) -> Result<Option<Node<'v>>, TooManyMatches> {
        self.spend()?;
        let Some(value) = of.value.child(at) else { return Ok(None) };
        let place = match &mut self.places {
            None => 0,
            Some(places) => {
                // The budget keeps this far below four billion for any document that fits in memory a command can
                // name; should it not, the answer is the same.
                let place = u32::try_from(places.steps.len()).map_err(|_| TooManyMatches)?;
                places.steps.push((of.place, u32::try_from(at).map_err(|_| TooManyMatches)?));
                place
            }
        };
        Ok(Some(Node { value, place }))
    }

    /// The matches in the node and in everything below it, a container before its contents.
    fn descend(
        &mut self,
        from: Node<'v>,
        segment: &Segment,
        out: &mut Vec<Node<'v>>,
    ) -> Result<(), TooManyMatches> {
        let mut waiting = vec![from];
        while let Some(node) = waiting.pop() {
            self.children(node, segment, out)?;
            for at in (0..node.value.children()).rev() {
                if let Some(child) = self.child(node, at)?.filter(|child| child.value.children() > 0) {
                    waiting.push(child);
                }
            }
        }
        Ok(())
    }

    fn children(
        &mut self,
        node: Node<'v>,
        segment: &Segment,
        out: &mut Vec<Node<'v>>,
    ) -> Result<(), TooManyMatches> {
        for selector in &segment.selectors {
            match selector {
                Selector::Name(name) => {
                    self.spend()?;
                    if let Some(at) = node.value.member_index(name) {
                        out.extend(self.child(node, at)?);
                    }
                }
                Selector::Index(index) => {
                    self.spend()?;
                    if let View::Array(elements) = node.value.view()
                        && let Some(at) = place(*index, elements.len())
                    {
                        out.extend(self.child(node, at)?);
                    }
                }
                Selector::Slice { start, end, step } => {
                    if let View::Array(elements) = node.value.view() {
                        for at in slice(*start, *end, *step, elements.len()) {
                            out.extend(self.child(node, at)?);
                        }
                    }
                }
                Selector::All => {
                    for at in 0..node.value.children() {
                        out.extend(self.child(node, at)?);
                    }
                }
                Selector::Filter(filter) => {
                    for at in 0..node.value.children() {
                        let Some(value) = node.value.child(at) else { continue };
                        if self.holds(filter, value)? {
                            out.extend(self.child(node, at)?);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn holds(&mut self, filter: &Filter, current: &'v Value) -> Result<bool, TooManyMatches> {
        self.spend()?;
        Ok(match filter {
            Filter::Or(filters) => {
                for filter in filters {
                    if self.holds(filter, current)? {
                        return Ok(true);
                    }
                }
                false
            }
            Filter::And(filters) => {
                for filter in filters {
                    if !self.holds(filter, current)? {
                        return Ok(false);
                    }
                }
                true
            }
            Filter::Not(filter) => !self.holds(filter, current)?,
            Filter::Exists(query) => self.query(query, current)?.is_some(),
            Filter::Compare(left, comparison, right) => {
                let left = self.operand(left, current)?;
                let right = self.operand(right, current)?;
                self.compare(left, *comparison, right)?
            }
        })
    }

    /// Compares two operands. Nothing equals nothing, and has no order.
    fn compare(
        &mut self,
        left: Option<&Value>,
        comparison: Comparison,
        right: Option<&Value>,
    ) -> Result<bool, TooManyMatches> {
        let (Some(left), Some(right)) = (left, right) else {
            let equal = left.is_none() && right.is_none();
            return Ok(match comparison {
                Comparison::Equal | Comparison::LessOrEqual | Comparison::GreaterOrEqual => equal,
                Comparison::NotEqual => !equal,
                Comparison::Less | Comparison::Greater => false,
            });
        };
        if let Comparison::Equal | Comparison::NotEqual = comparison {
            let equal = self.equal(left, right)?;
            return Ok(equal == matches!(comparison, Comparison::Equal));
        }
        let order = self.order(left, right)?;
        Ok(match comparison {
            Comparison::Less => order == Some(Ordering::Less),
            Comparison::Greater => order == Some(Ordering::Greater),
            Comparison::LessOrEqual => {
                order != Some(Ordering::Greater) && self.equal(left, right)? || order == Some(Ordering::Less)
            }
            _ => {
                order != Some(Ordering::Less) && self.equal(left, right)? || order == Some(Ordering::Greater)
            }
        })
    }

    /// The order of numbers and strings. Long ones cost more.
    fn order(&mut self, left: &Value, right: &Value) -> Result<Option<Ordering>, TooManyMatches> {
        for value in [left, right] {
            if let View::Text(text) | View::Big(text) = value.view() {
                self.budget = self.budget.checked_sub(text.len() / 64).ok_or(TooManyMatches)?;
            }
        }
        Ok(left.compare(right))
    }

    /// Equality: numbers by value whatever their form, containers by their contents.
    fn equal(&mut self, left: &Value, right: &Value) -> Result<bool, TooManyMatches> {
        self.spend()?;
        match (left.view(), right.view()) {
            (View::Array(left), View::Array(right)) if left.len() == right.len() => {
                for (left, right) in left.iter().zip(right) {
                    if !self.equal(left, right)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (View::Object(left), View::Object(right)) if left.len() == right.len() => {
                for (left, right) in left.iter().zip(right) {
                    if left.name() != right.name() || !self.equal(left.value(), right.value())? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (View::Array(_) | View::Object(_), _) | (_, View::Array(_) | View::Object(_)) => Ok(false),
            _ => Ok(self.order(left, right)? == Some(Ordering::Equal) || left.same(right)),
        }
    }

    /// The first match of a path inside an expression.
    fn query(&mut self, query: &Query, current: &'v Value) -> Result<Option<&'v Value>, TooManyMatches> {
        let from = if query.from_root { self.root } else { current };
        // Nearly all are plain names, which need no list of matches.
        let mut value = from;
        let mut plain = true;
        for segment in &query.segments {
            let Some(step) = segment.step() else {
                plain = false;
                break;
            };
            self.spend()?;
            let at = match (step, value.view()) {
                (Step::Name(name), _) => value.member_index(name),
                (Step::Index(index), View::Array(elements)) => place(index, elements.len()),
                (Step::Index(_), _) => None,
            };
            match at.and_then(|at| value.child(at)) {
                Some(child) => value = child,
                None => return Ok(None),
            }
        }
        if plain {
            return Ok(Some(value));
        }
        // Places inside expressions lead nowhere.
        let places = self.places.take();
        let nodes = self.run(from, &query.segments);
        self.places = places;
        Ok(nodes?.first().map(|node| node.value))
    }

    /// The value of an operand; none if its path matches nothing.
    fn operand<'a>(
        &mut self,
        operand: &'a Operand,
        current: &'v Value,
    ) -> Result<Option<&'a Value>, TooManyMatches>
    where
        'v: 'a,
    {
        match operand {
            Operand::Literal(value) => Ok(Some(value)),
            Operand::Query(query) => self.query(query, current),
        }
    }
}

/// The place of an index, counted from the end if negative.
pub(crate) fn place(index: i64, len: usize) -> Option<usize> {
    let at = if index < 0 { index.checked_add(i64::try_from(len).ok()?)? } else { index };
    usize::try_from(at).ok().filter(|at| *at < len)
}

/// The places of a slice, as RFC 9535 (and Python) has it. A step of zero selects nothing.
fn slice(start: Option<i64>, end: Option<i64>, step: i64, len: usize) -> impl Iterator<Item = usize> + use<> {
    let len = len as i64;
    let from_end = |at: i64| if at < 0 { at.saturating_add(len) } else { at };
    let (from, to) = if step >= 0 {
        (from_end(start.unwrap_or(0)).clamp(0, len), from_end(end.unwrap_or(len)).clamp(0, len))
    } else {
        let start = start.map_or(len - 1, from_end).clamp(-1, len - 1);
        (start, end.map_or(-1, from_end).clamp(-1, len - 1))
    };
    let mut at = from;
    std::iter::from_fn(move || {
        let more = if step > 0 { at < to } else { step < 0 && at > to };
        let here = at;
        at = at.saturating_add(step);
        more.then_some(here as usize)
    })
}
