//! Why a replica does not get what it lacks.

use std::io;
use std::path::Path;

use vouch_commitlog::{NoteError, Shortage};

use crate::backup::{self, BackupError};
use crate::replica::ReplicaError;

/// Why a pull ends before it is done. What was gathered stays, unless it is unsound, and another pull goes on with it.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// What is offered is not what this node lacks, or no offer of this version.
    #[error("what the other node offers cannot be taken: {0}")]
    Offer(String),
    /// What is offered ends before what this node acknowledged; ask again in a moment.
    #[error(
        "the other node knows entries up to {offered} to be committed, and this one may have acknowledged those up to {needed}"
    )]
    TooShort {
        /// Index of the last entry that is offered.
        offered: u64,
        /// Index of the last one that must be among them.
        needed: u64,
    },
    /// The offer does not hold any more, or what came is not what was offered: begin again with another one.
    #[error("what was gathered from the other node is unsound, and what is wrong of it is thrown away: {0}")]
    Unsound(String),
    /// Free some space: what comes lies beside what is there until all of it is.
    #[error("what is to come takes {needed} bytes, and the disk has {free}; free some space, it is tried again")]
    NoRoom {
        /// Bytes that are still to come.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// There is too little of something while files come, and nothing is broken: what was gathered stays, begin again in a moment.
    #[error("{failed}; {}, it is tried again", shortage.remedy())]
    Short {
        /// What was tried, with which file.
        failed: String,
        /// Of what there is too little.
        shortage: Shortage,
    },
    /// What the replica noted cannot be read: see there.
    #[error(transparent)]
    Replica(ReplicaError),
    /// The system refuses, or there is nothing to offer: see there.
    #[error(transparent)]
    Shard(#[from] BackupError),
}

impl From<ReplicaError> for PullError {
    fn from(error: ReplicaError) -> Self {
        let shortage = match &error {
            ReplicaError::File(NoteError::Io { source, .. }) => Shortage::of(source),
            _ => None,
        };
        match shortage {
            Some(shortage) => Self::Short { failed: error.to_string(), shortage },
            None => Self::Replica(error),
        }
    }
}

/// For `map_err`: what was tried with which file. The action is a verb that follows *cannot*. A disk that fills while files come is not
/// one that is broken.
pub(super) fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> PullError + 'a {
    move |source| {
        let (shortage, failed) = (Shortage::of(&source), backup::failed(action, path)(source));
        match shortage {
            Some(shortage) => PullError::Short { failed: failed.to_string(), shortage },
            None => failed.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_too_little_of_is_told_from_what_is_broken() {
        let path = Path::new("/data/log");
        let full = failed("write", path)(io::ErrorKind::StorageFull.into());
        assert!(matches!(full, PullError::Short { shortage: Shortage::Space, .. }), "{full:?}");
        let told = full.to_string();
        assert!(told.contains("cannot write /data/log") && told.contains("free some space"), "{told}");
        let broken = failed("write", path)(io::ErrorKind::Other.into());
        assert!(matches!(broken, PullError::Shard(BackupError::Io { action: "write", .. })), "{broken:?}");
        let note = |source: io::Error| {
            PullError::from(ReplicaError::File(NoteError::Io { action: "write", file: path.to_owned(), source }))
        };
        assert!(matches!(note(io::ErrorKind::StorageFull.into()), PullError::Short { .. }));
        assert!(matches!(note(io::ErrorKind::Other.into()), PullError::Replica(_)));
    }
}
