//! One receive, and what it gets.

use core::net::IpAddr;
use std::time::Instant;

use vouch_broker::delivery::Picked;
use vouch_broker::{Generation, GroupId, Millis, NotDone, ResourceName, TagFilter, TopicId};

/// Messages leased to a consumer; their bodies are still to be read.
#[derive(Debug)]
pub struct Batch {
    /// Of which topic they are.
    pub topic: TopicId,
    /// Which group they were leased to.
    pub group: GroupId,
    /// In the order of their delivery.
    pub messages: Vec<Picked>,
    /// Of their leases.
    pub generation: Generation,
    /// When these end.
    pub deadline: Millis,
}

/// What a receive gets: messages, nothing in time, or why not.
pub type ReceiveAnswer = Result<Option<Batch>, NotDone>;

/// Somebody who waits for the answer to a receive.
pub trait Waiter: Send {
    /// His number, which no other has, and which is higher than those of all who came before.
    fn number(&self) -> u64;

    /// Whether he went away.
    fn is_gone(&self) -> bool;

    /// Answers him.
    ///
    /// # Errors
    /// He went away: the messages that he does not get.
    fn answer(self: Box<Self>, answer: ReceiveAnswer) -> Result<(), Batch>;
}

/// One receive.
pub struct Poll {
    /// Of this topic.
    pub topic: ResourceName,
    /// For this group.
    pub group: ResourceName,
    /// For whom leases are renewed, if [`Self::auto_renew`].
    pub client_id: String,
    /// The machine that it came from, if that is known: its receives share half of the room.
    pub machine: Option<IpAddr>,
    /// What the consumer takes.
    pub filter: TagFilter,
    /// Messages at most.
    pub max: usize,
    /// How long the leases last.
    pub invisible_ms: u64,
    /// Whether they are extended for as long as the client lives.
    pub auto_renew: bool,
    /// When to answer with nothing.
    pub until: Instant,
    /// Who gets the answer.
    pub waiter: Box<dyn Waiter>,
}
