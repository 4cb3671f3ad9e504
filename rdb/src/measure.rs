//! The shape of a value that is only known as events.
//!
//! Whoever writes a value must know its [`Shape`] first; whoever reads one has its events first. In between, the
//! events are kept somewhere and a [`Measure`] looks on. It keeps no elements but the last one of a small sorted set.

use std::cmp::Ordering;

use crate::encode::{
    COMPACT_ELEMENT_LEN_MAX, COMPACT_HASH_COUNT_MAX, COMPACT_ZSET_COUNT_MAX, INTSET_COUNT_MAX, NodeSizer,
    Shape,
};
use crate::error::Refused;
use crate::event::{Event, Kind, ValueSink};
use crate::wire::canonical_i64;

/// Looks on while a value passes by.
pub struct Measure {
    first: First,
    count: u64,
    sizer: NodeSizer,
    /// An element has a deadline of its own.
    expires: bool,
    /// So far the elements are such as compact encodings are for.
    compact: bool,
    /// The member before, of a sorted set that is compact so far.
    last: Option<(Vec<u8>, f64)>,
}

/// What the first event said.
#[derive(Clone, Copy)]
enum First {
    None,
    Container(Kind),
    Whole(Shape),
    Module,
}

impl Default for Measure {
    fn default() -> Measure {
        Measure::new()
    }
}

impl Measure {
    /// Before the first event.
    pub fn new() -> Measure {
        Measure {
            first: First::None,
            count: 0,
            sizer: NodeSizer::list(),
            expires: false,
            compact: true,
            last: None,
        }
    }

    /// Elements of a container so far; entries, of a stream.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The shape in which the value is to be written, once all its events were seen. None for values of modules,
    /// whose contents are no events, and before the first event.
    pub fn shape(&self) -> Option<Shape> {
        let count = self.count;
        Some(match self.first {
            First::None | First::Module => return None,
            First::Whole(shape) => shape,
            First::Container(Kind::List) => Shape::List { nodes: self.sizer.nodes() },
            First::Container(Kind::Stream) => Shape::Stream { nodes: self.sizer.nodes() },
            First::Container(Kind::Set) if self.expires => Shape::ExpiringSet { count },
            First::Container(Kind::Set) if self.compact => Shape::IntSet,
            First::Container(Kind::Set) => Shape::Set { count },
            First::Container(Kind::Hash) if self.expires => Shape::ExpiringHash { count },
            First::Container(Kind::Hash) if self.compact => Shape::CompactHash,
            First::Container(Kind::Hash) => Shape::Hash { count },
            First::Container(Kind::ZSet) if self.compact => Shape::CompactZSet,
            First::Container(Kind::ZSet) => Shape::ZSet { count },
        })
    }

    fn scored(&mut self, member: &[u8], score: f64) {
        let ascends = |(before, of_before): &(Vec<u8>, f64)| {
            let order = of_before.partial_cmp(&score).unwrap_or(Ordering::Equal);
            order.then_with(|| before.as_slice().cmp(member)) == Ordering::Less
        };
        self.compact = self.compact
            && self.count <= COMPACT_ZSET_COUNT_MAX
            && member.len() <= COMPACT_ELEMENT_LEN_MAX
            && self.last.as_ref().is_none_or(ascends);
        self.last = self.compact.then(|| {
            let (mut text, _) = self.last.take().unwrap_or_default();
            text.clear();
            text.extend_from_slice(member);
            (text, score)
        });
    }
}

impl ValueSink for Measure {
    fn event(&mut self, event: Event<'_>) -> Result<(), Refused> {
        match event {
            Event::String(_) => self.first = First::Whole(Shape::String),
            Event::Json(_) => self.first = First::Whole(Shape::Json),
            Event::Module { .. } => self.first = First::Module,
            Event::Begin { kind, .. } => {
                self.first = First::Container(kind);
                if kind == Kind::Stream {
                    self.sizer = NodeSizer::stream();
                }
            }
            Event::Element(element) => {
                self.count += 1;
                self.sizer.add_element(element.len());
            }
            Event::Member { member, expire_at_ms } => {
                self.count += 1;
                self.expires |= expire_at_ms.is_some();
                self.compact =
                    self.compact && self.count <= INTSET_COUNT_MAX && canonical_i64(member).is_some();
            }
            Event::Field { field, value, expire_at_ms } => {
                self.count += 1;
                self.expires |= expire_at_ms.is_some();
                self.compact = self.compact
                    && self.count <= COMPACT_HASH_COUNT_MAX
                    && field.len().max(value.len()) <= COMPACT_ELEMENT_LEN_MAX;
            }
            Event::Scored { member, score } => {
                self.count += 1;
                self.scored(member, score);
            }
            Event::Entry { fields, .. } => {
                self.count += 1;
                self.sizer.add_entry(fields);
            }
            Event::Bloom(_) => self.first = First::Whole(Shape::Bloom),
            Event::CountMin { .. } => self.first = First::Whole(Shape::CountMin),
            Event::TopK(_) => self.first = First::Whole(Shape::TopK),
            Event::Cuckoo(_) => self.first = First::Whole(Shape::Cuckoo),
            Event::StreamMeta(_)
            | Event::Group(_)
            | Event::Pending(_)
            | Event::Consumers(_)
            | Event::Consumer(_)
            | Event::Claimed(_)
            | Event::BloomFilter { .. }
            | Event::TopKItem { .. }
            | Event::TopKCounters { .. }
            | Event::CuckooFilter { .. }
            | Event::Bytes(_)
            | Event::End => {}
        }
        Ok(())
    }
}
