//! The files of snapshots and parts. A file appears under its name only when all of it is on disk; it never changes. Each
//! lies in the folder twice, for once the log's beginning is released nothing else says what is in them.

mod kind;
mod put;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use vouch_files::create_dir_all;

use super::room;
pub(crate) use kind::{CopyKind, Which};
pub(crate) use put::Rooms;
pub(super) use put::is_full;

/// Most files in which room is set aside for a kind.
const ROOMS: usize = 8;

/// The folder of one shard's snapshots and parts, each named by the log position that it covers.
pub(crate) struct Store {
    folder: PathBuf,
    /// Device and inode of the folder, since it was there: under its path another one may lie later, which is another
    /// node's.
    identity: OnceLock<(u64, u64)>,
    /// The data folder is not this node's any more.
    given_up: AtomicBool,
    /// Held by whoever adds or removes files: snapshots are made, and copies are mended, by different threads.
    changing: Mutex<()>,
}

impl Store {
    /// Makes the folder if it is missing, and removes what a crash left unfinished.
    pub(crate) fn prepare(&self) -> io::Result<()> {
        create_dir_all(&self.folder)?;
        self.remember();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == room::UNFINISHED) {
                // It may have been room that was set aside, which a full disk would not give again.
                let kind = CopyKind::BOTH.into_iter().find(|kind| kind.is_of(path.file_stem().map(Path::new)));
                match kind {
                    Some(kind) if room::give_back(&self.folder, kind.name(), ROOMS, &path) => {}
                    _ => fs::remove_file(path)?,
                }
            }
        }
        Ok(())
    }

    /// Sets room aside for the next two snapshots and their parts, for both copies of each: a quarter more than the largest
    /// of each that is there. A part has `part_bytes` at least, and one snapshot may come with two: a whole one, and one for
    /// the rest.
    pub(crate) fn set_room_aside(&self, part_bytes: u64) {
        // What is there must not become a copy while it is looked at.
        let _changing = self.changing();
        if let Err(error) = self.check() {
            tracing::debug!(%error, "no room is set aside for snapshots");
            return;
        }
        let largest = |kind| {
            let positions = self.positions(kind).unwrap_or_default();
            let files =
                positions.into_iter().flat_map(|position| Which::BOTH.map(|which| self.path(kind, position, which)));
            let len = |path| fs::metadata(path).map_or(0, |file| file.len());
            files.map(len).max().unwrap_or(0) / 4 * 5
        };
        let (snapshot, part) = (largest(CopyKind::Snapshot), largest(CopyKind::Part).max(part_bytes));
        let rest = room::LEAST;
        let sizes: [u64; ROOMS] = [part, part, part, part, rest, rest, rest, rest];
        room::set_aside(&self.folder, CopyKind::Part.name(), &sizes);
        room::set_aside(&self.folder, CopyKind::Snapshot.name(), &[snapshot; 4]);
    }

    /// The folder as it is: nothing in it is changed, and a running node may be writing there.
    pub(crate) fn of_folder(folder: impl Into<PathBuf>) -> Self {
        let store = Self {
            folder: folder.into(),
            identity: OnceLock::new(),
            given_up: AtomicBool::new(false),
            changing: Mutex::default(),
        };
        store.remember();
        store
    }

    fn remember(&self) {
        if self.identity.get().is_none()
            && let Ok(folder) = fs::metadata(&self.folder)
        {
            let _ = self.identity.set((folder.dev(), folder.ino()));
        }
    }

    /// Nothing is added or removed any more, for good; what is under way ends at its next step.
    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Ordering::Release);
    }

    /// Waits for whoever adds or removes files.
    pub(crate) fn wait(&self) {
        drop(self.changing());
    }

    pub(crate) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }

    /// Whether anything may be added or removed: the folder is this node's still, and is what it was.
    ///
    /// # Errors
    /// It is not, or that cannot be seen.
    pub(crate) fn check(&self) -> io::Result<()> {
        if self.is_given_up() {
            return Err(io::Error::other("the data folder is not this node's any more"));
        }
        let folder = fs::metadata(&self.folder)?;
        match self.identity.get() {
            Some(known) if *known != (folder.dev(), folder.ino()) => {
                let why = "another folder lies there than the one this node began with: put that one back, or restart the node";
                Err(io::Error::other(why))
            }
            _ => Ok(()),
        }
    }

    /// A copy of the file of this kind for this position.
    pub(crate) fn path(&self, kind: CopyKind, position: u64, which: Which) -> PathBuf {
        self.folder.join(format!("{position:020}.{}", kind.extension(which)))
    }

    /// Positions of the files of this kind of which there is a copy, ascending.
    pub(crate) fn positions(&self, kind: CopyKind) -> io::Result<Vec<u64>> {
        let mut positions = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if kind.is_of(Some(&path)) {
                // A file that is named otherwise is somebody else's.
                positions
                    .extend(path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok()));
            }
        }
        positions.sort_unstable();
        positions.dedup();
        Ok(positions)
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes back files of a kind that nothing needs and nobody reads. `as_room`: their blocks are room for the next ones.
    pub(crate) fn take_back_all(&self, kind: CopyKind, positions: &[u64], as_room: bool) -> io::Result<()> {
        let _changing = self.changing();
        for position in positions {
            for which in Which::GOING {
                self.discard(kind, &self.path(kind, *position, which), as_room)?;
            }
        }
        Ok(())
    }

    /// `as_room`: its blocks stay where they are, for the next of its kind. Freed, others would have them first.
    fn discard(&self, kind: CopyKind, path: &Path, as_room: bool) -> io::Result<()> {
        self.check()?;
        if as_room && room::give_back(&self.folder, kind.name(), ROOMS, path) {
            return Ok(());
        }
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Removes all snapshots but those that are `kept`, and all parts but those that are `needed`, which are the parts
    /// of every snapshot that stays; of each both copies.
    pub(crate) fn tidy(&self, kept: &[u64], needed: &[u64]) -> io::Result<()> {
        let _changing = self.changing();
        self.check()?;
        self.remove_all_but(CopyKind::Snapshot, kept)?;
        // A part goes only when no snapshot that names it can come back.
        File::open(&self.folder)?.sync_all()?;
        self.remove_all_but(CopyKind::Part, needed)
    }

    fn remove_all_but(&self, kind: CopyKind, kept: &[u64]) -> io::Result<()> {
        for position in self.positions(kind)?.into_iter().filter(|position| !kept.contains(position)) {
            for which in Which::GOING {
                self.discard(kind, &self.path(kind, position, which), false)?;
            }
        }
        Ok(())
    }
}
