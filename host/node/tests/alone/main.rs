//! One node that is no member of a group of several.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod backup;
mod checks;
mod clock;
#[path = "../common/mod.rs"]
mod common;
mod copies;
mod damage;
mod fences;
mod filters;
mod folder;
#[path = "../../../plugin/tests/suite/guests.rs"]
#[allow(dead_code, reason = "each suite uses a part of it")]
mod guests;
mod leading;
mod lookup;
mod messages;
mod rebound;
mod retention;
mod scrub;
mod secrets;
mod series;
mod snapshots;
mod transactions;
