//! What befell the requests of a call.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicUsize, Ordering},
};

/// What befell the requests of a call through nobody's fault in here: a guest that fails after it has an excuse.
#[derive(Clone, Default)]
pub(crate) struct RequestTrouble(Arc<Befell>);

/// What went wrong, and whether the guest waits just now.
#[derive(Default)]
struct Befell {
    /// The first request that failed.
    first: OnceLock<String>,
    /// Answers, and pieces of answers, that are waited for. Not counted down when the call ends in the middle of one: that
    /// is when it is asked.
    awaited: AtomicUsize,
}

impl RequestTrouble {
    /// A request failed.
    pub(crate) fn note(&self, text: impl FnOnce() -> String) {
        self.0.first.get_or_init(text);
    }

    /// An answer, or its next piece, is waited for.
    pub(super) fn waits(&self) {
        self.0.awaited.fetch_add(1, Ordering::Relaxed);
    }

    /// It came.
    pub(super) fn came(&self) {
        self.0.awaited.fetch_sub(1, Ordering::Relaxed);
    }

    /// What befell the first request that failed, or that one was not answered when the call ended; `None` if neither.
    pub(crate) fn excuse(&self) -> Option<String> {
        let waits = self.0.awaited.load(Ordering::Relaxed) > 0;
        let unanswered = || waits.then(|| "a request had no whole answer yet".to_owned());
        self.0.first.get().cloned().or_else(unanswered)
    }
}
