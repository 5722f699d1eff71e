//! The other members of a group, as a replica sends to them.

use vouch_commitlog::EntrySpan;
use vouch_consensus::GroupMessage;

/// Takes messages to the other members.
///
/// # To ensure correctness
/// Messages to one member arrive in the order in which they were given here, or not at all: heartbeats, too, go no way of their
/// own.
pub trait Peers: Send + Sync {
    /// Sends a message, with what its entries hold. Never waits.
    fn send(&self, message: GroupMessage, entries: Vec<EntrySpan>);
}

/// There are none.
#[derive(Debug)]
pub struct NoPeers;

impl Peers for NoPeers {
    fn send(&self, _: GroupMessage, _: Vec<EntrySpan>) {}
}
