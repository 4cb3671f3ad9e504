//! What a place for snapshots must be able to do, whether it is a directory or a bucket of an object store.
//!
//! The promise behind all of it: whoever looks at the place at any moment, a crash included, finds the old snapshot
//! whole or the new one whole under a name, and never a mixture that is taken for one.

use std::io::{self, Read, Write};
use std::time::SystemTime;

use crate::{Candidate, Files};

/// A place for snapshots.
///
/// A save calls [`recover`](Storage::recover), [`create`](Storage::create) for each file, [`Output::finish`] on each,
/// and then [`publish`](Storage::publish), or [`discard`](Storage::discard) if anything went wrong before.
pub trait Storage: Send + Sync {
    /// Finishes or undoes what a crash has interrupted, and sweeps what it left. To be called before the place is
    /// looked at, and before something is saved there.
    fn recover(&self) -> io::Result<Recovered>;

    /// Everything in it that has a name of text.
    fn list(&self) -> io::Result<Vec<Candidate<SystemTime>>>;

    /// Bytes of a file; an error if there is none of this name.
    fn len(&self, name: &str) -> io::Result<u64>;

    /// Opens a file for reading.
    fn open(&self, name: &str) -> io::Result<Box<dyn Read + Send>>;

    /// A name as people are told it: a path or an address.
    fn describe(&self, name: &str) -> String;

    /// Begins a file of a new snapshot. Nothing shows under its name before `publish`.
    fn create(&self, name: &str) -> io::Result<Box<dyn Output>>;

    /// Makes a snapshot, all of whose files are finished, take the place of one of the same names, at once.
    fn publish(&self, files: &Files) -> io::Result<()>;

    /// Forgets the files of a snapshot that could not be completed.
    fn discard(&self, files: &Files);
}

/// A file under way.
pub trait Output: Write + Send {
    /// Sees to it that all bytes are kept even if the power goes now.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// What [`Storage::recover`] found to do: names of files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Snapshots, by their main file, that were complete but not all of them under their names yet.
    pub completed: Vec<String>,
    /// Files that were being written when something ended their writer.
    pub swept: Vec<String>,
}
