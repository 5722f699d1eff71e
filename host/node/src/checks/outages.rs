//! What is said in the node's log about asks that get no answer: a line a minute and checker, not one an ask.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Between two lines about the same checker.
const SAY_EVERY: Duration = Duration::from_secs(60);

struct Outage {
    since: Instant,
    said_at: Instant,
    /// Asks without an answer since it began.
    unanswered: u64,
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

    /// An ask got no answer. Returns how many did not since the checker last answered, if it is time to say so.
    pub(crate) fn no_answer(&self, checker: &str, now: Instant) -> Option<u64> {
        let mut outages = self.outages();
        if let Some(outage) = outages.get_mut(checker) {
            outage.unanswered += 1;
            let say = now.saturating_duration_since(outage.said_at) >= SAY_EVERY;
            return say.then(|| {
                outage.said_at = now;
                outage.unanswered
            });
        }
        outages.insert(checker.to_owned(), Outage { since: now, said_at: now, unanswered: 1 });
        Some(1)
    }

    /// A checker answered. Returns for how long it had given no answer to some, and to how many asks, if it had and that
    /// was minutes ago or is over: the end of what [`Self::no_answer`] said.
    pub(crate) fn answered(&self, checker: &str, now: Instant) -> Option<(Duration, u64)> {
        let mut outages = self.outages();
        let quiet = |outage: &Outage| now.saturating_duration_since(outage.said_at) < SAY_EVERY;
        // A service that answers some and not others would otherwise say two lines an ask.
        if outages.get(checker).is_none_or(quiet) {
            return None;
        }
        let outage = outages.remove(checker)?;
        Some((now.saturating_duration_since(outage.since), outage.unanswered))
    }

    /// The binding is gone.
    pub(crate) fn forget(&self, checker: &str) {
        self.outages().remove(checker);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_said_at_its_beginning_and_once_a_minute() {
        let (outages, began) = (Outages::default(), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        assert_eq!(outages.no_answer("a", at(0)), Some(1));
        assert!((1..600).all(|n| outages.no_answer("a", at(n / 10)).is_none()));
        assert_eq!(outages.no_answer("b", at(59)), Some(1), "another one has lines of its own");
        assert_eq!(outages.no_answer("a", at(60)), Some(601));
        assert_eq!(outages.no_answer("a", at(61)), None);
    }

    #[test]
    fn its_end_is_said_once_and_not_between_two_faults() {
        let (outages, began) = (Outages::default(), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        assert_eq!(outages.answered("a", at(0)), None, "there was none");
        outages.no_answer("a", at(0));
        assert_eq!(outages.answered("a", at(1)), None);
        assert_eq!(outages.no_answer("a", at(2)), None, "some are answered and others are not: one line a minute");
        assert_eq!(outages.answered("a", at(61)), Some((Duration::from_secs(61), 2)));
        assert_eq!(outages.answered("a", at(62)), None);
        assert_eq!(outages.no_answer("a", at(63)), Some(1), "a new one");
    }
}
