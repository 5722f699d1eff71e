//! Putting a backup back.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use vouch_consensus::{ClusterIncarnation, NodeId};

use super::check::{ExpectedFolder, check_folder};
use super::compare::open_exact;
use super::copy::copy;
use super::filling::{Filling, is_abandoned, lock, require_empty};
use super::folder::{parent, restrict, sync, sync_above, sync_folders};
use super::manifest::Manifest;
use super::plan;
use super::{Backup, BackupError, BackupProgress, BackupStep, OnProgress, damaged, failed};
use crate::folder::{IDENTITY_FILE, LOCK_FILE, NewLife, note_restore};

/// A backup that was restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restored {
    /// What it holds.
    pub backup: Backup,
    /// The node whose folder was made: the only one of its cluster.
    pub node: NodeId,
    /// The life of the cluster that begins with it.
    pub incarnation: ClusterIncarnation,
}

/// Restores a backup into a data folder, which must be empty or not exist. Everything is verified, in the copy, before
/// anything appears under that name.
///
/// The folder is that of a new node, with which another life of the cluster begins (ruling 31): whatever still runs of the one before
/// is a stranger to it, and ids and handles that it gave out after the backup mean nothing here.
///
/// # Errors
/// See [`BackupError`]. Nothing is left behind.
pub fn restore(backup: &Path, data_dir: &Path, on_progress: OnProgress<'_>) -> Result<Restored, BackupError> {
    require_empty(data_dir)?;
    // A name like `.` says neither what it is called nor what is above it.
    let data_dir = &data_dir.canonicalize().unwrap_or_else(|_| data_dir.to_owned());
    // Keeps a node from beginning there meanwhile.
    let _held = if data_dir.is_dir() { Some(lock(data_dir)?) } else { None };
    require_empty(data_dir)?;
    let manifest = Manifest::read(backup)?;
    // Cheap to tell before gigabytes are copied.
    for file in &manifest.files {
        open_exact(&backup.join(&file.path), file.extent())?;
    }
    let stage = Stage::beside(data_dir)?;
    let folder = stage.filling.path();
    copy_files(backup, folder, &manifest, on_progress)?;
    let checked = check_folder(folder, &ExpectedFolder::of(&manifest), on_progress)?;
    let NewLife { incarnation, node } = checked.next;
    let anew = plan::identity(folder)?.begin_anew(folder, checked.next);
    anew.map_err(failed("write", &folder.join(IDENTITY_FILE)))?;
    // The folder is held until it has its name: a start that comes earlier says for whom it waits.
    note_restore(folder).map_err(failed("write", &folder.join(LOCK_FILE)))?;
    sync_folders(folder)?;
    stage.publish(data_dir)?;
    restrict(data_dir);
    Ok(Restored { backup: manifest.summary(checked.of_several), node, incarnation })
}

/// Copies everything, and compares each file with its digest on the way. The manifest itself is not copied: the folder
/// becomes a node's.
fn copy_files(
    backup: &Path,
    folder: &Path,
    manifest: &Manifest,
    on_progress: OnProgress<'_>,
) -> Result<(), BackupError> {
    let total_bytes = manifest.data_bytes();
    let mut done_bytes = 0;
    for file in &manifest.files {
        let from = backup.join(&file.path);
        let copied = copy(&from, &folder.join(&file.path), file.extent(), &mut |bytes| {
            done_bytes += bytes;
            on_progress(BackupProgress { step: BackupStep::Files, done_bytes, total_bytes });
        })?;
        if copied.sha256 != file.sha256 {
            return Err(damaged(&from, "its bytes do not match their digest"));
        }
    }
    Ok(())
}

/// The name of a folder in which a restore is under way begins so, and ends with the number of the process.
const UNFINISHED: &str = "restoring-";

/// Removes what restores into the same folder left that were killed: a part of a backup, which may be as large as one, and
/// of which nobody else knows. One that is under way holds its folder, and keeps it.
fn remove_abandoned(above: &Path, prefix: &str) -> Result<(), BackupError> {
    for entry in fs::read_dir(above).map_err(failed("list", above))? {
        let entry = entry.map_err(failed("list", above))?;
        let (name, path) = (entry.file_name(), entry.path());
        let process = name.to_str().and_then(|name| name.strip_prefix(prefix));
        let is_unfinished =
            process.is_some_and(|process| !process.is_empty() && process.bytes().all(|byte| byte.is_ascii_digit()));
        // Not through a link, and not what belongs to somebody whom we cannot ask.
        if is_unfinished && entry.file_type().is_ok_and(|kind| kind.is_dir()) && is_abandoned(&path) {
            tracing::info!(folder = %path.display(), "removing what a restore left that was cut short");
            fs::remove_dir_all(&path).map_err(failed("remove", &path))?;
        }
    }
    Ok(())
}

/// Where a data folder is made before it gets its name.
struct Stage {
    filling: Filling,
    /// It is inside the data folder, because nothing can be made beside that or renamed to it.
    inside: bool,
}

impl Stage {
    /// A hidden folder beside the data folder, so that it gets its name by one step; inside it where nothing can be
    /// made beside, or renamed to it.
    fn beside(data_dir: &Path) -> Result<Self, BackupError> {
        let above = parent(data_dir);
        fs::create_dir_all(above).map_err(failed("create", above))?;
        let unfinished = format!("{UNFINISHED}{}", std::process::id());
        if is_mounted(data_dir, above)? {
            let filling = Filling::make(&data_dir.join(format!(".{unfinished}")))?;
            return Ok(Self { filling, inside: true });
        }
        let name = data_dir.file_name().unwrap_or_default().to_string_lossy();
        remove_abandoned(above, &format!(".{name}.{UNFINISHED}"))?;
        match Filling::make(&above.join(format!(".{name}.{unfinished}"))) {
            Ok(filling) => Ok(Self { filling, inside: false }),
            // The folder is ours and the one above it is not: a service's folder under /var/lib.
            Err(BackupError::Io { source, .. })
                if source.kind() == io::ErrorKind::PermissionDenied && data_dir.is_dir() =>
            {
                let filling = Filling::make(&data_dir.join(format!(".{unfinished}")))?;
                Ok(Self { filling, inside: true })
            }
            Err(error) => Err(error),
        }
    }

    /// Gives it its name.
    fn publish(self, data_dir: &Path) -> Result<(), BackupError> {
        let folder = self.filling.path();
        if !self.inside {
            // The system refuses to put it in the place of a folder that is not empty any more.
            fs::rename(folder, data_dir).map_err(failed("make", data_dir))?;
            self.filling.keep();
            return sync_above(data_dir);
        }
        let mut names: Vec<PathBuf> = Vec::new();
        for entry in fs::read_dir(folder).map_err(failed("list", folder))? {
            names.push(entry.map_err(failed("list", folder))?.file_name().into());
        }
        // The identity last: a log without one is refused by every start, so half of this is never taken for all of it.
        names.sort_by_key(|name| name == Path::new(IDENTITY_FILE));
        for name in names {
            if name == Path::new(IDENTITY_FILE) {
                sync(data_dir)?;
            }
            fs::rename(folder.join(&name), data_dir.join(&name)).map_err(failed("make", data_dir))?;
        }
        sync(data_dir)
    }
}

/// Whether a folder is where another file system begins: it cannot be replaced, and what is made beside it lies on
/// another disk.
fn is_mounted(folder: &Path, above: &Path) -> Result<bool, BackupError> {
    let inside = match fs::metadata(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        inside => inside.map_err(failed("look at", folder))?,
    };
    Ok(inside.dev() != fs::metadata(above).map_err(failed("look at", above))?.dev())
}
