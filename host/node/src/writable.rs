//! Whether anything can be written.

use std::sync::Arc;

use vouch_broker::{NotDone, NothingStored};

use vouch_shard::Signals;

/// Says whether the log takes writes; clones say the same.
#[derive(Clone)]
pub(crate) struct Writable(Arc<Signals>);

impl Writable {
    /// For the shard that shares this.
    pub(crate) fn new(signals: Arc<Signals>) -> Self {
        Self(signals)
    }

    /// Why nothing can be written, if so: [`NothingStored::Poisoned`] or [`NothingStored::ReadOnly`].
    pub(crate) fn closed(&self) -> Option<&NothingStored> {
        self.0.closed()
    }

    /// Every call that writes asks first: what a request names may lie behind the damage of a log that is only read, and
    /// then nobody can say that it is not there.
    ///
    /// # Errors
    /// [`NothingStored::ReadOnly`] or [`NothingStored::Poisoned`].
    pub(crate) fn check(&self) -> Result<(), NotDone> {
        self.closed().map_or(Ok(()), |why| Err(why.clone().into()))
    }
}
