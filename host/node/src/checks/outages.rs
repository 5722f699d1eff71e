//! What is said in the node's log about asks that get no answer: a line a minute and checker, not one an ask.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Between two lines about the same checker.
const SAY_EVERY: Duration = Duration::from_secs(60);

struct Outage {
    /// Revision of the binding that gave no answer last; `None` where that is none.
    binding: Option<u64>,
    since: Instant,
    said_at: Instant,
    /// Asks without an answer since it began.
    unanswered: u64,
    /// An answer came, and nothing else since.
    ended: Option<Instant>,
    /// Somebody looks again whether it is over.
    looked_after: bool,
}

/// What an answer says of an outage.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum AfterAnswer {
    /// There was none, or its end is looked after.
    Nothing,
    /// It is over: how long it lasted, and how many asks got no answer.
    Over(Duration, u64),
    /// It seems to be over; to be asked again after this time by [`Outages::over`], so that a service that answers some and
    /// not others makes no two lines an ask.
    AskAgain(Duration),
}

/// In the place of a checker: half messages that producers would be asked about and that cannot be read, of all topics.
pub(crate) const HALVES: &str = "half messages for producers";

/// Who gives no answers, and when that was said last. Holds as many as there are bindings, and one for [`HALVES`].
#[derive(Default)]
pub(crate) struct Outages(Mutex<HashMap<String, Outage>>);

impl Outages {
    fn outages(&self) -> MutexGuard<'_, HashMap<String, Outage>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An ask got no answer. `binding`: the revision of the binding that was asked, if that is the checker. Returns how many
    /// did not since the checker last answered, if it is time to say so.
    pub(crate) fn no_answer(&self, checker: &str, binding: Option<u64>, now: Instant) -> Option<u64> {
        let mut outages = self.outages();
        if let Some(outage) = outages.get_mut(checker) {
            // An ask of before it was set anew may end late.
            outage.binding = outage.binding.max(binding);
            outage.unanswered += 1;
            outage.ended = None;
            let say = now.saturating_duration_since(outage.said_at) >= SAY_EVERY;
            return say.then(|| {
                outage.said_at = now;
                outage.unanswered
            });
        }
        let new = Outage { binding, since: now, said_at: now, unanswered: 1, ended: None, looked_after: false };
        outages.insert(checker.to_owned(), new);
        Some(1)
    }

    /// A checker answered: what [`Self::no_answer`] said may be over.
    pub(crate) fn answered(&self, checker: &str, now: Instant) -> AfterAnswer {
        let mut outages = self.outages();
        let Some(outage) = outages.get_mut(checker) else { return AfterAnswer::Nothing };
        outage.ended.get_or_insert(now);
        let said = now.saturating_duration_since(outage.said_at);
        if said < SAY_EVERY {
            let looked_after = std::mem::replace(&mut outage.looked_after, true);
            return if looked_after { AfterAnswer::Nothing } else { AfterAnswer::AskAgain(SAY_EVERY - said) };
        }
        let over = outage.over();
        outages.remove(checker);
        over
    }

    /// Looks again: whether nothing but answers came since one did.
    pub(crate) fn over(&self, checker: &str) -> AfterAnswer {
        let mut outages = self.outages();
        let Some(outage) = outages.get_mut(checker) else { return AfterAnswer::Nothing };
        outage.looked_after = false;
        let over = outage.over();
        if over != AfterAnswer::Nothing {
            outages.remove(checker);
        }
        over
    }

    /// Keeps what was said of bindings that are there, by their names and revisions, and of what is no binding.
    pub(crate) fn retain(&self, is_there: impl Fn(&str, u64) -> bool) {
        self.outages().retain(|checker, outage| outage.binding.is_none_or(|revision| is_there(checker, revision)));
    }
}

impl Outage {
    fn over(&self) -> AfterAnswer {
        let lasted = self.ended.map(|ended| ended.saturating_duration_since(self.since));
        lasted.map_or(AfterAnswer::Nothing, |lasted| AfterAnswer::Over(lasted, self.unanswered))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::components::BindingsThen;

    #[test]
    fn an_outage_is_said_at_its_beginning_and_once_a_minute() {
        let (outages, began) = (Outages::default(), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        assert_eq!(outages.no_answer("a", Some(1), at(0)), Some(1));
        assert!((1..600).all(|n| outages.no_answer("a", Some(1), at(n / 10)).is_none()));
        assert_eq!(outages.no_answer("b", Some(1), at(59)), Some(1), "another one has lines of its own");
        assert_eq!(outages.no_answer("a", Some(1), at(60)), Some(601));
        assert_eq!(outages.no_answer("a", Some(1), at(61)), None);
    }

    #[test]
    fn its_end_is_said_once_and_not_between_two_faults() {
        let (outages, began) = (Outages::default(), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        let seconds = Duration::from_secs;
        assert_eq!(outages.answered("a", at(0)), AfterAnswer::Nothing, "there was none");
        outages.no_answer("a", Some(1), at(0));
        assert_eq!(outages.answered("a", at(1)), AfterAnswer::AskAgain(seconds(59)));
        assert_eq!(
            outages.no_answer("a", Some(1), at(2)),
            None,
            "some are answered and others are not: one line a minute"
        );
        assert_eq!(outages.over("a"), AfterAnswer::Nothing, "it is not over");
        assert_eq!(outages.answered("a", at(7)), AfterAnswer::AskAgain(seconds(53)));
        assert_eq!(outages.answered("a", at(8)), AfterAnswer::Nothing, "somebody looks after it");
        assert_eq!(outages.over("a"), AfterAnswer::Over(seconds(7), 2), "it ended with the first answer");
        assert_eq!((outages.over("a"), outages.answered("a", at(62))), (AfterAnswer::Nothing, AfterAnswer::Nothing));
        assert_eq!(outages.no_answer("a", Some(1), at(63)), Some(1), "a new one");
        assert_eq!(outages.answered("a", at(200)), AfterAnswer::Over(seconds(137), 1));
    }

    #[test]
    fn what_was_said_of_a_binding_goes_with_it_and_not_with_an_older_one_of_its_name() {
        let (outages, now) = (Outages::default(), Instant::now());
        outages.no_answer(HALVES, None, now);
        outages.no_answer("removed", Some(3), now);
        outages.no_answer("set anew", Some(4), now);
        let then = BindingsThen::behind(7, []);
        assert_eq!(outages.no_answer("set anew", Some(9), now), None);
        assert_eq!(outages.no_answer("set anew", Some(4), now), None, "one of before it was set anew ends late");
        outages.retain(|checker, revision| !then.had_lost(checker, revision));
        let is_known = |checker: &str| outages.outages().contains_key(checker);
        assert_eq!([HALVES, "removed", "set anew"].map(is_known), [true, false, true]);
    }
}
