//! The values that CONFIG GET shows and CONFIG SET changes, shared by all threads.
//!
//! A number is an atomic and a text sits behind a lock that is held for one clone of an `Arc`, so that reading never
//! waits for a writer that does anything. Hot paths do not even do that: a core keeps copies of what it needs and
//! compares [`Settings::generation`], one load, once per tick or batch.
//!
//! A change of several values is all or nothing as to its *validity*: [`Settings::check`] tries everything before
//! [`Settings::commit`] stores anything. It is not one instant for readers, who may see the first of two values a
//! moment earlier; the generation moves after the last, so whoever re-reads on a new generation ends with all of them.
//!
//! Next: rows.rs says which values there are; value.rs, how they read and print.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::glob::Pattern;
use crate::rows::ROWS;
use crate::start::{Compression, Initial, LogLevel, MaxmemoryPolicy};
use crate::table::{self, Entry, Exposure, row};
use crate::value::{Events, Kind, OutputLimits, TEXT_LEN_MAX, Units, Value};

/// Longest pattern CONFIG GET compares: names have at most 42 letters, and a class of more members says nothing more.
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
    /// Whether the value is another than before. Setting `tls` to what it was is how certificates are read again, so
    /// an equal value is reported too.
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

    /// A number that grows with each change. Whoever keeps copies re-reads when it differs from the one they saw,
    /// loading it *before* the values.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// CONFIG GET: every name that matches one of the patterns, once, with its value.
    ///
    /// A pattern without wildcards is answered in the spelling it was asked in, whatever the case or the dashes, as
    /// clients look their question up in the answer. Wildcards are answered in canonical spelling; an alias is a name
    /// like any other.
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
            // A dash inside a class is a range, outside it is as good as an underscore; names are tried both ways.
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
    /// Bytes of data to hold; 0 until the server has worked it out.
    maxmemory: u64;
    /// Keys compared for one eviction.
    maxmemory_samples: u32;
    /// Refuse writes when RSS is above maxmemory times this; negative: never.
    rss_oom_deny_ratio: f64;
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

    /// Compression of snapshots and full syncs.
    pub fn compression(&self) -> Compression {
        Compression::from_index(self.bits(const { row("compression_mode") }) as usize)
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
