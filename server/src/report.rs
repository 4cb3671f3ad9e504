//! What a core knows about itself, as plain numbers that can be added up: the one source of INFO, MEMORY STATS and
//! the metrics.
//!
//! Each core fills a [`CoreReport`] on its own thread when it is asked; the asker adds them. So counters stay plain
//! integers in their shards, nothing is published that nobody reads, and no page can show a sum that another page
//! computes differently.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use damselfly_keyspace::{Cursor, Db, DbStats, Stats, Type};

use crate::connection::Listener;
use crate::core::Core;
use crate::latency::Histogram;
use crate::pubsub::backlog::Counts;
use crate::stats::{CommandStat, names};

/// Distinct client libraries counted by name, per core and in the sum; clients choose these names, so there must be a
/// bound. Those beyond are counted under the empty name.
const LIBS_MAX: usize = 64;
/// Keys with an expiry looked at for the mean time to live. The table's order is that of hashes, so its beginning is
/// a fair sample; 256 put the mean of evenly spread times within about 4 %.
const TTL_SAMPLE: u64 = 256;
/// Steps of the scan for that sample, so that a database with few expiring keys among many others costs no more than
/// some ten microseconds.
const TTL_SCAN_STEPS: usize = 64;

/// One database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DbReport {
    /// Keys, with those that have expired and were not found yet.
    pub keys: u64,
    /// Keys with an expiry.
    pub expires: u64,
    /// Keys that fit before tables grow.
    pub capacity: u64,
    /// Bytes of the table itself, entries included.
    pub table_bytes: u64,
    /// Bytes of the table and of everything outside it.
    pub heap_bytes: u64,
    /// Bytes of what is remembered for eviction.
    pub eviction_bytes: u64,
    /// Bytes of keys.
    pub key_bytes: u64,
    /// Bytes of values, by type.
    pub type_bytes: [u64; Type::ALL.len()],
    /// Counters.
    pub stats: DbStats,
    /// Milliseconds that the sampled keys have left, in total.
    pub ttl_sum_ms: u64,
    /// Keys sampled for that.
    pub ttl_sampled: u64,
}

impl DbReport {
    fn of(db: &Db, now: u64) -> DbReport {
        let mut report = DbReport {
            keys: db.len() as u64,
            expires: db.expires() as u64,
            capacity: db.capacity() as u64,
            table_bytes: db.table_bytes() as u64,
            heap_bytes: db.heap_bytes() as u64,
            eviction_bytes: db.eviction_bytes() as u64,
            key_bytes: db.key_bytes() as u64,
            type_bytes: std::array::from_fn(|of| db.type_bytes(Type::ALL[of]) as u64),
            ..DbReport::default()
        };
        let mut cursor = Cursor(0);
        for _ in 0..if report.expires > 0 { TTL_SCAN_STEPS } else { 0 } {
            cursor = db.scan(cursor, |loc| {
                if let Some(left) = db.expire_at(loc).and_then(|at| at.checked_sub(now)) {
                    report.ttl_sum_ms = report.ttl_sum_ms.saturating_add(left);
                    report.ttl_sampled += 1;
                }
            });
            if cursor == Cursor(0) || report.ttl_sampled >= TTL_SAMPLE {
                break;
            }
        }
        report
    }

    fn add(&mut self, other: &DbReport) {
        self.keys += other.keys;
        self.expires += other.expires;
        self.capacity += other.capacity;
        self.table_bytes += other.table_bytes;
        self.heap_bytes += other.heap_bytes;
        self.eviction_bytes += other.eviction_bytes;
        self.key_bytes += other.key_bytes;
        for (sum, bytes) in self.type_bytes.iter_mut().zip(other.type_bytes) {
            *sum += bytes;
        }
        self.stats.add(&other.stats);
        self.ttl_sum_ms = self.ttl_sum_ms.saturating_add(other.ttl_sum_ms);
        self.ttl_sampled += other.ttl_sampled;
    }

    /// Bytes of values of one type.
    pub fn bytes_of(&self, of: Type) -> u64 {
        self.type_bytes[of as usize]
    }

    /// Bytes of values that lie outside the table.
    pub fn object_bytes(&self) -> u64 {
        self.heap_bytes - self.table_bytes - self.eviction_bytes
    }

    /// Mean milliseconds to live of the keys with an expiry; 0 if none was found.
    pub fn mean_ttl_ms(&self) -> u64 {
        self.ttl_sum_ms.checked_div(self.ttl_sampled).unwrap_or(0)
    }
}

/// See the module's head.
#[derive(Clone, Debug, Default)]
pub struct CoreReport {
    /// By database number.
    pub dbs: Vec<DbReport>,
    /// Counters of the keyspace.
    pub keyspace: Stats,
    /// Changes of keys since the process began; CONFIG RESETSTAT does not touch these.
    pub mutations_ever: u64,
    /// Bytes of removed values that are still being freed.
    pub doomed_bytes: u64,
    /// How many keys, or values, these are of.
    pub doomed_len: u64,
    /// Bytes of the data of each shard; in a sum, one after the other.
    pub shard_bytes: Vec<u64>,
    /// Bytes of connections and of messages between cores.
    pub connection_bytes: u64,
    /// Of these, bytes of requests that are not complete yet.
    pub input_bytes: u64,
    /// Of these, bytes of replies that were not sent yet.
    pub output_bytes: u64,
    /// Open connections of the main port.
    pub connections_main: u64,
    /// Open connections of admin ports and the unix socket.
    pub connections_other: u64,
    /// Clients inside a blocking command.
    pub blocked: u64,
    /// Keys that such clients wait for.
    pub blocking_keys: u64,
    /// Of these, the ones with a client that is answered when the key goes.
    pub needed_keys: u64,
    /// Open connections by client library and version.
    pub libs: BTreeMap<String, u64>,
    /// By command index.
    pub commands: Vec<CommandStat>,
    /// Times of the commands, by command index, of those that were tracked.
    pub histograms: Vec<Option<Box<Histogram>>>,
    /// Error replies by their first word.
    pub errors: BTreeMap<String, u64>,
    /// All error replies.
    pub error_replies: u64,
    /// Commands run.
    pub processed: u64,
    /// Of these, the ones that came through admin ports or the unix socket.
    pub processed_other: u64,
    /// Commands that travelled between cores.
    pub forwarded: u64,
    /// Commands that came in a read together with others.
    pub pipelined: u64,
    /// Commands per second, of the last second.
    pub ops_per_second: u64,
    /// Bytes received from clients.
    pub received: u64,
    /// Bytes sent to clients.
    pub sent: u64,
    /// Connections closed for idleness.
    pub timed_out: u64,
    /// Clients closed because they did not take their replies.
    pub output_limited: u64,
    /// Clients closed because their unfinished requests took too much room.
    pub input_limited: u64,
    /// Commands refused for memory.
    pub oom: u64,
    /// Clients that are told of changes of keys.
    pub tracking_clients: u64,
    /// Keys that such clients have read.
    pub tracking_keys: u64,
    /// How many have read each of these, in all.
    pub tracking_items: u64,
    /// Prefixes of keys that clients are told of; the same on all cores.
    pub tracking_prefixes: u64,
    /// Clients that are subscribed.
    pub pubsub_clients: u64,
    /// Clients that watch keys.
    pub watching_clients: u64,
    /// Keys that anybody watches.
    pub watched_keys: u64,
    /// What was done about slow subscribers.
    pub backpressure: Counts,
}

impl CoreReport {
    /// What this core has to say, now.
    pub fn of(core: &Core) -> CoreReport {
        let now = core.ks.now;
        let stats = &core.stats;
        let mut report = CoreReport {
            dbs: (0..core.ks.databases())
                .map(|db| DbReport {
                    stats: core.ks.db_stats[db],
                    ..core.ks.db(db).map_or_else(DbReport::default, |db| DbReport::of(db, now))
                })
                .collect(),
            keyspace: core.ks.stats,
            mutations_ever: stats.mutations_before_reset + core.ks.stats.mutations,
            blocking_keys: core.blocked.keys().0 as u64,
            needed_keys: core.blocked.keys().1 as u64,
            doomed_bytes: core.ks.doomed_bytes() as u64,
            doomed_len: core.ks.doomed_len() as u64,
            connection_bytes: core.connection_bytes() as u64,
            commands: stats.commands.clone(),
            histograms: stats.histograms.clone(),
            errors: stats.errors.clone(),
            error_replies: stats.error_replies,
            processed: stats.processed,
            processed_other: stats.processed_other,
            forwarded: stats.forwarded,
            pipelined: stats.pipelined,
            ops_per_second: stats.ops_per_second,
            received: stats.received,
            sent: stats.sent,
            timed_out: stats.timed_out,
            output_limited: stats.output_limited,
            input_limited: stats.input_limited,
            oom: stats.oom,
            tracking_clients: core.tracking.clients() as u64,
            tracking_keys: core.tracking.keys_and_items().0 as u64,
            tracking_items: core.tracking.keys_and_items().1 as u64,
            tracking_prefixes: core.tracking.prefixes() as u64,
            pubsub_clients: core.pubsub.clients() as u64,
            watched_keys: core.watches.keys() as u64,
            backpressure: core.pubsub.backlog.counts,
            ..CoreReport::default()
        };
        report.shard_bytes = vec![report.data_bytes()];
        report.blocked = core.held.len() as u64;
        for connection in core.connections() {
            let client = &connection.client;
            report.watching_clients += u64::from(connection.watching.is_some());
            // The counters of closed connections may have been set back below zero by a reset, see `reset`.
            report.received = report.received.wrapping_add(connection.received);
            report.sent = report.sent.wrapping_add(connection.sent_total);
            report.input_bytes += connection.input_bytes() as u64;
            report.output_bytes += connection.output.capacity() as u64;
            if client.listener == Listener::Main {
                report.connections_main += 1;
            } else {
                report.connections_other += 1;
                report.processed_other = report.processed_other.wrapping_add(connection.commands);
            }
            report.blocked += u64::from(connection.blocked.as_ref().is_some_and(|waiter| waiter.is_open()));
            let lib = match (&*client.lib_name, &*client.lib_ver) {
                ("", "") => String::new(),
                (name, version) => format!("{name}:{version}"),
            };
            count(&mut report.libs, lib, 1);
        }
        report
    }

    /// The reports of all cores as one.
    pub fn sum(reports: impl IntoIterator<Item = CoreReport>) -> CoreReport {
        let mut reports = reports.into_iter();
        let mut sum = reports.next().unwrap_or_default();
        for report in reports {
            sum.add(report);
        }
        sum
    }

    fn add(&mut self, other: CoreReport) {
        // All fields are named, so that a new one cannot be forgotten here.
        let CoreReport {
            dbs,
            keyspace,
            mutations_ever,
            doomed_bytes,
            doomed_len,
            shard_bytes,
            connection_bytes,
            input_bytes,
            output_bytes,
            connections_main,
            connections_other,
            blocked,
            blocking_keys,
            needed_keys,
            libs,
            commands,
            histograms,
            errors,
            error_replies,
            processed,
            processed_other,
            forwarded,
            pipelined,
            ops_per_second,
            received,
            sent,
            timed_out,
            output_limited,
            input_limited,
            oom,
            tracking_clients,
            tracking_keys,
            tracking_items,
            tracking_prefixes,
            pubsub_clients,
            watching_clients,
            watched_keys,
            backpressure,
        } = other;
        self.shard_bytes.extend(shard_bytes);
        self.tracking_prefixes = self.tracking_prefixes.max(tracking_prefixes);
        let Counts { soft_limit, hard_limit, forced_disconnect, messages_discarded } = backpressure;
        let sums = &mut self.backpressure;
        for (db, other) in self.dbs.iter_mut().zip(&dbs) {
            db.add(other);
        }
        let Stats { mutations, expired_in_background, expired_elements, freed_in_steps } = keyspace;
        self.keyspace.mutations += mutations;
        self.keyspace.expired_in_background += expired_in_background;
        self.keyspace.expired_elements += expired_elements;
        self.keyspace.freed_in_steps += freed_in_steps;
        for (stat, other) in self.commands.iter_mut().zip(&commands) {
            stat.calls += other.calls;
            stat.nanos += other.nanos;
            stat.rejected += other.rejected;
            stat.failed += other.failed;
        }
        for (sum, other) in self.histograms.iter_mut().zip(histograms) {
            if let Some(other) = other {
                sum.get_or_insert_default().add(&other);
            }
        }
        for (lib, connections) in libs {
            count(&mut self.libs, lib, connections);
        }
        for (kind, replies) in errors {
            *self.errors.entry(kind).or_default() += replies;
        }
        for (to, from) in [
            (&mut self.mutations_ever, mutations_ever),
            (&mut self.doomed_bytes, doomed_bytes),
            (&mut self.doomed_len, doomed_len),
            (&mut self.blocking_keys, blocking_keys),
            (&mut self.needed_keys, needed_keys),
            (&mut self.connection_bytes, connection_bytes),
            (&mut self.input_bytes, input_bytes),
            (&mut self.output_bytes, output_bytes),
            (&mut self.connections_main, connections_main),
            (&mut self.connections_other, connections_other),
            (&mut self.blocked, blocked),
            (&mut self.error_replies, error_replies),
            (&mut self.processed, processed),
            (&mut self.processed_other, processed_other),
            (&mut self.forwarded, forwarded),
            (&mut self.pipelined, pipelined),
            (&mut self.ops_per_second, ops_per_second),
            (&mut self.received, received),
            (&mut self.sent, sent),
            (&mut self.timed_out, timed_out),
            (&mut self.output_limited, output_limited),
            (&mut self.input_limited, input_limited),
            (&mut self.oom, oom),
            (&mut self.tracking_clients, tracking_clients),
            (&mut self.tracking_keys, tracking_keys),
            (&mut self.tracking_items, tracking_items),
            (&mut self.pubsub_clients, pubsub_clients),
            (&mut self.watching_clients, watching_clients),
            (&mut self.watched_keys, watched_keys),
            (&mut sums.soft_limit, soft_limit),
            (&mut sums.hard_limit, hard_limit),
            (&mut sums.forced_disconnect, forced_disconnect),
            (&mut sums.messages_discarded, messages_discarded),
        ] {
            *to = to.wrapping_add(from);
        }
    }

    /// A field summed over the databases.
    pub fn over_dbs(&self, field: impl Fn(&DbReport) -> u64) -> u64 {
        self.dbs.iter().map(field).sum()
    }

    /// Bytes of values by the name of their type, then those of keys; only of what there is.
    pub fn type_bytes(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let values = Type::ALL.iter().map(|&of| (of.name(), self.over_dbs(|db| db.bytes_of(of))));
        values.chain([("key", self.over_dbs(|db| db.key_bytes))]).filter(|(_, bytes)| *bytes > 0)
    }

    /// Bytes of the data, and of what was data and is still being freed.
    pub fn data_bytes(&self) -> u64 {
        self.over_dbs(|db| db.heap_bytes) + self.doomed_bytes
    }

    /// `used_memory`: data, connections, and what the process itself takes.
    pub fn used_bytes(&self, startup: u64) -> u64 {
        self.data_bytes() + self.connection_bytes + startup
    }

    /// Commands that were called, refused or failed at least once, by lower-case name; sub-commands by both.
    pub fn called(&self) -> impl Iterator<Item = (String, CommandStat)> + '_ {
        names()
            .zip(self.commands.iter().copied())
            .filter(|(_, stat)| stat.calls + stat.rejected + stat.failed > 0)
    }

    /// Commands whose times were tracked, by lower-case name.
    pub fn tracked(&self) -> impl Iterator<Item = (String, &Histogram)> + '_ {
        names().zip(&self.histograms).filter_map(|(name, histogram)| Some((name, histogram.as_deref()?)))
    }
}

fn count(libs: &mut BTreeMap<String, u64>, lib: String, connections: u64) {
    let lib = if libs.len() < LIBS_MAX || libs.contains_key(&lib) { lib } else { String::new() };
    *libs.entry(lib).or_default() += connections;
}

/// Sets the counters of a core back, for CONFIG RESETSTAT.
pub fn reset(core: &mut Core) {
    core.stats.mutations_before_reset += core.ks.stats.mutations;
    core.ks.stats = Stats::default();
    core.ks.db_stats.fill(DbStats::default());
    core.stats.reset();
    core.pubsub.backlog.counts = Counts::default();
    // Open connections go on counting for CLIENT LIST; what they have counted so far is taken out of the totals.
    let (mut received, mut sent, mut other) = (0u64, 0u64, 0u64);
    for connection in core.connections() {
        received = received.wrapping_add(connection.received);
        sent = sent.wrapping_add(connection.sent_total);
        if connection.client.listener != Listener::Main {
            other = other.wrapping_add(connection.commands);
        }
    }
    core.stats.received = received.wrapping_neg();
    core.stats.sent = sent.wrapping_neg();
    core.stats.processed_other = other.wrapping_neg();
    if core.id == 0 {
        core.shared.accepted.store(0, Ordering::Relaxed);
        core.shared.rejected.store(0, Ordering::Relaxed);
        core.shared.used_peak.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{CoreReport, DbReport, LIBS_MAX, count};
    use crate::stats::CommandStat;

    fn report(n: u64) -> CoreReport {
        let stat = CommandStat { calls: n, nanos: 10 * n, rejected: 1, failed: 0 };
        CoreReport {
            dbs: vec![DbReport { keys: n, ttl_sum_ms: 100 * n, ttl_sampled: 1, ..DbReport::default() }; 2],
            commands: vec![stat; damselfly_commands::all().count()],
            errors: [("ERR".to_string(), n)].into(),
            processed: n,
            doomed_bytes: 5,
            ..CoreReport::default()
        }
    }

    /// The sum has every core's share; the mean is that of all sampled keys.
    #[test]
    fn sums() {
        let sum = CoreReport::sum([report(1), report(2), report(4)]);
        assert_eq!((sum.processed, sum.over_dbs(|db| db.keys), sum.errors["ERR"]), (7, 14, 7));
        assert_eq!(sum.dbs[1].mean_ttl_ms(), 700 / 3);
        assert_eq!(sum.data_bytes(), 15);
        assert_eq!(sum.called().count(), damselfly_commands::all().count());
        assert_eq!(CoreReport::sum([]).dbs.len(), 0);
        assert_eq!(DbReport::default().mean_ttl_ms(), 0);
    }

    /// Clients cannot make the map grow by inventing library names.
    #[test]
    fn library_names_are_bounded() {
        let mut libs = std::collections::BTreeMap::new();
        for i in 0..1000 {
            count(&mut libs, format!("lib{i}:1"), 1);
        }
        assert!(libs.len() <= LIBS_MAX + 1);
        assert_eq!(libs.values().sum::<u64>(), 1000);
    }
}
