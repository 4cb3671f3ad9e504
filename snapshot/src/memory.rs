//! Snapshots in memory, for tests and fuzzing: files are names with bytes, and nothing fails.

use std::collections::BTreeMap;
use std::io::{self, Cursor, ErrorKind, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::{Candidate, Files, Output, Recovered, Storage};

/// Files in memory. Clones are the same place.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<Contents>>);

#[derive(Default)]
struct Contents {
    files: BTreeMap<String, Vec<u8>>,
    /// Finished and not published.
    finished: BTreeMap<String, Vec<u8>>,
}

impl Memory {
    /// Without files.
    pub fn new() -> Memory {
        Memory::default()
    }

    /// Puts a file there, in the place of one that has its name.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        self.with(|contents| contents.files.insert(name.to_owned(), bytes));
    }

    /// A file's contents.
    pub fn get(&self, name: &str) -> Option<Vec<u8>> {
        self.with(|contents| contents.files.get(name).cloned())
    }

    /// Removes a file.
    pub fn remove(&self, name: &str) {
        self.with(|contents| contents.files.remove(name));
    }

    fn with<T>(&self, work: impl FnOnce(&mut Contents) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Storage for Memory {
    fn recover(&self) -> io::Result<Recovered> {
        Ok(Recovered::default())
    }

    fn list(&self) -> io::Result<Vec<Candidate<SystemTime>>> {
        let candidate = |name: &String| Candidate { name: name.clone(), modified: SystemTime::UNIX_EPOCH };
        Ok(self.with(|contents| contents.files.keys().map(candidate).collect()))
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        let len = self.with(|contents| contents.files.get(name).map(Vec::len));
        Ok(len.ok_or(ErrorKind::NotFound)? as u64)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(Cursor::new(self.get(name).ok_or(ErrorKind::NotFound)?)))
    }

    fn describe(&self, name: &str) -> String {
        name.to_owned()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn Output>> {
        Ok(Box::new(Bytes { name: name.to_owned(), bytes: Vec::new(), place: self.clone() }))
    }

    fn publish(&self, files: &Files) -> io::Result<()> {
        self.with(|contents| {
            for name in files.shards.iter().chain([&files.main]) {
                let bytes = contents.finished.remove(name).expect("all files are finished");
                contents.files.insert(name.clone(), bytes);
            }
        });
        Ok(())
    }

    fn discard(&self, files: &Files) {
        self.with(|contents| {
            for name in files.shards.iter().chain([&files.main]) {
                contents.finished.remove(name);
            }
        });
    }
}

struct Bytes {
    name: String,
    bytes: Vec<u8>,
    place: Memory,
}

impl Write for Bytes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output for Bytes {
    fn finish(self: Box<Self>) -> io::Result<()> {
        let Bytes { name, bytes, place } = *self;
        place.with(|contents| contents.finished.insert(name, bytes));
        Ok(())
    }
}
