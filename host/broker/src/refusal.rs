//! Every way in which the state says no. What only a running node can say besides is [`crate::NotDone`].

use crate::literal::Literal;
use crate::{NameError, ResourceName};

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum TransactionOutcome {
    /// The message became visible.
    Committed = 1,
    /// The message was dropped.
    RolledBack = 2,
}

impl TransactionOutcome {
    /// The outcome with this number in the log.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Committed),
            2 => Some(Self::RolledBack),
            _ => None,
        }
    }

    /// `committed` or `rolled back`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::RolledBack => "rolled back",
        }
    }
}

/// Why a request was refused, by what `apply` or the request itself says: the same on every replica. The text tells the caller what to do next.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Choose another name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Create the topic, or correct its name.
    #[error("topic {0} does not exist; {how}", how = how_a_topic_begins(.0))]
    TopicNotFound(ResourceName),
    /// Create the group, or correct its name.
    #[error(
        "group {0} does not exist; it comes into being when a consumer first receives, or with: vouch group create {0}"
    )]
    GroupNotFound(ResourceName),
    /// Send to a topic of the right type.
    #[error("topic {topic} has type {topic_type} and does not take {kind} messages")]
    TypeMismatch {
        /// The topic.
        topic: ResourceName,
        /// Its type as users write it.
        #[serde(deserialize_with = "crate::literal::deserialize")]
        topic_type: Literal,
        /// The kind of the message.
        #[serde(deserialize_with = "crate::literal::deserialize")]
        kind: Literal,
    },
    /// The feature is not in this version; do without.
    #[error("{0} is not available in this version of Vouch")]
    NotBuilt(#[serde(deserialize_with = "crate::literal::deserialize")] Literal),
    /// Correct the request.
    #[error("{0}")]
    Invalid(String),
    /// The transaction id was never given out by this broker, or belongs to another message.
    #[error("transaction {id} is not known here: {why}")]
    UnknownTransaction {
        /// As the caller wrote it.
        id: String,
        /// What is wrong with it.
        why: String,
    },
    /// The transaction ended the other way; its outcome stands.
    #[error("transaction {id} was already {}; its outcome cannot be changed", recorded.as_str())]
    OutcomeConflict {
        /// The transaction.
        id: String,
        /// What the log says.
        recorded: TransactionOutcome,
    },
    /// The transaction ended so long ago that its outcome is no longer remembered.
    #[error("transaction {id} already ended; its outcome is no longer remembered")]
    AlreadyEnded {
        /// The transaction.
        id: String,
    },
    /// Receive again: the lease is over or was never given.
    #[error("the receipt handle is not valid: {0}; receive the message again")]
    InvalidHandle(#[serde(deserialize_with = "crate::literal::deserialize")] Literal),
    /// The name is taken by something else, or the change is not allowed in this state.
    #[error("{0}")]
    Conflict(String),
    /// Nothing by that name.
    #[error("{0}")]
    NotFound(String),
    /// Read the current state and try again with its tag.
    #[error("{0}")]
    PreconditionFailed(String),
    /// Too many of something; the text says of what and what to do.
    #[error("{0}")]
    TooMany(String),
    /// A defect in the broker; the log has the cause.
    #[error("internal error: {0}")]
    Internal(String),
}

/// What to do about a topic that is not there.
fn how_a_topic_begins(name: &ResourceName) -> String {
    if name.is_dead_letter_topic() {
        "it comes into being with the first dead letter of its group".to_owned()
    } else if let Err(why) = name.check_new_topic() {
        // What is refused must not be advised.
        format!("none can be created: {why}")
    } else {
        format!("create it with: vouch topic create {name}")
    }
}
