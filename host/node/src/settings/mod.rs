//! Topics and groups, and their settings.

mod groups;
mod topics;

use std::sync::Arc;

use crate::routes::Routes;
use crate::writable::Writable;
use vouch_shard::Shard;
use vouch_shard::clock::Clock;

/// Topics and groups: made, changed, deleted, listed. What changes something resolves when that is durable, and is refused
/// with [`NothingStored`](vouch_broker::NothingStored) where nothing can be written.
pub struct Settings {
    pub(crate) shard: Arc<Shard>,
    /// Finds topics and groups by their names.
    pub(crate) routes: Arc<Routes>,
    /// What is in flight is so until a time.
    pub(crate) clock: Arc<Clock>,
    pub(crate) writable: Writable,
}
