//! Names of snapshot files.
//!
//! A snapshot is either one file that Redis can read, or a set with one file per shard:
//!
//! ```text
//! dump-2026-01-31T06:00:00.rdb                 --df_snapshot_format=false
//!
//! dump-2026-01-31T06:00:00-summary.dfs         scripts, number of shards; no keys
//! dump-2026-01-31T06:00:00-0000.dfs            the keys of shard 0
//! dump-2026-01-31T06:00:00-0001.dfs            ...
//! ```
//!
//! What stands before `-summary.dfs` is the *base*: `--dbfilename` with its macros replaced when the save begins. A
//! name without macros is written over by each save; one with `{timestamp}` keeps all snapshots, and a start takes
//! the newest. While a file is written its name ends in `.tmp`, so that a crash leaves nothing that looks whole.
//!
//! The rules are Dragonfly's, whose directories a start must find its way in and which must find theirs in ours,
//! but for one: `%` is an ordinary character here, and not the beginning of a date format.

use std::fmt;
use std::fmt::Write as _;

/// At the end of the names of files that are being written.
pub const TMP_SUFFIX: &str = ".tmp";

/// Shards have four digits in a name; no server has more threads than this either.
pub const SHARDS_MAX: usize = 1024;

/// File systems take 255 bytes; the longest ending, `-summary.dfs.tmp`, has 16.
const BASE_LEN_MAX: usize = 255 - 16;

/// A point in time as a calendar shows it, in the zone that the caller chose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// As it is written, from 0 to 9999.
    pub year: u16,
    /// From 1 to 12.
    pub month: u8,
    /// From 1 to 31.
    pub day: u8,
    /// From 0 to 23.
    pub hour: u8,
    /// From 0 to 59.
    pub minute: u8,
    /// From 0 to 60.
    pub second: u8,
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Moment { year, month, day, hour, minute, second } = self;
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
    }
}

/// Why a `dbfilename` cannot be saved under. `CONFIG SET dbfilename` takes anything, so this comes with the save.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// Empty: saving is switched off.
    Empty,
    /// It has a `/`, or is `.` or `..`: a name would lead out of `--dir`.
    Directory,
    /// It has a NUL byte, which no file system takes.
    Nul,
    /// It has become too long with its macros replaced.
    TooLong,
    /// A set of files adds `.dfs` itself; with any other ending the next start would not find them.
    Extension,
    /// One file ends in `.rdb` or has no ending, which then is added.
    NotRdb,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NameError::Empty => "filename is not specified",
            NameError::Directory => "filename may not lead to another directory",
            NameError::Nul => "filename may not have NUL bytes",
            NameError::TooLong => "filename is too long",
            NameError::Extension => "filename may not have an extension when a file per shard is saved",
            NameError::NotRdb => "filename may only end in .rdb",
        })
    }
}

impl std::error::Error for NameError {}

/// The files of one snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The one that a start looks for. It is to be renamed last: while it is not there, the others do not count.
    pub main: String,
    /// By shard; none for a single file.
    pub shards: Vec<String>,
}

impl Files {
    /// Of these names, the shards of a larger set with the same main file, which this one has taken the place of.
    pub(crate) fn beyond<'n>(&self, names: &'n [String]) -> impl Iterator<Item = &'n String> {
        let base = match role_of(&self.main) {
            FileRole::Summary(base) => Some(base),
            _ => None,
        };
        names.iter().filter(move |name| match role_of(name) {
            FileRole::Shard(of, number) => Some(of) == base && number >= self.shards.len(),
            _ => false,
        })
    }
}

/// `{timestamp}`, `{Y}`, `{m}` and `{d}` replaced.
pub fn expand(name: &str, at: Moment) -> String {
    replace(name, |macro_name| match macro_name {
        Macro::Timestamp => at.to_string(),
        Macro::Year => format!("{:04}", at.year),
        Macro::Month => format!("{:02}", at.month),
        Macro::Day => format!("{:02}", at.day),
    })
}

/// The names of a snapshot with a file per shard.
pub fn dfs_files(dbfilename: &str, at: Moment, shards: usize) -> Result<Files, NameError> {
    assert!((1..=SHARDS_MAX).contains(&shards), "{shards} shards");
    let base = checked(expand(dbfilename, at))?;
    if extension(&base).is_some() {
        return Err(NameError::Extension);
    }
    Ok(Files {
        main: format!("{base}-summary.dfs"),
        shards: (0..shards).map(|shard| format!("{base}-{shard:04}.dfs")).collect(),
    })
}

/// The name of a snapshot in one file.
pub fn rdb_file(dbfilename: &str, at: Moment) -> Result<Files, NameError> {
    let mut base = checked(expand(dbfilename, at))?;
    match extension(&base) {
        None => base.push_str(".rdb"),
        Some("rdb") => {}
        Some(_) => return Err(NameError::NotRdb),
    }
    Ok(Files { main: base, shards: Vec::new() })
}

/// What a file is, going by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileRole<'a> {
    /// A whole snapshot.
    Rdb,
    /// The summary of the snapshot with this base.
    Summary(&'a str),
    /// One shard of the snapshot with this base.
    Shard(&'a str, usize),
    /// Something else, which may lie there: `lost+found`, a file that was being written when the power went.
    Other,
}

/// Reads a name.
pub fn role_of(name: &str) -> FileRole<'_> {
    if let Some(stem) = name.strip_suffix(".rdb") {
        return if stem.is_empty() { FileRole::Other } else { FileRole::Rdb };
    }
    let Some((base, part)) = name.strip_suffix(".dfs").and_then(|stem| stem.rsplit_once('-')) else {
        return FileRole::Other;
    };
    let is_number = part.len() == 4 && part.bytes().all(|byte| byte.is_ascii_digit());
    match part.parse() {
        _ if base.is_empty() => FileRole::Other,
        _ if part == "summary" => FileRole::Summary(base),
        Ok(shard) if is_number && shard < SHARDS_MAX => FileRole::Shard(base, shard),
        _ => FileRole::Other,
    }
}

/// An entry of the snapshot directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate<T> {
    /// Its name, without the directory.
    pub name: String,
    /// When it was last written, in anything that grows.
    pub modified: T,
}

/// The file that a start loads: the one that is called exactly as `dbfilename` says, or else the one last written of
/// those that `dbfilename` can have become. Of two that were written at once, the greater name: a timestamp in it
/// still tells them apart. None if there is none, or if `dbfilename` is empty.
pub fn newest<'a, T: Ord>(dbfilename: &str, entries: &'a [Candidate<T>]) -> Option<&'a Candidate<T>> {
    if dbfilename.is_empty() {
        return None;
    }
    let exact =
        entries.iter().find(|entry| entry.name == dbfilename && role_of(&entry.name) == FileRole::Rdb);
    let stem = dbfilename.strip_suffix(".rdb").unwrap_or(dbfilename);
    exact.or_else(|| {
        entries
            .iter()
            .filter(|entry| match role_of(&entry.name) {
                FileRole::Rdb => may_be(stem, entry.name.strip_suffix(".rdb").unwrap_or_default()),
                FileRole::Summary(base) => stem == dbfilename && may_be(stem, base),
                FileRole::Shard(..) | FileRole::Other => false,
            })
            .max_by(|one, other| (&one.modified, &one.name).cmp(&(&other.modified, &other.name)))
    })
}

/// Whether `base` is `name` with its macros replaced by anything of their width.
fn may_be(name: &str, base: &str) -> bool {
    // No timestamp has a NUL, and no file name either.
    let pattern = replace(name, |macro_name| match macro_name {
        Macro::Timestamp => "\0".repeat(19),
        Macro::Year => "\0".repeat(4),
        Macro::Month | Macro::Day => "\0".repeat(2),
    });
    let fits = |(expected, found): (u8, u8)| {
        expected == found || (expected == 0 && matches!(found, b'0'..=b'9' | b'-' | b'T' | b':'))
    };
    pattern.len() == base.len() && pattern.bytes().zip(base.bytes()).all(fits)
}

#[derive(Clone, Copy)]
enum Macro {
    Timestamp,
    Year,
    Month,
    Day,
}

const MACROS: [(&str, Macro); 4] =
    [("{timestamp}", Macro::Timestamp), ("{Y}", Macro::Year), ("{m}", Macro::Month), ("{d}", Macro::Day)];

fn replace(name: &str, value: impl Fn(Macro) -> String) -> String {
    let mut replaced = String::with_capacity(name.len() + 16);
    let mut rest = name;
    while let Some(at) = rest.find('{') {
        replaced.push_str(&rest[..at]);
        rest = &rest[at..];
        match MACROS.iter().find_map(|(text, found)| Some((rest.strip_prefix(text)?, *found))) {
            Some((behind, found)) => {
                replaced.push_str(&value(found));
                rest = behind;
            }
            None => {
                replaced.push('{');
                rest = &rest[1..];
            }
        }
    }
    write!(replaced, "{rest}").expect("strings take all");
    replaced
}

fn checked(base: String) -> Result<String, NameError> {
    match base.as_str() {
        "" => Err(NameError::Empty),
        "." | ".." => Err(NameError::Directory),
        name if name.contains('/') => Err(NameError::Directory),
        name if name.contains('\0') => Err(NameError::Nul),
        name if name.len() > BASE_LEN_MAX => Err(NameError::TooLong),
        _ => Ok(base),
    }
}

/// What stands behind the last dot, unless the name begins with that dot.
fn extension(name: &str) -> Option<&str> {
    name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty()).map(|(_, extension)| extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Moment = Moment { year: 2026, month: 1, day: 31, hour: 6, minute: 0, second: 9 };

    /// Macros are replaced wherever they stand; other braces and per cent signs are letters.
    #[test]
    fn macros() {
        for (name, expanded) in [
            ("dump-{timestamp}", "dump-2026-01-31T06:00:09"),
            ("{Y}{m}{d}", "20260131"),
            ("{d}.{d}", "31.31"),
            ("dump", "dump"),
            ("{", "{"),
            ("{y}{{Y}}", "{y}{2026}"),
            ("%Y-{m", "%Y-{m"),
            ("\u{e9}{d}\u{e9}", "\u{e9}31\u{e9}"),
        ] {
            assert_eq!(expand(name, AT), expanded);
        }
    }

    /// The default name gives the names that Dragonfly gives.
    #[test]
    fn names() {
        let files = dfs_files("dump-{timestamp}", AT, 2).expect("a good name");
        assert_eq!(files.main, "dump-2026-01-31T06:00:09-summary.dfs");
        assert_eq!(files.shards, ["dump-2026-01-31T06:00:09-0000.dfs", "dump-2026-01-31T06:00:09-0001.dfs"]);
        assert_eq!(rdb_file("dump", AT).expect("a good name").main, "dump.rdb");
        assert_eq!(rdb_file("dump.rdb", AT).expect("a good name").main, "dump.rdb");
        assert_eq!(dfs_files("d", AT, SHARDS_MAX).expect("a good name").shards[1023], "d-1023.dfs");
    }

    /// What would lie elsewhere, or never be found again, is refused.
    #[test]
    fn bad_names() {
        let dfs = |name: &str| dfs_files(name, AT, 1).expect_err(name);
        let rdb = |name: &str| rdb_file(name, AT).expect_err(name);
        for bad in [dfs, rdb] {
            assert_eq!(bad(""), NameError::Empty);
            assert_eq!(bad("../dump"), NameError::Directory);
            assert_eq!(bad("/dump"), NameError::Directory);
            assert_eq!(bad(".."), NameError::Directory);
            assert_eq!(bad("a\0b"), NameError::Nul);
            assert_eq!(bad(&"x".repeat(240)), NameError::TooLong);
        }
        assert_eq!(dfs("dump.rdb"), NameError::Extension);
        assert_eq!(dfs("dump.{Y}"), NameError::Extension);
        assert_eq!(rdb("dump.dfs"), NameError::NotRdb);
    }

    /// Names are read back as what they were made for, and nothing else is taken for a snapshot.
    #[test]
    fn roles() {
        let files = dfs_files("a-b", AT, 12).expect("a good name");
        assert_eq!(role_of(&files.main), FileRole::Summary("a-b"));
        for (number, shard) in files.shards.iter().enumerate() {
            assert_eq!(role_of(shard), FileRole::Shard("a-b", number));
        }
        assert_eq!(role_of("dump.rdb"), FileRole::Rdb);
        for other in [
            "",
            ".rdb",
            "dump",
            "lost+found",
            "dump.rdb.tmp",
            "dump-summary.dfs.tmp",
            "-summary.dfs",
            "dump.dfs",
            "dump-00001.dfs",
            "dump-001.dfs",
            "dump-+001.dfs",
            "dump-1024.dfs",
            "dump-abcd.dfs",
            "summary.dfs",
        ] {
            assert_eq!(role_of(other), FileRole::Other, "{other}");
        }
    }

    fn entries(names: &[(&str, u64)]) -> Vec<Candidate<u64>> {
        names
            .iter()
            .map(|(name, modified)| Candidate { name: (*name).to_owned(), modified: *modified })
            .collect()
    }

    /// The newest of those that the pattern can have made, whichever format it has.
    #[test]
    fn start_takes_the_newest() {
        let found = entries(&[
            ("dump-2026-01-31T06:00:00-summary.dfs", 10),
            ("dump-2026-01-31T06:00:00-0000.dfs", 99),
            ("dump-2026-01-30T06:00:00.rdb", 20),
            ("dump-2026-02-31T06:00:00-summary.dfs.tmp", 99),
            ("other-2026-01-31T06:00:00-summary.dfs", 99),
            ("lost+found", 99),
        ]);
        let chosen = |name: &str| newest(name, &found).map(|entry| entry.name.as_str());
        assert_eq!(chosen("dump-{timestamp}"), Some("dump-2026-01-30T06:00:00.rdb"));
        assert_eq!(chosen("dump-{Y}-{m}-{d}T06:00:00"), Some("dump-2026-01-30T06:00:00.rdb"));
        assert_eq!(chosen("other-{timestamp}"), Some("other-2026-01-31T06:00:00-summary.dfs"));
        assert_eq!(chosen("dump"), None);
        assert_eq!(chosen(""), None);
        assert_eq!(chosen("dump-2026-01-31T06:00:00"), Some("dump-2026-01-31T06:00:00-summary.dfs"));
    }

    /// An exact name wins over newer ones, equal times are decided by the name, an `.rdb` name means that format.
    #[test]
    fn ties_and_exact_names() {
        let found =
            entries(&[("dump.rdb", 1), ("dump-summary.dfs", 2), ("20260130.rdb", 5), ("20260131.rdb", 5)]);
        let chosen = |name: &str| newest(name, &found).map(|entry| entry.name.as_str());
        assert_eq!(chosen("dump.rdb"), Some("dump.rdb"));
        assert_eq!(chosen("dump"), Some("dump-summary.dfs"));
        assert_eq!(chosen("{Y}{m}{d}"), Some("20260131.rdb"));
        assert_eq!(chosen("{Y}{m}{d}.rdb"), Some("20260131.rdb"));
    }
}
