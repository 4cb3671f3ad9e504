//! The table: every setting, one line each.
//!
//! Columns: how CONFIG spells it (`-` as Redis does, `_` as Dragonfly does), name, `[aliases]`, kind,
//! default, what CONFIG may do, effect, help. Defaults are Dragonfly's where Dragonfly has the name, else
//! those of Redis 7.0. Deviations: proto_max_bulk_len is Redis' (Dragonfly:
//! 2gb); max_multi_bulk_len is 1048576, as 65536 refuses an MSET that Redis takes; protected_mode and
//! stop_writes_on_bgsave_error are off, as the server does neither; logtostderr and force_epoll say what is
//! always the case.
//!
//! Names without effect are here because manifests in the field set them: a server that refuses to start over
//! a tuning knob it does not have is no drop-in. They are still typed, as the grammar needs to know switches.

use crate::table::{Area, Effect, Exposure, Row};
use crate::value::Kind;

macro_rules! rows {
    ($($area:ident {
        $($spelling:tt $name:ident $([$($alias:ident)*])? $kind:ident $(($($bound:expr),*))?, $default:literal
          $exposure:ident $effect:ident $help:literal;)*
    })*) => {
        /// The table.
        pub const ROWS: &[Row] = &[$($(Row {
            name: stringify!($name),
            aliases: &[$($(stringify!($alias)),*)?],
            area: Area::$area,
            kind: Kind::$kind $(($($bound),*))?,
            default: $default,
            exposure: Exposure::$exposure,
            effect: Effect::$effect,
            dashes: rows!(@dashes $spelling),
            help: $help,
        },)*)*];
    };
    (@dashes -) => { true };
    (@dashes _) => { false };
}

const I32: i64 = i32::MAX as i64;
const U32: i64 = u32::MAX as i64;
const I64: i64 = i64::MAX;
const BYTES: u64 = u64::MAX;
/// Bytes where Redis bounds a signed 64-bit number.
const SIGNED_BYTES: u64 = i64::MAX as u64;
const MIB: u64 = 1 << 20;

/// Redis' eviction policies, in the order of [`crate::MaxmemoryPolicy`].
pub(crate) const POLICIES: &[&str] = &[
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "noeviction",
];
/// In the order of [`crate::LogLevel`].
pub(crate) const LOG_LEVELS: &[&str] = &["debug", "verbose", "notice", "warning"];
/// In the order of [`crate::ClusterMode`].
pub(crate) const CLUSTER_MODES: &[&str] = &["", "emulated", "yes"];
/// As Dragonfly names them; of these, "auto" is what "on" is here too.
pub(crate) const AFFINITIES: &[&str] = &["on", "auto", "off"];
/// By number and by name, twice in the order of [`crate::Compression`].
pub(crate) const COMPRESSIONS: &[&str] =
    &["NONE", "SINGLE_ENTRY", "MULTI_ENTRY_ZSTD", "MULTI_ENTRY_LZ4", "0", "1", "2", "3"];

const NO_AOF: &str = "there is no append-only file; use --snapshot_cron";
const NO_SAVE_POINTS: &str = "there are no save points; use snapshot_cron";
const NO_DEFRAG: &str = "Active defragmentation cannot be enabled: the allocator does not offer it";

rows! {
Network {
    - port Int(-1, 65_535), "6379" Fixed Used "Port for clients. 0: none; -1: any free one.";
    - bind Text, "" Fixed Used "Address the ports for clients listen on; empty: all.";
    _ admin_port Int(0, 65_535), "0" Fixed Used
        "Privileged port, RESP and HTTP; 0: none. Given several times, all are listened on.";
    _ admin_bind Text, "" Fixed Used "Address the admin ports listen on; empty: all.";
    _ admin_nopass Bool, "false" Fixed Used "Ask for no password on the admin ports.";
    _ primary_port_http_enabled Bool, "true" Fixed Used "Answer HTTP on the port for clients, too.";
    _ http_port Int(0, 65_535), "8080" Fixed Used
        "Port for HTTP alone: /metrics, /healthz, /readyz; 0: none.";
    _ metrics_port Int(0, 65_535), "0" Fixed Used
        "One more port for /metrics; a port that is served anyway gets HTTP switched on. 0: none.";
    - unixsocket Text, "" Fixed Used "Path of a Unix socket to listen on; empty: none.";
    - unixsocketperm Mode, "" Fixed Used "Permissions of the Unix socket, in octal.";
    _ memcached_port Int(0, 65_535), "0" Fixed NotYet "Port for the memcached text protocol; 0: none.";
    - maxclients Int(1, U32), "64000" Settable Used "Most clients at a time.";
    - timeout Int(0, I32), "0" Settable Used "Close clients that were idle for this many seconds; 0: never.";
    _ send_timeout Int(0, I32), "0" Settable Used
        "Close clients that took nothing for this many seconds while replies wait; 0: never.";
    - tcp_keepalive Int(0, I32), "300" Settable Used "Seconds of silence before a keep-alive probe; 0: none.";
    - tcp_backlog Int(0, I32), "256" Fixed Used "Connections the kernel may queue before they are accepted.";
    _ tcp_user_timeout Int(0, I32), "0" Fixed Used
        "Milliseconds sent data may stay unacknowledged before the connection is closed; 0: the kernel's.";
    - proto_max_bulk_len [max_bulk_len] Bytes(MIB, SIGNED_BYTES), "512mb" Settable Used
        "Longest argument of a command.";
    _ max_multi_bulk_len Int(1, I32), "1048576" Fixed Used "Most arguments of a command.";
    - client_query_buffer_limit Bytes(MIB, SIGNED_BYTES), "1gb" Settable Used "Longest command as a whole.";
    - client_output_buffer_limit OutputLimits, "" Settable Used
        "Unsent output per class (normal, replica, pubsub): hard limit, soft limit, seconds above it.";
    _ pipeline_queue_limit Int(1, U32), "10000" Settable Used
        "Pipelined commands of one client that are taken in at once, at most 128.";
    _ pipeline_buffer_limit Bytes(0, BYTES), "128mb" Settable Ignored "";
    _ restricted_commands Text, "" Fixed Used "Comma list of commands that only the admin ports may run.";
    _ command_alias Text, "" Fixed Used "Comma list of alias=command.";
    _ managed_service_info Bool, "false" Settable Used
        "Hide details of the host from INFO, but on admin ports.";
    _ availability_zone Text, "" Fixed Used "Name of the zone, shown in HELLO and INFO.";
    _ pause_wait_timeout Int(0, I32), "1" Fixed Ignored "";
    _ tcp_nodelay Bool, "true" Hidden Always "";
    _ force_epoll Bool, "true" Hidden Always "";
    _ always_flush_pipeline Bool, "false" Settable Ignored "";
    _ async_dispatch_quota Int(0, I64), "100" Hidden Ignored "";
    _ conn_io_thread_start Int(0, I64), "0" Hidden Ignored "";
    _ conn_io_threads Int(0, I64), "0" Hidden Ignored "";
    _ conn_use_incoming_cpu Bool, "false" Hidden Ignored "";
    _ disk_backpressure_folder Text, "" Hidden Ignored "";
    _ enable_memcache_io_loop_v2 Bool, "true" Hidden Ignored "";
    _ enable_pipeline_squashing_v2 Bool, "true" Hidden Ignored "";
    _ enable_resp_io_loop_v2 Bool, "false" Hidden Ignored "";
    _ enable_tcp_defer_accept Bool, "true" Hidden Ignored "";
    _ expose_http_api Bool, "false" Hidden Ignored "";
    _ get_zero_copy Bool, "true" Hidden Ignored "";
    _ log_squash_info_threshold_usec Int(0, I64), "2147483648" Settable Ignored "";
    _ max_busy_read_usec Int(0, I64), "200" Settable Ignored "";
    _ max_busy_squash_usec Int(0, I64), "1000" Settable Ignored "";
    _ max_client_iobuf_len Bytes(0, BYTES), "65536" Hidden Ignored "";
    _ max_squashed_cmd_num Int(0, I64), "100" Settable Ignored "";
    _ mget_dedup_keys Bool, "false" Hidden Ignored "";
    _ migrate_connections Bool, "true" Hidden Ignored "";
    _ pipeline_parse_in_proactor Bool, "true" Hidden Ignored "";
    _ pipeline_prioritize_large_batches Bool, "true" Hidden Ignored "";
    _ pipeline_squash Int(0, I64), "1" Settable Ignored "";
    _ pipeline_squash_limit Bytes(0, BYTES), "1073741824" Settable Ignored "";
    _ pipeline_wait_batch_usec Int(0, I64), "0" Settable Ignored "";
    _ publish_buffer_limit Bytes(0, BYTES), "196mb" Settable Used
        "Most bytes of messages that subscribers have not taken, per thread; then the slowest is cut. 0: any.";
    _ pubsub_slow_subscriber_timeout_ms Int(0, I64), "0" Hidden Ignored "";
    _ registered_buffer_size Bytes(0, BYTES), "524288" Hidden Ignored "";
    _ request_cache_limit Bytes(0, BYTES), "64mb" Hidden Ignored "";
    _ squashed_reply_size_limit Bytes(0, BYTES), "0" Hidden Ignored "";
    _ uring_direct_table_len Int(0, I64), "0" Hidden Ignored "";
    _ uring_disable_iowait Bool, "false" Hidden Ignored "";
    _ uring_recv_buffer_cnt Int(0, I64), "0" Hidden Ignored "";
    _ write_connection_throttling_sleep_usec Int(0, I64), "0" Settable Ignored "";
    - bind_source_addr Text, "" Settable Ignored "";
    - io_threads Int(1, 128), "1" Fixed Ignored "";
    - io_threads_do_reads YesNo, "no" Fixed Ignored "";
    - maxmemory_clients BytesOrPercent, "0" Settable Ignored "";
    - protected_mode YesNo, "no" Settable Ignored "";
    - socket_mark_id Int(0, U32), "0" Fixed Ignored "";
    - tracking_table_max_keys Int(0, I64), "1000000" Settable Used
        "Keys remembered for client-side caching; above, clients are told to forget some. 0: any number.";
}
Threads {
    _ proactor_threads Int(0, 1024), "0" Fixed Used
        "Threads, one per core; 0: as many as the CPU limit allows.";
    _ num_shards Int(0, 1024), "0" Fixed Ignored "";
    - hz Int(1, 1000), "100" Settable Used "Background ticks per second: expiry, eviction, timeouts.";
    _ proactor_affinity_mode Choice(AFFINITIES), "on" Fixed Used
        "Threads keep to a CPU each, where there are as many of both and nobody else wants theirs: on, or auto; off.";
    _ background_debug_jobs Bool, "false" Settable Ignored "";
    _ background_heartbeat Bool, "false" Hidden Ignored "";
    _ container_iteration_yield_interval_usec Int(0, I64), "500" Hidden Ignored "";
    _ epoll_file_threads Int(0, I64), "0" Hidden Ignored "";
    _ fiber_run_warning_threshold_ms Int(0, I64), "0" Hidden Ignored "";
    _ fiber_safety_margin Bytes(0, BYTES), "1024" Hidden Ignored "";
    _ scheduler_background_budget Int(0, I64), "50000" Settable Ignored "";
    _ scheduler_background_sleep_prob Int(0, I64), "50" Settable Ignored "";
    _ scheduler_background_warrant Int(0, I64), "5" Settable Ignored "";
    _ shard_round_robin_prefix Text, "" Hidden Ignored "";
    _ shard_thread_busy_polling_usec Int(0, I64), "0" Settable Ignored "";
    _ tx_queue_warning_len Int(0, I64), "96" Hidden Ignored "";
    - dynamic_hz YesNo, "yes" Settable Ignored "";
}
Memory {
    - maxmemory Bytes(0, BYTES), "0" Settable Used
        "Bytes of memory to use, as the kernel counts them; 0 at start: 80 % of what is available.";
    - maxmemory_policy Choice(POLICIES), "noeviction" Settable Used
        "What is evicted when memory is full. With --cache_mode it starts as allkeys-lru.";
    - maxmemory_samples Int(1, I32), "5" Settable Ignored "";
    _ cache_mode Bool, "false" Fixed Used "Evict instead of refusing writes when memory is full.";
    _ rss_oom_deny_ratio Float, "1.25" Settable Ignored "";
    - databases [dbnum] Int(1, 1024), "16" Fixed Used "Databases SELECT can choose from.";
    _ keys_output_limit Int(0, U32), "8192" Fixed Used "Most keys KEYS returns; 0: no limit.";
    - active_expire_effort Int(1, 10), "1" Settable Used "How much of a tick goes into finding expired keys.";
    _ backing_file_direct Bool, "true" Hidden Ignored "";
    _ disable_json_defragmentation Bool, "false" Hidden Ignored "";
    _ enable_heartbeat_eviction Bool, "true" Settable Ignored "";
    _ enable_heartbeat_rss_eviction Bool, "true" Settable Ignored "";
    _ eviction_memory_budget_threshold Float, "0.1" Hidden Ignored "";
    _ lock_on_hashtags Bool, "false" Hidden Ignored "";
    _ locktag_delimiter Text, "" Hidden Ignored "";
    _ locktag_prefix Text, "" Hidden Ignored "";
    _ locktag_skip_n_end_delimiters Int(0, I64), "0" Hidden Ignored "";
    _ max_eviction_per_heartbeat Int(0, I64), "100" Settable Ignored "";
    _ max_segment_to_consider Int(0, I64), "4" Settable Ignored "";
    _ mem_defrag_check_sec_interval Int(0, I64), "60" Hidden Ignored "";
    _ mem_defrag_page_utilization_threshold Float, "0.8" Hidden Ignored "";
    _ mem_defrag_threshold Float, "0.7" Hidden Ignored "";
    _ mem_defrag_waste_threshold Float, "0.2" Hidden Ignored "";
    _ replica_delete_expired Bool, "true" Hidden Ignored "";
    _ table_growth_margin Float, "0.15" Settable Ignored "";
    _ tiered_experimental_cooling Bool, "true" Settable Ignored "";
    _ tiered_experimental_hash_support Bool, "false" Settable Ignored "";
    _ tiered_experimental_list_support Bool, "false" Settable Ignored "";
    _ tiered_max_file_size Bytes(0, BYTES), "0" Hidden Ignored "";
    _ tiered_max_pending_stash_bytes Bytes(0, BYTES), "262144" Settable Ignored "";
    _ tiered_min_ttl_to_offload_ms Int(0, I64), "5000" Settable Ignored "";
    _ tiered_min_value_size Int(0, I64), "64" Settable Ignored "";
    _ tiered_offload_threshold Float, "0.5" Settable Ignored "";
    _ tiered_prefix Text, "" Hidden Ignored "";
    _ tiered_upload_threshold Float, "0.1" Settable Ignored "";
    _ tiering_disk_storage_initial_size Bytes(0, BYTES), "256mb" Hidden Ignored "";
    _ unlink_experimental_async Bool, "true" Hidden Ignored "";
    - activedefrag Only("no", NO_DEFRAG), "no" Settable Always "";
    - active_defrag_cycle_max Int(1, 99), "25" Settable Ignored "";
    - active_defrag_cycle_min Int(1, 99), "1" Settable Ignored "";
    - active_defrag_ignore_bytes Bytes(1, SIGNED_BYTES), "100mb" Settable Ignored "";
    - active_defrag_max_scan_fields Int(1, I64), "1000" Settable Ignored "";
    - active_defrag_threshold_lower Int(0, 1000), "10" Settable Ignored "";
    - active_defrag_threshold_upper Int(0, 1000), "100" Settable Ignored "";
    - activerehashing YesNo, "yes" Settable Ignored "";
    - lazyfree_lazy_eviction YesNo, "no" Settable Ignored "";
    - lazyfree_lazy_expire YesNo, "no" Settable Ignored "";
    - lazyfree_lazy_server_del YesNo, "no" Settable Ignored "";
    - lazyfree_lazy_user_del YesNo, "no" Settable Ignored "";
    - lazyfree_lazy_user_flush YesNo, "no" Settable Ignored "";
    - lfu_decay_time Int(0, I32), "1" Settable Ignored "";
    - lfu_log_factor Int(0, I32), "10" Settable Ignored "";
    - maxmemory_eviction_tenacity Int(0, 100), "10" Settable Ignored "";
}
Encodings {
    - hash_max_listpack_entries [hash_max_ziplist_entries] Int(0, I64), "512" Settable Used
        "Most fields of a hash that is kept as one flat block.";
    - hash_max_listpack_value [hash_max_ziplist_value] Bytes(0, SIGNED_BYTES), "64" Settable Used
        "Longest field or value of such a hash.";
    - set_max_intset_entries Int(0, I64), "512" Settable Used
        "Most members of a set kept as sorted integers.";
    - set_max_listpack_entries Int(0, I64), "128" Settable Used
        "Most members of a set kept as one flat block.";
    - set_max_listpack_value Bytes(0, SIGNED_BYTES), "64" Settable Used "Longest member of such a set.";
    - zset_max_listpack_entries [zset_max_ziplist_entries] Int(0, I64), "128" Settable Used
        "Most members of a sorted set kept as one flat block.";
    - zset_max_listpack_value [zset_max_ziplist_value] Bytes(0, SIGNED_BYTES), "64" Settable Used
        "Longest member of such a sorted set.";
    - list_max_listpack_size [list_max_ziplist_size] Int(-I32 - 1, I32), "-2" Settable Used
        "Elements, or from -1 to -5 sizes, up to which OBJECT ENCODING calls a list a listpack.";
    - list_compress_depth Int(0, I32), "0" Settable Ignored "";
    - stream_node_max_bytes Bytes(0, SIGNED_BYTES), "4096" Settable Used
        "Bytes of one node of a stream; 0: no limit.";
    - stream_node_max_entries Int(0, I64), "100" Settable Used
        "Entries of one node of a stream; 0: no limit.";
    - hll_sparse_max_bytes Bytes(0, SIGNED_BYTES), "3000" Settable Used "Longest sparse HyperLogLog.";
    _ experimental_flat_json Bool, "false" Hidden Ignored "";
    _ huffman_table Text, "" Hidden Ignored "";
    _ jsonpathv2 Bool, "true" Hidden Ignored "";
    _ list_compress_dict_threshold Bytes(0, BYTES), "0" Hidden Ignored "";
    _ list_compress_level Int(-I32, I32), "-1" Hidden Ignored "";
    _ list_tiering_prefetch_depth Int(0, I64), "0" Hidden Ignored "";
    _ list_tiering_threshold Int(0, I64), "0" Hidden Ignored "";
    _ listpack_max_bytes Bytes(0, BYTES), "1024" Hidden Ignored "";
    _ listpack_max_field_len Bytes(0, BYTES), "64" Hidden Ignored "";
    _ use_oah_set Bool, "false" Hidden Ignored "";
}
Snapshots {
    - dir Text, "" Fixed Used "Directory of snapshots; empty: the working directory.";
    - dbfilename FileName, "dump-{timestamp}" Settable Used
        "Name of a snapshot, with {timestamp}, {Y}, {m}, {d}. Empty: none at shutdown, none is loaded.";
    _ snapshot_cron Cron, "" Settable Used "When to save: minute hour day month weekday; empty: never.";
    _ save_schedule Text, "" Fixed Used "Old form of --snapshot_cron: HH:MM, each a pattern such as * or 0?.";
    _ df_snapshot_format Bool, "true" Fixed Used "One file per shard and a summary; false: one rdb file.";
    _ compression_mode Choice(COMPRESSIONS), "MULTI_ENTRY_LZ4" Fixed Used
        "Compression of snapshots and full syncs: 0 none, 1 lzf per entry, 2 zstd, 3 lz4.";
    _ compression_level Int(-128, 22), "2" Fixed Used "Effort of zstd and lz4.";
    _ serialization_max_chunk_size Bytes(0, BYTES), "65536" Settable Used
        "Larger values are written to snapshots and replicas in parts; 0: never.";
    _ rdb_ignore_expiry Bool, "false" Fixed Used "Load keys without their expiry.";
    _ background_snapshotting Bool, "false" Settable Ignored "";
    _ deserialize_hnsw_index Bool, "false" Hidden Ignored "";
    _ rdb_load_dry_run Bool, "false" Hidden Ignored "";
    _ rdb_sbf_chunked Bool, "true" Hidden Ignored "";
    _ s3_ec2_metadata Bool, "false" Hidden Used "Ask the machine's metadata service for credentials.";
    _ s3_endpoint Text, "" Hidden Used "HOST:PORT of an S3 server that is not Amazon's.";
    _ s3_sign_payload Bool, "true" Hidden Used "Sign contents sent to S3, too.";
    _ s3_use_helio_client Bool, "true" Hidden Ignored "";
    _ s3_use_https Bool, "true" Hidden Used "Speak to --s3_endpoint with TLS.";
    _ serialization_tagged_chunks Bool, "true" Hidden Ignored "";
    _ serialize_hnsw_index Bool, "false" Hidden Ignored "";
    _ snapshot_egress_limit_bytes Bytes(0, BYTES), "0" Settable Ignored "";
    - appendonly Only("no", NO_AOF), "no" Settable Always "";
    - save Only("", NO_SAVE_POINTS), "" Settable Always "";
    - aof_load_truncated YesNo, "yes" Settable Ignored "";
    - aof_rewrite_incremental_fsync YesNo, "yes" Settable Ignored "";
    - aof_timestamp_enabled YesNo, "no" Settable Ignored "";
    - aof_use_rdb_preamble YesNo, "yes" Settable Ignored "";
    - appenddirname Text, "appendonlydir" Fixed Ignored "";
    - appendfilename Text, "appendonly.aof" Fixed Ignored "";
    - appendfsync Choice(&["everysec", "always", "no"]), "everysec" Settable Ignored "";
    - auto_aof_rewrite_min_size Bytes(0, SIGNED_BYTES), "64mb" Settable Ignored "";
    - auto_aof_rewrite_percentage Int(0, I32), "100" Settable Ignored "";
    - no_appendfsync_on_rewrite YesNo, "no" Settable Ignored "";
    - rdb_del_sync_files YesNo, "no" Settable Ignored "";
    - rdb_save_incremental_fsync YesNo, "yes" Settable Ignored "";
    - rdbchecksum YesNo, "yes" Fixed Ignored "";
    - rdbcompression YesNo, "yes" Settable Ignored "";
    - sanitize_dump_payload Choice(&["no", "yes", "clients"]), "no" Settable Ignored "";
    - stop_writes_on_bgsave_error YesNo, "no" Settable Ignored "";
}
Replication {
    - replicaof [slaveof] HostPort, "" Fixed NotYet
        "Start as a replica of host:port; no snapshot is loaded then.";
    - masteruser Text, "" Settable NotYet "User a replica gives its master.";
    - masterauth Secret, "" Settable NotYet "Password a replica gives its master.";
    - replica_priority [slave_priority] Int(0, I32), "100" Settable NotYet
        "Rank in a failover by Sentinel; 0: never.";
    - replica_announce_ip [slave_announce_ip] Text, "" Settable NotYet "Address a replica gives its master.";
    _ announce_port [replica_announce_port slave_announce_port] Int(0, 65_535), "0" Settable NotYet
        "Port a replica gives its master, and clients of a cluster see; 0: --port.";
    _ break_replication_on_master_restart Bool, "false" Fixed NotYet
        "Keep the data and stop following when the master comes back as another process.";
    _ replica_partial_sync Bool, "true" Settable NotYet
        "Continue where a broken link stopped, if the master still can.";
    _ master_connect_timeout_ms Int(1, I32), "20000" Fixed NotYet "Time for connecting to the master.";
    _ master_reconnect_timeout_ms Int(1, I32), "1000" Fixed NotYet "Pause before connecting again.";
    _ replication_acks_interval Int(1, I32), "1000" Fixed NotYet
        "Milliseconds between a replica's acknowledgements.";
    _ replication_timeout Int(0, I32), "30000" Settable NotYet
        "Milliseconds a replica may take nothing before its link is cut; 0: for ever.";
    _ shard_repl_backlog_len Int(1, U32), "8192" Fixed NotYet
        "Journal entries each shard keeps for partial syncs.";
    _ shard_repl_backlog_max_bytes Bytes(0, BYTES), "0" Fixed NotYet
        "Bytes of journal each shard keeps; 0: 0.5 % of maxmemory over all shards.";
    _ shard_repl_backlog_time_ms Int(0, I64), "5000" Fixed NotYet "Age of the journal each shard keeps.";
    _ info_replication_valkey_compatible Bool, "true" Fixed NotYet "INFO says slave and online, as Redis does.";
    _ tls_replication Bool, "false" Fixed NotYet "Connect to the master with TLS.";
    _ replicaof_no_one_start_journal Bool, "true" Hidden Always "";
    _ experimental_cascaded_partial_sync Bool, "false" Hidden Ignored "";
    _ journal_omit_redundant_writes Bool, "true" Hidden Ignored "";
    _ replication_dispatch_threshold Int(0, I64), "1500" Hidden Ignored "";
    _ replication_stream_output_limit Bytes(0, BYTES), "1048576" Hidden Ignored "";
    - min_replicas_max_lag [min_slaves_max_lag] Int(0, I32), "10" Settable Ignored "";
    - min_replicas_to_write [min_slaves_to_write] Int(0, I32), "0" Settable Ignored "";
    - repl_backlog_size Bytes(1, SIGNED_BYTES), "1mb" Settable Ignored "";
    - repl_backlog_ttl Int(0, I64), "3600" Settable Ignored "";
    - repl_disable_tcp_nodelay YesNo, "no" Settable Ignored "";
    - repl_diskless_load Choice(&["disabled", "on-empty-db", "swapdb"]), "disabled" Settable Ignored "";
    - repl_diskless_sync YesNo, "yes" Settable Ignored "";
    - repl_diskless_sync_delay Int(0, I32), "5" Settable Ignored "";
    - repl_diskless_sync_max_replicas Int(0, I32), "0" Settable Ignored "";
    - repl_ping_replica_period [repl_ping_slave_period] Int(1, I32), "10" Settable Ignored "";
    - repl_timeout Int(1, I32), "60" Settable Ignored "";
    - replica_announced YesNo, "yes" Settable Ignored "";
    - replica_ignore_maxmemory [slave_ignore_maxmemory] YesNo, "yes" Settable Ignored "";
    - replica_lazy_flush [slave_lazy_flush] YesNo, "no" Settable Ignored "";
    - replica_read_only [slave_read_only] YesNo, "yes" Settable Ignored "";
    - replica_serve_stale_data [slave_serve_stale_data] YesNo, "yes" Settable Ignored "";
}
Cluster {
    _ cluster_mode Choice(CLUSTER_MODES), "" Fixed NotYet "Empty, emulated (a cluster of one node) or yes.";
    _ cluster_node_id Text, "" Fixed NotYet "Identity in a cluster; empty: the replication id.";
    - cluster_announce_ip Text, "" Settable NotYet "Address clients of a cluster see.";
    _ cluster_coordinator_connect_timeout_ms Int(0, I64), "3000" Hidden Ignored "";
    _ cluster_coordinator_response_timeout_ms Int(0, I64), "3000" Hidden Ignored "";
    _ cluster_flush_decommit_memory Bool, "false" Hidden Ignored "";
    _ cluster_search Bool, "false" Hidden Ignored "";
    _ experimental_cluster_shard_by_slot Bool, "false" Hidden Ignored "";
    _ migration_buckets_cpu_budget Float, "0.2" Hidden Ignored "";
    _ migration_buckets_serialization_threshold Int(0, I64), "10" Hidden Ignored "";
    _ migration_buckets_sleep_usec Int(0, I64), "500" Hidden Ignored "";
    _ migration_finalization_timeout_ms Int(0, I64), "30000" Settable Ignored "";
    _ slot_migration_connection_timeout_ms Int(0, I64), "2000" Hidden Ignored "";
    _ slot_migration_throttle_us Int(0, I64), "0" Settable Ignored "";
    - cluster_allow_reads_when_down YesNo, "no" Settable Ignored "";
    - cluster_enabled YesNo, "no" Fixed Ignored "";
    - cluster_node_timeout Int(0, I64), "15000" Settable Ignored "";
    - cluster_require_full_coverage YesNo, "yes" Settable Ignored "";
}
Security {
    - requirepass Secret, "" Settable Used "Password of the user default; empty: none is asked for.";
    - aclfile Text, "" Settable NotYet "File with the users and their rights.";
    - acllog_max_len Int(0, I64), "32" Settable NotYet "Entries ACL LOG keeps.";
    _ tls Bool, "false" Settable NotYet "TLS on every port. Set again at run time, it reads the files again.";
    _ no_tls_on_admin_port Bool, "false" Fixed NotYet "No TLS on the admin ports.";
    - tls_cert_file Text, "" Settable NotYet "The server's certificates, as PEM.";
    - tls_key_file Text, "" Settable NotYet "The key of the first certificate, as PEM.";
    - tls_ca_cert_file Text, "" Settable NotYet "Authorities whose certificates clients must show, as PEM.";
    - tls_ca_cert_dir Text, "" Settable NotYet "A directory of such authorities.";
    - tls_ciphers Text, "DEFAULT:!MEDIUM" Hidden Ignored "";
    _ tls_cipher_suites Text, "" Hidden Ignored "";
    - tls_prefer_server_ciphers Bool, "false" Hidden Ignored "";
    - tls_session_cache_size Int(0, I64), "20480" Hidden Ignored "";
    - tls_session_cache_timeout Int(0, I64), "300" Hidden Ignored "";
    - tls_session_caching Bool, "false" Hidden Ignored "";
    _ user Text, "" Hidden Ignored "";
    - acl_pubsub_default Choice(&["allchannels", "resetchannels"]), "resetchannels" Settable Ignored "";
    - enable_debug_command Choice(&["no", "yes", "local"]), "no" Fixed Ignored "";
    - enable_module_command Choice(&["no", "yes", "local"]), "no" Fixed Ignored "";
    - enable_protected_configs Choice(&["no", "yes", "local"]), "no" Fixed Ignored "";
}
Scripts {
    _ default_lua_flags Text, "" Fixed Ignored "";
    - busy_reply_threshold [lua_time_limit] Int(0, I64), "5000" Settable Used
        "Milliseconds after which a running script may be killed and others are told BUSY.";
    _ lua_undeclared_keys_shas Text, "" Settable Ignored "";
    _ lua_float_as_int_shas Text, "" Settable Ignored "";
    _ lua_resp2_legacy_float Bool, "false" Fixed Ignored "";
    _ interpreter_per_thread Int(0, I64), "10" Hidden Ignored "";
    _ lua_allow_undeclared_auto_correct Bool, "false" Hidden Ignored "";
    _ lua_auto_async Bool, "false" Hidden Ignored "";
    _ lua_enable_redis_log Bool, "false" Hidden Ignored "";
    _ lua_mem_gc_threshold Bytes(0, BYTES), "10000000" Settable Ignored "";
    _ luagc Text, "" Hidden Ignored "";
    _ multi_eval_squash_buffer Int(0, I64), "8096" Hidden Ignored "";
    _ multi_exec_squash Bool, "true" Hidden Ignored "";
    _ MAXSEARCHRESULTS Int(0, I64), "1000000" Settable Ignored "";
    _ search_query_string_bytes Int(0, I64), "10240" Settable Ignored "";
}
Observation {
    - slowlog_log_slower_than Int(-1, I64), "10000" Settable Used
        "Microseconds from which a command enters the slow log; -1: none does.";
    - slowlog_max_len Int(0, I64), "20" Settable Used "Entries the slow log keeps.";
    - latency_monitor_threshold Int(0, I64), "0" Settable Used
        "Milliseconds from which LATENCY notes an event; 0: off.";
    - latency_tracking YesNo, "no" Settable Used "Keep a histogram of each command's latency.";
    - latency_tracking_info_percentiles Percentiles, "50 99 99.9" Settable Used
        "What INFO shows of the histograms.";
    - notify_keyspace_events Events, "" Settable Used "Classes of key events to publish, in Redis' letters.";
    _ keep_legacy_memory_metrics Bool, "false" Hidden Ignored "";
}
Logging {
    - loglevel Choice(LOG_LEVELS), "notice" Settable Used "debug, verbose, notice or warning.";
    - logfile Only("", "log lines go to standard error"), "" Fixed Always "";
    _ alsologtostderr Bool, "true" Hidden Always "";
    _ logtostderr Bool, "true" Hidden Always "";
    _ alsologtoemail Text, "" Hidden Ignored "";
    _ colorlogtostderr Bool, "false" Hidden Ignored "";
    _ colorlogtostdout Bool, "false" Hidden Ignored "";
    _ drop_log_memory Bool, "true" Hidden Ignored "";
    _ log_backtrace_at Text, "" Hidden Ignored "";
    _ log_dir Text, "" Hidden Ignored "";
    _ log_link Text, "" Hidden Ignored "";
    _ log_prefix Bool, "true" Hidden Ignored "";
    _ log_utc_time Bool, "false" Hidden Ignored "";
    _ log_year_in_prefix Bool, "true" Hidden Ignored "";
    _ logbuflevel Int(-1, I32), "0" Hidden Ignored "";
    _ logbufsecs Int(0, I32), "30" Hidden Ignored "";
    _ logcleansecs Int(0, I32), "300" Hidden Ignored "";
    _ logemaillevel Int(0, I32), "999" Hidden Ignored "";
    _ logfile_mode Int(0, I32), "436" Hidden Ignored "";
    _ logmailer Text, "" Hidden Ignored "";
    _ logtostdout Bool, "false" Hidden Ignored "";
    _ max_log_size Int(0, I32), "1800" Hidden Ignored "";
    _ minloglevel Int(0, I32), "0" Hidden Ignored "";
    _ stderrthreshold Int(0, I32), "2" Hidden Ignored "";
    _ stop_logging_if_full_disk Bool, "false" Hidden Ignored "";
    _ symbolize_stacktrace Bool, "true" Hidden Ignored "";
    _ timestamp_in_logfile_name Bool, "true" Hidden Ignored "";
    _ v Int(-I32, I32), "0" Hidden Ignored "";
    _ vmodule Text, "" Hidden Ignored "";
    - always_show_logo YesNo, "no" Fixed Ignored "";
    - syslog_enabled YesNo, "no" Fixed Ignored "";
}
Start {
    _ flagfile Text, "" Hidden Used
        "Read flags from these files, one per line; # starts a comment. Comma list.";
    _ undefok Text, "" Hidden Used "Comma list of unknown flags to tolerate.";
    _ help Bool, "false" Hidden Used "Show the flags that have an effect.";
    _ helpfull Bool, "false" Hidden Used "Show all flags.";
    _ version Bool, "false" Hidden Used "Show the version.";
    - pidfile Text, "" Fixed Used "File to write the process id to; empty: none.";
    _ version_check Bool, "false" Hidden Always "";
    - daemonize Only("no", "run it under a supervisor instead"), "no" Fixed Always "";
    _ allocation_tracker Text, "" Hidden Ignored "";
    _ fromenv Text, "" Hidden Ignored "";
    _ omit_basic_usage Bool, "false" Hidden Ignored "";
    _ tryfromenv Text, "" Hidden Ignored "";
    - disable_thp YesNo, "yes" Fixed Ignored "";
    - oom_score_adj Choice(&["no", "yes", "relative", "absolute"]), "no" Settable Ignored "";
    - proc_title_template Text, "{title} {listen-addr} {server-mode}" Settable Ignored "";
    - set_proc_title YesNo, "yes" Fixed Ignored "";
    - shutdown_timeout Int(0, I32), "10" Settable Ignored "";
    - supervised Choice(&["upstart", "systemd", "auto", "no"]), "no" Fixed Ignored "";
}
}
