//! What a component is asked: about a transaction, or to consume a message.

use bytes::Bytes;

/// One ask: the record `pending` of the WIT interface `checkback`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pending {
    /// Stable for the life of the transaction.
    pub transaction_id: String,
    /// The half message.
    pub half: Message,
    /// Client id of the producer that sent it.
    pub producer: String,
    /// When the half was stored, in ms since 1970 by the log's clock.
    pub opened_at_ms: u64,
    /// When this ask was made, in ms since 1970 by the log's clock.
    pub asked_at_ms: u64,
    /// 1 for the first check.
    pub check_number: u32,
    /// 0: an `unknown` parks the transaction.
    pub checks_left: u32,
}

impl Pending {
    /// About how many bytes a component is handed with it: what a batch is bounded by.
    pub fn size(&self) -> usize {
        /// Of its numbers, and of what each text costs beside its letters.
        const FIXED: usize = 256;
        let Message { id, topic, tag, keys, message_group, properties, attributes, born_host, body, .. } = &self.half;
        let pairs = properties.iter().chain(attributes).map(|(name, value)| name.len() + value.len() + 16);
        let texts =
            [id.len(), topic.len(), born_host.len(), self.transaction_id.len(), self.producer.len(), body.len()];
        let optional = [tag, message_group].into_iter().flatten().map(String::len);
        let keys = keys.iter().map(|key| key.len() + 8);
        FIXED + texts.into_iter().chain(optional).chain(keys).chain(pairs).sum::<usize>()
    }
}

/// The record `message` of the WIT interface `types`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The id that the client made.
    pub id: String,
    /// Topic.
    pub topic: String,
    /// Tag, if set.
    pub tag: Option<String>,
    /// Business keys.
    pub keys: Vec<String>,
    /// Ordering key, on ordered messages only.
    pub message_group: Option<String>,
    /// What the producer set.
    pub properties: Vec<(String, String)>,
    /// What the broker knows besides.
    pub attributes: Vec<(String, String)>,
    /// When it was made, in ms since 1970 by the producer's clock.
    pub born_at_ms: u64,
    /// Where it was made.
    pub born_host: String,
    /// When it was stored, in ms since 1970 by the log's clock.
    pub stored_at_ms: u64,
    /// Bytes in the decoded body, also where `body` is left out.
    pub body_size: u32,
    /// The decoded body. A binding with `"body": false` hands the guest an empty one whatever stands here, so the caller
    /// need not read it from the log.
    pub body: Bytes,
}

/// One delivery of one message to one group: the record `delivery` of the WIT interface `consumer`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsumerDelivery {
    /// Unique, and the same for every delivery of this message to this group.
    pub delivery_key: String,
    /// The message.
    pub message: Message,
    /// The consumer group that the binding names.
    pub group: String,
    /// When this delivery was made, in ms since 1970 by the log's clock.
    pub delivered_at_ms: u64,
    /// 1 for the first delivery.
    pub attempt: u32,
    /// 0: anything but [`crate::ConsumerVerdict::Ack`] sends the message to the dead-letter topic.
    pub attempts_left: u32,
}
