//! What is known of one binding: how long it holds a place, and how much it had. Pure: time is handed in.

use std::time::Duration;

/// Who holds a place for less than this is quick.
pub(super) const QUICK: Duration = Duration::from_secs(1);
/// A longer hold counts as this one, so that a binding whose service hung for long is quick again after four short ones.
const HOLD_COUNTED_MAX: Duration = Duration::from_secs(8);

/// One that holds a place for less than this is soon done, though not quick. Who was never asked has so long to show it.
pub(super) const SOON: Duration = Duration::from_secs(2);

/// A binding that is there, or that holds a place still. Moments are given as the time since one that is the same for all.
#[derive(Debug, Default)]
pub(super) struct Member {
    /// How long one of its checks may take, for each time that it is there: a binding that is set again is there twice for a
    /// while, and one whose setting is only tried and refused is there for a moment.
    deadlines: Vec<Duration>,
    /// Places that it holds: when it got each, and for how long it was expected to hold it.
    holds: Vec<(Duration, Duration)>,
    /// When it got the one of them that it holds on a leash, and how long that is.
    leashed: Option<(Duration, Duration)>,
    /// How long it held a place, the last hold counting as much as all before; nothing before the first ended.
    hold: Option<Duration>,
    /// What it had: time for which it held places, on a clock that does not run while it wants none (see [`Member::start`]).
    had: Duration,
}

impl Member {
    /// It is there once more: a binding that is set anew may come before the old one has gone, under the same name.
    pub(super) fn join(&mut self, deadline: Duration) {
        self.deadlines.push(deadline);
    }

    /// One of those that joined with this deadline goes. What it did so far is still known while it holds places.
    pub(super) fn leave(&mut self, deadline: Duration) {
        if let Some(index) = self.deadlines.iter().position(|joined| *joined == deadline) {
            self.deadlines.swap_remove(index);
        }
    }

    /// How long its checks may take, by the longest of those that are there.
    fn deadline(&self) -> Duration {
        self.deadlines.iter().copied().max().unwrap_or_default()
    }

    /// Whether nothing refers to it any more.
    pub(super) fn is_gone(&self) -> bool {
        self.deadlines.is_empty() && self.holds.is_empty()
    }

    /// Takes a place, where those that were served last had `least`. Until it is given back, it counts as what it likely takes.
    pub(super) fn take(&mut self, least: Duration, now: Duration) {
        let expected = self.expected(now);
        self.had = self.had.max(least) + expected;
        self.holds.push((now, expected));
    }

    /// Counts what the check that is done really took, in place of what was assumed when it got its place. Half of what
    /// is known comes from the last check: a service that works again is quick after a few.
    pub(super) fn give_back(&mut self, since: Duration, now: Duration) {
        let Some(index) = self.holds.iter().position(|(taken, _)| *taken == since) else { return };
        let (_, expected) = self.holds.swap_remove(index);
        let leash = self.leashed.take_if(|(leashed, _)| *leashed == since);
        let held = now.saturating_sub(since);
        self.had = (self.had + held).saturating_sub(expected);
        let counted = held.min(HOLD_COUNTED_MAX);
        self.hold = Some(match leash {
            // It was stopped there, as far as anybody knows because its service hangs.
            Some((_, leash)) if held >= leash => HOLD_COUNTED_MAX,
            _ => self.hold.map_or(counted, |before| (before + counted) / 2),
        });
    }

    /// How long it may hold a place that is kept for quick ones, if it holds none: long enough to show that it is quick, or,
    /// where there is `room` for such, to do what it did before. One whose service hangs never does.
    pub(super) fn leash(&self, room: bool) -> Option<Duration> {
        match self.hold {
            _ if !self.holds.is_empty() => None,
            None => self.may_hold_long().then_some(SOON),
            Some(hold) => (room && (QUICK..SOON).contains(&hold)).then_some(hold * 2),
        }
    }

    /// What it took at this moment it holds on a leash.
    pub(super) fn tie(&mut self, since: Duration, leash: Duration) {
        self.leashed = Some((since, leash));
    }

    /// Whether one of its places must be given back before its check is done.
    pub(super) fn is_leashed(&self) -> bool {
        self.leashed.is_some()
    }

    /// Places that it holds.
    pub(super) fn running(&self) -> usize {
        self.holds.len()
    }

    /// How long it will likely hold a place: as its checks did so far, or as one of them does now if that is longer. Of one
    /// that was never asked the worst is assumed, which is all the time that its checks may take: when a node starts while the
    /// services of many bindings hang, none of them has been asked yet.
    fn expected(&self, now: Duration) -> Duration {
        self.hold.unwrap_or_else(|| self.deadline()).max(self.oldest(now)).min(HOLD_COUNTED_MAX)
    }

    /// For how long it holds the place that it holds longest.
    fn oldest(&self, now: Duration) -> Duration {
        self.holds.iter().map(|(since, _)| now.saturating_sub(*since)).max().unwrap_or_default()
    }

    /// Whether a place that it gets is likely not free again soon.
    pub(super) fn is_slow(&self, now: Duration) -> bool {
        self.oldest(now) >= QUICK || self.hold.map_or(self.may_hold_long(), |hold| hold >= QUICK)
    }

    /// Whether it may hold a place for long, whatever it did so far.
    pub(super) fn may_hold_long(&self) -> bool {
        self.deadline() > QUICK
    }

    /// What it had before its next check, where those that were served last had `least`: who wanted nothing for a while has no
    /// claim to what others had meanwhile.
    pub(super) fn start(&self, least: Duration, now: Duration) -> Duration {
        let late = self.holds.iter().map(|(since, expected)| now.saturating_sub(*since).saturating_sub(*expected));
        (self.had + late.sum::<Duration>()).max(least)
    }

    /// What it will likely have had after its next check.
    pub(super) fn finish(&self, least: Duration, now: Duration) -> Duration {
        self.start(least, now) + self.expected(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// Holds a place for so long, from `*now` on.
    fn hold(member: &mut Member, now: &mut Duration, held: Duration) {
        member.take(Duration::ZERO, *now);
        let since = *now;
        *now += held;
        member.give_back(since, *now);
    }

    #[test]
    fn who_was_never_asked_is_as_slow_as_its_deadline() {
        for (deadline, slow) in [(ms(10), false), (QUICK, false), (QUICK + ms(1), true), (LONG, true)] {
            let mut member = Member::default();
            member.join(deadline);
            assert_eq!(member.is_slow(Duration::ZERO), slow, "{deadline:?}");
            assert_eq!(member.may_hold_long(), slow, "{deadline:?}");
        }
    }

    #[test]
    fn what_counts_is_how_long_it_held_a_place() {
        for (held, slow) in [(ms(5), false), (ms(999), false), (QUICK, true), (LONG, true)] {
            for deadline in [QUICK, LONG] {
                let (mut member, mut now) = (Member::default(), Duration::ZERO);
                member.join(deadline);
                hold(&mut member, &mut now, held);
                assert_eq!(member.is_slow(now), slow, "{held:?} of {deadline:?}");
            }
        }
    }

    #[test]
    fn a_check_that_hangs_is_noticed_before_it_ends() {
        let (mut member, mut now) = (Member::default(), Duration::ZERO);
        member.join(LONG);
        hold(&mut member, &mut now, ms(5));
        member.take(Duration::ZERO, now);
        assert!(!member.is_slow(now + ms(999)));
        assert!(member.is_slow(now + QUICK));
    }

    #[test]
    fn one_that_hung_for_long_is_quick_again_after_four_short_checks() {
        let (mut member, mut now) = (Member::default(), Duration::ZERO);
        member.join(LONG);
        (0..100).for_each(|_| hold(&mut member, &mut now, LONG));
        for short in 1..=4 {
            assert!(member.is_slow(now), "{short}");
            hold(&mut member, &mut now, ms(5));
        }
        assert!(!member.is_slow(now));
        hold(&mut member, &mut now, LONG);
        assert!(member.is_slow(now), "one that hangs is enough");
    }

    #[test]
    fn what_it_had_is_what_it_held_and_no_less_than_what_those_had_that_were_served_last() {
        let (mut member, mut now, none) = (Member::default(), Duration::ZERO, Duration::ZERO);
        member.join(LONG);
        assert_eq!(
            (member.start(none, now), member.finish(none, now)),
            (none, HOLD_COUNTED_MAX),
            "it may take all its time"
        );
        hold(&mut member, &mut now, LONG);
        assert_eq!((member.start(none, now), member.start(LONG * 2, now)), (LONG, LONG * 2));
        member.take(LONG * 2, now);
        assert_eq!(member.start(none, now), LONG * 2 + HOLD_COUNTED_MAX, "what it holds counts from the beginning");
        assert_eq!(member.start(none, now + LONG), LONG * 3, "and as long as it takes");
        member.give_back(now, now + ms(5));
        assert_eq!(member.start(none, now + LONG), LONG * 2 + ms(5));
    }

    #[test]
    fn what_is_only_tried_leaves_its_deadline_as_it_was() {
        let mut member = Member::default();
        member.join(LONG);
        member.join(ms(500));
        assert!(member.may_hold_long());
        member.leave(ms(500));
        assert!(member.may_hold_long());
        member.join(ms(500));
        member.leave(LONG);
        assert!(!member.may_hold_long());
    }

    #[test]
    fn it_is_gone_when_it_left_and_gave_back_what_it_held() {
        let mut member = Member::default();
        member.join(LONG);
        member.take(Duration::ZERO, ms(1));
        member.leave(LONG);
        assert!(!member.is_gone());
        member.give_back(ms(1), ms(2));
        assert!(member.is_gone());
    }
}
