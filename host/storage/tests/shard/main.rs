//! A shard on real folders, opened, written, damaged and opened again: everything that needs no node above it.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod anew;
mod backup;
mod chains;
mod common;
mod copies;
mod cuts;
mod damage;
mod folder;
mod held;
mod lookup;
mod members;
mod named;
mod pulled;
mod replica;
mod scrub;
mod snapshots;
mod trouble;
