//! What the sessions of this node keep for the others: what the leader has not heard yet, and, where this one leads, the streams
//! that clients have elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vouch_cluster::NodeId;

use super::questions::TelemetryStream;

/// What changed since that was last asked; nothing is kept where nobody asks.
#[derive(Debug, Default)]
pub(super) struct ChangedSessions {
    pub(super) are_kept: bool,
    pub(super) clients: BTreeSet<Arc<str>>,
    pub(super) heard: BTreeSet<Arc<str>>,
    pub(super) gone: BTreeSet<Arc<str>>,
}

impl ChangedSessions {
    /// It is new, or says something else.
    pub(super) fn changed(&mut self, id: &Arc<str>) {
        if self.are_kept {
            self.gone.remove(id);
            self.clients.insert(Arc::clone(id));
        }
    }

    /// Its client was heard.
    pub(super) fn heard(&mut self, id: &Arc<str>) {
        if self.are_kept && !self.heard.contains(id) {
            self.heard.insert(Arc::clone(id));
        }
    }

    /// Its client said that it leaves.
    pub(super) fn gone(&mut self, id: &Arc<str>) {
        if self.are_kept {
            self.clients.remove(id);
            self.heard.remove(id);
            self.gone.insert(Arc::clone(id));
        }
    }

    /// Whether something is to be told at once: that a client was heard can wait.
    pub(super) fn is_urgent(&self) -> bool {
        !self.clients.is_empty() || !self.gone.is_empty()
    }
}

/// Streams that clients have to other nodes.
#[derive(Default)]
pub(super) struct StreamsThere(pub(super) BTreeMap<NodeId, BTreeMap<String, Arc<dyn TelemetryStream>>>);

impl StreamsThere {
    /// The clients of a node.
    pub(super) fn of(&self, node: NodeId) -> Vec<String> {
        self.0.get(&node).into_iter().flat_map(BTreeMap::keys).cloned().collect()
    }

    /// The nodes that have any.
    pub(super) fn nodes(&self) -> Vec<NodeId> {
        self.0.keys().copied().collect()
    }

    /// Its session ended.
    pub(super) fn forget(&mut self, client_id: &str) {
        self.0.retain(|_, clients| {
            clients.remove(client_id);
            !clients.is_empty()
        });
    }
}
