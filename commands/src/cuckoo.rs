//! Cuckoo filters: as Bloom filters, but items can be counted and deleted. The filters are in `sketches/src/cuckoo.rs`.

use damselfly_keyspace::{Class, Collection, Expiry};
use damselfly_protocol::ReplyWriter;
use damselfly_protocol::number::parse_u64;
use damselfly_sketches::cuckoo::{CAPACITY_MAX, Cuckoo, CuckooError, Options};

use crate::bloom::reserve_key;
use crate::many::{self, Many};
use crate::{Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Run, Spread};

pub(crate) const COMMANDS: &[&Command] =
    &[&ADD, &ADDNX, &COMPACT, &COUNT, &DEL, &EXISTS, &INFO, &INSERT, &INSERTNX, &MEXISTS, &RESERVE];

/// Most filters in a chain that still takes items, Dragonfly's `cf_max_expansions`: each question asks all of them.
const FILTERS_MAX: usize = 32;

impl From<CuckooError> for CommandError {
    fn from(error: CuckooError) -> CommandError {
        CommandError::owned(format!("ERR {error}"))
    }
}

/// Refuses to add to a chain that is as long as it may get.
fn check_len(cuckoo: &Cuckoo) -> CmdResult {
    const EXPANSIONS: CommandError = CommandError::text("ERR Maximum expansions reached");
    if cuckoo.filters().len() < FILTERS_MAX { Ok(()) } else { Err(EXPANSIONS) }
}

const ADD: Command = Command {
    name: "CF.ADD",
    arity: Arity::Exactly(3),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS),
    spread: Spread::Single,
    group: Group::Cuckoo,
    since: "1.0.0",
    syntax: "key item",
    summary: "Adds an item to a cuckoo filter, made if it is missing.",
    run: Run::Shard(add),
};

fn add(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    add_one(cx, args, "cf.add", |cuckoo, item| cuckoo.add(item).map(|()| true))
}

const ADDNX: Command = Command {
    name: "CF.ADDNX",
    arity: Arity::Exactly(3),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS),
    spread: Spread::Single,
    group: Group::Cuckoo,
    since: "1.0.0",
    syntax: "key item",
    summary: "Adds an item to a cuckoo filter unless it seems to be there.",
    run: Run::Shard(addnx),
};

fn addnx(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    add_one(cx, args, "cf.addnx", Cuckoo::add_new)
}

fn add_one(
    cx: &mut Cx<'_>,
    mut args: Args<'_>,
    event: &'static str,
    add: impl FnOnce(&mut Cuckoo, &[u8]) -> Result<bool, CuckooError>,
) -> CmdResult {
    let (key, item) = (args.take()?, args.take()?);
    let edit = cx.ks.edit_or_new(cx.db, key, |cuckoo: &mut Cuckoo| {
        check_len(cuckoo)?;
        Ok::<_, CommandError>(add(cuckoo, item)?)
    })?;
    let added = edit.value?;
    if added {
        cx.changed(key, Class::Module, event);
    }
    cx.out.int(i64::from(added));
    Ok(())
}

const COMPACT: Command = Command {
    name: "CF.COMPACT",
    arity: Arity::Exactly(2),
    keys: Keys::First,
    flags: Flags::WRITE,
    spread: Spread::Single,
    group: Group::Cuckoo,
    since: "1.0.0",
    syntax: "key",
    summary: "Moves items of a cuckoo filter together and drops the filters that get empty.",
    run: Run::Shard(compact),
};

fn compact(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    cx.ks.edit(cx.db, key, |cuckoo: &mut Cuckoo| cuckoo.compact(true))?.ok_or(CommandError::NoSuchKey)?;
    cx.changed(key, Class::Module, "cf.compact");
    cx.out.ok();
    Ok(())
}

const COUNT: Command = Command {
    name: "CF.COUNT",
    arity: Arity::Exactly(3),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Cuckoo,
    since: "1.0.0",
    syntax: "key item",
    summary: "Returns how often an item was added to a cuckoo filter, or seems so.",
    run: Run::Shard(count),
};

fn count(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let cuckoo = cx.ks.view::<Cuckoo>(cx.db, args.take()?)?;
    let item = args.take()?;
    cx.out.int(cuckoo.map_or(0, |cuckoo| cuckoo.count(item)).cast_signed());
    Ok(())
}

const DEL: Command = Command {
    name: "CF.DEL",
    arity: Arity::Exactly(3),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Cuckoo,
    since: "1.0.0",
    syntax: "key item",
    summary: "Deletes an item once from a cuckoo filter.",
    run: Run::Shard(del),
};

fn del(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, item) = (args.take()?, args.take()?);
    let edit = cx.ks.edit(cx.db, key, |cuckoo: &mut Cuckoo| cuckoo.delete(item))?;
    let deleted = edit.ok_or(CommandError::NoSuchKey)?.value;
    if deleted {
        cx.changed(key, Class::Module, "cf.del");
    }
    cx.out.int(i64::from(deleted));
    Ok(())
}

const EXISTS: Command = Command {
    name: "CF.EXISTS",
    arity: Arity::Exactly(3),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Cuckoo,
    since: "1.0.0",
    syntax: "key item",
    summary: "Tells whether an item was added to a cuckoo filter, or seems so.",
    run: Run::Shard(exists),
};

fn exists(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let cuckoo = cx.ks.view::<Cuckoo>(cx.db, args.take()?)?;
    let item = args.take()?;
    cx.out.int(i64::from(cuckoo.is_some_and(|cuckoo| cuckoo.exists(item))));
    Ok(())
}

const INFO: Command = Command {
    name: "CF.INFO",
    arity: Arity::Exactly(2),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Cuckoo,
    since: "1.0.0",
    syntax: "key",
    summary: "Returns the numbers of a cuckoo filter.",
    run: Run::Shard(info),
};

fn info(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let cuckoo = cx.ks.view::<Cuckoo>(cx.db, args.take()?)?.ok_or(CommandError::NoSuchKey)?;
    let state = cuckoo.state();
    let numbers = [
        ("Size", cuckoo.heap_bytes() as u64),
        ("Number of buckets", state.buckets),
        ("Number of filters", cuckoo.filters().len() as u64),
        ("Number of items inserted", state.items),
        ("Number of items deleted", state.deletes),
        ("Bucket size", state.bucket_size.into()),
        ("Expansion rate", state.expansion.into()),
        ("Max iterations", state.max_iterations.into()),
    ];
    cx.out.array(2 * numbers.len());
    for (name, number) in numbers {
        cx.out.bulk(name.as_bytes());
        cx.out.int(number.cast_signed());
    }
    Ok(())
}

const INSERT: Command = Command {
    name: "CF.INSERT",
    arity: Arity::AtLeast(4),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS),
    spread: Spread::Single,
    group: Group::Cuckoo,
    since: "1.0.0",
    syntax: "key [CAPACITY capacity] [NOCREATE] ITEMS item [item ...]",
    summary: "Adds items to a cuckoo filter, made as told if it is missing.",
    run: Run::Shard(insert),
};

fn insert(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    insert_all(cx, args, "cf.insert", |cuckoo, item| cuckoo.add(item).map(|()| true))
}

const INSERTNX: Command = Command {
    name: "CF.INSERTNX",
    arity: Arity::AtLeast(4),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS),
    spread: Spread::Single,
    group: Group::Cuckoo,
    since: "1.0.0",
    syntax: "key [CAPACITY capacity] [NOCREATE] ITEMS item [item ...]",
    summary: "Adds those items to a cuckoo filter that do not seem to be there.",
    run: Run::Shard(insertnx),
};

fn insertnx(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    insert_all(cx, args, "cf.insertnx", Cuckoo::add_new)
}

fn insert_all(
    cx: &mut Cx<'_>,
    mut args: Args<'_>,
    event: &'static str,
    add: impl Fn(&mut Cuckoo, &[u8]) -> Result<bool, CuckooError> + Send + 'static,
) -> CmdResult {
    const NO_WORD: CommandError = CommandError::text("ERR CF.INSERT requires ITEMS keyword");
    const NO_ITEM: CommandError = CommandError::text("ERR CF.INSERT requires at least one item");
    let key = args.take()?;
    let (mut options, mut create) = (Options::default(), true);
    loop {
        if args.take_word("CAPACITY") {
            options.capacity = parse_u64(args.take()?).ok_or(CommandError::NotInteger)?;
        } else if args.take_word("NOCREATE") {
            create = false;
        } else {
            break;
        }
    }
    // An absurd capacity is one whether or not the filter is there.
    if options.capacity < 2 * u64::from(options.bucket_size) || options.capacity > CAPACITY_MAX {
        return Err(CuckooError::Capacity.into());
    }
    if !args.take_word("ITEMS") {
        return Err(NO_WORD);
    }
    if args.is_empty() {
        return Err(NO_ITEM);
    }
    if cx.ks.peek::<Cuckoo>(cx.db, key)?.is_none() {
        if !create {
            return Err(CommandError::NoSuchKey);
        }
        cx.set_object(key, Cuckoo::new(options)?.wrap(), Expiry::Never);
    }
    cx.ks.peek::<Cuckoo>(cx.db, key)?.map(check_len).transpose()?;
    many::change(cx, key, args, Adding { add, event, any: false })
}

/// Items to be added, each of which is answered: whether it was, or -1 where there is no room.
struct Adding<F> {
    add: F,
    event: &'static str,
    /// One was added.
    any: bool,
}

impl<F> Many for Adding<F>
where
    F: Fn(&mut Cuckoo, &[u8]) -> Result<bool, CuckooError> + Send + 'static,
{
    type To = Cuckoo;
    const MAKES: bool = false;
    const ANSWERS: bool = true;

    fn change(&mut self, cuckoo: &mut Cuckoo, args: Args<'_>, out: &mut ReplyWriter<'_>) {
        for item in args.rest() {
            let added = (self.add)(cuckoo, item);
            self.any |= added == Ok(true);
            out.int(added.map_or(-1, i64::from));
        }
    }

    fn end(&mut self, cx: &mut Cx<'_>, key: &[u8], gone: Option<bool>) -> CmdResult {
        if self.any && gone.is_some() {
            cx.changed(key, Class::Module, self.event);
        }
        Ok(())
    }
}

const MEXISTS: Command = Command {
    name: "CF.MEXISTS",
    arity: Arity::AtLeast(3),
    keys: Keys::First,
    flags: Flags::READ.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Cuckoo,
    since: "1.0.0",
    syntax: "key item [item ...]",
    summary: "Tells which items were added to a cuckoo filter, or seem so.",
    run: Run::Shard(mexists),
};

fn mexists(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    let exists = |cuckoo: Option<&Cuckoo>, item: &[u8], out: &mut ReplyWriter<'_>| {
        out.int(i64::from(cuckoo.is_some_and(|cuckoo| cuckoo.exists(item))));
    };
    many::answer(cx, key, args, |cuckoo| cuckoo.filters().len(), exists)
}

const RESERVE: Command = Command {
    name: "CF.RESERVE",
    arity: Arity::AtLeast(3),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Cuckoo,
    since: "1.0.0",
    syntax: "key capacity [BUCKETSIZE bucketsize] [MAXITERATIONS maxiterations] [EXPANSION expansion]",
    summary: "Makes a cuckoo filter.",
    run: Run::Shard(reserve),
};

fn reserve(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    let mut options = Options { capacity: take_number(&mut args)?, ..Options::default() };
    while !args.is_empty() {
        if args.take_word("BUCKETSIZE") {
            options.bucket_size = take_number(&mut args)?;
        } else if args.take_word("MAXITERATIONS") {
            options.max_iterations = take_number(&mut args)?;
        } else if args.take_word("EXPANSION") {
            options.expansion = take_number(&mut args)?;
        } else {
            return Err(CommandError::Syntax);
        }
    }
    let cuckoo = Cuckoo::new(options)?;
    reserve_key(cx, key, "cf.reserve", || Ok(cuckoo))
}

/// The next argument as a number of the option's width.
fn take_number<N: TryFrom<u64>>(args: &mut Args<'_>) -> Result<N, CommandError> {
    let number = parse_u64(args.take()?).and_then(|number| N::try_from(number).ok());
    number.ok_or(CommandError::NotInteger)
}
