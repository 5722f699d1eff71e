//! What the algorithm wants, as commands in an order that keeps what it relies on.

use raft::StateRole;
use raft::eraftpb::{Entry, EntryType};

use super::Replica;
use crate::command::{Decision, EndsAt, Received};
use crate::translate::from_raft;
use crate::view::Descriptor;
use crate::vote::Vote;
use crate::{EntryId, EntryRole, GroupMessage, NodeId};

impl<B: EndsAt> Replica<B> {
    pub(super) fn take_what_it_wants(&mut self) {
        loop {
            self.count_durable_steps();
            if !self.raw.has_ready() {
                return;
            }
            let mut ready = self.raw.ready();
            self.save_vote();
            self.note_role();
            let mut last = None;
            for entry in ready.take_entries() {
                last = Some(self.take_entry(&entry));
            }
            for message in ready.take_messages() {
                #[cfg(any(test, feature = "testing"))]
                let message = crate::bugs::say_all(message, self.commit());
                if let Some(message) = from_raft(&message) {
                    self.send(message);
                }
            }
            let held: Vec<_> = ready.take_persisted_messages().iter().filter_map(from_raft).collect();
            #[cfg(any(test, feature = "testing"))]
            let held = crate::bugs::send_at_once(&mut self.commands, last, held);
            self.steps.push(ready.number(), last, held);
            if let Some(committed) = ready.take_committed_entries().last() {
                self.commands.push_back(Decision::Commit { to: committed.index });
            }
            self.raw.advance_append_async(ready);
        }
    }

    /// Steps whose entries are durable count, and what relied on them is said.
    fn count_durable_steps(&mut self) {
        while let Some((number, messages)) = self.steps.pop_durable(self.durable) {
            messages.into_iter().for_each(|message| self.send(message));
            self.raw.on_persist_ready(number);
        }
    }

    fn send(&mut self, message: GroupMessage) {
        let waits = self.raw.store().begins();
        #[cfg(any(test, feature = "testing"))]
        let waits = waits && !crate::bugs::injected(crate::bugs::Mistake::FirstEntrySentEarly);
        if waits {
            self.held_back.push(message);
        } else {
            self.commands.push_back(Decision::Send(message));
        }
    }

    fn save_vote(&mut self) {
        let raft = &self.raw.raft;
        let vote = Vote { term: raft.term, given_to: Some(raft.vote).filter(|id| *id != 0).map(NodeId) };
        if vote != self.saved {
            self.saved = vote;
            self.commands.push_back(Decision::SaveVote(vote));
        }
    }

    fn note_role(&mut self) {
        if self.raw.raft.state != StateRole::Leader {
            self.leads_since = None;
        }
    }

    /// An entry is to be in the log: it came from a leader, was proposed here, or begins the term of this leader.
    fn take_entry(&mut self, entry: &Entry) -> EntryId {
        let id = EntryId { index: entry.index, term: entry.term };
        if id.index <= self.last() {
            self.cut(id.index - 1);
        }
        let view = self.raw.mut_store();
        if let Some((_, body)) = self.arrived.remove(&id.index).filter(|(arrived, _)| *arrived == id) {
            let kind = kind_of(entry);
            view.push(Descriptor { term: id.term, end: body.end(), kind });
            self.commands.push_back(Decision::Append(Received { id, kind, body }));
        } else if let Some(descriptor) = self.proposed.take() {
            view.push(descriptor);
        } else {
            assert!(self.leads_since.is_none(), "a leader begins its term once");
            self.leads_since = Some(id);
            view.begin(id.term);
            self.commands.push_back(Decision::Begin(id));
        }
        id
    }

    fn cut(&mut self, behind: u64) {
        self.commands.push_back(Decision::Cut { behind });
        self.raw.mut_store().cut(behind);
        self.steps.cut(behind);
        #[cfg(any(test, feature = "testing"))]
        if crate::bugs::injected(crate::bugs::Mistake::DurableStaysAfterACut) {
            return;
        }
        self.durable = self.durable.min(behind);
    }
}

fn kind_of(entry: &Entry) -> EntryRole {
    match entry.get_entry_type() {
        EntryType::EntryNormal => EntryRole::Ordinary,
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => EntryRole::Members,
    }
}
