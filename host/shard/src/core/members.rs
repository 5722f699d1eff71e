//! How the members of the group change: records of their own, each alone in its entry, of which no two are under way.
//!
//! # To ensure correctness
//!
//! - A change is written when the one before it is applied here, and when it fits the members that the state then has. Whatever
//!   is proposed besides is refused: nothing was stored.
//! - The group's members are those of the state at each entry that changes them, and never change otherwise.
//! - Who would not vote after a change does not propose it: it hands leadership over first.

use std::collections::BTreeSet;
use std::time::Duration;

use vouch_broker::record::{Frame, MembersChanged, Record, changes_members as is_members_change};
use vouch_broker::state::Effect;
use vouch_broker::{NotDone, NothingStored, Refusal};
use vouch_cluster::{ChangeRefused, GroupMembers, MembersChange, next_change};
use vouch_commitlog::{EntryKind, LogPosition};
use vouch_consensus::{EntryRole, FollowerProgress, NodeId, Replica, Role};

use vouch_leader::Outside;

use super::{Claim, Command, Core, GroupStanding, Hearer, Proposal, ToWrite};
use crate::reply::Reply;

/// A member that is there is heard within this time by one that begins to lead.
const HEARD_WITHIN: Duration = Duration::from_secs(10);

/// A member that lacks no more entries than this has the log: so many may be on their way at any time.
const NEARLY: u64 = 64;

/// Whether it is a change of the members.
pub(super) fn changes_members(proposal: &Proposal) -> bool {
    Frame::split(&proposal.records).is_ok_and(|(frame, _)| is_members_change(frame.kind()))
}

fn change_in(proposal: &Proposal) -> Result<MembersChange, NotDone> {
    let unread = |why: String| NotDone::Refused(Refusal::Invalid(why));
    let (frame, rest) = Frame::split(&proposal.records).map_err(|why| unread(why.to_string()))?;
    match Record::decode(&frame) {
        Ok(Record::MembersChanged(MembersChanged { change })) if rest.is_empty() => Ok(change),
        Ok(_) => Err(unread("a change of the members is proposed alone".to_owned())),
        Err(why) => Err(unread(why.to_string())),
    }
}

fn conflict(why: impl ToString) -> NotDone {
    NotDone::Refused(Refusal::Conflict(why.to_string()))
}

impl Core {
    /// Gives the log a change of the members, if it fits.
    pub(super) fn write_members(&mut self, proposal: Proposal) {
        if let Err(why) = self.may_write_members(&proposal) {
            return self.unpropose(proposal, why);
        }
        let replica = self.replica.as_ref().expect("who may write has a replica");
        if replica.is_alone() {
            self.commands.push_back(Command::JoinGroup(replica.node()));
        }
        self.write_entry(EntryKind::Members, vec![proposal], self.time());
    }

    fn may_write_members(&self, proposal: &Proposal) -> Result<(), NotDone> {
        let change = change_in(proposal)?;
        let Some(replica) = self.replica.as_ref().filter(|_| self.leader.is_some() && self.closed.is_none()) else {
            return Err(NothingStored::NotLeading { leader: None }.into());
        };
        let next = self.state.members().after(&change).map_err(conflict)?;
        if !replica.may_change_members() {
            return Err(conflict(ChangeRefused::UnderWay));
        }
        if !next.voters.contains(&replica.node()) {
            return Err(conflict(format!(
                "node {} leads, and would vote no more: let it hand leadership over first",
                replica.node()
            )));
        }
        Ok(())
    }

    /// The group's members are those of the state from here on, if the entry changed them whose effects are those from
    /// `effects` on. Whether all is well.
    pub(super) fn follow_members(&mut self, role: EntryRole, effects: usize) -> bool {
        if !self.effects[effects..].contains(&Effect::Members) {
            return true;
        }
        if role != EntryRole::Members {
            self.poison(
                "the log changes the members in an entry of another kind; it was not written by Vouch".to_owned(),
            );
            return false;
        }
        let members = self.state.members();
        tracing::info!(members = %told(members), "the members of the cluster changed");
        if let Some(replica) = &mut self.replica {
            replica.members_are(members);
        }
        true
    }

    /// Whether a node is to come that needs the log from its beginning.
    pub(super) fn awaits_others(&self) -> bool {
        let now = self.now.time.max(self.applied_time);
        self.state.nodes().awaits_others(&self.state.members().all(), now.0)
    }

    /// Whether it has just begun to lead, and has not heard of all others yet: they may be there, and need what lies far back.
    pub(super) fn awaits_word(&self) -> bool {
        let is_new = self.leads_from.is_some_and(|from| self.now.at.saturating_duration_since(from) < HEARD_WITHIN);
        let others = self.replica.as_ref().map(Replica::followers).unwrap_or_default();
        is_new && others.iter().any(|other| !other.is_heard)
    }

    /// How the group stands; nothing where there is none, since the log is only read.
    pub fn group_standing(&self) -> Option<GroupStanding> {
        let replica = self.replica.as_ref()?;
        Some(GroupStanding {
            node: replica.node(),
            // What failed leads nobody any more, and hears nobody who does.
            role: if self.closed.is_some() { Role::Follows { leader: None } } else { replica.role() },
            term: replica.term(),
            leads_from: self.leads_from.filter(|_| self.leader.is_some() && self.closed.is_none()),
            members: self.state.members().clone(),
            names_from: replica.before().index,
            awaits_others: self.awaits_others(),
            needed_from: self.needed_by_others(),
            last: replica.last(),
            committed: replica.commit(),
            committed_to: replica.position_behind(replica.commit()).map(LogPosition),
            followers: replica.followers(),
        })
    }

    /// Lets another member lead, if it votes and is there.
    pub(super) fn hand_over(&mut self, to: NodeId, reply: Reply, outside: &dyn Outside) {
        let answer = match self.may_hand_over(to) {
            Ok(()) => {
                self.replica.iter_mut().for_each(|replica| replica.hand_over(to));
                Ok(Vec::new())
            }
            Err(why) => Err(why),
        };
        self.answer(Hearer::Caller(reply), 0, answer);
        self.decide(outside);
    }

    fn may_hand_over(&self, to: NodeId) -> Result<(), NotDone> {
        let replica = self.replica.as_ref().filter(|_| self.leader.is_some() && self.closed.is_none());
        let Some(replica) = replica else { return Err(self.not_leading().into()) };
        if replica.node() == to {
            return Ok(());
        }
        let members = self.state.members();
        if !members.voters.contains(&to) {
            let refused =
                format!("node {to} does not vote in this cluster; name one of those that do: {}", told(members));
            return Err(NotDone::Refused(Refusal::NotFound(refused)));
        }
        if !replica.followers().iter().any(|other| other.node == to && other.is_heard) {
            return Err(conflict(format!("node {to} was not heard of lately; start it, or name another")));
        }
        Ok(())
    }

    /// Takes the next step to the members that the cluster's nodes are to be, as long as this replica leads: who comes gets the log,
    /// then votes; who leaves is left out; a change of several is ended. Who would not vote himself lets another lead.
    pub(super) fn go_on_with_members(&mut self, outside: &dyn Outside) {
        let Some(replica) = self.replica.as_ref().filter(|_| self.leader.is_some() && self.closed.is_none()) else {
            return;
        };
        let waits = self.batch.iter().any(changes_members)
            || self.to_write.iter().any(|next| matches!(next, ToWrite::Members(_)));
        if waits || !replica.may_change_members() || replica.slot().is_err() || replica.is_alone() && !self.keeps_names
        {
            return;
        }
        let members = self.state.members();
        let Some(change) = next_change(members, self.state.nodes(), &have_the_log(replica)) else { return };
        let Ok(next) = members.after(&change) else { return };
        if next.voters.contains(&replica.node()) {
            let mut records = Vec::new();
            MembersChanged { change }.encode(&mut records);
            self.propose_held(Proposal { records, told: Hearer::Nobody, cost: 0, claim: Claim::Reserve });
        } else if let Some(successor) = successor(replica, members, &next) {
            tracing::info!(%successor, "this node is to vote no more, and hands leadership over");
            self.replica.iter_mut().for_each(|replica| replica.hand_over(successor));
            self.decide(outside);
        }
    }
}

/// Members that have what is committed, or nearly: they are asked for their votes without holding anybody up. Who never
/// acknowledged anything has nothing, however little there is to have.
fn have_the_log(replica: &Replica<super::LeaderEntry>) -> BTreeSet<NodeId> {
    // Since when it leads: whoever has that entry has heard of this leader, and kept it.
    let Role::Leads { since } = replica.role() else { return BTreeSet::new() };
    let least = since.index.max(replica.commit().saturating_sub(NEARLY));
    let has = |other: &FollowerProgress| other.is_heard && other.durable >= least;
    replica.followers().into_iter().filter(has).map(|other| other.node).collect()
}

/// Of those who vote now and later, the one that has most of the log, and was heard of lately.
fn successor(replica: &Replica<super::LeaderEntry>, members: &GroupMembers, next: &GroupMembers) -> Option<NodeId> {
    let may = replica
        .followers()
        .into_iter()
        .filter(|other| other.is_heard && members.voters.contains(&other.node) && next.voters.contains(&other.node));
    may.max_by_key(|other| other.durable).map(|other| other.node)
}

fn told(members: &GroupMembers) -> String {
    let ids = |nodes: &BTreeSet<NodeId>| nodes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut told = format!("voters {}", ids(&members.voters));
    if members.is_joint() {
        told += &format!(", with those of before: {}", ids(&members.outgoing));
    }
    if !members.learners.is_empty() {
        told += &format!("; learners {}", ids(&members.learners));
    }
    told
}
