//! `compare`: our server against redis-server, as a table of ratios. See docs/benchmarks.md.

use clap::Parser;
use damselfly_benches::drive::Setting;
use damselfly_benches::report::{self, Circumstances};
use damselfly_benches::rows::{Bound, SCENARIOS, Sizes};
use damselfly_benches::run::{Outcome, Plan, Progress, Verdict};
use damselfly_benches::server::{Contestant, split_words};
use damselfly_benches::{benchmark, sys};
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Compares damselfly with Redis: CPU time per operation, memory, longest reply times.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// Our server. A program called redis-server or valkey-server is given Redis' flags instead of ours
    #[arg(long, value_name = "PATH", default_value = "target/release/damselfly")]
    ours: String,
    /// More arguments for our server; {port}, {threads} and {dir} are filled in
    #[arg(long, value_name = "ARGUMENTS", default_value = "", allow_hyphen_values = true)]
    ours_args: String,
    /// The server that is the yardstick
    #[arg(long, value_name = "PATH", default_value = "redis-server")]
    redis: String,
    /// The load generator that comes with Redis
    #[arg(long, value_name = "PATH", default_value = "redis-benchmark")]
    redis_benchmark: String,
    /// One more server, as "name=command line"; {port}, {threads} and {dir} are filled in. May be repeated
    #[arg(long, value_name = "NAME=COMMAND", value_parser = Contestant::parse)]
    also: Vec<Contestant>,
    /// Only rows whose name or figure contains this, in any case; alternatives are separated by |
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Rounds for every row, instead of each row's own number
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// A hundredth of all sizes and one round: shows that everything works, measures nothing
    #[arg(long)]
    quick: bool,
    /// Print Markdown, with circumstances and command lines
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
    /// Print JSON, with every round's values
    #[arg(long)]
    json: bool,
    /// Also write the Markdown between the two markers of this file
    #[arg(long, value_name = "FILE")]
    update: Option<PathBuf>,
    /// End with an error if a row misses what it must be
    #[arg(long)]
    check: bool,
    /// Print rows with what they must be, and run nothing
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    match compare(Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("compare: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether every row ran and, if asked, kept its promise.
fn compare(options: Options) -> Result<bool, String> {
    let mut others = vec![Contestant::ours(&options.ours, &split_words(&options.ours_args)?)];
    others.extend(options.also);
    let parts = options.only.iter().flat_map(|only| only.split('|'));
    let plan = Plan {
        reference: Contestant::redis("redis", &options.redis),
        others,
        only: parts.map(|part| part.trim().to_lowercase()).filter(|part| !part.is_empty()).collect(),
        rounds: options.rounds.or(options.quick.then_some(1)),
        setting: Setting { redis_benchmark: options.redis_benchmark, sizes: Sizes { quick: options.quick } },
    };
    if options.list {
        print(&list(&plan))?;
        return Ok(true);
    }
    // What can be known now should not be found out after half an hour.
    benchmark::version(&plan.setting.redis_benchmark)?;
    for contestant in std::iter::once(&plan.reference).chain(&plan.others) {
        contestant.check_program()?;
    }
    if let Some(path) = &options.update {
        let document = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        report::replace_between_markers(&document, "")
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    sys::raise_open_files().map_err(|error| format!("cannot raise the limit of open files: {error}"))?;

    let quick = options.quick;
    let outcomes = plan.run(&mut |progress| match progress {
        Progress::Round { name, who, round, rounds } => {
            eprintln!("  {name}: {who}, round {round} of {rounds}")
        }
        Progress::Row(outcome) => eprintln!("{}", report::line(outcome, quick)),
    });
    if outcomes.is_empty() {
        return Err("no row has that in its name; --list shows all".to_owned());
    }
    let circumstances = Circumstances::gather(&plan, &invocation());
    let printed = match (options.markdown, options.json) {
        (true, _) => report::markdown(&plan, &circumstances, &outcomes),
        (_, true) => report::json(&plan, &circumstances, &outcomes),
        _ => report::text(&plan, &circumstances, &outcomes),
    };
    print(&printed)?;
    if let Some(path) = &options.update {
        let part = report::markdown(&plan, &circumstances, &outcomes);
        let updated = fs::read_to_string(path)
            .map_err(|error| error.to_string())
            .and_then(|document| report::replace_between_markers(&document, &part))
            .and_then(|document| fs::write(path, document).map_err(|error| error.to_string()));
        updated.map_err(|error| format!("{}: {error}", path.display()))?;
    }
    let missed = |outcome: &Outcome| outcome.verdict() == Some(Verdict::Misses);
    Ok(!outcomes.iter().any(|outcome| outcome.broken() || (options.check && missed(outcome))))
}

/// To standard output; whoever closed it early (`| head`) gets an error and not a panic.
fn print(text: &str) -> Result<(), String> {
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| format!("standard output: {error}"))
}

fn list(plan: &Plan) -> String {
    let rows = SCENARIOS.iter().flat_map(|scenario| scenario.rows).filter(|row| plan.wants(row));
    let lines = rows.map(|row| {
        let must = match row.must {
            None => "no promise".to_owned(),
            Some(Bound::Ratio(limit)) => format!("<= {limit:.2} of redis"),
            Some(Bound::Value(limit)) => format!("<= {}", row.metric.show(limit)),
        };
        format!("{:<42} {:<28} {must}\n", row.name, row.metric.title())
    });
    lines.collect()
}

/// The command line as it was given, for the report. Only the program's own directory is dropped.
fn invocation() -> String {
    let words =
        std::env::args().skip(1).map(|word| if word.contains(' ') { format!("'{word}'") } else { word });
    format!("`compare {}`", words.collect::<Vec<_>>().join(" ")).replace(" `", "`")
}
