//! A value on its way from a file to its shard.
//!
//! A shard builds lists, sets, hashes and sorted sets itself, from their elements in one run of bytes:
//!
//! ```text
//! list: text ...    set: text deadline ...    hash: text text deadline ...    sorted set: text score ...
//!
//! text = length u8 below 255, bytes | 255, length u64le, bytes      deadline = 0 | 1, u64le      score = f64le
//! ```
//!
//! A [`Value`] has a vector for every string: of a hash with ten fields one thread would make twenty-one allocations and
//! another one free them, which took a third of a load of such hashes. The other types are rare or few allocations,
//! and travel as values.

use crate::error::Refused;
use crate::event::{Event, Kind, ValueSink};
use crate::value::{Collector, MISPLACED, Value};

/// Memory that is kept for the next value.
const KEEP_LEN: usize = 64 << 10;
/// Stands for a length that follows.
const LONG: u8 = u8::MAX;

/// The elements of a list, a set, a hash or a sorted set. Nobody has looked whether they differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    kind: Kind,
    len: usize,
    bytes: Box<[u8]>,
}

impl Run {
    /// What it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Its elements, as events of its kind.
    #[inline]
    pub fn iter(&self) -> Elements<'_> {
        Elements { kind: self.kind, rest: &self.bytes }
    }
}

/// See [`Run::iter`].
#[derive(Clone)]
pub struct Elements<'a> {
    kind: Kind,
    rest: &'a [u8],
}

impl<'a> Elements<'a> {
    #[inline]
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(len);
        self.rest = rest;
        taken
    }

    #[inline]
    fn number(&mut self) -> u64 {
        u64::from_le_bytes(self.take(8).try_into().expect("eight bytes"))
    }

    #[inline]
    fn text(&mut self) -> &'a [u8] {
        let len = match self.take(1)[0] {
            LONG => self.number() as usize,
            len => usize::from(len),
        };
        self.take(len)
    }

    #[inline]
    fn deadline(&mut self) -> Option<u64> {
        (self.take(1)[0] == 1).then(|| self.number())
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Event<'a>;

    #[inline]
    fn next(&mut self) -> Option<Event<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        Some(match self.kind {
            Kind::List => Event::Element(self.text()),
            Kind::Set => Event::Member { member: self.text(), expire_at_ms: self.deadline() },
            Kind::Hash => {
                Event::Field { field: self.text(), value: self.text(), expire_at_ms: self.deadline() }
            }
            Kind::ZSet => Event::Scored { member: self.text(), score: f64::from_bits(self.number()) },
            Kind::Stream => unreachable!("streams are no runs"),
        })
    }
}

/// A value as a [`Gatherer`] has put it together.
#[derive(Clone, Debug, PartialEq)]
pub enum Gathered {
    /// A list, a set, a hash or a sorted set.
    Run(Run),
    /// Any other.
    Value(Value),
}

impl Gathered {
    /// Whether it has no elements and is of a type that may not be so: see [`Value::is_empty_container`].
    pub fn is_empty_container(&self) -> bool {
        match self {
            Gathered::Run(run) => run.is_empty(),
            Gathered::Value(value) => value.is_empty_container(),
        }
    }
}

/// Puts values together from their events, one after the other.
#[derive(Default)]
pub struct Gatherer {
    /// Of the run that has begun.
    kind: Option<Kind>,
    len: usize,
    bytes: Vec<u8>,
    /// For values that are no runs.
    other: Collector,
    done: bool,
}

impl Gatherer {
    /// Before the first event.
    pub fn new() -> Gatherer {
        Gatherer::default()
    }

    /// Forgets what has begun.
    pub fn clear(&mut self) {
        (self.kind, self.len, self.done) = (None, 0, false);
        self.bytes.clear();
        self.bytes.shrink_to(KEEP_LEN);
        self.other = Collector::new();
    }

    /// Whether the value is complete.
    pub fn is_done(&self) -> bool {
        self.done
    }

    /// The value, once it is complete; what is left is as new.
    pub fn take(&mut self) -> Option<Gathered> {
        if !self.done {
            return None;
        }
        let gathered = match self.kind {
            // Long ones are not copied once more.
            Some(kind) => {
                let long = self.bytes.len() > KEEP_LEN;
                let bytes =
                    if long { std::mem::take(&mut self.bytes).into() } else { self.bytes.as_slice().into() };
                Gathered::Run(Run { kind, len: self.len, bytes })
            }
            None => Gathered::Value(std::mem::take(&mut self.other).finish().expect("it is done")),
        };
        self.clear();
        Some(gathered)
    }

    #[inline]
    fn text(&mut self, text: &[u8]) {
        match u8::try_from(text.len()) {
            Ok(len) if len != LONG => self.bytes.push(len),
            _ => {
                self.bytes.push(LONG);
                self.bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
            }
        }
        self.bytes.extend_from_slice(text);
    }

    #[inline]
    fn deadline(&mut self, deadline: Option<u64>) {
        self.bytes.push(u8::from(deadline.is_some()));
        if let Some(at) = deadline {
            self.bytes.extend_from_slice(&at.to_le_bytes());
        }
    }
}

impl ValueSink for Gatherer {
    #[inline]
    fn event(&mut self, event: Event<'_>) -> Result<(), Refused> {
        let Some(kind) = self.kind else {
            match event {
                Event::Begin { kind: kind @ (Kind::List | Kind::Set | Kind::Hash | Kind::ZSet), .. }
                    if !self.other.has_begun() =>
                {
                    self.kind = Some(kind);
                }
                event => {
                    self.other.event(event)?;
                    self.done = self.other.is_done();
                }
            }
            return Ok(());
        };
        match (kind, event) {
            (Kind::List, Event::Element(element)) => self.text(element),
            (Kind::Set, Event::Member { member, expire_at_ms }) => {
                self.text(member);
                self.deadline(expire_at_ms);
            }
            (Kind::Hash, Event::Field { field, value, expire_at_ms }) => {
                self.text(field);
                self.text(value);
                self.deadline(expire_at_ms);
            }
            (Kind::ZSet, Event::Scored { member, score }) => {
                self.text(member);
                self.bytes.extend_from_slice(&score.to_bits().to_le_bytes());
            }
            (_, Event::End) => {
                self.done = true;
                return Ok(());
            }
            _ => return Err(MISPLACED),
        }
        self.len += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever goes in as events comes out as the same, one value after the other, short and long texts, with deadlines
    /// and without.
    #[test]
    fn comes_out_as_it_went_in() {
        let texts = [0, 1, 254, 255, 256, 70_000].map(|len| vec![b'x'; len]);
        let deadlines = [None, Some(0), Some(u64::MAX)];
        let mut gatherer = Gatherer::new();
        for kind in [Kind::List, Kind::Set, Kind::Hash, Kind::ZSet, Kind::List] {
            let mut events = Vec::new();
            for (number, text) in texts.iter().enumerate() {
                let expire_at_ms = deadlines[number % 3];
                events.push(match kind {
                    Kind::List => Event::Element(text),
                    Kind::Set => Event::Member { member: text, expire_at_ms },
                    Kind::Hash => Event::Field { field: text, value: &texts[number / 2], expire_at_ms },
                    _ => Event::Scored { member: text, score: -0.5 * number as f64 },
                });
            }
            assert_eq!(gatherer.event(Event::Begin { kind, count: 0 }), Ok(()));
            for event in &events {
                assert_eq!(gatherer.event(*event), Ok(()));
                assert!(!gatherer.is_done() && gatherer.take().is_none());
            }
            assert_eq!(gatherer.event(Event::Claimed(Default::default())), Err(MISPLACED));
            assert_eq!(gatherer.event(Event::End), Ok(()));
            let Some(Gathered::Run(run)) = gatherer.take() else { panic!("a run") };
            assert_eq!((run.kind(), run.len()), (kind, texts.len()));
            assert!(run.iter().eq(events));
        }
        let value = Value::Json(b"{}".to_vec());
        value.emit(&mut gatherer).expect("in order");
        assert_eq!(gatherer.take(), Some(Gathered::Value(value)));
    }
}
