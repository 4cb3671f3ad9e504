//! Members that Redis chooses: random ones, taken or not, and all of them step by step.

use damselfly_keyspace::values::set::Set;
use damselfly_keyspace::{Collection, Item, Object, UnixMs};
use damselfly_protocol::number::parse_i64;

use super::{announce_loss, reply_item};
use crate::long::{Walk, Written, put_aside};
use crate::pick::{Picked, With, pick};
use crate::random::Random;
use crate::task::{Rest, Task};
use crate::walk::walk;
use crate::{Args, Arity, CmdResult, Command, CommandError, Cx, Flags, Group, Keys, Run, Spread};

pub(super) const SPOP: Command = Command {
    name: "SPOP",
    arity: Arity::AtLeast(2),
    keys: Keys::First,
    flags: Flags::WRITE.with(Flags::FAST),
    spread: Spread::Single,
    group: Group::Set,
    since: "1.0.0",
    syntax: "key [count]",
    summary: "Returns random members and removes them.",
    run: Run::Shard(spop),
};

fn spop(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    if !args.is_empty() {
        return pop_count(cx, key, args);
    }
    let mut random = Random::new(cx.ks.random());
    let out = &mut cx.out;
    let edit =
        cx.ks.edit(cx.db, key, |set: &mut Set| set.pop(|| random.next(), |item| reply_item(out, item)))?;
    match edit {
        Some(edit) => announce_loss(cx, key, "spop", edit.gone),
        None => cx.out.null(),
    }
    Ok(())
}

fn pop_count(cx: &mut Cx<'_>, key: &[u8], mut args: Args<'_>) -> CmdResult {
    const NEGATIVE: CommandError = CommandError::text("ERR value is out of range, must be positive");
    if args.len() > 1 {
        return Err(CommandError::Syntax);
    }
    let count = parse_i64(args.take()?).and_then(|count| usize::try_from(count).ok()).ok_or(NEGATIVE)?;
    let mut random = Random::new(cx.ks.random());
    let loc = cx.ks.find_collection::<Set>(cx.db, key)?;
    let Some(loc) = loc.filter(|_| count > 0) else {
        cx.out.set(0);
        return Ok(());
    };
    let len = cx.ks.collection::<Set>(cx.db, loc)?.len();
    let all = count >= len;
    if !all
        && count > cx.env.at_once_max
        && let Some(place) = &mut cx.later
    {
        let (set, written) = (Some(cx.ks.lend::<Set>(cx.db, loc)?), Written::new(cx.out.proto()));
        **place =
            Some(Rest::Task(Box::new(Popping { key: key.into(), set, random, count, left: count, written })));
        return Ok(());
    }
    let (out, set) = (&mut cx.out, cx.ks.collection::<Set>(cx.db, loc)?);
    out.set(count.min(len));
    if all {
        // The key goes with all members still in the set: a big one is then freed in steps.
        let size = (len, len, set.heap_bytes());
        if !put_aside(&mut cx.later, out.proto(), set, size, || Walk::Members { cursor: 0 }) {
            set.iter().for_each(|item| reply_item(out, item));
        }
        cx.ks.remove_at(cx.db, loc);
    } else {
        cx.ks.edit_at(cx.db, loc, |set: &mut Set| {
            set.pop_many(count, || random.next(), |item| reply_item(out, item));
        })?;
    }
    announce_loss(cx, key, "spop", all);
    Ok(())
}

/// SPOP of many members in steps: the set is lent until it is over.
struct Popping {
    key: Box<[u8]>,
    /// None behind the end.
    set: Option<Set>,
    random: Random,
    count: usize,
    /// How many of them are still to be popped.
    left: usize,
    written: Written,
}

impl Task for Popping {
    fn target(&self) -> Option<&[u8]> {
        Some(&self.key)
    }

    fn step(&mut self) -> bool {
        let Popping { set: Some(set), random, left, written, .. } = self else { return true };
        let count = POPPED_PER_STEP.min(*left);
        written.write(|out| {
            set.pop_many(count, || random.next(), |item| reply_item(out, item));
        });
        *left -= count;
        *left == 0
    }

    fn finish(&mut self, cx: &mut Cx<'_>) -> CmdResult {
        cx.out.set(self.count);
        self.written.reply(cx);
        let edit = self.set.take().and_then(|set| cx.ks.give_back(cx.db, &self.key, set));
        if let Some(edit) = edit {
            announce_loss(cx, &self.key, "spop", edit.gone);
        }
        Ok(())
    }

    fn into_held(self: Box<Self>) -> Vec<Object> {
        self.set.map(Set::wrap).into_iter().chain([self.written.into_held()]).collect()
    }
}

/// Members popped in one step: some ten microseconds' worth.
const POPPED_PER_STEP: usize = 128;

pub(super) const SRANDMEMBER: Command = Command {
    name: "SRANDMEMBER",
    arity: Arity::AtLeast(2),
    keys: Keys::First,
    flags: Flags::READ,
    spread: Spread::Single,
    group: Group::Set,
    since: "1.0.0",
    syntax: "key [count]",
    summary: "Returns random members.",
    run: Run::Shard(srandmember),
};

fn srandmember(cx: &mut Cx<'_>, mut args: Args<'_>) -> CmdResult {
    let key = args.take()?;
    if args.is_empty() {
        let mut random = Random::new(cx.ks.random());
        match cx.ks.view::<Set>(cx.db, key)?.and_then(|set| set.random(|| random.next())) {
            Some(item) => reply_item(&mut cx.out, item),
            None => cx.out.null(),
        }
        return Ok(());
    }
    if args.len() > 1 {
        return Err(CommandError::Syntax);
    }
    let count = args.take_int()?;
    if count == i64::MIN {
        return Err(CommandError::text(
            "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
        ));
    }
    pick::<Set>(cx, key, count, false)
}

impl Picked for Set {
    /// The number, or where the bytes are: members do not move while they are looked at.
    type Mark = (u64, bool);

    fn choices(&self, _now: UnixMs) -> usize {
        self.len()
    }

    fn draw(&self, _now: UnixMs, random: &mut Random, show: impl FnOnce(Self::Mark, Item<'_>, With<'_>)) {
        let item = self.random(|| random.next()).expect("a set under a key has members");
        let mark = match item {
            Item::Int(number) => (number as u64, true),
            Item::Bytes(bytes) => (bytes.as_ptr() as u64, false),
        };
        show(mark, item, With::Nothing);
    }

    fn walk(&self, cursor: u64, count: usize, _now: UnixMs, mut show: impl FnMut(Item<'_>, With<'_>)) -> u64 {
        self.scan(cursor, count, |item| show(item, With::Nothing))
    }
}

pub(super) const SSCAN: Command = Command {
    name: "SSCAN",
    arity: Arity::AtLeast(3),
    keys: Keys::First,
    flags: Flags::READ,
    spread: Spread::Single,
    group: Group::Set,
    since: "2.8.0",
    syntax: "key cursor [MATCH pattern] [COUNT count]",
    summary: "Walks the members in steps.",
    run: Run::Shard(sscan),
};

fn sscan(cx: &mut Cx<'_>, args: Args<'_>) -> CmdResult {
    walk(cx, args, false, |set: &Set, cursor, step, shown| {
        set.scan(cursor, step.count, |item| {
            if step.shows(item.as_bytes(&mut [0; 20])) {
                reply_item(shown.element(), item);
            }
        })
    })
}
