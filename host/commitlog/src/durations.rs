//! How long things take, counted in a few buckets: what a hot path can afford.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets; there is one more for what takes longer. From a sync of a fast disk to a poll's whole wait.
pub const DURATION_BOUNDS: [Duration; 12] = [
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_millis(2500),
    Duration::from_secs(10),
    Duration::from_secs(30),
];
const BUCKETS: usize = DURATION_BOUNDS.len() + 1;

/// Counts of durations. Two atomic additions each: no lock, no allocation.
#[derive(Debug, Default)]
pub struct Durations {
    buckets: [AtomicU64; BUCKETS],
    sum_ns: AtomicU64,
}

/// What [`Durations`] counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DurationCounts {
    /// How many fell between a bound and the one before it; the last is of those beyond all bounds.
    pub buckets: [u64; BUCKETS],
    /// Of all of them.
    pub sum: Duration,
}

impl Durations {
    /// Counts one.
    pub fn observe(&self, duration: Duration) {
        let bucket = DURATION_BOUNDS.iter().position(|bound| duration <= *bound).unwrap_or(DURATION_BOUNDS.len());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        // Five hundred years of waiting until it wraps.
        self.sum_ns.fetch_add(duration.as_nanos() as u64, Ordering::Relaxed);
    }

    /// What was counted until now.
    pub fn counts(&self) -> DurationCounts {
        DurationCounts {
            buckets: std::array::from_fn(|bucket| self.buckets[bucket].load(Ordering::Relaxed)),
            sum: Duration::from_nanos(self.sum_ns.load(Ordering::Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_falls_into_the_first_bucket_that_holds_it() {
        let durations = Durations::default();
        let ns = Duration::from_nanos(1);
        for bound in DURATION_BOUNDS {
            durations.observe(bound);
            durations.observe(bound + ns);
        }
        let counts = durations.counts();
        assert_eq!((counts.buckets[0], counts.buckets[BUCKETS - 1]), (1, 1));
        assert!(counts.buckets[1..BUCKETS - 1].iter().all(|count| *count == 2), "{counts:?}");
        assert_eq!(counts.sum, DURATION_BOUNDS.iter().sum::<Duration>() * 2 + ns * DURATION_BOUNDS.len() as u32);
    }
}
