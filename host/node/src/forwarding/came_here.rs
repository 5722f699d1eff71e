//! What consumers of this node got of late: a leader that begins extends no lease that may be lost, and asks what is not.
//!
//! It lives in memory alone, so a node that was started anew has forgotten: it tells since when it remembers.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use vouch_broker::Generation;

use crate::Delivery;

/// What came here is remembered for so long.
const KEPT_FOR: Duration = Duration::from_secs(60);
/// The most batches that are remembered.
const KEPT_MAX: usize = 200_000;

/// Batches that came to consumers of this node of late, for those whose leases the broker extends: the generations of their
/// leases, and when they came.
pub(super) struct CameHere {
    /// Since when they are remembered: a node that was started anew knows nothing of before.
    pub(super) began: Instant,
    kept: Mutex<VecDeque<(Instant, Generation)>>,
}

impl CameHere {
    /// Nothing came yet.
    pub(super) fn new(began: Instant) -> Self {
        Self { began, kept: Mutex::default() }
    }

    /// A batch came.
    pub(super) fn put(&self, deliveries: &[Delivery], at: Instant) {
        let Some(first) = deliveries.first() else { return };
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        while kept.len() >= KEPT_MAX
            || kept.front().is_some_and(|(came, _)| at.saturating_duration_since(*came) > KEPT_FOR)
        {
            kept.pop_front();
        }
        kept.push_back((at, first.handle.generation));
    }

    /// Those that came since then; all that are remembered, where nothing was told of them yet.
    pub(super) fn since(&self, then: Option<Instant>) -> Vec<Generation> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let latest_first = kept.iter().rev().take_while(|(came, _)| then.is_none_or(|then| *came >= then));
        latest_first.map(|(_, generation)| *generation).collect()
    }
}

#[cfg(test)]
mod tests {
    use vouch_broker::testing::message;
    use vouch_broker::{GroupId, Handle, Millis, QueueOffset, StoredMessage, TopicId};

    use super::*;
    use crate::served_shard::SHARD;

    fn batch(generation: u64) -> Vec<Delivery> {
        let handle = Handle {
            shard: SHARD,
            topic: TopicId(1),
            group: GroupId(1),
            queue: 0,
            offset: QueueOffset(0),
            generation: Generation(generation),
            deadline: Millis(1),
        };
        let message = StoredMessage { message: message("m"), producer: "p".to_owned(), stored_at: Millis(1) };
        let delivery = Delivery {
            message,
            queue: 0,
            offset: QueueOffset(0),
            attempt: 1,
            handle,
            invisible_ms: 1,
            dead_letter_origin: None,
        };
        vec![delivery.clone(), delivery]
    }

    #[test]
    fn each_batch_is_remembered_once_and_for_a_while() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let came = CameHere::new(now);
        came.put(&[], now);
        came.put(&batch(1), now);
        came.put(&batch(2), now + second);
        assert_eq!(came.since(None), [2, 1].map(Generation));
        assert_eq!(came.since(Some(now + second)), [Generation(2)], "that moment included");
        assert_eq!(came.since(Some(now + second * 2)), []);
        came.put(&batch(3), now + KEPT_FOR + second);
        assert_eq!(came.since(None), [3, 2].map(Generation));
    }
}
