//! One core: a thread with its shard, its connections and its loop.
//!
//! A turn of the loop takes what is ready (messages of other cores, sockets), runs it to the end, sends what is to be
//! sent, and only then looks whether to sleep. Events do not run commands by themselves; the loop works at its own
//! pace, with a bound for every step.
//!
//! The core's tokio runtime drives the loop as one task: it provides the sleep (the core's epoll is one descriptor
//! of tokio's), the tick, and a place for other tasks of this thread.
//!
//! Everything here is reached through `&mut Core`, which never leaves its thread: no other thread can name it. Others
//! send [`Message`]s; a [`Job`](crate::mailbox::Job) is a closure that gets the `&mut Core` when its turn comes.
//!
//! Read next: `execute.rs` (from bytes to replies), `coordinate.rs` (operations over several shards).

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::AsFd;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll as TaskPoll;
use std::time::Duration;

use damselfly_commands::{Env, ListLimit, Long};
use damselfly_config::{Events, MaxmemoryPolicy};
use damselfly_keyspace::stream::NodeLimits;
use damselfly_keyspace::values::PackLimits;
use damselfly_keyspace::values::set::SetLimits;
use damselfly_keyspace::{Keyspace, Options};
use damselfly_protocol::{Limits, Requests};

use crate::affinity::Seat;
use crate::batch::Batch;
use crate::blocking::Blocked;
use crate::connection::{Client, Connection, ConnectionId, Got, Listener, Stream};
use crate::execute::Prepared;
use crate::listen::Listening;
use crate::locks::Locks;
use crate::mailbox::{Arrival, Job, Message};
use crate::memory::{Account, rule_of};
use crate::modes::Modes;
use crate::pace::{Idle, Pace};
use crate::pause::Pause;
use crate::poll::{Poll, Ready, Token};
use crate::pubsub::PubSub;
use crate::scripts::{self, LockWaiter, Parked};
use crate::shared::Shared;
use crate::slow_peers::{PeerLimits, Slowness};
use crate::snapshots::ShardSave;
use crate::stats::CoreStats;
use crate::tasks::Tasks;
use crate::tracking::Tracking;
use crate::transaction::{Transaction, Watches};

/// Bytes read from a socket at once. A pipeline of 32 small commands is 2 KB; 64 KiB lets 4 KiB values at pipeline 8
/// through in one call.
const SCRATCH_LEN: usize = 64 * 1024;
/// Reads of one connection in one turn, so that one busy client does not keep the others waiting.
const READS_PER_TURN: usize = 4;
/// Unsent output above which a connection's requests are not run: a client that does not read is held back, not
/// buffered for.
pub(crate) const OUTPUT_RUN_MAX: usize = 1024 * 1024;
/// Bytes of a long reply written in one turn: about a tenth of a millisecond's work.
const LONG_PIECE_LEN: usize = 64 * 1024;
/// Connections taken from one listener per turn.
const ACCEPTS_PER_TURN: usize = 256;
/// Messages handled per turn.
const MESSAGES_PER_TURN: usize = 256;
/// Output buffers kept to lend to connections, and their greatest size.
const SPARE_OUTPUTS_MAX: usize = 64;
const SPARE_OUTPUT_LEN_MAX: usize = 64 * 1024;
/// Longest wait for the next event outside of tokio.
const LINGER_MAX_MS: u64 = 100;

const TOKEN_BELL: Token = Token(u64::MAX);
const TOKEN_LISTENER: u64 = u64::MAX - 1024;

/// Work that goes on when an answer is there.
pub type Then = Box<dyn FnOnce(&mut Core, Box<dyn Any>)>;

/// Work that this core does later.
pub type Work = Box<dyn FnOnce(&mut Core)>;

/// Messages for one peer.
#[derive(Default)]
struct Outbox {
    /// Being filled in this turn.
    batch: Option<Box<Batch>>,
    /// Refused by the peer's full mailbox, in order.
    refused: VecDeque<Message>,
    /// The peer's mailbox fills up.
    crowded: bool,
    /// Something was pushed since the last ring.
    ring: bool,
}

/// A place for a connection.
struct Place {
    generation: u32,
    connection: Option<Box<Connection>>,
}

/// What was read from a connection and not run yet: so many of the bytes, and what is in its own buffer.
struct JustRead {
    id: ConnectionId,
    bytes: Vec<u8>,
    len: usize,
}

/// See the module's head.
pub struct Core {
    /// Number of this core and its shard.
    pub id: usize,
    /// What all threads see.
    pub shared: Arc<Shared>,
    /// The shard.
    pub ks: Keyspace,
    /// Settings for handlers.
    pub env: Env,
    /// Limits for the scanner.
    pub limits: Limits,
    /// How much may wait for a client, and how long.
    pub(crate) peer_limits: PeerLimits,
    /// Most requests of one connection that are taken in at once.
    pub(crate) pipeline_max: usize,
    /// Counters.
    pub stats: CoreStats,
    /// Key locks of the shard.
    pub locks: Locks,
    /// Those who wait for data.
    pub blocked: Blocked,
    /// Keys of the shard that connections watch.
    pub watches: Watches,
    /// Requests from a peer's connection that wait behind a locked one of the same connection.
    pub parked: HashMap<(usize, ConnectionId), Parked>,
    /// Requests of this core's connections that wait for locks.
    pub(crate) lock_waiters: HashMap<ConnectionId, LockWaiter>,
    places: Vec<Place>,
    free_places: Vec<u32>,
    poll: Poll,
    listeners: Vec<Listening>,
    outboxes: Vec<Outbox>,
    /// How many of them have a batch.
    open_batches: usize,
    /// Connections whose replies wait until this turn's batches are sent.
    unsent: Vec<ConnectionId>,
    /// Replies that were found while a connection was being read.
    found_replies: VecDeque<Box<Batch>>,
    /// What was just read, while earlier requests of others are run before it.
    just_read: Option<JustRead>,
    /// Boxed, because a batch travels between cores as a box and must not be copied out of it.
    #[expect(clippy::vec_box, reason = "the boxes themselves are what is kept")]
    spare_batches: Vec<Box<Batch>>,
    spare_outputs: Vec<Vec<u8>>,
    continuations: HashMap<u64, Then>,
    next_continuation: u64,
    later: VecDeque<Work>,
    /// One step each per turn.
    next_turn: VecDeque<Work>,
    /// Sockets that are ready and were not looked at yet.
    ready: VecDeque<Ready>,
    /// Reused for finding them.
    ready_batch: Vec<Ready>,
    /// What it has met lately, and whether to rest.
    pace: Pace,
    /// Something expired with the last tick.
    expired_some: bool,
    seat: Seat,
    /// The sockets were looked at just before this turn.
    looked: bool,
    /// Connections to look at again in the next turn.
    again: VecDeque<ConnectionId>,
    /// Listeners that may have more connections, to be asked in the next turn, or at the next tick after an error.
    accept_again: Vec<usize>,
    accept_at_tick: Vec<usize>,
    scratch: Vec<u8>,
    /// Reused for scanning.
    pub(crate) requests: Requests,
    /// The value of the SET that is being run, if it may be kept as it is.
    pub(crate) long_value: Option<Vec<u8>>,
    /// Reused for routing.
    pub(crate) prepared: Vec<Prepared>,
    /// Reused for key positions.
    pub(crate) positions: Vec<usize>,
    /// Empty ones, reused.
    #[expect(clippy::vec_box, reason = "connections have them in boxes, which are reused, too")]
    pub(crate) spare_transactions: Vec<Box<Transaction>>,
    generation_seen: u64,
    /// `timeout` setting, in milliseconds; 0 is none.
    idle_timeout_ms: u64,
    next_idle_check_ms: u64,
    /// Between two ticks (`hz`).
    tick_period: Duration,
    stopped: bool,
    /// DEBUG SET-ACTIVE-EXPIRE.
    pub active_expire: bool,
    /// DEBUG PAUSE-CRON.
    pub ticks_rest: bool,
    /// Clients of this core that run MONITOR.
    pub monitors: Vec<ConnectionId>,
    /// Subscribers and what is published to them.
    pub pubsub: PubSub,
    /// Classes of key events that are published; none if they are on no channel.
    pub notifications: Events,
    /// Client-side caching.
    pub tracking: Tracking,
    /// What a script needs here.
    pub(crate) scripts: scripts::Local,
    /// What is answered because a script takes long, here or elsewhere.
    pub(crate) busy: Option<&'static str>,
    /// Messages that came while a script took long here.
    put_off: VecDeque<Message>,
    /// Commands that are done in steps.
    pub(crate) tasks: Tasks,
    /// CLIENT PAUSE.
    pub pause: Option<Pause>,
    /// Connections that wait for its end.
    pub held: Vec<ConnectionId>,
    /// The save of this shard that goes on.
    pub(crate) save: Option<ShardSave>,
    /// This core's part of the memory.
    pub(crate) memory: Account,
}

impl Core {
    /// A core with an empty shard. Called on the core's own thread.
    pub fn new(id: usize, shared: Arc<Shared>, listeners: Vec<Listening>) -> io::Result<Core> {
        let poll = Poll::new()?;
        poll.watch_reads(&shared.peers[id].mailbox, TOKEN_BELL)?;
        for (at, listener) in listeners.iter().enumerate() {
            poll.watch_reads(listener, Token(TOKEN_LISTENER + at as u64))?;
        }
        let ks = Keyspace::new(&Options {
            databases: shared.config.databases as usize,
            hash_seed: shared.hash_seed,
            random_seed: shared.hash_seed.rotate_left(17)
                ^ (id as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15),
        });
        let mut core = Core {
            id,
            ks,
            env: Env::default(),
            limits: Limits { max_multibulk_len: shared.config.max_multi_bulk_len, ..Limits::default() },
            peer_limits: PeerLimits::default(),
            pipeline_max: usize::MAX,
            stats: CoreStats::default(),
            locks: Locks::default(),
            blocked: Blocked::default(),
            watches: Watches::default(),
            parked: HashMap::new(),
            lock_waiters: HashMap::new(),
            places: Vec::new(),
            free_places: Vec::new(),
            poll,
            listeners,
            outboxes: (0..shared.peers.len()).map(|_| Outbox::default()).collect(),
            open_batches: 0,
            unsent: Vec::new(),
            found_replies: VecDeque::new(),
            just_read: None,
            spare_batches: Vec::new(),
            spare_outputs: Vec::new(),
            continuations: HashMap::new(),
            next_continuation: 0,
            later: VecDeque::new(),
            next_turn: VecDeque::new(),
            ready: VecDeque::new(),
            pace: Pace::default(),
            expired_some: false,
            seat: Seat::default(),
            looked: false,
            ready_batch: Vec::new(),
            again: VecDeque::new(),
            accept_again: Vec::new(),
            accept_at_tick: Vec::new(),
            scratch: Vec::new(),
            requests: Requests::new(),
            long_value: None,
            prepared: Vec::new(),
            spare_transactions: Vec::new(),
            positions: Vec::new(),
            generation_seen: u64::MAX,
            idle_timeout_ms: 0,
            next_idle_check_ms: 0,
            tick_period: Duration::from_millis(10),
            stopped: false,
            active_expire: true,
            ticks_rest: false,
            monitors: Vec::new(),
            pubsub: PubSub::new(shared.peers.len()),
            notifications: Events::default(),
            tracking: Tracking::new(shared.peers.len()),
            scripts: scripts::Local::default(),
            busy: None,
            put_off: VecDeque::new(),
            tasks: Tasks::default(),
            pause: None,
            held: Vec::new(),
            save: None,
            memory: Account::default(),
            shared,
        };
        core.read_settings();
        Ok(core)
    }

    /// Runs until the process stops.
    pub async fn run(mut self) -> io::Result<()> {
        if self.shared.config.keep_cpus {
            self.seat = Seat::take(self.id, self.shared.peers.len(), Shared::now_ms());
        }
        let watched = self.poll.watched()?;
        let mut tick = tokio::time::interval(self.tick_period);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut alarm = pin!(tokio::time::sleep(Duration::MAX));
        let mut alarm_at = None;
        let mut ticked = false;
        let mut visited_ms = 0;
        let mut idle = Idle::default();
        while !self.stopped {
            let more = self.turn(ticked)?;
            if std::mem::take(&mut ticked) {
                idle.note_tick(self.pace.total(), more || self.has_work_for_ticks());
                if let Some(after) = idle.next_tick(self.tick_period) {
                    tick.reset_after(after);
                }
            }
            if tick.period() != self.tick_period {
                tick = tokio::time::interval(self.tick_period);
                tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            }
            // tokio's clock moves only when it is asked.
            let visit_ms = visited_ms + self.tick_period.as_millis() as u64;
            // The wall clock may have been set back.
            let early = (visited_ms..visit_ms).contains(&self.ks.now);
            if early && (more || self.linger(visit_ms)?) {
                continue;
            }
            visited_ms = self.ks.now;
            if more {
                tokio::task::yield_now().await;
                ticked = poll_fn(|cx| TaskPoll::Ready(tick.poll_tick(cx).is_ready())).await;
                continue;
            }
            let shared = self.shared.clone();
            let mailbox = &shared.peers[self.id].mailbox;
            if !mailbox.fall_asleep() {
                continue;
            }
            let deadline = self.blocked.next_deadline();
            if deadline != alarm_at {
                alarm_at = deadline;
                let millis = deadline.map_or(u64::MAX >> 20, |at| at.saturating_sub(Shared::now_ms()).max(1));
                alarm
                    .as_mut()
                    .reset(tokio::time::Instant::now() + Duration::from_millis(millis.min(1 << 40)));
            }
            let (mut rung, mut met) = (false, false);
            poll_fn(|cx| {
                if tick.poll_tick(cx).is_ready() {
                    ticked = true;
                }
                if deadline.is_some() && alarm.as_mut().poll(cx).is_ready() {
                    rung = true;
                }
                match watched.poll_read_ready(cx) {
                    // What is ready is taken completely by the next turn, and whatever comes after that makes a new
                    // edge, so the mark is removed before looking.
                    TaskPoll::Ready(Ok(mut guard)) => {
                        guard.clear_ready();
                        met = true;
                        TaskPoll::Ready(Ok(()))
                    }
                    TaskPoll::Ready(Err(error)) => TaskPoll::Ready(Err(error)),
                    TaskPoll::Pending if ticked || rung => TaskPoll::Ready(Ok(())),
                    TaskPoll::Pending => TaskPoll::Pending,
                }
            })
            .await?;
            if rung {
                alarm_at = None;
            }
            if (met || rung) && idle.end() {
                tick.reset_after(self.tick_period);
            }
            mailbox.wake_up();
        }
        self.close_all();
        Ok(())
    }

    /// Waits for the next event until `until_ms`, where the last turn has met some; true if there is one. Going to
    /// sleep in tokio and back costs two more system calls and its clock, which clients that answer at once would pay
    /// with every request.
    fn linger(&mut self, until_ms: u64) -> io::Result<bool> {
        let until_ms = self.blocked.next_deadline().map_or(until_ms, |at| at.min(until_ms));
        let wait_ms = until_ms.saturating_sub(self.ks.now).min(LINGER_MAX_MS);
        let met = self.pace.take_met();
        if met == 0 || wait_ms == 0 {
            return Ok(false);
        }
        if let Some(rest) = self.pace.rest_after(met) {
            std::thread::sleep(rest);
        }
        let shared = self.shared.clone();
        let mailbox = &shared.peers[self.id].mailbox;
        if !mailbox.fall_asleep() {
            return Ok(true);
        }
        let looked = self.collect_ready(wait_ms);
        mailbox.wake_up();
        self.looked = !looked?;
        Ok(!self.ready.is_empty())
    }

    /// One turn; true if there is certainly more to do.
    fn turn(&mut self, ticked: bool) -> io::Result<bool> {
        self.ks.now = Shared::now_ms();
        self.pace.set_now(self.ks.now);
        let busy = self.shared.scripts.running.busy();
        if let Some(busy) = busy
            && self.busy.is_none()
        {
            self.refuse_waiters(busy);
        }
        self.busy = busy;
        self.unpause_when_due();
        self.end_due_waits();
        self.settle_account(ticked);
        let mut more = self.take_messages();
        if !std::mem::take(&mut self.looked) {
            more |= self.collect_ready(0)?;
        }
        // Behind the look at the sockets, so that a request that follows a changed setting meets it.
        self.read_settings();
        self.handle_ready();
        for _ in 0..self.again.len() {
            let Some(id) = self.again.pop_front() else { break };
            self.write_long(id);
            self.pump(id);
        }
        while let Some(batch) = self.found_replies.pop_front() {
            self.take_replies(batch);
        }
        for _ in 0..self.next_turn.len() {
            let Some(work) = self.next_turn.pop_front() else { break };
            work(self);
        }
        while let Some(work) = self.later.pop_front() {
            work(self);
        }
        if ticked {
            self.tick();
        }
        if self.save.is_some() {
            more |= self.save_for_a_while();
        }
        if !self.tasks.is_empty() {
            more |= self.work_on_tasks();
        }
        if self.ks.has_doomed() {
            more |= self.free_for_a_while();
        }
        more |= self.keep_memory();
        self.send_turn();
        self.send_invalidations();
        self.deliver_published();
        self.send_batches();
        more |= !self.again.is_empty() || !self.later.is_empty() || !self.accept_again.is_empty();
        more |= !self.next_turn.is_empty() || !self.put_off.is_empty();
        if self.congested() {
            // The peer drains its mailbox at its own pace; trying again at once would only burn time.
            std::thread::yield_now();
            more = true;
        }
        Ok(more)
    }

    /// Handles what sockets were found ready, and goes on accepting where that was cut short.
    fn handle_ready(&mut self) {
        while let Some(event) = self.ready.pop_front() {
            self.handle(event);
        }
        for listener in std::mem::take(&mut self.accept_again) {
            self.accept(listener);
        }
    }

    /// Takes note of what sockets are ready, waiting for the first of them; true if there may be more.
    fn collect_ready(&mut self, wait_ms: u64) -> io::Result<bool> {
        let mut batch = std::mem::take(&mut self.ready_batch);
        let more = self.poll.collect(&mut batch, wait_ms);
        self.pace.meet(batch.len());
        self.ready.extend(batch.drain(..));
        self.ready_batch = batch;
        more
    }

    fn take_messages(&mut self) -> bool {
        let shared = self.shared.clone();
        let mailbox = &shared.peers[self.id].mailbox;
        self.pace.meet(mailbox.waiting());
        for _ in 0..MESSAGES_PER_TURN {
            match self.put_off.pop_front().or_else(|| mailbox.pop()) {
                None => return false,
                Some(Message::Requests(batch)) => self.take_requests(batch),
                Some(Message::Replies(batch)) => self.take_replies(batch),
                Some(Message::Connection(arrival)) => self.adopt(*arrival),
                Some(Message::Job(job)) => job(self),
            }
            while let Some(work) = self.later.pop_front() {
                work(self);
            }
        }
        true
    }

    /// Looks at a connection again in the next turn.
    pub(crate) fn look_again(&mut self, id: ConnectionId) {
        self.again.push_back(id);
    }

    /// A turn within a script that takes long: clients are told so, and whoever wants it to end is heard. Nothing
    /// touches the keyspace; what others want done here waits until the script is over, except that requests are
    /// refused. `caller` is the connection that the script runs for.
    pub(crate) fn turn_while_busy(&mut self, caller: Option<ConnectionId>) {
        self.busy = self.shared.scripts.running.busy();
        let Some(busy) = self.busy else { return };
        self.answer_batch_under_way(busy);
        // It waits for the script, whatever it sends meanwhile.
        let waiting = match caller.and_then(|id| self.connection(id)) {
            Some(connection) => std::mem::replace(&mut connection.waiting, true),
            None => false,
        };
        // Nobody looks at it again before the script is over.
        if let Some(JustRead { id, bytes, len }) = self.just_read.take() {
            let skipped = self.skip(id, &bytes[..len]);
            self.keep_rest(id, &bytes[skipped..len]);
            self.pump(id);
        }
        while let Some(batch) = self.found_replies.pop_front() {
            self.take_replies(batch);
        }
        let shared = self.shared.clone();
        let mailbox = &shared.peers[self.id].mailbox;
        for _ in 0..MESSAGES_PER_TURN {
            match mailbox.pop() {
                None => break,
                Some(Message::Requests(batch)) => self.refuse_batch(batch, busy),
                Some(Message::Replies(batch)) => self.take_replies(batch),
                Some(Message::Connection(arrival)) => self.adopt(*arrival),
                Some(job @ Message::Job(_)) => self.put_off.push_back(job),
            }
        }
        if let Err(error) = self.collect_ready(0) {
            tracing::warn!(%error, "sockets cannot be looked at");
        }
        // Also those that were ready when the script began: nobody tells of them again.
        self.handle_ready();
        for _ in 0..self.again.len() {
            let Some(id) = self.again.pop_front() else { break };
            self.pump(id);
        }
        self.send_turn();
        if let Some(connection) = caller.and_then(|id| self.connection(id)) {
            connection.waiting = waiting;
        }
    }

    fn take_requests(&mut self, batch: Box<Batch>) {
        // A setting that was changed before the request was sent counts for it.
        self.read_settings();
        self.shared.peers[batch.from].mailbox.wait_until_posted();
        match self.busy {
            None => self.run_batch(batch),
            Some(busy) => self.refuse_batch(batch, busy),
        }
        self.hand_over_saved();
    }

    /// Does what others asked for before the bytes came that were just read, so that a client that has heard of one
    /// write of a pipeline elsewhere and asks for another one here finds it.
    /// False if one of them was a script that took long, and the connection was answered meanwhile; `bytes`, of which
    /// `len` were read, are used up then.
    #[inline]
    fn catch_up(&mut self, id: ConnectionId, bytes: &mut Vec<u8>, len: usize) -> bool {
        let waiting = self.shared.peers[self.id].mailbox.waiting();
        // Within a script that takes long nothing is run.
        if waiting == 0 || self.busy.is_some() {
            return true;
        }
        self.just_read = Some(JustRead { id, bytes: std::mem::take(bytes), len });
        self.take_waiting(self.put_off.len() + waiting);
        self.just_read.take().is_some_and(|JustRead { bytes: back, .. }| {
            *bytes = back;
            true
        })
    }

    #[cold]
    fn take_waiting(&mut self, count: usize) {
        let shared = self.shared.clone();
        let mailbox = &shared.peers[self.id].mailbox;
        for _ in 0..count {
            match self.put_off.pop_front().or_else(|| mailbox.pop()) {
                None => break,
                Some(Message::Requests(batch)) => self.take_requests(batch),
                Some(Message::Connection(arrival)) => self.adopt(*arrival),
                // They would go on with their connections, in the middle of this one's turn.
                Some(Message::Replies(batch)) => self.found_replies.push_back(batch),
                Some(Message::Job(job)) => job(self),
            }
            while let Some(work) = self.later.pop_front() {
                work(self);
            }
        }
    }

    fn handle(&mut self, event: Ready) {
        if event.token == TOKEN_BELL {
            self.shared.peers[self.id].mailbox.silence();
            return;
        }
        if event.token.0 >= TOKEN_LISTENER {
            self.accept((event.token.0 - TOKEN_LISTENER) as usize);
            return;
        }
        let id = ConnectionId { index: event.token.0 as u32, generation: (event.token.0 >> 32) as u32 };
        self.pace.meet_connection(id.index);
        let Some(connection) = self.connection(id) else { return };
        connection.readable |= event.readable;
        connection.hung_up |= event.ended;
        if event.ended && connection.blocked.is_some() {
            self.close(id);
            return;
        }
        if event.writable && connection.pending_output() > 0 && !connection.flush() {
            self.close(id);
            return;
        }
        self.pump(id);
    }

    /// Takes new connections and hands them to the least busy cores.
    fn accept(&mut self, listener: usize) {
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
    fn adopt(&mut self, arrival: Arrival) {
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
        self.memory.forget(connection.booked);
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
            if connection.bulky.is_some() && !self.grow_bulky(id) {
                self.starve(id);
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
                let connection = self.connection(id).expect("it was there");
                let got = connection.read(&mut scratch);
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
                    if self.begin_bulky(id) {
                        continue;
                    }
                    let room = wanted.saturating_sub(have).min(3 * have).clamp(16 * 1024, 64 * 1024 * 1024);
                    if !self.may_buffer(have, room) {
                        self.starve(id);
                        break;
                    }
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
        if self.open_batches > 0 {
            // A reply must not be earlier than the requests before it in the pipeline that go elsewhere.
            self.unsent.push(id);
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
            && !connection.starved
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
    fn write_long(&mut self, id: ConnectionId) {
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

    /// Whether a peer refuses messages; sockets are not read meanwhile.
    #[inline]
    pub fn congested(&self) -> bool {
        self.outboxes.iter().any(|outbox| outbox.crowded || !outbox.refused.is_empty())
    }

    /// The batch for a peer that is being filled.
    #[inline]
    pub(crate) fn batch_for(&mut self, peer: usize) -> &mut Batch {
        let outbox = &mut self.outboxes[peer];
        if outbox.batch.is_none() {
            let mut batch = self.spare_batches.pop().unwrap_or_default();
            batch.from = self.id;
            outbox.batch = Some(batch);
            self.open_batches += 1;
        }
        outbox.batch.as_mut().expect("just made")
    }

    /// Sends the requests of this turn so far to all cores, as one.
    pub(crate) fn send_requests(&mut self) {
        if self.open_batches == 0 {
            return;
        }
        let shared = self.shared.clone();
        let several = self.open_batches > 1;
        self.open_batches = 0;
        if several {
            shared.peers[self.id].mailbox.begin_posting();
        }
        for peer in 0..self.outboxes.len() {
            if let Some(mut batch) = self.outboxes[peer].batch.take() {
                self.book_batch(&mut batch);
                self.push(peer, Message::Requests(batch));
            }
        }
        if several {
            shared.peers[self.id].mailbox.end_posting();
        }
    }

    /// Sends a message to another core, behind all requests that came before.
    pub fn post(&mut self, peer: usize, message: Message) {
        self.send_requests();
        self.push(peer, message);
    }

    fn push(&mut self, peer: usize, message: Message) {
        let outbox = &mut self.outboxes[peer];
        outbox.ring = true;
        if outbox.refused.is_empty() {
            let mailbox = &self.shared.peers[peer].mailbox;
            if let Err(message) = mailbox.push(message) {
                outbox.refused.push_back(message);
            }
            outbox.crowded = mailbox.is_crowded();
        } else {
            outbox.refused.push_back(message);
        }
    }

    fn send_batches(&mut self) {
        self.send_requests();
        // Behind the requests to all cores: who gets a message and asks for what was written before it finds it.
        self.send_published();
        for peer in 0..self.outboxes.len() {
            let outbox = &mut self.outboxes[peer];
            while let Some(message) = outbox.refused.pop_front() {
                if let Err(message) = self.shared.peers[peer].mailbox.push(message) {
                    outbox.refused.push_front(message);
                    break;
                }
            }
            if outbox.crowded {
                outbox.crowded = self.shared.peers[peer].mailbox.is_crowded();
            }
            if outbox.ring {
                outbox.ring = false;
                self.shared.peers[peer].mailbox.ring();
            }
        }
    }

    /// Sends what this turn has for others, then the replies that come behind it: the peers start before this core spends
    /// time on its sockets, and nobody has a reply before they can.
    fn send_turn(&mut self) {
        self.send_batches();
        for id in std::mem::take(&mut self.unsent) {
            self.finish(id);
        }
    }

    /// Keeps a batch's memory for the next one.
    pub(crate) fn recycle(&mut self, mut batch: Box<Batch>) {
        if self.spare_batches.len() < 2 * self.outboxes.len() {
            batch.reset();
            self.spare_batches.push(batch);
        }
    }

    /// Asks core `to` to do `work` and goes on with `then` when the answer is here. Also for this core itself.
    pub fn ask<R: Send + 'static>(
        &mut self,
        to: usize,
        work: impl FnOnce(&mut Core) -> R + Send + 'static,
        then: impl FnOnce(&mut Core, R) + 'static,
    ) {
        self.ask_later(
            to,
            move |core, replier| {
                let answer = work(core);
                replier.reply(core, answer)
            },
            then,
        );
    }

    /// As [`Core::ask`], for work that answers later.
    pub fn ask_later<R: Send + 'static>(
        &mut self,
        to: usize,
        work: impl FnOnce(&mut Core, Replier<R>) + Send + 'static,
        then: impl FnOnce(&mut Core, R) + 'static,
    ) {
        let number = self.expect(Box::new(move |core, answer| {
            then(core, *answer.downcast::<R>().expect("the answer has the type that was asked for"));
        }));
        let replier = Replier { from: self.id, number, answer: std::marker::PhantomData };
        if to == self.id {
            work(self, replier);
        } else {
            self.post(to, Message::Job(Box::new(move |core| work(core, replier))));
        }
    }

    /// Asks all cores the same and goes on with all answers, in the order of the cores.
    pub fn ask_all<R: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Core) -> R + Clone + Send + 'static,
        then: impl FnOnce(&mut Core, Vec<R>) + 'static,
    ) {
        let answer = |core: &mut Core, replier: Replier<R>| {
            let answer = work(core);
            replier.reply(core, answer);
        };
        let cores = self.shared.peers.len();
        self.ask_each((0..cores).map(|to| (to, answer.clone())), then);
    }

    /// Asks some cores, each its own question, and goes on with all answers, in the order of the questions.
    pub fn ask_each<R: Send + 'static, W: FnOnce(&mut Core, Replier<R>) + Send + 'static>(
        &mut self,
        questions: impl ExactSizeIterator<Item = (usize, W)>,
        then: impl FnOnce(&mut Core, Vec<R>) + 'static,
    ) {
        let count = questions.len();
        if count == 0 {
            return then(self, Vec::new());
        }
        let answers: Vec<Option<R>> = (0..count).map(|_| None).collect();
        let waiting = Rc::new((Cell::new(count), RefCell::new(answers), Cell::new(Some(then))));
        for (at, (to, work)) in questions.enumerate() {
            let waiting = waiting.clone();
            self.ask_later(to, work, move |core, answer| {
                let (missing, answers, then) = &*waiting;
                answers.borrow_mut()[at] = Some(answer);
                missing.set(missing.get() - 1);
                if missing.get() == 0
                    && let Some(then) = then.take()
                {
                    then(core, answers.take().into_iter().flatten().collect());
                }
            });
        }
    }

    /// Goes on with `then` when [`Core::answered`] is called with the number that this returns.
    pub(crate) fn expect(&mut self, then: Then) -> u64 {
        let number = self.next_continuation;
        self.next_continuation += 1;
        self.continuations.insert(number, then);
        number
    }

    /// Goes on with what has waited for this answer.
    pub(crate) fn answered(&mut self, number: u64, answer: Box<dyn Any>) {
        let then = self.continuations.remove(&number).expect("each question is answered once");
        then(self, answer);
    }

    /// Puts work behind what is being done now.
    pub fn defer(&mut self, work: impl FnOnce(&mut Core) + 'static) {
        self.later.push_back(Box::new(work));
    }

    /// Puts work into the next turn, behind what the sockets bring: for long work in short steps.
    pub fn defer_to_next_turn(&mut self, work: impl FnOnce(&mut Core) + 'static) {
        self.next_turn.push_back(Box::new(work));
    }

    /// Releases a lock, if there is a ticket, and goes on with those that waited for it.
    pub fn unlock(&mut self, ticket: impl Into<Option<crate::locks::Ticket>>) {
        let Some(ticket) = ticket.into() else { return };
        if self.blocked.has_ready() {
            self.settle(None, Some(ticket));
        }
        for (ticket, on_grant) in self.locks.release(ticket) {
            self.defer(move |core| on_grant(core, ticket));
        }
    }

    /// Gives back what a ticket has locked but for these keys, and goes on with those that waited for it.
    pub(crate) fn narrow(&mut self, ticket: crate::locks::Ticket, kept: &[u64]) {
        if self.blocked.has_ready() {
            self.settle(None, Some(ticket));
        }
        for (ticket, on_grant) in self.locks.narrow(ticket, kept) {
            self.defer(move |core| on_grant(core, ticket));
        }
    }

    /// Queues for a lock and goes on with `on_grant`, now or later, which must give the ticket back.
    pub fn lock(
        &mut self,
        scope: crate::locks::Scope,
        on_grant: impl FnOnce(&mut Core, crate::locks::Ticket) + 'static,
    ) {
        if let Some((ticket, on_grant)) = self.locks.acquire(scope, Box::new(on_grant)) {
            on_grant(self, ticket);
        }
    }

    /// As [`Core::lock`], for a command that holds no other lock: it also waits for the end of a reservation.
    pub fn lock_plain(
        &mut self,
        scope: crate::locks::Scope,
        on_grant: impl FnOnce(&mut Core, crate::locks::Ticket) + 'static,
    ) {
        if let Some((scope, on_grant)) = self.locks.stand_back(scope, Box::new(on_grant)) {
            self.lock(scope, on_grant);
        }
    }

    /// Ends a key's reservation: those who wait for the key come first, then those who stood back.
    pub fn unreserve(&mut self, number: u64) {
        let stood_back = self.locks.unreserve(number);
        self.settle(None, None);
        for (scope, on_grant) in stood_back {
            self.lock_plain(scope, on_grant);
        }
    }

    /// Whether the next tick will have something to do.
    fn has_work_for_ticks(&self) -> bool {
        let waits = self.pause.is_some() || self.memory.has_starved() || !self.accept_at_tick.is_empty();
        waits || self.expired_some
    }

    /// Periodic duties: settings, expiry, idle clients, counters.
    fn tick(&mut self) {
        for listener in std::mem::take(&mut self.accept_at_tick) {
            self.accept(listener);
        }
        if self.ticks_rest {
            return self.feed_starved();
        }
        // While clients are paused nothing changes, not even by itself; nor while a script or a transaction has it all.
        self.ks.active_expire = self.active_expire && self.pause.is_none() && !self.locks.is_shard_locked();
        // As in Redis, a quarter of the time between ticks may go to expiry, and more with more effort.
        let started = std::time::Instant::now();
        let effort = self.shared.settings.active_expire_effort().clamp(1, 10);
        let budget = self.tick_period * (25 + 2 * (effort - 1)) / 100;
        self.expired_some = false;
        while started.elapsed() < budget {
            let step = self.ks.expire_some(64);
            self.expired_some |= step.keys + step.elements > 0;
            self.after_command();
            if step.round_ended {
                break;
            }
        }
        self.stats.note_event("expire-cycle", started.elapsed().as_nanos() as u64, self.ks.now);
        self.stats.sample(self.ks.now);
        self.ks.keep_epochs();
        self.note_data_bytes();
        self.tick_backlog();
        if self.ks.now >= self.next_idle_check_ms {
            self.next_idle_check_ms = self.ks.now + 1000;
            self.close_idle_peers();
            self.close_slow_peers();
            self.seat.look(self.ks.now);
        }
        self.feed_starved();
    }

    /// Closes clients that have sent nothing for longer than `timeout`.
    fn close_idle_peers(&mut self) {
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

    /// Copies settings that changed into the fields where the hot path reads them.
    pub fn read_settings(&mut self) {
        let settings = &self.shared.settings;
        let generation = settings.generation();
        if generation == self.generation_seen {
            return;
        }
        self.generation_seen = generation;
        self.idle_timeout_ms = u64::from(settings.timeout()) * 1000;
        self.tick_period = Duration::from_millis(u64::from(1000 / settings.hz().clamp(1, 1000)));
        self.memory.rule = rule_of(settings.maxmemory_policy());
        self.peer_limits = PeerLimits::new(settings.client_output_buffer_limit(), settings.send_timeout());
        self.pipeline_max = settings.pipeline_queue_limit() as usize;
        self.env.string_len_max = settings.proto_max_bulk_len() as usize;
        self.env.hll_sparse_max = settings.hll_sparse_max_bytes() as usize;
        self.env.lfu =
            matches!(settings.maxmemory_policy(), MaxmemoryPolicy::AllkeysLfu | MaxmemoryPolicy::VolatileLfu);
        self.env.list_pack = ListLimit::new(settings.list_max_listpack_size());
        self.env.zset_pack.entries_max = settings.zset_max_listpack_entries() as usize;
        self.env.zset_pack.len_max = settings.zset_max_listpack_value() as usize;
        self.env.hash_pack.entries_max = settings.hash_max_listpack_entries() as usize;
        self.env.hash_pack.len_max = settings.hash_max_listpack_value() as usize;
        self.env.set_limits = SetLimits {
            ints_max: settings.set_max_intset_entries() as usize,
            pack: PackLimits {
                entries_max: settings.set_max_listpack_entries() as usize,
                len_max: settings.set_max_listpack_value() as usize,
            },
        };
        self.env.stream_node = NodeLimits {
            bytes: settings.stream_node_max_bytes() as usize,
            entries: settings.stream_node_max_entries() as usize,
        };
        self.limits.max_bulk_len = u32::try_from(settings.proto_max_bulk_len()).unwrap_or(u32::MAX);
        self.limits.max_request_len = u32::try_from(settings.client_query_buffer_limit()).unwrap_or(u32::MAX);
        self.stats.slow_from_us = settings.slowlog_log_slower_than();
        self.stats.slow_len_max = settings.slowlog_max_len() as usize;
        self.stats.event_from_ms = settings.latency_monitor_threshold();
        self.stats.tracking = settings.latency_tracking();
        let limit = settings.client_output_buffer_limit().pubsub;
        self.pubsub.backlog.set_limits(limit, settings.publish_buffer_limit());
        let keys_max = settings.tracking_table_max_keys();
        self.tracking.set_keys_max(keys_max, self.shared.peers.len());
        let notifications = settings.notify_keyspace_events();
        self.set_notifications(notifications);
        // What may be in memory could have changed, too.
        self.settle_account(true);
    }

    /// Frees removed memory for at most a millisecond; true if there is more.
    fn free_for_a_while(&mut self) -> bool {
        let started = std::time::Instant::now();
        while self.ks.free_some() {
            if started.elapsed() > Duration::from_micros(500) {
                return true;
            }
        }
        false
    }

    /// Tells how much memory this core's data and connections take, and keeps the most that all took together.
    fn note_data_bytes(&self) {
        let mine = (self.ks.heap_bytes() + self.ks.doomed_bytes() + self.memory.buffers) as u64;
        // A tick in which nothing changed touches no memory that others write.
        if self.shared.peers[self.id].data_bytes.load(Ordering::Relaxed) != mine {
            self.shared.peers[self.id].data_bytes.store(mine, Ordering::Relaxed);
            let all: u64 = self.shared.peers.iter().map(|peer| peer.data_bytes.load(Ordering::Relaxed)).sum();
            self.shared.used_peak.fetch_max(all + self.shared.memory.startup(), Ordering::Relaxed);
        }
    }

    /// Gives buffers that are kept for reuse back to the allocator; returns how many bytes they took.
    pub fn release_spares(&mut self) -> usize {
        let before = self.connection_bytes();
        self.scratch = Vec::new();
        self.spare_outputs = Vec::new();
        self.spare_batches = Vec::new();
        before - self.connection_bytes()
    }

    /// Leaves the loop after this turn.
    pub fn stop(&mut self) {
        self.stopped = true;
    }

    fn close_all(&mut self) {
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

/// Answers a question of [`Core::ask_later`], on whatever core holds it.
pub struct Replier<R> {
    from: usize,
    number: u64,
    answer: std::marker::PhantomData<fn(R)>,
}

impl<R: Send + 'static> Replier<R> {
    /// Sends the answer.
    pub fn reply(self, core: &mut Core, answer: R) {
        let number = self.number;
        core.send_published();
        if core.id == self.from {
            core.defer(move |core| core.answered(number, Box::new(answer)));
        } else {
            let job: Job = Box::new(move |core| core.answered(number, Box::new(answer)));
            core.post(self.from, Message::Job(job));
        }
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
    if len > 0 {
        connection.received += len as u64;
        connection.active_ms = now;
    }
    len
}
