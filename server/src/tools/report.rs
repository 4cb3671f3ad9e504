//! Reports about snapshots, for people and as JSON.

use std::fmt::Write;

use damselfly_snapshot::inspect::{FileReport, Large, Library, Report, Tally};
use damselfly_snapshot::{FileRole, SnapshotError, role_of};

/// Letters of a key that a line shows; JSON has more.
const KEY_SHOWN_MAX: usize = 60;

/// For people.
pub fn text(reports: &[Report], orphans: &[SnapshotError]) -> String {
    let mut out = String::new();
    for (number, report) in reports.iter().enumerate() {
        if number > 0 {
            out.push('\n');
        }
        put_text(&mut out, report).expect("strings take all");
    }
    orphans.iter().for_each(|fault| writeln!(out, "FAULT: {fault}").expect("strings take all"));
    out
}

fn put_text(out: &mut String, report: &Report) -> std::fmt::Result {
    let state = if report.faults.is_empty() { "whole" } else { "BROKEN" };
    writeln!(out, "{}: {state}", report.path)?;
    let Some(main) = report.files.first() else { return put_remarks(out, report) };
    writeln!(out, "format    {}", format_text(report, main))?;
    writeln!(out, "written   {}", writer_text(report))?;
    let len = report.files.iter().map(|file| file.len).sum();
    let checksum = if report.files.iter().any(has_checksum) { "checksum right" } else { "no checksum" };
    let count = counted(report.files.len() as u64, "file", "files");
    writeln!(out, "size      {} in {count}, {checksum}", size(len))?;
    let total = report.total();
    writeln!(out, "keys      {}", expiry_text(report, &total))?;
    let others: Vec<String> = [
        (report.expiring_elements, "field or member with a deadline", "fields and members with a deadline"),
        (report.sticky, "sticky key", "sticky keys"),
        (report.scripts, "script", "scripts"),
        (report.functions, "function library", "function libraries"),
    ]
    .into_iter()
    .filter(|(count, ..)| *count > 0)
    .map(|(count, one, many)| counted(count, one, many))
    .collect();
    if !others.is_empty() {
        writeln!(out, "also      {}", others.join(", "))?;
    }
    if total.keys > 0 {
        out.push('\n');
        put_tallies(out, report, &total);
    }
    if !report.libraries.is_empty() {
        writeln!(out, "\nfunction libraries")?;
        let rows = report.libraries.iter().map(|library| {
            let Library { name, engine, bytes } = library;
            vec![size(*bytes), or_unnamed(engine), or_unnamed(name)]
        });
        put_table(out, &["size", "engine", "name"], "rll", rows.collect());
        let more = report.functions - report.libraries.len() as u64;
        if more > 0 {
            writeln!(out, "  and {} more", grouped(more))?;
        }
    }
    if !report.largest.is_empty() {
        writeln!(out, "\nlargest keys")?;
        let rows = report.largest.iter().map(|large| {
            let row = [size(large.bytes), grouped(large.elements), large.db.to_string()];
            row.into_iter().chain([large.kind.name().to_owned(), shown(large)]).collect()
        });
        let head = ["size", "elements", "db", "type", "key"];
        put_table(out, &head, "rrrll", rows.collect());
    }
    put_remarks(out, report)
}

/// What is odd, and what is wrong.
fn put_remarks(out: &mut String, report: &Report) -> std::fmt::Result {
    let notes = report.notes.iter().map(|note| format!("note: {note}"));
    let faults = report.faults.iter().map(|fault| format!("FAULT: {fault}"));
    let remarks: Vec<String> = notes.chain(faults).collect();
    if !remarks.is_empty() {
        write!(out, "\n{}\n", remarks.join("\n"))?;
    }
    Ok(())
}

fn has_checksum(file: &FileReport) -> bool {
    file.facts.is_some_and(|facts| facts.checksum != 0)
}

fn format_text(report: &Report, main: &FileReport) -> String {
    let version = main.facts.map_or("unknown".to_owned(), |facts| facts.version.to_string());
    match role_of(&main.name) {
        FileRole::Summary(_) => {
            format!("dfs, {}, version {version}", counted(report.shards() as u64, "shard", "shards"))
        }
        FileRole::Shard(_, shard) => format!("dfs, shard {shard} alone, version {version}"),
        FileRole::Rdb | FileRole::Other => format!("rdb, version {version}"),
    }
}

fn writer_text(report: &Report) -> String {
    let aux = |name: &[u8]| report.aux(name).map(|value| value.escape_ascii().to_string());
    let at = aux(b"ctime").and_then(|text| text.parse::<u64>().ok());
    let at = at.map_or(String::new(), |seconds| format!(" at {}", utc(seconds.saturating_mul(1000))));
    let who = match (aux(b"df-ver"), aux(b"valkey-ver"), aux(b"redis-ver")) {
        (Some(version), ..) => format!("by Dragonfly or its like, {version}"),
        (_, Some(version), _) => format!("by Valkey {version}"),
        (_, _, Some(version)) => format!("by Redis {version}"),
        _ => "by an unknown server".to_owned(),
    };
    who + &at
}

fn expiry_text(report: &Report, total: &Tally) -> String {
    let keys = grouped(total.keys);
    let (Some(first), Some(last)) = (report.first_due_ms, report.last_due_ms) else {
        return format!("{keys}, none with a deadline");
    };
    let (with, due) = (grouped(total.expiring), grouped(report.due));
    format!("{keys}, {with} with a deadline from {} to {}, {due} of them due", utc(first), utc(last))
}

fn put_tallies(out: &mut String, report: &Report, total: &Tally) {
    let row = |db: &str, kind: &str, tally: &Tally| {
        let numbers =
            [grouped(tally.keys), grouped(tally.elements), size(tally.bytes), grouped(tally.expiring)];
        [db.to_owned(), kind.to_owned()].into_iter().chain(numbers).collect::<Vec<String>>()
    };
    let mut rows = Vec::new();
    for (db, kinds) in &report.databases {
        rows.extend(kinds.iter().map(|(kind, tally)| row(&db.to_string(), kind.name(), tally)));
    }
    rows.push(row("all", "", total));
    put_table(out, &["db", "type", "keys", "elements", "size", "with deadline"], "rlrrrr", rows);
}

/// Columns under their heads, `r`ight or `l`eft.
fn put_table(out: &mut String, head: &[&str], sides: &str, rows: Vec<Vec<String>>) {
    let head = head.iter().map(|name| (*name).to_owned()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    let widths: Vec<usize> = (0..sides.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    for row in &rows {
        let mut line = String::new();
        for ((cell, width), side) in row.iter().zip(&widths).zip(sides.chars()) {
            if side == 'r' {
                write!(line, "  {cell:>width$}").expect("strings take all");
            } else {
                write!(line, "  {cell:<width$}").expect("strings take all");
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

/// A key as a line shows it: bytes that are no letters escaped, long ones cut.
fn shown(large: &Large) -> String {
    let mut text = large.key.escape_ascii().to_string();
    if text.len() > KEY_SHOWN_MAX {
        text.truncate(KEY_SHOWN_MAX);
        text.push_str("...");
    }
    text
}

/// What a library says about itself, if it does.
fn or_unnamed(text: &[u8]) -> String {
    if text.is_empty() { "(none)".to_owned() } else { text.escape_ascii().to_string() }
}

/// "1 shard", "2 shards".
fn counted(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(count), if count == 1 { one } else { many })
}

/// A number with its thousands apart.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

/// Bytes in the largest unit that makes at least one of them.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let step = (bytes.ilog2() / 10) as usize;
    format!("{:.1} {}", bytes as f64 / (1u64 << (10 * step)) as f64, UNITS[step - 1])
}

/// An instant as people write it.
fn utc(unix_ms: u64) -> String {
    let (days, seconds) = (unix_ms / 86_400_000, unix_ms / 1000 % 86_400);
    // Years that begin in March end with the leap day; 400 of them have 146,097 days.
    let day = days + 719_468;
    let (era, day_of_era) = (day / 146_097, day % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day_of_month:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// As one JSON document. Sizes are bytes, times Unix milliseconds; keys and values have bytes that are no printable
/// ASCII escaped as in C.
pub fn json(reports: &[Report], orphans: &[SnapshotError]) -> String {
    let snapshots = reports.iter().map(report_json);
    let document =
        object([("snapshots", array(snapshots)), ("faults", array(orphans.iter().map(fault_json)))]);
    document + "\n"
}

fn report_json(report: &Report) -> String {
    let files = report.files.iter().map(|file| {
        let facts = file.facts.unwrap_or_default();
        object([
            ("name", string(&file.name)),
            ("whole", file.facts.is_some().to_string()),
            ("version", facts.version.to_string()),
            ("bytes", file.len.to_string()),
            ("checksum", (facts.checksum != 0).to_string()),
            ("trailing_bytes", facts.trailing.to_string()),
            ("keys", file.keys.to_string()),
        ])
    });
    let about = report.aux.iter().map(|(name, value)| array([bytes(name), bytes(value)].into_iter()));
    let databases = report.databases.iter().map(|(db, kinds)| {
        let types = kinds.iter().map(|(kind, tally)| {
            object(std::iter::once(("type", string(kind.name()))).chain(tally_json(tally)))
        });
        let sums = tally_json(&report.database(*db));
        let head = std::iter::once(("db", db.to_string()));
        object(head.chain(sums).chain([("types", array(types))]))
    });
    let largest = report.largest.iter().map(|large| {
        object([
            ("key", bytes(&large.key)),
            ("db", large.db.to_string()),
            ("type", string(large.kind.name())),
            ("bytes", large.bytes.to_string()),
            ("elements", large.elements.to_string()),
        ])
    });
    let libraries = report.libraries.iter().map(|library| {
        object([
            ("name", bytes(&library.name)),
            ("engine", bytes(&library.engine)),
            ("bytes", library.bytes.to_string()),
        ])
    });
    let due = |at: Option<u64>| at.map_or("null".to_owned(), |at| at.to_string());
    let format = match report.files.first().map(|main| role_of(&main.name)) {
        Some(FileRole::Summary(_) | FileRole::Shard(..)) => string("dfs"),
        Some(_) => string("rdb"),
        None => "null".to_owned(),
    };
    object([
        ("path", string(&report.path)),
        ("whole", report.faults.is_empty().to_string()),
        ("format", format),
        ("shards", report.shards().to_string()),
        ("files", array(files)),
        ("about", array(about)),
        ("total", object(tally_json(&report.total()))),
        ("databases", array(databases)),
        ("first_due_ms", due(report.first_due_ms)),
        ("last_due_ms", due(report.last_due_ms)),
        ("due", report.due.to_string()),
        ("elements_with_deadline", report.expiring_elements.to_string()),
        ("sticky", report.sticky.to_string()),
        ("scripts", report.scripts.to_string()),
        ("functions", report.functions.to_string()),
        ("libraries", array(libraries)),
        ("largest", array(largest)),
        ("notes", array(report.notes.iter().map(|note| string(note)))),
        ("faults", array(report.faults.iter().map(fault_json))),
    ])
}

fn tally_json(tally: &Tally) -> [(&'static str, String); 4] {
    [
        ("keys", tally.keys.to_string()),
        ("elements", tally.elements.to_string()),
        ("bytes", tally.bytes.to_string()),
        ("with_deadline", tally.expiring.to_string()),
    ]
}

fn fault_json(fault: &SnapshotError) -> String {
    object([("file", string(&fault.file)), ("error", string(&fault.to_string()))])
}

fn object(members: impl IntoIterator<Item = (&'static str, String)>) -> String {
    let members: Vec<String> =
        members.into_iter().map(|(name, value)| format!("{}:{value}", string(name))).collect();
    format!("{{{}}}", members.join(","))
}

fn array(items: impl Iterator<Item = String>) -> String {
    format!("[{}]", items.collect::<Vec<String>>().join(","))
}

fn bytes(bytes: &[u8]) -> String {
    string(&bytes.escape_ascii().to_string())
}

fn string(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => out.extend(['\\', letter]),
            letter if letter < ' ' => write!(out, "\\u{:04x}", u32::from(letter)).expect("strings take all"),
            letter => out.push(letter),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers, sizes and instants at their edges.
    #[test]
    fn units() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1 000", "1 234 567"]);
        assert_eq!([0, 1023, 1024, 1536].map(size), ["0 B", "1023 B", "1.0 KiB", "1.5 KiB"]);
        assert_eq!(size(u64::MAX), "16.0 EiB");
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59:59 UTC"),
            (4_102_444_800, "2100-01-01 00:00:00 UTC"),
        ] {
            assert_eq!(utc(seconds * 1000), text);
        }
        utc(u64::MAX);
        assert_eq!(counted(1, "shard", "shards"), "1 shard");
        assert_eq!(counted(2, "shard", "shards"), "2 shards");
    }

    /// JSON has quotes and control letters escaped, and bytes that are no text.
    #[test]
    fn json_strings() {
        assert_eq!(string("a\"b\\c\u{1}\u{e9}"), "\"a\\\"b\\\\c\\u0001\u{e9}\"");
        assert_eq!(bytes(b"\xff\n"), "\"\\\\xff\\\\n\"");
    }
}
