//! Room for requests that are not complete yet.
//!
//! All of them together have a bound, so that announcing long requests and not finishing them costs those who do it.
//! Who finds no room waits: nothing more is read from the connection, and the client's own buffers fill up. Short
//! requests have room of their own, which those that take long cannot hold up.
//!
//! In both rooms the one that began first comes first, whichever core it is on, and nobody passes those who wait. So
//! that they never wait for each other, there is no bound for the one that began first of all: the others have theirs,
//! and it ends. Nobody is closed who goes on. Who does not, while others wait, is: the cores look every tenth of a
//! second who holds room without using it. That is counted in looks, not in time: a core that could not run has not
//! read what its clients sent meanwhile.
//!
//! What those who wait have sent is in the buffers of their sockets, which is memory, too, though not the process': it
//! counts for `maxmemory`, and beyond a bound some are closed.
//!
//! Each core tells the others of the first that waits and the first that holds room there, and does not let in
//! somebody who began much later; what a core claims that has not run lately does not count.

use std::array::from_fn;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use damselfly_protocol::{Scanner, Skip};

use crate::connection::{Connection, ConnectionId};
use crate::core::Core;
use crate::execute::OUT_OF_MEMORY;

/// Part of `maxmemory` that requests may take which are not complete yet.
const INPUT_SHARE: u64 = 4;
/// Shorter ones are always let in.
pub const INPUT_FREE: usize = 4 << 10;
/// A request that is no longer than this part of the bound is short.
const SHORT_SHARE: u64 = 64;
/// The part of a room that one request may get before as much of it has arrived.
const AMPLE_SHARE: u64 = 8;
/// Connections that are let in at a tick, so that it does not take long.
const OFFERS_PER_TICK: usize = 64;
/// Looks at who holds room are so far apart. Who began by so much later than another may yet be let in before, so
/// that the cores need not wait for each other all the time.
const LOOK_EVERY_MS: u64 = 100;
/// A client is closed that had sent less than this part of what it holds, and nothing that was not read, at so many
/// looks.
const PROGRESS_SHARE: u64 = 32;
const STALLED_LOOKS: u8 = 10;
/// For one that had to wait: what it has to send was held up meanwhile, and comes at once.
const STALLED_LOOKS_WAITED: u8 = 3;
/// What those who wait have sent may take as much as `INPUT_SHARE` says, or this.
const UNREAD_MIN: u64 = 32 << 20;
/// More than that is nothing bad until the first look, and while all of them will have been served after so many, as it
/// goes.
const SOON_LOOKS: u64 = 50;
/// What a byte in a socket's buffer counts: the system keeps it in pages of which a part is not used.
const UNREAD_COST: (u64, u64) = (3, 2);
/// A client whose complete requests were so many bytes is known, any other is a stranger.
const KNOWN_FROM: u64 = 64 << 10;
/// Else a client may be closed after so many looks, and a stranger after so few (at once if twice as much has been sent).
const UNREAD_LOOKS: u64 = 50;
const UNREAD_LOOKS_STRANGER: u64 = 2;
/// Between two looks what they have sent is added up when so many more wait.
const UNREAD_EVERY: usize = 64;
/// A core that has not told for so long, or for so many ticks, what it claims is busy with something else.
const CLAIM_MS: u64 = 300;
const CLAIM_TICKS: u64 = 3;

/// Which room a request is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Size {
    /// It is short, as far as is known.
    #[default]
    Short,
    /// All others.
    Usual,
}

impl Size {
    const ALL: [Size; 2] = [Size::Short, Size::Usual];
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
    /// It may have what it needs, whether or not there is room.
    First,
}

/// When a request began, compared with others on all cores. Hardly two have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place(u64);

impl Place {
    /// Behind all.
    const NONE: Place = Place(u64::MAX);
    const CORE_BITS: u32 = 8;
    const NUMBER_BITS: u32 = 12;

    /// For the request of such a number on a core.
    fn new(now_ms: u64, core: usize, number: u64) -> Place {
        let core = core as u64 % (1 << Place::CORE_BITS);
        let number = number % (1 << Place::NUMBER_BITS);
        Place((now_ms << Place::CORE_BITS | core) << Place::NUMBER_BITS | number)
    }

    /// Whether it began before the other or not much later.
    fn is_about(self, other: Place) -> bool {
        let tolerance = LOOK_EVERY_MS << (Place::CORE_BITS + Place::NUMBER_BITS);
        self.0 <= other.0.saturating_add(tolerance)
    }
}

/// What a connection's unfinished request has done.
#[derive(Debug, Default)]
pub struct Pace {
    /// Bytes received when the client had last sent enough.
    received: u64,
    /// Looks since then.
    looks: u8,
    /// The request had to wait.
    waited: bool,
    /// For which room it is.
    size: Size,
    /// The core's look before it began.
    began_look: u64,
    /// When it began, and behind how many commands it does.
    began: Option<(Place, u64)>,
}

impl Pace {
    /// The room that the request takes.
    pub fn size(&self) -> Size {
        self.size
    }

    /// Forgets a request that has come to its end, if so many commands were met on the connection; which room it was for.
    fn take_ended(&mut self, commands: u64) -> Option<Size> {
        self.began.take_if(|(_, behind)| *behind != commands).map(|_| self.size)
    }

    /// At how many looks it may be found without progress.
    fn patience(&self) -> u8 {
        if self.waited { STALLED_LOOKS_WAITED } else { STALLED_LOOKS }
    }
}

/// What a connection that waits has sent.
struct Waits {
    /// What that costs the system.
    bytes: u64,
    /// Looks since its request began.
    looks: u64,
    /// Hardly anything came in complete requests before.
    is_stranger: bool,
    /// It was let in before, and needs more room now.
    is_let_in: bool,
}

impl Waits {
    fn of(connection: &Connection, looks: u64) -> Waits {
        let unread = connection.unread();
        let complete = connection.received.saturating_sub(connection.input_len() as u64);
        Waits {
            bytes: unread * UNREAD_COST.0 / UNREAD_COST.1,
            looks: looks - connection.pace.began_look,
            is_stranger: complete < unread.min(KNOWN_FROM),
            is_let_in: connection.pace.waited,
        }
    }

    /// Whether it may be closed where too much was sent, or far too much.
    fn may_go(&self, is_far: bool) -> bool {
        let patience = match self.is_stranger {
            true if is_far => 0,
            true => UNREAD_LOOKS_STRANGER,
            false => UNREAD_LOOKS,
        };
        !self.is_let_in && self.looks >= patience
    }
}

/// What a connection or a batch has on the books.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Booked {
    /// Bytes of all buffers.
    pub buffers: usize,
    /// Of these, bytes for an unfinished request.
    pub input: usize,
    /// The room where those are.
    pub size: Size,
}

/// A core's part of it.
#[derive(Debug, Default)]
pub struct InputRoom {
    /// Bytes held in each room.
    held: [usize; 2],
    /// Connections that wait, by when their requests began, and how much they want now.
    waiting: [VecDeque<(Place, ConnectionId, usize)>; 2],
    /// Requests that have begun.
    begun: u64,
    /// Looks at who holds room.
    looks: u64,
    /// While somebody waits: when it looks next, requests that came to their end since the last look, and, if there was
    /// one, how many do from one to the next.
    next_look_ms: Option<u64>,
    ended: [u64; 2],
    ended_lately: Option<[u64; 2]>,
    /// So many waited when it last added up what they have sent.
    counted: usize,
}

/// What a core tells the others.
#[derive(Debug)]
pub struct Claims {
    /// Bytes held in each room.
    held: [AtomicU64; 2],
    /// Bytes that the system holds for those who wait, at the last look.
    pub unread: AtomicU64,
    /// When it last told what follows.
    told_ms: AtomicU64,
    /// The [`Place`]s of the first that waits and of the first that holds something, at the last look.
    waits: [AtomicU64; 2],
    holds: [AtomicU64; 2],
}

impl Default for Claims {
    fn default() -> Claims {
        let none = || from_fn(|_| AtomicU64::new(Place::NONE.0));
        Claims {
            held: Default::default(),
            unread: AtomicU64::new(0),
            told_ms: AtomicU64::new(0),
            waits: none(),
            holds: none(),
        }
    }
}

impl InputRoom {
    /// How many wait.
    fn awaiting(&self) -> usize {
        self.waiting.iter().map(VecDeque::len).sum()
    }

    /// Whether it is time to look.
    fn is_due(&mut self, now_ms: u64) -> bool {
        let due_ms = self.next_look_ms.get_or_insert(now_ms + LOOK_EVERY_MS);
        if now_ms < *due_ms {
            return false;
        }
        *due_ms = now_ms + LOOK_EVERY_MS;
        let ended = std::mem::take(&mut self.ended);
        let before = self.ended_lately.unwrap_or_default();
        self.ended_lately = Some(from_fn(|size| ended[size].max(before[size] / 2)));
        true
    }

    /// Takes note of a request that came to its end, if one did.
    fn note_ended(&mut self, ended: Option<Size>) {
        if let Some(size) = ended {
            self.ended[size as usize] += 1;
        }
    }

    /// Nobody waits.
    fn forget_looks(&mut self) {
        self.next_look_ms = None;
        self.ended = [0; 2];
        self.ended_lately = None;
    }

    /// Whether all that wait will have been served soon if it goes on like this, or nobody can say yet.
    fn goes_on(&self, size: Size) -> bool {
        let waiting = self.waiting[size as usize].len() as u64;
        self.ended_lately.is_none_or(|ended| waiting <= SOON_LOOKS * ended[size as usize])
    }

    /// Takes note of something that holds room.
    pub fn take(&mut self, bytes: usize, size: Size) {
        self.held[size as usize] += bytes;
    }

    /// Takes note that it is gone.
    pub fn give(&mut self, bytes: usize, size: Size) {
        self.held[size as usize] -= bytes;
    }
}

impl Core {
    /// Bytes of requests that are not complete yet, on all connections together.
    fn input_limit(&self) -> u64 {
        match self.shared.settings.maxmemory() {
            0 => u64::MAX,
            limit => limit / INPUT_SHARE,
        }
    }

    /// Bytes that there is room for.
    fn room(&self, size: Size) -> u64 {
        let limit = self.input_limit();
        match size {
            Size::Short => limit / 2,
            Size::Usual => limit - limit / 4,
        }
    }

    /// For which room a request is of which `bytes` are or will be here, of `whole` as far as is known.
    pub(crate) fn size_of(&self, bytes: usize, whole: usize) -> Size {
        let is_short = bytes.max(whole) as u64 <= self.input_limit() / SHORT_SHARE;
        if is_short { Size::Short } else { Size::Usual }
    }

    /// What is made ready at once for a request: so much, if there is room.
    pub(crate) fn ample_room(&self, size: Size) -> usize {
        usize::try_from(self.room(size) / AMPLE_SHARE).unwrap_or(usize::MAX)
    }

    /// Whether a request may get so many bytes more.
    pub(crate) fn has_room(&self, size: Size, turn: Turn, more: usize) -> bool {
        match turn {
            Turn::First => true,
            Turn::Has => self.would_hold(size, more) <= self.room(size),
            Turn::Free | Turn::Waits => {
                self.would_hold(size, more) <= self.room(size) && !self.is_room_awaited(size)
            }
        }
    }

    /// What all cores would hold in a room with so much more.
    fn would_hold(&self, size: Size, more: usize) -> u64 {
        let told = |claims: &Claims| claims.held[size as usize].load(Ordering::Relaxed);
        let others: u64 = self.other_claims().map(told).sum();
        others + (self.input_room.held[size as usize] + more) as u64
    }

    fn other_claims(&self) -> impl Iterator<Item = &Claims> {
        self.shared.peers.iter().enumerate().filter(|&(id, _)| id != self.id).map(|(_, peer)| &peer.claims)
    }

    /// Those of cores that have run lately.
    fn recent_claims(&self) -> impl Iterator<Item = &Claims> {
        let tick_ms = u64::from(1000 / self.shared.settings.hz().clamp(1, 1000));
        let since_ms = self.ks.now.saturating_sub(CLAIM_MS.max(CLAIM_TICKS * tick_ms));
        self.other_claims().filter(move |claims| claims.told_ms.load(Ordering::Relaxed) >= since_ms)
    }

    /// Whether somebody waits for room, on this core or, as far as they have told, on another.
    fn is_room_awaited(&self, size: Size) -> bool {
        !self.input_room.waiting[size as usize].is_empty() || self.first_elsewhere(size) < Place::NONE
    }

    /// The first that waits on another core.
    fn first_elsewhere(&self, size: Size) -> Place {
        let first =
            self.recent_claims().map(|claims| claims.waits[size as usize].load(Ordering::Relaxed)).min();
        first.map_or(Place::NONE, Place)
    }

    fn claims(&self) -> &Claims {
        &self.shared.peers[self.id].claims
    }

    /// Tells the others at once: if each let in all that there is room for in one turn, together they would let in more
    /// than they may keep.
    pub(crate) fn tell_input(&self) {
        for (held, told) in self.input_room.held.iter().zip(&self.claims().held) {
            told.store(*held as u64, Ordering::Relaxed);
        }
    }

    /// How much to read at once from a connection of which nothing is kept, of `most`: what it leaves unfinished is kept.
    #[inline]
    pub(crate) fn read_len(&self, most: usize) -> usize {
        let is_short = self.input_room.held != [0; 2]
            && Size::ALL.into_iter().any(|size| !self.has_room(size, Turn::Free, most));
        if is_short { INPUT_FREE } else { most }
    }

    /// Keeps what a read brought beyond the last complete request.
    pub(crate) fn keep_rest(&mut self, id: ConnectionId, rest: &[u8]) {
        self.make_way(rest.len());
        if let Some(connection) = self.connection(id) {
            connection.input.extend_from_slice(rest);
        }
    }

    /// A connection holds room for an unfinished request, or wants to: the request has its place among those of its
    /// size from now on, if it has none.
    pub(crate) fn note_begun(&mut self, id: ConnectionId, size: Option<Size>) {
        let place = Place::new(self.ks.now, self.id, self.input_room.begun);
        let look = self.input_room.looks;
        let Some(connection) = self.connection(id) else { return };
        let behind = connection.commands;
        let pace = &mut connection.pace;
        let ended = pace.take_ended(behind);
        let is_same = pace.began.is_some();
        let size = size.unwrap_or(if is_same { pace.size } else { Size::Short });
        if is_same && pace.size == size {
            return;
        }
        pace.size = size;
        pace.waited &= is_same;
        pace.began_look = look;
        pace.began = Some((place, behind));
        self.input_room.begun += 1;
        self.input_room.note_ended(ended);
    }

    /// A connection has run what it could: takes note if a request came to its end that took room which others want.
    #[inline]
    pub(crate) fn note_ended(&mut self, id: ConnectionId) {
        if self.input_room.awaiting() > 0 {
            self.count_ended(id);
        }
    }

    #[cold]
    fn count_ended(&mut self, id: ConnectionId) {
        let Some(connection) = self.connection(id) else { return };
        let ended = connection.pace.take_ended(connection.commands);
        self.input_room.note_ended(ended);
    }

    /// Does not read from a connection until there is room for so much more of its request.
    #[cold]
    pub(crate) fn starve(&mut self, id: ConnectionId, size: Size, more: usize) {
        self.note_begun(id, Some(size));
        let Some(connection) = self.connection(id) else { return };
        let Some((place, _)) = connection.pace.began else { return };
        if connection.turn == Turn::Waits {
            return;
        }
        // Others have taken what was for it.
        connection.pace.waited &= connection.turn != Turn::Has;
        connection.turn = Turn::Waits;
        let waiting = &mut self.input_room.waiting[size as usize];
        let at = waiting.partition_point(|&(other, _, _)| other <= place);
        waiting.insert(at, (place, id, more));
    }

    /// Closes those that hold room without using it, and lets some of those that wait for room try again. In this order:
    /// one that may try again has not used its chance yet.
    pub(crate) fn feed_starved(&mut self) {
        if !Size::ALL.into_iter().any(|size| self.is_room_awaited(size)) {
            if self.claims_something() {
                self.claims().unread.store(0, Ordering::Relaxed);
                self.claim([Place::NONE; 2], Some([Place::NONE; 2]));
            }
            self.input_room.forget_looks();
            return;
        }
        let mut holds = None;
        let is_due = self.input_room.is_due(self.ks.now);
        if is_due || self.input_room.awaiting() >= self.input_room.counted + UNREAD_EVERY {
            self.bound_unread();
        }
        // Who is paused could not let go.
        if is_due && self.pause.is_none() {
            self.input_room.looks += 1;
            let awaited = Size::ALL.map(|size| self.is_room_awaited(size));
            self.look_at_holders(awaited);
            self.close_stalled(awaited);
            holds = Some(self.first_holders());
        }
        self.claim_first(holds);
        for size in Size::ALL {
            self.offer(size);
        }
        self.claim_first(None);
    }

    /// Lets those in that are first, as far as there is room.
    fn offer(&mut self, size: Size) {
        let elsewhere = self.first_elsewhere(size);
        let mut granted = 0;
        for _ in 0..OFFERS_PER_TICK {
            let Some((place, id, more)) = self.first_here(size) else { return };
            let turn =
                if place.is_about(elsewhere) && self.would_hold(size, granted + more) <= self.room(size) {
                    Turn::Has
                } else if granted == 0 && place < elsewhere && place <= self.first_holder(size) {
                    Turn::First
                } else {
                    return;
                };
            granted += more;
            self.input_room.waiting[size as usize].pop_front();
            if let Some(connection) = self.connection(id) {
                connection.turn = turn;
                connection.pace.waited = true;
                connection.pace.looks = 0;
                self.look_again(id);
            }
        }
    }

    /// The first that waits on this core. Those that have gone meanwhile do not wait any more.
    fn first_here(&mut self, size: Size) -> Option<(Place, ConnectionId, usize)> {
        while let Some(&first) = self.input_room.waiting[size as usize].front() {
            if self.connection(first.1).is_some() {
                return Some(first);
            }
            self.input_room.waiting[size as usize].pop_front();
        }
        None
    }

    /// The first that held room anywhere at the last look.
    fn first_holder(&self, size: Size) -> Place {
        let claims = self.recent_claims().chain([self.claims()]);
        Place(
            claims
                .map(|claims| claims.holds[size as usize].load(Ordering::Relaxed))
                .min()
                .unwrap_or(u64::MAX),
        )
    }

    /// The first that hold room on this core.
    fn first_holders(&self) -> [Place; 2] {
        let mut first = [Place::NONE; 2];
        for connection in self.connections().filter(|connection| connection.input_bytes() > INPUT_FREE) {
            if let Some((place, _)) = connection.pace.began {
                let first = &mut first[connection.booked.size as usize];
                *first = place.min(*first);
            }
        }
        first
    }

    /// Tells the others who is first here.
    fn claim_first(&mut self, holds: Option<[Place; 2]>) {
        let waits = Size::ALL.map(|size| self.first_here(size).map_or(Place::NONE, |(place, _, _)| place));
        self.claim(waits, holds);
    }

    fn claim(&self, waits: [Place; 2], holds: Option<[Place; 2]>) {
        let claims = self.claims();
        let tell = |told: &[AtomicU64; 2], places: [Place; 2]| {
            for (told, place) in told.iter().zip(places) {
                told.store(place.0, Ordering::Relaxed);
            }
        };
        tell(&claims.waits, waits);
        if let Some(holds) = holds {
            tell(&claims.holds, holds);
        }
        claims.told_ms.store(self.ks.now, Ordering::Relaxed);
    }

    fn claims_something(&self) -> bool {
        let claims = self.claims();
        claims.waits.iter().chain(&claims.holds).any(|told| told.load(Ordering::Relaxed) < Place::NONE.0)
    }

    /// Whether ticks have to see to it: somebody waits, or the others believe so, or wait for what is held here.
    pub(crate) fn has_starved(&self) -> bool {
        let is_held = self.input_room.held != [0; 2];
        self.input_room.awaiting() > 0
            || self.claims_something()
            || (is_held && Size::ALL.into_iter().any(|size| self.is_room_awaited(size)))
    }

    /// Sees who has sent enough since the last looks for what it holds.
    fn look_at_holders(&mut self, awaited: [bool; 2]) {
        for connection in self.connections_mut() {
            let held = connection.input_bytes();
            if held <= INPUT_FREE || !awaited[connection.booked.size as usize] {
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

    /// Closes some of those who wait and have not been let in yet, who has waited for longest first, if what the system
    /// holds for them is too much and they will not be served soon. So the others wait for a shorter time, and somebody
    /// who comes when all places are taken by clients that do not go on gets one.
    fn bound_unread(&mut self) {
        let most = self.input_limit().max(UNREAD_MIN) / self.shared.peers.len() as u64;
        let (mut unread, mut closed) = (0, 0);
        for (size, most) in [(Size::Short, most / 4), (Size::Usual, most - most / 4)] {
            let goes_on = self.input_room.goes_on(size);
            let mut waiting = std::mem::take(&mut self.input_room.waiting[size as usize]);
            let looks = self.input_room.looks;
            let found: Vec<(ConnectionId, Waits)> = waiting
                .iter()
                .filter_map(|&(_, id, _)| Some((id, Waits::of(self.connection(id)?, looks))))
                .collect();
            let mut all: u64 = found.iter().map(|(_, waits)| waits.bytes).sum();
            for (id, waits) in found {
                if goes_on || all <= most {
                    break;
                }
                if waits.may_go(all > 2 * most) {
                    all -= waits.bytes;
                    closed += 1;
                    self.close(id);
                }
            }
            unread += all;
            waiting.retain(|&(_, id, _)| self.connection(id).is_some());
            self.input_room.waiting[size as usize] = waiting;
        }
        if closed > 0 {
            tracing::warn!(closed, "clients were closed: too much was sent that there is no room for");
            self.stats.input_limited += closed;
        }
        self.claims().unread.store(unread, Ordering::Relaxed);
        self.input_room.counted = self.input_room.awaiting();
    }

    /// Closes the clients with a long unfinished request that do not go on with it though they might. Of some what they
    /// have sent was not read yet, and some wait for a reply that this server owes them.
    fn close_stalled(&mut self, awaited: [bool; 2]) {
        let is_stalled = |connection: &&Connection| {
            let is_served = connection.has_holes() || (connection.waiting && connection.blocked.is_none());
            connection.pace.looks >= connection.pace.patience()
                && connection.input_bytes() > INPUT_FREE
                && awaited[connection.booked.size as usize]
                && !is_served
                && connection.unread() == 0
        };
        let stalled: Vec<ConnectionId> =
            self.connections().filter(is_stalled).map(|connection| connection.id).collect();
        for id in stalled {
            let Some(connection) = self.connection(id) else { continue };
            let (addr, bytes) = (&connection.client.addr, connection.input_bytes());
            tracing::warn!(%addr, bytes, "a client that does not finish its request was closed: others wait for room");
            self.stats.input_limited += 1;
            self.close(id);
        }
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
