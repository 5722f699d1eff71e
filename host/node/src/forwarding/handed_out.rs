//! Messages that were handed out to other nodes a moment ago: where one says that it never got them, they are given back.
//!
//! The broker extends leases of consumers that live. What is lost on the way to one would be his for hours otherwise.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use vouch_broker::{Generation, Handle};
use vouch_cluster::NodeId;

/// A node that gets no answer says so within this long.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// The most answers that are kept.
const KEPT_MAX: usize = 100_000;

/// What became of one receive of another node.
struct HandedOut {
    at: Instant,
    to: NodeId,
    ticket: u64,
    /// `None`: that node said that it gets nothing, before this one had anything for it.
    handles: Option<Vec<Handle>>,
}

/// Answers to receives of other nodes.
#[derive(Default)]
pub(crate) struct HandedOutThere(Mutex<VecDeque<HandedOut>>);

/// What a node never got.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NeverGot {
    /// These.
    These(Vec<Handle>),
    /// Nothing of this leader's, or what comes is not handed out.
    Unknown,
}

impl HandedOutThere {
    /// These messages are to go to a node, by the number that it gave its receive. Returns whether they may: it has not said
    /// meanwhile that it gets nothing.
    pub(super) fn put(&self, to: NodeId, ticket: u64, handles: Vec<Handle>, at: Instant) -> bool {
        if handles.is_empty() {
            return true;
        }
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        forget_old(&mut kept, at);
        if kept.iter().any(|one| (one.to, one.ticket) == (to, ticket)) {
            return false;
        }
        kept.push_back(HandedOut { at, to, ticket, handles: Some(handles) });
        true
    }

    /// Batches that went to a node of late.
    pub(crate) fn went_to(&self, node: NodeId) -> Vec<Generation> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let handles = kept.iter().filter(|one| one.to == node).filter_map(|one| one.handles.as_ref()?.first());
        handles.map(|handle| handle.generation).collect()
    }

    /// The node never got them: takes them out, once.
    pub(super) fn take(&self, to: NodeId, ticket: u64, at: Instant) -> NeverGot {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        forget_old(&mut kept, at);
        let found = kept.iter().position(|one| (one.to, one.ticket) == (to, ticket));
        match found.and_then(|at| kept.remove(at)).and_then(|one| one.handles) {
            Some(handles) => NeverGot::These(handles),
            None => {
                kept.push_back(HandedOut { at, to, ticket, handles: None });
                NeverGot::Unknown
            }
        }
    }
}

fn forget_old(kept: &mut VecDeque<HandedOut>, at: Instant) {
    let is_old = |first: &HandedOut| at.saturating_duration_since(first.at) > KEPT_FOR;
    while kept.front().is_some_and(is_old) || kept.len() >= KEPT_MAX {
        kept.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::served_shard::SHARD;
    use vouch_broker::{GroupId, Millis, QueueOffset, TopicId};

    fn handle(offset: u64) -> Handle {
        Handle {
            shard: SHARD,
            topic: TopicId(1),
            group: GroupId(1),
            queue: 0,
            offset: QueueOffset(offset),
            generation: Generation(1),
            deadline: Millis(1),
        }
    }

    #[test]
    fn what_a_node_never_got_is_taken_back_once_and_only_for_a_while() {
        let (there, now) = (HandedOutThere::default(), Instant::now());
        assert!(there.put(NodeId(2), 7, vec![handle(1)], now));
        assert!(there.put(NodeId(3), 7, vec![handle(2)], now));
        assert_eq!(there.take(NodeId(2), 8, now), NeverGot::Unknown);
        assert_eq!(there.take(NodeId(2), 7, now), NeverGot::These(vec![handle(1)]));
        assert_eq!(there.take(NodeId(2), 7, now), NeverGot::Unknown, "once");
        let later = now + KEPT_FOR + Duration::from_millis(1);
        assert_eq!(there.take(NodeId(3), 7, later), NeverGot::Unknown, "its lease is left alone by now");
    }

    #[test]
    fn what_comes_for_a_node_that_gets_nothing_is_not_handed_out() {
        let (there, now) = (HandedOutThere::default(), Instant::now());
        assert_eq!(there.take(NodeId(2), 7, now), NeverGot::Unknown);
        assert!(!there.put(NodeId(2), 7, vec![handle(1)], now));
        assert!(there.put(NodeId(2), 8, vec![handle(1)], now) && there.put(NodeId(2), 7, vec![], now));
    }
}
