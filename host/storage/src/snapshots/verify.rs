//! `vouch log verify`: the snapshots and parts of a folder, looked at without a change.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use vouch_broker::ShardId;
use vouch_commitlog::{CommitLog, LogConfig, LogPosition};

use super::Snapshots;
use super::bound::SnapshotBound;
use super::fault::CopyFault;
use super::store::Which;
use super::stored::StoredFile;
use crate::folder::{FolderIdentity, IDENTITY_FILE, SharedLock, in_use};
use crate::layout::ShardFolder;

/// What becomes of a damaged copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyFate {
    /// The other copy is whole: a start, or the scrubber of a running node, makes this one again from it.
    FromOtherCopy,
    /// The other copy is no better, but a start finds what it needs elsewhere: in an older snapshot, or in the log.
    FromLog,
    /// Nothing else says what was in it.
    Lost,
}

/// A copy of a snapshot, or of a part of one, that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedCopy {
    /// The file, which may be missing; the folder, where none of the snapshots is there that the log needs.
    pub file: PathBuf,
    /// What does not hold.
    pub reason: String,
    /// What becomes of it.
    pub fate: CopyFate,
}

/// What a look at the snapshots found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredCopies {
    /// Files that were read: copies of snapshots and parts.
    pub files: u64,
    /// Those that are not as they were written, by name.
    pub damage: Vec<DamagedCopy>,
    /// Second copies that are not there: an earlier version made none, or a crash came between. A start makes them.
    pub to_be_made: Vec<PathBuf>,
}

/// How often a copy that seems damaged is looked at again where a node runs, and how long is waited before: about 3 s in all.
/// A node mends what its start met while it serves already.
const AGAIN_AFTER_MS: [u64; 8] = [50, 100, 200, 400, 500, 500, 500, 500];

/// Reads both copies of every snapshot in a data folder and of every part that a snapshot names. Nothing is changed, and a
/// node may run on the folder: what it tidies away meanwhile is no damage, nor is what it makes again within seconds.
/// `log_start`: where the log begins; if that is not where every log began, that there is no snapshot at all is damage of their folder.
///
/// # Errors
/// The folder cannot be listed.
pub fn verify_snapshots(
    data_dir: &Path,
    log_start: LogPosition,
    on_bytes: &mut dyn FnMut(u64),
) -> std::io::Result<StoredCopies> {
    let mut pauses = AGAIN_AFTER_MS.into_iter().map(Duration::from_millis);
    verify(data_dir, log_start, on_bytes, &mut || {
        // In the folder of a stopped node nobody mends anything.
        let pause = pauses.next().filter(|_| in_use(data_dir).is_some());
        pause.map(thread::sleep).is_some()
    })
}

/// What the newest snapshot that can be read needs of the log; `None` if there is none. Ask after the log was looked at: what a
/// running node releases meanwhile a newer snapshot does not need.
///
/// # Errors
/// The folder cannot be listed, or there is too little of something to read a snapshot.
pub fn newest_bound(data_dir: &Path) -> std::io::Result<Option<SnapshotBound>> {
    let folder = shard_of(data_dir).snapshots();
    if !folder.is_dir() {
        return Ok(None);
    }
    let newest = Snapshots::of_folder(&folder).newest_below(LogPosition::BEYOND)?;
    Ok(newest.map(|loaded| SnapshotBound::of(&loaded)))
}

/// `again`: waits, and says whether to look again at what seems damaged.
fn verify(
    data_dir: &Path,
    log_start: LogPosition,
    on_bytes: &mut dyn FnMut(u64),
    again: &mut dyn FnMut() -> bool,
) -> std::io::Result<StoredCopies> {
    let folder = shard_of(data_dir).snapshots();
    let snapshots = Snapshots::of_folder(&folder);
    let all = if folder.is_dir() { snapshots.stored()? } else { Vec::new() };
    if all.is_empty() && log_start > LogPosition::START {
        let reason = format!("the log begins at position {log_start} and needs a snapshot, and none is there");
        let damage = vec![DamagedCopy { file: folder, reason, fate: CopyFate::Lost }];
        return Ok(StoredCopies { damage, ..StoredCopies::default() });
    }
    let (mut found, mut to_look_at) = (StoredCopies::default(), all);
    loop {
        let mut damaged = Vec::new();
        for stored in to_look_at {
            let looked = look(&snapshots, stored, data_dir, log_start, on_bytes)?;
            match looked.damage.is_empty() {
                true => found.add(looked),
                false => damaged.push((stored, looked)),
            }
        }
        if damaged.is_empty() || !again() {
            damaged.into_iter().for_each(|(_, looked)| found.add(looked));
            found.damage.sort_by(|a, b| a.file.cmp(&b.file));
            return Ok(found);
        }
        to_look_at = damaged.into_iter().map(|(stored, _)| stored).collect();
    }
}

/// Both copies of one file.
fn look(
    snapshots: &Snapshots,
    stored: StoredFile,
    data_dir: &Path,
    log_start: LogPosition,
    on_bytes: &mut dyn FnMut(u64),
) -> std::io::Result<StoredCopies> {
    let mut pace = |bytes| {
        on_bytes(bytes);
        true
    };
    let faults = snapshots.faults(stored, &mut pace)?;
    // What was removed while it was read was not needed any more.
    if faults.iter().all(|(_, fault)| fault.is_none()) || !snapshots.stored()?.contains(&stored) {
        return Ok(StoredCopies { files: 2, ..StoredCopies::default() });
    }
    let files = faults.iter().filter(|(_, fault)| !fault.as_ref().is_some_and(CopyFault::is_missing)).count() as u64;
    let mut found = StoredCopies { files, ..StoredCopies::default() };
    let fate = match &faults {
        [(_, Some(_)), (_, Some(_))]
            if snapshots.start_needs_none(stored, log_start) || is_rebuilt_by_a_start(snapshots, stored, data_dir) =>
        {
            CopyFate::FromLog
        }
        [(_, Some(_)), (_, Some(_))] => CopyFate::Lost,
        _ => CopyFate::FromOtherCopy,
    };
    for (which, (file, fault)) in Which::BOTH.into_iter().zip(faults) {
        let Some(fault) = fault else { continue };
        if fault.is_missing() && which == Which::Second && fate == CopyFate::FromOtherCopy {
            found.to_be_made.push(file);
        } else {
            found.damage.push(DamagedCopy { file, reason: fault.to_string(), fate });
        }
    }
    Ok(found)
}

/// Where the only shard of a data folder lies.
fn shard_of(data_dir: &Path) -> ShardFolder {
    ShardFolder::of(data_dir, ShardId::FIRST)
}

impl StoredCopies {
    fn add(&mut self, other: Self) {
        self.files += other.files;
        self.damage.extend(other.damage);
        self.to_be_made.extend(other.to_be_made);
    }
}

/// Whether a start makes a part again from the log. Not known while a node runs, which may release what is read here.
fn is_rebuilt_by_a_start(snapshots: &Snapshots, stored: StoredFile, data_dir: &Path) -> bool {
    let Ok(Some(_lock)) = SharedLock::of_folder(data_dir) else { return false };
    let Ok(Some(identity)) = FolderIdentity::read(&data_dir.join(IDENTITY_FILE)) else { return false };
    let Ok(cluster_id) = identity.cluster_id() else { return false };
    let mut log = LogConfig::new(shard_of(data_dir).log(), cluster_id, ShardId::FIRST.0);
    log.segment_size = identity.segment_size;
    let opened = CommitLog::open_read_only(&log, LogPosition(0), &mut |_| ());
    opened.is_ok_and(|opened| snapshots.can_be_rebuilt(stored, &opened.reader))
}

impl Snapshots {
    /// Whether a start finds its state without this file, of which no copy is whole.
    fn start_needs_none(&self, stored: StoredFile, log_start: LogPosition) -> bool {
        let all = self.stored().unwrap_or_default();
        let mut snapshots = all.into_iter().filter_map(|other| match other {
            StoredFile::Snapshot(position) if other != stored => Some(position),
            _ => None,
        });
        log_start == LogPosition::START || snapshots.any(|position| self.load(position).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use vouch_broker::{RecordPosition, State};
    use vouch_commitlog::Checkpoint;

    use super::*;

    #[test]
    fn a_log_without_its_beginning_is_not_sound_without_a_snapshot() {
        let data = tempfile::tempdir().unwrap();
        let folder = shard_of(data.path()).snapshots();
        let verify = |log_start| verify_snapshots(data.path(), log_start, &mut |_| ()).unwrap();
        for there in [false, true] {
            if there {
                std::fs::create_dir_all(&folder).unwrap();
                // No snapshot names it, so no start reads it.
                std::fs::write(folder.join("00000000000000000007.part"), b"part").unwrap();
            }
            assert_eq!(verify(LogPosition(0)), StoredCopies::default(), "{there}");
            let found = verify(LogPosition(4096));
            let [DamagedCopy { file, reason, fate: CopyFate::Lost }] = found.damage.as_slice() else {
                panic!("{there}: {found:?}")
            };
            assert_eq!(*file, folder, "{there}");
            assert!(reason.contains("begins at position 4096"), "{reason}");
        }
    }

    #[test]
    fn what_seems_damaged_is_looked_at_again_and_what_is_whole_is_not() {
        let data = tempfile::tempdir().unwrap();
        let folder = shard_of(data.path()).snapshots();
        std::fs::create_dir_all(&folder).unwrap();
        let whole = |position| {
            let end = LogPosition(position);
            let head = Checkpoint { position: LogPosition(0), end, term: 1, index: 1, checksum: 0 };
            [&head.encode()[..], &State::default().snapshot(RecordPosition(position))].concat()
        };
        let put = |position: u64, bytes: &[u8]| {
            for extension in ["snapshot", "snapshot2"] {
                std::fs::write(folder.join(format!("{position:020}.{extension}")), bytes).unwrap();
            }
        };
        put(7, &whole(7));
        let torn = folder.join("00000000000000000009.snapshot");
        let verify = |again: &mut dyn FnMut() -> bool| {
            put(9, &whole(9));
            std::fs::write(&torn, &whole(9)[..60]).unwrap();
            let mut read = 0;
            let found = verify(data.path(), LogPosition(0), &mut |bytes| read += bytes, again).unwrap();
            (found, read as usize)
        };
        let (found, once) = verify(&mut || false);
        let [DamagedCopy { file, fate: CopyFate::FromOtherCopy, .. }] = found.damage.as_slice() else {
            panic!("{found:?}")
        };
        assert_eq!((file, found.files), (&torn, 4));

        let mut looks = 0;
        let (found, read) = verify(&mut || {
            looks += 1;
            if looks == 2 {
                put(9, &whole(9));
            }
            true
        });
        assert_eq!((looks, found), (2, StoredCopies { files: 4, ..StoredCopies::default() }));
        assert!(read < once + 4 * whole(9).len(), "{read} bytes, {once} in one look");

        let mut looks = 0;
        let (found, _) = verify(&mut || {
            looks += 1;
            looks < 3
        });
        assert_eq!((looks, found.damage.len(), found.files), (3, 1, 4), "in the end it is damage");
    }
}
