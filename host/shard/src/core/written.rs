//! Entries that are in the log, and of which the group has not decided yet that they stay.

use std::time::Instant;

use bytes::Bytes;
use vouch_broker::{Millis, RecordPosition};
use vouch_commitlog::{Entry, LogPosition};
use vouch_consensus::{EntryId, EntryRole};

use super::entry_role::role_of;
use super::{Hearer, LeaderEntry, Proposal};

/// An entry that is written and not yet committed.
pub(super) struct WrittenEntry {
    pub(super) id: EntryId,
    pub(super) role: EntryRole,
    pub(super) end: LogPosition,
    pub(super) time: Millis,
    pub(super) holds: Holds,
}

/// What such an entry holds.
pub(super) enum Holds {
    /// What was proposed here, since that moment; with the position of the first record of each.
    Proposals(Instant, Vec<(RecordPosition, Proposal)>),
    /// What came from another leader, or was found in the log: records, the first of them at this position.
    Records(RecordPosition, Bytes),
}

impl WrittenEntry {
    /// An entry that came from another leader.
    pub(super) fn received(id: EntryId, role: EntryRole, LeaderEntry(span): &LeaderEntry) -> Self {
        let holds = Holds::Records(vouch_storage::record_position(span.payload_position()), span.payload().clone());
        Self { id, role, end: span.end(), time: Millis(span.leader_time_ms()), holds }
    }

    /// An entry that recovery found, and of which it is not known whether it is committed.
    pub(super) fn found(entry: Entry) -> Self {
        let id = EntryId { index: entry.index, term: entry.term };
        let holds = Holds::Records(vouch_storage::record_position(entry.payload_position), entry.payload);
        Self { id, role: role_of(entry.kind), end: entry.end, time: Millis(entry.leader_time_ms), holds }
    }

    /// What it holds of the bytes in flight, and who waits for it.
    pub(super) fn proposals(self) -> Vec<Proposal> {
        match self.holds {
            Holds::Proposals(_, proposals) => proposals.into_iter().map(|(_, proposal)| proposal).collect(),
            Holds::Records(..) => Vec::new(),
        }
    }

    /// Those who have waited since before that moment, and have not been told: they wait no more.
    pub(super) fn give_up(&mut self, since: Instant) -> Vec<(Hearer, u64)> {
        match &mut self.holds {
            Holds::Proposals(at, proposals) if *at <= since => {
                let waits = proposals.iter_mut().filter(|(_, proposal)| !matches!(proposal.told, Hearer::Nobody));
                waits.map(|(_, proposal)| (std::mem::replace(&mut proposal.told, Hearer::Nobody), 0)).collect()
            }
            _ => Vec::new(),
        }
    }
}
