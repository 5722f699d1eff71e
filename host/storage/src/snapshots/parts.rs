//! Single parts of a snapshot: for a state that reads from them, and for whoever copies or misses them.

use std::io;
use std::path::PathBuf;

use vouch_broker::State;
use vouch_broker::state::Copies;
use vouch_commitlog::map_file;

use super::copies::spare;
use super::mend::{Mended, tell};
use super::store::{CopyKind, Rooms, Which};
use super::stored::{StoredFile, state_of};
use super::{LoadedState, Snapshots};

impl Snapshots {
    /// What a snapshot consists of, for who copies it: each file's name and a copy of it that is whole.
    pub(crate) fn files(&self, loaded: &LoadedState) -> Vec<(String, PathBuf)> {
        let parts = loaded.state.named_parts().into_iter().map(|(id, checksum)| StoredFile::Part(id, checksum));
        let stored = std::iter::once(StoredFile::Snapshot(loaded.checkpoint.end)).chain(parts);
        stored.map(|stored| (self.name_of(stored), self.whole_file(stored))).collect()
    }

    /// A part that was written just now, for a state that says the same.
    pub(crate) fn part(&self, id: u64) -> io::Result<Copies> {
        let [first, second] = Which::BOTH.map(|which| self.store.path(CopyKind::Part, id, which));
        Ok(Copies { first: map_file(&first)?, second: spare(&second)? })
    }

    /// Mends a part in which a running state found damage, and gives what it is to read from then on; `None` if nothing
    /// needs the part any more.
    pub(crate) fn mended_part(&self, id: u64) -> io::Result<Option<Copies>> {
        // It reads from the same files.
        self.making().warm = None;
        let Some(stored) = self.stored()?.into_iter().find(|stored| stored.part() == Some(id)) else {
            return Ok(None);
        };
        let mended = self.mend(stored, Rooms::Spared, &mut |_| true)?;
        tell(&mended);
        match (mended, stored) {
            (Mended::Whole | Mended::Again(_), StoredFile::Part(id, checksum)) => {
                self.part_copies(id, checksum).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Parts that a snapshot names and of which no copy is whole, ascending.
    pub(crate) fn lost_parts(&self, loaded: &LoadedState) -> Vec<u64> {
        let Ok((_, bytes)) = self.snapshot_bytes(loaded.checkpoint.end) else { return Vec::new() };
        let named = State::parts_of_snapshot(state_of(&bytes)).unwrap_or_default();
        let lost = named.into_iter().filter(|(id, checksum)| !self.has_whole(StoredFile::Part(*id, *checksum)));
        lost.map(|(id, _)| id).collect()
    }

    /// The first copy of a part.
    pub(crate) fn part_file(&self, id: u64) -> PathBuf {
        self.store.path(CopyKind::Part, id, Which::First)
    }

    /// The file name of its first copy, by which a backup calls it.
    fn name_of(&self, stored: StoredFile) -> String {
        let (kind, position) = stored.place();
        let path = self.store.path(kind, position, Which::First);
        path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }
}
