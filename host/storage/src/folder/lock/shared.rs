//! What tools hold of a folder, and how they see that a node runs on it.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::FlockOperation;

use super::attempt::{Attempt, attempt};
use super::holder::Holder;
use super::note::{FolderPurpose, LOCK_FILE, Note};
use crate::error::StartError;

/// Keeps nodes from starting while it is held. They wait for that.
pub(crate) struct SharedLock {
    _held: Vec<File>,
}

impl SharedLock {
    /// Shares a folder with other tools; `None` if a node runs on it, or nobody can tell.
    pub(crate) fn of_folder(dir: &Path) -> io::Result<Option<Self>> {
        let how = FlockOperation::NonBlockingLockShared;
        let mut held = Vec::new();
        let attempted = attempt(dir, how, || File::open(dir))?;
        match attempted {
            Attempt::Held(file) => held.push(file),
            Attempt::Busy(_) => return Ok(None),
            Attempt::Unlockable(_) => {}
        }
        let path = dir.join(LOCK_FILE);
        match attempt(&path, how, || File::open(&path)) {
            Ok(Attempt::Held(file)) => held.push(file),
            Ok(Attempt::Busy(_)) => return Ok(None),
            Ok(Attempt::Unlockable(_)) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // Only where the file is there: one that the tool's user owned would keep the node from it. Who may not write it
        // stays unnamed.
        if let Ok(file) = File::options().write(true).open(&path) {
            let _ = Note::write(&file, FolderPurpose::Backup);
        }
        Ok(if held.is_empty() { None } else { Some(Self { _held: held }) })
    }
}

/// Who runs on a data folder, as the error that a start there would end with; `None` if nobody does, or that cannot be
/// seen. Nothing is changed.
pub fn in_use(dir: &Path) -> Option<StartError> {
    match attempt(dir, FlockOperation::NonBlockingLockShared, || File::open(dir)) {
        Ok(Attempt::Busy(file)) => {
            Some(StartError::Locked { path: dir.to_owned(), holder: Holder::of(Some(dir), &file).to_string() })
        }
        _ => None,
    }
}
