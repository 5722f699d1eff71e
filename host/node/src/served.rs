//! The log that a node serves, and what looks after it.

use std::sync::Arc;

use vouch_broker::{NotDone, NothingStored};
use vouch_commitlog::{Housekeeping, LogUsage, Recovery};
use vouch_storage::{DamagedLog, Scrub, Snapshotter};

/// The log of a node, and who looks after it.
pub(crate) enum ServedLog {
    /// It is written.
    Kept(Arc<Upkeep>),
    /// It is only read.
    Damaged(Box<DamagedLog>),
}

/// What looks after a log that is written.
pub(crate) struct Upkeep {
    pub(crate) housekeeping: Housekeeping,
    pub(crate) snapshotter: Snapshotter,
    pub(crate) scrub: Scrub,
    pub(crate) recovery: Recovery,
}

impl Upkeep {
    /// Ends what reads and writes the folder beside the log, for good; what is under way ends first.
    pub(crate) fn rest(&self) {
        self.scrub.stop();
        self.snapshotter.stop(None);
    }
}

impl ServedLog {
    /// What it occupies.
    pub(crate) fn usage(&self) -> LogUsage {
        match self {
            Self::Kept(upkeep) => upkeep.housekeeping.usage(),
            Self::Damaged(log) => log.usage(),
        }
    }

    /// Who looks after it, where it is written.
    pub(crate) fn upkeep(&self) -> Option<&Arc<Upkeep>> {
        match self {
            Self::Kept(upkeep) => Some(upkeep),
            Self::Damaged(_) => None,
        }
    }

    /// What to say where something is not there: that, unless it may lie where a damaged log is not served.
    pub(crate) fn if_all_is_served(&self, not_there: NotDone) -> NotDone {
        let Self::Damaged(log) = self else { return not_there };
        if let Some(lost) = &log.lost {
            let text = format!("what was asked for is not there, or is lost: {lost}; restore the folder from a backup");
            return NotDone::NothingStored(NothingStored::ReadOnly(text));
        }
        if log.served_to >= log.found.end {
            return not_there;
        }
        NotDone::NothingStored(NothingStored::ReadOnly(format!(
            "what was asked for is not there as far as the log is served, which is up to position {} of {}; restore the \
             folder from a backup",
            log.served_to, log.found.end
        )))
    }
}
