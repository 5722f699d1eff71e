//! Who belongs to a group.

use std::collections::BTreeSet;
use std::fmt;

/// Names a member. Given by the cluster, counted up and used once: a folder that was wiped is a new node (ruling 31).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The node with which a cluster begins.
    pub const FIRST: Self = Self(1);
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

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
}
