//! memory
use damselfly_commands::{Args, CommandError};

use super::Outcome;
use crate::connection::ConnectionId;
use crate::core::Core;

/// memory
pub fn memory(_core: &mut Core, _id: ConnectionId, mut args: Args<'_>) -> Outcome {
    Err(CommandError::unknown_subcommand("memory", args.take()?))
}
