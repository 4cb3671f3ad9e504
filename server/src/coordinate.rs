//! Operations over several shards, each as if it happened at one instant.
//!
//! The connection's core coordinates: it takes the keys' locks on every shard concerned, one shard after the other in
//! the order of their numbers (so two coordinators never wait for each other), then runs the parts in parallel, and
//! each part gives its lock back as it ends. Between the first lock and the last part nobody else sees or changes
//! these keys, so the operation is atomic; commands on other keys are not disturbed.
//!
//! Operations that need little of the keys bring only that: `coordinate/relay.rs` (one element from key to key),
//! `coordinate/sort.rs` (SORT that looks at keys which elements name) and `coordinate/gather.rs` (very many keys).

mod gather;
mod relay;
mod sort;

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::Instant;

use damselfly_commands::sort::Sort;
use damselfly_commands::{Command, CommandError, Cx, Flags, Found, Long, Merge, Rest, Spread, gathers};
use damselfly_keyspace::{Event, Keyspace, Options, Portable};
use damselfly_protocol::{Argv, Proto, ReplyWriter, Requests};

use crate::blocking::Reach;
use crate::connection::ConnectionId;
use crate::core::{Core, Replier};
use crate::execute::{Call, Sender, databases_of, run_handler, run_handler_for, set_running, sort_of};
use crate::locks::{Scope, Ticket, lock_number};
use crate::mailbox::Message;
use crate::scripts::STAND_IN;
use crate::tasks::TaskOf;
use crate::tracking::Asker;

/// Locks held on several cores. No ticket: the lock is that of the transaction or script around the operation, which
/// gives it back itself.
pub type Held = Vec<(usize, Option<Ticket>)>;

/// What goes on once they are held.
type OnHeld = Box<dyn FnOnce(&mut Core, Held)>;

/// A request that is carried out in several steps.
struct Request {
    id: ConnectionId,
    found: Found,
    db: u16,
    proto: Proto,
    owned: Owned,
    /// It has waited, and was counted when it began.
    counted: bool,
}

/// A request that outlives the bytes it came in.
#[derive(Clone)]
pub struct Owned {
    bytes: Vec<u8>,
    requests: Rc<Requests>,
}

impl Owned {
    fn new<'a>(args: impl Iterator<Item = &'a [u8]> + Clone) -> Owned {
        let (mut bytes, mut requests) = (Vec::new(), Requests::new());
        assert!(requests.push_copy(&mut bytes, args), "one request fits a buffer");
        Owned { bytes, requests: Rc::new(requests) }
    }

    fn argv(&self) -> Argv<'_> {
        self.requests.argv(&self.bytes, 0)
    }

    fn to_args(&self) -> Args {
        self.argv().iter().map(<[u8]>::to_vec).collect()
    }
}

/// The arguments of a request, name included, in a form that can travel.
type Args = Vec<Vec<u8>>;

impl Request {
    /// Where and for whom its handler runs.
    fn call(&self) -> Call {
        Call::of(self.found.command, usize::from(self.db), self.proto)
    }

    /// Counts the command once, with the time that all its parts took.
    fn book(&self, core: &mut Core, failed: Option<&str>, nanos: u64) {
        let Found { command, index } = self.found;
        if !self.counted {
            core.stats.count_call(index);
        }
        core.stats.book_counted(index, nanos);
        if let Some(error) = failed {
            core.stats.count_error(error);
            core.stats.count_failed(Some(index));
        }
        if core.stats.is_notable(nanos) {
            core.note_slow(Sender::Here(self.id), command, nanos, &self.owned.argv());
        }
    }

    /// Answers with an error, or with a finished reply, and books the command.
    fn finish(self, core: &mut Core, failed: Option<CommandError>, reply: &[u8], nanos: u64) {
        let text = failed.map(|error| error.to_string());
        self.book(core, text.as_deref(), nanos);
        match text {
            Some(text) => core.answer_with(self.id, |out| out.error(text)),
            None => core.answer(self.id, reply),
        }
    }
}

impl Core {
    /// Does one step of a command over this shard; what came out, what it wrote, and the nanoseconds it took.
    fn step<R>(
        &mut self,
        call: Call,
        args: &Args,
        work: impl FnOnce(&mut Cx<'_>, damselfly_commands::Args<'_>) -> Result<R, CommandError>,
    ) -> (Result<R, CommandError>, Vec<u8>, u64) {
        let started = Instant::now();
        let mut reply = Vec::new();
        set_running(call.name);
        let owned = Owned::new(args.iter().map(Vec::as_slice));
        let mut cx = Cx {
            ks: &mut self.ks,
            db: call.db,
            out: ReplyWriter::new(&mut reply, call.proto),
            env: &self.env,
            later: None,
        };
        let result = work(&mut cx, damselfly_commands::Args::behind_name(&owned.argv()));
        self.after_command();
        (result, reply, started.elapsed().as_nanos() as u64)
    }

    /// Takes locks on several cores in order, then goes on.
    pub fn lock_all(&mut self, scopes: BTreeMap<usize, Scope>, then: impl FnOnce(&mut Core, Held) + 'static) {
        lock_next(self, scopes.into_iter().collect(), Vec::new(), Box::new(then));
    }

    /// As [`Core::lock_all`], for a command of this connection: if it is part of a transaction, that holds the locks.
    pub fn lock_for(
        &mut self,
        id: ConnectionId,
        scopes: BTreeMap<usize, Scope>,
        then: impl FnOnce(&mut Core, Held) + 'static,
    ) {
        if self.connection(id).is_some_and(|connection| connection.executing) {
            then(self, scopes.into_keys().map(|core| (core, None)).collect());
        } else {
            let claim = self.waits_for_locks(id);
            self.lock_all(scopes, move |core, held| {
                if core.has_its_locks(id, &claim) {
                    then(core, held);
                } else {
                    core.unlock_all(held);
                }
            });
        }
    }

    /// Carries out a command whose keys are on several shards.
    pub(crate) fn coordinate(&mut self, id: ConnectionId, found: Found, argv: &Argv<'_>) {
        let command = found.command;
        let Some(connection) = self.connection(id) else { return };
        connection.waiting = true;
        let (db, proto) = (connection.db, connection.proto);
        let mut asker = self.asker(id);
        asker.remembers &= command.flags.has(Flags::READ);
        let mut positions = Vec::new();
        command.key_positions(argv, &mut positions);
        let mut parts = BTreeMap::<usize, Vec<usize>>::new();
        for &at in &positions {
            parts.entry(self.shared.owner(self.ks.hash(&argv[at]))).or_default().push(at);
        }
        let request = Request { id, found, db, proto, owned: Owned::new(argv.iter()), counted: false };
        match command.spread {
            Spread::Sort => {
                if let Some(sort) = sort_of(command, argv).filter(Sort::looks_further) {
                    return self.sort(request, sort.for_script(id == STAND_IN));
                }
            }
            Spread::Relay(relay) => return self.relay(relay, request, &parts),
            Spread::Gathered if gathers(&self.env, positions.len()) => {
                return self.gather(request, asker, parts);
            }
            Spread::Single | Spread::Split { .. } | Spread::Together | Spread::Gathered => {}
        }
        let dbs = databases_of(command, usize::from(db), self.ks.databases());
        let scopes = parts
            .iter()
            .map(|(core, positions)| {
                let hashes = positions.iter().map(|&at| self.ks.hash(&argv[at]));
                let numbers = hashes.flat_map(|hash| dbs.clone().map(move |db| lock_number(db, hash)));
                (*core, Scope::Keys(numbers.collect()))
            })
            .collect();
        self.lock_for(id, scopes, move |core, held| match command.spread {
            Spread::Split { step, merge } => {
                let split = Split { request, asker, step, merge, positions, parts };
                match merge {
                    Merge::Unless => core.look_before_split(split, held),
                    Merge::Sum | Merge::Same | Merge::PerKey => core.run_split(split, held),
                }
            }
            Spread::Together | Spread::Gathered | Spread::Single | Spread::Relay(_) | Spread::Sort => {
                core.run_together(request, asker, &parts, held);
            }
        });
    }

    /// Carries out a move from a key of one shard to a key of another, under locks that are the caller's.
    pub(crate) fn move_held(&mut self, id: ConnectionId, found: Found, argv: &Argv<'_>) {
        let Spread::Relay(relay) = found.command.spread else { unreachable!("a move") };
        let Some(connection) = self.connection(id) else { return };
        let (db, proto) = (connection.db, connection.proto);
        let owned = Owned::new(argv.iter());
        let request = Request { id, found, db, proto, owned, counted: true };
        let [source, target] = [1, 2].map(|at| self.shared.owner(self.ks.hash(&argv[at])));
        self.relay_held(relay, request, source, target, &vec![(source, None), (target, None)]);
    }

    /// These keys by shard, and those of a reach, as what is to be locked.
    pub(crate) fn scopes_with(
        &self,
        mut numbers: BTreeMap<usize, Vec<u64>>,
        reach: Reach,
    ) -> BTreeMap<usize, Scope> {
        match reach {
            Reach::Nothing => {}
            Reach::Keys { spots, .. } => {
                spots.into_iter().for_each(|(core, number)| numbers.entry(core).or_default().push(number));
            }
            Reach::All => return (0..self.shared.peers.len()).map(|core| (core, Scope::Shard)).collect(),
        }
        numbers.into_iter().map(|(core, numbers)| (core, Scope::Keys(numbers))).collect()
    }

    /// Gives locks on several cores back.
    pub(crate) fn unlock_all(&mut self, held: Held) {
        for (to, ticket) in held {
            if to == self.id {
                self.unlock(ticket);
            } else {
                self.post(to, Message::Job(Box::new(move |core| core.unlock(ticket))));
            }
        }
    }

    /// Runs the parts of a command that does nothing if one of its keys is there, unless one is.
    fn look_before_split(&mut self, split: Split, held: Held) {
        let (argv, db) = (split.request.owned.argv(), usize::from(split.request.db));
        let question = |&(to, _): &(usize, Option<Ticket>)| {
            let (mut bytes, mut requests) = (Vec::new(), Requests::new());
            let keys = split.parts[&to].iter().map(|&at| &argv[at]);
            assert!(requests.push_copy(&mut bytes, keys), "a part of a request fits a buffer");
            (to, move |core: &mut Core, replier: Replier<bool>| {
                let is_there = requests.argv(&bytes, 0).iter().any(|key| core.ks.find(db, key).is_some());
                core.after_command();
                replier.reply(core, is_there);
            })
        };
        let questions: Vec<_> = held.iter().map(question).collect();
        self.ask_each(questions.into_iter(), move |core, answers| {
            if answers.contains(&true) {
                core.unlock_all(held);
                split.request.book(core, None, 0);
                core.answer_with(split.request.id, |out| out.int(0));
            } else {
                core.run_split(split, held);
            }
        });
    }

    fn run_split(&mut self, split: Split, held: Held) {
        let argv = split.request.owned.argv();
        let (asker, command, call) = (split.asker, split.request.found.command, split.request.call());
        let question = |(to, ticket)| {
            let own = split.parts[&to].iter().flat_map(|&at| at..at + split.step);
            // What is behind the last key is for all parts.
            let behind = split.positions.last().map_or(argv.len(), |last| last + split.step);
            let args = std::iter::once(0).chain(own).chain(behind..argv.len()).map(|at| &argv[at]);
            let (mut bytes, mut requests) = (Vec::new(), Requests::new());
            assert!(requests.push_copy(&mut bytes, args), "a part of a request fits a buffer");
            (to, move |core: &mut Core, replier: Replier<(Vec<u8>, u64)>| {
                let started = Instant::now();
                let reply = core.run_part(asker, command, call, &requests.argv(&bytes, 0));
                let nanos = started.elapsed().as_nanos() as u64;
                core.unlock(ticket);
                replier.reply(core, (reply, nanos));
            })
        };
        let questions: Vec<_> = held.into_iter().map(question).collect();
        self.ask_each(questions.into_iter(), move |core, answers| {
            let (replies, nanos): (Vec<Vec<u8>>, Vec<u64>) = answers.into_iter().unzip();
            split.merge(core, &replies, nanos.iter().sum());
        });
    }

    /// Runs a command's part over this shard.
    fn run_part(&mut self, asker: Asker, command: &'static Command, call: Call, argv: &Argv<'_>) -> Vec<u8> {
        let Some(handler) = command.run.handler() else {
            unreachable!("only commands over shards have parts")
        };
        let mut out = Vec::new();
        self.ks.leaves_heat = asker.no_touch;
        run_handler(call, handler, &mut self.ks, &self.env, argv, &mut out);
        self.after_command_of(asker.client);
        if asker.remembers {
            self.remember(asker.client, command, argv);
        }
        out
    }

    /// Brings copies of all keys into a keyspace of their own, runs the handler there, and writes back what changed.
    fn run_together(
        &mut self,
        request: Request,
        asker: Asker,
        parts: &BTreeMap<usize, Vec<usize>>,
        held: Held,
    ) {
        let argv = request.owned.argv();
        let dbs = databases_of(request.found.command, usize::from(request.db), self.ks.databases());
        let question = |&(to, _): &(usize, Option<Ticket>)| {
            let dbs = dbs.clone();
            let keys: Vec<Vec<u8>> = parts[&to].iter().map(|&at| argv[at].to_vec()).collect();
            (to, move |core: &mut Core, replier: Replier<Vec<Copied>>| {
                let mut copies = Vec::new();
                for key in &keys {
                    for db in dbs.clone() {
                        if let Some(portable) = core.ks.export(db, key) {
                            copies.push((db, key.clone(), portable));
                        }
                    }
                }
                core.after_command();
                if asker.remembers {
                    keys.iter().for_each(|key| core.remember_key(asker.client, key));
                }
                replier.reply(core, copies);
            })
        };
        let questions: Vec<_> = held.iter().map(question).collect();
        self.ask_each(questions.into_iter(), move |core, gathered| {
            let copies = gathered.into_iter().flatten().collect();
            core.finish_together(request, asker, copies, &held);
        });
    }

    fn finish_together(&mut self, request: Request, asker: Asker, copies: Vec<Copied>, held: &Held) {
        let (id, command) = (request.id, request.found.command);
        let Some(handler) = command.run.handler() else {
            unreachable!("only commands over shards bring keys together")
        };
        let started = Instant::now();
        let mut meeting = Keyspace::new(&Options {
            databases: self.ks.databases(),
            hash_seed: self.shared.hash_seed,
            random_seed: self.ks.random(),
        });
        meeting.now = self.ks.now;
        for (db, key, portable) in copies {
            meeting.import(db, &key, Some(portable));
        }
        meeting.observed = true;
        meeting.notes_misses = self.ks.notes_misses;
        let (mut out, mut rest) = (Vec::new(), None);
        // Within a transaction it is over when the next command comes.
        let later = held.iter().all(|(_, ticket)| ticket.is_some()).then_some(&mut rest);
        let (call, env, argv) = (request.call(), &self.env, request.owned.argv());
        let failed = run_handler_for(call, handler, &mut meeting, env, &argv, &mut out, later);
        let nanos = started.elapsed().as_nanos() as u64;
        let (long, task) = match rest {
            None => (None, None),
            Some(Rest::Reply(long)) => (Some(long), None),
            Some(Rest::Task(task)) => (None, Some(task)),
        };
        if task.is_none() {
            request.book(self, failed.as_deref(), nanos);
        }
        // What a task is still going to change: its core, ticket and lock number.
        let target = task.as_ref().and_then(|task| task.target()).map(|key| {
            let hash = self.ks.hash(key);
            let owner = self.shared.owner(hash);
            let ticket = held.iter().find(|(to, _)| *to == owner).and_then(|(_, ticket)| *ticket);
            (owner, ticket.expect("the target is one of the keys"), lock_number(call.db, hash))
        });
        for (stats, more) in self.ks.db_stats.iter_mut().zip(&meeting.db_stats) {
            stats.add(more);
        }
        let mut changes = BTreeMap::<usize, Vec<(Event, Option<Portable>)>>::new();
        for event in meeting.take_events() {
            let state = meeting.export(event.db, &event.key);
            changes.entry(self.shared.owner(self.ks.hash(&event.key))).or_default().push((event, state));
        }
        // Before anybody goes on: copies share nodes with what they were made of, and whoever gives up a node last
        // frees it. So what is replaced is freed by its own shard, in steps, and not here at once; and no write finds
        // its nodes shared for longer than it must.
        drop(meeting);
        let in_steps = task.is_some();
        let question = |&(to, ticket): &(usize, Option<Ticket>)| {
            let mine = changes.remove(&to).unwrap_or_default();
            let kept = target.filter(|(owner, ..)| *owner == to).map(|(.., number)| number);
            (to, move |core: &mut Core, replier: Replier<()>| {
                for (event, state) in mine {
                    if !event.class.is_change() {
                        core.ks.note_miss(event.db, &event.key);
                        continue;
                    }
                    core.ks.import(event.db, &event.key, state);
                    core.ks.changed(event.db, &event.key, event.class, event.name);
                }
                core.after_command_of(asker.client);
                match (ticket, kept) {
                    (Some(ticket), Some(number)) => core.narrow(ticket, &[number]),
                    (ticket, _) => core.unlock(ticket),
                }
                replier.reply(core, ());
            })
        };
        let questions: Vec<_> = held.iter().map(question).collect();
        self.ask_each(questions.into_iter(), move |core, _| {
            if !in_steps {
                core.answer_long(id, &out, long);
            }
        });
        assert!(changes.is_empty(), "{} changed a key that it did not name", command.name);
        let Some(task) = task else { return };
        let of = TaskOf { call, index: request.found.index, client: asker.client, at_once: false };
        let reader = target.is_none().then_some(id);
        self.begin_task(task, command.name, reader, nanos, move |core, task, nanos| {
            let (to, ticket) = target.map_or((core.id, None), |(owner, ticket, _)| (owner, Some(ticket)));
            core.end_task_at((to, ticket), task, of, move |core, reply, long| {
                request.book(core, None, nanos);
                core.answer_long(id, &reply, long);
            });
        });
    }

    /// Writes a finished reply and lets the connection go on.
    pub fn answer(&mut self, id: ConnectionId, reply: &[u8]) {
        if let Some(connection) = self.connection(id) {
            if !std::mem::take(&mut connection.muted) {
                connection.output.extend_from_slice(reply);
            }
            self.resume(id);
        }
    }

    /// As [`Core::answer`], with a reply of which `long` is the rest.
    pub(crate) fn answer_long(&mut self, id: ConnectionId, reply: &[u8], long: Option<Box<Long>>) {
        self.answer_pieces(id, [(reply, long)]);
    }

    /// As [`Core::answer`], with a reply in pieces, each of which may be followed by the rest of a long one.
    pub(crate) fn answer_pieces<B: AsRef<[u8]>>(
        &mut self,
        id: ConnectionId,
        pieces: impl IntoIterator<Item = (B, Option<Box<Long>>)>,
    ) {
        match self.connection(id) {
            Some(connection) if !connection.muted => {
                for (bytes, long) in pieces {
                    connection.output.extend_from_slice(bytes.as_ref());
                    if let Some(long) = long {
                        connection.begin_long(long);
                    }
                }
            }
            unwanted => {
                unwanted.into_iter().for_each(|connection| connection.muted = false);
                pieces.into_iter().filter_map(|(_, long)| long).for_each(|long| self.discard_long(*long));
            }
        }
        self.resume(id);
    }

    /// As [`Core::answer`], with a writer for the client's protocol.
    pub fn answer_with(&mut self, id: ConnectionId, write: impl FnOnce(&mut ReplyWriter<'_>)) {
        if let Some(connection) = self.connection(id) {
            if !std::mem::take(&mut connection.muted) {
                let proto = connection.proto;
                write(&mut ReplyWriter::new(&mut connection.output, proto));
            }
            self.resume(id);
        }
    }
}

/// A key brought to the coordinator: database, name, contents.
type Copied = (usize, Vec<u8>, Portable);

struct Split {
    request: Request,
    asker: Asker,
    step: usize,
    merge: Merge,
    positions: Vec<usize>,
    parts: BTreeMap<usize, Vec<usize>>,
}

impl Split {
    /// Answers; `nanos` is what the parts took.
    fn merge(&self, core: &mut Core, replies: &[Vec<u8>], nanos: u64) {
        // An error of any part is the answer.
        let failed = replies.iter().find(|reply| reply.first() == Some(&b'-'));
        let text = failed.map(|error| String::from_utf8_lossy(&error[1..line_len(error)]));
        self.request.book(core, text.as_deref(), nanos);
        let id = self.request.id;
        if let Some(error) = failed {
            return core.answer(id, error);
        }
        match self.merge {
            Merge::Same | Merge::Unless => core.answer(id, &replies[0]),
            Merge::Sum => {
                let sum = replies.iter().map(|reply| integer(reply)).sum();
                core.answer_with(id, |out| out.int(sum));
            }
            Merge::PerKey => {
                let end = self.positions.last().map_or(0, |last| last + 1);
                let mut elements = vec![&[][..]; end];
                for (positions, reply) in self.parts.values().zip(replies) {
                    let mut rest = &reply[line_len(reply)..];
                    for &at in positions {
                        let (element, behind) = rest.split_at(element_len(rest));
                        elements[at] = element;
                        rest = behind;
                    }
                }
                core.answer_with(id, |out| {
                    out.array(self.positions.len());
                    for &at in &self.positions {
                        out.raw(elements[at]);
                    }
                });
            }
        }
    }
}

fn lock_next(core: &mut Core, mut todo: VecDeque<(usize, Scope)>, mut held: Held, then: OnHeld) {
    let Some((to, scope)) = todo.pop_front() else { return then(core, held) };
    core.ask_later(
        to,
        move |core, replier| core.lock(scope, move |core, ticket| replier.reply(core, ticket)),
        move |core, ticket| {
            held.push((to, Some(ticket)));
            lock_next(core, todo, held, then);
        },
    );
}

/// Bytes of the first line with its end; replies are our own, so it is there.
fn line_len(reply: &[u8]) -> usize {
    reply.windows(2).position(|pair| pair == b"\r\n").map_or(reply.len(), |at| at + 2)
}

/// The number in the header line of a reply.
fn integer(reply: &[u8]) -> i64 {
    let line = &reply[1..line_len(reply) - 2];
    damselfly_protocol::number::parse_i64(line).expect("a part's reply is a number")
}

/// Bytes of the first element of an array of strings, numbers and nulls.
fn element_len(rest: &[u8]) -> usize {
    let line = line_len(rest);
    match rest[0] {
        b'$' => match integer(rest) {
            -1 => line,
            len => line + len as usize + 2,
        },
        _ => line,
    }
}
