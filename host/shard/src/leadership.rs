//! The right to write a log, and what a node's start waits for.

use vouch_broker::Millis;
use vouch_broker::record::ClusterInit;
use vouch_commitlog::{EntryHeader, EntryKind, LogPosition, Recovery};

/// Term of the first leader that a log has.
const FIRST_TERM: u64 = 1;

/// The right to write a log, and where it goes on.
#[derive(Debug)]
pub struct Leadership {
    term: u64,
    /// Index of the last entry.
    index: u64,
}

impl Leadership {
    /// That of the only member of a group. Nobody else can have been elected since its log ended, so it goes on in the term
    /// in which that did; terms never sink.
    pub fn of_one(recovery: &Recovery) -> Self {
        Self { term: recovery.last_term.max(FIRST_TERM), index: recovery.last_index }
    }

    /// To go on in a term, behind the entry with this index.
    #[cfg(test)]
    pub(crate) fn new(term: u64, index: u64) -> Self {
        Self { term, index }
    }

    /// The header of the next entry.
    pub(crate) fn header(&self, kind: EntryKind, time: Millis) -> EntryHeader {
        EntryHeader { term: self.term, index: self.index + 1, leader_time_ms: time.0, kind }
    }

    /// That entry is in the log.
    pub(crate) fn appended(&mut self) {
        self.index += 1;
    }
}

/// All that the start proposed is durable and applied.
#[derive(Debug)]
pub struct Begun {
    /// Whose log it is.
    pub init: ClusterInit,
    /// Everything before this position is durable and applied.
    pub applied: LogPosition,
}

/// What a shard of a node that starts leads with.
pub struct Lead {
    /// Its right.
    pub leadership: Leadership,
    /// Of the folder; a log that does not know whose it is gets it.
    pub cluster_id: [u8; 16],
    /// The same.
    pub segment_size: u64,
    /// The same: secret, and drawn at random by whoever starts the node.
    pub handle_key: [u8; 32],
    /// The last time in the log, if the clock leapt on from there at the start.
    pub leapt_from: Option<Millis>,
}
