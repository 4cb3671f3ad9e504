//! Commands over big collections, in slices between turns: see `damselfly_commands::Task`.
//!
//! What a handler leaves is done here, a slice per turn for all of them together, one after the other in a circle.
//! Where the target of a command is, its key is locked from the handler's return until the result is there, so commands
//! that name it wait as they do for an operation over several shards; so does whatever wants the whole shard (FLUSHALL,
//! the cut of a snapshot, scripts over all shards), and what is behind that. Nothing else waits: the sources are
//! clones.
//!
//! A task over keys of several shards is done by the core of the connection, and its end on the shard of its target
//! (`coordinate.rs`). Whatever becomes of its connection, a command that stores ends, as everywhere; one that only
//! replies is given up when the connection is known to be gone.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use damselfly_commands::{Cx, Found, Long, Rest, Task, Told, Wanted, look_back};
use damselfly_keyspace::PastId;
use damselfly_protocol::{Argv, ReplyWriter};

use crate::batch::Batch;
use crate::connection::ConnectionId;
use crate::core::{Core, Replier, Work};
use crate::execute::{Call, Sender, set_running};
use crate::locks::{Scope, Ticket, lock_number};
use crate::mailbox::Message;
use crate::stats::shown_args;
use crate::tracking::Reader;

/// Time for tasks in one turn. Other clients wait as long for it; less would make tasks slower for nothing, as a turn
/// has costs of its own.
const SLICE: Duration = Duration::from_micros(500);

/// What goes on when no step is left, with the time that the command took so far.
type OnSteps = Box<dyn FnOnce(&mut Core, Box<dyn Task>, u64)>;

struct Running {
    task: Box<dyn Task>,
    /// What it asked and was not told, with the answers that have come; the first has none.
    asked: VecDeque<(Wanted, Option<Told>)>,
    /// What it looks back into.
    past: Option<PastId>,
    name: &'static str,
    /// The connection of this core that alone wants the outcome.
    reader: Option<ConnectionId>,
    nanos: u64,
    then: OnSteps,
}

/// The tasks of one core.
#[derive(Default)]
pub struct Tasks {
    running: VecDeque<Running>,
    /// How many more that store something wait for what other shards' keys hold.
    asking: usize,
    /// What waits until all that store have ended.
    behind: Vec<Work>,
}

impl Tasks {
    /// Whether there is none to go on with.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    fn is_storing(&self) -> bool {
        self.asking > 0 || self.running.iter().any(|running| running.task.target().is_some())
    }
}

/// For whom the end of a task is done.
#[derive(Clone, Copy)]
pub(crate) struct TaskOf {
    pub call: Call,
    /// Of the command, among all.
    pub index: usize,
    pub client: Reader,
    /// The whole reply is wanted.
    pub at_once: bool,
}

impl Running {
    /// Where a task that asks looks keys up.
    fn past(&self) -> PastId {
        self.past.expect("who asks looks back into a past")
    }

    /// Tells what is known of what comes next.
    fn tell(&mut self) {
        let known = self.asked.iter().take_while(|(_, told)| told.is_some()).count();
        let known: Vec<Told> = self.asked.drain(..known).filter_map(|(_, told)| told).collect();
        if !known.is_empty() {
            self.task.told(known);
        }
    }
}

impl Core {
    /// Locks the target of a task that a handler over this shard has just left, and nothing else. Nobody else has a lock
    /// on it: the command would have waited. `ticket` is the one that it waited for.
    fn lock_target(&mut self, task: &dyn Task, db: usize, ticket: Option<Ticket>) -> Option<Ticket> {
        let Some(target) = task.target() else {
            self.unlock(ticket);
            return None;
        };
        let numbers = vec![lock_number(db, self.ks.hash(target))];
        match ticket {
            Some(ticket) => {
                self.narrow(ticket, &numbers);
                Some(ticket)
            }
            None => {
                let granted = self.locks.acquire(Scope::Keys(numbers), Box::new(|_, _| ()));
                let (ticket, _) = granted.expect("a command runs when nobody else has locked its keys");
                Some(ticket)
            }
        }
    }

    /// Does a task from the next slice on, then `then`, which must call [`Core::end_task`]. `nanos` is what its command
    /// took so far; `reader` is the connection that alone wants the outcome, if it is of this core.
    pub(crate) fn begin_task(
        &mut self,
        task: Box<dyn Task>,
        name: &'static str,
        reader: Option<ConnectionId>,
        nanos: u64,
        then: impl FnOnce(&mut Core, Box<dyn Task>, u64) + 'static,
    ) {
        let past = task.past();
        let then = Box::new(then);
        self.tasks.running.push_back(Running {
            task,
            asked: VecDeque::new(),
            past,
            name,
            reader,
            nanos,
            then,
        });
    }

    /// The end of a task, on the shard of its target: what is to be replied. The lock is the caller's to give back.
    pub(crate) fn end_task(
        &mut self,
        mut task: Box<dyn Task>,
        of: TaskOf,
        reply: &mut Vec<u8>,
    ) -> Option<Box<Long>> {
        set_running(of.call.name);
        let mut rest = None;
        let before = reply.len();
        let out = ReplyWriter::new(reply, of.call.proto);
        let later = (!of.at_once).then_some(&mut rest);
        let mut cx = Cx { ks: &mut self.ks, db: of.call.db, out, env: &self.env, later };
        if let Err(error) = task.finish(&mut cx) {
            let text = error.to_string();
            cx.out.truncate(before);
            cx.out.error(&text);
            self.stats.count_error(&text);
            self.stats.count_failed(Some(of.index));
        }
        self.after_command_of(of.client);
        task.into_held().into_iter().for_each(|held| self.ks.discard(held));
        match rest {
            None => None,
            Some(Rest::Reply(long)) => Some(long),
            Some(Rest::Task(_)) => unreachable!("a task ends with its end"),
        }
    }

    /// As [`Core::end_task`], on the core that the end is for, whose ticket is given back; goes on with the reply.
    pub(crate) fn end_task_at(
        &mut self,
        (to, ticket): (usize, Option<Ticket>),
        task: Box<dyn Task>,
        of: TaskOf,
        then: impl FnOnce(&mut Core, Vec<u8>, Option<Box<Long>>) + 'static,
    ) {
        self.ask(
            to,
            move |core| {
                let mut reply = Vec::new();
                let long = core.end_task(task, of, &mut reply);
                core.unlock(ticket);
                (reply, long)
            },
            move |core, (reply, long)| then(core, reply, long),
        );
    }

    /// A request of this core's connection goes on in steps. `ticket` is the lock that it waited for.
    pub(crate) fn begin_task_here(
        &mut self,
        id: ConnectionId,
        found: Found,
        argv: &Argv<'_>,
        task: Box<dyn Task>,
        ticket: Option<Ticket>,
        nanos: u64,
    ) {
        let Some(connection) = self.connection(id) else { return self.unlock(ticket) };
        connection.waiting = true;
        let call = Call::of(found.command, usize::from(connection.db), connection.proto);
        let asker = self.asker(id);
        if asker.remembers {
            self.remember(asker.client, found.command, argv);
        }
        let ticket = self.lock_target(&*task, call.db, ticket);
        let shown = shown_args(found.command, argv);
        let reader = task.target().is_none().then_some(id);
        let of = TaskOf { call, index: found.index, client: asker.client, at_once: false };
        self.begin_task(task, found.command.name, reader, nanos, move |core, task, nanos| {
            let mut reply = Vec::new();
            let long = core.end_task(task, of, &mut reply);
            core.unlock(ticket);
            core.book_task(Sender::Here(id), found, nanos, shown);
            core.answer_long(id, &reply, long);
        });
    }

    /// A request of core `from`, alone in its batch, goes on in steps. `shown` is what the slow log shows of it; `ticket`
    /// is the lock that it waited for.
    pub(crate) fn begin_task_for(
        &mut self,
        from: usize,
        mut alone: Box<Batch>,
        shown: Vec<Vec<u8>>,
        task: Box<dyn Task>,
        ticket: Option<Ticket>,
        nanos: u64,
    ) {
        let entry = alone.entries[0];
        let found = Found { command: entry.command, index: usize::from(entry.index) };
        let call = Call::of(found.command, usize::from(entry.db), entry.proto);
        let ticket = self.lock_target(&*task, call.db, ticket);
        let client = Reader { core: from, id: entry.connection };
        let of = TaskOf { call, index: found.index, client, at_once: false };
        self.begin_task(task, call.name, None, nanos, move |core, task, nanos| {
            let mut replies = std::mem::take(&mut alone.replies);
            let long = core.end_task(task, of, &mut replies);
            core.unlock(ticket);
            core.book_task(Sender::There(from, entry.connection), found, nanos, shown);
            alone.longs.extend(long.map(|long| (0, long)));
            alone.ends.push(replies.len() as u32);
            alone.replies = replies;
            core.send_published();
            core.post(from, Message::Replies(alone));
        });
    }

    /// Counts a command that was done in steps once, with the time that all of them took.
    fn book_task(&mut self, sender: Sender, found: Found, nanos: u64, shown: Vec<Vec<u8>>) {
        self.stats.book(found.index, nanos, 1);
        if self.stats.is_notable(nanos) {
            self.note_slow_shown(sender, found.command, nanos, shown);
        }
    }

    /// Does `work` when all commands that are to store something have done so: now, if there is none.
    pub(crate) fn behind_tasks(&mut self, work: impl FnOnce(&mut Core) + 'static) {
        if self.tasks.is_storing() {
            self.tasks.behind.push(Box::new(work));
        } else {
            work(self);
        }
    }

    /// Looks up what a task wants to know, each key on its shard. The task goes on when all have told something; what they
    /// have not come to is asked again.
    fn ask_for(&mut self, mut running: Running) {
        let (past, storing) = (running.past(), usize::from(running.task.target().is_some()));
        let mut parts: Vec<(Vec<usize>, Vec<Wanted>)> = vec![Default::default(); self.shared.peers.len()];
        for (at, (wanted, told)) in running.asked.iter().enumerate() {
            if told.is_none() {
                let part = &mut parts[self.shared.owner(self.ks.hash(&wanted.key))];
                part.0.push(at);
                part.1.push(wanted.clone());
            }
        }
        let parts = parts.into_iter().enumerate().filter(|(_, (places, _))| !places.is_empty());
        let parts: Vec<_> = parts.collect();
        self.tasks.asking += storing;
        let question = |(to, (places, wanted)): (usize, (Vec<usize>, Vec<Wanted>))| {
            (to, move |core: &mut Core, replier: Replier<Vec<_>>| {
                let found = look_back(&mut core.ks, past, wanted.iter());
                core.after_command();
                replier.reply(core, places.into_iter().zip(found).collect());
            })
        };
        let questions: Vec<_> = parts.into_iter().map(question).collect();
        self.ask_each(questions.into_iter(), move |core, found| {
            for (at, found) in found.into_iter().flatten() {
                running.asked[at].1 = Some(found);
            }
            core.tasks.asking -= storing;
            running.tell();
            core.tasks.running.push_back(running);
        });
    }

    /// Nobody looks back into a past any more, on any shard.
    pub(crate) fn end_past(&mut self, past: PastId) {
        self.ask_all(move |core| core.ks.end_past(past), |_, _| ());
    }

    /// Does a slice of the tasks; true if there is more.
    pub(crate) fn work_on_tasks(&mut self) -> bool {
        let slice = Instant::now();
        'tasks: while let Some(mut running) = self.tasks.running.pop_front() {
            if running.reader.is_some_and(|id| self.connection(id).is_none()) {
                running.past.into_iter().for_each(|past| self.end_past(past));
                running.task.into_held().into_iter().for_each(|held| self.ks.discard(held));
                continue;
            }
            set_running(running.name);
            let started = Instant::now();
            let is_over = loop {
                if running.asked.is_empty() {
                    if running.task.step() {
                        break true;
                    }
                    if let Some(past) = running.past
                        && running.task.past().is_none()
                    {
                        running.past = None;
                        self.end_past(past);
                    }
                    running.asked.extend(running.task.asks().into_iter().map(|wanted| (wanted, None)));
                }
                if !running.asked.is_empty() {
                    if self.shared.peers.len() > 1 {
                        running.nanos += started.elapsed().as_nanos() as u64;
                        self.ask_for(running);
                        continue 'tasks;
                    }
                    let wanted = running.asked.iter().map(|(wanted, _)| wanted);
                    let found = look_back(&mut self.ks, running.past(), wanted);
                    for ((_, told), found) in running.asked.iter_mut().zip(found) {
                        *told = Some(found);
                    }
                    running.tell();
                }
                if slice.elapsed() > SLICE {
                    break false;
                }
            };
            running.nanos += started.elapsed().as_nanos() as u64;
            if !is_over {
                self.tasks.running.push_back(running);
                return true;
            }
            let Running { task, past, nanos, then, .. } = running;
            past.into_iter().for_each(|past| self.end_past(past));
            then(self, task, nanos);
            if !self.tasks.behind.is_empty() && !self.tasks.is_storing() {
                for work in std::mem::take(&mut self.tasks.behind) {
                    work(self);
                }
            }
            if slice.elapsed() > SLICE {
                break;
            }
        }
        !self.tasks.is_empty()
    }
}
