//! The way to a client that has its stream to another node.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;
use vouch_cluster::NodeId;

use super::asks::{SessionAnswer, SessionAsk, ask};
use crate::peers::PeerNodes;
use crate::sessions::{Question, TelemetryStream};

/// How long the other node has to write a question: a stream that is not read takes none.
pub(super) const WRITTEN_WITHIN: Duration = Duration::from_secs(5);

/// The stream of a client to another node.
pub(super) struct StreamThere {
    pub(super) nodes: Arc<PeerNodes>,
    pub(super) node: NodeId,
    pub(super) client_id: String,
    pub(super) runtime: Handle,
}

impl TelemetryStream for StreamThere {
    /// The question counts as written when that node says that it wrote it, which is later than it did.
    fn send_check(&self, question: Question) -> bool {
        let Some(command) = question.go_out() else { return false };
        if !self.is_open() {
            return false;
        }
        let (nodes, node, client_id) = (self.nodes.clone(), self.node, self.client_id.clone());
        self.runtime.spawn(async move {
            let check = SessionAsk::Check { client_id, command: Box::new(command) };
            let until = Instant::now() + WRITTEN_WITHIN;
            if ask(&nodes, node, &check, until).await == Some(SessionAnswer::Asked(true)) {
                // One that was withdrawn meanwhile has asked somebody all the same: what he answers counts nothing.
                question.take();
            }
        });
        true
    }

    fn is_open(&self) -> bool {
        self.nodes.reaches_sessions(self.node)
    }

    fn is_here(&self) -> bool {
        false
    }
}
