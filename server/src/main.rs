//! damselfly: a Redis-protocol cache server.
//!
//! `main` turns flags and machine into a [`Shared`], starts a thread per core, and then only waits: for a signal, for
//! SHUTDOWN, or for a core that ended. All work happens in `core.rs`.

mod admin_http;
mod affinity;
mod allocator;
mod batch;
mod blocking;
mod bulky;
mod connection;
mod coordinate;
mod core;
mod digest;
mod execute;
mod gates;
mod input_room;
mod latency;
mod listen;
mod locks;
mod mailbox;
mod memory;
mod metrics;
mod modes;
mod notify;
mod observe;
mod pace;
mod pause;
mod poll;
mod process;
mod pubsub;
mod report;
mod scripts;
mod server_commands;
mod shared;
mod slot;
mod slow_peers;
mod snapshots;
mod stats;
mod tasks;
mod tools;
mod tracking;
mod transaction;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use crossbeam::utils::CachePadded;
use damselfly_config::{Action, Config, LogLevel, Port, Settings, machine::Machine};
use dashmap::DashMap;
use tokio::sync::mpsc;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::blocking::{Moves, Waiting};
use crate::connection::Listener;
use crate::core::Core;
use crate::gates::Gates;
use crate::input_room::Claims;
use crate::listen::{Listening, TcpOptions};
use crate::mailbox::Mailbox;
use crate::shared::{MemoryLimit, Peer, Shared, Stop};

/// How much later than asked for a core may be woken. The kernel's 50 us are as long as a core rests (`pace.rs`): with
/// two cores and a client on two CPUs, pipeline 1, the slowest hundredth of the replies came 1.0 times as late as
/// Redis' instead of 1.1 to 1.3 times.
const TIMER_SLACK_NS: u64 = 1_000;

// Small objects of one size lie together in mimalloc's pages and each thread has its own heap, which is what a
// shard-per-thread server wants: against the system allocator, SET of new 500-byte values took 20 % less CPU.
#[global_allocator]
static ALLOCATOR: allocator::Allocator = allocator::Allocator;

fn main() -> ExitCode {
    // No flag stands there without a dash, so this takes no start away.
    let mut words = std::env::args_os().skip(1).peekable();
    if words.next_if(|word| word == tools::WORD).is_some() {
        return tools::run(words);
    }
    // Huge pages make resident memory grow in steps of 2 MiB per size class and thread: an empty server took 14 MB
    // with them and 6 MB without. A limit on resident memory cannot be kept that way. Redis turns them off too.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    allocator::give_back_later();
    let parsed = damselfly_config::Config::from_args(std::env::args_os(), std::env::vars_os(), &|path| {
        std::fs::read_to_string(path)
    });
    let parsed = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            eprintln!("damselfly: {error}");
            return ExitCode::FAILURE;
        }
    };
    match parsed.action {
        Action::PrintHelp(text) | Action::PrintVersion(text) => {
            println!("{text}");
            return ExitCode::SUCCESS;
        }
        Action::Run => {}
    }
    // Describing all flags takes half a megabyte, which nobody needs again.
    allocator::give_back();
    let set_log_level = start_log(Settings::new(&parsed.config.initial).loglevel());
    for warning in &parsed.warnings {
        tracing::warn!("{warning}");
    }
    if !allocator::keeps_long_blocks_apart() {
        tracing::warn!(
            "mimalloc was not compiled as .cargo/config.toml says: values of 84 KiB to 512 KiB may leave memory unused"
        );
    }
    std::panic::set_hook(Box::new(|panic| {
        let (command, shard) = execute::running();
        eprintln!("damselfly: broken invariant while running {command} on shard {shard}: {panic}");
    }));
    match serve(parsed.config, set_log_level) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Begins to write lines to the standard error, in colour if somebody looks at it. What is returned changes how many.
fn start_log(level: LogLevel) -> Box<dyn Fn(LogLevel) + Send + Sync> {
    let filter = |level| match level {
        LogLevel::Debug => LevelFilter::TRACE,
        LogLevel::Verbose => LevelFilter::DEBUG,
        LogLevel::Notice => LevelFilter::INFO,
        LogLevel::Warning => LevelFilter::WARN,
    };
    let (only, handle) = reload::Layer::new(filter(level));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    tracing_subscriber::registry().with(only).with(lines).init();
    Box::new(move |level| {
        if let Err(error) = handle.reload(filter(level)) {
            tracing::warn!("loglevel: {error}");
        }
    })
}

/// Asks for as many descriptors as `--maxclients` may need, as far as the system lets us.
fn raise_descriptor_limit(maxclients: u32) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    /// For listeners, files, epoll instances and bells.
    const OTHERS: u64 = 128;
    let wanted = u64::from(maxclients) + OTHERS;
    let limit = getrlimit(Resource::Nofile);
    let Some(current) = limit.current.filter(|current| *current < wanted) else { return };
    let reachable = limit.maximum.map_or(wanted, |maximum| wanted.min(maximum));
    let raised = Rlimit { current: Some(reachable), maximum: limit.maximum };
    let got = if setrlimit(Resource::Nofile, raised).is_ok() { reachable } else { current };
    if got < wanted {
        let clients = got.saturating_sub(OTHERS);
        tracing::warn!("--maxclients={maxclients}, but the limit on open files leaves room for {clients}");
    }
}

/// A file with the process id, for as long as this lives.
struct Pidfile(PathBuf);

impl Pidfile {
    /// As in Redis, a file that cannot be written is no reason not to serve.
    fn write(path: PathBuf) -> Option<Pidfile> {
        match std::fs::write(&path, format!("{}\n", std::process::id())) {
            Ok(()) => Some(Pidfile(path)),
            Err(error) => {
                tracing::warn!("--pidfile={}: {error}", path.display());
                None
            }
        }
    }
}

impl Drop for Pidfile {
    fn drop(&mut self) {
        // Somebody else may have removed it, which is what is wanted.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Opens all listening sockets.
fn listeners(config: &Config, settings: &Settings) -> Result<Vec<Listening>, String> {
    let options = TcpOptions { backlog: config.tcp_backlog, user_timeout_ms: config.tcp_user_timeout_ms };
    let mut all = Vec::new();
    let port = match config.port {
        Port::Off => None,
        Port::Any => Some(0),
        Port::Fixed(port) => Some(port),
    };
    if let Some(port) = port {
        let sockets = Listening::tcp(&config.bind, port, Listener::Main, options)
            .map_err(|error| format!("cannot listen on port {port}: {error}"))?;
        if let Some(bound) = sockets.first().and_then(Listening::port) {
            settings.set_port(bound);
        }
        all.extend(sockets);
    }
    for &port in &config.admin_ports {
        match Listening::tcp(&config.admin_bind, port, Listener::Admin, options) {
            Ok(sockets) => all.extend(sockets),
            Err(error) => tracing::error!("cannot listen on admin port {port}: {error}"),
        }
    }
    if let Some(path) = &config.unixsocket {
        let socket = Listening::unix(path, config.unixsocketperm)
            .map_err(|error| format!("cannot listen on {}: {error}", path.display()))?;
        all.push(socket);
    }
    if all.is_empty() {
        return Err("nowhere to listen: --port=0 needs --unixsocket or --admin_port".to_string());
    }
    Ok(all)
}

/// Random bits from the system.
fn random_u64() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // The standard library's hasher keys come from the system's random source; two of them make 128 bits, folded.
    let one = std::collections::hash_map::RandomState::new().build_hasher().finish();
    let other = std::collections::hash_map::RandomState::new().build_hasher().finish();
    one.rotate_left(32) ^ other
}

/// 40 random hexadecimal digits, as Redis names runs and histories.
pub(crate) fn random_id() -> String {
    (0..5).map(|_| format!("{:08x}", random_u64() as u32)).collect()
}

fn serve(config: Config, set_log_level: Box<dyn Fn(LogLevel) + Send + Sync>) -> Result<(), String> {
    let machine = Machine::here();
    let settings = Settings::new(&config.initial);
    if settings.tls() || config.tls_replication {
        // To start without it would be to promise a secrecy that is not kept.
        return Err("there is no TLS in this version: start without --tls and --tls_replication".to_string());
    }
    let gates = Gates::new(&config)?;
    raise_descriptor_limit(settings.maxclients());
    let threads = if config.threads > 0 { config.threads as usize } else { machine.cpus.value };
    let threads = threads.clamp(1, 1 << 10);
    let sockets = listeners(&config, &settings)?;
    let limit = match settings.maxmemory() {
        0 => match &machine.memory {
            Some(found) => {
                MemoryLimit { bytes: found.value / 10 * 8, origin: format!("80 % of {}", found.source) }
            }
            None => MemoryLimit { bytes: 0, origin: "none: the machine's memory is unknown".to_string() },
        },
        bytes => MemoryLimit { bytes, origin: "--maxmemory".to_string() },
    };
    settings.set_maxmemory(limit.bytes);
    let peers = (0..threads)
        .map(|_| {
            Ok(Peer {
                mailbox: Mailbox::new()?,
                connections: CachePadded::new(AtomicUsize::new(0)),
                data_bytes: AtomicU64::new(0),
                account: AtomicU64::new(0),
                claims: Claims::default(),
                doomed: AtomicU64::new(0),
                holes: AtomicU64::new(0),
                evictable: AtomicUsize::new(0),
            })
        })
        .collect::<std::io::Result<Vec<Peer>>>()
        .map_err(|error| format!("cannot make mailboxes: {error}"))?;
    let (stop, stopped) = mpsc::unbounded_channel();
    let pidfile = config.pidfile.clone().and_then(Pidfile::write);
    let shared = Arc::new(Shared {
        gates,
        set_log_level,
        http: OnceLock::new(),
        settings,
        peers,
        clients: DashMap::with_shard_amount(16),
        registry: pubsub::Registry::new(),
        scripts: scripts::registry::Registry::new(threads),
        snapshots: snapshots::Snapshots::new(&config)?,
        next_client: AtomicU64::new(1),
        next_slow: AtomicU64::new(0),
        connected: AtomicUsize::new(0),
        rejected: AtomicU64::new(0),
        accepted: AtomicU64::new(0),
        used_peak: AtomicU64::new(0),
        monitors: AtomicU32::new(0),
        waiting: Waiting::default(),
        moves: Moves::default(),
        stopping: AtomicBool::new(false),
        stop,
        hash_seed: random_u64(),
        started: (SystemTime::now(), Instant::now()),
        run_id: random_id(),
        replication_id: Mutex::new(random_id()),
        memory: memory::Memory::default(),
        memory_limit: limit,
        config,
    });
    banner(&shared, &machine, &sockets);
    // Before the cores take clients, so that whoever was answered by them finds the health page too.
    admin_http::start(&shared);
    // Before the cores take clients too: none may be answered from data that is not there yet.
    snapshots::load_at_start(&shared)?;
    memory::watch(&shared).map_err(|error| format!("cannot start a thread: {error}"))?;
    let cores = start_cores(&shared, sockets)?;
    wait_for_the_end(&shared, stopped)?;
    if let Some(failure) = shared.snapshots.failure() {
        return Err(failure);
    }
    shared.stopping.store(true, Ordering::Release);
    for peer in &shared.peers {
        peer.mailbox.post_from_outside(Box::new(Core::stop));
    }
    for core in cores {
        core.join().map_err(|_| "a core ended with a panic".to_string())?;
    }
    drop(pidfile);
    tracing::info!("bye");
    Ok(())
}

fn banner(shared: &Shared, machine: &Machine, sockets: &[Listening]) {
    tracing::info!(
        "{}, pid {}, {} thread{} ({})",
        damselfly_config::version().lines().next().unwrap_or_default(),
        std::process::id(),
        shared.peers.len(),
        if shared.peers.len() == 1 { "" } else { "s" },
        if shared.config.threads > 0 {
            "--proactor_threads".to_string()
        } else {
            machine.cpus.source.to_string()
        },
    );
    tracing::info!("memory limit {} MiB ({})", shared.memory_limit.bytes >> 20, shared.memory_limit.origin);
    for socket in sockets {
        match socket.port() {
            Some(port) => tracing::info!("listening on port {port} ({:?})", socket.kind),
            None => tracing::info!("listening on {:?}", shared.config.unixsocket),
        }
    }
}

fn start_cores(
    shared: &Arc<Shared>,
    sockets: Vec<Listening>,
) -> Result<Vec<std::thread::JoinHandle<()>>, String> {
    let mut sockets = Some(sockets);
    let mut cores = Vec::new();
    for id in 0..shared.peers.len() {
        let shared = shared.clone();
        let sockets = if id == 0 { sockets.take().unwrap_or_default() } else { Vec::new() };
        let core = std::thread::Builder::new()
            .stack_size(scripts::STACK_LEN)
            .name(format!("core-{id}"))
            .spawn(move || run_core(id, shared, sockets))
            .map_err(|error| format!("cannot start a thread: {error}"))?;
        cores.push(core);
    }
    Ok(cores)
}

fn run_core(id: usize, shared: Arc<Shared>, sockets: Vec<Listening>) {
    let stop = shared.stop.clone();
    let run = || -> std::io::Result<()> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
        let core = Core::new(id, shared, sockets)?;
        // What rests for some microseconds shall not rest for twice as long.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(TIMER_SLACK_NS));
        runtime.block_on(core.run())
    };
    if let Err(error) = run() {
        tracing::error!("core {id} ended: {error}");
    }
    // If this was not asked for, the process cannot go on without the shard.
    let _ = stop.send(Stop::CoreEnded);
}

/// Waits for SIGTERM, SIGINT or SHUTDOWN, and keeps the schedule of saves meanwhile. A signal means a last save, as
/// SHUTDOWN does by itself; a second signal ends that. SIGHUP is ignored.
fn wait_for_the_end(shared: &Arc<Shared>, mut stopped: mpsc::UnboundedReceiver<Stop>) -> Result<(), String> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("cannot make the main runtime: {error}"))?;
    runtime.block_on(async {
        let on = |kind| signal(kind).map_err(|error| format!("cannot watch for signals: {error}"));
        let (mut term, mut int) = (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
        let mut hup = on(SignalKind::hangup())?;
        let mut schedule = snapshots::Schedule::new();
        let mut clock = tokio::time::interval(Duration::from_secs(1));
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut is_ending = false;
        loop {
            let name = tokio::select! {
                _ = term.recv() => "SIGTERM",
                _ = int.recv() => "SIGINT",
                _ = hup.recv() => continue,
                _ = clock.tick() => {
                    schedule.look(shared);
                    continue;
                }
                reason = stopped.recv() => {
                    tracing::info!(?reason, "stopping");
                    return match reason {
                        Some(Stop::NotSaved) => Err("the last save failed".to_owned()),
                        _ => Ok(()),
                    };
                }
            };
            tracing::info!("{name}");
            if std::mem::replace(&mut is_ending, true) {
                return Err("a second signal: ending without the last save".to_owned());
            }
            let stop = shared.stop.clone();
            let heard = Box::new(move |saved: Result<(), String>| {
                let reason = if saved.is_ok() { Stop::Signal } else { Stop::NotSaved };
                // Nobody waits for it only if the process is ending already.
                let _ = stop.send(reason);
            });
            if let Err(error) = snapshots::end(shared, heard) {
                tracing::warn!("{error}");
            }
        }
    })
}
