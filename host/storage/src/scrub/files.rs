//! The snapshots and their parts, each in both copies.

use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::report::{LostFile, ScrubReport};
use crate::snapshots::{Mended, Requests, Rooms, Snapshots, tell};

/// What is read besides the log.
pub struct ScrubbedFiles {
    /// The shard's snapshots.
    pub snapshots: Arc<Snapshots>,
    /// Where it is said that a part was mended.
    pub requests: Arc<Requests>,
}

/// Reads both copies of everything, once, and mends what can be mended.
pub(super) fn look_at_files(files: &ScrubbedFiles, report: &ScrubReport, pace: &mut dyn FnMut(u64) -> bool) {
    let ScrubbedFiles { snapshots, requests } = files;
    let stored = snapshots.stored().unwrap_or_else(|error| {
        tracing::error!(%error, "the snapshots could not be scrubbed; look after the disk");
        Vec::new()
    });
    let mut lost = Vec::new();
    for stored in stored {
        let mended = match snapshots.mend(stored, Rooms::Spared, pace) {
            Ok(Mended::Stopped) => return,
            Ok(mended) => mended,
            Err(error) => {
                tracing::error!(%error, ?stored, "a damaged copy cannot be made again now; the next round tries again");
                continue;
            }
        };
        tell(&mended);
        match mended {
            Mended::Again(copies) => {
                report.mended.fetch_add(copies.len() as u64, Ordering::Relaxed);
                requests.damaged(stored.part());
            }
            Mended::Lost([(file, why), _]) => {
                lost.push(LostFile { file, part: stored.part(), reason: why.to_string() });
            }
            Mended::Whole | Mended::Gone | Mended::Stopped => {}
        }
    }
    report.damaged.fetch_add(lost.len() as u64, Ordering::Relaxed);
    *report.lost.lock().unwrap_or_else(PoisonError::into_inner) = lost;
}
