//! What the flags mean: a typed field each, checked against each other.
//!
//! Only settings that are read once are here; those CONFIG SET may change are in
//! [`Settings`](crate::Settings), which begins with [`Initial`].

use std::path::PathBuf;

use crate::cli::ConfigError;
use crate::glob;
use crate::rows::{CLUSTER_MODES, LOG_LEVELS, POLICIES, ROWS};
use crate::table::row;
use crate::value::{HostPort, Value};

/// The value of every row at start: where [`Settings`](crate::Settings) begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Initial(Vec<Value>);

impl Initial {
    /// In the table's order.
    pub(crate) fn values(&self) -> &[Value] {
        &self.0
    }

    fn bool(&self, row: usize) -> bool {
        match &self.0[row] {
            Value::Bool(on) => *on,
            value => panic!("{} is {value:?}, not a switch", ROWS[row].name),
        }
    }

    fn int(&self, row: usize) -> i64 {
        match &self.0[row] {
            Value::Int(number) => *number,
            value => panic!("{} is {value:?}, not a whole number", ROWS[row].name),
        }
    }

    /// A number whose bounds in the table make it a u32.
    fn u32(&self, row: usize) -> u32 {
        u32::try_from(self.int(row)).expect("the row's bounds are those of a u32")
    }

    /// A number whose bounds in the table make it a port; 0 is none.
    fn port(&self, row: usize) -> u16 {
        u16::try_from(self.int(row)).expect("the row's bounds are those of a port")
    }

    fn bytes(&self, row: usize) -> u64 {
        match &self.0[row] {
            Value::Bytes(bytes) => *bytes,
            value => panic!("{} is {value:?}, not a number of bytes", ROWS[row].name),
        }
    }

    fn text(&self, row: usize) -> &str {
        match &self.0[row] {
            Value::Text(text) => text,
            value => panic!("{} is {value:?}, not a text", ROWS[row].name),
        }
    }

    fn path(&self, row: usize) -> Option<PathBuf> {
        Some(self.text(row)).filter(|text| !text.is_empty()).map(PathBuf::from)
    }

    /// The words of a list separated by commas or spaces.
    fn words(&self, row: usize) -> impl Iterator<Item = &str> {
        self.text(row).split([',', ' ']).filter(|word| !word.is_empty())
    }
}

/// The port for clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// No TCP port; there must be a Unix socket then.
    Off,
    /// Whichever is free.
    Any,
    /// This one.
    Fixed(u16),
}

/// What is evicted when memory is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxmemoryPolicy {
    /// The longest unused of the keys that expire.
    VolatileLru,
    /// The least often used of the keys that expire.
    VolatileLfu,
    /// Any key that expires.
    VolatileRandom,
    /// The key that expires next.
    VolatileTtl,
    /// The longest unused key.
    AllkeysLru,
    /// The least often used key.
    AllkeysLfu,
    /// Any key.
    AllkeysRandom,
    /// Nothing: writes are refused.
    NoEviction,
}

impl MaxmemoryPolicy {
    /// In the order of the table's words.
    pub(crate) const ALL: [MaxmemoryPolicy; 8] = [
        MaxmemoryPolicy::VolatileLru,
        MaxmemoryPolicy::VolatileLfu,
        MaxmemoryPolicy::VolatileRandom,
        MaxmemoryPolicy::VolatileTtl,
        MaxmemoryPolicy::AllkeysLru,
        MaxmemoryPolicy::AllkeysLfu,
        MaxmemoryPolicy::AllkeysRandom,
        MaxmemoryPolicy::NoEviction,
    ];

    /// As INFO and CONFIG GET spell it.
    pub fn name(self) -> &'static str {
        POLICIES[self as usize]
    }
}

/// How much is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// Much that is rarely useful.
    Verbose,
    /// What an operator wants.
    Notice,
    /// What needs attention.
    Warning,
}

impl LogLevel {
    /// In the order of the table's words.
    pub(crate) const ALL: [LogLevel; 4] =
        [LogLevel::Debug, LogLevel::Verbose, LogLevel::Notice, LogLevel::Warning];

    /// As CONFIG GET spells it.
    pub fn name(self) -> &'static str {
        LOG_LEVELS[self as usize]
    }
}

/// Whether clients see a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterMode {
    /// They do not.
    Off,
    /// A cluster of one node that has all slots.
    Emulated,
    /// A node among others.
    Yes,
}

/// How snapshots and full syncs are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// Each string by itself, with LZF, as Redis does.
    SingleEntry,
    /// Blocks of entries, with zstd.
    Zstd,
    /// Blocks of entries, with lz4.
    Lz4,
}

impl Compression {
    /// From the index of the table's words, which list names and then numbers.
    pub(crate) fn from_index(index: usize) -> Compression {
        [Compression::None, Compression::SingleEntry, Compression::Zstd, Compression::Lz4][index % 4]
    }
}

/// Flags that every script starts with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LuaFlags {
    /// A script may touch keys it was not given.
    pub allow_undeclared_keys: bool,
    /// Other commands may run between a script's.
    pub disable_atomicity: bool,
    /// Floats a script returns become integers in RESP2.
    pub legacy_float: bool,
}

/// What the server reads once, at start.
///
/// Get one from [`Config::from_args`]. The fields follow the headings of `--help`.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Port for clients.
    pub port: Port,
    /// Addresses the ports for clients listen on; empty: all.
    pub bind: Vec<String>,
    /// Privileged ports, RESP and HTTP, without repetition: every `--admin_port` that was given. An
    /// orchestrator sets its own first and finds its probes there even when a user adds another.
    pub admin_ports: Vec<u16>,
    /// Addresses the admin ports listen on; empty: all.
    pub admin_bind: Vec<String>,
    /// Whether the admin ports ask for no password.
    pub admin_nopass: bool,
    /// Whether the port for clients answers HTTP too: by its flag, or because `--metrics_port` or
    /// `--http_port` is it.
    pub http_on_port: bool,
    /// Ports that speak only HTTP: `--http_port` and `--metrics_port`, but for those that are served already.
    pub http_ports: Vec<u16>,
    /// Unix socket to listen on.
    pub unixsocket: Option<PathBuf>,
    /// Its permissions.
    pub unixsocketperm: Option<u32>,
    /// Port for the memcached text protocol.
    pub memcached_port: Option<u16>,
    /// Connections the kernel may queue.
    pub tcp_backlog: u32,
    /// How long sent data may stay unacknowledged; 0: as the kernel thinks.
    pub tcp_user_timeout_ms: u32,
    /// Most arguments of a command.
    pub max_multi_bulk_len: u32,
    /// Commands that only admin ports may run, in upper case.
    pub restricted_commands: Vec<String>,
    /// Alias and original, both in upper case.
    pub command_aliases: Vec<(String, String)>,
    /// Shown in HELLO and INFO; may be empty.
    pub availability_zone: String,
    /// How long CLIENT PAUSE waits for running commands.
    pub pause_wait_timeout_secs: u32,

    /// Threads; 0: as many as [`machine`](crate::machine) grants.
    pub threads: u32,
    /// Threads keep to a CPU each, where that helps.
    pub keep_cpus: bool,
    /// Shards; 0: one per thread.
    pub shards: u32,

    /// Databases SELECT can choose from.
    pub databases: u32,
    /// Most keys KEYS returns; 0: no limit.
    pub keys_output_limit: u32,

    /// Where snapshots are; empty: the working directory. May be the URL of a bucket.
    pub dir: String,
    /// An S3 server that is not Amazon's, as host and port; empty: Amazon's.
    pub s3_endpoint: String,
    /// Speak to that server with TLS.
    pub s3_use_https: bool,
    /// Sign contents that are sent to S3, too.
    pub s3_sign_payload: bool,
    /// Ask the machine's metadata service for credentials of S3.
    pub s3_ec2_metadata: bool,
    /// One file per shard and a summary, or one rdb file.
    pub df_snapshot_format: bool,
    /// Compression of snapshots and full syncs.
    pub compression: Compression,
    /// Effort of zstd and lz4.
    pub compression_level: i32,
    /// Load keys without their expiry.
    pub rdb_ignore_expiry: bool,

    /// The master to follow from the start.
    pub replicaof: Option<HostPort>,
    /// Stop following, with the data kept, when the master comes back as another process.
    pub break_replication_on_master_restart: bool,
    /// Time for connecting to the master.
    pub master_connect_timeout_ms: u32,
    /// Pause before connecting again.
    pub master_reconnect_timeout_ms: u32,
    /// Time between a replica's acknowledgements.
    pub replication_acks_interval_ms: u32,
    /// Journal entries each shard keeps.
    pub shard_repl_backlog_len: u32,
    /// Bytes of journal each shard keeps; 0: 0.5 % of maxmemory over all shards.
    pub shard_repl_backlog_max_bytes: u64,
    /// Age of the journal each shard keeps.
    pub shard_repl_backlog_time_ms: u64,
    /// INFO says slave and online, as Redis does.
    pub info_replication_valkey_compatible: bool,
    /// Connect to the master with TLS.
    pub tls_replication: bool,

    /// Whether clients see a cluster.
    pub cluster_mode: ClusterMode,
    /// Identity in a cluster; empty: the replication id.
    pub cluster_node_id: String,

    /// No TLS on the admin ports.
    pub no_tls_on_admin_port: bool,

    /// Flags every script starts with.
    pub default_lua_flags: LuaFlags,

    /// File to write the process id to.
    pub pidfile: Option<PathBuf>,

    /// Where the settings that may change at run time begin: `Settings::new(&config.initial)`.
    pub initial: Initial,
}

/// What the command line said, row by row.
pub(crate) struct Given {
    /// The last value of each row, or its default.
    pub last: Vec<Value>,
    /// Whether anybody set the row.
    pub set: Vec<bool>,
    /// Every `--admin_port`, in order.
    pub admin_ports: Vec<Value>,
}

impl Config {
    /// Types and checks what was given. Warnings are pushed, not returned: a refusal may follow them.
    pub(crate) fn build(given: Given, warnings: &mut Vec<String>) -> Result<Config, ConfigError> {
        let Given { last, set, admin_ports } = given;
        let mut v = Initial(last);
        let refuse = |why: &str| Err(ConfigError::Refused(why.into()));

        if v.bool(const { row("tls") }) {
            let any_set = |rows: &[usize]| rows.iter().any(|index| !v.text(*index).is_empty());
            let lets_in = [
                const { row("requirepass") },
                const { row("aclfile") },
                const { row("tls_ca_cert_file") },
                const { row("tls_ca_cert_dir") },
            ];
            if !any_set(&lets_in) {
                return refuse(
                    "--tls needs to know whom to let in: --requirepass, --aclfile, --tls_ca_cert_file or \
                     --tls_ca_cert_dir",
                );
            }
            if !any_set(&[const { row("tls_cert_file") }]) || !any_set(&[const { row("tls_key_file") }]) {
                return refuse("--tls needs --tls_cert_file and --tls_key_file");
            }
        }
        let df_snapshot_format = v.bool(const { row("df_snapshot_format") });
        check_dbfilename(v.text(const { row("dbfilename") }), df_snapshot_format)?;
        map_save_schedule(&mut v, warnings);
        if v.bool(const { row("cache_mode") }) && !set[const { row("maxmemory_policy") }] {
            v.0[const { row("maxmemory_policy") }] = Value::Int(MaxmemoryPolicy::AllkeysLru as i64);
        }

        let port = match v.int(const { row("port") }) {
            -1 => Port::Any,
            0 => Port::Off,
            port => Port::Fixed(u16::try_from(port).expect("the row's bounds are those of a port")),
        };
        let unixsocket = v.path(const { row("unixsocket") });
        if port == Port::Off && unixsocket.is_none() {
            return refuse("--port=0 leaves clients no way in without --unixsocket");
        }
        let admin_ports = collect_admin_ports(&admin_ports, warnings);
        let memcached_port = Some(v.port(const { row("memcached_port") })).filter(|port| *port != 0);
        let mut http_on_port = v.bool(const { row("primary_port_http_enabled") });
        let mut http_ports = Vec::new();
        for index in [const { row("http_port") }, const { row("metrics_port") }] {
            let wanted = v.port(index);
            let taken = Port::Fixed(wanted) == port || Some(wanted) == memcached_port;
            if wanted == 0 || admin_ports.contains(&wanted) || http_ports.contains(&wanted) {
                continue;
            }
            if taken && !set[index] {
                // Nobody asked for the default port to be HTTP.
                warnings.push(format!("--{} is off, as its default {wanted} is in use", ROWS[index].name));
            } else if Some(wanted) == memcached_port {
                return refuse("--memcached_port cannot be an HTTP port as well");
            } else if taken {
                http_on_port = true;
            } else {
                http_ports.push(wanted);
            }
        }

        Ok(Config {
            port,
            bind: v.words(const { row("bind") }).map(str::to_owned).collect(),
            admin_ports,
            admin_bind: v.words(const { row("admin_bind") }).map(str::to_owned).collect(),
            admin_nopass: v.bool(const { row("admin_nopass") }),
            http_on_port,
            http_ports,
            unixsocket,
            unixsocketperm: u32::from_str_radix(v.text(const { row("unixsocketperm") }), 8).ok(),
            memcached_port,
            tcp_backlog: v.u32(const { row("tcp_backlog") }),
            tcp_user_timeout_ms: v.u32(const { row("tcp_user_timeout") }),
            max_multi_bulk_len: v.u32(const { row("max_multi_bulk_len") }),
            restricted_commands: v
                .words(const { row("restricted_commands") })
                .map(str::to_ascii_uppercase)
                .collect(),
            command_aliases: parse_aliases(&v)?,
            availability_zone: v.text(const { row("availability_zone") }).to_owned(),
            pause_wait_timeout_secs: v.u32(const { row("pause_wait_timeout") }),
            threads: v.u32(const { row("proactor_threads") }),
            keep_cpus: v.u32(const { row("proactor_affinity_mode") }) < 2,
            shards: v.u32(const { row("num_shards") }),
            databases: v.u32(const { row("databases") }),
            keys_output_limit: v.u32(const { row("keys_output_limit") }),
            dir: v.text(const { row("dir") }).to_owned(),
            s3_endpoint: v.text(const { row("s3_endpoint") }).to_owned(),
            s3_use_https: v.bool(const { row("s3_use_https") }),
            s3_sign_payload: v.bool(const { row("s3_sign_payload") }),
            s3_ec2_metadata: v.bool(const { row("s3_ec2_metadata") }),
            df_snapshot_format,
            compression: Compression::from_index(v.u32(const { row("compression_mode") }) as usize),
            compression_level: v.int(const { row("compression_level") }) as i32,
            rdb_ignore_expiry: v.bool(const { row("rdb_ignore_expiry") }),
            replicaof: HostPort::parse(v.text(const { row("replicaof") })),
            break_replication_on_master_restart: v.bool(const { row("break_replication_on_master_restart") }),
            master_connect_timeout_ms: v.u32(const { row("master_connect_timeout_ms") }),
            master_reconnect_timeout_ms: v.u32(const { row("master_reconnect_timeout_ms") }),
            replication_acks_interval_ms: v.u32(const { row("replication_acks_interval") }),
            shard_repl_backlog_len: v.u32(const { row("shard_repl_backlog_len") }),
            shard_repl_backlog_max_bytes: v.bytes(const { row("shard_repl_backlog_max_bytes") }),
            shard_repl_backlog_time_ms: v.int(const { row("shard_repl_backlog_time_ms") }).cast_unsigned(),
            info_replication_valkey_compatible: v.bool(const { row("info_replication_valkey_compatible") }),
            tls_replication: v.bool(const { row("tls_replication") }),
            cluster_mode: [ClusterMode::Off, ClusterMode::Emulated, ClusterMode::Yes]
                [v.u32(const { row("cluster_mode") }) as usize],
            cluster_node_id: v.text(const { row("cluster_node_id") }).to_owned(),
            no_tls_on_admin_port: v.bool(const { row("no_tls_on_admin_port") }),
            default_lua_flags: parse_lua_flags(&v)?,
            pidfile: v.path(const { row("pidfile") }),
            initial: v,
        })
    }
}

const _: () = assert!(CLUSTER_MODES.len() == 3 && LOG_LEVELS.len() == LogLevel::ALL.len());
const _: () = assert!(POLICIES.len() == MaxmemoryPolicy::ALL.len());

/// A dfs snapshot makes its own names from the given one, an rdb file ends in `.rdb`: any other ending would
/// make a file that the next start does not find.
fn check_dbfilename(name: &str, df_snapshot_format: bool) -> Result<(), ConfigError> {
    let extension = std::path::Path::new(name).extension().and_then(|extension| extension.to_str());
    match extension {
        Some(_) if df_snapshot_format => Err(ConfigError::Refused(format!(
            "--dbfilename={name} has an extension, which --df_snapshot_format adds itself; leave it out, or \
             set --df_snapshot_format=false for one rdb file"
        ))),
        Some(other) if other != "rdb" => Err(ConfigError::Refused(format!(
            "--dbfilename={name} may only end in .rdb, or have no extension"
        ))),
        _ => Ok(()),
    }
}

/// The ports in the order they were given. A 0 takes back those before it, as the last one wins elsewhere.
fn collect_admin_ports(values: &[Value], warnings: &mut Vec<String>) -> Vec<u16> {
    let mut ports: Vec<u16> = Vec::new();
    for value in values {
        match value {
            Value::Int(0) => ports.clear(),
            Value::Int(port) => {
                let port = u16::try_from(*port).expect("the row's bounds are those of a port");
                if !ports.contains(&port) {
                    ports.push(port);
                }
            }
            value => panic!("admin_port is {value:?}, not a whole number"),
        }
    }
    if ports.len() > 1 {
        let list: Vec<String> = ports.iter().map(u16::to_string).collect();
        warnings
            .push(format!("--admin_port was given several times; listening on all of {}", list.join(", ")));
    }
    ports
}

/// `--save_schedule=HH:MM` was the schedule before cron expressions: a pattern for the hour and one for the
/// minute, both of two digits. It becomes the cron expression that lists what the patterns match; it never
/// stops the start.
fn map_save_schedule(v: &mut Initial, warnings: &mut Vec<String>) {
    let schedule = v.text(const { row("save_schedule") });
    if schedule.is_empty() {
        return;
    }
    if !v.text(const { row("snapshot_cron") }).is_empty() {
        warnings.push("--save_schedule is ignored, as --snapshot_cron is set".into());
        return;
    }
    let field = |pattern: &str, count: u32| -> Option<String> {
        let pattern = glob::Pattern::new(pattern.as_bytes());
        let fits = |value: &u32| pattern.matches(format!("{value:02}").as_bytes());
        let matched: Vec<String> = (0..count).filter(fits).map(|value| value.to_string()).collect();
        match matched.len() {
            0 => None,
            len if len == count as usize => Some("*".into()),
            _ => Some(matched.join(",")),
        }
    };
    let parts =
        schedule.split_once(':').and_then(|(hour, minute)| Some((field(hour, 24)?, field(minute, 60)?)));
    match parts {
        Some((hours, minutes)) => {
            let cron = format!("{minutes} {hours} * * *");
            warnings.push(format!("--save_schedule is deprecated; using --snapshot_cron='{cron}' instead"));
            v.0[const { row("snapshot_cron") }] = Value::Text(cron.into());
        }
        None => {
            warnings.push(format!("--save_schedule={schedule} is ignored: no time of day fits it as HH:MM"));
        }
    }
}

fn parse_aliases(v: &Initial) -> Result<Vec<(String, String)>, ConfigError> {
    let pair = |word: &str| {
        let (alias, original) = word.split_once('=').filter(|(alias, original)| {
            !alias.is_empty() && !original.is_empty() && !alias.eq_ignore_ascii_case(original)
        })?;
        Some((alias.to_ascii_uppercase(), original.to_ascii_uppercase()))
    };
    v.words(const { row("command_alias") })
        .map(|word| {
            pair(word).ok_or_else(|| {
                ConfigError::Refused(format!("--command_alias has '{word}', which is not alias=command"))
            })
        })
        .collect()
}

fn parse_lua_flags(v: &Initial) -> Result<LuaFlags, ConfigError> {
    let mut flags = LuaFlags::default();
    for word in v.words(const { row("default_lua_flags") }) {
        match word {
            "allow-undeclared-keys" => flags.allow_undeclared_keys = true,
            "disable-atomicity" => flags.disable_atomicity = true,
            "legacy-float" => flags.legacy_float = true,
            word => {
                let why = "allow-undeclared-keys, disable-atomicity or legacy-float";
                return Err(ConfigError::Refused(format!(
                    "--default_lua_flags has '{word}', which is not {why}"
                )));
            }
        }
    }
    Ok(flags)
}
