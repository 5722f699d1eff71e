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
use vouch_commitlog::{DamagedRange, LogPosition, LogUsage, Verification};

pub(crate) use judge::{judge, rebuild, without_parts};
pub(crate) use read::ReadOnly;

/// What is served of a damaged log.
#[derive(Debug)]
pub struct DamagedLog {
    /// What a look at all of it found.
    pub found: Verification,
    /// The state is that of this position: nothing before it that counts is missing.
    pub served_to: LogPosition,
    /// Before this position the log may be of another history, and nothing of it is read; its start if all of it is of one.
    pub doubtful_to: LogPosition,
    /// What is missing in the state with parts that are lost.
    pub lost: Option<LostParts>,
}

/// Parts of the newest snapshot that are lost, which no older one does without.
#[derive(Debug)]
pub struct LostParts {
    /// Their files.
    pub files: Vec<PathBuf>,
    /// The stretch of the log of which they told where messages lie.
    pub stretch: Range<LogPosition>,
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
        let clip = |position: LogPosition| position.clamp(self.served_to, self.found.end.max(self.served_to));
        let lost: u64 = self.found.damage.iter().map(|range| clip(range.to).since(clip(range.from))).sum();
        self.found.end.saturating_since(self.served_to).saturating_sub(lost)
    }

    /// What it occupies.
    pub fn usage(&self) -> LogUsage {
        let Verification { start, end, segments, .. } = &self.found;
        LogUsage {
            start: *start,
            end: *end,
            segments: segments.len() as u64,
            segment_bytes: segments.iter().map(|segment| segment.size).sum(),
            spare_bytes: 0,
            reused_bytes: 0,
            held_bytes: 0,
        }
    }
}

/// Whether whole entries meet there that do not follow one another.
pub fn is_break(range: &DamagedRange) -> bool {
    range.from == range.to
}

#[cfg(test)]
mod tests {
    use vouch_broker::TopicId;
    use vouch_broker::state::QueueGap;
    use vouch_commitlog::LogIdentity;

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

    fn damaged(served_to: u64, end: u64, damage: Vec<DamagedRange>) -> DamagedLog {
        let found = Verification {
            identity: LogIdentity { cluster_id: [1; 16], shard: 0, segment_size: 100 },
            start: LogPosition(0),
            end: LogPosition(end),
            durable: LogPosition(end),
            entries: 1,
            damage,
            tail: None,
            segments: Vec::new(),
        };
        DamagedLog { found, served_to: LogPosition(served_to), doubtful_to: LogPosition::START, lost: None }
    }

    #[test]
    fn what_is_whole_behind_what_is_served_is_counted_without_the_damage_in_it() {
        let bytes = |served_to, damage| damaged(served_to, 1000, damage).not_served_bytes();
        assert_eq!(bytes(1000, vec![]), 0, "all of it is served");
        assert_eq!(bytes(300, vec![range(300, 400)]), 600);
        assert_eq!(bytes(300, vec![range(100, 200), range(300, 400), range(900, 1000)]), 500);
        // One that begins before counts from there on, and one that reaches beyond the end counts up to it.
        assert_eq!(bytes(300, vec![range(200, 400), range(950, 2000)]), 550);
        assert_eq!(bytes(2000, vec![range(100, 200)]), 0, "a snapshot may cover more than the log still has");
        assert_eq!(bytes(500, vec![range(500, 500)]), 500, "where histories meet nothing is lost");
    }

    #[test]
    fn where_whole_entries_do_not_follow_one_another_nothing_lies_between() {
        assert!(is_break(&range(700, 700)) && !is_break(&range(700, 701)));
    }

    #[test]
    fn a_log_that_is_only_read_occupies_what_lies_there() {
        let usage = damaged(0, 1000, vec![]).usage();
        assert_eq!((usage.start.0, usage.end.0, usage.spare_bytes, usage.held_bytes), (0, 1000, 0, 0));
        assert_eq!((usage.segments, usage.segment_bytes), (0, 0));
    }

    #[test]
    fn what_is_lost_with_parts_is_told_by_file_and_number() {
        let offsets =
            |range: std::ops::Range<u64>| vouch_broker::QueueOffset(range.start)..vouch_broker::QueueOffset(range.end);
        let gap = |queue, range| QueueGap { topic: TopicId(1), queue, offsets: offsets(range) };
        let gaps = Gaps { queues: vec![gap(0, 5..8), gap(1, 0..4)], sent: 9, outcomes: 2 };
        let files = vec![PathBuf::from("/data/1.part"), PathBuf::from("/data/2.part")];
        let told = LostParts { files, stretch: LogPosition(0)..LogPosition(100), gaps }.to_string();
        for words in ["/data/1.part, /data/2.part", "where 7 messages lie", "2 outcomes", "9 messages are lost"] {
            assert!(told.contains(words), "{told}");
        }
    }
}
