//! The file `lock`: who holds a folder, for people. It is locked as well, but what it says is a help and no proof.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::what::LockTarget;

/// Says who holds the folder.
pub(crate) const LOCK_FILE: &str = "lock";
/// A longer note is none.
const NOTE_MAX_BYTES: u64 = 1024;

/// What a process does with a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FolderPurpose {
    /// A node runs on it.
    Serve,
    /// It is being looked at, and must stay as it is meanwhile.
    Backup,
    /// It is being made.
    Restore,
}

/// What the file `lock` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    pub(super) pid: u32,
    pub(super) purpose: FolderPurpose,
}

impl Note {
    /// What it says; `None` where it says nothing that can be read, as under an earlier version.
    pub(super) fn read(dir: &Path) -> Option<Self> {
        let mut text = Vec::new();
        File::open(dir.join(LOCK_FILE)).ok()?.take(NOTE_MAX_BYTES).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Says that this process holds the folder, and what for. Not synced: after a power cut nobody holds it.
    pub(super) fn write(file: &File, purpose: FolderPurpose) -> io::Result<()> {
        let text = serde_json::to_vec(&Self { pid: std::process::id(), purpose })?;
        // Where one lies already this needs no block of a full disk.
        let written = file.write_all_at(&text, 0).and_then(|()| file.set_len(text.len() as u64));
        written.inspect_err(|_| {
            // Rather nobody's name than another's.
            let _ = file.set_len(0);
        })
    }

    /// Says that a node runs on the folder. The lock holds without it, so a full disk keeps nobody from starting.
    pub(super) fn of_node(file: &File, path: &Path) {
        if let Err(error) = Self::write(file, FolderPurpose::Serve) {
            tracing::warn!(%error, path = %path.display(), "it does not say who holds the data folder, which is held all the same");
        }
    }
}

/// Writes into a folder that is being restored who holds it.
pub(crate) fn note_restore(dir: &Path) -> io::Result<()> {
    let file = LockTarget::Note.open(&dir.join(LOCK_FILE))?;
    Note::write(&file, FolderPurpose::Restore)?;
    file.sync_all()
}
