//! What a node that asks a binding knows of it beside what the log says: whether it was tried, and whether what its component
//! says is what producers said. With the binding it is forgotten, and with the node.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use vouch_broker::RecordPosition;

use crate::consumers::ConsumerStanding;

/// After so many answers in a row that contradict producers, its checks close no fence any more.
const CONTRADICTIONS_THAT_HOLD: u32 = 10;
/// Between two lines of the node's log about contradictions of one binding.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// Where a component would have said otherwise than the producer that ended the transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Contradiction {
    /// The transaction.
    pub transaction: String,
    /// Its topic.
    pub topic: String,
    /// Business keys of its half message.
    pub keys: Vec<String>,
    /// How its producer ended it: `commit` or `rollback`.
    pub ended: &'static str,
    /// What the component said: the other one.
    pub said: &'static str,
    /// The component's reason.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// When it was asked, in ms since 1970.
    #[serde(skip)]
    pub at_ms: u64,
}

/// What is known, as operators see it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BindingStanding {
    /// Why nobody knows whether it can do what it is set for: it was tried, and what others did stood in the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub untried: Option<String>,
    /// Transactions that producers had ended, about which its component said the same.
    pub agreed: u64,
    /// And about which it said the opposite.
    pub contradicted: u64,
    /// The last ten that it answered about were contradicted: its checks close no fence, until one is not.
    pub fences_held: bool,
    /// The last one that was contradicted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_contradiction: Option<Contradiction>,
    /// How it fares as a consumer, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumer: Option<ConsumerStanding>,
}

/// The same while it changes.
#[derive(Default)]
pub(crate) struct BindingNotes(Mutex<Known>);

#[derive(Default)]
struct Known {
    shown: BindingStanding,
    /// Contradictions since the last agreement.
    in_a_row: u32,
    /// Where the log has the newest end that it was compared with.
    newest: Option<RecordPosition>,
    said_at: Option<Instant>,
}

impl BindingNotes {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nobody knows yet whether it works, or it does.
    pub(super) fn tried(&self, untried: Option<String>) {
        self.known().shown.untried = untried;
    }

    /// Why nobody knows whether it works.
    pub(super) fn untried(&self) -> Option<String> {
        self.known().shown.untried.clone()
    }

    /// It was compared with what a producer said in the record that lies there. What is older than the newest such record says nothing
    /// of how it is now, and is not noted. `hold` is told whether its checks are to close no fence. Returns for how many in
    /// a row it is time for a line in the node's log.
    pub(super) fn compared(
        &self,
        ended_at: RecordPosition,
        contradiction: Option<Contradiction>,
        now: Instant,
        hold: impl FnOnce(bool),
    ) -> Option<u32> {
        let mut known = self.known();
        if known.newest.is_some_and(|newest| ended_at <= newest) {
            return None;
        }
        known.newest = Some(ended_at);
        let mut say = None;
        match contradiction {
            None => {
                known.shown.agreed += 1;
                known.in_a_row = 0;
            }
            Some(contradiction) => {
                known.shown.contradicted += 1;
                known.in_a_row = known.in_a_row.saturating_add(1);
                known.shown.last_contradiction = Some(contradiction);
                if known.said_at.is_none_or(|at| now.saturating_duration_since(at) >= SAY_EVERY) {
                    known.said_at = Some(now);
                    say = Some(known.in_a_row);
                }
            }
        }
        known.shown.fences_held = known.in_a_row >= CONTRADICTIONS_THAT_HOLD;
        // Under the lock: what holds is what is shown.
        hold(known.shown.fences_held);
        say
    }

    /// Forgets all of it.
    pub(super) fn forget(&self, hold: impl FnOnce(bool)) {
        let mut known = self.known();
        *known = Known::default();
        hold(false);
    }

    /// Whether the last one was contradicted: then it is looked at more often.
    pub(super) fn is_contradicted(&self) -> bool {
        self.known().in_a_row > 0
    }

    /// As operators see it.
    pub(super) fn shown(&self) -> BindingStanding {
        self.known().shown.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn contradiction() -> Contradiction {
        Contradiction {
            transaction: "0:1".to_owned(),
            topic: "t".to_owned(),
            keys: vec![],
            ended: "commit",
            said: "rollback",
            reason: String::new(),
            at_ms: 1,
        }
    }

    #[test]
    fn ten_contradictions_in_a_row_hold_the_fences_and_one_agreement_lets_them_go() {
        let (notes, now, mut at, held) = (BindingNotes::default(), Instant::now(), 0, Cell::new(false));
        let mut compared = |contradiction| {
            at += 1;
            notes.compared(RecordPosition(at), contradiction, now, |hold| held.set(hold))
        };
        for round in 0..2 {
            for count in 1..=12 {
                compared(Some(contradiction()));
                assert_eq!(held.get(), count >= 10, "{round} {count}");
                assert!(notes.is_contradicted());
            }
            compared(None);
            assert!(!held.get() && !notes.is_contradicted());
        }
        let shown = notes.shown();
        assert_eq!((shown.agreed, shown.contradicted, shown.fences_held), (2, 24, false));
        assert_eq!(shown.last_contradiction, Some(contradiction()));
    }

    #[test]
    fn what_is_older_than_what_it_was_compared_with_last_changes_nothing() {
        let (notes, now, held) = (BindingNotes::default(), Instant::now(), Cell::new(false));
        let compared =
            |at, contradiction| notes.compared(RecordPosition(at), contradiction, now, |hold| held.set(hold));
        (101..=110).for_each(|at| assert_eq!(compared(at, Some(contradiction())).is_some(), at == 101));
        assert!(held.get());
        for at in [1, 100, 110] {
            compared(at, None);
            assert!(held.get() && notes.shown().agreed == 0, "it agreed before it went wrong");
        }
        compared(111, None);
        assert!(!held.get());
        (1..=20).for_each(|at| assert_eq!(compared(at, Some(contradiction())), None));
        assert!(!held.get() && notes.shown().contradicted == 10, "it was wrong before it was mended");
        compared(112, Some(contradiction()));
        notes.forget(|hold| held.set(hold));
        assert_eq!((held.get(), notes.shown()), (false, BindingStanding::default()));
    }

    #[test]
    fn contradictions_are_said_once_a_minute() {
        let (notes, began) = (BindingNotes::default(), Instant::now());
        let said = |seconds| {
            let now = began + Duration::from_secs(seconds);
            notes.compared(RecordPosition(seconds + 1), Some(contradiction()), now, drop)
        };
        assert_eq!([said(0), said(1), said(59), said(60), said(61)], [Some(1), None, None, Some(4), None]);
    }
}
