//! What happens when the keys of one command are on several shards.
//!
//! A command whose keys are on one shard always just runs there. For the others the declaration says how the parts
//! fit together; the server locks all keys first, so each of these is strictly serialisable.

use crate::Relay;

/// See the module's head.
#[derive(Clone, Copy, Debug)]
pub enum Spread {
    /// One key at most, so there is nothing to decide.
    Single,
    /// Each shard runs the command with its own keys only, and the replies are merged. `step` arguments go with each
    /// key (MSET: key and value); what is behind the last key goes to every part.
    Split {
        /// Arguments per key.
        step: usize,
        /// How replies become one.
        merge: Merge,
    },
    /// The keys are brought together: copies of all of them run through the handler in a keyspace of their own, and
    /// what it changed is written back to the shards.
    Together,
    /// The same; but the handler looks at very many keys as they were when it began, some at a time, on their shards.
    Gathered,
    /// One element goes from the first key to the second; only it travels.
    Relay(&'static Relay),
    /// SORT: which keys are looked at depends on what one key holds, so all shards are locked and asked, in rounds.
    Sort,
}

/// How the replies of the parts become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merge {
    /// Integers, added.
    Sum,
    /// The same reply from all (`OK`).
    Same,
    /// The same, from all or none: if one of the keys is there no part runs, and the reply is 0.
    Unless,
    /// Arrays with an element per key, put back in the order of the keys.
    PerKey,
}
