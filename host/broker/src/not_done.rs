//! Three answers to whoever wanted something and did not get it (ruling 30): it was refused, this node could not take it, or
//! nobody knows. They are different types up to the edges, which map them to gRPC codes and HTTP statuses in one table.

use crate::{NameError, Refusal};

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, thiserror::Error)]
pub enum NotDone {
    /// The state, or the request itself, says no. Nothing was stored, and the same request is refused again.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// This node could not take it, and certainly nothing was stored. It may be tried again, here or elsewhere.
    #[error(transparent)]
    NothingStored(#[from] NothingStored),
    /// The write may or may not be in the log. Retrying with the same message id is safe.
    #[error("the outcome is unknown: {0}; a retry with the same message id is stored once")]
    Unknown(String),
}

impl From<NameError> for NotDone {
    fn from(error: NameError) -> Self {
        Refusal::from(error).into()
    }
}

impl NotDone {
    /// A defect in the broker, with which nothing was stored.
    pub fn internal(text: impl Into<String>) -> Self {
        Self::NothingStored(NothingStored::Internal(text.into()))
    }

    /// Whether it is a defect, of which the log should tell.
    pub fn is_internal(&self) -> bool {
        matches!(self, Self::Refused(Refusal::Internal(_)) | Self::NothingStored(NothingStored::Internal(_)))
    }
}

/// Why this node could not take something.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, thiserror::Error)]
pub enum NothingStored {
    /// Nothing was queued; wait, then try again.
    #[error(
        "the broker has {in_flight} bytes in flight, its bound is {bound}; nothing was stored, try again in {retry_after_ms} ms"
    )]
    Overloaded {
        /// Bytes waiting to become durable.
        in_flight: u64,
        /// The configured bound.
        bound: u64,
        /// When to try again.
        retry_after_ms: u64,
    },
    /// The disk is full, or near it: free some, and try again. Nothing was stored.
    #[error("{0}")]
    StorageFull(String),
    /// Something other than space that the log needs is short for the moment: see to it, or wait, and try again. Nothing was
    /// stored.
    #[error("{0}")]
    Short(String),
    /// Too many of something at once; the text says of what and what to do.
    #[error("{0}")]
    TooMany(String),
    /// Certainly not accepted; the log takes no more writes until the node is restarted.
    #[error(
        "the commit log takes no more writes after an error ({0}); nothing was stored, restart the node to recover"
    )]
    Poisoned(String),
    /// Certainly not accepted; the node serves a damaged log, of which only what is whole can be read.
    #[error("the log is damaged and this node only reads what is whole of it; nothing was stored: {0}")]
    ReadOnly(String),
    /// Another member of the group leads, or nobody: ask that one, or wait until one is elected. Nothing was stored.
    #[error("{}; nothing was stored, try again", no_lead(*leader))]
    NotLeading {
        /// The id of the node that leads, if this one knows.
        leader: Option<u64>,
    },
    /// The node is stopping; nothing was stored.
    #[error("the node is stopping; nothing was stored, try again in a moment")]
    Stopping,
    /// A defect in the broker; the log has the cause.
    #[error("internal error: {0}")]
    Internal(String),
}

/// Why a node that does not lead takes nothing.
fn no_lead(leader: Option<u64>) -> String {
    match leader {
        Some(node) => format!("this node does not lead, node {node} does"),
        None => "no node is known to lead (`vouch cluster status` shows which nodes are there)".to_owned(),
    }
}
