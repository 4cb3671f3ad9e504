//! Connections that wait for data: BLPOP and its kin.
//!
//! A waiter is registered, in the order of arrival, with each of its keys on the key's shard. Whatever happens to a
//! key with waiters is looked at after the command, transaction or script that did it, before anything else runs on
//! that shard's key: the first waiter for whom the key has something claims itself (it may be found by several shards
//! at once, and its time may be over), takes its part right there, and the reply is sent to its core. So an element
//! that was pushed for somebody who waits is never seen by anybody else.
//!
//! Finding nothing and registering is one step, on several shards under the locks of all keys: a wake-up cannot be
//! lost in between.
//!
//! A waiter whose target is on another shard (BLMOVE) cannot be served where its source is. It is sent for: its core
//! carries the whole command out again under locks of both keys, and meanwhile the source is *reserved*: commands
//! that hold no locks stand back.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use damselfly_commands::{Args, Blocking, CommandError, Cx, Found, Run, Wait};
use damselfly_protocol::{Argv, Proto, ReplyWriter, Requests};

use crate::connection::ConnectionId;
use crate::coordinate::Held;
use crate::core::Core;
use crate::execute::Flow;
use crate::locks::{Scope, Ticket, lock_number};
use crate::mailbox::Message;

/// What CLIENT UNBLOCK ... ERROR answers.
const UNBLOCKED: &str = "UNBLOCKED client unblocked via CLIENT UNBLOCK";

/// A connection that waits.
pub struct Waiter {
    core: usize,
    connection: ConnectionId,
    db: usize,
    proto: Proto,
    bytes: Vec<u8>,
    requests: Requests,
    found: Found,
    blocking: &'static Blocking,
    /// Place in the arguments behind the name, and shard, of each key that is waited for.
    keys: Vec<(usize, usize)>,
    /// Its target is on another shard than its source.
    roams: bool,
    /// Nobody else may serve it: its command is being tried, or somebody has claimed it: a shard that has something
    /// for it, its deadline, CLIENT UNBLOCK.
    taken: AtomicBool,
    /// Its connection is closed.
    abandoned: AtomicBool,
    /// When its time is over, in Unix milliseconds, and its number among those of its core.
    deadline: Option<(u64, u64)>,
}

impl Waiter {
    fn argv(&self) -> Argv<'_> {
        self.requests.argv(&self.bytes, 0)
    }

    fn args(&self) -> Args<'_> {
        Args::behind_name(&self.argv())
    }

    fn key(&self, at: usize) -> &[u8] {
        self.args().get(at).expect("keys are among the arguments")
    }

    /// True for exactly one caller.
    fn claim(&self) -> bool {
        !self.taken.swap(true, Ordering::AcqRel)
    }

    /// Lets others claim it.
    fn open(&self) {
        self.taken.store(false, Ordering::Release);
    }

    fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }

    /// The reply when there is nothing for it.
    fn nothing(&self) -> Vec<u8> {
        let mut reply = Vec::new();
        (self.blocking.nothing)(&mut ReplyWriter::new(&mut reply, self.proto));
        reply
    }

    /// Its keys on a shard, as places in the arguments.
    fn keys_on(&self, shard: usize) -> Vec<usize> {
        self.keys.iter().filter(|(_, owner)| *owner == shard).map(|(at, _)| *at).collect()
    }

    /// The shards of its keys.
    fn shards(&self) -> Vec<usize> {
        let mut shards: Vec<usize> = self.keys.iter().map(|(_, owner)| *owner).collect();
        shards.sort_unstable();
        shards.dedup();
        shards
    }

    /// Bytes held.
    pub fn heap_bytes(&self) -> usize {
        size_of::<Waiter>() + self.bytes.capacity() + self.requests.allocated()
    }
}

/// A waiter in the queue of one of its keys.
struct Place {
    waiter: Arc<Waiter>,
    at: usize,
    mark: Vec<u8>,
}

/// Those who wait for keys of one shard, and those of one core whose time will be over.
#[derive(Default)]
pub struct Blocked {
    /// Per database.
    queues: Vec<HashMap<Box<[u8]>, VecDeque<Place>>>,
    places: usize,
    /// Keys with waiters that something happened to.
    ready: VecDeque<(usize, Box<[u8]>)>,
    /// Waiters of this core's connections by deadline.
    deadlines: BTreeMap<(u64, u64), Arc<Waiter>>,
    next: u64,
    /// Connections of this core that wait.
    pub waiting: usize,
}

impl Blocked {
    /// Whether nobody waits for a key here.
    pub fn is_empty(&self) -> bool {
        self.places == 0
    }

    /// Notes that something happened to a key.
    pub fn touch(&mut self, db: usize, key: &[u8]) {
        if self.queues.get(db).is_some_and(|queues| queues.contains_key(key))
            && !self.ready.iter().any(|(at, name)| *at == db && **name == *key)
        {
            self.ready.push_back((db, key.into()));
        }
    }

    /// A database came as a whole: something happened to all its keys.
    pub fn touch_all(&mut self, db: usize) {
        let keys: Vec<Box<[u8]>> =
            self.queues.get(db).into_iter().flat_map(|queues| queues.keys().cloned()).collect();
        for key in keys {
            self.touch(db, &key);
        }
    }

    /// Whether there are keys to look at.
    #[inline]
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// When the first of this core's waiters has waited long enough.
    pub fn next_deadline(&self) -> Option<u64> {
        self.deadlines.first_key_value().map(|((at, _), _)| *at)
    }

    fn add(&mut self, db: usize, key: &[u8], place: Place) {
        if self.queues.len() <= db {
            self.queues.resize_with(db + 1, HashMap::new);
        }
        self.queues[db].entry(key.into()).or_default().push_back(place);
        self.places += 1;
    }

    /// Takes a waiter out of the queues of its keys on this shard.
    fn remove(&mut self, waiter: &Arc<Waiter>, shard: usize) {
        for &(at, owner) in &waiter.keys {
            let key = waiter.key(at);
            if owner == shard
                && let Some(queues) = self.queues.get_mut(waiter.db)
                && let Some(queue) = queues.get_mut(key)
            {
                let before = queue.len();
                queue.retain(|place| !Arc::ptr_eq(&place.waiter, waiter));
                self.places -= before - queue.len();
                if queue.is_empty() {
                    queues.remove(key);
                }
            }
        }
    }
}

/// A key's part of a reply, by the key's place in the arguments.
type Part = (usize, Vec<u8>);

impl Core {
    /// Carries out a command that may wait.
    pub(crate) fn block(&mut self, id: ConnectionId, argv: &Argv<'_>, found: Found) -> Flow {
        let Run::Block(blocking) = found.command.run else { unreachable!("only commands that wait") };
        let wait = match (blocking.wait)(Args::behind_name(argv)) {
            Ok(wait) => wait,
            Err(error) => {
                self.stats.count_failed(Some(found.index));
                self.answer_error(id, &error.to_string());
                return Flow::Next;
            }
        };
        let mut positions = Vec::new();
        found.command.key_positions(argv, &mut positions);
        let owners: Vec<usize> =
            positions.iter().map(|&at| self.shared.owner(self.ks.hash(&argv[at]))).collect();
        let waited = if blocking.first_only { 1 } else { positions.len() };
        let keys = positions.iter().map(|&at| at - 1).zip(owners.iter().copied()).take(waited).collect();
        let alone = owners.first().copied().filter(|first| owners.iter().all(|owner| owner == first));
        let Some(connection) = self.connection(id) else { return Flow::Pause };
        let (db, proto) = (usize::from(connection.db), connection.proto);
        let (mut bytes, mut requests) = (Vec::new(), Requests::new());
        assert!(requests.push_copy(&mut bytes, argv.iter()), "one request fits a buffer");
        self.blocked.next += 1;
        let deadline = match wait {
            Wait::Never | Wait::Forever => None,
            Wait::Millis(millis) => Some((self.ks.now.saturating_add(millis), self.blocked.next)),
        };
        let may_wait = wait != Wait::Never;
        let waiter = Arc::new(Waiter {
            core: self.id,
            connection: id,
            db,
            proto,
            bytes,
            requests,
            found,
            blocking,
            keys,
            roams: blocking.first_only && alone.is_none(),
            taken: AtomicBool::new(true),
            abandoned: AtomicBool::new(false),
            deadline,
        });
        let Some(shard) = alone else {
            self.begin_wait(&waiter);
            self.try_spread(waiter, positions, may_wait);
            return Flow::Pause;
        };
        if shard == self.id && self.locks.is_idle() {
            let reply = self.try_or_register(&waiter, may_wait);
            if reply.is_none() && may_wait {
                self.begin_wait(&waiter);
                self.after_command();
                return Flow::Pause;
            }
            let reply = reply.unwrap_or_else(|| waiter.nothing());
            if let Some(connection) = self.connection(id) {
                connection.output.extend_from_slice(&reply);
            }
            self.after_command();
            return Flow::Next;
        }
        self.begin_wait(&waiter);
        self.run_on(shard, move |core| {
            let numbers = core.lock_numbers(waiter.found.command, waiter.db, &waiter.argv());
            core.lock_plain(Scope::Keys(numbers), move |core, ticket| {
                let reply = core.try_or_register(&waiter, may_wait);
                core.after_command();
                core.unlock(ticket);
                match reply {
                    Some(reply) => core.send_reply(&waiter, reply),
                    None if may_wait => {}
                    None => core.send_reply(&waiter, waiter.nothing()),
                }
            });
        });
        Flow::Pause
    }

    /// Takes what the keys of this shard have for the waiter, or registers with them.
    fn try_or_register(&mut self, waiter: &Arc<Waiter>, may_wait: bool) -> Option<Vec<u8>> {
        let reply = if waiter.blocking.gather {
            match self.gather_keys(waiter) {
                Ok(parts) if parts.is_empty() => None,
                Ok(parts) => Some(join(waiter.proto, parts)),
                Err(error) => Some(error),
            }
        } else {
            waiter.keys_on(self.id).into_iter().find_map(|at| self.try_key(waiter, at, None))
        };
        if reply.is_none() && may_wait {
            waiter.open();
            self.register(waiter);
        }
        reply
    }

    /// Registers a waiter with its keys on this shard.
    fn register(&mut self, waiter: &Arc<Waiter>) {
        if waiter.is_abandoned() {
            return;
        }
        for at in waiter.keys_on(self.id) {
            // There was no error a moment ago, when the key was tried.
            let mark = self.mark(waiter, at).unwrap_or_default();
            self.blocked.add(waiter.db, waiter.key(at), Place { waiter: waiter.clone(), at, mark });
        }
        self.observe();
    }

    /// Does something as the waiter's client would; its result and what was replied.
    fn with_cx<R>(&mut self, waiter: &Waiter, work: impl FnOnce(&mut Cx<'_>) -> R) -> (R, Vec<u8>) {
        let mut reply = Vec::new();
        let out = ReplyWriter::new(&mut reply, waiter.proto);
        let mut cx = Cx { ks: &mut self.ks, db: waiter.db, out, env: &self.env, later: None };
        let result = work(&mut cx);
        (result, reply)
    }

    fn mark(&mut self, waiter: &Waiter, at: usize) -> Result<Vec<u8>, CommandError> {
        self.with_cx(waiter, |cx| (waiter.blocking.mark)(cx, waiter.args(), at)).0
    }

    /// Whether a key of this shard has something for the waiter; nothing is taken.
    fn is_ready(&mut self, waiter: &Waiter, at: usize, mark: &[u8]) -> Result<bool, CommandError> {
        self.with_cx(waiter, |cx| (waiter.blocking.ready)(cx, waiter.args(), at, mark)).0
    }

    /// Takes what a key of this shard has for the waiter, None if it has nothing. An error is a reply, too. Without a
    /// mark, the one of this moment.
    fn try_key(&mut self, waiter: &Waiter, at: usize, mark: Option<&[u8]>) -> Option<Vec<u8>> {
        let started = Instant::now();
        let blocking = waiter.blocking;
        let (done, mut reply) = self.with_cx(waiter, |cx| {
            let args = waiter.args();
            let fresh;
            let mark = match mark {
                Some(mark) => mark,
                None => {
                    fresh = (blocking.mark)(cx, args, at)?;
                    &fresh
                }
            };
            if !(blocking.ready)(cx, args, at, mark)? {
                return Ok(false);
            }
            (blocking.take)(cx, args, at, mark).map(|()| true)
        });
        match done {
            Ok(false) => return None,
            Ok(true) => {}
            Err(error) => reply = self.error_reply(waiter, &error),
        }
        self.stats.book(waiter.found.index, started.elapsed().as_nanos() as u64, 1);
        Some(reply)
    }

    fn error_reply(&mut self, waiter: &Waiter, error: &CommandError) -> Vec<u8> {
        let text = error.to_string();
        self.stats.count_error(&text);
        self.stats.count_failed(Some(waiter.found.index));
        let mut reply = Vec::new();
        ReplyWriter::new(&mut reply, waiter.proto).error(&text);
        reply
    }

    /// The marks of the waiter's keys on this shard; the first error.
    fn marks(&mut self, waiter: &Waiter) -> Result<Vec<Part>, (usize, CommandError)> {
        let keys = waiter.keys_on(self.id);
        keys.into_iter()
            .map(|at| self.mark(waiter, at).map(|mark| (at, mark)).map_err(|error| (at, error)))
            .collect()
    }

    /// What each of these keys of this shard has for the waiter.
    fn gather_marked(&mut self, waiter: &Waiter, marks: Vec<Part>) -> Vec<Part> {
        marks
            .into_iter()
            .filter_map(|(at, mark)| Some((at, self.try_key(waiter, at, Some(&mark))?)))
            .collect()
    }

    /// What each of the waiter's keys on this shard has for it; an error is the reply.
    fn gather_keys(&mut self, waiter: &Waiter) -> Result<Vec<Part>, Vec<u8>> {
        match self.marks(waiter) {
            Ok(marks) => Ok(self.gather_marked(waiter, marks)),
            Err((_, error)) => Err(self.error_reply(waiter, &error)),
        }
    }

    /// Runs `work` on a core, this one or another.
    fn run_on(&mut self, to: usize, work: impl FnOnce(&mut Core) + Send + 'static) {
        if to == self.id {
            work(self);
        } else {
            self.post(to, Message::Job(Box::new(work)));
        }
    }

    /// The connection waits from now on.
    fn begin_wait(&mut self, waiter: &Arc<Waiter>) {
        let Some(connection) = self.connection(waiter.connection) else { return };
        connection.waiting = true;
        connection.blocked = Some(waiter.clone());
        let gone = connection.hung_up || connection.ended;
        self.blocked.waiting += 1;
        if let Some(deadline) = waiter.deadline {
            self.blocked.deadlines.insert(deadline, waiter.clone());
        }
        if gone {
            // A peer that has hung up waits for nothing, but may have its answer if that is there at once.
            let waiter = waiter.clone();
            self.defer_to_next_turn(move |core| core.hang_up(&waiter));
        }
    }

    fn hang_up(&mut self, waiter: &Arc<Waiter>) {
        if self.is_blocked_by(waiter) && waiter.claim() {
            self.close(waiter.connection);
        }
    }

    fn is_blocked_by(&mut self, waiter: &Arc<Waiter>) -> bool {
        self.connection(waiter.connection)
            .and_then(|connection| connection.blocked.as_ref())
            .is_some_and(|other| Arc::ptr_eq(other, waiter))
    }

    /// The waiting is over, however it ended: takes the waiter out of all queues.
    fn end_wait(&mut self, waiter: &Arc<Waiter>) {
        self.blocked.waiting -= 1;
        if let Some(deadline) = waiter.deadline {
            self.blocked.deadlines.remove(&deadline);
        }
        for shard in waiter.shards() {
            let waiter = waiter.clone();
            self.run_on(shard, move |core| {
                core.blocked.remove(&waiter, core.id);
                core.observe();
            });
        }
    }

    /// Ends the waiting of a connection that closes.
    pub(crate) fn abandon(&mut self, waiter: &Arc<Waiter>) {
        waiter.abandoned.store(true, Ordering::Release);
        waiter.claim();
        self.end_wait(waiter);
    }

    /// Sends a claimed waiter its reply.
    fn send_reply(&mut self, waiter: &Arc<Waiter>, reply: Vec<u8>) {
        let (to, waiter) = (waiter.core, waiter.clone());
        self.run_on(to, move |core| core.wake(&waiter, &reply));
    }

    /// Answers a claimed waiter of this core.
    fn wake(&mut self, waiter: &Arc<Waiter>, reply: &[u8]) {
        if self.is_blocked_by(waiter) {
            if let Some(connection) = self.connection(waiter.connection) {
                connection.blocked = None;
            }
            self.end_wait(waiter);
            self.answer(waiter.connection, reply);
        }
    }

    /// Lets those go whose time is over.
    pub(crate) fn end_due_waits(&mut self) {
        // One that is taken gets its reply, or is met again here when it was not.
        let due = self.blocked.deadlines.range(..=(self.ks.now, u64::MAX));
        let free: Vec<Arc<Waiter>> = due.map(|(_, waiter)| waiter).filter(|w| w.claim()).cloned().collect();
        for waiter in free {
            self.wake(&waiter, &waiter.nothing());
        }
    }

    /// CLIENT UNBLOCK; whether the connection was waiting.
    pub(crate) fn unblock(&mut self, id: ConnectionId, with_error: bool) -> bool {
        let waiter = self.connection(id).and_then(|connection| connection.blocked.clone());
        let Some(waiter) = waiter.filter(|waiter| waiter.claim()) else { return false };
        let reply = if with_error {
            self.error_reply(&waiter, &CommandError::text(UNBLOCKED))
        } else {
            waiter.nothing()
        };
        self.wake(&waiter, &reply);
        true
    }

    /// Looks at keys on several shards under the locks of all, and takes what they have or registers with them.
    fn try_spread(&mut self, waiter: Arc<Waiter>, positions: Vec<usize>, may_wait: bool) {
        let mut numbers = BTreeMap::<usize, Vec<u64>>::new();
        for at in positions {
            let hash = self.ks.hash(&waiter.argv()[at]);
            numbers.entry(self.shared.owner(hash)).or_default().push(lock_number(waiter.db, hash));
        }
        let scopes = numbers.into_iter().map(|(core, numbers)| (core, Scope::Keys(numbers))).collect();
        self.lock_all(scopes, move |core, held| {
            if waiter.is_abandoned() {
                core.unlock_all(held);
            } else if waiter.roams {
                core.try_move(waiter, held, may_wait);
            } else if waiter.blocking.gather {
                core.gather_spread(waiter, held, may_wait);
            } else {
                let keys = waiter.keys.iter().copied().collect();
                core.try_next(waiter, keys, held, may_wait);
            }
        });
    }

    /// Tries the next key where it is.
    fn try_next(
        &mut self,
        waiter: Arc<Waiter>,
        mut keys: VecDeque<(usize, usize)>,
        held: Held,
        may_wait: bool,
    ) {
        let Some((at, shard)) = keys.pop_front() else {
            return self.leave_spread(&waiter, held, None, may_wait);
        };
        let asking = waiter.clone();
        self.ask(
            shard,
            move |core| {
                let reply = core.try_key(&asking, at, None);
                core.after_command();
                reply
            },
            move |core, reply| match reply {
                None => core.try_next(waiter, keys, held, may_wait),
                reply => core.leave_spread(&waiter, held, reply, may_wait),
            },
        );
    }

    /// Puts together what the keys on all shards have. No key is touched before all have been found to be in order.
    fn gather_spread(&mut self, waiter: Arc<Waiter>, held: Held, may_wait: bool) {
        let asking = waiter.clone();
        let shards = waiter.shards();
        self.ask_some(
            shards,
            move |core, _| core.marks(&asking),
            move |core, marked| {
                let mut marks = Vec::new();
                let mut first_error: Option<(usize, CommandError)> = None;
                for (shard, result) in marked {
                    match result {
                        Ok(of_shard) => marks.push((shard, of_shard)),
                        Err(error) if first_error.as_ref().is_none_or(|first| error.0 < first.0) => {
                            first_error = Some(error);
                        }
                        Err(_) => {}
                    }
                }
                if let Some((_, error)) = first_error {
                    let reply = core.error_reply(&waiter, &error);
                    return core.leave_spread(&waiter, held, Some(reply), may_wait);
                }
                core.take_spread(waiter, marks, held, may_wait);
            },
        );
    }

    fn take_spread(
        &mut self,
        waiter: Arc<Waiter>,
        marks: Vec<(usize, Vec<Part>)>,
        held: Held,
        may_wait: bool,
    ) {
        let asking = waiter.clone();
        let shards = marks.iter().map(|(shard, _)| *shard).collect();
        self.ask_some(
            shards,
            move |core, shard| {
                let mine = marks.iter().find(|(of, _)| *of == shard).map(|(_, marks)| marks.clone());
                let parts = core.gather_marked(&asking, mine.unwrap_or_default());
                core.after_command();
                parts
            },
            move |core, gathered| {
                let parts: Vec<Part> = gathered.into_iter().flat_map(|(_, parts)| parts).collect();
                let reply = (!parts.is_empty()).then(|| join(waiter.proto, parts));
                core.leave_spread(&waiter, held, reply, may_wait);
            },
        );
    }

    /// Asks these shards the same and goes on with all answers.
    fn ask_some<R: Send + 'static>(
        &mut self,
        shards: Vec<usize>,
        work: impl FnOnce(&mut Core, usize) -> R + Clone + Send + 'static,
        then: impl FnOnce(&mut Core, Vec<(usize, R)>) + 'static,
    ) {
        let missing = Rc::new(Cell::new(shards.len()));
        let answers = Rc::new(RefCell::new(Vec::new()));
        let then = Rc::new(Cell::new(Some(then)));
        for shard in shards {
            let (missing, answers, then) = (missing.clone(), answers.clone(), then.clone());
            let work = work.clone();
            self.ask(
                shard,
                move |core| work(core, shard),
                move |core, answer| {
                    answers.borrow_mut().push((shard, answer));
                    missing.set(missing.get() - 1);
                    if missing.get() == 0
                        && let Some(then) = then.take()
                    {
                        then(core, answers.take());
                    }
                },
            );
        }
    }

    /// Registers on all shards if there was nothing, and gives the locks back.
    fn leave_spread(&mut self, waiter: &Arc<Waiter>, held: Held, reply: Option<Vec<u8>>, may_wait: bool) {
        let register = reply.is_none() && may_wait;
        if register {
            waiter.open();
        }
        for (to, ticket) in held {
            let waiter = waiter.clone();
            self.run_on(to, move |core| {
                if register {
                    core.register(&waiter);
                }
                core.unlock(ticket);
            });
        }
        match reply {
            Some(reply) => self.wake(waiter, &reply),
            None if may_wait => {}
            None => self.wake(waiter, &waiter.nothing()),
        }
    }

    /// Carries out a move between shards if its source has something, else registers there.
    fn try_move(&mut self, waiter: Arc<Waiter>, held: Held, may_wait: bool) {
        let (at, shard) = waiter.keys[0];
        let asking = waiter.clone();
        self.ask(
            shard,
            // An error is said by the command itself.
            move |core| core.is_ready(&asking, at, &[]).unwrap_or(true),
            move |core, ready| {
                if !ready {
                    core.leave_spread(&waiter, held, None, may_wait);
                } else if core.is_blocked_by(&waiter) {
                    core.carry_out_move(&waiter, held, |_| {});
                } else {
                    core.unlock_all(held);
                }
            },
        );
    }

    /// Carries out a move between shards under the locks of both; `done` runs behind it.
    fn carry_out_move(&mut self, waiter: &Arc<Waiter>, held: Held, done: impl FnOnce(&mut Core) + 'static) {
        let id = waiter.connection;
        self.end_wait(waiter);
        if let Some(connection) = self.connection(id) {
            connection.blocked = None;
            connection.then = Some(Box::new(move |core| {
                done(core);
                core.resume(id);
            }));
        }
        self.move_held(id, waiter.found, &waiter.argv(), held);
    }

    /// Serves those who wait for keys that something happened to, as far as nobody holds a lock on the key; `releasing`
    /// is about to be given back. True if anything was done.
    pub(crate) fn serve_ready(&mut self, releasing: Option<Ticket>) -> bool {
        let mut any = false;
        for _ in 0..self.blocked.ready.len() {
            let Some((db, key)) = self.blocked.ready.pop_front() else { break };
            let number = lock_number(db, self.ks.hash(&key));
            if self.locks.is_locked_for_others(number, releasing) {
                self.blocked.ready.push_back((db, key));
            } else {
                any |= self.serve_key(db, &key);
            }
        }
        any
    }

    /// Serves those who wait for one key, in the order of arrival.
    fn serve_key(&mut self, db: usize, key: &[u8]) -> bool {
        let Some(queues) = self.blocked.queues.get_mut(db) else { return false };
        let Some(mut queue) = queues.remove(key) else { return false };
        let mut any = false;
        let mut later = VecDeque::new();
        let mut served: Vec<Arc<Waiter>> = Vec::new();
        // Kinds of waiters for whom there is nothing left, by the address of what they have in common.
        let mut exhausted: Vec<*const Blocking> = Vec::new();
        while let Some(place) = queue.pop_front() {
            let waiter = &place.waiter;
            let blocking: *const Blocking = waiter.blocking;
            if exhausted.contains(&blocking) {
                later.push_back(place);
                continue;
            }
            let ready = match self.is_ready(waiter, place.at, &place.mark) {
                Err(CommandError::WrongType) | Ok(false) => {
                    if waiter.blocking.exclusive {
                        exhausted.push(blocking);
                    }
                    later.push_back(place);
                    continue;
                }
                other => other,
            };
            if !waiter.claim() {
                if served.iter().any(|other| Arc::ptr_eq(other, waiter)) {
                    // It named the key twice.
                    self.blocked.places -= 1;
                } else {
                    // Claimed elsewhere; its places are being removed.
                    later.push_back(place);
                }
                continue;
            }
            any = true;
            match ready {
                Err(error) => {
                    let reply = self.error_reply(waiter, &error);
                    served.push(waiter.clone());
                    self.deliver_from_queue(place, reply);
                }
                Ok(_) if waiter.roams => {
                    self.send_for(waiter.clone(), db, key);
                    later.push_back(place);
                    break;
                }
                Ok(_) => match self.try_key(waiter, place.at, Some(&place.mark)) {
                    Some(mut reply) => {
                        if waiter.blocking.gather && reply.first() != Some(&b'-') {
                            reply = join(waiter.proto, vec![(place.at, reply)]);
                        }
                        served.push(waiter.clone());
                        self.deliver_from_queue(place, reply);
                    }
                    None => unreachable!("it was ready"),
                },
            }
        }
        later.append(&mut queue);
        // Served in the middle of this, a waiter of this core has left the other queues, not this one.
        if !later.is_empty() {
            let queue = self.blocked.queues[db].entry(key.into()).or_default();
            later.append(queue);
            *queue = later;
        }
        any
    }

    fn deliver_from_queue(&mut self, place: Place, reply: Vec<u8>) {
        self.blocked.places -= 1;
        self.send_reply(&place.waiter, reply);
    }

    /// Reserves the key of a claimed waiter whose target is on another shard, and sends for its core.
    fn send_for(&mut self, waiter: Arc<Waiter>, db: usize, key: &[u8]) {
        let (source, number) = (self.id, lock_number(db, self.ks.hash(key)));
        let key: Box<[u8]> = key.into();
        self.locks.reserve(number);
        let to = waiter.core;
        let try_again = move |core: &mut Core| {
            let free = move |core: &mut Core| {
                core.run_on(source, move |core| {
                    core.blocked.touch(db, &key);
                    core.unreserve(number);
                });
            };
            let mut numbers = BTreeMap::<usize, Vec<u64>>::new();
            let argv = waiter.argv();
            for at in 1..=2 {
                let hash = core.ks.hash(&argv[at]);
                numbers.entry(core.shared.owner(hash)).or_default().push(lock_number(waiter.db, hash));
            }
            let scopes = numbers.into_iter().map(|(core, numbers)| (core, Scope::Keys(numbers))).collect();
            let waiter = waiter.clone();
            core.lock_all(scopes, move |core, held| {
                // It is in its queue already, and there it keeps its place.
                core.try_move_again(waiter, held, free);
            });
        };
        self.run_on(to, move |core| core.defer(try_again));
    }

    /// As [`Core::try_move`], for one that stays in its queue if there is nothing for it.
    fn try_move_again(&mut self, waiter: Arc<Waiter>, held: Held, done: impl FnOnce(&mut Core) + 'static) {
        let (at, shard) = waiter.keys[0];
        let asking = waiter.clone();
        self.ask(
            shard,
            move |core| core.is_ready(&asking, at, &[]).unwrap_or(true),
            move |core, ready| {
                if ready && core.is_blocked_by(&waiter) {
                    core.carry_out_move(&waiter, held, done);
                } else {
                    waiter.open();
                    core.unlock_all(held);
                    done(core);
                }
            },
        );
    }
}

/// Puts the parts of a gathered reply together, in the order of the keys.
fn join(proto: Proto, mut parts: Vec<Part>) -> Vec<u8> {
    parts.sort_unstable_by_key(|(at, _)| *at);
    let mut reply = Vec::new();
    let mut out = ReplyWriter::new(&mut reply, proto);
    match proto {
        Proto::Resp2 => out.array(parts.len()),
        Proto::Resp3 => out.map(parts.len()),
    }
    for (_, part) in parts {
        out.raw(&part);
    }
    reply
}
