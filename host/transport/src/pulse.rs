//! Whether the other end still lives.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Looks in the time of an answer.
const LOOKS: u32 = 8;

/// Since when this end waits to hear anything. Whatever is heard will do, not only the answer to the question: that may stand
/// behind something big.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pulse(Arc<Mutex<Option<Instant>>>);

impl Pulse {
    /// The other was asked.
    pub(crate) fn asked(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
    }

    /// Bytes came.
    pub(crate) fn heard(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn waits_since(&self) -> Option<Instant> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when the other was asked and nothing was heard for so long.
    pub(crate) async fn lapse(&self, limit: Duration) -> Result<Infallible, String> {
        loop {
            sleep(limit / LOOKS).await;
            if self.waits_since().is_some_and(|since| since.elapsed() >= limit) {
                return Err(format!("the peer answers no keep-alive for {limit:?}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_asked_and_silent_is_gone_and_who_is_not_asked_may_be_silent() {
        let (pulse, limit) = (Pulse::default(), Duration::from_millis(40));
        let quiet = tokio::time::timeout(limit * 4, pulse.lapse(limit)).await;
        assert!(quiet.is_err(), "nobody asked");
        pulse.asked();
        pulse.heard();
        assert_eq!(pulse.waits_since(), None);
        pulse.asked();
        let since = pulse.waits_since();
        pulse.asked();
        assert_eq!(pulse.waits_since(), since, "a second question gives no more time");
        let gone = pulse.lapse(limit).await.unwrap_err();
        assert!(gone.contains("answers no keep-alive for 40ms"), "{gone}");
        assert!(since.unwrap().elapsed() >= limit);
    }
}
