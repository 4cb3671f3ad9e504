//! Count-min sketches: about how often each item was seen, never too low. The sketches are in `sketches/src/cms.rs`.

use std::collections::BTreeMap;

use damselfly_keyspace::Class;
use damselfly_protocol::number::{parse_f64, parse_i64, parse_u64};
use damselfly_sketches::cms::{CmsError, CountMin};

use crate::bloom::reserve_key;
use crate::{Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Run, Spread};

pub(crate) const COMMANDS: &[&Command] = &[&INCRBY, &INFO, &INITBYDIM, &INITBYPROB, &MERGE, &QUERY];

const NOT_FOUND: CommandError = CommandError::text("ERR CMS: key does not exist");
const NO_NUMBER: CommandError = CommandError::text("ERR CMS: Cannot parse number");

impl From<CmsError> for CommandError {
    fn from(error: CmsError) -> CommandError {
        CommandError::owned(format!("ERR {error}"))
    }
}

const INCRBY: Command = Command {
    name: "CMS.INCRBY",
    arity: Arity::AtLeast(4),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::CountMin,
    since: "1.0.0",
    syntax: "key item increment [item increment ...]",
    summary: "Counts items.",
    run: Run::Shard(incrby),
};

fn incrby(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    const NOT_POSITIVE: CommandError = CommandError::text("ERR CMS: increment must be a positive integer");
    let key = args.take()?;
    let mut pairs = Vec::with_capacity(args.len() / 2);
    while !args.is_empty() {
        let (item, increment) = (args.take()?, args.take()?);
        match parse_i64(increment) {
            Some(increment @ 1..) => pairs.push((item, increment)),
            Some(_) => return Err(NOT_POSITIVE),
            None => return Err(NO_NUMBER),
        }
    }
    let out = &mut cx.out;
    let edit = cx.ks.edit(cx.db, key, |sketch: &mut CountMin| {
        out.array(pairs.len());
        for (item, increment) in pairs {
            out.int(sketch.increment(item, increment));
        }
    })?;
    edit.ok_or(NOT_FOUND)?;
    cx.changed(key, Class::Module, "cms.incrby");
    Ok(())
}

const INFO: Command = Command {
    name: "CMS.INFO",
    arity: Arity::Exactly(2),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::CountMin,
    since: "1.0.0",
    syntax: "key",
    summary: "Returns the numbers of a count-min sketch.",
    run: Run::Shard(info),
};

fn info(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let sketch = cx.ks.view::<CountMin>(cx.db, args.take()?)?.ok_or(NOT_FOUND)?;
    let numbers =
        [("width", sketch.width().into()), ("depth", sketch.depth().into()), ("count", sketch.total())];
    cx.out.array(2 * numbers.len());
    for (name, number) in numbers {
        cx.out.bulk(name.as_bytes());
        cx.out.int(number);
    }
    Ok(())
}

const INITBYDIM: Command = Command {
    name: "CMS.INITBYDIM",
    arity: Arity::Exactly(4),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::CountMin,
    since: "1.0.0",
    syntax: "key width depth",
    summary: "Makes a count-min sketch of a given size.",
    run: Run::Shard(initbydim),
};

fn initbydim(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    let mut number = || {
        let number = parse_u64(args.take()?).and_then(|number| u32::try_from(number).ok());
        number.ok_or(CommandError::NotInteger)
    };
    let sketch = CountMin::by_dimensions(number()?, number()?)?;
    reserve_key(cx, key, "cms.initbydim", || Ok(sketch))
}

const INITBYPROB: Command = Command {
    name: "CMS.INITBYPROB",
    arity: Arity::Exactly(4),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::CountMin,
    since: "1.0.0",
    syntax: "key error probability",
    summary: "Makes a count-min sketch of a size that keeps a promise.",
    run: Run::Shard(initbyprob),
};

fn initbyprob(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    let mut number = || parse_f64(args.take()?).ok_or(CommandError::NotFloat);
    let sketch = CountMin::by_probability(number()?, number()?)?;
    reserve_key(cx, key, "cms.initbyprob", || Ok(sketch))
}

const MERGE: Command = Command {
    name: "CMS.MERGE",
    arity: Arity::AtLeast(4),
    keys: Keys::Counted { count: 2, also: 1 },
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::MOVABLE_KEYS),
    spread: Spread::Together,
    group: Group::CountMin,
    since: "1.0.0",
    syntax: "destination numkeys source [source ...] [WEIGHTS weight [weight ...]]",
    summary: "Replaces a count-min sketch by the weighted sum of others.",
    run: Run::Shard(merge),
};

fn merge(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    const KEYS: CommandError = CommandError::text("ERR CMS: wrong number of keys");
    const WEIGHTS: CommandError = CommandError::text("ERR CMS: wrong number of keys/weights");
    let target = args.take()?;
    let numkeys = parse_u64(args.take()?).ok_or(CommandError::NotInteger)?;
    let numkeys = usize::try_from(numkeys).ok().filter(|keys| (1..=args.len()).contains(keys)).ok_or(KEYS)?;
    let keys = args.rest().take(numkeys);
    for _ in 0..numkeys {
        args.take()?;
    }
    if !args.is_empty() && (!args.take_word("WEIGHTS") || args.len() != numkeys) {
        return Err(WEIGHTS);
    }
    // A source that is named a million times is added up once.
    let mut sources = BTreeMap::<&[u8], i64>::new();
    for key in keys {
        let weight = if args.is_empty() { 1 } else { parse_i64(args.take()?).ok_or(NO_NUMBER)? };
        let sum = sources.entry(key).or_default();
        *sum = sum.saturating_add(weight);
    }
    let mut locs = Vec::with_capacity(sources.len());
    for (key, weight) in sources {
        locs.push((cx.find(key).ok_or(NOT_FOUND)?, weight));
    }
    let mut merged = cx.ks.peek::<CountMin>(cx.db, target)?.ok_or(NOT_FOUND)?.clone();
    let source = |(loc, weight)| Ok((cx.ks.collection::<CountMin>(cx.db, loc)?, weight));
    merged.merge(locs.into_iter().map(source).collect::<Result<Vec<_>, CommandError>>()?)?;
    cx.ks.edit(cx.db, target, |sketch: &mut CountMin| *sketch = merged)?;
    cx.changed(target, Class::Module, "cms.merge");
    cx.out.ok();
    Ok(())
}

const QUERY: Command = Command {
    name: "CMS.QUERY",
    arity: Arity::AtLeast(3),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::CountMin,
    since: "1.0.0",
    syntax: "key item [item ...]",
    summary: "Returns how often items were counted, or a little more.",
    run: Run::Shard(query),
};

fn query(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let sketch = cx.ks.view::<CountMin>(cx.db, args.take()?)?.ok_or(NOT_FOUND)?;
    cx.out.array(args.len());
    args.rest().for_each(|item| cx.out.int(sketch.query(item)));
    Ok(())
}
