//! What a setting may hold: the kinds, how each reads text and how each prints.
//!
//! One parser serves the command line, the environment and CONFIG SET, so that a value accepted in one place
//! is accepted in the others. They differ in a single point, [`Units`]: what a bare `k` after a number of
//! bytes means. The refusals are worded as Redis words them, because clients and test suites compare CONFIG
//! SET's errors.
//!
//! Every kind prints to a text that it reads back to the same value: CONFIG GET's answer can be handed to
//! CONFIG SET. Next: rows.rs gives each name its kind.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;

use crate::cron::Cron;

/// Longest text CONFIG SET stores. A setting is read by every core; nobody needs a novel there.
pub const TEXT_LEN_MAX: usize = 64 * 1024;

/// The kind of value a row holds.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A switch that prints `true` or `false`, as Dragonfly prints its own.
    Bool,
    /// A switch that prints `yes` or `no`, as Redis prints its own.
    YesNo,
    /// A whole number within inclusive bounds.
    Int(i64, i64),
    /// A number of bytes within inclusive bounds; units are understood, bytes are printed.
    Bytes(u64, u64),
    /// A number of bytes, or a part of all memory in percent. Its value is text.
    BytesOrPercent,
    /// A finite number.
    Float,
    /// Any UTF-8 text.
    Text,
    /// Text that must not reach a log line.
    Secret,
    /// One word of a list, in any case. Its value is the word's index.
    Choice(&'static [&'static str]),
    /// The one value that is true of this server, and what to tell somebody who wants another.
    Only(&'static str, &'static str),
    /// Classes of keyspace events, as letters.
    Events,
    /// `class hard soft seconds`, for up to three classes; the classes left out keep their limits.
    OutputLimits,
    /// Percentiles, separated by spaces.
    Percentiles,
    /// Five cron fields, or nothing.
    Cron,
    /// The name of a file without a directory.
    FileName,
    /// Permission bits in octal, or nothing.
    Mode,
    /// `host:port` or `[v6]:port`, or nothing. Also `host port`, as redis-server takes it.
    HostPort,
}

/// A parsed value. Which variant a kind yields is fixed: see [`Kind::parse`].
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of [`Kind::Bool`] and [`Kind::YesNo`].
    Bool(bool),
    /// Of [`Kind::Int`]; of [`Kind::Choice`] the index; of [`Kind::Events`] the bits.
    Int(i64),
    /// Of [`Kind::Bytes`].
    Bytes(u64),
    /// Of [`Kind::Float`].
    Float(f64),
    /// Of all other kinds, in the canonical spelling.
    Text(Arc<str>),
}

/// What a unit after a number of bytes means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Units {
    /// Flags: every unit is a power of 1024, `1K` = `1KB` = `1KiB` = 1024.
    Flag,
    /// CONFIG SET: a bare letter is decimal, `1k` = 1000, and `1kb` = `1KiB` = 1024. This is Redis' rule,
    /// carried on to the units Redis does not have. Where the two readings differ, the decimal one is the
    /// smaller.
    Redis,
}

impl Kind {
    /// Reads `text`. The error is the sentence to show, in Redis' words where Redis has words.
    pub fn parse(self, text: &str, units: Units) -> Result<Value, String> {
        match self {
            Kind::Bool => {
                parse_bool(text).map(Value::Bool).ok_or("argument must be 'true' or 'false'".into())
            }
            Kind::YesNo => parse_bool(text).map(Value::Bool).ok_or("argument must be 'yes' or 'no'".into()),
            Kind::Int(min, max) => {
                let number = parse_int(text).ok_or("argument couldn't be parsed into an integer")?;
                within(number, min, max).map(Value::Int)
            }
            Kind::Bytes(min, max) => {
                let bytes = parse_bytes(text, units).ok_or("argument must be a memory value")?;
                within(bytes, min, max).map(Value::Bytes)
            }
            Kind::BytesOrPercent => match text.strip_suffix('%').map(parse_int) {
                Some(Some(0..=100)) => Ok(text_of(text)),
                Some(Some(101..)) => Err("percentage argument must be less or equal to 100".into()),
                Some(_) => Err("argument must be a memory or percent value".into()),
                None => parse_bytes(text, units)
                    .map(|bytes| text_of(&bytes.to_string()))
                    .ok_or("argument must be a memory or percent value".into()),
            },
            Kind::Float => match text.parse::<f64>() {
                Ok(number) if number.is_finite() => Ok(Value::Float(number)),
                _ => Err("argument couldn't be parsed into a number".into()),
            },
            Kind::Choice(words) => match words.iter().position(|word| word.eq_ignore_ascii_case(text)) {
                Some(index) => Ok(Value::Int(index as i64)),
                None => Err(format!("argument(s) must be one of the following: {}", words.join(", "))),
            },
            Kind::Only(only, why) => {
                let same = match (parse_bool(only), parse_bool(text)) {
                    (Some(a), Some(b)) => a == b,
                    _ => only == text,
                };
                if same { Ok(Value::Text(only.into())) } else { Err(why.into()) }
            }
            Kind::Events => Events::parse(text).map(|events| Value::Int(i64::from(events.bits()))),
            Kind::OutputLimits => {
                OutputLimits::REDIS.updated(text).map(|limits| text_of(&limits.to_string()))
            }
            Kind::Text | Kind::Secret => Ok(text_of(text)),
            Kind::Percentiles => parse_percentiles(text),
            Kind::Cron => {
                if !text.is_empty() {
                    Cron::parse(text).map_err(|error| error.to_string())?;
                }
                Ok(text_of(text))
            }
            Kind::FileName => parse_file_name(text),
            Kind::Mode => match u32::from_str_radix(text, 8) {
                _ if text.is_empty() => Ok(text_of("")),
                Ok(mode) if mode <= 0o777 => Ok(text_of(&format!("{mode:o}"))),
                _ => Err("argument must be permissions in octal, such as 770".into()),
            },
            Kind::HostPort => match HostPort::parse(text) {
                _ if text.is_empty() => Ok(text_of("")),
                Some(address) => Ok(text_of(&address.to_string())),
                None => Err("argument must be host:port".into()),
            },
        }
    }

    /// The text CONFIG GET answers for `value`.
    ///
    /// # Panics
    /// When `value` is of another kind: the table and the store disagree.
    pub fn print(self, value: &Value) -> String {
        match (self, value) {
            (Kind::Bool, Value::Bool(on)) => on.to_string(),
            (Kind::YesNo, Value::Bool(on)) => if *on { "yes" } else { "no" }.into(),
            (Kind::Choice(words), Value::Int(index)) => words[*index as usize].into(),
            (Kind::Events, Value::Int(bits)) => Events::from_bits(*bits as u32).to_string(),
            (Kind::Int(..), Value::Int(number)) => number.to_string(),
            (Kind::Bytes(..), Value::Bytes(bytes)) => bytes.to_string(),
            (Kind::Float, Value::Float(number)) => number.to_string(),
            (_, Value::Text(text)) => text.to_string(),
            (kind, value) => panic!("a {kind:?} cannot hold {value:?}"),
        }
    }

    /// Whether a bare `--name` means `--name=true`.
    pub fn is_switch(self) -> bool {
        matches!(self, Kind::Bool | Kind::YesNo)
    }

    /// The placeholder `--help` shows after the flag.
    pub(crate) fn placeholder(self) -> &'static str {
        match self {
            Kind::Bool | Kind::YesNo => "true|false",
            Kind::Int(..) => "N",
            Kind::Bytes(..) | Kind::BytesOrPercent => "BYTES",
            Kind::Float => "X",
            Kind::Choice(_) | Kind::Only(..) => "WORD",
            Kind::Events => "LETTERS",
            Kind::OutputLimits => "LIMITS",
            Kind::Percentiles => "LIST",
            Kind::Cron => "CRON",
            Kind::FileName => "NAME",
            Kind::Mode => "OCTAL",
            Kind::HostPort => "HOST:PORT",
            Kind::Text | Kind::Secret => "TEXT",
        }
    }
}

fn text_of(text: &str) -> Value {
    Value::Text(text.into())
}

fn within<T: PartialOrd + std::fmt::Display>(number: T, min: T, max: T) -> Result<T, String> {
    if number < min || number > max {
        return Err(format!("argument must be between {min} and {max} inclusive"));
    }
    Ok(number)
}

fn parse_bool(text: &str) -> Option<bool> {
    const WORDS: [(&str, bool); 10] = [
        ("true", true),
        ("yes", true),
        ("t", true),
        ("y", true),
        ("1", true),
        ("false", false),
        ("no", false),
        ("f", false),
        ("n", false),
        ("0", false),
    ];
    WORDS.iter().find(|(word, _)| word.eq_ignore_ascii_case(text)).map(|(_, on)| *on)
}

/// Digits with an optional minus. Rust's own parser also takes a plus, which Redis refuses.
fn parse_int(text: &str) -> Option<i64> {
    if text.starts_with('+') { None } else { text.parse().ok() }
}

/// Reads `300000000`, `512MB`, `2G`, `1.25GiB`; case does not matter, an empty text is 0 as in Redis.
///
/// Fractions are computed in integers (at most nine digits after the point): floating point would round
/// `7.9E`.
pub fn parse_bytes(text: &str, units: Units) -> Option<u64> {
    if text.is_empty() {
        return Some(0);
    }
    let number_len = text.bytes().take_while(|b| b.is_ascii_digit() || *b == b'.').count();
    let (number, unit) = text.split_at(number_len);
    let mut unit = unit.to_ascii_lowercase();
    let suffix_is_binary = unit.len() > 1;
    if unit.ends_with('b') {
        unit.pop();
    }
    if unit.ends_with('i') && unit.len() == 2 {
        unit.pop();
    }
    let power = match unit.as_str() {
        "" => 0,
        letter if letter.len() == 1 => "kmgtpe".find(letter)? as u32 + 1,
        _ => return None,
    };
    let base: u64 = if units == Units::Redis && !suffix_is_binary { 1000 } else { 1024 };
    let scale = base.pow(power);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    if fraction.contains('.') || fraction.len() > 9 {
        return None;
    }
    let part: u64 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let part = u128::from(part) * u128::from(scale) / 10u128.pow(fraction.len() as u32);
    whole.checked_mul(scale)?.checked_add(u64::try_from(part).ok()?)
}

fn parse_percentiles(text: &str) -> Result<Value, String> {
    let mut canonical = String::new();
    for word in text.split_whitespace() {
        let number: f64 = word.parse().map_err(|_| "Invalid latency-tracking-info-percentiles parameters")?;
        if !(0.0..=100.0).contains(&number) {
            return Err("latency-tracking-info-percentiles parameters should sit between [0.0,100.0]".into());
        }
        let separator = if canonical.is_empty() { "" } else { " " };
        let _ = write!(canonical, "{separator}{number}");
    }
    Ok(text_of(&canonical))
}

/// Snapshots stay in `dir`: a name that leads elsewhere is refused. A quote at both ends is what a flag file
/// or a manifest leaves when somebody quoted a value that is not unquoted by anybody.
fn parse_file_name(text: &str) -> Result<Value, String> {
    if text.contains('/') {
        return Err("argument must be a file name without a directory".into());
    }
    if text == "." || text == ".." || text.bytes().any(|b| b.is_ascii_control()) {
        return Err("argument must be the name of a file".into());
    }
    if is_quoted(text) {
        return Err("argument must not be quoted".into());
    }
    Ok(text_of(text))
}

/// Whether the same quote stands at both ends.
pub(crate) fn is_quoted(text: &str) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(first @ (b'"' | b'\'')), Some(last)) => first == last,
        _ => false,
    }
}

/// Where another server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// A name or an address, without brackets.
    pub host: String,
    /// Never 0.
    pub port: u16,
}

impl HostPort {
    /// Reads `host:port`, `[v6]:port` or `host port`. A bare IPv6 address is refused: its last group looks
    /// like a port.
    pub fn parse(text: &str) -> Option<HostPort> {
        let (host, port) = text.trim().rsplit_once([':', ' '])?;
        let host = match host.trim_end().strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').filter(|inner| inner.parse::<IpAddr>().is_ok())?,
            None if host.contains(':') && text.contains(' ') => host.trim_end(),
            None if host.contains(':') => return None,
            None => host.trim_end(),
        };
        let port = port.parse().ok().filter(|port| *port != 0)?;
        let legal = |b: u8| b.is_ascii_graphic();
        if host.is_empty() || host.len() > 255 || !host.bytes().all(legal) {
            return None;
        }
        Some(HostPort { host: host.into(), port })
    }
}

impl std::fmt::Display for HostPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Classes of keyspace events, and the two channels they may be published on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events(u32);

impl Events {
    /// Publish on `__keyspace@<db>__:<key>`.
    pub const KEYSPACE: Events = Events(1);
    /// Publish on `__keyevent@<db>__:<event>`.
    pub const KEYEVENT: Events = Events(1 << 1);
    /// DEL, EXPIRE, RENAME and their like.
    pub const GENERIC: Events = Events(1 << 2);
    /// Strings.
    pub const STRING: Events = Events(1 << 3);
    /// Lists.
    pub const LIST: Events = Events(1 << 4);
    /// Sets.
    pub const SET: Events = Events(1 << 5);
    /// Hashes.
    pub const HASH: Events = Events(1 << 6);
    /// Sorted sets.
    pub const ZSET: Events = Events(1 << 7);
    /// A key's time was up.
    pub const EXPIRED: Events = Events(1 << 8);
    /// A key was evicted for its memory.
    pub const EVICTED: Events = Events(1 << 9);
    /// Streams.
    pub const STREAM: Events = Events(1 << 10);
    /// Types that are modules in Redis, such as JSON and the filters.
    pub const MODULE: Events = Events(1 << 11);
    /// A key was read that does not exist. Not part of `A`: it would drown the rest.
    pub const KEY_MISS: Events = Events(1 << 12);
    /// A key was created. Not part of `A`.
    pub const NEW: Events = Events(1 << 13);
    /// What `A` stands for.
    pub const ALL: Events = Events(0b1111_1111_1100);

    /// In the order Redis prints them.
    const LETTERS: [(char, Events); 12] = [
        ('g', Events::GENERIC),
        ('$', Events::STRING),
        ('l', Events::LIST),
        ('s', Events::SET),
        ('h', Events::HASH),
        ('z', Events::ZSET),
        ('x', Events::EXPIRED),
        ('e', Events::EVICTED),
        ('t', Events::STREAM),
        ('d', Events::MODULE),
        ('n', Events::NEW),
        ('K', Events::KEYSPACE),
    ];

    /// The bits, for a cell that holds a number.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// From [`Events::bits`].
    pub const fn from_bits(bits: u32) -> Events {
        Events(bits)
    }

    /// Whether every class of `other` is in.
    pub const fn contains(self, other: Events) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether an event of `class` is to be published at all: the class is on, and so is one of the two
    /// channels.
    pub const fn publishes(self, class: Events) -> bool {
        self.contains(class) && self.0 & (Events::KEYSPACE.0 | Events::KEYEVENT.0) != 0
    }

    /// Reads the letters of `notify-keyspace-events`.
    pub fn parse(letters: &str) -> Result<Events, String> {
        let mut bits = 0;
        for letter in letters.chars() {
            bits |= match letter {
                'A' => Events::ALL.0,
                'E' => Events::KEYEVENT.0,
                'm' => Events::KEY_MISS.0,
                letter => match Events::LETTERS.iter().find(|(known, _)| *known == letter) {
                    Some((_, class)) => class.0,
                    None => return Err("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.".into()),
                },
            };
        }
        Ok(Events(bits))
    }
}

impl std::fmt::Display for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = self.contains(Events::ALL);
        if all {
            f.write_char('A')?;
        }
        for (letter, class) in Events::LETTERS {
            // Next to `A`, `n` is printed last; Redis 7.0 forgets it there and 7.2 prints it last.
            let covered = all && (Events::ALL.contains(class) || class == Events::NEW);
            if self.contains(class) && !covered {
                f.write_char(letter)?;
            }
        }
        if self.contains(Events::KEYEVENT) {
            f.write_char('E')?;
        }
        if self.contains(Events::KEY_MISS) {
            f.write_char('m')?;
        }
        if all && self.contains(Events::NEW) {
            f.write_char('n')?;
        }
        Ok(())
    }
}

/// How much unsent output a client may pile up before it is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputLimit {
    /// Dropped at once above this; 0: no limit.
    pub hard_bytes: u64,
    /// Dropped when above this for `soft_secs`; 0: no limit.
    pub soft_bytes: u64,
    /// See `soft_bytes`.
    pub soft_secs: u64,
}

/// One limit per class of client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputLimits {
    /// Clients that ask and are answered.
    pub normal: OutputLimit,
    /// Replicas.
    pub replica: OutputLimit,
    /// Clients subscribed to a channel or pattern.
    pub pubsub: OutputLimit,
}

impl OutputLimits {
    /// The limits of an unconfigured Redis.
    pub const REDIS: OutputLimits = OutputLimits {
        normal: OutputLimit { hard_bytes: 0, soft_bytes: 0, soft_secs: 0 },
        replica: OutputLimit { hard_bytes: 256 << 20, soft_bytes: 64 << 20, soft_secs: 60 },
        pubsub: OutputLimit { hard_bytes: 32 << 20, soft_bytes: 8 << 20, soft_secs: 60 },
    };

    /// These limits with the classes that `text` names replaced.
    pub fn updated(mut self, text: &str) -> Result<OutputLimits, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let (entries, rest) = words.as_chunks::<4>();
        if !rest.is_empty() {
            return Err("Wrong number of arguments in buffer limit configuration.".into());
        }
        for [class, hard, soft, seconds] in entries {
            let class = match class.to_ascii_lowercase().as_str() {
                "normal" => &mut self.normal,
                "replica" | "slave" => &mut self.replica,
                "pubsub" => &mut self.pubsub,
                _ => return Err("Invalid client class specified in buffer limit configuration.".into()),
            };
            let limit = || {
                Some(OutputLimit {
                    hard_bytes: parse_bytes(hard, Units::Redis)?,
                    soft_bytes: parse_bytes(soft, Units::Redis)?,
                    soft_secs: parse_int(seconds).and_then(|n| u64::try_from(n).ok())?,
                })
            };
            *class = limit()
                .ok_or("Error in hard, soft or soft_seconds setting in buffer limit configuration.")?;
        }
        Ok(self)
    }
}

impl std::fmt::Display for OutputLimits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let classes = [("normal", self.normal), (" slave", self.replica), (" pubsub", self.pubsub)];
        classes.iter().try_for_each(|(name, limit)| {
            write!(f, "{name} {} {} {}", limit.hard_bytes, limit.soft_bytes, limit.soft_secs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Events, HostPort, Kind, OutputLimits, Units, Value, parse_bytes};

    #[test]
    fn bytes() {
        let (flag, redis) = (Units::Flag, Units::Redis);
        for (text, as_flag, as_redis) in [
            ("300000000", Some(300_000_000), Some(300_000_000)),
            ("0", Some(0), Some(0)),
            ("", Some(0), Some(0)),
            ("5b", Some(5), Some(5)),
            ("512MB", Some(512 << 20), Some(512 << 20)),
            ("512m", Some(512 << 20), Some(512_000_000)),
            ("2G", Some(2 << 30), Some(2_000_000_000)),
            ("2gb", Some(2 << 30), Some(2 << 30)),
            ("1.25GiB", Some(5 << 28), Some(5 << 28)),
            ("1gi", Some(1 << 30), Some(1 << 30)),
            (".5k", Some(512), Some(500)),
            ("1.k", Some(1024), Some(1000)),
            ("15e", Some(15 << 60), Some(15_000_000_000_000_000_000)),
            ("15.999E", Some(18_445_591_152_204_944_769), Some(15_999_000_000_000_000_000)),
            ("18446744073709551615", Some(u64::MAX), Some(u64::MAX)),
            ("18446744073709551616", None, None),
            ("16e", None, Some(16_000_000_000_000_000_000)),
            ("19e", None, None),
            ("-5", None, None),
            ("+5", None, None),
            (" 5", None, None),
            ("5 k", None, None),
            ("k", None, None),
            (".", None, None),
            ("1.2.3", None, None),
            ("1ib", None, None),
            ("1kk", None, None),
            ("1bb", None, None),
            ("1x", None, None),
            ("10%", None, None),
            ("1\u{212a}", None, None), // Kelvin, whose lower case is a k
        ] {
            assert_eq!(parse_bytes(text, flag), as_flag, "{text} as flag");
            assert_eq!(parse_bytes(text, redis), as_redis, "{text} as CONFIG SET");
        }
    }

    /// All 2^14 sets of classes print to letters that read back to the same.
    #[test]
    fn events() {
        for bits in 0..1 << 14 {
            let events = Events::from_bits(bits);
            assert_eq!(Events::parse(&events.to_string()), Ok(events));
        }
        // As redis-server 7.0 prints them.
        for (given, printed) in [
            ("KEA", "AKE"),
            ("Ex", "xE"),
            ("AKg", "AK"),
            ("KEgxtn", "gxtnKE"),
            ("g$lshzxetdKE", "AKE"),
            ("gx", "gx"),
            ("", ""),
            ("AKEm", "AKEm"),
        ] {
            assert_eq!(Events::parse(given).map(|events| events.to_string()), Ok(printed.into()));
        }
        let expired = Events::parse("Ex").unwrap();
        assert!(expired.publishes(Events::EXPIRED) && !expired.publishes(Events::GENERIC));
        assert!(!Events::parse("x").unwrap().publishes(Events::EXPIRED), "on no channel");
    }

    #[test]
    fn output_limits() {
        let limits = OutputLimits::REDIS;
        assert_eq!(limits.to_string(), "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60");
        let limits = limits.updated("replica 1mb 2k 3  PUBSUB 1 2 3").unwrap();
        assert_eq!(limits.to_string(), "normal 0 0 0 slave 1048576 2000 3 pubsub 1 2 3");
        assert_eq!(limits.updated(&limits.to_string()), Ok(limits));
        assert_eq!(limits.updated(""), Ok(limits));
    }

    #[test]
    fn host_and_port() {
        let parsed = |text: &str| HostPort::parse(text).map(|address| (address.host, address.port));
        for (text, host, port) in [
            ("10.0.0.1:9999", "10.0.0.1", 9999),
            ("redis-0.redis:6379", "redis-0.redis", 6379),
            ("[fd00::1]:9999", "fd00::1", 9999),
            ("10.0.0.1 6379", "10.0.0.1", 6379),
            ("fd00::1 6379", "fd00::1", 6379),
        ] {
            assert_eq!(parsed(text), Some((host.into(), port)), "{text}");
            let printed = HostPort::parse(text).unwrap().to_string();
            assert_eq!(parsed(&printed), Some((host.into(), port)), "{printed}");
        }
        for bad in [
            "",
            "host",
            "host:",
            ":6379",
            "host:0",
            "host:65536",
            "fd00::1:6379",
            "[fd00::1:1",
            "[x]:1",
            "a b:1",
        ] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }

    #[test]
    fn switches() {
        for (words, on) in [(["true", "yes", "t", "y", "1"], true), (["false", "NO", "F", "n", "0"], false)] {
            for word in words {
                assert_eq!(Kind::Bool.parse(word, Units::Flag), Ok(Value::Bool(on)));
            }
        }
        for bad in ["", "on", "off", "2", "truee"] {
            assert!(Kind::Bool.parse(bad, Units::Flag).is_err());
        }
    }

    /// A fraction is computed without floating point, and a number must be finite.
    #[test]
    fn numbers() {
        let float = |text| Kind::Float.parse(text, Units::Flag);
        assert_eq!(float("-1.5"), Ok(Value::Float(-1.5)));
        assert!(float("nan").is_err() && float("inf").is_err() && float("").is_err());
        let int = |text| Kind::Int(-5, 5).parse(text, Units::Flag);
        assert_eq!(int("-5"), Ok(Value::Int(-5)));
        for bad in ["6", "+5", " 5", "5 ", "0x5", "1e0", ""] {
            assert!(int(bad).is_err(), "{bad}");
        }
    }
}
