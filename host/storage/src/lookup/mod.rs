//! Lookup of messages by id, key and time: one immutable file for each part of the snapshots, made from the part and the
//! log by a thread of low priority (`docs/lookup-index.md` gives every byte).
//!
//! Nothing depends on them: a file that is missing, damaged or not made yet is made again, and until then the messages
//! that it would cover are looked through one by one. What is found is looked up in the state and read from the log, so
//! a file can point at messages and never says what is in them, or whether they are still there.

mod build;
mod builder;
#[cfg(any(test, feature = "testing"))]
mod covering;
mod file;
mod format;
mod head;
mod page;
mod page_writer;
mod postings;
mod section;
mod service;
mod shared;
#[cfg(test)]
mod tests;
mod work;
mod writer;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(any(test, feature = "testing"))]
pub use covering::covering;
pub use file::LookupFile;
pub use format::{QueueStretch, SAMPLE_EVERY, Term};
pub use postings::{Posted, Postings};
pub use service::Lookups;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LookupFault {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Its length is none that a whole file has, or not the one that it says.
    #[error("it has {0} bytes, which is not its length")]
    Length(u64),
    /// A page is not as it was written.
    #[error("page {0} is damaged")]
    Page(u64),
    /// Not written by this version.
    #[error("it is not a lookup file of this version")]
    Version,
    /// It says what only another part, log or program would write.
    #[error("it does not belong here")]
    Other,
}

impl LookupFault {
    fn is_missing(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

/// How the index stands, and what was done since the node started.
#[derive(Debug, Default)]
pub struct LookupReport {
    /// Files that are used.
    pub files: AtomicU64,
    /// Bytes of these.
    pub bytes: AtomicU64,
    /// Files that are not made yet.
    pub missing: AtomicU64,
    /// Files that were made.
    pub builds: AtomicU64,
    /// Files that were found damaged, or not to belong here, and were given up to be made again.
    pub damaged: AtomicU64,
}

impl LookupReport {
    fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
