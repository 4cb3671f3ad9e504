//! Fields that Redis chooses: random ones, and all of them step by step.

use damselfly_keyspace::values::hash::Hash;
use damselfly_keyspace::{Item, UnixMs};

use super::reply_item;
use crate::pick::{Picked, With, pick};
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
    if args.is_empty() {
        let (now, mut random) = (cx.ks.now, Random::new(cx.ks.random()));
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
    pick::<Hash>(cx, key, count, values)
}

impl Picked for Hash {
    type Mark = Vec<u8>;

    fn choices(&self, now: UnixMs) -> usize {
        self.len(now)
    }

    /// Most of what is drawn may have expired.
    fn draws_slowly(&self, now: UnixMs) -> bool {
        self.is_due(now)
    }

    fn draw(&self, now: UnixMs, random: &mut Random, show: impl FnOnce(Vec<u8>, Item<'_>, With<'_>)) {
        let field = self.random(now, || random.next()).expect("a key that is found has fields");
        show(field.field.to_vec(), field.field, With::Value(field.value));
    }

    fn walk(&self, cursor: u64, count: usize, now: UnixMs, mut show: impl FnMut(Item<'_>, With<'_>)) -> u64 {
        self.scan(cursor, count, now, |field| show(field.field, With::Value(field.value)))
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
