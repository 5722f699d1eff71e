//! What a core does wrong when a test wants it to ([`crate::bugs`]).

use vouch_commitlog::LogPosition;
use vouch_consensus::{EntryId, Role, Slot};
use vouch_leader::Outside;

use super::Core;
use super::written::WrittenEntry;
use crate::bugs::{Lapse, injected};

impl Core {
    /// Applies what is durable, whatever the group decided.
    pub(super) fn apply_what_is_durable(&mut self, to: LogPosition, outside: &dyn Outside) {
        if injected(Lapse::AppliedBeyondCommit)
            && let Some(last) = self.written.iter().take_while(|entry| entry.end <= to).last()
        {
            let index = last.id.index;
            self.apply_up_to(index, outside);
        }
    }

    /// The name that an entry of a replica gets that follows another one.
    pub(super) fn slot_of_a_follower(&self) -> Option<Slot> {
        let replica = self.replica.as_ref()?;
        let follows = matches!(replica.role(), Role::Follows { leader: Some(_) });
        let wanted = injected(Lapse::ProposalOfFollower)
            || injected(Lapse::MarkByFollower) && self.log.mark_due_in.is_some_and(|due_in| due_in.is_zero());
        (follows && wanted).then(|| EntryId { index: replica.last() + 1, term: replica.term() })
    }

    /// An entry as if it had happened when it is applied.
    pub(super) fn at_the_time_of_the_clock(&self, entry: WrittenEntry) -> WrittenEntry {
        if injected(Lapse::ApplyReadsClock) { WrittenEntry { time: self.now.time, ..entry } } else { entry }
    }
}
