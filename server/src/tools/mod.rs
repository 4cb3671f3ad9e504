//! `damselfly snapshot`: what is done with snapshot files when no server runs.
//!
//! The work is the `snapshot` crate's; here are its arguments, what it prints, and how far it is. The words after
//! `damselfly snapshot` follow the usual grammar of commands and not that of the server's flags, whose place they
//! take: a server has no arguments without dashes, so nothing that starts a server today means something else.
//!
//! Exit status: 0 if all is well, 1 if a snapshot is broken or cannot be read or written, 2 if the arguments are
//! wrong.

mod progress;
mod report;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Parser, Subcommand, ValueEnum};
use damselfly_rdb::Compression;
use damselfly_snapshot::convert::{self, Outcome, convert};
use damselfly_snapshot::inspect::{self, Report, ValueKind, find, inspect};
use damselfly_snapshot::{
    Bucket, Disk, FileRole, Files, S3Options, SHARDS_MAX, SnapshotError, Storage, is_remote, role_of,
};

use self::progress::Bar;
use crate::server_commands::info::DRAGONFLY_VERSION;

/// The word after `damselfly` that leads here.
pub const WORD: &str = "snapshot";

/// Look into snapshot files, check them, convert them. No server is needed.
///
/// A snapshot is one .rdb file, as Redis, Valkey and Dragonfly write it, or a set
/// of .dfs files: NAME-summary.dfs and NAME-0000.dfs, NAME-0001.dfs and so on, one
/// per thread of the server that wrote it. A set is named by its summary.
#[derive(Parser)]
#[command(name = "damselfly snapshot", bin_name = "damselfly snapshot", verbatim_doc_comment)]
struct Cli {
    #[command(subcommand)]
    tool: Tool,
}

#[derive(Subcommand)]
enum Tool {
    /// Read a snapshot to its last byte: say what it holds and whether it is whole
    ///
    /// Checks structure, checksum, and of a set that all its files are there and
    /// belong together. The exit status is 0 if all of it is sound, and 1 if
    /// anything is wrong with any of the files; every fault is named with its file
    /// and the offset in it.
    #[command(verbatim_doc_comment)]
    Inspect(InspectArgs),
    /// Write a snapshot again in the other format, or for another number of shards
    ///
    /// The format of OUT follows from its name: NAME.rdb is one file for Redis,
    /// Valkey and Dragonfly; NAME-summary.dfs, or NAME without an ending, is a set.
    /// Files that exist are never overwritten. The data may be larger than the
    /// memory. What cannot be converted ends the conversion, and nothing is left
    /// of it.
    #[command(verbatim_doc_comment)]
    Convert(ConvertArgs),
}

#[derive(clap::Args)]
struct InspectArgs {
    /// Files, or directories and prefixes of buckets, all of whose snapshots are inspected
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// How many of the largest keys to name
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
    #[command(flatten)]
    bucket: BucketArgs,
}

#[derive(clap::Args)]
struct ConvertArgs {
    /// The snapshot: its .rdb file, its summary, or a directory with no other snapshot in it
    #[arg(value_name = "IN")]
    from: String,
    /// What to write
    #[arg(value_name = "OUT")]
    to: String,
    /// Files with keys in a new set; by default as many as IN has, or as there are CPUs
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=SHARDS_MAX as i64))]
    shards: Option<u16>,
    /// Compression of a new set; long strings in an .rdb file always have Redis' own
    #[arg(long, value_enum, default_value_t = CompressionName::Lz4)]
    compression: CompressionName,
    /// Leave out values that Redis 7 does not have, so that it loads the file; they are counted
    #[arg(long)]
    portable: bool,
    /// Leave out values of Redis modules, which cannot be converted; they are counted
    #[arg(long)]
    skip_modules: bool,
    /// Where values go for a while that are too large for the memory; by default where OUT is, or
    /// the system's directory if that is a bucket
    #[arg(long, value_name = "DIR")]
    tmp_dir: Option<PathBuf>,
    #[command(flatten)]
    bucket: BucketArgs,
}

/// How buckets are reached. Credentials come from the environment. The server's spelling of these flags, which messages
/// name, is understood too.
#[derive(clap::Args)]
#[command(
    next_help_heading = "Buckets: s3://, gs://, az:// or https:// of Azure, credentials from the environment"
)]
struct BucketArgs {
    /// An S3 server that is not Amazon's
    #[arg(long, alias = "s3_endpoint", value_name = "HOST:PORT", default_value = "")]
    s3_endpoint: String,
    /// Whether that server is spoken to with TLS
    #[arg(long, alias = "s3_use_https", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    s3_use_https: bool,
    /// Whether contents are signed, too
    #[arg(long, alias = "s3_sign_payload", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    s3_sign_payload: bool,
    /// Ask the machine's metadata service for credentials
    #[arg(long, alias = "s3_ec2_metadata")]
    s3_ec2_metadata: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum CompressionName {
    None,
    Lz4,
    Zstd,
}

impl CompressionName {
    fn of_files(self) -> Compression {
        match self {
            CompressionName::None => Compression::None,
            CompressionName::Lz4 => Compression::Lz4,
            // The default of --compression_level.
            CompressionName::Zstd => Compression::Zstd { level: 2 },
        }
    }
}

/// Runs a tool; `args` are those after the word `snapshot`.
pub fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(std::iter::once(OsString::from("damselfly snapshot")).chain(args)) {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to the standard output and is no error; neither is somebody who does not want all of it.
            let _ = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    let result = match cli.tool {
        Tool::Inspect(args) => run_inspect(&args),
        Tool::Convert(args) => run_convert(&args),
    };
    match result {
        Ok(code) => code,
        Err(Failure::Usage(text)) => {
            eprintln!("damselfly snapshot: {text}");
            ExitCode::from(2)
        }
        Err(Failure::Snapshot(error)) => {
            eprintln!("damselfly snapshot: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Why a tool did nothing.
enum Failure {
    Usage(String),
    Snapshot(SnapshotError),
}

impl From<SnapshotError> for Failure {
    fn from(error: SnapshotError) -> Failure {
        Failure::Snapshot(error)
    }
}

/// Writes to the standard output. Whoever closes it early has seen enough.
fn print(text: &str) {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// A place, and the name of a file in it; none if all of the place is meant. In a bucket a name without an ending
/// that snapshots have is a prefix, unless it `must_name` one.
fn locate(
    path: &str,
    bucket: &BucketArgs,
    must_name: bool,
) -> Result<(Box<dyn Storage>, Option<String>), Failure> {
    if is_remote(path) {
        let split = path.rsplit_once('/').filter(|(place, name)| {
            let is_name = role_of(name) != FileRole::Other || must_name && !name.is_empty();
            // Not the slashes behind the scheme.
            is_name && !place.ends_with('/')
        });
        let (place, name) = split.map_or((path, None), |(place, name)| (place, Some(name.to_owned())));
        let options = S3Options {
            endpoint: bucket.s3_endpoint.clone(),
            use_https: bucket.s3_use_https,
            sign_payload: bucket.s3_sign_payload,
            ec2_metadata: bucket.s3_ec2_metadata,
        };
        let opened = Bucket::open(place, &options);
        let opened = opened.map_err(|error| Failure::Usage(format!("{place}: {error}")))?;
        return Ok((Box::new(opened), name));
    }
    let path = Path::new(path);
    let (place, name) = match path.file_name().and_then(|name| name.to_str()) {
        Some(name) if !path.is_dir() => (beside(path), Some(name.to_owned())),
        _ => (path, None),
    };
    Ok((Box::new(Disk::new(place)), name))
}

/// The directory of a file.
fn beside(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn run_inspect(args: &InspectArgs) -> Result<ExitCode, Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let options = inspect::Options { now_ms: now.as_millis() as u64, largest: args.top };
    let (mut reports, mut orphans): (Vec<Report>, Vec<SnapshotError>) = (Vec::new(), Vec::new());
    for path in &args.paths {
        let (store, name) = locate(path, &args.bucket, false)?;
        let names = match name {
            Some(name) => vec![name],
            None => {
                let (names, without) = find(&*store)?;
                if names.is_empty() && without.is_empty() {
                    return Err(Failure::Usage(format!("{path}: no snapshot is there")));
                }
                orphans.extend(without);
                names
            }
        };
        for name in names {
            let mut bar = Bar::new(&format!("reading {}", store.describe(&name)));
            reports.push(inspect(&*store, &name, &options, &mut |read, all| bar.show(read, all)));
        }
    }
    print(&if args.json { report::json(&reports, &orphans) } else { report::text(&reports, &orphans) });
    let whole = orphans.is_empty() && reports.iter().all(|report| report.faults.is_empty());
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_convert(args: &ConvertArgs) -> Result<ExitCode, Failure> {
    let (from, name) = locate(&args.from, &args.bucket, false)?;
    let name = match name {
        Some(name) => name,
        None => {
            let (mut names, _) = find(&*from)?;
            match (names.pop(), names.is_empty()) {
                (Some(name), true) => name,
                (None, _) => return Err(Failure::Usage(format!("{}: no snapshot is there", args.from))),
                (Some(_), false) => {
                    return Err(Failure::Usage(format!("{}: more than one snapshot; name one", args.from)));
                }
            }
        }
    };
    let (to, target) = locate(&args.to, &args.bucket, true)?;
    let target =
        target.ok_or_else(|| Failure::Usage(format!("{}: OUT is a file, not a directory", args.to)))?;
    let files = target_files(&target, || match args.shards {
        Some(shards) => usize::from(shards),
        None => default_shards(&*from, &name),
    })?;
    if args.shards.is_some() && files.shards.is_empty() {
        return Err(Failure::Usage(
            "--shards is for a set of .dfs files, and OUT is one .rdb file".to_owned(),
        ));
    }
    let options = convert::Options {
        compression: args.compression.of_files(),
        portable: args.portable,
        skip_modules: args.skip_modules,
        snapshot_id: crate::random_id()[..32].to_owned(),
        version: DRAGONFLY_VERSION.to_owned(),
        spool: args.tmp_dir.clone().unwrap_or_else(|| match is_remote(&args.to) {
            true => std::env::temp_dir(),
            false => beside(Path::new(&args.to)).to_owned(),
        }),
    };
    let outcome = {
        let mut bar = Bar::new(&format!("converting {}", from.describe(&name)));
        convert(&*from, &name, &*to, &files, &options, &mut |read, all| bar.show(read, all))?
    };
    print(&outcome_text(&to.describe(&files.main), &files, &outcome));
    Ok(ExitCode::SUCCESS)
}

/// The files that OUT stands for.
fn target_files(name: &str, shards: impl FnOnce() -> usize) -> Result<Files, Failure> {
    let base = match role_of(name) {
        FileRole::Rdb => return Ok(Files { main: name.to_owned(), shards: Vec::new() }),
        FileRole::Summary(base) => base,
        FileRole::Other if !name.contains('.') => name,
        FileRole::Shard(..) | FileRole::Other => {
            return Err(Failure::Usage(format!(
                "{name}: OUT ends in .rdb for one file, in -summary.dfs or without an ending for a set"
            )));
        }
    };
    Ok(Files {
        main: format!("{base}-summary.dfs"),
        shards: (0..shards()).map(|shard| format!("{base}-{shard:04}.dfs")).collect(),
    })
}

/// As many as the source has, or as there are CPUs. A source that cannot be opened will say so when it is converted.
fn default_shards(from: &dyn Storage, name: &str) -> usize {
    let of_source = damselfly_snapshot::Snapshot::open(from, name).map_or(0, |found| found.parts().len() - 1);
    match of_source {
        0 => std::thread::available_parallelism().map_or(1, usize::from).min(SHARDS_MAX),
        count => count,
    }
}

fn outcome_text(path: &str, files: &Files, outcome: &Outcome) -> String {
    let mut text = format!("{path}: {} keys", report::grouped(outcome.keys));
    if !files.shards.is_empty() {
        text += &format!(" in {} shards", files.shards.len());
    }
    text += &format!(", {}\n", report::size(outcome.bytes));
    for (kind, count) in &outcome.left_out {
        text += &format!("left out: {} keys of type {}\n", report::grouped(*count), ValueKind::name(*kind));
    }
    if files.shards.is_empty() && outcome.not_portable > 0 {
        let count = report::grouped(outcome.not_portable);
        text += &format!("{count} keys make Redis refuse the file; --portable leaves such out\n");
    }
    if files.shards.is_empty() && outcome.functions > 0 {
        text += &format!("Dragonfly refuses the file for its {} function libraries\n", outcome.functions);
    }
    text
}
