//! Shared pieces of the black-box suites: a broker process, and a hand-made client of its gRPC service.
//!
//! The suites see the broker as a user does: a binary, a folder, two ports. Nothing here reaches into its crates but
//! for the generated wire types.

pub mod broker;
pub mod client;
