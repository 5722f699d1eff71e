//! The deterministic state machine: topics, groups, queues, transactions, delivery.
