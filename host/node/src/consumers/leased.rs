//! A message in the hands of a binding.

use std::sync::Arc;
use std::time::Duration;

use vouch_broker::{Generation, GroupConfig, Millis, RecordPosition};

use super::Subscription;
use super::row::Place;

/// A lease is so much longer than the deadline of a call, so that no call outlives its lease.
pub(super) const LEASE_BEYOND_DEADLINE: Duration = Duration::from_secs(30);

/// A message that is leased to a binding.
pub(super) struct Leased {
    pub(super) place: Place,
    pub(super) generation: Generation,
    /// When the lease ends.
    pub(super) deadline: Millis,
    pub(super) attempt: u32,
    pub(super) position: RecordPosition,
    pub(super) subscription: Arc<Subscription>,
    pub(super) group: Arc<GroupConfig>,
}

impl Leased {
    /// Whether another delivery may follow this one.
    pub(super) fn is_last(&self) -> bool {
        self.attempt >= self.group.max_attempts
    }
}
