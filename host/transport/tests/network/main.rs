//! Nodes on real sockets, with a proxy between them that does what networks do.

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod bounds;
mod calls;
mod certificates;
mod death;
mod files;
mod group;
mod lanes;
mod lives;
mod node;
mod proxy;
mod refusals;
