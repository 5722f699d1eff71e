//! What a shard shows of itself, and what a node keeps beside it.

use std::ops::Deref;
use std::sync::Arc;

use vouch_shard::Signals;

use crate::directory::Directory;
use crate::sessions::Sessions;

/// What the tasks of a node share.
pub(crate) struct Shared {
    pub(crate) signals: Arc<Signals>,
    pub(crate) directory: Directory,
    pub(crate) sessions: Arc<Sessions>,
}

impl Shared {
    pub(crate) fn new(signals: Arc<Signals>) -> Self {
        Self { directory: Directory::new(signals.clone()), signals, sessions: Arc::default() }
    }
}

impl Deref for Shared {
    type Target = Signals;

    fn deref(&self) -> &Signals {
        &self.signals
    }
}
