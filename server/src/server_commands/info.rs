//! INFO.
use damselfly_commands::Args;

use super::{Outcome, reply};
use crate::connection::ConnectionId;
use crate::core::Core;

/// The version of Redis whose commands we have, for clients that decide by it.
pub const REDIS_VERSION: &str = "7.4.0";
/// The version of Dragonfly whose surface we have, for tools that look for it.
pub const DRAGONFLY_VERSION: &str = "df-v1.40.1";

/// INFO
pub fn info(core: &mut Core, id: ConnectionId, _args: Args<'_>) -> Outcome {
    let text = format!("# Stats\r\nkeyspace_hits:{}\r\nkeyspace_misses:{}\r\n", core.ks.stats.hits, core.ks.stats.misses);
    reply(core, id, |out| out.verbatim("txt", text.as_bytes()))
}
