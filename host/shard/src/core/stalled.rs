//! A leader whose disk takes nothing: its group decides on without it, and it cannot apply, and so not answer, what is decided. Another
//! member leads instead.

use std::time::{Duration, Instant};

use vouch_commitlog::LogPosition;
use vouch_consensus::FollowerProgress;
use vouch_leader::Outside;

use super::following::TICK;
use super::{Core, LogStanding};

/// A sync that takes longer than this, which is the least time in which a follower misses its leader, is taken for one that hangs.
const STALLED_AFTER: Duration = Duration::from_millis(20 * TICK.as_millis() as u64);
/// Leadership is given away once in this time at most: where all disks are slow, nobody leads better.
const GIVES_UP_EVERY: Duration = Duration::from_secs(60);

/// For how long the disk has taken nothing of what it was given.
#[derive(Debug, Default)]
pub(super) struct Stall {
    /// Everything before this position was durable when it was last looked.
    durable: LogPosition,
    /// Since when that is so, and more is to become durable.
    since: Option<Instant>,
    given_up: Option<Instant>,
}

impl Stall {
    /// Looks how far the log is.
    pub(super) fn look(&mut self, log: &LogStanding, now: Instant) {
        if log.durable >= log.appended {
            self.since = None;
        } else if log.durable != self.durable || self.since.is_none() {
            self.since = Some(now);
        }
        self.durable = log.durable;
    }

    /// For how long, if that is too long.
    fn too_long(&self, now: Instant) -> Option<Duration> {
        let lately = self.given_up.is_some_and(|at| now.saturating_duration_since(at) < GIVES_UP_EVERY);
        let since = now.saturating_duration_since(self.since?);
        (!lately && since > STALLED_AFTER).then_some(since)
    }
}

impl Core {
    /// Lets another member lead where the disk hangs, if one votes, is heard of, and has what is decided on its own.
    pub(super) fn give_up_with_the_disk(&mut self, outside: &dyn Outside) {
        let now = self.now.at;
        let (Some(since), Some(replica)) = (self.stall.too_long(now), &self.replica) else { return };
        if self.leader.is_none() || replica.slot().is_err() {
            return;
        }
        let may =
            |other: &FollowerProgress| other.is_heard && other.durable >= replica.commit() && replica.votes(other.node);
        let Some(next) = replica.followers().into_iter().filter(may).max_by_key(|other| other.durable) else { return };
        tracing::error!(
            to = %next.node, stalled_ms = since.as_millis() as u64,
            "the disk takes nothing that is written to it; another node is to lead"
        );
        self.stall.given_up = Some(now);
        self.replica.iter_mut().for_each(|replica| replica.hand_over(next.node));
        self.decide(outside);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(durable: u64, appended: u64) -> LogStanding {
        let (durable, appended) = (LogPosition(durable), LogPosition(appended));
        LogStanding { appended, durable, covered: false, mark_due_in: None, short: None, failed: false }
    }

    #[test]
    fn a_disk_is_stalled_when_nothing_becomes_durable_for_too_long_and_something_should() {
        let (mut stall, begin) = (Stall::default(), Instant::now());
        let at = |ms| begin + Duration::from_millis(ms);
        stall.look(&log(8, 8), at(0));
        assert_eq!(stall.too_long(at(60_000)), None, "nothing is to become durable");
        stall.look(&log(8, 9), at(60_000));
        stall.look(&log(8, 20), at(60_900));
        assert_eq!(stall.too_long(at(61_000)), None);
        assert_eq!(stall.too_long(at(61_001)), Some(Duration::from_millis(1_001)));
        stall.look(&log(9, 20), at(61_001));
        assert_eq!(stall.too_long(at(61_500)), None, "it is slow, and goes on");
        stall.given_up = Some(at(62_500));
        assert_eq!(stall.too_long(at(70_000)), None, "it was given up a moment ago");
        assert!(stall.too_long(at(62_500) + GIVES_UP_EVERY).is_some());
    }
}
