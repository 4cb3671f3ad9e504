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

use damselfly_keyspace::Collection;
use damselfly_protocol::{Proto, ReplyWriter};

use crate::args::Kept;
use crate::long::{Written, reply_made};
use crate::task::{BYTES_PER_STEP, Rest, Work, lent};
use crate::{Args, CmdResult, CommandError, Cx};

/// An argument takes as long as so many members that are only looked at.
const LOOKS_PER_ARGUMENT: usize = 8;

/// Arguments in one step, at most: some hundred microseconds' worth where each is a miss of the cache or several.
pub(crate) const ARGUMENTS_PER_STEP: usize = 96;

/// Arguments that are answered in one step.
const ANSWERS_PER_STEP: usize = 16;

/// A clone of a collection with so many elements takes as long as an argument.
const CLONED_PER_ARGUMENT: usize = 256;

/// Whether a request has so many arguments that it is done in steps.
#[inline]
fn is_many(cx: &Cx<'_>, args: Args<'_>) -> bool {
    are_many(cx, args.len())
}

/// Whether so many elements are changed in steps, which each takes as long as an argument.
#[inline]
pub(crate) fn are_many(cx: &Cx<'_>, count: usize) -> bool {
    count > cx.env.at_once_max / LOOKS_PER_ARGUMENT && cx.later.is_some()
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
    answer_from(held, &mut cx.out, cx.later.as_deref_mut().filter(|_| is_many), args, len, answer);
    Ok(())
}

/// As [`answer`], where a missing key is an error.
pub(crate) fn answer_there<C: Collection + Clone>(
    cx: &mut Cx<'_>,
    key: &[u8],
    args: Args<'_>,
    missing: CommandError,
    len: impl FnOnce(&C) -> usize,
    answer: impl Fn(&C, &[u8], &mut ReplyWriter<'_>) + Send + 'static,
) -> CmdResult {
    let is_many = is_many(cx, args);
    let held = Some(cx.ks.view::<C>(cx.db, key)?.ok_or(missing)?);
    let answer = move |held: Option<&C>, arg: &[u8], out: &mut ReplyWriter<'_>| {
        held.into_iter().for_each(|held| answer(held, arg, out));
    };
    answer_from(held, &mut cx.out, cx.later.as_deref_mut().filter(|_| is_many), args, len, answer);
    Ok(())
}

/// As [`answer`], for commands that are no reads.
pub(crate) fn answer_uncounted<C: Collection + Clone>(
    cx: &mut Cx<'_>,
    key: &[u8],
    args: Args<'_>,
    len: impl FnOnce(&C) -> usize,
    answer: impl Fn(Option<&C>, &[u8], &mut ReplyWriter<'_>) + Send + 'static,
) -> CmdResult {
    let is_many = is_many(cx, args);
    let held = cx.ks.peek::<C>(cx.db, key)?;
    answer_from(held, &mut cx.out, cx.later.as_deref_mut().filter(|_| is_many), args, len, answer);
    Ok(())
}

#[inline]
fn answer_from<C: Collection + Clone>(
    held: Option<&C>,
    out: &mut ReplyWriter<'_>,
    later: Option<&mut Option<Rest>>,
    args: Args<'_>,
    len: impl FnOnce(&C) -> usize,
    answer: impl Fn(Option<&C>, &[u8], &mut ReplyWriter<'_>) + Send + 'static,
) {
    out.array(args.len());
    if let (Some(_), Some(held)) = (&later, held)
        && len(held) / CLONED_PER_ARGUMENT <= args.len()
        && let Some(mut args) = Kept::new(args)
    {
        let step = move |held: &C, out: &mut ReplyWriter<'_>| {
            let some = args.take_some(1, ANSWERS_PER_STEP, usize::MAX);
            some.rest().for_each(|arg| answer(Some(held), arg, out));
            args.is_empty()
        };
        return reply_made(out, later, held, step);
    }
    args.rest().for_each(|arg| answer(held, arg, out));
}

/// What a command does to the collection under its key, argument by argument.
pub(crate) trait Many: Send + 'static {
    /// The type of the collection.
    type To: Collection + Send;
    /// Whether a missing key begins with an empty collection; else nothing is done to it.
    const MAKES: bool;
    /// Whether the reply is an array, of what each unit of arguments is answered; else [`Many::end`] replies.
    const ANSWERS: bool = false;
    /// How many arguments belong together.
    fn unit(&self) -> usize {
        1
    }
    /// Whether [`Many::allows`] is to be asked.
    const ASKS: bool = false;
    /// Whether these arguments let anything be done at all: called, as `change` is, for all of them before the first is
    /// done.
    fn allows(&self, _to: &Self::To, _args: Args<'_>) -> bool {
        true
    }
    /// Nothing will be done, as it was not allowed.
    fn refused(&mut self) {}
    /// Does what these arguments ask for, and answers each if that is the reply. Called once with all, or in steps with
    /// some of them in order.
    fn change(&mut self, to: &mut Self::To, args: Args<'_>, out: &mut ReplyWriter<'_>);
    /// Answers a unit of arguments if there is no collection.
    fn answer_missing(&self, _out: &mut ReplyWriter<'_>) {}
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
    let (ks, out) = (&mut *cx.ks, &mut cx.out);
    if M::ANSWERS {
        out.array(args.len() / many.unit());
    }
    let change = |to: &mut M::To| match many.allows(to, args) {
        true => many.change(to, args, out),
        false => many.refused(),
    };
    let gone = if M::MAKES {
        Some(ks.edit_or_new(cx.db, key, change)?.gone)
    } else {
        ks.edit(cx.db, key, change)?.map(|edit| edit.gone)
    };
    if M::ANSWERS && gone.is_none() {
        (0..args.len() / many.unit()).for_each(|_| many.answer_missing(&mut cx.out));
    }
    many.end(cx, key, gone)
}

#[cold]
fn change_in_steps<M: Many>(cx: &mut Cx<'_>, key: &[u8], args: Args<'_>, mut many: M) -> CmdResult {
    let loc = cx.ks.find_collection::<M::To>(cx.db, key)?;
    if loc.is_none() && !M::MAKES {
        return change_at_once(cx, key, args, &mut many);
    }
    let (Some(kept), Some(place)) = (Kept::new(args), &mut cx.later) else {
        return change_at_once(cx, key, args, &mut many);
    };
    let to = match loc {
        Some(loc) => cx.ks.lend::<M::To>(cx.db, loc)?,
        None => M::To::begin(cx.ks.hash_seed()),
    };
    let answers = M::ANSWERS.then(|| (args.len() / many.unit(), Written::new(cx.out.proto())));
    let work = ByArguments { args: kept, is_allowed: !M::ASKS, many, answers };
    **place = Some(lent(key, to, loc.is_none(), work));
    Ok(())
}

/// A change in steps, some arguments in each.
struct ByArguments<M> {
    args: Kept,
    /// No argument is to be asked any more whether anything is to be done.
    is_allowed: bool,
    many: M,
    /// How many answers there will be, and those that are written.
    answers: Option<(usize, Written)>,
}

impl<M: Many> Work for ByArguments<M> {
    type To = M::To;

    fn step(&mut self, to: &mut M::To) -> bool {
        let many = &mut self.many;
        let args = self.args.take_some(many.unit(), ARGUMENTS_PER_STEP, BYTES_PER_STEP);
        if !self.is_allowed {
            if !many.allows(to, args) {
                many.refused();
                return true;
            }
            if self.args.is_empty() {
                self.is_allowed = true;
                self.args.put_back();
            }
            return false;
        }
        match &mut self.answers {
            Some((_, answers)) => answers.write(|out| many.change(to, args, out)),
            None => many.change(to, args, &mut ReplyWriter::new(&mut Vec::new(), Proto::Resp2)),
        }
        self.args.is_empty()
    }

    fn end(&mut self, cx: &mut Cx<'_>, key: &[u8], gone: Option<bool>) -> CmdResult {
        if let Some((count, answers)) = &mut self.answers {
            cx.out.array(*count);
            answers.reply(cx);
        }
        self.many.end(cx, key, gone)
    }
}
