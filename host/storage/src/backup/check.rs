//! Whether a backup can be restored, and a node would start on it.

use std::path::Path;

use vouch_broker::State;
use vouch_broker::record::FEATURE_LEVEL;
use vouch_commitlog::{
    Checkpoint, CommitLog, DamagedRange, LogConfig, LogPosition, ReadOnlyLog, SEGMENT_HEADER_LEN, SurveyProgress,
    Verification,
};
use vouch_consensus::EntryId;

use super::compare::compare;
use super::copy::hexadecimal;
use super::manifest::Manifest;
use super::plan;
use super::{Backup, BackupError, BackupProgress, BackupStep, OnProgress, SHARD, damaged, shard_of};
use crate::folder::NewLife;
use crate::layout::ShardFolder;
use crate::replay::{check_feature_level, replay};
use crate::snapshots::{LoadedState, Snapshots};

/// Checks a backup without restoring it: every file against its length and digest, every entry of the log, the
/// snapshot, and every record that a start would read. Nothing is changed.
///
/// # Errors
/// It is no backup, or one that [`restore`](super::restore()) would refuse.
pub fn check_backup(backup: &Path, on_progress: OnProgress<'_>) -> Result<Backup, BackupError> {
    let manifest = Manifest::read(backup)?;
    let total_bytes = manifest.data_bytes();
    let mut done_bytes = 0;
    for file in &manifest.files {
        compare(&backup.join(&file.path), file.extent(), &file.sha256, &mut |bytes| {
            done_bytes += bytes;
            on_progress(BackupProgress { step: BackupStep::Files, done_bytes, total_bytes });
        })?;
    }
    let checked = check_folder(backup, &ExpectedFolder::of(&manifest), on_progress)?;
    Ok(manifest.summary(checked.of_several))
}

/// What was found in a folder that holds what it must.
#[derive(Clone, Copy)]
pub(crate) struct CheckedFolder {
    /// Leader time of the newest record, in milliseconds since 1970.
    pub(super) newest_record_ms: u64,
    /// The log is that of a group with other members: see [`Backup::of_several`].
    pub(super) of_several: bool,
    /// The life that a cluster that is restored from it would begin.
    pub(super) next: NewLife,
    /// Index and term of the log's last entry.
    pub(crate) last: EntryId,
}

/// What the folder of a shard must hold.
pub struct ExpectedShard {
    /// Whose log it is.
    pub cluster_id: [u8; 16],
    /// Bytes in a segment of the log.
    pub segment_size: u64,
    /// Where the log begins.
    pub log_start: LogPosition,
    /// Where it ends.
    pub log_end: LogPosition,
    /// Position that the snapshot covers; `None`: the log tells everything.
    pub snapshot: Option<LogPosition>,
}

/// What a folder must hold.
pub(super) struct ExpectedFolder {
    pub(super) cluster_id: String,
    pub(super) segment_size: u64,
    pub(super) log_start: LogPosition,
    pub(super) log_end: LogPosition,
    pub(super) snapshot: Option<LogPosition>,
}

impl ExpectedFolder {
    /// What a manifest says of the folder that it lies in.
    pub(super) fn of(manifest: &Manifest) -> Self {
        Self {
            cluster_id: manifest.cluster_id.clone(),
            segment_size: manifest.segment_size,
            log_start: LogPosition(manifest.log_start),
            log_end: LogPosition(manifest.log_end),
            snapshot: manifest.snapshot.map(LogPosition),
        }
    }
}

/// Does what a start would do with a folder whose log ends at a known position, but changes nothing.
pub(super) fn check_folder(
    folder: &Path,
    expected: &ExpectedFolder,
    on_progress: OnProgress<'_>,
) -> Result<CheckedFolder, BackupError> {
    let identity = plan::identity(folder)?;
    let cluster_id = identity.cluster_id().map_err(|error| damaged(folder, error))?;
    let ExpectedFolder { segment_size, log_start, log_end, snapshot, .. } = *expected;
    if hexadecimal(&cluster_id) != expected.cluster_id || identity.segment_size != segment_size {
        return Err(damaged(folder, "its identity is that of another node"));
    }
    let expected = ExpectedShard { cluster_id, segment_size, log_start, log_end, snapshot };
    check_shard(&shard_of(folder), &expected, on_progress)
}

/// The same of the folder of a shard, whosever that is.
pub(crate) fn check_shard(
    shard: &ShardFolder,
    expected: &ExpectedShard,
    on_progress: OnProgress<'_>,
) -> Result<CheckedFolder, BackupError> {
    let folder = shard.path();
    let snapshots = Snapshots::of_folder(shard.snapshots());
    let loaded = expected.snapshot.map(|position| snapshots.load(position)).transpose();
    let (checkpoint, mut state) = match loaded.map_err(|error| damaged(folder, error))? {
        Some(LoadedState { checkpoint, state }) => (Some(checkpoint), state),
        None => (None, State::default()),
    };

    let log_folder = shard.log();
    let log = LogConfig { checkpoint, ..expected_log(shard, expected) };
    let mut progress = |SurveyProgress { done_bytes, total_bytes }: SurveyProgress| {
        on_progress(BackupProgress { step: BackupStep::Log, done_bytes, total_bytes });
    };
    let opened = CommitLog::open_read_only(&log, LogPosition(0), &mut progress);
    let opened = opened.map_err(|error| damaged(&log_folder, error))?;
    read_on(opened, (checkpoint, &mut state), expected).map_err(|why| damaged(&log_folder, why))
}

/// The log that lies in the folder of a shard, if that is as is expected.
fn expected_log(shard: &ShardFolder, expected: &ExpectedShard) -> LogConfig {
    let mut log = LogConfig::new(shard.log(), expected.cluster_id, SHARD.0);
    (log.segment_size, log.known_durable) = (expected.segment_size, expected.log_end);
    log
}

/// What is damaged in the log of a shard; nothing, too, where it cannot be looked through.
pub(crate) fn damage_in(shard: &ShardFolder, expected: &ExpectedShard) -> Vec<DamagedRange> {
    let log = expected_log(shard, expected);
    let opened = CommitLog::open_read_only(&log, LogPosition(0), &mut |_| ());
    opened.map(|opened| opened.verification.damage).unwrap_or_default()
}

/// The same of a log that is opened from its first segment on, and of the state with which a snapshot goes on that covers this entry.
/// Gives its last entry.
///
/// # Errors
/// Why a start would not go on with it.
pub fn check_log(
    opened: ReadOnlyLog,
    (checkpoint, mut state): (Option<Checkpoint>, State),
    expected: &ExpectedShard,
) -> Result<EntryId, String> {
    read_on(opened, (checkpoint, &mut state), expected).map(|checked| checked.last)
}

fn read_on(
    opened: ReadOnlyLog,
    (checkpoint, state): (Option<Checkpoint>, &mut State),
    expected: &ExpectedShard,
) -> Result<CheckedFolder, String> {
    check_extent(&opened.verification, expected)?;
    let reader = opened.reader;
    if let Some(checkpoint) = checkpoint
        && reader.checkpoint_at(checkpoint.position).ok() != Some(checkpoint)
    {
        return Err("the snapshot is not one of this log".to_owned());
    }
    let from = checkpoint.map_or(expected.log_start, |checkpoint| checkpoint.end);
    let named = |index, term| EntryId { index, term };
    let mut last = checkpoint.map_or_else(EntryId::default, |covered| named(covered.index, covered.term));
    for entry in reader.entries_from(from) {
        let entry = entry.map_err(|error| error.to_string())?;
        replay(state, &entry).map_err(|error| error.to_string())?;
        last = named(entry.index, entry.term);
    }
    check_feature_level(state, FEATURE_LEVEL).map_err(|error| error.to_string())?;
    let of_several = state.members().all().len() > 1;
    Ok(CheckedFolder { newest_record_ms: state.cluster().clock.0, of_several, next: NewLife::after(state), last })
}

/// The log is whole, and reaches exactly as far as it should.
fn check_extent(found: &Verification, expected: &ExpectedShard) -> Result<(), String> {
    if let Some(first) = found.damage.first() {
        return Err(first.to_string());
    }
    let end = expected.log_end;
    // Behind a full segment there may be one that holds only its header.
    let next = if end.0.is_multiple_of(expected.segment_size) { end.plus(SEGMENT_HEADER_LEN) } else { end };
    let (first, last) = (found.start, found.end);
    if first != expected.log_start || !(end..=next).contains(&last) || found.tail.is_some() {
        let start = expected.log_start;
        return Err(format!("the log covers positions {first} to {last} instead of {start} to {end}"));
    }
    Ok(())
}
