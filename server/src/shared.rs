//! What all threads see: the configuration, each other's mailboxes, and a few counters.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Instant, SystemTime};

use crossbeam::utils::CachePadded;
use damselfly_config::{Config, LogLevel, Settings};
use dashmap::DashMap;

use crate::admin_http::HttpDoor;
use crate::blocking::{Moves, Waiting};
use crate::connection::ConnectionId;
use crate::gates::Gates;
use crate::input_room::Claims;
use crate::mailbox::Mailbox;
use crate::memory::Memory;
use crate::pubsub::Registry;
use crate::scripts;
use crate::snapshots::Snapshots;

/// One core as the others see it.
pub struct Peer {
    /// Its mailbox.
    pub mailbox: Mailbox,
    /// Connections it has, for placing new ones.
    pub connections: CachePadded<AtomicUsize>,
    /// Bytes of its data and connections at its last tick.
    pub data_bytes: AtomicU64,
    /// What it holds, as it last told: see `memory.rs`.
    pub account: AtomicU64,
    /// Of this, what requests hold that are not complete yet, and who of them waits: see `input_room.rs`.
    pub claims: Claims,
    /// What it is about to free.
    pub doomed: AtomicU64,
    /// What its account leaves out: holes in its tables.
    pub holes: AtomicU64,
    /// How many of its keys may go for want of memory.
    pub evictable: AtomicUsize,
}

/// See the module's head.
pub struct Shared {
    /// Start-up configuration.
    pub config: Config,
    /// Commands that are restricted or have another name.
    pub gates: Gates,
    /// Makes the log as talkative as it is told.
    pub set_log_level: Box<dyn Fn(LogLevel) + Send + Sync>,
    /// Takes connections that turned out to be HTTP; unset if nothing answers them.
    pub http: OnceLock<HttpDoor>,
    /// Run-time settings.
    pub settings: Arc<Settings>,
    /// All cores, by number.
    pub peers: Vec<Peer>,
    /// Which core a client is on, by client id: for CLIENT KILL, UNBLOCK and redirections.
    pub clients: DashMap<u64, (usize, ConnectionId)>,
    /// What is known of snapshots: the one being loaded, the one being saved, the last ones.
    pub snapshots: Snapshots,
    /// Who listens to what.
    pub registry: Registry,
    /// Scripts and functions.
    pub scripts: scripts::registry::Registry,
    /// Next client id.
    pub next_client: AtomicU64,
    /// Next number in the slow log.
    pub next_slow: AtomicU64,
    /// Open connections.
    pub connected: AtomicUsize,
    /// Connections refused because of `maxclients`.
    pub rejected: AtomicU64,
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// Most bytes of `used_memory` at a tick.
    pub used_peak: AtomicU64,
    /// Clients that run MONITOR; while zero, nobody formats lines for them.
    pub monitors: AtomicU32,
    /// How many clients wait for data.
    pub waiting: Waiting,
    /// Moves that wait.
    pub moves: Moves,
    /// The process is on its way out.
    pub stopping: AtomicBool,
    /// Asks the main thread to stop the process.
    pub stop: tokio::sync::mpsc::UnboundedSender<Stop>,
    /// Secret of the hash function.
    pub hash_seed: u64,
    /// When the process began, by the clock and by a timer.
    pub started: (SystemTime, Instant),
    /// 40 hexadecimal digits that name this run.
    pub run_id: String,
    /// 40 hexadecimal digits that name the history of the data.
    pub replication_id: Mutex<String>,
    /// Resident memory and what follows from it.
    pub memory: Memory,
    /// Descriptions of where limits came from, for the banner and INFO.
    pub memory_limit: MemoryLimit,
}

/// `maxmemory` and its origin.
#[derive(Clone, Debug)]
pub struct MemoryLimit {
    /// Bytes; 0 is no limit.
    pub bytes: u64,
    /// In words.
    pub origin: String,
}

/// Why and how to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A core's loop ended by itself.
    CoreEnded,
    /// SHUTDOWN, which has saved if that was wanted.
    Command,
    /// There is a snapshot, and it cannot be loaded.
    LoadFailed,
    /// A signal, behind the last save.
    Signal,
    /// A signal, but the last save failed.
    NotSaved,
}

impl Shared {
    /// The shard that a hash belongs to.
    #[inline]
    pub fn owner(&self, hash: u64) -> usize {
        ((u64::from(hash as u32) * self.peers.len() as u64) >> 32) as usize
    }

    /// The core with the fewest connections, for a new one.
    pub fn least_busy(&self) -> usize {
        let count = |peer: &Peer| peer.connections.load(Ordering::Relaxed);
        (0..self.peers.len()).min_by_key(|&core| count(&self.peers[core])).unwrap_or(0)
    }

    /// Milliseconds since 1970.
    pub fn now_ms() -> u64 {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }
}
