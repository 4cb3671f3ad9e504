//! Saving a snapshot.
//!
//! ```text
//! thread "save":   files opened -> all shards locked, the cut begun, unlocked -> ........ -> files published
//! each core:                                         walk, a step per turn -> queue       (keyspace/src/cut.rs)
//! a thread per file:                                 queue -> encode, compress, write, fsync
//! ```
//!
//! The cut is of one instant: while every shard is locked no command runs anywhere, so an operation over several shards
//! is in it whole or not at all. A dfs snapshot has a file, a queue and a writing thread per shard; an rdb file has one
//! writer for all.
//!
//! Nothing of a snapshot shows before all its files are on the disk. Whatever fails before leaves the old one, and is
//! told in the log, INFO and the metrics; the server goes on.

use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use damselfly_config::Compression;
use damselfly_rdb::{FileOptions, FileWriter, Target};
use damselfly_snapshot::{FUNCTION_AUX, Files, dfs_files, rdb_file};

use super::queue::{Queue, THROTTLE_FROM, WALK_UNTIL};
use super::write::FileOut;
use super::{Outcome, clock};
use crate::coordinate::Held;
use crate::core::Core;
use crate::locks::Scope;
use crate::server_commands::info::{DRAGONFLY_VERSION, REDIS_VERSION};
use crate::shared::Shared;

/// How long a core works on a cut before it looks after its clients again.
const STEP: Duration = Duration::from_micros(200);
/// Steps of the walk between two looks at the clock.
const STEPS_PER_LOOK: usize = 8;
/// How much nicer than the cores the threads are that encode and write: where all processors are busy, a core that has
/// something to do is not to wait until a writer's slice is over. With the class of idle threads replies came no sooner, and
/// a save would not end while others use all processors; and with the longest slice of time that Linux grants cores waited
/// for writers 40 to 150 times above a millisecond in a save, instead of 0 to 3 times.
const WRITER_NICENESS: i32 = 10;
/// How long a core may rest in one turn because its lane is overfull. A reply may wait for two cores and several turns, so
/// it is long only where a short rest does not help.
const REST: Duration = Duration::from_micros(500);
const REST_LONG: Duration = Duration::from_millis(2);

/// One file for all that Redis reads too, or a file per shard and a summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A file per shard.
    Dfs,
    /// One file.
    Rdb,
}

/// What is to be saved.
pub struct Order {
    /// As `dbfilename`.
    pub name: String,
    /// As what.
    pub format: Format,
    /// Who asked holds the locks of all shards.
    pub locked: bool,
    /// SAVE rather than BGSAVE: INFO tells them apart.
    pub foreground: bool,
    /// Clients go first. Not if everybody waits for the save, or an orchestrator does before it kills the process.
    pub yields: bool,
}

/// Called when something has come to pass, or why it did not.
pub type Heard = Box<dyn FnOnce(Result<(), String>) + Send>;

/// Who wants to hear of a save.
#[derive(Default)]
pub struct Listeners {
    /// The cut was made: what is changed now is not in the snapshot any more.
    pub cut: Option<Heard>,
    /// All is done, or nothing.
    pub end: Option<Heard>,
}

/// A shard's part in a save.
pub struct ShardSave {
    queue: Arc<Queue>,
    lane: usize,
}

/// What is known at the cut.
struct Facts {
    keys: u64,
    data_bytes: u64,
    mutations: u64,
}

/// The queues of a save; by shard, the queue and its lane there.
struct Plan {
    queues: Vec<Arc<Queue>>,
    format: Format,
}

impl Plan {
    fn new(format: Format, shards: usize) -> Plan {
        let queues = match format {
            Format::Dfs => (0..shards).map(|_| Arc::new(Queue::new(1))).collect(),
            Format::Rdb => vec![Arc::new(Queue::new(shards))],
        };
        Plan { queues, format }
    }

    fn of(&self, shard: usize) -> ShardSave {
        match self.format {
            Format::Dfs => ShardSave { queue: self.queues[shard].clone(), lane: 0 },
            Format::Rdb => ShardSave { queue: self.queues[0].clone(), lane: shard },
        }
    }

    fn give_up(&self) {
        self.queues.iter().for_each(|queue| queue.give_up());
    }
}

/// Begins a save in the background. An error is one of the order, or that another save or a load goes on; then nobody
/// hears anything.
pub fn begin(shared: &Arc<Shared>, order: Order, listeners: Listeners) -> Result<(), String> {
    let files = files_of(shared, &order)?;
    shared.snapshots.enter_save(order.foreground)?;
    let thread = std::thread::Builder::new().name("save".to_owned());
    let in_thread = shared.clone();
    let spawned = thread.spawn(move || {
        crate::affinity::roam();
        let Listeners { mut cut, end } = listeners;
        let result = run(&in_thread, &order, &files, &mut cut);
        for heard in [cut, end].into_iter().flatten() {
            heard(result.clone());
        }
    });
    if let Err(error) = spawned {
        let error = format!("cannot start a thread: {error}");
        shared.snapshots.leave_save(Outcome::Failed(error.clone()), Duration::ZERO);
        return Err(error);
    }
    Ok(())
}

/// Saves, on a thread that may wait; the file that a load is to be given.
pub(super) fn save_now(shared: &Arc<Shared>, order: &Order) -> Result<String, String> {
    let files = files_of(shared, order)?;
    shared.snapshots.enter_save(order.foreground)?;
    run(shared, order, &files, &mut None).map(|()| files.main)
}

/// Saves, and tells log and history how it went.
fn run(shared: &Arc<Shared>, order: &Order, files: &Files, cut: &mut Option<Heard>) -> Result<(), String> {
    let began = Instant::now();
    let result = save(shared, order, files, cut);
    let storage = &shared.snapshots.storage;
    let place = storage.describe(&files.main);
    let outcome = match &result {
        Ok(facts) => {
            let (keys, seconds) = (facts.keys, began.elapsed().as_secs_f64());
            tracing::info!("saved {keys} keys to {place} in {seconds:.3} s");
            Outcome::Saved { file: place, mutations: facts.mutations }
        }
        Err(error) => {
            storage.discard(files);
            tracing::error!("the snapshot {place} could not be saved: {error}");
            Outcome::Failed(error.clone())
        }
    };
    shared.snapshots.leave_save(outcome, began.elapsed());
    result.map(|_| ())
}

fn files_of(shared: &Shared, order: &Order) -> Result<Files, String> {
    let at = clock::local(Shared::now_ms() / 1000).moment;
    let files = match order.format {
        Format::Dfs => dfs_files(&order.name, at, shared.peers.len()),
        Format::Rdb => rdb_file(&order.name, at),
    };
    files.map_err(|error| error.to_string())
}

fn save(
    shared: &Arc<Shared>,
    order: &Order,
    files: &Files,
    cut: &mut Option<Heard>,
) -> Result<Facts, String> {
    let storage = &shared.snapshots.storage;
    let failed = |error: io::Error| format!("{}: {error}", storage.describe(&files.main));
    storage.recover().map_err(failed)?;
    let id = format!("{}{}", crate::random_id(), crate::random_id())[..32].to_owned();
    let names = if files.shards.is_empty() { std::slice::from_ref(&files.main) } else { &files.shards[..] };
    let mut outs = Vec::new();
    for name in names {
        let output = storage.create(name).map_err(|error| format!("{}: {error}", storage.describe(name)))?;
        outs.push(FileOut::new(FileWriter::new(options(shared, order.format)), output));
    }
    let plan = Arc::new(Plan::new(order.format, shared.peers.len()));
    let facts = make_cut(shared, order.locked, &plan)?;
    shared.snapshots.saving.total.store(facts.keys, Ordering::Relaxed);
    if let Some(heard) = cut.take() {
        heard(Ok(()));
    }
    let write = |number: usize, mut out: FileOut| {
        if order.yields {
            // Where it is not allowed, the threads compete as equals.
            let _ = rustix::process::nice(WRITER_NICENESS);
        }
        head(out.writer(), shared, order.format, &id, &facts);
        match order.format {
            Format::Dfs => out.writer().aux(b"shard-id", number.to_string().as_bytes()),
            Format::Rdb => libraries(out.writer(), shared, order.format),
        }
        let wake = |lane: usize| {
            let core = if order.format == Format::Dfs { number } else { lane };
            shared.peers[core].mailbox.post_from_outside(Box::new(|_| {}));
        };
        let written = out.take_all(&plan.queues[number], &shared.snapshots.saving.keys, wake);
        written.and_then(|()| out.finish()).inspect_err(|_| plan.give_up())
    };
    let results: Vec<io::Result<()>> = std::thread::scope(|scope| {
        let write = &write;
        let threads: Vec<_> = outs
            .into_iter()
            .enumerate()
            .map(|(number, out)| scope.spawn(move || write(number, out)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err(io::Error::other("panic"))))
            .collect()
    });
    for (name, result) in names.iter().zip(results) {
        result.map_err(|error| format!("{}: {error}", storage.describe(name)))?;
    }
    if order.format == Format::Dfs {
        let output = storage.create(&files.main).map_err(failed)?;
        let mut summary = FileOut::new(FileWriter::new(options(shared, order.format)), output);
        head(summary.writer(), shared, order.format, &id, &facts);
        libraries(summary.writer(), shared, order.format);
        summary.writer().aux(b"shard-count", shared.peers.len().to_string().as_bytes());
        summary.writer().aux(b"table-mem", facts.data_bytes.to_string().as_bytes());
        summary.writer().aux(b"shard-id", b"0");
        summary.finish().map_err(failed)?;
    }
    storage.publish(files).map_err(failed)?;
    Ok(facts)
}

fn options(shared: &Shared, format: Format) -> FileOptions {
    let compression = match (shared.config.compression, format) {
        (Compression::None, _) => damselfly_rdb::Compression::None,
        (Compression::Zstd, Format::Dfs) => {
            damselfly_rdb::Compression::Zstd { level: shared.config.compression_level.max(1) }
        }
        // Strings by themselves are compressed in rdb files; in a dfs file runs of entries are.
        (Compression::SingleEntry | Compression::Lz4 | Compression::Zstd, _) => {
            damselfly_rdb::Compression::Lz4
        }
    };
    let target = match format {
        Format::Dfs => Target::Dfs,
        Format::Rdb => Target::Redis7_0,
    };
    let chunk_len_max = shared.settings.serialization_max_chunk_size() as usize;
    FileOptions { target, compression, chunk_len_max, checksum: true }
}

/// What stands at the beginning of every file, in Dragonfly's order.
fn head(writer: &mut FileWriter, shared: &Shared, format: Format, id: &str, facts: &Facts) {
    if format == Format::Dfs {
        writer.aux(b"snapshot-id", id.as_bytes());
    }
    writer.aux(b"redis-ver", REDIS_VERSION.as_bytes());
    writer.aux(b"df-ver", DRAGONFLY_VERSION.as_bytes());
    writer.aux(b"redis-bits", b"64");
    writer.aux(b"ctime", (Shared::now_ms() / 1000).to_string().as_bytes());
    writer.aux(b"used-mem", facts.data_bytes.to_string().as_bytes());
    writer
        .aux(b"repl-id", shared.replication_id.lock().unwrap_or_else(|error| error.into_inner()).as_bytes());
    writer.aux(b"aof-preamble", b"0");
}

/// Scripts and function libraries.
fn libraries(writer: &mut FileWriter, shared: &Shared, format: Format) {
    for script in shared.scripts.scripts() {
        writer.aux(b"lua", &script.text);
    }
    for library in shared.scripts.libraries().libraries.values() {
        match format {
            Format::Rdb => writer.function(&library.source),
            // Dragonfly refuses a file with Redis' opcode, and skips information that it does not know.
            Format::Dfs => writer.aux(FUNCTION_AUX, &library.source),
        }
    }
}

/// Makes the cut, waiting for the locks.
fn make_cut(shared: &Arc<Shared>, locked: bool, plan: &Arc<Plan>) -> Result<Facts, String> {
    let (made, facts) = mpsc::channel();
    let plan = plan.clone();
    shared.peers[0].mailbox.post_from_outside(Box::new(move |core| {
        let cut = move |core: &mut Core, held: Held| {
            let plan = plan.clone();
            core.ask_all(
                move |core| core.begin_save(plan.of(core.id)),
                move |core, facts| {
                    for (to, ticket) in held {
                        core.ask(to, move |core| core.unlock(ticket), |_, ()| {});
                    }
                    // Nobody listens only if the thread is gone, and with it the process.
                    let _ = made.send(facts);
                },
            );
        };
        if locked {
            cut(core, Held::new());
        } else {
            let scopes = (0..core.shared.peers.len()).map(|core| (core, Scope::Shard)).collect();
            core.lock_all(scopes, cut);
        }
    }));
    let facts: Vec<Facts> = facts.recv().map_err(|_| "the server is stopping".to_owned())?;
    Ok(facts.into_iter().fold(Facts { keys: 0, data_bytes: 0, mutations: 0 }, |sum, shard| Facts {
        keys: sum.keys + shard.keys,
        data_bytes: sum.data_bytes + shard.data_bytes,
        mutations: sum.mutations + shard.mutations,
    }))
}

impl Core {
    /// Begins to save this shard as it is now.
    fn begin_save(&mut self, save: ShardSave) -> Facts {
        if self.save.is_some() {
            // One that has failed elsewhere, a moment ago.
            self.ks.end_cut();
        }
        self.ks.begin_cut();
        self.save = Some(save);
        Facts {
            keys: (0..self.ks.databases()).map(|db| self.ks.len(db) as u64).sum(),
            data_bytes: self.ks.heap_bytes() as u64,
            mutations: self.stats.mutations_before_reset + self.ks.stats.mutations,
        }
    }

    /// Hands over what was saved since the last time, so that it is seen how much waits.
    #[inline]
    pub(crate) fn hand_over_saved(&mut self) {
        if self.save.is_some() {
            self.hand_over(false);
        }
    }

    fn hand_over(&mut self, rest: bool) {
        let Some(save) = &self.save else { return };
        while let Some(saved) = self.ks.take_saved(rest) {
            save.queue.push(save.lane, saved);
        }
    }

    /// Goes on with a save for a moment; true if there is more to do at once.
    pub(crate) fn save_for_a_while(&mut self) -> bool {
        self.hand_over(false);
        let Some(save) = &self.save else { return false };
        if save.queue.is_given_up() {
            self.ks.end_cut();
            self.save = None;
            return false;
        }
        let waiting = save.queue.waiting(save.lane);
        if waiting > THROTTLE_FROM {
            save.queue.throttle(save.lane, if waiting > 2 * THROTTLE_FROM { REST_LONG } else { REST });
        }
        let mut through = false;
        if waiting < WALK_UNTIL {
            let started = Instant::now();
            while !through && started.elapsed() < STEP {
                through = (0..STEPS_PER_LOOK).any(|_| !self.ks.cut_some());
            }
            self.hand_over(through);
        }
        let Some(save) = &self.save else { return false };
        if through {
            save.queue.end(save.lane);
            self.ks.end_cut();
            self.save = None;
            return false;
        }
        !save.queue.rest(save.lane)
    }
}
