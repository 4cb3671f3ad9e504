//! MULTI, EXEC, DISCARD, WATCH and UNWATCH, over any number of shards.
//!
//! Between MULTI and EXEC requests are only checked and kept. EXEC looks at all of them together:
//!
//! * If all their keys, and the watched ones, are on one shard, the whole transaction is one function call there, like
//!   a single command: no locks, one hop at most.
//! * Otherwise the keys' locks are taken on all shards concerned (everything is locked if a command may touch
//!   anything). Then neighbouring commands that each need one shard only are sent together, a message per shard; those
//!   over several shards or about the server run one by one in between. Nobody else sees or changes these keys
//!   until the locks are given back at the end.
//!
//! A watched key is registered on its shard together with a flag that belongs to the connection. Whoever changes the
//! key raises the flag. EXEC looks at the flag when it holds the locks of the watched keys too, so nothing can slip
//! between the look and the first command.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use damselfly_commands::{Args, CommandError, Found, Run, ServerCommand, Spread};
use damselfly_protocol::number::parse_i64;
use damselfly_protocol::{Argv, Proto, ReplyWriter, Requests};

use crate::blocking::{Brought, Moment, Reach};
use crate::connection::ConnectionId;
use crate::coordinate::Held;
use crate::core::{Core, Replier};
use crate::execute::{Call, Flow, Route, Sender, databases_of, looks_further, run_handler};
use crate::locks::{Scope, lock_number};
use crate::mailbox::Message;
use crate::modes::Modes;
use crate::scripts::Claim;
use crate::server_commands::{self, Outcome, client_of, monitor, reply, wait};
use crate::stats::Stopwatch;
use crate::tracking::Asker;

/// Most commands in a transaction. Their bytes are bounded by what one buffer can address, as those of a request.
const COMMANDS_MAX: usize = 1 << 20;

/// Most keys that one connection watches.
const WATCHED_MAX: usize = 1 << 20;

/// Transactions whose buffers a core keeps, and what each may hold: as many as are under way at once in a pipeline or
/// two, of a usual size.
const SPARES_MAX: usize = 16;
const SPARE_BYTES_MAX: usize = 4096;

/// What was queued since MULTI.
#[derive(Default)]
pub struct Transaction {
    bytes: Vec<u8>,
    requests: Requests,
    commands: Vec<Found>,
    /// A request was refused, so EXEC refuses all.
    spoiled: bool,
}

impl Transaction {
    /// Number of queued commands.
    pub fn len(&self) -> usize {
        self.commands.len()
    }

    fn argv(&self, i: usize) -> Argv<'_> {
        self.requests.argv(&self.bytes, i)
    }

    /// What was queued.
    pub fn requests(&self) -> impl Iterator<Item = (Found, Argv<'_>)> {
        self.commands.iter().enumerate().map(|(i, found)| (*found, self.argv(i)))
    }

    fn clear(&mut self) {
        let Transaction { bytes, requests, commands, spoiled } = self;
        bytes.clear();
        requests.clear();
        commands.clear();
        *spoiled = false;
    }

    /// Bytes held.
    pub fn heap_bytes(&self) -> usize {
        size_of::<Transaction>()
            + self.bytes.capacity()
            + self.requests.allocated()
            + self.commands.capacity() * size_of::<Found>()
    }
}

/// Shard, database and name of keys. A set, because a connection that watches many may name each many times.
type Watched = HashSet<(usize, usize, Box<[u8]>)>;

/// The keys that a connection watches.
#[derive(Default)]
pub struct Watching {
    /// Raised when one of them is changed.
    flag: Arc<AtomicBool>,
    keys: Watched,
}

impl Watching {
    /// Whether a watched key was changed.
    pub fn is_dirty(&self) -> bool {
        self.flag.load(Ordering::Acquire)
    }

    /// How many keys it watches.
    pub fn len(&self) -> usize {
        self.keys.len()
    }
}

/// Those who watch a key, for each key of a database.
type Watchers = HashMap<Box<[u8]>, Vec<Arc<AtomicBool>>>;

/// The keys of one shard that are watched by anybody, per database.
#[derive(Default)]
pub struct Watches {
    keys: Vec<Watchers>,
    len: usize,
}

impl Watches {
    /// How many keys are watched here.
    pub fn keys(&self) -> usize {
        self.keys.iter().map(HashMap::len).sum()
    }

    /// Whether nobody watches anything here.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tells those who watch a key that it was changed.
    #[inline]
    pub fn touch(&self, db: usize, key: &[u8]) {
        if self.len > 0
            && let Some(flags) = self.keys.get(db).and_then(|keys| keys.get(key))
        {
            for flag in flags {
                flag.store(true, Ordering::Release);
            }
        }
    }

    fn add(&mut self, db: usize, key: &[u8], flag: Arc<AtomicBool>) {
        if self.keys.len() <= db {
            self.keys.resize_with(db + 1, HashMap::new);
        }
        self.keys[db].entry(key.into()).or_default().push(flag);
        self.len += 1;
    }

    fn remove(&mut self, db: usize, key: &[u8], flag: &Arc<AtomicBool>) {
        let Some(flags) = self.keys.get_mut(db).and_then(|keys| keys.get_mut(key)) else { return };
        if let Some(at) = flags.iter().position(|other| Arc::ptr_eq(other, flag)) {
            flags.swap_remove(at);
            self.len -= 1;
        }
        if flags.is_empty() {
            self.keys[db].remove(key);
        }
    }
}

/// Whether a command is queued inside MULTI instead of being run at once.
pub fn is_queued(run: Run) -> bool {
    use ServerCommand::{Discard, Exec, Multi, Quit, Reset, Watch};
    !matches!(run, Run::Server(Discard | Exec | Multi | Quit | Reset | Watch))
}

/// Whether a command waits until all commands before it in the pipeline have their replies. Those that are one message
/// to one shard keep their order there by themselves; others could overtake one that waits for a lock.
pub fn comes_behind_replies(run: Run, route: Route) -> bool {
    match run {
        Run::Shard(_) => route == Route::Spread,
        Run::Block(_) | Run::Script(_) => true,
        Run::Server(which) => touches_all(which) && which != ServerCommand::Multi,
    }
}

/// Whether a command of the server may look at or change any key.
fn touches_all(which: ServerCommand) -> bool {
    use ServerCommand as S;
    !matches!(
        which,
        S::Auth
            | S::Client
            | S::Command
            | S::Config
            | S::Echo
            | S::Function
            | S::Hello
            | S::Latency
            | S::Lolwut
            | S::Module
            | S::Ping
            | S::PSubscribe
            | S::PubSub
            | S::Publish
            | S::PUnsubscribe
            | S::Role
            | S::Script
            | S::Select
            | S::Slowlog
            | S::SPublish
            | S::SSubscribe
            | S::Subscribe
            | S::SUnsubscribe
            | S::Time
            | S::Unsubscribe
            | S::Unwatch
    )
}

/// MULTI
pub fn multi(core: &mut Core, id: ConnectionId) -> Outcome {
    let connection = client_of(core, id)?;
    if connection.multi.is_some() {
        return Err(CommandError::text("ERR MULTI calls can not be nested"));
    }
    let transaction = core.spare_transactions.pop().unwrap_or_default();
    client_of(core, id)?.multi = Some(transaction);
    reply(core, id, |out| out.ok())
}

/// DISCARD
pub fn discard(core: &mut Core, id: ConnectionId) -> Outcome {
    if client_of(core, id)?.multi.is_none() {
        return Err(CommandError::text("ERR DISCARD without MULTI"));
    }
    core.abandon_transaction(id);
    reply(core, id, |out| out.ok())
}

/// UNWATCH
pub fn unwatch(core: &mut Core, id: ConnectionId) -> Outcome {
    if let Some(watching) = client_of(core, id)?.watching.take() {
        core.forget_watched(*watching);
    }
    reply(core, id, |out| out.ok())
}

/// WATCH key [key ...]
pub fn watch(core: &mut Core, id: ConnectionId, args: Args<'_>) -> Outcome {
    let mut fresh = BTreeMap::<usize, Vec<Box<[u8]>>>::new();
    let connection = client_of(core, id)?;
    if connection.multi.is_some() {
        return Err(CommandError::text("ERR WATCH inside MULTI is not allowed"));
    }
    let db = usize::from(connection.db);
    let mut watching = connection.watching.take().unwrap_or_default();
    if watching.keys.len() + args.len() > WATCHED_MAX {
        connection.watching = Some(watching);
        return Err(CommandError::text("ERR too many watched keys"));
    }
    for key in args.rest() {
        let owner = core.shared.owner(core.ks.hash(key));
        if watching.keys.insert((owner, db, key.into())) {
            fresh.entry(owner).or_default().push(key.into());
        }
    }
    let flag = watching.flag.clone();
    client_of(core, id)?.watching = Some(watching);
    if let Some(keys) = fresh.remove(&core.id) {
        core.watch_here(db, &keys, &flag);
    }
    if fresh.is_empty() {
        return reply(core, id, |out| out.ok());
    }
    let question = |(to, keys): (usize, Vec<Box<[u8]>>)| {
        let flag = flag.clone();
        (to, move |core: &mut Core, replier: Replier<()>| {
            core.watch_here(db, &keys, &flag);
            replier.reply(core, ());
        })
    };
    let questions: Vec<_> = fresh.into_iter().map(question).collect();
    core.ask_each(questions.into_iter(), move |core, _| core.answer_with(id, |out| out.ok()));
    wait(core, id)
}

/// EXEC
pub fn exec(core: &mut Core, id: ConnectionId) -> Outcome {
    let connection = client_of(core, id)?;
    let Some(transaction) = connection.multi.take() else {
        core.show_exec(id);
        return Err(CommandError::text("ERR EXEC without MULTI"));
    };
    if transaction.spoiled {
        core.show_exec(id);
        core.abandon_transaction(id);
        return Err(CommandError::text("EXECABORT Transaction discarded because of previous errors."));
    }
    let plan = core.plan(id, &transaction);
    let Some(shard) = plan.shard else {
        let watching = client_of(core, id)?.watching.take();
        return core.exec_spread(id, transaction, watching, plan, false);
    };
    let parcel = core.parcel(id, transaction)?;
    if shard == core.id { core.exec_here(id, parcel) } else { core.exec_there(id, shard, parcel) }
}

/// Where the commands of a transaction run.
struct Plan {
    /// All on this shard.
    shard: Option<usize>,
    /// Each one's place and database.
    steps: Vec<(Place, usize)>,
    /// What they may reach.
    reach: Reach,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// On one shard; None if any will do.
    Shard(Option<usize>),
    /// On several.
    Spread,
    /// By the server.
    Server,
}

/// A transaction as it travels to another shard.
struct Parcel {
    transaction: Box<Transaction>,
    watching: Option<Box<Watching>>,
    db: usize,
    proto: Proto,
    asker: Asker,
    shown: Option<Box<Shown>>,
}

/// What those who monitor see of a transaction on one shard: the first if it runs, the second in any case.
struct Shown {
    commands: Vec<u8>,
    exec: Vec<u8>,
}

impl Core {
    /// Marks the transaction that a refused request was meant for.
    pub(crate) fn spoil_transaction(&mut self, id: ConnectionId) {
        if let Some(multi) = self.connection(id).and_then(|connection| connection.multi.as_mut()) {
            multi.spoiled = true;
        }
    }

    /// Drops what was queued and watched.
    pub(crate) fn abandon_transaction(&mut self, id: ConnectionId) {
        let Some(connection) = self.connection(id) else { return };
        connection.multi = None;
        if let Some(watching) = connection.watching.take() {
            self.forget_watched(*watching);
        }
    }

    /// Keeps a request for EXEC.
    pub(crate) fn queue(&mut self, id: ConnectionId, argv: &Argv<'_>, found: Found) -> Flow {
        use damselfly_commands::Flags;
        let Some(connection) = self.connection(id) else { return Flow::Pause };
        let Some(multi) = connection.multi.as_mut() else { return Flow::Next };
        if found.command.flags.has(Flags::NO_MULTI) {
            multi.spoiled = true;
            self.answer_error(id, "ERR Command not allowed inside a transaction");
            return Flow::Next;
        }
        let fits = multi.spoiled
            || multi.len() < COMMANDS_MAX && multi.requests.push_copy(&mut multi.bytes, argv.iter());
        if !fits {
            // What is refused as a whole need not be kept.
            **multi = Transaction { spoiled: true, ..Transaction::default() };
            self.answer_error(id, "ERR transaction is too large");
            return Flow::Next;
        }
        if !multi.spoiled {
            multi.commands.push(found);
        }
        let proto = connection.proto;
        ReplyWriter::new(&mut connection.output, proto).queued();
        Flow::Next
    }

    fn plan(&mut self, id: ConnectionId, transaction: &Transaction) -> Plan {
        let mut db = self.connection(id).map_or(0, |connection| usize::from(connection.db));
        let databases = self.ks.databases() as i64;
        let mut steps = Vec::with_capacity(transaction.len());
        let mut shard = None;
        let mut alone = true;
        let (brings, mut brought) = (self.shared.moves.is_any(), Brought::default());
        for (i, found) in transaction.commands.iter().enumerate() {
            let argv = transaction.argv(i);
            let place = match found.command.run {
                Run::Server(which) => {
                    steps.push((Place::Server, db));
                    alone = false;
                    if which == ServerCommand::Select
                        && let Some(to) = parse_i64(&argv[1])
                        && (0..databases).contains(&to)
                    {
                        db = to as usize;
                    }
                    continue;
                }
                Run::Script(_) => {
                    steps.push((Place::Server, db));
                    alone = false;
                    continue;
                }
                Run::Shard(_) | Run::Block(_) => match self.route(found.command, &argv) {
                    None => Place::Shard(None),
                    Some(Route::Here) => Place::Shard(Some(self.id)),
                    Some(Route::There(peer)) => Place::Shard(Some(peer)),
                    Some(Route::Spread) => Place::Spread,
                },
            };
            match place {
                Place::Shard(None) => {}
                Place::Shard(one) => {
                    alone &= shard.is_none() || shard == one;
                    shard = one;
                }
                Place::Spread | Place::Server => alone = false,
            }
            if brings {
                self.note_brought(&mut brought, found.command, db, &argv);
            }
            steps.push((place, db));
        }
        if let Some(watching) = self.connection(id).and_then(|connection| connection.watching.as_ref()) {
            for (owner, ..) in &watching.keys {
                alone &= shard.is_none_or(|shard| shard == *owner);
                shard = Some(*owner);
            }
        }
        let reach = self.reach(&brought);
        alone &= !reach.roams();
        Plan { shard: alone.then(|| shard.unwrap_or(self.id)), steps, reach }
    }

    /// Lock numbers of all keys that a transaction on one shard names or watches.
    fn transaction_locks(
        &mut self,
        transaction: &Transaction,
        db: usize,
        watching: Option<&Watching>,
    ) -> Vec<u64> {
        let (mut numbers, mut brought) = (Vec::new(), Brought::default());
        for (i, found) in transaction.commands.iter().enumerate() {
            let argv = transaction.argv(i);
            numbers.extend(self.lock_numbers(found.command, db, &argv));
            self.note_brought(&mut brought, found.command, db, &argv);
        }
        numbers.extend(self.reach(&brought).on(self.id));
        if let Some(watching) = watching {
            numbers.extend(watching.keys.iter().map(|(_, db, key)| lock_number(*db, self.ks.hash(key))));
        }
        numbers
    }

    /// A transaction on one shard, with all that is needed to run it there.
    fn parcel(&mut self, id: ConnectionId, transaction: Box<Transaction>) -> Result<Parcel, CommandError> {
        let connection = client_of(self, id)?;
        let (db, proto) = (usize::from(connection.db), connection.proto);
        let watching = connection.watching.take();
        let shown = if monitor::is_on(self) { self.shown(id, &transaction, db) } else { None };
        Ok(Parcel { transaction, watching, db, proto, asker: self.asker(id), shown })
    }

    #[cold]
    fn shown(&mut self, id: ConnectionId, transaction: &Transaction, db: usize) -> Option<Box<Shown>> {
        let mut commands = Vec::new();
        for (found, argv) in transaction.requests() {
            commands.extend(monitor::queued_line(self, id, found, db, &argv).unwrap_or_default());
        }
        Some(Box::new(Shown { commands, exec: monitor::exec_line(self, id)? }))
    }

    /// Shows EXEC to those who monitor.
    fn show_exec(&mut self, id: ConnectionId) {
        if monitor::is_on(self)
            && let Some(line) = monitor::exec_line(self, id)
        {
            monitor::show_line(self, line);
        }
    }

    /// A transaction for this core's own shard.
    fn exec_here(&mut self, id: ConnectionId, parcel: Parcel) -> Outcome {
        if self.locks.is_idle() {
            let mut output = std::mem::take(&mut client_of(self, id)?.output);
            let watching = self.run_parcel(parcel, &mut output);
            client_of(self, id)?.output = output;
            self.forget_all(watching);
            return Ok(Flow::Next);
        }
        // Before, not behind: the locks may be free, and then the answer ends the waiting at once.
        let waits = wait(self, id);
        let claim = self.exec_waits_for_locks(id, false, false);
        let own = claim.clone();
        self.run_parcel_locked(parcel, claim, move |core, (watching, replies)| {
            core.forget_all(watching);
            if core.waits_no_more(id, &own) {
                core.answer(id, &replies);
            }
        });
        waits
    }

    /// A transaction for one other shard.
    fn exec_there(&mut self, id: ConnectionId, shard: usize, parcel: Parcel) -> Outcome {
        let claim = self.exec_waits_for_locks(id, false, false);
        let own = claim.clone();
        self.ask_later(
            shard,
            move |core, replier| {
                core.run_parcel_locked(parcel, claim, move |core, done| replier.reply(core, done));
            },
            move |core, (watching, replies)| {
                core.forget_all(watching);
                if core.waits_no_more(id, &own) {
                    core.answer(id, &replies);
                }
            },
        );
        wait(self, id)
    }

    fn forget_all(&mut self, watching: Option<Box<Watching>>) {
        if let Some(watching) = watching {
            self.forget_watched(*watching);
        }
    }

    /// Runs a transaction over this shard, behind those who hold a lock on one of its keys, unless it was refused
    /// before its turn came.
    fn run_parcel_locked(
        &mut self,
        parcel: Parcel,
        claim: Claim,
        then: impl FnOnce(&mut Core, (Option<Box<Watching>>, Vec<u8>)) + 'static,
    ) {
        let mut replies = Vec::new();
        if self.locks.is_idle() {
            let watching = if claim.take() { self.run_parcel(parcel, &mut replies) } else { parcel.watching };
            return then(self, (watching, replies));
        }
        let numbers = self.transaction_locks(&parcel.transaction, parcel.db, parcel.watching.as_deref());
        self.lock_plain(Scope::Keys(numbers), move |core, ticket| {
            let watching = if claim.take() { core.run_parcel(parcel, &mut replies) } else { parcel.watching };
            core.unlock(ticket);
            then(core, (watching, replies));
        });
    }

    /// Runs a transaction over this shard; the reply of EXEC goes to `out`.
    fn run_parcel(&mut self, parcel: Parcel, out: &mut Vec<u8>) -> Option<Box<Watching>> {
        let Parcel { transaction, watching, db, proto, asker, shown } = parcel;
        if let Some(watching) = &watching {
            self.let_watched_expire(&watching.keys);
        }
        let is_dirty = watching.as_ref().is_some_and(|watching| watching.is_dirty());
        if let Some(shown) = shown {
            let Shown { commands, exec } = *shown;
            monitor::show_line(self, if is_dirty { exec } else { [commands, exec].concat() });
        }
        if is_dirty {
            ReplyWriter::new(out, proto).null_array();
            return watching;
        }
        ReplyWriter::new(out, proto).array(transaction.len());
        let mut watch = Stopwatch::start();
        for i in 0..transaction.len() {
            let found = transaction.commands[i];
            self.run_step(
                asker,
                found,
                Call::of(found.command, db, proto),
                &transaction.argv(i),
                &mut watch,
                out,
            );
        }
        // Once for all: whoever is woken by one of the commands sees the work of all.
        self.after_command_of(asker.client);
        self.spare(transaction);
        watching
    }

    /// Keeps the buffers of a transaction that is over for one to come.
    fn spare(&mut self, mut transaction: Box<Transaction>) {
        if self.spare_transactions.len() < SPARES_MAX && transaction.heap_bytes() <= SPARE_BYTES_MAX {
            transaction.clear();
            self.spare_transactions.push(transaction);
        }
    }

    /// Runs one command of a transaction over this shard, and counts it.
    fn run_step(
        &mut self,
        asker: Asker,
        found: Found,
        call: Call,
        argv: &Argv<'_>,
        watch: &mut Stopwatch,
        out: &mut Vec<u8>,
    ) {
        let Some(handler) = found.command.run.handler() else { unreachable!("a command over one shard") };
        watch.count(&mut self.stats, found.index);
        self.ks.leaves_heat = asker.no_touch;
        let failed = run_handler(call, handler, &mut self.ks, &self.env, argv, out);
        self.close_watch(Sender::of(asker.client, self.id), found.command, watch, argv);
        if let Some(error) = failed {
            self.stats.count_error(&error);
            self.stats.count_failed(Some(found.index));
        }
        if asker.remembers {
            // What was changed before it was read is no news to the reader.
            self.tell(Some(asker.client));
            self.remember(asker.client, found.command, argv);
        }
    }

    /// Registers watched keys of this shard.
    fn watch_here(&mut self, db: usize, keys: &[Box<[u8]>], flag: &Arc<AtomicBool>) {
        for key in keys {
            // A key whose time was over before does not count as changed when it is removed.
            self.ks.find(db, key);
        }
        self.after_command();
        for key in keys {
            self.watches.add(db, key, flag.clone());
        }
        self.observe();
    }

    /// Takes watched keys out of the registers of their shards.
    pub(crate) fn forget_watched(&mut self, watching: Watching) {
        let Watching { flag, keys } = watching;
        let mut away = BTreeMap::<usize, Vec<(usize, Box<[u8]>)>>::new();
        for (owner, db, key) in keys {
            if owner == self.id {
                self.watches.remove(db, &key, &flag);
            } else {
                away.entry(owner).or_default().push((db, key));
            }
        }
        self.observe();
        for (to, keys) in away {
            let flag = flag.clone();
            let forget = move |core: &mut Core| {
                for (db, key) in &keys {
                    core.watches.remove(*db, key, &flag);
                }
                core.observe();
            };
            self.post(to, Message::Job(Box::new(forget)));
        }
    }

    /// A watched key whose time is over was changed by that, whether or not it is still stored.
    fn let_watched_expire(&mut self, keys: &Watched) {
        for (owner, db, key) in keys {
            if *owner == self.id {
                self.ks.find(*db, key);
            }
        }
        self.after_command();
    }

    /// Keys that are watched in one database, and have expired in another, go there.
    pub(crate) fn let_twins_expire(&mut self, watched_in: usize, twin: usize) {
        let Some(keys) = self.watches.keys.get(watched_in) else { return };
        for key in keys.keys() {
            self.ks.find(twin, key);
        }
    }

    /// A database goes or comes as a whole: its watched keys that are there count as changed.
    pub(crate) fn touch_watched(&mut self, concerned: impl Fn(usize) -> bool) {
        if self.watches.is_empty() {
            return;
        }
        for (db, keys) in self.watches.keys.iter().enumerate().filter(|(db, _)| concerned(*db)) {
            for (key, flags) in keys {
                if self.ks.is_stored(db, key) {
                    for flag in flags {
                        flag.store(true, Ordering::Release);
                    }
                }
            }
        }
    }

    /// Carries out a command that brings something to moves which leave their shard, as a transaction of its own.
    pub(crate) fn exec_alone(&mut self, id: ConnectionId, argv: &Argv<'_>, found: Found) {
        let mut transaction = self.spare_transactions.pop().unwrap_or_default();
        let fits = transaction.requests.push_copy(&mut transaction.bytes, argv.iter());
        assert!(fits, "one request fits a buffer");
        transaction.commands.push(found);
        let plan = self.plan(id, &transaction);
        // Its connection is there.
        let _ = self.exec_spread(id, transaction, None, plan, true);
    }

    /// A transaction over several shards, or with commands about the server. `is_alone`: it is one command, and the
    /// client knows of no transaction.
    fn exec_spread(
        &mut self,
        id: ConnectionId,
        transaction: Box<Transaction>,
        watching: Option<Box<Watching>>,
        mut plan: Plan,
        is_alone: bool,
    ) -> Outcome {
        let scopes = self.scopes(&transaction, watching.as_deref(), &mut plan);
        let connection = client_of(self, id)?;
        connection.waiting = true;
        connection.executing = true;
        let muted = std::mem::take(&mut connection.muted);
        let exec = Box::new(Exec {
            id,
            transaction: Rc::from(transaction),
            steps: plan.steps,
            next: 0,
            held: Held::new(),
            muted,
            is_alone,
        });
        let claim = self.exec_waits_for_locks(id, muted, is_alone);
        self.lock_all(scopes, move |core, held| {
            if !core.has_its_locks(id, &claim) {
                core.unlock_all(held);
                return core.forget_all(watching);
            }
            let exec = Box::new(Exec { held, ..*exec });
            match watching {
                Some(watching) => exec.look_at_watched(core, watching),
                None => exec.begin(core),
            }
        });
        Ok(Flow::Pause)
    }

    /// What a transaction over several shards locks.
    fn scopes(
        &mut self,
        transaction: &Transaction,
        watching: Option<&Watching>,
        plan: &mut Plan,
    ) -> BTreeMap<usize, Scope> {
        let touches_all = transaction.commands.iter().enumerate().any(|(i, found)| match found.command.run {
            Run::Server(which) => touches_all(which),
            Run::Script(_) => true,
            Run::Shard(_) => {
                matches!(found.command.spread, Spread::Sort)
                    && looks_further(found.command, &transaction.argv(i))
            }
            Run::Block(_) => false,
        });
        let cores = self.shared.peers.len();
        if touches_all {
            return (0..cores).map(|core| (core, Scope::Shard)).collect();
        }
        let databases = self.ks.databases();
        let mut numbers = BTreeMap::<usize, Vec<u64>>::new();
        let mut positions = Vec::new();
        for (i, found) in transaction.commands.iter().enumerate() {
            if matches!(found.command.run, Run::Server(_) | Run::Script(_)) {
                continue;
            }
            let argv = transaction.argv(i);
            let dbs = databases_of(found.command, plan.steps[i].1, databases);
            found.command.key_positions(&argv, &mut positions);
            for &at in &positions {
                let hash = self.ks.hash(&argv[at]);
                let of_shard = numbers.entry(self.shared.owner(hash)).or_default();
                of_shard.extend(dbs.clone().map(|db| lock_number(db, hash)));
            }
        }
        for (owner, db, key) in watching.into_iter().flat_map(|watching| &watching.keys) {
            numbers.entry(*owner).or_default().push(lock_number(*db, self.ks.hash(key)));
        }
        self.scopes_with(numbers, std::mem::take(&mut plan.reach))
    }

    /// A transaction of this connection, or what is carried out like one, is over: the connection goes on.
    pub(crate) fn end_executing(&mut self, id: ConnectionId) {
        let Some(connection) = self.connection(id) else { return };
        connection.executing = false;
        connection.muted = false;
        if connection.closing {
            // Whoever ended itself within the transaction still reads.
            connection.flush();
            return self.close(id);
        }
        if connection.modes.has(Modes::CACHING) {
            self.end_caching(id);
        }
        self.resume(id);
    }
}

/// What one shard has done of a transaction: which commands, their replies, and where each of these ends.
type Ran = (Vec<usize>, Vec<u8>, Vec<usize>);

/// A transaction over several shards on its way. Its connection is there until it ends.
struct Exec {
    id: ConnectionId,
    transaction: Rc<Transaction>,
    steps: Vec<(Place, usize)>,
    next: usize,
    held: Held,
    /// The client wants no replies.
    muted: bool,
    /// See [`Core::exec_spread`].
    is_alone: bool,
}

impl Exec {
    /// Lets watched keys expire on their shards, then looks at the flag.
    fn look_at_watched(self: Box<Self>, core: &mut Core, watching: Box<Watching>) {
        let keys = watching.keys.clone();
        core.ask_all(
            move |core| core.let_watched_expire(&keys),
            move |core, _| {
                let dirty = watching.is_dirty();
                core.forget_watched(*watching);
                if dirty {
                    self.write(core, |out| out.null_array());
                    self.end(core);
                } else {
                    self.begin(core);
                }
            },
        );
    }

    fn begin(self: Box<Self>, core: &mut Core) {
        let len = self.transaction.len();
        if !self.is_alone {
            self.write(core, |out| out.array(len));
        }
        self.go_on(core);
    }

    fn write(&self, core: &mut Core, write: impl FnOnce(&mut ReplyWriter<'_>)) {
        if let Some(connection) = core.connection(self.id)
            && !self.muted
        {
            let proto = connection.proto;
            write(&mut ReplyWriter::new(&mut connection.output, proto));
        }
    }

    /// Shows to those who monitor what is about to run.
    fn show_steps(&self, core: &mut Core, steps: Range<usize>) {
        if !monitor::is_on(core) || self.is_alone {
            return;
        }
        for at in steps {
            let (found, argv) = (self.transaction.commands[at], self.transaction.argv(at));
            if let Some(line) = monitor::queued_line(core, self.id, found, self.steps[at].1, &argv) {
                monitor::show_line(core, line);
            }
        }
    }

    /// Runs commands until one has to be waited for, or until the end.
    fn go_on(mut self: Box<Self>, core: &mut Core) {
        loop {
            let at = self.next;
            let Some((place, _)) = self.steps.get(at).copied() else { return self.end(core) };
            if matches!(place, Place::Shard(_)) {
                return self.run_neighbours(core);
            }
            self.next += 1;
            let transaction = self.transaction.clone();
            let (found, argv) = (transaction.commands[at], transaction.argv(at));
            self.show_steps(core, at..at + 1);
            let Some(connection) = core.connection(self.id) else { return self.end(core) };
            connection.muted = self.muted;
            let before = connection.output.len();
            let flow = match found.command.run {
                Run::Server(which) => {
                    let started = Instant::now();
                    let flow = server_commands::run(core, self.id, which, &argv);
                    let nanos = started.elapsed().as_nanos() as u64;
                    core.stats.book(found.index, nanos, 1);
                    if core.stats.is_notable(nanos) {
                        core.note_slow(Sender::Here(self.id), found.command, nanos, &argv);
                    }
                    flow
                }
                Run::Script(_) => {
                    let ticket =
                        self.held.iter().find(|(of, _)| *of == core.id).and_then(|(_, ticket)| *ticket);
                    core.script_in_transaction(self.id, &argv, found, ticket)
                }
                Run::Shard(_) | Run::Block(_) => {
                    core.coordinate(self.id, found, &argv);
                    Flow::Pause
                }
            };
            let Some(connection) = core.connection(self.id) else { return self.end(core) };
            if flow == Flow::Next {
                if self.muted {
                    connection.output.truncate(before);
                }
            } else {
                connection.waiting = true;
                connection.then = Some(Box::new(move |core| self.go_on(core)));
                return;
            }
        }
    }

    /// Runs the commands from the next one on that each need one shard only: a message per shard with all of its.
    fn run_neighbours(mut self: Box<Self>, core: &mut Core) {
        let first = self.next;
        let is_alone = |(place, _): &&(Place, usize)| matches!(place, Place::Shard(_));
        let count = self.steps[first..].iter().take_while(is_alone).count();
        self.next += count;
        self.show_steps(core, first..first + count);
        let Some(connection) = core.connection(self.id) else { return self.end(core) };
        let proto = connection.proto;
        let asker = core.asker(self.id);
        let mut shards = BTreeMap::<usize, Vec<usize>>::new();
        for at in first..first + count {
            let Place::Shard(shard) = self.steps[at].0 else { unreachable!("counted above") };
            shards.entry(shard.unwrap_or(core.id)).or_default().push(at);
        }
        let began = Instant::now();
        let question = |(to, steps): (usize, Vec<usize>)| {
            let mut part = Transaction::default();
            let mut dbs = Vec::with_capacity(steps.len());
            for &at in &steps {
                let added = part.requests.push_copy(&mut part.bytes, self.transaction.argv(at).iter());
                assert!(added, "a part of a transaction fits a buffer");
                part.commands.push(self.transaction.commands[at]);
                dbs.push(self.steps[at].1);
            }
            (to, move |core: &mut Core, replier: Replier<Ran>| {
                let (mut out, mut ends) = (Vec::new(), Vec::with_capacity(dbs.len()));
                let mut watch = Stopwatch::start();
                for (i, db) in dbs.iter().enumerate() {
                    let (found, argv) = (part.commands[i], part.argv(i));
                    core.run_step(
                        asker,
                        found,
                        Call::of(found.command, *db, proto),
                        &argv,
                        &mut watch,
                        &mut out,
                    );
                    core.date_events(asker.client, || Moment::of_step(began, steps[i]));
                    ends.push(out.len());
                }
                core.after_command_of(asker.client);
                replier.reply(core, (steps, out, ends));
            })
        };
        let questions: Vec<_> = shards.into_iter().map(question).collect();
        core.ask_each(questions.into_iter(), move |core, ran| {
            let mut replies: Vec<&[u8]> = vec![&[]; count];
            for (steps, out, ends) in &ran {
                let mut start = 0;
                for (at, end) in steps.iter().zip(ends) {
                    replies[at - first] = &out[start..*end];
                    start = *end;
                }
            }
            for reply in replies {
                self.write(core, |out| out.raw(reply));
            }
            self.go_on(core);
        });
    }

    /// Gives the locks back and lets the connection go on.
    fn end(self, core: &mut Core) {
        if !self.is_alone {
            core.show_exec(self.id);
        }
        let id = self.id;
        core.unlock_all_then(self.held, move |core| core.end_executing(id));
    }
}
