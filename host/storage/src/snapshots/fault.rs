//! Why a copy cannot be used, told apart from why it could not be looked at.

use std::io;

use vouch_broker::state::{PartError, SnapshotError};
use vouch_commitlog::{CheckpointError, Shortage};

/// Why a copy cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyFault {
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

impl CopyFault {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_too_little_of_is_told_from_what_is_wrong_with_a_copy() {
        const ENOSPC: i32 = 28;
        const EMFILE: i32 = 24;
        const EIO: i32 = 5;
        let of_part = |errno| PartError::Io { kind: io::ErrorKind::Other, errno, why: String::new() };
        for errno in [ENOSPC, EMFILE] {
            for fault in [CopyFault::Io(io::Error::from_raw_os_error(errno)), CopyFault::Part(of_part(Some(errno)))] {
                assert_eq!(fault.shortage().unwrap().raw_os_error(), Some(errno));
            }
        }
        let faults = [
            CopyFault::Io(io::Error::from_raw_os_error(EIO)),
            CopyFault::Io(io::ErrorKind::NotFound.into()),
            CopyFault::Part(of_part(Some(EIO))),
            CopyFault::Part(of_part(None)),
            CopyFault::Head(CheckpointError::Damaged),
            CopyFault::Stopped,
        ];
        for fault in faults {
            let told = fault.to_string();
            assert_eq!(fault.shortage().unwrap_err().to_string(), told);
        }
    }

    #[test]
    fn a_copy_that_is_not_there_is_told_from_one_that_is_damaged() {
        let of_part = |kind| CopyFault::Part(PartError::Io { kind, errno: None, why: String::new() });
        assert!(CopyFault::Io(io::ErrorKind::NotFound.into()).is_missing());
        assert!(of_part(io::ErrorKind::NotFound).is_missing());
        assert!(!CopyFault::Io(io::ErrorKind::PermissionDenied.into()).is_missing());
        assert!(!of_part(io::ErrorKind::UnexpectedEof).is_missing());
        assert!(!CopyFault::Head(CheckpointError::Damaged).is_missing());
    }
}
