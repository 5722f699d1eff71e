//! What was answered to checks, by binding.

use std::sync::{Mutex, MutexGuard, PoisonError};

use vouch_broker::TransactionOutcome;

use vouch_leader::{OTHER, Series};

/// In the place of a binding: a producer was asked. No binding has an empty name.
pub const PRODUCER: &str = "";

/// Checks of one binding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckCounts {
    /// CheckOutcome *commit*.
    pub commit: u64,
    /// CheckOutcome *rollback*.
    pub rollback: u64,
    /// CheckOutcome *unknown*, silence included.
    pub unknown: u64,
    /// Without an answer.
    pub no_answer: u64,
}

impl CheckCounts {
    /// Names of the verdicts, and how many there were of each.
    pub fn by_verdict(&self) -> [(&'static str, u64); 4] {
        let Self { commit, rollback, unknown, no_answer } = *self;
        [("commit", commit), ("rollback", rollback), ("unknown", unknown), ("no_answer", no_answer)]
    }
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckOutcome {
    Ended(TransactionOutcome),
    Unknown,
    NoAnswer,
}

impl CheckOutcome {
    /// As lines of the log have it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ended(TransactionOutcome::Committed) => "commit",
            Self::Ended(TransactionOutcome::RolledBack) => "rollback",
            Self::Unknown => "unknown",
            Self::NoAnswer => "no answer",
        }
    }
}

/// Checks by binding. Behind a lock: a check costs the call of a component, or a question to a client.
#[derive(Debug, Default)]
pub struct Checks(Mutex<Series<String, CheckCounts>>);

impl Checks {
    fn series(&self) -> MutexGuard<'_, Series<String, CheckCounts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a check of a binding, or of [`PRODUCER`].
    pub(crate) fn count(&self, binding: &str, verdict: CheckOutcome) {
        let mut series = self.series();
        let counts = if binding == OTHER { series.other() } else { series.of(binding.to_owned()) };
        *match verdict {
            CheckOutcome::Ended(TransactionOutcome::Committed) => &mut counts.commit,
            CheckOutcome::Ended(TransactionOutcome::RolledBack) => &mut counts.rollback,
            CheckOutcome::Unknown => &mut counts.unknown,
            CheckOutcome::NoAnswer => &mut counts.no_answer,
        } += 1;
    }

    /// What was counted until now.
    pub fn counts(&self) -> Series<String, CheckCounts> {
        self.series().clone()
    }
}
