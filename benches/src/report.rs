//! Tables: for a terminal, for docs/benchmarks.md, and JSON for machines.
//!
//! The ratio comes first everywhere. Absolute figures stand at the end of a line, so that a reader can see what was
//! divided, and must not be compared with those of another machine.

use crate::drive::Setting;
use crate::rows::Bound;
use crate::run::{Cell, Outcome, Plan, Spread, Verdict};
use crate::server::Contestant;
use crate::{Failure, benchmark};
use std::fmt::Write;
use std::fs;
use std::process::Command;

/// What `--update` replaces lies between these two lines of the file.
pub const BEGIN: &str = "<!-- compare: begin -->";
/// The second of them.
pub const END: &str = "<!-- compare: end -->";

/// Where and with what a run was made.
pub struct Circumstances {
    /// Lines "what: value".
    pub lines: Vec<(String, String)>,
    /// Whether sizes were a hundredth, which makes figures worthless as results.
    pub quick: bool,
}

impl Circumstances {
    /// Looks at the machine and asks every program for its version.
    pub fn gather(plan: &Plan, invocation: &str) -> Self {
        let file = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(':').map_or("unknown", |(_, value)| value.trim()).to_owned()
        };
        let processors = std::thread::available_parallelism().map_or(0, usize::from);
        let mut lines = vec![
            ("machine".to_owned(), format!("{processors} x {}", field(&file("/proc/cpuinfo"), "model name"))),
            ("memory".to_owned(), field(&file("/proc/meminfo"), "MemTotal")),
            ("kernel".to_owned(), format!("Linux {}", file("/proc/sys/kernel/osrelease").trim())),
            ("load".to_owned(), load()),
            ("commit".to_owned(), commit()),
            ("run with".to_owned(), invocation.to_owned()),
            ("client".to_owned(), client_version(&plan.setting)),
        ];
        let mut contestant = |contestant: &Contestant| {
            lines.push((contestant.name.clone(), contestant.version()));
            lines.push((format!("{} started as", contestant.name), format!("`{}`", contestant.line())));
        };
        contestant(&plan.reference);
        plan.others.iter().for_each(&mut contestant);
        Self { lines, quick: plan.setting.sizes.quick }
    }
}

/// What else keeps the machine busy. Read at the end, when the average over fifteen minutes covers the run; one
/// client and one server account for two at most.
fn load() -> String {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let fifteen = text.split(' ').nth(2).unwrap_or("unknown");
    format!("{fifteen} on average over the last fifteen minutes (client and servers make up to 2 of it)")
}

fn client_version(setting: &Setting) -> String {
    benchmark::version(&setting.redis_benchmark).unwrap_or_else(|error| error)
}

fn commit() -> String {
    let output = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]).output();
    let text = output.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    text.map_or_else(|| "unknown".to_owned(), |text| String::from_utf8_lossy(&text).trim().to_owned())
}

/// The words of one row, the same for all forms of report.
struct Words {
    name: String,
    metric: &'static str,
    ratios: Vec<(String, String)>,
    must: String,
    aim: String,
    verdict: String,
    values: Vec<String>,
}

fn words(outcome: &Outcome, quick: bool) -> Words {
    let row = outcome.row;
    let bound = |bound: Option<Bound>| match bound {
        None => "-".to_owned(),
        Some(Bound::Ratio(limit)) => format!("{limit:.2}"),
        Some(Bound::Value(limit)) => row.metric.show(limit),
    };
    let ratios = (0..outcome.others.len()).map(|other| match outcome.ratios(other) {
        Some(spread) => (format!("{:.2}", spread.median), format!("{:.2} - {:.2}", spread.min, spread.max)),
        None => ("-".to_owned(), "-".to_owned()),
    });
    let value = |cell: &Cell| match cell {
        Ok(values) => row.metric.show(Spread::of(values).median),
        Err(Failure::NotYet(_)) => "not yet".to_owned(),
        Err(Failure::Broken(_)) => "failed".to_owned(),
    };
    let verdict = match (outcome.verdict(), &outcome.others[0]) {
        (_, Err(Failure::NotYet(_))) => "not yet",
        (None, _) => "failed",
        (Some(_), _) if quick => "(quick)",
        (Some(Verdict::Aim), _) => "aim",
        (Some(Verdict::Meets), _) => "meets",
        (Some(Verdict::Misses), _) => "MISSES",
        (Some(Verdict::Open), _) => "-",
    };
    Words {
        name: row.name.to_owned(),
        metric: row.metric.title(),
        ratios: ratios.collect(),
        must: bound(row.must),
        aim: bound(row.aim),
        verdict: verdict.to_owned(),
        values: std::iter::once(&outcome.reference).chain(&outcome.others).map(value).collect(),
    }
}

/// Column titles and rows of cells: what terminal and Markdown have in common.
fn table(plan: &Plan, outcomes: &[Outcome]) -> (Vec<String>, Vec<Vec<String>>) {
    let reference = &plan.reference.name;
    let mut titles = vec!["row".to_owned(), "figure".to_owned()];
    for other in &plan.others {
        titles.push(format!("{}/{reference}", other.name));
        titles.push("min - max".to_owned());
    }
    titles.extend(["must be <=", "aim", "verdict"].map(str::to_owned));
    titles.push(reference.clone());
    titles.extend(plan.others.iter().map(|other| other.name.clone()));
    let rows = outcomes.iter().map(|outcome| {
        let words = words(outcome, plan.setting.sizes.quick);
        let mut cells = vec![words.name, words.metric.to_owned()];
        cells.extend(words.ratios.into_iter().flat_map(|(median, range)| [median, range]));
        cells.extend([words.must, words.aim, words.verdict]);
        cells.extend(words.values);
        cells
    });
    (titles, rows.collect())
}

/// Failures in full, below a table: a cell has no room for a server's words.
fn failures(plan: &Plan, outcomes: &[Outcome]) -> Vec<String> {
    let mut lines = Vec::new();
    for outcome in outcomes {
        let names = std::iter::once(&plan.reference).chain(&plan.others).map(|who| &who.name);
        for (name, cell) in names.zip(std::iter::once(&outcome.reference).chain(&outcome.others)) {
            if let Err(failure) = cell {
                let text: String = failure.to_string().chars().take(300).collect();
                lines.push(format!("{}, {name}: {text}", outcome.row.name));
            }
        }
    }
    lines
}

/// One row, when it is complete.
pub fn line(outcome: &Outcome, quick: bool) -> String {
    let words = words(outcome, quick);
    let (median, range) = &words.ratios[0];
    format!(
        "{}, {}: {median} ({range}), must be <= {}: {}",
        words.name, words.metric, words.must, words.verdict
    )
}

/// The table for a terminal.
pub fn text(plan: &Plan, circumstances: &Circumstances, outcomes: &[Outcome]) -> String {
    let (titles, rows) = table(plan, outcomes);
    let mut out = String::new();
    for (what, value) in &circumstances.lines {
        writeln!(out, "{what}: {value}").expect("a String takes all");
    }
    out.push_str(quick_note(circumstances.quick));
    out.push('\n');
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([titles[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..titles.len()).map(width).collect();
    for row in std::iter::once(&titles).chain(&rows) {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
            // Words to the left, figures to the right.
            if column < 2 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        let joined = cells.collect::<Vec<_>>().join("  ");
        out.push_str(joined.trim_end());
        out.push('\n');
    }
    for failure in failures(plan, outcomes) {
        writeln!(out, "{failure}").expect("a String takes all");
    }
    out
}

fn quick_note(quick: bool) -> &'static str {
    if quick { "\nQuick sizes: this shows that the rows run, not what they cost.\n" } else { "" }
}

/// The same as Markdown, with how each row was measured.
pub fn markdown(plan: &Plan, circumstances: &Circumstances, outcomes: &[Outcome]) -> String {
    let (titles, rows) = table(plan, outcomes);
    let mut out = String::new();
    for (what, value) in &circumstances.lines {
        writeln!(out, "- {what}: {value}").expect("a String takes all");
    }
    out.push_str(quick_note(circumstances.quick));
    let cells =
        |row: &[String]| row.iter().map(|cell| cell.replace('|', "\\|")).collect::<Vec<_>>().join(" | ");
    writeln!(out, "\n| {} |", cells(&titles)).expect("a String takes all");
    let rule = (0..titles.len()).map(|column| if column < 2 { "---" } else { "--:" });
    writeln!(out, "| {} |", rule.collect::<Vec<_>>().join(" | ")).expect("a String takes all");
    for row in &rows {
        writeln!(out, "| {} |", cells(row)).expect("a String takes all");
    }
    let failures = failures(plan, outcomes);
    if !failures.is_empty() {
        out.push_str("\nWithout a figure:\n\n");
        failures.iter().for_each(|failure| writeln!(out, "- {failure}").expect("a String takes all"));
    }
    out.push_str("\nHow each row was measured:\n\n");
    let mut last = None;
    for outcome in outcomes {
        // Rows of one scenario share its description.
        if last == Some(outcome.scenario.rows[0].name) {
            continue;
        }
        last = Some(outcome.scenario.rows[0].name);
        let how = outcome.scenario.drive.describe(plan.setting.sizes);
        let (threads, rounds) = (outcome.scenario.threads, plan.rounds.unwrap_or(outcome.scenario.rounds));
        let plural = |n: u32| if n == 1 { "" } else { "s" };
        writeln!(
            out,
            "- {}: {threads} thread{}, {rounds} round{}, {how}",
            outcome.row.name,
            plural(threads),
            plural(rounds)
        )
        .expect("a String takes all");
    }
    out
}

/// Everything with all values, for scripts that follow figures over time.
pub fn json(plan: &Plan, circumstances: &Circumstances, outcomes: &[Outcome]) -> String {
    let about = circumstances.lines.iter().map(|(what, value)| format!("{}:{}", quoted(what), quoted(value)));
    let rows = outcomes.iter().map(|outcome| {
        let names = plan.others.iter().map(|other| other.name.as_str());
        let contestants = names.zip(&outcome.others).enumerate().map(|(index, (name, cell))| {
            let ratio = outcome.ratios(index).map_or_else(
                || "null".to_owned(),
                |spread| {
                    format!(
                        "{{\"median\":{},\"min\":{},\"max\":{}}}",
                        spread.median, spread.min, spread.max
                    )
                },
            );
            format!("{}:{{\"ratio\":{ratio},{}}}", quoted(name), json_cell(cell))
        });
        let verdict = words(outcome, circumstances.quick).verdict.to_lowercase();
        format!(
            "{{\"row\":{},\"figure\":{},\"must\":{},\"aim\":{},\"verdict\":{},\"reference\":{{{}}},\"others\":{{{}}}}}",
            quoted(outcome.row.name),
            quoted(outcome.row.metric.title()),
            json_bound(outcome.row.must),
            json_bound(outcome.row.aim),
            quoted(&verdict),
            json_cell(&outcome.reference),
            contestants.collect::<Vec<_>>().join(",")
        )
    });
    format!(
        "{{\"quick\":{},\"about\":{{{}}},\"rows\":[\n{}\n]}}\n",
        circumstances.quick,
        about.collect::<Vec<_>>().join(","),
        rows.collect::<Vec<_>>().join(",\n")
    )
}

fn json_bound(bound: Option<Bound>) -> String {
    match bound {
        None => "null".to_owned(),
        Some(Bound::Ratio(limit)) => format!("{{\"ratio\":{limit}}}"),
        Some(Bound::Value(limit)) => format!("{{\"value\":{limit}}}"),
    }
}

fn json_cell(cell: &Cell) -> String {
    match cell {
        Ok(values) => {
            format!("\"values\":[{}]", values.iter().map(f64::to_string).collect::<Vec<_>>().join(","))
        }
        Err(failure) => format!("\"failure\":{}", quoted(&failure.to_string())),
    }
}

/// A JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => write!(out, "\\u{:04x}", u32::from(c)).expect("a String takes all"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Puts `part` between the two markers of a document, in place of what was there.
pub fn replace_between_markers(document: &str, part: &str) -> Result<String, String> {
    let lines = |marker: &str| document.match_indices(marker).count();
    if lines(BEGIN) != 1 || lines(END) != 1 {
        return Err(format!("needs exactly one line {BEGIN} and one line {END}"));
    }
    let (head, rest) = document.split_once(BEGIN).expect("counted above");
    let (_, tail) = rest.split_once(END).ok_or_else(|| format!("{END} stands before {BEGIN}"))?;
    Ok(format!("{head}{BEGIN}\n\n{}\n\n{END}{tail}", part.trim()))
}

#[cfg(test)]
mod test {
    use super::{BEGIN, END, quoted, replace_between_markers};

    /// Only what is between the markers changes, and doing it twice is doing it once.
    #[test]
    fn markers_bound_the_update() {
        let document = format!("head\n{BEGIN}\nold\n{END}\ntail\n");
        let once = replace_between_markers(&document, "new").unwrap();
        assert_eq!(once, format!("head\n{BEGIN}\n\nnew\n\n{END}\ntail\n"));
        assert_eq!(replace_between_markers(&once, "new").unwrap(), once);
        assert!(replace_between_markers("nothing", "new").is_err());
        assert!(replace_between_markers(&format!("{END}{BEGIN}"), "new").is_err());
        assert!(replace_between_markers(&format!("{BEGIN}{BEGIN}{END}"), "new").is_err());
    }

    /// Control characters and quotes are escaped.
    #[test]
    fn json_strings() {
        assert_eq!(quoted("a\"b\\c\n"), "\"a\\\"b\\\\c\\u000a\"");
    }
}
