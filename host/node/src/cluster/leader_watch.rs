//! For how long this node has known of no leader.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::sleep;
use vouch_consensus::Role;
use vouch_shard::Shard;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Remembers since when no leader is known, so that an election is told from a group that cannot elect.
#[derive(Default)]
pub(crate) struct LeaderWatch {
    /// `None`: one is known, or nobody has looked yet.
    since: Mutex<Option<Instant>>,
}

impl LeaderWatch {
    /// Looks again and again, until the shard is gone.
    pub(crate) async fn watch(self: Arc<Self>, shard: Arc<Shard>) {
        while let Ok(group) = shard.group().await {
            self.note(!matches!(group.role, Role::Follows { leader: None }), Instant::now());
            sleep(LOOK_EVERY).await;
        }
    }

    /// For how long none has been known; `None` while one is.
    pub(super) fn without(&self, now: Instant) -> Option<Duration> {
        let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.map(|since| now.saturating_duration_since(since))
    }

    fn note(&self, is_known: bool, now: Instant) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        *since = if is_known { None } else { since.or(Some(now)) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_without_a_leader_counts_from_the_first_look_that_found_none_and_ends_with_one() {
        let (watch, begin) = (LeaderWatch::default(), Instant::now());
        let at = |ms| begin + Duration::from_millis(ms);
        assert_eq!(watch.without(at(0)), None);
        watch.note(false, at(0));
        watch.note(false, at(250));
        assert_eq!(watch.without(at(400)), Some(Duration::from_millis(400)));
        watch.note(true, at(500));
        assert_eq!(watch.without(at(600)), None);
        watch.note(false, at(700));
        assert_eq!(watch.without(at(800)), Some(Duration::from_millis(100)));
    }
}
