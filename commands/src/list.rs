//! Lists: elements at either end, by number, by value, and from list to list.
//!
//! Most commands come in pairs that differ in the end they work at, so the ends are a type and the handlers are
//! shared. Replies are written straight from the list's memory; only an element that changes lists is copied.

mod blocking;

use std::ops::Range;

use damselfly_keyspace::{Class, Collection, Item, List, Loc, Object, Removal, Search};
use damselfly_protocol::number::parse_i64;
use damselfly_protocol::reply::ReplyWriter;

use crate::long::{Walk, Written, put_aside};
use crate::many::{Many, change};
use crate::relay::{Looked, Parcel, Relay};
use crate::task::{Rest, Task, Work, edit_dropping, work};
use crate::{Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Run, Spread};

use blocking::{BLMOVE, BLMPOP, BLPOP, BRPOP, BRPOPLPUSH};

/// Nodes of a list, and elements, that a command in steps looks at in one.
const NODES_PER_STEP: usize = 4;
const LOOKS_PER_STEP: usize = 512;

pub(crate) const COMMANDS: &[&Command] = &[
    &BLMOVE,
    &BLMPOP,
    &BLPOP,
    &BRPOP,
    &BRPOPLPUSH,
    &LINDEX,
    &LINSERT,
    &LLEN,
    &LMOVE,
    &LMPOP,
    &LPOP,
    &LPOS,
    &LPUSH,
    &LPUSHX,
    &LRANGE,
    &LREM,
    &LSET,
    &LTRIM,
    &RPOP,
    &RPOPLPUSH,
    &RPUSH,
    &RPUSHX,
];

/// An end of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Where number 0 is.
    Left,
    /// Where number -1 is.
    Right,
}

impl End {
    /// The end that the next argument names.
    fn take(args: &mut Args<'_>) -> Result<End, CommandError> {
        if args.take_word("LEFT") {
            Ok(End::Left)
        } else if args.take_word("RIGHT") {
            Ok(End::Right)
        } else {
            Err(CommandError::Syntax)
        }
    }

    #[inline]
    fn push(self, list: &mut List, value: &[u8]) {
        match self {
            End::Left => list.push_front(value),
            End::Right => list.push_back(value),
        }
    }

    #[inline]
    fn pop_with<R>(self, list: &mut List, show: impl FnOnce(Item<'_>) -> R) -> Option<R> {
        match self {
            End::Left => list.pop_front_with(show),
            End::Right => list.pop_back_with(show),
        }
    }

    fn element(self, list: &List) -> Option<Item<'_>> {
        match self {
            End::Left => list.front(),
            End::Right => list.back(),
        }
    }

    fn announce_push(self, cx: &mut Cx<'_>, key: &[u8]) {
        cx.changed(key, Class::List, if self == End::Left { "lpush" } else { "rpush" });
    }

    /// Announces that elements were taken, and the key with the last one if it is gone.
    fn announce_pop(self, cx: &mut Cx<'_>, key: &[u8], gone: bool) {
        announce(cx, key, if self == End::Left { "lpop" } else { "rpop" }, gone);
    }
}

/// Announces a change that may have removed the last element and with it the key.
#[inline]
fn announce(cx: &mut Cx<'_>, key: &[u8], event: &'static str, gone: bool) {
    cx.changed(key, Class::List, event);
    if gone {
        cx.changed(key, Class::Generic, "del");
    }
}

#[inline]
fn reply_item(out: &mut ReplyWriter<'_>, item: Item<'_>) {
    match item {
        Item::Bytes(bytes) => out.bulk(bytes),
        Item::Int(number) => out.bulk_int(number),
    }
}

/// The number of the element that a client's `index` means, negative ones counted from the end.
#[inline]
fn position(index: i64, len: usize) -> Option<usize> {
    let index = if index < 0 { index + len as i64 } else { index };
    usize::try_from(index).ok().filter(|&index| index < len)
}

/// From `start` to `stop`, both included and both counted from the end if negative, as far as the list goes.
#[inline]
fn span(start: i64, stop: i64, len: usize) -> Range<usize> {
    let len = len as i64;
    let [start, stop] = [start, stop].map(|at| if at < 0 { (at + len).max(-1) } else { at.min(len) });
    let (start, end) = (start.max(0), (stop + 1).min(len));
    start as usize..end.max(start) as usize
}

const LINDEX: Command = Command {
    name: "LINDEX",
    arity: Arity::Exactly(3),
    keys: Keys::First,
    flags: Flags::READ,
    spread: Spread::Single,
    group: Group::List,
    since: "1.0.0",
    syntax: "key index",
    summary: "Returns the element of a list with this number.",
    run: Run::Shard(lindex),
};

fn lindex(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    let Some(list) = cx.ks.view::<List>(cx.db, key)? else {
        cx.out.null();
        return Ok(());
    };
    match position(args.take_int()?, list.len()).and_then(|index| list.get(index)) {
        Some(item) => reply_item(&mut cx.out, item),
        None => cx.out.null(),
    }
    Ok(())
}

const LINSERT: Command = Command {
    name: "LINSERT",
    arity: Arity::Exactly(5),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS),
    spread: Spread::Single,
    group: Group::List,
    since: "2.2.0",
    syntax: "key <BEFORE | AFTER> pivot element",
    summary: "Inserts an element before or after another one.",
    run: Run::Shard(linsert),
};

fn linsert(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    let before = args.take_word("BEFORE");
    if !before && !args.take_word("AFTER") {
        return Err(CommandError::Syntax);
    }
    let (pivot, element) = (args.take()?, args.take()?);
    let Some(loc) = cx.ks.find_collection::<List>(cx.db, key)? else {
        cx.out.int(0);
        return Ok(());
    };
    let in_steps = cx.ks.collection::<List>(cx.db, loc)?.len() > cx.env.at_once_max;
    let (search, pivot, element) = (Search::default(), pivot.into(), element.into());
    work(cx, key, loc, Inserting { search, pivot, element, before, len: None }, in_steps)
}

/// LINSERT.
struct Inserting {
    search: Search,
    pivot: Box<[u8]>,
    element: Box<[u8]>,
    before: bool,
    /// How long the list is then; None if there is no pivot.
    len: Option<usize>,
}

impl Work for Inserting {
    type To = List;

    fn step(&mut self, list: &mut List) -> bool {
        let is_over = list.search_some(&mut self.search, &*self.pivot, NODES_PER_STEP);
        if is_over {
            self.len = list.insert_at(&mut self.search, &*self.pivot, &*self.element, !self.before);
        }
        is_over
    }

    fn end(&mut self, cx: &mut Cx<'_>, key: &[u8], gone: Option<bool>) -> CmdResult {
        if self.len.is_some() && gone.is_some() {
            cx.changed(key, Class::List, "linsert");
        }
        cx.out.int(self.len.map_or(-1, |len| len as i64));
        Ok(())
    }
}

const LLEN: Command = Command {
    name: "LLEN",
    arity: Arity::Exactly(2),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::List,
    since: "1.0.0",
    syntax: "key",
    summary: "Returns the length of a list.",
    run: Run::Shard(llen),
};

fn llen(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let len = cx.ks.view::<List>(cx.db, args.take()?)?.map_or(0, List::len);
    cx.out.int(len as i64);
    Ok(())
}

const LMOVE: Command = Command {
    name: "LMOVE",
    arity: Arity::Exactly(5),
    keys: Keys::Range { first: 1, last: 2, step: 1 },
    flags: Flags::WRITE.with(Flags::GROWS),
    spread: Spread::Relay(&MOVE),
    group: Group::List,
    since: "6.2.0",
    syntax: "source destination <LEFT | RIGHT> <LEFT | RIGHT>",
    summary: "Moves an element from an end of a list to an end of another one and returns it.",
    run: Run::Shard(lmove),
};

/// LMOVE in steps.
const MOVE: Relay = Relay { look, put, take };

fn lmove(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    relay(cx, args)
}

/// What LMOVE and RPOPLPUSH are to do. The first one's name has been taken off, so their arguments tell them apart.
struct Move<'a> {
    source: &'a [u8],
    from: End,
    target: &'a [u8],
    to: End,
}

impl<'a> Move<'a> {
    fn take(args: &mut Args<'a>) -> Result<Move<'a>, CommandError> {
        let (source, target) = (args.take()?, args.take()?);
        // The blocking ones have a timeout behind.
        if args.len() < 2 {
            return Ok(Move { source, from: End::Right, target, to: End::Left });
        }
        let (from, to) = (End::take(args)?, End::take(args)?);
        Ok(Move { source, from, target, to })
    }
}

/// All steps on one shard. The two lists may be one, which then keeps its key even if it has no other element,
/// because the element is put before it is taken.
fn relay(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    if let Looked::Found(Some(parcel)) = look(cx, args)? {
        put(cx, args, Some(&parcel))?;
        take(cx, args, &parcel);
    }
    Ok(())
}

fn look(cx: &mut Cx<'_>, mut args: Args<'_>) -> Result<Looked, CommandError> {
    let Move { source, from, .. } = Move::take(&mut args)?;
    let list = cx.ks.peek::<List>(cx.db, source)?;
    let Some(element) = list.and_then(|list| from.element(list)).map(|item| item.to_vec()) else {
        cx.out.null();
        return Ok(Looked::Answered);
    };
    Ok(Looked::Found(Some(Parcel { element, expire_at: None })))
}

fn put(cx: &mut Cx<'_>, mut args: Args<'_>, parcel: Option<&Parcel>) -> CmdResult {
    let Move { target, to, .. } = Move::take(&mut args)?;
    let Some(Parcel { element, .. }) = parcel else { return Ok(()) };
    cx.ks.edit_or_new(cx.db, target, |list: &mut List| to.push(list, element))?;
    to.announce_push(cx, target);
    cx.out.bulk(element);
    Ok(())
}

fn take(cx: &mut Cx<'_>, mut args: Args<'_>, _parcel: &Parcel) {
    let Ok(Move { source, from, .. }) = Move::take(&mut args) else { return };
    let edit = cx.ks.edit(cx.db, source, |list: &mut List| from.pop_with(list, |_| ()));
    if let Ok(Some(edit)) = edit {
        from.announce_pop(cx, source, edit.gone);
    }
}

const LMPOP: Command = Command {
    name: "LMPOP",
    arity: Arity::AtLeast(4),
    keys: Keys::Counted { count: 1, also: 0 },
    flags: Flags::WRITE.with(Flags::MOVABLE_KEYS),
    spread: Spread::Together,
    group: Group::List,
    since: "7.0.0",
    syntax: "numkeys key [key ...] <LEFT | RIGHT> [COUNT count]",
    summary: "Takes elements from an end of the first of several lists that is there.",
    run: Run::Shard(lmpop),
};

/// Number of keys, end and count of LMPOP.
fn take_mpop(args: &mut Args<'_>) -> Result<(usize, End, usize), CommandError> {
    const NO_KEYS: CommandError = CommandError::text("ERR numkeys should be greater than 0");
    const NO_COUNT: CommandError = CommandError::text("ERR count should be greater than 0");
    let numkeys = take_positive(args, NO_KEYS)?;
    // One argument more must follow the keys: the end.
    if numkeys >= args.len() {
        return Err(CommandError::Syntax);
    }
    for _ in 0..numkeys {
        args.take()?;
    }
    let end = End::take(args)?;
    let mut count = 1;
    if args.len() >= 2 && args.take_word("COUNT") {
        count = take_positive(args, NO_COUNT)?;
    }
    args.end()?;
    Ok((numkeys, end, count))
}

fn lmpop(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let keys = args.rest().skip(1);
    let (numkeys, end, count) = take_mpop(&mut args)?;
    for key in keys.take(numkeys) {
        if let Some(loc) = cx.find(key) {
            let start = cx.out.len();
            cx.out.array(2);
            cx.out.bulk(key);
            if let Err(error) = pop_some(cx, key, loc, end, count) {
                cx.out.truncate(start);
                return Err(error);
            }
            return Ok(());
        }
    }
    cx.out.null_array();
    Ok(())
}

/// The next argument as a number above zero.
fn take_positive(args: &mut Args<'_>, error: CommandError) -> Result<usize, CommandError> {
    match parse_i64(args.take()?) {
        Some(number @ 1..) => Ok(number as usize),
        _ => Err(error),
    }
}

/// Replies with up to `count` elements of the list at a location, the outermost first, and removes them.
fn pop_some(cx: &mut Cx<'_>, key: &[u8], loc: Loc, end: End, count: usize) -> CmdResult {
    let list = cx.ks.collection::<List>(cx.db, loc)?;
    let (len, out) = (list.len(), &mut cx.out);
    let count = count.min(len);
    out.array(count);
    if count == 0 {
        return Ok(());
    }
    let (range, kept) = match end {
        End::Left => (0..count, count..len),
        End::Right => (len - count..len, 0..len - count),
    };
    let (reverse, size) = (end == End::Right, (count, len, list.heap_bytes()));
    if !put_aside(&mut cx.later, out.proto(), list, size, || Walk::Elements { range: range.clone(), reverse })
    {
        let items = list.range(range.start, range.end);
        match end {
            End::Left => items.for_each(|item| reply_item(out, item)),
            End::Right => items.rev().for_each(|item| reply_item(out, item)),
        }
    }
    if kept.is_empty() {
        // The key goes with all elements still in the list: a long one is then freed in steps.
        cx.ks.remove_at(cx.db, loc);
    } else {
        edit_dropping(cx, loc, count, |list: &mut List| list.trim(kept.start, kept.end))?;
    }
    end.announce_pop(cx, key, count == len);
    Ok(())
}

const LPOP: Command = Command {
    name: "LPOP",
    arity: Arity::AtLeast(2),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::List,
    since: "1.0.0",
    syntax: "key [count]",
    summary: "Returns the first elements of a list and removes them.",
    run: Run::Shard(lpop),
};

fn lpop(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    pop(cx, args, End::Left, "lpop")
}

#[inline]
fn pop(cx: &mut Cx<'_>, mut args: Args<'_>, end: End, name: &'static str) -> CmdResult {
    let key = args.take()?;
    if !args.is_empty() {
        return pop_count(cx, key, args, end, name);
    }
    let out = &mut cx.out;
    let edit = cx.ks.edit(cx.db, key, |list: &mut List| end.pop_with(list, |item| reply_item(out, item)))?;
    match edit {
        Some(edit) => end.announce_pop(cx, key, edit.gone),
        None => cx.out.null(),
    }
    Ok(())
}

/// LPOP and RPOP with a count, whose reply is an array.
fn pop_count(cx: &mut Cx<'_>, key: &[u8], mut args: Args<'_>, end: End, name: &'static str) -> CmdResult {
    const NEGATIVE: CommandError = CommandError::text("ERR value is out of range, must be positive");
    if args.len() > 1 {
        return Err(CommandError::arity(name));
    }
    let count = parse_i64(args.take()?).and_then(|count| usize::try_from(count).ok()).ok_or(NEGATIVE)?;
    match cx.find(key) {
        Some(loc) => pop_some(cx, key, loc, end, count),
        None => {
            cx.out.null_array();
            Ok(())
        }
    }
}

const LPOS: Command = Command {
    name: "LPOS",
    arity: Arity::AtLeast(3),
    keys: Keys::First,
    flags: Flags::READ,
    spread: Spread::Single,
    group: Group::List,
    since: "6.0.6",
    syntax: "key element [RANK rank] [COUNT num-matches] [MAXLEN len]",
    summary: "Returns the numbers of matching elements.",
    run: Run::Shard(lpos),
};

fn lpos(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    const RANK_ZERO: CommandError = CommandError::text(
        "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to start \
         from the end of the list",
    );
    const RANK_RANGE: CommandError = CommandError::text(
        "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
    );
    const COUNT_NEGATIVE: CommandError = CommandError::text("ERR COUNT can't be negative");
    const MAXLEN_NEGATIVE: CommandError = CommandError::text("ERR MAXLEN can't be negative");
    let (key, element) = (args.take()?, args.take()?);
    let (mut rank, mut count, mut maxlen) = (1, None, 0);
    while !args.is_empty() {
        if args.take_word("RANK") {
            rank = args.take_int()?;
            match rank {
                0 => return Err(RANK_ZERO),
                i64::MIN => return Err(RANK_RANGE),
                _ => {}
            }
        } else if args.take_word("COUNT") {
            count = Some(take_natural(&mut args, COUNT_NEGATIVE)?);
        } else if args.take_word("MAXLEN") {
            maxlen = take_natural(&mut args, MAXLEN_NEGATIVE)?;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    let list = cx.ks.view::<List>(cx.db, key)?;
    let Some(list) = list else {
        match count {
            None => cx.out.null(),
            Some(_) => cx.out.array(0),
        }
        return Ok(());
    };
    let mut found = Found {
        element: element.into(),
        from_end: rank < 0,
        looked: 0,
        looks: if maxlen == 0 { list.len() } else { list.len().min(maxlen) },
        skip: usize::try_from(rank.unsigned_abs() - 1).unwrap_or(usize::MAX),
        wanted: match count {
            None => 1,
            Some(0) => usize::MAX,
            Some(count) => count,
        },
        is_array: count.is_some(),
        first: None,
        count: 0,
        positions: Written::new(cx.out.proto()),
    };
    if found.looks > cx.env.at_once_max
        && let Some(place) = &mut cx.later
    {
        **place = Some(Rest::Task(Box::new(Finding { list: list.clone(), found })));
        return Ok(());
    }
    while !found.look_on(list) {}
    found.reply(cx);
    Ok(())
}

/// What LPOS has found.
struct Found {
    element: Box<[u8]>,
    /// The last element is looked at first.
    from_end: bool,
    /// Elements that were looked at, and that are looked at, at most.
    looked: usize,
    looks: usize,
    /// Matches that do not count.
    skip: usize,
    /// How many are to be found, at most.
    wanted: usize,
    /// All positions are the reply; else the first one alone.
    is_array: bool,
    first: Option<usize>,
    count: usize,
    positions: Written,
}

impl Found {
    /// Looks at the next elements; true if there is nothing left to look for.
    fn look_on(&mut self, list: &List) -> bool {
        let Found { element, looked, skip, wanted, is_array, first, count, positions, .. } = self;
        let (from, to) = (*looked, (*looked + LOOKS_PER_STEP).min(self.looks));
        let numbers = if self.from_end { list.len() - to..list.len() - from } else { from..to };
        positions.write(|out| {
            let value = Item::of(element);
            let elements = list.range(numbers.start, numbers.end);
            // Whether to look on.
            let mut look = |(item, number)| {
                if item != value {
                    return true;
                }
                if *skip > 0 {
                    *skip -= 1;
                    return true;
                }
                *count += 1;
                first.get_or_insert(number);
                if *is_array {
                    out.int(number as i64);
                }
                *count < *wanted
            };
            match self.from_end {
                true => elements.rev().zip(numbers.rev()).all(&mut look),
                false => elements.zip(numbers).all(&mut look),
            };
        });
        *looked = to;
        to == self.looks || *count == *wanted
    }

    fn reply(&mut self, cx: &mut Cx<'_>) {
        match self.first {
            _ if self.is_array => {
                cx.out.array(self.count);
                self.positions.reply(cx);
            }
            Some(first) => cx.out.int(first as i64),
            None => cx.out.null(),
        }
    }
}

/// LPOS of a long list, in steps.
struct Finding {
    list: List,
    found: Found,
}

impl Task for Finding {
    fn target(&self) -> Option<&[u8]> {
        None
    }

    fn step(&mut self) -> bool {
        self.found.look_on(&self.list)
    }

    fn finish(&mut self, cx: &mut Cx<'_>) -> CmdResult {
        self.found.reply(cx);
        Ok(())
    }

    fn into_held(self: Box<Self>) -> Vec<Object> {
        vec![self.list.wrap(), self.found.positions.into_held()]
    }
}

/// The next argument as a number from zero on. A missing one is a syntax error.
fn take_natural(args: &mut Args<'_>, error: CommandError) -> Result<usize, CommandError> {
    parse_i64(args.take()?).and_then(|number| usize::try_from(number).ok()).ok_or(error)
}

const LPUSH: Command = Command {
    name: "LPUSH",
    arity: Arity::AtLeast(3),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::List,
    since: "1.0.0",
    syntax: "key element [element ...]",
    summary: "Puts elements before the first one of a list, made if it is missing.",
    run: Run::Shard(lpush),
};

fn lpush(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    push(cx, args, End::Left)
}

#[inline]
fn push(cx: &mut Cx<'_>, mut args: Args<'_>, end: End) -> CmdResult {
    let key = args.take()?;
    change(cx, key, args, Pushing::<true> { end, len: 0 })
}

/// LPUSH and RPUSH, and those that push only onto what is there.
struct Pushing<const MAKES: bool> {
    end: End,
    /// How long the list is then.
    len: usize,
}

impl<const MAKES: bool> Many for Pushing<MAKES> {
    type To = List;
    const MAKES: bool = MAKES;

    #[inline]
    fn change(&mut self, list: &mut List, args: Args<'_>, _: &mut ReplyWriter<'_>) {
        for element in args.rest() {
            self.end.push(list, element);
        }
        self.len = list.len();
    }

    #[inline]
    fn end(&mut self, cx: &mut Cx<'_>, key: &[u8], gone: Option<bool>) -> CmdResult {
        if gone.is_some() {
            self.end.announce_push(cx, key);
        }
        cx.out.int(self.len as i64);
        Ok(())
    }
}

const LPUSHX: Command = Command {
    name: "LPUSHX",
    arity: Arity::AtLeast(3),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::List,
    since: "2.2.0",
    syntax: "key element [element ...]",
    summary: "Puts elements before the first one of a list if it is there.",
    run: Run::Shard(lpushx),
};

fn lpushx(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    push_existing(cx, args, End::Left)
}

fn push_existing(cx: &mut Cx<'_>, mut args: Args<'_>, end: End) -> CmdResult {
    let key = args.take()?;
    change(cx, key, args, Pushing::<false> { end, len: 0 })
}

const LRANGE: Command = Command {
    name: "LRANGE",
    arity: Arity::Exactly(4),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::BRIEF),
    spread: Spread::Single,
    group: Group::List,
    since: "1.0.0",
    syntax: "key start stop",
    summary: "Returns the elements of a list between two numbers.",
    run: Run::Shard(lrange),
};

fn lrange(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, start, stop) = (args.take()?, args.take_int()?, args.take_int()?);
    let out = &mut cx.out;
    let Some(list) = cx.ks.view::<List>(cx.db, key)? else {
        out.array(0);
        return Ok(());
    };
    let span = span(start, stop, list.len());
    out.array(span.len());
    let size = (span.len(), list.len(), list.heap_bytes());
    if !put_aside(&mut cx.later, out.proto(), list, size, || Walk::Elements {
        range: span.clone(),
        reverse: false,
    }) {
        list.range(span.start, span.end).for_each(|item| reply_item(out, item));
    }
    Ok(())
}

const LREM: Command = Command {
    name: "LREM",
    arity: Arity::Exactly(4),
    keys: Keys::First,
    flags: Flags::WRITE,
    spread: Spread::Single,
    group: Group::List,
    since: "1.0.0",
    syntax: "key count element",
    summary: "Removes matching elements: the first ones, the last ones or all.",
    run: Run::Shard(lrem),
};

fn lrem(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, count, element) = (args.take()?, args.take_int()?, args.take()?);
    let Some(loc) = cx.ks.find_collection::<List>(cx.db, key)? else {
        cx.out.int(0);
        return Ok(());
    };
    let in_steps = cx.ks.collection::<List>(cx.db, loc)?.len() > cx.env.at_once_max;
    work(cx, key, loc, Removing { element: element.into(), removal: Removal::new(count) }, in_steps)
}

/// LREM.
struct Removing {
    element: Box<[u8]>,
    removal: Removal,
}

impl Work for Removing {
    type To = List;

    fn step(&mut self, list: &mut List) -> bool {
        list.rem_some(&mut self.removal, &*self.element, NODES_PER_STEP)
    }

    fn end(&mut self, cx: &mut Cx<'_>, key: &[u8], gone: Option<bool>) -> CmdResult {
        let removed = self.removal.removed();
        if let Some(gone) = gone
            && removed > 0
        {
            announce(cx, key, "lrem", gone);
        }
        cx.out.int(removed as i64);
        Ok(())
    }
}

const LSET: Command = Command {
    name: "LSET",
    arity: Arity::Exactly(4),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS),
    spread: Spread::Single,
    group: Group::List,
    since: "1.0.0",
    syntax: "key index element",
    summary: "Replaces the element of a list with this number.",
    run: Run::Shard(lset),
};

fn lset(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    const NO_SUCH_INDEX: CommandError = CommandError::text("ERR index out of range");
    let key = args.take()?;
    let loc = cx.find(key).ok_or(CommandError::NoSuchKey)?;
    let len = cx.ks.collection::<List>(cx.db, loc)?.len();
    let (index, element) = (args.take_int()?, args.take()?);
    let index = position(index, len).ok_or(NO_SUCH_INDEX)?;
    cx.ks.edit_at(cx.db, loc, |list: &mut List| list.set(index, element))?;
    cx.changed(key, Class::List, "lset");
    cx.out.ok();
    Ok(())
}

const LTRIM: Command = Command {
    name: "LTRIM",
    arity: Arity::Exactly(4),
    keys: Keys::First,
    flags: Flags::WRITE,
    spread: Spread::Single,
    group: Group::List,
    since: "1.0.0",
    syntax: "key start stop",
    summary: "Keeps the elements of a list between two numbers and removes all others.",
    run: Run::Shard(ltrim),
};

fn ltrim(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, start, stop) = (args.take()?, args.take_int()?, args.take_int()?);
    if let Some(loc) = cx.find(key) {
        let span = span(start, stop, cx.ks.collection::<List>(cx.db, loc)?.len());
        if span.is_empty() {
            // With all elements still in the list: a long one is then freed in steps.
            cx.ks.remove_at(cx.db, loc);
        } else {
            let dropped = cx.ks.collection::<List>(cx.db, loc)?.len() - span.len();
            edit_dropping(cx, loc, dropped, |list: &mut List| list.trim(span.start, span.end))?;
        }
        announce(cx, key, "ltrim", span.is_empty());
    }
    cx.out.ok();
    Ok(())
}

const RPOP: Command = Command {
    name: "RPOP",
    arity: Arity::AtLeast(2),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::List,
    since: "1.0.0",
    syntax: "key [count]",
    summary: "Returns the last elements of a list and removes them.",
    run: Run::Shard(rpop),
};

fn rpop(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    pop(cx, args, End::Right, "rpop")
}

const RPOPLPUSH: Command = Command {
    name: "RPOPLPUSH",
    arity: Arity::Exactly(3),
    keys: Keys::Range { first: 1, last: 2, step: 1 },
    flags: Flags::WRITE.with(Flags::GROWS),
    spread: Spread::Relay(&MOVE),
    group: Group::List,
    since: "1.2.0",
    syntax: "source destination",
    summary: "Moves the last element of a list before the first one of another list and returns it.",
    run: Run::Shard(rpoplpush),
};

fn rpoplpush(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    relay(cx, args)
}

const RPUSH: Command = Command {
    name: "RPUSH",
    arity: Arity::AtLeast(3),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::List,
    since: "1.0.0",
    syntax: "key element [element ...]",
    summary: "Puts elements behind the last one of a list, made if it is missing.",
    run: Run::Shard(rpush),
};

fn rpush(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    push(cx, args, End::Right)
}

const RPUSHX: Command = Command {
    name: "RPUSHX",
    arity: Arity::AtLeast(3),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::List,
    since: "2.2.0",
    syntax: "key element [element ...]",
    summary: "Puts elements behind the last one of a list if it is there.",
    run: Run::Shard(rpushx),
};

fn rpushx(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    push_existing(cx, args, End::Right)
}
