//! How far the log of a node reaches that pulls.

use vouch_commitlog::{Checkpoint, CommitLog, LogPosition, ReadOnlyLog};

use super::offer::StoppedLog;
use crate::config::StorageConfig;
use crate::error::{StartError, failed};
use crate::known::Known;
use crate::progress::{StartProgress, StartStep};
use crate::replica::{LogName, ReplicaNote};
use crate::snapshots::Snapshots;

/// Reads the log from the newest snapshot on to its end.
///
/// # Errors
/// The snapshots cannot be listed. That the log cannot be read is no error: then nobody can tell how far it reached.
pub(super) fn own_log(
    config: &StorageConfig,
    (name, segment_size): (LogName, u64),
    note: &ReplicaNote,
    progress: &StartProgress,
) -> Result<StoppedLog, StartError> {
    let shard = config.folder();
    let snapshots = Snapshots::of_folder(shard.snapshots());
    let known = Known::of_shard(&shard, name, &snapshots)?;
    let newest = snapshots.newest_below(LogPosition::BEYOND).map_err(failed("list", &shard.snapshots()))?;
    let checkpoint = newest.map(|loaded| loaded.checkpoint);
    let mut log = config.log(segment_size);
    (log.directory, log.cluster_id, log.checkpoint) = (shard.log(), name.cluster_id, checkpoint);
    known.tell(&mut log);
    let from = checkpoint.map_or(LogPosition(0), |checkpoint| checkpoint.position);
    let opened = CommitLog::open_read_only(&log, from, &mut |read| {
        progress.enter(StartStep::Looking { done_bytes: read.done_bytes, total_bytes: read.total_bytes });
    });
    Ok(StoppedLog::read(opened.ok().as_ref(), checkpoint, note.term))
}

impl StoppedLog {
    /// By what was read of a log behind a snapshot's last entry, or from its beginning; `None`: it cannot be read. `term`: the latest
    /// that its replica noted.
    pub fn read(opened: Option<&ReadOnlyLog>, checkpoint: Option<Checkpoint>, term: u64) -> Self {
        let sound = opened.filter(|opened| opened.verification.is_sound());
        let last_index = sound.and_then(|opened| {
            let begin = checkpoint.map_or(opened.reader.start(), |checkpoint| checkpoint.end);
            let mut last = checkpoint.map_or(0, |checkpoint| checkpoint.index);
            for header in opened.reader.headers_from(begin) {
                last = header.ok()?.index;
            }
            Some(last)
        });
        Self { last_index, term, ..Self::default() }
    }
}
