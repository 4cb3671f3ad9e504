//! Scripts and libraries as all threads share them: sources, and what is known of where they can run.
//!
//! Each thread compiles what it runs, and keeps what it has found here in a table of its own ([`Local`]); two numbers
//! tell it when scripts were forgotten and when libraries changed.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use damselfly_scripting::{FunctionInfo, Library, ScriptFlags, Sha, key_of};
use dashmap::DashMap;

use super::running::AllRunning;
use super::wide::ScriptThread;

/// Bytes of the sources of all scripts that are kept. Above it those that were only sent by EVAL are forgotten first,
/// the oldest first: clients that build scripts from data send a new one each time, and never one twice.
pub const SOURCES_BYTES_MAX: usize = 64 << 20;

/// Scripts that are kept.
pub const SOURCES_MAX: usize = 100_000;

/// What a source costs besides its bytes.
const SOURCE_OVERHEAD: usize = 200;

/// Runs on one shard after which a script is taken to stay on one.
const PROVEN: u16 = 64;

/// From here on the number is that of a wide script.
const WIDE: u16 = 1 << 8;

/// Wide runs in a row that one shard would have sufficed for, after which a script is tried on one again.
const NEEDLESS_MAX: u16 = 1000;

/// Where a script can run, as far as is known: a number of runs on one shard, or [`WIDE`] and a number of runs that
/// need not have been wide.
#[derive(Debug, Default)]
pub struct Reach(AtomicU16);

impl Reach {
    /// It has often run on one shard and never needed others.
    pub fn is_narrow(&self) -> bool {
        self.0.load(Ordering::Relaxed) == PROVEN
    }

    /// It has needed other shards than that of the keys it declares.
    pub fn is_wide(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= WIDE
    }

    /// It has run on one shard.
    pub fn note_narrow(&self) {
        let runs = self.0.load(Ordering::Relaxed);
        if runs < PROVEN {
            self.0.store(runs + 1, Ordering::Relaxed);
        }
    }

    /// It could not run on one shard.
    pub fn note_wide(&self) {
        self.0.store(WIDE, Ordering::Relaxed);
    }

    /// It has run over all shards; whether it had to.
    pub fn note_ran_widely(&self, needed: bool) {
        let runs = self.0.load(Ordering::Relaxed);
        if needed || runs < WIDE {
            if runs > WIDE {
                self.note_wide();
            }
        } else {
            self.0.store(if runs == WIDE + NEEDLESS_MAX { 0 } else { runs + 1 }, Ordering::Relaxed);
        }
    }
}

/// A script.
#[derive(Debug)]
pub struct Source {
    /// What it is called.
    pub sha: Sha,
    /// As it was sent.
    pub text: Box<[u8]>,
    /// What it declares.
    pub flags: ScriptFlags,
    /// Where it can run.
    pub reach: Reach,
    /// SCRIPT LOAD has asked to keep it.
    loaded: AtomicBool,
}

/// A function of a library.
#[derive(Debug)]
pub struct Function {
    /// What FCALL knows.
    pub info: FunctionInfo,
    /// Where it can run.
    pub reach: Reach,
}

/// All libraries at one moment.
#[derive(Debug, Default)]
pub struct Libraries {
    /// By name.
    pub libraries: BTreeMap<String, Arc<Library>>,
    /// By [`key_of`] its name; no two libraries have a function of the same name.
    pub functions: HashMap<String, Arc<Function>>,
}

impl Libraries {
    /// What FCALL calls by this name.
    pub fn function(&self, name: &[u8]) -> Option<&Arc<Function>> {
        self.functions.get(&key_of(std::str::from_utf8(name).ok()?))
    }
}

/// What a call runs.
#[derive(Clone, Debug)]
pub enum Code {
    /// A script.
    Script(Arc<Source>),
    /// A function.
    Function(Arc<Function>),
}

impl Code {
    /// Where it can run.
    pub fn reach(&self) -> &Reach {
        match self {
            Code::Script(source) => &source.reach,
            Code::Function(function) => &function.reach,
        }
    }

    /// SHA-1 of a script, name of a function.
    pub fn name(&self) -> String {
        match self {
            Code::Script(source) => damselfly_protocol::sha1::hex(&source.sha),
            Code::Function(function) => function.info.name.clone(),
        }
    }

    /// What it declares.
    pub fn flags(&self) -> ScriptFlags {
        match self {
            Code::Script(source) => source.flags,
            Code::Function(function) => function.info.flags,
        }
    }
}

/// Which scripts may be forgotten, oldest first.
#[derive(Default)]
struct Ages {
    sent: VecDeque<Sha>,
    loaded: VecDeque<Sha>,
}

/// See the module's head.
pub struct Registry {
    sources: DashMap<Sha, Arc<Source>>,
    ages: Mutex<Ages>,
    bytes: AtomicUsize,
    /// How often all scripts were forgotten.
    flushes: AtomicU64,
    /// How often scripts were thrown out for want of room.
    pub evicted: AtomicU64,
    libraries: RwLock<Arc<Libraries>>,
    /// How often libraries were changed.
    changes: AtomicU64,
    /// Where scripts over several shards run; started when the first one comes.
    pub thread: OnceLock<ScriptThread>,
    /// Bytes that the engines of all threads use, scripts and functions.
    pub engine_bytes: [AtomicUsize; 2],
    /// Engines that there are.
    pub engines: AtomicUsize,
    /// Scripts may call those of DEBUG that tests of replies and of time need (DEBUG SET-DISABLE-DENY-SCRIPTS).
    pub may_debug: AtomicBool,
    /// What runs on each core and on the thread of wide scripts, and whether it takes long.
    pub running: AllRunning,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Registry {
    /// A registry without scripts, for so many cores.
    pub fn new(cores: usize) -> Registry {
        Registry {
            sources: DashMap::new(),
            ages: Mutex::default(),
            bytes: AtomicUsize::new(0),
            flushes: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
            libraries: RwLock::default(),
            changes: AtomicU64::new(0),
            thread: OnceLock::new(),
            engine_bytes: Default::default(),
            engines: AtomicUsize::new(0),
            may_debug: AtomicBool::new(false),
            running: AllRunning::new(cores + 1),
        }
    }

    /// A script that is known.
    pub fn script(&self, sha: &Sha) -> Option<Arc<Source>> {
        self.sources.get(sha).map(|source| source.clone())
    }

    /// Keeps a script that has been compiled once. `loaded`: until SCRIPT FLUSH, as long as there is room.
    pub fn keep(&self, sha: Sha, text: &[u8], flags: ScriptFlags, loaded: bool) -> Arc<Source> {
        let mut ages = locked(&self.ages);
        if let Some(known) = self.script(&sha) {
            if loaded && !known.loaded.swap(true, Ordering::Relaxed) {
                ages.loaded.push_back(sha);
            }
            return known;
        }
        let source = Arc::new(Source {
            sha,
            text: text.into(),
            flags,
            reach: Reach::default(),
            loaded: AtomicBool::new(loaded),
        });
        self.sources.insert(sha, source.clone());
        if loaded { &mut ages.loaded } else { &mut ages.sent }.push_back(sha);
        let mut bytes = self.bytes.fetch_add(text.len() + SOURCE_OVERHEAD, Ordering::Relaxed)
            + text.len()
            + SOURCE_OVERHEAD;
        while (bytes > SOURCES_BYTES_MAX || self.sources.len() > SOURCES_MAX) && self.sources.len() > 1 {
            let Some((oldest, was_sent)) = (ages.sent.pop_front().map(|sha| (sha, true)))
                .or_else(|| ages.loaded.pop_front().map(|sha| (sha, false)))
            else {
                break;
            };
            // One that was loaded after it was sent is in both lists.
            let removed = self
                .sources
                .remove_if(&oldest, |_, source| was_sent != source.loaded.load(Ordering::Relaxed));
            if let Some((_, source)) = removed {
                let freed = source.text.len() + SOURCE_OVERHEAD;
                bytes = self.bytes.fetch_sub(freed, Ordering::Relaxed) - freed;
                self.evicted.fetch_add(1, Ordering::Relaxed);
            }
        }
        source
    }

    /// Forgets all scripts.
    pub fn flush(&self) {
        let mut ages = locked(&self.ages);
        *ages = Ages::default();
        self.sources.clear();
        self.bytes.store(0, Ordering::Relaxed);
        self.flushes.fetch_add(1, Ordering::Release);
    }

    /// How often all scripts were forgotten.
    #[inline]
    pub fn flushes(&self) -> u64 {
        self.flushes.load(Ordering::Acquire)
    }

    /// All scripts.
    pub fn scripts(&self) -> Vec<Arc<Source>> {
        self.sources.iter().map(|source| source.clone()).collect()
    }

    /// Scripts, and the bytes of their sources.
    pub fn size(&self) -> (usize, usize) {
        (self.sources.len(), self.bytes.load(Ordering::Relaxed))
    }

    /// The libraries of this moment.
    pub fn libraries(&self) -> Arc<Libraries> {
        self.libraries.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How often libraries were changed.
    #[inline]
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Puts libraries in place of those that there are. For core 0 alone, so that no change is lost.
    pub fn change(&self, libraries: BTreeMap<String, Arc<Library>>) {
        let before = self.libraries();
        let mut functions = HashMap::new();
        for (name, library) in &libraries {
            let same = before.libraries.get(name).is_some_and(|old| Arc::ptr_eq(old, library));
            for info in &library.functions {
                let kept = before.functions.get(&info.key()).filter(|_| same).cloned();
                let fresh = || Arc::new(Function { info: info.clone(), reach: Reach::default() });
                functions.insert(info.key(), kept.unwrap_or_else(fresh));
            }
        }
        let after = Arc::new(Libraries { libraries, functions });
        *self.libraries.write().unwrap_or_else(PoisonError::into_inner) = after;
        self.changes.fetch_add(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use damselfly_scripting::Engine;

    /// Above the limit the oldest go, first those that were only sent; one that was loaded later stays with the loaded.
    #[test]
    fn bounded() {
        let registry = Registry::new(1);
        let text = |n: u32| {
            let mut text = vec![b' '; 1 << 20];
            text.extend(format!("return {n}").into_bytes());
            text
        };
        let keep = |n: u32, loaded: bool| {
            let text = text(n);
            registry.keep(Engine::sha(&text), &text, ScriptFlags::default(), loaded);
        };
        let has = |n: u32| registry.script(&Engine::sha(&text(n))).is_some();
        keep(0, true);
        keep(1, false);
        keep(1, true);
        for n in 2..200 {
            keep(n, false);
        }
        assert!(has(0) && has(1) && !has(2) && has(199));
        assert!(registry.size().1 <= SOURCES_BYTES_MAX);
        for n in 200..400 {
            keep(n, true);
        }
        assert!(!has(0) && !has(199) && has(399));
        registry.flush();
        assert_eq!(registry.size(), (0, 0));
    }
}
