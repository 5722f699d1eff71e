//! A message as a producer hands it in, after validation.

use bytes::Bytes;

use crate::Millis;

/// What a message is, derived from its fields (protocol paper §4.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[repr(u8)]
pub enum MessageKind {
    /// Plain.
    Normal = 1,
    /// Ordered inside its message group.
    Fifo = 2,
    /// Delivered at a given time.
    Delay = 3,
    /// Half until its transaction ends.
    Transaction = 4,
}

impl MessageKind {
    /// The kind with this number in the log.
    pub fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Normal,
            2 => Self::Fifo,
            3 => Self::Delay,
            4 => Self::Transaction,
            _ => return None,
        })
    }
}

/// How the body bytes are encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[repr(u8)]
pub enum BodyEncoding {
    /// As is.
    Identity = 1,
    /// Compressed; the format is told by its first bytes (protocol paper §4.4.6).
    Gzip = 2,
}

impl BodyEncoding {
    /// The encoding with this number in the log.
    pub fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Identity,
            2 => Self::Gzip,
            _ => return None,
        })
    }
}

/// A validated message that is not in the log yet.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct NewMessage {
    /// Made by the client, kept as it is.
    pub message_id: String,
    /// At most one tag.
    pub tag: Option<String>,
    /// Index keys.
    pub keys: Vec<String>,
    /// User properties, sorted by name so that a resend has the same bytes.
    pub properties: Vec<(String, String)>,
    /// Derived from the fields.
    pub kind: MessageKind,
    /// Encoding of `body`.
    pub encoding: BodyEncoding,
    /// When the producer made it.
    pub born_at: Millis,
    /// Where it was made.
    pub born_host: String,
    /// Opaque tracing text.
    pub trace_context: Option<String>,
    /// Ordering key.
    pub message_group: Option<String>,
    /// When it becomes visible (delayed messages).
    pub deliver_at: Option<Millis>,
    /// First check of a half message this long after it was stored, in milliseconds; overrides the topic's immunity.
    pub recovery_ms: Option<u64>,
    /// As received, 1 byte to 4 MiB.
    pub body: Bytes,
}

/// A message read back from the log. The body is a slice of the record, not a copy.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StoredMessage {
    /// What the producer sent.
    pub message: NewMessage,
    /// Client id of the producer.
    pub producer: String,
    /// The log's time when it was stored.
    pub stored_at: Millis,
}
