//! What is done to whole folders: made the owner's alone, and made to survive a power cut.

use std::fs::{self, File};
use std::path::Path;

use super::{BackupError, failed};

/// Made by the system in every new file system.
pub(super) const LOST_AND_FOUND: &str = "lost+found";

/// Takes from others what they may do in a folder that somebody else made for it. One that cannot be changed is used all the
/// same: the files in it are the owner's alone.
pub(super) fn restrict(path: &Path) {
    if let Err(error) = crate::folder::restrict(path) {
        tracing::warn!(%error, path = %path.display(), "others may be able to list what is in this folder");
    }
}

/// Syncs a folder and all folders in it: the names of the files survive a power cut. The files are synced already.
pub(super) fn sync_folders(path: &Path) -> Result<(), BackupError> {
    for entry in fs::read_dir(path).map_err(failed("list", path))? {
        let entry = entry.map_err(failed("list", path))?;
        if entry.file_type().map_err(failed("look at", path))?.is_dir() && entry.file_name() != LOST_AND_FOUND {
            sync_folders(&entry.path())?;
        }
    }
    sync(path)
}

/// Syncs one folder.
pub(super) fn sync(path: &Path) -> Result<(), BackupError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(failed("sync", path))
}

/// Syncs the folders above, any of which may be new.
pub(super) fn sync_above(path: &Path) -> Result<(), BackupError> {
    let path = path.canonicalize().map_err(failed("find", path))?;
    for above in path.ancestors().skip(1) {
        // One that we may not open is none that we made.
        if File::open(above).and_then(|folder| folder.sync_all()).is_err() {
            break;
        }
    }
    Ok(())
}

/// The parent of a folder, `.` for a bare name.
pub(super) fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}
