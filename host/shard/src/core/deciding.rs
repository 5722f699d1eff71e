//! What the group decides, as this replica takes part in it: from what the log and others say to what is to be done.

use vouch_broker::Millis;
use vouch_commitlog::{EntryHeader, EntryKind, LogPosition};
use vouch_consensus::{Command as Decision, EntryId, Slot};
use vouch_leader::Outside;

use super::{Command, Core};

impl Core {
    /// Everything before this position is durable.
    pub(super) fn durable(&mut self, to: LogPosition, outside: &dyn Outside) {
        if let Some(replica) = &mut self.replica {
            replica.durable(to.0);
        }
        self.decide(outside);
    }

    /// Takes over what the group decided.
    pub(super) fn decide(&mut self, outside: &dyn Outside) {
        while let Some(decision) = self.replica.as_mut().and_then(vouch_consensus::Replica::next_command) {
            match decision {
                Decision::SaveVote(vote) => self.commands.push_back(Command::SaveVote(vote)),
                Decision::Begin(id) => self.begin_term(id),
                Decision::Commit { to } => self.apply_up_to(to, outside),
                Decision::Break(broken) => self.poison(broken.to_string()),
                Decision::Append(received) => match received.body {},
                Decision::Cut { .. } | Decision::Send(_) => unreachable!("a group of one"),
            }
        }
    }

    /// The name of the next entry, if this replica leads.
    pub(super) fn slot(&self) -> Option<Slot> {
        self.replica.as_ref().and_then(|replica| replica.slot().ok())
    }

    pub(super) fn header(&self, EntryId { term, index }: EntryId, kind: EntryKind, time: Millis) -> EntryHeader {
        EntryHeader { term, index, leader_time_ms: time.0, kind }
    }
}
