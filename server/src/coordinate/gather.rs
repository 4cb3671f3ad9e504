//! A command with very many keys of several shards, which looks at them as they were when it began: begun here, then a
//! task like others (`tasks.rs`).
//!
//! To lock so many keys, and to bring what they hold together, takes as long as the command. So every shard is locked for
//! the instant in which it begins to keep what its keys hold, as for SORT; the target stays locked until the end.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use damselfly_commands::Rest;

use super::{Held, Request};
use crate::core::Core;
use crate::execute::run_handler_for;
use crate::locks::Scope;
use crate::tracking::Asker;

/// Keys of each shard.
type KeysOf = BTreeMap<usize, Vec<Vec<u8>>>;

impl Core {
    /// Carries out a command that gathers; `parts` says which arguments are keys of which shard.
    pub(super) fn gather(&mut self, request: Request, asker: Asker, parts: BTreeMap<usize, Vec<usize>>) {
        let mut remembered = KeysOf::new();
        if asker.remembers {
            let argv = request.owned.argv();
            let keys = |places: Vec<usize>| places.into_iter().map(|at| argv[at].to_vec()).collect();
            remembered.extend(parts.into_iter().map(|(core, places)| (core, keys(places))));
        }
        let scopes = (0..self.shared.peers.len()).map(|core| (core, Scope::Shard)).collect();
        self.lock_for(request.id, scopes, move |core, held| {
            core.begin_gathering(request, asker, remembered, held);
        });
    }

    /// Begins it on all shards, which are locked.
    fn begin_gathering(&mut self, request: Request, asker: Asker, remembered: KeysOf, held: Held) {
        let Some(handler) = request.found.command.run.handler() else {
            unreachable!("only commands over shards gather")
        };
        let started = Instant::now();
        let (mut out, mut rest) = (Vec::new(), None);
        let (call, here, argv) = (request.call(), self.id, request.owned.argv());
        let (ks, env) = (&mut self.ks, &self.env);
        let failed = run_handler_for(call, handler, ks, env, &argv, &mut out, Some(&mut rest));
        self.after_command();
        let nanos = started.elapsed().as_nanos() as u64;
        let Some(Rest::Task(task)) = rest else {
            self.unlock_all(held);
            request.book(self, failed.as_deref(), nanos);
            return self.answer(request.id, &out);
        };
        let past = task.past().expect("a task that gathers");
        let target = task.target().map(|key| self.ks.hash(key));
        let task = Rc::new(RefCell::new(Some((request, task, held))));
        self.ask_all(
            move |core| {
                if core.id != here {
                    core.ks.begin_past(past, call.db, Box::new(|_| true));
                }
                let keys = remembered.get(&core.id).into_iter().flatten();
                keys.for_each(|key| core.remember_key(asker.client, key));
            },
            move |core, _| {
                if let Some((request, task, held)) = task.take() {
                    core.go_on_later(request, task, target, held, nanos);
                }
            },
        );
    }
}
