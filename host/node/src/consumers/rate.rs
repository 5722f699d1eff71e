//! How many deliveries a second a binding gets (`limits.rate`). Pure.
//!
//! Turns lie a step apart. Whoever did not take his for a while has those of one second at once, and no more: a service that is to be
//! spared is not flooded after a quiet hour.

use std::time::{Duration, Instant};

/// Tokens, of which there are at most those of one second.
#[derive(Debug)]
pub(super) struct Rate {
    per_second: Option<u32>,
    /// When the next one is free, if none is.
    next: Option<Instant>,
}

impl Rate {
    /// So many deliveries a second, or any number of them.
    pub(super) fn new(per_second: Option<u32>) -> Self {
        Self { per_second: per_second.filter(|rate| *rate > 0), next: None }
    }

    /// Whether there is one.
    pub(super) fn is_limited(&self) -> bool {
        self.per_second.is_some()
    }

    /// The turn that was taken last was not needed.
    pub(super) fn give_back(&mut self) {
        if let (Some(rate), Some(next)) = (self.per_second, self.next) {
            self.next = next.checked_sub(Duration::from_secs(1) / rate);
        }
    }

    /// Takes the next turn: how long to wait for it. Whoever paused has those of a second at once, but one.
    pub(super) fn take(&mut self, now: Instant) -> Duration {
        let Some(rate) = self.per_second else { return Duration::ZERO };
        let step = Duration::from_secs(1) / rate;
        let earliest = now.checked_sub(Duration::from_secs(1).saturating_sub(step)).unwrap_or(now);
        let turn = self.next.map_or(earliest, |next| next.max(earliest));
        self.next = Some(turn + step);
        turn.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_no_second_there_are_more_than_twice_as_many_and_over_time_there_are_so_many() {
        let (mut rate, began) = (Rate::new(Some(10)), Instant::now());
        let mut at = Vec::new();
        let mut now = began;
        for _ in 0..100 {
            now += rate.take(now);
            at.push((now - began).as_millis());
        }
        assert_eq!(at.iter().filter(|ms| **ms == 0).count(), 10, "those of a second at once");
        assert_eq!(at[99], 9000, "and then ten a second");
        now += Duration::from_secs(60);
        let waits: Vec<_> = (0..12).map(|_| rate.take(now).as_millis()).collect();
        assert_eq!(waits[..10], [0; 10], "after a pause those of one second, not of sixty");
        assert_eq!(waits[10..], [100, 200]);
    }

    #[test]
    fn a_turn_that_was_not_needed_is_the_next_ones() {
        let (mut rate, began) = (Rate::new(Some(1)), Instant::now());
        assert!(rate.take(began).is_zero());
        for _ in 0..10 {
            assert_eq!(rate.take(began), Duration::from_secs(1));
            rate.give_back();
        }
    }

    #[test]
    fn without_a_limit_nobody_waits() {
        let mut rate = Rate::new(None);
        assert!((0..1000).all(|_| rate.take(Instant::now()).is_zero()));
    }
}
