//! command
use damselfly_commands::{Args, CommandError};

use super::Outcome;
use crate::connection::ConnectionId;
use crate::core::Core;

/// command
pub fn command(_core: &mut Core, _id: ConnectionId, mut args: Args<'_>) -> Outcome {
    Err(CommandError::unknown_subcommand("command", args.take()?))
}
