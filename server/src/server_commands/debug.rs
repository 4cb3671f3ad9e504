//! debug
use damselfly_commands::{Args, CommandError};

use super::Outcome;
use crate::connection::ConnectionId;
use crate::core::Core;

/// debug
pub fn debug(_core: &mut Core, _id: ConnectionId, mut args: Args<'_>) -> Outcome {
    Err(CommandError::unknown_subcommand("debug", args.take()?))
}
