//! What is known of a binding that consumes, where this node delivers to it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use vouch_broker::Millis;

/// What is shown of one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ConsumerStanding {
    /// Deliveries under way.
    pub in_flight: usize,
    /// It pauses since then, in ms since 1970: delivery after delivery failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused_since_ms: Option<u64>,
    /// How the last failed delivery failed, or why the component cannot be asked at all; nothing if none failed since the last
    /// that succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// Those of all bindings that consume, by name.
#[derive(Default)]
pub(crate) struct ConsumerStandings(Mutex<HashMap<String, ConsumerStanding>>);

impl ConsumerStandings {
    fn all(&self) -> MutexGuard<'_, HashMap<String, ConsumerStanding>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of this one.
    pub(crate) fn of(&self, binding: &str) -> Option<ConsumerStanding> {
        self.all().get(binding).cloned()
    }

    /// Names of those that pause, and how many deliveries of each are under way.
    pub(crate) fn list(&self) -> Vec<(String, ConsumerStanding)> {
        let mut list: Vec<_> = self.all().iter().map(|(name, standing)| (name.clone(), standing.clone())).collect();
        list.sort_by(|(one, _), (other, _)| one.cmp(other));
        list
    }

    fn change(&self, binding: &str, change: impl FnOnce(&mut ConsumerStanding)) {
        let mut all = self.all();
        match all.get_mut(binding) {
            Some(standing) => change(standing),
            None => change(all.entry(binding.to_owned()).or_default()),
        }
    }

    /// A delivery begins.
    pub(super) fn begins(&self, binding: &str) {
        self.change(binding, |standing| standing.in_flight += 1);
    }

    /// A delivery is over. Its binding may be gone by now.
    pub(super) fn is_over(&self, binding: &str) {
        if let Some(standing) = self.all().get_mut(binding) {
            standing.in_flight = standing.in_flight.saturating_sub(1);
        }
    }

    /// A delivery failed, or none can be made.
    pub(super) fn failed(&self, binding: &str, why: &str) {
        self.change(binding, |standing| standing.last_error = Some(why.to_owned()));
    }

    /// It pauses from now on.
    pub(super) fn pauses(&self, binding: &str, since: Millis) {
        self.change(binding, |standing| standing.paused_since_ms = Some(since.0));
    }

    /// A delivery succeeded.
    pub(super) fn succeeded(&self, binding: &str) {
        self.change(binding, |standing| {
            standing.paused_since_ms = None;
            standing.last_error = None;
        });
    }

    /// Bindings that are gone.
    pub(super) fn retain(&self, is_there: impl Fn(&str) -> bool) {
        self.all().retain(|name, _| is_there(name));
    }

    /// This node delivers to nobody.
    pub(super) fn clear(&self) {
        self.all().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_of_a_binding_is_what_became_of_its_deliveries_last() {
        let all = ConsumerStandings::default();
        assert_eq!((all.of("b"), all.list()), (None, Vec::new()));
        all.begins("b");
        all.begins("b");
        all.is_over("b");
        all.failed("b", "the service is away");
        all.pauses("b", Millis(7));
        let (in_flight, last_error) = (1, Some("the service is away".to_owned()));
        let pauses = ConsumerStanding { in_flight, paused_since_ms: Some(7), last_error };
        assert_eq!(all.of("b"), Some(pauses));
        all.failed("b", "still");
        assert_eq!(all.of("b").unwrap().paused_since_ms, Some(7), "that it fails on is no other pause");
        all.succeeded("b");
        assert_eq!(all.of("b"), Some(ConsumerStanding { in_flight, ..ConsumerStanding::default() }));
    }

    #[test]
    fn a_delivery_that_outlives_its_binding_brings_nothing_back() {
        let all = ConsumerStandings::default();
        all.begins("gone");
        all.begins("stays");
        all.retain(|name| name == "stays");
        all.is_over("gone");
        assert_eq!(all.list().len(), 1);
        // One of that name is another one now, and has none under way.
        all.succeeded("gone");
        all.is_over("gone");
        assert_eq!(all.of("gone").unwrap().in_flight, 0);
        let names: Vec<String> = all.list().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["gone", "stays"], "in the order of their names");
        all.clear();
        assert!(all.list().is_empty());
    }

    #[test]
    fn what_is_not_so_is_not_shown() {
        let shown = |standing: &ConsumerStanding| serde_json::to_value(standing).unwrap();
        assert_eq!(shown(&ConsumerStanding::default()), serde_json::json!({"in_flight": 0}));
        let pauses = ConsumerStanding { in_flight: 2, paused_since_ms: Some(7), last_error: Some("ill".to_owned()) };
        assert_eq!(shown(&pauses), serde_json::json!({"in_flight": 2, "paused_since_ms": 7, "last_error": "ill"}));
    }
}
