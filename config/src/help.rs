//! The table as a `clap` command: typed values, defaults, `--help`, and the version line.

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, Command};

use crate::rows::ROWS;
use crate::table::{Effect, Row};
use crate::value::{Kind, Units, Value};

/// What `--help` says before the flags.
const ABOUT: &str = "A cache server that speaks Redis' protocol.\n\n\
    Flags are given as --name=value or --name value; a switch as --name or --noname. Dashes and underscores are\n\
    the same. The last one wins. DFLY_name=value in the environment sets a flag that the command line does not.\n\n\
    `damselfly snapshot --help` is about tools for snapshot files.";

/// The command. It is handed arguments of the form `--name=value` alone; cli.rs makes them so.
///
/// `full` also shows the flags without effect.
pub(crate) fn command(full: bool) -> Command {
    let command = Command::new("damselfly")
        .about(ABOUT)
        .override_usage("damselfly [--flag=value ...]")
        .disable_help_flag(true)
        .disable_version_flag(true)
        .next_line_help(true)
        .args(ROWS.iter().map(|row| arg(row, full)));
    if full {
        command
    } else {
        command.after_help("--helpfull shows the flags that are accepted without effect.")
    }
}

fn arg(row: &'static Row, full: bool) -> Arg {
    let kind = row.kind;
    let help = match row.effect {
        Effect::Used => row.help,
        Effect::NotYet => "Accepted, without effect in this version.",
        Effect::Always => "Always as the default says; accepted for compatibility.",
        Effect::Ignored => "Accepted for compatibility, without effect.",
    };
    Arg::new(row.name)
        .long(row.name)
        .value_name(kind.placeholder())
        .help(help)
        .help_heading(row.area.title())
        .hide(row.effect != Effect::Used && !full)
        .hide_default_value(row.default.is_empty())
        .default_value(row.default)
        .require_equals(true)
        .allow_hyphen_values(true)
        .action(ArgAction::Append)
        .value_parser(parser(kind))
}

fn parser(kind: Kind) -> ValueParser {
    ValueParser::new(move |text: &str| -> Result<Value, String> { kind.parse(text, Units::Flag) })
}

/// What `--version` prints: name and version with the commit, then how it was built.
///
/// The commit is what `DAMSELFLY_GIT_SHA` held when this was compiled; a build from a release tarball has
/// none.
pub fn version() -> String {
    let commit = option_env!("DAMSELFLY_GIT_SHA").unwrap_or("release");
    let profile = if cfg!(debug_assertions) { "with assertions for debugging" } else { "optimised" };
    format!(
        "damselfly v{}-{commit}\nbuilt for {} on {}, {profile}\n",
        env!("CARGO_PKG_VERSION"),
        std::env::consts::OS,
        std::env::consts::ARCH,
    )
}
