//! What a handler can do: the keyspace of its shard through the eyes of one client.

use std::borrow::Cow;

use damselfly_keyspace::stream::NodeLimits;
use damselfly_keyspace::values::PackLimits;
use damselfly_keyspace::values::set::SetLimits;
use damselfly_keyspace::{Class, Expiry, KEYS_AHEAD, Keyspace, Loc, Object, Value};
use damselfly_protocol::number::{Decimal, parse_i64};
use damselfly_protocol::reply::ReplyWriter;
use damselfly_sketches::hll;

use crate::args::Args;
use crate::convert::ListLimit;
use crate::error::CommandError;
use crate::long::{LENT_LATER_FROM, put_string_aside};
use crate::task::Later;

/// Settings that handlers need, copied from the configuration whenever it changes.
#[derive(Clone, Debug)]
pub struct Env {
    /// Longest string (`proto-max-bulk-len`).
    pub string_len_max: usize,
    /// Longest sparse HyperLogLog (`hll-sparse-max-bytes`).
    pub hll_sparse_max: usize,
    /// Keys are evicted by how often they are used, not by how long they were not (`maxmemory-policy`).
    pub lfu: bool,
    /// When a hash is small.
    pub hash_pack: PackLimits,
    /// When a set is small.
    pub set_limits: SetLimits,
    /// When a list is small.
    pub list_pack: ListLimit,
    /// When a sorted set is small.
    pub zset_pack: PackLimits,
    /// When a node of a stream is full.
    pub stream_node: NodeLimits,
    /// Members that a command may look at at once; one that has more before it is done in steps ([`Task`]).
    ///
    /// [`Task`]: crate::Task
    pub at_once_max: usize,
    /// The command comes from a script.
    pub in_script: bool,
    /// RESTORE takes payloads with wrong checksums (DEBUG SET-SKIP-CHECKSUM-VALIDATION).
    pub mends_checksums: bool,
}

/// About a millisecond's work.
pub const AT_ONCE_MAX: usize = 10_000;

impl Default for Env {
    fn default() -> Env {
        Env {
            string_len_max: 512 * 1024 * 1024,
            hll_sparse_max: hll::SPARSE_MAX_BYTES,
            lfu: false,
            hash_pack: PackLimits { entries_max: 512, len_max: 64 },
            set_limits: SetLimits::default(),
            list_pack: ListLimit::default(),
            zset_pack: PackLimits::default(),
            stream_node: NodeLimits::default(),
            at_once_max: AT_ONCE_MAX,
            in_script: false,
            mends_checksums: false,
        }
    }
}

/// One command's surroundings.
pub struct Cx<'a> {
    /// The data of this shard. Its `now` is the one instant this command sees.
    pub ks: &'a mut Keyspace,
    /// The client's database.
    pub db: usize,
    /// Where the reply goes.
    pub out: ReplyWriter<'a>,
    /// Settings.
    pub env: &'a Env,
    /// Where the rest of the command goes; `None` where it must be over at once.
    pub later: Later<'a>,
}

/// A string value as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Str<'a> {
    /// In canonical decimal form.
    Int(i64),
    /// As bytes; after an edit these may be a number's, too.
    Bytes(&'a [u8]),
}

impl<'a> Str<'a> {
    /// Length in bytes; a number counts its digits.
    #[inline]
    pub fn len(self) -> usize {
        match self {
            Str::Bytes(bytes) => bytes.len(),
            Str::Int(number) => Decimal::new(number).as_bytes().len(),
        }
    }

    /// The number that the bytes are in canonical form.
    #[inline]
    pub fn number(self) -> Option<i64> {
        match self {
            Str::Int(number) => Some(number),
            Str::Bytes(bytes) => parse_i64(bytes),
        }
    }

    /// XXH3 of the bytes, as DIGEST shows it and DELEX compares it.
    pub fn digest(self) -> u64 {
        twox_hash::XxHash3_64::oneshot(self.bytes(&mut Decimal::new(0)))
    }

    /// The bytes, printed into `buffer` if the value is a number.
    #[inline]
    pub fn bytes<'b>(self, buffer: &'b mut Decimal) -> &'b [u8]
    where
        'a: 'b,
    {
        match self {
            Str::Bytes(bytes) => bytes,
            Str::Int(number) => {
                *buffer = Decimal::new(number);
                buffer.as_bytes()
            }
        }
    }
}

impl<'a> Cx<'a> {
    /// Finds a key that is there now.
    #[inline]
    pub fn find(&mut self, key: &[u8]) -> Option<Loc> {
        self.ks.find(self.db, key)
    }

    /// As `find`, counted as a hit or a miss.
    #[inline]
    pub fn read(&mut self, key: &[u8]) -> Option<Loc> {
        self.ks.read(self.db, key)
    }

    /// For commands over many keys, to be called for each with its number, the arguments that begin with the first key,
    /// and how many come with each: asks for the memory that it and the next ones lead to, so that their misses overlap.
    /// Over a million keys MSET and MGET of 10 cost less than half of what they do without.
    #[inline]
    pub fn load_ahead(&self, at: usize, args: Args<'_>, step: usize) {
        if at.is_multiple_of(KEYS_AHEAD) && args.len() > (at + 1) * step {
            self.ks.load_ahead(self.db, args.behind(at * step).rest().step_by(step));
        }
    }

    /// The string at a location, or WRONGTYPE.
    #[inline]
    pub fn string_at(&self, loc: Loc) -> Result<Str<'_>, CommandError> {
        match self.ks.value(self.db, loc) {
            Value::Int(number) => Ok(Str::Int(number)),
            Value::Str(bytes) => Ok(Str::Bytes(bytes)),
            Value::Object(_) => Err(CommandError::WrongType),
        }
    }

    /// The string under a key for reading: None if the key is missing, an error if it holds another type.
    #[inline]
    pub fn read_string(&mut self, key: &[u8]) -> Result<Option<Str<'_>>, CommandError> {
        match self.read(key) {
            Some(loc) => self.string_at(loc).map(Some),
            None => Ok(None),
        }
    }

    /// Finds a key for a string write: its location if it holds a string, an error if another type.
    #[inline]
    pub fn find_string(&mut self, key: &[u8]) -> Result<Option<Loc>, CommandError> {
        match self.find(key) {
            Some(loc) => self.string_at(loc).map(|_| Some(loc)),
            None => Ok(None),
        }
    }

    /// Stores a string. Announce it with [`Cx::changed`].
    #[inline]
    pub fn set_string(&mut self, key: &[u8], value: &[u8], expiry: Expiry) {
        self.ks.set_string(self.db, key, value, expiry);
    }

    /// Stores a string, in its own memory if it comes with that; the caller has looked the key up then. Announce it with
    /// [`Cx::changed`].
    pub fn set_bytes(&mut self, key: &[u8], value: Cow<'_, [u8]>, expiry: Expiry) {
        match value {
            Cow::Borrowed(value) => self.set_string(key, value, expiry),
            Cow::Owned(value) => self.set_edited(key, value, expiry),
        }
    }

    /// Stores a string that stays text, even if it reads like a number. Announce it with [`Cx::changed`].
    pub fn set_text(&mut self, key: &[u8], value: &[u8], expiry: Expiry) {
        self.ks.set_text(self.db, key, value, expiry);
    }

    /// Stores a string made by an edit, which OBJECT ENCODING tells from one that was set. The caller has looked
    /// the key up. Announce it with [`Cx::changed`].
    pub fn set_edited(&mut self, key: &[u8], value: Vec<u8>, expiry: Expiry) {
        self.ks.set_edited(self.db, key, value, expiry);
    }

    /// Stores a collection. Announce it with [`Cx::changed`].
    pub fn set_object(&mut self, key: &[u8], object: Object, expiry: Expiry) {
        self.ks.set_object(self.db, key, object, expiry);
    }

    /// Announces that this command changed a key.
    #[inline]
    pub fn changed(&mut self, key: &[u8], class: Class, name: &'static str) {
        self.ks.changed(self.db, key, class, name);
    }

    /// Writes a string value as a bulk reply.
    #[inline]
    pub fn reply_str(out: &mut ReplyWriter<'_>, value: Str<'_>) {
        match value {
            Str::Bytes(bytes) => out.bulk(bytes),
            Str::Int(number) => out.bulk_int(number),
        }
    }

    /// As [`Cx::reply_string_at`], for a reply that is nothing else: a long string is not copied.
    #[inline]
    pub fn reply_only_string_at(&mut self, loc: Loc) -> Result<(), CommandError> {
        match self.ks.value(self.db, loc) {
            Value::Str(bytes) if bytes.len() >= LENT_LATER_FROM => {
                let len = bytes.len();
                if put_string_aside(self, loc, len) { Ok(()) } else { self.reply_string_at(loc) }
            }
            _ => self.reply_string_at(loc),
        }
    }

    /// Writes the string at a location as a bulk reply.
    #[inline]
    pub fn reply_string_at(&mut self, loc: Loc) -> Result<(), CommandError> {
        match self.ks.value(self.db, loc) {
            Value::Int(number) => self.out.bulk_int(number),
            Value::Str(bytes) => self.out.bulk(bytes),
            Value::Object(_) => return Err(CommandError::WrongType),
        }
        Ok(())
    }
}
