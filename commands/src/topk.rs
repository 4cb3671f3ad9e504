//! Top-k sketches: the most frequent items of a stream. The sketches are in `sketches/src/topk.rs`.

use damselfly_keyspace::Class;
use damselfly_protocol::number::{parse_f64, parse_u64};
use damselfly_sketches::topk::{DECAY_DEFAULT, DEPTH_DEFAULT, INCREMENT_MAX, TopK, TopKError, WIDTH_DEFAULT};

use crate::bloom::reserve_key;
use crate::{Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Run, Spread};

pub(crate) const COMMANDS: &[&Command] = &[&ADD, &COUNT, &INCRBY, &INFO, &LIST, &QUERY, &RESERVE];

impl From<TopKError> for CommandError {
    fn from(error: TopKError) -> CommandError {
        CommandError::owned(format!("ERR {error}"))
    }
}

/// Counts items and replies, for each, with the item that lost its place to it.
fn count_items(cx: &mut Cx<'_>, key: &[u8], items: &[(&[u8], u32)], event: &'static str) -> CmdResult {
    // The sketch draws one number per row at least; they come from a sequence that the keyspace's starts.
    let mut state = cx.ks.random();
    let mut random = || {
        // SplitMix64 (G. Steele, D. Lea, C. Flood, 2014).
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    let out = &mut cx.out;
    let edit = cx.ks.edit(cx.db, key, |sketch: &mut TopK| {
        out.array(items.len());
        for (item, by) in items {
            match sketch.increment(item, *by, &mut random) {
                Some(evicted) => out.bulk(&evicted),
                None => out.null(),
            }
        }
    })?;
    edit.ok_or(CommandError::NoSuchKey)?;
    cx.changed(key, Class::Module, event);
    Ok(())
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
    let items: Vec<_> = args.rest().map(|item| (item, 1)).collect();
    count_items(cx, key, &items, "topk.add")
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
    let sketch = cx.ks.view::<TopK>(cx.db, args.take()?)?.ok_or(CommandError::NoSuchKey)?;
    cx.out.array(args.len());
    args.rest().for_each(|item| cx.out.int(sketch.count(item).into()));
    Ok(())
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
    let mut items = Vec::with_capacity(args.len() / 2);
    while !args.is_empty() {
        let (item, increment) = (args.take()?, args.take()?);
        match parse_u64(increment).and_then(|number| u32::try_from(number).ok()) {
            Some(increment @ 1..=INCREMENT_MAX) => items.push((item, increment)),
            Some(_) => return Err(RANGE),
            None => return Err(CommandError::NotInteger),
        }
    }
    count_items(cx, key, &items, "topk.incrby")
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
    let sketch = cx.ks.view::<TopK>(cx.db, args.take()?)?.ok_or(CommandError::NoSuchKey)?;
    cx.out.array(args.len());
    args.rest().for_each(|item| cx.out.int(i64::from(sketch.query(item))));
    Ok(())
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
