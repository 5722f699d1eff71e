//! Why a replica does not get what it lacks.

use std::io;
use std::path::Path;

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
    #[error("what was gathered from the other node is unsound, and is thrown away: {0}")]
    Unsound(String),
    /// Free some space: what comes lies beside what is there until all of it is.
    #[error("what is to come takes {needed} bytes, and the disk has {free}; free some space, it is tried again")]
    NoRoom {
        /// Bytes that are still to come.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// What the replica noted cannot be read: see there.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// The system refuses, or there is nothing to offer: see there.
    #[error(transparent)]
    Shard(#[from] BackupError),
}

/// For `map_err`: what was tried with which file. The action is a verb that follows *cannot*.
pub(super) fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> PullError + 'a {
    move |source| backup::failed(action, path)(source).into()
}
