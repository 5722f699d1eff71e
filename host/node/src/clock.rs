//! The log's clock: max(last logged, wall clock) (ruling 20).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use vouch_broker::Millis;

/// Never goes back, whatever the machine's clock does.
#[derive(Debug)]
pub(crate) struct Clock {
    last_ms: AtomicU64,
    /// Numbers for leases: at least the time in the upper bits, so that they grow across restarts too.
    last_generation: AtomicU64,
}

/// Bits of a generation below the millisecond: leases that one millisecond can hold before numbers run ahead.
const GENERATION_BITS: u32 = 16;

impl Clock {
    /// Goes on from the last time in the log.
    pub(crate) fn starting_at(logged: Millis) -> Self {
        let generation = (logged.0 + 1) << GENERATION_BITS;
        Self { last_ms: AtomicU64::new(logged.0), last_generation: AtomicU64::new(generation) }
    }

    /// Now, by the log's clock.
    pub(crate) fn now(&self) -> Millis {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let last = self.last_ms.fetch_max(wall, Ordering::AcqRel);
        Millis(last.max(wall))
    }

    /// A number for a lease, higher than any before.
    pub(crate) fn generation(&self, now: Millis) -> u64 {
        let floor = now.0 << GENERATION_BITS;
        let update = |last: u64| Some(last.max(floor) + 1);
        let last = self
            .last_generation
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, update)
            .expect("the update always gives a value");
        last.max(floor) + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_never_goes_below_the_log() {
        let future = Millis(u64::MAX / 4);
        let clock = Clock::starting_at(future);
        assert_eq!(clock.now(), future);
        assert!(Clock::starting_at(Millis(0)).now() > Millis(1_600_000_000_000));
    }

    #[test]
    fn generations_grow_within_a_millisecond_and_across_restarts() {
        let clock = Clock::starting_at(Millis(1000));
        let (a, b) = (clock.generation(Millis(1000)), clock.generation(Millis(1000)));
        let later = clock.generation(Millis(1001));
        assert!(a < b && b < later);
        assert!(Clock::starting_at(Millis(1001)).generation(Millis(1001)) > later);
    }
}
