//! The right to write a log, and what a node's start waits for.

use std::sync::mpsc::SyncSender;

use tokio::sync::oneshot;
use vouch_broker::record::ClusterInit;
use vouch_broker::state::Outcome;
use vouch_broker::{Millis, NotDone};
use vouch_commitlog::{EntryHeader, EntryKind, Recovery};

/// Term of the first leader that a log has.
const FIRST_TERM: u64 = 1;

/// The right to write a log, and where it goes on.
#[derive(Debug)]
pub(crate) struct Leadership {
    term: u64,
    /// Index of the last entry.
    index: u64,
}

impl Leadership {
    /// That of the only member of a group. Nobody else can have been elected since its log ended, so it goes on in the term
    /// in which that did; terms never sink.
    pub(crate) fn of_one(recovery: &Recovery) -> Self {
        Self { term: recovery.last_term.max(FIRST_TERM), index: recovery.last_index }
    }

    /// The header of the next entry.
    pub(super) fn header(&self, kind: EntryKind, time: Millis) -> EntryHeader {
        EntryHeader { term: self.term, index: self.index + 1, leader_time_ms: time.0, kind }
    }

    /// That entry is in the log.
    pub(super) fn appended(&mut self) {
        self.index += 1;
    }
}

/// All that the start proposed is durable and applied.
#[derive(Debug)]
pub(crate) struct Begun {
    /// Whose log it is.
    pub(crate) init: ClusterInit,
    /// Everything before this position is durable and applied.
    pub(crate) applied: u64,
}

/// Hears how the log goes on in this life of the node.
pub(crate) type OnBegun = SyncSender<Result<Begun, NotDone>>;

/// What a shard of a node that starts leads with.
pub(crate) struct Lead {
    pub(crate) leadership: Leadership,
    /// Of the folder; a log that does not know whose it is gets it.
    pub(crate) cluster_id: [u8; 16],
    /// The same.
    pub(crate) segment_size: u64,
    /// Nothing is served before it is told.
    pub(crate) on_begun: OnBegun,
}

/// The start's proposal is on its way.
pub(super) struct Beginning {
    pub(super) answer: oneshot::Receiver<Result<Vec<Outcome>, NotDone>>,
    pub(super) on_begun: OnBegun,
}
