//! `saving`: snapshots of real servers. What docs/snapshots.md quotes.
//!
//! `time` saves and loads many small keys beside a few large values, and says how long it took. `memory` saves while
//! clients write over the data as fast as they can, and says how much more was resident meanwhile. `replies` saves
//! while clients ask one thing at a time, and says how long the longest had to wait. Each beside Redis, which forks.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use damselfly_benches::client::{Connection, encode};
use damselfly_benches::server::{Contestant, Server};
use damselfly_benches::workloads::Rng;
use damselfly_benches::{Failure, sys};
use redis_protocol::resp2::types::OwnedFrame;

/// Shows what a snapshot takes: time, memory, patience.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// What to run: time, memory, replies
    what: String,
    /// Our server
    #[arg(long, value_name = "PATH", default_value = "target/release/damselfly")]
    ours: String,
    /// Where snapshots are written; a directory in it is made and removed
    #[arg(long, value_name = "PATH", default_value = ".")]
    dir: PathBuf,
    /// Of everything that is stored, one in so many
    #[arg(long, default_value_t = 1)]
    scale: u64,
    /// Rounds
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Also let ours write an rdb file, as Redis does
    #[arg(long)]
    rdb: bool,
}

const THREADS: u32 = 2;
/// `time`: keys with small values, and values of a megabyte.
const SMALL: u64 = 5_000_000;
const LARGE: u64 = 1000;
/// `memory` and `replies`: two million values of a thousand bytes.
const KEYS: u64 = 2_000_000;
const VALUE: usize = 1000;
/// Clients that write over them, and how many requests each sends before it reads.
const WRITERS: u64 = 2;
const PIPELINE: usize = 64;
/// How long the same is watched before the save, to compare with.
const BEFORE: Duration = Duration::from_secs(5);
/// How often a save is asked whether it has ended.
const LOOK: Duration = Duration::from_millis(5);

fn main() -> ExitCode {
    let options = Options::parse();
    let result = sys::raise_open_files().map_err(Failure::from).and_then(|_| match options.what.as_str() {
        "time" => time(&options),
        "memory" => under_load(&options, PIPELINE),
        "replies" => under_load(&options, 1),
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

/// A directory that goes with its owner.
struct Place(PathBuf);

impl Place {
    fn new(options: &Options) -> Result<Place, Failure> {
        let path = options.dir.canonicalize()?.join(format!("damselfly-saving-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Place(path))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A leftover is not worth an error.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The servers, saving to and loading from `dir`.
fn contestants(options: &Options, dir: &Path) -> Vec<Contestant> {
    let dir = dir.to_string_lossy();
    let mut redis = Contestant::redis("redis", "redis-server");
    redis.command.extend(["--dir", &dir, "--dbfilename", "redis.rdb"].map(str::to_owned));
    let ours = |name: &str, format: &str| {
        let flags =
            [format!("--dir={dir}"), "--dbfilename=ours".to_owned(), format!("--{format}df_snapshot_format")];
        Contestant { name: name.to_owned(), ..Contestant::ours(&options.ours, &flags) }
    };
    let mut all = vec![redis, ours("ours", "")];
    if options.rdb {
        all.push(ours("ours, rdb", "no"));
    }
    all
}

fn key(number: u64) -> Vec<u8> {
    format!("key:{number:012}").into_bytes()
}

/// Stores keys `from..to` with values of `len` bytes.
fn fill(server: &Server, from: u64, to: u64, len: usize) -> Result<(), Failure> {
    let mut connection = server.connect()?;
    let (mut batch, mut count, mut random) = (Vec::new(), 0, Rng::new(from));
    let mut value = vec![0; len];
    for number in from..to {
        random.text(&mut value);
        encode(&mut batch, &[b"SET", &key(number), &value]);
        count += 1;
        if batch.len() >= 64 << 10 || number + 1 == to {
            connection.exchange(&batch, count)?;
            batch.clear();
            count = 0;
        }
    }
    Ok(())
}

/// Has a server save; returns how long it took.
fn save(server: &Server) -> Result<Duration, Failure> {
    let mut connection = server.connect()?;
    let began = Instant::now();
    connection.call(&[b"BGSAVE"])?;
    while connection.info("persistence", "rdb_bgsave_in_progress")? == 1 {
        std::thread::sleep(LOOK);
    }
    Ok(began.elapsed())
}

fn time(options: &Options) -> Result<(), Failure> {
    println!("| round | server | save, s | load, s | save / redis | load / redis |");
    println!("| --- | --- | --- | --- | --- | --- |");
    for round in 1..=options.rounds {
        let mut yardstick = None;
        let place = Place::new(options)?;
        for contestant in contestants(options, &place.0) {
            let server = Server::start(&contestant, THREADS)?;
            let (small, large) = (SMALL / options.scale, LARGE / options.scale);
            fill(&server, 0, small, 16)?;
            fill(&server, small, small + large, 1 << 20)?;
            let saved = save(&server).map_err(|error| server.explain(error))?;
            drop(server);
            let began = Instant::now();
            let server = Server::start(&contestant, THREADS)?;
            let loaded = began.elapsed();
            let keys = server.connect()?.call(&[b"DBSIZE"])?;
            if keys != OwnedFrame::Integer((small + large) as i64) {
                return Err(Failure::Broken(format!("{} keys were saved, {keys:?} loaded", small + large)));
            }
            let (first_saved, first_loaded) = *yardstick.get_or_insert((saved, loaded));
            println!(
                "| {round} | {} | {:.2} | {:.2} | {:.2} | {:.2} |",
                contestant.name,
                saved.as_secs_f64(),
                loaded.as_secs_f64(),
                saved.as_secs_f64() / first_saved.as_secs_f64(),
                loaded.as_secs_f64() / first_loaded.as_secs_f64(),
            );
        }
    }
    Ok(())
}

/// What the clients of [`under_load`] met since the last look.
#[derive(Default)]
struct Met {
    requests: AtomicU64,
    /// The longest wait for an answer to what was sent at once, in microseconds.
    longest: AtomicU64,
}

impl Met {
    fn take(&self) -> (u64, f64) {
        let longest = self.longest.swap(0, Ordering::Relaxed) as f64 / 1000.0;
        (self.requests.swap(0, Ordering::Relaxed), longest)
    }
}

/// Writes over keys, `pipeline` requests at a time, and with a pipeline of one reads every other.
fn write_over(
    address: SocketAddr,
    seed: u64,
    keys: u64,
    pipeline: usize,
    met: &Met,
    stop: &AtomicBool,
) -> Result<(), Failure> {
    let mut connection = Connection::open(address)?;
    let (mut random, mut batch, mut value) = (Rng::new(seed), Vec::new(), [0; VALUE]);
    random.text(&mut value);
    while !stop.load(Ordering::Relaxed) {
        batch.clear();
        for _ in 0..pipeline {
            let key = key(random.below(keys));
            if pipeline == 1 && random.below(2) == 0 {
                encode(&mut batch, &[b"GET", &key]);
            } else {
                encode(&mut batch, &[b"SET", &key, &value]);
            }
        }
        let began = Instant::now();
        connection.exchange(&batch, pipeline as u32)?;
        met.longest.fetch_max(began.elapsed().as_micros() as u64, Ordering::Relaxed);
        met.requests.fetch_add(pipeline as u64, Ordering::Relaxed);
    }
    Ok(())
}

fn under_load(options: &Options, pipeline: usize) -> Result<(), Failure> {
    println!(
        "| round | server | save, s | most resident, % of before | longest reply, ms | before, ms | requests/s | before |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    let keys = KEYS / options.scale;
    for round in 1..=options.rounds {
        let place = Place::new(options)?;
        for contestant in contestants(options, &place.0) {
            let server = Server::start(&contestant, THREADS)?;
            fill(&server, 0, keys, VALUE)?;
            let (met, stop) = (Met::default(), AtomicBool::new(false));
            let run = || -> Result<_, Failure> {
                std::thread::sleep(Duration::from_secs(1));
                met.take();
                let look = || std::thread::sleep(BEFORE);
                let ((), resident) = if pipeline == 1 {
                    (look(), 0)
                } else {
                    server.watch(Server::resident_with_children, look)
                };
                let before = met.take();
                // Whoever looks at the memory of a process holds it up, so that replies are timed without.
                let (saved, most) = if pipeline == 1 {
                    (save(&server), 0)
                } else {
                    server.watch(Server::resident_with_children, || save(&server))
                };
                Ok((before, resident, saved?, most, met.take()))
            };
            let result = std::thread::scope(|scope| {
                let clients: Vec<_> = (1..=WRITERS)
                    .map(|seed| {
                        let (address, met, stop) = (server.address, &met, &stop);
                        scope.spawn(move || write_over(address, seed, keys, pipeline, met, stop))
                    })
                    .collect();
                let result = run();
                stop.store(true, Ordering::Relaxed);
                clients.into_iter().try_for_each(|client| client.join().expect("a client ends"))?;
                result
            });
            let (before, resident, saved, most, during) = result.map_err(|error| server.explain(error))?;
            let extra = if pipeline == 1 {
                "-".to_owned()
            } else {
                format!("{:.1}", most as f64 * 100.0 / resident as f64)
            };
            println!(
                "| {round} | {} | {:.2} | {extra} | {:.1} | {:.1} | {:.0} | {:.0} |",
                contestant.name,
                saved.as_secs_f64(),
                during.1,
                before.1,
                during.0 as f64 / saved.as_secs_f64(),
                before.0 as f64 / BEFORE.as_secs_f64(),
            );
        }
    }
    Ok(())
}
