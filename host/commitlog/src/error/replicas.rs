//! What can go wrong with what only the replicas of a group do.

use std::path::PathBuf;

use super::{AppendError, PoisonReport};
use crate::{Checkpoint, LogPosition, Shortage};

/// Why the end of the log was not cut off.
#[derive(Debug, thiserror::Error)]
pub enum CutError {
    /// The log does not hold the entry behind which it was to end. Nothing was changed. The caller is mistaken about its
    /// log: it must not go on with it.
    #[error("cannot cut the log behind {last}, which it does not hold: {reason}; nothing was changed")]
    NotThere {
        /// The entry that was given.
        last: Checkpoint,
        /// What does not hold.
        reason: String,
    },
    /// What was to be cut off is settled, so it was handed out as what never changes. Nothing was changed. The caller is
    /// mistaken about what was committed: it must not go on.
    #[error(
        "cannot cut the log at position {to}: everything below {settled} was settled and never changes; nothing was \
         changed"
    )]
    Settled {
        /// Where the log was to end.
        to: LogPosition,
        /// First position that may be cut off.
        settled: LogPosition,
    },
    /// The segment in which the log is to end could not be opened for the moment. Nothing was changed: try again when the
    /// shortage has passed.
    #[error("no {shortage} left to open {}; {} and try again", file.display(), shortage.remedy())]
    Short {
        /// Of what.
        shortage: Shortage,
        /// The segment file.
        file: PathBuf,
    },
    /// The log is or became poisoned: see [`PoisonReport`]. A start with the noted cut finishes it.
    #[error(transparent)]
    Poisoned(#[from] PoisonReport),
}

/// Why what another replica sent was not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendSpanError {
    /// The logs differ before it: nothing was written. Whoever asked for it is mistaken about where this log ends; where
    /// the entries agree and this still differs, one of the logs is not what it should be.
    #[error(
        "entry {index} goes to position {begins} behind checksum {previous:08x}, but this log ends at {end} with checksum \
         {own:08x}; nothing was written"
    )]
    Elsewhere {
        /// Index of the entry.
        index: u64,
        /// Where what was sent begins.
        begins: LogPosition,
        /// The checksum of what must lie before it.
        previous: u32,
        /// Where this log ends.
        end: LogPosition,
        /// The checksum of its last entry.
        own: u32,
    },
    /// It was read from, or decoded for, a log of another cluster, shard or segment size. Nothing was written.
    #[error("entry {index} is of another log than the one that it was to be appended to; nothing was written")]
    OtherLog {
        /// Index of the entry.
        index: u64,
    },
    /// As with any other entry.
    #[error(transparent)]
    Append(#[from] AppendError),
}
