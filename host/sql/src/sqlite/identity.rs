//! Which file a name leads to.

use std::{fs, os::unix::fs::MetadataExt as _, path::PathBuf};

/// Which file it is that was opened, whatever lies under its name later.
pub(super) struct FileIdentity {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl FileIdentity {
    /// The file under this name now.
    pub(super) fn of(path: PathBuf) -> Option<Self> {
        let metadata = fs::metadata(&path).ok()?;
        Some(Self { path, device: metadata.dev(), inode: metadata.ino() })
    }

    /// Whether the name still leads to this file. Where a backup was put in its place, rows in the old one would be seen by
    /// nobody, and decide all the same.
    pub(super) fn is_still_there(&self) -> bool {
        fs::metadata(&self.path).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == (self.device, self.inode))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_told_from_one_that_was_put_in_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let (name, other) = (folder.path().join("a"), folder.path().join("b"));
        fs::write(&name, "1").unwrap();
        let identity = FileIdentity::of(name.clone()).unwrap();
        fs::write(&name, "2").unwrap();
        assert!(identity.is_still_there(), "it was only written to");
        fs::write(&other, "1").unwrap();
        fs::rename(&other, &name).unwrap();
        assert!(!identity.is_still_there());
        fs::remove_file(&name).unwrap();
        assert!(!identity.is_still_there() && FileIdentity::of(name).is_none());
    }
}
