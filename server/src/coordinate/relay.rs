//! One element from a key of one shard to a key of another: SMOVE, LMOVE.
//!
//! Look at the source, put into the target, take from the source: see `damselfly_commands::Relay`. The target is
//! unlocked with the second step and the source with the third, so whoever has seen the element in the target still
//! waits for the source. Three messages, and what they carry is the element.

use std::collections::BTreeMap;
use std::sync::Arc;

use damselfly_commands::{CommandError, Looked, Parcel, Relay};

use super::{Args, Held, Request};
use crate::core::Core;
use crate::locks::{Scope, Ticket, lock_number};

/// A relay that holds its locks.
struct Running {
    relay: &'static Relay,
    request: Request,
    args: Arc<Args>,
    source: (usize, Option<Ticket>),
    target: (usize, Option<Ticket>),
}

impl Core {
    /// Carries out a command whose two keys, in `parts`, are on two shards.
    pub(super) fn relay(
        &mut self,
        relay: &'static Relay,
        request: Request,
        parts: &BTreeMap<usize, Vec<usize>>,
    ) {
        let argv = request.owned.argv();
        let db = usize::from(request.db);
        let mut scopes = BTreeMap::new();
        let (mut source, mut target) = (0, 0);
        for (core, positions) in parts {
            let [at] = positions[..] else { unreachable!("a relay has two keys, and here two shards") };
            if at == 1 {
                source = *core
            } else {
                target = *core
            }
            scopes.insert(*core, Scope::Keys(vec![lock_number(db, self.ks.hash(&argv[at]))]));
        }
        self.lock_for(request.id, scopes, move |core, held| {
            core.relay_held(relay, request, source, target, &held);
        });
    }

    /// As [`Core::relay`], under locks that are already held.
    pub(super) fn relay_held(
        &mut self,
        relay: &'static Relay,
        request: Request,
        source: usize,
        target: usize,
        held: &Held,
    ) {
        let args = Arc::new(request.owned.to_args());
        let ticket = |of: usize| *held.iter().find(|(core, _)| *core == of).expect("both were locked");
        let (source, target) = (ticket(source), ticket(target));
        Running { relay, request, args, source, target }.look(self);
    }
}

impl Running {
    fn look(self, core: &mut Core) {
        let (look, call, args) = (self.relay.look, self.request.call(), self.args.clone());
        core.ask(
            self.source.0,
            move |core| core.step(call, &args, look),
            move |core, (looked, reply, nanos)| self.put(core, looked, reply, nanos),
        );
    }

    fn put(self, core: &mut Core, looked: Result<Looked, CommandError>, reply: Vec<u8>, nanos: u64) {
        let (_, ticket) = self.target;
        let parcel = match looked {
            Ok(Looked::Found(parcel)) => parcel,
            over => {
                let unlock = move |core: &mut Core| core.unlock(ticket);
                let failed = over.err();
                core.ask(self.target.0, unlock, move |core, ()| self.take(core, None, failed, reply, nanos));
                return;
            }
        };
        let (put, call, args) = (self.relay.put, self.request.call(), self.args.clone());
        core.ask(
            self.target.0,
            move |core| {
                let (done, reply, nanos) = core.step(call, &args, |cx, args| put(cx, args, parcel.as_ref()));
                core.unlock(ticket);
                (parcel, done, reply, nanos)
            },
            move |core, (parcel, done, reply, more)| {
                let parcel = parcel.filter(|_| done.is_ok());
                self.take(core, parcel, done.err(), reply, nanos + more);
            },
        );
    }

    fn take(
        self,
        core: &mut Core,
        parcel: Option<Parcel>,
        failed: Option<CommandError>,
        reply: Vec<u8>,
        nanos: u64,
    ) {
        let (take, call, args, (_, ticket)) =
            (self.relay.take, self.request.call(), self.args.clone(), self.source);
        core.ask(
            self.source.0,
            move |core| {
                let mut nanos = 0;
                if let Some(parcel) = parcel {
                    nanos = core
                        .step(call, &args, |cx, args| {
                            take(cx, args, &parcel);
                            Ok(())
                        })
                        .2;
                }
                core.unlock(ticket);
                nanos
            },
            move |core, more| self.request.finish(core, failed, &reply, nanos + more),
        );
    }
}
