//! SORT: the elements of a list, a set or a sorted set in order, by themselves or by what other keys hold.
//!
//! The keys that BY and GET name are made from the elements, so they are known only when the elements are, and may be
//! on any shard. Hence a command in steps, each of which takes what the last one gave:
//!
//! ```text
//! parse ──> elements ──> weights_wanted ──> order ──> results_wanted ──> results ──> finish
//!           source's     fetch, on the      sorted,   fetch, again,                  reply, or the
//!           shard        shards of keys     cut to    for what is left               target's shard
//!                                           LIMIT
//! ```
//!
//! On one shard the handler goes through them, or leaves a task where many elements are sorted by themselves; so it does
//! where the source and the target are on two. If elements name keys, on several shards, the server goes through them
//! with every shard locked: what these keys hold is looked up at one instant. What is passed on is owned, because it may
//! travel.

mod steps;

use std::cmp::Ordering;

use damselfly_keyspace::values::hash::Hash;
use damselfly_keyspace::values::set::Set;
use damselfly_keyspace::values::zset::SortedSet;
use damselfly_keyspace::{Class, List, Type};
use damselfly_protocol::Argv;
use damselfly_protocol::number::{Decimal, parse_f64};

use crate::task::Rest;
use crate::{Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Run, Spread};

pub(crate) const COMMANDS: &[&Command] = &[&SORT, &SORT_RO];

const SORT: Command = Command {
    name: "SORT",
    arity: Arity::AtLeast(2),
    keys: Keys::FirstAnd(store_target),
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::MOVABLE_KEYS).with(Flags::DANGEROUS),
    spread: Spread::Sort,
    group: Group::Generic,
    since: "1.0.0",
    syntax: "key [BY pattern] [LIMIT offset count] [GET pattern [GET pattern ...]] [ASC | DESC] [ALPHA] [STORE destination]",
    summary: "Sorts the elements of a list, a set or a sorted set; returns or stores them.",
    run: Run::Shard(sort),
};

fn sort(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    run(cx, &Sort::parse(args, true)?)
}

const SORT_RO: Command = Command {
    name: "SORT_RO",
    arity: Arity::AtLeast(2),
    keys: Keys::FirstAnd(|_, _| ()),
    flags: Flags::READ.with(Flags::MOVABLE_KEYS).with(Flags::DANGEROUS),
    spread: Spread::Sort,
    group: Group::Generic,
    since: "7.0.0",
    syntax: "key [BY pattern] [LIMIT offset count] [GET pattern [GET pattern ...]] [ASC | DESC] [ALPHA]",
    summary: "Sorts the elements of a list, a set or a sorted set and returns them.",
    run: Run::Shard(sort_ro),
};

fn sort_ro(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    run(cx, &Sort::parse(args, false)?)
}

/// All steps on one shard.
fn run(cx: &mut Cx<'_>, sort: &Sort) -> CmdResult {
    if let Some(sorting) = steps::Sorting::begin(cx, sort) {
        if let Some(place) = &mut cx.later {
            **place = Some(Rest::Task(Box::new(sorting)));
        }
        return Ok(());
    }
    let elements = sort.elements(cx)?;
    let weights = sort.weights_wanted(&elements).iter().map(|wanted| wanted.fetch(cx)).collect();
    let elements = sort.order(elements, weights)?;
    let fetched = sort.results_wanted(&elements).iter().map(|wanted| wanted.fetch(cx)).collect();
    sort.finish(cx, sort.results(elements, fetched));
    Ok(())
}

/// The position of STORE's key: the last one counts. Arguments of other options are no options.
fn store_target(argv: &Argv<'_>, positions: &mut Vec<usize>) {
    let (mut at, mut target) = (2, None);
    while at < argv.len() {
        let is = |word: &str| argv[at].eq_ignore_ascii_case(word.as_bytes());
        if is("STORE") && at + 1 < argv.len() {
            target = Some(at + 1);
        }
        at += if is("LIMIT") {
            3
        } else if is("BY") || is("GET") || is("STORE") {
            2
        } else {
            1
        };
    }
    positions.extend(target);
}

/// A key named by an element: `prefix*suffix`, or `prefix*suffix->field` of a hash.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    prefix: Vec<u8>,
    suffix: Vec<u8>,
    field: Option<Vec<u8>>,
}

impl Pattern {
    /// None without an asterisk: then no element names a key.
    fn parse(text: &[u8]) -> Option<Pattern> {
        let star = text.iter().position(|byte| *byte == b'*')?;
        let (prefix, rest) = (text[..star].to_vec(), &text[star + 1..]);
        // An arrow with nothing behind it is part of the name.
        let arrow = rest.windows(2).position(|pair| pair == b"->").filter(|at| at + 2 < rest.len());
        let (suffix, field) = match arrow {
            Some(at) => (&rest[..at], Some(rest[at + 2..].to_vec())),
            None => (rest, None),
        };
        Some(Pattern { prefix, suffix: suffix.to_vec(), field })
    }

    fn wanted(&self, element: &[u8]) -> Wanted {
        Wanted { key: [&self.prefix, element, &self.suffix].concat(), field: self.field.clone() }
    }
}

/// What GET puts into the result.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Get {
    /// `#`: the element.
    Element,
    /// What a key named by the element holds.
    Key(Pattern),
    /// Nothing: the pattern has no asterisk.
    Null,
}

/// A string to be looked up: all of a key, or a field of a hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The key.
    pub key: Vec<u8>,
    field: Option<Vec<u8>>,
}

impl Wanted {
    /// Looks it up, on the shard of its key. Another type is as good as nothing.
    pub fn fetch(&self, cx: &mut Cx<'_>) -> Option<Vec<u8>> {
        if let Some(field) = &self.field {
            let now = cx.ks.now;
            let hash = cx.ks.view::<Hash>(cx.db, &self.key).ok()??;
            return hash.get(field, now).map(|value| value.to_vec());
        }
        let value = cx.read_string(&self.key).ok()??;
        Some(value.bytes(&mut Decimal::new(0)).to_vec())
    }
}

/// A SORT as it was asked for.
#[derive(Clone, Debug)]
pub struct Sort {
    key: Vec<u8>,
    store: Option<Vec<u8>>,
    by: Option<Pattern>,
    /// BY names no key: the elements keep their own order.
    unsorted: bool,
    gets: Vec<Get>,
    offset: i64,
    count: i64,
    descending: bool,
    alpha: bool,
}

/// The elements of the key, and whether they are sorted any further.
#[derive(Clone, Debug, Default)]
pub struct Elements {
    all: Vec<Vec<u8>>,
    by: By,
}

/// By what they are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum By {
    /// They are in order, and cut to LIMIT.
    #[default]
    Done,
    /// Themselves.
    Element,
    /// What their keys hold.
    Weight,
}

impl Sort {
    /// The arguments behind the name.
    pub fn parse(mut args: Args<'_>, may_store: bool) -> Result<Sort, CommandError> {
        let mut sort = Sort {
            key: args.take()?.to_vec(),
            store: None,
            by: None,
            unsorted: false,
            gets: Vec::new(),
            offset: 0,
            count: -1,
            descending: false,
            alpha: false,
        };
        while !args.is_empty() {
            if args.take_word("ASC") {
                sort.descending = false;
            } else if args.take_word("DESC") {
                sort.descending = true;
            } else if args.take_word("ALPHA") {
                sort.alpha = true;
            } else if args.len() > 2 && args.take_word("LIMIT") {
                (sort.offset, sort.count) = (args.take_int()?, args.take_int()?);
            } else if may_store && args.len() > 1 && args.take_word("STORE") {
                sort.store = Some(args.take()?.to_vec());
            } else if args.len() > 1 && args.take_word("BY") {
                sort.by = Pattern::parse(args.take()?);
                // Once is enough, as in Redis, whatever other BY comes.
                sort.unsorted |= sort.by.is_none();
            } else if args.len() > 1 && args.take_word("GET") {
                sort.gets.push(match args.take()? {
                    b"#" => Get::Element,
                    pattern => Pattern::parse(pattern).map_or(Get::Null, Get::Key),
                });
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(sort)
    }

    /// Whether it looks at keys that are not among its arguments.
    pub fn looks_further(&self) -> bool {
        self.by.is_some() && !self.unsorted || self.gets.iter().any(|get| matches!(get, Get::Key(_)))
    }

    /// The key to be sorted.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The key for the result.
    pub fn target(&self) -> Option<&[u8]> {
        self.store.as_deref()
    }

    /// Which of `len` elements LIMIT leaves.
    fn limited(&self, len: usize) -> std::ops::Range<usize> {
        let start = usize::try_from(self.offset.max(0)).unwrap_or(usize::MAX).min(len);
        let count = usize::try_from(self.count).unwrap_or(usize::MAX);
        start..start.saturating_add(count).min(len)
    }

    /// By what the elements of a key of this type are sorted.
    fn by_of(&self, kind: Type) -> By {
        match kind {
            // A stored set in no order would not be the same everywhere.
            Type::Set if self.unsorted && self.store.is_some() => By::Element,
            _ if self.unsorted => By::Done,
            _ if self.by.is_some() => By::Weight,
            _ => By::Element,
        }
    }

    /// The elements, on the shard of the key.
    pub fn elements(&self, cx: &mut Cx<'_>) -> Result<Elements, CommandError> {
        let Some(loc) = cx.read(&self.key) else { return Ok(Elements::default()) };
        let by = self.by_of(cx.ks.table(cx.db).type_at(loc));
        let mut all = Vec::new();
        match cx.ks.table(cx.db).type_at(loc) {
            Type::List => {
                let list = cx.ks.collection::<List>(cx.db, loc)?;
                let span = if by == By::Done { self.limited(list.len()) } else { 0..list.len() };
                if by == By::Done && self.descending {
                    let items = list.iter().rev().skip(span.start).take(span.len());
                    all.extend(items.map(|item| item.to_vec()));
                } else {
                    all.extend(list.range(span.start, span.end).map(|item| item.to_vec()));
                }
            }
            Type::Set => {
                if let Some(loc) = cx.ks.find_collection::<Set>(cx.db, &self.key)? {
                    let set = cx.ks.collection::<Set>(cx.db, loc)?;
                    let span = if by == By::Done { self.limited(set.len()) } else { 0..set.len() };
                    all.extend(set.iter().skip(span.start).take(span.len()).map(|item| item.to_vec()));
                }
            }
            Type::ZSet => {
                let zset = cx.ks.collection::<SortedSet>(cx.db, loc)?;
                let len = zset.len();
                let mut span = if by == By::Done { self.limited(len) } else { 0..len };
                let reverse = by == By::Done && self.descending;
                if reverse {
                    span = len - span.end..len - span.start;
                }
                zset.visit(span, reverse, |member, _| all.push(member.to_vec()));
            }
            _ => return Err(CommandError::WrongType),
        }
        Ok(Elements { all, by })
    }

    /// The weights to be looked up, one for each element, or none at all.
    pub fn weights_wanted(&self, elements: &Elements) -> Vec<Wanted> {
        match &self.by {
            Some(pattern) if elements.by == By::Weight => {
                elements.all.iter().map(|element| pattern.wanted(element)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Sorts, and leaves what LIMIT leaves. `weights` are those that were wanted.
    pub fn order(
        &self,
        elements: Elements,
        weights: Vec<Option<Vec<u8>>>,
    ) -> Result<Vec<Vec<u8>>, CommandError> {
        let Elements { all, by } = elements;
        // A set that is stored unsorted is sorted by its bytes.
        let alpha = self.alpha || self.unsorted;
        Ok(match by {
            By::Done => all,
            By::Element if alpha => self.cut(all, |a, b| a.cmp(b)),
            By::Weight if alpha => {
                // Elements without a weight come first, and keep their order.
                let keyed = weights.into_iter().zip(0usize..).zip(all).collect();
                let sorted = self.cut(keyed, |((a, m), _), ((b, n), _)| {
                    a.cmp(b).then_with(|| if self.descending { n.cmp(m) } else { m.cmp(n) })
                });
                sorted.into_iter().map(|(_, element)| element).collect()
            }
            By::Element => {
                let scores = all.iter().map(|element| score(element)).collect::<Result<Vec<f64>, _>>()?;
                self.by_score(scores, all)
            }
            By::Weight => {
                let scores = weights.iter().map(|weight| weight.as_deref().map_or(Ok(0.0), score));
                self.by_score(scores.collect::<Result<Vec<f64>, _>>()?, all)
            }
        })
    }

    fn by_score(&self, scores: Vec<f64>, all: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        let scored = scores.into_iter().zip(all).collect();
        // No score is NaN, and zeros of both signs are equal.
        let sorted = self
            .cut(scored, |(a, x), (b, y)| a.partial_cmp(b).unwrap_or(Ordering::Equal).then_with(|| x.cmp(y)));
        sorted.into_iter().map(|(_, element)| element).collect()
    }

    /// Sorts as far as LIMIT needs it.
    fn cut<T>(&self, mut all: Vec<T>, compare: impl Fn(&T, &T) -> Ordering) -> Vec<T> {
        let ordered = |a: &T, b: &T| if self.descending { compare(b, a) } else { compare(a, b) };
        let span = self.limited(all.len());
        if span.is_empty() {
            return Vec::new();
        }
        if span.end < all.len() {
            all.select_nth_unstable_by(span.end, ordered);
            all.truncate(span.end);
        }
        all.sort_unstable_by(ordered);
        all.drain(..span.start);
        all
    }

    /// What GET looks up for these elements, one after the other.
    pub fn results_wanted(&self, elements: &[Vec<u8>]) -> Vec<Wanted> {
        let patterns = || {
            self.gets.iter().filter_map(|get| match get {
                Get::Key(pattern) => Some(pattern),
                Get::Element | Get::Null => None,
            })
        };
        elements.iter().flat_map(|element| patterns().map(|pattern| pattern.wanted(element))).collect()
    }

    /// The result. `fetched` is what was wanted.
    pub fn results(&self, elements: Vec<Vec<u8>>, fetched: Vec<Option<Vec<u8>>>) -> Vec<Option<Vec<u8>>> {
        if self.gets.is_empty() {
            return elements.into_iter().map(Some).collect();
        }
        let (mut fetched, mut results) = (fetched.into_iter(), Vec::new());
        for element in &elements {
            results.extend(self.gets.iter().map(|get| match get {
                Get::Element => Some(element.clone()),
                Get::Key(_) => fetched.next().flatten(),
                Get::Null => None,
            }));
        }
        results
    }

    /// Replies with the result, or stores it on the shard of the target and replies with its length.
    pub fn finish(&self, cx: &mut Cx<'_>, results: Vec<Option<Vec<u8>>>) {
        if self.store.is_none() {
            cx.out.array(results.len());
            for result in &results {
                match result {
                    Some(bytes) => cx.out.bulk(bytes),
                    None => cx.out.null(),
                }
            }
            return;
        }
        self.store_list(cx, results.iter().map(|result| result.as_deref().unwrap_or_default()).collect());
    }

    /// Stores a result on the shard of the target, which goes if there is none, and replies with its length.
    fn store_list(&self, cx: &mut Cx<'_>, list: List) {
        let Some(to) = &self.store else { return };
        let len = list.len();
        if list.is_empty() {
            if cx.ks.remove(cx.db, to) {
                cx.changed(to, Class::Generic, "del");
            }
        } else {
            cx.ks.store(cx.db, to, list);
            cx.changed(to, Class::List, "sortstore");
        }
        cx.out.int(len as i64);
    }
}

/// A weight as C reads it: up to a zero byte, behind white space, and nothing is zero.
fn score(text: &[u8]) -> Result<f64, CommandError> {
    const NO_SCORE: CommandError =
        CommandError::text("ERR One or more scores can't be converted into double");
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    if text.is_empty() {
        return Ok(0.0);
    }
    let blank = text.iter().take_while(|byte| matches!(byte, b' ' | b'\t'..=b'\r')).count();
    parse_f64(&text[blank..]).ok_or(NO_SCORE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The forms of patterns: where the element goes, and what is a field.
    #[test]
    fn patterns() {
        let wanted = |text: &str| {
            Pattern::parse(text.as_bytes()).map(|pattern| {
                let Wanted { key, field } = pattern.wanted(b"E");
                (String::from_utf8(key).unwrap(), field.map(|field| String::from_utf8(field).unwrap()))
            })
        };
        let key = |key: &str, field: Option<&str>| Some((key.to_string(), field.map(str::to_string)));
        assert_eq!(wanted("nosort"), None);
        assert_eq!(wanted("w_*"), key("w_E", None));
        assert_eq!(wanted("*"), key("E", None));
        assert_eq!(wanted("a*b*c"), key("aEb*c", None));
        assert_eq!(wanted("h_*->f"), key("h_E", Some("f")));
        assert_eq!(wanted("h_*x->f->g"), key("h_Ex", Some("f->g")));
        assert_eq!(wanted("h_*->"), key("h_E->", None));
        assert_eq!(wanted("h->x*"), key("h->xE", None));
    }

    /// Numbers as strtod takes them.
    #[test]
    fn scores() {
        for (text, want) in [
            (&b""[..], Some(0.0)),
            (b" 1.5", Some(1.5)),
            (b"\0junk", Some(0.0)),
            (b"7\0junk", Some(7.0)),
            (b"-inf", Some(f64::NEG_INFINITY)),
            (b"0x10", Some(16.0)),
            (b"nan", None),
            (b"1 ", None),
            (b" ", None),
            (b"1e400", None),
            (b"one", None),
        ] {
            assert_eq!(score(text).ok(), want, "{}", text.escape_ascii());
        }
    }
}
