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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn draft() -> Draft {
        Draft {
            topic: "t".to_owned(),
            tag: Some("a".to_owned()),
            keys: vec!["k2".to_owned(), "k1".to_owned()],
            message_group: None,
            properties: vec![("z".to_owned(), "1".to_owned()), ("b".to_owned(), "2".to_owned())],
            body: Bytes::from_static(b"x"),
        }
    }

    #[test]
    fn a_message_is_made_of_a_draft_and_the_same_whenever_it_is_made() {
        let made = message("01".to_owned(), &draft(), Millis(7));
        assert_eq!(made, message("01".to_owned(), &draft(), Millis(7)));
        assert_eq!((made.message_id.as_str(), made.born_at, made.kind), ("01", Millis(7), MessageKind::Normal));
        let names: Vec<&str> = made.properties.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!((names, &made.keys), (vec!["b", "z"], &draft().keys), "properties by name, keys as they came");
        assert_eq!((made.tag.as_deref(), &made.body[..], made.deliver_at), (Some("a"), &b"x"[..], None));
    }

    #[test]
    fn what_is_empty_is_not_there() {
        let empty = Draft { tag: Some(String::new()), message_group: Some(String::new()), ..draft() };
        let made = message("01".to_owned(), &empty, Millis(7));
        assert_eq!((made.tag, made.message_group, made.kind), (None, None, MessageKind::Normal));
        let ordered = message("01".to_owned(), &Draft { message_group: Some("g".to_owned()), ..draft() }, Millis(7));
        assert_eq!((ordered.message_group.as_deref(), ordered.kind), (Some("g"), MessageKind::Fifo));
    }
}
