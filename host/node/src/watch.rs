//! Notices when a data folder is taken away from under a running node.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, TryLockError};
use std::time::Duration;

use crate::node::Inner;
use crate::served::Upkeep;

/// How often it is looked: what is acknowledged meanwhile may lie in a folder that nobody finds any more.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Runs until the node stops, or may write no more.
pub(crate) async fn run(inner: Arc<Inner>, upkeep: Arc<Upkeep>) {
    loop {
        let looking = inner.clone();
        let Ok(looked) = tokio::task::spawn_blocking(move || look(&looking)).await else { return };
        if let Err(why) = looked {
            return fence(&inner, upkeep, why).await;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = inner.stopping.cancelled() => return,
        }
    }
}

/// Whether all of it still is where it was.
fn look(inner: &Inner) -> Result<(), String> {
    let mut folders = match inner.folders.try_lock() {
        Ok(folders) => folders,
        Err(TryLockError::Poisoned(poisoned)) => PoisonError::into_inner(poisoned),
        // It is being stopped.
        Err(TryLockError::WouldBlock) => return Ok(()),
    };
    let Some(folders) = folders.as_mut() else { return Ok(()) };
    folders.look()?;
    let segment = current_segment(inner);
    match segment.try_exists() {
        Ok(false) => Err(format!(
            "{} was removed while this node wrote to it; nothing more is written: restore the folder from a backup",
            segment.display()
        )),
        // Whether it is there cannot be seen, which its writes will tell.
        Ok(true) | Err(_) => Ok(()),
    }
}

/// The file that the log is written to. It has its name before the first byte of it counts, and keeps it for as long.
fn current_segment(inner: &Inner) -> PathBuf {
    let last = inner.reader.end().0.saturating_sub(1);
    let start = last - last % inner.segment_size;
    inner.config.storage().folder().segment(start)
}

/// Writes no more, and looks after nothing any more: what lies there now may be another node's.
async fn fence(inner: &Arc<Inner>, upkeep: Arc<Upkeep>, why: String) {
    tracing::error!(why, "the data folder is not this node's any more");
    // Before anything that may take a while: a snapshot may be under way.
    upkeep.snapshotter.give_up();
    // A shard that is gone writes nothing.
    let _ = inner.shard.fence(why).await;
    let inner = inner.clone();
    let rest = move || {
        upkeep.rest();
        inner.lookups.stop();
    };
    if let Err(error) = tokio::task::spawn_blocking(rest).await {
        tracing::error!(%error, "what looks after the log did not stop");
    }
}
