//! A server under measurement: started on a free loopback port in a directory of its own, read from outside, killed
//! when dropped.
//!
//! One server lives at a time. Fresh ones are cheap (tens of milliseconds) next to what is measured, and a fresh
//! process is the only one whose heap does not remember the row before.

use crate::Failure;
use crate::client::Connection;
use crate::sys;
use redis_protocol::resp2::types::OwnedFrame;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a server may take until it answers PING, having loaded what it has to.
const START_PATIENCE: Duration = Duration::from_secs(120);

/// Starts tried before giving up: between choosing a port and using it, somebody else may take it.
const START_ATTEMPTS: u32 = 3;

/// One competitor: a name for the report and a command line.
#[derive(Debug, Clone)]
pub struct Contestant {
    /// Column title.
    pub name: String,
    /// Program and arguments; `{port}`, `{threads}` and `{dir}` are filled in at each start.
    pub command: Vec<String>,
}

impl Contestant {
    /// Redis without persistence. Valkey takes the same flags.
    pub fn redis(name: &str, program: &str) -> Self {
        let flags = "--port {port} --bind 127.0.0.1 --dir {dir} --appendonly no --save";
        let mut command = vec![program.to_owned()];
        command.extend(flags.split(' ').map(str::to_owned));
        command.push(String::new());
        Self { name: name.to_owned(), command }
    }

    /// Our server, or any other that takes Dragonfly's flags. A program that is called redis-server or
    /// valkey-server gets Redis' flags: comparing Redis with itself shows how far the ratios wander by chance.
    pub fn ours(program: &str, more: &[String]) -> Self {
        let file = Path::new(program).file_name().map(|name| name.to_string_lossy().into_owned());
        let mut ours = if matches!(file.as_deref(), Some("redis-server" | "valkey-server")) {
            Self::redis("ours", program)
        } else {
            let flags =
                "--port={port} --bind=127.0.0.1 --dir={dir} --dbfilename= --proactor_threads={threads}";
            let mut command = vec![program.to_owned()];
            command.extend(flags.split(' ').map(str::to_owned));
            Self { name: "ours".to_owned(), command }
        };
        ours.command.extend_from_slice(more);
        ours
    }

    /// `name=command line`, as given to `--also`. Without `{port}` in it, `--port {port}` is appended.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, line) =
            text.split_once('=').ok_or_else(|| format!("{text:?} is not name=command line"))?;
        let mut command = split_words(line)?;
        if name.is_empty() || command.is_empty() {
            return Err(format!("{text:?} is not name=command line"));
        }
        if !command.iter().any(|word| word.contains("{port}")) {
            command.extend(["--port".to_owned(), "{port}".to_owned()]);
        }
        Ok(Self { name: name.to_owned(), command })
    }

    /// The command line for the report, placeholders left in.
    pub fn line(&self) -> String {
        let words = self.command.iter().map(|word| match word.as_str() {
            "" => "''".to_owned(),
            word if word.contains(' ') => format!("'{word}'"),
            word => word.to_owned(),
        });
        words.collect::<Vec<_>>().join(" ")
    }

    /// Whether the program can be run at all, with advice if not.
    pub fn check_program(&self) -> Result<(), String> {
        let program = &self.command[0];
        let ran = Command::new(program).arg("--version").stdin(Stdio::null()).output();
        ran.map(drop).map_err(|error| {
            let advice = if self.name == "ours" {
                "build it with `cargo build --release`, or name it with --ours PATH"
            } else {
                "`apt-get install redis-server` on Debian and Ubuntu, or name it with --redis PATH"
            };
            format!("{}: {program}: {error}; {advice}", self.name)
        })
    }

    /// What the program says to `--version`: its first line, or why there is none.
    pub fn version(&self) -> String {
        match Command::new(&self.command[0]).arg("--version").stdin(Stdio::null()).output() {
            Ok(output) => {
                let text = String::from_utf8_lossy(&output.stdout).into_owned();
                text.lines().next().unwrap_or("says nothing to --version").to_owned()
            }
            Err(error) => format!("cannot be run: {error}"),
        }
    }
}

/// Splits at blanks, keeping together what stands in single or double quotes. No escapes: paths and flags need none.
pub fn split_words(line: &str) -> Result<Vec<String>, String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => word.get_or_insert_default().push(c),
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take()),
            None => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    match quote {
        Some(open) => Err(format!("{line:?} ends inside {open}")),
        None => Ok(words),
    }
}

/// A running server.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
    dir: PathBuf,
}

impl Server {
    /// Starts a contestant and waits until it answers.
    pub fn start(contestant: &Contestant, threads: u32) -> Result<Self, Failure> {
        let mut attempt = 1;
        loop {
            match Self::start_once(contestant, threads) {
                Err(_) if attempt < START_ATTEMPTS => attempt += 1,
                other => return other,
            }
        }
    }

    fn start_once(contestant: &Contestant, threads: u32) -> Result<Self, Failure> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let dir = std::env::temp_dir().join(format!("damselfly-bench-{}-{port}", std::process::id()));
        fs::create_dir_all(&dir)?;
        let words = contestant.command.iter().map(|word| {
            word.replace("{port}", &port.to_string())
                .replace("{threads}", &threads.to_string())
                .replace("{dir}", &dir.to_string_lossy())
        });
        let words: Vec<String> = words.collect();
        let log = File::create(dir.join("log"))?;
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        sys::die_with_parent(&mut command);
        let child = command.spawn().map_err(|error| {
            let _ = fs::remove_dir_all(&dir); // a leftover in the temporary directory is not worth an error
            Failure::Broken(format!("{}: {error}", words[0]))
        })?;
        let mut server = Self { child, address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)), dir };
        server.wait_until_ready()?;
        Ok(server)
    }

    fn wait_until_ready(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Err(Failure::Broken(format!("ended at start ({status}); {}", self.log_tail())));
            }
            let pong =
                Connection::open(self.address).map_err(Failure::from).and_then(|mut c| c.call(&[b"PING"]));
            match pong {
                Ok(OwnedFrame::SimpleString(text)) if text == b"PONG" => return Ok(()),
                Ok(other) => return Err(Failure::Broken(format!("PING answered {other:?}"))),
                Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(10)),
                Err(error) => {
                    return Err(Failure::Broken(format!(
                        "does not answer PING: {error}; {}",
                        self.log_tail()
                    )));
                }
            }
        }
    }

    /// Opens a connection.
    pub fn connect(&self) -> Result<Connection, Failure> {
        Connection::open(self.address).map_err(|error| self.explain(error.into()))
    }

    /// User and system time of all its threads since it started. Children that a server forks are not in it; with
    /// persistence off none does.
    pub fn cpu_time(&self) -> Result<Duration, Failure> {
        sys::cpu_time(self.child.id()).map_err(|error| self.explain(error.into()))
    }

    /// Resident memory now, in bytes. From smaps_rollup, which walks the page tables: statm is cheaper but lags by up
    /// to 64 pages for each processor.
    pub fn resident(&self) -> Result<u64, Failure> {
        self.proc_bytes(&format!("/proc/{}/smaps_rollup", self.child.id()), "Rss:")
    }

    /// As [`Server::resident`], without holding up the server meanwhile, and not as exact.
    pub fn resident_about(&self) -> Result<u64, Failure> {
        self.proc_bytes(&format!("/proc/{}/status", self.child.id()), "VmRSS:")
    }

    /// The most that was ever resident.
    pub fn most_resident(&self) -> Result<u64, Failure> {
        self.proc_bytes(&format!("/proc/{}/status", self.child.id()), "VmHWM:")
    }

    /// Bytes that the system has received for this server and that it has not read.
    pub fn unread(&self) -> Result<u64, Failure> {
        let table = fs::read_to_string("/proc/net/tcp").map_err(|error| self.explain(error.into()))?;
        let port = format!(":{:04X}", self.address.port());
        let queue = |line: &str| {
            let mut fields = line.split_whitespace().skip(1);
            let is_ours = fields.next()?.ends_with(&port);
            let is_open = fields.nth(1)? == "01";
            let (_, unread) = fields.next()?.split_once(':')?;
            (is_ours && is_open).then(|| u64::from_str_radix(unread, 16).ok())?
        };
        Ok(table.lines().filter_map(queue).sum())
    }

    /// As [`Server::resident`], and what children that it forked have for themselves: a page that several of them
    /// share is counted once.
    pub fn resident_with_children(&self) -> Result<u64, Failure> {
        let own = self.child.id();
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children"))?;
        let children = children.split_whitespace().map(str::to_owned);
        // One that has ended in the meantime has nothing any more.
        let share = |pid: String| self.proc_bytes(&format!("/proc/{pid}/smaps_rollup"), "Pss:").unwrap_or(0);
        let share_of_children: u64 = children.map(share).sum();
        Ok(self.proc_bytes(&format!("/proc/{own}/smaps_rollup"), "Pss:")? + share_of_children)
    }

    /// Calls `work`, and `look` every ten milliseconds meanwhile; returns the result and the most that was seen.
    pub fn watch<R>(
        &self,
        look: impl Fn(&Self) -> Result<u64, Failure> + Sync,
        work: impl FnOnce() -> R,
    ) -> (R, u64) {
        let (stop, most) = (AtomicBool::new(false), AtomicU64::new(0));
        let result = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    most.fetch_max(look(self).unwrap_or(0), Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(10));
                }
            });
            let result = work();
            stop.store(true, Ordering::Relaxed);
            result
        });
        (result, most.into_inner())
    }

    /// Bytes that a file of the kernel has behind a name.
    fn proc_bytes(&self, path: &str, name: &str) -> Result<u64, Failure> {
        let text = fs::read_to_string(path).map_err(|error| self.explain(error.into()))?;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kilobytes: Option<u64> =
            line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse().ok());
        kilobytes.map(|n| n * 1024).ok_or_else(|| Failure::Broken(format!("{path} has no {name}")))
    }

    /// Adds the end of the server's log when it is the server that ended.
    pub fn explain(&self, failure: Failure) -> Failure {
        // A process that has ended but was not waited for keeps its entry in /proc, with no memory left in it.
        let maps = fs::read_to_string(format!("/proc/{}/maps", self.child.id()));
        let gone = maps.map_or(true, |maps| maps.is_empty());
        match failure {
            Failure::Broken(text) if gone => {
                Failure::Broken(format!("{text}; the server has ended; {}", self.log_tail()))
            }
            other => other,
        }
    }

    fn log_tail(&self) -> String {
        let log = fs::read(self.dir.join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&log).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(3)..];
        format!("its last words: {}", if tail.is_empty() { "none".to_owned() } else { tail.join(" / ") })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Errors mean that it has ended by itself, or that the directory is gone: both are what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

#[cfg(test)]
mod test {
    use super::{Contestant, split_words};

    /// Quotes group, also around nothing; an open quote is an error.
    #[test]
    fn words_split_like_a_shell_would() {
        let words = split_words("valkey-server --save '' --name \"a b\"  x").unwrap();
        assert_eq!(words, ["valkey-server", "--save", "", "--name", "a b", "x"]);
        assert!(split_words("a 'b").is_err());
    }

    /// A port is appended only when the line has no place for it.
    #[test]
    fn also_takes_a_name_and_a_line() {
        let plain = Contestant::parse("valkey=/opt/valkey-server --save ''").unwrap();
        assert_eq!(plain.name, "valkey");
        assert_eq!(plain.command, ["/opt/valkey-server", "--save", "", "--port", "{port}"]);
        let placed = Contestant::parse("dragonfly=dragonfly --port={port}").unwrap();
        assert_eq!(placed.command, ["dragonfly", "--port={port}"]);
        assert!(Contestant::parse("no line").is_err());
        assert!(Contestant::parse("empty=").is_err());
    }

    /// The name of the program decides which flags it is given.
    #[test]
    fn redis_gets_its_own_flags() {
        assert!(Contestant::ours("/usr/bin/redis-server", &[]).line().ends_with("--save ''"));
        assert!(
            Contestant::ours("target/release/damselfly", &[]).line().contains("--proactor_threads={threads}")
        );
    }
}
