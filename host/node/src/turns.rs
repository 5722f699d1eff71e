//! Looking through many messages or transactions for an administrator: in steps, so that nobody who sends waits long for
//! somebody who looks, and few at a time.

use std::sync::Arc;

use tokio::sync::{Semaphore, SemaphorePermit};
use tracing::Span;
use vouch_broker::{NotDone, NothingStored};

/// Entries that one step looks at on the executor's thread: some tens of microseconds of index entries.
pub(crate) const STEP: usize = 4096;
/// Searches at the same time; others wait for their turn.
const SEARCHES_MAX: usize = 2;

/// Hands out turns; clones share them.
#[derive(Clone)]
pub(crate) struct SearchTurns(Arc<Semaphore>);

impl SearchTurns {
    /// All turns are free.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(SEARCHES_MAX)))
    }

    /// Waits for a turn, which ends when what is returned is dropped.
    pub(crate) async fn take(&self) -> Result<SemaphorePermit<'_>, NotDone> {
        self.0.acquire().await.map_err(|_| NotDone::NothingStored(NothingStored::Stopping))
    }
}

/// Runs what reads files on a thread where that may take time: a worker that waits for a disk serves nobody.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, NotDone> {
    let span = Span::current();
    let done = tokio::task::spawn_blocking(move || span.in_scope(work)).await;
    done.map_err(|error| NotDone::internal(format!("the search failed: {error}")))
}
