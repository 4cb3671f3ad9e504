//! Publish and subscribe.
//!
//! Each core has the subscribers among its own connections in tables of its own; the shared [`Registry`] says on which
//! cores a channel has how many. PUBLISH reads that, answers the number, and sends the message once to each of these
//! cores, serialised and shared; each core writes it to its subscribers at the end of its turn, so that what came
//! together costs a subscriber one system call.
//!
//! Pace. A system call for each of many subscribers takes long, and publishers who do not wait for them go on meanwhile.
//! So after a delivery the core does other things, or nothing, for as long as it took, a millisecond at most; what is
//! published meanwhile goes with the next. One who publishes now and then, or to few, never notices; 16 messages at a time
//! to 100 subscribers cost a fifth (docs/benchmarks.md). Waiting three times as long costs no less, and publishers who do
//! wait for their subscribers a quarter more. A subscriber who sends something gets what was published before first.
//!
//! Order. A message is in the mailboxes of all its cores before the reply to its PUBLISH leaves, and mailboxes are
//! queues: who publishes after the reply to another PUBLISH is heard later, whatever connections the two used. (The
//! exception: a mailbox that is full, where messages wait with their sender.) A core delivers what it has before it
//! changes its tables, so a subscription holds for exactly what is published behind it.
//!
//! Slow subscribers. What a socket does not take is kept for its connection alone, up to `client-output-buffer-limit
//! pubsub` and, for all of a core's subscribers together, `publish_buffer_limit`; then the subscriber is cut. Nobody
//! ever waits for a subscriber.
//!
//! Read next: `registry.rs`, `backlog.rs` (slow subscribers), `../server_commands/pubsub.rs` (the commands).

pub mod backlog;
pub mod registry;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use damselfly_config::glob::Pattern;
use damselfly_protocol::{Proto, ReplyWriter};

use self::backlog::Backlog;
use self::registry::Outlook;
use crate::connection::ConnectionId;
use crate::core::Core;
use crate::mailbox::Message as Mail;
use crate::modes::Modes;

pub use self::registry::Registry;

/// What can be subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A channel by its name.
    Channel,
    /// All channels that match a pattern.
    Pattern,
    /// A shard channel by its name.
    Shard,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Channel, Kind::Pattern, Kind::Shard];
}

/// A message on its way, in the form in which RESP2 clients of the channel get it; for RESP3 only the first byte
/// differs, and what follows the kind is the same for patterns.
pub struct Message {
    kind: Kind,
    bytes: Vec<u8>,
    /// Where the channel's bulk string begins.
    tail: usize,
    channel: std::ops::Range<usize>,
}

impl Message {
    fn new(kind: Kind, channel: &[u8], payload: &[u8]) -> Message {
        let mut bytes = Vec::with_capacity(channel.len() + payload.len() + 64);
        let mut out = ReplyWriter::new(&mut bytes, Proto::Resp2);
        out.push(3);
        out.bulk(if kind == Kind::Shard { b"smessage" } else { b"message" });
        let tail = out.len();
        out.bulk(channel);
        let end = out.len() - 2;
        out.bulk(payload);
        Message { kind, bytes, tail, channel: end - channel.len()..end }
    }

    fn channel(&self) -> &[u8] {
        &self.bytes[self.channel.clone()]
    }

    fn goes_with(&self, other: &Message) -> bool {
        self.kind == other.kind && self.channel() == other.channel()
    }
}

/// The connections of this core that listen to one name.
struct Listeners {
    pattern: Option<Pattern>,
    subscribers: Vec<ConnectionId>,
}

type Table = HashMap<Arc<[u8]>, Listeners>;

/// What one connection listens to: names, and its place among the subscribers of each.
#[derive(Default)]
struct Subscriptions([HashMap<Arc<[u8]>, usize>; 3]);

/// After a delivery the next one waits for as long as it took, and no longer than this; nor with more than so many
/// messages or bytes of them.
const REST_MAX: Duration = Duration::from_millis(1);
const PENDING_MAX: usize = 256;
const PENDING_BYTES_MAX: usize = 256 << 10;

/// Messages that wait for their delivery.
#[derive(Default)]
struct Pending {
    messages: Vec<Arc<Message>>,
    bytes: usize,
}

impl Pending {
    fn push(&mut self, message: Arc<Message>) {
        self.bytes += message.bytes.len();
        self.messages.push(message);
    }

    fn is_full(&self) -> bool {
        self.messages.len() >= PENDING_MAX || self.bytes >= PENDING_BYTES_MAX
    }
}

/// One core's part; see the module's head.
pub struct PubSub {
    tables: [Table; 3],
    clients: HashMap<ConnectionId, Subscriptions>,
    /// Published and not yet written to subscribers here.
    pending: Pending,
    /// From when on it may be written.
    rests_until: Instant,
    /// The same for the other cores, by number.
    outgoing: Vec<Vec<Arc<Message>>>,
    has_outgoing: bool,
    outlook: Outlook,
    /// Connections to be flushed at the end of the delivery.
    pushed: Vec<ConnectionId>,
    /// What the sockets did not take.
    pub backlog: Backlog,
}

impl PubSub {
    /// For a core among `cores`.
    pub fn new(cores: usize) -> PubSub {
        PubSub {
            tables: Default::default(),
            clients: HashMap::new(),
            pending: Pending::default(),
            rests_until: Instant::now(),
            outgoing: vec![Vec::new(); cores],
            has_outgoing: false,
            outlook: Outlook::new(),
            pushed: Vec::new(),
            backlog: Backlog::default(),
        }
    }

    /// How many names of this kind a connection listens to.
    pub fn count(&self, id: ConnectionId, kind: Kind) -> usize {
        self.clients.get(&id).map_or(0, |client| client.0[kind as usize].len())
    }

    /// The names of this kind that a connection listens to.
    pub fn names(&self, id: ConnectionId, kind: Kind) -> Vec<Arc<[u8]>> {
        self.clients
            .get(&id)
            .map_or_else(Vec::new, |client| client.0[kind as usize].keys().cloned().collect())
    }

    /// Connections that listen to anything.
    pub fn clients(&self) -> usize {
        self.clients.len()
    }
}

impl Core {
    /// Publishes to a channel; returns how many receive it, as PUBLISH answers.
    pub fn publish(&mut self, channel: &[u8], payload: &[u8]) -> u64 {
        self.publish_to(Kind::Channel, channel, payload)
    }

    /// As [`Core::publish`], to a channel of this kind.
    pub fn publish_to(&mut self, kind: Kind, channel: &[u8], payload: &[u8]) -> u64 {
        if self.shared.registry.is_empty() {
            return 0;
        }
        let hash = self.ks.hash(channel);
        let pubsub = &mut self.pubsub;
        let (receivers, cores) = pubsub.outlook.reach(&self.shared.registry, kind, hash, channel);
        if receivers > 0 {
            let message = Arc::new(Message::new(kind, channel, payload));
            for &core in cores {
                if core == self.id {
                    pubsub.pending.push(message.clone());
                } else {
                    pubsub.outgoing[core].push(message.clone());
                    pubsub.has_outgoing = true;
                }
            }
        }
        receivers
    }

    /// How many would receive what is published to a channel.
    pub fn receivers(&mut self, kind: Kind, channel: &[u8]) -> u64 {
        if self.shared.registry.is_empty() {
            return 0;
        }
        let hash = self.ks.hash(channel);
        self.pubsub.outlook.reach(&self.shared.registry, kind, hash, channel).0
    }

    /// Sends what was published to the other cores. Before replies are sent, for the order that the module's head
    /// promises.
    #[inline]
    pub(crate) fn send_published(&mut self) {
        if !self.pubsub.has_outgoing {
            return;
        }
        self.pubsub.has_outgoing = false;
        for to in 0..self.pubsub.outgoing.len() {
            let messages = std::mem::take(&mut self.pubsub.outgoing[to]);
            if !messages.is_empty() {
                let take_in = move |core: &mut Core| {
                    messages.into_iter().for_each(|message| core.pubsub.pending.push(message));
                };
                self.post(to, Mail::Job(Box::new(take_in)));
            }
        }
    }

    /// Begins to listen; returns to how many names the connection now listens, as the reply counts them.
    pub fn subscribe(&mut self, id: ConnectionId, kind: Kind, name: &[u8]) -> usize {
        self.deliver_published();
        let pubsub = &mut self.pubsub;
        let client = pubsub.clients.entry(id).or_default();
        if !client.0[kind as usize].contains_key(name) {
            let table = &mut pubsub.tables[kind as usize];
            let name: Arc<[u8]> = match table.get_key_value(name) {
                Some((name, _)) => name.clone(),
                None => name.into(),
            };
            let listeners = table.entry(name.clone()).or_insert_with(|| Listeners {
                pattern: (kind == Kind::Pattern).then(|| Pattern::new(&name)),
                subscribers: Vec::new(),
            });
            client.0[kind as usize].insert(name.clone(), listeners.subscribers.len());
            listeners.subscribers.push(id);
            let hash = self.ks.hash(&name);
            self.shared.registry.change(kind, hash, &name, self.id, true);
        }
        if let Some(connection) = self.connection(id) {
            connection.modes.set(Modes::SUBSCRIBED, true);
        }
        self.counted(id, kind)
    }

    /// Ceases to listen; returns what [`Core::subscribe`] does.
    pub fn unsubscribe(&mut self, id: ConnectionId, kind: Kind, name: &[u8]) -> usize {
        self.deliver_published();
        self.forget(id, kind, name);
        let pubsub = &mut self.pubsub;
        if pubsub.clients.get(&id).is_some_and(|client| client.0.iter().all(HashMap::is_empty)) {
            pubsub.clients.remove(&id);
            if let Some(connection) = self.connection(id) {
                connection.modes.set(Modes::SUBSCRIBED, false);
            }
        }
        self.counted(id, kind)
    }

    /// Ceases to listen to everything: the connection is closed, or made as new.
    pub fn unsubscribe_all(&mut self, id: ConnectionId) {
        for kind in Kind::ALL {
            for name in self.pubsub.names(id, kind) {
                self.forget(id, kind, &name);
            }
        }
        self.pubsub.clients.remove(&id);
        self.pubsub.backlog.forget(id);
        if let Some(connection) = self.connection(id) {
            connection.modes.set(Modes::SUBSCRIBED, false);
        }
    }

    /// Shard channels are counted apart, as in Redis.
    fn counted(&self, id: ConnectionId, kind: Kind) -> usize {
        match kind {
            Kind::Shard => self.pubsub.count(id, Kind::Shard),
            _ => self.pubsub.count(id, Kind::Channel) + self.pubsub.count(id, Kind::Pattern),
        }
    }

    fn forget(&mut self, id: ConnectionId, kind: Kind, name: &[u8]) {
        let pubsub = &mut self.pubsub;
        let Some(client) = pubsub.clients.get_mut(&id) else { return };
        let Some(place) = client.0[kind as usize].remove(name) else { return };
        let table = &mut pubsub.tables[kind as usize];
        let listeners = table.get_mut(name).expect("what a client listens to is in the table");
        assert!(listeners.subscribers.swap_remove(place) == id, "a client knows its place");
        if let Some(moved) = listeners.subscribers.get(place) {
            let moved = pubsub.clients.get_mut(moved).expect("subscribers are clients");
            *moved.0[kind as usize].get_mut(name).expect("who is in the table knows it") = place;
        } else if listeners.subscribers.is_empty() {
            table.remove(name);
        }
        let hash = self.ks.hash(name);
        self.shared.registry.change(kind, hash, name, self.id, false);
    }

    /// As [`Core::deliver_published`], if the last delivery was long enough ago.
    #[inline]
    pub(crate) fn deliver_when_due(&mut self) {
        if !self.pubsub.pending.messages.is_empty() && self.time_to_delivery().is_none() {
            let began = Instant::now();
            self.deliver();
            let ended = Instant::now();
            self.pubsub.rests_until = ended + (ended - began).min(REST_MAX);
        }
    }

    /// How long what was published has to wait yet, if anything has.
    pub(crate) fn time_to_delivery(&self) -> Option<Duration> {
        let pending = &self.pubsub.pending;
        if pending.messages.is_empty() || pending.is_full() {
            return None;
        }
        let rest = self.pubsub.rests_until.saturating_duration_since(Instant::now());
        (!rest.is_zero()).then_some(rest)
    }

    /// Writes what was published to the subscribers on this core.
    #[inline]
    pub(crate) fn deliver_published(&mut self) {
        if !self.pubsub.pending.messages.is_empty() {
            self.deliver();
        }
    }

    fn deliver(&mut self) {
        let messages = std::mem::take(&mut self.pubsub.pending).messages;
        // Taken out while connections are at hand; whoever must be cut meanwhile only after they are back.
        let tables = std::mem::take(&mut self.pubsub.tables);
        let mut forms = Forms::default();
        let alone = messages.iter().all(|message| message.goes_with(&messages[0]));
        for run in messages.chunk_by(|one, next| one.goes_with(next)) {
            let (kind, channel) = (run[0].kind, run[0].channel());
            let direct = tables[kind as usize].get(channel);
            let patterns = if kind == Kind::Channel { Some(&tables[Kind::Pattern as usize]) } else { None };
            let matching: Vec<(&Arc<[u8]>, &Listeners)> = patterns
                .into_iter()
                .flatten()
                .filter(|(_, listeners)| listeners.pattern.as_ref().is_some_and(|p| p.matches(channel)))
                .collect();
            if matching.is_empty() {
                forms.set_run(run);
                for id in direct.iter().flat_map(|listeners| &listeners.subscribers) {
                    self.push_to(*id, &mut forms, alone);
                }
                continue;
            }
            // A client may get a message by several ways, and gets it by all of them before the next one.
            for message in run {
                forms.set_run(std::slice::from_ref(message));
                for id in direct.iter().flat_map(|listeners| &listeners.subscribers) {
                    self.push_to(*id, &mut forms, false);
                }
                for (pattern, listeners) in &matching {
                    forms.set_matched(pattern, message);
                    for id in &listeners.subscribers {
                        self.push_to(*id, &mut forms, false);
                    }
                }
            }
        }
        self.pubsub.tables = tables;
        self.flush_pushed();
        if self.pubsub.pending.messages.is_empty() {
            let mut messages = messages;
            messages.clear();
            self.pubsub.pending.messages = messages;
        }
    }

    /// Gives a connection what `forms` holds; `at_once` if nothing else will follow in this turn, so that it need not
    /// be copied.
    fn push_to(&mut self, id: ConnectionId, forms: &mut Forms<'_>, at_once: bool) {
        let Some(connection) = self.connection(id) else { return };
        let bytes = forms.form(connection.proto);
        if at_once && connection.is_drained() && !connection.executing {
            match connection.send_now(bytes) {
                Some(sent) if sent == bytes.len() => {}
                Some(sent) => self.push_bytes(id, &bytes[sent..]),
                None => {
                    connection.closing = true;
                    self.note_pushed(id);
                }
            }
        } else {
            self.push_bytes(id, bytes);
        }
    }

    /// Appends a push to a connection's output, unless it has too much already; it is sent by
    /// [`Core::flush_pushed`].
    pub(crate) fn push_bytes(&mut self, id: ConnectionId, bytes: &[u8]) {
        self.lend_output(id);
        let limit = self.pubsub.backlog.hard_bytes();
        let Some(connection) = self.connection(id) else { return };
        if connection.executing {
            // The output holds half of the reply to EXEC.
            return self.hold(id, bytes);
        }
        let fits = |pending: usize| pending.saturating_add(bytes.len()) <= limit;
        let has_room =
            fits(connection.pending_output()) || (connection.flush() && fits(connection.pending_output()));
        if !has_room {
            self.pubsub.backlog.counts.messages_discarded += 1;
            self.pubsub.backlog.condemn(id, backlog::Reason::Hard);
        } else {
            connection.compact();
            connection.output.extend_from_slice(bytes);
        }
        self.note_pushed(id);
    }

    /// Keeps a push until the command under way is answered.
    pub(crate) fn hold(&mut self, id: ConnectionId, bytes: &[u8]) {
        let limit = self.pubsub.backlog.hard_bytes();
        let Some(connection) = self.connection(id) else { return };
        connection.modes.set(Modes::HELD, true);
        let held = &mut connection.client.held;
        if held.len().saturating_add(bytes.len()) <= limit {
            held.extend_from_slice(bytes);
        } else {
            self.pubsub.backlog.counts.messages_discarded += 1;
            self.pubsub.backlog.condemn(id, backlog::Reason::Hard);
        }
    }

    /// The command that pushes waited for is answered.
    #[cold]
    pub(crate) fn release_held(&mut self, id: ConnectionId) {
        let Some(connection) = self.connection(id) else { return };
        connection.modes.set(Modes::HELD, false);
        let held = std::mem::take(&mut connection.client.held);
        self.push_bytes(id, &held);
        // It is sent with the reply; this is for whoever has too much.
        self.defer(Core::flush_pushed);
    }

    fn note_pushed(&mut self, id: ConnectionId) {
        let Some(connection) = self.connection(id) else { return };
        if !connection.modes.has(Modes::PUSHED) {
            connection.modes.set(Modes::PUSHED, true);
            self.pubsub.pushed.push(id);
        }
    }

    /// Sends what was pushed, and cuts those that take too little.
    pub(crate) fn flush_pushed(&mut self) {
        while let Some(id) = self.pubsub.pushed.pop() {
            let Some(connection) = self.connection(id) else { continue };
            connection.modes.set(Modes::PUSHED, false);
            if connection.closing && connection.is_drained() {
                self.close(id);
                continue;
            }
            if !connection.flush() {
                self.close(id);
                continue;
            }
            let pending = connection.pending_output();
            if pending > 0 {
                self.note_backlog(id, pending);
            } else if let Some(output) = connection.take_idle_output() {
                self.spare_output(output);
            }
            self.go_on_with_long(id);
        }
        self.cut_condemned();
    }
}

/// The bytes of a run of messages for clients of either protocol, made when the first such client comes.
#[derive(Default)]
struct Forms<'a> {
    run: &'a [Arc<Message>],
    /// Set for a message that goes to the subscribers of a pattern.
    pattern: Option<&'a [u8]>,
    made: [Vec<u8>; 2],
    is_made: [bool; 2],
}

/// Longest scratch that is kept.
const FORM_KEPT_MAX: usize = 256 * 1024;

impl<'a> Forms<'a> {
    fn set_run(&mut self, run: &'a [Arc<Message>]) {
        self.run = run;
        self.pattern = None;
        self.is_made = [false; 2];
    }

    fn set_matched(&mut self, pattern: &'a [u8], message: &'a Arc<Message>) {
        self.set_run(std::slice::from_ref(message));
        self.pattern = Some(pattern);
    }

    fn form(&mut self, proto: Proto) -> &[u8] {
        if let ([message], None, Proto::Resp2) = (self.run, self.pattern, proto) {
            return &message.bytes;
        }
        let which = usize::from(proto == Proto::Resp3);
        let made = &mut self.made[which];
        if !std::mem::replace(&mut self.is_made[which], true) {
            made.clear();
            made.shrink_to(FORM_KEPT_MAX);
            for message in self.run {
                match self.pattern {
                    None => {
                        let at = made.len();
                        made.extend_from_slice(&message.bytes);
                        made[at] = if proto == Proto::Resp3 { b'>' } else { b'*' };
                    }
                    Some(pattern) => {
                        let mut out = ReplyWriter::new(made, proto);
                        out.push(4);
                        out.bulk(b"pmessage");
                        out.bulk(pattern);
                        out.raw(&message.bytes[message.tail..]);
                    }
                }
            }
        }
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shared bytes give what Redis sends, in both protocols, alone, in a run, and by a pattern.
    #[test]
    fn forms() {
        let messages = [
            Arc::new(Message::new(Kind::Channel, b"news", b"one")),
            Arc::new(Message::new(Kind::Channel, b"news", b"")),
        ];
        let one = "3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$3\r\none\r\n";
        let two = "3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$0\r\n\r\n";
        let mut forms = Forms::default();
        for _ in 0..2 {
            forms.set_run(&messages[..1]);
            assert_eq!(forms.form(Proto::Resp2), format!("*{one}").as_bytes());
            assert_eq!(forms.form(Proto::Resp3), format!(">{one}").as_bytes());
            forms.set_run(&messages);
            assert_eq!(forms.form(Proto::Resp2), format!("*{one}*{two}").as_bytes());
            assert_eq!(forms.form(Proto::Resp3), format!(">{one}>{two}").as_bytes());
            forms.set_matched(b"n*", &messages[0]);
            let matched = "4\r\n$8\r\npmessage\r\n$2\r\nn*\r\n$4\r\nnews\r\n$3\r\none\r\n";
            assert_eq!(forms.form(Proto::Resp2), format!("*{matched}").as_bytes());
            assert_eq!(forms.form(Proto::Resp3), format!(">{matched}").as_bytes());
        }
        assert_eq!(messages[0].channel(), b"news");
        assert!(
            Message::new(Kind::Shard, b"", b"x").bytes.starts_with(b"*3\r\n$8\r\nsmessage\r\n$0\r\n\r\n")
        );
    }
}
