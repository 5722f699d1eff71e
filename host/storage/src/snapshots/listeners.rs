//! Who hears what the thread has made.

use vouch_broker::record::SealedAt;
use vouch_broker::state::Copies;

use super::SnapshotBounds;

/// Hears the ids of all parts that a snapshot names, ascending.
pub(crate) type OnSealed = Box<dyn Fn(&[u64]) + Send>;

/// Who hears of a snapshot.
pub struct Listeners {
    /// Gets each part that the running state does not have, mapped and in their order.
    pub adopt: Box<dyn Fn(u64, Copies) + Send>,
    /// Gets a part that the running state reads from, when its copies were mended.
    pub mended: Box<dyn Fn(u64, Copies) + Send>,
    /// Hears the ids of all parts that a snapshot names, ascending.
    pub sealed: OnSealed,
    /// Hears which snapshots are kept from now on, whenever one was made.
    pub kept: Box<dyn Fn(SnapshotBounds) + Send>,
    /// Hears what the state had at positions that the log names, ascending, when a snapshot was made.
    pub at_names: Box<dyn Fn(Vec<SealedAt>) + Send>,
    /// Hears that the log should name a position: a snapshot is due.
    pub due: Box<dyn Fn() + Send>,
}
