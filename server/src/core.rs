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
//! Parts: `core/connections.rs` (from accept to close) and `core/messages.rs` (what cores send each other).
//! Read next: `execute.rs` (from bytes to replies), `coordinate.rs` (operations over several shards).

mod connections;
mod messages;

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll as TaskPoll;
use std::time::{Duration, Instant};

use damselfly_commands::{Env, ListLimit};
use damselfly_config::{Events, MaxmemoryPolicy};
use damselfly_keyspace::stream::NodeLimits;
use damselfly_keyspace::values::PackLimits;
use damselfly_keyspace::values::set::SetLimits;
use damselfly_keyspace::{Keyspace, Options};
use damselfly_protocol::{Limits, Requests};

pub use self::messages::Replier;

use self::connections::Place;
use self::messages::Outbox;
use crate::affinity::Seat;
use crate::batch::Batch;
use crate::blocking::Blocked;
use crate::connection::ConnectionId;
use crate::execute::{Prepared, set_shard};
use crate::input_room::InputRoom;
use crate::listen::Listening;
use crate::locks::Locks;
use crate::mailbox::Message;
use crate::memory::{Account, rule_of};
use crate::modes::Modes;
use crate::pace::{Idle, Pace};
use crate::pause::Pause;
use crate::poll::{Poll, Ready, Token};
use crate::pubsub::PubSub;
use crate::scripts::{self, LockWaiter, Parked};
use crate::shared::Shared;
use crate::slow_peers::PeerLimits;
use crate::snapshots::ShardSave;
use crate::stats::CoreStats;
use crate::tasks::Tasks;
use crate::tracking::Tracking;
use crate::transaction::{Transaction, Watches};

/// Unsent output above which a connection's requests are not run: a client that does not read is held back, not
/// buffered for.
pub(crate) const OUTPUT_RUN_MAX: usize = 1024 * 1024;
/// Messages handled per turn.
const MESSAGES_PER_TURN: usize = 256;
/// Replies to so many connections are sent together, and none waits for longer than this for others. A client that sleeps is
/// woken by what is sent to it first, and finds the rest when it looks: with scripts, which leave it the time to fall
/// asleep again, waking it for each of its connections was a sixth of all.
const GATHERED_MAX: usize = 16;
const GATHERED_FOR: Duration = Duration::from_micros(500);
/// Longest wait for the next event outside of tokio.
const LINGER_MAX_MS: u64 = 100;

const TOKEN_BELL: Token = Token(u64::MAX);
const TOKEN_LISTENER: u64 = u64::MAX - 1024;

/// Work that goes on when an answer is there.
pub type Then = Box<dyn FnOnce(&mut Core, Box<dyn Any>)>;

/// Work that this core does later.
pub type Work = Box<dyn FnOnce(&mut Core)>;

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
    /// More connections are ready, and what is replied until then is sent together.
    gathers: bool,
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
    /// And what of it is for unfinished requests.
    pub(crate) input_room: InputRoom,
}

impl Core {
    /// A core with an empty shard. Called on the core's own thread.
    pub fn new(id: usize, shared: Arc<Shared>, listeners: Vec<Listening>) -> io::Result<Core> {
        set_shard(id);
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
            gathers: false,
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
            input_room: InputRoom::default(),
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
            if early && (more || self.rest_before_delivery()? || self.linger(visit_ms)?) {
                continue;
            }
            self.deliver_published();
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
        self.deliver_published();
        self.close_all();
        Ok(())
    }

    /// Waits for the next event until what was published here is to be delivered; false if nothing is.
    fn rest_before_delivery(&mut self) -> io::Result<bool> {
        let Some(rest) = self.time_to_delivery() else { return Ok(false) };
        self.look_for(rest)?;
        Ok(true)
    }

    /// Waits for the next event for so long, and takes note of what sockets are ready; false if messages have come already.
    fn look_for(&mut self, wait: Duration) -> io::Result<bool> {
        let shared = self.shared.clone();
        let mailbox = &shared.peers[self.id].mailbox;
        if !mailbox.fall_asleep() {
            return Ok(false);
        }
        let looked = self.collect_ready(wait);
        mailbox.wake_up();
        self.looked = !looked?;
        Ok(true)
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
        Ok(!self.look_for(Duration::from_millis(wait_ms))? || !self.ready.is_empty())
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
            more |= self.collect_ready(Duration::ZERO)?;
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
        self.deliver_when_due();
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
        let mut since = None;
        while let Some(event) = self.ready.pop_front() {
            self.gathers = !self.ready.is_empty();
            self.handle(event);
            if self.gathers && !self.unsent.is_empty() {
                let since: &mut Instant = since.get_or_insert_with(Instant::now);
                if self.unsent.len() >= GATHERED_MAX || since.elapsed() >= GATHERED_FOR {
                    self.gathers = false;
                    self.send_turn();
                    *since = Instant::now();
                }
            }
        }
        self.gathers = false;
        if !self.unsent.is_empty() {
            self.send_turn();
        }
        for listener in std::mem::take(&mut self.accept_again) {
            self.accept(listener);
        }
    }

    /// Takes note of what sockets are ready, waiting for the first of them; true if there may be more.
    fn collect_ready(&mut self, wait: Duration) -> io::Result<bool> {
        let mut batch = std::mem::take(&mut self.ready_batch);
        let more = self.poll.collect(&mut batch, wait);
        self.pace.meet(batch.len());
        self.ready.extend(batch.drain(..));
        self.ready_batch = batch;
        more
    }

    /// A turn within a script that takes long: clients are told so, and whoever wants it to end is heard. Nothing
    /// touches the keyspace; what others want done here waits until the script is over, except that requests are
    /// refused. `caller` is the connection that the script runs for.
    pub(crate) fn turn_while_busy(&mut self, caller: Option<ConnectionId>) {
        self.busy = self.shared.scripts.running.busy();
        let Some(busy) = self.busy else { return };
        self.answer_batch_under_way(busy);
        self.deliver_published();
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
        if let Err(error) = self.collect_ready(Duration::ZERO) {
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
        if event.readable && connection.modes.has(Modes::SUBSCRIBED) {
            // What it is told next must not be earlier.
            self.deliver_published();
        }
        self.pump(id);
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
        let waits = self.pause.is_some() || self.has_starved() || !self.accept_at_tick.is_empty();
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
        let started = Instant::now();
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
        let started = Instant::now();
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
}
