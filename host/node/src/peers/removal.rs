//! What a node does that was removed from its cluster: it notes that in its folder, and tells whoever runs it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::spawn_blocking;
use vouch_cluster::{ClusterNodes, NodeId};
use vouch_storage::note_removed;
use vouch_transport::{LinkState, REFUSES};

/// Whether this node was removed.
#[derive(Debug)]
pub(crate) struct Removal {
    me: NodeId,
    data_dir: PathBuf,
    was_removed: watch::Sender<bool>,
}

impl Removal {
    /// Of this node, as long as nobody has said so: it was not.
    pub(super) fn new(me: NodeId, data_dir: PathBuf) -> Self {
        Self { me, data_dir, was_removed: watch::Sender::new(false) }
    }

    /// Looks whether it was, by what its own log says, or another member says that lets it in no more. Notes it then, so that no
    /// start takes the folder again. Returns whether this node is to be stopped.
    pub(super) async fn look(&self, nodes: &ClusterNodes, others: &BTreeMap<NodeId, LinkState>) -> bool {
        let is_told = |state: &LinkState| match state {
            LinkState::Down { why } => tells_removal(why, self.me),
            LinkState::Up(_) => false,
        };
        if !nodes.is_gone(self.me) && !others.values().any(is_told) {
            return false;
        }
        tracing::warn!(node = %self.me, "this node was removed from its cluster: it stops, and does not start again");
        let data_dir = self.data_dir.clone();
        match spawn_blocking(move || note_removed(&data_dir)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(%error, "the data folder cannot note that its node was removed; do not start it again");
            }
            Err(error) => tracing::error!(%error, "what notes that this node was removed ended by a defect"),
        }
        self.was_removed.send_replace(true);
        true
    }

    /// Whether it has heard of that.
    pub(crate) fn was_heard(&self) -> bool {
        *self.was_removed.borrow()
    }

    /// Resolves when this node has heard that it was removed, and noted it.
    pub(crate) async fn heard(self: Arc<Self>) {
        let mut was_removed = self.was_removed.subscribe();
        // The sender is `self`, which lives.
        let _ = was_removed.wait_for(|was_removed| *was_removed).await;
    }
}

/// How a member tells a node that it was removed. That one reads it, and may be of another version: these words stay.
pub(super) fn tell_removal(node: NodeId) -> String {
    format!("node {node} was removed from this cluster")
}

/// Whether this is why a link to another node is down.
pub(super) fn tells_removal(why: &str, me: NodeId) -> bool {
    // Whom it dialed, and where, stands before that.
    why.split_once(REFUSES).is_some_and(|(_, why)| why.starts_with(&tell_removal(me)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn down(why: String) -> BTreeMap<NodeId, LinkState> {
        [(NodeId(1), LinkState::Down { why })].into()
    }

    #[tokio::test]
    async fn a_node_was_removed_when_its_log_says_so_or_another_one_refuses_it_for_that() {
        let folder = tempfile::tempdir().unwrap();
        let begun = folder.path().join("identity.json");
        std::fs::write(&begun, "{}").unwrap();
        let (first, second) = (NodeId::FIRST, NodeId(2));
        // Two was never one of these nodes, and is not missed.
        let nodes = ClusterNodes::default();
        let removal = |me| Arc::new(Removal::new(me, folder.path().to_owned()));
        for (me, why) in [
            (first, "it does not answer".to_owned()),
            (first, tell_removal(first)),
            (second, format!("{REFUSES}{}", tell_removal(NodeId(20)))),
            (NodeId(20), format!("{REFUSES}{}", tell_removal(second))),
        ] {
            assert!(!removal(me).look(&nodes, &down(why.clone())).await, "{why}");
        }
        assert!(!folder.path().join("removed").exists());
        let gone = ClusterNodes { last: second, ..ClusterNodes::default() };
        for (nodes, others) in [
            (gone, BTreeMap::new()),
            (nodes, down(format!("node 1 at 10.0.0.1:8090: {REFUSES}{}, or did not come", tell_removal(second)))),
        ] {
            let removal = removal(second);
            assert!(!removal.was_heard());
            assert!(removal.look(&nodes, &others).await);
            assert!(removal.was_heard());
            removal.heard().await;
            std::fs::remove_file(folder.path().join("removed")).unwrap();
        }
    }
}
