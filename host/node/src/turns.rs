//! Turns of those who look through many messages or transactions: few look at a time.

use std::sync::Arc;

use tokio::sync::{Semaphore, SemaphorePermit};
use vouch_broker::{NotDone, NothingStored};

/// Searches at the same time; others wait for their turn.
const SEARCHES_MAX: usize = 2;

/// Hands out turns; clones share them.
#[derive(Clone)]
pub(crate) struct SearchTurns(Arc<Semaphore>);

impl SearchTurns {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(SEARCHES_MAX)))
    }

    /// Waits for a turn, which ends when what is returned is dropped.
    pub(crate) async fn take(&self) -> Result<SemaphorePermit<'_>, NotDone> {
        self.0.acquire().await.map_err(|_| NotDone::NothingStored(NothingStored::Stopping))
    }
}
