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
//! A waiter whose target is on another shard (BLMOVE) cannot be served where its source is. Who brings something to
//! such a source has locked the target, too, and has the move done before it is answered (`moves.rs`). Whatever was
//! under way before the waiter came has not; then the waiter is sent for: its core carries the whole command out again
//! under locks of both keys, and meanwhile the source is *reserved*: commands that hold no locks stand back.
//!
//! What a waiter gets may be long (XREAD of a million entries). Then its reply is one in pieces, and what must change
//! before is done in steps (`tasks.rs`), its key locked meanwhile; one that is served from its queue reserves the key
//! until it has that lock.

mod moves;
mod order;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use damselfly_commands::{Args, Blocking, CommandError, Cx, Flags, Found, Long, Rest, Run, Wait};
use damselfly_protocol::{Argv, Proto, ReplyWriter, Requests};
use moves::Path;
pub(crate) use moves::{Brought, brings};
pub use moves::{Moves, Reach};
use order::ReadyKey;
pub use order::{Moment, Waiting};

use crate::connection::ConnectionId;
use crate::coordinate::Held;
use crate::core::{Core, Replier};
use crate::execute::{Call, Flow, Sender};
use crate::locks::{Scope, Ticket, lock_number};
use crate::mailbox::Message;
use crate::tasks::TaskOf;
use crate::tracking::Reader;

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
    /// That of a move, where there are several shards.
    path: Option<Path>,
    /// It waits for keys of several shards.
    spans: bool,
    /// Its client caches what it reads, as XREAD does.
    remembers: bool,
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

    fn client(&self) -> Reader {
        Reader { core: self.core, id: self.connection }
    }

    fn key(&self, at: usize) -> &[u8] {
        self.args().get(at).expect("keys are among the arguments")
    }

    /// True for exactly one caller.
    fn claim(&self) -> bool {
        !self.taken.swap(true, Ordering::AcqRel)
    }

    /// Lets others claim it, unless nobody is there any more: whoever claimed it again and again until it has left its
    /// queues would keep it from leaving them.
    fn open(&self) {
        self.taken.store(false, Ordering::SeqCst);
        if self.abandoned.load(Ordering::SeqCst) {
            self.taken.store(true, Ordering::SeqCst);
        }
    }

    /// Whether it has found nothing and waits for somebody to bring it something.
    pub fn is_open(&self) -> bool {
        !self.taken.load(Ordering::Acquire)
    }

    /// Its target is on another shard than its source.
    fn roams(&self) -> bool {
        self.path.as_ref().is_some_and(Path::roams)
    }

    fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }

    /// The reply when there is nothing for it.
    fn nothing(&self) -> Pieces {
        let mut reply = Vec::new();
        (self.blocking.nothing)(&mut ReplyWriter::new(&mut reply, self.proto));
        vec![(reply, None)]
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

/// Those who wait for one key.
#[derive(Default)]
struct Queue {
    places: VecDeque<Place>,
    /// The key is among those to look at: so that nobody has to search for it there.
    is_ready: bool,
}

/// Those who wait for keys of one shard, and those of one core whose time will be over.
#[derive(Default)]
pub struct Blocked {
    /// Per database.
    queues: Vec<HashMap<Box<[u8]>, Queue>>,
    places: usize,
    /// Keys with waiters that something happened to.
    ready: VecDeque<ReadyKey>,
    /// The moment of what is being told, if that is not now.
    pub moment: Option<Moment>,
    /// Waiters of this core's connections by deadline.
    deadlines: BTreeMap<(u64, u64), Arc<Waiter>>,
    next: u64,
}

impl Blocked {
    /// Whether nobody waits for a key here.
    pub fn is_empty(&self) -> bool {
        self.places == 0
    }

    /// How many keys are waited for, and how many of them by somebody who is answered when the key goes.
    pub fn keys(&self) -> (usize, usize) {
        let queues = || self.queues.iter().flat_map(HashMap::values);
        let needed =
            queues().filter(|queue| queue.places.iter().any(|place| place.waiter.blocking.needs_keys));
        (queues().count(), needed.count())
    }

    /// Notes that something happened to a key.
    pub fn touch(&mut self, db: usize, key: &[u8]) {
        if let Some(queue) = self.queues.get_mut(db).and_then(|queues| queues.get_mut(key))
            && !queue.is_ready
        {
            queue.is_ready = true;
            let since = self.moment.unwrap_or_else(Moment::now);
            self.ready.push_back(ReadyKey { db, key: key.into(), since });
        }
    }

    /// A database came or went as a whole: something happened to all its keys.
    pub fn touch_all(&mut self, db: usize) {
        let since = self.moment.unwrap_or_else(Moment::now);
        for (key, queue) in self.queues.get_mut(db).into_iter().flatten() {
            if !queue.is_ready {
                queue.is_ready = true;
                self.ready.push_back(ReadyKey { db, key: key.clone(), since });
            }
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
        self.queues[db].entry(key.into()).or_default().places.push_back(place);
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
                let before = queue.places.len();
                queue.places.retain(|place| !Arc::ptr_eq(&place.waiter, waiter));
                self.places -= before - queue.places.len();
                if queue.places.is_empty() {
                    queues.remove(key);
                }
            }
        }
    }
}

/// What goes on when nothing of what was served is left to be done.
type OnServed = Box<dyn FnOnce(&mut Core, Served)>;

/// A whole reply on its way: bytes, each perhaps followed by the rest of a long reply.
type Pieces = Vec<(Vec<u8>, Option<Box<Long>>)>;

/// What a key had for a waiter, and what is left of that if it takes long.
struct Answer {
    bytes: Vec<u8>,
    rest: Option<Rest>,
}

/// A key's part of a reply, by the key's place in the arguments.
type Part = (usize, Answer);

/// What is remembered of a key, by the same.
type Mark = (usize, Vec<u8>);

/// What the keys had for a waiter.
enum Served {
    /// The reply.
    Whole(Answer),
    /// To be put together.
    Parts(Vec<Part>),
}

impl Served {
    fn error(bytes: Vec<u8>) -> Served {
        Served::Whole(Answer { bytes, rest: None })
    }

    fn answers(&self) -> Box<dyn Iterator<Item = &Answer> + '_> {
        match self {
            Served::Whole(answer) => Box::new(std::iter::once(answer)),
            Served::Parts(parts) => Box::new(parts.iter().map(|(_, answer)| answer)),
        }
    }

    fn answers_mut(&mut self) -> Box<dyn Iterator<Item = &mut Answer> + '_> {
        match self {
            Served::Whole(answer) => Box::new(std::iter::once(answer)),
            Served::Parts(parts) => Box::new(parts.iter_mut().map(|(_, answer)| answer)),
        }
    }

    /// The reply, of which nothing is left to be done.
    fn into_pieces(self, proto: Proto) -> Pieces {
        let piece = |Answer { bytes, rest }| match rest {
            None => (bytes, None),
            Some(Rest::Reply(long)) => (bytes, Some(long)),
            Some(Rest::Task(_)) => unreachable!("tasks end before their reply is put together"),
        };
        match self {
            Served::Whole(answer) => vec![piece(answer)],
            Served::Parts(mut parts) => {
                parts.sort_unstable_by_key(|(at, _)| *at);
                let mut head = Vec::new();
                let mut out = ReplyWriter::new(&mut head, proto);
                match proto {
                    Proto::Resp2 => out.array(parts.len()),
                    Proto::Resp3 => out.map(parts.len()),
                }
                let parts = parts.into_iter().map(|(_, answer)| piece(answer));
                std::iter::once((head, None)).chain(parts).collect()
            }
        }
    }
}

impl Core {
    /// Carries out a command that may wait.
    pub(crate) fn block(&mut self, id: ConnectionId, argv: &Argv<'_>, found: Found) -> Flow {
        let Run::Block(blocking) = found.command.run else { unreachable!("only commands that wait") };
        self.stats.count_call(found.index);
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
        let Some(connection) = self.connection(id) else { return Flow::Pause };
        let (db, proto) = (usize::from(connection.db), connection.proto);
        let mut alone = owners.first().copied().filter(|first| owners.iter().all(|owner| owner == first));
        let spans = !blocking.first_only && alone.is_none();
        let mut path = None;
        if blocking.first_only && self.shared.peers.len() > 1 {
            let spot = |at: usize| (owners[at], lock_number(db, self.ks.hash(&argv[positions[at]])));
            path = Some(Path::new(spot(0), spot(1)));
            if self.reach_of(found.command, db, argv).roams() {
                alone = None;
            }
        }
        let (mut bytes, mut requests) = (Vec::new(), Requests::new());
        assert!(requests.push_copy(&mut bytes, argv.iter()), "one request fits a buffer");
        let remembers = found.command.flags.has(Flags::READ) && self.asker(id).remembers;
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
            path,
            spans,
            remembers,
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
            return self.block_here(waiter, may_wait);
        }
        self.begin_wait(&waiter);
        self.run_on(shard, move |core| {
            let numbers = core.lock_numbers(waiter.found.command, waiter.db, &waiter.argv());
            core.lock_plain(Scope::Keys(numbers), move |core, ticket| {
                let served = core.try_or_register(&waiter, may_wait);
                core.after_command();
                let Some(served) = served else {
                    core.unlock(ticket);
                    if !may_wait {
                        core.send_reply(&waiter, waiter.nothing());
                    }
                    return;
                };
                core.end_tasks(waiter.clone(), served, move |core, served| {
                    core.unlock(ticket);
                    core.send_reply(&waiter, served.into_pieces(waiter.proto));
                });
            });
        });
        Flow::Pause
    }

    /// As [`Core::block`], when all keys are of this shard and nobody has locked any.
    fn block_here(&mut self, waiter: Arc<Waiter>, may_wait: bool) -> Flow {
        let pieces = match self.try_or_register(&waiter, may_wait) {
            None if may_wait => {
                self.begin_wait(&waiter);
                self.after_command();
                return Flow::Pause;
            }
            Some(served) if served.answers().any(|answer| answer.rest.is_some()) => {
                self.begin_wait(&waiter);
                let ticket = self.lock_targets(&waiter, &served);
                self.after_command();
                self.end_tasks(waiter.clone(), served, move |core, served| {
                    core.unlock(ticket);
                    core.wake(&waiter, served.into_pieces(waiter.proto));
                });
                return Flow::Pause;
            }
            Some(served) => served.into_pieces(waiter.proto),
            None => waiter.nothing(),
        };
        if let Some(connection) = self.connection(waiter.connection) {
            pieces.iter().for_each(|(bytes, _)| connection.output.extend_from_slice(bytes));
        }
        self.after_command();
        Flow::Next
    }

    /// Locks what the tasks among these answers will change, which nobody has locked.
    fn lock_targets(&mut self, waiter: &Waiter, served: &Served) -> Option<Ticket> {
        let numbers: Vec<u64> = served
            .answers()
            .filter_map(|answer| match &answer.rest {
                Some(Rest::Task(task)) => task.target(),
                Some(Rest::Reply(_)) | None => None,
            })
            .map(|key| lock_number(waiter.db, self.ks.hash(key)))
            .collect();
        if numbers.is_empty() {
            return None;
        }
        let granted = self.locks.acquire(Scope::Keys(numbers), Box::new(|_, _| ()));
        let (ticket, _) = granted.expect("a command runs when nobody else has locked its keys");
        Some(ticket)
    }

    /// Does the tasks among these answers, one after the other, and goes on with what is left: bytes and long replies.
    /// The caller has locked their targets.
    fn end_tasks(
        &mut self,
        waiter: Arc<Waiter>,
        mut served: Served,
        then: impl FnOnce(&mut Core, Served) + 'static,
    ) {
        let task = served.answers_mut().enumerate().find_map(|(at, answer)| match answer.rest.take() {
            Some(Rest::Task(task)) => Some((at, task)),
            rest => {
                answer.rest = rest;
                None
            }
        });
        let Some((at, task)) = task else { return then(self, served) };
        let Waiter { found, db, proto, .. } = *waiter;
        let call = Call::of(found.command, db, proto);
        let of = TaskOf { call, index: found.index, client: waiter.client(), at_once: false };
        let then: OnServed = Box::new(then);
        self.begin_task(task, call.name, None, 0, move |core, task, nanos| {
            if let Some(answer) = served.answers_mut().nth(at) {
                answer.rest = core.end_task(task, of, &mut answer.bytes).map(Rest::Reply);
            }
            core.stats.book(of.index, nanos, 0);
            core.end_tasks(waiter, served, then);
        });
    }

    /// Takes what the keys of this shard have for the waiter, or registers with them.
    fn try_or_register(&mut self, waiter: &Arc<Waiter>, may_wait: bool) -> Option<Served> {
        let served = if waiter.blocking.gather {
            match self.gather_keys(waiter) {
                Ok(parts) if parts.is_empty() => None,
                Ok(parts) => Some(Served::Parts(parts)),
                Err(error) => Some(Served::error(error)),
            }
        } else {
            let keys = waiter.keys_on(self.id);
            keys.into_iter().find_map(|at| self.try_key(waiter, at, None)).map(Served::Whole)
        };
        if served.is_none() && may_wait {
            self.register(waiter);
        }
        served
    }

    /// Registers a waiter with its keys on this shard. If these are all, others may claim it from here on; else they may
    /// already.
    fn register(&mut self, waiter: &Arc<Waiter>) {
        let keys = waiter.keys_on(self.id);
        if waiter.is_abandoned() || keys.is_empty() {
            return;
        }
        for at in keys {
            // There was no error a moment ago, when the key was tried.
            let mark = self.mark(waiter, at).unwrap_or_default();
            self.blocked.add(waiter.db, waiter.key(at), Place { waiter: waiter.clone(), at, mark });
        }
        if let Some(path) = &waiter.path {
            self.shared.moves.add(path);
        }
        if !waiter.spans {
            waiter.open();
        }
        self.observe();
    }

    /// Does something as the waiter's client would; its result and what was replied.
    fn with_cx<R>(&mut self, waiter: &Waiter, work: impl FnOnce(&mut Cx<'_>) -> R) -> (R, Answer) {
        let (mut bytes, mut rest) = (Vec::new(), None);
        let out = ReplyWriter::new(&mut bytes, waiter.proto);
        let mut cx = Cx { ks: &mut self.ks, db: waiter.db, out, env: &self.env, later: Some(&mut rest) };
        let result = work(&mut cx);
        (result, Answer { bytes, rest })
    }

    fn mark(&mut self, waiter: &Waiter, at: usize) -> Result<Vec<u8>, CommandError> {
        self.with_cx(waiter, |cx| (waiter.blocking.mark)(cx, waiter.args(), at)).0
    }

    /// Whether a key of this shard has something for the waiter; nothing is taken.
    fn is_ready(&mut self, waiter: &Waiter, at: usize, mark: &[u8]) -> Result<bool, CommandError> {
        self.with_cx(waiter, |cx| (waiter.blocking.ready)(cx, waiter.args(), at, mark)).0
    }

    /// Whether what a key of this shard has for the waiter is so much that it is taken in steps.
    fn is_long(&mut self, waiter: &Waiter, at: usize, mark: &[u8]) -> bool {
        let is_long = self.with_cx(waiter, |cx| (waiter.blocking.in_steps)(cx, waiter.args(), at, mark)).0;
        is_long.unwrap_or(false)
    }

    /// Takes what a key of this shard has for the waiter, None if it has nothing. An error is a reply, too. Without a
    /// mark, the one of this moment.
    fn try_key(&mut self, waiter: &Waiter, at: usize, mark: Option<&[u8]>) -> Option<Answer> {
        let started = Instant::now();
        let answer = self.take_from(waiter, at, mark)?;
        self.book_taken(waiter, started);
        Some(answer)
    }

    /// Books the time that something was taken in. How long was waited for it is of no interest to the slow log.
    fn book_taken(&mut self, waiter: &Waiter, started: Instant) {
        let nanos = started.elapsed().as_nanos() as u64;
        self.stats.book_counted(waiter.found.index, nanos);
        if self.stats.is_notable(nanos) {
            self.note_slow(Sender::of(waiter.client(), self.id), waiter.found.command, nanos, &waiter.argv());
        }
    }

    /// As [`Core::try_key`], without booking it.
    fn take_from(&mut self, waiter: &Waiter, at: usize, mark: Option<&[u8]>) -> Option<Answer> {
        let blocking = waiter.blocking;
        let (done, mut answer) = self.with_cx(waiter, |cx| {
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
            Err(error) => answer = Answer { bytes: self.error_reply(waiter, &error), rest: None },
        }
        Some(answer)
    }

    fn error_reply(&mut self, waiter: &Waiter, error: &CommandError) -> Vec<u8> {
        let text = error.to_string();
        self.stats.count_error(&text);
        self.stats.count_failed(Some(waiter.found.index));
        let mut reply = Vec::new();
        ReplyWriter::new(&mut reply, waiter.proto).error(&text);
        reply
    }

    /// The marks of the waiter's keys on this shard; the first error. From here on a client that caches what it reads
    /// is told of changes, also if it has to wait for the first.
    fn marks(&mut self, waiter: &Waiter) -> Result<Vec<Mark>, (usize, CommandError)> {
        let keys = waiter.keys_on(self.id);
        if waiter.remembers {
            keys.iter().for_each(|at| self.remember_key(waiter.client(), waiter.key(*at)));
        }
        keys.into_iter()
            .map(|at| self.mark(waiter, at).map(|mark| (at, mark)).map_err(|error| (at, error)))
            .collect()
    }

    /// What each of these keys of this shard has for the waiter.
    fn gather_marked(&mut self, waiter: &Waiter, marks: Vec<Mark>) -> Vec<Part> {
        let started = Instant::now();
        let parts: Vec<Part> = marks
            .into_iter()
            .filter_map(|(at, mark)| Some((at, self.take_from(waiter, at, Some(&mark))?)))
            .collect();
        if !parts.is_empty() {
            self.book_taken(waiter, started);
        }
        parts
    }

    /// What each of the waiter's keys on this shard has for it; an error is the reply.
    fn gather_keys(&mut self, waiter: &Waiter) -> Result<Vec<Part>, Vec<u8>> {
        match self.marks(waiter) {
            Ok(marks) => Ok(self.gather_marked(waiter, marks)),
            Err((_, error)) => Err(self.error_reply(waiter, &error)),
        }
    }

    /// Runs `work` on a core, this one or another.
    pub(crate) fn run_on(&mut self, to: usize, work: impl FnOnce(&mut Core) + Send + 'static) {
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
        self.shared.waiting.note(waiter.spans, 1);
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
        self.shared.waiting.note(waiter.spans, -1);
        self.forget_path(waiter);
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

    /// Nobody has to care for a waiter's move any more.
    fn forget_path(&self, waiter: &Waiter) {
        if let Some(path) = &waiter.path {
            self.shared.moves.remove(path);
        }
    }

    /// Ends the waiting of a connection that closes.
    pub(crate) fn abandon(&mut self, waiter: &Arc<Waiter>) {
        waiter.abandoned.store(true, Ordering::SeqCst);
        waiter.claim();
        self.end_wait(waiter);
    }

    /// Sends a claimed waiter its reply.
    fn send_reply(&mut self, waiter: &Arc<Waiter>, reply: Pieces) {
        let (to, waiter) = (waiter.core, waiter.clone());
        self.run_on(to, move |core| core.wake(&waiter, reply));
    }

    /// Answers a claimed waiter of this core.
    fn wake(&mut self, waiter: &Arc<Waiter>, reply: Pieces) {
        if self.is_blocked_by(waiter) {
            if let Some(connection) = self.connection(waiter.connection) {
                connection.blocked = None;
            }
            self.end_wait(waiter);
            self.answer_pieces(waiter.connection, reply);
        } else {
            reply.into_iter().filter_map(|(_, long)| long).for_each(|long| self.discard_long(*long));
        }
    }

    /// Lets those go whose time is over.
    pub(crate) fn end_due_waits(&mut self) {
        // One that is taken gets its reply, or is met again here when it was not.
        let due = self.blocked.deadlines.range(..=(self.ks.now, u64::MAX));
        let free: Vec<Arc<Waiter>> = due.map(|(_, waiter)| waiter).filter(|w| w.claim()).cloned().collect();
        for waiter in free {
            self.wake(&waiter, waiter.nothing());
        }
    }

    /// CLIENT UNBLOCK; whether the connection was waiting.
    pub(crate) fn unblock(&mut self, id: ConnectionId, with_error: bool) -> bool {
        let waiter = self.connection(id).and_then(|connection| connection.blocked.clone());
        let Some(waiter) = waiter.filter(|waiter| waiter.claim()) else { return false };
        let reply = if with_error {
            vec![(self.error_reply(&waiter, &CommandError::text(UNBLOCKED)), None)]
        } else {
            waiter.nothing()
        };
        self.wake(&waiter, reply);
        true
    }

    /// Looks at keys on several shards under the locks of all, and takes what they have or registers with them.
    fn try_spread(&mut self, waiter: Arc<Waiter>, positions: Vec<usize>, may_wait: bool) {
        let mut numbers = BTreeMap::<usize, Vec<u64>>::new();
        for at in positions {
            let hash = self.ks.hash(&waiter.argv()[at]);
            numbers.entry(self.shared.owner(hash)).or_default().push(lock_number(waiter.db, hash));
        }
        let reach = match waiter.path {
            Some(_) => self.reach_of(waiter.found.command, waiter.db, &waiter.argv()),
            None => Reach::Nothing,
        };
        self.lock_all(self.scopes_with(numbers, reach), move |core, held| {
            if waiter.is_abandoned() {
                core.unlock_all(held);
            } else if waiter.roams() {
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
        self.ask_later(
            shard,
            move |core, replier| {
                let answer = core.try_key(&asking, at, None);
                core.after_command();
                match answer {
                    None => replier.reply(core, None),
                    Some(answer) => core.end_tasks(asking, Served::Whole(answer), move |core, served| {
                        replier.reply(core, Some(served));
                    }),
                }
            },
            move |core, served| match served {
                None => core.try_next(waiter, keys, held, may_wait),
                served => core.leave_spread(&waiter, held, served, may_wait),
            },
        );
    }

    /// Puts together what the keys on all shards have. No key is touched before all have been found to be in order.
    fn gather_spread(&mut self, waiter: Arc<Waiter>, held: Held, may_wait: bool) {
        let asking = waiter.clone();
        let shards = waiter.shards();
        self.ask_some(
            shards,
            move |core, _, replier| {
                let marks = core.marks(&asking);
                replier.reply(core, marks);
            },
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
                    return core.leave_spread(&waiter, held, Some(Served::error(reply)), may_wait);
                }
                core.take_spread(waiter, marks, held, may_wait);
            },
        );
    }

    fn take_spread(
        &mut self,
        waiter: Arc<Waiter>,
        marks: Vec<(usize, Vec<Mark>)>,
        held: Held,
        may_wait: bool,
    ) {
        let asking = waiter.clone();
        let shards = marks.iter().map(|(shard, _)| *shard).collect();
        self.ask_some(
            shards,
            move |core, shard, replier| {
                let mine = marks.iter().find(|(of, _)| *of == shard).map(|(_, marks)| marks.clone());
                let parts = core.gather_marked(&asking, mine.unwrap_or_default());
                core.after_command();
                core.end_tasks(asking, Served::Parts(parts), move |core, served| replier.reply(core, served));
            },
            move |core, gathered| {
                let parts_of = |served| match served {
                    Served::Parts(parts) => parts,
                    Served::Whole(_) => unreachable!("parts stay parts"),
                };
                let parts: Vec<Part> =
                    gathered.into_iter().flat_map(|(_, served)| parts_of(served)).collect();
                let served = (!parts.is_empty()).then_some(Served::Parts(parts));
                core.leave_spread(&waiter, held, served, may_wait);
            },
        );
    }

    /// Asks these shards the same and goes on with all answers.
    fn ask_some<R: Send + 'static>(
        &mut self,
        shards: Vec<usize>,
        work: impl FnOnce(&mut Core, usize, Replier<R>) + Clone + Send + 'static,
        then: impl FnOnce(&mut Core, Vec<(usize, R)>) + 'static,
    ) {
        let question = |shard: usize| {
            let work = work.clone();
            (shard, move |core: &mut Core, replier: Replier<R>| work(core, shard, replier))
        };
        let questions: Vec<_> = shards.iter().copied().map(question).collect();
        self.ask_each(questions.into_iter(), |core, answers| {
            then(core, shards.into_iter().zip(answers).collect());
        });
    }

    /// Registers on all shards if there was nothing, and gives the locks back.
    fn leave_spread(&mut self, waiter: &Arc<Waiter>, held: Held, served: Option<Served>, may_wait: bool) {
        if waiter.path.is_some()
            && let Some(served) = served
        {
            let waiter = waiter.clone();
            return self.unlock_all_then(held, move |core| {
                core.wake(&waiter, served.into_pieces(waiter.proto));
            });
        }
        let register = served.is_none() && may_wait;
        if register && waiter.spans {
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
        match served {
            Some(served) => self.wake(waiter, served.into_pieces(waiter.proto)),
            None if may_wait => {}
            None => self.wake(waiter, waiter.nothing()),
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

    /// Carries out a move between shards under the locks of both, which are given back; `done` runs behind it. The
    /// waiter's connection is there, and stays until the end.
    fn carry_out_move(&mut self, waiter: &Arc<Waiter>, held: Held, done: impl FnOnce(&mut Core) + 'static) {
        let id = waiter.connection;
        self.end_wait(waiter);
        let Some(connection) = self.connection(id) else { unreachable!("it waits") };
        connection.blocked = None;
        connection.executing = true;
        connection.then = Some(Box::new(move |core| {
            core.unlock_all_then(held, move |core| {
                done(core);
                core.end_executing(id);
            });
        }));
        self.move_held(id, waiter.found, &waiter.argv());
    }

    /// Carries out the move of a claimed waiter of this core if its client is still there. The caller holds the locks.
    fn carry_out_move_under(&mut self, waiter: &Arc<Waiter>, done: impl FnOnce(&mut Core) + 'static) {
        if self.is_blocked_by(waiter) {
            self.carry_out_move(waiter, Held::new(), done);
        } else {
            done(self);
        }
    }

    /// Serves those who wait for keys that something happened to, as far as nobody holds a lock on the key; `releasing`
    /// is about to be given back. True if anything was done.
    pub(crate) fn serve_ready(&mut self, releasing: Option<Ticket>) -> bool {
        let mut any = false;
        for _ in 0..self.blocked.ready.len() {
            let Some(ready) = self.blocked.ready.pop_front() else { break };
            let number = lock_number(ready.db, self.ks.hash(&ready.key));
            if self.locks.is_locked_for_others(number, releasing) {
                self.blocked.ready.push_back(ready);
            } else {
                let (served, roaming) = self.serve_key(ready.db, &ready.key, releasing);
                any |= served;
                if let Some(waiter) = roaming {
                    self.send_for(waiter, ready.db, &ready.key, |_| ());
                }
            }
        }
        any
    }

    /// Serves those who wait for one key, in the order of arrival, and tells whether there were any. `holding` is a lock
    /// on the key. Whoever also needs one on another ends this; it is claimed, and keeps its place.
    fn serve_key(&mut self, db: usize, key: &[u8], holding: Option<Ticket>) -> (bool, Option<Arc<Waiter>>) {
        let Some(queues) = self.blocked.queues.get_mut(db) else { return (false, None) };
        let Some(Queue { places: mut queue, .. }) = queues.remove(key) else { return (false, None) };
        let mut any = false;
        let mut roaming = None;
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
                    self.deliver_from_queue(place, Served::error(reply));
                }
                Ok(_) if self.needs_a_lock(waiter, holding) => {
                    roaming = Some(waiter.clone());
                    later.push_back(place);
                    break;
                }
                Ok(_) if self.is_long(waiter, place.at, &place.mark) => {
                    self.serve_in_steps(&place, db, key);
                    later.push_back(place);
                    break;
                }
                Ok(_) => {
                    let answer = self.try_key(waiter, place.at, Some(&place.mark)).expect("it was ready");
                    served.push(waiter.clone());
                    let reply = part_of_one(waiter, place.at, answer);
                    self.deliver_from_queue(place, reply);
                }
            }
        }
        later.append(&mut queue);
        // Served in the middle of this, a waiter of this core has left the other queues, not this one.
        if !later.is_empty() {
            let places = &mut self.blocked.queues[db].entry(key.into()).or_default().places;
            later.append(places);
            *places = later;
        }
        (any, roaming)
    }

    /// Whether a waiter's target is on another shard, or locked by others.
    fn needs_a_lock(&self, waiter: &Waiter, holding: Option<Ticket>) -> bool {
        waiter.path.as_ref().is_some_and(|path| {
            path.roams() || !self.locks.is_idle() && self.locks.is_locked_for_others(path.target.1, holding)
        })
    }

    fn deliver_from_queue(&mut self, place: Place, served: Served) {
        self.blocked.places -= 1;
        // Now, and not when its core is told: who brings the next element counts on those who are still there.
        self.forget_path(&place.waiter);
        self.send_reply(&place.waiter, served.into_pieces(place.waiter.proto));
    }

    /// Reserves the key of a claimed waiter for whom it has much, and serves it, under the key's lock, in steps. It keeps
    /// its place meanwhile: those who have the lock before may leave it nothing.
    fn serve_in_steps(&mut self, place: &Place, db: usize, key: &[u8]) {
        let number = lock_number(db, self.ks.hash(key));
        self.locks.reserve(number);
        let (waiter, at, mark, key) = (place.waiter.clone(), place.at, place.mark.clone(), Box::from(key));
        self.defer(move |core| {
            core.lock(Scope::Keys(vec![number]), move |core, ticket| {
                let answer = match core.is_ready(&waiter, at, &mark) {
                    _ if waiter.is_abandoned() => None,
                    Err(CommandError::WrongType) | Ok(false) => None,
                    Err(error) => Some(Answer { bytes: core.error_reply(&waiter, &error), rest: None }),
                    Ok(true) => core.try_key(&waiter, at, Some(&mark)),
                };
                core.after_command();
                let leave = move |core: &mut Core| {
                    core.unlock(ticket);
                    core.blocked.touch(db, &key);
                    core.unreserve(number);
                };
                let Some(answer) = answer else {
                    waiter.open();
                    return leave(core);
                };
                let served = part_of_one(&waiter, at, answer);
                core.end_tasks(waiter.clone(), served, move |core, served| {
                    core.blocked.remove(&waiter, core.id);
                    core.send_reply(&waiter, served.into_pieces(waiter.proto));
                    leave(core);
                });
            });
        });
    }

    /// Reserves the key of a claimed waiter whose target has to be locked first, and sends for its core; `done` runs
    /// there when the move is over.
    fn send_for(
        &mut self,
        waiter: Arc<Waiter>,
        db: usize,
        key: &[u8],
        done: impl FnOnce(&mut Core) + Send + 'static,
    ) {
        let (source, number) = (self.id, lock_number(db, self.ks.hash(key)));
        let key: Box<[u8]> = key.into();
        self.locks.reserve(number);
        let to = waiter.core;
        let try_again = move |core: &mut Core| {
            let free = move |core: &mut Core| {
                done(core);
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

/// What one key had for a waiter, which is all that it gets.
fn part_of_one(waiter: &Waiter, at: usize, answer: Answer) -> Served {
    let is_error = answer.bytes.first() == Some(&b'-');
    if waiter.blocking.gather && !is_error {
        Served::Parts(vec![(at, answer)])
    } else {
        Served::Whole(answer)
    }
}
