//! What a stored snapshot needs of the log: as long as one may be needed, the log is released no further.

use std::ops::Range;

use vouch_commitlog::{Checkpoint, DamagedRange, LogPosition, Verification};

use super::LoadedState;
use crate::position::log_position;

/// What a stored snapshot needs of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotBound {
    /// The snapshot covers the log before this position.
    pub covers: LogPosition,
    /// Where the last entry in it lies, by which a start knows that snapshot and log belong together.
    pub last_entry: LogPosition,
    /// The index of that.
    pub last_index: u64,
    /// The lowest position that its state refers to.
    pub refers_to: LogPosition,
}

impl SnapshotBound {
    /// Of a state that was just read or made. It holds for the snapshot as it is stored, whatever the running state
    /// needs by now.
    pub(crate) fn of(loaded: &LoadedState) -> Self {
        let LoadedState { checkpoint, state } = loaded;
        let refers_to = log_position(state.needed_from());
        let Checkpoint { end, position, index, .. } = *checkpoint;
        Self { covers: end, last_entry: position, last_index: index, refers_to }
    }

    /// Where the log must begin for it, at the latest.
    pub fn log_from(&self) -> LogPosition {
        self.last_entry.min(self.refers_to)
    }

    /// What it needs of the log and lies before the log's first file: no release removed that.
    pub fn missing_before(&self, log_start: LogPosition) -> Option<Range<LogPosition>> {
        (self.log_from() < log_start).then(|| self.log_from()..log_start)
    }

    /// Whether a start from it does not meet this damage of a log: it reads from the snapshot's last entry on, and of what
    /// lies before only whether each file is there, as long as it must be, and has its header.
    pub fn is_behind(&self, damage: &DamagedRange, log: &Verification) -> bool {
        let start = LogPosition(damage.from.0 - damage.offset);
        let file = log.segments.iter().find(|segment| segment.start == start);
        damage.to <= self.last_entry
            && file.is_some_and(|file| file.header_sound && file.size == log.identity.segment_size)
    }
}

/// What the two snapshots need that are kept: a start can go on from either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotBounds {
    /// `None` before there are two.
    pub older: Option<SnapshotBound>,
    /// The newest one.
    pub newer: SnapshotBound,
}

#[cfg(test)]
mod tests {
    use vouch_commitlog::{LogIdentity, SegmentInfo};

    use super::*;

    #[test]
    fn the_log_begins_with_the_last_entry_of_a_snapshot_or_with_what_its_state_refers_to() {
        let bound = |last_entry, refers_to| SnapshotBound {
            last_index: 9,
            covers: LogPosition(1000),
            last_entry: LogPosition(last_entry),
            refers_to: LogPosition(refers_to),
        };
        assert_eq!(bound(900, 400).log_from(), LogPosition(400));
        // A state that refers to nothing any more still has to be found to belong to its log.
        assert_eq!(bound(900, u64::MAX).log_from(), LogPosition(900));
        assert_eq!(bound(0, 0).log_from(), LogPosition::START);
    }

    #[test]
    fn what_a_snapshot_needs_and_the_log_has_no_more_is_missing() {
        let bound = SnapshotBound {
            covers: LogPosition(1000),
            last_entry: LogPosition(900),
            last_index: 9,
            refers_to: LogPosition(400),
        };
        assert_eq!(bound.missing_before(LogPosition(400)), None);
        assert_eq!(bound.missing_before(LogPosition(500)), Some(LogPosition(400)..LogPosition(500)));
    }

    #[test]
    fn a_start_does_not_meet_what_is_damaged_before_its_snapshot_in_a_file_that_is_one() {
        let bound = SnapshotBound {
            covers: LogPosition(1000),
            last_entry: LogPosition(900),
            last_index: 9,
            refers_to: LogPosition(0),
        };
        let segment = |start, size, header_sound| SegmentInfo {
            file: "segment".into(),
            start: LogPosition(start),
            size,
            header_sound,
            entries: 1,
            first_index: None,
            last_index: None,
            used_bytes: size,
            prepared_bytes: 0,
            durable_mark: LogPosition(0),
        };
        let log = Verification {
            identity: LogIdentity { cluster_id: [1; 16], shard: 0, segment_size: 100 },
            start: LogPosition(0),
            end: LogPosition(1200),
            durable: LogPosition(1200),
            entries: 1,
            damage: Vec::new(),
            tail: None,
            segments: vec![
                segment(0, 100, true),
                segment(100, 99, true),
                segment(200, 100, false),
                segment(800, 100, true),
                segment(900, 100, true),
            ],
        };
        let behind = |from: u64, to: u64| {
            let damage = DamagedRange {
                file: "segment".into(),
                offset: from % 100,
                length: to - from,
                from: LogPosition(from),
                to: LogPosition(to),
                reason: String::new(),
                headers: 0,
                index_before: None,
                index_after: None,
            };
            bound.is_behind(&damage, &log)
        };
        assert!(behind(40, 60) && behind(850, 900));
        // Across the last entry; a file that is too short, has no header, or is not there.
        assert!(!behind(850, 901) && !behind(950, 960));
        assert!(!behind(140, 160) && !behind(240, 260) && !behind(300, 400));
    }
}
