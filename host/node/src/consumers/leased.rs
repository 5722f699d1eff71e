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
    /// Where it lies.
    pub(super) place: Place,
    /// Of its lease: an answer under another one is late.
    pub(super) generation: Generation,
    /// When the lease ends.
    pub(super) deadline: Millis,
    /// Which delivery this is, from 1.
    pub(super) attempt: u32,
    /// Log position of the record that holds it now.
    pub(super) position: RecordPosition,
    /// For which it was received.
    pub(super) subscription: Arc<Subscription>,
    /// Settings of the group when it was received.
    pub(super) group: Arc<GroupConfig>,
}

impl Leased {
    /// Whether another delivery may follow this one.
    pub(super) fn is_last(&self) -> bool {
        self.attempt >= self.group.max_attempts
    }
}
