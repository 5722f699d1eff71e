//! Tells every task of the node that it stops.

use tokio::sync::watch;

/// Set once.
pub(crate) struct Stopping(watch::Sender<bool>);

impl Stopping {
    /// The node runs.
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// The node stops from now on.
    pub(crate) fn cancel(&self) {
        self.0.send_replace(true);
    }

    /// Whether it stops.
    pub(crate) fn is_cancelled(&self) -> bool {
        *self.0.borrow()
    }

    /// Resolves when the node stops.
    pub(crate) async fn cancelled(&self) {
        // The sender lives in `self`, so this ends only when the value is true.
        let _ = self.0.subscribe().wait_for(|stopping| *stopping).await;
    }
}
