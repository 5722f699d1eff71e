//! What scrubbing has found, for whoever asks while it goes on.

use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};

use vouch_commitlog::{DamagedRange, LogPosition};

/// Damaged ranges that are kept to be told.
const FOUND_MAX: usize = 1000;

/// What was found since the node started.
#[derive(Debug, Default)]
pub struct ScrubReport {
    /// Bytes read and compared with their checksums.
    pub bytes: AtomicU64,
    /// Times that the whole sealed log was read.
    pub rounds: AtomicU64,
    /// Damaged ranges found in the round under way and the one before it, and files of snapshots that are lost.
    pub damaged: AtomicU64,
    /// Copies of snapshots and their parts that were damaged or missing, and were made again.
    pub mended: AtomicU64,
    pub(super) found: Mutex<Vec<DamagedRange>>,
    pub(super) lost: Mutex<Vec<LostFile>>,
}

/// A snapshot, or a part, of which both copies are damaged.
#[derive(Clone, Debug)]
pub struct LostFile {
    /// The file.
    pub file: PathBuf,
    /// The id, if it is a part.
    pub part: Option<u64>,
    /// What is wrong with both copies.
    pub reason: String,
}

impl ScrubReport {
    /// Damaged ranges that were found, each once, by position; not more than a thousand.
    pub fn found(&self) -> Vec<DamagedRange> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Files that the last look found damaged in both copies.
    pub fn lost(&self) -> Vec<LostFile> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps what is new of them, and forgets what is no longer in the log.
    pub(super) fn note(&self, ranges: &[DamagedRange], log_start: LogPosition) {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.retain(|range| range.to > log_start);
        for range in ranges {
            let at = found.partition_point(|known| known.from < range.from);
            if found.get(at).is_none_or(|known| known.from != range.from) && found.len() < FOUND_MAX {
                found.insert(at, range.clone());
            }
        }
    }
}
