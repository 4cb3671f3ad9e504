//! SORT by what other keys hold, over several shards: begun here, then a task like others (`tasks.rs`).
//!
//! Nobody knows which keys the elements name. So every shard is locked for the instant in which it begins to keep what
//! such keys hold (`Keyspace::begin_past`), and the source's shard makes a clone; the target stays locked until the end.

use std::sync::Arc;

use damselfly_commands::Task;
use damselfly_commands::sort::Sort;

use super::{Args, Held, Request};
use crate::core::Core;
use crate::locks::{Scope, lock_number};
use crate::tasks::TaskOf;
use crate::tracking::Reader;

impl Core {
    /// Carries out a SORT whose elements name keys.
    pub(super) fn sort(&mut self, request: Request, sort: Sort) {
        let scopes = (0..self.shared.peers.len()).map(|core| (core, Scope::Shard)).collect();
        self.lock_for(request.id, scopes, move |core, held| core.begin_sort(request, sort, held));
    }

    /// Begins it on all shards, which are locked.
    fn begin_sort(&mut self, request: Request, sort: Sort, held: Held) {
        let (call, owner) = (request.call(), self.shared.owner(self.ks.hash(sort.key())));
        let target = sort.target().map(|key| self.ks.hash(key));
        // Two that are under way at once have different numbers.
        let past = self.ks.random();
        let sort = Arc::new(sort);
        self.ask_all(
            move |core| {
                core.ks.begin_past(past, call.db, sort.concerned());
                let is_here = core.id == owner;
                is_here.then(|| core.step(call, &Args::default(), |cx, _| sort.begin(cx, past)))
            },
            move |core, begun| match begun.into_iter().flatten().next() {
                Some((Ok(task), _, nanos)) => core.go_on_later(request, task, target, held, nanos),
                Some((Err(error), _, nanos)) => {
                    core.end_past(past);
                    core.unlock_all(held);
                    request.finish(core, Some(error), b"", nanos);
                }
                None => unreachable!("the source has an owner"),
            },
        );
    }

    /// Gives all locks back but that of the target, and leaves the rest to the task.
    pub(super) fn go_on_later(
        &mut self,
        request: Request,
        task: Box<dyn Task>,
        target: Option<u64>,
        held: Held,
        nanos: u64,
    ) {
        let (id, call) = (request.id, request.call());
        let end_at = target.map_or(self.id, |hash| self.shared.owner(hash));
        // Within a transaction, which has the locks, the reply is to be whole when the next command comes.
        let at_once = held.iter().all(|(_, ticket)| ticket.is_none());
        let ticket = target.and(held.iter().find(|(to, _)| *to == end_at)).and_then(|(_, ticket)| *ticket);
        let kept = target.map(|hash| lock_number(call.db, hash));
        for (to, ticket) in held {
            let kept = kept.filter(|_| to == end_at);
            self.run_on(to, move |core| match (ticket, kept) {
                (Some(ticket), Some(number)) => core.narrow(ticket, &[number]),
                (ticket, _) => core.unlock(ticket),
            });
        }
        let client = Reader { core: self.id, id };
        let of = TaskOf { call, index: request.found.index, client, at_once };
        let reader = (target.is_none() && !at_once).then_some(id);
        self.begin_task(task, call.name, reader, nanos, move |core, task, nanos| {
            core.end_task_at((end_at, ticket), task, of, move |core, reply, long| {
                request.book(core, None, nanos);
                core.answer_long(id, &reply, long);
            });
        });
    }
}
