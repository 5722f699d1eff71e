//! A running node, as the edges see it.

use std::sync::Arc;

use vouch_broker::ShardId;
use vouch_cluster::NodeId;

use crate::cluster::Nodes;
use crate::components::Components;
use crate::damage::LogDamage;
use crate::messages::Messages;
use crate::metrics::Metrics;
use crate::running::RunningNode;
use crate::search::Search;
use crate::secrets::Secrets;
use crate::sessions::Sessions;
use crate::settings::Settings;
use crate::status::Status;
use crate::transactions::Transactions;

/// A running node: its faces, and nothing else. Clones are the same node, and cost some counters.
///
/// Each face got what it works with when it was made, and knows no other but those that it names.
#[derive(Clone)]
pub struct Node {
    /// Sends, receives and acknowledges.
    pub messages: Arc<Messages>,
    /// Ends transactions, and shows them.
    pub transactions: Arc<Transactions>,
    /// The nodes of the cluster: who comes and goes, and who leads.
    pub cluster: Arc<Nodes>,
    /// Topics, groups and their settings.
    pub settings: Arc<Settings>,
    /// Plugins, their components, and bindings.
    pub components: Arc<Components>,
    /// Values that bindings name, and nobody is shown.
    pub secrets: Arc<Secrets>,
    /// Finds messages.
    pub search: Arc<Search>,
    /// What of the log is damaged.
    pub damage: Arc<LogDamage>,
    /// How the node is.
    pub status: Arc<Status>,
    /// What was counted since the node started.
    pub metrics: Arc<Metrics>,
    /// Who is connected.
    pub sessions: Arc<Sessions>,
    /// Whose node it is.
    pub identity: NodeIdentity,
    pub(crate) running: Arc<RunningNode>,
}

/// Whose node it is; made with the cluster.
#[derive(Clone, Copy, Debug)]
pub struct NodeIdentity {
    /// The cluster.
    pub cluster_id: [u8; 16],
    /// Which of the cluster's nodes it is.
    pub node: NodeId,
    /// Key of the check value in receipt handles.
    pub handle_key: [u8; 32],
    /// The shard that this node serves.
    pub shard: ShardId,
}

impl Node {
    /// Answers long polls, makes everything proposed durable and closes the log. Requests after it are refused. When it
    /// resolves another process may have the folder; a second call waits for the first.
    pub async fn stop(&self) {
        self.running.stop().await;
    }
}
