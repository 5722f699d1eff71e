//! How fast this node sends files.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// A rate that all who send share.
#[derive(Debug)]
pub(crate) struct SendingPace {
    bytes_per_second: u64,
    /// When what was let through is paid for.
    free: Mutex<Instant>,
}

impl SendingPace {
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second, free: Mutex::new(Instant::now()) }
    }

    /// A chunk of this size is paid for in a quarter of a second, so that a slow rate is a trickle and no silence.
    pub(crate) fn chunk(&self, most: usize) -> usize {
        usize::try_from(self.bytes_per_second / 4).map_or(most, |quarter| quarter.clamp(1, most))
    }

    /// Waits until so many bytes may go. Several who wait get their turns in the order they came.
    pub(crate) async fn wait(&self, bytes: usize) {
        let turn = {
            let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = (*free).max(Instant::now());
            *free = turn + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
            turn
        };
        sleep_until(turn).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_sent_in_a_time_is_bounded_by_the_rate() {
        let pace = SendingPace::new(1000);
        assert_eq!((pace.chunk(4000), pace.chunk(100), SendingPace::new(1).chunk(9)), (250, 100, 1));
        let began = Instant::now();
        for _ in 0..6 {
            pace.wait(10).await;
        }
        assert!(began.elapsed() >= Duration::from_millis(50), "five times ten bytes were paid for");
    }

    #[tokio::test]
    async fn time_that_nobody_used_is_not_saved_up() {
        let pace = SendingPace::new(1000);
        *pace.free.lock().unwrap() = Instant::now() - Duration::from_secs(60);
        pace.wait(100).await;
        assert!(*pace.free.lock().unwrap() > Instant::now());
    }
}
