//! A redis-server of one test, spoken to without a library.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What it answers.
#[derive(Debug, PartialEq)]
pub enum Reply {
    Text(Vec<u8>),
    Error(String),
    Int(i64),
    Nil,
    Array(Vec<Reply>),
}

impl Reply {
    pub fn bytes(self) -> Vec<u8> {
        match self {
            Reply::Text(bytes) => bytes,
            other => panic!("{other:?} is no string"),
        }
    }

    pub fn list(self) -> Vec<Reply> {
        match self {
            Reply::Array(items) => items,
            other => panic!("{other:?} is no array"),
        }
    }

    pub fn strings(self) -> Vec<Vec<u8>> {
        self.list().into_iter().map(Reply::bytes).collect()
    }
}

/// A redis-server of this test alone.
pub struct Redis {
    process: Child,
    link: BufReader<UnixStream>,
    folder: PathBuf,
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Redis {
    /// Starts one, with a file to load if there is one; `None` if there is no redis-server here.
    pub fn start(name: &str, rdb: Option<&[u8]>) -> Option<Redis> {
        let folder = std::env::temp_dir().join(format!("damselfly-rdb-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a temporary folder");
        if let Some(rdb) = rdb {
            std::fs::write(folder.join("dump.rdb"), rdb).expect("room for a file");
        }
        let socket = folder.join("socket");
        let process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--dir"])
            .arg(&folder)
            .arg("--unixsocket")
            .arg(&socket)
            .args(["--sanitize-dump-payload", "yes", "--databases", "2000000"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(process) = process else {
            eprintln!("SKIPPED: redis-server is not installed, so nothing was compared with it");
            return None;
        };
        let start = Instant::now();
        let link = loop {
            match UnixStream::connect(&socket) {
                Ok(link) => break link,
                Err(_) if start.elapsed() < Duration::from_secs(20) => {
                    std::thread::sleep(Duration::from_millis(20))
                }
                Err(error) => panic!("redis-server does not answer: {error}"),
            }
        };
        let mut redis = Redis { process, link: BufReader::new(link), folder };
        while matches!(redis.ask(&[b"PING"]), Reply::Error(loading) if loading.starts_with("LOADING")) {
            assert!(start.elapsed() < Duration::from_secs(60), "loading takes too long");
        }
        Some(redis)
    }

    pub fn ask(&mut self, arguments: &[&[u8]]) -> Reply {
        let mut request = format!("*{}\r\n", arguments.len()).into_bytes();
        for argument in arguments {
            request.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
            request.extend_from_slice(argument);
            request.extend_from_slice(b"\r\n");
        }
        self.link.get_mut().write_all(&request).expect("the server lives");
        self.reply()
    }

    fn reply(&mut self) -> Reply {
        let mut line = String::new();
        self.link.read_line(&mut line).expect("the server lives");
        let text = line.trim_end()[1..].to_string();
        let count = || text.parse::<i64>().expect("a number");
        match line.as_bytes()[0] {
            b'+' => Reply::Text(text.into_bytes()),
            b'-' => Reply::Error(text),
            b':' => Reply::Int(count()),
            b'$' if count() < 0 => Reply::Nil,
            b'$' => {
                let mut bytes = vec![0; count() as usize + 2];
                self.link.read_exact(&mut bytes).expect("the server lives");
                bytes.truncate(bytes.len() - 2);
                Reply::Text(bytes)
            }
            b'*' if count() < 0 => Reply::Nil,
            b'*' => Reply::Array((0..count()).map(|_| self.reply()).collect()),
            other => panic!("unknown reply {other}"),
        }
    }
}
