//! Which message of a queue.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// The number of a message in its queue, from 0. It stays the message's for ever: what comes after it is never renumbered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QueueOffset(pub u64);

impl QueueOffset {
    /// Of the first message that ever was in a queue.
    pub const FIRST: Self = Self(0);

    /// That of the message that follows.
    #[must_use]
    pub fn next(self) -> Self {
        self.plus(1)
    }

    /// So many messages later.
    #[must_use]
    pub fn plus(self, messages: u64) -> Self {
        Self(self.0 + messages)
    }

    /// How many messages there are from `earlier` up to this one.
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

    /// Those of a range, one after the other.
    pub fn each(range: Range<Self>) -> impl DoubleEndedIterator<Item = Self> + Clone {
        (range.start.0..range.end.0).map(Self)
    }
}

impl std::fmt::Display for QueueOffset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}
