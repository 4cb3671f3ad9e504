//! `memory`: real servers at the limit of their memory. What docs/eviction.md quotes beside `eviction`.
//!
//! `hits` plays the traces to our server and to Redis with its two policies, same `maxmemory`, through a cache-aside
//! client: GET, and on a miss SET. `shapes` does so with values of other lengths and types. `limit` writes at full speed
//! with values of one size after the other. `change` lets sizes grow and shrink with an expiry on every key. `cost`
//! compares a SET at the limit with one below it. `lower` takes four fifths of the memory away under load. `unfinished`
//! has many clients send half a value each, and `unread` has one ask for far more than it reads. `day` goes through the
//! hours of a day, twelve of the given seconds in all, `aside` has many clients ask for values of a megabyte before they
//! read any, and `cgroup` plays all that is hostile to a server that was told nothing about memory, in a cgroup whose
//! limit it must find by itself.
//!
//! Resident memory and processor time are the kernel's, read from outside.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use damselfly_benches::client::{Connection, encode};
use damselfly_benches::server::{Contestant, Server};
use damselfly_benches::traces::{Random, Trace, belady, mix, traces};
use damselfly_benches::{Failure, stalls, sys};
use redis_protocol::resp2::types::OwnedFrame;

/// Shows servers at the limit of their memory.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// What to run: hits, shapes, limit, change, cost, lower, unfinished, unread, aside, day, cgroup
    what: String,
    /// Our server
    #[arg(long, value_name = "PATH", default_value = "target/release/damselfly")]
    ours: String,
    /// Only traces, or sizes of values, that begin with this
    #[arg(long, default_value = "")]
    only: String,
    /// Seconds for each part of limit and change
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Megabytes of maxmemory
    #[arg(long, default_value_t = 256)]
    megabytes: u64,
    /// Directory of a cgroup with a limit on memory, for `cgroup`; without, the server is told 80 % of the megabytes
    #[arg(long, value_name = "PATH")]
    cgroup: Option<String>,
    /// Leave Redis out
    #[arg(long)]
    alone: bool,
}

const CLIENTS: usize = 200;
const CLIENT_THREADS: usize = 4;
const MB: u64 = 1_000_000;

fn main() -> ExitCode {
    let options = Options::parse();
    let result = sys::raise_open_files().map_err(Failure::from).and_then(|_| match options.what.as_str() {
        "hits" => hits(&options),
        "shapes" => shapes(&options),
        "limit" => limit(&options),
        "change" => change(&options),
        "cost" => cost(&options),
        "lower" => lower(&options),
        "unfinished" => unfinished(&options),
        "unread" => unread(&options),
        "aside" => aside(&options),
        "day" => day(&options),
        "cgroup" => cgroup(&options),
        other => Err(Failure::Broken(format!("there is no {other}"))),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn ours(options: &Options, maxmemory: u64) -> Contestant {
    let flags = ["--cache_mode=true".to_owned(), format!("--maxmemory={maxmemory}")];
    Contestant::ours(&options.ours, &flags)
}

fn redis(policy: &str, maxmemory: u64) -> Contestant {
    let mut redis = Contestant::redis(policy, "redis-server");
    let words = ["--maxmemory", &maxmemory.to_string(), "--maxmemory-policy", policy];
    redis.command.extend(words.map(str::to_owned));
    redis
}

fn key(number: u64) -> Vec<u8> {
    format!("key:{number:012}").into_bytes()
}

/// Requests sent before their answers are read.
const PIPELINE: usize = 16;
/// Bytes of values in the traces are multiplied by this, so that memory is many times what a server takes empty.
const SCALE: u64 = 80;
/// Bytes of a value in the traces whose values are of one size.
const VALUE_BYTES: u64 = 100 * SCALE;

/// What a cached value is, and how it is asked for.
#[derive(Clone, Copy)]
enum Form {
    /// A string: SET and GET.
    Text,
    /// A hash of two fields with half of the bytes each: HSET and HGET.
    Hash,
    /// A list of elements of forty bytes: RPUSH and LINDEX.
    List,
    /// A set of members of forty bytes: SADD and SRANDMEMBER.
    Set,
    /// A sorted set of members of forty bytes: ZADD and ZRANGE.
    Sorted,
    /// A stream of one entry: XADD and XREVRANGE.
    Stream,
    /// One of these, by the number of the key.
    Any,
}

impl Form {
    /// What the value of this key is.
    fn of(self, number: u32) -> Form {
        const ALL: [Form; 6] = [Form::Text, Form::Hash, Form::List, Form::Set, Form::Sorted, Form::Stream];
        if matches!(self, Form::Any) { ALL[number as usize % ALL.len()] } else { self }
    }

    fn ask(self, batch: &mut Vec<u8>, number: u32) {
        let key = key(number.into());
        match self.of(number) {
            Form::Text | Form::Any => encode(batch, &[b"GET", &key]),
            Form::Hash => encode(batch, &[b"HGET", &key, b"one"]),
            Form::List => encode(batch, &[b"LINDEX", &key, b"0"]),
            Form::Set => encode(batch, &[b"SRANDMEMBER", &key]),
            Form::Sorted => encode(batch, &[b"ZRANGE", &key, b"0", b"0"]),
            Form::Stream => encode(batch, &[b"XREVRANGE", &key, b"+", b"-", b"COUNT", b"1"]),
        }
    }

    fn store(self, batch: &mut Vec<u8>, number: u32, value: &[u8]) {
        let key = key(number.into());
        let (one, other) = value.split_at(value.len() / 2);
        let parts = value.chunks(40);
        let words: Vec<&[u8]> = match self.of(number) {
            Form::Text | Form::Any => vec![b"SET", &key, value],
            Form::Hash => vec![b"HSET", &key, b"one", one, b"other", other],
            Form::List => [b"RPUSH", &*key].into_iter().chain(parts).collect(),
            Form::Set => [b"SADD", &*key].into_iter().chain(parts).collect(),
            Form::Sorted => {
                [b"ZADD", &*key].into_iter().chain(parts.flat_map(|part| [&b"1"[..], part])).collect()
            }
            Form::Stream => vec![b"XADD", &key, b"*", b"field", value],
        };
        encode(batch, &words);
    }
}

/// Plays a trace from so many clients; returns the percentage of hits and the errors.
fn play(
    server: SocketAddr,
    trace: &Trace,
    requests: usize,
    (form, clients): (Form, usize),
    len: &(dyn Fn(u32) -> usize + Sync),
) -> Result<(f64, u64), Failure> {
    let (next, hits, errors) = (AtomicUsize::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let longest = trace.requests.iter().map(|&number| len(number)).max().unwrap_or(0);
    let value: Vec<u8> = (0..longest).map(|n| (n * 31 % 251) as u8).collect();
    let client = || -> Result<(), Failure> {
        let mut connection = Connection::open(server)?;
        let (mut batch, mut missed) = (Vec::new(), Vec::new());
        loop {
            let first = next.fetch_add(PIPELINE, Ordering::Relaxed);
            if first >= requests {
                return Ok(());
            }
            let asked = &trace.requests[first..(first + PIPELINE).min(requests)];
            batch.clear();
            missed.clear();
            asked.iter().for_each(|&number| form.ask(&mut batch, number));
            connection.send(&batch)?;
            for &number in asked {
                match connection.receive()? {
                    OwnedFrame::Null => missed.push(number),
                    OwnedFrame::Array(found) if found.is_empty() => missed.push(number),
                    OwnedFrame::BulkString(_) | OwnedFrame::Array(_) => {
                        hits.fetch_add(1, Ordering::Relaxed);
                    }
                    _ => drop(errors.fetch_add(1, Ordering::Relaxed)),
                }
            }
            batch.clear();
            for &number in &missed {
                form.store(&mut batch, number, &value[..len(number)]);
            }
            connection.send(&batch)?;
            for _ in &missed {
                if matches!(connection.receive()?, OwnedFrame::Error(_)) {
                    errors.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        clients.into_iter().try_for_each(|client| client.join().expect("a client ends"))
    })?;
    Ok((hits.into_inner() as f64 * 100.0 / requests as f64, errors.into_inner()))
}

/// These have large values by themselves.
fn is_mixed(trace: &Trace) -> bool {
    trace.name == "mixed sizes"
}

fn hits(options: &Options) -> Result<(), Failure> {
    print_head_of_hits();
    let kept = (options.megabytes * MB / VALUE_BYTES) as usize;
    // Of the keys that the cache has room for, each is asked for a hundred times in the mean.
    for trace in traces(10 * kept).iter().filter(|trace| trace.name.starts_with(&options.only)) {
        let scale = if is_mixed(trace) { 1 } else { SCALE };
        let len = |number: u32| trace.sizes[number as usize] as usize * scale as usize;
        let how = (Form::Text, CLIENT_THREADS);
        play_to_all(options, trace.name, trace, trace.capacity * scale, how, &len)?;
    }
    Ok(())
}

/// What values are, megabytes of maxmemory, bytes of a value, its form, and clients.
const SHAPES: [(&str, u64, u64, Form, usize); 12] = [
    ("strings of 500", 16, 500, Form::Text, 4),
    ("strings of 1000", 32, 1000, Form::Text, 4),
    ("strings of 2000, one client", 64, 2000, Form::Text, 1),
    ("strings of 20 000", 128, 20_000, Form::Text, 4),
    ("strings of 200 000, one client", 128, 200_000, Form::Text, 1),
    ("strings of 1 000 000", 256, 1_000_000, Form::Text, 4),
    ("hashes of 1000", 32, 1000, Form::Hash, 4),
    ("lists of 1000", 32, 1000, Form::List, 4),
    ("sets of 1000", 32, 1000, Form::Set, 4),
    ("sorted sets of 1000", 32, 1000, Form::Sorted, 4),
    ("streams of 1000", 32, 1000, Form::Stream, 4),
    ("all kinds of 2000", 64, 2000, Form::Any, 4),
];

/// As `hits`, with Zipf 0.9, values of other lengths and types, and fewer clients.
fn shapes(options: &Options) -> Result<(), Failure> {
    print_head_of_hits();
    for (name, megabytes, bytes, form, clients) in
        SHAPES.into_iter().filter(|shape| shape.0.starts_with(&options.only))
    {
        let kept = (megabytes * MB / bytes) as usize;
        let all = traces(10 * kept);
        let trace = all.iter().find(|trace| trace.name == "zipf 0.9").expect("one of them");
        play_to_all(options, name, trace, megabytes * MB, (form, clients), &|_| bytes as usize)?;
    }
    Ok(())
}

fn print_head_of_hits() {
    println!(
        "| trace | maxmemory | server | hits, % | keys kept | errors | most resident / maxmemory | seconds |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
}

/// Plays the first half of a trace to each server.
fn play_to_all(
    options: &Options,
    name: &str,
    trace: &Trace,
    maxmemory: u64,
    how: (Form, usize),
    len: &(dyn Fn(u32) -> usize + Sync),
) -> Result<(), Failure> {
    let requests = trace.requests.len() / 2;
    let mut all = vec![ours(options, maxmemory)];
    if !options.alone {
        all.extend([redis("allkeys-lru", maxmemory), redis("allkeys-lfu", maxmemory)]);
    }
    for contestant in all {
        let server = Server::start(&contestant, 2)?;
        let began = Instant::now();
        let (played, most) =
            server.watch(Server::resident, || play(server.address, trace, requests, how, len));
        let (hits, errors) = played.map_err(|error| server.explain(error))?;
        let OwnedFrame::Integer(kept) = server.connect()?.call(&[b"DBSIZE"])? else {
            return Err(Failure::Broken("DBSIZE is a number".to_owned()));
        };
        println!(
            "| {name} | {} MB | {} | {hits:.2} | {kept} | {errors} | {:.2} | {:.0} |",
            maxmemory / MB,
            contestant.name,
            most as f64 / maxmemory as f64,
            began.elapsed().as_secs_f64(),
        );
    }
    println!("| {name} | | belady, modelled | {:.2} | | | | |", belady(trace, requests).0);
    Ok(())
}

/// What a flood of SETs met.
#[derive(Default)]
struct Flood {
    sets: AtomicU64,
    errors: AtomicU64,
    /// The first of them.
    first_error: OnceLock<String>,
    /// Longest wait of a thread until all its clients had their replies, in microseconds.
    longest: AtomicU64,
}

/// Writes new keys with values of `len(n)` bytes over all clients until `stop` says so.
fn flood(
    server: SocketAddr,
    flood: &Flood,
    len: &(dyn Fn(u64) -> usize + Sync),
    expiry: Option<&str>,
    stop: &(dyn Fn() -> bool + Sync),
) -> Result<(), Failure> {
    let next = AtomicU64::new(0);
    let client = || -> Result<(), Failure> {
        let open = (0..CLIENTS / CLIENT_THREADS).map(|_| Connection::open(server));
        let mut connections = open.collect::<Result<Vec<_>, _>>()?;
        let value = vec![b'v'; 1 << 20];
        let mut counts = vec![0usize; connections.len()];
        let mut batch = Vec::new();
        while !stop() {
            let began = Instant::now();
            for (connection, count) in connections.iter_mut().zip(&mut counts) {
                batch.clear();
                *count = 0;
                while *count < PIPELINE && batch.len() < 64 << 10 {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let (key, value) = (key(number), &value[..len(number)]);
                    match expiry {
                        Some(seconds) => {
                            encode(&mut batch, &[b"SET", &key, value, b"EX", seconds.as_bytes()])
                        }
                        None => encode(&mut batch, &[b"SET", &key, value]),
                    }
                    *count += 1;
                }
                connection.send(&batch)?;
            }
            for (connection, count) in connections.iter_mut().zip(&counts) {
                for _ in 0..*count {
                    if let OwnedFrame::Error(error) = connection.receive()? {
                        flood.errors.fetch_add(1, Ordering::Relaxed);
                        flood.first_error.get_or_init(|| error);
                    }
                }
                flood.sets.fetch_add(*count as u64, Ordering::Relaxed);
            }
            flood.longest.fetch_max(began.elapsed().as_micros() as u64, Ordering::Relaxed);
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENT_THREADS).map(|_| scope.spawn(client)).collect();
        clients.into_iter().try_for_each(|client| client.join().expect("a client ends"))
    })
}

/// Those that the options want.
fn sizes<'a>(options: &'a Options, all: &'a [usize]) -> impl Iterator<Item = usize> + 'a {
    all.iter().copied().filter(|size| options.only.is_empty() || size.to_string() == options.only)
}

fn until(end: Instant) -> impl Fn() -> bool + Sync {
    move || Instant::now() >= end
}

fn limit(options: &Options) -> Result<(), Failure> {
    let maxmemory = options.megabytes * MB;
    println!("| bytes of values | server | SET/s | errors | most resident / maxmemory | beyond, MB |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for size in ["10", "100", "1000", "10000", "100000", "1000000", "any"] {
        if !size.starts_with(&options.only) {
            continue;
        }
        let len = move |number: u64| match size.parse() {
            Ok(len) => len,
            Err(_) => 10usize.pow(1 + (number % 6) as u32),
        };
        let mut all = vec![ours(options, maxmemory)];
        if !options.alone {
            all.push(redis("allkeys-lru", maxmemory));
        }
        for contestant in all {
            let server = Server::start(&contestant, 2)?;
            let (seen, end) = (Flood::default(), Instant::now() + Duration::from_secs(options.seconds));
            let (ended, most) =
                server.watch(Server::resident, || flood(server.address, &seen, &len, None, &until(end)));
            ended.map_err(|error| server.explain(error))?;
            println!(
                "| {size} | {} | {} | {} | {:.3} | {:.1} |",
                contestant.name,
                seen.sets.into_inner() / options.seconds,
                seen.errors.into_inner(),
                most as f64 / maxmemory as f64,
                (most as f64 - maxmemory as f64 * 1.05) / MB as f64,
            );
        }
    }
    Ok(())
}

/// Reads at an even pace while others write; returns the times of replies in microseconds, sorted.
fn read_times(server: SocketAddr, end: Instant) -> Result<Vec<u64>, Failure> {
    let (mut connection, mut random, mut times) = (Connection::open(server)?, Random(5), Vec::new());
    while Instant::now() < end {
        let began = Instant::now();
        connection.call(&[b"GET", &key(random.below(1 << 20) as u64)])?;
        times.push(began.elapsed().as_micros() as u64);
        std::thread::sleep(Duration::from_micros(500));
    }
    times.sort_unstable();
    Ok(times)
}

fn change(options: &Options) -> Result<(), Failure> {
    println!("| maxmemory | SET/s | errors | most resident / maxmemory | GET p99, ms | longest, ms |");
    println!("| --- | --- | --- | --- | --- | --- |");
    // Small, large, small again, each for a share of the time; without eviction the same values are overwritten.
    for maxmemory in [16_000 * MB, options.megabytes * MB] {
        let server = Server::start(&ours(options, maxmemory), 2)?;
        let (seen, began) = (Flood::default(), Instant::now());
        let end = began + Duration::from_secs(6 * options.seconds);
        let part = move || (began.elapsed().as_secs() / options.seconds) as usize;
        let sizes = [100usize, 700, 5000, 60_000, 700, 100];
        let len = move |number: u64| sizes[part().min(5)] + (number % 50) as usize;
        // An exact look would keep one of few processors for milliseconds, and the reader from its reply.
        let ((written, times), most) = server.watch(Server::resident_about, || {
            std::thread::scope(|scope| {
                let reader = scope.spawn(|| read_times(server.address, end));
                let written = flood(server.address, &seen, &len, Some("3600"), &until(end));
                (written, reader.join().expect("the reader ends"))
            })
        });
        written.map_err(|error| server.explain(error))?;
        let times = times?;
        println!(
            "| {} MB | {} | {} | {:.3} | {:.2} | {:.2} |",
            maxmemory / MB,
            seen.sets.into_inner() / 6 / options.seconds,
            seen.errors.into_inner(),
            most as f64 / maxmemory as f64,
            times[times.len() * 99 / 100] as f64 / 1000.0,
            times[times.len() - 1] as f64 / 1000.0,
        );
    }
    Ok(())
}

fn cost(options: &Options) -> Result<(), Failure> {
    println!("| bytes of values | microseconds of CPU per SET, below the limit | at the limit | ratio |");
    println!("| --- | --- | --- | --- |");
    for size in sizes(options, &[32, 200, 1000, 4000]) {
        let room = 4_000 * MB;
        let mut costs = Vec::new();
        for maxmemory in [2 * room, options.megabytes * MB] {
            let server = Server::start(&ours(options, maxmemory), 2)?;
            // The same number of new keys below the limit as at it; at it, the cache has been full for a while.
            let sets = (room / 2 / (size as u64 + 100)).min(3_000_000);
            let seen = Flood::default();
            if maxmemory < room {
                let warm = Flood::default();
                flood(server.address, &warm, &|_| size, None, &|| warm.sets.load(Ordering::Relaxed) >= sets)?;
            }
            let before = server.cpu_time()?;
            let offset = |number: u64| size + (number % 2) as usize;
            flood(server.address, &seen, &offset, None, &|| seen.sets.load(Ordering::Relaxed) >= sets)?;
            let spent = server.cpu_time()? - before;
            costs.push(spent.as_secs_f64() * 1e6 / seen.sets.into_inner() as f64);
        }
        println!("| {size} | {:.2} | {:.2} | {:.2} |", costs[0], costs[1], costs[1] / costs[0]);
    }
    Ok(())
}

fn lower(options: &Options) -> Result<(), Failure> {
    for size in sizes(options, &[100, 1000]) {
        let (high, low) = (1_000 * MB, 200 * MB);
        let server = Server::start(&ours(options, high), 2)?;
        let seen = Flood::default();
        let is_full = || server.resident_about().unwrap_or(0) > high / 10 * 9;
        flood(server.address, &seen, &|_| size, None, &is_full)?;
        let stop = AtomicBool::new(false);
        let loaded = Flood::default();
        let (lowered, stall) = stalls::watch(|| {
            std::thread::scope(|scope| {
                let load = scope.spawn(|| {
                    flood(server.address, &loaded, &|_| size, None, &|| stop.load(Ordering::Relaxed))
                });
                // The same load at the limit as it was: what the clients and the machine make of it.
                let before = read_times(server.address, Instant::now() + Duration::from_secs(2));
                let batch_before = loaded.longest.swap(0, Ordering::Relaxed);
                let reader =
                    scope.spawn(|| read_times(server.address, Instant::now() + Duration::from_secs(10)));
                std::thread::sleep(Duration::from_secs(1));
                let began = Instant::now();
                let set = server.connect().and_then(|mut connection| {
                    connection.call(&[b"CONFIG", b"SET", b"maxmemory", low.to_string().as_bytes()])
                });
                while set.is_ok()
                    && server.resident_about().unwrap_or(0) > low * 105 / 100 + (16 << 20)
                    && began.elapsed() < Duration::from_secs(60)
                {
                    std::thread::sleep(Duration::from_millis(20));
                }
                let reached = set.map(|_| began.elapsed());
                let times = reader.join().expect("the reader ends");
                stop.store(true, Ordering::Relaxed);
                load.join()
                    .expect("the load ends")
                    .and(reached)
                    .map(|reached| (reached, before, times, batch_before))
            })
        });
        let (reached, before, times, batch_before) = lowered?;
        let (before, times) = (before?, times?);
        println!(
            "values of {size}: 1 GB to 200 MB in {:.1} s; longest GET {:.1} ms, p99 {:.1} ms; longest round of SETs {:.0} ms; errors {}; before, longest GET {:.1} ms, p99 {:.1} ms, longest round {:.0} ms; the machine stood still for at most {}",
            reached.as_secs_f64(),
            times[times.len() - 1] as f64 / 1000.0,
            times[times.len() * 99 / 100] as f64 / 1000.0,
            loaded.longest.into_inner() as f64 / 1000.0,
            loaded.errors.into_inner(),
            before[before.len() - 1] as f64 / 1000.0,
            before[before.len() * 99 / 100] as f64 / 1000.0,
            batch_before as f64 / 1000.0,
            stall.map_or("? ms".to_owned(), |stall| format!("{:.0} ms", stall.as_secs_f64() * 1000.0)),
        );
    }
    Ok(())
}

fn unfinished(options: &Options) -> Result<(), Failure> {
    let maxmemory = options.megabytes * MB;
    let server = Server::start(&ours(options, maxmemory), 2)?;
    let load = || -> Result<(usize, Duration), Failure> {
        let mut open = Vec::new();
        let half = vec![b'x'; 64 << 10];
        for number in 0..10_000 {
            let mut connection = Connection::open(server.address)?;
            connection.send(format!("*3\r\n$3\r\nSET\r\n$8\r\nk{number:07}\r\n$10000000\r\n").as_bytes())?;
            open.push(connection);
        }
        for _ in 0..80 {
            open.retain_mut(|connection| connection.send_some(&half).is_ok());
        }
        let started = Instant::now();
        server.connect()?.call(&[b"SET", b"k", &[b'v'; 100_000]])?;
        Ok((open.len(), started.elapsed()))
    };
    let ((load, unread), most) = server.watch(Server::resident, || server.watch(Server::unread, load));
    let (left, waited) = load?;
    let cut = server.connect()?.info("stats", "client_query_buffer_limit_disconnections")?;
    println!(
        "10 000 halves of 10 MB: {left} connections left, {cut} cut, most resident {:.3} of maxmemory; most unread in the \
         system's buffers {} MB; a SET of 100 KB took {} ms",
        most as f64 / maxmemory as f64,
        unread / MB,
        waited.as_millis()
    );
    Ok(())
}

fn unread(options: &Options) -> Result<(), Failure> {
    let maxmemory = options.megabytes * MB;
    let server = Server::start(&ours(options, maxmemory), 2)?;
    let mut connection = server.connect()?;
    for number in 0..50 {
        connection.call(&[b"SET", &key(number), &vec![b'v'; 1 << 20]])?;
    }
    let (mut sent, mut batch) = (0, Vec::new());
    (0..1000).for_each(|number| encode(&mut batch, &[b"GET", &key(number % 50)]));
    let (ended, most) = server.watch(Server::resident, || -> Result<(), Failure> {
        let end = Instant::now() + Duration::from_secs(options.seconds);
        while sent < 1000 * batch.len() && Instant::now() < end {
            sent += connection.send_some(&batch[sent % batch.len()..])?;
        }
        Ok(())
    });
    ended.map_err(|error| server.explain(error))?;
    let asked = sent * 1000 / batch.len();
    println!("{asked} GETs of 1 MB, none read: most resident {} MB of {}", most / MB, maxmemory / MB);
    server.connect()?.call(&[b"PING"])?;
    Ok(())
}

/// GETs that a client sends before it reads the first reply.
const UNREAD: usize = 4;

/// Cache-aside clients with values of a megabyte: each asks for several, all of them before anybody reads, and stores
/// those that were missing. The server's most resident memory is what it was at any time, not what was seen.
fn aside(options: &Options) -> Result<(), Failure> {
    let maxmemory = options.megabytes * MB;
    let server = Server::start(&ours(options, maxmemory), 2)?;
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let keys = 2 * maxmemory / MB;
    let (hits, misses, errors) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let client = |seed: u64| -> Result<(), Failure> {
        let open = (0..CLIENTS / CLIENT_THREADS).map(|_| Connection::open(server.address));
        let mut connections = open.collect::<Result<Vec<_>, _>>()?;
        let (value, mut random) = (vec![b'v'; 1 << 20], Random(seed));
        let mut batch = Vec::new();
        while Instant::now() < end {
            let mut asked = Vec::new();
            for connection in &mut connections {
                let numbers = [(); UNREAD].map(|()| random.below(keys as usize) as u64);
                batch.clear();
                numbers.iter().for_each(|&number| encode(&mut batch, &[b"GET", &key(number)]));
                connection.send(&batch)?;
                asked.push(numbers);
            }
            for (connection, numbers) in connections.iter_mut().zip(asked) {
                let mut missed = Vec::new();
                for number in numbers {
                    match connection.receive()? {
                        OwnedFrame::BulkString(_) => drop(hits.fetch_add(1, Ordering::Relaxed)),
                        OwnedFrame::Null => missed.push(number),
                        _ => drop(errors.fetch_add(1, Ordering::Relaxed)),
                    }
                }
                misses.fetch_add(missed.len() as u64, Ordering::Relaxed);
                for number in missed {
                    batch.clear();
                    encode(&mut batch, &[b"SET", &key(number), &value]);
                    connection.send(&batch)?;
                    if matches!(connection.receive()?, OwnedFrame::Error(_)) {
                        errors.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENT_THREADS as u64)
            .map(|n| {
                scope.spawn({
                    let client = &client;
                    move || client(n + 1)
                })
            })
            .collect();
        clients.into_iter().try_for_each(|client| client.join().expect("a client ends"))
    })
    .map_err(|error| server.explain(error))?;
    let most = server.most_resident().unwrap_or(0);
    println!(
        "values of 1 MB, {} hits, {} misses, {} errors: most resident {:.3} of maxmemory, {:.1} MB beyond 1.05 of it",
        hits.into_inner(),
        misses.into_inner(),
        errors.into_inner(),
        most as f64 / maxmemory as f64,
        (most as f64 - maxmemory as f64 * 1.05) / MB as f64,
    );
    Ok(())
}

/// Parts of a day by their share of the load, and by how long values are kept.
const HOURS: [(u32, u64); 8] = [(1, 40), (1, 40), (4, 30), (8, 10), (10, 5), (8, 10), (6, 20), (3, 40)];

/// A cache-aside client through the parts of a day: what is popular moves on, values are of all sizes, there is more
/// to do at noon than at night, and what was stored expires.
fn live(server: SocketAddr, seed: u64, began: Instant, day: Duration) -> Result<(u64, u64), Failure> {
    let (mut connection, mut random) = (Connection::open(server)?, Random(seed));
    let (mut requests, mut errors) = (0, 0);
    let value = vec![b'v'; 128 << 10];
    let (mut batch, mut asked, mut missed) = (Vec::new(), Vec::new(), Vec::new());
    while began.elapsed() < day {
        let share = began.elapsed().as_secs_f64() / day.as_secs_f64();
        let (load, kept) = HOURS[((share * HOURS.len() as f64) as usize).min(HOURS.len() - 1)];
        batch.clear();
        asked.clear();
        for _ in 0..PIPELINE {
            // The newest keys are the most popular, and there are ever newer ones.
            let number = 1_000_000 + (share * 400_000.0) as u64 - (random.unit().powi(4) * 400_000.0) as u64;
            asked.push(number);
            encode(&mut batch, &[b"GET", &key(number)]);
        }
        connection.send(&batch)?;
        missed.clear();
        for &number in &asked {
            match connection.receive()? {
                OwnedFrame::BulkString(_) => {}
                OwnedFrame::Null => missed.push(number),
                _ => errors += 1,
            }
        }
        batch.clear();
        for &number in &missed {
            let len = 64 << (mix(number as u32) % 11);
            let seconds = kept.to_string();
            encode(&mut batch, &[b"SET", &key(number), &value[..len], b"EX", seconds.as_bytes()]);
        }
        connection.send(&batch)?;
        for _ in &missed {
            errors += u64::from(matches!(connection.receive()?, OwnedFrame::Error(_)));
        }
        requests += (asked.len() + missed.len()) as u64;
        std::thread::sleep(Duration::from_millis(10) / load);
    }
    Ok((requests, errors))
}

fn day(options: &Options) -> Result<(), Failure> {
    println!(
        "| maxmemory | requests/s | errors | evicted | most resident / maxmemory | GET p99, ms | longest, ms |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for maxmemory in [16_000 * MB, options.megabytes * MB] {
        let server = Server::start(&ours(options, maxmemory), 2)?;
        let (began, day) = (Instant::now(), Duration::from_secs(12 * options.seconds));
        // An exact look would keep one of few processors for milliseconds, and the reader from its reply.
        let ((lived, times), most) = server.watch(Server::resident_about, || {
            std::thread::scope(|scope| {
                let reader = scope.spawn(|| read_times(server.address, began + day));
                let clients: Vec<_> = (0..CLIENT_THREADS as u64)
                    .map(|n| scope.spawn(move || live(server.address, n + 1, began, day)))
                    .collect();
                let lived: Result<Vec<_>, _> =
                    clients.into_iter().map(|client| client.join().expect("a client ends")).collect();
                (lived, reader.join().expect("the reader ends"))
            })
        });
        let (lived, times) = (lived.map_err(|error| server.explain(error))?, times?);
        let evicted = server.connect()?.info("stats", "evicted_keys")?;
        println!(
            "| {} MB | {} | {} | {evicted} | {:.3} | {:.2} | {:.2} |",
            maxmemory / MB,
            lived.iter().map(|(requests, _)| requests).sum::<u64>() / day.as_secs(),
            lived.iter().map(|(_, errors)| errors).sum::<u64>(),
            most as f64 / maxmemory as f64,
            times[times.len() * 99 / 100] as f64 / 1000.0,
            times[times.len() - 1] as f64 / 1000.0,
        );
    }
    Ok(())
}

/// Values of all sizes from many clients, some of which stop in the middle of a value or do not read what they asked for.
fn cgroup(options: &Options) -> Result<(), Failure> {
    let mut contestant = Contestant::ours(&options.ours, &["--cache_mode=true".to_owned()]);
    match &options.cgroup {
        Some(path) => {
            // The shell enters the group and becomes the server.
            let enter = format!("echo $$ > '{path}/cgroup.procs' && exec \"$@\"");
            contestant.command.splice(0..0, ["sh", "-c", &enter, "sh"].map(str::to_owned));
        }
        None => contestant.command.push(format!("--maxmemory={}", options.megabytes * MB / 10 * 8)),
    }
    let server = Server::start(&contestant, 2)?;
    let (seen, began) = (Flood::default(), Instant::now());
    let end = began + Duration::from_secs(12 * options.seconds);
    let part = move || (began.elapsed().as_secs() / options.seconds.max(1)) as usize;
    let sizes = [100usize, 60_000, 1000, 700_000, 5000, 200, 1 << 20, 64, 20_000, 300, 100_000, 1000];
    let len = move |number: u64| (sizes[part() % sizes.len()] + (number % 50) as usize).min(1 << 20);
    let (ended, most) = server.watch(Server::resident, || {
        let mut rude = Vec::new();
        for number in 0..200 {
            let mut connection = server.connect()?;
            connection.call(&[b"SET", &key(number), &vec![b'v'; 100_000]])?;
            let mut batch = Vec::new();
            (0..100).for_each(|_| encode(&mut batch, &[b"GET", &key(number)]));
            if number % 2 == 0 {
                batch = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$10000000\r\n{}", "x".repeat(1 << 20))
                    .into_bytes();
            }
            connection.send_some(&batch)?;
            rude.push(connection);
        }
        flood(server.address, &seen, &len, Some("3600"), &until(end))
    });
    ended.map_err(|error| server.explain(error))?;
    let mut connection = server.connect()?;
    println!(
        "maxmemory {} bytes, {}; {} SETs in {} s, {} errors{}, most resident {} MB; alive",
        connection.info("memory", "maxmemory")?,
        options.cgroup.as_deref().map_or_else(|| "as told".to_owned(), |path| format!("found in {path}")),
        seen.sets.into_inner(),
        began.elapsed().as_secs(),
        seen.errors.into_inner(),
        seen.first_error.into_inner().map(|error| format!(" ({error})")).unwrap_or_default(),
        most / MB,
    );
    Ok(())
}
