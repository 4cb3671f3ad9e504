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

use damselfly_keyspace::Object;

use crate::{CmdResult, Cx, Long};

/// Members that are looked at in one step, at most, and their bytes: some tens of microseconds' worth.
const MEMBERS_PER_STEP: usize = 256;
const BYTES_PER_STEP: usize = 64 * 1024;

/// See the module's head.
pub trait Task: Send {
    /// The key that the result goes to, in the client's database; None if it is the reply.
    fn target(&self) -> Option<&[u8]>;
    /// Does a bounded step; true if only the end is left. Not called again then.
    fn step(&mut self) -> bool;
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
