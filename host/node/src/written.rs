//! Writes of administrators.

use vouch_broker::record::TopicPut;
use vouch_broker::state::Applied;
use vouch_broker::{NotDone, ResourceName, TopicConfig};

use crate::{Expect, Written};
use vouch_shard::Shard;

/// Proposes an administrator's write. Resolves when it is durable.
///
/// # Errors
/// What the state refuses, such as a precondition that does not hold.
pub(crate) async fn written(shard: &Shard, encode: impl FnOnce(&mut Vec<u8>) -> usize) -> Result<Written, NotDone> {
    match shard.propose_one(encode).await? {
        Applied::Set { created, revision } => Ok(Written { created, revision }),
        other => Err(NotDone::Unknown(format!("a write was answered with {other:?}"))),
    }
}

/// Makes a topic, or replaces its settings. Resolves when that is durable.
///
/// # Errors
/// A refusal of the settings, or of what is there already.
pub(crate) async fn put_topic(
    shard: &Shard,
    name: ResourceName,
    config: TopicConfig,
    expect: Expect,
) -> Result<Written, NotDone> {
    config.check()?;
    let put = TopicPut { name, config, expected_revision: expect.revision() };
    written(shard, |out| put.encode(out)).await
}
