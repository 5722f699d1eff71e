//! What a node counts since it started.

use std::sync::atomic::AtomicU64;

/// Counters that no state holds.
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
}
