//! What a core does of what components do: benchmarks, not verdicts.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for the terminal, which may end with a panic")]

mod checks;
#[path = "../common/mod.rs"]
mod common;
mod deliveries;
#[path = "../../../plugin/tests/suite/guests.rs"]
#[allow(dead_code, reason = "each suite uses a part of it")]
mod guests;
#[path = "../common/keepers.rs"]
mod keepers;
