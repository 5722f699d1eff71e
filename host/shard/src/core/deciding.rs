//! What the group decides, as this replica takes part in it: from what the log and others say to what is to be done.
//!
//! # To ensure correctness
//!
//! - What the replica wants is taken over in its order, and carried out before it is told anything else: a vote is noted before the
//!   message that tells of it goes out, an end is cut off before other entries come there.
//! - An entry is in `written` from when it is on its way to the log until it is committed or cut off, in the order of the log.
//! - What a caller proposed is never answered *nothing stored* once it was on its way to the log: another member may have it, and lead
//!   one day.

use vouch_broker::Millis;
use vouch_commitlog::{EntryHeader, EntryKind, LogPosition};
use vouch_consensus::{Decision, EntryId, GroupMessage, Received, Replica, Role, Said, Slot};
use vouch_leader::Outside;

use super::written::WrittenEntry;
use super::{Command, Core, LeaderEntry};

impl Core {
    /// Everything before this position is durable.
    pub(super) fn durable(&mut self, to: LogPosition, outside: &dyn Outside) {
        if let Some(replica) = &mut self.replica {
            replica.durable(to.0);
        }
        #[cfg(any(test, feature = "testing"))]
        self.apply_what_is_durable(to, outside);
        self.decide(outside);
    }

    /// Takes over what the group decided.
    pub(super) fn decide(&mut self, outside: &dyn Outside) {
        while let Some(decision) = self.replica.as_mut().and_then(Replica::next_command) {
            match decision {
                Decision::SaveVote(vote) => self.commands.push_back(Command::SaveVote(vote)),
                Decision::Begin(id) => self.begin_term(id),
                Decision::Commit { to } => self.apply_up_to(to, outside),
                Decision::Append(received) => self.receive_entry(received),
                Decision::Cut { behind } => self.cut(behind),
                Decision::Send(message) => self.send(message),
                Decision::FallBehind { covered } => self.fall_behind(covered),
                Decision::Break(broken) => self.poison(broken.to_string()),
            }
        }
        self.follow_the_role();
    }

    /// Leads no more, if so.
    fn follow_the_role(&mut self) {
        if let Some(Role::Follows { leader }) = self.replica.as_ref().map(Replica::role)
            && self.closed.is_none()
            && (self.leader.is_some() || !self.early.is_empty())
        {
            self.lead_no_more(leader);
        }
    }

    fn receive_entry(&mut self, received: Received<LeaderEntry>) {
        let Received { id, kind, body } = received;
        let written = WrittenEntry::received(id, kind, &body);
        self.latest = self.latest.max(written.time);
        // Others led since this node started: what its own clock passed over then, they lived through.
        self.start.iter_mut().for_each(|start| start.leapt_from = None);
        self.written.push_back(written);
        self.commands.push_back(Command::AppendSpan(body.0));
    }

    fn send(&mut self, message: GroupMessage) {
        let entries = match &message.body {
            Said::Append(append) => append.entries.as_slice(),
            _ => &[],
        };
        let replica = self.replica.as_ref().expect("a replica wants to send");
        let spans = entries.iter().map_while(|(id, _)| replica.span(*id));
        let spans: Vec<_> = spans.map(|(from, to)| (LogPosition(from), LogPosition(to))).collect();
        // An entry that is not there any more was cut off since, by a leader of a later term: nobody needs the message.
        if spans.len() == entries.len() {
            self.commands.push_back(Command::Send(message, spans));
        }
    }

    /// Entries behind this index are others in the log of a later leader.
    fn cut(&mut self, behind: u64) {
        let replica = self.replica.as_ref().expect("a replica wants to cut");
        let last = EntryId { index: behind, term: replica.term_of(behind).unwrap_or(0) };
        let span = replica.span(last).map(|(from, to)| (LogPosition(from), LogPosition(to)));
        self.commands.push_back(Command::Cut { last, span });
        while let Some(entry) = self.written.pop_back_if(|entry| entry.id.index > behind) {
            self.forget_proposals(entry);
        }
        // Times of entries that are gone do not bind those that come.
        let applied = self.applied_time.max(self.state.cluster().clock);
        self.latest = self.written.back().map_or(applied, |last| last.time.max(applied));
    }

    /// The name of the next entry, if this replica leads.
    pub(super) fn slot(&self) -> Option<Slot> {
        let slot = self.replica.as_ref().and_then(|replica| replica.slot().ok());
        #[cfg(any(test, feature = "testing"))]
        let slot = slot.or_else(|| self.slot_of_a_follower());
        slot
    }

    pub(super) fn header(&self, EntryId { term, index }: EntryId, kind: EntryKind, time: Millis) -> EntryHeader {
        EntryHeader { term, index, leader_time_ms: time.0, kind }
    }
}
