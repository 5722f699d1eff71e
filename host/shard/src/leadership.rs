//! What a replica says when it first leads, and what a node's start waits for.

use vouch_broker::Millis;
use vouch_broker::record::ClusterInit;
use vouch_cluster::ClusterIncarnation;
use vouch_commitlog::LogPosition;

/// All that the start proposed is durable and applied.
#[derive(Debug)]
pub struct Begun {
    /// Whose log it is.
    pub init: ClusterInit,
    /// Everything before this position is durable and applied.
    pub applied: LogPosition,
}

/// What a shard of a node that starts says when it first leads.
pub struct Lead {
    /// Of the folder; a log that does not know whose it is gets it.
    pub cluster_id: [u8; 16],
    /// The same.
    pub segment_size: u64,
    /// The same: secret, and drawn at random by whoever starts the node.
    pub handle_key: [u8; 32],
    /// The newest feature level that this node knows: a log that it makes has it.
    pub feature_level: u32,
    /// The life of the cluster that the folder belongs to. A log that does not say so yet is still on its way here.
    pub incarnation: ClusterIncarnation,
    /// The last time in the log, if the clock leapt on from there at the start.
    pub leapt_from: Option<Millis>,
}
