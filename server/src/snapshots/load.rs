//! Loading a snapshot.
//!
//! ```text
//! file -> reader thread (decode, hash) -> batches -> the mailboxes of the owners -> their tables
//! ```
//!
//! Files of a set are read in parallel. The number of shards that wrote them does not matter: every key is hashed
//! and goes to whom it belongs here. A bounded number of batches is on the way, so a reader that is faster than a
//! shard waits, and memory is that of the data plus some megabytes.
//!
//! A snapshot is loaded whole or not at all: whatever is wrong with any file ends the load with the file's name and
//! the place in it.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::time::Instant;

use damselfly_keyspace::{Attributes, Content, Expiry, Rows};
use damselfly_rdb::{
    Event, FileReader, FileSink, Gathered, Gatherer, Item, Limits, Meta, Refused, Value, ValueSink,
};
use damselfly_snapshot::{FUNCTION_AUX, FileRole, SHARDS_MAX, newest, role_of};

use super::locked;
use damselfly_scripting::Engine;

use crate::core::Core;
use crate::scripts::Restore;
use crate::shared::{Shared, Stop};

/// Batches on their way to one core. One that it works on and one that waits keep it busy.
const BATCHES_PER_CORE: usize = 4;
/// Seconds between two lines in the log about how far it is.
const SECONDS_PER_LINE: u64 = 5;

/// Strings from this length on travel in an allocation of their own, which becomes the value: copied once less.
const OWN_FROM: usize = 16 << 10;
/// How many entries ahead of the one that is stored the memory is asked for that it will need. A miss takes as long as
/// some three entries that find everything.
const AHEAD: usize = 16;

/// Entries on their way to a core.
#[derive(Default)]
struct Batch {
    rows: Rows<Gathered>,
    /// Of their keys.
    hashes: Vec<u64>,
}

/// Loads the snapshot that the settings lead to, in the background: the state is *loading* from before this returns
/// until all is there. A snapshot that cannot be loaded ends the process.
pub fn load_at_start(shared: &Arc<Shared>) -> Result<(), String> {
    let name = shared.settings.dbfilename();
    if name.is_empty() || !shared.settings.replicaof().is_empty() {
        return Ok(());
    }
    let storage = &shared.snapshots.storage;
    let failed = |error: io::Error| format!("cannot look for snapshots in {}: {error}", storage.describe(""));
    let recovered = storage.recover().map_err(failed)?;
    for name in recovered.completed {
        tracing::warn!(
            "{} was complete but not in place when the last process ended: done",
            storage.describe(&name)
        );
    }
    for name in recovered.swept {
        tracing::warn!("{} was not complete when the last process ended: removed", storage.describe(&name));
    }
    let Some(file) = newest_file(shared)? else {
        tracing::info!("no snapshot in {} for dbfilename {name}: starting empty", storage.describe(""));
        return Ok(());
    };
    shared.snapshots.loading.store(true, Ordering::Release);
    let shared = shared.clone();
    std::thread::Builder::new()
        .name("load".to_owned())
        .spawn(move || {
            if let Err(error) = load(&shared, &file, false) {
                let failure = Some(format!("cannot load the snapshot: {error}"));
                *locked(&shared.snapshots.failure) = failure;
                // A main thread that has gone already ends the process as well.
                let _ = shared.stop.send(Stop::LoadFailed);
                return;
            }
            shared.snapshots.loading.store(false, Ordering::Release);
        })
        .map_err(|error| format!("cannot start a thread: {error}"))?;
    Ok(())
}

/// The file that a start loads: what `dbfilename` names, the newest of several.
pub(super) fn newest_file(shared: &Shared) -> Result<Option<String>, String> {
    let storage = &shared.snapshots.storage;
    let found = storage
        .list()
        .map_err(|error| format!("cannot look for snapshots in {}: {error}", storage.describe("")))?;
    Ok(newest(&shared.settings.dbfilename(), &found).map(|found| found.name.clone()))
}

/// Loads a snapshot, given its only file or its summary, into the shards as they are. With `overwrites`, keys that are
/// there give way to those of the snapshot.
pub(super) fn load(shared: &Arc<Shared>, file: &str, overwrites: bool) -> Result<(), String> {
    let began = Instant::now();
    let (snapshots, storage) = (&shared.snapshots, &shared.snapshots.storage);
    let mut files = vec![file.to_owned()];
    let (mut expected, mut summary_notes) = (None, Notes::default());
    if let FileRole::Summary(base) = role_of(file) {
        let summary = read_summary(shared, file)?;
        summary_notes = summary.notes;
        files.extend((0..summary.shards).map(|shard| format!("{base}-{shard:04}.dfs")));
        expected = Some(summary.id);
    }
    let mut bytes = 0;
    for file in &files[usize::from(expected.is_some())..] {
        bytes += storage.len(file).map_err(|error| about(shared, file, error))?;
    }
    snapshots.progress.begin(bytes);
    tracing::info!("loading {} ({} MiB)", storage.describe(file), bytes >> 20);
    let next = AtomicUsize::new(usize::from(expected.is_some()));
    let flight = Arc::new(Flight { max: BATCHES_PER_CORE * shared.peers.len(), ..Flight::default() });
    let (failure, failed) = (Mutex::new(None), AtomicBool::new(false));
    let notes = Mutex::new(summary_notes);
    let work = || {
        while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            match read_file(shared, &flight, file, expected.as_deref(), &failed, overwrites) {
                Ok(more) => locked(&notes).add(more),
                Err(error) => {
                    failed.store(true, Ordering::Relaxed);
                    locked(&failure).get_or_insert(error);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..files.len().min(shared.peers.len()) {
            scope.spawn(work);
        }
        work();
    });
    flight.wait_for_all();
    // First: the readers have stopped because of it.
    if let Some(refusal) = flight.refusal() {
        return Err(place_of(shared, &files, &refusal));
    }
    if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    notes.into_inner().unwrap_or_else(PoisonError::into_inner).give_to_core(shared)?;
    locked(&snapshots.history).loads += 1;
    tracing::info!(
        "loaded {} keys from {} in {:.3} s; {} had expired",
        snapshots.progress.keys.load(Ordering::Relaxed),
        storage.describe(file),
        began.elapsed().as_secs_f64(),
        snapshots.progress.expired.load(Ordering::Relaxed),
    );
    Ok(())
}

fn about(shared: &Shared, file: &str, error: impl std::fmt::Display) -> String {
    format!("{}: {error}", shared.snapshots.storage.describe(file))
}

/// Where in the files is what a core did not take: looked for only now, so that nobody has to remember places who does
/// not need them.
fn place_of(shared: &Shared, files: &[String], refusal: &Refusal) -> String {
    let (key, times, why) = match refusal {
        Refusal::Value { key, .. } => (key, 1, "a value that no server could have had"),
        Refusal::Twice { key, .. } => (key, 2, "a key for the second time"),
    };
    let name = String::from_utf8_lossy(key).escape_debug().to_string();
    let mut seen = 0;
    for file in files {
        let Ok(mut source) = shared.snapshots.storage.open(file) else { continue };
        let read = FileReader::new(Limits::FILE).read_all(&mut source, &mut |item: Item<'_>| {
            seen += usize::from(matches!(item, Item::Key(found) if refusal.is_about(found.db, found.key)));
            if seen == times { Err(Refused(why)) } else { Ok(()) }
        });
        if let Err(error) = read {
            return about(shared, file, format!("key {name}: {error}"));
        }
    }
    about(shared, &files[0], format!("key {name}: {why}"))
}

/// What the summary of a set says.
#[derive(Default)]
struct Summary {
    id: Vec<u8>,
    shards: usize,
    notes: Notes,
}

fn read_summary(shared: &Shared, file: &str) -> Result<Summary, String> {
    let mut summary = Summary::default();
    let mut notes = Notes::default();
    let mut source = shared.snapshots.storage.open(file).map_err(|error| about(shared, file, error))?;
    let result = FileReader::new(Limits::FILE).read_all(&mut source, &mut |item: Item<'_>| {
        match item {
            Item::Aux { name: b"snapshot-id", value } => summary.id = value.to_vec(),
            Item::Aux { name: b"shard-count", value } => {
                let count = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                summary.shards = count.ok_or(Refused("the number of shards is no number"))?;
            }
            Item::Key(_) => return Err(Refused("a summary has no keys")),
            item => notes.take(item, file),
        }
        Ok(())
    });
    result.map_err(|error| about(shared, file, error))?;
    if summary.shards == 0 || summary.shards > SHARDS_MAX {
        return Err(about(shared, file, format!("{} is no number of shards", summary.shards)));
    }
    summary.notes = notes;
    Ok(summary)
}

/// What files have besides keys.
#[derive(Default)]
struct Notes {
    libraries: Vec<Library>,
    scripts: Vec<Vec<u8>>,
}

/// A function library.
struct Library {
    source: Vec<u8>,
    file: String,
    /// How many its file has before it.
    number: usize,
}

/// The source of a function library, in either format.
fn library<'a>(item: &Item<'a>) -> Option<&'a [u8]> {
    match *item {
        Item::Function(source) | Item::Aux { name: FUNCTION_AUX, value: source } => Some(source),
        _ => None,
    }
}

impl Notes {
    fn take(&mut self, item: Item<'_>, file: &str) {
        if let Some(source) = library(&item) {
            let number = self.libraries.len();
            self.libraries.push(Library { source: source.to_vec(), file: file.to_owned(), number });
        } else if let Item::Aux { name: b"lua", value } = item {
            self.scripts.push(value.to_vec());
        }
    }

    fn add(&mut self, other: Notes) {
        self.libraries.extend(other.libraries);
        self.scripts.extend(other.scripts);
    }

    /// Makes scripts and libraries known, through the core that changes these. A script that does not compile any more
    /// is told in the log: nobody's data depend on it. A library that cannot be loaded, or whose name another one has,
    /// is an error, as in Redis.
    fn give_to_core(self, shared: &Arc<Shared>) -> Result<(), String> {
        let Notes { libraries, scripts } = self;
        if libraries.is_empty() && scripts.is_empty() {
            return Ok(());
        }
        let (sources, places): (Vec<_>, Vec<_>) =
            libraries.into_iter().map(|library| (library.source, (library.file, library.number))).unzip();
        let (loaded, result) = mpsc::channel();
        shared.peers[0].mailbox.post_from_outside(Box::new(move |core| {
            for script in &scripts {
                if let Err(error) = core.load_script(Engine::sha(script), script, true) {
                    tracing::warn!(
                        "a script of the snapshot is left out: {}",
                        String::from_utf8_lossy(&error)
                    );
                }
            }
            // Whoever waits is gone only with the process.
            let _ = loaded.send(core.restore_libraries(&sources, Restore::Replace));
        }));
        let restored = result.recv().map_err(|_| "the server is stopping".to_owned())?;
        restored.map_err(|error| {
            let text = String::from_utf8_lossy(&error.text);
            let text = format!("a function library: {}", text.strip_prefix("ERR ").unwrap_or(&text));
            match places.get(error.number) {
                Some((file, number)) => place_of_library(shared, file, *number, &text),
                None => text,
            }
        })
    }
}

/// Where in its file a library is that cannot be loaded; looked for as late as in [`place_of`].
fn place_of_library(shared: &Shared, file: &str, number: usize, why: &str) -> String {
    let mut before = 0;
    let read = shared.snapshots.storage.open(file).ok().map(|mut source| {
        FileReader::new(Limits::FILE).read_all(&mut source, &mut |item: Item<'_>| {
            let found = library(&item).is_some();
            before += usize::from(found);
            if found && before > number { Err(Refused("it cannot be loaded")) } else { Ok(()) }
        })
    });
    match read {
        Some(Err(error)) => about(shared, file, format!("{why}: {error}")),
        _ => about(shared, file, why),
    }
}

/// A source that tells how far it is.
struct Counted<'a> {
    source: Box<dyn Read + Send>,
    shared: &'a Shared,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.source.read(buffer)?;
        let progress = &self.shared.snapshots.progress;
        progress.read.fetch_add(len as u64, Ordering::Relaxed);
        Ok(len)
    }
}

fn read_file(
    shared: &Arc<Shared>,
    flight: &Arc<Flight>,
    file: &str,
    expected: Option<&[u8]>,
    failed: &AtomicBool,
    overwrites: bool,
) -> Result<Notes, String> {
    let source = shared.snapshots.storage.open(file).map_err(|error| about(shared, file, error))?;
    let mut sink = Sink {
        shared,
        file,
        flight,
        failed,
        overwrites,
        expected,
        matched: false,
        databases: shared.config.databases as u64,
        batches: shared.peers.iter().map(|_| Batch::default()).collect(),
        plain: Open::default(),
        chunked: BTreeMap::new(),
        notes: Notes::default(),
        spoken: Instant::now(),
    };
    let read = FileReader::new(Limits::FILE).read_all(&mut Counted { source, shared }, &mut sink);
    read.map_err(|error| about(shared, file, error))?;
    if expected.is_some() && !sink.matched {
        return Err(about(shared, file, "the file does not say which snapshot it belongs to"));
    }
    for owner in 0..sink.batches.len() {
        sink.send(owner);
    }
    Ok(sink.notes)
}

/// A key whose value is being read.
#[derive(Default)]
struct Open {
    db: u32,
    key: Vec<u8>,
    meta: Meta,
    value: Gatherer,
}

struct Sink<'a> {
    shared: &'a Arc<Shared>,
    /// What is read.
    file: &'a str,
    flight: &'a Arc<Flight>,
    failed: &'a AtomicBool,
    /// Whether keys that are there already give way; else they are an error.
    overwrites: bool,
    /// The snapshot it must belong to.
    expected: Option<&'a [u8]>,
    matched: bool,
    databases: u64,
    /// By owner.
    batches: Vec<Batch>,
    /// The value that is not chunked.
    plain: Open,
    chunked: BTreeMap<u32, Open>,
    notes: Notes,
    spoken: Instant,
}

impl FileSink for Sink<'_> {
    #[inline]
    fn item(&mut self, item: Item<'_>) -> Result<(), Refused> {
        match item {
            Item::Key(key) => {
                if key.db >= self.databases {
                    return Err(Refused("a database above those of --databases"));
                }
                let open = match key.stream {
                    0 => &mut self.plain,
                    stream => self.chunked.entry(stream).or_default(),
                };
                open.db = key.db as u32;
                open.key.clear();
                open.key.extend_from_slice(key.key);
                open.meta = key.meta;
                open.value.clear();
                Ok(())
            }
            Item::Value { stream: 0, event: Event::String(text) } => {
                if self.is_due(&self.plain.meta) {
                    return Ok(());
                }
                let Open { db, key, meta, .. } = &self.plain;
                let hash = hash(self.shared, key);
                let owner = self.shared.owner(hash);
                let batch = &mut self.batches[owner];
                batch.hashes.push(hash);
                if text.len() < OWN_FROM {
                    batch.rows.push_text(*db, key, attributes(meta), text);
                } else {
                    let own = Gathered::Value(Value::String(text.to_vec()));
                    batch.rows.push_other(*db, key, attributes(meta), own, text.len());
                }
                self.pushed(owner)
            }
            Item::Value { stream, event } => self.value(stream, event),
            Item::Aux { name: b"snapshot-id", value } => {
                if self.expected.is_some_and(|expected| expected != value) {
                    return Err(Refused("the file belongs to another snapshot than the summary"));
                }
                self.matched = true;
                Ok(())
            }
            item => {
                self.notes.take(item, self.file);
                Ok(())
            }
        }
    }
}

fn attributes(meta: &Meta) -> Attributes {
    Attributes {
        expire_at: meta.expire_at_ms,
        sticky: meta.sticky,
        mc_flags: meta.mc_flags.unwrap_or_default(),
    }
}

fn hash(shared: &Shared, key: &[u8]) -> u64 {
    damselfly_keyspace::hash(key, shared.hash_seed)
}

impl Sink<'_> {
    /// Whether a key has expired, and so is left out as in Redis.
    fn is_due(&self, meta: &Meta) -> bool {
        let due = !self.shared.config.rdb_ignore_expiry
            && meta.expire_at_ms.is_some_and(|at| at <= Shared::now_ms());
        if due {
            self.shared.snapshots.progress.expired.fetch_add(1, Ordering::Relaxed);
        }
        due
    }

    fn value(&mut self, stream: u32, event: Event<'_>) -> Result<(), Refused> {
        let open = match stream {
            0 => &mut self.plain,
            stream => self.chunked.get_mut(&stream).ok_or(Refused("a value without a key"))?,
        };
        open.value.event(event)?;
        if !open.value.is_done() {
            return Ok(());
        }
        let value = open.value.take().expect("it is done");
        let (db, meta, hash) = (open.db, open.meta, hash(self.shared, &open.key));
        let held = match &value {
            Gathered::Value(Value::Module { .. }) => {
                return Err(Refused("a value of a module that is not built in"));
            }
            Gathered::Run(run) => run.bytes(),
            // What it weighs is not known; counting it as some dozens of small strings keeps batches small.
            Gathered::Value(_) => 4096,
        };
        let owner = self.shared.owner(hash);
        if !value.is_empty_container() && !self.is_due(&meta) {
            let key = if stream == 0 { &self.plain.key } else { &self.chunked[&stream].key };
            let batch = &mut self.batches[owner];
            batch.hashes.push(hash);
            batch.rows.push_other(db, key, attributes(&meta), value, held);
        }
        self.chunked.remove(&stream);
        self.pushed(owner)
    }

    fn pushed(&mut self, owner: usize) -> Result<(), Refused> {
        if !self.batches[owner].rows.is_full() {
            return Ok(());
        }
        if self.failed.load(Ordering::Relaxed) || self.flight.has_refused() {
            return Err(Refused("another part of the snapshot is broken"));
        }
        self.send(owner);
        if self.spoken.elapsed().as_secs() >= SECONDS_PER_LINE {
            self.spoken = Instant::now();
            let progress = &self.shared.snapshots.progress;
            let keys = progress.keys.load(Ordering::Relaxed);
            tracing::info!("loaded {:.1} %, {keys} keys", progress.percent());
        }
        Ok(())
    }

    fn send(&mut self, owner: usize) {
        if self.batches[owner].rows.is_empty() {
            return;
        }
        let spare = self.flight.depart();
        let mut batch = std::mem::replace(&mut self.batches[owner], spare);
        let (flight, overwrites) = (self.flight.clone(), self.overwrites);
        self.shared.peers[owner].mailbox.post_from_outside(Box::new(move |core| {
            let count = batch.rows.len() as u64;
            if let Err(refusal) = take_in(core, &mut batch, overwrites) {
                flight.refuse(refusal);
            }
            core.shared.snapshots.progress.keys.fetch_add(count, Ordering::Relaxed);
            flight.arrive(batch);
        }));
    }
}

/// Why a core did not take what a file had.
#[derive(Clone)]
enum Refusal {
    /// The value of this key is none that a server could have had.
    Value { db: u32, key: Vec<u8> },
    /// This key was there already.
    Twice { db: u32, key: Vec<u8> },
}

impl Refusal {
    fn is_about(&self, number: u64, name: &[u8]) -> bool {
        let (Refusal::Value { db, key } | Refusal::Twice { db, key }) = self;
        u64::from(*db) == number && key == name
    }
}

/// Stores a batch in this core's shard, and leaves it empty.
fn take_in(core: &mut Core, batch: &mut Batch, overwrites: bool) -> Result<(), Refusal> {
    let forget_expiry = core.shared.config.rdb_ignore_expiry;
    let hashes = std::mem::take(&mut batch.hashes);
    let mut ahead = hashes.iter().skip(AHEAD);
    let mut next = hashes.iter().skip(AHEAD / 2);
    let result = batch.rows.drain(|number, key, attributes, content| {
        let db = number as usize;
        let table = core.ks.db_mut(db);
        ahead.next().inspect(|hash| table.prefetch_insert(**hash));
        next.next().inspect(|hash| table.prefetch_tail(**hash));
        let expiry = match attributes.expire_at {
            Some(at) if !forget_expiry => Expiry::At(at),
            _ => Expiry::Never,
        };
        let is_twice = match content {
            Content::Text(text) => {
                let before = core.ks.len(db);
                core.ks.set_string(db, key, text, expiry);
                core.ks.len(db) == before
            }
            Content::Other(value) => {
                let was_there = core.ks.find(db, key).is_some();
                match value {
                    // Its length is a long string's, so it is stored as that whether it was edited or not.
                    Gathered::Value(Value::String(text)) => core.ks.set_edited(db, key, text, expiry),
                    value => damselfly_commands::restore(&mut core.ks, &core.env, db, key, value, expiry)
                        .map_err(|_| Refusal::Value { db: number, key: key.to_vec() })?,
                }
                was_there
            }
        };
        if is_twice && !overwrites {
            return Err(Refusal::Twice { db: number, key: key.to_vec() });
        }
        if (attributes.sticky || attributes.mc_flags != 0)
            && let Some(loc) = core.ks.find(db, key)
        {
            let table = core.ks.table_mut(db);
            table.set_sticky(loc, attributes.sticky);
            table.set_mc_flags(loc, attributes.mc_flags);
        }
        Ok(())
    });
    batch.hashes = hashes;
    batch.hashes.clear();
    batch.rows.shrink();
    // Nobody listens to a load.
    core.ks.take_events();
    result
}

/// Batches between readers and shards.
#[derive(Default)]
struct Flight {
    max: usize,
    state: Mutex<InFlight>,
    landed: Condvar,
    refused: AtomicBool,
}

#[derive(Default)]
struct InFlight {
    flying: usize,
    /// Empty ones that have come back, with their memory.
    spare: Vec<Batch>,
    refusal: Option<Refusal>,
}

impl Flight {
    /// Lets a batch go as soon as not too many are on their way; an empty one to fill meanwhile.
    fn depart(&self) -> Batch {
        let too_many = |state: &mut InFlight| state.flying >= self.max;
        let waited = self.landed.wait_while(locked(&self.state), too_many);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.flying += 1;
        state.spare.pop().unwrap_or_default()
    }

    fn arrive(&self, batch: Batch) {
        let mut state = locked(&self.state);
        state.flying -= 1;
        state.spare.push(batch);
        self.landed.notify_all();
    }

    fn wait_for_all(&self) {
        let flying = |state: &mut InFlight| state.flying > 0;
        drop(self.landed.wait_while(locked(&self.state), flying));
    }

    fn refuse(&self, refusal: Refusal) {
        locked(&self.state).refusal.get_or_insert(refusal);
        self.refused.store(true, Ordering::Release);
    }

    fn has_refused(&self) -> bool {
        self.refused.load(Ordering::Acquire)
    }

    fn refusal(&self) -> Option<Refusal> {
        locked(&self.state).refusal.clone()
    }
}
