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

#[cfg(test)]
mod tests {
    use super::*;

    fn range(from: u64, to: u64) -> DamagedRange {
        DamagedRange {
            file: PathBuf::from("segment"),
            offset: from,
            length: to - from,
            from: LogPosition(from),
            to: LogPosition(to),
            reason: "it is damaged".to_owned(),
            headers: 0,
            index_before: None,
            index_after: None,
        }
    }

    fn known(report: &ScrubReport) -> Vec<u64> {
        report.found().iter().map(|range| range.from.0).collect()
    }

    #[test]
    fn each_range_is_kept_once_by_its_place_and_only_as_long_as_the_log_has_it() {
        let report = ScrubReport::default();
        report.note(&[range(500, 600), range(100, 200)], LogPosition(0));
        report.note(&[range(300, 400), range(100, 200)], LogPosition(0));
        assert_eq!(known(&report), [100, 300, 500]);
        // One that ends where the log begins is gone; one that reaches into it is not.
        report.note(&[], LogPosition(200));
        assert_eq!(known(&report), [300, 500]);
        report.note(&[range(700, 800)], LogPosition(399));
        assert_eq!(known(&report), [300, 500, 700]);
        report.note(&[], LogPosition(u64::MAX));
        assert!(known(&report).is_empty());
    }

    #[test]
    fn a_disk_that_loses_everything_fills_no_memory() {
        let report = ScrubReport::default();
        let many: Vec<_> = (0..FOUND_MAX as u64 + 7).map(|n| range(n * 10, n * 10 + 5)).collect();
        report.note(&many, LogPosition(0));
        assert_eq!(known(&report).len(), FOUND_MAX);
        // What comes free is there for others.
        report.note(&[range(1 << 40, (1 << 40) + 1)], LogPosition(100));
        assert_eq!((known(&report).len(), known(&report).last()), (FOUND_MAX - 9, Some(&(1 << 40))));
    }
}
