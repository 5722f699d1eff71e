//! Reading kept snapshots back before the log's beginning goes: from then on nothing else says what they say.

use std::sync::atomic::Ordering;
use vouch_commitlog::LogPosition;

use super::mend::{Mended, tell, unlike_written};
use super::store::{Rooms, Which};
use super::stored::StoredFile;
use super::{SnapshotBound, SnapshotFailure, Snapshots};

/// Keeps all files where they are until it is dropped.
pub(super) struct ReadingBack<'a>(&'a Snapshots);

impl Drop for ReadingBack<'_> {
    fn drop(&mut self) {
        self.0.reading_back.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Snapshots {
    /// Whether these snapshots can be read with all their parts, and each of their files lies on the disk twice: then the log
    /// may go on without what they say. Copies that are damaged or missing are made again. None of the files goes meanwhile:
    /// a fast sender brings newer snapshots sooner than the parts of these are read, and would do so each time.
    pub(crate) fn read_back(&self, bounds: [SnapshotBound; 2]) -> Result<(), SnapshotFailure> {
        let _stay = self.keep_files();
        bounds.into_iter().try_for_each(|bound| self.read_one_back(bound.covers))
    }

    /// From now on no file goes, until what this gives is dropped. Whoever tidies meanwhile leaves it to the next
    /// snapshot.
    pub(super) fn keep_files(&self) -> ReadingBack<'_> {
        self.reading_back.fetch_add(1, Ordering::Relaxed);
        ReadingBack(self)
    }

    /// One snapshot with its parts: read whole first, and then each file in both copies, unless this process found both
    /// whole before.
    fn read_one_back(&self, covered: LogPosition) -> Result<(), SnapshotFailure> {
        let loaded = self.load(covered)?;
        let parts = loaded.state.named_parts().into_iter().map(|(id, checksum)| StoredFile::Part(id, checksum));
        for stored in std::iter::once(StoredFile::Snapshot(covered)).chain(parts) {
            if self.is_verified(stored) && self.seems_whole(stored) {
                continue;
            }
            // What is released for this makes more room than it takes.
            match self.mend(stored, Rooms::Taken, &mut |_| true) {
                Ok(Mended::Lost([lost, _])) => return Err(unlike_written(lost)),
                Ok(Mended::Gone) => return Err(SnapshotFailure::Gone { path: self.copy_path(stored, Which::First) }),
                Ok(mended) => tell(&mended),
                Err(source) => return Err(SnapshotFailure::NotMended { path: self.whole_file(stored), source }),
            }
        }
        Ok(())
    }
}
