//! Why there is no snapshot.

use std::io;
use std::path::PathBuf;

use vouch_broker::state::SnapshotError;
use vouch_commitlog::{CheckpointError, LogPosition, ReadError};

use crate::replay::UnreadableRecord;

/// Why no snapshot was made, or one cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotFailure {
    /// The system refuses.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The head of a snapshot is damaged.
    #[error("{}: {why}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: CheckpointError,
    },
    /// The state in a snapshot, or one of its parts, is damaged.
    #[error("{}: {why}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: SnapshotError,
    },
    /// The log cannot be read.
    #[error("the log cannot be read: {0}")]
    Log(#[from] ReadError),
    /// A record of the log cannot be read.
    #[error(transparent)]
    Record(#[from] UnreadableRecord),
    /// The log does not begin at its beginning, and there is no snapshot to begin with.
    #[error("there is no snapshot, and the log begins at position {0}")]
    NoBeginning(LogPosition),
    /// A part that is needed cannot be read.
    #[error("part {0} is damaged in both copies")]
    Lost(u64),
    /// What lies on the disk only once must not be the only thing that says it.
    #[error("a copy of {} cannot be made again: {source}", path.display())]
    NotMended {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A newer snapshot took its place.
    #[error("{} went while it was read", path.display())]
    Gone {
        /// The file.
        path: PathBuf,
    },
    /// See [`Snapshots::give_up`].
    #[error("the data folder is not this node's any more")]
    GivenUp,
}

impl SnapshotFailure {
    /// The disk had no room for it.
    pub(super) fn is_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if super::store::is_full(source))
    }
}
