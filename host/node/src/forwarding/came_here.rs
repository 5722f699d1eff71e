//! What consumers of this node got of late: a leader that begins extends no lease that may be lost, and asks what is not.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use vouch_broker::Generation;

use crate::Delivery;

/// What came here is remembered for so long.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// The most batches that are remembered.
const KEPT_MAX: usize = 200_000;

/// Batches that came here from other nodes of late, for consumers whose leases the broker extends.
#[derive(Default)]
pub(super) struct CameHere(Mutex<VecDeque<(Instant, Arc<str>, Generation)>>);

impl CameHere {
    /// A batch came for this client.
    pub(super) fn put(&self, client_id: &str, deliveries: &[Delivery], at: Instant) {
        let Some(first) = deliveries.first() else { return };
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while kept.len() >= KEPT_MAX
            || kept.front().is_some_and(|(came, ..)| at.saturating_duration_since(*came) > KEPT_FOR)
        {
            kept.pop_front();
        }
        kept.push_back((at, client_id.into(), first.handle.generation));
    }

    /// All of them, by the generations of their leases.
    pub(super) fn all(&self) -> Vec<Generation> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().map(|(_, _, generation)| *generation).collect()
    }

    /// Those of one client.
    pub(super) fn of(&self, client_id: &str) -> Vec<Generation> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().filter(|(_, client, _)| **client == *client_id).map(|(_, _, generation)| *generation).collect()
    }
}
