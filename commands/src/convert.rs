//! Values in their other forms: as payloads of DUMP and RESTORE, and as the names of OBJECT ENCODING.
//!
//! The one place that must know every type from both sides, so its matches name them all: a type that is added does
//! not compile until it can leave and come back.

use damselfly_keyspace::{Expiry, Object, Value};
use damselfly_protocol::number::Decimal;
use damselfly_rdb::{Encoder, Target, dump};

use crate::{CommandError, Cx};

/// Strings up to this length are `embstr` to Redis: they fit one 64-byte allocation with their two headers.
const EMBEDDED_LEN_MAX: usize = 44;

/// The payload of DUMP.
pub(crate) fn to_payload(value: Value<'_, Object>) -> Vec<u8> {
    let (mut encoder, mut payload) = (Encoder::new(Target::Dump), Vec::new());
    match value {
        Value::Int(number) => dump::string(&mut encoder, Decimal::new(number).as_bytes(), &mut payload),
        Value::Str(bytes) => dump::string(&mut encoder, bytes, &mut payload),
        Value::Object(object) => match *object {},
    }
    payload
}

/// Stores a decoded payload under a key, new or not. Announce it.
pub(crate) fn store(
    cx: &mut Cx<'_>,
    key: &[u8],
    value: damselfly_rdb::Value,
    expiry: Expiry,
) -> Result<(), CommandError> {
    use damselfly_rdb::Value as Rdb;
    match value {
        Rdb::String(bytes) => cx.set_string(key, &bytes, expiry),
        Rdb::Json(_)
        | Rdb::List(_)
        | Rdb::Set(_)
        | Rdb::Hash(_)
        | Rdb::ZSet(_)
        | Rdb::Stream(_)
        | Rdb::Bloom(..)
        | Rdb::CountMin { .. }
        | Rdb::TopK(..)
        | Rdb::Cuckoo(..)
        | Rdb::Module { .. } => return Err(CommandError::BadPayload),
    }
    Ok(())
}

/// What OBJECT ENCODING answers.
pub fn encoding(value: Value<'_, Object>) -> &'static str {
    match value {
        Value::Int(_) => "int",
        Value::Str(bytes) if bytes.len() <= EMBEDDED_LEN_MAX => "embstr",
        Value::Str(_) => "raw",
        Value::Object(object) => match *object {},
    }
}
