//! Processor time that a future takes.

use std::{
    pin::pin,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

/// Sums the processor time of one future, whichever threads run it.
#[derive(Default)]
pub(crate) struct WorkedTime {
    nanos: AtomicU64,
}

impl WorkedTime {
    /// Runs a future and counts the processor time of its steps; what it waits is not counted, nor what the machine gives
    /// to others meanwhile.
    pub(crate) async fn measure<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        std::future::poll_fn(|context| {
            let began = thread_time();
            let polled = future.as_mut().poll(context);
            let worked = thread_time().saturating_sub(began);
            self.nanos.fetch_add(u64::try_from(worked.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
            polled
        })
        .await
    }

    /// What was counted; also of a future that was dropped before its end.
    pub(crate) fn so_far(&self) -> Duration {
        Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }
}

/// Processor time of this thread.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap_or(0), time.tv_nsec.try_into().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn computing_is_counted_and_waiting_is_not() {
        let worked = WorkedTime::default();
        worked.measure(tokio::time::sleep(Duration::from_millis(30))).await;
        assert!(worked.so_far() < Duration::from_millis(15), "{:?}", worked.so_far());
        let computed = worked
            .measure(async {
                let began = thread_time();
                while thread_time() - began < Duration::from_millis(20) {}
                tokio::task::yield_now().await;
            })
            .await;
        assert_eq!(computed, ());
        assert!(worked.so_far() >= Duration::from_millis(20), "{:?}", worked.so_far());
    }
}
