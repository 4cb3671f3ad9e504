//! SORT: the elements of a list, a set or a sorted set in order, by themselves or by what other keys hold.
//!
//! The keys that BY and GET name are made from the elements, so they are known only when the elements are, and may be
//! on any shard. Hence a command in steps, however few the elements are ([`Task`]):
//!
//! ```text
//! elements ──> ask for weights ──> order ──> ask for results ──> the end: a reply, or the target is stored
//! of a clone   from keys as they             of what LIMIT
//!              were when it began            leaves
//! ```
//!
//! Where it must be over at once, and where there is little to do on one shard, the handler goes through them. Else it
//! leaves them to the server, which looks the keys up where they are, as they were at one instant (`Keyspace::look_back`):
//! nobody else waits, whatever they do to these keys.

mod steps;

use steps::Sorting;

use damselfly_keyspace::{Class, Concerned, List, PastId, Type};
use damselfly_protocol::Argv;
use damselfly_protocol::number::parse_f64;

use crate::past::Wanted;
use crate::task::{Rest, Task};
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
    run(cx, Sort::parse(args, true)?)
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
    run(cx, Sort::parse(args, false)?)
}

/// A SORT on one shard.
fn run(cx: &mut Cx<'_>, sort: Sort) -> CmdResult {
    let sort = &sort.for_script(cx.env.in_script);
    let past = sort.looks_further().then(|| cx.ks.random());
    let sorting = Sorting::open(cx, sort, past)?;
    if !sorting.takes_long(cx.env.at_once_max) {
        return sorting.run(cx);
    }
    let Some(place) = &mut cx.later else { return sorting.run(cx) };
    if let Some(past) = past {
        cx.ks.begin_past(past, cx.db, sort.concerned());
    }
    **place = Some(Rest::Task(Box::new(sorting)));
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
        Wanted::text([&self.prefix, element, &self.suffix].concat(), self.field.clone())
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

impl Get {
    fn pattern(&self) -> Option<&Pattern> {
        match self {
            Get::Key(pattern) => Some(pattern),
            Get::Element | Get::Null => None,
        }
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
    /// A script asks.
    in_script: bool,
}

/// By what elements are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// They keep the order that they have.
    Nothing,
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
            in_script: false,
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

    /// The same, for a script or not.
    pub fn for_script(self, in_script: bool) -> Sort {
        Sort { in_script, ..self }
    }

    /// Whether it looks at keys that are not among its arguments.
    pub fn looks_further(&self) -> bool {
        self.by.is_some() && !self.unsorted || self.gets_keys()
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
            // A stored set in no order would not be the same everywhere, nor what a script makes of one.
            Type::Set if self.unsorted && (self.store.is_some() || self.in_script) => By::Element,
            _ if self.unsorted => By::Nothing,
            _ if self.by.is_some() => By::Weight,
            _ => By::Element,
        }
    }

    /// Begins on the shard of the key. The keys that elements name are looked up in that past, on all shards.
    pub fn begin(&self, cx: &mut Cx<'_>, past: PastId) -> Result<Box<dyn Task>, CommandError> {
        Ok(Box::new(Sorting::open(cx, self, Some(past))?))
    }

    /// Which keys elements may name.
    pub fn concerned(&self) -> Concerned {
        let patterns = self.gets.iter().filter_map(Get::pattern).chain(&self.by);
        let ends: Vec<_> = patterns.map(|pattern| (pattern.prefix.clone(), pattern.suffix.clone())).collect();
        Box::new(move |key| {
            let rest = |prefix: &Vec<u8>| key.strip_prefix(&**prefix);
            ends.iter().any(|(prefix, suffix)| rest(prefix).is_some_and(|rest| rest.ends_with(suffix)))
        })
    }

    /// How many keys GET looks up for an element.
    fn gets_per_element(&self) -> usize {
        self.gets.iter().filter_map(Get::pattern).count()
    }

    /// Whether GET looks keys up.
    fn gets_keys(&self) -> bool {
        self.gets.iter().any(|get| get.pattern().is_some())
    }

    /// What GET looks up for an element.
    fn results_wanted(&self, element: &[u8]) -> impl Iterator<Item = Wanted> {
        self.gets.iter().filter_map(Get::pattern).map(|pattern| pattern.wanted(element))
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
        let wanted = |text: &str| Pattern::parse(text.as_bytes()).map(|pattern| pattern.wanted(b"E"));
        let key = |key: &str, field: Option<&str>| {
            Some(Wanted::text(key.as_bytes().to_vec(), field.map(|field| field.as_bytes().to_vec())))
        };
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
