//! Top-k sketches: the most frequent items of a stream. The sketches are in `sketches/src/topk.rs`.

use damselfly_keyspace::Class;
use damselfly_protocol::ReplyWriter;
use damselfly_protocol::number::{parse_f64, parse_u64};
use damselfly_sketches::topk::{DECAY_DEFAULT, DEPTH_DEFAULT, INCREMENT_MAX, TopK, TopKError, WIDTH_DEFAULT};

use crate::bloom::reserve_key;
use crate::many::{self, Many};
use crate::{Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Run, Spread};

pub(crate) const COMMANDS: &[&Command] = &[&ADD, &COUNT, &INCRBY, &INFO, &LIST, &QUERY, &RESERVE];

impl From<TopKError> for CommandError {
    fn from(error: TopKError) -> CommandError {
        CommandError::owned(format!("ERR {error}"))
    }
}

/// Items of a sketch as far as cloning it goes.
fn len(sketch: &TopK) -> usize {
    sketch.entries().len()
}

/// Items to be counted; each is answered with the item that lost its place to it.
struct Counting {
    /// Each has its increment behind it, a number that was looked at; else it is one.
    has_increments: bool,
    /// State of the random numbers, of which the sketch draws one per row at least.
    random: u64,
    event: &'static str,
}

impl Many for Counting {
    type To = TopK;
    const MAKES: bool = false;
    const ANSWERS: bool = true;

    fn unit(&self) -> usize {
        1 + usize::from(self.has_increments)
    }

    fn change(&mut self, sketch: &mut TopK, mut args: Args<'_>, out: &mut ReplyWriter<'_>) {
        let state = &mut self.random;
        let mut random = || {
            // SplitMix64 (G. Steele, D. Lea, C. Flood, 2014).
            *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        };
        while let Ok(item) = args.take() {
            let by = if self.has_increments { args.take().ok().and_then(increment) } else { Some(1) };
            match sketch.increment(item, by.unwrap_or(1), &mut random) {
                Some(evicted) => out.bulk(&evicted),
                None => out.null(),
            }
        }
    }

    fn end(&mut self, cx: &mut Cx<'_>, key: &[u8], gone: Option<bool>) -> CmdResult {
        gone.ok_or(CommandError::NoSuchKey)?;
        cx.changed(key, Class::Module, self.event);
        Ok(())
    }
}

/// An increment, if it is one.
fn increment(text: &[u8]) -> Option<u32> {
    parse_u64(text).and_then(|number| u32::try_from(number).ok())
}

const ADD: Command = Command {
    name: "TOPK.ADD",
    arity: Arity::AtLeast(3),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::TopK,
    since: "1.0.0",
    syntax: "key item [item ...]",
    summary: "Counts items and returns those that lost their places.",
    run: Run::Shard(add),
};

fn add(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    let random = cx.ks.random();
    many::change(cx, key, args, Counting { has_increments: false, random, event: "topk.add" })
}

const COUNT: Command = Command {
    name: "TOPK.COUNT",
    arity: Arity::AtLeast(3),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::TopK,
    since: "1.0.0",
    syntax: "key item [item ...]",
    summary: "Returns about how often items were counted.",
    run: Run::Shard(count),
};

fn count(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    many::answer_there(cx, key, args, CommandError::NoSuchKey, len, |sketch: &TopK, item, out| {
        out.int(sketch.count(item).into());
    })
}

const INCRBY: Command = Command {
    name: "TOPK.INCRBY",
    arity: Arity::AtLeast(4),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::TopK,
    since: "1.0.0",
    syntax: "key item increment [item increment ...]",
    summary: "Counts items several times and returns those that lost their places.",
    run: Run::Shard(incrby),
};

fn incrby(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    const RANGE: CommandError = CommandError::text("ERR increment must be between 1 and 100000");
    const _: () = assert!(INCREMENT_MAX == 100_000, "the text says so");
    let key = args.take()?;
    let items = args;
    while !args.is_empty() {
        let (_, by) = (args.take()?, args.take()?);
        match increment(by) {
            Some(1..=INCREMENT_MAX) => {}
            Some(_) => return Err(RANGE),
            None => return Err(CommandError::NotInteger),
        }
    }
    let random = cx.ks.random();
    many::change(cx, key, items, Counting { has_increments: true, random, event: "topk.incrby" })
}

const INFO: Command = Command {
    name: "TOPK.INFO",
    arity: Arity::Exactly(2),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::TopK,
    since: "1.0.0",
    syntax: "key",
    summary: "Returns the numbers of a top-k sketch.",
    run: Run::Shard(info),
};

fn info(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let sketch = cx.ks.view::<TopK>(cx.db, args.take()?)?.ok_or(CommandError::NoSuchKey)?;
    let numbers = [("k", sketch.k()), ("width", sketch.width()), ("depth", sketch.depth())];
    cx.out.array(2 * (numbers.len() + 1));
    for (name, number) in numbers {
        cx.out.bulk(name.as_bytes());
        cx.out.int(number.into());
    }
    cx.out.bulk(b"decay");
    cx.out.shortest_double(sketch.decay());
    Ok(())
}

const LIST: Command = Command {
    name: "TOPK.LIST",
    arity: Arity::AtLeast(2),
    keys: Keys::First,
    flags: Flags::READ,
    spread: Spread::Single,
    group: Group::TopK,
    since: "1.0.0",
    syntax: "key [WITHCOUNT]",
    summary: "Returns the most frequent items, the first of them first.",
    run: Run::Shard(list),
};

fn list(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    let with_count = args.take_word("WITHCOUNT");
    args.end()?;
    let list = cx.ks.view::<TopK>(cx.db, key)?.ok_or(CommandError::NoSuchKey)?.list();
    cx.out.array(if with_count { 2 * list.len() } else { list.len() });
    for entry in list {
        cx.out.bulk(&entry.item);
        if with_count {
            cx.out.int(entry.count.into());
        }
    }
    Ok(())
}

const QUERY: Command = Command {
    name: "TOPK.QUERY",
    arity: Arity::AtLeast(3),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::TopK,
    since: "1.0.0",
    syntax: "key item [item ...]",
    summary: "Tells which items are among the most frequent.",
    run: Run::Shard(query),
};

fn query(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    many::answer_there(cx, key, args, CommandError::NoSuchKey, len, |sketch: &TopK, item, out| {
        out.int(i64::from(sketch.query(item)));
    })
}

const RESERVE: Command = Command {
    name: "TOPK.RESERVE",
    arity: Arity::AtLeast(3),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::TopK,
    since: "1.0.0",
    syntax: "key topk [width depth decay]",
    summary: "Makes a top-k sketch.",
    run: Run::Shard(reserve),
};

fn reserve(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    let k = take_number(&mut args)?;
    let (mut width, mut depth, mut decay) = (WIDTH_DEFAULT, DEPTH_DEFAULT, DECAY_DEFAULT);
    if !args.is_empty() {
        (width, depth) = (take_number(&mut args)?, take_number(&mut args)?);
        decay = parse_f64(args.take()?).ok_or(CommandError::NotFloat)?;
        args.end()?;
    }
    let sketch = TopK::new(k, width, depth, decay)?;
    reserve_key(cx, key, "topk.reserve", || Ok(sketch))
}

fn take_number(args: &mut Args<'_>) -> Result<u32, CommandError> {
    parse_u64(args.take()?).and_then(|number| u32::try_from(number).ok()).ok_or(CommandError::NotInteger)
}
