//! How much there may be of what peers send.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::files::SendingPace;
use crate::settings::TransportBounds;
use crate::share::Share;

/// Room for what peers send, all together and each for itself.
#[derive(Debug)]
pub(crate) struct ServingRoom {
    bounds: TransportBounds,
    calls: Arc<Share>,
    sessions: Arc<Share>,
    pace: Arc<SendingPace>,
    peers: Mutex<HashMap<u64, Weak<PeerRoom>>>,
}

/// The room of one peer, as long as it has a connection.
#[derive(Debug)]
pub(super) struct PeerRoom {
    pub(super) datagrams: Arc<Share>,
    pub(super) calls: Arc<Share>,
    pub(super) sessions: Arc<Share>,
}

impl ServingRoom {
    pub(crate) fn new(bounds: TransportBounds) -> Self {
        let all = || Share::new(bounds.calls, bounds.calls_bytes);
        let pace = Arc::new(SendingPace::new(bounds.files_bytes_per_second));
        Self { bounds, calls: all(), sessions: all(), pace, peers: Mutex::default() }
    }

    /// The most calls of one peer at once, on one lane.
    pub(super) fn peer_calls(&self) -> usize {
        self.bounds.peer_calls
    }

    /// How fast files go out, to all together.
    pub(super) fn pace(&self) -> Arc<SendingPace> {
        self.pace.clone()
    }

    /// That of this peer.
    pub(super) fn of(&self, node: u64) -> Arc<PeerRoom> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(room) = peers.get(&node).and_then(Weak::upgrade) {
            return room;
        }
        peers.retain(|_, room| room.strong_count() > 0);
        let part = |of| Share::part(of, self.bounds.peer_calls, self.bounds.peer_calls_bytes);
        let room = Arc::new(PeerRoom {
            datagrams: Share::new(0, self.bounds.group_received_bytes),
            calls: part(&self.calls),
            sessions: part(&self.sessions),
        });
        peers.insert(node, Arc::downgrade(&room));
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_peer_leaves_room_for_others_and_keeps_its_own_over_reconnects() {
        let room = ServingRoom::new(TransportBounds { calls: 3, peer_calls: 2, ..TransportBounds::default() });
        let first = room.of(1);
        let held = [first.calls.take(1).unwrap(), first.calls.take(1).unwrap()];
        assert!(room.of(1).calls.take(1).is_none(), "another connection of the peer has the same room");
        let other = room.of(2);
        let last = other.calls.take(1).unwrap();
        assert!(other.calls.take(1).is_none(), "all together have three");
        assert!(other.sessions.take(1).is_some(), "another lane");
        drop((held, last));
    }
}
