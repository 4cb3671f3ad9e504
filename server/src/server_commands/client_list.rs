//! CLIENT LIST, INFO and KILL: connections of all cores, described and closed.

use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd};

use damselfly_commands::{Args, CommandError};
use damselfly_protocol::Proto;
use damselfly_protocol::number::parse_i64;

use super::client_tracking::redirection;
use super::{Outcome, client_of, reply, wait};
use crate::connection::{Connection, ConnectionId, Listener};
use crate::core::Core;
use crate::modes::Modes;
use crate::pubsub::Kind as Listens;

/// What a connection is used for, as TYPE names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Normal,
    Master,
    Replica,
    PubSub,
}

impl Kind {
    fn of(connection: &Connection) -> Kind {
        if connection.modes.has(Modes::SUBSCRIBED) { Kind::PubSub } else { Kind::Normal }
    }

    fn parse(name: &[u8]) -> Result<Kind, CommandError> {
        match name.to_ascii_lowercase().as_slice() {
            b"normal" => Ok(Kind::Normal),
            b"master" => Ok(Kind::Master),
            b"replica" | b"slave" => Ok(Kind::Replica),
            b"pubsub" => Ok(Kind::PubSub),
            _ => Err(CommandError::owned(format!(
                "ERR Unknown client type '{}'",
                String::from_utf8_lossy(name)
            ))),
        }
    }
}

/// The client that asks, by number, and what its request takes: it is described while it runs.
#[derive(Clone, Copy)]
struct Asking {
    client: u64,
    request_len: usize,
    args_len: usize,
}

impl Asking {
    /// Of a request made of these words.
    fn new<'a>(client: u64, words: impl Iterator<Item = &'a [u8]> + Clone) -> Asking {
        let line = |number: usize| number.to_string().len() + 3;
        let args_len = words.clone().map(<[u8]>::len).sum();
        let request_len =
            line(words.clone().count()) + words.map(|word| line(word.len()) + word.len() + 2).sum::<usize>();
        Asking { client, request_len, args_len }
    }
}

/// One line of CLIENT LIST, without its end: Redis' fields in Redis' order, then our own.
fn line(core: &Core, connection: &Connection, asker: Asking) -> String {
    let client = &connection.client;
    let tracker = core.tracking.tracker(connection.id);
    let now = core.ks.now;
    let mut flags = String::new();
    for (set, flag) in [
        (client.monitor, 'O'),
        (connection.modes.has(Modes::SUBSCRIBED), 'P'),
        (connection.multi.is_some(), 'x'),
        (connection.blocked.is_some(), 'b'),
        (connection.watching.as_ref().is_some_and(|watching| watching.is_dirty()), 'd'),
        (tracker.is_some(), 't'),
        (tracker.is_some_and(|tracker| tracker.is_redirect_broken), 'R'),
        (tracker.is_some_and(|tracker| tracker.broadcast), 'B'),
        (connection.closing, 'c'),
        (client.listener == Listener::Unix, 'U'),
        (client.no_evict, 'e'),
        (connection.no_touch, 'T'),
    ] {
        if set {
            flags.push(flag);
        }
    }
    if flags.is_empty() {
        flags.push('N');
    }
    let command = match (connection.last_command, connection.last_subcommand) {
        (_, Some(subcommand)) => subcommand.full_name(),
        (Some(command), None) => command.name.to_ascii_lowercase(),
        (None, None) => "NULL".to_string(),
    };
    let output = connection.output.capacity();
    format!(
        "id={id} addr={addr} laddr={laddr} fd={fd} name={name} age={age} idle={idle} flags={flags} db={db} \
         sub={sub} psub={psub} ssub={ssub} multi={multi} watch={watch} qbuf={qbuf} qbuf-free={qbuf_free} argv-mem={argv_mem} multi-mem={multi_mem} rbs={output} rbp={output} \
         obl={obl} oll=0 omem=0 tot-mem={total} events={events} cmd={command} user=default redir={redir} resp={resp} \
         lib-name={lib_name} lib-ver={lib_ver} tid={tid} tot-cmds={commands} tot-net-in={received} \
         tot-net-out={sent}",
        id = client.id,
        addr = client.addr,
        laddr = client.laddr,
        fd = connection.stream().as_fd().as_raw_fd(),
        name = client.name.as_deref().unwrap_or_default(),
        age = now.saturating_sub(client.created_ms) / 1000,
        idle = now.saturating_sub(connection.active_ms) / 1000,
        redir = redirection(tracker),
        db = connection.db,
        sub = core.pubsub.count(connection.id, Listens::Channel),
        psub = core.pubsub.count(connection.id, Listens::Pattern),
        ssub = core.pubsub.count(connection.id, Listens::Shard),
        multi = connection.multi.as_ref().map_or(-1, |multi| multi.len() as i64),
        watch = connection.watching.as_ref().map_or(0, |watching| watching.len()),
        multi_mem = connection.multi.as_ref().map_or(0, |multi| multi.heap_bytes()),
        qbuf = connection.input_len() + if client.id == asker.client { asker.request_len } else { 0 },
        argv_mem = if client.id == asker.client { asker.args_len } else { 0 },
        qbuf_free = connection.input.capacity() - connection.input.len(),
        obl = connection.pending_output(),
        total = connection.heap_bytes(),
        events = if connection.pending_output() > 0 { "rw" } else { "r" },
        resp = if connection.proto == Proto::Resp3 { 3 } else { 2 },
        lib_name = client.lib_name,
        lib_ver = client.lib_ver,
        tid = core.id,
        commands = connection.commands,
        received = connection.received,
        sent = connection.sent_total,
    )
}

/// CLIENT INFO
pub fn info(core: &mut Core, id: ConnectionId) -> Outcome {
    let asker = Asking::new(client_of(core, id)?.client.id, [&b"CLIENT"[..], b"INFO"].into_iter());
    let connection = core.connections().find(|connection| connection.id == id);
    let text = connection.map(|connection| line(core, connection, asker));
    let text = text.unwrap_or_default() + "\n";
    reply(core, id, |out| out.verbatim("txt", text.as_bytes()))
}

/// CLIENT LIST [TYPE type | ID id [id ...]]
pub fn list(core: &mut Core, id: ConnectionId, mut args: Args<'_>) -> Outcome {
    let words = [&b"CLIENT"[..], b"LIST"].into_iter().chain(args.clone().rest());
    let asker = Asking::new(client_of(core, id)?.client.id, words);
    let (mut kind, mut wanted) = (None, None);
    if args.len() == 2 && args.take_word("TYPE") {
        kind = Some(Kind::parse(args.take()?)?);
    } else if args.len() >= 2 && args.take_word("ID") {
        let mut ids = Vec::with_capacity(args.len());
        for arg in args.rest() {
            ids.push(parse_i64(arg).ok_or(CommandError::text("ERR Invalid client ID"))? as u64);
        }
        wanted = Some(ids);
    } else {
        args.end()?;
    }
    core.ask_all(
        move |core| {
            core.connections()
                .filter(|connection| kind.is_none_or(|kind| kind == Kind::of(connection)))
                .map(|connection| (connection.client.id, line(core, connection, asker)))
                .collect::<Vec<_>>()
        },
        move |core, found| {
            let mut lines: Vec<(u64, String)> = found.into_iter().flatten().collect();
            lines.sort_unstable_by_key(|(number, _)| *number);
            if let Some(wanted) = wanted {
                // In the order in which they were asked for, as often as they were.
                let by_id: HashMap<u64, String> = lines.into_iter().collect();
                lines =
                    wanted.iter().filter_map(|id| by_id.get(id).map(|line| (*id, line.clone()))).collect();
            }
            let text = lines.into_iter().fold(String::new(), |text, (_, line)| text + &line + "\n");
            core.answer_with(id, |out| out.verbatim("txt", text.as_bytes()));
        },
    );
    wait(core, id)
}

/// Which connections CLIENT KILL closes.
#[derive(Clone, Default)]
struct Filter {
    id: Option<u64>,
    addr: Option<Vec<u8>>,
    laddr: Option<Vec<u8>>,
    kind: Option<Kind>,
    age_s: Option<u64>,
    /// The one who asks is spared.
    skip: Option<u64>,
}

impl Filter {
    fn takes(&self, connection: &Connection, now: u64) -> bool {
        let client = &connection.client;
        self.id.is_none_or(|id| id == client.id)
            && self.addr.as_ref().is_none_or(|addr| addr == client.addr.as_bytes())
            && self.laddr.as_ref().is_none_or(|laddr| laddr == client.laddr.as_bytes())
            && self.kind.is_none_or(|kind| kind == Kind::of(connection))
            && self.age_s.is_none_or(|age| now.saturating_sub(client.created_ms) / 1000 >= age)
            && self.skip != Some(client.id)
    }
}

/// CLIENT KILL address, or CLIENT KILL filter value [filter value ...]
pub fn kill(core: &mut Core, id: ConnectionId, mut args: Args<'_>) -> Outcome {
    let me = client_of(core, id)?.client.id;
    let mut filter = Filter::default();
    let by_address = args.len() == 1;
    if by_address {
        filter.addr = Some(args.take()?.to_vec());
    } else {
        filter.skip = Some(me);
        while !args.is_empty() {
            if args.len() < 2 {
                return Err(CommandError::Syntax);
            }
            if args.take_word("ID") {
                let number = parse_i64(args.take()?).filter(|id| *id > 0);
                filter.id =
                    Some(number.ok_or(CommandError::text("ERR client-id should be greater than 0"))? as u64);
            } else if args.take_word("TYPE") {
                filter.kind = Some(Kind::parse(args.take()?)?);
            } else if args.take_word("ADDR") {
                filter.addr = Some(args.take()?.to_vec());
            } else if args.take_word("LADDR") {
                filter.laddr = Some(args.take()?.to_vec());
            } else if args.take_word("USER") {
                // There is one user, so this filter takes all or is a mistake.
                let user = args.take()?;
                if user != b"default" {
                    let user = String::from_utf8_lossy(user);
                    return Err(CommandError::owned(format!("ERR No such user '{user}'")));
                }
            } else if args.take_word("MAXAGE") {
                let age = parse_i64(args.take()?)
                    .ok_or(CommandError::text("ERR maxage is not an integer or out of range"))?;
                if age <= 0 {
                    return Err(CommandError::text("ERR maxage should be greater than 0"));
                }
                filter.age_s = Some(age as u64);
            } else if args.take_word("SKIPME") {
                filter.skip = if args.take_word("YES") {
                    Some(me)
                } else if args.take_word("NO") {
                    None
                } else {
                    return Err(CommandError::Syntax);
                };
            } else {
                return Err(CommandError::Syntax);
            }
        }
    }
    core.ask_all(
        move |core| close_all(core, &filter, me),
        move |core, closed| {
            let closed: usize = closed.iter().sum();
            if !by_address {
                core.answer_with(id, |out| out.int(closed as i64));
            } else if closed > 0 {
                core.answer_with(id, |out| out.ok());
            } else {
                core.answer_error_with(id, "ERR No such client");
            }
        },
    );
    wait(core, id)
}

/// Closes this core's connections that the filter takes; the one who asks only after its answer.
fn close_all(core: &mut Core, filter: &Filter, me: u64) -> usize {
    let now = core.ks.now;
    let doomed: Vec<(ConnectionId, u64)> = core
        .connections()
        .filter(|connection| filter.takes(connection, now))
        .map(|connection| (connection.id, connection.client.id))
        .collect();
    for &(id, number) in &doomed {
        if number != me {
            core.close(id);
        } else if let Some(connection) = core.connection(id) {
            connection.closing = true;
        }
    }
    doomed.len()
}
