//! Snapshots: loaded at the start, saved while clients are served.
//!
//! Files are read and written by threads of their own; shards give and take entries in batches ([`Rows`](damselfly_keyspace::Rows)). Loading
//! is in `load.rs`, saving in `save.rs`; what both tell the world is kept here. The files' names and the order in
//! which a set of them replaces another are the `snapshot` crate's.

mod load;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use damselfly_config::Config;
use damselfly_snapshot::{Disk, Storage};

use crate::shared::Shared;

pub use load::load_at_start;

/// What commands are told that need data while there is not all of it, in Redis' words.
pub const LOADING: &str = "LOADING Redis is loading the dataset in memory";

/// What is known of snapshots.
pub struct Snapshots {
    /// Where they are.
    storage: Box<dyn Storage>,
    loading: AtomicBool,
    /// How far the load is.
    pub progress: Progress,
    /// Sources of function libraries that the loaded files had.
    pub functions: Mutex<Vec<Vec<u8>>>,
    /// Bodies of scripts that the loaded files had.
    pub scripts: Mutex<Vec<Vec<u8>>>,
    /// Why the load failed.
    failure: Mutex<Option<String>>,
}

/// Of a load.
#[derive(Default)]
pub struct Progress {
    /// Milliseconds since 1970 when it began.
    pub began_ms: AtomicU64,
    /// Bytes of all files.
    pub bytes: AtomicU64,
    /// Bytes read of them.
    pub read: AtomicU64,
    /// Keys stored.
    pub keys: AtomicU64,
    /// Keys left out because their time had come.
    pub expired: AtomicU64,
}

impl Progress {
    /// Per cent of the bytes that were read.
    pub fn percent(&self) -> f64 {
        let (read, bytes) = (self.read.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        if bytes == 0 { 0.0 } else { read as f64 * 100.0 / bytes as f64 }
    }

    /// Seconds until the end at the pace so far.
    pub fn eta_s(&self, now_ms: u64) -> u64 {
        let (read, bytes) = (self.read.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        let passed = now_ms.saturating_sub(self.began_ms.load(Ordering::Relaxed));
        match read {
            0 => 1,
            read => {
                (u128::from(passed) * u128::from(bytes.saturating_sub(read)) / u128::from(read) / 1000) as u64
            }
        }
    }

    fn begin(&self, bytes: u64) {
        self.began_ms.store(Shared::now_ms(), Ordering::Relaxed);
        self.bytes.store(bytes, Ordering::Relaxed);
        for counter in [&self.read, &self.keys, &self.expired] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

impl Snapshots {
    /// In the place that the configuration names.
    pub fn new(config: &Config) -> Snapshots {
        let directory = if config.dir.is_empty() { "." } else { &config.dir };
        Snapshots {
            storage: Box::new(Disk::new(directory)),
            loading: AtomicBool::new(false),
            progress: Progress::default(),
            functions: Mutex::default(),
            scripts: Mutex::default(),
            failure: Mutex::default(),
        }
    }

    /// Whether data is being loaded, so that most commands must be refused.
    #[inline]
    pub fn is_loading(&self) -> bool {
        self.loading.load(Ordering::Acquire)
    }

    /// Why the load at the start failed, if it did.
    pub fn failure(&self) -> Option<String> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
