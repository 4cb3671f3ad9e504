//! What a command over one shard must find unlocked, and how it waits for that.

use std::ops::Range;

use damselfly_commands::sort::Sort;
use damselfly_commands::{Args, Command, Flags, Found, Spread};
use damselfly_protocol::Argv;

use super::Ran;
use super::prepare::Prepared;
use super::timing::Sender;
use crate::connection::{ConnectionId, Queued};
use crate::core::Core;
use crate::locks::{Scope, lock_number};
use crate::modes::Modes;
use crate::stats::Stopwatch;
use crate::tracking::Reader;

impl Core {
    /// Lock numbers of a request's keys, and of what it may reach on this shard.
    pub(crate) fn lock_numbers(
        &mut self,
        command: &damselfly_commands::Command,
        db: usize,
        argv: &Argv<'_>,
    ) -> Vec<u64> {
        let mut positions = std::mem::take(&mut self.positions);
        command.key_positions(argv, &mut positions);
        let mut numbers = Vec::with_capacity(positions.len());
        let dbs = databases_of(command, db, self.ks.databases());
        for &at in &positions {
            let hash = self.ks.hash(&argv[at]);
            numbers.extend(dbs.clone().map(|db| lock_number(db, hash)));
        }
        self.positions = positions;
        let reach = self.reach_of(command, db, argv);
        numbers.extend(reach.on(self.id));
        numbers
    }

    pub(super) fn is_locked(
        &mut self,
        id: ConnectionId,
        command: &damselfly_commands::Command,
        argv: &Argv<'_>,
    ) -> bool {
        let Some(connection) = self.connection(id) else { return false };
        let db = usize::from(connection.db);
        match self.scope_of(command, db, argv) {
            Scope::Keys(numbers) => numbers.iter().any(|number| self.locks.is_locked(*number)),
            Scope::Shard => self.locks.has_tickets(),
        }
    }

    /// What a command over this shard must find unlocked: its keys, or all where nobody knows which these are.
    fn scope_of(&mut self, command: &Command, db: usize, argv: &Argv<'_>) -> Scope {
        if matches!(command.spread, Spread::Sort) && looks_further(command, argv) {
            return Scope::Shard;
        }
        Scope::Keys(self.lock_numbers(command, db, argv))
    }

    /// Runs a request of this core's own connection once its key is unlocked.
    pub(super) fn run_when_unlocked(&mut self, id: ConnectionId, argv: &Argv<'_>, ready: Prepared) {
        let Some(Found { command, index }) = ready.found else { return };
        let Some(connection) = self.connection(id) else { return };
        connection.waiting = true;
        let db = usize::from(connection.db);
        let remembers = connection.modes.has(Modes::REMEMBERS);
        let scope = self.scope_of(command, db, argv);
        let mut kept = Queued::default();
        kept.push(argv);
        let claim = self.waits_for_locks(id);
        self.lock_plain(scope, move |core, ticket| {
            if !core.has_its_locks(id, &claim) {
                return core.unlock(ticket);
            }
            if let (Some(argv), Some(handler)) = (kept.peek(), command.run.handler()) {
                let mut watch = Stopwatch::start();
                watch.count(&mut core.stats, index);
                let found = Found { command, index };
                let ran = core.run_here(id, found, handler, &argv, Some(ticket), &mut watch);
                let Ran::Over(answered, _) = ran else { return };
                if remembers {
                    core.remember(Reader { core: core.id, id }, command, &argv);
                }
                core.close_watch(Sender::Here(id), command, &mut watch, &argv);
                if let Some(connection) = core.connection(id)
                    && std::mem::take(&mut connection.muted)
                {
                    connection.output.truncate(connection.output.len() - answered);
                }
            }
            core.unlock(ticket);
            core.resume(id);
        });
    }
}

/// The databases, of so many, in which a command of a client of database `db` may touch the keys that it names.
pub(crate) fn databases_of(command: &Command, db: usize, databases: usize) -> Range<usize> {
    let all = matches!(command.name, "COPY" | "MOVE");
    if all { 0..databases } else { db..db + 1 }
}

/// Whether a SORT looks at keys that are not among its arguments. One with a mistake looks at none.
pub(crate) fn looks_further(command: &Command, argv: &Argv<'_>) -> bool {
    sort_of(command, argv).is_some_and(|sort| sort.looks_further())
}

/// What a SORT is asked for; None if it has a mistake.
pub(crate) fn sort_of(command: &Command, argv: &Argv<'_>) -> Option<Sort> {
    Sort::parse(Args::behind_name(argv), command.flags.has(Flags::WRITE)).ok()
}
