//! The connections that peers have to this node now.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

use crate::identity::{Lane, PeerIdentity};

/// All of them.
#[derive(Debug)]
pub(crate) struct LiveConnections {
    table: Mutex<Table>,
    all_max: usize,
    peer_max: usize,
}

#[derive(Debug, Default)]
struct Table {
    last: u64,
    entries: HashMap<u64, LiveEntry>,
}

#[derive(Clone, Debug)]
struct LiveEntry {
    peer: PeerIdentity,
    lane: Lane,
    /// It is to end.
    end: CancellationToken,
    /// Its task is done with it: nothing of it is handed on any more.
    ended: CancellationToken,
}

/// A place in the table. Dropping it says that nothing of the connection is handed on any more.
#[derive(Debug)]
pub(crate) struct LivePlace {
    live: Arc<LiveConnections>,
    number: u64,
    end: CancellationToken,
    ended: CancellationToken,
}

impl LiveConnections {
    pub(crate) fn new(all_max: usize, peer_max: usize) -> Arc<Self> {
        Arc::new(Self { table: Mutex::default(), all_max, peer_max })
    }

    /// A place for a connection of this peer, once those that it takes the place of have ended: the one of the same lane, unless
    /// it is a pull, and all of other lives of the node. So what comes on it comes after all that came on those.
    ///
    /// # Errors
    /// There are too many: a sentence.
    pub(crate) async fn enter(self: &Arc<Self>, peer: PeerIdentity, lane: Lane) -> Result<LivePlace, String> {
        let (place, replaced) = self.take_place(peer, lane)?;
        for entry in &replaced {
            entry.end.cancel();
        }
        for entry in replaced {
            entry.ended.cancelled().await;
        }
        Ok(place)
    }

    /// A place in the table, and those that must end before it is used.
    fn take_place(self: &Arc<Self>, peer: PeerIdentity, lane: Lane) -> Result<(LivePlace, Vec<LiveEntry>), String> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let is_replaced = |entry: &&LiveEntry| {
            let same_lane = entry.lane == lane && lane != Lane::Files;
            entry.peer.node == peer.node && (same_lane || entry.peer.incarnation != peer.incarnation)
        };
        let replaced: Vec<LiveEntry> = table.entries.values().filter(is_replaced).cloned().collect();
        let of_peer = table.entries.values().filter(|entry| entry.peer.node == peer.node).count();
        if of_peer - replaced.len() >= self.peer_max {
            return Err(format!(
                "node {} has {} connections here already, which is the most",
                peer.node, self.peer_max
            ));
        }
        if table.entries.len() - replaced.len() >= self.all_max {
            return Err(format!("this node has {} connections of peers, which is the most", self.all_max));
        }
        table.last += 1;
        let number = table.last;
        let (end, ended) = (CancellationToken::new(), CancellationToken::new());
        table.entries.insert(number, LiveEntry { peer, lane, end: end.clone(), ended: ended.clone() });
        Ok((LivePlace { live: self.clone(), number, end, ended }, replaced))
    }

    /// Ends all connections of a node.
    pub(crate) fn end(&self, node: u64) {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.entries.values().filter(|entry| entry.peer.node == node).for_each(|entry| entry.end.cancel());
    }
}

impl LivePlace {
    /// The connection is to end: its node was removed, or another connection takes its place.
    pub(crate) async fn is_to_end(&self) {
        self.end.cancelled().await;
    }
}

impl Drop for LivePlace {
    fn drop(&mut self) {
        self.live.table.lock().unwrap_or_else(PoisonError::into_inner).entries.remove(&self.number);
        self.ended.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::tests::node;

    #[tokio::test]
    async fn there_are_so_many_connections_of_one_peer_and_of_all() {
        let live = LiveConnections::new(3, 2);
        let first = live.enter(node(1), Lane::Group(0)).await.unwrap();
        let _second = live.enter(node(1), Lane::Files).await.unwrap();
        let why = live.enter(node(1), Lane::Files).await.unwrap_err();
        assert!(why.contains("node 1 has 2 connections"), "{why}");
        let _third = live.enter(node(2), Lane::Calls).await.unwrap();
        let why = live.enter(node(3), Lane::Calls).await.unwrap_err();
        assert!(why.contains("has 3 connections of peers"), "{why}");
        drop(first);
        assert!(live.enter(node(3), Lane::Calls).await.is_ok());
    }

    #[tokio::test]
    async fn a_connection_waits_for_the_end_of_those_whose_place_it_takes() {
        let live = LiveConnections::new(9, 9);
        let calls = live.enter(node(1), Lane::Calls).await.unwrap();
        let group = live.enter(node(1), Lane::Group(0)).await.unwrap();
        let other = live.enter(node(2), Lane::Group(0)).await.unwrap();
        let again = tokio::spawn({
            let live = live.clone();
            async move { live.enter(node(1), Lane::Group(0)).await.unwrap() }
        });
        group.is_to_end().await;
        assert!(!again.is_finished() && !calls.end.is_cancelled() && !other.end.is_cancelled());
        drop(group);
        let again = again.await.unwrap();
        // Another life takes the place of all.
        let restarted = PeerIdentity { incarnation: 7, ..node(1) };
        let next = tokio::spawn({
            let live = live.clone();
            async move { live.enter(restarted, Lane::Files).await.unwrap() }
        });
        calls.is_to_end().await;
        again.is_to_end().await;
        drop((calls, again));
        let next = next.await.unwrap();
        live.end(1);
        next.is_to_end().await;
        assert!(!other.end.is_cancelled());
    }
}
