//! Messages that components publish.

use vouch_broker::{BodyEncoding, MessageKind, Millis, NewMessage};
use vouch_plugin::Draft;

/// Where messages of components were made.
const BORN_HOST: &str = "vouch";

/// A draft as the message that it becomes.
pub(super) fn message(id: String, draft: &Draft, now: Millis) -> NewMessage {
    let mut properties = draft.properties.clone();
    properties.sort_unstable();
    let message_group = draft.message_group.clone().filter(|group| !group.is_empty());
    NewMessage {
        message_id: id,
        tag: draft.tag.clone().filter(|tag| !tag.is_empty()),
        keys: draft.keys.clone(),
        properties,
        kind: if message_group.is_some() { MessageKind::Fifo } else { MessageKind::Normal },
        encoding: BodyEncoding::Identity,
        born_at: now,
        born_host: BORN_HOST.to_owned(),
        trace_context: None,
        message_group,
        deliver_at: None,
        recovery_ms: None,
        body: draft.body.clone(),
    }
}
