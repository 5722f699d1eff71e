//! Who leads, as this node sees it change, and for how long it has known of nobody.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use vouch_cluster::NodeId;
use vouch_shard::{GroupStanding, Shard};

use super::standing;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A shard that does not answer for longer than this waits for its disk, or for a turn of the processor.
const ANSWERS_WITHIN: Duration = Duration::from_secs(1);

/// Remembers since when no leader is known, so that an election is told from a group that cannot elect.
#[derive(Default)]
pub(crate) struct LeaderWatch {
    /// `None`: one is known, or nobody has looked yet.
    since: Mutex<Option<Instant>>,
    /// Since when the shard has answered nothing; `None`: it does.
    silent_since: Mutex<Option<Instant>>,
}

impl LeaderWatch {
    /// Looks again and again, until the shard is gone.
    pub(crate) async fn watch(self: Arc<Self>, shard: Arc<Shard>) {
        let mut told = None;
        loop {
            let asked = Instant::now();
            let group = match timeout(ANSWERS_WITHIN, shard.group()).await {
                Ok(Ok(group)) => group,
                Ok(Err(_)) => return,
                Err(_) => {
                    self.is_silent(Some(asked));
                    continue;
                }
            };
            self.is_silent(None);
            let leader = standing::leader(&group);
            self.note(leader.is_some(), Instant::now());
            if told != Some((leader, group.term)) && (told.is_some() || !group.members.is_only(group.node)) {
                tell(leader, &group);
            }
            told = Some((leader, group.term));
            sleep(LOOK_EVERY).await;
        }
    }

    /// For how long none has been known; `None` while one is.
    pub(super) fn without(&self, now: Instant) -> Option<Duration> {
        let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.map(|since| now.saturating_duration_since(since))
    }

    /// For how long the shard has answered nothing; `None` while it does.
    pub(super) fn silent(&self, now: Instant) -> Option<Duration> {
        let since = *self.silent_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.map(|since| now.saturating_duration_since(since))
    }

    /// The shard did not answer what it was asked then, or it did.
    fn is_silent(&self, asked: Option<Instant>) {
        let mut silent = self.silent_since.lock().unwrap_or_else(PoisonError::into_inner);
        *silent = asked.map(|asked| silent.unwrap_or(asked));
    }

    /// A look found a leader, or none.
    fn note(&self, is_known: bool, now: Instant) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        *since = if is_known { None } else { since.or(Some(now)) };
    }
}

/// Writes down who leads since when.
fn tell(leader: Option<NodeId>, group: &GroupStanding) {
    let (me, term) = (group.node, group.term);
    match leader {
        Some(leader) if leader == me => tracing::info!(term, "this node leads"),
        Some(leader) => tracing::info!(term, node = %leader, "another node leads"),
        None => tracing::warn!(term, "no node is known to lead: nothing is written until one is elected"),
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
        watch.is_silent(Some(at(1_000)));
        watch.is_silent(Some(at(2_000)));
        assert_eq!(watch.silent(at(3_000)), Some(Duration::from_secs(2)), "since it was asked first");
        watch.is_silent(None);
        assert_eq!(watch.silent(at(3_000)), None);
    }
}
