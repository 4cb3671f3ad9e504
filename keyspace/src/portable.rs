//! A key with all it holds, detached from any shard: what travels when an operation needs keys of several shards in
//! one place.

use crate::{Expiry, Keyspace, Object, Removed, UnixMs, Value};

/// See the module's head.
#[derive(Clone)]
pub struct Portable {
    value: PortableValue,
    expire_at: Option<UnixMs>,
    sticky: bool,
    mc_flags: u32,
}

#[derive(Clone)]
enum PortableValue {
    Int(i64),
    Text(Vec<u8>),
    Edited(Vec<u8>),
    Object(Object),
}

impl PortableValue {
    fn of_bytes(bytes: &[u8], edited: bool) -> PortableValue {
        if edited { PortableValue::Edited(bytes.to_vec()) } else { PortableValue::Text(bytes.to_vec()) }
    }
}

impl Keyspace {
    /// A copy of a key that is there now.
    pub fn export(&mut self, db: usize, key: &[u8]) -> Option<Portable> {
        let loc = self.find(db, key)?;
        let table = self.table(db);
        let value = match table.value(loc) {
            Value::Int(number) => PortableValue::Int(number),
            Value::Str(bytes) => PortableValue::of_bytes(bytes, table.is_edited(loc)),
            Value::Object(object) => PortableValue::Object(object.clone()),
        };
        Some(Portable {
            value,
            expire_at: table.expire_at(loc),
            sticky: table.is_sticky(loc),
            mc_flags: table.mc_flags(loc),
        })
    }

    /// Takes a key out with all it holds, for RENAME and MOVE: exporting and removing would copy a collection first.
    pub fn take(&mut self, db: usize, key: &[u8]) -> Option<Portable> {
        let loc = self.find(db, key)?;
        let table = self.table_mut(db);
        let (expire_at, sticky, mc_flags) = (table.expire_at(loc), table.is_sticky(loc), table.mc_flags(loc));
        let string = match table.value(loc) {
            Value::Int(number) => Some(PortableValue::Int(number)),
            Value::Str(bytes) => Some(PortableValue::of_bytes(bytes, table.is_edited(loc))),
            Value::Object(_) => None,
        };
        let value = match table.remove(loc) {
            Removed::String => string.expect("a string was there"),
            Removed::Object(object) => PortableValue::Object(object),
        };
        Some(Portable { value, expire_at, sticky, mc_flags })
    }

    /// Puts a key in place of what is there; None removes it.
    pub fn import(&mut self, db: usize, key: &[u8], portable: Option<Portable>) {
        let Some(portable) = portable else {
            self.remove(db, key);
            return;
        };
        let expiry = portable.expire_at.map_or(Expiry::Never, Expiry::At);
        match portable.value {
            PortableValue::Int(number) => self.set_string(db, key, number.to_string().as_bytes(), expiry),
            PortableValue::Text(bytes) => self.set_text(db, key, &bytes, expiry),
            PortableValue::Edited(bytes) => self.set_edited(db, key, bytes, expiry),
            PortableValue::Object(object) => self.set_object(db, key, object, expiry),
        }
        // Looked up without regard to time: what is imported may expire this very millisecond.
        let hash = self.hash(key);
        let table = self.table_mut(db);
        let loc = table.find(hash, key).expect("just stored");
        table.set_sticky(loc, portable.sticky);
        if table.mc_flags(loc) != portable.mc_flags {
            table.set_mc_flags(loc, portable.mc_flags);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Expiry, Keyspace, Options};

    /// Everything about a key survives the trip, and None takes a key away.
    #[test]
    fn there_and_back() {
        let options = Options { databases: 2, hash_seed: 1, random_seed: 1 };
        let (mut one, mut other) = (Keyspace::new(&options), Keyspace::new(&options));
        for (key, value, expiry) in [
            (&b"a"[..], &b"12"[..], Expiry::Never),
            (b"b", b"text", Expiry::At(5000)),
            (b"c", b"", Expiry::Never),
        ] {
            one.set_string(1, key, value, expiry);
            let loc = one.find(1, key).expect("there");
            one.table_mut(1).set_sticky(loc, key == b"a");
            one.table_mut(1).set_mc_flags(loc, 7);
            let portable = one.export(1, key);
            other.import(0, key, portable);
            let loc = other.find(0, key).expect("arrived");
            let table = other.table(0);
            assert_eq!(table.expire_at(loc), if expiry == Expiry::Never { None } else { Some(5000) });
            assert_eq!((table.is_sticky(loc), table.mc_flags(loc)), (key == b"a", 7));
            let portable = other.take(0, key);
            assert!(other.find(0, key).is_none());
            other.import(1, key, portable);
            let loc = other.find(1, key).expect("moved on");
            let table = other.table(1);
            assert_eq!(table.expire_at(loc), if expiry == Expiry::Never { None } else { Some(5000) });
            assert_eq!((table.is_sticky(loc), table.mc_flags(loc)), (key == b"a", 7));
            assert_eq!(table.type_at(loc), crate::Type::String);
            other.import(1, key, None);
            assert!(other.find(1, key).is_none());
        }
        assert!(one.export(0, b"a").is_none());
    }
}
