//! How consumers end with their node: before its shard, so that what they hold can still be given back.

use std::time::Duration;

use tokio::sync::watch;

/// How far the end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// They were never begun: the node only reads.
    NotBegun,
    Runs,
    Wanted,
    Done,
}

/// Tells consumers to end, and waits for it.
pub(crate) struct ConsumersEnd(watch::Sender<Stage>);

impl Default for ConsumersEnd {
    fn default() -> Self {
        Self(watch::Sender::new(Stage::NotBegun))
    }
}

impl ConsumersEnd {
    /// They run from now on.
    pub(crate) fn begins(&self) {
        self.0.send_replace(Stage::Runs);
    }

    /// Lets them end, and waits for that; no longer than this, for the node ends all the same.
    pub(crate) async fn end_within(&self, most: Duration) {
        let mut told = self.0.subscribe();
        self.0
            .send_if_modified(|stage| *stage == Stage::Runs && std::mem::replace(stage, Stage::Wanted) == Stage::Runs);
        let done = told.wait_for(|stage| matches!(stage, Stage::NotBegun | Stage::Done));
        if tokio::time::timeout(most, done).await.is_err() {
            tracing::warn!("bindings that consume did not give back what they had; it waits for the next start");
        }
    }

    /// Resolves when they are to end.
    pub(super) async fn is_wanted(&self) {
        // The sender lives in `self`.
        let _ = self.0.subscribe().wait_for(|stage| *stage == Stage::Wanted).await;
    }

    /// They ended.
    pub(super) fn is_done(&self) {
        self.0.send_replace(Stage::Done);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn whoever_stops_waits_for_consumers_that_run_and_for_no_others() {
        let end = Arc::new(ConsumersEnd::default());
        end.end_within(Duration::from_secs(60)).await;
        end.begins();
        let (stops, consumers) = (end.clone(), end.clone());
        let stopped = tokio::spawn(async move { stops.end_within(Duration::from_secs(60)).await });
        consumers.is_wanted().await;
        assert!(!stopped.is_finished());
        consumers.is_done();
        stopped.await.unwrap();
    }
}
