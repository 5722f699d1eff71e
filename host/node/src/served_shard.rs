//! Which shard this node serves.

use vouch_broker::ShardId;

/// As yet every node serves the first one.
pub(crate) const SHARD: ShardId = ShardId::FIRST;
