//! What became of deliveries to components, by binding.

use std::sync::{Mutex, MutexGuard, PoisonError};

use vouch_leader::{OTHER, Series};

/// Deliveries of one binding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeliveryCounts {
    /// Acknowledged.
    pub ack: u64,
    /// The component asked for another delivery.
    pub retry: u64,
    /// The component made a dead letter of it.
    pub reject: u64,
    /// Failed: an error, a trap, a deadline, no room for what was staged.
    pub failed: u64,
    /// The last one failed, and the message became a dead letter.
    pub dead_letter: u64,
    /// Run again, since what it had read was another by then, or somebody who runs alone had a key that it writes.
    pub stale: u64,
    /// Answered when the message was in other hands, or done: nothing came of it.
    pub late: u64,
    /// Not run: there was no place in time, or no room in the log.
    pub not_run: u64,
}

impl DeliveryCounts {
    /// Names of the outcomes, and how many there were of each.
    pub fn by_outcome(&self) -> [(&'static str, u64); 8] {
        let Self { ack, retry, reject, failed, dead_letter, stale, late, not_run } = *self;
        [
            ("ack", ack),
            ("retry", retry),
            ("reject", reject),
            ("failed", failed),
            ("dead_letter", dead_letter),
            ("stale", stale),
            ("late", late),
            ("not_run", not_run),
        ]
    }
}

/// How a delivery came out: see [`DeliveryCounts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeliveryOutcome {
    /// Acknowledged.
    Ack,
    /// To be delivered again, as the component says.
    Retry,
    /// A dead letter, as the component says.
    Reject,
    /// No answer, or one that could not be recorded.
    Failed,
    /// The last one failed.
    DeadLetter,
    /// To be run again.
    Stale,
    /// Too late.
    Late,
    /// Not run by the node.
    NotRun,
}

/// Deliveries by binding. Behind a lock: each costs the call of a component.
#[derive(Debug, Default)]
pub struct Deliveries(Mutex<Series<String, DeliveryCounts>>);

impl Deliveries {
    fn series(&self) -> MutexGuard<'_, Series<String, DeliveryCounts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a delivery of a binding.
    pub(crate) fn count(&self, binding: &str, outcome: DeliveryOutcome) {
        let mut series = self.series();
        let counts = if binding == OTHER { series.other() } else { series.of(binding.to_owned()) };
        *match outcome {
            DeliveryOutcome::Ack => &mut counts.ack,
            DeliveryOutcome::Retry => &mut counts.retry,
            DeliveryOutcome::Reject => &mut counts.reject,
            DeliveryOutcome::Failed => &mut counts.failed,
            DeliveryOutcome::DeadLetter => &mut counts.dead_letter,
            DeliveryOutcome::Stale => &mut counts.stale,
            DeliveryOutcome::Late => &mut counts.late,
            DeliveryOutcome::NotRun => &mut counts.not_run,
        } += 1;
    }

    /// What was counted until now.
    pub fn counts(&self) -> Series<String, DeliveryCounts> {
        self.series().clone()
    }
}
