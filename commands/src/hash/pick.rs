//! Fields that Redis chooses: random ones, and all of them step by step.

use std::collections::HashSet;

use damselfly_config::glob::Pattern;
use damselfly_keyspace::UnixMs;
use damselfly_keyspace::values::hash::{Field, Hash};
use damselfly_protocol::number::parse_u64;
use damselfly_protocol::{Proto, ReplyWriter};

use super::reply_item;
use crate::{Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Run, Spread};

pub(super) const HRANDFIELD: Command = Command {
    name: "HRANDFIELD",
    arity: Arity::AtLeast(2),
    keys: Keys::First,
    flags: Flags::READ,
    spread: Spread::Single,
    group: Group::Hash,
    since: "6.2.0",
    syntax: "key [count [WITHVALUES]]",
    summary: "Returns random fields.",
    run: Run::Shard(hrandfield),
};

fn hrandfield(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    const FULL_RANGE: CommandError = CommandError::text(
        "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
    );
    let key = args.take()?;
    let (now, state) = (cx.ks.now, cx.ks.random());
    if args.is_empty() {
        match cx.ks.view::<Hash>(cx.db, key)?.and_then(|hash| hash.random(now, sequence(state))) {
            Some(field) => reply_item(&mut cx.out, field.field),
            None => cx.out.null(),
        }
        return Ok(());
    }
    let count = args.take_int()?;
    if count == i64::MIN {
        return Err(FULL_RANGE);
    }
    let values = match args.len() {
        0 => false,
        1 if args.take_word("WITHVALUES") => true,
        _ => return Err(CommandError::Syntax),
    };
    if values && count.unsigned_abs() > i64::MAX as u64 / 2 {
        return Err(CommandError::OutOfRange);
    }
    let hash = cx.ks.view::<Hash>(cx.db, key)?;
    let Some(hash) = hash.filter(|_| count != 0) else {
        cx.out.array(0);
        return Ok(());
    };
    let wanted = usize::try_from(count.unsigned_abs()).unwrap_or(usize::MAX);
    let mut random = sequence(state);
    if count > 0 {
        distinct(&mut cx.out, hash, now, wanted, values, &mut random);
        return Ok(());
    }
    if wanted > REPEATED_MAX {
        return Err(CommandError::OutOfRange);
    }
    let shape = Shape::begin(&mut cx.out, wanted, values);
    for _ in 0..wanted {
        let field = hash.random(now, &mut random).expect("a key that is found has fields");
        shape.write(&mut cx.out, field);
    }
    Ok(())
}

/// Most fields that one HRANDFIELD repeats. Its reply is one that a few bytes of request can make any size; Redis
/// would try.
const REPEATED_MAX: usize = 1 << 24;

/// Below one in so many, fields are drawn one by one; above, all are walked.
const SPARSE: usize = 16;

/// Replies with up to `wanted` different fields.
fn distinct(
    out: &mut ReplyWriter<'_>,
    hash: &Hash,
    now: UnixMs,
    wanted: usize,
    values: bool,
    random: &mut impl FnMut() -> u64,
) {
    let len = hash.len(now);
    let mut wanted = wanted.min(len);
    let shape = Shape::begin(out, wanted, values);
    // Draws are quick unless most of what is drawn has expired.
    if wanted > len / SPARSE || hash.is_due(now) {
        // One walk over all, each taken with the probability that leaves the rest uniform.
        let mut left = len;
        hash.for_each(now, |field| {
            if below(random(), left) < wanted {
                shape.write(out, field);
                wanted -= 1;
            }
            left -= 1;
        });
        return;
    }
    let mut seen = HashSet::with_capacity(wanted);
    while seen.len() < wanted {
        let field = hash.random(now, &mut *random).expect("a key that is found has fields");
        if seen.insert(field.field.to_vec()) {
            shape.write(out, field);
        }
    }
}

/// A reply of fields, with their values or without: RESP2 has one flat array of both, RESP3 an array of pairs.
#[derive(Clone, Copy)]
struct Shape {
    values: bool,
    nested: bool,
}

impl Shape {
    fn begin(out: &mut ReplyWriter<'_>, len: usize, values: bool) -> Shape {
        let nested = values && out.proto() == Proto::Resp3;
        out.array(if values && !nested { 2 * len } else { len });
        Shape { values, nested }
    }

    fn write(self, out: &mut ReplyWriter<'_>, field: Field<'_>) {
        if self.nested {
            out.array(2);
        }
        reply_item(out, field.field);
        if self.values {
            reply_item(out, field.value);
        }
    }
}

/// Random numbers of a sequence of their own (splitmix64), begun by the keyspace's, whose state cannot be had while a
/// hash is looked at.
fn sequence(mut state: u64) -> impl FnMut() -> u64 {
    move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = state;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }
}

/// A random number below `bound` out of 64 random bits.
fn below(random: u64, bound: usize) -> usize {
    ((u128::from(random) * bound as u128) >> 64) as usize
}

pub(super) const HSCAN: Command = Command {
    name: "HSCAN",
    arity: Arity::AtLeast(3),
    keys: Keys::First,
    flags: Flags::READ,
    spread: Spread::Single,
    group: Group::Hash,
    since: "2.8.0",
    syntax: "key cursor [MATCH pattern] [COUNT count] [NOVALUES]",
    summary: "Walks the fields and their values in steps.",
    run: Run::Shard(hscan),
};

fn hscan(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let (key, now) = (args.take()?, cx.ks.now);
    let cursor = parse_u64(args.take()?).ok_or(CommandError::text("ERR invalid cursor"))?;
    // As in Redis, a missing key is answered before the options are looked at.
    let Some(hash) = cx.ks.view::<Hash>(cx.db, key)? else {
        cx.out.array(2);
        cx.out.bulk(b"0");
        cx.out.array(0);
        return Ok(());
    };
    let (mut pattern, mut count, mut values) = (None, 10, true);
    while !args.is_empty() {
        if args.take_word("NOVALUES") {
            values = false;
        } else if args.len() > 1 && args.take_word("MATCH") {
            pattern = Some(Pattern::new(args.take()?)).filter(|pattern| !pattern.matches_everything());
        } else if args.len() > 1 && args.take_word("COUNT") {
            count = args.take_int()?;
            if count < 1 {
                return Err(CommandError::Syntax);
            }
        } else {
            return Err(CommandError::Syntax);
        }
    }
    let mut found = Vec::new();
    let mut elements = 0;
    let next = {
        let mut out = ReplyWriter::new(&mut found, cx.out.proto());
        hash.scan(cursor, usize::try_from(count).unwrap_or(usize::MAX), now, |field| {
            let matches = |pattern: &Pattern| pattern.matches(field.field.as_bytes(&mut [0; 20]));
            if pattern.as_ref().is_none_or(matches) {
                reply_item(&mut out, field.field);
                elements += 1;
                if values {
                    reply_item(&mut out, field.value);
                    elements += 1;
                }
            }
        })
    };
    cx.out.array(2);
    cx.out.bulk_int(next.cast_signed());
    cx.out.array(elements);
    cx.out.raw(&found);
    Ok(())
}
