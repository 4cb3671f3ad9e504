//! slowlog
use damselfly_commands::{Args, CommandError};

use super::Outcome;
use crate::connection::ConnectionId;
use crate::core::Core;

/// slowlog
pub fn slowlog(_core: &mut Core, _id: ConnectionId, mut args: Args<'_>) -> Outcome {
    Err(CommandError::unknown_subcommand("slowlog", args.take()?))
}
/// latency
pub fn latency(_core: &mut Core, _id: ConnectionId, mut args: Args<'_>) -> Outcome {
    Err(CommandError::unknown_subcommand("latency", args.take()?))
}
