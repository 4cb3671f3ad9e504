//! Server processes: started on a free port, ended with the value that stands for them.

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How long a server may take until it answers PING.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Which server, and how it is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `redis-server`: the oracle.
    Redis,
    /// Ours, with so many threads.
    Damselfly { threads: usize },
}

impl Kind {
    /// The name in trial names and in reports.
    pub fn name(self) -> String {
        match self {
            Kind::Redis => "redis".to_owned(),
            Kind::Damselfly { threads: 1 } => "1-thread".to_owned(),
            Kind::Damselfly { threads } => format!("{threads}-threads"),
        }
    }
}

/// A running server. Dropping it kills the process and removes its directory.
pub struct Server {
    child: Child,
    address: SocketAddr,
    directory: PathBuf,
}

impl Server {
    /// Starts a server with `flags` added to the usual ones, and waits until it answers.
    pub fn start(kind: Kind, flags: &[&str]) -> Result<Self, String> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let directory = env::temp_dir().join(format!("damselfly-tests-{}-{number}", std::process::id()));
        fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
        let port = free_port()?;
        let mut command = match kind {
            Kind::Redis => {
                let mut command = Command::new("redis-server");
                command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""]);
                command.args(["--enable-debug-command", "yes"]);
                command
            }
            Kind::Damselfly { threads } => {
                let mut command = Command::new(binary()?);
                command.arg(format!("--port={port}")).arg("--bind=127.0.0.1").arg("--dbfilename=");
                command.arg(format!("--proactor_threads={threads}"));
                command
            }
        };
        let log = fs::File::create(directory.join("log")).map_err(|error| format!("log: {error}"))?;
        let log_too = log.try_clone().map_err(|error| format!("log: {error}"))?;
        command.args(flags).current_dir(&directory).stdin(Stdio::null()).stdout(log).stderr(log_too);
        let child = command.spawn().map_err(|error| {
            fs::remove_dir_all(&directory).ok();
            format!("cannot start {command:?}: {error}")
        })?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut server = Self { child, address, directory };
        server
            .wait_until_it_answers()
            .map_err(|error| format!("{}: {error}\n{}", kind.name(), server.log()))?;
        Ok(server)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process, for those who measure it.
    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends the process as a crash would.
    pub fn kill(&mut self) {
        // If it has ended already, so much the better.
        self.child.kill().ok();
        self.child.wait().ok();
    }

    /// Asks the process to end, as systems do, and waits for it.
    pub fn terminate(&mut self) {
        let id = self.child.id().to_string();
        Command::new("kill").arg(&id).status().expect("kill is there");
        self.wait_for_end();
    }

    /// Waits until the process has ended.
    pub fn wait_for_end(&mut self) {
        let start = Instant::now();
        while self.is_alive() {
            assert!(start.elapsed() < START_TIMEOUT, "the server does not end\n{}", self.log());
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// What it printed.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    fn wait_until_it_answers(&mut self) -> Result<(), String> {
        let start = Instant::now();
        while start.elapsed() < START_TIMEOUT {
            if let Some(status) = self.child.try_wait().map_err(|error| error.to_string())? {
                return Err(format!("the server ended at once: {status}"));
            }
            if answers(self.address) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Err(format!("no answer within {} s", START_TIMEOUT.as_secs()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The process may have ended already, which is no concern here: the trial that killed it has failed.
        self.child.kill().ok();
        self.child.wait().ok();
        fs::remove_dir_all(&self.directory).ok();
    }
}

/// Any reply to PING counts: a server with a password answers an error.
fn answers(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    let mut byte = [0];
    stream.set_read_timeout(Some(Duration::from_secs(1))).is_ok()
        && stream.write_all(b"PING\r\n").is_ok()
        && stream.read_exact(&mut byte).is_ok()
}

fn free_port() -> Result<u16, String> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|error| format!("no free port: {error}"))?;
    listener.local_addr().map(|address| address.port()).map_err(|error| error.to_string())
}

/// Our binary: `DAMSELFLY_BIN`, or what cargo builds with the profile that built this test.
pub fn binary() -> Result<&'static Path, String> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BINARY.get_or_init(find_binary).as_deref().map_err(Clone::clone)
}

fn find_binary() -> Result<PathBuf, String> {
    if let Some(path) = env::var_os("DAMSELFLY_BIN") {
        return Ok(PathBuf::from(path));
    }
    // target/PROFILE/deps/this-test
    let this = env::current_exe().map_err(|error| error.to_string())?;
    let profile_dir = this.ancestors().nth(2).ok_or("the test binary lies in no target directory")?;
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--package", "damselfly", "--bin", "damselfly"]);
    if profile_dir.ends_with("release") {
        build.arg("--release");
    }
    // What cargo says of this test's package. Build scripts of dependencies look at it, so with it much would be built again.
    for (name, _) in env::vars_os() {
        let is_of_package =
            |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        if name.to_str().is_some_and(is_of_package) {
            build.env_remove(name);
        }
    }
    let status = build.current_dir(env!("CARGO_MANIFEST_DIR")).status().map_err(|error| error.to_string())?;
    if status.success() { Ok(profile_dir.join("damselfly")) } else { Err(format!("{build:?} failed")) }
}
