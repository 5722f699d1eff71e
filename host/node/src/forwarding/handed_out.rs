//! Messages that were handed out to other nodes a moment ago: where one says that it never got them, they are given back.
//!
//! The broker extends leases of consumers that live. What is lost on the way to one would be his for hours otherwise.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use vouch_broker::Handle;
use vouch_cluster::NodeId;

use crate::Delivery;

/// A node that gets no answer says so within this long.
const KEPT_FOR: Duration = Duration::from_secs(30);
/// The most answers that are kept.
const KEPT_MAX: usize = 10_000;

struct HandedOut {
    at: Instant,
    to: NodeId,
    ticket: u64,
    handles: Vec<Handle>,
}

/// Answers to receives of other nodes.
#[derive(Default)]
pub(crate) struct HandedOutThere(Mutex<VecDeque<HandedOut>>);

impl HandedOutThere {
    /// These messages are on their way to a node, by the number that it gave its receive.
    pub(super) fn put(&self, to: NodeId, ticket: u64, deliveries: &[Delivery], at: Instant) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_old = |first: &HandedOut| at.saturating_duration_since(first.at) > KEPT_FOR;
        while kept.front().is_some_and(is_old) || kept.len() >= KEPT_MAX {
            kept.pop_front();
        }
        if !deliveries.is_empty() {
            let handles = deliveries.iter().map(|delivery| delivery.handle).collect();
            kept.push_back(HandedOut { at, to, ticket, handles });
        }
    }

    /// The node never got them: takes them out, once.
    pub(super) fn take(&self, to: NodeId, ticket: u64) -> Vec<Handle> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.iter().position(|one| (one.to, one.ticket) == (to, ticket));
        found.and_then(|at| kept.remove(at)).map(|one| one.handles).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::served_shard::SHARD;
    use vouch_broker::{BodyEncoding, Generation, GroupId, MessageKind, Millis, QueueOffset, TopicId};
    use vouch_broker::{NewMessage, StoredMessage};

    fn delivery(offset: u64) -> Delivery {
        let handle = Handle {
            shard: SHARD,
            topic: TopicId(1),
            group: GroupId(1),
            queue: 0,
            offset: QueueOffset(offset),
            generation: Generation(1),
            deadline: Millis(1),
        };
        let message = NewMessage {
            message_id: "m".to_owned(),
            tag: None,
            keys: vec![],
            properties: vec![],
            kind: MessageKind::Normal,
            encoding: BodyEncoding::Identity,
            born_at: Millis(1),
            born_host: "h".to_owned(),
            trace_context: None,
            message_group: None,
            deliver_at: None,
            recovery_ms: None,
            body: bytes::Bytes::from_static(b"x"),
        };
        Delivery {
            message: StoredMessage { message, producer: "p".to_owned(), stored_at: Millis(1) },
            queue: 0,
            offset: QueueOffset(offset),
            attempt: 1,
            handle,
            invisible_ms: 1,
            dead_letter_origin: None,
        }
    }

    #[test]
    fn what_a_node_never_got_is_taken_back_once_and_only_for_a_while() {
        let (there, now) = (HandedOutThere::default(), Instant::now());
        let (one, other) = (delivery(1), delivery(2));
        there.put(NodeId(2), 7, &[one.clone()], now);
        there.put(NodeId(3), 7, &[other], now);
        assert_eq!(there.take(NodeId(2), 8), []);
        assert_eq!(there.take(NodeId(2), 7), [one.handle]);
        assert_eq!(there.take(NodeId(2), 7), [], "once");
        there.put(NodeId(2), 9, &[], now + KEPT_FOR + Duration::from_millis(1));
        assert_eq!(there.take(NodeId(3), 7), [], "its lease is left alone by now");
    }
}
