//! Where snapshots lie: a directory, or a bucket.
//!
//! A place has names, and files under them that are read and written from front to back; that is all a bucket can do,
//! so it is all that is asked. Calls block: those who make them have threads for it, and a shard has none.
//!
//! What is new appears as one: files are written beside what is there, and [`Publication::publish`] makes all of them
//! the snapshot. A publication that is dropped leaves nothing behind.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::manifest::{Files, TMP_SUFFIX};

/// A file in a [`Store`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredFile {
    /// Its name, without the place.
    pub name: String,
    /// Its size in bytes.
    pub len: u64,
    /// When it was last written.
    pub modified: SystemTime,
}

/// A place for snapshots.
pub trait Store: Send + Sync {
    /// What a file of this name is called in messages.
    fn path(&self, name: &str) -> String;

    /// The files there, in no order.
    fn list(&self) -> io::Result<Vec<StoredFile>>;

    /// Reads a file from its beginning.
    fn open(&self, name: &str) -> io::Result<Box<dyn Read + Send>>;

    /// Begins to write the files of a snapshot.
    fn begin(&self, files: &Files) -> io::Result<Box<dyn Publication>>;
}

/// The files of one snapshot under way.
pub trait Publication: Send {
    /// Begins one of the files.
    fn create(&mut self, name: &str) -> io::Result<Box<dyn NewFile>>;

    /// Makes all files, which must be finished, the snapshot.
    fn publish(self: Box<Self>) -> io::Result<()>;
}

/// A file under way.
pub trait NewFile: Write + Send {
    /// Sees to it that all of it is where it will survive.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// A directory of this machine. It writes no name that exists already.
pub struct Directory(PathBuf);

impl Directory {
    /// The directory at `path`; empty: the working directory.
    pub fn new(path: &Path) -> Directory {
        Directory(if path.as_os_str().is_empty() { PathBuf::from(".") } else { path.to_owned() })
    }
}

impl Store for Directory {
    fn path(&self, name: &str) -> String {
        if self.0 == Path::new(".") { name.to_owned() } else { self.0.join(name).display().to_string() }
    }

    fn list(&self) -> io::Result<Vec<StoredFile>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            // Names that are no text are not ours, and what vanishes meanwhile is not there.
            let (Ok(name), Ok(data)) = (entry.file_name().into_string(), fs::metadata(entry.path())) else {
                continue;
            };
            if data.is_file() {
                let modified = data.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                files.push(StoredFile { name, len: data.len(), modified });
            }
        }
        Ok(files)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(File::open(self.0.join(name))?))
    }

    fn begin(&self, files: &Files) -> io::Result<Box<dyn Publication>> {
        // The main file last: while it is not there, the others do not count.
        let names: Vec<String> = files.shards.iter().chain([&files.main]).cloned().collect();
        if let Some(name) = names.iter().find(|name| self.0.join(name).exists()) {
            let text = format!("{name} is there already");
            return Err(io::Error::new(ErrorKind::AlreadyExists, text));
        }
        Ok(Box::new(NewFiles { directory: self.0.clone(), names, begun: Vec::new() }))
    }
}

struct NewFiles {
    directory: PathBuf,
    names: Vec<String>,
    /// Files under their temporary names.
    begun: Vec<PathBuf>,
}

impl Publication for NewFiles {
    fn create(&mut self, name: &str) -> io::Result<Box<dyn NewFile>> {
        assert!(self.names.iter().any(|known| known == name), "{name} is not of this snapshot");
        let path = self.directory.join(format!("{name}{TMP_SUFFIX}"));
        // Data of all users: for the server's alone.
        let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        self.begun.push(path);
        Ok(Box::new(LocalFile(file)))
    }

    fn publish(mut self: Box<Self>) -> io::Result<()> {
        assert_eq!(self.begun.len(), self.names.len(), "all files are written");
        for name in &self.names {
            fs::rename(self.directory.join(format!("{name}{TMP_SUFFIX}")), self.directory.join(name))?;
        }
        self.begun.clear();
        // What was renamed is so for good when the directory is written.
        File::open(&self.directory)?.sync_all()
    }
}

impl Drop for NewFiles {
    fn drop(&mut self) {
        for path in &self.begun {
            // If it cannot be removed, its name still says that it is nothing.
            let _ = fs::remove_file(path);
        }
    }
}

/// Whoever writes has large pieces.
struct LocalFile(File);

impl Write for LocalFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl NewFile for LocalFile {
    fn finish(self: Box<Self>) -> io::Result<()> {
        self.0.sync_all()
    }
}
