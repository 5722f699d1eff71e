//! Hand-made gRPC calls against a node with a real log: what official clients never send, and what they rely on
//! (protocol paper §8, items marked *raw*).

#![allow(clippy::unwrap_used, reason = "a helper of a test fails like the test")]

mod bounds;
mod broker;
mod consuming;
mod damage;
#[path = "../support/folder.rs"]
mod folder;
mod gate;
mod sending;
mod sessions;
mod transactions;
mod transport;
mod waiting;
