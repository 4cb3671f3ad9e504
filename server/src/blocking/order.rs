//! Who is served by which key when an operation over several shards has brought several.
//!
//! Those who wait are served by the key that something happened to first, as if there were one shard. Within a shard
//! that is the order in which its keys became ready. Somebody who waits for keys of several shards could be served on
//! each of them when a transaction or a script gives its locks back; so while there is such a waiter anywhere, ready
//! keys are served one after the other, over all shards and in their order, before that.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicIsize, Ordering};
use std::time::Instant;

use crate::coordinate::Held;
use crate::core::Core;
use crate::locks::{Ticket, lock_number};
use crate::tracking::Reader;

/// When something happened to a key: the time, and the number of the command among those that began together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(Instant, usize);

impl Moment {
    /// Now, where commands run one after the other.
    pub fn now() -> Moment {
        Moment::of_step(Instant::now(), 0)
    }

    /// That of a command of a transaction whose commands on different shards begin together.
    pub fn of_step(began: Instant, step: usize) -> Moment {
        Moment(began, step)
    }
}

/// How many clients of all cores wait for data. Who has locked all keys of an operation knows of all who wait for them:
/// they registered under locks, too.
#[derive(Debug, Default)]
pub struct Waiting {
    all: AtomicIsize,
    /// Those who wait for keys of several shards.
    spanning: AtomicIsize,
}

impl Waiting {
    /// One more, or one less.
    pub fn note(&self, spans: bool, change: isize) {
        self.all.fetch_add(change, Ordering::Relaxed);
        if spans {
            self.spanning.fetch_add(change, Ordering::Relaxed);
        }
    }

    fn is_anybody(&self) -> bool {
        self.all.load(Ordering::Relaxed) > 0
    }

    fn is_spanning(&self) -> bool {
        self.spanning.load(Ordering::Relaxed) > 0
    }
}

/// A key with waiters that something happened to.
pub(super) struct ReadyKey {
    pub db: usize,
    pub key: Box<[u8]>,
    pub since: Moment,
}

impl Core {
    /// Tells what a command of a transaction changed, if somebody might be served by the time of that.
    pub(crate) fn date_events(&mut self, client: Reader, moment: impl FnOnce() -> Moment) {
        if self.ks.has_events() && self.shared.waiting.is_spanning() {
            self.blocked.moment = Some(moment());
            self.tell(Some(client));
            self.blocked.moment = None;
        }
    }

    /// Gives locks on several cores back, and goes on once those have been served who waited for what was done under
    /// them.
    pub(crate) fn unlock_all_then(&mut self, held: Held, then: impl FnOnce(&mut Core) + 'static) {
        let tickets = held.iter().filter(|(_, ticket)| ticket.is_some()).count();
        if tickets == 0 || !self.shared.waiting.is_anybody() {
            self.unlock_all(held);
            then(self);
        } else if tickets > 1 && self.shared.waiting.is_spanning() {
            self.serve_in_order(held, then);
        } else {
            self.unlock_all_and_wait(held, then);
        }
    }

    fn unlock_all_and_wait(&mut self, held: Held, then: impl FnOnce(&mut Core) + 'static) {
        self.ask_holders(held, |core, ticket| core.unlock(ticket), |core, _| then(core));
    }

    /// Asks all cores on which locks are held the same.
    fn ask_holders<R: Send + 'static>(
        &mut self,
        held: Held,
        work: impl FnOnce(&mut Core, Option<Ticket>) -> R + Clone + Send + 'static,
        then: impl FnOnce(&mut Core, Vec<(usize, R)>) + 'static,
    ) {
        let shards = held.iter().map(|(shard, _)| *shard).collect();
        self.ask_some(
            shards,
            move |core, shard, replier| {
                let ticket = held.iter().find(|(of, _)| *of == shard).and_then(|(_, ticket)| *ticket);
                let answer = work(core, ticket);
                replier.reply(core, answer);
            },
            then,
        );
    }

    /// Serves the keys that the operation has made ready, in the order in which they became so.
    fn serve_in_order(&mut self, held: Held, then: impl FnOnce(&mut Core) + 'static) {
        self.ask_holders(
            held.clone(),
            |core, ticket| core.ready_under(ticket),
            move |core, found| {
                let of_shard = |(shard, keys): (usize, VecDeque<ReadyKey>)| {
                    keys.into_iter().map(move |key| (shard, key))
                };
                let mut all: Vec<(usize, ReadyKey)> = found.into_iter().flat_map(of_shard).collect();
                all.sort_by_key(|(_, key)| key.since);
                core.serve_runs(all.into(), held, then);
            },
        );
    }

    /// Takes the keys that this ticket's operation has made ready here.
    fn ready_under(&mut self, ticket: Option<Ticket>) -> VecDeque<ReadyKey> {
        let is_ours = |ready: &ReadyKey| {
            let number = lock_number(ready.db, self.ks.hash(&ready.key));
            !self.locks.is_locked_for_others(number, ticket)
        };
        let ready = std::mem::take(&mut self.blocked.ready);
        let (ours, others) = ready.into_iter().partition(is_ours);
        self.blocked.ready = others;
        ours
    }

    /// Serves keys, those that follow each other on one shard at once, and then gives the locks back.
    fn serve_runs(
        &mut self,
        mut keys: VecDeque<(usize, ReadyKey)>,
        held: Held,
        then: impl FnOnce(&mut Core) + 'static,
    ) {
        let Some(&(shard, _)) = keys.front() else { return self.unlock_all_and_wait(held, then) };
        let len = keys.iter().take_while(|(of, _)| *of == shard).count();
        let run: Vec<ReadyKey> = keys.drain(..len).map(|(_, key)| key).collect();
        self.ask(
            shard,
            move |core| {
                for ReadyKey { db, key, .. } in &run {
                    core.serve_key(*db, key);
                }
                core.after_command();
            },
            move |core, ()| core.serve_runs(keys, held, then),
        );
    }
}
