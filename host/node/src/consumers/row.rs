//! Whether deliveries fail for their messages, or for what they all need (ruling 9).
//!
//! Deliveries that fail one after the other, of several messages, tell of an outage or a bad deploy: the binding pauses, and
//! what was counted against the messages is given back. Pure.
//!
//! | a delivery fails | it is the fault of |
//! |---|---|
//! | right after one that succeeded | its message: after the last delivery that is a dead letter |
//! | as the tenth of that message, and fewer than three messages failed in the row | its message: nobody else is there to tell |
//! | as the tenth of a row of three messages at least | the binding, which pauses |
//! | while the binding pauses | the binding |
//! | otherwise | nobody yet: it counts, but is not to be the message's last |

use std::collections::HashMap;
use std::time::Duration;

use vouch_broker::{Generation, GroupId, QueueOffset, TopicId};

/// So many failed deliveries in a row, of at least so many messages, pause a binding.
const FAILURES: usize = 10;
const MESSAGES: usize = 3;
/// Pause between two probes: 1, 2, 4 … up to this.
const PROBE_EVERY_MAX: Duration = Duration::from_secs(60);
/// See [`FailureRow::make_way`].
const MAKE_WAY_LEAST: Duration = Duration::from_secs(600);
const MAKE_WAY_MOST: Duration = Duration::from_hours(24);

/// A message in the hands of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    /// Who has it.
    pub(super) group: GroupId,
    /// Of which topic it is.
    pub(super) topic: TopicId,
    /// In which queue.
    pub(super) queue: u32,
    /// And where there.
    pub(super) offset: QueueOffset,
}

/// Failed deliveries of one message in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failed {
    /// Under which it waits since the last one: of another generation it was delivered again.
    pub(super) generation: Generation,
    /// Those that count as attempts.
    pub(super) counted: u32,
    /// All of them.
    deliveries: u32,
    /// The last one counted when it was noted; otherwise the message waits as one that was suspended.
    pub(super) last_counted: bool,
}

/// What a failed delivery means for its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    /// It is the message's own: it counts, and after the last one the message is a dead letter.
    Message,
    /// Nobody knows yet whose it is. It counts, but is not to be the message's last.
    Nobody,
    /// The binding pauses: it counts nothing.
    Binding,
}

/// What became of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FailedDelivery {
    pub(super) blame: Blame,
    /// It counts as an attempt.
    pub(super) counted: bool,
    /// The binding pauses from now on; what counted is then taken by [`FailureRow::take_counted`].
    pub(super) pauses: bool,
}

/// Outcomes of one binding's deliveries, as this leader saw them.
#[derive(Debug, Default)]
pub(super) struct FailureRow {
    failed: HashMap<Place, Failed>,
    failures: usize,
    /// A delivery succeeded since this leader began, and the row since then.
    succeeded: bool,
    /// Probes without success, while it pauses.
    paused: Option<u32>,
}

impl FailureRow {
    /// Whether the binding pauses.
    pub(super) fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    /// How long until the next probe, while it pauses.
    pub(super) fn next_probe(&self) -> Option<Duration> {
        let probes = self.paused?;
        Some(Duration::from_secs(1 << probes.min(10)).min(PROBE_EVERY_MAX))
    }

    /// A delivery succeeded: the row is over, and so is a pause. If there was one: what waits that failed in it.
    pub(super) fn succeeded(&mut self) -> Option<Vec<(Place, Failed)>> {
        (self.succeeded, self.failures) = (true, 0);
        let failed = std::mem::take(&mut self.failed);
        self.paused.take().map(|_| failed.into_iter().collect())
    }

    /// Whose a failure is that just happened, before it is noted.
    fn blame(&self, place: Place) -> Blame {
        if self.is_paused() {
            return Blame::Binding;
        }
        let messages = self.failed.len() + usize::from(!self.failed.contains_key(&place));
        if self.failures + 1 >= FAILURES && messages >= MESSAGES {
            return Blame::Binding;
        }
        let of_this = self.failed.get(&place).map_or(0, |failed| failed.deliveries) as usize + 1;
        let others_succeed = self.succeeded && self.failures == 0;
        let nobody_else = messages < MESSAGES && of_this >= FAILURES;
        if others_succeed || nobody_else { Blame::Message } else { Blame::Nobody }
    }

    /// A delivery failed, and its message will wait under this generation; `last`: no other delivery is to follow. What that means
    /// for the message is decided and noted at once: of several that fail together each knows of the others.
    pub(super) fn failed(&mut self, place: Place, generation: Generation, last: bool) -> FailedDelivery {
        let blame = self.blame(place);
        let counted = match blame {
            Blame::Message => true,
            Blame::Nobody => !last,
            Blame::Binding => false,
        };
        let pauses = self.note(place, generation, counted);
        if blame == Blame::Message && last {
            // There is nothing to give back to a dead letter.
            self.failed.remove(&place);
        }
        FailedDelivery { blame, counted, pauses }
    }

    /// Adds a failure to the row. Returns whether it is the one that lets the binding pause.
    fn note(&mut self, place: Place, generation: Generation, counted: bool) -> bool {
        self.failures += 1;
        let failed =
            self.failed.entry(place).or_insert(Failed { generation, counted: 0, deliveries: 0, last_counted: counted });
        (failed.generation, failed.last_counted) = (generation, counted);
        failed.deliveries += 1;
        failed.counted += u32::from(counted);
        if self.is_paused() {
            return false;
        }
        let pauses = self.failures >= FAILURES && self.failed.len() >= MESSAGES;
        if pauses {
            self.paused = Some(0);
        }
        pauses
    }

    /// A probe was made. If it did not end the pause, the next one comes later.
    pub(super) fn probed(&mut self) {
        if let Some(probes) = &mut self.paused {
            *probes = probes.saturating_add(1);
        }
    }

    /// How long what failed while it pauses makes way for others: longer than it takes to probe all that failed, so that a good
    /// message has its turn among them. When the pause ends they are woken.
    pub(super) fn make_way(&self) -> Duration {
        let failed = u32::try_from(self.failed.len()).unwrap_or(u32::MAX);
        MAKE_WAY_LEAST.max(PROBE_EVERY_MAX.saturating_mul(2).saturating_mul(failed)).min(MAKE_WAY_MOST)
    }

    /// The binding ends: what waits for the end of its pause, if it pauses.
    pub(super) fn take_waiting(&mut self) -> Vec<(Place, Failed)> {
        if self.paused.take().is_none() {
            return Vec::new();
        }
        std::mem::take(&mut self.failed).into_iter().collect()
    }

    /// What counted in this row, which counts no more.
    pub(super) fn take_counted(&mut self) -> Vec<(Place, Failed)> {
        let mut counted: Vec<(Place, Failed)> = self
            .failed
            .iter()
            .filter(|(_, failed)| failed.counted > 0)
            .map(|(place, failed)| (*place, *failed))
            .collect();
        counted.sort_unstable_by_key(|(place, _)| *place);
        self.failed.values_mut().for_each(|failed| failed.counted = 0);
        counted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(offset: u64) -> Place {
        Place { group: GroupId(1), topic: TopicId(1), queue: 0, offset: QueueOffset(offset) }
    }

    /// One failure, after which another delivery may follow.
    fn fail(row: &mut FailureRow, offset: u64, generation: u64) -> (Blame, bool) {
        let FailedDelivery { blame, pauses, .. } = row.failed(place(offset), Generation(generation), false);
        (blame, pauses)
    }

    #[test]
    fn ten_failures_in_a_row_of_three_messages_pause_and_give_back_what_counted() {
        let mut row = FailureRow::default();
        for n in 0..9 {
            assert_eq!(fail(&mut row, n % 3, n), (Blame::Nobody, false), "{n}");
        }
        assert_eq!(fail(&mut row, 0, 9), (Blame::Binding, true));
        assert!(row.is_paused());
        let counted: Vec<_> =
            row.take_counted().into_iter().map(|(at, f)| (at.offset.0, f.generation.0, f.counted)).collect();
        assert_eq!(counted, [(0, 9, 3), (1, 7, 3), (2, 8, 3)]);
        assert!(row.take_counted().is_empty(), "once");
        assert_eq!(fail(&mut row, 7, 10), (Blame::Binding, false), "what was under way counts nothing");
        assert!(row.take_counted().is_empty());
    }

    #[test]
    fn one_success_ends_a_row() {
        let mut row = FailureRow::default();
        for n in 0..9 {
            fail(&mut row, n, n);
        }
        assert!(row.succeeded().is_none(), "it did not pause");
        for n in 0..9 {
            let expected = if n == 0 { Blame::Message } else { Blame::Nobody };
            assert_eq!(fail(&mut row, n, n), (expected, false));
        }
        assert_eq!(fail(&mut row, 9, 9), (Blame::Binding, true));
        let waiting = row.succeeded().expect("it goes on");
        let mut waiting: Vec<_> = waiting.into_iter().map(|(at, failed)| (at.offset.0, failed.last_counted)).collect();
        waiting.sort_unstable();
        assert_eq!(waiting, (0..10).map(|n| (n, n < 9)).collect::<Vec<_>>());
        assert!(!row.is_paused() && row.next_probe().is_none());
    }

    #[test]
    fn a_message_that_fails_among_others_that_succeed_is_to_blame() {
        let mut row = FailureRow::default();
        for _ in 0..100 {
            row.succeeded();
            assert_eq!(fail(&mut row, 5, 1), (Blame::Message, false));
        }
    }

    #[test]
    fn a_message_that_fails_and_has_nobody_beside_it_is_to_blame_after_ten_times() {
        let mut row = FailureRow::default();
        for n in 0..9 {
            assert_eq!(fail(&mut row, 5, n), (Blame::Nobody, false));
        }
        for n in 9..30 {
            assert_eq!(fail(&mut row, 5, n), (Blame::Message, false), "two of three messages are missing");
        }
        assert_eq!(fail(&mut row, 6, 30).0, Blame::Nobody, "another one, for the first time");
    }

    #[test]
    fn probes_come_after_one_two_four_seconds_and_then_each_minute() {
        let mut row = FailureRow::default();
        assert_eq!(row.next_probe(), None);
        for n in 0..10 {
            fail(&mut row, n, n);
        }
        let mut pauses = Vec::new();
        for n in 0..9 {
            pauses.push(row.next_probe().unwrap().as_secs());
            fail(&mut row, 1, n);
            fail(&mut row, 2, n);
            row.probed();
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60], "what else fails meanwhile is no probe");
    }

    #[test]
    fn what_failed_makes_way_for_longer_than_all_of_it_is_probed() {
        let mut row = FailureRow::default();
        for n in 0..10 {
            fail(&mut row, n, n);
        }
        assert!(row.make_way() >= PROBE_EVERY_MAX * 10);
        for n in 10..100 {
            fail(&mut row, n, n);
        }
        assert!(row.make_way() >= PROBE_EVERY_MAX * 100);
        assert_eq!(row.take_waiting().len(), 100);
        assert!(!row.is_paused() && row.take_waiting().is_empty());
    }

    #[test]
    fn of_last_attempts_that_fail_together_only_that_of_a_message_to_blame_is_its_last() {
        let mut row = FailureRow::default();
        row.succeeded();
        let last = |row: &mut FailureRow, offset| row.failed(place(offset), Generation(offset), true);
        let first = last(&mut row, 1);
        assert_eq!((first.blame, first.counted), (Blame::Message, true), "others succeed");
        let second = last(&mut row, 2);
        assert_eq!((second.blame, second.counted), (Blame::Nobody, false), "another one failed since");
    }

    #[test]
    fn a_dead_letter_gets_nothing_back() {
        let mut row = FailureRow::default();
        row.succeeded();
        row.failed(place(4), Generation(4), true);
        for n in 10..19 {
            fail(&mut row, n, n);
        }
        assert!(row.is_paused());
        let counted: Vec<u64> = row.take_counted().into_iter().map(|(at, _)| at.offset.0).collect();
        assert_eq!(counted, (10..18).collect::<Vec<_>>());
    }
}
