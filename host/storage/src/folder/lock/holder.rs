//! Who holds a folder that cannot be had, as far as the system and the file `lock` say.

use std::fmt;
use std::fs::File;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::super::process::Process;
use super::note::{FolderPurpose, Note};

/// Who holds a folder, as far as that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    /// Others could share it: whoever holds it does not write.
    shared: bool,
    note: Option<Note>,
    /// One of them, as the system says.
    process: Option<Process>,
}

impl Holder {
    /// `refused`: the file whose lock could not be had. `noted`: the folder in which it may be noted.
    pub(super) fn of(noted: Option<&Path>, refused: &File) -> Self {
        // Before this one shares it.
        let holders = Process::all_that_lock(refused);
        let shared = flock(refused, FlockOperation::NonBlockingLockShared).is_ok();
        // What it says of others than those who hold the lock now is of an earlier time.
        let current = |note: &Note| shared == (note.purpose == FolderPurpose::Backup);
        // Who noted it in a container knows himself by another number.
        let here = |note: Note| match holders.first() {
            Some(first) if holders.iter().all(|holder| holder.pid != note.pid) => Note { pid: first.pid, ..note },
            _ => note,
        };
        let note = noted.and_then(Note::read).filter(current).map(here);
        Self { shared, note, process: holders.into_iter().next() }
    }

    /// It ends by itself.
    pub(super) fn is_tool(&self) -> bool {
        self.shared || self.note.is_some_and(|note| note.purpose != FolderPurpose::Serve)
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.note, &self.process) {
            (Some(Note { pid, purpose: FolderPurpose::Serve }), _) => write!(f, "process {pid} (vouch serve)"),
            (Some(Note { pid, purpose: FolderPurpose::Backup }), _) => write!(f, "process {pid} (vouch backup)"),
            (Some(Note { pid, purpose: FolderPurpose::Restore }), _) => write!(f, "process {pid} (vouch restore)"),
            (None, Some(process)) => process.fmt(f),
            (None, None) if self.shared => f.write_str("a process that reads it"),
            (None, None) => f.write_str("another process"),
        }
    }
}
