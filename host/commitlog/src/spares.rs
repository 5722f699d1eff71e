//! Files of released segments, kept so that the next segment need not be allocated anew.
//!
//! # To ensure correctness
//! - A file comes here only when the removal of its segment's name is durable and nobody maps it any more: from here
//!   on its bytes may change, and a power cut must not give it back as the segment that it was.
//! - Its old bytes stay, so that nothing is written twice. They cannot pass for new ones: each entry's header says its
//!   position, every old one lies below the new segment, and a file that was a segment above it is never used.
//! - It gets a segment's name only when the new header is durable, which says that old bytes may lie behind the end.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Most files kept: one for the next segment, and one more while a release and a roll fall together.
pub(crate) const MAX_SPARES: usize = 2;

/// Name of the spare file that was the segment starting at `start`.
pub(crate) fn spare_name(start: u64) -> String {
    format!("{start:020}.spare")
}

/// Where the segment started that a spare file was; `None` for any other file.
pub(crate) fn parse_spare_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".spare")?;
    let all = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if all { digits.parse().ok() } else { None }
}

/// The spare files of a log, by name.
#[derive(Default)]
pub(crate) struct Spares {
    pool: Mutex<Pool>,
}

#[derive(Default)]
struct Pool {
    names: Vec<String>,
}

impl Spares {
    fn lock(&self) -> MutexGuard<'_, Pool> {
        // A panic elsewhere leaves the list whole.
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn count(&self) -> u64 {
        self.lock().names.len() as u64
    }

    pub(crate) fn has_room(&self) -> bool {
        self.lock().names.len() < MAX_SPARES
    }

    pub(crate) fn add(&self, name: String) {
        self.lock().names.push(name);
    }

    /// The one that was added last; it is no spare file any more.
    pub(crate) fn take(&self) -> Option<String> {
        self.lock().names.pop()
    }
}
