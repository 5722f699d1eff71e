//! What retention tells of itself.

use std::sync::atomic::AtomicU64;

/// What retention did since the node started.
#[derive(Debug, Default)]
pub struct RetentionReport {
    /// Messages past their retention that are gone.
    pub expired: AtomicU64,
    /// Messages that groups had not finished when they went; each counts once for each group.
    pub missed: AtomicU64,
    /// Records that were written again because they are still needed.
    pub carried: AtomicU64,
    /// Segments released.
    pub segments: AtomicU64,
    /// Groups that receives made, that nobody used, and that are gone.
    pub groups: AtomicU64,
}
