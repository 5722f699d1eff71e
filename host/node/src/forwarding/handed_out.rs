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
