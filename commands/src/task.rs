//! Commands over big collections, done in steps.
//!
//! A union of two sets of a million members takes hundreds of milliseconds, and a shard has other clients. So the
//! handler only clones the collections that it was to look at (a clone shares the nodes, and whoever writes to one of
//! them meanwhile copies the nodes that it touches) and leaves a [`Task`]. The server does steps of it between other
//! commands, and its end, which writes the reply or stores the result, when no step is left.
//!
//! The command has happened when its handler ran: what it looks at is as it was then. What it changes is one key, its
//! target, and nobody else may see or change that from the handler's return to the end of the task. So the server locks
//! it, and nothing else: whoever comes to the sources, even to write, does not wait.
//!
//! Where a command must be over when its handler returns (inside of a transaction or a script) it is done at once.

use damselfly_keyspace::{Collection, Edit, Loc, Object, PastId};

use crate::past::{Told, Wanted};
use crate::{CmdResult, CommandError, Cx, Long};

/// Members that are looked at in one step, at most, and their bytes: some tens of microseconds' worth.
pub(crate) const MEMBERS_PER_STEP: usize = 256;
pub(crate) const BYTES_PER_STEP: usize = 64 * 1024;

/// See the module's head.
pub trait Task: Send {
    /// The key that the result goes to, in the client's database; None if it is the reply.
    fn target(&self) -> Option<&[u8]>;
    /// Does a bounded step; true if only the end is left. Not called again then.
    fn step(&mut self) -> bool;
    /// The past that it looks back into on all shards. It ends when this is None, or with the task.
    fn past(&self) -> Option<PastId> {
        None
    }
    /// What it must be told of keys in that past before its next step, as a step may leave it. Each is asked for once.
    fn asks(&mut self) -> Vec<Wanted> {
        Vec::new()
    }
    /// The next answers, in the order of the questions; all come before the next step.
    fn told(&mut self, _found: Vec<Told>) {}
    /// Writes the reply, and stores the result on the shard of its target. Called once, behind the last step. As with
    /// a handler, an error is the reply.
    fn finish(&mut self, cx: &mut Cx<'_>) -> CmdResult;
    /// What it holds, at its end or before it, to be freed in steps.
    fn into_held(self: Box<Self>) -> Vec<Object>;
}

/// What is left of a command whose handler has returned.
pub enum Rest {
    /// Its reply was begun.
    Reply(Box<Long>),
    /// Nothing of it can be seen yet.
    Task(Box<dyn Task>),
}

/// Where the rest of a command is put, if it may be done later.
pub type Later<'a> = Option<&'a mut Option<Rest>>;

/// Members for a step of a walk over a collection of so many, when each of them is looked up so many times.
pub(crate) fn members_per_step(len: usize, heap_bytes: usize, look_ups: usize) -> usize {
    let by_bytes = BYTES_PER_STEP.saturating_mul(len) / heap_bytes.max(1);
    by_bytes.min(MEMBERS_PER_STEP / look_ups.max(1)).max(1)
}

/// A change of one collection in steps. They are done to a clone, which takes the collection's place at the end: so
/// nobody sees it half done, not even those who ask for no lock (SCAN, a snapshot that began before).
pub(crate) struct Change<C, S, E> {
    key: Box<[u8]>,
    changed: C,
    step: S,
    end: E,
}

/// Leaves a change of the collection under a key. `step` does a bounded part of it to the clone, and answers whether
/// that was the last; `end` announces and replies, and is told whether the key has gone with its last element, or
/// None if it went before, as expiry and eviction take even what is locked.
pub(crate) fn change_in_steps<C: Collection + Send + 'static>(
    place: &mut Option<Rest>,
    key: &[u8],
    clone: C,
    step: impl FnMut(&mut C) -> bool + Send + 'static,
    end: impl FnMut(&mut Cx<'_>, Option<bool>) -> CmdResult + Send + 'static,
) {
    *place = Some(Rest::Task(Box::new(Change { key: key.into(), changed: clone, step, end })));
}

impl<C, S, E> Task for Change<C, S, E>
where
    C: Collection + Send,
    S: FnMut(&mut C) -> bool + Send,
    E: FnMut(&mut Cx<'_>, Option<bool>) -> CmdResult + Send,
{
    fn target(&self) -> Option<&[u8]> {
        Some(&self.key)
    }

    fn step(&mut self) -> bool {
        (self.step)(&mut self.changed)
    }

    fn finish(&mut self, cx: &mut Cx<'_>) -> CmdResult {
        let changed = &mut self.changed;
        let edit = cx.ks.edit(cx.db, &self.key, |collection| std::mem::swap(collection, changed))?;
        (self.end)(cx, edit.map(|edit| edit.gone))
    }

    fn into_held(self: Box<Self>) -> Vec<Object> {
        vec![self.changed.wrap()]
    }
}

/// What a command does to a collection that may be big, in its place: where a [`Change`] is for what touches few nodes,
/// this is for what touches nodes everywhere, of which a clone would become a copy.
pub(crate) trait Work: Send + 'static {
    /// The type of the collection.
    type To: Collection + Send;
    /// Does a bounded part of it; true with the last. Not called again then.
    fn step(&mut self, to: &mut Self::To) -> bool;
    /// Announces and replies when all is done. Is told whether the key has gone with its last element, or None if it
    /// went before, as expiry and eviction take even what is locked.
    fn end(&mut self, cx: &mut Cx<'_>, key: &[u8], gone: Option<bool>) -> CmdResult;
}

/// Does something to the collection at the location of a key: in steps if that is wanted and may be, else at once.
pub(crate) fn work<W: Work>(cx: &mut Cx<'_>, key: &[u8], loc: Loc, mut work: W, in_steps: bool) -> CmdResult {
    if let Some(place) = cx.later.as_mut().filter(|_| in_steps) {
        let to = cx.ks.lend::<W::To>(cx.db, loc)?;
        **place = Some(lent(key, to, false, work));
        return Ok(());
    }
    let gone = cx.ks.edit_at(cx.db, loc, |to: &mut W::To| while !work.step(to) {})?.gone;
    work.end(cx, key, Some(gone))
}

/// The rest of a command that does something to a collection that was lent from its key, or is new to it.
pub(crate) fn lent<W: Work>(key: &[u8], to: W::To, is_new: bool, work: W) -> Rest {
    Rest::Task(Box::new(Lent { key: key.into(), is_new, to: Some(to), work }))
}

struct Lent<W: Work> {
    key: Box<[u8]>,
    /// Nothing is under the key before the end.
    is_new: bool,
    /// None behind the end.
    to: Option<W::To>,
    work: W,
}

impl<W: Work> Task for Lent<W> {
    fn target(&self) -> Option<&[u8]> {
        Some(&self.key)
    }

    fn step(&mut self) -> bool {
        self.to.as_mut().is_none_or(|to| self.work.step(to))
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
        self.work.end(cx, &self.key, gone)
    }

    fn into_held(self: Box<Self>) -> Vec<Object> {
        self.to.into_iter().map(Collection::wrap).collect()
    }
}

/// Changes the collection at a location at once, in a way that drops whole nodes for `dropped` elements. Where these are
/// many, a clone keeps the nodes, to be freed in steps.
pub(crate) fn edit_dropping<C: Collection + Clone, R>(
    cx: &mut Cx<'_>,
    loc: Loc,
    dropped: usize,
    change: impl FnOnce(&mut C) -> R,
) -> Result<Edit<R>, CommandError> {
    let kept = match dropped > cx.env.at_once_max {
        true => Some(cx.ks.collection::<C>(cx.db, loc)?.clone()),
        false => None,
    };
    let edit = cx.ks.edit_at(cx.db, loc, change)?;
    kept.into_iter().for_each(|kept| cx.ks.discard(kept.wrap()));
    Ok(edit)
}
