//! A group of replicas in one thread, with virtual time: whole nodes (consensus, the log on a crashing disk, the broker's
//! state machine) and the histories of their clients. A seed decides everything, so a run that fails is repeated by its seed.
//!
//! A run has two phases. In the first anything may fail; in the second nothing does, and the group must make progress and
//! come to one log. What is checked, and when, stands in [`checks`].

#![allow(clippy::unwrap_used, reason = "a simulation that goes wrong here is to fail here")]

mod beginning;
pub mod bugs;
pub mod checks;
mod clients;
mod death;
mod faults;
mod guests;
mod ledger;
mod machine;
mod network;
mod node;
mod operator;
mod plan;
mod promises;
mod pulling;
mod retention;
mod trace;
mod world;

pub use bugs::Injected;
pub use faults::Faults;
pub use plan::{Failure, Plan, Report};
pub use pulling::Pulls;
pub use world::run;
