//! What a node is called.

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
