//! Tests over the table: a command added wrongly is told so.

mod bitmap;
mod counter;
mod expire;
mod generic;
mod geo;
mod hash;
mod hostile;
mod hyperloglog;
mod list;
mod long;
mod scan;
mod session;
mod set;
mod sketches;
mod sort;
mod stream;
mod string;
mod task;
mod tidy;
mod zset;

use super::*;

#[test]
fn names_are_unique_and_found_in_any_case() {
    for command in all() {
        assert_eq!(command.name, command.name.to_ascii_uppercase());
        for name in [command.name.to_string(), command.name.to_lowercase()] {
            assert!(
                std::ptr::eq(lookup(name.as_bytes()).expect(&name).command, command),
                "{name} is declared twice"
            );
        }
    }
    for missing in ["", "GE", "GETT", "NOSUCHCOMMAND", &"X".repeat(100), "GET\0", "\r\n"] {
        assert!(lookup(missing.as_bytes()).is_none(), "{missing:?}");
    }
}

/// Declarations do not contradict themselves.
#[test]
fn declarations_agree() {
    for command in all() {
        let name = command.name;
        let least = match command.arity {
            Arity::Exactly(n) | Arity::AtLeast(n) => n,
        };
        assert!(least >= 1, "{name}: the name itself counts");
        let has_keys = !matches!(command.keys, Keys::None);
        if has_keys && command.run.handler().is_some() {
            assert!(
                command.flags.has(Flags::READ) != command.flags.has(Flags::WRITE),
                "{name}: reads or writes its keys"
            );
        }
        assert!(
            !command.flags.has(Flags::GROWS) || command.flags.has(Flags::WRITE),
            "{name}: what grows writes"
        );
        if let Keys::Range { last, .. } = command.keys {
            assert!(last == -1 || last == -2 || last > 1, "{name}: one key is Keys::First");
        }
        // What the server runs itself finds its shards itself.
        if matches!(command.spread, Spread::Single) && !matches!(command.run, Run::Script(_) | Run::Server(_))
        {
            assert!(
                matches!(command.keys, Keys::None | Keys::First | Keys::By(_)),
                "{name}: several keys need a rule for several shards"
            );
        }
        assert!(command.summary.ends_with('.'), "{name}: the summary is a sentence");
    }
}

/// Arity, flags and key positions as COMMAND INFO of Redis 7.0.15 shows them.
#[test]
fn metadata_is_that_of_redis() {
    const REDIS: &str = "
GET           2   1  1  1  readonly fast
SET          -3   1  1  1  write denyoom
SETNX         3   1  1  1  write denyoom fast
SETEX         4   1  1  1  write denyoom
PSETEX        4   1  1  1  write denyoom
GETSET        3   1  1  1  write denyoom fast
GETDEL        2   1  1  1  write fast
GETEX        -2   1  1  1  write fast
APPEND        3   1  1  1  write denyoom fast
STRLEN        2   1  1  1  readonly fast
SETRANGE      4   1  1  1  write denyoom
GETRANGE      4   1  1  1  readonly
SUBSTR        4   1  1  1  readonly
INCR          2   1  1  1  write denyoom fast
DECR          2   1  1  1  write denyoom fast
INCRBY        3   1  1  1  write denyoom fast
DECRBY        3   1  1  1  write denyoom fast
INCRBYFLOAT   3   1  1  1  write denyoom fast
MGET         -2   1 -1  1  readonly fast
MSET         -3   1 -1  2  write denyoom
MSETNX       -3   1 -1  2  write denyoom
LCS          -3   1  2  1  readonly
DEL          -2   1 -1  1  write
UNLINK       -2   1 -1  1  write fast
EXISTS       -2   1 -1  1  readonly fast
TOUCH        -2   1 -1  1  readonly fast
TYPE          2   1  1  1  readonly fast
EXPIRE       -3   1  1  1  write fast
PEXPIRE      -3   1  1  1  write fast
EXPIREAT     -3   1  1  1  write fast
PEXPIREAT    -3   1  1  1  write fast
TTL           2   1  1  1  readonly fast
PTTL          2   1  1  1  readonly fast
EXPIRETIME    2   1  1  1  readonly fast
PEXPIRETIME   2   1  1  1  readonly fast
PERSIST       2   1  1  1  write fast
RENAME        3   1  2  1  write
RENAMENX      3   1  2  1  write fast
COPY         -3   1  2  1  write denyoom
MOVE          3   1  1  1  write fast
DUMP          2   1  1  1  readonly
RESTORE      -4   1  1  1  write denyoom
LPUSH        -3   1  1  1  write denyoom fast
RPUSH        -3   1  1  1  write denyoom fast
LPUSHX       -3   1  1  1  write denyoom fast
RPUSHX       -3   1  1  1  write denyoom fast
LPOP         -2   1  1  1  write fast
RPOP         -2   1  1  1  write fast
LLEN          2   1  1  1  readonly fast
LINDEX        3   1  1  1  readonly
LINSERT       5   1  1  1  write denyoom
LRANGE        4   1  1  1  readonly
LREM          4   1  1  1  write
LSET          4   1  1  1  write denyoom
LTRIM         4   1  1  1  write
LPOS         -3   1  1  1  readonly
LMOVE         5   1  2  1  write denyoom
RPOPLPUSH     3   1  2  1  write denyoom
LMPOP        -4   0  0  0  write
SETBIT        4   1  1  1  write denyoom
GETBIT        3   1  1  1  readonly fast
BITCOUNT     -2   1  1  1  readonly
BITPOS       -3   1  1  1  readonly
BITOP        -4   2 -1  1  write denyoom
BITFIELD     -2   1  1  1  write denyoom
BITFIELD_RO  -2   1  1  1  readonly fast
SADD         -3   1  1  1  write denyoom fast
SREM         -3   1  1  1  write fast
SMOVE         4   1  2  1  write fast
SISMEMBER     3   1  1  1  readonly fast
SMISMEMBER   -3   1  1  1  readonly fast
SCARD         2   1  1  1  readonly fast
SPOP         -2   1  1  1  write fast
SRANDMEMBER  -2   1  1  1  readonly
SINTER       -2   1 -1  1  readonly
SINTERCARD   -3   0  0  0  readonly
SINTERSTORE  -3   1 -1  1  write denyoom
SUNION       -2   1 -1  1  readonly
SUNIONSTORE  -3   1 -1  1  write denyoom
SDIFF        -2   1 -1  1  readonly
SDIFFSTORE   -3   1 -1  1  write denyoom
SMEMBERS      2   1  1  1  readonly
SSCAN        -3   1  1  1  readonly
SORT         -2   1  1  1  write denyoom
SORT_RO      -2   1  1  1  readonly
PFADD        -2   1  1  1  write denyoom fast
PFCOUNT      -2   1 -1  1  readonly
PFMERGE      -2   1 -1  1  write denyoom
PFDEBUG       3   2  2  1  write denyoom
PFSELFTEST    1   0  0  0
HSET             -4   1  1  1  write denyoom fast
HMSET            -4   1  1  1  write denyoom fast
HSETNX            4   1  1  1  write denyoom fast
HGET              3   1  1  1  readonly fast
HMGET            -3   1  1  1  readonly fast
HGETALL           2   1  1  1  readonly
HDEL             -3   1  1  1  write fast
HLEN              2   1  1  1  readonly fast
HSTRLEN           3   1  1  1  readonly fast
HEXISTS           3   1  1  1  readonly fast
HKEYS             2   1  1  1  readonly
HVALS             2   1  1  1  readonly
HINCRBY           4   1  1  1  write denyoom fast
HINCRBYFLOAT      4   1  1  1  write denyoom fast
HRANDFIELD       -2   1  1  1  readonly
HSCAN            -3   1  1  1  readonly
ZADD             -4   1  1  1  write denyoom fast
ZCARD             2   1  1  1  readonly fast
ZCOUNT            4   1  1  1  readonly fast
ZDIFF            -3   0  0  0  readonly
ZDIFFSTORE       -4   1  1  1  write denyoom
ZINCRBY           4   1  1  1  write denyoom fast
ZINTER           -3   0  0  0  readonly
ZINTERCARD       -3   0  0  0  readonly
ZINTERSTORE      -4   1  1  1  write denyoom
ZLEXCOUNT         4   1  1  1  readonly fast
ZMPOP            -4   0  0  0  write
ZMSCORE          -3   1  1  1  readonly fast
ZPOPMAX          -2   1  1  1  write fast
ZPOPMIN          -2   1  1  1  write fast
ZRANDMEMBER      -2   1  1  1  readonly
ZRANGE           -4   1  1  1  readonly
ZRANGEBYLEX      -4   1  1  1  readonly
ZRANGEBYSCORE    -4   1  1  1  readonly
ZRANGESTORE      -5   1  2  1  write denyoom
ZREM             -3   1  1  1  write fast
ZREMRANGEBYLEX    4   1  1  1  write
ZREMRANGEBYRANK   4   1  1  1  write
ZREMRANGEBYSCORE  4   1  1  1  write
ZREVRANGE        -4   1  1  1  readonly
ZREVRANGEBYLEX   -4   1  1  1  readonly
ZREVRANGEBYSCORE -4   1  1  1  readonly
ZSCAN            -3   1  1  1  readonly
ZSCORE            3   1  1  1  readonly fast
ZUNION           -3   0  0  0  readonly
ZUNIONSTORE      -4   1  1  1  write denyoom
XADD                  -5  1  1  1  write denyoom fast
XLEN                   2  1  1  1  readonly fast
XDEL                  -3  1  1  1  write fast
XTRIM                 -4  1  1  1  write
XRANGE                -4  1  1  1  readonly
XREVRANGE             -4  1  1  1  readonly
XSETID                -3  1  1  1  write denyoom fast
XREAD                 -4  0  0  0  readonly
XREADGROUP            -7  0  0  0  write
XACK                  -4  1  1  1  write fast
XPENDING              -3  1  1  1  readonly
XCLAIM                -6  1  1  1  write fast
XAUTOCLAIM            -6  1  1  1  write fast
GEOADD                -5  1  1  1  write denyoom
GEODIST               -4  1  1  1  readonly
GEOHASH               -2  1  1  1  readonly
GEOPOS                -2  1  1  1  readonly
GEOSEARCH             -7  1  1  1  readonly
GEOSEARCHSTORE        -8  1  2  1  write denyoom
GEORADIUS             -6  1  1  1  write denyoom
GEORADIUS_RO          -6  1  1  1  readonly
GEORADIUSBYMEMBER     -5  1  1  1  write denyoom
GEORADIUSBYMEMBER_RO  -5  1  1  1  readonly
";
    for line in REDIS.lines().filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, arity, first, last, step, flags @ ..] = words.as_slice() else { panic!("{line}") };
        let command = lookup(name.as_bytes()).unwrap_or_else(|| panic!("{name} is missing")).command;
        assert_eq!(command.arity.as_redis().to_string(), *arity, "{name}");
        let (our_first, our_last, our_step) = command.key_range();
        assert_eq!([our_first, our_last, our_step].map(|n| n.to_string()), [*first, *last, *step], "{name}");
        for (word, flag) in [
            ("readonly", Flags::READ),
            ("write", Flags::WRITE),
            ("denyoom", Flags::GROWS),
            ("fast", Flags::FAST),
        ] {
            assert_eq!(flags.contains(&word), command.flags.has(flag), "{name}: {word}");
        }
    }
}
