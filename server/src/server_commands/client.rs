//! CLIENT: what the server knows about its connections.

use damselfly_commands::{Args, CommandError};

use super::{Outcome, client_of, reply};
use crate::connection::ConnectionId;
use crate::core::Core;

/// An error unless a name can stand in a line of CLIENT LIST.
pub fn check_name(name: &[u8], what: &str) -> Result<(), CommandError> {
    if name.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        return Ok(());
    }
    Err(CommandError::owned(format!("ERR {what} cannot contain spaces, newlines or special characters.")))
}

/// A checked name as it is kept; the empty name is none.
pub fn name_of(name: &[u8]) -> Option<Box<str>> {
    (!name.is_empty()).then(|| String::from_utf8_lossy(name).into())
}

/// CLIENT subcommand
pub fn client(core: &mut Core, id: ConnectionId, mut args: Args<'_>) -> Outcome {
    if args.take_word("ID") {
        let number = client_of(core, id)?.client.id;
        return reply(core, id, |out| out.int(number as i64));
    }
    Err(CommandError::unknown_subcommand("client", args.take()?))
}
