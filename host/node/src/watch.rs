//! Notices when a data folder is taken away from under a running node.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::Duration;

use vouch_commitlog::{LogPosition, LogReader};
use vouch_storage::{Folders, Lookups, ShardFolder};

use crate::served::Upkeep;
use crate::stopping::Stopping;
use vouch_shard::Shard;

/// How often it is looked: what is acknowledged meanwhile may lie in a folder that nobody finds any more.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The folder of a node, until it is stopped: tasks that end later find the log closed.
pub(crate) type HeldFolders = Mutex<Option<Folders>>;

/// What the watch looks at, and what it stops.
pub(crate) struct FolderWatch {
    pub(crate) shard: Arc<Shard>,
    pub(crate) log: LogReader,
    /// Ended when the folder is gone, since it would write to another node's.
    pub(crate) upkeep: Arc<Upkeep>,
    pub(crate) lookups: Arc<Lookups>,
    pub(crate) folders: Arc<HeldFolders>,
    pub(crate) folder: ShardFolder,
    /// Bytes of a segment: says which file is written to.
    pub(crate) segment_size: u64,
    pub(crate) stopping: Arc<Stopping>,
}

impl FolderWatch {
    /// The file that the log is written to. It has its name before the first byte of it counts, and keeps it for as long.
    fn current_segment(&self) -> PathBuf {
        let last = self.log.end().0.saturating_sub(1);
        self.folder.segment(LogPosition(last - last % self.segment_size))
    }

    /// Writes no more, and looks after nothing any more: what lies there now may be another node's.
    async fn fence(self, why: String) {
        tracing::error!(why, "the data folder is not this node's any more");
        // Before anything that may take a while: a snapshot may be under way.
        self.upkeep.snapshotter.give_up();
        // A shard that is gone writes nothing.
        let _ = self.shard.fence(why).await;
        let rest = move || {
            self.upkeep.rest();
            self.lookups.stop();
        };
        if let Err(error) = tokio::task::spawn_blocking(rest).await {
            tracing::error!(%error, "what looks after the log did not stop");
        }
    }
}

/// Looks once a second until the node stops, or may write no more. What is acknowledged within that second may be lost
/// with the folder; nothing after it is.
pub(crate) async fn run(watch: FolderWatch) {
    loop {
        let (held, segment) = (watch.folders.clone(), watch.current_segment());
        let Ok(looked) = tokio::task::spawn_blocking(move || look(&held, &segment)).await else { return };
        if let Err(why) = looked {
            return watch.fence(why).await;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = watch.stopping.cancelled() => return,
        }
    }
}

/// Whether all of it still is where it was.
fn look(held: &HeldFolders, segment: &Path) -> Result<(), String> {
    let mut folders = match held.try_lock() {
        Ok(folders) => folders,
        Err(TryLockError::Poisoned(poisoned)) => PoisonError::into_inner(poisoned),
        // It is being stopped.
        Err(TryLockError::WouldBlock) => return Ok(()),
    };
    let Some(folders) = folders.as_mut() else { return Ok(()) };
    folders.look()?;
    match segment.try_exists() {
        Ok(false) => Err(format!(
            "{} was removed while this node wrote to it; nothing more is written: restore the folder from a backup",
            segment.display()
        )),
        // Whether it is there cannot be seen, which its writes will tell.
        Ok(true) | Err(_) => Ok(()),
    }
}
