//! One ask under way, as its task and the schedule share it.

use tokio::sync::watch;

/// An ask that was handed out and is not over, or was until a moment ago.
#[derive(Debug, Default)]
pub(crate) struct Ask {
    over: watch::Sender<bool>,
}

impl Ask {
    /// The ask is over, whoever ended it.
    pub(super) fn end(&self) {
        self.over.send_replace(true);
    }

    /// Resolves when the ask is over.
    pub(super) async fn ended(&self) {
        // The sender lives in `self`, so this ends only when the value is true.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }
}
