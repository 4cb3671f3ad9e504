//! One snapshot written again in another form: rdb to dfs, dfs to rdb, dfs to another number of shards.
//!
//! ```text
//! files -> events -> spool (until the count is known) -> the shard of the key -> files beside the old ones
//! ```
//!
//! Data of any size passes through bounded memory: an element, [`OPEN_LEN_MAX`] of values under way (more goes to a
//! file), and the buffers of the files that are written. Keys that are due are kept with their deadlines: whoever
//! loads the result has a clock. Nothing is left out silently; what cannot be converted ends the conversion, or was
//! named by the caller beforehand and is counted.

use std::collections::BTreeMap;
use std::path::PathBuf;

use damselfly_rdb::{
    Compression, Event, FileOptions, FileWriter, Item, Key, Measure, Meta, Refused, Shape, Target, ValueSink,
    crc64,
};

use crate::inspect::ValueKind;
use crate::manifest::Files;
use crate::source::{FUNCTION_AUX, Snapshot, SnapshotError, Why};
use crate::spool::Spool;
use crate::storage::{self, Storage};

/// Events of unfinished values in memory, all together; the value that goes above it is spooled to a file.
const OPEN_LEN_MAX: usize = 64 << 20;
/// Finished bytes of a file that are written at once.
const WRITE_LEN: usize = 256 << 10;
/// Scripts and function libraries are held until the summary is written. A server has some kilobytes of them.
const SOURCES_LEN_MAX: usize = 64 << 20;
/// Containers above this are cut into chunks in dfs files: the default of `--serialization_max_chunk_size`.
const CHUNK_LEN_MAX: usize = 64 << 10;

/// How to convert.
#[derive(Clone, Debug)]
pub struct Options {
    /// Of dfs files.
    pub compression: Compression,
    /// Leave out values that Redis 7.0 does not know, and drop marks on keys that it does not know.
    pub portable: bool,
    /// Leave out values of modules, which cannot be converted.
    pub skip_modules: bool,
    /// What the new set is called inside its files: 32 hexadecimal digits.
    pub snapshot_id: String,
    /// Who writes, as Dragonfly names versions.
    pub version: String,
    /// A directory for values that are too large for memory.
    pub spool: PathBuf,
}

/// What became of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Keys written.
    pub keys: u64,
    /// Keys that were left out, as the options asked.
    pub left_out: BTreeMap<ValueKind, u64>,
    /// Keys written that make Redis refuse the file: values or marks it does not know.
    pub not_portable: u64,
    /// Function libraries written.
    pub functions: u64,
    /// Scripts written.
    pub scripts: u64,
    /// Bytes written.
    pub bytes: u64,
}

/// Converts the snapshot with this main file to `files`: a single file becomes rdb, a set dfs. `progress` is told how
/// many bytes there are to read and how many were read.
pub fn convert(
    from: &dyn Storage,
    main: &str,
    to: &dyn Storage,
    files: &Files,
    options: &Options,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Outcome, SnapshotError> {
    let snapshot = Snapshot::open(from, main)?;
    let there = to.list().map_err(|error| failed(to, "", &error))?;
    if let Some(name) = names_of(files).find(|name| there.iter().any(|known| known.name == **name)) {
        let why = Why::Set("the file is there already".to_owned());
        return Err(SnapshotError { file: to.describe(name), why });
    }
    let result = write(&snapshot, to, files, options, progress);
    if result.is_err() {
        to.discard(files);
    }
    result
}

/// All names of a snapshot.
fn names_of(files: &Files) -> impl Iterator<Item = &String> {
    files.shards.iter().chain([&files.main])
}

fn write(
    snapshot: &Snapshot<'_>,
    to: &dyn Storage,
    files: &Files,
    options: &Options,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Outcome, SnapshotError> {
    let mut converter = Converter::new(to, files, options)?;
    let (all, mut read) = (snapshot.len(), 0);
    for part in 0..snapshot.parts().len() {
        converter.open.clear();
        converter.open_len = 0;
        let mut tell = |len: u64| {
            read += len;
            progress(read, all);
        };
        let result = snapshot.read(part, &mut tell, &mut |item| converter.item(item, part == 0));
        // What stopped the writer is the cause of what the reader then says.
        if let Some(failure) = converter.failure.take() {
            return Err(failure);
        }
        result?;
    }
    let outcome = converter.finish()?;
    to.publish(files).map_err(|error| failed(to, &files.main, &error))?;
    Ok(outcome)
}

fn failed(storage: &dyn Storage, name: &str, error: &std::io::Error) -> SnapshotError {
    SnapshotError { file: storage.describe(name), why: Why::Io(error.to_string()) }
}

/// Stops the reader. Nobody sees it: the failure behind it is reported instead.
const STOPPED: Refused = Refused("the conversion has failed");

/// A key whose value is being read.
#[derive(Default)]
struct Open {
    db: u64,
    key: Vec<u8>,
    meta: Meta,
    kind: Option<ValueKind>,
    measure: Measure,
    spool: Spool,
}

/// A file under way.
struct Output {
    name: String,
    writer: FileWriter,
    file: Box<dyn storage::Output>,
    buffer: Vec<u8>,
    written: u64,
}

impl Output {
    fn create(to: &dyn Storage, name: &str, options: FileOptions) -> std::io::Result<Output> {
        let file = to.create(name)?;
        let writer = FileWriter::new(options);
        Ok(Output { name: name.to_owned(), writer, file, buffer: Vec::new(), written: 0 })
    }

    /// Carries finished bytes away once there are enough.
    fn carry(&mut self, enough: usize) -> std::io::Result<()> {
        if self.writer.ready_len() < enough {
            return Ok(());
        }
        self.writer.take(&mut self.buffer);
        self.file.write_all(&self.buffer)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        // The memory of a giant is not kept, once for each file.
        self.buffer.shrink_to(4 * WRITE_LEN);
        Ok(())
    }

    fn finish(mut self) -> std::io::Result<u64> {
        self.writer.eof();
        self.carry(0)?;
        self.file.finish()?;
        Ok(self.written)
    }
}

struct Converter<'a> {
    to: &'a dyn Storage,
    files: &'a Files,
    options: &'a Options,
    file_options: FileOptions,
    /// The files with keys.
    outputs: Vec<Output>,
    /// Whether the heads of the files are written. They say what the source's head said, so they wait for it.
    headed: bool,
    /// What the source says about itself and the result repeats.
    about: Vec<(&'static [u8], Vec<u8>)>,
    /// For the head of the main file.
    sources: Sources,
    open: BTreeMap<u32, Open>,
    /// Bytes of unfinished values in memory.
    open_len: usize,
    outcome: Outcome,
    failure: Option<SnapshotError>,
}

/// What the main file has besides keys.
#[derive(Default)]
struct Sources {
    /// Scripts and indices by name, in their order.
    aux: Vec<(&'static [u8], Vec<u8>)>,
    functions: Vec<Vec<u8>>,
    len: usize,
}

/// What is repeated of a source's head, in the order of Dragonfly's files.
const ABOUT: [&[u8]; 3] = [b"redis-bits", b"ctime", b"used-mem"];
/// What belongs to the data and is repeated in the main file.
const BELONGINGS: [&[u8]; 3] = [b"lua", b"search-index", b"search-synonyms"];
/// Dragonfly's files say this of Redis, whose commands they stand for.
const REDIS_VERSION: &[u8] = b"6.2.11";

impl<'a> Converter<'a> {
    fn new(
        to: &'a dyn Storage,
        files: &'a Files,
        options: &'a Options,
    ) -> Result<Converter<'a>, SnapshotError> {
        let is_set = !files.shards.is_empty();
        let file_options = FileOptions {
            target: if is_set { Target::Dfs } else { Target::Redis7_0 },
            compression: options.compression,
            chunk_len_max: CHUNK_LEN_MAX,
            checksum: true,
        };
        let names = if is_set { files.shards.as_slice() } else { std::slice::from_ref(&files.main) };
        let mut outputs = Vec::with_capacity(names.len());
        for name in names {
            let output = Output::create(to, name, file_options);
            outputs.push(output.map_err(|error| failed(to, name, &error))?);
        }
        Ok(Converter {
            to,
            files,
            options,
            file_options,
            outputs,
            headed: false,
            about: Vec::new(),
            sources: Sources::default(),
            open: BTreeMap::new(),
            open_len: 0,
            outcome: Outcome::default(),
            failure: None,
        })
    }

    fn is_set(&self) -> bool {
        self.file_options.target == Target::Dfs
    }

    fn item(&mut self, item: Item<'_>, is_main: bool) -> Result<(), Refused> {
        match item {
            Item::Key(key) => {
                if !self.headed {
                    self.write_heads();
                }
                self.key(&key)
            }
            Item::Value { stream, event } => self.value(stream, event),
            // A load takes them from whichever file has them.
            Item::Function(source) | Item::Aux { name: FUNCTION_AUX, value: source } => self.function(source),
            Item::Aux { name, value } if is_main => self.aux(name, value),
            _ => Ok(()),
        }
    }

    fn aux(&mut self, name: &[u8], value: &[u8]) -> Result<(), Refused> {
        if let Some(name) = ABOUT.into_iter().find(|known| *known == name) {
            self.hold(value.len())?;
            self.about.push((name, value.to_vec()));
        } else if let Some(name) = BELONGINGS.into_iter().find(|known| *known == name) {
            self.hold(value.len())?;
            self.sources.aux.push((name, value.to_vec()));
        }
        Ok(())
    }

    fn function(&mut self, source: &[u8]) -> Result<(), Refused> {
        self.hold(source.len())?;
        self.sources.functions.push(source.to_vec());
        Ok(())
    }

    fn hold(&mut self, len: usize) -> Result<(), Refused> {
        // Short ones cost, too.
        self.sources.len += len + 64;
        if self.sources.len > SOURCES_LEN_MAX {
            return Err(Refused("more scripts and functions than can be held"));
        }
        Ok(())
    }

    /// What stands at the beginning of every file.
    fn write_heads(&mut self) {
        self.headed = true;
        for (shard, output) in self.outputs.iter_mut().enumerate() {
            put_head(&mut output.writer, self.files, self.options, &self.about);
            if !self.files.shards.is_empty() {
                output.writer.aux(b"shard-id", shard.to_string().as_bytes());
            }
        }
    }

    fn key(&mut self, key: &Key<'_>) -> Result<(), Refused> {
        let open = self.open.entry(key.stream).or_default();
        open.db = key.db;
        open.key.clear();
        open.key.extend_from_slice(key.key);
        open.meta = key.meta;
        open.kind = None;
        open.measure = Measure::new();
        self.open_len -= open.spool.memory_len();
        open.spool.clear();
        Ok(())
    }

    fn value(&mut self, stream: u32, event: Event<'_>) -> Result<(), Refused> {
        let open = self.open.get_mut(&stream).ok_or(Refused("a value without a key"))?;
        if open.kind.is_none() {
            open.kind = ValueKind::of(&event);
        }
        if let Event::String(text) = event {
            let mut open = std::mem::take(open);
            let result = self.string(&mut open, text);
            return self.put_back(stream, open, result);
        }
        open.measure.event(event)?;
        let before = open.spool.memory_len();
        open.spool.push(&event);
        self.open_len += open.spool.memory_len() - before;
        if matches!(event, Event::Json(_) | Event::End) {
            let mut open = std::mem::take(open);
            self.open_len -= open.spool.memory_len();
            let result = self.write(&mut open);
            open.spool.clear();
            return self.put_back(stream, open, result);
        }
        if self.open_len > OPEN_LEN_MAX {
            let before = open.spool.memory_len();
            let result = open.spool.spill(&self.options.spool);
            self.open_len -= before - open.spool.memory_len();
            return result.map_err(|error| {
                let file = self.options.spool.display().to_string();
                self.failure = Some(SnapshotError { file, why: Why::Io(error.to_string()) });
                STOPPED
            });
        }
        Ok(())
    }

    /// The value that is not chunked lends its memory to the next one.
    fn put_back(&mut self, stream: u32, open: Open, result: std::io::Result<()>) -> Result<(), Refused> {
        if stream == 0 {
            self.open.insert(0, open);
        } else {
            self.open.remove(&stream);
        }
        result.map_err(|error| {
            // Which file it was is known where it failed.
            let file = error.get_ref().and_then(|inner| inner.downcast_ref::<SnapshotError>());
            let failure = file.cloned().unwrap_or_else(|| failed(self.to, &self.files.main, &error));
            self.failure.get_or_insert(failure);
            STOPPED
        })
    }

    /// Whether Redis reads a key of this shape. One that it does not is left out, or its marks are, as was asked.
    fn portable(&mut self, open: &mut Open, shape: Shape) -> bool {
        let is_marked = open.meta.sticky || open.meta.mc_flags.is_some();
        if shape.is_portable() && !is_marked {
            return true;
        }
        if !self.options.portable {
            self.outcome.not_portable += 1;
            return true;
        }
        (open.meta.sticky, open.meta.mc_flags) = (false, None);
        if !shape.is_portable() {
            *self.outcome.left_out.entry(open.kind.expect("it has begun")).or_default() += 1;
        }
        shape.is_portable()
    }

    fn output(&mut self, key: &[u8]) -> &mut Output {
        // The same key always goes to the same file, so that of two values the later one stays the later one.
        let shard = crc64(0, key) % self.outputs.len() as u64;
        &mut self.outputs[shard as usize]
    }

    fn string(&mut self, open: &mut Open, text: &[u8]) -> std::io::Result<()> {
        // Only marks can be what Redis does not know.
        self.portable(open, Shape::String);
        self.outcome.keys += 1;
        let to = self.to;
        let output = self.output(&open.key);
        output.writer.string(open.db, &open.meta, &open.key, text);
        carried(to, output)
    }

    fn write(&mut self, open: &mut Open) -> std::io::Result<()> {
        let Some(shape) = open.measure.shape() else {
            if self.options.skip_modules {
                *self.outcome.left_out.entry(ValueKind::Module).or_default() += 1;
                return Ok(());
            }
            let key = String::from_utf8_lossy(&open.key[..open.key.len().min(256)]).into_owned();
            let text = format!("key {} has a value of a module", key.escape_debug());
            return Err(std::io::Error::new(std::io::ErrorKind::Unsupported, text));
        };
        let is_collection =
            matches!(open.kind, Some(ValueKind::List | ValueKind::Set | ValueKind::Hash | ValueKind::ZSet));
        // A collection without elements is no key.
        if is_collection && open.measure.count() == 0 || !self.portable(open, shape) {
            return Ok(());
        }
        self.outcome.keys += 1;
        let to = self.to;
        let output = self.output(&open.key);
        let mut entry = output.writer.begin(open.db, &open.meta, &open.key, shape);
        open.spool.replay(&mut |event| {
            // A document is complete with its only event.
            if !entry.is_done() {
                output.writer.put(&mut entry, event);
            }
            carried(to, output)
        })
    }

    fn finish(mut self) -> Result<Outcome, SnapshotError> {
        if !self.headed {
            self.write_heads();
        }
        let (is_set, to) = (self.is_set(), self.to);
        let mut outcome = self.outcome;
        outcome.functions = self.sources.functions.len() as u64;
        outcome.scripts = self.sources.aux.iter().filter(|(name, _)| *name == b"lua").count() as u64;
        let shards = self.outputs.len();
        if is_set {
            let summary = Output::create(to, &self.files.main, self.file_options);
            let mut summary = summary.map_err(|error| failed(to, &self.files.main, &error))?;
            put_head(&mut summary.writer, self.files, self.options, &self.about);
            self.outputs.push(summary);
        }
        // In a single file the belongings stand at the end: no reader asks for another place.
        let main = &mut self.outputs.last_mut().expect("there is a main file").writer;
        self.sources.aux.iter().for_each(|(name, value)| main.aux(name, value));
        if is_set {
            main.aux(b"shard-count", shards.to_string().as_bytes());
            main.aux(b"shard-id", b"0");
        }
        for source in &self.sources.functions {
            if is_set {
                main.aux(FUNCTION_AUX, source);
            } else {
                main.function(source);
            }
        }
        for output in self.outputs {
            let name = output.name.clone();
            outcome.bytes += output.finish().map_err(|error| failed(to, &name, &error))?;
        }
        Ok(outcome)
    }
}

/// Carries finished bytes away; an error names its file.
fn carried(to: &dyn Storage, output: &mut Output) -> std::io::Result<()> {
    output.carry(WRITE_LEN).map_err(|error| std::io::Error::other(failed(to, &output.name, &error)))
}

fn put_head(writer: &mut FileWriter, files: &Files, options: &Options, about: &[(&'static [u8], Vec<u8>)]) {
    if !files.shards.is_empty() {
        writer.aux(b"snapshot-id", options.snapshot_id.as_bytes());
    }
    writer.aux(b"redis-ver", REDIS_VERSION);
    writer.aux(b"df-ver", options.version.as_bytes());
    for name in ABOUT {
        if let Some((_, value)) = about.iter().find(|(known, _)| *known == name) {
            writer.aux(name, value);
        }
    }
    writer.aux(b"aof-preamble", b"0");
}
