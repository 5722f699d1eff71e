//! A member of a group of several: what others say, the time that passes for the group, and the end of a leadership.

use std::time::{Duration, Instant};

use vouch_broker::{NotDone, NothingStored};
use vouch_consensus::{Append, GroupMessage, NodeId, NotLeading, Replica, Role, Said};
use vouch_leader::Outside;

use super::written::WrittenEntry;
use super::{Command, Core, LeaderEntry};

/// A tick of the group's time.
pub(super) const TICK: Duration = Duration::from_millis(50);
/// Who proposed something hears after this long that nobody knows, if the group has not decided.
pub(super) const DECIDED_WITHIN: Duration = Duration::from_millis(2_500);

impl Core {
    /// Another member said something.
    pub(super) fn message(&mut self, message: &GroupMessage, bodies: Vec<LeaderEntry>, outside: &dyn Outside) {
        if self.closed.is_some() {
            return;
        }
        self.hears_who_leads_no_more(message);
        let (message, bodies) = self.as_far_as_there_is_room(message, bodies);
        if let Some(replica) = &mut self.replica {
            replica.message(&message, bodies);
        }
        self.decide(outside);
    }

    /// A log that cannot grow takes no entries that it has no room for; that their leader lives is heard.
    fn as_far_as_there_is_room(
        &self,
        message: &GroupMessage,
        bodies: Vec<LeaderEntry>,
    ) -> (GroupMessage, Vec<LeaderEntry>) {
        let (Some((_, left)), Said::Append(append)) = (self.log.short, &message.body) else {
            return (message.clone(), bodies);
        };
        let needed = bodies.last().map_or(0, |LeaderEntry(last)| last.end().saturating_since(self.log.appended));
        if needed <= left {
            return (message.clone(), bodies);
        }
        let Append { previous, commit, .. } = *append;
        let body = Said::Append(Append { previous, commit: commit.min(previous.index), entries: Vec::new() });
        (GroupMessage { body, ..message.clone() }, Vec::new())
    }

    /// Lets the group's time pass, if it is due. One that slept does not catch up: its time stood still.
    pub(super) fn pass_time(&mut self, outside: &dyn Outside) {
        let now = self.now.at;
        let Some(replica) = self.replica.as_mut().filter(|replica| !replica.is_alone()) else { return };
        if self.next_tick.is_some_and(|at| now < at) || self.closed.is_some() {
            return;
        }
        self.next_tick = Some(self.next_tick.map_or(now, |at| at.max(now - TICK)) + TICK);
        replica.tick();
        self.decide(outside);
        self.give_up_waiting();
    }

    /// When the next tick is due, for one that is not alone.
    pub(super) fn next_tick(&self, now: Instant) -> Option<Instant> {
        let group = self.closed.is_none() && self.replica.as_ref().is_some_and(|replica| !replica.is_alone());
        group.then(|| self.next_tick.unwrap_or(now))
    }

    /// Those who have waited for too long hear that nobody knows: what they proposed may still be decided.
    fn give_up_waiting(&mut self) {
        let Some(since) = self.now.at.checked_sub(DECIDED_WITHIN) else { return };
        let waited: Vec<_> = self.written.iter_mut().flat_map(|entry| entry.give_up(since)).collect();
        for (told, cost) in waited {
            self.answer(told, cost, Err(undecided()));
        }
        #[cfg(any(test, feature = "testing"))]
        if crate::bugs::injected(crate::bugs::Lapse::EarlyWaitForEver) {
            return;
        }
        // A leader whose disk hangs leads on, and cannot begin.
        let early = self.early.extract_if(.., |(at, _)| *at <= since).collect::<Vec<_>>();
        for (_, request) in early {
            self.refuse_early(request, &NothingStored::NotLeading { leader: None });
        }
    }

    /// An entry of this replica's own was cut off here. Another member may have it, and lead one day: nobody knows.
    pub(super) fn forget_proposals(&mut self, entry: WrittenEntry) {
        #[cfg(any(test, feature = "testing"))]
        if crate::bugs::injected(crate::bugs::Lapse::ProposalForgotten) {
            return std::mem::forget(entry);
        }
        for proposal in entry.proposals() {
            self.answer(proposal.told, proposal.cost, Err(undecided()));
        }
    }

    /// Another member leads, or nobody. What only a leader keeps is dropped; what is written and not decided may still be.
    pub(super) fn lead_no_more(&mut self, leader: Option<NodeId>) {
        let why = NothingStored::NotLeading { leader: leader.map(|node| node.0) };
        self.at_the_log = false;
        let to_write = std::mem::take(&mut self.to_write).into_iter().flat_map(super::ToWrite::proposals);
        let unwritten: Vec<_> = to_write.chain(std::mem::take(&mut self.batch)).collect();
        for proposal in unwritten {
            self.unpropose(proposal, why.clone().into());
        }
        self.handing_out.clear();
        if let Some(mut old) = self.leader.take() {
            old.end(&why);
            for (waiter, answer) in old.take_wants().answers {
                self.commands.push_back(Command::AnswerReceive(waiter, answer));
            }
        }
        for (_, request) in std::mem::take(&mut self.early) {
            self.refuse_early(request, &why);
        }
        tracing::info!(leader = leader.map(|node| node.0), "this node leads no more");
    }

    /// Who takes what only a leader takes, as far as is known here.
    pub fn leader(&self) -> Option<NodeId> {
        let Some(replica) = &self.replica else { return Some(NodeId::FIRST) };
        match replica.role() {
            Role::Follows { leader } => leader,
            Role::Leads { .. } => Some(self.hands_over_to().unwrap_or(replica.node())),
        }
    }

    /// Why nothing is taken here: another one leads.
    pub(super) fn not_leading(&self) -> NothingStored {
        match self.replica.as_ref().map(Replica::role) {
            Some(Role::Follows { leader }) if self.start.is_some() => {
                NothingStored::NotLeading { leader: leader.map(|node| node.0) }
            }
            Some(Role::Leads { .. }) if self.hands_over_to().is_some() => {
                NothingStored::NotLeading { leader: self.hands_over_to().map(|node| node.0) }
            }
            _ => NothingStored::Stopping,
        }
    }

    /// To whom it is handing leadership over, if it is.
    fn hands_over_to(&self) -> Option<NodeId> {
        match self.replica.as_ref()?.slot() {
            Err(NotLeading::HandingOver(to)) => Some(to),
            _ => None,
        }
    }

    /// Whether what was leased is handed out only when that is decided: not where nobody else decides (ruling 10), nor where all is
    /// decided already, since the log took none of the leases: no entry that is decided later would bring that about.
    pub(super) fn hands_out_when_committed(&self) -> Option<u64> {
        let replica = self.replica.as_ref().filter(|replica| !replica.is_alone())?;
        let waits = replica.last() > replica.commit() || !self.handing_out.is_empty();
        waits.then(|| replica.last())
    }

    /// Whether it is the only member of its group, which remembers no names of entries.
    pub fn is_alone(&self) -> bool {
        self.replica.as_ref().is_none_or(Replica::is_alone)
    }

    /// The term in which it leads, if it does.
    pub fn leads_in(&self) -> Option<u64> {
        let replica = self.replica.as_ref()?;
        matches!(replica.role(), Role::Leads { .. }).then(|| replica.term())
    }
}

fn undecided() -> NotDone {
    #[cfg(any(test, feature = "testing"))]
    if crate::bugs::injected(crate::bugs::Lapse::LeaderChangeAsFailure) {
        return NothingStored::NotLeading { leader: None }.into();
    }
    NotDone::Unknown("the group did not decide in time, or leads another way since".to_owned())
}
