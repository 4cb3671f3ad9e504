//! Commands that move one element from one key to another, in steps that can run on two shards.
//!
//! Both keys are locked while it happens. Looking changes nothing, putting is what can fail, and taking cannot: so an
//! error leaves both keys as they were, and whoever sees the element in the target finds the source still locked.
//! Nothing but the element travels, however long the collections are.

use damselfly_keyspace::UnixMs;

use crate::{Args, CmdResult, CommandError, Cx};

/// The element on its way.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// Its bytes.
    pub element: Vec<u8>,
    /// When it expires, if it does so before its key.
    pub expire_at: Option<UnixMs>,
}

/// What looking at the source gave.
#[derive(Clone, Debug)]
pub enum Looked {
    /// The command is over and its reply written.
    Answered,
    /// The target is next, even if there is nothing for it: it must be of the right type.
    Found(Option<Parcel>),
}

/// The steps of such a command.
#[derive(Debug)]
pub struct Relay {
    /// On the shard of the source: what is to be moved.
    pub look: fn(&mut Cx<'_>, Args<'_>) -> Result<Looked, CommandError>,
    /// On the shard of the target: adds it and writes the reply.
    pub put: fn(&mut Cx<'_>, Args<'_>, Option<&Parcel>) -> CmdResult,
    /// On the shard of the source: removes it there.
    pub take: fn(&mut Cx<'_>, Args<'_>, &Parcel),
}
