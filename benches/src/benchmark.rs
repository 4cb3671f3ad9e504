//! redis-benchmark as a load: one command, many connections, closed loop.
//!
//! It is used wherever its shapes fit, because everybody has it and knows its command line. It has one thread and
//! is often slower than the server; that costs nothing here, since the figure is what the server spent and not what
//! came out per second. Errors end it, so a row cannot be fast by being refused.

use crate::Failure;
use crate::server::Server;
use crate::sys;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long one invocation may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// How one load looks; sizes are full sizes.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Command and arguments. `__rand_int__` becomes twelve random digits per request; `{value:N}` becomes N letters.
    pub command: &'static str,
    /// Simultaneous connections.
    pub connections: u32,
    /// Requests in flight per connection.
    pub pipeline: u32,
    /// Requests in total.
    pub requests: u64,
    /// `__rand_int__` is below this.
    pub random_below: u64,
}

/// What one invocation cost.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Server's processor time per request, in nanoseconds.
    pub cpu_ns: f64,
    /// The 99th percentile of reply times as the client saw them, in nanoseconds.
    pub p99_ns: f64,
}

impl Load {
    /// Arguments of redis-benchmark, but for the port.
    pub fn args(&self, requests: u64, random_below: u64) -> Vec<String> {
        let numbers = [
            ("-c", u64::from(self.connections)),
            ("-P", u64::from(self.pipeline)),
            ("-n", requests),
            ("-r", random_below),
        ];
        let mut args: Vec<String> =
            numbers.iter().flat_map(|(flag, n)| [(*flag).to_owned(), n.to_string()]).collect();
        args.push("--csv".to_owned());
        args.extend(self.command.split(' ').map(expand));
        args
    }
}

/// Runs redis-benchmark with the arguments of a [`Load`] that ask for `requests` requests.
pub fn run(program: &str, server: &Server, args: &[String], requests: u64) -> Result<Cost, Failure> {
    let before = server.cpu_time()?;
    let output = invoke(program, server, args)?;
    let spent = server.cpu_time()? - before;
    let p99_ms = p99_of(&output)
        .ok_or_else(|| Failure::Broken(format!("redis-benchmark printed no result: {output:?}")))?;
    Ok(Cost { cpu_ns: spent.as_secs_f64() * 1e9 / requests as f64, p99_ns: p99_ms * 1e6 })
}

/// `{value:N}` as N letters, anything else as it is.
fn expand(word: &str) -> String {
    let bytes = word.strip_prefix("{value:").and_then(|rest| rest.strip_suffix('}')?.parse().ok());
    bytes.map_or_else(|| word.to_owned(), |n| "v".repeat(n))
}

/// The version line of redis-benchmark; also the check that it is there at all, with advice if not.
pub fn version(program: &str) -> Result<String, String> {
    match Command::new(program).arg("--version").stdin(Stdio::null()).output() {
        Ok(output) => Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
        Err(error) => Err(format!(
            "{program}: {error}. It comes with Redis: `apt-get install redis-tools` on Debian and Ubuntu, `dnf install \
             redis` on Fedora, `brew install redis` on macOS; or name it with --redis-benchmark PATH."
        )),
    }
}

fn invoke(program: &str, server: &Server, args: &[String]) -> Result<String, Failure> {
    let mut command = Command::new(program);
    command
        .args(["-h", &server.address.ip().to_string(), "-p", &server.address.port().to_string()])
        .args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    sys::die_with_parent(&mut command);
    let mut child = command.spawn()?;
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        // It prints two lines, which the pipes hold: nobody need read while it runs.
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Err(Failure::Broken(format!("redis-benchmark ran for {} s", PATIENCE.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let (mut output, mut complaint) = (String::new(), String::new());
    child.stdout.take().expect("piped").read_to_string(&mut output)?;
    child.stderr.take().expect("piped").read_to_string(&mut complaint)?;
    if status.success() {
        return Ok(output);
    }
    let complaint = complaint.trim();
    let text = complaint.strip_prefix("Error from server: ").unwrap_or(complaint);
    Err(server.explain(Failure::from_reply(if text.is_empty() {
        "redis-benchmark failed silently"
    } else {
        text
    })))
}

/// The last but one field of the last line. Counted from the right, because the first field is the command itself
/// and may hold anything.
fn p99_of(output: &str) -> Option<f64> {
    let field = output.trim_end().lines().next_back()?.rsplit(',').nth(1)?;
    field.trim_matches('"').parse().ok()
}

#[cfg(test)]
mod test {
    use super::{expand, p99_of, version};

    /// The p99 is found though the command has commas and quotes.
    #[test]
    fn csv_is_read_from_the_right() {
        let output = "\"test\",\"rps\",\"avg_latency_ms\",\"min_latency_ms\",\"p50_latency_ms\",\"p95_latency_ms\",\
                      \"p99_latency_ms\",\"max_latency_ms\"\n\
                      \"SET a,\"b\"\",\"1010101.00\",\"1.438\",\"0.288\",\"1.279\",\"2.423\",\"2.599\",\"2.983\"\n";
        assert_eq!(p99_of(output), Some(2.599));
        assert_eq!(p99_of(""), None);
        assert_eq!(p99_of("WARNING: could not fetch"), None);
    }

    /// Values are as long as asked; other braces stay.
    #[test]
    fn values_expand() {
        assert_eq!(expand("{value:32}").len(), 32);
        assert_eq!(expand("key:__rand_int__"), "key:__rand_int__");
        assert_eq!(expand("{value:x}"), "{value:x}");
    }

    /// A missing tool comes with advice.
    #[test]
    fn missing_tool_is_explained() {
        assert!(version("/nowhere/redis-benchmark").unwrap_err().contains("apt-get install redis-tools"));
    }
}
