//! Which segments of a member's own log are not whole.

use vouch_commitlog::{DamagedRange, LogFolder, LogPosition, Verification, segments_span};

use crate::config::StorageConfig;
use crate::error::StartError;
use crate::folder::FolderIdentity;
use crate::known::Known;
use crate::progress::{StartProgress, StartStep};
use crate::replica::{LogName, ReplicaFile};
use crate::snapshots::Snapshots;

/// Looks at the whole log of a folder that did not open. Where segments begin that cannot be read, or are not what was written;
/// `None` where the folder is not that of a member of a cluster of several: nobody else has its log.
///
/// # Errors
/// What the replica noted cannot be read, so nobody knows for whom it voted.
pub fn unsound_segments(
    config: &StorageConfig,
    progress: &StartProgress,
) -> Result<Option<Vec<LogPosition>>, StartError> {
    let Some((identity, _)) = FolderIdentity::look(config)? else { return Ok(None) };
    let name = LogName { cluster_id: identity.cluster_id()?, shard: config.shard };
    let shard = config.folder();
    let Some(note) = ReplicaFile::look(&shard, name)?.filter(|note| note.member) else { return Ok(None) };
    // Nobody else is of a life of the cluster that has yet to begin here.
    if identity.begins().is_some_and(|life| life.node != note.node) {
        return Ok(None);
    }
    let size = identity.segment_size;
    let known = Known::of_shard(&shard, name, &Snapshots::of_folder(shard.snapshots()))?;
    let verify = || -> Result<Verification, vouch_commitlog::OpenError> {
        let log = known.look_at(LogFolder::open(&shard.log())?);
        log.verify_from(LogPosition(0), known.durable, &mut |read| {
            progress.enter(StartStep::Looking { done_bytes: read.done_bytes, total_bytes: read.total_bytes });
        })
    };
    Ok(Some(match verify() {
        Ok(found) => damaged_segments(&found.damage, size),
        Err(error) => {
            tracing::warn!(%error, "the log cannot be looked through; nothing of it is believed");
            let span = segments_span(&shard.log()).unwrap_or_default();
            segments(span.start, span.end, size).collect()
        }
    }))
}

/// Where segments of this size begin in which something is damaged.
pub fn damaged_segments(damage: &[DamagedRange], size: u64) -> Vec<LogPosition> {
    damage.iter().flat_map(|DamagedRange { from, to, .. }| segments(*from, *to, size)).collect()
}

/// Where those begin that lie between two positions: one at least.
fn segments(from: LogPosition, to: LogPosition, size: u64) -> impl Iterator<Item = LogPosition> {
    let first = from.0 / size;
    (first..to.0.div_ceil(size).max(first + 1)).map(move |n| LogPosition(n * size))
}
