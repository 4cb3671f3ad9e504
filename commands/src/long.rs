//! Replies that are written in pieces.
//!
//! The reply of a big collection takes tens of milliseconds to write, and a shard has other clients. So the handler
//! writes only the head of such a reply, and puts a clone of the collection beside it ([`Long`]): a clone shares the
//! nodes, and whoever writes to the collection meanwhile copies the nodes that it touches. The server asks for a
//! piece when the client has taken the one before. So a reply takes the memory of a piece, however slow the client,
//! and shows the collection as it was when the command ran.
//!
//! A long string is not copied at all: the reply is its head, and the string itself, which the shard lends.
//!
//! Where a reply cannot wait (inside of a transaction or a script) there is no place for a clone in the surroundings,
//! and the handler writes it at once.

use std::ops::Range;
use std::sync::Arc;

use damselfly_keyspace::stream::StreamId;
use damselfly_keyspace::{Collection, Item, List, Loc, Object, UnixMs};
use damselfly_protocol::{Proto, ReplyWriter};

use crate::Cx;
use crate::stream::reply::entry;
use crate::task::{Later, Rest};
use crate::zset::Pairs;

/// Bytes from which a reply is written in pieces: some hundred microseconds' worth.
const LONG_FROM: usize = 256 * 1024;

/// Bytes of a piece of what is written before it is asked for.
const PIECE_LEN: usize = 16 * 1024;

/// Length from which a string is lent, and from which one behind so many bytes of replies is: a pipeline of them would
/// be copied before anything of it is sent.
pub(crate) const LENT_FROM: usize = 64 * 1024;
pub(crate) const LENT_LATER_FROM: usize = 4 * 1024;
pub(crate) const LATER: usize = 256 * 1024;

/// Elements after which a look at the piece's length is due, at most.
const ELEMENTS_PER_LOOK: usize = 512;

/// The rest of a reply, see the module's head.
pub struct Long {
    held: Held,
    walk: Walk,
    proto: Proto,
    /// Elements between two looks at the piece's length.
    look: usize,
}

/// Calls of such a function in one piece, at most: what it writes may be little.
const CALLS_PER_PIECE: usize = 64;

/// Writes the next part of a reply, some microseconds' worth; true with the last one.
type Making = Box<dyn FnMut(&Object, &mut ReplyWriter<'_>) -> bool + Send>;

enum Held {
    Object(Object),
    /// A part of it, sent as it is.
    String(Arc<Vec<u8>>, Range<usize>),
}

/// What is still to be shown.
pub(crate) enum Walk {
    /// Fields of a hash from a cursor on.
    Fields { cursor: u64, now: UnixMs, names: bool, values: bool },
    /// Members of a set from a cursor on.
    Members { cursor: u64 },
    /// Elements of a list by number.
    Elements { range: Range<usize>, reverse: bool },
    /// A string.
    Whole,
    /// Elements of a list that are the reply's bytes, see [`Written`].
    Bytes(Range<usize>),
    /// Members of a sorted set by rank.
    Ranks { ranks: Range<usize>, reverse: bool, pairs: Pairs },
    /// What a function makes of the collection.
    Made(Making),
    /// Entries of a stream between two ids, so many.
    Entries { start: StreamId, end: StreamId, reverse: bool, left: usize },
}

/// Whether a reply with `count` of the `len` elements of a collection is written in pieces, as far as its size tells.
pub(crate) fn is_long(count: usize, len: usize, heap_bytes: usize) -> bool {
    heap_bytes > LONG_FROM && count as u128 * heap_bytes as u128 > len as u128 * LONG_FROM as u128
}

/// Puts the rest of a reply aside if it is long and may wait; false if the handler must write it. `count` is how many
/// elements it shows, `len` how many there are.
pub(crate) fn put_aside<C: Collection + Clone>(
    later: &mut Later<'_>,
    proto: Proto,
    held: &C,
    (count, len, heap_bytes): (usize, usize, usize),
    walk: impl FnOnce() -> Walk,
) -> bool {
    let Some(place) = later else { return false };
    if !is_long(count, len, heap_bytes) {
        return false;
    }
    let look = (LONG_FROM * len / heap_bytes).clamp(1, ELEMENTS_PER_LOOK);
    let held = Held::Object(held.clone().wrap());
    **place = Some(Rest::Reply(Box::new(Long { held, walk: walk(), proto, look })));
    true
}

/// Begins the reply with the string of `len` bytes at a location, and puts the string aside, if it is long and may wait;
/// false if the handler must write it. Nothing may follow in this reply.
pub(crate) fn put_string_aside(cx: &mut Cx<'_>, loc: Loc, len: usize) -> bool {
    put_part_aside(cx, loc, 0..len)
}

/// The same with a part of the string.
pub(crate) fn put_part_aside(cx: &mut Cx<'_>, loc: Loc, part: Range<usize>) -> bool {
    let len = part.len();
    let from = if cx.out.len() > LATER { LENT_LATER_FROM } else { LENT_FROM };
    let Some(place) = cx.later.as_mut().filter(|_| len >= from) else { return false };
    let Some(string) = cx.ks.lend_string(cx.db, loc) else { return false };
    cx.out.bulk_head(len);
    let (held, proto) = (Held::String(string, part), cx.out.proto());
    **place = Some(Rest::Reply(Box::new(Long { held, walk: Walk::Whole, proto, look: 1 })));
    true
}

/// Replies with what `make` makes of a collection, which writes some microseconds' worth at a time and is true with the
/// last: later, in pieces, where there is a place for it, else now.
pub(crate) fn reply_made<C: Collection + Clone>(
    out: &mut ReplyWriter<'_>,
    later: Option<&mut Option<Rest>>,
    held: &C,
    mut make: impl FnMut(&C, &mut ReplyWriter<'_>) -> bool + Send + 'static,
) {
    match later {
        Some(place) => *place = Some(Rest::Reply(Long::made(held, out.proto(), make))),
        None => while !make(held, out) {},
    }
}

impl Long {
    fn made<C: Collection + Clone>(
        held: &C,
        proto: Proto,
        mut make: impl FnMut(&C, &mut ReplyWriter<'_>) -> bool + Send + 'static,
    ) -> Box<Long> {
        let make = move |held: &Object, out: &mut ReplyWriter<'_>| {
            make(C::of(held).expect("what is held keeps its type"), out)
        };
        let held = Held::Object(held.clone().wrap());
        Box::new(Long { held, walk: Walk::Made(Box::new(make)), proto, look: 1 })
    }

    /// Appends a piece of about `len` bytes to the output; true when the reply is whole.
    pub fn write_some(&mut self, output: &mut Vec<u8>, len: usize) -> bool {
        let full = output.len() + len;
        let look = self.look;
        let out = &mut ReplyWriter::new(output, self.proto);
        let Held::Object(held) = &self.held else { unreachable!("a string is sent as it is") };
        match (held, &mut self.walk) {
            (held, Walk::Made(make)) => {
                for _ in 0..CALLS_PER_PIECE {
                    if make(held, out) {
                        return true;
                    }
                    if out.len() >= full {
                        break;
                    }
                }
                false
            }
            (Object::Hash(hash), Walk::Fields { cursor, now, names, values }) => loop {
                *cursor = hash.scan(*cursor, look, *now, |field| {
                    if *names {
                        reply_item(out, field.field);
                    }
                    if *values {
                        reply_item(out, field.value);
                    }
                });
                if *cursor == 0 || out.len() >= full {
                    return *cursor == 0;
                }
            },
            (Object::Set(set), Walk::Members { cursor }) => loop {
                *cursor = set.scan(*cursor, look, |member| reply_item(out, member));
                if *cursor == 0 || out.len() >= full {
                    return *cursor == 0;
                }
            },
            (Object::List(list), Walk::Elements { range, reverse: false }) => {
                for item in list.range(range.start, range.end) {
                    reply_item(out, item);
                    range.start += 1;
                    if out.len() >= full {
                        break;
                    }
                }
                range.start >= range.end
            }
            (Object::List(list), Walk::Elements { range, reverse: true }) => {
                for item in list.range(range.start, range.end).rev() {
                    reply_item(out, item);
                    range.end -= 1;
                    if out.len() >= full {
                        break;
                    }
                }
                range.start >= range.end
            }
            (Object::List(list), Walk::Bytes(range)) => {
                for item in list.range(range.start, range.end) {
                    out.raw(item.as_bytes(&mut [0; 20]));
                    range.start += 1;
                    if out.len() >= full {
                        break;
                    }
                }
                range.start >= range.end
            }
            (Object::ZSet(set), Walk::Ranks { ranks, reverse, pairs }) => {
                while ranks.start < ranks.end && out.len() < full {
                    let count = ranks.len().min(look);
                    let piece = if *reverse {
                        ranks.end -= count;
                        ranks.end..ranks.end + count
                    } else {
                        ranks.start += count;
                        ranks.start - count..ranks.start
                    };
                    pairs.write_all(out, set, piece, *reverse);
                }
                ranks.start >= ranks.end
            }
            (Object::Stream(stream), Walk::Entries { start, end, reverse, left }) => {
                let range =
                    if *reverse { stream.range_reverse(*start, *end) } else { stream.range(*start, *end) };
                for one in range.take(*left) {
                    let id = one.id;
                    entry(out, one);
                    *left -= 1;
                    // Behind the highest id nothing is left to be asked for.
                    match if *reverse { id.previous() } else { id.next() } {
                        Some(id) if *reverse => *end = id,
                        Some(id) => *start = id,
                        None => *left = 0,
                    }
                    if out.len() >= full {
                        break;
                    }
                }
                *left == 0
            }
            _ => unreachable!("a walk is put aside with a collection of its type"),
        }
    }

    /// The string of which a part is its bytes, behind which there is only a line's end; None if it is to be written.
    pub fn string(&self) -> Option<(&Arc<Vec<u8>>, Range<usize>)> {
        match &self.held {
            Held::Object(_) => None,
            Held::String(string, part) => Some((string, part.clone())),
        }
    }

    /// What it held, to be freed in steps.
    pub fn into_held(self) -> Option<Object> {
        match self.held {
            Held::Object(object) => Some(object),
            Held::String(..) => None,
        }
    }
}

/// A part of a reply that a command in steps writes before it is asked for: its bytes, in the elements of a list.
pub(crate) struct Written {
    pieces: List,
    piece: Vec<u8>,
    proto: Proto,
}

impl Written {
    /// Nothing yet, for a client that speaks this.
    pub(crate) fn new(proto: Proto) -> Written {
        Written { pieces: List::new(), piece: Vec::new(), proto }
    }

    /// Appends some of the reply: steps' worth, not all of it.
    pub(crate) fn write(&mut self, write: impl FnOnce(&mut ReplyWriter<'_>)) {
        write(&mut ReplyWriter::new(&mut self.piece, self.proto));
        if self.piece.len() >= PIECE_LEN {
            self.end_piece();
        }
    }

    fn end_piece(&mut self) {
        if !self.piece.is_empty() {
            self.pieces.push_back(&self.piece);
            self.piece.clear();
        }
    }

    /// Replies with all of it, behind the head that is written.
    pub(crate) fn reply(&mut self, cx: &mut Cx<'_>) {
        self.end_piece();
        let count = self.pieces.len();
        let size = (count, count, self.pieces.heap_bytes());
        if !put_aside(&mut cx.later, self.proto, &self.pieces, size, || Walk::Bytes(0..count)) {
            self.pieces.iter().for_each(|piece| cx.out.raw(piece.as_bytes(&mut [0; 20])));
        }
    }

    /// What it holds, to be freed in steps.
    pub(crate) fn into_held(self) -> Object {
        self.pieces.wrap()
    }
}

/// Replies with an element.
#[inline]
fn reply_item(out: &mut ReplyWriter<'_>, item: Item<'_>) {
    match item {
        Item::Bytes(bytes) => out.bulk(bytes),
        Item::Int(number) => out.bulk_int(number),
    }
}
