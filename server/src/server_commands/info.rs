//! INFO: facts and counters of the server, by section.
//!
//! Field names are those of Redis, so that its clients and dashboards find what they look for, with Dragonfly's where
//! it has a name for something Redis does not tell. What has no meaning here is left out: a monitor can deal with a
//! missing field, but not with one that lies.

use std::fmt::{Display, Write};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use damselfly_commands::Args;
use damselfly_config::{ClusterMode, MaxmemoryPolicy};

use super::persistence::last_save_s;
use super::server::unix_time;
use super::{Outcome, client_of, wait};
use crate::connection::{ConnectionId, Listener};
use crate::core::Core;
use crate::process;
use crate::pubsub::Kind;
use crate::report::{CoreReport, DbReport};
use crate::shared::Shared;

/// The version of Redis whose commands we have, for clients that decide by it.
pub const REDIS_VERSION: &str = "7.4.0";
/// The same as a number, as scripts see it.
pub const REDIS_VERSION_NUMBER: u32 = 0x0007_0400;
/// The version of Dragonfly whose surface we have, for tools that look for it.
pub const DRAGONFLY_VERSION: &str = "df-v1.40.1";

/// A section: its title (the name in any case selects it), whether plain INFO shows it, and who writes its fields.
struct Section {
    title: &'static str,
    is_default: bool,
    write: fn(&mut Fields<'_>),
}

const fn section(title: &'static str, is_default: bool, write: fn(&mut Fields<'_>)) -> Section {
    Section { title, is_default, write }
}

const SECTIONS: &[Section] = &[
    section("Server", true, server),
    section("Clients", true, clients),
    section("Memory", true, memory),
    section("Persistence", true, persistence),
    section("Stats", true, stats),
    section("Replication", true, replication),
    section("CPU", true, cpu),
    // Data types that are modules elsewhere are built in, so there is nothing to list.
    section("Modules", true, |_| ()),
    section("Commandstats", false, command_stats),
    section("Errorstats", true, error_stats),
    section("Latencystats", false, latency_stats),
    section("Cluster", true, cluster),
    section("Keyspace", true, keyspace),
];

/// The lines of an answer, and where their values come from.
struct Fields<'a> {
    text: String,
    shared: &'a Shared,
    report: &'a CoreReport,
    process: Option<process::Memory>,
    /// Details of the machine are hidden from ordinary clients of a managed service.
    hides_host: bool,
}

impl Fields<'_> {
    fn put(&mut self, name: &str, value: impl Display) {
        write!(self.text, "{name}:{value}\r\n").expect("strings take all");
    }

    /// A number of bytes, and the same for people.
    fn put_bytes(&mut self, name: &str, bytes: u64) {
        self.put(name, bytes);
        self.put(&format!("{name}_human"), human(bytes));
    }
}

/// INFO [section ...]
pub fn info(core: &mut Core, id: ConnectionId, args: Args<'_>) -> Outcome {
    let chosen = choose(args.rest());
    let is_admin = client_of(core, id)?.client.listener == Listener::Admin;
    core.ask_all(
        |core| CoreReport::of(core),
        move |core, reports| {
            let report = CoreReport::sum(reports);
            let text = text(&core.shared, &report, &chosen, is_admin);
            core.answer_with(id, |out| out.verbatim("txt", text.as_bytes()));
        },
    );
    wait(core, id)
}

/// The sections that the arguments name; none are the default ones.
fn choose<'a>(names: impl ExactSizeIterator<Item = &'a [u8]> + Clone) -> Vec<&'static Section> {
    let asks_for = |section: &Section| {
        names.clone().any(|name| {
            let is = |word: &str| name.eq_ignore_ascii_case(word.as_bytes());
            is(section.title) || is("all") || is("everything") || (section.is_default && is("default"))
        })
    };
    let is_default = names.len() == 0;
    SECTIONS
        .iter()
        .filter(|section| if is_default { section.is_default } else { asks_for(section) })
        .collect()
}

fn text(shared: &Shared, report: &CoreReport, sections: &[&Section], is_admin: bool) -> String {
    let mut fields = Fields {
        text: String::with_capacity(4096),
        shared,
        report,
        process: process::Memory::now(),
        hides_host: shared.settings.managed_service_info() && !is_admin,
    };
    for section in sections {
        if !fields.text.is_empty() {
            fields.text.push_str("\r\n");
        }
        write!(fields.text, "# {}\r\n", section.title).expect("strings take all");
        (section.write)(&mut fields);
    }
    fields.text
}

fn server(out: &mut Fields<'_>) {
    let shared = out.shared;
    out.put("redis_version", REDIS_VERSION);
    out.put("dragonfly_version", DRAGONFLY_VERSION);
    out.put("damselfly_version", env!("CARGO_PKG_VERSION"));
    out.put(
        "redis_mode",
        if shared.config.cluster_mode == ClusterMode::Off { "standalone" } else { "cluster" },
    );
    if !out.hides_host {
        out.put("os", process::os());
    }
    out.put("arch_bits", usize::BITS);
    out.put("thread_count", shared.peers.len());
    out.put("multiplexing_api", "epoll");
    if !out.hides_host {
        out.put("process_id", std::process::id());
    }
    out.put("run_id", &shared.run_id);
    out.put("tcp_port", shared.settings.port());
    if !shared.config.availability_zone.is_empty() {
        out.put("availability_zone", &shared.config.availability_zone);
    }
    let now = unix_time();
    out.put("server_time_usec", now.as_micros());
    let uptime = shared.started.1.elapsed().as_secs();
    out.put("uptime_in_seconds", uptime);
    out.put("uptime_in_days", uptime / 86_400);
    out.put("hz", shared.settings.hz());
    out.put("configured_hz", shared.settings.hz());
    if !out.hides_host {
        let executable = std::env::current_exe().unwrap_or_default();
        out.put("executable", executable.display());
        out.put("config_file", "");
    }
}

fn clients(out: &mut Fields<'_>) {
    let report = out.report;
    out.put("connected_clients", report.connections_main + report.connections_other);
    out.put("maxclients", out.shared.settings.maxclients());
    out.put("max_clients", out.shared.settings.maxclients());
    out.put("client_read_buffer_bytes", report.input_bytes);
    out.put("client_write_buffer_bytes", report.output_bytes);
    out.put("blocked_clients", report.blocked);
    out.put("total_blocking_keys", report.blocking_keys);
    out.put("total_blocking_keys_on_nokey", report.needed_keys);
    out.put("tracking_clients", report.tracking_clients);
    out.put("pubsub_clients", report.pubsub_clients);
    out.put("watching_clients", report.watching_clients);
    out.put("total_watched_keys", report.watched_keys);
    out.put("timeout_disconnects", report.timed_out);
}

fn memory(out: &mut Fields<'_>) {
    let (report, shared) = (out.report, out.shared);
    let startup = shared.memory.startup();
    let used = report.used_bytes(startup);
    // The peak is kept from tick to tick; the present may be above it.
    let peak = shared.used_peak.load(Ordering::Relaxed).max(used);
    let table = report.over_dbs(|db| db.table_bytes);
    out.put_bytes("used_memory", used);
    out.put_bytes("used_memory_peak", peak);
    if peak > 0 {
        out.put("used_memory_peak_perc", format_args!("{:.2}%", used as f64 / peak as f64 * 100.0));
    }
    if let Some(process) = out.process {
        out.put_bytes("used_memory_rss", process.rss);
        out.put("used_memory_peak_rss", process.rss_peak);
        if used > 0 {
            out.put("mem_fragmentation_ratio", format_args!("{:.2}", process.rss as f64 / used as f64));
        }
        out.put("mem_fragmentation_bytes", process.rss as i64 - used as i64);
    }
    if let Some(total) = process::machine_memory().filter(|_| !out.hides_host) {
        out.put_bytes("total_system_memory", total);
    }
    let scripts = &shared.scripts;
    let [vm_eval, vm_functions] = &scripts.engine_bytes;
    let (vm_eval, vm_functions) = (vm_eval.load(Ordering::Relaxed), vm_functions.load(Ordering::Relaxed));
    let (count, sources) = scripts.size();
    let libraries = scripts.libraries();
    let functions: usize = libraries.libraries.values().map(|library| library.source.len()).sum();
    out.put_bytes("used_memory_lua", (vm_eval + vm_functions) as u64);
    out.put("used_memory_vm_eval", vm_eval);
    out.put("used_memory_scripts_eval", sources);
    out.put("number_of_cached_scripts", count);
    out.put("number_of_functions", libraries.functions.len());
    out.put("number_of_libraries", libraries.libraries.len());
    out.put("used_memory_vm_functions", vm_functions);
    out.put_bytes("used_memory_vm_total", (vm_eval + vm_functions) as u64);
    out.put("used_memory_functions", functions);
    out.put_bytes("used_memory_scripts", (sources + functions) as u64);
    out.put_bytes("maxmemory", shared.settings.maxmemory());
    let policy = shared.settings.maxmemory_policy();
    out.put("maxmemory_policy", policy.name());
    out.put("cache_mode", if policy == MaxmemoryPolicy::NoEviction { "store" } else { "cache" });
    // used_memory is the sum of the next six.
    out.put("used_memory_startup", startup);
    out.put("table_used_memory", table);
    out.put("object_used_memory", report.over_dbs(DbReport::object_bytes));
    out.put("eviction_used_memory", report.over_dbs(|db| db.eviction_bytes));
    out.put("lazyfree_pending_bytes", report.doomed_bytes);
    out.put("lazyfree_pending_objects", report.doomed_len);
    out.put("lazyfreed_objects", report.keyspace.freed_in_steps);
    out.put("mem_clients_normal", report.connection_bytes);
    for (name, bytes) in report.type_bytes() {
        out.put(&format!("type_used_memory_{name}"), bytes);
    }
    for (shard, bytes) in report.shard_bytes.iter().enumerate() {
        out.put(&format!("shard{shard}_used_memory"), bytes);
    }
    out.put("prime_capacity", report.over_dbs(|db| db.capacity));
    out.put("num_entries", report.over_dbs(|db| db.keys));
    out.put("mem_allocator", "mimalloc");
}

fn persistence(out: &mut Fields<'_>) {
    let snapshots = &out.shared.snapshots;
    let loading = snapshots.is_loading();
    out.put("loading", u8::from(loading));
    if loading {
        let progress = &snapshots.progress;
        let (bytes, read) = (progress.bytes.load(Ordering::Relaxed), progress.read.load(Ordering::Relaxed));
        out.put("loading_start_time", progress.began_ms.load(Ordering::Relaxed) / 1000);
        out.put("loading_total_bytes", bytes);
        out.put("loading_loaded_bytes", read);
        out.put("loading_loaded_perc", format!("{:.2}", progress.percent()));
        out.put("loading_eta_seconds", progress.eta_s(Shared::now_ms()));
    }
    let (history, saving) = (snapshots.history(), &snapshots.saving);
    let seconds_since = |began_ms: u64| Shared::now_ms().saturating_sub(began_ms) / 1000;
    let (keys, total) = (saving.keys.load(Ordering::Relaxed), saving.total.load(Ordering::Relaxed));
    let is_saving = history.now.is_some();
    out.put("saving", u8::from(is_saving));
    out.put("current_save_duration_sec", history.now.map_or(0, |(began_ms, _)| seconds_since(began_ms)));
    out.put("current_save_keys_processed", if is_saving { keys } else { 0 });
    out.put("current_save_keys_total", if is_saving { total } else { 0 });
    let percent = if is_saving && total > 0 { keys as f64 * 100.0 / total as f64 } else { 0.0 };
    out.put("current_snapshot_perc", format!("{:.2}", percent.min(100.0)));
    // Before the first save the last one was at the start, as in Redis.
    let last_save = last_save_s(out.shared);
    let changes = out.report.mutations_ever.saturating_sub(history.mutations);
    out.put("last_success_save", last_save);
    out.put("last_saved_file", &history.file);
    out.put("last_success_save_duration_sec", history.took.as_secs());
    out.put("rdb_changes_since_last_success_save", changes);
    out.put("last_failed_save", history.failed_s.unwrap_or(0));
    out.put("last_error", history.error.replace(['\r', '\n'], " "));
    out.put("last_failed_save_duration_sec", history.failed_took.as_secs());
    out.put("rdb_changes_since_last_save", changes);
    out.put("rdb_bgsave_in_progress", u8::from(history.now.is_some_and(|(_, foreground)| !foreground)));
    out.put("rdb_last_save_time", last_save);
    out.put("rdb_last_bgsave_status", if history.is_failing { "err" } else { "ok" });
    let took = history.saved_s.map_or(-1, |_| history.took.as_secs() as i64);
    out.put("rdb_last_bgsave_time_sec", took);
    out.put("rdb_current_bgsave_time_sec", history.now.map_or(-1, |(began, _)| seconds_since(began) as i64));
    out.put("rdb_saves", history.saves);
    out.put("rdb_last_load_keys_expired", snapshots.progress.expired.load(Ordering::Relaxed));
    out.put("rdb_last_load_keys_loaded", snapshots.progress.keys.load(Ordering::Relaxed));
    out.put("aof_enabled", 0);
    out.put("aof_rewrite_in_progress", 0);
}

fn stats(out: &mut Fields<'_>) {
    let (report, shared) = (out.report, out.shared);
    out.put("total_connections_received", shared.accepted.load(Ordering::Relaxed));
    out.put("total_commands_processed", report.processed);
    out.put("instantaneous_ops_per_sec", report.ops_per_second);
    out.put("total_pipelined_commands", report.pipelined);
    out.put("total_forwarded_commands", report.forwarded);
    out.put("total_net_input_bytes", report.received);
    out.put("total_net_output_bytes", report.sent);
    out.put("rejected_connections", shared.rejected.load(Ordering::Relaxed));
    let cut = report.backpressure;
    out.put(
        "client_output_buffer_limit_disconnections",
        report.output_limited + cut.soft_limit + cut.hard_limit + cut.forced_disconnect,
    );
    out.put("client_query_buffer_limit_disconnections", report.input_limited);
    out.put("expired_keys", report.over_dbs(|db| db.stats.expired));
    out.put("expired_subkeys", report.keyspace.expired_elements);
    out.put("total_heartbeat_expired_keys", report.keyspace.expired_in_background);
    out.put("evicted_keys", report.over_dbs(|db| db.stats.evicted));
    out.put("evicted_scripts", shared.scripts.evicted.load(Ordering::Relaxed));
    out.put("oom_rejections", report.oom);
    out.put("keyspace_hits", report.over_dbs(|db| db.stats.hits));
    out.put("keyspace_misses", report.over_dbs(|db| db.stats.misses));
    out.put("keyspace_mutations", report.keyspace.mutations);
    out.put("total_error_replies", report.error_replies);
    out.put("tracking_total_keys", report.tracking_keys);
    out.put("tracking_total_items", report.tracking_items);
    out.put("tracking_total_prefixes", report.tracking_prefixes);
    out.put("pubsub_channels", shared.registry.count(Kind::Channel));
    out.put("pubsub_patterns", shared.registry.count(Kind::Pattern));
    out.put("pubsubshard_channels", shared.registry.count(Kind::Shard));
}

/// Orchestrators read this section line by line and take every line with `role` in it for the role: nothing else here
/// may contain that word, and there is no blank line.
fn replication(out: &mut Fields<'_>) {
    out.put("role", "master");
    out.put("connected_slaves", 0);
    out.put("master_failover_state", "no-failover");
    let id = out.shared.replication_id.lock().unwrap_or_else(PoisonError::into_inner).clone();
    out.put("master_replid", id);
    out.put("master_replid2", "0".repeat(40));
    out.put("master_repl_offset", 0);
    out.put("second_repl_offset", -1);
    out.put("repl_backlog_active", 0);
}

fn cpu(out: &mut Fields<'_>) {
    if let Some(cpu) = process::Cpu::now() {
        out.put("used_cpu_sys", format_args!("{:.6}", cpu.system));
        out.put("used_cpu_user", format_args!("{:.6}", cpu.user));
        out.put("used_cpu_sys_children", format_args!("{:.6}", cpu.system_children));
        out.put("used_cpu_user_children", format_args!("{:.6}", cpu.user_children));
    }
    if let Some(cpu) = process::Cpu::of_main_thread() {
        out.put("used_cpu_sys_main_thread", format_args!("{:.6}", cpu.system));
        out.put("used_cpu_user_main_thread", format_args!("{:.6}", cpu.user));
    }
}

fn command_stats(out: &mut Fields<'_>) {
    let report = out.report;
    for (name, stat) in report.called() {
        let micros = stat.nanos / 1000;
        let each = if stat.calls == 0 { 0.0 } else { stat.nanos as f64 / 1000.0 / stat.calls as f64 };
        out.put(
            &format!("cmdstat_{name}"),
            format_args!(
                "calls={},usec={micros},usec_per_call={each:.2},rejected_calls={},failed_calls={}",
                stat.calls, stat.rejected, stat.failed
            ),
        );
    }
}

fn latency_stats(out: &mut Fields<'_>) {
    let report = out.report;
    let percentiles = out.shared.settings.latency_tracking_info_percentiles();
    for (name, histogram) in report.tracked() {
        let shown: Vec<String> = percentiles
            .split_whitespace()
            .filter_map(|percent| {
                Some(format!("p{percent}={:.3}", histogram.percentile_us(percent.parse().ok()?)))
            })
            .collect();
        out.put(&format!("latency_percentiles_usec_{name}"), shown.join(","));
    }
}

fn error_stats(out: &mut Fields<'_>) {
    let report = out.report;
    for (kind, replies) in &report.errors {
        // Some errors begin with what a client sent; a line stays a line.
        let kind: String =
            kind.chars().map(|c| if c.is_ascii_graphic() && c != ':' { c } else { '_' }).collect();
        out.put(&format!("errorstat_{kind}"), format_args!("count={replies}"));
    }
}

fn cluster(out: &mut Fields<'_>) {
    out.put("cluster_enabled", u8::from(out.shared.config.cluster_mode != ClusterMode::Off));
}

fn keyspace(out: &mut Fields<'_>) {
    let report = out.report;
    for (number, db) in report.dbs.iter().enumerate().filter(|(_, db)| db.keys > 0) {
        let (keys, expires, mean) = (db.keys, db.expires, db.mean_ttl_ms());
        out.put(&format!("db{number}"), format_args!("keys={keys},expires={expires},avg_ttl={mean}"));
    }
}

/// Bytes as Redis prints them for people.
pub fn human(bytes: u64) -> String {
    let units = ["K", "M", "G", "T", "P", "E"];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let unit = (bytes.ilog2() / 10) as usize;
    format!("{:.2}{}", bytes as f64 / (1u64 << (10 * unit)) as f64, units[unit - 1])
}

#[cfg(test)]
mod tests {
    use super::{SECTIONS, choose, human};

    fn titles(names: &[&str]) -> Vec<&'static str> {
        choose(names.iter().map(|name| name.as_bytes())).iter().map(|section| section.title).collect()
    }

    /// Names in any case and any order give the sections once and in their order; a name nobody knows gives none.
    #[test]
    fn selection() {
        assert_eq!(titles(&["stats", "SERVER", "server", "nosuch"]), ["Server", "Stats"]);
        assert!(titles(&["nosuch"]).is_empty());
        assert_eq!(titles(&["ALL"]).len(), SECTIONS.len());
        assert_eq!(titles(&["everything"]), titles(&["all"]));
        assert_eq!(titles(&["default"]), titles(&[]));
        assert!(!titles(&[]).contains(&"Commandstats"));
        assert_eq!(titles(&["default", "commandstats"]).len(), titles(&[]).len() + 1);
    }

    /// Two decimals and one letter, up to the largest number.
    #[test]
    fn for_people() {
        assert_eq!(human(0), "0B");
        assert_eq!(human(1023), "1023B");
        assert_eq!(human(1024), "1.00K");
        assert_eq!(human(1_572_864), "1.50M");
        assert_eq!(human(u64::MAX), "16.00E");
    }
}
