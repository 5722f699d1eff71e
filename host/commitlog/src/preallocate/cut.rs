//! The space ahead, while the end of the log is cut off.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};

use super::{Frontier, Preallocator};
use crate::segment::WriteSegment;

/// Nothing is prepared while this is held: no file appears under a name that is about to go, and no zeros are written.
pub(crate) struct Still<'a> {
    space: &'a Preallocator,
    frontier: MutexGuard<'a, Frontier>,
}

impl Preallocator {
    /// Lets whoever prepares finish his step, and no other begin.
    pub(crate) fn hold(&self) -> Still<'_> {
        Still { space: self, frontier: self.lock_urgently() }
    }
}

impl Still<'_> {
    /// Start of the segment that was created ahead.
    pub(crate) fn next(&self) -> Option<u64> {
        self.frontier.next.as_ref().map(|next| next.start)
    }

    /// Appending goes on in `segment`, an earlier one than before; those behind it are gone. All of it was written once,
    /// so its space is there. The horizon stays: nothing was ever written behind it.
    pub(crate) fn go_back(&mut self, segment: Arc<WriteSegment>) {
        self.space.ready.store(segment.end, Ordering::Release);
        (self.frontier.current, self.frontier.next) = (segment, None);
    }
}
