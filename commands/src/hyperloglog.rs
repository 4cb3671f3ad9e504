//! HyperLogLogs: sets that know about how many members they have and nothing else. They are strings, in the bytes of
//! Redis; the arithmetic is in `sketches/src/hll.rs`.

use damselfly_keyspace::{Class, Expiry, Object};
use damselfly_protocol::number::Decimal;
use damselfly_sketches::hll::{self, HllError, Union};

use crate::error::printable;
use crate::past::{End, Gathered, Told, gather};
use crate::task::Task;
use crate::{Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Run, Spread};

pub(crate) const COMMANDS: &[&Command] = &[&PFADD, &PFCOUNT, &PFDEBUG, &PFMERGE, &PFSELFTEST];

impl From<HllError> for CommandError {
    fn from(error: HllError) -> CommandError {
        CommandError::owned(error.to_string())
    }
}

const PFADD: Command = Command {
    name: "PFADD",
    arity: Arity::AtLeast(2),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::FAST),
    spread: Spread::Single,
    group: Group::HyperLogLog,
    since: "2.8.9",
    syntax: "key [element [element ...]]",
    summary: "Adds elements to a HyperLogLog, made if it is missing.",
    run: Run::Shard(pfadd),
};

fn pfadd(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    let sparse_max = cx.env.hll_sparse_max;
    let added = match cx.find_string(key)? {
        Some(loc) => {
            hll::validate(cx.string_at(loc)?.bytes(&mut Decimal::new(0)))?;
            cx.ks.table_mut(cx.db).edit_string(loc, |value| hll::add(value, args.rest(), sparse_max))
        }
        None => {
            let mut value = hll::create();
            hll::add(&mut value, args.rest(), sparse_max)?;
            cx.set_edited(key, value, Expiry::Never);
            Ok(true)
        }
    };
    // Elements in front of one that ran into damage stay added.
    if added != Ok(false) {
        cx.changed(key, Class::String, "pfadd");
    }
    cx.out.int(i64::from(added?));
    Ok(())
}

const PFCOUNT: Command = Command {
    name: "PFCOUNT",
    arity: Arity::AtLeast(2),
    keys: Keys::Range { first: 1, last: -1, step: 1 },
    flags: Flags::READ,
    spread: Spread::Gathered,
    group: Group::HyperLogLog,
    since: "2.8.9",
    syntax: "key [key ...]",
    summary: "Estimates how many different elements were added to HyperLogLogs.",
    run: Run::Shard(pfcount),
};

fn pfcount(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let count = if args.len() == 1 {
        count_one(cx, args.take()?)?
    } else {
        if gather(cx, args, None, true, |_| Gather { union: Union::new(), target: None }) {
            return Ok(());
        }
        let mut union = Union::new();
        for key in args.rest() {
            if let Some(value) = cx.read_string(key)? {
                union.merge(value.bytes(&mut Decimal::new(0)))?;
            }
        }
        union.count()
    };
    cx.out.int(count.cast_signed());
    Ok(())
}

/// The count of one key, which is kept in the value until it changes. Nobody is told of that: whoever has the
/// registers has the count.
fn count_one(cx: &mut Cx<'_>, key: &[u8]) -> Result<u64, CommandError> {
    let Some(loc) = cx.read(key) else { return Ok(0) };
    match hll::cached_count(cx.string_at(loc)?.bytes(&mut Decimal::new(0)))? {
        Some(count) => Ok(count),
        None => Ok(cx.ks.table_mut(cx.db).edit_string(loc, |value| hll::count(value))?),
    }
}

const PFDEBUG: Command = Command {
    name: "PFDEBUG",
    arity: Arity::Exactly(3),
    keys: Keys::Range { first: 2, last: 2, step: 1 },
    flags: Flags::WRITE.with(Flags::GROWS).with(Flags::ADMIN),
    spread: Spread::Together,
    group: Group::HyperLogLog,
    since: "2.8.9",
    syntax: "DECODE | ENCODING | GETREG | TODENSE key",
    summary: "Looks at how a HyperLogLog is kept.",
    run: Run::Shard(pfdebug),
};

fn pfdebug(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    const NO_KEY: CommandError = CommandError::text("ERR The specified key does not exist");
    const DENSE: CommandError = CommandError::text("ERR HLL encoding is not sparse");
    let (word, key) = (args.take()?, args.take()?);
    let loc = cx.find_string(key)?.ok_or(NO_KEY)?;
    let mut decimal = Decimal::new(0);
    let value = cx.string_at(loc)?.bytes(&mut decimal);
    hll::validate(value)?;
    let dense = value[ENCODING_AT] == 0;
    match word.to_ascii_lowercase().as_slice() {
        b"decode" if dense => return Err(DENSE),
        b"decode" => {
            let text = decode(&value[HEADER_LEN..])?;
            cx.out.bulk(text.as_bytes());
        }
        b"encoding" => cx.out.simple(if dense { "dense" } else { "sparse" }),
        b"getreg" => {
            let value =
                cx.ks.table_mut(cx.db).edit_string(loc, |value| to_dense(value).map(|()| value.clone()))?;
            cx.out.array(hll::REGISTERS);
            for [a, b, c] in value[HEADER_LEN..].as_chunks::<3>().0 {
                let four = u32::from_le_bytes([*a, *b, *c, 0]);
                (0..4).for_each(|n| cx.out.int(i64::from(four >> (6 * n) & 63)));
            }
        }
        b"todense" => {
            cx.ks.table_mut(cx.db).edit_string(loc, to_dense)?;
            cx.out.int(i64::from(!dense));
        }
        _ => {
            let word = printable(word, 128);
            return Err(CommandError::owned(format!("ERR Unknown PFDEBUG subcommand '{word}'")));
        }
    }
    Ok(())
}

/// Bytes in front of the registers: magic, encoding, cached count.
const HEADER_LEN: usize = hll::DENSE_LEN - hll::REGISTERS * 6 / 8;
const ENCODING_AT: usize = 4;

/// The opcodes of sparse registers in Redis' words: `z` and `Z` are short and long runs of zeros, `v` is a value and
/// how many registers have it.
fn decode(sparse: &[u8]) -> Result<String, CommandError> {
    let (mut words, mut registers, mut rest) = (Vec::new(), 0, sparse);
    while let [first, behind @ ..] = rest {
        let (word, run, behind) = match (first >> 6, behind) {
            (0b00, _) => {
                let run = usize::from(*first) + 1;
                (format!("z:{run}"), run, behind)
            }
            (0b01, [second, behind @ ..]) => {
                let run = (usize::from(first & 63) << 8 | usize::from(*second)) + 1;
                (format!("Z:{run}"), run, behind)
            }
            (0b01, []) => return Err(HllError::Corrupted.into()),
            _ => {
                let run = usize::from(first & 3) + 1;
                (format!("v:{},{run}", (first >> 2 & 31) + 1), run, behind)
            }
        };
        registers += run;
        // More registers than there are would also be more text than a value of any use has.
        if registers > hll::REGISTERS {
            return Err(HllError::Corrupted.into());
        }
        words.push(word);
        rest = behind;
    }
    Ok(words.join(" "))
}

/// Turns a sparse value dense and keeps its cached count.
fn to_dense(value: &mut Vec<u8>) -> Result<(), HllError> {
    // The union with an empty dense value is the same set, and dense.
    let mut empty = hll::create();
    empty.resize(hll::DENSE_LEN, 0);
    empty[ENCODING_AT] = 0;
    empty[HEADER_LEN..].fill(0);
    let mut union = Union::new();
    union.merge(&empty)?;
    union.merge(value)?;
    let cached: [u8; 8] = value[HEADER_LEN - 8..HEADER_LEN].try_into().expect("eight bytes");
    union.store(value, 0)?;
    value[HEADER_LEN - 8..HEADER_LEN].copy_from_slice(&cached);
    Ok(())
}

const PFMERGE: Command = Command {
    name: "PFMERGE",
    arity: Arity::AtLeast(2),
    keys: Keys::Range { first: 1, last: -1, step: 1 },
    flags: Flags::WRITE.with(Flags::GROWS),
    spread: Spread::Gathered,
    group: Group::HyperLogLog,
    since: "2.8.9",
    syntax: "destkey [sourcekey [sourcekey ...]]",
    summary: "Adds the elements of HyperLogLogs to another one, made if it is missing.",
    run: Run::Shard(pfmerge),
};

fn pfmerge(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let to = args.peek();
    if gather(cx, args, to, true, |_| Gather { union: Union::new(), target: to.map(Into::into) }) {
        return Ok(());
    }
    let mut union = Union::new();
    for key in args.rest() {
        if let Some(value) = cx.read_string(key)? {
            union.merge(value.bytes(&mut Decimal::new(0)))?;
        }
    }
    store(cx, args.take()?, &union)
}

/// Puts a union under a key.
fn store(cx: &mut Cx<'_>, target: &[u8], union: &Union) -> CmdResult {
    let sparse_max = cx.env.hll_sparse_max;
    match cx.find_string(target)? {
        Some(loc) => cx.ks.table_mut(cx.db).edit_string(loc, |value| union.store(value, sparse_max))?,
        None => {
            let mut value = hll::create();
            union.store(&mut value, sparse_max)?;
            cx.set_edited(target, value, Expiry::Never);
        }
    }
    cx.changed(target, Class::String, "pfadd");
    cx.out.ok();
    Ok(())
}

/// The union of what very many keys hold.
struct Gather {
    union: Union,
    /// Where it goes; it is counted if that is None.
    target: Option<Box<[u8]>>,
}

impl Gathered for Gather {
    fn take(&mut self, told: Told) -> CmdResult {
        match told {
            Told::Nothing => Ok(()),
            Told::Text(value) => Ok(self.union.merge(&value)?),
            Told::Object(_) => Err(CommandError::WrongType),
        }
    }

    fn begin(self: Box<Self>) -> Box<dyn Task> {
        End::new(move |cx| match &self.target {
            Some(target) => store(cx, target, &self.union),
            None => {
                cx.out.int(self.union.count().cast_signed());
                Ok(())
            }
        })
    }

    fn into_held(self: Box<Self>) -> Vec<Object> {
        Vec::new()
    }
}

const PFSELFTEST: Command = Command {
    name: "PFSELFTEST",
    arity: Arity::Exactly(1),
    keys: Keys::None,
    flags: Flags::ADMIN,
    spread: Spread::Single,
    group: Group::HyperLogLog,
    since: "2.8.9",
    syntax: "",
    summary: "Checks that counts are as close as they should be.",
    run: Run::Shard(pfselftest),
};

fn pfselftest(cx: &mut Cx<'_>, _: Args<'_>) -> CmdResult {
    // A few milliseconds' worth; the standard error of 16384 registers is 0.81 %, and four of it never happen.
    const ELEMENTS: u64 = 100_000;
    let mut value = hll::create();
    for n in 1..=ELEMENTS {
        hll::add(&mut value, [n.to_le_bytes().as_slice()], cx.env.hll_sparse_max)?;
        if n.is_power_of_two() || n == ELEMENTS {
            let count = hll::estimate(&value)?;
            if count.abs_diff(n) > n * 325 / 10_000 + 1 {
                return Err(CommandError::owned(format!("TESTFAILED {n} elements were counted as {count}")));
            }
        }
    }
    cx.out.ok();
    Ok(())
}
