//! Below which position the bytes of a log never change again, and so may be handed out without a copy (ruling 28).
//!
//! # To ensure correctness
//! - The position only rises, and only to where entries are certain to stay: that is what is durable in the log of a single
//!   node, where [`crate::group_commit`] raises it, and what is committed in that of several, where the caller does
//!   ([`crate::Appender::settle`]). A cut below it is refused.
//! - Nothing below it is ever overwritten with other bytes while a mapping of the file is left. Recovery cuts behind the end
//!   of what was durable and writes the rest again as it is; a released file is used again only when nobody maps it; a
//!   repair writes another file.
//! - Whatever lies above it may be cut off and overwritten, so of that nobody gets more than a copy.
//! - [`Fixed`] is the only way to bytes of a mapping, and is made here only.

use std::sync::atomic::{AtomicU64, Ordering};

/// A range of a mapped file whose bytes will never change.
pub(crate) struct Fixed {
    offset: u64,
    len: usize,
}

impl Fixed {
    /// The first `len` bytes of a file that is complete: whoever asks for it vouches that nobody writes to it any more.
    pub(crate) fn of_sealed_file(len: usize) -> Self {
        Self { offset: 0, len }
    }

    /// Offset in the file, and length.
    pub(crate) fn place(&self) -> (u64, usize) {
        (self.offset, self.len)
    }
}

/// The position, shared by those who hand out bytes and the one who raises it.
#[derive(Debug)]
pub(crate) struct SettledEnd(AtomicU64);

impl SettledEnd {
    pub(crate) fn at(position: u64) -> Self {
        Self(AtomicU64::new(position))
    }

    /// First position whose byte may still change.
    pub(crate) fn position(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    /// Everything below `position` stays as it is from now on.
    pub(crate) fn raise(&self, position: u64) {
        self.0.fetch_max(position, Ordering::AcqRel);
    }

    /// `len` bytes from `position` on, which lie at `offset` in a file, if they are settled.
    pub(crate) fn fixed(&self, position: u64, offset: u64, len: usize) -> Option<Fixed> {
        let end = position.checked_add(len as u64);
        let settled = end.is_some_and(|end| end <= self.position());
        #[cfg(any(test, feature = "simulated-disk"))]
        let settled = settled || crate::bugs::UNSETTLED_BYTES_SHARED.injected();
        settled.then_some(Fixed { offset, len })
    }
}
