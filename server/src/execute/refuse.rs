//! Requests that are not run: what they are told.

use damselfly_commands::Command;
use damselfly_protocol::{Argv, ProtocolError, ReplyWriter};

use super::Flow;
use crate::connection::ConnectionId;
use crate::core::Core;
use crate::scripts::exec_refused;

impl Core {
    /// Answers a protocol error, behind everything before it, and closes.
    pub(crate) fn refuse_stream(&mut self, id: ConnectionId, error: ProtocolError) {
        let Some(connection) = self.connection(id) else { return };
        if connection.waiting || connection.has_holes() || connection.queued.is_some() {
            connection.refused = Some(error);
            return;
        }
        error.write_reply(&mut connection.output);
        connection.closing = true;
    }

    /// Answers a request of the wrong length.
    #[cold]
    pub(super) fn refuse_arity(&mut self, id: ConnectionId, name: &str) -> Flow {
        self.spoil_transaction(id);
        let text = format!("wrong number of arguments for '{name}' command");
        if name == "exec" {
            self.abandon_transaction(id);
            self.answer_error(id, &format!("EXECABORT Transaction discarded because of: {text}"));
        } else {
            self.answer_error(id, &format!("ERR {text}"));
        }
        Flow::Next
    }

    /// Refuses a command because a script takes long.
    #[cold]
    pub(super) fn refuse_busy(
        &mut self,
        id: ConnectionId,
        command: &Command,
        counter: usize,
        busy: &str,
    ) -> Flow {
        self.stats.commands[counter].rejected += 1;
        self.spoil_transaction(id);
        if command.name == "EXEC" {
            self.abandon_transaction(id);
            self.answer_error(id, &exec_refused(busy));
        } else {
            self.answer_error(id, busy);
        }
        Flow::Next
    }

    /// Answers a command that does not exist, or closes if the peer is a browser that somebody made connect here: a
    /// page can send requests to any address, and a server that skips the lines it does not know would run the rest.
    pub(super) fn refuse_unknown(&mut self, id: ConnectionId, argv: &Argv<'_>) -> Flow {
        if !argv[0].eq_ignore_ascii_case(b"post") && !argv[0].eq_ignore_ascii_case(b"host:") {
            let text = unknown_command(argv);
            self.stats.count_error("ERR");
            if let Some(connection) = self.connection(id) {
                let proto = connection.proto;
                ReplyWriter::new(&mut connection.output, proto).error(&text);
            }
            return Flow::Next;
        }
        if let Some(connection) = self.connection(id) {
            let addr = &connection.client.addr;
            tracing::warn!(%addr, "an HTTP request came to a Redis port: possible attack, connection closed");
        }
        self.close(id);
        Flow::Pause
    }

    /// As [`Core::answer_error`], for a command that was carried out elsewhere.
    pub(crate) fn answer_error_with(&mut self, id: ConnectionId, text: &str) {
        self.stats.count_error(text);
        self.answer_with(id, |out| out.error(text));
    }

    /// Writes an error reply.
    pub(crate) fn answer_error(&mut self, id: ConnectionId, text: &str) {
        self.stats.count_error(text);
        if let Some(connection) = self.connection(id) {
            let proto = connection.proto;
            ReplyWriter::new(&mut connection.output, proto).error(text);
        }
    }
}

/// Redis' answer to a command that does not exist. What was sent is shown as it is, up to its first zero byte.
fn unknown_command(argv: &Argv<'_>) -> Vec<u8> {
    const SHOWN_MAX: usize = 128;
    let shown = |arg: &[u8], room: usize| {
        let arg = &arg[..arg.len().min(room)];
        arg.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()
    };
    let mut args = Vec::new();
    for arg in argv.iter().skip(1) {
        if args.len() >= SHOWN_MAX {
            break;
        }
        let room = SHOWN_MAX - args.len();
        args.push(b'\'');
        args.extend(shown(arg, room));
        args.extend_from_slice(b"' ");
    }
    let name = shown(&argv[0], SHOWN_MAX);
    [b"ERR unknown command '".as_slice(), &name, b"', with args beginning with: ", &args].concat()
}
