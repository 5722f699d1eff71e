//! What belongs into a backup at this moment.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use vouch_broker::State;
use vouch_commitlog::{Checkpoint, LogFolder, LogPosition, SEGMENT_HEADER_LEN, Verification};

use super::components::{components, list};
use super::copy::Extent;
use super::decided::decides_alone;
use super::planned::{FileKind, Planned};
use super::{BackupError, SHARD, failed, shard_of};
use crate::error::StartError;
use crate::folder::{FolderIdentity, IDENTITY_FILE, SharedLock};
use crate::known::Known;
use crate::replica::{LogName, ReplicaFile};
use crate::snapshots::{SnapshotBound, Snapshots};

/// Why a backup does not go on.
pub(crate) enum BackupTrouble {
    /// The node tidied something away meanwhile: it can be tried again.
    Changed(String),
    /// It makes no sense to try again.
    Failed(BackupError),
}

impl From<BackupError> for BackupTrouble {
    fn from(error: BackupError) -> Self {
        Self::Failed(error)
    }
}

/// What is to be copied, in the order in which it is copied. It holds at the moment of the look: what goes meanwhile is
/// noticed by whoever copies.
pub(crate) struct Plan {
    pub(crate) cluster_id: [u8; 16],
    pub(crate) segment_size: u64,
    pub(crate) log_start: LogPosition,
    pub(crate) log_end: LogPosition,
    /// Position that the snapshot covers.
    pub(crate) snapshot: Option<LogPosition>,
    pub(crate) node_runs: bool,
    pub(crate) files: Vec<Planned>,
}

/// The identity of a data folder, or that it is none.
pub(crate) fn identity(data_dir: &Path) -> Result<FolderIdentity, BackupError> {
    let not_a_node = |why: String| BackupError::NotANode { path: data_dir.to_owned(), why };
    match FolderIdentity::read(&data_dir.join(IDENTITY_FILE)) {
        Ok(Some(identity)) => Ok(identity),
        Ok(None) => Err(not_a_node(format!("it holds no {IDENTITY_FILE}"))),
        Err(StartError::Io { action, path, source }) => Err(BackupError::Io { action, path, source }),
        Err(error) => Err(not_a_node(error.to_string())),
    }
}

/// Looks at a data folder.
pub(crate) fn plan(data_dir: &Path) -> Result<Plan, BackupTrouble> {
    let identity = identity(data_dir)?;
    let cluster_id = identity
        .cluster_id()
        .map_err(|error| BackupError::NotANode { path: data_dir.to_owned(), why: error.to_string() })?;
    let log_folder = shard_of(data_dir).log();
    if !log_folder.is_dir() {
        let why = format!("it holds no log in {}", named(&shard_of(Path::new("")).log()));
        return Err(BackupError::NotANode { path: data_dir.to_owned(), why }.into());
    }
    let mut files = vec![file(data_dir.join(IDENTITY_FILE), IDENTITY_FILE.to_owned(), FileKind::Fixed)?];

    // Before the log: segments go only below a snapshot, so a log that is listed later can only lack what an even newer
    // one covers, and that is noticed.
    let snapshot_folder = shard_of(data_dir).snapshots();
    let snapshots = Snapshots::of_folder(&snapshot_folder);
    let newest = match snapshots.newest_below(LogPosition::BEYOND) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        newest => newest.map_err(failed("list", &snapshot_folder))?,
    };
    // One copy of each, one that is whole: the node that is restored makes the other.
    for (name, from) in newest.iter().flat_map(|loaded| snapshots.files(loaded)) {
        files.push(file(from, named(&shard_of(Path::new("")).snapshots().join(name)), FileKind::Snapshot)?);
    }
    // Where the log must begin for it: with its last entry, or earlier, with the oldest record that its state refers to.
    let needed = newest.as_ref().map_or(LogPosition::START, |loaded| SnapshotBound::of(loaded).log_from());
    let (state, checkpoint) = newest.map_or_else(Default::default, |loaded| (loaded.state, Some(loaded.checkpoint)));

    let log = LogFolder::open(&log_folder).map_err(BackupError::Log)?;
    if log.identity().cluster_id != cluster_id {
        let why = format!("its log is not of the cluster that {IDENTITY_FILE} names");
        return Err(BackupError::NotANode { path: data_dir.to_owned(), why }.into());
    }
    let (log_end, node_runs) = log_end(data_dir, &identity, log, (state, checkpoint))?;
    let size = identity.segment_size;
    let segments = segments(&log_folder, log_end)?;
    let log_start = segments.first().copied().unwrap_or(LogPosition::START);
    if log_start > needed {
        let why = match checkpoint {
            Some(_) => format!("the log begins at position {log_start}, and the snapshot needs it from {needed} on"),
            None => {
                let why = snapshots.newest_failure().map(|why| format!(": {why}")).unwrap_or_default();
                format!("the log begins at position {log_start}, and no snapshot can be read{why}")
            }
        };
        // Where no node runs nobody has just released them.
        return Err(if node_runs { BackupTrouble::Changed(why) } else { BackupError::SourceDamaged(why).into() });
    }
    for start in segments {
        let path = named(&shard_of(Path::new("")).segment(start));
        let from = data_dir.join(&path);
        let extent = extent_of_segment(start, log_end, size);
        files.push(Planned { kind: FileKind::Segment, path, from, extent });
    }
    files.extend(components(data_dir)?);
    let snapshot = checkpoint.map(|checkpoint| checkpoint.end);
    Ok(Plan { cluster_id, segment_size: size, log_start, log_end, snapshot, node_runs, files })
}

/// How much counts of a segment of a log that is copied up to its end. One that is full leads to one that may be empty: its header
/// belongs to the log.
pub(crate) fn extent_of_segment(start: LogPosition, log_end: LogPosition, size: u64) -> Extent {
    Extent { data: size.min(log_end.since(start).max(SEGMENT_HEADER_LEN)), length: size }
}

/// Everything before this position belongs into the backup, and whether a node runs on the folder.
///
/// What a node has written and not noted as durable may never have been acknowledged, and a power cut may still take it
/// back: it is left out. Where no node runs nobody can add to the log, and a start would serve everything that is whole,
/// which includes what was acknowledged in the last moments before a crash. Where others decide, too, it ends with what the
/// node knew to be committed: the rest may be cut off yet.
fn log_end(
    data_dir: &Path,
    identity: &FolderIdentity,
    log: LogFolder,
    (state, snapshot): (State, Option<Checkpoint>),
) -> Result<(LogPosition, bool), BackupTrouble> {
    // Held only until the end of the log is found.
    let lock = SharedLock::of_folder(data_dir).map_err(failed("lock", data_dir))?;
    let runs = lock.is_none();
    // What lies before the snapshot's end is durable, and no older mark is higher.
    let nothing = (LogPosition(0), LogPosition(0));
    let (from, covered) = snapshot.map_or(nothing, |checkpoint| (checkpoint.position, checkpoint.end));
    let name = LogName { cluster_id: log.identity().cluster_id, shard: SHARD };
    let note = ReplicaFile::look(&shard_of(data_dir), name).map_err(BackupError::from)?;
    let known = Known::of_note(note.as_ref()).and_durable(covered);
    let known = if runs { known.while_it_is_written() } else { known };
    let Verification { end, durable, damage, .. } =
        known.look_at(log).verify_from(from, known.durable, &mut |_| ()).map_err(BackupError::Log)?;
    if let Some(first) = damage.first() {
        return Err(BackupError::SourceDamaged(first.to_string()).into());
    }
    let others_decide = runs || !decides_alone(data_dir, identity, note.as_ref(), &known, (state, snapshot))?;
    let position = if runs { durable } else { end }.min(known.copied_to(others_decide));
    if position.0 <= SEGMENT_HEADER_LEN {
        return Err(BackupError::NothingDurable.into());
    }
    Ok((position, runs))
}

/// Starts of the segments with anything before `end`, in order, and of the one that begins there.
fn segments(folder: &Path, end: LogPosition) -> Result<Vec<LogPosition>, BackupError> {
    let mut starts = Vec::new();
    for path in list(folder)? {
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".log"));
        let start = name.filter(|digits| digits.len() == 20).and_then(|digits| digits.parse::<u64>().ok());
        starts.extend(start.map(LogPosition).filter(|start| *start <= end));
    }
    starts.sort_unstable();
    Ok(starts)
}

/// The name of a file in a manifest.
fn named(path: &Path) -> String {
    path.to_str().expect("these files are named in plain letters").to_owned()
}

/// A whole file, as long as it is now. One that has gone since it was listed lets the look begin again.
fn file(from: PathBuf, path: String, kind: FileKind) -> Result<Planned, BackupTrouble> {
    match fs::metadata(&from) {
        Ok(metadata) => Ok(Planned { kind, path, extent: Extent::whole(metadata.len()), from }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(BackupTrouble::Changed(format!("{} was removed", from.display())))
        }
        Err(error) => Err(failed("look at", &from)(error).into()),
    }
}
