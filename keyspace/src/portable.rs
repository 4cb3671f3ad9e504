//! A key with all it holds, detached from any shard: what travels when an operation needs keys of several shards in
//! one place.

use std::sync::Arc;

use crate::{Expiry, Keyspace, Loc, Object, Removed, UnixMs, Value};

/// Length from which a string is shared rather than copied. Such a long one is outside of its entry, and whether it was
/// edited makes no difference.
const LENT_FROM: usize = 64 * 1024;

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
    /// A long string, shared with the key until that changes or goes.
    Lent(Arc<Vec<u8>>),
    Object(Object),
}

impl PortableValue {
    fn of_bytes(bytes: &[u8], edited: bool) -> PortableValue {
        if edited { PortableValue::Edited(bytes.to_vec()) } else { PortableValue::Text(bytes.to_vec()) }
    }
}

impl Keyspace {
    /// The string at a location. A long one is not copied: whoever moves it has it alone then.
    fn portable_string(&mut self, db: usize, loc: Loc) -> Option<PortableValue> {
        match self.table(db).value(loc) {
            Value::Int(number) => return Some(PortableValue::Int(number)),
            Value::Str(bytes) if bytes.len() < LENT_FROM => {
                return Some(PortableValue::of_bytes(bytes, self.table(db).is_edited(loc)));
            }
            Value::Str(_) => {}
            Value::Object(_) => return None,
        }
        self.lend_string(db, loc).map(PortableValue::Lent)
    }

    /// A copy of a key that is there now.
    pub fn export(&mut self, db: usize, key: &[u8]) -> Option<Portable> {
        let loc = self.find(db, key)?;
        let value = match self.portable_string(db, loc) {
            Some(string) => string,
            None => match self.value(db, loc) {
                Value::Object(object) => PortableValue::Object(object.clone()),
                Value::Int(_) | Value::Str(_) => unreachable!("a long string can be lent"),
            },
        };
        // Lending may have moved the entry.
        let loc = self.find(db, key)?;
        let table = self.table(db);
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
        let string = self.portable_string(db, loc);
        let loc = self.find(db, key)?;
        let table = self.table_mut(db);
        let (expire_at, sticky, mc_flags) = (table.expire_at(loc), table.is_sticky(loc), table.mc_flags(loc));
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
            PortableValue::Lent(bytes) => self.set_edited(db, key, Arc::unwrap_or_clone(bytes), expiry),
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
            (b"d", &[b'x'; 100_000], Expiry::At(5000)),
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
            let decimal;
            let bytes = match other.value(1, loc) {
                crate::Value::Str(bytes) => bytes,
                crate::Value::Int(number) => {
                    decimal = number.to_string();
                    decimal.as_bytes()
                }
                crate::Value::Object(_) => panic!("a string"),
            };
            assert_eq!(bytes, value);
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
