//! What follows from changes of keys: those who watch, wait or listen are told.
//!
//! The keyspace records what happens to keys only while somebody cares ([`Core::observe`] says so); after each command
//! the record is handed round here, and nowhere else.

use damselfly_config::Events;
use damselfly_keyspace::Event;

use crate::core::Core;
use crate::locks::Ticket;
use crate::tracking::{Reader, Reads};

impl Core {
    /// Hands round what a command changed. Called after each one.
    #[inline]
    pub(crate) fn after_command(&mut self) {
        if self.ks.has_events() {
            self.hand_round(None);
        }
    }

    /// As [`Core::after_command`], if a client has asked for it.
    #[inline]
    pub(crate) fn after_command_of(&mut self, client: Reader) {
        if self.ks.has_events() {
            self.hand_round(Some(client));
        }
    }

    #[cold]
    fn hand_round(&mut self, client: Option<Reader>) {
        self.settle(client, None);
    }

    /// Tells everybody what happened, serves those who waited for it, and tells what that changed, until all is
    /// quiet. `releasing` is a lock about to be given back, whose keys are free for those who wait.
    pub(crate) fn settle(&mut self, mut client: Option<Reader>, releasing: Option<Ticket>) {
        loop {
            self.tell(client);
            // What follows is done by those who waited.
            client = None;
            let served = self.blocked.has_ready() && self.serve_ready(releasing);
            if !served && !self.ks.has_events() {
                return;
            }
        }
    }

    /// Tells everybody what happened. Those who waited for it are served by [`Core::settle`].
    pub(crate) fn tell(&mut self, client: Option<Reader>) {
        for event in self.ks.take_events() {
            self.tell_of(&event, client);
        }
    }

    /// As [`Core::tell`], for a client that has read keys between the changes. What was changed before it read it is no
    /// news to it; of what comes behind it is told.
    pub(crate) fn tell_reader(&mut self, client: Reader, mut reads: Reads) {
        for (number, event) in self.ks.take_events().into_iter().enumerate() {
            if event.class.is_news() && reads.get(&event.key).is_some_and(|events| *events <= number) {
                reads.remove(&event.key);
                self.remember_key(client, &event.key);
            }
            self.tell_of(&event, Some(client));
        }
        for key in reads.keys() {
            self.remember_key(client, key);
        }
        self.observe();
    }

    fn tell_of(&mut self, event: &Event, client: Option<Reader>) {
        if event.class.is_news() {
            self.watches.touch(event.db, &event.key);
            self.invalidate(&event.key, client);
        }
        if event.class.is_change() {
            self.blocked.touch(event.db, &event.key);
        }
        self.notify(event);
    }

    /// Switches the recording of changes on or off. To be called whenever somebody begins or ceases to care.
    pub(crate) fn observe(&mut self) {
        self.ks.observed = !self.watches.is_empty()
            || !self.blocked.is_empty()
            || self.notifications != Events::default()
            || !self.tracking.is_idle();
    }

    /// Removes all keys of a database of this shard.
    pub fn flush(&mut self, db: usize) {
        self.touch_watched(|at| at == db);
        self.ks.flush(db);
        // Those who read a stream for a group are told that it is gone.
        self.blocked.touch_all(db);
        self.settle(None, None);
    }

    /// Exchanges two databases of this shard.
    pub fn swap(&mut self, one: usize, other: usize) {
        // Who watches a key that is not there gets nothing by one that has expired.
        self.let_twins_expire(one, other);
        self.let_twins_expire(other, one);
        self.tell(None);
        self.touch_watched(|at| at == one || at == other);
        self.ks.swap(one, other);
        self.touch_watched(|at| at == one || at == other);
        self.blocked.touch_all(one);
        self.blocked.touch_all(other);
        self.settle(None, None);
    }
}
