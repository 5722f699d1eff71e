//! A log that is damaged inside: opening it without changing one byte, and telling what was lost.
//!
//! Where something that was durable is gone, nothing may be cut, and nothing may be appended behind it: what follows the
//! damage stood on what was lost. What came before it, and everything that a snapshot says, is as true as ever. So the
//! node can serve that, to be read only, until the folder is restored.
//!
//! The same holds where the log is whole and a part of the snapshots is lost, in both copies, with the log's beginning
//! released: nobody knows any more where some messages lie, and everything else is as true as ever.

mod judge;
mod read;

use std::ops::Range;
use std::path::PathBuf;

use vouch_broker::state::Gaps;
use vouch_commitlog::{DamagedRange, LogPosition, Usage, Verification};

pub(crate) use judge::{judge, rebuild, without_parts};
pub(crate) use read::ReadOnly;

/// What is served of a damaged log.
#[derive(Debug)]
pub struct DamagedLog {
    /// What a look at all of it found.
    pub found: Verification,
    /// The state is that of this position: nothing before it that counts is missing.
    pub served_to: u64,
    /// Before this position the log may be of another history, and nothing of it is read; 0 if all of it is of one.
    pub doubtful_to: u64,
    /// What is missing in the state with parts that are lost.
    pub lost: Option<LostParts>,
}

/// Parts of the newest snapshot that are lost, which no older one does without.
#[derive(Debug)]
pub struct LostParts {
    /// Their files.
    pub files: Vec<PathBuf>,
    /// The stretch of the log of which they told where messages lie.
    pub stretch: Range<u64>,
    /// What they told of it.
    pub gaps: Gaps,
}

impl std::fmt::Display for LostParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let files: Vec<String> = self.files.iter().map(|file| file.display().to_string()).collect();
        let Gaps { queues, sent, outcomes } = &self.gaps;
        let messages: u64 = queues.iter().map(|gap| gap.offsets.end.since(gap.offsets.start)).sum();
        write!(
            f,
            "no copy of {} is whole: nobody knows any more where {messages} messages lie in the log; with that {outcomes} \
             outcomes of transactions and {sent} messages are lost that were remembered for resends",
            files.join(", ")
        )
    }
}

impl DamagedLog {
    /// Whole bytes behind [`Self::served_to`]: nobody knows what they would mean without what was lost before them.
    pub fn not_served_bytes(&self) -> u64 {
        let clip = |position: LogPosition| position.0.clamp(self.served_to, self.found.end.0.max(self.served_to));
        let lost: u64 = self.found.damage.iter().map(|range| clip(range.to) - clip(range.from)).sum();
        self.found.end.0.saturating_sub(self.served_to).saturating_sub(lost)
    }

    /// What it occupies.
    pub fn usage(&self) -> Usage {
        let Verification { start, end, segments, .. } = &self.found;
        Usage {
            start: *start,
            end: *end,
            segments: segments.len() as u64,
            segment_bytes: segments.iter().map(|segment| segment.size).sum(),
            spare_bytes: 0,
            held_bytes: 0,
        }
    }
}

/// Whether whole entries meet there that do not follow one another.
pub fn is_break(range: &DamagedRange) -> bool {
    range.from == range.to
}
