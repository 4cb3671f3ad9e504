//! The values that CONFIG GET shows and CONFIG SET changes, shared by all threads.
//!
//! A number is an atomic and a text sits behind a lock that is held for one clone of an `Arc`, so that
//! reading never waits for a writer that does anything. Hot paths do not even do that: a core keeps copies of
//! what it needs and compares [`Settings::generation`], one load, once per tick or batch.
//!
//! A change of several values is all or nothing as to its *validity*: [`Settings::check`] tries everything
//! before [`Settings::commit`] stores anything. It is not one instant for readers, who may see the first of
//! two values a moment earlier; the generation moves after the last, so whoever re-reads on a new generation
//! ends with all of them.
//!
//! Next: rows.rs says which values there are; value.rs, how they read and print.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::glob::Pattern;
use crate::rows::ROWS;
use crate::start::{Initial, LogLevel, MaxmemoryPolicy};
use crate::table::{self, Entry, Exposure, row};
use crate::value::{Events, Kind, OutputLimits, TEXT_LEN_MAX, Units, Value};

/// Longest pattern CONFIG GET compares: names have at most 42 letters, and a class of more members says
/// nothing more.
const PATTERN_LEN_MAX: usize = 1024;
/// How much of an unknown name an error repeats.
const SHOWN_LEN_MAX: usize = 128;

/// The store. Shared as `Arc<Settings>`.
pub struct Settings {
    /// One per row, in the table's order.
    cells: Box<[Cell]>,
    generation: AtomicU64,
}

enum Cell {
    /// A switch, a number, an index, bits, or the bits of a float.
    Number(AtomicU64),
    Text(Mutex<Arc<str>>),
}

impl Cell {
    fn new(value: &Value) -> Cell {
        match value {
            Value::Text(text) => Cell::Text(Mutex::new(text.clone())),
            value => Cell::Number(AtomicU64::new(bits_of(value))),
        }
    }
}

/// A value that is not a text, as the bits a cell holds.
fn bits_of(value: &Value) -> u64 {
    match value {
        Value::Bool(on) => u64::from(*on),
        Value::Int(number) => number.cast_unsigned(),
        Value::Bytes(bytes) => *bytes,
        Value::Float(number) => number.to_bits(),
        Value::Text(text) => panic!("a text has no bits: {text}"),
    }
}

/// A checked change: what [`Settings::commit`] will store.
#[derive(Clone, Debug)]
pub struct Change {
    values: Vec<(usize, Value)>,
}

impl Change {
    /// Names (with underscores) and values as CONFIG GET would show them, in the order they were given.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, String)> + '_ {
        self.values.iter().map(|(row, value)| (ROWS[*row].name, ROWS[*row].kind.print(value)))
    }

    /// Whether `name` (with underscores) is among the changed.
    pub fn names(&self, name: &str) -> bool {
        self.values.iter().any(|(row, _)| ROWS[*row].name == name)
    }
}

/// One setting that CONFIG SET stored, so that the server can act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The row's name, with underscores.
    pub name: &'static str,
    /// Whether the value is another than before. Setting `tls` to what it was is how certificates are read
    /// again, so an equal value is reported too.
    pub differs: bool,
}

/// Why CONFIG SET refused. `Display` is the error reply, without the dash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetError {
    /// No such setting.
    Unknown(String),
    /// A setting, but not this way. The first is the name as the client spelled it, the second the reason.
    Failed(String, String),
}

impl SetError {
    /// For the server, when a checked change cannot be put into effect.
    pub fn failed(name: &str, why: &str) -> SetError {
        SetError::Failed(name.into(), why.into())
    }
}

impl fmt::Display for SetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SetError::Unknown(name) => {
                write!(f, "ERR Unknown option or number of arguments for CONFIG SET - '{name}'")
            }
            SetError::Failed(name, why) => {
                write!(f, "ERR CONFIG SET failed (possibly related to argument '{name}') - {why}")
            }
        }
    }
}

impl std::error::Error for SetError {}

impl Settings {
    /// Starts from what the flags said.
    pub fn new(initial: &Initial) -> Arc<Settings> {
        let cells = initial.values().iter().map(Cell::new).collect();
        Arc::new(Settings { cells, generation: AtomicU64::new(1) })
    }

    /// A number that grows with each change. Whoever keeps copies re-reads when it differs from the one they
    /// saw, loading it *before* the values.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// CONFIG GET: every name that matches one of the patterns, once, with its value.
    ///
    /// A pattern without wildcards is answered in the spelling it was asked in, whatever the case or the
    /// dashes, as clients look their question up in the answer. Wildcards are answered in canonical spelling;
    /// an alias is a name like any other.
    pub fn get_matching(&self, patterns: &[&[u8]]) -> Vec<(String, String)> {
        let mut seen = HashSet::new();
        let mut found = Vec::new();
        for pattern in patterns.iter().filter(|pattern| pattern.len() <= PATTERN_LEN_MAX) {
            if !pattern.iter().any(|byte| b"*?[\\".contains(byte)) {
                let Ok(name) = std::str::from_utf8(pattern) else { continue };
                let Some(entry) = table::find(name, true).filter(|entry| shown(*entry)) else { continue };
                if seen.insert(entry.name) {
                    found.push((name.to_owned(), self.print(entry.row)));
                }
                continue;
            }
            // A dash inside a class is a range, outside it is as good as an underscore; names are tried both
            // ways.
            let (as_given, normal) =
                (Pattern::ignoring_case(pattern), Pattern::ignoring_case(&normal(pattern)));
            for entry in table::entries().filter(|entry| shown(*entry)) {
                let dashed = entry.name.replace('_', "-");
                let fits = normal.matches(entry.name.as_bytes()) || as_given.matches(dashed.as_bytes());
                if fits && seen.insert(entry.name) {
                    found.push((entry.spelled(), self.print(entry.row)));
                }
            }
        }
        found
    }

    /// Reads pairs of name and value as CONFIG SET gets them. Nothing is stored yet.
    pub fn check(&self, pairs: &[(&[u8], &[u8])]) -> Result<Change, SetError> {
        let mut entries: Vec<(Entry, String)> = Vec::with_capacity(pairs.len());
        let mut seen = HashSet::new();
        for (name, _) in pairs {
            let spelled = printable(name);
            let entry = std::str::from_utf8(name).ok().and_then(|name| table::find(name, true));
            let Some(entry) = entry.filter(|entry| shown(*entry)) else {
                return Err(SetError::Unknown(spelled));
            };
            if entry.row().exposure == Exposure::Fixed {
                return Err(SetError::Failed(spelled, "can't set immutable config".into()));
            }
            if !seen.insert(entry.name) {
                return Err(SetError::Failed(spelled, "duplicate parameter".into()));
            }
            entries.push((entry, spelled));
        }
        let mut values = Vec::with_capacity(pairs.len());
        for ((entry, spelled), (_, text)) in entries.into_iter().zip(pairs) {
            let value = self.parse(entry.row, text).map_err(|why| SetError::Failed(spelled, why))?;
            values.push((entry.row, value));
        }
        Ok(Change { values })
    }

    /// Stores a checked change.
    pub fn commit(&self, change: Change) -> Vec<Changed> {
        let store =
            |(row, value): (usize, Value)| Changed { name: ROWS[row].name, differs: self.put(row, &value) };
        let changed = change.values.into_iter().map(store).collect();
        self.generation.fetch_add(1, Ordering::Release);
        changed
    }

    /// CONFIG SET where nothing can fail between the check and the effect.
    pub fn set(&self, pairs: &[(&[u8], &[u8])]) -> Result<Vec<Changed>, SetError> {
        self.check(pairs).map(|change| self.commit(change))
    }

    /// Stores the limit the server worked out when none was given.
    pub fn set_maxmemory(&self, bytes: u64) {
        self.put(const { row("maxmemory") }, &Value::Bytes(bytes));
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Stores the port that was bound when any would do.
    pub fn set_port(&self, port: u16) {
        self.put(const { row("port") }, &Value::Int(i64::from(port)));
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Stores what REPLICAOF changed, `host port` or nothing, so that CONFIG GET replicaof tells the truth.
    pub fn set_replicaof(&self, address: &str) {
        self.put(const { row("replicaof") }, &Value::Text(address.into()));
        self.generation.fetch_add(1, Ordering::Release);
    }

    fn parse(&self, row: usize, text: &[u8]) -> Result<Value, String> {
        if text.len() > TEXT_LEN_MAX {
            return Err(format!("argument must not be longer than {TEXT_LEN_MAX} bytes"));
        }
        let text = std::str::from_utf8(text).map_err(|_| "argument must be UTF-8")?;
        match ROWS[row].kind {
            // The classes that are not named keep what they have now, not what they had at start.
            Kind::OutputLimits => self
                .client_output_buffer_limit()
                .updated(text)
                .map(|limits| Value::Text(limits.to_string().into())),
            kind => kind.parse(text, Units::Redis),
        }
    }

    /// Stores and says whether the value differs from the one before.
    fn put(&self, row: usize, value: &Value) -> bool {
        match (&self.cells[row], value) {
            (Cell::Text(cell), Value::Text(text)) => {
                let mut cell = cell.lock().unwrap_or_else(PoisonError::into_inner);
                let before = std::mem::replace(&mut *cell, text.clone());
                before != *text
            }
            (Cell::Number(cell), value) => {
                let bits = bits_of(value);
                cell.swap(bits, Ordering::Release) != bits
            }
            (Cell::Text(_), value) => panic!("{} cannot hold {value:?}", ROWS[row].name),
        }
    }

    fn bits(&self, row: usize) -> u64 {
        match &self.cells[row] {
            Cell::Number(cell) => cell.load(Ordering::Acquire),
            Cell::Text(_) => panic!("{} is a text", ROWS[row].name),
        }
    }

    fn text(&self, row: usize) -> Arc<str> {
        match &self.cells[row] {
            Cell::Text(cell) => cell.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            Cell::Number(_) => panic!("{} is a number", ROWS[row].name),
        }
    }

    /// The value as CONFIG GET shows it.
    fn print(&self, row: usize) -> String {
        let kind = ROWS[row].kind;
        let value = match &self.cells[row] {
            Cell::Text(_) => Value::Text(self.text(row)),
            Cell::Number(_) => match (kind, self.bits(row)) {
                (Kind::Bool | Kind::YesNo, bits) => Value::Bool(bits != 0),
                (Kind::Bytes(..), bits) => Value::Bytes(bits),
                (Kind::Float, bits) => Value::Float(f64::from_bits(bits)),
                (_, bits) => Value::Int(bits.cast_signed()),
            },
        };
        kind.print(&value)
    }
}

/// Whether CONFIG knows the name.
fn shown(entry: Entry) -> bool {
    entry.row().exposure != Exposure::Hidden
}

/// `pattern` with dashes and dots turned to underscores, but for classes and escapes.
fn normal(pattern: &[u8]) -> Vec<u8> {
    let mut in_class = false;
    let mut escaped = false;
    let turn = |byte: &u8| {
        let plain = !in_class && !escaped;
        in_class = match byte {
            b'[' if !escaped => true,
            b']' if !escaped => false,
            _ => in_class,
        };
        escaped = !escaped && *byte == b'\\';
        if plain && matches!(byte, b'-' | b'.') { b'_' } else { *byte }
    };
    pattern.iter().map(turn).collect()
}

/// A client's bytes in an error reply: one line, and not all of a megabyte.
fn printable(name: &[u8]) -> String {
    let shown = String::from_utf8_lossy(&name[..name.len().min(SHOWN_LEN_MAX)]);
    shown.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Getters by type. The row's index is a constant: a name that is not in the table does not compile.
macro_rules! getters {
    ($($(#[$doc:meta])* $name:ident: $type:tt;)*) => {
        impl Settings {
            $($(#[$doc])* pub fn $name(&self) -> getters!(@type $type) {
                getters!(@read $type, self, const { row(stringify!($name)) })
            })*
        }
    };
    (@type text) => { Arc<str> };
    (@type $type:tt) => { $type };
    (@read text, $self:ident, $row:expr) => { $self.text($row) };
    (@read bool, $self:ident, $row:expr) => { $self.bits($row) != 0 };
    (@read f64, $self:ident, $row:expr) => { f64::from_bits($self.bits($row)) };
    (@read i64, $self:ident, $row:expr) => { $self.bits($row).cast_signed() };
    (@read u64, $self:ident, $row:expr) => { $self.bits($row) };
    (@read $narrow:tt, $self:ident, $row:expr) => { $self.bits($row) as $narrow };
}

getters! {
    /// The port for clients; after start, the one that was bound.
    port: i64;
    /// Most clients at a time.
    maxclients: u32;
    /// Seconds of idleness before a client is closed; 0: never.
    timeout: u32;
    /// Seconds a client may take nothing while replies wait; 0: for ever.
    send_timeout: u32;
    /// Seconds of silence before a keep-alive probe; 0: none.
    tcp_keepalive: u32;
    /// Longest argument of a command, in bytes.
    proto_max_bulk_len: u64;
    /// Longest command as a whole, in bytes.
    client_query_buffer_limit: u64;
    /// Commands of one client that may wait.
    pipeline_queue_limit: u32;
    /// Bytes of waiting commands, per thread.
    pipeline_buffer_limit: u64;
    /// Whether INFO hides the host from ordinary clients.
    managed_service_info: bool;
    /// Background ticks per second.
    hz: u32;
    /// Bytes of memory to use; 0 is no limit, and at start until the server has worked it out.
    maxmemory: u64;
    /// 1 to 10: how much of a tick goes into finding expired keys.
    active_expire_effort: u32;
    /// Most fields of a flat hash.
    hash_max_listpack_entries: u64;
    /// Longest field or value of a flat hash.
    hash_max_listpack_value: u64;
    /// Most members of a set of sorted integers.
    set_max_intset_entries: u64;
    /// Most members of a flat set.
    set_max_listpack_entries: u64;
    /// Longest member of a flat set.
    set_max_listpack_value: u64;
    /// Most members of a flat sorted set.
    zset_max_listpack_entries: u64;
    /// Longest member of a flat sorted set.
    zset_max_listpack_value: u64;
    /// Elements of a list's node if positive; -1 to -5: 4, 8, 16, 32, 64 KiB.
    list_max_listpack_size: i64;
    /// Nodes at each end of a list that stay uncompressed; 0: all.
    list_compress_depth: u32;
    /// Bytes of a stream's node; 0: no limit.
    stream_node_max_bytes: u64;
    /// Entries of a stream's node; 0: no limit.
    stream_node_max_entries: u64;
    /// Longest sparse HyperLogLog.
    hll_sparse_max_bytes: u64;
    /// Name of a snapshot, macros included; empty: none.
    dbfilename: text;
    /// When to save, as [`crate::cron::Cron`] reads it; empty: never.
    snapshot_cron: text;
    /// Values above this are serialized in parts; 0: never.
    serialization_max_chunk_size: u64;
    /// Address of the master as the flag or REPLICAOF gave it; empty: none.
    replicaof: text;
    /// User a replica gives its master.
    masteruser: text;
    /// Password a replica gives its master.
    masterauth: text;
    /// Rank in a failover by Sentinel; 0: never.
    replica_priority: u32;
    /// Address a replica gives its master; empty: the one it connects from.
    replica_announce_ip: text;
    /// Port a replica gives its master, and clients of a cluster see; 0: the port for clients.
    announce_port: u16;
    /// Whether a replica continues where a broken link stopped.
    replica_partial_sync: bool;
    /// Milliseconds a replica may take nothing; 0: for ever.
    replication_timeout: u32;
    /// Address clients of a cluster see; empty: the one they connected to.
    cluster_announce_ip: text;
    /// Password of the user `default`; empty: none is asked for.
    requirepass: text;
    /// Path of the file with the users and their rights, which ACL LOAD reads and ACL SAVE writes; empty: none.
    aclfile: text;
    /// Entries ACL LOG keeps.
    acllog_max_len: u64;
    /// TLS on every port.
    tls: bool;
    /// Path of the server's certificates.
    tls_cert_file: text;
    /// Path of the key.
    tls_key_file: text;
    /// Path of the authorities for clients' certificates.
    tls_ca_cert_file: text;
    /// Directory of such authorities.
    tls_ca_cert_dir: text;
    /// Milliseconds after which a script may be killed.
    busy_reply_threshold: u64;
    /// Scripts that touch undeclared keys, as comma list of SHA-1.
    lua_undeclared_keys_shas: text;
    /// Scripts whose floats become integers, as comma list of SHA-1.
    lua_float_as_int_shas: text;
    /// Bytes of messages that the subscribers of a thread may leave unread; 0: any.
    publish_buffer_limit: u64;
    /// Keys remembered for client-side caching; 0: any number.
    tracking_table_max_keys: u64;
    /// Microseconds from which a command is slow; -1: none is.
    slowlog_log_slower_than: i64;
    /// Entries the slow log keeps.
    slowlog_max_len: u64;
    /// Milliseconds from which LATENCY notes an event; 0: off.
    latency_monitor_threshold: u64;
    /// Whether to keep a histogram per command.
    latency_tracking: bool;
    /// What INFO shows of the histograms, separated by spaces.
    latency_tracking_info_percentiles: text;
}

impl Settings {
    /// What is evicted when memory is full.
    pub fn maxmemory_policy(&self) -> MaxmemoryPolicy {
        MaxmemoryPolicy::ALL[self.bits(const { row("maxmemory_policy") }) as usize]
    }

    /// How much is logged.
    pub fn loglevel(&self) -> LogLevel {
        LogLevel::ALL[self.bits(const { row("loglevel") }) as usize]
    }

    /// Classes of key events to publish.
    pub fn notify_keyspace_events(&self) -> Events {
        Events::from_bits(self.bits(const { row("notify_keyspace_events") }) as u32)
    }

    /// Limits of unsent output.
    pub fn client_output_buffer_limit(&self) -> OutputLimits {
        let text = self.text(const { row("client_output_buffer_limit") });
        OutputLimits::REDIS.updated(&text).expect("a stored limit was printed by us")
    }
}

#[cfg(test)]
mod tests {
    use super::{Change, SetError, Settings, normal};
    use crate::Config;
    use std::ffi::OsString;
    use std::sync::Arc;

    fn settings(args: &[&str]) -> Arc<Settings> {
        let args = std::iter::once("damselfly").chain(args.iter().copied()).map(OsString::from);
        let parsed = Config::from_args(args, std::iter::empty(), &|_| panic!("no file is read")).unwrap();
        Settings::new(&parsed.config.initial)
    }

    /// Runs `CONFIG GET words` or `CONFIG SET words` and renders the reply on one line.
    fn config(settings: &Settings, line: &str) -> String {
        let (verb, rest) = line.split_once(' ').unwrap();
        // A word may be quoted; `''` is the empty word.
        let mut words: Vec<String> = Vec::new();
        let mut quoted = false;
        let mut open = false;
        for c in rest.chars() {
            match c {
                '\'' => {
                    quoted = !quoted;
                    if quoted {
                        words.push(String::new());
                    }
                    open = quoted;
                }
                ' ' if !quoted => open = false,
                c if open => words.last_mut().unwrap().push(c),
                c => {
                    words.push(c.into());
                    open = true;
                }
            }
        }
        let words: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        match verb {
            "GET" => {
                let found = settings.get_matching(&words);
                found.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
            }
            _ => {
                let pairs: Vec<(&[u8], &[u8])> = words.chunks(2).map(|pair| (pair[0], pair[1])).collect();
                settings.set(&pairs).map_or_else(|error| error.to_string(), |_| "OK".into())
            }
        }
    }

    fn check(args: &[&str], script: &str) {
        let settings = settings(args);
        for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (request, reply) = line.split_once("->").unwrap();
            assert_eq!(config(&settings, request.trim()), reply.trim(), "{request}");
        }
    }

    /// What redis-server 7.0.15 answered to the same words, recorded: replies and errors to the letter.
    #[test]
    fn as_redis_answers() {
        check(
            &[],
            "
            SET nosuch 1               -> ERR Unknown option or number of arguments for CONFIG SET - 'nosuch'
            SET nosuch 1 databases 5   -> ERR Unknown option or number of arguments for CONFIG SET - 'nosuch'
            SET databases 5 nosuch 1   -> ERR CONFIG SET failed (possibly related to argument 'databases') - can't set immutable config
            SET maxclients abc         -> ERR CONFIG SET failed (possibly related to argument 'maxclients') - argument couldn't be parsed into an integer
            SET maxclients 0           -> ERR CONFIG SET failed (possibly related to argument 'maxclients') - argument must be between 1 and 4294967295 inclusive
            SET maxclients 1e3         -> ERR CONFIG SET failed (possibly related to argument 'maxclients') - argument couldn't be parsed into an integer
            SET maxclients abc nosuch 5 -> ERR Unknown option or number of arguments for CONFIG SET - 'nosuch'
            SET maxmemory 1 maxmemory 2 -> ERR CONFIG SET failed (possibly related to argument 'maxmemory') - duplicate parameter
            SET maxmemory 1 MAXMEMORY 2 -> ERR CONFIG SET failed (possibly related to argument 'MAXMEMORY') - duplicate parameter
            SET maxmemory abc          -> ERR CONFIG SET failed (possibly related to argument 'maxmemory') - argument must be a memory value
            SET maxmemory -5           -> ERR CONFIG SET failed (possibly related to argument 'maxmemory') - argument must be a memory value
            SET maxmemory 10%          -> ERR CONFIG SET failed (possibly related to argument 'maxmemory') - argument must be a memory value
            SET maxmemory 1k           -> OK
            GET maxmemory              -> maxmemory=1000
            SET MaxMemory 1KB          -> OK
            GET MAXMEMORY              -> MAXMEMORY=1024
            SET maxmemory 18446744073709551615 -> OK
            GET maxmemory              -> maxmemory=18446744073709551615
            SET maxmemory ''           -> OK
            GET maxmemory              -> maxmemory=0
            SET maxmemory 100mb maxclients abc -> ERR CONFIG SET failed (possibly related to argument 'maxclients') - argument couldn't be parsed into an integer
            GET maxmemory              -> maxmemory=0
            SET maxmemory-policy foo   -> ERR CONFIG SET failed (possibly related to argument 'maxmemory-policy') - argument(s) must be one of the following: volatile-lru, volatile-lfu, volatile-random, volatile-ttl, allkeys-lru, allkeys-lfu, allkeys-random, noeviction
            SET maxmemory-policy ALLKEYS-LRU -> OK
            GET maxmemory-policy       -> maxmemory-policy=allkeys-lru
            SET maxmemory-samples 0    -> ERR CONFIG SET failed (possibly related to argument 'maxmemory-samples') - argument must be between 1 and 2147483647 inclusive
            SET hash-max-listpack-entries 1 hash-max-ziplist-entries 2 -> OK
            GET hash-max-listpack-entries hash-max-ziplist-entries -> hash-max-listpack-entries=2 hash-max-ziplist-entries=2
            GET hash-max*entries       -> hash-max-listpack-entries=2 hash-max-ziplist-entries=2
            SET hash-max-listpack-entries 1kb -> ERR CONFIG SET failed (possibly related to argument 'hash-max-listpack-entries') - argument couldn't be parsed into an integer
            SET hash-max-listpack-value 1kb -> OK
            GET hash-max-listpack-value -> hash-max-listpack-value=1024
            SET lua-time-limit 100     -> OK
            GET busy-reply-threshold   -> busy-reply-threshold=100
            SET timeout -1             -> ERR CONFIG SET failed (possibly related to argument 'timeout') - argument must be between 0 and 2147483647 inclusive
            SET tcp-keepalive 99999999999 -> ERR CONFIG SET failed (possibly related to argument 'tcp-keepalive') - argument must be between 0 and 2147483647 inclusive
            SET slowlog-log-slower-than -1 -> OK
            SET slowlog-log-slower-than -2 -> ERR CONFIG SET failed (possibly related to argument 'slowlog-log-slower-than') - argument must be between -1 and 9223372036854775807 inclusive
            SET slowlog-max-len -1     -> ERR CONFIG SET failed (possibly related to argument 'slowlog-max-len') - argument must be between 0 and 9223372036854775807 inclusive
            SET latency-monitor-threshold -1 -> ERR CONFIG SET failed (possibly related to argument 'latency-monitor-threshold') - argument must be between 0 and 9223372036854775807 inclusive
            SET list-max-listpack-size -9 -> OK
            SET list-max-listpack-size -99999999999 -> ERR CONFIG SET failed (possibly related to argument 'list-max-listpack-size') - argument must be between -2147483648 and 2147483647 inclusive
            SET list-compress-depth -1 -> ERR CONFIG SET failed (possibly related to argument 'list-compress-depth') - argument must be between 0 and 2147483647 inclusive
            SET active-expire-effort 11 -> ERR CONFIG SET failed (possibly related to argument 'active-expire-effort') - argument must be between 1 and 10 inclusive
            SET proto-max-bulk-len 1kb -> ERR CONFIG SET failed (possibly related to argument 'proto-max-bulk-len') - argument must be between 1048576 and 9223372036854775807 inclusive
            SET client-query-buffer-limit 1kb -> ERR CONFIG SET failed (possibly related to argument 'client-query-buffer-limit') - argument must be between 1048576 and 9223372036854775807 inclusive
            SET stream-node-max-bytes abc -> ERR CONFIG SET failed (possibly related to argument 'stream-node-max-bytes') - argument must be a memory value
            SET replica-priority -1    -> ERR CONFIG SET failed (possibly related to argument 'replica-priority') - argument must be between 0 and 2147483647 inclusive
            SET repl-backlog-size 0    -> ERR CONFIG SET failed (possibly related to argument 'repl-backlog-size') - argument must be between 1 and 9223372036854775807 inclusive
            SET lazyfree-lazy-expire YES -> OK
            GET lazyfree-lazy-expire   -> lazyfree-lazy-expire=yes
            SET lazyfree-lazy-expire maybe -> ERR CONFIG SET failed (possibly related to argument 'lazyfree-lazy-expire') - argument must be 'yes' or 'no'
            SET loglevel foo maxmemory abc -> ERR CONFIG SET failed (possibly related to argument 'loglevel') - argument(s) must be one of the following: debug, verbose, notice, warning
            SET loglevel Debug         -> OK
            SET appendfsync foo        -> ERR CONFIG SET failed (possibly related to argument 'appendfsync') - argument(s) must be one of the following: everysec, always, no
            SET notify-keyspace-events Exq -> ERR CONFIG SET failed (possibly related to argument 'notify-keyspace-events') - Invalid event class character. Use 'Ag$lshzxeKEtmdn'.
            SET notify-keyspace-events KEA -> OK
            GET notify-keyspace-events -> notify-keyspace-events=AKE
            SET client-output-buffer-limit 'normal 1 2' -> ERR CONFIG SET failed (possibly related to argument 'client-output-buffer-limit') - Wrong number of arguments in buffer limit configuration.
            SET client-output-buffer-limit 'foo 1 2 3' -> ERR CONFIG SET failed (possibly related to argument 'client-output-buffer-limit') - Invalid client class specified in buffer limit configuration.
            SET client-output-buffer-limit 'normal 1mb 2 -3' -> ERR CONFIG SET failed (possibly related to argument 'client-output-buffer-limit') - Error in hard, soft or soft_seconds setting in buffer limit configuration.
            SET client-output-buffer-limit 'normal 1mb 2 3' -> OK
            SET client-output-buffer-limit 'replica 1mb 2 3 pubsub 1 2 3' -> OK
            GET client-output-buffer-limit -> client-output-buffer-limit=normal 1048576 2 3 slave 1048576 2 3 pubsub 1 2 3
            SET latency-tracking-info-percentiles '50 101' -> ERR CONFIG SET failed (possibly related to argument 'latency-tracking-info-percentiles') - latency-tracking-info-percentiles parameters should sit between [0.0,100.0]
            SET latency-tracking-info-percentiles '' -> OK
            GET latency-tracking-info-percentiles -> latency-tracking-info-percentiles=
            SET requirepass foo        -> OK
            GET requirepass            -> requirepass=foo
            SET io-threads 3           -> ERR CONFIG SET failed (possibly related to argument 'io-threads') - can't set immutable config
            SET logfile x              -> ERR CONFIG SET failed (possibly related to argument 'logfile') - can't set immutable config
            SET set-proc-title no      -> ERR CONFIG SET failed (possibly related to argument 'set-proc-title') - can't set immutable config
            SET replicaof 'a 1'        -> ERR CONFIG SET failed (possibly related to argument 'replicaof') - can't set immutable config
            GET nosuch                 ->
            GET ''                     ->
            GET PORT port              -> PORT=6379
            GET port port p*rt         -> port=6379
            GET slave-r*               -> slave-read-only=yes
            ",
        );
    }

    /// What Dragonfly answered where Redis has no such name, and the spellings both sides' clients use.
    #[test]
    fn as_dragonfly_answers() {
        check(
            &["--dir=/data"],
            "
            SET dir /x                 -> ERR CONFIG SET failed (possibly related to argument 'dir') - can't set immutable config
            GET dir                    -> dir=/data
            GET databases dbnum        -> databases=16 dbnum=16
            SET maxmemory 2gb          -> OK
            GET maxmemory              -> maxmemory=2147483648
            GET slowlog_max_len        -> slowlog_max_len=20
            GET slowlog.max-len        -> slowlog.max-len=20
            GET slowlog_max*           -> slowlog-max-len=20
            GET slowlog-max_*          -> slowlog-max-len=20
            GET snapshot-c*            -> snapshot_cron=
            GET [a-b]cllog-max-len     -> acllog-max-len=32
            GET tls                    -> tls=false
            GET rss_oom_deny_ratio     -> rss_oom_deny_ratio=1.25
            SET rss-oom-deny-ratio -1  -> OK
            GET rss_oom_deny_ratio     -> rss_oom_deny_ratio=-1
            SET snapshot_cron '*/5 * * * *' -> OK
            GET snapshot_cron          -> snapshot_cron=*/5 * * * *
            SET snapshot_cron '61 * * * *' -> ERR CONFIG SET failed (possibly related to argument 'snapshot_cron') - cron field 'minute': '61' is out of range
            GET snapshot_cron          -> snapshot_cron=*/5 * * * *
            SET snapshot_cron ''       -> OK
            GET snapshot_cron          -> snapshot_cron=
            SET aclfile /x             -> OK
            SET dbfilename a/b         -> ERR CONFIG SET failed (possibly related to argument 'dbfilename') - argument must be a file name without a directory
            SET tcp_nodelay true       -> ERR Unknown option or number of arguments for CONFIG SET - 'tcp_nodelay'
            GET tcp_nodel*             ->
            ",
        );
    }

    /// What would be a lie is refused: there is no append-only file and there are no save points.
    #[test]
    fn no_promises_that_are_not_kept() {
        check(
            &[],
            "
            SET appendonly no          -> OK
            SET appendonly yes         -> ERR CONFIG SET failed (possibly related to argument 'appendonly') - there is no append-only file; use --snapshot_cron
            GET appendonly             -> appendonly=no
            SET save ''                -> OK
            SET save '900 1'           -> ERR CONFIG SET failed (possibly related to argument 'save') - there are no save points; use snapshot_cron
            GET save                   -> save=
            SET activedefrag no        -> OK
            ",
        );
    }

    /// Everything that CONFIG GET shows can be handed back to CONFIG SET and changes nothing, at start and
    /// after.
    #[test]
    fn what_is_read_can_be_written() {
        let settings = settings(&["--replicaof=[fd00::1]:1", "--maxmemory=1g", "--unixsocketperm=0770"]);
        let all = settings.get_matching(&[b"*"]);
        assert!(all.len() > 200, "{}", all.len());
        for (name, value) in &all {
            match settings.set(&[(name.as_bytes(), value.as_bytes())]) {
                Ok(changed) => assert!(!changed[0].differs, "{name}"),
                Err(SetError::Failed(_, why)) => assert_eq!(why, "can't set immutable config", "{name}"),
                Err(error) => panic!("{name}: {error}"),
            }
        }
        assert_eq!(settings.get_matching(&[b"*"]), all);
    }

    #[test]
    fn getters_follow_changes() {
        let settings = settings(&["--cache_mode", "--slowlog_max_len=7"]);
        assert_eq!(settings.maxmemory_policy().name(), "allkeys-lru");
        assert_eq!(settings.slowlog_max_len(), 7);
        let before = settings.generation();
        let changed = settings.set(&[(b"maxmemory-policy", b"noeviction"), (b"tls", b"false")]).unwrap();
        assert_eq!(
            changed.iter().map(|c| (c.name, c.differs)).collect::<Vec<_>>(),
            [("maxmemory_policy", true), ("tls", false)]
        );
        assert!(settings.generation() > before);
        assert_eq!(settings.maxmemory_policy().name(), "noeviction");
        settings.set_maxmemory(1 << 30);
        settings.set_port(1234);
        settings.set_replicaof("10.0.0.1 6379");
        assert_eq!((settings.maxmemory(), settings.port()), (1 << 30, 1234));
        assert_eq!(config(&settings, "GET slaveof"), "slaveof=10.0.0.1 6379");
        settings.set(&[(b"slowlog-log-slower-than", b"-1"), (b"loglevel", b"warning")]).unwrap();
        assert_eq!((settings.slowlog_log_slower_than(), settings.loglevel().name()), (-1, "warning"));
    }

    /// A refused change leaves no trace, and a checked one none before it is committed.
    #[test]
    fn all_or_nothing() {
        let settings = settings(&[]);
        let generation = settings.generation();
        assert!(settings.set(&[(b"timeout", b"5"), (b"maxclients", b"x")]).is_err());
        let change: Change = settings.check(&[(b"timeout", b"5"), (b"requirepass", b"x")]).unwrap();
        assert_eq!((settings.timeout(), settings.generation()), (0, generation));
        assert!(change.names("timeout") && !change.names("maxclients"));
        assert_eq!(change.iter().next(), Some(("timeout", "5".to_owned())));
        settings.commit(change);
        assert_eq!((settings.timeout(), &*settings.requirepass()), (5, "x"));
    }

    /// A client may send anything.
    #[test]
    fn hostile_words() {
        let settings = settings(&[]);
        let long = vec![b'['; 1 << 20];
        assert_eq!(settings.get_matching(&[&long, b"\xff\xfe", b"\xff*"]), []);
        let error = settings.set(&[(&long, b"1")]).unwrap_err().to_string();
        assert!(error.len() < 300);
        let error = settings.set(&[(b"a\r\nb", b"1")]).unwrap_err().to_string();
        assert!(error.ends_with("'a  b'"), "one line: {error}");
        assert!(settings.set(&[(b"requirepass", &long)]).is_err());
        assert!(settings.set(&[(b"requirepass", b"\xff")]).is_err());
        assert!(
            settings.set(&[(b"client-output-buffer-limit", b"normal 99999999999999999999 0 0")]).is_err()
        );
    }

    #[test]
    fn dashes_of_patterns() {
        for (pattern, turned) in
            [("a-b.c", "a_b_c"), ("[a-z]-x", "[a-z]_x"), (r"a\-b-", r"a\-b_"), (r"\[a-b", r"\[a_b")]
        {
            assert_eq!(String::from_utf8(normal(pattern.as_bytes())).unwrap(), turned);
        }
    }

    /// Readers on other threads see either value and, once the generation moved, the new one.
    #[test]
    fn readers_on_other_threads() {
        let settings = settings(&[]);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut seen = 0;
                    while settings.timeout() < 1000 {
                        let generation = settings.generation();
                        let timeout = settings.timeout();
                        // Change n makes generation n + 1, so the value may be newer than it and never older.
                        assert!(u64::from(timeout) + 1 >= generation && timeout >= seen);
                        seen = timeout;
                    }
                });
            }
            for timeout in 1..=1000 {
                settings.set(&[(b"timeout", timeout.to_string().as_bytes())]).unwrap();
            }
        });
    }
}
