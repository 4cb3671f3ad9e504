//! What is done to one server in one round, and the figures that come out.

use crate::Failure;
use crate::benchmark::{self, Load};
use crate::client::{Connection, encode};
use crate::rows::{Metric, Sizes};
use crate::server::Server;
use crate::workloads::{KEYS_32, Rng, Workload};
use redis_protocol::resp2::types::OwnedFrame;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What EVALSHA runs: the smallest script that reads and writes.
pub const SCRIPT: &str =
    "local old = redis.call('GET', KEYS[1]) redis.call('SET', KEYS[1], ARGV[1]) return old";

/// Keys found, of those asked for, below which a reading row measures misses.
const HITS_MIN: f64 = 0.99;

/// How long a server is left alone between the last command and the reading of its memory. jemalloc, which Redis uses,
/// gives freed pages back over ten seconds: read at once, Redis had 148 B per key, after 3 s 145 B in some runs, from 6 s
/// on 141.1 B in all. The same time lets Redis shrink the buffers of quiet clients, which takes it five seconds.
const SILENCE: Duration = Duration::from_secs(11);

/// The same after a start, when nothing has been freed yet and only threads have to come up.
const SILENCE_AT_START: Duration = Duration::from_secs(1);

/// How long the prober goes on after the big command was answered: what is freed in the background is freed then.
const AFTERMATH: Duration = Duration::from_millis(500);

/// The state of the server before a load.
#[derive(Clone, Copy)]
pub enum Prepare {
    /// An empty server.
    Nothing,
    /// Data.
    Fill {
        /// What.
        workload: &'static Workload,
        /// How much of it, at full size.
        items: u64,
    },
    /// Data and a script; its SHA1 replaces `{sha}` in the command.
    Script {
        /// What.
        workload: &'static Workload,
        /// How much of it, at full size.
        items: u64,
        /// The text of the script.
        script: &'static str,
    },
}

/// The kinds of scenario. Sizes are full sizes.
#[derive(Clone, Copy)]
pub enum Drive {
    /// redis-benchmark against prepared data.
    Load {
        /// The state before.
        prepare: Prepare,
        /// The load itself.
        load: Load,
        /// Whether INFO must show that the keys asked for were there.
        hits: bool,
    },
    /// `MULTI`, four commands, `EXEC`, from our own client.
    Transactions {
        /// Simultaneous connections.
        connections: u32,
        /// Transactions in flight per connection.
        pipeline: u32,
        /// Transactions in total.
        transactions: u64,
        /// Keys they are spread over.
        keys: u64,
    },
    /// One publisher, one channel, many subscribers; an operation is one delivered message.
    Publish {
        /// Connections that are subscribed.
        subscribers: u32,
        /// PUBLISH commands in flight.
        pipeline: u32,
        /// Messages published in total.
        messages: u64,
        /// The publisher goes on when all subscribers have what it published, else when it has its replies.
        in_step: bool,
    },
    /// Resident memory per item of a workload.
    Memory {
        /// What is loaded.
        workload: &'static Workload,
    },
    /// Resident memory of a server with nothing to do, before and after connections.
    Idle {
        /// How many.
        connections: u64,
    },
    /// One client that sets new keys one at a time.
    Growth {
        /// How many.
        keys: u64,
    },
    /// Others while a big key is deleted.
    DuringDelete {
        /// What fills the key.
        workload: &'static Workload,
        /// Its name.
        key: &'static str,
        /// How many items.
        items: u64,
    },
    /// Others while a big hash is read in one command.
    DuringReadAll {
        /// What fills the key.
        workload: &'static Workload,
        /// Its name.
        key: &'static str,
        /// How many items.
        items: u64,
    },
}

/// Figures of one round.
pub type Figures = Vec<(Metric, f64)>;

/// What a drive needs besides a server.
#[derive(Debug, Clone)]
pub struct Setting {
    /// Path or name of redis-benchmark.
    pub redis_benchmark: String,
    /// Full or quick.
    pub sizes: Sizes,
}

impl Drive {
    /// Runs it once.
    pub fn run(&self, server: &Server, setting: &Setting) -> Result<Figures, Failure> {
        let sizes = setting.sizes;
        match *self {
            Self::Load { prepare, load, hits } => under_load(server, setting, prepare, load, hits),
            Self::Transactions { connections, pipeline, transactions, keys } => {
                transact(server, connections, pipeline, sizes.of(transactions), sizes.of(keys))
            }
            Self::Publish { subscribers, pipeline, messages, in_step } => {
                publish(server, subscribers, pipeline, sizes.of(messages), in_step)
            }
            Self::Memory { workload } => weigh(server, workload, sizes),
            Self::Idle { connections } => idle(server, connections, sizes),
            Self::Growth { keys } => grow(server, sizes.of(keys)),
            Self::DuringDelete { workload, key, items } => {
                let items = sizes.of(items);
                disturb(server, workload, items, &[b"DEL", key.as_bytes()], ":1\r\n".len() as u64)
            }
            Self::DuringReadAll { workload, key, items } => {
                let items = sizes.of(items);
                disturb(server, workload, items, &[b"HGETALL", key.as_bytes()], big_hash_reply_bytes(items))
            }
        }
    }

    /// How it is done, in Markdown, for the report: a command line where there is one.
    pub fn describe(&self, sizes: Sizes) -> String {
        match self {
            Self::Load { prepare, load, .. } => {
                let args: Vec<String> = load
                    .args(sizes.of(load.requests), sizes.of(load.random_below))
                    .into_iter()
                    .map(|arg| if arg.len() > 64 { format!("<{} B>", arg.len()) } else { arg })
                    .collect();
                let line = format!("`redis-benchmark -h 127.0.0.1 -p PORT {}`", args.join(" "));
                match prepare {
                    Prepare::Nothing => line,
                    Prepare::Fill { workload, items } => {
                        format!("{line} after filling with {} of {}", sizes.of(*items), workload.name)
                    }
                    Prepare::Script { workload, items, script } => {
                        let items = sizes.of(*items);
                        format!(
                            "{line} after filling with {items} of {}; the script is `{script}`",
                            workload.name
                        )
                    }
                }
            }
            Self::Transactions { connections, pipeline, transactions, keys } => format!(
                "own client, {connections} connections, {pipeline} in flight each: {} times MULTI, SET k v, GET k, INCR c, \
                 EXPIRE k 1000, EXEC; k and c random of {}",
                sizes.of(*transactions),
                sizes.of(*keys)
            ),
            Self::Publish { subscribers, pipeline, messages, in_step } => format!(
                "own client, {subscribers} subscribers, {} messages of 32 B, {pipeline} at a time, each batch when {}; \
                 per delivered message",
                sizes.of(*messages),
                if *in_step {
                    "all have the last, read in turn by one thread"
                } else {
                    "the last is replied to, read by a thread each"
                }
            ),
            Self::Memory { workload } => {
                format!(
                    "own client, (Rss after - Rss before) / {}: {}",
                    sizes.of(workload.items),
                    workload.what
                )
            }
            Self::Idle { connections } => format!(
                "Rss at start; then {} connections, one PING each, {} s of silence",
                sizes.of(*connections),
                SILENCE.as_secs()
            ),
            Self::Growth { keys } => format!(
                "own client, one connection, one request in flight: {} new keys of 16 B with values of 32 B",
                sizes.of(*keys)
            ),
            Self::DuringDelete { workload, key, items } => format!(
                "own client: one connection sends GET without pause, another sends DEL {key} ({} items of {})",
                sizes.of(*items),
                workload.name
            ),
            Self::DuringReadAll { workload, key, items } => format!(
                "own client: one connection sends GET without pause, another sends HGETALL {key} ({} items of {})",
                sizes.of(*items),
                workload.name
            ),
        }
    }
}

fn under_load(
    server: &Server,
    setting: &Setting,
    prepare: Prepare,
    load: Load,
    hits: bool,
) -> Result<Figures, Failure> {
    let sizes = setting.sizes;
    let mut connection = server.connect()?;
    let mut sha = None;
    match prepare {
        Prepare::Nothing => {}
        Prepare::Fill { workload, items } => connection.fill(workload, sizes.of(items))?,
        Prepare::Script { workload, items, script } => {
            sha = match connection.call(&[b"SCRIPT", b"LOAD", script.as_bytes()])? {
                OwnedFrame::BulkString(text) => Some(String::from_utf8_lossy(&text).into_owned()),
                other => return Err(Failure::Broken(format!("SCRIPT LOAD answered {other:?}"))),
            };
            connection.fill(workload, sizes.of(items))?;
        }
    }
    let before = if hits { Some(lookups(&mut connection)?) } else { None };
    let mut args = load.args(sizes.of(load.requests), sizes.of(load.random_below));
    if let Some(sha) = sha {
        args.iter_mut().for_each(|arg| *arg = arg.replace("{sha}", &sha));
    }
    let cost = benchmark::run(&setting.redis_benchmark, server, &args, sizes.of(load.requests))?;
    if let Some((hits_before, misses_before)) = before {
        let (hits, misses) = lookups(&mut connection)?;
        let (hits, misses) = (hits.saturating_sub(hits_before), misses.saturating_sub(misses_before));
        let share = hits as f64 / (hits + misses).max(1) as f64;
        if share < HITS_MIN {
            return Err(Failure::Broken(format!("only {:.1} % of the keys were found", share * 100.0)));
        }
    }
    Ok(vec![(Metric::Cpu, cost.cpu_ns), (Metric::P99, cost.p99_ns)])
}

fn lookups(connection: &mut Connection) -> Result<(u64, u64), Failure> {
    Ok((connection.info("stats", "keyspace_hits")?, connection.info("stats", "keyspace_misses")?))
}

fn transact(
    server: &Server,
    connections: u32,
    pipeline: u32,
    transactions: u64,
    keys: u64,
) -> Result<Figures, Failure> {
    /// MULTI, four times QUEUED, and the array of EXEC.
    const REPLIES: u32 = 6;
    let mut rng = Rng::new(21);
    let mut clients = open_many(server, u64::from(connections))?;
    clients[0].fill(&KEYS_32, keys)?;
    let before = server.cpu_time()?;
    let (mut batch, mut done) = (Vec::new(), 0);
    let per_round = u64::from(connections) * u64::from(pipeline);
    while done < transactions {
        for client in &mut clients {
            batch.clear();
            for _ in 0..pipeline {
                let key = format!("key:{:012}", rng.below(keys));
                let counter = format!("cnt:{:012}", rng.below(keys));
                encode(&mut batch, &[b"MULTI"]);
                encode(&mut batch, &[b"SET", key.as_bytes(), &[b'v'; 32]]);
                encode(&mut batch, &[b"GET", key.as_bytes()]);
                encode(&mut batch, &[b"INCR", counter.as_bytes()]);
                encode(&mut batch, &[b"EXPIRE", key.as_bytes(), b"1000"]);
                encode(&mut batch, &[b"EXEC"]);
            }
            client.send(&batch)?;
        }
        for client in &mut clients {
            (0..pipeline * REPLIES).try_for_each(|_| client.receive_ok().map(drop))?;
        }
        done += per_round;
    }
    let spent = server.cpu_time()? - before;
    Ok(vec![(Metric::Cpu, spent.as_secs_f64() * 1e9 / done as f64)])
}

/// In lock step a batch is published, then read to its end by every subscriber in turn. So the client needs one thread
/// and no message is ever in a backlog, whatever the server's limits are. Else every subscriber has a thread that reads.
fn publish(
    server: &Server,
    subscribers: u32,
    pipeline: u32,
    messages: u64,
    in_step: bool,
) -> Result<Figures, Failure> {
    let message = [b'm'; 32];
    let mut push = Vec::new();
    encode(&mut push, &[b"message", b"channel", &message]);
    let batch_bytes = push.len() as u64 * u64::from(pipeline);
    let mut batch = Vec::new();
    (0..pipeline).for_each(|_| encode(&mut batch, &[b"PUBLISH", b"channel", &message]));

    let mut publisher = server.connect()?;
    let replied = |publisher: &mut Connection| {
        (0..pipeline).try_for_each(|_| match publisher.receive_ok()? {
            OwnedFrame::Integer(count) if count == i64::from(subscribers) => Ok(()),
            frame => Err(Failure::Broken(format!("PUBLISH answered {frame:?}"))),
        })
    };
    let mut readers = open_many(server, u64::from(subscribers))?;
    for reader in &mut readers {
        reader.call(&[b"SUBSCRIBE", b"channel"])?;
    }
    let batches = messages.div_ceil(u64::from(pipeline));
    let before = server.cpu_time()?;
    if in_step {
        for _ in 0..batches {
            publisher.send(&batch)?;
            readers.iter_mut().try_for_each(|reader| reader.skip(batch_bytes))?;
            replied(&mut publisher)?;
        }
    } else {
        std::thread::scope(|scope| -> Result<(), Failure> {
            let skip = |reader: &mut Connection| reader.skip(batch_bytes * batches);
            let readers: Vec<_> =
                readers.iter_mut().map(|reader| scope.spawn(move || skip(reader))).collect();
            for _ in 0..batches {
                publisher.send(&batch)?;
                replied(&mut publisher)?;
            }
            readers.into_iter().try_for_each(|reader| reader.join().expect("a reader ends"))
        })?;
    }
    let spent = server.cpu_time()? - before;
    let delivered = batches * u64::from(pipeline) * u64::from(subscribers);
    Ok(vec![(Metric::Cpu, spent.as_secs_f64() * 1e9 / delivered as f64)])
}

fn weigh(server: &Server, workload: &Workload, sizes: Sizes) -> Result<Figures, Failure> {
    let items = sizes.of(workload.items);
    // Connected before the first reading, so that the connection is in neither.
    let mut connection = server.connect()?;
    connection.call(&[b"PING"])?;
    let before = resident_after(server, SILENCE_AT_START)?;
    connection.fill(workload, items)?;
    let after = resident_after(server, silence(sizes))?;
    Ok(vec![(Metric::BytesPerItem, (after - before) / items as f64)])
}

fn idle(server: &Server, connections: u64, sizes: Sizes) -> Result<Figures, Failure> {
    let connections = sizes.of(connections);
    let before = resident_after(server, SILENCE_AT_START)?;
    let mut clients = open_many(server, connections)?;
    for client in &mut clients {
        client.call(&[b"PING"])?;
    }
    let after = resident_after(server, silence(sizes))?;
    Ok(vec![
        (Metric::EmptyBytes, before),
        (Metric::BytesPerConnection, (after - before) / connections as f64),
    ])
}

fn resident_after(server: &Server, silence: Duration) -> Result<f64, Failure> {
    std::thread::sleep(silence);
    Ok(server.resident()? as f64)
}

/// A quick run has no figures to be precise about.
fn silence(sizes: Sizes) -> Duration {
    if sizes.quick { SILENCE_AT_START } else { SILENCE }
}

fn grow(server: &Server, keys: u64) -> Result<Figures, Failure> {
    let mut connection = server.connect()?;
    let mut request = Vec::new();
    // Written once in full beforehand: page faults of a growing vector would count as the server's time.
    let mut times = vec![1_u64; usize::try_from(keys).expect("a 64-bit machine")];
    for (index, time) in times.iter_mut().enumerate() {
        request.clear();
        encode(&mut request, &[b"SET", format!("key:{index:012}").as_bytes(), &[b'v'; 32]]);
        let start = Instant::now();
        connection.send(&request)?;
        connection.receive_ok()?;
        *time = nanoseconds(start.elapsed());
    }
    times.sort_unstable();
    let longest = times[times.len() - 1];
    let p9999 = times[(times.len() - 1) * 9999 / 10_000];
    Ok(vec![(Metric::Longest, longest as f64), (Metric::P9999, p9999 as f64)])
}

/// Sends one big command while a prober on another connection asks for a small key without pause; the figure is the
/// prober's longest wait, from when the command is sent until a while after its answer.
fn disturb(
    server: &Server,
    workload: &Workload,
    items: u64,
    command: &[&[u8]],
    reply_bytes: u64,
) -> Result<Figures, Failure> {
    let mut sender = server.connect()?;
    sender.fill(workload, items)?;
    let mut prober = server.connect()?;
    prober.call(&[b"SET", b"small", b"value"])?;
    let (armed, done) = (AtomicBool::new(false), AtomicBool::new(false));
    let longest = std::thread::scope(|scope| {
        let probing = scope.spawn(|| probe(&mut prober, &armed, &done));
        let asked = (|| {
            let mut request = Vec::new();
            encode(&mut request, command);
            std::thread::sleep(Duration::from_millis(50)); // the prober reaches its pace
            armed.store(true, Ordering::Relaxed);
            sender.send(&request)?;
            sender.skip(reply_bytes)?;
            std::thread::sleep(AFTERMATH);
            Ok::<(), Failure>(())
        })();
        done.store(true, Ordering::Relaxed);
        let longest = probing.join().expect("the prober does not panic");
        asked.and(longest)
    })?;
    Ok(vec![(Metric::Longest, longest)])
}

fn probe(connection: &mut Connection, armed: &AtomicBool, done: &AtomicBool) -> Result<f64, Failure> {
    let mut request = Vec::new();
    encode(&mut request, &[b"GET", b"small"]);
    let mut longest = 0;
    while !done.load(Ordering::Relaxed) {
        let start = Instant::now();
        connection.send(&request)?;
        connection.receive_ok()?;
        if armed.load(Ordering::Relaxed) {
            longest = longest.max(nanoseconds(start.elapsed()));
        }
    }
    Ok(longest as f64)
}

/// The length of HGETALL's reply for the workload big-hash: an array header, then fields of 16 B and values of 32 B,
/// each as `$NN\r\n` + bytes + `\r\n`.
fn big_hash_reply_bytes(items: u64) -> u64 {
    format!("*{}\r\n", items * 2).len() as u64 + items * (5 + 16 + 2 + 5 + 32 + 2)
}

fn open_many(server: &Server, count: u64) -> Result<Vec<Connection>, Failure> {
    (0..count).map(|_| server.connect()).collect()
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
