//! MONITOR: every command of every client, as it is executed.

use std::sync::atomic::Ordering;

use damselfly_commands::{Command, CommandError, Flags, Found, Run, ServerCommand};
use damselfly_protocol::{Argv, Requests};

use super::server::unix_time;
use super::{Outcome, client_of, reply, subcommands};
use crate::connection::ConnectionId;
use crate::core::Core;

/// Unsent bytes at which a monitoring client that does not read is cut.
const BACKLOG_MAX: usize = 32 * 1024 * 1024;

/// How EXEC is shown unless the client spells it otherwise.
pub const EXEC: [u8; 4] = *b"EXEC";

/// MONITOR
pub fn monitor(core: &mut Core, id: ConnectionId) -> Outcome {
    let connection = client_of(core, id)?;
    if connection.executing {
        // Its lines would come between the replies of the transaction.
        return Err(CommandError::text("ERR MONITOR isn't allowed for DENY BLOCKING client"));
    }
    if !connection.client.monitor {
        connection.client.monitor = true;
        core.monitors.push(id);
        core.shared.monitors.fetch_add(1, Ordering::Relaxed);
    }
    reply(core, id, |out| out.ok())
}

/// Ends monitoring for a connection.
pub fn stop(core: &mut Core, id: ConnectionId) {
    if let Some(connection) = core.connection(id)
        && std::mem::take(&mut connection.client.monitor)
    {
        core.monitors.retain(|monitor| *monitor != id);
        core.shared.monitors.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether anybody monitors.
pub fn is_on(core: &Core) -> bool {
    core.shared.monitors.load(Ordering::Relaxed) > 0
}

/// Shows a command to all who monitor, on all cores. EXEC shows itself, behind what it runs, as it was spelled.
pub fn show(core: &mut Core, id: ConnectionId, command: &Command, argv: &Argv<'_>) {
    if !is_shown(command, argv) {
        return;
    }
    let Some(connection) = core.connection(id) else { return };
    if matches!(command.run, Run::Server(ServerCommand::Exec)) {
        connection.client.exec_word = argv[0].try_into().unwrap_or(EXEC);
        return;
    }
    let line = line(connection.db, &connection.client.addr.clone(), argv);
    show_line(core, line);
}

/// Shows a call of a script, which as a command of the table is not shown, because it must be seen before what it does.
pub fn show_call(core: &mut Core, id: ConnectionId, argv: &Argv<'_>) {
    let Some(connection) = core.connection(id) else { return };
    let line = line(connection.db, &connection.client.addr.clone(), argv);
    show_line(core, line);
}

/// How a command of a script is shown, if it is.
pub fn script_line(command: &Command, db: usize, argv: &Argv<'_>) -> Option<Vec<u8>> {
    is_shown(command, argv).then(|| line(db as u16, "lua", argv))
}

/// How a command of a transaction is shown, if it is: also a call of a script, which shows itself when it comes alone.
pub fn queued_line(
    core: &mut Core,
    id: ConnectionId,
    found: Found,
    db: usize,
    argv: &Argv<'_>,
) -> Option<Vec<u8>> {
    if !matches!(found.command.run, Run::Script(_)) && !is_shown(found.command, argv) {
        return None;
    }
    let addr = core.connection(id)?.client.addr.clone();
    Some(line(db as u16, &addr, argv))
}

/// How EXEC is shown: behind what it has run.
pub fn exec_line(core: &mut Core, id: ConnectionId) -> Option<Vec<u8>> {
    let connection = core.connection(id)?;
    let (mut bytes, mut request) = (Vec::new(), Requests::new());
    let word = std::iter::once(&connection.client.exec_word[..]);
    assert!(request.push_copy(&mut bytes, word), "a word fits a buffer");
    Some(line(connection.db, &connection.client.addr, &request.argv(&bytes, 0)))
}

fn is_shown(command: &Command, argv: &Argv<'_>) -> bool {
    let of_subcommand = argv.get(1).and_then(|name| subcommands::find(command, name));
    let flags = of_subcommand.map_or(command.flags, |subcommand| subcommand.flags);
    !command.flags.has(Flags::SKIP_MONITOR) && !command.flags.has(Flags::ADMIN) && !flags.has(Flags::ADMIN)
}

fn line(db: u16, addr: &str, argv: &Argv<'_>) -> Vec<u8> {
    let now = unix_time();
    let mut line = format!("+{}.{:06} [{db} {addr}]", now.as_secs(), now.subsec_micros()).into_bytes();
    for arg in argv.iter() {
        line.push(b' ');
        quote(arg, &mut line);
    }
    line.extend_from_slice(b"\r\n");
    line
}

/// Sends a line to all who monitor, on all cores.
pub fn show_line(core: &mut Core, line: Vec<u8>) {
    let line: std::sync::Arc<[u8]> = line.into();
    for peer in 0..core.shared.peers.len() {
        let line = line.clone();
        if peer == core.id {
            core.defer(move |core| send(core, &line));
        } else {
            core.post(peer, crate::mailbox::Message::Job(Box::new(move |core| send(core, &line))));
        }
    }
}

fn send(core: &mut Core, line: &[u8]) {
    for id in core.monitors.clone() {
        let Some(connection) = core.connection(id) else { continue };
        if connection.pending_output() > BACKLOG_MAX {
            core.close(id);
            continue;
        }
        connection.output.extend_from_slice(line);
        core.finish(id);
    }
}

/// An argument in double quotes, unprintable bytes escaped.
pub fn quote(arg: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for &byte in arg {
        match byte {
            b'\\' | b'"' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x07 => out.extend_from_slice(b"\\a"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x20..=0x7e => out.push(byte),
            _ => out.extend_from_slice(format!("\\x{byte:02x}").as_bytes()),
        }
    }
    out.push(b'"');
}
