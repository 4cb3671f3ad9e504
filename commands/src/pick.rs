//! Random elements of a collection, as SRANDMEMBER, HRANDFIELD and ZRANDMEMBER with a count choose them.
//!
//! A reply of many is a long one (`long.rs`): elements are chosen when their piece is written, from a clone.

use std::collections::HashSet;
use std::hash::Hash;

use damselfly_keyspace::{Collection, Item, UnixMs};
use damselfly_protocol::{Proto, ReplyWriter};

use crate::long::reply_made;
use crate::random::Random;
use crate::{CmdResult, CommandError, Cx};

/// Most elements that one command repeats. Its reply is one that a few bytes of request can make any size; Redis would
/// try.
const REPEATED_MAX: usize = 1 << 24;

/// Below one in so many, elements are drawn until enough are different; above, all are walked.
const SPARSE: usize = 16;

/// Elements that are looked at in one step: some microseconds' worth.
const LOOKS_PER_STEP: usize = 32;

/// What belongs to an element.
#[derive(Clone, Copy)]
pub(crate) enum With<'a> {
    Nothing,
    Value(Item<'a>),
    Score(f64),
}

/// A collection whose elements can be chosen by chance.
pub(crate) trait Picked: Collection + Clone + Send + 'static {
    /// What tells an element from the others, as long as the collection does not change.
    type Mark: Hash + Eq + Send;
    /// How many elements there are to choose from.
    fn choices(&self, now: UnixMs) -> usize;
    /// Whether draws may take long, because much of what is drawn does not count.
    fn draws_slowly(&self, _now: UnixMs) -> bool {
        false
    }
    /// Shows a random element. There is one.
    fn draw(&self, now: UnixMs, random: &mut Random, show: impl FnOnce(Self::Mark, Item<'_>, With<'_>));
    /// Shows about `count` elements from a cursor on, and returns where to go on: 0 at the end.
    fn walk(&self, cursor: u64, count: usize, now: UnixMs, show: impl FnMut(Item<'_>, With<'_>)) -> u64;
}

/// How elements are shown: RESP2 has one flat array of them and what belongs to them, RESP3 an array of pairs.
#[derive(Clone, Copy)]
struct Shape {
    with: bool,
    nested: bool,
}

impl Shape {
    fn begin(out: &mut ReplyWriter<'_>, len: usize, with: bool) -> Shape {
        let nested = with && out.proto() == Proto::Resp3;
        out.array(if with && !nested { 2 * len } else { len });
        Shape { with, nested }
    }

    fn write(self, out: &mut ReplyWriter<'_>, element: Item<'_>, with: With<'_>) {
        if self.nested {
            out.array(2);
        }
        item(out, element);
        match with {
            With::Value(value) if self.with => item(out, value),
            With::Score(score) if self.with => out.double(score),
            _ => {}
        }
    }
}

fn item(out: &mut ReplyWriter<'_>, item: Item<'_>) {
    match item {
        Item::Bytes(bytes) => out.bulk(bytes),
        Item::Int(number) => out.bulk_int(number),
    }
}

/// How the elements are chosen that are still wanted.
enum How<M> {
    /// Any, again and again.
    Repeated,
    /// Drawn, unless they were before.
    Drawn(HashSet<M>),
    /// In one walk over all, of which so many are left, each taken with the probability that leaves the rest uniform.
    Walked { cursor: u64, left: usize },
}

struct Picking<M> {
    random: Random,
    now: UnixMs,
    shape: Shape,
    wanted: usize,
    how: How<M>,
}

impl<M: Hash + Eq + Send> Picking<M> {
    /// Looks at some elements; true when all that were wanted are written.
    fn step<C: Picked<Mark = M>>(&mut self, held: &C, out: &mut ReplyWriter<'_>) -> bool {
        let Picking { random, now, shape, wanted, how } = self;
        match how {
            How::Repeated => {
                for _ in 0..LOOKS_PER_STEP.min(*wanted) {
                    held.draw(*now, random, |_, element, with| shape.write(out, element, with));
                    *wanted -= 1;
                }
            }
            How::Drawn(drawn) => {
                for _ in 0..LOOKS_PER_STEP.min(*wanted) {
                    held.draw(*now, random, |mark, element, with| {
                        if drawn.insert(mark) {
                            shape.write(out, element, with);
                            *wanted -= 1;
                        }
                    });
                }
            }
            How::Walked { cursor, left } => {
                *cursor = held.walk(*cursor, LOOKS_PER_STEP, *now, |element, with| {
                    if random.below(*left) < *wanted {
                        shape.write(out, element, with);
                        *wanted -= 1;
                    }
                    *left -= 1;
                });
            }
        }
        *wanted == 0
    }
}

/// Replies with `count` different elements of the collection under a key, all if it has fewer; with so many that may be
/// the same if it is negative. `with` is whether what belongs to them is shown.
pub(crate) fn pick<C: Picked>(cx: &mut Cx<'_>, key: &[u8], count: i64, with: bool) -> CmdResult {
    let (now, random) = (cx.ks.now, Random::new(cx.ks.random()));
    let held = cx.ks.view::<C>(cx.db, key)?.filter(|_| count != 0);
    let Some(held) = held else {
        cx.out.array(0);
        return Ok(());
    };
    let (len, wanted) = (held.choices(now), usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX));
    let (wanted, looks, how) = if count < 0 {
        (wanted, wanted, How::Repeated)
    } else if wanted > len / SPARSE || held.draws_slowly(now) {
        (wanted.min(len), len, How::Walked { cursor: 0, left: len })
    } else {
        (wanted, wanted, How::Drawn(HashSet::with_capacity(wanted)))
    };
    if wanted > REPEATED_MAX && count < 0 {
        return Err(CommandError::OutOfRange);
    }
    let shape = Shape::begin(&mut cx.out, wanted, with);
    let mut picking = Picking { random, now, shape, wanted, how };
    let later = cx.later.as_deref_mut().filter(|_| looks > cx.env.at_once_max);
    reply_made(&mut cx.out, later, held, move |held: &C, out| picking.step(held, out));
    Ok(())
}
