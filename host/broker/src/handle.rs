//! What a receipt handle says. The text form and its check value belong to the protocol.

use crate::{Generation, GroupId, Millis, QueueOffset, ShardId, TopicId};

/// One delivery of one message to one group: the token of a lease (ruling 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct Handle {
    /// Shard that holds the message.
    pub shard: ShardId,
    /// Life of the topic.
    pub topic: TopicId,
    /// Life of the group.
    pub group: GroupId,
    /// Queue number in the topic.
    pub queue: u32,
    /// Queue offset.
    pub offset: QueueOffset,
    /// Changes with every lease and every change of one; grows with time.
    pub generation: Generation,
    /// When the lease ended as it was given; renewals by the broker move the end, not this mark.
    pub deadline: Millis,
}
