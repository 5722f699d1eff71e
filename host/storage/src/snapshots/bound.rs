//! What a stored snapshot needs of the log: as long as one may be needed, the log is released no further.

use super::Loaded;

/// What a stored snapshot needs of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The snapshot covers the log before this position.
    pub covers: u64,
    /// Where the last entry in it lies, by which a start knows that snapshot and log belong together.
    pub last_entry: u64,
    /// The lowest position that its state refers to.
    pub refers_to: u64,
}

impl Bound {
    /// Of a state that was just read or made. It holds for the snapshot as it is stored, whatever the running state
    /// needs by now.
    pub(crate) fn of(loaded: &Loaded) -> Self {
        let Loaded { checkpoint, state } = loaded;
        Self { covers: checkpoint.end.0, last_entry: checkpoint.position.0, refers_to: state.needed_from().0 }
    }

    /// Where the log must begin for it, at the latest.
    pub fn log_from(&self) -> u64 {
        self.last_entry.min(self.refers_to)
    }
}

/// What the two snapshots need that are kept: a start can go on from either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// `None` before there are two.
    pub older: Option<Bound>,
    /// The newest one.
    pub newer: Bound,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_begins_with_the_last_entry_of_a_snapshot_or_with_what_its_state_refers_to() {
        let bound = |last_entry, refers_to| Bound { covers: 1000, last_entry, refers_to };
        assert_eq!(bound(900, 400).log_from(), 400);
        // A state that refers to nothing any more still has to be found to belong to its log.
        assert_eq!(bound(900, u64::MAX).log_from(), 900);
        assert_eq!(bound(0, 0).log_from(), 0);
    }
}
