//! What a node counts since it started, and what it shows of groups and topics.

mod checks;
mod comparisons;
mod deliveries;
mod process;
mod view;
mod walk;

use std::sync::atomic::AtomicU64;

use vouch_commitlog::Durations;

pub use checks::{CheckCounts, Checks, PRODUCER};
pub use comparisons::{ComparisonCounts, Comparisons};
pub use deliveries::{Deliveries, DeliveryCounts};
pub use process::ProcessUse;
pub use view::{GroupLag, SeriesView, TopicTransactions};

pub(crate) use checks::CheckOutcome;
pub(crate) use deliveries::DeliveryOutcome;
pub(crate) use view::Views;

/// Counters that no state holds. What a message touches is an atomic addition.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Messages stored, halves included.
    pub messages_in: AtomicU64,
    /// Those of them that were acknowledged before they were durable (ack level `memory`).
    pub messages_in_memory: AtomicU64,
    /// Messages handed out, redeliveries included.
    pub messages_out: AtomicU64,
    /// Transactions ended with a commit.
    pub commits: AtomicU64,
    /// Transactions ended with a rollback.
    pub rollbacks: AtomicU64,
    /// Ends that were refused because the transaction had ended the other way.
    pub end_conflicts: AtomicU64,
    /// Asks that got no answer.
    pub checks_unanswered: AtomicU64,
    /// Requests refused because too much was in flight.
    pub overloads: AtomicU64,
    /// Sends that were stored, from the call to the answer.
    pub sends: Durations,
    /// Receives that got messages, from the call to the answer: waiting for them included.
    pub receives: Durations,
    /// Calls of components about a transaction, without the wait for a place to run.
    pub check_calls: Durations,
    /// What was answered to checks.
    pub checks: Checks,
    /// Calls of components about a delivery, without the wait for a place to run.
    pub delivery_calls: Durations,
    /// What became of those deliveries.
    pub deliveries: Deliveries,
    /// How that compares with what producers said.
    pub comparisons: Comparisons,
}
