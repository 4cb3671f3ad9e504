//! Commands with very many arguments, each about an element of one collection.
//!
//! A hundred thousand members take tens of milliseconds to add, and a shard has other clients. So the arguments of a
//! request with so many are kept, the collection is lent to a task, and the server does some of them at a time. As the
//! key is locked, nobody sees the collection until the last one is done: to everybody it is one change, announced once.
//! The collection is not cloned as where little of a big one changes (`task.rs`): members that lie everywhere would make
//! that a copy of it all.
//!
//! What can be wrong with the arguments is found before the first of them changes anything.
//!
//! What only asks locks nothing: its answers are a long reply (`long.rs`), from a clone.

use damselfly_keyspace::{Collection, Object};
use damselfly_protocol::ReplyWriter;

use crate::args::Kept;
use crate::task::{BYTES_PER_STEP, Rest, Task};
use crate::{Args, CmdResult, CommandError, Cx, Long};

/// An argument takes as long as so many members that are only looked at.
const LOOKS_PER_ARGUMENT: usize = 8;

/// Arguments in one step, at most: some hundred microseconds' worth where each is a miss of the cache or several.
const ARGUMENTS_PER_STEP: usize = 96;

/// Arguments that are answered in one step.
const ANSWERS_PER_STEP: usize = 16;

/// A clone of a collection with so many elements takes as long as an argument.
const CLONED_PER_ARGUMENT: usize = 256;

/// Whether a request has so many arguments that it is done in steps.
#[inline]
fn is_many(cx: &Cx<'_>, args: Args<'_>) -> bool {
    args.len() > cx.env.at_once_max / LOOKS_PER_ARGUMENT && cx.later.is_some()
}

/// Replies with what the collection under a key, if there is one, answers to each argument.
#[inline]
pub(crate) fn answer<C: Collection + Clone>(
    cx: &mut Cx<'_>,
    key: &[u8],
    args: Args<'_>,
    len: impl FnOnce(&C) -> usize,
    answer: impl Fn(Option<&C>, &[u8], &mut ReplyWriter<'_>) + Send + 'static,
) -> CmdResult {
    let is_many = is_many(cx, args);
    let held = cx.ks.view::<C>(cx.db, key)?;
    cx.out.array(args.len());
    if is_many
        && let Some(held) = held
        && len(held) / CLONED_PER_ARGUMENT <= args.len()
        && let (Some(mut args), Some(place)) = (Kept::new(args), &mut cx.later)
    {
        let step = move |held: &C, out: &mut ReplyWriter<'_>| {
            let some = args.take_some(1, ANSWERS_PER_STEP, usize::MAX);
            some.rest().for_each(|arg| answer(Some(held), arg, out));
            args.is_empty()
        };
        **place = Some(Rest::Reply(Long::made(held, cx.out.proto(), step)));
        return Ok(());
    }
    args.rest().for_each(|arg| answer(held, arg, &mut cx.out));
    Ok(())
}

/// What a command does to the collection under its key, argument by argument.
pub(crate) trait Many: Send + 'static {
    /// The type of the collection.
    type To: Collection + Send;
    /// Whether a missing key begins with an empty collection; else nothing is done to it.
    const MAKES: bool;
    /// How many arguments belong together.
    fn unit(&self) -> usize {
        1
    }
    /// Does what these arguments ask for. Called once with all, or in steps with some of them in order.
    fn change(&mut self, to: &mut Self::To, args: Args<'_>);
    /// Announces and replies when all is done. Is told whether the key has gone with its last element, or None if there
    /// is no key: it was missing, or went before, as expiry and eviction take even what is locked.
    fn end(&mut self, cx: &mut Cx<'_>, key: &[u8], gone: Option<bool>) -> CmdResult;
}

/// Changes the collection under a key by all arguments: at once, or in steps if they are many.
#[inline]
pub(crate) fn change<M: Many>(cx: &mut Cx<'_>, key: &[u8], args: Args<'_>, mut many: M) -> CmdResult {
    if is_many(cx, args) {
        return change_in_steps(cx, key, args, many);
    }
    change_at_once(cx, key, args, &mut many)
}

#[inline]
fn change_at_once<M: Many>(cx: &mut Cx<'_>, key: &[u8], args: Args<'_>, many: &mut M) -> CmdResult {
    let change = |to: &mut M::To| many.change(to, args);
    let gone = if M::MAKES {
        Some(cx.ks.edit_or_new(cx.db, key, change)?.gone)
    } else {
        cx.ks.edit(cx.db, key, change)?.map(|edit| edit.gone)
    };
    many.end(cx, key, gone)
}

#[cold]
fn change_in_steps<M: Many>(cx: &mut Cx<'_>, key: &[u8], args: Args<'_>, mut many: M) -> CmdResult {
    let loc = cx.ks.find_collection::<M::To>(cx.db, key)?;
    let (Some(args), Some(place)) = (Kept::new(args), &mut cx.later) else {
        return change_at_once(cx, key, args, &mut many);
    };
    let to = match loc {
        Some(loc) => cx.ks.lend::<M::To>(cx.db, loc)?,
        None if M::MAKES => M::To::begin(cx.ks.hash_seed()),
        None => return many.end(cx, key, None),
    };
    **place = Some(Rest::Task(Box::new(Changing {
        key: key.into(),
        is_new: loc.is_none(),
        to: Some(to),
        args,
        many,
    })));
    Ok(())
}

/// A change in steps.
struct Changing<M: Many> {
    key: Box<[u8]>,
    /// Nothing is under the key before the end; else the collection is lent from it.
    is_new: bool,
    /// None behind the end.
    to: Option<M::To>,
    args: Kept,
    many: M,
}

impl<M: Many> Task for Changing<M> {
    fn target(&self) -> Option<&[u8]> {
        Some(&self.key)
    }

    fn step(&mut self) -> bool {
        let Some(to) = &mut self.to else { return true };
        self.many.change(to, self.args.take_some(self.many.unit(), ARGUMENTS_PER_STEP, BYTES_PER_STEP));
        self.args.is_empty()
    }

    fn finish(&mut self, cx: &mut Cx<'_>) -> CmdResult {
        let Some(to) = self.to.take() else { return Err(CommandError::Syntax) };
        let gone = if self.is_new {
            let gone = to.is_gone();
            cx.ks.store(cx.db, &self.key, to);
            Some(gone)
        } else {
            cx.ks.give_back(cx.db, &self.key, to).map(|edit| edit.gone)
        };
        self.many.end(cx, &self.key, gone)
    }

    fn into_held(self: Box<Self>) -> Vec<Object> {
        self.to.into_iter().map(Collection::wrap).collect()
    }
}
