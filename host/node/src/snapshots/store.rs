//! The files of snapshots and parts. A file appears under its name only when all of it is on disk; it never changes.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const SNAPSHOT: &str = "snapshot";
const PART: &str = "part";
const UNFINISHED: &str = "unfinished";

/// Which of two kinds of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Snapshot,
    Part,
}

impl Kind {
    fn extension(self) -> &'static str {
        match self {
            Self::Snapshot => SNAPSHOT,
            Self::Part => PART,
        }
    }
}

/// The folder of one shard's snapshots and parts, each named by the log position that it covers.
pub(crate) struct Store {
    folder: PathBuf,
}

impl Store {
    /// Makes the folder if it is missing, and removes what a crash left unfinished.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        fs::create_dir_all(&self.folder)?;
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == UNFINISHED) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// The folder as it is: nothing in it is changed, and a running node may be writing there.
    pub(crate) fn of_folder(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The file of this kind for this position.
    pub(crate) fn path(&self, kind: Kind, position: u64) -> PathBuf {
        self.folder.join(format!("{position:020}.{}", kind.extension()))
    }

    /// Positions of the files of this kind, ascending.
    pub(crate) fn positions(&self, kind: Kind) -> io::Result<Vec<u64>> {
        let mut positions = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == kind.extension()) {
                // A file that is named otherwise is somebody else's.
                positions
                    .extend(path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok()));
            }
        }
        positions.sort_unstable();
        Ok(positions)
    }

    /// Stores a file; when this returns, it survives a power cut. One with the same name is replaced.
    pub(crate) fn put(&self, kind: Kind, position: u64, content: &[&[u8]]) -> io::Result<()> {
        let path = self.path(kind, position);
        let unfinished = path.with_extension(UNFINISHED);
        let written = self.write(&unfinished, &path, content);
        if written.is_err() {
            // The disk may be full: what is half written must not keep it so.
            let _ = fs::remove_file(&unfinished);
        }
        written
    }

    fn write(&self, unfinished: &Path, path: &Path, content: &[&[u8]]) -> io::Result<()> {
        let mut file = File::create(unfinished)?;
        for bytes in content {
            file.write_all(bytes)?;
        }
        file.sync_all()?;
        fs::rename(unfinished, path)?;
        File::open(&self.folder)?.sync_all()
    }

    /// Removes all snapshots but those that are `kept`, and all parts but those that are `needed`, which are the parts
    /// of every snapshot that stays.
    pub(crate) fn tidy(&self, kept: &[u64], needed: &[u64]) -> io::Result<()> {
        for position in self.positions(Kind::Snapshot)? {
            if !kept.contains(&position) {
                fs::remove_file(self.path(Kind::Snapshot, position))?;
            }
        }
        // A part goes only when no snapshot that names it can come back.
        File::open(&self.folder)?.sync_all()?;
        for position in self.positions(Kind::Part)? {
            if !needed.contains(&position) {
                fs::remove_file(self.path(Kind::Part, position))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_whole_and_what_a_crash_left_unfinished_goes() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("00000000000000000007.unfinished"), b"half").unwrap();
        fs::write(folder.path().join("notes.snapshot"), b"somebody's").unwrap();
        let store = Store::of_folder(folder.path());
        store.prepare().unwrap();
        assert!(!folder.path().join("00000000000000000007.unfinished").exists());
        store.put(Kind::Part, 7, &[b"ab", b"c"]).unwrap();
        assert_eq!(fs::read(store.path(Kind::Part, 7)).unwrap(), b"abc");
        assert_eq!(store.positions(Kind::Part).unwrap(), [7]);
        assert!(store.positions(Kind::Snapshot).unwrap().is_empty());
    }

    #[test]
    fn what_is_kept_stays_with_the_parts_that_it_needs_and_the_rest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::of_folder(folder.path());
        store.prepare().unwrap();
        for position in [10, 2, 300, 4000] {
            store.put(Kind::Snapshot, position, &[b"s"]).unwrap();
            store.put(Kind::Part, position, &[b"p"]).unwrap();
        }
        store.tidy(&[300, 10], &[2, 300]).unwrap();
        assert_eq!(store.positions(Kind::Snapshot).unwrap(), [10, 300]);
        assert_eq!(store.positions(Kind::Part).unwrap(), [2, 300]);
    }
}
