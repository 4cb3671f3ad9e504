//! Snapshots in a directory.
//!
//! Files are written under a temporary name, brought to the disk (fsync), and renamed; a rename is atomic, and so a
//! snapshot of one file is. A set of files takes as many renames, between which a crash would leave a mixture. So a
//! *journal* comes first, which names all of them:
//!
//! ```text
//! dump-0000.dfs.tmp  dump-0001.dfs.tmp  dump-summary.dfs.tmp      written, fsync
//! dump-summary.dfs.journal                                        written, fsync, renamed: from here on it is done
//! dump-0000.dfs      dump-0001.dfs      dump-summary.dfs          renamed; shards of a larger old set removed
//!                                                                 journal removed
//! ```
//!
//! Whoever finds a journal goes on with the renames ([`Disk::recover`]): those that were done are no harm to see again.
//! Every step is on the disk (fsync of the directory) before the next one that relies on it.
//!
//! Temporary files are locked while their writer lives, so that the sweep of one process leaves those of another alone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use crate::{Candidate, FileRole, Files, Output, Recovered, Storage, TMP_SUFFIX, role_of};

/// Ends the name of a journal; before it stands that of the set's main file.
const JOURNAL_SUFFIX: &str = ".journal";
/// First line of a journal.
const JOURNAL_HEAD: &str = "damselfly snapshot journal 1";
/// Last line of a journal.
const JOURNAL_END: &str = "end";
/// A journal has a line of at most 255 bytes for each shard.
const JOURNAL_LEN_MAX: u64 = 1 << 20;
/// Only the owner may look at what the database holds.
const MODE: u32 = 0o600;
/// Bytes after which what was written is brought to the disk, so that the last fsync is short, and the system does not
/// fill its memory with pages that wait.
const SYNC_EVERY: u64 = 32 << 20;

/// One thing that is done to the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// A file is opened for writing.
    Create,
    /// Bytes are written.
    Write,
    /// A file is brought to the disk.
    Sync,
    /// A file gets its name.
    Rename,
    /// A file is removed.
    Remove,
    /// The directory is brought to the disk.
    SyncDirectory,
}

/// Is asked before every act, and lets it fail.
type Faults = dyn Fn(Act) -> io::Result<()> + Send + Sync;

/// See the module's head.
#[derive(Clone)]
pub struct Disk {
    directory: PathBuf,
    faults: Option<Arc<Faults>>,
}

impl Disk {
    /// Snapshots in this directory, which must exist when it is used.
    pub fn new(directory: impl Into<PathBuf>) -> Disk {
        Disk { directory: directory.into(), faults: None }
    }

    /// As [`Disk::new`], with every act failing that `faults` does not allow: for tests of what remains then.
    pub fn with_faults(
        directory: impl Into<PathBuf>,
        faults: impl Fn(Act) -> io::Result<()> + Send + Sync + 'static,
    ) -> Disk {
        Disk { directory: directory.into(), faults: Some(Arc::new(faults)) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn may(&self, act: Act) -> io::Result<()> {
        self.faults.as_ref().map_or(Ok(()), |faults| faults(act))
    }

    fn create_file(&self, name: &str) -> io::Result<OnDisk> {
        self.may(Act::Create)?;
        let path = self.path(name);
        // Not truncated by opening: it may be somebody else's, who is still writing.
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(MODE).open(&path)?;
        file.try_lock().map_err(|error| {
            io::Error::new(ErrorKind::ResourceBusy, format!("{} is being written: {error}", path.display()))
        })?;
        file.set_permissions(fs::Permissions::from_mode(MODE))?;
        file.set_len(0)?;
        Ok(OnDisk { file, disk: self.clone(), unsynced: 0 })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.may(Act::Rename)?;
        fs::rename(self.path(from), self.path(to))
    }

    /// Removes a file; one that is not there is no error.
    fn remove(&self, name: &str) -> io::Result<()> {
        self.may(Act::Remove)?;
        match fs::remove_file(self.path(name)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn sync_directory(&self) -> io::Result<()> {
        self.may(Act::SyncDirectory)?;
        File::open(&self.directory)?.sync_all()
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            // Names that are no text are not ours.
            names.extend(entry?.file_name().into_string().ok());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn write_journal(&self, files: &Files) -> io::Result<()> {
        let journal = format!("{}{JOURNAL_SUFFIX}", files.main);
        let tmp = format!("{journal}{TMP_SUFFIX}");
        let mut text = format!("{JOURNAL_HEAD}\n");
        for name in files.shards.iter().chain([&files.main]) {
            text.push_str(name);
            text.push('\n');
        }
        text.push_str(JOURNAL_END);
        text.push('\n');
        let mut output = self.create_file(&tmp)?;
        output.write_all(text.as_bytes())?;
        output.sync()?;
        self.rename(&tmp, &journal)?;
        self.sync_directory()
    }

    /// The set that a journal names.
    fn read_journal(&self, name: &str) -> io::Result<Files> {
        let mut text = String::new();
        File::open(self.path(name))?.take(JOURNAL_LEN_MAX).read_to_string(&mut text)?;
        let bad = || {
            let path = self.path(name);
            io::Error::new(ErrorKind::InvalidData, format!("{} is not a journal", path.display()))
        };
        let names = text
            .strip_prefix(JOURNAL_HEAD)
            .and_then(|rest| rest.strip_prefix('\n')?.strip_suffix('\n')?.strip_suffix(JOURNAL_END))
            .ok_or_else(bad)?;
        let mut names: Vec<String> = names.lines().map(str::to_owned).collect();
        let main = names.pop().ok_or_else(bad)?;
        let FileRole::Summary(base) = role_of(&main) else { return Err(bad()) };
        let is_shard = |(number, name): (usize, &String)| role_of(name) == FileRole::Shard(base, number);
        if name.strip_suffix(JOURNAL_SUFFIX) != Some(&main) || !names.iter().enumerate().all(is_shard) {
            return Err(bad());
        }
        Ok(Files { main, shards: names })
    }

    /// Gives the files of a set that has a journal their names, as far as they do not have them yet.
    fn complete(&self, files: &Files) -> io::Result<()> {
        for name in files.shards.iter().chain([&files.main]) {
            match self.rename(&format!("{name}{TMP_SUFFIX}"), name) {
                // Renamed before the crash.
                Err(error) if error.kind() == ErrorKind::NotFound && self.path(name).exists() => {}
                result => result?,
            }
        }
        for name in files.beyond(&self.names()?) {
            self.remove(name)?;
        }
        self.sync_directory()?;
        self.remove(&format!("{}{JOURNAL_SUFFIX}", files.main))?;
        // The next save writes temporary files of the same names: the journal must not come back to them.
        self.sync_directory()
    }
}

impl Storage for Disk {
    fn recover(&self) -> io::Result<Recovered> {
        let mut recovered = Recovered::default();
        for name in self.names()? {
            if let Some(main) = name.strip_suffix(JOURNAL_SUFFIX)
                && matches!(role_of(main), FileRole::Summary(_))
            {
                self.complete(&self.read_journal(&name)?)?;
                recovered.completed.push(main.to_owned());
            }
        }
        for name in self.names()? {
            let Some(stem) = name.strip_suffix(TMP_SUFFIX) else { continue };
            let of = stem.strip_suffix(JOURNAL_SUFFIX).unwrap_or(stem);
            if role_of(of) == FileRole::Other {
                continue;
            }
            // Whoever still writes it holds the lock.
            let Ok(file) = File::open(self.path(&name)) else { continue };
            if file.metadata()?.is_file() && file.try_lock().is_ok() {
                self.remove(&name)?;
                recovered.swept.push(name);
            }
        }
        Ok(recovered)
    }

    fn list(&self) -> io::Result<Vec<Candidate<SystemTime>>> {
        let mut found = Vec::new();
        for name in self.names()? {
            // What vanishes meanwhile is not there.
            let Ok(data) = fs::metadata(self.path(&name)) else { continue };
            if data.is_file() {
                let modified = data.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                found.push(Candidate { name, modified });
            }
        }
        Ok(found)
    }

    fn len(&self, name: &str) -> io::Result<u64> {
        Ok(fs::metadata(self.path(name))?.len())
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(File::open(self.path(name))?))
    }

    fn describe(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn Output>> {
        Ok(Box::new(self.create_file(&format!("{name}{TMP_SUFFIX}"))?))
    }

    fn publish(&self, files: &Files) -> io::Result<()> {
        // The temporary names are in the directory before anything relies on them.
        self.sync_directory()?;
        if files.shards.is_empty() {
            self.rename(&format!("{}{TMP_SUFFIX}", files.main), &files.main)?;
            return self.sync_directory();
        }
        self.write_journal(files)?;
        self.complete(files)
    }

    fn discard(&self, files: &Files) {
        let journal = format!("{}{JOURNAL_SUFFIX}", files.main);
        // With a journal the set is complete, and what is left of it is the next `recover`'s to do.
        if self.path(&journal).exists() {
            return;
        }
        for name in files.shards.iter().chain([&files.main, &journal]) {
            // What cannot be removed is swept later; the save has failed already, and loudly.
            let _ = self.remove(&format!("{name}{TMP_SUFFIX}"));
        }
    }
}

/// A file that is being written.
struct OnDisk {
    file: File,
    disk: Disk,
    unsynced: u64,
}

impl OnDisk {
    fn sync(&mut self) -> io::Result<()> {
        self.disk.may(Act::Sync)?;
        self.unsynced = 0;
        self.file.sync_data()
    }
}

impl Write for OnDisk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Err(error) = self.disk.may(Act::Write) {
            // As a full disk does it: some of it is there.
            let _ = self.file.write(&bytes[..bytes.len() / 2]);
            return Err(error);
        }
        let len = self.file.write(bytes)?;
        self.unsynced += len as u64;
        if self.unsynced >= SYNC_EVERY {
            self.sync()?;
        }
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Output for OnDisk {
    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.disk.may(Act::Sync)?;
        self.unsynced = 0;
        // Data and length; the name is the directory's.
        self.file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

    use super::*;

    /// A directory of its own, removed at the end.
    struct Directory(PathBuf);

    impl Directory {
        fn new() -> Directory {
            static MADE: AtomicU32 = AtomicU32::new(0);
            let number = MADE.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("damselfly-disk-{}-{number}", std::process::id()));
            fs::create_dir_all(&path).expect("a directory");
            Directory(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    fn set(shards: usize) -> Files {
        Files {
            main: "dump-summary.dfs".into(),
            shards: (0..shards).map(|shard| format!("dump-{shard:04}.dfs")).collect(),
        }
    }

    fn single() -> Files {
        Files { main: "dump.rdb".into(), shards: Vec::new() }
    }

    /// Saves a snapshot each of whose files has `content`.
    fn save(disk: &Disk, files: &Files, content: &str) -> io::Result<()> {
        disk.recover()?;
        let write = || -> io::Result<()> {
            let names = files.shards.iter().chain([&files.main]);
            let mut outputs = names.map(|name| disk.create(name)).collect::<io::Result<Vec<_>>>()?;
            // In pieces, so that there are writes in the midst of a file.
            for piece in content.as_bytes().chunks(4) {
                outputs.iter_mut().try_for_each(|output| output.write_all(piece))?;
            }
            outputs.into_iter().try_for_each(Output::finish)?;
            disk.publish(files)
        };
        write().inspect_err(|_| disk.discard(files))
    }

    /// What a start finds: the content that all files of the snapshot have.
    fn found(directory: &Path) -> Option<String> {
        let disk = Disk::new(directory);
        disk.recover().expect("nothing fails any more");
        let names = disk.names().expect("readable");
        assert!(names.iter().all(|name| role_of(name) != FileRole::Other), "all is swept: {names:?}");
        let read = |name: &String| fs::read_to_string(directory.join(name)).expect("readable");
        let contents: Vec<String> = names.iter().map(read).collect();
        if let Some(first) = contents.first() {
            assert!(contents.iter().all(|content| content == first), "{names:?}: {contents:?}");
            let shards = names.iter().filter(|name| matches!(role_of(name), FileRole::Shard(..))).count();
            let expected: usize = first.split(' ').nth(1).expect("a count").parse().expect("a count");
            assert_eq!(shards, expected, "{names:?}");
        }
        contents.into_iter().next()
    }

    /// A set takes the place of a larger and of a smaller one, and nobody else may read it.
    #[test]
    fn sets_replace_each_other() {
        let directory = Directory::new();
        let disk = Disk::new(&directory.0);
        for shards in [2, 5, 1, 3] {
            save(&disk, &set(shards), &format!("with {shards}")).expect("saved");
            assert_eq!(found(&directory.0), Some(format!("with {shards}")));
        }
        for entry in fs::read_dir(&directory.0).expect("readable") {
            let mode = entry.expect("readable").metadata().expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    /// A crash before any act of a save, and a crash again in the midst of recovering from it, leaves the old snapshot
    /// or the new one, whole.
    #[test]
    fn crashes() {
        for files in [set(3), single()] {
            let (old, new) = (format!("old {}", files.shards.len()), format!("new {}", files.shards.len()));
            let (mut olds, mut news) = (0, 0);
            for last in 0.. {
                let directory = Directory::new();
                save(&Disk::new(&directory.0), &files, &old).expect("saved");
                let crashed = |after: usize| {
                    let acts = AtomicUsize::new(0);
                    Disk::with_faults(&directory.0, move |_| {
                        let dead = acts.fetch_add(1, Ordering::Relaxed) >= after;
                        if dead { Err(io::Error::other("dead")) } else { Ok(()) }
                    })
                };
                let ended = save(&crashed(last), &files, &new).is_ok();
                for again in 0..last % 7 {
                    let _ = crashed(again).recover();
                }
                match found(&directory.0) {
                    Some(content) if content == old => olds += 1,
                    Some(content) if content == new => news += 1,
                    other => panic!("after {last} acts: {other:?}"),
                }
                if ended {
                    break;
                }
            }
            assert!(olds > 3 && news > 1, "{olds} {news}");
        }
    }

    /// One act of a kind that fails makes the save fail; the old snapshot or, behind the point of no return, the new
    /// one is there, and the next save goes well.
    #[test]
    fn faults() {
        for act in [Act::Create, Act::Write, Act::Sync, Act::Rename, Act::Remove, Act::SyncDirectory] {
            for nth in 0.. {
                let directory = Directory::new();
                save(&Disk::new(&directory.0), &set(2), "old 2").expect("saved");
                let left = Mutex::new(nth);
                let disk = Disk::with_faults(&directory.0, move |done| {
                    let mut left = left.lock().expect("not poisoned");
                    if done == act {
                        *left -= 1;
                        if *left == -1 {
                            return Err(io::Error::other("as wished"));
                        }
                    }
                    Ok(())
                });
                let saved = save(&disk, &set(2), "new 2");
                let content = found(&directory.0).expect("a snapshot");
                assert!(content == "new 2" || (content == "old 2" && saved.is_err()), "{act:?} {nth}");
                save(&Disk::new(&directory.0), &set(1), "next 1").expect("saved");
                assert_eq!(found(&directory.0).as_deref(), Some("next 1"));
                if saved.is_ok() {
                    assert!(nth > 0, "{act:?} happens");
                    break;
                }
            }
        }
    }

    /// However often acts fail, and whatever they are, one save after the other: there is always a snapshot, and it is
    /// the last that was said to be saved, or one that was begun since.
    #[test]
    fn every_nth_act_fails() {
        for every in 1..=200 {
            let directory = Directory::new();
            save(&Disk::new(&directory.0), &set(2), "save 2 0").expect("saved");
            let acts = AtomicUsize::new(0);
            let disk = Disk::with_faults(&directory.0, move |_| {
                let fails = acts.fetch_add(1, Ordering::Relaxed) % every == every - 1;
                if fails { Err(io::Error::other("as wished")) } else { Ok(()) }
            });
            let mut saved = 0;
            for number in 1..=8 {
                let shards = 1 + number % 3;
                if save(&disk, &set(shards), &format!("save {shards} {number}")).is_ok() {
                    saved = number;
                }
                let content = found(&directory.0).expect("a snapshot");
                let number_found = content.split(' ').nth(2).and_then(|number| number.parse().ok());
                assert!(
                    number_found.is_some_and(|found| (saved..=number).contains(&found)),
                    "{every}: {content}"
                );
                saved = number_found.expect("a number");
            }
        }
    }

    /// Temporary files of a writer that lives are not swept, and not written by a second one.
    #[test]
    fn writers_that_live() {
        let directory = Directory::new();
        let disk = Disk::new(&directory.0);
        let output = disk.create("dump.rdb").expect("created");
        assert_eq!(disk.recover().expect("recovers"), Recovered::default());
        assert!(disk.create("dump.rdb").is_err());
        drop(output);
        fs::write(directory.0.join("mine.tmp"), b"").expect("written");
        assert_eq!(disk.recover().expect("recovers").swept, ["dump.rdb.tmp"]);
        assert_eq!(disk.names().expect("readable"), ["mine.tmp"]);
    }

    /// A journal that is none is an error that names it, and no reason to rename or remove anything.
    #[test]
    fn broken_journals() {
        for text in ["", "damselfly snapshot journal 1\n../x\nend\n", "damselfly snapshot journal 1\n"] {
            let directory = Directory::new();
            let disk = Disk::new(&directory.0);
            save(&disk, &set(1), "old 1").expect("saved");
            fs::write(directory.0.join("dump-summary.dfs.journal"), text).expect("written");
            let error = disk.recover().expect_err("no journal").to_string();
            assert!(error.contains("dump-summary.dfs.journal"), "{error}");
            assert_eq!(disk.names().expect("readable").len(), 3);
        }
    }
}
