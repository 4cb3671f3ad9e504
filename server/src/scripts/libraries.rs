//! Libraries of functions: one list for all threads, changed by core 0 alone, loaded by each engine when it needs them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use damselfly_protocol::{Proto, ReplyWriter};
use damselfly_scripting::{AclCheck, CallOutcome, Engine, Host, How, Library, LogLevel, Repl, Tick};

use super::{LocalEngine, clock};
use crate::core::Core;
use crate::shared::Shared;

/// Longest time that a library's code may run while it is loaded.
const LOADING_MAX: Duration = Duration::from_millis(500);

/// What FUNCTION RESTORE does with libraries that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restore {
    /// They stay; one with the name of a new one is an error.
    Append,
    /// They stay, except those with the name of a new one.
    Replace,
    /// They go.
    Flush,
}

/// Why libraries were not restored.
pub struct NotRestored {
    /// A complete error text.
    pub text: Vec<u8>,
    /// Which of the sources it is about.
    pub number: usize,
}

/// A library that is being loaded has time and the log.
struct Loading {
    until: Instant,
}

impl Loading {
    fn new() -> Loading {
        Loading { until: Instant::now() + LOADING_MAX }
    }
}

impl Host for Loading {
    fn call(&mut self, _: &[&[u8]], _: How, reply: &mut Vec<u8>) -> CallOutcome {
        ReplyWriter::new(reply, Proto::Resp2).error("ERR no commands while a library is loaded");
        CallOutcome::Done
    }

    fn log(&mut self, level: LogLevel, text: &[u8]) {
        super::log(level, text);
    }

    fn acl_check(&mut self, _: &[&[u8]]) -> AclCheck {
        AclCheck::Unknown
    }

    fn set_repl(&mut self, _: Repl) {}

    fn tick(&mut self) -> Tick {
        if Instant::now() < self.until { Tick::Continue } else { Tick::Kill }
    }

    fn clock(&mut self) -> f64 {
        clock::seconds()
    }
}

impl LocalEngine {
    /// Loads the libraries that there are now, and forgets the others. The error is a reply.
    pub(super) fn load_libraries(&mut self, shared: &Shared) -> Result<(), Vec<u8>> {
        let changes = shared.scripts.changes();
        if self.changes == changes {
            return Ok(());
        }
        let now = shared.scripts.libraries();
        let gone: Vec<String> = self
            .loaded
            .iter()
            .filter(|(name, known)| {
                !now.libraries.get(*name).is_some_and(|library| Arc::ptr_eq(library, known))
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in gone {
            self.engine.delete_library(&name);
            self.loaded.remove(&name);
        }
        if now.libraries.is_empty() {
            // With whatever functions have left in memory.
            self.engine.flush_libraries();
        }
        for (name, library) in &now.libraries {
            if !self.loaded.contains_key(name) {
                self.engine.load_library(&library.source, true, &mut Loading::new())?;
                self.loaded.insert(name.clone(), library.clone());
            }
        }
        self.changes = changes;
        Ok(())
    }

    /// Loads a library that is not in the list yet. The error is a reply.
    fn load_new(&mut self, source: &[u8], replace: bool) -> Result<Arc<Library>, Vec<u8>> {
        let library = self.engine.load_library(source, replace, &mut Loading::new())?.clone();
        let library = Arc::new(library);
        self.loaded.insert(library.name.clone(), library.clone());
        Ok(library)
    }

    /// Forgets a library that is in the list no more, or not yet.
    fn forget(&mut self, name: &str) {
        self.engine.delete_library(name);
        self.loaded.remove(name);
    }
}

/// Work on core 0, which is the only one that changes the list.
impl Core {
    /// FUNCTION LOAD: the library's name, or an error.
    pub(crate) fn load_library(&mut self, source: &[u8], replace: bool) -> Result<String, Vec<u8>> {
        assert!(self.id == 0, "core 0 changes libraries");
        let mut local = self.take_engine();
        let loaded = local.load_libraries(&self.shared).and_then(|()| local.load_new(source, replace));
        if let Ok(library) = &loaded {
            let mut libraries = self.shared.scripts.libraries().libraries.clone();
            libraries.insert(library.name.clone(), library.clone());
            self.shared.scripts.change(libraries);
            local.changes = self.shared.scripts.changes();
        }
        self.put_engine(local);
        Ok(loaded?.name.clone())
    }

    /// FUNCTION DELETE; false if there is no such library.
    pub(crate) fn delete_library(&mut self, name: &str) -> bool {
        assert!(self.id == 0, "core 0 changes libraries");
        let mut libraries = self.shared.scripts.libraries().libraries.clone();
        let was_there = libraries.remove(name).is_some();
        if was_there {
            self.shared.scripts.change(libraries);
        }
        was_there
    }

    /// FUNCTION FLUSH
    pub(crate) fn flush_libraries(&mut self) {
        assert!(self.id == 0, "core 0 changes libraries");
        self.shared.scripts.change(BTreeMap::new());
    }

    /// FUNCTION RESTORE: all of them or, with an error, none.
    pub(crate) fn restore_libraries(
        &mut self,
        sources: &[Vec<u8>],
        policy: Restore,
    ) -> Result<(), NotRestored> {
        assert!(self.id == 0, "core 0 changes libraries");
        let before = self.shared.scripts.libraries().libraries.clone();
        let mut local = self.take_engine();
        let mut after = if policy == Restore::Flush { BTreeMap::new() } else { before.clone() };
        // The engine follows step by step, so that a name taken twice is found by it.
        let known = local.load_libraries(&self.shared);
        let mut result = known.map_err(|text| NotRestored { text, number: 0 });
        if policy == Restore::Flush {
            for name in before.keys() {
                local.forget(name);
            }
        }
        let mut names = BTreeSet::new();
        for (number, source) in sources.iter().enumerate() {
            if result.is_err() {
                break;
            }
            let loaded = Engine::library_name(source).and_then(|name| {
                // Whatever the policy: who has two of a name was not written by a server.
                if !names.insert(name.clone()) {
                    return Err(format!("ERR Library '{name}' already exists").into_bytes());
                }
                if policy != Restore::Replace && after.contains_key(&name) {
                    return Err(format!("ERR Library {name} already exists").into_bytes());
                }
                after.insert(name, local.load_new(source, true)?);
                Ok(())
            });
            result = loaded.map_err(|text| NotRestored { text, number });
        }
        if result.is_ok() {
            self.shared.scripts.change(after);
            local.changes = self.shared.scripts.changes();
        } else {
            // Back to what the list says, next time.
            let unknown: Vec<String> = local.loaded.keys().cloned().collect();
            for name in unknown {
                local.forget(&name);
            }
            local.changes = 0;
        }
        self.put_engine(local);
        result
    }
}
