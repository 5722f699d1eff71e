//! Refusals that were told a moment ago: a node that is not let in tries again several times a second, for as long as it runs.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The same refusal is told again after this long.
const TOLD_EVERY: Duration = Duration::from_secs(60);
/// Refusals that are remembered: with more of them at once, some are told oftener.
const REMEMBERED_MAX: usize = 64;

/// What was refused of late, the oldest first: when, whom, and why.
#[derive(Default)]
pub(super) struct RepeatedRefusals(Mutex<VecDeque<(Instant, IpAddr, String)>>);

impl RepeatedRefusals {
    /// Whether this one is to be told: nothing was of this machine and for this reason within the last minute.
    pub(super) fn is_new(&self, from: IpAddr, why: &str, now: Instant) -> bool {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while told.front().is_some_and(|(at, ..)| now.saturating_duration_since(*at) >= TOLD_EVERY) {
            told.pop_front();
        }
        if told.iter().any(|(_, machine, reason)| *machine == from && reason == why) {
            return false;
        }
        if told.len() == REMEMBERED_MAX {
            told.pop_front();
        }
        told.push_back((now, from, why.to_owned()));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_once_a_minute_and_another_one_at_once() {
        let (refusals, now) = (RepeatedRefusals::default(), Instant::now());
        let [first, second] = [[127, 0, 0, 1], [127, 0, 0, 2]].map(IpAddr::from);
        assert!(refusals.is_new(first, "removed", now));
        assert!(refusals.is_new(second, "removed", now) && refusals.is_new(first, "no token", now));
        assert!(!refusals.is_new(first, "removed", now + TOLD_EVERY - Duration::from_millis(1)));
        assert!(refusals.is_new(first, "removed", now + TOLD_EVERY));
        for other in 0..1_000 {
            assert!(refusals.is_new(second, &other.to_string(), now + TOLD_EVERY));
        }
        assert!(refusals.0.lock().unwrap().len() <= REMEMBERED_MAX);
    }
}
