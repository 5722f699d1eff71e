//! Which shard this node serves, and what its transactions are called outside of it.

use vouch_broker::{HalfPosition, Refusal, ShardId, TransactionId};

/// As yet every node serves the first one.
pub(crate) const SHARD: ShardId = ShardId::FIRST;

/// The id of a transaction of this shard.
pub(crate) fn transaction_id(half: HalfPosition) -> TransactionId {
    TransactionId { shard: SHARD, half }
}

/// The half that a transaction of this shard is named by.
///
/// # Errors
/// [`Refusal::UnknownTransaction`] of one that another shard holds.
pub(crate) fn half_of(transaction: TransactionId) -> Result<HalfPosition, Refusal> {
    let TransactionId { shard, half } = transaction;
    if shard == SHARD {
        return Ok(half);
    }
    let why = format!("its shard {shard} is not served by this node");
    Err(Refusal::UnknownTransaction { id: transaction.to_string(), why })
}
