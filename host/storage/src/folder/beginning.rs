//! From a path to a folder that a node may write to: what is in it, who else uses it, what is made.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use vouch_broker::ShardId;

use vouch_files::{create_dir_all, sync_with_those_above};

use super::identity::{Holdings, IDENTITY_FILE, Identity, UNFINISHED_FILE};
use super::lock::{FolderLock, in_use};
use super::possible;
use super::private::OURS;
use super::private::tighten;
use crate::config::{DEFAULT_SEGMENT_SIZE, StorageConfig};
use crate::error::{StartError, failed};
use crate::layout::ShardFolder;
use crate::progress::StartProgress;

/// In a backup, and in one that was cut short.
const BACKUP_FILES: [&str; 2] = ["backup.json", "backup.unfinished"];
/// Made by the system in every new file system.
const LOST_AND_FOUND: &str = "lost+found";
/// In the name of the hidden folder that a restore fills.
const RESTORING: &str = "restoring-";

/// A data folder that is held as long as this lives.
pub struct Folders {
    lock: FolderLock,
    identity: Identity,
    /// This is its first start, which [`Self::begun`] ends.
    first: bool,
    data_dir: PathBuf,
}

/// Looks at a data folder, takes it, and makes what is missing in it. Nothing is made or changed before it is certain that
/// it is a node's, or may become one.
pub(crate) fn open(config: &StorageConfig, progress: &StartProgress) -> Result<Folders, StartError> {
    let dir = &config.data_dir;
    refuse_others(dir)?;
    make(dir)?;
    let mut lock = FolderLock::exclusive(dir, progress)?;
    // A restore may have ended just before.
    refuse_others(dir)?;
    tighten(dir);
    let (identity, first) = Identity::of_folder(config)?;
    config.check_disk_limit(identity.segment_size)?;
    let shard = config.folder();
    let log = shard.log();
    for folder in [&log, &shard.snapshots()] {
        create_dir_all(folder).map_err(failed("create", folder))?;
    }
    if first {
        // The names of these folders must be as durable as what is acknowledged in them.
        sync_with_those_above(shard.path()).map_err(failed("sync", shard.path()))?;
    } else {
        lock.hold_identity()?;
    }
    lock.hold_log(&log)?;
    refuse_shared_segments(&log)?;
    Ok(Folders { lock, identity, first, data_dir: dir.clone() })
}

/// Refuses what [`open`] would refuse of a data folder, and changes nothing. Who is at work in it is not asked: that ends.
pub(crate) fn look(config: &StorageConfig) -> Result<(), StartError> {
    let dir = &config.data_dir;
    refuse_others(dir)?;
    possible::look(dir)?;
    let segment_size = match Identity::look(config) {
        Ok(Some((identity, _))) => {
            identity.cluster_id()?;
            identity.segment_size
        }
        Ok(None) => config.segment_size.unwrap_or(DEFAULT_SEGMENT_SIZE),
        Err(error @ StartError::SegmentSize { .. }) => return Err(error),
        // A restore or a first start may be under way, and a start would wait for it or name it.
        Err(_) if in_use(dir).is_some() => return Ok(()),
        Err(error) => return Err(error),
    };
    config.check_disk_limit(segment_size)?;
    let log = config.folder().log();
    if log.is_dir() { refuse_shared_segments(&log) } else { Ok(()) }
}

impl Folders {
    /// Whose log lies in it.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The cluster that the folder's log belongs to.
    ///
    /// # Errors
    /// `identity.json` names none.
    pub fn cluster_id(&self) -> Result<[u8; 16], StartError> {
        self.identity.cluster_id()
    }

    /// Looks whether all that is held still lies where it lay.
    ///
    /// # Errors
    /// It does not, and another node may be at work by now: nothing may be written any more. The text says what happened,
    /// and what to do.
    pub fn look(&mut self) -> Result<(), String> {
        self.lock.look()
    }

    /// The log's first records are durable: from now on the folder has had a log. Nothing is done where it had one before.
    ///
    /// # Errors
    /// That cannot be noted in it.
    pub fn begun(&mut self) -> Result<(), StartError> {
        if std::mem::take(&mut self.first) {
            Identity::keep(&self.data_dir)?;
            self.lock.hold_identity()?;
        }
        Ok(())
    }
}

/// A segment that has another name as well lies in two logs, and no lock on folders keeps two nodes from writing to both:
/// what one of them acknowledges, the other overwrites.
fn refuse_shared_segments(log: &Path) -> Result<(), StartError> {
    for entry in fs::read_dir(log).map_err(failed("read", log))? {
        let path = entry.map_err(failed("read", log))?.path();
        let is_segment = path.extension().is_some_and(|extension| extension == "log");
        // One that is gone meanwhile was a spare.
        if is_segment && fs::symlink_metadata(&path).is_ok_and(|segment| segment.is_file() && segment.nlink() > 1) {
            return Err(StartError::SharedSegment(path));
        }
    }
    Ok(())
}

/// Makes the folder; those above it are others' business.
fn make(dir: &Path) -> Result<(), StartError> {
    if let Some(above) = dir.parent() {
        fs::create_dir_all(above).map_err(failed("create", above))?;
    }
    create_dir_all(dir).map_err(failed("create", dir))
}

/// Refuses a folder that is not a node's and holds what somebody else may want.
fn refuse_others(dir: &Path) -> Result<(), StartError> {
    let names = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        names => names.map_err(failed("list", dir))?,
    };
    let names: Result<Vec<String>, io::Error> =
        names.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned())).collect();
    let mut names = names.map_err(failed("list", dir))?;
    names.sort();
    let has = |name: &str| names.iter().any(|found| found == name);
    if BACKUP_FILES.into_iter().any(has) {
        return Err(StartError::IsBackup(dir.to_owned()));
    }
    if has(IDENTITY_FILE) || has(UNFINISHED_FILE) {
        return Ok(());
    }
    let Holdings { segments, others } = Holdings::of_folder(&ShardFolder::of(dir, ShardId::FIRST))?;
    if segments || others {
        // A log whose identity is missing: that is refused with other words.
        return Ok(());
    }
    if let Some(unfinished) = names.iter().find(|name| name.starts_with('.') && name.contains(RESTORING)) {
        return Err(StartError::UnfinishedRestore(dir.join(unfinished)));
    }
    let is_others =
        |name: &&String| !name.starts_with('.') && *name != LOST_AND_FOUND && !OURS.contains(&name.as_str());
    match names.iter().find(is_others) {
        Some(found) => Err(StartError::NotEmpty { path: dir.to_owned(), found: found.clone() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_start_takes_an_empty_folder_and_none_that_holds_what_is_somebody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        assert!(refuse_others(&dir.join("missing")).is_ok());
        // A volume of its own, a folder that git keeps, what an interrupted start left.
        for tolerated in ["lost+found", ".gitkeep", "lock", "endpoints.json"] {
            fs::write(dir.join(tolerated), "").unwrap();
        }
        fs::create_dir_all(ShardFolder::of(dir, ShardId::FIRST).log()).unwrap();
        refuse_others(dir).unwrap();
        fs::write(dir.join("thesis.odt"), "").unwrap();
        let refused = refuse_others(dir).unwrap_err();
        assert!(matches!(&refused, StartError::NotEmpty { found, .. } if found == "thesis.odt"), "{refused}");
        for ours in [IDENTITY_FILE, UNFINISHED_FILE] {
            fs::write(dir.join(ours), "").unwrap();
            refuse_others(dir).unwrap();
            fs::remove_file(dir.join(ours)).unwrap();
        }
        fs::remove_file(dir.join("thesis.odt")).unwrap();
        fs::create_dir(dir.join(".restoring-7")).unwrap();
        assert!(matches!(refuse_others(dir), Err(StartError::UnfinishedRestore(_))));
        for file in BACKUP_FILES {
            fs::write(dir.join(file), "").unwrap();
            assert!(matches!(refuse_others(dir), Err(StartError::IsBackup(_))));
            fs::remove_file(dir.join(file)).unwrap();
        }
    }
}
