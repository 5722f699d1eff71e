//! What a replica must never forget.

use crate::NodeId;

/// What a replica has promised, and must never forget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Vote {
    /// The highest term that it knows of.
    pub term: u64,
    /// Whom it voted for in that term.
    pub given_to: Option<NodeId>,
}
