//! What a replica is to its group.

use crate::{EntryId, NodeId};

/// What a replica is to its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It leads, since the entry with this name, which is the first of its term.
    Leads {
        /// The term's first entry: when it is committed, all before it is.
        since: EntryId,
    },
    /// It follows, or asks for votes.
    Follows {
        /// Who leads, if it knows.
        leader: Option<NodeId>,
    },
}

/// The name of the next entry that is proposed.
pub type Slot = EntryId;

/// A replica that does not lead proposes nothing: nothing was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotLeading {
    /// Ask this one.
    #[error("node {0} leads")]
    Another(NodeId),
    /// Try again: somebody will be elected, if a majority is there.
    #[error("nobody is known to lead")]
    Nobody,
    /// It leads and is giving that away: try again in a moment.
    #[error("leadership is being handed to node {0}")]
    HandingOver(NodeId),
}
