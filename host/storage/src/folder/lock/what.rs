//! Which files and folders are locked, and how each is opened for it.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// What is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LockTarget {
    /// The data folder or that of the log.
    Folder,
    /// The file `lock`.
    Note,
    /// The file `identity.json`.
    Identity,
}

impl LockTarget {
    /// Opens it for a lock. Only the note is made where it is missing: what else is missing was never there, or was
    /// taken away.
    pub(super) fn open(self, path: &Path) -> io::Result<File> {
        match self {
            Self::Folder => File::open(path),
            Self::Note => File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path),
            // For writing, which some network file systems want for a lock.
            Self::Identity => File::options().read(true).write(true).open(path),
        }
    }
}
