//! The data folder as a whole: whose it is, who may use it, who may read it.

mod beginning;
mod identity;
mod lock;
mod private;
mod process;
mod watch;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

pub(crate) use beginning::{Folders, look, open};
pub(crate) use identity::{IDENTITY_FILE, Identity};
pub use lock::in_use;
pub(crate) use lock::{FolderLock, LOCK_FILE, SharedLock, note_restore};
pub(crate) use private::{create, create_dir_all, restrict, tighten, write};
pub(crate) use watch::run as watch;

/// Syncs a folder: the names in it survive a power cut.
pub(crate) fn sync(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Syncs a folder and those above it, any of which may be new.
pub(crate) fn sync_with_those_above(path: &Path) -> io::Result<()> {
    let path = path.canonicalize()?;
    sync(&path)?;
    for above in path.ancestors().skip(1) {
        // One that we may not open is none that we made.
        if sync(above).is_err() {
            break;
        }
    }
    Ok(())
}

/// Writes a file that appears whole under its name, and survives a power cut when this returns.
pub(crate) fn write_durably(path: &Path, unfinished: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = create(unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(unfinished, path)?;
    sync(path.parent().unwrap_or(Path::new("/")))
}
