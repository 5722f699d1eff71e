//! Why a copy cannot be used, told apart from why it could not be looked at.

use std::io;

use vouch_broker::state::{PartError, SnapshotError};
use vouch_commitlog::{CheckpointError, Shortage};

/// Why a copy cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// It is not there, or cannot be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It is no part, or not as it was written.
    #[error(transparent)]
    Part(#[from] PartError),
    /// It is no snapshot, or not as it was written.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// Its head is not as it was written.
    #[error(transparent)]
    Head(#[from] CheckpointError),
    /// Nobody wants to know any more.
    #[error("the node is stopping")]
    Stopped,
}

impl Fault {
    /// The error that says of what there is too little, where that is why: it is not a fault of the copy.
    ///
    /// # Errors
    /// The fault itself, where it is one.
    pub(super) fn shortage(self) -> Result<io::Error, Self> {
        match self {
            Self::Io(error) if Shortage::of(&error).is_some() => Ok(error),
            Self::Part(PartError::Io { errno: Some(errno), .. })
                if Shortage::of(&io::Error::from_raw_os_error(errno)).is_some() =>
            {
                Ok(io::Error::from_raw_os_error(errno))
            }
            other => Err(other),
        }
    }

    /// Nothing lies there under its name. Of a second copy that is no damage: an earlier version made none, or a crash
    /// came between.
    pub(crate) fn is_missing(&self) -> bool {
        match self {
            Self::Io(error) => error.kind() == io::ErrorKind::NotFound,
            Self::Part(PartError::Io { kind, .. }) => *kind == io::ErrorKind::NotFound,
            _ => false,
        }
    }
}
