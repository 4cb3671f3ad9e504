//! Requests that wait for locks when a script takes long that has them all: they are refused like those that come
//! later, because who waits behind a script that never ends waits for ever.
//!
//! A request that waits has a [`Claim`]. Whoever takes it first decides: the one who has the locks for it runs it, and
//! the one who is told that a script takes long refuses it. The locks are given back when they come.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::batch::Batch;
use crate::connection::ConnectionId;
use crate::core::Core;

/// The right to run or to refuse a request.
#[derive(Clone, Default)]
pub struct Claim(Arc<AtomicBool>);

impl Claim {
    /// True for exactly one caller.
    pub fn take(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}

/// A request of a connection that waits for locks.
pub struct LockWaiter {
    claim: Claim,
    is_exec: bool,
    muted: bool,
}

/// Requests of a connection of another core, of which the first waits for locks.
#[derive(Default)]
pub struct Parked {
    /// In the order in which they came.
    pub queue: std::collections::VecDeque<Box<Batch>>,
    /// That of the first; taken when it runs.
    pub claim: Claim,
}

impl Core {
    /// A request of this core's connection begins to wait for locks.
    pub(crate) fn waits_for_locks(&mut self, id: ConnectionId) -> Claim {
        self.keep_waiter(id, false, false)
    }

    /// The same for EXEC; `muted`: nobody wants its replies; `is_alone`: it is no EXEC to its client.
    pub(crate) fn exec_waits_for_locks(&mut self, id: ConnectionId, muted: bool, is_alone: bool) -> Claim {
        self.keep_waiter(id, !is_alone, muted)
    }

    fn keep_waiter(&mut self, id: ConnectionId, is_exec: bool, muted: bool) -> Claim {
        let claim = Claim::default();
        self.lock_waiters.insert(id, LockWaiter { claim: claim.clone(), is_exec, muted });
        claim
    }

    /// The request has its locks; false if it was refused meanwhile.
    pub(crate) fn has_its_locks(&mut self, id: ConnectionId, claim: &Claim) -> bool {
        claim.take() && self.waits_no_more(id, claim)
    }

    /// A request that another core ran under its locks has been answered; false if it was refused instead.
    pub(crate) fn waits_no_more(&mut self, id: ConnectionId, claim: &Claim) -> bool {
        let is_this = self.lock_waiters.get(&id).is_some_and(|waiter| Arc::ptr_eq(&waiter.claim.0, &claim.0));
        if is_this {
            self.lock_waiters.remove(&id);
        }
        is_this
    }

    /// Refuses all requests that wait for locks here, or for those of connections of this core elsewhere.
    #[cold]
    pub(crate) fn refuse_waiters(&mut self, busy: &'static str) {
        let refused: Vec<(ConnectionId, LockWaiter)> =
            self.lock_waiters.extract_if(|_, waiter| waiter.claim.take()).collect();
        for (id, waiter) in refused {
            let Some(connection) = self.connection(id) else { continue };
            connection.muted |= waiter.muted;
            connection.executing = false;
            let closing = connection.closing;
            if waiter.is_exec {
                self.answer_error_with(id, &exec_refused(busy));
            } else {
                self.answer_error_with(id, busy);
            }
            if closing {
                self.close(id);
            }
        }
        let keys: Vec<_> = self.parked.keys().copied().collect();
        for key in keys {
            let Some(mut parked) = self.parked.remove(&key) else { continue };
            if !parked.claim.take() {
                // The first one runs: it is a script.
                let behind = parked.queue.split_off(1);
                self.parked.insert(key, parked);
                behind.into_iter().for_each(|batch| self.refuse_batch(batch, busy));
                continue;
            }
            parked.queue.into_iter().for_each(|batch| self.refuse_batch(batch, busy));
        }
    }
}

/// What EXEC answers while a script takes long.
pub(crate) fn exec_refused(busy: &str) -> String {
    format!("EXECABORT Transaction discarded because of: {busy}")
}
