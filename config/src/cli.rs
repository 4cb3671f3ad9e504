//! The grammar of flags, and everywhere they come from.
//!
//! Manifests in the field are written for a server whose flags follow gflags, which clap does not speak:
//! `--notls`, one dash, a bare switch that takes no value, `--flagfile`, the last one wins. So the sources
//! are first normalised to one list of `--name=value`; clap then types it, fills in the defaults, and writes
//! the help.
//!
//! Order: the environment comes first and only for flags that the command line does not set, flag files stand
//! where they were named. Errors name where the value came from, because in a pod that is rarely the command
//! line. Next: start.rs makes a [`Config`] of the values.

use std::error::Error as _;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue};
use clap::parser::ValueSource;

use crate::help;
use crate::rows::ROWS;
use crate::start::{Config, Given};
use crate::table::{self, Effect, row};
use crate::value::{Kind, Value};

/// A flag file may name others, this deep.
const FLAGFILE_DEPTH_MAX: usize = 8;
/// And there may be this many altogether: eight levels of two files each are already 510.
const FLAGFILES_MAX: usize = 64;
/// A flag file is written by hand.
const FLAGFILE_LEN_MAX: usize = 1 << 20;
/// How many names an error about an unknown flag suggests.
const SUGGESTIONS_MAX: usize = 3;
/// Names are compared up to this length; the longest known has 42 letters.
const COMPARED_LEN_MAX: usize = 64;
/// What variables that set flags begin with.
const ENV_PREFIX: &str = "DFLY_";

/// What to do, and with what.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The typed flags. With an action other than [`Action::Run`], those of a bare start.
    pub config: Config,
    /// To be logged, one line each.
    pub warnings: Vec<String>,
    /// What was asked for.
    pub action: Action,
}

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Start the server.
    Run,
    /// Print this to standard output and exit with status 0.
    PrintHelp(String),
    /// Print this to standard output and exit with status 0.
    PrintVersion(String),
}

/// Where a flag was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// On the command line.
    CommandLine,
    /// In a flag file, in this line.
    FlagFile(PathBuf, usize),
    /// By this environment variable.
    Environment(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::CommandLine => f.write_str("command line"),
            Origin::FlagFile(path, line) => write!(f, "{}:{line}", path.display()),
            Origin::Environment(variable) => write!(f, "environment variable {variable}"),
        }
    }
}

/// A flag that is not in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownFlag {
    /// As it was written, without dashes before it and value behind.
    pub name: String,
    /// Where.
    pub origin: Origin,
    /// Known names that look like it, best first; perhaps none.
    pub nearest: Vec<&'static str>,
}

/// Why the server does not start. The caller prints it and exits with status 1.
#[derive(Debug)]
pub enum ConfigError {
    /// Flags that nobody knows; never empty.
    Unknown(Vec<UnknownFlag>),
    /// An argument that is no flag, and the switch before it, if its value this was meant to be.
    Positional(String, Option<&'static str>),
    /// A flag that needs a value and has none.
    MissingValue(&'static str, Origin),
    /// A value that the flag does not take.
    BadValue {
        /// The row's name.
        flag: &'static str,
        /// As it was written; not that of a password.
        value: String,
        /// Where.
        origin: Origin,
        /// What would be right.
        why: String,
    },
    /// A line of a flag file that is no flag, or a flag file where none may be.
    FlagFile(Origin, String),
    /// A flag file that cannot be read.
    Io(PathBuf, io::Error),
    /// The argument or variable at fault is not UTF-8.
    NotUtf8(String),
    /// Values that are fine by themselves and not together.
    Refused(String),
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::Unknown(flags) => {
                for (index, flag) in flags.iter().enumerate() {
                    if index > 0 {
                        writeln!(f)?;
                    }
                    write!(f, "unknown flag --{} ({})", flag.name, flag.origin)?;
                    for (index, near) in flag.nearest.iter().enumerate() {
                        write!(f, "{}--{near}", if index == 0 { "; nearest: " } else { ", " })?;
                    }
                }
                Ok(())
            }
            ConfigError::Positional(text, None) => {
                write!(f, "'{text}' is not a flag, and positional arguments are not supported")
            }
            ConfigError::Positional(text, Some(switch)) => write!(
                f,
                "'{text}' is not a flag, and positional arguments are not supported; \
                 a switch takes its value as --{switch}={text}"
            ),
            ConfigError::MissingValue(flag, origin) => write!(f, "--{flag} needs a value ({origin})"),
            ConfigError::BadValue { flag, value, origin, why } => match origin {
                Origin::CommandLine => write!(f, "--{flag}={value}: {why}"),
                Origin::Environment(variable) => write!(f, "environment variable {variable}={value}: {why}"),
                origin => write!(f, "--{flag}={value} ({origin}): {why}"),
            },
            ConfigError::FlagFile(origin, why) => write!(f, "flag file, {origin}: {why}"),
            ConfigError::Io(path, error) => write!(f, "flag file {}: {error}", path.display()),
            ConfigError::NotUtf8(what) => write!(f, "{what} is not UTF-8"),
            ConfigError::Refused(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ConfigError::Io(_, error) => Some(error),
            _ => None,
        }
    }
}

/// One flag, set once.
struct Setting {
    row: usize,
    value: String,
    origin: Origin,
}

type ReadFile<'a> = &'a dyn Fn(&Path) -> io::Result<String>;

impl Config {
    /// Reads the command line, the flag files it names through `read_file`, and the environment.
    ///
    /// `args` begins with the program's name, as [`std::env::args_os`] does.
    pub fn from_args(
        args: impl Iterator<Item = OsString>,
        env: impl Iterator<Item = (OsString, OsString)>,
        read_file: &dyn Fn(&Path) -> io::Result<String>,
    ) -> Result<Parsed, ConfigError> {
        let mut scan = Scan::default();
        let mut words = Vec::new();
        for (index, arg) in args.skip(1).enumerate() {
            let word =
                arg.into_string().map_err(|_| ConfigError::NotUtf8(format!("argument {}", index + 1)))?;
            words.push(word);
        }
        let scanned = scan.words(words, read_file);
        // Help is for those whose command line is wrong.
        if let Some(action) = scan.action() {
            let none = given(&[])?;
            return Ok(Parsed {
                config: Config::build(none, &mut Vec::new())?,
                warnings: Vec::new(),
                action,
            });
        }
        scanned?;
        scan.environment(env, read_file)?;
        let mut warnings = scan.finish_unknown()?;
        warnings.append(&mut scan.warnings);
        let given = given(&scan.settings)?;
        warn_without_effect(&given, &mut warnings);
        let config = Config::build(given, &mut warnings)?;
        Ok(Parsed { config, warnings, action: Action::Run })
    }
}

/// What the sources said, before any value is understood.
#[derive(Default)]
struct Scan {
    settings: Vec<Setting>,
    unknown: Vec<(String, Origin)>,
    warnings: Vec<String>,
    files_read: usize,
}

impl Scan {
    /// The command line.
    fn words(&mut self, words: Vec<String>, read_file: ReadFile<'_>) -> Result<(), ConfigError> {
        let mut words = words.into_iter().peekable();
        let mut switch_before = None;
        let mut unknown_before = false;
        while let Some(word) = words.next() {
            if word == "--" {
                return words.next().map_or(Ok(()), |word| Err(ConfigError::Positional(word, None)));
            }
            let Some(flag) = flag_text(&word) else {
                if std::mem::take(&mut unknown_before) {
                    // Its value, we suppose; what is wrong is the flag, and that is reported.
                    continue;
                }
                return Err(ConfigError::Positional(word, switch_before));
            };
            switch_before = None;
            unknown_before = false;
            match meaning(flag) {
                Meaning::Value(row, value) => {
                    self.add(row, value.into(), Origin::CommandLine, read_file, 0)?
                }
                Meaning::Switch(row, on) => {
                    switch_before = on.then_some(ROWS[row].name);
                    self.add(row, on.to_string(), Origin::CommandLine, read_file, 0)?;
                }
                Meaning::NeedsValue(row) => match words.next_if(|next| !is_known_flag(next)) {
                    Some(value) => self.add(row, value, Origin::CommandLine, read_file, 0)?,
                    None => return Err(ConfigError::MissingValue(ROWS[row].name, Origin::CommandLine)),
                },
                Meaning::Unknown(name) => {
                    unknown_before = !flag.contains('=');
                    self.unknown.push((name.into(), Origin::CommandLine));
                }
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        row: usize,
        value: String,
        origin: Origin,
        read_file: ReadFile<'_>,
        depth: usize,
    ) -> Result<(), ConfigError> {
        if row == const { table::row("flagfile") } {
            for path in value.split(',').map(str::trim).filter(|path| !path.is_empty()) {
                self.flag_file(Path::new(path), &origin, read_file, depth)?;
            }
        }
        self.settings.push(Setting { row, value, origin });
        Ok(())
    }

    /// One flag per line, `--name=value`, `--name value`, or a switch; `#` begins a comment line. Values are
    /// taken to the end of the line as they are: nothing is unquoted.
    fn flag_file(
        &mut self,
        path: &Path,
        named_by: &Origin,
        read_file: ReadFile<'_>,
        depth: usize,
    ) -> Result<(), ConfigError> {
        self.files_read += 1;
        if depth >= FLAGFILE_DEPTH_MAX || self.files_read > FLAGFILES_MAX {
            let why = format!("{} is one flag file too many; do they name each other?", path.display());
            return Err(ConfigError::FlagFile(named_by.clone(), why));
        }
        let text = read_file(path).map_err(|error| ConfigError::Io(path.into(), error))?;
        if text.len() > FLAGFILE_LEN_MAX {
            let why = format!("{} is longer than {FLAGFILE_LEN_MAX} bytes", path.display());
            return Err(ConfigError::FlagFile(named_by.clone(), why));
        }
        for (index, line) in text.lines().enumerate() {
            let origin = Origin::FlagFile(path.into(), index + 1);
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some(flag) = flag_text(line) else {
                return Err(ConfigError::FlagFile(origin, format!("'{line}' is not a flag")));
            };
            // The name ends at the first space, unless there is an equals sign before.
            let (name, value) = match flag.find(|c: char| c == '=' || c.is_whitespace()) {
                Some(end) if !flag[end..].starts_with('=') => (&flag[..end], Some(flag[end..].trim_start())),
                _ => (flag, None),
            };
            match (meaning(name), value) {
                (Meaning::Value(row, value), _) => {
                    self.add(row, value.into(), origin, read_file, depth + 1)?
                }
                (Meaning::NeedsValue(row) | Meaning::Switch(row, true), Some(value)) => {
                    self.add(row, value.into(), origin, read_file, depth + 1)?;
                }
                (Meaning::Switch(row, on), None) => {
                    self.add(row, on.to_string(), origin, read_file, depth + 1)?
                }
                (Meaning::Switch(..), Some(_)) => {
                    return Err(ConfigError::FlagFile(origin, format!("--{name} takes no value")));
                }
                (Meaning::NeedsValue(row), None) => {
                    return Err(ConfigError::MissingValue(ROWS[row].name, origin));
                }
                (Meaning::Unknown(name), _) => self.unknown.push((name.into(), origin)),
            }
        }
        Ok(())
    }

    /// `DFLY_name=value`. Kubernetes tells every pod about every Service of its namespace in variables too,
    /// and those of a Service called `dfly-...` begin alike: what is not a flag is mentioned and passed over.
    fn environment(
        &mut self,
        env: impl Iterator<Item = (OsString, OsString)>,
        read_file: ReadFile<'_>,
    ) -> Result<(), ConfigError> {
        let mut variables: Vec<(String, OsString)> = env
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, _)| name.starts_with(ENV_PREFIX) && name != "DFLY_DEV_ENV")
            .collect();
        variables.sort();
        let mut links = Vec::new();
        let on_command_line: Vec<usize> = self.settings.iter().map(|setting| setting.row).collect();
        let from_command_line = std::mem::take(&mut self.settings);
        for (variable, value) in variables {
            let name = &variable[ENV_PREFIX.len()..];
            let Some(entry) = table::find(name, false) else {
                if variable == "DFLY_PASSWORD" {
                    let why = "DFLY_PASSWORD is no longer read, and starting without a password is not what \
                               it asks for; use DFLY_requirepass";
                    return Err(ConfigError::Refused(why.into()));
                }
                if is_service_link(name) {
                    links.push(variable);
                } else {
                    self.warnings
                        .push(format!("environment variable {variable} sets no known flag; ignored"));
                }
                continue;
            };
            if on_command_line.contains(&entry.row) {
                continue;
            }
            let value = value.into_string();
            let value =
                value.map_err(|_| ConfigError::NotUtf8(format!("environment variable {variable}")))?;
            self.add(entry.row, value, Origin::Environment(variable), read_file, 0)?;
        }
        if !links.is_empty() {
            self.warnings.push(format!("ignored variables that describe Services: {}", links.join(", ")));
        }
        self.settings.extend(from_command_line);
        Ok(())
    }

    /// Help or version, if a switch for it is on.
    fn action(&self) -> Option<Action> {
        let on = |row: usize| {
            let setting = self.settings.iter().rev().find(|setting| setting.row == row);
            setting.is_some_and(|setting| {
                ROWS[row].kind.parse(&setting.value, crate::Units::Flag) == Ok(Value::Bool(true))
            })
        };
        if on(const { row("version") }) {
            Some(Action::PrintVersion(help::version()))
        } else if on(const { row("helpfull") }) {
            Some(Action::PrintHelp(help::command(true).render_help().to_string()))
        } else if on(const { row("help") }) {
            Some(Action::PrintHelp(help::command(false).render_help().to_string()))
        } else {
            None
        }
    }

    /// Refuses unknown flags, but for those that `--undefok` lists, wherever it stands; those become
    /// warnings.
    fn finish_unknown(&mut self) -> Result<Vec<String>, ConfigError> {
        let lists = self.settings.iter().filter(|setting| setting.row == const { row("undefok") });
        let tolerated: Vec<String> = lists
            .flat_map(|setting| setting.value.split(','))
            .map(|name| table::normal(name.trim()))
            .collect();
        let is_tolerated = |name: &str| {
            let name = table::normal(name);
            let positive = name.strip_prefix("no").map(str::to_owned);
            tolerated.contains(&name) || positive.is_some_and(|name| tolerated.contains(&name))
        };
        let (passed, refused): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.unknown).into_iter().partition(|(name, _)| is_tolerated(name));
        if refused.is_empty() {
            let warning = |(name, _)| format!("--{name} is unknown and tolerated, as --undefok lists it");
            return Ok(passed.into_iter().map(warning).collect());
        }
        let describe = |(name, origin): (String, Origin)| {
            let nearest = nearest(&name);
            UnknownFlag { name, origin, nearest }
        };
        Err(ConfigError::Unknown(refused.into_iter().map(describe).collect()))
    }
}

/// What follows the dashes, one or two. `None` for what is no flag, also for a lone dash.
fn flag_text(word: &str) -> Option<&str> {
    let text = word.strip_prefix("--").or_else(|| word.strip_prefix('-'))?;
    (!text.is_empty() && !text.starts_with('-')).then_some(text)
}

/// What a flag without its dashes says.
enum Meaning<'a> {
    /// `name=value`
    Value(usize, &'a str),
    /// `name` or `noname` of a switch.
    Switch(usize, bool),
    /// `name` of a flag that is no switch.
    NeedsValue(usize),
    /// No row has this name.
    Unknown(&'a str),
}

fn meaning(flag: &str) -> Meaning<'_> {
    let (name, value) = match flag.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (flag, None),
    };
    // `-h` is a habit; no row could have that name.
    let name = if name == "h" { "help" } else { name };
    // The whole name first: --no_tls_on_admin_port is no negation.
    if let Some(entry) = table::find(name, false) {
        return match value {
            Some(value) => Meaning::Value(entry.row, value),
            None if entry.row().kind.is_switch() => Meaning::Switch(entry.row, true),
            None => Meaning::NeedsValue(entry.row),
        };
    }
    let negated = name.strip_prefix("no").and_then(|name| table::find(name, false));
    match negated.filter(|entry| entry.row().kind.is_switch() && value.is_none()) {
        Some(entry) => Meaning::Switch(entry.row, false),
        None => Meaning::Unknown(name),
    }
}

/// A flag that lacks its value would swallow the next one: `--dir --port=1`. A known flag is never taken for
/// a value; `-1` is no flag.
fn is_known_flag(word: &str) -> bool {
    flag_text(word).is_some_and(|flag| !matches!(meaning(flag), Meaning::Unknown(_)))
}

/// `X_SERVICE_HOST`, `X_SERVICE_PORT[_NAME]`, `X_PORT`, `X_PORT_6379_TCP[_PROTO|_PORT|_ADDR]`, all upper
/// case; `X_` is absent for a Service called `dfly`.
fn is_service_link(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    let has = |part: &str| name.contains(&format!("_{part}")) || name.starts_with(part);
    name.bytes().all(legal) && (has("SERVICE_HOST") || has("SERVICE_PORT") || has("PORT"))
}

/// Lets clap type the values and fill in the defaults.
fn given(settings: &[Setting]) -> Result<Given, ConfigError> {
    let argv = settings.iter().map(|setting| format!("--{}={}", ROWS[setting.row].name, setting.value));
    let argv = std::iter::once("damselfly".to_owned()).chain(argv);
    let matches =
        help::command(false).try_get_matches_from(argv).map_err(|error| explain(&error, settings))?;
    let values = |index: usize| {
        let values = matches.get_many::<Value>(ROWS[index].name).expect("every row has a default");
        values.cloned().collect::<Vec<Value>>()
    };
    let is_set = |index: usize| matches.value_source(ROWS[index].name) == Some(ValueSource::CommandLine);
    let last = |index: usize| values(index).pop().expect("a row has a value");
    Ok(Given {
        last: (0..ROWS.len()).map(last).collect(),
        set: (0..ROWS.len()).map(is_set).collect(),
        admin_ports: values(const { row("admin_port") }),
    })
}

/// The one error clap can find in normalised arguments, a bad value, with the place it came from.
fn explain(error: &clap::Error, settings: &[Setting]) -> ConfigError {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "",
    };
    let (arg, value) = (context(ContextKind::InvalidArg), context(ContextKind::InvalidValue));
    let culprit = settings.iter().find(|setting| {
        let name = ROWS[setting.row].name;
        let of_arg = arg.strip_prefix("--").and_then(|arg| arg.strip_prefix(name));
        of_arg.is_some_and(|rest| rest.starts_with('=')) && setting.value == value
    });
    let culprit =
        culprit.unwrap_or_else(|| panic!("normalised arguments are well-formed, but clap says: {error}"));
    let row = &ROWS[culprit.row];
    let secret = matches!(row.kind, Kind::Secret);
    ConfigError::BadValue {
        flag: row.name,
        value: if secret { "...".into() } else { culprit.value.clone() },
        origin: culprit.origin.clone(),
        why: error.source().map(ToString::to_string).unwrap_or_default(),
    }
}

fn warn_without_effect(given: &Given, warnings: &mut Vec<String>) {
    for (index, row) in ROWS.iter().enumerate().filter(|(index, _)| given.set[*index]) {
        match row.effect {
            Effect::Used => {}
            Effect::NotYet => {
                let value = row.kind.print(&given.last[index]);
                // An empty text, or what holds anyway, asks for nothing.
                if !value.is_empty() && value != row.default {
                    warnings.push(format!("--{} has no effect in this version", row.name));
                }
            }
            Effect::Ignored => {
                warnings.push(format!("--{} is accepted for compatibility and has no effect", row.name));
            }
            Effect::Always => {
                let value = row.kind.print(&given.last[index]);
                if value != row.default {
                    let always = format!("the server always behaves as --{}={}", row.name, row.default);
                    warnings.push(format!("--{}={value} is accepted for compatibility; {always}", row.name));
                }
            }
        }
    }
}

/// Known names that `name` may be a slip of, best first, those with an effect before those without.
///
/// A name of which this is a part is near as well: people write `threads` for `proactor_threads`.
fn nearest(name: &str) -> Vec<&'static str> {
    let name = table::normal(name).to_ascii_lowercase();
    if name.len() > COMPARED_LEN_MAX {
        return Vec::new();
    }
    let far = (name.len() / 3).max(1);
    let part = format!("_{name}_");
    let mut candidates: Vec<(usize, bool, &'static str)> = table::entries()
        .filter_map(|entry| {
            let known = entry.name.to_ascii_lowercase();
            let is_part = format!("_{known}_").contains(&part);
            let distance = match name.strip_prefix("no") {
                Some(positive) if positive == known => 0,
                _ => distance(name.as_bytes(), known.as_bytes()).min(if is_part { 1 } else { usize::MAX }),
            };
            (distance <= far).then_some((distance, entry.row().effect != Effect::Used, entry.name))
        })
        .collect();
    candidates.sort();
    candidates.truncate(SUGGESTIONS_MAX);
    candidates.into_iter().map(|(_, _, name)| name).collect()
}

/// How many letters to insert, drop, change or swap with their neighbour to make `a` of `b`.
fn distance(a: &[u8], b: &[u8]) -> usize {
    // Three rows of the usual matrix: the one being filled and the two above, the upper for swaps.
    let mut upper = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut current = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let change = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            current[j] = change.min(above[j] + 1).min(current[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                current[j] = current[j].min(upper[j - 2] + 1);
            }
        }
        upper = std::mem::replace(&mut above, current);
    }
    above[b.len()]
}
