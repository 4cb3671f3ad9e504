//! Keyspace notifications: what happens to keys, published (`notify-keyspace-events`).
//!
//! The core of a shard publishes its own events, on `__keyspace@DB__:KEY` and `__keyevent@DB__:EVENT`, as any client
//! could. Nothing is recorded while no class is on, and nothing is put together while nobody is subscribed to anything.

use damselfly_config::Events;
use damselfly_keyspace::{Class, Event};
use damselfly_protocol::number::Decimal;

use crate::core::Core;

/// What the setting calls a class; None for one that is never published.
fn setting_of(class: Class) -> Option<Events> {
    Some(match class {
        Class::Quiet => return None,
        Class::Generic => Events::GENERIC,
        Class::String => Events::STRING,
        Class::List => Events::LIST,
        Class::Set => Events::SET,
        Class::Hash => Events::HASH,
        Class::ZSet => Events::ZSET,
        Class::Expired => Events::EXPIRED,
        Class::Evicted => Events::EVICTED,
        Class::Stream | Class::Group => Events::STREAM,
        Class::KeyMiss => Events::KEY_MISS,
        Class::Module => Events::MODULE,
        Class::New => Events::NEW,
    })
}

/// `__kind@db__:rest`
fn channel(kind: &str, db: usize, rest: &[u8], into: &mut Vec<u8>) {
    into.clear();
    for part in [b"__", kind.as_bytes(), b"@", Decimal::new(db as i64).as_bytes(), b"__:", rest] {
        into.extend_from_slice(part);
    }
}

impl Core {
    /// Takes the setting; from the next command on it holds on this core.
    pub(crate) fn set_notifications(&mut self, events: Events) {
        let channels = events.contains(Events::KEYSPACE) || events.contains(Events::KEYEVENT);
        self.notifications = if channels { events } else { Events::default() };
        self.ks.notes_misses = self.notifications.contains(Events::KEY_MISS);
        self.ks.notes_new = self.notifications.contains(Events::NEW);
        self.observe();
    }

    /// Publishes an event if its class is on.
    pub(crate) fn notify(&mut self, event: &Event) {
        let events = self.notifications;
        if !setting_of(event.class).is_some_and(|class| events.publishes(class))
            || self.shared.registry.is_empty()
        {
            return;
        }
        let mut name = Vec::with_capacity(event.key.len() + 24);
        if events.contains(Events::KEYSPACE) {
            channel("keyspace", event.db, &event.key, &mut name);
            self.publish(&name, event.name.as_bytes());
        }
        if events.contains(Events::KEYEVENT) {
            channel("keyevent", event.db, event.name.as_bytes(), &mut name);
            self.publish(&name, &event.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names as Redis documents them.
    #[test]
    fn names() {
        let mut name = Vec::new();
        channel("keyspace", 0, b"k:1", &mut name);
        assert_eq!(name, b"__keyspace@0__:k:1");
        channel("keyevent", 15, b"del", &mut name);
        assert_eq!(name, b"__keyevent@15__:del");
    }
}
