//! MEMORY: what the bytes are used for.

use std::sync::atomic::Ordering;

use damselfly_commands::{Args, CommandError};
use damselfly_keyspace::Type;
use damselfly_protocol::ReplyWriter;

use super::info::human;
use super::{Outcome, client_of, exactly, help, reply, wait};
use crate::allocator;
use crate::connection::ConnectionId;
use crate::core::Core;
use crate::process;
use crate::report::{CoreReport, DbReport};

const HELP: &[&str] = &[
    "DOCTOR",
    "    Look at the figures and say what is unusual.",
    "MALLOC-STATS",
    "    Memory of the process, of each database and of each shard, and the allocator's own figures, as text.",
    "PURGE",
    "    Give buffers that are kept for reuse back to the allocator, and its free memory to the system.",
    "STATS",
    "    What memory is used for, as numbers.",
    "USAGE <key> [SAMPLES <count>]",
    "    Bytes that a key and its value take. Exact, so there is no sampling.",
];

/// MEMORY DOCTOR | HELP | MALLOC-STATS | PURGE | STATS | USAGE
pub fn memory(core: &mut Core, id: ConnectionId, mut args: Args<'_>) -> Outcome {
    if args.take_word("USAGE") {
        return usage(core, id, args);
    }
    if args.take_word("STATS") {
        exactly(&args, 0, "memory|stats")?;
        return with_report(core, id, |core, report, out| {
            write_stats(&Figures::of(core, &report), &report, out)
        });
    }
    if args.take_word("DOCTOR") {
        exactly(&args, 0, "memory|doctor")?;
        return with_report(core, id, |core, report, out| {
            out.verbatim("txt", advice(&Figures::of(core, &report)).as_bytes());
        });
    }
    if args.take_word("MALLOC-STATS") {
        exactly(&args, 0, "memory|malloc-stats")?;
        return with_report(core, id, |core, report, out| {
            out.verbatim("txt", overview(&Figures::of(core, &report), &report).as_bytes());
        });
    }
    if args.take_word("PURGE") {
        exactly(&args, 0, "memory|purge")?;
        let release = |core: &mut Core| {
            let bytes = core.release_spares();
            // Each thread has a heap of its own, which nobody else can tidy.
            allocator::give_back();
            bytes
        };
        core.ask_all(release, move |core, released| {
            let bytes: usize = released.iter().sum();
            tracing::info!(bytes, "buffers were released by MEMORY PURGE");
            core.answer_with(id, |out| out.ok());
        });
        return wait(core, id);
    }
    if args.take_word("HELP") {
        exactly(&args, 0, "memory|help")?;
        return help(core, id, "MEMORY", HELP);
    }
    Err(CommandError::unknown_subcommand("memory", args.take()?))
}

/// MEMORY USAGE key [SAMPLES count]
fn usage(core: &mut Core, id: ConnectionId, mut args: Args<'_>) -> Outcome {
    if args.is_empty() {
        return Err(CommandError::arity("memory|usage"));
    }
    let key = args.take()?.to_vec();
    while !args.is_empty() {
        // Bytes of collections are counted as they change, so there is nothing to sample.
        if !args.take_word("SAMPLES") || args.is_empty() {
            return Err(CommandError::Syntax);
        }
        if args.take_int()? < 0 {
            return Err(CommandError::Syntax);
        }
    }
    let db = usize::from(client_of(core, id)?.db);
    let owner = core.shared.owner(core.ks.hash(&key));
    let answer = |out: &mut ReplyWriter<'_>, bytes: Option<usize>| match bytes {
        Some(bytes) => out.int(bytes as i64),
        None => out.null(),
    };
    let asker = core.asker(id);
    let measure = move |core: &mut Core| {
        let bytes = core.ks.find(db, &key).map(|loc| core.ks.table(db).entry_bytes(loc));
        core.after_command();
        if asker.remembers {
            core.remember_key(asker.client, &key);
        }
        bytes
    };
    if owner == core.id {
        let bytes = measure(core);
        return reply(core, id, |out| answer(out, bytes));
    }
    core.ask(owner, measure, move |core, bytes| core.answer_with(id, |out| answer(out, bytes)));
    wait(core, id)
}

/// Answers from the sum of all cores' reports.
fn with_report(
    core: &mut Core,
    id: ConnectionId,
    write: impl FnOnce(&Core, CoreReport, &mut ReplyWriter<'_>) + 'static,
) -> Outcome {
    core.ask_all(
        |core| CoreReport::of(core),
        move |core, reports| {
            let mut reply = Vec::new();
            let Some(connection) = core.connection(id) else { return };
            let proto = connection.proto;
            write(core, CoreReport::sum(reports), &mut ReplyWriter::new(&mut reply, proto));
            core.answer_with(id, |out| out.raw(&reply));
        },
    );
    wait(core, id)
}

/// The figures that all of these commands look at.
struct Figures {
    used: u64,
    peak: u64,
    table: u64,
    /// What the process itself takes.
    startup: u64,
    overhead: u64,
    connections: u64,
    keys: u64,
    maxmemory: u64,
    process: Option<process::Memory>,
}

impl Figures {
    fn of(core: &Core, report: &CoreReport) -> Figures {
        let startup = core.shared.memory.startup();
        let used = report.used_bytes(startup);
        let table = report.over_dbs(|db| db.table_bytes);
        Figures {
            used,
            peak: core.shared.used_peak.load(Ordering::Relaxed).max(used),
            table,
            startup,
            overhead: report.over_dbs(overhead) + report.doomed_bytes + report.connection_bytes + startup,
            connections: report.connection_bytes,
            keys: report.over_dbs(|db| db.keys),
            maxmemory: core.shared.settings.maxmemory(),
            process: process::Memory::now(),
        }
    }
}

/// Bytes of a database that are neither keys nor values.
fn overhead(db: &DbReport) -> u64 {
    db.heap_bytes.saturating_sub(db.key_bytes + db.type_bytes.iter().sum::<u64>())
}

fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 * 100.0 }
}

fn write_stats(figures: &Figures, report: &CoreReport, out: &mut ReplyWriter<'_>) {
    let dbs: Vec<(usize, &DbReport)> = report.dbs.iter().enumerate().filter(|(_, db)| db.keys > 0).collect();
    let process = figures.process.filter(|_| figures.used > 0);
    out.map(14 + dbs.len() + if process.is_some() { 2 } else { 0 });
    let dataset = figures.used - figures.overhead;
    let int = |out: &mut ReplyWriter<'_>, name: &str, value: u64| {
        out.bulk(name.as_bytes());
        out.int(value as i64);
    };
    int(out, "peak.allocated", figures.peak);
    int(out, "total.allocated", figures.used);
    int(out, "startup.allocated", figures.startup);
    int(out, "replication.backlog", 0);
    int(out, "clients.slaves", 0);
    int(out, "clients.normal", figures.connections);
    for (number, db) in dbs {
        out.bulk(format!("db.{number}").as_bytes());
        out.map(2);
        int(out, "overhead.hashtable.main", overhead(db));
        // Expiries are part of the entries: no table of their own.
        int(out, "overhead.hashtable.expires", 0);
    }
    int(out, "overhead.total", figures.overhead);
    let types: Vec<(&str, u64)> = report.type_bytes().collect();
    out.bulk(b"types");
    out.map(types.len());
    for (name, bytes) in types {
        int(out, name, bytes);
    }
    out.bulk(b"shards");
    out.map(report.shard_bytes.len());
    for (shard, bytes) in report.shard_bytes.iter().enumerate() {
        int(out, &shard.to_string(), *bytes);
    }
    int(out, "keys.count", figures.keys);
    int(out, "keys.bytes-per-key", figures.used.checked_div(figures.keys).unwrap_or(0));
    int(out, "dataset.bytes", dataset);
    out.bulk(b"dataset.percentage");
    out.double(percent(dataset, figures.used));
    out.bulk(b"peak.percentage");
    out.double(percent(figures.used, figures.peak));
    if let Some(process) = process {
        out.bulk(b"fragmentation");
        out.double(process.rss as f64 / figures.used as f64);
        out.bulk(b"fragmentation.bytes");
        out.int(process.rss as i64 - figures.used as i64);
    }
}

/// Data below which ratios say nothing: the process itself takes several megabytes.
const LITTLE: u64 = 16 << 20;

fn advice(figures: &Figures) -> String {
    if figures.used < LITTLE {
        return format!("There are only {} of data: too little to judge by.\n", human(figures.used));
    }
    let mut findings = Vec::new();
    if figures.maxmemory > 0 && figures.used > figures.maxmemory / 10 * 9 {
        findings.push(format!(
            "{:.0} % of maxmemory is in use. Without eviction, writes will soon be refused.",
            percent(figures.used, figures.maxmemory)
        ));
    }
    if figures.peak > figures.used / 2 * 3 {
        findings.push(format!(
            "There was more data once: {} at the peak, {} now. Resident memory may still reflect the peak.",
            human(figures.peak),
            human(figures.used)
        ));
    }
    if let Some(process) = figures.process
        && process.rss > figures.used / 2 * 3
    {
        findings.push(format!(
            "The process holds {} for {} of data. MEMORY PURGE gives spare buffers back.",
            human(process.rss),
            human(figures.used)
        ));
    }
    if figures.process.is_some_and(|process| process.swapped > 0) {
        findings.push("Part of the process is swapped out; reads of it are slow.".to_string());
    }
    if figures.connections > figures.used {
        findings.push(format!("Connections hold {}, more than the data does.", human(figures.connections)));
    }
    if figures.table > figures.used / 4 * 3 && figures.used / figures.keys.max(1) > 1024 {
        findings.push("Tables are large for the number of keys: many keys were removed.".to_string());
    }
    if findings.is_empty() {
        return "Nothing unusual.\n".to_string();
    }
    findings.iter().map(|finding| format!("* {finding}\n")).collect()
}

fn overview(figures: &Figures, report: &CoreReport) -> String {
    let mut text = String::from("allocator           mimalloc\n");
    let mut line = |name: &str, bytes: u64| text.push_str(&format!("{name:<20}{bytes:>15}\n"));
    if let Some(process) = figures.process {
        line("resident", process.rss);
        line("resident, peak", process.rss_peak);
        line("address space", process.virtual_size);
        line("swapped", process.swapped);
    }
    line("data", figures.used);
    line("data, peak", figures.peak);
    line("being freed", report.doomed_bytes);
    line("connections", figures.connections);
    for (number, db) in report.dbs.iter().enumerate().filter(|(_, db)| db.keys > 0) {
        line(&format!("db{number}: all"), db.heap_bytes);
        line(&format!("db{number}: table"), db.table_bytes);
        line(&format!("db{number}: keys"), db.key_bytes);
        for &of in Type::ALL.iter().filter(|&&of| db.bytes_of(of) > 0) {
            line(&format!("db{number}: {}", of.name()), db.bytes_of(of));
        }
    }
    for (shard, bytes) in report.shard_bytes.iter().enumerate() {
        line(&format!("shard {shard}"), *bytes);
    }
    text.push('\n');
    text.push_str(&allocator::stats());
    text
}

#[cfg(test)]
mod tests {
    use damselfly_keyspace::Type;

    use super::{Figures, advice, overhead};
    use crate::process::Memory;
    use crate::report::DbReport;

    fn figures() -> Figures {
        let rss = Memory { rss: 120 << 20, ..Memory::default() };
        Figures {
            used: 100 << 20,
            peak: 100 << 20,
            table: 50 << 20,
            startup: 5 << 20,
            overhead: 15 << 20,
            connections: 0,
            keys: 1_000_000,
            maxmemory: 0,
            process: Some(rss),
        }
    }

    /// A healthy server gets no advice; each trouble is named, and only that one.
    #[test]
    fn doctor() {
        assert_eq!(advice(&figures()), "Nothing unusual.\n");
        let rss = |rss: u64, swapped| Some(Memory { rss: rss << 20, swapped, ..Memory::default() });
        for (figures, word) in [
            (Figures { used: 1 << 20, ..figures() }, "too little"),
            (Figures { maxmemory: 101 << 20, ..figures() }, "maxmemory"),
            (Figures { peak: 300 << 20, ..figures() }, "at the peak"),
            (Figures { process: rss(200, 0), ..figures() }, "PURGE"),
            (Figures { process: rss(100, 1), ..figures() }, "swapped"),
            (Figures { connections: 101 << 20, ..figures() }, "Connections"),
            (Figures { table: 90 << 20, keys: 10, ..figures() }, "Tables"),
        ] {
            let advice = advice(&figures);
            assert!(advice.contains(word) && advice.lines().count() == 1, "{word}: {advice}");
        }
    }

    /// Never more than there is, whatever the parts.
    #[test]
    fn overhead_is_bounded() {
        let mut db = DbReport { table_bytes: 100, heap_bytes: 500, key_bytes: 50, ..DbReport::default() };
        db.type_bytes[Type::String as usize] = 30;
        db.type_bytes[Type::Hash as usize] = 400;
        assert_eq!(overhead(&db), 20);
        db.type_bytes[Type::Hash as usize] = 600;
        assert_eq!(overhead(&db), 0);
    }
}
