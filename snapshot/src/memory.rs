//! A store in memory, for tests and fuzzing: files are maps from names to bytes, and nothing fails.

use std::collections::BTreeMap;
use std::io::{self, Cursor, ErrorKind, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::manifest::Files;
use crate::store::{NewFile, Publication, Store, StoredFile};

type Contents = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// Files in memory.
#[derive(Clone, Default)]
pub struct Memory(Contents);

impl Memory {
    /// Without files.
    pub fn new() -> Memory {
        Memory::default()
    }

    /// Puts a file there, in the place of one that has its name.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        self.files(|files| files.insert(name.to_owned(), bytes));
    }

    /// A file's contents.
    pub fn get(&self, name: &str) -> Option<Vec<u8>> {
        self.files(|files| files.get(name).cloned())
    }

    /// Removes a file.
    pub fn remove(&self, name: &str) {
        self.files(|files| files.remove(name));
    }

    fn files<T>(&self, work: impl FnOnce(&mut BTreeMap<String, Vec<u8>>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Store for Memory {
    fn path(&self, name: &str) -> String {
        name.to_owned()
    }

    fn list(&self) -> io::Result<Vec<StoredFile>> {
        let stored = |(name, bytes): (&String, &Vec<u8>)| StoredFile {
            name: name.clone(),
            len: bytes.len() as u64,
            modified: SystemTime::UNIX_EPOCH,
        };
        Ok(self.files(|files| files.iter().map(stored).collect()))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(Cursor::new(self.get(name).ok_or(ErrorKind::NotFound)?)))
    }

    fn begin(&self, _: &Files) -> io::Result<Box<dyn Publication>> {
        Ok(Box::new(NewFiles { store: self.clone(), finished: Contents::default() }))
    }
}

struct NewFiles {
    store: Memory,
    finished: Contents,
}

impl Publication for NewFiles {
    fn create(&mut self, name: &str) -> io::Result<Box<dyn NewFile>> {
        Ok(Box::new(Bytes { name: name.to_owned(), bytes: Vec::new(), finished: self.finished.clone() }))
    }

    fn publish(self: Box<Self>) -> io::Result<()> {
        let finished = std::mem::take(&mut *self.finished.lock().unwrap_or_else(PoisonError::into_inner));
        self.store.files(|files| files.extend(finished));
        Ok(())
    }
}

struct Bytes {
    name: String,
    bytes: Vec<u8>,
    finished: Contents,
}

impl Write for Bytes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl NewFile for Bytes {
    fn finish(self: Box<Self>) -> io::Result<()> {
        let Bytes { name, bytes, finished } = *self;
        finished.lock().unwrap_or_else(PoisonError::into_inner).insert(name, bytes);
        Ok(())
    }
}
