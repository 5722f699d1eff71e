//! A file on its way into the folder beside the shard.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::PullError;
use super::error::failed;

/// A file that grows by what comes of it.
pub(super) struct StagedFile {
    file: File,
    path: PathBuf,
}

impl StagedFile {
    /// Goes on with what is there of it, or begins it.
    pub(super) fn open(path: &Path) -> Result<Self, PullError> {
        // It holds messages and the key of the handles: for the operator's eyes only.
        let file = File::options().append(true).create(true).mode(0o600).open(path);
        Ok(Self { file: file.map_err(failed("create", path))?, path: path.to_owned() })
    }

    /// Puts these bytes behind those that are there.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), PullError> {
        self.file.write_all(bytes).map_err(failed("write", &self.path))
    }
}

/// Bytes that are there of a file; none where it is missing.
pub(super) fn length_of(path: &Path) -> Result<u64, PullError> {
    match std::fs::symlink_metadata(path) {
        Ok(found) => Ok(found.len()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(failed("look at", path)(error)),
    }
}
