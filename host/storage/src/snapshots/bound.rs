//! What a stored snapshot needs of the log: as long as one may be needed, the log is released no further.

use super::LoadedState;
use crate::position::log_position;
use vouch_commitlog::LogPosition;

/// What a stored snapshot needs of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotBound {
    /// The snapshot covers the log before this position.
    pub covers: LogPosition,
    /// Where the last entry in it lies, by which a start knows that snapshot and log belong together.
    pub last_entry: LogPosition,
    /// The lowest position that its state refers to.
    pub refers_to: LogPosition,
}

impl SnapshotBound {
    /// Of a state that was just read or made. It holds for the snapshot as it is stored, whatever the running state
    /// needs by now.
    pub(crate) fn of(loaded: &LoadedState) -> Self {
        let LoadedState { checkpoint, state } = loaded;
        let refers_to = log_position(state.needed_from());
        Self { covers: checkpoint.end, last_entry: checkpoint.position, refers_to }
    }

    /// Where the log must begin for it, at the latest.
    pub fn log_from(&self) -> LogPosition {
        self.last_entry.min(self.refers_to)
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
    use super::*;

    #[test]
    fn the_log_begins_with_the_last_entry_of_a_snapshot_or_with_what_its_state_refers_to() {
        let bound = |last_entry, refers_to| SnapshotBound {
            covers: LogPosition(1000),
            last_entry: LogPosition(last_entry),
            refers_to: LogPosition(refers_to),
        };
        assert_eq!(bound(900, 400).log_from(), LogPosition(400));
        // A state that refers to nothing any more still has to be found to belong to its log.
        assert_eq!(bound(900, u64::MAX).log_from(), LogPosition(900));
        assert_eq!(bound(0, 0).log_from(), LogPosition::START);
    }
}
