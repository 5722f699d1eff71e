//! What nodes ask each other about sessions, and what they answer, as MessagePack with the names of fields.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use vouch_broker::Generation;
use vouch_cluster::NodeId;

use crate::peers::{ClientAnswer, PeerNodes, answer_bytes};
use crate::sessions::{CheckCommand, SessionChanges};

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum SessionAsk {
    /// Hear what changed of my sessions. To the leader.
    Changed {
        /// Of the leadership that was told before; 0 for none.
        life: u64,
        changes: SessionChanges,
        /// With the first part: batches that came to my consumers since the telling before.
        #[serde(default)]
        came: Vec<Generation>,
        /// My disk is at its high-water mark.
        #[serde(default)]
        is_full: bool,
        /// I lack a key of secrets, and nobody gives it.
        #[serde(default)]
        lacks_keys: bool,
    },
    /// Hear of all of my sessions. To the leader.
    All {
        changes: SessionChanges,
        /// These are the first, and these the last of them.
        begins: bool,
        ends: bool,
        /// With the first: batches that came to my consumers of late.
        #[serde(default)]
        came: Vec<Generation>,
        /// For how long I remember that, in milliseconds: of batches of before I know nothing.
        #[serde(default)]
        remembers_ms: u64,
        #[serde(default)]
        is_full: bool,
        #[serde(default)]
        lacks_keys: bool,
    },
    /// Ask a client of yours about its transaction; where nobody waits for the answer any more, do not.
    Check { client_id: String, command: Box<CheckCommand> },
}

/// What is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum SessionAnswer {
    /// It is known now, in this leadership.
    Heard { life: u64 },
    /// Tell all, it is not known.
    TellAll,
    /// Another node leads, or nobody.
    NotLeading,
    /// The client's stream took the question, or did not.
    Asked(bool),
}

/// Asks a node; `None` where it did not answer.
pub(super) async fn ask(nodes: &PeerNodes, node: NodeId, ask: &SessionAsk, deadline: Instant) -> Option<SessionAnswer> {
    let mut bytes = Vec::new();
    write(&mut bytes, ask);
    match nodes.ask_about_session(node, bytes.into(), deadline).await {
        Ok(ClientAnswer::Answered(answer)) => rmp_serde::from_slice(&answer).ok(),
        Ok(ClientAnswer::NothingStored(why)) => {
            tracing::debug!(%node, why, "a node does not hear about sessions");
            None
        }
        Err(why) => {
            tracing::debug!(%node, %why, "a node cannot be asked about sessions");
            None
        }
    }
}

pub(super) fn answered(answer: SessionAnswer) -> Bytes {
    answer_bytes(|bytes| write(bytes, &answer))
}

fn write<T: Serialize>(bytes: &mut Vec<u8>, what: &T) {
    rmp_serde::encode::write_named(bytes, what).expect("sessions hold nothing that MessagePack cannot");
}
