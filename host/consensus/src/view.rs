//! What the algorithm sees of the log: of each entry its name, its kind, and where it ends.

use std::collections::VecDeque;

use raft::eraftpb::{ConfState, Entry, EntryType, HardState, Snapshot};
use raft::{GetEntriesContext, RaftState, StorageError};

use crate::vote::Vote;
use crate::{EntryId, EntryRole, GroupMembers};

/// One entry, as the group knows it: 24 bytes, kept from the older snapshot on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Term of the leader that made it.
    pub term: u64,
    /// Position of the log behind it, in bytes.
    pub end: u64,
    /// What it is to the group.
    pub kind: EntryRole,
}

/// Asked for by the crate for one message: ours below is what bounds it.
pub(crate) const ONE_MESSAGE: u64 = 1 << 10;
/// Bytes of the log that go into one message, unless it is one entry.
const MESSAGE_BYTES: u64 = 1 << 20;
/// Entries that go into one message.
const MESSAGE_ENTRIES: usize = 64;

/// Stands for the end of an entry that is not in the log yet.
const NOT_YET: u64 = u64::MAX;

/// The log, as the algorithm sees it.
pub(crate) struct LogView {
    /// The entry before the first; of index and term 0 where the log is whole.
    before: EntryId,
    /// Position behind it.
    before_end: u64,
    entries: VecDeque<Descriptor>,
    /// What lies before is not in the log any more: whoever needs it takes it from a disk.
    is_released: bool,
    /// As the replica began.
    began_with: (Vote, u64, GroupMembers),
}

impl LogView {
    pub(crate) fn new(
        before: EntryId,
        before_end: u64,
        entries: VecDeque<Descriptor>,
        began_with: (Vote, u64, GroupMembers),
    ) -> Self {
        Self { before, before_end, entries, is_released: false, began_with }
    }

    pub(crate) fn last(&self) -> u64 {
        self.before.index + self.entries.len() as u64
    }

    pub(crate) fn before(&self) -> EntryId {
        self.before
    }

    pub(crate) fn get(&self, index: u64) -> Option<&Descriptor> {
        let at = index.checked_sub(self.before.index + 1)?;
        self.entries.get(usize::try_from(at).ok()?)
    }

    /// Position behind the entry with this index, or before all that is kept.
    pub(crate) fn end_of(&self, index: u64) -> Option<u64> {
        if index == self.before.index { Some(self.before_end) } else { self.get(index).map(|entry| entry.end) }
    }

    /// The last entry that ends at this position or before it.
    pub(crate) fn index_before(&self, position: u64) -> Option<u64> {
        let ending = self.entries.partition_point(|entry| entry.end <= position) as u64;
        (position >= self.before_end).then_some(self.before.index + ending)
    }

    pub(crate) fn term_of(&self, index: u64) -> Option<u64> {
        if index == self.before.index { Some(self.before.term) } else { self.get(index).map(|entry| entry.term) }
    }

    /// Whether what lies before the first entry that is known is gone from the log, too.
    pub(crate) fn is_released(&mut self, is_released: bool) {
        self.is_released = is_released;
    }

    pub(crate) fn push(&mut self, entry: Descriptor) {
        assert!(self.end_of(self.last()).is_none_or(|end| end < entry.end), "each entry ends behind the one before it");
        self.entries.push_back(entry);
    }

    /// The first entry of a leader's term: where it ends is not known before it is in the log.
    pub(crate) fn begin(&mut self, term: u64) {
        self.push(Descriptor { term, end: NOT_YET, kind: EntryRole::Ordinary });
    }

    /// Whether that entry is not known to be in the log yet.
    pub(crate) fn begins(&self) -> bool {
        self.entries.back().is_some_and(|last| last.end == NOT_YET)
    }

    /// That entry is in the log, and ends there.
    pub(crate) fn begun(&mut self, end: u64) {
        let last = self.entries.back_mut().filter(|last| last.end == NOT_YET);
        last.expect("an entry that is told to be in the log was asked for").end = end;
    }

    /// Whether all entries are in the log, that with which a term begins, too.
    pub(crate) fn is_written(&self) -> bool {
        self.entries.back().is_none_or(|last| last.end != NOT_YET)
    }

    pub(crate) fn cut(&mut self, behind: u64) {
        assert!(behind >= self.before.index, "what a snapshot covers is never cut off");
        self.entries.truncate((behind - self.before.index) as usize);
    }

    /// Learns what lies before the first entry that is kept: these entries, of which the first follows `before`.
    pub(crate) fn learn(&mut self, before: EntryId, before_end: u64, entries: VecDeque<Descriptor>) {
        let (index, last) = (before.index + entries.len() as u64, entries.back());
        let (term, end) = last.map_or((before.term, before_end), |last| (last.term, last.end));
        let fits = (EntryId { index, term }, end) == (self.before, self.before_end);
        assert!(fits, "what is learned ends with entry {index} of term {term} at {end}, before {:?}", self.before);
        (self.before, self.before_end) = (before, before_end);
        let kept = std::mem::replace(&mut self.entries, entries);
        self.entries.extend(kept);
    }

    /// Forgets the entries up to this index, which snapshots cover.
    pub(crate) fn forget(&mut self, up_to: u64) {
        while self.before.index < up_to
            && let Some(entry) = self.entries.pop_front()
        {
            self.before = EntryId { index: self.before.index + 1, term: entry.term };
            self.before_end = entry.end;
        }
    }

    fn entry(&self, index: u64) -> Option<Entry> {
        let Descriptor { term, kind, .. } = self.get(index)?;
        Some(bare_entry(EntryId { index, term: *term }, *kind))
    }

    /// How many of the entries from here to `high` go into one message: one at least.
    fn for_one_message(&self, low: u64, high: u64) -> u64 {
        let from = self.end_of(low - 1).unwrap_or(0);
        let fits = |index: &u64| self.end_of(*index).is_some_and(|end| end - from <= MESSAGE_BYTES);
        (low + 1..high).take(MESSAGE_ENTRIES - 1).take_while(fits).last().unwrap_or(low) + 1
    }
}

/// An entry without what it holds.
pub(crate) fn bare_entry(id: EntryId, kind: EntryRole) -> Entry {
    let mut entry = Entry::default();
    (entry.index, entry.term) = (id.index, id.term);
    entry.set_entry_type(match kind {
        EntryRole::Ordinary => EntryType::EntryNormal,
        EntryRole::Members => EntryType::EntryConfChangeV2,
    });
    entry
}

pub(crate) fn conf_state(members: &GroupMembers) -> ConfState {
    let ids = |nodes: &std::collections::BTreeSet<crate::NodeId>| nodes.iter().map(|node| node.0).collect::<Vec<_>>();
    let mut state = ConfState::default();
    state.set_voters(ids(&members.voters));
    state.set_voters_outgoing(ids(&members.outgoing));
    state.set_learners(ids(&members.learners));
    state.set_learners_next(ids(&members.learners_next));
    state
}

impl raft::Storage for LogView {
    fn initial_state(&self) -> raft::Result<RaftState> {
        let (vote, commit, members) = &self.began_with;
        let mut hard_state = HardState::default();
        (hard_state.term, hard_state.vote, hard_state.commit) =
            (vote.term, vote.given_to.map_or(0, |node| node.0), *commit);
        Ok(RaftState { hard_state, conf_state: conf_state(members) })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.before.index {
            return Err(StorageError::Compacted.into());
        }
        let high = if max_size.into() == Some(ONE_MESSAGE) { self.for_one_message(low, high) } else { high };
        (low..high).map(|index| self.entry(index).ok_or_else(|| StorageError::Unavailable.into())).collect()
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let missing = if index < self.before.index { StorageError::Compacted } else { StorageError::Unavailable };
        self.term_of(index).ok_or_else(|| missing.into())
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.before.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last())
    }

    /// Of a snapshot the crate needs no more than which entry it covers, and that it was said: the follower takes it from a disk.
    fn snapshot(&self, _: u64, _: u64) -> raft::Result<Snapshot> {
        if !self.is_released || self.before.index == 0 {
            // The names that are missing are read again soon.
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        let mut snapshot = Snapshot::default();
        let covered = snapshot.mut_metadata();
        (covered.index, covered.term) = (self.before.index, self.before.term);
        covered.set_conf_state(conf_state(&self.began_with.2));
        Ok(snapshot)
    }
}
