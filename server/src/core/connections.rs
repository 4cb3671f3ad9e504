//! The connections of a core: from the listener to the close, reading, running, sending.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use damselfly_commands::{Env, Long};
use damselfly_keyspace::Keyspace;

use super::{Core, OUTPUT_RUN_MAX};
use crate::connection::{Client, Connection, ConnectionId, Got, Listener, Stream};
use crate::input_room::Turn;
use crate::mailbox::{Arrival, Message};
use crate::modes::Modes;
use crate::poll::Token;
use crate::slow_peers::Slowness;

/// Bytes read from a socket at once. A pipeline of 32 small commands is 2 KB; 64 KiB lets 4 KiB values at pipeline 8
/// through in one call.
const SCRATCH_LEN: usize = 64 * 1024;
/// Reads of one connection in one turn, so that one busy client does not keep the others waiting.
const READS_PER_TURN: usize = 4;
/// Bytes of a long reply written in one turn: about a tenth of a millisecond's work.
const LONG_PIECE_LEN: usize = 64 * 1024;
/// Connections taken from one listener per turn.
const ACCEPTS_PER_TURN: usize = 256;
/// Output buffers kept to lend to connections, and their greatest size.
const SPARE_OUTPUTS_MAX: usize = 64;
const SPARE_OUTPUT_LEN_MAX: usize = 64 * 1024;

/// A place for a connection.
pub(super) struct Place {
    generation: u32,
    connection: Option<Box<Connection>>,
}

impl Core {
    /// Looks at a connection again in the next turn.
    pub(crate) fn look_again(&mut self, id: ConnectionId) {
        self.again.push_back(id);
    }

    /// Takes new connections and hands them to the least busy cores.
    pub(super) fn accept(&mut self, listener: usize) {
        let keepalive = self.shared.settings.tcp_keepalive();
        // A bound, so that a flood of connections does not stop the clients that are already there.
        for _ in 0..ACCEPTS_PER_TURN {
            match self.listeners[listener].accept(keepalive) {
                Ok(Some((stream, addr, laddr))) => {
                    self.shared.accepted.fetch_add(1, Ordering::Relaxed);
                    let kind = self.listeners[listener].kind;
                    let limit = self.shared.settings.maxclients() as usize;
                    if kind == Listener::Main && self.shared.connected.load(Ordering::Relaxed) >= limit {
                        self.shared.rejected.fetch_add(1, Ordering::Relaxed);
                        // The socket is fresh, so its buffer takes the line; if not, closing says enough.
                        let _ = rustix::io::write(&stream, b"-ERR max number of clients reached\r\n");
                        continue;
                    }
                    self.shared.connected.fetch_add(1, Ordering::Relaxed);
                    let to = self.shared.least_busy();
                    self.shared.peers[to].connections.fetch_add(1, Ordering::Relaxed);
                    let arrival = Box::new(Arrival { stream, listener: kind, addr, laddr });
                    if to == self.id {
                        self.adopt(*arrival);
                    } else {
                        self.post(to, Message::Connection(arrival));
                    }
                }
                Ok(None) => return,
                Err(error) => {
                    // Out of descriptors, most likely: the listener stays readable and is tried again.
                    tracing::warn!(%error, "a connection could not be accepted");
                    self.accept_at_tick.push(listener);
                    return;
                }
            }
        }
        self.accept_again.push(listener);
    }

    /// Makes a connection this core's own.
    pub(super) fn adopt(&mut self, arrival: Arrival) {
        let Arrival { stream, listener, addr, laddr } = arrival;
        let index = self.free_places.pop().unwrap_or_else(|| {
            self.places.push(Place { generation: 0, connection: None });
            self.places.len() as u32 - 1
        });
        let place = &mut self.places[index as usize];
        let id = ConnectionId { index, generation: place.generation };
        if let Err(error) = self.poll.watch(stream.as_fd(), token(id)) {
            tracing::warn!(%error, "a connection could not be watched");
            self.free_places.push(index);
            self.count_out();
            return;
        }
        let client = Client {
            id: self.shared.next_client.fetch_add(1, Ordering::Relaxed),
            listener,
            addr,
            laddr,
            name: None,
            lib_name: "".into(),
            lib_ver: "".into(),
            created_ms: self.ks.now,
            no_evict: false,
            monitor: false,
            exec_word: crate::server_commands::monitor::EXEC,
            held: Vec::new(),
            slowness: Slowness::default(),
        };
        self.shared.clients.insert(client.id, (self.id, id));
        let open = self.shared.settings.requirepass().is_empty()
            || listener == Listener::Unix
            || (listener == Listener::Admin && self.shared.config.admin_nopass);
        place.connection = Some(Box::new(Connection::new(id, stream, client, open)));
    }

    fn count_out(&self) {
        self.shared.connected.fetch_sub(1, Ordering::Relaxed);
        self.shared.peers[self.id].connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// A connection that is still there.
    #[inline]
    pub fn connection(&mut self, id: ConnectionId) -> Option<&mut Connection> {
        let Some(place) = self.places.get_mut(id.index as usize) else { return self.scripts.stand_in(id) };
        if place.generation != id.generation {
            return None;
        }
        place.connection.as_deref_mut()
    }

    /// The connection together with shard and settings, which a handler needs at once.
    #[inline]
    pub(crate) fn split(&mut self, id: ConnectionId) -> Option<(&mut Connection, &mut Keyspace, &Env)> {
        let place = self.places.get_mut(id.index as usize)?;
        if place.generation != id.generation {
            return None;
        }
        Some((place.connection.as_deref_mut()?, &mut self.ks, &self.env))
    }

    /// All connections of this core, for changes.
    pub(crate) fn connections_mut(&mut self) -> impl Iterator<Item = &mut Connection> {
        self.places.iter_mut().filter_map(|place| place.connection.as_deref_mut())
    }

    /// All connections of this core.
    pub fn connections(&self) -> impl Iterator<Item = &Connection> {
        self.places.iter().filter_map(|place| place.connection.as_deref())
    }

    /// Closes a connection now.
    pub fn close(&mut self, id: ConnectionId) {
        drop(self.release(id));
    }

    /// Forgets a connection; its socket is closed when what is returned is dropped.
    fn release(&mut self, id: ConnectionId) -> Option<Box<Connection>> {
        let place = self.places.get_mut(id.index as usize)?;
        if place.generation != id.generation {
            return None;
        }
        if let Some(connection) = place.connection.as_deref_mut()
            && connection.executing
        {
            // A transaction ends whole, whether or not somebody still waits for its replies.
            connection.closing = true;
            return None;
        }
        let mut connection = place.connection.take()?;
        connection.drop_long().for_each(|held| self.ks.discard(held));
        self.unbook(connection.booked);
        if connection.modes.any() {
            self.leave_modes(id, connection.modes);
        }
        let place = &mut self.places[id.index as usize];
        place.generation = place.generation.wrapping_add(1);
        self.free_places.push(id.index);
        self.shared.clients.remove(&connection.client.id);
        if connection.client.monitor {
            self.monitors.retain(|monitor| *monitor != id);
            self.shared.monitors.fetch_sub(1, Ordering::Relaxed);
        }
        self.stats.received = self.stats.received.wrapping_add(connection.received);
        self.stats.sent = self.stats.sent.wrapping_add(connection.sent_total);
        if connection.client.listener != Listener::Main {
            self.stats.processed_other = self.stats.processed_other.wrapping_add(connection.commands);
        }
        if let Some(watching) = connection.watching.take() {
            self.forget_watched(*watching);
        }
        if let Some(waiter) = connection.blocked.take() {
            self.abandon(&waiter);
        }
        self.count_out();
        Some(connection)
    }

    /// Forgets a connection whose socket another thread goes on with.
    pub(crate) fn give_away(&mut self, id: ConnectionId) -> Option<Stream> {
        let stream = self.release(id)?.into_stream();
        self.poll.unwatch(stream.as_fd()).ok()?;
        Some(stream)
    }

    /// Runs a connection's requests as far as possible, reading more as they are used up, and sends the replies.
    pub fn pump(&mut self, id: ConnectionId) {
        for _ in 0..READS_PER_TURN {
            if !self.run_buffered(id) {
                break;
            }
            let congested = self.congested();
            let now = self.ks.now;
            self.hand_over_saved();
            let Some(connection) = self.connection(id) else { return };
            if congested || !connection.readable || !connection.may_run(OUTPUT_RUN_MAX) {
                break;
            }
            if connection.bulky.is_some()
                && let Err((size, more)) = self.grow_bulky(id)
            {
                self.starve(id, size, more);
                break;
            }
            let Some(connection) = self.connection(id) else { return };
            if let Some(mut bulky) = connection.bulky.take() {
                let got = connection.read_more(bulky.buffer());
                note_read(connection, &got, now);
                connection.bulky = Some(bulky);
            } else if connection.input.is_empty() {
                let mut scratch = std::mem::take(&mut self.scratch);
                scratch.resize(SCRATCH_LEN, 0);
                let most = self.read_len(SCRATCH_LEN);
                let connection = self.connection(id).expect("it was there");
                let got = connection.read(&mut scratch[..most]);
                let len = note_read(connection, &got, now);
                if len > 0 && self.catch_up(id, &mut scratch, len) {
                    let skipped = self.skip(id, &scratch[..len]);
                    let consumed = skipped + self.run_bytes(id, &scratch[skipped..len]);
                    self.keep_rest(id, &scratch[consumed..len]);
                }
                self.scratch = scratch;
            } else {
                // Up to what the scanner waits for, but at most to four times what has arrived: an announcement costs
                // nothing.
                let have = connection.input.len();
                if connection.input.capacity() == have {
                    let wanted = connection.scanner.wanted();
                    if self.is_too_long(wanted) && self.begin_skip(id) {
                        continue;
                    }
                    match self.begin_bulky(id) {
                        Ok(true) => continue,
                        Ok(false) => {}
                        Err((size, more)) => {
                            self.starve(id, size, more);
                            break;
                        }
                    }
                    let Some(connection) = self.connection(id) else { return };
                    let turn = connection.turn;
                    let room = wanted.saturating_sub(have).min(3 * have).clamp(16 * 1024, 64 * 1024 * 1024);
                    let size = self.size_of(have + room, wanted);
                    if !self.has_room(size, turn, room) {
                        self.starve(id, size, room);
                        break;
                    }
                    self.note_begun(id, Some(size));
                    self.make_way(room);
                    let Some(connection) = self.connection(id) else { return };
                    connection.input.reserve_exact(room);
                }
                let Some(connection) = self.connection(id) else { return };
                let mut input = std::mem::take(&mut connection.input);
                let got = connection.read_more(&mut input);
                note_read(connection, &got, now);
                connection.input = input;
                self.catch_up(id, &mut Vec::new(), 0);
            }
            let Some(connection) = self.connection(id) else { return };
            if connection.ended || !connection.readable {
                self.run_buffered(id);
                break;
            }
        }
        self.note_ended(id);
        self.finish(id);
    }

    /// Runs what is buffered; false if the connection must pause.
    fn run_buffered(&mut self, id: ConnectionId) -> bool {
        if !self.run_queued(id) {
            return false;
        }
        let Some(connection) = self.connection(id) else { return false };
        if !connection.may_run(OUTPUT_RUN_MAX) {
            return false;
        }
        if connection.bulky.is_some() && !self.run_bulky(id) {
            return false;
        }
        let Some(connection) = self.connection(id) else { return false };
        if connection.input.is_empty() || connection.input.len() < connection.scanner.wanted() {
            return true;
        }
        let mut input = std::mem::take(&mut connection.input);
        let consumed = self.run_bytes(id, &input);
        let Some(connection) = self.connection(id) else { return false };
        if consumed == input.len() {
            // Memory of a long request is not kept.
            input = Vec::new();
        } else {
            input.drain(..consumed);
        }
        connection.input = input;
        connection.may_run(OUTPUT_RUN_MAX)
    }

    /// Sends what there is and sees whether the connection goes on.
    pub fn finish(&mut self, id: ConnectionId) {
        if self.open_batches > 0 || self.gathers {
            // A reply must not be earlier than the requests before it in the pipeline that go elsewhere.
            self.unsent.push(id);
            self.book(id);
            return;
        }
        self.send_published();
        let Some(connection) = self.connection(id) else { return };
        if connection.pending_output() > 0 && !connection.flush() {
            self.close(id);
            return;
        }
        if connection.pending_output() > 0 && self.close_if_over_limit(id) {
            return;
        }
        let Some(connection) = self.connection(id) else { return };
        if connection.is_in_long() {
            self.book(id);
            return self.go_on_with_long(id);
        }
        let drained = connection.pending_output() == 0 && !connection.has_holes() && !connection.waiting;
        if drained && (connection.closing || connection.ended) {
            let more = connection.ended && !connection.closing && connection.queued.is_some();
            if !more {
                self.close(id);
                return;
            }
        }
        let runnable = connection.may_run(OUTPUT_RUN_MAX)
            && connection.turn != Turn::Waits
            && (connection.readable || connection.queued.is_some());
        if let Some(output) = connection.take_idle_output() {
            self.spare_output(output);
        }
        self.book(id);
        if runnable {
            self.again.push_back(id);
        }
    }

    /// Frees what a long reply that nobody wants held.
    pub(crate) fn discard_long(&mut self, long: Long) {
        if let Some(held) = long.into_held() {
            self.ks.discard(held);
        }
    }

    /// Has the next piece of a long reply written in the next turn, if all before it was sent.
    pub(crate) fn go_on_with_long(&mut self, id: ConnectionId) {
        if self.connection(id).is_some_and(Connection::is_long_due) {
            self.again.push_back(id);
        }
    }

    /// Writes a piece of a long reply, if one is due.
    pub(super) fn write_long(&mut self, id: ConnectionId) {
        let Some((connection, ks, _)) = self.split(id) else { return };
        if let Some(held) = connection.write_long(LONG_PIECE_LEN) {
            ks.discard(held);
        }
    }

    /// Keeps an output buffer for the next connection that needs one.
    #[inline]
    pub(crate) fn spare_output(&mut self, output: Vec<u8>) {
        if self.spare_outputs.len() < SPARE_OUTPUTS_MAX && output.capacity() <= SPARE_OUTPUT_LEN_MAX {
            self.spare_outputs.push(output);
        }
    }

    /// Lends an output buffer to a connection that has none.
    #[inline]
    pub(crate) fn lend_output(&mut self, id: ConnectionId) {
        if let Some(spare) = self.spare_outputs.pop() {
            match self.connection(id) {
                Some(connection) if connection.output.capacity() == 0 => connection.output = spare,
                _ => self.spare_outputs.push(spare),
            }
        }
    }

    /// A command that was carried out elsewhere is done: its reply is in the output. Goes on with the connection.
    pub fn resume(&mut self, id: ConnectionId) {
        let Some(connection) = self.connection(id) else { return };
        if let Some(then) = connection.then.take() {
            self.defer(then);
        } else {
            connection.waiting = false;
            let held = connection.modes.has(Modes::HELD);
            self.again.push_back(id);
            if held {
                self.release_held(id);
            }
        }
    }

    /// Closes clients that have sent nothing for longer than `timeout`.
    pub(super) fn close_idle_peers(&mut self) {
        if self.idle_timeout_ms > 0 {
            let (now, limit) = (self.ks.now, self.idle_timeout_ms);
            let idle: Vec<ConnectionId> = self
                .connections()
                .filter(|connection| {
                    !connection.waiting
                        && !connection.client.monitor
                        && !connection.modes.has(Modes::SUBSCRIBED)
                        && now.saturating_sub(connection.active_ms) > limit
                })
                .map(|connection| connection.id)
                .collect();
            for id in idle {
                self.stats.timed_out += 1;
                self.close(id);
            }
        }
    }

    pub(super) fn close_all(&mut self) {
        let ids: Vec<ConnectionId> = self.connections().map(|connection| connection.id).collect();
        for id in ids {
            if let Some(connection) = self.connection(id) {
                // Last replies that the socket still takes.
                connection.flush();
            }
            self.close(id);
        }
    }

    /// Bytes that connections and messages of this core hold.
    pub fn connection_bytes(&self) -> usize {
        self.connections().map(Connection::heap_bytes).sum::<usize>()
            + self.scratch.capacity()
            + self.spare_outputs.iter().map(Vec::capacity).sum::<usize>()
            + self.spare_batches.iter().map(|batch| batch.heap_bytes()).sum::<usize>()
    }
}

fn token(id: ConnectionId) -> Token {
    Token(u64::from(id.generation) << 32 | u64::from(id.index))
}

/// Books what a read brought and returns its length.
fn note_read(connection: &mut Connection, got: &Got, now: u64) -> usize {
    let (len, more) = match got {
        Got::Bytes(len) => (*len, true),
        // Behind the last bytes of a closed stream there is its end, which no further event announces.
        Got::Last(len) => (*len, connection.hung_up),
        Got::Nothing => (0, false),
        Got::End => {
            connection.ended = true;
            (0, false)
        }
    };
    connection.readable = more;
    connection.turn = Turn::Free;
    if len > 0 {
        connection.received += len as u64;
        connection.active_ms = now;
    }
    len
}
