//! What is told of a damaged log.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use vouch_broker::{QueueOffset, TransactionId};
use vouch_commitlog::LogPosition;

/// What of a node's log is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The node serves read-only: everything before this log position is applied, and nothing behind it.
    pub served_to: Option<LogPosition>,
    /// End of the log.
    pub log_end: LogPosition,
    /// Whole bytes behind `served_to`. What they would mean depends on what was lost before them; `vouch log dump` shows
    /// them.
    pub not_served_bytes: u64,
    /// By position: what the start found of a log that is served read-only; of another, what the scrubber found since the
    /// node started, and files that are missing at the beginning.
    pub stretches: Vec<DamagedStretch>,
    /// Stretches beyond those.
    pub omitted: u64,
    /// Where segments begin that were damaged, and that the start took from other nodes.
    pub repaired: Vec<LogPosition>,
}

/// A stretch of the log without a whole entry, or with whole ones that may not belong there; or one of which a part of the
/// snapshots told where messages lie, which is lost: what is in it is whole, and cannot be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedStretch {
    /// The file of the segment, or of the part, which may be missing.
    pub file: PathBuf,
    /// Where in the file it begins, in bytes.
    pub offset: u64,
    /// Bytes of it. 0 where whole entries meet that do not follow one another.
    pub length: u64,
    /// First log position of it.
    pub from: LogPosition,
    /// First log position after it.
    pub to: LogPosition,
    /// What does not hold at its beginning.
    pub reason: String,
    /// Entries that were lost, as far as those around them tell.
    pub entries_lost: Option<u64>,
    /// What was in it. `None` where nobody knows: the state does not reach so far, or whole entries meet that do not follow
    /// one another.
    pub known: Option<LostContent>,
}

/// What is still needed and was in a damaged stretch. What had expired or ended is not missed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LostContent {
    /// Messages of queues, by topic, queue and offset.
    pub messages: Vec<LostMessages>,
    /// Open transactions whose half lay there.
    pub transactions: Vec<TransactionId>,
    /// Pieces of components that lay there: upload these again.
    pub component_pieces: u64,
    /// Rows of messages and transactions beyond those; at least so many.
    pub omitted: u64,
}

/// Neighbouring messages of a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostMessages {
    /// Name of the topic.
    pub topic: String,
    /// The queue.
    pub queue: u32,
    /// Offsets from the first to the last.
    pub offsets: RangeInclusive<QueueOffset>,
}
