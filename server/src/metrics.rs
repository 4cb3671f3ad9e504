//! `/metrics`: the sum of all cores' reports in Prometheus' text format.
//!
//! Names and labels are Dragonfly's where it has one for the fact, so its dashboards and alerts work. Nothing is kept
//! between scrapes: counters live in the cores as plain integers, and the families are built when somebody asks. What
//! has no meaning here is not exported; a query for a missing series returns nothing, which is true.

use std::path::Path;
use std::sync::atomic::Ordering;

use damselfly_keyspace::DbStats;
use prometheus::TextEncoder;
use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

use crate::process;
use crate::report::{CoreReport, DbReport};
use crate::server_commands::info::DRAGONFLY_VERSION;
use crate::server_commands::persistence::last_save_s;
use crate::shared::Shared;

/// Content type of the format.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// The page.
pub fn text(shared: &Shared, report: &CoreReport) -> String {
    let mut families = Families(Vec::with_capacity(48));
    server(&mut families, shared, report);
    memory(&mut families, shared, report);
    traffic(&mut families, shared, report);
    keyspace(&mut families, report);
    snapshots(&mut families, shared);
    replication(&mut families);
    disk(&mut families, &shared.config.dir);
    TextEncoder::new().encode_to_string(&families.0).expect("every family has a name and a sample")
}

fn server(families: &mut Families, shared: &Shared, report: &CoreReport) {
    let version = [(DRAGONFLY_VERSION, 1)];
    families.gauges("version", "The version whose surface this server has; always 1", "version", version);
    families.gauge("master", "1 if this node takes writes, 0 if it replicates another", 1);
    let uptime = shared.started.1.elapsed().as_secs();
    families.counter("uptime_in_seconds", "Seconds since the process began", uptime);
    families.gauge("max_clients", "Most clients at a time", u64::from(shared.settings.maxclients()));
    families.gauges(
        "connected_clients",
        "Open connections, by the port they came through",
        "listener",
        [("main", report.connections_main), ("other", report.connections_other)],
    );
    families.gauge("blocked_clients", "Clients that wait inside a blocking command", report.blocked);
    families.gauges(
        "connections_libs",
        "Open connections, by client library and version",
        "lib",
        report.libs.iter().map(|(lib, count)| (if lib.is_empty() { ":" } else { lib.as_str() }, *count)),
    );
}

fn snapshots(families: &mut Families, shared: &Shared) {
    let (snapshots, history) = (&shared.snapshots, shared.snapshots.history());
    families.counter("backups_total", "Snapshots that were saved", history.saves);
    families.counter("failed_backups_total", "Snapshots that could not be saved", history.failures);
    families.counter("restores_total", "Snapshots that were loaded", history.loads);
    families.gauge("snapshot_saving", "1 while a snapshot is being saved", u64::from(history.now.is_some()));
    let written = snapshots.saving.keys.load(Ordering::Relaxed);
    families.gauge(
        "snapshot_saved_keys",
        "Keys written of the snapshot being saved, or of the last",
        written,
    );
    let failing = u64::from(history.is_failing);
    families.gauge("snapshot_last_save_failed", "1 if the last save failed", failing);
    let last = last_save_s(shared);
    families.gauge("snapshot_last_save_timestamp_seconds", "When a save last succeeded, or the start", last);
    families.gauge("snapshot_last_save_seconds", "What the last good save took", history.took.as_secs());
    families.gauge("loading", "1 while a snapshot is being loaded", u64::from(snapshots.is_loading()));
    let (read, bytes) = (&snapshots.progress.read, &snapshots.progress.bytes);
    families.gauge("loading_read_bytes", "Bytes read of the snapshot loaded", read.load(Ordering::Relaxed));
    families.gauge("loading_total_bytes", "Bytes of the snapshot loaded", bytes.load(Ordering::Relaxed));
}

fn memory(families: &mut Families, shared: &Shared, report: &CoreReport) {
    let startup = shared.memory.startup();
    let used = report.used_bytes(startup);
    let peak = shared.used_peak.load(Ordering::Relaxed).max(used);
    families.gauge(
        "memory_used_bytes",
        "Bytes of data, connections, and of the process before it had either",
        used,
    );
    families.gauge("memory_used_peak_bytes", "Most bytes that these took", peak);
    families.gauge("memory_max_bytes", "Limit for resident memory; 0 is none", shared.settings.maxmemory());
    if let Some(process) = process::Memory::now() {
        families.gauge("used_memory_rss_bytes", "Resident memory of the process", process.rss);
        families.gauge("swap_memory_bytes", "Memory of the process that is swapped out", process.swapped);
    }
    families.gauge("connection_memory_bytes", "Bytes that connections hold", report.connection_bytes);
    let table = report.over_dbs(|db| db.table_bytes);
    families.gauges(
        "memory_by_class_bytes",
        "Bytes in use, by what they are used for",
        "class",
        [
            ("table_used", table),
            ("object_used", report.over_dbs(DbReport::object_bytes)),
            ("eviction_used", report.over_dbs(|db| db.eviction_bytes)),
            ("being_freed", report.doomed_bytes),
            ("startup", startup),
            ("client_read_buffer", report.input_bytes),
            ("connection", report.connection_bytes.saturating_sub(report.input_bytes)),
        ],
    );
    families.gauges("type_used_memory", "Bytes of values, by type, and of keys", "type", report.type_bytes());
    let shards: Vec<String> = (0..report.shard_bytes.len()).map(|shard| shard.to_string()).collect();
    let bytes = report.shard_bytes.iter().copied();
    families.gauges(
        "shard_used_memory_bytes",
        "Bytes of the data, by shard",
        "shard",
        shards.iter().map(String::as_str).zip(bytes),
    );
    families.counters(
        "oom_errors_total",
        "Refusals for lack of memory",
        "type",
        [("cmd", report.oom as f64)].into_iter().filter(|(_, count)| *count > 0.0),
    );
}

fn traffic(families: &mut Families, shared: &Shared, report: &CoreReport) {
    let cut = report.backpressure;
    families.counters(
        "pubsub_backpressure_events_total",
        "Subscribers that were cut, by the limit they passed, and messages that did not fit",
        "event",
        [
            ("soft_limit", cut.soft_limit as f64),
            ("hard_limit", cut.hard_limit as f64),
            ("forced_disconnect", cut.forced_disconnect as f64),
            ("messages_discarded", cut.messages_discarded as f64),
        ],
    );
    let accepted = shared.accepted.load(Ordering::Relaxed);
    families.counter("connections_received_total", "Connections accepted", accepted);
    families.counters(
        "listener_accept_error_total",
        "Connections refused, by reason",
        "reason",
        [("limit_reached", shared.rejected.load(Ordering::Relaxed) as f64)],
    );
    families.counters(
        "commands_processed_total",
        "Commands run, by the port they came through",
        "listener",
        [
            ("main", report.processed.saturating_sub(report.processed_other) as f64),
            ("other", report.processed_other as f64),
        ],
    );
    families.counter(
        "pipeline_commands_total",
        "Commands that came in one read together with others",
        report.pipelined,
    );
    families.counter(
        "forwarded_commands_total",
        "Commands that travelled from the core of their client to that of their key",
        report.forwarded,
    );
    families.counter("net_input_bytes_total", "Bytes received from clients", report.received);
    families.counter("net_output_bytes_total", "Bytes sent to clients", report.sent);
    let called: Vec<(String, _)> = report.called().filter(|(_, stat)| stat.calls > 0).collect();
    families.counters(
        "commands_total",
        "Calls, by command",
        "cmd",
        called.iter().map(|(name, stat)| (name.as_str(), stat.calls as f64)),
    );
    families.counters(
        "commands_duration_seconds",
        "Time spent, by command",
        "cmd",
        called.iter().map(|(name, stat)| (name.as_str(), stat.nanos as f64 / 1e9)),
    );
    families.counters(
        "error_replies_total",
        "Error replies, by their first word",
        "kind",
        report.errors.iter().map(|(kind, count)| (kind.as_str(), *count as f64)),
    );
}

fn keyspace(families: &mut Families, report: &CoreReport) {
    families.counter("keyspace_mutations_total", "Changes of keys", report.keyspace.mutations);
    let names: Vec<String> = (0..report.dbs.len()).map(|number| format!("db{number}")).collect();
    // The first database always, so that there is a series from the start; others once they have had a key.
    let dbs: Vec<(&str, _)> = names
        .iter()
        .zip(&report.dbs)
        .enumerate()
        .filter(|(number, (_, db))| *number == 0 || db.capacity > 0 || db.stats != DbStats::default())
        .map(|(_, (name, db))| (name.as_str(), db))
        .collect();
    let of = |count: fn(&DbStats) -> u64| dbs.iter().map(move |(name, db)| (*name, count(&db.stats)));
    families.sum_and_parts("keyspace_hits_total", "Reads that found their key", of(|stats| stats.hits));
    families.sum_and_parts("keyspace_misses_total", "Reads that found no key", of(|stats| stats.misses));
    let as_samples = |(name, count)| (name, count as f64);
    families.counters(
        "expired_keys_total",
        "Keys removed because their time had come, by database",
        "db",
        of(|stats| stats.expired).map(as_samples),
    );
    families.counters(
        "evicted_keys_total",
        "Keys removed to make room, by database",
        "db",
        of(|stats| stats.evicted).map(as_samples),
    );
    families.gauges("db_keys", "Keys, by database", "db", dbs.iter().map(|(name, db)| (*name, db.keys)));
    families.gauges(
        "db_keys_expiring",
        "Keys with an expiry, by database",
        "db",
        dbs.iter().map(|(name, db)| (*name, db.expires)),
    );
    families.gauges(
        "db_capacity",
        "Keys that fit before tables grow, by database",
        "db",
        dbs.iter().map(|(name, db)| (*name, db.capacity)),
    );
}

fn replication(families: &mut Families) {
    families.gauges("role", "1 for the role of this node", "role", [("master", 1), ("replica", 0)]);
    families.gauges("connected_slaves", "Replicas that are connected", "role", [("master", 0)]);
}

/// The file system of snapshots, if they go to one.
fn disk(families: &mut Families, dir: &str) {
    if dir.contains("://") {
        return;
    }
    if let Some((size, used)) = process::disk(Path::new(dir)) {
        families.gauge("disk_size_bytes", "Size of the file system that snapshots are written to", size);
        families.gauge(
            "disk_used_bytes",
            "Used bytes of the file system that snapshots are written to",
            used,
        );
    }
}

/// What is being put together.
struct Families(Vec<MetricFamily>);

impl Families {
    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.push(MetricType::GAUGE, name, help, vec![metric(MetricType::GAUGE, None, value as f64)]);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.push(MetricType::COUNTER, name, help, vec![metric(MetricType::COUNTER, None, value as f64)]);
    }

    /// A counter whose sum and whose parts by database have one name, as Dragonfly's have: a query that sums over it
    /// must choose.
    fn sum_and_parts<'a>(&mut self, name: &str, help: &str, dbs: impl Iterator<Item = (&'a str, u64)>) {
        let mut sum = 0;
        let mut samples = vec![Metric::default()];
        for (db, count) in dbs {
            sum += count;
            samples.push(metric(MetricType::COUNTER, Some(("db", db)), count as f64));
        }
        samples[0] = metric(MetricType::COUNTER, None, sum as f64);
        self.push(MetricType::COUNTER, name, help, samples);
    }

    fn gauges<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'a str, u64)>,
    ) {
        let values = values.into_iter().map(|(of, value)| (of, value as f64));
        self.labelled(MetricType::GAUGE, name, help, label, values);
    }

    fn counters<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'a str, f64)>,
    ) {
        self.labelled(MetricType::COUNTER, name, help, label, values);
    }

    fn labelled<'a>(
        &mut self,
        kind: MetricType,
        name: &str,
        help: &str,
        label: &str,
        values: impl IntoIterator<Item = (&'a str, f64)>,
    ) {
        let samples: Vec<Metric> =
            values.into_iter().map(|(of, value)| metric(kind, Some((label, of)), value)).collect();
        // A family without samples is not printed at all, and the encoder refuses it.
        if !samples.is_empty() {
            self.push(kind, name, help, samples);
        }
    }

    fn push(&mut self, kind: MetricType, name: &str, help: &str, samples: Vec<Metric>) {
        let mut family = MetricFamily::default();
        family.set_name(format!("dragonfly_{name}"));
        family.set_help(help.to_string());
        family.set_field_type(kind);
        family.set_metric(samples);
        self.0.push(family);
    }
}

fn metric(kind: MetricType, label: Option<(&str, &str)>, value: f64) -> Metric {
    let mut metric = Metric::default();
    if let Some((name, of)) = label {
        let mut pair = LabelPair::default();
        pair.set_name(name.to_string());
        pair.set_value(of.to_string());
        metric.set_label(vec![pair]);
    }
    if kind == MetricType::COUNTER {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    } else {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    }
    metric
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::Families;

    /// The format to the letter, with a label value that needs escaping; a family without samples is left out.
    #[test]
    fn format() {
        let mut families = Families(Vec::new());
        families.gauge("a", "Says a", 1 << 40);
        families.counters("b_total", "Says b", "lib", [("x\"\n\\", 0.5), ("y", 2.0)]);
        families.gauges("c", "Says c", "db", []);
        let text = TextEncoder::new().encode_to_string(&families.0).expect("valid");
        let expected = "# HELP dragonfly_a Says a\n# TYPE dragonfly_a gauge\ndragonfly_a 1099511627776\n\
            # HELP dragonfly_b_total Says b\n# TYPE dragonfly_b_total counter\n\
            dragonfly_b_total{lib=\"x\\\"\\n\\\\\"} 0.5\ndragonfly_b_total{lib=\"y\"} 2\n";
        assert_eq!(text, expected);
    }
}
