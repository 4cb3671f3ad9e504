//! SORT by what other keys hold, over several shards, in the steps of `damselfly_commands::sort`.
//!
//! The elements are brought here and so is what their keys hold, in two rounds of one message per shard: first the
//! weights of all, then what GET wants for those that LIMIT left. Every shard is locked meanwhile, because nobody knows
//! which keys the elements name.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use damselfly_commands::CommandError;
use damselfly_commands::sort::{Elements, Sort, Wanted};

use super::{Args, Held, Request, Step};
use crate::core::Core;
use crate::locks::Scope;

/// Strings that were looked up, in the order in which they were wanted.
type Fetched = Vec<Option<Vec<u8>>>;

/// A SORT that holds its locks.
struct Running {
    request: Request,
    sort: Arc<Sort>,
    held: Held,
    /// What the steps took.
    nanos: u64,
}

impl Core {
    /// Carries out a SORT whose elements name keys.
    pub(super) fn sort(&mut self, request: Request, sort: Sort) {
        let sort = Arc::new(sort);
        let scopes = (0..self.shared.peers.len()).map(|core| (core, Scope::Shard)).collect();
        self.lock_for(request.id, scopes, move |core, held| {
            Running { request, sort, held, nanos: 0 }.elements(core)
        });
    }

    /// Looks strings up on the shards of their keys.
    fn fetch(
        &mut self,
        step: Step,
        wanted: Vec<Wanted>,
        then: impl FnOnce(&mut Core, Fetched, u64) + 'static,
    ) {
        let mut parts = BTreeMap::<usize, (Vec<usize>, Vec<Wanted>)>::new();
        let all = Rc::new(RefCell::new(vec![None; wanted.len()]));
        for (at, wanted) in wanted.into_iter().enumerate() {
            let part = parts.entry(self.shared.owner(self.ks.hash(&wanted.key))).or_default();
            part.0.push(at);
            part.1.push(wanted);
        }
        if parts.is_empty() {
            return then(self, Vec::new(), 0);
        }
        let (missing, nanos) = (Rc::new(Cell::new(parts.len())), Rc::new(Cell::new(0)));
        let then = Rc::new(Cell::new(Some(then)));
        for (to, (places, wanted)) in parts {
            let (all, missing, nanos, then) = (all.clone(), missing.clone(), nanos.clone(), then.clone());
            self.ask(
                to,
                move |core| {
                    core.step(step, &Args::default(), |cx, _| {
                        Ok(wanted.iter().map(|wanted| wanted.fetch(cx)).collect::<Fetched>())
                    })
                },
                move |core, (fetched, _, took)| {
                    for (at, value) in places.into_iter().zip(fetched.unwrap_or_default()) {
                        all.borrow_mut()[at] = value;
                    }
                    nanos.set(nanos.get() + took);
                    missing.set(missing.get() - 1);
                    if missing.get() == 0
                        && let Some(then) = then.take()
                    {
                        let all = all.take();
                        then(core, all, nanos.get());
                    }
                },
            );
        }
    }
}

impl Running {
    fn step(&self) -> Step {
        Step { name: self.request.command.name, db: self.request.db, proto: self.request.proto }
    }

    fn elements(mut self, core: &mut Core) {
        let (step, sort) = (self.step(), self.sort.clone());
        let owner = core.shared.owner(core.ks.hash(sort.key()));
        core.ask(
            owner,
            move |core| core.step(step, &Args::default(), |cx, _| sort.elements(cx)),
            move |core, (elements, _, nanos)| {
                self.nanos += nanos;
                match elements {
                    Ok(elements) => self.weights(core, elements),
                    Err(error) => self.end(core, Some(error), b""),
                }
            },
        );
    }

    fn weights(mut self, core: &mut Core, elements: Elements) {
        let wanted = self.sort.weights_wanted(&elements);
        core.fetch(self.step(), wanted, move |core, weights, nanos| {
            let started = Instant::now();
            let ordered = self.sort.order(elements, weights);
            self.nanos += nanos + started.elapsed().as_nanos() as u64;
            match ordered {
                Ok(ordered) => self.results(core, ordered),
                Err(error) => self.end(core, Some(error), b""),
            }
        });
    }

    fn results(mut self, core: &mut Core, ordered: Vec<Vec<u8>>) {
        let wanted = self.sort.results_wanted(&ordered);
        core.fetch(self.step(), wanted, move |core, fetched, nanos| {
            self.nanos += nanos;
            let results = self.sort.results(ordered, fetched);
            let (step, sort) = (self.step(), self.sort.clone());
            let to = match sort.target() {
                Some(target) => core.shared.owner(core.ks.hash(target)),
                None => core.id,
            };
            core.ask(
                to,
                move |core| {
                    core.step(step, &Args::default(), |cx, _| {
                        sort.finish(cx, results);
                        Ok(())
                    })
                },
                move |core, (_, reply, nanos)| {
                    self.nanos += nanos;
                    self.end(core, None, &reply);
                },
            );
        });
    }

    /// Gives all locks back and answers. What the connection sends next comes behind the locks' release.
    fn end(self, core: &mut Core, failed: Option<CommandError>, reply: &[u8]) {
        for (to, ticket) in self.held {
            core.ask(to, move |core| core.unlock(ticket), |_, ()| ());
        }
        self.request.finish(core, failed, reply, self.nanos);
    }
}
