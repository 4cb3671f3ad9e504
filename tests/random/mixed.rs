//! Commands over all types, with keys that are mostly of the right type, and arguments that are mostly sound.
//!
//! What is left to chance by definition (SPOP of some, SRANDMEMBER...), what depends on the clock, and what two
//! servers may answer in any order is not among them, or asked in a way that has one answer.

use damselfly_tests::random::Random;

use crate::positions::Positions;
use crate::streams::Streams;
use crate::{Line, line_of};

/// Keys of each type: so few that they meet, so many that they fall on all shards.
const KEYS_PER_TYPE: u64 = 6;

/// Expiry is always this or another instant after it: no session lasts until then.
const FAR_S: u64 = 4_000_000_000;

/// Makes the lines of a session. A key's first letter tells its usual type.
pub struct Mixed {
    pub random: Random,
    pub streams: Streams,
    pub positions: Positions,
}

/// The names of all keys that a session may make. Sorted sets under `y` have one score only, as ranges of members want
/// it.
pub fn keys() -> impl Iterator<Item = String> {
    let numbered =
        "slhtzybp".chars().flat_map(|kind| (0..KEYS_PER_TYPE).map(move |at| format!("{kind}{at}")));
    let others = ["a", "b", "c", "wrong", "other", "near", "far", "stored", "missing"];
    numbered.chain(others.into_iter().map(str::to_owned))
}

impl Mixed {
    pub fn new(seed: u64) -> Mixed {
        Mixed {
            random: Random::new(seed),
            streams: Streams { random: Random::new(seed ^ 0x5555), next: 1 },
            positions: Positions { random: Random::new(seed ^ 0x3333) },
        }
    }

    fn key(&mut self, kind: char) -> String {
        let kind = if self.random.below(60) == 0 {
            self.random.pick(&["s", "l", "h", "t", "z", "b", "p"])
        } else {
            return format!("{kind}{}", self.random.below(KEYS_PER_TYPE));
        };
        format!("{kind}{}", self.random.below(KEYS_PER_TYPE))
    }

    fn any_key(&mut self) -> String {
        let kind = self.random.pick(&["s", "l", "h", "t", "z", "b", "p", "a"]);
        if kind == "a" { kind.to_owned() } else { self.key(kind.chars().next().unwrap_or('s')) }
    }

    /// An element of a collection: from a small world, so that elements meet; at times long, at times a number.
    fn element(&mut self) -> String {
        match self.random.below(40) {
            0 => "x".repeat(60 + self.random.below(20) as usize),
            1 => format!("{}y", self.random.below(50)).repeat(30),
            2 => String::new(),
            3 => self.edge(),
            4..20 => self.random.below(300).to_string(),
            20..24 => format!("-{}", self.random.below(100_000)),
            _ => format!("e{}", self.random.below(200)),
        }
    }

    /// A number at the edge of something, or no number at all.
    fn edge(&mut self) -> String {
        self.random
            .pick(&[
                "0",
                "-0",
                "+1",
                "01",
                " 1",
                "1 ",
                "",
                "1.0",
                "1e2",
                "0x10",
                "abc",
                "9223372036854775807",
                "9223372036854775808",
                "-9223372036854775808",
                "-9223372036854775809",
                "18446744073709551615",
                "127",
                "128",
                "-128",
                "-129",
                "32767",
                "32768",
                "2147483648",
                "4294967296",
                "1.5",
                "-1",
                "inf",
                "nan",
            ])
            .to_owned()
    }

    fn int(&mut self) -> String {
        match self.random.below(25) {
            0 => self.edge(),
            1..4 => format!("-{}", self.random.below(1000)),
            _ => self.random.below(1000).to_string(),
        }
    }

    /// None outside of the range of doubles: Redis' SORT takes a later number for such a one (it looks at an errno that
    /// was set before).
    fn float(&mut self) -> String {
        match self.random.below(30) {
            0 => self.edge(),
            1 => self.random.pick(&["-inf", "+inf", "1e308", "-1e308", "3.0e5", ".5", "1."]).to_owned(),
            2..6 => format!("{}.{}", self.random.below(100), self.random.below(1000)),
            6..9 => format!("-{}.5", self.random.below(20)),
            9 => format!("{}e-{}", self.random.below(100), self.random.below(20)),
            _ => self.random.below(40).to_string(),
        }
    }

    /// Not minus zero: Redis' SORT makes a big one of a small sorted set, and a big one tells minus zero from zero.
    fn score(&mut self) -> String {
        let score = self.float();
        if score == "-0" { "0".to_owned() } else { score }
    }

    /// A place in a collection.
    fn index(&mut self) -> String {
        match self.random.below(30) {
            0 => self.edge(),
            1..10 => format!("-{}", self.random.below(20)),
            10..13 => self.random.below(1000).to_string(),
            _ => self.random.below(20).to_string(),
        }
    }

    /// How many elements a command brings: mostly few, at times enough to leave the small forms.
    fn count(&mut self) -> u64 {
        match self.random.below(30) {
            0 => 130 + self.random.below(500),
            1..5 => 5 + self.random.below(30),
            _ => 1 + self.random.below(4),
        }
    }

    fn one_of(&mut self, words: &[&str]) -> String {
        self.random.pick(words).to_owned()
    }

    fn chance(&mut self, of: u64) -> bool {
        self.random.below(of) == 0
    }

    fn keys_of(&mut self, kind: char, line: &mut Line, most: u64) -> u64 {
        let count = 1 + self.random.below(most);
        for _ in 0..count {
            let key = self.key(kind);
            line.push(key);
        }
        count
    }

    fn option(&mut self, line: &mut Line, words: &[&str], of: u64) {
        for word in words {
            if self.chance(of) {
                line.extend(word.split(' ').map(str::to_owned));
            }
        }
    }

    fn instant(&mut self) -> String {
        (FAR_S + self.random.below(5)).to_string()
    }

    fn string(&mut self) -> Line {
        let key = self.key('s');
        let value = if self.chance(3) { self.int() } else { self.element() };
        let line = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Line>();
        match self.random.below(30) {
            0..5 => {
                let mut set = line(&["SET", &key, &value]);
                let exat = format!("EXAT {}", self.instant());
                self.option(&mut set, &["NX", "XX", "GET", "KEEPTTL", &exat], 8);
                set
            }
            5 => line(&["SETNX", &key, &value]),
            6 => line(&["GETSET", &key, &value]),
            7 => line(&["GETDEL", &key]),
            8 => {
                let mut get = line(&["GETEX", &key]);
                let pxat = format!("PXAT {}000", self.instant());
                self.option(&mut get, &["PERSIST", &pxat], 2);
                get
            }
            9 => line(&["APPEND", &key, &value]),
            10 => line(&["STRLEN", &key]),
            11 => {
                let at = self.random.below(3000).to_string();
                let at = if self.chance(20) { self.edge() } else { at };
                // No offset that makes half a gigabyte.
                if at.len() > 5 && !at.starts_with('-') && at.len() < 12 {
                    line(&["GET", &key])
                } else {
                    line(&["SETRANGE", &key, &at, &value])
                }
            }
            12..14 => line(&["GETRANGE", &key, &self.index(), &self.index()]),
            14..17 => {
                let by = self.int();
                let command = self.one_of(&["INCRBY", "DECRBY"]);
                line(&[&command, &key, &by])
            }
            17 => line(&[&self.one_of(&["INCR", "DECR"]), &key]),
            18 => line(&["INCRBYFLOAT", &key, &self.float()]),
            19..22 => {
                let mut mget = line(&["MGET"]);
                self.keys_of('s', &mut mget, 5);
                mget
            }
            22..25 => {
                let mut mset = line(&[&self.one_of(&["MSET", "MSET", "MSETNX"])]);
                for _ in 0..1 + self.random.below(4) {
                    let key = self.key('s');
                    let value = self.element();
                    mset.extend([key, value]);
                }
                if self.chance(20) {
                    mset.pop();
                }
                mset
            }
            25 => {
                let mut lcs = line(&["LCS", &key, &self.key('s')]);
                self.option(&mut lcs, &["LEN", "IDX", "WITHMATCHLEN", "MINMATCHLEN 2"], 3);
                lcs
            }
            26 => line(&["SUBSTR", &key, &self.index(), &self.index()]),
            _ => line(&["GET", &key]),
        }
    }

    fn bits(&mut self) -> Line {
        let key = self.key('b');
        let offset = if self.chance(40) {
            self.one_of(&["-1", "x", "4294967296", "01"])
        } else {
            {
                let most = if self.chance(20) { 100_000 } else { 300 };
                self.random.below(most).to_string()
            }
        };
        let mut line = match self.random.below(12) {
            0..4 => vec!["SETBIT".into(), key, offset, self.one_of(&["0", "1", "1", "2"])],
            4 => vec!["GETBIT".into(), key, offset],
            5 => {
                let mut line = vec!["BITCOUNT".into(), key];
                if self.chance(2) {
                    line.extend([self.index(), self.index()]);
                    self.option(&mut line, &["BIT", "BYTE"], 3);
                }
                line
            }
            6 => {
                let mut line = vec!["BITPOS".into(), key, self.one_of(&["0", "1", "2"])];
                for _ in 0..self.random.below(3) {
                    line.push(self.index());
                }
                if line.len() == 5 {
                    self.option(&mut line, &["BIT"], 2);
                }
                line
            }
            7..9 => {
                let mut line =
                    vec!["BITOP".into(), self.one_of(&["AND", "OR", "XOR", "NOT", "and", "NAND"]), key];
                self.keys_of('b', &mut line, 3);
                line
            }
            9 => vec!["GET".into(), key],
            _ => {
                let mut line = vec![self.one_of(&["BITFIELD", "BITFIELD", "BITFIELD_RO"]), key];
                for _ in 0..1 + self.random.below(4) {
                    let kind =
                        self.one_of(&["u1", "u8", "i8", "u7", "i64", "u63", "i5", "u64", "i0", "u16", "i33"]);
                    let at = if self.chance(2) {
                        format!("#{}", self.random.below(9))
                    } else {
                        self.random.below(70).to_string()
                    };
                    match self.random.below(6) {
                        0 => line
                            .extend(["OVERFLOW".into(), self.one_of(&["WRAP", "SAT", "FAIL", "sat", "NO"])]),
                        1 | 2 => line.extend(["GET".into(), kind, at]),
                        3 => line.extend(["SET".into(), kind, at, self.int()]),
                        _ => line.extend(["INCRBY".into(), kind, at, self.int()]),
                    }
                }
                line
            }
        };
        if self.chance(150) {
            line.pop();
        }
        line
    }

    fn hyperloglog(&mut self) -> Line {
        let key = self.key('p');
        match self.random.below(10) {
            0..6 => {
                let mut line = vec!["PFADD".into(), key];
                for _ in 0..self.count() * self.random.below(8) {
                    let element = self.random.below(5_000).to_string();
                    line.push(element);
                }
                line
            }
            6 | 7 => {
                let mut line = vec!["PFMERGE".into(), key];
                self.keys_of('p', &mut line, 3);
                line
            }
            8 => vec!["GET".into(), key],
            _ => {
                let mut line = vec!["PFCOUNT".into()];
                self.keys_of('p', &mut line, 3);
                line
            }
        }
    }

    fn list(&mut self) -> Line {
        let key = self.key('l');
        match self.random.below(24) {
            0..8 => {
                let mut line = vec![self.one_of(&["RPUSH", "LPUSH", "RPUSH", "LPUSHX", "RPUSHX"]), key];
                for _ in 0..self.count() {
                    let element = self.element();
                    line.push(element);
                }
                line
            }
            8 | 9 => {
                let mut line = vec![self.one_of(&["LPOP", "RPOP"]), key];
                if self.chance(2) {
                    line.push(self.index());
                }
                line
            }
            10 => vec!["LLEN".into(), key],
            11..13 => vec!["LRANGE".into(), key, self.index(), self.index()],
            13 => vec!["LINDEX".into(), key, self.index()],
            14 => vec!["LSET".into(), key, self.index(), self.element()],
            15 => vec!["LREM".into(), key, self.index(), self.element()],
            16 => vec!["LTRIM".into(), key, self.index(), format!("-{}", self.random.below(10))],
            17 => vec![
                "LINSERT".into(),
                key,
                self.one_of(&["BEFORE", "AFTER", "at"]),
                self.element(),
                self.element(),
            ],
            18..20 => {
                let mut line = vec!["LPOS".into(), key, self.element()];
                let rank = format!("RANK {}", self.random.below(7) as i64 - 3);
                self.option(&mut line, &[&rank, "COUNT 0", "COUNT 3", "MAXLEN 5", "MAXLEN 0", "COUNT -1"], 5);
                line
            }
            20 => vec!["RPOPLPUSH".into(), key, self.key('l')],
            21 | 22 => {
                let (from, to) = (self.one_of(&["LEFT", "RIGHT", "UP"]), self.one_of(&["LEFT", "RIGHT"]));
                vec!["LMOVE".into(), key, self.key('l'), from, to]
            }
            _ => {
                let mut keys = Vec::new();
                let count = self.keys_of('l', &mut keys, 3);
                let mut line = vec!["LMPOP".into(), count.to_string()];
                line.extend(keys);
                line.push(self.one_of(&["LEFT", "RIGHT"]));
                self.option(&mut line, &["COUNT 2", "COUNT 0"], 3);
                line
            }
        }
    }

    fn hash(&mut self) -> Line {
        let key = self.key('h');
        match self.random.below(20) {
            0..7 => {
                let mut line = vec![self.one_of(&["HSET", "HSET", "HMSET"]), key];
                for _ in 0..self.count() {
                    let (field, value) = (self.element(), self.element());
                    line.extend([field, value]);
                }
                if self.chance(60) {
                    line.pop();
                }
                line
            }
            7 => vec!["HSETNX".into(), key, self.element(), self.element()],
            8 => vec!["HGET".into(), key, self.element()],
            9 | 10 => {
                let mut line = vec![self.one_of(&["HMGET", "HDEL", "HDEL"]), key];
                for _ in 0..self.count() {
                    let field = self.element();
                    line.push(field);
                }
                line
            }
            11 => vec!["HLEN".into(), key],
            12 => vec![self.one_of(&["HSTRLEN", "HEXISTS"]), key, self.element()],
            13..15 => vec!["HINCRBY".into(), key, format!("n{}", self.random.below(4)), self.int()],
            15 => vec!["HINCRBYFLOAT".into(), key, format!("n{}", self.random.below(4)), self.float()],
            16 => vec!["HINCRBY".into(), key, self.element(), self.int()],
            17 => vec![self.one_of(&["HKEYS", "HVALS"]), key],
            18 => vec!["HSCAN".into(), key, "0".into(), "COUNT".into(), "1000000".into()],
            _ => vec!["HGETALL".into(), key],
        }
    }

    fn set(&mut self) -> Line {
        let key = self.key('t');
        match self.random.below(24) {
            0..8 => {
                let mut line = vec!["SADD".into(), key];
                let ints = self.chance(3);
                for _ in 0..self.count() {
                    let element = if ints { self.random.below(900).to_string() } else { self.element() };
                    line.push(element);
                }
                line
            }
            8 | 9 => {
                let mut line = vec![self.one_of(&["SREM", "SMISMEMBER"]), key];
                for _ in 0..self.count() {
                    let element = self.element();
                    line.push(element);
                }
                line
            }
            10 => vec!["SCARD".into(), key],
            11 => vec!["SISMEMBER".into(), key, self.element()],
            12 => vec!["SMOVE".into(), key, self.key('t'), self.element()],
            // All of them: some would be anybody's choice.
            13 => vec![self.one_of(&["SPOP", "SPOP", "SRANDMEMBER"]), key, "100000".into()],
            14 => vec!["SMEMBERS".into(), key],
            15..18 => {
                let mut line = vec![self.one_of(&["SINTER", "SUNION", "SDIFF"])];
                self.keys_of('t', &mut line, 4);
                line
            }
            18..21 => {
                let mut line = vec![self.one_of(&["SINTERSTORE", "SUNIONSTORE", "SDIFFSTORE"]), key];
                self.keys_of('t', &mut line, 4);
                line
            }
            21 => {
                let mut keys = Vec::new();
                let count = self.keys_of('t', &mut keys, 3);
                let mut line = vec!["SINTERCARD".into(), count.to_string()];
                line.extend(keys);
                self.option(&mut line, &["LIMIT 2", "LIMIT 0", "LIMIT -1"], 5);
                line
            }
            22 => vec!["SSCAN".into(), key, "0".into(), "COUNT".into(), "1000000".into()],
            _ => vec!["SMEMBERS".into(), key],
        }
    }

    fn score_edge(&mut self) -> String {
        match self.random.below(6) {
            0 => self.one_of(&["-inf", "+inf", "(5", "(-inf", "(x", "5"]),
            1 => format!("({}", self.float()),
            _ => self.float(),
        }
    }

    fn lex_edge(&mut self) -> String {
        match self.random.below(5) {
            0 => self.one_of(&["-", "+", "x", "["]),
            1 => format!("({}", self.element()),
            _ => format!("[{}", self.element()),
        }
    }

    fn zset(&mut self) -> Line {
        let key = self.key('z');
        match self.random.below(34) {
            0..9 => {
                let mut line = vec!["ZADD".into(), key];
                self.option(&mut line, &["NX", "XX", "GT", "LT", "CH"], 15);
                let count = if self.chance(12) {
                    line.push("INCR".into());
                    1
                } else {
                    self.count()
                };
                let same = self.chance(4);
                for _ in 0..count {
                    let score = if same { "1".into() } else { self.score() };
                    let member = self.element();
                    line.extend([score, member]);
                }
                line
            }
            9 | 10 => {
                let mut line = vec![self.one_of(&["ZREM", "ZMSCORE"]), key];
                for _ in 0..self.count() {
                    let element = self.element();
                    line.push(element);
                }
                line
            }
            11 => vec!["ZINCRBY".into(), key, self.score(), self.element()],
            12 => vec!["ZCARD".into(), key],
            13 => vec![self.one_of(&["ZSCORE", "ZRANK", "ZREVRANK"]), key, self.element()],
            14..17 => {
                let (low, high) = (self.index(), self.index());
                let mut line = vec![self.one_of(&["ZRANGE", "ZRANGE", "ZREVRANGE"]), key, low, high];
                self.option(&mut line, &["REV", "WITHSCORES", "LIMIT 1 2"], 3);
                line
            }
            17..19 => {
                let (low, high) = (self.score_edge(), self.score_edge());
                let command =
                    self.one_of(&["ZRANGEBYSCORE", "ZREVRANGEBYSCORE", "ZCOUNT", "ZREMRANGEBYSCORE"]);
                let mut line = vec![command, key, low, high];
                if line[0].starts_with("ZR") && line[0].ends_with("EBYSCORE") && !line[0].starts_with("ZREM")
                {
                    self.option(&mut line, &["WITHSCORES", "LIMIT 1 3", "LIMIT 0 -1", "LIMIT -1 5"], 3);
                }
                line
            }
            19..22 => self.by_name(),
            22 => {
                let by_score = self.chance(2);
                let (low, high) = if by_score {
                    (self.score_edge(), self.score_edge())
                } else {
                    (self.index(), self.index())
                };
                let mut line = vec!["ZRANGESTORE".into(), key, self.key('z'), low, high];
                if by_score {
                    line.push("BYSCORE".into());
                }
                self.option(&mut line, &["REV", "LIMIT 1 4"], 3);
                line
            }
            23 => vec!["ZREMRANGEBYRANK".into(), key, self.index(), self.index()],
            24 => {
                let mut line = vec![self.one_of(&["ZPOPMIN", "ZPOPMAX"]), key];
                if self.chance(2) {
                    line.push(self.index());
                }
                line
            }
            25 => {
                let mut keys = Vec::new();
                let count = self.keys_of('z', &mut keys, 3);
                let mut line = vec!["ZMPOP".into(), count.to_string()];
                line.extend(keys);
                line.push(self.one_of(&["MIN", "MAX"]));
                self.option(&mut line, &["COUNT 2"], 2);
                line
            }
            26..32 => {
                let kind = if self.chance(5) { 't' } else { 'z' };
                let mut keys = Vec::new();
                let mut count = self.keys_of(kind, &mut keys, 3);
                if self.chance(4) {
                    keys.push(self.key('t'));
                    count += 1;
                }
                let command = self.one_of(&["ZUNION", "ZINTER", "ZDIFF", "ZINTERCARD"]);
                let stores = command != "ZINTERCARD" && self.chance(2);
                let mut line =
                    if stores { vec![format!("{command}STORE"), key] } else { vec![command.clone()] };
                line.push(count.to_string());
                line.extend(keys);
                if command == "ZINTERCARD" {
                    self.option(&mut line, &["LIMIT 3"], 3);
                    return line;
                }
                if command != "ZDIFF" {
                    if self.chance(3) {
                        line.push("WEIGHTS".into());
                        for _ in 0..count {
                            let weight = self.float();
                            line.push(weight);
                        }
                    }
                    self.option(&mut line, &["AGGREGATE MIN", "AGGREGATE MAX", "AGGREGATE SUM"], 6);
                }
                if !stores {
                    self.option(&mut line, &["WITHSCORES"], 2);
                }
                line
            }
            32 => vec!["ZSCAN".into(), key, "0".into(), "COUNT".into(), "1000000".into()],
            _ => vec!["ZRANGE".into(), key, "0".into(), "-1".into(), "WITHSCORES".into()],
        }
    }

    /// Sorted sets whose scores are equal, by their members.
    fn by_name(&mut self) -> Line {
        let key = format!("y{}", self.random.below(KEYS_PER_TYPE));
        let (low, high) = (self.lex_edge(), self.lex_edge());
        match self.random.below(10) {
            0..4 => {
                let mut line = vec!["ZADD".into(), key];
                for _ in 0..self.count() {
                    let member = self.element();
                    line.extend(["0".into(), member]);
                }
                line
            }
            4 => {
                let mut line = vec!["ZRANGE".into(), key, low, high, "BYLEX".into()];
                self.option(&mut line, &["REV", "LIMIT 1 4", "WITHSCORES"], 3);
                line
            }
            5 => {
                let to = format!("y{}", self.random.below(KEYS_PER_TYPE));
                vec!["ZRANGESTORE".into(), to, key, low, high, "BYLEX".into()]
            }
            6 => vec![self.one_of(&["ZLEXCOUNT", "ZREMRANGEBYLEX"]), key, low, high],
            _ => {
                let mut line = vec![self.one_of(&["ZRANGEBYLEX", "ZREVRANGEBYLEX"]), key, low, high];
                self.option(&mut line, &["LIMIT 1 3", "LIMIT 0 -1"], 3);
                line
            }
        }
    }

    fn generic(&mut self) -> Line {
        let key = self.any_key();
        match self.random.below(24) {
            0..4 => {
                let mut line = vec![self.one_of(&["DEL", "UNLINK", "EXISTS", "TOUCH"]), key];
                if self.chance(2) {
                    line.push(self.any_key());
                }
                line
            }
            4 => vec!["TYPE".into(), key],
            5..7 => {
                let mut line = vec!["EXPIREAT".into(), key, self.instant()];
                self.option(&mut line, &["NX", "XX", "GT", "LT"], 6);
                line
            }
            7 => vec!["PEXPIREAT".into(), key, format!("{}123", self.instant())],
            8 => vec!["EXPIREAT".into(), key, self.one_of(&["1000", "-5", "x", "9223372036854775807"])],
            9 => vec!["PERSIST".into(), key],
            10 | 11 => vec![self.one_of(&["EXPIRETIME", "PEXPIRETIME"]), key],
            12..14 => {
                // Among keys of a kind, so that names go on to tell what keys hold.
                let kind = key.chars().next().unwrap_or('s');
                let to = if key.len() == 2 { self.key(kind) } else { self.any_key() };
                vec![self.one_of(&["RENAME", "RENAMENX"]), key, to]
            }
            14..17 => {
                let kind = key.chars().next().unwrap_or('s');
                let to = if key.len() == 2 { self.key(kind) } else { self.any_key() };
                let mut line = vec!["COPY".into(), key, to];
                self.option(&mut line, &["REPLACE"], 2);
                line
            }
            17 => {
                let mut line = vec!["SORT".into(), self.key('l')];
                self.sorting(&mut line);
                line
            }
            18 => {
                let mut line = vec!["SORT".into(), self.key('z'), "ALPHA".into()];
                self.sorting(&mut line);
                line
            }
            19 => vec!["SORT".into(), self.key('t'), "ALPHA".into(), self.one_of(&["ASC", "DESC"])],
            20 => vec!["DBSIZE".into()],
            21 => vec!["DEBUG".into(), "DIGEST-VALUE".into(), key],
            22 => vec!["MOVE".into(), key, self.one_of(&["1", "0", "99", "x"])],
            _ => vec!["MEMORY".into(), "USAGE".into(), "missing".into()],
        }
    }

    fn sorting(&mut self, line: &mut Line) {
        let get = format!("GET {}*", self.one_of(&["s", "b", "h"]));
        self.option(line, &["DESC", "LIMIT 1 5", "LIMIT 0 -1", &get, "GET #", "GET h*->n1"], 5);
        // Redis compares texts to be stored as bytes, as we always do, and others up to their first zero byte.
        let stores = self.chance(4);
        if stores && self.chance(2) {
            line.push("ALPHA".into());
        }
        // By words that may be missing or equal there is no one order.
        if !line.iter().any(|word| word == "ALPHA") {
            self.option(line, &["BY s*", "BY h*->n2"], 5);
        }
        if stores {
            line.extend(["STORE".into(), self.key('l')]);
        }
    }

    /// The next command. Nothing that looks at all keys: in a pipeline it may overtake commands on single ones.
    pub fn line(&mut self) -> Line {
        loop {
            let line = self.any_line();
            if !(line[0] == "DBSIZE" || line[0] == "DEBUG" && line[1] == "DIGEST") {
                return line;
            }
        }
    }

    fn any_line(&mut self) -> Line {
        match self.random.below(100) {
            0..13 => self.string(),
            13..21 => self.bits(),
            21..25 => self.hyperloglog(),
            25..37 => self.list(),
            37..48 => self.hash(),
            48..60 => self.set(),
            60..77 => self.zset(),
            77..87 => line_of(&self.streams.line()),
            87..91 => line_of(&self.positions.line()),
            _ => self.generic(),
        }
    }
}
