//! A binding that can be asked, and what it is asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use vouch_broker::{BodyEncoding, MessageKind, Millis, ResourceName, StoredMessage, TransactionId};
use vouch_plugin::{Binding, Message, Pending};
use vouch_protocol::DecompressError;
use vouch_protocol::limits::DECOMPRESSED_BODY_MAX_BYTES;

use super::batches::WaitingBatch;
use super::standing::BindingNotes;
use crate::effects::Settler;
use vouch_leader::checks::Due;

/// A binding that can be asked.
#[derive(Clone)]
pub(crate) struct Answerer {
    pub(crate) binding: Binding,
    pub(crate) fallback_to_producer: bool,
    /// Log position of the record that set the binding.
    pub(crate) revision: u64,
    /// Who it is in the record of an answer.
    pub(crate) settler: Settler,
    /// When it last answered; 0 before it did. Tells a transaction on which the component fails from a component that always
    /// fails (ruling 4).
    pub(super) answered_at: Arc<AtomicU64>,
    /// What is known of it beside that.
    pub(super) notes: Arc<BindingNotes>,
    /// Asks that wait to go to it together.
    pub(crate) batches: Arc<WaitingBatch>,
}

/// What a component is asked, but for the half message.
pub(crate) struct CheckQuestion {
    pub(crate) transaction: TransactionId,
    pub(crate) topic: ResourceName,
    pub(crate) opened_at: Millis,
    pub(crate) asked_at: Millis,
    pub(crate) number: u32,
    pub(crate) checks_left: u32,
}

impl From<&Due> for CheckQuestion {
    fn from(due: &Due) -> Self {
        let Due { id: transaction, opened_at, asked_at, number, checks_left, .. } = *due;
        Self { transaction, topic: due.topic.clone(), opened_at, asked_at, number, checks_left }
    }
}

impl Answerer {
    /// What the component is asked.
    ///
    /// Decompresses the body: takes up to a second and up to `limits.memory`, so it belongs into a place of the
    /// binding.
    pub(crate) fn pending(&self, question: &CheckQuestion, half: StoredMessage) -> Pending {
        let id = question.transaction.to_string();
        Pending {
            half: self.message(&id, &question.topic, &half),
            transaction_id: id,
            producer: half.producer.clone(),
            opened_at_ms: question.opened_at.0,
            asked_at_ms: question.asked_at.0,
            check_number: question.number,
            checks_left: question.checks_left,
        }
    }

    /// A message of this topic as the component gets it; `about` names the transaction or delivery.
    ///
    /// Decompresses the body, as [`Self::pending`] does.
    pub(crate) fn message(&self, about: &str, topic: &ResourceName, stored: &StoredMessage) -> Message {
        let message = &stored.message;
        let (body_size, body) = self.body(about, stored);
        Message {
            id: message.message_id.clone(),
            topic: topic.to_string(),
            tag: message.tag.clone(),
            keys: message.keys.clone(),
            message_group: message.message_group.clone(),
            properties: message.properties.clone(),
            attributes: attributes(stored),
            born_at_ms: message.born_at.0,
            born_host: message.born_host.clone(),
            stored_at_ms: stored.stored_at.0,
            body_size: u32::try_from(body_size).unwrap_or(u32::MAX),
            body,
        }
    }

    /// The body that a component gets, and how large it is. Never fails: a transaction must not be stuck for a body
    /// that cannot be decompressed.
    fn body(&self, about: &str, stored: &StoredMessage) -> (u64, Bytes) {
        let max = self.binding.body_max().as_usize();
        body_for(stored, self.binding.wants_body(), max).unwrap_or_else(|error| {
            tracing::warn!(about, %error, "the body of a message is handed over as it was sent");
            as_sent(stored, self.binding.wants_body())
        })
    }

    /// The component answered: other transactions on which it fails may be parked for that.
    pub(crate) fn answered(&self, at: Millis) {
        self.answered_at.fetch_max(at.0, Ordering::Relaxed);
        // That tells as much as a trial.
        self.notes.tried(None);
    }

    /// Whether the component, as this binding was set, answered since then. Another binding of the same component asks
    /// another service, and says nothing about this one.
    pub(crate) fn answered_since(&self, since: Millis) -> bool {
        self.answered_at.load(Ordering::Relaxed) >= since.0
    }
}

/// The body as the producer's application had it, if wanted, and its size; at most `max` bytes are decompressed to keep
/// them. What cannot be decompressed is handed over as it came: the component may know better, or look at the keys alone,
/// and the transaction must not be stuck for it.
fn body_for(half: &StoredMessage, wanted: bool, max: usize) -> Result<(u64, Bytes), DecompressError> {
    let body = &half.message.body;
    match (half.message.encoding, wanted) {
        (BodyEncoding::Identity, _) => Ok(as_sent(half, wanted)),
        (BodyEncoding::Gzip, false) => Ok((vouch_protocol::decompressed_len(body)?, Bytes::new())),
        (BodyEncoding::Gzip, true) => {
            let plain = vouch_protocol::decompress_up_to(body, max.min(DECOMPRESSED_BODY_MAX_BYTES))?;
            Ok((plain.len() as u64, plain))
        }
    }
}

/// The body as it came, if it is wanted, and its size.
fn as_sent(half: &StoredMessage, wanted: bool) -> (u64, Bytes) {
    let body = &half.message.body;
    (body.len() as u64, if wanted { body.clone() } else { Bytes::new() })
}

/// What the broker knows of the message beside what its producer said.
fn attributes(half: &StoredMessage) -> Vec<(String, String)> {
    let kind = match half.message.kind {
        MessageKind::Normal => "normal",
        MessageKind::Fifo => "fifo",
        MessageKind::Delay => "delay",
        MessageKind::Transaction => "transaction",
    };
    let mut attributes = vec![("message-type".to_owned(), kind.to_owned())];
    if let Some(trace) = &half.message.trace_context {
        attributes.push(("trace-context".to_owned(), trace.clone()));
    }
    attributes
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use vouch_broker::NewMessage;

    use super::*;

    fn half(encoding: BodyEncoding, body: Vec<u8>) -> StoredMessage {
        let message = NewMessage {
            message_id: "m".to_owned(),
            tag: None,
            keys: vec![],
            properties: vec![],
            kind: MessageKind::Transaction,
            encoding,
            born_at: Millis(1),
            born_host: "h".to_owned(),
            trace_context: None,
            message_group: None,
            deliver_at: None,
            recovery_ms: None,
            body: body.into(),
        };
        StoredMessage { message, producer: "p".to_owned(), stored_at: Millis(2) }
    }

    fn gzip(body: &[u8]) -> StoredMessage {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(body).unwrap();
        half(BodyEncoding::Gzip, encoder.finish().unwrap())
    }

    #[test]
    fn a_component_that_wants_the_body_gets_it_decompressed_up_to_what_it_can_take() {
        let compressed = gzip(&[7; 1000]);
        assert_eq!(body_for(&compressed, true, 1000), Ok((1000, Bytes::from(vec![7; 1000]))));
        assert_eq!(body_for(&compressed, true, 999), Err(DecompressError::TooLarge(999)));
        let (len, body) = as_sent(&compressed, true);
        assert_eq!((len, body), (compressed.message.body.len() as u64, compressed.message.body.clone()));
        let plain = half(BodyEncoding::Identity, vec![7; 1000]);
        assert_eq!(body_for(&plain, true, 999), Ok((1000, plain.message.body.clone())), "it is in memory anyway");
    }

    #[test]
    fn a_component_that_wants_no_body_learns_its_size_and_nothing_is_kept_of_it() {
        assert_eq!(body_for(&gzip(&[7; 1000]), false, 0), Ok((1000, Bytes::new())));
        assert_eq!(body_for(&half(BodyEncoding::Identity, vec![7; 10]), false, 0), Ok((10, Bytes::new())));
        let bomb = gzip(&vec![0; DECOMPRESSED_BODY_MAX_BYTES + 1]);
        assert_eq!(body_for(&bomb, false, 0), Err(DecompressError::TooLarge(DECOMPRESSED_BODY_MAX_BYTES)));
        assert_eq!(as_sent(&bomb, false).1, Bytes::new());
    }

    #[test]
    fn a_body_that_is_not_what_its_encoding_says_is_handed_over_as_it_came() {
        let broken = half(BodyEncoding::Gzip, b"plain".to_vec());
        assert_eq!(body_for(&broken, true, 1000), Err(DecompressError::Format));
        assert_eq!(as_sent(&broken, true), (5, Bytes::from_static(b"plain")));
    }
}
