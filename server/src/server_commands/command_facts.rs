//! What COMMAND tells about commands beyond what the server itself needs to know: how they use their keys, what
//! proxies should do with them, which categories they belong to. Names and words are those of Redis 7.0.

use damselfly_commands::{Command, Flags, Keys};

/// How a command uses its keys: an entry per key specification, the last one standing for all further keys.
///
/// `RO` reads the value, `RW` changes it, `OW` overwrites it, `RM` removes it; `access`, `insert`, `update` and
/// `delete` tell what happens to the data inside.
pub fn key_uses(command: &Command) -> &'static [&'static str] {
    match command.name {
        "MSETNX" | "SETNX" => &["OW insert"],
        "MSET" | "PSETEX" | "RESTORE" | "SETEX" => &["OW update"],
        "BITOP" | "GEOSEARCHSTORE" | "SDIFFSTORE" | "SUNIONSTORE" | "ZDIFFSTORE" | "ZINTERSTORE"
        | "ZRANGESTORE" | "ZUNIONSTORE" => &["OW update", "RO access"],
        "DEL" | "UNLINK" => &["RM delete"],
        "EXISTS" | "HEXISTS" | "HLEN" | "HSTRLEN" | "LLEN" | "OBJECT" | "SCARD" | "SISMEMBER" | "STRLEN"
        | "TOUCH" | "TYPE" | "WATCH" | "XLEN" | "ZCARD" => &["RO"],
        "COPY" => &["RO access", "OW update"],
        "PFCOUNT" | "PFDEBUG" => &["RW access"],
        "BLMPOP" | "BLPOP" | "BRPOP" | "BZMPOP" | "BZPOPMAX" | "BZPOPMIN" | "GETDEL" | "LMPOP" | "LPOP"
        | "RPOP" | "SPOP" | "ZMPOP" | "ZPOPMAX" | "ZPOPMIN" => &["RW access delete"],
        "RENAMENX" => &["RW access delete", "OW insert"],
        "RENAME" => &["RW access delete", "OW update"],
        "BLMOVE" | "BRPOPLPUSH" | "LMOVE" | "RPOPLPUSH" | "SMOVE" => &["RW access delete", "RW insert"],
        "PFMERGE" => &["RW access insert", "RO access"],
        "DECR" | "DECRBY" | "EVAL" | "EVALSHA" | "FCALL" | "GETEX" | "GETSET" | "HINCRBY"
        | "HINCRBYFLOAT" | "INCR" | "INCRBY" | "INCRBYFLOAT" | "MOVE" | "SETBIT" | "ZINCRBY" => {
            &["RW access update"]
        }
        "BITFIELD" | "SET" => &["RW access update variable_flags"],
        "HDEL" | "LREM" | "LTRIM" | "SREM" | "XAUTOCLAIM" | "XDEL" | "XTRIM" | "ZREM" | "ZREMRANGEBYLEX"
        | "ZREMRANGEBYRANK" | "ZREMRANGEBYSCORE" => &["RW delete"],
        "APPEND" | "HSETNX" | "LINSERT" | "LPUSH" | "LPUSHX" | "PFADD" | "RPUSH" | "RPUSHX" | "SADD" => {
            &["RW insert"]
        }
        "SINTERSTORE" => &["RW update", "RO access"],
        "GEORADIUS" | "GEORADIUSBYMEMBER" | "SORT" => &["RO access", "OW update"],
        "SPUBLISH" | "SSUBSCRIBE" | "SUNSUBSCRIBE" => &["not_key"],
        _ if command.flags.has(Flags::WRITE) => &["RW update"],
        _ => &["RO access"],
    }
}

/// Where the search for keys begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At this argument.
    Index(i64),
    /// Behind this word, looked for from that argument on.
    Keyword(&'static str, i64),
    /// Not to be told in general.
    Unknown,
}

/// Which arguments from there on are keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Find {
    /// Up to `last` (from the beginning; negative: from the end), every `step`-th, of the first `limit`-th part.
    Range {
        /// The last one.
        last: i64,
        /// Distance.
        step: i64,
        /// Part of the arguments that are keys; 0 is all.
        limit: i64,
    },
    /// As many as the first argument says, behind it.
    Counted,
    /// Not to be told in general.
    Unknown,
}

/// One key specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySpec {
    /// How these keys are used.
    pub uses: &'static str,
    /// Where the search begins.
    pub begin: Begin,
    /// Which arguments are keys.
    pub find: Find,
}

/// The key specifications of a command.
pub fn key_specs(command: &Command) -> Vec<KeySpec> {
    const ONE: Find = Find::Range { last: 0, step: 1, limit: 0 };
    let uses = key_uses(command);
    let spec =
        |at: usize, begin: Begin, find: Find| KeySpec { uses: uses[at.min(uses.len() - 1)], begin, find };
    match (command.name, command.keys) {
        ("GEORADIUS" | "GEORADIUSBYMEMBER", _) => {
            let from = if command.name == "GEORADIUS" { 6 } else { 5 };
            vec![
                spec(0, Begin::Index(1), ONE),
                spec(1, Begin::Keyword("STORE", from), ONE),
                spec(1, Begin::Keyword("STOREDIST", from), ONE),
            ]
        }
        ("SORT", _) => vec![
            spec(0, Begin::Index(1), ONE),
            spec(0, Begin::Unknown, Find::Unknown),
            spec(1, Begin::Unknown, Find::Unknown),
        ],
        ("SORT_RO", _) => vec![spec(0, Begin::Index(1), ONE), spec(0, Begin::Unknown, Find::Unknown)],
        ("XREAD" | "XREADGROUP", _) => {
            let from = if command.name == "XREAD" { 1 } else { 4 };
            let find = Find::Range { last: -1, step: 1, limit: 2 };
            vec![spec(0, Begin::Keyword("STREAMS", from), find)]
        }
        (_, Keys::None | Keys::By(_)) => Vec::new(),
        (_, Keys::First | Keys::FirstAnd(_)) => vec![spec(0, Begin::Index(1), ONE)],
        (_, Keys::Range { first, last, step }) => {
            let mut specs: Vec<KeySpec> = (0..uses.len() - 1)
                .map(|at| spec(at, Begin::Index((first + at * step) as i64), ONE))
                .collect();
            let begin = (first + specs.len() * step) as i64;
            let last = if last < 0 { last } else { last - begin };
            specs.push(spec(
                specs.len(),
                Begin::Index(begin),
                Find::Range { last, step: step as i64, limit: 0 },
            ));
            specs
        }
        (_, Keys::Counted { count, also: 0 }) => vec![spec(0, Begin::Index(count as i64), Find::Counted)],
        (_, Keys::Counted { count, also }) => {
            vec![spec(0, Begin::Index(also as i64), ONE), spec(1, Begin::Index(count as i64), Find::Counted)]
        }
    }
}

/// Hints for clients and proxies; `name` is `container|subcommand` for sub-commands, in lower case.
pub fn tips(name: &str) -> &'static [&'static str] {
    const RANDOM: &str = "nondeterministic_output";
    const UNORDERED: &str = "nondeterministic_output_order";
    const ALL_NODES: &str = "request_policy:all_nodes";
    const ALL_SHARDS: &str = "request_policy:all_shards";
    const MANY_SHARDS: &str = "request_policy:multi_shard";
    const ALL_OK: &str = "response_policy:all_succeeded";
    const SPECIAL: &str = "response_policy:special";
    match name {
        "client|info" | "client|list" | "dump" | "hrandfield" | "hscan" | "lastsave" | "migrate"
        | "object|freq" | "object|encoding" | "object|idletime" | "object|refcount" | "pttl" | "spop"
        | "srandmember" | "sscan" | "time" | "ttl" | "xadd" | "xautoclaim" | "xclaim" | "xinfo|consumers"
        | "xpending" | "xtrim" | "zrandmember" | "zscan" => &[RANDOM],
        "latency|doctor" | "latency|graph" | "latency|latest" | "latency|histogram" | "latency|history" => {
            &[RANDOM, ALL_NODES, SPECIAL]
        }
        "function|stats" | "info" | "memory|malloc-stats" | "memory|stats" | "memory|doctor" => {
            &[RANDOM, ALL_SHARDS, SPECIAL]
        }
        "scan" => &[RANDOM, "request_policy:special"],
        "command" | "command|docs" | "command|info" | "command|list" | "function|list" | "hgetall"
        | "hkeys" | "hvals" | "module|list" | "sdiff" | "sinter" | "smembers" | "sunion" => &[UNORDERED],
        "slowlog|get" => &[ALL_NODES, RANDOM],
        "slowlog|len" => &[ALL_NODES, "response_policy:agg_sum", RANDOM],
        "config|set" | "latency|reset" | "script|flush" | "script|load" | "slowlog|reset" => {
            &[ALL_NODES, ALL_OK]
        }
        "randomkey" => &[ALL_SHARDS, RANDOM],
        "keys" => &[ALL_SHARDS, UNORDERED],
        "script|exists" => &[ALL_SHARDS, "response_policy:agg_logical_and"],
        "wait" => &[ALL_SHARDS, "response_policy:agg_min"],
        "dbsize" => &[ALL_SHARDS, "response_policy:agg_sum"],
        "flushall" | "flushdb" | "memory|purge" | "ping" => &[ALL_SHARDS, ALL_OK],
        "script|kill" => &[ALL_SHARDS, "response_policy:one_succeeded"],
        "mget" => &[MANY_SHARDS],
        "msetnx" => &[MANY_SHARDS, "response_policy:agg_min"],
        "del" | "exists" | "touch" | "unlink" => &[MANY_SHARDS, "response_policy:agg_sum"],
        "mset" => &[MANY_SHARDS, ALL_OK],
        _ => &[],
    }
}

/// The flags as COMMAND names them.
pub fn flag_names(flags: Flags) -> Vec<&'static str> {
    const NAMES: [(Flags, &str); 16] = [
        (Flags::WRITE, "write"),
        (Flags::READ, "readonly"),
        (Flags::GROWS, "denyoom"),
        (Flags::ADMIN, "admin"),
        (Flags::PUBSUB, "pubsub"),
        (Flags::NO_SCRIPT, "noscript"),
        (Flags::BLOCKING, "blocking"),
        (Flags::LOADING, "loading"),
        (Flags::STALE, "stale"),
        (Flags::SKIP_MONITOR, "skip_monitor"),
        (Flags::SKIP_SLOWLOG, "skip_slowlog"),
        (Flags::FAST, "fast"),
        (Flags::NO_AUTH, "no_auth"),
        (Flags::SCRIPT, "no_mandatory_keys"),
        (Flags::NO_MULTI, "no_multi"),
        (Flags::MOVABLE_KEYS, "movablekeys"),
    ];
    NAMES.iter().filter(|(flag, _)| flags.has(*flag)).map(|(_, name)| *name).collect()
}

/// All categories, in the order in which COMMAND lists a command's.
pub const CATEGORIES: [&str; 21] = [
    "keyspace",
    "read",
    "write",
    "set",
    "sortedset",
    "list",
    "hash",
    "string",
    "bitmap",
    "hyperloglog",
    "geo",
    "stream",
    "pubsub",
    "admin",
    "fast",
    "slow",
    "blocking",
    "dangerous",
    "connection",
    "transaction",
    "scripting",
];

/// Whether something with these properties is in a category; `name` is the command or container in upper case.
pub fn is_in_category(category: &str, name: &str, of_group: Option<&str>, flags: Flags) -> bool {
    let by_group = of_group == Some(category);
    match category {
        // These work on keys without looking at values, though they are described elsewhere, and the other way round.
        "keyspace" => match name {
            "DBSIZE" | "FLUSHALL" | "FLUSHDB" | "SWAPDB" => true,
            "SORT" | "SORT_RO" | "WAIT" | "WAITAOF" => false,
            _ => by_group,
        },
        "set" | "sortedset" | "list" => by_group || matches!(name, "SORT" | "SORT_RO"),
        "read" => flags.has(Flags::READ) && !flags.has(Flags::SCRIPT),
        "write" => flags.has(Flags::WRITE),
        "pubsub" => flags.has(Flags::PUBSUB),
        "admin" => flags.has(Flags::ADMIN) || name == "ROLE",
        "fast" => flags.has(Flags::FAST),
        "slow" => !flags.has(Flags::FAST),
        "blocking" => flags.has(Flags::BLOCKING),
        "dangerous" => {
            flags.has(Flags::ADMIN)
                || flags.has(Flags::DANGEROUS)
                || matches!(
                    name,
                    "INFO" | "KEYS" | "MIGRATE" | "RESTORE" | "ROLE" | "SORT" | "SORT_RO" | "SWAPDB"
                )
        }
        "connection" => by_group || matches!(name, "COMMAND" | "WAIT" | "WAITAOF"),
        "scripting" => by_group || flags.has(Flags::SCRIPT),
        _ => by_group,
    }
}
