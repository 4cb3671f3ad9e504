//! Values in their other forms: as payloads of DUMP and RESTORE, and as the names of OBJECT ENCODING.
//!
//! The one place that must know every type from both sides, so its matches name them all: a type that is added does
//! not compile until it can leave and come back.

use damselfly_json::Document;
use damselfly_keyspace::values::hash::{Hash, Rules};
use damselfly_keyspace::values::zset::SortedSet;
use damselfly_keyspace::{Collection, Db, Expiry, List, Loc, Object, Value};
use damselfly_protocol::number::Decimal;
use damselfly_rdb::{Encoder, Target, dump};
use damselfly_sketches::blocks::Blocks;

use crate::{CommandError, Cx};

mod sketches;

/// Strings up to this length are `embstr` to Redis: they fit one 64-byte allocation with their two headers.
const EMBEDDED_LEN_MAX: usize = 44;

/// The payload of DUMP.
pub(crate) fn to_payload(value: Value<'_, Object>) -> Vec<u8> {
    let (mut encoder, mut payload) = (Encoder::new(Target::Dump), Vec::new());
    match value {
        Value::Int(number) => dump::string(&mut encoder, Decimal::new(number).as_bytes(), &mut payload),
        Value::Str(bytes) => dump::string(&mut encoder, bytes, &mut payload),
        Value::Object(object) => dump::value(&mut encoder, &to_rdb(object), &mut payload),
    }
    payload
}

/// Bytes of a value in the RDB format, its type and the frame of DUMP left out.
pub fn serialized_len(value: Value<'_, Object>) -> usize {
    let cells = cells_len(&value);
    if cells > CELLS_LEN_MAX {
        return cells;
    }
    // The payload begins with the type and ends with two bytes of version and eight of checksum.
    to_payload(value).len() - 11
}

/// Longest run of cells that is written out in one piece: no request could bring a longer one back.
pub(crate) const CELLS_LEN_MAX: usize = 512 << 20;

/// Bytes of a filter's or a sketch's cells, most of which may never have been written and take no memory until they
/// are written out; zero for other types.
pub(crate) fn cells_len(value: &Value<'_, Object>) -> usize {
    let Value::Object(object) = value else { return 0 };
    match object {
        Object::Bloom(bloom) => bloom.filters().iter().map(|filter| filter.bytes().len()).sum(),
        Object::Cuckoo(cuckoo) => cuckoo.filters().iter().map(Blocks::len).sum(),
        Object::CountMin(sketch) => sketch.counters().len(),
        Object::TopK(sketch) => sketch.counters().len(),
        _ => 0,
    }
}

/// A collection as the format sees it.
fn to_rdb(object: &Object) -> damselfly_rdb::Value {
    match object {
        Object::List(list) => damselfly_rdb::Value::List(list.iter().map(|item| item.to_vec()).collect()),
        // Those that have expired go along, with their deadlines: whoever reads them drops them.
        Object::Hash(hash) => {
            let mut fields = Vec::with_capacity(hash.len(0));
            hash.for_each(0, |field| {
                fields.push((field.field.to_vec(), field.value.to_vec(), field.expire_at));
            });
            damselfly_rdb::Value::Hash(fields)
        }
        Object::ZSet(zset) => {
            let mut members = Vec::with_capacity(zset.len());
            zset.for_each(|member, score| members.push((member.to_vec(), score)));
            damselfly_rdb::Value::ZSet(members)
        }
        Object::Json(document) => damselfly_rdb::Value::Json(document.to_json()),
        Object::Bloom(bloom) => sketches::bloom_to_rdb(bloom),
        Object::Cuckoo(cuckoo) => sketches::cuckoo_to_rdb(cuckoo),
        Object::CountMin(sketch) => sketches::count_min_to_rdb(sketch),
        Object::TopK(sketch) => sketches::topk_to_rdb(sketch),
    }
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
        Rdb::List(elements) => {
            let mut list = List::new();
            for element in &elements {
                list.push_back(element);
            }
            store_collection(cx, key, list, expiry)?;
        }
        Rdb::Hash(fields) => {
            let mut hash = Hash::new();
            let rules = Rules { now: cx.ks.now, seed: cx.ks.hash_seed(), limits: cx.env.hash_pack };
            let is_past = |at: Option<u64>| at.is_some_and(|at| at <= rules.now);
            for (field, value, expire_at) in &fields {
                if !is_past(*expire_at) {
                    hash.set(&rules, field, value, expire_at.map_or(Expiry::Never, Expiry::At));
                }
            }
            if hash.is_empty() && !fields.is_empty() {
                // All fields expired on the way: so did what the key had.
                cx.ks.remove(cx.db, key);
                return Ok(());
            }
            store_collection(cx, key, hash, expiry)?;
        }
        Rdb::ZSet(members) => {
            let mut zset = SortedSet::begin(cx.ks.hash_seed());
            let (seed, limits) = (cx.ks.hash_seed(), cx.env.zset_pack);
            for (member, score) in &members {
                zset.insert(seed, member, *score, limits);
            }
            store_collection(cx, key, zset, expiry)?;
        }
        Rdb::Json(text) => {
            let document = Document::parse(&text).map_err(|_| CommandError::BadPayload)?;
            store_collection(cx, key, document, expiry)?;
        }
        Rdb::Bloom(head, filters) => {
            store_collection(cx, key, sketches::bloom_from_rdb(&head, filters)?, expiry)?;
        }
        Rdb::Cuckoo(head, filters) => {
            store_collection(cx, key, sketches::cuckoo_from_rdb(&head, filters)?, expiry)?;
        }
        Rdb::CountMin { width, depth, count, counters } => {
            let sketch = sketches::count_min_from_rdb(width, depth, count, &counters)?;
            store_collection(cx, key, sketch, expiry)?;
        }
        Rdb::TopK(head, items, counters) => {
            store_collection(cx, key, sketches::topk_from_rdb(&head, items, &counters)?, expiry)?;
        }
        Rdb::Set(_) | Rdb::Stream(_) | Rdb::Module { .. } => return Err(CommandError::BadPayload),
    }
    Ok(())
}

/// A collection without elements is no payload that any server wrote.
fn store_collection<C: Collection>(
    cx: &mut Cx<'_>,
    key: &[u8],
    collection: C,
    expiry: Expiry,
) -> Result<(), CommandError> {
    if collection.is_gone() {
        return Err(CommandError::BadPayload);
    }
    cx.set_object(key, collection.wrap(), expiry);
    Ok(())
}

/// What OBJECT ENCODING answers for a key. Redis leaves a string that was edited in an allocation of its own, however
/// short it is, until it is set anew.
pub fn encoding_at(table: &Db, loc: Loc) -> &'static str {
    match table.value(loc) {
        Value::Str(_) if table.is_edited(loc) => "raw",
        value => encoding(value),
    }
}

/// The name for what a value is, whatever happened to it.
fn encoding(value: Value<'_, Object>) -> &'static str {
    match value {
        Value::Int(_) => "int",
        Value::Str(bytes) if bytes.len() <= EMBEDDED_LEN_MAX => "embstr",
        Value::Str(_) => "raw",
        Value::Object(Object::List(list)) => {
            if list.is_pack() {
                "listpack"
            } else {
                "quicklist"
            }
        }
        Value::Object(Object::Hash(Hash::Small(_))) => "listpack",
        Value::Object(Object::Hash(Hash::Timed(_))) => "listpackex",
        Value::Object(Object::Hash(Hash::Big(_))) => "hashtable",
        Value::Object(Object::ZSet(SortedSet::Small(_))) => "listpack",
        Value::Object(Object::ZSet(SortedSet::Big(_))) => "skiplist",
        // Redis knows no encodings of what modules hold.
        Value::Object(
            Object::Json(_) | Object::Bloom(_) | Object::Cuckoo(_) | Object::CountMin(_) | Object::TopK(_),
        ) => "raw",
    }
}
