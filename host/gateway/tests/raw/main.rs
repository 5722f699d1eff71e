//! Hand-made gRPC calls against a node with a real log: what official clients never send, and what they rely on
//! (protocol paper §8, items marked *raw*).

mod broker;
mod consuming;
mod sending;
mod sessions;
mod transactions;
mod transport;
