//! Followers that lack what their leader does not keep any more.
//!
//! The crate would send them a snapshot. Ours lies on disks and travels beside the group, to a node whose replica does not run
//! meanwhile: so the crate only says that one is needed, and sees the follower again when it has it.

use raft::{ProgressState, SnapshotStatus};

use super::Replica;
use crate::command::EndsAt;
use crate::translate::to_raft;
use crate::{EntryId, GroupMessage, Said};

impl<B: EndsAt> Replica<B> {
    /// What this replica lacks, if that is what is said: entries that it does not have, up to this one.
    ///
    /// Where it has that entry it is not behind, whatever its leader thinks: then the crate answers with what is committed here, and
    /// the leader goes on from there.
    pub(super) fn falls_behind(&self, said: &GroupMessage) -> Option<EntryId> {
        let Said::Behind { covered } = said.body else { return None };
        let has = covered.index <= self.commit() || self.term_of(covered.index) == Some(covered.term);
        // Who led in the past says nothing any more.
        (!has && said.term >= self.term()).then_some(covered)
    }

    /// The crate would take what is said for a snapshot that is here. Of one that it follows already it hears no more than it does from
    /// heartbeats; an answer to each of these words would bring the next one at once.
    pub(super) fn hear_that_it_leads(&mut self, said: &GroupMessage) {
        if said.term > self.term() {
            let heartbeat = GroupMessage { body: Said::Heartbeat { commit: 0 }, ..said.clone() };
            let _ = self.raw.step(to_raft(&heartbeat));
        }
    }

    /// Of an entry that this replica has, and that it may not know to be committed, the crate learns that from a snapshot of a group to
    /// which the replica belongs. Told without that it would answer with what it knew before, and never get any further.
    pub(super) fn say_whose_snapshot(&self, said: &GroupMessage, message: &mut raft::eraftpb::Message) {
        if let Said::Behind { covered } = said.body
            && self.term_of(covered.index) == Some(covered.term)
        {
            let members = self.raw.raft.prs().conf().to_conf_state();
            message.mut_snapshot().mut_metadata().set_conf_state(members);
        }
    }

    /// A follower lives that was told to take what it lacks from a disk: it may have it by now, or not have heard. It is asked anew.
    pub(super) fn let_it_be_told_again(&mut self, said: &GroupMessage) {
        let Said::HeartbeatAnswer { .. } = said.body else { return };
        let progress = self.raw.raft.prs().get(said.from.0);
        if said.term == self.term() && progress.is_some_and(|progress| progress.state == ProgressState::Snapshot) {
            self.raw.report_snapshot(said.from.0, SnapshotStatus::Failure);
        }
    }
}
