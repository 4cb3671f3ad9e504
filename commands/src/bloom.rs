//! Bloom filters: whether an item was added, with mistakes in one direction at a rate that is chosen.
//!
//! The filters are in `sketches/src/bloom.rs`. Their memory is taken as it is written to, so a reservation of gigabytes
//! costs some megabytes until items come.

use damselfly_keyspace::{Class, Collection, Expiry};
use damselfly_protocol::ReplyWriter;
use damselfly_protocol::number::{parse_f64, parse_i64, parse_u64};
use damselfly_sketches::bloom::{Bloom, BloomError, ERROR_RATE_DEFAULT, EXPANSION_DEFAULT};

use crate::many::{self, Many};
use crate::{Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Run, Spread};

pub(crate) const COMMANDS: &[&Command] =
    &[&ADD, &CARD, &EXISTS, &INFO, &INSERT, &LOADCHUNK, &MADD, &MEXISTS, &RESERVE, &SCANDUMP];

/// A filter or a sketch is made once.
pub(crate) const ITEM_EXISTS: CommandError = CommandError::text("ERR item exists");

impl From<BloomError> for CommandError {
    fn from(error: BloomError) -> CommandError {
        CommandError::owned(format!("ERR {error}"))
    }
}

/// Stores what a command of the reserving kind made, under a key that must be free.
pub(crate) fn reserve_key<C: Collection>(
    cx: &mut Cx<'_>,
    key: &[u8],
    event: &'static str,
    make: impl FnOnce() -> Result<C, CommandError>,
) -> CmdResult {
    if cx.ks.peek::<C>(cx.db, key)?.is_some() {
        return Err(ITEM_EXISTS);
    }
    cx.set_object(key, make()?.wrap(), Expiry::Never);
    cx.changed(key, Class::Module, event);
    cx.out.ok();
    Ok(())
}

const ADD: Command = Command {
    name: "BF.ADD",
    arity: Arity::Exactly(3),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Bloom,
    since: "1.0.0",
    syntax: "key item",
    summary: "Adds an item to a Bloom filter, made if it is missing.",
    run: Run::Shard(add),
};

fn add(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, item) = (args.take()?, args.take()?);
    let added = cx.ks.edit_or_new(cx.db, key, |bloom: &mut Bloom| bloom.add(item))?.value?;
    if added {
        cx.changed(key, Class::Module, "bf.add");
    }
    cx.out.int(i64::from(added));
    Ok(())
}

const CARD: Command = Command {
    name: "BF.CARD",
    arity: Arity::Exactly(2),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Bloom,
    since: "2.4.4",
    syntax: "key",
    summary: "Returns how many items were added to a Bloom filter.",
    run: Run::Shard(card),
};

fn card(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let items = cx.ks.view::<Bloom>(cx.db, args.take()?)?.map_or(0, Bloom::items);
    cx.out.int(items.cast_signed());
    Ok(())
}

const EXISTS: Command = Command {
    name: "BF.EXISTS",
    arity: Arity::Exactly(3),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Bloom,
    since: "1.0.0",
    syntax: "key item",
    summary: "Tells whether an item was added to a Bloom filter, or seems so.",
    run: Run::Shard(exists),
};

fn exists(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let bloom = cx.ks.view::<Bloom>(cx.db, args.take()?)?;
    let item = args.take()?;
    let exists = bloom.map(|bloom| bloom.exists(item)).transpose()?.unwrap_or(false);
    cx.out.int(i64::from(exists));
    Ok(())
}

const INFO: Command = Command {
    name: "BF.INFO",
    arity: Arity::AtLeast(2),
    keys: Keys::First,
    flags: Flags::READ,
    spread: Spread::Single,
    group: Group::Bloom,
    since: "1.0.0",
    syntax: "key [CAPACITY | SIZE | FILTERS | ITEMS | EXPANSION]",
    summary: "Returns the numbers of a Bloom filter.",
    run: Run::Shard(info),
};

fn info(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    const NO_FIELD: CommandError = CommandError::text("ERR Invalid info arguments");
    const WORDS: [&str; 5] = ["CAPACITY", "SIZE", "FILTERS", "ITEMS", "EXPANSION"];
    const NAMES: [&str; 5] =
        ["Capacity", "Size", "Number of filters", "Number of items inserted", "Expansion rate"];
    let key = args.take()?;
    let word = if args.is_empty() { None } else { Some(args.take()?) };
    args.end()?;
    let bloom = cx.ks.view::<Bloom>(cx.db, key)?.ok_or(CommandError::NoSuchKey)?;
    if bloom.filters().is_empty() {
        return Err(BloomError::Loading.into());
    }
    let numbers = [
        Some(bloom.capacity()),
        Some(bloom.heap_bytes() as u64),
        Some(bloom.filters().len() as u64),
        Some(bloom.items()),
        bloom.expansion(),
    ];
    let show = |out: &mut ReplyWriter<'_>, number: Option<u64>| match number {
        Some(number) => out.int(number.cast_signed()),
        None => out.null(),
    };
    if let Some(word) = word {
        let at = WORDS.iter().position(|name| word.eq_ignore_ascii_case(name.as_bytes()));
        show(&mut cx.out, numbers[at.ok_or(NO_FIELD)?]);
        return Ok(());
    }
    cx.out.array(2 * NAMES.len());
    for (name, number) in NAMES.iter().zip(numbers) {
        cx.out.bulk(name.as_bytes());
        show(&mut cx.out, number);
    }
    Ok(())
}

/// How a filter is to be made.
struct Plan {
    error_rate: f64,
    capacity: u64,
    expansion: Option<u32>,
    scaling: bool,
}

impl Plan {
    /// Takes EXPANSION or NONSCALING, if that is what comes next.
    fn take_growth(&mut self, args: &mut Args<'_>) -> Result<bool, CommandError> {
        const EXPANSION: CommandError = CommandError::text("ERR bad expansion");
        if args.take_word("EXPANSION") {
            let expansion = parse_u64(args.take()?).and_then(|number| u32::try_from(number).ok());
            self.expansion = Some(expansion.filter(|number| *number > 0).ok_or(EXPANSION)?);
        } else if args.take_word("NONSCALING") {
            self.scaling = false;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    fn make(&self) -> Result<Bloom, CommandError> {
        const NEITHER: CommandError = CommandError::text("ERR Nonscaling filters cannot expand");
        let expansion = match (self.scaling, self.expansion) {
            (true, expansion) => Some(expansion.unwrap_or(EXPANSION_DEFAULT)),
            (false, None) => None,
            (false, Some(_)) => return Err(NEITHER),
        };
        Ok(Bloom::new(self.error_rate, self.capacity, expansion)?)
    }
}

const INSERT: Command = Command {
    name: "BF.INSERT",
    arity: Arity::AtLeast(4),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Bloom,
    since: "1.0.0",
    syntax: "key [CAPACITY capacity] [ERROR error] [EXPANSION expansion] [NOCREATE] [NONSCALING] ITEMS item [item ...]",
    summary: "Adds items to a Bloom filter, made as told if it is missing.",
    run: Run::Shard(insert),
};

fn insert(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    const NOT_FOUND: CommandError = CommandError::text("ERR not found");
    let key = args.take()?;
    // Without a capacity the filter is as small as one that BF.ADD makes.
    let mut plan = Plan { error_rate: ERROR_RATE_DEFAULT, capacity: 0, expansion: None, scaling: true };
    let mut create = true;
    while !args.take_word("ITEMS") {
        if args.take_word("CAPACITY") {
            plan.capacity = parse_u64(args.take()?).ok_or(CommandError::NotInteger)?;
        } else if args.take_word("ERROR") {
            plan.error_rate = parse_f64(args.take()?).ok_or(CommandError::NotFloat)?;
        } else if args.take_word("NOCREATE") {
            create = false;
        } else if !plan.take_growth(&mut args)? {
            return Err(CommandError::Syntax);
        }
    }
    if args.is_empty() {
        return Err(CommandError::arity("bf.insert"));
    }
    let filter = plan.make()?;
    if cx.ks.peek::<Bloom>(cx.db, key)?.is_none() {
        if !create {
            return Err(NOT_FOUND);
        }
        cx.set_object(key, filter.wrap(), Expiry::Never);
    }
    add_all(cx, key, args, "bf.insert")
}

fn add_all(cx: &mut Cx<'_>, key: &[u8], args: Args<'_>, event: &'static str) -> CmdResult {
    many::change(cx, key, args, Adding { event, any: false })
}

/// Items to be added, each of which has its own answer: whether it was new, or why it could not be added.
struct Adding {
    event: &'static str,
    /// One was new.
    any: bool,
}

impl Many for Adding {
    type To = Bloom;
    const MAKES: bool = true;
    const ANSWERS: bool = true;

    fn change(&mut self, bloom: &mut Bloom, args: Args<'_>, out: &mut ReplyWriter<'_>) {
        for item in args.rest() {
            match bloom.add(item) {
                Ok(added) => {
                    self.any |= added;
                    out.int(i64::from(added));
                }
                Err(error) => out.error(format!("ERR {error}")),
            }
        }
    }

    fn end(&mut self, cx: &mut Cx<'_>, key: &[u8], gone: Option<bool>) -> CmdResult {
        if self.any && gone.is_some() {
            cx.changed(key, Class::Module, self.event);
        }
        Ok(())
    }
}

const LOADCHUNK: Command = Command {
    name: "BF.LOADCHUNK",
    arity: Arity::Exactly(4),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS),
    spread: Spread::Single,
    group: Group::Bloom,
    since: "1.0.0",
    syntax: "key iterator data",
    summary: "Continues to load a Bloom filter that BF.SCANDUMP gave.",
    run: Run::Shard(loadchunk),
};

fn loadchunk(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    let cursor = parse_i64(args.take()?).filter(|cursor| *cursor > 0).ok_or(CommandError::NotInteger)?;
    let piece = args.take()?;
    if cursor == 1 {
        // The beginning replaces whatever the key held.
        cx.set_object(key, Bloom::load_header(piece)?.wrap(), Expiry::Never);
    } else {
        let edit = cx.ks.edit(cx.db, key, |bloom: &mut Bloom| bloom.load(cursor.cast_unsigned(), piece))?;
        edit.ok_or(CommandError::NoSuchKey)?.value?;
    }
    cx.changed(key, Class::Module, "bf.loadchunk");
    cx.out.ok();
    Ok(())
}

const MADD: Command = Command {
    name: "BF.MADD",
    arity: Arity::AtLeast(3),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Bloom,
    since: "1.0.0",
    syntax: "key item [item ...]",
    summary: "Adds items to a Bloom filter, made if it is missing.",
    run: Run::Shard(madd),
};

fn madd(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    add_all(cx, key, args, "bf.madd")
}

const MEXISTS: Command = Command {
    name: "BF.MEXISTS",
    arity: Arity::AtLeast(3),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Bloom,
    since: "1.0.0",
    syntax: "key item [item ...]",
    summary: "Tells which items were added to a Bloom filter, or seem so.",
    run: Run::Shard(mexists),
};

fn mexists(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    // A filter that is still being loaded answers nothing.
    let item = args.peek().unwrap_or_default();
    cx.ks.peek::<Bloom>(cx.db, key)?.map(|bloom| bloom.exists(item)).transpose()?;
    let exists = |bloom: Option<&Bloom>, item: &[u8], out: &mut ReplyWriter<'_>| {
        out.int(i64::from(bloom.is_some_and(|bloom| bloom.exists(item) == Ok(true))));
    };
    many::answer(cx, key, args, |bloom| bloom.filters().len(), exists)
}

const RESERVE: Command = Command {
    name: "BF.RESERVE",
    arity: Arity::AtLeast(4),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Bloom,
    since: "1.0.0",
    syntax: "key error_rate capacity [EXPANSION expansion] [NONSCALING]",
    summary: "Makes a Bloom filter.",
    run: Run::Shard(reserve),
};

fn reserve(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    let error_rate = parse_f64(args.take()?).ok_or(CommandError::Syntax)?;
    let capacity = parse_u64(args.take()?).ok_or(CommandError::Syntax)?;
    let mut plan = Plan { error_rate, capacity, expansion: None, scaling: true };
    while !args.is_empty() {
        if !plan.take_growth(&mut args)? {
            return Err(CommandError::Syntax);
        }
    }
    let filter = plan.make()?;
    reserve_key(cx, key, "bf.reserve", || Ok(filter))
}

const SCANDUMP: Command = Command {
    name: "BF.SCANDUMP",
    arity: Arity::Exactly(3),
    keys: Keys::First,
    flags: Flags::READ,
    spread: Spread::Single,
    group: Group::Bloom,
    since: "1.0.0",
    syntax: "key iterator",
    summary: "Returns a piece of a Bloom filter, to be loaded elsewhere.",
    run: Run::Shard(scandump),
};

fn scandump(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    let cursor = parse_i64(args.take()?).filter(|cursor| *cursor >= 0).ok_or(CommandError::NotInteger)?;
    let bloom = cx.ks.view::<Bloom>(cx.db, key)?.ok_or(CommandError::NoSuchKey)?;
    let (next, piece) = bloom.dump(cursor.cast_unsigned())?;
    cx.out.array(2);
    cx.out.int(next.cast_signed());
    cx.out.bulk(&piece);
    Ok(())
}
