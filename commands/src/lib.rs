//! The command table and the handlers.
//!
//! A command is declared and implemented in one place: a [`Command`] in the file of its group, its handler under it,
//! and an entry in the file's `COMMANDS`. Everything else reads the table: arity and key checks, routing to shards,
//! COMMAND and its sub-commands, the documentation.
//!
//! A handler is a synchronous function over [`Cx`]: the keyspace of one shard, the client's database, the reply.
//! It cannot block, cannot be interleaved and sees one instant of time. What it cannot express (commands about
//! connections or about the whole server) is declared here too, as [`Run::Server`], and carried out by the server.
//!
//! Read next: `cx.rs` (what a handler can do), `string.rs` (a typical group), `spread.rs` (commands over shards).

mod args;
mod bitmap;
pub mod blocking;
mod bloom;
mod connection;
mod convert;
mod counter;
mod countmin;
mod cuckoo;
mod cx;
mod error;
mod expire;
mod fields;
mod generic;
mod geo;
mod hash;
mod hyperloglog;
mod json;
mod lcs;
mod lifetime;
mod list;
mod long;
mod lookup;
mod many;
mod past;
mod pick;
mod pubsub;
mod random;
mod relay;
mod replicated;
mod scripting;
mod server;
mod set;
pub mod sort;
mod sorter;
mod spread;
mod stream;
mod string;
mod task;
mod topk;
mod transaction;
mod walk;
mod zset;

pub use args::Args;
pub use blocking::{Blocking, Wait};
pub use convert::{ListLimit, compressed_len, encoding_at, restore, serialized_len, write_object};
pub use cx::{AT_ONCE_MAX, Cx, Env};
pub use error::{CmdResult, CommandError};
pub use long::Long;
pub use lookup::{Found, lookup};
pub use past::{Told, Wanted, gathers, look_back};
pub use relay::{Looked, Parcel, Relay};
pub use scripting::{ScriptBy, ScriptCall};
pub use spread::{Merge, Spread};
pub use string::{run_given, takes_given};
pub use task::{Later, Rest, Task};
pub use walk::parse_cursor;

use damselfly_protocol::request::Argv;

/// How many arguments a command takes, its name included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// Exactly this many.
    Exactly(usize),
    /// This many or more.
    AtLeast(usize),
}

impl Arity {
    /// Whether a request of `len` arguments fits.
    #[inline]
    pub const fn allows(self, len: usize) -> bool {
        match self {
            Arity::Exactly(n) => len == n,
            Arity::AtLeast(n) => len >= n,
        }
    }

    /// As COMMAND INFO shows it: negative for "at least".
    pub const fn as_redis(self) -> i64 {
        match self {
            Arity::Exactly(n) => n as i64,
            Arity::AtLeast(n) => -(n as i64),
        }
    }
}

/// Where the keys of a command are.
#[derive(Clone, Copy, Debug)]
pub enum Keys {
    /// None, or none that could be named beforehand.
    None,
    /// The first argument behind the name.
    First,
    /// From the first argument to `last` (negative: counted from the end), every `step`-th.
    Range {
        /// Index of the first key; the name is 0.
        first: usize,
        /// Index of the last key; -1 is the last argument.
        last: i64,
        /// Distance between keys.
        step: usize,
    },
    /// Argument `count` says how many keys follow it; argument `also` is another key (a store target) if not 0.
    Counted {
        /// Index of the argument with the number of keys.
        count: usize,
        /// Index of a further key, or 0.
        also: usize,
    },
    /// The first argument behind the name, and others found by looking at the arguments.
    FirstAnd(fn(&Argv<'_>, &mut Vec<usize>)),
    /// Found by looking at the arguments.
    By(fn(&Argv<'_>, &mut Vec<usize>)),
}

/// Yes-or-no properties of a command, as in COMMAND INFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags(u32);

impl Flags {
    /// None of them.
    pub const NONE: Flags = Flags(0);
    /// Changes keys.
    pub const WRITE: Flags = Flags(1);
    /// Reads keys.
    pub const READ: Flags = Flags(1 << 1);
    /// May need memory; refused when there is none left.
    pub const GROWS: Flags = Flags(1 << 2);
    /// Constant or logarithmic time.
    pub const FAST: Flags = Flags(1 << 3);
    /// For operators.
    pub const ADMIN: Flags = Flags(1 << 4);
    /// Allowed while the dataset is loading.
    pub const LOADING: Flags = Flags(1 << 5);
    /// Not from scripts.
    pub const NO_SCRIPT: Flags = Flags(1 << 6);
    /// May wait.
    pub const BLOCKING: Flags = Flags(1 << 7);
    /// Allowed without authentication.
    pub const NO_AUTH: Flags = Flags(1 << 8);
    /// Not in transactions.
    pub const NO_MULTI: Flags = Flags(1 << 9);
    /// Publishes or subscribes.
    pub const PUBSUB: Flags = Flags(1 << 10);
    /// Allowed on a replica with stale data.
    pub const STALE: Flags = Flags(1 << 11);
    /// Not shown by MONITOR.
    pub const SKIP_MONITOR: Flags = Flags(1 << 12);
    /// Not recorded by SLOWLOG.
    pub const SKIP_SLOWLOG: Flags = Flags(1 << 13);
    /// The key count is in an argument or the keys depend on the arguments.
    pub const MOVABLE_KEYS: Flags = Flags(1 << 14);
    /// Not listed by COMMAND.
    pub const HIDDEN: Flags = Flags(1 << 15);
    /// Dangerous on a shared server.
    pub const DANGEROUS: Flags = Flags(1 << 16);
    /// Runs a script.
    pub const SCRIPT: Flags = Flags(1 << 17);
    /// Takes no longer than it takes to read its arguments and to write its reply.
    pub const BRIEF: Flags = Flags(1 << 18);

    /// Both sets.
    pub const fn with(self, other: Flags) -> Flags {
        Flags(self.0 | other.0)
    }

    /// Whether all of `other` are in this set.
    #[inline]
    pub const fn has(self, other: Flags) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Redis' command groups, which name the files here and the pages of the documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Strings as bits.
    Bitmap,
    /// Bloom filters.
    Bloom,
    /// Connection management.
    Connection,
    /// Count-min sketches.
    CountMin,
    /// Cuckoo filters.
    Cuckoo,
    /// Keys of any type.
    Generic,
    /// Positions on the earth.
    Geo,
    /// Hashes.
    Hash,
    /// Estimated numbers of elements.
    HyperLogLog,
    /// JSON documents.
    Json,
    /// Lists.
    List,
    /// Publish and subscribe.
    PubSub,
    /// Scripts and functions.
    Scripting,
    /// Sets.
    Set,
    /// Sorted sets.
    SortedSet,
    /// Streams.
    Stream,
    /// Strings.
    String,
    /// Top-k sketches.
    TopK,
    /// The server.
    Server,
    /// MULTI and EXEC.
    Transactions,
}

impl Group {
    /// As COMMAND DOCS names it.
    pub const fn name(self) -> &'static str {
        match self {
            Group::Bitmap => "bitmap",
            Group::Bloom => "bf",
            Group::Connection => "connection",
            Group::CountMin => "cms",
            Group::Cuckoo => "cf",
            Group::Generic => "generic",
            Group::Geo => "geo",
            Group::Hash => "hash",
            Group::HyperLogLog => "hyperloglog",
            Group::Json => "json",
            Group::List => "list",
            Group::PubSub => "pubsub",
            Group::Scripting => "scripting",
            Group::Set => "set",
            Group::SortedSet => "sorted-set",
            Group::Stream => "stream",
            Group::String => "string",
            Group::TopK => "topk",
            Group::Server => "server",
            Group::Transactions => "transactions",
        }
    }

    /// The ACL category that belongs to the group, if it has one of its own.
    pub const fn category(self) -> Option<&'static str> {
        match self {
            Group::Bitmap => Some("bitmap"),
            Group::Bloom => Some("bloom"),
            Group::Connection => Some("connection"),
            Group::CountMin => Some("cms"),
            Group::Cuckoo => Some("cuckoo_filter"),
            Group::Generic => Some("keyspace"),
            Group::Geo => Some("geo"),
            Group::Hash => Some("hash"),
            Group::HyperLogLog => Some("hyperloglog"),
            Group::Json => Some("json"),
            Group::List => Some("list"),
            Group::Set => Some("set"),
            Group::SortedSet => Some("sortedset"),
            Group::Stream => Some("stream"),
            Group::String => Some("string"),
            Group::TopK => Some("topk"),
            Group::PubSub | Group::Server => None,
            Group::Scripting => Some("scripting"),
            Group::Transactions => Some("transaction"),
        }
    }
}

/// A handler over one shard.
pub type Handler = fn(&mut Cx<'_>, Args<'_>) -> CmdResult;

/// Who carries a command out.
#[derive(Clone, Copy)]
pub enum Run {
    /// A handler over the keyspace of one shard.
    Shard(Handler),
    /// As `Shard`, and if the keys have nothing for it, it waits.
    Block(&'static Blocking),
    /// A script.
    Script(ScriptCall),
    /// The server, which matches on this.
    Server(ServerCommand),
}

impl Run {
    /// The handler of a command over shards; one that would wait does not.
    #[inline]
    pub fn handler(self) -> Option<Handler> {
        match self {
            Run::Shard(handler) => Some(handler),
            Run::Block(blocking) => Some(blocking.once),
            Run::Script(_) | Run::Server(_) => None,
        }
    }
}

/// Commands about connections or the whole server. The server's `match` over this enum is their implementation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerCommand {
    /// AUTH
    Auth,
    /// BGSAVE
    BgSave,
    /// CLIENT
    Client,
    /// COMMAND
    Command,
    /// CONFIG
    Config,
    /// DEBUG
    Debug,
    /// DFLY
    Dfly,
    /// ECHO
    Echo,
    /// FLUSHALL
    FlushAll,
    /// FLUSHDB
    FlushDb,
    /// FUNCTION
    Function,
    /// HELLO
    Hello,
    /// INFO
    Info,
    /// KEYS
    Keys,
    /// LASTSAVE
    LastSave,
    /// LATENCY
    Latency,
    /// LOLWUT
    Lolwut,
    /// MEMORY
    Memory,
    /// MODULE
    Module,
    /// MONITOR
    Monitor,
    /// PING
    Ping,
    /// PSUBSCRIBE
    PSubscribe,
    /// PUBLISH
    Publish,
    /// PUBSUB
    PubSub,
    /// PUNSUBSCRIBE
    PUnsubscribe,
    /// QUIT
    Quit,
    /// RANDOMKEY
    RandomKey,
    /// RESET
    Reset,
    /// RM
    Rm,
    /// ROLE
    Role,
    /// SAVE
    Save,
    /// SCAN
    Scan,
    /// SCRIPT
    Script,
    /// SELECT
    Select,
    /// SHUTDOWN
    Shutdown,
    /// SLOWLOG
    Slowlog,
    /// SPUBLISH
    SPublish,
    /// SSUBSCRIBE
    SSubscribe,
    /// SUBSCRIBE
    Subscribe,
    /// SUNSUBSCRIBE
    SUnsubscribe,
    /// SWAPDB
    SwapDb,
    /// TIME
    Time,
    /// UNSUBSCRIBE
    Unsubscribe,
    /// DBSIZE
    DbSize,
    /// DISCARD
    Discard,
    /// EXEC
    Exec,
    /// MULTI
    Multi,
    /// UNWATCH
    Unwatch,
    /// WATCH
    Watch,
}

/// A command's declaration. Every field is written out; there are no defaults to remember.
pub struct Command {
    /// Name in upper case, as clients may write it in any case.
    pub name: &'static str,
    /// Number of arguments.
    pub arity: Arity,
    /// Where the keys are.
    pub keys: Keys,
    /// Properties.
    pub flags: Flags,
    /// What happens when the keys are on several shards.
    pub spread: Spread,
    /// Group.
    pub group: Group,
    /// First version of Redis with it (or of Dragonfly, then `dragonfly`).
    pub since: &'static str,
    /// Arguments behind the name, in Redis' notation.
    pub syntax: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// Who carries it out.
    pub run: Run,
}

impl std::fmt::Debug for Command {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Command {
    /// Collects the positions of the keys in a request that satisfies the arity.
    pub fn key_positions(&self, argv: &Argv<'_>, positions: &mut Vec<usize>) {
        positions.clear();
        match self.keys {
            Keys::None => {}
            Keys::First => positions.push(1),
            Keys::Range { first, last, step } => {
                let last = if last < 0 { argv.len() as i64 + last } else { last };
                positions.extend((first..=last.max(0) as usize).step_by(step).filter(|&at| at < argv.len()));
            }
            Keys::Counted { count, also } => {
                if also != 0 && also < argv.len() {
                    positions.push(also);
                }
                let keys = argv.get(count).and_then(damselfly_protocol::number::parse_i64).unwrap_or(0);
                let keys = keys.clamp(0, argv.len() as i64) as usize;
                positions.extend((count + 1..count + 1 + keys).take_while(|&at| at < argv.len()));
            }
            Keys::By(find) => find(argv, positions),
            Keys::FirstAnd(find) => {
                positions.push(1);
                find(argv, positions);
            }
        }
    }

    /// (first, last, step) as COMMAND INFO shows them.
    pub fn key_range(&self) -> (i64, i64, i64) {
        match self.keys {
            Keys::None | Keys::By(_) => (0, 0, 0),
            Keys::First | Keys::FirstAnd(_) => (1, 1, 1),
            Keys::Range { first, last, step } => (first as i64, last, step as i64),
            Keys::Counted { also: 0, .. } => (0, 0, 0),
            Keys::Counted { also, .. } => (also as i64, also as i64, 1),
        }
    }
}

/// All commands, group by group; within a group in the order of the file.
pub const FAMILIES: &[&[&Command]] = &[
    bitmap::COMMANDS,
    bloom::COMMANDS,
    connection::COMMANDS,
    counter::COMMANDS,
    countmin::COMMANDS,
    cuckoo::COMMANDS,
    expire::COMMANDS,
    fields::COMMANDS,
    generic::COMMANDS,
    geo::COMMANDS,
    hash::COMMANDS,
    hyperloglog::COMMANDS,
    json::COMMANDS,
    list::COMMANDS,
    pubsub::COMMANDS,
    replicated::COMMANDS,
    scripting::COMMANDS,
    server::COMMANDS,
    set::COMMANDS,
    sort::COMMANDS,
    stream::COMMANDS,
    string::COMMANDS,
    topk::COMMANDS,
    transaction::COMMANDS,
    zset::COMMANDS,
];

/// Every command once.
pub fn all() -> impl Iterator<Item = &'static Command> {
    FAMILIES.iter().flat_map(|family| family.iter().copied())
}

#[cfg(test)]
mod tests;
