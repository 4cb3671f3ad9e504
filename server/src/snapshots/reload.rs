//! DEBUG RELOAD and DFLY LOAD: a snapshot in place of the data, while the server runs.
//!
//! All shards are locked from the cut, or the flush, to the end of the load, so clients wait meanwhile and see either
//! what was or what is.

use std::sync::{Arc, mpsc};

use super::load::load;
use super::save::{Order, save_now};
use crate::coordinate::Held;
use crate::core::Core;
use crate::shared::Shared;

/// The name of what DEBUG RELOAD saves where `--dbfilename` is empty.
const RELOAD_NAME: &str = "damselfly-reload";

/// What takes the place of the data.
pub enum Source {
    /// The data themselves, saved first as they are.
    Saved,
    /// The snapshot that a start would load.
    Newest,
    /// A file of the snapshot directory: an rdb file, or the summary of a set.
    File(String),
}

/// Loads a snapshot while `held`, the locks of all shards, is held; gives them back and tells the result to `then`, on
/// core `asker`. With `flush` nothing else stays.
pub fn reload(
    core: &Core,
    held: Held,
    source: Source,
    flush: bool,
    then: impl FnOnce(&mut Core, Result<(), String>) + Send + 'static,
) {
    let (shared, asker) = (core.shared.clone(), core.id);
    let work = move || {
        crate::affinity::roam();
        let result = replace(&shared, source, flush);
        if let Err(error) = &result {
            tracing::error!("a snapshot could not be loaded: {error}");
        }
        shared.peers[asker].mailbox.post_from_outside(Box::new(move |core| {
            for (to, ticket) in held {
                core.ask(to, move |core| core.unlock(ticket), |_, ()| {});
            }
            then(core, result);
        }));
    };
    // Where there is no memory for a thread's stack, there is none for a snapshot either.
    std::thread::Builder::new().name("reload".to_owned()).spawn(work).expect("a thread can be started");
}

fn replace(shared: &Arc<Shared>, source: Source, flush: bool) -> Result<(), String> {
    let file = match source {
        Source::Saved => {
            let usual = Order::usual(shared);
            let name = if usual.name.is_empty() { RELOAD_NAME.to_owned() } else { usual.name };
            save_now(shared, &Order { name, locked: true, foreground: true, yields: false, ..usual })?
        }
        Source::Newest => super::load::newest_file(shared)?.ok_or("there is no snapshot")?,
        Source::File(name) => {
            // Before anything is flushed.
            let storage = &shared.snapshots.storage;
            storage.len(&name).map_err(|error| format!("{}: {error}", storage.describe(&name)))?;
            name
        }
    };
    if flush {
        let (flushed, all_flushed) = mpsc::channel();
        for peer in &shared.peers {
            let flushed = flushed.clone();
            peer.mailbox.post_from_outside(Box::new(move |core| {
                for db in 0..core.ks.databases() {
                    core.ks.flush(db);
                }
                // Whoever waits is gone only with the process.
                let _ = flushed.send(());
            }));
        }
        drop(flushed);
        if all_flushed.iter().count() < shared.peers.len() {
            return Err("the server is stopping".to_owned());
        }
    }
    load(shared, &file, !flush)
}
