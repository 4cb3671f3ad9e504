//! Client-side caching: clients are told when keys that they may have in a cache of their own change (CLIENT TRACKING).
//!
//! Two sides. The *shard* remembers who read which key, and who wants to hear of all keys with a prefix; both name a
//! client by its core and connection. A change of a key takes its readers out of the table and sends each one's core
//! an invalidation. The *connection's* core knows what the client asked for (NOLOOP, REDIRECT, the protocol) and
//! writes the push.
//!
//! What a client must never see: the old value behind the invalidation of it. A shard sends invalidations at the end
//! of its turn, behind the replies of that turn, and mailboxes keep their order; and a connection whose command is
//! put together from several shards, or done in steps, gets pushes only behind its reply ([`Modes::HELD`]). So an
//! invalidation may come once too often, but never too early.
//!
//! Bounds: `tracking_table_max_keys` over all shards, above which random keys are dropped and their readers told;
//! pushes that nobody reads count like messages of subscribers (`pubsub/backlog.rs`).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use damselfly_commands::{Command, Flags};
use damselfly_protocol::{Argv, Proto, ReplyWriter};

use crate::connection::ConnectionId;
use crate::core::Core;
use crate::mailbox::Message;
use crate::modes::Modes;
use crate::scripts::STAND_IN;

/// A client by where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reader {
    /// Its core.
    pub core: usize,
    /// Its connection there.
    pub id: ConnectionId,
}

/// What a client has asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tracker {
    /// The client that gets the invalidations instead, by number.
    pub redirect: Option<u64>,
    /// That client was gone when there was something to tell it.
    pub is_redirect_broken: bool,
    /// BCAST
    pub broadcast: bool,
    /// OPTIN
    pub opt_in: bool,
    /// OPTOUT
    pub opt_out: bool,
    /// NOLOOP
    pub no_loop: bool,
    /// CLIENT CACHING was given.
    pub caching: bool,
    /// PREFIX, for BCAST.
    pub prefixes: Vec<Box<[u8]>>,
}

impl Tracker {
    fn remembers(&self) -> bool {
        !self.broadcast && if self.opt_in { self.caching } else { !(self.opt_out && self.caching) }
    }
}

/// Who has read which keys. Entries lie in a vector so that a random one can be dropped.
#[derive(Default)]
struct Readers {
    entries: Vec<(Arc<[u8]>, Vec<Reader>)>,
    places: HashMap<Arc<[u8]>, usize>,
    /// Readers in all entries.
    items: usize,
}

impl Readers {
    fn add(&mut self, key: &[u8], reader: Reader) {
        let place = match self.places.get(key) {
            Some(place) => *place,
            None => {
                let key: Arc<[u8]> = key.into();
                self.entries.push((key.clone(), Vec::new()));
                self.places.insert(key, self.entries.len() - 1);
                self.entries.len() - 1
            }
        };
        let readers = &mut self.entries[place].1;
        if let Err(at) = readers.binary_search(&reader) {
            readers.insert(at, reader);
            self.items += 1;
        }
    }

    fn remove(&mut self, key: &[u8]) -> Option<(Arc<[u8]>, Vec<Reader>)> {
        let place = self.places.remove(key)?;
        let entry = self.entries.swap_remove(place);
        if let Some((moved, _)) = self.entries.get(place) {
            *self.places.get_mut(moved).expect("every entry has its place") = place;
        }
        self.items -= entry.1.len();
        Some(entry)
    }
}

/// Clients that want to hear of all keys with one prefix.
#[derive(Default)]
struct Prefix {
    clients: Vec<(Reader, bool)>,
    /// Keys that changed in this turn, and who changed them first.
    changed: BTreeMap<Arc<[u8]>, Option<Reader>>,
}

/// On its way to the core of a client.
#[derive(Clone)]
struct Invalidation {
    to: ConnectionId,
    broadcast: bool,
    /// The client itself made the change.
    own: bool,
    /// The keys as an array, serialised and shared.
    keys: Arc<[u8]>,
}

/// One core's part of both sides; see the module's head.
pub struct Tracking {
    trackers: HashMap<ConnectionId, Tracker>,
    readers: Readers,
    prefixes: BTreeMap<Box<[u8]>, Prefix>,
    outgoing: Vec<Vec<Invalidation>>,
    has_outgoing: bool,
    /// Of this shard; none if it is 0.
    keys_max: usize,
}

impl Tracking {
    /// For a core among `cores`.
    pub fn new(cores: usize) -> Tracking {
        Tracking {
            trackers: HashMap::new(),
            readers: Readers::default(),
            prefixes: BTreeMap::new(),
            outgoing: vec![Vec::new(); cores],
            has_outgoing: false,
            keys_max: 0,
        }
    }

    /// Whether no change of a key of this shard would have to be told to anybody.
    pub fn is_idle(&self) -> bool {
        self.readers.entries.is_empty() && self.prefixes.is_empty()
    }

    /// What a client of this core has asked for.
    pub fn tracker(&self, id: ConnectionId) -> Option<&Tracker> {
        self.trackers.get(&id)
    }

    /// Clients of this core that are told of changes.
    pub fn clients(&self) -> usize {
        self.trackers.len()
    }

    /// Keys of this shard that somebody has read, and how many have in all.
    pub fn keys_and_items(&self) -> (usize, usize) {
        (self.readers.entries.len(), self.readers.items)
    }

    /// Prefixes that somebody listens to, the same on all shards.
    pub fn prefixes(&self) -> usize {
        self.prefixes.len()
    }

    /// Takes the setting, which is for all of `shards`.
    pub fn set_keys_max(&mut self, keys_max: u64, shards: usize) {
        self.keys_max = usize::try_from(keys_max).unwrap_or(usize::MAX).div_ceil(shards);
    }
}

/// The array of keys in an invalidation; the same in both protocols.
fn keys_array<'a>(keys: impl ExactSizeIterator<Item = &'a [u8]>) -> Arc<[u8]> {
    let mut bytes = Vec::new();
    let mut out = ReplyWriter::new(&mut bytes, Proto::Resp3);
    out.array(keys.len());
    for key in keys {
        out.bulk(key);
    }
    bytes.into()
}

/// The side of the connection.
impl Core {
    /// Switches tracking on for a client of this core, or changes how it is.
    pub fn set_tracker(&mut self, id: ConnectionId, tracker: Tracker) {
        self.tracking.trackers.insert(id, tracker);
        self.note_tracker(id);
    }

    /// Switches tracking off; returns what it was.
    pub fn remove_tracker(&mut self, id: ConnectionId) -> Option<Tracker> {
        let tracker = self.tracking.trackers.remove(&id);
        if let Some(connection) = self.connection(id) {
            for mode in [Modes::TRACKING, Modes::REMEMBERS, Modes::CACHING] {
                connection.modes.set(mode, false);
            }
        }
        tracker
    }

    /// As [`Core::remove_tracker`], for a connection that is closed or made as new: prefixes are forgotten on all
    /// cores in their own time.
    pub fn drop_tracker(&mut self, id: ConnectionId) {
        if self.remove_tracker(id).is_some_and(|tracker| tracker.broadcast) {
            let reader = Reader { core: self.id, id };
            for to in 0..self.shared.peers.len() {
                if to == self.id {
                    self.set_prefixes(reader, &[], false);
                } else {
                    self.post(to, Message::Job(Box::new(move |core| core.set_prefixes(reader, &[], false))));
                }
            }
        }
    }

    /// CLIENT CACHING
    pub fn set_caching(&mut self, id: ConnectionId, caching: bool) {
        if let Some(tracker) = self.tracking.trackers.get_mut(&id) {
            tracker.caching = caching;
        }
        self.note_tracker(id);
    }

    fn note_tracker(&mut self, id: ConnectionId) {
        let Some(tracker) = self.tracking.trackers.get(&id) else { return };
        let (remembers, caching) = (tracker.remembers(), tracker.caching);
        if let Some(connection) = self.connection(id) {
            connection.modes.set(Modes::TRACKING, true);
            connection.modes.set(Modes::REMEMBERS, remembers);
            connection.modes.set(Modes::CACHING, caching);
        }
    }

    fn take_invalidations(&mut self, invalidations: Vec<Invalidation>) {
        for invalidation in invalidations {
            let Some(tracker) = self.tracking.trackers.get(&invalidation.to) else { continue };
            if tracker.broadcast == invalidation.broadcast && !(invalidation.own && tracker.no_loop) {
                self.push_invalidation(invalidation.to, Some(&invalidation.keys));
            }
        }
        self.flush_pushed();
    }

    /// Tells a client of this core, or the one that it redirects to, that keys have changed; without keys, that all
    /// have.
    fn push_invalidation(&mut self, id: ConnectionId, keys: Option<&Arc<[u8]>>) {
        let Some(tracker) = self.tracking.trackers.get_mut(&id) else { return };
        let Some(number) = tracker.redirect else {
            return self.write_invalidation(id, keys.map(|keys| &**keys));
        };
        // The guard of the map is not kept.
        let target = self.shared.clients.get(&number).map(|found| *found);
        match target {
            Some((core, target)) if core == self.id => {
                self.write_invalidation(target, keys.map(|keys| &**keys));
            }
            Some((core, target)) => {
                let keys = keys.cloned();
                let job = move |core: &mut Core| {
                    core.write_invalidation(target, keys.as_deref());
                    core.flush_pushed();
                };
                self.post(core, Message::Job(Box::new(job)));
            }
            None => {
                tracker.is_redirect_broken = true;
                if self.connection(id).is_some_and(|connection| connection.proto == Proto::Resp3) {
                    let mut bytes = Vec::new();
                    let mut out = ReplyWriter::new(&mut bytes, Proto::Resp3);
                    out.push(2);
                    out.bulk(b"tracking-redir-broken");
                    out.int(number as i64);
                    self.hold_or_push(id, &bytes);
                }
            }
        }
    }

    /// The push itself, to whoever is to get it. In RESP2 only who is subscribed understands it.
    fn write_invalidation(&mut self, id: ConnectionId, keys: Option<&[u8]>) {
        let Some(connection) = self.connection(id) else { return };
        let mut bytes = Vec::with_capacity(64 + keys.map_or(0, <[u8]>::len));
        let mut out = ReplyWriter::new(&mut bytes, connection.proto);
        if connection.proto == Proto::Resp3 {
            out.push(2);
            out.bulk(b"invalidate");
        } else if connection.modes.has(Modes::SUBSCRIBED) {
            out.push(3);
            out.bulk(b"message");
            out.bulk(b"__redis__:invalidate");
        } else {
            return;
        }
        match keys {
            Some(keys) => out.raw(keys),
            None => out.null(),
        }
        self.hold_or_push(id, &bytes);
    }

    fn hold_or_push(&mut self, id: ConnectionId, bytes: &[u8]) {
        let Some(connection) = self.connection(id) else { return };
        // A reply that is being put together may hold what was read before the change. Who blocks has read nothing.
        let reads = connection.waiting
            && connection.last_command.is_some_and(|command| !command.flags.has(Flags::BLOCKING));
        let reads = reads || connection.has_holes();
        if reads && connection.modes.has(Modes::TRACKING) {
            self.hold(id, bytes);
        } else {
            self.push_bytes(id, bytes);
        }
    }

    /// What follows from a command of a connection that tracks: the keys that it read are remembered, and what it
    /// changed is told.
    pub(crate) fn after_tracked(
        &mut self,
        id: ConnectionId,
        command: &Command,
        read_here: Option<&Argv<'_>>,
    ) {
        let Some(connection) = self.connection(id) else { return };
        if let Some(argv) = read_here
            && connection.modes.has(Modes::REMEMBERS)
        {
            self.remember(Reader { core: self.id, id }, command, argv);
        }
        self.send_invalidations();
    }

    /// What CLIENT CACHING has said was for the request that is over, whatever became of it; before MULTI, for the whole
    /// transaction.
    #[cold]
    pub(crate) fn end_caching(&mut self, id: ConnectionId) {
        if self.connection(id).is_some_and(|connection| connection.multi.is_none() && !connection.executing) {
            self.set_caching(id, false);
        }
    }

    /// All keys are gone; the clients of this core that track are told, but for one that is told by its own core.
    fn push_flushed(&mut self, but: Reader) {
        let ids: Vec<ConnectionId> = self.tracking.trackers.keys().copied().collect();
        for id in ids {
            if (Reader { core: self.id, id }) != but {
                self.push_invalidation(id, None);
            }
        }
        self.flush_pushed();
    }

    /// Who emptied the databases is told last, behind the reply.
    pub(crate) fn push_flushed_to(&mut self, id: ConnectionId) {
        if self.tracking.trackers.contains_key(&id) {
            self.push_invalidation(id, None);
            self.flush_pushed();
        }
    }
}

/// Who has asked for something over keys.
#[derive(Clone, Copy)]
pub struct Asker {
    /// The client.
    pub client: Reader,
    /// It caches what it reads.
    pub remembers: bool,
    /// Its reads leave the heat of keys as it is.
    pub no_touch: bool,
}

/// Keys that a client has read between changes: how many events had been announced when it last read each.
pub type Reads = BTreeMap<Box<[u8]>, usize>;

/// The side of the shard.
impl Core {
    /// A client of this core as it asks for a command.
    pub fn asker(&mut self, id: ConnectionId) -> Asker {
        if id == STAND_IN
            && let Some(asker) = self.scripts.asker()
        {
            return asker;
        }
        let (remembers, no_touch) = self.connection(id).map_or((false, false), |connection| {
            (connection.modes.has(Modes::REMEMBERS), connection.no_touch)
        });
        Asker { client: Reader { core: self.id, id }, remembers, no_touch }
    }

    /// Remembers that a client has read the keys of a request.
    pub fn remember(&mut self, reader: Reader, command: &Command, argv: &Argv<'_>) {
        if !command.flags.has(Flags::READ) {
            return;
        }
        self.each_key(command, argv, |core, key| core.remember_key(reader, key));
    }

    fn each_key(&mut self, command: &Command, argv: &Argv<'_>, mut work: impl FnMut(&mut Core, &[u8])) {
        let mut positions = std::mem::take(&mut self.positions);
        command.key_positions(argv, &mut positions);
        for &at in &positions {
            work(self, &argv[at]);
        }
        self.positions = positions;
    }

    /// Notes what a command of a script has read, for [`Core::tell_reader`] when the script is over: until then what
    /// it does may be undone. Changes are recorded from now on.
    pub(crate) fn note_reads(&mut self, command: &Command, argv: &Argv<'_>, reads: &mut Reads) {
        if !command.flags.has(Flags::READ) {
            return;
        }
        self.ks.observed = true;
        self.each_key(command, argv, |core, key| {
            reads.insert(key.into(), core.ks.event_count());
        });
    }

    /// Remembers that a client has read a key.
    pub fn remember_key(&mut self, reader: Reader, key: &[u8]) {
        self.tracking.readers.add(key, reader);
        let max = self.tracking.keys_max;
        while max > 0 && self.tracking.readers.entries.len() > max {
            let unlucky = (self.ks.random() % self.tracking.readers.entries.len() as u64) as usize;
            let key = self.tracking.readers.entries[unlucky].0.clone();
            self.invalidate_readers(&key, None);
        }
        if !self.ks.observed {
            self.observe();
        }
    }

    /// A key has changed, or is gone.
    pub(crate) fn invalidate(&mut self, key: &[u8], client: Option<Reader>) {
        if self.tracking.is_idle() {
            return;
        }
        self.invalidate_readers(key, client);
        let mut shared: Option<Arc<[u8]>> = None;
        for (prefix, listening) in &mut self.tracking.prefixes {
            if key.starts_with(prefix) {
                let key = shared.get_or_insert_with(|| key.into());
                listening.changed.entry(key.clone()).or_insert(client);
                self.tracking.has_outgoing = true;
            }
        }
    }

    fn invalidate_readers(&mut self, key: &[u8], client: Option<Reader>) {
        let tracking = &mut self.tracking;
        let Some((key, readers)) = tracking.readers.remove(key) else { return };
        let keys = keys_array([&*key].into_iter());
        for reader in readers {
            let own = client == Some(reader);
            let invalidation = Invalidation { to: reader.id, broadcast: false, own, keys: keys.clone() };
            tracking.outgoing[reader.core].push(invalidation);
            tracking.has_outgoing = true;
        }
        if tracking.is_idle() {
            self.observe();
        }
    }

    /// Puts together what is broadcast, one invalidation per prefix.
    fn broadcast(&mut self) {
        let tracking = &mut self.tracking;
        for listening in tracking.prefixes.values_mut().filter(|listening| !listening.changed.is_empty()) {
            let changed = std::mem::take(&mut listening.changed);
            let all = keys_array(changed.keys().map(|key| &**key));
            for &(reader, no_loop) in &listening.clients {
                let keys = if no_loop && changed.values().any(|by| *by == Some(reader)) {
                    let of_others: Vec<&[u8]> = changed
                        .iter()
                        .filter(|(_, by)| **by != Some(reader))
                        .map(|(key, _)| &**key)
                        .collect();
                    if of_others.is_empty() {
                        continue;
                    }
                    keys_array(of_others.into_iter())
                } else {
                    all.clone()
                };
                let invalidation = Invalidation { to: reader.id, broadcast: true, own: false, keys };
                tracking.outgoing[reader.core].push(invalidation);
            }
        }
    }

    /// Sends what is to be told to clients, behind the replies that were sent before.
    #[inline]
    pub(crate) fn send_invalidations(&mut self) {
        if !self.tracking.has_outgoing {
            return;
        }
        self.tracking.has_outgoing = false;
        self.broadcast();
        for to in 0..self.tracking.outgoing.len() {
            let invalidations = std::mem::take(&mut self.tracking.outgoing[to]);
            if invalidations.is_empty() {
                continue;
            }
            if to == self.id {
                self.take_invalidations(invalidations);
            } else {
                self.post(to, Message::Job(Box::new(move |core| core.take_invalidations(invalidations))));
            }
        }
    }

    /// Sets for which prefixes a client is told of changes of this shard.
    pub fn set_prefixes(&mut self, reader: Reader, prefixes: &[Box<[u8]>], no_loop: bool) {
        self.send_invalidations();
        self.tracking.prefixes.retain(|_, listening| {
            listening.clients.retain(|(client, _)| *client != reader);
            !listening.clients.is_empty()
        });
        for prefix in prefixes {
            self.tracking.prefixes.entry(prefix.clone()).or_default().clients.push((reader, no_loop));
        }
        self.observe();
    }

    /// A database of this shard was emptied, and those of the other shards are. Each shard tells each core, behind the
    /// replies it has sent there; when all shards have, the core tells its clients.
    pub(crate) fn forget_readers(&mut self, flush: &Flush) {
        self.tracking.readers = Readers::default();
        self.observe();
        for to in 0..self.shared.peers.len() {
            let flush = flush.clone();
            let arrive = move |core: &mut Core| {
                if flush.missing[core.id].fetch_sub(1, Ordering::AcqRel) == 1 {
                    core.push_flushed(flush.by);
                }
            };
            if to == self.id {
                arrive(self);
            } else {
                self.post(to, Message::Job(Box::new(arrive)));
            }
        }
    }
}

/// A FLUSHALL or FLUSHDB under way.
#[derive(Clone)]
pub struct Flush {
    /// Who asked for it.
    by: Reader,
    /// For each core, the shards that it has not heard of.
    missing: Arc<[AtomicUsize]>,
}

impl Flush {
    /// Of all of `shards`.
    pub fn new(by: Reader, shards: usize) -> Flush {
        Flush { by, missing: (0..shards).map(|_| AtomicUsize::new(shards)).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table holds what a map of sets holds, whatever is added and removed, and any entry can be found by its place.
    #[test]
    fn readers_agree_with_a_model() {
        let (mut readers, mut model) = (Readers::default(), BTreeMap::<Vec<u8>, Vec<Reader>>::new());
        let mut random = 3u64;
        for _ in 0..50_000 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let key = format!("k{}", random % 50).into_bytes();
            let id = ConnectionId { index: (random >> 8) as u32 % 20, generation: 0 };
            let reader = Reader { core: (random >> 16) as usize % 3, id };
            if random >> 32 & 3 == 0 {
                let (found, expected) = (readers.remove(&key), model.remove(&key));
                assert_eq!(found.map(|(_, readers)| readers), expected);
            } else {
                readers.add(&key, reader);
                let all = model.entry(key).or_default();
                if let Err(at) = all.binary_search(&reader) {
                    all.insert(at, reader);
                }
            }
            assert_eq!(readers.items, model.values().map(Vec::len).sum::<usize>());
            assert!(readers.entries.iter().enumerate().all(|(at, (key, _))| readers.places[key] == at));
            assert_eq!(readers.places.len(), model.len());
        }
    }

    /// Which reads are remembered, by mode.
    #[test]
    fn modes() {
        let tracker = |broadcast, opt_in, opt_out, caching| {
            Tracker { broadcast, opt_in, opt_out, caching, ..Tracker::default() }.remembers()
        };
        assert!(tracker(false, false, false, false));
        assert!(!tracker(true, false, false, false));
        assert!(!tracker(false, true, false, false) && tracker(false, true, false, true));
        assert!(tracker(false, false, true, false) && !tracker(false, false, true, true));
    }
}
