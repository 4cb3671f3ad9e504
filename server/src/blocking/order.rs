//! Who is served by which key when an operation over several shards has brought several.
//!
//! Those who wait are served by the key that something happened to first, as if there were one shard. Within a shard
//! that is the order in which its keys became ready. Somebody who waits for keys of several shards could be served on
//! each of them when a transaction or a script gives its locks back; so while there is such a waiter anywhere, ready
//! keys are served one after the other, over all shards and in their order, before that. So they are while a move waits
//! whose target is on another shard: it is done under the locks of who brought something to its source.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicIsize, Ordering};
use std::time::Instant;

use super::Waiter;
use crate::coordinate::Held;
use crate::core::{Core, Work};
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
        if self.ks.has_events() && self.serves_by_time() {
            self.blocked.moment = Some(moment());
            self.tell(Some(client));
            self.blocked.moment = None;
        }
    }

    /// Whether keys of several shards that become ready together are served one after the other.
    fn serves_by_time(&self) -> bool {
        self.shared.waiting.is_spanning() || self.shared.moves.is_roaming()
    }

    /// Gives locks on several cores back, and goes on once those have been served who waited for what was done under
    /// them.
    pub(crate) fn unlock_all_then(&mut self, held: Held, then: impl FnOnce(&mut Core) + 'static) {
        let tickets = held.iter().filter(|(_, ticket)| ticket.is_some()).count();
        if tickets == 0 || !self.shared.waiting.is_anybody() {
            self.unlock_all(held);
            then(self);
        } else if tickets > 1 && self.serves_by_time() || self.shared.moves.is_roaming() {
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
                let answer = work(core, ticket_on(&held, shard));
                replier.reply(core, answer);
            },
            then,
        );
    }

    /// Serves the keys that the operation has made ready, in the order in which they became so, then those that became
    /// ready by that, and gives the locks back when there is none.
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
                if all.is_empty() {
                    core.unlock_all_and_wait(held, then);
                } else {
                    core.serve_runs(all.into(), held, Box::new(then));
                }
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

    /// Serves keys, those that follow each other on one shard at once.
    fn serve_runs(&mut self, mut keys: VecDeque<(usize, ReadyKey)>, held: Held, then: Work) {
        let Some(&(shard, _)) = keys.front() else { return self.serve_in_order(held, then) };
        let len = keys.iter().take_while(|(of, _)| *of == shard).count();
        let ticket = ticket_on(&held, shard);
        let mut run: VecDeque<ReadyKey> = keys.drain(..len).map(|(_, key)| key).collect();
        self.ask(
            shard,
            move |core| {
                let mut roaming = None;
                while let Some(ReadyKey { db, key, .. }) = run.front() {
                    roaming = core.serve_key(*db, key, ticket).1;
                    if roaming.is_some() {
                        // Those behind it are served when it has its part.
                        break;
                    }
                    run.pop_front();
                }
                core.after_command();
                (run, roaming)
            },
            move |core, (run, roaming)| {
                run.into_iter().rev().for_each(|key| keys.push_front((shard, key)));
                match roaming {
                    None => core.serve_runs(keys, held, then),
                    Some(waiter) => core.serve_move(waiter, keys, held, then),
                }
            },
        );
    }

    /// Lets a claimed waiter whose source is the first of these keys have its move, under the locks that are held.
    fn serve_move(
        &mut self,
        waiter: Arc<Waiter>,
        mut keys: VecDeque<(usize, ReadyKey)>,
        mut held: Held,
        then: Work,
    ) {
        let Some(path) = &waiter.path else { unreachable!("only moves have targets") };
        let (shard, number) = path.target;
        let ticket = ticket_on(&held, shard);
        // It may be one that nobody counted on, because those before it got errors.
        let lock = move |core: &mut Core| core.locks.try_widen(ticket, number);
        self.ask(shard, lock, move |core, locked| {
            if locked.is_none() {
                // Others have the target, and perhaps wait for the source.
                let Some((source, ReadyKey { db, key, .. })) = keys.pop_front() else { return };
                let (moved, then) = both(then);
                core.ask_later(
                    source,
                    move |core, replier| {
                        core.send_for(waiter, db, &key, |core| replier.reply(core, ()));
                    },
                    |core, ()| moved(core),
                );
                return core.serve_runs(keys, held, then);
            }
            if ticket.is_none() {
                held.push((shard, locked));
            }
            let home = waiter.core;
            core.ask_later(
                home,
                move |core, replier| core.carry_out_move_under(&waiter, |core| replier.reply(core, ())),
                move |core, ()| core.serve_runs(keys, held, then),
            );
        });
    }
}

/// The ticket for what is held on a shard.
fn ticket_on(held: &Held, shard: usize) -> Option<Ticket> {
    held.iter().find(|(of, _)| *of == shard).and_then(|(_, ticket)| *ticket)
}

/// Two halves, of which the second to be called goes on.
fn both(then: Work) -> (Work, Work) {
    let then = Rc::new(Cell::new(Some(then)));
    let is_second = Rc::new(Cell::new(false));
    let half = move |then: Rc<Cell<Option<Work>>>, is_second: Rc<Cell<bool>>| -> Work {
        Box::new(move |core| {
            if is_second.replace(true)
                && let Some(then) = then.take()
            {
                then(core);
            }
        })
    };
    (half(then.clone(), is_second.clone()), half(then, is_second))
}
