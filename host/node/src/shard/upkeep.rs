//! What the executor looks after once a second: leases, filters that nobody has, parts that are damaged.

use std::time::{Duration, Instant};

use vouch_broker::ResourceName;
use vouch_broker::state::Copies;
use vouch_commitlog::EntryKind;

use super::executor::Executor;

/// A part that could not be mended is tried again after this long.
const MEND_AGAIN_AFTER: Duration = Duration::from_secs(60);

impl Executor {
    /// What the state was asked and cannot say any more may have been a wrong answer: nothing is built on it. A start finds
    /// what is whole, elsewhere.
    pub(super) fn stop_at_lost_parts(&mut self) {
        if self.closed.is_none()
            && let Some(part) = self.state.lost_parts().first()
        {
            self.poison(format!("part {part} of the index is damaged in both copies; see `vouch log verify`"));
        }
    }

    /// Where no more was written because a part of the index is lost, the log itself is well, and its end is to be covered
    /// like any other. Nothing else is written to it.
    pub(super) fn cover_what_a_lost_part_closed(&mut self) {
        let time = self.time();
        let (Some(appender), Some(leadership)) = (self.appender.as_mut(), self.leadership.as_mut()) else { return };
        if self.closed.is_some()
            && appender.poisoned().is_none()
            && !appender.is_covered()
            && appender.durable() == appender.appended()
        {
            match appender.append(leadership.header(EntryKind::Mark, time), &[]) {
                Ok(_) => leadership.appended(),
                Err(error) => tracing::warn!(%error, "the end of the log is not covered by a mark"),
            }
        }
    }

    /// Damage that was met in parts is mended by those who make snapshots: asked for once, and again while it is not.
    pub(super) fn tell_damaged_parts(&mut self, now: Instant) {
        let damaged = self.state.damaged_parts();
        let is_told = |(at, told): &(Instant, Vec<u64>)| *told == damaged && now < *at + MEND_AGAIN_AFTER;
        if damaged.is_empty() {
            self.damaged_told = None;
        } else if !self.damaged_told.as_ref().is_some_and(is_told) {
            self.shared.snapshots.damaged(damaged.iter().copied());
            self.damaged_told = Some((now, damaged));
        }
    }

    /// The state reads from now on from this part what it holds so far in memory.
    pub(super) fn adopt(&mut self, part: u64, copies: Copies) {
        if let Err(error) = self.state.adopt(part, copies) {
            // The state stays as it is: right, and larger than it need be.
            tracing::error!(%error, part, "the running state differs from its snapshot; restart the node and report this");
        }
    }

    /// Copies of a part were mended.
    pub(super) fn read_from(&mut self, part: u64, copies: Copies) {
        // What is met from now on is new.
        self.damaged_told = None;
        match self.state.read_from(part, copies) {
            Ok(()) => tracing::info!(part, "a part of the index is read from copies that are whole"),
            Err(error) => tracing::error!(%error, part, "a part of the index that was mended cannot be read"),
        }
    }

    /// Ends sessions whose time is over; where thousands are, the rest in the next turns.
    pub(super) fn end_sessions(&mut self, now: Instant) {
        let over = self.shared.sessions.expire(now);
        self.sessions_left = over.more;
        if self.closed.is_none() {
            self.orphans.add(over.dead);
        }
    }

    /// Extends the leases of consumers that live, and gives up those of consumers that died.
    pub(super) fn renew_leases(&mut self, at: Instant) {
        let now = self.shared.clock.now();
        let sessions = &self.shared.sessions;
        let is_alive = |client: &str| sessions.keeps_leases(client, at);
        let given_up = self.orphans.take(&self.state, now, is_alive);
        let renewals = super::renewal::due(&self.state, now, is_alive);
        for change in given_up {
            self.propose_own(|out| change.encode(out));
        }
        for renewal in renewals {
            self.propose_own(|out| renewal.encode(out));
        }
    }

    pub(super) fn let_filters_go(&mut self, now: Instant) {
        let sessions = &self.shared.sessions;
        let has_member = |group: &ResourceName, topic: &ResourceName| sessions.has_member_on(group, topic);
        for gone in self.absences.look(&self.state, has_member, |place| sessions.has_filter(place), now) {
            self.propose_own(|out| gone.encode(out));
        }
    }
}
