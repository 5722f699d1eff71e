//! Whom a node asks from whose disk it takes what it lacks, and in which order.
//!
//! The node that leads comes first. It keeps what follows behind the log that another one takes from it, so whoever has taken that is
//! sent the rest. A node that follows cannot say to the leader what it gives: meanwhile the leader may let go of what comes behind it,
//! and whoever took that would lack something again, and take again, for ever where the cluster writes much.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A node whose files are unsound as they come from it is not asked again before: all of them would come once more.
const UNSOUND_FOR: Duration = Duration::from_secs(600);
/// As long as the node that leads is there and gives nothing, since another one takes from it, it alone is asked; but not for ever,
/// since its disk may refuse what another one's gives.
const LEADER_ALONE_FOR: Duration = Duration::from_secs(600);

/// For a node that can do without what it asks for it is enough when nothing has come for so long.
const ENOUGH_AFTER: Duration = Duration::from_secs(120);

/// Since when nothing has come that stays.
pub(super) struct Patience {
    since: Instant,
    least_missing: u64,
}

impl Patience {
    /// Nothing has come yet.
    pub(super) fn begins(now: Instant) -> Self {
        Self { since: now, least_missing: u64::MAX }
    }

    /// All were asked in vain, and so many bytes were missing at least so far. Whether that is enough.
    pub(super) fn is_over(&mut self, least_missing: u64, now: Instant) -> bool {
        if least_missing < self.least_missing {
            *self = Self { since: now, least_missing };
        }
        now.saturating_duration_since(self.since) >= ENOUGH_AFTER
    }
}

/// What became of asking so far.
#[derive(Default)]
pub(super) struct Sources {
    /// Whose files were unsound, and when.
    unsound: BTreeMap<u64, Instant>,
    /// Since when the one that leads refuses.
    refuses_since: Option<Instant>,
}

impl Sources {
    /// Whom to ask now, one after the other: whoever leads first, and nobody from whom nothing sound is to be had.
    pub(super) fn in_order(&self, nodes: &[u64], leader: Option<u64>, now: Instant) -> Vec<u64> {
        let others = nodes.iter().copied().filter(|node| Some(*node) != leader);
        let is_sound = |node: &u64| {
            self.unsound.get(node).is_none_or(|since| now.saturating_duration_since(*since) >= UNSOUND_FOR)
        };
        leader.into_iter().chain(others).filter(is_sound).collect()
    }

    /// What came from this node was unsound.
    pub(super) fn was_unsound(&mut self, node: u64, now: Instant) {
        self.unsound.insert(node, now);
    }

    /// The node that leads was asked in vain, and was reached and refused, or not. Whether those that follow are asked as well.
    pub(super) fn asks_others(&mut self, leader_refuses: bool, now: Instant) -> bool {
        if !leader_refuses {
            self.refuses_since = None;
            return true;
        }
        now.saturating_duration_since(*self.refuses_since.get_or_insert(now)) >= LEADER_ALONE_FOR
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_leads_is_asked_first_and_all_alike_where_nobody_knows_who_does() {
        let (sources, now) = (Sources::default(), Instant::now());
        assert_eq!(sources.in_order(&[0, 1, 2, 3], Some(2), now), [2, 0, 1, 3]);
        assert_eq!(sources.in_order(&[1, 2], Some(7), now), [7, 1, 2], "it came while this node was away");
        assert_eq!(sources.in_order(&[1, 2], None, now), [1, 2]);
    }

    #[test]
    fn whose_files_were_unsound_is_left_alone_for_a_while_though_it_leads() {
        let (mut sources, now) = (Sources::default(), Instant::now());
        sources.was_unsound(2, now);
        assert_eq!(sources.in_order(&[1, 2, 3], Some(2), now + UNSOUND_FOR / 2), [1, 3]);
        assert_eq!(sources.in_order(&[1, 2, 3], Some(2), now + UNSOUND_FOR), [2, 1, 3]);
    }

    #[test]
    fn it_is_enough_when_nothing_has_come_for_some_time_that_stays() {
        let now = Instant::now();
        let mut patience = Patience::begins(now);
        assert!(!patience.is_over(u64::MAX, now + ENOUGH_AFTER / 2));
        assert!(patience.is_over(u64::MAX, now + ENOUGH_AFTER), "there was no offer");
        assert!(!patience.is_over(700, now + ENOUGH_AFTER));
        assert!(!patience.is_over(300, now + ENOUGH_AFTER * 2), "some of it is here");
        assert!(!patience.is_over(300, now + ENOUGH_AFTER * 3 - Duration::from_secs(1)));
        assert!(patience.is_over(300, now + ENOUGH_AFTER * 3), "what comes does not stay");
    }

    #[test]
    fn one_that_leads_and_is_busy_is_waited_for_and_not_for_ever() {
        let (mut sources, now) = (Sources::default(), Instant::now());
        assert!(sources.asks_others(false, now), "it is not reached, or has nothing sound");
        assert!(!sources.asks_others(true, now));
        assert!(!sources.asks_others(true, now + LEADER_ALONE_FOR / 2));
        assert!(sources.asks_others(true, now + LEADER_ALONE_FOR));
        assert!(sources.asks_others(false, now + LEADER_ALONE_FOR));
        assert!(!sources.asks_others(true, now + LEADER_ALONE_FOR), "it is there again");
    }
}
