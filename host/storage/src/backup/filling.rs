//! Folders that are filled all at once or not at all.
//!
//! A failure empties the folder again. A crash cannot: what it leaves is marked as unfinished ([`Manifest::announce`] in a
//! backup, the name of the hidden folder in a restore), and no start takes it for a node's.
//!
//! [`Manifest::announce`]: super::manifest::Manifest::announce

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::folder::{LOST_AND_FOUND, parent, restrict};
use super::{BackupError, failed};

/// Something in a folder, if it exists and holds anything.
pub(super) fn first_file(path: &Path) -> Result<Option<String>, BackupError> {
    let names = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        names => names.map_err(failed("list", path))?,
    };
    for name in names {
        let name = name.map_err(failed("list", path))?.file_name();
        if name != LOST_AND_FOUND {
            return Ok(Some(name.to_string_lossy().into_owned()));
        }
    }
    Ok(None)
}

/// Refuses a folder that holds anything.
pub(super) fn require_empty(path: &Path) -> Result<(), BackupError> {
    match first_file(path)? {
        Some(found) => Err(BackupError::NotEmpty { path: path.to_owned(), found }),
        None => Ok(()),
    }
}

/// A folder that is being filled; emptied again when dropped, unless it is kept.
pub(super) struct Filling {
    path: PathBuf,
    /// It was not there before.
    made: bool,
    kept: bool,
    /// Keeps another process from filling it, too: what that one cleared away would be missing here.
    _lock: File,
}

impl Filling {
    /// Makes a folder, or takes an empty one.
    pub(super) fn claim(path: &Path) -> Result<Self, BackupError> {
        require_empty(path)?;
        fs::create_dir_all(parent(path)).map_err(failed("create", parent(path)))?;
        match Self::make(path) {
            Err(BackupError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
                let lock = lock(path)?;
                // Another process may have filled it just before.
                require_empty(path)?;
                restrict(path);
                Ok(Self { path: path.to_owned(), made: false, kept: false, _lock: lock })
            }
            made => made,
        }
    }

    /// Makes a folder that must not be there.
    pub(super) fn make(path: &Path) -> Result<Self, BackupError> {
        // It holds messages and the key of the handles: for the operator's eyes only.
        DirBuilder::new().mode(0o700).create(path).map_err(failed("create", path))?;
        Ok(Self { path: path.to_owned(), made: true, kept: false, _lock: lock(path)? })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes everything in it.
    pub(super) fn empty(&self) -> io::Result<()> {
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                _ if entry.file_name() == LOST_AND_FOUND => {}
                true => fs::remove_dir_all(entry.path())?,
                false => fs::remove_file(entry.path())?,
            }
        }
        Ok(())
    }

    /// It stays.
    pub(super) fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        // The failure that led here is being told already; what cannot be removed is found not to be empty next time.
        let _ = self.empty();
        if self.made {
            let _ = fs::remove_dir(&self.path);
        }
    }
}

/// Whether nobody fills a folder any more. Where the file system locks no folders nobody can tell, and it is not.
pub(super) fn is_abandoned(path: &Path) -> bool {
    File::open(path).is_ok_and(|folder| flock(&folder, FlockOperation::NonBlockingLockExclusive).is_ok())
}

/// Keeps other processes from a folder.
pub(super) fn lock(path: &Path) -> Result<File, BackupError> {
    let folder = File::open(path).map_err(failed("open", path))?;
    match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let found = "what another process is writing just now".to_owned();
            Err(BackupError::NotEmpty { path: path.to_owned(), found })
        }
        // Some network file systems lock no folders; there it is up to who starts two at once.
        _ => Ok(folder),
    }
}
