//! Fields that Redis chooses: random ones, and all of them step by step.

use std::collections::HashSet;

use damselfly_keyspace::UnixMs;
use damselfly_keyspace::values::hash::{Field, Hash};
use damselfly_protocol::{Proto, ReplyWriter};

use super::reply_item;
use crate::random::Random;
use crate::walk::walk;
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
    let (now, mut random) = (cx.ks.now, Random::new(cx.ks.random()));
    if args.is_empty() {
        match cx.ks.view::<Hash>(cx.db, key)?.and_then(|hash| hash.random(now, || random.next())) {
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
    if count > 0 {
        distinct(&mut cx.out, hash, now, wanted, values, &mut random);
        return Ok(());
    }
    if wanted > REPEATED_MAX {
        return Err(CommandError::OutOfRange);
    }
    let shape = Shape::begin(&mut cx.out, wanted, values);
    for _ in 0..wanted {
        let field = hash.random(now, || random.next()).expect("a key that is found has fields");
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
    random: &mut Random,
) {
    let len = hash.len(now);
    let mut wanted = wanted.min(len);
    let shape = Shape::begin(out, wanted, values);
    // Draws are quick unless most of what is drawn has expired.
    if wanted > len / SPARSE || hash.is_due(now) {
        // One walk over all, each taken with the probability that leaves the rest uniform.
        let mut left = len;
        hash.for_each(now, |field| {
            if random.below(left) < wanted {
                shape.write(out, field);
                wanted -= 1;
            }
            left -= 1;
        });
        return;
    }
    let mut seen = HashSet::with_capacity(wanted);
    while seen.len() < wanted {
        let field = hash.random(now, || random.next()).expect("a key that is found has fields");
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

fn hscan(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    let now = cx.ks.now;
    walk(cx, args, true, move |hash: &Hash, cursor, step, shown| {
        hash.scan(cursor, step.count, now, |field| {
            if step.shows(field.field.as_bytes(&mut [0; 20])) {
                reply_item(shown.element(), field.field);
                if step.values {
                    reply_item(shown.element(), field.value);
                }
            }
        })
    })
}
