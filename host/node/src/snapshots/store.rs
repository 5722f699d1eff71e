//! The files of snapshots and parts. A file appears under its name only when all of it is on disk; it never changes.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::room;
use crate::folder::{create, create_dir_all};

const SNAPSHOT: &str = "snapshot";
const PART: &str = "part";
pub(super) const UNFINISHED: &str = "unfinished";

/// Most files in which room is set aside for a kind.
const ROOMS: usize = 4;

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
        create_dir_all(&self.folder)?;
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == UNFINISHED) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Sets room aside for the next two snapshots and their parts: a quarter more than the largest of each that is there.
    /// A part has `part_bytes` at least, and one snapshot may come with two: a whole one, and one for the rest.
    pub(crate) fn set_room_aside(&self, part_bytes: u64) {
        let largest = |kind| {
            let positions = self.positions(kind).unwrap_or_default();
            let len = |position| fs::metadata(self.path(kind, position)).map_or(0, |file| file.len());
            positions.into_iter().map(len).max().unwrap_or(0) / 4 * 5
        };
        let (snapshot, part) = (largest(Kind::Snapshot), largest(Kind::Part).max(part_bytes));
        let sizes: [u64; ROOMS] = [part, part, room::LEAST, room::LEAST];
        room::set_aside(&self.folder, Kind::Part.extension(), &sizes);
        room::set_aside(&self.folder, Kind::Snapshot.extension(), &[snapshot, snapshot]);
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

    /// Stores a file; when this returns, it survives a power cut. One with the same name is replaced. On a full disk it is
    /// written where room was set aside.
    pub(crate) fn put(&self, kind: Kind, position: u64, content: &[&[u8]]) -> io::Result<()> {
        let path = self.path(kind, position);
        let unfinished = path.with_extension(UNFINISHED);
        let placed = write(&unfinished, content).and_then(|()| self.place(&unfinished, &path));
        if placed.is_err() {
            // The disk may be full: what is half written must not keep it so.
            let _ = fs::remove_file(&unfinished);
        }
        match placed {
            Err(error) if is_full(&error) => {
                // What does not fit there either failed for the first reason.
                let written = room::write(&self.folder, kind.extension(), ROOMS, content).map_err(|_| error)?;
                self.place(&written, &path)
            }
            placed => placed,
        }
    }

    fn place(&self, written: &Path, path: &Path) -> io::Result<()> {
        fs::rename(written, path)?;
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

fn write(path: &Path, content: &[&[u8]]) -> io::Result<()> {
    let mut file = create(path)?;
    for bytes in content {
        file.write_all(bytes)?;
    }
    file.sync_all()
}

/// The disk is full, or what its owner may have of it.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
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
