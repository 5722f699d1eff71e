//! Messages that were handed out to other nodes a moment ago: where one says that it never got them, they are given back.
//!
//! The broker extends leases of consumers that live. What is lost on the way to one would be his for hours otherwise.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use vouch_broker::{Generation, Handle};
use vouch_cluster::NodeId;

/// A node that gets no answer says so within this long.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// The most answers that are kept.
const KEPT_MAX: usize = 100_000;

/// A receive of another node, by the number that it gave it.
type Ticket = (NodeId, u64);

/// What became of one. `None`: that node said that it gets nothing, before this one had anything for it.
type HandedOut = Option<Vec<Handle>>;

/// What is kept of them: at most `KEPT_MAX`, for `KEPT_FOR`.
#[derive(Default)]
struct Kept {
    by_ticket: HashMap<Ticket, HandedOut>,
    /// In the order in which they are forgotten; some were taken out before.
    oldest: VecDeque<(Instant, Ticket)>,
}

/// Answers to receives of other nodes.
#[derive(Default)]
pub(crate) struct HandedOutThere(Mutex<Kept>);

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
        kept.forget_old(at);
        if kept.by_ticket.contains_key(&(to, ticket)) {
            return false;
        }
        kept.insert((to, ticket), Some(handles), at);
        true
    }

    /// Batches that went to a node of late.
    pub(crate) fn went_to(&self, node: NodeId) -> Vec<Generation> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.forget_old(Instant::now());
        let theirs = kept.by_ticket.iter().filter(|((to, _), _)| *to == node);
        theirs.filter_map(|(_, handles)| Some(handles.as_ref()?.first()?.generation)).collect()
    }

    /// The node never got them: takes them out, once.
    pub(super) fn take(&self, to: NodeId, ticket: u64, at: Instant) -> NeverGot {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.forget_old(at);
        match kept.by_ticket.insert((to, ticket), None) {
            Some(Some(handles)) => NeverGot::These(handles),
            Some(None) => NeverGot::Unknown,
            None => {
                kept.oldest.push_back((at, (to, ticket)));
                NeverGot::Unknown
            }
        }
    }
}

impl Kept {
    /// Keeps what went out on a ticket that is not known yet.
    fn insert(&mut self, ticket: Ticket, handles: HandedOut, at: Instant) {
        self.by_ticket.insert(ticket, handles);
        self.oldest.push_back((at, ticket));
    }

    /// Makes room: whoever was to speak up by now has done so.
    fn forget_old(&mut self, at: Instant) {
        let is_old = |(first, _): &(Instant, Ticket)| at.saturating_duration_since(*first) > KEPT_FOR;
        while self.oldest.front().is_some_and(is_old) || self.oldest.len() >= KEPT_MAX {
            if let Some((_, ticket)) = self.oldest.pop_front() {
                self.by_ticket.remove(&ticket);
            }
        }
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
