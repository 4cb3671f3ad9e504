//! What follows from changes of keys: those who watch or wait are told.
//!
//! The keyspace records what happens to keys only while somebody cares ([`Core::observe`] says so); after each command
//! the record is handed round here, and nowhere else.

use crate::core::Core;

impl Core {
    /// Hands round what a command changed. Called after each one.
    #[inline]
    pub(crate) fn after_command(&mut self) {
        if self.ks.has_events() {
            self.hand_round();
        }
    }

    #[cold]
    fn hand_round(&mut self) {
        for event in self.ks.take_events() {
            self.watches.touch(event.db, &event.key);
        }
    }

    /// Switches the recording of changes on or off. To be called whenever somebody begins or ceases to care.
    pub(crate) fn observe(&mut self) {
        self.ks.observed = !self.watches.is_empty();
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
