//! Addresses in the log.

use std::fmt;

/// A byte offset in the endless logical log.
///
/// Segment `n` covers `[n * segment_size, (n + 1) * segment_size)`, its header block included, so a position names
/// one byte of one file for ever: nothing is ever renumbered. Positions of entries are multiples of 8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition(pub u64);

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
