//! Small things for tests.

use bytes::Bytes;

use crate::{BodyEncoding, MessageKind, Millis, NewMessage};

/// A plain message with this id.
pub(crate) fn message(id: &str) -> NewMessage {
    NewMessage {
        message_id: id.to_owned(),
        tag: None,
        keys: vec![],
        properties: vec![],
        kind: MessageKind::Normal,
        encoding: BodyEncoding::Identity,
        born_at: Millis(5),
        born_host: "host".to_owned(),
        trace_context: None,
        message_group: None,
        deliver_at: None,
        recovery_ms: None,
        body: Bytes::from_static(b"body"),
    }
}
