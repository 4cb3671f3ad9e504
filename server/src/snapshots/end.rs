//! The last save, before the process ends: SIGTERM, SIGINT and SHUTDOWN.
//!
//! Writes are held back from the moment of the cut on, so whatever was answered is in the snapshot. Who asked hears how
//! it went; if the server is to go on after all (the save failed, SHUTDOWN ABORT), the writes that waited go on too.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::{Heard, Listeners, Order, begin, locked};
use crate::core::Core;
use crate::pause::Pause;
use crate::shared::Shared;

/// How often it is seen whether another save has ended that is in the way.
const PATIENCE: Duration = Duration::from_millis(10);

/// Whether the process is about to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum End {
    /// No.
    #[default]
    No,
    /// Its last save goes on.
    Saving,
    /// The save goes on, but nobody wants the end any more.
    Aborted,
}

/// Saves for the last time, if the settings want snapshots at all, and then tells how it went. An error if the end has
/// begun already.
pub fn end(shared: &Arc<Shared>, heard: Heard) -> Result<(), String> {
    {
        let mut end = locked(&shared.snapshots.end);
        if *end != End::No {
            return Err("the server is saving before it ends".to_owned());
        }
        *end = End::Saving;
    }
    let in_thread = shared.clone();
    let thread = std::thread::Builder::new().name("end".to_owned()).spawn(move || {
        crate::affinity::roam();
        let shared = in_thread;
        shared.scripts.running.make_way(true);
        let mut result = last_save(&shared);
        let aborted = std::mem::take(&mut *locked(&shared.snapshots.end)) == End::Aborted;
        if aborted {
            result = Err("SHUTDOWN ABORT".to_owned());
        }
        if result.is_err() {
            shared.scripts.running.make_way(false);
            for peer in &shared.peers {
                peer.mailbox.post_from_outside(Box::new(Core::unpause));
            }
        }
        heard(result);
    });
    thread.map(|_| ()).map_err(|error| format!("cannot start a thread: {error}"))
}

/// Lets the server go on after its last save; false if there is none under way. The caller lets the writes go on.
pub fn abort_end(shared: &Shared) -> bool {
    let mut end = locked(&shared.snapshots.end);
    let was_saving = *end == End::Saving;
    if was_saving {
        *end = End::Aborted;
    }
    was_saving
}

fn last_save(shared: &Arc<Shared>) -> Result<(), String> {
    if shared.settings.dbfilename().is_empty() {
        return Ok(());
    }
    if shared.snapshots.is_loading() {
        tracing::warn!("ending while the snapshot is being loaded: what was loaded is not saved again");
        return Ok(());
    }
    let (paused, all_paused) = mpsc::channel();
    shared.peers[0].mailbox.post_from_outside(Box::new(move |core| {
        core.pause_all(Pause { until_ms: u64::MAX, everything: false }, move |_| {
            // Whoever waited is gone only with the process.
            let _ = paused.send(());
        });
    }));
    let gone = |_| "the server is stopping".to_owned();
    all_paused.recv().map_err(gone)?;
    while shared.snapshots.history().now.is_some() {
        std::thread::sleep(PATIENCE);
    }
    let (ended, result) = mpsc::channel();
    let end: Heard = Box::new(move |result| {
        let _ = ended.send(result);
    });
    let order = Order { yields: false, ..Order::usual(shared) };
    begin(shared, order, Listeners { cut: None, end: Some(end) })?;
    result.recv().map_err(gone)?
}
