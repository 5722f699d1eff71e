//! Locking what a path names, and not what it named a moment before.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

/// What came of an attempt to lock a file or a folder.
pub(super) enum Attempt {
    Held(File),
    /// Somebody holds it; this is the file.
    Busy(File),
    /// The file system cannot lock it.
    Unlockable(File),
}

/// Locks whatever has this path, without waiting. `open` opens it.
pub(super) fn attempt(path: &Path, how: FlockOperation, open: impl Fn() -> io::Result<File>) -> io::Result<Attempt> {
    loop {
        let file = open()?;
        let attempt = match flock(&file, how) {
            Ok(()) => Attempt::Held(file),
            Err(Errno::WOULDBLOCK) => return Ok(Attempt::Busy(file)),
            Err(Errno::BADF | Errno::INVAL | Errno::NOLCK | Errno::NOSYS | Errno::OPNOTSUPP) => {
                Attempt::Unlockable(file)
            }
            Err(errno) => return Err(errno.into()),
        };
        let (Attempt::Held(file) | Attempt::Unlockable(file)) = &attempt else { return Ok(attempt) };
        // Between opening and locking it may have got another in its place, which somebody else holds.
        if is_at(file, path)? {
            return Ok(attempt);
        }
    }
}

/// Whether a path names what is open.
pub(super) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    match fs::metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (open.dev(), open.ino())),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NOTDIR | Errno::STALE | Errno::LOOP) => Ok(false),
            _ => Err(error),
        },
    }
}
