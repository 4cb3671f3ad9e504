//! Snapshots: loaded at the start, saved while clients are served.
//!
//! Files are read and written by threads of their own; shards give and take entries in batches
//! ([`Rows`](damselfly_keyspace::Rows)). Loading is in `load.rs`, saving in `save.rs`, what happens at the end of the
//! process in `end.rs`; what they tell the world is kept here. The files' names and the order in which a set of them
//! replaces another are the `snapshot` crate's.

mod clock;
mod end;
mod load;
mod queue;
mod reload;
mod save;
mod schedule;
mod write;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use damselfly_config::Config;
use damselfly_snapshot::{Bucket, Disk, S3Options, Storage, is_remote};

use crate::shared::Shared;

pub use end::{abort_end, end};
pub use load::load_at_start;
pub use reload::{Source, reload};
pub use save::{Format, Heard, Listeners, Order, ShardSave, begin};
pub use schedule::Schedule;

/// What commands are told that need data while there is not all of it, in Redis' words.
pub const LOADING: &str = "LOADING Redis is loading the dataset in memory";

/// What is known of snapshots.
pub struct Snapshots {
    /// Where they are.
    storage: Box<dyn Storage>,
    loading: AtomicBool,
    /// How far the load is.
    pub progress: Progress,
    /// How far the save is.
    pub saving: Saving,
    history: Mutex<History>,
    /// Why the load failed.
    failure: Mutex<Option<String>>,
    end: Mutex<end::End>,
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

/// Of a save.
#[derive(Default)]
pub struct Saving {
    /// Keys written.
    pub keys: AtomicU64,
    /// Keys at the cut.
    pub total: AtomicU64,
}

/// Of saves.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Milliseconds since 1970 when the save began that goes on, and whether somebody waits for it.
    pub now: Option<(u64, bool)>,
    /// Seconds since 1970 at the end of the last one that succeeded.
    pub saved_s: Option<u64>,
    /// Its file, or the summary of its files.
    pub file: String,
    /// What it took.
    pub took: Duration,
    /// Changes of keys up to its cut.
    pub mutations: u64,
    /// Saves that succeeded.
    pub saves: u64,
    /// Saves that failed.
    pub failures: u64,
    /// Whether the last one failed.
    pub is_failing: bool,
    /// Seconds since 1970 at the end of the last one that failed.
    pub failed_s: Option<u64>,
    /// What that took.
    pub failed_took: Duration,
    /// Why it did.
    pub error: String,
    /// Snapshots that were loaded.
    pub loads: u64,
}

/// How a save ended.
enum Outcome {
    /// Well.
    Saved { file: String, mutations: u64 },
    /// With the old snapshot in place.
    Failed(String),
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

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is set in one go, so a thread that panicked left nothing half-done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Snapshots {
    /// In the place that the configuration names.
    pub fn new(config: &Config) -> Result<Snapshots, String> {
        Ok(Snapshots {
            storage: place(config, &config.dir)?,
            loading: AtomicBool::new(false),
            progress: Progress::default(),
            saving: Saving::default(),
            history: Mutex::default(),
            failure: Mutex::default(),
            end: Mutex::default(),
        })
    }

    /// Whether data is being loaded, so that most commands must be refused.
    #[inline]
    pub fn is_loading(&self) -> bool {
        self.loading.load(Ordering::Acquire)
    }

    /// Why the load at the start failed, if it did.
    pub fn failure(&self) -> Option<String> {
        locked(&self.failure).clone()
    }

    /// What happened so far.
    pub fn history(&self) -> History {
        locked(&self.history).clone()
    }

    /// Notes that a save begins, unless it cannot.
    fn enter_save(&self, foreground: bool) -> Result<(), String> {
        if self.is_loading() {
            return Err("LOADING - can not save database".to_owned());
        }
        let mut history = locked(&self.history);
        if history.now.is_some() {
            return Err("Operation now in progress: SAVING - can not save database".to_owned());
        }
        history.now = Some((Shared::now_ms(), foreground));
        self.saving.keys.store(0, Ordering::Relaxed);
        self.saving.total.store(0, Ordering::Relaxed);
        Ok(())
    }

    fn leave_save(&self, outcome: Outcome, took: Duration) {
        let mut history = locked(&self.history);
        history.now = None;
        let now_s = Shared::now_ms() / 1000;
        history.is_failing = matches!(outcome, Outcome::Failed(_));
        match outcome {
            Outcome::Saved { file, mutations } => {
                history.saved_s = Some(now_s);
                (history.file, history.mutations, history.took) = (file, mutations, took);
                history.saves += 1;
            }
            Outcome::Failed(error) => {
                history.failed_s = Some(now_s);
                (history.error, history.failed_took) = (error, took);
                history.failures += 1;
            }
        }
    }
}

/// The place that an address or a path stands for: a bucket or a directory.
fn place(config: &Config, address: &str) -> Result<Box<dyn Storage>, String> {
    if !is_remote(address) {
        return Ok(Box::new(Disk::new(if address.is_empty() { "." } else { address })));
    }
    let options = S3Options {
        endpoint: config.s3_endpoint.clone(),
        use_https: config.s3_use_https,
        sign_payload: config.s3_sign_payload,
        ec2_metadata: config.s3_ec2_metadata,
    };
    match Bucket::open(address, &options) {
        Ok(bucket) => Ok(Box::new(bucket)),
        Err(error) => Err(format!("cannot use {address}: {error}")),
    }
}
