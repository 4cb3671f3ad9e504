//! Room for requests that are not complete yet.
//!
//! All of them together have a bound, so that announcing long requests and not finishing them costs those who do it.
//! Who finds no room waits: nothing more is read from the connection, and the client's own buffers fill up. What is
//! short, and who has waited for longest, comes first:
//!
//! ```text
//! |<----------------- input_limit ----------------->|            |                        |
//! | usual requests, in any order       | in turn    |            |                        |
//! | short ones, which a few such clients cannot hold up          |                        |
//! | those that are themselves longer than half of it                                      |
//! ```
//!
//! Where less than a quarter is left, the cores look every tenth of a second who holds room without using it. That is
//! counted in looks, not in time: a core that could not run has not read what its clients sent meanwhile.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use damselfly_protocol::{Scanner, Skip};

use crate::connection::{Connection, ConnectionId};
use crate::core::Core;
use crate::execute::OUT_OF_MEMORY;
use crate::shared::Peer;

/// Part of the limit that requests may take which are not complete yet.
const INPUT_SHARE: u64 = 4;
/// Shorter ones are always let in.
pub const INPUT_FREE: usize = 4 << 10;
/// A request that is no longer than this part of the bound is short, and may take so much more of it.
const SHORT_SHARE: u64 = 64;
const SHORT_EXTRA: u64 = 4;
/// Connections that wait are looked at in order once there is so much for one of them, and so many at a time.
const OFFER_MIN: usize = 16 << 10;
const OFFERS_PER_TICK: usize = 64;
/// Looks at who holds room are so far apart.
const LOOK_EVERY_MS: u64 = 100;
/// A client is closed that had sent less than this part of what it holds, and nothing that was not read, at so many
/// looks; and one that may not send and is the first of all who wait after so many.
const PROGRESS_SHARE: u64 = 32;
const STALLED_LOOKS: u8 = 5;
const STARVED_LOOKS: u8 = 50;

/// How long a request is, compared with what all may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Many have room at once.
    Short,
    /// Some do.
    Usual,
    /// It would hardly ever fit if it waited for the others. Only what has arrived counts: an announcement costs nothing.
    Long,
}

/// How a connection stands that wants room for more of its request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Turn {
    /// It takes what there is while nobody waits.
    #[default]
    Free,
    /// It waits.
    Waits,
    /// What there is is for it.
    Has,
}

/// What a client with an unfinished request has done while room was short.
#[derive(Debug, Default)]
pub struct Pace {
    /// Bytes received when it had last sent enough.
    received: u64,
    /// Looks since then.
    looks: u8,
    /// When it first had to wait for room for the request that is behind so many commands.
    since_ms: u64,
    behind: u64,
}

/// A core's part of it.
#[derive(Debug, Default)]
pub struct InputRoom {
    /// Bytes held for requests that are not complete.
    pub held: usize,
    /// Connections that wait for room by the size of their requests, those first whose request has waited first.
    waiting: [VecDeque<(u64, ConnectionId)>; 3],
    /// When it looks next at who holds room.
    next_look_ms: u64,
}

impl InputRoom {
    fn is_awaited(&self) -> bool {
        self.waiting.iter().any(|waiting| !waiting.is_empty())
    }
}

impl Core {
    /// Bytes of requests that are not complete yet, on all connections together.
    pub(crate) fn input_limit(&self) -> u64 {
        match self.shared.settings.maxmemory() {
            0 => u64::MAX,
            limit => limit / INPUT_SHARE,
        }
    }

    /// The size of a request of which `have` bytes are here and `more` are to come now, of `whole` as far as is known.
    pub(crate) fn size_of(&self, have: usize, more: usize, whole: usize) -> Size {
        let limit = self.input_limit();
        if have.saturating_add(more) as u64 > limit / 2 {
            Size::Long
        } else if whole as u64 <= limit / SHORT_SHARE {
            Size::Short
        } else {
            Size::Usual
        }
    }

    /// Whether a request of such a size may get so many bytes more.
    pub(crate) fn has_room(&self, size: Size, turn: Turn, more: usize) -> bool {
        let limit = self.input_limit();
        let limit = match size {
            Size::Short => limit.saturating_add(limit / SHORT_EXTRA),
            Size::Usual if turn == Turn::Has || !self.is_room_awaited() => limit,
            Size::Usual => limit - limit / 4,
            Size::Long => limit.saturating_mul(2),
        };
        self.would_hold(more) <= limit
    }

    /// Whether somebody waits for room, on this core or, as far as they have told, on another.
    fn is_room_awaited(&self) -> bool {
        let told = |peer: &Peer| peer.starved_since_ms.load(Ordering::Relaxed) < u64::MAX;
        self.input_room.is_awaited() || self.shared.peers.iter().any(told)
    }

    /// What all cores would hold with so much more.
    fn would_hold(&self, more: usize) -> u64 {
        let held: u64 = self.shared.peers.iter().map(|peer| peer.input.load(Ordering::Relaxed)).sum();
        let others = held - self.shared.peers[self.id].input.load(Ordering::Relaxed).min(held);
        others + (self.input_room.held + more) as u64
    }

    /// Tells the others at once: if each let in all that there is room for in one turn, together they would let in more
    /// than they may keep.
    pub(crate) fn tell_input(&self) {
        self.shared.peers[self.id].input.store(self.input_room.held as u64, Ordering::Relaxed);
    }

    /// How much to read at once from a connection of which nothing is kept, of `most`: what it leaves unfinished is kept.
    #[inline]
    pub(crate) fn read_len(&self, most: usize) -> usize {
        let is_short = self.input_room.held > 0 && !self.has_room(Size::Usual, Turn::Free, most);
        if is_short { INPUT_FREE } else { most }
    }

    /// Keeps what a read brought beyond the last complete request.
    pub(crate) fn keep_rest(&mut self, id: ConnectionId, rest: &[u8]) {
        if rest.len() > INPUT_FREE && !self.has_room(Size::Long, Turn::Free, rest.len()) {
            self.close_silent(Some(id));
            if !self.has_room(Size::Long, Turn::Free, rest.len()) {
                self.close_for_input(id);
                return;
            }
        }
        self.make_way(rest.len());
        if let Some(connection) = self.connection(id) {
            connection.input.extend_from_slice(rest);
        }
    }

    /// Does not read from a connection until there is room for more of its request.
    #[cold]
    pub(crate) fn starve(&mut self, id: ConnectionId, size: Size) {
        let now_ms = self.ks.now;
        let Some(connection) = self.connection(id) else { return };
        if connection.turn == Turn::Waits {
            return;
        }
        connection.turn = Turn::Waits;
        // It keeps its place until it is done, or it would lose it each time that it gets a part of what it needs.
        if connection.pace.since_ms == 0 || connection.pace.behind != connection.commands {
            connection.pace.since_ms = now_ms;
            connection.pace.behind = connection.commands;
        }
        let since_ms = connection.pace.since_ms;
        let waiting = &mut self.input_room.waiting[size as usize];
        let place = waiting.partition_point(|&(other_ms, _)| other_ms <= since_ms);
        waiting.insert(place, (since_ms, id));
    }

    /// Closes those that hold room without using it, and lets some of those that wait for room try again. In this order:
    /// one that may try again has not used its chance yet.
    pub(crate) fn feed_starved(&mut self) {
        if !self.input_room.is_awaited() {
            self.starved_since_ms().store(u64::MAX, Ordering::Relaxed);
        }
        // Who is paused could not let go.
        if self.ks.now >= self.input_room.next_look_ms && !self.has_quarter() && self.pause.is_none() {
            self.input_room.next_look_ms = self.ks.now + LOOK_EVERY_MS;
            self.look_at_holders();
            self.close_stalled();
            self.close_starved();
            self.close_silent(None);
        }
        for size in [Size::Short, Size::Usual, Size::Long] {
            // They take it later, so this stays true for all of them.
            if !self.has_room(size, Turn::Has, OFFER_MIN) {
                continue;
            }
            for _ in 0..OFFERS_PER_TICK {
                let Some((_, id)) = self.input_room.waiting[size as usize].pop_front() else { break };
                if let Some(connection) = self.connection(id) {
                    connection.turn = Turn::Has;
                    self.look_again(id);
                }
            }
        }
    }

    /// Some wait for room, or the others believe so.
    pub(crate) fn has_starved(&self) -> bool {
        self.input_room.is_awaited() || self.starved_since_ms().load(Ordering::Relaxed) < u64::MAX
    }

    /// Sees who has sent enough since the last looks for what it holds.
    fn look_at_holders(&mut self) {
        for connection in self.connections_mut() {
            let held = connection.input_bytes();
            if held <= INPUT_FREE {
                continue;
            }
            let sent = connection.received - connection.pace.received;
            if sent.saturating_mul(PROGRESS_SHARE) >= held as u64 {
                connection.pace.received = connection.received;
                connection.pace.looks = 0;
            } else {
                connection.pace.looks = connection.pace.looks.saturating_add(1);
            }
        }
    }

    /// Closes the clients with a long unfinished request that do not go on with it though they might. Of some what they
    /// have sent was not read yet, and some wait for a reply that this server owes them.
    fn close_stalled(&mut self) {
        let is_stalled = |connection: &Connection| {
            let is_served = connection.has_holes() || (connection.waiting && connection.blocked.is_none());
            connection.pace.looks >= STALLED_LOOKS && !is_served && !connection.has_unread()
        };
        for (_, id) in self.unfinished(|connection| is_stalled(connection).then_some(connection.active_ms)) {
            self.close_for_input(id);
        }
    }

    /// The clients with a long unfinished request for which this says since when, in that order.
    fn unfinished(&self, since_ms: impl Fn(&Connection) -> Option<u64>) -> Vec<(u64, ConnectionId)> {
        let mut found: Vec<(u64, ConnectionId)> = self
            .connections()
            .filter(|connection| connection.input_bytes() > INPUT_FREE)
            .filter_map(|connection| Some((since_ms(connection)?, connection.id)))
            .collect();
        found.sort_unstable_by_key(|&(since_ms, _)| since_ms);
        found
    }

    /// Those that hold room and may not send until others let go might wait for each other for ever. So the one that has
    /// waited for longest is closed after a while, on whichever core it is, and the next ones until there is room again:
    /// who came later finds it.
    fn close_starved(&mut self) {
        let waiting = self
            .unfinished(|connection| (connection.turn == Turn::Waits).then_some(connection.pace.since_ms));
        let mut waiting = waiting.into_iter().peekable();
        loop {
            let first_ms = waiting.peek().map_or(u64::MAX, |&(since_ms, _)| since_ms);
            self.starved_since_ms().store(first_ms, Ordering::Relaxed);
            let peers = &self.shared.peers;
            let is_first = peers.iter().all(|peer| first_ms <= peer.starved_since_ms.load(Ordering::Relaxed));
            let Some((_, id)) = waiting.next() else { return };
            let looks = self.connection(id).map_or(0, |connection| connection.pace.looks);
            if looks < STARVED_LOOKS || !is_first || self.has_quarter() {
                return;
            }
            self.close_for_input(id);
        }
    }

    /// What the others are told: see [`Peer`].
    fn starved_since_ms(&self) -> &AtomicU64 {
        &self.shared.peers[self.id].starved_since_ms
    }

    /// Whether unfinished requests have left a quarter of what they may take.
    fn has_quarter(&self) -> bool {
        let limit = self.input_limit();
        self.would_hold(0) <= limit - limit / 4
    }

    /// While there is half as much more than may be, closes clients with a long unfinished request, except one who has
    /// just sent something, and those first who have been silent for longest. So those who come anew find room to wait.
    /// No core closes more than what it has beyond its share: what is too much may be that of another, which cannot run.
    fn close_silent(&mut self, except: Option<ConnectionId>) {
        let limit = self.input_limit();
        let most = limit.saturating_add(limit / 2);
        let share = most / self.shared.peers.len() as u64;
        let is_too_much = |core: &Core| core.input_room.held as u64 > share && core.would_hold(0) > most;
        if !is_too_much(self) {
            return;
        }
        let silent =
            |connection: &Connection| (Some(connection.id) != except).then_some(connection.active_ms);
        for (_, id) in self.unfinished(silent) {
            if !is_too_much(self) {
                break;
            }
            self.close_for_input(id);
        }
    }

    fn close_for_input(&mut self, id: ConnectionId) {
        let Some(connection) = self.connection(id) else { return };
        let (addr, bytes) = (&connection.client.addr, connection.input_bytes());
        tracing::warn!(%addr, bytes, "a client with an unfinished request was closed: there is no room for more");
        self.stats.input_limited += 1;
        self.close(id);
    }

    /// Whether a request of so many bytes could never be stored: it exists twice while it is.
    pub(crate) fn is_too_long(&self, wanted: usize) -> bool {
        wanted as u64 > self.input_limit().saturating_mul(2)
    }

    /// From here on a connection's unfinished request is passed over.
    #[cold]
    pub(crate) fn begin_skip(&mut self, id: ConnectionId) -> bool {
        let Some(connection) = self.connection(id) else { return false };
        let Some(skip) = Skip::begin(&connection.input) else { return false };
        connection.skip = Some(Box::new(skip));
        connection.scanner = Scanner::new();
        connection.input = Vec::new();
        true
    }

    /// Passes over what belongs to a request that is too long; how many of the bytes that was. Behind its end it is
    /// answered.
    #[inline]
    pub(crate) fn skip(&mut self, id: ConnectionId, bytes: &[u8]) -> usize {
        match self.connection(id) {
            Some(connection) if connection.skip.is_some() => self.skip_on(id, bytes),
            _ => 0,
        }
    }

    #[cold]
    fn skip_on(&mut self, id: ConnectionId, bytes: &[u8]) -> usize {
        let Some(connection) = self.connection(id) else { return 0 };
        match connection.skip.as_mut().map(|skip| skip.feed(bytes)) {
            Some(Ok((used, false))) => used,
            Some(Ok((used, true))) => {
                connection.skip = None;
                self.stats.oom += 1;
                self.answer_error(id, OUT_OF_MEMORY);
                used
            }
            Some(Err(error)) => {
                connection.skip = None;
                self.refuse_stream(id, error);
                bytes.len()
            }
            None => 0,
        }
    }
}
