//! Addresses in the log.

use std::fmt;

/// A byte offset in the endless logical log.
///
/// Segment `n` covers `[n * segment_size, (n + 1) * segment_size)`, its header block included, so a position names
/// one byte of one file for ever: nothing is ever renumbered. Positions of entries are multiples of 8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LogPosition(pub u64);

impl LogPosition {
    /// Where every log began, whether or not its first segments are still there.
    pub const START: Self = Self(0);
    /// Beyond the end of every log.
    pub const BEYOND: Self = Self(u64::MAX);

    /// So many bytes behind it.
    #[must_use]
    pub fn plus(self, bytes: u64) -> Self {
        Self(self.0 + bytes)
    }

    /// How many bytes there are from `earlier` up to this one.
    ///
    /// # Panics
    /// `earlier` is later.
    pub fn since(self, earlier: Self) -> u64 {
        self.0 - earlier.0
    }

    /// The same; 0 if `earlier` is later.
    pub fn saturating_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
