//! Whether the node of a stopped folder decides alone what its log holds.

use std::path::Path;

use vouch_broker::State;
use vouch_commitlog::{Checkpoint, CommitLog, EntryKind, LogConfig, LogPosition};

use super::{BackupError, SHARD, damaged, shard_of};
use crate::folder::FolderIdentity;
use crate::known::Known;
use crate::replay::replay;
use crate::replica::ReplicaNote;
use crate::undecided::UndecidedTail;

/// Whether all that is whole is committed: nobody else votes, or there is nobody any more. Who votes is told by what is committed for
/// certain; where a change of that may still be cut off, nobody knows.
///
/// `state`: that of the snapshot that ends with `checkpoint`; of it only the members are gone by.
///
/// # Errors
/// The log cannot be read.
pub(super) fn decides_alone(
    data_dir: &Path,
    identity: &FolderIdentity,
    note: Option<&ReplicaNote>,
    known: &Known,
    (mut state, checkpoint): (State, Option<Checkpoint>),
) -> Result<bool, BackupError> {
    let Some(note) = note.filter(|note| note.member) else { return Ok(true) };
    // From where on its log may not be what others have is told by the note, which no backup holds.
    if identity.begins().is_some_and(|life| life.node != note.node) {
        return Err(BackupError::NotBegun(data_dir.to_owned()));
    }
    let folder = shard_of(data_dir).log();
    let cluster_id = identity.cluster_id().map_err(|error| damaged(data_dir, error))?;
    let mut log = LogConfig::new(&folder, cluster_id, SHARD.0);
    (log.segment_size, log.checkpoint) = (identity.segment_size, checkpoint);
    known.tell(&mut log);
    let from = checkpoint.map_or(LogPosition::START, |checkpoint| checkpoint.position);
    let opened = CommitLog::open_read_only(&log, from, &mut |_| ()).map_err(BackupError::Log)?;
    let mut tail = UndecidedTail::default();
    let behind = checkpoint.map_or(opened.verification.start, |checkpoint| checkpoint.end);
    for entry in opened.reader.entries_from(behind) {
        let entry = entry.map_err(|error| damaged(&folder, error))?;
        if entry.kind != EntryKind::Members || entry.end > known.copied_to(false) {
            continue;
        }
        let decided = if entry.index > known.committed { tail.take(entry) } else { vec![entry] };
        for entry in decided {
            replay(&mut state, &entry).map_err(|error| damaged(&folder, error))?;
        }
    }
    Ok(tail.into_entries().is_empty() && state.members().is_only(note.node))
}
