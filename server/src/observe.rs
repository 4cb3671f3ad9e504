//! What follows from changes of keys: those who watch, wait or listen are told.
//!
//! The keyspace records what happens to keys only while somebody cares ([`Core::observe`] says so); after each command
//! the record is handed round here, and nowhere else.

use damselfly_config::Events;

use crate::core::Core;
use crate::tracking::Reader;

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
        for event in self.ks.take_events() {
            // What a group reads and acknowledges is no change to those who watch the stream, as in Redis.
            if event.class.is_change() && event.class != damselfly_keyspace::Class::Quiet {
                self.watches.touch(event.db, &event.key);
                self.invalidate(&event.key, client);
            }
            self.notify(&event);
        }
    }

    /// Switches the recording of changes on or off. To be called whenever somebody begins or ceases to care.
    pub(crate) fn observe(&mut self) {
        self.ks.observed =
            !self.watches.is_empty() || self.notifications != Events::default() || !self.tracking.is_idle();
    }

    /// Removes all keys of a database of this shard.
    pub fn flush(&mut self, db: usize) {
        self.touch_watched(|at| at == db);
        self.ks.flush(db);
    }

    /// Exchanges two databases of this shard.
    pub fn swap(&mut self, one: usize, other: usize) {
        self.touch_watched(|at| at == one || at == other);
        self.ks.swap(one, other);
        self.touch_watched(|at| at == one || at == other);
    }
}
