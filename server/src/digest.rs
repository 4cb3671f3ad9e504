//! DEBUG DIGEST: 160 bits that are equal for equal data, on this server and on Redis.
//!
//! The definition is Redis', so that a test can compare a server with another, a replica or a reloaded snapshot. Two
//! ways of adding bytes to a digest: *xor*, after which the order of what was added does not matter (fields of a
//! hash, keys of a database), and *mix*, after which it does (elements of a list, key and value). A database's keys
//! are xored, so each shard digests its own and the results are xored again.

use damselfly_keyspace::stream::{Digits, StreamId};
use damselfly_keyspace::{Db, Object, Value};
use damselfly_protocol::number::{DOUBLE_LEN_MAX, Decimal, fmt_double_17};
use damselfly_sketches::blocks::Blocks;

use damselfly_protocol::sha1::{LEN, hex, sha1};

/// See the module's head. All zeros before anything was added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest([u8; LEN]);

/// Redis' numbers of types, which go into the digest.
const STRING: u32 = 0;
const LIST: u32 = 1;
const SET: u32 = 2;
const ZSET: u32 = 3;
const HASH: u32 = 4;
const MODULE: u32 = 5;
const STREAM: u32 = 6;

impl Digest {
    /// Adds bytes; the order of such additions does not matter.
    pub fn xor(&mut self, bytes: &[u8]) {
        self.merge(&Digest(sha1(bytes)));
    }

    /// Adds bytes; the order of such additions matters.
    pub fn mix(&mut self, bytes: &[u8]) {
        self.xor(bytes);
        self.0 = sha1(&self.0);
    }

    /// Adds what another digest has xored together.
    pub fn merge(&mut self, other: &Digest) {
        for (byte, other) in self.0.iter_mut().zip(other.0) {
            *byte ^= other;
        }
    }

    /// Adds a value: its type, its content at `now`, and whether it expires.
    pub fn add_value(&mut self, value: Value<'_, Object>, expires: bool, now: u64) {
        match value {
            Value::Int(number) => {
                self.mix(&STRING.to_be_bytes());
                self.mix(Decimal::new(number).as_bytes());
            }
            Value::Str(bytes) => {
                self.mix(&STRING.to_be_bytes());
                self.mix(bytes);
            }
            Value::Object(Object::List(list)) => {
                self.mix(&LIST.to_be_bytes());
                for item in list.iter() {
                    self.mix(item.as_bytes(&mut [0; 20]));
                }
            }
            Value::Object(Object::Hash(hash)) => {
                self.mix(&HASH.to_be_bytes());
                hash.for_each(now, |field| {
                    let mut one = Digest::default();
                    one.mix(field.field.as_bytes(&mut [0; 20]));
                    one.mix(field.value.as_bytes(&mut [0; 20]));
                    if field.expire_at.is_some() {
                        one.xor(b"!!hexpire!!");
                    }
                    self.xor(&one.0);
                });
            }
            Value::Object(Object::Set(set)) => {
                self.mix(&SET.to_be_bytes());
                set.for_each(|member, expire_at| {
                    if expire_at.is_none_or(|at| at > now) {
                        self.xor(member.as_bytes(&mut [0; 20]));
                    }
                });
            }
            Value::Object(Object::ZSet(zset)) => {
                self.mix(&ZSET.to_be_bytes());
                zset.for_each(|member, score| {
                    let mut one = Digest::default();
                    one.mix(member);
                    one.mix(fmt_double_17(score, &mut [0; DOUBLE_LEN_MAX]).as_bytes());
                    self.xor(&one.0);
                });
            }
            // The entries only: groups and what they have pending count for nothing.
            Value::Object(Object::Stream(stream)) => {
                self.mix(&STREAM.to_be_bytes());
                let mut digits = Digits::default();
                for entry in stream.range(StreamId::MIN, StreamId::MAX) {
                    self.mix(format!("{}.{}", entry.id.ms, entry.id.seq).as_bytes());
                    for (field, value) in entry.fields {
                        self.mix(field.bytes(&mut digits));
                        self.mix(value.bytes(&mut digits));
                    }
                }
            }
            // Modules may add to the digest what they like, so from here on it is ours alone.
            Value::Object(Object::Json(document)) => {
                self.mix(&MODULE.to_be_bytes());
                self.mix(&document.to_json());
            }
            Value::Object(Object::Bloom(bloom)) => {
                let state = bloom.state();
                self.mix_numbers(&[bloom.options(), state.grow_factor.to_bits(), state.error_rate.to_bits()]);
                self.mix_numbers(&[state.prev_size, state.current_size, state.max_capacity]);
                for filter in bloom.filters() {
                    self.mix_numbers(&[u64::from(filter.hashes())]);
                    self.mix_blocks(filter.bytes());
                }
            }
            Value::Object(Object::Cuckoo(cuckoo)) => {
                let state = cuckoo.state();
                self.mix_numbers(&[
                    state.bucket_size.into(),
                    state.max_iterations.into(),
                    state.expansion.into(),
                ]);
                self.mix_numbers(&[state.buckets, state.items, state.deletes]);
                cuckoo.filters().iter().for_each(|slots| self.mix_blocks(slots));
            }
            Value::Object(Object::CountMin(sketch)) => {
                self.mix_numbers(&[sketch.width().into(), sketch.depth().into(), sketch.total() as u64]);
                self.mix_blocks(sketch.counters());
            }
            Value::Object(Object::TopK(sketch)) => {
                self.mix_numbers(&[sketch.k().into(), sketch.width().into(), sketch.depth().into()]);
                self.mix_numbers(&[sketch.decay().to_bits()]);
                for entry in sketch.list() {
                    self.mix(&entry.item);
                    self.mix_numbers(&[entry.count.into()]);
                }
                self.mix_blocks(sketch.counters());
            }
        }
        if expires {
            self.xor(b"!!expire!!");
        }
    }

    /// Adds the numbers of a filter or a sketch.
    fn mix_numbers(&mut self, numbers: &[u64]) {
        self.mix(&MODULE.to_be_bytes());
        numbers.iter().for_each(|number| self.mix(&number.to_be_bytes()));
    }

    /// Adds the cells of a filter or a sketch. What is zero may be there or not, and is left out.
    fn mix_blocks(&mut self, blocks: &Blocks) {
        self.mix_numbers(&[blocks.len() as u64]);
        for (offset, bytes) in blocks.present().filter(|(_, bytes)| bytes.iter().any(|byte| *byte != 0)) {
            self.mix_numbers(&[offset as u64]);
            self.mix(bytes);
        }
    }

    /// Of the keys of one shard's database that have not expired at `now`, be it element by element; None if there are
    /// none.
    pub fn of_db(db: &Db, now: u64) -> Option<Digest> {
        let mut all = None;
        db.for_each(|loc| {
            let expire_at = db.expire_at(loc);
            if expire_at.is_some_and(|at| at <= now) || has_expired_within(db.value(loc), now) {
                return;
            }
            let mut one = Digest::default();
            one.mix(db.key(loc));
            one.add_value(db.value(loc), expire_at.is_some(), now);
            all.get_or_insert_with(Digest::default).xor(&one.0);
        });
        all
    }

    /// Of a whole server: `dbs` has each database that has keys, in the order of their numbers.
    pub fn of_databases(dbs: impl IntoIterator<Item = (usize, Digest)>) -> Digest {
        let mut all = Digest::default();
        for (number, digest) in dbs {
            // No server has four thousand million databases.
            all.mix(&(number as u32).to_be_bytes());
            all.merge(&digest);
        }
        all
    }

    /// As Redis prints it.
    pub fn to_hex(self) -> String {
        hex(&self.0)
    }
}

/// Whether all elements of a collection have expired: who looks at the key next removes it.
fn has_expired_within(value: Value<'_, Object>, now: u64) -> bool {
    let Value::Object(object) = value else { return false };
    if object.next_expiry().is_none_or(|at| at > now) {
        return false;
    }
    match object {
        Object::Hash(hash) => hash.len(now) == 0,
        Object::Set(set) => {
            let mut left = false;
            set.for_each(|_, expire_at| left |= expire_at.is_none_or(|at| at > now));
            !left
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use damselfly_keyspace::values::set::Set;
    use damselfly_keyspace::{Collection, Expiry, Keyspace, Options};

    use super::Digest;

    fn digest(shards: &[Keyspace], databases: usize) -> String {
        let dbs = (0..databases).filter_map(|number| {
            let parts: Vec<Digest> =
                shards.iter().filter_map(|shard| Digest::of_db(shard.db(number)?, shard.now)).collect();
            parts
                .into_iter()
                .reduce(|mut sum, part| {
                    sum.merge(&part);
                    sum
                })
                .map(|digest| (number, digest))
        });
        Digest::of_databases(dbs).to_hex()
    }

    /// The same data has the same digest however many shards hold it, and it is the one that redis-server 7.0.15
    /// answers for `SET a 1`, `SET b text PX 100000`, `SELECT 3`, `SET a ""`.
    #[test]
    fn as_redis() {
        for shards in 1..4u64 {
            let options = Options { databases: 4, hash_seed: 7, random_seed: 1 };
            let mut all: Vec<Keyspace> = (0..shards).map(|_| Keyspace::new(&options)).collect();
            for (i, (db, key, value, expiry)) in [
                (0, b"a", &b"1"[..], Expiry::Never),
                (0, b"b", b"text", Expiry::At(100_000)),
                (3, b"a", b"", Expiry::Never),
                (1, b"x", b"gone", Expiry::At(50)),
            ]
            .into_iter()
            .enumerate()
            {
                all[i % shards as usize].set_string(db, key, value, expiry);
            }
            for shard in &mut all {
                shard.now = 60;
            }
            assert_eq!(digest(&all, 4), "6697eae26f24ab77ba983b53cd07f1b161721993", "{shards} shards");
        }
        assert_eq!(digest(&[], 4), "0".repeat(40));
    }

    /// Members whose time has come count for nothing, though nobody has removed them yet, nor does a key without others.
    #[test]
    fn members_that_expired() {
        let set = |members: &[(&str, u64)]| {
            let mut ks = Keyspace::new(&Options { databases: 1, hash_seed: 7, random_seed: 1 });
            let mut set = Set::new();
            for (member, at) in members {
                set.insert_until(7, member.as_bytes(), *at, false);
            }
            ks.set_object(0, b"set", set.wrap(), Expiry::Never);
            ks.now = 60;
            digest(&[ks], 1)
        };
        assert_eq!(set(&[("a", 50), ("b", 70)]), set(&[("b", 70)]));
        assert_eq!(set(&[("a", 50)]), "0".repeat(40));
    }
}
