//! Requests of one core's connections that run on another: batches there, replies back, and those that wait at a lock.

use std::collections::VecDeque;

use damselfly_commands::{Rest, Run};
use damselfly_protocol::{Argv, ReplyWriter};

use super::OUT_OF_MEMORY;
use super::call::{Call, run_handler_for};
use super::prepare::{likely_key, load_ahead};
use super::timing::{LONG, Sender};
use crate::batch::{Batch, Entry};
use crate::connection::ConnectionId;
use crate::core::Core;
use crate::locks::Scope;
use crate::mailbox::Message;
use crate::modes::Modes;
use crate::scripts::{Claim, Parked};
use crate::stats::{Stopwatch, shown_args};
use crate::tracking::Reader;

impl Core {
    /// Puts a request into the batch for another core.
    #[inline]
    pub(crate) fn forward(
        &mut self,
        id: ConnectionId,
        argv: &Argv<'_>,
        command: &'static damselfly_commands::Command,
        index: usize,
        peer: usize,
    ) {
        self.make_way_there(argv);
        let Some(connection) = self.connection(id) else { return };
        let (db, proto) = (connection.db, connection.proto);
        let (remembers, no_touch) = (connection.modes.has(Modes::REMEMBERS), connection.no_touch);
        let hole = connection.leave_hole();
        self.stats.forwarded += 1;
        let batch = self.batch_for(peer);
        let index = index as u16;
        let entry = Entry { connection: id, hole, command, index, db, proto, remembers, no_touch };
        let added = batch.push(entry, argv.iter());
        // A batch is sent long before it reaches what spans can address, unless one request is that large, and the
        // limit on requests is half of it.
        assert!(added, "a request fits a batch");
        if batch.is_full() {
            self.send_requests();
        }
    }

    /// Runs another core's requests and sends the batch back.
    pub(crate) fn run_batch(&mut self, mut batch: Box<Batch>) {
        let from = batch.from;
        let count = batch.entries.len();
        if count > 1 {
            let hashes: Vec<u64> = (0..count)
                .map(|i| likely_key(batch.entries[i].command, &batch.argv(i)))
                .map(|key| key.map_or(0, |key| self.ks.hash(key)))
                .collect();
            let coming = batch.entries.iter().zip(&hashes).enumerate().filter_map(|(at, (entry, hash))| {
                Some((at, self.ks.db(usize::from(entry.db))?, *hash, entry.command))
            });
            load_ahead(coming, |at| batch.argv(at));
        }
        let mut replies = std::mem::take(&mut batch.replies);
        let mut watch = Stopwatch::start();
        for i in 0..count {
            let entry = batch.entries[i];
            if !self.locks.is_idle() || !self.parked.is_empty() {
                let key = (from, entry.connection);
                if self.parked.contains_key(&key) || self.is_locked_for(entry, &batch.argv(i)) {
                    let alone = batch.take_out(i);
                    batch.ends.push(replies.len() as u32);
                    self.park(key, alone);
                    continue;
                }
            }
            if matches!(entry.command.run, Run::Script(_)) {
                let (ran, is_over) = self.script_of_batch(&mut batch, i, &mut replies, &mut watch);
                batch.ends.push(replies.len() as u32);
                if !ran {
                    // It goes on elsewhere, and what follows of the same connection waits for it.
                    let queue = VecDeque::from([batch.take_out(i)]);
                    self.parked.insert((from, entry.connection), Parked { queue, claim: Claim::default() });
                    self.script_entry_widely((from, entry.connection));
                }
                if is_over {
                    break;
                }
                continue;
            }
            match self.run_entry(from, entry, &batch.argv(i), &mut replies, &mut watch) {
                None => {}
                Some(Rest::Reply(long)) => batch.longs.push_back((i, long)),
                Some(Rest::Task(task)) => {
                    // Those behind it need not wait: it has happened, and what it has not changed yet is locked.
                    let shown = shown_args(entry.command, &batch.argv(i));
                    let alone = batch.take_out_reply(i);
                    self.begin_task_for(from, alone, shown, task, None, watch.give_up());
                }
            }
            batch.ends.push(replies.len() as u32);
        }
        watch.stop(&mut self.stats);
        // Those that were answered while a script took long.
        batch.ends.resize(count, replies.len() as u32);
        batch.replies = replies;
        // Who has its reply finds that all who listen to the key were told.
        self.send_published();
        self.post(from, Message::Replies(batch));
    }

    /// Runs a request of another core; what is left of it, if it takes long.
    fn run_entry(
        &mut self,
        from: usize,
        entry: Entry,
        argv: &Argv<'_>,
        replies: &mut Vec<u8>,
        watch: &mut Stopwatch,
    ) -> Option<Rest> {
        let Some(handler) = entry.command.run.handler() else {
            unreachable!("only commands over one shard are forwarded")
        };
        let alone = self.is_timed_alone(entry.command, argv);
        if alone {
            watch.stop(&mut self.stats);
        }
        watch.count(&mut self.stats, usize::from(entry.index));
        let before = replies.len();
        let call = Call::of(entry.command, usize::from(entry.db), entry.proto);
        if !self.admit(entry.command, argv) {
            watch.refuse();
            self.stats.commands[usize::from(entry.index)].rejected += 1;
            self.stats.count_error(OUT_OF_MEMORY);
            ReplyWriter::new(replies, entry.proto).error(OUT_OF_MEMORY);
            return None;
        }
        let (ks, env, mut rest) = (&mut self.ks, &self.env, None);
        ks.leaves_heat = entry.no_touch;
        let failed = run_handler_for(call, handler, ks, env, argv, replies, Some(&mut rest));
        if let Some(error) = failed {
            self.stats.count_error(&error);
            self.stats.count_failed(Some(usize::from(entry.index)));
        }
        let reader = Reader { core: from, id: entry.connection };
        self.after_command_of(reader);
        if entry.remembers {
            self.remember(reader, entry.command, argv);
        }
        let in_steps = matches!(rest, Some(Rest::Task(_)));
        if (alone || replies.len() - before > LONG) && !in_steps {
            self.close_watch(Sender::There(from, entry.connection), entry.command, watch, argv);
        }
        rest
    }

    /// Refuses all requests of a batch because a script takes long on this thread.
    pub(crate) fn refuse_batch(&mut self, mut batch: Box<Batch>, busy: &str) {
        for entry in &batch.entries {
            self.stats.commands[usize::from(entry.index)].rejected += 1;
            self.stats.count_error(busy);
            ReplyWriter::new(&mut batch.replies, entry.proto).error(busy);
            batch.ends.push(batch.replies.len() as u32);
        }
        self.post(batch.from, Message::Replies(batch));
    }

    fn is_locked_for(&mut self, entry: Entry, argv: &Argv<'_>) -> bool {
        self.lock_numbers(entry.command, usize::from(entry.db), argv)
            .iter()
            .any(|number| self.locks.is_locked(*number))
    }

    /// Lets a forwarded request wait for the lock on its key, and those of the same connection behind it.
    fn park(&mut self, key: (usize, ConnectionId), alone: Box<Batch>) {
        let queue = &mut self.parked.entry(key).or_default().queue;
        queue.push_back(alone);
        if queue.len() == 1 {
            self.unpark_when_unlocked(key);
        }
    }

    pub(crate) fn unpark_when_unlocked(&mut self, key: (usize, ConnectionId)) {
        let Some(parked) = self.parked.get_mut(&key) else { return };
        parked.claim = Claim::default();
        let claim = parked.claim.clone();
        let Some(first) = parked.queue.pop_front() else { return };
        let entry = first.entries[0];
        let numbers = self.lock_numbers(entry.command, usize::from(entry.db), &first.argv(0));
        self.parked.get_mut(&key).expect("found above").queue.push_front(first);
        self.lock_plain(Scope::Keys(numbers), move |core, ticket| {
            if !claim.take() {
                return core.unlock(ticket);
            }
            let queue = &mut core.parked.get_mut(&key).expect("parked until it is run").queue;
            let mut alone = queue.pop_front().expect("parked until it is run");
            let mut replies = std::mem::take(&mut alone.replies);
            let mut watch = Stopwatch::start();
            let entry = alone.entries[0];
            let mut task = None;
            if matches!(entry.command.run, Run::Script(_)) {
                let ran =
                    core.script_entry(key.0, entry, &alone.argv(0), Some(ticket), &mut replies, &mut watch);
                if !ran {
                    let parked = core.parked.get_mut(&key).expect("parked until it is run");
                    parked.queue.push_front(alone);
                    parked.claim = Claim::default();
                    core.unlock(ticket);
                    return core.script_entry_widely(key);
                }
            } else {
                match core.run_entry(key.0, entry, &alone.argv(0), &mut replies, &mut watch) {
                    None => {}
                    Some(Rest::Reply(long)) => alone.longs.push_back((0, long)),
                    Some(Rest::Task(left)) => task = Some(left),
                }
            }
            if let Some(task) = task {
                let shown = shown_args(entry.command, &alone.argv(0));
                let alone = alone.take_out_reply(0);
                core.begin_task_for(key.0, alone, shown, task, Some(ticket), watch.give_up());
            } else {
                watch.stop(&mut core.stats);
                alone.ends.push(replies.len() as u32);
                alone.replies = replies;
                core.post(key.0, Message::Replies(alone));
                core.unlock(ticket);
            }
            if core.parked[&key].queue.is_empty() {
                core.parked.remove(&key);
            } else {
                core.unpark_when_unlocked(key);
            }
        });
    }

    /// Gives the replies of a batch to their connections.
    pub(crate) fn take_replies(&mut self, mut batch: Box<Batch>) {
        self.unbook_batch(&mut batch);
        let mut longs = std::mem::take(&mut batch.longs);
        let mut start = 0;
        for (i, (entry, end)) in batch.entries.iter().zip(&batch.ends).enumerate() {
            let reply = &batch.replies[start..*end as usize];
            start = *end as usize;
            if entry.hole == u32::MAX {
                continue;
            }
            let long = longs.pop_front_if(|(number, _)| *number == i).map(|(_, long)| long);
            let mut unwanted = None;
            let whole = match (self.connection(entry.connection), long) {
                (Some(connection), long) if connection.muted => {
                    connection.muted = false;
                    unwanted = long;
                    connection.fill(entry.hole, b"")
                }
                (Some(connection), Some(long)) => connection.fill_long(entry.hole, reply, long),
                (Some(connection), None) => connection.fill(entry.hole, reply),
                (None, long) => {
                    unwanted = long;
                    false
                }
            };
            if let Some(long) = unwanted {
                self.discard_long(*long);
            }
            if whole {
                if self
                    .connection(entry.connection)
                    .is_some_and(|connection| connection.modes.has(Modes::HELD))
                {
                    self.release_held(entry.connection);
                }
                self.pump(entry.connection);
            }
        }
        self.recycle(batch);
    }
}
