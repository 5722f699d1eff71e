//! What lies in the folder, by what it is called and by what names it.

use std::collections::BTreeSet;
use std::io;

use vouch_broker::State;
use vouch_commitlog::{Checkpoint, LogPosition, Shortage};

use super::store::CopyKind;
use super::{SnapshotFailure, Snapshots};

/// What lies in the folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StoredFile {
    /// The snapshot that covers the log before this position.
    Snapshot(LogPosition),
    /// A part, by id and by the checksum that a snapshot names.
    Part(u64, u32),
}

impl StoredFile {
    /// What it is called by: its kind, and the position or id in its name.
    pub(super) fn place(self) -> (CopyKind, u64) {
        match self {
            Self::Snapshot(covered) => (CopyKind::Snapshot, covered.0),
            Self::Part(id, _) => (CopyKind::Part, id),
        }
    }

    /// The id, if it is a part.
    pub(crate) fn part(self) -> Option<u64> {
        match self {
            Self::Snapshot(_) => None,
            Self::Part(id, _) => Some(id),
        }
    }
}

impl Snapshots {
    /// Positions that snapshots cover, ascending.
    pub(super) fn covered(&self) -> io::Result<Vec<LogPosition>> {
        Ok(self.store.positions(CopyKind::Snapshot)?.into_iter().map(LogPosition).collect())
    }

    /// Everything that a start may need: the snapshots, and the parts that they name. Parts of a snapshot of which no copy
    /// is whole are not known by it.
    pub(crate) fn stored(&self) -> io::Result<Vec<StoredFile>> {
        let mut stored = BTreeSet::new();
        for position in self.covered()? {
            stored.insert(StoredFile::Snapshot(position));
            match self.snapshot_bytes(position) {
                Ok((_, bytes)) => {
                    let named = State::parts_of_snapshot(state_of(&bytes)).unwrap_or_default();
                    stored.extend(named.into_iter().map(|(id, checksum)| StoredFile::Part(id, checksum)));
                }
                // It says nothing of the snapshot, whose parts would pass for needless.
                Err(SnapshotFailure::Io { source, .. }) if Shortage::of(&source).is_some() => return Err(source),
                Err(_) => {}
            }
        }
        Ok(stored.into_iter().collect())
    }
}

/// The state in a snapshot's file, behind the checkpoint.
pub(super) fn state_of(bytes: &[u8]) -> &[u8] {
    &bytes[Checkpoint::ENCODED_LEN.min(bytes.len())..]
}
