//! Who belongs to a group.

use std::collections::BTreeSet;

use crate::NodeId;

/// The members of a group. While it changes from one set of voters to another, both decide (joint consensus).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupMembers {
    /// Those whose majority decides.
    pub voters: BTreeSet<NodeId>,
    /// Those whose majority decides as well until the change is over; empty unless one is under way.
    pub outgoing: BTreeSet<NodeId>,
    /// Those who get the log and decide nothing.
    pub learners: BTreeSet<NodeId>,
    /// Those who become learners when the change is over, and vote among `outgoing` until then.
    pub learners_next: BTreeSet<NodeId>,
}

impl GroupMembers {
    /// A group of these voters.
    pub fn voters(voters: impl IntoIterator<Item = NodeId>) -> Self {
        Self { voters: voters.into_iter().collect(), ..Self::default() }
    }

    /// Whether this one is the only member: what it has on its disk is decided.
    pub fn is_only(&self, node: NodeId) -> bool {
        self.voters.len() == 1 && self.voters.contains(&node) && self.outgoing.is_empty() && self.learners.is_empty()
    }

    /// Whether a change of several is between its two steps: both sets of voters decide.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether it is asked for its vote.
    pub fn votes(&self, node: NodeId) -> bool {
        self.voters.contains(&node) || self.outgoing.contains(&node)
    }

    /// All who get the log, in the order of their ids.
    pub fn all(&self) -> BTreeSet<NodeId> {
        [&self.voters, &self.outgoing, &self.learners, &self.learners_next].into_iter().flatten().copied().collect()
    }

    /// Whether these nodes are enough to decide.
    pub fn decide(&self, nodes: &BTreeSet<NodeId>) -> bool {
        let majority = |voters: &BTreeSet<NodeId>| voters.intersection(nodes).count() * 2 > voters.len();
        majority(&self.voters) && (self.outgoing.is_empty() || majority(&self.outgoing))
    }
}
