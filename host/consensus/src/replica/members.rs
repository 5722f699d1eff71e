//! How the members of a group change, as the crate sees it.
//!
//! What the members are, the log says, and whoever applies it; the crate is told what they became ([`Replica::members_are`]), and is
//! led there by a change of its own that does the same. It leaves no change by itself: nothing is in its log that nobody
//! appended.

use std::collections::BTreeSet;

use raft::StateRole;
use raft::eraftpb::{ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2};

use super::Replica;
use crate::command::EndsAt;
use crate::{GroupMembers, NodeId};

/// How far another member is, as its leader knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerProgress {
    /// Who.
    pub node: NodeId,
    /// Everything up to this index is durable there.
    pub durable: u64,
    /// Where that ends in the log of the one that leads; `None` if that has no name of the entry any more.
    pub durable_to: Option<u64>,
    /// It was heard of within the last election time-out.
    pub is_heard: bool,
}

fn one(node: NodeId, change: ConfChangeType) -> ConfChangeSingle {
    let mut single = ConfChangeSingle { node_id: node.0, ..ConfChangeSingle::default() };
    single.set_change_type(change);
    single
}

/// What leads from some members to others, one node each.
fn steps(from: &GroupMembers, to: &GroupMembers) -> Vec<ConfChangeSingle> {
    let learn: BTreeSet<_> = to.learners.union(&to.learners_next).copied().collect();
    let votes = to.voters.difference(&from.voters).map(|node| one(*node, ConfChangeType::AddNode));
    let learns = learn.difference(&from.learners).map(|node| one(*node, ConfChangeType::AddLearnerNode));
    let stay = |node: &&NodeId| !to.voters.contains(node) && !learn.contains(node);
    let gone = from.voters.union(&from.learners).filter(stay).map(|node| one(*node, ConfChangeType::RemoveNode));
    votes.chain(learns).chain(gone).collect()
}

impl<B: EndsAt> Replica<B> {
    /// Whether an entry that changes the members may be proposed: none is under way, so what applies now is what the next one
    /// meets.
    pub fn may_change_members(&self) -> bool {
        self.leads_since.is_some() && !self.raw.raft.has_pending_conf()
    }

    /// Lets the crate know that what is proposed changes the members; it looks at no more than whether that finishes a change.
    pub(super) fn propose_members(&mut self) -> raft::Result<()> {
        let mut change = ConfChangeV2::default();
        if !self.is_joint() {
            change.set_changes(vec![one(NodeId(self.raw.raft.id), ConfChangeType::AddNode)].into());
        }
        self.raw.propose_conf_change(Vec::new(), change)
    }

    fn is_joint(&self) -> bool {
        !self.raw.raft.prs().conf().to_conf_state().voters_outgoing.is_empty()
    }

    /// An entry that changed the members is applied, and these they are now. To be told before [`Replica::applied`], and before
    /// anything is applied that lies behind it.
    ///
    /// A leader that votes no more leads no more: those who are left elect one of them.
    ///
    /// # Panics
    /// If there is no voter among them.
    pub fn members_are(&mut self, members: &GroupMembers) {
        let members = members.clone();
        self.guarded(|replica| {
            let raft = &mut replica.raw.raft;
            let is_gone = raft.state == StateRole::Leader && !members.votes(NodeId(raft.id));
            #[cfg(any(test, feature = "testing"))]
            let is_gone = is_gone && !crate::bugs::injected(crate::bugs::Mistake::LeadsOnWhenGone);
            if is_gone {
                // The crate counts on a leader to be among those whose progress it keeps.
                let term = raft.term;
                raft.become_follower(term, raft::INVALID_ID);
            }
            replica.lead_to(&members);
            let found = replica.members();
            assert!(found == members, "the group has other members than its log says: {found:?}, {members:?}");
        });
    }

    /// Lets the crate have these members, by as many changes of its own as it takes: one for a step, more where the group began
    /// anew, which asks nobody who was there before.
    fn lead_to(&mut self, members: &GroupMembers) {
        if self.is_joint() && self.members() != *members {
            self.change(&ConfChangeV2::default());
        }
        let from = self.members();
        if from == *members {
            return;
        }
        let jumps = !members.is_joint() && from.voters.symmetric_difference(&members.voters).count() > 1;
        let mut change = ConfChangeV2::default();
        change.set_changes(steps(&from, members).into());
        if members.is_joint() || jumps {
            change.set_transition(ConfChangeTransition::Explicit);
        }
        self.change(&change);
        if jumps {
            self.change(&ConfChangeV2::default());
        }
    }

    fn change(&mut self, change: &ConfChangeV2) {
        self.raw.apply_conf_change(change).expect("a step leads from the members of before to these");
    }

    /// The members, as the crate knows them.
    fn members(&self) -> GroupMembers {
        let state = self.raw.raft.prs().conf().to_conf_state();
        let nodes = |ids: &[u64]| ids.iter().copied().map(NodeId).collect();
        GroupMembers {
            voters: nodes(&state.voters),
            outgoing: nodes(&state.voters_outgoing),
            learners: nodes(&state.learners),
            learners_next: nodes(&state.learners_next),
        }
    }

    /// How far the others are; nothing where it does not lead.
    pub fn followers(&self) -> Vec<FollowerProgress> {
        let raft = &self.raw.raft;
        if self.leads_since.is_none() {
            return Vec::new();
        }
        let others = raft.prs().iter().filter(|(id, _)| **id != raft.id);
        let mut others: Vec<_> = others
            .map(|(id, progress)| FollowerProgress {
                node: NodeId(*id),
                durable: progress.matched,
                durable_to: self.position_behind(progress.matched),
                is_heard: progress.recent_active,
            })
            .collect();
        others.sort_unstable_by_key(|follower| follower.node);
        others
    }
}
