//! Why bytes are not a span.

use crate::LogPosition;

/// Why bytes that somebody sent are not one entry with what belongs to it. They are of another log, or were changed on the
/// way: drop the connection, and ask for them again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpanError {
    /// They end inside a header.
    #[error("the {len} bytes end inside a header")]
    Truncated {
        /// How many there are.
        len: u64,
    },
    /// More or fewer bytes follow the entry's header than it has payload.
    #[error("the entry at position {position} has {expected} bytes of payload, and {found} follow its header")]
    Length {
        /// Where the entry says that it lies.
        position: LogPosition,
        /// Bytes that it states.
        expected: u64,
        /// Bytes that follow.
        found: u64,
    },
    /// A header or payload is not as it was written, or is of another log or a newer version.
    #[error("what should lie at position {position} is unsound: {reason}")]
    Unsound {
        /// Where it says that it lies.
        position: LogPosition,
        /// What does not hold.
        reason: String,
    },
    /// It cannot lie where it says, or does not follow what comes before it.
    #[error("what says it lies at position {position} is out of place: {reason}")]
    Misplaced {
        /// Where it says that it lies.
        position: LogPosition,
        /// What does not hold.
        reason: &'static str,
    },
    /// More fillers and marks than an index can have.
    #[error("there are more than {max} fillers and marks in front of the entry")]
    TooMany {
        /// How many there may be.
        max: usize,
    },
}
